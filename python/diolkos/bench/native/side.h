// SPDX-License-Identifier: Apache-2.0
//
// One side of a contender, in C: the control socket, the clock, the pinning and the payloads.
//
//   coordinator (Python)                 side (a program that includes this file)
//        |  command: 40 bytes                 |
//        |----------------------------------->|  runs one slice inside its library
//        |  reply: 16 bytes and a payload     |
//        |<-----------------------------------|  sleeps in read(), outside its library
//
// The packets are those of diolkos/bench/control.py; both ends run on one machine, so the
// numbers are in the machine's own byte order. A side is told by its environment:
//
//   DIOLKOS_BENCH_SOCKET  path of the control socket
//   DIOLKOS_BENCH_CPUS    the processors of side 0 and side 1, as "0,1"
//   DIOLKOS_BENCH_SIDE    0 or 1; absent under an MPI launcher, which numbers ranks itself
//
// A side never outlives its coordinator: it asks for SIGKILL when its parent dies, ends when
// the control socket closes, and ends by SIGALRM when one slice lasts SLICE_LIMIT_SECONDS.

#ifndef DIOLKOS_BENCH_SIDE_H
#define DIOLKOS_BENCH_SIDE_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { OP_QUIT = 0, OP_PINGPONG = 1, OP_STREAM = 2, OP_RATE = 3, OP_INCOMPLETE_TEST = 5 };
enum { OP_RDMA_WRITE = 6, OP_RDMA_READ = 7, OP_RDMA_ATOMIC = 8 };
enum { REPLY_HELLO = 1, REPLY_DONE = 2, REPLY_FAILED = 3 };
enum { FAULT_VERIFICATION = 1, FAULT_LIBRARY = 2, FAULT_UNSUPPORTED = 3 };
enum { FLAG_VERIFY = 1, FLAG_TOUCHED = 2 };
enum { LINE_BYTES = 64 };
enum { SLICE_LIMIT_SECONDS = 60 };

struct command {
    uint32_t op;
    uint32_t flags;
    uint64_t size;        // bytes of one message
    uint64_t iterations;  // round trips, or messages of a stream
    uint64_t window;      // messages between two acknowledgements; operations of a batch
    uint64_t pause_us;    // the initiator sleeps so long before each round trip
};

struct reply_header {
    uint32_t kind;
    uint32_t status;
    uint64_t payload_bytes;
};

struct side {
    int number;  // 0 starts every exchange, 1 answers
    int socket;
    uint64_t first_ticks;  // the two clocks read together when the side started:
    uint64_t first_ns;     // the longer ago that was, the better the rate is known
    int sleeps;  // whether there are pauses in which a side that waits should sleep
};

// ---- The clock: one unserialised counter read an iteration, as in the Rust loop.

static inline uint64_t clock_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static inline uint64_t ticks(void)
{
#if defined(__x86_64__)
    uint32_t low, high;
    __asm__ __volatile__("rdtsc" : "=a"(low), "=d"(high));
    return (uint64_t)high << 32 | low;
#elif defined(__aarch64__)
    uint64_t value;
    __asm__ __volatile__("mrs %0, cntvct_el0" : "=r"(value));
    return value;
#else
    return clock_ns();
#endif
}

static inline double ns_per_tick(const struct side *side)
{
    uint64_t elapsed_ticks = ticks() - side->first_ticks;
    uint64_t elapsed_ns = clock_ns() - side->first_ns;
    return elapsed_ticks == 0 ? 1.0 : (double)elapsed_ns / (double)elapsed_ticks;
}

// ---- The payload of a verification pass: every word depends on the iteration, on its place
// in the message and on the direction, so that a stale, shifted or echoed message is seen.

static inline uint64_t pattern_word(uint64_t iteration, uint64_t place, uint64_t direction)
{
    return (iteration + 1) * 0x9e3779b97f4a7c15u ^ (place + 1) * 0xc2b2ae3d27d4eb4fu ^
           (direction + 1) * 0x165667b19e3779f9u;
}

static inline void pattern_fill(char *bytes, uint64_t size, uint64_t iteration, uint64_t direction)
{
    for (uint64_t offset = 0; offset < size; offset += 8) {
        uint64_t word = pattern_word(iteration, offset / 8, direction);
        uint64_t rest = size - offset;
        memcpy(bytes + offset, &word, rest < 8 ? rest : 8);
    }
}

static inline int pattern_holds(const char *bytes, uint64_t size, uint64_t iteration,
                                uint64_t direction)
{
    for (uint64_t offset = 0; offset < size; offset += 8) {
        uint64_t word = pattern_word(iteration, offset / 8, direction);
        uint64_t rest = size - offset;
        if (memcmp(bytes + offset, &word, rest < 8 ? rest : 8) != 0)
            return 0;
    }
    return 1;
}

// The word that a timed pass writes and checks: as much of the iteration as fits.
static inline void stamp_write(char *bytes, uint64_t size, uint64_t stamp)
{
    if (size >= 8)
        memcpy(bytes, &stamp, 8);
    else if (size > 0)
        bytes[0] = (char)stamp;
}

