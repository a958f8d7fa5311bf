/* SPDX-License-Identifier: MIT */
/*
 * bench/region, fourth part: what does a free cost, by whom it is made?
 *
 * The main thread allocates a batch of 64-byte objects and writes to them; they are freed by
 * itself, by a thread on another processor of its node, or by a thread on another node; then it
 * allocates the next batch. Nanoseconds an object of the freeing, in the order of allocation and
 * shuffled, and of the allocation that follows: what a way of freeing leaves to the owner is part
 * of its cost.
 *
 * Frees of another node's objects go home in batches; the library's counters say how many and how
 * large, and the run fails unless they say that every free was a remote one. On a machine with one
 * node the two nodes are pretended (topology_fake): the same code and batches on the same memory,
 * so the table says so, and the cost of the way between nodes is not in it.
 */
#ifndef HAK_BENCH_REGION_REMOTE_H
#define HAK_BENCH_REGION_REMOTE_H

#include <hakmem.h>

#include "bench/region_cells.h"
#include "bench/region_plan.h"
#include "numa/topology.h"

#define REMOTE_SECTION "free"
#define REMOTE_OBJECTS ((size_t)1 << 17)
#define REMOTE_OBJECT_BYTES 64
#define REMOTE_NODE_BYTES ((size_t)32 << 20)
/* The first two laps, one of each order, warm up. */
#define REMOTE_WARM_LAPS 2

enum remote_way { REMOTE_OWN, REMOTE_SAME_NODE, REMOTE_OTHER_NODE, REMOTE_WAYS };

static const char *const remote_names[REMOTE_WAYS] = {"own thread", "same node", "other node"};

struct remote {
    enum remote_way way;
    int owner_cpu, freer_cpu;
    unsigned pretended_nodes; /* 0: the real ones */
    unsigned laps;
    uint64_t random;
    struct bench_gate gate;
    void **objects;
    uint64_t free_ns[2], malloc_ns; /* in order, shuffled; the laps that count, together */
};

static inline void remote_pin(int cpu)
{
    int code = hak_thread_pin(cpu);
    if (code != 0)
        bench_fail("free: cannot pin to processor %d: %s", cpu, strerror(-code));
}

static inline void remote_allocate(struct remote *remote, bool counts)
{
    uint64_t start_ns = bench_now_ns();
    for (size_t i = 0; i < REMOTE_OBJECTS; i++) {
        uint64_t *object = hak_malloc(REMOTE_OBJECT_BYTES);
        if (unlikely(object == NULL))
            bench_fail("free: out of memory after %zu objects", i);
        *object = i;
        remote->objects[i] = object;
    }
    remote->malloc_ns += counts ? bench_now_ns() - start_ns : 0;
}

static inline void remote_shuffle(struct remote *remote)
{
    for (size_t i = REMOTE_OBJECTS - 1; i > 0; i--) {
        size_t other = bench_below((uint32_t)(bench_next(&remote->random) >> 32), (uint32_t)i + 1);
        void *moved = remote->objects[i];
        remote->objects[i] = remote->objects[other];
        remote->objects[other] = moved;
    }
}

static inline void remote_free_all(struct remote *remote, unsigned lap)
{
    uint64_t start_ns = bench_now_ns();
    for (size_t i = 0; i < REMOTE_OBJECTS; i++)
        hak_free(remote->objects[i]);
    remote->free_ns[lap % 2] += lap >= REMOTE_WARM_LAPS ? bench_now_ns() - start_ns : 0;
}

/* The other side: waits at the gate for each batch, and again when it is freed. */
static inline void *remote_freer(void *argument)
{
    struct remote *remote = argument;
    remote_pin(remote->freer_cpu);
    /* A thread that only frees takes up no slot at once; this one has one from the start. */
    void *object = hak_malloc(REMOTE_OBJECT_BYTES);
    hak_free(object);
    for (unsigned lap = 0; lap < remote->laps; lap++) {
        bench_gate_wait(&remote->gate, 2);
        remote_free_all(remote, lap);
        bench_gate_wait(&remote->gate, 2);
    }
    return NULL;
}

