/* SPDX-License-Identifier: MIT */
/*
 * Memory behind regions: every kind of page, nodes, 2 TiB of addresses, kernels that know or allow
 * less, tables; and nothing left behind.
 */
#define _GNU_SOURCE
#include "region/backing.h"

#include "numa/bind.h"
#include "region/faultin.h"
#include "tests/deny_kit.h"
#include "tests/memory_kit.h"

#include <sys/mman.h>
#include <sys/syscall.h>

static struct backing backing;
static struct hak_error error;

static void check_zeroed(const unsigned char *start, size_t bytes)
{
    for (size_t at = 0; at < bytes; at += 512)
        CHECK_EQ(start[at], 0);
}

/* A region of the kind is whole, zeroed, faulted in, and gone without a trace afterwards. */
static void make_and_use(size_t bytes, enum hak_pages pages)
{
    struct settings settings = ask(bytes, pages, HAK_PAGES_DEFAULT, true);
    size_t wrong = 99;
    int code = backing_create(&settings, &backing, &error);
    if (code != 0)
        FAIL("%d: %s", code, error.message);
    CHECK_EQ(backing_check(&backing), 0);
    CHECK_EQ(backing.pages, pages);
    CHECK_EQ(backing.page_bytes, os_pages_bytes(pages));
    CHECK(backing.bytes >= bytes);
    check_zeroed(backing.base, backing.bytes);
    check_faulted_in(backing.base, backing.bytes);
    for (unsigned i = 0; i < backing.segment_count; i++) {
        struct backing_segment *segment = &backing.segments[i];
        CHECK_EQ(
            bind_verify(segment->start, segment->bytes, backing.page_bytes, segment->node, &wrong),
            0);
        CHECK_EQ(wrong, 0);
    }
    backing_destroy(&backing);
    CHECK(backing.base == NULL && backing.reserved == NULL);
    backing_destroy(&backing);
}

/* ---- each kind of page ----------------------------------------------------------------------- */

TEST(small_pages_are_faulted_in_and_leave_no_trace)
{
    make_and_use(64 * MIB, HAK_PAGES_4K); /* first use: whatever libc keeps is there now */
    read_maps(maps_before, sizeof maps_before);
    make_and_use(64 * MIB, HAK_PAGES_4K);
    CHECK_NOTHING_LEFT();
}

TEST(transparent_huge_pages_are_faulted_in_and_huge)
{
    if (!supply_thp())
        SKIP("transparent huge pages are off");
    struct settings settings = ask(64 * MIB, HAK_PAGES_THP, HAK_PAGES_DEFAULT, true);
    make_and_use(64 * MIB, HAK_PAGES_THP);
    CHECK_EQ(backing_create(&settings, &backing, &error), 0);
    static char smaps[1 << 16];
    bool huge = false, mine = false;
    FILE *file = fopen("/proc/self/smaps", "r");
    CHECK(file != NULL);
    while (fgets(smaps, sizeof smaps, file) != NULL) {
        unsigned long from, to, kib;
        if (sscanf(smaps, "%lx-%lx ", &from, &to) == 2)
            mine = from == (unsigned long)backing.base;
        if (mine && sscanf(smaps, "AnonHugePages: %lu", &kib) == 1)
            huge = kib == 65536;
    }
    fclose(file);
    backing_destroy(&backing);
    CHECK(huge);
}

TEST(hugetlb_pages_of_2_mib_back_a_region)
{
    want_free(HAK_PAGES_2M, 32);
    make_and_use(64 * MIB, HAK_PAGES_2M);
    read_maps(maps_before, sizeof maps_before);
    make_and_use(63 * MIB, HAK_PAGES_2M);
    CHECK_NOTHING_LEFT();
}

TEST(hugetlb_pages_of_1_gib_round_the_region_up)
{
    want_free(HAK_PAGES_1G, 1);
    struct settings settings = ask(4 * MIB, HAK_PAGES_1G, HAK_PAGES_DEFAULT, true);
    int code = backing_create(&settings, &backing, &error);
    if (code != 0)
        FAIL("%d: %s", code, error.message);
    CHECK_EQ(backing.bytes, GIB * backing.segment_count);
    CHECK_EQ((uintptr_t)backing.base % GIB, 0);
    check_faulted_in(backing.base, backing.bytes);
    backing_destroy(&backing);
    restore_pools();
}

