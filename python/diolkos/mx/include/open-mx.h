/* SPDX-License-Identifier: Apache-2.0
 *
 * The native interface of Open-MX, over Diolkos. The same library and the same messages as
 * myriexpress.h; a program may use either. What differs here:
 *
 *   - results and status codes are one type, omx_return_t;
 *   - a message is one stretch of memory (omx_isend), or segments (omx_isendv);
 *   - a time limit is the last parameter, OMX_TIMEOUT_INFINITE waits for ever, 0 does not wait.
 *
 * What each function does is said in myriexpress.h and mx_extensions.h beside its namesake.
 */

#ifndef OPEN_MX_H
#define OPEN_MX_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Limits and wildcards ------------------------------------------------------------------ */

/* The level of the interface that a program was compiled for. */
#define OMX_API 0x301

#define OMX_ANY_NIC ((uint32_t)0xffffffffU)
#define OMX_ANY_ENDPOINT ((uint32_t)0xffffffffU)
/* Segments of one send or receive. */
#define OMX_MAX_SEGMENTS 256
/* Bytes of the name of a peer, its final zero included. */
#define OMX_HOSTNAMELEN_MAX 80
/* Bytes of a nic id as text (six pairs of digits with colons), its final zero included. */
#define OMX_BOARD_ADDR_STRLEN 18
/* Bits of a context id. */
#define OMX_ENDPOINT_CONTEXT_ID_BITS_MAX 16
/* Wait for ever. */
#define OMX_TIMEOUT_INFINITE ((uint32_t)0xffffffffU)

/* ---- Results ------------------------------------------------------------------------------- */

/* What a call returns, and how a request ended. Codes below 90 are those of mx_return_t. */
typedef enum omx_return {
    OMX_SUCCESS = 0,
    OMX_BAD_ERROR = 1,
    OMX_ALREADY_INITIALIZED = 3,
    OMX_NOT_INITIALIZED = 4,
    OMX_NO_DEVICE_FILE = 5,
    OMX_NO_DRIVER = 6,
    OMX_ACCESS_DENIED = 7,
    OMX_BOARD_NOT_FOUND = 8,
    OMX_BAD_ENDPOINT = 9,
    OMX_SEGMENTS_BAD_COUNT = 12,
    OMX_BAD_REQUEST = 13,
    OMX_BAD_MATCH_MASK = 14,
    OMX_NO_RESOURCES = 15,
    OMX_BUSY = 20,
    OMX_BAD_INFO_KEY = 21,
    OMX_BAD_INFO_ADDRESS = 22,
    OMX_ENDPOINT_PARAMS_BAD_LIST = 24,
    OMX_ENDPOINT_PARAM_BAD_KEY = 25,
    OMX_ENDPOINT_PARAM_BAD_VALUE = 26,
    OMX_PEER_NOT_FOUND = 28,
    OMX_TIMEOUT = 30,
    OMX_REMOTE_ENDPOINT_BAD_ID = 32,
    OMX_REMOTE_ENDPOINT_CLOSED = 33,
    OMX_REMOTE_ENDPOINT_BAD_CONNECTION_KEY = 34,
    OMX_BAD_INFO_LENGTH = 35,
    OMX_NIC_ID_NOT_FOUND = 36,
    OMX_BAD_KERNEL_ABI = 37,
    OMX_BAD_LIB_ABI = 38,
    OMX_BAD_MATCHING_FOR_CONTEXT_ID_MASK = 42,
    /* Without a counterpart in MX: */
    OMX_CANCELLED = 90,
    OMX_REMOTE_RDMA_WINDOW_BAD_ID = 91,
    OMX_REMOTE_ENDPOINT_UNREACHABLE = 92,
    OMX_REMOTE_ENDPOINT_BAD_SESSION = 93,
    OMX_MESSAGE_ABORTED = 94,
    OMX_MESSAGE_TRUNCATED = 95,
    OMX_NOT_SUPPORTED_IN_HANDLER = 96,
    OMX_NO_SYSTEM_RESOURCES = 97,
    OMX_NOT_IMPLEMENTED = 99,
    OMX_RETURN_CODE_MAX = 100
} omx_return_t;

/* ---- Objects ------------------------------------------------------------------------------- */

