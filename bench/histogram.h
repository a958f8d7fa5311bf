/* SPDX-License-Identifier: MIT */
/*
 * Latencies in buckets: exact below 128, then 64 to a doubling (at most 1.6 % wide), to 2^40.
 *
 * Recording is one increment of a table that is in place and touched before the run, so that no
 * sample is ever left out. One histogram per thread; merged afterwards.
 */
#ifndef HAK_BENCH_HISTOGRAM_H
#define HAK_BENCH_HISTOGRAM_H

#include "bench/support.h"

#define HISTOGRAM_FINE_LOG2 6
#define HISTOGRAM_TOP_LOG2 40
#define HISTOGRAM_BUCKETS ((HISTOGRAM_TOP_LOG2 - HISTOGRAM_FINE_LOG2 + 1) << HISTOGRAM_FINE_LOG2)

struct histogram {
    uint64_t max;
    uint64_t count[HISTOGRAM_BUCKETS];
};

/* Bucket of a value: the shift that leaves its 7 leading bits, and those bits. */
HAK_INLINE unsigned histogram_bucket(uint64_t value)
{
    if (value < (2u << HISTOGRAM_FINE_LOG2))
        return (unsigned)value;
    if (unlikely(value >> HISTOGRAM_TOP_LOG2 != 0))
        return HISTOGRAM_BUCKETS - 1;
    unsigned shift = 63u - (unsigned)__builtin_clzll(value) - HISTOGRAM_FINE_LOG2;
    return (shift << HISTOGRAM_FINE_LOG2) + (unsigned)(value >> shift);
}

/* The largest value of a bucket: percentiles are rounded up, never down. */
static inline uint64_t histogram_bucket_top(unsigned bucket)
{
    if (bucket < (2u << HISTOGRAM_FINE_LOG2))
        return bucket;
    unsigned shift = (bucket >> HISTOGRAM_FINE_LOG2) - 1;
    uint64_t leading = bucket - ((uint64_t)shift << HISTOGRAM_FINE_LOG2);
    return ((leading + 1) << shift) - 1;
}

HAK_INLINE void histogram_record(struct histogram *histogram, uint64_t value)
{
    histogram->count[histogram_bucket(value)]++;
    if (unlikely(value > histogram->max))
        histogram->max = value;
}

static inline void histogram_merge(struct histogram *into, const struct histogram *from)
{
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
        into->count[i] += from->count[i];
    into->max = from->max > into->max ? from->max : into->max;
}

/* The least value that at least the given share (0 to 1) of the samples does not exceed. */
static inline uint64_t histogram_percentile(const struct histogram *histogram, double share)
{
    uint64_t total = 0;
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
        total += histogram->count[i];
    uint64_t seen = 0;
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
        seen += histogram->count[i];
        if (seen > 0 && (double)seen >= share * (double)total) {
            uint64_t top = histogram_bucket_top(i);
            return top < histogram->max ? top : histogram->max;
        }
    }
    return histogram->max;
}

#endif
