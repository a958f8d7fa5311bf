/* SPDX-License-Identifier: MIT */
/* Making and ending a region: backing, registry, and each segment's index of free runs. */
#include "region/region.h"

#include <errno.h>
#include <string.h>

#include "region/errlog.h"
#include "region/giveback.h"
#include "region/hugepages.h"
#include "region/os.h"
#include "region/units.h"

/* Memory of one segment's hints: a set of SuperSlabs for each length of run, and the dirty ones. */
static int make_index(struct segment *segment, bool prefault, enum table_place place)
{
    size_t each = bitset_bytes(segment->superslab_count);
    unsigned char *at;
    int code;

    segment->index_bytes = each * (RUN_LENGTHS + 1);
    code = backing_table(segment->index_bytes, segment->node, prefault, HAK_PAGES_4K, place,
                         &segment->index_memory);
    if (code != 0) {
        segment->index_memory = NULL;
        return code;
    }
    at = segment->index_memory;
    for (unsigned n = 0; n < RUN_LENGTHS; n++) {
        bitset_place(&segment->runs[n], at, segment->superslab_count);
        at += each;
    }
    bitset_place(&segment->giveback.dirty, at, segment->superslab_count);
    return 0;
}

static void drop_tables(struct region *region)
{
    for (uint32_t n = 0; n < region->segment_count; n++) {
        struct segment *segment = &region->segments[n];
        if (segment->index_memory != NULL) {
            backing_table_free(segment->index_memory, segment->index_bytes, region->place);
            segment->index_memory = NULL;
        }
    }
    if (region->registry != NULL) {
        backing_table_free(region->registry, region->registry_bytes, region->place);
        region->registry = NULL;
    }
}

/* The registry and the indices over region->backing. */
static int make_tables(struct region *region, bool zeroed, struct hak_error *error)
{
    const struct backing *backing = &region->backing;
    void *registry;
    uint32_t first = 0;
    int code;

    region->base = (uintptr_t)backing->base;
    region->bytes = backing->bytes;
    region->superslab_count = (uint32_t)(backing->bytes >> SUPERSLAB_LOG2);
    region->unit_count = region->superslab_count * SUPERSLAB_UNITS;
    region->pages = backing->pages;
    region->registry_bytes = REGISTRY_ENTRIES * sizeof(struct registry_entry);
    /* Addresses for all entries, memory for those in use. */
    code = backing_table(region->registry_bytes, backing->segments[0].node, false, HAK_PAGES_4K,
                         region->place, &registry);
    if (code != 0) {
        return errlog_fail(error, code, HAK_ERROR_SETUP, "no memory for the registry");
    }
    region->registry = registry;
    region->metadata_bytes = region->superslab_count * sizeof(struct registry_entry);
    if (region->prefault) {
        code = os_populate(registry, round_up(region->metadata_bytes, os_page_bytes()), false);
        if (code != 0) {
            return errlog_fail(error, code, HAK_ERROR_SETUP,
                               "no memory for the registry (%zu bytes)", region->metadata_bytes);
        }
    }

    for (unsigned n = 0; n < backing->segment_count; n++) {
        struct segment *segment = &region->segments[n];
        segment->node = backing->segments[n].node;
        segment->base = (uintptr_t)backing->segments[n].start;
        segment->first_superslab = first;
        segment->superslab_count = (uint32_t)(backing->segments[n].bytes >> SUPERSLAB_LOG2);
        segment->registry = region->registry + first;
        region->segment_count = n + 1;
        code = make_index(segment, region->prefault, region->place);
        if (code != 0) {
            return errlog_fail(error, code, HAK_ERROR_SETUP,
                               "no memory for the index of free runs (%zu bytes) on node %d",
                               segment->index_bytes, segment->node);
        }
        region->metadata_bytes += segment->index_bytes;
        region->segment_first[n] = first * SUPERSLAB_UNITS;
        units_open(segment, zeroed);
        first += segment->superslab_count;
    }
    return 0;
}

int region_create(struct region *region, const struct settings *settings, struct hak_error *error)
{
    int code;

    region->prefault = settings->prefault;
    region->place = settings->hardened ? TABLE_APART : TABLE_ANYWHERE;
    code = backing_create(settings, &region->backing, error);
    if (code != 0) {
        return code;
    }
    code = make_tables(region, true, error);
    if (code != 0) {
        region_destroy(region);
        return code;
    }
    giveback_open(region);
    hugepages_later(region, settings->huge_from_bytes);
    return 0;
}

int region_adopt(struct region *region, void *start, size_t bytes, int node, enum table_place place,
                 struct hak_error *error)
{
    struct backing *backing = &region->backing;
    int code;

    region->adopted = true;
    region->place = place;
    region->prefault = true;
    backing->base = start;
    backing->bytes = bytes;
    backing->pages = HAK_PAGES_4K;
    backing->pages_wanted = HAK_PAGES_4K;
    backing->page_bytes = 4096;
    backing->fork_inherits = true;
    backing->segment_count = 1;
    backing->segments[0] = (struct backing_segment){.node = node, .start = start, .bytes = bytes};
    code = make_tables(region, false, error);
    if (code != 0) {
        region_destroy(region);
    }
    return code;
}

void region_destroy(struct region *region)
{
    drop_tables(region);
    if (!region->adopted) {
        backing_destroy(&region->backing);
    }
    memset(region, 0, sizeof(*region));
}

struct segment *region_segment_on(struct region *region, int node)
{
    for (uint32_t n = 0; n < region->segment_count; n++) {
        if (region->segments[n].node == node) {
            return &region->segments[n];
        }
    }
    return NULL;
}

bool region_check(struct region *region)
{
    uint32_t superslabs = 0;

    for (uint32_t n = 0; n < region->segment_count; n++) {
        struct segment *segment = &region->segments[n];
        if (segment->first_superslab != superslabs || !units_check(segment) ||
            !giveback_check(segment)) {
            return false;
        }
        if (region->segment_first[n] != superslabs * SUPERSLAB_UNITS) {
            return false;
        }
        superslabs += segment->superslab_count;
    }
    return superslabs == region->superslab_count;
}
