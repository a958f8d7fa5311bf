/* SPDX-License-Identifier: MIT */
/*
 * What the process's control groups still allow (Documentation/admin-guide/cgroup-v2.rst, and
 * cgroup-v1/memory.rst, hugetlb.rst). Going over the memory limit is answered by the OOM killer
 * and over a hugetlb limit by SIGBUS, so a region asks first. Set-up only; allocates nothing.
 */
#ifndef HAK_REGION_CGROUP_H
#define HAK_REGION_CGROUP_H

#include <hakmem.h>
#include <stdint.h>

#define CGROUP_UNLIMITED UINT64_MAX
#define CGROUP_FILE_BYTES 1664

/* The limit that leaves least room, of the group and those above it. */
struct cgroup_limit {
    uint64_t room_bytes;          /* that may still be used; CGROUP_UNLIMITED: nothing limits */
    uint64_t usage_bytes;         /* of the group that sets the limit */
    char file[CGROUP_FILE_BYTES]; /* where it is set; "" where the name is too long */
};

/* Of ordinary memory; what the kernel can drop of file pages counts as room. */
void cgroup_memory(struct cgroup_limit *out);

/* Of hugetlb pages of a size: in use and reserved, and ordinary memory's limit too where the
 * kernel counts hugetlb pages there (mount option memory_hugetlb_accounting, Linux 6.7). */
void cgroup_hugetlb(enum hak_pages pages, struct cgroup_limit *out);

/* Only the room. */
uint64_t cgroup_memory_room(void);
uint64_t cgroup_hugetlb_room(enum hak_pages pages);

/* For tests: from now on the folder's files `cgroup` and `mountinfo` stand for those of
 * /proc/self; NULL ends it. The text must stay. Call while no other thread is in this file. */
void cgroup_fake(const char *folder);

#endif
