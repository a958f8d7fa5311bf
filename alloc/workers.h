/* SPDX-License-Identifier: MIT */
/*
 * Threads on processors of their own: hak_worker_start, hak_worker_join and hak_thread_pin, whose
 * contract is include/hakmem.h.
 *
 * There is one crew at a time. Its life is a word, changed by compare-and-swap, so that of several
 * callers one goes on and the others hear at once:
 *
 *   NONE -> STARTING   hak_worker_start; others: -EBUSY
 *        -> RUNNING    all have been let in (or NONE again: none has, and the error says why)
 *        -> JOINING    hak_worker_join; others: -ESRCH, and -EBUSY for a start
 *        -> NONE       all have returned
 *
 * A gate keeps every worker from run until the last one has been started and all sit on their
 * processors; where one cannot, the gate lets nobody in, and all end before the start returns. A
 * processor that the kernel has taken from the process since it began (a cpuset that shrank,
 * hotplug) shows when a worker is to sit on it: the crew is then made again without it.
 *
 * What a crew needs is one mapping of its own, never malloc, which may be this library (what
 * pthread_create itself takes is the C library's business). Neither start nor join is a
 * cancellation point: a crew that nobody owns any more could not be given up.
 *
 * fork(2): threads do not come along, so in the child there is no crew; it may start one of its
 * own, also where it is the copy of a worker.
 */
#ifndef HAK_ALLOC_WORKERS_H
#define HAK_ALLOC_WORKERS_H

#include <hakmem.h>

#define WORKERS_MAX 8192

#endif
