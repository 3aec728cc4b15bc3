// SPDX-License-Identifier: Apache-2.0
//
// Ping-pong, stream and message rate over whatever sends and receives messages: the work of the
// Rust loop (crates/python/src/bench.rs), call for call.
//
//   ping-pong   side 0 writes a word, sends, receives, checks the word, reads the counter once;
//               side 1 receives into one buffer and sends that buffer back
//   touched     the same, where each side writes its own message anew before the time begins
//   stream,     side 0 posts a window of sends, waits for all, receives an empty message;
//   rate        side 1 posts a window of receives, waits for all, checks a word, sends it
//   tests       side 0 tests a receive that nothing matches, where the program can do that
//   verify      no clock: every byte of every message is written and checked, both ways
//
// The first window of a stream is not timed. A program includes this file and defines the
// functions that are declared below; they are static, so that they become part of the loops.

#ifndef DIOLKOS_BENCH_EXCHANGE_H
#define DIOLKOS_BENCH_EXCHANGE_H

#include "side.h"
#ifdef EXCHANGE_HAS_ONE_SIDED
#include "one_sided.h"
#endif

enum { WINDOW_LIMIT = 4096 };

// Returns when the buffer may be used again.
static void send_message(const struct side *side, const char *bytes, uint64_t size);
static void receive_message(const struct side *side, char *bytes, uint64_t size);
// So many messages from one buffer, or into one.
static void window_send(const struct side *side, const char *bytes, uint64_t size,
                        uint64_t window);
static void window_receive(const struct side *side, char *bytes, uint64_t size, uint64_t window);
// An empty message from side 1 to side 0.
static void acknowledge(const struct side *side);
#ifdef EXCHANGE_HAS_TESTS
// Times batches of so many tests of a receive that nothing matches: a stamp before each batch, and
// one after the last.
static void time_tests(uint64_t *stamps, uint64_t batches, uint64_t tests);
#endif

struct buffers {
    char *outgoing;
    char *incoming;
    uint64_t bytes;
    uint64_t *stamps;
    uint64_t stamp_count;
};

// Returns the number of messages whose content was wrong.
static uint64_t pingpong_verify(const struct side *side, const struct command *command,
                                struct buffers *buffers)
{
    uint64_t size = command->size, wrong = 0;
    for (uint64_t i = 0; i < command->iterations; i++) {
        if (side->number == 0) {
            pattern_fill(buffers->outgoing, size, i, 0);
            send_message(side, buffers->outgoing, size);
            receive_message(side, buffers->incoming, size);
            wrong += !pattern_holds(buffers->incoming, size, i, 1);
        } else {
            receive_message(side, buffers->incoming, size);
            wrong += !pattern_holds(buffers->incoming, size, i, 0);
            pattern_fill(buffers->outgoing, size, i, 1);
            send_message(side, buffers->outgoing, size);
        }
    }
    return wrong;
}

static uint64_t pingpong_initiate(const struct side *side, const struct command *command,
                                  struct buffers *buffers)
{
    uint64_t size = command->size, wrong = 0, *stamps = buffers->stamps;
    stamps[0] = ticks();
    for (uint64_t i = 0; i < command->iterations; i++) {
        stamp_write(buffers->outgoing, size, i);
        send_message(side, buffers->outgoing, size);
        receive_message(side, buffers->incoming, size);
        wrong += !stamp_holds(buffers->incoming, size, i);
        stamps[i + 1] = ticks();
    }
    return wrong;
}

// With a pause before each round trip; the pauses are taken out of the stamps again.
static uint64_t pingpong_initiate_paused(const struct side *side, const struct command *command,
                                         struct buffers *buffers)
{
    uint64_t size = command->size, wrong = 0, *stamps = buffers->stamps;
    struct timespec pause = {(time_t)(command->pause_us / 1000000),
                             (long)(command->pause_us % 1000000) * 1000};
    stamps[0] = 0;
    for (uint64_t i = 0; i < command->iterations; i++) {
        clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, NULL);
        uint64_t begin = ticks();
        stamp_write(buffers->outgoing, size, i);
        send_message(side, buffers->outgoing, size);
        receive_message(side, buffers->incoming, size);
        wrong += !stamp_holds(buffers->incoming, size, i);
        stamps[i + 1] = stamps[i] + (ticks() - begin);
    }
    return wrong;
}

static void pingpong_respond(const struct side *side, const struct command *command,
                             struct buffers *buffers)
{
    for (uint64_t i = 0; i < command->iterations; i++) {
        receive_message(side, buffers->incoming, command->size);
        send_message(side, buffers->incoming, command->size);
    }
}

// Both sides write their message anew before each round trip, outside of the time: a message that is
// read where it lies comes out of memory that its sender has just written. Side 1 says when it is done.
static uint64_t pingpong_touched(const struct side *side, const struct command *command,
                                 struct buffers *buffers)
{
    uint64_t size = command->size, wrong = 0, *stamps = buffers->stamps;
    stamps[0] = 0;
    for (uint64_t i = 0; i < command->iterations; i++) {
        lines_write(buffers->outgoing, size, i);
        stamp_write(buffers->outgoing, size, i);
        acknowledge(side);
        uint64_t begin = ticks();
        if (side->number == 1)
            receive_message(side, buffers->incoming, size);
        send_message(side, buffers->outgoing, size);
        if (side->number == 0)
            receive_message(side, buffers->incoming, size);
        stamps[i + 1] = stamps[i] + (ticks() - begin);
        wrong += !stamp_holds(buffers->incoming, size, i);
    }
    return wrong;
}

