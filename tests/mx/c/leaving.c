// SPDX-License-Identifier: Apache-2.0
//
// Programs that leave without closing anything, with requests pending and a thread inside a wait. The
// argument says how: return, exit, _exit, thread (exit called by another thread), finalize (only that).

#include "check.h"

static mx_endpoint_t ep;
static const char *how;
static char large[1 << 20];

static void *wait_for_ever(void *unused)
{
    mx_status_t status;
    uint32_t result;
    (void)unused;
    mx_wait_any(ep, MX_INFINITE, 77, MX_MATCH_MASK_NONE, &status, &result);
    return NULL;
}

static void *leave(void *unused)
{
    (void)unused;
    exit(0);
}

int main(int argc, char **argv)
{
    pthread_t waiter, leaver;

    how = argc > 1 ? argv[1] : "return";
    begin();
    ep = open_any();
    receive_bytes(ep, large, sizeof large, 1, MX_MATCH_MASK_NONE);
    send_bytes(ep, own_address(ep), large, sizeof large, 2);
    CHECK(pthread_create(&waiter, NULL, wait_for_ever, NULL) == 0);
    if (strcmp(how, "exit") == 0)
        exit(0);
    if (strcmp(how, "_exit") == 0)
        _exit(0);
    if (strcmp(how, "thread") == 0) {
        CHECK(pthread_create(&leaver, NULL, leave, NULL) == 0);
        pthread_join(leaver, NULL);
    }
    if (strcmp(how, "finalize") == 0)
        mx_finalize();
    return 0;
}
