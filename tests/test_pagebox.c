/* SPDX-License-Identifier: MIT */
/*
 * The page box: slabs that belong to one thread, for the classes that it is switched on for; what
 * it keeps, what it gives away, and that its count stays right.
 */
#include "alloc/pagebox.h"

#include "alloc/cache.h"
#include "alloc/sharedpool.h"
#include "tests/heap_kit.h"

#define CLASS_64 20 /* 1,024 bytes, 64 to a slab of one unit */
#define PAIRS 5000000

static unsigned owned(unsigned cls)
{
    return kit_slabs_in(cls, SLAB_OWNED);
}

static struct thread *here(void)
{
    struct thread *thread = thread_current(hak_region_default());

    CHECK(thread != NULL);
    return thread;
}

/* Allocates and frees a few objects of a class. */
static void use_class(unsigned cls)
{
    void *objects[10];

    for (unsigned n = 0; n < 10; n++) {
        objects[n] = hak_malloc(sizeclass_bytes(cls));
        CHECK(objects[n] != NULL);
    }
    for (unsigned n = 0; n < 10; n++) {
        hak_free(objects[n]);
    }
}

static void use_every_class(void)
{
    for (unsigned cls = 1; cls <= CLASS_COUNT; cls++) {
        use_class(cls);
    }
}

TEST(every_class_has_a_box_unless_told_otherwise)
{
    kit_open(512 * MIB);
    for (unsigned cls = 1; cls <= CLASS_COUNT; cls++) {
        use_class(cls);
        CHECK_GE(owned(cls), 1);
        /* Of the largest, one refill can take all that a slab has. */
        CHECK_GE(kit_class(cls).box_hits, sizeclass_bytes(cls) <= 8192);
        /* All classes at once would be more than boxes may hold. */
        pagebox_drain_owner(here(), cls);
    }
    kit_close();
}

TEST(only_the_classes_named_have_a_box)
{
    kit_open_with(128 * MIB, "HAKMEM_TINY_PAGE_BOX_CLASSES", "4,18-20");
    use_every_class();
    for (unsigned cls = 1; cls <= CLASS_COUNT; cls++) {
        bool boxed = cls == 4 || (cls >= 18 && cls <= 20);
        CHECK_EQ(owned(cls) > 0, boxed);
        CHECK_EQ(kit_class(cls).box_hits > 0, boxed);
    }
    kit_close();
}

TEST(without_the_layer_no_class_has_a_box)
{
    kit_open_with(128 * MIB, "HAKMEM_LAYERS", "cache,warmpool");
    use_every_class();
    for (unsigned cls = 1; cls <= CLASS_COUNT; cls++) {
        CHECK_EQ(owned(cls), 0);
    }
    CHECK_EQ(kit_stats().box_hits, 0);
    CHECK_GE(kit_stats().warm_hits, 1);
    kit_close();
}

/* ---- a slab has one owner -------------------------------------------------------------------- */

static void *take_ten(void *objects)
{
    for (unsigned n = 0; n < 10; n++) {
        ((void **)objects)[n] = hak_malloc(1024);
    }
    return NULL;
}

TEST(another_thread_gets_slabs_of_its_own)
{
    void *mine[10], *theirs[10];

    kit_open(64 * MIB);
    take_ten(mine);
    kit_elsewhere(take_ten, theirs);
    for (unsigned m = 0; m < 10; m++) {
        for (unsigned t = 0; t < 10; t++) {
            CHECK(kit_slab(mine[m]) != kit_slab(theirs[t]));
        }
    }
    CHECK_EQ(kit_state(mine[0]), SLAB_OWNED);
    CHECK_EQ(kit_state(theirs[0]), SLAB_PARTIAL); /* its thread has exited */
    for (unsigned n = 0; n < 10; n++) {
        hak_free(mine[n]);
        hak_free(theirs[n]);
    }
    kit_close();
}

/* ---- what the box keeps ---------------------------------------------------------------------- */

TEST(the_box_takes_so_many_slabs_and_the_oldest_gives_way)
{
    unit_t units[PAGEBOX_SLABS + 3];

    kit_open(64 * MIB);
    struct thread *thread = here();
    for (unsigned n = 0; n < PAGEBOX_SLABS + 3; n++) {
        units[n] = sharedpool_acquire_fresh(thread->pool, CLASS_64);
        CHECK(units[n] != UNIT_NONE);
    }
    for (unsigned n = 0; n < PAGEBOX_SLABS + 3; n++) {
        pagebox_put_owner(thread, CLASS_64, units[n]);
        CHECK_EQ(owned(CLASS_64),
                 n < PAGEBOX_SLABS ? PAGEBOX_SLABS + 3 : PAGEBOX_SLABS + 2 - n + PAGEBOX_SLABS);
    }
    for (unsigned n = 0; n < PAGEBOX_SLABS + 3; n++) {
        uint64_t head = atomic_load(&thread->heap->slabs[units[n]].head);
        CHECK_EQ(head_state(head), n < 3 ? SLAB_FREE : SLAB_OWNED);
    }
    pagebox_drain_owner(thread, CLASS_64);
    CHECK_EQ(owned(CLASS_64), 0);
    kit_close();
}

