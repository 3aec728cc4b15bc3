// SPDX-License-Identifier: Apache-2.0
//
// A process forks with an endpoint open. The child's calls fail and do not hang; the parent goes on, also
// after the child ended in the ordinary way, and its peer notices nothing.

#include "check.h"

// A forked child has no thread of its parent, and what was that thread's looks like a leak.
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "detect_leaks=0";
}

static void child(mx_endpoint_t ep, mx_endpoint_addr_t peer)
{
    char byte = 1;
    mx_segment_t one = segment(&byte, 1);
    mx_request_t request = NULL;
    mx_status_t status;
    uint32_t result = 0;
    mx_return_t returned;

    alarm(PATIENCE_S);
    returned = mx_isend(ep, &one, 1, peer, 1, NULL, &request);
    if (returned == MX_SUCCESS) {
        // It may fail later instead, but it must not reach the peer.
        OK(mx_wait(ep, &request, 1000, &status, &result));
        CHECK(!result || status.code != MX_STATUS_SUCCESS);
    }
    CHECK(mx_irecv(ep, &one, 1, 0, 0, NULL, &request) != MX_SUCCESS);
    exit(0);
}

static void exchange(mx_endpoint_t ep, mx_endpoint_addr_t peer, uint64_t match)
{
    static char out[200000], in[200000];
    mx_request_t receive = receive_bytes(ep, in, sizeof in, match, MX_MATCH_MASK_NONE);
    mx_request_t send;
    fill(out, sizeof out, match);
    send = send_bytes(ep, peer, out, sizeof out, match);
    done(ep, receive);
    done(ep, send);
    CHECK(holds(in, sizeof in, match));
}

int main(void)
{
    struct other other = split();
    mx_endpoint_t ep;
    mx_endpoint_addr_t peer;
    mx_status_t probed;
    pid_t pid;
    int status;
    uint32_t result;

    begin();
    ep = open_any();
    peer = meet(&other, ep);
    exchange(ep, peer, 2);
    if (other.pid) {
        for (int i = 0; i < 3; i++) {
            pid = fork();
            CHECK(pid >= 0);
            if (pid == 0)
                child(ep, peer);
            CHECK(waitpid(pid, &status, 0) == pid);
            EQUAL(status, 0);
        }
    }
    exchange(ep, peer, 3);
    OK(mx_iprobe(ep, 1, MX_MATCH_MASK_NONE, &probed, &result));
    EQUAL(result, 0);
    signal_other(&other);
    await_other(&other);
    end(ep);
    if (other.pid)
        join_other(&other);
    return 0;
}
