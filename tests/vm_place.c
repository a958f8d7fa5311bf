/* SPDX-License-Identifier: MIT */
/*
 * On a machine with several nodes: where segments, objects and threads really are. vm_place_kit.h
 * has how the machine is found out; where it has too little, a case skips and says what is missing.
 */
#define _GNU_SOURCE
#include "tests/vm_place_kit.h"

#include "numa/ranges.h"
#include "numa/sysfs.h"

#include <sys/mman.h>

/* ---- the machine as promised ---------------------------------------------------------------- */

static void add_range(void *context, unsigned first, unsigned last)
{
    uint64_t *mask = context;

    for (unsigned n = first; n <= last && n < 64; n++) {
        *mask |= UINT64_C(1) << n;
    }
}

/* The text behind KEY= in VM_EXPECT, or NULL. */
static const char *promised(const char *key)
{
    const char *at = getenv("VM_EXPECT");

    while (at != NULL && (at = strstr(at, key)) != NULL) {
        if ((at == getenv("VM_EXPECT") || at[-1] == ' ') && at[strlen(key)] == '=') {
            return at + strlen(key) + 1;
        }
        at++;
    }
    return NULL;
}

/* The list behind KEY=, up to a blank; empty where the word is not there. */
static uint64_t promised_nodes(const char *key)
{
    const char *text = promised(key);
    char list[128];
    uint64_t mask = 0;

    snprintf(list, sizeof(list), "%s", text != NULL ? text : "");
    list[strcspn(list, " ")] = '\0';
    ranges_scan(list, add_range, &mask);
    return mask;
}

static bool distances_are_asymmetric(void)
{
    for (unsigned a = 0; a < vm_machine.node_end; a++) {
        for (unsigned b = 0; b < a; b++) {
            if (vm_machine.distance[a][b] != vm_machine.distance[b][a]) {
                return true;
            }
        }
    }
    return false;
}

static void check_distances(void)
{
    const int end = (int)vm_machine.node_end;

    for (int pair = 0; pair < end * end; pair++) {
        int a = pair / end, b = pair % end;
        if (vm_machine.nodes[a].exists && vm_machine.nodes[b].exists) {
            CHECK_EQ(vm_machine.distance[a][b], vm_distance(a, b));
        }
    }
}

TEST(the_machine_is_what_was_promised)
{
    uint64_t nodes = 0, memoryless = 0, cpuless = 0, forbidden = 0;
    const char *distances = promised("distances");

    if (getenv("VM_EXPECT") == NULL) {
        SKIP("VM_EXPECT does not say what this machine is to be");
    }
    vm_needs(0);
    for (unsigned node = 0; node < vm_machine.node_end; node++) {
        const struct topology_node *entry = &vm_machine.nodes[node];
        nodes |= (uint64_t)entry->exists << node;
        memoryless |= (uint64_t)(entry->exists && !entry->has_memory) << node;
        cpuless |= (uint64_t)(entry->exists && !entry->has_cpus) << node;
        forbidden |= (uint64_t)(entry->exists && !entry->allowed) << node;
    }
    CHECK_EQ(nodes, promised_nodes("nodes"));
    CHECK_EQ(memoryless, promised_nodes("memoryless"));
    CHECK_EQ(cpuless, promised_nodes("cpuless"));
    CHECK_EQ(distances_are_asymmetric(), distances != NULL && strncmp(distances, "asym", 4) == 0);
    if (promised("cpuset") != NULL) {
        /* A node without memory is in no cpuset's set. */
        CHECK_EQ(forbidden & ~memoryless, nodes & ~memoryless & ~promised_nodes("cpuset"));
    } else {
        CHECK_EQ(forbidden & ~memoryless, 0);
    }
    check_distances();
}

/* ---- segments ------------------------------------------------------------------------------- */

TEST(every_page_of_every_segment_lies_on_its_node)
{
    vm_needs(2);
    struct hak_region *heap = vm_open(HAK_EXHAUSTED_FAIL);
    for (uint32_t n = 0; n < heap->area.segment_count; n++) {
        struct segment *segment = &heap->area.segments[n];
        size_t bytes = (size_t)segment->superslab_count << SUPERSLAB_LOG2;
        struct vm_pages pages = {.node = segment->node};
        vm_expect(&pages, (void *)segment->base, bytes);
        vm_ask(&pages);
        CHECK_EQ(pages.asked, bytes / 4096);
    }
    kit_close();
}

