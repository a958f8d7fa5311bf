/* SPDX-License-Identifier: MIT */
/* Large objects; see large.h. */
#include "alloc/large.h"

#include <string.h>

#include "alloc/exhaust.h"
#include "alloc/guarded.h"
#include "alloc/misuse.h"
#include "region/units.h"

#define HEAD_OFFSET_MAX 255
/* Room for growing is at most one part in so many of what a node has free. */
#define GROWTH_SHARE 4

static void mark_bodies(struct hak_region *heap, unit_t head, size_t from, size_t to)
{
    for (size_t n = from; n < to; n++) {
        heap_set_offset(heap, head + n, (uint8_t)min_size(n, HEAD_OFFSET_MAX));
    }
    heap_set_class(heap, (unit_t)(head + from), to - from, CLASS_LARGE_BODY);
}

void large_mark(struct hak_region *heap, unit_t unit, size_t units)
{
    struct slab *slab = &heap->slabs[unit];
    /* Relaxed: ours alone; handing the object out orders it. The generation goes on (slab.h). */
    uint64_t last = atomic_load_explicit(&slab->head, memory_order_relaxed);

    atomic_store_explicit(&slab->large_units, (uint32_t)units, memory_order_relaxed);
    heap_set_offset(heap, unit, 0);
    mark_bodies(heap, unit, 1, units);
    atomic_store_explicit(&slab->head,
                          head_freed(last) + HEAD_GENERATION + head_make(0, 0, SLAB_LARGE),
                          memory_order_relaxed);
    heap_set_class(heap, unit, 1, CLASS_LARGE_HEAD);
}

static size_t units_for(size_t size)
{
    return (size + UNIT_BYTES - 1) >> UNIT_LOG2;
}

void *large_alloc_in(struct thread *thread, struct pool *pool, size_t size, size_t alignment,
                     bool *zeroed)
{
    struct hak_region *heap = pool->heap;
    if (heap->hardened != NULL) {
        return guarded_alloc_in(thread, pool, size, alignment, zeroed);
    }
    size_t units = max_size(1, units_for(size));
    unit_t unit = units_acquire(&heap->area, pool->segment, units, max_size(alignment, UNIT_BYTES),
                                zeroed);

    if (unit == UNIT_NONE) {
        return NULL;
    }
    large_mark(heap, unit, units);
    count_add(&thread->counts.large_allocs, 1);
    return region_address(&heap->area, unit);
}

static void *other_nodes(struct thread *thread, size_t size, size_t alignment, bool *zeroed)
{
    struct hak_region *heap = thread->heap;

    if (!heap_any_node(heap)) {
        return NULL;
    }
    for (uint32_t n = 0; n + 1 < heap->pool_count; n++) {
        struct pool *pool = &heap->pools[thread->pool->nearest[n]];
        void *object = large_alloc_in(thread, pool, size, alignment, zeroed);
        if (object != NULL) {
            count_add(&thread->counts.other_node_allocs, 1);
            return object;
        }
    }
    return NULL;
}

void *large_alloc(struct thread *thread, size_t size, size_t alignment, bool *zeroed)
{
    void *object = large_alloc_in(thread, thread->pool, size, alignment, zeroed);

    for (enum exhaust_step step = 0; object == NULL && step < EXHAUST_STEPS; step++) {
        if (size <= large_room(thread->heap, thread->pool->unit_count) &&
            exhaust_relieve(thread, thread->pool, step, size, CLASS_NONE)) {
            object = large_alloc_in(thread, thread->pool, size, alignment, zeroed);
        }
    }
    if (object == NULL) {
        object = other_nodes(thread, size, alignment, zeroed);
    }
    if (object == NULL) {
        exhaust_record(thread, thread->pool, size, alignment, 0);
    }
    return object;
}

/* Whole SuperSlabs for what is longer than one: in the rest of the last one something small would
 * settle, in the way of the object now and in the middle of a hole when it has moved on. */
static size_t growing_bytes(size_t size)
{
    return size > SUPERSLAB_BYTES ? round_up(size, SUPERSLAB_BYTES) : size;
}

