/* SPDX-License-Identifier: MIT */
/* The public calls that neither set up nor allocate: threads, figures, errors, version. */
#include <errno.h>
#include <string.h>

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

/* The calling thread's latest failure over all regions; sequence 0 where it had none. */
static struct thread_error latest(void)
{
    struct thread_error last = {.sequence = 0};

    thread_enter();
    for (unsigned id = 0; id < HAK_REGIONS_MAX; id++) {
        const struct thread_self *self = &thread_self[id];
        const struct thread *thread = self->parked != NULL ? self->parked : self->active;
        if (thread != &thread_none && thread->error.sequence > last.sequence) {
            last = thread->error;
        }
    }
    thread_leave();
    return last;
}

static void put_into_words(const struct thread_error *error, struct hak_error *out)
{
    const size_t room = sizeof(out->message);

    memset(out, 0, sizeof(*out));
    out->kind = error->kind;
    out->code = error->code;
    out->size_bytes = error->size_bytes;
    out->alignment = error->alignment;
    out->size_class = error->size_class;
    out->node = error->node;
    out->free_bytes = error->free_bytes;
    out->largest_free_bytes = error->largest_free_bytes;
    out->stranded_bytes = error->stranded_bytes;
    errlog_append(out->message, room, "allocation of %zu bytes", error->size_bytes);
    if (error->kind == HAK_ERROR_ARGUMENT && error->code == -ENOMEM) {
        errlog_append(out->message, room, ": the size is beyond what can be addressed");
        return;
    }
    if (error->kind == HAK_ERROR_ARGUMENT && error->node_refused) {
        errlog_append(out->message, room, ": the region has no segment on that node, %d",
                      error->node);
        return;
    }
    if (error->kind == HAK_ERROR_ARGUMENT) {
        errlog_append(out->message, room,
                      " with alignment %zu: the alignment is not a power of two up to 1 GiB",
                      error->alignment);
        return;
    }
    if (error->alignment != 0) {
        errlog_append(out->message, room, " aligned to %zu", error->alignment);
    }
    errlog_append(out->message, room,
                  " (class %u) failed on node %d: %zu bytes of units free, the largest run %zu, up "
                  "to %zu more in thread caches and page boxes",
                  error->size_class, error->node, error->free_bytes, error->largest_free_bytes,
                  error->stranded_bytes);
    errlog_append(out->remedy, sizeof(out->remedy),
                  "export HAKMEM_REGION_SIZE=%zuM  # or as much in hak_config.size_bytes",
                  error->advised_bytes >> 20);
}

int hak_last_error(struct hak_error *out)
{
    uint64_t shared;

    if (out == NULL) {
        return -EINVAL;
    }
    memset(out, 0, sizeof(*out));
    out->node = -1;
    const struct thread_error mine = latest();
    shared = errlog_load(out);
    if (mine.sequence > shared) {
        put_into_words(&mine, out);
    }
    return out->code;
}