TEST(a_nodes_tables_lie_on_it_too)
{
    vm_needs(2);
    struct hak_region *heap = vm_open(HAK_EXHAUSTED_FAIL);
    for (uint32_t n = 0; n < heap->pool_count; n++) {
        struct pool *pool = &heap->pools[n];
        struct vm_pages pages = {.node = pool->segment->node};
        vm_expect(&pages, thread_slot(pool, 0), sizeof(struct thread));
        vm_expect(&pages, pool->segment->index_memory, pool->segment->index_bytes);
        vm_ask(&pages);
    }
    kit_close();
}

/* ---- workers -------------------------------------------------------------------------------- */

#define WORKERS_HERE 64u
#define SAMPLE 2000

static struct {
    int cpu, node, home;
    unsigned calls;
} workers[WORKERS_HERE];
static unsigned worker_count;

/* Where the calling worker is, by the kernel's words. */
static int note_worker(unsigned worker)
{
    cpu_set_t mine;

    CHECK(worker < WORKERS_HERE);
    CHECK_EQ(sched_getaffinity(0, sizeof(mine), &mine), 0);
    CHECK_EQ(CPU_COUNT(&mine), 1);
    workers[worker].cpu = sched_getcpu();
    workers[worker].node = (int)vm_machine.cpu_node[workers[worker].cpu];
    workers[worker].home = vm_home_of(workers[worker].node);
    workers[worker].calls++;
    return workers[worker].home;
}

/* Runs it on a worker for each processor. */
static void on_all(hak_worker_fn run)
{
    cpu_set_t given;

    CHECK_EQ(sched_getaffinity(0, sizeof(given), &given), 0);
    memset(workers, 0, sizeof(workers));
    worker_count = (unsigned)min_size((size_t)CPU_COUNT(&given), WORKERS_HERE);
    CHECK_EQ(hak_worker_start(worker_count, run, NULL), 0);
    CHECK_EQ(hak_worker_join(), 0);
    if (vm_failed()) {
        harness_leave(HARNESS_FAILED); /* a worker has said why */
    }
    for (unsigned n = 0; n < worker_count; n++) {
        CHECK_EQ(workers[n].calls, 1);
    }
}

/* Objects of one kind, every page of each asked for, and freed. */
static void check_kind(struct vm_pages *pages, void *(*make)(size_t bytes), size_t bytes,
                       unsigned count)
{
    void *objects[SAMPLE];

    CHECK(count <= SAMPLE);
    for (unsigned n = 0; n < count; n++) {
        objects[n] = make(bytes);
        CHECK(objects[n] != NULL);
        vm_expect(pages, objects[n], bytes);
    }
    vm_ask(pages);
    for (unsigned n = 0; n < count; n++) {
        hak_free(objects[n]);
    }
}

static void *make_plain(size_t bytes)
{
    return hak_malloc(bytes);
}

static void *make_zeroed(size_t bytes)
{
    return hak_calloc(3, bytes / 3 + 1);
}

static void *make_aligned(size_t bytes)
{
    return hak_aligned_alloc(64 * KIB, bytes);
}

/* Grows twice; the second time it cannot stay. */
static void *make_grown(size_t bytes)
{
    void *object = hak_realloc(NULL, bytes / 9 + 1);

    object = object != NULL ? hak_realloc(object, bytes / 3 + 1) : NULL;
    return object != NULL ? hak_realloc(object, bytes) : NULL;
}

static void check_bulk(struct vm_pages *pages)
{
    void *objects[SAMPLE];

    CHECK_EQ(hak_malloc_bulk(200, SAMPLE, objects), SAMPLE);
    for (unsigned n = 0; n < SAMPLE; n++) {
        vm_expect(pages, objects[n], 200);
    }
    vm_ask(pages);
    hak_free_bulk(objects, SAMPLE);
}

/* Every kind of object, all of them on that node; small counts, several workers share a node. */
static void check_all_kinds(int node)
{
    static const size_t sizes[] = {16, 100, 1000, 5000, 100 * KIB, 300 * KIB, 2 * MIB};
    static const unsigned counts[] = {SAMPLE, SAMPLE, 500, 100, 4, 2, 1};
    struct vm_pages pages = {.node = node};

    for (unsigned n = 0; n < sizeof(sizes) / sizeof(*sizes); n++) {
        check_kind(&pages, make_plain, sizes[n], counts[n]);
        check_kind(&pages, make_zeroed, sizes[n], counts[n]);
        check_kind(&pages, make_aligned, sizes[n], (unsigned)min_size(counts[n], 8));
        check_kind(&pages, make_grown, sizes[n], counts[n]);
    }
    check_bulk(&pages);
    CHECK_GE(pages.asked, 10000);
}

