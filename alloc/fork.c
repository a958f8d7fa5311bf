/* SPDX-License-Identifier: MIT */
/* Putting a child's books right; see fork.h. */
#include "alloc/fork.h"

#include <pthread.h>
#include <sys/single_threaded.h>

#include "alloc/hardened.h"
#include "alloc/orphans.h"
#include "alloc/thread.h"
#include "region/errlog.h"
#include "region/giveback.h"

static void (*lock_set_up)(void), (*unlock_set_up)(void);
static bool watching;
/* At the fork under way the process had one thread; under the lock of set-up. */
static bool was_alone;

static void lose(struct hak_region *heap)
{
    unsigned id = heap->id;

    thread_self[id] = (struct thread_self){.active = &thread_none, .parked = NULL};
    atomic_store_explicit(&heap_all[id], NULL, memory_order_release);
    if (id == 0) {
        heap_default_front = (struct heap_front){0};
        atomic_store_explicit(&heap_default, NULL, memory_order_release);
    }
}

static void for_each(void (*step)(struct hak_region *heap))
{
    for (unsigned id = 0; id < HAK_REGIONS_MAX; id++) {
        struct hak_region *heap = atomic_load_explicit(&heap_all[id], memory_order_acquire);
        if (heap != NULL) {
            step(heap);
        }
    }
}

/* What a purge holds would be lost to the child. */
static void hold(struct hak_region *heap)
{
    giveback_before_fork(&heap->area);
}

static void resume(struct hak_region *heap)
{
    giveback_in_parent(&heap->area);
}

static void put_right(struct hak_region *heap)
{
    thread_orphan(heap);
    if (!heap->area.backing.fork_inherits) {
        lose(heap);
        return;
    }
    for (uint32_t n = 0; n < heap->area.segment_count; n++) {
        /* Claims that threads of the parent had half done never end here. */
        atomic_store_explicit(&heap->area.segments[n].spans_in_flight, 0, memory_order_relaxed);
    }
    giveback_in_child(&heap->area);
    if (!was_alone) {
        orphans_give_back(heap);
    }
    if (heap->hardened != NULL) {
        hardened_after_fork(heap);
    }
}

static void before(void)
{
    lock_set_up();
    was_alone = __libc_single_threaded;
    for_each(hold);
}

static void in_parent(void)
{
    for_each(resume);
    unlock_set_up();
}

static void in_child(void)
{
    errlog_after_fork();
    thread_alone();
    for_each(put_right);
    unlock_set_up();
}

int fork_watch(void (*lock)(void), void (*unlock)(void))
{
    int code = 0;

    lock_set_up = lock;
    unlock_set_up = unlock;
    if (!watching) {
        code = -pthread_atfork(before, in_parent, in_child);
        watching = code == 0;
    }
    return code;
}
