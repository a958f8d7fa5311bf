/* SPDX-License-Identifier: MIT */
/*
 * Which processors a thread runs on (sched_setaffinity(2)).
 *
 * "Original" is the affinity that the process was started with (taskset, numactl, cpuset): it is
 * noted when the library is loaded, so a thread that is pinned already can still start others
 * on all the processors that the process was given.
 */
#ifndef HAK_NUMA_PIN_H
#define HAK_NUMA_PIN_H

#include "numa/topology.h"

#include <stdbool.h>

#define PIN_WORD_BITS (8 * sizeof(unsigned long))

/* A set of processors. */
struct pin_mask {
    unsigned long words[TOPOLOGY_CPUS_MAX / PIN_WORD_BITS];
};

static inline bool pin_mask_has(const struct pin_mask *mask, unsigned cpu)
{
    return (mask->words[cpu / PIN_WORD_BITS] >> cpu % PIN_WORD_BITS & 1) != 0;
}

static inline void pin_mask_add(struct pin_mask *mask, unsigned cpu)
{
    mask->words[cpu / PIN_WORD_BITS] |= 1UL << cpu % PIN_WORD_BITS;
}

static inline void pin_mask_remove(struct pin_mask *mask, unsigned cpu)
{
    mask->words[cpu / PIN_WORD_BITS] &= ~(1UL << cpu % PIN_WORD_BITS);
}

/* The original affinity. What the kernel has taken from the process since is still in it. */
void pin_original(struct pin_mask *out);

/* Binds the calling thread to one processor. 0; -EINVAL for a number that is no processor or not
 * one that the kernel lets this process use; else what the kernel said. */
int pin_thread(int cpu);

/* Lets the calling thread run on those processors of the node that are in the original affinity.
 * 0; -ENODEV where there are none (the affinity stays as it is); else what the kernel said. */
int pin_to_node(int node);

/* How many processors pin_to_node would take. */
unsigned pin_node_cpu_count(int node);

/* How many processors the original affinity holds; at least 1. */
unsigned pin_cpu_count(void);

#endif
