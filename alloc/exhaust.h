/* SPDX-License-Identifier: MIT */
/*
 * When a node has nothing left: the rungs that are tried in order, and what the caller hears.
 * Nothing here allocates, and nothing asks the kernel.
 *
 *   own          the thread's caches, boxes and outboxes go back
 *   idle         so do those of threads marked idle; the others are asked, and do it on their
 *                next slow step
 *   mend         the sets of free runs and of slabs with room are gone through once
 *   reclaimer    the user's function (hak_on_exhausted) may free something
 *   other node   only where the policy allows
 *   NULL         with ENOMEM and the record that hak_last_error gives
 *
 * A thread without a slot has nothing of its own to give back, and no reclaimer is called on it: it
 * may be one whose thread-local objects are being destroyed.
 *
 * The record is the thread's, not the slot's: it outlives the slot and the region, and a thread
 * that has neither has one too.
 */
#ifndef HAK_ALLOC_EXHAUST_H
#define HAK_ALLOC_EXHAUST_H

#include "alloc/thread.h"

enum exhaust_step { EXHAUST_OWN = 0, EXHAUST_IDLE, EXHAUST_MEND, EXHAUST_RECLAIMER, EXHAUST_STEPS };

/* Why a call was refused before anybody looked for room. */
enum exhaust_refusal {
    EXHAUST_NO_ROOM = 0, /* none of these: the ladder was climbed in vain */
    REFUSE_NO_REGION,    /* an allocation */
    REFUSE_NO_OWNER,     /* a free, likewise without a region */
    REFUSE_SIZE,
    REFUSE_ALIGNMENT,
    REFUSE_NODE,
};

/* The calling thread's last failure; sequence 0: it had none. */
struct exhaust_error {
    uint64_t sequence;
    enum exhaust_refusal refusal;
    int code, node;
    unsigned size_class, region_id;
    bool adopted;
    size_t size_bytes, alignment;
    size_t segment_bytes, free_bytes, largest_free_bytes, stranded_bytes;
    size_t elsewhere_bytes; /* free units of other nodes, where the policy kept it from them */
    size_t advised_bytes;   /* a region of this size would have had room; 0: none can be so large */
};

/* One rung for an allocation from the pool; false where it cannot have helped. size_bytes: for the
 * reclaimer; class 0: large. thread: heap->stray for one without a slot. */
HAK_COLD bool exhaust_relieve(struct thread *thread, struct pool *pool, enum exhaust_step step,
                              size_t size_bytes, unsigned cls);
/* An object of the class from the nearest other node that has one, as the policy allows. */
HAK_COLD void *exhaust_other_node(struct thread *thread, unsigned cls);
/* Sets errno to ENOMEM and the calling thread's record. class 0: a large object. */
HAK_COLD void exhaust_record(struct thread *thread, struct pool *pool, size_t size_bytes,
                             size_t alignment, unsigned cls);
/* What was asked for, where the record just made knows the class only. */
HAK_COLD void exhaust_asked(size_t size_bytes, size_t alignment);
/* An allocation or free that cannot be: errno and the record. */
HAK_COLD void exhaust_refuse(enum exhaust_refusal why, size_t size_bytes, size_t alignment,
                             int node);
/* The calling thread's last failure in figures and words; its sequence number, 0: none. */
uint64_t exhaust_tell(struct hak_error *out);

#endif
