/* SPDX-License-Identifier: MIT */
/* Huge pages once a segment is large; see hugepages.h. */
#include "region/hugepages.h"

#include <errno.h>

#include "region/os.h"

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
            atomic_store_explicit(&segment->huge_below_units, beyond >> UNIT_LOG2,
                                  memory_order_relaxed);
        }
    }
}

void hugepages_begin(struct segment *segment)
{
    int saved = errno;

    /* Relaxed: one of those that meet here makes the call; nothing else hangs on the figure. */
    if (atomic_exchange_explicit(&segment->huge_below_units, 0, memory_order_relaxed) != 0) {
        /* Refused: it stays on small pages, which is no loss of anything but speed. */
        (void)os_huge_pages((void *)segment->base, segment_bytes(segment));
    }
    errno = saved;
}
