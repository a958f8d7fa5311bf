/* SPDX-License-Identifier: MIT */
/*
 * A hardened region's thread cache. Per class two arrays of up to 64 objects:
 *
 *   held    freed by this thread; each free puts its object in the place of one chosen at random
 *   stock   free objects; those that leave held come here, else from the slabs. An allocation takes
 *           the last, in whose place another one is put that is chosen at random, so that its
 *           memory can be on its way. The stock is filled up before it is down to a few.
 *
 * Each thread has its own, as long as it has its slot; capacity counts as any cache's.
 */
#ifndef HAK_ALLOC_QUARANTINE_H
#define HAK_ALLOC_QUARANTINE_H

#include "alloc/thread.h"

#define QUARANTINE_OBJECTS MAGAZINE_OBJECTS

struct quarantine_counts {
    uint8_t stock, held;
    uint8_t capacity; /* of each; 0: none, objects go to their slabs at once */
    uint8_t low;      /* the stock is filled up once it is down to this; at least 1 */
};

struct quarantine {
    uint64_t random, step;
    struct quarantine_counts counts[CLASS_COUNT + 1];
    struct quarantine_arrays {
        void *stock[QUARANTINE_OBJECTS];
        void *held[QUARANTINE_OBJECTS];
    } arrays[CLASS_COUNT + 1] CACHE_ALIGNED;
};

HAK_INLINE struct quarantine *quarantine_of(const struct pool *pool, uint32_t slot)
{
    return (struct quarantine *)(void *)(pool->slots.quarantines +
                                         (size_t)slot * sizeof(struct quarantine));
}

/* Makes the slot's empty. */
void quarantine_init(struct thread *thread);
/* The stock is low, or may be: a free object of the class, or NULL where the node is exhausted
 * (errno and record set). */
void *quarantine_restock(struct thread *thread, unsigned cls);
/* An object that was freed and filled, where the short way below does not do. */
void quarantine_put_any(struct thread *thread, unsigned cls, void *object);
/* Gives a class's back to the slabs; true where there were any. */
bool quarantine_shed(struct thread *thread, unsigned cls);
bool quarantine_check(const struct thread *thread);

/* 32 random bits: the upper half of a congruential generator (Knuth's MMIX) whose start and step
 * are secret. Enough against guessing; who sees many choices could compute the next ones. */
HAK_INLINE uint64_t quarantine_random(struct quarantine *quarantine)
{
    uint64_t random = quarantine->random * 6364136223846793005U + quarantine->step;

    quarantine->random = random;
    return random >> 32;
}

/* A number below bound, from the upper half of a product (after Lemire). */
HAK_INLINE unsigned quarantine_below(struct quarantine *quarantine, unsigned bound)
{
    return (unsigned)((quarantine_random(quarantine) * bound) >> 32);
}

/* Somewhere in the stock, whose last entry has been chosen and stays that. */
HAK_INLINE void quarantine_stock(struct quarantine *quarantine, unsigned cls, void *object)
{
    struct quarantine_counts *counts = &quarantine->counts[cls];
    void **stock = quarantine->arrays[cls].stock;
    size_t count = counts->stock++;
    size_t below = count - (count > 0);

    /* An empty one: the object goes where it is copied from. */
    stock[count] = stock[below];
    stock[below] = object;
}

/* false: quarantine_restock. */
HAK_INLINE bool quarantine_take(struct quarantine *quarantine, unsigned cls, void **object)
{
    struct quarantine_counts *counts = &quarantine->counts[cls];
    void **stock = quarantine->arrays[cls].stock;
    unsigned left = counts->stock - 1U;

    if (unlikely(counts->stock <= counts->low)) {
        return false;
    }
    counts->stock = (uint8_t)left;
    *object = stock[left];
    unsigned chosen = quarantine_below(quarantine, left);
    void *next = stock[chosen];
    stock[chosen] = stock[left - 1];
    stock[left - 1] = next;
    __builtin_prefetch(next, 1);
    return true;
}

/* false: quarantine_put_any. Of a region with one node only. */
HAK_INLINE bool quarantine_put(struct quarantine *quarantine, unsigned cls, void *object)
{
    struct quarantine_counts *counts = &quarantine->counts[cls];
    void **held = quarantine->arrays[cls].held;

    if (unlikely(counts->held < counts->capacity || counts->stock >= counts->capacity)) {
        return false;
    }
    unsigned chosen = quarantine_below(quarantine, counts->held);
    void *leaves = held[chosen];
    held[chosen] = object;
    quarantine_stock(quarantine, cls, leaves);
    return true;
}

#endif
