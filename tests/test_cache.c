/* SPDX-License-Identifier: MIT */
/*
 * The thread cache: what comes out first, how much one call moves, how it grows and shrinks with
 * the load, that all caches together stay within their share, and what a closed bin lets through.
 */
#include "alloc/cache.h"

#include "tests/heap_kit.h"

#define CROWD 32
#define MANY 20000
#define BATCH_MAX (MAGAZINE_OBJECTS * 2)

static void *objects[MANY];

static struct thread *here(void)
{
    struct thread *thread = thread_current(hak_region_default());

    CHECK(thread != NULL);
    return thread;
}

/* Objects that this thread's calls have moved up and down so far. */
static uint64_t moved(unsigned cls)
{
    const struct class_counts *counts = &here()->class_counts[cls];

    return atomic_load(&counts->refilled_objects) + atomic_load(&counts->flushed_objects);
}

static void allocate(size_t size, size_t count)
{
    for (size_t n = 0; n < count; n++) {
        objects[n] = hak_malloc(size);
        CHECK(objects[n] != NULL);
    }
}

static void free_first(size_t count)
{
    for (size_t n = 0; n < count; n++) {
        hak_free(objects[n]);
    }
}

/* ---- order ----------------------------------------------------------------------------------- */

TEST(the_object_freed_last_is_handed_out_first)
{
    kit_open(1536 * MIB); /* no class is left without a cache */
    for (unsigned cls = 1; cls <= CLASS_COUNT; cls++) {
        size_t bytes = sizeclass_bytes(cls);
        unsigned count = bytes <= 8192 ? 6 : 1;
        allocate(bytes, count);
        free_first(count);
        for (unsigned n = count; n-- > 0;) {
            CHECK_EQ(hak_malloc(bytes), objects[n]);
        }
        free_first(count);
    }
    kit_close();
}

TEST(a_deep_stack_comes_back_in_the_reverse_order)
{
    kit_open(256 * MIB);
    /* Let it grow first. */
    for (unsigned round = 0; round < 200; round++) {
        allocate(64, 500);
        free_first(500);
    }
    uint64_t before = moved(4);
    allocate(64, 500);
    free_first(500);
    for (unsigned n = 500; n-- > 0;) {
        CHECK_EQ(hak_malloc(64), objects[n]);
    }
    CHECK_EQ(moved(4), before); /* all that without anything below */
    free_first(500);
    kit_close();
}

/* How many of the objects are not the next one, so many bytes on, of the one before. */
static size_t breaks(size_t count, size_t step)
{
    size_t broken = 0;

    for (size_t n = 1; n < count; n++) {
        broken += (char *)objects[n] != (char *)objects[n - 1] + step;
    }
    return broken;
}

/* Refills are cut out of bitmap words: each brings a few runs of neighbours. */
TEST(objects_allocated_one_after_the_other_are_neighbours)
{
    kit_open(512 * MIB); /* room for every class's page box */
    for (unsigned cls = 1; cls <= 28; cls++) {
        size_t count = UNIT_BYTES / sizeclass_bytes(cls);
        allocate(sizeclass_bytes(cls), count);
        CHECK_LE(breaks(count, sizeclass_bytes(cls)), count <= 64 ? 0 : count / 16);
        free_first(count);
    }
    kit_close();
}

TEST(refilled_objects_with_gaps_between_them_come_in_the_order_of_addresses)
{
    void *all[1024];

    kit_open(64 * MIB);
    allocate(64, 1024); /* a whole slab */
    memcpy(all, objects, sizeof(all));
    for (unsigned n = 0; n < 1024; n++) {
        if ((uintptr_t)all[n] / 64 % 3 == 0) {
            hak_free(all[n]);
            all[n] = NULL;
        }
    }
    cache_drain(here());
    allocate(64, 300);
    CHECK_LE(breaks(300, 192), 300 / 8);
    free_first(300);
    hak_free_bulk(all, 1024);
    kit_close();
}

/* ---- how much one call does ------------------------------------------------------------------ */

static uint64_t most_moved;

static void note(unsigned cls, uint64_t before)
{
    uint64_t now = moved(cls) - before;

    most_moved = now > most_moved ? now : most_moved;
}

static void counted_malloc(unsigned cls, size_t at)
{
    uint64_t before = moved(cls);

    objects[at] = hak_malloc(sizeclass_bytes(cls));
    CHECK(objects[at] != NULL);
    note(cls, before);
}

static void counted_free(unsigned cls, size_t at)
{
    uint64_t before = moved(cls);

    hak_free(objects[at]);
    note(cls, before);
}

