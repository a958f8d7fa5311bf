/* SPDX-License-Identifier: MIT */
/*
 * Each rung of the exhaustion ladder (alloc/exhaust.h) at work alone: a region is full but for a
 * hole, and the hole cannot be used until just that rung has done its work. For every kind of
 * allocation; and at the end of the ladder NULL, with nothing changed. The reclaimer has a program
 * of its own (test_ladder_reclaimer.c), the C library another (test_ladder_libc.c).
 */
#include "tests/ladder_kit.h"

#include "alloc/exhaust.h"
#include "region/units.h"

static struct kit_turns turns;

static struct hak_region *open_one(void)
{
    return kit_open(LADDER_BYTES);
}

static struct thread *own_slot(void)
{
    return thread_self[hak_region_default()->id].active;
}

/* What the slot still holds. */
static size_t held_by(const struct thread *thread)
{
    size_t slabs = 0;

    for (unsigned cls = 1; cls <= CLASS_COUNT; cls++) {
        slabs += thread->boxes[cls].count;
    }
    return slabs + thread->cached_bytes;
}

static void finish(void)
{
    ladder_empty();
    kit_close();
}

/* ---- own ------------------------------------------------------------------------------------- */

TEST(own_caches_and_boxes_go_back)
{
    for (size_t n = 0; n < LADDER_ASKS; n++) {
        const struct ladder_ask *ask = &ladder_asks[n];
        open_one();
        int node = ladder_node(0);
        ladder_fill(ask, node, true);
        ladder_open_hole();
        ladder_hand(node);
        struct hak_stats before = kit_stats();
        CHECK(before.cached_bytes_max > 0 && before.boxed_bytes_max > 0);
        CHECK_EQ(ladder_get(ask, node), ladder_wanted(ask));
        struct hak_stats after = kit_stats();
        CHECK_GE(after.flushed_objects, before.flushed_objects + 1);
        CHECK_GE(after.slabs_recycled, before.slabs_recycled + 1);
        CHECK_EQ(after.exhausted, before.exhausted);
        ladder_use(ask, 0);
        finish();
    }
}

/* ---- outboxes -------------------------------------------------------------------------------- */

/* By name, of another node, asked for by a thread that has a hand in it: an object on its way
 * home keeps its slab. */
static void *own_outbox(void *argument)
{
    const struct ladder_ask *ask = argument;

    CHECK_EQ(hak_thread_pin(0), 0);
    ladder_fill(ask, ladder_node(1), false);
    ladder_open_hole();
    void *object = hak_malloc_on_node(LADDER_HAND, ladder_node(1));
    CHECK_EQ(kit_segment(object), 1);
    hak_free(object);
    CHECK_EQ(atomic_load(&own_slot()->outboxes[1].bytes), LADDER_HAND);
    /* The rest of a hole that is longer than the ask: nothing else may do. */
    kit_elsewhere(ladder_fill_node, &(int){ladder_node(1)});
    struct hak_stats before = kit_stats();
    struct ladder_ask one = {ask->name, BY_NODE, 5000, 0, 1};
    CHECK_EQ(ladder_get(&one, ladder_node(1)), 1);
    struct hak_stats after = kit_stats();
    CHECK_EQ(after.remote_drains, before.remote_drains + 1);
    CHECK_EQ(after.remote_frees, before.remote_frees + 1);
    CHECK_EQ(after.exhausted, before.exhausted);
    CHECK_EQ(atomic_load(&own_slot()->outboxes[1].bytes), 0);
    ladder_use(&one, 1);
    ladder_empty();
    return NULL;
}

static void open_two(enum hak_exhausted policy)
{
    if (pin_cpu_count() < 2) {
        SKIP("one processor: threads cannot be on two nodes");
    }
    kit_open_two_nodes(2 * LADDER_BYTES, policy);
}

TEST(the_own_outbox_is_sent)
{
    static const struct ladder_ask ask = {"outbox", BY_NODE, 5000, 0, 1};

    open_two(HAK_EXHAUSTED_FAIL);
    kit_elsewhere(own_outbox, (void *)&ask);
    kit_close();
}

/* ---- other threads' -------------------------------------------------------------------------- */

/* How a thread that has a hand in the hole behaves while somebody else wants it. */
enum neighbour { RESTS, WORKS, WORKS_ELSEWHERE, RESTS_ELSEWHERE };

struct hoard {
    enum neighbour way;
    struct thread *slot;
    unsigned steps; /* slow steps that it took to give everything back */
};

