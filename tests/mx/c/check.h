// SPDX-License-Identifier: Apache-2.0
//
// What the C tests of the MX interface share: checks that say where they failed, a second process,
// patterns, and the few steps that nearly every program takes.
//
// A program ends with 0 when all is well. It never waits for time to pass: processes tell each other
// through pipes, and an alarm ends what would wait for ever.

#ifndef CHECK_H
#define CHECK_H

#include <mx_extensions.h>

#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PATIENCE_S = 60, KEY = 0x5eed, BOARD = 0 };

#define FAIL(...)                                                                                  \
    do {                                                                                           \
        fprintf(stderr, "%s:%d: ", __FILE__, __LINE__);                                            \
        fprintf(stderr, __VA_ARGS__);                                                              \
        fputc('\n', stderr);                                                                       \
        _exit(1);                                                                                  \
    } while (0)

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition))                                                                          \
            FAIL("%s does not hold", #condition);                                                  \
    } while (0)

#define EQUAL(found, wanted)                                                                       \
    do {                                                                                           \
        unsigned long long found_ = (unsigned long long)(found);                                   \
        unsigned long long wanted_ = (unsigned long long)(wanted);                                 \
        if (found_ != wanted_)                                                                     \
            FAIL("%s is %llu (0x%llx), not %s, %llu", #found, found_, found_, #wanted, wanted_);   \
    } while (0)

#define RETURNS(call, wanted)                                                                      \
    do {                                                                                           \
        int found_ = (int)(call), wanted_ = (int)(wanted);                                         \
        if (found_ != wanted_)                                                                     \
            FAIL("%s returned %d (%s), not %s, %d", #call, found_, mx_strerror(found_), #wanted,   \
                 wanted_);                                                                         \
    } while (0)

#define OK(call) RETURNS(call, MX_SUCCESS)

// Lengths around every limit that the interface or the library has.
static const uint32_t LENGTHS[] = {0,     1,     13,    32,    33,     95,      128,     129,
                                   4096,  4097,  13274, 32768, 32769,  65536,   65537,   131072,
                                   333333, 1 << 20, 9327485};
#define COUNT_OF(array) (sizeof(array) / sizeof(array)[0])

// ---- Patterns

static inline unsigned char pattern(uint64_t seed, uint64_t place)
{
    return (unsigned char)((seed + 1) * 37 + place * 7 + (place >> 8) * 13 + (place >> 16) * 101);
}

static inline void fill(void *bytes, uint64_t length, uint64_t seed)
{
    for (uint64_t i = 0; i < length; i++)
        ((unsigned char *)bytes)[i] = pattern(seed, i);
}

static inline int holds(const void *bytes, uint64_t length, uint64_t seed)
{
    for (uint64_t i = 0; i < length; i++)
        if (((const unsigned char *)bytes)[i] != pattern(seed, i))
            return 0;
    return 1;
}

static inline void *memory(size_t length)
{
    void *bytes = malloc(length + 1);
    CHECK(bytes != NULL);
    memset(bytes, 0xee, length + 1);
    return bytes;
}

// ---- The second process

struct other {
    pid_t pid;  // of the child; 0 in the child
    int out;
    int in;
};

// Becomes two processes: call it before mx_init. The child dies with its parent.
static inline struct other split(void)
{
    int down[2], up[2];
    struct other other;
    CHECK(pipe(down) == 0 && pipe(up) == 0);
    fflush(NULL);
    other.pid = fork();
    CHECK(other.pid >= 0);
    if (other.pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        alarm(PATIENCE_S);
    }
    other.out = other.pid ? down[1] : up[1];
    other.in = other.pid ? up[0] : down[0];
    close(other.pid ? down[0] : up[0]);
    close(other.pid ? up[1] : down[1]);
    return other;
}

static inline void tell(const struct other *other, const void *bytes, size_t length)
{
    CHECK(write(other->out, bytes, length) == (ssize_t)length);
}

static inline void hear(const struct other *other, void *bytes, size_t length)
{
    ssize_t count = read(other->in, bytes, length);
    if (count != (ssize_t)length)
        FAIL("the other process ended");
}

// What was done before a signal is done when a handler sees what the signal led to. The order comes
// through the other process, where sanitizers cannot see it: this says it to them.
static atomic_int signals;

static inline void signal_other(const struct other *other)
{
    signals++;
    tell(other, "!", 1);
}

static inline void after_signals(void)
{
    (void)atomic_load(&signals);
}

static inline void await_other(const struct other *other)
{
    char byte;
    hear(other, &byte, 1);
}

// As await_other, with progress: the other process may be connecting to us, and without a progression
// thread nothing but our calls answers it.
static inline void answer_until_told(const struct other *other, mx_endpoint_t endpoint)
{
    struct pollfd in = {other->in, POLLIN, 0};
    while (poll(&in, 1, 1) == 0)
        mx_progress(endpoint);
    await_other(other);
}

// The parent's end: the child must have ended well.
static inline void join_other(const struct other *other)
{
    int status = 0;
    CHECK(waitpid(other->pid, &status, 0) == other->pid);
    EQUAL(status, 0);
}

// Stops a process, whosever child it is, and returns when it has stopped.
static inline void stop_process(pid_t pid)
{
    char path[64], text[512], *state;
    CHECK(kill(pid, SIGSTOP) == 0);
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    do {
        FILE *file = fopen(path, "r");
        CHECK(file != NULL);
        CHECK(fgets(text, sizeof text, file) != NULL);
        fclose(file);
        state = strrchr(text, ')');
        sched_yield();
    } while (state == NULL || state[2] != 'T');
}

static inline void resume_process(pid_t pid)
{
    CHECK(kill(pid, SIGCONT) == 0);
}

// ---- What nearly every program does

// Prepares the library so that errors come back as return codes.
static inline void begin(void)
{
    alarm(PATIENCE_S);
    mx_set_error_handler(MX_ERRORS_RETURN);
    OK(mx_init());
}

static inline mx_endpoint_t open_any(void)
{
    mx_endpoint_t endpoint = NULL;
    OK(mx_open_endpoint(BOARD, MX_ANY_ENDPOINT, KEY, NULL, 0, &endpoint));
    CHECK(endpoint != NULL);
    return endpoint;
}

static inline void end(mx_endpoint_t endpoint)
{
    OK(mx_close_endpoint(endpoint));
    OK(mx_finalize());
}

struct place {
    uint64_t nic_id;
    uint32_t endpoint_id;
    uint32_t unused;
};

static inline struct place place_of(mx_endpoint_addr_t address)
{
    struct place place = {0, 0, 0};
    OK(mx_decompose_endpoint_addr(address, &place.nic_id, &place.endpoint_id));
    return place;
}

static inline mx_endpoint_addr_t own_address(mx_endpoint_t endpoint)
{
    mx_endpoint_addr_t address;
    memset(&address, 0, sizeof address);
    OK(mx_get_endpoint_addr(endpoint, &address));
    return address;
}

static inline struct place own_place(mx_endpoint_t endpoint)
{
    return place_of(own_address(endpoint));
}

static inline mx_endpoint_addr_t connect_to(mx_endpoint_t endpoint, struct place place)
{
    mx_endpoint_addr_t address;
    memset(&address, 0, sizeof address);
    OK(mx_connect(endpoint, place.nic_id, place.endpoint_id, KEY, MX_INFINITE, &address));
    return address;
}

// Both processes open an endpoint, say where it is, and connect to the other's.
static inline mx_endpoint_addr_t meet(const struct other *other, mx_endpoint_t endpoint)
{
    struct place mine = own_place(endpoint), theirs;
    tell(other, &mine, sizeof mine);
    hear(other, &theirs, sizeof theirs);
    return connect_to(endpoint, theirs);
}

static inline mx_segment_t segment(void *bytes, uint32_t length)
{
    mx_segment_t segment;
    segment.segment_ptr = bytes;
    segment.segment_length = length;
    return segment;
}

static inline mx_request_t send_bytes(mx_endpoint_t endpoint, mx_endpoint_addr_t to, void *bytes,
                                      uint32_t length, uint64_t match)
{
    mx_segment_t one = segment(bytes, length);
    mx_request_t request = NULL;
    OK(mx_isend(endpoint, &one, 1, to, match, NULL, &request));
    CHECK(request != NULL);
    return request;
}

static inline mx_request_t send_synchronously(mx_endpoint_t endpoint, mx_endpoint_addr_t to,
                                              void *bytes, uint32_t length, uint64_t match)
{
    mx_segment_t one = segment(bytes, length);
    mx_request_t request = NULL;
    OK(mx_issend(endpoint, &one, 1, to, match, NULL, &request));
    CHECK(request != NULL);
    return request;
}

static inline mx_request_t receive_bytes(mx_endpoint_t endpoint, void *bytes, uint32_t length,
                                         uint64_t match, uint64_t mask)
{
    mx_segment_t one = segment(bytes, length);
    mx_request_t request = NULL;
    OK(mx_irecv(endpoint, &one, 1, match, mask, NULL, &request));
    CHECK(request != NULL);
    return request;
}

// Waits for a request, however it ends.
static inline mx_status_t ended(mx_endpoint_t endpoint, mx_request_t request)
{
    mx_status_t status;
    uint32_t result = 0;
    memset(&status, 0xff, sizeof status);
    // With errors that are returned, a request that failed makes the call itself succeed.
    OK(mx_wait(endpoint, &request, MX_INFINITE, &status, &result));
    EQUAL(result, 1);
    CHECK(request == NULL);
    return status;
}

// Waits for a request, which must end well.
static inline mx_status_t done(mx_endpoint_t endpoint, mx_request_t request)
{
    mx_status_t status = ended(endpoint, request);
    if (status.code != MX_STATUS_SUCCESS)
        FAIL("the request ended with %d (%s)", (int)status.code, mx_strstatus(status.code));
    return status;
}

static inline int same_address(mx_endpoint_addr_t a, mx_endpoint_addr_t b)
{
    struct place first = place_of(a), second = place_of(b);
    return first.nic_id == second.nic_id && first.endpoint_id == second.endpoint_id;
}

#endif
