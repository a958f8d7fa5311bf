/* SPDX-License-Identifier: MIT */
/*
 * The warm pool: per thread and class up to 12 SuperSlabs in which the thread lately found slabs
 * with room. Whether one still has some is a single load: its 32 bits of the class's published set.
 * One without leaves the pool and does not come back by itself; a pool found empty is filled to
 * its capacity in one go (the prefill), from the lowest address up, so that the next misses of the
 * box are answered without a search, and threads settle on SuperSlabs of their own.
 */
#ifndef HAK_ALLOC_WARMPOOL_H
#define HAK_ALLOC_WARMPOOL_H

#include "alloc/thread.h"

/* A slab of the class with room, now OWNED; UNIT_NONE where the node has none published. */
unit_t warmpool_acquire_owner(struct thread *thread, unsigned class);
/* Prints hits, misses, prefilled and hit rate of each class that had any to standard error. */
void warmpool_print_stats(struct hak_region *heap);

#endif
