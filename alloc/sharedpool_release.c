/* SPDX-License-Identifier: MIT */
/*
 * Putting objects back, and what becomes of their slabs.
 *
 * A batch is grouped into bitmap words by a small table first, without touching any slab's books:
 * only the pointers and the two dense maps. The cache lines of all words are asked for on the way,
 * since in a large heap each is a miss. Then every group costs one or, and the head of its slab
 * is looked at only where the word says that there may be something to decide (slab.h).
 *
 * A slab found empty goes straight to FREE and its units to everybody, in that batch.
 *
 * Model: tests/model/slab.pml (put, settle, publish, recycle, sharedpool_give_up).
 */
#include "alloc/hardened.h"
#include "alloc/misuse.h"
#include "alloc/pagebox.h"
#include "alloc/sharedpool.h"
#include "alloc/warmpool.h"
#include "region/units.h"

#define GROUP_TABLE_LOG2 7

struct word_group {
    unit_t unit; /* the slab's first */
    uint8_t word;
    uint8_t cls;
    uint64_t mask;
};

struct batch {
    unsigned count;
    struct word_group *last; /* never NULL; at first one that nothing matches */
    struct word_group groups[MAGAZINE_OBJECTS];
    /* Where a word's group may be; a hint that its key confirms. A collision costs a second or on
     * that word, no search. */
    uint8_t table[1U << GROUP_TABLE_LOG2];
};

_Static_assert(MAGAZINE_OBJECTS <= UINT8_MAX, "group numbers are bytes");

static void *object_address(const struct hak_region *heap, unit_t unit, unsigned cls,
                            unsigned index)
{
    return (char *)region_address(&heap->area, unit) + (size_t)index * sizeclass_bytes(cls);
}

/* The word's group, by the table; a new one where it has none. */
static struct word_group *batch_group(struct batch *batch, struct hak_region *heap, unit_t unit,
                                      unsigned cls, unsigned word)
{
    /* Fibonacci hashing: neighbouring numbers land far apart. */
    unsigned at = ((unit * SLAB_WORDS + word) * 2654435769U) >> (32 - GROUP_TABLE_LOG2);
    struct word_group *group = &batch->groups[batch->table[at]];

    if (batch->table[at] < batch->count && group->unit == unit && group->word == word) {
        return group;
    }
    group = &batch->groups[batch->count];
    batch->table[at] = (uint8_t)batch->count++;
    *group = (struct word_group){.unit = unit, .word = (uint8_t)word, .cls = (uint8_t)cls};
    __builtin_prefetch(&heap->slabs[unit].bits[word], 1);
    return group;
}

HAK_INLINE void batch_add(struct batch *batch, struct hak_region *heap, unit_t unit, unsigned cls,
                          unsigned index)
{
    unsigned word = index / 64;
    uint64_t mask = (uint64_t)1 << (index % 64);
    struct word_group *group = batch->last;

    /* Objects mostly come back in some order: look at the last one's word first. */
    if (group->unit != unit || group->word != word) {
        group = batch->last = batch_group(batch, heap, unit, cls, word);
    }
    if (unlikely(group->mask & mask)) {
        misuse_report(heap, object_address(heap, unit, cls, index), MISUSE_FREED_TWICE);
    }
    group->mask |= mask;
}

/* The slab is FREE and ours alone: its units go to everybody. */
static void recycle(struct thread *by, unit_t unit, uint64_t head)
{
    unsigned units = head_units(head);

    if (by->heap->hardened != NULL) {
        hardened_close_slab(by->heap, unit, head_class(head), head_capacity(head));
    }
    heap_set_class(by->heap, unit, units, CLASS_NONE);
    units_release(&by->heap->area, unit, units);
    count_add(&by->counts.slabs_recycled, 1);
}

static void publish(struct thread *by, unit_t unit, unsigned cls)
{
    struct pool *pool = heap_pool_of(by->heap, unit);

    bitset_set(&pool->partial[cls], unit - pool->first_unit);
    if (pool == by->pool && by != by->heap->stray) {
        warmpool_note_owner(by, cls, (unit - pool->first_unit) / SUPERSLAB_UNITS);
    }
}

