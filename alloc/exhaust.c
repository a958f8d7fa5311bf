/* SPDX-License-Identifier: MIT */
/* The exhaustion ladder's rungs and its record; see exhaust.h. */
#include "alloc/exhaust.h"

#include <errno.h>
#include <string.h>

#include "alloc/refill.h"
#include "region/errlog.h"
#include "region/units.h"

static bool call_reclaimer(struct thread *thread, size_t size_bytes)
{
    struct hak_region *heap = thread->heap;

    if (heap->on_exhausted == NULL || thread->in_reclaimer) {
        return false;
    }
    thread->in_reclaimer = true;
    heap->on_exhausted(heap, size_bytes, heap->on_exhausted_argument);
    thread->in_reclaimer = false;
    thread_drain(thread);
    return true;
}

/* Finds what threads that are stopped half-way keep from the searches. Only where there may be
 * something: a node that is really full answers at once. */
static bool mend(struct pool *pool, unsigned cls)
{
    bool worth = atomic_load_explicit(&pool->segment->free_unit_count, memory_order_relaxed) != 0;

    if (worth) {
        units_mend(pool->segment);
    }
    if (cls != CLASS_NONE) {
        bitset_mend(&pool->partial[cls]);
        worth = true;
    }
    return worth;
}

bool exhaust_relieve(struct thread *thread, struct pool *pool, enum exhaust_step step,
                     size_t size_bytes, unsigned cls)
{
    switch (step) {
    case EXHAUST_OWN:
        thread_drain(thread);
        return true;
    case EXHAUST_IDLE:
        return thread_reclaim_idle(thread->heap, thread);
    case EXHAUST_MEND:
        return mend(pool, cls);
    case EXHAUST_RECLAIMER:
        return call_reclaimer(thread, size_bytes);
    case EXHAUST_STEPS:
        break;
    }
    return false;
}

void *exhaust_other_node(struct thread *thread, unsigned cls)
{
    struct hak_region *heap = thread->heap;

    if (!heap_any_node(heap)) {
        return NULL;
    }
    for (uint32_t n = 0; n + 1 < heap->pool_count; n++) {
        struct pool *pool = &heap->pools[thread->pool->nearest[n]];
        void *object = refill_from_pool(thread, pool, cls);
        if (object != NULL) {
            count_add(&thread->counts.other_node_allocs, 1);
            return object;
        }
    }
    return NULL;
}

void exhaust_record(struct thread *thread, struct pool *pool, size_t size_bytes, size_t alignment,
                    unsigned cls)
{
    struct thread_error *error = &thread->error;

    count_add(&thread->counts.exhausted, 1);
    if (thread == thread->heap->stray) {
        exhaust_refuse(NULL, HAK_ERROR_EXHAUSTED, -ENOMEM, size_bytes, alignment,
                       pool->segment->node);
        return; /* many threads' slot: nobody's record */
    }
    *error = (struct thread_error){
        .sequence = errlog_next_sequence(),
        .kind = HAK_ERROR_EXHAUSTED,
        .code = -ENOMEM,
        .node = pool->segment->node,
        .size_class = cls,
        .size_bytes = size_bytes,
        .alignment = alignment,
        .advised_bytes = thread->heap->area.bytes +
                         thread->heap->pool_count *
                             round_up(max_size(size_bytes, thread->heap->area.bytes / 4),
                                      SUPERSLAB_BYTES),
        /* Relaxed: figures for a person. */
        .free_bytes =
            (size_t)atomic_load_explicit(&pool->segment->free_unit_count, memory_order_relaxed)
            << UNIT_LOG2,
        .largest_free_bytes = units_largest_run(pool->segment) << UNIT_LOG2,
        .stranded_bytes = atomic_load_explicit(&pool->cached_bytes, memory_order_relaxed) +
                          atomic_load_explicit(&pool->boxed_bytes, memory_order_relaxed),
    };
    errno = ENOMEM;
}

void exhaust_refuse(struct thread *thread, enum hak_error_kind kind, int code, size_t size_bytes,
                    size_t alignment, int node)
{
    struct hak_error error;

    errno = -code;
    if (thread != NULL) {
        thread->error = (struct thread_error){.sequence = errlog_next_sequence(),
                                              .kind = kind,
                                              .code = code,
                                              .node = node,
                                              .size_bytes = size_bytes,
                                              .alignment = alignment};
        return;
    }
    errlog_fail(&error, code, kind, "allocation of %zu bytes: %s", size_bytes,
                kind == HAK_ERROR_NO_REGION ? "there is no region; call hak_region_init first"
                                            : "no room (a thread without a slot of its own)");
    error.size_bytes = size_bytes;
    error.alignment = alignment;
    error.node = node;
    errlog_store(&error);
    errno = -code;
}
