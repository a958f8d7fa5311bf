/* SPDX-License-Identifier: MIT */
/* Putting a child's books right; see fork.h. */
#include "alloc/fork.h"

#include <pthread.h>

#include "alloc/thread.h"
#include "region/errlog.h"

static void (*unlock_set_up)(void);
static bool watching;

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

static void in_child(void)
{
    errlog_after_fork();
    for (unsigned id = 0; id < HAK_REGIONS_MAX; id++) {
        struct hak_region *heap = atomic_load_explicit(&heap_all[id], memory_order_acquire);
        if (heap == NULL) {
            continue;
        }
        thread_orphan(heap);
        if (!heap->area.adopted && !heap->area.backing.fork_inherits) {
            lose(heap);
            continue;
        }
        for (uint32_t n = 0; n < heap->area.segment_count; n++) {
            /* Claims that threads of the parent had half done never end here. */
            atomic_store_explicit(&heap->area.segments[n].spans_in_flight, 0, memory_order_relaxed);
        }
    }
    unlock_set_up();
}

int fork_watch(void (*lock)(void), void (*unlock)(void))
{
    int code = 0;

    unlock_set_up = unlock;
    if (!watching) {
        code = -pthread_atfork(lock, unlock, in_child);
        watching = code == 0;
    }
    return code;
}
