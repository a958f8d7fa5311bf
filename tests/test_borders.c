/* SPDX-License-Identifier: MIT */
/*
 * Where one thing ends and the next begins: segments of nodes, the region, the last object of a
 * slab; and that units on their way between threads are neither lost sight of nor counted twice.
 */
#include "region/units.h"

#include "tests/heap_kit.h"

#define MANY (2 * MIB / 16)

static void *objects[MANY + 1];
static size_t object_count;

static void free_all(void)
{
    while (object_count > 0) {
        hak_free(objects[--object_count]);
    }
}

/* ---- the borders of nodes ------------------------------------------------------------------ */

/* Two segments; what is beyond 16 MiB is never touched and costs nothing. */
static struct hak_region *open_two(size_t bytes, enum hak_exhausted exhausted)
{
    struct hak_config config = kit_config(bytes);

    config.exhausted = exhausted;
    config.prefault = HAK_OFF;
    kit_forget_last();
    topology_fake(2);
    struct hak_region *heap = kit_start(&config);
    CHECK_EQ(heap->pool_count, 2);
    CHECK_EQ((size_t)heap->area.segments[1].superslab_count * SUPERSLAB_BYTES, bytes / 2);
    return heap;
}

/* The node's books: so much in large objects, the rest free, and everything else in order. */
static void check_node(unsigned index, size_t large_bytes)
{
    struct hak_node_stats node;

    CHECK_EQ(hak_region_node_stats(NULL, index, &node), 0);
    CHECK_EQ(node.large_bytes, large_bytes);
    CHECK_EQ(node.free_bytes, node.size_bytes - large_bytes);
    CHECK_EQ(node.slab_bytes, 0);
    CHECK(heap_check(hak_region_default()));
}

static void check_bytes(const unsigned char *object, unsigned char value, size_t bytes)
{
    for (size_t at = 0; at < bytes; at++) {
        if (object[at] != value) {
            FAIL("byte %zu is %u, not %u", at, object[at], value);
        }
    }
}

/* Fills a node with objects of 1 MiB. */
static void fill_with_mib(int node)
{
    object_count = 0;
    while ((objects[object_count] = hak_malloc_on_node(MIB, node)) != NULL) {
        object_count++;
        CHECK(object_count < MANY);
    }
}

/* Takes the object that ends there out of those allocated. */
static unsigned char *take_object_before(uintptr_t end)
{
    for (size_t n = 0; n < object_count; n++) {
        if ((uintptr_t)objects[n] + MIB == end) {
            unsigned char *object = objects[n];
            objects[n] = objects[--object_count];
            return object;
        }
    }
    FAIL("no object ends at %p", (void *)end);
}

static void free_those_below(uintptr_t end)
{
    for (size_t n = object_count; n-- > 0;) {
        if ((uintptr_t)objects[n] < end) {
            hak_free(objects[n]);
            objects[n] = objects[--object_count];
        }
    }
}

static void *grow_the_last_object(void *unused)
{
    struct hak_region *heap = hak_region_default();
    size_t bytes = heap->area.bytes / 2;

    CHECK_EQ(hak_thread_pin(0), 0);
    fill_with_mib(0);
    CHECK_EQ(object_count, bytes / MIB);
    unsigned char *last = take_object_before(heap->area.segments[1].base);
    memset(last, 0x5a, MIB);
    errno = 0;
    CHECK(hak_realloc(last, MIB + 1) == NULL);
    CHECK_EQ(errno, ENOMEM);
    CHECK(hak_realloc(last, 2 * MIB) == NULL);
    CHECK_EQ(hak_usable_size(last), MIB);
    check_bytes(last, 0x5a, MIB);
    check_node(0, bytes);
    check_node(1, 0);

    free_those_below(heap->area.base + 2 * MIB);
    check_node(0, bytes - 2 * MIB);
    unsigned char *moved = hak_realloc(last, 2 * MIB);
    CHECK_EQ(moved, heap->area.base);
    check_bytes(moved, 0x5a, MIB);
    check_node(0, bytes - MIB);
    check_node(1, 0);
    hak_free(moved);
    free_all();
    return unused;
}

