/* SPDX-License-Identifier: MIT */
/*
 * A slab's books, kept apart from its objects: one entry per unit of the region; the entry of a
 * slab's first unit is in use.
 *
 *   bits   one bit per object; 1 = free (in the slab, not in a thread's cache)
 *   head   one word that says everything a decision needs, so that a single compare-and-swap
 *          decides:  count (32, signed) | 0 (8) | units (8) | class (8) | state (8)
 *
 *   FREE -> OWNED      made out of free units by the thread that owns it next
 *   OWNED -> FULL      given up with nothing free in it
 *   OWNED -> PARTIAL   given up with free objects; published in the shared pool's bitset
 *   OWNED -> FREE      given up empty
 *   FULL -> PARTIAL    by whose batch first brings the count above 0; publishes it
 *   FULL -> FREE       by whose batch brings the count to the capacity at one go
 *   PARTIAL -> OWNED   by who clears the published bit and wins the compare-and-swap
 *   PARTIAL -> FREE    by whose batch brings the count to the capacity
 *   FREE <-> LARGE     a large object; its length is in large_units
 *
 * Who may do what. Only the owner clears bits. Anyone sets them (release), then adds their number
 * to the count, once per slab and batch. The owner keeps what it took in its page box and
 * subtracts it when it gives the slab up. So outside OWNED: count <= bits set, and count equals
 * the capacity only when all bits are set and nobody is between setting and adding: the slab is
 * empty and whoever wins it has it alone. While OWNED the count means nothing to others.
 *
 * A thread stopped between setting and adding keeps its slab from being recycled, nothing
 * else; stopped after FULL -> PARTIAL and before publishing, it hides that one slab's room.
 */
#ifndef HAK_ALLOC_SLAB_H
#define HAK_ALLOC_SLAB_H

#include "alloc/sizeclass.h"

enum slab_state {
    SLAB_FREE = 0,
    SLAB_OWNED,
    SLAB_FULL,
    SLAB_PARTIAL,
    SLAB_LARGE,
};

#define SLAB_WORDS 64 /* 4,096 objects of 16 bytes */

struct slab {
    _Atomic uint64_t head;
    uint32_t large_units;
    uint32_t spare;
    uint64_t spares[2];
    _Atomic uint64_t bits[SLAB_WORDS]; /* the first four share the head's cache line */
    uint64_t odd[4];
};

/* An odd number of cache lines: with a power of two every slab's head would fall into the same few
 * cache sets. */
_Static_assert(sizeof(struct slab) == 9 * CACHE_LINE, "odd stride");
_Static_assert(offsetof(struct slab, bits) == 32, "small slabs are one line");
_Static_assert(UNIT_BYTES / 16 == SLAB_WORDS * 64, "the smallest class fits");

HAK_INLINE uint64_t head_make(unsigned class, unsigned units, enum slab_state state, int32_t count)
{
    return (uint64_t)(uint32_t)count << 32 | (uint64_t)units << 16 | (uint64_t)class << 8 |
           (uint64_t)state;
}

HAK_INLINE enum slab_state head_state(uint64_t head)
{
    return (enum slab_state)(head & 0xff);
}

HAK_INLINE unsigned head_class(uint64_t head)
{
    return (unsigned)(head >> 8) & 0xff;
}

HAK_INLINE unsigned head_units(uint64_t head)
{
    return (unsigned)(head >> 16) & 0xff;
}

HAK_INLINE int32_t head_count(uint64_t head)
{
    return (int32_t)(uint32_t)(head >> 32);
}

HAK_INLINE unsigned head_capacity(uint64_t head)
{
    return sizeclass_capacity(head_class(head), head_units(head));
}

HAK_INLINE uint64_t head_with(uint64_t head, enum slab_state state, int32_t count)
{
    return head_make(head_class(head), head_units(head), state, count);
}

/* All objects free, nobody else knows the slab yet: becomes OWNED. */
void slab_open(struct slab *slab, unsigned class, unsigned units);
/* Up to want objects of a slab at address start, lowest first from word *cursor on; how many. */
unsigned slab_take_owner(struct slab *slab, unsigned *cursor, char *start, unsigned want,
                         void **out);
/* Puts objects of one word back; returns those bits that were free already (freed twice). */
HAK_INLINE uint64_t slab_put_any(struct slab *slab, unsigned word, uint64_t mask)
{
    /* Release: who takes the object next (slab_take_owner, acquire) sees our last use of it done;
     * label SLAB-BITS. */
    return atomic_fetch_or_explicit(&slab->bits[word], mask, memory_order_release) & mask;
}

unsigned slab_free_bits(const struct slab *slab);
/* Books of one slab against each other; while nobody is at work on it. */
bool slab_check(const struct slab *slab);

#endif
