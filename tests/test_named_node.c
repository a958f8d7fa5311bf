/* SPDX-License-Identifier: MIT */
/*
 * hak_malloc_on_node, when the node is full: before it says so it does everything that hak_malloc
 * would do for the own node. And what is said of arguments that make no sense.
 */
#include "numa/pin.h"
#include "tests/heap_kit.h"

#define MANY (8 * MIB / 64)
#define KEPT 20

static void *objects[MANY + 1];
static size_t object_count;
static struct kit_turns turns;

/* Sizes whose objects wait in caches and outboxes, in slabs of one and of several units. */
static const size_t sizes[] = {64, 1024, 4096, 16384};
#define SIZES (sizeof(sizes) / sizeof(*sizes))

/* Runs it, in a thread of its own, on a region of 8 MiB with two nodes, at home in the first. */
static void with_two_nodes(void *(*run)(void *), void *argument, enum hak_exhausted policy)
{
    if (pin_cpu_count() < 2) {
        SKIP("one processor: threads cannot be on two nodes");
    }
    kit_open_two_nodes(8 * MIB, policy);
    kit_elsewhere(run, argument);
    kit_close();
}

/* Until the node is full. */
static void fill(size_t size, int node)
{
    void *object;

    while ((object = hak_malloc_on_node(size, node)) != NULL) {
        CHECK(object_count < MANY);
        CHECK_EQ(kit_segment(object), node);
        objects[object_count++] = object;
    }
    CHECK_EQ(errno, ENOMEM);
}

static void free_some(size_t count)
{
    CHECK(object_count >= count);
    while (count-- > 0) {
        hak_free(objects[--object_count]);
    }
}

/* So many more can be had from the node, and then no more. */
static void check_gives(size_t count, size_t size, int node)
{
    size_t before = object_count;

    fill(size, node);
    CHECK_EQ(object_count - before, count);
}

/* The node's segment in one piece, as only a wholly emptied node can give it. */
static void check_gives_whole(int node)
{
    struct hak_node_stats stats;

    CHECK_EQ(hak_region_node_stats(NULL, (unsigned)node, &stats), 0);
    CHECK(stats.free_bytes < stats.size_bytes); /* something is to be done first */
    void *whole = hak_malloc_on_node(stats.size_bytes, node);
    CHECK(whole != NULL);
    CHECK_EQ(kit_segment(whole), node);
    CHECK(hak_malloc_on_node(1, node) == NULL);
    hak_free(whole);
}

static void check_record(size_t size, int node)
{
    struct hak_error error;

    CHECK_EQ(hak_last_error(&error), -ENOMEM);
    CHECK_EQ(error.kind, HAK_ERROR_EXHAUSTED);
    CHECK_EQ(error.node, node);
    CHECK_EQ(error.size_bytes, size);
    CHECK_EQ(error.size_class, size > CLASS_BYTES_MAX ? 0 : sizeclass_of(size));
}

/* ---- the own outbox ------------------------------------------------------------------------ */

static void *outbox_small(void *policy)
{
    (void)policy;
    CHECK_EQ(hak_thread_pin(0), 0);
    for (size_t n = 0; n < SIZES; n++) {
        object_count = 0;
        fill(sizes[n], 1);
        size_t all = object_count;
        CHECK_EQ(all, 4 * MIB / sizes[n]);
        free_some(KEPT + 1); /* not a multiple of what goes home together */
        check_gives(KEPT + 1, sizes[n], 1);
        check_record(sizes[n], 1);
        CHECK_EQ(kit_stats().other_node_allocs, 0);
        free_some(all);
    }
    return NULL;
}

TEST(what_waits_in_the_own_outbox_goes_home_before_the_node_is_called_full)
{
    with_two_nodes(outbox_small, NULL, HAK_EXHAUSTED_FAIL);
    with_two_nodes(outbox_small, NULL, HAK_EXHAUSTED_ANY_NODE);
}

static void *outbox_large(void *unused)
{
    CHECK_EQ(hak_thread_pin(0), 0);
    for (unsigned n = 0; n < 5; n++) {
        objects[n] = hak_malloc_on_node(1024, 1);
        CHECK(objects[n] != NULL);
    }
    hak_free_bulk(objects, 5);
    check_gives_whole(1);
    return unused;
}

TEST(a_large_object_gets_what_waited_in_the_own_outbox)
{
    with_two_nodes(outbox_large, NULL, HAK_EXHAUSTED_FAIL);
    with_two_nodes(outbox_large, NULL, HAK_EXHAUSTED_ANY_NODE);
}

/* ---- the own caches ------------------------------------------------------------------------ */

