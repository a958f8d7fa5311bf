/* SPDX-License-Identifier: MIT */
/*
 * Reads sysfs with open and read only, into the caller's struct; see topology.h for why not
 * libnuma's tables. The one table kept here, processor to node, is written by every
 * topology_read with what the machine has then and read without locks: each entry stands for
 * itself, so relaxed loads and stores do.
 *
 * numa/pin, numa/bind, region/ and alloc/thread call in.
 */
#define _GNU_SOURCE
#include "numa/topology.h"

#include "numa/ranges.h"
#include "numa/sysfs.h"

#include <errno.h>
#include <numaif.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysinfo.h>
#include <unistd.h>

/* Nodes that a kernel can be built for: get_mempolicy refuses a smaller mask. */
#define KERNEL_NODES_MAX 1024
#define LONG_BITS (8 * sizeof(unsigned long))
#define PATH_BYTES 256

/* Node of each processor plus one; 0 where there is none. */
static _Atomic unsigned char cpu_table[TOPOLOGY_CPUS_MAX];
static atomic_bool cpu_table_filled;

static _Atomic unsigned fake_nodes;
static int fake_physical[TOPOLOGY_NODES_MAX];

/* What a list of the kernel's is about. */
struct listing {
    struct topology *topology;
    unsigned node;
};

static void note_nodes(void *context, unsigned first, unsigned last)
{
    struct topology *topology = ((struct listing *)context)->topology;
    for (unsigned n = first; n <= last && n < TOPOLOGY_NODES_MAX; n++) {
        topology->nodes[n].exists = true;
        if (n >= topology->node_end)
            topology->node_end = n + 1;
    }
}

static void note_cpus(void *context, unsigned first, unsigned last)
{
    const struct listing *listing = context;
    for (unsigned cpu = first; cpu <= last && cpu < TOPOLOGY_CPUS_MAX; cpu++) {
        listing->topology->cpu_node[cpu] = (signed char)listing->node;
        listing->topology->nodes[listing->node].has_cpus = true;
    }
}

static void read_memory(const char *directory, struct topology *topology, unsigned node)
{
    char path[PATH_BYTES], text[4096];
    snprintf(path, sizeof path, "%s/node%u/meminfo", directory, node);
    if (sysfs_read(path, text, sizeof text) < 0)
        return;
    topology->nodes[node].total_bytes = sysfs_find_number(text, "MemTotal:") << 10;
    topology->nodes[node].has_memory = topology->nodes[node].total_bytes != 0;
}

/* A node's distances are listed in the order of the online nodes, holes left out. */
static void read_distances(const char *directory, struct topology *topology, unsigned node)
{
    char path[PATH_BYTES], text[4096];
    snprintf(path, sizeof path, "%s/node%u/distance", directory, node);
    if (sysfs_read(path, text, sizeof text) < 0)
        return;
    char *at = text;
    for (unsigned other = 0; other < topology->node_end; other++) {
        if (!topology->nodes[other].exists)
            continue;
        char *end;
        unsigned long distance = strtoul(at, &end, 10);
        if (end == at)
            return;
        if (distance > 0 && distance < TOPOLOGY_DISTANCE_UNKNOWN)
            topology->distance[node][other] = (unsigned char)distance;
        at = end;
    }
}

static void clear_topology(struct topology *topology)
{
    memset(topology, 0, sizeof *topology);
    memset(topology->distance, TOPOLOGY_DISTANCE_UNKNOWN, sizeof topology->distance);
    memset(topology->cpu_node, -1, sizeof topology->cpu_node);
    for (unsigned node = 0; node < TOPOLOGY_NODES_MAX; node++)
        topology->distance[node][node] = 10;
}

