/* SPDX-License-Identifier: MIT */
/*
 * Hugetlb pages by way of a file on a hugetlbfs mount (HAKMEM_HUGETLBFS): the mount's size limit
 * and permissions count, and the pages are on its account. Set-up only; called by region/backing.
 */
#ifndef HAK_REGION_HUGETLBFS_H
#define HAK_REGION_HUGETLBFS_H

#include <hakmem.h>
#include <stdbool.h>
#include <stddef.h>

/*
 * Maps bytes of the kind of hugetlb page from a file without a name, aligned to the page's size.
 * shared: the pages are the file's (MAP_SHARED); otherwise the mapping is private. Nothing of it
 * stays behind but the mapping, and the file goes with that: no name, no descriptor, no library.
 * Give back with os_release. out NULL: only looks whether it could be.
 *
 * 0, or a negative errno with the reason appended to error's message, and to its remedy, where that
 * is empty, what would help: -ELIBACC no libhugetlbfs.so.0, -ENOENT no mount for this size, -EACCES
 * one that this user may not write to, -ENOMEM a mount or pool without so many pages, else what the
 * kernel said.
 */
int hugetlbfs_map(size_t bytes, enum hak_pages pages, bool shared, void **out,
                  struct hak_error *error);

#endif