struct omx_endpoint;
typedef struct omx_endpoint *omx_endpoint_t;

union omx_request;
typedef union omx_request *omx_request_t;

/* Where a message goes to or came from; of use to the endpoint that obtained it only. */
typedef struct omx_endpoint_addr {
    uint64_t data[2];
} omx_endpoint_addr_t;

/* A stretch of memory. */
typedef struct omx_seg {
    void *ptr;
    uint32_t len;
} omx_seg_t;

/* What became of a request, or which message a probe found. */
typedef struct omx_status {
    omx_return_t code;
    omx_endpoint_addr_t addr;
    uint64_t match_info;
    uint32_t msg_length;
    uint32_t xfer_length;
    void *context;
} omx_status_t;

/* ---- Errors -------------------------------------------------------------------------------- */

typedef omx_return_t (*omx_error_handler_t)(char *str, omx_return_t ret);

/* Prints the error and ends the process. This is the default. */
extern const omx_error_handler_t OMX_ERRORS_ARE_FATAL;
/* Returns the error to the caller. */
extern const omx_error_handler_t OMX_ERRORS_RETURN;

/* Sets the handler of an endpoint, or with a null `ep` the global one. Returns the one before. */
omx_error_handler_t omx_set_error_handler(omx_endpoint_t ep, omx_error_handler_t handler);
/* A text for a code, whatever the number. Belongs to the library. */
const char *omx_strerror(omx_return_t ret);

/* ---- The library --------------------------------------------------------------------------- */

/* What omx_init calls. */
omx_return_t omx__init_api(int api);
/* Gives up the library. */
omx_return_t omx_finalize(void);

#if defined(__cplusplus) || (defined(__STDC_VERSION__) && __STDC_VERSION__ >= 199901L)
#define OMX__INLINE static inline
#else
#define OMX__INLINE static __inline__
#endif

/* Prepares the library; the first call of a program. */
OMX__INLINE omx_return_t omx_init(void)
{
    return omx__init_api(OMX_API);
}

/* ---- Questions and names ------------------------------------------------------------------- */

/* What omx_get_info can be asked, and what comes out. */
typedef enum omx_info_key {
    OMX_INFO_BOARD_MAX = 0,                     /* uint32_t */
    OMX_INFO_ENDPOINT_MAX = 1,                  /* uint32_t */
    OMX_INFO_BOARD_COUNT = 2,                   /* uint32_t */
    OMX_INFO_BOARD_IDS = 3,                     /* uint64_t for each board, and a zero */
    OMX_INFO_BOARD_HOSTNAME = 4,                /* text */
    OMX_INFO_BOARD_IFACENAME = 5,               /* text */
    OMX_INFO_BOARD_NUMA_NODE = 6,               /* uint32_t: all ones if unknown */
    OMX_INFO_COUNTER_MAX = 7,                   /* uint32_t */
    OMX_INFO_COUNTER_VALUES = 8,                /* uint32_t for each counter */
    OMX_INFO_COUNTER_LABEL = 9                  /* text; `in_val` is the index, a uint8_t */
} omx_info_key_t;

omx_return_t omx_get_info(omx_endpoint_t ep, omx_info_key_t key, const void *in_val,
                          uint32_t in_len, void *out_val, uint32_t out_len);
omx_return_t omx_board_number_to_nic_id(uint32_t board_number, uint64_t *nic_id);
omx_return_t omx_nic_id_to_board_number(uint64_t nic_id, uint32_t *board_number);
omx_return_t omx_hostname_to_nic_id(char *hostname, uint64_t *nic_id);
omx_return_t omx_nic_id_to_hostname(uint64_t nic_id, char *hostname);

/* ---- Endpoints ----------------------------------------------------------------------------- */

typedef enum omx_endpoint_param_key {
    OMX_ENDPOINT_PARAM_ERROR_HANDLER = 0,
    OMX_ENDPOINT_PARAM_UNEXP_QUEUE_MAX = 1,
    OMX_ENDPOINT_PARAM_CONTEXT_ID = 2
} omx_endpoint_param_key_t;

/* One choice for an endpoint that is being opened. */
typedef struct omx_endpoint_param {
    omx_endpoint_param_key_t key;
    union {
        omx_error_handler_t error_handler;
        uint32_t unexp_queue_max;
        struct {
            uint8_t bits;
            uint8_t shift;
        } context_id;
    } val;
} omx_endpoint_param_t;

