/* SPDX-License-Identifier: MIT */
/*
 * What the caller hears when the ladder ends: every field of struct hak_error for every kind of
 * failure, against figures that the test works out for itself from the registry's words and the
 * threads' slots; that what the record says would fit does fit; that its remedy is one; and whose
 * record it is.
 */
#include "tests/ladder_kit.h"

#include "alloc/cache.h"

static struct hak_error last(void)
{
    struct hak_error error;

    memset(&error, 0x55, sizeof error);
    int code = hak_last_error(&error);
    CHECK_EQ(code, error.code);
    CHECK(memchr(error.message, 0, sizeof error.message) != NULL);
    CHECK(memchr(error.remedy, 0, sizeof error.remedy) != NULL);
    CHECK(error.pointer == NULL);
    return error;
}

static void says(const struct hak_error *error, const char *format, size_t number)
{
    char text[128];

    snprintf(text, sizeof text, format, number);
    CHECK_STR_HAS(error->message, text);
}

/* ---- figures of our own ---------------------------------------------------------------------- */

static bool unit_free(const struct segment *segment, size_t unit)
{
    uint32_t taken = atomic_load(&segment->registry[unit / SUPERSLAB_UNITS].taken_units);
    return ((taken >> (unit % SUPERSLAB_UNITS)) & 1) == 0;
}

static size_t count_free(const struct segment *segment)
{
    size_t count = 0;

    for (size_t unit = 0; unit < (size_t)segment->superslab_count * SUPERSLAB_UNITS; unit++) {
        count += unit_free(segment, unit);
    }
    return count << UNIT_LOG2;
}

/* One object: within a SuperSlab anywhere, longer than one from a SuperSlab's beginning on. */
static size_t largest_free(const struct segment *segment)
{
    size_t end = (size_t)segment->superslab_count * SUPERSLAB_UNITS;
    size_t most = 0;

    for (size_t first = 0; first < end; first++) {
        size_t stop = first % SUPERSLAB_UNITS == 0 ? end : round_up(first, SUPERSLAB_UNITS);
        size_t unit = first;
        while (unit < stop && unit_free(segment, unit)) {
            unit++;
        }
        most = max_size(most, unit - first);
    }
    return most << UNIT_LOG2;
}

/* What threads hold of the node that is free: objects in bins and in outboxes, and free objects in
 * slabs that nobody else may take from. */
static size_t really_stranded(struct hak_region *heap, const struct pool *home)
{
    size_t sum = 0;

    for (uint32_t p = 0; p < heap->pool_count; p++) {
        for (uint32_t slot = 0; slot < atomic_load(&heap->pools[p].slots.high); slot++) {
            struct thread *thread = thread_slot(&heap->pools[p], slot);
            if (atomic_load(&thread->state) == THREAD_FREE) {
                continue;
            }
            sum += atomic_load(&thread->outboxes[home->index].bytes);
            for (unsigned cls = 1; cls <= CLASS_COUNT && thread->pool == home; cls++) {
                const struct bin *bin = &thread->bins[cls];
                size_t objects = (size_t)(bin->top - bin->low) +
                                 (size_t)bin->depth * thread->caches[cls].magazine_objects;
                for (unsigned n = 0; n < thread->boxes[cls].count; n++) {
                    objects += slab_free_bits(&heap->slabs[thread->boxes[cls].unit[n]]);
                }
                sum += objects * sizeclass_bytes(cls);
            }
        }
    }
    return sum;
}

/* The record of a failure on that segment, against our own figures. */
static void check_figures(const struct hak_error *error, unsigned segment_index)
{
    struct hak_region *heap = hak_region_default();
    const struct pool *pool = &heap->pools[segment_index];

    CHECK_EQ(error->kind, HAK_ERROR_EXHAUSTED);
    CHECK_EQ(error->code, -ENOMEM);
    CHECK_EQ(error->node, pool->segment->node);
    CHECK_EQ(error->free_bytes, count_free(pool->segment));
    CHECK_EQ(error->largest_free_bytes, largest_free(pool->segment));
    CHECK_LE(really_stranded(heap, pool), error->stranded_bytes);
    says(error, "allocation of %zu bytes", error->size_bytes);
    says(error, "failed on node %zu", (size_t)error->node);
    says(error, ": %zu bytes of units free", error->free_bytes);
    says(error, "the largest run %zu", error->largest_free_bytes);
    says(error, "up to %zu more in the hands of threads", error->stranded_bytes);
}

/* ---- every kind of asking -------------------------------------------------------------------- */

