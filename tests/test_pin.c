/* SPDX-License-Identifier: MIT */
/*
 * Threads that change processors: told (hak_thread_pin) and untold (the scheduler, or
 * sched_setaffinity(2)). The machine is made to look as if it had two nodes.
 */
#define _GNU_SOURCE
#include "numa/pin.h"
#include "tests/heap_kit.h"

/* So many slow steps go by before a thread looks where it is. */
#define REHOME_STEPS 64
#define MANY 20000
#define GIB ((size_t)1 << 30)

static void *objects[MANY], *travellers[MANY];

/* Runs it in a thread of its own at home in node 0 of a region with two. */
static void with_two_nodes(void *(*run)(void *))
{
    if (pin_cpu_count() < 2) {
        SKIP("one processor: threads cannot be on two nodes");
    }
    kit_open_two_nodes(64 * MIB, HAK_EXHAUSTED_FAIL);
    kit_elsewhere(run, NULL);
    if (__atomic_load_n(&harness_state.outcome, __ATOMIC_RELAXED) != HARNESS_OK) {
        harness_leave(HARNESS_FAILED); /* it has said why */
    }
    kit_close();
}

/* By the kernel alone. */
static void move_to(int cpu)
{
    CHECK_EQ(pin_thread(cpu), 0);
    CHECK_EQ(sched_getcpu(), cpu);
}

/* An allocation and a free of a large object are a slow step each, and leave nothing in a cache. */
static void large_steps(void)
{
    for (unsigned n = 0; n < REHOME_STEPS; n++) {
        hak_free(hak_malloc(300 * KIB));
    }
}

/* Objects of 1 KiB until the first is on that node; how many were not. */
static size_t take_until_on(unsigned segment)
{
    for (size_t n = 0; n < MANY; n++) {
        objects[n] = hak_malloc(1024);
        CHECK(objects[n] != NULL);
        if (kit_segment(objects[n]) == segment) {
            hak_free_bulk(objects, n + 1);
            return n;
        }
    }
    FAIL("%d objects, and none on node %u", MANY, segment);
}

static void check_all_on(unsigned segment)
{
    for (size_t bytes = 1; bytes < 4 * MIB; bytes = bytes * 3 + 1) {
        void *object = hak_malloc(bytes);
        CHECK(object != NULL);
        CHECK_EQ(kit_segment(object), segment);
        hak_free(object);
    }
    CHECK_EQ(hak_malloc_bulk(100, 3000, objects), 3000);
    for (unsigned n = 0; n < 3000; n++) {
        CHECK_EQ(kit_segment(objects[n]), segment);
    }
    hak_free_bulk(objects, 3000);
}

/* ---- untold --------------------------------------------------------------------------------- */

static void *move_by_small(void *unused)
{
    for (int round = 0; round < 6; round++) {
        unsigned segment = (unsigned)round % 2;
        move_to(round % 2);
        /* A refill brings 64 objects at most, and is a slow step. */
        CHECK_LE(take_until_on(segment), REHOME_STEPS * 64);
        check_all_on(segment);
    }
    return unused;
}

TEST(small_objects_bring_a_moved_thread_home)
{
    with_two_nodes(move_by_small);
}

static void *move_by_large(void *unused)
{
    for (int round = 0; round < 6; round++) {
        unsigned segment = (unsigned)round % 2;
        move_to(round % 2);
        large_steps();
        check_all_on(segment);
    }
    return unused;
}

TEST(large_objects_bring_a_moved_thread_home)
{
    with_two_nodes(move_by_large);
}

static void *move_by_frees(void *unused)
{
    move_to(0);
    check_all_on(0);
    CHECK_EQ(hak_malloc_bulk(1024, MANY, objects), MANY);
    move_to(1);
    hak_free_bulk(objects, MANY);
    /* Flushes and the outbox are slow steps too. */
    CHECK_EQ(hak_region_default()->pools[1].slots.taken, 1);
    check_all_on(1);
    return unused;
}

TEST(frees_bring_a_moved_thread_home)
{
    with_two_nodes(move_by_frees);
}

