/* SPDX-License-Identifier: MIT */
/*
 * Threads: they come by themselves, leave nothing behind when they go, are made to share when the
 * region runs out, and may be more than there are slots. In all of it no object is lost.
 */
#include "alloc/thread.h"

#include "alloc/cache.h"
#include "tests/heap_kit.h"

#include <limits.h>
#include <sys/mman.h>

#define CLASS_KIB 20 /* 1,024 bytes */
#define MANY 60000

static void *objects[MANY];
static struct kit_turns turns;

/* Allocates and frees in every class and a large object; leaves its caches full. */
static void *use_all(void *unused)
{
    for (unsigned cls = 1; cls <= CLASS_COUNT; cls++) {
        void *mine[64];
        size_t count = min_size(64, max_size(1, 128 * KIB / sizeclass_bytes(cls)));
        for (size_t n = 0; n < count; n++) {
            mine[n] = hak_malloc(sizeclass_bytes(cls));
            CHECK(mine[n] != NULL);
            memset(mine[n], (int)cls, 16);
        }
        for (size_t n = 0; n < count; n++) {
            hak_free(mine[n]);
        }
    }
    hak_free(hak_malloc(3 * MIB));
    return unused;
}

/* Fills the region with objects of 1 KiB; how many it got. */
static size_t take_all(size_t from)
{
    size_t count = from;

    while ((objects[count] = hak_malloc(1024)) != NULL) {
        count++;
        CHECK(count < MANY);
    }
    CHECK_EQ(errno, ENOMEM);
    return count;
}

static void free_all(size_t count)
{
    for (size_t n = 0; n < count; n++) {
        hak_free(objects[n]);
    }
}

/* ---- coming and going ------------------------------------------------------------------------ */

TEST(a_thread_that_exits_gives_everything_back)
{
    kit_open(64 * MIB);
    kit_elsewhere(use_all, NULL);
    struct hak_stats stats = kit_stats();
    CHECK_EQ(stats.free_bytes, stats.size_bytes);
    CHECK_EQ(stats.cached_bytes_max, 0);
    CHECK_EQ(stats.threads, 0);
    CHECK_GE(stats.refilled_objects, 1000); /* its counts stay */
    kit_close();
}

static void *make_some(void *unused)
{
    for (unsigned n = 0; n < 1000; n++) {
        objects[n] = hak_malloc(n * 16);
        CHECK(objects[n] != NULL);
        memset(objects[n], (int)n, n * 16);
    }
    return unused;
}

TEST(objects_outlive_the_thread_that_made_them)
{
    kit_open(64 * MIB);
    kit_elsewhere(make_some, NULL);
    for (unsigned n = 0; n < 1000; n++) {
        const unsigned char *bytes = objects[n];
        for (size_t at = 0; at < n * 16; at++) {
            CHECK_EQ(bytes[at], (unsigned char)n);
        }
        hak_free(objects[n]);
    }
    kit_close();
}

TEST(thousands_of_short_lives_leave_nothing_and_share_few_slots)
{
    struct hak_region *heap = kit_open(64 * MIB);

    for (unsigned round = 0; round < 400; round++) {
        pthread_t threads[8];
        for (unsigned n = 0; n < 8; n++) {
            threads[n] = kit_thread(use_all, NULL);
        }
        for (unsigned n = 0; n < 8; n++) {
            kit_join(threads[n]);
        }
    }
    CHECK_LE(atomic_load(&heap->pools[0].slots.high), 8);
    kit_close();
}

/* ---- more threads than slots ----------------------------------------------------------------- */

#define EXTRA 64

static _Atomic unsigned arrived, failures;
static _Atomic bool leave_now;

