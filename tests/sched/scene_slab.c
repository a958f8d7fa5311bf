/* SPDX-License-Identifier: MIT */
/*
 * A slab's life: frees against its owner's taking and giving up, claims by others, an empty one's
 * units going to another class. Fibers work on the shared pool itself, each with a slot of its own;
 * every object taken is checked off against a map of who has what.
 */
#include "alloc/pagebox.h"
#include "alloc/refill.h"
#include "alloc/sharedpool.h"
#include "tests/sched/heap_kit.h"

#define REGION_BYTES ((size_t)4 << 20)
/* 512 bytes: two bitmap words; 8 KiB: a part of one; 64 KiB: four units with four objects. */
static const unsigned classes[] = {16, 40, 52};
#define CLASSES (sizeof(classes) / sizeof(classes[0]))

static unsigned cls; /* this schedule's */
static unit_t owned; /* a slab that fiber 0 owns, or UNIT_NONE */

static struct slab *slab_at(unit_t unit)
{
    return &kit.heap->slabs[unit];
}

static struct thread *my_thread(void)
{
    return kit.threads[sim_me() < 0 ? 0 : sim_me()];
}

/* Takes up to want objects out of a slab that we own. */
static void take(unit_t unit, unsigned of, unsigned want)
{
    void *out[MAGAZINE_OBJECTS];
    unsigned cursor = 0;

    while (want > 0) {
        unsigned got = slab_take_owner(slab_at(unit), &cursor,
                                       region_address(&kit.heap->area, unit),
                                       want < MAGAZINE_OBJECTS ? want : MAGAZINE_OBJECTS, out);
        for (unsigned n = 0; n < got; n++) {
            kit_keep(out[n], sizeclass_bytes(of));
        }
        if (got == 0) {
            return;
        }
        want -= got;
    }
}

/* Frees the last so many of what the fiber has, in one batch. */
static void put(unsigned count)
{
    struct kit_hand *hand = kit_hand();
    void *batch[MAGAZINE_OBJECTS];
    unsigned have = 0;

    while (have < count && have < MAGAZINE_OBJECTS && hand->count > 0) {
        batch[have] = kit_let_go(hand->count - 1);
        have++;
    }
    if (have > 0) {
        sharedpool_release(my_thread(), CLASS_NONE, batch, have);
    }
}

static unsigned some(unsigned most)
{
    switch (sim_pick(3)) {
    case 0:
        return 1;
    case 1:
        return most;
    default:
        return 1 + sim_pick(most > 0 ? most : 1);
    }
}

/* Somebody's slab with room, or a fresh one, of another class too: takes out of it and gives it
 * up. */
static void claim(void)
{
    bool fresh = sim_pick(3) == 0;
    unsigned of = fresh && sim_pick(2) ? classes[sim_pick(CLASSES)] : cls;
    unit_t unit = fresh ? sharedpool_acquire_fresh(kit.pool, of)
                        : sharedpool_acquire_partial(kit.pool, of);

    if (unit != UNIT_NONE && kit_hand()->count < KIT_HAND / 2) {
        take(unit, of, some(8));
    }
    if (unit != UNIT_NONE) {
        sharedpool_give_up(my_thread(), unit);
    }
}

static void give_up(void)
{
    unit_t unit = owned;

    owned = UNIT_NONE;
    if (sim_pick(3) == 0) {
        take(unit, cls, some(4));
    }
    sharedpool_give_up(my_thread(), unit);
}

/* ---- where it starts ------------------------------------------------------------------------ */

/* One slab of the class, all of its objects taken and dealt out: most of them freed again, so that
 * few are left to free, or none, so that it is full. */
static void deal(unsigned fibers)
{
    struct kit_hand *all = kit_hand();
    unsigned left;

    kit_restore();
    cls = classes[sim_pick(CLASSES)];
    owned = sharedpool_acquire_fresh(kit.pool, cls);
    take(owned, cls, SLAB_WORDS * 64);
    left = sim_pick(3) == 0 ? all->count : 1 + sim_pick(6);
    while (all->count > left) {
        /* Anywhere, so that what is left is in any word. */
        void *object = kit_let_go(sim_pick(all->count));
        sharedpool_release(kit.threads[0], cls, &object, 1);
    }
    for (unsigned n = 0; n < all->count; n++) {
        /* A full slab word by word: who frees a batch frees neighbours. */
        unsigned to = left > 8 ? n * fibers / all->count : sim_pick(fibers);
        struct kit_hand *hand = &kit.hands[to];
        hand->objects[hand->count] = all->objects[n];
        hand->bytes[hand->count++] = all->bytes[n];
    }
    all->count = 0;
    if (sim_pick(3) == 0) {
        sharedpool_give_up(kit.threads[0], owned);
        owned = UNIT_NONE;
    }
}

static void open_region(void)
{
    kit_open(REGION_BYTES, 1, HAK_ON);
    kit_attach_all();
    kit_save();
}

static void finish(void)
{
    if (owned != UNIT_NONE) {
        sharedpool_give_up(kit.threads[0], owned);
    }
    kit_check_and_empty();
}

/* ---- giving up against freeing --------------------------------------------------------------- */

