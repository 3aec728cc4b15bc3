/* SPDX-License-Identifier: Apache-2.0
 *
 * What later versions of MX added to myriexpress.h: the unexpected handler, connecting without
 * waiting, contexts of addresses, and time limits of requests.
 */

#ifndef MX_EXTENSIONS_H
#define MX_EXTENSIONS_H

#include "myriexpress.h"

#ifdef __cplusplus
extern "C" {
#endif

/* mx_iconnect takes a match info. */
#define MX_HAS_ICONNECT_V2 1

/* What an unexpected handler decides. */
typedef enum mx_unexp_handler_action {
    MX_RECV_CONTINUE = 0,                       /* look for a receive again, else keep it */
    MX_RECV_FINISHED = 1                        /* it is dealt with: forget it */
} mx_unexp_handler_action_t;

/* Called for each message that no receive is posted for, in order, inside a call that makes
 * progress or in the progression thread. `data_if_available` is the whole message where it is at
 * hand, valid during the call, and null otherwise. The handler may post sends and receives and
 * test requests. It must not close the endpoint, and should not wait. */
typedef mx_unexp_handler_action_t (*mx_unexp_handler_t)(void *context, mx_endpoint_addr_t source,
                                                        uint64_t match_value, uint32_t length,
                                                        void *data_if_available);

/* Sets the handler; null removes it. */
mx_return_t mx_register_unexp_handler(mx_endpoint_t ep, mx_unexp_handler_t handler, void *context);

/* Connects without waiting. The status of the request has the address as its source; `match_info`
 * is what mx_test_any and mx_wait_any find it by. */
mx_return_t mx_iconnect(mx_endpoint_t ep, uint64_t nic_id, uint32_t eid, uint32_t key,
                        uint64_t match_info, void *context, mx_request_t *request);
/* Parts from a peer: what is pending with it fails, and its address is no longer valid. */
mx_return_t mx_disconnect(mx_endpoint_t ep, mx_endpoint_addr_t addr);

/* Lets the library take back the request when it completes, and tells nobody. */
mx_return_t mx_forget(mx_endpoint_t endpoint, mx_request_t *request);
/* Makes progress on the endpoint. */
mx_return_t mx_progress(mx_endpoint_t ep);

/* Keeps a pointer with a peer, for this endpoint. */
mx_return_t mx_set_endpoint_addr_context(mx_endpoint_addr_t endpoint_addr, void *context);
/* That pointer, through any copy of the address; null before one was set. */
mx_return_t mx_get_endpoint_addr_context(mx_endpoint_addr_t endpoint_addr, void **context);

/* How long a peer may leave a request unanswered, in milliseconds; with a null request, all that
 * are posted later. A request that runs out of it ends as MX_STATUS_ENDPOINT_UNREACHABLE. */
mx_return_t mx_set_request_timeout(mx_endpoint_t endpoint, mx_request_t request,
                                   uint32_t milli_seconds);

/* Which endpoint an address is, and which of its lives: the session changes when it is reopened. */
mx_return_t mx_decompose_endpoint_addr2(mx_endpoint_addr_t endpoint_addr, uint64_t *nic_id,
                                        uint32_t *endpoint_id, uint32_t *session_id);

MX__ASSERT(action_size, sizeof(mx_unexp_handler_action_t) == 4);

#ifdef __cplusplus
}
#endif

#endif
