// SPDX-License-Identifier: Apache-2.0
//
// The bare copy: what the machine allows for memory that two processes share. Not a rival, a limit.
//
// Both sides map one file that they inherited (DIOLKOS_BENCH_FDS) and take turns by a word each:
//
//   page 0    | turns given by side 0 | turns given by side 1 |     a line of its own each
//   then      | memory of side 0 | a page | memory of side 1 | a page |
//
//   ping-pong   each side writes its memory, and then copies the other's into memory of its own
//               process. Only the copies of side 0 are timed, and count twice, as a round trip has two
//   one-sided   one_sided.h: a copy into memory that the other has just read, or out of memory that
//               the other has just written; an atomic operation is the bare instruction
//
// Build: cc -O2 memcpy_loop.c

#include "one_sided.h"

#include <sys/stat.h>

enum { PAGE = 4096, TURN_LINE = 256 };

static struct {
    int descriptor;
    char *base;
    uint64_t length;
    uint64_t size;   // of each side's memory
    uint64_t turns;  // that this side has given
    uint64_t seen;   // that the other side had given when it was waited for
} shared;

static uint64_t *turns_of(int side)
{
    return (uint64_t *)(shared.base + side * TURN_LINE);
}

static char *memory_of(int side)
{
    uint64_t room = (shared.size + PAGE - 1) / PAGE * PAGE + PAGE;
    return shared.base + PAGE + (uint64_t)side * room;
}

static void shared_open(uint64_t size)
{
    uint64_t length = PAGE + 2 * ((size + PAGE - 1) / PAGE * PAGE + PAGE);
    struct stat status;

    shared.size = size;
    if (shared.length >= length)
        return;
    // Both sides may do this at once: they were told the same size.
    if (fstat(shared.descriptor, &status) != 0 ||
        ((uint64_t)status.st_size < length && ftruncate(shared.descriptor, (off_t)length) != 0))
        side_die("room for the shared memory");
    if (shared.base != NULL)
        munmap(shared.base, shared.length);
    shared.base = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE,
                       shared.descriptor, 0);
    if (shared.base == MAP_FAILED)
        side_die("mapping of the shared memory");
    shared.length = length;
}

static void give_turn(const struct side *side)
{
    __atomic_store_n(turns_of(side->number), ++shared.turns, __ATOMIC_RELEASE);
}

static void wait_turn(const struct side *side)
{
    shared.seen++;
    while (__atomic_load_n(turns_of(1 - side->number), __ATOMIC_ACQUIRE) < shared.seen)
        ;
}

static char *target_open(const struct side *side, uint64_t size)
{
    shared_open(size);
    return side->number == 1 ? memory_of(1) : NULL;
}

// Not inlined, so that the compiler neither knows the length nor leaves a copy of a batch out.
static __attribute__((noinline)) void copy(char *to, const char *from, uint64_t size)
{
    memcpy(to, from, size);
    __asm__ __volatile__("" ::: "memory");
}

static void target_write(const char *local, uint64_t size)
{
    copy(memory_of(1), local, size);
}

static void target_read(char *local, uint64_t size)
{
    copy(local, memory_of(1), size);
}

static uint64_t target_add(uint64_t addend)
{
    return __atomic_fetch_add((uint64_t *)memory_of(1), addend, __ATOMIC_SEQ_CST);
}

static void message_write(const struct side *side, const struct command *command, uint64_t i)
{
    char *own = memory_of(side->number);
    if ((command->flags & FLAG_VERIFY) != 0) {
        pattern_fill(own, command->size, i, (uint64_t)side->number);
        return;
    }
    lines_write(own, command->size, i);
    stamp_write(own, command->size, i);
}

static int message_holds(const struct side *side, const struct command *command, const char *bytes,
                         uint64_t i)
{
    if ((command->flags & FLAG_VERIFY) != 0)
        return pattern_holds(bytes, command->size, i, (uint64_t)(1 - side->number));
    return stamp_holds(bytes, command->size, i);
}

// Returns the number of messages whose content was wrong.
static uint64_t pingpong(const struct side *side, const struct command *command, char *incoming,
                         uint64_t *stamps)
{
    const char *theirs = memory_of(1 - side->number);
    uint64_t wrong = 0;

    stamps[0] = 0;
    for (uint64_t i = 0; i < command->iterations; i++) {
        message_write(side, command, i);
        if (side->number == 0)
            wait_turn(side);  // side 1 has written its message, too
        give_turn(side);
        wait_turn(side);
        uint64_t begin = ticks();
        copy(incoming, theirs, command->size);
        stamps[i + 1] = stamps[i] + 2 * (ticks() - begin);
        wrong += !message_holds(side, command, incoming, i);
        give_turn(side);
        if (side->number == 1)
            wait_turn(side);  // side 0 has read our message
    }
    return wrong;
}

static void pingpong_serve(const struct side *side, const struct command *command)
{
    uint64_t *stamps, wrong;
    char *incoming;

    if (command->op != OP_PINGPONG || command->pause_us > 0) {
        side_fail(side, FAULT_UNSUPPORTED, "a copy is timed without pauses, and no rate is");
        return;
    }
    shared_open(command->size);
    incoming = memory_make(command->size);
    stamps = calloc(command->iterations + 1, sizeof *stamps);
    if (stamps == NULL)
        side_die("memory for the times");
    wrong = pingpong(side, command, incoming, stamps);
    memory_drop(incoming, command->size);
    if (wrong != 0)
        side_fail(side, FAULT_VERIFICATION, "a copy arrived with the wrong content");
    else if (side->number == 0 && (command->flags & FLAG_VERIFY) == 0)
        side_reply_times(side, stamps, command->iterations);
    else
        side_reply(side, REPLY_DONE, 0, NULL, 0);
    free(stamps);
}

int main(void)
{
    struct side side = {0};
    struct command command;
    const char *descriptor = getenv("DIOLKOS_BENCH_FDS");

    side_prepare(&side);
    if (descriptor == NULL || sscanf(descriptor, "%d", &shared.descriptor) != 1) {
        fprintf(stderr, "memcpy_loop: DIOLKOS_BENCH_FDS is not a descriptor\n");
        return 2;
    }
    side_connect(&side, "{\"library\": \"memcpy of the C library\"}");
    while (side_next(&side, &command)) {
        if (is_one_sided(&command))
            one_sided_serve(&side, &command);
        else
            pingpong_serve(&side, &command);
    }
    return 0;
}
