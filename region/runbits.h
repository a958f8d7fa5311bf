/* SPDX-License-Identifier: MIT */
/* Runs of units in the 32 bits of a SuperSlab and over several: arithmetic and looks that change
 * nothing, for region/units.c. */
#ifndef HAK_REGION_RUNBITS_H
#define HAK_REGION_RUNBITS_H

#include "region/region.h"

/* Bits where a run of count free units begins. */
HAK_INLINE uint32_t run_starts(uint32_t free_units, unsigned count)
{
    uint32_t starts = free_units;
    unsigned have = 1;

    while (have < count && starts != 0) {
        unsigned step = have < count - have ? have : count - have;
        starts &= starts >> step;
        have += step;
    }
    return starts;
}

HAK_INLINE unsigned longest_run(uint32_t free_units)
{
    unsigned length = 0;

    if (free_units == ALL_UNITS) {
        return SUPERSLAB_UNITS;
    }
    while (free_units != 0) {
        free_units &= free_units >> 1;
        length++;
    }
    return length;
}

HAK_INLINE uint32_t unit_mask(unsigned first, unsigned count)
{
    return (uint32_t)((((uint64_t)1 << count) - 1) << first);
}

/* The part of [first, first + count) that lies in the SuperSlab of first. */
HAK_INLINE uint32_t part_mask(size_t first, size_t count, size_t *part)
{
    unsigned in = (unsigned)(first % SUPERSLAB_UNITS);

    *part = min_size(count, SUPERSLAB_UNITS - in);
    return unit_mask(in, (unsigned)*part);
}

/* Whether the lowest count units of a SuperSlab are free. */
HAK_INLINE bool tail_free(const struct segment *segment, size_t superslab, size_t count)
{
    uint32_t mask = unit_mask(0, (unsigned)count);

    if (count == 0) {
        return true;
    }
    /* Relaxed: a hint, claimed by take_exactly. */
    return superslab < segment->superslab_count &&
           (registry_free_units(&segment->registry[superslab], memory_order_relaxed) & mask) ==
               mask;
}

/* A look before a claim, so that a hopeless one does not hide free units from others for a
 * while. */
HAK_INLINE bool span_free(const struct segment *segment, size_t first, size_t count)
{
    for (size_t done = 0, part; done < count; done += part) {
        uint32_t mask = part_mask(first + done, count - done, &part);
        const struct registry_entry *entry = &segment->registry[(first + done) / SUPERSLAB_UNITS];
        /* Relaxed: a hint. */
        if ((registry_free_units(entry, memory_order_relaxed) & mask) != mask) {
            return false;
        }
    }
    return true;
}

#endif
