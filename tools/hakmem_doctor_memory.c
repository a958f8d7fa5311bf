/* SPDX-License-Identifier: MIT */
/*
 * hakmem doctor: how the machine hands out ordinary memory: overcommit, swap, NUMA balancing, zone
 * reclaim, the number of mappings, and a virtual machine's balloon.
 */
#define _GNU_SOURCE
#include "tools/hakmem_doctor.h"

#include "numa/sysfs.h"

#include <glob.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define PATH_BYTES 512
/* The kernel's default for max_map_count. */
#define MAPS_USUAL 65530
/* virtio 1.2, 5.5: the balloon's device number, and the feature bit for free page reporting. */
#define VIRTIO_BALLOON 5
#define BALLOON_REPORTING 5

/* ---- overcommit and swap --------------------------------------------------------------------- */

void check_overcommit(struct doctor *doctor)
{
    char text[8192];
    uint64_t mode = 0, ratio = 0;
    if (sysfs_read_number("/proc/sys/vm/overcommit_memory", &mode) != 0 ||
        !doctor_read("/proc/meminfo", text, sizeof text)) {
        doctor_remedy(doctor, "mount -t proc none /proc");
        doctor_say(doctor, DOCTOR_BAD,
                   "/proc/sys/vm/overcommit_memory or /proc/meminfo cannot be read: nobody can say "
                   "what memory there is");
        return;
    }
    if (mode != 2) {
        doctor_say(doctor, DOCTOR_OK, "vm.overcommit_memory is %" PRIu64, mode);
        return;
    }
    uint64_t limit = sysfs_find_number(text, "CommitLimit:") << 10;
    uint64_t taken = sysfs_find_number(text, "Committed_AS:") << 10;
    uint64_t left = limit > taken ? limit - taken : 0;
    (void)sysfs_read_number("/proc/sys/vm/overcommit_ratio", &ratio);
    doctor_remedy(doctor, "sysctl -w vm.overcommit_memory=0, or a higher vm.overcommit_ratio");
    doctor_say(doctor, left < DOCTOR_REGION_USUAL ? DOCTOR_BAD : DOCTOR_WARN,
               "vm.overcommit_memory is 2 (vm.overcommit_ratio %" PRIu64 "): %" PRIu64
               " MiB of %" PRIu64 " are left to promise; regions on ordinary memory count there "
               "with their whole size, a preloaded program's with the machine's",
               ratio, left >> 20, limit >> 20);
}

void check_swap(struct doctor *doctor)
{
    char text[8192];
    uint64_t swappiness = 0;
    if (!doctor_read("/proc/meminfo", text, sizeof text))
        return; /* check_overcommit has said it */
    uint64_t total = sysfs_find_number(text, "SwapTotal:") >> 10;
    uint64_t unused = sysfs_find_number(text, "SwapFree:") >> 10;
    (void)sysfs_read_number("/proc/sys/vm/swappiness", &swappiness);
    if (total == 0) {
        doctor_say(doctor, DOCTOR_OK, "no swap (vm.swappiness %" PRIu64 " has no effect)",
                   swappiness);
        return;
    }
    doctor_remedy(doctor,
                  "swapoff -a, or sysctl -w vm.swappiness=1, or huge pages of a pool, which "
                  "are never swapped");
    if (unused < total)
        doctor_say(doctor, DOCTOR_WARN,
                   "%" PRIu64 " of %" PRIu64 " MiB of swap are in use, vm.swappiness %" PRIu64
                   ": pages of `thp` and `4k` regions may be there, and cost a disk's time",
                   total - unused, total, swappiness);
    else
        doctor_say(doctor, DOCTOR_NOTE,
                   "%" PRIu64 " MiB of swap, none in use, vm.swappiness %" PRIu64
                   ": pages of `thp` and `4k` regions can go there",
                   total, swappiness);
}

/* ---- nodes ----------------------------------------------------------------------------------- */

