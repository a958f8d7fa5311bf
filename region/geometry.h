/* SPDX-License-Identifier: MIT */
/*
 * The address map, drawn once.
 *
 *  base                                                              base + size
 *   |  node 0 segment                  |  node 1 segment              |  ...
 *   | SS 0 | SS 1 | SS 2 | ...         | SS k | ...                   |
 *   |      |
 *   |      +-- 32 units of 64 KiB
 *   |
 *   +-- base is aligned to 2 MiB; every index counts from it
 *
 *   SuperSlab  2 MiB, the grain in which segments are made and large objects search
 *   unit       64 KiB, the grain in which slabs and large objects are cut
 *   slab       neighbouring units of one SuperSlab that hold objects of one size class
 *
 * Everything known about the object area lies apart from it, in tables indexed by these numbers:
 *
 *   registry[superslab]   taken units, touched units                    (region/registry.h)
 *   class_map[unit]       one byte: size class, large head or body      (alloc/heap.h)
 *   head_offset[unit]     how many units before this one its slab begins
 *   slabs[unit]           state, bitmap of free objects                 (alloc/slab.h)
 */
#ifndef HAK_REGION_GEOMETRY_H
#define HAK_REGION_GEOMETRY_H

#include <hakmem.h>

#include "region/base.h"

#define UNIT_LOG2 16
#define UNIT_BYTES ((size_t)1 << UNIT_LOG2)
#define SUPERSLAB_LOG2 21
#define SUPERSLAB_BYTES ((size_t)1 << SUPERSLAB_LOG2)
#define SUPERSLAB_UNITS_LOG2 (SUPERSLAB_LOG2 - UNIT_LOG2)
#define SUPERSLAB_UNITS (1U << SUPERSLAB_UNITS_LOG2)
/* 2 TiB of SuperSlabs: the length of the registry. */
#define REGISTRY_ENTRIES ((size_t)1 << 20)

_Static_assert(SUPERSLAB_UNITS == 32, "a SuperSlab's units are one 32-bit word");
_Static_assert(SUPERSLAB_BYTES == HAK_SUPERSLAB_BYTES, "the public header says it too");
_Static_assert(REGISTRY_ENTRIES << SUPERSLAB_LOG2 == HAK_REGION_BYTES_MAX, "2 TiB");

/* Index of a unit from the region's base; a region has at most 2^25 of them. */
typedef uint32_t unit_t;
#define UNIT_NONE UINT32_MAX

#endif
