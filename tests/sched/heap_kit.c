/* SPDX-License-Identifier: MIT */
/* The region of a scene, its copy, and who has what; see heap_kit.h. */
#include "tests/sched/heap_kit.h"

#include "alloc/sharedpool.h"
#include "numa/topology.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RANGES_MAX 96
#define GRANULE_LOG2 8
#define GRANULES ((size_t)16 << (20 - GRANULE_LOG2))
#define SLOTS_SAVED (KIT_FIBERS + 2)

struct range {
    void *at, *copy;
    size_t bytes;
};

struct kit kit;

static struct range ranges[RANGES_MAX];
static unsigned range_count;
static struct thread_self self_saved;
/* By 256 bytes of the region: 0, or 1 + the hand's number. */
static unsigned char owners[GRANULES];

/* ---- the copy ------------------------------------------------------------------------------- */

static void save(void *at, size_t bytes)
{
    struct range *range = &ranges[range_count++];

    if (range_count == RANGES_MAX || (range->copy = malloc(bytes)) == NULL) {
        (void)fprintf(stderr, "no room for a copy of %zu bytes\n", bytes);
        exit(1);
    }
    range->at = at;
    range->bytes = bytes;
    memcpy(range->copy, at, bytes);
}

/* Of the slots' table only those that fibers can reach; all of the others. */
static size_t used_bytes(const struct heap_table *table)
{
    for (uint32_t n = 0; n < kit.heap->pool_count; n++) {
        const struct thread_slots *slots = &kit.heap->pools[n].slots;
        size_t set = (size_t)(slots->memory - (unsigned char *)table->memory);
        if ((void *)slots->free.level[0] == table->memory) {
            return set + SLOTS_SAVED * sizeof(struct thread);
        }
    }
    return table->bytes;
}

void kit_save(void)
{
    struct hak_region *heap = kit.heap;

    for (unsigned n = 0; n < heap->table_count; n++) {
        save(heap->tables[n].memory, used_bytes(&heap->tables[n]));
    }
    save(heap->area.registry, heap->area.superslab_count * sizeof(struct registry_entry));
    for (uint32_t n = 0; n < heap->area.segment_count; n++) {
        struct segment *segment = &heap->area.segments[n];
        save(segment, sizeof(*segment));
        save(segment->index_memory, segment->index_bytes);
    }
    save(&heap->misuses, sizeof(heap->misuses));
    save(&kit, sizeof(kit));
    save(owners, heap->area.bytes >> GRANULE_LOG2);
    self_saved = thread_self[0];
}

void kit_restore(void)
{
    for (unsigned n = 0; n < range_count; n++) {
        memcpy(ranges[n].at, ranges[n].copy, ranges[n].bytes);
    }
    thread_self[0] = self_saved;
}

/* ---- the region ----------------------------------------------------------------------------- */

void kit_open(size_t bytes, unsigned nodes, enum hak_switch prefault)
{
    struct hak_config config = {.size_bytes = bytes * nodes,
                                .pages = {HAK_PAGES_4K},
                                .prefault = prefault,
                                .misuse = HAK_MISUSE_IGNORE};
    struct hak_error error;

    memset(&kit, 0, sizeof(kit));
    topology_fake(nodes > 1 ? nodes : 0);
    if (hak_region_init(&config) != 0) {
        (void)hak_last_error(&error);
        (void)fprintf(stderr, "hak_region_init: %s\n", error.message);
        exit(1);
    }
    kit.heap = hak_region_default();
    kit.pool = &kit.heap->pools[0];
    if (kit.heap->pool_count != nodes || kit.heap->area.bytes >> GRANULE_LOG2 > GRANULES) {
        (void)fprintf(stderr, "the region is not as a scene needs it\n");
        exit(1);
    }
}

void kit_attach_all(void)
{
    for (unsigned n = 0; n < KIT_FIBERS; n++) {
        thread_self[0] = (struct thread_self){.active = &thread_none};
        kit.threads[n] = thread_current(kit.heap);
    }
    thread_self[0] = (struct thread_self){.active = &thread_none};
}

