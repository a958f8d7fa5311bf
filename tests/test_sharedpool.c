/* SPDX-License-Identifier: MIT */
/*
 * A slab's life in the shared pool: which state follows which act, what is published when, who may
 * decide, and that an empty slab's units are everybody's at once.
 */
#include "alloc/sharedpool.h"

#include "alloc/refill.h"
#include "region/units.h"
#include "tests/heap_kit.h"

#include <sys/time.h>

/* 1,024 bytes: 64 objects in one unit, so a batch can empty a slab. */
#define CLASS_64 20
#define THREADS 4

/* A slab of the class that we own, and what was taken out of it. */
struct held {
    struct hak_region *heap;
    struct pool *pool;
    struct thread *thread;
    unit_t unit;
    void *objects[SLAB_WORDS * 64];
    unsigned taken;
};

static struct held held;

static uint64_t head_of(unit_t unit)
{
    return atomic_load(&held.heap->slabs[unit].head);
}

static bool published(unsigned cls, unit_t unit)
{
    return bitset_test(&held.pool->partial[cls], unit - held.pool->first_unit);
}

static uint64_t free_units(void)
{
    return atomic_load(&held.pool->segment->free_unit_count);
}

static void open_pool(void)
{
    held.heap = kit_open(16 * MIB);
    held.pool = &held.heap->pools[0];
    held.thread = thread_current(held.heap);
    CHECK(held.thread != NULL);
}

static void take(unsigned count)
{
    unsigned cursor = 0;

    for (held.taken = 0; held.taken < count;) {
        unsigned got = slab_take_owner(&held.heap->slabs[held.unit], &cursor,
                                       region_address(&held.heap->area, held.unit),
                                       count - held.taken, held.objects + held.taken);
        CHECK(got > 0);
        held.taken += got;
    }
}

/* Opens a slab of the class and takes so many objects out of it. */
static void own(unsigned cls, unsigned count)
{
    held.unit = sharedpool_acquire_fresh(held.pool, cls);
    CHECK(held.unit != UNIT_NONE);
    take(count);
}

static void put(unsigned first, unsigned count)
{
    for (unsigned n = 0; n < count; n += MAGAZINE_OBJECTS) {
        unsigned part = (unsigned)min_size(MAGAZINE_OBJECTS, count - n);
        sharedpool_release(held.thread, CLASS_NONE, held.objects + first + n, part);
    }
}

static void check_state(enum slab_state state, unsigned free_objects)
{
    CHECK_EQ(head_state(head_of(held.unit)), state);
    if (state != SLAB_FREE) {
        CHECK_EQ(slab_free_bits(&held.heap->slabs[held.unit]), free_objects);
    }
}

TEST(a_fresh_slab_is_owned_full_of_objects_and_of_its_class)
{
    open_pool();
    for (unsigned cls = 1; cls <= CLASS_COUNT; cls++) {
        uint64_t before = free_units();
        unsigned units = sizeclasses[cls].unit_count;
        own(cls, 0);
        check_state(SLAB_OWNED, sizeclass_capacity(cls, units));
        CHECK_EQ(head_class(head_of(held.unit)), cls);
        CHECK_EQ(free_units(), before - units);
        for (unsigned n = 0; n < units; n++) {
            CHECK_EQ(heap_class(held.heap, held.unit + n), cls);
            CHECK_EQ(heap_slab_head(held.heap, held.unit + n), held.unit);
        }
        CHECK(!published(cls, held.unit));
        sharedpool_give_up(held.thread, held.unit);
        check_state(SLAB_FREE, 0);
        CHECK_EQ(free_units(), before);
        CHECK_EQ(heap_class(held.heap, held.unit), CLASS_NONE);
    }
    kit_close();
}

