/* SPDX-License-Identifier: MIT */
/* Outboxes; see outbox.h. */
#include "alloc/outbox.h"

#include "alloc/magazine.h"
#include "alloc/sharedpool.h"

/* Together no more than a batch of small objects: what waits here belongs to nobody's budget. */
#define OUTBOX_BYTES ((size_t)64 << 10)

static void send(struct thread *thread, void *const *pointers, unsigned count)
{
    sharedpool_release(thread, CLASS_NONE, pointers, count);
    count_add(&thread->counts.remote_drains, 1);
    count_add(&thread->counts.remote_frees, count);
}

void outbox_put_owner(struct thread *thread, uint32_t pool_index, size_t object_bytes,
                      void *pointer)
{
    struct outbox *outbox = &thread->outboxes[pool_index];

    if (outbox->magazine == MAGAZINE_NONE) {
        outbox->magazine = magazine_claim(thread->pool, thread->slot * 64);
        if (outbox->magazine == MAGAZINE_NONE) {
            send(thread, &pointer, 1);
            return;
        }
    }
    void **slots = magazine_slots(thread->pool, outbox->magazine);
    slots[outbox->count++] = pointer;
    size_t bytes = atomic_load_explicit(&outbox->bytes, memory_order_relaxed) + object_bytes;
    if (outbox->count == MAGAZINE_OBJECTS || bytes >= OUTBOX_BYTES) {
        send(thread, slots, outbox->count);
        outbox->count = 0;
        bytes = 0;
    }
    atomic_store_explicit(&outbox->bytes, bytes, memory_order_relaxed);
}

void outbox_drain_owner(struct thread *thread)
{
    for (uint32_t n = 0; n < thread->heap->pool_count; n++) {
        struct outbox *outbox = &thread->outboxes[n];
        if (outbox->magazine == MAGAZINE_NONE) {
            continue;
        }
        if (outbox->count > 0) {
            send(thread, magazine_slots(thread->pool, outbox->magazine), outbox->count);
            outbox->count = 0;
            atomic_store_explicit(&outbox->bytes, 0, memory_order_relaxed);
        }
        magazine_give_back(thread->pool, outbox->magazine);
        outbox->magazine = MAGAZINE_NONE;
    }
}
