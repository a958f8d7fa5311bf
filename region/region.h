/* SPDX-License-Identifier: MIT */
/*
 * A region: one range of addresses, a segment per NUMA node, the registry, and the units that are
 * free. The allocator above (alloc/heap.h) adds what units are used for.
 *
 * Set up and taken down by one thread; in between, base, bounds and segments do not change.
 */
#ifndef HAK_REGION_REGION_H
#define HAK_REGION_REGION_H

#include "region/backing.h"
#include "region/bitset.h"
#include "region/config.h"
#include "region/registry.h"

/* Longest free runs of a SuperSlab: 0 to 32 units. */
#define RUN_LENGTHS (SUPERSLAB_UNITS + 1)

/* What a segment knows about memory that can go back to the kernel; see region/giveback.c. */
struct giveback {
    bool on;                   /* set once, before anybody knows the region */
    _Atomic uint32_t holders;  /* searches and forks that want no purge to begin */
    _Atomic uint32_t stuck;    /* purges under way that nobody waits for any more */
    _Atomic uint32_t failures; /* refused in a row */
    /* SuperSlabs that are wholly free and have memory behind them. */
    struct bitset dirty;
    _Atomic uint32_t low;   /* least dirty_count since the last tick */
    _Atomic uint32_t due;   /* SuperSlabs that the last tick found idle and that are to go */
    _Atomic uint32_t gone;  /* SuperSlabs given back lately */
    _Atomic uint32_t slack; /* of those, taken again soon: so many more may lie dirty */
    _Atomic uint64_t next_tick_ns;
    _Atomic uint64_t pause_end_ns; /* after many refusals */
    _Atomic uint64_t bytes, calls; /* given back since the start; by so many madvise calls */
};

struct segment {
    int node; /* the kernel's number */
    uint32_t first_superslab;
    uint32_t superslab_count;
    struct registry_entry *registry; /* entry of the first SuperSlab */
    uintptr_t base;                  /* address of the first SuperSlab */

    /* runs[n]: SuperSlabs (counted from the segment's first) whose longest free run may be n
     * units; lengths: for which n that set may hold anything. Hints, see region/units.c. */
    struct bitset runs[RUN_LENGTHS];
    _Atomic uint64_t lengths CACHE_ALIGNED;
    _Atomic uint64_t free_unit_count;  /* a figure, exact when nobody is at work */
    _Atomic uint64_t huge_below_units; /* free units below which it thinks of huge pages; 0: done */
    size_t huge_from_bytes;
    _Atomic uint32_t spans_rolled_back;
    _Atomic uint32_t spans_in_flight;
    _Atomic uint64_t purges;      /* 2^32 * ended + under way */
    _Atomic uint32_t dirty_count; /* bits of dirty; while they change, perhaps more */
    void *index_memory;
    size_t index_bytes;
    struct giveback giveback;
};

struct region {
    uintptr_t base;
    size_t bytes;
    uint32_t superslab_count;
    uint32_t unit_count;
    enum hak_pages pages;
    bool adopted;
    bool prefault;
    enum table_place place; /* of every table */
    struct backing backing;
    uint64_t giveback_tick_ns; /* between two looks for memory that lies idle */
    struct registry_entry *registry;
    size_t registry_bytes; /* reserved */
    size_t metadata_bytes; /* of this floor, in use */
    uint32_t segment_count;
    unit_t segment_first[HAK_NODES_MAX]; /* each segment's first unit */
    struct segment segments[HAK_NODES_MAX];
};

/* Both take a zeroed struct: it is large, and only the part in use is to be touched.
 * Reserves, backs, binds and verifies what the settings ask for, and lays out the registry with
 * every unit free. Negative errno with *error filled; then nothing stays behind. */
int region_create(struct region *region, const struct settings *settings, struct hak_error *error);
/* The same in memory that the caller has; start and bytes are whole SuperSlabs. */
int region_adopt(struct region *region, void *start, size_t bytes, int node, enum table_place place,
                 struct hak_error *error);
void region_destroy(struct region *region);
/* Walks all: registry against hints and counts. While nobody is at work. */
bool region_check(struct region *region);

HAK_INLINE unit_t region_unit(const struct region *region, const void *pointer)
{
    /* Wraps to a huge number below the base; callers compare with unit_count. */
    uintptr_t unit = ((uintptr_t)pointer - region->base) >> UNIT_LOG2;
    return unit < region->unit_count ? (unit_t)unit : UNIT_NONE;
}

HAK_INLINE void *region_address(const struct region *region, unit_t unit)
{
    return (void *)(region->base + ((uintptr_t)unit << UNIT_LOG2));
}

HAK_INLINE struct registry_entry *region_entry(const struct region *region, unit_t unit)
{
    return &region->registry[unit >> SUPERSLAB_UNITS_LOG2];
}

/* Of the segment that holds the unit. As many steps as there are nodes above it: mostly none. */
HAK_INLINE uint32_t region_segment_index(const struct region *region, unit_t unit)
{
    uint32_t n = region->segment_count - 1;

    while (unlikely(unit < region->segment_first[n])) {
        n--;
    }
    return n;
}

HAK_INLINE struct segment *region_segment_of(struct region *region, unit_t unit)
{
    return &region->segments[region_segment_index(region, unit)];
}

/* The segment on that node, or NULL. */
struct segment *region_segment_on(struct region *region, int node);

#endif
