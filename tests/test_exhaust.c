/* SPDX-License-Identifier: MIT */
/*
 * Running out: what the caller hears, each rung of the ladder at work alone, and that all memory is
 * usable afterwards.
 */
#include "tests/region_kit.h"

#define REGION_BYTES (16 * MIB)
#define HELD_MOST (REGION_BYTES / 16 + 1)

static void *held[HELD_MOST];

static size_t fill_region(size_t size)
{
    size_t count = 0;
    while (count < HELD_MOST && (held[count] = hak_malloc(size)) != NULL) {
        count++;
    }
    CHECK(count < HELD_MOST);
    return count;
}

static struct hak_error the_error(void)
{
    struct hak_error error;
    CHECK_EQ(hak_last_error(&error), -ENOMEM);
    CHECK_EQ(error.kind, HAK_ERROR_EXHAUSTED);
    CHECK_EQ(error.code, -ENOMEM);
    CHECK(error.message[0] != '\0');
    return error;
}

/* ---- the record ------------------------------------------------------------------------------ */

/* The object of some MiB's fill that lies so many MiB into the region. */
static void free_at(size_t mib)
{
    hak_free((char *)hak_region_default()->area.base + mib * MIB);
}

TEST(the_record_of_a_large_object_says_what_is_left)
{
    char number[32];
    kit_open(REGION_BYTES, HAK_OFF);
    int node = hak_region_default()->area.segments[0].node;
    errno = 0;
    CHECK_EQ(fill_region(MIB), 16);
    CHECK_EQ(errno, ENOMEM);
    struct hak_error error = the_error();
    CHECK_EQ(error.size_bytes, MIB);
    CHECK_EQ(error.size_class, 0);
    CHECK_EQ(error.alignment, 0);
    CHECK_EQ(error.node, node);
    CHECK_EQ(error.free_bytes, 0);
    CHECK_EQ(error.largest_free_bytes, 0);
    CHECK(error.pointer == NULL);
    free_at(2); /* a hole of 2 MiB ... */
    free_at(3);
    free_at(6); /* ... and two of 1 MiB */
    free_at(11);
    CHECK(hak_aligned_alloc(4096, 3 * MIB + 5) == NULL);
    error = the_error();
    CHECK_EQ(error.size_bytes, 3 * MIB + 5);
    CHECK_EQ(error.alignment, 4096);
    CHECK_EQ(error.free_bytes, 4 * MIB);
    CHECK_EQ(error.largest_free_bytes, 2 * MIB);
    snprintf(number, sizeof number, "%zu", 3 * MIB + 5);
    CHECK_STR_HAS(error.message, number);
    snprintf(number, sizeof number, "%zu", 2 * MIB);
    CHECK_STR_HAS(error.message, number);
    CHECK(hak_malloc(2 * MIB) != NULL); /* what it said would succeed does */
    CHECK_EQ(kit_stats(NULL).exhausted, 2);
    kit_check(NULL);
    kit_close();
}

TEST(the_record_of_a_small_object_says_its_class)
{
    kit_open(REGION_BYTES, HAK_OFF);
    errno = 0;
    size_t count = fill_region(100);
    CHECK_EQ(errno, ENOMEM);
    CHECK_GE(count * 112, REGION_BYTES / 100 * 97);
    struct hak_error error = the_error();
    struct hak_class_stats cls;
    CHECK_EQ(error.size_bytes, 100);
    CHECK_EQ(hak_region_class_stats(NULL, error.size_class, &cls), 0);
    CHECK_EQ(cls.object_bytes, 112);
    CHECK_EQ(error.free_bytes, 0);
    CHECK_EQ(error.largest_free_bytes, 0);
    struct hak_stats stats = kit_stats(NULL);
    CHECK_EQ(error.stranded_bytes, 0); /* this thread's caches went back, and it is the only one */
    CHECK_EQ(stats.exhausted, 1);
    kit_close();
}

TEST(the_record_of_an_aligned_small_object_says_its_alignment)
{
    kit_open(REGION_BYTES, HAK_OFF);
    while (hak_aligned_alloc(4096, 5000) != NULL) {
    }
    struct hak_error error = the_error();
    CHECK_EQ(error.size_bytes, 5000);
    CHECK_EQ(error.alignment, 4096);
    kit_close();
}

static void *last_error_elsewhere(void *out)
{
    (void)hak_last_error(out);
    return NULL;
}

TEST(the_record_is_the_failing_threads_own)
{
    struct hak_error elsewhere;
    kit_open(REGION_BYTES, HAK_OFF);
    CHECK(hak_malloc(REGION_BYTES + 1) == NULL);
    CHECK_EQ(the_error().size_bytes, REGION_BYTES + 1);
    kit_in_thread(last_error_elsewhere, &elsewhere);
    CHECK(elsewhere.size_bytes != REGION_BYTES + 1);
    kit_close();
}

TEST(the_record_outlives_idling)
{
    kit_open(REGION_BYTES, HAK_OFF);
    CHECK(hak_malloc(REGION_BYTES + 1) == NULL);
    hak_thread_idle();
    CHECK_EQ(the_error().size_bytes, REGION_BYTES + 1);
    kit_close();
}

