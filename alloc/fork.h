/* SPDX-License-Identifier: MIT */
/*
 * What a child of fork(2) has. Its only thread is the one that forked.
 *
 *   THP and 4K pages, adopted memory   copied on write like any memory; both sides go on. Caches of
 *                                      threads that did not come along stay as they were: such a
 *                                      thread may have been in the middle of a step, so what they
 *                                      hold (at most 3 % of a node) is not touched
 *   hugetlb pages                      not inherited: a child's write could need a page that is
 *                                      not there and would die by SIGBUS. In the child the region
 *                                      does not exist: allocations are NULL, frees nothing
 */
#ifndef HAK_ALLOC_FORK_H
#define HAK_ALLOC_FORK_H

/* Registers the handlers, once: as the library is loaded, or by set-up. Negative errno. */
int fork_watch(void (*lock)(void), void (*unlock)(void));

#endif
