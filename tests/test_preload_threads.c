/* SPDX-License-Identifier: MIT */
/*
 * Threads of a preloaded program, as programs make them: hundreds that come and go, that free what
 * others allocated, allocate in destructors of their keys, have the smallest stack that there is,
 * are cancelled, or are interrupted by signals.
 *
 * Deferred cancellation only. POSIX makes three functions safe to be cancelled in asynchronously
 * (pthread_cancel, pthread_setcancelstate, pthread_setcanceltype), and malloc is none of them.
 */
#include "tests/preload_kit.h"

#include <hakmem.h>
#include <stdatomic.h>
#include <sys/time.h>

/* NOLINTBEGIN(clang-analyzer-unix.*,clang-analyzer-optin.*): objects pass through kit_keep,
 * where the analyser loses them, and size 0 is one of the sizes. */

#define ERRNO_MARK 4095

/* ---- coming and going ------------------------------------------------------------------------ */

#define SLOTS 1024

/* Objects on their way from one thread to another. The size stands in the object. */
static void *_Atomic passing[SLOTS];
static pthread_key_t key;
static _Atomic unsigned destroyed;

static void pass_on(size_t slot, size_t bytes)
{
    size_t *object = (size_t *)kit_keep(malloc(bytes));
    CHECK(object != NULL);
    memset(object, (int)(slot & 0xff), bytes);
    object[0] = bytes;
    size_t *other = (size_t *)atomic_exchange(&passing[slot], object);
    if (other != NULL) {
        CHECK(other[0] >= 16 && other[0] < 100000);
        CHECK_EQ(((unsigned char *)other)[other[0] - 1], slot & 0xff);
        free(other);
    }
}

/* Runs when the thread ends, before or after the allocator's own ending, as the keys lie; comes
 * back three times with an object of another size. */
static void destroy(void *argument)
{
    size_t *object = (size_t *)argument;
    size_t round = object[0];
    free(object);
    for (size_t i = 0; i < 20; i++) {
        pass_on(i * 7, 16 + round * 1000);
    }
    if (round < 3) {
        object = (size_t *)kit_keep(malloc(100 * (round + 1)));
        object[0] = round + 1;
        CHECK_EQ(pthread_setspecific(key, object), 0);
    } else {
        atomic_fetch_add(&destroyed, 1);
    }
}

static void *come_and_go(void *argument)
{
    uint64_t random = (uintptr_t)argument;
    size_t *object = (size_t *)kit_keep(malloc(50));
    object[0] = 0;
    CHECK_EQ(pthread_setspecific(key, object), 0);
    for (int i = 0; i < 300; i++) {
        pass_on(harness_random(&random) % SLOTS, 16 + kit_size(&random) % 50000);
    }
    return kit_keep(malloc(1000));
}

static void free_what_passes(void)
{
    for (size_t i = 0; i < SLOTS; i++) {
        free(atomic_exchange(&passing[i], NULL));
    }
}

static void in_waves(unsigned threads, unsigned at_once)
{
    pthread_t running[300];
    CHECK_EQ(pthread_key_create(&key, destroy), 0);
    for (unsigned made = 0; made < threads; made += at_once) {
        for (unsigned i = 0; i < at_once; i++) {
            CHECK_EQ(pthread_create(&running[i], NULL, come_and_go, (void *)(uintptr_t)(made + i)),
                     0);
        }
        for (unsigned i = 0; i < at_once; i++) {
            void *result = NULL;
            CHECK_EQ(pthread_join(running[i], &result), 0);
            CHECK(result != NULL);
            free(result);
        }
    }
    CHECK_EQ(atomic_load(&destroyed), threads);
    free_what_passes();
}

CONTRACT(three_hundred_threads_in_waves_free_each_others_objects)
{
    in_waves(300, 15);
}

CONTRACT(three_hundred_threads_at_once)
{
    in_waves(300, 300);
}

/* Keys made before any allocation of the program's main have their destructors run first; so the
 * objects of those are freed while the thread's cache is still there, the others' after it. */
CONTRACT(keys_of_all_ages_have_destructors_that_allocate)
{
    pthread_key_t keys[60];
    for (int i = 0; i < 60; i++) {
        CHECK_EQ(pthread_key_create(&keys[i], free), 0);
    }
    in_waves(40, 4);
}

static void *take_one_mib(void *unused)
{
    (void)unused;
    void *held[64];
    for (size_t i = 0; i < 64; i++) {
        held[i] = kit_keep(malloc(i * 500));
        CHECK(held[i] != NULL);
    }
    for (size_t i = 0; i < 64; i++) {
        free(held[i]);
    }
    return NULL;
}

/* Two thousand threads, one after the other, in a region that holds the caches of few: what a
 * thread leaves behind is there for the next, and its cache is gone. */
PRELOADED(what_an_ended_thread_cached_is_not_lost, "HAKMEM_REGION_SIZE=16M", "HAKMEM_PAGES=4k")
{
    pthread_t thread;
    for (int i = 0; i < 2000; i++) {
        CHECK_EQ(pthread_create(&thread, NULL, take_one_mib, NULL), 0);
        CHECK_EQ(pthread_join(thread, NULL), 0);
    }
    struct hak_stats stats;
    int (*region_stats)(hak_region *, struct hak_stats *);
    *(void **)&region_stats = kit_symbol(RTLD_DEFAULT, "hak_region_stats");
    CHECK_EQ(region_stats(NULL, &stats), 0);
    CHECK_EQ(stats.threads, 1);
    void *half = kit_keep(malloc(8 * MIB));
    CHECK(half != NULL);
    free(half);
}