TEST(the_last_object_of_a_node_does_not_grow_into_the_next_one)
{
    open_two(16 * MIB, HAK_EXHAUSTED_FAIL);
    kit_elsewhere(grow_the_last_object, NULL);
    kit_close();
}

static void *grow_to_the_other_node(void *unused)
{
    struct hak_region *heap = hak_region_default();

    CHECK_EQ(hak_thread_pin(0), 0);
    fill_with_mib(0);
    unsigned char *last = take_object_before(heap->area.segments[1].base);
    memset(last, 0xa5, MIB);
    unsigned char *moved = hak_realloc(last, 3 * MIB);
    CHECK(moved != NULL);
    CHECK_EQ(kit_segment(moved), 1);
    check_bytes(moved, 0xa5, MIB);
    check_node(0, heap->area.bytes / 2 - MIB);
    check_node(1, 3 * MIB);
    hak_free(moved);
    free_all();
    return unused;
}

TEST(where_it_may_it_moves_to_the_next_node_as_a_whole)
{
    open_two(16 * MIB, HAK_EXHAUSTED_ANY_NODE);
    kit_elsewhere(grow_to_the_other_node, NULL);
    kit_close();
}

static void *grow_over_a_whole_node(void *unused)
{
    struct hak_region *heap = hak_region_default();
    size_t bytes = heap->area.bytes / 2;

    CHECK_EQ(hak_thread_pin(0), 0);
    unsigned char *object = hak_malloc_on_node(MIB, 0);
    CHECK_EQ(object, heap->area.base);
    memset(object, 0x77, MIB);
    CHECK_EQ(hak_realloc(object, bytes), object); /* up to the border, in place */
    check_node(0, bytes);
    CHECK(hak_realloc(object, bytes + 1) == NULL);
    CHECK(hak_realloc(object, bytes + UNIT_BYTES) == NULL);
    CHECK(hak_realloc(object, bytes + 5 * MIB) == NULL);
    CHECK(hak_realloc(object, 2 * bytes) == NULL);
    CHECK_EQ(hak_usable_size(object), bytes);
    check_node(0, bytes);
    check_node(1, 0);
    check_bytes(object, 0x77, MIB);
    CHECK(hak_malloc_on_node(300 * KIB, 0) == NULL);
    void *other = hak_malloc_on_node(bytes, 1); /* the next node is whole */
    CHECK(other != NULL);
    hak_free(other);
    hak_free(object);
    check_node(0, 0);
    return unused;
}

/* Segments of 1, 64 and 70 SuperSlabs: within, at and beyond a word of their bitsets. */
TEST(an_object_grows_over_its_whole_node_and_no_further)
{
    static const size_t sizes[] = {4 * MIB, 256 * MIB, 280 * MIB};

    for (unsigned n = 0; n < sizeof(sizes) / sizeof(*sizes); n++) {
        for (unsigned policy = HAK_EXHAUSTED_FAIL; policy <= HAK_EXHAUSTED_ANY_NODE; policy++) {
            open_two(sizes[n], policy);
            kit_elsewhere(grow_over_a_whole_node, NULL);
            kit_close();
        }
    }
}

/* ---- the region's end ---------------------------------------------------------------------- */

