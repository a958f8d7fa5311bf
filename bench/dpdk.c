/* SPDX-License-Identifier: MIT */
/*
 * Is hakmem as fast as a pool made for one size?
 *
 * DPDK's rte_mempool (a per-core cache of 512), its general rte_malloc, and hakmem, in one process
 * on one core, in rounds that take turns: 256-byte objects put and got one at a time at random
 * places among 4,096 held ones; 32 at a time in random groups of them; 32 at a time, got and put
 * back at once. Each sees the same order. All three stand on the same kind of pages: huge ones
 * where enough are free, else ordinary ones, whatever the environment says.
 */
#define _GNU_SOURCE

#include <getopt.h>

#include <hakmem.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_lcore.h>
#include <rte_malloc.h>
#include <rte_mempool.h>

#include "bench/support.h"

#define OBJECT_BYTES 256u
#define HELD 4096u
#define BULK 32u
#define GROUPS (HELD / BULK)
#define POOL_OBJECTS 16383u
#define POOL_CACHE 512u
#define MEMORY_MIB 256u
#define ROUNDS_MAX 1000u

enum pool { MEMPOOL, RTE_MALLOC, HAKMEM, POOL_COUNT };
enum pattern { PAIRS, BULK_HELD, BULK_BOUNCE, PATTERN_COUNT };

static const char *const pool_names[POOL_COUNT] = {"rte_mempool", "rte_malloc", "hakmem"};
static const char *const pattern_titles[PATTERN_COUNT] = {
    "random put/get pair", "bulk of 32, random group of 128", "bulk of 32, got and put back"};

static struct rte_mempool *mempool;
static void *held[HELD];

/* One way to get and put, per pool; the patterns below are inlined around them. */

HAK_INLINE void *get(enum pool pool)
{
    void *object = NULL;
    if (pool == MEMPOOL) {
        if (unlikely(rte_mempool_get(mempool, &object) != 0))
            object = NULL;
    } else if (pool == RTE_MALLOC) {
        object = rte_malloc(NULL, OBJECT_BYTES, 0);
    } else {
        object = hak_malloc(OBJECT_BYTES);
    }
    if (unlikely(object == NULL))
        bench_fail("%s has nothing left", pool_names[pool]);
    return object;
}

HAK_INLINE void put(enum pool pool, void *object)
{
    if (pool == MEMPOOL)
        rte_mempool_put(mempool, object);
    else if (pool == RTE_MALLOC)
        rte_free(object);
    else
        hak_free(object);
}

HAK_INLINE void get_bulk(enum pool pool, void **objects)
{
    bool short_of = false;
    if (pool == MEMPOOL) {
        short_of = rte_mempool_get_bulk(mempool, objects, BULK) != 0;
    } else if (pool == RTE_MALLOC) {
        for (unsigned i = 0; i < BULK; i++)
            objects[i] = get(pool);
    } else {
        short_of = hak_malloc_bulk(OBJECT_BYTES, BULK, objects) != BULK;
    }
    if (unlikely(short_of))
        bench_fail("%s has nothing left", pool_names[pool]);
}

HAK_INLINE void put_bulk(enum pool pool, void **objects)
{
    if (pool == MEMPOOL) {
        rte_mempool_put_bulk(mempool, objects, BULK);
    } else if (pool == RTE_MALLOC) {
        for (unsigned i = 0; i < BULK; i++)
            rte_free(objects[i]);
    } else {
        hak_free_bulk(objects, BULK);
    }
}

HAK_INLINE void run_pattern(enum pool pool, enum pattern pattern, uint64_t steps, uint64_t random)
{
    void *bounced[BULK];
    for (uint64_t i = 0; i < steps; i++) {
        if (pattern == BULK_BOUNCE) {
            get_bulk(pool, bounced);
            put_bulk(pool, bounced);
            continue;
        }
        uint32_t draw = (uint32_t)(bench_next(&random) >> 32);
        if (pattern == PAIRS) {
            uint32_t place = bench_below(draw, HELD);
            put(pool, held[place]);
            held[place] = get(pool);
        } else {
            void **group = &held[bench_below(draw, GROUPS) * BULK];
            put_bulk(pool, group);
            get_bulk(pool, group);
        }
    }
}

