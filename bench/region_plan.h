/* SPDX-License-Identifier: MIT */
/*
 * What one run of bench/region shall do, and how its parts keep to their time: each has a number of
 * rounds and a number of seconds, does the first round in any case, and begins another only while
 * one as long as the longest so far would end in time.
 */
#ifndef HAK_BENCH_REGION_PLAN_H
#define HAK_BENCH_REGION_PLAN_H

#include "bench/support.h"

struct region_plan {
    size_t size_bytes;
    uint64_t nodes; /* those that have memory */
    cpu_set_t cpus; /* that the process was given */
    int cpu, node;  /* where a single thread runs, and the node whose memory it then uses */
    uint64_t seed;
    bool quick;
};

/* For results that nobody wants, so that the compiler computes them. */
static volatile uint64_t plan_sink;

static inline void plan_use(uint64_t result)
{
    plan_sink = result;
}

struct plan_clock {
    uint64_t end_ns, round_start_ns, longest_ns;
    unsigned rounds; /* at most; once plan_again said no, as many as there were */
};

static inline struct plan_clock plan_start(unsigned seconds, unsigned rounds)
{
    return (struct plan_clock){.end_ns = bench_now_ns() + seconds * (uint64_t)1000000000,
                               .rounds = rounds};
}

/* Whether to begin round number round, counted from 0. */
static inline bool plan_again(struct plan_clock *clock, unsigned round)
{
    uint64_t now_ns = bench_now_ns();
    if (round > 0 && now_ns - clock->round_start_ns > clock->longest_ns)
        clock->longest_ns = now_ns - clock->round_start_ns;
    clock->round_start_ns = now_ns;
    if (round == 0 || (round < clock->rounds && now_ns + clock->longest_ns <= clock->end_ns))
        return true;
    clock->rounds = round;
    return false;
}

#endif