static unsigned class_expected(const struct ladder_ask *ask)
{
    if (ask->size > CLASS_BYTES_MAX || ask->alignment > UNIT_BYTES) {
        return 0;
    }
    return sizeclass_of(ask->alignment != 0 ? round_up(ask->size, ask->alignment) : ask->size);
}

TEST(every_kind_of_asking_is_told_in_full)
{
    for (size_t n = 0; n < LADDER_ASKS; n++) {
        const struct ladder_ask *ask = &ladder_asks[n];
        kit_open(LADDER_BYTES);
        ladder_fill(ask, ladder_node(0), true);
        CHECK_EQ(ladder_get(ask, ladder_node(0)), 0);
        struct hak_error error = last();
        check_figures(&error, 0);
        CHECK_EQ(error.size_bytes, ask->size);
        CHECK_EQ(error.alignment, ask->alignment);
        CHECK_EQ(error.size_class, class_expected(ask));
        CHECK_EQ(error.free_bytes, 0);
        CHECK_EQ(error.stranded_bytes, 0);
        CHECK_STR_HAS(error.remedy, "export HAKMEM_REGION_SIZE=");
        if (error.size_class != 0) {
            says(&error, "of %zu bytes)", sizeclass_bytes(error.size_class));
        } else {
            CHECK(strstr(error.message, "class") == NULL);
        }
        if (ask->alignment != 0) {
            says(&error, "aligned to %zu", ask->alignment);
        }
        ladder_empty();
        kit_close();
    }
}

/* ---- holes of all kinds ---------------------------------------------------------------------- */

#define PIECES 200

/* Holes where objects of random lengths were. */
static size_t make_holes(uint64_t *random, void *held[PIECES])
{
    size_t count = 0, left = 0;

    for (unsigned misses = 0; misses < 20 && count < PIECES;) {
        size_t size = (1 + harness_random(random) % 80) << UNIT_LOG2;
        held[count] = harness_random(random) % 2 == 0
                          ? hak_malloc(max_size(size, CLASS_BYTES_MAX + 1))
                          : hak_aligned_alloc(LADDER_UNIT_ALIGNMENT, size % MIB + 1);
        misses += held[count] == NULL;
        count += held[count] != NULL;
    }
    for (size_t n = 0; n < count; n++) {
        if (harness_random(random) % 3 == 0) {
            hak_free(held[n]);
        } else {
            held[left++] = held[n];
        }
    }
    return left;
}

TEST(the_largest_that_it_says_would_fit_does_and_nothing_larger)
{
    void *held[PIECES];
    uint64_t random = harness_seed();

    for (unsigned round = 0; round < 300; round++) {
        kit_open(16 * MIB);
        size_t count = make_holes(&random, held);
        CHECK(hak_malloc(16 * MIB) == NULL);
        struct hak_error error = last();
        check_figures(&error, 0);
        size_t largest = error.largest_free_bytes;
        CHECK(hak_malloc(largest + 1) == NULL);
        unsigned char *object = largest != 0 ? hak_malloc(largest) : NULL;
        CHECK_EQ(object != NULL, largest != 0);
        if (object != NULL) {
            memset(object, 1, largest);
        }
        hak_free(object);
        hak_free_bulk(held, count);
        kit_close();
    }
}

TEST(it_says_which_way_of_having_no_room_it_is)
{
    static const char one_piece[] = "Enough is free, but not in one piece";
    static const char too_large[] = "cannot be larger than a node's part of the region";
    static const char misplaced[] = "Enough is free, but not where the alignment asks for it";
    void *pieces[8];

    kit_open(LADDER_BYTES);
    CHECK(hak_malloc(LADDER_BYTES + 1) == NULL);
    CHECK_STR_HAS(last().message, too_large);
    for (unsigned n = 0; n < 8; n++) {
        pieces[n] = hak_malloc(MIB);
        CHECK(pieces[n] != NULL);
    }
    for (unsigned n = 0; n < 8; n += 2) {
        hak_free((char *)hak_region_default()->area.base + n * MIB);
    }
    CHECK(hak_malloc(3 * MIB) == NULL);
    CHECK_STR_HAS(last().message, one_piece);
    CHECK(hak_malloc(5 * MIB) == NULL); /* and this would not fit in pieces either */
    CHECK(strstr(last().message, "Enough") == NULL);
    for (unsigned n = 1; n < 8; n += 2) {
        hak_free((char *)hak_region_default()->area.base + n * MIB);
    }
    /* Free from the second unit of each SuperSlab on. */
    for (unsigned n = 0; n < 4; n++) {
        pieces[n] = hak_aligned_alloc(2 * MIB, UNIT_BYTES);
        CHECK(pieces[n] != NULL);
    }
    CHECK(hak_aligned_alloc(2 * MIB, MIB) == NULL);
    CHECK_STR_HAS(last().message, misplaced);
    hak_free_bulk(pieces, 4);
    /* Every second unit: four together for the largest class are not to be had. */
    static void *odd[64];
    for (unsigned n = 0; n < 64; n++) {
        odd[n] = hak_aligned_alloc(LADDER_UNIT_ALIGNMENT, UNIT_BYTES);
        CHECK(odd[n] != NULL);
    }
    CHECK(hak_malloc(150000) == NULL);
    CHECK_STR_HAS(last().message, one_piece);
    kit_forget_last();
}

