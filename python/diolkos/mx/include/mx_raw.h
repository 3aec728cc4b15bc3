/* SPDX-License-Identifier: Apache-2.0
 *
 * Raw frames and the table of peers, for programs that map a network. The board of one host has no
 * network below it: opening its raw side gives MX_NO_DEV, so there is nothing that the other
 * functions could be called with. `diolkos mx hostname` renames the board.
 */

#ifndef MX_RAW_H
#define MX_RAW_H

#include "mx_io.h"
#include "myriexpress.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The handle of a raw endpoint can be polled. */
#define MX_RAW_POLL_SUPPORTED 1
/* mx_raw_set_route_mag exists. */
#define MX_SET_ROUTE_TAKES_MAGID 1
/* mx_raw_line_speed exists. */
#define MX_HAS_RAW_LINE_SPEED 1
/* mx_raw_set_nic_reply_info exists. */
#define MX_HAS_RAW_SET_NIC_REPLY_INFO 1

struct mx_raw_endpoint;
/* The raw side of a board; one program at a time has it. */
typedef struct mx_raw_endpoint *mx_raw_endpoint_t;

/* What mx_raw_next_event found. This library reports the first three only. */
typedef int mx_raw_status_t;
enum {
    MX_RAW_NO_EVENT = 0,
    MX_RAW_SEND_COMPLETE = 1,
    MX_RAW_RECV_COMPLETE = 2,
    MX_DEAD_RECOVERABLE_SRAM_PARITY_ERROR = 10,
    MX_DEAD_SRAM_PARITY_ERROR = 11,
    MX_DEAD_WATCHDOG_TIMEOUT = 12,
    MX_DEAD_COMMAND_TIMEOUT = 13,
    MX_DEAD_ENDPOINT_CLOSE_TIMEOUT = 14,
    MX_DEAD_ROUTE_UPDATE_TIMEOUT = 15,
    MX_DEAD_PCI_PARITY_ERROR = 16,
    MX_DEAD_PCI_MASTER_ABORT = 17
};

/* What a peer in the table is. */
typedef enum mx_host_type {
    MX_HOST_GM = 1,
    MX_HOST_XM = 2,
    MX_HOST_MX = 3,
    MX_HOST_MXvM = 4
} mx_host_type_t;

/* Opens the raw side of a board. The parameters are ignored. */
mx_return_t mx_raw_open_endpoint(uint32_t board_number, mx_param_t *params_array,
                                 uint32_t params_count, mx_raw_endpoint_t *endpoint);
/* Closes it. */
mx_return_t mx_raw_close_endpoint(mx_raw_endpoint_t endpoint);
/* A descriptor that is readable when there is an event. */
mx_endpt_handle_t mx_raw_handle(mx_raw_endpoint_t ep);

/* Sends a whole frame, which begins with its Ethernet header; an event says when it was sent. */
mx_return_t mx_raw_send(mx_raw_endpoint_t endpoint, uint32_t physical_port, void *route_pointer,
                        uint32_t route_length, void *send_buffer, uint32_t buffer_length,
                        void *context);
/* The next event, after at most `timeout_ms`; 0 does not wait. `*recv_bytes` is the room for a
 * frame before, and its length after. */
mx_return_t mx_raw_next_event(mx_raw_endpoint_t endpoint, uint32_t *incoming_port, void **context,
                              void *recv_buffer, uint32_t *recv_bytes, uint32_t timeout_ms,
                              mx_raw_status_t *status);

/* Before and after changes of routes; no effect. */
mx_return_t mx_raw_set_route_begin(mx_raw_endpoint_t endpoint);
mx_return_t mx_raw_set_route_end(mx_raw_endpoint_t endpoint);
/* Adds a peer to the table. */
mx_return_t mx_raw_set_route_mag(mx_raw_endpoint_t endpoint, uint64_t destination_id, void *route,
                                 uint32_t route_length, uint32_t input_port, uint32_t output_port,
                                 mx_host_type_t host_type, uint32_t mag_id);
/* The same without the number of a mapping agent. */
mx_return_t mx_raw_set_route(mx_raw_endpoint_t endpoint, uint64_t destination_id, void *route,
                             uint32_t route_length, uint32_t input_port, uint32_t output_port,
                             mx_host_type_t host_type);
/* Forgets the routes to a peer; no effect. */
mx_return_t mx_raw_clear_routes(mx_raw_endpoint_t endpoint, uint64_t destination_id,
                                uint32_t port);
/* Removes a peer from the table. */
mx_return_t mx_raw_remove_peer(mx_raw_endpoint_t endpoint, uint64_t destination_id);
/* Says which map the table belongs to, and whether it is complete. */
mx_return_t mx_raw_set_map_version(mx_raw_endpoint_t endpoint, uint32_t physical_port,
                                   uint64_t mapper_id, uint32_t map_version, uint32_t num_nodes,
                                   uint32_t mapping_complete);

/* Ports of the board: 1. */
mx_return_t mx_raw_num_ports(mx_raw_endpoint_t endpoint, uint32_t *num_ports);
/* Speed of the board's port. */
mx_return_t mx_raw_line_speed(mx_raw_endpoint_t endpoint, mx_line_speed_t *speed);
/* Renames the board. */
mx_return_t mx_raw_set_hostname(mx_raw_endpoint_t endpoint, char *hostname);
/* Adds or renames a peer. */
mx_return_t mx_raw_set_peer_name(mx_raw_endpoint_t endpoint, uint64_t nic_id, char *hostname);
/* What the board tells others about itself; no effect. */
mx_return_t mx_raw_set_nic_reply_info(mx_raw_endpoint_t endpoint, void *blob, uint32_t size);

MX__ASSERT(raw_endpoint_size, sizeof(mx_raw_endpoint_t) == sizeof(void *));
MX__ASSERT(raw_status_size, sizeof(mx_raw_status_t) == 4);
MX__ASSERT(host_type_size, sizeof(mx_host_type_t) == 4);

#ifdef __cplusplus
}
#endif

#endif
