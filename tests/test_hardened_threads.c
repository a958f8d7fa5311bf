/* SPDX-License-Identifier: MIT */
/*
 * A hardened region with many threads: what they free of each other's keeps its contents until
 * then, quarantines go back with their threads, threads without a slot are watched as well, and
 * objects of another node go home.
 */
#include "tests/hardened_kit.h"

#include "numa/pin.h"

/* ---- each other's objects -------------------------------------------------------------------- */

#define THREADS 8
#define BOXES 512
#define ROUNDS 12000

static unsigned char *_Atomic boxes[BOXES];
static bool pins;

static size_t size_of(const unsigned char *object)
{
    size_t size;

    memcpy(&size, object, sizeof(size));
    return size;
}

/* Its size at its beginning; then every byte the same one, made of its address. */
static unsigned char mark_of(const unsigned char *object)
{
    return (unsigned char)((uintptr_t)object >> 4 | 1);
}

static unsigned char *make(uint64_t *random)
{
    size_t most = harness_random(random) % 64 == 0 ? 300 * KIB : 1500;
    size_t size = sizeof(size_t) + harness_random(random) % most;
    unsigned char *object = hard_malloc(size);

    CHECK(object != NULL);
    memcpy(object, &size, sizeof(size));
    memset(object + sizeof(size), mark_of(object), size - sizeof(size));
    return object;
}

static void end(unsigned char *object, uint64_t *random)
{
    if (object == NULL) {
        return;
    }
    size_t size = size_of(object);
    CHECK_EQ(hak_usable_size(object), size);
    for (size_t n = sizeof(size); n < size; n++) {
        if (object[n] != mark_of(object)) {
            FAIL("%zu bytes at %p: byte %zu", size, (void *)object, n);
        }
    }
    if (harness_random(random) % 2 == 0) {
        hak_free(object);
    } else {
        hak_free_sized(object, size);
    }
}

static void *exchange(void *number)
{
    uint64_t random = harness_seed() + (uintptr_t)number;

    if (pins) {
        CHECK_EQ(hak_thread_pin((int)((uintptr_t)number % 2)), 0);
    }
    for (unsigned n = 0; n < ROUNDS; n++) {
        unsigned char *mine = n < ROUNDS / 2 || n % 2 == 0 ? make(&random) : NULL;
        end(atomic_exchange(&boxes[harness_random(&random) % BOXES], mine), &random);
        if (n % 3000 == 2999) {
            hak_thread_idle();
        }
    }
    return NULL;
}

static void exchange_all(void)
{
    pthread_t threads[THREADS];
    uint64_t random = harness_seed();

    for (uintptr_t n = 0; n < THREADS; n++) {
        threads[n] = kit_thread(exchange, (void *)n);
    }
    for (unsigned n = 0; n < THREADS; n++) {
        kit_join(threads[n]);
    }
    CHECK(heap_check(hak_region_default()));
    for (unsigned n = 0; n < BOXES; n++) {
        end(atomic_exchange(&boxes[n], NULL), &random);
    }
}

TEST(threads_that_free_each_others_objects_find_what_was_written)
{
    (void)harness_seed();
    hard_open(128 * MIB, HAK_MISUSE_ABORT);
    exchange_all();
    hard_close(0);
}

static void open_two(size_t bytes, enum hak_misuse policy)
{
    struct hak_config config = kit_config(bytes);

    if (pin_cpu_count() < 2) {
        SKIP("one processor: threads cannot be on two nodes");
    }
    config.misuse = policy;
    config.hardened = HAK_ON;
    kit_forget_last();
    topology_fake(2);
    CHECK_EQ(kit_start(&config)->pool_count, 2);
}

static void *exchange_on_two(void *unused)
{
    pins = true;
    exchange_all();
    pins = false;
    return unused;
}

TEST(objects_of_another_node_are_held_back_and_go_home)
{
    (void)harness_seed();
    open_two(128 * MIB, HAK_MISUSE_ABORT);
    kit_elsewhere(exchange_on_two, NULL);
    CHECK_GE(kit_stats().remote_frees, 1000);
    hard_close(0);
}

static void *objects[1000];

static void *take_on_0(void *unused)
{
    CHECK_EQ(hak_thread_pin(0), 0);
    for (unsigned n = 0; n < 1000; n++) {
        objects[n] = hard_malloc(200);
        CHECK_EQ(kit_segment(objects[n]), 0);
    }
    return unused;
}

static void *free_on_1(void *unused)
{
    CHECK_EQ(hak_thread_pin(1), 0);
    for (unsigned n = 0; n < 1000; n++) {
        hak_free(objects[n]);
        HARD_MISUSE(hak_free(objects[n]), objects[n], SAYS_TWICE);
        void *mine = hard_malloc(200);
        CHECK_EQ(kit_segment(mine), 1); /* never the other node's, whatever this thread freed */
        hak_free(mine);
    }
    return unused;
}

