/* SPDX-License-Identifier: MIT */
/*
 * Everything at once, with contents checked: threads allocate in every way and size, free and
 * resize what others allocated, go idle, exit and are replaced. Each object is filled with a
 * pattern made of its own number and address, which no other owner could have written; it is read
 * back before the object changes hands or goes. Small objects are filled whole, large ones at
 * sampled places.
 *
 * Objects live in slots that any thread may lock; a thread takes a random slot and does to it what
 * comes next. Four cases: one node, two (pretended) nodes, a region so small that it keeps running
 * out, and a hardened one; HAKMEM_HARDENED=1 makes all of them that. At the end all is freed, every
 * room's books are checked, and one object of 95 % of each segment succeeds. Time: STRESS_SECONDS
 * over all cases; SEED repeats the choices.
 */
#include "tests/heap_kit.h"

#define LANES 8
#define SLOTS_MAX 2048
#define BULK_MAX 100
/* Up to here an object's every byte is written and read. */
#define WHOLE_BYTES 4096
#define SAMPLE_STEP 4040 /* no multiple of a page: the places wander over it */

struct slot {
    atomic_flag locked;
    unsigned char *object;
    size_t bytes; /* as asked for; the pattern covers it */
    uint64_t number;
};

static struct {
    struct slot slots[SLOTS_MAX];
    size_t slot_count;
    size_t bytes_max; /* of one object */
    bool pins;        /* threads move between processors, so between nodes */
    int64_t until_ms;
    _Atomic uint64_t numbers, operations, refused, lives;
} stress;

/* Until the time is up, or somebody found something: more of the same would only hide it. */
static bool going(void)
{
    return harness_now_ms() < stress.until_ms &&
           __atomic_load_n(&harness_state.outcome, __ATOMIC_RELAXED) == HARNESS_OK;
}

/* ---- patterns -------------------------------------------------------------------------------- */

static uint64_t pattern(uint64_t number, const unsigned char *at)
{
    uint64_t state = number * 0x2545f4914f6cdd1dU + (uintptr_t)at;

    return harness_random(&state);
}

static void put_word(unsigned char *at, size_t bytes, uint64_t number)
{
    uint64_t word = pattern(number, at);

    memcpy(at, &word, bytes);
}

static void check_word(const unsigned char *at, size_t bytes, uint64_t number,
                       const unsigned char *object)
{
    uint64_t found = 0, expected = 0, word = pattern(number, at);

    memcpy(&expected, &word, bytes);
    memcpy(&found, at, bytes);
    if (found != expected) {
        FAIL("object %p number %llu: at byte %zu there is %016llx, not %016llx",
             (const void *)object, (unsigned long long)number, (size_t)(at - object),
             (unsigned long long)found, (unsigned long long)expected);
    }
}

/* The places of a pattern, one after the other: all words of a small object, of a large one a word
 * every so often and the last. */
static size_t next_place(size_t at, size_t bytes)
{
    if (bytes <= WHOLE_BYTES) {
        return at + 8;
    }
    return at + SAMPLE_STEP + 8 > bytes && at + 16 <= bytes ? bytes - 8 : at + SAMPLE_STEP;
}

static void fill(unsigned char *object, size_t bytes, uint64_t number)
{
    for (size_t at = 0; at < bytes; at = next_place(at, bytes)) {
        put_word(object + at, min_size(8, bytes - at), number);
    }
}

static void verify(const unsigned char *object, size_t bytes, uint64_t number)
{
    for (size_t at = 0; at < bytes; at = next_place(at, bytes)) {
        check_word(object + at, min_size(8, bytes - at), number, object);
    }
}

/* ---- what is done to a slot ------------------------------------------------------------------ */

static size_t random_size(uint64_t *random)
{
    uint64_t dice = harness_random(random) % 1000;
    size_t most = dice < 600 ? 1024 : dice < 880 ? 32 * KIB : dice < 970 ? 256 * KIB : 3 * MIB;

    if (dice >= 998) {
        most = stress.bytes_max;
    }
    return harness_random(random) % min_size(most, stress.bytes_max) + (dice % 50 != 0);
}

