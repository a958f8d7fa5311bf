/* SPDX-License-Identifier: MIT */
/*
 * Memory before there is a region: for the dynamic loader, and for what making the region itself
 * asks for. A bump arena in the library's zeroed data; the size stands in front of each object,
 * for realloc and malloc_usable_size.
 */
#include <errno.h>
#include <string.h>

#include "alloc/preload.h"

#define EARLY_BYTES ((size_t)4 << 20)
#define EARLY_ALIGNMENT_MAX ((size_t)4096)

static char early[EARLY_BYTES] __attribute__((aligned(64)));
static _Atomic size_t early_used;

bool early_has(const void *pointer)
{
    return (uintptr_t)pointer - (uintptr_t)early < EARLY_BYTES;
}

void *early_alloc(size_t alignment, size_t size)
{
    size_t align = max_size(alignment, HAK_ALIGNMENT_MIN);
    size_t used = atomic_load_explicit(&early_used, memory_order_relaxed);
    size_t need;

    if (size > EARLY_BYTES || align > EARLY_ALIGNMENT_MAX) {
        errno = ENOMEM;
        return NULL;
    }
    need = round_up(size, HAK_ALIGNMENT_MIN) + align + HAK_ALIGNMENT_MIN;
    do {
        if (need > EARLY_BYTES - used) {
            errno = ENOMEM;
            return NULL;
        }
        /* Relaxed: every caller gets bytes of its own, which nobody had before. */
    } while (!atomic_compare_exchange_weak_explicit(&early_used, &used, used + need,
                                                    memory_order_relaxed, memory_order_relaxed));
    char *object = (char *)round_up((uintptr_t)early + used + HAK_ALIGNMENT_MIN, align);
    memcpy(object - sizeof(size_t), &size, sizeof(size_t));
    return object;
}

size_t early_bytes(const void *pointer)
{
    size_t size;

    memcpy(&size, (const char *)pointer - sizeof(size_t), sizeof(size));
    return size;
}
