/* SPDX-License-Identifier: MIT */
/*
 * Putting objects back, and what becomes of their slabs.
 *
 * A batch is grouped twice by small hash tables: pointers into bitmap words, words into slabs. The
 * cache lines of all words are asked for before the first atomic operation, since in a large heap
 * each is a miss. Every group then costs one or on its word and, per slab, one add on its head. The
 * add's result is all that is needed to know what the slab has become (slab.h).
 *
 * A slab whose state allows it goes straight from FULL or PARTIAL to FREE and its units to
 * everybody, in the batch that empties it.
 */
#include "alloc/misuse.h"
#include "alloc/pagebox.h"
#include "alloc/sharedpool.h"
#include "region/units.h"

#define GROUP_HASH 128
#define GROUP_EMPTY 0xff

_Static_assert(MAGAZINE_OBJECTS < GROUP_EMPTY && MAGAZINE_OBJECTS * 2 <= GROUP_HASH,
               "group numbers fit a byte, the hash is at most half full");

struct word_group {
    unit_t unit;
    uint8_t word;
    uint8_t class;
    uint64_t mask;
};

struct slab_group {
    unit_t unit;
    int32_t count;
};

struct batch {
    unsigned word_count, slab_count;
    uint8_t word_hash[GROUP_HASH], slab_hash[GROUP_HASH];
    struct word_group words[MAGAZINE_OBJECTS];
    struct slab_group slabs[MAGAZINE_OBJECTS];
};

static void *object_address(const struct hak_region *heap, unit_t unit, unsigned class,
                            unsigned index)
{
    return (char *)region_address(&heap->area, unit) + (size_t)index * sizeclass_bytes(class);
}

static void add_to_word(struct batch *batch, unit_t unit, unsigned class, unsigned index,
                        struct hak_region *heap)
{
    unsigned word = index / 64;
    uint64_t mask = (uint64_t)1 << (index % 64);
    unsigned at = (unit * 67 + word) % GROUP_HASH;
    struct word_group *group;

    for (; batch->word_hash[at] != GROUP_EMPTY; at = (at + 1) % GROUP_HASH) {
        group = &batch->words[batch->word_hash[at]];
        if (group->unit == unit && group->word == word) {
            if (group->mask & mask) {
                misuse_report(heap, object_address(heap, unit, class, index), MISUSE_FREED_TWICE);
                return;
            }
            group->mask |= mask;
            return;
        }
    }
    batch->word_hash[at] = (uint8_t)batch->word_count;
    group = &batch->words[batch->word_count++];
    *group = (struct word_group){
        .unit = unit, .word = (uint8_t)word, .class = (uint8_t)class, .mask = mask};
    __builtin_prefetch(&heap->slabs[unit].bits[word], 1);
    __builtin_prefetch(&heap->slabs[unit].head, 1);
}

static void add_to_slab(struct batch *batch, unit_t unit, int32_t count)
{
    unsigned at = unit % GROUP_HASH;

    for (; batch->slab_hash[at] != GROUP_EMPTY; at = (at + 1) % GROUP_HASH) {
        struct slab_group *group = &batch->slabs[batch->slab_hash[at]];
        if (group->unit == unit) {
            group->count += count;
            return;
        }
    }
    batch->slab_hash[at] = (uint8_t)batch->slab_count;
    batch->slabs[batch->slab_count++] = (struct slab_group){.unit = unit, .count = count};
}

/* The slab is FREE and ours alone: its units go to everybody. */
static void recycle(struct thread *by, unit_t unit, unsigned class, unsigned units)
{
    struct hak_region *heap = by->heap;

    heap_set_class(heap, unit, units, CLASS_NONE);
    (void)class;
    units_release(&heap->area, unit, units);
    count_add(&by->counts.slabs_recycled, 1);
}

static void publish(struct pool *pool, unit_t unit, unsigned class)
{
    bitset_set(&pool->partial[class], unit - pool->first_unit);
}

/*
 * head is what the slab became by our add. Tries the transition that it calls for; another batch
 * may have made it or a further one meanwhile, then there is nothing left to do for us: each add
 * looks for itself.
 */
static void settle(struct thread *by, unit_t unit, uint64_t head)
{
    struct hak_region *heap = by->heap;
    struct slab *slab = &heap->slabs[unit];

    for (;;) {
        enum slab_state state = head_state(head);
        bool empty = head_count(head) == (int32_t)head_capacity(head);
        uint64_t next;

        if ((state == SLAB_FULL || state == SLAB_PARTIAL) && empty) {
            next = head_with(0, SLAB_FREE, 0);
        } else if (state == SLAB_FULL && head_count(head) > 0) {
            next = head_with(head, SLAB_PARTIAL, head_count(head));
        } else {
            return;
        }
        /* Release: SLAB-STATE, what we know of the slab goes to who claims it. Acquire: a slab that
         * becomes FREE carries everybody's bits. */
        if (!atomic_compare_exchange_weak_explicit(&slab->head, &head, next, memory_order_acq_rel,
                                                   memory_order_relaxed)) {
            continue;
        }
        struct pool *pool = heap_pool_of(heap, unit);
        if (!empty) {
            publish(pool, unit, head_class(head));
        } else {
            if (state == SLAB_PARTIAL) {
                bitset_clear(&pool->partial[head_class(head)], unit - pool->first_unit);
            }
            recycle(by, unit, head_class(head), head_units(head));
        }
        return;
    }
}

