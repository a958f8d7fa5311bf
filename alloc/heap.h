/* SPDX-License-Identifier: MIT */
/*
 * What a region handle points to: the region's addresses, and the books of what its units are
 * used for. Everything here is out of line; no byte of an object is ever read or written.
 *
 * class_map is what free looks at: one byte a unit, dense, so that a thousand objects of 64 bytes
 * share it. Written while the unit belongs to one thread alone (a slab or large object coming or
 * going), read by anyone.
 *
 * A byte is the class times 4, so that free finds the class's bin (32 bytes each) by the
 * processor's own address arithmetic: slot + 8 * byte.
 *
 * Most of a handle is constant between set-up and end; what changes has its own lines.
 */
#ifndef HAK_ALLOC_HEAP_H
#define HAK_ALLOC_HEAP_H

#include "alloc/slab.h"
#include "region/region.h"

struct thread;
struct hardened;

/* Freed large objects that a pool of a hardened region holds back. */
#define HELD_OBJECTS 16
#define HELD_NONE UINT32_MAX

/* Pointers in a magazine: what a thread's cache grows and shrinks by, and the longest batch. */
#define MAGAZINE_OBJECTS 64
#define MAGAZINE_NONE UINT32_MAX

/* A node's magazines: fixed in number, handed to threads' caches. alloc/magazine.h */
struct magazines {
    struct bitset free;
    void **memory;
    struct magazine_link *links;
    uint32_t count;
};

struct magazine_link {
    uint32_t older, newer;
};

/* A node's thread slots. alloc/thread.c */
struct thread_slots {
    struct bitset free;
    unsigned char *memory;
    _Atomic uint32_t high;      /* slots at or above were never used */
    _Atomic uint32_t taken;     /* how many are in use */
    uint32_t ready;             /* how many were faulted in with the region */
    unsigned char *quarantines; /* of a hardened region: one a slot */
};

/* A node's shared pool: everything of its segment that no thread owns. */
struct pool {
    struct hak_region *heap;
    struct segment *segment;
    uint32_t index;
    unit_t first_unit;
    uint32_t unit_count;
    /* partial[c]: units (from first_unit) whose slab of class c is PARTIAL: has room, no owner */
    struct bitset partial[CLASS_COUNT + 1];
    struct magazines magazines;
    struct thread_slots slots;
    uint32_t nearest[HAK_NODES_MAX]; /* the other pools by distance */
    size_t batch_bytes;              /* a magazine's objects are at most this much together */
    size_t cached_bytes_limit, boxed_bytes_limit;
    /* Capacity of all caches on this node, and slabs in all page boxes: at most this is free and
     * not to be had by others. */
    _Atomic size_t cached_bytes CACHE_ALIGNED;
    _Atomic size_t boxed_bytes;
    _Atomic uint32_t held[HELD_OBJECTS]; /* alloc/guarded.c */
};

/* What the hit path of free reads of a region; constant from set-up to end. Beside the thread's
 * slot and not in it, so that the way to a class's bin does not wait for the way to the slot. */
struct heap_front {
    uintptr_t class_map; /* address that the entry of address 0 would have */
};

struct hak_region {
    struct heap_front front;
    struct region area;
    _Atomic uint8_t *class_map;
    _Atomic uint8_t *head_offset; /* units back to the slab's first */
    struct slab *slabs;
    uint32_t pool_count;
    struct pool *pools;
    int8_t node_pool[HAK_NODES_MAX]; /* a node's pool, or its nearest */
    unsigned id;
    _Atomic uint64_t misuses;
    _Atomic uint64_t libc_allocs, libc_bytes; /* alloc/preload_libc.c */
    enum hak_misuse misuse;
    enum hak_exhausted exhausted;
    unsigned layers;
    uint64_t page_box_classes;
    unsigned warm_pool;
    bool warm_pool_stats;
    size_t metadata_bytes;
    struct hardened *hardened; /* NULL: the region is not */
    enum table_place place;
    /* Given back by heap_unlayout. */
    struct heap_table {
        void *memory;
        size_t bytes;
    } tables[10 + 4 * HAK_NODES_MAX];
    unsigned table_count;
    struct thread *stray; /* by whom threads without a slot work: counters, no caches */
    hak_exhausted_fn on_exhausted;
    void *on_exhausted_argument;
};

#define CLASS_MAP_SHIFT 2
/* Bytes of a thread slot per step of a class map entry. */
#define CLASS_MAP_STEP 8
_Static_assert(CLASS_MAP_VALUES << CLASS_MAP_SHIFT <= 256, "an entry is a byte");

HAK_INLINE struct pool *heap_pool_of(struct hak_region *heap, unit_t unit)
{
    return &heap->pools[region_segment_index(&heap->area, unit)];
}

/* Adds to a budget; false, and nothing added, where it would go beyond the limit. */
HAK_INLINE bool budget_take(_Atomic size_t *used, size_t limit, size_t bytes)
{
    /* Relaxed: nothing else is published by it. */
    size_t before = atomic_load_explicit(used, memory_order_relaxed);

    do {
        if (before + bytes > limit) {
            return false;
        }
    } while (!atomic_compare_exchange_weak_explicit(used, &before, before + bytes,
                                                    memory_order_relaxed, memory_order_relaxed));
    return true;
}

HAK_INLINE void budget_give(_Atomic size_t *used, size_t bytes)
{
    atomic_fetch_sub_explicit(used, bytes, memory_order_relaxed);
}

HAK_INLINE bool heap_any_node(const struct hak_region *heap)
{
    return heap->exhausted == HAK_EXHAUSTED_ANY_NODE || heap->exhausted == HAK_EXHAUSTED_LIBC;
}

HAK_INLINE unsigned heap_class(const struct hak_region *heap, unit_t unit)
{
    /* Relaxed: whoever holds a live object got it after its unit's byte was written. */
    return atomic_load_explicit(&heap->class_map[unit], memory_order_relaxed) >> CLASS_MAP_SHIFT;
}

HAK_INLINE void heap_set_class(struct hak_region *heap, unit_t first, size_t count, unsigned cls)
{
    uint8_t entry = (uint8_t)(cls << CLASS_MAP_SHIFT);

    for (size_t n = 0; n < count; n++) {
        /* Relaxed: handing out the object, or giving back the units, orders it. */
        atomic_store_explicit(&heap->class_map[first + n], entry, memory_order_relaxed);
    }
}

/* Relaxed, both: as heap_class and heap_set_class. */
HAK_INLINE uint8_t heap_offset(const struct hak_region *heap, unit_t unit)
{
    return atomic_load_explicit(&heap->head_offset[unit], memory_order_relaxed);
}

HAK_INLINE void heap_set_offset(struct hak_region *heap, size_t unit, uint8_t offset)
{
    atomic_store_explicit(&heap->head_offset[unit], offset, memory_order_relaxed);
}

/* The first unit of the slab or large object (up to 255 units) that a unit belongs to. */
HAK_INLINE unit_t heap_slab_head(const struct hak_region *heap, unit_t unit)
{
    return unit - heap_offset(heap, unit);
}

/* The default region's; zero where there is none. */
extern HAK_OWN struct heap_front heap_default_front;
/* The default region, or NULL. */
extern HAK_OWN struct hak_region *_Atomic heap_default;
/* All regions by id; NULL where free. */
extern HAK_OWN struct hak_region *_Atomic heap_all[HAK_REGIONS_MAX];

/* The live region that an address lies in, or NULL. */
struct hak_region *heap_containing(const void *pointer);
/* Every invariant of every room, while nobody is at work; true where all hold. */
bool heap_check(struct hak_region *heap);

#endif
