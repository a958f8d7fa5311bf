/* SPDX-License-Identifier: MIT */
/*
 * The figures against a model of what was done, and against each other: they add up to the region,
 * class by class and node by node, and looking never disturbs those at work.
 */
#include "alloc/stats.h"

#include "alloc/cache.h"
#include "tests/heap_kit.h"

#define LIVE 3000

static struct {
    void *object;
    size_t size;
} live[LIVE];

static size_t live_in[CLASS_COUNT + 1]; /* 0: large */
static size_t large_units;
static uint64_t large_allocs, large_frees;

static size_t units_of(size_t size)
{
    return (size + UNIT_BYTES - 1) / UNIT_BYTES;
}

static void model(size_t size, int change)
{
    unsigned cls = size <= CLASS_BYTES_MAX ? sizeclass_of(size) : 0;

    live_in[cls] += (size_t)(ssize_t)change;
    if (cls == 0) {
        large_units += (size_t)(ssize_t)change * units_of(size);
        large_allocs += change > 0;
        large_frees += change < 0;
    }
}

static void flip(size_t n, uint64_t *random)
{
    if (live[n].object != NULL) {
        hak_free(live[n].object);
        live[n].object = NULL;
        model(live[n].size, -1);
        return;
    }
    size_t most = harness_random(random) % 8 != 0 ? 4000 : 600 * KIB;
    live[n].size = harness_random(random) % most;
    live[n].object = hak_malloc(live[n].size);
    CHECK(live[n].object != NULL);
    model(live[n].size, 1);
}

/* The sums that hold whenever nobody is at work. */
static void check_sums(void)
{
    struct hak_region *heap = hak_region_default();
    struct hak_stats all = kit_stats();
    struct hak_class_stats sum = {0};
    struct hak_node_stats nodes = {0};

    CHECK_EQ(all.free_bytes + all.slab_bytes + all.large_bytes, all.size_bytes);
    for (unsigned cls = 1; cls <= CLASS_COUNT; cls++) {
        struct hak_class_stats one = kit_class(cls);
        CHECK_EQ(one.object_bytes, sizeclass_bytes(cls));
        sum.slab_bytes += one.slab_bytes;
        sum.slab_count += one.slab_count;
        sum.objects_free += one.objects_free * one.object_bytes;
        sum.cache_refills += one.cache_refills;
        sum.cache_flushes += one.cache_flushes;
        sum.box_hits += one.box_hits;
        sum.warm_hits += one.warm_hits;
        sum.warm_misses += one.warm_misses;
        sum.warm_prefilled += one.warm_prefilled;
        /* Objects fill their slabs but for the tails, each shorter than an object. */
        size_t held = (one.objects_out + one.objects_free) * one.object_bytes;
        CHECK_LE(held, one.slab_bytes);
        CHECK_LE(one.slab_bytes, held + one.slab_count * one.object_bytes);
    }
    CHECK_EQ(sum.slab_bytes, all.slab_bytes);
    CHECK_EQ(sum.objects_free, all.slab_free_bytes);
    CHECK_EQ(sum.slab_count, all.pool_fresh - all.slabs_recycled);
    CHECK_EQ(sum.cache_refills, all.cache_refills);
    CHECK_EQ(sum.cache_flushes, all.cache_flushes);
    CHECK_EQ(sum.box_hits, all.box_hits);
    CHECK_EQ(sum.warm_hits, all.warm_hits);
    CHECK_EQ(sum.warm_misses, all.warm_misses);
    CHECK_EQ(sum.warm_prefilled, all.warm_prefilled);
    for (unsigned n = 0; n < all.node_count; n++) {
        struct hak_node_stats one;
        CHECK_EQ(hak_region_node_stats(NULL, n, &one), 0);
        CHECK_EQ(one.node, heap->area.segments[n].node);
        CHECK_EQ(one.free_bytes + one.slab_bytes + one.large_bytes, one.size_bytes);
        CHECK_LE(one.largest_free_bytes, one.free_bytes);
        CHECK_LE(one.largest_free_bytes, all.largest_free_bytes);
        nodes.size_bytes += one.size_bytes;
        nodes.free_bytes += one.free_bytes;
        nodes.slab_bytes += one.slab_bytes;
        nodes.slab_free_bytes += one.slab_free_bytes;
        nodes.large_bytes += one.large_bytes;
    }
    CHECK_EQ(nodes.size_bytes, all.size_bytes);
    CHECK_EQ(nodes.free_bytes, all.free_bytes);
    CHECK_EQ(nodes.slab_bytes, all.slab_bytes);
    CHECK_EQ(nodes.slab_free_bytes, all.slab_free_bytes);
    CHECK_EQ(nodes.large_bytes, all.large_bytes);
}

