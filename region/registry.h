/* SPDX-License-Identifier: MIT */
/*
 * The registry: an entry per SuperSlab, found by (address - base) >> 21. No hashing, no probing,
 * no second table. Its addresses are reserved for 2 TiB; only the part in use has memory.
 *
 * An entry's taken_units word is the whole truth about who owns the SuperSlab's units: a clear bit
 * is a unit that nobody has. Taking is a compare-and-swap, giving back is an and; everything else
 * that is known about free room (region/units.h) is a hint derived from these words.
 *
 * A SuperSlab that nobody ever used is all zero, so a fresh registry is not written at all: what it
 * costs grows with use and not with the region.
 */
#ifndef HAK_REGION_REGISTRY_H
#define HAK_REGION_REGISTRY_H

#include "region/base.h"
#include "region/geometry.h"

struct __attribute__((aligned(8))) registry_entry {
    _Atomic uint32_t taken_units;   /* bit u: somebody has unit u */
    _Atomic uint32_t touched_units; /* bit u: no longer as the kernel handed it over, all zero */
};

_Static_assert(sizeof(struct registry_entry) == 8, "eight entries a cache line");

#define ALL_UNITS UINT32_MAX

HAK_INLINE uint32_t registry_free_units(const struct registry_entry *entry, memory_order order)
{
    return ~atomic_load_explicit(&entry->taken_units, order);
}

#endif
