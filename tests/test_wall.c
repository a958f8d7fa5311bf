/* SPDX-License-Identifier: MIT */
/*
 * Random workloads that run into the wall and back, on 1 to 16 threads (tests/wall_kit.h). After
 * each: nothing is lost, nothing is held, every invariant holds, and every byte can be had again,
 * in any size: the region is filled once more by objects of one size, as many as a fresh region
 * gives, and by one object of all that a node has.
 *
 * WORKLOADS=n says how many (250), FIRST=k which comes first, SEED=s from which seed: a failure
 * prints the three that repeat it. What threads do at the same time is the machine's own choice, so
 * a failure may take several tries to come again.
 */
#include "alloc/large.h"
#include "alloc/thread.h"
#include "tests/wall_kit.h"

#define WORKLOADS 250
/* A workload that takes longer than this is taken for hung. */
#define HUNG_SECONDS 120

static const size_t refill_sizes[] = {16,    48,     64,     112,    256,    640,   1024,
                                      2048,  3328,   4096,   6656,   10240,  16384, 40960,
                                      57344, 114688, 131072, 262144, 300000, MIB,   2 * MIB};
#define REFILL_SIZES (sizeof refill_sizes / sizeof *refill_sizes)

static unsigned from_environment(const char *name, unsigned usual)
{
    const char *given = getenv(name);
    return given != NULL && given[0] != '\0' ? (unsigned)strtoul(given, NULL, 10) : usual;
}

/* ---- the watchdog ---------------------------------------------------------------------------- */

static void dump(const char *why)
{
    struct hak_stats stats;

    fprintf(stderr, "%s\n", why);
    wall_print(stderr);
    for (unsigned n = 0; n < wall.threads; n++) {
        struct wall_thread *one = &wall.workers[n];
        const char *doing = atomic_load(&one->doing);
        fprintf(stderr, "  thread %u: round %u, %s, %s %zu\n", n, atomic_load(&one->round),
                wall_mix_names[atomic_load(&one->mix)], doing != NULL ? doing : "not started",
                atomic_load(&one->asked));
    }
    if (hak_region_stats(wall.region, &stats) == 0) {
        fprintf(stderr,
                "  free %zu, largest %zu, slabs %zu with %zu free, large %zu, caches %zu, boxes "
                "%zu, threads %u, exhausted %llu\n",
                stats.free_bytes, stats.largest_free_bytes, stats.slab_bytes, stats.slab_free_bytes,
                stats.large_bytes, stats.cached_bytes_max, stats.boxed_bytes_max, stats.threads,
                (unsigned long long)stats.exhausted);
    }
}

/* When the workload at work is taken for hung; 0: none is at work. */
static _Atomic int64_t deadline_ms;

static void *watch_for_hangs(void *unused)
{
    for (;;) {
        int64_t deadline = atomic_load(&deadline_ms);
        if (deadline != 0 && harness_now_ms() > deadline) {
            dump("hung");
            _exit(1);
        }
        usleep(500000);
    }
    return unused;
}

/* What is at work, ready to be written by a signal handler. */
static char at_work[256];
static volatile size_t at_work_length;

static void on_crash(int number)
{
    if (write(STDERR_FILENO, at_work, at_work_length) < 0) {
        _exit(1);
    }
    signal(number, SIG_DFL);
    raise(number);
}

static void watch(void)
{
    pthread_t watcher;

    CHECK_EQ(pthread_create(&watcher, NULL, watch_for_hangs, NULL), 0);
    signal(SIGABRT, on_crash);
    signal(SIGSEGV, on_crash);
    signal(SIGBUS, on_crash);
}

/* ---- regions --------------------------------------------------------------------------------- */

static void open_region(void)
{
    struct hak_config config = kit_config(wall.bytes, HAK_PAGES_4K, wall.prefault);

    config.exhausted = wall.policy;
    kit_close();
    topology_fake(wall.nodes == 2 ? 2 : 0);
    wall.region = NULL;
    if (wall.as_default) {
        kit_open_config(&config);
    } else {
        wall.region = kit_create_config(&config);
    }
}