TEST(a_slab_given_up_with_room_is_published_and_claimed_once)
{
    open_pool();
    own(CLASS_64, 10);
    sharedpool_give_up(held.thread, held.unit);
    check_state(SLAB_PARTIAL, 54);
    CHECK(published(CLASS_64, held.unit));
    CHECK(heap_check(held.heap));
    CHECK_EQ(sharedpool_acquire_partial(held.pool, CLASS_64 + 1), UNIT_NONE);
    CHECK_EQ(sharedpool_acquire_partial(held.pool, CLASS_64), held.unit);
    check_state(SLAB_OWNED, 54);
    CHECK(!published(CLASS_64, held.unit));
    CHECK_EQ(sharedpool_acquire_partial(held.pool, CLASS_64), UNIT_NONE);
    CHECK(!sharedpool_claim(held.pool, CLASS_64, held.unit));
    put(0, 10);
    check_state(SLAB_OWNED, 64); /* the owner decides, not who frees */
    sharedpool_give_up(held.thread, held.unit);
    kit_close();
}

TEST(a_slab_given_up_full_is_published_by_the_first_free)
{
    open_pool();
    own(CLASS_64, 64);
    sharedpool_give_up(held.thread, held.unit);
    check_state(SLAB_FULL, 0);
    CHECK(!published(CLASS_64, held.unit));
    CHECK_EQ(sharedpool_acquire_partial(held.pool, CLASS_64), UNIT_NONE);
    CHECK(heap_check(held.heap));
    put(0, 1);
    check_state(SLAB_PARTIAL, 1);
    CHECK(published(CLASS_64, held.unit));
    put(1, 30);
    check_state(SLAB_PARTIAL, 31);
    CHECK(heap_check(held.heap));
    uint64_t before = free_units();
    put(31, 33);
    check_state(SLAB_FREE, 0);
    CHECK(!published(CLASS_64, held.unit));
    CHECK_EQ(heap_class(held.heap, held.unit), CLASS_NONE);
    CHECK_EQ(free_units(), before + 1);
    CHECK_EQ(kit_stats().slabs_recycled, 1);
    kit_close();
}

TEST(one_batch_can_empty_a_full_slab)
{
    open_pool();
    own(CLASS_64, 64);
    sharedpool_give_up(held.thread, held.unit);
    uint64_t before = free_units();
    put(0, 64);
    check_state(SLAB_FREE, 0);
    CHECK_EQ(free_units(), before + 1);
    CHECK(!published(CLASS_64, held.unit));
    kit_close();
}

TEST(frees_into_an_owned_slab_change_nothing_until_it_is_given_up)
{
    open_pool();
    own(CLASS_64, 40);
    check_state(SLAB_OWNED, 24);
    put(0, 15);
    check_state(SLAB_OWNED, 39);
    CHECK(!published(CLASS_64, held.unit));
    sharedpool_give_up(held.thread, held.unit);
    check_state(SLAB_PARTIAL, 39);
    put(15, 24);
    check_state(SLAB_PARTIAL, 63);
    put(39, 1);
    check_state(SLAB_FREE, 0);

    own(CLASS_64, 64);
    put(0, 64);
    uint64_t before = free_units();
    sharedpool_give_up(held.thread, held.unit);
    check_state(SLAB_FREE, 0); /* empty when given up */
    CHECK_EQ(free_units(), before + 1);
    kit_close();
}

TEST(the_slab_at_the_lowest_address_is_taken_first)
{
    unit_t units[6];

    open_pool();
    for (unsigned n = 0; n < 6; n++) {
        own(CLASS_64, 1);
        units[n] = held.unit;
    }
    for (unsigned n = 6; n-- > 0;) {
        sharedpool_give_up(held.thread, units[n]);
    }
    for (unsigned n = 0; n < 6; n++) {
        held.unit = sharedpool_acquire_partial(held.pool, CLASS_64);
        CHECK_EQ(held.unit, units[n]);
        void *object = region_address(&held.heap->area, held.unit);
        sharedpool_release(held.thread, CLASS_64, &object, 1);
        sharedpool_give_up(held.thread, held.unit);
    }
    kit_close();
}

