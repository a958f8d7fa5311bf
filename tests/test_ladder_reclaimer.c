/* SPDX-License-Identifier: MIT */
/*
 * The reclaimer (hak_on_exhausted): when it is called, on which thread, with what behind it; what
 * it may free and do; several at once; and ways out of it that are no return.
 */
#include "tests/ladder_kit.h"

#include <sys/wait.h>

static struct hak_region *heap(void)
{
    return hak_region_default();
}

static struct thread *own_slot(void)
{
    return thread_self[heap()->id].active;
}

/* The cases' reclaimers count here. */
static _Atomic unsigned calls;
static size_t wanted;
static pthread_t called_on;

static void note(hak_region *region, size_t size_bytes, const void *argument)
{
    CHECK(region == heap());
    CHECK(argument == &calls);
    wanted = size_bytes;
    called_on = pthread_self();
    atomic_fetch_add(&calls, 1);
}

static void set(hak_exhausted_fn reclaim)
{
    atomic_store(&calls, 0);
    wanted = 0;
    CHECK_EQ(hak_on_exhausted(NULL, reclaim, reclaim != NULL ? (void *)&calls : NULL), 0);
}

static void finish(void)
{
    set(NULL);
    ladder_empty();
    kit_close();
}

/* A full region of one node; the hole of the ask is an object still. */
static void open_full(const struct ladder_ask *ask)
{
    kit_open(LADDER_BYTES);
    ladder_fill(ask, ladder_node(0), true);
}

static const struct ladder_ask small = {"small", BY_MALLOC, 5000, 0, 1};
static const struct ladder_ask large = {"large", BY_MALLOC, MIB, 0, 16};

/* ---- when and how ---------------------------------------------------------------------------- */

static void free_hole(hak_region *region, size_t size_bytes, void *argument)
{
    note(region, size_bytes, argument);
    ladder_open_hole();
}

TEST(it_is_called_once_before_an_allocation_fails_and_what_it_frees_serves_it)
{
    for (size_t n = 0; n < LADDER_ASKS; n++) {
        const struct ladder_ask *ask = &ladder_asks[n];
        open_full(ask);
        CHECK_EQ(ladder_get(ask, ladder_node(0)), 0); /* not without it */
        ladder_failed(ask, ladder_node(0));
        uint64_t before = kit_stats().exhausted;
        set(free_hole);
        CHECK_EQ(ladder_get(ask, ladder_node(0)), ladder_wanted(ask));
        CHECK_EQ(atomic_load(&calls), 1);
        CHECK(pthread_equal(called_on, pthread_self()));
        CHECK_GE(wanted, ask->size);
        /* Its class's at most. */
        CHECK_LE(wanted, max_size(ask->size + ask->size / 4 + 16, 2 * ask->alignment));
        CHECK_EQ(kit_stats().exhausted, before);
        CHECK_EQ(errno, 0); /* an allocation that succeeds leaves it alone */
        ladder_use(ask, 0);
        finish();
    }
}

/* Held by the thread itself and by one that rests: both are empty when the reclaimer comes. */
static struct thread *resting;
static size_t seen_cached, seen_boxed, seen_slabs;

static void look_around(hak_region *region, size_t size_bytes, void *argument)
{
    note(region, size_bytes, argument);
    seen_cached = atomic_load(&heap()->pools[0].cached_bytes);
    seen_boxed = atomic_load(&heap()->pools[0].boxed_bytes);
    seen_slabs = kit_stats().slab_bytes;
    CHECK_EQ(atomic_load(&resting->state), THREAD_IDLE);
}

static struct kit_turns turns;

static void *rest(void *unused)
{
    hak_free(hak_malloc(2000));
    resting = own_slot();
    hak_thread_idle();
    kit_done(&turns, 1);
    kit_wait(&turns, 2);
    return unused;
}

