// SPDX-License-Identifier: Apache-2.0
//
// The native interface of Open-MX: another door to the same endpoints. Timeouts come last, 0 does not wait,
// one type of code, and a cancelled request can be kept.

#include "check.h"

#include <open-mx.h>

#define NATIVE(call, wanted)                                                                       \
    do {                                                                                           \
        int code_ = (int)(call);                                                                   \
        if (code_ != (int)(wanted))                                                                \
            FAIL("%s returned %d (%s), not %s", #call, code_, omx_strerror(code_), #wanted);       \
    } while (0)
#define FINE(call) NATIVE(call, OMX_SUCCESS)

static omx_status_t wait_for(omx_endpoint_t ep, omx_request_t request)
{
    omx_status_t status;
    uint32_t result = 0;
    FINE(omx_wait(ep, &request, &status, &result, OMX_TIMEOUT_INFINITE));
    EQUAL(result, 1);
    CHECK(request == NULL);
    return status;
}

static void lengths(omx_endpoint_t ep, omx_endpoint_addr_t self)
{
    for (size_t i = 0; i < COUNT_OF(LENGTHS); i++) {
        uint32_t length = LENGTHS[i];
        char *out = memory(length), *in = memory(length);
        omx_request_t receive, send;
        fill(out, length, i);
        FINE(omx_irecv(ep, in, length, 1, ~UINT64_C(0), NULL, &receive));
        FINE((i % 2 ? omx_isend : omx_issend)(ep, out, length, self, 1, NULL, &send));
        EQUAL(wait_for(ep, receive).xfer_length, length);
        EQUAL(wait_for(ep, send).code, OMX_SUCCESS);
        CHECK(holds(in, length, i));
        free(out);
        free(in);
    }
}

static void segments(omx_endpoint_t ep, omx_endpoint_addr_t self)
{
    char out[60], in[60];
    omx_seg_t outs[3] = {{out, 20}, {NULL, 0}, {out + 20, 40}}, ins[2] = {{in, 1}, {in + 1, 59}};
    omx_request_t receive, send;
    for (int i = 0; i < 2; i++) {
        fill(out, sizeof out, (uint64_t)i);
        FINE(omx_irecvv(ep, ins, 2, 1, ~UINT64_C(0), NULL, &receive));
        FINE((i ? omx_isendv : omx_issendv)(ep, outs, 3, self, 1, NULL, &send));
        EQUAL(wait_for(ep, receive).xfer_length, 60);
        wait_for(ep, send);
        CHECK(holds(in, sizeof in, (uint64_t)i));
    }
    NATIVE(omx_isendv(ep, outs, 257, self, 1, NULL, &send), OMX_SEGMENTS_BAD_COUNT);
}

static void not_waiting(omx_endpoint_t ep, omx_endpoint_addr_t self)
{
    char byte = 0;
    omx_request_t receive, send, found;
    omx_status_t status;
    uint32_t result = 7;

    FINE(omx_irecv(ep, &byte, 1, 1, ~UINT64_C(0), &byte, &receive));
    FINE(omx_wait(ep, &receive, &status, &result, 0));
    EQUAL(result, 0);
    FINE(omx_wait_any(ep, 0, 0, &status, &result, 0));
    EQUAL(result, 0);
    FINE(omx_peek(ep, &found, &result, 0));
    EQUAL(result, 0);
    FINE(omx_probe(ep, 0, 0, &status, &result, 0));
    EQUAL(result, 0);
    FINE(omx_isend(ep, &byte, 1, self, 1, NULL, &send));
    wait_for(ep, receive);
    FINE(omx_ibuffered(ep, &send, &result));
    EQUAL(result, 1);
    FINE(omx_forget(ep, &send));
    FINE(omx_isend(ep, &byte, 1, self, 2, NULL, NULL));
    FINE(omx_probe(ep, 2, ~UINT64_C(0), &status, &result, OMX_TIMEOUT_INFINITE));
    EQUAL(result, 1);
    FINE(omx_irecv(ep, &byte, 1, 2, ~UINT64_C(0), NULL, NULL));
    FINE(omx_progress(ep));
}

static void truncation(omx_endpoint_t ep, omx_endpoint_addr_t self)
{
    char out[100] = "", in[100];
    omx_request_t receive, send;
    omx_status_t status;
    FINE(omx_irecv(ep, in, 40, 1, ~UINT64_C(0), NULL, &receive));
    FINE(omx_isend(ep, out, 100, self, 1, NULL, &send));
    status = wait_for(ep, receive);
    EQUAL(status.code, OMX_MESSAGE_TRUNCATED);
    EQUAL(status.msg_length, 100);
    EQUAL(status.xfer_length, 40);
    EQUAL(wait_for(ep, send).code, OMX_MESSAGE_TRUNCATED);
}

static void cancelling(omx_endpoint_t ep)
{
    char byte;
    omx_request_t kept, freed;
    omx_status_t status;
    uint32_t result = 0;
    FINE(omx_irecv(ep, &byte, 1, 1, ~UINT64_C(0), &kept, &kept));
    FINE(omx_irecv(ep, &byte, 1, 2, ~UINT64_C(0), NULL, &freed));
    FINE(omx_cancel_notest(ep, &kept, &result));
    EQUAL(result, 1);
    FINE(omx_cancel(ep, &freed, &result));
    EQUAL(result, 1);
    CHECK(freed == NULL);
    FINE(omx_test_any(ep, 0, 0, &status, &result));
    EQUAL(result, 1);
    EQUAL(status.code, OMX_CANCELLED);
    EQUAL(status.match_info, 1);
    FINE(omx_test_any(ep, 0, 0, &status, &result));
    EQUAL(result, 0);
}

static omx_unexp_handler_action_t handle(void *context, omx_endpoint_addr_t source, uint64_t match,
                                         uint32_t length, void *data)
{
    uint64_t nic_id;
    uint32_t endpoint_id;
    FINE(omx_decompose_endpoint_addr(source, &nic_id, &endpoint_id));
    EQUAL(length, 5);
    CHECK(data != NULL && memcmp(data, "hello", 5) == 0);
    *(atomic_ullong *)context = match;
    return OMX_UNEXP_HANDLER_RECV_FINISHED;
}

static void unexpected(omx_endpoint_t ep, omx_endpoint_addr_t self)
{
    static atomic_ullong match;
    omx_request_t send;
    FINE(omx_register_unexp_handler(ep, handle, &match));
    FINE(omx_isend(ep, (void *)"hello", 5, self, 77, NULL, &send));
    wait_for(ep, send);
    EQUAL(match, 77);
    FINE(omx_register_unexp_handler(ep, NULL, NULL));
}

static void questions(omx_endpoint_t ep)
{
    uint32_t boards = 0, endpoints = 0, count = 0, board = BOARD, values[256];
    uint64_t ids[256], nic_id, found;
    char text[128];
    uint8_t index = 0;

    FINE(omx_get_info(NULL, OMX_INFO_BOARD_MAX, NULL, 0, &boards, sizeof boards));
    FINE(omx_get_info(NULL, OMX_INFO_ENDPOINT_MAX, NULL, 0, &endpoints, sizeof endpoints));
    FINE(omx_get_info(NULL, OMX_INFO_BOARD_COUNT, NULL, 0, &count, sizeof count));
    CHECK(boards >= count && count >= 1 && endpoints >= 1);
    FINE(omx_get_info(NULL, OMX_INFO_BOARD_IDS, NULL, 0, ids, sizeof ids));
    EQUAL(ids[count], 0);
    FINE(omx_get_info(NULL, OMX_INFO_BOARD_HOSTNAME, &board, sizeof board, text, sizeof text));
    FINE(omx_board_number_to_nic_id(BOARD, &nic_id));
    FINE(omx_hostname_to_nic_id(text, &found));
    EQUAL(found, nic_id);
    FINE(omx_nic_id_to_hostname(nic_id, text));
    FINE(omx_nic_id_to_board_number(nic_id, &board));
    EQUAL(board, BOARD);
    FINE(omx_get_info(ep, OMX_INFO_BOARD_IFACENAME, NULL, 0, text, sizeof text));
    FINE(omx_get_info(ep, OMX_INFO_BOARD_NUMA_NODE, NULL, 0, &boards, sizeof boards));
    FINE(omx_get_info(NULL, OMX_INFO_COUNTER_MAX, NULL, 0, &count, sizeof count));
    CHECK(count <= COUNT_OF(values));
    FINE(omx_get_info(ep, OMX_INFO_COUNTER_VALUES, NULL, 0, values, sizeof values));
    FINE(omx_get_info(NULL, OMX_INFO_COUNTER_LABEL, &index, 1, text, sizeof text));
    CHECK(text[0] != '\0');
    NATIVE(omx_get_info(NULL, (omx_info_key_t)99, NULL, 0, text, sizeof text), OMX_BAD_INFO_KEY);
}

static omx_return_t ignore(char *text, omx_return_t code)
{
    (void)text;
    return code;
}

static void errors(omx_endpoint_t ep)
{
    for (int code = -2; code < 130; code++)
        CHECK(omx_strerror((omx_return_t)code) != NULL);
    CHECK(omx_set_error_handler(NULL, ignore) == OMX_ERRORS_RETURN);
    CHECK(omx_set_error_handler(NULL, OMX_ERRORS_RETURN) == ignore);
    omx_set_error_handler(ep, ignore);
    CHECK(omx_set_error_handler(ep, OMX_ERRORS_RETURN) == ignore);
    NATIVE(omx_init(), OMX_ALREADY_INITIALIZED);
}

// A second endpoint of the process, connected to in both ways.
static void connecting(omx_endpoint_t ep)
{
    omx_endpoint_param_t param;
    omx_endpoint_t second;
    omx_endpoint_addr_t address;
    omx_request_t request;
    uint64_t nic_id;
    uint32_t endpoint_id, session = 0;
    void *context = &param;

    param.key = OMX_ENDPOINT_PARAM_CONTEXT_ID;
    param.val.context_id.bits = 4;
    param.val.context_id.shift = 4;
    FINE(omx_open_endpoint(OMX_ANY_NIC, OMX_ANY_ENDPOINT, KEY, &param, 1, &second));
    FINE(omx_get_endpoint_addr(second, &address));
    FINE(omx_decompose_endpoint_addr_with_session(address, &nic_id, &endpoint_id, &session));
    FINE(omx_iconnect(ep, nic_id, endpoint_id, KEY, 5, NULL, &request));
    address = wait_for(ep, request).addr;
    FINE(omx_connect(ep, nic_id, endpoint_id, KEY, OMX_TIMEOUT_INFINITE, &address));
    NATIVE(omx_connect(ep, nic_id, endpoint_id, KEY + 1, OMX_TIMEOUT_INFINITE, &address),
           OMX_REMOTE_ENDPOINT_BAD_CONNECTION_KEY);
    FINE(omx_get_endpoint_addr_context(address, &context));
    CHECK(context == NULL);
    FINE(omx_set_endpoint_addr_context(address, &param));
    FINE(omx_get_endpoint_addr_context(address, &context));
    CHECK(context == &param);
    FINE(omx_isend(ep, &session, sizeof session, address, 1, NULL, &request));
    EQUAL(wait_for(ep, request).code, OMX_SUCCESS);
    FINE(omx_disconnect(ep, address));
    FINE(omx_wakeup(second));
    FINE(omx_disable_progression(second));
    FINE(omx_reenable_progression(second));
    FINE(omx_set_request_timeout(second, NULL, 20000));
    FINE(omx_close_endpoint(second));
}

int main(void)
{
    omx_endpoint_t ep;
    omx_endpoint_addr_t self;

    alarm(PATIENCE_S);
    omx_set_error_handler(NULL, OMX_ERRORS_RETURN);
    FINE(omx_init());
    FINE(omx_open_endpoint(BOARD, OMX_ANY_ENDPOINT, KEY, NULL, 0, &ep));
    FINE(omx_get_endpoint_addr(ep, &self));
    lengths(ep, self);
    segments(ep, self);
    not_waiting(ep, self);
    truncation(ep, self);
    cancelling(ep);
    unexpected(ep, self);
    questions(ep);
    errors(ep);
    connecting(ep);
    FINE(omx_close_endpoint(ep));
    FINE(omx_finalize());
    return 0;
}
