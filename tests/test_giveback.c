/* SPDX-License-Identifier: MIT */
/*
 * Memory goes back to the kernel where it should, when it should, and nowhere else: what is there
 * is asked of the kernel (mincore), what was done of the region's own counters; time is set, not
 * waited for. Other threads beside it: test_giveback_threads.c.
 */
#include "numa/topology.h"
#include "tests/giveback_kit.h"

#include <sys/syscall.h>

/* Of the policy: what may always lie dirty. */
#define KEEP_BYTES (32 * MIB)

/* ---- it goes back --------------------------------------------------------------------------- */

enum order { FORWARDS, BACKWARDS, SHUFFLED, ORDERS };

struct load {
    size_t size, total;
    enum order order;
    size_t resident_full;
};

/* In a thread of its own, so that at its end no cache holds anything. */
static void *fill_and_free(void *argument)
{
    struct load *load = argument;
    size_t count = load->total / load->size;
    void **objects = malloc(count * sizeof(*objects));
    uint64_t random = harness_seed();

    CHECK(objects != NULL);
    for (size_t n = 0; n < count; n++) {
        objects[n] = get(load->size);
    }
    load->resident_full = region_resident(area());
    for (size_t n = count; load->order == SHUFFLED && n > 1; n--) {
        size_t other = harness_random(&random) % n;
        void *last = objects[n - 1];
        objects[n - 1] = objects[other];
        objects[other] = last;
    }
    for (size_t n = 0; n < count; n++) {
        hak_free(objects[load->order == BACKWARDS ? count - 1 - n : n]);
    }
    free(objects);
    return NULL;
}

static void check_falls(size_t size)
{
    for (enum order order = FORWARDS; order < ORDERS; order++) {
        struct load load = {.size = size, .total = GIB, .order = order};
        struct region *region = open_still(2 * GIB);
        kit_in_thread(fill_and_free, &load);
        CHECK_GE(load.resident_full, GIB - GIB / 64);
        CHECK_LE(region_resident(region), KEEP_BYTES + 4 * MIB);
        CHECK_GE(giveback_bytes(region), GIB - 2 * KEEP_BYTES);
        kit_check(NULL);
        (void)giveback_now(region, 0);
        CHECK_EQ(region_resident(region), 0);
        CHECK_EQ(dirty_bytes(), 0);
        CHECK_GE(giveback_bytes(region), GIB - GIB / 64);
        kit_check(NULL);
        kit_close();
    }
}

TEST(a_gigabyte_of_small_objects_goes_back_in_any_order)
{
    check_falls(1000);
}

TEST(a_gigabyte_of_medium_objects_goes_back_in_any_order)
{
    check_falls(40000);
}

TEST(a_gigabyte_of_large_objects_goes_back_in_any_order)
{
    check_falls(3 * MIB);
}

TEST(one_huge_object_goes_back_with_its_free)
{
    struct region *region = open_still(2 * GIB);

    make_dirty(GIB);
    CHECK_LE(region_resident(region), KEEP_BYTES);
    CHECK_LE(giveback_calls(region), GIB / (32 * MIB));
    kit_check(NULL);
    kit_close();
}

TEST(a_quarter_of_what_is_used_may_stay)
{
    struct region *region = open_still(2 * GIB);
    void *used = get(400 * MIB);

    make_dirty(90 * MIB);
    CHECK_EQ(giveback_calls(region), 0);
    CHECK_EQ(dirty_bytes(), 90 * MIB);
    make_dirty(120 * MIB);
    CHECK(giveback_calls(region) > 0);
    CHECK_LE(dirty_bytes(), 100 * MIB);
    hak_free(used);
    make_dirty(300 * KIB);
    CHECK_LE(dirty_bytes(), KEEP_BYTES);
    kit_check(NULL);
    kit_close();
}

TEST(all_but_what_is_to_be_kept_goes_now)
{
    struct region *region = open_still(256 * MIB);

    make_dirty_low(24 * MIB);
    CHECK_EQ(giveback_now(region, 32 * MIB), 0);
    CHECK_EQ(giveback_now(region, 10 * MIB), 14 * MIB);
    CHECK_EQ(region_resident(region), 10 * MIB);
    /* The highest addresses went. */
    CHECK_EQ(resident((void *)region->base, 10 * MIB), 10 * MIB);
    CHECK_EQ(giveback_now(region, 0), 10 * MIB);
    CHECK_EQ(giveback_now(region, 0), 0);
    CHECK_EQ(giveback_bytes(region), 24 * MIB);
    /* A SuperSlab of which little was used counts as that. */
    hak_free(get(300 * KIB));
    CHECK_EQ(giveback_now(region, 0), 5 * UNIT_BYTES);
    CHECK_EQ(region_resident(region), 0);
    kit_close();
}

