/* SPDX-License-Identifier: MIT */
/*
 * The warm pool: filled to its capacity in one go, asked before the shared pool, left for good by a
 * SuperSlab that has nothing more; its capacity, its switch and its figures.
 *
 * The other layers are switched off, so each allocation of the class asks the warm pool once.
 */
#include "alloc/warmpool.h"

#include "alloc/sharedpool.h"
#include "tests/heap_kit.h"

#define CLASS_64 20 /* 1,024 bytes, 64 to a slab of one unit */
#define SUPERSLABS 32
#define OBJECTS (SUPERSLABS * SUPERSLAB_UNITS * 64)

/* Every object of a region that is full of them, in the order of addresses. */
static void *objects[OBJECTS];
static bool out[OBJECTS];

static size_t index_of(const void *object)
{
    return ((uintptr_t)object - hak_region_default()->area.base) / 1024;
}

static void fill_region(void)
{
    for (size_t n = 0; n < OBJECTS; n++) {
        void *object = hak_malloc(1024);
        CHECK(object != NULL);
        objects[index_of(object)] = object;
        out[index_of(object)] = true;
    }
    CHECK(hak_malloc(1024) == NULL);
}

static void *put_back(void *object)
{
    hak_free(object);
    return NULL;
}

static void *taken_out(size_t superslab, size_t number)
{
    size_t index = superslab * SUPERSLAB_UNITS * 64 + number;

    CHECK(out[index]);
    out[index] = false;
    return objects[index];
}

/* Somebody else puts the object with a number in a SuperSlab back to its slab: this thread does not
 * know of it. */
static void make_room(size_t superslab, size_t number)
{
    kit_elsewhere(put_back, taken_out(superslab, number));
}

static void make_room_here(size_t superslab, size_t number)
{
    (void)put_back(taken_out(superslab, number));
}

/* The object comes from the SuperSlab. */
static void expect_from(size_t superslab)
{
    void *object = hak_malloc(1024);

    CHECK(object != NULL);
    CHECK_EQ(kit_unit(object) / SUPERSLAB_UNITS, superslab);
    CHECK(!out[index_of(object)]);
    out[index_of(object)] = true;
}

static void empty_region(void)
{
    for (size_t n = 0; n < OBJECTS; n++) {
        if (out[n]) {
            hak_free(objects[n]);
        }
    }
}

static struct hak_class_stats before;

static void note_counts(void)
{
    before = kit_class(CLASS_64);
}

static void check_counts(uint64_t hits, uint64_t misses, uint64_t prefilled)
{
    struct hak_class_stats now = kit_class(CLASS_64);

    CHECK_EQ(now.warm_hits - before.warm_hits, hits);
    CHECK_EQ(now.warm_misses - before.warm_misses, misses);
    CHECK_EQ(now.warm_prefilled - before.warm_prefilled, prefilled);
}

static void open_full(const char *variable, const char *value)
{
    setenv("HAKMEM_LAYERS", "warmpool", 1);
    if (variable != NULL) {
        kit_open_with(SUPERSLABS * SUPERSLAB_BYTES, variable, value);
    } else {
        kit_open(SUPERSLABS * SUPERSLAB_BYTES);
    }
    unsetenv("HAKMEM_LAYERS");
    fill_region();
    note_counts();
}

static void close_full(void)
{
    empty_region();
    kit_close();
}

TEST(an_empty_pool_is_filled_to_its_capacity_in_one_go)
{
    open_full(NULL, NULL);
    for (size_t s = 0; s < 20; s++) {
        make_room(s, 7);
    }
    expect_from(0);
    check_counts(0, 1, 12);
    for (size_t s = 1; s < 12; s++) {
        expect_from(s);
    }
    check_counts(11, 1, 12);
    expect_from(12); /* all twelve are exhausted: the next go brings the eight that are left */
    check_counts(11, 2, 20);
    for (size_t s = 13; s < 20; s++) {
        expect_from(s);
    }
    check_counts(18, 2, 20);
    CHECK(hak_malloc(1024) == NULL);
    CHECK_EQ(kit_class(CLASS_64).warm_prefilled - before.warm_prefilled, 20);
    close_full();
}

