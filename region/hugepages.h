/* SPDX-License-Identifier: MIT */
/*
 * Transparent huge pages for what is large only: a segment that begins on small pages and asks for
 * huge ones once so much of it is in use, and the process has half as much memory: an object may be
 * large and hardly touched (a table of which only the beginning is needed), and on huge pages every
 * touch would be 2 MiB. A small program then never waits for 2 MiB to be found and cleared. What it
 * has by then stays as it is (khugepaged may join it).
 */
#ifndef HAK_REGION_HUGEPAGES_H
#define HAK_REGION_HUGEPAGES_H

#include "region/region.h"

/* From now on small pages, until more than from_bytes of a segment are in use; 0: nothing changes.
 * Nor does it for other kinds of pages, and where memory was faulted in. While nobody else knows
 * the region. */
void hugepages_later(struct region *region, size_t from_bytes);

/* What hugepages_step comes to now and then, until it is done. Keeps errno. */
void hugepages_begin(struct segment *segment);

/* After units were taken. */
HAK_INLINE void hugepages_step(struct segment *segment)
{
    /* Relaxed, both: figures; whoever comes too early or late makes the call a few units later. */
    uint64_t below = atomic_load_explicit(&segment->huge_below_units, memory_order_relaxed);

    if (unlikely(atomic_load_explicit(&segment->free_unit_count, memory_order_relaxed) < below)) {
        hugepages_begin(segment);
    }
}

#endif
