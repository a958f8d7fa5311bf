/* SPDX-License-Identifier: MIT */
/* Large objects of a hardened region; see guarded.h. */
#include "alloc/guarded.h"

#include "alloc/hardened.h"
#include "alloc/large.h"
#include "alloc/misuse.h"
#include "alloc/quarantine.h"
#include "region/os.h"
#include "region/units.h"

/* The largest object that is held back is one part in so many of its node's segment. Larger ones
 * have fewer places (held_places): together 1 + 1/2 + 1/3 ... + 1/16 = 3.4 such parts at most. */
#define HELD_SHARE 128

enum { GUARD_BEFORE = 1, GUARD_BEHIND = 2 };

static struct slab *entry(const struct hak_region *heap, unit_t unit)
{
    return &heap->slabs[unit];
}

static unsigned guards_of(const struct slab *slab)
{
    /* Relaxed: whoever asks has the object, or is ending it. */
    return atomic_load_explicit(&slab->guards, memory_order_relaxed);
}

/* Of a large object and of what stands around it, none of which is anybody else's. */
struct extent {
    unit_t first;
    size_t units;
};

static struct extent extent_of(const struct hak_region *heap, unit_t unit)
{
    const struct slab *slab = entry(heap, unit);
    unsigned before = (guards_of(slab) & GUARD_BEFORE) != 0;
    unsigned behind = (guards_of(slab) & GUARD_BEHIND) != 0;

    return (struct extent){.first = (unit_t)(unit - before),
                           .units = large_units(slab) + before + behind};
}

/* All of it or nothing: where the range is of several pieces the kernel can refuse half-way. */
static bool forbid(void *at, size_t bytes)
{
    if (os_forbid(at, bytes) != 0) {
        (void)os_allow(at, bytes);
        return false;
    }
    return true;
}

/* Nobody's unit becomes a guard; false where the kernel refuses, or may need its pieces itself. */
static bool guard(struct hak_region *heap, unit_t unit)
{
    struct hardened *hardened = heap->hardened;
    bool may = budget_take(&hardened->guards_now, hardened->guards_most, 1);

    if (!may || !forbid(region_address(&heap->area, unit), UNIT_BYTES)) {
        if (may) {
            budget_give(&hardened->guards_now, 1);
        }
        /* Relaxed: a count. */
        atomic_fetch_add_explicit(&hardened->guards_refused, 1, memory_order_relaxed);
        return false;
    }
    heap_set_offset(heap, unit, 0);
    heap_set_class(heap, unit, 1, CLASS_LARGE_BODY);
    return true;
}

/* Guards on the units before and behind. Without the one before its unit goes back; without the one
 * behind it becomes part of the object, so that there is room for the canary. */
static unsigned put_guards(struct hak_region *heap, unit_t unit, size_t *units, unsigned wanted)
{
    unsigned guards = 0;

    if (wanted & GUARD_BEFORE) {
        if (guard(heap, unit - 1)) {
            guards |= GUARD_BEFORE;
        } else {
            units_release(&heap->area, unit - 1, 1);
        }
    }
    if (wanted & GUARD_BEHIND) {
        if (guard(heap, (unit_t)(unit + *units))) {
            guards |= GUARD_BEHIND;
        } else {
            ++*units;
        }
    }
    return guards;
}

/* Where a guard stands right behind the last byte no canary is needed, and no unit for it. */
static size_t units_for(const struct hak_region *heap, size_t size)
{
    size_t canary = heap->hardened->guards ? 0 : CANARY_BYTES;

    return max_size(1, (size + canary + UNIT_BYTES - 1) >> UNIT_LOG2);
}

/* The canary as far as there is room for it: a guard may stand right behind the last byte. */
static size_t canary_room(const struct slab *slab)
{
    return min_size(CANARY_BYTES, (large_units(slab) << UNIT_LOG2) - asked_bytes(slab));
}

static void put_canary(const struct hak_region *heap, unit_t unit)
{
    const struct slab *slab = entry(heap, unit);

    canary_put(heap->hardened, region_address(&heap->area, unit), asked_bytes(slab),
               canary_room(slab));
}

