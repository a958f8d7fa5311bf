/* SPDX-License-Identifier: MIT */
/*
 * Affinity by the kernel's masks, 8,192 processors wide where glibc's cpu_set_t stops at 1,024.
 * Called by alloc/workers and by the threads that fault a region in.
 */
#define _GNU_SOURCE
#include "numa/pin.h"

#include "numa/topology.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>

static struct pin_mask original;
static pthread_once_t original_once = PTHREAD_ONCE_INIT;

static int set_affinity(const struct pin_mask *mask)
{
    return sched_setaffinity(0, sizeof *mask, (const cpu_set_t *)(const void *)mask) == 0 ? 0
                                                                                          : -errno;
}

static void note_original(void)
{
    /* Where the kernel does not say, everything: it cuts what we ask for down by itself. */
    if (sched_getaffinity(0, sizeof original, (cpu_set_t *)(void *)&original) != 0)
        memset(&original, 0xff, sizeof original);
}

/* Before main, so before the program can pin anybody; earlier where a preloaded allocator is. */
__attribute__((constructor)) static void note_original_at_load(void)
{
    pthread_once(&original_once, note_original);
}

static unsigned collect_node(int node, struct pin_mask *out)
{
    unsigned count = 0;
    memset(out, 0, sizeof *out);
    pthread_once(&original_once, note_original);
    for (unsigned cpu = 0; cpu < TOPOLOGY_CPUS_MAX; cpu++) {
        if (!pin_mask_has(&original, cpu) || topology_cpu_node((int)cpu) != node)
            continue;
        pin_mask_add(out, cpu);
        count++;
    }
    return count;
}

void pin_original(struct pin_mask *out)
{
    pthread_once(&original_once, note_original);
    *out = original;
}

int pin_thread(int cpu)
{
    struct pin_mask mask = {0};
    if (cpu < 0 || cpu >= TOPOLOGY_CPUS_MAX)
        return -EINVAL;
    pin_mask_add(&mask, (unsigned)cpu);
    return set_affinity(&mask);
}

int pin_to_node(int node)
{
    struct pin_mask mask;
    if (node < 0 || collect_node(node, &mask) == 0)
        return -ENODEV;
    return set_affinity(&mask);
}

unsigned pin_node_cpu_count(int node)
{
    struct pin_mask mask;
    return node < 0 ? 0 : collect_node(node, &mask);
}

unsigned pin_cpu_count(void)
{
    unsigned count = 0;
    pthread_once(&original_once, note_original);
    for (unsigned cpu = 0; cpu < TOPOLOGY_CPUS_MAX; cpu++)
        if (pin_mask_has(&original, cpu) && topology_cpu_node((int)cpu) >= 0)
            count++;
    return count > 0 ? count : 1;
}
