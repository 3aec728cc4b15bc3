/* SPDX-License-Identifier: Apache-2.0 */
/* The C interface of Diolkos: messages, memory and regions between programs that are kept apart.
 *
 * Link with -ldiolkos (pkg-config diolkos). docs/reference/c.md has an overview.
 *
 * - Functions return DIO_SUCCESS (0) or another code below, by name. dio_error_text() has a
 *   sentence about the last failure in this thread, dio_strerror() one about a code.
 * - Threads may share an endpoint. A handle must not be used once it is closed, freed or
 *   released.
 * - Memory that a request uses must stay valid until the request has ended, or the endpoint is
 *   closed.
 * - After fork() the child must not use endpoints of its parent: DIO_FORKED.
 * - Works with C89 (given <stdint.h>) to C23 and with C++. */
#ifndef DIOLKOS_H
#define DIOLKOS_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The version of this header. Minor versions add; major versions change. */
#define DIO_API_MAJOR 1
#define DIO_API_MINOR 0

/* --- results -------------------------------------------------------------------------------- */

enum dio_code {
    DIO_SUCCESS = 0,
    /* Not complete yet, no such message yet, or the timeout passed first. */
    DIO_NOT_YET = 1,
    /* An argument makes no sense: NULL, a length, a request that does not exist, ... */
    DIO_INVALID = 2,
    /* The endpoint was closed, by another thread. */
    DIO_CLOSED = 3,
    /* The endpoint belongs to the parent of this forked process. */
    DIO_FORKED = 4,
    /* A signal came while waiting. Nothing is lost; call again. */
    DIO_INTERRUPTED = 5,
    /* No such peer. */
    DIO_NOT_CONNECTED = 6,
    /* Too much waits for this peer already; wait for some of it first. */
    DIO_BUSY = 7,
    /* Too many requests, peers or regions at this endpoint. */
    DIO_NO_RESOURCES = 8,
    /* The arena has reached its limit. */
    DIO_ARENA_FULL = 9,
    /* The system has no memory or descriptors left. */
    DIO_NO_MEMORY = 10,
    /* Another system call failed. */
    DIO_SYSTEM = 11,
    /* There is no backend, and none could be started. */
    DIO_UNAVAILABLE = 12,
    /* The backend refused: not allowed, the name is taken, nobody of that name, ... */
    DIO_REFUSED = 13,
    /* The target of a connect did not appear in time. */
    DIO_TIMEOUT = 14,
    /* A fault of this library. The endpoint should be closed. */
    DIO_INTERNAL = 15,

    /* How requests end besides DIO_SUCCESS; calls return some of these too. */
    /* The receive was shorter than the message. */
    DIO_TRUNCATED = 32,
    /* Cancelled before it matched. */
    DIO_CANCELLED = 33,
    /* The endpoint was closed, or disconnected from the peer. */
    DIO_ENDPOINT_CLOSED = 34,
    /* The peer closed its endpoint. */
    DIO_PEER_CLOSED = 35,
    /* The peer's process died. */
    DIO_PEER_DIED = 36,
    /* The peer broke the protocol; its channel is closed. */
    DIO_PEER_MISBEHAVED = 37,
    /* The key does not allow this. */
    DIO_DENIED = 38,
    /* The region was revoked by its owner. */
    DIO_REVOKED = 39,
    /* The place lies outside of the region, or is not a multiple of 8 for an atomic. */
    DIO_OUT_OF_RANGE = 40
};

/* A sentence about a code; never NULL. */
const char *dio_strerror(int code);

/* What the last failed call of this thread had to say, with names and numbers; never NULL, and
 * valid until the next failing call of the thread. */
const char *dio_error_text(void);

/* The version of the library, such as "0.1.0". */
const char *dio_version(void);

/* DIO_API_MAJOR << 16 | DIO_API_MINOR of the library. */
uint32_t dio_api_version(void);

/* --- endpoints ------------------------------------------------------------------------------ */

/* A port on which messages are sent, received and matched. */
typedef struct dio_endpoint dio_endpoint;

