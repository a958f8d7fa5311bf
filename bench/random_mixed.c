/* SPDX-License-Identifier: MIT */
/*
 * How fast is hakmem at replacing random objects of a working set, and which layer serves them?
 *
 * Calls hak_malloc and hak_free on a region that is set up from the environment (HAKMEM_...), and
 * prints the rate of each layer between warm-up and end: the steady state. The workload is in
 * random_mixed.h; random_mixed_plain is the same for other allocators.
 */
#define _GNU_SOURCE

#include <hakmem.h>

#include "bench/layers.h"

static struct hak_stats snapshots[2];

static void start(void)
{
    if (hak_region_init(NULL) == 0)
        return;
    struct hak_error error;
    hak_last_error(&error);
    bench_fail("%s\n%s", error.message, error.remedy);
}

static void pin(int cpu)
{
    int error = hak_thread_pin(cpu);
    if (error != 0)
        bench_fail("cannot pin to processor %d: %s", cpu, strerror(-error));
}

static void report(uint64_t replacements)
{
    struct layers layers = layers_between(&snapshots[0], &snapshots[1], replacements);
    printf("layers, steady state:\n");
    layers_print(&layers);
}

#define BENCH_NAME "random_mixed"
#define BENCH_MALLOC hak_malloc
#define BENCH_FREE hak_free
#define BENCH_PIN(cpu) pin(cpu)
#define BENCH_START() start()
#define BENCH_SNAPSHOT(which) layers_snapshot(&snapshots[which])
#define BENCH_REPORT(replacements) report(replacements)

#include "bench/random_mixed.h"