static void *hold_one(void *number)
{
    uint64_t mark = (uintptr_t)number * 0x9e3779b97f4a7c15U;
    uint64_t *object = hak_malloc(128);
    uint64_t *large = (uintptr_t)number % 1024 == 0 ? hak_malloc(300 * KIB) : NULL;

    if (object != NULL) {
        *object = mark;
    }
    /* Those that come last find every slot taken, and free without one too. */
    hak_free(hak_malloc(128));
    hak_free(hak_malloc(300 * KIB));
    atomic_fetch_add(&arrived, 1);
    while (!atomic_load(&leave_now)) {
        usleep(20000);
    }
    if (object == NULL || *object != mark || hak_usable_size(object) != 128) {
        atomic_fetch_add(&failures, 1);
    }
    object = hak_realloc(object, 2000);
    if (object == NULL || *object != mark) {
        atomic_fetch_add(&failures, 1);
    }
    hak_free(object);
    hak_free(large);
    hak_free(hak_calloc(1, 777));
    return NULL;
}

/* Stops at what the machine allows. */
static unsigned start_many(pthread_t *threads, unsigned most)
{
    pthread_attr_t attributes;
    unsigned count = 0;

    CHECK_EQ(pthread_attr_init(&attributes), 0);
    CHECK_EQ(pthread_attr_setstacksize(&attributes, (size_t)PTHREAD_STACK_MIN + 32 * KIB), 0);
    while (count < most && pthread_create(&threads[count], &attributes, hold_one,
                                          (void *)(uintptr_t)(count + 1)) == 0) {
        count++;
    }
    pthread_attr_destroy(&attributes);
    return count;
}

TEST(more_threads_at_once_than_slots_work_all_the_same)
{
    static pthread_t threads[THREAD_SLOTS_MAX + EXTRA];
    unsigned most = THREAD_SLOTS_MAX + EXTRA;
    /* Each thread owns a slab of each class that it uses; addresses cost nothing. */
    struct hak_config config = kit_config(2048 * MIB);

    config.prefault = HAK_OFF;
    kit_forget_last();
    kit_start(&config);
    atomic_store(&arrived, 0);
    atomic_store(&failures, 0);
    atomic_store(&leave_now, false);
    unsigned count = start_many(threads, most);
    while (atomic_load(&arrived) < count) {
        usleep(1000);
    }
    unsigned with_slots = kit_stats().threads;
    atomic_store(&leave_now, true);
    for (unsigned n = 0; n < count; n++) {
        kit_join(threads[n]);
    }
    unsigned failed = atomic_load(&failures);
    CHECK_EQ(failed, 0);
    if (count < most) {
        SKIP("this machine allows %u threads, %u are needed", count, most);
    }
    CHECK_EQ(with_slots, THREAD_SLOTS_MAX);
    kit_close();
}

/* ---- idle threads ---------------------------------------------------------------------------- */

static void fill_own_cache(void)
{
    void *mine[200];

    for (unsigned round = 0; round < 20; round++) {
        for (unsigned n = 0; n < 200; n++) {
            mine[n] = hak_malloc(1024);
            CHECK(mine[n] != NULL);
        }
        for (unsigned n = 0; n < 200; n++) {
            hak_free(mine[n]);
        }
    }
}

static void *idle_while_others_want(void *unused)
{
    fill_own_cache();
    hak_thread_idle();
    hak_thread_idle(); /* twice is once */
    kit_done(&turns, 1);
    kit_wait(&turns, 2);
    CHECK(hak_malloc(1024) == NULL); /* everything is with the other thread */
    kit_done(&turns, 3);
    kit_wait(&turns, 4);
    void *object = hak_malloc(1024); /* and goes on as if nothing had been */
    CHECK(object != NULL);
    hak_free(object);
    CHECK_EQ(hak_malloc(1024), object);
    hak_free(object);
    return unused;
}

