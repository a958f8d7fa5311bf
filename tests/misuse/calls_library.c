/* SPDX-License-Identifier: MIT */
/* The calls of the linked library, and the walk over its books; see calls.h. */
#include "tests/misuse/calls.h"

#include <stdio.h>
#include <stdlib.h>

#include "alloc/heap.h"

/* Addresses, not memory. So many that the hardened mode holds large objects of the rows back. */
bool calls_begin(void)
{
    struct hak_config config = {.size_bytes = (size_t)4 << 30, .prefault = HAK_OFF};
    struct hak_error error;

    config.pages[0] = HAK_PAGES_4K;
    if (hak_region_init(&config) != 0) {
        (void)hak_last_error(&error);
        fprintf(stderr, "hak_region_init: %s\n", error.message);
        return false;
    }
    return true;
}

void *call_malloc(size_t size)
{
    return hak_malloc(size);
}

void *call_calloc(size_t count, size_t size)
{
    return hak_calloc(count, size);
}

void *call_realloc(void *pointer, size_t size)
{
    return hak_realloc(pointer, size);
}

void *call_aligned(size_t alignment, size_t size)
{
    return hak_aligned_alloc(alignment, size);
}

void call_free(void *pointer)
{
    hak_free(pointer);
}

size_t call_usable(void *pointer)
{
    return hak_usable_size(pointer);
}

bool call_free_sized(void *pointer, size_t size)
{
    hak_free_sized(pointer, size);
    return true;
}

bool call_free_aligned_sized(void *pointer, size_t alignment, size_t size)
{
    hak_free_aligned_sized(pointer, alignment, size);
    return true;
}

void *call_libc_malloc(size_t size)
{
    return malloc(size);
}

void *call_other_region(size_t size)
{
    struct hak_config config = {.size_bytes = (size_t)4 << 20, .prefault = HAK_OFF};
    hak_region *region = NULL;

    config.pages[0] = HAK_PAGES_4K;
    return hak_region_create(&config, &region) == 0 ? hak_region_malloc(region, size) : NULL;
}

enum calls_order calls_check(void)
{
    return heap_check(hak_region_default()) ? ORDER_GOOD : ORDER_BAD;
}

long calls_misuses(void)
{
    struct hak_stats stats;

    return hak_region_stats(NULL, &stats) == 0 ? (long)stats.misuses : -1;
}
