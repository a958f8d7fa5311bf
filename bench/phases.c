/* SPDX-License-Identifier: MIT */
/*
 * What does a malloc/free pair cost a program that builds something up and then throws it all away?
 *
 * Each round allocates N objects of 16 to 512 bytes, then frees all of them: in the order in which
 * they came, in reverse, and shuffled. The first round of each order warms up. Plain malloc and
 * free, to be preloaded. Sizes and the shuffled order are drawn beforehand.
 */
#define _GNU_SOURCE

#include <getopt.h>

#include "bench/support.h"

#define SIZES_LOG2 12

enum order { IN_ORDER, REVERSED, SHUFFLED, ORDER_COUNT };

static const char *const order_names[ORDER_COUNT] = {"in order", "reversed", "shuffled"};
static const char *const result_names[ORDER_COUNT] = {"phases_in_order", "phases_reversed",
                                                      "phases_shuffled"};

static uint16_t sizes[1u << SIZES_LOG2];

static void draw_sizes(uint64_t *random)
{
    for (unsigned i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
        sizes[i] = (uint16_t)(16 + bench_below((uint32_t)bench_next(random), 497));
}

/* positions[i]: which object is freed as the i-th. */
static void fill_positions(uint32_t *positions, uint32_t count, enum order order, uint64_t *random)
{
    for (uint32_t i = 0; i < count; i++)
        positions[i] = order == REVERSED ? count - 1 - i : i;
    for (uint32_t i = count - 1; order == SHUFFLED && i > 0; i--) {
        uint32_t other = bench_below((uint32_t)(bench_next(random) >> 32), i + 1);
        uint32_t moved = positions[i];
        positions[i] = positions[other];
        positions[other] = moved;
    }
}

/* Nanoseconds a pair. */
static double run_round(void **objects, const uint32_t *positions, uint32_t count)
{
    uint64_t start_ns = bench_now_ns();
    for (uint32_t i = 0; i < count; i++) {
        size_t size = sizes[i & ((1u << SIZES_LOG2) - 1)];
        char *object = malloc(size);
        if (unlikely(object == NULL))
            bench_fail("out of memory at %zu bytes", size);
        object[0] = (char)i;
        object[size - 1] = (char)i;
        objects[i] = object;
    }
    for (uint32_t i = 0; i < count; i++)
        free(objects[positions[i]]);
    return (double)(bench_now_ns() - start_ns) / count;
}

static const char usage[] =
    "usage: phases [-r rounds] [objects] [seed]\n"
    "  Objects: default 1M. Rounds of each order: default 5, and one more to warm up. Prints the\n"
    "  median round of each order and their mean. Seed: default 42.\n";

int main(int argc, char **argv)
{
    enum { ROUNDS_MAX = 1000 };
    unsigned rounds = 5;
    int option;
    while ((option = getopt(argc, argv, "r:h")) != -1) {
        if (option == 'r') {
            rounds = (unsigned)bench_number(optarg, 1, ROUNDS_MAX, "rounds");
        } else {
            fputs(usage, option == 'h' ? stdout : stderr);
            return option == 'h' ? 0 : 2;
        }
    }
    uint32_t count = 1000000;
    uint64_t seed = 42;
    if (optind < argc)
        count = (uint32_t)bench_number(argv[optind++], 1, 100000000, "objects");
    if (optind < argc)
        seed = bench_number(argv[optind++], 0, UINT64_MAX, "seed");
    if (optind < argc)
        bench_fail("%s", usage);

    uint64_t random = bench_seed(seed, 0);
    void **objects = bench_map(count * sizeof *objects);
    uint32_t *positions = bench_map(count * sizeof *positions);
    static double samples[ROUNDS_MAX];
    bench_pin(bench_cpu(0));
    draw_sizes(&random);
    printf("phases: %u objects of 16 to 512 bytes, %u rounds, seed %llu\n", count, rounds,
           (unsigned long long)seed);
    double sum = 0;
    for (enum order order = IN_ORDER; order < ORDER_COUNT; order++) {
        fill_positions(positions, count, order, &random);
        run_round(objects, positions, count);
        for (unsigned i = 0; i < rounds; i++)
            samples[i] = run_round(objects, positions, count);
        double median_ns = bench_median(samples, rounds);
        printf("freed %-8s  %6.1f ns a pair (%.1f to %.1f)\n", order_names[order], median_ns,
               samples[0], samples[rounds - 1]);
        bench_result(result_names[order], median_ns, "ns");
        sum += median_ns;
    }
    bench_result("phases", sum / ORDER_COUNT, "ns");
    return 0;
}