TEST(every_segment_gives_back)
{
    static struct region region;
    struct settings settings = {.size_bytes = 256 * MIB, .pages_count = 1, .pages = {HAK_PAGES_4K}};
    struct hak_error error;

    topology_fake(2);
    CHECK_EQ(region_create(&region, &settings, &error), 0);
    CHECK_EQ(region.segment_count, 2);
    for (unsigned n = 0; n < 2; n++) {
        unit_t unit = units_acquire(&region, &region.segments[n], 256, UNIT_BYTES, NULL);
        CHECK(unit != UNIT_NONE);
        touch(region_address(&region, unit), 256 * UNIT_BYTES);
        units_release(&region, unit, 256);
    }
    size_t given = giveback_now(&region, 16 * MIB);
    size_t left = region_resident(&region);
    size_t dirty[2] = {atomic_load(&region.segments[0].dirty_count),
                       atomic_load(&region.segments[1].dirty_count)};
    bool whole = region_check(&region);
    /* The other cases want the machine as it is, whatever this one's end is. */
    region_destroy(&region);
    topology_fake(0);
    CHECK_EQ(given, 16 * MIB);
    CHECK_EQ(left, 16 * MIB);
    CHECK_EQ(dirty[0], 4);
    CHECK_EQ(dirty[1], 4);
    CHECK(whole);
}

/* ---- it stays ------------------------------------------------------------------------------- */

TEST(a_steady_pattern_of_large_objects_makes_no_call)
{
    struct region *region;
    uint64_t random = harness_seed();

    kit_open(512 * MIB, HAK_OFF);
    region = area();
    void *used = get(40 * MIB);
    for (unsigned n = 0; n < 300; n++) {
        make_dirty(5 * MIB + harness_random(&random) % (20 * MIB));
        make_dirty(300 * KIB);
    }
    CHECK_EQ(giveback_calls(region), 0);
    hak_free(used);
    kit_check(NULL);
    kit_close();
}

TEST(memory_that_is_always_taken_again_stops_going)
{
    struct region *region = open_still(2 * GIB);
    uint64_t calls = 0;

    for (unsigned n = 0; n < 12; n++) {
        calls = n == 4 ? giveback_calls(region) : calls;
        make_dirty(200 * MIB);
    }
    CHECK(calls > 0);
    CHECK_EQ(giveback_calls(region), calls);
    /* And with time it is forgotten. */
    for (unsigned n = 0; n < 60; n++) {
        pass_time();
        hak_free(hak_malloc(300 * KIB));
    }
    CHECK(giveback_calls(region) > calls);
    CHECK_EQ(atomic_load(&segment_0()->giveback.slack), 0);
    CHECK_LE(region_resident(region), 2 * MIB);
    kit_check(NULL);
    kit_close();
}

TEST(a_region_that_was_faulted_in_keeps_everything)
{
    kit_open(128 * MIB, HAK_ON);
    struct region *region = area();

    region->giveback_tick_ns = 0;
    for (unsigned n = 0; n < 3; n++) {
        make_dirty(100 * MIB);
        pass_time();
    }
    CHECK_EQ(giveback_now(region, 0), 0);
    CHECK_EQ(giveback_calls(region), 0);
    CHECK_EQ(dirty_bytes(), 0);
    CHECK_EQ(region_resident(region), region->bytes);
    kit_check(NULL);
    kit_close();
}

TEST(adopted_memory_stays_the_callers)
{
    size_t bytes = 128 * MIB;
    char *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    hak_region *region = NULL;

    CHECK(memory != MAP_FAILED);
    CHECK_EQ(hak_region_adopt(memory, bytes, -1, NULL, &region, NULL), 0);
    kit_keep(region);
    region->area.giveback_tick_ns = 0;
    for (unsigned n = 0; n < 3; n++) {
        void *object = hak_region_malloc(region, 100 * MIB);
        CHECK(object != NULL);
        touch(object, 100 * MIB);
        hak_region_free(region, object);
    }
    CHECK_EQ(giveback_now(&region->area, 0), 0);
    CHECK_EQ(giveback_calls(&region->area), 0);
    CHECK_GE(resident(memory, bytes), 100 * MIB);
    kit_check(region);
    kit_destroy(region);
    CHECK_EQ(munmap(memory, bytes), 0);
}

