/* SPDX-License-Identifier: MIT */
/*
 * hak_region_plan on machines with several nodes: its figures are the kernel's, init then does what
 * it said, and the commands that it gives make a set-up succeed that would have failed.
 *
 * Run by tests/numa in virtual machines that have what a case needs; elsewhere it skips.
 */
#define _GNU_SOURCE
#include "tests/vm_kit.h"

#include <hakmem.h>

static struct hak_plan plan;

static struct hak_config wish(uint64_t node_mib, enum hak_pages first, enum hak_pages second)
{
    return (struct hak_config){.size_bytes = node_mib * vm_count(vm_memory_nodes()) * MIB,
                               .pages = {first, second}};
}

/* Plans, sees that nothing changed, then inits and compares. */
static void check_foretold(const struct hak_config *config)
{
    struct hak_stats stats;
    struct hak_error error;
    uint64_t free_before = vm_machine_pool(VM_2M_KIB, "free_hugepages");
    CHECK_EQ(hak_region_plan(config, &plan), 0);
    CHECK_EQ(vm_machine_pool(VM_2M_KIB, "free_hugepages"), free_before);
    CHECK(hak_region_default() == NULL);
    int code = hak_region_init(config);
    (void)hak_last_error(&error);
    if (plan.code != code) {
        FAIL("plan: %d, %s; init: %d, %s", plan.code, plan.message, code,
             code != 0 ? error.message : "");
    }
    if (code != 0) {
        CHECK_EQ(plan.chosen, plan.kind_count);
        CHECK(plan.message[0] != '\0');
        return;
    }
    CHECK(plan.chosen < plan.kind_count);
    CHECK_EQ(hak_region_stats(NULL, &stats), 0);
    CHECK_EQ(stats.pages, plan.kinds[plan.chosen].pages);
    CHECK_EQ(stats.size_bytes, plan.kinds[plan.chosen].size_bytes);
    CHECK_EQ(stats.node_count, plan.kinds[plan.chosen].node_count);
    CHECK_EQ(hak_region_fini(), 0);
}

TEST(init_does_what_the_plan_said)
{
    uint64_t nodes = vm_memory_nodes();
    uint64_t too_much = 2 * vm_least_free(nodes, VM_2M_KIB) + 2;
    static const enum hak_pages lists[][2] = {
        {HAK_PAGES_2M, HAK_PAGES_DEFAULT}, {HAK_PAGES_2M, HAK_PAGES_THP},
        {HAK_PAGES_1G, HAK_PAGES_DEFAULT}, {HAK_PAGES_1G, HAK_PAGES_2M},
        {HAK_PAGES_THP, HAK_PAGES_4K},     {HAK_PAGES_4K, HAK_PAGES_DEFAULT},
    };
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
        struct hak_config small = wish(2, lists[i][0], lists[i][1]);
        struct hak_config large = wish(too_much, lists[i][0], lists[i][1]);
        check_foretold(&small);
        /* 1 GiB pages hold either; clearing them twice would only take time. */
        if (lists[i][0] != HAK_PAGES_1G) {
            check_foretold(&large);
        }
    }
    /* More than any node has of anything. */
    struct hak_config vast = wish(UINT64_C(64) << 10, HAK_PAGES_2M, HAK_PAGES_4K);
    check_foretold(&vast);
    CHECK_EQ(plan.code, -ENOMEM);
}

TEST(figures_are_the_kernels_node_by_node)
{
    uint64_t nodes = vm_memory_nodes(), left = nodes;
    uint64_t wanted = vm_least_free(nodes, VM_2M_KIB) + 3;
    struct hak_config config = wish(2 * wanted, HAK_PAGES_2M, HAK_PAGES_4K);
    CHECK_EQ(hak_region_plan(&config, &plan), 0);
    CHECK_EQ(plan.kind_count, 2);
    const struct hak_plan_kind *kind = &plan.kinds[0];
    CHECK_EQ(kind->pages, HAK_PAGES_2M);
    CHECK_EQ(kind->page_bytes, 2 * MIB);
    CHECK_EQ(kind->size_bytes, config.size_bytes);
    CHECK_EQ(kind->code, -ENOMEM);
    CHECK_EQ(kind->node_count, vm_count(nodes));
    for (unsigned n = 0; n < kind->node_count; n++, left &= left - 1) {
        const struct hak_plan_node *node = &kind->nodes[n];
        uint64_t there = vm_pool(vm_first(left), VM_2M_KIB, "free_hugepages");
        CHECK_EQ(node->node, vm_first(left));
        CHECK_EQ(node->wanted_pages, wanted);
        CHECK_EQ(node->pool_pages, vm_pool(node->node, VM_2M_KIB, "nr_hugepages"));
        CHECK_EQ(node->free_pages, there);
        CHECK_EQ(node->missing_pages, wanted > there ? wanted - there : 0);
    }
    CHECK_EQ(plan.kinds[1].code, 0);
    CHECK_EQ(plan.chosen, 1);
    CHECK_EQ(plan.code, 0);
    CHECK(plan.message[0] != '\0'); /* why not the first */
}

