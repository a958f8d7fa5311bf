/* SPDX-License-Identifier: MIT */
/* From a pointer to the bytes of its object; see usable.h. */
#include "alloc/usable.h"

#include "alloc/hardened.h"
#include "alloc/large.h"
#include "alloc/misuse.h"

size_t usable_live(struct hak_region *heap, const void *pointer)
{
    unit_t unit = region_unit(&heap->area, pointer);
    unsigned cls = unit == UNIT_NONE ? CLASS_NONE : heap_class(heap, unit);

    if (heap->hardened != NULL) {
        return hardened_size(heap, pointer);
    }
    if (cls == CLASS_LARGE_HEAD) {
        return pointer == region_address(&heap->area, unit) ? large_bytes(heap, unit) : 0;
    }
    if (cls == CLASS_NONE || cls > CLASS_COUNT) {
        return 0;
    }
    unit_t head = heap_slab_head(heap, unit);
    const struct slab *slab = &heap->slabs[head];
    size_t bytes = sizeclass_bytes(cls);
    size_t offset = (size_t)((const char *)pointer - (char *)region_address(&heap->area, head));
    unsigned index = sizeclass_index(cls, offset);
    /* Relaxed: whoever asks for a live object knows of its allocation. */
    uint64_t word = atomic_load_explicit(&slab->bits[index / 64], memory_order_relaxed);
    uint64_t state = atomic_load_explicit(&slab->head, memory_order_relaxed);
    if (index * bytes != offset || index >= head_capacity(state) || ((word >> (index % 64)) & 1)) {
        return 0;
    }
    return bytes;
}

/* Who asks for the size of a freed object uses it after it was freed. */
static size_t ask_hardened(struct hak_region *heap, const void *pointer)
{
    size_t size = hardened_size(heap, pointer);

    if (size == 0 && misuse_kind_of(heap, pointer) == MISUSE_FREED_TWICE) {
        misuse_report(heap, pointer, MISUSE_FREED_TWICE);
    }
    return size;
}

size_t usable_quick(struct hak_region *heap, const void *pointer)
{
    unit_t unit = region_unit(&heap->area, pointer);
    unsigned cls = unit == UNIT_NONE ? CLASS_NONE : heap_class(heap, unit);

    if (unlikely(heap->hardened != NULL)) {
        return ask_hardened(heap, pointer);
    }
    if (cls == CLASS_NONE || cls > CLASS_COUNT || sizeclasses[cls].unit_count != 1) {
        return usable_live(heap, pointer);
    }
    size_t bytes = sizeclass_bytes(cls);
    size_t offset = (uintptr_t)pointer % UNIT_BYTES;
    unsigned index = sizeclass_index(cls, offset);
    return index * bytes == offset && index < sizeclass_capacity(cls, 1) ? bytes : 0;
}
