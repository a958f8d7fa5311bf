/* SPDX-License-Identifier: MIT */
/*
 * Runs of units against an array with an owner per unit: no overlap, right places, nothing refused
 * that is there, and whole again at the end; one thread and several, one segment and two.
 */
#include "region/units.h"

#include "numa/topology.h"
#include "tests/harness.h"

#define MIB ((size_t)1 << 20)
#define RUNS_MAX 4096
#define THREADS 4

struct run {
    unit_t first;
    size_t count;
};

/* A region with nothing behind its addresses, and who has which unit. */
static struct {
    struct region region;
    unsigned char *taken, *touched;
    struct run runs[RUNS_MAX];
    size_t run_count;
    uint64_t random;
} world;

static void open_world(size_t bytes, unsigned nodes)
{
    struct settings settings = {
        .size_bytes = bytes, .pages_count = 1, .pages = {HAK_PAGES_4K}, .prefault = false};
    struct hak_error error;

    topology_fake(nodes);
    CHECK_EQ(region_create(&world.region, &settings, &error), 0);
    CHECK_EQ(world.region.segment_count, nodes == 0 ? 1 : nodes);
    for (uint32_t n = 0; n < world.region.segment_count; n++) {
        /* What was touched stays so; test_giveback.c has the rest. */
        world.region.segments[n].giveback.on = false;
    }
    world.taken = calloc(world.region.unit_count, 1);
    world.touched = calloc(world.region.unit_count, 1);
    world.run_count = 0;
    world.random = harness_seed();
}

static void close_world(void)
{
    free(world.taken);
    free(world.touched);
    region_destroy(&world.region);
    topology_fake(0);
}

static unit_t first_of(const struct segment *segment)
{
    return segment->first_superslab * SUPERSLAB_UNITS;
}

static size_t length_of(const struct segment *segment)
{
    return (size_t)segment->superslab_count * SUPERSLAB_UNITS;
}

static bool model_free(unit_t first, size_t count)
{
    return memchr(world.taken + first, 1, count) == NULL;
}

/* Whether a run that the header promises to find is there. Runs over a SuperSlab begin at one's
 * start; shorter ones aligned to more than one need one that is wholly free. */
static bool model_has(const struct segment *segment, size_t count, size_t alignment)
{
    bool span = count > SUPERSLAB_UNITS || alignment > SUPERSLAB_BYTES;
    size_t whole = span && count < SUPERSLAB_UNITS ? SUPERSLAB_UNITS : count;
    unit_t end = first_of(segment) + (unit_t)length_of(segment);

    for (unit_t at = first_of(segment); at + whole <= end; at += span ? SUPERSLAB_UNITS : 1) {
        uintptr_t address = (uintptr_t)region_address(&world.region, at);
        bool inside = span || at % SUPERSLAB_UNITS + count <= SUPERSLAB_UNITS;
        if (inside && address % alignment == 0 && model_free(at, whole)) {
            return true;
        }
    }
    return false;
}

static void model_take(unit_t first, size_t count)
{
    memset(world.taken + first, 1, count);
    memset(world.touched + first, 1, count);
    CHECK(world.run_count < RUNS_MAX);
    world.runs[world.run_count++] = (struct run){.first = first, .count = count};
}

static size_t model_largest(const struct segment *segment)
{
    size_t spans = 0, span = 0, run = 0, longest = 0;

    for (unit_t n = 0; n < length_of(segment); n++) {
        unit_t unit = first_of(segment) + n;
        if (n % SUPERSLAB_UNITS == 0) {
            size_t head = 0;
            run = 0;
            while (head < SUPERSLAB_UNITS && !world.taken[unit + head]) {
                head++;
            }
            spans = max_size(spans, span > 0 || head == SUPERSLAB_UNITS ? span + head : 0);
            span = head == SUPERSLAB_UNITS ? span + SUPERSLAB_UNITS : 0;
        }
        run = world.taken[unit] ? 0 : run + 1;
        longest = max_size(longest, run);
    }
    return max_size(spans, longest);
}

static void check_against_model(void)
{
    for (uint32_t s = 0; s < world.region.segment_count; s++) {
        struct segment *segment = &world.region.segments[s];
        size_t free_units = 0;
        CHECK(units_check(segment));
        for (unit_t n = 0; n < length_of(segment); n++) {
            unit_t unit = first_of(segment) + n;
            uint32_t word = registry_free_units(region_entry(&world.region, unit),
                                                memory_order_seq_cst);
            CHECK_EQ((word >> (unit % SUPERSLAB_UNITS)) & 1, !world.taken[unit]);
            free_units += !world.taken[unit];
        }
        CHECK_EQ(atomic_load(&segment->free_unit_count), free_units);
    }
    CHECK(region_check(&world.region));
}