TEST(every_cache_that_can_be_had_is_empty_by_then)
{
    kit_open(LADDER_BYTES);
    kit_done(&turns, 0);
    pthread_t thread = kit_thread(rest, NULL);
    kit_wait(&turns, 1);
    hak_free(hak_malloc(64));
    CHECK_GE(kit_stats().slab_bytes, 2 * UNIT_BYTES);
    CHECK_GE(kit_stats().boxed_bytes_max, UNIT_BYTES);
    set(look_around);
    seen_cached = seen_boxed = seen_slabs = 1;
    void *whole = hak_malloc(LADDER_BYTES); /* that would do already */
    CHECK_EQ(atomic_load(&calls), 0);
    CHECK(whole != NULL);
    CHECK(hak_malloc(64) == NULL);
    CHECK_EQ(atomic_load(&calls), 1);
    CHECK_EQ(seen_cached, 0);
    CHECK_EQ(seen_boxed, 0);
    CHECK_EQ(seen_slabs, 0);
    hak_free(whole);
    kit_done(&turns, 2);
    kit_join(thread);
    set(NULL);
    kit_close();
}

static void only_note(hak_region *region, size_t size_bytes, void *argument)
{
    note(region, size_bytes, argument);
}

TEST(it_is_not_called_for_what_no_memory_would_help)
{
    static volatile size_t beyond = SIZE_MAX;
    void *many[100];

    open_full(&small);
    set(only_note);
    CHECK(hak_malloc(beyond) == NULL);
    CHECK(hak_malloc(LADDER_BYTES + 1) == NULL); /* more than there is of it */
    CHECK(hak_malloc_on_node(LADDER_BYTES + 1, ladder_node(0)) == NULL);
    CHECK(hak_aligned_alloc(3, 100) == NULL);
    CHECK(hak_calloc(beyond / 2, 3) == NULL);
    CHECK(hak_malloc_on_node(100, 63) == NULL);
    CHECK_EQ(atomic_load(&calls), 0);
    CHECK_EQ(hak_malloc_bulk(100, 100, many), 0);
    CHECK_EQ(atomic_load(&calls), 1); /* a hundred failed at once */
    finish();
}

TEST(taken_back_it_is_not_called)
{
    open_full(&small);
    set(only_note);
    CHECK(hak_malloc(100) == NULL);
    CHECK_EQ(atomic_load(&calls), 1);
    CHECK_EQ(hak_on_exhausted(NULL, NULL, NULL), 0);
    CHECK(hak_malloc(100) == NULL);
    CHECK_EQ(atomic_load(&calls), 1);
    kit_forget_last();
    CHECK_EQ(hak_on_exhausted(NULL, only_note, NULL), -ENODEV);
}

/* ---- what it frees --------------------------------------------------------------------------- */

static void *kept[2000];
static size_t kept_count, frees_at_once;

static void free_kept(hak_region *region, size_t size_bytes, void *argument)
{
    note(region, size_bytes, argument);
    for (size_t n = 0; n < frees_at_once && kept_count > 0; n++) {
        hak_free(kept[--kept_count]);
    }
}

/* The hole full of small objects, so that their slabs have to run empty first. */
static void fill_hole_with(size_t size)
{
    ladder_open_hole();
    for (kept_count = 0; (kept[kept_count] = hak_malloc(size)) != NULL; kept_count++) {
        CHECK(kept_count + 1 < sizeof kept / sizeof *kept);
    }
}

TEST(everything_little_and_nothing)
{
    open_full(&large);
    fill_hole_with(1000);
    size_t all = kept_count;
    CHECK_EQ(all, 16 * UNIT_BYTES / 1024);
    set(free_kept);
    frees_at_once = 0; /* nothing */
    CHECK(hak_malloc(MIB) == NULL);
    CHECK(hak_malloc(1000) == NULL);
    CHECK_EQ(atomic_load(&calls), 2);
    frees_at_once = all - 1; /* all but one, in whose slab there is no MiB */
    CHECK(hak_malloc(MIB) == NULL);
    CHECK_EQ(atomic_load(&calls), 3);
    frees_at_once = 1; /* the last, which was all that was missing */
    void *object = hak_malloc(MIB);
    CHECK(object != NULL);
    CHECK_EQ(atomic_load(&calls), 4);
    hak_free(object);
    finish();
}

