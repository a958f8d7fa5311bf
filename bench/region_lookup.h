/* SPDX-License-Identifier: MIT */
/*
 * bench/region, second part: does it cost more to find a pointer's class and slab the more
 * addresses a region has?
 *
 * Regions of 1 GiB to 2 TiB of addresses, without prefault: no object is ever touched, so only the
 * books get memory, about 200 MiB for the largest. Each holds the same number of objects of 4 KiB
 * in the same number of slabs (16,384 units, which is all of 1 GiB), spread evenly over all of its
 * addresses: the region is filled with large objects of one length, then each is replaced by two
 * that leave units free in one SuperSlab only, and the small objects go where room is left.
 *
 * Looked up in random order: hak_usable_size, each call on its own (they overlap in the processor)
 * and each waiting for the last; hak_free of all of them, with the batches that go back to the
 * slabs. "walk" is the same loop over the same pointers without a look-up; take it off for the
 * look-up alone. The books lie in 4 KiB pages here, their worst case.
 */
#ifndef HAK_BENCH_REGION_LOOKUP_H
#define HAK_BENCH_REGION_LOOKUP_H

#include <hakmem.h>

#include "bench/region_cells.h"
#include "bench/region_plan.h"

#define LOOKUP_SECTION "lookup"
#define LOOKUP_UNITS ((size_t)16384)
#define LOOKUP_OBJECT_BYTES ((size_t)4096)
#define LOOKUP_UNIT_BYTES ((size_t)65536)
#define LOOKUP_SS_UNITS (HAK_SUPERSLAB_BYTES / LOOKUP_UNIT_BYTES)
#define LOOKUP_UNIT_OBJECTS (LOOKUP_UNIT_BYTES / LOOKUP_OBJECT_BYTES)
#define LOOKUP_OBJECTS (LOOKUP_UNITS * LOOKUP_UNIT_OBJECTS)

struct lookup_step {
    const char *name;
    uint64_t bytes;
};

static const struct lookup_step lookup_steps[] = {{"1 GiB", (uint64_t)1 << 30},
                                                  {"8 GiB", (uint64_t)8 << 30},
                                                  {"64 GiB", (uint64_t)64 << 30},
                                                  {"512 GiB", (uint64_t)512 << 30},
                                                  {"2 TiB", (uint64_t)2 << 40}};
#define LOOKUP_STEP_COUNT (sizeof lookup_steps / sizeof *lookup_steps)

static void **lookup_objects; /* LOOKUP_OBJECTS and one more */

/* Leaves LOOKUP_UNITS units of the new default region free, evenly spread. */
static inline void lookup_spread(uint64_t bytes)
{
    size_t superslabs = (size_t)(bytes / HAK_SUPERSLAB_BYTES);
    size_t groups = superslabs < LOOKUP_UNITS ? superslabs : LOOKUP_UNITS;
    size_t group_bytes = (size_t)bytes / groups;
    size_t blocked_bytes = HAK_SUPERSLAB_BYTES - LOOKUP_UNITS / groups * LOOKUP_UNIT_BYTES;
    if (blocked_bytes == 0)
        return;
    for (size_t i = 0; i < groups; i++) {
        lookup_objects[i] = hak_malloc(group_bytes);
        if (lookup_objects[i] == NULL)
            bench_fail("look-ups: only %zu of %zu large objects found room", i, groups);
    }
    for (size_t i = 0; i < groups; i++) {
        /* The only room there is: both land in it. */
        hak_free(lookup_objects[i]);
        if ((group_bytes > HAK_SUPERSLAB_BYTES &&
             hak_malloc(group_bytes - HAK_SUPERSLAB_BYTES) == NULL) ||
            hak_malloc(blocked_bytes) == NULL)
            bench_fail("look-ups: large object %zu of %zu could not be replaced", i, groups);
    }
}

static inline void lookup_fill(void)
{
    for (size_t i = 0; i < LOOKUP_OBJECTS; i++) {
        lookup_objects[i] = hak_malloc(LOOKUP_OBJECT_BYTES);
        if (lookup_objects[i] == NULL)
            bench_fail("look-ups: only %zu of %zu objects found room", i, LOOKUP_OBJECTS);
    }
}

/* The figures mean nothing unless the objects really reach from end to end. */
static inline void lookup_check_reach(uint64_t bytes)
{
    uintptr_t lowest = UINTPTR_MAX, highest = 0;
    for (size_t i = 0; i < LOOKUP_OBJECTS; i++) {
        uintptr_t at = (uintptr_t)lookup_objects[i];
        lowest = at < lowest ? at : lowest;
        highest = at > highest ? at : highest;
    }
    if (highest - lowest < bytes / 100 * 99)
        bench_fail("look-ups: the objects reach over %zu MiB, not over %llu",
                   (size_t)(highest - lowest) >> 20, (unsigned long long)bytes >> 20);
}

static inline void lookup_shuffle(uint64_t *random)
{
    for (size_t i = LOOKUP_OBJECTS - 1; i > 0; i--) {
        size_t other = bench_below((uint32_t)(bench_next(random) >> 32), (uint32_t)i + 1);
        void *moved = lookup_objects[i];
        lookup_objects[i] = lookup_objects[other];
        lookup_objects[other] = moved;
    }
}

/* The loops, each over all objects; what they return is used, so that none is left out. */
static HAK_NOINLINE uint64_t lookup_walk(void)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < LOOKUP_OBJECTS; i++)
        sum += (uintptr_t)lookup_objects[i] >> 12;
    return sum;
}

