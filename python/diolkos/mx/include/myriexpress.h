/* SPDX-License-Identifier: Apache-2.0
 *
 * The MX message-passing interface, over Diolkos. Link with -lmyriexpress.
 *
 *     mx_init()  ->  mx_open_endpoint  ->  mx_connect  ->  mx_isend, mx_irecv
 *                                                          mx_test, mx_wait, ...
 *                    mx_close_endpoint  ->  mx_finalize
 *
 * A process opens endpoints, connects them to others, and posts sends and receives, which do not
 * block. Each gives a request; testing or waiting completes it, fills a status and takes it back.
 * A message carries 64 bits of match info, a receive names a value and the bits that count.
 *
 * Every function that can fail returns an mx_return_t. Unless a program says otherwise, an error
 * ends the process: see mx_set_error_handler.
 *
 * Written from the description of the interface. What is laid out here is binary-compatible with
 * programs that were compiled for API level 0x301, and checked below when this file is compiled.
 * C89 to C23, C++98 and later. Extensions are in mx_extensions.h.
 */

#ifndef MYRIEXPRESS_H
#define MYRIEXPRESS_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Limits and wildcards ------------------------------------------------------------------ */

/* The level of the interface that a program was compiled for. */
#define MX_API 0x301

/* Bytes of each text that mx_get_info returns. */
#define MX_MAX_STR_LEN 128
/* Bytes of the name of a peer, its final zero included. */
#define MX_MAX_HOSTNAME_LEN 80
/* Segments of one send or receive. */
#define MX_MAX_SEGMENTS 256
/* Bits of a context id. */
#define MX_CONTEXT_ID_BITS_MAX 16
/* Bytes of an mx_endpoint_addr_t. */
#define MX_SIZEOF_ADDR 16

/* Any board; any free endpoint number. */
#define MX_ANY_NIC ((uint32_t)0xffffffffU)
#define MX_ANY_ENDPOINT ((uint32_t)0xffffffffU)

/* As a timeout: wait for ever. It is 0, so there is no timeout that means "do not wait". */
#define MX_INFINITE 0

/* Every bit of the match info must be equal. */
#define MX_MATCH_MASK_NONE (~(uint64_t)0)

/* The two halves of 64 bits, for printing. */
#define MX_U32(x) ((uint32_t)((uint64_t)(x) >> 32))
#define MX_L32(x) ((uint32_t)((uint64_t)(x) & (uint64_t)0xffffffffU))

/* mx_get_info knows MX_NET_TYPE and MX_LINE_SPEED. */
#define MX_HAS_NET_TYPE

/* ---- Results ------------------------------------------------------------------------------- */

/* What a call returns. Numbers without a comment are never returned by this library. */
typedef enum mx_return_code {
    MX_SUCCESS = 0,
    MX_BAD_BAD_BAD = 1,                         /* an error of the system */
    MX_FAILURE = 2,
    MX_ALREADY_INITIALIZED = 3,                 /* a second mx_init */
    MX_NOT_INITIALIZED = 4,                     /* no mx_init yet */
    MX_NO_DEV = 5,
    MX_NO_DRIVER = 6,                           /* no backend, and none could be started */
    MX_NO_PERM = 7,                             /* the backend refuses this user */
    MX_BOARD_UNKNOWN = 8,                       /* there is no such board */
    MX_BAD_ENDPOINT = 9,                        /* a number out of range, or a closed endpoint */
    MX_BAD_SEG_LIST = 10,
    MX_BAD_SEG_MEM = 11,
    MX_BAD_SEG_CNT = 12,                        /* more than MX_MAX_SEGMENTS */
    MX_BAD_REQUEST = 13,                        /* not possible for this kind of request */
    MX_BAD_MATCH_MASK = 14,                     /* the value has bits outside the mask */
    MX_NO_RESOURCES = 15,                       /* memory, or a limit was reached */
    MX_BAD_ADDR_LIST = 16,
    MX_BAD_ADDR_COUNT = 17,
    MX_BAD_ROOT = 18,
    MX_NOT_COMPLETED = 19,
    MX_BUSY = 20,                               /* the endpoint number is taken */
    MX_BAD_INFO_KEY = 21,                       /* there is no such key */
    MX_BAD_INFO_VAL = 22,                       /* a pointer to nowhere */
    MX_BAD_NIC = 23,
    MX_BAD_PARAM_LIST = 24,                     /* no list, but a count */
    MX_BAD_PARAM_NAME = 25,                     /* there is no such parameter */
    MX_BAD_PARAM_VAL = 26,                      /* the parameter cannot have this value */
    MX_BAD_HOSTNAME_ARGS = 27,
    MX_HOST_NOT_FOUND = 28,                     /* nobody has this name, or this number */
    MX_REQUEST_PENDING = 29,
    MX_TIMEOUT = 30,                            /* a connect was not answered in time */
    MX_NO_MATCH = 31,
    MX_BAD_ENDPOINT_ID = 32,                    /* the peer has no endpoint of this number */
    MX_CONNECTION_FAILED = 33,                  /* the peer's endpoint is closed */
    MX_BAD_CONNECTION_KEY = 34,                 /* the peer's endpoint has another key */
    MX_BAD_INFO_LENGTH = 35,                    /* the answer does not fit */
    MX_NIC_NOT_FOUND = 36,                      /* nobody has this nic id */
    MX_BAD_KERNEL_VERSION = 37,
    MX_BAD_LIB_VERSION = 38,                    /* compiled for another level than MX_API */
    MX_NIC_DEAD = 39,
    MX_CANCEL_NOT_SUPPORTED = 40,
    MX_CLOSE_IN_HANDLER = 41,                   /* a close inside the unexpected handler */
    MX_BAD_MATCHING_FOR_CONTEXT_ID_MASK = 42,   /* a receive must fix its context id */
    MX_NOT_SUPPORTED_WITH_CONTEXT_ID = 43
} mx_return_t;