static void read_in_child(void *argument)
{
    (void)*(volatile unsigned char *)argument;
}

TEST(hugetlb_regions_stay_out_of_children)
{
    want_free(HAK_PAGES_2M, 8);
    static struct harness_result ended;
    struct settings settings = ask(16 * MIB, HAK_PAGES_2M, HAK_PAGES_DEFAULT, true);
    CHECK_EQ(backing_create(&settings, &backing, &error), 0);
    harness_child(read_in_child, backing.base, &ended);
    backing_destroy(&backing);
    CHECK_EQ(ended.signal, SIGSEGV);
}

/* ---- nodes ----------------------------------------------------------------------------------- */

TEST(nodes_that_are_not_there_are_refused)
{
    struct settings settings = ask(16 * MIB, HAK_PAGES_4K, HAK_PAGES_DEFAULT, true);
    static struct topology topology;
    CHECK_EQ(topology_read(&topology), 0);
    if (topology.nodes[63].exists)
        SKIP("this machine has a node 63");
    settings.nodes = (UINT64_C(1) << 63) | (UINT64_C(1) << first_node());
    CHECK_EQ(backing_create(&settings, &backing, &error), -ENODEV);
    CHECK_EQ(error.code, -ENODEV);
    CHECK_EQ(error.node, 63);
    CHECK_STR_HAS(error.message, "node 63 does not exist");
    CHECK(backing.base == NULL);
}

static void check_two_segments(enum hak_pages pages, bool prefault)
{
    struct settings settings = ask(34 * MIB, pages, HAK_PAGES_DEFAULT, prefault);
    int code = backing_create(&settings, &backing, &error);
    topology_fake(0);
    if (code != 0)
        FAIL("%d: %s", code, error.message);
    CHECK_EQ(backing_check(&backing), 0);
    CHECK_EQ(backing.segment_count, 2);
    CHECK_EQ(backing.segments[0].node, 0);
    CHECK_EQ(backing.segments[1].node, 1);
    /* Half of 34 MiB is not a whole number of SuperSlabs. */
    CHECK_EQ(backing.segments[0].bytes, 18 * MIB);
    CHECK_EQ(backing.segments[1].bytes, 18 * MIB);
    CHECK(backing.segments[1].start == backing.base + 18 * MIB);
    if (prefault)
        check_faulted_in(backing.base, backing.bytes);
    else
        CHECK_EQ(missing_pages(backing.base, backing.bytes), backing.bytes / 4096);
    backing_destroy(&backing);
}

TEST(two_nodes_get_two_segments)
{
    topology_fake(2);
    check_two_segments(HAK_PAGES_4K, true);
    topology_fake(2);
    check_two_segments(HAK_PAGES_4K, false);
}

TEST(a_page_on_another_node_is_found)
{
    struct faultin_failure failure;
    struct settings settings = ask(64 * MIB, HAK_PAGES_4K, HAK_PAGES_DEFAULT, false);
    CHECK_EQ(backing_create(&settings, &backing, &error), 0);
    /* Said to be on a node that it cannot be on. */
    struct backing_segment segment = backing.segments[0];
    segment.node = segment.node == 63 ? 62 : 63;
    int code = faultin_run(&segment, 1, HAK_PAGES_4K, true, &failure);
    int unasked = faultin_run(&segment, 1, HAK_PAGES_4K, false, &failure);
    backing_destroy(&backing);
    CHECK_EQ(unasked, 0);
    CHECK_EQ(code, -EIO);
}

TEST(the_largest_region_is_never_exceeded_by_rounding)
{
    want_overcommit();
    struct settings settings = ask(HAK_REGION_BYTES_MAX, HAK_PAGES_4K, HAK_PAGES_DEFAULT, false);
    topology_fake(3);
    int code = backing_create(&settings, &backing, &error);
    topology_fake(0);
    CHECK_EQ(code, 0);
    CHECK_EQ(backing_check(&backing), 0);
    CHECK_EQ(backing.segment_count, 3);
    CHECK_LE(backing.bytes, HAK_REGION_BYTES_MAX);
    CHECK_GE(backing.bytes, HAK_REGION_BYTES_MAX - 3 * HAK_SUPERSLAB_BYTES);
    backing_destroy(&backing);
}