TEST(a_batch_of_many_slabs_and_classes_settles_each_of_them)
{
    static const unsigned classes[] = {1, 4, CLASS_64, 28, 36};
    void *batch[MAGAZINE_OBJECTS];
    unsigned count = 0;

    open_pool();
    uint64_t before = free_units();
    for (unsigned n = 0; n < 5; n++) {
        for (unsigned slab = 0; slab < 4; slab++) {
            own(classes[n], 3);
            sharedpool_give_up(held.thread, held.unit);
            memcpy(batch + count, held.objects, 3 * sizeof(void *));
            count += 3;
        }
    }
    CHECK(free_units() < before);
    CHECK(heap_check(held.heap));
    uint64_t random = harness_seed();
    for (unsigned n = count; n > 1; n--) {
        unsigned other = (unsigned)(harness_random(&random) % n);
        void *swapped = batch[n - 1];
        batch[n - 1] = batch[other];
        batch[other] = swapped;
    }
    sharedpool_release(held.thread, CLASS_NONE, batch, count);
    CHECK_EQ(free_units(), before);
    CHECK_EQ(kit_stats().slabs_recycled, 20);
    kit_close();
}

/* ---- leftovers ------------------------------------------------------------------------------- */

static void announce(unsigned cls, unit_t unit)
{
    bitset_set(&held.pool->partial[cls], unit - held.pool->first_unit);
}

/* A publisher that was stopped between state and bit sets the bit when the slab has moved on. */
TEST(a_published_bit_that_outlived_its_slab_is_dropped)
{
    open_pool();
    own(CLASS_64, 1); /* OWNED, of the class */
    announce(CLASS_64, held.unit);
    CHECK_EQ(sharedpool_acquire_partial(held.pool, CLASS_64), UNIT_NONE);
    CHECK(!published(CLASS_64, held.unit));
    check_state(SLAB_OWNED, 63);

    announce(CLASS_64 + 1, held.unit); /* of another class */
    sharedpool_give_up(held.thread, held.unit);
    CHECK_EQ(sharedpool_acquire_partial(held.pool, CLASS_64 + 1), UNIT_NONE);
    CHECK(!published(CLASS_64 + 1, held.unit));
    check_state(SLAB_PARTIAL, 63);

    announce(CLASS_64, held.unit + 5); /* free units */
    CHECK_EQ(sharedpool_acquire_partial(held.pool, CLASS_64), held.unit);
    CHECK_EQ(sharedpool_acquire_partial(held.pool, CLASS_64), UNIT_NONE);
    CHECK(!published(CLASS_64, held.unit + 5));
    sharedpool_give_up(held.thread, held.unit);

    put(0, 1);
    announce(CLASS_64, held.unit); /* its own units, free again */
    CHECK_EQ(sharedpool_acquire_partial(held.pool, CLASS_64), UNIT_NONE);
    own(CLASS_64, 2); /* the units' next life is published as ever */
    sharedpool_give_up(held.thread, held.unit);
    CHECK_EQ(sharedpool_acquire_partial(held.pool, CLASS_64), held.unit);
    sharedpool_give_up(held.thread, held.unit);
    put(0, 2);
    kit_close();
}

/* ---- recycling ------------------------------------------------------------------------------- */

/* Fills the region with objects of a size; how many. They are chained through their first word. */
static size_t fill(size_t size, void **chain)
{
    size_t count = 0;
    void **object;

    *chain = NULL;
    while ((object = hak_malloc(size)) != NULL) {
        *object = *chain;
        *chain = object;
        count++;
    }
    CHECK_EQ(errno, ENOMEM);
    return count;
}

static void free_chain(void *chain)
{
    while (chain != NULL) {
        void *next = *(void **)chain;
        hak_free(chain);
        chain = next;
    }
}

TEST(what_one_class_freed_every_other_class_and_large_objects_have)
{
    struct hak_region *heap = kit_open(16 * MIB);
    void *chain;

    for (unsigned n = 0; n < 2 * CLASS_COUNT; n++) {
        unsigned cls = n < CLASS_COUNT ? n + 1 : 2 * CLASS_COUNT - n;
        size_t count = fill(sizeclass_bytes(cls), &chain);
        CHECK_GE(count * sizeclass_bytes(cls) * 100, heap->area.bytes * 93);
        free_chain(chain);
        void *nearly_all = hak_malloc(heap->area.bytes / 100 * 95);
        CHECK(nearly_all != NULL);
        hak_free(nearly_all);
    }
    kit_close();
}

