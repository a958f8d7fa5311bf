/* SPDX-License-Identifier: MIT */
/*
 * Runs of units, and memory that goes back to the kernel. A region of three SuperSlabs that are
 * nothing but addresses: only its books are at work. An ownership map says of each unit who has it;
 * a second one what it holds, so that memory that was discarded under its owner, or called
 * untouched and is not, is found.
 */
#include "region/giveback.h"
#include "region/units.h"
#include "tests/sched/sim.h"

#include <string.h>

#define SUPERSLABS_MAX 130
#define UNITS_MAX (SUPERSLABS_MAX * SUPERSLAB_UNITS)
#define SET_BYTES 128
#define BASE ((uintptr_t)1 << 40)
#define NOBODY (-2) /* -1 is who sets the scene */
#define RUNS_HELD 6

struct run {
    unit_t first;
    size_t count;
};

struct hand {
    struct run runs[RUNS_HELD];
    unsigned count;
};

static struct region region;
static uint32_t superslabs = 3; /* what a scene has; 130: its sets have two levels */
static struct registry_entry registry[SUPERSLABS_MAX];
static _Alignas(64) unsigned char index_memory[(RUN_LENGTHS + 1) * SET_BYTES];
static int owner[UNITS_MAX];
static bool written[UNITS_MAX];
static struct hand hands[SIM_FIBERS_MAX + 1]; /* the last is who sets the scene */
static unsigned successes;

static struct segment *segment(void)
{
    return &region.segments[0];
}

static struct hand *my_hand(void)
{
    return &hands[sim_me() < 0 ? SIM_FIBERS_MAX : sim_me()];
}

static unsigned all_units(void)
{
    return superslabs * SUPERSLAB_UNITS;
}

/* ---- the region ----------------------------------------------------------------------------- */

static int discard(void *at, size_t bytes)
{
    size_t first = ((uintptr_t)at - BASE) >> UNIT_LOG2;

    for (size_t n = first; n < first + (bytes >> UNIT_LOG2); n++) {
        SIM_CHECK(n < all_units());
        SIM_CHECK_EQ(owner[n], NOBODY);
        written[n] = false;
    }
    return 0;
}

static void units_open_region(uint32_t count)
{
    superslabs = count;
    sim_discard = discard;
}

static void units_close_region(void)
{
    sim_discard = NULL;
}

static void reset(bool gives_back)
{
    struct segment *one = &region.segments[0];

    memset(registry, 0, sizeof(registry));
    memset(index_memory, 0, sizeof(index_memory));
    memset(hands, 0, sizeof(hands));
    memset(one, 0, sizeof(*one));
    memset(written, 0, sizeof(written));
    region.base = BASE;
    region.bytes = superslabs * SUPERSLAB_BYTES;
    region.superslab_count = superslabs;
    region.unit_count = all_units();
    region.registry = registry;
    region.segment_count = 1;
    region.giveback_tick_ns = 1000000000U;
    one->superslab_count = superslabs;
    one->registry = registry;
    one->base = BASE;
    for (unsigned n = 0; n < RUN_LENGTHS; n++) {
        bitset_place(&one->runs[n], index_memory + n * SET_BYTES, superslabs);
    }
    bitset_place(&one->giveback.dirty, index_memory + RUN_LENGTHS * SET_BYTES, superslabs);
    one->giveback.on = gives_back;
    units_open(one, true);
    for (unsigned n = 0; n < all_units(); n++) {
        owner[n] = NOBODY;
    }
    successes = 0;
}

/* ---- what fibers do ------------------------------------------------------------------------- */

static void own(unit_t first, size_t count, bool untouched)
{
    SIM_CHECK(first != UNIT_NONE && first + count <= all_units());
    for (size_t n = first; n < first + count; n++) {
        SIM_CHECK_EQ(owner[n], NOBODY);
        owner[n] = sim_me();
        SIM_CHECK(!untouched || !written[n]);
        written[n] = true;
    }
}

