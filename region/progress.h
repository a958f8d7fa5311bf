/* SPDX-License-Identifier: MIT */
/*
 * How far fault-in has come, for people who wait for it (HAKMEM_PROGRESS). On a terminal a bar that
 * is rewritten in place, elsewhere a line for each tenth, both only for more than
 * PROGRESS_FROM_BYTES; at the end always one line with the total, the time and the speed.
 *
 * Called by region/faultin on the thread that makes the region, which has nothing to do but to wait
 * for the others. Times are arguments; nothing here allocates, waits, or is a cancellation point,
 * since the preload library may be inside malloc.
 */
#ifndef HAK_REGION_PROGRESS_H
#define HAK_REGION_PROGRESS_H

#include <hakmem.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PROGRESS_FROM_BYTES ((uint64_t)2 << 30)
/* As often as the bar is worth rewriting. */
#define PROGRESS_STEP_NS UINT64_C(100000000)

struct progress {
    int file; /* where to write */
    bool terminal;
    bool in_steps; /* more than PROGRESS_FROM_BYTES */
    enum hak_pages pages;
    unsigned node_count;
    uint64_t total_bytes;
    uint64_t start_ns, shown_ns;
    unsigned shown_tenths;
    size_t columns; /* of the bar that stands on the terminal's line; 0: none does */
};

/* Of total_bytes on so many nodes, from now_ns on, written to file. */
void progress_begin(struct progress *progress, int file, uint64_t total_bytes, enum hak_pages pages,
                    unsigned node_count, uint64_t now_ns);

/* So much is done by now. May be called as often as one likes. */
void progress_step(struct progress *progress, uint64_t done_bytes, uint64_t now_ns);

/* The last line; with less than everything done it says that fault-in stopped there. */
void progress_end(struct progress *progress, uint64_t done_bytes, uint64_t now_ns);

#endif
