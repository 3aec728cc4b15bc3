// SPDX-License-Identifier: Apache-2.0
//
// Ping-pong over MX: one process sends a message, another sends it back.
//
//     ./pingpong [endpoint]                        waits at an endpoint (default: 3), and answers
//     ./pingpong localhost endpoint [bytes [rounds]]    asks there, and prints half a round trip
//
// The answering side ends when the asking one says so, with an empty message of its own match info.

#include <myriexpress.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { KEY = 0, BYTES_MAX = 1 << 24, NUMBER_MAX = 255, LOOKS = 1000000, LIMIT_MS = 5000 };
static const uint64_t BALL = 1, STOP = 2;

static mx_endpoint_t endpoint;

static mx_request_t post_send(mx_endpoint_addr_t to, void *bytes, uint32_t length, uint64_t match)
{
    mx_segment_t segment = {bytes, length};
    mx_request_t request;
    mx_isend(endpoint, &segment, 1, to, match, NULL, &request);
    return request;
}

static mx_request_t post_receive(void *bytes, uint64_t match, uint64_t mask)
{
    mx_segment_t segment = {bytes, BYTES_MAX};
    mx_request_t request;
    mx_irecv(endpoint, &segment, 1, match, mask, NULL, &request);
    return request;
}

// Looks for a while, which is quicker than mx_wait, and only then sleeps. A receive does not fail when the
// sender dies, as another one may send: so there is a limit.
static mx_status_t complete(mx_request_t request, uint32_t limit_ms)
{
    mx_status_t status;
    uint32_t done = 0;
    for (int looks = 0; !done && looks < LOOKS; looks++)
        mx_test(endpoint, &request, &status, &done);
    if (!done)
        mx_wait(endpoint, &request, limit_ms, &status, &done);
    if (!done) {
        fprintf(stderr, "pingpong: no answer for %u ms; has the other side ended?\n", limit_ms);
        exit(1);
    }
    return status;
}

static void answer(char *bytes)
{
    for (;;) {
        mx_status_t status = complete(post_receive(bytes, 0, 0), MX_INFINITE);
        if (status.match_info == STOP)
            return;
        complete(post_send(status.source, bytes, status.xfer_length, BALL), LIMIT_MS);
    }
}

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static int ask(char *host, uint32_t number, char *bytes, uint32_t length, int rounds)
{
    uint64_t nic_id;
    mx_endpoint_addr_t peer;
    double begin;
    int wrong = 0;

    mx_hostname_to_nic_id(host, &nic_id);
    mx_connect(endpoint, nic_id, number, KEY, MX_INFINITE, &peer);
    memset(bytes, 'x', length);
    begin = seconds();
    for (int round = 0; round < rounds; round++) {
        mx_request_t receive = post_receive(bytes, BALL, MX_MATCH_MASK_NONE);
        mx_request_t send = post_send(peer, bytes, length, BALL);
        wrong += complete(receive, LIMIT_MS).xfer_length != length;
        complete(send, LIMIT_MS);
    }
    printf("%u bytes: %.3f us\n", length, (seconds() - begin) / rounds / 2 * 1e6);
    complete(post_send(peer, bytes, 0, STOP), LIMIT_MS);
    return wrong != 0;
}

// The number in `text`, from `least` to `most`.
static uint32_t number_in(const char *text, uint32_t least, uint32_t most)
{
    char *end;
    unsigned long number = strtoul(text, &end, 10);
    if (*text < '0' || *text > '9' || *end != '\0' || number < least || number > most) {
        fprintf(stderr, "usage: pingpong [endpoint] | pingpong host endpoint [bytes [rounds]]\n");
        fprintf(stderr, "pingpong: '%s' is not a number from %u to %u\n", text, least, most);
        exit(2);
    }
    return (uint32_t)number;
}

int main(int argc, char **argv)
{
    char *bytes = malloc(BYTES_MAX);
    uint32_t number = argc > 1 ? number_in(argv[argc > 2 ? 2 : 1], 0, NUMBER_MAX) : 3;
    uint32_t length = argc > 3 ? number_in(argv[3], 0, BYTES_MAX) : 8;
    int rounds = argc > 4 ? (int)number_in(argv[4], 1, INT32_MAX) : 10000, code = 0;

    if (bytes == NULL)
        return 1;
    mx_init();  // an error ends the program, here and below, with a text: that is MX's default
    if (argc <= 2) {
        mx_open_endpoint(0, number, KEY, NULL, 0, &endpoint);
        printf("waiting at endpoint %u\n", number);
        fflush(stdout);
        answer(bytes);
    } else {
        mx_open_endpoint(0, MX_ANY_ENDPOINT, KEY, NULL, 0, &endpoint);
        code = ask(argv[1], number, bytes, length, rounds);
    }
    mx_close_endpoint(endpoint);
    mx_finalize();
    free(bytes);
    return code;
}
