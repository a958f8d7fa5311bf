/* SPDX-License-Identifier: MIT */
/*
 * A hardened region's thread cache. Per class two arrays of up to 64 objects:
 *
 *   held    freed by this thread; each free puts its object in the place of one chosen at random,
 *           which goes to the stock
 *   stock   free objects in random order: each is put in a place chosen at random. Allocations take
 *           the last. Filled up from the slabs where it is empty, and shuffled
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
};

struct quarantine {
    struct hak_region *heap;
    const struct hardened *hardened;
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
/* A free object of the class, or NULL where the node is exhausted (errno and record set). */
void *quarantine_get(struct thread *thread, unsigned cls);
/* Takes an object that was freed and filled. */
void quarantine_put(struct thread *thread, unsigned cls, void *object);
/* Gives a class's back to the slabs; true where there were any. */
bool quarantine_shed(struct thread *thread, unsigned cls);
bool quarantine_check(const struct thread *thread);

/* A congruential generator (Knuth's MMIX) whose start and step are secret; its upper bits are the
 * good ones. Enough against guessing; who sees many choices could compute the next ones. */
HAK_INLINE uint64_t quarantine_random(struct quarantine *quarantine)
{
    quarantine->random = quarantine->random * 6364136223846793005U + quarantine->step;
    return quarantine->random;
}

/* A number below bound: the upper half of a product (after Lemire). */
HAK_INLINE size_t quarantine_below(uint64_t random, size_t bound)
{
    return ((random >> 32) * bound) >> 32;
}

/* Anywhere in the stock, which has room. */
HAK_INLINE void quarantine_stock(struct quarantine_counts *counts, void **stock, uint64_t random,
                                 void *object)
{
    size_t last = counts->stock++;
    size_t at = quarantine_below(random, last + 1);

    stock[last] = stock[at];
    stock[at] = object;
}

/* The common case of quarantine_put: true where the place of another one was free, by its leaving
 * for the stock. Of a region with one node. */
HAK_INLINE bool quarantine_swap(struct quarantine *quarantine, unsigned cls, void *object)
{
    struct quarantine_counts *counts = &quarantine->counts[cls];
    struct quarantine_arrays *arrays = &quarantine->arrays[cls];

    if (unlikely(counts->held != counts->capacity || counts->stock == counts->capacity)) {
        return false; /* not full yet, or none at all; or more than the stock can take */
    }
    uint64_t random = quarantine_random(quarantine);
    void **place = &arrays->held[quarantine_below(random << 16, counts->capacity)];
    quarantine_stock(counts, arrays->stock, random, *place);
    *place = object;
    return true;
}

#endif