/* The hole is full of one size, and all of it is freed when the first of another is wanted. */
static void serve(size_t from, size_t to)
{
    open_full(&large);
    fill_hole_with(from);
    set(free_kept);
    frees_at_once = SIZE_MAX;
    for (unsigned n = 0; n < 16; n++) {
        void *object = hak_malloc(to); /* may call it, which empties kept */
        CHECK(object != NULL);
        kept[kept_count++] = object;
        frees_at_once = 0;
    }
    CHECK_EQ(atomic_load(&calls), 1);
    hak_free_bulk(kept, kept_count);
    finish();
}

TEST(objects_of_another_class_serve_when_their_slabs_are_empty)
{
    static const size_t some[] = {1000, 5000, 20000, 65536};

    for (size_t from = 0; from < sizeof some / sizeof *some; from++) {
        for (size_t to = 0; to < sizeof some / sizeof *some; to++) {
            serve(some[from], some[to] != some[from] ? some[to] : 64);
        }
    }
}

/* Many at once, of which the thread's own cache keeps the last: that goes back too. */
TEST(what_it_frees_does_not_stay_in_the_threads_cache)
{
    static const size_t some[] = {1000, 5000, 20000};

    for (size_t n = 0; n < sizeof some / sizeof *some; n++) {
        open_full(&large);
        fill_hole_with(some[n]);
        set(free_kept);
        frees_at_once = SIZE_MAX;
        void *object = hak_malloc(MIB);
        CHECK(object != NULL);
        CHECK_EQ(atomic_load(&calls), 1);
        hak_free(object);
        finish();
    }
}

TEST(large_objects_serve_small_ones)
{
    open_full(&large);
    set(free_hole);
    size_t count = 0;
    while ((kept[count] = hak_malloc(1000)) != NULL) {
        count++;
    }
    CHECK_EQ(count, 16 * UNIT_BYTES / 1024);
    CHECK_EQ(atomic_load(&calls), 2);
    hak_free_bulk(kept, count);
    finish();
}

/* ---- what else it does ----------------------------------------------------------------------- */

static void ask_everything(hak_region *region, size_t size_bytes, void *argument)
{
    struct thread *slot = own_slot();
    struct hak_error error;
    struct hak_stats stats;
    unsigned char *object = ladder.hole;

    note(region, size_bytes, argument);
    CHECK_EQ(hak_region_stats(NULL, &stats), 0);
    CHECK_EQ(stats.free_bytes, 0);
    (void)hak_last_error(&error);
    hak_thread_idle(); /* not now: the allocation goes on with what the thread has */
    CHECK(own_slot() == slot);
    CHECK_EQ(atomic_load(&slot->state), THREAD_ACTIVE);
    CHECK_EQ(hak_thread_pin(0), 0);
    CHECK(own_slot() == slot);
    CHECK(hak_malloc(size_bytes) == NULL); /* at once, and without coming here again */
    CHECK_EQ(errno, ENOMEM);
    CHECK(hak_realloc(object, 4 * MIB) == NULL);
    CHECK_EQ(hak_usable_size(object), MIB);
    ladder.hole = hak_realloc(object, 320 * KIB); /* which gives units back in place */
    CHECK(ladder.hole == object);
    errno = EIO;
}

static void *ask_from_there(void *unused)
{
    open_full(&large);
    set(ask_everything);
    errno = 0;
    void *object = hak_malloc(5000);
    CHECK_EQ(errno, 0);
    CHECK(object != NULL);
    CHECK_EQ(atomic_load(&calls), 1);
    CHECK_EQ(hak_usable_size(ladder.hole), 320 * KIB);
    hak_free(object);
    struct hak_error error;
    CHECK_EQ(hak_last_error(&error), -ENOMEM); /* the inner failures were failures */
    CHECK_EQ(error.size_bytes, 4 * MIB);
    hak_thread_idle(); /* afterwards it is as ever */
    CHECK(own_slot() == &thread_none);
    finish();
    return unused;
}

TEST(it_may_ask_resize_idle_and_pin)
{
    kit_elsewhere(ask_from_there, NULL); /* since it is pinned */
}

static void replace_itself(hak_region *region, size_t size_bytes, void *argument)
{
    note(region, size_bytes, argument);
    CHECK_EQ(hak_on_exhausted(region, NULL, NULL), 0);
}