static struct hak_region *heap(void)
{
    return wall.region != NULL ? wall.region : hak_region_default();
}

/* ---- afterwards ------------------------------------------------------------------------------ */

/* This thread has given its slot up; nobody else is there. */
static void check_empty(void)
{
    struct hak_stats stats = kit_stats(wall.region);

    WALL_CHECK(heap_check(heap()));
    WALL_EQ(stats.free_bytes, stats.size_bytes);
    WALL_EQ(stats.largest_free_bytes, large_room(heap(), heap()->pools[0].unit_count));
    WALL_EQ(stats.slab_bytes, 0);
    WALL_EQ(stats.large_bytes, 0);
    WALL_EQ(stats.cached_bytes_max, 0);
    WALL_EQ(stats.boxed_bytes_max, 0);
    WALL_EQ(stats.threads, 0);
    WALL_EQ(stats.misuses, 0);
    for (uint32_t n = 0; n < heap()->pool_count; n++) {
        struct pool *pool = &heap()->pools[n];
        WALL_EQ(bitset_count(&pool->magazines.free), pool->magazines.count);
        WALL_EQ(bitset_count(&pool->slots.free), pool->slots.free.bit_count[0]);
    }
}

/* From the node, by name where there is more than one. */
static void *get_on(uint32_t segment, size_t size)
{
    return wall.nodes == 1
               ? hak_region_malloc(wall.region, size)
               : hak_region_malloc_on_node(wall.region, size, heap()->area.segments[segment].node);
}

static bool hardened(void)
{
    const char *setting = getenv("HAKMEM_HARDENED");
    return setting != NULL && strcmp(setting, "0") != 0 && setting[0] != '\0';
}

/* This thread gives its slot up. A hardened region also holds large objects back. */
static void let_go(void)
{
    thread_detach_all();
    for (uint32_t n = 0; n < wall.nodes && heap()->hardened != NULL; n++) {
        (void)guarded_drain(heap()->stray, &heap()->pools[n]);
    }
}

/* As many objects of that size as there are; filled: all their bytes are written and read. */
static size_t fill_with(size_t size, bool filled)
{
    static void *held[64 * MIB / 16 + 1];
    size_t count = 0;

    for (uint32_t segment = 0; segment < wall.nodes; segment++) {
        while ((held[count] = get_on(segment, size)) != NULL) {
            if (filled) {
                pattern_fill(held[count], size, count);
            }
            count++;
        }
    }
    for (size_t n = 0; filled && n < count; n++) {
        WALL_CHECK(pattern_holds(held[n], size, n));
    }
    hak_region_free_bulk(wall.region, held, count);
    return count;
}

/* What a region that nobody has used yet gives. Counted once for each kind. */
static size_t fresh_count(size_t which)
{
    static size_t known[2][33][REFILL_SIZES];
    size_t *count = &known[wall.nodes - 1][wall.bytes / MIB / 2][which];

    if (*count == 0) {
        open_region();
        *count = fill_with(refill_sizes[which], false);
        WALL_CHECK(*count >= 1);
    }
    return *count;
}

/* The largest object that a node of a fresh region has: all of it, but for what a hardened one
 * keeps around large objects. */
static size_t fresh_largest(void)
{
    static size_t known[2][33];
    size_t *largest = &known[wall.nodes - 1][wall.bytes / MIB / 2];

    if (*largest == 0) {
        void *object = NULL;
        open_region();
        *largest = wall.bytes / wall.nodes + UNIT_BYTES;
        while (object == NULL) {
            *largest -= UNIT_BYTES;
            object = get_on(0, *largest);
        }
        hak_region_free(wall.region, object);
        WALL_CHECK(hardened() || *largest == wall.bytes / wall.nodes);
        WALL_CHECK(*largest >= wall.bytes / wall.nodes - MIB);
    }
    return *largest;
}

static void check_largest(size_t largest)
{
    static unsigned char *whole[2];

    for (uint32_t n = 0; n < wall.nodes; n++) {
        whole[n] = get_on(n, largest);
        WALL_CHECK(whole[n] != NULL);
        pattern_fill(whole[n], largest, n);
    }
    WALL_CHECK(hardened() || get_on(0, 1) == NULL);
    for (uint32_t n = 0; n < wall.nodes; n++) {
        WALL_CHECK(pattern_holds(whole[n], largest, n));
        hak_region_free(wall.region, whole[n]);
    }
}

