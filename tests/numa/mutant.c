/* SPDX-License-Identifier: MIT */
/*
 * Libraries that are wrong on purpose: put in front of bind_strict and bind_verify by the linker
 * (--wrap, see prepare.sh), so that the rest is the library as it is. A test that such a library
 * passes proves nothing; tests/numa/scenes.sh says which case must find which of them.
 *
 *   MUTANT_BIND     0 binds as asked, 1 to the next node that has memory, 2 not at all
 *   MUTANT_VERIFY   0 asks the kernel, 1 calls every page right
 */
#include "numa/topology.h"

#include <stddef.h>

int __real_bind_strict(void *start, size_t bytes, int node);
int __real_bind_verify(void *start, size_t bytes, size_t page_bytes, int node, size_t *wrong);
int __wrap_bind_strict(void *start, size_t bytes, int node);
int __wrap_bind_verify(void *start, size_t bytes, size_t page_bytes, int node, size_t *wrong);

static int next_node(int node)
{
    static struct topology topology;
    if (topology_read(&topology) != 0) {
        return node;
    }
    uint64_t mask = topology_memory_mask(&topology);
    do {
        node = (node + 1) % TOPOLOGY_NODES_MAX;
    } while ((mask >> node & 1) == 0);
    return node;
}

int __wrap_bind_strict(void *start, size_t bytes, int node)
{
    if (MUTANT_BIND == 2) {
        return 0;
    }
    return __real_bind_strict(start, bytes, MUTANT_BIND == 1 ? next_node(node) : node);
}

int __wrap_bind_verify(void *start, size_t bytes, size_t page_bytes, int node, size_t *wrong)
{
    if (MUTANT_VERIFY == 1) {
        *wrong = 0;
        return 0;
    }
    return __real_bind_verify(start, bytes, page_bytes, node, wrong);
}
