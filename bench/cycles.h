/* SPDX-License-Identifier: MIT */
/*
 * A clock fine enough to time one malloc: the processor's own counter.
 *
 * cycles_begin and cycles_end bracket the code under test. On x86-64 the fence before the first
 * read keeps earlier work out, rdtscp waits for the code in between, and the fence after it keeps
 * later work out (Intel's manual, volume 2B, RDTSC and RDTSCP; AMD's, volume 3). On arm64 isb does
 * both around cntvct_el0. The counter runs at a constant rate, which is not the core's: a "cycle"
 * here is a tick of that counter, and cycles_per_ns says how long one is. Some machines step it by
 * more than one at a time; cycles_step tells.
 *
 * The reads themselves are in region/base.h, like everything that depends on the processor.
 */
#ifndef HAK_BENCH_CYCLES_H
#define HAK_BENCH_CYCLES_H

#include "bench/support.h"

#define cycles_begin cpu_ticks_begin
#define cycles_end cpu_ticks_end

/* Ticks per nanosecond, measured against the monotonic clock over 50 ms. */
static inline double cycles_per_ns(void)
{
    uint64_t start_ns = bench_now_ns();
    uint64_t start = cycles_begin();
    uint64_t end_ns;
    do {
        end_ns = bench_now_ns();
    } while (end_ns - start_ns < 50000000u);
    return (double)(cycles_end() - start) / (double)(end_ns - start_ns);
}

/* What an empty pair costs, the median of many: part of every sample. */
static inline double cycles_overhead(void)
{
    enum { PAIRS = 4097 };
    static double samples[PAIRS];
    for (unsigned i = 0; i < PAIRS; i++) {
        uint64_t start = cycles_begin();
        samples[i] = (double)(cycles_end() - start);
    }
    return bench_median(samples, PAIRS);
}

/* The smallest difference above 0 between two readings: samples are no finer than this. */
static inline uint64_t cycles_step(void)
{
    uint64_t step = UINT64_MAX;
    for (unsigned i = 0; i < 4096; i++) {
        uint64_t first = cycles_begin();
        uint64_t second = cycles_begin();
        uint64_t third = cycles_begin();
        uint64_t less = second - first < third - second ? second - first : third - second;
        uint64_t more = second - first < third - second ? third - second : second - first;
        if (less != 0 && less < step)
            step = less;
        if (more > less && more - less < step)
            step = more - less;
    }
    return step;
}

#endif
