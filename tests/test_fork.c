/* SPDX-License-Identifier: MIT */
/*
 * fork(2), in the middle of whatever the parent's threads do. Each case's child is one of
 * harness_child, so its fork is what is being tested: from then on both sides use their region, and
 * neither sees or loses anything of the other's.
 */
#include "alloc/fork.h"

#include "tests/heap_kit.h"
#include "tests/memory_kit.h"

#include <sched.h>
#include <spawn.h>
#include <sys/mman.h>

#define LIVE 256
#define KEPT 200
#define THREADS 3

static hak_region *region; /* NULL: the default one */
static struct harness_result result;

struct item {
    unsigned char *bytes;
    size_t size;
    unsigned char mark;
};

static struct item kept[THREADS + 1][KEPT];
static _Atomic unsigned busy_count;
static _Atomic bool stop;

/* ---- objects that know their contents ------------------------------------------------------ */

static bool item_make(struct item *item, size_t size, unsigned char mark)
{
    *item = (struct item){.bytes = hak_region_malloc(region, size), .size = size, .mark = mark};
    if (item->bytes != NULL) {
        memset(item->bytes, mark, size);
    }
    return item->bytes != NULL;
}

static void item_check(const struct item *item)
{
    for (size_t at = 0; item->bytes != NULL && at < item->size; at++) {
        if (item->bytes[at] != item->mark) {
            FAIL("byte %zu of an object of %zu is 0x%x, not 0x%x", at, item->size, item->bytes[at],
                 item->mark);
        }
    }
}

static void item_drop(struct item *item)
{
    item_check(item);
    hak_region_free(region, item->bytes);
    item->bytes = NULL;
}

static size_t some_size(uint64_t *random)
{
    uint64_t kind = harness_random(random) % 100;
    uint64_t draw = harness_random(random);

    return kind < 80 ? draw % 2000 : kind < 97 ? draw % 40000 : draw % (400 * KIB);
}

/* Allocates and frees in all sizes; every object's contents are looked at before it goes. */
static void churn(uint64_t *random, unsigned steps)
{
    struct item live[LIVE] = {{NULL, 0, 0}};

    for (unsigned n = 0; n < steps; n++) {
        struct item *item = &live[harness_random(random) % LIVE];
        item_drop(item);
        if (!item_make(item, some_size(random), (unsigned char)harness_random(random))) {
            FAIL("no room for %zu bytes", item->size);
        }
    }
    for (unsigned n = 0; n < LIVE; n++) {
        item_drop(&live[n]);
    }
}

static void keep_some(unsigned who, uint64_t *random)
{
    for (unsigned n = 0; n < KEPT; n++) {
        CHECK(item_make(&kept[who][n], some_size(random), (unsigned char)harness_random(random)));
    }
}

static void check_kept(void)
{
    for (unsigned who = 0; who <= THREADS; who++) {
        for (unsigned n = 0; n < KEPT; n++) {
            item_check(&kept[who][n]);
        }
    }
}

static void drop_kept(unsigned who)
{
    for (unsigned n = 0; n < KEPT; n++) {
        item_drop(&kept[who][n]);
    }
}

/* ---- threads of the parent ----------------------------------------------------------------- */

static void *busy(void *who)
{
    uint64_t random = harness_seed() + (uintptr_t)who;

    keep_some((unsigned)(uintptr_t)who, &random);
    atomic_fetch_add(&busy_count, 1);
    while (!atomic_load(&stop)) {
        churn(&random, 500);
    }
    drop_kept((unsigned)(uintptr_t)who);
    return NULL;
}

static void start_busy(pthread_t *threads)
{
    int64_t deadline = harness_now_ms() + 60000;

    (void)harness_seed();
    atomic_store(&busy_count, 0);
    atomic_store(&stop, false);
    for (uintptr_t n = 0; n < THREADS; n++) {
        threads[n] = kit_thread(busy, (void *)(n + 1));
    }
    while (atomic_load(&busy_count) < THREADS) {
        CHECK(harness_now_ms() < deadline);
        sched_yield();
    }
}

static void stop_busy(const pthread_t *threads)
{
    atomic_store(&stop, true);
    for (unsigned n = 0; n < THREADS; n++) {
        kit_join(threads[n]);
    }
}