/* ---- addresses without memory ---------------------------------------------------------------- */

TEST(reservations_are_aligned_and_trimmed)
{
    static const size_t sizes[] = {4096, 12288, 2 * MIB, 2 * MIB + 4096, 37 * MIB};
    read_maps(maps_before, sizeof maps_before);
    for (size_t align = 4096; align <= GIB; align *= 2) {
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            void *first = NULL, *second = NULL;
            CHECK_EQ(os_reserve(sizes[i], align, &first), 0);
            CHECK_EQ(os_reserve(sizes[i], align, &second), 0);
            CHECK_EQ((uintptr_t)first % align, 0);
            CHECK_EQ((uintptr_t)second % align, 0);
            CHECK_EQ(os_release(first, sizes[i]), 0);
            CHECK_EQ(os_release(second, sizes[i]), 0);
        }
    }
    CHECK_NOTHING_LEFT();
    void *none = &none;
    CHECK_EQ(os_reserve(0, 4096, &none), -EINVAL);
    CHECK_EQ(os_reserve(SIZE_MAX - 4096, GIB, &none), -EINVAL);
    CHECK(none == NULL);
}

TEST(two_tib_of_addresses_cost_no_memory)
{
    want_overcommit();
    static const enum hak_pages kinds[] = {HAK_PAGES_4K, HAK_PAGES_THP};
    for (size_t i = 0; i < 2; i++) {
        if (kinds[i] == HAK_PAGES_THP && !supply_thp())
            continue;
        struct settings settings = ask(HAK_REGION_BYTES_MAX, kinds[i], HAK_PAGES_DEFAULT, false);
        settings.nodes = UINT64_C(1) << first_node();
        long before = faults();
        int code = backing_create(&settings, &backing, &error);
        if (code != 0)
            FAIL("%d: %s", code, error.message);
        CHECK_LE(faults() - before, 100);
        CHECK_EQ(backing.bytes, HAK_REGION_BYTES_MAX);
        CHECK_EQ((uintptr_t)backing.base % HAK_SUPERSLAB_BYTES, 0);
        backing.base[0] = 1;
        backing.base[backing.bytes - 1] = 2;
        CHECK_EQ(backing.base[backing.bytes / 2], 0);
        backing_destroy(&backing);
    }
}

/* ---- kernels and containers that know or allow less ----------------------------------------- */

static struct harness_result result;

static void run_child(void (*body)(void *))
{
    harness_child(body, NULL, &result);
    if (result.exit_status == HARNESS_EXIT_SKIPPED)
        SKIP("%s", result.output);
    if (result.exit_status != 0)
        FAIL("status %d, signal %d: %s", result.exit_status, result.signal, result.output);
}

static void without_numa_calls(void *argument)
{
    static struct topology topology;
    (void)argument;
    topology_read(&topology);
    bool single = __builtin_popcountll(topology_memory_mask(&topology)) == 1;
    deny(SYS_mbind, -1, EPERM);
    deny(SYS_move_pages, -1, EPERM);
    deny(SYS_get_mempolicy, -1, EPERM);
    struct settings settings = ask(64 * MIB, HAK_PAGES_4K, HAK_PAGES_DEFAULT, true);
    int code = backing_create(&settings, &backing, &error);
    CHECK_EQ(code, single ? 0 : -EPERM);
    if (code != 0)
        CHECK_STR_HAS(error.message, "binding them to their node: Operation not permitted");
    else
        check_faulted_in(backing.base, backing.bytes);
}

TEST(forbidden_numa_calls_matter_only_where_there_are_nodes)
{
    run_child(without_numa_calls);
}

static void without_populate(void *argument)
{
    (void)argument;
    deny(SYS_madvise, MADV_POPULATE_WRITE, EINVAL);
    struct settings settings = ask(64 * MIB, HAK_PAGES_4K, HAK_PAGES_DEFAULT, true);
    CHECK_EQ(backing_create(&settings, &backing, &error), 0);
    check_faulted_in(backing.base, backing.bytes);
    CHECK_EQ(os_populate(backing.base, backing.bytes, true), -ENOSYS);
}

TEST(kernels_that_cannot_populate_are_touched_by_hand)
{
    run_child(without_populate);
}

