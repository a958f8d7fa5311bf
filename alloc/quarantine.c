/* SPDX-License-Identifier: MIT */
/* A hardened region's thread cache; see quarantine.h. */
#include "alloc/quarantine.h"

#include "alloc/cache.h"
#include "alloc/hardened.h"
#include "alloc/outbox.h"
#include "alloc/refill.h"
#include "alloc/sharedpool.h"

/* A class has one part in so many of its thread's share of the caches' budget: hardly any program
 * uses all classes at once. */
#define SHARE_CLASSES 32
/* What each has however much others hold. */
#define FLOOR_OBJECTS 8
#define FLOOR_BYTES ((size_t)8 << 10)

/* Held and stock of a class, as long as the budget of caches allows. */
static HAK_COLD bool open(struct thread *thread, unsigned cls)
{
    size_t both = 2 * sizeclass_bytes(cls);
    size_t share = cache_share(thread->pool) / SHARE_CLASSES / both;
    size_t objects = min_size(QUARANTINE_OBJECTS, share);
    size_t floor = max_size(1, min_size(FLOOR_OBJECTS, FLOOR_BYTES / both));

    while (objects > floor && !cache_reserve(thread, objects * both)) {
        objects /= 2;
    }
    if (objects <= floor) {
        objects = cache_reserve_floor(thread, floor * both) ? floor : 0;
    }
    thread->quarantine->counts[cls].capacity = (uint8_t)objects;
    return objects > 0;
}

static void send_back(struct thread *thread, unsigned cls, void **objects, unsigned have)
{
    unsigned count = 0;

    for (unsigned n = 0; n < have; n++) {
        objects[count] = objects[n];
        count += hardened_let_go(thread->heap, objects[n], cls);
    }
    if (count > 0) {
        sharedpool_release(thread, cls, objects, count);
        count_add(&thread->class_counts[cls].cache_flushes, 1);
        count_add(&thread->class_counts[cls].flushed_objects, count);
    }
}

/* Every order alike (Fisher and Yates). */
static void shuffle(struct quarantine *quarantine, void **objects, unsigned count)
{
    for (unsigned left = count; left > 1; left--) {
        size_t chosen = quarantine_below(quarantine_random(quarantine), left);
        void *object = objects[chosen];
        objects[chosen] = objects[left - 1];
        objects[left - 1] = object;
    }
}

/* Without a stock: one of a few, chosen at random; the others go back. */
static void *take_among(struct thread *thread, unsigned cls)
{
    void *objects[FLOOR_OBJECTS];
    unsigned got = refill(thread, cls, objects, FLOOR_OBJECTS);

    if (got == 0) {
        return NULL;
    }
    shuffle(thread->quarantine, objects, got);
    send_back(thread, cls, objects, got - 1);
    return objects[got - 1];
}

/* The stock is empty. */
static HAK_NOINLINE void *restock(struct thread *thread, unsigned cls)
{
    struct quarantine *quarantine = thread->quarantine;
    struct quarantine_counts *counts = &quarantine->counts[cls];
    void **stock = quarantine->arrays[cls].stock;
    void *object;

    if (counts->capacity == 0 && !open(thread, cls)) {
        object = take_among(thread, cls);
        return object != NULL ? object : refill_exhausted(thread, cls);
    }
    unsigned got = refill(thread, cls, stock, counts->capacity);
    if (got == 0) {
        return refill_exhausted(thread, cls);
    }
    shuffle(quarantine, stock, got);
    counts->stock = (uint8_t)(got - 1);
    return stock[got - 1];
}

void *quarantine_get(struct thread *thread, unsigned cls)
{
    struct quarantine_counts *counts = &thread->quarantine->counts[cls];

    return likely(counts->stock > 0) ? thread->quarantine->arrays[cls].stock[--counts->stock]
                                     : restock(thread, cls);
}

