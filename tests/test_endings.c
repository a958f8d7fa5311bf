/* SPDX-License-Identifier: MIT */
/*
 * Endings: regions that go while their threads do other things, threads that end in frees, and how
 * little stays in the hands of threads that have nothing more to do.
 */
#include "alloc/slab.h"

#include "numa/pin.h"
#include "tests/heap_kit.h"

#define CLASS_KIB 20 /* 1,024 bytes */

static struct kit_turns turns;

/* ---- the end of a region ------------------------------------------------------------------- */

enum ending { END_EXIT, END_IDLE, END_PIN, END_ASK };

struct race {
    enum ending ending;
    unsigned rounds;
};

static hak_region *region;
static _Atomic bool used;

static void use_region(void)
{
    void *objects[200];

    for (size_t size = 16; size <= 2048; size *= 2) {
        for (unsigned n = 0; n < 200; n++) {
            objects[n] = hak_region_malloc(region, size);
            CHECK(objects[n] != NULL);
        }
        hak_region_free_bulk(region, objects, 200);
    }
    CHECK(hak_region_malloc(region, 20 * MIB) == NULL);
}

static void act(enum ending ending)
{
    struct hak_error error;

    switch (ending) {
    case END_EXIT:
        break;
    case END_IDLE:
        hak_thread_idle();
        break;
    case END_PIN: /* to the other node: everything that it has moves */
        CHECK_EQ(hak_thread_pin(pin_cpu_count() > 1 && sched_getcpu() == 0 ? 1 : 0), 0);
        break;
    case END_ASK:
        for (unsigned n = 0; n < 20; n++) {
            CHECK_LE(hak_last_error(&error), 0);
        }
        break;
    }
}

/* From the store on the thread makes no call on the region any more. */
static void *use_and_end(void *ending)
{
    use_region();
    atomic_store(&used, true);
    act(*(enum ending *)ending);
    return NULL;
}

static void race_ends(void *argument)
{
    struct race *race = argument;
    struct hak_config config = kit_config(8 * MIB);
    uint64_t random = 1;

    config.prefault = HAK_OFF;
    topology_fake(2);
    for (unsigned n = 0; n < race->rounds; n++) {
        CHECK_EQ(hak_region_create(&config, &region), 0);
        atomic_store(&used, false);
        pthread_t thread = kit_thread(use_and_end, &race->ending);
        while (!atomic_load(&used)) {
            sched_yield();
        }
        for (uint64_t spins = harness_random(&random) % 4096; spins > 0; spins--) {
            cpu_relax();
        }
        CHECK_EQ(hak_region_destroy(region), 0);
        kit_join(thread);
    }
}

static void race_in_child(enum ending ending, unsigned rounds)
{
    static struct harness_result result;
    struct race race = {ending, rounds};

    kit_forget_last();
    harness_child(race_ends, &race, &result);
    if (result.exit_status != 0) {
        FAIL("exit status %d, signal %d: %s", result.exit_status, result.signal, result.output);
    }
}

TEST(a_region_may_end_while_a_thread_that_used_it_exits)
{
    race_in_child(END_EXIT, 1000);
}

TEST(a_region_may_end_while_a_thread_that_used_it_marks_itself_idle)
{
    race_in_child(END_IDLE, 1000);
}

TEST(a_region_may_end_while_a_thread_that_used_it_moves_to_another_node)
{
    race_in_child(END_PIN, 1000);
}

TEST(a_region_may_end_while_a_thread_that_used_it_asks_for_its_last_error)
{
    race_in_child(END_ASK, 1000);
}

/*
 * The same with the end held up: somebody has entered (alloc/thread.h), so the end waits for it,
 * and the thread's act has to wait for the end. Where the end had not come so far in the time
 * given, an act that did not wait proves nothing; such a round is done again.
 */
static _Atomic bool acted;

static void *use_wait_and_act(void *ending)
{
    use_region();
    kit_done(&turns, 1);
    kit_wait(&turns, 2);
    act(*(enum ending *)ending);
    atomic_store(&acted, true);
    return NULL;
}

static void *destroy(void *unused)
{
    CHECK_EQ(hak_region_destroy(region), 0);
    return unused;
}

