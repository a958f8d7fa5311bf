/* SPDX-License-Identifier: MIT */
/*
 * bench/region, third part: what do huge pages bring to the program that uses the objects?
 *
 * A region on each kind of page in turns, filled with objects of 64 bytes. Over working sets of the
 * first so many of them:
 *   chase   one chain through every object of the set in random order; each step waits for the last
 *   load    independent reads of random objects; the processor overlaps them
 *   store   independent writes to random objects
 * Nanoseconds an access, and the ratio to 4 KiB pages of the same round.
 *
 * The order comes from tables in the benchmark's own memory (bench_map): four bytes an object, read
 * only while the chain is built, and the list of the random objects, read in sequence. One thread,
 * on one node's memory.
 */
#ifndef HAK_BENCH_REGION_ACCESS_H
#define HAK_BENCH_REGION_ACCESS_H

#include "alloc/heap.h"
#include "bench/region_pages.h"
#include "bench/region_plan.h"

#define ACCESS_SECTION "access"
#define ACCESS_OBJECT_BYTES 64
#define ACCESS_LEAST_BYTES ((size_t)1 << 20)
/* 1 MiB to 256 GiB by fours, and the size itself. */
#define ACCESS_SETS_MAX 11

#define ACCESS_CELL_BYTES (2 * CELL_TEXT_BYTES)

enum access_pattern { ACCESS_CHASE, ACCESS_LOAD, ACCESS_STORE, ACCESS_PATTERNS };

static const char *const access_names[ACCESS_PATTERNS] = {"chase", "load", "store"};
static const char *const access_titles[ACCESS_PATTERNS] = {
    "pointer chasing, ns a step", "random loads, ns each", "random stores, ns each"};

struct access {
    unsigned char *base;
    uint32_t *lines; /* each object's place, in units of 64 bytes from base */
    size_t count;
    uint32_t *draws; /* places, in the order of access */
    size_t steps;
    uint64_t sets[ACCESS_SETS_MAX]; /* bytes of each working set, ascending */
    unsigned set_count;
    uint64_t random;
};

HAK_INLINE void *access_object(const struct access *access, uint32_t line)
{
    return access->base + (size_t)line * ACCESS_OBJECT_BYTES;
}

/* 1 MiB, then four times as much each, and all of it. Returns how many. */
static inline unsigned access_choose_sets(uint64_t sets[ACCESS_SETS_MAX], size_t size_bytes)
{
    unsigned count = 0;
    for (size_t bytes = ACCESS_LEAST_BYTES; bytes < size_bytes; bytes *= 4)
        sets[count++] = bytes;
    sets[count++] = size_bytes;
    return count;
}

/* Everything the region has, in objects. */
static inline void access_fill(struct access *access, struct kind_region *kind, size_t most)
{
    void *got[64];
    size_t batch;
    access->base = (unsigned char *)kind->region->area.base;
    access->count = 0;
    do {
        size_t wanted = most - access->count < 64 ? most - access->count : 64;
        batch = hak_region_malloc_bulk(kind->region, ACCESS_OBJECT_BYTES, wanted, got);
        for (size_t i = 0; i < batch; i++)
            access->lines[access->count++] =
                (uint32_t)((size_t)((unsigned char *)got[i] - access->base) / ACCESS_OBJECT_BYTES);
    } while (batch != 0);
    /* A few slabs at most are short of what the size would hold. */
    if (access->count < most / 100 * 99)
        bench_fail("access: only %zu of %zu objects found room", access->count, most);
}

/*
 * The n-th number of a fixed random order of 0 .. count - 1: multiplying by an odd number and
 * folding the high bits in are one to one on the numbers below a power of two; what falls outside
 * goes round again until it is inside.
 */
HAK_INLINE size_t access_place(size_t n, size_t count, uint64_t key)
{
    unsigned bits = 64 - (unsigned)__builtin_clzll(count - 1);
    uint64_t mask = ((uint64_t)1 << bits) - 1;
    uint64_t x = n;
    do {
        for (unsigned i = 0; i < 3; i++) {
            x = (x * (key | 1) + (key >> 32)) & mask;
            x ^= x >> (bits + 1) / 2;
        }
    } while (x >= count);
    return (size_t)x;
}

/* One ring through the first count objects. */
static inline void access_link(struct access *access, size_t count)
{
    uint64_t key = bench_next(&access->random);
    void **first = access_object(access, access->lines[access_place(0, count, key)]);
    void **last = first;
    for (size_t n = 1; n < count; n++) {
        void **next = access_object(access, access->lines[access_place(n, count, key)]);
        *last = next;
        last = next;
    }
    *last = first;
}

static inline void access_draw(struct access *access, size_t count)
{
    for (size_t i = 0; i < access->steps; i++)
        access->draws[i] = access->lines[bench_below((uint32_t)(bench_next(&access->random) >> 32),
                                                     (uint32_t)count)];
}

static HAK_NOINLINE uint64_t access_chase(const struct access *access)
{
    void **at = access_object(access, access->lines[0]);
    for (size_t i = 0; i < access->steps; i++)
        at = *at;
    return (uintptr_t)at;
}

static HAK_NOINLINE uint64_t access_load(const struct access *access)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < access->steps; i++)
        sum += *(const uint64_t *)access_object(access, access->draws[i]);
    return sum;
}

