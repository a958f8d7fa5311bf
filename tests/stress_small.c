/* SPDX-License-Identifier: MIT */
/*
 * The small operations, by real threads: what tests/sched runs as one thread's simulation of a
 * few, here on processors and under the sanitizers. Bitsets, magazines, runs of units, slabs, and
 * the public calls, each on its own, in short rounds: some threads begin together, do a few dozen
 * steps, pause at random, and end; then every invariant is walked.
 *
 * Whoever has a thing writes to memory of it without any atomic step, and finds there what it wrote
 * when it looks again. So ThreadSanitizer sees whether the library's atomic orders hand things on:
 * a release or acquire too weak is a data race here. Time: STRESS_SECONDS over all cases; SEED
 * repeats the choices, not the interleaving.
 */
#include "alloc/magazine.h"
#include "alloc/sharedpool.h"
#include "region/units.h"
#include "tests/heap_kit.h"

#define THREADS 6
#define CASES 5
#define STEPS 60
/* Where threads leave things for each other. */
#define PLACES 16
#define HELD 8

struct mark {
    uint64_t number;
    size_t bytes; /* of the object that it stands at the start of */
};

static struct {
    _Atomic unsigned ready;
    unsigned threads;
    uint64_t round;
    void (*step)(uint64_t *random);
    void (*leave)(uint64_t *random); /* gives everything back */
    void *_Atomic places[PLACES];
    _Atomic uint64_t numbers, steps;
} small;

/* ---- threads that begin together, and pause -------------------------------------------------- */

static void pause_some(uint64_t *random)
{
    const struct timespec short_while = {0, 20000};
    uint64_t dice = harness_random(random) % 256;

    if (dice == 0) {
        (void)nanosleep(&short_while, NULL);
    } else if (dice < 8) {
        sched_yield();
    } else if (dice < 64) {
        for (uint64_t n = dice; n > 0; n--) {
            cpu_relax();
        }
    }
}

static bool well(void)
{
    return __atomic_load_n(&harness_state.outcome, __ATOMIC_RELAXED) == HARNESS_OK;
}

static void *work(void *argument)
{
    uint64_t random = harness_seed() + small.round * 7919 + (uintptr_t)argument;
    unsigned steps = (unsigned)(harness_random(&random) % STEPS) + 1;
    int64_t deadline = harness_now_ms() + 10000;

    atomic_fetch_add_explicit(&small.ready, 1, memory_order_relaxed);
    while (atomic_load_explicit(&small.ready, memory_order_relaxed) < small.threads &&
           harness_now_ms() < deadline) {
        sched_yield();
    }
    for (unsigned n = 0; n < steps && well(); n++) {
        small.step(&random);
        pause_some(&random);
    }
    small.leave(&random);
    atomic_fetch_add_explicit(&small.steps, steps, memory_order_relaxed);
    return NULL;
}

/* Rounds until the case's share of the time is over; check() between them. */
static void run_rounds(void (*step)(uint64_t *), void (*leave)(uint64_t *), void (*check)(void))
{
    int64_t until = harness_now_ms() + harness_stress_seconds(5) * 1000 / CASES;
    pthread_t threads[THREADS];
    uint64_t random = harness_seed();

    small.step = step;
    small.leave = leave;
    atomic_store(&small.steps, 0);
    for (small.round = 0; small.round < 3 || harness_now_ms() < until; small.round++) {
        small.threads = 2 + (unsigned)(harness_random(&random) % (THREADS - 1));
        atomic_store(&small.ready, 0);
        for (uintptr_t n = 0; n < small.threads; n++) {
            threads[n] = kit_thread(work, (void *)(n * 104729));
        }
        for (unsigned n = 0; n < small.threads; n++) {
            kit_join(threads[n]);
        }
        if (!well()) {
            harness_leave(HARNESS_FAILED); /* a thread has said why */
        }
        check();
    }
    printf("  %llu rounds, %llu steps\n", (unsigned long long)small.round,
           (unsigned long long)atomic_load(&small.steps));
}

