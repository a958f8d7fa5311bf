/* SPDX-License-Identifier: MIT */
/*
 * hak_region_plan: its figures are the kernel's, what it says is what init then does, several nodes
 * are dealt with one by one, and nothing changes by asking.
 */
#define _GNU_SOURCE
#include "region/plan.h"
#include "tests/plan_kit.h"

static uint64_t pool_number(int node, enum hak_pages pages, const char *file)
{
    char path[256];
    uint64_t number = 0;
    snprintf(path, sizeof path, "/sys/devices/system/node/node%d/hugepages/hugepages-%zukB/%s",
             node, os_pages_bytes(pages) >> 10, file);
    if (sysfs_read_number(path, &number) != 0)
        SKIP("this kernel does not tell pools per node: %s", path);
    return number;
}

/* ---- figures --------------------------------------------------------------------------------- */

TEST(figures_of_a_huge_page_size_are_the_kernels)
{
    static const enum hak_pages kinds[] = {HAK_PAGES_2M, HAK_PAGES_1G};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        size_t page = os_pages_bytes(kinds[i]);
        struct hak_config config = config_of(3 * page - 1, kinds[i], HAK_PAGES_DEFAULT);
        struct supply_pool pool;
        if (supply_pool_read(first_node(), kinds[i], &pool) != 0)
            continue;
        uint64_t before = pool_number(first_node(), kinds[i], "free_hugepages");
        CHECK_EQ(hak_region_plan(&config, &plan), 0);
        CHECK_EQ(plan.kind_count, 1);
        CHECK_EQ(plan.kinds[0].pages, kinds[i]);
        CHECK_EQ(plan.kinds[0].page_bytes, page);
        CHECK_EQ(plan.kinds[0].size_bytes, 3 * page);
        const struct hak_plan_node *node = only_node();
        CHECK_EQ(node->node, first_node());
        CHECK_EQ(node->wanted_pages, 3);
        CHECK_EQ(node->pool_pages, pool_number(first_node(), kinds[i], "nr_hugepages"));
        CHECK_EQ(node->free_pages, before);
        CHECK_EQ(node->missing_pages, before < 3 ? 3 - before : 0);
        CHECK(node->memory_bytes > 0);
        CHECK_EQ(plan.code, node->missing_pages == 0 ? 0 : -ENOMEM);
    }
}

TEST(pages_that_are_reserved_used_and_given_back_are_seen)
{
    want_free(HAK_PAGES_2M, 8);
    struct hak_config config = config_of(8 * 2 * MIB, HAK_PAGES_2M, HAK_PAGES_DEFAULT);
    CHECK_EQ(hak_region_plan(&config, &plan), 0);
    CHECK_EQ(plan.code, 0);
    CHECK_EQ(plan.chosen, 0);
    CHECK_EQ(plan.message[0] + plan.now[0] + plan.hugeadm[0] + plan.boot[0], 0);
    uint64_t there = only_node()->free_pages;
    uint64_t promised = plan.kinds[0].promised_pages;
    void *others = NULL;
    CHECK_EQ(os_map_hugetlb(8 * 2 * MIB, HAK_PAGES_2M, &others), 0);
    CHECK_EQ(hak_region_plan(&config, &plan), 0);
    uint64_t promised_then = plan.kinds[0].promised_pages;
    memset(others, 1, 4 * 2 * MIB);
    CHECK_EQ(hak_region_plan(&config, &plan), 0);
    uint64_t used = there - only_node()->free_pages;
    os_release(others, 8 * 2 * MIB);
    CHECK_EQ(promised_then, promised + 8);
    CHECK_EQ(used, 4);
    CHECK_EQ(hak_region_plan(&config, &plan), 0);
    CHECK_EQ(only_node()->free_pages, there);
    CHECK_EQ(plan.code, 0);
}

TEST(ordinary_memory_is_short_only_where_it_is_to_be_faulted_in)
{
    want_overcommit();
    struct hak_config config = config_of(HAK_REGION_BYTES_MAX, HAK_PAGES_4K, HAK_PAGES_DEFAULT);
    if (supply_ordinary(first_node()) >= HAK_REGION_BYTES_MAX)
        SKIP("the node has more than the largest region");
    CHECK_EQ(hak_region_plan(&config, &plan), 0);
    CHECK_EQ(plan.code, -ENOMEM);
    const struct hak_plan_node *node = only_node();
    CHECK_EQ(node->wanted_pages, HAK_REGION_BYTES_MAX / 4096);
    CHECK_EQ(node->missing_pages, node->wanted_pages - node->free_pages);
    CHECK_EQ(node->pool_pages + node->memory_bytes, 0);
    CHECK_STR_HAS(plan.message, "a region of 2097152 MiB over 1 node cannot be had: 4k pages: ");
    CHECK_EQ(plan.now[0], 0);
    config.prefault = HAK_OFF;
    CHECK_EQ(hak_region_plan(&config, &plan), 0);
    CHECK_EQ(plan.code, 0);
    CHECK_EQ(only_node()->missing_pages, 0);
    config.pages[0] = HAK_PAGES_2M;
    CHECK_EQ(hak_region_plan(&config, &plan), 0);
    CHECK_EQ(plan.code, -ENOMEM);
    CHECK(only_node()->missing_pages > 0);
}