TEST(what_was_freed_of_another_nodes_is_known_to_be_free)
{
    open_two(64 * MIB, HAK_MISUSE_IGNORE);
    kit_elsewhere(take_on_0, NULL);
    kit_elsewhere(free_on_1, NULL);
    hard_close(1000);
}

/* ---- quarantines and threads ----------------------------------------------------------------- */

static void use_some(void)
{
    for (size_t size = 1; size < 9000; size = size * 2 + 1) {
        for (unsigned n = 0; n < 200; n++) {
            objects[n] = hard_malloc(size);
        }
        for (unsigned n = 0; n < 200; n++) {
            hak_free(objects[n]);
        }
    }
}

static void *use_and_exit(void *idle)
{
    use_some();
    CHECK_GE(kit_stats().cached_bytes_max, 1000);
    if (idle != NULL) {
        hak_thread_idle();
    }
    return NULL;
}

TEST(a_quarantine_goes_back_with_its_thread)
{
    hard_open(64 * MIB, HAK_MISUSE_ABORT);
    for (uintptr_t n = 0; n < 50; n++) {
        kit_elsewhere(use_and_exit, (void *)(n % 2));
        CHECK_EQ(kit_stats().cached_bytes_max, 0);
        CHECK_EQ(kit_stats().slab_bytes, 0);
    }
    hard_close(0);
}

static void *take_everything(void *unused)
{
    size_t count = 0;
    void *last = NULL;

    for (void **object; (object = hard_malloc(60000)) != NULL; count++) {
        *object = last;
        last = object;
    }
    while (last != NULL) {
        void *before = *(void **)last;
        hak_free(last);
        last = before;
    }
    CHECK_GE(count, 16 * MIB / 65536 - 8);
    return unused;
}

TEST(what_an_idle_thread_holds_back_can_be_had)
{
    hard_open(16 * MIB, HAK_MISUSE_ABORT);
    use_some();
    CHECK_GE(kit_stats().slab_bytes, 1);
    hak_thread_idle();
    kit_elsewhere(take_everything, NULL);
    CHECK_EQ(kit_stats().cached_bytes_max, 0);
    use_some();
    hard_close(0);
}

/* ---- threads without a slot ------------------------------------------------------------------ */

static pthread_key_t key;

static void misuse_while_exiting(void *value)
{
    unsigned char *object = value;

    CHECK_EQ(hak_usable_size(object), 300);
    hak_free(object);
    HARD_MISUSE(hak_free(object), object, "misuse");
    object = hard_malloc(40);
    CHECK_EQ(hak_usable_size(object), 40);
    hard_change(object + 40, 0);
    HARD_MISUSE(hak_free(object), object, SAYS_OVERFLOW);
    unsigned char *large = hard_malloc(MIB);
    hak_free(large);
    HARD_MISUSE(hak_free(large), large, "misuse");
}

static void *leave_an_object(void *unused)
{
    use_some();
    CHECK_EQ(pthread_setspecific(key, hard_malloc(300)), 0);
    return unused;
}

TEST(frees_in_destructors_of_a_thread_are_watched)
{
    hard_open(64 * MIB, HAK_MISUSE_IGNORE);
    /* After the library's own key: its destructor comes first, and the thread has no slot. */
    use_some();
    CHECK_EQ(pthread_key_create(&key, misuse_while_exiting), 0);
    for (unsigned n = 0; n < 20; n++) {
        kit_elsewhere(leave_an_object, NULL);
    }
    CHECK_EQ(pthread_key_delete(key), 0);
    hard_close(60);
}

static void *work_directly(void *unused)
{
    struct bitset *free_slots = &hak_region_default()->pools[0].slots.free;
    static uint64_t random = 1;
    unsigned char *mine[50];

    CHECK_EQ(bitset_count(free_slots), 0);
    for (unsigned round = 0; round < 20; round++) {
        for (unsigned n = 0; n < 50; n++) {
            mine[n] = make(&random);
        }
        for (unsigned n = 0; n < 50; n++) {
            unsigned char *object = mine[n];
            end(object, &random);
            HARD_MISUSE(hak_free(object), object, "misuse");
        }
    }
    CHECK(thread_self[0].active == &thread_none);
    return unused;
}

TEST(threads_beyond_the_slots_are_watched)
{
    struct hak_region *heap = hard_open(64 * MIB, HAK_MISUSE_IGNORE);
    struct bitset *free_slots = &heap->pools[0].slots.free;
    size_t count = free_slots->bit_count[0];

    thread_detach_all();
    for (size_t n = 0; n < count; n++) {
        CHECK(bitset_clear(free_slots, n));
    }
    kit_elsewhere(work_directly, NULL);
    CHECK_EQ(kit_stats().misuses, 1000);
    for (size_t n = 0; n < count; n++) {
        bitset_set(free_slots, n);
    }
    hard_close(1000);
}

HARNESS_MAIN()
