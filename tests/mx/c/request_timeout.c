// SPDX-License-Identifier: Apache-2.0
//
// Requests that nobody answers in time: connects, because the peer is stopped. A limit of one request,
// and one of all that come later, which can be lifted again.

#include "check.h"

static mx_request_t begin_connect(mx_endpoint_t ep, struct place place)
{
    mx_request_t request = NULL;
    OK(mx_iconnect(ep, place.nic_id, place.endpoint_id, KEY, 9, NULL, &request));
    CHECK(request != NULL);
    return request;
}

int main(void)
{
    struct other other = split();
    struct place theirs;
    mx_endpoint_t ep;
    mx_request_t request, patient;
    mx_status_t status;
    uint32_t result = 7;

    begin();
    ep = open_any();
    if (!other.pid) {
        theirs = own_place(ep);
        tell(&other, &theirs, sizeof theirs);
        answer_until_told(&other, ep);
        end(ep);
        return 0;
    }
    hear(&other, &theirs, sizeof theirs);
    stop_process(other.pid);
    patient = begin_connect(ep, theirs);
    request = begin_connect(ep, theirs);
    OK(mx_set_request_timeout(ep, request, 50));
    status = ended(ep, request);
    EQUAL(status.code, MX_STATUS_ENDPOINT_UNREACHABLE);
    EQUAL(status.match_info, 9);
    OK(mx_set_request_timeout(ep, NULL, 50));
    EQUAL(ended(ep, begin_connect(ep, theirs)).code, MX_STATUS_ENDPOINT_UNREACHABLE);
    OK(mx_set_request_timeout(ep, NULL, 0));
    // What has no limit, or none any more, waits on.
    request = begin_connect(ep, theirs);
    OK(mx_set_request_timeout(ep, request, 50));
    OK(mx_set_request_timeout(ep, request, 0));
    OK(mx_wait(ep, &patient, 100, &status, &result));
    EQUAL(result, 0);
    OK(mx_test(ep, &request, &status, &result));
    EQUAL(result, 0);
    resume_process(other.pid);
    done(ep, request);
    EQUAL(done(ep, patient).match_info, 9);
    CHECK(place_of(connect_to(ep, theirs)).endpoint_id == theirs.endpoint_id);
    signal_other(&other);
    end(ep);
    join_other(&other);
    return 0;
}
