/* SPDX-License-Identifier: MIT */
/*
 * The world of fuzz_api: up to two regions, the model of their objects, and several threads of
 * which one at a time takes a step. To the allocator a thread is its pointers to its slots
 * (thread_self): so a *lane* is such a set of pointers, and the one process thread puts on a lane's
 * before it takes a step for it. Every input has one course, there are no waits, and a free can
 * still come from another thread than the allocation. What real threads add (their exits, and
 * steps at the same time) is for the stress tests and the soak.
 *
 * Bad frees are ignored by policy and counted. In the default mode some are found only when the
 * thread's cache goes back, and until then the pointer may be handed out: after each the world is
 * settled, that is all lanes give up what they cache, and then the regions' figures have to
 * agree with the model to the byte.
 */
#ifndef HAK_TESTS_FUZZ_WORLD_H
#define HAK_TESTS_FUZZ_WORLD_H

#include "alloc/hardened.h"
#include "alloc/heap.h"
#include "alloc/thread.h"
#include "numa/topology.h"
#include "tests/fuzz/model.h"

#include <sched.h>

#define PLACES 2
#define LANES 4
#define FREED 32
/* Memory for adopted regions: stays dirty from one input to the next. */
#define ARENA_BYTES (24 * MIB)

/* A region in use; heap NULL: not there. */
struct place {
    struct hak_region *heap;
    bool by_name; /* the default region: called without a handle */
    bool adopted;
    bool hardened;
    bool two_nodes;
    bool other_nodes; /* an allocation may come from another node */
    uint64_t misuses; /* that were committed */
    uint64_t refused; /* allocations that failed for want of room, at least so many */
    unsigned reclaims;
};

static struct world {
    struct fuzz_input input;
    struct model model;
    struct place places[PLACES];
    void *freed[FREED]; /* pointers that were objects once */
    unsigned freed_count;
    unsigned second_lane; /* beside lane 0 */
    bool unsettled;       /* a bad free was made */
    int home;             /* the pretended node that an input begins on */
} world;

static unsigned char arena[PLACES][ARENA_BYTES];

/* ---- lanes ----------------------------------------------------------------------------------- */

static struct thread_self lane_selves[LANES][HAK_REGIONS_MAX];
static unsigned lane_now;

static const struct thread_self lane_new = {.active = &thread_none};

static inline void lanes_start(void)
{
    for (unsigned lane = 0; lane < LANES; lane++) {
        for (unsigned id = 0; id < HAK_REGIONS_MAX; id++) {
            lane_selves[lane][id] = lane_new;
        }
    }
}

static inline void lane_put_on(unsigned lane)
{
    if (lane != lane_now) {
        memcpy(lane_selves[lane_now], thread_self, sizeof thread_self);
        memcpy(thread_self, lane_selves[lane], sizeof thread_self);
        lane_now = lane;
    }
}

/* A region has ended: the library has seen to the lane that is on. */
static inline void lanes_forget(unsigned id)
{
    for (unsigned lane = 0; lane < LANES; lane++) {
        lane_selves[lane][id] = lane_new;
    }
}

/* Processors belong to the pretended nodes in turn. */
static inline void world_move(unsigned index)
{
    static cpu_set_t allowed;
    static int home = -1, other;
    cpu_set_t one;

    if (home < 0) {
        home = other = sched_getcpu();
        (void)sched_getaffinity(0, sizeof allowed, &allowed);
        for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
            other = CPU_ISSET(cpu, &allowed) && cpu % 2 != home % 2 ? cpu : other;
        }
    }
    CPU_ZERO(&one);
    CPU_SET(index == 0 ? home : other, &one);
    (void)sched_setaffinity(0, sizeof one, &one);
    world.home = home % 2;
}

/* ---- settling -------------------------------------------------------------------------------- */

static void give_up_caches(void)
{
    thread_enter();
    thread_detach_all();
    thread_leave();
}