/* Makes the transition that the slab's bits call for now, if any. word: where to look first. */
static void settle(struct thread *by, unit_t unit, unsigned word)
{
    struct hak_region *heap = by->heap;
    struct slab *slab = &heap->slabs[unit];
    /* SLAB-STATE: our bits, or our head, are written; the head before the bits are read. */
    uint64_t head = atomic_load_explicit(&slab->head, memory_order_seq_cst);

    for (;;) {
        enum slab_state state = head_state(head);
        if (state != SLAB_FULL && state != SLAB_PARTIAL) {
            return;
        }
        enum slab_fill fill = slab_look(slab, head, word);
        if (fill == SLAB_NO_ROOM || (fill == SLAB_SOME_ROOM && state == SLAB_PARTIAL)) {
            return;
        }
        uint64_t next = fill == SLAB_ALL_FREE ? head_freed(head) : head_with(head, SLAB_PARTIAL);
        if (!atomic_compare_exchange_strong_explicit(&slab->head, &head, next, memory_order_seq_cst,
                                                     memory_order_seq_cst)) {
            continue;
        }
        if (fill == SLAB_SOME_ROOM) {
            publish(by, unit, head_class(head));
            return;
        }
        if (state == SLAB_PARTIAL) {
            struct pool *pool = heap_pool_of(heap, unit);
            bitset_clear(&pool->partial[head_class(head)], unit - pool->first_unit);
        }
        recycle(by, unit, head);
        return;
    }
}

void sharedpool_give_up(struct thread *by, unit_t unit)
{
    struct hak_region *heap = by->heap;
    struct slab *slab = &heap->slabs[unit];
    /* Relaxed: nobody else changes the head of a slab that we own. */
    uint64_t head = atomic_load_explicit(&slab->head, memory_order_relaxed);
    enum slab_fill fill = slab_look(slab, head, 0);

    if (fill == SLAB_ALL_FREE) {
        /* Nobody holds an object of it, so nobody can free one. */
        atomic_store_explicit(&slab->head, head_freed(head), memory_order_seq_cst);
        recycle(by, unit, head);
        return;
    }
    /* SLAB-STATE: the head first, then the bits again (settle). */
    atomic_store_explicit(&slab->head,
                          head_with(head, fill == SLAB_SOME_ROOM ? SLAB_PARTIAL : SLAB_FULL),
                          memory_order_seq_cst);
    if (fill == SLAB_SOME_ROOM) {
        publish(by, unit, head_class(head));
    }
    settle(by, unit, 0);
}

static HAK_COLD void report_twice(struct hak_region *heap, const struct word_group *group,
                                  uint64_t twice)
{
    for (; twice != 0; twice &= twice - 1) {
        unsigned index = group->word * 64U + (unsigned)__builtin_ctzll(twice);
        misuse_report(heap, object_address(heap, group->unit, group->cls, index),
                      MISUSE_FREED_TWICE);
    }
}

static void put(struct thread *by, const struct word_group *group)
{
    struct hak_region *heap = by->heap;
    struct slab *slab = &heap->slabs[group->unit];
    uint64_t was = slab_put_any(slab, group->word, group->mask);

    if (unlikely(was & group->mask)) {
        report_twice(heap, group, was & group->mask);
    }
    /* Slabs of several units differ in length, but are of few objects: their head shares the
     * line of the word just written. */
    const struct sizeclass *cls = &sizeclasses[group->cls];
    unsigned capacity = cls->unit_count == 1 ? sizeclass_capacity(group->cls, 1)
                                             : head_capacity(atomic_load_explicit(
                                                   &slab->head, memory_order_relaxed));
    /* Without bits that no object has, which a second free can leave (see slab_take_owner). */
    uint64_t full = slab_word_full(capacity, group->word);
    bool filled = ((was | group->mask) & full) == full;
    if ((was & full) != 0 && !filled) {
        return;
    }
    settle(by, group->unit, group->word);
    if (filled) {
        pagebox_emptied_owner(by, group->cls, group->unit);
    }
}

/* Any pointer. wanted: the class that it must be, or CLASS_NONE. */
static void batch_add_any(struct batch *batch, struct hak_region *heap, unsigned wanted,
                          const void *pointer)
{
    unit_t unit = region_unit(&heap->area, pointer);
    unsigned cls = unit == UNIT_NONE ? CLASS_NONE : heap_class(heap, unit);

    if (cls == CLASS_NONE || cls > CLASS_COUNT || (wanted != CLASS_NONE && cls != wanted)) {
        /* It was an object when it came into the cache or outbox: its slab has been emptied since,
         * so somebody freed it twice. */
        misuse_report(heap, pointer, MISUSE_FREED_TWICE);
        return;
    }
    unit_t head = heap_slab_head(heap, unit);
    size_t bytes = sizeclass_bytes(cls);
    size_t offset = (size_t)((const char *)pointer - (char *)region_address(&heap->area, head));
    unsigned index = sizeclass_index(cls, offset);
    /* Slabs differ in length: the unit of the last byte must belong to the same one. */
    unit_t last = head + (unit_t)((offset + bytes - 1) >> UNIT_LOG2);
    if (index * bytes != offset ||
        (last != unit && (last >= heap->area.unit_count || heap_class(heap, last) != cls ||
                          heap_slab_head(heap, last) != head))) {
        misuse_report(heap, pointer, MISUSE_INTERIOR);
        return;
    }
    batch_add(batch, heap, head, cls, index);
}