/* How to open an endpoint. Set it to DIO_OPTIONS_INIT and then what shall differ. */
typedef struct dio_options {
    /* sizeof(dio_options): members that a library does not know yet must be absent. */
    size_t size;
    /* NULL: a name is made up. */
    const char *name;
    /* NULL: "default". */
    const char *partition;
    /* Where the backend's socket lies; NULL: as everywhere on this host. */
    const char *runtime_dir;
    /* Command that starts a backend if none runs, its words divided by spaces; "" starts none.
     * NULL: DIOLKOS_BACKEND_COMMAND, or `diolkos` on the PATH. */
    const char *backend_command;
    /* The endpoint's number; negative: the lowest free one. */
    int64_t number;
    /* The most that dio_alloc() may give out, in bytes; 0: half of the machine's memory. */
    uint64_t arena_bytes;
} dio_options;

#define DIO_OPTIONS_INIT {sizeof(dio_options), NULL, NULL, NULL, NULL, -1, 0}

/* Opens an endpoint; NULL options are DIO_OPTIONS_INIT. */
int dio_open(const dio_options *options, dio_endpoint **endpoint);

/* Closes an endpoint: its requests end, its peers see it leave. Its loans and arena memory stay
 * valid until they are released and freed. NULL is ignored. */
int dio_close(dio_endpoint *endpoint);

/* The endpoint's name, valid as long as it is open; NULL for NULL. */
const char *dio_name(const dio_endpoint *endpoint);

/* The endpoint's number; UINT32_MAX for NULL. */
uint32_t dio_number(const dio_endpoint *endpoint);

/* What crossed so far, and what is here now. */
typedef struct dio_counters_t {
    uint64_t tx_messages;
    uint64_t tx_bytes;
    uint64_t rx_messages;
    uint64_t rx_bytes;
    uint64_t doorbells_rung;
    uint64_t sleeps;
    uint64_t unexpected;
    uint64_t posted;
    uint64_t requests;
} dio_counters_t;

int dio_counters(dio_endpoint *endpoint, dio_counters_t *counters);

/* --- peers ---------------------------------------------------------------------------------- */

/* A peer of one endpoint. */
typedef uint32_t dio_peer;

/* The endpoint itself. */
#define DIO_SELF ((dio_peer)0xffffffffu)
/* As a source: anybody. As the peer of memory or a region: none in particular. */
#define DIO_ANY_PEER ((dio_peer)0xfffffffeu)

/* Connects by name, or by number, and waits until it is done or `timeout_ms` have passed (negative:
 * as long as the backend waits). */
int dio_connect(dio_endpoint *endpoint, const char *name, int64_t timeout_ms, dio_peer *peer);
int dio_connect_number(dio_endpoint *endpoint, uint32_t number, int64_t timeout_ms, dio_peer *peer);

/* Parts from a peer; requests that concern it end. */
int dio_disconnect(dio_endpoint *endpoint, dio_peer peer);

/* The peers that are connected: writes at most `room` of them, and how many there are. `peers` may
 * NULL if `room` is 0. */
int dio_peers(dio_endpoint *endpoint, dio_peer *peers, size_t room, size_t *count);

/* The number of a peer's endpoint. */
int dio_peer_number(dio_endpoint *endpoint, dio_peer peer, uint32_t *number);

/* The name of a peer's endpoint: at most `room` bytes with the final zero; DIO_INVALID if it is
 * longer. Names have at most 64 bytes. */
int dio_peer_name(dio_endpoint *endpoint, dio_peer peer, char *name, size_t room);

/* DIO_SUCCESS while the peer is there; else how it left. */
int dio_peer_state(dio_endpoint *endpoint, dio_peer peer);

/* --- requests ------------------------------------------------------------------------------- */

/* Something under way. DIO_DONE: it was complete at once. */
typedef uint64_t dio_request;
#define DIO_DONE ((dio_request)0)

/* How a request ended, or what was probed. */
typedef struct dio_status {
    /* One of enum dio_code. */
    int32_t code;
    /* The sender of a received message, the destination of a sent one. */
    dio_peer peer;
    /* Match info; for atomics what the word held before. */
    uint64_t match_info;
    /* 32 bits that rode along. */
    uint32_t immediate;
    uint32_t reserved;
    /* Length of the message, and bytes that reached the receiver's buffer. */
    uint64_t message_bytes;
    uint64_t transferred_bytes;
} dio_status;

