/* SPDX-License-Identifier: MIT */
/*
 * How fast is a malloc at replacing random objects of a working set?
 *
 * The program to preload: it calls malloc and free, and is the same for every allocator. See
 * random_mixed.h for the workload, random_mixed.c for hakmem's own calls and layer statistics.
 */
#define _GNU_SOURCE

#define BENCH_NAME "random_mixed_plain"
#define BENCH_MALLOC malloc
#define BENCH_FREE free
#define BENCH_PIN(cpu) bench_pin(cpu)
#define BENCH_START() ((void)0)
#define BENCH_SNAPSHOT(which) ((void)0)
#define BENCH_REPORT(replacements) ((void)(replacements))

#include "bench/random_mixed.h"