TEST(a_superslab_is_used_up_before_the_next_is_asked)
{
    open_full(NULL, NULL);
    for (size_t number = 0; number < 5; number++) {
        make_room(3, number * 64 + 1); /* five slabs of it */
        make_room(9, number * 64 + 2);
    }
    for (unsigned n = 0; n < 5; n++) {
        expect_from(3);
    }
    for (unsigned n = 0; n < 5; n++) {
        expect_from(9);
    }
    check_counts(9, 1, 2);
    close_full();
}

TEST(an_exhausted_superslab_does_not_come_back_by_itself)
{
    open_full(NULL, NULL);
    make_room(0, 1);
    make_room(5, 1);
    make_room(6, 1);
    expect_from(0);
    expect_from(5); /* SuperSlab 0 was asked, had nothing, and left */
    check_counts(1, 1, 3);
    make_room(0, 2);
    expect_from(6); /* lower addresses have room again, but the pool knows its own first */
    check_counts(2, 1, 3);
    expect_from(0); /* only the next prefill finds it */
    check_counts(2, 2, 4);
    close_full();
}

TEST(a_superslab_that_the_thread_itself_gave_room_is_known_without_a_search)
{
    open_full(NULL, NULL);
    make_room(2, 1); /* lower, but nobody told */
    make_room_here(9, 1);
    make_room_here(9, 65);
    expect_from(9);
    expect_from(9);
    check_counts(2, 0, 0);
    make_room_here(9, 129); /* exhausted, and back with new room in it */
    expect_from(9);
    check_counts(3, 0, 0);
    expect_from(2);
    check_counts(3, 1, 1);
    for (size_t s = 0; s < SUPERSLABS; s++) {
        make_room_here(s, 5); /* more than the pool can know */
    }
    for (size_t s = 0; s < SUPERSLABS; s++) {
        void *object = hak_malloc(1024);
        CHECK(object != NULL && !out[index_of(object)]);
        out[index_of(object)] = true;
    }
    check_counts(3 + 12 + 18, 3, 1 + 20);
    close_full();
}

TEST(room_that_others_took_is_passed_over)
{
    open_full(NULL, NULL);
    struct thread *thread = thread_current(hak_region_default());
    for (size_t s = 0; s < 4; s++) {
        make_room(s, 1);
    }
    expect_from(0);
    /* Another way than through the warm pool to the slabs of SuperSlabs 1 and 2. */
    unit_t taken[2];
    for (unsigned n = 0; n < 2; n++) {
        taken[n] = sharedpool_acquire_partial(thread->pool, CLASS_64);
        CHECK_EQ(taken[n] / SUPERSLAB_UNITS, n + 1);
    }
    expect_from(3);
    check_counts(1, 1, 4);
    for (unsigned n = 0; n < 2; n++) {
        sharedpool_give_up(thread, taken[n]);
    }
    close_full();
}

TEST(the_capacity_is_what_the_environment_says)
{
    static const char *const values[] = {"1", "3", "12"};
    static const unsigned capacity[] = {1, 3, 12};

    for (unsigned n = 0; n < 3; n++) {
        open_full("HAKMEM_WARM_POOL", values[n]);
        for (size_t s = 0; s < 16; s++) {
            make_room(s, 3);
        }
        expect_from(0);
        check_counts(0, 1, capacity[n]);
        for (size_t s = 1; s < 16; s++) {
            expect_from(s);
        }
        check_counts(16 - (16 + capacity[n] - 1) / capacity[n],
                     (16 + capacity[n] - 1) / capacity[n], 16);
        close_full();
    }
}

TEST(what_the_thread_itself_gave_counts_into_the_capacity)
{
    open_full("HAKMEM_WARM_POOL", "1");
    make_room_here(3, 1);
    make_room_here(9, 1);
    expect_from(3);
    check_counts(1, 0, 0);
    expect_from(9);
    check_counts(1, 1, 1);
    close_full();
}

