/* SPDX-License-Identifier: MIT */
/*
 * Slots of threads, large objects, outboxes, and the public calls over all of it. A fiber has
 * thread-locals of its own, so each is a thread to the library: it is attached at its first miss
 * and leaves in the end, or exits, and may still allocate and free after that.
 */
#include "alloc/large.h"
#include "alloc/outbox.h"
#include "alloc/sharedpool.h"
#include "tests/sched/heap_kit.h"

#include <string.h>

#define MIB ((size_t)1 << 20)

/* ---- the public calls ------------------------------------------------------------------------ */

static void get(size_t bytes)
{
    void *object;

    if (kit_hand()->count == KIT_HAND || (object = hak_malloc(bytes)) == NULL) {
        return;
    }
    kit_keep(object, bytes);
    if (bytes <= 4096) {
        memset(object, 1 + sim_me(), bytes < 64 ? bytes : 64);
    }
}

static void drop_one(void)
{
    const struct kit_hand *hand = kit_hand();
    unsigned which;
    const unsigned char *object;

    if (hand->count == 0) {
        return;
    }
    which = sim_pick(hand->count);
    object = hand->objects[which];
    SIM_CHECK(hand->bytes[which] > 4096 || object[0] == 1 + sim_me());
    hak_free(kit_let_go(which));
}

/* To another fiber, which frees it some time. */
static void hand_over(unsigned fibers)
{
    struct kit_hand *mine = kit_hand();
    unsigned to = sim_pick(fibers);
    struct kit_hand *other = &kit.hands[to];

    if (mine->count == 0 || other == mine || other->count == KIT_HAND) {
        return;
    }
    mine->count--;
    other->objects[other->count] = mine->objects[mine->count];
    other->bytes[other->count++] = mine->bytes[mine->count];
    if (mine->bytes[mine->count] <= 4096) {
        memset(mine->objects[mine->count], (int)(1 + to), 1);
    }
}

static void give_slot_up(void)
{
    thread_enter();
    thread_detach_all();
    thread_leave();
}

/* Thread-local destructors that run later may do one thing or the other. */
static void exit_thread(void)
{
    sim_thread_exit();
    if (sim_pick(4) == 0) {
        get(512);
    }
    if (sim_pick(4) == 0) {
        drop_one();
    }
}

static unsigned fiber_count;

static void spawn_all(void (*run)(unsigned me), unsigned least, unsigned more)
{
    unsigned fibers = least + sim_pick(more);

    fiber_count = fibers;
    while (fibers-- > 0) {
        sim_spawn(run);
    }
}

/* All slots are free again, and nobody counts as using one. */
static void check_slots(void)
{
    for (uint32_t n = 0; n < kit.heap->pool_count; n++) {
        struct thread_slots *slots = &kit.heap->pools[n].slots;
        SIM_CHECK_EQ(atomic_load_explicit(&slots->taken, memory_order_relaxed), 0);
        SIM_CHECK_EQ(bitset_count(&slots->free), slots->free.bit_count[0]);
    }
}

static void open_region(size_t bytes, unsigned nodes, enum hak_switch prefault)
{
    kit_open(bytes, nodes, prefault);
    kit_save();
}

/* ---- idle, taken, abandoned ------------------------------------------------------------------ */

static void slots_fiber(unsigned me)
{
    (void)me;
    for (unsigned steps = 1 + sim_pick(5); steps > 0; steps--) {
        switch (sim_pick(7)) {
        case 0:
        case 1:
            hak_thread_idle();
            break;
        case 2:
        case 3:
            (void)thread_reclaim_idle(kit.heap, thread_self[0].active);
            break;
        case 4:
            drop_one();
            break;
        case 5:
            give_slot_up();
            break;
        default:
            get(512);
            break;
        }
    }
    exit_thread();
}

static void thread_slots_open(void)
{
    open_region(4 * MIB, 1, HAK_ON);
}

static void thread_slots_begin(void)
{
    kit_restore();
    spawn_all(slots_fiber, 2, 2);
}

static void thread_slots_end(void)
{
    kit_check_and_empty();
    check_slots();
}

static void thread_slots_close(void)
{
    kit_close();
}

SCENE(thread_slots, 150, 10)

/* One goes idle and comes back, or exits, while others are after what it holds. */
static bool went_idle;

static void idle_fiber(unsigned me)
{
    if (me > 0) {
        for (unsigned tries = 0; !went_idle && tries < 20; tries++) {
            sim_wait(); /* not for good: it may be the one that is stopped */
        }
        for (unsigned steps = 1 + sim_pick(3); steps > 0; steps--) {
            (void)thread_reclaim_idle(kit.heap, NULL);
        }
        return;
    }
    get(512);
    for (unsigned steps = 1 + sim_pick(2); steps > 0; steps--) {
        hak_thread_idle();
        went_idle = true;
        if (sim_pick(2)) {
            get(512);
        }
    }
    exit_thread();
}