static void check_model(void)
{
    struct hak_stats all;
    size_t small = 0;

    all = kit_stats();
    CHECK_EQ(all.large_bytes, large_units * UNIT_BYTES);
    CHECK_EQ(all.large_allocs, large_allocs);
    CHECK_EQ(all.large_frees, large_frees);
    for (unsigned cls = 1; cls <= CLASS_COUNT; cls++) {
        CHECK_GE(kit_class(cls).objects_out, live_in[cls]);
    }
    cache_drain(thread_current(hak_region_default()));
    for (unsigned cls = 1; cls <= CLASS_COUNT; cls++) {
        CHECK_EQ(kit_class(cls).objects_out, live_in[cls]);
        small += live_in[cls];
    }
    all = kit_stats();
    /* Of all that came up, what did not go down again is alive. */
    CHECK_GE(all.refilled_objects - all.flushed_objects, small);
    CHECK_EQ(all.cached_bytes_max, 0);
}

static void forget_model(void)
{
    memset(live, 0, sizeof(live));
    memset(live_in, 0, sizeof(live_in));
    large_units = 0;
    large_allocs = large_frees = 0;
}

TEST(the_figures_match_a_model_and_each_other)
{
    uint64_t random = harness_seed();

    forget_model();
    kit_open(256 * MIB);
    for (unsigned round = 0; round < 12; round++) {
        for (unsigned n = 0; n < 4000; n++) {
            flip(harness_random(&random) % LIVE, &random);
        }
        check_sums();
        check_model();
        check_sums();
    }
    for (size_t n = 0; n < LIVE; n++) {
        if (live[n].object != NULL) {
            flip(n, &random);
        }
    }
    check_model();
    CHECK_EQ(kit_stats().exhausted, 0);
    kit_close();
}

TEST(the_figures_of_two_nodes_add_up)
{
    uint64_t random = harness_seed();

    forget_model();
    kit_open_two_nodes(512 * MIB, HAK_EXHAUSTED_FAIL);
    CHECK_EQ(kit_stats().node_count, 2);
    for (unsigned n = 0; n < 5000; n++) {
        flip(harness_random(&random) % LIVE, &random);
    }
    check_sums();
    for (size_t n = 0; n < LIVE; n++) {
        hak_free(live[n].object);
    }
    check_sums();
    kit_close();
}

TEST(a_fresh_region_says_what_it_is)
{
    kit_open(64 * MIB);
    struct hak_stats stats = kit_stats();
    CHECK_EQ(stats.size_bytes, 64 * MIB);
    CHECK_EQ(stats.free_bytes, 64 * MIB);
    CHECK_EQ(stats.largest_free_bytes, 64 * MIB);
    CHECK_EQ(stats.node_count, 1);
    CHECK_EQ(stats.pages, HAK_PAGES_4K);
    CHECK_EQ(stats.threads, 0);
    CHECK_EQ(stats.cache_refills + stats.large_allocs + stats.exhausted + stats.misuses, 0);
    CHECK_GE(stats.metadata_bytes, 1);
    kit_close();
}

