/* SPDX-License-Identifier: MIT */
/*
 * What a thread has in a region: its slot, on its home node. The hit paths of malloc and free read
 * this struct, the table from size to bin, and one byte of the class map.
 *
 * One slot per thread and region, found through a thread-local pointer. A thread without one has
 * thread_none there: all bins empty and full at once, no units, so that every operation misses and
 * comes to thread_current(), which attaches it. The hit path needs no test for that.
 *
 * A slot's state says who may touch its caches:
 *   FREE       nobody
 *   ACTIVE     its thread, in its own calls
 *   IDLE       marked by hak_thread_idle: whoever wins IDLE -> TAKEN; its thread by IDLE -> ACTIVE
 *   TAKEN      the thread that is emptying it, then IDLE again
 *   ABANDONED  as TAKEN, but its thread came back or exited meanwhile and has no use for it any
 *              more (it does not wait): who empties it makes it FREE
 *
 * Counters stay in a slot when its thread goes; totals are sums over all slots ever used.
 */
#ifndef HAK_ALLOC_THREAD_H
#define HAK_ALLOC_THREAD_H

#include "alloc/heap.h"

/* Slots a node can have; memory is behind those in use. */
#define THREAD_SLOTS_MAX 4096
#define PAGEBOX_SLABS 4
#define WARM_POOL_MAX CONFIG_WARM_POOL_MAX
#define CACHE_INLINE_OBJECTS 8

/* A class's window into its current magazine: objects lie in [low, top), room in [top, limit). */
struct bin {
    void **top;
    void **low;
    void **limit;
    uint32_t magazine; /* the one that low points into; MAGAZINE_NONE: the inline slots */
    uint16_t depth;    /* full magazines below it */
    uint16_t depth_max;
};

_Static_assert(sizeof(struct bin) == CLASS_MAP_STEP << CLASS_MAP_SHIFT, "two bins a cache line");

/* The rest of a class's cache: touched by misses only. */
struct class_cache {
    void *slots[CACHE_INLINE_OBJECTS];
    uint32_t newest, oldest; /* chain of full magazines */
    uint16_t magazine_objects;
    uint8_t inline_objects;
    uint8_t open; /* bins start closed: see cache.c */

    uint8_t refill_next;   /* size of the next refill: small at first */
    uint8_t direct_frees;  /* frees that came while closed */
    uint8_t refills;       /* that no flush has answered yet */
    uint8_t flushes_alone; /* in a row, with no refill to answer */
};

/* The slabs of a class that this thread owns, latest first. */
struct pagebox {
    unit_t unit[PAGEBOX_SLABS];
    uint8_t cursor[PAGEBOX_SLABS]; /* bitmap word to look at first */
    uint8_t count;
    uint8_t turn; /* which of the older slabs is looked at next */
};

/* SuperSlabs in which this thread lately found room for a class; the last is asked first. */
struct warmpool {
    uint32_t superslab[WARM_POOL_MAX];
    uint8_t count;
};

/* Objects of another node on their way home. */
struct outbox {
    uint32_t magazine;
    uint32_t count;
    _Atomic size_t bytes; /* written by its owner alone; relaxed, for the figures */
};

struct class_counts {
    _Atomic uint64_t cache_refills, cache_flushes, box_hits, warm_hits, warm_misses, warm_prefilled,
        pool_partial, pool_fresh, refilled_objects, flushed_objects;
};

struct thread_counts {
    _Atomic uint64_t slabs_recycled, remote_frees, remote_drains, large_allocs, large_frees,
        other_node_allocs, exhausted;
};

enum thread_state { THREAD_FREE = 0, THREAD_ACTIVE, THREAD_IDLE, THREAD_TAKEN, THREAD_ABANDONED };

struct thread {
    struct bin bins[CLASS_MAP_VALUES]; /* by class map byte; none and large: always empty, full */
    uintptr_t home_base;               /* the home segment's addresses */
    uintptr_t home_bytes;

