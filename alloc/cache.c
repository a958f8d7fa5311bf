/* SPDX-License-Identifier: MIT */
/* The thread cache's misses; see cache.h. */
#include "alloc/cache.h"

#include "alloc/magazine.h"
#include "alloc/refill.h"
#include "alloc/sharedpool.h"

/* A class's cache holds at most so many objects and bytes, budget permitting. */
#define CACHE_OBJECTS_MAX 4096
#define CACHE_BYTES_MAX ((size_t)1 << 20)
#define INLINE_BYTES ((size_t)64 << 10)
/* What a bin has however much others hold; all bins' together are 40 KiB a thread. */
#define FLOOR_BYTES ((size_t)2 << 10)
/* Threads among which the node's budget is shared at the least. */
#define SHARES_MIN 4
#define REFILL_FIRST 4
#define DIRECT_FREES 8
#define FLUSHES_ALONE 8

static bool inline_now(const struct bin *bin)
{
    return bin->magazine == MAGAZINE_NONE;
}

/* Of the budget, what goes beyond floors; the rest is for the floors of threads that come later. */
static size_t common_limit(const struct pool *pool)
{
    return pool->cached_bytes_limit / 4 * 3;
}

/* What one of the node's threads may hold of that: an equal share, as if there were a few at
 * least. */
size_t cache_share(const struct pool *pool)
{
    /* Relaxed: a figure. */
    uint32_t threads = atomic_load_explicit(&pool->slots.taken, memory_order_relaxed);

    return common_limit(pool) / (threads < SHARES_MIN ? SHARES_MIN : threads);
}

static bool reserve_up_to(struct thread *thread, size_t limit, size_t bytes)
{
    if (!budget_take(&thread->pool->cached_bytes, limit, bytes)) {
        return false;
    }
    thread->cached_bytes += bytes;
    return true;
}

/* Capacity is promised before it is used; false where the thread, or the node's caches together,
 * may not hold more. */
bool cache_reserve(struct thread *thread, size_t bytes)
{
    return thread->cached_bytes + bytes <= cache_share(thread->pool) &&
           reserve_up_to(thread, common_limit(thread->pool), bytes);
}

bool cache_reserve_floor(struct thread *thread, size_t bytes)
{
    return reserve_up_to(thread, thread->pool->cached_bytes_limit, bytes);
}

void cache_unreserve(struct thread *thread, size_t bytes)
{
    thread->cached_bytes -= bytes;
    budget_give(&thread->pool->cached_bytes, bytes);
}

static size_t magazine_bytes(const struct thread *thread, unsigned cls)
{
    return thread->caches[cls].magazine_objects * sizeclass_bytes(cls);
}

/* A thread keeps the last magazine that it gave up, with its promise of capacity: going up and down
 * over a magazine's edge then touches nothing that is shared. */
static bool resize_spare(struct thread *thread, size_t bytes)
{
    size_t have = thread->spare_bytes;

    if (bytes > have && !cache_reserve(thread, bytes - have)) {
        return false;
    }
    if (bytes < have) {
        cache_unreserve(thread, have - bytes);
    }
    thread->spare_bytes = bytes;
    return true;
}

static uint32_t magazine_get(struct thread *thread, unsigned cls)
{
    size_t bytes = magazine_bytes(thread, cls);
    uint32_t magazine = thread->spare_magazine;

    if (magazine != MAGAZINE_NONE) {
        if (!resize_spare(thread, bytes)) {
            return MAGAZINE_NONE;
        }
        thread->spare_magazine = MAGAZINE_NONE;
        thread->spare_bytes = 0;
        return magazine;
    }
    if (!cache_reserve(thread, bytes)) {
        return MAGAZINE_NONE;
    }
    magazine = magazine_claim(thread->pool, thread->slot * 64);
    if (magazine == MAGAZINE_NONE) {
        cache_unreserve(thread, bytes);
    }
    return magazine;
}

static void magazine_put(struct thread *thread, unsigned cls, uint32_t magazine)
{
    if (thread->spare_magazine == MAGAZINE_NONE) {
        thread->spare_magazine = magazine;
        thread->spare_bytes = magazine_bytes(thread, cls);
    } else {
        cache_unreserve(thread, magazine_bytes(thread, cls));
        magazine_give_back(thread->pool, magazine);
    }
}

