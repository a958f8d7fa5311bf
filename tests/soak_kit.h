/* SPDX-License-Identifier: MIT */
/*
 * What the soak's phases are made of: areas (regions of both modes and of several kinds), pieces
 * (objects whose contents follow from their address, size and number), lanes (threads that stand
 * still together half-way through a phase), and the way to say what was found.
 */
#ifndef HAK_TESTS_SOAK_KIT_H
#define HAK_TESTS_SOAK_KIT_H

#include "alloc/heap.h"
#include "alloc/thread.h"
#include "region/base.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)
#define AREAS 3
#define LANES_MAX 8
/* Up to here a piece's every word is written and read. */
#define PIECE_WHOLE ((size_t)512)

struct area {
    const char *name;
    hak_region *handle;      /* as passed; NULL: the default region */
    struct hak_region *heap; /* what it leads to */
    size_t bytes;
    size_t used_most; /* at rest, in the first rounds */
};

struct piece {
    unsigned char *at; /* NULL: none */
    size_t size;
    uint64_t serial;
    struct area *area;
};

struct lane {
    uint64_t random;
    struct area *area; /* where this phase mostly works */
    unsigned index, count;
    unsigned looks; /* at the clock, between two real ones */
    bool met;       /* the half-way stop is behind it */
    bool over;      /* the phase is */
    uint64_t operations, checks, refused;
    pthread_t thread;
};

static struct soak {
    struct area areas[AREAS];
    uint64_t seed;
    const char *phase;
    unsigned round;
    int64_t half_ms, until_ms;
    pthread_barrier_t meeting;
    _Atomic uint64_t serials;
} soak;

/* ---- findings -------------------------------------------------------------------------------- */

__attribute__((noreturn, format(printf, 1, 2))) static inline void finding(const char *format, ...)
{
    va_list arguments;

    (void)fprintf(stderr, "FINDING in round %u, phase %s: ", soak.round, soak.phase);
    va_start(arguments, format);
    (void)vfprintf(stderr, format, arguments);
    va_end(arguments);
    (void)fprintf(stderr, "\nfindings 1; again: make soak MINUTES=... SEED=%llu\n",
                  (unsigned long long)soak.seed);
    _exit(1);
}

#define EXPECT(condition)                                                                          \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            finding("%s:%d: %s does not hold", __FILE__, __LINE__, #condition);                    \
        }                                                                                          \
    } while (0)

/* ---- chance and time ------------------------------------------------------------------------- */

/* splitmix64 */
static inline uint64_t chance(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15U);

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
    return z ^ (z >> 31);
}

static inline size_t below(struct lane *lane, size_t limit)
{
    return (size_t)(chance(&lane->random) % limit);
}

