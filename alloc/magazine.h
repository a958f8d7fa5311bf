/* SPDX-License-Identifier: MIT */
/*
 * Magazines (Bonwick's word): arrays of 64 object pointers that thread caches are made of. A node
 * has a fixed number of them in its metadata; which are free is a bitset. When there are none,
 * caches stay as small as they are. Owners: a magazine belongs to the thread that claimed it, until
 * it gives it back; links are its owner's too.
 */
#ifndef HAK_ALLOC_MAGAZINE_H
#define HAK_ALLOC_MAGAZINE_H

#include "alloc/heap.h"

HAK_INLINE void **magazine_slots(const struct pool *pool, uint32_t magazine)
{
    return pool->magazines.memory + (size_t)magazine * MAGAZINE_OBJECTS;
}

HAK_INLINE struct magazine_link *magazine_link(const struct pool *pool, uint32_t magazine)
{
    return &pool->magazines.links[magazine];
}

/* MAGAZINE_NONE where all are in use. from: any number, spreads threads over the set. */
HAK_INLINE uint32_t magazine_claim(struct pool *pool, uint32_t from)
{
    struct magazines *magazines = &pool->magazines;
    size_t found = bitset_claim(&magazines->free, from % magazines->count);

    if (found == BITSET_NONE) {
        found = bitset_claim(&magazines->free, 0);
    }
    return found == BITSET_NONE ? MAGAZINE_NONE : (uint32_t)found;
}

HAK_INLINE void magazine_give_back(struct pool *pool, uint32_t magazine)
{
    bitset_set(&pool->magazines.free, magazine);
}

#endif
