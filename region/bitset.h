/* SPDX-License-Identifier: MIT */
/*
 * The one structure: an atomic bitset with summary words above it.
 *
 * Level 0 holds the bits. Bit w of level n + 1 says that word w of level n may have a bit set.
 * Levels go on until one word is left, so that the first set bit of 2^30 is five words away.
 *
 * Invariant: a summary may say yes too often, never no for good.
 *
 *   set      bit, then every summary bit above that is not there yet
 *   clear    bit; where the word became 0: the summary bit, then the word is looked at again and
 *            the summary set back if somebody came in between
 *
 * Why the second look suffices: setting is "write word, read summary", clearing is "write summary,
 * read word". All four are sequentially consistent, so at least one side sees the other (label
 * BITSET-SUMMARY). A setter that is stopped between word and summary, or a clearer between summary
 * and second look, hides the bits of that word until it goes on or until anybody sets another one
 * there; bitset_mend finds them, for who would otherwise have to give up.
 * Model: tests/model/bitset.pml.
 *
 * Clearing tells whether the bit was there: of several threads that clear the same bit one hears
 * yes. That is how things are claimed.
 */
#ifndef HAK_REGION_BITSET_H
#define HAK_REGION_BITSET_H

#include "region/base.h"

#define BITSET_LEVELS_MAX 5
#define BITSET_NONE SIZE_MAX

struct bitset {
    unsigned level_count;
    size_t bit_count[BITSET_LEVELS_MAX]; /* [0] is the caller's, [n + 1] the words of level n */
    _Atomic uint64_t *level[BITSET_LEVELS_MAX];
};

/* Bytes of zeroed memory that bitset_place needs for so many bits; a multiple of a cache line. */
size_t bitset_bytes(size_t bit_count);
/* Lays an empty bitset into zeroed memory. */
void bitset_place(struct bitset *set, void *memory, size_t bit_count);
/* Sets every bit; while nobody else looks. */
void bitset_fill(struct bitset *set);

/* Makes sure the bit is set; true where it was not. Any thread. */
bool bitset_set(struct bitset *set, size_t bit);
/* Clears the bit; true where it was set: the caller has claimed it. Any thread. */
bool bitset_clear(struct bitset *set, size_t bit);
/* Lowest set bit at or above from, by the summaries; BITSET_NONE where there is none. */
size_t bitset_find(struct bitset *set, size_t from);
/* Highest set bit below a bound, by the summaries; BITSET_NONE where there is none. */
size_t bitset_find_last(struct bitset *set, size_t below);
/* Finds and clears: the lowest bit at or above from that the caller won, or BITSET_NONE. */
size_t bitset_claim(struct bitset *set, size_t from);
/* Announces every word anew: what a stopped thread hides is found again. A walk over all words. */
void bitset_mend(struct bitset *set);
/* First clear bit at or above from and below end; end where all are set. No summaries. */
size_t bitset_first_clear(const struct bitset *set, size_t from, size_t end);
size_t bitset_count(const struct bitset *set);
/* Walks all: every word with bits is announced above. While nobody else sets. */
bool bitset_check(const struct bitset *set);

HAK_INLINE bool bitset_test(const struct bitset *set, size_t bit)
{
    /* Relaxed: a hint; whoever acts on it claims by bitset_clear. */
    return (atomic_load_explicit(&set->level[0][bit / 64], memory_order_relaxed) >> (bit % 64)) & 1;
}

/* The 32 bits from bit on, bit a multiple of 32: a SuperSlab's units in one load. */
HAK_INLINE uint32_t bitset_load32(const struct bitset *set, size_t bit)
{
    uint64_t word = atomic_load_explicit(&set->level[0][bit / 64], memory_order_relaxed);
    return (uint32_t)(word >> (bit % 64));
}

#endif
