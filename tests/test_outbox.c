/* SPDX-License-Identifier: MIT */
/*
 * Two nodes (pretended): a thread's memory is its own node's, what it frees of the other's goes
 * home in batches and never into its own hands, and running out is each node's own affair.
 */
#include "alloc/outbox.h"

#include "numa/pin.h"
#include "tests/heap_kit.h"

#define CLASS_KIB 20 /* 1,024 bytes */
#define MANY 70000

static void *objects[MANY];
static size_t object_count;

static const size_t sizes[] = {1, 100, 1024, 5000, 40000, 262144, 262145, 3 << 20};

/* A region of two segments, this thread at home in the first. */
static void open_two(size_t bytes, enum hak_exhausted exhausted)
{
    if (pin_cpu_count() < 2) {
        SKIP("one processor: threads cannot be on two nodes");
    }
    struct hak_region *heap = kit_open_two_nodes(bytes, exhausted);
    CHECK_EQ(heap->pool_count, 2);
    CHECK_EQ(heap->area.segments[0].node, 0);
    CHECK_EQ(heap->area.segments[1].node, 1);
    CHECK_EQ(hak_thread_pin(0), 0);
}

static void on_node_1(void *(*run)(void *))
{
    kit_elsewhere(run, NULL);
}

static void *make_on_1(void *unused)
{
    CHECK_EQ(hak_thread_pin(1), 0);
    for (size_t n = 0; n < object_count; n++) {
        objects[n] = hak_malloc(1024);
        CHECK(objects[n] != NULL);
        CHECK_EQ(kit_segment(objects[n]), 1);
        memset(objects[n], (int)n, 1024);
    }
    return unused;
}

static void borrow(size_t count)
{
    object_count = count;
    on_node_1(make_on_1);
}

static void free_all(void)
{
    for (size_t n = 0; n < object_count; n++) {
        hak_free(objects[n]);
    }
}

/* ---- home ------------------------------------------------------------------------------------ */

static void *every_way(void *segment)
{
    unsigned home = (unsigned)(uintptr_t)segment;
    void *bulk[50];

    CHECK_EQ(hak_thread_pin((int)home), 0);
    for (unsigned n = 0; n < sizeof(sizes) / sizeof(*sizes); n++) {
        void *ways[] = {hak_malloc(sizes[n]), hak_calloc(1, sizes[n]),
                        hak_aligned_alloc(128, sizes[n]), hak_realloc(hak_malloc(8), sizes[n])};
        for (unsigned w = 0; w < 4; w++) {
            CHECK(ways[w] != NULL);
            CHECK_EQ(kit_segment(ways[w]), home);
            hak_free(ways[w]);
        }
    }
    CHECK_EQ(hak_malloc_bulk(200, 50, bulk), 50);
    for (unsigned n = 0; n < 50; n++) {
        CHECK_EQ(kit_segment(bulk[n]), home);
    }
    hak_free_bulk(bulk, 50);
    return NULL;
}

TEST(every_object_comes_from_the_segment_of_its_threads_node)
{
    open_two(64 * MIB, HAK_EXHAUSTED_FAIL);
    kit_elsewhere(every_way, (void *)0);
    kit_elsewhere(every_way, (void *)1);
    CHECK_EQ(kit_stats().remote_frees, 0);
    kit_close();
}

TEST(a_thread_that_is_pinned_elsewhere_moves_its_home)
{
    open_two(64 * MIB, HAK_EXHAUSTED_FAIL);
    void *first = hak_malloc(100);
    CHECK_EQ(kit_segment(first), 0);
    CHECK_EQ(hak_thread_pin(1), 0);
    void *second = hak_malloc(100);
    CHECK_EQ(kit_segment(second), 1);
    hak_free(first); /* remote now */
    hak_free(second);
    CHECK_EQ(hak_thread_pin(0), 0);
    CHECK_EQ(kit_stats().remote_frees, 1);
    CHECK_EQ(kit_stats().threads, 1);
    kit_close();
}

/* ---- the way home ---------------------------------------------------------------------------- */

/* A thread that only frees has no slot for its first few. */
static void take_a_slot(void)
{
    hak_free(hak_malloc(16));
}

TEST(frees_of_the_other_nodes_objects_go_home_in_batches)
{
    open_two(64 * MIB, HAK_EXHAUSTED_FAIL);
    take_a_slot();
    borrow(6400);
    for (size_t n = 0; n < object_count; n++) {
        struct hak_stats stats;
        hak_free(objects[n]);
        if (n % 16 == 15) {
            stats = kit_stats();
            CHECK_LE(n + 1 - stats.remote_frees, MAGAZINE_OBJECTS);
            CHECK_EQ(kit_class(CLASS_KIB).objects_out, object_count - stats.remote_frees);
        }
    }
    struct hak_stats stats = kit_stats();
    CHECK_LE(stats.remote_drains, 6400 / MAGAZINE_OBJECTS + 1);
    thread_detach_all();
    stats = kit_stats();
    CHECK_EQ(stats.remote_frees, 6400);
    CHECK_GE(stats.remote_drains, 6400 / MAGAZINE_OBJECTS);
    CHECK_LE(stats.remote_drains, 6400 / MAGAZINE_OBJECTS + 1);
    kit_close();
}

