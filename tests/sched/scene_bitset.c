/* SPDX-License-Identifier: MIT */
/*
 * The bitset over three levels, and what hangs on it alone: magazines, budgets. Bits are tokens:
 * whoever clears one has it, and only who has it sets it again. So a bit that two have, or that
 * nobody has and that is not set, is a finding; and so is one that no search finds afterwards.
 */
#include "tests/sched/sim.h"

#include "alloc/magazine.h"

#include <string.h>

/* Three levels: words of a common summary word, neighbours in a word, words far apart. */
#define BITS ((size_t)64 * 64 * 2)
static const size_t places[] = {0, 1, 64, 4095, 4096, 4160};
#define PLACES (sizeof(places) / sizeof(places[0]))
#define NOBODY (-1)
#define IN_THE_SET (-2)

static struct bitset set;
static _Alignas(64) uint64_t memory[BITS / 64 + 3 * 8 + 64];
static int holder[PLACES];
static unsigned place_count;

static void clear_all(void)
{
    memset(memory, 0, sizeof(memory));
    bitset_place(&set, memory, BITS);
}

static unsigned place_of(size_t bit)
{
    unsigned n = 0;

    while (n < place_count && places[n] != bit) {
        n++;
    }
    SIM_CHECK(n < place_count);
    return n;
}

/* Between the step that clears a bit and our noting it there is no point: nobody can come in. */
static void got(size_t bit)
{
    unsigned n = place_of(bit);

    SIM_CHECK_EQ(holder[n], IN_THE_SET);
    holder[n] = sim_me();
}

static void give(unsigned n)
{
    holder[n] = IN_THE_SET;
    SIM_CHECK(bitset_set(&set, places[n]));
}

static void one_step(void)
{
    unsigned n = sim_pick(place_count);
    size_t found;

    switch (sim_pick(5)) {
    case 0:
        found = bitset_claim(&set, sim_pick(2) ? 0 : places[n]);
        if (found != BITSET_NONE) {
            got(found);
        }
        break;
    case 1:
        found = sim_pick(2) ? bitset_find(&set, places[n]) : bitset_find_last(&set, BITS);
        if (found != BITSET_NONE) {
            (void)place_of(found);
        }
        break;
    default:
        if (holder[n] == sim_me()) {
            give(n);
        } else if (bitset_clear(&set, places[n])) {
            got(places[n]);
        }
        break;
    }
}

static void bitset_claims_fiber(unsigned me)
{
    (void)me;
    for (unsigned steps = 1 + sim_pick(4); steps > 0; steps--) {
        one_step();
    }
}

static void bitset_claims_open(void)
{
}

static void bitset_claims_close(void)
{
}

static void bitset_claims_begin(void)
{
    unsigned fibers = 2 + sim_pick(3);

    clear_all();
    place_count = 1 + sim_pick(PLACES);
    for (unsigned n = 0; n < place_count; n++) {
        int who = (int)sim_pick(fibers + 2);
        holder[n] = who < (int)fibers ? who : IN_THE_SET;
        if (holder[n] == IN_THE_SET) {
            (void)bitset_set(&set, places[n]);
        }
    }
    while (fibers-- > 0) {
        sim_spawn(bitset_claims_fiber);
    }
}

static void bitset_claims_end(void)
{
    size_t last = BITSET_NONE;

    SIM_CHECK(bitset_check(&set));
    for (unsigned n = 0; n < place_count; n++) {
        bool there = bitset_test(&set, places[n]);
        SIM_CHECK_EQ(there, holder[n] == IN_THE_SET);
        if (there) {
            SIM_CHECK_EQ(bitset_find(&set, places[n]), places[n]);
            SIM_CHECK_EQ(bitset_find_last(&set, places[n] + 1), places[n]);
            last = places[n];
        }
    }
    SIM_CHECK_EQ(bitset_find_last(&set, BITS), last);
    while (bitset_claim(&set, 0) != BITSET_NONE) {
    }
    SIM_CHECK_EQ(bitset_count(&set), 0);
}

SCENE(bitset_claims, 60, 16)

/* ---- mending -------------------------------------------------------------------------------- */

/*
 * One sets and clears in the words that the other looks for its bit in. After a mend the bit is
 * found at once, unless the first went on meanwhile: what is hidden is hidden by who is stopped.
 */
static void mend_disturber(unsigned me)
{
    (void)me;
    for (unsigned steps = 1 + sim_pick(3); steps > 0; steps--) {
        size_t bit = sim_pick(2) ? 4097 : 4161;
        if (sim_pick(2)) {
            (void)bitset_set(&set, bit);
        } else {
            (void)bitset_clear(&set, bit);
        }
    }
}