static void check_worker(unsigned worker, void *unused)
{
    (void)unused;
    check_all_kinds(note_worker(worker));
    struct vm_pages pages = {.node = workers[worker].home};
    vm_expect(&pages, thread_self[0].active, sizeof(struct thread));
    vm_ask(&pages);
}

TEST(workers_get_every_kind_of_object_on_their_own_node)
{
    vm_needs(2);
    vm_open(HAK_EXHAUSTED_FAIL);
    on_all(check_worker);
    kit_close();
}

/* How many processors of its core have lower numbers. */
static void count_lower(void *context, unsigned first, unsigned last)
{
    unsigned *of = context; /* the processor, and the count */

    for (unsigned cpu = first; cpu <= last && cpu < of[0]; cpu++) {
        of[1]++;
    }
}

static unsigned core_rank(int cpu)
{
    char name[96];
    unsigned of[2] = {(unsigned)cpu, 0};

    snprintf(name, sizeof(name), "/sys/devices/system/cpu/cpu%d/topology/core_cpus_list", cpu);
    CHECK_EQ(ranges_read(name, count_lower, of), 0);
    return of[1];
}

TEST(workers_are_dealt_out_over_the_nodes_that_have_processors)
{
    bool seen[CPU_SETSIZE] = {false};
    unsigned with_both = 0;

    vm_needs(2);
    vm_open(HAK_EXHAUSTED_FAIL);
    on_all(check_worker);
    for (unsigned n = 0; n < vm_node_count; n++) {
        with_both += vm_cpu_on(vm_nodes[n]) >= 0;
    }
    for (unsigned n = 0; n < worker_count; n++) {
        CHECK(!seen[workers[n].cpu]); /* each processor once */
        seen[workers[n].cpu] = true;
        /* The first ones are on a node each, the last where a node has no memory. */
        if (n < with_both) {
            CHECK_EQ(workers[n].node, workers[n].home);
        }
        for (unsigned m = 0; m < n; m++) {
            CHECK(n >= with_both || workers[m].node != workers[n].node);
            /* On a node every core's first processor, then the second ones. */
            CHECK(workers[m].node != workers[n].node ||
                  core_rank(workers[m].cpu) <= core_rank(workers[n].cpu));
        }
    }
    kit_close();
}

/* ---- frees from other nodes ----------------------------------------------------------------- */

#define RING_SLOTS 1024u
/* Objects that go to another worker, all workers together; fewer where many emulated processors
 * share a few real ones. */
#define TRAVELLERS 2400000u
#define TRAVELLERS_OF_MANY 1600000u

static struct ring {
    _Atomic uint32_t written CACHE_ALIGNED;
    _Atomic uint32_t taken CACHE_ALIGNED;
    void *slots[RING_SLOTS];
} rings[WORKERS_HERE]; /* to each worker from the one before it */
static _Atomic uint64_t foreign_frees;

static void wait_while_none_failed(void)
{
    if (vm_failed()) {
        pthread_exit(NULL); /* the other side may never come */
    }
    sched_yield();
}

static void pass_on(struct ring *ring, void *object)
{
    uint32_t written = atomic_load_explicit(&ring->written, memory_order_relaxed);

    /* Acquire: the slot has been read. */
    while (written - atomic_load_explicit(&ring->taken, memory_order_acquire) == RING_SLOTS) {
        wait_while_none_failed();
    }
    ring->slots[written % RING_SLOTS] = object;
    atomic_store_explicit(&ring->written, written + 1, memory_order_release);
}

/* Frees what is there; how many, and how many of them are other nodes'. */
static unsigned take_over(struct ring *ring, int home, uint64_t *foreign)
{
    const struct hak_region *heap = hak_region_default();
    uint32_t taken = atomic_load_explicit(&ring->taken, memory_order_relaxed);
    uint32_t written = atomic_load_explicit(&ring->written, memory_order_acquire);
    unsigned count = written - taken;

    for (; taken != written; taken++) {
        void *object = ring->slots[taken % RING_SLOTS];
        *foreign += heap->area.segments[kit_segment(object)].node != home;
        hak_free(object);
    }
    atomic_store_explicit(&ring->taken, taken, memory_order_release);
    return count;
}

