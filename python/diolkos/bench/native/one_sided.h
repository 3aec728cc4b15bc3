// SPDX-License-Identifier: Apache-2.0
//
// One-sided operations: side 0 works on memory of side 1. The work of diolkos/bench/sides/one_sided.py
// and of our loop in Rust, step for step:
//
//   side 0                                   side 1
//   waits for its turn                       touches every line of the memory, gives the turn
//   operates, by the clock
//   gives the turn                           waits for its turn, checks a word
//
// Before a write the lines are read, before a read written: one word of each. A command whose `window`
// is more than 1 asks for batches: a time stands for so many operations, and side 1 waits for the end.
//
// A program includes this file and defines the functions that are declared below. Each operation is
// complete at side 1 when its function returns.

#ifndef DIOLKOS_BENCH_ONE_SIDED_H
#define DIOLKOS_BENCH_ONE_SIDED_H

#include "side.h"  // first: it says which names of the system there are

#include <sys/mman.h>

enum { ADDEND = 3 };

// Opens memory of side 1 for side 0; both call it for each size. Returns that memory on side 1.
static char *target_open(const struct side *side, uint64_t size);
static void target_write(const char *local, uint64_t size);
static void target_read(char *local, uint64_t size);
// Adds to the first word and returns what it was.
static uint64_t target_add(uint64_t addend);
static void give_turn(const struct side *side);
static void wait_turn(const struct side *side);

struct one_sided {
    uint64_t size;
    char *local;   // of this process
    char *target;  // on side 1
    uint64_t *stamps;
    uint64_t stamp_count;
};