static void mend_seeker(unsigned me)
{
    uint64_t before;
    size_t found;

    (void)me;
    SIM_CHECK(bitset_set(&set, 4096));
    found = bitset_find(&set, 0);
    for (unsigned tries = 0; found != 4096 && tries < 4; tries++) {
        before = sim_others();
        bitset_mend(&set);
        found = bitset_find(&set, 0);
        SIM_CHECK(found == 4096 || sim_others() != before);
    }
    SIM_CHECK(bitset_clear(&set, 4096));
}

static void bitset_mends_open(void)
{
}

static void bitset_mends_close(void)
{
}

static void bitset_mends_begin(void)
{
    clear_all();
    if (sim_pick(2)) {
        (void)bitset_set(&set, 4097);
    }
    sim_spawn(mend_disturber);
    sim_spawn(mend_seeker);
    if (sim_pick(2)) {
        sim_spawn(mend_disturber);
    }
}

static void bitset_mends_end(void)
{
    SIM_CHECK(bitset_check(&set));
    SIM_CHECK(!bitset_test(&set, 4096));
}

SCENE(bitset_mends, 60, 4)

/* ---- magazines ------------------------------------------------------------------------------ */

#define MAGAZINES 130
static struct pool pool;
static int magazine_holder[MAGAZINES];

static void magazines_fiber(unsigned me)
{
    uint32_t held[2] = {MAGAZINE_NONE, MAGAZINE_NONE};

    for (unsigned steps = 2 + sim_pick(3); steps > 0; steps--) {
        uint32_t *one = &held[sim_pick(2)];
        if (*one != MAGAZINE_NONE) {
            magazine_holder[*one] = NOBODY;
            magazine_give_back(&pool, *one);
            *one = MAGAZINE_NONE;
            continue;
        }
        *one = magazine_claim(&pool, sim_pick(3) * 64);
        if (*one != MAGAZINE_NONE) {
            SIM_CHECK_EQ(magazine_holder[*one], NOBODY);
            magazine_holder[*one] = (int)me;
        }
    }
    for (unsigned n = 0; n < 2; n++) {
        if (held[n] != MAGAZINE_NONE) {
            magazine_holder[held[n]] = NOBODY;
            magazine_give_back(&pool, held[n]);
        }
    }
}

static void magazines_open(void)
{
    for (unsigned n = 0; n < MAGAZINES; n++) {
        magazine_holder[n] = NOBODY;
    }
}

static void magazines_close(void)
{
}

/* All but three, each in a word of its own, belong to somebody who has no part in this. */
static void magazines_begin(void)
{
    memset(memory, 0, sizeof(memory));
    bitset_place(&pool.magazines.free, memory, MAGAZINES);
    pool.magazines.count = MAGAZINES;
    for (uint32_t n = 1; n < MAGAZINES; n += 64) {
        magazine_give_back(&pool, n);
    }
    for (unsigned fibers = 2 + sim_pick(2); fibers > 0; fibers--) {
        sim_spawn(magazines_fiber);
    }
}

static void magazines_end(void)
{
    SIM_CHECK(bitset_check(&pool.magazines.free));
    SIM_CHECK_EQ(bitset_count(&pool.magazines.free), 3);
    for (unsigned n = 0; n < 3; n++) {
        SIM_CHECK(magazine_claim(&pool, sim_pick(3) * 64) != MAGAZINE_NONE);
    }
    SIM_CHECK_EQ(magazine_claim(&pool, 0), MAGAZINE_NONE);
}

SCENE(magazines, 60, 6)

/* ---- budgets -------------------------------------------------------------------------------- */

#define LIMIT 10
static _Atomic size_t used;
static size_t promised;

static void budget_fiber(unsigned me)
{
    (void)me;
    for (unsigned steps = 1 + sim_pick(3); steps > 0; steps--) {
        size_t bytes = 1 + sim_pick(LIMIT);
        if (budget_take(&used, LIMIT, bytes)) {
            promised += bytes;
            /* A point, so that somebody else may come in while we hold it. */
            SIM_CHECK(atomic_load_explicit(&used, memory_order_relaxed) >= bytes);
            SIM_CHECK(promised <= LIMIT);
            promised -= bytes;
            budget_give(&used, bytes);
        }
    }
}

static void budget_open(void)
{
}

static void budget_close(void)
{
}

static void budget_begin(void)
{
    promised = 0;
    atomic_store_explicit(&used, 0, memory_order_relaxed);
    for (unsigned fibers = 2 + sim_pick(3); fibers > 0; fibers--) {
        sim_spawn(budget_fiber);
    }
}

static void budget_end(void)
{
    SIM_CHECK_EQ(atomic_load_explicit(&used, memory_order_relaxed), 0);
}

SCENE(budget, 12, 2)
