/* SPDX-License-Identifier: MIT */
/*
 * Giving memory back beside threads that use it: contents stay, nobody is refused what is there, a
 * purger that stops is not waited for twice, and a child of fork(2) lacks nothing.
 */
#include "tests/giveback_kit.h"

#include <sched.h>

/* ---- others at work ------------------------------------------------------------------------- */

static struct {
    _Atomic bool over;
    _Atomic uint64_t given;
    uint64_t rounds[4];
} crowd;

static void *give_back_always(void *unused)
{
    (void)unused;
    for (unsigned n = 0; !atomic_load(&crowd.over); n++) {
        atomic_fetch_add(&crowd.given, giveback_now(area(), n % 3 * 4 * MIB));
        sched_yield();
    }
    return NULL;
}

static size_t some_size(uint64_t *random)
{
    switch (harness_random(random) % 4) {
    case 0:
        return 1 + harness_random(random) % (12 * MIB);
    case 1:
        return 1 + harness_random(random) % MIB;
    case 2:
        return 1 + harness_random(random) % (200 * KIB);
    default:
        return 1 + harness_random(random) % 2000;
    }
}

#define MARK_BYTES 20000

/* Small objects wholly, of large ones both ends. */
static void mark(unsigned char *object, size_t size)
{
    pattern_fill(object, min_size(size, MARK_BYTES), (uintptr_t)object);
    if (size > 2 * MARK_BYTES) {
        pattern_fill(object + size - MARK_BYTES, MARK_BYTES, (uintptr_t)object + 1);
    }
}

static bool marked(const unsigned char *object, size_t size)
{
    return pattern_holds(object, min_size(size, MARK_BYTES), (uintptr_t)object) &&
           (size <= 2 * MARK_BYTES ||
            pattern_holds(object + size - MARK_BYTES, MARK_BYTES, (uintptr_t)object + 1));
}

static void *use_memory(void *argument)
{
    uint64_t *rounds = argument;
    uint64_t random = harness_seed() + (uint64_t)(rounds - crowd.rounds);
    struct {
        unsigned char *object;
        size_t size;
    } held[12] = {{NULL, 0}};

    while (!atomic_load(&crowd.over)) {
        size_t n = harness_random(&random) % 12;
        unsigned char *old = held[n].object;
        CHECK(old == NULL || marked(old, held[n].size));
        hak_free(old);
        size_t size = some_size(&random);
        bool cleared = harness_random(&random) % 3 == 0;
        unsigned char *object = cleared ? hak_calloc(1, size) : hak_malloc(size);
        CHECK(object != NULL);
        CHECK(!cleared || all_bytes_are(object, size, 0));
        mark(object, size);
        held[n].object = object;
        held[n].size = size;
        (*rounds)++;
    }
    for (size_t n = 0; n < 12; n++) {
        hak_free(held[n].object);
    }
    return NULL;
}

static void run_crowd(void *(*work)(void *), unsigned workers, unsigned milliseconds)
{
    pthread_t threads[5];

    (void)harness_seed(); /* noted before there are several to ask */
    memset(&crowd, 0, sizeof(crowd));
    CHECK_EQ(pthread_create(&threads[workers], NULL, give_back_always, NULL), 0);
    for (unsigned n = 0; n < workers; n++) {
        CHECK_EQ(pthread_create(&threads[n], NULL, work, &crowd.rounds[n]), 0);
    }
    usleep(milliseconds * 1000);
    atomic_store(&crowd.over, true);
    for (unsigned n = 0; n <= workers; n++) {
        (void)kit_join(threads[n]);
    }
}

TEST(threads_keep_their_contents_while_memory_goes_beside_them)
{
    kit_open(GIB, HAK_OFF);
    area()->giveback_tick_ns = 1000000;
    run_crowd(use_memory, 3, harness_stress_seconds(3) * 1000);
    CHECK(atomic_load(&crowd.given) > 0);
    for (unsigned n = 0; n < 3; n++) {
        CHECK_GE(crowd.rounds[n], 10);
    }
    kit_check(NULL);
    (void)giveback_now(area(), 0);
    CHECK_EQ(region_resident(area()), 0);
    CHECK_EQ(kit_stats(NULL).misuses, 0);
    kit_check(NULL);
    kit_close();
}

