/* SPDX-License-Identifier: MIT */
/* The page box; see pagebox.h. Model of keeping an empty slab: tests/model/slab.pml. */
#include "alloc/pagebox.h"

#include "alloc/sharedpool.h"

static struct slab *slab_of(const struct thread *thread, const struct pagebox *box, unsigned n)
{
    return &thread->heap->slabs[box->unit[n]];
}

static void remove_entry(struct pagebox *box, unsigned n)
{
    box->count--;
    for (; n < box->count; n++) {
        box->unit[n] = box->unit[n + 1];
        box->cursor[n] = box->cursor[n + 1];
    }
}

unsigned pagebox_take_owner(struct thread *thread, unsigned cls, void **out, unsigned want)
{
    struct pagebox *box = &thread->boxes[cls];

    /* The latest slab, then one of the others in turn: looking through all of them for what was
     * freed into them meanwhile costs more than it finds. */
    for (unsigned looked = 0, n = 0; looked < 2 && n < box->count; looked++, n = box->turn) {
        box->turn = (uint8_t)(box->turn + 1 < box->count ? box->turn + 1 : 1);
        unsigned cursor = box->cursor[n];
        unsigned got = slab_take_owner(slab_of(thread, box, n), &cursor,
                                       region_address(&thread->heap->area, box->unit[n]), want,
                                       out);
        box->cursor[n] = (uint8_t)cursor;
        if (got > 0) {
            return got;
        }
    }
    return 0;
}

static size_t slab_bytes(const struct thread *thread, unit_t unit)
{
    /* Relaxed: our slab, its head does not change. */
    uint64_t head = atomic_load_explicit(&thread->heap->slabs[unit].head, memory_order_relaxed);

    return (size_t)head_units(head) << UNIT_LOG2;
}

/* The slab leaves the box. */
static void give_up(struct thread *thread, unit_t unit)
{
    budget_give(&thread->pool->boxed_bytes, slab_bytes(thread, unit));
    sharedpool_give_up(thread, unit);
}

bool pagebox_put_owner(struct thread *thread, unsigned cls, unit_t unit)
{
    struct pagebox *box = &thread->boxes[cls];

    if (box->count == PAGEBOX_SLABS) {
        box->count--;
        give_up(thread, box->unit[box->count]);
    }
    while (!budget_take(&thread->pool->boxed_bytes, thread->pool->boxed_bytes_limit,
                        slab_bytes(thread, unit))) {
        if (box->count == 0) {
            return false;
        }
        box->count--;
        give_up(thread, box->unit[box->count]);
    }
    for (unsigned n = box->count; n > 0; n--) {
        box->unit[n] = box->unit[n - 1];
        box->cursor[n] = box->cursor[n - 1];
    }
    box->unit[0] = unit;
    box->cursor[0] = 0;
    box->count++;
    return true;
}

static bool all_free(const struct thread *thread, const struct pagebox *box, unsigned n)
{
    const struct slab *slab = slab_of(thread, box, n);
    /* Relaxed: our slab, its head does not change. */
    uint64_t head = atomic_load_explicit(&slab->head, memory_order_relaxed);

    return slab_look(slab, head, 0) == SLAB_ALL_FREE;
}

void pagebox_emptied_owner(struct thread *thread, unsigned cls, unit_t unit)
{
    struct pagebox *box = &thread->boxes[cls];
    unsigned which = 0;
    unsigned empty = 0;

    while (which < box->count && box->unit[which] != unit) {
        which++;
    }
    if (which == box->count || !all_free(thread, box, which)) {
        return;
    }
    for (unsigned n = 0; n < box->count; n++) {
        empty += all_free(thread, box, n);
    }
    if (empty > 1) {
        remove_entry(box, which);
        give_up(thread, unit);
    }
}

void pagebox_drain_owner(struct thread *thread, unsigned cls)
{
    struct pagebox *box = &thread->boxes[cls];

    while (box->count > 0) {
        box->count--;
        give_up(thread, box->unit[box->count]);
    }
}