static inline void remote_run(struct remote *remote)
{
    pthread_t freer;
    bool other = remote->way != REMOTE_OWN;
    int code = other ? pthread_create(&freer, NULL, remote_freer, remote) : 0;
    if (code != 0)
        bench_fail("free: no thread: %s", strerror(code));
    for (unsigned lap = 0; lap < remote->laps; lap++) {
        remote_allocate(remote, lap >= REMOTE_WARM_LAPS);
        if (lap % 2 == 1)
            remote_shuffle(remote);
        if (other) {
            bench_gate_wait(&remote->gate, 2);
            bench_gate_wait(&remote->gate, 2);
        } else {
            remote_free_all(remote, lap);
        }
    }
    if (other)
        pthread_join(freer, NULL);
}

/* Two processors of one node, or of two; pretended nodes where there is one. False with a note. */
static inline bool remote_choose(struct remote *remote, const struct topology *machine,
                                 const struct region_plan *plan)
{
    unsigned nearest = TOPOLOGY_DISTANCE_UNKNOWN + 1;
    bool several = popcount64(plan->nodes) > 1;
    remote->owner_cpu = remote->freer_cpu = plan->cpu;
    if (remote->way == REMOTE_OWN)
        return true;
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        int node = topology_cpu_node(cpu);
        if (!CPU_ISSET((size_t)cpu, &plan->cpus) || cpu == plan->cpu || node < 0)
            continue;
        bool same = node == plan->node;
        if (remote->way == REMOTE_SAME_NODE ? !same : same == several)
            continue;
        unsigned distance = machine->distance[plan->node][node];
        if (distance < nearest && (same || (plan->nodes >> node & 1) != 0)) {
            nearest = distance;
            remote->freer_cpu = cpu;
        }
    }
    if (remote->freer_cpu != plan->cpu) {
        /* Pretended nodes get the processors in turn: the least number that parts these two. */
        unsigned apart = (unsigned)abs(remote->freer_cpu - remote->owner_cpu);
        if (remote->way == REMOTE_OTHER_NODE && !several)
            for (remote->pretended_nodes = 2; apart % remote->pretended_nodes == 0;)
                remote->pretended_nodes++;
        return true;
    }
    cell_leave_out(REMOTE_SECTION, remote_names[remote->way], "this process may use %s",
                   remote->way == REMOTE_SAME_NODE
                       ? "one processor of the node only"
                       : "no processor of another node that has memory");
    return false;
}

static inline void remote_record(const struct remote *remote, unsigned round,
                                 const struct hak_stats *stats)
{
    const char *name = remote_names[remote->way];
    double counted = (double)REMOTE_OBJECTS * (remote->laps - REMOTE_WARM_LAPS);
    bool far = remote->way == REMOTE_OTHER_NODE;
    uint64_t sent = far ? stats->remote_frees : stats->flushed_objects;
    uint64_t batches = far ? stats->remote_drains : stats->cache_flushes;
    uint64_t remote_expected = far ? REMOTE_OBJECTS * remote->laps : 0;
    if (stats->remote_frees != remote_expected)
        bench_fail("free by %s: %llu frees counted as remote, not %llu", name,
                   (unsigned long long)stats->remote_frees, (unsigned long long)remote_expected);
    cell_set(REMOTE_SECTION, name, "in order", "ns", 0, round,
             (double)remote->free_ns[0] / counted * 2);
    cell_set(REMOTE_SECTION, name, "shuffled", "ns", 0, round,
             (double)remote->free_ns[1] / counted * 2);
    cell_set(REMOTE_SECTION, name, "malloc", "ns", 0, round, (double)remote->malloc_ns / counted);
    if (batches != 0)
        cell_set(REMOTE_SECTION, name, "batch", "objects", 0, round,
                 (double)sent / (double)batches);
}

