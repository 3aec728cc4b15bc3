// SPDX-License-Identifier: Apache-2.0
//
// Every return code that can be provoked, through return values and through handlers: the global one,
// that of an endpoint, and what a handler makes of a code.

#include "check.h"

static mx_return_t last_code;
static int handler_calls;
static mx_return_t replacement;

static mx_return_t replace(char *text, mx_return_t code)
{
    CHECK(text != NULL && text[0] != '\0');
    last_code = code;
    handler_calls++;
    return replacement;
}

static void before_init(void)
{
    mx_endpoint_t ep = NULL;
    uint64_t nic_id;
    uint32_t number;

    RETURNS(mx_open_endpoint(BOARD, 0, KEY, NULL, 0, &ep), MX_NOT_INITIALIZED);
    RETURNS(mx_get_info(NULL, MX_NIC_COUNT, NULL, 0, &number, sizeof number), MX_NOT_INITIALIZED);
    RETURNS(mx_board_number_to_nic_id(BOARD, &nic_id), MX_NOT_INITIALIZED);
    RETURNS(mx_nic_id_to_board_number(1, &number), MX_NOT_INITIALIZED);
    RETURNS(mx__init_api(0), MX_BAD_LIB_VERSION);
    RETURNS(mx__init_api(0x200), MX_BAD_LIB_VERSION);
    RETURNS(mx__init_api(0x400), MX_BAD_LIB_VERSION);
    RETURNS(mx__init_api(-1), MX_BAD_LIB_VERSION);
}

static void opening(mx_endpoint_t ep)
{
    mx_endpoint_t second = NULL;
    uint32_t own = own_place(ep).endpoint_id;
    mx_param_t param;

    memset(&param, 0, sizeof param);
    RETURNS(mx_open_endpoint(BOARD, own, KEY, NULL, 0, &second), MX_BUSY);
    RETURNS(mx_open_endpoint(77, MX_ANY_ENDPOINT, KEY, NULL, 0, &second), MX_BOARD_UNKNOWN);
    RETURNS(mx_open_endpoint(BOARD, 70000, KEY, NULL, 0, &second), MX_BAD_ENDPOINT);
    RETURNS(mx_open_endpoint(BOARD, MX_ANY_ENDPOINT, KEY, NULL, 1, &second), MX_BAD_PARAM_LIST);
    param.key = (mx_param_key_t)99;
    RETURNS(mx_open_endpoint(BOARD, MX_ANY_ENDPOINT, KEY, &param, 1, &second), MX_BAD_PARAM_NAME);
    param.key = MX_PARAM_CONTEXT_ID;
    param.val.context_id.bits = MX_CONTEXT_ID_BITS_MAX + 1;
    RETURNS(mx_open_endpoint(BOARD, MX_ANY_ENDPOINT, KEY, &param, 1, &second), MX_BAD_PARAM_VAL);
    param.key = MX_PARAM_UNEXP_QUEUE_MAX;
    param.val.unexp_queue_max = 1;
    OK(mx_open_endpoint(MX_ANY_NIC, MX_ANY_ENDPOINT, KEY, &param, 1, &second));
    OK(mx_close_endpoint(second));
}