/* The own node by name is as good as not naming it, whatever the policy. */
static void check_own_caches(enum hak_exhausted policy)
{
    for (size_t n = 0; n < SIZES; n++) {
        struct hak_config config = kit_config(8 * MIB);
        config.exhausted = policy;
        kit_forget_last();
        int node = kit_start(&config)->area.segments[0].node;
        object_count = 0;
        while ((objects[object_count] = hak_malloc(sizes[n])) != NULL) {
            object_count++;
        }
        free_some(100); /* some stay in the cache, in its magazines, in boxes */
        for (unsigned again = 0; again < 60; again++) {
            objects[object_count] = hak_malloc(sizes[n]);
            CHECK(objects[object_count++] != NULL);
        }
        free_some(60);
        check_gives(100, sizes[n], node);
        CHECK(hak_malloc(sizes[n]) == NULL);
        free_some(object_count);
        check_gives_whole(node); /* a large one makes the caches give way too */
        kit_close();
    }
}

TEST(the_own_caches_serve_the_own_node_by_name)
{
    check_own_caches(HAK_EXHAUSTED_FAIL);
    check_own_caches(HAK_EXHAUSTED_ANY_NODE);
}

TEST(an_object_by_name_comes_from_the_cache_where_it_has_one)
{
    struct hak_config config = kit_config(8 * MIB);

    config.exhausted = HAK_EXHAUSTED_ANY_NODE;
    kit_forget_last();
    int node = kit_start(&config)->area.segments[0].node;
    void *object = hak_malloc(1024);
    hak_free(object);
    CHECK_EQ(hak_malloc_on_node(1024, node), object);
    hak_free(object);
    kit_close();
}

/* ---- idle threads -------------------------------------------------------------------------- */

static void *rest_on_node_1(void *unused)
{
    void *mine[200];

    CHECK_EQ(hak_thread_pin(1), 0);
    for (size_t n = 0; n < SIZES; n++) {
        size_t count = min_size(200, 64 * KIB / sizes[n]);
        CHECK_EQ(hak_malloc_bulk(sizes[n], count, mine), count);
        hak_free_bulk(mine, count);
    }
    hak_thread_idle();
    kit_done(&turns, 1);
    kit_wait(&turns, 2);
    return unused;
}

static void *want_of_idle(void *size)
{
    size_t bytes = *(const size_t *)size;

    CHECK_EQ(hak_thread_pin(0), 0);
    object_count = 0;
    kit_done(&turns, 0);
    pthread_t idle = kit_thread(rest_on_node_1, NULL);
    kit_wait(&turns, 1);
    CHECK_GE(kit_stats().slab_bytes, UNIT_BYTES); /* it has something */
    if (bytes > CLASS_BYTES_MAX) {
        check_gives_whole(1);
    } else {
        check_gives(4 * MIB / bytes, bytes, 1);
        free_some(object_count);
    }
    kit_done(&turns, 2);
    kit_join(idle);
    return NULL;
}

TEST(what_idle_threads_of_the_node_hold_is_taken)
{
    static size_t large = 4 * MIB;

    for (size_t n = 0; n < SIZES; n++) {
        size_t size = sizes[n];
        with_two_nodes(want_of_idle, &size, HAK_EXHAUSTED_FAIL);
    }
    with_two_nodes(want_of_idle, &large, HAK_EXHAUSTED_FAIL);
}

/* ---- the reclaimer ------------------------------------------------------------------------- */

static void *spared[KEPT];
static unsigned spared_count, calls;
static size_t wanted;

static void give_spared(hak_region *region, size_t size_bytes, void *argument)
{
    CHECK_EQ(argument, &calls);
    calls++;
    wanted = size_bytes;
    while (spared_count > 0) {
        hak_region_free(region, spared[--spared_count]);
    }
}

static void ask_reclaimer(size_t size, int node)
{
    object_count = 0;
    calls = 0;
    fill(size, node);
    size_t all = object_count;
    size_t count = min_size(KEPT, all);
    for (spared_count = 0; spared_count < count; spared_count++) {
        spared[spared_count] = objects[--object_count];
    }
    CHECK_EQ(hak_on_exhausted(NULL, give_spared, &calls), 0);
    objects[object_count] = hak_malloc_on_node(size, node);
    CHECK(objects[object_count] != NULL);
    CHECK_EQ(kit_segment(objects[object_count++]), node);
    CHECK_EQ(calls, 1);
    CHECK_GE(wanted, size);
    CHECK(wanted < size + size / 4 + 16);
    check_gives(count - 1, size, node);
    CHECK_EQ(calls, 2); /* before the failure once more, in vain */
    CHECK_EQ(hak_on_exhausted(NULL, NULL, NULL), 0);
    free_some(all);
}

struct request {
    size_t size;
    int node;
};

static void *ask_from_node_0(void *argument)
{
    const struct request *request = argument;

    CHECK_EQ(hak_thread_pin(0), 0);
    ask_reclaimer(request->size, request->node);
    return NULL;
}