/* An allocation that cannot be, which is a slow step and nothing else. */
static void slow_step(void)
{
    static volatile size_t beyond = SIZE_MAX;
    CHECK(hak_malloc(beyond) == NULL);
}

static void *hoard(void *argument)
{
    struct hoard *self = argument;
    bool elsewhere = self->way == WORKS_ELSEWHERE || self->way == RESTS_ELSEWHERE;

    if (elsewhere) {
        CHECK_EQ(hak_thread_pin(1), 0);
        hak_free(hak_malloc_on_node(LADDER_HAND, ladder_node(0)));
    } else {
        ladder_hand(ladder_node(0));
    }
    self->slot = own_slot();
    CHECK(elsewhere ? atomic_load(&self->slot->outboxes[0].bytes) > 0 : held_by(self->slot) > 0);
    if (self->way == RESTS || self->way == RESTS_ELSEWHERE) {
        hak_thread_idle();
    }
    kit_done(&turns, 1);
    kit_wait(&turns, 2);
    while (self->way == WORKS || self->way == WORKS_ELSEWHERE) {
        slow_step();
        self->steps++;
        if (held_by(self->slot) == 0 && atomic_load(&self->slot->outboxes[0].bytes) == 0) {
            break;
        }
        CHECK_LE(self->steps, 100);
    }
    kit_done(&turns, 3);
    kit_wait(&turns, 4);
    return NULL;
}

/* At home on node 0. */
static void *want_from(void *argument)
{
    struct hoard self = {.way = *(const enum neighbour *)argument};
    bool rests = self.way == RESTS || self.way == RESTS_ELSEWHERE;

    for (size_t n = 0; n < LADDER_ASKS; n++) {
        const struct ladder_ask *ask = &ladder_asks[n];
        self.steps = 0;
        ladder_fill(ask, ladder_node(0), true);
        ladder_open_hole();
        kit_done(&turns, 0);
        pthread_t thread = kit_thread(hoard, &self);
        kit_wait(&turns, 1);
        struct hak_stats before = kit_stats();
        size_t first = ladder_get(ask, ladder_node(0));
        if (rests) {
            CHECK_EQ(first, ladder_wanted(ask)); /* taken at once */
            CHECK_EQ(kit_stats().exhausted, before.exhausted);
            CHECK_EQ(atomic_load(&self.slot->state), THREAD_IDLE); /* and left as it was */
        } else {
            CHECK_LE(first, ladder_wanted(ask) - 1); /* not without its thread's consent ... */
            ladder_failed(ask, ladder_node(0));
            CHECK_EQ(kit_stats().exhausted, before.exhausted + 1);
            CHECK_EQ(atomic_load(&self.slot->asked), 1);
            hak_free_bulk(ladder.got, first);
        }
        kit_done(&turns, 2);
        kit_wait(&turns, 3);
        if (!rests) {
            CHECK_GE(self.steps, 1);
            CHECK_EQ(ladder_get(ask, ladder_node(0)), ladder_wanted(ask)); /* ... which it gave */
            CHECK_EQ(kit_stats().exhausted, before.exhausted + 1);
        }
        CHECK_EQ(held_by(self.slot), 0);
        ladder_use(ask, 0);
        ladder_empty();
        kit_done(&turns, 4);
        kit_join(thread);
    }
    return NULL;
}

static void *want_at_home(void *way)
{
    CHECK_EQ(hak_thread_pin(0), 0);
    return want_from(way);
}

static void against(enum neighbour way)
{
    if (way == RESTS || way == WORKS) {
        open_one();
        kit_elsewhere(want_from, &way);
    } else {
        open_two(HAK_EXHAUSTED_FAIL);
        kit_elsewhere(want_at_home, &way);
    }
    kit_close();
}

TEST(idle_threads_caches_and_boxes_are_taken)
{
    against(RESTS);
}

TEST(idle_threads_outboxes_are_taken)
{
    against(RESTS_ELSEWHERE);
}

TEST(threads_at_work_are_asked_and_give_on_their_next_slow_steps)
{
    against(WORKS);
}

TEST(threads_of_other_nodes_are_asked_for_their_outboxes)
{
    against(WORKS_ELSEWHERE);
}

/* ---- mend ------------------------------------------------------------------------------------ */

/* As a thread leaves it that is stopped after it freed units and before it told of them. */
static void hide_free_runs(struct segment *segment)
{
    for (unsigned length = 1; length < RUN_LENGTHS; length++) {
        for (uint32_t s = 0; s < segment->superslab_count; s++) {
            (void)bitset_clear(&segment->runs[length], s);
        }
    }
    atomic_store(&segment->lengths, 0);
}