omx_return_t omx_open_endpoint(uint32_t board_index, uint32_t endpoint_index, uint32_t key,
                               omx_endpoint_param_t *param_array, uint32_t param_count,
                               omx_endpoint_t *epp);
omx_return_t omx_close_endpoint(omx_endpoint_t ep);
omx_return_t omx_wakeup(omx_endpoint_t ep);
omx_return_t omx_progress(omx_endpoint_t ep);
omx_return_t omx_disable_progression(omx_endpoint_t ep);
omx_return_t omx_reenable_progression(omx_endpoint_t ep);
omx_return_t omx_get_endpoint_addr(omx_endpoint_t endpoint, omx_endpoint_addr_t *endpoint_addr);

/* ---- Connecting ---------------------------------------------------------------------------- */

omx_return_t omx_connect(omx_endpoint_t endpoint, uint64_t nic_id, uint32_t endpoint_id,
                         uint32_t key, uint32_t timeout, omx_endpoint_addr_t *addr);
omx_return_t omx_iconnect(omx_endpoint_t ep, uint64_t nic_id, uint32_t endpoint_id, uint32_t key,
                          uint64_t match_info, void *context, omx_request_t *request);
omx_return_t omx_disconnect(omx_endpoint_t ep, omx_endpoint_addr_t addr);
omx_return_t omx_decompose_endpoint_addr(omx_endpoint_addr_t endpoint_addr, uint64_t *nic_id,
                                         uint32_t *endpoint_id);
omx_return_t omx_decompose_endpoint_addr_with_session(omx_endpoint_addr_t endpoint_addr,
                                                      uint64_t *nic_id, uint32_t *endpoint_id,
                                                      uint32_t *session_id);
omx_return_t omx_set_endpoint_addr_context(omx_endpoint_addr_t endpoint_addr, void *context);
omx_return_t omx_get_endpoint_addr_context(omx_endpoint_addr_t endpoint_addr, void **context);

/* ---- Sending and receiving ----------------------------------------------------------------- */

omx_return_t omx_isend(omx_endpoint_t ep, void *buffer, size_t length,
                       omx_endpoint_addr_t dest_endpoint, uint64_t match_info, void *context,
                       omx_request_t *request);
omx_return_t omx_issend(omx_endpoint_t ep, void *buffer, size_t length,
                        omx_endpoint_addr_t dest_endpoint, uint64_t match_info, void *context,
                        omx_request_t *request);
omx_return_t omx_irecv(omx_endpoint_t ep, void *buffer, size_t length, uint64_t match_info,
                       uint64_t match_mask, void *context, omx_request_t *request);
/* The same with segments. */
omx_return_t omx_isendv(omx_endpoint_t ep, omx_seg_t *segs, uint32_t nseg,
                        omx_endpoint_addr_t dest_endpoint, uint64_t match_info, void *context,
                        omx_request_t *request);
omx_return_t omx_issendv(omx_endpoint_t ep, omx_seg_t *segs, uint32_t nseg,
                         omx_endpoint_addr_t dest_endpoint, uint64_t match_info, void *context,
                         omx_request_t *request);
omx_return_t omx_irecvv(omx_endpoint_t ep, omx_seg_t *segs, uint32_t nseg, uint64_t match_info,
                        uint64_t match_mask, void *context, omx_request_t *request);

/* ---- Completing ---------------------------------------------------------------------------- */

omx_return_t omx_test(omx_endpoint_t ep, omx_request_t *request, omx_status_t *status,
                      uint32_t *result);
omx_return_t omx_wait(omx_endpoint_t ep, omx_request_t *request, omx_status_t *status,
                      uint32_t *result, uint32_t timeout);
omx_return_t omx_test_any(omx_endpoint_t ep, uint64_t match_info, uint64_t match_mask,
                          omx_status_t *status, uint32_t *result);
omx_return_t omx_wait_any(omx_endpoint_t ep, uint64_t match_info, uint64_t match_mask,
                          omx_status_t *status, uint32_t *result, uint32_t timeout);
