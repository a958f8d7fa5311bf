/* SPDX-License-Identifier: MIT */
/*
 * Size classes: every 16 bytes to 128, then four to a doubling up to 256 KiB, so that above 128
 * bytes rounding costs at most a fifth; eight from 2 KiB to 8 KiB, at most a ninth: there live the
 * page with its header of databases, and the packet. Class 0 is "none"; classes count from 1.
 *
 * A class's slab is as many units as keep its tail waste at 2.5 % or less and give it a few
 * objects. Where no such run is free a shorter slab does; a slab therefore carries its own length.
 */
#ifndef HAK_ALLOC_SIZECLASS_H
#define HAK_ALLOC_SIZECLASS_H

#include "region/config.h"
#include "region/geometry.h"

#define CLASS_NONE 0
#define CLASS_COUNT 60
#define CLASS_LARGE_HEAD (CLASS_COUNT + 1)
#define CLASS_LARGE_BODY (CLASS_COUNT + 2)
#define CLASS_MAP_VALUES (CLASS_COUNT + 3)
/* Larger objects are runs of units. */
#define CLASS_BYTES_MAX ((size_t)256 << 10)
/* Up to here the class is looked up in a table with a step of 16 bytes, above it is computed. */
#define CLASS_TABLE_BYTES_MAX ((size_t)8192)
#define CLASS_TABLE_ENTRIES (CLASS_TABLE_BYTES_MAX / 16 + 1)

_Static_assert(CLASS_COUNT == CONFIG_CLASSES_MAX, "the environment table names the same classes");

struct sizeclass {
    uint32_t object_bytes;
    uint32_t unit_count; /* of a slab, as wished */
    uint64_t reciprocal; /* ceil(2^40 / object_bytes) */
};

/* See sizeclass_index for how exact that is. */
#define RECIPROCAL_LOG2 40

extern HAK_OWN const struct sizeclass sizeclasses[CLASS_COUNT + 1];

HAK_INLINE size_t sizeclass_bytes(unsigned cls)
{
    return sizeclasses[cls].object_bytes;
}

/* Where the classes are 2^steps_log2 to a doubling: steps from a class of 2^from_log2 bytes to the
 * one that size, a larger one, falls into. */
HAK_INLINE unsigned sizeclass_steps(size_t size, unsigned from_log2, unsigned steps_log2)
{
    size_t last = size - 1;
    unsigned log2 = (unsigned)__builtin_clzll(last) ^ 63;
    /* The leading bit, which stands for a doubling, and those below it that tell the step. */
    unsigned leading = (unsigned)(last >> (log2 - steps_log2));

    return ((log2 - from_log2) << steps_log2) + leading - (1U << steps_log2) + 1;
}

/* Class of a size above CLASS_TABLE_BYTES_MAX and up to CLASS_BYTES_MAX. 8 KiB are class 40. */
HAK_INLINE unsigned sizeclass_computed(size_t size)
{
    return 40 + sizeclass_steps(size, 13, 2);
}

/* Class of a size up to CLASS_BYTES_MAX; 0 is served as 1. */
HAK_INLINE unsigned sizeclass_of(size_t size)
{
    if (size <= 128) {
        return size == 0 ? 1 : (unsigned)((size + 15) / 16);
    }
    if (size <= 2048) {
        return 8 + sizeclass_steps(size, 7, 2);
    }
    return size <= CLASS_TABLE_BYTES_MAX ? 24 + sizeclass_steps(size, 11, 3)
                                         : sizeclass_computed(size);
}

/*
 * Number of the object that offset_bytes of a slab lies in. With m = ceil(2^40 / b) the product is
 * too large by less than off * b / 2^40 of an object, which stays below 1 / b of one (the
 * distance to the next object) as long as off * b < 2^40: slabs are at most 2^21, classes 2^18.
 */
HAK_INLINE unsigned sizeclass_index(unsigned cls, size_t offset_bytes)
{
    return (unsigned)((offset_bytes * sizeclasses[cls].reciprocal) >> RECIPROCAL_LOG2);
}

/* Objects in a slab of so many units. */
HAK_INLINE unsigned sizeclass_capacity(unsigned cls, unsigned unit_count)
{
    return sizeclass_index(cls, (size_t)unit_count << UNIT_LOG2);
}

/* Fewest units that hold an object. */
HAK_INLINE unsigned sizeclass_least_units(unsigned cls)
{
    return (unsigned)((sizeclass_bytes(cls) + UNIT_BYTES - 1) >> UNIT_LOG2);
}

/* Smallest class of at least size bytes all of whose objects are aligned (a power of two up to
 * UNIT_BYTES); CLASS_NONE where it takes a large object. */
unsigned sizeclass_aligned(size_t size, size_t alignment);

#endif