static void in_child(void (*run)(void *), void *argument)
{
    harness_child_seconds = 20;
    harness_child(run, argument, &result);
    if (result.exit_status != 0) {
        FAIL("the child's exit status %d, signal %d, timed out %d: %s", result.exit_status,
             result.signal, result.timed_out, result.output);
    }
}

/* ---- both go on ---------------------------------------------------------------------------- */

static void *churn_in_thread(void *seed)
{
    uint64_t random = (uintptr_t)seed;

    churn(&random, 1000);
    return NULL;
}

/* The objects of everybody are there; the child's own are new; the old ones can be freed. */
static void go_on(void *round)
{
    uint64_t random = harness_seed() + *(unsigned *)round * 1000;

    check_kept();
    churn(&random, 2000);
    kit_elsewhere(churn_in_thread, (void *)(uintptr_t)(random | 1));
    check_kept();
    for (unsigned who = 0; who <= THREADS; who++) {
        drop_kept(who);
    }
    churn(&random, 1000);
    hak_thread_idle();
    churn(&random, 100);
}

static void fork_while_busy(void)
{
    pthread_t threads[THREADS];
    uint64_t random = harness_seed();

    keep_some(0, &random);
    start_busy(threads);
    for (unsigned round = 0; round < 12; round++) {
        in_child(go_on, &round);
        check_kept();
        churn(&random, 500);
    }
    stop_busy(threads);
    drop_kept(0);
}

static void fork_with_pages(enum hak_pages pages)
{
    struct hak_config config = kit_config(128 * MIB);

    kit_forget_last();
    region = NULL;
    config.pages[0] = pages;
    config.prefault = HAK_OFF;
    if (pages == HAK_PAGES_THP && hak_region_init(&config) != 0) {
        SKIP("no transparent huge pages here");
    } else if (pages != HAK_PAGES_THP) {
        kit_start(&config);
    }
    fork_while_busy();
    kit_close();
}

TEST(parent_and_child_go_on_with_small_pages)
{
    fork_with_pages(HAK_PAGES_4K);
}

TEST(parent_and_child_go_on_with_transparent_huge_pages)
{
    fork_with_pages(HAK_PAGES_THP);
}

TEST(parent_and_child_go_on_in_adopted_private_memory)
{
    size_t bytes = 130 * MIB;
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct hak_config config = {.misuse = HAK_MISUSE_ABORT};
    struct hak_stats stats;

    CHECK(memory != MAP_FAILED);
    kit_forget_last();
    CHECK_EQ(hak_region_adopt(memory, bytes, -1, &config, &region, NULL), 0);
    fork_while_busy();
    thread_detach_all();
    CHECK(heap_check(region));
    CHECK_EQ(hak_region_stats(region, &stats), 0);
    CHECK_EQ(stats.free_bytes, stats.size_bytes);
    CHECK_EQ(hak_region_destroy(region), 0);
    region = NULL;
    CHECK_EQ(munmap(memory, bytes), 0);
}

/* ---- a child without the parent's threads -------------------------------------------------- */

static void check_books(void *unused)
{
    uint64_t random = 7;

    (void)unused;
    CHECK(heap_check(hak_region_default()));
    check_kept();
    churn(&random, 3000);
    CHECK(heap_check(hak_region_default()));
    drop_kept(0);
    kit_check_empty(); /* every byte of it is the child's to use */
    void *all = hak_malloc(hak_region_default()->area.bytes);
    CHECK(all != NULL);
    hak_free(all);
}

TEST(a_child_of_a_single_thread_has_the_whole_region)
{
    uint64_t random = harness_seed();

    kit_open(64 * MIB);
    region = NULL;
    keep_some(0, &random);
    for (unsigned round = 0; round < 3; round++) {
        in_child(check_books, NULL);
        check_kept();
        CHECK(heap_check(hak_region_default()));
        churn(&random, 1000);
    }
    drop_kept(0);
    kit_close();
}

/* ---- a child's own life -------------------------------------------------------------------- */

#define WAITERS 16

static struct kit_turns turns;
static _Atomic unsigned waiting;

static void *hold_and_wait(void *unused)
{
    void *object = hak_malloc(64);

    atomic_fetch_add(&waiting, 1);
    kit_wait(&turns, 1);
    hak_free(object);
    return unused;
}

