// SPDX-License-Identifier: Apache-2.0
//
// The one queue of completed requests: ipeek shows the oldest of any kind and leaves it; test_any takes
// the oldest whose match info fits; sends and connects are found by theirs; contexts; forgetting;
// ibuffered; requests without a handle.

#include "check.h"

static void nothing_is_there(mx_endpoint_t ep)
{
    mx_request_t found = NULL;
    mx_status_t status;
    uint32_t result = 7;
    OK(mx_ipeek(ep, &found, &result));
    EQUAL(result, 0);
    OK(mx_test_any(ep, 0, 0, &status, &result));
    EQUAL(result, 0);
}

static void await_any(mx_endpoint_t ep, uint64_t match)
{
    mx_status_t status;
    uint32_t result;
    OK(mx_wait_any(ep, MX_INFINITE, match, MX_MATCH_MASK_NONE, &status, &result));
    EQUAL(result, 1);
    EQUAL(status.match_info, match);
    EQUAL(status.code, MX_STATUS_SUCCESS);
}

static void the_oldest(mx_endpoint_t ep, mx_endpoint_addr_t self)
{
    char bytes[3] = "";
    mx_request_t found, again;
    mx_status_t status;
    uint32_t result;

    for (uint64_t i = 0; i < 3; i++) {
        receive_bytes(ep, &bytes[i], 1, 10 + i, MX_MATCH_MASK_NONE);
        send_bytes(ep, self, &bytes[i], 1, 10 + i);
    }
    OK(mx_peek(ep, MX_INFINITE, &found, &result));
    EQUAL(result, 1);
    OK(mx_ipeek(ep, &again, &result));
    EQUAL(result, 1);
    CHECK(again == found);  // looking does not take
    await_any(ep, 12);
    await_any(ep, 12);
    OK(mx_test_any(ep, 12, MX_MATCH_MASK_NONE, &status, &result));
    EQUAL(result, 0);
    OK(mx_ipeek(ep, &again, &result));
    CHECK(result == 1 && again == found);
    OK(mx_test(ep, &found, &status, &result));
    EQUAL(result, 1);
    EQUAL(status.match_info, 10);
    for (int left = 3; left > 0; left--) {
        OK(mx_wait_any(ep, MX_INFINITE, 0, 0, &status, &result));
        EQUAL(result, 1);
        EQUAL(status.match_info, left == 3 ? 10 : 11);  // in the order of completion
    }
    nothing_is_there(ep);
}

static void connects_are_found(mx_endpoint_t ep)
{
    struct place own = own_place(ep);
    mx_request_t request = NULL;
    mx_status_t status;
    uint32_t result;
    int context;

    OK(mx_iconnect(ep, own.nic_id, own.endpoint_id, KEY, 0x77, &context, &request));
    OK(mx_wait_any(ep, MX_INFINITE, 0x77, 0xff, &status, &result));
    EQUAL(result, 1);
    EQUAL(status.code, MX_STATUS_SUCCESS);
    EQUAL(status.match_info, 0x77);
    CHECK(status.context == &context);
    CHECK(same_address(status.source, own_address(ep)));
    nothing_is_there(ep);
}

static void contexts(mx_endpoint_t ep, mx_endpoint_addr_t self)
{
    char byte = 0;
    int mine;
    void *context = NULL;
    mx_segment_t one = segment(&byte, 1);
    mx_request_t receive, send;
    uint32_t result;

    OK(mx_irecv(ep, &one, 1, 1, MX_MATCH_MASK_NONE, &mine, &receive));
    OK(mx_context(&receive, &context));
    CHECK(context == &mine);
    RETURNS(mx_ibuffered(ep, &receive, &result), MX_BAD_REQUEST);
    send = send_bytes(ep, self, &byte, 1, 1);
    EQUAL(done(ep, receive).xfer_length, 1);
    OK(mx_ibuffered(ep, &send, &result));
    EQUAL(result, 1);
    OK(mx_context(&send, &context));
    CHECK(context == NULL);
    done(ep, send);
}

static void forgotten(mx_endpoint_t ep, mx_endpoint_addr_t self)
{
    char in[2] = "", out = 42;
    mx_segment_t one = segment(&out, 1);
    mx_request_t request = receive_bytes(ep, &in[0], 1, 1, MX_MATCH_MASK_NONE);

    OK(mx_forget(ep, &request));
    CHECK(request == NULL);
    OK(mx_isend(ep, &one, 1, self, 1, NULL, NULL));
    request = receive_bytes(ep, &in[1], 1, 2, MX_MATCH_MASK_NONE);
    OK(mx_isend(ep, &one, 1, self, 2, NULL, NULL));
    done(ep, request);
    // Messages match in order, so the forgotten receive has its byte by now.
    EQUAL(in[0], 42);
    nothing_is_there(ep);
}

static void empty_messages(mx_endpoint_t ep, mx_endpoint_addr_t self)
{
    mx_request_t receive = NULL, send = NULL;
    mx_status_t status;
    OK(mx_irecv(ep, NULL, 0, 1, MX_MATCH_MASK_NONE, NULL, &receive));
    OK(mx_isend(ep, NULL, 0, self, 1, NULL, &send));
    status = done(ep, receive);
    EQUAL(status.msg_length, 0);
    EQUAL(status.xfer_length, 0);
    done(ep, send);
}

int main(void)
{
    mx_endpoint_t ep;

    begin();
    ep = open_any();
    nothing_is_there(ep);
    the_oldest(ep, own_address(ep));
    connects_are_found(ep);
    contexts(ep, own_address(ep));
    forgotten(ep, own_address(ep));
    empty_messages(ep, own_address(ep));
    end(ep);
    return 0;
}
