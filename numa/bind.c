/* SPDX-License-Identifier: MIT */
/*
 * mbind and move_pages through libnuma's numaif.h, which wraps the system calls without state of
 * its own. Called by region/backing when a segment is made and by region/faultin.
 */
#include "numa/bind.h"

#include "numa/topology.h"

#include <errno.h>
#include <numaif.h>
#include <stdbool.h>
#include <stdint.h>

/* Pages asked for in one system call: 12 KiB of stack. */
#define VERIFY_PAGES 1024

/* uapi/linux/mempolicy.h; numaif.h lacks it. The set means these very nodes, also after a cpuset
 * has been given others; without it the kernel would rename them. */
#define POLICY_STATIC_NODES (1 << 15)

/* Whether the missing or forbidden call could have made no difference. */
static bool excused(int code)
{
    if (code != -ENOSYS && code != -EPERM)
        return false;
    struct topology topology;
    if (topology_parse(TOPOLOGY_SYSFS, UINT64_MAX, &topology) != 0)
        return true;
    return __builtin_popcountll(topology_memory_mask(&topology)) <= 1;
}

int bind_strict(void *start, size_t bytes, int node)
{
    int physical = topology_physical(node);
    if (physical < 0 || physical >= TOPOLOGY_NODES_MAX)
        return -EINVAL;
    unsigned long mask[2] = {1UL << physical, 0};
    /* The kernel takes one bit less than it is told. */
    if (mbind(start, bytes, MPOL_BIND | POLICY_STATIC_NODES, mask, TOPOLOGY_NODES_MAX + 1, 0) == 0)
        return 0;
    int code = -errno;
    return excused(code) ? 0 : code;
}

int bind_verify(void *start, size_t bytes, size_t page_bytes, int node, size_t *wrong)
{
    void *pages[VERIFY_PAGES];
    int status[VERIFY_PAGES];
    unsigned char *at = start;
    size_t left = bytes / page_bytes;
    int physical = topology_physical(node);
    *wrong = 0;
    while (left > 0) {
        unsigned count = left < VERIFY_PAGES ? (unsigned)left : VERIFY_PAGES;
        for (unsigned i = 0; i < count; i++) {
            pages[i] = at + i * page_bytes;
            status[i] = -ENOENT;
        }
        if (move_pages(0, count, pages, NULL, status, 0) < 0) {
            int code = -errno;
            return excused(code) ? 0 : code;
        }
        for (unsigned i = 0; i < count; i++)
            *wrong += status[i] >= 0 && status[i] != physical;
        at += count * page_bytes;
        left -= count;
    }
    return 0;
}