TEST(units_come_back_with_the_batch_that_empties_a_slab_not_later)
{
    void *objects[64];

    open_pool();
    own(CLASS_64, 64);
    memcpy(objects, held.objects, sizeof(objects));
    sharedpool_give_up(held.thread, held.unit);
    /* The rest of the region is one large object. */
    unit_t rest = held.unit;
    while (units_acquire(&held.heap->area, held.pool->segment, 1, UNIT_BYTES, NULL) != UNIT_NONE) {
    }
    CHECK_EQ(sharedpool_acquire_fresh(held.pool, 4), UNIT_NONE);
    put(0, 64);
    CHECK_EQ(sharedpool_acquire_fresh(held.pool, 4), rest);
    kit_forget_last();
}

TEST(where_no_long_run_is_free_a_shorter_slab_serves)
{
    unsigned cls = CLASS_COUNT; /* 256 KiB; its slab wishes for more than the 4 units it needs */
    unsigned least = sizeclass_least_units(cls);

    CHECK(least < sizeclasses[cls].unit_count);
    open_pool();
    unit_t all = (unit_t)held.pool->unit_count;
    while (units_acquire(&held.heap->area, held.pool->segment, 1, UNIT_BYTES, NULL) != UNIT_NONE) {
    }
    CHECK_EQ(sharedpool_acquire_fresh(held.pool, cls), UNIT_NONE);
    units_release(&held.heap->area, all / 2, least);
    held.unit = sharedpool_acquire_fresh(held.pool, cls);
    CHECK_EQ(held.unit, all / 2);
    CHECK_EQ(head_units(head_of(held.unit)), least);
    take(1);
    sharedpool_give_up(held.thread, held.unit);
    check_state(SLAB_FULL, 0);
    put(0, 1);
    check_state(SLAB_FREE, 0);
    CHECK_EQ(free_units(), least);
    kit_forget_last();
}

/* ---- several threads ------------------------------------------------------------------------- */

static _Atomic unsigned char *owners; /* by 1,024 bytes of the region */
static int64_t until_ms;

static void mark(const void *object, unsigned char from, unsigned char to)
{
    size_t index = ((uintptr_t)object - held.heap->area.base) / KIB;

    CHECK_EQ(atomic_exchange(&owners[index], to), from);
}

/* Takes single objects from the pool's slabs and gives batches back, so slabs change state all the
 * time; every object has one owner. */
static void *churn(void *number)
{
    struct thread *thread = thread_current(held.heap);
    uint64_t random = harness_seed() + (uintptr_t)number;
    void *mine[MAGAZINE_OBJECTS];
    unsigned count = 0;

    while (harness_now_ms() < until_ms || count > 0) {
        bool over = harness_now_ms() >= until_ms;
        if (!over && count < MAGAZINE_OBJECTS && harness_random(&random) % 16 != 0) {
            void *object = refill_from_pool(thread, held.pool, CLASS_64);
            CHECK(object != NULL);
            mark(object, 0, (unsigned char)(uintptr_t)number);
            mine[count++] = object;
            continue;
        }
        unsigned back = over ? count : (unsigned)(harness_random(&random) % (count + 1));
        for (unsigned n = count - back; n < count; n++) {
            mark(mine[n], (unsigned char)(uintptr_t)number, 0);
        }
        sharedpool_release(thread, CLASS_64, mine + count - back, back);
        count -= back;
    }
    return NULL;
}

TEST(slabs_change_hands_among_threads_without_losing_an_object)
{
    pthread_t threads[THREADS];

    open_pool();
    owners = calloc(held.heap->area.bytes / KIB, 1);
    until_ms = harness_now_ms() + 1500;
    for (uintptr_t n = 0; n < THREADS; n++) {
        threads[n] = kit_thread(churn, (void *)(n + 1));
    }
    for (unsigned n = 0; n < THREADS; n++) {
        kit_join(threads[n]);
    }
    CHECK_EQ(kit_slabs_in(CLASS_64, SLAB_PARTIAL), 0);
    CHECK_EQ(kit_slabs_in(CLASS_64, SLAB_FULL), 0);
    CHECK_EQ(bitset_count(&held.pool->partial[CLASS_64]), 0);
    free((void *)owners);
    kit_close();
}

/* Objects on their way from those who take to those who free. */
static void *_Atomic ring[64];

#define CLASS_FEW 36 /* 16 KiB, a few to a slab: often full, often empty */