static void *leave_nothing(void *unused)
{
    struct hak_node_stats stats;

    move_to(0);
    check_all_on(0); /* caches and boxes full of node 0's */
    move_to(1);
    large_steps();
    check_all_on(1);
    CHECK_EQ(hak_region_node_stats(NULL, 0, &stats), 0);
    CHECK_EQ(stats.slab_bytes - stats.slab_free_bytes, 0);
    CHECK_EQ(stats.free_bytes, stats.size_bytes);
    CHECK_EQ(kit_stats().threads, 1);
    return unused;
}

TEST(what_a_moved_thread_had_goes_back_to_its_old_node)
{
    with_two_nodes(leave_nothing);
}

static void *free_from_afar(void *unused)
{
    struct hak_node_stats before, after;

    move_to(0);
    CHECK_EQ(hak_region_node_stats(NULL, 0, &before), 0);
    CHECK_EQ(hak_malloc_bulk(200, MANY, travellers), MANY);
    move_to(1);
    large_steps();
    check_all_on(1);
    uint64_t drained = kit_stats().remote_drains;
    hak_free_bulk(travellers, MANY);
    struct hak_stats stats = kit_stats();
    CHECK_GE(stats.remote_frees, MANY - 64);
    CHECK_LE(stats.remote_drains - drained, MANY / 64 + 1);
    thread_detach_all();
    CHECK_EQ(hak_region_node_stats(NULL, 0, &after), 0);
    CHECK_EQ(after.free_bytes, before.free_bytes);
    CHECK_EQ(after.slab_bytes, 0);
    return unused;
}

TEST(objects_of_the_old_node_go_home_in_batches)
{
    with_two_nodes(free_from_afar);
}

static void *keep_error(void *unused)
{
    struct hak_error error;

    move_to(0);
    CHECK(hak_malloc(GIB) == NULL);
    move_to(1);
    large_steps();
    CHECK_EQ(hak_last_error(&error), -ENOMEM);
    CHECK_EQ(error.size_bytes, GIB);
    CHECK_EQ(error.node, 0);
    return unused;
}

TEST(a_moved_thread_keeps_its_last_error)
{
    with_two_nodes(keep_error);
}

/* ---- told ----------------------------------------------------------------------------------- */

static void *pin_back_and_forth(void *other)
{
    for (int round = 0; round < 20; round++) {
        CHECK_EQ(hak_thread_pin(round % 2), 0);
        check_all_on((unsigned)round % 2);
        void *object = hak_region_malloc(other, 100);
        const struct hak_region *heap = other;
        CHECK_EQ(region_segment_index(&heap->area, region_unit(&heap->area, object)), round % 2);
        hak_region_free(other, object);
    }
    return NULL;
}

TEST(pinning_moves_the_home_at_once_in_every_region)
{
    struct hak_config config = kit_config(16 * MIB);
    hak_region *other = NULL;

    if (pin_cpu_count() < 2) {
        SKIP("one processor: threads cannot be on two nodes");
    }
    kit_open_two_nodes(64 * MIB, HAK_EXHAUSTED_FAIL);
    CHECK_EQ(hak_region_create(&config, &other), 0);
    kit_elsewhere(pin_back_and_forth, other);
    CHECK(heap_check(other));
    CHECK_EQ(hak_region_destroy(other), 0);
    kit_close();
}

TEST(pinning_to_no_processor_is_told_and_changes_nothing)
{
    struct hak_error error;

    kit_open_two_nodes(16 * MIB, HAK_EXHAUSTED_FAIL);
    CHECK_EQ(hak_thread_pin(-1), -EINVAL);
    CHECK_EQ(hak_last_error(&error), -EINVAL);
    CHECK_STR_HAS(error.message, "processor -1");
    CHECK_EQ(hak_thread_pin(TOPOLOGY_CPUS_MAX), -EINVAL);
    CHECK_EQ(hak_thread_pin(TOPOLOGY_CPUS_MAX - 1), -EINVAL);
    CHECK_STR_HAS((hak_last_error(&error), error.message), "processor 8191");
    kit_close();
}

HARNESS_MAIN()
