/* SPDX-License-Identifier: MIT */
/*
 * Large objects: runs of units, over 256 KiB or aligned to more than a unit. The class map marks
 * the first unit as head, the others as body; the head's slab entry is LARGE and holds the length.
 * No cache: a few atomic operations each way, the same at every size up to a SuperSlab.
 */
#ifndef HAK_ALLOC_LARGE_H
#define HAK_ALLOC_LARGE_H

#include "alloc/guarded.h"
#include "alloc/thread.h"

/* *zeroed (may be NULL): its memory is as the kernel gave it. NULL with ENOMEM and the record. */
void *large_alloc(struct thread *thread, size_t size, size_t alignment, bool *zeroed);
/* From that pool or not at all. */
void *large_alloc_in(struct thread *thread, struct pool *pool, size_t size, size_t alignment,
                     bool *zeroed);
/* For an object that grows and has to move: half as much again, for the next times, where that is a
 * small part of what the node has free; otherwise the size itself, or NULL. Without prefault,
 * memory that is never touched costs only addresses. */
void *large_grow(struct thread *thread, size_t size);
/* The size, with what lies right before the object: it moves there, and goes on to where it was.
 * NULL where that is taken. */
void *large_grow_down(struct thread *thread, unit_t unit, size_t size);
/* The unit is a large head. Reports what is not the object's start or was freed already. */
void large_free(struct thread *thread, unit_t unit, void *pointer);
/* Grows or shrinks in place; false where the next units are taken. */
bool large_resize(struct thread *thread, unit_t unit, size_t size);
/* The units, all the caller's, are one live object. */
void large_mark(struct hak_region *heap, unit_t unit, size_t units);
bool large_check(struct hak_region *heap, unit_t unit);

HAK_INLINE size_t large_units(const struct slab *slab)
{
    /* Relaxed: changed by the object's holder alone; others read it for figures. */
    return atomic_load_explicit(&slab->large_units, memory_order_relaxed);
}

/* The largest object that so many neighbouring units have room for. */
HAK_INLINE size_t large_room(const struct hak_region *heap, size_t units)
{
    return heap->hardened == NULL ? units << UNIT_LOG2 : guarded_room(heap, units);
}

HAK_INLINE size_t large_bytes(const struct hak_region *heap, unit_t unit)
{
    return large_units(&heap->slabs[unit]) << UNIT_LOG2;
}

#endif
