/* SPDX-License-Identifier: MIT */
/*
 * The public allocation and freeing calls: the two journeys, told once.
 *
 *   hak_malloc(size)                            hak_free(p)
 *     bin of the size   table, or computed        in my node's segment?  the one compare
 *     bin has objects:  pop, done                 |    rejects foreign pointers, NULL and other
 *     | empty                                     |    nodes' objects
 *     cache_empty       older magazines           class = class_map[unit]
 *     | none                                      bin has room: push, done
 *     refill            page box, warm pool,      | full
 *     |                 shared pool               cache_full      a further magazine, or the oldest
 *     exhaust           what others hold back     |               one goes back in a batch
 *     NULL, ENOMEM                                sharedpool_release  one atomic or per bitmap
 *                                                                 word; empty slabs to everybody
 *   over 256 KiB: large_alloc                     (slow: other node -> outbox, large -> large_free,
 *                                                  neither -> misuse_report)
 *
 * The hit paths stand in hit.h. They read the thread's slot, the table from size to bin and one
 * byte of the class map; they call nothing. A thread without a slot, a class map byte without a bin
 * and a bin that is closed are all bins that are empty and full at once.
 *
 * A handle's calls are the same code with another thread-local entry; heap NULL is the default.
 */
#include <errno.h>
#include <string.h>

#include "alloc/cache.h"
#include "alloc/direct.h"
#include "alloc/exhaust.h"
#include "alloc/hardened.h"
#include "alloc/hit.h"
#include "alloc/large.h"
#include "alloc/misuse.h"
#include "alloc/outbox.h"
#include "alloc/refill.h"
#include "alloc/sharedpool.h"
#include "alloc/usable.h"
#include "region/errlog.h"

HAK_INLINE unsigned id_of(const struct hak_region *region)
{
    return region != NULL ? region->id : 0;
}

/* ---- misses of malloc ---- */

static struct hak_region *heap_or_default(struct hak_region *heap)
{
    return heap != NULL ? heap : atomic_load_explicit(&heap_default, memory_order_acquire);
}

/*
 * The region for a slow step, and the calling thread's slot in it. *thread is NULL where there are
 * more threads than slots: such a thread works on the pools directly, by heap->stray (direct.h).
 * NULL with the record and errno where there is no region.
 */
static struct hak_region *slow_step(struct hak_region *heap, size_t size, size_t alignment,
                                    struct thread **thread)
{
    heap = heap_or_default(heap);
    if (heap == NULL) {
        exhaust_refuse(REFUSE_NO_REGION, size, alignment, -1);
        return NULL;
    }
    *thread = thread_current(heap);
    return heap;
}

static HAK_COLD void *malloc_large(struct hak_region *heap, size_t size, size_t alignment,
                                   bool *zeroed)
{
    struct thread *thread;

    heap = slow_step(heap, size, alignment, &thread);
    if (heap == NULL) {
        return NULL;
    }
    if (size > PTRDIFF_MAX) {
        exhaust_refuse(REFUSE_SIZE, size, alignment, -1);
        return NULL;
    }
    return thread != NULL ? large_alloc(thread, size, alignment, zeroed)
                          : direct_stray(heap, size, alignment);
}

/* cls: of a region that is not hardened. */
static HAK_NOINLINE void *malloc_class(struct hak_region *heap, unsigned cls, size_t size,
                                       size_t alignment)
{
    struct thread *thread;
    void *object = NULL;

    heap = slow_step(heap, size, alignment, &thread);
    if (unlikely(heap == NULL)) {
        return NULL;
    }
    if (unlikely(thread == NULL)) {
        return direct_stray(heap, size, alignment);
    }
    if (unlikely(heap->hardened != NULL)) {
        return hardened_malloc_in(thread, size, alignment);
    }
    /* The thread may have been attached or moved just now: its bin may have objects after all. */
    if (bin_pop(&thread->bins[cls], &object)) {
        return object;
    }
    object = cache_empty(thread, cls);
    if (unlikely(object == NULL)) {
        exhaust_asked(size, alignment);
    }
    return object;
}