TEST(the_plans_commands_provide_what_is_missing)
{
    uint64_t nodes = vm_memory_nodes(), before[HAK_NODES_MAX];
    if (vm_limit_mib() != 0) {
        SKIP("a control group's limit is no matter of pages");
    }
    struct hak_config config = wish(2 * (vm_least_free(nodes, VM_2M_KIB) + 5), HAK_PAGES_2M,
                                    HAK_PAGES_DEFAULT);
    for (int n = 0; n < HAK_NODES_MAX; n++) {
        before[n] = vm_pool(n, VM_2M_KIB, "nr_hugepages");
    }
    CHECK_EQ(hak_region_plan(&config, &plan), 0);
    CHECK_EQ(plan.code, -ENOMEM);
    CHECK_STR_HAS(plan.boot, "hugepagesz=2M");
    CHECK_STR_HAS(plan.hugeadm, "hugeadm");
    CHECK_EQ(system(plan.now), 0);
    CHECK_EQ(hak_region_plan(&config, &plan), 0);
    CHECK_EQ(plan.code, 0);
    CHECK_EQ(plan.now[0], 0);
    CHECK_EQ(hak_region_init(&config), 0);
    CHECK_EQ(hak_region_fini(), 0);
    for (int n = 0; n < HAK_NODES_MAX; n++) {
        /* Not one more than is needed, and no other node's. */
        uint64_t now = vm_pool(n, VM_2M_KIB, "nr_hugepages");
        uint64_t wanted = config.size_bytes / vm_count(nodes) / (2 * MIB);
        CHECK_EQ(now, (nodes >> n & 1) != 0 && before[n] < wanted ? wanted : before[n]);
        if (now != before[n]) {
            CHECK_EQ(vm_set_pool(n, VM_2M_KIB, before[n]), before[n]);
        }
    }
}

TEST(a_control_groups_limit_is_foreseen)
{
    unsigned long limit = vm_limit_mib();
    uint64_t nodes = vm_memory_nodes();
    if (limit == 0) {
        SKIP("no control group limits huge pages");
    }
    uint64_t node_pages = limit / 2 / vm_count(nodes);
    struct hak_config within = wish(2 * node_pages, HAK_PAGES_2M, HAK_PAGES_DEFAULT);
    struct hak_config past = wish(2 * node_pages + 2, HAK_PAGES_2M, HAK_PAGES_DEFAULT);
    check_foretold(&within);
    CHECK_EQ(plan.code, 0);
    CHECK_EQ(plan.kinds[0].cgroup_bytes, limit * MIB);
    check_foretold(&past);
    CHECK_EQ(plan.code, -ENOMEM);
    CHECK_STR_HAS(plan.message, "cgroup");
    CHECK_EQ(plan.kinds[0].nodes[0].missing_pages, 0);
}

TEST(nodes_that_cannot_be_used_are_foreseen)
{
    vm_want_machine();
    uint64_t all = vm_expected_nodes("nodes");
    struct hak_config config = wish(2, HAK_PAGES_4K, HAK_PAGES_DEFAULT);
    for (int node = 0; node <= vm_last(all) + 1; node++) {
        config.nodes = vm_bit(node);
        check_foretold(&config);
        CHECK_EQ(plan.code, (vm_memory_nodes() >> node & 1) != 0 ? 0 : -ENODEV);
    }
}

HARNESS_MAIN()
