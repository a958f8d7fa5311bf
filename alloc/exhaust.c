/* SPDX-License-Identifier: MIT */
/* The exhaustion ladder's rungs and its record; see exhaust.h. */
#include "alloc/exhaust.h"

#include <errno.h>
#include <string.h>

#include "alloc/guarded.h"
#include "alloc/large.h"
#include "alloc/refill.h"
#include "region/errlog.h"
#include "region/units.h"

static HAK_TLS_FAST struct exhaust_error last;

/* ---- the rungs ------------------------------------------------------------------------------- */

static bool call_reclaimer(struct thread *thread, size_t size_bytes)
{
    struct hak_region *heap = thread->heap;

    if (heap->on_exhausted == NULL || thread->in_reclaimer) {
        return false;
    }
    int saved = errno; /* what it meets need not be what we end with */
    thread->in_reclaimer = true;
    heap->on_exhausted(heap, size_bytes, heap->on_exhausted_argument);
    thread->in_reclaimer = false;
    errno = saved;
    thread_drain(thread);
    return true;
}

static bool mend_pool(struct pool *pool, unsigned cls)
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

/* Finds what threads that are stopped half-way keep from the searches, wherever the allocation may
 * look. Only where there may be something: a node that is really full answers at once. */
static bool mend(struct pool *pool, unsigned cls)
{
    struct hak_region *heap = pool->heap;
    bool worth = mend_pool(pool, cls);

    for (uint32_t n = 0; heap_any_node(heap) && n + 1 < heap->pool_count; n++) {
        /* Their part comes with the next rung but one. */
        mend_pool(&heap->pools[pool->nearest[n]], cls);
    }
    return worth;
}

/* Large objects that a hardened region holds back, wherever the allocation may look. */
static bool drain_held(struct thread *thread, struct pool *pool)
{
    struct hak_region *heap = thread->heap;
    bool any = heap->hardened != NULL && guarded_drain(thread, pool);

    for (uint32_t n = 0; heap->hardened != NULL && heap_any_node(heap) && n + 1 < heap->pool_count;
         n++) {
        (void)guarded_drain(thread, &heap->pools[pool->nearest[n]]);
    }
    return any;
}

