// SPDX-License-Identifier: Apache-2.0
//
// mx_wakeup ends each kind of wait, of two threads at a time, as if its time had passed. The peer is
// stopped, so that nothing else can end them.

#include "check.h"

enum { THREADS = 2 };
enum kind { IN_WAIT, IN_WAIT_ANY, IN_PROBE, IN_PEEK, IN_ICONNECT, IN_CONNECT, KINDS };

struct waiter {
    pthread_t thread;
    mx_endpoint_t ep;
    enum kind kind;
    struct place stopped;
    atomic_int ended;
};

static void *wait_for_ever(void *argument)
{
    struct waiter *waiter = argument;
    mx_endpoint_t ep = waiter->ep;
    mx_endpoint_addr_t address;
    mx_request_t request = NULL, found;
    mx_status_t status;
    uint32_t result = waiter->kind == IN_CONNECT ? 0 : 7;
    static char bytes[8];

    switch (waiter->kind) {
    case IN_WAIT:
        request = receive_bytes(ep, bytes, sizeof bytes, 1, MX_MATCH_MASK_NONE);
        OK(mx_wait(ep, &request, MX_INFINITE, &status, &result));
        break;
    case IN_WAIT_ANY:
        OK(mx_wait_any(ep, MX_INFINITE, 0, 0, &status, &result));
        break;
    case IN_PROBE:
        OK(mx_probe(ep, MX_INFINITE, 0, 0, &status, &result));
        break;
    case IN_PEEK:
        OK(mx_peek(ep, MX_INFINITE, &found, &result));
        break;
    case IN_ICONNECT:
        OK(mx_iconnect(ep, waiter->stopped.nic_id, waiter->stopped.endpoint_id, KEY, 5, NULL,
                       &request));
        OK(mx_wait(ep, &request, MX_INFINITE, &status, &result));
        break;
    default:
        RETURNS(mx_connect(ep, waiter->stopped.nic_id, waiter->stopped.endpoint_id, KEY,
                           MX_INFINITE, &address),
                MX_TIMEOUT);
    }
    EQUAL(result, 0);
    if (request != NULL) {
        OK(mx_cancel(ep, &request, &result));
        EQUAL(result, 1);
    }
    waiter->ended = 1;
    return NULL;
}

static void wake(mx_endpoint_t ep, enum kind kind, struct place stopped)
{
    struct waiter waiters[THREADS];
    memset(waiters, 0, sizeof waiters);
    for (int i = 0; i < THREADS; i++) {
        waiters[i].ep = ep;
        waiters[i].kind = kind;
        waiters[i].stopped = stopped;
        CHECK(pthread_create(&waiters[i].thread, NULL, wait_for_ever, &waiters[i]) == 0);
    }
    // It does nothing to waits that begin later, and nobody can see one begin: so again and again.
    while (!waiters[0].ended || !waiters[1].ended) {
        OK(mx_wakeup(ep));
        sched_yield();
    }
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_join(waiters[i].thread, NULL) == 0);
}

int main(void)
{
    struct other other = split();
    struct place stopped;
    mx_endpoint_t ep;

    begin();
    ep = open_any();
    if (!other.pid) {
        stopped = own_place(ep);
        tell(&other, &stopped, sizeof stopped);
        answer_until_told(&other, ep);
        end(ep);
        return 0;
    }
    hear(&other, &stopped, sizeof stopped);
    stop_process(other.pid);
    for (int kind = 0; kind < KINDS; kind++)
        wake(ep, (enum kind)kind, stopped);
    resume_process(other.pid);
    // It left nothing behind.
    CHECK(place_of(connect_to(ep, stopped)).endpoint_id == stopped.endpoint_id);
    signal_other(&other);
    end(ep);
    join_other(&other);
    return 0;
}