/* Nanoseconds for a put and a get of one object. */
HAK_INLINE double time_pattern(enum pool pool, enum pattern pattern, uint64_t operations,
                               uint64_t seed)
{
    uint64_t steps = pattern == PAIRS ? operations : operations / BULK + 1;
    uint64_t objects = pattern == PAIRS ? steps : steps * BULK;
    for (unsigned i = 0; i < HELD; i++)
        held[i] = get(pool);
    run_pattern(pool, pattern, steps / 10, seed);
    uint64_t start_ns = bench_now_ns();
    run_pattern(pool, pattern, steps, seed);
    uint64_t end_ns = bench_now_ns();
    for (unsigned i = 0; i < HELD; i++)
        put(pool, held[i]);
    return (double)(end_ns - start_ns) / (double)objects;
}

/* One function for each pair of constants, so that none pays for choosing. */
#define TIMED(name, pool, pattern)                                                                 \
    HAK_NOINLINE static double name(uint64_t operations, uint64_t seed)                            \
    {                                                                                              \
        return time_pattern(pool, pattern, operations, seed);                                      \
    }

TIMED(mempool_pairs, MEMPOOL, PAIRS)
TIMED(mempool_held, MEMPOOL, BULK_HELD)
TIMED(mempool_bounce, MEMPOOL, BULK_BOUNCE)
TIMED(rte_malloc_pairs, RTE_MALLOC, PAIRS)
TIMED(rte_malloc_held, RTE_MALLOC, BULK_HELD)
TIMED(rte_malloc_bounce, RTE_MALLOC, BULK_BOUNCE)
TIMED(hakmem_pairs, HAKMEM, PAIRS)
TIMED(hakmem_held, HAKMEM, BULK_HELD)
TIMED(hakmem_bounce, HAKMEM, BULK_BOUNCE)

static double (*const timed[PATTERN_COUNT][POOL_COUNT])(uint64_t, uint64_t) = {
    {mempool_pairs, rte_malloc_pairs, hakmem_pairs},
    {mempool_held, rte_malloc_held, hakmem_held},
    {mempool_bounce, rte_malloc_bounce, hakmem_bounce},
};