/* By one object, and by objects of one size, as a fresh region: those two were asked before the
 * workload, so that this one is still open. */
static void check_usable(size_t which, size_t largest, size_t fresh)
{
    if (wall_one_in(&wall.random, 2)) { /* before the refill, or after it */
        (void)fill_with(refill_sizes[wall_below(&wall.random, REFILL_SIZES)], false);
    }
    check_largest(largest);
    size_t count = fill_with(refill_sizes[which], true);
    let_go();
    check_empty();
    if (count != fresh) {
        wall_fail(HARNESS_HERE, "%zu objects of %zu bytes, not %zu", count, refill_sizes[which],
                  fresh);
    }
}

/* ---- a workload ------------------------------------------------------------------------------ */

static void run_generation(void)
{
    for (unsigned n = 0; n < wall.threads; n++) {
        struct wall_thread *one = &wall.workers[n];
        one->number = n;
        one->random = harness_random(&wall.random);
        one->failures = 0;
        one->most = 400000 / wall.threads;
        CHECK_EQ(pthread_create(&one->thread, NULL, wall_work, one), 0);
        one->running = true;
    }
    for (unsigned n = 0; n < wall.threads; n++) {
        (void)kit_join(wall.workers[n].thread);
        wall.workers[n].running = false;
    }
}

/* Frees what is left, by this thread, which then gives its slot up. */
static void empty_stash(void)
{
    struct wall_object object;

    while (wall_take(&object, &wall.random)) {
        wall_free(&object, &wall.random);
    }
    let_go();
}

static struct {
    uint64_t failures, calls, frees, threads;
} sum;

static void run_workload(unsigned number)
{
    wall_draw(harness_seed(), number);
    wall_describe(at_work, sizeof at_work);
    at_work_length = strlen(at_work);
    atomic_store(&deadline_ms, harness_now_ms() + (int64_t)HUNG_SECONDS * 1000);
    size_t which = wall_below(&wall.random, REFILL_SIZES);
    size_t largest = fresh_largest();
    size_t fresh = fresh_count(which);
    open_region();
    if (wall.reclaims) {
        CHECK_EQ(hak_on_exhausted(wall.region, wall_reclaim, &wall), 0);
    }
    for (unsigned n = 0; n < wall.generations && !atomic_load(&wall.broken); n++) {
        run_generation();
    }
    CHECK_EQ(hak_on_exhausted(wall.region, NULL, NULL), 0);
    if (!atomic_load(&wall.broken)) {
        empty_stash();
        check_empty();
        check_usable(which, largest, fresh);
    }
    kit_close();
    topology_fake(0);
    atomic_store(&deadline_ms, 0);
    sum.failures += atomic_load(&wall.failures);
    sum.calls += atomic_load(&wall.reclaimer_calls);
    sum.frees += atomic_load(&wall.reclaimer_frees);
    sum.threads += wall.threads;
}

TEST(into_the_wall_and_back_and_every_byte_is_usable_in_any_size)
{
    unsigned first = from_environment("FIRST", 0);
    unsigned count = from_environment("WORKLOADS", WORKLOADS);

    watch();
    CHECK_EQ(pthread_mutex_init(&wall.lock, NULL), 0);
    (void)harness_seed();
    for (unsigned n = first; n < first + count && !atomic_load(&wall.broken); n++) {
        run_workload(n);
    }
    printf("%u workloads, %llu threads, NULL %llu times, reclaimer called %llu times, freed %llu\n",
           count, (unsigned long long)sum.threads, (unsigned long long)sum.failures,
           (unsigned long long)sum.calls, (unsigned long long)sum.frees);
    CHECK_GE(sum.failures, count); /* the wall was there */
    if (count >= 100) {
        CHECK_GE(sum.calls, 100);
        CHECK_GE(sum.frees, 100);
    }
}

HARNESS_MAIN()