/* How a request ended. Numbers without a comment are never reported by this library. */
typedef enum mx_status_code {
    MX_STATUS_SUCCESS = 0,
    MX_STATUS_PENDING = 1,
    MX_STATUS_BUFFERED = 2,
    MX_STATUS_REJECTED = 3,
    MX_STATUS_TIMEOUT = 4,
    MX_STATUS_TRUNCATED = 5,                    /* the receive was shorter than the message */
    MX_STATUS_CANCELLED = 6,
    MX_STATUS_ENDPOINT_UNKNOWN = 7,
    MX_STATUS_ENDPOINT_CLOSED = 8,              /* the peer closed its endpoint */
    MX_STATUS_ENDPOINT_UNREACHABLE = 9,         /* the peer died, or did not answer in time */
    MX_STATUS_BAD_SESSION = 10,                 /* the peer's endpoint was opened anew */
    MX_STATUS_BAD_KEY = 11,                     /* the peer's endpoint has another key */
    MX_STATUS_BAD_ENDPOINT = 12,                /* the peer has no endpoint of this number */
    MX_STATUS_BAD_RDMAWIN = 13,
    MX_STATUS_ABORTED = 14,
    MX_STATUS_EVENTQ_FULL = 15,
    MX_STATUS_NO_RESOURCES = 16                 /* memory, or a limit was reached */
} mx_status_code_t;

/* ---- Objects ------------------------------------------------------------------------------- */

struct mx_endpoint;
/* A port of this process on which messages are sent, received and matched. */
typedef struct mx_endpoint *mx_endpoint_t;

union mx_request;
/* A send, a receive or a connect under way. */
typedef union mx_request *mx_request_t;

/* Where a message goes to or came from. It means something to the endpoint that obtained it, and
 * to nobody else: send others the nic id and the endpoint number instead. */
typedef struct mx_endpoint_addr {
    uint64_t stuff[2];
} mx_endpoint_addr_t;

typedef void *mx_segment_ptr_t;

/* A stretch of memory; a message may be scattered over several. */
typedef struct mx_segment {
    mx_segment_ptr_t segment_ptr;
    uint32_t segment_length;
} mx_segment_t;

/* What became of a request, or which message a probe found. */
typedef struct mx_status {
    mx_status_code_t code;
    mx_endpoint_addr_t source;                  /* sender; destination of a send */
    uint64_t match_info;
    uint32_t msg_length;                        /* bytes that the sender posted */
    uint32_t xfer_length;                       /* bytes that arrived in the receive */
    void *context;                              /* as given when the request was posted */
} mx_status_t;

/* ---- Errors -------------------------------------------------------------------------------- */

/* Called with a text for each call that fails and each request that completes with an error; what
 * it returns is what the call returns, or becomes the status code. */
typedef mx_return_t (*mx_error_handler_t)(char *str, mx_return_t ret);

/* Prints the error and ends the process. This is the default. */
extern const mx_error_handler_t MX_ERRORS_ARE_FATAL;
/* Returns the error to the caller. */
extern const mx_error_handler_t MX_ERRORS_RETURN;

