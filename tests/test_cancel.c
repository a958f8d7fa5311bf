/* SPDX-License-Identifier: MIT */
/*
 * pthread_cancel(3). Deferred, as threads are unless they ask for more: no call of the library is a
 * cancellation point, so a thread is cancelled between calls, its slot is given back like that of
 * one that returns, and nothing is lost. Asynchronous: POSIX makes three functions safe for it, and
 * an allocator's are none of them; shown is only what the other threads can rely on.
 */
#define _GNU_SOURCE
#include "tests/heap_kit.h"
#include "tests/left_kit.h"

#define HELD 64

static struct harness_result result;

/* ---- no call is a cancellation point --------------------------------------------------------- */

static void work(unsigned worker, void *argument)
{
    (void)worker;
    (void)argument;
}

static void make_and_end_regions(void)
{
    struct hak_config config = kit_config(4 * MIB);
    static unsigned char memory[6 * MIB];
    static struct hak_plan plan;
    hak_region *region;
    CHECK_EQ(hak_region_plan(&config, &plan), 0);
    CHECK_EQ(hak_region_create(&config, &region), 0);
    CHECK_EQ(hak_region_destroy(region), 0);
    CHECK_EQ(hak_region_adopt(memory, sizeof memory, -1, NULL, &region, NULL), 0);
    CHECK_EQ(hak_region_destroy(region), 0);
    CHECK_EQ(hak_worker_start(2, work, NULL), 0);
    CHECK_EQ(hak_worker_join(), 0);
    CHECK_EQ(hak_thread_pin(-1), -EINVAL);
    CHECK_EQ(hak_region_init(&config), -EALREADY);
    CHECK_EQ(hak_region_fini(), 0);
    config.misuse = HAK_MISUSE_REPORT;
    CHECK_EQ(hak_region_init(&config), 0);
}

static void allocate_in_every_way(void)
{
    void *objects[100];
    CHECK_EQ(hak_malloc_bulk(48, 100, objects), 100);
    hak_free_bulk(objects, 100);
    for (unsigned n = 0; n < 100; n++)
        objects[n] = hak_calloc(n + 1, 200);
    for (unsigned n = 0; n < 100; n++)
        objects[n] = hak_realloc(objects[n], 3000);
    for (unsigned n = 0; n < 100; n++)
        hak_free(objects[n]);
    hak_free(hak_malloc(400 * KIB));
    hak_free(hak_aligned_alloc(8192, 100));
    hak_free(hak_malloc_on_node(100, 0));
    CHECK(hak_malloc(100 * MIB) == NULL);
}

static void be_wrong_and_ask(void)
{
    struct hak_error error;
    struct hak_stats stats;
    int here;
    hak_free(&here); /* reported on standard error */
    CHECK_EQ(hak_last_error(&error), -EINVAL);
    CHECK_EQ(hak_region_stats(NULL, &stats), 0);
    CHECK_EQ(stats.misuses, 1);
    hak_thread_idle();
    hak_free(hak_malloc(10));
}

static bool came_through;

static void *call_everything(void *unused)
{
    CHECK_EQ(pthread_cancel(pthread_self()), 0); /* pending from here on */
    make_and_end_regions();
    allocate_in_every_way();
    be_wrong_and_ask();
    came_through = true;
    pthread_testcancel();
    return unused;
}

/* In a child: what it has in hand when it is cancelled too early is lost to its process. */
static void run_everything(void *unused)
{
    void *ended;
    (void)unused;
    kit_open(8 * MIB);
    left_files = left_entries("/proc/self/fd");
    pthread_t thread = kit_thread(call_everything, NULL);
    CHECK_EQ(pthread_join(thread, &ended), 0);
    CHECK(ended == PTHREAD_CANCELED);
    CHECK(came_through);
    CHECK_EQ(left_entries("/proc/self/fd"), left_files);
    CHECK(heap_check(hak_region_default()));
    CHECK_EQ(kit_stats().free_bytes, kit_stats().size_bytes);
}

TEST(no_call_is_a_cancellation_point)
{
    run_apart(&result, run_everything, NULL);
    CHECK_STR_HAS(result.output, "misuse"); /* standard error was written to */
}

/* ---- cancelled at random, between calls ------------------------------------------------------ */

struct victim {
    void *held[HELD];
    uint64_t random;
};

static void free_held(void *argument)
{
    struct victim *self = argument;
    for (unsigned n = 0; n < HELD; n++)
        hak_free(self->held[n]);
}

static void one_call(struct victim *self)
{
    uint64_t draw = harness_random(&self->random);
    void **held = &self->held[draw % HELD];
    size_t bytes = draw / HELD % 5000;
    switch (draw / 1000000 % 8) {
    case 0:
        hak_free(*held);
        *held = hak_malloc(bytes * 100);
        break;
    case 1:
        *held = hak_realloc(*held, bytes + 1);
        break;
    case 2:
        hak_thread_idle();
        break;
    case 3:
        hak_free(hak_malloc(64 * MIB)); /* no room: the whole ladder */
        break;
    default:
        hak_free(*held);
        *held = hak_malloc(bytes);
    }
}

