// SPDX-License-Identifier: Apache-2.0
//
// The raw interface and the exported internals: what has a meaning without a network works, the rest
// fails cleanly, and nothing crashes.

#include "check.h"

#include <mx_internals/mx__driver_interface.h>
#include <mx_internals/mx__fops.h>
#include <mx_raw.h>
#include <poll.h>

static void mapper(void)
{
    mx_endpt_handle_t handle = MX__INVALID_HANDLE;
    mx_mapper_state_t state, again;
    static char bytes[4096];

    OK(mx_open_board(BOARD, &handle));
    memset(&state, 0, sizeof state);
    OK(mx__get_mapper_state(handle, &state));
    memset(&again, 0, sizeof again);
    OK(mx__get_mapper_state(handle, &again));
    // All programs of a fabric must agree on it.
    CHECK(memcmp(state.mapper_mac, again.mapper_mac, sizeof state.mapper_mac) == 0);
    RETURNS(mx_open_board(77, &handle), MX_BOARD_UNKNOWN);
    EQUAL(mx__regcache_clean(bytes, sizeof bytes), 0);
    EQUAL(mx__regcache_clean(NULL, 0), 0);
}

static void no_event(mx_raw_endpoint_t raw)
{
    char frame[1024];
    uint32_t port = 9, bytes = sizeof frame;
    void *context = NULL;
    mx_raw_status_t status = 99;
    struct pollfd polled;

    OK(mx_raw_next_event(raw, &port, &context, frame, &bytes, 0, &status));
    EQUAL(status, MX_RAW_NO_EVENT);
    bytes = sizeof frame;
    OK(mx_raw_next_event(raw, &port, &context, frame, &bytes, 5, &status));
    EQUAL(status, MX_RAW_NO_EVENT);
    polled.fd = mx_raw_handle(raw);
    polled.events = POLLIN;
    if (polled.fd != MX__INVALID_HANDLE)
        EQUAL(poll(&polled, 1, 0), 0);
}

int main(void)
{
    mx_raw_endpoint_t raw = NULL, second = NULL;
    uint32_t ports = 0;
    mx_line_speed_t speed = MX_SPEED_2G;
    char frame[60] = "";

    begin();
    mapper();
    RETURNS(mx_raw_open_endpoint(77, NULL, 0, &raw), MX_BOARD_UNKNOWN);
    OK(mx_raw_open_endpoint(BOARD, NULL, 0, &raw));
    RETURNS(mx_raw_open_endpoint(BOARD, NULL, 0, &second), MX_BUSY);
    OK(mx_raw_num_ports(raw, &ports));
    EQUAL(ports, 1);
    OK(mx_raw_line_speed(raw, &speed));
    no_event(raw);
    OK(mx_raw_set_route_begin(raw));
    OK(mx_raw_set_route_end(raw));
    OK(mx_raw_clear_routes(raw, 1, 0));
    OK(mx_raw_set_nic_reply_info(raw, frame, sizeof frame));
    // Whatever these say, they say it without a crash; there is no wire to put a frame on.
    mx_raw_remove_peer(raw, 1);
    mx_raw_set_peer_name(raw, 1, (char *)"somebody:0");
    mx_raw_set_map_version(raw, 0, 1, 1, 1, 1);
    mx_raw_set_route(raw, 1, NULL, 0, 0, 0, MX_HOST_MX);
    mx_raw_set_route_mag(raw, 1, NULL, 0, 0, 0, MX_HOST_MX, 0);
    mx_raw_send(raw, 0, NULL, 0, frame, 0xffffffff, NULL);
    mx_raw_send(raw, 0, NULL, 0, NULL, 0, NULL);
    OK(mx_raw_close_endpoint(raw));
    // It is free again.
    OK(mx_raw_open_endpoint(BOARD, NULL, 0, &raw));
    OK(mx_raw_close_endpoint(raw));
    OK(mx_finalize());
    return 0;
}
