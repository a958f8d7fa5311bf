/* SPDX-License-Identifier: MIT */
/*
 * What tests of the allocator's rooms share: a default region that is opened with a case and proven
 * whole and empty at its end, settings that only the environment has, the books of a slab, threads.
 *
 * A case that failed left its region behind; the next one's opening ends it. Ordinary pages, so
 * that every machine can run them. Misuse aborts, so that a report is never passed over.
 */
#ifndef HAK_TESTS_HEAP_KIT_H
#define HAK_TESTS_HEAP_KIT_H

#include "alloc/guarded.h"
#include "alloc/heap.h"
#include "alloc/thread.h"
#include "numa/topology.h"
#include "tests/harness.h"

#include <sched.h>

#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)

/* ---- regions ------------------------------------------------------------------------------- */

static inline void kit_forget_last(void)
{
    if (hak_region_default() != NULL) {
        CHECK_EQ(hak_region_fini(), 0);
    }
    topology_fake(0);
}

static inline struct hak_region *kit_start(const struct hak_config *config)
{
    CHECK_EQ(hak_region_init(config), 0);
    return hak_region_default();
}

static inline struct hak_config kit_config(size_t bytes)
{
    return (struct hak_config){
        .size_bytes = bytes, .pages = {HAK_PAGES_4K}, .misuse = HAK_MISUSE_ABORT};
}

/* A default region of one node. */
static inline struct hak_region *kit_open(size_t bytes)
{
    struct hak_config config = kit_config(bytes);

    kit_forget_last();
    return kit_start(&config);
}

/* The same with one environment variable set while the settings are read. */
static inline struct hak_region *kit_open_with(size_t bytes, const char *name, const char *value)
{
    struct hak_config config = kit_config(bytes);
    int code;

    kit_forget_last();
    setenv(name, value, 1);
    code = hak_region_init(&config);
    unsetenv(name);
    CHECK_EQ(code, 0);
    return hak_region_default();
}

/* The same on a machine that seems to have two nodes, its processors dealt out in turn. */
static inline struct hak_region *kit_open_two_nodes(size_t bytes, enum hak_exhausted exhausted)
{
    struct hak_config config = kit_config(bytes);

    config.exhausted = exhausted;
    kit_forget_last();
    topology_fake(2);
    return kit_start(&config);
}

static inline struct hak_stats kit_stats(void)
{
    struct hak_stats stats;

    CHECK_EQ(hak_region_stats(NULL, &stats), 0);
    return stats;
}

static inline struct hak_class_stats kit_class(unsigned cls)
{
    struct hak_class_stats stats;

    CHECK_EQ(hak_region_class_stats(NULL, cls, &stats), 0);
    return stats;
}

/* What a hardened region holds back of large objects, as when it runs out. */
static inline void kit_let_go(struct hak_region *heap)
{
    for (uint32_t n = 0; heap->hardened != NULL && n < heap->pool_count; n++) {
        (void)guarded_drain(heap->stray, &heap->pools[n]);
    }
}

/* With every object freed: this thread gives its slot up, and then all is free and all is well,
 * after so many misuses. */
static inline void kit_check_empty_after(uint64_t misuses)
{
    struct hak_region *heap = hak_region_default();
    struct hak_stats stats;

    thread_detach_all();
    kit_let_go(heap);
    CHECK(heap_check(heap));
    stats = kit_stats();
    CHECK_EQ(stats.free_bytes, stats.size_bytes);
    CHECK_EQ(stats.slab_bytes, 0);
    CHECK_EQ(stats.large_bytes, 0);
    CHECK_EQ(stats.cached_bytes_max, 0);
    CHECK_EQ(stats.threads, 0);
    CHECK_EQ(stats.misuses, misuses);
    for (uint32_t n = 0; n < heap->pool_count; n++) {
        CHECK_EQ(bitset_count(&heap->pools[n].magazines.free), heap->pools[n].magazines.count);
        CHECK_EQ(bitset_count(&heap->pools[n].slots.free), heap->pools[n].slots.free.bit_count[0]);
    }
}

static inline void kit_check_empty(void)
{
    kit_check_empty_after(0);
}

static inline void kit_close(void)
{
    kit_check_empty();
    kit_forget_last();
}

/* ---- where things are ---------------------------------------------------------------------- */

static inline unit_t kit_unit(const void *pointer)
{
    unit_t unit = region_unit(&hak_region_default()->area, pointer);

    CHECK(unit != UNIT_NONE);
    return unit;
}

/* First unit of the slab that an object lies in. */
static inline unit_t kit_slab(const void *pointer)
{
    return heap_slab_head(hak_region_default(), kit_unit(pointer));
}

static inline enum slab_state kit_state(const void *pointer)
{
    return head_state(atomic_load(&hak_region_default()->slabs[kit_slab(pointer)].head));
}

/* Index of the segment. */
static inline unsigned kit_segment(const void *pointer)
{
    return heap_pool_of(hak_region_default(), kit_unit(pointer))->index;
}

/* How many slabs of a class are in a state. */
static inline unsigned kit_slabs_in(unsigned cls, enum slab_state state)
{
    struct hak_region *heap = hak_region_default();
    unsigned count = 0;

    for (unit_t unit = 0; unit < heap->area.unit_count; unit++) {
        if (heap_class(heap, unit) == cls && heap_slab_head(heap, unit) == unit) {
            count += head_state(atomic_load(&heap->slabs[unit].head)) == state;
        }
    }
    return count;
}

/* ---- threads ------------------------------------------------------------------------------- */

static inline pthread_t kit_thread(void *(*run)(void *), void *argument)
{
    pthread_t thread;
    int code = pthread_create(&thread, NULL, run, argument);

    if (code != 0) {
        FAIL("pthread_create: %s", strerror(code));
    }
    return thread;
}

static inline void kit_join(pthread_t thread)
{
    CHECK_EQ(pthread_join(thread, NULL), 0);
}

/* Runs it to its end in a thread of its own. */
static inline void kit_elsewhere(void *(*run)(void *), void *argument)
{
    kit_join(kit_thread(run, argument));
}

/* Two threads taking turns: says that a step is done, waits for the other side's. */
struct kit_turns {
    _Atomic unsigned step;
};

static inline void kit_done(struct kit_turns *turns, unsigned step)
{
    atomic_store_explicit(&turns->step, step, memory_order_release);
}

static inline void kit_wait(struct kit_turns *turns, unsigned step)
{
    int64_t deadline = harness_now_ms() + 60000;

    while (atomic_load_explicit(&turns->step, memory_order_acquire) < step) {
        if (harness_now_ms() > deadline) {
            FAIL("the other thread does not come to step %u", step);
        }
        sched_yield();
    }
}

#endif