static void acquire(struct segment *segment, size_t count, size_t alignment)
{
    bool untouched = false;
    bool there = model_has(segment, count, alignment);
    unit_t unit = units_acquire(&world.region, segment, count, alignment, &untouched);

    if (unit == UNIT_NONE) {
        CHECK(!there);
        return;
    }
    CHECK_GE(unit, first_of(segment));
    CHECK_LE(unit + count, first_of(segment) + length_of(segment));
    CHECK_EQ((uintptr_t)region_address(&world.region, unit) % alignment, 0);
    CHECK(model_free(unit, count));
    CHECK(count > SUPERSLAB_UNITS ? unit % SUPERSLAB_UNITS == 0
                                  : unit % SUPERSLAB_UNITS + count <= SUPERSLAB_UNITS);
    CHECK_EQ(untouched, memchr(world.touched + unit, 1, count) == NULL);
    model_take(unit, count);
}

static void acquire_at(unit_t first, size_t count)
{
    const struct segment *segment = region_segment_of(&world.region, first);
    bool inside = first + count <= first_of(segment) + length_of(segment);
    bool there = inside && model_free(first, count);

    CHECK_EQ(units_acquire_at(region_segment_of(&world.region, first), first, count), there);
    if (there) {
        model_take(first, count);
    }
}

/* The whole of a random run or one end of it. */
static void release_some(void)
{
    size_t which = harness_random(&world.random) % world.run_count;
    struct run *run = &world.runs[which];
    size_t count = harness_random(&world.random) % 4 == 0
                       ? harness_random(&world.random) % run->count + 1
                       : run->count;
    unit_t first = harness_random(&world.random) % 2 == 0
                       ? run->first
                       : (unit_t)(run->first + run->count - count);

    units_release(&world.region, first, count);
    memset(world.taken + first, 0, count);
    run->first = first == run->first ? (unit_t)(first + count) : run->first;
    run->count -= count;
    if (run->count == 0) {
        *run = world.runs[--world.run_count];
    }
}

static void release_all(void)
{
    while (world.run_count > 0) {
        struct run *run = &world.runs[--world.run_count];
        units_release(&world.region, run->first, run->count);
        memset(world.taken + run->first, 0, run->count);
    }
}

/* Mostly slabs' lengths; sometimes long, sometimes aligned beyond a unit or a SuperSlab. */
static void random_step(unsigned taking)
{
    uint64_t dice = harness_random(&world.random);
    size_t count = dice % 8 != 0 ? dice / 8 % 10 + 1 : dice / 8 % 200 + 1;
    size_t alignment = UNIT_BYTES;
    struct segment *segment =
        &world.region.segments[harness_random(&world.random) % world.region.segment_count];

    if (harness_random(&world.random) % 100 >= taking && world.run_count > 0) {
        release_some();
        return;
    }
    if (harness_random(&world.random) % 3 == 0) {
        alignment = UNIT_BYTES << harness_random(&world.random) % 11;
    }
    if (harness_random(&world.random) % 5 != 0) {
        acquire(segment, count, alignment);
    } else if (world.run_count > 0 && harness_random(&world.random) % 2 == 0) {
        /* Growing in place: what comes right behind a run. */
        struct run *run = &world.runs[harness_random(&world.random) % world.run_count];
        if (run->first + run->count < world.region.unit_count) {
            acquire_at((unit_t)(run->first + run->count), count);
        }
    } else {
        acquire_at((unit_t)(harness_random(&world.random) % world.region.unit_count), count);
    }
}

static void whole_again(void)
{
    release_all();
    check_against_model();
    for (uint32_t s = 0; s < world.region.segment_count; s++) {
        struct segment *segment = &world.region.segments[s];
        CHECK_EQ(units_largest_run(segment), length_of(segment));
        acquire(segment, length_of(segment), UNIT_BYTES);
        acquire(segment, 1, UNIT_BYTES); /* finds, as the model does, nothing */
    }
    release_all();
    check_against_model();
}

static void random_rounds(unsigned rounds)
{
    static const unsigned taking[] = {80, 50, 55, 30};

    for (unsigned round = 0; round < rounds; round++) {
        for (unsigned n = 0; n < 1000; n++) {
            random_step(taking[round % 4]);
            if (n % 50 == 0) {
                check_against_model();
            }
        }
    }
    whole_again();
}

