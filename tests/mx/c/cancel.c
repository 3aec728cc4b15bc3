// SPDX-License-Identifier: Apache-2.0
//
// Taking requests back: a receive without a message, a connect that nobody answers, because the peer is
// stopped; what cannot be taken back: a receive that has its message, a send.

#include "check.h"

static void receives(mx_endpoint_t ep)
{
    char bytes[64] = "";
    mx_request_t request, send;
    mx_status_t status;
    uint32_t result = 7;

    request = receive_bytes(ep, bytes, sizeof bytes, 1, MX_MATCH_MASK_NONE);
    OK(mx_cancel(ep, &request, &result));
    EQUAL(result, 1);
    CHECK(request == NULL);
    // It is gone: the next message is for the next receive.
    send = send_bytes(ep, own_address(ep), bytes, 8, 1);
    OK(mx_iprobe(ep, 1, MX_MATCH_MASK_NONE, &status, &result));
    EQUAL(result, 1);
    request = receive_bytes(ep, bytes, sizeof bytes, 1, MX_MATCH_MASK_NONE);
    OK(mx_cancel(ep, &request, &result));
    EQUAL(result, 0);
    CHECK(request != NULL);
    EQUAL(done(ep, request).xfer_length, 8);
    done(ep, send);
    // Nothing is left that test_any could find.
    OK(mx_test_any(ep, 0, 0, &status, &result));
    EQUAL(result, 0);
}

static void sends(mx_endpoint_t ep)
{
    char bytes[64] = "";
    uint32_t result = 7;
    mx_request_t send = send_bytes(ep, own_address(ep), bytes, sizeof bytes, 2);
    mx_request_t receive;

    RETURNS(mx_cancel(ep, &send, &result), MX_BAD_REQUEST);
    CHECK(send != NULL);
    receive = receive_bytes(ep, bytes, sizeof bytes, 2, MX_MATCH_MASK_NONE);
    done(ep, receive);
    done(ep, send);
}

static void connects(mx_endpoint_t ep, struct place stopped)
{
    mx_request_t request = NULL;
    mx_status_t status;
    uint32_t result = 7;

    OK(mx_iconnect(ep, stopped.nic_id, stopped.endpoint_id, KEY, 3, NULL, &request));
    OK(mx_test(ep, &request, &status, &result));
    EQUAL(result, 0);
    OK(mx_cancel(ep, &request, &result));
    EQUAL(result, 1);
    CHECK(request == NULL);
    OK(mx_test_any(ep, 0, 0, &status, &result));
    EQUAL(result, 0);
}

int main(void)
{
    struct other other = split();
    mx_endpoint_t ep;
    struct place theirs;

    begin();
    ep = open_any();
    if (!other.pid) {
        theirs = own_place(ep);
        tell(&other, &theirs, sizeof theirs);
        answer_until_told(&other, ep);
        end(ep);
        return 0;
    }
    receives(ep);
    sends(ep);
    hear(&other, &theirs, sizeof theirs);
    stop_process(other.pid);
    connects(ep, theirs);
    resume_process(other.pid);
    // What was cancelled does no harm to what comes after.
    CHECK(place_of(connect_to(ep, theirs)).endpoint_id == theirs.endpoint_id);
    signal_other(&other);
    end(ep);
    join_other(&other);
    return 0;
}
