// SPDX-License-Identifier: Apache-2.0
//
// Ping-pong, stream and message rate over the MX interface: ours, through the door that C programs use.
//
// The loops are those of exchange.h. A message is mx_isend, or mx_irecv, and mx_test until it is
// complete; with a pause between round trips mx_wait, which sleeps. What mx_test costs while there is
// nothing to find is timed by itself. Errors end the program with a
// text, as is MX's default, and the coordinator reports it.
//
// DIOLKOS_BENCH_ENDPOINTS is "A,B": side 0 opens endpoint A and connects to B, side 1 the other
// way round, so that both know each other before the first slice.
//
// Build: cc -O2 mx_loop.c $(python -m diolkos.mx --cflags --libs)

#define EXCHANGE_HAS_TESTS
#include "exchange.h"

#include <mx_extensions.h>

enum { KEY = 0, BOARD = 0, RETRY_MS = 5 };
static const uint64_t MATCH = 7, MATCH_ACKNOWLEDGE = 8, MATCH_NEVER = 9;

static mx_endpoint_t endpoint;
static mx_endpoint_addr_t peer;

static mx_request_t post_send(const char *bytes, uint64_t size, uint64_t match)
{
    mx_segment_t segment = {(void *)bytes, (uint32_t)size};
    mx_request_t request;
    mx_isend(endpoint, &segment, 1, peer, match, NULL, &request);
    return request;
}

static mx_request_t post_receive(char *bytes, uint64_t size, uint64_t match)
{
    mx_segment_t segment = {bytes, (uint32_t)size};
    mx_request_t request;
    mx_irecv(endpoint, &segment, 1, match, MX_MATCH_MASK_NONE, NULL, &request);
    return request;
}

static void complete(const struct side *side, mx_request_t request)
{
    mx_status_t status;
    uint32_t done = 0;
    if (side->sleeps) {
        mx_wait(endpoint, &request, MX_INFINITE, &status, &done);
        return;
    }
    while (!done)
        mx_test(endpoint, &request, &status, &done);
}

static void send_message(const struct side *side, const char *bytes, uint64_t size)
{
    complete(side, post_send(bytes, size, MATCH));
}

static void receive_message(const struct side *side, char *bytes, uint64_t size)
{
    complete(side, post_receive(bytes, size, MATCH));
}

static mx_request_t requests[WINDOW_LIMIT];

static void window_send(const struct side *side, const char *bytes, uint64_t size, uint64_t window)
{
    for (uint64_t i = 0; i < window; i++)
        requests[i] = post_send(bytes, size, MATCH);
    for (uint64_t i = 0; i < window; i++)
        complete(side, requests[i]);
}

static void window_receive(const struct side *side, char *bytes, uint64_t size, uint64_t window)
{
    for (uint64_t i = 0; i < window; i++)
        requests[i] = post_receive(bytes, size, MATCH);
    for (uint64_t i = 0; i < window; i++)
        complete(side, requests[i]);
}

static void acknowledge(const struct side *side)
{
    if (side->number == 0)
        complete(side, post_receive(NULL, 0, MATCH_ACKNOWLEDGE));
    else
        complete(side, post_send(NULL, 0, MATCH_ACKNOWLEDGE));
}

static void time_tests(uint64_t *stamps, uint64_t batches, uint64_t tests)
{
    mx_request_t request = post_receive(NULL, 0, MATCH_NEVER);
    mx_status_t status;
    uint32_t done = 0;

    stamps[0] = ticks();
    for (uint64_t i = 0; i < batches; i++) {
        for (uint64_t j = 0; j < tests; j++)
            mx_test(endpoint, &request, &status, &done);
        stamps[i + 1] = ticks();
    }
    mx_cancel(endpoint, &request, &done);
    if (!done) {
        fprintf(stderr, "mx_loop: a receive that nothing matches is complete\n");
        exit(1);
    }
}

// The other side may not be there yet: MX says so at once, and we ask again.
static void connect_patiently(uint32_t number)
{
    struct timespec pause = {0, RETRY_MS * 1000000};
    mx_return_t result;
    uint64_t nic_id;

    mx_board_number_to_nic_id(BOARD, &nic_id);
    mx_set_error_handler(MX_ERRORS_RETURN);
    alarm(SLICE_LIMIT_SECONDS);
    while ((result = mx_connect(endpoint, nic_id, number, KEY, MX_INFINITE, &peer)) != MX_SUCCESS) {
        if (result != MX_CONNECTION_FAILED && result != MX_TIMEOUT) {
            fprintf(stderr, "mx_loop: mx_connect: %s\n", mx_strerror(result));
            exit(1);
        }
        clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, NULL);
    }
    alarm(0);
    mx_set_error_handler(MX_ERRORS_ARE_FATAL);
}

int main(void)
{
    struct side side = {0};
    const char *list = getenv("DIOLKOS_BENCH_ENDPOINTS");
    uint32_t numbers[2];

    side_prepare(&side);
    if (list == NULL || sscanf(list, "%u,%u", &numbers[0], &numbers[1]) != 2) {
        fprintf(stderr, "mx_loop: DIOLKOS_BENCH_ENDPOINTS is not two numbers\n");
        return 2;
    }
    mx_init();
    mx_open_endpoint(BOARD, numbers[side.number], KEY, NULL, 0, &endpoint);
    connect_patiently(numbers[1 - side.number]);
    side_connect(&side, "{\"library\": \"libmyriexpress of Diolkos\"}");
    exchange_until_told(&side);
    mx_close_endpoint(endpoint);
    mx_finalize();
    return 0;
}