/* ---- what threads hold ----------------------------------------------------------------------- */

#define HOLDERS 4

static pthread_barrier_t barrier;

/* Caches, magazines, boxes and an outbox, in the hands of a thread at work. */
static void *hold(void *argument)
{
    static const size_t sizes[] = {16, 100, 1000, 3000, 20000};
    void *some[200];
    int processor = *(const int *)argument;

    if (processor >= 0) {
        CHECK_EQ(hak_thread_pin(processor), 0);
    }
    for (unsigned n = 0; n < sizeof sizes / sizeof *sizes; n++) {
        size_t count = min_size(200, 100000 / sizes[n]);
        CHECK_EQ(hak_malloc_bulk(sizes[n], count, some), count);
        hak_free_bulk(some, count);
    }
    if (processor >= 0) {
        for (unsigned n = 0; n < 20; n++) { /* of the other node */
            some[n] = hak_malloc_on_node(3000, 1 - processor);
            CHECK(some[n] != NULL);
        }
        hak_free_bulk(some, 20);
    }
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier);
    return NULL;
}

static void *look_at_held(void *argument)
{
    unsigned nodes = *(const unsigned *)argument;
    struct hak_region *heap = hak_region_default();
    pthread_t threads[HOLDERS];
    int processors[HOLDERS];

    if (nodes == 2) {
        CHECK_EQ(hak_thread_pin(0), 0);
    }
    CHECK_EQ(pthread_barrier_init(&barrier, NULL, HOLDERS + 1), 0);
    for (int n = 0; n < HOLDERS; n++) {
        processors[n] = nodes == 2 ? n % 2 : -1;
        threads[n] = kit_thread(hold, &processors[n]);
    }
    pthread_barrier_wait(&barrier);
    for (unsigned node = 0; node < nodes; node++) {
        CHECK(hak_malloc_on_node(heap->area.bytes / nodes, ladder_node(node)) == NULL);
        struct hak_error error = last();
        check_figures(&error, node);
        size_t held = really_stranded(heap, &heap->pools[node]);
        CHECK_GE(held, 1000);
        CHECK_LE(held, error.stranded_bytes);
        /* A bound, and no loose one: below 3 % of the node, and what outboxes hold. */
        CHECK_LE(error.stranded_bytes, heap->area.bytes / nodes / 100 * 3 + 2 * 20 * 3072);
        CHECK_STR_HAS(error.message, "hak_thread_idle");
    }
    pthread_barrier_wait(&barrier);
    for (unsigned n = 0; n < HOLDERS; n++) {
        kit_join(threads[n]);
    }
    pthread_barrier_destroy(&barrier);
    CHECK(hak_malloc(heap->area.bytes + 1) == NULL);
    CHECK_EQ(last().stranded_bytes, 0);
    return NULL;
}

TEST(what_threads_hold_is_bounded)
{
    unsigned nodes = 1;

    kit_open(16 * MIB);
    kit_elsewhere(look_at_held, &nodes);
    kit_close();
    if (pin_cpu_count() < 2) {
        SKIP("one processor: threads cannot be on two nodes");
    }
    nodes = 2;
    kit_open_two_nodes(32 * MIB, HAK_EXHAUSTED_FAIL);
    kit_elsewhere(look_at_held, &nodes);
    kit_close();
}

/* ---- the remedy ------------------------------------------------------------------------------ */

static size_t advised(void)
{
    static const char before[] = "export HAKMEM_REGION_SIZE=";
    struct hak_error error = last();
    const char *number = strstr(error.remedy, before);

    CHECK(number != NULL);
    CHECK_STR_HAS(number, "M ");
    return strtoul(number + sizeof before - 1, NULL, 10) << 20;
}

