// SPDX-License-Identifier: Apache-2.0
//
// Signals while a call waits. They do not end it; with the argument `end` (and OMX_WAITINTR=1) they
// do, as if its time had passed.

#include "check.h"

enum { SIGNALS = 200 };

static atomic_int caught, finished;
static pthread_t waiting;
static mx_endpoint_t ep;
static int signals_end_waits;

static void catch_signal(int number)
{
    (void)number;
    caught++;
}

// Nobody can see when the wait has begun, so signals come again and again.
static void *send_signals(void *unused)
{
    (void)unused;
    for (int i = 0; signals_end_waits ? !finished : i < SIGNALS; i++) {
        int before = caught;
        CHECK(pthread_kill(waiting, SIGUSR1) == 0);
        while (caught == before && !finished)
            sched_yield();
    }
    if (!signals_end_waits)
        done(ep, send_bytes(ep, own_address(ep), "x", 1, 1));
    return NULL;
}

int main(int argc, char **argv)
{
    struct sigaction action;
    pthread_t sender;
    mx_request_t request;
    mx_status_t status;
    uint32_t result = 7;
    char byte;

    signals_end_waits = argc > 1 && strcmp(argv[1], "end") == 0;
    memset(&action, 0, sizeof action);
    action.sa_handler = catch_signal;
    CHECK(sigaction(SIGUSR1, &action, NULL) == 0);
    begin();
    ep = open_any();
    waiting = pthread_self();
    request = receive_bytes(ep, &byte, 1, 1, MX_MATCH_MASK_NONE);
    CHECK(pthread_create(&sender, NULL, send_signals, NULL) == 0);
    OK(mx_wait(ep, &request, MX_INFINITE, &status, &result));
    finished = 1;
    EQUAL(result, !signals_end_waits);
    CHECK(caught > 0);
    CHECK(pthread_join(sender, NULL) == 0);
    end(ep);
    return 0;
}
