/* SPDX-License-Identifier: MIT */
/* Summing up; see stats.h. All loads are relaxed: figures, not decisions. */
#include "alloc/stats.h"

#include <string.h>

#include "alloc/hardened.h"
#include "alloc/large.h"
#include "region/units.h"

#define READ(counter) atomic_load_explicit(&(counter), memory_order_relaxed)

static unsigned slots_of(const struct pool *pool)
{
    /* Acquire: THREAD-SLOT, slots below were filled. */
    return atomic_load_explicit(&pool->slots.high, memory_order_acquire);
}

static void add_class_counts(const struct thread *thread, unsigned cls, struct hak_stats *out)
{
    const struct class_counts *counts = &thread->class_counts[cls];

    out->cache_refills += READ(counts->cache_refills);
    out->cache_flushes += READ(counts->cache_flushes);
    out->box_hits += READ(counts->box_hits);
    out->warm_hits += READ(counts->warm_hits);
    out->warm_misses += READ(counts->warm_misses);
    out->warm_prefilled += READ(counts->warm_prefilled);
    out->pool_partial += READ(counts->pool_partial);
    out->pool_fresh += READ(counts->pool_fresh);
    out->refilled_objects += READ(counts->refilled_objects);
    out->flushed_objects += READ(counts->flushed_objects);
}

static void add_thread(const struct thread *thread, struct hak_stats *out)
{
    const struct thread_counts *counts = &thread->counts;
    uint32_t state = READ(thread->state);

    out->threads += state == THREAD_ACTIVE || state == THREAD_IDLE || state == THREAD_TAKEN;
    for (unsigned cls = 1; cls <= CLASS_COUNT; cls++) {
        add_class_counts(thread, cls, out);
    }
    out->slabs_recycled += READ(counts->slabs_recycled);
    out->remote_frees += READ(counts->remote_frees);
    out->remote_drains += READ(counts->remote_drains);
    out->large_allocs += READ(counts->large_allocs);
    out->large_frees += READ(counts->large_frees);
    out->other_node_allocs += READ(counts->other_node_allocs);
    out->exhausted += READ(counts->exhausted);
}

void stats_node(struct hak_region *heap, const struct pool *pool, struct hak_node_stats *out)
{
    *out = (struct hak_node_stats){
        .node = pool->segment->node,
        .size_bytes = (size_t)pool->unit_count << UNIT_LOG2,
        .free_bytes = (size_t)READ(pool->segment->free_unit_count) << UNIT_LOG2,
        .largest_free_bytes = large_room(heap, units_largest_run(pool->segment)),
    };
    for (unit_t unit = pool->first_unit; unit < pool->first_unit + pool->unit_count; unit++) {
        unsigned cls = heap_class(heap, unit);
        if (cls == CLASS_NONE) {
            continue;
        }
        if (cls > CLASS_COUNT) {
            out->large_bytes += UNIT_BYTES;
            continue;
        }
        out->slab_bytes += UNIT_BYTES;
        if (heap_offset(heap, unit) == 0) {
            out->slab_free_bytes += slab_free_bits(&heap->slabs[unit]) * sizeclass_bytes(cls);
        }
    }
}

void stats_region(struct hak_region *heap, struct hak_stats *out)
{
    memset(out, 0, sizeof(*out));
    out->size_bytes = heap->area.bytes;
    out->metadata_bytes = heap->metadata_bytes;
    out->node_count = heap->pool_count;
    out->pages = heap->area.pages;
    out->pages_wanted = heap->area.backing.pages_wanted;
    out->faultin_bytes = heap->area.backing.faultin_bytes;
    out->faultin_ns = heap->area.backing.faultin_ns;
    out->misuses = READ(heap->misuses);
    if (heap->hardened != NULL) {
        out->guards_refused = READ(heap->hardened->guards_refused);
    }
    out->libc_allocs = READ(heap->libc_allocs);
    out->libc_bytes = READ(heap->libc_bytes);
    add_thread(heap->stray, out);
    for (uint32_t p = 0; p < heap->pool_count; p++) {
        struct pool *pool = &heap->pools[p];
        struct hak_node_stats node;
        stats_node(heap, pool, &node);
        out->free_bytes += node.free_bytes;
        out->largest_free_bytes = max_size(out->largest_free_bytes, node.largest_free_bytes);
        out->slab_bytes += node.slab_bytes;
        out->slab_free_bytes += node.slab_free_bytes;
        out->large_bytes += node.large_bytes;
        out->cached_bytes_max += READ(pool->cached_bytes);
        if (slots_of(pool) > pool->slots.ready) {
            out->metadata_bytes += (slots_of(pool) - pool->slots.ready) * sizeof(struct thread);
        }
        out->boxed_bytes_max += READ(pool->boxed_bytes);
        for (uint32_t slot = 0; slot < slots_of(pool); slot++) {
            add_thread(thread_slot(pool, slot), out);
        }
    }
}

void stats_class(struct hak_region *heap, unsigned cls, struct hak_class_stats *out)
{
    struct hak_stats sum;

    memset(&sum, 0, sizeof(sum));
    *out = (struct hak_class_stats){.object_bytes = sizeclass_bytes(cls)};
    for (uint32_t p = 0; p < heap->pool_count; p++) {
        for (uint32_t slot = 0; slot < slots_of(&heap->pools[p]); slot++) {
            add_class_counts(thread_slot(&heap->pools[p], slot), cls, &sum);
        }
    }
    out->cache_refills = sum.cache_refills;
    out->cache_flushes = sum.cache_flushes;
    out->box_hits = sum.box_hits;
    out->warm_hits = sum.warm_hits;
    out->warm_misses = sum.warm_misses;
    out->warm_prefilled = sum.warm_prefilled;
    out->pool_fresh = sum.pool_fresh;
    for (unit_t unit = 0; unit < heap->area.unit_count; unit++) {
        if (heap_class(heap, unit) != cls) {
            continue;
        }
        out->slab_bytes += UNIT_BYTES;
        if (heap_offset(heap, unit) == 0) {
            const struct slab *slab = &heap->slabs[unit];
            size_t room = slab_free_bits(slab);
            out->slab_count++;
            out->objects_free += room;
            /* The slab may have become another one meanwhile. */
            size_t capacity = head_capacity(READ(slab->head));
            out->objects_out += capacity - min_size(room, capacity);
        }
    }
}
