/* SPDX-License-Identifier: MIT */
/*
 * Strict placement of memory: mbind(2) with MPOL_BIND before the first touch, move_pages(2) to
 * ask afterwards where the pages really are. Set-up only; nothing here allocates.
 *
 * Node numbers are those of topology_read. A kernel without NUMA, or a filter that forbids these
 * calls (containers often do), is no error on a machine with a single node, where there is
 * nothing to choose; on any other machine it is.
 */
#ifndef HAK_NUMA_BIND_H
#define HAK_NUMA_BIND_H

#include <stddef.h>

/* Pages of [start, start + bytes) that are touched from now on come from this node or not at
 * all. start is a multiple of the page size. 0 or a negative errno. */
int bind_strict(void *start, size_t bytes, int node);

/* Asks for the node of every page of the range, in steps of page_bytes; *wrong is how many lie on
 * another node. A page that is not there (never touched, swapped out) lies on none and is not
 * counted. 0 or a negative errno. */
int bind_verify(void *start, size_t bytes, size_t page_bytes, int node, size_t *wrong);

#endif
