/* SPDX-License-Identifier: MIT */
/*
 * hakmem doctor: what limits this process: control groups, cpuset, RLIMIT_MEMLOCK, and system calls
 * that a filter forbids. The shell's limits are what it sees; a service may have others.
 */
#define _GNU_SOURCE
#include "tools/hakmem_doctor.h"

#include "numa/ranges.h"
#include "region/base.h"
#include "region/cgroup.h"
#include "region/os.h"
#include "region/supply.h"

#include <errno.h>
#include <inttypes.h>
#include <numaif.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define STATUS_BYTES 16384
#define LIST_BYTES 256
/* capabilities(7). */
#define CAP_IPC_LOCK_BIT 14

/* ---- control groups -------------------------------------------------------------------------- */

void check_memory_cgroup(struct doctor *doctor)
{
    static struct cgroup_limit limit;
    cgroup_memory(&limit);
    if (limit.room_bytes == CGROUP_UNLIMITED) {
        doctor_say(doctor, DOCTOR_OK, "no limit");
        return;
    }
    enum doctor_level level = DOCTOR_NOTE;
    if (limit.room_bytes < DOCTOR_REGION_USUAL)
        level = limit.room_bytes < DOCTOR_REGION_LEAST ? DOCTOR_BAD : DOCTOR_WARN;
    doctor_remedy(doctor, "a higher number in %s (docker run --memory, MemoryMax= of systemd)",
                  limit.file);
    doctor_say(doctor, level,
               "%" PRIu64 " MiB of ordinary memory are left to this group, %" PRIu64
               " in use; beyond that init refuses a region, and the kernel kills whoever grows",
               limit.room_bytes >> 20, limit.usage_bytes >> 20);
}

static uint64_t free_pool_bytes(enum hak_pages pages)
{
    return supply_unpromised(pages) * os_pages_bytes(pages);
}

static void say_hugetlb_limit(struct doctor *doctor, enum hak_pages pages,
                              const struct cgroup_limit *limit)
{
    uint64_t there = free_pool_bytes(pages);
    enum doctor_level level = DOCTOR_NOTE;
    if (there > limit->room_bytes)
        level = limit->room_bytes < os_pages_bytes(pages) ? DOCTOR_BAD : DOCTOR_WARN;
    doctor_remedy(doctor, "a higher number in %s", limit->file);
    doctor_say(doctor, level,
               "%s: this group may have %" PRIu64 " MiB more of them, %" PRIu64
               " are free in the pools; a program that does not ask first dies of SIGBUS there, "
               "init refuses",
               os_pages_name(pages), limit->room_bytes >> 20, there >> 20);
}

void check_hugetlb_cgroup(struct doctor *doctor)
{
    static const enum hak_pages sizes[] = {HAK_PAGES_2M, HAK_PAGES_1G};
    static struct cgroup_limit limit;
    bool any = false;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        cgroup_hugetlb(sizes[i], &limit);
        if (limit.room_bytes == CGROUP_UNLIMITED)
            continue;
        say_hugetlb_limit(doctor, sizes[i], &limit);
        any = true;
    }
    if (!any)
        doctor_say(doctor, DOCTOR_OK, "no limit");
}

/* ---- cpuset ---------------------------------------------------------------------------------- */

/* A list behind a key of /proc/self/status, such as "Mems_allowed_list:\t0-1". */
static bool find_list(const char *status, const char *key, char *list)
{
    const char *at = strstr(status, key);
    if (at == NULL)
        return false;
    at += strlen(key);
    at += strspn(at, " \t");
    snprintf(list, LIST_BYTES, "%.*s", (int)strcspn(at, "\n"), at);
    return true;
}

static void note_nodes(void *context, unsigned first, unsigned last)
{
    for (unsigned i = first; i <= last && i < HAK_NODES_MAX; i++)
        *(uint64_t *)context |= UINT64_C(1) << i;
}

static void count_numbers(void *context, unsigned first, unsigned last)
{
    *(unsigned *)context += last >= first ? last - first + 1 : 0;
}

static void say_nodes(struct doctor *doctor, const char *list)
{
    uint64_t allowed = 0, memory = 0;
    for (unsigned i = 0; i < doctor_nodes()->node_end; i++)
        memory |= doctor_nodes()->nodes[i].has_memory ? UINT64_C(1) << i : 0;
    ranges_scan(list, note_nodes, &allowed);
    if ((memory & ~allowed) == 0) {
        doctor_say(doctor, DOCTOR_OK, "memory of all nodes may be used (%s)", list);
        return;
    }
    doctor_remedy(doctor, "other nodes in cpuset.mems of its control group, or numactl --membind");
    doctor_say(doctor, (memory & allowed) == 0 ? DOCTOR_BAD : DOCTOR_NOTE,
               "only nodes %s may be used, which are %u of the %u that have memory", list,
               popcount64(memory & allowed), popcount64(memory));
}

static void say_processors(struct doctor *doctor, const char *list)
{
    char text[LIST_BYTES];
    unsigned allowed = 0, online = 0;
    ranges_scan(list, count_numbers, &allowed);
    if (doctor_read("/sys/devices/system/cpu/online", text, sizeof text))
        ranges_scan(text, count_numbers, &online);
    if (allowed >= online) {
        doctor_say(doctor, DOCTOR_OK, "all processors may be used (%s)", list);
        return;
    }
    doctor_remedy(doctor, "taskset -c LIST PROGRAM, or cpuset.cpus of its control group");
    doctor_say(doctor, DOCTOR_NOTE,
               "processors %s may be used, %u of %u: workers go there only, and segments of nodes "
               "without one of them are faulted in from afar",
               list, allowed, online);
}