/* The half of a full stock that has been in it for longer goes back to the slabs. */
static void thin_out(struct thread *thread, unsigned cls)
{
    struct quarantine_counts *counts = &thread->quarantine->counts[cls];
    void **stock = thread->quarantine->arrays[cls].stock;
    unsigned half = (counts->stock + 1U) / 2;
    void *old[QUARANTINE_OBJECTS];

    __builtin_memcpy(old, stock, half * sizeof(void *));
    counts->stock = (uint8_t)(counts->stock - half);
    __builtin_memmove(stock, stock + half, counts->stock * sizeof(void *));
    send_back(thread, cls, old, half);
}

/* Free of the quarantine. The stock is for this node's: outbox.c sends the others home. */
static void let_go(struct thread *thread, unsigned cls, uint64_t random, void *object)
{
    struct hak_region *heap = thread->heap;
    struct quarantine_counts *counts = &thread->quarantine->counts[cls];
    struct pool *pool = heap_pool_of(heap, region_unit(&heap->area, object));

    if (pool != thread->pool) {
        if (hardened_let_go(heap, object, cls)) {
            outbox_put_owner(thread, pool->index, sizeclass_bytes(cls), object);
        }
        return;
    }
    if (counts->stock == counts->capacity) {
        thin_out(thread, cls);
    }
    quarantine_stock(counts, thread->quarantine->arrays[cls].stock, random, object);
}

void quarantine_put(struct thread *thread, unsigned cls, void *object)
{
    struct quarantine *quarantine = thread->quarantine;
    struct quarantine_counts *counts = &quarantine->counts[cls];
    void **held = quarantine->arrays[cls].held;

    if (counts->capacity == 0 && !open(thread, cls)) {
        sharedpool_release(thread, cls, &object, 1);
        return;
    }
    if (counts->held < counts->capacity) {
        held[counts->held++] = object;
        return;
    }
    uint64_t random = quarantine_random(quarantine);
    void **place = &held[quarantine_below(random << 16, counts->capacity)];
    void *leaves = *place;
    *place = object;
    let_go(thread, cls, random, leaves);
}

bool quarantine_shed(struct thread *thread, unsigned cls)
{
    struct quarantine_counts *counts = &thread->quarantine->counts[cls];
    struct quarantine_arrays *arrays = &thread->quarantine->arrays[cls];
    bool any = counts->stock + counts->held > 0;

    send_back(thread, cls, arrays->stock, counts->stock);
    send_back(thread, cls, arrays->held, counts->held);
    cache_unreserve(thread, (size_t)2 * counts->capacity * sizeclass_bytes(cls));
    *counts = (struct quarantine_counts){0};
    return any;
}

void quarantine_init(struct thread *thread)
{
    struct hardened *hardened = thread->heap->hardened;

    /* Relaxed: only different each time. */
    uint64_t which = atomic_fetch_add_explicit(&hardened->seeds_given, 1, memory_order_relaxed);

    thread->quarantine->heap = thread->heap;
    thread->quarantine->hardened = hardened;
    thread->quarantine->random = hardened->seed + which * 0x9e3779b97f4a7c15U;
    thread->quarantine->step = (hardened->secrets[0] + which * 2) | 1; /* odd: a full period */
    __builtin_memset(thread->quarantine->counts, 0, sizeof(thread->quarantine->counts));
}

/* Objects of the class, that no slab has and nobody holds. */
static bool free_objects(struct hak_region *heap, unsigned cls, void *const *objects,
                         unsigned count)
{
    for (unsigned n = 0; n < count; n++) {
        unit_t unit = region_unit(&heap->area, objects[n]);
        if (unit == UNIT_NONE || heap_class(heap, unit) != cls ||
            hardened_size(heap, objects[n]) != 0) {
            return false;
        }
    }
    return true;
}

bool quarantine_check(const struct thread *thread)
{
    for (unsigned cls = 1; cls <= CLASS_COUNT; cls++) {
        const struct quarantine_counts *counts = &thread->quarantine->counts[cls];
        const struct quarantine_arrays *arrays = &thread->quarantine->arrays[cls];
        if (counts->stock > counts->capacity || counts->held > counts->capacity ||
            counts->capacity > QUARANTINE_OBJECTS ||
            !free_objects(thread->heap, cls, arrays->stock, counts->stock) ||
            !free_objects(thread->heap, cls, arrays->held, counts->held)) {
            return false;
        }
    }
    return true;
}
