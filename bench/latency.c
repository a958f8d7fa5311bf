/* SPDX-License-Identifier: MIT */
/*
 * How long does a single call take, and how long do the slowest take?
 *
 * Every malloc and every free of the measured part is timed by itself, none is left out. Random
 * replacements in a working set: 16 to 1,040 bytes, every 64th 2 to 64 KiB, every 1,024th up to
 * 512 KiB. Objects are written outside the timed part, so that a page fault on first use counts for
 * nobody. What the timing itself costs is measured, printed, and left in. The maximum is mostly the
 * machine's: the number of times the thread lost its processor stands beside it.
 *
 * Plain malloc and free, to be preloaded, so that every allocator is measured by the same program.
 */
#define _GNU_SOURCE

#include <getopt.h>
#include <sys/resource.h>

#include "bench/cycles.h"
#include "bench/histogram.h"

#define WARM_UP_REPLACEMENTS 1000000u

struct worker {
    struct bench_gate *gate;
    void **slots;
    struct histogram *mallocs, *frees;
    uint64_t operations;
    uint64_t random;
    uint32_t working_set;
    unsigned index, threads;
    long preempted, faults;
} CACHE_ALIGNED;

HAK_INLINE size_t draw_size(uint64_t random, uint64_t turn)
{
    uint32_t low = (uint32_t)random;
    if (unlikely(turn % 1024 == 1023))
        return (64u << 10) + bench_below(low, (448u << 10) + 1);
    if (unlikely(turn % 64 == 63))
        return (2u << 10) + bench_below(low, (62u << 10) + 1);
    return 16 + bench_below(low, 1025);
}

static void write_object(void *pointer, size_t size, uint64_t mark)
{
    if (unlikely(pointer == NULL))
        bench_fail("out of memory at %zu bytes", size);
    char *object = pointer;
    object[0] = (char)mark;
    object[size - 1] = (char)mark;
}

static void replace(struct worker *worker, uint64_t operations)
{
    for (uint64_t i = 0; i < operations; i++) {
        uint64_t random = bench_next(&worker->random);
        uint32_t slot = bench_below((uint32_t)(random >> 32), worker->working_set);
        size_t size = draw_size(random, i);
        void *old = worker->slots[slot];

        uint64_t start = cycles_begin();
        free(old);
        uint64_t end = cycles_end();
        histogram_record(worker->frees, end - start);

        start = cycles_begin();
        void *object = malloc(size);
        end = cycles_end();
        histogram_record(worker->mallocs, end - start);
        write_object(object, size, random);
        worker->slots[slot] = object;
    }
}

static void *body(void *context)
{
    struct worker *worker = context;
    struct rusage before, after;
    bench_pin(bench_cpu(worker->index));
    for (uint32_t i = 0; i < worker->working_set; i++) {
        uint64_t random = bench_next(&worker->random);
        size_t size = draw_size(random, i);
        worker->slots[i] = malloc(size);
        write_object(worker->slots[i], size, random);
    }
    replace(worker, WARM_UP_REPLACEMENTS);
    memset(worker->mallocs, 0, sizeof *worker->mallocs);
    memset(worker->frees, 0, sizeof *worker->frees);
    bench_gate_wait(worker->gate, worker->threads);
    getrusage(RUSAGE_THREAD, &before);
    replace(worker, worker->operations);
    getrusage(RUSAGE_THREAD, &after);
    for (uint32_t i = 0; i < worker->working_set; i++)
        free(worker->slots[i]);
    worker->preempted = after.ru_nivcsw - before.ru_nivcsw;
    worker->faults = after.ru_minflt + after.ru_majflt - before.ru_minflt - before.ru_majflt;
    return NULL;
}

static void print_calls(const char *call, const struct histogram *histogram)
{
    static const double shares[] = {0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999};
    static const char *const names[] = {"p50", "p90", "p99", "p99.9", "p99.99", "p99.999"};
    char name[64];
    for (unsigned i = 0; i < sizeof shares / sizeof shares[0]; i++) {
        snprintf(name, sizeof name, "latency_%s_%s", call, names[i]);
        bench_result(name, (double)histogram_percentile(histogram, shares[i]), "cycles");
    }
    snprintf(name, sizeof name, "latency_%s_max", call);
    bench_result(name, (double)histogram->max, "cycles");
}

static const char usage[] =
    "usage: latency [-t threads] [operations] [working set] [seed]\n"
    "  Operations (default 10M) are replacements, one timed free and one timed malloc each; "
    "working\n"
    "  set (default 8,192) is in objects; both are for each thread (default 1). 1 M replacements\n"
    "  first to warm up. Seed: default 42.\n";

int main(int argc, char **argv)
{
    unsigned threads = bench_threads_option(argc, argv, 1, usage);
    uint64_t numbers[3] = {10000000, 8192, 42};
    static const uint64_t most[3] = {100000000000u, 10000000, UINT64_MAX};
    static const char *const names[3] = {"operations", "working set", "seed"};
    for (unsigned i = 0; i < 3 && optind < argc; i++)
        numbers[i] = bench_number(argv[optind++], i == 2 ? 0 : 1, most[i], names[i]);
    if (optind < argc)
        bench_fail("%s", usage);

    static struct worker workers[BENCH_THREADS_MAX];
    static struct bench_gate gate;
    double overhead = cycles_overhead();
    double rate = cycles_per_ns();
    for (unsigned i = 0; i < threads; i++) {
        workers[i] = (struct worker){.gate = &gate,
                                     .slots = bench_map(numbers[1] * sizeof(void *)),
                                     .mallocs = bench_map(sizeof(struct histogram)),
                                     .frees = bench_map(sizeof(struct histogram)),
                                     .operations = numbers[0],
                                     .random = bench_seed(numbers[2], i),
                                     .working_set = (uint32_t)numbers[1],
                                     .index = i,
                                     .threads = threads};
    }
    bench_run(threads, body, workers, sizeof workers[0]);
    for (unsigned i = 1; i < threads; i++) {
        histogram_merge(workers[0].mallocs, workers[i].mallocs);
        histogram_merge(workers[0].frees, workers[i].frees);
        workers[0].preempted += workers[i].preempted;
        workers[0].faults += workers[i].faults;
    }
    printf("latency: %u threads, %llu replacements each in a working set of %llu, seed %llu\n",
           threads, (unsigned long long)numbers[0], (unsigned long long)numbers[1],
           (unsigned long long)numbers[2]);
    printf(
        "%.3f cycles are a nanosecond; an empty timing takes %.0f cycles and is not subtracted\n",
        rate, overhead);
    printf("the counter moves in steps of %llu cycles\n", (unsigned long long)cycles_step());
    printf("involuntary context switches during the run: %ld; page faults: %ld\n",
           workers[0].preempted, workers[0].faults);
    print_calls("malloc", workers[0].mallocs);
    print_calls("free", workers[0].frees);
    bench_result("latency_preempted", (double)workers[0].preempted, "times");
    bench_result("latency_page_faults", (double)workers[0].faults, "times");
    return 0;
}