static void *take_all_of_slabs(void *number)
{
    struct thread *thread = thread_current(held.heap);
    size_t at = (uintptr_t)number;

    while (harness_now_ms() < until_ms) {
        unsigned cursor = 0;
        void *mine[64];
        unit_t unit = sharedpool_acquire_partial(held.pool, CLASS_FEW);
        if (unit == UNIT_NONE) {
            unit = sharedpool_acquire_fresh(held.pool, CLASS_FEW);
        }
        CHECK(unit != UNIT_NONE);
        unsigned got = slab_take_owner(&held.heap->slabs[unit], &cursor,
                                       region_address(&held.heap->area, unit), 64, mine);
        sharedpool_give_up(thread, unit);
        for (unsigned n = 0; n < got; n++) {
            void *before = atomic_exchange(&ring[at++ % 64], mine[n]);
            if (before != NULL) {
                sharedpool_release(thread, CLASS_FEW, &before, 1);
            }
        }
    }
    return NULL;
}

static void *free_at_once(void *number)
{
    struct thread *thread = thread_current(held.heap);
    size_t at = (uintptr_t)number;

    while (harness_now_ms() < until_ms) {
        void *object = atomic_exchange(&ring[at++ % 64], NULL);
        if (object != NULL) {
            sharedpool_release(thread, CLASS_FEW, &object, 1);
        }
    }
    return NULL;
}

/* The free that meets the giving up of a full slab: one of the two must publish the room. */
TEST(frees_that_meet_a_slab_being_given_up_hide_no_room)
{
    pthread_t threads[4];

    open_pool();
    until_ms = harness_now_ms() + 1500;
    for (uintptr_t n = 0; n < 4; n++) {
        threads[n] = kit_thread(n % 2 == 0 ? take_all_of_slabs : free_at_once, (void *)(n * 16));
    }
    for (unsigned n = 0; n < 4; n++) {
        kit_join(threads[n]);
    }
    CHECK(heap_check(held.heap)); /* no FULL slab has room, every PARTIAL one is published */
    for (unsigned n = 0; n < 64; n++) {
        void *object = atomic_exchange(&ring[n], NULL);
        if (object != NULL) {
            sharedpool_release(held.thread, CLASS_FEW, &object, 1);
        }
    }
    kit_close();
}

/*
 * The same with a timer's signal that stops the thread wherever it is in giving up; the handler
 * acts as the thread would that frees just then.
 */
static volatile sig_atomic_t armed, fired;

static void free_one_now(int unused)
{
    (void)unused;
    if (armed) {
        armed = 0;
        fired = 1;
        /* NOLINTNEXTLINE(bugprone-signal-handler): no lock, and another thread's counters */
        sharedpool_release(held.heap->stray, CLASS_FEW, held.objects, 1);
    }
}

static void tick_every(long microseconds)
{
    struct itimerval interval = {{0, microseconds}, {0, microseconds}};

    CHECK_EQ(setitimer(ITIMER_REAL, &interval, NULL), 0);
}

TEST(a_free_at_any_moment_of_giving_up_leads_to_publishing)
{
    unsigned met = 0;

    open_pool();
    held.unit = sharedpool_acquire_fresh(held.pool, CLASS_FEW);
    unsigned capacity = slab_free_bits(&held.heap->slabs[held.unit]);
    until_ms = harness_now_ms() + 700;
    signal(SIGALRM, free_one_now);
    tick_every(30);
    while (harness_now_ms() < until_ms) {
        for (unsigned n = 0; n < 100; n++) {
            take(capacity);
            fired = 0;
            armed = 1;
            sharedpool_give_up(held.thread, held.unit);
            armed = 0;
            if (!fired) {
                check_state(SLAB_FULL, 0);
                put(0, 1);
            }
            met += fired != 0;
            check_state(SLAB_PARTIAL, 1);
            CHECK_EQ(sharedpool_acquire_partial(held.pool, CLASS_FEW), held.unit);
            put(1, capacity - 1);
        }
    }
    tick_every(0);
    signal(SIGALRM, SIG_DFL);
    CHECK_GE(met, 10);
    sharedpool_give_up(held.thread, held.unit);
    kit_close();
}

HARNESS_MAIN()
