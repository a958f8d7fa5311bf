/* SPDX-License-Identifier: MIT */
/*
 * vm_stress [SECONDS]: workers on every node of the machine allocate, fill, and pass what they have
 * to workers of other nodes, which check and free it; for 20 s unless said (or STRESS_SECONDS).
 *
 * Rounds of a few seconds. In a round a worker now and then sits down on another processor, marks
 * itself idle, or hoards until its node, or with any-node the whole machine, has nothing left. What
 * workers hold stays alive between rounds, and then every room's books are checked; at the end all
 * is freed and every byte is free again. Every object's address is compared with the worker's home
 * where the policy promises that; tests/vm_place asks the kernel for the pages.
 *
 * Bounded: memory by the region, time by the clock. SEED repeats the choices, not the timing.
 */
#include "tests/vm_place_kit.h"

#include "numa/pin.h"

#include <ctype.h>

#define WORKERS 16u
#define RING_SLOTS 64u
#define HELD 512u
#define ROUND_MS 3000

static unsigned seconds;

struct parcel {
    unsigned char *object;
    size_t bytes;
    uint64_t number;
};

/* From one worker to another. */
struct mail {
    _Atomic uint32_t written CACHE_ALIGNED;
    _Atomic uint32_t taken CACHE_ALIGNED;
    struct parcel parcels[RING_SLOTS];
};

static struct {
    struct mail mail[WORKERS][WORKERS]; /* [from][to] */
    struct parcel held[WORKERS][HELD];
    struct {
        uint64_t random, sent, received, refused, moved;
        unsigned held;
        int home;
    } CACHE_ALIGNED self[WORKERS];
    unsigned workers;
    bool any_node;
    int64_t until_ms;
    _Atomic unsigned still_sending;
    _Atomic uint64_t numbers;
} stress;

static bool going(void)
{
    return harness_now_ms() < stress.until_ms && !vm_failed();
}

/* ---- contents -------------------------------------------------------------------------------- */

static size_t step_of(size_t bytes)
{
    return bytes <= 4096 ? 8 : 2040;
}

static uint64_t word_of(const struct parcel *parcel, size_t at)
{
    uint64_t state = parcel->number * 0x2545f4914f6cdd1dU + (uintptr_t)parcel->object + at;

    return harness_random(&state);
}

static void fill(const struct parcel *parcel)
{
    for (size_t at = 0; at < parcel->bytes; at += step_of(parcel->bytes)) {
        uint64_t word = word_of(parcel, at);
        memcpy(parcel->object + at, &word, min_size(8, parcel->bytes - at));
    }
}

static void verify(const struct parcel *parcel)
{
    for (size_t at = 0; at < parcel->bytes; at += step_of(parcel->bytes)) {
        uint64_t word = word_of(parcel, at);
        if (memcmp(parcel->object + at, &word, min_size(8, parcel->bytes - at)) != 0) {
            FAIL("object %p of %zu bytes, number %llu: wrong at byte %zu", (void *)parcel->object,
                 parcel->bytes, (unsigned long long)parcel->number, at);
        }
    }
}

/* ---- one object ------------------------------------------------------------------------------ */

static size_t random_size(uint64_t *random)
{
    uint64_t dice = harness_random(random) % 100;
    size_t most = dice < 60 ? KIB : dice < 90 ? 16 * KIB : dice < 99 ? 256 * KIB : MIB;

    return harness_random(random) % most + 1;
}

static void *allocate(size_t bytes, uint64_t *random)
{
    uint64_t dice = harness_random(random) % 16;
    void *object = NULL;

    if (dice == 0) {
        object = hak_calloc(1, bytes);
        for (size_t at = 0; object != NULL && at < bytes; at += 61) {
            CHECK_EQ(((unsigned char *)object)[at], 0);
        }
    } else if (dice == 1) {
        size_t alignment = (size_t)16 << harness_random(random) % 12;
        object = hak_aligned_alloc(alignment, bytes);
        CHECK_EQ((uintptr_t)object % alignment, 0);
    } else if (dice == 2) {
        void *small = hak_malloc(bytes / 3 + 1);
        object = small != NULL ? hak_realloc(small, bytes) : NULL;
        if (object == NULL) {
            hak_free(small);
        }
    } else {
        object = hak_malloc(bytes);
    }
    return object;
}

