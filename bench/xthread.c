/* SPDX-License-Identifier: MIT */
/*
 * What does it cost when another thread frees what this one allocated?
 *
 * Mode ring: pairs of threads, a producer that allocates 64-byte objects and a consumer that frees
 * them, joined by a bounded ring; every free is foreign, and memory must find its way back to the
 * producer. Mode slots: all threads replace random objects of 16 to 1,040 bytes in one shared
 * array, so that with two threads half of the frees are foreign, at random.
 *
 * Plain malloc and free, to be preloaded.
 */
#define _GNU_SOURCE

#include <getopt.h>

#include "bench/ring.h"

#define RING_OBJECT_BYTES 64u
#define SLOTS_A_THREAD 8192u
#define SPINS_BEFORE_YIELD 4096u

struct worker {
    struct bench_gate *gate;
    struct ring *ring;
    _Atomic(void *) *slots;
    uint64_t operations;
    uint64_t random;
    uint64_t start_ns, end_ns;
    unsigned index, threads;
} CACHE_ALIGNED;

/* Yields where the other side may be waiting for this processor. */
static void wait_a_little(unsigned *spins)
{
    cpu_relax();
    if (++*spins > SPINS_BEFORE_YIELD)
        sched_yield();
}

static void *new_object(size_t size, uint64_t mark)
{
    char *object = malloc(size);
    if (unlikely(object == NULL))
        bench_fail("out of memory at %zu bytes", size);
    object[0] = (char)mark;
    object[size - 1] = (char)mark;
    return object;
}

static void produce(struct ring *ring, uint64_t blocks)
{
    for (uint64_t i = 0; i < blocks; i++) {
        void **space;
        for (unsigned spins = 0; (space = ring_space(ring)) == NULL;)
            wait_a_little(&spins);
        for (unsigned at = 0; at < RING_BLOCK; at++)
            space[at] = new_object(RING_OBJECT_BYTES, at);
        ring_publish(ring);
    }
}

static void consume(struct ring *ring, uint64_t blocks)
{
    for (uint64_t i = 0; i < blocks; i++) {
        void **block;
        for (unsigned spins = 0; (block = ring_block(ring)) == NULL;)
            wait_a_little(&spins);
        for (unsigned at = 0; at < RING_BLOCK; at++)
            free(block[at]);
        ring_retire(ring);
    }
}

static void replace_shared(struct worker *worker)
{
    uint32_t slot_count = worker->threads * SLOTS_A_THREAD;
    for (uint64_t i = 0; i < worker->operations; i++) {
        uint64_t random = bench_next(&worker->random);
        void *object = new_object(16 + bench_below((uint32_t)random, 1025), random);
        /* acq_rel: contents before the pointer for whoever takes it; the taken one's after it. */
        free(atomic_exchange_explicit(
            &worker->slots[bench_below((uint32_t)(random >> 32), slot_count)], object,
            memory_order_acq_rel));
    }
}

static void *body(void *context)
{
    struct worker *worker = context;
    bench_pin(bench_cpu(worker->index));
    bench_gate_wait(worker->gate, worker->threads);
    worker->start_ns = bench_now_ns();
    if (worker->ring == NULL)
        replace_shared(worker);
    else if (worker->index % 2 == 0)
        produce(worker->ring, worker->operations / RING_BLOCK);
    else
        consume(worker->ring, worker->operations / RING_BLOCK);
    worker->end_ns = bench_now_ns();
    return NULL;
}

/* Seconds from the first start to the last end. */
static double run(bool ring, unsigned threads, uint64_t operations, uint64_t seed)
{
    static struct worker workers[BENCH_THREADS_MAX];
    static struct bench_gate gate;
    static struct ring *rings;
    static _Atomic(void *) *slots;
    if (rings == NULL) {
        rings = bench_map((threads + 1) / 2 * sizeof *rings);
        slots = bench_map(sizeof *slots * SLOTS_A_THREAD * threads);
    }
    for (unsigned i = 0; i < threads; i++) {
        workers[i] = (struct worker){.gate = &gate,
                                     .ring = ring ? &rings[i / 2] : NULL,
                                     .slots = slots,
                                     .operations = operations,
                                     .random = bench_seed(seed, i),
                                     .index = i,
                                     .threads = threads};
    }
    bench_run(threads, body, workers, sizeof workers[0]);
    for (size_t i = 0; !ring && i < (size_t)threads * SLOTS_A_THREAD; i++) {
        /* relaxed: the other threads have ended. */
        free(atomic_exchange_explicit(&slots[i], NULL, memory_order_relaxed));
    }
    uint64_t start_ns = UINT64_MAX;
    uint64_t end_ns = 0;
    for (unsigned i = 0; i < threads; i++) {
        start_ns = workers[i].start_ns < start_ns ? workers[i].start_ns : start_ns;
        end_ns = workers[i].end_ns > end_ns ? workers[i].end_ns : end_ns;
    }
    return (double)(end_ns - start_ns) / 1e9;
}

static const char usage[] =
    "usage: xthread [-t threads] [ring | slots] [operations] [seed]\n"
    "  ring   (default) pairs of threads: one allocates 64-byte objects, the other frees them\n"
    "  slots  every thread replaces random objects of 16 to 1,040 bytes in one shared array\n"
    "  Operations (default 10M) are allocations of each producer, or replacements of each thread;\n"
    "  a tenth of them first to warm up. Threads: default 2, even for ring. Seed: default 42.\n";

int main(int argc, char **argv)
{
    unsigned threads = bench_threads_option(argc, argv, 2, usage);
    const char *mode = optind < argc ? argv[optind++] : "ring";
    bool ring = strcmp(mode, "ring") == 0;
    uint64_t operations = 10000000;
    uint64_t seed = 42;
    if (optind < argc)
        operations = bench_number(argv[optind++], 1000, 100000000000u, "operations");
    if (optind < argc)
        seed = bench_number(argv[optind++], 0, UINT64_MAX, "seed");
    if ((!ring && strcmp(mode, "slots") != 0) || optind < argc || (ring && threads % 2 != 0))
        bench_fail("%s", usage);

    operations = operations / RING_BLOCK * RING_BLOCK;
    run(ring, threads, round_up(operations / 10, RING_BLOCK), seed);
    double seconds = run(ring, threads, operations, seed + 1);
    double frees = (double)operations * (ring ? threads / 2 : threads);
    printf("xthread %s: %u threads, %.0f frees in %.3f s, seed %llu\n", mode, threads, frees,
           seconds, (unsigned long long)seed);
    bench_result(ring ? "xthread_ring" : "xthread_slots", frees / seconds / 1e6, "Mfrees/s");
    return 0;
}
