/* SPDX-License-Identifier: MIT */
/*
 * Taking and giving back runs of units. Lock-free: nobody waits for a thread that was stopped. A
 * search that found nothing while somebody claims a span (over 32 units) looks again some times,
 * for microseconds.
 *
 * Callers: alloc's shared pool (slabs) and large objects. Unit numbers count from the region's
 * base; a run never leaves its segment.
 */
#ifndef HAK_REGION_UNITS_H
#define HAK_REGION_UNITS_H

#include "region/region.h"

/*
 * count neighbouring units whose address is a multiple of alignment (a power of two, at least
 * UNIT_BYTES). Up to 32 units lie in one SuperSlab; more begin at a SuperSlab. *untouched (may be
 * NULL): nobody had any of them since the kernel handed them over zeroed.
 * UNIT_NONE where the segment has no such run (beginning at a SuperSlab's start, if it is longer
 * than one), or others hide it by what they are half-way in (see units_mend). Constant time up to
 * 32 units at unit alignment; more search the free SuperSlabs by their bitset.
 */
unit_t units_acquire(struct region *region, struct segment *segment, size_t count, size_t alignment,
                     bool *untouched);
/* Just these units of the segment, where they lie in it and all of them are free: for growing in
 * place. */
bool units_acquire_at(struct segment *segment, unit_t first, size_t count);
/* Gives a run, or any part of one, back. */
void units_release(struct region *region, unit_t first, size_t count);

/* For giveback.c: the whole SuperSlab (counted from the segment's first) where it is wholly free;
 * its units still count as free. Given back, it is dirty where it was touched. */
bool units_claim_superslab(struct segment *segment, uint32_t superslab);
void units_return_superslab(struct segment *segment, uint32_t superslab);
/* The same for some neighbouring units of it, counted from its first. */
bool units_claim_free(struct segment *segment, uint32_t superslab, unsigned first, unsigned count);
void units_return_free(struct segment *segment, uint32_t superslab, unsigned first, unsigned count);

/* Length in units of the longest run that one object could have now. A walk over the free
 * SuperSlabs, for figures and for the record of an exhausted allocation. */
size_t units_largest_run(struct segment *segment);
/* Announces every free run anew. What a thread that is stopped half-way hides from the search is
 * found again; a walk over the segment's SuperSlabs, for an allocation that fails otherwise. */
void units_mend(struct segment *segment);
/* Counts the free units and announces their runs anew; while nobody else is at work (a child of
 * fork). */
void units_recount(struct segment *segment);
/* The start: registry and index are zeroed memory. zeroed: what the units hold is, too. While
 * nobody looks. */
void units_open(struct segment *segment, bool zeroed);
bool units_check(struct segment *segment);

#endif
