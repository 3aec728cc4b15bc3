// SPDX-License-Identifier: Apache-2.0
//
// Ping-pong over two bare eventfds: what the kernel charges for waking a sleeping process, with
// no library in between. The floor that a blocking receive is measured against.
//
// The eventfds are inherited: DIOLKOS_BENCH_FDS is "A,B"; side 0 writes A and reads B. The eight
// bytes of a "message" are the counter itself, so every exchange checks its word, and only
// messages of 8 bytes exist.
//
// Build: cc -O2 eventfd_loop.c

#include "side.h"

struct doorbells {
    int outgoing;
    int incoming;
};

static void ring(int descriptor, uint64_t value)
{
    if (write(descriptor, &value, sizeof value) != sizeof value)
        side_die("write to an eventfd");
}

static uint64_t wait_ring(int descriptor)
{
    uint64_t value;
    while (read(descriptor, &value, sizeof value) != sizeof value)
        if (errno != EINTR)
            side_die("read of an eventfd");
    return value;
}

// Returns the number of wrong counters; `stamps` gets iterations + 1 readings without the pauses.
static uint64_t initiate(const struct doorbells *doorbells, const struct command *command,
                         uint64_t *stamps)
{
    uint64_t wrong = 0;
    struct timespec pause = {(time_t)(command->pause_us / 1000000),
                             (long)(command->pause_us % 1000000) * 1000};
    stamps[0] = 0;
    for (uint64_t i = 0; i < command->iterations; i++) {
        if (command->pause_us > 0)
            clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, NULL);
        uint64_t begin = ticks();
        ring(doorbells->outgoing, i + 1);
        wrong += wait_ring(doorbells->incoming) != i + 1;
        stamps[i + 1] = stamps[i] + (ticks() - begin);
    }
    return wrong;
}

static void respond(const struct doorbells *doorbells, const struct command *command)
{
    for (uint64_t i = 0; i < command->iterations; i++)
        ring(doorbells->outgoing, wait_ring(doorbells->incoming));
}

static void serve(const struct side *side, const struct doorbells *doorbells,
                  const struct command *command)
{
    uint64_t wrong;
    uint64_t *stamps;

    if (command->op != OP_PINGPONG || command->size != sizeof(uint64_t)) {
        side_fail(side, FAULT_UNSUPPORTED, "an eventfd carries 8 bytes, in a ping-pong only");
        return;
    }
    if (side->number == 1) {
        respond(doorbells, command);
        side_reply(side, REPLY_DONE, 0, NULL, 0);
        return;
    }
    stamps = calloc(command->iterations + 1, sizeof *stamps);
    if (stamps == NULL)
        side_die("memory for the times");
    wrong = initiate(doorbells, command, stamps);
    if (wrong != 0)
        side_fail(side, FAULT_VERIFICATION, "an eventfd held the wrong count");
    else if ((command->flags & FLAG_VERIFY) != 0)
        side_reply(side, REPLY_DONE, 0, NULL, 0);
    else
        side_reply_times(side, stamps, command->iterations);
    free(stamps);
}

int main(void)
{
    struct side side = {0};
    struct command command;
    struct doorbells doorbells;
    const char *list = getenv("DIOLKOS_BENCH_FDS");
    int first, second;

    side_prepare(&side);
    if (list == NULL || sscanf(list, "%d,%d", &first, &second) != 2) {
        fprintf(stderr, "eventfd_loop: DIOLKOS_BENCH_FDS is not two descriptors\n");
        return 2;
    }
    doorbells.outgoing = side.number == 0 ? first : second;
    doorbells.incoming = side.number == 0 ? second : first;
    side_connect(&side, "{\"library\": \"eventfd\"}");
    while (side_next(&side, &command))
        serve(&side, &doorbells, &command);
    return 0;
}
