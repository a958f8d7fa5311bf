/* SPDX-License-Identifier: MIT */
/*
 * A bounded ring of pointers between one producer and one consumer, in blocks.
 *
 * Both sides work in place on a block of RING_BLOCK slots and then publish it by one store, and
 * each keeps the other's last known index in its own cache line: the ring costs a fraction of a
 * nanosecond an object, so that what a benchmark sees is the allocator.
 *
 * ring_space and ring_publish belong to the producer, ring_block and ring_retire to the consumer.
 */
#ifndef HAK_BENCH_RING_H
#define HAK_BENCH_RING_H

#include "bench/support.h"

#define RING_BLOCK 32u
#define RING_BLOCKS 128u

struct ring {
    _Atomic uint64_t written CACHE_ALIGNED; /* blocks, by the producer */
    uint64_t taken_seen;                    /* the producer's: taken is at least this */
    _Atomic uint64_t taken CACHE_ALIGNED;   /* blocks, by the consumer */
    uint64_t written_seen;                  /* the consumer's: written is at least this */
    void *slots[RING_BLOCKS][RING_BLOCK] CACHE_ALIGNED;
};

/* RING_BLOCK slots to fill, or NULL when the ring is full. */
HAK_INLINE void **ring_space(struct ring *ring)
{
    /* relaxed: the producer reads what it wrote itself. */
    uint64_t written = atomic_load_explicit(&ring->written, memory_order_relaxed);
    if (unlikely(written - ring->taken_seen == RING_BLOCKS)) {
        /* acquire: the consumer has read every slot up to here [taken]. */
        ring->taken_seen = atomic_load_explicit(&ring->taken, memory_order_acquire);
        if (written - ring->taken_seen == RING_BLOCKS)
            return NULL;
    }
    return ring->slots[written % RING_BLOCKS];
}

HAK_INLINE void ring_publish(struct ring *ring)
{
    uint64_t written = atomic_load_explicit(&ring->written, memory_order_relaxed);
    /* release: pointers, and what they point to, are there before the count says so [written]. */
    atomic_store_explicit(&ring->written, written + 1, memory_order_release);
}

/* RING_BLOCK pointers to take, or NULL when the ring is empty. */
HAK_INLINE void **ring_block(struct ring *ring)
{
    /* relaxed: the consumer reads what it wrote itself. */
    uint64_t taken = atomic_load_explicit(&ring->taken, memory_order_relaxed);
    if (unlikely(ring->written_seen == taken)) {
        ring->written_seen = atomic_load_explicit(&ring->written,
                                                  memory_order_acquire); /*[written]*/
        if (ring->written_seen == taken)
            return NULL;
    }
    return ring->slots[taken % RING_BLOCKS];
}

HAK_INLINE void ring_retire(struct ring *ring)
{
    uint64_t taken = atomic_load_explicit(&ring->taken, memory_order_relaxed);
    atomic_store_explicit(&ring->taken, taken + 1, memory_order_release); /* [taken] */
}

#endif