void kit_close(void)
{
    kit_restore();
    while (range_count > 0) {
        free(ranges[--range_count].copy);
    }
    (void)hak_region_fini();
    topology_fake(0);
    memset(owners, 0, sizeof(owners));
}

/* ---- who has what --------------------------------------------------------------------------- */

static unsigned hand_number(void)
{
    return sim_me() < 0 ? KIT_FIBERS : (unsigned)sim_me();
}

static size_t granule(const void *object)
{
    size_t offset = (uintptr_t)object - kit.heap->area.base;

    SIM_CHECK(offset < kit.heap->area.bytes);
    return offset >> GRANULE_LOG2;
}

void kit_own(const void *object, size_t bytes)
{
    size_t first = granule(object);
    size_t last = granule((const char *)object + bytes - 1);

    for (size_t n = first; n <= last; n++) {
        SIM_CHECK_EQ(owners[n], 0);
        owners[n] = (unsigned char)(1 + hand_number());
    }
}

void kit_disown(const void *object, size_t bytes)
{
    size_t first = granule(object);
    size_t last = granule((const char *)object + bytes - 1);

    for (size_t n = first; n <= last; n++) {
        SIM_CHECK(owners[n] != 0);
        owners[n] = 0;
    }
}

struct kit_hand *kit_hand(void)
{
    return &kit.hands[hand_number()];
}

void kit_keep(void *object, size_t bytes)
{
    struct kit_hand *hand = kit_hand();

    SIM_CHECK(hand->count < KIT_HAND);
    kit_own(object, bytes);
    hand->objects[hand->count] = object;
    hand->bytes[hand->count++] = bytes;
}

void *kit_let_go(unsigned which)
{
    struct kit_hand *hand = kit_hand();
    void *object = hand->objects[which];

    kit_disown(object, hand->bytes[which]);
    hand->count--;
    hand->objects[which] = hand->objects[hand->count];
    hand->bytes[which] = hand->bytes[hand->count];
    return object;
}

/* ---- the end -------------------------------------------------------------------------------- */

static void check_empty(void)
{
    struct hak_region *heap = kit.heap;

    SIM_CHECK(heap_check(heap));
    for (uint32_t n = 0; n < heap->pool_count; n++) {
        struct pool *pool = &heap->pools[n];
        SIM_CHECK_EQ(bitset_count(&pool->magazines.free), pool->magazines.count);
        SIM_CHECK_EQ(atomic_load_explicit(&pool->cached_bytes, memory_order_relaxed), 0);
        SIM_CHECK_EQ(atomic_load_explicit(&pool->boxed_bytes, memory_order_relaxed), 0);
        SIM_CHECK_EQ(atomic_load_explicit(&pool->segment->free_unit_count, memory_order_relaxed),
                     pool->unit_count);
        for (unsigned cls = 1; cls <= CLASS_COUNT; cls++) {
            /* Nothing is left that says yes and has no slab behind it. */
            unit_t found = sharedpool_acquire_partial(pool, cls);
            SIM_CHECK_EQ(found, UNIT_NONE);
        }
    }
    SIM_CHECK_EQ(atomic_load_explicit(&heap->misuses, memory_order_relaxed), kit.misuses);
}

void kit_check_and_empty(void)
{
    SIM_CHECK(heap_check(kit.heap));
    for (unsigned n = 0; n <= KIT_FIBERS; n++) {
        struct kit_hand *hand = &kit.hands[n];
        for (unsigned k = 0; k < hand->count; k++) {
            kit_disown(hand->objects[k], hand->bytes[k]);
            hak_free(hand->objects[k]);
        }
    }
    for (unsigned n = 0; n < KIT_FIBERS; n++) {
        if (kit.threads[n] != NULL) {
            thread_drain(kit.threads[n]);
        }
    }
    thread_detach_all();
    check_empty();
}
