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
