/* SPDX-License-Identifier: MIT */
/*
 * The soak's phases: what brought earlier designs down only after a minute or more. Each is what
 * every lane of the phase does until going() says that it is over; shared things are left behind
 * for the main thread, which frees what is still in them.
 */
#ifndef HAK_TESTS_SOAK_PHASES_H
#define HAK_TESTS_SOAK_PHASES_H

#include "tests/soak_kit.h"

#define RING 256
#define SLOTS 1000

/* Between lane n and the one after it; one puts, one takes. */
struct ring {
    struct piece pieces[RING];
    _Atomic unsigned put CACHE_ALIGNED;
    _Atomic unsigned taken CACHE_ALIGNED;
};

/* What lanes leave to each other: any lane that locks a slot may do what it likes with it. */
struct slot {
    atomic_flag locked;
    struct piece piece;
};

static struct ring rings[LANES_MAX];
static struct slot slots[SLOTS];

/* ---- alone ----------------------------------------------------------------------------------- */

/* A block of many sizes, freed in another order, and again (after sh6bench). */
static inline void phase_blocks(struct lane *lane)
{
    struct piece *table = piece_table(4000);

    for (unsigned turn = 0; going(lane); turn++) {
        size_t count = below(lane, 4000) + 1, least = below(lane, 2000) + 1;
        size_t got = 0;
        while (got < count && going(lane) &&
               piece_get(lane, &table[got], least + got % 60 * 8, lane->area)) {
            got++;
        }
        if (turn % 3 == 2) {
            piece_shuffle(lane, table, got);
        }
        for (size_t n = 0; n < got; n++) {
            piece_drop(lane, &table[turn % 3 == 1 ? got - 1 - n : n]);
        }
    }
    piece_drop_all(lane, table, 4000);
}

/* One class after the other has nearly all the memory: slabs change hands. */
static inline void phase_rotation(struct lane *lane)
{
    size_t most = 20000;
    struct piece *table = piece_table(most);

    for (unsigned cls = lane->index * 7; going(lane); cls++) {
        size_t size = sizeclass_bytes(cls % CLASS_COUNT + 1) - below(lane, 8) % 8;
        size_t share = lane->area->bytes / 4 * 3 / lane->count / (size + 64);
        size_t count = min_size(most, share + 1), got = 0;
        while (got < count && going(lane) && piece_get(lane, &table[got], size, lane->area)) {
            got++;
        }
        /* Every other one first: slabs with holes. */
        for (size_t n = 0; n < got; n += 2) {
            piece_drop(lane, &table[n]);
        }
        for (size_t n = 1; n < got; n += 2) {
            piece_drop(lane, &table[n]);
        }
    }
    piece_drop_all(lane, table, most);
}

/* Large vectors that grow slowly, and shrink, beside small things. */
static inline void phase_vectors(struct lane *lane)
{
    struct piece table[12] = {{0}};
    size_t most = lane->area->bytes / 20 / lane->count;

    while (going(lane)) {
        struct piece *one = &table[below(lane, 12)];
        if (one->at == NULL) {
            (void)piece_get(lane, one, below(lane, 100) + 1, lane->area);
            continue;
        }
        bool shrinks = one->size > most || below(lane, 20) == 0;
        size_t size = shrinks ? one->size / 3 + 1 : one->size + one->size / 4 + below(lane, 100);
        piece_resize(lane, one, size);
    }
    for (unsigned n = 0; n < 12; n++) {
        piece_drop(lane, &table[n]);
    }
}

/* Resizing, to anything from anything. */
static inline void phase_resizing(struct lane *lane)
{
    struct piece *table = piece_table(500);

    while (going(lane)) {
        struct piece *one = &table[below(lane, 500)];
        if (one->at == NULL) {
            (void)piece_get(lane, one, some_size(lane), lane->area);
        } else if (below(lane, 8) == 0) {
            piece_drop(lane, one);
        } else {
            piece_resize(lane, one,
                         below(lane, 3) != 0 ? some_size(lane) : one->size + below(lane, 64));
        }
    }
    piece_drop_all(lane, table, 500);
}

/* Few that live long among many that do not. */
static inline void phase_lifetimes(struct lane *lane)
{
    struct piece *aged = piece_table(2000), *brief = piece_table(64);

    while (going(lane)) {
        struct piece *one = below(lane, 50) == 0 ? &aged[below(lane, 2000)]
                                                 : &brief[below(lane, 64)];
        piece_drop(lane, one);
        (void)piece_get(lane, one, some_size(lane), lane->area);
        const struct piece *any = &aged[below(lane, 2000)];
        if (any->at != NULL && below(lane, 16) == 0) {
            piece_verify(lane, any);
        }
    }
    piece_drop_all(lane, aged, 2000);
    piece_drop_all(lane, brief, 64);
}