static void without_threads(void *argument)
{
    (void)argument;
    deny(SYS_clone3, -1, EAGAIN);
    deny(SYS_clone, -1, EAGAIN);
    struct settings settings = ask(64 * MIB, HAK_PAGES_4K, HAK_PAGES_DEFAULT, true);
    CHECK_EQ(backing_create(&settings, &backing, &error), 0);
    check_faulted_in(backing.base, backing.bytes);
}

TEST(where_no_thread_can_be_made_the_caller_does_it)
{
    run_child(without_threads);
}

static void without_thp_advice(void *argument)
{
    (void)argument;
    deny(SYS_madvise, MADV_HUGEPAGE, EINVAL);
    struct settings settings = ask(64 * MIB, HAK_PAGES_THP, HAK_PAGES_DEFAULT, true);
    read_maps(maps_before, sizeof maps_before);
    CHECK_EQ(backing_create(&settings, &backing, &error), -EINVAL);
    CHECK_NOTHING_LEFT();
    CHECK_STR_HAS(error.message, "thp pages: mapping them: Invalid argument.");
    CHECK_EQ(error.code, -EINVAL);
}

TEST(a_refused_mapping_is_told_and_undone)
{
    if (!supply_thp())
        SKIP("transparent huge pages are off");
    run_child(without_thp_advice);
}

/* ---- tables ---------------------------------------------------------------------------------- */

TEST(tables_are_zeroed_aligned_and_faulted_in)
{
    static const size_t sizes[] = {1, 4096, 100000, 2 * MIB - 1, 2 * MIB, 5 * MIB + 1, 64 * MIB};
    static const enum hak_pages wishes[] = {HAK_PAGES_4K, HAK_PAGES_THP, HAK_PAGES_2M};
    read_maps(maps_before, sizeof maps_before);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        for (size_t k = 0; k < sizeof wishes / sizeof *wishes; k++) {
            void *table = NULL;
            CHECK_EQ(backing_table(sizes[i], first_node(), true, wishes[k], TABLE_ANYWHERE, &table),
                     0);
            CHECK_EQ((uintptr_t)table % (sizes[i] >= 2 * MIB ? 2 * MIB : 4096), 0);
            check_faulted_in(table, sizes[i]);
            backing_table_free(table, sizes[i], TABLE_ANYWHERE);
        }
    }
    CHECK_NOTHING_LEFT();
    void *table = NULL;
    CHECK_EQ(backing_table(8 * MIB, -1, false, HAK_PAGES_THP, TABLE_ANYWHERE, &table), 0);
    check_zeroed(table, 8 * MIB);
    backing_table_free(table, 8 * MIB, TABLE_ANYWHERE);
    backing_table_free(NULL, 8 * MIB, TABLE_ANYWHERE);
}

TEST(tables_that_do_not_fit_are_an_error)
{
    void *table = &table;
    read_maps(maps_before, sizeof maps_before);
    CHECK_EQ(backing_table(HAK_REGION_BYTES_MAX, first_node(), true, HAK_PAGES_4K, TABLE_ANYWHERE,
                           &table),
             -ENOMEM);
    CHECK(table == NULL);
    CHECK_EQ(backing_table(0, first_node(), true, HAK_PAGES_4K, TABLE_ANYWHERE, &table), -EINVAL);
    CHECK_EQ(backing_table(SIZE_MAX, first_node(), true, HAK_PAGES_4K, TABLE_ANYWHERE, &table),
             -EINVAL);
    CHECK(table == NULL);
    CHECK_NOTHING_LEFT();
}

TEST(a_backing_out_of_shape_is_noticed)
{
    struct settings settings = ask(8 * MIB, HAK_PAGES_4K, HAK_PAGES_DEFAULT, false);
    CHECK_EQ(backing_create(&settings, &backing, &error), 0);
    struct backing broken = backing;
    CHECK_EQ(backing_check(&broken), 0);
    broken.segments[0].start += 4096;
    CHECK_EQ(backing_check(&broken), -EUCLEAN);
    broken = backing;
    broken.bytes += 2 * MIB;
    CHECK_EQ(backing_check(&broken), -EUCLEAN);
    broken = backing;
    broken.segments[broken.segment_count++] = backing.segments[0];
    CHECK_EQ(backing_check(&broken), -EUCLEAN);
    backing_destroy(&backing);
}

HARNESS_MAIN()
