// SPDX-License-Identifier: Apache-2.0
//
// Many messages posted at once, taken with wait_any; every byte is checked.

#include "check.h"

struct load {
    uint32_t length;
    uint32_t count;
};

static const struct load LOADS[] = {{13, 1000},    {111, 1000},  {1234, 1000},
                                    {12345, 1000}, {123456, 100}, {1234567, 20}};

static void take_all(mx_endpoint_t ep, uint32_t count)
{
    mx_status_t status;
    uint32_t result;
    for (uint32_t i = 0; i < count; i++) {
        OK(mx_wait_any(ep, MX_INFINITE, 0, 0, &status, &result));
        EQUAL(result, 1);
        EQUAL(status.code, MX_STATUS_SUCCESS);
        ++*(char *)status.context;
    }
}

static void run(const struct other *other, mx_endpoint_t ep, mx_endpoint_addr_t peer,
                const struct load *load)
{
    char **bytes = calloc(load->count, sizeof *bytes), *seen = calloc(load->count, 1);
    mx_segment_t one;
    mx_request_t request;

    for (uint32_t i = 0; i < load->count; i++) {
        bytes[i] = memory(load->length);
        one = segment(bytes[i], load->length);
        if (other->pid) {
            fill(bytes[i], load->length, i);
            OK(mx_isend(ep, &one, 1, peer, i, &seen[i], &request));
        } else {
            OK(mx_irecv(ep, &one, 1, i, MX_MATCH_MASK_NONE, &seen[i], &request));
        }
    }
    take_all(ep, load->count);
    for (uint32_t i = 0; i < load->count; i++) {
        EQUAL(seen[i], 1);
        CHECK(holds(bytes[i], load->length, i));
        free(bytes[i]);
    }
    free(bytes);
    free(seen);
    signal_other(other);
    await_other(other);
}

int main(void)
{
    struct other other = split();
    mx_endpoint_t ep;
    mx_endpoint_addr_t peer;

    begin();
    ep = open_any();
    peer = meet(&other, ep);
    for (size_t i = 0; i < COUNT_OF(LOADS); i++)
        run(&other, ep, peer, &LOADS[i]);
    end(ep);
    if (other.pid)
        join_other(&other);
    return 0;
}