void sharedpool_give_up(struct thread *by, unit_t unit, int32_t taken)
{
    struct hak_region *heap = by->heap;
    struct slab *slab = &heap->slabs[unit];
    uint64_t head = atomic_load_explicit(&slab->head, memory_order_relaxed);
    uint64_t next;
    bool empty;

    do {
        int32_t count = head_count(head) - taken;
        empty = count == (int32_t)head_capacity(head);
        next = empty ? head_with(0, SLAB_FREE, 0)
                     : head_with(head, count > 0 ? SLAB_PARTIAL : SLAB_FULL, count);
        /* Release, acquire: SLAB-STATE, as in settle. */
    } while (!atomic_compare_exchange_weak_explicit(&slab->head, &head, next, memory_order_acq_rel,
                                                    memory_order_relaxed));
    if (empty) {
        recycle(by, unit, head_class(head), head_units(head));
    } else if (head_state(next) == SLAB_PARTIAL) {
        publish(heap_pool_of(heap, unit), unit, head_class(next));
    }
}

static void put_words(struct thread *by, struct batch *batch)
{
    struct hak_region *heap = by->heap;

    for (unsigned n = 0; n < batch->word_count; n++) {
        struct word_group *group = &batch->words[n];
        uint64_t twice = slab_put_any(&heap->slabs[group->unit], group->word, group->mask);
        int32_t count = __builtin_popcountll(group->mask & ~twice);

        for (; unlikely(twice != 0); twice &= twice - 1) {
            unsigned index = group->word * 64U + (unsigned)__builtin_ctzll(twice);
            misuse_report(heap, object_address(heap, group->unit, group->class, index),
                          MISUSE_FREED_TWICE);
        }
        if (count > 0) {
            add_to_slab(batch, group->unit, count);
        }
    }
}

static void add_counts(struct thread *by, struct batch *batch)
{
    struct hak_region *heap = by->heap;

    for (unsigned n = 0; n < batch->slab_count; n++) {
        unit_t unit = batch->slabs[n].unit;
        uint64_t add = (uint64_t)(uint32_t)batch->slabs[n].count << 32;
        /* Release: the bits are set before they count. Acquire: see settle. */
        uint64_t head =
            atomic_fetch_add_explicit(&heap->slabs[unit].head, add, memory_order_acq_rel) + add;
        if (head_state(head) != SLAB_OWNED) {
            settle(by, unit, head);
        } else if (head_count(head) >= (int32_t)head_capacity(head)) {
            pagebox_emptied_owner(by, head_class(head), unit, head_count(head));
        }
    }
}

void sharedpool_release(struct thread *by, unsigned class, void *const *pointers, unsigned count)
{
    struct hak_region *heap = by->heap;
    struct batch batch;

    batch.word_count = 0;
    batch.slab_count = 0;
    __builtin_memset(batch.word_hash, GROUP_EMPTY, sizeof(batch.word_hash));
    __builtin_memset(batch.slab_hash, GROUP_EMPTY, sizeof(batch.slab_hash));
    for (unsigned n = 0; n < count; n++) {
        unit_t unit = region_unit(&heap->area, pointers[n]);
        unsigned found = unit == UNIT_NONE ? CLASS_NONE : heap_class(heap, unit);

        if (unlikely(found == CLASS_NONE || found > CLASS_COUNT ||
                     (class != CLASS_NONE && found != class))) {
            /* It was an object of this class when it came into the cache: its slab has been
             * emptied since, so somebody freed it twice. */
            misuse_report(heap, pointers[n], MISUSE_FREED_TWICE);
            continue;
        }
        unit_t head = heap_slab_head(heap, unit);
        size_t offset = (size_t)((char *)pointers[n] - (char *)region_address(&heap->area, head));
        unsigned index = sizeclass_index(found, offset);
        unsigned units = head_units(
            atomic_load_explicit(&heap->slabs[head].head, memory_order_relaxed));
        if (unlikely(index * sizeclass_bytes(found) != offset ||
                     index >= sizeclass_capacity(found, units))) {
            misuse_report(heap, pointers[n], MISUSE_INTERIOR);
            continue;
        }
        add_to_word(&batch, head, found, index, heap);
    }
    put_words(by, &batch);
    add_counts(by, &batch);
}

bool sharedpool_check(struct pool *pool)
{
    struct hak_region *heap = pool->heap;

    for (unsigned class = 1; class <= CLASS_COUNT; class++) {
        if (!bitset_check(&pool->partial[class])) {
            return false;
        }
    }
    for (unit_t unit = pool->first_unit; unit < pool->first_unit + pool->unit_count; unit++) {
        unsigned class = heap_class(heap, unit);
        if (class == CLASS_NONE || class > CLASS_COUNT || heap_slab_head(heap, unit) != unit) {
            continue;
        }
        const struct slab *slab = &heap->slabs[unit];
        uint64_t head = atomic_load_explicit(&slab->head, memory_order_acquire);
        if (head_class(head) != class || !slab_check(slab)) {
            return false;
        }
        bool published = bitset_test(&pool->partial[class], unit - pool->first_unit);
        if (head_state(head) == SLAB_PARTIAL && !published) {
            return false;
        }
        for (unsigned n = 0; n < head_units(head); n++) {
            if (heap_class(heap, unit + n) != class || heap->head_offset[unit + n] != n) {
                return false;
            }
        }
    }
    return true;
}
