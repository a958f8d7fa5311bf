/* SPDX-License-Identifier: MIT */
/*
 * Too little of something: the error says what was asked, what is there and what is missing, the
 * remedy mends it, nothing stays mapped, and nobody is killed.
 */
#define _GNU_SOURCE
#include "region/shortage.h"

#include "region/backing.h"
#include "region/faultin.h"
#include "tests/memory_kit.h"

#include <sys/mman.h>
#include <sys/stat.h>

static struct backing backing;
static struct hak_error error;

/* ---- huge pages -------------------------------------------------------------------------------*/

TEST(too_few_huge_pages_are_counted_and_the_remedy_mends_it)
{
    struct held_pool *held = hold_pool(HAK_PAGES_2M);
    struct supply_pool pool;
    char text[320];
    CHECK_EQ(supply_pool_read(first_node(), HAK_PAGES_2M, &pool), 0);
    struct settings settings = ask((pool.free_pages + 64) * 2 * MIB, HAK_PAGES_2M,
                                   HAK_PAGES_DEFAULT, true);
    settings.nodes = UINT64_C(1) << first_node();
    read_maps(maps_before, sizeof maps_before);
    CHECK_EQ(backing_create(&settings, &backing, &error), -ENOMEM);
    CHECK_NOTHING_LEFT();
    CHECK(backing.base == NULL && backing.segment_count == 0);
    CHECK_EQ(error.kind, HAK_ERROR_SETUP);
    CHECK_EQ(error.code, -ENOMEM);
    CHECK_EQ(error.node, first_node());
    CHECK_EQ(error.size_bytes, settings.size_bytes);
    CHECK_EQ(error.free_bytes, pool.free_pages * 2 * MIB);
    snprintf(text, sizeof text,
             "a region of %zu MiB over 1 node cannot be had: 2M pages: node %d "
             "needs %llu, %llu free of a pool of %llu, 64 missing",
             settings.size_bytes / MIB, first_node(), (unsigned long long)pool.free_pages + 64,
             (unsigned long long)pool.free_pages, (unsigned long long)pool.total_pages);
    CHECK_STR_HAS(error.message, text);
    snprintf(text, sizeof text, "echo %llu > %s\n", (unsigned long long)pool.total_pages + 64,
             held->path);
    CHECK_EQ(strcmp(error.remedy, text), 0);
    if (geteuid() != 0 || system(error.remedy) != 0)
        SKIP("the remedy needs root");
    CHECK_EQ(supply_pool_read(first_node(), HAK_PAGES_2M, &pool), 0);
    if (pool.free_pages * 2 * MIB < settings.size_bytes)
        SKIP("this machine cannot make 64 more pages");
    CHECK_EQ(backing_create(&settings, &backing, &error), 0);
    check_faulted_in(backing.base, backing.bytes);
    backing_destroy(&backing);
    restore_pools();
}

TEST(pages_promised_to_others_do_not_count)
{
    want_free(HAK_PAGES_2M, 8);
    struct supply_pool pool;
    void *others = NULL;
    CHECK_EQ(supply_pool_read(first_node(), HAK_PAGES_2M, &pool), 0);
    CHECK_EQ(os_map_hugetlb(8 * MIB, HAK_PAGES_2M, &others), 0);
    struct settings settings = ask(supply_unpromised(HAK_PAGES_2M) * 2 * MIB + 2 * MIB,
                                   HAK_PAGES_2M, HAK_PAGES_DEFAULT, true);
    settings.nodes = UINT64_C(1) << first_node();
    int code = backing_create(&settings, &backing, &error);
    os_release(others, 8 * MIB);
    CHECK_EQ(code, -ENOMEM);
    CHECK_STR_HAS(error.message, " 1 missing;");
    CHECK_STR_HAS(error.message, " 1 of the free ones are promised to other mappings");
    char text[64];
    snprintf(text, sizeof text, "echo %llu > ", (unsigned long long)pool.total_pages + 1);
    CHECK_STR_HAS(error.remedy, text);
}

TEST(a_list_goes_on_to_the_next_kind)
{
    struct held_pool *held = hold_pool(HAK_PAGES_2M);
    struct supply_pool pool;
    (void)held;
    CHECK_EQ(supply_pool_read(first_node(), HAK_PAGES_2M, &pool), 0);
    struct settings settings = ask((pool.free_pages + 8) * 2 * MIB, HAK_PAGES_2M, HAK_PAGES_4K,
                                   true);
    memset(&error, 0, sizeof error);
    CHECK_EQ(backing_create(&settings, &backing, &error), 0);
    CHECK_EQ(backing.pages, HAK_PAGES_4K);
    CHECK_EQ(error.kind, HAK_ERROR_NONE);
    backing_destroy(&backing);
}

TEST(more_than_the_machine_has_is_an_error_and_no_kill)
{
    struct settings settings = ask(HAK_REGION_BYTES_MAX, HAK_PAGES_2M, HAK_PAGES_4K, true);
    settings.nodes = UINT64_C(1) << first_node();
    if (supply_ordinary(first_node()) >= HAK_REGION_BYTES_MAX)
        SKIP("the node has more than the largest region");
    read_maps(maps_before, sizeof maps_before);
    CHECK_EQ(backing_create(&settings, &backing, &error), -ENOMEM);
    CHECK_NOTHING_LEFT();
    CHECK_STR_HAS(error.message, "a region of 2097152 MiB");
    CHECK_STR_HAS(error.message, "4k pages: node ");
    CHECK_STR_HAS(error.message, " available, ");
    /* No command can make 2 TiB of pages here. */
    CHECK_EQ(error.remedy[0], 0);
    CHECK_EQ(backing_create(&settings, &backing, NULL), -ENOMEM);
}

