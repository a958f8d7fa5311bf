/* SPDX-License-Identifier: MIT */
/*
 * The parts of `hakmem doctor`: the table of checks and the two ways of printing
 * (hakmem_doctor.c), and the checks, by what they look at: huge pages (hakmem_doctor_pages.c),
 * ordinary memory (hakmem_doctor_memory.c), limits of this process (hakmem_doctor_limits.c), the
 * processors and the kernel (hakmem_doctor_machine.c).
 *
 * A check reads files by their plain paths, says one finding or several, and cannot fail: what
 * cannot be read is a finding too. Nothing is changed.
 */
#ifndef HAK_TOOLS_HAKMEM_DOCTOR_H
#define HAK_TOOLS_HAKMEM_DOCTOR_H

#include "numa/topology.h"

#include <hakmem.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Of the least region, and of one that nobody gave a size. */
#define DOCTOR_REGION_LEAST HAK_SUPERSLAB_BYTES
#define DOCTOR_REGION_USUAL ((uint64_t)256 << 20)

#define DOCTOR_TEXT_BYTES 1024

enum doctor_level {
    DOCTOR_OK,   /* as it should be */
    DOCTOR_NOTE, /* worth knowing; fine for many */
    DOCTOR_WARN, /* costs time, or a region falls back */
    DOCTOR_BAD,  /* regions cannot be had, or die */
    DOCTOR_LEVELS
};

struct doctor; /* where findings go */

/* What to do about the next finding: a command, or a line of words. */
void doctor_remedy(struct doctor *doctor, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* A finding of the check that is running, with the remedy, if there was one. */
void doctor_say(struct doctor *doctor, enum doctor_level level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* ---- what the checks share ------------------------------------------------------------------ */

/* A file's text without the last newline; false where it cannot be read. */
bool doctor_read(const char *path, char *text, size_t capacity);

/* The word in brackets of a file such as "always [madvise] never"; false where there is none. */
bool doctor_choice(const char *path, char *word, size_t capacity);

/* The nodes, whoever may use them; one node 0 where the kernel describes none. */
const struct topology *doctor_nodes(void);

/* How many of them have memory. */
unsigned doctor_memory_nodes(void);

/* ---- the checks ----------------------------------------------------------------------------- */

void check_pools(struct doctor *doctor);
void check_surplus(struct doctor *doctor);
void check_mounts(struct doctor *doctor);
void check_thp(struct doctor *doctor);
void check_thp_defrag(struct doctor *doctor);
void check_khugepaged(struct doctor *doctor);

void check_overcommit(struct doctor *doctor);
void check_swap(struct doctor *doctor);
void check_numa_balancing(struct doctor *doctor);
void check_zone_reclaim(struct doctor *doctor);
void check_map_count(struct doctor *doctor);
void check_balloon(struct doctor *doctor);

void check_memory_cgroup(struct doctor *doctor);
void check_hugetlb_cgroup(struct doctor *doctor);
void check_cpuset(struct doctor *doctor);
void check_memlock(struct doctor *doctor);
void check_system_calls(struct doctor *doctor);

void check_kernel(struct doctor *doctor);
void check_isolated(struct doctor *doctor);
void check_governor(struct doctor *doctor);

#endif