/* Nearly all of the region, always: whatever a purge holds is in the way. */
static void *want_nearly_all(void *argument)
{
    uint64_t *rounds = argument;

    while (!atomic_load(&crowd.over)) {
        void *object = hak_malloc(60 * MIB);
        CHECK(object != NULL);
        touch(object, 60 * MIB);
        hak_free(object);
        (*rounds)++;
    }
    return NULL;
}

TEST(no_allocation_fails_for_a_purge)
{
    open_still(64 * MIB);
    run_crowd(want_nearly_all, 1, 1500);
    CHECK_GE(crowd.rounds[0], 10);
    CHECK(atomic_load(&crowd.given) > 0);
    kit_check(NULL);
    kit_close();
}

/* ---- a purger that does not come back ------------------------------------------------------- */

/* What a purge does before its madvise, and after it. */
static void purge_begins(struct segment *segment)
{
    atomic_fetch_add(&segment->purges, 1);
    CHECK(units_claim_superslab(segment, 3));
}

static void purge_ends(struct segment *segment)
{
    units_return_superslab(segment, 3);
    atomic_fetch_add(&segment->purges, UINT32_MAX);
}

static void *end_purge_soon(void *segment)
{
    usleep(20000);
    purge_ends(segment);
    return NULL;
}

TEST(a_search_waits_for_a_purge_that_hides_what_it_needs)
{
    struct segment *segment = open_still(64 * MIB)->segments;
    pthread_t thread;

    for (unsigned n = 0; n < 10; n++) {
        purge_begins(segment);
        CHECK_EQ(pthread_create(&thread, NULL, end_purge_soon, segment), 0);
        void *object = hak_malloc(63 * MIB);
        CHECK(object != NULL);
        hak_free(object);
        (void)kit_join(thread);
    }
    kit_check(NULL);
    kit_close();
}

TEST(a_stopped_purger_is_waited_for_once)
{
    struct region *region = open_still(64 * MIB);
    struct segment *segment = segment_0();

    make_dirty_low(20 * MIB);
    purge_begins(segment);
    int64_t start = harness_now_ms();
    CHECK(hak_malloc(63 * MIB) == NULL);
    CHECK_GE(harness_now_ms() - start, 80);
    CHECK_LE(harness_now_ms() - start, 5000);
    start = harness_now_ms();
    for (unsigned n = 0; n < 100; n++) {
        CHECK(hak_malloc(63 * MIB) == NULL);
    }
    CHECK_LE(harness_now_ms() - start, 3000); /* not 10 s and more */
    /* The others have the rest, and give back the rest. */
    make_dirty_low(20 * MIB);
    CHECK_EQ(giveback_now(region, 0), 20 * MIB); /* SuperSlabs 0 to 2 and 4 to 10 */
    purge_ends(segment);
    void *object = hak_malloc(63 * MIB);
    CHECK(object != NULL);
    hak_free(object);
    kit_check(NULL);
    kit_close();
}

TEST(a_purge_does_not_begin_while_a_search_is_in_trouble)
{
    struct region *region = open_still(64 * MIB);

    make_dirty(20 * MIB);
    giveback_hold(segment_0());
    CHECK_EQ(giveback_now(region, 0), 0);
    CHECK_EQ(giveback_calls(region), 0);
    giveback_resume(segment_0());
    CHECK_EQ(giveback_now(region, 0), 20 * MIB);
    kit_close();
}

/* ---- fork ----------------------------------------------------------------------------------- */

static void use_child(void *unused)
{
    (void)unused;
    CHECK(region_check(area()));
    void *object = hak_malloc(63 * MIB);
    CHECK(object != NULL);
    CHECK(resident(object, 63 * MIB) <= 63 * MIB);
    hak_free(object);
    (void)giveback_now(area(), 0);
    CHECK_EQ(region_resident(area()), 0);
}

TEST(a_child_made_beside_purges_lacks_nothing)
{
    static struct harness_result result;
    pthread_t thread;

    open_still(64 * MIB);
    memset(&crowd, 0, sizeof(crowd));
    CHECK_EQ(pthread_create(&thread, NULL, give_back_always, NULL), 0);
    for (unsigned n = 0; n < 40; n++) {
        for (unsigned i = 0; i < 20; i++) {
            make_dirty(24 * MIB);
        }
        harness_child(use_child, NULL, &result);
        if (result.exit_status != 0) {
            FAIL("the child ended with %d, signal %d: %s", result.exit_status, result.signal,
                 result.output);
        }
    }
    atomic_store(&crowd.over, true);
    (void)kit_join(thread);
    kit_check(NULL);
    kit_close();
}

HARNESS_MAIN()
