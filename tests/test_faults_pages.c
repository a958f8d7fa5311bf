/* SPDX-License-Identifier: MIT */
/*
 * Reserved huge pages that go while a region is on its way: taken by another process between the
 * plan and the set-up, taken out of the pool between the reservation and the fault-in, taken and
 * given back all the time. The set-up falls back as its list allows, or fails by -ENOMEM with
 * figures; nobody gets a SIGBUS. (tests/test_rollback.c takes them at the moment of mapping.)
 */
#define _GNU_SOURCE
#include "alloc/heap.h"
#include "tests/faults/warden.h"
#include "tests/left_kit.h"

#define PAGE (2 * MIB)
#define REGION_PAGES 8

static struct harness_result result;
static struct hak_error error;
static struct hak_plan plan;

static const struct hak_config strict = {
    .size_bytes = REGION_PAGES * PAGE, .pages = {HAK_PAGES_2M}, .prefault = HAK_ON};
static const struct hak_config yielding = {
    .size_bytes = REGION_PAGES * PAGE, .pages = {HAK_PAGES_2M, HAK_PAGES_4K}, .prefault = HAK_ON};

/* ---- another process ------------------------------------------------------------------------- */

static void *take_pages(size_t count)
{
    return mmap(NULL, count * PAGE, PROT_READ | PROT_WRITE,
                MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | MAP_POPULATE | (21 << MAP_HUGE_SHIFT),
                -1, 0);
}

struct competitor {
    pid_t process;
    int line; /* closed: it gives back and ends */
};

/* Has count pages in its hands when this returns. */
static struct competitor compete(size_t count)
{
    struct competitor it;
    int to[2], from[2];
    char byte;
    CHECK_EQ(pipe(to), 0);
    CHECK_EQ(pipe(from), 0);
    it.process = fork();
    CHECK(it.process >= 0);
    if (it.process == 0) {
        close(to[1]);
        byte = take_pages(count) != MAP_FAILED;
        (void)!write(from[1], &byte, 1);
        (void)!read(to[0], &byte, 1);
        _exit(0);
    }
    close(to[0]);
    CHECK_EQ(read(from[0], &byte, 1), 1);
    close(from[0]);
    close(from[1]);
    it.line = to[1];
    if (byte == 0)
        SKIP("%zu huge pages cannot be taken here", count);
    return it;
}

static void end_competitor(struct competitor it)
{
    close(it.line);
    CHECK_EQ(waitpid(it.process, NULL, 0), it.process);
}

static size_t few_free_pages(void)
{
    want_free(HAK_PAGES_2M, REGION_PAGES + 4);
    size_t count = (size_t)supply_unpromised(HAK_PAGES_2M);
    if (count > 256)
        SKIP("too many free huge pages to take them all");
    return count;
}

/* ---- the region ------------------------------------------------------------------------------ */

static enum hak_pages pages_of_default(void)
{
    struct hak_stats stats;
    CHECK_EQ(hak_region_stats(NULL, &stats), 0);
    CHECK_EQ(stats.pages_wanted, HAK_PAGES_2M);
    return stats.pages;
}

/* Writes to all of it, which is where a page that is not there would show. */
static void use_all(void)
{
    struct hak_region *heap = hak_region_default();
    memset((void *)heap->area.base, 0x11, heap->area.bytes);
    hak_free(hak_malloc(1000));
    CHECK(heap_check(heap));
    CHECK_EQ(hak_region_fini(), 0);
}

static void check_figures(int code, const char *figures)
{
    CHECK_EQ(code, -ENOMEM);
    CHECK_EQ(hak_last_error(&error), code);
    CHECK_EQ(error.kind, HAK_ERROR_SETUP);
    CHECK_STR_HAS(error.message, "2M pages:");
    CHECK_STR_HAS(error.message, figures);
    CHECK(hak_region_default() == NULL);
}

static void taken_after_the_plan(void *count)
{
    CHECK_EQ(hak_region_plan(&strict, &plan), 0);
    CHECK_EQ(plan.code, 0);
    struct competitor other = compete(*(size_t *)count - 3);
    left_note();
    check_figures(hak_region_init(&strict), "needs 8, 3 free of a pool of");
    CHECK_STR_HAS(error.message, "5 missing");
    CHECK_STR_HAS(error.remedy, "nr_hugepages");
    LEFT_NOTHING();
    CHECK_EQ(hak_region_init(&yielding), 0);
    CHECK_EQ(pages_of_default(), HAK_PAGES_4K);
    use_all();
    end_competitor(other);
    CHECK_EQ(hak_region_init(&strict), 0);
    CHECK_EQ(pages_of_default(), HAK_PAGES_2M);
    use_all();
}