/* Sets the handler for endpoints without one of their own and for calls without an endpoint.
 * Returns the one before. May be called before mx_init. */
mx_error_handler_t mx_set_error_handler(mx_error_handler_t handler);

/* A text for a return code, whatever the number. Belongs to the library. */
const char *mx_strerror(mx_return_t return_code);
/* A text for a status code, whatever the number. Belongs to the library. */
const char *mx_strstatus(mx_status_code_t status);

/* ---- The library --------------------------------------------------------------------------- */

/* Prepares the library; the first call of a program. */
#define mx_init() mx__init_api(MX_API)
/* What mx_init expands to: `api` is the level that the program was compiled for. */
mx_return_t mx__init_api(int api);
/* Gives up the library. Endpoints should be closed by then. */
mx_return_t mx_finalize(void);

/* ---- Endpoints ----------------------------------------------------------------------------- */

typedef enum mx_param_key {
    MX_PARAM_ERROR_HANDLER = 0,                 /* instead of the global handler */
    MX_PARAM_UNEXP_QUEUE_MAX = 1,               /* accepted, and without effect */
    MX_PARAM_CONTEXT_ID = 2                     /* which bits of the match info are a context */
} mx_param_key_t;

/* One choice for an endpoint that is being opened. */
typedef struct mx_param {
    mx_param_key_t key;
    union {
        mx_error_handler_t error_handler;
        uint32_t unexp_queue_max;
        struct {
            uint8_t bits;                       /* how many, at most MX_CONTEXT_ID_BITS_MAX */
            uint8_t shift;                      /* where the lowest of them is */
        } context_id;
    } val;
} mx_param_t;

/* Opens an endpoint. Peers that connect must know `endpoint_key`. MX_ANY_NIC and MX_ANY_ENDPOINT
 * take what is free. */
mx_return_t mx_open_endpoint(uint32_t board_number, uint32_t endpoint_id, uint32_t endpoint_key,
                             mx_param_t *params_array, uint32_t params_count,
                             mx_endpoint_t *endpoint);
/* Closes it; requests that are not complete are dropped without a word. */
mx_return_t mx_close_endpoint(mx_endpoint_t endpoint);
/* Ends all waits on the endpoint that are going on now, as if their time had passed. */
mx_return_t mx_wakeup(mx_endpoint_t endpoint);
/* Waits for a running handler, and lets nothing progress on the endpoint afterwards. */
mx_return_t mx_disable_progression(mx_endpoint_t endpoint);
/* Undoes mx_disable_progression, and makes progress. */
mx_return_t mx_reenable_progression(mx_endpoint_t endpoint);
/* The endpoint's own address, which it can send to at once. */
mx_return_t mx_get_endpoint_addr(mx_endpoint_t endpoint, mx_endpoint_addr_t *endpoint_addr);

/* ---- Connecting ---------------------------------------------------------------------------- */

/* Connects and waits, for at most `timeout` milliseconds. Connecting again is allowed. */
mx_return_t mx_connect(mx_endpoint_t endpoint, uint64_t nic_id, uint32_t endpoint_id, uint32_t key,
                       uint32_t timeout, mx_endpoint_addr_t *addr);
/* Which endpoint an address is. */
mx_return_t mx_decompose_endpoint_addr(mx_endpoint_addr_t endpoint_addr, uint64_t *nic_id,
                                       uint32_t *endpoint_id);

/* ---- Sending and receiving ----------------------------------------------------------------- */

/* Sends. The memory must not change until the request is complete; the list of segments may.
 * A null `request` posts the send and forgets it. */
mx_return_t mx_isend(mx_endpoint_t endpoint, mx_segment_t *segments_list, uint32_t segments_count,
                     mx_endpoint_addr_t dest_endpoint, uint64_t match_info, void *context,
                     mx_request_t *request);
/* The same, complete only after a receive has matched. */
mx_return_t mx_issend(mx_endpoint_t endpoint, mx_segment_t *segments_list, uint32_t segments_count,
                      mx_endpoint_addr_t dest_endpoint, uint64_t match_info, void *context,
                      mx_request_t *request);
/* Receives a message whose match info, as far as the bits of `match_mask` go, is `match_info`. */
mx_return_t mx_irecv(mx_endpoint_t endpoint, mx_segment_t *segments_list, uint32_t segments_count,
                     uint64_t match_info, uint64_t match_mask, void *context,
                     mx_request_t *request);
