/* SPDX-License-Identifier: MIT */
/*
 * The public allocation calls, three ways: the plain ones, the handle's with NULL (the default
 * region), and the handle's on a further region beside a default one. every_way runs a body with
 * each; the body calls a_malloc and the like.
 */
#ifndef HAK_TESTS_WAYS_H
#define HAK_TESTS_WAYS_H

#include "tests/region_kit.h"

#define OBJECTS_MAX 40000

static enum way { PLAIN, HANDLE_NULL, HANDLE, WAYS } way;
static hak_region *handle; /* NULL but for HANDLE */

static void *objects[OBJECTS_MAX];
static size_t sizes[OBJECTS_MAX];

/* ---- the calls, whichever way ---- */

static inline void *a_malloc(size_t size)
{
    return way == PLAIN ? hak_malloc(size) : hak_region_malloc(handle, size);
}

static inline void *a_calloc(size_t count, size_t size)
{
    return way == PLAIN ? hak_calloc(count, size) : hak_region_calloc(handle, count, size);
}

static inline void *a_realloc(void *pointer, size_t size)
{
    return way == PLAIN ? hak_realloc(pointer, size) : hak_region_realloc(handle, pointer, size);
}

static inline void *a_aligned(size_t alignment, size_t size)
{
    return way == PLAIN ? hak_aligned_alloc(alignment, size)
                        : hak_region_aligned_alloc(handle, alignment, size);
}

static inline void a_free(void *pointer)
{
    way == PLAIN ? hak_free(pointer) : hak_region_free(handle, pointer);
}

static inline void a_free_sized(void *pointer, size_t size)
{
    way == PLAIN ? hak_free_sized(pointer, size) : hak_region_free_sized(handle, pointer, size);
}

static inline size_t a_usable(const void *pointer)
{
    return way == PLAIN ? hak_usable_size(pointer) : hak_region_usable_size(handle, pointer);
}

static inline size_t a_malloc_bulk(size_t size, size_t count, void **out)
{
    return way == PLAIN ? hak_malloc_bulk(size, count, out)
                        : hak_region_malloc_bulk(handle, size, count, out);
}

static inline void a_free_bulk(void *const *pointers, size_t count)
{
    way == PLAIN ? hak_free_bulk(pointers, count) : hak_region_free_bulk(handle, pointers, count);
}

static inline void *a_on_node(size_t size, int node)
{
    return way == PLAIN ? hak_malloc_on_node(size, node)
                        : hak_region_malloc_on_node(handle, size, node);
}

static inline struct hak_region *the_region(void)
{
    return handle != NULL ? handle : hak_region_default();
}

/* Runs the body the three ways, each in a fresh region, and checks the heap after it. */
static inline void every_way(size_t bytes, enum hak_switch prefault, void (*body)(void))
{
    for (way = PLAIN; way < WAYS; way++) {
        handle = NULL;
        kit_open(way == HANDLE ? 4 * MIB : bytes, prefault);
        if (way == HANDLE) {
            handle = kit_create(bytes, prefault);
        }
        body();
        struct hak_stats stats = kit_stats(handle);
        CHECK_EQ(stats.misuses, 0);
        kit_check(handle);
        if (way == HANDLE) {
            struct hak_stats other = kit_stats(NULL);
            CHECK_EQ(other.free_bytes, other.size_bytes); /* nothing came from the default region */
        }
        kit_close();
    }
}

static inline bool inside(const void *pointer, size_t bytes)
{
    const struct region *area = &the_region()->area;
    uintptr_t at = (uintptr_t)pointer;
    return at >= area->base && bytes <= area->bytes && at - area->base <= area->bytes - bytes;
}

/* An object as promised: ours, aligned, large enough. */
static inline void check_object(const void *object, size_t size)
{
    if (object == NULL) {
        FAIL("no object of %zu bytes", size);
    }
    size_t usable = a_usable(object);
    CHECK_GE(usable, size);
    CHECK(inside(object, usable));
    CHECK_EQ((uintptr_t)object % HAK_ALIGNMENT_MIN, 0);
}

static inline void check_refused(const void *object, int code, enum hak_error_kind kind)
{
    struct hak_error error;
    int seen = errno;
    CHECK(object == NULL);
    CHECK_EQ(seen, code);
    CHECK_EQ(hak_last_error(&error), -code);
    CHECK_EQ(error.kind, kind);
    CHECK(error.message[0] != '\0');
}

#endif