/* Waves of all heights, so that the stack grows, shrinks, and is emptied down to the ground. */
static void waves(unsigned cls, uint64_t *random)
{
    size_t most = min_size(MANY, 48 * MIB / sizeclass_bytes(cls));
    size_t held = 0;

    for (unsigned wave = 0; wave < 24; wave++) {
        size_t up = min_size(harness_random(random) % MANY, most - held);
        for (size_t n = 0; n < up; n++) {
            counted_malloc(cls, held++);
        }
        size_t down = wave % 4 == 3 ? held : min_size(harness_random(random) % MANY, held);
        for (size_t n = 0; n < down; n++) {
            counted_free(cls, --held);
        }
    }
    while (held > 0) {
        counted_free(cls, --held);
    }
}

TEST(no_single_call_moves_more_than_two_magazines)
{
    static const unsigned classes[] = {1, 4, 12, 20, 28, 36, 44, 52};
    uint64_t random = harness_seed();

    kit_open(128 * MIB);
    for (unsigned n = 0; n < sizeof(classes) / sizeof(*classes); n++) {
        most_moved = 0;
        waves(classes[n], &random);
        CHECK_GE(most_moved, 1);
        CHECK_LE(most_moved, BATCH_MAX);
    }
    kit_close();
}

/* ---- growing and shrinking ------------------------------------------------------------------- */

TEST(a_load_that_swings_is_soon_served_from_the_cache_alone)
{
    static const struct {
        size_t size, swing;
    } cases[] = {{16, 100}, {64, 1000}, {256, 300}, {1024, 200}};

    kit_open(512 * MIB);
    for (unsigned n = 0; n < sizeof(cases) / sizeof(*cases); n++) {
        unsigned cls = sizeclass_of(cases[n].size);
        for (unsigned round = 0; round < 300; round++) {
            allocate(cases[n].size, cases[n].swing);
            free_first(cases[n].swing);
        }
        uint64_t before = moved(cls);
        for (unsigned round = 0; round < 100; round++) {
            allocate(cases[n].size, cases[n].swing);
            free_first(cases[n].swing);
        }
        /* Of the objects allocated and freed at most a twentieth went below. */
        CHECK_LE((moved(cls) - before) * 20, 200 * cases[n].swing);
    }
    kit_close();
}

static void *make_objects(void *unused)
{
    (void)unused;
    allocate(64, MANY);
    return NULL;
}

TEST(a_thread_that_only_frees_keeps_little)
{
    kit_open(256 * MIB);
    for (unsigned round = 0; round < 5; round++) {
        kit_elsewhere(make_objects, NULL);
        free_first(MANY);
        CHECK_LE(kit_class(4).objects_out, MANY / 20);
    }
    kit_close();
}

/* After a great swing, a thread that goes on only freeing gives what it had grown to back. */
TEST(a_grown_cache_shrinks_when_its_thread_only_frees)
{
    kit_open(512 * MIB);
    for (unsigned round = 0; round < 300; round++) {
        allocate(64, 2500);
        free_first(2500);
    }
    size_t grown = kit_class(4).objects_out;
    CHECK_GE(grown, 1500);
    for (unsigned round = 0; round < 10; round++) {
        kit_elsewhere(make_objects, NULL);
        free_first(MANY);
    }
    CHECK_LE(kit_class(4).objects_out, grown / 4);
    kit_close();
}

/* ---- the share of the region ----------------------------------------------------------------- */

static pthread_barrier_t barrier;

static void *hoard(void *number)
{
    uint64_t random = harness_seed() + (uintptr_t)number;
    void *mine[300];

    for (unsigned round = 0; round < 120; round++) {
        unsigned cls = (unsigned)(harness_random(&random) % CLASS_COUNT) + 1;
        size_t bytes = sizeclass_bytes(cls);
        size_t count = min_size(300, max_size(1, 256 * KIB / bytes));
        size_t got = 0;
        while (got < count && (mine[got] = hak_malloc(bytes)) != NULL) {
            got++;
        }
        while (got > 0) {
            hak_free(mine[--got]);
        }
    }
    pthread_barrier_wait(&barrier); /* nothing is allocated now, but the caches are full */
    pthread_barrier_wait(&barrier);
    return NULL;
}

