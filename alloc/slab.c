/* SPDX-License-Identifier: MIT */
/* Opening a slab and taking objects out of it; what only its owner does.
 * Model: tests/model/slab.pml. */
#include "alloc/slab.h"

void slab_open(struct slab *slab, unsigned cls, unsigned units)
{
    unsigned capacity = sizeclass_capacity(cls, units);

    /* Relaxed: the slab is ours alone. The generation goes on, so that whoever looked at the
     * entry's last slab cannot take this one for it. */
    uint64_t last = atomic_load_explicit(&slab->head, memory_order_relaxed);

    for (unsigned w = 0; w * 64 < capacity; w++) {
        /* Relaxed: handing the first object out orders it. */
        atomic_store_explicit(&slab->bits[w], slab_word_full(capacity, w), memory_order_relaxed);
    }
    atomic_store_explicit(&slab->head,
                          head_freed(last) + HEAD_GENERATION + head_make(cls, units, SLAB_OWNED),
                          memory_order_release);
}

/* The lowest want bits of word. */
static uint64_t lowest_bits(uint64_t word, unsigned want)
{
    uint64_t rest = word;

    if (popcount64(word) <= want) {
        return word;
    }
    while (want-- > 0) {
        rest &= rest - 1;
    }
    return word & ~rest;
}

/* The addresses of a word's objects, highest first; how many. */
static unsigned emit(uint64_t word, char *base, size_t bytes, void **out)
{
    unsigned count = 0;

    if (word == UINT64_MAX) {
        for (char *at = base + 63 * bytes; count < 64; at -= bytes) {
            out[count++] = at;
        }
        return count;
    }
    while (word != 0) {
        unsigned highest = (unsigned)__builtin_clzll(word) ^ 63;
        out[count++] = base + highest * bytes;
        word ^= (uint64_t)1 << highest;
    }
    return count;
}

unsigned slab_take_owner(struct slab *slab, unsigned *cursor, char *start, unsigned want,
                         void **out)
{
    /* Relaxed: class and length do not change while we own the slab. */
    uint64_t head = atomic_load_explicit(&slab->head, memory_order_relaxed);
    size_t bytes = sizeclass_bytes(head_class(head));
    unsigned capacity = head_capacity(head);
    unsigned words = (capacity + 63) / 64;
    unsigned got = 0;
    unsigned w = *cursor < words ? *cursor : 0;

    for (unsigned looked = 0; looked < words && got < want; looked++) {
        /* Relaxed: nobody but us clears bits, so those seen stay until we take them. */
        uint64_t word = atomic_load_explicit(&slab->bits[w], memory_order_relaxed);
        /* A second free of an object whose slab is gone can leave bits that no object has. */
        word &= slab_word_full(capacity, w);
        if (word != 0) {
            uint64_t take = lowest_bits(word, want - got);
            /* Acquire: SLAB-BITS, the other side of slab_put_any. */
            atomic_fetch_and_explicit(&slab->bits[w], ~take, memory_order_acquire);
            got += emit(take, start + (size_t)w * 64 * bytes, bytes, out + got);
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
    unsigned capacity = head_capacity(head);
    unsigned count = 0;

    for (unsigned w = 0; w * 64 < capacity; w++) {
        /* Relaxed: a figure. */
        count += popcount64(atomic_load_explicit(&slab->bits[w], memory_order_relaxed) &
                            slab_word_full(capacity, w));
    }
    return count;
}

enum slab_fill slab_look(const struct slab *slab, uint64_t head, unsigned from)
{
    unsigned capacity = head_capacity(head);
    unsigned words = (capacity + 63) / 64;
    bool some = false;
    bool all = true;

    /* Nearest words first, in both directions: objects are mostly freed in an order, and then the
     * answer is next door. */
    for (unsigned step = 0; step < words; step++) {
        unsigned w = (from + ((step & 1) ? (step + 1) / 2 : words - step / 2)) % words;
        uint64_t bits = atomic_load_explicit(&slab->bits[w], memory_order_seq_cst);
        uint64_t full = slab_word_full(capacity, w);
        some |= (bits & full) != 0;
        all &= (bits & full) == full;
        if (some && !all) {
            return SLAB_SOME_ROOM;
        }
    }
    return all ? SLAB_ALL_FREE : SLAB_NO_ROOM;
}

bool slab_check(const struct slab *slab)
{
    uint64_t head = atomic_load_explicit(&slab->head, memory_order_acquire);
    unsigned cls = head_class(head);
    unsigned capacity;
    unsigned room;

    if (cls == CLASS_NONE || cls > CLASS_COUNT || head_units(head) == 0 ||
        head_units(head) > SUPERSLAB_UNITS) {
        return false;
    }
    capacity = head_capacity(head);
    room = slab_free_bits(slab);
    for (unsigned w = 0; w * 64 < capacity; w++) {
        uint64_t bits = atomic_load_explicit(&slab->bits[w], memory_order_relaxed);
        if (bits & ~slab_word_full(capacity, w)) {
            return false; /* an object beyond the last */
        }
    }
    switch (head_state(head)) {
    case SLAB_OWNED:
        return true;
    case SLAB_FULL:
        return room == 0;
    case SLAB_PARTIAL:
        return room > 0 && room < capacity;
    case SLAB_FREE:
    case SLAB_LARGE:
    case SLAB_HELD:
        break;
    }
    return false;
}
