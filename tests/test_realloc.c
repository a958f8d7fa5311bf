/* SPDX-License-Identifier: MIT */
/*
 * realloc, the bulk calls and malloc_on_node as the public header promises them, each case by the
 * plain calls and on a handle (tests/ways.h).
 */
#include "tests/ways.h"

/* ---- realloc ---- */

static void contents(void)
{
    static const size_t some[] = {
        1,      2,      15,     16,     17,      31,      64,      100,     128,    129,
        500,    1024,   1025,   4000,   4096,    10000,   40960,   65536,   131072, 131073,
        200000, 262144, 262145, 300000, 1048576, 2097152, 2097153, 3000000, 5000000};
    const size_t count = sizeof some / sizeof *some;
    for (size_t from = 0; from < count; from++) {
        for (size_t to = 0; to < count; to++) {
            char *object = a_malloc(some[from]);
            check_object(object, some[from]);
            pattern_fill(object, some[from], from);
            object = a_realloc(object, some[to]);
            check_object(object, some[to]);
            size_t both = some[from] < some[to] ? some[from] : some[to];
            CHECK(pattern_holds(object, both, from));
            memset(object, 0xee, some[to]);
            a_free(object);
        }
    }
}

TEST(realloc_keeps_contents_from_any_size_to_any)
{
    every_way(64 * MIB, HAK_OFF, contents);
}

static void one_byte_at_a_time(void)
{
    unsigned char *object = NULL;
    for (size_t size = 1; size <= 20000; size++) {
        object = a_realloc(object, size);
        check_object(object, size);
        object[size - 1] = (unsigned char)(size * 31);
    }
    for (size_t size = 20000; size >= 1; size--) {
        CHECK_EQ(object[size - 1], (unsigned char)(size * 31));
        object = a_realloc(object, size);
        check_object(object, size);
    }
    CHECK(a_realloc(object, 0) == NULL);
}

TEST(realloc_walks_up_and_down_byte_by_byte)
{
    every_way(16 * MIB, HAK_OFF, one_byte_at_a_time);
}

static void random_chains(void)
{
    enum { CHAINS = 64 };
    uint64_t random = harness_seed() + 1;
    memset(objects, 0, CHAINS * sizeof *objects);
    memset(sizes, 0, CHAINS * sizeof *sizes);
    for (int round = 0; round < 6000; round++) {
        size_t n = harness_random(&random) % CHAINS;
        size_t size = 1 +
                      harness_random(&random) % ((size_t)1 << (4 + harness_random(&random) % 18));
        void *object = a_realloc(objects[n], size);
        check_object(object, size);
        size_t both = size < sizes[n] ? size : sizes[n];
        CHECK(pattern_holds(object, both, n));
        pattern_fill(object, size, n);
        objects[n] = object;
        sizes[n] = size;
    }
    a_free_bulk(objects, CHAINS);
}

TEST(realloc_of_many_objects_at_random_keeps_them_apart)
{
    every_way(256 * MIB, HAK_OFF, random_chains);
}

/* Where the new size fits and is at least half of what the object has, it stays. */
static void in_place(void)
{
    static const size_t some[] = {16,     40,     100,    1000,    5000,    65536,
                                  100000, 262144, 300000, 1000000, 2097152, 5000000};
    for (size_t n = 0; n < sizeof some / sizeof *some; n++) {
        char *object = a_malloc(some[n]);
        check_object(object, some[n]);
        size_t have = a_usable(object);
        const size_t within[] = {have,         have - 1,      some[n], have - have / 4,
                                 have / 2 + 1, (have + 1) / 2};
        for (size_t k = 0; k < sizeof within / sizeof *within; k++) {
            object = a_realloc(object, some[n]);
            check_object(object, some[n]);
            CHECK_GE(a_usable(object), within[k]);
            char *same = a_realloc(object, within[k]);
            if (same != object) {
                FAIL("%zu of %zu usable bytes: moved from %p to %p", within[k], have,
                     (void *)object, (void *)same);
            }
        }
        a_free(object);
    }
}