TEST(free_runs_that_a_stopped_thread_hides_are_found)
{
    for (size_t n = 0; n < LADDER_ASKS; n++) {
        const struct ladder_ask *ask = &ladder_asks[n];
        struct hak_region *heap = open_one();
        ladder_fill(ask, ladder_node(0), true);
        ladder_open_hole();
        hide_free_runs(&heap->area.segments[0]);
        uint64_t before = kit_stats().exhausted;
        CHECK_EQ(ladder_get(ask, ladder_node(0)), ladder_wanted(ask));
        CHECK_EQ(kit_stats().exhausted, before);
        CHECK(units_check(&heap->area.segments[0])); /* every hint is there again */
        ladder_use(ask, 0);
        finish();
    }
}

/* As a thread leaves it that is stopped between publishing a slab and the summary above. */
static void hide_slabs(struct pool *pool, unsigned cls)
{
    CHECK_GE(pool->partial[cls].level_count, 2);
    for (unsigned level = 1; level < pool->partial[cls].level_count; level++) {
        for (size_t w = 0; w < (pool->partial[cls].bit_count[level] + 63) / 64; w++) {
            atomic_store(&pool->partial[cls].level[level][w], 0);
        }
    }
}

static void *fill_with_class(void *argument)
{
    static void *held[LADDER_BYTES / 64 + 1];
    size_t size = *(const size_t *)argument;
    size_t count = 0;

    while ((held[count] = hak_malloc(size)) != NULL) {
        count++;
    }
    hak_free(held[--count]); /* one hole, in a slab that is nobody's when this thread is gone */
    thread_detach_all();
    kit_done(&turns, 1);
    kit_wait(&turns, 2);
    hak_free_bulk(held, count);
    return NULL;
}

TEST(slabs_with_room_that_a_stopped_thread_hides_are_found)
{
    static const size_t some[] = {64, 1000, 5000};

    for (size_t n = 0; n < sizeof some / sizeof *some; n++) {
        size_t size = some[n];
        unsigned cls = sizeclass_of(size);
        struct hak_region *heap = open_one();
        kit_done(&turns, 0);
        pthread_t thread = kit_thread(fill_with_class, &size);
        kit_wait(&turns, 1);
        uint64_t before = kit_stats().exhausted;
        CHECK_EQ(kit_slabs_in(cls, SLAB_PARTIAL), 1);
        hide_slabs(&heap->pools[0], cls);
        void *object = hak_malloc(size);
        CHECK(object != NULL);
        CHECK_EQ(kit_stats().exhausted, before);
        CHECK(hak_malloc(size) == NULL); /* that was the one */
        hak_free(object);
        kit_done(&turns, 2);
        kit_join(thread);
        kit_close();
    }
}

/* ---- another node ---------------------------------------------------------------------------- */

static void *want_elsewhere(void *policy)
{
    bool allowed = *(const enum hak_exhausted *)policy == HAK_EXHAUSTED_ANY_NODE;

    CHECK_EQ(hak_thread_pin(0), 0);
    for (size_t n = 0; n < LADDER_ASKS; n++) {
        const struct ladder_ask *ask = &ladder_asks[n];
        ladder_fill(ask, ladder_node(0), true);
        struct hak_stats before = kit_stats();
        size_t got = ladder_get(ask, ladder_node(0));
        struct hak_stats after = kit_stats();
        if (!allowed || ask->call == BY_NODE) { /* by name is never another node */
            CHECK_EQ(got, 0);
            ladder_failed(ask, ladder_node(0));
            CHECK_EQ(after.exhausted, before.exhausted + 1);
            CHECK_EQ(after.other_node_allocs, before.other_node_allocs);
        } else {
            CHECK_EQ(got, ladder_wanted(ask));
            CHECK_EQ(after.other_node_allocs, before.other_node_allocs + got);
            CHECK_EQ(after.exhausted, before.exhausted);
            ladder_use(ask, 1);
        }
        ladder_empty();
    }
    return NULL;
}

TEST(another_node_helps_where_the_policy_allows)
{
    enum hak_exhausted policy = HAK_EXHAUSTED_ANY_NODE;

    open_two(policy);
    kit_elsewhere(want_elsewhere, &policy);
    kit_close();
}

TEST(another_node_does_not_help_otherwise)
{
    enum hak_exhausted policy = HAK_EXHAUSTED_FAIL;

    open_two(policy);
    kit_elsewhere(want_elsewhere, &policy);
    kit_close();
}

