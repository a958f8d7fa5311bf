/* SPDX-License-Identifier: MIT */
/*
 * The kernel's lists of numbers, such as "0-3,8,10-11": processors, nodes. They may be longer than
 * any buffer one would like on a stack, so a file is taken a piece at a time. Called by
 * numa/topology and numa/cores; set-up only, nothing here allocates.
 */
#ifndef HAK_NUMA_RANGES_H
#define HAK_NUMA_RANGES_H

/* Called for each range; first > last, as no kernel writes it, is an empty one. */
typedef void ranges_visit(void *context, unsigned first, unsigned last);

/* The list that is a file's content. 0, or a negative errno where it cannot be read; what came
 * before that has been visited. */
int ranges_read(const char *path, ranges_visit *visit, void *context);

/* The list at the beginning of a text, up to its end or the end of its line. */
void ranges_scan(const char *text, ranges_visit *visit, void *context);

#endif