omx_return_t omx_ipeek(omx_endpoint_t ep, omx_request_t *request, uint32_t *result);
omx_return_t omx_peek(omx_endpoint_t ep, omx_request_t *request, uint32_t *result,
                      uint32_t timeout);
omx_return_t omx_iprobe(omx_endpoint_t ep, uint64_t match_info, uint64_t match_mask,
                        omx_status_t *status, uint32_t *result);
omx_return_t omx_probe(omx_endpoint_t ep, uint64_t match_info, uint64_t match_mask,
                       omx_status_t *status, uint32_t *result, uint32_t timeout);
omx_return_t omx_ibuffered(omx_endpoint_t ep, omx_request_t *request, uint32_t *result);
omx_return_t omx_cancel(omx_endpoint_t ep, omx_request_t *request, uint32_t *result);
/* As omx_cancel, but a request that was cancelled stays to be completed, with OMX_CANCELLED. */
omx_return_t omx_cancel_notest(omx_endpoint_t ep, omx_request_t *request, uint32_t *result);
omx_return_t omx_forget(omx_endpoint_t ep, omx_request_t *request);
omx_return_t omx_context(omx_request_t *request, void **context);
omx_return_t omx_set_request_timeout(omx_endpoint_t ep, omx_request_t request,
                                     uint32_t milli_seconds);

/* ---- The unexpected handler ---------------------------------------------------------------- */

typedef enum omx_unexp_handler_action {
    OMX_UNEXP_HANDLER_RECV_CONTINUE = 0,
    OMX_UNEXP_HANDLER_RECV_FINISHED = 1
} omx_unexp_handler_action_t;

typedef omx_unexp_handler_action_t (*omx_unexp_handler_t)(void *context,
                                                          omx_endpoint_addr_t source,
                                                          uint64_t match_info, uint32_t msg_length,
                                                          void *data_if_available);

omx_return_t omx_register_unexp_handler(omx_endpoint_t ep, omx_unexp_handler_t handler,
                                        void *context);

/* ---- Checks: the layouts are those of MX --------------------------------------------------- */

#define OMX__ASSERT(name, condition) typedef char omx__assert_##name[(condition) ? 1 : -1]

#if defined(__LP64__) || defined(_LP64)
OMX__ASSERT(endpoint_size, sizeof(omx_endpoint_t) == 8);
OMX__ASSERT(request_size, sizeof(omx_request_t) == 8);
OMX__ASSERT(return_size, sizeof(omx_return_t) == 4);
OMX__ASSERT(info_key_size, sizeof(omx_info_key_t) == 4);
OMX__ASSERT(addr_size, sizeof(omx_endpoint_addr_t) == 16);
OMX__ASSERT(seg_size, sizeof(omx_seg_t) == 16);
OMX__ASSERT(seg_ptr_at, offsetof(omx_seg_t, ptr) == 0);
OMX__ASSERT(seg_len_at, offsetof(omx_seg_t, len) == 8);
OMX__ASSERT(param_size, sizeof(omx_endpoint_param_t) == 16);
OMX__ASSERT(param_key_size, sizeof(omx_endpoint_param_key_t) == 4);
OMX__ASSERT(param_val_at, offsetof(omx_endpoint_param_t, val) == 8);
OMX__ASSERT(param_bits_at, offsetof(omx_endpoint_param_t, val.context_id.bits) == 8);
OMX__ASSERT(param_shift_at, offsetof(omx_endpoint_param_t, val.context_id.shift) == 9);
OMX__ASSERT(action_size, sizeof(omx_unexp_handler_action_t) == 4);
OMX__ASSERT(status_size, sizeof(omx_status_t) == 48);
OMX__ASSERT(status_code_at, offsetof(omx_status_t, code) == 0);
OMX__ASSERT(status_addr_at, offsetof(omx_status_t, addr) == 8);
OMX__ASSERT(status_match_info_at, offsetof(omx_status_t, match_info) == 24);
OMX__ASSERT(status_msg_length_at, offsetof(omx_status_t, msg_length) == 32);
OMX__ASSERT(status_xfer_length_at, offsetof(omx_status_t, xfer_length) == 36);
OMX__ASSERT(status_context_at, offsetof(omx_status_t, context) == 40);
#endif

#ifdef __cplusplus
}
#endif

#endif