static bool huge_pages_free(void)
{
    unsigned long count = 0;
    FILE *file = fopen("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "re");
    if (file == NULL)
        return false;
    bool known = fscanf(file, "%lu", &count) == 1;
    fclose(file);
    /* 2 MiB pages for both sides, and some more for hakmem's tables. */
    return known && count >= 2 * MEMORY_MIB / 2 + 16;
}

static void set_up(bool huge, char *program)
{
    char memory[16], core[16];
    snprintf(memory, sizeof memory, "%u", MEMORY_MIB);
    snprintf(core, sizeof core, "%d", bench_cpu(0));
    char no_pci[] = "--no-pci", no_telemetry[] = "--no-telemetry", quiet[] = "--log-level=4";
    char iova[] = "--iova-mode=va", core_list[] = "-l", size[] = "-m";
    /* Nothing left behind in file systems; without huge pages DPDK spells that differently. */
    char in_memory[] = "--in-memory", no_shared[] = "--no-shconf", no_huge[] = "--no-huge";
    char *arguments[] = {program,
                         no_pci,
                         no_telemetry,
                         quiet,
                         iova,
                         core_list,
                         core,
                         size,
                         memory,
                         huge ? in_memory : no_shared,
                         huge ? NULL : no_huge,
                         NULL};
    int count = 0;
    while (arguments[count] != NULL)
        count++;
    if (rte_eal_init(count, arguments) < 0)
        bench_fail("DPDK cannot start: %s", rte_strerror(rte_errno));
    mempool = rte_mempool_create("bench", POOL_OBJECTS, OBJECT_BYTES, POOL_CACHE, 0, NULL, NULL,
                                 NULL, NULL, SOCKET_ID_ANY, 0);
    if (mempool == NULL)
        bench_fail("DPDK cannot make a pool: %s", rte_strerror(rte_errno));

    struct hak_config config = {.size_bytes = (size_t)MEMORY_MIB << 20,
                                .pages = {huge ? HAK_PAGES_2M : HAK_PAGES_4K},
                                .prefault = HAK_ON};
    int error = hak_region_init(&config);
    if (error == 0)
        error = hak_thread_pin(bench_cpu(0));
    if (error != 0) {
        struct hak_error record;
        hak_last_error(&record);
        bench_fail("%s\n%s", record.message, record.remedy);
    }
}

static void report(enum pattern pattern, double (*samples)[ROUNDS_MAX], unsigned rounds)
{
    static double ratios[ROUNDS_MAX];
    for (unsigned i = 0; i < rounds; i++)
        ratios[i] = samples[MEMPOOL][i] / samples[HAKMEM][i];
    double ratio = bench_median(ratios, rounds);
    printf("%-32s", pattern_titles[pattern]);
    for (enum pool pool = MEMPOOL; pool < POOL_COUNT; pool++)
        printf(" %11.2f", bench_median(samples[pool], rounds));
    printf(" %9.2f (%.2f to %.2f)\n", ratio, ratios[0], ratios[rounds - 1]);
}

static const char usage[] =
    "usage: dpdk [-n rounds] [operations] [seed]\n"
    "  Rounds: default 7. Operations (default 5M): objects put and got in each measurement, after\n"
    "  a tenth of them to warm up. Seed: default 42.\n";

int main(int argc, char **argv)
{
    unsigned rounds = 7;
    int option;
    while ((option = getopt(argc, argv, "n:h")) != -1) {
        if (option == 'n') {
            rounds = (unsigned)bench_number(optarg, 1, ROUNDS_MAX, "rounds");
        } else {
            fputs(usage, option == 'h' ? stdout : stderr);
            return option == 'h' ? 0 : 2;
        }
    }
    uint64_t operations = 5000000;
    uint64_t seed = 42;
    if (optind < argc)
        operations = bench_number(argv[optind++], 1000, 100000000000u, "operations");
    if (optind < argc)
        seed = bench_number(argv[optind++], 0, UINT64_MAX, "seed");
    if (optind < argc)
        bench_fail("%s", usage);

    bool huge = huge_pages_free();
    set_up(huge, argv[0]);
    static double samples[PATTERN_COUNT][POOL_COUNT][ROUNDS_MAX];
    for (unsigned round = 0; round < rounds; round++) {
        for (enum pattern pattern = PAIRS; pattern < PATTERN_COUNT; pattern++) {
            for (enum pool pool = MEMPOOL; pool < POOL_COUNT; pool++)
                samples[pattern][pool][round] = timed[pattern][pool](operations,
                                                                     bench_seed(seed, round));
        }
    }
    printf("dpdk: %u-byte objects, %u held, %s pages, median of %u rounds, seed %llu\n"
           "nanoseconds for a put and a get of one object; ratio: rte_mempool / hakmem\n",
           OBJECT_BYTES, HELD, huge ? "2 MiB" : "4 KiB", rounds, (unsigned long long)seed);
    printf("%-32s %11s %11s %11s %9s\n", "", pool_names[MEMPOOL], pool_names[RTE_MALLOC],
           pool_names[HAKMEM], "ratio");
    for (enum pattern pattern = PAIRS; pattern < PATTERN_COUNT; pattern++)
        report(pattern, samples[pattern], rounds);
    hak_region_fini();
    rte_eal_cleanup();
    return 0;
}
