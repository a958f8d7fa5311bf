/* SPDX-License-Identifier: MIT */
/*
 * Faults segments in, in parallel, by threads that run on each segment's node, and verifies where
 * the pages are. Set-up only. The threads are gone when the call returns; their stacks are our
 * own mapping and are unmapped, so nothing stays behind.
 */
#ifndef HAK_REGION_FAULTIN_H
#define HAK_REGION_FAULTIN_H

#include "region/backing.h"
#include "region/progress.h"

struct faultin_failure {
    int code;
    int node;
    size_t wrong_pages; /* with -EIO: pages of a slice that lie on another node */
};

/* pages says how the segments are mapped. 0 or a negative errno: -ENOMEM where pages ran out,
 * -EIO for a page on a wrong node (only with verify), else what the kernel said; *failure tells
 * more about the first that failed. */
int faultin_run(const struct backing_segment *segments, unsigned count, enum hak_pages pages,
                bool verify, struct faultin_failure *failure);

/* The same; *progress, which was begun for the segments' bytes, is told how it goes on and ended,
 * whatever comes of it. NULL: nobody is told. */
int faultin_run_shown(const struct backing_segment *segments, unsigned count, enum hak_pages pages,
                      bool verify, struct progress *progress, struct faultin_failure *failure);

#endif
