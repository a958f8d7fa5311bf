/* SPDX-License-Identifier: MIT */
/*
 * Scenes in which a region is full but for one hole, just as long as what is asked for needs, and
 * somebody has a hand in the hole. Then the allocation succeeds only where the ladder gets that
 * hand away. And the kinds of asking: small, small-mid, the largest class, large, over a SuperSlab,
 * aligned, zeroed, growing, in bulk, by node.
 */
#ifndef HAK_TESTS_LADDER_KIT_H
#define HAK_TESTS_LADDER_KIT_H

#include "numa/pin.h"
#include "tests/heap_kit.h"

#include <hakmem.h>

#define LADDER_BYTES (8 * MIB) /* of a node's segment */
/* What the hand in the hole is made of: a slab of one unit, and a class that nobody else asks
 * for. */
#define LADDER_HAND ((size_t)48)
#define LADDER_FILL_MOST 1024
/* An alignment that makes even a single unit a large object. */
#define LADDER_UNIT_ALIGNMENT (2 * UNIT_BYTES)
#define LADDER_BULK 32

enum ladder_call { BY_MALLOC, BY_CALLOC, BY_ALIGNED, BY_REALLOC, BY_BULK, BY_NODE };

struct ladder_ask {
    const char *name;
    enum ladder_call call;
    size_t size, alignment;
    size_t hole_units; /* that it needs: a slab's fewest, or its own */
};

static const struct ladder_ask ladder_asks[] = {
    {"small", BY_MALLOC, 100, 0, 1},
    {"small-mid", BY_MALLOC, 5000, 0, 1},
    {"largest class", BY_MALLOC, 256 * KIB, 0, 4},
    {"large", BY_MALLOC, 300 * KIB, 0, 5},
    {"over a SuperSlab", BY_MALLOC, 3 * MIB, 0, 48},
    {"aligned small", BY_ALIGNED, 5000, 4096, 1},
    {"aligned large", BY_ALIGNED, MIB + 5, MIB, 17},
    {"zeroed small", BY_CALLOC, 1000, 0, 1},
    {"zeroed large", BY_CALLOC, MIB, 0, 16},
    {"growing", BY_REALLOC, 2 * MIB, 0, 32},
    {"bulk", BY_BULK, 1000, 0, 1},
    {"bulk of large", BY_BULK, 256 * KIB + 1, 0, 5},
    {"by node, small", BY_NODE, 5000, 0, 1},
    {"by node, large", BY_NODE, 3 * MIB, 0, 48},
};
#define LADDER_ASKS (sizeof ladder_asks / sizeof *ladder_asks)

/* How many objects the ask wants. */
static inline size_t ladder_wanted(const struct ladder_ask *ask)
{
    return ask->call == BY_BULK && ask->size <= CLASS_BYTES_MAX ? LADDER_BULK : 1;
}

static struct {
    void *fill[LADDER_FILL_MOST];
    size_t fill_count;
    unsigned char *growing; /* for BY_REALLOC: 300 KiB, far from the hole */
    void *hole;             /* a large object of the hole's length, until it is freed */
    void *got[LADDER_BULK];
    size_t got_count;
} ladder;

/* ---- asking ---- */

/* How many objects it got, into ladder.got. */
static inline size_t ladder_get(const struct ladder_ask *ask, int node)
{
    void **got = ladder.got;

    got[0] = NULL;
    errno = 0;
    switch (ask->call) {
    case BY_MALLOC:
        got[0] = hak_malloc(ask->size);
        break;
    case BY_CALLOC:
        got[0] = hak_calloc(ask->size / 8, 8);
        break;
    case BY_ALIGNED:
        got[0] = hak_aligned_alloc(ask->alignment, ask->size);
        break;
    case BY_REALLOC:
        got[0] = hak_realloc(ladder.growing, ask->size);
        break;
    case BY_BULK:
        ladder.got_count = hak_malloc_bulk(ask->size, ladder_wanted(ask), got);
        return ladder.got_count;
    case BY_NODE:
        got[0] = hak_malloc_on_node(ask->size, node);
        break;
    }
    ladder.got_count = got[0] != NULL;
    return ladder.got_count;
}

