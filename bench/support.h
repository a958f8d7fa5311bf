/* SPDX-License-Identifier: MIT */
/*
 * What every benchmark needs beside its workload: a cheap random number, a clock, memory that does
 * not come from the allocator under test, processors to pin to, and one way to print a result.
 *
 * Callers: bench/ and tools/demo. Everything here is inline, so that a program stays one source
 * file and can be preloaded with any allocator. The harness's own memory comes from bench_map,
 * touched before it is returned: the measured section sees neither its page faults nor its
 * allocations.
 *
 * The result line is what bench/compare reads:
 *     result: NAME VALUE UNIT
 * A unit that ends in "/s" is better when higher, every other when lower.
 */
#ifndef HAK_BENCH_SUPPORT_H
#define HAK_BENCH_SUPPORT_H

#include <errno.h>
#include <getopt.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "region/base.h"

#define BENCH_THREADS_MAX 256

__attribute__((noreturn, format(printf, 1, 2))) static inline void bench_fail(const char *format,
                                                                              ...)
{
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(1);
}

/* xorshift64: three shifts and three xors; the state must not be 0. */
HAK_INLINE uint64_t bench_next(uint64_t *state)
{
    uint64_t x = *state;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    return *state = x;
}

/* A number below limit out of 32 random bits, without a division. */
HAK_INLINE uint32_t bench_below(uint32_t random, uint32_t limit)
{
    return (uint32_t)(((uint64_t)random * limit) >> 32);
}

/* A start state per stream that is never 0, and far from that of the next stream (splitmix64's
 * finalizer). */
static inline uint64_t bench_seed(uint64_t seed, uint64_t stream)
{
    uint64_t x = seed * 0x9e3779b97f4a7c15u + (stream + 1) * 0xd1342543de82ef95u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    x ^= x >> 31;
    return x != 0 ? x : 1;
}

static inline uint64_t bench_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Zeroed memory straight from the kernel, every page present; never given back. */
static inline void *bench_map(size_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (memory == MAP_FAILED)
        bench_fail("cannot map %zu bytes for the benchmark itself: %s", bytes, strerror(errno));
    return memory;
}

/* The index-th processor this process may use, counted round and round. */
static inline int bench_cpu(unsigned index)
{
    cpu_set_t allowed;
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0)
        bench_fail("cannot read the processors allowed: %s", strerror(errno));
    unsigned left = index % (unsigned)CPU_COUNT(&allowed);
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (CPU_ISSET((size_t)cpu, &allowed) && left-- == 0)
            return cpu;
    }
    return 0;
}

/* Pinned threads make rounds comparable; every allocator gets the same. */
static inline void bench_pin(int cpu)
{
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET((size_t)cpu, &one);
    if (sched_setaffinity(0, sizeof one, &one) != 0)
        bench_fail("cannot pin to processor %d: %s", cpu, strerror(errno));
}

/* A whole number with an optional K or M (thousands, millions), from least to most. */
static inline uint64_t bench_number(const char *text, uint64_t least, uint64_t most,
                                    const char *name)
{
    char *end = NULL;
    errno = 0;
    uint64_t value = strtoull(text, &end, 10);
    uint64_t factor = 1;
    if (*end == 'K' || *end == 'k')
        factor = 1000;
    else if (*end == 'M' || *end == 'm')
        factor = 1000000;
    end += factor != 1;
    if (errno != 0 || end == text || *end != '\0' || *text == '-' || value > most / factor ||
        value * factor < least || value * factor > most)
        bench_fail("%s: \"%s\" is not a number from %llu to %llu", name, text,
                   (unsigned long long)least, (unsigned long long)most);
    return value * factor;
}

/* Programs with no option but -t: the number of threads; optind is at the first other argument.
 * Ends the program for -h and for what it does not know. */
static inline unsigned bench_threads_option(int argc, char **argv, unsigned usual,
                                            const char *usage)
{
    unsigned threads = usual;
    int option;
    while ((option = getopt(argc, argv, "t:h")) != -1) {
        if (option == 't') {
            threads = (unsigned)bench_number(optarg, 1, BENCH_THREADS_MAX, "threads");
        } else {
            fputs(usage, option == 'h' ? stdout : stderr);
            exit(option == 'h' ? 0 : 2);
        }
    }
    return threads;
}

/* A barrier for threads that all have a processor: nobody sleeps in it unless the wait is long, so
 * that a start is simultaneous to within a fraction of a microsecond. */
struct bench_gate {
    _Atomic unsigned arrived;
    _Atomic unsigned turn;
};

static inline void bench_gate_wait(struct bench_gate *gate, unsigned threads)
{
    /* The turn must be read before arriving: afterwards the last one may already have raised it. */
    unsigned turn = atomic_load_explicit(&gate->turn, memory_order_relaxed);
    /* acq_rel: what everybody wrote before the gate is seen by everybody behind it [gate]. */
    if (atomic_fetch_add_explicit(&gate->arrived, 1, memory_order_acq_rel) + 1 == threads) {
        atomic_store_explicit(&gate->arrived, 0, memory_order_relaxed);
        atomic_store_explicit(&gate->turn, turn + 1, memory_order_release); /* [gate] */
        return;
    }
    unsigned spins = 0;
    while (atomic_load_explicit(&gate->turn, memory_order_acquire) == turn) { /* [gate] */
        cpu_relax();
        if (++spins > 4096)
            sched_yield();
    }
}

/* Runs body(context + i * stride) on count threads and waits for all of them. */
static inline void bench_run(unsigned count, void *(*body)(void *), void *contexts, size_t stride)
{
    pthread_t threads[BENCH_THREADS_MAX];
    for (unsigned i = 0; i < count; i++) {
        int error = pthread_create(&threads[i], NULL, body, (char *)contexts + i * stride);
        if (error != 0)
            bench_fail("cannot create thread %u: %s", i, strerror(error));
    }
    for (unsigned i = 0; i < count; i++)
        pthread_join(threads[i], NULL);
}

static inline int bench_compare_doubles(const void *left, const void *right)
{
    double a = *(const double *)left;
    double b = *(const double *)right;
    return (a > b) - (a < b);
}

/* Sorts the values. */
static inline double bench_median(double *values, unsigned count)
{
    qsort(values, count, sizeof *values, bench_compare_doubles);
    return count % 2 != 0 ? values[count / 2] : (values[count / 2 - 1] + values[count / 2]) / 2;
}

static inline void bench_result(const char *name, double value, const char *unit)
{
    printf("result: %s %.3f %s\n", name, value, unit);
}

#endif