static bool take(size_t count, size_t alignment)
{
    struct hand *hand = my_hand();
    bool untouched = false;

    if (hand->count == RUNS_HELD) {
        return false;
    }
    unit_t first = units_acquire(&region, segment(), count, alignment, &untouched);
    if (first == UNIT_NONE) {
        return false;
    }
    SIM_CHECK_EQ((first << UNIT_LOG2) % alignment, 0);
    own(first, count, untouched);
    hand->runs[hand->count++] = (struct run){first, count};
    return true;
}

static void disown(unit_t first, size_t count)
{
    for (size_t n = first; n < first + count; n++) {
        SIM_CHECK_EQ(owner[n], sim_me());
        owner[n] = NOBODY;
    }
}

static void release(unsigned which)
{
    struct hand *hand = my_hand();
    struct run run = hand->runs[which];

    hand->runs[which] = hand->runs[--hand->count];
    disown(run.first, run.count);
    units_release(&region, run.first, run.count);
}

/* Gives the end of a run back. */
static void shrink(unsigned which)
{
    struct run *run = &my_hand()->runs[which];
    size_t less = sim_pick((unsigned)run->count);

    if (less > 0) {
        run->count -= less;
        disown((unit_t)(run->first + run->count), less);
        units_release(&region, (unit_t)(run->first + run->count), less);
    }
}

static void grow(unsigned which)
{
    struct run *run = &my_hand()->runs[which];
    size_t more = sim_pick(3) ? 1 + sim_pick(3) : 1 + sim_pick(40);

    if (units_acquire_at(segment(), (unit_t)(run->first + run->count), more)) {
        own((unit_t)(run->first + run->count), more, false);
        run->count += more;
    }
}

static size_t some_count(void)
{
    static const uint8_t counts[] = {1, 1, 2, 3, 5, 16, 31, 32, 33, 40, 64, 96};

    return counts[sim_pick(sizeof(counts))];
}

static size_t some_alignment(void)
{
    return sim_pick(4) ? UNIT_BYTES : UNIT_BYTES << sim_pick(6);
}

static void one_step(bool purges)
{
    const struct hand *hand = my_hand();
    unsigned which = hand->count > 0 ? sim_pick(hand->count) : 0;
    unsigned dice = sim_pick(8);

    if (purges && dice == 7) {
        (void)(sim_pick(2) ? giveback_now(&region, 0) : giveback_parts(&region));
    } else if (hand->count == 0 || dice < 3) {
        (void)take(some_count(), some_alignment());
    } else if (dice < 5) {
        release(which);
    } else if (dice < 6) {
        shrink(which);
    } else {
        grow(which);
    }
}

/* ---- the end -------------------------------------------------------------------------------- */

static void check_books(void)
{
    SIM_CHECK(units_check(segment()));
    SIM_CHECK(giveback_check(segment()));
    for (unsigned n = 0; n < all_units(); n++) {
        uint32_t word = registry_free_units(&registry[n / SUPERSLAB_UNITS], memory_order_relaxed);
        SIM_CHECK_EQ((word >> (n % SUPERSLAB_UNITS)) & 1, owner[n] == NOBODY);
    }
    SIM_CHECK_EQ(atomic_load_explicit(&segment()->spans_in_flight, memory_order_relaxed), 0);
}

static void give_all_back(void)
{
    for (unsigned h = 0; h <= SIM_FIBERS_MAX; h++) {
        struct hand *hand = &hands[h];
        while (hand->count > 0) {
            struct run run = hand->runs[--hand->count];
            for (size_t n = run.first; n < run.first + run.count; n++) {
                owner[n] = NOBODY;
            }
            units_release(&region, run.first, run.count);
        }
    }
}

static void check_and_empty(void)
{
    check_books();
    give_all_back();
    check_books();
    SIM_CHECK_EQ(units_largest_run(segment()), all_units());
    SIM_CHECK(take(all_units(), UNIT_BYTES));
}

