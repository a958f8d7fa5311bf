/* SPDX-License-Identifier: MIT */
/*
 * fork(2) at any moment of a busy program: while threads allocate and free across each other, run
 * into the wall, idle, come and go, and make and end regions. Every child uses all that it has
 * inherited and makes its own, within seconds; the parent goes on, and its books are whole at the
 * end.
 *
 * A region's books are only walked where nobody was in the middle of a step: in the parent after
 * all threads have ended, and in children's own regions. FORK_SECONDS: how long each case forks
 * (1).
 */
#include "alloc/fork.h"

#include "tests/faults/fork_kit.h"

#include <spawn.h>

/* Of a case, however slow the machine. */
#define FORKS_LEAST 15

/* ---- forking --------------------------------------------------------------------------------- */

static void fork_once(uint64_t *random)
{
    usleep((useconds_t)(harness_random(random) % 400));
    uint64_t draw = harness_random(random);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        be_child(draw, 1);
        _exit(0);
    }
    watch_child(child, "a child");
    for (unsigned n = 0; n < 20; n++)
        exchange(random);
}

static void keep_some(uint64_t *random)
{
    for (unsigned n = 0; n < KEPT; n++)
        kept[n] = object_make(some_bytes(random));
}

static _Atomic unsigned forks;

/* For some seconds; the argument is not used. Any thread. */
static void *fork_on(void *unused)
{
    const char *given = getenv("FORK_SECONDS");
    int64_t end = harness_now_ms() + (given != NULL ? atoi(given) : 1) * 1000;
    uint64_t random = harness_seed();
    keep_some(&random);
    while (harness_now_ms() < end || atomic_load(&forks) < FORKS_LEAST) {
        fork_once(&random);
        atomic_fetch_add(&forks, 1);
    }
    for (unsigned n = 0; n < KEPT; n++)
        object_drop(kept[n]);
    return unused;
}

static void open_wall(void)
{
    struct hak_config config = kit_config(WALL_BYTES);
    CHECK_EQ(hak_region_create(&config, &wall), 0);
}

static void close_all(void)
{
    struct hak_stats stats;
    for (unsigned n = 0; n < SHARED; n++)
        object_drop(atomic_exchange(&shared[n], NULL));
    kit_check_empty();
    CHECK(heap_check(wall));
    CHECK_EQ(hak_region_stats(wall, &stats), 0);
    CHECK_EQ(stats.free_bytes, stats.size_bytes);
    CHECK_EQ(hak_region_destroy(wall), 0);
    kit_forget_last();
}

/* Forks while the given kinds of threads are at work; from the case's own thread, or another. */
static void fork_among(const size_t *kinds, unsigned count, bool from_another)
{
    pthread_t threads[16];
    atomic_store(&stop, false);
    atomic_store(&forks, 0);
    for (unsigned n = 0; n < count; n++)
        threads[n] = kit_thread(be_busy, (void *)(uintptr_t)kinds[n]);
    if (from_another)
        kit_elsewhere(fork_on, NULL);
    else
        fork_on(NULL);
    atomic_store(&stop, true);
    for (unsigned n = 0; n < count; n++)
        kit_join(threads[n]);
    printf("%u forks\n", atomic_load(&forks));
    close_all();
}

static const size_t every_kind[] = {0, 1, 2, 3, 4, 5, 6, 7};
static const size_t some_of_all[] = {STEP_COUNT, STEP_COUNT};

static void open_config(enum hak_pages pages, enum hak_switch prefault)
{
    struct hak_config config = kit_config(64 * MIB);
    kit_forget_last();
    config.pages[0] = pages;
    config.prefault = prefault;
    kit_start(&config);
    open_wall();
}

TEST(fork_among_eight_threads_each_of_its_own_kind)
{
    open_config(HAK_PAGES_4K, HAK_OFF);
    fork_among(every_kind, 8, false);
}

TEST(fork_among_two_threads_with_memory_faulted_in)
{
    open_config(HAK_PAGES_4K, HAK_ON);
    fork_among(some_of_all, 2, false);
}

TEST(fork_from_another_thread_than_main)
{
    open_config(HAK_PAGES_4K, HAK_OFF);
    fork_among(some_of_all, 2, true);
}