/* As much in use as the smaller region had in all. */
static void use_as_much(const struct ladder_ask *ask)
{
    size_t used = (5 + 27 + ask->hole_units) << UNIT_LOG2;

    ladder.fill_count = 0;
    ladder.growing = hak_malloc(300 * KIB);
    CHECK(ladder.growing != NULL);
    memset(ladder.growing, 0x5a, 300 * KIB);
    ladder_keep(hak_malloc(27 * UNIT_BYTES));
    ladder.hole = ladder_hole(ask, ladder_node(0), true);
    CHECK(ladder.hole != NULL);
    for (; used + MIB <= LADDER_BYTES; used += MIB) {
        ladder_keep(hak_malloc(MIB));
    }
    for (; used < LADDER_BYTES; used += UNIT_BYTES) {
        ladder_keep(hak_aligned_alloc(LADDER_UNIT_ALIGNMENT, UNIT_BYTES));
    }
}

/* The same once more in a region as large as advised: now there is room. */
TEST(in_a_region_of_the_advised_size_there_is_room)
{
    static const struct ladder_ask far = {"far", BY_ALIGNED, 100, 256 * MIB, 1};

    for (size_t n = 0; n <= LADDER_ASKS; n++) {
        const struct ladder_ask *ask = n < LADDER_ASKS ? &ladder_asks[n] : &far;
        struct ladder_ask hole = *ask;
        hole.alignment = ask == &far ? 0 : ask->alignment;
        kit_open(LADDER_BYTES);
        ladder_fill(&hole, ladder_node(0), true);
        CHECK_EQ(ladder_get(ask, ladder_node(0)), 0);
        size_t bytes = advised();
        CHECK_GE(bytes, LADDER_BYTES + LADDER_BYTES / 4);
        ladder_empty();
        kit_close();
        struct hak_config config = kit_config(bytes);
        config.prefault = HAK_OFF;
        kit_start(&config);
        use_as_much(&hole);
        size_t got = ladder_get(ask, ladder_node(0));
        if (got != ladder_wanted(ask)) {
            FAIL("%s: not in %zu MiB: %s", ask->name, bytes / MIB, last().message);
        }
        ladder_use(ask, 0);
        ladder_empty();
        kit_close();
    }
}

TEST(what_no_region_could_hold_has_no_remedy)
{
    kit_open(LADDER_BYTES);
    CHECK(hak_malloc(PTRDIFF_MAX - 4096) == NULL);
    struct hak_error error = last();
    CHECK_EQ(error.kind, HAK_ERROR_EXHAUSTED);
    CHECK_EQ(error.remedy[0], '\0');
    CHECK_STR_HAS(error.message, "No region can be large enough");
    CHECK(hak_malloc(HAK_REGION_BYTES_MAX) == NULL); /* on top of what there is */
    CHECK_EQ(last().remedy[0], '\0');
    kit_close();
}

/* ---- handles --------------------------------------------------------------------------------- */

TEST(a_handles_failure_names_its_region_and_an_adopted_one_asks_for_memory)
{
    static _Alignas(2 << 20) unsigned char memory[4 << 20];
    struct hak_config config = kit_config(2 * MIB);
    hak_region *region = NULL;

    kit_open(2 * MIB);
    CHECK_EQ(hak_region_create(&config, &region), 0);
    CHECK(hak_region_malloc(region, 3 * MIB) == NULL);
    struct hak_error error = last();
    CHECK_STR_HAS(error.message, " of region 1:");
    CHECK_STR_HAS(error.remedy, "hak_config.size_bytes");
    CHECK_EQ(error.free_bytes, 2 * MIB);
    CHECK_EQ(hak_region_destroy(region), 0);
    CHECK_EQ(last().size_bytes, 3 * MIB); /* the thread's, not the region's */

    CHECK_EQ(hak_region_adopt(memory, sizeof memory, -1, NULL, &region, NULL), 0);
    CHECK(hak_region_malloc(region, 5 * MIB) == NULL);
    error = last();
    CHECK_EQ(error.free_bytes, 4 * MIB);
    CHECK_EQ(error.largest_free_bytes, 4 * MIB);
    CHECK_STR_HAS(error.message, "hak_region_adopt");
    CHECK_EQ(error.remedy[0], '\0'); /* no setting helps */
    CHECK_EQ(hak_region_destroy(region), 0);
    CHECK(hak_malloc(3 * MIB) == NULL);
    CHECK(strstr(last().message, "of region") == NULL);
    kit_close();
}

