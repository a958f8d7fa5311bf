/* SPDX-License-Identifier: MIT */
/*
 * What tests of giving memory back share: regions in which time passes only when told, what is
 * resident (asked of the kernel, mincore(2)), and how to leave something dirty.
 */
#ifndef HAK_TESTS_GIVEBACK_KIT_H
#define HAK_TESTS_GIVEBACK_KIT_H

#include "region/giveback.h"
#include "region/units.h"
#include "tests/region_kit.h"

#include <sys/mman.h>

#define NEVER_NS ((uint64_t)1 << 62)
static inline struct region *area(void)
{
    return &hak_region_default()->area;
}

static inline struct segment *segment_0(void)
{
    return &area()->segments[0];
}

/* A default region in which only the test makes time pass. */
static inline struct region *open_still(size_t bytes)
{
    kit_open(bytes, HAK_OFF);
    area()->giveback_tick_ns = NEVER_NS;
    return area();
}

/* The next step finds that a second has passed. */
static inline void pass_time(void)
{
    atomic_store(&segment_0()->giveback.next_tick_ns, 0);
}

static inline size_t resident(const void *start, size_t bytes)
{
    static unsigned char there[16384];
    size_t pages = 0;

    for (size_t at = 0; at < bytes; at += sizeof(there) * 4096) {
        size_t count = min_size((bytes - at) / 4096, sizeof(there));
        CHECK_EQ(mincore((char *)(uintptr_t)start + at, count * 4096, there), 0);
        for (size_t n = 0; n < count; n++) {
            pages += there[n] & 1;
        }
    }
    return pages * 4096;
}

static inline size_t region_resident(const struct region *region)
{
    return resident((const void *)region->base, region->bytes);
}

static inline size_t dirty_bytes(void)
{
    return (size_t)atomic_load(&segment_0()->dirty_count) * SUPERSLAB_BYTES;
}

/* A byte of each page. Not instrumented: only the page fault matters. */
__attribute__((no_sanitize("address", "thread", "undefined"))) static inline void
touch(void *object, size_t bytes)
{
    for (size_t at = 0; at < bytes; at += 4096) {
        ((volatile char *)object)[at] = 1;
    }
}

static inline void *get(size_t bytes)
{
    void *object = hak_malloc(bytes);

    CHECK(object != NULL);
    touch(object, bytes);
    return object;
}

/* Leaves so much dirty: a run of SuperSlabs that was one object. */
static inline void make_dirty(size_t bytes)
{
    hak_free(get(bytes));
}

/* The lowest SuperSlabs, by objects of one each: longer ones come from the other end. */
static inline void make_dirty_low(size_t bytes)
{
    static void *parts[1024];
    size_t count = 0;

    for (size_t left = bytes; left > 0; count++) {
        size_t part = min_size(left, 2 * MIB);
        CHECK(count < 1024);
        parts[count] = get(part);
        left -= part;
    }
    while (count > 0) {
        hak_free(parts[--count]);
    }
}

#endif
