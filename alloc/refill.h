/* SPDX-License-Identifier: MIT */
/*
 * The miss ladder: where a thread's next objects of a class come from when its cache is empty.
 *
 *   page box       a slab that the thread owns has some
 *   warm pool      a SuperSlab that it knows has a slab with room
 *   shared pool    any slab of its node with room; free units made into a slab
 *   exhaustion     alloc/exhaust.c: what others hold back, other nodes, the error record
 */
#ifndef HAK_ALLOC_REFILL_H
#define HAK_ALLOC_REFILL_H

#include "alloc/thread.h"

/* 1 to want objects, those of a bitmap word highest address first, so that a stack hands neighbours
 * out one after the other; 0 where the thread's node has none at hand. */
unsigned refill(struct thread *thread, unsigned cls, void **out, unsigned want);
/* The rest of the ladder, for one object; NULL at its end, with errno and the record. The thread's
 * caches and boxes may be empty and closed afterwards. */
HAK_COLD void *refill_exhausted(struct thread *thread, unsigned cls);
/* One object straight from a pool's slabs, whatever the thread's home; NULL. */
void *refill_from_pool(struct thread *thread, struct pool *pool, unsigned cls);

#endif