TEST(without_the_layer_the_shared_pool_is_asked_at_once)
{
    open_full("HAKMEM_LAYERS", "");
    make_room(3, 1);
    expect_from(3);
    CHECK_GE(kit_stats().warm_hits + kit_stats().warm_misses, 1); /* set to nothing: as not set */
    close_full();
    kit_open_with(SUPERSLABS * SUPERSLAB_BYTES, "HAKMEM_LAYERS", "cache,pagebox");
    for (size_t n = 0; n < 2; n++) {
        fill_region();
        empty_region();
    }
    CHECK_EQ(kit_stats().warm_hits, 0);
    CHECK_EQ(kit_stats().warm_misses, 0);
    CHECK_EQ(kit_stats().warm_prefilled, 0);
    void *object = hak_malloc(1024);
    CHECK(object != NULL);
    thread_detach_all(); /* its slab becomes PARTIAL */
    hak_free(hak_malloc(1024));
    CHECK_GE(kit_stats().pool_partial, 1);
    hak_free(object);
    kit_close();
}

/* ---- in a child: what is said on standard error ---------------------------------------------- */

static void open_with_capacity(void *value)
{
    open_full("HAKMEM_WARM_POOL", value);
    for (size_t s = 0; s < 16; s++) {
        make_room(s, 3);
    }
    expect_from(0);
    printf("prefilled %llu\n",
           (unsigned long long)(kit_class(CLASS_64).warm_prefilled - before.warm_prefilled));
}

TEST(a_capacity_out_of_range_is_clamped_with_a_warning)
{
    static const struct {
        char value[4];
        const char *prefilled;
    } cases[] = {{"99", "prefilled 12\n"}, {"13", "prefilled 12\n"}, {"0", "prefilled 1\n"}};
    static struct harness_result result;

    for (unsigned n = 0; n < 3; n++) {
        harness_child(open_with_capacity, (void *)(uintptr_t)cases[n].value, &result);
        CHECK_EQ(result.exit_status, 0);
        CHECK_STR_HAS(result.output, "HAKMEM_WARM_POOL");
        CHECK_STR_HAS(result.output, cases[n].value);
        CHECK_STR_HAS(result.output, cases[n].prefilled);
    }
    harness_child(open_with_capacity, "12", &result);
    CHECK_EQ(result.exit_status, 0);
    CHECK(strstr(result.output, "HAKMEM_WARM_POOL") == NULL);
}

/* Hits and misses that it can say itself; then an ordinary exit. */
static void work_and_exit(void *switch_value)
{
    open_full("HAKMEM_WARM_POOL_STATS", switch_value);
    for (size_t s = 0; s < 10; s++) {
        make_room(s, 3);
    }
    for (size_t s = 0; s < 10; s++) {
        expect_from(s);
    }
    struct hak_class_stats now = kit_class(CLASS_64);
    printf("expected: %llu %llu %llu\n", (unsigned long long)now.warm_hits,
           (unsigned long long)now.warm_misses, (unsigned long long)now.warm_prefilled);
    exit(0);
}

TEST(the_figures_are_printed_at_exit_where_asked_for)
{
    static struct harness_result result;
    unsigned long long expected[3], printed[3], fresh;
    unsigned cls;
    size_t bytes;
    double rate;

    harness_child(work_and_exit, "1", &result);
    CHECK_EQ(result.exit_status, 0);
    const char *line = strstr(result.output, "expected: ");
    CHECK(line != NULL);
    CHECK_EQ(sscanf(line, "expected: %llu %llu %llu", &expected[0], &expected[1], &expected[2]), 3);
    CHECK_STR_HAS(result.output, "hit rate");
    line = strstr(result.output, "hit rate");
    line = strchr(line, '\n');
    CHECK(line != NULL);
    CHECK_EQ(sscanf(line + 1, "hakmem: warm pool %u %zu %llu %llu %llu %llu %lf", &cls, &bytes,
                    &printed[0], &printed[1], &printed[2], &fresh, &rate),
             7);
    CHECK_GE(fresh, 1);
    CHECK_EQ(cls, CLASS_64);
    CHECK_EQ(bytes, 1024);
    for (unsigned n = 0; n < 3; n++) {
        CHECK_EQ(printed[n], expected[n]);
    }
    double exact = 100.0 * (double)expected[0] / (double)(expected[0] + expected[1]);
    CHECK(rate > exact - 0.1 && rate < exact + 0.1);
    CHECK(expected[0] >= 9);

    harness_child(work_and_exit, "0", &result);
    CHECK_EQ(result.exit_status, 0);
    CHECK(strstr(result.output, "hit rate") == NULL);
}

HARNESS_MAIN()
