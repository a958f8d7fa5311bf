/* SPDX-License-Identifier: MIT */
/*
 * A slab's books, kept apart from its objects: one entry per unit of the region; the entry of a
 * slab's first unit is in use.
 *
 *   bits   one bit per object; 1 = free (in the slab, not in a thread's cache)
 *   head   one word for all decisions:  generation (40) | units (8) | class (8) | state (8)
 *
 *   FREE -> OWNED      made out of free units by the thread that owns it next
 *   OWNED -> FULL      given up with nothing free in it
 *   OWNED -> PARTIAL   given up with free objects; published in the shared pool's bitset
 *   FULL -> PARTIAL    by whose free finds it so; publishes it
 *   PARTIAL -> OWNED   by who clears the published bit and wins the exchange; a new generation
 *   FULL, PARTIAL -> FREE   by whose free finds every object free; its units go to everybody
 *   FREE <-> LARGE     a large object; its length is in large_units
 *   LARGE -> HELD -> FREE   one of a hardened region (guarded.h)
 *
 * There is no count of free objects. A free is one or on a bitmap word, and what the word was and
 * became tells whether there can be anything to decide: a word that was 0 may end a slab's being
 * FULL, a word that has all its bits may be the last of an empty slab. Only then the head is looked
 * at (settle, in sharedpool_release.c). So a free in the middle of a word touches one cache line,
 * once. That is half the atomic operations of keeping a count; docs/measurements.md has the
 * figures.
 *
 * Who may do what. Only the owner clears bits; anyone sets them. Nobody decides anything about an
 * OWNED slab but its owner. Label SLAB-STATE:
 *
 *   freeing      sets the bits,             then reads the head
 *   giving up    writes the head,           then reads the bits, as a free would
 *   last words   of two that fill the last two words each reads the other's after writing its own
 *
 * all sequentially consistent, so of any two at least one sees what is to be done. What is done is
 * done by a compare-and-swap on the head as it was *before* the bits were read. Outside OWNED bits
 * are only set, and becoming OWNED changes the generation: so if the exchange succeeds, "all free"
 * still holds, and the winner has the slab alone.
 *
 * A thread stopped between setting bits and looking at the head, or between FULL -> PARTIAL and
 * publishing, hides that one slab's room until it goes on or until another free of that slab fills
 * a word. It delays nobody.
 * Model: tests/model/slab.pml; a change here is one there too.
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
    SLAB_HELD, /* a large object of a hardened region, freed and held back */
};

#define SLAB_WORDS 64 /* 4,096 objects of 16 bytes */

struct slab {
    _Atomic uint64_t head;
    _Atomic uint32_t large_units;
    _Atomic uint32_t guards;      /* of a large object of a hardened region: alloc/guarded.c */
    _Atomic uint64_t asked_bytes; /* likewise */
    uint64_t spare;
    _Atomic uint64_t bits[SLAB_WORDS]; /* the first four share the head's cache line */
    uint64_t odd[4];
};

/* An odd number of cache lines: with a power of two every slab's head would fall into the same few
 * cache sets. */
_Static_assert(sizeof(struct slab) == 9 * CACHE_LINE, "odd stride");
_Static_assert(offsetof(struct slab, bits) == 32, "small slabs are one line");
_Static_assert(UNIT_BYTES / 16 == SLAB_WORDS * 64, "the smallest class fits");

/* Relaxed, both: changed by the object's holder alone; others may look, for whatever it is
 * worth. */
HAK_INLINE size_t asked_bytes(const struct slab *slab)
{
    return (size_t)atomic_load_explicit(&slab->asked_bytes, memory_order_relaxed);
}

HAK_INLINE void set_asked_bytes(struct slab *slab, size_t bytes)
{
    atomic_store_explicit(&slab->asked_bytes, bytes, memory_order_relaxed);
}

#define HEAD_GENERATION ((uint64_t)1 << 24)

HAK_INLINE uint64_t head_make(unsigned cls, unsigned units, enum slab_state state)
{
    return (uint64_t)units << 16 | (uint64_t)cls << 8 | (uint64_t)state;
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

HAK_INLINE unsigned head_capacity(uint64_t head)
{
    return sizeclass_capacity(head_class(head), head_units(head));
}

HAK_INLINE uint64_t head_with(uint64_t head, enum slab_state state)
{
    return (head & ~(uint64_t)0xff) | (uint64_t)state;
}

/* FREE, in the same generation: units and class mean nothing. */
HAK_INLINE uint64_t head_freed(uint64_t head)
{
    return head & ~(HEAD_GENERATION - 1);
}

/* All objects free, nobody else knows the slab yet: becomes OWNED. */
void slab_open(struct slab *slab, unsigned cls, unsigned units);
/* Up to want objects of a slab at address start, from word *cursor on the lowest of each word, its
 * highest first; how many. */
unsigned slab_take_owner(struct slab *slab, unsigned *cursor, char *start, unsigned want,
                         void **out);
/* Puts objects of one word back; the word as it was. Bits of mask that were set: freed twice. */
HAK_INLINE uint64_t slab_put_any(struct slab *slab, unsigned word, uint64_t mask)
{
    /* Release: who takes the object next (slab_take_owner, acquire) sees our last use of it done;
     * label SLAB-BITS. Sequentially consistent: SLAB-STATE. */
    return atomic_fetch_or_explicit(&slab->bits[word], mask, memory_order_seq_cst);
}

/* All bits that a word of a slab of the class can have. */
HAK_INLINE uint64_t slab_word_full(unsigned capacity, unsigned word)
{
    unsigned here = capacity - word * 64;
    return here >= 64 ? UINT64_MAX : ((uint64_t)1 << here) - 1;
}

enum slab_fill { SLAB_NO_ROOM, SLAB_SOME_ROOM, SLAB_ALL_FREE };

/* How much of the slab is free, looking outward from a word. Exact outside OWNED up to frees that
 * come in meanwhile, which look for themselves. */
enum slab_fill slab_look(const struct slab *slab, uint64_t head, unsigned from);
unsigned slab_free_bits(const struct slab *slab);
/* Books of one slab against each other; while nobody is at work on it. */
bool slab_check(const struct slab *slab);

#endif