/* Allocates for the next worker and frees what the one before made, so many of each. */
static void travel(unsigned worker, void *unused)
{
    int home = note_worker(worker);
    unsigned most = (worker_count <= 4 ? TRAVELLERS : TRAVELLERS_OF_MANY) / worker_count;
    unsigned sent = 0, received = 0;
    uint64_t foreign = 0, random = harness_seed() + worker;

    (void)unused;
    while (sent < most || received < most) {
        for (unsigned n = 0; n < 256 && sent < most; n++, sent++) {
            void *object = hak_malloc(harness_random(&random) % 200 + 1);
            CHECK(object != NULL);
            *(volatile unsigned char *)object = 1;
            pass_on(&rings[(worker + 1) % worker_count], object);
            if (sent % 64 == 0) {
                received += take_over(&rings[worker], home, &foreign);
            }
        }
        received += take_over(&rings[worker], home, &foreign);
        wait_while_none_failed();
    }
    atomic_fetch_add(&foreign_frees, foreign);
    check_all_kinds(home); /* what it is given is still its own node's */
}

/* An object of several classes on each node stays, so that "as before" is not just "empty". */
static void *kept[HAK_NODES_MAX][8];

static void *keep_some(void *unused)
{
    for (unsigned n = 0; n < vm_node_count; n++) {
        for (unsigned k = 0; k < 8; k++) {
            kept[n][k] = hak_malloc_on_node(k * 25 + 1, vm_nodes[n]);
            CHECK(kept[n][k] != NULL);
            CHECK_EQ(vm_node_of(kept[n][k]), vm_nodes[n]);
        }
    }
    return unused;
}

TEST(millions_of_frees_from_other_nodes_go_home_in_batches)
{
    struct hak_node_stats before[HAK_NODES_MAX] = {{0}};

    vm_needs(2);
    memset(rings, 0, sizeof(rings));
    atomic_store(&foreign_frees, 0);
    (void)harness_seed();
    vm_open(HAK_EXHAUSTED_FAIL);
    kit_elsewhere(keep_some, NULL);
    for (unsigned n = 0; n < vm_node_count; n++) {
        before[n] = vm_node_stats(vm_nodes[n]);
        CHECK_GE(before[n].slab_free_bytes, 1);
    }
    on_all(travel);
    if (atomic_load(&foreign_frees) == 0) {
        SKIP("all processors have the same home: nothing goes to another node");
    }
    struct hak_stats stats = kit_stats();
    printf("  %u workers, %llu objects to another node, %llu batches\n", worker_count,
           (unsigned long long)stats.remote_frees, (unsigned long long)stats.remote_drains);
    CHECK_EQ(stats.remote_frees, atomic_load(&foreign_frees));
    CHECK_GE(stats.remote_frees, worker_count <= 4 ? 1000000 : 500000);
    CHECK_GE(stats.remote_frees / stats.remote_drains, 9);
    for (unsigned n = 0; n < vm_node_count; n++) {
        struct hak_node_stats after = vm_node_stats(vm_nodes[n]);
        CHECK_EQ(after.free_bytes, before[n].free_bytes);
        CHECK_EQ(after.slab_bytes, before[n].slab_bytes);
        CHECK_EQ(after.slab_free_bytes, before[n].slab_free_bytes);
        CHECK_EQ(after.large_bytes, 0);
        hak_free_bulk(kept[n], 8);
    }
    kit_close();
}

/* ---- nodes by name, full nodes -------------------------------------------------------------- */

TEST(an_object_by_name_lies_on_that_node_whoever_asks)
{
    static const size_t sizes[] = {1, 300, 9000, 200 * KIB, 3 * MIB};

    vm_needs(2);
    vm_open(HAK_EXHAUSTED_ANY_NODE);
    for (unsigned n = 0; n < vm_node_count; n++) {
        struct vm_pages pages = {.node = vm_nodes[n]};
        for (unsigned s = 0; s < sizeof(sizes) / sizeof(*sizes); s++) {
            void *object = hak_malloc_on_node(sizes[s], vm_nodes[n]);
            CHECK(object != NULL);
            vm_expect(&pages, object, sizes[s]);
            hak_free(object);
        }
        vm_ask(&pages);
    }
    CHECK_EQ(kit_stats().other_node_allocs, 0);
    kit_close();
}

/* A list through the objects; 64 KiB each, so that a node's last byte is used. */
struct link {
    struct link *next;
};