/* Takes back a receive without a message or a connect without an answer: then `*result` is 1 and
 * the request is gone. Otherwise `*result` is 0 and the request stays. */
mx_return_t mx_cancel(mx_endpoint_t endpoint, mx_request_t *request, uint32_t *result);

/* ---- Completing ---------------------------------------------------------------------------- */

/* Completes the request if it is done: `*result` is 1, `*status` filled, `*request` null. */
mx_return_t mx_test(mx_endpoint_t endpoint, mx_request_t *request, mx_status_t *status,
                    uint32_t *result);
/* The same after at most `timeout` milliseconds. */
mx_return_t mx_wait(mx_endpoint_t endpoint, mx_request_t *request, uint32_t timeout,
                    mx_status_t *status, uint32_t *result);
/* Completes the oldest request that is done and whose match info fits. */
mx_return_t mx_test_any(mx_endpoint_t endpoint, uint64_t match_info, uint64_t match_mask,
                        mx_status_t *status, uint32_t *result);
/* The same after at most `timeout` milliseconds. */
mx_return_t mx_wait_any(mx_endpoint_t endpoint, uint32_t timeout, uint64_t match_info,
                        uint64_t match_mask, mx_status_t *status, uint32_t *result);
/* The oldest request that is done, of any kind. It stays to be completed. */
mx_return_t mx_ipeek(mx_endpoint_t endpoint, mx_request_t *request, uint32_t *result);
/* The same after at most `timeout` milliseconds. */
mx_return_t mx_peek(mx_endpoint_t endpoint, uint32_t timeout, mx_request_t *request,
                    uint32_t *result);
/* Whether a message waits for a receive like this; it stays waiting. */
mx_return_t mx_iprobe(mx_endpoint_t endpoint, uint64_t match_info, uint64_t match_mask,
                      mx_status_t *status, uint32_t *result);
/* The same after at most `timeout` milliseconds. */
mx_return_t mx_probe(mx_endpoint_t endpoint, uint32_t timeout, uint64_t match_info,
                     uint64_t match_mask, mx_status_t *status, uint32_t *result);
/* Whether the memory of a send may be used again. */
mx_return_t mx_ibuffered(mx_endpoint_t endpoint, mx_request_t *request, uint32_t *result);
/* The same after at most `timeout` milliseconds. */
mx_return_t mx_buffered(mx_endpoint_t endpoint, mx_request_t *request, uint32_t timeout,
                        uint32_t *result);
/* The context that a request was posted with. */
mx_return_t mx_context(mx_request_t *request, void **context);

/* ---- Names --------------------------------------------------------------------------------- */

/* The nic id of a host's board, by its name. */
mx_return_t mx_hostname_to_nic_id(char *hostname, uint64_t *nic_id);
/* The name that goes with a nic id; `hostname` has room for MX_MAX_HOSTNAME_LEN bytes. */
mx_return_t mx_nic_id_to_hostname(uint64_t nic_id, char *hostname);
/* The nic id of a board of this host. */
mx_return_t mx_board_number_to_nic_id(uint32_t board_number, uint64_t *nic_id);
/* The board of this host that has a nic id. */
mx_return_t mx_nic_id_to_board_number(uint64_t nic_id, uint32_t *board_number);

/* ---- Questions ----------------------------------------------------------------------------- */

/* What mx_get_info can be asked, and what comes out. */
typedef enum mx_get_info_key {
    MX_NIC_COUNT = 1,                           /* uint32_t: boards */
    MX_NIC_IDS = 2,                             /* uint64_t for each board, and a zero */
    MX_MAX_NATIVE_ENDPOINTS = 3,                /* uint32_t: endpoints of a board */
    MX_NATIVE_REQUESTS = 4,                     /* uint32_t: requests of an endpoint */
    MX_COUNTERS_COUNT = 5,                      /* uint32_t: counters of a board */
    MX_COUNTERS_LABELS = 6,                     /* MX_MAX_STR_LEN bytes for each counter */
    MX_COUNTERS_VALUES = 7,                     /* uint32_t for each counter */
    MX_PRODUCT_CODE = 8,                        /* text */
    MX_PART_NUMBER = 9,                         /* text */
    MX_SERIAL_NUMBER = 10,                      /* text */
    MX_PORT_COUNT = 11,                         /* uint32_t: ports of a board */
    MX_PIO_SEND_MAX = 12,                       /* uint32_t: bytes of the longest small message */
    MX_COPY_SEND_MAX = 13,                      /* uint32_t: bytes of the longest eager message */
    MX_NUMA_NODE = 14,                          /* uint32_t: node of a board, or all ones */
    MX_NET_TYPE = 15,                           /* uint32_t: an enum mx_net_type */
    MX_LINE_SPEED = 16                          /* uint32_t: an mx_line_speed_t */
} mx_get_info_key_t;