/* Not the word that the chain is made of. */
static HAK_NOINLINE uint64_t access_store(const struct access *access)
{
    for (size_t i = 0; i < access->steps; i++)
        ((uint64_t *)access_object(access, access->draws[i]))[1] = i;
    return 0;
}

/* Nanoseconds a step, after as many untimed ones: of a small set the caches then hold what they
 * can, of a large one they hold nothing that matters. */
static inline double access_time(const struct access *access,
                                 uint64_t (*run)(const struct access *access))
{
    plan_use(run(access));
    uint64_t start_ns = bench_now_ns();
    plan_use(run(access));
    return (double)(bench_now_ns() - start_ns) / (double)access->steps;
}

static inline void access_round(struct access *access, enum page_kind kind, unsigned round,
                                const struct region_plan *plan)
{
    static uint64_t (*const runs[ACCESS_PATTERNS])(const struct access *access) = {
        [ACCESS_CHASE] = access_chase, [ACCESS_LOAD] = access_load, [ACCESS_STORE] = access_store};
    struct kind_region opened;
    if (!kind_open(ACCESS_SECTION, kind, (uint64_t)1 << plan->node, plan->size_bytes, &opened))
        return;
    access_fill(access, &opened, plan->size_bytes / ACCESS_OBJECT_BYTES);
    for (unsigned set = 0; set < access->set_count; set++) {
        size_t count = min_size(access->sets[set] / ACCESS_OBJECT_BYTES, access->count);
        access_link(access, count);
        for (unsigned pattern = 0; pattern < ACCESS_PATTERNS; pattern++) {
            if (pattern != ACCESS_CHASE)
                access_draw(access, count);
            cell_set(ACCESS_SECTION, kind_names[kind], access_names[pattern], "ns",
                     access->sets[set], round, access_time(access, runs[pattern]));
        }
    }
    kind_close(&opened);
}

/* Nanoseconds; of huge pages the ratio to small ones behind them, and that one's spread. */
static inline void access_cell(enum page_kind kind, const char *name, uint64_t bytes,
                               char cell[ACCESS_CELL_BYTES])
{
    char text[CELL_TEXT_BYTES];
    struct cell_spread spread = cell_spread(ACCESS_SECTION, kind_names[kind], name, bytes);
    struct cell_spread ratio = cell_ratio(ACCESS_SECTION, kind_names[KIND_4K], kind_names[kind],
                                          name, bytes);
    if (kind == KIND_4K || spread.rounds == 0)
        snprintf(cell, ACCESS_CELL_BYTES, "%s", cell_text(spread, 1, text));
    else
        snprintf(cell, ACCESS_CELL_BYTES, "%.1f x%s", spread.median, cell_text(ratio, 2, text));
}

static inline void access_print_pattern(const struct access *access, enum access_pattern pattern)
{
    const char *name = access_names[pattern];
    char cell[ACCESS_CELL_BYTES];
    printf("  %-26s", access_titles[pattern]);
    for (unsigned kind = 0; kind < KIND_COUNT; kind++)
        printf(kind + 1 < KIND_COUNT ? "  %-26s" : "  %s\n", kind_names[kind]);
    for (unsigned set = 0; set < access->set_count; set++) {
        uint64_t bytes = access->sets[set];
        printf("    %6llu MiB              ", (unsigned long long)bytes >> 20);
        for (unsigned kind = 0; kind < KIND_COUNT; kind++) {
            access_cell((enum page_kind)kind, name, bytes, cell);
            printf(kind + 1 < KIND_COUNT ? "  %-26s" : "  %s\n", cell);
        }
    }
}

static inline void access_print(const struct access *access, const struct region_plan *plan,
                                unsigned rounds)
{
    printf("\naccess: objects of %d bytes in a region of %zu MiB on node %d; rounds: %u\n"
           "  (of huge pages: ns, and x times as fast as on 4 KiB pages in the same round)\n",
           ACCESS_OBJECT_BYTES, plan->size_bytes >> 20, plan->node, rounds);
    for (unsigned pattern = 0; pattern < ACCESS_PATTERNS; pattern++)
        access_print_pattern(access, (enum access_pattern)pattern);
    cell_print_notes(ACCESS_SECTION);
}

static inline void access_measure(const struct region_plan *plan)
{
    static struct access access;
    struct plan_clock clock = plan_start(plan->quick ? 6 : 90, plan->quick ? 2 : 5);
    access.steps = plan->quick ? (size_t)1 << 18 : (size_t)1 << 20;
    access.random = bench_seed(plan->seed, 2);
    access.lines = bench_map(plan->size_bytes / ACCESS_OBJECT_BYTES * sizeof *access.lines);
    access.draws = bench_map(access.steps * sizeof *access.draws);
    access.set_count = access_choose_sets(access.sets, plan->size_bytes);
    for (unsigned round = 0; plan_again(&clock, round); round++) {
        for (unsigned kind = 0; kind < KIND_COUNT; kind++)
            access_round(&access, (enum page_kind)kind, round, plan);
    }
    munmap(access.lines, plan->size_bytes / ACCESS_OBJECT_BYTES * sizeof *access.lines);
    access_print(&access, plan, clock.rounds);
}

#endif
