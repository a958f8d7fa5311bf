/* SPDX-License-Identifier: MIT */
/*
 * The steps for one kind of page: lay the segments out, ask whether there is enough (shortage),
 * map, bind each segment before its first touch, fault in and verify (faultin). A step that fails
 * unmaps everything, appends its reason to the error record, and the next kind has its turn.
 */
#include "region/backing.h"

#include "numa/bind.h"
#include "numa/topology.h"
#include "region/base.h"
#include "region/errlog.h"
#include "region/faultin.h"
#include "region/hugetlbfs.h"
#include "region/os.h"
#include "region/plan.h"
#include "region/shortage.h"
#include "region/supply.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

/* Transparent huge pages are this large on the supported processors, and so is a SuperSlab. */
#define TABLE_ALIGN HAK_SUPERSLAB_BYTES
/* Before and behind a table that lies apart, at least: a page of any processor. */
#define TABLE_GUARD ((size_t)64 << 10)

static int reserve(size_t length, size_t align, enum table_place place, void **out)
{
    return place == TABLE_APART ? os_reserve_apart(length, align, out)
                                : os_reserve(length, align, out);
}

static void release(void *at, size_t length, size_t align, enum table_place place)
{
    if (place == TABLE_APART)
        os_release_apart(at, length, align);
    else
        os_release(at, length);
}

static void lay_out(size_t bytes, uint64_t mask, enum hak_pages pages, struct backing *out)
{
    size_t share = plan_share(bytes, popcount64(mask), pages);
    memset(out, 0, sizeof *out);
    out->pages = pages;
    out->page_bytes = os_pages_bytes(pages);
    out->bytes = share * popcount64(mask);
    for (; mask != 0; mask &= mask - 1) {
        struct backing_segment *segment = &out->segments[out->segment_count++];
        segment->node = __builtin_ctzll(mask);
        segment->bytes = share;
    }
}

static int map_pages(struct backing *backing, const struct settings *settings,
                     struct hak_error *error)
{
    int code;
    if (os_pages_hugetlb(backing->pages) && settings->hugetlbfs)
        return hugetlbfs_map(backing->bytes, backing->pages, !backing->fork_inherits,
                             &backing->reserved, error);
    if (os_pages_hugetlb(backing->pages)) {
        code = os_map_hugetlb(backing->bytes, backing->pages, &backing->reserved);
    } else {
        backing->place = settings->hardened ? TABLE_APART : TABLE_ANYWHERE;
        code = reserve(backing->bytes, HAK_SUPERSLAB_BYTES, backing->place, &backing->reserved);
        if (code == 0)
            code = os_commit(backing->reserved, backing->bytes, backing->pages);
    }
    if (code != 0)
        shortage_explain(backing, "mapping them", code, error);
    return code;
}

static int map_range(struct backing *backing, const struct settings *settings,
                     struct hak_error *error)
{
    int code = map_pages(backing, settings, error);
    if (backing->reserved != NULL)
        backing->reserved_bytes = backing->bytes;
    if (code != 0)
        return code;
    backing->base = backing->reserved;
    unsigned char *at = backing->base;
    for (unsigned i = 0; i < backing->segment_count; i++) {
        backing->segments[i].start = at;
        at += backing->segments[i].bytes;
    }
    if (backing->fork_inherits)
        return 0;
    /* A child that writes to its copy of a hugetlb page needs a page that nobody has set aside. */
    code = os_dontfork(backing->base, backing->bytes);
    if (code != 0)
        shortage_explain(backing, "keeping them from children", code, error);
    return code;
}

static int bind_segments(struct backing *backing, struct hak_error *error)
{
    for (unsigned i = 0; i < backing->segment_count; i++) {
        struct backing_segment *segment = &backing->segments[i];
        int code = bind_strict(segment->start, segment->bytes, segment->node);
        if (code == 0)
            continue;
        error->node = segment->node;
        shortage_explain(backing, "binding them to their node", code, error);
        return code;
    }
    return 0;
}

static int fault_in(struct backing *backing, const struct settings *settings,
                    struct hak_error *error)
{
    struct faultin_failure failure;
    struct progress progress;
    uint64_t start_ns = os_now_ns();
    if (settings->progress)
        progress_begin(&progress, STDERR_FILENO, backing->bytes, backing->pages,
                       backing->segment_count, start_ns);
    int code = faultin_run_shown(backing->segments, backing->segment_count, backing->pages,
                                 settings->verify, settings->progress ? &progress : NULL, &failure);
    backing->faultin_bytes = backing->bytes;
    backing->faultin_ns = os_now_ns() - start_ns;
    if (code == 0)
        return 0;
    error->node = failure.node;
    if (failure.wrong_pages != 0)
        errlog_append(error->message, sizeof error->message,
                      " %s pages: at least %zu of node %d were found on another node;",
                      os_pages_name(backing->pages), failure.wrong_pages, failure.node);
    else
        shortage_explain(backing, "faulting them in", code, error);
    return code;
}

