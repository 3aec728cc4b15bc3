// SPDX-License-Identifier: Apache-2.0
//
// Several threads wait on one endpoint, each for its own messages, while another process sends.

#include "check.h"

enum { THREADS = 4, MESSAGES = 500, SHIFT = 32 };
static const uint64_t MASK = UINT64_C(0xffffffff) << SHIFT;

struct worker {
    pthread_t thread;
    mx_endpoint_t ep;
    uint64_t number;
};

static uint32_t length_of(uint64_t message)
{
    return message % 50 == 0 ? 100000 : (uint32_t)(message * 11);
}

static void *receive_all(void *argument)
{
    struct worker *worker = argument;
    uint64_t match = worker->number << SHIFT;
    char *bytes = memory(100000);
    mx_request_t request;
    mx_status_t status;
    mx_segment_t one = segment(bytes, 100000);
    uint32_t result;

    for (uint64_t i = 0; i < MESSAGES; i++) {
        OK(mx_irecv(worker->ep, &one, 1, match, MASK, worker, &request));
        OK(mx_wait_any(worker->ep, MX_INFINITE, match, MASK, &status, &result));
        EQUAL(result, 1);
        EQUAL(status.code, MX_STATUS_SUCCESS);
        CHECK(status.context == worker);
        EQUAL(status.match_info, match | i);
        EQUAL(status.xfer_length, length_of(i));
        CHECK(holds(bytes, length_of(i), match | i));
    }
    free(bytes);
    return NULL;
}

static void send_all(mx_endpoint_t ep, mx_endpoint_addr_t peer)
{
    char *bytes = memory(100000);
    for (uint64_t i = 0; i < MESSAGES; i++)
        for (uint64_t thread = 0; thread < THREADS; thread++) {
            uint64_t match = thread << SHIFT | i;
            fill(bytes, length_of(i), match);
            done(ep, send_bytes(ep, peer, bytes, length_of(i), match));
        }
    free(bytes);
}

int main(void)
{
    struct other other = split();
    struct worker workers[THREADS];
    mx_endpoint_t ep;
    mx_endpoint_addr_t peer;

    begin();
    ep = open_any();
    peer = meet(&other, ep);
    if (other.pid) {
        send_all(ep, peer);
    } else {
        for (uint64_t i = 0; i < THREADS; i++) {
            workers[i].ep = ep;
            workers[i].number = i;
            CHECK(pthread_create(&workers[i].thread, NULL, receive_all, &workers[i]) == 0);
        }
        for (int i = 0; i < THREADS; i++)
            CHECK(pthread_join(workers[i].thread, NULL) == 0);
    }
    signal_other(&other);
    await_other(&other);
    end(ep);
    if (other.pid)
        join_other(&other);
    return 0;
}
