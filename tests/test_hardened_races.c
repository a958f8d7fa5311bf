/* SPDX-License-Identifier: MIT */
/*
 * Two threads that free one object of a hardened region at the same moment: each such misuse is
 * counted once, and nobody gets memory that somebody else holds. First by doing it, over and over,
 * with a map of who holds what; then, since both of them hardly ever see the object alive, by
 * putting the books as they are after that: one object in two threads' quarantines.
 */
#include "tests/hardened_kit.h"

/* ---- as it happens --------------------------------------------------------------------------- */

#define RACERS 2
#define RACED 64

static unsigned char *_Atomic raced[RACED];
static _Atomic unsigned arrived;
/* Who holds which 16 bytes of the region: 0 nobody. */
static _Atomic unsigned char held_by[64 * MIB / 16];
static size_t raced_size;
static unsigned raced_count, races;

static void meet(unsigned number)
{
    atomic_fetch_add(&arrived, 1);
    while (atomic_load(&arrived) < number * RACERS) {
        if (__atomic_load_n(&harness_state.outcome, __ATOMIC_RELAXED) != HARNESS_OK) {
            pthread_exit(NULL);
        }
        if (number % 8 == 0) {
            sched_yield();
        }
    }
}

static _Atomic unsigned char *holders(const void *object)
{
    return &held_by[((uintptr_t)object - hak_region_default()->area.base) / 16];
}

/* Nobody else may hold any of it. */
static void hold(unsigned char *object, size_t size)
{
    _Atomic unsigned char *at = holders(object);

    for (size_t n = 0; n < (size + 15) / 16; n++) {
        if (atomic_exchange(&at[n], 1) != 0) {
            FAIL("%p of %zu bytes: somebody holds part of it", (void *)object, size);
        }
    }
}

static void let_go(unsigned char *object, size_t size)
{
    _Atomic unsigned char *at = holders(object);

    for (size_t n = 0; n < (size + 15) / 16; n++) {
        CHECK_EQ(atomic_exchange(&at[n], 0), 1);
    }
}

/* NOLINTNEXTLINE(readability-function-size): loops, and the levels that CHECK brings. */
static void *race(void *number)
{
    unsigned me = (unsigned)(uintptr_t)number;
    unsigned char *mine[RACED] = {NULL};
    uint64_t random = harness_seed() + me;
    unsigned meeting = 0;

    for (unsigned n = 0; n < races; n++) {
        if (me == 0) {
            for (unsigned r = 0; r < raced_count; r++) {
                unsigned char *object = hard_malloc(raced_size);
                CHECK(object != NULL);
                hold(object, raced_size);
                let_go(object, raced_size);
                atomic_store(&raced[r], object);
            }
        }
        meet(++meeting);
        for (unsigned r = 0; r < raced_count; r++) {
            hak_free(atomic_load(&raced[r])); /* by both */
        }
        meet(++meeting);
        size_t size = harness_random(&random) % 2 == 0 ? raced_size : raced_size / 2 + 1;
        for (unsigned r = 0; r < raced_count; r++) {
            mine[r] = hard_malloc(size);
            CHECK(mine[r] != NULL);
            hold(mine[r], size);
        }
        meet(++meeting);
        for (unsigned r = 0; r < raced_count; r++) {
            let_go(mine[r], size);
            hak_free(mine[r]);
        }
        meet(++meeting);
    }
    return NULL;
}

static void race_all(size_t size)
{
    pthread_t threads[RACERS];

    raced_size = size;
    atomic_store(&arrived, 0);
    for (uintptr_t n = 0; n < RACERS; n++) {
        threads[n] = kit_thread(race, (void *)n);
    }
    for (unsigned n = 0; n < RACERS; n++) {
        kit_join(threads[n]);
    }
    thread_detach_all();
    kit_let_go(hak_region_default());
    CHECK(heap_check(hak_region_default()));
    struct hak_stats stats = kit_stats();
    CHECK_EQ(stats.free_bytes, stats.size_bytes);
    CHECK_EQ(stats.cached_bytes_max, 0);
    printf("  %zu bytes: %llu misuses in %u races\n", size, (unsigned long long)stats.misuses,
           races * raced_count);
    /* Each of them, sooner or later: an object that both frees saw alive has been in two places, in
     * one of which it is found out of its turn. */
    CHECK_EQ(stats.misuses, (uint64_t)races * raced_count);
}

TEST(an_object_freed_twice_at_the_same_moment_is_never_in_two_hands)
{
    static const size_t sizes[] = {100, 1000, 3300, 20000, 400000};

    (void)harness_seed();
    for (unsigned n = 0; n < sizeof(sizes) / sizeof(*sizes); n++) {
        hard_open(64 * MIB, HAK_MISUSE_IGNORE);
        memset((void *)held_by, 0, sizeof(held_by));
        raced_count = sizes[n] < MIB / 4 ? RACED : 8;
        races = sizes[n] < MIB / 4 ? 150 : 40;
        race_all(sizes[n]);
        kit_forget_last();
    }
}

/* ---- what is left of it ---------------------------------------------------------------------- */

/* What is left of it when both saw the object alive: it is in two quarantines. */
static unsigned char *chosen, *neighbour; /* in the same slab, so that this stays */
static size_t chosen_size;