// Memory of this process, which is there already.
static char *memory_make(uint64_t size)
{
    char *memory = mmap(NULL, size + 8, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (memory == MAP_FAILED)
        side_die("memory");
    return memory;
}

static void memory_drop(char *memory, uint64_t size)
{
    if (memory != NULL)
        munmap(memory, size + 8);
}

static void lines_read(const char *bytes, uint64_t size)
{
    for (uint64_t offset = 0; offset + 8 <= size; offset += LINE_BYTES)
        (void)*(const volatile uint64_t *)(bytes + offset);
}

static inline void operate(uint32_t op, char *local, uint64_t size)
{
    if (op == OP_RDMA_WRITE)
        target_write(local, size);
    else if (op == OP_RDMA_READ)
        target_read(local, size);
    else
        target_add(ADDEND);
}

// Returns the number of wrong words.
static uint64_t touched_initiate(const struct side *side, const struct command *command,
                                 struct one_sided *own)
{
    uint64_t size = command->size, wrong = 0, *stamps = own->stamps;
    stamps[0] = 0;
    for (uint64_t i = 0; i < command->iterations; i++) {
        if (command->op == OP_RDMA_WRITE)
            stamp_write(own->local, size, i);
        wait_turn(side);
        uint64_t begin = ticks();
        operate(command->op, own->local, size);
        stamps[i + 1] = stamps[i] + (ticks() - begin);
        if (command->op == OP_RDMA_READ)
            wrong += !stamp_holds(own->local, size, i);
        give_turn(side);
    }
    return wrong;
}

static uint64_t touched_respond(const struct side *side, const struct command *command,
                                struct one_sided *own)
{
    uint64_t size = command->size, wrong = 0;
    for (uint64_t i = 0; i < command->iterations; i++) {
        if (command->op == OP_RDMA_WRITE) {
            lines_read(own->target, size);
        } else if (command->op == OP_RDMA_READ) {
            lines_write(own->target, size, i);
            stamp_write(own->target, size, i);
        }
        give_turn(side);
        wait_turn(side);
        if (command->op == OP_RDMA_WRITE)
            wrong += !stamp_holds(own->target, size, i);
    }
    return wrong;
}

static void batched_initiate(const struct side *side, const struct command *command,
                             struct one_sided *own)
{
    uint64_t *stamps = own->stamps;
    stamps[0] = ticks();
    for (uint64_t i = 0; i < command->iterations; i++) {
        if (command->op == OP_RDMA_WRITE)
            stamp_write(own->local, command->size, i);
        for (uint64_t j = 0; j < command->window; j++)
            operate(command->op, own->local, command->size);
        stamps[i + 1] = ticks();
    }
    give_turn(side);
}

static uint64_t batched_respond(const struct side *side, const struct command *command,
                                struct one_sided *own)
{
    wait_turn(side);
    return command->op == OP_RDMA_WRITE &&
           !stamp_holds(own->target, command->size, command->iterations - 1);
}

static uint64_t verify_initiate(const struct side *side, const struct command *command,
                                struct one_sided *own)
{
    uint64_t size = command->size, wrong = 0;
    for (uint64_t i = 0; i < command->iterations; i++) {
        wait_turn(side);
        if (command->op == OP_RDMA_WRITE)
            pattern_fill(own->local, size, i, 0);
        if (command->op == OP_RDMA_ATOMIC)
            wrong += target_add(ADDEND) != i * ADDEND;
        else
            operate(command->op, own->local, size);
        if (command->op == OP_RDMA_READ)
            wrong += !pattern_holds(own->local, size, i, 0);
        give_turn(side);
    }
    return wrong;
}

static uint64_t verify_respond(const struct side *side, const struct command *command,
                               struct one_sided *own)
{
    uint64_t size = command->size, wrong = 0;
    for (uint64_t i = 0; i < command->iterations; i++) {
        if (command->op == OP_RDMA_READ)
            pattern_fill(own->target, size, i, 0);
        else if (command->op == OP_RDMA_ATOMIC && i == 0)
            memset(own->target, 0, size);
        give_turn(side);
        wait_turn(side);
        if (command->op == OP_RDMA_WRITE)
            wrong += !pattern_holds(own->target, size, i, 0);
        if (command->op == OP_RDMA_ATOMIC)
            wrong += *(const volatile uint64_t *)own->target != (i + 1) * ADDEND;
    }
    return wrong;
}

// Memory is made and touched here, never inside a timed loop.
static void one_sided_prepare(const struct side *side, const struct command *command,
                              struct one_sided *own)
{
    if (own->size != command->size) {
        memory_drop(own->local, own->size);
        own->size = command->size;
        own->local = memory_make(own->size);
        own->target = target_open(side, own->size);
    }
    if (own->stamp_count < command->iterations + 1) {
        free(own->stamps);
        own->stamp_count = command->iterations + 1;
        own->stamps = calloc(own->stamp_count, sizeof *own->stamps);
        if (own->stamps == NULL)
            side_die("memory for the times");
    }
}

static void one_sided_serve(const struct side *side, const struct command *command)
{
    static struct one_sided own;
    uint64_t wrong = 0;

    if (command->size == 0 || command->size > INT32_MAX ||
        (command->op == OP_RDMA_ATOMIC && command->size != sizeof(uint64_t))) {
        side_fail(side, FAULT_UNSUPPORTED, "operations have 1 to 2^31 - 1 bytes, atomic ones 8");
        return;
    }
    one_sided_prepare(side, command, &own);
    if ((command->flags & FLAG_VERIFY) != 0)
        wrong = side->number == 0 ? verify_initiate(side, command, &own)
                                  : verify_respond(side, command, &own);
    else if (side->number == 1)
        wrong = command->window > 1 ? batched_respond(side, command, &own)
                                    : touched_respond(side, command, &own);
    else if (command->window > 1)
        batched_initiate(side, command, &own);
    else
        wrong = touched_initiate(side, command, &own);
    if (wrong != 0)
        side_fail(side, FAULT_VERIFICATION, "memory held the wrong content");
    else if (side->number == 0 && (command->flags & FLAG_VERIFY) == 0)
        side_reply_times(side, own.stamps, command->iterations);
    else
        side_reply(side, REPLY_DONE, 0, NULL, 0);
}

static inline int is_one_sided(const struct command *command)
{
    return command->op >= OP_RDMA_WRITE && command->op <= OP_RDMA_ATOMIC;
}

#endif