static bool canary_is_intact(const struct hak_region *heap, unit_t unit)
{
    const struct slab *slab = entry(heap, unit);

    return canary_intact(heap->hardened, region_address(&heap->area, unit), asked_bytes(slab),
                         canary_room(slab));
}

void *guarded_alloc_in(struct thread *thread, struct pool *pool, size_t size, size_t alignment,
                       bool *zeroed)
{
    struct hak_region *heap = pool->heap;
    bool guards = heap->hardened->guards;
    size_t units = units_for(heap, size);
    unsigned before = guards && alignment <= UNIT_BYTES;
    unit_t unit = units_acquire(&heap->area, pool->segment, units + before + guards,
                                max_size(alignment, UNIT_BYTES), zeroed);

    if (unit == UNIT_NONE) {
        return NULL;
    }
    unit += before;
    size = max_size(size, 1);
    set_asked_bytes(entry(heap, unit), size);
    unsigned placed = put_guards(heap, unit, &units,
                                 (before ? GUARD_BEFORE : 0U) | (guards ? GUARD_BEHIND : 0U));
    /* Relaxed: ours alone; handing the object out orders it. */
    atomic_store_explicit(&entry(heap, unit)->guards, placed, memory_order_relaxed);
    large_mark(heap, unit, units);
    put_canary(heap, unit);
    count_add(&thread->counts.large_allocs, 1);
    return region_address(&heap->area, unit);
}

size_t guarded_size(const struct hak_region *heap, unit_t unit, const void *pointer)
{
    const struct slab *slab = entry(heap, unit);
    /* Relaxed: who asks for a live object knows of its allocation. */
    uint64_t head = atomic_load_explicit(&slab->head, memory_order_relaxed);

    return pointer == region_address(&heap->area, unit) && head_state(head) == SLAB_LARGE
               ? asked_bytes(slab)
               : 0;
}

/* What is held is a unit's number, times 2, plus 1 where it is forbidden. */
static uint32_t held_of(unit_t unit, bool forbidden)
{
    return unit << 1 | forbidden;
}

/* The kernel has no pieces left to allow the object's memory again: it stays held, for a later try.
 * Where all places are taken its units are, for good. */
static void keep(struct thread *by, unit_t unit)
{
    struct pool *pool = heap_pool_of(by->heap, unit);

    for (unsigned n = 0; n < HELD_OBJECTS; n++) {
        uint32_t none = HELD_NONE;
        /* Release: with guarded_drain and guarded_free, who take it out. */
        if (atomic_compare_exchange_strong_explicit(&pool->held[n], &none, held_of(unit, true),
                                                    memory_order_release, memory_order_relaxed)) {
            return;
        }
    }
}

/* HELD -> FREE, by who took it out of the pool's held ones, or never put it there. */
static void end(struct thread *by, unit_t unit, bool forbidden)
{
    struct hak_region *heap = by->heap;
    struct slab *slab = entry(heap, unit);
    void *start = region_address(&heap->area, unit);
    struct extent extent = extent_of(heap, unit);
    size_t units = large_units(slab);
    size_t filled = min_size(heap->hardened->fill_bytes, units << UNIT_LOG2);
    /* Relaxed: ours alone now. */
    uint64_t head = atomic_load_explicit(&slab->head, memory_order_relaxed);

    if ((forbidden || guards_of(slab) != 0) &&
        os_allow(region_address(&heap->area, extent.first), extent.units << UNIT_LOG2) != 0) {
        keep(by, unit); /* nobody may have what may not be touched */
        return;
    }
    budget_give(&heap->hardened->guards_now, extent.units - units);
    if (!forbidden && !fill_intact(start, filled)) {
        misuse_report(heap, start, MISUSE_WRITTEN_FREED);
    }
    atomic_store_explicit(&slab->head, head_freed(head), memory_order_relaxed);
    heap_set_class(heap, extent.first, extent.units, CLASS_NONE);
    units_release(&heap->area, extent.first, extent.units);
}

static void end_held(struct thread *by, uint32_t held)
{
    if (held != HELD_NONE) {
        end(by, held >> 1, held & 1);
    }
}

/* In how many of the pool's places for held objects, from the first on, one of so many bytes may
 * be; 0: it is not held back. */