static void *take_chosen(void *unused)
{
    unsigned char *taken[300];

    for (unsigned n = 0; n < 300; n++) {
        taken[n] = hard_malloc(chosen_size);
    }
    chosen = taken[150];
    neighbour = NULL;
    for (unsigned n = 0; n < 300; n++) {
        if (neighbour == NULL && n != 150 && kit_slab(taken[n]) == kit_slab(chosen)) {
            neighbour = taken[n];
        } else if (n != 150) {
            hak_free(taken[n]);
        }
    }
    CHECK(neighbour != NULL);
    return unused;
}

static void *free_chosen(void *unused)
{
    hak_free(chosen);
    return unused;
}

/* As the second of two threads saw it. */
static void revive_chosen(void)
{
    const struct hak_region *heap = hak_region_default();
    unsigned cls = hardened_class(chosen_size, 0);
    unit_t head = kit_slab(chosen);
    size_t offset = (uintptr_t)chosen - (uintptr_t)region_address(&heap->area, head);
    _Atomic uint16_t *states = (_Atomic uint16_t *)(void *)(heap->hardened->states +
                                                            (size_t)head * HARDENED_STRIDE);

    CHECK_EQ(hardened_size(hak_region_default(), chosen), 0);
    atomic_store(&states[sizeclass_index(cls, offset)],
                 (uint16_t)(1 + sizeclass_bytes(cls) - chosen_size));
    canary_put(heap->hardened, chosen, chosen_size, CANARY_BYTES);
    CHECK_EQ(hak_usable_size(chosen), chosen_size);
}

/* In this thread's quarantine, and free in its slab by another thread that has exited. */
static void free_chosen_at_once(size_t size)
{
    hard_open(64 * MIB, HAK_MISUSE_IGNORE);
    chosen_size = size;
    hak_free(hard_malloc(size)); /* with a slot, so with a quarantine */
    kit_elsewhere(take_chosen, NULL);
    hak_free(chosen);
    revive_chosen();
    kit_elsewhere(free_chosen, NULL);
    CHECK_EQ(hard_misuses(), 0);
}

static void *take_until_chosen(void *unused)
{
    unsigned char *taken[4000];
    unsigned count = 0;

    do {
        CHECK(count < 4000);
        taken[count] = hard_malloc(chosen_size);
    } while (taken[count++] != chosen);
    memset(chosen, 0x5a, chosen_size);
    while (--count > 0) {
        hak_free(taken[count - 1]);
    }
    return unused;
}

static void check_chosen_is_whole(void)
{
    CHECK_EQ(hak_usable_size(chosen), chosen_size);
    for (size_t n = 0; n < chosen_size; n++) {
        CHECK_EQ(chosen[n], 0x5a);
    }
}

static const size_t quarantined[] = {100, 1000, 3300};

TEST(an_object_that_is_held_is_not_given_back_by_whom_else_freed_it)
{
    for (unsigned n = 0; n < 3; n++) {
        free_chosen_at_once(quarantined[n]);
        kit_elsewhere(take_until_chosen, NULL); /* who holds it now */
        CHECK_EQ(hard_misuses(), 0);
        thread_detach_all();
        CHECK_EQ(hard_misuses(), 1);
        hard_check_said(chosen, SAYS_TWICE);
        CHECK(heap_check(hak_region_default()));
        check_chosen_is_whole();
        hak_free_sized(chosen, chosen_size);
        hak_free(neighbour);
        hard_close(1);
    }
}

TEST(an_object_that_is_held_is_not_handed_out_by_whom_else_freed_it)
{
    for (unsigned n = 0; n < 3; n++) {
        free_chosen_at_once(quarantined[n]);
        kit_elsewhere(take_until_chosen, NULL);
        for (unsigned round = 0; round < 5000000 && hard_misuses() == 0; round++) {
            unsigned char *object = hard_malloc(chosen_size);
            CHECK_NE((uintptr_t)object, (uintptr_t)chosen);
            hak_free(object);
        }
        CHECK_EQ(hard_misuses(), 1);
        hard_check_said(chosen, SAYS_TWICE);
        check_chosen_is_whole();
        hak_free_sized(chosen, chosen_size);
        hak_free(neighbour);
        hard_close(1);
    }
}

static void *free_neighbour(void *unused)
{
    hak_free(neighbour);
    return unused;
}

/* Small objects over all of the region, until one lies where the chosen one was; only it stays. */
static void *cover_chosen(void *unused)
{
    static unsigned char *taken[64 << 10];
    size_t count = 0;
    const unsigned char *last;

    do {
        last = taken[count++] = hard_malloc(1000);
        CHECK(last != NULL);
    } while (last + 1000 <= chosen || last >= chosen + chosen_size);
    while (--count > 0) {
        hak_free(taken[count - 1]);
    }
    return unused;
}

TEST(memory_of_another_class_is_not_handed_out_by_whom_else_freed_it)
{
    free_chosen_at_once(3300);
    kit_elsewhere(free_neighbour, NULL);
    CHECK_EQ(heap_class(hak_region_default(), kit_unit(chosen)), CLASS_NONE);
    kit_elsewhere(cover_chosen, NULL);
    CHECK_EQ(hard_misuses(), 0);
    for (unsigned round = 0; round < 5000000 && hard_misuses() == 0; round++) {
        unsigned char *object = hard_malloc(chosen_size);
        CHECK_NE((uintptr_t)object, (uintptr_t)chosen);
        hak_free(object);
    }
    CHECK_EQ(hard_misuses(), 1);
    hard_check_said(chosen, SAYS_TWICE);
    kit_forget_last();
}

HARNESS_MAIN()