static inline int64_t now_ms(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/*
 * Until the phase is over. Half-way all lanes stop here while the main thread walks every book with
 * their objects alive: so a lane asks also while it waits for another one.
 */
static inline bool going(struct lane *lane)
{
    if (lane->over || ++lane->looks % 64 != 0) {
        return !lane->over;
    }
    int64_t now = now_ms();
    if (!lane->met && now >= soak.half_ms) {
        lane->met = true;
        (void)pthread_barrier_wait(&soak.meeting);
        (void)pthread_barrier_wait(&soak.meeting);
    }
    lane->over = now >= soak.until_ms;
    return !lane->over;
}

/* While it waits for another lane: lets that one run. */
static inline bool waiting(struct lane *lane)
{
    lane->looks |= 63;
    sched_yield();
    return going(lane);
}

/* ---- pieces ---------------------------------------------------------------------------------- */

/* A mixture in which small sizes are many and every class occurs. */
static inline size_t some_size(struct lane *lane)
{
    size_t dice = below(lane, 1000);
    size_t most = dice < 550   ? 512
                  : dice < 850 ? 4 * KIB
                  : dice < 960 ? 32 * KIB
                  : dice < 995 ? 256 * KIB
                               : 2 * MIB;

    return below(lane, most) + 1;
}

static inline uint64_t piece_word(const struct piece *piece, size_t offset)
{
    uint64_t word = ((uintptr_t)piece->at + offset) * 0xd6e8feb86659fd93U;

    return (word ^ piece->serial * 0x9e3779b97f4a7c15U) + piece->size;
}

/* Offsets of the words of a pattern: all of a small piece; the ends and some between of a large
 * one. The last word may be cut. */
static inline size_t piece_next(size_t offset, size_t size)
{
    size_t last = (size - 1) / 8 * 8;
    size_t step = size <= PIECE_WHOLE ? 8 : size <= 64 * KIB ? 504 : 16 * KIB - 8;

    return offset >= last ? size : offset + step < last ? offset + step : last;
}

static inline void piece_fill(const struct piece *piece)
{
    for (size_t at = 0; at < piece->size; at = piece_next(at, piece->size)) {
        uint64_t word = piece_word(piece, at);
        memcpy(piece->at + at, &word, min_size(8, piece->size - at));
    }
}

static inline void piece_verify(struct lane *lane, const struct piece *piece)
{
    for (size_t at = 0; at < piece->size; at = piece_next(at, piece->size)) {
        uint64_t word = piece_word(piece, at);
        if (memcmp(piece->at + at, &word, min_size(8, piece->size - at)) != 0) {
            finding("%s: piece %llu, %p of %zu bytes: its contents are not its own at byte %zu",
                    piece->area->name, (unsigned long long)piece->serial, (void *)piece->at,
                    piece->size, at);
        }
    }
    lane->checks++;
}

static inline void piece_begin(struct lane *lane, struct piece *piece, void *at, size_t size,
                               struct area *area)
{
    *piece = (struct piece){.at = at, .size = size, .area = area};
    /* Relaxed: a number. */
    piece->serial = atomic_fetch_add_explicit(&soak.serials, 1, memory_order_relaxed);
    EXPECT((uintptr_t)at % HAK_ALIGNMENT_MIN == 0);
    piece_fill(piece);
    lane->operations++;
}

/* An allocation failed: that it says why, and that something is live. */
static inline void refusal(struct lane *lane)
{
    struct hak_error error;

    EXPECT(errno == ENOMEM);
    EXPECT(hak_last_error(&error) == -ENOMEM && error.kind == HAK_ERROR_EXHAUSTED);
    lane->refused++;
}

/* A piece of so many bytes, by one call or another; false where the area is full. */
static inline bool piece_get(struct lane *lane, struct piece *piece, size_t size, struct area *area)
{
    size_t dice = below(lane, 16);
    unsigned char *at;

    if (dice == 0) {
        at = hak_region_calloc(area->handle, 1, size);
        for (size_t n = 0; at != NULL && n < size; n += size <= 4096 ? 1 : 1021) {
            EXPECT(at[n] == 0);
        }
    } else if (dice == 1) {
        size_t alignment = (size_t)1 << below(lane, 15);
        at = hak_region_aligned_alloc(area->handle, alignment, size);
        EXPECT(((uintptr_t)at & (alignment - 1)) == 0);
    } else {
        at = hak_region_malloc(area->handle, size);
    }
    if (at == NULL) {
        piece->at = NULL;
        refusal(lane);
        return false;
    }
    piece_begin(lane, piece, at, size, area);
    return true;
}

static inline void piece_drop(struct lane *lane, struct piece *piece)
{
    if (piece->at == NULL) {
        return;
    }
    piece_verify(lane, piece);
    memset(piece->at, 0xdd, min_size(piece->size, 32)); /* what a second owner would see */
    if (piece->serial % 4 == 0) {
        hak_region_free_sized(piece->area->handle, piece->at, piece->size);
    } else {
        hak_region_free(piece->area->handle, piece->at);
    }
    piece->at = NULL;
    lane->operations++;
}

static inline void piece_resize(struct lane *lane, struct piece *piece, size_t size)
{
    unsigned char *at;
    size_t both = min_size(size, piece->size);

    piece_verify(lane, piece);
    /* The pattern is one of addresses; across a move a plainer one is carried. */
    for (size_t n = 0; n < both; n += 509) {
        piece->at[n] = (unsigned char)(piece->serial + n);
    }
    at = hak_region_realloc(piece->area->handle, piece->at, size);
    const unsigned char *now = at != NULL ? at : piece->at;
    for (size_t n = 0; n < both; n += 509) {
        EXPECT(now[n] == (unsigned char)(piece->serial + n));
    }
    if (at == NULL) {
        refusal(lane);
        piece_fill(piece);
        return;
    }
    piece_begin(lane, piece, at, size, piece->area);
}

/* Tables of pieces are the C library's: the soak's own books stay out of what is tested. */
static inline struct piece *piece_table(size_t count)
{
    struct piece *table = calloc(count, sizeof *table);

    EXPECT(table != NULL);
    return table;
}

static inline void piece_drop_all(struct lane *lane, struct piece *table, size_t count)
{
    for (size_t n = 0; n < count; n++) {
        piece_drop(lane, &table[n]);
    }
    free(table);
}

static inline void piece_shuffle(struct lane *lane, struct piece *table, size_t count)
{
    for (size_t n = count; n > 1; n--) {
        size_t other = below(lane, n);
        struct piece held = table[n - 1];
        table[n - 1] = table[other];
        table[other] = held;
    }
}

#endif