static void connecting(mx_endpoint_t ep)
{
    struct place own = own_place(ep);
    mx_endpoint_addr_t address;
    mx_request_t request = NULL;
    mx_status_t status;
    uint32_t free_id = own.endpoint_id == 200 ? 201 : 200;

    RETURNS(mx_connect(ep, UINT64_C(0x0badbadbad00), 0, KEY, 1000, &address), MX_NIC_NOT_FOUND);
    RETURNS(mx_iconnect(ep, UINT64_C(0x0badbadbad00), 0, KEY, 0, NULL, &request),
            MX_NIC_NOT_FOUND);
    RETURNS(mx_connect(ep, own.nic_id, 70000, KEY, 10000, &address), MX_BAD_ENDPOINT_ID);
    RETURNS(mx_connect(ep, own.nic_id, free_id, KEY, 10000, &address), MX_CONNECTION_FAILED);
    RETURNS(mx_connect(ep, own.nic_id, own.endpoint_id, KEY + 1, 10000, &address),
            MX_BAD_CONNECTION_KEY);

    OK(mx_iconnect(ep, own.nic_id, 70000, KEY, 0, NULL, &request));
    status = ended(ep, request);
    EQUAL(status.code, MX_STATUS_BAD_ENDPOINT);
    OK(mx_iconnect(ep, own.nic_id, free_id, KEY, 0, NULL, &request));
    status = ended(ep, request);
    EQUAL(status.code, MX_STATUS_ENDPOINT_CLOSED);
    OK(mx_iconnect(ep, own.nic_id, own.endpoint_id, KEY + 1, 0, NULL, &request));
    status = ended(ep, request);
    EQUAL(status.code, MX_STATUS_BAD_KEY);
}

// The key of another endpoint, which is not checked by looking at our own.
static void another_key(mx_endpoint_t ep)
{
    mx_endpoint_t neighbour;
    mx_endpoint_addr_t address;
    struct place theirs;

    OK(mx_open_endpoint(BOARD, MX_ANY_ENDPOINT, 1234, NULL, 0, &neighbour));
    theirs = own_place(neighbour);
    RETURNS(mx_connect(ep, theirs.nic_id, theirs.endpoint_id, 4321, 10000, &address),
            MX_BAD_CONNECTION_KEY);
    OK(mx_connect(ep, theirs.nic_id, theirs.endpoint_id, 1234, 10000, &address));
    // A connection that exists is not hurt by a later attempt with a wrong key.
    RETURNS(mx_connect(ep, theirs.nic_id, theirs.endpoint_id, 4321, 10000, &address),
            MX_BAD_CONNECTION_KEY);
    OK(mx_connect(ep, theirs.nic_id, theirs.endpoint_id, 1234, 10000, &address));
    mx_request_t request = send_bytes(ep, address, "", 1, 1);
    char byte;
    done(neighbour, receive_bytes(neighbour, &byte, 1, 1, MX_MATCH_MASK_NONE));
    done(ep, request);
    OK(mx_close_endpoint(neighbour));
}

static void posting(mx_endpoint_t ep)
{
    char byte = 0;
    static mx_segment_t segments[MX_MAX_SEGMENTS + 1];
    mx_request_t request = NULL;
    mx_status_t status;
    uint32_t result;
    mx_endpoint_addr_t self = own_address(ep);
    const uint32_t many = MX_MAX_SEGMENTS + 1;

    for (uint32_t i = 0; i < many; i++)
        segments[i] = segment(&byte, 0);
    RETURNS(mx_isend(ep, segments, many, self, 0, NULL, &request), MX_BAD_SEG_CNT);
    RETURNS(mx_issend(ep, segments, many, self, 0, NULL, &request), MX_BAD_SEG_CNT);
    RETURNS(mx_irecv(ep, segments, many, 0, 0, NULL, &request), MX_BAD_SEG_CNT);
    RETURNS(mx_irecv(ep, segments, 1, 3, 1, NULL, &request), MX_BAD_MATCH_MASK);
    RETURNS(mx_test_any(ep, 3, 1, &status, &result), MX_BAD_MATCH_MASK);
    RETURNS(mx_wait_any(ep, 1, 3, 1, &status, &result), MX_BAD_MATCH_MASK);
    RETURNS(mx_iprobe(ep, 3, 1, &status, &result), MX_BAD_MATCH_MASK);
    RETURNS(mx_probe(ep, 1, 3, 1, &status, &result), MX_BAD_MATCH_MASK);
}