static void *live_until_cancelled(void *argument)
{
    struct victim self = {.held = {NULL}, .random = (uintptr_t)argument};
    pthread_cleanup_push(free_held, &self);
    for (;;) {
        pthread_testcancel();
        one_call(&self);
    }
    pthread_cleanup_pop(1);
    return NULL;
}

/* Every one is cancelled somewhere between its start, when it has no slot yet, and some thousand
 * calls later. */
TEST(threads_that_are_cancelled_give_back_what_they_had)
{
    uint64_t random = harness_seed();
    pthread_t threads[4];
    void *ended;
    kit_open(32 * MIB);
    for (unsigned round = 0; round < 100; round++) {
        for (unsigned n = 0; n < 4; n++)
            threads[n] = kit_thread(live_until_cancelled,
                                    (void *)(uintptr_t)harness_random(&random));
        usleep((useconds_t)(harness_random(&random) % 3000));
        for (unsigned n = 0; n < 4; n++)
            CHECK_EQ(pthread_cancel(threads[n]), 0);
        for (unsigned n = 0; n < 4; n++) {
            CHECK_EQ(pthread_join(threads[n], &ended), 0);
            CHECK(ended == PTHREAD_CANCELED);
        }
        CHECK_EQ(kit_stats().threads, 0);
        CHECK_EQ(kit_stats().free_bytes, kit_stats().size_bytes);
    }
    kit_close();
}

static void *set_up_until_cancelled(void *unused)
{
    struct hak_config config = kit_config(2 * MIB);
    for (;;) {
        hak_region *region;
        pthread_testcancel();
        CHECK_EQ(hak_region_create(&config, &region), 0);
        CHECK_EQ(hak_region_destroy(region), 0);
    }
    return unused;
}

TEST(a_thread_that_is_cancelled_while_it_makes_a_region_leaves_none)
{
    uint64_t random = harness_seed();
    struct hak_config config = kit_config(2 * MIB);
    hak_region *region;
    void *ended;
    kit_open(2 * MIB);
    CHECK_EQ(hak_region_create(&config, &region), 0);
    CHECK_EQ(hak_region_destroy(region), 0);
    kit_elsewhere(call_everything, NULL); /* stacks and what else stays are there */
    came_through = false;
    left_note();
    for (unsigned round = 0; round < 100; round++) {
        pthread_t thread = kit_thread(set_up_until_cancelled, NULL);
        usleep((useconds_t)(harness_random(&random) % 3000));
        CHECK_EQ(pthread_cancel(thread), 0);
        CHECK_EQ(pthread_join(thread, &ended), 0);
        CHECK(ended == PTHREAD_CANCELED);
    }
    LEFT_NOTHING();
    kit_forget_last();
}

/* ---- asynchronously -------------------------------------------------------------------------- */

static atomic_bool stop;
static _Atomic uint64_t turns;

/* Nothing of its own is freed: what it had is lost with it. */
static void *live_until_killed(void *seed)
{
    struct victim self = {.held = {NULL}, .random = (uintptr_t)seed};
    CHECK_EQ(pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, NULL), 0);
    for (;;) {
        uint64_t draw = harness_random(&self.random);
        void **held = &self.held[draw % HELD];
        hak_free(*held);
        *held = hak_malloc(draw / HELD % 3000);
    }
    return NULL;
}

static void *go_on(void *unused)
{
    struct victim self = {.held = {NULL}, .random = 7};
    while (!atomic_load(&stop)) {
        one_call(&self);
        atomic_fetch_add(&turns, 1);
    }
    free_held(&self);
    return unused;
}

/* Others neither wait for the dead nor fail: every allocation is a loop of atomic steps. */
static void be_killed_in_the_middle(void *unused)
{
    struct hak_config config = kit_config(64 * MIB);
    uint64_t random = harness_seed();
    pthread_t other, victim;
    (void)unused;
    config.misuse = HAK_MISUSE_IGNORE;
    kit_start(&config);
    other = kit_thread(go_on, NULL);
    for (unsigned round = 0; round < 300; round++) {
        uint64_t before = atomic_load(&turns);
        victim = kit_thread(live_until_killed, (void *)(uintptr_t)harness_random(&random));
        usleep((useconds_t)(harness_random(&random) % 1000));
        CHECK_EQ(pthread_cancel(victim), 0);
        kit_join(victim);
        while (atomic_load(&turns) == before)
            usleep(100);
    }
    atomic_store(&stop, true);
    kit_join(other);
    CHECK_EQ(hak_region_fini(), 0);
    kit_open(8 * MIB);
    hak_free(hak_malloc(1000));
    kit_close();
}

TEST(threads_that_die_in_the_middle_of_a_call_hold_nobody_up)
{
    run_apart(&result, be_killed_in_the_middle, NULL);
}

HARNESS_MAIN()