/* True where the act was not over before the end was. */
static bool act_waits(enum ending ending)
{
    struct hak_config config = kit_config(8 * MIB);

    config.prefault = HAK_OFF;
    CHECK_EQ(hak_region_create(&config, &region), 0);
    unsigned id = region->id;
    kit_done(&turns, 0);
    atomic_store(&acted, false);
    pthread_t actor = kit_thread(use_wait_and_act, &ending);
    kit_wait(&turns, 1);
    thread_enter();
    pthread_t ender = kit_thread(destroy, NULL);
    while (atomic_load(&heap_all[id]) != NULL) {
        sched_yield();
    }
    usleep(10000);
    kit_done(&turns, 2);
    usleep(20000);
    bool gone = ending == END_EXIT && pthread_tryjoin_np(actor, NULL) == 0;
    bool early = ending == END_EXIT ? gone : atomic_load(&acted);
    thread_leave();
    kit_join(ender);
    if (!gone) {
        kit_join(actor);
    }
    return !early;
}

TEST(what_a_thread_does_to_its_slots_waits_for_a_regions_end)
{
    kit_forget_last();
    topology_fake(2);
    /* The last error is the thread's own and none of a slot's: asking for it has no need to
     * wait. */
    for (enum ending ending = END_EXIT; ending < END_ASK; ending++) {
        bool waits = false;
        for (unsigned n = 0; n < 5 && !waits; n++) {
            waits = act_waits(ending);
        }
        if (!waits) {
            FAIL("ending %u does not wait", ending);
        }
    }
    topology_fake(0);
}

/* ---- a thread that only frees -------------------------------------------------------------- */

/* What the C library may free for a thread after its destructors have run. */
#define LOOSE 32

static void *loose[LOOSE + 1];

static bool bit_is_set(const char *object)
{
    struct hak_region *heap = hak_region_default();
    unit_t slab = kit_slab(object);
    size_t index = (size_t)(object - (char *)region_address(&heap->area, slab)) / 1024;

    return (atomic_load(&heap->slabs[slab].bits[index / 64]) >> (index % 64)) & 1;
}

static void *free_a_few(void *unused)
{
    for (unsigned n = 0; n < LOOSE; n++) {
        CHECK(!bit_is_set(loose[n]));
        hak_free(loose[n]);
        CHECK(bit_is_set(loose[n])); /* in the slab, in nobody's cache */
        CHECK_EQ(kit_stats().threads, 1);
    }
    hak_free(loose[LOOSE]);
    CHECK_EQ(kit_stats().threads, 2); /* that many are no accident: it has a slot now */
    return unused;
}

TEST(a_threads_first_frees_go_to_the_slab_and_take_no_slot)
{
    struct hak_region *heap = kit_open(16 * MIB);

    for (unsigned n = 0; n <= LOOSE; n++) {
        loose[n] = hak_malloc(1024);
        CHECK(loose[n] != NULL);
    }
    kit_elsewhere(free_a_few, NULL);
    CHECK_EQ(kit_stats().threads, 1);
    CHECK_LE(atomic_load(&heap->pools[0].slots.high), 2);
    kit_close();
}

/* ---- what stays in hands ------------------------------------------------------------------- */

#define HOARDERS 12
#define HOARD_MIB 64

static _Atomic unsigned hoarders_ready;

/* Two slabs of each class, and all of it freed again. */
static void *hoard(void *unused)
{
    static _Thread_local void *mine[2 * UNIT_BYTES / 16 + 1];

    for (unsigned cls = 1; cls <= CLASS_COUNT; cls++) {
        size_t bytes = sizeclass_bytes(cls);
        size_t want = 2 * sizeclass_capacity(cls, sizeclasses[cls].unit_count);
        size_t count = 0;
        while (count < want && (mine[count] = hak_malloc(bytes)) != NULL) {
            count++;
        }
        while (count > 0) {
            hak_free(mine[--count]);
        }
    }
    atomic_fetch_add(&hoarders_ready, 1);
    kit_wait(&turns, 1);
    return unused;
}

/* Bytes of slabs that are behind their last object. */
static size_t tail_waste(void)
{
    struct hak_region *heap = hak_region_default();
    size_t waste = 0;

    for (unit_t unit = 0; unit < heap->area.unit_count; unit++) {
        unsigned cls = heap_class(heap, unit);
        if (cls != CLASS_NONE && cls <= CLASS_COUNT && heap_slab_head(heap, unit) == unit) {
            uint64_t head = atomic_load(&heap->slabs[unit].head);
            waste += head_units(head) * UNIT_BYTES - head_capacity(head) * sizeclass_bytes(cls);
        }
    }
    return waste;
}

/* Everything that can be had, in objects of every class; chained through their first word. */
static void *take_everything(size_t *taken)
{
    void *chain = NULL;
    void **object;

    *taken = 0;
    for (unsigned cls = CLASS_COUNT; cls >= 1; cls--) {
        while ((object = hak_malloc(sizeclass_bytes(cls))) != NULL) {
            *object = chain;
            chain = object;
            *taken += sizeclass_bytes(cls);
        }
    }
    return chain;
}