/* Before the fibers: some runs taken, some of those given back, so that there are holes and
 * SuperSlabs that were used. */
static void furnish(void)
{
    for (unsigned n = sim_pick(7); n > 0; n--) {
        one_step(false);
    }
}

/* ---- any mix of steps ----------------------------------------------------------------------- */

static void mixed_fiber(unsigned me)
{
    (void)me;
    for (unsigned steps = 1 + sim_pick(3); steps > 0; steps--) {
        one_step(giveback_on(segment()));
    }
}

static void spawn_mixed(unsigned least, unsigned more)
{
    furnish();
    for (unsigned fibers = least + sim_pick(more); fibers > 0; fibers--) {
        sim_spawn(mixed_fiber);
    }
}

static void units_runs_open(void)
{
    units_open_region(3);
}

static void units_runs_begin(void)
{
    reset(false);
    spawn_mixed(2, 3);
}

static void units_runs_end(void)
{
    check_and_empty();
}

static void units_runs_close(void)
{
    units_close_region();
}

SCENE(units_runs, 100, 14)

static void giveback_mix_open(void)
{
    units_open_region(3);
}

/* As a giver that was overtaken by a taker leaves it: dirty, and not free. */
static void leave_bits_too_many(void)
{
    for (uint32_t s = 0; s < superslabs; s++) {
        if (registry_free_units(&registry[s], memory_order_relaxed) != ALL_UNITS && sim_pick(2)) {
            giveback_set(segment(), s);
        }
    }
}

static void giveback_mix_begin(void)
{
    reset(true);
    spawn_mixed(2, 3);
    leave_bits_too_many();
}

static void giveback_mix_end(void)
{
    check_and_empty();
}

static void giveback_mix_close(void)
{
    units_close_region();
}

SCENE(giveback_mix, 130, 12)

/* A SuperSlab's last run goes while a purge finds its bit to be one too many. */
static void stale_fiber(unsigned me)
{
    if (me != 0) {
        (void)giveback_now(&region, 0);
    } else {
        release(0);
        if (sim_pick(3) == 0) {
            (void)take(some_count(), UNIT_BYTES);
        }
    }
}

static void giveback_stale_open(void)
{
    units_open_region(3);
}

static void giveback_stale_begin(void)
{
    reset(true);
    (void)take(1 + sim_pick(all_units()), UNIT_BYTES);
    hands[0] = hands[SIM_FIBERS_MAX];
    hands[SIM_FIBERS_MAX].count = 0;
    for (size_t n = 0; n < all_units(); n++) {
        owner[n] = owner[n] == NOBODY ? NOBODY : 0;
    }
    leave_bits_too_many();
    sim_spawn(stale_fiber);
    sim_spawn(stale_fiber);
}

static void giveback_stale_end(void)
{
    check_and_empty();
}

static void giveback_stale_close(void)
{
    units_close_region();
}

SCENE(giveback_stale, 60, 4)

/* ---- sets of two levels ---------------------------------------------------------------------- */

/* Of many SuperSlabs nearly all belong to somebody who has no part in this; those that do not lie
 * in different words of the sets, or are neighbours. */
#define STRANGER 99
static const uint8_t far_places[] = {0, 1, 64, 129};
static unsigned far_count;

static bool is_far_place(uint32_t superslab)
{
    for (unsigned n = 0; n < far_count; n++) {
        if (far_places[n] == superslab) {
            return true;
        }
    }
    return false;
}

static void far_fiber(unsigned me)
{
    (void)me;
    for (unsigned steps = 1 + sim_pick(3); steps > 0; steps--) {
        if (my_hand()->count > 0 && sim_pick(2)) {
            release(0);
        } else {
            (void)take(sim_pick(3) ? SUPERSLAB_UNITS : some_count(), UNIT_BYTES);
        }
    }
}

