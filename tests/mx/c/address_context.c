// SPDX-License-Identifier: Apache-2.0
//
// The pointer that an endpoint keeps with each peer: null at first, and the same through any copy of
// the address, the source of a message included.

#include "check.h"

int main(void)
{
    struct other other = split();
    mx_endpoint_t ep;
    mx_endpoint_addr_t peer, copy, again;
    mx_request_t send, receive;
    mx_status_t status;
    void *context = &other;
    char out[100], in[100], synchronous[100];

    begin();
    ep = open_any();
    peer = meet(&other, ep);
    OK(mx_get_endpoint_addr_context(peer, &context));
    CHECK(context == NULL);
    OK(mx_set_endpoint_addr_context(peer, &peer));
    memcpy(&copy, &peer, sizeof copy);
    OK(mx_get_endpoint_addr_context(copy, &context));
    CHECK(context == &peer);

    fill(out, sizeof out, 1);
    for (int i = 0; i < 2; i++) {
        receive = receive_bytes(ep, in, sizeof in, 1, MX_MATCH_MASK_NONE);
        send = i ? send_synchronously(ep, peer, out, sizeof out, 1)
                 : send_bytes(ep, peer, out, sizeof out, 1);
        status = done(ep, receive);
        context = NULL;
        OK(mx_get_endpoint_addr_context(status.source, &context));
        CHECK(context == &peer);
        status = done(ep, send);
        context = NULL;
        OK(mx_get_endpoint_addr_context(status.source, &context));
        CHECK(context == &peer);
    }
    // The source can be answered.
    receive = receive_bytes(ep, synchronous, sizeof synchronous, 2, MX_MATCH_MASK_NONE);
    done(ep, send_bytes(ep, peer, out, sizeof out, 2));
    status = done(ep, receive);
    receive = receive_bytes(ep, in, sizeof in, 3, MX_MATCH_MASK_NONE);
    done(ep, send_bytes(ep, status.source, out, sizeof out, 3));
    CHECK(same_address(done(ep, receive).source, peer));
    CHECK(holds(in, sizeof in, 1));
    // Connecting again gives the same bytes: programs compare them.
    again = connect_to(ep, place_of(peer));
    CHECK(memcmp(&again, &peer, sizeof peer) == 0);
    // One's own address has a context of its own.
    OK(mx_get_endpoint_addr_context(own_address(ep), &context));
    CHECK(context == NULL);

    signal_other(&other);
    await_other(&other);
    end(ep);
    if (other.pid)
        join_other(&other);
    return 0;
}