TEST(it_may_take_itself_back)
{
    open_full(&small);
    set(replace_itself);
    CHECK(hak_malloc(100) == NULL);
    CHECK(hak_malloc(100) == NULL);
    CHECK_EQ(atomic_load(&calls), 1);
    finish();
}

/* ---- several regions ------------------------------------------------------------------------- */

static hak_region *others[2];
static void *filled[2];
static unsigned nested_calls[2];

/* Each wants memory of the other region, whose reclaimer wants some of this one. */
static void nested(hak_region *region, size_t size_bytes, void *argument)
{
    unsigned self = region == others[1];

    CHECK(argument == &others[self]);
    CHECK_EQ(size_bytes, MIB);
    CHECK_LE(++nested_calls[self], 1);
    void *object = hak_region_malloc(others[1 - self], MIB);
    if (self == 1) {
        CHECK(object == NULL); /* region 0's is under way */
        hak_region_free(region, filled[1]);
        filled[1] = NULL;
    } else {
        CHECK(object != NULL); /* region 1's helped */
        hak_region_free(others[1], object);
        hak_region_free(region, filled[0]);
        filled[0] = NULL;
    }
}

TEST(reclaimers_of_other_regions_are_called_inside)
{
    struct hak_config config = kit_config(2 * MIB);

    kit_forget_last();
    for (unsigned n = 0; n < 2; n++) {
        nested_calls[n] = 0;
        CHECK_EQ(hak_region_create(&config, &others[n]), 0);
        filled[n] = hak_region_malloc(others[n], 2 * MIB);
        CHECK(filled[n] != NULL);
        CHECK_EQ(hak_on_exhausted(others[n], nested, &others[n]), 0);
    }
    void *object = hak_region_malloc(others[0], MIB);
    CHECK(object != NULL);
    CHECK_EQ(nested_calls[0], 1);
    CHECK_EQ(nested_calls[1], 1);
    hak_region_free(others[0], object);
    for (unsigned n = 0; n < 2; n++) {
        CHECK(heap_check(others[n]));
        CHECK_EQ(hak_region_destroy(others[n]), 0);
    }
}

/* ---- several threads ------------------------------------------------------------------------- */

#define CROWD 4

static pthread_barrier_t all_inside;
static _Thread_local void *spare;

static void free_spare_together(hak_region *region, size_t size_bytes, void *argument)
{
    CHECK(region == heap() && argument == &calls && size_bytes >= 60000);
    atomic_fetch_add(&calls, 1);
    pthread_barrier_wait(&all_inside);
    hak_free(spare);
    spare = NULL;
}

static void *want_in_crowd(void *unused)
{
    spare = hak_aligned_alloc(LADDER_UNIT_ALIGNMENT, UNIT_BYTES);
    CHECK(spare != NULL);
    pthread_barrier_wait(&all_inside);
    pthread_barrier_wait(&all_inside); /* the rest is full now */
    unsigned char *object = hak_malloc(60000);
    CHECK(object != NULL);
    memset(object, 0x33, 60000);
    pthread_barrier_wait(&all_inside);
    hak_free(object);
    return unused;
}

TEST(several_threads_are_in_it_at_the_same_time)
{
    pthread_t threads[CROWD];

    for (unsigned round = 0; round < 20; round++) {
        kit_open(LADDER_BYTES);
        CHECK_EQ(pthread_barrier_init(&all_inside, NULL, CROWD + (round == 0)), 0);
        pthread_barrier_destroy(&all_inside);
        CHECK_EQ(pthread_barrier_init(&all_inside, NULL, CROWD), 0);
        for (unsigned n = 0; n < CROWD - 1; n++) {
            threads[n] = kit_thread(want_in_crowd, NULL);
        }
        /* This thread is the fourth; it fills what is left between the barriers. */
        spare = hak_aligned_alloc(LADDER_UNIT_ALIGNMENT, UNIT_BYTES);
        pthread_barrier_wait(&all_inside);
        ladder.fill_count = 0;
        kit_elsewhere(ladder_fill_node, &(int){ladder_node(0)});
        set(free_spare_together);
        pthread_barrier_wait(&all_inside);
        void *object = hak_malloc(60000);
        CHECK(object != NULL);
        CHECK_EQ(atomic_load(&calls), CROWD);
        pthread_barrier_wait(&all_inside);
        hak_free(object);
        for (unsigned n = 0; n < CROWD - 1; n++) {
            kit_join(threads[n]);
        }
        pthread_barrier_destroy(&all_inside);
        finish();
    }
}

