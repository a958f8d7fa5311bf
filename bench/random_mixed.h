/* SPDX-License-Identifier: MIT */
/*
 * The random-mixed workload: every step frees a random object of a working set and puts a new one
 * of random size, 16 to 1,040 bytes, in its place.
 *
 * Included by exactly one source file per program, which first says what it measures:
 *     BENCH_NAME                   program's name
 *     BENCH_MALLOC, BENCH_FREE     the calls under test
 *     BENCH_PIN(cpu)               binds the calling thread to a processor
 *     BENCH_START()                once, in the first thread, before anything is allocated
 *     BENCH_SNAPSHOT(i)            0: warmed up, nobody allocates; 1: measured, all still held
 *     BENCH_REPORT(replacements)   after the result, with how many lie between the snapshots
 * One source for both ways of calling keeps the figures comparable.
 */
#include <getopt.h>

#include "bench/support.h"

#define SIZE_LEAST 16u
#define SIZE_COUNT 1025u /* 16 to 1,040 */
#define WARM_UP_REPLACEMENTS 1000000u

struct mixed_options {
    uint64_t operations;  /* replacements, each thread */
    uint32_t working_set; /* objects, each thread */
    uint64_t seed;
    unsigned threads;
};

struct mixed_worker {
    const struct mixed_options *options;
    struct bench_gate *gate;
    void **slots;
    uint64_t random;
    int cpu;
    uint64_t start_ns, end_ns;
} CACHE_ALIGNED;

HAK_INLINE void *mixed_object(uint64_t random)
{
    size_t size = SIZE_LEAST + bench_below((uint32_t)random, SIZE_COUNT);
    char *object = BENCH_MALLOC(size);
    if (unlikely(object == NULL))
        bench_fail("out of memory at %zu bytes", size);
    object[0] = (char)random;
    object[size - 1] = (char)random;
    return object;
}

/* The low half of a random number gives the size, the high half the slot. */
HAK_NOINLINE static uint64_t mixed_replace(void **slots, uint32_t working_set, uint64_t operations,
                                           uint64_t random)
{
    for (uint64_t i = 0; i < operations; i++) {
        bench_next(&random);
        uint32_t slot = bench_below((uint32_t)(random >> 32), working_set);
        BENCH_FREE(slots[slot]);
        slots[slot] = mixed_object(random);
    }
    return random;
}

static void *mixed_body(void *context)
{
    struct mixed_worker *worker = context;
    const struct mixed_options *options = worker->options;
    unsigned everybody = options->threads + 1;
    BENCH_PIN(worker->cpu);
    for (uint32_t i = 0; i < options->working_set; i++)
        worker->slots[i] = mixed_object(bench_next(&worker->random));
    worker->random = mixed_replace(worker->slots, options->working_set, WARM_UP_REPLACEMENTS,
                                   worker->random);

    bench_gate_wait(worker->gate, everybody); /* first snapshot */
    bench_gate_wait(worker->gate, everybody);
    worker->start_ns = bench_now_ns();
    worker->random = mixed_replace(worker->slots, options->working_set, options->operations,
                                   worker->random);
    worker->end_ns = bench_now_ns();
    bench_gate_wait(worker->gate, everybody); /* second snapshot */
    bench_gate_wait(worker->gate, everybody);
    for (uint32_t i = 0; i < options->working_set; i++)
        BENCH_FREE(worker->slots[i]);
    return NULL;
}

/* From the first start to the last end. */
static double mixed_run(const struct mixed_options *options)
{
    static struct mixed_worker workers[BENCH_THREADS_MAX];
    static struct bench_gate gate;
    static pthread_t threads[BENCH_THREADS_MAX];
    unsigned everybody = options->threads + 1;
    for (unsigned i = 0; i < options->threads; i++) {
        workers[i] = (struct mixed_worker){
            .options = options,
            .gate = &gate,
            .slots = bench_map(options->working_set * sizeof(void *)),
            .random = bench_seed(options->seed, i),
            .cpu = bench_cpu(i)};
        if (pthread_create(&threads[i], NULL, mixed_body, &workers[i]) != 0)
            bench_fail("cannot create thread %u", i);
    }
    bench_gate_wait(&gate, everybody);
    BENCH_SNAPSHOT(0);
    bench_gate_wait(&gate, everybody);
    bench_gate_wait(&gate, everybody);
    BENCH_SNAPSHOT(1);
    bench_gate_wait(&gate, everybody);

    uint64_t start_ns = UINT64_MAX;
    uint64_t end_ns = 0;
    for (unsigned i = 0; i < options->threads; i++) {
        pthread_join(threads[i], NULL);
        start_ns = workers[i].start_ns < start_ns ? workers[i].start_ns : start_ns;
        end_ns = workers[i].end_ns > end_ns ? workers[i].end_ns : end_ns;
    }
    return (double)(end_ns - start_ns) / 1e9;
}

static const char mixed_usage[] =
    "usage: " BENCH_NAME " [-t threads] [operations] [working set] [seed]\n"
    "  Each operation frees a random object of the working set and allocates one of 16 to 1,040\n"
    "  bytes in its place. Operations (default 10M) and working set (default 8192) are for each\n"
    "  thread (default 1); K and M are thousands and millions. 1 M operations more warm it up.\n"
    "  Every thread is pinned. The same seed (default 42) gives the same sequence.\n";

static struct mixed_options mixed_parse(int argc, char **argv)
{
    struct mixed_options options = {
        .operations = 10000000, .working_set = 8192, .seed = 42, .threads = 1};
    int option;
    while ((option = getopt(argc, argv, "t:h")) != -1) {
        if (option == 't') {
            options.threads = (unsigned)bench_number(optarg, 1, BENCH_THREADS_MAX, "threads");
        } else {
            fputs(mixed_usage, option == 'h' ? stdout : stderr);
            exit(option == 'h' ? 0 : 2);
        }
    }
    if (optind < argc)
        options.operations = bench_number(argv[optind++], 1, 100000000000u, "operations");
    if (optind < argc)
        options.working_set = (uint32_t)bench_number(argv[optind++], 1, 100000000, "working set");
    if (optind < argc)
        options.seed = bench_number(argv[optind++], 0, UINT64_MAX, "seed");
    if (optind < argc)
        bench_fail("%s", mixed_usage);
    return options;
}

int main(int argc, char **argv)
{
    struct mixed_options options = mixed_parse(argc, argv);
    BENCH_START();
    double seconds = mixed_run(&options);
    double replacements = (double)options.operations * options.threads;
    printf(BENCH_NAME ": %u thread%s, working set %u, 16 to 1,040 bytes, seed %llu\n",
           options.threads, options.threads == 1 ? "" : "s", options.working_set,
           (unsigned long long)options.seed);
    printf("%.1f M op/s (op = one malloc or one free; %.0f replacements are %.0f ops, %.3f s)\n",
           2 * replacements / seconds / 1e6, replacements, 2 * replacements, seconds);
    bench_result("random_mixed", 2 * replacements / seconds / 1e6, "Mop/s");
    BENCH_REPORT((uint64_t)replacements);
    return 0;
}
