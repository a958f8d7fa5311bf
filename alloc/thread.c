/* SPDX-License-Identifier: MIT */
/* Thread slots: attaching, idling, emptying, leaving; see thread.h. */
#include "alloc/thread.h"

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "alloc/cache.h"
#include "alloc/outbox.h"
#include "alloc/pagebox.h"
#include "alloc/quarantine.h"
#include "numa/topology.h"

/* Slow steps between two looks at which node the thread runs on. */
#define REHOME_STEPS 64
/* A thread without a slot that frees a few objects works without one: the C library frees what
 * belongs to a thread's end after that thread's destructors, when nobody would hear of a new
 * slot. */
#define LOOSE_FREES 32
/* Classes that one slow step looks at when it gives back what somebody asked for. */
#define SHED_CLASSES 8

struct thread thread_none;
uint16_t thread_bin_offset[CLASS_TABLE_ENTRIES];
HAK_TLS_FAST struct thread_self thread_self[HAK_REGIONS_MAX] = {
    [0 ... HAK_REGIONS_MAX - 1] = {.active = &thread_none},
};

/*
 * A region can end while a thread that used it exits, marks itself idle or is pinned elsewhere, and
 * those look at slots through the thread's pointers to them. They may do so at any time (enter,
 * leave: a count) but while a region's slots end (stop, go on: a flag); who ends them waits for the
 * count. Label THREAD-END: "count, then flag" and "flag, then count", sequentially consistent, so
 * at least one sees the other. No allocation or free takes part.
 */
static _Atomic uint32_t entered, stopped;
/* Frees by this thread while it had no slot; see thread_current_free. */
static HAK_TLS_FAST uint8_t loose_frees;
/* The thread's caches went back as it exits; destructors that still allocate or free do without. */
static HAK_TLS_FAST bool exiting;
static pthread_key_t exit_key;
static bool exit_key_made;

void thread_enter(void)
{
    atomic_fetch_add_explicit(&entered, 1, memory_order_seq_cst);
    while (unlikely(atomic_load_explicit(&stopped, memory_order_seq_cst) != 0)) {
        atomic_fetch_sub_explicit(&entered, 1, memory_order_seq_cst);
        sched_yield();
        atomic_fetch_add_explicit(&entered, 1, memory_order_seq_cst);
    }
}

void thread_leave(void)
{
    /* Release: what was done with the slots comes before their end. */
    atomic_fetch_sub_explicit(&entered, 1, memory_order_release);
}

static void at_thread_exit(void *unused)
{
    (void)unused;
    exiting = true;
    thread_enter();
    thread_detach_all();
    thread_leave();
}

int thread_prepare(void)
{
    int code = 0;

    if (!exit_key_made) {
        for (size_t n = 0; n < CLASS_TABLE_ENTRIES; n++) {
            thread_bin_offset[n] = (uint16_t)(sizeclass_of(n * 16) * sizeof(struct bin));
        }
        code = -pthread_key_create(&exit_key, at_thread_exit);
        exit_key_made = code == 0;
    }
    return code;
}

struct pool *thread_home_pool(struct hak_region *heap)
{
    int node = topology_current_node();

    return &heap->pools[node < HAK_NODES_MAX ? heap->node_pool[node] : 0];
}

void thread_fill(struct thread *thread, struct pool *pool, uint32_t slot)
{
    struct hak_region *heap = pool->heap;

    thread->heap = heap;
    thread->pool = pool;
    thread->slot = slot;
    thread->slow_steps = 0;
    thread->shedding = 0;
    thread->in_reclaimer = false;
    atomic_store_explicit(&thread->asked, 0, memory_order_relaxed);
    thread->home_base = pool->segment->base;
    /* A hardened region has its frees checked, all of them. */
    thread->home_bytes = heap->hardened == NULL ? (uintptr_t)pool->unit_count << UNIT_LOG2 : 0;
    memset(thread->boxes, 0, sizeof(thread->boxes));
    memset(thread->warm, 0, sizeof(thread->warm));
    for (unsigned n = 0; n < HAK_NODES_MAX; n++) {
        thread->outboxes[n].magazine = MAGAZINE_NONE;
        thread->outboxes[n].count = 0;
        atomic_store_explicit(&thread->outboxes[n].bytes, 0, memory_order_relaxed);
    }
    cache_init(thread);
}

static struct thread *attach_to(struct pool *pool)
{
    size_t slot = bitset_claim(&pool->slots.free, 0);

    if (slot == BITSET_NONE) {
        return NULL;
    }
    struct thread *thread = thread_slot(pool, (uint32_t)slot);
    struct thread_self *self = &thread_self[pool->heap->id];
    thread_fill(thread, pool, (uint32_t)slot);
    if (pool->heap->hardened != NULL) {
        thread->quarantine = quarantine_of(pool, (uint32_t)slot);
        quarantine_init(thread);
    }
    thread->self = self;
    atomic_fetch_add_explicit(&pool->slots.taken, 1, memory_order_relaxed);
    uint32_t high = atomic_load_explicit(&pool->slots.high, memory_order_relaxed);
    /* Release, and for the state too: label THREAD-SLOT, with thread_reclaim_idle and the stats:
     * who sees the slot sees it filled. */
    while (high <= slot &&
           !atomic_compare_exchange_weak_explicit(&pool->slots.high, &high, (uint32_t)slot + 1,
                                                  memory_order_release, memory_order_relaxed)) {
    }
    atomic_store_explicit(&thread->state, THREAD_ACTIVE, memory_order_release);
    self->active = thread;
    return thread;
}

