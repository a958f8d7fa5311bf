/* SPDX-License-Identifier: MIT */
/* The warm pool; see warmpool.h. */
#include "alloc/warmpool.h"

#include <stdio.h>

#include "alloc/sharedpool.h"
#include "alloc/stats.h"

/* A slab out of one SuperSlab, counted from the pool's first. */
static unit_t claim_in(struct pool *pool, unsigned cls, uint32_t superslab)
{
    size_t first = (size_t)superslab * SUPERSLAB_UNITS;
    uint32_t published;

    while ((published = bitset_load32(&pool->partial[cls], first)) != 0) {
        unit_t unit = pool->first_unit + (unit_t)first + (unit_t)__builtin_ctz(published);
        if (sharedpool_claim(pool, cls, unit)) {
            return unit;
        }
    }
    return UNIT_NONE;
}

static unit_t ask(struct thread *thread, unsigned cls)
{
    struct warmpool *warm = &thread->warm[cls];

    while (warm->count > 0) {
        unit_t unit = claim_in(thread->pool, cls, warm->superslab[warm->count - 1]);
        if (unit != UNIT_NONE) {
            return unit;
        }
        warm->count--; /* exhausted */
    }
    return UNIT_NONE;
}

static void prefill(struct thread *thread, unsigned cls)
{
    struct bitset *partial = &thread->pool->partial[cls];
    struct warmpool *warm = &thread->warm[cls];
    uint32_t found[WARM_POOL_MAX];
    unsigned count = 0;
    size_t at = bitset_find(partial, 0);

    while (at != BITSET_NONE && count < thread->heap->warm_pool) {
        found[count++] = (uint32_t)(at / SUPERSLAB_UNITS);
        at = bitset_find(partial, (at / SUPERSLAB_UNITS + 1) * SUPERSLAB_UNITS);
    }
    for (unsigned n = count; n > 0; n--) {
        warm->superslab[count - n] = found[n - 1]; /* the lowest is asked first */
    }
    warm->count = (uint8_t)count;
    count_add(&thread->class_counts[cls].warm_prefilled, count);
}

void warmpool_note_owner(struct thread *thread, unsigned cls, uint32_t superslab)
{
    struct warmpool *warm = &thread->warm[cls];

    if (!(thread->heap->layers & LAYER_WARMPOOL) || warm->count >= thread->heap->warm_pool) {
        return; /* what it holds will do */
    }
    for (unsigned n = 0; n < warm->count; n++) {
        if (warm->superslab[n] == superslab) {
            return;
        }
    }
    warm->superslab[warm->count++] = superslab;
}

unit_t warmpool_acquire_owner(struct thread *thread, unsigned cls)
{
    struct class_counts *counts = &thread->class_counts[cls];
    unit_t unit = ask(thread, cls);

    if (unit != UNIT_NONE) {
        count_add(&counts->warm_hits, 1);
        return unit;
    }
    prefill(thread, cls);
    if (thread->warm[cls].count == 0) {
        return UNIT_NONE; /* no slab of the class has room: nothing to know of */
    }
    count_add(&counts->warm_misses, 1);
    return ask(thread, cls);
}

void warmpool_print_stats(struct hak_region *heap)
{
    fprintf(stderr, "hakmem: warm pool   class    bytes         hits       misses    prefilled   "
                    "new slabs  hit rate\n");
    for (unsigned cls = 1; cls <= CLASS_COUNT; cls++) {
        struct hak_class_stats stats;
        stats_class(heap, cls, &stats);
        uint64_t asked = stats.warm_hits + stats.warm_misses;
        if (asked == 0 && stats.pool_fresh == 0) {
            continue;
        }
        fprintf(stderr, "hakmem: warm pool %7u %8zu %12llu %12llu %12llu %11llu ", cls,
                sizeclass_bytes(cls), (unsigned long long)stats.warm_hits,
                (unsigned long long)stats.warm_misses, (unsigned long long)stats.warm_prefilled,
                (unsigned long long)stats.pool_fresh);
        if (asked != 0) {
            fprintf(stderr, "  %5.1f %%\n", 100.0 * (double)stats.warm_hits / (double)asked);
        } else {
            fprintf(stderr, "        -\n");
        }
    }
}