/* Makes a magazine the current one, with so many objects in it. */
static void use_magazine(struct thread *thread, unsigned cls, uint32_t magazine, unsigned objects)
{
    struct bin *bin = &thread->bins[cls];

    bin->magazine = magazine;
    bin->low = magazine_slots(thread->pool, magazine);
    bin->top = bin->low + objects;
    bin->limit = bin->low + thread->caches[cls].magazine_objects;
}

static void use_inline(struct thread *thread, unsigned cls, unsigned objects)
{
    struct bin *bin = &thread->bins[cls];

    bin->magazine = MAGAZINE_NONE;
    bin->low = thread->caches[cls].slots;
    bin->top = bin->low + objects;
    bin->limit = bin->low + thread->caches[cls].inline_objects;
}

static void open_bin(struct thread *thread, unsigned cls)
{
    struct class_cache *cache = &thread->caches[cls];
    size_t bytes = sizeclass_bytes(cls);
    size_t objects = INLINE_BYTES / bytes;

    objects = objects < 1 ? 1 : objects > CACHE_INLINE_OBJECTS ? CACHE_INLINE_OBJECTS : objects;
    size_t floor = min_size(objects, FLOOR_BYTES / bytes);
    while (objects > floor && !cache_reserve(thread, objects * bytes)) {
        objects /= 2;
    }
    if (objects <= floor) {
        objects = floor;
        if (floor == 0 || !cache_reserve_floor(thread, floor * bytes)) {
            return; /* this bin stays closed, and works without */
        }
    }
    cache->inline_objects = (uint8_t)objects;
    cache->open = 1;
    cache->refill_next = REFILL_FIRST;
    cache->refills = 0;
    cache->flushes_alone = 0;
    use_inline(thread, cls, 0);
}

static void send_back(struct thread *thread, unsigned cls, void *const *pointers, unsigned count)
{
    sharedpool_release(thread, cls, pointers, count);
    count_add(&thread->class_counts[cls].cache_flushes, 1);
    count_add(&thread->class_counts[cls].flushed_objects, count);
}

/* Chain: the current magazine is full and goes below; another takes its place. */
static void chain_current(struct thread *thread, unsigned cls)
{
    struct class_cache *cache = &thread->caches[cls];
    struct bin *bin = &thread->bins[cls];
    struct magazine_link *link = magazine_link(thread->pool, bin->magazine);

    link->older = cache->newest;
    link->newer = MAGAZINE_NONE;
    if (cache->newest != MAGAZINE_NONE) {
        magazine_link(thread->pool, cache->newest)->newer = bin->magazine;
    } else {
        cache->oldest = bin->magazine;
    }
    cache->newest = bin->magazine;
    bin->depth++;
}

static uint32_t unchain_oldest(struct thread *thread, unsigned cls)
{
    struct class_cache *cache = &thread->caches[cls];
    uint32_t magazine = cache->oldest;
    uint32_t newer = magazine_link(thread->pool, magazine)->newer;

    cache->oldest = newer;
    if (newer == MAGAZINE_NONE) {
        cache->newest = MAGAZINE_NONE;
    } else {
        magazine_link(thread->pool, newer)->older = MAGAZINE_NONE;
    }
    thread->bins[cls].depth--;
    return magazine;
}

static uint32_t unchain_newest(struct thread *thread, unsigned cls)
{
    struct class_cache *cache = &thread->caches[cls];
    uint32_t magazine = cache->newest;
    uint32_t older = magazine_link(thread->pool, magazine)->older;

    cache->newest = older;
    if (older == MAGAZINE_NONE) {
        cache->oldest = MAGAZINE_NONE;
    } else {
        magazine_link(thread->pool, older)->newer = MAGAZINE_NONE;
    }
    thread->bins[cls].depth--;
    return magazine;
}

/* The stack was too short, or is longer than it need be. */
static void adapt(struct thread *thread, unsigned cls)
{
    struct class_cache *cache = &thread->caches[cls];
    struct bin *bin = &thread->bins[cls];

    if (cache->refills > 0) {
        size_t most = min_size(CACHE_OBJECTS_MAX, CACHE_BYTES_MAX / sizeclass_bytes(cls));
        if ((bin->depth_max + 2U) * cache->magazine_objects <= most) {
            bin->depth_max++;
        }
        cache->refills--;
        cache->flushes_alone = 0;
    } else if (++cache->flushes_alone >= FLUSHES_ALONE) {
        cache->flushes_alone = 0;
        if (bin->depth_max > 1) {
            bin->depth_max--;
        }
    }
}

