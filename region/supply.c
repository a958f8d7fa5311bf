/* SPDX-License-Identifier: MIT */
/*
 * Reads /sys/devices/system/node, /sys/kernel/mm and /proc/meminfo. Called by region/shortage,
 * which turns the figures into an answer, and by backing_table.
 */
#include "region/supply.h"

#include "numa/sysfs.h"
#include "numa/topology.h"
#include "region/os.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define PATH_BYTES 256
/* Kept back for the kernel: a 64th of the node, at most this. The low watermark of a node is
 * within it on machines of any size. */
#define RESERVE_BYTES_MAX ((uint64_t)512 << 20)

static void pool_folder(int node, enum hak_pages pages, char *path, size_t bytes)
{
    size_t kib = os_pages_bytes(pages) >> 10;
    snprintf(path, bytes, TOPOLOGY_SYSFS "/node%d/hugepages/hugepages-%zukB", node, kib);
    if (access(path, F_OK) != 0)
        snprintf(path, bytes, "/sys/kernel/mm/hugepages/hugepages-%zukB", kib);
}

void supply_pool_path(int node, enum hak_pages pages, const char *file, char *path, size_t bytes)
{
    char folder[PATH_BYTES / 2];
    pool_folder(node, pages, folder, sizeof folder);
    snprintf(path, bytes, "%s/%s", folder, file);
}

int supply_pool_read(int node, enum hak_pages pages, struct supply_pool *out)
{
    char path[PATH_BYTES];
    supply_pool_path(node, pages, "nr_hugepages", path, sizeof path);
    int code = sysfs_read_number(path, &out->total_pages);
    if (code != 0)
        return code;
    supply_pool_path(node, pages, "free_hugepages", path, sizeof path);
    return sysfs_read_number(path, &out->free_pages);
}

uint64_t supply_unpromised(enum hak_pages pages)
{
    char path[PATH_BYTES];
    uint64_t free_pages = 0, promised = 0;
    size_t kib = os_pages_bytes(pages) >> 10;
    snprintf(path, sizeof path, "/sys/kernel/mm/hugepages/hugepages-%zukB/free_hugepages", kib);
    if (sysfs_read_number(path, &free_pages) != 0)
        return 0;
    snprintf(path, sizeof path, "/sys/kernel/mm/hugepages/hugepages-%zukB/resv_hugepages", kib);
    if (sysfs_read_number(path, &promised) != 0)
        return 0;
    return free_pages > promised ? free_pages - promised : 0;
}

/* Free, and what can be had back without swapping. */
static uint64_t count_meminfo(const char *text)
{
    uint64_t there = sysfs_find_number(text, "MemFree:") << 10;
    there += sysfs_find_number(text, "Active(file):") << 10;
    there += sysfs_find_number(text, "Inactive(file):") << 10;
    /* Half: slab pages are often held by one object that stays. */
    there += sysfs_find_number(text, "SReclaimable:") << 9;
    uint64_t total = sysfs_find_number(text, "MemTotal:") << 10;
    uint64_t reserve = total / 64 < RESERVE_BYTES_MAX ? total / 64 : RESERVE_BYTES_MAX;
    return there > reserve ? there - reserve : 0;
}

/* The node folder's own list: "0" is one node, "0-1" or "0,2" several. */
static bool single_memory_node(void)
{
    char text[64];
    return sysfs_read(TOPOLOGY_SYSFS "/has_memory", text, sizeof text) <= 0 ||
           strpbrk(text, ",-") == NULL;
}

uint64_t supply_ordinary(int node)
{
    char path[PATH_BYTES], text[4096];
    uint64_t there = 0;
    bool known = false;
    snprintf(path, sizeof path, TOPOLOGY_SYSFS "/node%d/meminfo", node);
    if (sysfs_read(path, text, sizeof text) > 0) {
        there = count_meminfo(text);
        known = true;
    }
    /* A virtual machine may be given its memory bit by bit: the node's figures are then what has
     * come so far, the machine's what it may have. */
    if (single_memory_node() && sysfs_read("/proc/meminfo", text, sizeof text) > 0) {
        uint64_t whole = count_meminfo(text);
        there = whole > there ? whole : there;
        known = true;
    }
    /* Without /sys and /proc nobody can tell before the pages are asked for. */
    return known ? there : UINT64_MAX;
}

bool supply_thp(void)
{
    char text[64];
    if (sysfs_read("/sys/kernel/mm/transparent_hugepage/enabled", text, sizeof text) <= 0)
        return false;
    return strstr(text, "[never]") == NULL;
}