/* NULL is right where the region is full; the record must say so. */
static bool got(const void *object)
{
    struct hak_error error;

    if (object != NULL) {
        return true;
    }
    CHECK_EQ(errno, ENOMEM);
    CHECK_EQ(hak_last_error(&error), -ENOMEM);
    CHECK_EQ(error.kind, HAK_ERROR_EXHAUSTED);
    atomic_fetch_add_explicit(&stress.refused, 1, memory_order_relaxed);
    return false;
}

static void keep(struct slot *slot, void *object, size_t bytes)
{
    slot->object = object;
    slot->bytes = bytes;
    slot->number = atomic_fetch_add_explicit(&stress.numbers, 1, memory_order_relaxed) + 1;
    CHECK_EQ((uintptr_t)object % HAK_ALIGNMENT_MIN, 0);
    CHECK_GE(hak_usable_size(object), bytes);
    fill(object, bytes, slot->number);
}

static void check_zeroed(const unsigned char *object, size_t bytes)
{
    size_t step = bytes <= 64 * KIB ? 1 : 509;

    for (size_t at = 0; at < bytes; at += step) {
        if (object[at] != 0) {
            FAIL("calloc: %p of %zu bytes is not zero at byte %zu", (const void *)object, bytes,
                 at);
        }
    }
}

static void *allocate_zeroed(size_t bytes)
{
    void *object = hak_calloc(1, bytes);

    if (object != NULL) {
        check_zeroed(object, bytes);
    }
    return object;
}

static void *allocate_aligned(size_t bytes, uint64_t *random)
{
    size_t alignment = (size_t)1 << (harness_random(random) % 23);
    void *object = hak_aligned_alloc(alignment, bytes);

    CHECK_EQ((uintptr_t)object % alignment, 0);
    return object;
}

static void *allocate_on_node(size_t bytes, uint64_t *random)
{
    const struct hak_region *heap = hak_region_default();
    unsigned segment = (unsigned)(harness_random(random) % heap->pool_count);
    void *object = hak_malloc_on_node(bytes, heap->area.segments[segment].node);

    if (object != NULL) {
        CHECK_EQ(kit_segment(object), segment);
    }
    return object;
}

static void allocate_one(struct slot *slot, uint64_t *random)
{
    size_t bytes = random_size(random);
    uint64_t dice = harness_random(random) % 8;
    void *object = dice == 0   ? allocate_zeroed(bytes)
                   : dice == 1 ? allocate_aligned(bytes, random)
                   : dice == 2 ? allocate_on_node(bytes, random)
                               : hak_malloc(bytes);

    if (got(object)) {
        keep(slot, object, bytes);
    }
}

static void free_one(struct slot *slot, uint64_t *random)
{
    verify(slot->object, slot->bytes, slot->number);
    /* What a stale reader or a second owner would see. */
    memset(slot->object, 0xdd, min_size(slot->bytes, 64));
    if (harness_random(random) % 4 == 0) {
        hak_free_sized(slot->object, slot->bytes);
    } else {
        hak_free(slot->object);
    }
    slot->object = NULL;
}

static void resize_one(struct slot *slot, uint64_t *random)
{
    size_t bytes = random_size(random);
    size_t have = slot->bytes;

    if (harness_random(random) % 2 == 0) {
        bytes = have / 2 + harness_random(random) % (have + 1) + 1;
    }
    bytes = max_size(1, min_size(bytes, stress.bytes_max));
    verify(slot->object, have, slot->number);
    /* The pattern is one of addresses; across a move a plainer one is carried. */
    size_t both = min_size(have, bytes);
    for (size_t at = 0; at < both; at += 251) {
        slot->object[at] = (unsigned char)(slot->number + at);
    }
    unsigned char *moved = hak_realloc(slot->object, bytes);
    if (!got(moved)) {
        for (size_t at = 0; at < both; at += 251) {
            CHECK_EQ(slot->object[at], (unsigned char)(slot->number + at));
        }
        fill(slot->object, have, slot->number);
        return;
    }
    for (size_t at = 0; at < both; at += 251) {
        CHECK_EQ(moved[at], (unsigned char)(slot->number + at));
    }
    keep(slot, moved, bytes);
}