/* ---- the rungs ------------------------------------------------------------------------------- */

TEST(own_caches_go_back_first)
{
    kit_open(REGION_BYTES, HAK_OFF);
    size_t count = fill_region(64);
    hak_free_bulk(held, count);
    struct hak_stats stats = kit_stats(NULL);
    CHECK(stats.free_bytes < REGION_BYTES);  /* the caches hold some units' objects ... */
    CHECK(hak_malloc(REGION_BYTES) != NULL); /* ... and give them up for this */
    CHECK_EQ(kit_stats(NULL).exhausted, stats.exhausted);
    kit_check(NULL);
    kit_close();
}

static pthread_barrier_t turn;

/* Has objects in its caches, and goes through its turns while the main thread wants them. */
static void *hoarder(void *argument)
{
    bool idle_at_first = *(const bool *)argument;
    void *some[64];
    CHECK_EQ(hak_malloc_bulk(1000, 64, some), 64);
    hak_free_bulk(some, 64);
    if (idle_at_first) {
        hak_thread_idle();
    }
    pthread_barrier_wait(&turn); /* 1: the main thread tries */
    pthread_barrier_wait(&turn); /* 2: ours */
    if (!idle_at_first) {
        /* Slow steps answer whoever asked meanwhile, each with a few classes. */
        for (unsigned n = 0; n < 20; n++) {
            hak_free(hak_malloc(300 * KIB));
        }
    }
    pthread_barrier_wait(&turn);                   /* 3: the main thread tries again */
    pthread_barrier_wait(&turn);                   /* 4 */
    CHECK_EQ(hak_malloc_bulk(1000, 64, some), 64); /* and ours are still in order */
    hak_free_bulk(some, 64);
    return NULL;
}

static void against_hoarder(bool idle_at_first)
{
    pthread_t thread;
    kit_open(REGION_BYTES, HAK_OFF);
    CHECK_EQ(pthread_barrier_init(&turn, NULL, 2), 0);
    CHECK_EQ(pthread_create(&thread, NULL, hoarder, &idle_at_first), 0);
    pthread_barrier_wait(&turn);
    struct hak_stats stats = kit_stats(NULL);
    bool hoarded = stats.free_bytes < REGION_BYTES && stats.cached_bytes_max > 0;
    void *first = hak_malloc(REGION_BYTES);
    size_t stranded = first == NULL ? the_error().stranded_bytes : 0;
    hak_free(first);
    pthread_barrier_wait(&turn);
    pthread_barrier_wait(&turn);
    void *second = hak_malloc(REGION_BYTES);
    hak_free(second);
    pthread_barrier_wait(&turn);
    (void)kit_join(thread);
    pthread_barrier_destroy(&turn);
    CHECK(hoarded);
    CHECK_EQ(first != NULL, idle_at_first); /* idle: taken at once; at work: only asked */
    CHECK(first != NULL || stranded > 0);
    CHECK(second != NULL);
    CHECK_EQ(kit_stats(NULL).misuses, 0);
    kit_check(NULL);
    kit_close();
}

TEST(idle_threads_caches_are_taken)
{
    against_hoarder(true);
}

TEST(threads_at_work_are_asked_and_answer_on_their_next_slow_steps)
{
    against_hoarder(false);
}

/* ---- the reclaimer --------------------------------------------------------------------------- */

static struct {
    unsigned calls, depth, deepest;
    size_t size_bytes;
    hak_region *region;
    pthread_t thread;
    void *spare; /* what it frees */
    bool allocates;
    void *got;
    int error_number;
} reclaimer;

static void reclaim(hak_region *region, size_t size_bytes, void *argument)
{
    CHECK(argument == &reclaimer);
    reclaimer.calls++;
    reclaimer.depth++;
    reclaimer.deepest = reclaimer.depth > reclaimer.deepest ? reclaimer.depth : reclaimer.deepest;
    reclaimer.region = region;
    reclaimer.size_bytes = size_bytes;
    reclaimer.thread = pthread_self();
    if (reclaimer.allocates) {
        errno = 0;
        reclaimer.got = hak_region_malloc(region, size_bytes);
        reclaimer.error_number = errno;
    }
    hak_region_free(region, reclaimer.spare);
    reclaimer.spare = NULL;
    reclaimer.depth--;
}

static void open_with_reclaimer(void)
{
    kit_open(REGION_BYTES, HAK_OFF);
    memset(&reclaimer, 0, sizeof reclaimer);
    CHECK_EQ(hak_on_exhausted(NULL, reclaim, &reclaimer), 0);
}

