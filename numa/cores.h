/* SPDX-License-Identifier: MIT */
/*
 * In which order to put workers on processors: the nodes in turn, and on a node one processor of
 * each core before any core's second, since the processors of a core share its caches and its
 * pipelines. Called by alloc/workers; set-up only, nothing here allocates.
 */
#ifndef HAK_NUMA_CORES_H
#define HAK_NUMA_CORES_H

#include "numa/pin.h"
#include "numa/topology.h"

#include <stdint.h>

/* Where the kernel describes its processors; tests give another folder. */
#define CORES_SYSFS "/sys/devices/system/cpu"

/* A processor to be used, and why not earlier. */
struct cores_place {
    uint16_t cpu;
    uint16_t turn; /* processors of the same node that come before it */
    uint8_t rank;  /* processors of the same core that come before it */
    uint8_t node;
};

/*
 * The processors of usable on the given nodes, in that order; their number. After them come those
 * of nodes that can have no segment (no memory, or none for this process) and are nearest to one of
 * the given ones. Where there are neither, the usable processors of all nodes. A core whose folder
 * does not tell is taken for one processor.
 */
unsigned cores_order(const char *directory, const struct topology *topology,
                     const struct pin_mask *usable, uint64_t nodes,
                     struct cores_place places[TOPOLOGY_CPUS_MAX]);

#endif