TEST(an_outbox_that_is_not_full_goes_with_its_thread)
{
    open_two(64 * MIB, HAK_EXHAUSTED_FAIL);
    take_a_slot();
    borrow(10);
    free_all();
    CHECK_EQ(kit_class(CLASS_KIB).objects_out, 10);
    outbox_drain_owner(thread_current(hak_region_default()));
    CHECK_EQ(kit_class(CLASS_KIB).objects_out, 0);
    CHECK_EQ(kit_stats().remote_frees, 10);
    CHECK_EQ(kit_stats().remote_drains, 1);
    take_a_slot();
    borrow(10);
    free_all();
    thread_detach_all();
    CHECK_EQ(kit_class(CLASS_KIB).objects_out, 0);
    CHECK_EQ(kit_stats().remote_frees, 20);
    kit_close();
}

static void *make_largest_on_1(void *unused)
{
    CHECK_EQ(hak_thread_pin(1), 0);
    for (object_count = 0; object_count < 60; object_count++) {
        objects[object_count] = hak_malloc(CLASS_BYTES_MAX);
        CHECK(objects[object_count] != NULL);
    }
    return unused;
}

/* Pointers are few, but what they point to is not there for its node until they go home. */
TEST(what_waits_in_an_outbox_stays_a_small_share_of_the_region)
{
    open_two(64 * MIB, HAK_EXHAUSTED_FAIL);
    on_node_1(make_largest_on_1);
    free_all();
    size_t waiting = kit_class(CLASS_COUNT).objects_out * CLASS_BYTES_MAX;
    CHECK_LE(waiting * 100, 64 * MIB * 3);
    kit_close();
}

TEST(a_freed_object_of_the_other_node_is_never_handed_out_here)
{
    void *mine[300];

    open_two(64 * MIB, HAK_EXHAUSTED_FAIL);
    for (unsigned round = 0; round < 20; round++) {
        borrow(300);
        for (unsigned n = 0; n < 300; n++) {
            hak_free(objects[n]);
            mine[n] = hak_malloc(1024);
            CHECK(mine[n] != NULL);
            CHECK_EQ(kit_segment(mine[n]), 0);
        }
        hak_free_bulk(mine, 300);
        borrow(300);
        hak_free_bulk(objects, 300); /* the same by the bulk calls */
        CHECK_EQ(hak_malloc_bulk(1024, 300, mine), 300);
        for (unsigned n = 0; n < 300; n++) {
            CHECK_EQ(kit_segment(mine[n]), 0);
        }
        hak_free_bulk(mine, 300);
    }
    kit_close();
}

static void *_Atomic mailbox[2][256];

/* Puts an object of one's own up, frees the one before it and one of the other side's. */
static void exchange(unsigned me, unsigned place, size_t bytes)
{
    uint64_t *object = hak_malloc(bytes);

    CHECK(object != NULL);
    CHECK_EQ(kit_segment(object), me);
    object[0] = bytes;
    object[1] = (uintptr_t)object;
    hak_free(atomic_exchange(&mailbox[me][place], object));
    object = atomic_exchange(&mailbox[!me][place], NULL);
    if (object != NULL) {
        CHECK_EQ(object[1], (uintptr_t)object);
        CHECK_LE(object[0], hak_usable_size(object));
        CHECK_EQ(kit_segment(object), !me);
        hak_free(object);
    }
}

static void *ping(void *side)
{
    unsigned me = (unsigned)(uintptr_t)side;
    uint64_t random = harness_seed() + me;
    int64_t until = harness_now_ms() + 800;

    CHECK_EQ(hak_thread_pin((int)me), 0);
    for (unsigned n = 0; n % 256 != 0 || harness_now_ms() < until; n++) {
        exchange(me, n % 256, harness_random(&random) % 2000 + 16);
    }
    for (unsigned n = 0; n < 256; n++) {
        hak_free(atomic_exchange(&mailbox[me][n], NULL));
    }
    return NULL;
}

