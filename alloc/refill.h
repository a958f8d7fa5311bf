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

/* 1 to want objects, lowest address first; 0 where the ladder ends, with errno and the record. */
unsigned refill(struct thread *thread, unsigned class, void **out, unsigned want);
/* One object straight from a pool's slabs, whatever the thread's home; NULL. */
void *refill_from_pool(struct thread *thread, struct pool *pool, unsigned class);

#endif