/* DIO_SUCCESS: the request has ended, the status says how, and its name is free. DIO_NOT_YET: it
 * has not. `status` may be NULL. DIO_DONE is always complete. */
int dio_test(dio_endpoint *endpoint, dio_request request, dio_status *status);

/* As dio_test(), waiting for at most `timeout_ms`; negative: for ever. */
int dio_wait(dio_endpoint *endpoint, dio_request request, int64_t timeout_ms, dio_status *status);

/* Waits for the first of several requests; `index` says which has ended. */
int dio_wait_any(dio_endpoint *endpoint, const dio_request *requests, size_t count,
                 int64_t timeout_ms, size_t *index, dio_status *status);

/* Cancels a receive that has not matched, which frees its name; DIO_NOT_YET: it is too late, and it
 * will end by itself. */
int dio_cancel(dio_endpoint *endpoint, dio_request request);

/* Lets a request finish unseen; its memory must stay valid until the endpoint is closed. */
int dio_forget(dio_endpoint *endpoint, dio_request request);

/* --- messages ------------------------------------------------------------------------------- */

/* A flag of dio_isend(): complete only when a receive has matched. */
#define DIO_SYNCHRONOUS 1u

/* Sends a message; never waits. `data` may be NULL if `length` is 0. */
int dio_isend(dio_endpoint *endpoint, const void *data, size_t length, dio_peer peer,
              uint64_t match_info, uint32_t immediate, unsigned flags, dio_request *request);

/* Posts a receive for messages whose match info is `match_info` in the bits of `mask`, from
 * `source` or DIO_ANY_PEER. */
int dio_irecv(dio_endpoint *endpoint, void *data, size_t length, uint64_t match_info, uint64_t mask,
              dio_peer source, dio_request *request);

/* Looks for a message without a receive, and leaves it; waits at most `timeout_ms` (0: not at
 * all). */
int dio_probe(dio_endpoint *endpoint, uint64_t match_info, uint64_t mask, dio_peer source,
              int64_t timeout_ms, dio_status *status);

/* --- progress and event loops ---------------------------------------------------------------- */

/* Makes progress; never waits. Tests and waits do as well. */
int dio_progress(dio_endpoint *endpoint);

/* A descriptor to poll for reading, which belongs to the endpoint. It says something only between
 * dio_arm() and dio_disarm(). */
int dio_fd(dio_endpoint *endpoint, int *fd);

/* Before the event loop sleeps. DIO_NOT_YET: nothing is here, go to sleep. DIO_SUCCESS:
 * something is here already; do not sleep. Call dio_disarm() in either case. */
int dio_arm(dio_endpoint *endpoint);

/* After the event loop has slept; takes in what has come. */
int dio_disarm(dio_endpoint *endpoint);

/* --- memory --------------------------------------------------------------------------------- */

/* An allocation that peers can be shown without a copy. */
typedef struct dio_memory dio_memory;

/* Allocates `length` bytes at a multiple of `align` (a power of two, at most 2 MiB). With a peer
 * only that one will be sent or lent it, and memory that it has seen may be used again.
 * Contents: any. */
int dio_alloc(dio_endpoint *endpoint, size_t length, size_t align, dio_peer peer,
              dio_memory **memory);

/* Where it is; NULL for NULL. */
void *dio_memory_data(const dio_memory *memory);

/* How long it is; 0 for NULL. */
size_t dio_memory_length(const dio_memory *memory);

/* Frees it. No request or region may use it any more. NULL is ignored. */
void dio_free(dio_memory *memory);

typedef struct dio_arena_t {
    uint64_t limit_bytes;
    uint64_t used_bytes;
    uint64_t cached_bytes;
    uint64_t allocations;
    uint64_t granted_bytes;
} dio_arena_t;

int dio_arena(dio_endpoint *endpoint, dio_arena_t *arena);

/* --- regions -------------------------------------------------------------------------------- */

/* Memory that peers with its key may use. */
typedef struct dio_region dio_region;