TEST(nothing_goes_while_memory_is_scarce)
{
    struct region *region = open_still(64 * MIB);
    void *most = get(58 * MIB);
    void *some = get(2 * MIB);

    hak_free(some); /* 6 MiB are free, of them 2 dirty */
    CHECK_EQ(dirty_bytes(), 2 * MIB);
    CHECK_EQ(giveback_now(region, 0), 0);
    pass_time();
    hak_free(get(2 * MIB));
    pass_time();
    hak_free(get(2 * MIB));
    CHECK_EQ(giveback_calls(region), 0);
    hak_free(most);
    CHECK(giveback_calls(region) > 0);
    CHECK(giveback_now(region, 0) > 0);
    CHECK_EQ(region_resident(region), 0);
    kit_check(NULL);
    kit_close();
}

TEST(parts_of_superslabs_go_when_asked_and_read_as_zeroes)
{
    struct region *region = open_still(256 * MIB);
    static char *objects[400];
    size_t left = 0;

    for (size_t n = 0; n < 400; n++) {
        objects[n] = get(300 * KIB);
    }
    for (size_t n = 0; n < 400; n++) {
        if (n % 6 == 0) {
            left += hak_usable_size(objects[n]);
            memset(objects[n], 5, 300 * KIB);
        } else {
            hak_free(objects[n]);
        }
    }
    (void)giveback_now(region, 0);
    CHECK_GE(region_resident(region), 2 * left); /* whole SuperSlabs are few */
    CHECK(giveback_parts(region) > 0);
    CHECK_LE(region_resident(region), left);
    CHECK_EQ(giveback_parts(region), 0);
    for (size_t n = 0; n < 400; n += 6) {
        CHECK(objects[n][0] == 5 && objects[n][300 * KIB - 1] == 5);
    }
    char *zeroed = hak_calloc(1, 320 * KIB);
    CHECK(zeroed != NULL && zeroed[0] == 0 && zeroed[320 * KIB - 1] == 0);
    hak_free(zeroed);
    for (size_t n = 0; n < 400; n += 6) {
        hak_free(objects[n]);
    }
    kit_check(NULL);
    kit_close();
}

/* ---- what is idle goes with time ------------------------------------------------------------ */

TEST(half_of_what_lies_idle_goes_a_tick_and_the_rest_at_once_when_it_is_little)
{
    struct region *region = open_still(256 * MIB);
    size_t expected = 10;

    make_dirty(26 * MIB);
    hak_free(hak_malloc(300 * KIB)); /* a step: time begins here */
    for (unsigned n = 0; n < 100; n++) {
        hak_free(hak_malloc(300 * KIB));
    }
    CHECK_EQ(giveback_calls(region), 0);
    CHECK_EQ(dirty_bytes(), 28 * MIB);
    /* The lowest SuperSlab is taken for a moment, so 13 are idle; then half of what is left. */
    static const size_t left[] = {8, 5, 1, 0};
    for (unsigned n = 0; n < 3; n++) {
        pass_time();
        hak_free(hak_malloc(300 * KIB));
        expected = left[n];
        CHECK_EQ(dirty_bytes(), expected * SUPERSLAB_BYTES);
    }
    CHECK_EQ(giveback_bytes(region), 26 * MIB);
    kit_check(NULL);
    kit_close();
}

TEST(what_is_taken_again_within_a_tick_stays)
{
    struct region *region = open_still(256 * MIB);

    for (unsigned n = 0; n < 100; n++) {
        make_dirty(24 * MIB);
        pass_time();
    }
    CHECK_EQ(giveback_calls(region), 0);
    kit_close();
}

TEST(the_clock_is_a_real_one)
{
    kit_open(256 * MIB, HAK_OFF);
    struct region *region = area();

    region->giveback_tick_ns = 20000000;
    make_dirty(24 * MIB);
    for (int64_t end = harness_now_ms() + 10000;
         giveback_calls(region) == 0 && harness_now_ms() < end;) {
        usleep(25000);
        hak_free(hak_malloc(300 * KIB));
    }
    CHECK(giveback_calls(region) > 0);
    kit_close();
}