/* false: the region, or the own node, has nothing left. */
static bool make(unsigned worker, struct parcel *parcel)
{
    uint64_t *random = &stress.self[worker].random;
    size_t bytes = random_size(random);
    unsigned char *object = allocate(bytes, random);

    if (object == NULL) {
        struct hak_error error;
        CHECK_EQ(errno, ENOMEM);
        CHECK_EQ(hak_last_error(&error), -ENOMEM);
        CHECK_EQ(error.kind, HAK_ERROR_EXHAUSTED);
        CHECK_EQ(error.node, stress.self[worker].home);
        stress.self[worker].refused++;
        return false;
    }
    if (!stress.any_node) {
        int node = hak_region_default()->area.segments[kit_segment(object)].node;
        CHECK_EQ(node, stress.self[worker].home);
    }
    *parcel = (struct parcel){object, bytes, atomic_fetch_add(&stress.numbers, 1) + 1};
    fill(parcel);
    return true;
}

static void end(const struct parcel *parcel)
{
    verify(parcel);
    memset(parcel->object, 0xdd, min_size(parcel->bytes, 64));
    hak_free(parcel->object);
}

/* ---- mail ------------------------------------------------------------------------------------ */

static bool send(unsigned from, unsigned to, const struct parcel *parcel)
{
    struct mail *mail = &stress.mail[from][to];
    uint32_t written = atomic_load_explicit(&mail->written, memory_order_relaxed);

    /* Acquire: the slot has been read; release: the parcel is in it. */
    if (written - atomic_load_explicit(&mail->taken, memory_order_acquire) == RING_SLOTS) {
        return false;
    }
    mail->parcels[written % RING_SLOTS] = *parcel;
    atomic_store_explicit(&mail->written, written + 1, memory_order_release);
    stress.self[from].sent++;
    return true;
}

/* Frees what others sent; how many. */
static unsigned receive(unsigned worker)
{
    unsigned count = 0;

    for (unsigned from = 0; from < stress.workers; from++) {
        struct mail *mail = &stress.mail[from][worker];
        uint32_t taken = atomic_load_explicit(&mail->taken, memory_order_relaxed);
        uint32_t written = atomic_load_explicit(&mail->written, memory_order_acquire);
        for (; taken != written; count++) {
            struct parcel parcel = mail->parcels[taken % RING_SLOTS];
            atomic_store_explicit(&mail->taken, ++taken, memory_order_release);
            end(&parcel);
        }
    }
    stress.self[worker].received += count;
    return count;
}

/* ---- a worker -------------------------------------------------------------------------------- */

static void find_home(unsigned worker)
{
    stress.self[worker].home = vm_home_of(topology_cpu_node(sched_getcpu()));
}

static void sit_elsewhere(unsigned worker)
{
    unsigned cpu = (unsigned)(harness_random(&stress.self[worker].random) % pin_cpu_count());

    if (hak_thread_pin((int)cpu) == 0) {
        find_home(worker);
        stress.self[worker].moved++;
    }
}

/* Until nothing is left, then everything of it goes again; others may want some meanwhile. */
static void hoard(unsigned worker)
{
    struct parcel *first = NULL, parcel;
    unsigned count = 0;

    while (going() && make(worker, &parcel)) {
        if (parcel.bytes < sizeof(struct parcel)) {
            end(&parcel);
            continue;
        }
        /* A list through the objects themselves: no memory but theirs. */
        struct parcel before = {(unsigned char *)first, 0, 0};
        memcpy(parcel.object, &before, sizeof(before));
        first = (struct parcel *)(void *)parcel.object;
        if (++count % 64 == 0) {
            receive(worker);
        }
    }
    while (first != NULL) {
        struct parcel *next = (struct parcel *)(void *)first->object;
        hak_free(first);
        first = next;
    }
}

static void step(unsigned worker)
{
    uint64_t *random = &stress.self[worker].random;
    struct parcel parcel;
    uint64_t dice = harness_random(random) % 4096;

    if (dice == 0) {
        hoard(worker);
    } else if (dice == 1) {
        sit_elsewhere(worker);
    } else if (dice == 2) {
        hak_thread_idle();
    } else if (dice < 256) {
        struct parcel *held = &stress.held[worker][harness_random(random) % HELD];
        if (held->object != NULL) {
            end(held);
            held->object = NULL;
        } else if (!make(worker, held)) {
            held->object = NULL;
        }
    } else if (make(worker, &parcel)) {
        unsigned to = (unsigned)(harness_random(random) % stress.workers);
        if (!send(worker, to, &parcel)) {
            end(&parcel);
        }
    }
    receive(worker);
}