void check_cpuset(struct doctor *doctor)
{
    static char status[STATUS_BYTES];
    char list[LIST_BYTES];
    if (!doctor_read("/proc/self/status", status, sizeof status)) {
        doctor_remedy(doctor, "mount -t proc none /proc");
        doctor_say(doctor, DOCTOR_BAD, "/proc/self/status cannot be read");
        return;
    }
    if (find_list(status, "Mems_allowed_list:", list))
        say_nodes(doctor, list);
    else
        doctor_say(doctor, DOCTOR_OK, "this kernel has no cpusets");
    if (find_list(status, "Cpus_allowed_list:", list))
        say_processors(doctor, list);
}

/* ---- locked memory --------------------------------------------------------------------------- */

static bool may_lock(void)
{
    static char status[STATUS_BYTES];
    if (!doctor_read("/proc/self/status", status, sizeof status))
        return false;
    const char *at = strstr(status, "CapEff:");
    return at != NULL && (strtoull(at + strlen("CapEff:"), NULL, 16) >> CAP_IPC_LOCK_BIT & 1) != 0;
}

void check_memlock(struct doctor *doctor)
{
    char text[4096];
    const char *at = doctor_read("/proc/self/limits", text, sizeof text)
                         ? strstr(text, "Max locked memory")
                         : NULL;
    if (at == NULL) {
        doctor_say(doctor, DOCTOR_NOTE, "RLIMIT_MEMLOCK cannot be read from /proc/self/limits");
        return;
    }
    at += strlen("Max locked memory");
    at += strspn(at, " ");
    uint64_t bytes = strtoull(at, NULL, 10);
    if (strncmp(at, "unlimited", strlen("unlimited")) == 0) {
        doctor_say(doctor, DOCTOR_OK, "RLIMIT_MEMLOCK is unlimited");
    } else if (may_lock()) {
        doctor_say(doctor, DOCTOR_OK,
                   "RLIMIT_MEMLOCK is %" PRIu64 " KiB, which CAP_IPC_LOCK overrides", bytes >> 10);
    } else if (bytes >= DOCTOR_REGION_USUAL) {
        doctor_say(doctor, DOCTOR_OK, "RLIMIT_MEMLOCK is %" PRIu64 " MiB", bytes >> 20);
    } else {
        doctor_remedy(doctor, "ulimit -l unlimited; memlock in /etc/security/limits.conf; "
                              "LimitMEMLOCK=infinity of systemd; docker run --ulimit memlock=-1");
        doctor_say(doctor, DOCTOR_NOTE,
                   "RLIMIT_MEMLOCK is %" PRIu64
                   " KiB: init locks nothing, but mlock(2) of a region, "
                   "and registering it with VFIO, RDMA or io_uring, fail beyond that",
                   bytes >> 10);
    }
}

/* ---- system calls ---------------------------------------------------------------------------- */

/* Each with arguments by which nothing changes. What the kernel itself says of them does not count,
 * as a machine of more processors than cpu_set_t holds, or an advice it does not know. */
static int try_mbind(void)
{
    return (int)mbind(NULL, 0, MPOL_DEFAULT, NULL, 0, 0);
}

static int try_get_mempolicy(void)
{
    return (int)get_mempolicy(NULL, NULL, 0, NULL, 0);
}

static int try_move_pages(void)
{
    return (int)move_pages(0, 0, NULL, NULL, NULL, 0);
}

/* The processors that it has already. */
static int try_sched_setaffinity(void)
{
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) == 0 ? sched_setaffinity(0, sizeof set, &set) : 0;
}

/* On a page of our own. A filter sees the call, and at most the kind of advice. */
static int try_madvise(void)
{
    size_t bytes = os_page_bytes();
    void *page = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED)
        return 0;
    int result = madvise(page, bytes, MADV_POPULATE_WRITE);
    int saved = errno;
    munmap(page, bytes);
    errno = saved;
    return result;
}

static bool is_forbidden(int result)
{
    return result < 0 && (errno == EPERM || errno == EACCES || errno == ENOSYS);
}

void check_system_calls(struct doctor *doctor)
{
    static const struct {
        const char *name;
        int (*call)(void);
    } tries[] = {{"mbind", try_mbind},
                 {"get_mempolicy", try_get_mempolicy},
                 {"move_pages", try_move_pages},
                 {"sched_setaffinity", try_sched_setaffinity},
                 {"madvise", try_madvise}};
    bool all = true;
    for (size_t i = 0; i < sizeof tries / sizeof *tries; i++) {
        if (!is_forbidden(tries[i].call()))
            continue;
        const char *why = strerror(errno);
        all = false;
        doctor_remedy(doctor, "docker run --cap-add SYS_NICE, or a seccomp profile that allows it "
                              "(--security-opt seccomp=FILE; SystemCallFilter= of systemd)");
        doctor_say(
            doctor, DOCTOR_BAD,
            "%s is forbidden (%s), by a container's filter or a kernel without NUMA; regions "
            "are bound to their nodes and verified by it",
            tries[i].name, why);
    }
    if (all)
        doctor_say(doctor, DOCTOR_OK,
                   "mbind, get_mempolicy, move_pages, sched_setaffinity, madvise are allowed");
}
