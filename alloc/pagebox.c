/* SPDX-License-Identifier: MIT */
/* The page box; see pagebox.h. */
#include "alloc/pagebox.h"

#include "alloc/sharedpool.h"

/* A slab that stays in the box counts what it gave and got; long before 2^31 both are lowered. */
#define TAKEN_SETTLED (1 << 24)

static struct slab *slab_of(const struct thread *thread, const struct pagebox *box, unsigned n)
{
    return &thread->heap->slabs[box->unit[n]];
}

/* Free objects in slab n of the box: what the count says less what we took. */
static int32_t room(const struct thread *thread, const struct pagebox *box, unsigned n,
                    unsigned *capacity)
{
    /* Relaxed: the bits are acquired when they are taken. */
    uint64_t head = atomic_load_explicit(&slab_of(thread, box, n)->head, memory_order_relaxed);

    *capacity = head_capacity(head);
    return head_count(head) - box->taken[n];
}

static void remove_entry(struct pagebox *box, unsigned n)
{
    box->count--;
    for (; n < box->count; n++) {
        box->unit[n] = box->unit[n + 1];
        box->taken[n] = box->taken[n + 1];
        box->cursor[n] = box->cursor[n + 1];
    }
}

static void settle_taken(struct thread *thread, struct pagebox *box, unsigned n)
{
    uint64_t less = (uint64_t)(uint32_t)box->taken[n] << 32;

    /* Relaxed: while OWNED the count decides nothing. */
    atomic_fetch_sub_explicit(&slab_of(thread, box, n)->head, less, memory_order_relaxed);
    box->taken[n] = 0;
}

unsigned pagebox_take_owner(struct thread *thread, unsigned class, void **out, unsigned want)
{
    struct pagebox *box = &thread->boxes[class];
    unsigned capacity;

    for (unsigned n = 0; n < box->count; n++) {
        if (room(thread, box, n, &capacity) <= 0) {
            continue;
        }
        unsigned cursor = box->cursor[n];
        unsigned got = slab_take_owner(slab_of(thread, box, n), &cursor,
                                       region_address(&thread->heap->area, box->unit[n]), want, out);
        box->cursor[n] = (uint8_t)cursor;
        box->taken[n] += (int32_t)got;
        if (unlikely(box->taken[n] > TAKEN_SETTLED)) {
            settle_taken(thread, box, n);
        }
        return got;
    }
    return 0;
}

void pagebox_put_owner(struct thread *thread, unsigned class, unit_t unit)
{
    struct pagebox *box = &thread->boxes[class];

    if (box->count == PAGEBOX_SLABS) {
        box->count--;
        sharedpool_give_up(thread, box->unit[box->count], box->taken[box->count]);
    }
    for (unsigned n = box->count; n > 0; n--) {
        box->unit[n] = box->unit[n - 1];
        box->taken[n] = box->taken[n - 1];
        box->cursor[n] = box->cursor[n - 1];
    }
    box->unit[0] = unit;
    box->taken[0] = 0;
    box->cursor[0] = 0;
    box->count++;
}

void pagebox_emptied_owner(struct thread *thread, unsigned class, unit_t unit, int32_t count)
{
    struct pagebox *box = &thread->boxes[class];
    unsigned empty = 0;
    unsigned which = PAGEBOX_SLABS;
    unsigned capacity;

    (void)count;
    for (unsigned n = 0; n < box->count; n++) {
        if (room(thread, box, n, &capacity) == (int32_t)capacity) {
            empty++;
            which = box->unit[n] == unit ? n : which;
        }
    }
    if (which < PAGEBOX_SLABS && empty > 1) {
        int32_t taken = box->taken[which];
        remove_entry(box, which);
        sharedpool_give_up(thread, unit, taken);
    }
}

void pagebox_drain_owner(struct thread *thread, unsigned class)
{
    struct pagebox *box = &thread->boxes[class];

    while (box->count > 0) {
        box->count--;
        sharedpool_give_up(thread, box->unit[box->count], box->taken[box->count]);
    }
}