TEST(growth_at_the_regions_end_fails_and_changes_nothing)
{
    /* The last ones are so many units that 32 bits of their number are a small growth. */
    static const size_t sizes[] = {MIB + 1,
                                   MIB + UNIT_BYTES,
                                   3 * MIB,
                                   16 * MIB,
                                   17 * MIB,
                                   (size_t)1 << 40,
                                   ((size_t)1 << 48) + MIB,
                                   ((size_t)1 << 48) + 2 * MIB,
                                   (size_t)PTRDIFF_MAX};
    struct hak_region *heap = kit_open(16 * MIB);

    fill_with_mib(heap->area.segments[0].node);
    unsigned char *last = take_object_before(heap->area.base + heap->area.bytes);
    memset(last, 0x33, MIB);
    for (unsigned n = 0; n < sizeof(sizes) / sizeof(*sizes); n++) {
        errno = 0;
        CHECK(hak_realloc(last, sizes[n]) == NULL);
        CHECK_EQ(errno, ENOMEM);
        CHECK_EQ(hak_usable_size(last), MIB);
    }
    check_node(0, 16 * MIB);
    /* The same with half of what is wanted free before the end. */
    CHECK_EQ(hak_realloc(last, 512 * KIB), last);
    CHECK(hak_realloc(last, MIB + UNIT_BYTES) == NULL);
    check_node(0, 16 * MIB - 512 * KIB);
    CHECK_EQ(hak_realloc(last, MIB), last);
    check_bytes(last, 0x33, 512 * KIB);
    hak_free(last);
    free_all();
    kit_close();
}

/* ---- units on their way -------------------------------------------------------------------- */

#define PAIRS 3000000
#define HANDOVERS 200000

/* Never more than a third of the region in use: NULL would be a lie. */
static void *pairs(void *failed)
{
    for (unsigned n = 0; n < PAIRS; n++) {
        void *object = hak_malloc(300 * KIB);
        if (object == NULL) {
            atomic_fetch_add((_Atomic unsigned *)failed, 1);
        }
        hak_free(object);
    }
    return NULL;
}

TEST(two_threads_with_an_object_each_never_find_two_mib_full)
{
    static _Atomic unsigned failed;
    pthread_t threads[2];

    kit_open(2 * MIB);
    atomic_store(&failed, 0);
    for (unsigned n = 0; n < 2; n++) {
        threads[n] = kit_thread(pairs, &failed);
    }
    for (unsigned n = 0; n < 2; n++) {
        kit_join(threads[n]);
    }
    unsigned count = atomic_load(&failed);
    CHECK_EQ(count, 0);
    kit_close();
}

static _Atomic bool stop;

static void *grow_in_vain(void *object)
{
    size_t grown = 0;

    while (!atomic_load(&stop)) {
        grown += hak_realloc(object, 120 * MIB) != NULL;
    }
    CHECK_EQ(grown, 0);
    return NULL;
}

/* An object, room behind it, and a wall before the room is enough for the object to grow. */
static void grow_beside_small(size_t room_bytes, unsigned count)
{
    struct hak_config config = kit_config(128 * MIB);
    unsigned failed = 0;

    config.prefault = HAK_OFF;
    kit_forget_last();
    kit_start(&config);
    void *object = hak_malloc(2 * MIB);
    void *room = hak_malloc(room_bytes);
    object_count = 0;
    while ((objects[object_count] = hak_malloc(2 * MIB)) != NULL) {
        object_count++;
    }
    hak_free(room);
    atomic_store(&stop, false);
    pthread_t thread = kit_thread(grow_in_vain, object);
    for (unsigned n = 0; n < count; n++) {
        void *small = hak_malloc(300 * KIB);
        failed += small == NULL;
        hak_free(small);
    }
    atomic_store(&stop, true);
    kit_join(thread);
    CHECK_EQ(failed, 0);
    hak_free(object);
    free_all();
    kit_close();
}

TEST(a_growth_that_fails_does_not_hide_room_from_others)
{
    grow_beside_small(2 * MIB, PAIRS);
    grow_beside_small(80 * MIB, PAIRS);
}

/* ---- figures ------------------------------------------------------------------------------- */

static _Atomic unsigned absurd;

static void look_at_node(void)
{
    struct hak_node_stats node;

    CHECK_EQ(hak_region_node_stats(NULL, 0, &node), 0);
    if (node.free_bytes > node.size_bytes || node.large_bytes > node.size_bytes ||
        node.largest_free_bytes > node.size_bytes) {
        atomic_fetch_add(&absurd, 1);
    }
}

/* What one gives back the other, who finds nothing else, takes at once. */
static void *hand_over(void *unused)
{
    for (unsigned n = 0; n < HANDOVERS; n++) {
        void *object = hak_malloc(2 * MIB);
        if (object != NULL) {
            look_at_node();
        }
        hak_free(object);
    }
    return unused;
}