static inline void remote_round(struct remote *remote, unsigned round,
                                const struct region_plan *plan)
{
    struct hak_error error;
    struct hak_stats stats;
    unsigned nodes = remote->pretended_nodes != 0 ? remote->pretended_nodes
                                                  : popcount64(plan->nodes);
    struct hak_config config = {.size_bytes = REMOTE_NODE_BYTES * nodes,
                                .pages = {HAK_PAGES_4K},
                                .prefault = HAK_ON,
                                .misuse = HAK_MISUSE_ABORT,
                                .exhausted = HAK_EXHAUSTED_FAIL};
    topology_fake(remote->pretended_nodes);
    remote_pin(remote->owner_cpu);
    if (hak_region_init(&config) != 0) {
        hak_last_error(&error);
        bench_fail("free: %s\n%s", error.message, error.remedy);
    }
    remote->free_ns[0] = remote->free_ns[1] = remote->malloc_ns = 0;
    remote_run(remote);
    hak_region_stats(NULL, &stats);
    if (hak_region_fini() != 0)
        bench_fail("free: the region could not be ended");
    topology_fake(0);
    remote_pin(plan->cpu);
    remote_record(remote, round, &stats);
}

static inline void remote_print(const struct remote *remotes, const struct topology *machine,
                                unsigned rounds)
{
    char text[4][CELL_TEXT_BYTES];
    printf("\nfree: %zu objects of %d bytes, ns each; rounds: %u\n", REMOTE_OBJECTS,
           REMOTE_OBJECT_BYTES, rounds);
    printf("  %-12s  %-20s  %-20s  %-20s  %-20s  %s\n", "freed by", "free, in order",
           "free, shuffled", "malloc after it", "objects a batch", "nodes");
    for (unsigned way = 0; way < REMOTE_WAYS; way++) {
        const char *name = remote_names[way];
        int from = topology_cpu_node(remotes[way].owner_cpu);
        int to = topology_cpu_node(remotes[way].freer_cpu);
        printf("  %-12s  %-20s  %-20s  %-20s  %-20s  ", name,
               cell_text(cell_spread(REMOTE_SECTION, name, "in order", 0), 2, text[0]),
               cell_text(cell_spread(REMOTE_SECTION, name, "shuffled", 0), 2, text[1]),
               cell_text(cell_spread(REMOTE_SECTION, name, "malloc", 0), 2, text[2]),
               cell_text(cell_spread(REMOTE_SECTION, name, "batch", 0), 1, text[3]));
        if (remotes[way].pretended_nodes != 0)
            printf("pretended\n");
        else if (cell_noted(REMOTE_SECTION, name))
            printf("-\n");
        else
            printf("%d to %d, distance %u\n", to, from, machine->distance[from][to]);
    }
    cell_print_notes(REMOTE_SECTION);
}

static inline void remote_measure(const struct region_plan *plan)
{
    static struct remote remotes[REMOTE_WAYS];
    static struct topology machine;
    struct plan_clock clock = plan_start(plan->quick ? 4 : 20, plan->quick ? 2 : 9);
    int code = topology_read(&machine);
    if (code != 0)
        bench_fail("the machine's nodes cannot be read: %s", strerror(-code));
    void **objects = bench_map(REMOTE_OBJECTS * sizeof *objects);
    bool there[REMOTE_WAYS];
    for (unsigned way = 0; way < REMOTE_WAYS; way++) {
        remotes[way] = (struct remote){.way = (enum remote_way)way,
                                       .laps = plan->quick ? 8 : 22,
                                       .random = bench_seed(plan->seed, 3 + way),
                                       .objects = objects};
        there[way] = remote_choose(&remotes[way], &machine, plan);
    }
    for (unsigned round = 0; plan_again(&clock, round); round++) {
        for (unsigned way = 0; way < REMOTE_WAYS; way++) {
            if (there[way])
                remote_round(&remotes[way], round, plan);
        }
    }
    remote_print(remotes, &machine, clock.rounds);
}

#endif
