/* SPDX-License-Identifier: MIT */
/* The miss ladder; see refill.h. */
#include "alloc/refill.h"

#include "alloc/exhaust.h"
#include "alloc/pagebox.h"
#include "alloc/sharedpool.h"
#include "alloc/warmpool.h"

/* Slabs visited for one refill: with a few free objects in each, more would make one call long. */
#define SLABS_PER_REFILL 3

static unit_t acquire(struct thread *thread, unsigned cls)
{
    struct class_counts *counts = &thread->class_counts[cls];
    unit_t unit;

    if (thread->heap->layers & LAYER_WARMPOOL) {
        unit = warmpool_acquire_owner(thread, cls);
    } else {
        unit = sharedpool_acquire_partial(thread->pool, cls);
        if (unit != UNIT_NONE) {
            count_add(&counts->pool_partial, 1);
        }
    }
    if (unit == UNIT_NONE) {
        unit = sharedpool_acquire_fresh(thread->pool, cls);
        if (unit != UNIT_NONE) {
            count_add(&counts->pool_fresh, 1);
        }
    }
    return unit;
}

/* A slab that we own but do not keep: takes from it and gives it up. */
static unsigned take_and_give_up(struct thread *thread, unit_t unit, void **out, unsigned want)
{
    unsigned cursor = 0;
    unsigned got = slab_take_owner(&thread->heap->slabs[unit], &cursor,
                                   region_address(&thread->heap->area, unit), want, out);

    sharedpool_give_up(thread, unit);
    return got;
}

static unsigned climb(struct thread *thread, unsigned cls, void **out, unsigned want)
{
    struct class_counts *counts = &thread->class_counts[cls];
    bool boxed = pagebox_used(thread, cls);
    unsigned got = boxed ? pagebox_take_owner(thread, cls, out, want) : 0;

    if (got > 0) {
        count_add(&counts->box_hits, 1);
        return got;
    }
    for (unsigned visits = 0; visits < SLABS_PER_REFILL && got < want; visits++) {
        unit_t unit = acquire(thread, cls);
        if (unit == UNIT_NONE) {
            break;
        }
        if (boxed && pagebox_put_owner(thread, cls, unit)) {
            got += pagebox_take_owner(thread, cls, out + got, want - got);
        } else {
            got += take_and_give_up(thread, unit, out + got, want - got);
        }
    }
    return got;
}

unsigned refill(struct thread *thread, unsigned cls, void **out, unsigned want)
{
    struct class_counts *counts = &thread->class_counts[cls];
    unsigned got = climb(thread, cls, out, want);

    if (likely(got > 0)) {
        count_add(&counts->cache_refills, 1);
        count_add(&counts->refilled_objects, got);
    }
    return got;
}

void *refill_exhausted(struct thread *thread, unsigned cls)
{
    void *object = NULL;

    for (enum exhaust_step step = 0; step < EXHAUST_STEPS; step++) {
        if (exhaust_relieve(thread, thread->pool, step, sizeclass_bytes(cls), cls) &&
            refill(thread, cls, &object, 1) == 1) {
            return object;
        }
    }
    object = exhaust_other_node(thread, cls);
    if (object == NULL) {
        exhaust_record(thread, thread->pool, sizeclass_bytes(cls), 0, cls);
    }
    return object;
}

void *refill_from_pool(struct thread *thread, struct pool *pool, unsigned cls)
{
    unit_t unit = sharedpool_acquire_partial(pool, cls);
    void *object = NULL;

    if (unit == UNIT_NONE) {
        unit = sharedpool_acquire_fresh(pool, cls);
    }
    if (unit != UNIT_NONE) {
        take_and_give_up(thread, unit, &object, 1);
    }
    return object;
}