static inline int stamp_holds(const char *bytes, uint64_t size, uint64_t stamp)
{
    if (size >= 8)
        return memcmp(bytes, &stamp, 8) == 0;
    return size == 0 || bytes[0] == (char)stamp;
}

// One word of each line: what is enough to have the lines in this processor's cache, as its own.
static inline void lines_write(char *bytes, uint64_t size, uint64_t word)
{
    for (uint64_t offset = 0; offset + 8 <= size; offset += LINE_BYTES)
        *(volatile uint64_t *)(bytes + offset) = word;
}

// ---- The control socket.

static inline void side_die(const char *what)
{
    fprintf(stderr, "diolkos bench side: %s: %s\n", what, strerror(errno));
    _exit(1);
}

static inline void write_all(int socket, const void *bytes, size_t size)
{
    const char *next = bytes;
    while (size > 0) {
        ssize_t written = write(socket, next, size);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            _exit(1);  // the coordinator is gone, and nobody is left to tell
        next += written;
        size -= (size_t)written;
    }
}

static inline void side_reply(const struct side *side, uint32_t kind, uint32_t status,
                              const void *payload, size_t size)
{
    struct reply_header header = {kind, status, size};
    alarm(0);
    write_all(side->socket, &header, sizeof header);
    write_all(side->socket, payload, size);
}

static inline void side_fail(const struct side *side, uint32_t fault, const char *message)
{
    side_reply(side, REPLY_FAILED, fault, message, strlen(message));
}

// Waits for the next command outside the library. Returns 0 when the coordinator wants the
// side to finish in good order; a coordinator that vanished ends the process here.
static inline int side_next(const struct side *side, struct command *command)
{
    char *next = (char *)command;
    size_t missing = sizeof *command;
    while (missing > 0) {
        ssize_t count = read(side->socket, next, missing);
        if (count < 0 && errno == EINTR)
            continue;
        if (count <= 0)
            _exit(1);
        next += count;
        missing -= (size_t)count;
    }
    alarm(SLICE_LIMIT_SECONDS);
    return command->op != OP_QUIT;
}

static inline int side_number_from_environment(void)
{
    static const char *const names[] = {"DIOLKOS_BENCH_SIDE", "OMPI_COMM_WORLD_RANK", "PMI_RANK"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const char *value = getenv(names[i]);
        if (value != NULL && (strcmp(value, "0") == 0 || strcmp(value, "1") == 0))
            return value[0] - '0';
    }
    fprintf(stderr, "diolkos bench side: started without a side number\n");
    exit(2);
}

// Pins the process and starts its clock. Called before the library starts its threads.
static inline void side_prepare(struct side *side)
{
    int processors[2];
    const char *list = getenv("DIOLKOS_BENCH_CPUS");
    cpu_set_t set;

    side->number = side_number_from_environment();
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0)
        side_die("prctl(PR_SET_PDEATHSIG)");
    if (list == NULL || sscanf(list, "%d,%d", &processors[0], &processors[1]) != 2)
        side_die("DIOLKOS_BENCH_CPUS is not two numbers");
    CPU_ZERO(&set);
    CPU_SET(processors[side->number], &set);
    if (sched_setaffinity(0, sizeof set, &set) != 0)
        side_die("sched_setaffinity");
    side->first_ticks = ticks();
    side->first_ns = clock_ns();
}

// Tells the coordinator that the library is up. `hello` is a JSON object.
static inline void side_connect(struct side *side, const char *hello)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const char *path = getenv("DIOLKOS_BENCH_SOCKET");

    if (path == NULL || strlen(path) >= sizeof address.sun_path)
        side_die("DIOLKOS_BENCH_SOCKET is missing or too long");
    strcpy(address.sun_path, path);
    side->socket = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (side->socket < 0 ||
        connect(side->socket, (struct sockaddr *)&address, sizeof address) != 0)
        side_die("control socket");
    side_reply(side, REPLY_HELLO, (uint32_t)side->number, hello, strlen(hello));
}

// Sends the round-trip times of a slice as 32-bit nanoseconds, longer ones as the largest.
// `stamps` holds count + 1 counter readings and is overwritten.
static inline void side_reply_times(const struct side *side, uint64_t *stamps, uint64_t count)
{
    double scale = ns_per_tick(side);
    uint32_t *times = (uint32_t *)stamps;  // entry i is written after stamps[i + 1] was read
    uint64_t previous = stamps[0];
    for (uint64_t i = 0; i < count; i++) {
        uint64_t current = stamps[i + 1];
        double ns = (double)(current - previous) * scale;
        uint32_t rounded = ns >= 4294967295.0 ? UINT32_MAX : (uint32_t)(ns + 0.5);
        memcpy(&times[i], &rounded, sizeof rounded);
        previous = current;
    }
    side_reply(side, REPLY_DONE, 0, times, count * sizeof *times);
}

#endif
