/* SPDX-License-Identifier: MIT */
/*
 * Giving memory back to the kernel: SuperSlabs that are wholly free and were used. Only in a region
 * of ordinary pages that was not faulted in at its start; elsewhere nothing below does anything,
 * and no system call is ever made.
 *
 * Callers: units.c tells what becomes free and what is taken; alloc asks for all at once
 * (malloc_trim), for the figures, and around fork(2). Any thread; errno is kept.
 */
#ifndef HAK_REGION_GIVEBACK_H
#define HAK_REGION_GIVEBACK_H

#include "region/region.h"

/* Decides for a region that was just made, and starts its clock. While nobody else knows it. */
void giveback_open(struct region *region);

/*
 * Everything that can go goes now, but for keep_bytes of it (shared out over the segments, rounded
 * down to whole SuperSlabs). Returns the bytes given back. Nothing in a segment of which less than
 * an eighth is free, and no more where a search for memory is in trouble.
 */
size_t giveback_now(struct region *region, size_t keep_bytes);

/* The same for free units of SuperSlabs that are partly in use: they do not go by themselves. A
 * walk over the registry, for malloc_trim. */
size_t giveback_parts(struct region *region);

/* Bytes that had memory behind them and were given back, since the region was made. */
uint64_t giveback_bytes(const struct region *region);
/* How many madvise calls that took, refused ones included. */
uint64_t giveback_calls(const struct region *region);

/*
 * Around fork(2): before, in the parent, and in the child. No purge is half done in between, so the
 * child lacks nothing (unless one was stopped; see giveback_hold in giveback.c).
 */
void giveback_before_fork(struct region *region);
void giveback_in_parent(struct region *region);
void giveback_in_child(struct region *region);

/* The dirty set holds all that it should, and the count is right. While nobody is at work. */
/* Notes anew what is free and has memory; while nobody else is at work (a child of fork). */
void giveback_recount(struct segment *segment);
bool giveback_check(struct segment *segment);

/* ---- for units.c ---------------------------------------------------------------------------- */

void giveback_set(struct segment *segment, uint32_t superslab);
void giveback_clear(struct segment *segment, uint32_t superslab);
/* Memory without anything behind it is taken, and some was given back lately. */
void giveback_regret(struct segment *segment);
void giveback_work(struct region *region, struct segment *segment, size_t emptied);

HAK_INLINE bool giveback_on(const struct segment *segment)
{
    return segment->giveback.on;
}

/* The caller made the last of the SuperSlab's units free. */
HAK_INLINE void giveback_emptied(struct segment *segment, uint32_t superslab)
{
    if (giveback_on(segment)) {
        giveback_set(segment, superslab);
    }
}

/* The caller took the first of its units and has not given any back yet. */
HAK_INLINE void giveback_opened(struct segment *segment, uint32_t superslab)
{
    if (!giveback_on(segment)) {
        return;
    }
    if (bitset_test(&segment->giveback.dirty, superslab)) {
        giveback_clear(segment, superslab);
    } else if (unlikely(atomic_load_explicit(&segment->giveback.gone, memory_order_relaxed) != 0)) {
        giveback_regret(segment);
    }
}

/* After units were taken, or given back so that so many SuperSlabs are wholly free now: lets some
 * memory go where it is time. */
HAK_INLINE void giveback_step(struct region *region, struct segment *segment, size_t emptied)
{
    /* Relaxed: a figure. */
    if (unlikely(atomic_load_explicit(&segment->dirty_count, memory_order_relaxed) != 0) &&
        giveback_on(segment)) {
        giveback_work(region, segment, emptied);
    }
}

/* Before a search, and after one that found nothing: whether a purge may have hidden what it
 * looked for. */
HAK_INLINE uint64_t giveback_mark(const struct segment *segment)
{
    return atomic_load_explicit(&segment->purges, memory_order_seq_cst);
}

HAK_INLINE bool giveback_met(const struct segment *segment, uint64_t mark)
{
    uint64_t now = atomic_load_explicit(&segment->purges, memory_order_seq_cst);
    return now != mark || (uint32_t)now != 0;
}

/* No purge of the segment is under way now nor begins, until giveback_resume. */
void giveback_hold(struct segment *segment);
void giveback_resume(struct segment *segment);

#endif