/* ---- plan and init --------------------------------------------------------------------------- */

TEST(what_it_says_is_what_init_does)
{
    static const size_t sizes[] = {2 * MIB, 16 * MIB + 1, 64 * MIB};
    static const enum hak_pages lists[][4] = {
        {HAK_PAGES_4K},
        {HAK_PAGES_THP},
        {HAK_PAGES_2M},
        {HAK_PAGES_2M, HAK_PAGES_4K},
        {HAK_PAGES_1G, HAK_PAGES_2M, HAK_PAGES_THP, HAK_PAGES_4K},
        {HAK_PAGES_4K, HAK_PAGES_2M},
    };
    want_free(HAK_PAGES_2M, 10);
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        for (size_t l = 0; l < sizeof lists / sizeof *lists; l++) {
            struct hak_config config = config_of(sizes[s], HAK_PAGES_DEFAULT, HAK_PAGES_DEFAULT);
            memcpy(config.pages, lists[l], sizeof lists[l]);
            config.prefault = (s + l) % 3 == 0 ? HAK_OFF : HAK_ON;
            check_agreement(&config);
        }
    }
    struct hak_config config = config_of(10 * 2 * MIB, HAK_PAGES_2M, HAK_PAGES_DEFAULT);
    check_agreement(&config);
    CHECK_EQ(plan.code, 0);
    config.size_bytes = (supply_unpromised(HAK_PAGES_2M) + 1) * 2 * MIB;
    check_agreement(&config);
    CHECK_EQ(plan.code, -ENOMEM);
}

TEST(what_makes_no_sense_is_the_same_error_as_inits)
{
    struct hak_config config = config_of(1, HAK_PAGES_4K, HAK_PAGES_DEFAULT);
    check_agreement(&config);
    CHECK_EQ(plan.code, -EINVAL);
    config.size_bytes = HAK_REGION_BYTES_MAX + 1;
    check_agreement(&config);
    CHECK_EQ(plan.code, -E2BIG);
    config.size_bytes = 2 * MIB;
    config.nodes = UINT64_C(1) << 63;
    check_agreement(&config);
    CHECK_EQ(plan.code, -ENODEV);
    CHECK_STR_HAS(plan.message, "node 63 does not exist");
    CHECK_STR_HAS(plan.message, "nodes that can be used: ");
    config.nodes = 0;
    config.exhausted = HAK_EXHAUSTED_LIBC;
    check_agreement(&config);
    CHECK_EQ(plan.code, -EINVAL);
    config.exhausted = HAK_EXHAUSTED_FAIL;
    config.reserved[3] = 1;
    check_agreement(&config);
    CHECK_EQ(plan.code, -EINVAL);
    CHECK_EQ(hak_region_plan(&config, NULL), -EINVAL);
    CHECK_EQ(hak_last_error(&error), -EINVAL);
    CHECK_STR_HAS(error.message, "hak_region_plan: out is NULL");
}

static void speak_in_the_environment(void *argument)
{
    (void)argument;
    CHECK_EQ(setenv("HAKMEM_REGION_SIZE", "6M", 1), 0);
    CHECK_EQ(setenv("HAKMEM_PAGES", "thp,4k", 1), 0);
    check_agreement(NULL);
    CHECK_EQ(plan.kind_count, 2);
    CHECK_EQ(plan.kinds[1].size_bytes, 6 * MIB * plan.kinds[1].node_count);
    CHECK_EQ(setenv("HAKMEM_PAGES", "3M", 1), 0);
    check_agreement(NULL);
    CHECK_EQ(plan.code, -EINVAL);
    CHECK_STR_HAS(plan.message, "HAKMEM_PAGES=3M cannot be understood; accepted: ");
}

TEST(without_a_struct_the_environment_counts)
{
    static struct harness_result result;
    static struct topology topology;
    CHECK_EQ(topology_read(&topology), 0);
    if (__builtin_popcountll(topology_memory_mask(&topology)) != 1)
        SKIP("the size is rounded up on several nodes");
    harness_child(speak_in_the_environment, NULL, &result);
    if (result.exit_status != 0)
        FAIL("status %d: %s", result.exit_status, result.output);
}