/* ---- no return ------------------------------------------------------------------------------- */

static void end_thread(hak_region *region, size_t size_bytes, void *argument)
{
    note(region, size_bytes, argument);
    pthread_exit(&calls);
}

static void be_cancelled(hak_region *region, size_t size_bytes, void *argument)
{
    note(region, size_bytes, argument);
    CHECK_EQ(pthread_cancel(pthread_self()), 0);
    pthread_testcancel();
    FAIL("cancelled, and here");
}

static void *want_small(void *unused)
{
    hak_free(hak_malloc(5000)); /* a slot, and something in its caches where there is room */
    return hak_malloc(100) != NULL ? NULL : unused;
}

static void leave_by(hak_exhausted_fn way, void *expected)
{
    pthread_t thread;
    void *result = NULL;

    open_full(&small);
    thread_detach_all();
    for (unsigned round = 0; round < 3; round++) {
        set(way);
        thread = kit_thread(want_small, NULL);
        CHECK_EQ(pthread_join(thread, &result), 0);
        CHECK(result == expected);
        CHECK_EQ(atomic_load(&calls), 1); /* by the first of the two allocations */
        CHECK_EQ(kit_stats().threads, 0); /* its slot was given up */
    }
    set(only_note); /* the next thread has that slot, and its reclaimer */
    thread = kit_thread(want_small, &calls);
    CHECK_EQ(pthread_join(thread, &result), 0);
    CHECK(result == &calls);
    CHECK_EQ(atomic_load(&calls), 2);
    CHECK_EQ(atomic_load(&heap()->pools[0].slots.high), 2);
    finish();
}

TEST(a_thread_may_end_in_it)
{
    leave_by(end_thread, &calls);
}

TEST(a_thread_may_be_cancelled_in_it)
{
    leave_by(be_cancelled, PTHREAD_CANCELED);
}

static jmp_buf outside;

static void jump_out(hak_region *region, size_t size_bytes, void *argument)
{
    note(region, size_bytes, argument);
    longjmp(outside, 1);
}

static void *jump(void *unused)
{
    set(jump_out);
    if (setjmp(outside) == 0) {
        (void)!hak_malloc(100);
        FAIL("it returned");
    }
    CHECK_EQ(atomic_load(&calls), 1);
    set(only_note);
    CHECK(hak_malloc(100) == NULL);
    CHECK_EQ(atomic_load(&calls), 0); /* as far as we know it still runs */
    ladder_open_hole();
    void *object = hak_malloc(100); /* all else is as ever */
    CHECK(object != NULL);
    hak_free(object);
    return unused;
}

/* Not allowed; what it costs is told in hakmem.h. */
TEST(one_left_by_longjmp_is_not_called_again_on_that_thread_and_does_no_other_harm)
{
    open_full(&small);
    kit_elsewhere(jump, NULL);
    finish();
}

/* ---- fork ------------------------------------------------------------------------------------ */

static pid_t child;

static void fork_and_free(hak_region *region, size_t size_bytes, void *argument)
{
    note(region, size_bytes, argument);
    child = fork();
    CHECK(child >= 0);
    ladder_open_hole();
}

TEST(after_a_fork_in_it_both_sides_get_their_object)
{
    int status = -1;

    open_full(&small);
    set(fork_and_free);
    unsigned char *object = hak_malloc(5000);
    if (child == 0) {
        /* In the child: no harness. */
        bool well = object != NULL && heap_check(heap()) && atomic_load(&calls) == 1;
        if (well) {
            memset(object, 0x44, 5000);
            hak_free(object);
            well = hak_malloc(100) != NULL;
        }
        _exit(well ? 0 : 1);
    }
    CHECK(object != NULL);
    CHECK_EQ(atomic_load(&calls), 1);
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK(WIFEXITED(status));
    CHECK_EQ(WEXITSTATUS(status), 0);
    hak_free(object);
    finish();
}

HARNESS_MAIN()
