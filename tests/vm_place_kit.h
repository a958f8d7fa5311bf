/* SPDX-License-Identifier: MIT */
/*
 * What the programs for machines with several nodes share. They find out by themselves what
 * machine they are on, and skip what it cannot show; on one node with memory they skip everything.
 *
 * Where pages are is asked of the kernel (move_pages(2)), which node is nearest is read from
 * sysfs here once more: the library's own answers are what is to be proven.
 *
 * Environment: VM_EXPECT, what the machine is promised to be, such as
 * "nodes=0-3 memoryless=1 cpuless=3 distances=asym cpuset=0,2" (lists of nodes; those without the
 * words have memory and processors, distances are symmetric, and without cpuset all may be used).
 * HAKMEM_PAGES: pages of the regions. VM_MIB: MiB of a node's segment, 16 unless said.
 */
#ifndef HAK_TESTS_VM_PLACE_KIT_H
#define HAK_TESTS_VM_PLACE_KIT_H

#include "alloc/thread.h"
#include "numa/topology.h"
#include "region/os.h"
#include "tests/heap_kit.h"

#include <numaif.h>
#include <sched.h>

/* Pages asked for in one call. */
#define VM_PAGES 512

static struct topology vm_machine;
/* Nodes of the machine that a segment can be on, in ascending order. */
static int vm_nodes[TOPOLOGY_NODES_MAX];
static unsigned vm_node_count;

/* Reads the machine; skips where fewer nodes than these have memory. */
static inline void vm_needs(unsigned nodes)
{
    CHECK_EQ(topology_read(&vm_machine), 0);
    vm_node_count = 0;
    for (int node = 0; node < (int)vm_machine.node_end; node++) {
        if (topology_memory_mask(&vm_machine) >> node & 1) {
            vm_nodes[vm_node_count++] = node;
        }
    }
    if (vm_node_count < nodes) {
        SKIP("%u node(s) with memory here, %u are needed", vm_node_count, nodes);
    }
}

static inline bool vm_failed(void)
{
    return __atomic_load_n(&harness_state.outcome, __ATOMIC_RELAXED) != HARNESS_OK;
}

/* ---- processors and distances ---------------------------------------------------------------- */

/* The lowest processor of a node that this process was given; -1: none. */
static inline int vm_cpu_on(int node)
{
    cpu_set_t given;

    CHECK_EQ(sched_getaffinity(getpid(), sizeof(given), &given), 0);
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (CPU_ISSET((size_t)cpu, &given) && vm_machine.cpu_node[cpu] == node) {
            return cpu;
        }
    }
    return -1;
}

/* The distance that the kernel gives from one node to another. */
static inline unsigned vm_distance(int from, int to)
{
    char name[96];
    unsigned distance = 0;

    snprintf(name, sizeof(name), "/sys/devices/system/node/node%d/distance", from);
    FILE *file = fopen(name, "r");
    CHECK(file != NULL);
    for (int node = 0; node <= to; node++) {
        if (vm_machine.nodes[node].exists && fscanf(file, "%u", &distance) != 1) {
            FAIL("%s is too short for node %d", name, to);
        }
    }
    fclose(file);
    return distance;
}

/* Of the set the node nearest to from, the lower number of equals. */
static inline int vm_nearest(int from, uint64_t nodes)
{
    int best = -1;

    for (int node = 0; node < TOPOLOGY_NODES_MAX; node++) {
        if ((nodes >> node & 1) != 0 &&
            (best < 0 || vm_distance(from, node) < vm_distance(from, best))) {
            best = node;
        }
    }
    return best;
}

/* The segments' nodes of the default region. */
static inline uint64_t vm_region_nodes(void)
{
    const struct hak_region *heap = hak_region_default();
    uint64_t nodes = 0;

    for (uint32_t n = 0; n < heap->area.segment_count; n++) {
        nodes |= UINT64_C(1) << heap->area.segments[n].node;
    }
    return nodes;
}

/* The node that objects of a thread on this one are to come from. */
static inline int vm_home_of(int node)
{
    uint64_t nodes = vm_region_nodes();

    return (nodes >> node & 1) != 0 ? node : vm_nearest(node, nodes);
}

