/* SPDX-License-Identifier: MIT */
/*
 * The registry: an entry per SuperSlab, found by (address - base) >> 21. No hashing, no probing,
 * no second table. Its addresses are reserved for 2 TiB; only the part in use has memory.
 *
 * An entry's free_units word is the whole truth about who owns the SuperSlab's units: a set bit is
 * a unit that nobody has. Taking is a compare-and-swap or an and, giving back is an or; everything
 * else that is known about free room (region/units.h) is a hint derived from these words.
 */
#ifndef HAK_REGION_REGISTRY_H
#define HAK_REGION_REGISTRY_H

#include "region/geometry.h"

struct __attribute__((aligned(16))) registry_entry {
    _Atomic uint32_t free_units;      /* bit u: unit u is free */
    _Atomic uint32_t untouched_units; /* bit u: as the kernel handed it over, all zero */
    uint32_t segment;                 /* index of the segment it belongs to */
};

_Static_assert(sizeof(struct registry_entry) == 16, "four entries a cache line");

#define ALL_UNITS UINT32_MAX

#endif