static void idle_slots_open(void)
{
    open_region(4 * MIB, 1, HAK_ON);
}

static void idle_slots_begin(void)
{
    kit_restore();
    went_idle = false;
    spawn_all(idle_fiber, 2, 2);
}

static void idle_slots_end(void)
{
    kit_check_and_empty();
    check_slots();
}

static void idle_slots_close(void)
{
    kit_close();
}

SCENE(idle_slots, 80, 6)

/* ---- slots that end with their region -------------------------------------------------------- */

/* As the end of a region does it, but that the region's memory stays. From then on nobody looks at
 * a slot of it who has not entered before. */
static bool ended;
static unsigned attached;

static void ending_fiber(unsigned me)
{
    (void)me;
    while (attached < fiber_count) {
        sim_wait(); /* no thread may begin to use a region that ends */
    }
    thread_forget(kit.heap);
    ended = true;
}

static void look_at_slot(void)
{
    bool was = ended;
    struct thread *active = thread_self[0].active;

    SIM_CHECK(!was || active == &thread_none);
    SIM_CHECK(!was || thread_self[0].parked == NULL);
    thread_mark_idle();
    SIM_CHECK_EQ(ended, was); /* not while we are in there */
}

static void lasting_fiber(unsigned me)
{
    (void)me;
    (void)thread_current(kit.heap);
    attached++;
    for (unsigned steps = 1 + sim_pick(3); steps > 0; steps--) {
        thread_enter();
        look_at_slot();
        thread_leave();
    }
}

static void region_ends_open(void)
{
    open_region(4 * MIB, 1, HAK_ON);
}

static void region_ends_begin(void)
{
    kit_restore();
    sim_may_wait();
    ended = false;
    attached = 0;
    spawn_all(lasting_fiber, 1, 2);
    sim_spawn(ending_fiber);
}

static void region_ends_end(void)
{
    SIM_CHECK(ended);
}

static void region_ends_close(void)
{
    kit_close();
}

SCENE(region_ends, 60, 4)

/* ---- a large object freed by two at once ----------------------------------------------------- */

static void *contested;
static size_t contested_bytes;

static void large_fiber(unsigned me)
{
    if (me < 2) {
        large_free(kit.threads[me], region_unit(&kit.heap->area, contested), contested);
        return;
    }
    /* What was freed may be had at once; not by another large object, whose start would be the
     * same: that second free would be right. */
    unit_t unit = sharedpool_acquire_fresh(kit.pool, 16);
    if (unit != UNIT_NONE) {
        kit_own(region_address(&kit.heap->area, unit), UNIT_BYTES);
        SIM_CHECK_EQ(
            head_state(atomic_load_explicit(&kit.heap->slabs[unit].head, memory_order_relaxed)),
            SLAB_OWNED);
        kit_disown(region_address(&kit.heap->area, unit), UNIT_BYTES);
        sharedpool_give_up(kit.threads[me], unit);
    }
}

static void large_frees_open(void)
{
    kit_open(4 * MIB, 1, HAK_ON);
    kit_attach_all();
    kit_save();
}

static void large_frees_begin(void)
{
    kit_restore();
    contested_bytes = (size_t)(1 + sim_pick(40)) << UNIT_LOG2;
    contested = large_alloc(kit.threads[0], contested_bytes, 0, NULL);
    SIM_CHECK(contested != NULL);
    kit.misuses = 1;
    spawn_all(large_fiber, 2, 2);
}

static void large_frees_end(void)
{
    kit_check_and_empty();
}

static void large_frees_close(void)
{
    kit_close();
}

SCENE(large_frees, 30, 4)

/* ---- two nodes ------------------------------------------------------------------------------- */

static void outbox_fiber(unsigned me)
{
    (void)me;
    for (unsigned steps = 1 + sim_pick(6); steps > 0; steps--) {
        switch (sim_pick(6)) {
        case 0:
        case 1:
            get(sim_pick(2) ? 8192 : 65536);
            break;
        case 2:
        case 3:
            drop_one();
            break;
        case 4:
            hand_over(fiber_count);
            break;
        default:
            if (thread_self[0].active != &thread_none) {
                outbox_drain_owner(thread_self[0].active);
            }
            break;
        }
    }
    exit_thread();
}

static void outboxes_open(void)
{
    for (int n = 0; n <= SIM_FIBERS_MAX; n++) {
        sim_node[n] = n % 2;
    }
    open_region(2 * MIB, 2, HAK_ON);
}

static void outboxes_begin(void)
{
    kit_restore();
    spawn_all(outbox_fiber, 2, 2);
}

static void outboxes_end(void)
{
    kit_check_and_empty();
    check_slots();
}

static void outboxes_close(void)
{
    kit_close();
    memset(sim_node, 0, sizeof(sim_node));
}

SCENE(outboxes, 150, 6)

/* ---- all public calls, up to the wall -------------------------------------------------------- */