/* Binds the calling thread by the kernel's call, not the library's. */
static inline void vm_move_to(int cpu)
{
    cpu_set_t only;

    CPU_ZERO(&only);
    CPU_SET((size_t)cpu, &only);
    CHECK_EQ(sched_setaffinity(0, sizeof(only), &only), 0);
    CHECK_EQ(sched_getcpu(), cpu);
}

/* ---- where pages are ------------------------------------------------------------------------- */

/* Pages still to be asked for; all are to be on the same node. */
struct vm_pages {
    void *at[VM_PAGES];
    unsigned count;
    int node;
    size_t asked;
};

static inline void vm_ask(struct vm_pages *pages)
{
    int status[VM_PAGES];

    memset(status, 0xee, sizeof(status));
    if (pages->count > 0 && move_pages(0, pages->count, pages->at, NULL, status, 0) < 0) {
        FAIL("move_pages: %s", strerror(errno));
    }
    for (unsigned n = 0; n < pages->count; n++) {
        if (status[n] != pages->node) {
            FAIL("%p is on node %d (negative: -errno), not on node %d", pages->at[n], status[n],
                 pages->node);
        }
    }
    pages->asked += pages->count;
    pages->count = 0;
}

/* Every page of [start, start + bytes), touched first. */
static inline void vm_expect(struct vm_pages *pages, void *start, size_t bytes)
{
    uintptr_t first = (uintptr_t)start & ~(uintptr_t)4095;
    uintptr_t end = (uintptr_t)start + bytes;

    for (uintptr_t at = first; at < end; at += 4096) {
        volatile unsigned char *byte = (void *)max_size(at, (uintptr_t)start);
        const unsigned char same = *byte;
        *byte = same;
        pages->at[pages->count++] = (void *)at;
        if (pages->count == VM_PAGES) {
            vm_ask(pages);
        }
    }
}

/* The object's node, by its first byte. */
static inline int vm_node_of(void *object)
{
    void *page = (void *)((uintptr_t)object & ~(uintptr_t)4095);
    int status = -1;

    *(volatile unsigned char *)object = 1;
    CHECK_EQ(move_pages(0, 1, &page, NULL, &status, 0), 0);
    return status;
}

/* ---- regions --------------------------------------------------------------------------------- */

static inline size_t vm_segment_bytes(void)
{
    const char *given = getenv("VM_MIB");
    size_t mib = given != NULL ? strtoul(given, NULL, 10) : 16;

    return max_size(mib, 8) * MIB;
}

/* Of the pages that HAKMEM_PAGES names. */
static inline struct hak_config vm_config(unsigned segments, enum hak_exhausted exhausted)
{
    return (struct hak_config){.size_bytes = segments * vm_segment_bytes(),
                               .misuse = HAK_MISUSE_ABORT,
                               .exhausted = exhausted};
}

static inline struct hak_region *vm_start(const struct hak_config *config)
{
    struct hak_error error;

    kit_forget_last();
    int code = hak_region_init(config);
    if (code != 0) {
        (void)hak_last_error(&error);
        FAIL("hak_region_init: %d: %s", code, error.message);
    }
    return hak_region_default();
}

/* A segment on every node that can have one. */
static inline struct hak_region *vm_open(enum hak_exhausted exhausted)
{
    struct hak_config config = vm_config(vm_node_count, exhausted);
    struct hak_region *heap = vm_start(&config);

    CHECK_EQ(heap->area.segment_count, vm_node_count);
    for (unsigned n = 0; n < vm_node_count; n++) {
        CHECK_EQ(heap->area.segments[n].node, vm_nodes[n]);
    }
    return heap;
}

static inline struct hak_node_stats vm_node_stats(int node)
{
    struct hak_node_stats stats;

    for (unsigned n = 0; hak_region_node_stats(NULL, n, &stats) == 0; n++) {
        if (stats.node == node) {
            return stats;
        }
    }
    FAIL("the region has no segment on node %d", node);
}

#endif
