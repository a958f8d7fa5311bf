/* SPDX-License-Identifier: MIT */
/*
 * The calls of whoever is malloc in this process; see calls.h. What not every allocator has is
 * looked up by name when it is wanted: C23's free_sized and free_aligned_sized, else what the
 * allocator calls the same thing.
 */
#include "tests/misuse/calls.h"

#include <dlfcn.h>
#include <hakmem.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

/* POSIX's dlsym gives functions as data pointers; only a copy of the bytes turns one into the other
 * without a cast that ISO C does not have. */
static bool find(void *library, const char *name, void *function)
{
    void *found = dlsym(library, name);

    memcpy(function, &found, sizeof found);
    return found != NULL;
}

bool calls_begin(void)
{
    return true;
}

void *call_malloc(size_t size)
{
    return malloc(size);
}

void *call_calloc(size_t count, size_t size)
{
    return calloc(count, size);
}

void *call_realloc(void *pointer, size_t size)
{
    return realloc(pointer, size);
}

void *call_aligned(size_t alignment, size_t size)
{
    return aligned_alloc(alignment, size);
}

void call_free(void *pointer)
{
    free(pointer);
}

size_t call_usable(void *pointer)
{
    return malloc_usable_size(pointer);
}

bool call_free_sized(void *pointer, size_t size)
{
    static const char *const names[] = {"free_sized", "hak_free_sized", "mi_free_size",
                                        "tc_free_sized"};
    void (*release)(void *, size_t);
    void (*jemalloc)(void *, size_t, int);

    for (size_t n = 0; n < sizeof names / sizeof *names; n++) {
        if (find(RTLD_DEFAULT, names[n], &release)) {
            release(pointer, size);
            return true;
        }
    }
    if (find(RTLD_DEFAULT, "sdallocx", &jemalloc)) {
        jemalloc(pointer, size, 0);
        return true;
    }
    return false;
}

bool call_free_aligned_sized(void *pointer, size_t alignment, size_t size)
{
    static const char *const names[] = {"free_aligned_sized", "hak_free_aligned_sized"};
    /* These take the size first. */
    static const char *const turned[] = {"mi_free_size_aligned", "tc_delete_sized_aligned"};
    void (*release)(void *, size_t, size_t);
    void (*jemalloc)(void *, size_t, int);

    for (size_t n = 0; n < sizeof names / sizeof *names; n++) {
        if (find(RTLD_DEFAULT, names[n], &release)) {
            release(pointer, alignment, size);
            return true;
        }
    }
    for (size_t n = 0; n < sizeof turned / sizeof *turned; n++) {
        if (find(RTLD_DEFAULT, turned[n], &release)) {
            release(pointer, size, alignment);
            return true;
        }
    }
    if (find(RTLD_DEFAULT, "sdallocx", &jemalloc)) {
        jemalloc(pointer, size, __builtin_ctzll(alignment)); /* MALLOCX_LG_ALIGN */
        return true;
    }
    return false;
}

void *call_libc_malloc(size_t size)
{
    /* Through its own handle: a preloaded allocator may have this name too. */
    void *libc = dlopen("libc.so.6", RTLD_NOW | RTLD_NOLOAD);
    void *(*inner)(size_t);

    return libc != NULL && find(libc, "__libc_malloc", &inner) ? inner(size) : NULL;
}

void *call_other_region(size_t size)
{
    struct hak_config config = {.size_bytes = (size_t)4 << 20, .prefault = HAK_OFF};
    hak_region *region = NULL;
    int (*create)(const struct hak_config *, hak_region **);
    void *(*allocate)(hak_region *, size_t);

    config.pages[0] = HAK_PAGES_4K;
    return find(RTLD_DEFAULT, "hak_region_create", &create) &&
                   find(RTLD_DEFAULT, "hak_region_malloc", &allocate) &&
                   create(&config, &region) == 0
               ? allocate(region, size)
               : NULL;
}

enum calls_order calls_check(void)
{
    return ORDER_UNKNOWN;
}

long calls_misuses(void)
{
    struct hak_stats stats;
    int (*tell)(hak_region *, struct hak_stats *);

    return find(RTLD_DEFAULT, "hak_region_stats", &tell) && tell(NULL, &stats) == 0
               ? (long)stats.misuses
               : -1;
}
