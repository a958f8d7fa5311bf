/* SPDX-License-Identifier: MIT */
/*
 * The page box: per class the few slabs that a thread owns. Refills come from them without meeting
 * anyone; frees of anybody go into them without a change of state. What is free in them is not to
 * be had by others, so all boxes of a node together hold at most 1 % of its segment. All by the
 * slot's thread, or by the one thread that took the slot over (thread.h).
 */
#ifndef HAK_ALLOC_PAGEBOX_H
#define HAK_ALLOC_PAGEBOX_H

#include "alloc/thread.h"

/* Up to want objects from the slabs of the box; 0 where none has any. */
unsigned pagebox_take_owner(struct thread *thread, unsigned cls, void **out, unsigned want);
/* Puts a slab that the thread owns on top; the oldest gives way where the box is full. False where
 * the node's boxes may not hold more: the caller keeps the slab. */
bool pagebox_put_owner(struct thread *thread, unsigned cls, unit_t unit);
/* A batch filled a word of the slab's bitmap: if it is one of ours, and empty, and the box has
 * another empty one, it goes back. */
void pagebox_emptied_owner(struct thread *thread, unsigned cls, unit_t unit);
/* Gives all slabs of the class up. */
void pagebox_drain_owner(struct thread *thread, unsigned cls);
/* Whether the class uses its box (HAKMEM_TINY_PAGE_BOX_CLASSES, HAKMEM_LAYERS). */
HAK_INLINE bool pagebox_used(const struct thread *thread, unsigned cls)
{
    return (thread->heap->page_box_classes >> cls) & 1;
}

#endif
