/* SPDX-License-Identifier: MIT */
/*
 * What threads that did not come along with a fork had half done: their units are nobody's in the
 * child, and are given back. First each half-done state by itself, made by hand; then real forks
 * beside a thread that takes and gives back nearly the whole region.
 */
#include "alloc/orphans.h"

#include "alloc/large.h"
#include "alloc/sharedpool.h"
#include "region/giveback.h"
#include "region/units.h"
#include "tests/heap_kit.h"

static struct hak_region *heap;

static void open_region(size_t bytes, enum hak_switch hardened)
{
    const struct hak_config config = {
        .size_bytes = bytes, .pages = {HAK_PAGES_4K}, .prefault = HAK_OFF, .hardened = hardened};

    CHECK_EQ(hak_region_init(&config), 0);
    heap = hak_region_default();
}

static unit_t take(size_t units)
{
    unit_t unit = units_acquire(&heap->area, &heap->area.segments[0], units, UNIT_BYTES, NULL);

    CHECK(unit != UNIT_NONE);
    return unit;
}

static void claimed_only(void)
{
    take(5);
    take(70);
}

static void bodies_without_a_head(void)
{
    unit_t unit = take(40);

    heap_set_class(heap, unit + 1, 39, CLASS_LARGE_BODY);
}

static void a_large_object_half_unmarked(void)
{
    void *object = hak_malloc(6 * MIB);

    CHECK(object != NULL);
    unit_t unit = region_unit(&heap->area, object);
    atomic_store(&heap->slabs[unit].head, head_freed(atomic_load(&heap->slabs[unit].head)));
    heap_set_class(heap, unit, 10, CLASS_NONE);
}

static void a_span_half_given_back(void)
{
    void *object = hak_malloc(6 * MIB);

    CHECK(object != NULL);
    unit_t unit = region_unit(&heap->area, object);
    atomic_store(&heap->slabs[unit].head, head_freed(atomic_load(&heap->slabs[unit].head)));
    heap_set_class(heap, unit, 96, CLASS_NONE);
    units_release(&heap->area, unit, 32);
}

/* Of a class whose slabs have several units. */
static void a_slab_half_marked(void)
{
    unsigned cls = 1;

    while (sizeclasses[cls].unit_count < 4) {
        cls++;
    }
    unit_t unit = sharedpool_acquire_fresh(&heap->pools[0], cls);
    CHECK(unit != UNIT_NONE);
    heap_set_class(heap, unit + 2, sizeclasses[cls].unit_count - 2U, CLASS_NONE);
}

static void a_slab_half_unmarked(void)
{
    unsigned cls = 1;

    while (sizeclasses[cls].unit_count < 4) {
        cls++;
    }
    unit_t unit = sharedpool_acquire_fresh(&heap->pools[0], cls);
    CHECK(unit != UNIT_NONE);
    atomic_store(&heap->slabs[unit].head, head_freed(atomic_load(&heap->slabs[unit].head)));
    heap_set_class(heap, unit, 2, CLASS_NONE);
}

static void uncounted_and_unannounced(void)
{
    struct segment *segment = &heap->area.segments[0];

    atomic_fetch_sub(&segment->free_unit_count, 7);
    atomic_fetch_add(&segment->dirty_count, 1);
    for (unsigned length = 1; length < RUN_LENGTHS; length++) {
        size_t superslab = bitset_find(&segment->runs[length], 0);
        if (superslab != BITSET_NONE) {
            bitset_clear(&segment->runs[length], superslab);
        }
    }
}

static void mend_after(void (*half_done)(void), enum hak_switch hardened)
{
    unsigned char *kept[60];
    size_t large = 0;

    open_region(64 * MIB, hardened);
    for (unsigned n = 0; n < 60; n++) {
        size_t size = n % 6 == 0 ? 300 * KIB + n * 1000 : (size_t)100 << (n % 10);
        kept[n] = hak_malloc(size);
        CHECK(kept[n] != NULL);
        memset(kept[n], (int)n, 100);
        large += n % 6 == 0;
    }
    size_t before = kit_stats().free_bytes;
    half_done();
    orphans_give_back(heap);
    CHECK(heap_check(heap));
    CHECK_EQ(kit_stats().free_bytes, before);
    CHECK_GE(large, 10);
    for (unsigned n = 0; n < 60; n++) {
        CHECK(hak_usable_size(kept[n]) >= 100);
        CHECK(kept[n][0] == n && kept[n][99] == n);
        hak_free(kept[n]);
    }
    CHECK(heap_check(heap));
    CHECK_EQ(kit_stats().misuses, 0);
    CHECK_EQ(hak_region_fini(), 0);
}

#define HALF_DONE(name)                                                                            \
    TEST(name##_is_given_back)                                                                     \
    {                                                                                              \
        mend_after(name, HAK_OFF);                                                                 \
        mend_after(name, HAK_ON);                                                                  \
    }

HALF_DONE(claimed_only)
HALF_DONE(bodies_without_a_head)
HALF_DONE(a_large_object_half_unmarked)
HALF_DONE(a_span_half_given_back)
HALF_DONE(a_slab_half_marked)
HALF_DONE(a_slab_half_unmarked)
HALF_DONE(uncounted_and_unannounced)

/* ---- real forks ------------------------------------------------------------------------------ */

static _Atomic bool stop;

static void *take_and_give(void *unused)
{
    while (!atomic_load(&stop)) {
        hak_free(hak_malloc(200 * MIB));
    }
    return unused;
}

/* 0: all is well; the object may be there just now, of the thread that is not. */
static int look_in_the_child(void)
{
    if (!heap_check(heap)) {
        return 1;
    }
    if (kit_stats().large_bytes > 100 * MIB) {
        return 0;
    }
    void *object = hak_malloc(190 * MIB);
    if (object == NULL) {
        return 2;
    }
    hak_free(object);
    return heap_check(heap) ? 0 : 3;
}

TEST(a_child_has_all_that_nobody_has_whenever_the_fork_was)
{
    pthread_t thread;

    open_region(256 * MIB, HAK_OFF);
    atomic_store(&stop, false);
    CHECK_EQ(pthread_create(&thread, NULL, take_and_give, NULL), 0);
    for (unsigned n = 0; n < 100; n++) {
        int status = -1;
        usleep(300);
        pid_t child = fork();
        if (child == 0) {
            _exit(look_in_the_child());
        }
        CHECK(child > 0 && waitpid(child, &status, 0) == child);
        CHECK_EQ(status, 0);
    }
    atomic_store(&stop, true);
    pthread_join(thread, NULL);
    CHECK_EQ(hak_region_fini(), 0);
}

HARNESS_MAIN()