void *malloc_slow(struct hak_region *heap, size_t size)
{
    return size > CLASS_BYTES_MAX ? malloc_large(heap, size, 0, NULL)
                                  : malloc_class(heap, sizeclass_of(size), size, 0);
}

void *malloc_miss(size_t size, struct hak_region *heap)
{
    struct quarantine *quarantine = thread_self[id_of(heap)].active->quarantine;

    return quarantine != NULL ? hardened_malloc(quarantine, size) : malloc_slow(heap, size);
}

/* ---- misses of free ---- */

static void free_object(struct hak_region *heap, struct thread *thread, unit_t unit, void *pointer)
{
    unsigned cls = heap_class(heap, unit);

    if (cls == CLASS_NONE) {
        misuse_report(heap, pointer, MISUSE_NOT_ALLOCATED);
    } else if (cls == CLASS_LARGE_HEAD) {
        large_free(thread != NULL ? thread : heap->stray, unit, pointer);
    } else if (cls == CLASS_LARGE_BODY) {
        misuse_report(heap, pointer, MISUSE_INTERIOR);
    } else if (unlikely(thread == NULL)) {
        sharedpool_release(heap->stray, cls, &pointer, 1);
    } else if (heap_pool_of(heap, unit) != thread->pool) {
        outbox_put_owner(thread, heap_pool_of(heap, unit)->index, sizeclass_bytes(cls), pointer);
    } else {
        cache_full(thread, cls, pointer);
    }
}

static HAK_NOINLINE void free_any_way(void *pointer, struct hak_region *heap)
{
    int saved = errno;

    if (pointer == NULL) {
        return;
    }
    if (heap != NULL && heap->hardened != NULL) {
        hardened_free(heap, pointer);
        return;
    }
    if (heap == NULL) {
        /* Nothing to free it from: destructors that run after hak_region_fini come here. */
        exhaust_refuse(REFUSE_NO_OWNER, 0, 0, -1);
        errno = saved;
        return;
    }
    unit_t unit = region_unit(&heap->area, pointer);
    if (unit == UNIT_NONE) {
        misuse_report(heap, pointer, misuse_kind_of(heap, pointer));
        return;
    }
    free_object(heap, thread_current_free(heap), unit, pointer);
    errno = saved;
}

void free_slow(void *pointer, struct hak_region *heap)
{
    struct quarantine *quarantine = thread_self[id_of(heap)].active->quarantine;

    if (quarantine != NULL) {
        hardened_free_quick(quarantine, pointer);
    } else {
        free_any_way(pointer, heap_or_default(heap));
    }
}

/* With what the caller says of the object, which only a hardened region looks at. */
static HAK_NOINLINE void free_sized_slow(void *pointer, size_t size, size_t alignment,
                                         struct hak_region *heap)
{
    heap = heap_or_default(heap);
    if (heap != NULL && heap->hardened != NULL) {
        hardened_free_sized(heap, pointer, size, alignment);
    } else {
        free_any_way(pointer, heap);
    }
}

HAK_INLINE void free_sized_any(struct hak_region *heap, unsigned id, void *pointer, size_t size,
                               size_t alignment)
{
    if (unlikely(!free_hit(front_of(heap), id, pointer))) {
        free_sized_slow(pointer, size, alignment, heap);
    }
}

/* ---- the other calls ---- */

static HAK_COLD void *refuse(struct hak_region *heap, enum exhaust_refusal why, size_t size,
                             size_t alignment)
{
    exhaust_refuse(heap_or_default(heap) != NULL ? why : REFUSE_NO_REGION, size, alignment, -1);
    if (why == REFUSE_ALIGNMENT) {
        errno = EINVAL; /* with a region or without */
    }
    return NULL;
}