static void crowd_in(size_t bytes)
{
    pthread_t threads[CROWD];
    size_t cached = 0;

    kit_open(bytes);
    CHECK_EQ(pthread_barrier_init(&barrier, NULL, CROWD + 1), 0);
    for (uintptr_t n = 0; n < CROWD; n++) {
        threads[n] = kit_thread(hoard, (void *)(n + 1));
    }
    pthread_barrier_wait(&barrier);
    for (unsigned cls = 1; cls <= CLASS_COUNT; cls++) {
        cached += kit_class(cls).objects_out * sizeclass_bytes(cls);
    }
    struct hak_stats stats = kit_stats();
    pthread_barrier_wait(&barrier);
    for (unsigned n = 0; n < CROWD; n++) {
        kit_join(threads[n]);
    }
    pthread_barrier_destroy(&barrier);
    CHECK_EQ(stats.threads, CROWD);
    CHECK_LE(stats.cached_bytes_max * 100, stats.size_bytes * 3);
    CHECK_LE(cached, stats.cached_bytes_max);
    CHECK_GE(cached, 1);
    kit_close();
}

TEST(the_caches_of_a_crowd_hold_at_most_three_percent_of_the_region)
{
    crowd_in(64 * MIB);
    crowd_in(16 * MIB);
    crowd_in(512 * MIB);
}

/* ---- closed bins ----------------------------------------------------------------------------- */

static void *make_few(void *size)
{
    allocate((size_t)(uintptr_t)size, 8);
    return NULL;
}

TEST(the_first_foreign_object_goes_straight_back_to_its_slab)
{
    kit_open(64 * MIB);
    for (unsigned cls = 1; cls <= CLASS_COUNT; cls++) {
        kit_elsewhere(make_few, (void *)(uintptr_t)sizeclass_bytes(cls));
        CHECK_EQ(kit_class(cls).objects_out, 8);
        hak_free(objects[0]);
        CHECK_EQ(kit_class(cls).objects_out, 7);
        hak_free(objects[1]);
        CHECK_EQ(kit_class(cls).objects_out, 6);
        for (unsigned n = 2; n < 8; n++) {
            hak_free(objects[n]);
        }
    }
    kit_close();
}

TEST(a_thread_that_allocates_of_a_class_keeps_what_it_frees)
{
    kit_open(64 * MIB);
    kit_elsewhere(make_few, (void *)64);
    void *own = hak_malloc(64);
    size_t out = kit_class(4).objects_out;
    hak_free(objects[0]);
    CHECK_EQ(kit_class(4).objects_out, out);
    CHECK_EQ(hak_malloc(64), objects[0]);
    free_first(8);
    hak_free(own);
    kit_close();
}

/* ---- drains, and without the layer ----------------------------------------------------------- */

TEST(a_drain_sends_everything_back_and_closes_the_bins)
{
    kit_open(128 * MIB);
    struct thread *thread = here();
    for (unsigned cls = 1; cls <= CLASS_COUNT; cls++) {
        size_t count = min_size(1000, 2 * MIB / sizeclass_bytes(cls));
        allocate(sizeclass_bytes(cls), count);
        for (size_t n = 1; n < count; n++) {
            hak_free(objects[n]);
        }
        void *kept = objects[0];
        CHECK(cache_check(thread));
        cache_drain(thread);
        CHECK(cache_check(thread));
        CHECK_EQ(kit_class(cls).objects_out, 1);
        CHECK_EQ(kit_stats().cached_bytes_max, 0);
        hak_free(kept);
        CHECK_EQ(kit_class(cls).objects_out, 0); /* the bin is closed */
    }
    kit_close();
}

TEST(bulk_calls_move_through_the_same_stack)
{
    kit_open(64 * MIB);
    CHECK_EQ(hak_malloc_bulk(256, MANY, objects), MANY);
    for (size_t n = 0; n < MANY; n++) {
        memset(objects[n], (int)n, 256);
    }
    hak_free_bulk(objects, MANY);
    void *last = objects[MANY - 1];
    CHECK_EQ(hak_malloc(256), last);
    hak_free(last);
    CHECK(cache_check(here()));
    cache_drain(here());
    CHECK_EQ(kit_class(sizeclass_of(256)).objects_out, 0);
    kit_close();
}

TEST(without_the_layer_every_free_is_in_the_slab_at_once)
{
    kit_open_with(64 * MIB, "HAKMEM_LAYERS", "pagebox,warmpool");
    for (unsigned cls = 1; cls <= CLASS_COUNT; cls++) {
        allocate(sizeclass_bytes(cls), 20);
        CHECK_EQ(kit_class(cls).objects_out, 20);
        for (unsigned n = 0; n < 20; n++) {
            hak_free(objects[n]);
            CHECK_EQ(kit_class(cls).objects_out, 19 - n);
        }
    }
    CHECK_EQ(kit_stats().cached_bytes_max, 0);
    kit_close();
}

HARNESS_MAIN()