int topology_parse(const char *directory, uint64_t allowed_mask, struct topology *out)
{
    char path[PATH_BYTES];
    struct listing listing = {.topology = out};
    clear_topology(out);
    snprintf(path, sizeof path, "%s/online", directory);
    int code = ranges_read(path, note_nodes, &listing);
    if (code != 0)
        return code;
    if (out->node_end == 0)
        return -ENOENT;
    for (unsigned node = 0; node < out->node_end; node++) {
        if (!out->nodes[node].exists)
            continue;
        out->nodes[node].allowed = (allowed_mask >> node & 1) != 0;
        read_memory(directory, out, node);
        read_distances(directory, out, node);
        snprintf(path, sizeof path, "%s/node%u/cpulist", directory, node);
        listing.node = node;
        /* A node whose list cannot be read has no processors as far as we can use them. */
        (void)ranges_read(path, note_cpus, &listing);
    }
    return 0;
}

static uint64_t machine_bytes(void)
{
    struct sysinfo info;
    return sysinfo(&info) == 0 ? (uint64_t)info.totalram * info.mem_unit : 0;
}

/* Kernels and containers without the node folder: everything is node 0. */
static void assume_one_node(struct topology *topology)
{
    clear_topology(topology);
    topology->nodes[0].total_bytes = machine_bytes();
    topology->node_end = 1;
    topology->nodes[0].exists = true;
    topology->nodes[0].has_memory = true;
    topology->nodes[0].allowed = true;
    struct listing listing = {.topology = topology};
    long cpus = sysconf(_SC_NPROCESSORS_CONF);
    note_cpus(&listing, 0, cpus > 0 ? (unsigned)cpus - 1 : 0);
}

static void note_allowed(void *context, unsigned first, unsigned last)
{
    uint64_t *mask = context;
    for (unsigned node = first; node <= last && node < TOPOLOGY_NODES_MAX; node++)
        *mask |= UINT64_C(1) << node;
}

uint64_t topology_parse_allowed(const char *status_path)
{
    static const char key[] = "\nMems_allowed_list:";
    char text[8192];
    uint64_t mask = 0;
    if (sysfs_read(status_path, text, sizeof text) < 0)
        return UINT64_MAX;
    const char *at = strstr(text, key);
    if (at == NULL)
        return UINT64_MAX;
    ranges_scan(at + sizeof key - 1, note_allowed, &mask);
    return mask;
}

/* The cpuset's nodes, of cgroups v1 and v2 alike. Filters of system calls, as containers have them,
 * often forbid the call, and then the file still tells. */
static uint64_t read_allowed(void)
{
    unsigned long mask[KERNEL_NODES_MAX / LONG_BITS + 1] = {0};
    if (get_mempolicy(NULL, mask, KERNEL_NODES_MAX + 1, NULL, MPOL_F_MEMS_ALLOWED) == 0)
        return mask[0];
    return topology_parse_allowed("/proc/thread-self/status");
}

static void read_machine(struct topology *out)
{
    unsigned with_memory = 0, only = 0;
    if (topology_parse(TOPOLOGY_SYSFS, read_allowed(), out) != 0)
        assume_one_node(out);
    for (unsigned node = 0; node < out->node_end; node++) {
        if (!out->nodes[node].has_memory)
            continue;
        with_memory++;
        only = node;
    }
    /* A virtual machine that is given its memory bit by bit: the node's figure is what has come
     * so far. With one node the machine's figure is the node's. */
    if (with_memory == 1) {
        uint64_t whole = machine_bytes(), *total = &out->nodes[only].total_bytes;
        *total = whole > *total ? whole : *total;
    }
}

static void pretend(struct topology *topology, unsigned count)
{
    unsigned shared[TOPOLOGY_NODES_MAX] = {0};
    struct topology_node real[TOPOLOGY_NODES_MAX];
    memcpy(real, topology->nodes, sizeof real);
    memset(topology->nodes, 0, sizeof topology->nodes);
    for (unsigned node = 0; node < count; node++)
        shared[fake_physical[node]]++;
    for (unsigned node = 0; node < count; node++) {
        const struct topology_node *physical = &real[fake_physical[node]];
        topology->nodes[node].exists = true;
        topology->nodes[node].has_memory = physical->has_memory;
        topology->nodes[node].allowed = physical->allowed;
        topology->nodes[node].total_bytes = physical->total_bytes / shared[fake_physical[node]];
        for (unsigned other = 0; other < count; other++) {
            unsigned apart = node > other ? node - other : other - node;
            topology->distance[node][other] = (unsigned char)(apart == 0 ? 10 : 20 + apart);
        }
    }
    for (unsigned cpu = 0; cpu < TOPOLOGY_CPUS_MAX; cpu++) {
        if (topology->cpu_node[cpu] < 0)
            continue;
        topology->cpu_node[cpu] = (signed char)(cpu % count);
        topology->nodes[cpu % count].has_cpus = true;
    }
    topology->node_end = count;
}

