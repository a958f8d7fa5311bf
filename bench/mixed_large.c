/* SPDX-License-Identifier: MIT */
/*
 * How does a malloc do beyond small objects?
 *
 * Mode mid: each thread replaces random ones of 1,000 objects of 8 to 16,000 bytes. Mode large: one
 * of 15 objects of 5 to 25 MiB is replaced at a time, and a byte of each of its pages written, so
 * that memory handed back to the kernel and taken again is paid for. Plain malloc and free, to be
 * preloaded.
 */
#define _GNU_SOURCE

#include <getopt.h>

#include "bench/support.h"

#define MID_SLOTS 1000u
#define MID_LEAST 8u
#define MID_COUNT 15993u
#define LARGE_SLOTS 15u
#define LARGE_LEAST (5u << 20)
#define LARGE_COUNT ((20u << 20) + 1)
#define PAGE_BYTES 4096u

struct worker {
    struct bench_gate *gate;
    void **slots;
    uint64_t operations;
    uint64_t random;
    uint64_t start_ns, end_ns;
    unsigned index, threads;
    bool large;
} CACHE_ALIGNED;

static void *new_object(uint64_t random, bool large)
{
    size_t size = large ? LARGE_LEAST + bench_below((uint32_t)random, LARGE_COUNT)
                        : MID_LEAST + bench_below((uint32_t)random, MID_COUNT);
    char *object = malloc(size);
    if (unlikely(object == NULL))
        bench_fail("out of memory at %zu bytes", size);
    for (size_t at = 0; large && at < size; at += PAGE_BYTES)
        object[at] = (char)random;
    object[0] = (char)random;
    object[size - 1] = (char)random;
    return object;
}

static void replace(struct worker *worker, uint64_t operations)
{
    uint32_t slot_count = worker->large ? LARGE_SLOTS : MID_SLOTS;
    for (uint64_t i = 0; i < operations; i++) {
        uint64_t random = bench_next(&worker->random);
        uint32_t slot = bench_below((uint32_t)(random >> 32), slot_count);
        free(worker->slots[slot]);
        worker->slots[slot] = new_object(random, worker->large);
    }
}

static void *body(void *context)
{
    struct worker *worker = context;
    bench_pin(bench_cpu(worker->index));
    uint32_t slot_count = worker->large ? LARGE_SLOTS : MID_SLOTS;
    for (uint32_t i = 0; i < slot_count; i++)
        worker->slots[i] = new_object(bench_next(&worker->random), worker->large);
    replace(worker, worker->operations / 10);
    bench_gate_wait(worker->gate, worker->threads);
    worker->start_ns = bench_now_ns();
    replace(worker, worker->operations);
    worker->end_ns = bench_now_ns();
    for (uint32_t i = 0; i < slot_count; i++)
        free(worker->slots[i]);
    return NULL;
}

static const char usage[] = "usage: mixed_large [-t threads] [mid | large] [operations] [seed]\n"
                            "  mid    (default) 1,000 objects a thread of 8 to 16,000 bytes\n"
                            "  large  15 objects a thread of 5 to 25 MiB (up to 375 MiB a thread)\n"
                            "  Operations are replacements of each thread: default 5M for mid, "
                            "1,000 for large; a tenth of\n"
                            "  them first to warm up. Threads: default 1. Seed: default 42.\n";

int main(int argc, char **argv)
{
    unsigned threads = bench_threads_option(argc, argv, 1, usage);
    const char *mode = optind < argc ? argv[optind++] : "mid";
    bool large = strcmp(mode, "large") == 0;
    uint64_t operations = large ? 1000 : 5000000;
    uint64_t seed = 42;
    if (optind < argc)
        operations = bench_number(argv[optind++], 1, 100000000000u, "operations");
    if (optind < argc)
        seed = bench_number(argv[optind++], 0, UINT64_MAX, "seed");
    if ((!large && strcmp(mode, "mid") != 0) || optind < argc)
        bench_fail("%s", usage);

    static struct worker workers[BENCH_THREADS_MAX];
    static struct bench_gate gate;
    for (unsigned i = 0; i < threads; i++) {
        workers[i] = (struct worker){.gate = &gate,
                                     .slots = bench_map(MID_SLOTS * sizeof(void *)),
                                     .operations = operations,
                                     .random = bench_seed(seed, i),
                                     .index = i,
                                     .threads = threads,
                                     .large = large};
    }
    bench_run(threads, body, workers, sizeof workers[0]);
    uint64_t start_ns = UINT64_MAX;
    uint64_t end_ns = 0;
    for (unsigned i = 0; i < threads; i++) {
        start_ns = workers[i].start_ns < start_ns ? workers[i].start_ns : start_ns;
        end_ns = workers[i].end_ns > end_ns ? workers[i].end_ns : end_ns;
    }
    double seconds = (double)(end_ns - start_ns) / 1e9;
    double ops = 2.0 * (double)operations * threads;
    printf("mixed_large %s: %u threads, %.0f ops (one malloc or one free) in %.3f s, seed %llu\n",
           mode, threads, ops, seconds, (unsigned long long)seed);
    if (large)
        bench_result("mixed_large", ops / seconds / 1e3, "Kop/s");
    else
        bench_result("mixed_mid", ops / seconds / 1e6, "Mop/s");
    return 0;
}
