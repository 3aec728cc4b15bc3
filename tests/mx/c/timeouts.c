// SPDX-License-Identifier: Apache-2.0
//
// Waits that end because time passed: they succeed, with a result of 0, and leave all as it was.

#include "check.h"

int main(void)
{
    mx_endpoint_t ep;
    mx_request_t request, found = NULL;
    mx_status_t status;
    uint32_t result;
    char bytes[8] = "";

    begin();
    ep = open_any();
    request = receive_bytes(ep, bytes, sizeof bytes, 1, MX_MATCH_MASK_NONE);
    for (uint32_t timeout = 1; timeout <= 20; timeout += 19) {
        result = 7;
        OK(mx_wait(ep, &request, timeout, &status, &result));
        EQUAL(result, 0);
        CHECK(request != NULL);
        result = 7;
        OK(mx_wait_any(ep, timeout, 0, 0, &status, &result));
        EQUAL(result, 0);
        result = 7;
        OK(mx_probe(ep, timeout, 0, 0, &status, &result));
        EQUAL(result, 0);
        result = 7;
        OK(mx_peek(ep, timeout, &found, &result));
        EQUAL(result, 0);
    }
    // A limit that is far away does not end a wait for what is there.
    done(ep, send_bytes(ep, own_address(ep), bytes, 5, 1));
    OK(mx_wait(ep, &request, 0xffffffff, &status, &result));
    EQUAL(result, 1);
    EQUAL(status.xfer_length, 5);
    end(ep);
    return 0;
}
