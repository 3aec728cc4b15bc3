// SPDX-License-Identifier: Apache-2.0
//
// Progress without calls: the receiver posts its receive and then makes no call of the library until the
// sender says that its long, synchronous send is complete. Only the progression thread can do that.

#include "check.h"

enum { ROUNDS = 5 };

int main(void)
{
    struct other other = split();
    const uint32_t length = 3000000;
    char *bytes;
    mx_endpoint_t ep;
    mx_endpoint_addr_t peer;
    mx_request_t request;

    begin();
    ep = open_any();
    peer = meet(&other, ep);
    bytes = memory(length);
    for (uint64_t i = 0; i < ROUNDS; i++) {
        if (other.pid) {
            await_other(&other);
            fill(bytes, length, i);
            done(ep, send_synchronously(ep, peer, bytes, length, i));
            signal_other(&other);
        } else {
            request = receive_bytes(ep, bytes, length, i, MX_MATCH_MASK_NONE);
            signal_other(&other);
            await_other(&other);
            EQUAL(done(ep, request).xfer_length, length);
            CHECK(holds(bytes, length, i));
        }
    }
    signal_other(&other);
    await_other(&other);
    end(ep);
    if (other.pid)
        join_other(&other);
    return 0;
}