void check_numa_balancing(struct doctor *doctor)
{
    uint64_t mode = 0;
    unsigned nodes = doctor_memory_nodes();
    if (sysfs_read_number("/proc/sys/kernel/numa_balancing", &mode) != 0) {
        doctor_say(doctor, DOCTOR_OK, "this kernel has none");
        return;
    }
    if (mode == 0 || nodes < 2) {
        doctor_say(doctor, DOCTOR_OK, "kernel.numa_balancing is %" PRIu64 ", %u node%s with memory",
                   mode, nodes, nodes == 1 ? "" : "s");
        return;
    }
    doctor_remedy(doctor, "sysctl -w kernel.numa_balancing=0");
    doctor_say(doctor, DOCTOR_WARN,
               "kernel.numa_balancing is %" PRIu64 ": it leaves regions alone, which are bound "
               "(MPOL_BIND) or on hugetlb pages, but unmaps and moves the rest of the program's "
               "memory (stacks, adopted regions) by page faults, and moves threads that are not "
               "pinned to other nodes",
               mode);
}

void check_zone_reclaim(struct doctor *doctor)
{
    uint64_t mode = 0;
    if (sysfs_read_number("/proc/sys/vm/zone_reclaim_mode", &mode) != 0 || mode == 0 ||
        doctor_memory_nodes() < 2) {
        doctor_say(doctor, DOCTOR_OK, "vm.zone_reclaim_mode is %" PRIu64, mode);
        return;
    }
    doctor_remedy(doctor, "sysctl -w vm.zone_reclaim_mode=0");
    doctor_say(doctor, DOCTOR_WARN,
               "vm.zone_reclaim_mode is %" PRIu64 ": a node that runs low drops its file pages%s "
               "before another node is asked, which stops whoever allocates from the kernel",
               mode, (mode & 6) != 0 ? ", and writes out or unmaps pages," : "");
}

void check_map_count(struct doctor *doctor)
{
    uint64_t most = 0;
    if (sysfs_read_number("/proc/sys/vm/max_map_count", &most) != 0 || most >= MAPS_USUAL) {
        doctor_say(doctor, DOCTOR_OK, "vm.max_map_count is %" PRIu64, most);
        return;
    }
    doctor_remedy(doctor, "sysctl -w vm.max_map_count=%d", MAPS_USUAL);
    doctor_say(doctor, DOCTOR_NOTE,
               "vm.max_map_count is %" PRIu64 ", below the kernel's own default of %d: a region "
               "takes a dozen mappings and more for each node, threads and libraries the rest",
               most, MAPS_USUAL);
}

/* ---- virtual machines ------------------------------------------------------------------------ */

static void say_balloon(struct doctor *doctor, const char *device, const char *features)
{
    uint64_t order = 0;
    char least[48] = "";
    if (strlen(features) <= BALLOON_REPORTING || features[BALLOON_REPORTING] != '1') {
        doctor_say(doctor, DOCTOR_NOTE,
                   "%s is a virtio balloon: the host may ask for memory back at any time, but "
                   "never for pages of a pool or of a region in use",
                   device);
        return;
    }
    if (sysfs_read_number("/sys/module/page_reporting/parameters/page_reporting_order", &order) ==
        0)
        snprintf(least, sizeof least, ", page_reporting_order %" PRIu64, order);
    doctor_remedy(doctor, "hakmem reserve --size SIZE early (pages in a pool stay here), regions "
                          "that are faulted in; or a host without free-page-reporting");
    doctor_say(
        doctor, DOCTOR_NOTE,
        "%s is a virtio balloon with free page reporting%s: memory that is freed goes back "
        "to the host, and 2 MiB of it take milliseconds to be had again (4 were measured), at "
        "init or at a page fault",
        device, least);
}

void check_balloon(struct doctor *doctor)
{
    glob_t found;
    bool any = false;
    if (glob("/sys/bus/virtio/devices/*", 0, NULL, &found) != 0)
        memset(&found, 0, sizeof found);
    for (size_t i = 0; i < found.gl_pathc; i++) {
        char path[PATH_BYTES], text[128];
        unsigned device = 0;
        snprintf(path, sizeof path, "%s/device", found.gl_pathv[i]);
        if (!doctor_read(path, text, sizeof text) || sscanf(text, "%x", &device) != 1 ||
            device != VIRTIO_BALLOON)
            continue;
        snprintf(path, sizeof path, "%s/features", found.gl_pathv[i]);
        if (!doctor_read(path, text, sizeof text))
            text[0] = '\0';
        say_balloon(doctor, strrchr(found.gl_pathv[i], '/') + 1, text);
        any = true;
    }
    globfree(&found);
    if (!any)
        doctor_say(doctor, DOCTOR_OK, "no virtio balloon");
}