static void check_what_is_stranded(void)
{
    struct hak_region *heap = hak_region_default();
    struct hak_stats stats = kit_stats();
    struct hak_error error;
    size_t taken;

    CHECK_LE(stats.cached_bytes_max + stats.boxed_bytes_max, heap->area.bytes / 100 * 3);
    void *chain = take_everything(&taken);
    CHECK_EQ(hak_last_error(&error), -ENOMEM);
    CHECK_EQ(error.kind, HAK_ERROR_EXHAUSTED);
    CHECK_LE(error.stranded_bytes, heap->area.bytes / 100 * 3);
    stats = kit_stats();
    CHECK_EQ(error.stranded_bytes, stats.cached_bytes_max + stats.boxed_bytes_max);
    size_t missing = heap->area.bytes - taken - tail_waste();
    CHECK_GE(missing, 1); /* they do have something */
    CHECK_LE(missing, error.stranded_bytes);
    while (chain != NULL) {
        void *next = *(void **)chain;
        hak_free(chain);
        chain = next;
    }
}

TEST(many_threads_that_freed_everything_strand_three_percent_at_most)
{
    pthread_t threads[HOARDERS];

    kit_open(HOARD_MIB * MIB);
    kit_done(&turns, 0);
    atomic_store(&hoarders_ready, 0);
    for (unsigned n = 0; n < HOARDERS; n++) {
        threads[n] = kit_thread(hoard, NULL);
    }
    int64_t deadline = harness_now_ms() + 60000;
    while (atomic_load(&hoarders_ready) < HOARDERS) {
        CHECK(harness_now_ms() < deadline);
        sched_yield();
    }
    check_what_is_stranded();
    kit_done(&turns, 1);
    for (unsigned n = 0; n < HOARDERS; n++) {
        kit_join(threads[n]);
    }
    kit_close();
}

/* ---- a thread that is asked ---------------------------------------------------------------- */

#define OF_A_CLASS 2000

static void grow_cache(size_t bytes)
{
    static void *mine[OF_A_CLASS];

    for (unsigned n = 0; n < OF_A_CLASS; n++) {
        mine[n] = hak_malloc(bytes);
        CHECK(mine[n] != NULL);
    }
    hak_free_bulk(mine, OF_A_CLASS);
}

/* Makes the caches of many classes as large as the region allows. */
static void grow_caches(void)
{
    for (unsigned round = 0; round < 10; round++) {
        for (unsigned cls = 1; cls <= CLASS_KIB; cls++) {
            grow_cache(sizeclass_bytes(cls));
        }
    }
}

/* Objects that a call gave back. */
static uint64_t given_since(uint64_t *before)
{
    uint64_t now = kit_stats().flushed_objects;
    uint64_t given = now - *before;

    *before = now;
    return given;
}

static void *answer(void *unused)
{
    grow_caches();
    kit_done(&turns, 1);
    kit_wait(&turns, 2);

    /* Large objects: of itself such a call gives nothing back. */
    uint64_t before = kit_stats().flushed_objects;
    uint64_t sum = 0, most = 0;
    for (unsigned n = 0; n < 1000 && kit_stats().cached_bytes_max > 0; n++) {
        void *object = hak_malloc(300 * KIB);
        CHECK(object != NULL);
        uint64_t given = given_since(&before);
        most = max_size(most, given);
        sum += given;
        hak_free(object);
        given = given_since(&before);
        most = max_size(most, given);
        sum += given;
    }
    CHECK_LE(most, MAGAZINE_OBJECTS);
    CHECK_GE(sum, 4 * MAGAZINE_OBJECTS);       /* it was worth a bound */
    CHECK_EQ(kit_stats().cached_bytes_max, 0); /* and in the end it has answered in full */
    return unused;
}

TEST(an_asked_thread_gives_back_no_more_than_a_magazine_a_call)
{
    struct hak_region *heap = kit_open(64 * MIB);

    kit_done(&turns, 0);
    pthread_t thread = kit_thread(answer, NULL);
    kit_wait(&turns, 1);
    CHECK(hak_malloc(heap->area.bytes) == NULL); /* its slabs are in the way: it is asked */
    CHECK_GE(kit_stats().cached_bytes_max, heap->area.bytes / 400);
    kit_done(&turns, 2);
    kit_join(thread);
    kit_close();
}

HARNESS_MAIN()
