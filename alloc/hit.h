/* SPDX-License-Identifier: MIT */
/*
 * The hit paths of malloc and free, for front.c and preload.c. They read the thread's slot, the
 * table from size to bin and one byte of the class map, take no lock, no atomic step and no call;
 * every miss is a tail call to a cold function named after its reason. front.c tells the whole
 * journeys.
 */
#ifndef HAK_ALLOC_HIT_H
#define HAK_ALLOC_HIT_H

#include "alloc/thread.h"

/* The misses, in front.c. heap NULL: the default region. */
HAK_NOINLINE void *malloc_miss(size_t size, struct hak_region *heap);
/* The same past the quarantine of a hardened region. */
HAK_NOINLINE void *malloc_slow(struct hak_region *heap, size_t size);
HAK_NOINLINE void free_slow(void *pointer, struct hak_region *heap);

/* A bin from what is found in a table: its distance from the slot's beginning. */
HAK_INLINE struct bin *bin_at(struct thread *thread, size_t offset_bytes)
{
    return (struct bin *)(void *)((char *)thread + offset_bytes);
}

HAK_INLINE struct bin *bin_of_small(struct thread *thread, size_t size)
{
    return bin_at(thread, thread_bin_offset[(size + 15) / 16]);
}

HAK_INLINE struct bin *bin_of_entry(struct thread *thread, size_t class_map_entry)
{
    return bin_at(thread, class_map_entry * CLASS_MAP_STEP);
}

HAK_INLINE bool bin_pop(struct bin *bin, void **object)
{
    void **top = bin->top;

    if (unlikely(top == bin->low)) {
        return false;
    }
    bin->top = top - 1;
    *object = top[-1];
    return true;
}

/* Pops; false is a miss, by want of objects or of a class. */
HAK_INLINE bool malloc_hit(unsigned id, size_t size, void **object)
{
    struct thread *thread = thread_self[id].active;

    if (likely(size <= CLASS_TABLE_BYTES_MAX)) {
        return bin_pop(bin_of_small(thread, size), object);
    }
    return size <= CLASS_BYTES_MAX && bin_pop(&thread->bins[sizeclass_computed(size)], object);
}

/* alignment: a power of two over HAK_ALIGNMENT_MIN. */
HAK_INLINE bool aligned_hit(unsigned id, size_t alignment, size_t size, void **object)
{
    return alignment <= UNIT_BYTES && size <= CLASS_BYTES_MAX - alignment &&
           bin_pop(&thread_self[id].active->bins[sizeclass_aligned(size, alignment)], object);
}

HAK_INLINE const struct heap_front *front_of(const struct hak_region *heap)
{
    return heap != NULL ? &heap->front : &heap_default_front;
}

/* The node check, the bounds check and the NULL check in one. */
HAK_INLINE bool is_home(const struct thread *thread, const void *pointer)
{
    return (uintptr_t)pointer - thread->home_base < thread->home_bytes;
}

/* The class map entry of an address in the region. */
HAK_INLINE uint8_t entry_of(const struct heap_front *front, const void *pointer)
{
    uintptr_t at = front->class_map + ((uintptr_t)pointer >> UNIT_LOG2);

    /* Relaxed: whoever frees an object got it after its unit's byte was written. */
    return atomic_load_explicit((const _Atomic uint8_t *)at, memory_order_relaxed);
}

/* Pushes; false is a miss, by want of room or of a bin. */
HAK_INLINE bool free_hit(const struct heap_front *front, unsigned id, void *pointer)
{
    struct thread *thread = thread_self[id].active;

    if (unlikely(!is_home(thread, pointer))) {
        return false;
    }
    struct bin *bin = bin_of_entry(thread, entry_of(front, pointer));
    void **top = bin->top;
    if (unlikely(top == bin->limit)) {
        return false;
    }
    *top = pointer;
    bin->top = top + 1;
    return true;
}

HAK_INLINE void *malloc_any(struct hak_region *heap, unsigned id, size_t size)
{
    void *object = NULL;

    return likely(malloc_hit(id, size, &object)) ? object : malloc_miss(size, heap);
}

HAK_INLINE void free_any(struct hak_region *heap, unsigned id, void *pointer)
{
    if (unlikely(!free_hit(front_of(heap), id, pointer))) {
        free_slow(pointer, heap);
    }
}

#endif
