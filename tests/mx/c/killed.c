// SPDX-License-Identifier: Apache-2.0
//
// The peer is killed: requests with it end with a status, at once, and other peers go on.

#include "check.h"

static void expect_dead(mx_status_t status)
{
    if (status.code != MX_STATUS_ENDPOINT_UNREACHABLE && status.code != MX_STATUS_ENDPOINT_CLOSED &&
        status.code != MX_STATUS_BAD_SESSION)
        FAIL("the request ended with %d (%s)", (int)status.code, mx_strstatus(status.code));
}

int main(void)
{
    struct other other = split();
    static char large[1 << 20];
    mx_endpoint_t ep;
    mx_endpoint_addr_t peer, self, unreached;
    struct place place;
    mx_request_t pending, synchronous, receive, send;
    char in[10];
    int status;

    begin();
    ep = open_any();
    peer = meet(&other, ep);
    if (!other.pid) {
        done(ep, send_bytes(ep, peer, "0123456789", 10, 9));
        signal_other(&other);
        for (;;)
            pause();
    }
    place = place_of(peer);
    await_other(&other);
    pending = send_bytes(ep, peer, large, sizeof large, 1);
    synchronous = send_synchronously(ep, peer, large, 1, 1);
    receive = receive_bytes(ep, large, 10, 5, MX_MATCH_MASK_NONE);
    CHECK(kill(other.pid, SIGKILL) == 0);
    CHECK(waitpid(other.pid, &status, 0) == other.pid);
    expect_dead(ended(ep, pending));
    expect_dead(ended(ep, synchronous));
    // What it sent before is there.
    EQUAL(done(ep, receive_bytes(ep, in, sizeof in, 9, MX_MATCH_MASK_NONE)).xfer_length, 10);
    CHECK(memcmp(in, "0123456789", 10) == 0);
    expect_dead(ended(ep, send_synchronously(ep, peer, large, 1, 1)));
    // A receive from anybody goes on, whoever died.
    self = own_address(ep);
    send = send_bytes(ep, self, "x", 1, 5);
    EQUAL(done(ep, receive).xfer_length, 1);
    done(ep, send);
    RETURNS(mx_connect(ep, place.nic_id, place.endpoint_id, KEY, 10000, &unreached),
            MX_CONNECTION_FAILED);
    end(ep);
    return 0;
}
