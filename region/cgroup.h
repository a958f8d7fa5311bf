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

/* Bytes of ordinary memory that may still be used, what the kernel can drop of file pages
 * included; the least over the group and those above it. CGROUP_UNLIMITED where nothing limits. */
uint64_t cgroup_memory_room(void);

/* The same for hugetlb pages of a size, in use and reserved. */
uint64_t cgroup_hugetlb_room(enum hak_pages pages);

#endif
