/* SPDX-License-Identifier: MIT */
/* The bitset's set, clear and search; region/bitset.h says why they are right.
 * Model: tests/model/bitset.pml. */
#include "region/bitset.h"

static size_t words_of(size_t bit_count)
{
    return (bit_count + 63) / 64;
}

size_t bitset_bytes(size_t bit_count)
{
    size_t words = words_of(bit_count);
    size_t total = round_up(words, CACHE_LINE / 8);

    while (words > 1) {
        words = words_of(words);
        total += round_up(words, CACHE_LINE / 8);
    }
    return total * 8;
}

void bitset_place(struct bitset *set, void *memory, size_t bit_count)
{
    _Atomic uint64_t *at = memory;
    size_t bits = bit_count;

    set->level_count = 0;
    for (;;) {
        set->bit_count[set->level_count] = bits;
        set->level[set->level_count++] = at;
        bits = words_of(bits);
        at += round_up(bits, CACHE_LINE / 8);
        if (bits <= 1) {
            break;
        }
    }
}

void bitset_fill(struct bitset *set)
{
    for (unsigned n = 0; n < set->level_count; n++) {
        size_t bits = set->bit_count[n];
        for (size_t w = 0; w < words_of(bits); w++) {
            size_t here = min_size(64, bits - w * 64);
            uint64_t word = here == 64 ? UINT64_MAX : ((uint64_t)1 << here) - 1;
            /* Relaxed: nobody looks yet. */
            atomic_store_explicit(&set->level[n][w], word, memory_order_relaxed);
        }
    }
}

/* Sees to it that the bit's word is announced on every level. */
static void announce(struct bitset *set, size_t bit)
{
    for (unsigned n = 1; n < set->level_count; n++) {
        bit /= 64;
        uint64_t above = (uint64_t)1 << (bit % 64);
        _Atomic uint64_t *word = &set->level[n][bit / 64];
        /* A load first: the summary is nearly always there, and then its line stays shared. The
         * whole way up is looked at, so that a setter stopped half-way hides nothing for long. */
        if (!(atomic_load_explicit(word, memory_order_seq_cst) & above)) {
            atomic_fetch_or_explicit(word, above, memory_order_seq_cst);
        }
    }
}

bool bitset_set(struct bitset *set, size_t bit)
{
    uint64_t mask = (uint64_t)1 << (bit % 64);
    /* BITSET-SUMMARY: the word first, then a look at the summary. */
    uint64_t old = atomic_fetch_or_explicit(&set->level[0][bit / 64], mask, memory_order_seq_cst);

    announce(set, bit);
    return !(old & mask);
}

/* Word w of level n was seen 0: takes its announcement back, level by level. */
static void withdraw(struct bitset *set, unsigned n, size_t w)
{
    while (n + 1 < set->level_count) {
        uint64_t mask = (uint64_t)1 << (w % 64);
        _Atomic uint64_t *above = &set->level[n + 1][w / 64];
        uint64_t old = atomic_fetch_and_explicit(above, ~mask, memory_order_seq_cst);
        /* BITSET-SUMMARY: the summary first, then a second look at the word. */
        if (atomic_load_explicit(&set->level[n][w], memory_order_seq_cst) != 0) {
            for (unsigned up = n + 1; up < set->level_count; up++) {
                atomic_fetch_or_explicit(&set->level[up][w / 64], (uint64_t)1 << (w % 64),
                                         memory_order_seq_cst);
                w /= 64;
            }
            return;
        }
        if (old & ~mask) {
            return;
        }
        w /= 64;
        n++;
    }
}

bool bitset_clear(struct bitset *set, size_t bit)
{
    uint64_t mask = (uint64_t)1 << (bit % 64);
    uint64_t old = atomic_fetch_and_explicit(&set->level[0][bit / 64], ~mask, memory_order_seq_cst);

    if (!(old & mask)) {
        return false;
    }
    if (!(old & ~mask)) {
        withdraw(set, 0, bit / 64);
    }
    return true;
}

/* Lowest bit at or above *at in the one word of level n that *at lies in. */
static bool find_in_word(const struct bitset *set, unsigned n, size_t *at)
{
    /* Acquire: what was written before the bit was set is seen by who finds it. */
    uint64_t word = atomic_load_explicit(&set->level[n][*at / 64], memory_order_acquire);

    word &= UINT64_MAX << (*at % 64);
    if (word == 0) {
        return false;
    }
    *at = (*at & ~(size_t)63) + (size_t)__builtin_ctzll(word);
    return true;
}