int topology_read(struct topology *out)
{
    read_machine(out);
    unsigned count = atomic_load_explicit(&fake_nodes, memory_order_relaxed);
    if (count != 0)
        pretend(out, count);
    for (unsigned cpu = 0; cpu < TOPOLOGY_CPUS_MAX; cpu++) {
        unsigned char entry = (unsigned char)(out->cpu_node[cpu] + 1);
        /* Most entries are 0 and stay so: a store would only dirty pages. */
        if (atomic_load_explicit(&cpu_table[cpu], memory_order_relaxed) != entry)
            atomic_store_explicit(&cpu_table[cpu], entry, memory_order_relaxed);
    }
    /* [filled] pairs with the acquire in topology_cpu_node. */
    atomic_store_explicit(&cpu_table_filled, true, memory_order_release);
    return 0;
}

int topology_cpu_node(int cpu)
{
    if (cpu < 0 || cpu >= TOPOLOGY_CPUS_MAX)
        return -1;
    /* [filled] */
    if (!atomic_load_explicit(&cpu_table_filled, memory_order_acquire)) {
        struct topology topology;
        topology_read(&topology);
    }
    return (int)atomic_load_explicit(&cpu_table[cpu], memory_order_relaxed) - 1;
}

int topology_current_node(void)
{
    unsigned cpu = 0, node = 0;
    if (getcpu(&cpu, &node) != 0)
        return 0;
    if (atomic_load_explicit(&fake_nodes, memory_order_relaxed) != 0 && cpu < TOPOLOGY_CPUS_MAX) {
        unsigned entry = atomic_load_explicit(&cpu_table[cpu], memory_order_relaxed);
        return entry == 0 ? 0 : (int)entry - 1;
    }
    return (int)node;
}

int topology_nearest(const struct topology *topology, int from, uint64_t candidates_mask)
{
    int best = -1;
    unsigned best_distance = 0;
    bool known = from >= 0 && from < TOPOLOGY_NODES_MAX;
    if (known && (candidates_mask >> from & 1) != 0)
        return from;
    for (int node = 0; node < TOPOLOGY_NODES_MAX; node++) {
        if ((candidates_mask >> node & 1) == 0)
            continue;
        unsigned distance = known ? topology->distance[from][node] : TOPOLOGY_DISTANCE_UNKNOWN;
        if (best < 0 || distance < best_distance) {
            best = node;
            best_distance = distance;
        }
    }
    return best;
}

uint64_t topology_memory_mask(const struct topology *topology)
{
    uint64_t mask = 0;
    for (unsigned node = 0; node < topology->node_end; node++) {
        const struct topology_node *entry = &topology->nodes[node];
        if (entry->exists && entry->has_memory && entry->allowed)
            mask |= UINT64_C(1) << node;
    }
    return mask;
}

void topology_fake(unsigned nodes)
{
    struct topology topology;
    read_machine(&topology);
    uint64_t mask = topology_memory_mask(&topology), left = mask;
    unsigned count = nodes < TOPOLOGY_NODES_MAX ? nodes : TOPOLOGY_NODES_MAX;
    for (unsigned node = 0; node < count; node++) {
        if (left == 0)
            left = mask;
        fake_physical[node] = left == 0 ? 0 : __builtin_ctzll(left);
        left &= left - 1;
    }
    atomic_store_explicit(&fake_nodes, count, memory_order_relaxed);
    topology_read(&topology);
}

int topology_physical(int node)
{
    unsigned count = atomic_load_explicit(&fake_nodes, memory_order_relaxed);
    if (node < 0 || (unsigned)node >= count)
        return node;
    return fake_physical[node];
}
