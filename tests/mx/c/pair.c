// SPDX-License-Identifier: Apache-2.0
//
// Two processes: every class of length both ways, expected and unexpected, plain and synchronous.

#include "check.h"

static const uint64_t MATCH = UINT64_C(0x8123456789abcdef);

static void send_one(mx_endpoint_t ep, mx_endpoint_addr_t peer, uint32_t length, int synchronous)
{
    mx_segment_t one;
    mx_request_t request = NULL;
    mx_status_t status;
    char *bytes = memory(length);
    int context;

    fill(bytes, length, length);
    one = segment(bytes, length);
    OK((synchronous ? mx_issend : mx_isend)(ep, &one, 1, peer, MATCH, &context, &request));
    status = done(ep, request);
    CHECK(same_address(status.source, peer));
    CHECK(status.context == &context);
    EQUAL(status.match_info, MATCH);
    EQUAL(status.msg_length, length);
    EQUAL(status.xfer_length, length);
    free(bytes);
}

static void receive_one(mx_endpoint_t ep, mx_endpoint_addr_t peer, uint32_t length)
{
    mx_segment_t one;
    mx_request_t request = NULL;
    mx_status_t status;
    char *bytes = memory(length);
    int context;

    one = segment(bytes, length);
    OK(mx_irecv(ep, &one, 1, MATCH, MX_MATCH_MASK_NONE, &context, &request));
    status = done(ep, request);
    CHECK(same_address(status.source, peer));
    CHECK(status.context == &context);
    EQUAL(status.match_info, MATCH);
    EQUAL(status.msg_length, length);
    EQUAL(status.xfer_length, length);
    CHECK(holds(bytes, length, length));
    EQUAL((unsigned char)bytes[length], 0xee);
    free(bytes);
}

static void turns(mx_endpoint_t ep, mx_endpoint_addr_t peer, int first)
{
    for (size_t i = 0; i < COUNT_OF(LENGTHS); i++)
        for (int synchronous = 0; synchronous < 2; synchronous++) {
            if (first)
                send_one(ep, peer, LENGTHS[i], synchronous);
            receive_one(ep, peer, LENGTHS[i]);
            if (!first)
                send_one(ep, peer, LENGTHS[i], synchronous);
        }
}

// Both send before either receives: nobody waits for the other.
static void crossing(mx_endpoint_t ep, mx_endpoint_addr_t peer)
{
    uint32_t length = 1 << 20;
    char *out = memory(length), *in = memory(length);
    mx_request_t send, receive;

    fill(out, length, 3);
    send = send_bytes(ep, peer, out, length, 1);
    receive = receive_bytes(ep, in, length, 1, MX_MATCH_MASK_NONE);
    done(ep, send);
    done(ep, receive);
    CHECK(holds(in, length, 3));
    free(out);
    free(in);
}

int main(void)
{
    struct other other = split();
    mx_endpoint_t ep;
    mx_endpoint_addr_t peer;

    begin();
    ep = open_any();
    peer = meet(&other, ep);
    turns(ep, peer, other.pid != 0);
    crossing(ep, peer);
    // Neither closes before the other has all.
    signal_other(&other);
    await_other(&other);
    end(ep);
    if (other.pid)
        join_other(&other);
    return 0;
}
