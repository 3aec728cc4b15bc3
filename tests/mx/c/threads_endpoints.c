// SPDX-License-Identifier: Apache-2.0
//
// Threads open and close endpoints of their own, and post and cancel receives on a common one, all at
// the same time.

#include "check.h"

enum { OPENERS = 3, POSTERS = 2, ROUNDS = 16, RECEIVES = 50 };

static mx_endpoint_t common;

static void *open_and_close(void *unused)
{
    (void)unused;
    for (int round = 0; round < ROUNDS; round++) {
        char out[40], in[40];
        mx_endpoint_t ep = open_any();
        mx_request_t receive = receive_bytes(ep, in, sizeof in, 1, MX_MATCH_MASK_NONE);
        fill(out, sizeof out, (uint64_t)round);
        done(ep, send_bytes(ep, own_address(ep), out, sizeof out, 1));
        done(ep, receive);
        CHECK(holds(in, sizeof in, (uint64_t)round));
        OK(mx_close_endpoint(ep));
    }
    return NULL;
}

static void *post_and_cancel(void *unused)
{
    char bytes[16];
    (void)unused;
    for (int i = 0; i < ROUNDS * RECEIVES; i++) {
        uint32_t result = 0;
        mx_request_t request = receive_bytes(common, bytes, sizeof bytes, 7, MX_MATCH_MASK_NONE);
        OK(mx_cancel(common, &request, &result));
        EQUAL(result, 1);
    }
    return NULL;
}

int main(void)
{
    pthread_t threads[OPENERS + POSTERS];

    begin();
    common = open_any();
    for (int i = 0; i < OPENERS + POSTERS; i++)
        CHECK(pthread_create(&threads[i], NULL, i < OPENERS ? open_and_close : post_and_cancel,
                             NULL) == 0);
    for (int i = 0; i < OPENERS + POSTERS; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    end(common);
    return 0;
}