static void units_far_open(void)
{
    units_open_region(SUPERSLABS_MAX);
}

static void units_far_begin(void)
{
    struct segment *one = segment();

    far_count = 2 + sim_pick(3);
    reset(false);
    for (uint32_t s = 0; s < superslabs; s++) {
        if (!is_far_place(s)) {
            registry[s].taken_units = ALL_UNITS;
            (void)bitset_clear(&one->runs[SUPERSLAB_UNITS], s);
            one->free_unit_count -= SUPERSLAB_UNITS;
            for (unsigned n = 0; n < SUPERSLAB_UNITS; n++) {
                owner[s * SUPERSLAB_UNITS + n] = STRANGER;
            }
        }
    }
    for (unsigned n = sim_pick(4); n > 0; n--) {
        (void)take(SUPERSLAB_UNITS, UNIT_BYTES);
    }
    /* What was taken is the fibers' to give back. */
    while (my_hand()->count > 0) {
        struct run run = my_hand()->runs[--my_hand()->count];
        struct hand *to = &hands[sim_pick(2)];
        to->runs[to->count++] = run;
        for (size_t n = run.first; n < run.first + run.count; n++) {
            owner[n] = (int)(to - hands);
        }
    }
    for (unsigned fibers = 2 + sim_pick(2); fibers > 0; fibers--) {
        sim_spawn(far_fiber);
    }
}

static void units_far_end(void)
{
    check_books();
    give_all_back();
    check_books();
    for (unsigned n = 0; n < far_count; n++) {
        SIM_CHECK(take(SUPERSLAB_UNITS, UNIT_BYTES));
    }
    SIM_CHECK(!take(1, UNIT_BYTES));
}

static void units_far_close(void)
{
    units_close_region();
}

SCENE(units_far, 90, 6)

/* ---- spans that meet: somebody succeeds ------------------------------------------------------ */

static size_t span_count;

static void span_fiber(unsigned me)
{
    (void)me;
    successes += take(span_count, UNIT_BYTES);
    if (sim_pick(2) && my_hand()->count > 0) {
        release(0);
    }
}

static void units_spans_open(void)
{
    units_open_region(3);
}

static void units_spans_begin(void)
{
    static const uint8_t counts[] = {33, 40, 64, 65, 96};

    reset(false);
    span_count = counts[sim_pick(sizeof(counts))];
    for (unsigned fibers = 2 + sim_pick(2); fibers > 0; fibers--) {
        sim_spawn(span_fiber);
    }
}

static void units_spans_end(void)
{
    SIM_CHECK(successes > 0);
    check_and_empty();
}

static void units_spans_close(void)
{
    units_close_region();
}

SCENE(units_spans, 60, 6)

/* ---- nobody fails for a purge ---------------------------------------------------------------- */

static void purge_fiber(unsigned me)
{
    (void)me;
    (void)giveback_now(&region, 0);
    if (sim_pick(2)) {
        (void)giveback_parts(&region);
    }
}

/* Everything is free, and nobody else takes any. */
static void needy_fiber(unsigned me)
{
    (void)me;
    bool found = take(some_count(), UNIT_BYTES);
    /* A purger that stopped for an hour is given up after HOLD_NS. */
    SIM_CHECK(found || sim_stopped_one());
}

static void giveback_needy_open(void)
{
    units_open_region(3);
}

static void giveback_needy_begin(void)
{
    reset(true);
    furnish();
    for (unsigned n = my_hand()->count; n > 0; n--) {
        release(0);
    }
    sim_spawn(purge_fiber);
    sim_spawn(needy_fiber);
    if (sim_pick(2)) {
        sim_spawn(purge_fiber);
    }
}

static void giveback_needy_end(void)
{
    check_and_empty();
}

static void giveback_needy_close(void)
{
    units_close_region();
}

SCENE(giveback_needy, 80, 6)