TEST(refusals_are_counted_with_what_was_wanted)
{
    struct hak_error error;

    kit_open(16 * MIB);
    CHECK(hak_malloc(17 * MIB) == NULL);
    CHECK_EQ(hak_last_error(&error), -ENOMEM);
    CHECK_EQ(error.size_bytes, 17 * MIB);
    CHECK_EQ(error.free_bytes, 16 * MIB);
    CHECK_EQ(error.largest_free_bytes, 16 * MIB);
    CHECK_EQ(kit_stats().exhausted, 1);
    void *most = hak_malloc(15 * MIB);
    CHECK(most != NULL);
    CHECK_EQ(kit_stats().largest_free_bytes, 1 * MIB);
    CHECK(hak_malloc(2 * MIB) == NULL);
    CHECK_EQ(hak_last_error(&error), -ENOMEM);
    CHECK_EQ(error.largest_free_bytes, 1 * MIB);
    CHECK_EQ(kit_stats().exhausted, 2);
    hak_free(most);
    kit_close();
}

TEST(misuses_are_counted_under_every_policy_that_goes_on)
{
    struct hak_config config = kit_config(16 * MIB);
    char outside;

    config.misuse = HAK_MISUSE_IGNORE;
    kit_forget_last();
    kit_start(&config);
    char *large = hak_malloc(1 * MIB);
    hak_free(&outside);
    hak_free(large + 16);
    hak_free(large);
    hak_free(large);
    CHECK_EQ(kit_stats().misuses, 3);
    kit_forget_last();
}

static void *have_a_cache(void *barrier)
{
    void *object = hak_malloc(32);

    pthread_barrier_wait(barrier);
    pthread_barrier_wait(barrier);
    hak_free(object);
    return NULL;
}

TEST(threads_are_counted_while_they_have_a_cache)
{
    pthread_barrier_t barrier;
    pthread_t threads[10];

    kit_open(64 * MIB);
    CHECK_EQ(pthread_barrier_init(&barrier, NULL, 11), 0);
    for (unsigned n = 0; n < 10; n++) {
        threads[n] = kit_thread(have_a_cache, &barrier);
    }
    pthread_barrier_wait(&barrier);
    unsigned with = kit_stats().threads;
    pthread_barrier_wait(&barrier);
    for (unsigned n = 0; n < 10; n++) {
        kit_join(threads[n]);
    }
    CHECK_EQ(with, 10);
    CHECK_EQ(kit_stats().threads, 0);
    pthread_barrier_destroy(&barrier);
    kit_close();
}

TEST(impossible_questions_are_refused)
{
    struct hak_stats stats;
    struct hak_node_stats node;
    struct hak_class_stats cls;

    kit_forget_last();
    CHECK_EQ(hak_region_stats(NULL, &stats), -ENODEV);
    CHECK_EQ(hak_region_node_stats(NULL, 0, &node), -ENODEV);
    CHECK_EQ(hak_region_class_stats(NULL, 1, &cls), -ENODEV);
    kit_open(16 * MIB);
    CHECK_EQ(hak_region_stats(NULL, NULL), -EINVAL);
    CHECK_EQ(hak_region_node_stats(NULL, 0, NULL), -EINVAL);
    CHECK_EQ(hak_region_node_stats(NULL, 1, &node), -EINVAL);
    CHECK_EQ(hak_region_class_stats(NULL, 1, NULL), -EINVAL);
    CHECK_EQ(hak_region_class_stats(NULL, 0, &cls), -EINVAL);
    CHECK_EQ(hak_region_class_stats(NULL, CLASS_COUNT + 1, &cls), -EINVAL);
    CHECK_EQ(hak_region_class_stats(NULL, CLASS_COUNT, &cls), 0);
    kit_close();
}

/* ---- while others are at work ---------------------------------------------------------------- */

static int64_t until_ms;

static void *stir(void *number)
{
    uint64_t random = harness_seed() + (uintptr_t)number;
    void *mine[100] = {NULL};

    while (harness_now_ms() < until_ms) {
        for (unsigned n = 0; n < 500; n++) {
            void **one = &mine[harness_random(&random) % 100];
            hak_free(*one);
            *one = hak_malloc(harness_random(&random) % (n % 50 == 0 ? 400 * KIB : 3000));
        }
    }
    hak_free_bulk(mine, 100);
    return NULL;
}