void *large_grow(struct thread *thread, size_t size)
{
    struct pool *pool = thread->pool;
    size_t room = growing_bytes(size + size / 2);
    /* Relaxed: a figure. */
    size_t units = atomic_load_explicit(&pool->segment->free_unit_count, memory_order_relaxed);
    void *object = NULL;

    if (units_for(room) <= units / GROWTH_SHARE) {
        object = large_alloc_in(thread, pool, room, 0, NULL);
    }
    return object != NULL ? object : large_alloc_in(thread, pool, growing_bytes(size), 0, NULL);
}

void *large_grow_down(struct thread *thread, unit_t unit, size_t size)
{
    struct hak_region *heap = thread->heap;
    struct slab *slab = &heap->slabs[unit];
    size_t have = large_units(slab);
    size_t more = units_for(size) - have;
    unit_t from = (unit_t)(unit - more);

    /* Wraps below the first unit; units_acquire_at refuses what is outside the segment. */
    if (more > unit || !units_acquire_at(region_segment_of(&heap->area, unit), from, more)) {
        return NULL;
    }
    memmove(region_address(&heap->area, from), region_address(&heap->area, unit),
            have << UNIT_LOG2);
    /* Relaxed: its holder is who calls; the unit is a body from here on. */
    uint64_t head = atomic_load_explicit(&slab->head, memory_order_relaxed);
    atomic_store_explicit(&slab->head, head_freed(head), memory_order_relaxed);
    large_mark(heap, from, have + more);
    return region_address(&heap->area, from);
}

void large_free(struct thread *thread, unit_t unit, void *pointer)
{
    struct hak_region *heap = thread->heap;
    struct slab *slab = &heap->slabs[unit];
    uint64_t head = atomic_load_explicit(&slab->head, memory_order_relaxed);

    if (pointer != region_address(&heap->area, unit)) {
        misuse_report(heap, pointer, MISUSE_INTERIOR);
        return;
    }
    /* Acquire and release: of two threads that free the same object one wins and has it alone. */
    if (head_state(head) != SLAB_LARGE ||
        !atomic_compare_exchange_strong_explicit(&slab->head, &head, head_freed(head),
                                                 memory_order_acq_rel, memory_order_relaxed)) {
        misuse_report(heap, pointer, MISUSE_FREED_TWICE);
        return;
    }
    size_t units = large_units(slab);
    heap_set_class(heap, unit, units, CLASS_NONE);
    units_release(&heap->area, unit, units);
    count_add(&thread->counts.large_frees, 1);
}

static bool resize(struct thread *thread, unit_t unit, size_t size)
{
    struct hak_region *heap = thread->heap;
    struct slab *slab = &heap->slabs[unit];
    size_t have = large_units(slab);
    size_t want = max_size(1, units_for(size));

    if (want > have) {
        if (want > heap->area.unit_count || !units_acquire_at(region_segment_of(&heap->area, unit),
                                                              (unit_t)(unit + have), want - have)) {
            return false;
        }
        mark_bodies(heap, unit, have, want);
    } else if (want < have) {
        heap_set_class(heap, (unit_t)(unit + want), have - want, CLASS_NONE);
        units_release(&heap->area, (unit_t)(unit + want), have - want);
    }
    atomic_store_explicit(&slab->large_units, (uint32_t)want, memory_order_relaxed);
    return true;
}

bool large_resize(struct thread *thread, unit_t unit, size_t size)
{
    size_t have = large_units(&thread->heap->slabs[unit]) << UNIT_LOG2;

    return (size > have && resize(thread, unit, growing_bytes(size))) || resize(thread, unit, size);
}

bool large_check(struct hak_region *heap, unit_t unit)
{
    const struct slab *slab = &heap->slabs[unit];
    uint64_t head = atomic_load_explicit(&slab->head, memory_order_acquire);

    size_t units = large_units(slab);

    if ((head_state(head) != SLAB_LARGE && head_state(head) != SLAB_HELD) || units == 0 ||
        units > heap->area.unit_count - unit) {
        return false;
    }
    for (size_t n = 1; n < units; n++) {
        if (heap_class(heap, (unit_t)(unit + n)) != CLASS_LARGE_BODY ||
            heap_offset(heap, (unit_t)(unit + n)) != min_size(n, HEAD_OFFSET_MAX)) {
            return false;
        }
    }
    return true;
}