TEST(realloc_stays_where_the_object_fits)
{
    every_way(64 * MIB, HAK_OFF, in_place);
}

/* A large object whose size is a small one's, since the alignment asked for made it large. */
static void aligned_in_place(void)
{
    char *object = a_aligned(2 * MIB, 100);
    check_object(object, 100);
    size_t have = a_usable(object);
    CHECK(a_realloc(object, have) == object);
    CHECK(a_realloc(object, have - 1) == object);
    CHECK(a_realloc(object, have / 2 + 1) == object);
    a_free(object);
}

TEST(realloc_stays_where_an_aligned_object_fits)
{
    every_way(64 * MIB, HAK_OFF, aligned_in_place);
}

static void much_smaller(void)
{
    static const size_t some[] = {10000, 262144, 300000, 3 * MIB, 20 * MIB};
    for (size_t n = 0; n < sizeof some / sizeof *some; n++) {
        char *object = a_malloc(some[n]);
        check_object(object, some[n]);
        object[0] = 77;
        object = a_realloc(object, 64);
        check_object(object, 64);
        CHECK_EQ(object[0], 77);
        CHECK_LE(a_usable(object), 128);
        a_free(object);
    }
}

TEST(realloc_to_much_less_gives_the_rest_back)
{
    every_way(64 * MIB, HAK_OFF, much_smaller);
}

static void grow_and_shrink(void)
{
    const size_t region = the_region()->area.bytes;
    struct hak_stats stats = kit_stats(handle);
    size_t free_before = stats.free_bytes;
    char *object = a_malloc(4 * MIB);
    check_object(object, 4 * MIB);
    size_t moves = 0;
    pattern_fill(object, 4 * MIB, 7);
    /* To the last unit of the region, though it begins at one end and others lie beside it. */
    for (size_t size = 4 * MIB; size <= region; size += 192 * KIB) {
        char *before = object;
        object = a_realloc(object, size);
        check_object(object, size);
        moves += object != before;
        CHECK(pattern_holds(object, 4 * MIB, 7));
        CHECK(size <= 4 * MIB + 192 * KIB ||
              object[size - 192 * KIB - 1] == (char)((size - 192 * KIB) >> 16));
        if (size > 4 * MIB) {
            object[size - 1] = (char)(size >> 16);
        }
        stats = kit_stats(handle);
        CHECK_EQ(stats.large_bytes, a_usable(object));
    }
    CHECK_LE(moves, 80); /* of 320: the last ones each go down into what is left */
    char *home = object;
    for (size_t size = region; size > 320 * KIB; size -= size / 5 / 65536 * 65536 + 65536) {
        object = a_realloc(object, size);
        check_object(object, size);
        CHECK(object == home);
        CHECK_LE(a_usable(object), size / 2 * 3 + 65536);
        stats = kit_stats(handle);
        CHECK_EQ(stats.free_bytes, free_before - a_usable(object));
    }
    a_free(object);
}

TEST(large_objects_grow_to_the_whole_region_and_shrink_in_place)
{
    every_way(64 * MIB, HAK_OFF, grow_and_shrink);
}

static void blocked(void)
{
    char *object = a_malloc(2 * MIB);
    char *neighbour = a_malloc(2 * MIB);
    check_object(object, 2 * MIB);
    check_object(neighbour, 2 * MIB);
    CHECK(neighbour == object + 2 * MIB);
    pattern_fill(object, 2 * MIB, 1);
    pattern_fill(neighbour, 2 * MIB, 2);
    char *moved = a_realloc(object, 6 * MIB);
    check_object(moved, 6 * MIB);
    CHECK(moved >= neighbour + 2 * MIB || moved + 6 * MIB <= neighbour);
    CHECK(pattern_holds(moved, 2 * MIB, 1));
    CHECK(pattern_holds(neighbour, 2 * MIB, 2));
    a_free(neighbour);
    a_free(moved);
}

TEST(large_objects_move_where_a_neighbour_is_in_the_way)
{
    every_way(64 * MIB, HAK_OFF, blocked);
}

