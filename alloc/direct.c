/* SPDX-License-Identifier: MIT */
/* Allocations past the thread's cache; see direct.h. */
#include "alloc/direct.h"

#include "alloc/exhaust.h"
#include "alloc/hardened.h"
#include "alloc/hit.h"
#include "alloc/large.h"
#include "alloc/refill.h"

/* Of a request in that region; CLASS_NONE: a large object. */
static unsigned class_for(const struct hak_region *heap, size_t size, size_t alignment)
{
    if (heap->hardened != NULL) {
        return hardened_class(size, alignment);
    }
    return alignment <= UNIT_BYTES && size <= CLASS_BYTES_MAX
               ? sizeclass_aligned(size, max_size(alignment, HAK_ALIGNMENT_MIN))
               : CLASS_NONE;
}

/* One try at an object of that pool and no other. */
static void *from_pool(struct thread *by, struct pool *pool, unsigned cls, size_t size,
                       size_t alignment)
{
    void *object = NULL;

    if (cls == CLASS_NONE) {
        return large_alloc_in(by, pool, size, alignment, NULL);
    }
    if (by->heap->hardened != NULL) {
        do {
            object = refill_from_pool(by, pool, cls);
        } while (object != NULL && !hardened_hand_out(by->heap, object, cls, size));
        return object;
    }
    if (pool == by->pool && by != by->heap->stray &&
        (bin_pop(&by->bins[cls], &object) || refill(by, cls, &object, 1) == 1)) {
        return object;
    }
    return refill_from_pool(by, pool, cls);
}

/* ... and of the ladder, as far as it is about that pool. */
static void *from_pool_at_last(struct thread *by, struct pool *pool, unsigned cls, size_t size,
                               size_t alignment)
{
    void *object = from_pool(by, pool, cls, size, alignment);

    for (enum exhaust_step step = 0; object == NULL && step < EXHAUST_STEPS; step++) {
        if (size <= large_room(by->heap, pool->unit_count) &&
            exhaust_relieve(by, pool, step, size, cls)) {
            object = from_pool(by, pool, cls, size, alignment);
        }
    }
    return object;
}

void *direct_stray(struct hak_region *heap, size_t size, size_t alignment)
{
    struct thread *stray = heap->stray;
    struct pool *home = thread_home_pool(heap);
    unsigned cls = class_for(heap, size, alignment);
    void *object = from_pool_at_last(stray, home, cls, size, alignment);

    for (uint32_t n = 0; object == NULL && heap_any_node(heap) && n + 1 < heap->pool_count; n++) {
        object = from_pool(stray, &heap->pools[home->nearest[n]], cls, size, alignment);
    }
    if (object == NULL) {
        exhaust_record(stray, home, size, alignment, cls);
    }
    return object;
}

void *direct_on_node(struct thread *by, size_t size, int node)
{
    struct hak_region *heap = by->heap;
    const struct segment *segment = region_segment_on(&heap->area, node);
    unsigned cls = class_for(heap, size, 0);

    if (segment == NULL || size > PTRDIFF_MAX) {
        exhaust_refuse(segment == NULL ? REFUSE_NODE : REFUSE_SIZE, size, 0, node);
        return NULL;
    }
    struct pool *pool = &heap->pools[segment - heap->area.segments];
    void *object = from_pool_at_last(by, pool, cls, size, 0);

    if (object == NULL) {
        exhaust_record(by, pool, size, 0, cls);
    }
    return object;
}