/*
 * Pointers of a class whose slabs are one unit: where in it is in the address. Neighbours mostly
 * come together, so what is known of the last one's unit and word stays in registers: through the
 * group's memory each object would wait for the one before it.
 */
static void batch_add_small(struct batch *batch, struct hak_region *heap, unsigned cls,
                            void *const *pointers, unsigned count)
{
    unsigned capacity = sizeclass_capacity(cls, 1);
    size_t bytes = sizeclass_bytes(cls);
    struct word_group *group = batch->last;
    uint64_t mask = group->mask;
    uintptr_t base = 0; /* of the last unit; no object is in the first */
    unit_t unit = UNIT_NONE;
    unsigned word = SLAB_WORDS;

    for (unsigned n = 0; n < count; n++) {
        size_t offset = (uintptr_t)pointers[n] - base;
        if (offset >= UNIT_BYTES) {
            unit = region_unit(&heap->area, pointers[n]);
            if (unlikely(unit == UNIT_NONE || heap_class(heap, unit) != cls)) {
                /* As in batch_add_any: another class has the unit now, or nobody. */
                misuse_report(heap, pointers[n], MISUSE_FREED_TWICE);
                base = 0;
                continue;
            }
            base = round_down((uintptr_t)pointers[n], UNIT_BYTES);
            offset = (uintptr_t)pointers[n] - base;
            word = SLAB_WORDS;
        }
        unsigned index = sizeclass_index(cls, offset);
        if (unlikely(index * bytes != offset || index >= capacity)) {
            misuse_report(heap, pointers[n], MISUSE_INTERIOR);
            continue;
        }
        if (index / 64 != word) {
            word = index / 64;
            group->mask = mask;
            group = batch_group(batch, heap, unit, cls, word);
            mask = group->mask;
        }
        uint64_t bit = (uint64_t)1 << (index % 64);
        if (unlikely(mask & bit)) {
            misuse_report(heap, pointers[n], MISUSE_FREED_TWICE);
        }
        mask |= bit;
    }
    group->mask = mask;
}

void sharedpool_release(struct thread *by, unsigned cls, void *const *pointers, unsigned count)
{
    struct hak_region *heap = by->heap;
    struct batch batch;

    batch.count = 0;
    batch.last = &batch.groups[0];
    batch.groups[0] = (struct word_group){.unit = UNIT_NONE};
    __builtin_memset(batch.table, 0, sizeof(batch.table));
    if (cls != CLASS_NONE && sizeclasses[cls].unit_count == 1) {
        batch_add_small(&batch, heap, cls, pointers, count);
    } else {
        for (unsigned n = 0; n < count; n++) {
            batch_add_any(&batch, heap, cls, pointers[n]);
        }
    }
    for (unsigned n = 0; n < batch.count; n++) {
        put(by, &batch.groups[n]);
    }
}

bool sharedpool_check(struct pool *pool)
{
    struct hak_region *heap = pool->heap;

    for (unsigned cls = 1; cls <= CLASS_COUNT; cls++) {
        if (!bitset_check(&pool->partial[cls])) {
            return false;
        }
    }
    for (unit_t unit = pool->first_unit; unit < pool->first_unit + pool->unit_count; unit++) {
        unsigned cls = heap_class(heap, unit);
        if (cls == CLASS_NONE || cls > CLASS_COUNT || heap_slab_head(heap, unit) != unit) {
            continue;
        }
        const struct slab *slab = &heap->slabs[unit];
        uint64_t head = atomic_load_explicit(&slab->head, memory_order_acquire);
        if (head_class(head) != cls || !slab_check(slab)) {
            return false;
        }
        bool published = bitset_test(&pool->partial[cls], unit - pool->first_unit);
        if (head_state(head) == SLAB_PARTIAL && !published) {
            return false;
        }
        for (unsigned n = 0; n < head_units(head); n++) {
            if (heap_class(heap, unit + n) != cls || heap_offset(heap, (unit_t)(unit + n)) != n) {
                return false;
            }
        }
    }
    return true;
}
