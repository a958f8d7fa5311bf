/* SPDX-License-Identifier: MIT */
/*
 * Reads /sys/devices/system/node, /sys/kernel/mm and /proc/meminfo. Called by region/plan,
 * which holds wishes against the figures, and by backing_table.
 */
#include "region/supply.h"

#include "numa/sysfs.h"
#include "numa/topology.h"
#include "region/os.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define PATH_BYTES 256
/* Kept back for the kernel: a 64th of the node, at most this. The low watermark of a node is
 * within it on machines of any size. */
#define RESERVE_BYTES_MAX ((uint64_t)512 << 20)

static void pool_folder(int node, enum hak_pages pages, char *path, size_t bytes)
{
    size_t kib = os_pages_bytes(pages) >> 10;
    snprintf(path, bytes, TOPOLOGY_SYSFS "/node%d/hugepages/hugepages-%zukB", node, kib);
    /* A kernel without nodes, where all is node 0. Where it has them, the machine's pool is not
     * that of a node. */
    if (node == 0 && access(path, F_OK) != 0 && access(TOPOLOGY_SYSFS, F_OK) != 0)
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
    supply_pool_path(node, pages, "surplus_hugepages", path, sizeof path);
    if (sysfs_read_number(path, &out->surplus_pages) != 0)
        out->surplus_pages = 0;
    supply_pool_path(node, pages, "free_hugepages", path, sizeof path);
    return sysfs_read_number(path, &out->free_pages);
}

/* A count of the whole machine; 0 where it does not tell. */
static uint64_t machine_count(enum hak_pages pages, const char *file)
{
    char path[PATH_BYTES];
    uint64_t count = 0;
    snprintf(path, sizeof path, "/sys/kernel/mm/hugepages/hugepages-%zukB/%s",
             os_pages_bytes(pages) >> 10, file);
    return sysfs_read_number(path, &count) == 0 ? count : 0;
}

uint64_t supply_promised(enum hak_pages pages)
{
    return machine_count(pages, "resv_hugepages");
}

uint64_t supply_unpromised(enum hak_pages pages)
{
    uint64_t promised = supply_promised(pages);
    uint64_t free_pages = machine_count(pages, "free_hugepages");
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

/* What a limit leaves; the usage is a line of /proc/self/status. */
static uint64_t limit_room(rlim_t limit, const char *status, const char *key)
{
    if (limit == RLIM_INFINITY)
        return UINT64_MAX;
    uint64_t used = sysfs_find_number(status, key) << 10;
    return limit > used ? limit - used : 0;
}

uint64_t supply_addresses(void)
{
    char status[4096];
    struct rlimit all = {RLIM_INFINITY, RLIM_INFINITY}, data = all;
    (void)getrlimit(RLIMIT_AS, &all);
    (void)getrlimit(RLIMIT_DATA, &data);
    if (all.rlim_cur == RLIM_INFINITY && data.rlim_cur == RLIM_INFINITY)
        return UINT64_MAX;
    status[0] = '\0';
    (void)sysfs_read("/proc/self/status", status, sizeof status);
    uint64_t mapped = limit_room(all.rlim_cur, status, "\nVmSize:");
    uint64_t written = limit_room(data.rlim_cur, status, "\nVmData:");
    return mapped < written ? mapped : written;
}

uint64_t supply_promises(void)
{
    char text[4096];
    uint64_t mode = 0;
    if (sysfs_read_number("/proc/sys/vm/overcommit_memory", &mode) != 0 || mode != 2)
        return UINT64_MAX;
    if (sysfs_read("/proc/meminfo", text, sizeof text) <= 0)
        return UINT64_MAX;
    uint64_t limit = sysfs_find_number(text, "CommitLimit:") << 10;
    uint64_t used = sysfs_find_number(text, "Committed_AS:") << 10;
    return limit > used ? limit - used : 0;
}

bool supply_thp(void)
{
    char text[64];
    if (sysfs_read("/sys/kernel/mm/transparent_hugepage/enabled", text, sizeof text) <= 0)
        return false;
    return strstr(text, "[never]") == NULL;
}