/* Into the wall and back, by one size or many. */
static inline void phase_exhaustion(struct lane *lane)
{
    size_t most = 30000;
    struct piece *table = piece_table(most);

    while (going(lane)) {
        size_t size = below(lane, 2) == 0 ? 0 : some_size(lane), got = 0;
        while (got < most && going(lane) &&
               piece_get(lane, &table[got], size != 0 ? size : some_size(lane) * 4, lane->area)) {
            got++;
        }
        if (below(lane, 4) == 0) {
            hak_thread_idle(); /* others may take what it caches */
        }
        piece_shuffle(lane, table, got);
        for (size_t n = 0; n < got; n++) {
            piece_drop(lane, &table[n]);
        }
    }
    piece_drop_all(lane, table, most);
}

/* ---- together -------------------------------------------------------------------------------- */

/* A ring from lane to lane: the next one frees what this one made (producers and consumers). */
static inline void phase_rings(struct lane *lane)
{
    struct ring *out = &rings[lane->index], *in = &rings[(lane->index + 1) % lane->count];

    while (going(lane)) {
        /* Relaxed on its own side; acquire and release with the other's. */
        unsigned put = atomic_load_explicit(&out->put, memory_order_relaxed);
        unsigned taken = atomic_load_explicit(&in->taken, memory_order_relaxed);
        bool moved = false;
        if (put - atomic_load_explicit(&out->taken, memory_order_acquire) < RING &&
            piece_get(lane, &out->pieces[put % RING], below(lane, 2000) + 1, lane->area)) {
            atomic_store_explicit(&out->put, put + 1, memory_order_release);
            moved = true;
        }
        if (atomic_load_explicit(&in->put, memory_order_acquire) != taken) {
            piece_drop(lane, &in->pieces[taken % RING]);
            atomic_store_explicit(&in->taken, taken + 1, memory_order_release);
            moved = true;
        }
        if (!moved) {
            (void)waiting(lane);
        }
    }
}

static inline bool slot_lock(struct slot *slot)
{
    return !atomic_flag_test_and_set_explicit(&slot->locked, memory_order_acquire);
}

static inline void slot_unlock(struct slot *slot)
{
    atomic_flag_clear_explicit(&slot->locked, memory_order_release);
}

/* A step on a random slot of all lanes'; in whichever area. */
static inline void slot_step(struct lane *lane, bool all_areas)
{
    struct slot *slot = &slots[below(lane, SLOTS)];

    if (!slot_lock(slot)) {
        return;
    }
    if (slot->piece.at == NULL) {
        struct area *area = all_areas ? &soak.areas[below(lane, AREAS)] : lane->area;
        (void)piece_get(lane, &slot->piece, some_size(lane), area);
    } else if (below(lane, 8) == 0) {
        piece_resize(lane, &slot->piece, some_size(lane));
    } else {
        piece_drop(lane, &slot->piece);
    }
    slot_unlock(slot);
}

/* Blocks that another lane frees, in another order (after sh8bench). */
static inline void phase_exchange(struct lane *lane)
{
    while (waiting(lane)) {
        size_t first = below(lane, SLOTS), size = below(lane, 1000) + 1;
        for (size_t n = 0; n < 100; n++) { /* makes */
            struct slot *slot = &slots[(first + n) % SLOTS];
            if (slot_lock(slot)) {
                if (slot->piece.at == NULL) {
                    (void)piece_get(lane, &slot->piece, size + n % 20 * 16, lane->area);
                }
                slot_unlock(slot);
            }
        }
        first = below(lane, SLOTS);
        for (size_t n = 0; n < 100; n++) { /* frees others' */
            struct slot *slot = &slots[(first + SLOTS - n * 7 % SLOTS) % SLOTS];
            if (slot_lock(slot)) {
                piece_drop(lane, &slot->piece);
                slot_unlock(slot);
            }
        }
    }
}

/* Objects of all regions at once. */
static inline void phase_regions(struct lane *lane)
{
    while (going(lane)) {
        slot_step(lane, true);
    }
}

/* Some work, then long rest, in which others may take the caches. */
static inline void phase_idling(struct lane *lane)
{
    while (waiting(lane)) {
        for (unsigned n = 0; n < 500; n++) {
            slot_step(lane, false);
        }
        hak_thread_idle();
        if (lane->index % 2 ==
            0) { /* as much as there is, so that the others' caches are asked for */
            struct piece one = {0};
            for (size_t bytes = lane->area->bytes; bytes > MIB && one.at == NULL; bytes /= 2) {
                (void)piece_get(lane, &one, bytes, lane->area);
            }
            piece_drop(lane, &one);
        }
    }
}

/* One life of a thread: it exits with a cache, and its objects stay to others (after larson). */
static void *one_life(void *argument)
{
    struct lane *lane = argument;
    size_t steps = below(lane, 3000) + 1;

    for (size_t n = 0; n < steps; n++) {
        slot_step(lane, false);
    }
    return NULL;
}

static inline void phase_lives(struct lane *lane)
{
    while (waiting(lane)) {
        struct lane life = {.random = chance(&lane->random), .area = lane->area};
        pthread_t thread;
        EXPECT(pthread_create(&thread, NULL, one_life, &life) == 0);
        EXPECT(pthread_join(thread, NULL) == 0);
        lane->operations += life.operations;
        lane->checks += life.checks;
        lane->refused += life.refused;
    }
}

#endif