size_t bitset_find(struct bitset *set, size_t from)
{
    unsigned n = 0;
    size_t at = from;

    for (;;) {
        if (at < set->bit_count[n] && find_in_word(set, n, &at)) {
            if (n == 0) {
                return at;
            }
            size_t word = at;
            n--;
            at = word * 64;
            if (atomic_load_explicit(&set->level[n][word], memory_order_relaxed) == 0) {
                withdraw(set, n, word); /* it said yes too often */
            }
            continue;
        }
        /* Nothing in this word: on to the next one, as the level above knows it. */
        if (n + 1 >= set->level_count) {
            return BITSET_NONE;
        }
        n++;
        at = at / 64 + 1;
    }
}

/* Highest bit below *below in the one word of level n that bit *below - 1 lies in. */
static bool find_last_in_word(const struct bitset *set, unsigned n, size_t *below)
{
    size_t last = *below - 1;
    /* Acquire: as in find_in_word. */
    uint64_t word = atomic_load_explicit(&set->level[n][last / 64], memory_order_acquire);

    word &= UINT64_MAX >> (63 - last % 64);
    if (word == 0) {
        return false;
    }
    *below = (last & ~(size_t)63) + 63 - (size_t)__builtin_clzll(word);
    return true;
}

size_t bitset_find_last(struct bitset *set, size_t below)
{
    unsigned n = 0;
    size_t at = min_size(below, set->bit_count[0]);

    while (at > 0) {
        if (find_last_in_word(set, n, &at)) {
            if (n == 0) {
                return at;
            }
            size_t word = at;
            n--;
            /* The word may be shorter than that; no bit is set beyond a set's end. */
            at = (word + 1) * 64;
            if (atomic_load_explicit(&set->level[n][word], memory_order_relaxed) == 0) {
                withdraw(set, n, word); /* it said yes too often */
            }
            continue;
        }
        /* Nothing in this word: on to those before it, as the level above knows them. */
        if (n + 1 >= set->level_count) {
            break;
        }
        n++;
        at = (at - 1) / 64;
    }
    return BITSET_NONE;
}

size_t bitset_claim(struct bitset *set, size_t from)
{
    size_t bit = bitset_find(set, from);

    while (bit != BITSET_NONE && !bitset_clear(set, bit)) {
        bit = bitset_find(set, bit);
    }
    return bit;
}

void bitset_mend(struct bitset *set)
{
    for (size_t w = 0; w < words_of(set->bit_count[0]); w++) {
        uint64_t word = atomic_load_explicit(&set->level[0][w], memory_order_seq_cst);
        if (word != 0) {
            announce(set, w * 64);
        }
    }
}

size_t bitset_first_clear(const struct bitset *set, size_t from, size_t end)
{
    for (size_t at = from; at < end; at = (at & ~(size_t)63) + 64) {
        /* Relaxed: a hint, see bitset_test. */
        uint64_t word = ~atomic_load_explicit(&set->level[0][at / 64], memory_order_relaxed);

        word &= UINT64_MAX << (at % 64);
        if (word != 0) {
            size_t found = (at & ~(size_t)63) + (size_t)__builtin_ctzll(word);
            return min_size(found, end);
        }
    }
    return end;
}

size_t bitset_count(const struct bitset *set)
{
    size_t count = 0;

    for (size_t w = 0; w < words_of(set->bit_count[0]); w++) {
        /* Relaxed: a figure, not a decision. */
        count += popcount64(atomic_load_explicit(&set->level[0][w], memory_order_relaxed));
    }
    return count;
}

bool bitset_check(const struct bitset *set)
{
    for (unsigned n = 0; n + 1 < set->level_count; n++) {
        for (size_t w = 0; w < set->bit_count[n + 1]; w++) {
            bool any = atomic_load_explicit(&set->level[n][w], memory_order_acquire) != 0;
            uint64_t above = atomic_load_explicit(&set->level[n + 1][w / 64], memory_order_acquire);
            if (any && !((above >> (w % 64)) & 1)) {
                return false;
            }
        }
    }
    return true;
}