static void *fail_on_0(void *unused)
{
    struct hak_error error;

    CHECK_EQ(hak_thread_pin(0), 0);
    void *whole = hak_malloc_on_node(LADDER_BYTES, ladder_node(0));
    CHECK(whole != NULL);
    CHECK(hak_malloc(100) == NULL);
    error = last();
    check_figures(&error, 0);
    says(&error, "other nodes have %zu bytes of units free", LADDER_BYTES);
    CHECK_STR_HAS(error.message, "HAKMEM_EXHAUSTED=any-node");
    hak_free(whole);
    return unused;
}

TEST(that_other_nodes_have_room_is_told_where_the_policy_forbids_it)
{
    if (pin_cpu_count() < 2) {
        SKIP("one processor: threads cannot be on two nodes");
    }
    kit_open_two_nodes(2 * LADDER_BYTES, HAK_EXHAUSTED_FAIL);
    kit_elsewhere(fail_on_0, NULL);
    kit_close();
}

/* ---- whose record ---------------------------------------------------------------------------- */

static void *look_elsewhere(void *unused)
{
    struct hak_error error;

    (void)hak_last_error(&error);
    CHECK(error.size_bytes != 12345 && error.kind != HAK_ERROR_EXHAUSTED);
    return unused;
}

/* Without a slot of its own, a thread has its own record, with all that others' have. */
static void *fail_as_stray(void *argument)
{
    struct hak_region *heap = hak_region_default();
    size_t *taken = argument, count = 0;
    struct hak_error error;

    while ((taken[count] = bitset_claim(&heap->pools[0].slots.free, 0)) != BITSET_NONE) {
        count++;
    }
    void *whole = hak_malloc(LADDER_BYTES);
    CHECK(whole != NULL);
    uint64_t before = kit_stats().exhausted;
    CHECK(hak_malloc(12345) == NULL);
    CHECK_EQ(errno, ENOMEM);
    error = last();
    check_figures(&error, 0);
    CHECK_EQ(error.size_bytes, 12345);
    CHECK_EQ(error.size_class, sizeclass_of(12345));
    CHECK(hak_aligned_alloc(MIB, 12345) == NULL);
    error = last();
    CHECK_EQ(error.alignment, MIB);
    CHECK_EQ(error.size_class, 0);
    CHECK_EQ(kit_stats().exhausted, before + 2);
    kit_elsewhere(look_elsewhere, NULL);
    hak_free(whole);
    while (count > 0) {
        (void)bitset_set(&heap->pools[0].slots.free, taken[--count]);
    }
    return NULL;
}

TEST(a_thread_without_a_slot_has_a_record_of_its_own)
{
    static size_t taken[THREAD_SLOTS_MAX];

    kit_open(LADDER_BYTES);
    kit_elsewhere(fail_as_stray, taken);
    kit_close();
}

TEST(without_a_region_it_says_so_and_a_record_outlives_its_region)
{
    kit_open(LADDER_BYTES);
    CHECK(hak_malloc(LADDER_BYTES + 1) == NULL);
    kit_forget_last();
    struct hak_error error = last();
    CHECK_EQ(error.kind, HAK_ERROR_EXHAUSTED);
    CHECK_EQ(error.size_bytes, LADDER_BYTES + 1);
    errno = 0;
    CHECK(hak_aligned_alloc(64, 1000) == NULL);
    CHECK_EQ(errno, ENOMEM);
    error = last();
    CHECK_EQ(error.kind, HAK_ERROR_NO_REGION);
    CHECK_EQ(error.code, -ENOMEM);
    CHECK_EQ(error.size_bytes, 1000);
    CHECK_EQ(error.alignment, 64);
    CHECK_EQ(error.node, -1);
    CHECK_STR_HAS(error.message, "hak_region_init");
    errno = EIO;
    hak_free(&error);
    CHECK_EQ(errno, EIO);
    error = last();
    CHECK_EQ(error.kind, HAK_ERROR_NO_REGION);
    CHECK_EQ(error.code, -ENODEV);
    CHECK_STR_HAS(error.message, "free");
    kit_elsewhere(look_elsewhere, NULL);
}

TEST(a_product_that_overflows_is_told)
{
    static volatile size_t half = SIZE_MAX / 2;

    kit_open(LADDER_BYTES);
    CHECK(hak_calloc(half, 3) == NULL);
    CHECK_EQ(errno, ENOMEM);
    struct hak_error error = last();
    CHECK_EQ(error.kind, HAK_ERROR_ARGUMENT);
    CHECK_EQ(error.code, -ENOMEM);
    CHECK_EQ(error.size_bytes, SIZE_MAX);
    CHECK_EQ(error.node, -1);
    CHECK_STR_HAS(error.message, "overflows");
    CHECK_EQ(kit_stats().exhausted, 0);
    kit_close();
}

HARNESS_MAIN()