static struct thread *attach(struct hak_region *heap)
{
    struct pool *home = thread_home_pool(heap);
    struct thread *thread = attach_to(home);

    for (uint32_t n = 0; thread == NULL && n + 1 < heap->pool_count; n++) {
        thread = attach_to(&heap->pools[home->nearest[n]]);
    }
    if (thread != NULL) {
        pthread_setspecific(exit_key, &exit_key);
    }
    return thread;
}

static void leave(struct thread *thread)
{
    struct pool *pool = thread->pool;

    atomic_fetch_sub_explicit(&pool->slots.taken, 1, memory_order_relaxed);
    atomic_store_explicit(&thread->state, THREAD_FREE, memory_order_release);
    bitset_set(&pool->slots.free, thread->slot);
}

/* The thread that marked the slot wants it back, or wants to be rid of it; false: it is gone. */
static bool unpark(struct thread *thread)
{
    uint32_t state = THREAD_IDLE;

    for (;;) {
        uint32_t next = state == THREAD_IDLE ? THREAD_ACTIVE : THREAD_ABANDONED;
        /* Acquire: THREAD-SLOT, what the emptier did to the caches. */
        if (atomic_compare_exchange_weak_explicit(&thread->state, &state, next,
                                                  memory_order_acq_rel, memory_order_acquire)) {
            return next == THREAD_ACTIVE;
        }
    }
}

void thread_drain(struct thread *thread)
{
    cache_drain(thread);
    for (unsigned cls = 1; cls <= CLASS_COUNT; cls++) {
        if (thread->quarantine != NULL) {
            (void)quarantine_shed(thread, cls);
        }
        pagebox_drain_owner(thread, cls);
    }
    outbox_drain_owner(thread);
}

static void detach(struct thread *thread)
{
    thread->self->active = &thread_none;
    thread_drain(thread);
    leave(thread);
}

static struct thread *move_home(struct thread *thread)
{
    struct hak_region *heap = thread->heap;
    struct pool *pool = thread_home_pool(heap);

    if (pool == thread->pool) {
        return thread;
    }
    struct thread *moved = attach_to(pool);
    if (moved == NULL) {
        return thread;
    }
    thread_drain(thread);
    leave(thread);
    return moved;
}

/* Somebody ran out and asked: gives back a magazine's worth, so that no call becomes a long one. */
static void shed(struct thread *thread)
{
    unsigned looked = 0;

    /* Relaxed: a request, carried out whenever it is seen. */
    if (atomic_load_explicit(&thread->asked, memory_order_relaxed) != 0) {
        atomic_store_explicit(&thread->asked, 0, memory_order_relaxed);
        thread->shedding = CLASS_COUNT;
    }
    while (thread->shedding > 0 && looked++ < SHED_CLASSES) {
        if (cache_shed(thread, thread->shedding) ||
            (thread->quarantine != NULL && quarantine_shed(thread, thread->shedding))) {
            return;
        }
        pagebox_drain_owner(thread, thread->shedding);
        thread->shedding--;
    }
    if (thread->shedding == 0) {
        cache_give_spare(thread);
        outbox_drain_owner(thread);
    }
}

/* The parked slot taken up again, or NULL. */
static struct thread *resume(struct thread_self *self)
{
    struct thread *parked = self->parked;

    if (parked == NULL) {
        return NULL;
    }
    self->parked = NULL;
    if (!unpark(parked)) {
        return NULL;
    }
    self->active = parked;
    return parked;
}

struct thread *thread_current(struct hak_region *heap)
{
    struct thread_self *self = &thread_self[heap->id];
    struct thread *thread = self->active;

    if (unlikely(thread == &thread_none)) {
        thread = resume(self);
        if (thread == NULL) {
            return exiting ? NULL : attach(heap);
        }
    }
    if (unlikely(thread->shedding > 0 ||
                 atomic_load_explicit(&thread->asked, memory_order_relaxed) != 0)) {
        shed(thread);
    }
    if (HAK_DEBUG && !cache_check(thread)) {
        abort(); /* the caches' invariants, cache.c */
    }
    if (heap->pool_count > 1 && ++thread->slow_steps % REHOME_STEPS == 0 && !thread->in_reclaimer) {
        thread = move_home(thread);
    }
    return thread;
}

struct thread *thread_current_free(struct hak_region *heap)
{
    const struct thread_self *self = &thread_self[heap->id];

    if (self->active == &thread_none && self->parked == NULL && loose_frees < LOOSE_FREES) {
        loose_frees++;
        return NULL;
    }
    return thread_current(heap);
}

