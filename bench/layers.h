/* SPDX-License-Identifier: MIT */
/*
 * Which layer served how much: the difference of two statistics as a table.
 *
 * Between two snapshots with no thread starting or exiting, every allocation of a small object was
 * either a hit in its thread's cache or part of a refill's batch. A refill asks the page box, then
 * the warm pool, then the shared pool, so each rate is of what came down to that layer.
 */
#ifndef HAK_BENCH_LAYERS_H
#define HAK_BENCH_LAYERS_H

#include <hakmem.h>

#include "bench/support.h"

struct layers {
    uint64_t allocations, refills, flushes;
    uint64_t box_hits;
    uint64_t warm_hits, warm_misses, warm_prefilled;
    uint64_t pool_partial, pool_fresh, recycled;
    double objects_a_refill, objects_a_flush;
};

static inline void layers_snapshot(struct hak_stats *stats)
{
    int error = hak_region_stats(NULL, stats);
    if (error != 0)
        bench_fail("no statistics: %s", strerror(-error));
}

static inline double layers_share(uint64_t part, uint64_t whole)
{
    return whole != 0 ? 100.0 * (double)part / (double)whole : 0;
}

static inline double layers_ratio(uint64_t sum, uint64_t count)
{
    return count != 0 ? (double)sum / (double)count : 0;
}

static inline struct layers layers_between(const struct hak_stats *before,
                                           const struct hak_stats *after, uint64_t allocations)
{
    struct layers layers = {
        .allocations = allocations,
        .refills = after->cache_refills - before->cache_refills,
        .flushes = after->cache_flushes - before->cache_flushes,
        .box_hits = after->box_hits - before->box_hits,
        .warm_hits = after->warm_hits - before->warm_hits,
        .warm_misses = after->warm_misses - before->warm_misses,
        .warm_prefilled = after->warm_prefilled - before->warm_prefilled,
        .pool_partial = after->pool_partial - before->pool_partial,
        .pool_fresh = after->pool_fresh - before->pool_fresh,
        .recycled = after->slabs_recycled - before->slabs_recycled,
    };
    layers.objects_a_refill = layers_ratio(after->refilled_objects - before->refilled_objects,
                                           layers.refills);
    layers.objects_a_flush = layers_ratio(after->flushed_objects - before->flushed_objects,
                                          layers.flushes);
    return layers;
}

/* A rate over nothing is not 0 %. */
static inline void layers_line(const char *name, uint64_t asked, uint64_t hits, const char *unit)
{
    if (asked == 0)
        printf("  %-14s not asked\n", name);
    else
        printf("  %-14s %8.4f %%   %llu of %llu %s\n", name, layers_share(hits, asked),
               (unsigned long long)hits, (unsigned long long)asked, unit);
}

static inline void layers_print(const struct layers *layers)
{
    uint64_t warm_asked = layers->warm_hits + layers->warm_misses;
    layers_line("thread cache", layers->allocations, layers->allocations - layers->refills,
                "allocations");
    layers_line("page box", layers->refills, layers->box_hits, "refills");
    layers_line("warm pool", warm_asked, layers->warm_hits, "slabs looked for");
    printf("  %-14s %llu SuperSlabs prefilled\n", "", (unsigned long long)layers->warm_prefilled);
    printf("  %-14s %llu slabs with room, %llu from free units, %llu empty ones recycled\n",
           "shared pool", (unsigned long long)layers->pool_partial,
           (unsigned long long)layers->pool_fresh, (unsigned long long)layers->recycled);
    printf("  %-14s %.1f objects a refill, %.1f objects a flush (%llu flushes)\n", "batches",
           layers->objects_a_refill, layers->objects_a_flush, (unsigned long long)layers->flushes);
}

#endif