static struct link *take_one(struct link *list, int *node)
{
    struct link *object = hak_malloc(64 * KIB);

    if (object == NULL) {
        return NULL;
    }
    *node = vm_node_of(object);
    object->next = list;
    return object;
}

static void free_list(struct link *list)
{
    while (list != NULL) {
        struct link *next = list->next;
        hak_free(list);
        list = next;
    }
}

/* The calling thread's node has nothing left: fails by the book. */
static void *fill_and_fail(void *node)
{
    int home = *(const int *)node, at = -1;
    size_t count = 0;
    struct link *list = NULL, *next;
    struct hak_error error;

    vm_move_to(vm_cpu_on(home));
    while ((next = take_one(list, &at)) != NULL) {
        CHECK_EQ(at, home);
        list = next;
        count++;
    }
    CHECK_EQ(errno, ENOMEM);
    CHECK_EQ(count, vm_node_stats(home).size_bytes / (64 * KIB));
    CHECK_EQ(hak_last_error(&error), -ENOMEM);
    CHECK_EQ(error.kind, HAK_ERROR_EXHAUSTED);
    CHECK_EQ(error.node, home);
    CHECK_EQ(error.size_bytes, 64 * KIB);
    CHECK_EQ(error.free_bytes, 0);
    CHECK_EQ(error.largest_free_bytes, 0);
    CHECK_STR_HAS(error.message, "node");
    CHECK(hak_malloc(3 * MIB) == NULL);
    CHECK_EQ(hak_last_error(&error), -ENOMEM);
    CHECK_EQ(error.node, home);
    CHECK_EQ(error.size_bytes, 3 * MIB);
    struct hak_stats stats = kit_stats();
    CHECK_EQ(stats.exhausted, 2);
    CHECK_EQ(stats.other_node_allocs, 0);
    CHECK_EQ(stats.free_bytes, stats.size_bytes - vm_node_stats(home).size_bytes);
    free_list(list);
    return NULL;
}

TEST(a_full_node_is_an_error_that_names_it)
{
    unsigned tried = 0;

    vm_needs(2);
    for (unsigned n = 0; n < vm_node_count; n++) {
        if (vm_cpu_on(vm_nodes[n]) < 0) {
            continue;
        }
        vm_open(HAK_EXHAUSTED_FAIL);
        kit_elsewhere(fill_and_fail, &vm_nodes[n]);
        if (vm_failed()) {
            harness_leave(HARNESS_FAILED);
        }
        kit_close();
        tried++;
    }
    CHECK_GE(tried, 1);
}

/* The nodes serve in the order of their distance from the caller's, each to its last byte. */
static void *fill_by_distance(void *node)
{
    int home = *(const int *)node, at = -1, expected = home;
    uint64_t left = vm_region_nodes() & ~(UINT64_C(1) << home);
    size_t counts[HAK_NODES_MAX] = {0}, elsewhere = 0;
    struct link *list = NULL, *next;
    struct hak_error error;

    vm_move_to(vm_cpu_on(home));
    while ((next = take_one(list, &at)) != NULL) {
        if (at != expected) {
            CHECK_EQ(counts[expected], vm_node_stats(expected).size_bytes / (64 * KIB));
            expected = vm_nearest(home, left);
            CHECK_EQ(at, expected);
            left &= ~(UINT64_C(1) << expected);
        }
        list = next;
        counts[at]++;
        elsewhere += at != home;
    }
    CHECK_EQ(left, 0);
    CHECK_EQ(errno, ENOMEM);
    CHECK_EQ(hak_last_error(&error), -ENOMEM);
    CHECK_EQ(error.node, home);
    struct hak_stats stats = kit_stats();
    CHECK_EQ(stats.other_node_allocs, elsewhere);
    CHECK_EQ(stats.free_bytes, 0);
    free_list(list);
    return NULL;
}

TEST(any_node_goes_by_distance_from_the_callers_node)
{
    unsigned tried = 0;

    vm_needs(2);
    for (unsigned n = 0; n < vm_node_count; n++) {
        if (vm_cpu_on(vm_nodes[n]) < 0) {
            continue;
        }
        vm_open(HAK_EXHAUSTED_ANY_NODE);
        kit_elsewhere(fill_by_distance, &vm_nodes[n]);
        if (vm_failed()) {
            harness_leave(HARNESS_FAILED);
        }
        kit_close();
        tried++;
    }
    CHECK_GE(tried, 1);
}

HARNESS_MAIN()