void backing_destroy(struct backing *backing)
{
    if (backing->reserved != NULL)
        release(backing->reserved, backing->reserved_bytes, HAK_SUPERSLAB_BYTES, backing->place);
    memset(backing, 0, sizeof *backing);
}

/* One kind of page, start to end. */
static int try_kind(const struct settings *settings, uint64_t mask, enum hak_pages pages,
                    struct backing *out, struct hak_error *error)
{
    lay_out(settings->size_bytes, mask, pages, out);
    out->pages_wanted = settings->pages[0];
    out->fork_inherits = !os_pages_hugetlb(pages) || settings->fork_inherits;
    int code = shortage_check(out, settings->prefault, error);
    if (code == 0)
        code = map_range(out, settings, error);
    if (code == 0)
        code = bind_segments(out, error);
    if (code == 0 && settings->prefault)
        code = fault_in(out, settings, error);
    if (code != 0)
        backing_destroy(out);
    return code;
}

int backing_create(const struct settings *settings, struct backing *out, struct hak_error *error)
{
    uint64_t mask = 0;
    struct hak_error collected;
    memset(out, 0, sizeof *out);
    if (error == NULL)
        error = &collected;
    int code = plan_nodes(settings->nodes, &mask, error);
    if (code != 0)
        return code;
    unsigned nodes = popcount64(mask);
    errlog_fail(&collected, -ENOMEM, HAK_ERROR_SETUP,
                "a region of %zu MiB over %u node%s cannot be had:", settings->size_bytes >> 20,
                nodes, nodes == 1 ? "" : "s");
    collected.size_bytes = settings->size_bytes;
    code = -EINVAL;
    for (unsigned i = 0; i < settings->pages_count; i++) {
        int kind_code = try_kind(settings, mask, settings->pages[i], out, &collected);
        if (kind_code == 0)
            return 0;
        /* The first reason is the answer: that kind was wanted most. */
        if (i == 0)
            code = kind_code;
    }
    collected.code = code;
    size_t length = strlen(collected.message);
    if (length > 0 && collected.message[length - 1] == ';')
        collected.message[length - 1] = '.';
    if (error != &collected)
        *error = collected;
    return code;
}

static size_t table_align(size_t bytes, enum table_place place)
{
    size_t least = place == TABLE_APART ? TABLE_GUARD : os_page_bytes();
    return bytes >= TABLE_ALIGN ? TABLE_ALIGN : least;
}

static int fill_table(void *table, size_t bytes, int node, enum hak_pages pages)
{
    const struct backing_segment segment = {.node = node, .start = table, .bytes = bytes};
    struct faultin_failure failure;
    if (supply_ordinary(topology_physical(node < 0 ? 0 : node)) < bytes)
        return -ENOMEM;
    return faultin_run(&segment, 1, pages, false, &failure);
}

int backing_table(size_t bytes, int node, bool prefault, enum hak_pages wish,
                  enum table_place place, void **out)
{
    size_t align = table_align(bytes, place);
    bool huge = wish != HAK_PAGES_4K && align == TABLE_ALIGN && supply_thp();
    enum hak_pages pages = huge ? HAK_PAGES_THP : HAK_PAGES_4K;
    size_t length = round_up(bytes, align);
    int code = reserve(length, align, place, out);
    if (code != 0)
        return code;
    code = os_commit(*out, length, pages);
    if (code == 0 && node >= 0)
        code = bind_strict(*out, length, node);
    if (code == 0 && prefault)
        code = fill_table(*out, length, node, pages);
    if (code != 0) {
        release(*out, length, align, place);
        *out = NULL;
    }
    return code;
}

void backing_table_free(void *table, size_t bytes, enum table_place place)
{
    size_t align = table_align(bytes, place);
    if (table != NULL)
        release(table, round_up(bytes, align), align, place);
}

int backing_check(const struct backing *backing)
{
    size_t grain = plan_grain(backing->pages);
    const unsigned char *at = backing->base;
    if (backing->segment_count == 0 || (uintptr_t)at % grain != 0)
        return -EUCLEAN;
    for (unsigned i = 0; i < backing->segment_count; i++) {
        const struct backing_segment *segment = &backing->segments[i];
        if (segment->start != at || segment->bytes == 0 || segment->bytes % grain != 0)
            return -EUCLEAN;
        if (i > 0 && segment->node <= backing->segments[i - 1].node)
            return -EUCLEAN;
        at += segment->bytes;
    }
    return at == backing->base + backing->bytes ? 0 : -EUCLEAN;
}