/* ---- marks ----------------------------------------------------------------------------------- */

static uint64_t next_number(void)
{
    return atomic_fetch_add_explicit(&small.numbers, 1, memory_order_relaxed) + 1;
}

static void mark(void *object, size_t bytes)
{
    struct mark *at = object;

    *at = (struct mark){.number = next_number(), .bytes = bytes};
    if (bytes >= 2 * sizeof(*at)) {
        memcpy((char *)object + bytes - sizeof(at->number), &at->number, sizeof(at->number));
    }
}

/* What it holds is what its owner wrote; gone afterwards. */
static void unmark(void *object)
{
    struct mark *at = object;
    uint64_t last = at->number;

    if (at->bytes >= 2 * sizeof(*at)) {
        memcpy(&last, (char *)object + at->bytes - sizeof(last), sizeof(last));
    }
    CHECK(at->number != 0);
    CHECK_EQ(last, at->number);
    *at = (struct mark){0, 0};
}

/* Leaves the thing (or NULL) in a place, and takes away what was there. Acquire and release: what
 * its owner wrote goes with it. */
static void *swap_place(void *thing, uint64_t *random)
{
    return atomic_exchange_explicit(&small.places[harness_random(random) % PLACES], thing,
                                    memory_order_acq_rel);
}

/* ---- bitset ---------------------------------------------------------------------------------- */

#define BITS ((size_t)64 * 64 * 2)
static const size_t bits[] = {0, 1, 64, 4095, 4096, 4160};
#define BIT_COUNT (sizeof(bits) / sizeof(bits[0]))
static struct bitset set;
static _Alignas(64) uint64_t set_memory[BITS / 64 + 64];
/* Each bit's own word, that only who has the bit touches. */
static uint64_t behind[BITS];
static _Thread_local size_t mine[BIT_COUNT];
static _Thread_local unsigned mine_count;

static void bitset_step(uint64_t *random)
{
    size_t which = harness_random(random) % BIT_COUNT;
    size_t found;

    if (mine_count > 0 && harness_random(random) % 2 == 0) {
        size_t bit = mine[--mine_count];
        CHECK_EQ(behind[bit], 1);
        behind[bit] = 0;
        CHECK(bitset_set(&set, bit));
        return;
    }
    found = harness_random(random) % 2 == 0   ? bitset_claim(&set, bits[which])
            : bitset_clear(&set, bits[which]) ? bits[which]
                                              : BITSET_NONE;
    if (found != BITSET_NONE) {
        CHECK_EQ(behind[found], 0);
        behind[found] = 1;
        mine[mine_count++] = found;
    }
}

static void bitset_leave(uint64_t *random)
{
    (void)random;
    while (mine_count > 0) {
        size_t bit = mine[--mine_count];
        behind[bit] = 0;
        CHECK(bitset_set(&set, bit));
    }
}

static void bitset_walk(void)
{
    CHECK(bitset_check(&set));
    CHECK_EQ(bitset_count(&set), BIT_COUNT);
    for (size_t n = 0; n < BIT_COUNT; n++) {
        CHECK_EQ(bitset_find(&set, bits[n]), bits[n]);
    }
}

TEST(bits_are_claimed_by_one_and_found_by_all)
{
    memset(set_memory, 0, sizeof(set_memory));
    memset(behind, 0, sizeof(behind));
    CHECK(bitset_bytes(BITS) <= sizeof(set_memory));
    bitset_place(&set, set_memory, BITS);
    for (size_t n = 0; n < BIT_COUNT; n++) {
        CHECK(bitset_set(&set, bits[n]));
    }
    run_rounds(bitset_step, bitset_leave, bitset_walk);
}

/* ---- magazines ------------------------------------------------------------------------------- */

static _Thread_local uint32_t held_magazines[HELD];
static _Thread_local unsigned held_count;

static struct pool *pool(void)
{
    return &hak_region_default()->pools[0];
}

