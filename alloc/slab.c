/* SPDX-License-Identifier: MIT */
/* Opening a slab and taking objects out of it; what only its owner does. */
#include "alloc/slab.h"

void slab_open(struct slab *slab, unsigned class, unsigned units)
{
    unsigned capacity = sizeclass_capacity(class, units);

    for (unsigned w = 0; w < SLAB_WORDS && w * 64 < capacity; w++) {
        unsigned here = capacity - w * 64;
        uint64_t word = here >= 64 ? UINT64_MAX : ((uint64_t)1 << here) - 1;
        /* Relaxed: published by the class map's release, or by handing an object out. */
        atomic_store_explicit(&slab->bits[w], word, memory_order_relaxed);
    }
    atomic_store_explicit(&slab->head, head_make(class, units, SLAB_OWNED, (int32_t)capacity),
                          memory_order_release);
}

/* The lowest want bits of word. */
static uint64_t lowest_bits(uint64_t word, unsigned want)
{
    uint64_t rest = word;

    if ((unsigned)__builtin_popcountll(word) <= want) {
        return word;
    }
    while (want-- > 0) {
        rest &= rest - 1;
    }
    return word & ~rest;
}

unsigned slab_take_owner(struct slab *slab, unsigned *cursor, char *start, unsigned want,
                         void **out)
{
    /* Relaxed: class and length do not change while we own the slab. */
    uint64_t head = atomic_load_explicit(&slab->head, memory_order_relaxed);
    size_t bytes = sizeclass_bytes(head_class(head));
    unsigned words = (head_capacity(head) + 63) / 64;
    unsigned got = 0;
    unsigned w = *cursor < words ? *cursor : 0;

    for (unsigned looked = 0; looked < words && got < want; looked++) {
        /* Relaxed: nobody but us clears bits, so those seen stay until we take them. */
        uint64_t word = atomic_load_explicit(&slab->bits[w], memory_order_relaxed);
        if (word != 0) {
            uint64_t take = lowest_bits(word, want - got);
            /* Acquire: SLAB-BITS, the other side of slab_put_any. */
            atomic_fetch_and_explicit(&slab->bits[w], ~take, memory_order_acquire);
            char *base = start + (size_t)w * 64 * bytes;
            for (uint64_t rest = take; rest != 0; rest &= rest - 1) {
                out[got++] = base + (size_t)__builtin_ctzll(rest) * bytes;
            }
            if (got == want) {
                break;
            }
        }
        w = w + 1 < words ? w + 1 : 0;
    }
    *cursor = w;
    return got;
}

unsigned slab_free_bits(const struct slab *slab)
{
    uint64_t head = atomic_load_explicit(&slab->head, memory_order_relaxed);
    unsigned words = (head_capacity(head) + 63) / 64;
    unsigned count = 0;

    for (unsigned w = 0; w < words; w++) {
        /* Relaxed: a figure. */
        count += (unsigned)__builtin_popcountll(
            atomic_load_explicit(&slab->bits[w], memory_order_relaxed));
    }
    return count;
}

bool slab_check(const struct slab *slab)
{
    uint64_t head = atomic_load_explicit(&slab->head, memory_order_acquire);
    unsigned class = head_class(head);
    int32_t count = head_count(head);

    switch (head_state(head)) {
    case SLAB_OWNED:
    case SLAB_FULL:
    case SLAB_PARTIAL:
        break;
    default:
        return false;
    }
    if (class == CLASS_NONE || class > CLASS_COUNT || head_units(head) == 0 ||
        head_units(head) > SUPERSLAB_UNITS) {
        return false;
    }
    unsigned capacity = head_capacity(head);
    for (unsigned bit = capacity; bit < SLAB_WORDS * 64 && bit % 64 != 0; bit++) {
        if ((atomic_load_explicit(&slab->bits[bit / 64], memory_order_relaxed) >> (bit % 64)) & 1) {
            return false; /* an object beyond the last */
        }
    }
    if (head_state(head) == SLAB_OWNED) {
        return true; /* its owner's box holds the other half of the count */
    }
    return count == (int32_t)slab_free_bits(slab) && (count > 0) == (head_state(head) == SLAB_PARTIAL) &&
           count < (int32_t)capacity;
}