/* Half of the current array, the older half, goes back. */
static void flush_half(struct thread *thread, unsigned cls)
{
    struct bin *bin = &thread->bins[cls];
    unsigned held = (unsigned)(bin->top - bin->low);
    unsigned half = (held + 1) / 2;
    void *old[MAGAZINE_OBJECTS];

    __builtin_memcpy(old, bin->low, half * sizeof(void *));
    __builtin_memmove(bin->low, bin->low + half, (held - half) * sizeof(void *));
    bin->top -= half;
    send_back(thread, cls, old, half);
}

static void flush_oldest(struct thread *thread, unsigned cls)
{
    uint32_t magazine = unchain_oldest(thread, cls);
    struct class_cache *cache = &thread->caches[cls];
    struct bin *bin = &thread->bins[cls];

    chain_current(thread, cls);
    send_back(thread, cls, magazine_slots(thread->pool, magazine), cache->magazine_objects);
    if (bin->depth > bin->depth_max) {
        /* It has been shortened: one more goes. */
        uint32_t more = unchain_oldest(thread, cls);
        send_back(thread, cls, magazine_slots(thread->pool, more), cache->magazine_objects);
        magazine_put(thread, cls, more);
    }
    use_magazine(thread, cls, magazine, 0);
}

static void make_room(struct thread *thread, unsigned cls)
{
    struct bin *bin = &thread->bins[cls];
    struct class_cache *cache = &thread->caches[cls];
    uint32_t magazine = MAGAZINE_NONE;

    if (inline_now(bin)) {
        if (cache->magazine_objects > cache->inline_objects) {
            magazine = magazine_get(thread, cls);
        }
        if (magazine == MAGAZINE_NONE) {
            flush_half(thread, cls);
            return;
        }
        unsigned held = (unsigned)(bin->top - bin->low);
        __builtin_memcpy(magazine_slots(thread->pool, magazine), bin->low, held * sizeof(void *));
        use_magazine(thread, cls, magazine, held);
        return;
    }
    if (bin->depth < bin->depth_max) {
        magazine = magazine_get(thread, cls);
    }
    if (magazine != MAGAZINE_NONE) {
        chain_current(thread, cls);
        use_magazine(thread, cls, magazine, 0);
        return;
    }
    adapt(thread, cls);
    if (bin->depth > 0 && thread->cached_bytes > cache_share(thread->pool)) {
        /* More threads have come: one magazine less for this one. */
        bin->depth_max = (uint16_t)(bin->depth - 1);
    }
    if (bin->depth > 0) {
        flush_oldest(thread, cls);
    } else {
        flush_half(thread, cls);
    }
}

void cache_full(struct thread *thread, unsigned cls, void *pointer)
{
    struct bin *bin = &thread->bins[cls];
    struct class_cache *cache = &thread->caches[cls];

    if (!cache->open) {
        if (++cache->direct_frees >= DIRECT_FREES && (thread->heap->layers & LAYER_CACHE) != 0) {
            cache->direct_frees = 0;
            open_bin(thread, cls);
        }
        if (!cache->open) {
            sharedpool_release(thread, cls, &pointer, 1);
            return;
        }
    }
    if (bin->top == bin->limit) {
        make_room(thread, cls);
    }
    *bin->top++ = pointer;
}

/* How many the next refill asks for: few at first, so that a class used once costs little. */
static unsigned refill_size(struct thread *thread, unsigned cls)
{
    struct class_cache *cache = &thread->caches[cls];
    struct bin *bin = &thread->bins[cls];
    unsigned want = cache->refill_next;

    if (inline_now(bin) && want > cache->inline_objects &&
        cache->magazine_objects > cache->inline_objects) {
        uint32_t magazine = magazine_get(thread, cls);
        if (magazine != MAGAZINE_NONE) {
            use_magazine(thread, cls, magazine, 0);
        }
    }
    unsigned room = (unsigned)(bin->limit - bin->low);
    if (want < room) {
        cache->refill_next = (uint8_t)(want * 2 < MAGAZINE_OBJECTS ? want * 2 : MAGAZINE_OBJECTS);
        return want;
    }
    cache->refill_next = (uint8_t)(room < MAGAZINE_OBJECTS / 2 ? room + 1 : MAGAZINE_OBJECTS);
    return room;
}

/* From the chain, without asking below: true where the bin has objects now. */
static bool fall_back(struct thread *thread, unsigned cls)
{
    struct bin *bin = &thread->bins[cls];

    if (bin->depth == 0) {
        return false;
    }
    magazine_put(thread, cls, bin->magazine);
    uint32_t magazine = unchain_newest(thread, cls);
    use_magazine(thread, cls, magazine, thread->caches[cls].magazine_objects);
    return true;
}