TEST(the_latest_slab_is_asked_first_then_the_next)
{
    void *objects[MAGAZINE_OBJECTS];
    unit_t first, second;

    kit_open(64 * MIB);
    struct thread *thread = here();
    CHECK_EQ(pagebox_take_owner(thread, CLASS_64, objects, 1), 0);
    first = sharedpool_acquire_fresh(thread->pool, CLASS_64);
    second = sharedpool_acquire_fresh(thread->pool, CLASS_64);
    pagebox_put_owner(thread, CLASS_64, first);
    pagebox_put_owner(thread, CLASS_64, second);
    CHECK_EQ(pagebox_take_owner(thread, CLASS_64, objects, 64), 64);
    for (unsigned n = 0; n < 64; n++) {
        CHECK_EQ(kit_slab(objects[n]), second);
    }
    void *one;
    CHECK_EQ(pagebox_take_owner(thread, CLASS_64, &one, 1), 1);
    CHECK_EQ(kit_slab(one), first);
    /* Frees go into an owned slab without ado, and come out of it again. */
    sharedpool_release(thread, CLASS_64, objects, 5);
    CHECK_EQ(kit_state(objects[0]), SLAB_OWNED);
    void *again[5];
    CHECK_EQ(pagebox_take_owner(thread, CLASS_64, again, 5), 5);
    CHECK_EQ(kit_slab(again[4]), second);
    sharedpool_release(thread, CLASS_64, objects, 64);
    sharedpool_release(thread, CLASS_64, &one, 1);
    kit_close();
}

TEST(of_several_emptied_slabs_the_box_keeps_one)
{
    static void *objects[2000];
    struct hak_region *heap = kit_open(32 * MIB);

    for (unsigned cls = 1; cls <= CLASS_COUNT; cls++) {
        size_t bytes = sizeclass_bytes(cls);
        unsigned per_slab = sizeclass_capacity(cls, sizeclasses[cls].unit_count);
        size_t count = min_size(2000, min_size(3 * per_slab, 8 * MIB / bytes));
        for (size_t n = 0; n < count; n++) {
            objects[n] = hak_malloc(bytes);
            CHECK(objects[n] != NULL);
        }
        for (size_t n = 0; n < count; n++) {
            hak_free(objects[n]);
        }
        cache_drain(here());
        CHECK_EQ(kit_class(cls).objects_out, 0);
        CHECK_LE(owned(cls), 1);
        CHECK_EQ(kit_class(cls).slab_count, owned(cls));
    }
    CHECK(heap_check(heap));
    kit_close();
}

/* Neither cache nor warm pool: each call goes to the box; the one slab must not go to and fro. */
TEST(a_lone_pair_of_malloc_and_free_does_not_bounce_its_slab)
{
    kit_open_with(64 * MIB, "HAKMEM_LAYERS", "pagebox");
    for (unsigned cls = 1; cls <= CLASS_COUNT; cls++) {
        for (unsigned n = 0; n < 100; n++) {
            void *object = hak_malloc(sizeclass_bytes(cls));
            CHECK(object != NULL);
            hak_free(object);
        }
        CHECK_EQ(kit_class(cls).box_hits, 99);
        pagebox_drain_owner(here(), cls);
        CHECK_EQ(kit_class(cls).slab_count, 0);
    }
    CHECK_EQ(kit_stats().pool_fresh, CLASS_COUNT);
    CHECK_EQ(kit_stats().slabs_recycled, CLASS_COUNT); /* by the drains */
    kit_close();
}

/* A slab can stay in a box for as long as its thread lives: nothing runs up or runs out. */
TEST(a_slab_in_use_for_millions_of_pairs_keeps_its_books)
{
    struct hak_region *heap = kit_open_with(64 * MIB, "HAKMEM_LAYERS", "pagebox");
    void *kept = hak_malloc(1024);

    for (unsigned n = 0; n < PAIRS; n++) {
        void *object = hak_malloc(1024);
        CHECK(object != NULL);
        hak_free(object);
    }
    CHECK_EQ(kit_class(CLASS_64).slab_count, 1);
    CHECK_EQ(kit_class(CLASS_64).objects_out, 1);
    pagebox_drain_owner(here(), CLASS_64);
    CHECK_EQ(kit_state(kept), SLAB_PARTIAL);
    CHECK_EQ(slab_free_bits(&heap->slabs[kit_slab(kept)]), 63);
    CHECK(heap_check(heap));
    hak_free(kept);
    kit_close();
}

HARNESS_MAIN()
