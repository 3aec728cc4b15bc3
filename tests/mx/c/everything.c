// SPDX-License-Identifier: Apache-2.0
//
// Takes the address of every function and datum that the headers declare: that it links shows that the
// library has them, and that the headers do.

#include <mx_extensions.h>
#include <mx_internals/mx__driver_interface.h>
#include <mx_internals/mx__fops.h>
#include <mx_raw.h>
#include <open-mx.h>
#include <stdio.h>

typedef void (*function)(void);

static const function FUNCTIONS[] = {
    (function)mx__get_mapper_state,
    (function)mx__init_api,
    (function)mx__regcache_clean,
    (function)mx_board_number_to_nic_id,
    (function)mx_buffered,
    (function)mx_cancel,
    (function)mx_close_endpoint,
    (function)mx_connect,
    (function)mx_context,
    (function)mx_decompose_endpoint_addr,
    (function)mx_decompose_endpoint_addr2,
    (function)mx_disable_progression,
    (function)mx_disconnect,
    (function)mx_finalize,
    (function)mx_forget,
    (function)mx_get_endpoint_addr,
    (function)mx_get_endpoint_addr_context,
    (function)mx_get_info,
    (function)mx_hostname_to_nic_id,
    (function)mx_ibuffered,
    (function)mx_iconnect,
    (function)mx_iget,
    (function)mx_ipeek,
    (function)mx_iprobe,
    (function)mx_iput,
    (function)mx_irecv,
    (function)mx_isend,
    (function)mx_issend,
    (function)mx_nic_id_to_board_number,
    (function)mx_nic_id_to_hostname,
    (function)mx_open_board,
    (function)mx_open_endpoint,
    (function)mx_peek,
    (function)mx_probe,
    (function)mx_progress,
    (function)mx_raw_clear_routes,
    (function)mx_raw_close_endpoint,
    (function)mx_raw_handle,
    (function)mx_raw_line_speed,
    (function)mx_raw_next_event,
    (function)mx_raw_num_ports,
    (function)mx_raw_open_endpoint,
    (function)mx_raw_remove_peer,
    (function)mx_raw_send,
    (function)mx_raw_set_hostname,
    (function)mx_raw_set_map_version,
    (function)mx_raw_set_nic_reply_info,
    (function)mx_raw_set_peer_name,
    (function)mx_raw_set_route,
    (function)mx_raw_set_route_begin,
    (function)mx_raw_set_route_end,
    (function)mx_raw_set_route_mag,
    (function)mx_reenable_progression,
    (function)mx_register_unexp_callback,
    (function)mx_register_unexp_handler,
    (function)mx_set_endpoint_addr_context,
    (function)mx_set_error_handler,
    (function)mx_set_request_timeout,
    (function)mx_strerror,
    (function)mx_strstatus,
    (function)mx_test,
    (function)mx_test_any,
    (function)mx_wait,
    (function)mx_wait_any,
    (function)mx_wakeup,
    (function)omx__init_api,
    (function)omx_board_number_to_nic_id,
    (function)omx_cancel,
    (function)omx_cancel_notest,
    (function)omx_close_endpoint,
    (function)omx_connect,
    (function)omx_context,
    (function)omx_decompose_endpoint_addr,
    (function)omx_decompose_endpoint_addr_with_session,
    (function)omx_disable_progression,
    (function)omx_disconnect,
    (function)omx_finalize,
    (function)omx_forget,
    (function)omx_get_endpoint_addr,
    (function)omx_get_endpoint_addr_context,
    (function)omx_get_info,
    (function)omx_hostname_to_nic_id,
    (function)omx_ibuffered,
    (function)omx_iconnect,
    (function)omx_ipeek,
    (function)omx_iprobe,
    (function)omx_irecv,
    (function)omx_irecvv,
    (function)omx_isend,
    (function)omx_isendv,
    (function)omx_issend,
    (function)omx_issendv,
    (function)omx_nic_id_to_board_number,
    (function)omx_nic_id_to_hostname,
    (function)omx_open_endpoint,
    (function)omx_peek,
    (function)omx_probe,
    (function)omx_progress,
    (function)omx_reenable_progression,
    (function)omx_register_unexp_handler,
    (function)omx_set_endpoint_addr_context,
    (function)omx_set_error_handler,
    (function)omx_set_request_timeout,
    (function)omx_strerror,
    (function)omx_test,
    (function)omx_test_any,
    (function)omx_wait,
    (function)omx_wait_any,
    (function)omx_wakeup,
};

static const void *const DATA[] = {
    &MX_ERRORS_ARE_FATAL,
    &MX_ERRORS_RETURN,
    &OMX_ERRORS_ARE_FATAL,
    &OMX_ERRORS_RETURN,
};

int main(void)
{
    unsigned found = 0, i;
    for (i = 0; i < sizeof FUNCTIONS / sizeof FUNCTIONS[0]; i++)
        found += FUNCTIONS[i] != 0;
    for (i = 0; i < sizeof DATA / sizeof DATA[0]; i++)
        found += DATA[i] != 0 && *(const function *)DATA[i] != 0;
    printf("%u\n", found);
    return found != i + sizeof FUNCTIONS / sizeof FUNCTIONS[0];
}
