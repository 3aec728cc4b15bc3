// SPDX-License-Identifier: Apache-2.0
//
// An endpoint sends to itself: every class of length, receives posted first, several under way.

#include "check.h"

enum { PARALLEL = 4, ROUNDS = 3 };

static void several(mx_endpoint_t ep, mx_endpoint_addr_t self, uint32_t length, int synchronous)
{
    mx_request_t sends[PARALLEL], receives[PARALLEL];
    char *out[PARALLEL], *in[PARALLEL];

    for (uint64_t i = 0; i < PARALLEL; i++) {
        in[i] = memory(length);
        receives[i] = receive_bytes(ep, in[i], length, i, MX_MATCH_MASK_NONE);
    }
    // In the other order: it is the match info that joins them.
    for (int i = PARALLEL - 1; i >= 0; i--) {
        out[i] = memory(length);
        fill(out[i], length, (uint64_t)i);
        sends[i] = synchronous ? send_synchronously(ep, self, out[i], length, (uint64_t)i)
                               : send_bytes(ep, self, out[i], length, (uint64_t)i);
    }
    for (uint64_t i = 0; i < PARALLEL; i++) {
        mx_status_t received = done(ep, receives[i]), sent = done(ep, sends[i]);
        CHECK(same_address(received.source, self));
        EQUAL(received.match_info, i);
        EQUAL(received.msg_length, length);
        EQUAL(received.xfer_length, length);
        EQUAL(sent.match_info, i);
        EQUAL(sent.xfer_length, length);
        CHECK(holds(in[i], length, i));
        EQUAL((unsigned char)in[i][length], 0xee);
        free(in[i]);
        free(out[i]);
    }
}

// Completion by peek and test, as the oldest programs do it.
static void by_peek(mx_endpoint_t ep, mx_endpoint_addr_t self)
{
    char out[95], in[95];
    mx_request_t send, receive, found;
    mx_status_t status;
    uint32_t result;

    fill(out, sizeof out, 5);
    receive = receive_bytes(ep, in, sizeof in, 9, MX_MATCH_MASK_NONE);
    send = send_bytes(ep, self, out, sizeof out, 9);
    for (int left = 2; left > 0; left--) {
        OK(mx_peek(ep, MX_INFINITE, &found, &result));
        EQUAL(result, 1);
        CHECK(found == send || found == receive);
        OK(mx_test(ep, &found, &status, &result));
        EQUAL(result, 1);
        CHECK(found == NULL);
    }
    CHECK(holds(in, sizeof in, 5));
}

int main(void)
{
    mx_endpoint_t ep;
    mx_endpoint_addr_t self;

    begin();
    ep = open_any();
    self = own_address(ep);
    for (size_t i = 0; i < COUNT_OF(LENGTHS); i++)
        for (int round = 0; round < ROUNDS; round++) {
            several(ep, self, LENGTHS[i], 0);
            several(ep, self, LENGTHS[i], 1);
        }
    by_peek(ep, self);
    // Connecting to oneself is allowed and gives the same place.
    CHECK(same_address(connect_to(ep, own_place(ep)), self));
    end(ep);
    return 0;
}
