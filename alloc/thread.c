/* SPDX-License-Identifier: MIT */
/* Thread slots: attaching, idling, emptying, leaving; see thread.h. */
#include "alloc/thread.h"

#include <pthread.h>
#include <string.h>

#include "alloc/cache.h"
#include "alloc/outbox.h"
#include "alloc/pagebox.h"
#include "numa/topology.h"

/* Slow steps between two looks at which node the thread runs on. */
#define REHOME_STEPS 64

struct thread thread_none;
uint16_t thread_bin_offset[CLASS_TABLE_ENTRIES];
HAK_TLS_FAST struct thread_self thread_self[HAK_REGIONS_MAX] = {
    [0 ... HAK_REGIONS_MAX - 1] = {.active = &thread_none},
};

/* The thread's caches went back as it exits; destructors that still allocate or free do without. */
static HAK_TLS_FAST bool exiting;
static pthread_key_t exit_key;
static bool exit_key_made;

static void at_thread_exit(void *unused)
{
    (void)unused;
    exiting = true;
    thread_detach_all();
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

static struct pool *home_pool(struct hak_region *heap)
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
    thread->in_reclaimer = false;
    atomic_store_explicit(&thread->asked, 0, memory_order_relaxed);
    thread->home_base = pool->segment->base;
    thread->home_bytes = (uintptr_t)pool->unit_count << UNIT_LOG2;
    memset(&thread->error, 0, sizeof(thread->error));
    memset(thread->boxes, 0, sizeof(thread->boxes));
    memset(thread->warm, 0, sizeof(thread->warm));
    for (unsigned n = 0; n < HAK_NODES_MAX; n++) {
        thread->outboxes[n] = (struct outbox){.magazine = UINT32_MAX};
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
    thread->self = self;
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
    struct pool *home = home_pool(heap);
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
    struct pool *pool = home_pool(heap);

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

struct thread *thread_current(struct hak_region *heap)
{
    struct thread_self *self = &thread_self[heap->id];
    struct thread *thread = self->active;

    if (unlikely(thread == &thread_none)) {
        struct thread *parked = self->parked;
        self->parked = NULL;
        if (parked != NULL && unpark(parked)) {
            self->active = parked;
            return parked;
        }
        return exiting ? NULL : attach(heap);
    }
    /* Relaxed: a request, carried out whenever it is seen. */
    if (unlikely(atomic_load_explicit(&thread->asked, memory_order_relaxed) != 0)) {
        atomic_store_explicit(&thread->asked, 0, memory_order_relaxed);
        thread_drain(thread);
    }
    if (heap->pool_count > 1 && ++thread->slow_steps % REHOME_STEPS == 0 && !thread->in_reclaimer) {
        thread = move_home(thread);
    }
    return thread;
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
        struct thread *parked = self->parked;
        self->parked = NULL;
        if (parked != NULL && unpark(parked)) {
            self->active = parked;
        }
        if (self->active != &thread_none) {
            detach(self->active);
        }
    }
}

void thread_rehome_all(void)
{
    for (unsigned id = 0; id < HAK_REGIONS_MAX; id++) {
        struct thread *thread = thread_self[id].active;
        if (thread != &thread_none && !thread->in_reclaimer) {
            move_home(thread);
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
    if (!atomic_compare_exchange_strong_explicit(&thread->state, &state, THREAD_IDLE,
                                                 memory_order_release, memory_order_relaxed)) {
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

void thread_forget(struct hak_region *heap)
{
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
            if (state != THREAD_FREE && (thread->pool != pool || !cache_check(thread))) {
                return false;
            }
        }
    }
    return true;
}