void thread_mark_idle(void)
{
    for (unsigned id = 0; id < HAK_REGIONS_MAX; id++) {
        struct thread_self *self = &thread_self[id];
        if (self->active != &thread_none && !self->active->in_reclaimer) {
            self->parked = self->active;
            self->active = &thread_none;
            /* Release: THREAD-SLOT, the caches as we leave them. */
            atomic_store_explicit(&self->parked->state, THREAD_IDLE, memory_order_release);
        }
    }
}

void thread_detach_all(void)
{
    for (unsigned id = 0; id < HAK_REGIONS_MAX; id++) {
        struct thread_self *self = &thread_self[id];
        resume(self);
        if (self->active != &thread_none) {
            detach(self->active);
        }
    }
}

void thread_rehome_all(void)
{
    for (unsigned id = 0; id < HAK_REGIONS_MAX; id++) {
        struct thread_self *self = &thread_self[id];
        resume(self);
        if (self->active != &thread_none && !self->active->in_reclaimer) {
            move_home(self->active);
        }
    }
}

/* Empties one idle slot; true where it won it. */
static bool take_idle(struct thread *thread)
{
    uint32_t state = THREAD_IDLE;

    if (!atomic_compare_exchange_strong_explicit(&thread->state, &state, THREAD_TAKEN,
                                                 memory_order_acquire, memory_order_relaxed)) {
        return false;
    }
    thread_drain(thread);
    state = THREAD_TAKEN;
    /* Acquire where it fails: what its thread did before it left the slot to us. */
    if (!atomic_compare_exchange_strong_explicit(&thread->state, &state, THREAD_IDLE,
                                                 memory_order_acq_rel, memory_order_acquire)) {
        leave(thread); /* its thread came back meanwhile and went on with another slot */
    }
    return true;
}

bool thread_reclaim_idle(struct hak_region *heap, const struct thread *except)
{
    bool taken = false;

    for (uint32_t p = 0; p < heap->pool_count; p++) {
        struct pool *pool = &heap->pools[p];
        uint32_t high = atomic_load_explicit(&pool->slots.high, memory_order_acquire);
        for (uint32_t slot = 0; slot < high; slot++) {
            struct thread *thread = thread_slot(pool, slot);
            uint32_t state = atomic_load_explicit(&thread->state, memory_order_relaxed);
            if (thread == except) {
                continue;
            }
            if (state == THREAD_IDLE) {
                taken |= take_idle(thread);
            } else if (state == THREAD_ACTIVE) {
                atomic_store_explicit(&thread->asked, 1, memory_order_relaxed);
            }
        }
    }
    return taken;
}

void thread_alone(void)
{
    atomic_store_explicit(&entered, 0, memory_order_relaxed);
    atomic_store_explicit(&stopped, 0, memory_order_relaxed);
}

void thread_orphan(struct hak_region *heap)
{
    static struct thread_self nobody;

    for (uint32_t p = 0; p < heap->pool_count; p++) {
        struct pool *pool = &heap->pools[p];
        uint32_t high = atomic_load_explicit(&pool->slots.high, memory_order_acquire);
        for (uint32_t slot = 0; slot < high; slot++) {
            struct thread *thread = thread_slot(pool, slot);
            if (thread->self != &thread_self[heap->id]) {
                thread->self = &nobody;
            }
        }
    }
}

void thread_forget(struct hak_region *heap)
{
    /* THREAD-END: the flag, then the count. Ends are one at a time, by the lock of set-up. */
    atomic_store_explicit(&stopped, 1, memory_order_seq_cst);
    while (atomic_load_explicit(&entered, memory_order_seq_cst) != 0) {
        sched_yield();
    }
    for (uint32_t p = 0; p < heap->pool_count; p++) {
        struct pool *pool = &heap->pools[p];
        uint32_t high = atomic_load_explicit(&pool->slots.high, memory_order_acquire);
        for (uint32_t slot = 0; slot < high; slot++) {
            struct thread *thread = thread_slot(pool, slot);
            uint32_t state = atomic_load_explicit(&thread->state, memory_order_acquire);
            if (state == THREAD_ACTIVE || state == THREAD_IDLE) {
                thread->self->active = &thread_none;
                thread->self->parked = NULL;
            }
        }
    }
    atomic_store_explicit(&stopped, 0, memory_order_release);
}

bool thread_check(struct hak_region *heap)
{
    for (uint32_t p = 0; p < heap->pool_count; p++) {
        struct pool *pool = &heap->pools[p];
        uint32_t high = atomic_load_explicit(&pool->slots.high, memory_order_acquire);
        if (!bitset_check(&pool->slots.free) || !bitset_check(&pool->magazines.free)) {
            return false;
        }
        for (uint32_t slot = 0; slot < high; slot++) {
            struct thread *thread = thread_slot(pool, slot);
            uint32_t state = atomic_load_explicit(&thread->state, memory_order_acquire);
            if (bitset_test(&pool->slots.free, slot) != (state == THREAD_FREE)) {
                return false;
            }
            if (state != THREAD_FREE &&
                (thread->pool != pool || !cache_check(thread) ||
                 (thread->quarantine != NULL && !quarantine_check(thread)))) {
                return false;
            }
        }
    }
    return true;
}