TEST(taken_by_another_process_between_plan_and_set_up)
{
    size_t count = few_free_pages();
    run_apart(&result, taken_after_the_plan, &count);
}

/* ---- out of the pool ------------------------------------------------------------------------- */

static bool shrunk;

/* At the first fault-in, when the pages are promised to the mapping and none is there yet: the
 * pool's size is set to nothing. */
static long shrink_pool(const struct seccomp_data *call)
{
    if (!shrunk && call->nr == SYS_madvise && call->args[2] == MADV_POPULATE_WRITE)
        shrunk = write_pool(pools[0].path, "0");
    return 0;
}

static void shrunk_meanwhile(void *unused)
{
    struct supply_pool pool;
    (void)unused;
    warden_begin();
    shrunk = false;
    warden.look = shrink_pool;
    warden_arm((struct warden_fault){.at = 0});
    int code = hak_region_init(&strict);
    (void)warden_disarm();
    CHECK(shrunk);
    CHECK_EQ(code, 0); /* what is promised stays, as surplus */
    CHECK_EQ(pages_of_default(), HAK_PAGES_2M);
    CHECK_EQ(supply_pool_read(first_node(), HAK_PAGES_2M, &pool), 0);
    CHECK_EQ(pool.free_pages, 0);
    use_all();
    check_figures(hak_region_init(&strict), "8 missing"); /* and then it is gone */
    CHECK_EQ(hak_region_init(&yielding), 0);
    CHECK_EQ(pages_of_default(), HAK_PAGES_4K);
    use_all();
}

/* The body shrinks the pool; its size is put back here, whatever becomes of the body. */
static void run_and_put_back(void (*body)(void *))
{
    struct supply_pool pool;
    char before[24];
    (void)few_free_pages();
    if (access(pools[0].path, W_OK) != 0)
        SKIP("the pool cannot be changed here");
    CHECK_EQ(supply_pool_read(first_node(), HAK_PAGES_2M, &pool), 0);
    snprintf(before, sizeof before, "%llu", (unsigned long long)pool.total_pages);
    harness_child(body, NULL, &result);
    CHECK(write_pool(pools[0].path, before));
    if (result.exit_status == HARNESS_EXIT_SKIPPED)
        SKIP("%s", result.output);
    if (result.exit_status != 0)
        FAIL("status %d, signal %d: %s", result.exit_status, result.signal, result.output);
}

TEST(taken_out_of_the_pool_between_reservation_and_fault_in)
{
    run_and_put_back(shrunk_meanwhile);
}

static void without_prefault(void *unused)
{
    struct hak_config lazy = strict;
    (void)unused;
    lazy.prefault = HAK_OFF;
    CHECK_EQ(hak_region_init(&lazy), 0);
    CHECK(write_pool(pools[0].path, "0"));
    use_all(); /* the kernel had promised every page */
}

TEST(taken_out_of_the_pool_before_the_first_use)
{
    run_and_put_back(without_prefault);
}

/* ---- back and forth -------------------------------------------------------------------------- */

/* Another process takes nearly all and lets go, with pauses of its own, until it is killed. */
static pid_t take_and_let_go(size_t count, uint64_t random)
{
    pid_t process = fork();
    CHECK(process >= 0);
    if (process != 0)
        return process;
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (;;) {
        void *taken = take_pages(count);
        usleep((useconds_t)(harness_random(&random) % 2000));
        if (taken != MAP_FAILED)
            munmap(taken, count * PAGE);
        usleep((useconds_t)(harness_random(&random) % 4000));
    }
}

static void taken_all_the_time(void *count)
{
    unsigned got = 0, missed = 0, other = 0;
    uint64_t random = harness_seed();
    pid_t process = take_and_let_go(*(size_t *)count - 1, random);
    for (unsigned round = 0; round < 200; round++) {
        int code = hak_region_init(round % 2 == 0 ? &strict : &yielding);
        if (code != 0) {
            CHECK_EQ(round % 2, 0);
            check_figures(code, "pool");
            missed++;
            continue;
        }
        got += pages_of_default() == HAK_PAGES_2M;
        other += pages_of_default() == HAK_PAGES_4K;
        use_all();
    }
    kill(process, SIGKILL);
    CHECK_EQ(waitpid(process, NULL, 0), process);
    printf("%u times huge pages, %u times others, %u times none\n", got, other, missed);
    CHECK(got > 0 && other + missed > 0);
}

TEST(taken_and_given_back_all_the_time)
{
    size_t count = few_free_pages();
    run_apart(&result, taken_all_the_time, &count);
    printf("%s", result.output);
}

HARNESS_MAIN()