TEST(hugetlb_pages_that_are_not_there_are_an_error_and_no_signal)
{
    want_free(HAK_PAGES_2M, 2);
    struct faultin_failure failure;
    struct supply_pool pool;
    CHECK_EQ(supply_pool_read(first_node(), HAK_PAGES_2M, &pool), 0);
    /* Without a reservation: the kernel lets us have the addresses of more pages than it has. */
    size_t bytes = (pool.free_pages + 16) * 2 * MIB;
    void *at = mmap(
        NULL, bytes, PROT_READ | PROT_WRITE,
        MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | MAP_NORESERVE | (21 << MAP_HUGE_SHIFT), -1, 0);
    CHECK(at != MAP_FAILED);
    const struct backing_segment segment = {.node = first_node(), .start = at, .bytes = bytes};
    int code = faultin_run(&segment, 1, HAK_PAGES_2M, true, &failure);
    munmap(at, bytes);
    CHECK_EQ(code, -ENOMEM);
    CHECK_EQ(failure.node, first_node());
}

TEST(a_long_explanation_is_cut_with_dots)
{
    memset(&error, 0, sizeof error);
    memset(error.message, 'm', sizeof error.message - 20);
    struct backing plan = {.pages = HAK_PAGES_4K, .page_bytes = 4096, .segment_count = 1};
    plan.segments[0].bytes = HAK_REGION_BYTES_MAX;
    CHECK_EQ(shortage_check(&plan, true, &error), -ENOMEM);
    CHECK_EQ(strlen(error.message), sizeof error.message - 1);
    CHECK_EQ(strcmp(error.message + sizeof error.message - 4, "..."), 0);
}

TEST(two_nodes_of_one_pool_are_added_up)
{
    struct held_pool *held = hold_pool(HAK_PAGES_2M);
    struct supply_pool pool;
    static struct topology topology;
    CHECK_EQ(topology_read(&topology), 0);
    if (__builtin_popcountll(topology_memory_mask(&topology)) != 1)
        SKIP("the pretended nodes would be on different real ones");
    CHECK_EQ(supply_pool_read(first_node(), HAK_PAGES_2M, &pool), 0);
    struct settings settings = ask((2 * pool.free_pages + 4) * 2 * MIB, HAK_PAGES_2M,
                                   HAK_PAGES_DEFAULT, true);
    uint64_t needed = settings.size_bytes / (2 * MIB);
    topology_fake(2);
    int code = backing_create(&settings, &backing, &error);
    topology_fake(0);
    CHECK_EQ(code, -ENOMEM);
    char text[320];
    snprintf(text, sizeof text,
             "over 2 nodes cannot be had: 2M pages: node 0 needs %llu, %llu free",
             (unsigned long long)needed / 2, (unsigned long long)pool.free_pages);
    CHECK_STR_HAS(error.message, text);
    /* What the first takes is not there for the second. */
    snprintf(text, sizeof text, "; node 1 needs %llu, %llu free", (unsigned long long)needed / 2,
             pool.free_pages > needed / 2 ? (unsigned long long)(pool.free_pages - needed / 2) : 0);
    CHECK_STR_HAS(error.message, text);
    snprintf(text, sizeof text, "echo %llu > %s\n",
             (unsigned long long)(pool.total_pages + needed - pool.free_pages), held->path);
    CHECK_EQ(strcmp(error.remedy, text), 0);
}

/* ---- control groups -------------------------------------------------------------------------- */

#define GROUP "/sys/fs/cgroup/memory/hakmem-test"

static bool write_text(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY);
    if (fd < 0)
        return false;
    ssize_t length = (ssize_t)strlen(text);
    bool written = write(fd, text, (size_t)length) == length;
    close(fd);
    return written;
}

static void ask_too_much_in_group(void *argument)
{
    char pid[32];
    (void)argument;
    snprintf(pid, sizeof pid, "%d\n", (int)getpid());
    if (!write_text(GROUP "/cgroup.procs", pid))
        SKIP("cannot enter a memory cgroup");
    struct settings settings = ask(256 * MIB, HAK_PAGES_4K, HAK_PAGES_DEFAULT, true);
    CHECK_EQ(backing_create(&settings, &backing, &error), -ENOMEM);
    CHECK_STR_HAS(error.message, "the memory cgroup allows ");
    /* 256 and a 64th for the tables. */
    CHECK_STR_HAS(error.message, " MiB more of 260 needed (raise " GROUP "/memory.");
    settings.size_bytes = 32 * MIB;
    CHECK_EQ(backing_create(&settings, &backing, &error), 0);
    backing_destroy(&backing);
}

TEST(a_memory_cgroup_limit_is_an_error_and_no_kill)
{
    static struct harness_result result;
    if (mkdir(GROUP, 0755) != 0)
        SKIP("no memory cgroup can be made here (%s)", strerror(errno));
    bool limited = write_text(GROUP "/memory.limit_in_bytes", "100663296") ||
                   write_text(GROUP "/memory.max", "100663296");
    if (limited)
        harness_child(ask_too_much_in_group, NULL, &result);
    /* The group is busy until the kernel has buried the child. */
    for (int i = 0; i < 100 && rmdir(GROUP) != 0; i++)
        usleep(10000);
    if (!limited || result.exit_status == HARNESS_EXIT_SKIPPED)
        SKIP("no limit can be set or entered here");
    if (result.exit_status != 0)
        FAIL("status %d, signal %d: %s", result.exit_status, result.signal, result.output);
}

HARNESS_MAIN()
