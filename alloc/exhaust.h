/* SPDX-License-Identifier: MIT */
/*
 * When a node has nothing left: the rungs that are tried in order, and what the caller hears.
 * Nothing here allocates.
 *
 *   own          the thread's caches, boxes and outboxes go back
 *   idle         so do those of threads marked idle; the others are asked, and do it on their
 *                next slow step
 *   mend         the sets of free runs and of slabs with room are gone through once
 *   reclaimer    the user's function (hak_on_exhausted) may free something
 *   other node   only where the policy allows
 *   NULL         with ENOMEM and the record that hak_last_error gives
 */
#ifndef HAK_ALLOC_EXHAUST_H
#define HAK_ALLOC_EXHAUST_H

#include "alloc/thread.h"

enum exhaust_step { EXHAUST_OWN = 0, EXHAUST_IDLE, EXHAUST_MEND, EXHAUST_RECLAIMER, EXHAUST_STEPS };

/* One rung for an allocation from the pool; false where it cannot have helped. size_bytes: for the
 * reclaimer; class 0: large. */
HAK_COLD bool exhaust_relieve(struct thread *thread, struct pool *pool, enum exhaust_step step,
                              size_t size_bytes, unsigned cls);
/* An object of the class from the nearest other node that has one, as the policy allows. */
HAK_COLD void *exhaust_other_node(struct thread *thread, unsigned cls);
/* Sets errno to ENOMEM and the thread's record. class 0: a large object. */
HAK_COLD void exhaust_record(struct thread *thread, struct pool *pool, size_t size_bytes,
                             size_t alignment, unsigned cls);
/* An allocation call with an impossible argument, or one without a region (thread NULL). */
HAK_COLD void exhaust_refuse(struct thread *thread, enum hak_error_kind kind, int code,
                             size_t size_bytes, size_t alignment, int node);

#endif