TEST(fork_with_transparent_huge_pages)
{
    if (!supply_thp())
        SKIP("no transparent huge pages here");
    open_config(HAK_PAGES_THP, HAK_OFF);
    fork_among(every_kind, 8, false);
}

TEST(fork_with_objects_of_two_nodes)
{
    kit_open_two_nodes(64 * MIB, HAK_EXHAUSTED_ANY_NODE);
    open_wall();
    fork_among(every_kind, 8, false);
    topology_fake(0);
}

/* ---- in a reclaimer -------------------------------------------------------------------------- */

static unsigned reclaims;

/* Forks on its way; the child goes back into the allocation that called it. */
static void fork_and_reclaim(hak_region *region, size_t bytes, void *argument)
{
    uint64_t random = 77;
    CHECK(region == wall && bytes > 0);
    if (++reclaims % 8 == 0) {
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            begin_child();
            (void)churn((void *)(uintptr_t)++random);
        } else {
            watch_child(child, "a child of a reclaimer");
        }
    }
    hak_region_free(region, *(void **)argument);
    *(void **)argument = NULL;
}

TEST(fork_in_a_reclaimer)
{
    static void *objects[20000];
    pid_t parent = getpid();
    pthread_t thread;
    void *spare;
    open_config(HAK_PAGES_4K, HAK_OFF);
    atomic_store(&stop, false);
    thread = kit_thread(be_busy, (void *)(uintptr_t)0);
    for (unsigned round = 0; round < 100; round++) {
        size_t count = 0;
        spare = hak_region_malloc(wall, MIB);
        CHECK(spare != NULL);
        CHECK_EQ(hak_on_exhausted(wall, fork_and_reclaim, &spare), 0);
        while ((objects[count] = hak_region_malloc(wall, 30000)) != NULL)
            count++;
        CHECK(spare == NULL);
        CHECK_EQ(hak_on_exhausted(wall, NULL, NULL), 0);
        while (count > 0)
            hak_region_free(wall, objects[--count]);
        if (getpid() != parent) {
            have_a_region(2 * MIB);
            begin_anew(5);
            _exit(0);
        }
    }
    CHECK_GE(reclaims, 100);
    atomic_store(&stop, true);
    kit_join(thread);
    close_all();
}

/* ---- children that share the parent's memory ------------------------------------------------- */

TEST(spawning_among_busy_threads)
{
    pthread_t threads[4];
    char *arguments[] = {(char[]){"true"}, NULL};
    open_config(HAK_PAGES_4K, HAK_OFF);
    atomic_store(&stop, false);
    for (uintptr_t n = 0; n < 4; n++)
        threads[n] = kit_thread(be_busy, (void *)(n == 3 ? STEP_COUNT : n));
    for (unsigned n = 0; n < 60; n++) {
        pid_t child;
        if (n % 2 == 0) {
            CHECK_EQ(posix_spawnp(&child, "true", NULL, NULL, arguments, environ), 0);
        } else {
            child = vfork(); /* NOLINT(clang-analyzer-security.*): it is what is tested */
            if (child == 0) {
                execvp("true", arguments);
                _exit(127);
            }
        }
        watch_child(child, "true");
    }
    atomic_store(&stop, true);
    for (unsigned n = 0; n < 4; n++)
        kit_join(threads[n]);
    close_all();
}

/* ---- hugetlb pages --------------------------------------------------------------------------- */

static void live_without(void)
{
    begin_child();
    CHECK(hak_region_default() == NULL);
    for (unsigned n = 0; n < KEPT; n++)
        hak_free(kept[n]);
    CHECK(hak_malloc(100) == NULL);
    hak_thread_idle();
    kit_open(16 * MIB);
    (void)churn((void *)(uintptr_t)3);
    kit_elsewhere(churn, (void *)(uintptr_t)4);
    kit_close();
    _exit(0);
}