static void run(unsigned worker, void *unused)
{
    (void)unused;
    find_home(worker);
    while (going()) {
        step(worker);
    }
    /* Nobody leaves before nobody sends. */
    atomic_fetch_sub(&stress.still_sending, 1);
    while (atomic_load(&stress.still_sending) > 0 && !vm_failed()) {
        receive(worker);
        sched_yield();
    }
    receive(worker);
}

/* ---- rounds ---------------------------------------------------------------------------------- */

static void check_mail_is_empty(void)
{
    uint64_t sent = 0, received = 0;

    for (unsigned n = 0; n < stress.workers; n++) {
        sent += stress.self[n].sent;
        received += stress.self[n].received;
    }
    CHECK_EQ(sent, received);
}

static void run_rounds(unsigned most_seconds)
{
    int64_t end_ms = harness_now_ms() + most_seconds * 1000;

    stress.workers = (unsigned)min_size(WORKERS, pin_cpu_count());
    for (unsigned n = 0; n < stress.workers; n++) {
        stress.self[n].random = harness_seed() + n * 7919;
    }
    do {
        stress.until_ms = harness_now_ms() + ROUND_MS;
        atomic_store(&stress.still_sending, stress.workers);
        CHECK_EQ(hak_worker_start(stress.workers, run, NULL), 0);
        CHECK_EQ(hak_worker_join(), 0);
        if (vm_failed()) {
            harness_leave(HARNESS_FAILED); /* a worker has said why */
        }
        CHECK(heap_check(hak_region_default())); /* with what they hold alive */
        check_mail_is_empty();
    } while (harness_now_ms() < end_ms);
}

static void free_held(void)
{
    for (unsigned n = 0; n < stress.workers; n++) {
        for (unsigned h = 0; h < HELD; h++) {
            if (stress.held[n][h].object != NULL) {
                end(&stress.held[n][h]);
            }
        }
    }
}

static void stress_policy(enum hak_exhausted policy)
{
    uint64_t refused = 0, moved = 0, sent = 0;

    vm_needs(2);
    memset(&stress, 0, sizeof(stress));
    stress.any_node = policy == HAK_EXHAUSTED_ANY_NODE;
    vm_open(policy);
    run_rounds(seconds / 2);
    free_held();
    struct hak_stats stats = kit_stats();
    for (unsigned n = 0; n < stress.workers; n++) {
        refused += stress.self[n].refused;
        moved += stress.self[n].moved;
        sent += stress.self[n].sent;
    }
    printf("  %u workers, %llu objects passed on, %llu freed on another node in %llu batches, %llu "
           "refused, %llu from another node, %llu moves\n",
           stress.workers, (unsigned long long)sent, (unsigned long long)stats.remote_frees,
           (unsigned long long)stats.remote_drains, (unsigned long long)refused,
           (unsigned long long)stats.other_node_allocs, (unsigned long long)moved);
    CHECK_EQ(stats.exhausted, refused);
    CHECK_GE(sent, 1000);
    CHECK_GE(stats.remote_frees, 100);
    CHECK_GE(refused, 1);
    CHECK(stress.any_node ? stats.other_node_allocs > 0 : stats.other_node_allocs == 0);
    kit_close(); /* every byte free, every book in order */
}

TEST(objects_that_travel_between_nodes_keep_their_contents)
{
    stress_policy(HAK_EXHAUSTED_FAIL);
}

TEST(so_they_do_where_a_full_node_is_served_by_others)
{
    stress_policy(HAK_EXHAUSTED_ANY_NODE);
}

int main(int argc, char **argv)
{
    seconds = harness_stress_seconds(20);
    if (argc > 1 && isdigit((unsigned char)argv[1][0])) {
        seconds = (unsigned)strtoul(argv[1], NULL, 10);
        argv[1] = argv[0];
        argc--;
        argv++;
    }
    return harness_main(argc, argv);
}
