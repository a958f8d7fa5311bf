/* SPDX-License-Identifier: MIT */
/* The public calls that neither set up nor allocate: threads, figures, errors, version. */
#include <errno.h>
#include <string.h>

#include "alloc/exhaust.h"
#include "alloc/stats.h"
#include "alloc/thread.h"
#include "region/errlog.h"

#define TEXT(x) #x
#define DOTTED(major, minor, patch) TEXT(major) "." TEXT(minor) "." TEXT(patch)

static struct hak_region *or_default(hak_region *region)
{
    return region != NULL ? region : atomic_load_explicit(&heap_default, memory_order_acquire);
}

hak_region *hak_region_default(void)
{
    return atomic_load_explicit(&heap_default, memory_order_acquire);
}

void hak_thread_idle(void)
{
    thread_enter();
    thread_mark_idle();
    thread_leave();
}

int hak_on_exhausted(hak_region *region, hak_exhausted_fn reclaim, void *argument)
{
    struct hak_region *heap = or_default(region);

    if (heap == NULL) {
        return -ENODEV;
    }
    heap->on_exhausted_argument = argument;
    heap->on_exhausted = reclaim;
    return 0;
}

int hak_region_stats(hak_region *region, struct hak_stats *out)
{
    struct hak_region *heap = or_default(region);

    if (out == NULL) {
        return -EINVAL;
    }
    if (heap == NULL) {
        return -ENODEV;
    }
    stats_region(heap, out);
    return 0;
}

int hak_region_node_stats(hak_region *region, unsigned index, struct hak_node_stats *out)
{
    struct hak_region *heap = or_default(region);

    if (heap == NULL) {
        return -ENODEV;
    }
    if (out == NULL || index >= heap->pool_count) {
        return -EINVAL;
    }
    stats_node(heap, &heap->pools[index], out);
    return 0;
}

int hak_region_class_stats(hak_region *region, unsigned size_class, struct hak_class_stats *out)
{
    struct hak_region *heap = or_default(region);

    if (heap == NULL) {
        return -ENODEV;
    }
    if (out == NULL || size_class == 0 || size_class > CLASS_COUNT) {
        return -EINVAL;
    }
    stats_class(heap, size_class, out);
    return 0;
}

unsigned hak_class_count(void)
{
    return CLASS_COUNT;
}

const char *hak_version(void)
{
    return DOTTED(HAK_VERSION_MAJOR, HAK_VERSION_MINOR, HAK_VERSION_PATCH);
}

int hak_last_error(struct hak_error *out)
{
    struct hak_error mine;

    if (out == NULL) {
        return -EINVAL;
    }
    memset(out, 0, sizeof(*out));
    out->node = -1;
    uint64_t shared = errlog_load(out);
    if (exhaust_tell(&mine) > shared) {
        *out = mine;
    }
    return out->code;
}
