/* SPDX-License-Identifier: MIT */
/*
 * The shared pool of a node: every slab and unit that no thread owns; the only backend. It has no
 * cap below the segment itself. Acquiring (sharedpool_acquire.c) is done by threads that need
 * room; releasing (sharedpool_release.c) by anyone who frees, whatever his node.
 */
#ifndef HAK_ALLOC_SHAREDPOOL_H
#define HAK_ALLOC_SHAREDPOOL_H

#include "alloc/thread.h"

/* Clears the published bit of a slab of the class and makes the slab OWNED; false where somebody
 * was faster or the bit was a leftover. */
bool sharedpool_claim(struct pool *pool, unsigned cls, unit_t unit);
/* The slab with room at the lowest address, now OWNED; UNIT_NONE. */
unit_t sharedpool_acquire_partial(struct pool *pool, unsigned cls);
/* A slab made of free units, now OWNED and full of free objects; UNIT_NONE. */
unit_t sharedpool_acquire_fresh(struct pool *pool, unsigned cls);

/* The owner gives a slab up; an empty one's units go to everybody. */
void sharedpool_give_up(struct thread *by, unit_t unit);
/*
 * Puts count (at most MAGAZINE_OBJECTS) objects back, in any order, of any slabs and nodes. One
 * atomic or per bitmap word; a slab's head is touched where a word becomes non-zero or full. class:
 * what they must be, or CLASS_NONE for whatever the class map says. Pointers that are no allocated
 * objects are reported (misuse.h).
 */
void sharedpool_release(struct thread *by, unsigned cls, void *const *pointers, unsigned count);
bool sharedpool_check(struct pool *pool);

#endif