TEST(fork_with_pages_that_children_do_not_get)
{
    struct hak_config config = kit_config(32 * MIB);
    pthread_t threads[2];
    uint64_t random = harness_seed();
    kit_forget_last();
    want_free(HAK_PAGES_2M, 24);
    config.pages[0] = HAK_PAGES_2M;
    kit_start(&config);
    atomic_store(&stop, false);
    keep_some(&random);
    for (uintptr_t n = 0; n < 2; n++)
        threads[n] = kit_thread(be_busy, (void *)(n * 3)); /* exchange, bulk */
    for (unsigned n = 0; n < 60; n++) {
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0)
            live_without();
        watch_child(child, "a child");
        exchange(&random);
    }
    atomic_store(&stop, true);
    for (unsigned n = 0; n < 2; n++)
        kit_join(threads[n]);
    for (unsigned n = 0; n < KEPT; n++)
        object_drop(kept[n]);
    for (unsigned n = 0; n < SHARED; n++)
        object_drop(atomic_exchange(&shared[n], NULL));
    kit_close();
}

/* ---- before there is a region ---------------------------------------------------------------- */

static struct harness_result result;
static _Atomic unsigned set_up;

static void *set_up_once(void *unused)
{
    struct hak_config config = kit_config(512 * MIB);
    config.prefault = HAK_ON;
    atomic_store(&set_up, 1);
    CHECK_EQ(hak_region_init(&config), 0);
    atomic_store(&set_up, 2);
    return unused;
}

/* fork(3) has begun; before it is done another thread is in the middle of the first set-up. */
static void let_set_up_begin(void)
{
    if (atomic_load(&set_up) == 0) {
        pthread_t thread = kit_thread(set_up_once, NULL);
        CHECK_EQ(pthread_detach(thread), 0);
        while (atomic_load(&set_up) == 0)
            usleep(100);
        usleep(2000);
    }
}

static void fork_in_the_first_set_up(void *unused)
{
    (void)unused;
    /* As the C library comes: the last that was registered is the first to be called. */
    CHECK_EQ(pthread_atfork(let_set_up_begin, NULL, NULL), 0);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        begin_child();
        alarm(5);
        kit_open(16 * MIB);
        (void)churn((void *)(uintptr_t)3);
        kit_close();
        _exit(0);
    }
    watch_child(child, "a child");
    while (atomic_load(&set_up) != 2)
        usleep(1000);
    kit_forget_last();
}

TEST(fork_in_the_middle_of_the_first_set_up)
{
    run_apart(&result, fork_in_the_first_set_up, NULL);
}

static _Atomic unsigned starting;

static void do_nothing(unsigned worker, void *argument)
{
    (void)worker;
    (void)argument;
}

static void *start_workers(void *unused)
{
    atomic_store(&starting, 1);
    CHECK_EQ(hak_worker_start(200, do_nothing, NULL), 0);
    CHECK_EQ(hak_worker_join(), 0);
    atomic_store(&starting, 2);
    return unused;
}

static void let_workers_begin(void)
{
    if (atomic_load(&starting) == 0) {
        CHECK_EQ(pthread_detach(kit_thread(start_workers, NULL)), 0);
        while (atomic_load(&starting) == 0)
            usleep(100);
        usleep(1000);
    }
}

static void fork_in_the_first_start(void *unused)
{
    (void)unused;
    CHECK_EQ(pthread_atfork(let_workers_begin, NULL, NULL), 0);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        begin_child();
        CHECK_EQ(hak_worker_start(2, do_nothing, NULL), 0);
        CHECK_EQ(hak_worker_join(), 0);
        _exit(0);
    }
    watch_child(child, "a child");
    while (atomic_load(&starting) != 2)
        usleep(1000);
}

TEST(fork_in_the_middle_of_the_first_start_of_workers)
{
    run_apart(&result, fork_in_the_first_start, NULL);
}

static void *idle_all_the_time(void *unused)
{
    while (!atomic_load(&stop))
        hak_thread_idle();
    return unused;
}

static void fork_without_a_region(void *set_up_before)
{
    pthread_t thread;
    if (set_up_before != NULL) {
        kit_open(4 * MIB);
        kit_close();
    }
    atomic_store(&stop, false);
    thread = kit_thread(idle_all_the_time, NULL);
    for (unsigned n = 0; n < 50; n++) {
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            begin_child();
            alarm(5);
            kit_open(4 * MIB);
            hak_free(hak_malloc(100));
            kit_close();
            _exit(0);
        }
        watch_child(child, "a child");
    }
    atomic_store(&stop, true);
    kit_join(thread);
}

TEST(fork_while_there_is_no_region_yet_or_no_more)
{
    run_apart(&result, fork_without_a_region, NULL);
    run_apart(&result, fork_without_a_region, &result);
}

HARNESS_MAIN()