TEST(the_reclaimer_is_asked_for_a_node_by_name)
{
    static const size_t asked[] = {64, 1024, 4096, 16384, 300 * KIB, MIB, 4 * MIB};

    for (size_t n = 0; n < sizeof(asked) / sizeof(*asked); n++) {
        for (int node = 0; node < 2; node++) {
            struct request request = {asked[n], node};
            with_two_nodes(ask_from_node_0, &request, HAK_EXHAUSTED_FAIL);
            with_two_nodes(ask_from_node_0, &request, HAK_EXHAUSTED_ANY_NODE);
        }
    }
}

/* ---- homes --------------------------------------------------------------------------------- */

static void *pin_while_idle(void *unused)
{
    CHECK_EQ(hak_thread_pin(0), 0);
    void *first = hak_malloc(64);
    CHECK_EQ(kit_segment(first), 0);
    hak_thread_idle();
    CHECK_EQ(hak_thread_pin(1), 0);
    void *second = hak_malloc(64);
    CHECK_EQ(kit_segment(second), 1);
    CHECK_EQ(kit_stats().threads, 1);
    hak_thread_idle();
    CHECK_EQ(hak_thread_pin(0), 0);
    void *large = hak_malloc(300 * KIB); /* a slow step of another kind */
    CHECK_EQ(kit_segment(large), 0);
    hak_free(first);
    hak_free(second);
    hak_free(large);
    return unused;
}

TEST(a_thread_that_is_pinned_while_idle_comes_back_at_its_new_home)
{
    with_two_nodes(pin_while_idle, NULL, HAK_EXHAUSTED_FAIL);
}

/* ---- arguments ----------------------------------------------------------------------------- */

/* The compiler knows hak_malloc's attributes, and would say what we are here to say. */
static volatile size_t too_large = SIZE_MAX, zero_alignment = 0;

static void check_refused(const void *object, int code, enum hak_error_kind kind, const char *text)
{
    int said = errno;
    struct hak_error error;

    CHECK(object == NULL);
    CHECK_EQ(said, -code);
    CHECK_EQ(hak_last_error(&error), code);
    CHECK_EQ(error.code, code);
    CHECK_EQ(error.kind, kind);
    CHECK_STR_HAS(error.message, text);
}

TEST(arguments_that_make_no_sense_are_told_by_kind_and_in_words)
{
    static const char no_node[] = "the region has no segment on that node";
    static const char no_size[] = "the size is beyond what can be addressed";
    static const char no_power[] = "the alignment is not a power of two up to 1 GiB";
    const enum hak_error_kind kind = HAK_ERROR_ARGUMENT;
    struct hak_error error;

    int node = kit_open(8 * MIB)->area.segments[0].node;
    static const int nodes[] = {-1, 63, HAK_NODES_MAX, 1 << 30, -(1 << 30)};
    for (unsigned n = 0; n < sizeof(nodes) / sizeof(*nodes); n++) {
        check_refused(hak_malloc_on_node(100, nodes[n]), -EINVAL, kind, no_node);
        check_refused(hak_malloc_on_node(MIB, nodes[n]), -EINVAL, kind, no_node);
        check_refused(hak_malloc_on_node(too_large, nodes[n]), -EINVAL, kind, no_node);
        CHECK_EQ(hak_last_error(&error), -EINVAL);
        CHECK_EQ(error.node, nodes[n]);
        CHECK_EQ(error.size_bytes, SIZE_MAX);
    }
    check_refused(hak_malloc_on_node(too_large, node), -ENOMEM, kind, no_size);
    check_refused(hak_malloc_on_node(too_large / 2 + 1, node), -ENOMEM, kind, no_size);
    check_refused(hak_malloc_on_node(too_large / 2, node), -ENOMEM, HAK_ERROR_EXHAUSTED, "failed");
    check_refused(hak_malloc(too_large), -ENOMEM, kind, no_size);
    check_refused(hak_aligned_alloc(3, 100), -EINVAL, kind, no_power);
    check_refused(hak_aligned_alloc(2 * HAK_ALIGNMENT_MAX, 100), -EINVAL, kind, no_power);
    check_refused(hak_aligned_alloc(zero_alignment, 100), -EINVAL, kind, "not a power of two");
    check_refused(hak_aligned_alloc(4096, too_large), -ENOMEM, kind, no_size);
    CHECK_EQ(kit_stats().exhausted, 1); /* the one that was no nonsense */
    kit_close();
    check_refused(hak_malloc_on_node(100, node), -ENOMEM, HAK_ERROR_NO_REGION, "hak_region_init");
    check_refused(hak_malloc_on_node(100, 63), -ENOMEM, HAK_ERROR_NO_REGION, "hak_region_init");
}

HARNESS_MAIN()