static size_t held_places(const struct pool *pool, size_t bytes)
{
    return min_size(HELD_OBJECTS, ((size_t)pool->unit_count << UNIT_LOG2) / HELD_SHARE / bytes);
}

void guarded_free(struct thread *thread, unit_t unit, void *pointer)
{
    struct hak_region *heap = thread->heap;
    struct pool *pool = heap_pool_of(heap, unit);
    struct slab *slab = entry(heap, unit);
    uint64_t head = atomic_load_explicit(&slab->head, memory_order_relaxed);

    /* Acquire and release: of two threads that free the same object one wins and has it alone;
     * the other one may not even read it. */
    if (head_state(head) != SLAB_LARGE ||
        !atomic_compare_exchange_strong_explicit(&slab->head, &head, head_with(head, SLAB_HELD),
                                                 memory_order_acq_rel, memory_order_relaxed)) {
        misuse_report(heap, pointer, MISUSE_FREED_TWICE);
        return;
    }
    if (!canary_is_intact(heap, unit)) {
        misuse_report(heap, pointer, MISUSE_OVERFLOW);
    }
    count_add(&thread->counts.large_frees, 1);
    size_t bytes = large_units(slab) << UNIT_LOG2;
    size_t places = held_places(pool, bytes);
    bool hold = places > 0;
    bool forbids = hold && heap->hardened->guards;
    size_t filled = min_size(heap->hardened->fill_bytes, bytes);
    /* What nobody can touch need not lie about in memory, where that comes as it is used. */
    bool gone = forbids && !heap->area.prefault && os_discard(pointer, bytes) == 0;
    if (!gone) {
        fill_put(pointer, filled);
    }
    bool forbidden = forbids && forbid(pointer, bytes);
    if (gone && !forbidden) {
        fill_put(pointer, filled);
    }
    uint32_t leaves = held_of(unit, forbidden);
    if (hold) {
        uint64_t random = thread->quarantine != NULL ? quarantine_random(thread->quarantine)
                                                     : (uint64_t)unit << 59;
        /* Acquire and release: of several one hears of each that leaves, and has it alone. */
        leaves = atomic_exchange_explicit(&pool->held[quarantine_below(random, places)], leaves,
                                          memory_order_acq_rel);
    }
    end_held(thread, leaves);
}

bool guarded_resize(struct hak_region *heap, unit_t unit, void *pointer, size_t size, bool must)
{
    struct slab *slab = entry(heap, unit);
    size_t have = large_units(slab);
    /* Room that it got for growing may stay: large_grow. */
    bool fits = hardened_class(size, 0) == CLASS_NONE && units_for(heap, size) <= have &&
                units_for(heap, size) >= have / 2;

    if (!canary_is_intact(heap, unit)) {
        misuse_report(heap, pointer, MISUSE_OVERFLOW);
        put_canary(heap, unit); /* reported once; hardened_resize */
    }
    if (!fits && !must) {
        return false;
    }
    set_asked_bytes(slab, size);
    put_canary(heap, unit);
    return true;
}

bool guarded_before(const struct hak_region *heap, unit_t unit)
{
    return heap->hardened != NULL && (guards_of(entry(heap, unit)) & GUARD_BEFORE) != 0;
}

bool guarded_behind(const struct hak_region *heap, unit_t unit)
{
    return heap->hardened != NULL && (guards_of(entry(heap, unit)) & GUARD_BEHIND) != 0;
}

size_t guarded_room(const struct hak_region *heap, size_t units)
{
    size_t around = heap->hardened->guards ? 2 * UNIT_BYTES : CANARY_BYTES;
    size_t bytes = units << UNIT_LOG2;

    return bytes > around ? bytes - around : 0;
}

bool guarded_drain(struct thread *thread, struct pool *pool)
{
    bool any = false;

    for (unsigned n = 0; n < HELD_OBJECTS; n++) {
        /* Acquire: as in guarded_free. */
        uint32_t held = atomic_exchange_explicit(&pool->held[n], HELD_NONE, memory_order_acq_rel);
        any |= held != HELD_NONE;
        end_held(thread, held);
    }
    return any;
}