static void *small_stack_work(void *argument)
{
    kit_work((uintptr_t)argument, 3000);
    void *aligned = kit_keep(memalign(64 * KIB, 3 * MIB));
    CHECK(aligned != NULL);
    aligned = kit_keep(realloc(aligned, 5 * MIB));
    CHECK(aligned != NULL);
    free(aligned);
    errno = 0;
    CHECK(kit_keep(malloc(kit_opaque((size_t)1 << 46))) == NULL); /* down the whole ladder */
    CHECK_EQ(errno, ENOMEM);
    return NULL;
}

/* No call may need more stack than the least that a thread can have. */
CONTRACT(the_smallest_stack_is_enough)
{
    pthread_attr_t attributes;
    pthread_t threads[8];
    CHECK_EQ(pthread_attr_init(&attributes), 0);
    CHECK_EQ(pthread_attr_setstacksize(&attributes, (size_t)sysconf(_SC_THREAD_STACK_MIN)), 0);
    for (uintptr_t i = 0; i < 8; i++) {
        CHECK_EQ(pthread_create(&threads[i], &attributes, small_stack_work, (void *)i), 0);
    }
    for (int i = 0; i < 8; i++) {
        CHECK_EQ(pthread_join(threads[i], NULL), 0);
    }
}

/* ---- cancellation ---------------------------------------------------------------------------- */

static void free_held(void *held)
{
    for (int i = 0; i < 16; i++) {
        free(((void **)held)[i]);
    }
}

static void allocate_until_cancelled(void **held, uint64_t random)
{
    for (;;) {
        size_t n = harness_random(&random) % 16;
        free(held[n]);
        held[n] = kit_keep(malloc(kit_size(&random)));
        CHECK(held[n] != NULL);
        if (n == 0) {
            pthread_testcancel();
        }
    }
}

static void *until_cancelled(void *argument)
{
    void *held[16] = {NULL};
    pthread_cleanup_push(free_held, held);
    allocate_until_cancelled(held, (uintptr_t)argument);
    pthread_cleanup_pop(1);
    return NULL;
}

PRELOADED(threads_cancelled_in_loops_of_malloc_and_free, "HAKMEM_REGION_SIZE=64M",
          "HAKMEM_PAGES=4k")
{
    pthread_t threads[4];
    uint64_t random = 9;
    for (int round = 0; round < 100; round++) {
        for (uintptr_t i = 0; i < 4; i++) {
            CHECK_EQ(pthread_create(&threads[i], NULL, until_cancelled, (void *)(i + 1)), 0);
        }
        usleep((useconds_t)(harness_random(&random) % 2000));
        for (int i = 0; i < 4; i++) {
            void *result = NULL;
            CHECK_EQ(pthread_cancel(threads[i]), 0);
            CHECK_EQ(pthread_join(threads[i], &result), 0);
            CHECK(result == PTHREAD_CANCELED);
        }
    }
    kit_work(1, 20000);
    void *half = kit_keep(malloc(32 * MIB)); /* nothing was left behind */
    CHECK(half != NULL);
    free(half);
}

static void *with_cancellation_pending(void *unused)
{
    static char came_through;
    (void)unused;
    CHECK_EQ(pthread_cancel(pthread_self()), 0);
    kit_work(5, 30000);
    void *object = kit_keep(calloc(3, 2 * MIB));
    object = kit_keep(realloc(object, 20 * MIB));
    free(object);
    CHECK_EQ(posix_memalign(&object, 4 * MIB, 100), 0);
    free(object);
    free(kit_keep(malloc(kit_opaque((size_t)1 << 46))));
    return &came_through;
}

/* None of malloc's calls is a cancellation point (pthreads(7)): who is cancelled inside one leaves
 * whatever that was doing half done. */
CONTRACT(allocation_is_no_cancellation_point)
{
    pthread_t thread;
    void *result = PTHREAD_CANCELED;
    CHECK_EQ(pthread_create(&thread, NULL, with_cancellation_pending, NULL), 0);
    CHECK_EQ(pthread_join(thread, &result), 0);
    CHECK(result != PTHREAD_CANCELED && result != NULL);
}

/* ---- signals --------------------------------------------------------------------------------- */

static volatile sig_atomic_t alarms;

static void on_alarm(int number)
{
    (void)number;
    alarms++;
    errno = EINTR; /* as a handler does that was written without care */
}

/* Handlers that do not allocate, ten thousand a second; sized objects go back and forth between
 * threads meanwhile, and the kernel's calls are interrupted. */
CONTRACT(signals_at_a_high_rate_disturb_nothing)
{
    const struct itimerval often = {{0, 100}, {0, 100}};
    const struct itimerval never = {{0, 0}, {0, 0}};
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_alarm; /* no SA_RESTART */
    CHECK_EQ(sigaction(SIGALRM, &action, NULL), 0);
    CHECK_EQ(setitimer(ITIMER_REAL, &often, NULL), 0);
    for (uint64_t seed = 0; alarms < 1000; seed++) {
        kit_work(seed, 2000);
        void *large = kit_keep(malloc(20 * MIB));
        CHECK(large != NULL);
        memset(large, 1, 20 * MIB);
        free(large);
        malloc_trim(0);
    }
    CHECK_EQ(setitimer(ITIMER_REAL, &never, NULL), 0);
}

/* NOLINTEND(clang-analyzer-unix.*,clang-analyzer-optin.*): as above. */

KIT_MAIN()