static void freeing_fiber(unsigned me)
{
    if (me == 0 && owned != UNIT_NONE) {
        give_up();
    }
    while (kit_hand()->count > 0 && sim_pick(8) != 0) {
        put(some(MAGAZINE_OBJECTS));
    }
}

static void slab_frees_open(void)
{
    open_region();
}

static void slab_frees_begin(void)
{
    unsigned fibers = 2 + sim_pick(2);

    deal(fibers);
    while (fibers-- > 0) {
        sim_spawn(freeing_fiber);
    }
}

static void slab_frees_end(void)
{
    finish();
}

static void slab_frees_close(void)
{
    kit_close();
}

SCENE(slab_frees, 40, 8)

/* ---- the whole life -------------------------------------------------------------------------- */

static void life_fiber(unsigned me)
{
    for (unsigned steps = 1 + sim_pick(3); steps > 0; steps--) {
        if (me == 0 && owned != UNIT_NONE && sim_pick(2)) {
            give_up();
        } else if (kit_hand()->count > 0 && sim_pick(2)) {
            put(some(MAGAZINE_OBJECTS));
        } else {
            claim();
        }
    }
}

static void slab_life_open(void)
{
    open_region();
}

static void slab_life_begin(void)
{
    unsigned fibers = 2 + sim_pick(3);

    deal(fibers);
    while (fibers-- > 0) {
        sim_spawn(life_fiber);
    }
}

static void slab_life_end(void)
{
    finish();
}

static void slab_life_close(void)
{
    kit_close();
}

SCENE(slab_life, 110, 16)

/* ---- the same units again, for the same class ------------------------------------------------ */

/* The last objects go by two hands while a third wants a slab: the units may be back, as a slab of
 * the same class and in the same state, before who emptied it has decided what to do. */
static void reuse_fiber(unsigned me)
{
    if (me < 2) {
        put(MAGAZINE_OBJECTS);
    }
    if (me == 2 || sim_pick(3) == 0) {
        unit_t unit = sharedpool_acquire_fresh(kit.pool, cls);
        SIM_CHECK(unit != UNIT_NONE);
        take(unit, cls, 1 + sim_pick(3));
        sharedpool_give_up(my_thread(), unit);
    }
}

static void slab_reuse_open(void)
{
    open_region();
}

/* One object of each of the slab's two bitmap words is left: whoever frees one fills a word, and
 * looks whether that was all. */
static void slab_reuse_begin(void)
{
    struct kit_hand *all = kit_hand();

    kit_restore();
    cls = classes[0];
    owned = sharedpool_acquire_fresh(kit.pool, cls);
    take(owned, cls, SLAB_WORDS * 64);
    for (unsigned n = 0; n < 2; n++) {
        char *kept = (char *)region_address(&kit.heap->area, owned) +
                     (n * 64 + sim_pick(64)) * sizeclass_bytes(cls);
        unsigned at = 0;
        while (all->objects[at] != kept) {
            at++;
        }
        kit.hands[n].objects[0] = kept;
        kit.hands[n].bytes[0] = all->bytes[at];
        kit.hands[n].count = 1;
        all->count--;
        all->objects[at] = all->objects[all->count];
    }
    while (all->count > 0) {
        put(MAGAZINE_OBJECTS);
    }
    sharedpool_give_up(kit.threads[0], owned);
    owned = UNIT_NONE;
    for (unsigned n = 0; n < 3; n++) {
        sim_spawn(reuse_fiber);
    }
}

static void slab_reuse_end(void)
{
    finish();
}

static void slab_reuse_close(void)
{
    kit_close();
}

SCENE(slab_reuse, 100, 6)

/* ---- page boxes: refills, others' frees, emptied slabs --------------------------------------- */

static void box_fiber(unsigned me)
{
    void *out[8];

    for (unsigned steps = 1 + sim_pick(4); steps > 0; steps--) {
        unsigned dice = sim_pick(8);
        if (dice == 0) {
            pagebox_drain_owner(my_thread(), cls);
        } else if (dice < 5 && kit_hand()->count < KIT_HAND / 2) {
            unsigned of = sim_pick(5) == 0 ? classes[sim_pick(CLASSES)] : cls;
            unsigned got = refill(my_thread(), of, out, 1 + sim_pick(8));
            for (unsigned n = 0; n < got; n++) {
                kit_keep(out[n], sizeclass_bytes(of));
            }
        } else {
            put(some(MAGAZINE_OBJECTS));
        }
    }
    if (sim_pick(2)) {
        pagebox_drain_owner(kit.threads[me], cls);
    }
}

static void page_boxes_open(void)
{
    kit_open(REGION_BYTES, 1, HAK_ON);
    /* Two or three slabs in all boxes together, so that they run into the limit. */
    kit.pool->boxed_bytes_limit = 3 * UNIT_BYTES;
    kit_attach_all();
    kit_save();
}

static void page_boxes_begin(void)
{
    unsigned fibers = 2 + sim_pick(2);

    deal(fibers);
    while (fibers-- > 0) {
        sim_spawn(box_fiber);
    }
}

static void page_boxes_end(void)
{
    finish();
}

static void page_boxes_close(void)
{
    kit_close();
}

SCENE(page_boxes, 150, 8)