TEST(the_reclaimer_frees_and_the_allocation_succeeds)
{
    open_with_reclaimer();
    CHECK_EQ(fill_region(MIB), 16);
    CHECK_EQ(reclaimer.calls, 1); /* once for the one that failed, and for no other */
    CHECK_EQ(reclaimer.size_bytes, MIB);
    CHECK(reclaimer.region == hak_region_default());
    CHECK(pthread_equal(reclaimer.thread, pthread_self()));
    reclaimer.spare = held[5];
    held[5] = hak_malloc(MIB);
    CHECK(held[5] != NULL);
    CHECK_EQ(reclaimer.calls, 2);
    reclaimer.spare = held[7]; /* a small object out of a large one's room */
    held[7] = hak_malloc(100);
    CHECK(held[7] != NULL);
    CHECK_EQ(reclaimer.calls, 3);
    CHECK_EQ(kit_stats(NULL).exhausted, 1);
    CHECK_EQ(hak_on_exhausted(NULL, NULL, NULL), 0); /* taken back */
    CHECK(hak_malloc(2 * MIB) == NULL);
    CHECK_EQ(reclaimer.calls, 3);
    kit_check(NULL);
    kit_close();
}

TEST(small_objects_come_from_what_the_reclaimer_frees)
{
    open_with_reclaimer();
    size_t count = fill_region(4096);
    CHECK_EQ(reclaimer.calls, 1);
    reclaimer.spare = held[count / 2];
    void *object = hak_malloc(4096); /* the one object that there is room for */
    CHECK(object == held[count / 2]);
    CHECK(hak_malloc(4096) == NULL);
    CHECK_EQ(reclaimer.calls, 3);
    kit_close();
}

TEST(a_reclaimer_that_allocates_fails_and_does_not_recurse)
{
    static const size_t some[] = {MIB, 4096, 64};
    for (size_t n = 0; n < sizeof some / sizeof *some; n++) {
        open_with_reclaimer();
        reclaimer.allocates = true;
        reclaimer.got = held;
        size_t count = fill_region(some[n]);
        CHECK(reclaimer.got == NULL);
        CHECK_EQ(reclaimer.error_number, ENOMEM);
        CHECK_EQ(reclaimer.deepest, 1);
        CHECK_EQ(reclaimer.calls, 1);
        hak_free_bulk(held, count);
        CHECK(hak_malloc(REGION_BYTES) != NULL);
        kit_check(NULL);
        kit_close();
    }
}

TEST(a_handles_reclaimer_is_its_own)
{
    open_with_reclaimer();
    hak_region *region = kit_create(4 * MIB, HAK_OFF);
    CHECK(hak_region_malloc(region, 5 * MIB) == NULL);
    CHECK_EQ(reclaimer.calls, 0);
    CHECK_EQ(hak_on_exhausted(region, reclaim, &reclaimer), 0);
    CHECK(hak_region_malloc(region, 4 * MIB) != NULL);
    CHECK(hak_region_malloc(region, 4 * MIB) == NULL);
    CHECK_EQ(reclaimer.calls, 1);
    CHECK(reclaimer.region == region);
    kit_close();
}

/* ---- afterwards ------------------------------------------------------------------------------ */

/* Fills the region, tells all objects apart by what they hold, empties it; how many there were. */
static size_t fill_and_tell_apart(size_t size)
{
    size_t count = fill_region(size);
    for (size_t k = 0; k < count; k++) {
        pattern_fill(held[k], size, k);
    }
    for (size_t k = 0; k < count; k++) {
        CHECK(pattern_holds(held[k], size, k));
    }
    CHECK(hak_malloc(size) == NULL);
    hak_free_bulk(held, count);
    return count;
}

TEST(every_byte_is_usable_after_exhaustion)
{
    static const size_t some[] = {48, 1024, 10000, 65536, 300 * KIB, 2 * MIB, 16};
    size_t first[sizeof some / sizeof *some] = {0};
    kit_open(REGION_BYTES, HAK_OFF);
    for (int round = 0; round < 3; round++) {
        for (size_t n = 0; n < sizeof some / sizeof *some; n++) {
            size_t count = fill_and_tell_apart(some[n]);
            first[n] = round == 0 ? count : first[n];
            CHECK_EQ(count, first[n]); /* as many as the first time */
        }
    }
    void *whole = hak_malloc(REGION_BYTES);
    CHECK(whole != NULL);
    pattern_fill(whole, REGION_BYTES, 1);
    hak_free(whole);
    kit_check(NULL);
    kit_close();
}

static void *free_every_third(void *count)
{
    for (size_t k = 0; k < *(const size_t *)count; k += 3) {
        hak_free(held[k]);
        held[k] = NULL;
    }
    return NULL;
}

/* Slabs that are partly free, whoever freed: every object in them is found again. */
TEST(every_hole_is_found_again)
{
    static const size_t some[] = {16, 100, 1024, 5000, 65536};
    kit_open(REGION_BYTES, HAK_OFF);
    for (size_t n = 0; n < sizeof some / sizeof *some; n++) {
        size_t count = fill_region(some[n]);
        kit_in_thread(free_every_third, &count);
        size_t found = 0;
        for (size_t k = 0; k < count; k += 3) {
            held[k] = hak_malloc(some[n]);
            found += held[k] != NULL;
        }
        CHECK_EQ(found, (count + 2) / 3);
        CHECK(hak_malloc(some[n]) == NULL);
        hak_free_bulk(held, count);
        kit_check(NULL);
    }
    kit_close();
}

HARNESS_MAIN()