static HAK_NOINLINE uint64_t lookup_usable(void)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < LOOKUP_OBJECTS; i++)
        sum += hak_usable_size(lookup_objects[i]);
    return sum;
}

/* The next index hangs on the last answer, whose highest bit is never set. */
static HAK_NOINLINE uint64_t lookup_walk_waiting(void)
{
    size_t at = 0;
    while (at < LOOKUP_OBJECTS)
        at += 1 + ((uintptr_t)lookup_objects[at] >> 63);
    return at;
}

static HAK_NOINLINE uint64_t lookup_usable_waiting(void)
{
    size_t at = 0;
    while (at < LOOKUP_OBJECTS)
        at += 1 + (hak_usable_size(lookup_objects[at]) >> 63);
    return at;
}

static HAK_NOINLINE uint64_t lookup_free(void)
{
    for (size_t i = 0; i < LOOKUP_OBJECTS; i++)
        hak_free(lookup_objects[i]);
    return 0;
}

struct lookup_loop {
    const char *name;
    uint64_t (*run)(void);
    bool frees;
};

static const struct lookup_loop lookup_loops[] = {
    {"walk", lookup_walk, false},
    {"usable", lookup_usable, false},
    {"walk waiting", lookup_walk_waiting, false},
    {"usable waiting", lookup_usable_waiting, false},
    {"free", lookup_free, true},
};
#define LOOKUP_LOOP_COUNT (sizeof lookup_loops / sizeof *lookup_loops)

/* Nanoseconds an object, after one lap to warm up. */
static inline double lookup_time(const struct lookup_loop *loop, unsigned laps, uint64_t *random)
{
    uint64_t total_ns = 0, done = 0;
    for (unsigned lap = 0; lap <= laps; lap++) {
        uint64_t start_ns = bench_now_ns();
        plan_use(loop->run());
        total_ns += lap > 0 ? bench_now_ns() - start_ns : 0;
        done += lap > 0 ? LOOKUP_OBJECTS : 0;
        if (loop->frees) {
            lookup_fill();
            lookup_shuffle(random);
        }
    }
    return (double)total_ns / (double)done;
}

/* On one node: the spreading counts on a single segment. */
static inline bool lookup_open(const struct lookup_step *step, const struct region_plan *plan)
{
    struct hak_error error;
    struct hak_config config = {.size_bytes = (size_t)step->bytes,
                                .pages = {HAK_PAGES_4K},
                                .nodes = (uint64_t)1 << plan->node,
                                .prefault = HAK_OFF,
                                .misuse = HAK_MISUSE_ABORT,
                                .exhausted = HAK_EXHAUSTED_FAIL};
    if (cell_noted(LOOKUP_SECTION, step->name))
        return false;
    if (hak_region_init(&config) == 0)
        return true;
    hak_last_error(&error);
    cell_leave_out(LOOKUP_SECTION, step->name, "%s", error.message);
    return false;
}

static inline void lookup_round(const struct lookup_step *step, unsigned round,
                                const struct region_plan *plan, uint64_t *random)
{
    if (!lookup_open(step, plan))
        return;
    lookup_spread(step->bytes);
    lookup_fill();
    lookup_check_reach(step->bytes);
    lookup_shuffle(random);
    for (unsigned i = 0; i < LOOKUP_LOOP_COUNT; i++) {
        unsigned laps = lookup_loops[i].frees ? 2 : 6;
        cell_set(LOOKUP_SECTION, step->name, lookup_loops[i].name, "ns", step->bytes, round,
                 lookup_time(&lookup_loops[i], plan->quick ? laps / 2 : laps, random));
    }
    if (hak_region_fini() != 0)
        bench_fail("look-ups: the region could not be ended");
}

static inline void lookup_print(unsigned rounds)
{
    char text[LOOKUP_LOOP_COUNT][CELL_TEXT_BYTES];
    printf("\nlook-up: %zu objects of 4 KiB spread over the addresses, in random order, ns each; "
           "rounds: %u\n",
           LOOKUP_OBJECTS, rounds);
    printf("  %-9s  %-21s  %-21s  %-21s  %-21s  %s\n", "addresses", "walk, no look-up",
           "usable_size", "walk, in a chain", "usable_size in chain", "free");
    for (unsigned i = 0; i < LOOKUP_STEP_COUNT; i++) {
        const struct lookup_step *step = &lookup_steps[i];
        for (unsigned loop = 0; loop < LOOKUP_LOOP_COUNT; loop++)
            cell_text(cell_spread(LOOKUP_SECTION, step->name, lookup_loops[loop].name, step->bytes),
                      lookup_loops[loop].frees ? 1 : 2, text[loop]);
        printf("  %-9s  %-21s  %-21s  %-21s  %-21s  %s\n", step->name, text[0], text[1], text[2],
               text[3], text[4]);
    }
    cell_print_notes(LOOKUP_SECTION);
}

static inline void lookup_measure(const struct region_plan *plan)
{
    struct plan_clock clock = plan_start(plan->quick ? 5 : 30, plan->quick ? 2 : 7);
    uint64_t random = bench_seed(plan->seed, 1);
    if (lookup_objects == NULL)
        lookup_objects = bench_map((LOOKUP_OBJECTS + 1) * sizeof *lookup_objects);
    for (unsigned round = 0; plan_again(&clock, round); round++) {
        for (unsigned step = 0; step < LOOKUP_STEP_COUNT; step++)
            lookup_round(&lookup_steps[step], round, plan, &random);
    }
    lookup_print(clock.rounds);
}

#endif