TEST(an_exhausted_thread_takes_the_caches_of_idle_ones)
{
    struct hak_region *heap = kit_open(16 * MIB);

    atomic_store(&turns.step, 0);
    pthread_t thread = kit_thread(idle_while_others_want, NULL);
    kit_wait(&turns, 1);
    CHECK_GE(kit_class(CLASS_KIB).objects_out, 1); /* in its cache */
    size_t count = take_all(0);
    CHECK_EQ(count, heap->area.bytes / 1024);
    kit_done(&turns, 2);
    kit_wait(&turns, 3);
    free_all(count);
    cache_drain(thread_current(heap));
    kit_done(&turns, 4);
    kit_join(thread);
    kit_close();
}

static void *idle_and_back(void *unused)
{
    void *first = hak_malloc(1024);
    void *second = hak_malloc(1024);

    hak_free(first);
    hak_free(second);
    hak_thread_idle();
    CHECK_EQ(hak_malloc(1024), second); /* nobody wanted it: the same cache as before */
    hak_free(second);
    CHECK_EQ(kit_stats().threads, 1);
    hak_thread_idle();
    return unused; /* exits while marked */
}

TEST(an_idle_thread_takes_its_cache_up_again_and_may_exit_marked)
{
    kit_open(16 * MIB);
    kit_elsewhere(idle_and_back, NULL);
    CHECK_EQ(kit_stats().threads, 0);
    kit_close();
}

/* One thread marks itself all the time, the other exhausts the region all the time: the moments at
 * which caches are taken, taken up again and given up meet in every way. */
static int64_t until_ms;

static void *flicker(void *unused)
{
    while (harness_now_ms() < until_ms) {
        void *object = hak_malloc(1024);
        if (object != NULL) {
            *(uintptr_t *)object = (uintptr_t)object;
            CHECK_EQ(*(uintptr_t *)object, (uintptr_t)object);
            hak_free(object);
        }
        hak_thread_idle();
    }
    return unused;
}

TEST(marks_and_takings_that_race_lose_nothing)
{
    pthread_t threads[3];
    size_t rounds = 0;

    kit_open(4 * MIB);
    until_ms = harness_now_ms() + 1500;
    for (unsigned n = 0; n < 3; n++) {
        threads[n] = kit_thread(flicker, NULL);
    }
    while (harness_now_ms() < until_ms) {
        free_all(take_all(0));
        rounds++;
    }
    for (unsigned n = 0; n < 3; n++) {
        kit_join(threads[n]);
    }
    CHECK_GE(rounds, 3);
    kit_close();
}

/* ---- threads that are asked ------------------------------------------------------------------ */

static void *busy_while_others_want(void *unused)
{
    void *large = hak_malloc(300 * KIB);

    fill_own_cache();
    kit_done(&turns, 1);
    kit_wait(&turns, 2);
    hak_free(large); /* a slow step that of itself empties nothing; each gives back a little */
    for (unsigned n = 0; n < 20; n++) {
        hak_free(hak_malloc(300 * KIB));
    }
    kit_done(&turns, 3);
    kit_wait(&turns, 4);
    return unused;
}

TEST(a_thread_that_is_asked_gives_back_on_its_next_slow_steps)
{
    struct hak_region *heap = kit_open(16 * MIB);

    atomic_store(&turns.step, 0);
    pthread_t thread = kit_thread(busy_while_others_want, NULL);
    kit_wait(&turns, 1);
    size_t count = take_all(0);
    CHECK_LE(count, heap->area.bytes / 1024 - 320 - 1); /* its cache is its own until then */
    kit_done(&turns, 2);
    kit_wait(&turns, 3);
    count = take_all(count);
    CHECK_EQ(count, heap->area.bytes / 1024);
    kit_done(&turns, 4);
    kit_join(thread);
    free_all(count);
    kit_close();
}

/* ---- odd lives ------------------------------------------------------------------------------- */

static void *only_free(void *unused)
{
    free_all(1000);
    return unused;
}

TEST(a_thread_that_never_allocated_may_free)
{
    kit_open(64 * MIB);
    make_some(NULL);
    kit_elsewhere(only_free, NULL);
    kit_close();
}

static pthread_key_t key;
static unsigned rounds_left;