/* New threads make the C library unmap stacks of the parent's threads, and with them the pointers
 * that those had to their slots. */
static void end_and_begin_again(void *unused)
{
    uint64_t random = 11;

    (void)unused;
    for (uintptr_t n = 1; n <= 3; n++) {
        kit_elsewhere(churn_in_thread, (void *)n);
    }
    CHECK_EQ(hak_region_fini(), 0);
    CHECK_EQ(hak_region_fini(), -ENODEV);
    CHECK(hak_malloc(64) == NULL);
    kit_open(16 * MIB);
    churn(&random, 500);
    kit_elsewhere(churn_in_thread, (void *)(uintptr_t)4);
    kit_close();
}

static void exit_with_handlers(void *unused)
{
    uint64_t random = 12;

    (void)unused;
    churn(&random, 500);
    exit(0);
}

TEST(a_child_makes_threads_ends_the_region_and_begins_again)
{
    pthread_t threads[WAITERS];
    int64_t deadline = harness_now_ms() + 60000;
    uint64_t random = 13;

    kit_open_with(64 * MIB, "HAKMEM_WARM_POOL_STATS", "1");
    region = NULL;
    kit_done(&turns, 0);
    atomic_store(&waiting, 0);
    for (unsigned n = 0; n < WAITERS; n++) {
        threads[n] = kit_thread(hold_and_wait, NULL);
    }
    while (atomic_load(&waiting) < WAITERS) {
        CHECK(harness_now_ms() < deadline);
        sched_yield();
    }
    in_child(end_and_begin_again, NULL);
    in_child(exit_with_handlers, NULL);
    CHECK_STR_HAS(result.output, "warm pool"); /* what it prints at exit */
    churn(&random, 500);
    kit_done(&turns, 1);
    for (unsigned n = 0; n < WAITERS; n++) {
        kit_join(threads[n]);
    }
    kit_close();
}

/* ---- hugetlb pages ------------------------------------------------------------------------- */

static void open_huge(void)
{
    struct hak_config config = kit_config(8 * MIB);

    kit_forget_last();
    region = NULL;
    want_free(HAK_PAGES_2M, 24);
    config.pages[0] = HAK_PAGES_2M;
    CHECK_EQ(kit_start(&config)->area.pages, HAK_PAGES_2M);
}

static void live_without(void *object)
{
    struct hak_stats stats;
    struct hak_error error;
    uint64_t random = 17;

    for (size_t size = 16; size <= MIB; size *= 4) {
        errno = 0;
        CHECK(hak_malloc(size) == NULL);
        CHECK_EQ(errno, ENOMEM);
    }
    CHECK(hak_calloc(4, 100) == NULL);
    CHECK(hak_aligned_alloc(4096, 100) == NULL);
    CHECK(hak_malloc_on_node(100, 0) == NULL);
    CHECK_EQ(hak_last_error(&error), -ENOMEM);
    CHECK_EQ(error.kind, HAK_ERROR_NO_REGION);
    CHECK_EQ(hak_malloc_bulk(64, 1, &(void *){NULL}), 0);
    CHECK(hak_realloc(object, 5000) == NULL);
    CHECK_EQ(hak_usable_size(object), 0);
    hak_free(object);
    hak_free_bulk(&object, 1);
    CHECK(hak_region_default() == NULL);
    CHECK_EQ(hak_region_stats(NULL, &stats), -ENODEV);
    CHECK_EQ(hak_region_fini(), -ENODEV);
    hak_thread_idle();

    kit_open(16 * MIB); /* it may have one of its own */
    churn(&random, 500);
    kit_elsewhere(churn_in_thread, (void *)(uintptr_t)3);
    kit_close();
}

TEST(a_region_on_huge_pages_does_not_exist_in_the_child)
{
    struct item mine;

    open_huge();
    CHECK(item_make(&mine, 3000, 0x6b));
    hak_free(hak_malloc(64));
    in_child(live_without, mine.bytes);
    hak_free(hak_malloc(64));
    item_drop(&mine);
    kit_close();
}

/* ---- children that share the parent's memory ----------------------------------------------- */

/* What a child of vfork(2) may find itself doing: its C library's exec functions allocate. */
static int share_and_exit(void *object)
{
    void *mine = hak_malloc(100);
    void *large = hak_malloc(300 * KIB);
    bool good = mine != NULL && large != NULL && hak_usable_size(object) >= 3000;

    hak_free(mine);
    hak_free(large);
    _exit(good ? 0 : 1);
}