/* ---- what is read afterwards ---------------------------------------------------------------- */

TEST(memory_that_went_reads_as_zero_and_is_not_cleared_again)
{
    struct region *region = open_still(512 * MIB);
    unsigned char *object = hak_malloc(100 * MIB);

    CHECK(object != NULL);
    memset(object, 0xa5, 100 * MIB);
    hak_free(object);
    (void)giveback_now(region, 0);
    object = hak_calloc(1, 60 * MIB);
    CHECK_EQ(resident(object, 60 * MIB), 0);
    CHECK(all_bytes_are(object, 60 * MIB, 0));
    memset(object, 0xa5, 60 * MIB);
    hak_free(object);
    /* Some of it went, some is as it was left: all is zero where that was asked for. */
    (void)giveback_now(region, 10 * MIB);
    CHECK_EQ(dirty_bytes(), 10 * MIB);
    object = hak_calloc(1, 60 * MIB);
    CHECK(all_bytes_are(object, 60 * MIB, 0));
    memset(object, 0xa5, 60 * MIB);
    hak_free(object);
    for (unsigned n = 0; n < 40; n++) {
        object = hak_calloc(1, (n + 1) * 700 * KIB);
        CHECK(all_bytes_are(object, (n + 1) * 700 * KIB, 0));
        memset(object, 0xa5, (n + 1) * 700 * KIB);
        hak_free(object);
        (void)giveback_now(region, n % 5 * 4 * MIB);
    }
    kit_check(NULL);
    kit_close();
}

/* ---- the kernel refuses --------------------------------------------------------------------- */

/* Not mlock(): sanitizers make that do nothing. */
static void lock(void *start, size_t bytes)
{
    if (syscall(SYS_mlock, start, bytes) != 0) {
        SKIP("memory cannot be locked here: %s", strerror(errno));
    }
}

TEST(a_locked_page_stays_and_the_rest_goes)
{
    struct region *region = open_still(256 * MIB);
    char *object = get(24 * MIB);

    lock(object + 9 * MIB, 4096);
    errno = 4711;
    hak_free(object);
    CHECK_EQ(giveback_now(region, 0), 22 * MIB);
    CHECK_EQ(errno, 4711);
    /* What stands before the page may be gone: the kernel goes through a range in order. */
    CHECK_LE(region_resident(region), 2 * MIB);
    CHECK_GE(region_resident(region), 4096);
    CHECK_EQ(dirty_bytes(), 2 * MIB);
    CHECK_EQ(syscall(SYS_munlock, object + 9 * MIB, 4096), 0);
    CHECK_EQ(giveback_now(region, 0), 2 * MIB);
    kit_check(NULL);
    kit_close();
}

TEST(where_all_is_locked_it_asks_once_a_second_and_goes_on_when_it_is_not)
{
    struct region *region = open_still(256 * MIB);
    char *object = get(200 * MIB);

    lock((void *)region->base, region->bytes);
    errno = 4711;
    hak_free(object);
    CHECK_EQ(errno, 4711);
    for (unsigned n = 0; n < 50; n++) {
        make_dirty(100 * MIB);
        CHECK_EQ(giveback_now(region, 0), 0);
    }
    CHECK_LE(giveback_calls(region), 200);
    CHECK_EQ(giveback_bytes(region), 0);
    CHECK_EQ(syscall(SYS_munlock, region->base, region->bytes), 0);
    size_t gone = 0;
    for (unsigned n = 0; n < 40 && gone == 0; n++) {
        usleep(100000);
        gone = giveback_now(region, 0);
    }
    CHECK_GE(gone, 100 * MIB);
    CHECK_EQ(dirty_bytes(), 0);
    kit_check(NULL);
    kit_close();
}

TEST(a_page_that_stays_locked_does_not_keep_what_comes_after_it)
{
    struct region *region = open_still(256 * MIB);
    char *object = get(4 * MIB);

    lock(object, 4096);
    hak_free(object);
    for (unsigned n = 0; n < 20; n++) {
        giveback_now(region, 0);
    }
    usleep(1100000);
    make_dirty(100 * MIB);
    giveback_now(region, 0);
    CHECK_LE(region_resident(region), 4 * MIB);
    CHECK_EQ(syscall(SYS_munlock, object, 4096), 0);
    kit_check(NULL);
    kit_close();
}

HARNESS_MAIN()