/* A region of 64 MiB with such pages wanted, and its figures. */
static struct hak_stats stats_of(enum hak_pages first, enum hak_pages second,
                                 enum hak_switch prefault)
{
    struct hak_config config = {
        .size_bytes = 64 * MIB, .pages = {first, second}, .prefault = prefault};
    kit_forget_last();
    kit_start(&config);
    struct hak_stats stats = kit_stats();
    kit_close();
    return stats;
}

TEST(what_was_faulted_in_and_what_was_wanted_can_be_read)
{
    uint64_t start_ms = (uint64_t)harness_now_ms();
    struct hak_stats stats = stats_of(HAK_PAGES_4K, HAK_PAGES_DEFAULT, HAK_ON);
    uint64_t most_ns = ((uint64_t)harness_now_ms() - start_ms + 1) * 1000000;
    CHECK_EQ(stats.faultin_bytes, stats.size_bytes);
    /* 64 MiB are 16,384 pages: not done within the clock's step, nor in more than it all took. */
    CHECK_GE(stats.faultin_ns, 100000);
    CHECK_LE(stats.faultin_ns, most_ns);
    CHECK_EQ(stats.pages, HAK_PAGES_4K);
    CHECK_EQ(stats.pages_wanted, HAK_PAGES_4K);
    stats = stats_of(HAK_PAGES_4K, HAK_PAGES_DEFAULT, HAK_OFF);
    CHECK_EQ(stats.faultin_bytes, 0);
    CHECK_EQ(stats.faultin_ns, 0);
    /* Huge pages of 1 GiB that nobody set aside. */
    stats = stats_of(HAK_PAGES_1G, HAK_PAGES_4K, HAK_ON);
    CHECK_EQ(stats.pages_wanted, HAK_PAGES_1G);
    CHECK_EQ(stats.faultin_bytes, stats.size_bytes);
}

TEST(adopted_memory_was_not_faulted_in_by_us)
{
    static unsigned char memory[8 * MIB];
    struct hak_stats stats;
    hak_region *region;
    CHECK_EQ(hak_region_adopt(memory, sizeof memory, -1, NULL, &region, NULL), 0);
    CHECK_EQ(hak_region_stats(region, &stats), 0);
    CHECK_EQ(hak_region_destroy(region), 0);
    CHECK_EQ(stats.faultin_bytes, 0);
    CHECK_EQ(stats.faultin_ns, 0);
    CHECK_EQ(stats.pages_wanted, stats.pages);
}

TEST(figures_read_while_others_work_stay_within_the_region)
{
    pthread_t threads[3];

    kit_open(64 * MIB);
    until_ms = harness_now_ms() + 800;
    for (uintptr_t n = 0; n < 3; n++) {
        threads[n] = kit_thread(stir, (void *)n);
    }
    uint64_t refilled = 0;
    while (harness_now_ms() < until_ms) {
        struct hak_stats stats = kit_stats();
        CHECK_LE(stats.free_bytes, stats.size_bytes);
        CHECK_LE(stats.largest_free_bytes, stats.size_bytes);
        CHECK_LE(stats.slab_bytes + stats.large_bytes, stats.size_bytes);
        CHECK_LE(stats.slab_free_bytes, stats.size_bytes);
        CHECK_GE(stats.refilled_objects, refilled); /* counters only go up */
        refilled = stats.refilled_objects;
        for (unsigned cls = 1; cls <= CLASS_COUNT; cls++) {
            struct hak_class_stats one = kit_class(cls);
            CHECK_LE(one.objects_out * one.object_bytes, stats.size_bytes);
        }
    }
    for (unsigned n = 0; n < 3; n++) {
        kit_join(threads[n]);
    }
    check_sums();
    kit_close();
}

HARNESS_MAIN()
