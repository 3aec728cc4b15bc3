/* SPDX-License-Identifier: Apache-2.0
 *
 * What a few programs ask of the driver below MX: which network a board is attached to. Open MPI
 * joins boards whose mapper has the same address.
 */

#ifndef MX__DRIVER_INTERFACE_H
#define MX__DRIVER_INTERFACE_H

#include "../mx_io.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Which board, and what its mapper has found out. */
typedef struct mx_mapper_state {
    uint32_t board_number;
    uint8_t mapper_mac[6];
    uint16_t iport;
    uint32_t map_version;
    uint32_t num_hosts;
    uint32_t network_configured;
    uint32_t routes_valid;
    uint32_t level;
    uint32_t flags;
} mx_mapper_state_t;

/* Fills in what there is to know of the board `state->board_number`. */
mx_return_t mx__get_mapper_state(mx_endpt_handle_t handle, mx_mapper_state_t *state);

/* Says that memory is about to be unmapped. Returns 0. */
int mx__regcache_clean(void *ptr, size_t len);

MX__ASSERT(mapper_state_size, sizeof(mx_mapper_state_t) == 36);
MX__ASSERT(mapper_mac_at, offsetof(mx_mapper_state_t, mapper_mac) == 4);
MX__ASSERT(mapper_iport_at, offsetof(mx_mapper_state_t, iport) == 10);
MX__ASSERT(mapper_map_version_at, offsetof(mx_mapper_state_t, map_version) == 12);
MX__ASSERT(mapper_num_hosts_at, offsetof(mx_mapper_state_t, num_hosts) == 16);
MX__ASSERT(mapper_configured_at, offsetof(mx_mapper_state_t, network_configured) == 20);
MX__ASSERT(mapper_routes_valid_at, offsetof(mx_mapper_state_t, routes_valid) == 24);
MX__ASSERT(mapper_level_at, offsetof(mx_mapper_state_t, level) == 28);
MX__ASSERT(mapper_flags_at, offsetof(mx_mapper_state_t, flags) == 32);

#ifdef __cplusplus
}
#endif

#endif