TEST(random_runs_match_a_plain_model)
{
    open_world(256 * MIB, 0);
    random_rounds(16);
    close_world();
}

TEST(random_runs_in_two_segments_stay_in_their_own)
{
    open_world(72 * MIB, 2);
    CHECK_EQ(world.region.segments[1].first_superslab, world.region.segments[0].superslab_count);
    random_rounds(16);
    close_world();
}

TEST(the_largest_run_is_told_as_it_is)
{
    open_world(64 * MIB, 2);
    for (unsigned n = 0; n < 6000; n++) {
        struct segment *segment = &world.region.segments[n % 2];
        random_step(n / 1000 % 2 == 0 ? 70 : 30);
        CHECK_EQ(units_largest_run(segment), model_largest(segment));
    }
    whole_again();
    close_world();
}

TEST(a_run_does_not_grow_out_of_its_segment)
{
    open_world(16 * MIB, 2);
    unit_t border = first_of(&world.region.segments[1]);
    CHECK(!units_acquire_at(&world.region.segments[0], border - 1, 2));
    acquire_at(border - 1, 1);
    acquire_at(border, 1);
    CHECK(!units_acquire_at(&world.region.segments[1], world.region.unit_count - 1, 2));
    CHECK(!units_acquire_at(&world.region.segments[1], world.region.unit_count - 1, SIZE_MAX / 2));
    check_against_model();
    release_all();
    check_against_model();
    close_world();
}

TEST(every_length_fills_the_segment_to_its_last_place)
{
    open_world(32 * MIB, 0);
    struct segment *segment = &world.region.segments[0];
    for (size_t count = 1; count <= 200; count++) {
        size_t superslabs = (count + SUPERSLAB_UNITS - 1) / SUPERSLAB_UNITS;
        size_t places = count <= SUPERSLAB_UNITS
                            ? segment->superslab_count * (SUPERSLAB_UNITS / count)
                            : segment->superslab_count / superslabs;
        for (size_t n = 0; n < places; n++) {
            size_t before = world.run_count;
            acquire(segment, count, UNIT_BYTES);
            CHECK_EQ(world.run_count, before + 1);
        }
        CHECK_EQ(units_acquire(&world.region, segment, count, UNIT_BYTES, NULL), UNIT_NONE);
        /* Given back in random order, so that every kind of hole comes up. */
        while (world.run_count > 0) {
            release_some();
        }
        check_against_model();
    }
    CHECK_EQ(units_acquire(&world.region, segment, length_of(segment) + 1, UNIT_BYTES, NULL),
             UNIT_NONE);
    whole_again();
    close_world();
}

TEST(the_shortest_run_that_fits_is_broken_first)
{
    open_world(16 * MIB, 0);
    struct segment *segment = &world.region.segments[0];
    /* Leaves free: 5 units in the third SuperSlab, 12 in the second, all others whole. */
    acquire_at(2 * SUPERSLAB_UNITS, 27);
    acquire_at(1 * SUPERSLAB_UNITS, 20);
    CHECK_EQ(units_acquire(&world.region, segment, 5, UNIT_BYTES, NULL), 2 * SUPERSLAB_UNITS + 27);
    CHECK_EQ(units_acquire(&world.region, segment, 4, UNIT_BYTES, NULL), SUPERSLAB_UNITS + 20);
    CHECK_EQ(units_acquire(&world.region, segment, 9, UNIT_BYTES, NULL), 0);
    close_world();
}

TEST(memory_that_was_used_or_adopted_is_never_called_untouched)
{
    bool untouched = true;

    open_world(8 * MIB, 0);
    struct segment *segment = &world.region.segments[0];
    acquire(segment, 64, UNIT_BYTES); /* checks the flag against the model */
    acquire(segment, 3, UNIT_BYTES);
    release_all();
    acquire(segment, 70, UNIT_BYTES); /* some of it new */
    release_all();
    acquire_at(100, 2);
    release_all();
    acquire(segment, length_of(segment), UNIT_BYTES);
    release_all();
    close_world();
    for (int zeroed = 0; zeroed <= 1; zeroed++) {
        open_world(8 * MIB, 0);
        segment = &world.region.segments[0];
        units_open(segment, zeroed == 1); /* nobody had any yet: as at the start */
        CHECK(units_acquire(&world.region, segment, 1, UNIT_BYTES, &untouched) != UNIT_NONE);
        CHECK_EQ(untouched, zeroed == 1);
        close_world();
    }
}

