// SPDX-License-Identifier: Apache-2.0
//
// The deprecated callback: it is called for each message without a receive, with match info and length,
// and posts the receive itself, as the MX layer of Charm++ does.

#include "check.h"

enum { MESSAGES = 50 };

struct state {
    mx_endpoint_t ep;
    char *bytes[MESSAGES];
    mx_request_t requests[MESSAGES];
    atomic_int calls;
};

static uint32_t length_of(uint64_t number)
{
    return (uint32_t)(number * number * 97);
}

static void arrived(void *context, uint64_t match, int length)
{
    struct state *state = context;
    uint64_t number = match >> 32;
    EQUAL(number, (uint64_t)state->calls);  // in the order of the sends
    EQUAL(length, length_of(number));
    state->bytes[number] = memory((size_t)length);
    state->requests[number] = receive_bytes(state->ep, state->bytes[number], (uint32_t)length,
                                            match, MX_MATCH_MASK_NONE);
    state->calls++;
}

int main(void)
{
    struct other other = split();
    static struct state state;
    mx_endpoint_addr_t peer;

    begin();
    state.ep = open_any();
    OK(mx_register_unexp_callback(state.ep, arrived, &state));
    peer = meet(&other, state.ep);
    for (uint64_t i = 0; other.pid && i < MESSAGES; i++) {
        char *bytes = memory(length_of(i));
        fill(bytes, length_of(i), i);
        done(state.ep, send_bytes(state.ep, peer, bytes, length_of(i), i << 32));
        free(bytes);
    }
    while (!other.pid && state.calls < MESSAGES)
        OK(mx_progress(state.ep));
    for (uint64_t i = 0; !other.pid && i < MESSAGES; i++) {
        EQUAL(done(state.ep, state.requests[i]).xfer_length, length_of(i));
        CHECK(holds(state.bytes[i], length_of(i), i));
        free(state.bytes[i]);
    }
    signal_other(&other);
    await_other(&other);
    end(state.ep);
    if (other.pid)
        join_other(&other);
    return 0;
}