bool exhaust_relieve(struct thread *thread, struct pool *pool, enum exhaust_step step,
                     size_t size_bytes, unsigned cls)
{
    bool stray = thread == thread->heap->stray; /* many threads at once may be it */

    switch (step) {
    case EXHAUST_OWN:
        if (!stray) {
            thread_drain(thread);
        }
        return drain_held(thread, pool) || !stray;
    case EXHAUST_IDLE:
        return thread_reclaim_idle(thread->heap, thread);
    case EXHAUST_MEND:
        return mend(pool, cls);
    case EXHAUST_RECLAIMER:
        return !stray && call_reclaimer(thread, size_bytes);
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

/* ---- the record: figures --------------------------------------------------------------------- */

/* Relaxed, all of them: figures for a person. */
static size_t free_in(const struct pool *pool)
{
    return (size_t)atomic_load_explicit(&pool->segment->free_unit_count, memory_order_relaxed)
           << UNIT_LOG2;
}

/* The pool's objects on their way home from threads of other nodes. */
static size_t outbox_bytes(const struct pool *home)
{
    const struct hak_region *heap = home->heap;
    size_t sum = 0;

    for (uint32_t p = 0; p < heap->pool_count; p++) {
        const struct pool *pool = &heap->pools[p];
        if (pool == home) {
            continue; /* its own threads' go into their caches */
        }
        /* Acquire: THREAD-SLOT, slots below were filled. */
        uint32_t high = atomic_load_explicit(&pool->slots.high, memory_order_acquire);
        for (uint32_t slot = 0; slot < high; slot++) {
            const struct thread *thread = thread_slot(pool, slot);
            sum += atomic_load_explicit(&thread->outboxes[home->index].bytes, memory_order_relaxed);
        }
    }
    return sum;
}

static size_t stranded_in(const struct pool *pool)
{
    return atomic_load_explicit(&pool->cached_bytes, memory_order_relaxed) +
           atomic_load_explicit(&pool->boxed_bytes, memory_order_relaxed) + outbox_bytes(pool);
}

static size_t free_elsewhere(const struct pool *home)
{
    const struct hak_region *heap = home->heap;
    size_t sum = 0;

    for (uint32_t p = 0; p < heap->pool_count; p++) {
        sum += &heap->pools[p] != home ? free_in(&heap->pools[p]) : 0;
    }
    return sum;
}

/* With as much as is missing on every node, since a region is shared out evenly, and a quarter
 * more than there was at the least: who runs out once wants more than this one object. */
static size_t advise(const struct hak_region *heap, size_t size_bytes, size_t alignment)
{
    size_t quarter = round_up(heap->area.bytes / 4, SUPERSLAB_BYTES);

    if (size_bytes > HAK_REGION_BYTES_MAX) {
        return 0;
    }
    size_t more = round_up(size_bytes, SUPERSLAB_BYTES);
    if (size_bytes > CLASS_BYTES_MAX || alignment > UNIT_BYTES) {
        more += SUPERSLAB_BYTES; /* what there is need not lie side by side next time */
    }
    if (alignment > SUPERSLAB_BYTES) {
        more += alignment; /* the place where it may begin can be so much further on */
    }
    size_t sum = heap->area.bytes + heap->pool_count * max_size(more, quarter);
    return sum <= HAK_REGION_BYTES_MAX ? sum : 0;
}

void exhaust_record(struct thread *thread, struct pool *pool, size_t size_bytes, size_t alignment,
                    unsigned cls)
{
    const struct hak_region *heap = thread->heap;

    /* Not count_add: the stray's counters have many writers. */
    atomic_fetch_add_explicit(&thread->counts.exhausted, 1, memory_order_relaxed);
    last = (struct exhaust_error){
        .sequence = errlog_next_sequence(),
        .refusal = EXHAUST_NO_ROOM,
        .code = -ENOMEM,
        .node = pool->segment->node,
        .size_class = cls,
        .region_id = heap->id,
        .adopted = heap->area.adopted,
        .size_bytes = size_bytes,
        .alignment = alignment,
        .segment_bytes = (size_t)pool->unit_count << UNIT_LOG2,
        .free_bytes = free_in(pool),
        .largest_free_bytes = large_room(pool->heap, units_largest_run(pool->segment)),
        .stranded_bytes = stranded_in(pool),
        .elsewhere_bytes = heap_any_node(heap) ? 0 : free_elsewhere(pool),
        .advised_bytes = advise(heap, size_bytes, alignment),
    };
    errno = ENOMEM;
}

void exhaust_asked(size_t size_bytes, size_t alignment)
{
    last.size_bytes = size_bytes;
    last.alignment = alignment;
}

/* ---- the record: refusals and words ---------------------------------------------------------- */

static const struct {
    enum hak_error_kind kind;
    int code;
    const char *text;
} refusals[] = {
    [EXHAUST_NO_ROOM] = {HAK_ERROR_EXHAUSTED, -ENOMEM, ""},
    [REFUSE_NO_REGION] = {HAK_ERROR_NO_REGION, -ENOMEM,
                          ": there is no region; call hak_region_init first"},
    [REFUSE_NO_OWNER] = {HAK_ERROR_NO_REGION, -ENODEV, ""},
    [REFUSE_SIZE] = {HAK_ERROR_ARGUMENT, -ENOMEM,
                     ": the size is beyond what can be addressed (PTRDIFF_MAX; a product that "
                     "overflows counts as SIZE_MAX)"},
    [REFUSE_ALIGNMENT] = {HAK_ERROR_ARGUMENT, -EINVAL,
                          ": the alignment is not a power of two up to 1 GiB"},
    [REFUSE_NODE] = {HAK_ERROR_ARGUMENT, -EINVAL, ": the region has no segment on that node"},
};

void exhaust_refuse(enum exhaust_refusal why, size_t size_bytes, size_t alignment, int node)
{
    last = (struct exhaust_error){
        .sequence = errlog_next_sequence(),
        .refusal = why,
        .code = refusals[why].code,
        .node = node,
        .size_bytes = size_bytes,
        .alignment = alignment,
    };
    errno = -last.code;
}

#define SAY(...) errlog_append(out->message, sizeof(out->message), __VA_ARGS__)

static void tell_refusal(struct hak_error *out)
{
    if (last.refusal == REFUSE_NO_OWNER) {
        SAY("a free: there is no region (before hak_region_init, or after hak_region_fini), so "
            "there is nothing to free from");
        return;
    }
    SAY("allocation of %zu bytes", last.size_bytes);
    if (last.refusal == REFUSE_ALIGNMENT) {
        SAY(" with alignment %zu", last.alignment);
    }
    SAY("%s", refusals[last.refusal].text);
    if (last.refusal == REFUSE_NODE) {
        SAY(", %d", last.node);
    }
}

/* Which of the ways of having no room it is. */
static void tell_reason(struct hak_error *out)
{
    if (last.size_bytes > last.segment_bytes) {
        SAY(". A single object cannot be larger than a node's part of the region, %zu bytes",
            last.segment_bytes);
    } else if (last.free_bytes >= last.size_bytes && last.largest_free_bytes < last.size_bytes) {
        SAY(". Enough is free, but not in one piece: what is in use lies in between");
    } else if (last.free_bytes >= last.size_bytes && last.alignment > UNIT_BYTES) {
        SAY(". Enough is free, but not where the alignment asks for it");
    } else if (last.free_bytes >= last.size_bytes) {
        SAY(". That is enough: it came free only now");
    }
    if (last.elsewhere_bytes != 0) {
        SAY(". The region's other nodes have %zu bytes of units free: HAKMEM_EXHAUSTED=any-node or "
            "hak_malloc_on_node gets at them",
            last.elsewhere_bytes);
    }
    if (last.stranded_bytes != 0) {
        SAY(". Threads that will not allocate for a while should say so by hak_thread_idle");
    }
}

static void tell_no_room(struct hak_error *out)
{
    SAY("allocation of %zu bytes", last.size_bytes);
    if (last.alignment != 0) {
        SAY(" aligned to %zu", last.alignment);
    }
    if (last.size_class != CLASS_NONE) {
        SAY(" (class %u, of %zu bytes)", last.size_class, sizeclass_bytes(last.size_class));
    }
    SAY(" failed on node %d", last.node);
    if (last.region_id != 0) {
        SAY(" of region %u", last.region_id);
    }
    SAY(": %zu bytes of units free, the largest run %zu, up to %zu more in the hands of threads "
        "(caches, page boxes, outboxes)",
        last.free_bytes, last.largest_free_bytes, last.stranded_bytes);
    tell_reason(out);
    if (last.adopted) {
        SAY(". The region is memory that the program gave to hak_region_adopt: only more of it "
            "would help");
    } else if (last.advised_bytes == 0) {
        SAY(". No region can be large enough for it");
    } else {
        errlog_append(out->remedy, sizeof(out->remedy),
                      "export HAKMEM_REGION_SIZE=%zuM  # or as much in hak_config.size_bytes",
                      last.advised_bytes >> 20);
    }
}

uint64_t exhaust_tell(struct hak_error *out)
{
    memset(out, 0, sizeof(*out));
    out->kind = refusals[last.refusal].kind;
    out->code = last.code;
    out->size_bytes = last.size_bytes;
    out->alignment = last.alignment;
    out->size_class = last.size_class;
    out->node = last.node;
    out->free_bytes = last.free_bytes;
    out->largest_free_bytes = last.largest_free_bytes;
    out->stranded_bytes = last.stranded_bytes;
    if (last.refusal == EXHAUST_NO_ROOM) {
        tell_no_room(out);
    } else {
        tell_refusal(out);
    }
    return last.sequence;
}