static void give_magazine(void)
{
    uint32_t magazine = held_magazines[--held_count];
    void **slots = magazine_slots(pool(), magazine);

    CHECK(slots[0] == (void *)&held_magazines && slots[MAGAZINE_OBJECTS - 1] == slots[0]);
    slots[0] = slots[MAGAZINE_OBJECTS - 1] = NULL;
    magazine_give_back(pool(), magazine);
}

static void magazine_step(uint64_t *random)
{
    if (held_count == HELD || (held_count > 0 && harness_random(random) % 2 == 0)) {
        give_magazine();
        return;
    }
    uint32_t magazine = magazine_claim(pool(), (uint32_t)harness_random(random) % 256);
    CHECK(magazine != MAGAZINE_NONE);
    void **slots = magazine_slots(pool(), magazine);
    CHECK(slots[0] == NULL && slots[MAGAZINE_OBJECTS - 1] == NULL);
    slots[0] = slots[MAGAZINE_OBJECTS - 1] = &held_magazines;
    held_magazines[held_count++] = magazine;
}

static void magazine_leave(uint64_t *random)
{
    (void)random;
    while (held_count > 0) {
        give_magazine();
    }
}

TEST(magazines_have_one_owner)
{
    kit_open(8 * MIB);
    run_rounds(magazine_step, magazine_leave, kit_check_empty);
    kit_close();
}

/* ---- runs of units --------------------------------------------------------------------------- */

struct run {
    unit_t first;
    size_t count;
};

static _Thread_local struct run runs[HELD];
static _Thread_local unsigned run_count;

static uint64_t *unit_word(unit_t unit)
{
    return region_address(&hak_region_default()->area, unit);
}

static void mark_units(unit_t first, size_t count)
{
    for (size_t n = 0; n < count; n++) {
        CHECK_EQ(*unit_word((unit_t)(first + n)), 0);
        *unit_word((unit_t)(first + n)) = (uintptr_t)&runs;
    }
}

static void release_run(unsigned which)
{
    struct run run = runs[which];

    runs[which] = runs[--run_count];
    for (size_t n = 0; n < run.count; n++) {
        CHECK_EQ(*unit_word((unit_t)(run.first + n)), (uintptr_t)&runs);
        *unit_word((unit_t)(run.first + n)) = 0;
    }
    units_release(&hak_region_default()->area, run.first, run.count);
}

static void units_step(uint64_t *random)
{
    static const uint8_t counts[] = {1, 1, 2, 3, 5, 16, 32, 33, 40, 64};
    struct segment *segment = pool()->segment;
    uint64_t dice = harness_random(random) % 8;

    if (run_count == HELD || (run_count > 0 && dice < 3)) {
        release_run((unsigned)(harness_random(random) % run_count));
    } else if (run_count > 0 && dice < 5) {
        struct run *run = &runs[harness_random(random) % run_count];
        size_t more = harness_random(random) % 20 + 1;
        if (units_acquire_at(segment, (unit_t)(run->first + run->count), more)) {
            mark_units((unit_t)(run->first + run->count), more);
            run->count += more;
        }
    } else {
        size_t count = counts[harness_random(random) % sizeof(counts)];
        size_t alignment = UNIT_BYTES << (dice == 7 ? harness_random(random) % 6 : 0);
        unit_t first = units_acquire(&hak_region_default()->area, segment, count, alignment, NULL);
        if (first != UNIT_NONE) {
            mark_units(first, count);
            runs[run_count++] = (struct run){first, count};
        }
    }
}

static void units_leave(uint64_t *random)
{
    (void)random;
    while (run_count > 0) {
        release_run(run_count - 1);
    }
}

static void units_walk(void)
{
    kit_check_empty();
    CHECK_EQ(units_largest_run(pool()->segment), pool()->unit_count);
}

TEST(runs_of_units_have_one_owner_and_come_together_again)
{
    kit_open(8 * MIB);
    run_rounds(units_step, units_leave, units_walk);
    kit_close();
}