static void *calloc_any(struct hak_region *heap, unsigned id, size_t count, size_t size)
{
    size_t bytes;
    bool zeroed = false;
    void *object = NULL;

    if (unlikely(__builtin_mul_overflow(count, size, &bytes))) {
        return refuse(heap, REFUSE_SIZE, SIZE_MAX, 0);
    }
    object = bytes > CLASS_BYTES_MAX ? malloc_large(heap, bytes, 0, &zeroed)
                                     : malloc_any(heap, id, bytes);
    if (object != NULL && !zeroed) {
        memset(object, 0, bytes);
    }
    return object;
}

static void *aligned_any(struct hak_region *heap, unsigned id, size_t alignment, size_t size)
{
    void *object = NULL;

    if (unlikely(alignment == 0 || (alignment & (alignment - 1)) != 0 ||
                 alignment > HAK_ALIGNMENT_MAX)) {
        return refuse(heap, REFUSE_ALIGNMENT, size, alignment);
    }
    if (alignment <= HAK_ALIGNMENT_MIN) {
        return malloc_any(heap, id, size);
    }
    if (likely(aligned_hit(id, alignment, size, &object))) {
        return object;
    }
    if (alignment > UNIT_BYTES || size > CLASS_BYTES_MAX - alignment) {
        return malloc_large(heap, size, alignment, NULL);
    }
    return malloc_class(heap, sizeclass_aligned(size, alignment), size, alignment);
}

static bool resized_in_place(struct hak_region *heap, void *pointer, size_t have, size_t size)
{
    unit_t unit = region_unit(&heap->area, pointer);

    if (heap->hardened != NULL) {
        return hardened_resize(heap, pointer, size, false);
    }
    if (heap_class(heap, unit) != CLASS_LARGE_HEAD) {
        return size <= have && (size >= have / 2 || sizeclass_of(size) == heap_class(heap, unit));
    }
    if (size <= CLASS_BYTES_MAX / 2) {
        return size <= have && size >= have / 2;
    }
    if (size <= have && have - size <= max_size(UNIT_BYTES - 1, have / 3)) {
        return true; /* no unit to give back, or room that it got for growing (large_grow) */
    }
    struct thread *thread = thread_current(heap);
    return large_resize(thread != NULL ? thread : heap->stray, unit, size);
}

/* For an object that has to become a larger one than any class. *moved: it has been, with what
 * was in it. */
static void *grow_elsewhere(struct hak_region *heap, const void *pointer, size_t size, bool *moved)
{
    struct thread *thread = thread_current(heap);
    unit_t unit = region_unit(&heap->area, pointer);
    void *object = thread != NULL ? large_grow(thread, size) : NULL;

    if (object != NULL && heap->hardened != NULL) {
        (void)hardened_resize(heap, object, size, true); /* the rest is room for growing */
    }
    if (object == NULL && thread != NULL && heap->hardened == NULL &&
        heap_class(heap, unit) == CLASS_LARGE_HEAD) {
        object = large_grow_down(thread, unit, size);
        *moved = object != NULL;
    }
    return object != NULL ? object : malloc_large(heap, size, 0, NULL);
}

static void *realloc_any(struct hak_region *heap, unsigned id, void *pointer, size_t size)
{
    struct hak_region *at = heap_or_default(heap);
    size_t have;

    if (pointer == NULL) {
        return malloc_any(heap, id, size);
    }
    if (size == 0) {
        free_any(heap, id, pointer);
        return NULL;
    }
    if (at == NULL || size > PTRDIFF_MAX) {
        return malloc_large(heap, size, 0, NULL);
    }
    have = usable_live(at, pointer);
    if (unlikely(have == 0)) {
        misuse_report(at, pointer, misuse_kind_of(at, pointer));
        errno = EINVAL;
        return NULL;
    }
    if (resized_in_place(at, pointer, have, size)) {
        return pointer;
    }
    int saved = errno;
    bool done = false;
    bool grows = size > CLASS_BYTES_MAX && size > have;
    void *moved = grows ? grow_elsewhere(at, pointer, size, &done) : malloc_any(heap, id, size);
    if (moved == NULL) {
        /* Too large is better than nothing. */
        if (size <= have && at->hardened != NULL) {
            (void)hardened_resize(at, pointer, size, true);
        }
        errno = size <= have ? saved : errno;
        return size <= have ? pointer : NULL;
    }
    if (done) {
        return moved;
    }
    memcpy(moved, pointer, min_size(have, size));
    free_any(heap, id, pointer);
    return moved;
}

