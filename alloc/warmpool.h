/* SPDX-License-Identifier: MIT */
/*
 * The warm pool: per thread and class up to 12 SuperSlabs in which the thread lately found slabs
 * with room, or gave some. Whether one still has any is a single load: its 32 bits of the class's
 * published set. One without is exhausted and leaves the pool; it comes back only with new room in
 * it. A pool found empty is filled to its capacity in one go (the prefill), from the lowest
 * address up. So the misses of the box are answered without a search through the node's set, and
 * threads keep to SuperSlabs of their own.
 */
#ifndef HAK_ALLOC_WARMPOOL_H
#define HAK_ALLOC_WARMPOOL_H

#include "alloc/thread.h"

/* A slab of the class with room, now OWNED; UNIT_NONE where the node has none published. */
unit_t warmpool_acquire_owner(struct thread *thread, unsigned cls);
/* The thread has just published a slab of the class in this SuperSlab (from the pool's first). */
void warmpool_note_owner(struct thread *thread, unsigned cls, uint32_t superslab);
/* Prints hits, misses, prefilled and hit rate of each class that had any to standard error. */
void warmpool_print_stats(struct hak_region *heap);

#endif