/* What it got is as asked for, in that segment, and usable; and is freed. */
static inline void ladder_use(const struct ladder_ask *ask, unsigned segment)
{
    for (size_t n = 0; n < ladder.got_count; n++) {
        unsigned char *object = ladder.got[n];
        CHECK(object != NULL);
        CHECK_EQ(kit_segment(object), segment);
        CHECK_GE(hak_usable_size(object), ask->size);
        CHECK_EQ((uintptr_t)object % (ask->alignment != 0 ? ask->alignment : 16), 0);
        for (size_t at = 0; ask->call == BY_CALLOC && at < ask->size / 8 * 8; at++) {
            CHECK_EQ(object[at], 0);
        }
        if (ask->call == BY_REALLOC) {
            CHECK_EQ(object[0], 0x5a);
            CHECK_EQ(object[300 * KIB - 1], 0x5a);
            ladder.growing = NULL;
        }
        memset(object, 0xa5, ask->size);
        hak_free(object);
    }
}

/* ---- the full region ---- */

static inline void ladder_keep(void *object)
{
    CHECK(object != NULL);
    CHECK(ladder.fill_count < LADDER_FILL_MOST);
    ladder.fill[ladder.fill_count++] = object;
}

/* Every unit that is left on the node, by objects of a unit: in a thread that ends, so that no
 * cache of it plays a part. */
static inline void *ladder_fill_node(void *argument)
{
    int node = *(const int *)argument;
    void *object;

    while ((object = hak_malloc_on_node(MIB, node)) != NULL ||
           (object = hak_malloc_on_node(UNIT_BYTES, node)) != NULL) {
        ladder_keep(object);
    }
    return NULL;
}

/* The hole as an object: by name where it is of another node. */
static inline void *ladder_hole(const struct ladder_ask *ask, int node, bool home)
{
    size_t alignment = ask->alignment > LADDER_UNIT_ALIGNMENT ? ask->alignment
                                                              : LADDER_UNIT_ALIGNMENT;
    if (home) {
        return hak_aligned_alloc(alignment, ask->hole_units << UNIT_LOG2);
    }
    /* Of another node only large objects can be had by units; a longer hole does as well there. */
    return hak_malloc_on_node(max_size(ask->hole_units << UNIT_LOG2, CLASS_BYTES_MAX + 1), node);
}

/* Fills the node; what the ask needs is one object, the hole. */
static inline void ladder_fill(const struct ladder_ask *ask, int node, bool home)
{
    ladder.fill_count = 0;
    ladder.growing = NULL;
    if (home) {
        /* A SuperSlab of its own, so that it cannot grow into the hole from either side. */
        ladder.growing = hak_malloc(300 * KIB);
        CHECK(ladder.growing != NULL);
        memset(ladder.growing, 0x5a, 300 * KIB);
        ladder_keep(hak_malloc(27 * UNIT_BYTES));
    }
    ladder.hole = ladder_hole(ask, node, home);
    CHECK(ladder.hole != NULL);
    kit_elsewhere(ladder_fill_node, &node);
    struct hak_region *heap = hak_region_default();
    struct segment *segment = region_segment_on(&heap->area, node);
    CHECK_EQ(atomic_load(&segment->free_unit_count), 0);
}

static inline void ladder_open_hole(void)
{
    hak_free(ladder.hole);
    ladder.hole = NULL;
}

static inline void ladder_empty(void)
{
    hak_free_bulk(ladder.fill, ladder.fill_count);
    ladder.fill_count = 0;
    hak_free(ladder.growing);
    hak_free(ladder.hole);
    ladder.growing = ladder.hole = NULL;
}

/* Puts a hand into the hole: a slab of the calling thread's with nothing live in it, in its box,
 * and an object in its cache. */
static inline void ladder_hand(int node)
{
    struct hak_region *heap = hak_region_default();
    struct segment *segment = region_segment_on(&heap->area, node);
    uint64_t before = atomic_load(&segment->free_unit_count);
    void *object = hak_malloc(LADDER_HAND);

    CHECK(object != NULL);
    hak_free(object);
    CHECK_EQ(atomic_load(&segment->free_unit_count), before - 1);
}

static inline int ladder_node(unsigned segment)
{
    return hak_region_default()->area.segments[segment].node;
}

/* No room: what was asked for is said, and nothing was changed. */
static inline void ladder_failed(const struct ladder_ask *ask, int node)
{
    int said = errno;
    struct hak_error error;

    CHECK_EQ(said, ENOMEM);
    CHECK_EQ(hak_last_error(&error), -ENOMEM);
    CHECK_EQ(error.kind, HAK_ERROR_EXHAUSTED);
    CHECK_EQ(error.size_bytes, ask->size);
    CHECK_EQ(error.alignment, ask->alignment);
    CHECK_EQ(error.node, node);
    if (ask->call == BY_REALLOC) {
        CHECK_EQ(hak_usable_size(ladder.growing), 5 * UNIT_BYTES);
        for (size_t at = 0; at < 300 * KIB; at++) {
            CHECK_EQ(ladder.growing[at], 0x5a);
        }
    }
}

#endif