/* Pointers from one array to another; the compiler makes each group of eight four vector moves. */
HAK_INLINE void copy_pointers(void **to, void *const *from, size_t count)
{
    for (; count >= 8; count -= 8, to += 8, from += 8) {
        __builtin_memcpy(to, from, 8 * sizeof(void *));
    }
    while (count-- > 0) {
        *to++ = *from++;
    }
}

static HAK_NOINLINE size_t malloc_bulk_large(struct hak_region *heap, size_t size, size_t count,
                                             void **out)
{
    size_t got = 0;

    while (got < count && (out[got] = malloc_large(heap, size, 0, NULL)) != NULL) {
        got++;
    }
    return got;
}

/* What the bin does not have at once. */
static HAK_NOINLINE size_t malloc_bulk_more(struct hak_region *heap, unsigned id, size_t size,
                                            size_t count, void **out)
{
    size_t got = 0;

    if (size > CLASS_BYTES_MAX) {
        return malloc_bulk_large(heap, size, count, out);
    }
    unsigned cls = sizeclass_of(size);
    while (got < count) {
        struct bin *bin = &thread_self[id].active->bins[cls];
        size_t held = min_size((size_t)(bin->top - bin->low), count - got);
        if (held != 0) {
            bin->top -= held;
            copy_pointers(out + got, bin->top, held);
            got += held;
            continue;
        }
        out[got] = malloc_class(heap, cls, size, 0);
        if (out[got] == NULL) {
            break;
        }
        got++;
    }
    return got;
}

HAK_INLINE size_t malloc_bulk_any(struct hak_region *heap, unsigned id, size_t size, size_t count,
                                  void **out)
{
    if (likely(size <= CLASS_TABLE_BYTES_MAX)) {
        struct bin *bin = bin_of_small(thread_self[id].active, size);
        /* For none, no pointer is worked out of a bin that has no memory. */
        if (likely(count - 1 < (size_t)(bin->top - bin->low))) {
            bin->top -= count;
            copy_pointers(out, bin->top, count);
            return count;
        }
    }
    return malloc_bulk_more(heap, id, size, count, out);
}

/* In the home segment and of that class map entry? */
HAK_INLINE bool alike(const struct heap_front *front, const struct thread *thread,
                      const void *pointer, uint8_t entry)
{
    return likely(is_home(thread, pointer)) && likely(entry_of(front, pointer) == entry);
}

/*
 * Pushes as many of the pointers as are of the first one's class, in the home segment, and find
 * room in its bin. By fours, moved as vectors: single stores could not be forwarded to the wide
 * loads of a bulk allocation that follows.
 */
HAK_INLINE size_t free_run(const struct heap_front *front, struct thread *thread,
                           void *const *pointers, size_t count)
{
    void *const *from = pointers;

    if (unlikely(!is_home(thread, *from))) {
        return 0;
    }
    const uint8_t entry = entry_of(front, *from);
    struct bin *bin = bin_of_entry(thread, entry);
    void **top = bin->top;
    size_t room = min_size(count, (size_t)(bin->limit - top));
    for (; room >= 4; room -= 4, from += 4, top += 4) {
        if (!alike(front, thread, from[0], entry) || !alike(front, thread, from[1], entry) ||
            !alike(front, thread, from[2], entry) || !alike(front, thread, from[3], entry)) {
            break;
        }
        __builtin_memcpy(top, from, 4 * sizeof(void *));
    }
    for (; room > 0 && alike(front, thread, *from, entry); room--) {
        *top++ = *from++;
    }
    bin->top = top;
    return (size_t)(from - pointers);
}