/* ---- several threads ------------------------------------------------------------------------ */

static _Atomic unsigned char *owners;
static _Atomic unsigned next_thread;
static int64_t until_ms;

static void mark(unit_t first, size_t count, unsigned char from, unsigned char to)
{
    for (size_t n = 0; n < count; n++) {
        CHECK_EQ(atomic_exchange(&owners[first + n], to), from);
    }
}

/* Takes runs of all kinds and gives them back; every unit says whose it is meanwhile. */
static void *work(void *unused)
{
    unsigned char me = (unsigned char)(atomic_fetch_add(&next_thread, 1) + 1);
    uint64_t random = harness_seed() + me;
    struct run held[24];
    unsigned count = 0;

    (void)unused;
    while (harness_now_ms() < until_ms || count > 0) {
        bool over = harness_now_ms() >= until_ms;
        if (count > 0 && (over || count == 24 || harness_random(&random) % 2 == 0)) {
            struct run *run = &held[harness_random(&random) % count];
            mark(run->first, run->count, me, 0);
            units_release(&world.region, run->first, run->count);
            *run = held[--count];
            continue;
        }
        size_t length = harness_random(&random) % (harness_random(&random) % 4 == 0 ? 100 : 12) + 1;
        struct segment *segment =
            &world.region.segments[harness_random(&random) % world.region.segment_count];
        unit_t first = (unit_t)(harness_random(&random) % world.region.unit_count);
        if (harness_random(&random) % 4 != 0) {
            first = units_acquire(&world.region, segment, length,
                                  UNIT_BYTES << (harness_random(&random) % 3 * 2), NULL);
        } else if (!units_acquire_at(region_segment_of(&world.region, first), first, length)) {
            first = UNIT_NONE;
        }
        if (first != UNIT_NONE) {
            mark(first, length, 0, me);
            held[count] = (struct run){.first = first, .count = length};
            count++;
        }
    }
    return NULL;
}

static void work_together(size_t bytes, unsigned nodes)
{
    pthread_t threads[THREADS];

    open_world(bytes, nodes);
    owners = calloc(world.region.unit_count, 1);
    atomic_store(&next_thread, 0);
    until_ms = harness_now_ms() + 800;
    for (unsigned n = 0; n < THREADS; n++) {
        CHECK_EQ(pthread_create(&threads[n], NULL, work, NULL), 0);
    }
    for (unsigned n = 0; n < THREADS; n++) {
        CHECK_EQ(pthread_join(threads[n], NULL), 0);
    }
    memset(world.touched, 1, world.region.unit_count);
    check_against_model();
    whole_again();
    free((void *)owners);
    close_world();
}

TEST(threads_never_share_a_unit_and_leave_the_segment_whole)
{
    work_together(64 * MIB, 0);
}

TEST(threads_that_fight_for_a_few_superslabs_leave_them_whole)
{
    work_together(8 * MIB, 0);
}

TEST(threads_in_two_segments_leave_both_whole)
{
    work_together(32 * MIB, 2);
}

/* Two threads that each want more than half: one of them always can, so one of them always must.*/
static void *want_most(void *refused)
{
    struct segment *segment = &world.region.segments[0];
    size_t count = length_of(segment) - SUPERSLAB_UNITS;

    while (harness_now_ms() < until_ms) {
        unit_t unit = units_acquire(&world.region, segment, count, UNIT_BYTES, NULL);
        if (unit == UNIT_NONE) {
            /* Only where the other really has it. */
            continue;
        }
        mark(unit, count, 0, 1);
        atomic_fetch_add((_Atomic unsigned *)refused, 1);
        mark(unit, count, 1, 0);
        units_release(&world.region, unit, count);
    }
    return NULL;
}

TEST(of_two_threads_that_want_nearly_all_one_gets_it)
{
    _Atomic unsigned got = 0;
    pthread_t threads[2];

    open_world(16 * MIB, 0);
    owners = calloc(world.region.unit_count, 1);
    until_ms = harness_now_ms() + 300;
    for (unsigned n = 0; n < 2; n++) {
        CHECK_EQ(pthread_create(&threads[n], NULL, want_most, &got), 0);
    }
    for (unsigned n = 0; n < 2; n++) {
        CHECK_EQ(pthread_join(threads[n], NULL), 0);
    }
    CHECK_GE(atomic_load(&got), 100);
    memset(world.touched, 1, world.region.unit_count);
    whole_again();
    free((void *)owners);
    close_world();
}

HARNESS_MAIN()