static void no_room(void)
{
    char *large = a_malloc(9 * MIB);
    char *small = a_malloc(1000);
    check_object(large, 9 * MIB);
    check_object(small, 1000);
    pattern_fill(large, 9 * MIB, 1);
    pattern_fill(small, 1000, 2);
    errno = 0;
    check_refused(a_realloc(large, 17 * MIB), ENOMEM, HAK_ERROR_EXHAUSTED);
    errno = 0;
    check_refused(a_realloc(small, 8 * MIB), ENOMEM, HAK_ERROR_EXHAUSTED);
    CHECK(pattern_holds(large, 9 * MIB, 1));
    CHECK(pattern_holds(small, 1000, 2));
    CHECK_GE(a_usable(large), 9 * MIB);
    CHECK_GE(a_usable(small), 1000);
    a_free(large);
    a_free(small);
}

TEST(realloc_that_fails_leaves_the_object_alone)
{
    every_way(16 * MIB, HAK_OFF, no_room);
}

/* ---- bulk ---- */

static int by_address(const void *a, const void *b)
{
    uintptr_t one = *(const uintptr_t *)a;
    uintptr_t two = *(const uintptr_t *)b;
    return one < two ? -1 : one > two;
}

static void bulk_of(size_t size, size_t count)
{
    void *guard = objects;
    objects[count] = guard;
    CHECK_EQ(a_malloc_bulk(size, count, objects), count);
    CHECK(objects[count] == guard); /* not a pointer too many */
    for (size_t n = 0; n < count; n++) {
        check_object(objects[n], size);
        pattern_fill(objects[n], size, n);
    }
    for (size_t n = 0; n < count; n++) {
        CHECK(pattern_holds(objects[n], size, n));
    }
    a_free_bulk(objects, count);
}

static void bulk_counts(void)
{
    static const size_t counts[] = {0, 1, 2, 7, 31, 32, 63, 64, 65, 100, 1000, 5000};
    static const size_t some[] = {16, 24, 256, 1024, 1100, 3000, 65536, 300000};
    for (size_t s = 0; s < sizeof some / sizeof *some; s++) {
        for (size_t c = 0; c < sizeof counts / sizeof *counts; c++) {
            bulk_of(some[s], counts[c] * some[s] <= 24 * MIB ? counts[c] : 20);
        }
    }
}

/* In a full region it stays, larger than it need be; that is no failure. */
TEST(realloc_that_shrinks_where_nothing_is_free_keeps_errno)
{
    struct hak_config config = kit_config(8 * MIB, HAK_PAGES_4K, HAK_OFF);
    kit_open_config(&config);
    unsigned char *object = hak_malloc(256 * KIB);
    CHECK(object != NULL);
    for (size_t size = MIB; size >= 16; size /= 2) {
        while (hak_malloc(size) != NULL) {
        }
    }
    memset(object, 0x5a, 256 * KIB);
    errno = 4711;
    CHECK(hak_realloc(object, 100) == object);
    CHECK_EQ(errno, 4711);
    CHECK(object[0] == 0x5a && object[99] == 0x5a);
    kit_close();
}

TEST(bulk_gives_as_many_as_asked)
{
    every_way(64 * MIB, HAK_OFF, bulk_counts);
}

static void bulk_mixture(void)
{
    static const size_t some[] = {16, 17, 16, 5000, 16, 300000, 64, 64, 64, 2 * MIB, 100};
    const size_t kinds = sizeof some / sizeof *some;
    size_t before = 0;
    for (int round = 0; round < 40; round++) {
        for (size_t n = 0; n < 330; n++) {
            objects[n] = n % 5 == 4 ? NULL : a_malloc(some[(n + (size_t)round) % kinds]);
            CHECK(n % 5 == 4 || objects[n] != NULL);
        }
        a_free_bulk(objects, 330);
        struct hak_stats stats = kit_stats(handle);
        CHECK_EQ(stats.large_bytes, 0);
        CHECK_EQ(stats.large_allocs, stats.large_frees);
        before = round == 20 ? stats.free_bytes : before;
        CHECK(round < 20 || stats.free_bytes + 2 * MIB >= before); /* nothing leaks */
    }
}