static void resize(void)
{
    struct kit_hand *hand = kit_hand();
    size_t bytes = (size_t)(1 + sim_pick(40)) * 32768;
    unsigned which;

    if (hand->count == 0) {
        return;
    }
    which = sim_pick(hand->count);
    size_t have = hand->bytes[which];
    void *object = kit_let_go(which);
    void *moved = hak_realloc(object, bytes);
    if (moved != NULL) {
        kit_keep(moved, bytes);
    } else {
        kit_keep(object, have);
    }
    hand->bytes[hand->count - 1] = moved != NULL ? bytes : have;
    if (hand->bytes[hand->count - 1] <= 4096) {
        memset(hand->objects[hand->count - 1], 1 + sim_me(), 1);
    }
}

static size_t some_size(void)
{
    static const size_t sizes[] = {512, 512, 8192, 65536, 200000, 300000, 600000, 1200000};

    return sizes[sim_pick(sizeof(sizes) / sizeof(sizes[0]))];
}

static void calls_fiber(unsigned me)
{
    (void)me;
    for (unsigned steps = 1 + sim_pick(8); steps > 0; steps--) {
        unsigned dice = sim_pick(16);
        if (dice < 8) {
            get(some_size());
        } else if (dice < 12) {
            drop_one();
        } else if (dice == 12) {
            hand_over(fiber_count);
        } else if (dice == 13) {
            hak_thread_idle();
        } else {
            resize();
        }
    }
    exit_thread();
}

static void public_calls_open(void)
{
    open_region(2 * MIB, 1, HAK_OFF);
}

static void public_calls_begin(void)
{
    kit_restore();
    spawn_all(calls_fiber, 2, 2);
}

static void public_calls_end(void)
{
    kit_check_and_empty();
    check_slots();
}

static void public_calls_close(void)
{
    kit_close();
}

SCENE(public_calls, 600, 8)

/* ---- where there is enough, nobody hears that there is not ----------------------------------- */

/* In three SuperSlabs each fiber has at most one object of five units and some of 512 bytes, so
 * whatever lies where, a run of five is free: a NULL is wrong, unless somebody is stopped half-way.
 */
static void enough_fiber(unsigned me)
{
    void *large = NULL;

    (void)me;
    for (unsigned steps = 2 + sim_pick(5); steps > 0; steps--) {
        if (sim_pick(3) == 0) {
            unsigned before = kit_hand()->count;
            get(512);
            SIM_CHECK(kit_hand()->count > before || sim_stopped_one());
        } else if (sim_pick(3) == 0) {
            drop_one();
        } else if (large == NULL) {
            large = hak_malloc(300000);
            SIM_CHECK(large != NULL || sim_stopped_one());
            if (large != NULL) {
                kit_own(large, 300000);
            }
        } else {
            kit_disown(large, 300000);
            hak_free(large);
            large = NULL;
        }
    }
    if (large != NULL) {
        kit_disown(large, 300000);
        hak_free(large);
    }
    exit_thread();
}

static void enough_for_all_open(void)
{
    open_region(6 * MIB, 1, HAK_OFF);
}

static void enough_for_all_begin(void)
{
    kit_restore();
    spawn_all(enough_fiber, 2, 2);
}

static void enough_for_all_end(void)
{
    kit_check_and_empty();
    check_slots();
}

static void enough_for_all_close(void)
{
    kit_close();
}

SCENE(enough_for_all, 250, 6)

/* ---- nobody fails for a span that is half-way ----------------------------------------------- */

/* Two SuperSlabs are free, and of the third the set still says so: one asks for all three in vain,
 * and may have two of them in hand for a while. */
static void hopeless_fiber(unsigned me)
{
    SIM_CHECK(large_alloc(kit.threads[me], 6 * MIB, 0, NULL) == NULL);
}

static void modest_fiber(unsigned me)
{
    void *object = large_alloc(kit.threads[me], 2 * MIB, 0, NULL);

    SIM_CHECK(object != NULL || sim_stopped_one());
    if (object != NULL) {
        kit_keep(object, 2 * MIB);
    }
}

static void spans_needy_open(void)
{
    void *objects[3];

    kit_open(6 * MIB, 1, HAK_ON);
    kit_attach_all();
    for (unsigned n = 0; n < 3; n++) {
        objects[n] = large_alloc(kit.threads[0], n < 2 ? 2 * MIB : 65536, 0, NULL);
    }
    kit_keep(objects[2], 65536);
    hak_free(objects[0]);
    hak_free(objects[1]);
    kit_save();
}

static void spans_needy_begin(void)
{
    kit_restore();
    sim_spawn(hopeless_fiber);
    sim_spawn(modest_fiber);
}

static void spans_needy_end(void)
{
    kit_check_and_empty();
}

static void spans_needy_close(void)
{
    kit_close();
}

SCENE(spans_needy, 60, 4)
