/* SPDX-License-Identifier: MIT */
/* What the tests of hak_region_plan share: a plan, and that init agrees with it. */
#ifndef HAK_TESTS_PLAN_KIT_H
#define HAK_TESTS_PLAN_KIT_H

#include "tests/memory_kit.h"

#include <hakmem.h>

static struct hak_plan plan;
static struct hak_error error;

/* On the first node, faulted in. */
static inline struct hak_config config_of(size_t bytes, enum hak_pages first, enum hak_pages second)
{
    struct hak_config config = {.size_bytes = bytes, .pages = {first, second}};
    config.nodes = UINT64_C(1) << first_node();
    config.prefault = HAK_ON;
    config.exhausted = HAK_EXHAUSTED_FAIL;
    return config;
}

static inline const struct hak_plan_node *only_node(void)
{
    CHECK_EQ(plan.kinds[0].node_count, 1);
    return &plan.kinds[0].nodes[0];
}

static inline bool single_node(void)
{
    static struct topology topology;
    unsigned count = 0;
    CHECK_EQ(topology_read(&topology), 0);
    for (unsigned node = 0; node < topology.node_end; node++)
        count += topology.nodes[node].has_memory;
    return count == 1;
}

/* What plan says is what init does, to the letter. */
static inline void check_agreement(const struct hak_config *config)
{
    struct hak_stats stats;
    /* Twice: a sanitizer has mappings of its own, which come with first calls. */
    read_maps(maps_before, sizeof maps_before);
    CHECK_EQ(hak_region_plan(config, &plan), 0);
    read_maps(maps_before, sizeof maps_before);
    CHECK_EQ(hak_region_plan(config, &plan), 0);
    CHECK_NOTHING_LEFT();
    int code = hak_region_init(config);
    if (code == 0) {
        CHECK_EQ(hak_region_stats(NULL, &stats), 0);
        CHECK_EQ(hak_region_fini(), 0);
    }
    CHECK_EQ(plan.code, code);
    if (code == 0) {
        CHECK(plan.chosen < plan.kind_count);
        CHECK_EQ(stats.pages, plan.kinds[plan.chosen].pages);
        CHECK_EQ(stats.size_bytes, plan.kinds[plan.chosen].size_bytes);
        CHECK_EQ(stats.node_count, plan.kinds[plan.chosen].node_count);
        return;
    }
    CHECK_EQ(plan.chosen, plan.kind_count);
    CHECK_EQ(hak_last_error(&error), code);
    CHECK_STR_HAS(plan.message, error.message);
    CHECK_EQ(strlen(plan.message), strlen(error.message));
    CHECK_EQ(strncmp(plan.now, error.remedy, sizeof error.remedy - 1), 0);
}

#endif