void *cache_empty(struct thread *thread, unsigned cls)
{
    struct class_cache *cache = &thread->caches[cls];
    struct bin *bin = &thread->bins[cls];
    void *object;

    if (fall_back(thread, cls)) {
        return *--bin->top;
    }
    if (!cache->open && (thread->heap->layers & LAYER_CACHE) != 0) {
        open_bin(thread, cls);
    }
    if (cache->open) {
        unsigned want = refill_size(thread, cls);
        unsigned got = refill(thread, cls, bin->low, want);
        if (likely(got > 0)) {
            cache->refills = (uint8_t)(cache->refills + (cache->refills < UINT8_MAX));
            bin->top = bin->low + got - 1;
            return *bin->top;
        }
    } else if (refill(thread, cls, &object, 1) == 1) {
        return object;
    }
    return refill_exhausted(thread, cls);
}

static void close_bin(struct thread *thread, unsigned cls)
{
    struct class_cache *cache = &thread->caches[cls];
    struct bin *bin = &thread->bins[cls];

    cache_unreserve(thread, cache->inline_objects * sizeclass_bytes(cls));
    cache->open = 0;
    bin->top = bin->low = bin->limit = NULL;
}

bool cache_shed(struct thread *thread, unsigned cls)
{
    struct class_cache *cache = &thread->caches[cls];
    struct bin *bin = &thread->bins[cls];

    if (!cache->open) {
        return false;
    }
    if (bin->depth > 0) {
        uint32_t magazine = unchain_oldest(thread, cls);
        send_back(thread, cls, magazine_slots(thread->pool, magazine), cache->magazine_objects);
        magazine_put(thread, cls, magazine);
        return true;
    }
    unsigned held = (unsigned)(bin->top - bin->low);
    if (held > 0) {
        send_back(thread, cls, bin->low, held);
    }
    if (!inline_now(bin)) {
        magazine_put(thread, cls, bin->magazine);
        bin->magazine = MAGAZINE_NONE;
    }
    close_bin(thread, cls);
    return held > 0;
}

void cache_give_spare(struct thread *thread)
{
    if (thread->spare_magazine != MAGAZINE_NONE) {
        (void)resize_spare(thread, 0);
        magazine_give_back(thread->pool, thread->spare_magazine);
        thread->spare_magazine = MAGAZINE_NONE;
    }
}

void cache_drain(struct thread *thread)
{
    for (unsigned cls = 1; cls <= CLASS_COUNT; cls++) {
        while (cache_shed(thread, cls)) {
        }
    }
    cache_give_spare(thread);
}

void cache_init(struct thread *thread)
{
    thread->spare_magazine = MAGAZINE_NONE;
    thread->spare_bytes = 0;
    thread->cached_bytes = 0;
    for (unsigned cls = 1; cls <= CLASS_COUNT; cls++) {
        struct class_cache *cache = &thread->caches[cls];
        size_t objects = thread->pool->batch_bytes / sizeclass_bytes(cls);

        cache->newest = cache->oldest = MAGAZINE_NONE;
        cache->magazine_objects = (uint16_t)(objects < 2                  ? 2
                                             : objects > MAGAZINE_OBJECTS ? MAGAZINE_OBJECTS
                                                                          : objects);
        cache->open = 0;
        cache->direct_frees = 0;
        thread->bins[cls] = (struct bin){.magazine = MAGAZINE_NONE, .depth = 0, .depth_max = 1};
    }
}

bool cache_check(const struct thread *thread)
{
    for (unsigned cls = 1; cls <= CLASS_COUNT; cls++) {
        const struct class_cache *cache = &thread->caches[cls];
        const struct bin *bin = &thread->bins[cls];
        unsigned depth = 0;
        uint32_t older = MAGAZINE_NONE;

        if (bin->top < bin->low || bin->top > bin->limit ||
            (!cache->open && bin->top != bin->limit)) {
            return false;
        }
        for (uint32_t at = cache->oldest; at != MAGAZINE_NONE; depth++) {
            const struct magazine_link *link = magazine_link(thread->pool, at);
            if (link->older != older || depth > bin->depth ||
                bitset_test(&thread->pool->magazines.free, at)) {
                return false;
            }
            older = at;
            at = link->newer;
        }
        if (depth != bin->depth || older != cache->newest) {
            return false;
        }
    }
    return true;
}