TEST(a_page_of_1_gib_is_foreseen)
{
    want_free(HAK_PAGES_1G, 1);
    uint64_t there = supply_unpromised(HAK_PAGES_1G);
    struct hak_config config = config_of(there * GIB + 2 * MIB, HAK_PAGES_1G, HAK_PAGES_DEFAULT);
    check_agreement(&config);
    CHECK_EQ(plan.code, -ENOMEM);
    CHECK_EQ(only_node()->missing_pages, 1);
    CHECK_STR_HAS(plan.message, "1G pages are had most surely at boot, by hugepagesz=1G");
    config.size_bytes = 2 * MIB;
    check_agreement(&config);
    CHECK_EQ(plan.code, 0);
    CHECK_EQ(plan.kinds[0].size_bytes, GIB);
    restore_pools();
}

TEST(asking_changes_nothing)
{
    struct hak_config config = config_of(64 * MIB, HAK_PAGES_1G, HAK_PAGES_2M);
    struct supply_pool before, after;
    hold_pool(HAK_PAGES_2M);
    CHECK_EQ(hak_region_plan(&config, &plan), 0);
    read_maps(maps_before, sizeof maps_before);
    CHECK_EQ(supply_pool_read(first_node(), HAK_PAGES_2M, &before), 0);
    for (int i = 0; i < 20; i++)
        CHECK_EQ(hak_region_plan(&config, &plan), 0);
    CHECK_EQ(supply_pool_read(first_node(), HAK_PAGES_2M, &after), 0);
    CHECK_NOTHING_LEFT();
    CHECK_EQ(memcmp(&before, &after, sizeof before), 0);
    CHECK(hak_region_default() == NULL);
}

/* ---- several nodes --------------------------------------------------------------------------- */

static void plan_on_pretended_nodes(unsigned count, struct hak_config *config)
{
    config->nodes = 0;
    topology_fake(count);
    int code = hak_region_plan(config, &plan);
    topology_fake(0);
    CHECK_EQ(code, 0);
    CHECK_EQ(plan.kinds[0].node_count, count);
}

TEST(several_nodes_have_even_shares_and_one_pool_is_not_counted_twice)
{
    want_free(HAK_PAGES_2M, 12);
    if (!single_node())
        SKIP("the pretended nodes would be on different real ones");
    struct supply_pool pool;
    CHECK_EQ(supply_pool_read(first_node(), HAK_PAGES_2M, &pool), 0);
    uint64_t there = supply_unpromised(HAK_PAGES_2M);
    for (unsigned count = 2; count <= 4; count += 2) {
        struct hak_config config = config_of((there + 10) * 2 * MIB, HAK_PAGES_2M,
                                             HAK_PAGES_DEFAULT);
        plan_on_pretended_nodes(count, &config);
        uint64_t share = (there + 10 + count - 1) / count, missing = 0, left = pool.free_pages;
        CHECK_EQ(plan.kinds[0].size_bytes, share * count * 2 * MIB);
        for (unsigned n = 0; n < count; n++) {
            const struct hak_plan_node *node = &plan.kinds[0].nodes[n];
            CHECK_EQ(node->node, n);
            CHECK_EQ(node->wanted_pages, share);
            CHECK_EQ(node->pool_pages, pool.total_pages);
            CHECK_EQ(node->free_pages, left);
            left -= left < share ? left : share;
            missing += node->missing_pages;
        }
        CHECK_EQ(missing, share * count - there);
        CHECK_EQ(plan.code, -ENOMEM);
        /* One real pool, one command. */
        char text[64];
        snprintf(text, sizeof text, "echo %llu > ", (unsigned long long)pool.total_pages + missing);
        CHECK_EQ(strncmp(plan.now, text, strlen(text)), 0);
        CHECK_EQ(strcspn(plan.now, "\n"), strlen(plan.now) - 1);
        config.size_bytes = there / count * count * 2 * MIB;
        plan_on_pretended_nodes(count, &config);
        CHECK_EQ(plan.code, 0);
    }
}

TEST(the_share_rule_never_exceeds_the_largest_region)
{
    static const enum hak_pages kinds[] = {HAK_PAGES_1G, HAK_PAGES_2M, HAK_PAGES_THP, HAK_PAGES_4K};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        for (unsigned count = 1; count <= HAK_NODES_MAX; count++) {
            size_t grain = plan_grain(kinds[i]);
            size_t most = plan_share(HAK_REGION_BYTES_MAX, count, kinds[i]);
            CHECK_LE(most * count, HAK_REGION_BYTES_MAX);
            CHECK(most * count > HAK_REGION_BYTES_MAX - count * grain);
            CHECK_EQ(most % grain, 0);
            CHECK_EQ(plan_share(2 * MIB, count, kinds[i]), grain);
            size_t share = plan_share(count * grain + 1, count, kinds[i]);
            CHECK_EQ(share, 2 * grain);
        }
    }
}

HARNESS_MAIN()
