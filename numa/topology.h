/* SPDX-License-Identifier: MIT */
/*
 * The machine's nodes: which exist, which have memory or processors, which this process may use,
 * how far they are from each other, and which node a processor belongs to.
 *
 * Node numbers are the kernel's, 0 to 63; there may be holes, nodes without memory and nodes
 * without processors. Nothing here allocates: the answers come from sysfs by plain reads and from
 * get_mempolicy(2), because libnuma's own tables are filled by its constructor and by malloc, and
 * a preloaded allocator is asked for memory before the one and is the other.
 *
 * Any thread. topology_read and topology_parse open files (set-up only); the rest is cheap.
 */
#ifndef HAK_NUMA_TOPOLOGY_H
#define HAK_NUMA_TOPOLOGY_H

#include <stdbool.h>
#include <stdint.h>

#define TOPOLOGY_NODES_MAX 64
/* The largest NR_CPUS that Linux can be built with on x86-64 and arm64. */
#define TOPOLOGY_CPUS_MAX 8192
#define TOPOLOGY_DISTANCE_UNKNOWN 255
/* Where the kernel describes its nodes; tests give topology_parse another folder. */
#define TOPOLOGY_SYSFS "/sys/devices/system/node"

struct topology_node {
    bool exists;          /* online */
    bool has_memory;      /* MemTotal is not 0 */
    bool has_cpus;        /* at least one online processor */
    bool allowed;         /* this process may allocate on it (Mems_allowed) */
    uint64_t total_bytes; /* MemTotal */
};

struct topology {
    unsigned node_end; /* one more than the highest existing node */
    struct topology_node nodes[TOPOLOGY_NODES_MAX];
    unsigned char distance[TOPOLOGY_NODES_MAX][TOPOLOGY_NODES_MAX]; /* 10 = itself */
    signed char cpu_node[TOPOLOGY_CPUS_MAX];                        /* -1: no such processor */
};

/* Fills *out with what the machine has now, and the table behind topology_cpu_node. 0 or a
 * negative errno; a machine without NUMA or sysfs is one node 0 with everything. */
int topology_read(struct topology *out);

/* As topology_read, from another folder than TOPOLOGY_SYSFS and for the given set of allowed
 * nodes; leaves the process's tables alone. -ENOENT where the folder describes no node. */
int topology_parse(const char *directory, uint64_t allowed_mask, struct topology *out);

/* The nodes that a process's status file (proc(5): Mems_allowed_list) allows; all where the file or
 * its line is not there. */
uint64_t topology_parse_allowed(const char *status_path);

/* The node of a processor, -1 for one that does not exist. Reads the machine at its first call. */
int topology_cpu_node(int cpu);

/* The node that the calling thread runs on now; never negative, never allocates, no system call
 * where the kernel's vDSO has getcpu. */
int topology_current_node(void);

/* The node of candidates_mask nearest to from (itself, if it is in), ties to the lower number;
 * a from that is no node is equally far from all. -1 for an empty mask. */
int topology_nearest(const struct topology *topology, int from, uint64_t candidates_mask);

/* Bit n: node n exists, has memory, and may be used. */
uint64_t topology_memory_mask(const struct topology *topology);

/*
 * For tests on machines with one node: from now on the machine has so many nodes (at most 64),
 * its processors dealt out in turn, distances 10 and 20 + |i - j|; 0 ends it. Call while no
 * other thread is in this file.
 */
void topology_fake(unsigned nodes);

/* The real node to bind to, and to expect, for a node that topology_read reported; the number
 * itself unless topology_fake is on. */
int topology_physical(int node);

#endif