/* ---- slabs ----------------------------------------------------------------------------------- */

/* 512 bytes, two bitmap words a slab; 8 KiB; 64 KiB, four units a slab. */
static const unsigned classes[] = {16, 40, 52};

static void put(void *object)
{
    unmark(object);
    sharedpool_release(thread_current(hak_region_default()), CLASS_NONE, &object, 1);
}

/* A slab that nobody has, or a fresh one: some of its objects go to others, and it is given up. */
static void slab_step(uint64_t *random)
{
    struct hak_region *heap = hak_region_default();
    unsigned cls = classes[harness_random(random) % 3];
    void *objects[HELD];
    unsigned cursor = 0;
    unit_t unit = harness_random(random) % 4 == 0 ? UNIT_NONE
                                                  : sharedpool_acquire_partial(pool(), cls);

    if (unit == UNIT_NONE) {
        unit = sharedpool_acquire_fresh(pool(), cls);
    }
    if (unit == UNIT_NONE) {
        return;
    }
    unsigned got = slab_take_owner(&heap->slabs[unit], &cursor, region_address(&heap->area, unit),
                                   (unsigned)(harness_random(random) % HELD) + 1, objects);
    for (unsigned n = 0; n < got; n++) {
        mark(objects[n], sizeclass_bytes(cls));
    }
    pause_some(random);
    if (harness_random(random) % 2 == 0) {
        sharedpool_give_up(thread_current(heap), unit);
        unit = UNIT_NONE;
    }
    for (unsigned n = 0; n < got; n++) {
        void *other = swap_place(objects[n], random);
        if (other != NULL) {
            put(other);
        }
    }
    if (unit != UNIT_NONE) {
        sharedpool_give_up(thread_current(heap), unit);
    }
}

static void slab_leave(uint64_t *random)
{
    for (unsigned n = 0; n < PLACES / 2; n++) {
        void *other = swap_place(NULL, random);
        if (other != NULL) {
            put(other);
        }
    }
}

static void slab_walk(void)
{
    CHECK(heap_check(hak_region_default())); /* with objects alive */
    for (unsigned n = 0; n < PLACES; n++) {
        void *other = atomic_exchange(&small.places[n], NULL);
        if (other != NULL) {
            put(other);
        }
    }
    kit_check_empty();
}

TEST(slabs_go_round_and_lose_nothing)
{
    kit_open(8 * MIB);
    run_rounds(slab_step, slab_leave, slab_walk);
    kit_close();
}

/* ---- the public calls ------------------------------------------------------------------------ */

static void calls_step(uint64_t *random)
{
    static const size_t sizes[] = {16, 64, 512, 512, 4096, 8192, 65536, 300000, 900000};
    uint64_t dice = harness_random(random) % 32;
    void *other = NULL;

    if (dice == 0) {
        hak_thread_idle();
    } else if (dice < 12) {
        other = swap_place(NULL, random);
    } else {
        size_t bytes = sizes[harness_random(random) % (sizeof(sizes) / sizeof(sizes[0]))];
        void *object = hak_malloc(bytes);
        if (object != NULL) {
            mark(object, bytes);
            other = swap_place(object, random);
        }
    }
    if (other != NULL) {
        unmark(other);
        hak_free(other);
    }
}

static void calls_leave(uint64_t *random)
{
    (void)random; /* the thread exits with what its caches hold */
}

static void calls_walk(void)
{
    CHECK(heap_check(hak_region_default()));
    for (unsigned n = 0; n < PLACES; n++) {
        void *other = atomic_exchange(&small.places[n], NULL);
        if (other != NULL) {
            unmark(other);
            hak_free(other);
        }
    }
    kit_check_empty();
}

TEST(calls_at_the_wall_lose_nothing)
{
    kit_open(4 * MIB);
    run_rounds(calls_step, calls_leave, calls_walk);
    kit_close();
}

HARNESS_MAIN()