// One window one way, and its acknowledgement. Returns 1 when the checked word was wrong.
static uint64_t window_exchange(const struct side *side, const struct command *command,
                                struct buffers *buffers, uint64_t stamp)
{
    uint64_t wrong = 0;
    if (side->number == 0) {
        stamp_write(buffers->outgoing, command->size, stamp);
        window_send(side, buffers->outgoing, command->size, command->window);
    } else {
        window_receive(side, buffers->incoming, command->size, command->window);
        wrong = !stamp_holds(buffers->incoming, command->size, stamp);
    }
    acknowledge(side);
    return wrong;
}

// Sends `iterations` messages in windows. Writes the seconds of all but the first window.
static uint64_t stream(const struct side *side, const struct command *command,
                       struct buffers *buffers, double *seconds)
{
    uint64_t windows = command->iterations / command->window, wrong = 0;
    wrong += window_exchange(side, command, buffers, 0);
    uint64_t begin = clock_ns();
    for (uint64_t i = 1; i <= windows; i++)
        wrong += window_exchange(side, command, buffers, i);
    *seconds = (double)(clock_ns() - begin) * 1e-9;
    return wrong;
}

static uint64_t stream_verify(const struct side *side, const struct command *command,
                              struct buffers *buffers)
{
    uint64_t size = command->size, wrong = 0;
    for (uint64_t i = 0; i < command->iterations; i++) {
        if (side->number == 0) {
            pattern_fill(buffers->outgoing, size, i, 0);
            send_message(side, buffers->outgoing, size);
        } else {
            receive_message(side, buffers->incoming, size);
            wrong += !pattern_holds(buffers->incoming, size, i, 0);
        }
    }
    acknowledge(side);
    return wrong;
}

// Memory is allocated and touched here, never inside a timed loop.
static void buffers_prepare(struct buffers *buffers, const struct command *command)
{
    if (buffers->bytes < command->size + 8) {
        free(buffers->outgoing);
        free(buffers->incoming);
        buffers->bytes = command->size + 8;
        if (posix_memalign((void **)&buffers->outgoing, 4096, buffers->bytes) != 0 ||
            posix_memalign((void **)&buffers->incoming, 4096, buffers->bytes) != 0)
            side_die("memory for the messages");
        memset(buffers->outgoing, 1, buffers->bytes);
        memset(buffers->incoming, 2, buffers->bytes);
    }
    if (buffers->stamp_count < command->iterations + 1) {
        free(buffers->stamps);
        buffers->stamp_count = command->iterations + 1;
        buffers->stamps = malloc(buffers->stamp_count * sizeof *buffers->stamps);
        if (buffers->stamps == NULL)
            side_die("memory for the times");
        memset(buffers->stamps, 0, buffers->stamp_count * sizeof *buffers->stamps);
    }
}

static void serve(const struct side *side, const struct command *command, struct buffers *buffers)
{
    int verify = (command->flags & FLAG_VERIFY) != 0, timed = side->number == 0 && !verify;
    uint64_t wrong = 0;
    double seconds = 0;

#ifdef EXCHANGE_HAS_TESTS
    if (command->op == OP_INCOMPLETE_TEST) {
        buffers_prepare(buffers, command);
        if (timed)
            time_tests(buffers->stamps, command->iterations, command->window);
        side_reply_times(side, buffers->stamps, timed ? command->iterations : 0);
        return;
    }
#endif
#ifdef EXCHANGE_HAS_ONE_SIDED
    if (is_one_sided(command)) {
        one_sided_serve(side, command);
        return;
    }
#endif
    if (command->size > INT32_MAX || command->window > WINDOW_LIMIT) {
        side_fail(side, FAULT_UNSUPPORTED, "the loop counts bytes in 32 bits, and 4096 requests");
        return;
    }
    buffers_prepare(buffers, command);
    if (command->op == OP_PINGPONG) {
        if (verify)
            wrong = pingpong_verify(side, command, buffers);
        else if ((command->flags & FLAG_TOUCHED) != 0)
            wrong = pingpong_touched(side, command, buffers);
        else if (side->number == 1)
            pingpong_respond(side, command, buffers);
        else if (command->pause_us > 0)
            wrong = pingpong_initiate_paused(side, command, buffers);
        else
            wrong = pingpong_initiate(side, command, buffers);
    } else if (verify) {
        wrong = stream_verify(side, command, buffers);
    } else {
        wrong = stream(side, command, buffers, &seconds);
    }
    if (wrong != 0)
        side_fail(side, FAULT_VERIFICATION, "a message arrived with the wrong content");
    else if (timed && command->op == OP_PINGPONG)
        side_reply_times(side, buffers->stamps, command->iterations);
    else
        side_reply(side, REPLY_DONE, 0, &seconds, timed ? sizeof seconds : 0);
}

// Serves until the coordinator wants no more.
static void exchange_until_told(struct side *side)
{
    struct command command;
    struct buffers buffers = {0};
    while (side_next(side, &command)) {
        side->sleeps = command.pause_us > 0;
        serve(side, &command, &buffers);
    }
    free(buffers.outgoing);
    free(buffers.incoming);
    free(buffers.stamps);
}

#endif