TEST(free_bytes_never_exceed_the_region_while_large_objects_change_hands)
{
    pthread_t threads[2];

    kit_open(2 * MIB);
    atomic_store(&absurd, 0);
    for (unsigned n = 0; n < 2; n++) {
        threads[n] = kit_thread(hand_over, NULL);
    }
    for (unsigned n = 0; n < 2; n++) {
        kit_join(threads[n]);
    }
    unsigned count = atomic_load(&absurd);
    CHECK_EQ(count, 0);
    kit_close();
}

/* ---- the last object of a slab ------------------------------------------------------------- */

/* Whether an object is one of its slab's, and nobody else's. */
static void check_place(const uintptr_t *object, unsigned cls)
{
    struct hak_region *heap = hak_region_default();
    unit_t head = kit_slab(object);
    size_t offset = (uintptr_t)object - (uintptr_t)region_address(&heap->area, head);
    uint64_t books = atomic_load(&heap->slabs[head].head);

    CHECK_EQ(heap_class(heap, head), cls);
    CHECK_EQ(offset % sizeclass_bytes(cls), 0);
    CHECK(offset / sizeclass_bytes(cls) < head_capacity(books));
    CHECK_NE(*object, (uintptr_t)object); /* marked: handed out before */
}

/* Sets or clears every bit that no object of the slab has. */
static void set_excess_bits(struct slab *slab, bool on)
{
    unsigned capacity = head_capacity(atomic_load(&slab->head));

    for (unsigned w = capacity / 64; w < SLAB_WORDS; w++) {
        uint64_t none = w * 64 < capacity ? slab_word_full(capacity, w) : 0;
        if (on) {
            atomic_fetch_or(&slab->bits[w], ~none);
        } else {
            atomic_fetch_and(&slab->bits[w], none);
        }
    }
}

/* An object, bits beyond the last one of its slab, then as many more objects as asked for. */
static void check_excess_bits(unsigned cls, enum slab_state state, size_t most)
{
    struct hak_region *heap = hak_region_default();
    size_t bytes = sizeclass_bytes(cls);
    void *first = hak_malloc(bytes);
    struct slab *slab = &heap->slabs[kit_slab(first)];
    size_t room = kit_class(cls).objects_free;

    CHECK_EQ(kit_state(first), state == SLAB_PARTIAL && room == 0 ? SLAB_FULL : state);
    set_excess_bits(slab, true);
    CHECK_EQ(kit_class(cls).objects_free, room);
    objects[0] = first;
    for (object_count = 0; objects[object_count] != NULL; object_count++) {
        uintptr_t *object = objects[object_count];
        CHECK(object_count < MANY);
        check_place(object, cls);
        *object = (uintptr_t)object;
        objects[object_count + 1] = object_count < most ? hak_malloc(bytes) : NULL;
    }
    for (size_t n = 0; n < object_count; n++) {
        CHECK_EQ(*(uintptr_t *)objects[n], (uintptr_t)objects[n]);
    }
    free_all();
}

TEST(bits_beyond_the_last_object_of_a_threads_slab_are_never_handed_out)
{
    for (unsigned cls = 1; cls <= CLASS_COUNT; cls++) {
        struct hak_config config = kit_config(256 * MIB); /* every slab fits into the page box */
        config.prefault = HAK_OFF;
        kit_forget_last();
        kit_start(&config);
        unsigned capacity = sizeclass_capacity(cls, sizeclasses[cls].unit_count);
        check_excess_bits(cls, SLAB_OWNED, 2 * (size_t)capacity);
        kit_close();
    }
}

TEST(bits_beyond_the_last_object_of_a_shared_slab_are_never_handed_out)
{
    for (unsigned cls = 1; cls <= CLASS_COUNT; cls++) {
        kit_open(2 * MIB); /* too small for page boxes */
        check_excess_bits(cls, SLAB_PARTIAL, MANY);
        kit_close();
    }
}

HARNESS_MAIN()
