// SPDX-License-Identifier: Apache-2.0
//
// The exported internals, and the raw interface of mappers, which fails cleanly: board 0 has no network
// below it that could be mapped.

#include "check.h"

#include <fcntl.h>
#include <mx_internals/mx__driver_interface.h>
#include <mx_internals/mx__fops.h>
#include <mx_raw.h>

static void mapper(void)
{
    mx_endpt_handle_t handle = MX__INVALID_HANDLE;
    mx_mapper_state_t state, again;
    static char bytes[4096];

    OK(mx_open_board(BOARD, &handle));
    // It is no failure, and not a descriptor of something else.
    CHECK(handle != MX__INVALID_HANDLE && handle >= 0);
    CHECK(fcntl(handle, F_GETFD) == -1);
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

// Without a network there is nothing to open, and each call on nothing says so.
static void nothing_to_open(void)
{
    mx_raw_endpoint_t raw = (mx_raw_endpoint_t)&raw;
    uint32_t ports = 9, port = 9, bytes = 60;
    mx_line_speed_t speed = MX_SPEED_2G;
    mx_raw_status_t status = 99;
    void *context = NULL;
    char frame[60] = "";

    RETURNS(mx_raw_open_endpoint(77, NULL, 0, &raw), MX_BOARD_UNKNOWN);
    RETURNS(mx_raw_open_endpoint(BOARD, NULL, 0, &raw), MX_NO_DEV);
    CHECK(raw == NULL);
    EQUAL(mx_raw_handle(raw) + 1, MX__INVALID_HANDLE + 1);
    RETURNS(mx_raw_close_endpoint(raw), MX_BAD_ENDPOINT);
    RETURNS(mx_raw_num_ports(raw, &ports), MX_BAD_ENDPOINT);
    RETURNS(mx_raw_line_speed(raw, &speed), MX_BAD_ENDPOINT);
    RETURNS(mx_raw_next_event(raw, &port, &context, frame, &bytes, 0, &status), MX_BAD_ENDPOINT);
    RETURNS(mx_raw_send(raw, 0, NULL, 0, frame, 0xffffffff, NULL), MX_BAD_ENDPOINT);
    RETURNS(mx_raw_send(raw, 0, NULL, 0, NULL, 0, NULL), MX_BAD_ENDPOINT);
    RETURNS(mx_raw_set_route_begin(raw), MX_BAD_ENDPOINT);
    RETURNS(mx_raw_set_route_end(raw), MX_BAD_ENDPOINT);
    RETURNS(mx_raw_set_route(raw, 1, NULL, 0, 0, 0, MX_HOST_MX), MX_BAD_ENDPOINT);
    RETURNS(mx_raw_set_route_mag(raw, 1, NULL, 0, 0, 0, MX_HOST_MX, 0), MX_BAD_ENDPOINT);
    RETURNS(mx_raw_clear_routes(raw, 1, 0), MX_BAD_ENDPOINT);
    RETURNS(mx_raw_remove_peer(raw, 1), MX_BAD_ENDPOINT);
    RETURNS(mx_raw_set_map_version(raw, 0, 1, 1, 1, 1), MX_BAD_ENDPOINT);
    RETURNS(mx_raw_set_hostname(raw, (char *)"isthmus"), MX_BAD_ENDPOINT);
    RETURNS(mx_raw_set_peer_name(raw, 1, (char *)"somebody:0"), MX_BAD_ENDPOINT);
    RETURNS(mx_raw_set_nic_reply_info(raw, frame, sizeof frame), MX_BAD_ENDPOINT);
}

int main(void)
{
    begin();
    mapper();
    nothing_to_open();
    OK(mx_finalize());
    return 0;
}
