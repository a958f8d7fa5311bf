/* SPDX-License-Identifier: MIT */
/*
 * bench/region, first part: how long does it take until a region is ready?
 *
 * hak_region_create and hak_region_destroy of the whole size on all nodes, faulted in and verified,
 * on each kind of page in turns. What it took to fill the kernel's pool before that has a column of
 * its own: a machine that reserves its huge pages at boot does not pay it.
 */
#ifndef HAK_BENCH_REGION_INIT_H
#define HAK_BENCH_REGION_INIT_H

#include "bench/region_pages.h"
#include "bench/region_plan.h"

#define INIT_SECTION "init"

/* KiB of this process that lie in transparent huge pages. */
static inline uint64_t init_huge_kib(void)
{
    char text[4096];
    return sysfs_read("/proc/self/smaps_rollup", text, sizeof text) > 0
               ? sysfs_find_number(text, "AnonHugePages:")
               : 0;
}

/* At most 100: the tables of a region may lie in huge pages, too. */
static inline double init_percent(uint64_t part, uint64_t whole)
{
    return part < whole ? 100 * (double)part / (double)whole : 100;
}

static inline void init_round(enum page_kind kind, unsigned round, const struct region_plan *plan)
{
    const char *name = kind_names[kind];
    struct kind_region opened;
    uint64_t before_kib = init_huge_kib();
    if (!kind_open(INIT_SECTION, kind, plan->nodes, plan->size_bytes, &opened))
        return;
    if (kind == KIND_THP)
        cell_set(INIT_SECTION, name, "huge", "%", 0, round,
                 init_percent((init_huge_kib() - before_kib) << 10, opened.bytes));
    kind_close(&opened);
    cell_set(INIT_SECTION, name, "create", "ms", 0, round, (double)opened.open_ns / 1e6);
    cell_set(INIT_SECTION, name, "rate", "GiB/s", 0, round,
             (double)opened.bytes / (1 << 30) / ((double)opened.open_ns / 1e9));
    cell_set(INIT_SECTION, name, "destroy", "ms", 0, round, (double)opened.close_ns / 1e6);
    if (os_pages_hugetlb(kind_pages[kind]))
        cell_set(INIT_SECTION, name, "pool", "ms", 0, round, (double)opened.pool_ns / 1e6);
}

static inline void init_print(const struct region_plan *plan, unsigned rounds)
{
    char text[4][CELL_TEXT_BYTES];
    printf("\ninit: a region of %zu MiB, faulted in and verified; nodes: %u; rounds: %u\n",
           plan->size_bytes >> 20, popcount64(plan->nodes), rounds);
    printf("  %-6s  %-24s  %-22s  %-22s  %s\n", "pages", "create, ms", "GiB/s", "destroy, ms",
           "pool filled before, ms");
    for (unsigned kind = 0; kind < KIND_COUNT; kind++) {
        const char *name = kind_names[kind];
        printf("  %-6s  %-24s  %-22s  %-22s  %s\n", name,
               cell_text(cell_spread(INIT_SECTION, name, "create", 0), 1, text[0]),
               cell_text(cell_spread(INIT_SECTION, name, "rate", 0), 2, text[1]),
               cell_text(cell_spread(INIT_SECTION, name, "destroy", 0), 1, text[2]),
               cell_text(cell_spread(INIT_SECTION, name, "pool", 0), 1, text[3]));
    }
    struct cell_spread huge = cell_spread(INIT_SECTION, kind_names[KIND_THP], "huge", 0);
    if (huge.rounds != 0)
        printf("  THP: the kernel had huge pages for %s %% of it\n", cell_text(huge, 0, text[0]));
    cell_print_notes(INIT_SECTION);
}

static inline void init_measure(const struct region_plan *plan)
{
    struct plan_clock clock = plan_start(plan->quick ? 5 : 40, plan->quick ? 2 : 7);
    for (unsigned round = 0; plan_again(&clock, round); round++) {
        for (unsigned kind = 0; kind < KIND_COUNT; kind++)
            init_round((enum page_kind)kind, round, plan);
    }
    init_print(plan, clock.rounds);
}

#endif