TEST(bulk_frees_any_mixture_with_nulls)
{
    every_way(256 * MIB, HAK_OFF, bulk_mixture);
}

static void bulk_runs_out(void)
{
    static const size_t some[] = {2048, 10000, 300000};
    for (size_t s = 0; s < sizeof some / sizeof *some; s++) {
        errno = 0;
        size_t got = a_malloc_bulk(some[s], OBJECTS_MAX, objects);
        CHECK_EQ(errno, ENOMEM);
        CHECK(got > 0 && got < OBJECTS_MAX);
        for (size_t n = 0; n < got; n++) {
            check_object(objects[n], some[s]);
        }
        qsort(objects, got, sizeof *objects, by_address);
        for (size_t n = 1; n < got; n++) {
            CHECK((char *)objects[n] - (char *)objects[n - 1] >= (ptrdiff_t)some[s]);
        }
        a_free_bulk(objects, got);
        errno = 0;
        CHECK_EQ(a_malloc_bulk(some[s], got, objects), got); /* all of it is there again */
        CHECK_EQ(errno, 0);
        a_free_bulk(objects, got);
    }
}

TEST(bulk_that_runs_out_says_how_many_it_got)
{
    every_way(16 * MIB, HAK_OFF, bulk_runs_out);
}

/* ---- nodes by name ---- */

static void named_nodes(void)
{
    const int bad[] = {-1, -2, HAK_NODES_MAX, HAK_NODES_MAX + 1, 1000, INT32_MAX, INT32_MIN};
    const struct region *area = &the_region()->area;
    static const size_t some[] = {0, 16, 1000, 100000, 300000, 3 * MIB};
    for (uint32_t n = 0; n < area->segment_count; n++) {
        for (size_t s = 0; s < sizeof some / sizeof *some; s++) {
            void *object = a_on_node(some[s], area->segments[n].node);
            check_object(object, some[s]);
            CHECK((uintptr_t)object >= area->segments[n].base);
            pattern_fill(object, some[s], s);
            a_free(object);
        }
    }
    for (size_t n = 0; n < sizeof bad / sizeof *bad; n++) {
        struct hak_error error;
        errno = 0;
        check_refused(a_on_node(64, bad[n]), EINVAL, HAK_ERROR_ARGUMENT);
        CHECK_EQ(hak_last_error(&error), -EINVAL);
        CHECK_EQ(error.node, bad[n]);
    }
    for (int node = 0; node < HAK_NODES_MAX; node++) {
        bool there = false;
        for (uint32_t n = 0; n < area->segment_count; n++) {
            there |= area->segments[n].node == node;
        }
        if (!there) {
            errno = 0;
            check_refused(a_on_node(64, node), EINVAL, HAK_ERROR_ARGUMENT);
        }
    }
}

TEST(on_node_takes_the_regions_nodes_and_no_others)
{
    every_way(32 * MIB, HAK_OFF, named_nodes);
}

static void full_node(void)
{
    int node = the_region()->area.segments[0].node;
    size_t count = 0;
    errno = 0;
    while ((objects[count] = a_on_node(MIB, node)) != NULL) {
        count++;
    }
    CHECK_EQ(errno, ENOMEM);
    CHECK_EQ(count, 16);
    struct hak_error error;
    CHECK_EQ(hak_last_error(&error), -ENOMEM);
    CHECK_EQ(error.kind, HAK_ERROR_EXHAUSTED);
    CHECK_EQ(error.node, node);
    CHECK_EQ(error.size_bytes, MIB);
    a_free_bulk(objects, count);
}

TEST(on_node_of_a_full_node_fails)
{
    struct hak_config config = kit_config(16 * MIB, HAK_PAGES_4K, HAK_OFF);
    config.nodes = 1; /* node 0 is there on every machine */
    for (way = PLAIN; way < WAYS; way++) {
        handle = NULL;
        kit_open_config(&config);
        handle = way == HANDLE ? kit_create_config(&config) : NULL;
        full_node();
        kit_check(handle);
        kit_close();
    }
}

HARNESS_MAIN()