/* A key as bytes, to be sent to whoever shall use it. */
#define DIO_KEY_BYTES 40
typedef struct dio_key {
    unsigned char bytes[DIO_KEY_BYTES];
} dio_key;

#define DIO_READ 1u
#define DIO_READ_WRITE 3u

/* Lets peers use memory, for DIO_READ or DIO_READ_WRITE: one, or with DIO_ANY_PEER all that have
 * the key. Arena memory is granted as a whole; other memory is served by copies, when this
 * endpoint makes progress. It must stay valid until the region is freed. */
int dio_register(dio_endpoint *endpoint, void *data, size_t length, unsigned access, dio_peer peer,
                 dio_region **region);

/* The key of a region. */
int dio_region_key(const dio_region *region, dio_key *key);

/* Grants a region to a peer ahead of its first use. */
int dio_region_grant(dio_region *region, dio_peer peer);

/* Takes it back: from here on no peer reads or changes what this process has there. The memory
 * must not be written by other threads meanwhile. May be called twice. */
int dio_region_revoke(dio_region *region);

/* Revokes and frees it. NULL is ignored. */
void dio_region_free(dio_region *region);

/* What a key says of itself: length, and access as above. DIO_INVALID: it is no key. Either
 * pointer may be NULL. */
int dio_key_info(const dio_key *key, uint64_t *length, unsigned *access);

/* Writes to a region of a peer at `offset` bytes. Complete: it is there. */
int dio_rdma_write(dio_endpoint *endpoint, const void *data, size_t length, dio_peer peer,
                   const dio_key *key, uint64_t offset, dio_request *request);

/* As dio_rdma_write(); an empty message follows when the data is in place. */
int dio_rdma_write_notify(dio_endpoint *endpoint, const void *data, size_t length, dio_peer peer,
                          const dio_key *key, uint64_t offset, uint64_t match_info,
                          uint32_t immediate, dio_request *request);

/* Reads from a region of a peer. */
int dio_rdma_read(dio_endpoint *endpoint, void *data, size_t length, dio_peer peer,
                  const dio_key *key, uint64_t offset, dio_request *request);

/* Adds to a 64-bit word, wrapping around; the status has what was there before as match_info. */
int dio_fetch_add(dio_endpoint *endpoint, dio_peer peer, const dio_key *key, uint64_t offset,
                  uint64_t value, dio_request *request);

/* Puts `desired` into a word that holds `expected`; the status as in dio_fetch_add(). */
int dio_compare_swap(dio_endpoint *endpoint, dio_peer peer, const dio_key *key, uint64_t offset,
                     uint64_t expected, uint64_t desired, dio_request *request);

/* Complete when every operation on regions of this peer that was begun before is. */
int dio_rdma_fence(dio_endpoint *endpoint, dio_peer peer, dio_request *request);

/* --- loans ---------------------------------------------------------------------------------- */

/* Memory that a peer has lent. */
typedef struct dio_loan dio_loan;

/* Lends memory to a peer; without a copy if it is arena memory. Complete when the peer has let
 * go, or is gone; until then the memory must not change. */
int dio_lend(dio_endpoint *endpoint, const void *data, size_t length, dio_peer peer,
             uint64_t match_info, uint32_t immediate, dio_request *request);

/* Posts a receive for a loan, which ordinary receives do not see. */
int dio_irecv_loan(dio_endpoint *endpoint, uint64_t match_info, uint64_t mask, dio_peer source,
                   dio_request *request);

/* The loan of such a request that has ended with DIO_SUCCESS; once. */
int dio_take_loan(dio_endpoint *endpoint, dio_request request, dio_loan **loan);

/* The memory, for reading until dio_release(); NULL for NULL. */
const void *dio_loan_data(const dio_loan *loan);

/* How long it is; 0 for NULL. */
size_t dio_loan_length(const dio_loan *loan);

/* Not 0: it is a copy, since the lender's memory cannot be reached. */
int dio_loan_is_copied(const dio_loan *loan);

/* Lets it go. NULL is ignored. */
void dio_release(dio_loan *loan);

#ifdef __cplusplus
}
#endif

#endif
