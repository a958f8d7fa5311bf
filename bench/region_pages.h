/* SPDX-License-Identifier: MIT */
/*
 * The page sizes that bench/region compares, and a faulted-in region on each, or the reason why
 * there is none. What the machine lacks, or cannot provide now, becomes a note of the section.
 *
 * One region at a time, so that memory never holds more than one region's worth, be it in use or
 * in a pool of huge pages.
 */
#ifndef HAK_BENCH_REGION_PAGES_H
#define HAK_BENCH_REGION_PAGES_H

#include "bench/pool.h"
#include "bench/region_cells.h"

enum page_kind { KIND_4K, KIND_THP, KIND_2M, KIND_1G, KIND_COUNT };

static const enum hak_pages kind_pages[KIND_COUNT] = {
    [KIND_4K] = HAK_PAGES_4K,
    [KIND_THP] = HAK_PAGES_THP,
    [KIND_2M] = HAK_PAGES_2M,
    [KIND_1G] = HAK_PAGES_1G,
};
static const char *const kind_names[KIND_COUNT] = {
    [KIND_4K] = "4 KiB",
    [KIND_THP] = "THP",
    [KIND_2M] = "2 MiB",
    [KIND_1G] = "1 GiB",
};

/* A region of one kind, and what it took to get it. */
struct kind_region {
    hak_region *region;
    size_t bytes;
    uint64_t pool_ns, open_ns, close_ns;
};

static inline bool kind_suits(const char *section, enum page_kind kind, unsigned nodes,
                              size_t share_bytes, size_t size_bytes)
{
    size_t page_bytes = os_pages_bytes(kind_pages[kind]);
    if (kind == KIND_THP && !supply_thp()) {
        cell_leave_out(section, kind_names[kind],
                       "transparent huge pages are off on this machine "
                       "(/sys/kernel/mm/transparent_hugepage/enabled)");
        return false;
    }
    if (round_up(share_bytes, page_bytes) * nodes <= size_bytes)
        return true;
    cell_leave_out(
        section, kind_names[kind],
        "whole pages on %u node%s would take more than the %zu MiB allowed; give a --size "
        "that is a multiple of %zu MiB",
        nodes, nodes == 1 ? "" : "s", size_bytes >> 20, (page_bytes * nodes) >> 20);
    return false;
}

/* A region of size_bytes, faulted in and shared out over the nodes of the mask. False with a note;
 * a kind that has a note is not tried again. */
static inline bool kind_open(const char *section, enum page_kind kind, uint64_t nodes,
                             size_t size_bytes, struct kind_region *out)
{
    char story[POOL_STORY_BYTES];
    struct hak_error error;
    unsigned count = popcount64(nodes);
    size_t share_bytes = (size_bytes + count - 1) / count;
    if (cell_noted(section, kind_names[kind]) ||
        !kind_suits(section, kind, count, share_bytes, size_bytes))
        return false;
    uint64_t start_ns = bench_now_ns();
    if (pool_borrow(kind_pages[kind], nodes, share_bytes, story) != 0) {
        cell_leave_out(section, kind_names[kind], "%s", story);
        return false;
    }
    struct hak_config config = {.size_bytes = size_bytes,
                                .pages = {kind_pages[kind]},
                                .nodes = nodes,
                                .prefault = HAK_ON,
                                .exhausted = HAK_EXHAUSTED_FAIL};
    uint64_t borrowed_ns = bench_now_ns();
    int code = hak_region_create(&config, &out->region);
    out->open_ns = bench_now_ns() - borrowed_ns;
    out->pool_ns = borrowed_ns - start_ns;
    if (code != 0) {
        hak_last_error(&error);
        cell_leave_out(section, kind_names[kind], "%s", error.message);
        pool_return();
        return false;
    }
    struct hak_stats stats;
    hak_region_stats(out->region, &stats);
    out->bytes = stats.size_bytes;
    return true;
}

static inline void kind_close(struct kind_region *kind)
{
    uint64_t start_ns = bench_now_ns();
    int code = hak_region_destroy(kind->region);
    kind->close_ns = bench_now_ns() - start_ns;
    if (code != 0)
        bench_fail("a region could not be ended: %s", strerror(-code));
    pool_return();
}

#endif
