/* SPDX-License-Identifier: MIT */
/* Units of half-done steps; see orphans.h. All loads are relaxed: nobody else is there. */
#include "alloc/orphans.h"

#include "alloc/guarded.h"
#include "alloc/hardened.h"
#include "alloc/large.h"
#include "region/giveback.h"
#include "region/os.h"
#include "region/units.h"

static uint64_t head_of(const struct hak_region *heap, unit_t unit)
{
    return atomic_load_explicit(&heap->slabs[unit].head, memory_order_relaxed);
}

static bool taken(const struct hak_region *heap, unit_t unit)
{
    uint32_t free_units = registry_free_units(region_entry(&heap->area, unit),
                                              memory_order_relaxed);

    return ((free_units >> (unit % SUPERSLAB_UNITS)) & 1) == 0;
}

/* Units of the slab that begins here, 0 where it is not whole. */
static size_t whole_slab(const struct hak_region *heap, unit_t unit, unsigned cls)
{
    uint64_t head = head_of(heap, unit);
    enum slab_state state = head_state(head);
    unsigned units = head_units(head);

    if (heap_offset(heap, unit) != 0 || head_class(head) != cls || units == 0 ||
        units > SUPERSLAB_UNITS || units > heap->area.unit_count - unit ||
        (state != SLAB_OWNED && state != SLAB_FULL && state != SLAB_PARTIAL)) {
        return 0;
    }
    for (unit_t n = 0; n < units; n++) {
        if (!taken(heap, unit + n) || heap_class(heap, unit + n) != cls ||
            heap_offset(heap, unit + n) != n) {
            return 0;
        }
    }
    return units;
}

/* The same of a large object. */
static size_t whole_large(const struct hak_region *heap, unit_t unit)
{
    enum slab_state state = head_state(head_of(heap, unit));
    size_t units = large_units(&heap->slabs[unit]);

    if ((state != SLAB_LARGE && state != SLAB_HELD) || units == 0 ||
        units > heap->area.unit_count - unit) {
        return 0;
    }
    for (size_t n = 1; n < units; n++) {
        if (!taken(heap, (unit_t)(unit + n)) ||
            heap_class(heap, (unit_t)(unit + n)) != CLASS_LARGE_BODY) {
            return 0;
        }
    }
    return units;
}

/* Units from here on that are somebody's; 0: this one is nobody's. */
static size_t owned(const struct hak_region *heap, unit_t unit)
{
    unsigned cls = heap_class(heap, unit);

    if (cls == CLASS_LARGE_HEAD) {
        size_t units = whole_large(heap, unit);
        return units + (units != 0 && guarded_behind(heap, unit));
    }
    if (cls == CLASS_LARGE_BODY) {
        return unit + 1 < heap->area.unit_count && heap_class(heap, unit + 1) == CLASS_LARGE_HEAD &&
               guarded_before(heap, unit + 1) && whole_large(heap, unit + 1) != 0;
    }
    return cls == CLASS_NONE ? 0 : whole_slab(heap, unit, cls);
}

static void give_back(struct hak_region *heap, unit_t unit)
{
    void *start = region_address(&heap->area, unit);

    /* It may have been a guard. */
    if (heap->hardened != NULL && heap->hardened->guards && os_allow(start, UNIT_BYTES) != 0) {
        return;
    }
    atomic_store_explicit(&heap->slabs[unit].head, head_freed(head_of(heap, unit)),
                          memory_order_relaxed);
    heap_set_class(heap, unit, 1, CLASS_NONE);
    units_release(&heap->area, unit, 1);
}

void orphans_give_back(struct hak_region *heap)
{
    const struct region *area = &heap->area;

    for (unit_t unit = 0; unit < area->unit_count;) {
        if (registry_free_units(region_entry(area, unit), memory_order_relaxed) == ALL_UNITS &&
            unit % SUPERSLAB_UNITS == 0) {
            unit += SUPERSLAB_UNITS;
            continue;
        }
        size_t units = taken(heap, unit) ? owned(heap, unit) : 1;
        if (units == 0) {
            give_back(heap, unit);
            units = 1;
        }
        unit += (unit_t)units;
    }
    for (uint32_t n = 0; n < area->segment_count; n++) {
        units_recount(&heap->area.segments[n]);
        giveback_recount(&heap->area.segments[n]);
    }
}
