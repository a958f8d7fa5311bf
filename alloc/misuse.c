/* SPDX-License-Identifier: MIT */
/* Putting a bad free into words, and the policy; see misuse.h. */
#include "alloc/misuse.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "alloc/hardened.h"
#include "region/errlog.h"

static const char *kind_words(enum misuse_kind kind)
{
    switch (kind) {
    case MISUSE_FOREIGN:
        return "not a pointer into the region";
    case MISUSE_OTHER_REGION:
        return "an object of another region; free it through that region's handle";
    case MISUSE_NOT_ALLOCATED:
        return "inside the region, where nothing is allocated, or no longer";
    case MISUSE_INTERIOR:
        return "not the start of an object";
    case MISUSE_FREED_TWICE:
        return "freed twice, or used after it was freed";
    case MISUSE_WRONG_SIZE:
        return "freed with another size or alignment than was asked for";
    case MISUSE_OVERFLOW:
        return "something was written past the end of this object";
    case MISUSE_WRITTEN_FREED:
        return "something was written to this object after it was freed";
    }
    return "misuse";
}

static const char *state_words(enum slab_state state)
{
    switch (state) {
    case SLAB_FREE:
        return "free";
    case SLAB_OWNED:
        return "owned";
    case SLAB_FULL:
        return "full";
    case SLAB_PARTIAL:
        return "partial";
    case SLAB_LARGE:
        return "large";
    case SLAB_HELD:
        return "held";
    }
    return "unknown";
}

/* Where the pointer leads, for the message. */
static void describe(struct hak_region *heap, const void *pointer, struct hak_error *error)
{
    unit_t unit = region_unit(&heap->area, pointer);
    size_t room = sizeof(error->message);

    if (unit == UNIT_NONE) {
        errlog_append(error->message, room, " [%p, %p)", (void *)heap->area.base,
                      (void *)(heap->area.base + heap->area.bytes));
        return;
    }
    unsigned cls = heap_class(heap, unit);
    unit_t head = heap_slab_head(heap, unit);
    size_t offset = (size_t)((const char *)pointer - (char *)region_address(&heap->area, head));
    uint64_t word = atomic_load_explicit(&heap->slabs[head].head, memory_order_relaxed);

    error->node = region_segment_of(&heap->area, unit)->node;
    errlog_append(error->message, room, "; SuperSlab %u, node %d", unit / SUPERSLAB_UNITS,
                  error->node);
    if (cls == CLASS_NONE) {
        errlog_append(error->message, room, ", unit %u: free", unit);
    } else if (cls > CLASS_COUNT) {
        errlog_append(error->message, room, ", unit %u: %s of a large object", unit,
                      cls == CLASS_LARGE_HEAD ? "head" : "body");
    } else {
        size_t bytes = sizeclass_bytes(cls);
        error->size_class = cls;
        errlog_append(error->message, room,
                      ", slab at unit %u (%s), class %u of %zu bytes, object %zu, byte %zu of it",
                      head, state_words(head_state(word)), cls, bytes, offset / bytes,
                      offset % bytes);
    }
    size_t asked = 0;
    if (heap->hardened != NULL) {
        /* Of a large object by its entry: it may have been freed by the call that reports. */
        asked = cls == CLASS_LARGE_HEAD ? asked_bytes(&heap->slabs[unit])
                                        : hardened_size(heap, pointer);
    }
    if (asked != 0) {
        errlog_append(error->message, room, "; %zu bytes were asked for", asked);
    }
}

enum misuse_kind misuse_kind_of(struct hak_region *heap, const void *pointer)
{
    unit_t unit = region_unit(&heap->area, pointer);
    unsigned cls = unit == UNIT_NONE ? CLASS_NONE : heap_class(heap, unit);

    if (unit == UNIT_NONE) {
        return heap_containing(pointer) != NULL ? MISUSE_OTHER_REGION : MISUSE_FOREIGN;
    }
    if (cls == CLASS_NONE) {
        return MISUSE_NOT_ALLOCATED;
    }
    if (cls > CLASS_COUNT) {
        return cls == CLASS_LARGE_HEAD && pointer == region_address(&heap->area, unit)
                   ? MISUSE_FREED_TWICE
                   : MISUSE_INTERIOR;
    }
    unit_t head = heap_slab_head(heap, unit);
    size_t offset = (size_t)((const char *)pointer - (char *)region_address(&heap->area, head));
    return offset % sizeclass_bytes(cls) != 0 ? MISUSE_INTERIOR : MISUSE_FREED_TWICE;
}

void misuse_report(struct hak_region *heap, const void *pointer, enum misuse_kind kind)
{
    struct hak_error error;
    int saved = errno;

    /* Relaxed: a count. */
    atomic_fetch_add_explicit(&heap->misuses, 1, memory_order_relaxed);
    errlog_fail(&error, -EINVAL, HAK_ERROR_MISUSE, "misuse: free or realloc of %p by thread %d: %s",
                pointer, (int)gettid(), kind_words(kind));
    error.pointer = pointer;
    describe(heap, pointer, &error);
    errlog_store(&error);
    if (heap->misuse != HAK_MISUSE_IGNORE) {
        errlog_say("%s", error.message);
    }
    if (heap->misuse == HAK_MISUSE_ABORT) {
        abort();
    }
    errno = saved;
}
