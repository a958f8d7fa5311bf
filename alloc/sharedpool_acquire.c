/* SPDX-License-Identifier: MIT */
/*
 * Taking slabs out of the shared pool.
 *
 * A published bit is a hint with a claim: clearing it decides who may try, the compare-and-swap on
 * the slab's head decides whether there is something to have. A bit can outlive its slab (the
 * publisher was stopped between the two); then the head is not PARTIAL or of another class and the
 * bit is simply gone. If that slab is published later, its publisher sets the bit again.
 *
 * Model: tests/model/slab.pml.
 */
#include <stdlib.h>

#include "alloc/hardened.h"
#include "alloc/sharedpool.h"
#include "region/units.h"

bool sharedpool_claim(struct pool *pool, unsigned cls, unit_t unit)
{
    struct slab *slab = &pool->heap->slabs[unit];

    if (!bitset_clear(&pool->partial[cls], unit - pool->first_unit)) {
        return false;
    }
    uint64_t head = atomic_load_explicit(&slab->head, memory_order_relaxed);
    while (head_state(head) == SLAB_PARTIAL && head_class(head) == cls) {
        /* Acquire: with the release of whoever made it PARTIAL. The next generation: SLAB-STATE, a
         * free that saw the slab before we had it cannot act on it any more. */
        if (atomic_compare_exchange_weak_explicit(&slab->head, &head,
                                                  head_with(head, SLAB_OWNED) + HEAD_GENERATION,
                                                  memory_order_seq_cst, memory_order_relaxed)) {
            return true;
        }
    }
    return false;
}

unit_t sharedpool_acquire_partial(struct pool *pool, unsigned cls)
{
    size_t at = bitset_find(&pool->partial[cls], 0);

    while (at != BITSET_NONE) {
        unit_t unit = pool->first_unit + (unit_t)at;
        if (sharedpool_claim(pool, cls, unit)) {
            return unit;
        }
        at = bitset_find(&pool->partial[cls], at);
    }
    return UNIT_NONE;
}

unit_t sharedpool_acquire_fresh(struct pool *pool, unsigned cls)
{
    struct hak_region *heap = pool->heap;
    unsigned least = sizeclass_least_units(cls);

    /* Where no run of the wished length is free, a shorter slab holds objects as well. */
    for (unsigned units = sizeclasses[cls].unit_count; units >= least; units--) {
        unit_t unit = units_acquire(&heap->area, pool->segment, units, UNIT_BYTES, NULL);
        if (unit == UNIT_NONE) {
            continue;
        }
        for (unsigned n = 0; n < units; n++) {
            heap_set_offset(heap, unit + n, (uint8_t)n);
        }
        slab_open(&heap->slabs[unit], cls, units);
        if (heap->hardened != NULL) {
            hardened_open_slab(heap, unit, sizeclass_capacity(cls, units));
        }
        if (HAK_DEBUG &&
            (!slab_check(&heap->slabs[unit]) || heap_class(heap, unit) != CLASS_NONE)) {
            abort(); /* units that were free belong to something */
        }
        heap_set_class(heap, unit, units, cls);
        return unit;
    }
    return UNIT_NONE;
}