    struct hak_region *heap CACHE_ALIGNED;
    struct pool *pool;
    struct quarantine *quarantine; /* NULL: its region is not hardened, or it is the stray */
    uint32_t slot;
    uint32_t spare_magazine; /* empty, with capacity reserved for spare_bytes */
    size_t spare_bytes;
    size_t cached_bytes;    /* this thread's part of the pool's */
    _Atomic uint32_t state; /* enum thread_state */
    _Atomic uint32_t asked; /* somebody ran out: give your caches back on your next slow step */
    uint32_t slow_steps;
    uint32_t shedding;        /* class up to which caches are still to be given back; 0: none */
    bool in_reclaimer;        /* its region's hak_on_exhausted function runs */
    struct thread_self *self; /* its thread's pointers to it */
    struct class_cache caches[CLASS_COUNT + 1];
    struct pagebox boxes[CLASS_COUNT + 1];
    struct warmpool warm[CLASS_COUNT + 1];
    struct outbox outboxes[HAK_NODES_MAX];
    struct class_counts class_counts[CLASS_COUNT + 1];
    struct thread_counts counts;
};

_Static_assert(offsetof(struct thread, bins) == 0, "offset 0 is the bin of no class");

/* A thread's pointers to its slots, by region id; 0 is the default region. */
struct thread_self {
    struct thread *active; /* never NULL: thread_none */
    struct thread *parked; /* the slot that hak_thread_idle marked */
};

extern HAK_OWN struct thread thread_none;
extern HAK_OWN HAK_TLS_FAST struct thread_self thread_self[HAK_REGIONS_MAX];

/* Counters are written by their owner alone; relaxed stores so that others may read. */
HAK_INLINE void count_add(_Atomic uint64_t *counter, uint64_t amount)
{
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + amount,
                          memory_order_relaxed);
}

/*
 * The calling thread's slot in a region, ready for a slow step: attached where it had none, taken
 * up again where it was idle, emptied where somebody asked, moved where the thread changed nodes.
 * NULL where the region has no slot left, or the thread is exiting: it works as a stray then.
 */
struct thread *thread_current(struct hak_region *heap);
/* The same for a free, which does not take a slot for its thread until there have been some. */
struct thread *thread_current_free(struct hak_region *heap);
/* Around the calls below that say "entered", and around reading slots through thread_self. */
void thread_enter(void);
void thread_leave(void);
/* By size / 16, rounded up: bytes from a slot's beginning to the size's bin. All 0, the bin of no
 * class, until the first set-up; the same for good after it. */
extern HAK_OWN uint16_t thread_bin_offset[CLASS_TABLE_ENTRIES];
/* Once, in set-up: fills that table, and sees to it that thread exits are noticed. Negative
 * errno. */
int thread_prepare(void);
/* Prepares a slot for use in a pool: no caches, all bins closed. */
void thread_fill(struct thread *thread, struct pool *pool, uint32_t slot);
/* Everything in the slot's caches, boxes and outboxes goes back to the pools. */
void thread_drain(struct thread *thread);
/* Takes the caches of idle threads, asks the others; true where something was taken. */
bool thread_reclaim_idle(struct hak_region *heap, const struct thread *except);
/* Marks the calling thread's slots idle. Entered. */
void thread_mark_idle(void);
/* Gives the calling thread's slots of every region up, as when it exits. Entered. */
void thread_detach_all(void);
/* Ends every slot of a region whose use has ended; waits for those that have entered. */
void thread_forget(struct hak_region *heap);
/* In a child of fork, whether or not there is a region: nobody else has entered. */
void thread_alone(void);
/* In a child of fork: the other threads, and their pointers to their slots, are not there. */
void thread_orphan(struct hak_region *heap);
/* The pool of the node that the calling thread runs on now, or the nearest. */
struct pool *thread_home_pool(struct hak_region *heap);
/* Moves the calling thread's slots to the node that it runs on now. Entered. */
void thread_rehome_all(void);
bool thread_check(struct hak_region *heap);

HAK_INLINE struct thread *thread_slot(const struct pool *pool, uint32_t slot)
{
    return (struct thread *)(void *)(pool->slots.memory + (size_t)slot * sizeof(struct thread));
}

#endif