static void bulk(uint64_t *random)
{
    void *objects[BULK_MAX];
    size_t bytes = random_size(random) % (16 * KIB) + 1;
    size_t count = harness_random(random) % BULK_MAX + 1;
    size_t have = hak_malloc_bulk(bytes, count, objects);
    uint64_t number = atomic_fetch_add_explicit(&stress.numbers, 1, memory_order_relaxed) + 1;

    CHECK_LE(have, count);
    if (have < count) {
        got(NULL);
    }
    for (size_t n = 0; n < have; n++) {
        fill(objects[n], bytes, number);
    }
    for (size_t n = 0; n < have; n++) {
        verify(objects[n], bytes, number);
    }
    hak_free_bulk(objects, have);
}

static bool lock(struct slot *slot)
{
    return !atomic_flag_test_and_set_explicit(&slot->locked, memory_order_acquire);
}

static void unlock(struct slot *slot)
{
    atomic_flag_clear_explicit(&slot->locked, memory_order_release);
}

static void operate(uint64_t *random)
{
    struct slot *slot = &stress.slots[harness_random(random) % stress.slot_count];
    uint64_t dice = harness_random(random) % 16;

    if (dice == 0) {
        bulk(random);
    } else if (lock(slot)) {
        if (slot->object == NULL) {
            allocate_one(slot, random);
        } else if (dice < 4) {
            resize_one(slot, random);
        } else {
            free_one(slot, random);
        }
        unlock(slot);
    }
}

/* The region's own last resort: frees what it can lock. It runs inside an allocation. */
static void reclaim(hak_region *region, size_t bytes, void *unused)
{
    uint64_t random = bytes + (uintptr_t)&region;

    (void)unused;
    for (unsigned n = 0; n < 4; n++) {
        struct slot *slot = &stress.slots[harness_random(&random) % stress.slot_count];
        if (lock(slot)) {
            if (slot->object != NULL) {
                free_one(slot, &random);
            }
            unlock(slot);
        }
    }
}

/* ---- threads --------------------------------------------------------------------------------- */

/* One life: some thousand operations, then the thread exits with what it has in its caches. */
static void *live(void *unused)
{
    uint64_t life = atomic_fetch_add_explicit(&stress.lives, 1, memory_order_relaxed);
    uint64_t random = harness_seed() + life * 7919;
    uint64_t length = harness_random(&random) % 4000 + 1;
    uint64_t done = 0;

    (void)unused;
    if (stress.pins) {
        CHECK_EQ(hak_thread_pin((int)(life % 2)), 0);
    }
    for (; done < length && going(); done++) {
        operate(&random);
        uint64_t dice = harness_random(&random) % 1024;
        if (dice == 0) {
            hak_thread_idle();
            sched_yield();
        } else if (dice == 1 && stress.pins) {
            CHECK_EQ(hak_thread_pin((int)(harness_random(&random) % 2)), 0);
        }
    }
    atomic_fetch_add_explicit(&stress.operations, done, memory_order_relaxed);
    return NULL;
}

/* Looks in from outside while all are at work. */
static void look(void)
{
    struct hak_stats stats = kit_stats();

    CHECK_EQ(stats.misuses, 0);
    CHECK_LE(stats.free_bytes, stats.size_bytes);
    CHECK_LE(stats.largest_free_bytes, stats.size_bytes);
}