/* What the model says that a class holds. */
static inline void world_expect(unsigned index, size_t objects[CLASS_COUNT + 1], size_t *large)
{
    const struct place *place = &world.places[index];

    memset(objects, 0, (CLASS_COUNT + 1) * sizeof *objects);
    *large = 0;
    for (unsigned n = 0; n < world.model.count; n++) {
        const struct object *object = &world.model.objects[n];
        if (object->place != index) {
            continue;
        }
        unsigned cls = heap_class(place->heap, region_unit(&place->heap->area, object->start));
        if (cls == CLASS_LARGE_HEAD || (place->hardened && cls == CLASS_LARGE_BODY)) {
            *large += object->filled;
        } else {
            FUZZ_CHECK(cls != CLASS_NONE && cls <= CLASS_COUNT);
            FUZZ_CHECK(place->hardened || sizeclass_bytes(cls) == object->filled);
            objects[cls]++;
        }
    }
}

/* Every class's figures against the model. In a hardened region freed objects are held back, and
 * large ones have guards: there more may be out than the model knows. */
static inline void world_check_classes(unsigned index, const struct hak_stats *stats)
{
    const struct place *place = &world.places[index];
    size_t objects[CLASS_COUNT + 1], large, slab_bytes = 0, slab_free = 0;
    struct hak_class_stats one;

    world_expect(index, objects, &large);
    for (unsigned cls = 1; cls <= CLASS_COUNT; cls++) {
        FUZZ_EQ(hak_region_class_stats(place->heap, cls, &one), 0);
        FUZZ_CHECK(one.objects_out >= objects[cls]);
        if (!place->hardened && one.objects_out != objects[cls]) {
            FUZZ_FAIL("class %u (%zu bytes): %zu objects are out, not %zu", cls, one.object_bytes,
                      one.objects_out, objects[cls]);
        }
        slab_bytes += one.slab_bytes;
        slab_free += one.objects_free * one.object_bytes;
    }
    FUZZ_EQ(stats->slab_bytes, slab_bytes);
    FUZZ_EQ(stats->slab_free_bytes, slab_free);
    FUZZ_CHECK(stats->large_bytes >= large);
    FUZZ_CHECK(place->hardened || stats->large_bytes == large);
}

static inline void world_check_place(unsigned index, bool all)
{
    struct place *place = &world.places[index];
    struct hak_stats stats;
    size_t free_bytes = 0, slab_bytes = 0, large_bytes = 0;

    FUZZ_EQ(hak_region_stats(place->heap, &stats), 0);
    if (stats.misuses != place->misuses) {
        struct hak_error error;
        (void)hak_last_error(&error);
        FUZZ_FAIL("%llu misuses are counted, and %llu were committed; the last error: %s",
                  (unsigned long long)stats.misuses, (unsigned long long)place->misuses,
                  error.message);
    }
    FUZZ_CHECK(stats.exhausted >= place->refused);
    FUZZ_EQ(stats.free_bytes + stats.slab_bytes + stats.large_bytes, stats.size_bytes);
    FUZZ_CHECK(stats.largest_free_bytes <= stats.free_bytes);
    FUZZ_EQ(stats.cached_bytes_max, 0);
    FUZZ_EQ(stats.boxed_bytes_max, 0);
    FUZZ_EQ(stats.threads, 0);
    for (unsigned n = 0; n < stats.node_count; n++) {
        struct hak_node_stats node;
        FUZZ_EQ(hak_region_node_stats(place->heap, n, &node), 0);
        FUZZ_EQ(node.free_bytes + node.slab_bytes + node.large_bytes, node.size_bytes);
        free_bytes += node.free_bytes;
        slab_bytes += node.slab_bytes;
        large_bytes += node.large_bytes;
    }
    FUZZ_EQ(free_bytes, stats.free_bytes);
    FUZZ_EQ(slab_bytes, stats.slab_bytes);
    FUZZ_EQ(large_bytes, stats.large_bytes);
    if (all) {
        world_check_classes(index, &stats);
    }
    FUZZ_CHECK(heap_check(place->heap));
}