/* A destructor of thread-local data that uses the allocator, and asks to be called again. */
static void late(void *object)
{
    hak_free(object);
    hak_free(hak_malloc(100));
    if (--rounds_left > 0) {
        CHECK_EQ(pthread_setspecific(key, hak_malloc(48)), 0);
    }
}

static void *die_late(void *unused)
{
    hak_free(hak_malloc(16));
    CHECK_EQ(pthread_setspecific(key, hak_malloc(48)), 0);
    return unused;
}

static void die_with_rounds(unsigned rounds)
{
    kit_open(16 * MIB);
    CHECK_EQ(pthread_key_create(&key, late), 0);
    rounds_left = rounds;
    kit_elsewhere(die_late, NULL);
    CHECK_EQ(rounds_left, 0);
    CHECK_EQ(pthread_key_delete(key), 0);
}

TEST(destructors_that_use_the_allocator_leave_nothing)
{
    for (unsigned rounds = 1; rounds < PTHREAD_DESTRUCTOR_ITERATIONS; rounds++) {
        die_with_rounds(rounds);
        kit_close();
    }
}

/*
 * After the last round of destructors nobody can notice the exit. What such a thread leaves is a
 * slot; the end of the region must not follow it into the thread's memory, which is gone.
 */
static void end_after_a_late_death(void *unused)
{
    pthread_attr_t attributes;
    pthread_t thread;
    /* A stack of our own holds the thread-local data too, and is unmapped before the end. */
    size_t bytes = MIB;
    void *stack = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    (void)unused;
    CHECK(stack != MAP_FAILED);
    kit_open(16 * MIB);
    CHECK_EQ(pthread_key_create(&key, late), 0);
    rounds_left = PTHREAD_DESTRUCTOR_ITERATIONS;
    CHECK_EQ(pthread_attr_init(&attributes), 0);
    CHECK_EQ(pthread_attr_setstack(&attributes, stack, bytes), 0);
    CHECK_EQ(pthread_create(&thread, &attributes, die_late, NULL), 0);
    kit_join(thread);
    CHECK_EQ(rounds_left, 0);
    CHECK_EQ(munmap(stack, bytes), 0);
    CHECK(heap_check(hak_region_default()));
    CHECK_EQ(hak_region_fini(), 0);
}

TEST(a_region_ends_well_after_a_thread_whose_exit_went_unnoticed)
{
    static struct harness_result result;

    harness_child(end_after_a_late_death, NULL, &result);
    if (result.exit_status != 0) {
        FAIL("exit status %d, signal %d: %s", result.exit_status, result.signal, result.output);
    }
}

static void *use_two(void *other)
{
    void *mine = hak_region_malloc(other, 100);
    void *def = hak_malloc(100);

    CHECK(mine != NULL && def != NULL);
    hak_region_free(other, mine);
    hak_free(def);
    return NULL;
}

TEST(an_exit_empties_the_caches_of_every_region)
{
    struct hak_config config = kit_config(8 * MIB);
    hak_region *other = NULL;
    struct hak_stats stats;

    kit_open(16 * MIB);
    CHECK_EQ(hak_region_create(&config, &other), 0);
    kit_elsewhere(use_two, other);
    CHECK_EQ(hak_region_stats(other, &stats), 0);
    CHECK_EQ(stats.free_bytes, stats.size_bytes);
    CHECK_EQ(stats.threads, 0);
    CHECK(heap_check(other));
    CHECK_EQ(hak_region_destroy(other), 0);
    kit_close();
}

TEST(a_thread_goes_on_in_the_next_region)
{
    for (unsigned round = 0; round < 3; round++) {
        kit_open(16 * MIB);
        use_all(NULL);
        hak_thread_idle();
        CHECK_EQ(hak_region_fini(), 0); /* with full caches, marked */
        kit_open(16 * MIB);
        use_all(NULL);
        CHECK_EQ(hak_region_fini(), 0); /* ... and not */
    }
}

HARNESS_MAIN()