/* vfork, with a stack of the child's own. */
static void run_sharing(void *object)
{
    static unsigned char stack[256 << 10] __attribute__((aligned(64)));
    int status = 0;
    pid_t child = clone(share_and_exit, stack + sizeof(stack), CLONE_VM | CLONE_VFORK | SIGCHLD,
                        object);

    CHECK(child > 0);
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK_EQ(status, 0);
}

static void spawn_true(void)
{
    char *arguments[] = {(char[]){"true"}, NULL};
    int status = 0;
    pid_t child;

    CHECK_EQ(posix_spawnp(&child, "true", NULL, NULL, arguments, environ), 0);
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK_EQ(status, 0);
}

static void check_undisturbed(void)
{
    struct item mine;
    struct hak_stats before, after;
    uint64_t random = 19;

    CHECK(item_make(&mine, 3000, 0x3c));
    spawn_true(); /* once before: what the C library needs for it is there then */
    read_maps(maps_before, sizeof(maps_before));
    run_sharing(mine.bytes);
    before = kit_stats();
    spawn_true();
    after = kit_stats();
    CHECK_EQ(after.threads, before.threads);
    CHECK_EQ(after.free_bytes, before.free_bytes);
    CHECK_EQ(after.slab_free_bytes, before.slab_free_bytes);
    CHECK_EQ(after.refilled_objects, before.refilled_objects);
    CHECK_EQ(after.misuses, 0);
    CHECK_NOTHING_LEFT();
    churn(&random, 100);
    item_drop(&mine);
    kit_close();
}

TEST(children_that_share_memory_leave_the_region_alone)
{
    kit_open(8 * MIB);
    region = NULL;
    check_undisturbed();
}

TEST(children_that_share_memory_leave_huge_pages_alone)
{
    open_huge();
    check_undisturbed();
}

/* ---- the error record ---------------------------------------------------------------------- */

static void ask_own_record(void *unused)
{
    struct hak_error error;

    (void)unused;
    /* The forking thread's record came along ... */
    CHECK_EQ(hak_last_error(&error), -ENOMEM);
    CHECK_EQ(error.kind, HAK_ERROR_EXHAUSTED);
    CHECK_EQ(error.size_bytes, 100 * MIB);
    /* ... and makes way for the child's own. */
    CHECK(hak_malloc(200 * MIB) == NULL);
    CHECK_EQ(hak_last_error(&error), -ENOMEM);
    CHECK_EQ(error.size_bytes, 200 * MIB);
    CHECK_EQ(hak_thread_pin(-5), -EINVAL);
    CHECK_EQ(hak_last_error(&error), -EINVAL);
    CHECK_EQ(error.kind, HAK_ERROR_SETUP);
    CHECK_STR_HAS(error.message, "-5");
}

TEST(the_last_error_is_there_in_the_child)
{
    struct hak_error error;

    kit_open(8 * MIB);
    CHECK(hak_malloc(100 * MIB) == NULL);
    in_child(ask_own_record, NULL);
    CHECK_EQ(hak_last_error(&error), -ENOMEM);
    CHECK_EQ(error.size_bytes, 100 * MIB);
    kit_close();
}

/* Keeps the record's lock taken most of the time. */
static void *err_all_the_time(void *unused)
{
    while (!atomic_load(&stop)) {
        (void)hak_thread_pin(-1);
    }
    return unused;
}

static void record_one_more(void *unused)
{
    struct hak_error error;

    (void)unused;
    CHECK_EQ(hak_thread_pin(-7), -EINVAL);
    CHECK_EQ(hak_last_error(&error), -EINVAL);
    CHECK_STR_HAS(error.message, "-7");
}

TEST(a_record_that_was_being_written_is_no_obstacle_in_the_child)
{
    pthread_t threads[THREADS];

    kit_open(4 * MIB);
    atomic_store(&stop, false);
    for (unsigned n = 0; n < THREADS; n++) {
        threads[n] = kit_thread(err_all_the_time, NULL);
    }
    for (unsigned n = 0; n < 60; n++) {
        in_child(record_one_more, NULL);
    }
    stop_busy(threads);
    kit_close();
}

HARNESS_MAIN()