/* Nobody caches anything now; figures, books and contents are as they have to be. all: class by
 * class, which takes long. */
static inline void world_settle(bool all)
{
    for (unsigned lane = 0; lane < LANES; lane++) {
        lane_put_on(lane);
        give_up_caches();
    }
    lane_put_on(0);
    for (unsigned n = 0; n < PLACES; n++) {
        if (world.places[n].heap != NULL) {
            world_check_place(n, all);
        }
    }
    model_verify_all(&world.model, "when all stand still");
    world.unsettled = false;
}

/* ---- places ---------------------------------------------------------------------------------- */

static inline void world_opened(struct place *place, const struct hak_config *config,
                                struct hak_region *heap)
{
    *place = (struct place){.heap = heap,
                            .hardened = heap->hardened != NULL,
                            .two_nodes = heap->pool_count > 1,
                            .other_nodes = heap_any_node(heap)};
    FUZZ_EQ(place->hardened, config->hardened == HAK_ON);
    if (place->hardened) {
        heap->hardened->seed = 1; /* chance would make findings that do not come back */
    }
}

static inline struct hak_config world_config(size_t bytes, bool hardened)
{
    struct hak_config config = {.size_bytes = bytes,
                                .pages = {HAK_PAGES_4K},
                                .prefault = HAK_OFF,
                                .misuse = HAK_MISUSE_IGNORE};

    config.hardened = hardened ? HAK_ON : HAK_OFF;
    return config;
}

static inline void world_create(unsigned index, const struct hak_config *config)
{
    hak_region *region = NULL;

    FUZZ_EQ(hak_region_create(config, &region), 0);
    world_opened(&world.places[index], config, region);
}

/* Begins at an offset of up to 2 MiB from a SuperSlab's start, wherever the arena was loaded. */
static inline void world_adopt(unsigned index, const struct hak_config *config, size_t offset)
{
    hak_region *region = NULL;
    unsigned char *start = arena[index];
    size_t usable = 0;

    start += round_up((uintptr_t)start, SUPERSLAB_BYTES) - (uintptr_t)start + offset;
    FUZZ_EQ(
        hak_region_adopt(start, config->size_bytes + SUPERSLAB_BYTES, -1, config, &region, &usable),
        0);
    FUZZ_CHECK(usable >= config->size_bytes);
    world_opened(&world.places[index], config, region);
    world.places[index].adopted = true;
}

static inline void world_init(const struct hak_config *config)
{
    FUZZ_EQ(hak_region_init(config), 0);
    world_opened(&world.places[0], config, hak_region_default());
    world.places[0].by_name = true;
}

/* The region ends with what is in it. */
static inline void world_end_place(unsigned index)
{
    struct place *place = &world.places[index];

    for (unsigned n = world.model.count; n-- > 0;) {
        if (world.model.objects[n].place == index) {
            model_remove(&world.model, &world.model.objects[n]);
        }
    }
    unsigned id = place->heap->id;
    FUZZ_EQ(place->by_name ? hak_region_fini() : hak_region_destroy(place->heap), 0);
    lanes_forget(id);
    place->heap = NULL;
}

/* Settled, and every object freed: then every byte is free, and one object can have nearly all. */
static inline void world_check_empty(unsigned index)
{
    struct place *place = &world.places[index];
    struct hak_stats stats;

    FUZZ_EQ(hak_region_stats(place->heap, &stats), 0);
    if (place->hardened) {
        return; /* some of it is held back */
    }
    FUZZ_EQ(stats.free_bytes, stats.size_bytes);
    FUZZ_EQ(stats.largest_free_bytes,
            stats.size_bytes / stats.node_count / SUPERSLAB_BYTES * SUPERSLAB_BYTES);
}

#endif