HAK_INLINE void free_bulk_any(struct hak_region *heap, unsigned id, void *const *pointers,
                              size_t count)
{
    size_t done = 0;

    while (done < count) {
        size_t run = free_run(front_of(heap), thread_self[id].active, pointers + done,
                              count - done);
        done += run;
        if (unlikely(run == 0)) {
            free_slow(pointers[done++], heap);
        }
    }
}

static void *on_node_any(struct hak_region *heap, size_t size, int node)
{
    struct thread *thread;

    heap = slow_step(heap, size, 0, &thread);
    return heap != NULL ? direct_on_node(thread != NULL ? thread : heap->stray, size, node) : NULL;
}

/* ---- the default region ---- */

HAK_HOT void *hak_malloc(size_t size)
{
    return malloc_any(NULL, 0, size);
}

HAK_HOT void hak_free(void *pointer)
{
    free_any(NULL, 0, pointer);
}

void *hak_calloc(size_t count, size_t size)
{
    return calloc_any(NULL, 0, count, size);
}

void *hak_realloc(void *pointer, size_t size)
{
    return realloc_any(NULL, 0, pointer, size);
}

void *hak_aligned_alloc(size_t alignment, size_t size)
{
    return aligned_any(NULL, 0, alignment, size);
}

HAK_HOT void hak_free_sized(void *pointer, size_t size)
{
    free_sized_any(NULL, 0, pointer, size, 0);
}

HAK_HOT void hak_free_aligned_sized(void *pointer, size_t alignment, size_t size)
{
    free_sized_any(NULL, 0, pointer, size, alignment);
}

size_t hak_usable_size(const void *pointer)
{
    struct hak_region *heap = heap_or_default(NULL);

    return heap != NULL ? usable_quick(heap, pointer) : 0;
}

HAK_HOT size_t hak_malloc_bulk(size_t size, size_t count, void **out)
{
    return malloc_bulk_any(NULL, 0, size, count, out);
}

HAK_HOT void hak_free_bulk(void *const *pointers, size_t count)
{
    free_bulk_any(NULL, 0, pointers, count);
}

void *hak_malloc_on_node(size_t size, int node)
{
    return on_node_any(NULL, size, node);
}

/* ---- a handle ---- */

HAK_HOT void *hak_region_malloc(hak_region *region, size_t size)
{
    return malloc_any(region, id_of(region), size);
}

HAK_HOT void hak_region_free(hak_region *region, void *pointer)
{
    free_any(region, id_of(region), pointer);
}

void *hak_region_calloc(hak_region *region, size_t count, size_t size)
{
    return calloc_any(region, id_of(region), count, size);
}

void *hak_region_realloc(hak_region *region, void *pointer, size_t size)
{
    return realloc_any(region, id_of(region), pointer, size);
}

void *hak_region_aligned_alloc(hak_region *region, size_t alignment, size_t size)
{
    return aligned_any(region, id_of(region), alignment, size);
}

void hak_region_free_sized(hak_region *region, void *pointer, size_t size)
{
    free_sized_any(region, id_of(region), pointer, size, 0);
}

void hak_region_free_aligned_sized(hak_region *region, void *pointer, size_t alignment, size_t size)
{
    free_sized_any(region, id_of(region), pointer, size, alignment);
}

size_t hak_region_usable_size(hak_region *region, const void *pointer)
{
    struct hak_region *heap = heap_or_default(region);

    return heap != NULL ? usable_quick(heap, pointer) : 0;
}

size_t hak_region_malloc_bulk(hak_region *region, size_t size, size_t count, void **out)
{
    return malloc_bulk_any(region, id_of(region), size, count, out);
}

void hak_region_free_bulk(hak_region *region, void *const *pointers, size_t count)
{
    free_bulk_any(region, id_of(region), pointers, count);
}

void *hak_region_malloc_on_node(hak_region *region, size_t size, int node)
{
    return on_node_any(region, size, node);
}
