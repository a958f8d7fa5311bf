/* SPDX-License-Identifier: MIT */
/* Processors by core and node; see cores.h. */
#include "numa/cores.h"

#include "numa/ranges.h"

#include <stdio.h>

/* While one processor's siblings are listed. */
struct siblings {
    const struct topology *topology;
    const struct pin_mask *usable;
    unsigned cpu;
    unsigned before; /* of those, usable ones with a lower number on the same node */
};

static void count_before(void *context, unsigned first, unsigned last)
{
    struct siblings *siblings = context;
    for (unsigned cpu = first; cpu <= last && cpu < siblings->cpu; cpu++)
        if (pin_mask_has(siblings->usable, cpu) &&
            siblings->topology->cpu_node[cpu] == siblings->topology->cpu_node[siblings->cpu])
            siblings->before++;
}

/* How many processors of its core are used before this one. */
static uint8_t core_rank(const char *directory, const struct topology *topology,
                         const struct pin_mask *usable, unsigned cpu)
{
    /* The second name is that of kernels before 5.3. */
    static const char *const names[] = {"core_cpus_list", "thread_siblings_list"};
    struct siblings siblings = {.topology = topology, .usable = usable, .cpu = cpu};
    for (unsigned i = 0; i < sizeof names / sizeof *names; i++) {
        char path[256];
        snprintf(path, sizeof path, "%s/cpu%u/topology/%s", directory, cpu, names[i]);
        if (ranges_read(path, count_before, &siblings) == 0)
            break;
    }
    return (uint8_t)(siblings.before < UINT8_MAX ? siblings.before : UINT8_MAX);
}

/* On a node: cores before second processors, then by number. */
static int by_core(const void *left, const void *right)
{
    const struct cores_place *a = left, *b = right;
    if (a->node != b->node)
        return a->node < b->node ? -1 : 1;
    if (a->rank != b->rank)
        return a->rank < b->rank ? -1 : 1;
    return (a->cpu > b->cpu) - (a->cpu < b->cpu);
}

/* One of each node, then the second of each. */
static int by_turn(const void *left, const void *right)
{
    const struct cores_place *a = left, *b = right;
    if (a->turn != b->turn)
        return a->turn < b->turn ? -1 : 1;
    return (a->node > b->node) - (a->node < b->node);
}

/* Heap sort: in place. qsort may ask malloc for memory, which may be this library's. */
static void sift(struct cores_place *places, unsigned from, unsigned count,
                 int (*order)(const void *, const void *))
{
    for (unsigned child; (child = 2 * from + 1) < count; from = child) {
        if (child + 1 < count && order(&places[child], &places[child + 1]) < 0)
            child++;
        if (order(&places[from], &places[child]) >= 0)
            return;
        struct cores_place moved = places[from];
        places[from] = places[child];
        places[child] = moved;
    }
}

static void sort(struct cores_place *places, unsigned count,
                 int (*order)(const void *, const void *))
{
    for (unsigned from = count / 2; from-- > 0;)
        sift(places, from, count, order);
    for (unsigned end = count; end-- > 1;) {
        struct cores_place last = places[end];
        places[end] = places[0];
        places[0] = last;
        sift(places, 0, end, order);
    }
}

/* Appends the processors of these nodes, in order. */
static unsigned append(const char *directory, const struct topology *topology,
                       const struct pin_mask *usable, uint64_t nodes, struct cores_place *places)
{
    unsigned count = 0;
    for (unsigned cpu = 0; cpu < TOPOLOGY_CPUS_MAX; cpu++) {
        int node = (int)topology->cpu_node[cpu]; /* -1: none */
        if (node < 0 || (nodes >> node & 1) == 0 || !pin_mask_has(usable, cpu))
            continue;
        places[count++] = (struct cores_place){.cpu = (uint16_t)cpu,
                                               .node = (uint8_t)node,
                                               .rank = core_rank(directory, topology, usable, cpu)};
    }
    sort(places, count, by_core);
    for (unsigned n = 0; n < count; n++) {
        bool first = n == 0 || places[n - 1].node != places[n].node;
        places[n].turn = first ? 0 : (uint16_t)(places[n - 1].turn + 1);
    }
    sort(places, count, by_turn);
    return count;
}

/* Nodes that can have no segment and whose nearest that can is one of these. */
static uint64_t without_memory(const struct topology *topology, uint64_t nodes)
{
    uint64_t with = topology_memory_mask(topology) | nodes, without = 0;
    for (int node = 0; node < (int)topology->node_end; node++)
        if ((with >> node & 1) == 0 && (nodes >> topology_nearest(topology, node, with) & 1) != 0)
            without |= UINT64_C(1) << node;
    return without;
}

unsigned cores_order(const char *directory, const struct topology *topology,
                     const struct pin_mask *usable, uint64_t nodes,
                     struct cores_place places[TOPOLOGY_CPUS_MAX])
{
    unsigned count = append(directory, topology, usable, nodes, places);
    count += append(directory, topology, usable, without_memory(topology, nodes), places + count);
    return count > 0 ? count : append(directory, topology, usable, UINT64_MAX, places);
}