TEST(two_nodes_that_free_each_others_objects_all_the_time_lose_none)
{
    pthread_t threads[2];

    open_two(32 * MIB, HAK_EXHAUSTED_FAIL);
    for (uintptr_t n = 0; n < 2; n++) {
        threads[n] = kit_thread(ping, (void *)n);
    }
    for (unsigned n = 0; n < 2; n++) {
        kit_join(threads[n]);
    }
    struct hak_stats stats = kit_stats();
    CHECK_GE(stats.remote_frees, 1000);
    CHECK_LE(stats.remote_drains * (MAGAZINE_OBJECTS / 2),
             stats.remote_frees + 8 * MAGAZINE_OBJECTS);
    kit_close();
}

/* ---- by name --------------------------------------------------------------------------------- */

TEST(an_object_can_be_had_from_a_node_by_name)
{
    open_two(64 * MIB, HAK_EXHAUSTED_FAIL);
    for (unsigned n = 0; n < sizeof(sizes) / sizeof(*sizes); n++) {
        for (int node = 0; node < 2; node++) {
            void *object = hak_malloc_on_node(sizes[n], node);
            CHECK(object != NULL);
            CHECK_EQ(kit_segment(object), node);
            CHECK_GE(hak_usable_size(object), sizes[n]);
            memset(object, 1, sizes[n]);
            hak_free(object);
        }
        errno = 0;
        CHECK(hak_malloc_on_node(sizes[n], 2) == NULL);
        CHECK_EQ(errno, EINVAL);
        CHECK(hak_malloc_on_node(sizes[n], -1) == NULL);
        CHECK(hak_malloc_on_node(sizes[n], HAK_NODES_MAX) == NULL);
    }
    kit_close();
}

static void fill_by_name(int node)
{
    for (object_count = 0;; object_count++) {
        objects[object_count] = hak_malloc_on_node(1024, node);
        if (objects[object_count] == NULL) {
            break;
        }
        CHECK_EQ(kit_segment(objects[object_count]), node);
    }
    CHECK_EQ(errno, ENOMEM);
}

static void exhaust_by_name(int node, enum hak_exhausted policy)
{
    struct hak_error error;

    open_two(16 * MIB, policy);
    fill_by_name(node);
    CHECK_EQ(object_count, 8 * MIB / 1024);
    CHECK_EQ(hak_last_error(&error), -ENOMEM);
    CHECK_EQ(error.kind, HAK_ERROR_EXHAUSTED);
    CHECK_EQ(error.node, node);
    CHECK_EQ(error.free_bytes, 0);
    CHECK(hak_malloc_on_node(1 * MIB, node) == NULL);
    CHECK_EQ(errno, ENOMEM);
    CHECK_EQ(kit_stats().other_node_allocs, 0);
    free_all();
    kit_close();
}

TEST(a_full_node_by_name_is_an_error_whatever_the_policy)
{
    for (int node = 0; node < 2; node++) {
        exhaust_by_name(node, HAK_EXHAUSTED_FAIL);
        exhaust_by_name(node, HAK_EXHAUSTED_ANY_NODE);
    }
}

/* ---- running out ----------------------------------------------------------------------------- */

static void fill_home(size_t size)
{
    for (object_count = 0; object_count < MANY; object_count++) {
        objects[object_count] = hak_malloc(size);
        if (objects[object_count] == NULL) {
            break;
        }
    }
}

TEST(a_full_node_fails_while_the_other_has_room)
{
    struct hak_node_stats node;
    struct hak_error error;

    open_two(32 * MIB, HAK_EXHAUSTED_FAIL);
    fill_home(1024);
    CHECK_EQ(errno, ENOMEM);
    CHECK_EQ(object_count, 16 * MIB / 1024);
    CHECK_EQ(hak_last_error(&error), -ENOMEM);
    CHECK_EQ(error.node, 0);
    CHECK(hak_malloc(1 * MIB) == NULL);
    CHECK_EQ(hak_region_node_stats(NULL, 1, &node), 0);
    CHECK_EQ(node.free_bytes, 16 * MIB);
    CHECK_EQ(kit_stats().other_node_allocs, 0);
    CHECK_EQ(kit_stats().exhausted, 2);
    free_all();
    kit_close();
}

TEST(where_allowed_another_node_serves_and_is_counted)
{
    size_t there = 0;

    open_two(32 * MIB, HAK_EXHAUSTED_ANY_NODE);
    fill_home(1024);
    CHECK_EQ(object_count, 32 * MIB / 1024);
    for (size_t n = 0; n < object_count; n++) {
        there += kit_segment(objects[n]) == 1;
    }
    CHECK_EQ(there, 16 * MIB / 1024);
    CHECK_EQ(kit_stats().other_node_allocs, there);
    free_all();
    thread_detach_all();

    fill_home(2 * MIB); /* large ones too */
    CHECK_EQ(object_count, 16);
    CHECK_EQ(kit_stats().other_node_allocs, there + 8);
    free_all();
    kit_close();
}

HARNESS_MAIN()