static void questions(void)
{
    uint64_t ids[64], nic_id;
    uint32_t number;
    char text[MX_MAX_HOSTNAME_LEN];

    RETURNS(mx_get_info(NULL, (mx_get_info_key_t)999, NULL, 0, &number, sizeof number),
            MX_BAD_INFO_KEY);
    RETURNS(mx_get_info(NULL, MX_NIC_COUNT, NULL, 0, NULL, sizeof number), MX_BAD_INFO_VAL);
    RETURNS(mx_get_info(NULL, MX_NIC_COUNT, NULL, 0, &number, 1), MX_BAD_INFO_LENGTH);
    RETURNS(mx_get_info(NULL, MX_NIC_IDS, NULL, 0, ids, 8), MX_BAD_INFO_LENGTH);
    number = 77;
    RETURNS(mx_get_info(NULL, MX_LINE_SPEED, &number, sizeof number, &number, sizeof number),
            MX_BOARD_UNKNOWN);
    RETURNS(mx_hostname_to_nic_id("no such host:0", &nic_id), MX_HOST_NOT_FOUND);
    RETURNS(mx_nic_id_to_hostname(UINT64_C(0x0badbadbad00), text), MX_HOST_NOT_FOUND);
    RETURNS(mx_board_number_to_nic_id(77, &nic_id), MX_BOARD_UNKNOWN);
    RETURNS(mx_nic_id_to_board_number(UINT64_C(0x0badbadbad00), &number), MX_BOARD_UNKNOWN);
}

static void handlers(void)
{
    mx_param_t param;
    mx_endpoint_t ep;
    mx_status_t status;
    uint32_t result;
    char bytes[2] = "";
    uint64_t nic_id;

    CHECK(mx_set_error_handler(replace) == MX_ERRORS_RETURN);
    replacement = MX_FAILURE;
    RETURNS(mx_board_number_to_nic_id(77, &nic_id), MX_FAILURE);
    EQUAL(last_code, MX_BOARD_UNKNOWN);
    replacement = MX_SUCCESS;
    RETURNS(mx_board_number_to_nic_id(77, &nic_id), MX_SUCCESS);
    CHECK(mx_set_error_handler(MX_ERRORS_RETURN) == replace);

    param.key = MX_PARAM_ERROR_HANDLER;
    param.val.error_handler = replace;
    OK(mx_open_endpoint(BOARD, MX_ANY_ENDPOINT, KEY, &param, 1, &ep));
    handler_calls = 0;
    replacement = MX_FAILURE;
    RETURNS(mx_test_any(ep, 3, 1, &status, &result), MX_FAILURE);
    EQUAL(last_code, MX_BAD_MATCH_MASK);
    EQUAL(handler_calls, 1);
    RETURNS(mx_board_number_to_nic_id(77, &nic_id), MX_BOARD_UNKNOWN);
    EQUAL(handler_calls, 1);
    // A request that completes with an error calls it too; what it returns becomes the status.
    replacement = (mx_return_t)MX_STATUS_ABORTED;
    mx_request_t receive = receive_bytes(ep, bytes, 1, 1, MX_MATCH_MASK_NONE);
    mx_request_t send = send_bytes(ep, own_address(ep), bytes, 2, 1);
    EQUAL(ended(ep, receive).code, MX_STATUS_ABORTED);
    EQUAL(ended(ep, send).code, MX_STATUS_ABORTED);
    EQUAL(handler_calls, 3);
    OK(mx_close_endpoint(ep));
}

int main(void)
{
    mx_endpoint_t ep;

    mx_set_error_handler(MX_ERRORS_RETURN);
    before_init();
    begin();
    RETURNS(mx_init(), MX_ALREADY_INITIALIZED);
    RETURNS(mx_init(), MX_ALREADY_INITIALIZED);
    ep = open_any();
    opening(ep);
    connecting(ep);
    another_key(ep);
    posting(ep);
    questions();
    handlers();
    RETURNS(mx_init(), MX_ALREADY_INITIALIZED);
    end(ep);
    // And once more from the beginning.
    OK(mx_init());
    end(open_any());
    return 0;
}
