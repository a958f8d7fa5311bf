/* SPDX-License-Identifier: MIT */
/* Huge pages once a segment is large; see hugepages.h. */
#include "region/hugepages.h"

#include <errno.h>

#include <stdlib.h>
#include <string.h>

#include "numa/sysfs.h"
#include "region/os.h"

/* Where the process has little memory the next look is after so much more was taken. */
#define LOOK_AGAIN_UNITS (((size_t)16 << 20) >> UNIT_LOG2)

static size_t segment_bytes(const struct segment *segment)
{
    return (size_t)segment->superslab_count << SUPERSLAB_LOG2;
}

void hugepages_later(struct region *region, size_t from_bytes)
{
    if (region->pages != HAK_PAGES_THP || region->prefault || from_bytes == 0) {
        return;
    }
    for (uint32_t n = 0; n < region->segment_count; n++) {
        struct segment *segment = &region->segments[n];
        size_t bytes = segment_bytes(segment);
        size_t beyond = bytes - min_size(bytes, from_bytes);
        if (os_small_pages((void *)segment->base, bytes) == 0) {
            /* Relaxed: nobody else knows the region yet. */
            segment->huge_from_bytes = from_bytes;
            atomic_store_explicit(&segment->huge_below_units, beyond >> UNIT_LOG2,
                                  memory_order_relaxed);
        }
    }
}

/* Whether the process has so much memory, proc_pid_statm(5). Where nobody says, as if it had. */
static bool has_memory(size_t bytes)
{
    char text[128];
    const char *resident = NULL;

    if (sysfs_read("/proc/self/statm", text, sizeof text) > 0) {
        resident = strchr(text, ' ');
    }
    return resident == NULL || strtoull(resident, NULL, 10) >= bytes / os_page_bytes();
}

void hugepages_begin(struct segment *segment)
{
    int saved = errno;

    /* Relaxed, here and below: of those that meet here one goes on; nothing hangs on the figure. */
    if (atomic_exchange_explicit(&segment->huge_below_units, 0, memory_order_relaxed) == 0) {
        return;
    }
    uint64_t left = atomic_load_explicit(&segment->free_unit_count, memory_order_relaxed);
    /* Half: what was taken just now is not written yet. */
    if (has_memory(segment->huge_from_bytes / 2) || left <= LOOK_AGAIN_UNITS) {
        /* Refused: it stays on small pages, which is no loss of anything but speed. */
        (void)os_huge_pages((void *)segment->base, segment_bytes(segment));
    } else {
        atomic_store_explicit(&segment->huge_below_units, left - LOOK_AGAIN_UNITS,
                              memory_order_relaxed);
    }
    errno = saved;
}