/* The other node's own hidden runs count as well. */
static void *want_hidden_elsewhere(void *unused)
{
    CHECK_EQ(hak_thread_pin(0), 0);
    for (size_t n = 0; n < LADDER_ASKS; n++) {
        const struct ladder_ask *ask = &ladder_asks[n];
        if (ask->call == BY_NODE) {
            continue;
        }
        ladder_fill(ask, ladder_node(0), true);
        hide_free_runs(&hak_region_default()->area.segments[1]);
        CHECK_EQ(ladder_get(ask, ladder_node(0)), ladder_wanted(ask));
        ladder_use(ask, 1);
        ladder_empty();
    }
    return unused;
}

TEST(what_a_stopped_thread_hides_on_another_node_is_found)
{
    open_two(HAK_EXHAUSTED_ANY_NODE);
    kit_elsewhere(want_hidden_elsewhere, NULL);
    kit_close();
}

/* ---- the end --------------------------------------------------------------------------------- */

TEST(at_the_end_there_is_NULL_and_ENOMEM_and_nothing_has_changed)
{
    for (size_t n = 0; n < LADDER_ASKS; n++) {
        const struct ladder_ask *ask = &ladder_asks[n];
        struct hak_region *heap = open_one();
        ladder_fill(ask, ladder_node(0), true);
        uint64_t before = kit_stats().exhausted;
        CHECK_EQ(ladder_get(ask, ladder_node(0)), 0);
        ladder_failed(ask, ladder_node(0));
        CHECK_EQ(kit_stats().exhausted, before + 1);
        CHECK(heap_check(heap));
        finish();
    }
}

TEST(bulk_gets_what_there_is)
{
    static const struct ladder_ask small = {"bulk", BY_BULK, 1000, 0, 1};
    static void *many[100];

    open_one();
    ladder_fill(&small, ladder_node(0), true);
    uint64_t before = kit_stats().exhausted;
    ladder_open_hole();
    errno = 0;
    CHECK_EQ(hak_malloc_bulk(1000, 100, many), 64); /* a unit of 1,024 bytes each */
    ladder_failed(&small, ladder_node(0));
    CHECK_EQ(kit_stats().exhausted, before + 1);
    for (size_t n = 0; n < 64; n++) {
        memset(many[n], (int)n, 1000);
    }
    for (size_t n = 0; n < 64; n++) {
        CHECK_EQ(*(unsigned char *)many[n], n);
    }
    hak_free_bulk(many, 64);
    finish();
}

/* ---- threads without a slot ------------------------------------------------------------------ */

/* They have nothing of their own, but what idle threads hold and what is hidden is theirs too. */
static void *want_as_stray(void *argument)
{
    struct hak_region *heap = hak_region_default();
    struct hoard self = {.way = RESTS};

    for (size_t n = 0; n < LADDER_ASKS; n++) {
        const struct ladder_ask *ask = &ladder_asks[n];
        if (ask->call == BY_REALLOC) {
            continue;
        }
        ladder_fill(ask, ladder_node(0), true);
        ladder_open_hole();
        kit_done(&turns, 0);
        pthread_t thread = kit_thread(hoard, &self);
        kit_wait(&turns, 1);
        hide_free_runs(&heap->area.segments[0]);
        thread_detach_all();
        size_t slots = heap->pools[0].slots.free.bit_count[0];
        size_t *taken = argument, count = 0;
        while ((taken[count] = bitset_claim(&heap->pools[0].slots.free, 0)) != BITSET_NONE) {
            count++;
        }
        CHECK_LE(count, slots);
        struct hak_stats before = kit_stats();
        CHECK_EQ(ladder_get(ask, ladder_node(0)), ladder_wanted(ask));
        CHECK_EQ(kit_stats().exhausted, before.exhausted);
        CHECK(own_slot() == &thread_none); /* it had none */
        ladder_use(ask, 0);
        while (count > 0) {
            (void)bitset_set(&heap->pools[0].slots.free, taken[--count]);
        }
        ladder_empty();
        kit_done(&turns, 2);
        kit_wait(&turns, 3);
        kit_done(&turns, 4);
        kit_join(thread);
    }
    return NULL;
}

TEST(a_thread_without_a_slot_climbs_the_ladder_too)
{
    static size_t taken[THREAD_SLOTS_MAX];

    open_one();
    kit_elsewhere(want_as_stray, taken);
    kit_close();
}

HARNESS_MAIN()