static void run_lanes(void)
{
    pthread_t lanes[LANES];
    bool more = true;

    for (unsigned n = 0; n < LANES; n++) {
        lanes[n] = kit_thread(live, NULL);
    }
    while (more) {
        for (unsigned n = 0; n < LANES; n++) {
            kit_join(lanes[n]);
            more = going();
            lanes[n] = kit_thread(live, NULL); /* the last of them end at once */
            look();
        }
    }
    for (unsigned n = 0; n < LANES; n++) {
        kit_join(lanes[n]);
    }
}

/* ---- the end --------------------------------------------------------------------------------- */

static void free_all(void)
{
    uint64_t random = 1;

    for (size_t n = 0; n < stress.slot_count; n++) {
        CHECK(lock(&stress.slots[n]));
        if (stress.slots[n].object != NULL) {
            free_one(&stress.slots[n], &random);
        }
        unlock(&stress.slots[n]);
    }
}

static void one_object_of_nearly_all(void)
{
    const struct hak_region *heap = hak_region_default();

    for (uint32_t n = 0; n < heap->area.segment_count; n++) {
        const struct segment *segment = &heap->area.segments[n];
        size_t bytes = (size_t)segment->superslab_count * SUPERSLAB_BYTES / 100 * 95;
        void *object = hak_malloc_on_node(bytes, segment->node);
        CHECK(object != NULL);
        hak_free(object);
    }
}

static void run_stress(size_t slot_count, size_t bytes_max, bool pins)
{
    memset(stress.slots, 0, sizeof(stress.slots));
    stress.slot_count = slot_count;
    stress.bytes_max = bytes_max;
    stress.pins = pins;
    atomic_store(&stress.operations, 0);
    atomic_store(&stress.refused, 0);
    atomic_store(&stress.lives, 0);
    (void)harness_seed();
    stress.until_ms = harness_now_ms() + harness_stress_seconds(5) * 1000 / 4;
    run_lanes();
    if (__atomic_load_n(&harness_state.outcome, __ATOMIC_RELAXED) != HARNESS_OK) {
        harness_leave(HARNESS_FAILED); /* a thread has said why */
    }
    CHECK(heap_check(hak_region_default())); /* with objects alive */
    free_all();
    kit_check_empty();
    one_object_of_nearly_all();
    kit_check_empty();
    printf("  %llu operations, %llu threads, %llu refused\n",
           (unsigned long long)atomic_load(&stress.operations),
           (unsigned long long)atomic_load(&stress.lives),
           (unsigned long long)atomic_load(&stress.refused));
    CHECK_GE(atomic_load(&stress.operations), 100);
}

TEST(contents_survive_threads_that_come_and_go)
{
    kit_open(256 * MIB);
    run_stress(1000, 24 * MIB, false);
    kit_forget_last();
}

TEST(contents_survive_between_two_nodes)
{
    if (sysconf(_SC_NPROCESSORS_ONLN) < 2) {
        SKIP("one processor: two nodes cannot be pretended");
    }
    kit_open_two_nodes(256 * MIB, HAK_EXHAUSTED_ANY_NODE);
    run_stress(1000, 24 * MIB, true);
    kit_forget_last();
}

TEST(contents_survive_a_region_that_keeps_running_out)
{
    kit_open(8 * MIB);
    CHECK_EQ(hak_on_exhausted(NULL, reclaim, NULL), 0);
    run_stress(500, 3 * MIB, false);
    CHECK_GE(kit_stats().exhausted, 1);
    kit_forget_last();
}

/* Its aborts on misuse are what is tried here: none of all that is misuse. */
TEST(contents_survive_in_a_hardened_region)
{
    struct hak_config config = kit_config(64 * MIB);

    config.hardened = HAK_ON;
    kit_forget_last();
    kit_start(&config);
    CHECK_EQ(hak_on_exhausted(NULL, reclaim, NULL), 0);
    run_stress(1000, 8 * MIB, false);
    kit_forget_last();
}

HARNESS_MAIN()