enum mx_net_type {
    MX_NET_MYRI = 0,
    MX_NET_ETHER = 1
};

typedef enum mx_line_speed {
    MX_SPEED_2G = 0,
    MX_SPEED_10G = 1,
    MX_SPEED_OPEN_MX = 2                        /* whatever the memory or the network gives */
} mx_line_speed_t;

/* Answers a question about the library, a board or an endpoint. `ep` may be null; where a board is
 * meant, it is the endpoint's, or else a uint32_t at `in_val`. */
mx_return_t mx_get_info(mx_endpoint_t ep, mx_get_info_key_t key, void *in_val, uint32_t in_len,
                        void *out_val, uint32_t out_len);

/* ---- Old ways ------------------------------------------------------------------------------ */

/* Called for each message without a receive; typically it posts one. */
typedef void (*mx_matching_callback_t)(void *context, uint64_t match_value, int length);

/* Sets such a callback. New programs use mx_register_unexp_handler. */
mx_return_t mx_register_unexp_callback(mx_endpoint_t ep, mx_matching_callback_t cb, void *ctxt);

/* One-sided operations, which no library but Myricom's own had. They fail. */
mx_return_t mx_iput(mx_endpoint_t endpoint, void *local_addr, uint32_t length,
                    mx_endpoint_addr_t dest_endpoint, uint64_t remote_addr, void *context,
                    mx_request_t *request);
mx_return_t mx_iget(mx_endpoint_t endpoint, void *local_addr, uint32_t length,
                    mx_endpoint_addr_t dest_endpoint, uint64_t remote_addr, void *context,
                    mx_request_t *request);

/* ---- Checks -------------------------------------------------------------------------------- */

/* The binary interface is that of 64-bit Linux. An array of a negative size is an error in every
 * version of C and C++, which static assertions are not. */
#define MX__ASSERT(name, condition) typedef char mx__assert_##name[(condition) ? 1 : -1]

#if defined(__LP64__) || defined(_LP64)
MX__ASSERT(endpoint_size, sizeof(mx_endpoint_t) == 8);
MX__ASSERT(request_size, sizeof(mx_request_t) == 8);
MX__ASSERT(return_size, sizeof(mx_return_t) == 4);
MX__ASSERT(status_code_size, sizeof(mx_status_code_t) == 4);
MX__ASSERT(info_key_size, sizeof(mx_get_info_key_t) == 4);
MX__ASSERT(line_speed_size, sizeof(mx_line_speed_t) == 4);
MX__ASSERT(net_type_size, sizeof(enum mx_net_type) == 4);
MX__ASSERT(addr_size, sizeof(mx_endpoint_addr_t) == MX_SIZEOF_ADDR);
MX__ASSERT(segment_size, sizeof(mx_segment_t) == 16);
MX__ASSERT(segment_ptr_at, offsetof(mx_segment_t, segment_ptr) == 0);
MX__ASSERT(segment_length_at, offsetof(mx_segment_t, segment_length) == 8);
MX__ASSERT(param_size, sizeof(mx_param_t) == 16);
MX__ASSERT(param_key_size, sizeof(mx_param_key_t) == 4);
MX__ASSERT(param_key_at, offsetof(mx_param_t, key) == 0);
MX__ASSERT(param_val_at, offsetof(mx_param_t, val) == 8);
MX__ASSERT(param_bits_at, offsetof(mx_param_t, val.context_id.bits) == 8);
MX__ASSERT(param_shift_at, offsetof(mx_param_t, val.context_id.shift) == 9);
MX__ASSERT(status_size, sizeof(mx_status_t) == 48);
MX__ASSERT(status_code_at, offsetof(mx_status_t, code) == 0);
MX__ASSERT(status_source_at, offsetof(mx_status_t, source) == 8);
MX__ASSERT(status_match_info_at, offsetof(mx_status_t, match_info) == 24);
MX__ASSERT(status_msg_length_at, offsetof(mx_status_t, msg_length) == 32);
MX__ASSERT(status_xfer_length_at, offsetof(mx_status_t, xfer_length) == 36);
MX__ASSERT(status_context_at, offsetof(mx_status_t, context) == 40);
#endif

#ifdef __cplusplus
}
#endif

#endif
