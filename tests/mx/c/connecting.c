// SPDX-License-Identifier: Apache-2.0
//
// A connect ends when the peer has answered it: not while the peer is stopped or makes no progress, at
// once when it goes on, with a failure when it goes away instead, and for both of two that connect to
// each other at the same time.

#include "check.h"

enum { MEETINGS = 30 };

static mx_request_t begin_connect(mx_endpoint_t ep, struct place place)
{
    mx_request_t request = NULL;
    OK(mx_iconnect(ep, place.nic_id, place.endpoint_id, KEY, 3, NULL, &request));
    CHECK(request != NULL);
    return request;
}

// Nobody answers, however one asks.
static void expect_silence(mx_endpoint_t ep, mx_request_t request, struct place place)
{
    mx_endpoint_addr_t address;
    mx_status_t status;
    uint32_t result = 7;

    OK(mx_wait(ep, &request, 30, &status, &result));
    EQUAL(result, 0);
    OK(mx_test_any(ep, 0, 0, &status, &result));
    EQUAL(result, 0);
    RETURNS(mx_connect(ep, place.nic_id, place.endpoint_id, KEY, 30, &address), MX_TIMEOUT);
}

static struct place hear_place(const struct other *other)
{
    struct place place;
    hear(other, &place, sizeof place);
    return place;
}

static void tell_place(const struct other *other, mx_endpoint_t ep)
{
    struct place place = own_place(ep);
    tell(other, &place, sizeof place);
}

static mx_endpoint_t reopen(mx_endpoint_t ep)
{
    OK(mx_close_endpoint(ep));
    return open_any();
}

static void near_side(const struct other *other, mx_endpoint_t ep)
{
    struct place theirs = hear_place(other);
    mx_request_t request, second;
    mx_status_t status;
    char byte = 'x';

    // Stopped, and going on.
    stop_process(other->pid);
    request = begin_connect(ep, theirs);
    expect_silence(ep, request, theirs);
    resume_process(other->pid);
    status = done(ep, request);
    EQUAL(status.match_info, 3);
    EQUAL(place_of(status.source).endpoint_id, theirs.endpoint_id);
    done(ep, send_bytes(ep, status.source, &byte, 1, 1));

    // Running, without progress.
    signal_other(other);
    theirs = hear_place(other);
    request = begin_connect(ep, theirs);
    second = begin_connect(ep, theirs);
    expect_silence(ep, request, theirs);
    signal_other(other);
    done(ep, second);
    done(ep, request);

    // Each to the other, both in the midst of it.
    for (int i = 0; i < MEETINGS; i++) {
        ep = reopen(ep);
        meet(other, ep);
        signal_other(other);
        await_other(other);
    }

    // It closes its endpoint, which nobody has looked at since we connected.
    ep = reopen(ep);
    theirs = hear_place(other);
    request = begin_connect(ep, theirs);
    expect_silence(ep, request, theirs);
    signal_other(other);
    status = ended(ep, request);
    EQUAL(status.code, MX_STATUS_ENDPOINT_CLOSED);

    // We close ours.
    theirs = hear_place(other);
    stop_process(other->pid);
    begin_connect(ep, theirs);
    ep = reopen(ep);

    // It is killed.
    request = begin_connect(ep, theirs);
    expect_silence(ep, request, theirs);
    CHECK(kill(other->pid, SIGKILL) == 0);
    status = ended(ep, request);
    if (status.code != MX_STATUS_ENDPOINT_CLOSED && status.code != MX_STATUS_ENDPOINT_UNREACHABLE)
        FAIL("the connect ended with %d (%s)", (int)status.code, mx_strstatus(status.code));
    end(ep);
}

static void far_side(const struct other *other, mx_endpoint_t ep)
{
    char byte = 0;

    tell_place(other, ep);
    done(ep, receive_bytes(ep, &byte, 1, 1, MX_MATCH_MASK_NONE));
    CHECK(byte == 'x');

    await_other(other);
    ep = reopen(ep);
    OK(mx_disable_progression(ep));
    tell_place(other, ep);
    answer_until_told(other, ep);
    OK(mx_reenable_progression(ep));

    for (int i = 0; i < MEETINGS; i++) {
        meet(other, ep);
        signal_other(other);
        await_other(other);
        ep = reopen(ep);
    }

    OK(mx_disable_progression(ep));
    tell_place(other, ep);
    await_other(other);
    ep = reopen(ep);

    tell_place(other, ep);
    for (;;)
        mx_progress(ep);
}

int main(void)
{
    struct other other = split();
    mx_endpoint_t ep;

    begin();
    ep = open_any();
    if (other.pid)
        near_side(&other, ep);
    else
        far_side(&other, ep);
    return 0;
}
