/* SPDX-License-Identifier: MIT */
/*
 * What the books cost, and how much of a region objects get: metadata by its own count and by the
 * kernel's, payload of a region filled with one size, and room for everything after everything was
 * freed, by one thread and by four that free one another's objects.
 */
#include "tests/region_kit.h"

#include <sys/mman.h>

/* Shares in 1/1,000. */
#define METADATA_MOST 16
#define PAYLOAD_LEAST 970
#define ONE_OBJECT 950
#define FILLERS 4
/* Resident memory that is let pass: the program's own, code and stacks and what libc keeps. */
#define ELSEWHERE (512 * KIB)

static const size_t filled_sizes[] = {16, 64, 256, 1024, 4096, 65536, 2 * MIB};
#define FILLED_SIZES (sizeof filled_sizes / sizeof *filled_sizes)

/* Resident memory of this process, by the kernel's exact count of its pages. */
static size_t resident_bytes(void)
{
    char line[256];
    size_t kib = 0;
    FILE *file = fopen("/proc/self/smaps_rollup", "r");
    if (file == NULL) {
        SKIP("no /proc/self/smaps_rollup here");
    }
    while (fgets(line, sizeof line, file) != NULL) {
        if (sscanf(line, "Rss: %zu kB", &kib) == 1) {
            break;
        }
    }
    fclose(file);
    CHECK(kib > 0);
    return kib * KIB;
}

/* Bytes of the range that are in memory. */
static size_t in_memory(const void *start, size_t bytes)
{
    static unsigned char there[16384];
    char *at = (char *)round_down((uintptr_t)start, 4096);
    char *end = (char *)round_up((uintptr_t)start + bytes, 4096);
    size_t pages = 0;
    while (at < end) {
        size_t part = min_size((size_t)(end - at), sizeof there * 4096);
        CHECK_EQ(mincore(at, part, there), 0);
        for (size_t n = 0; n < part / 4096; n++) {
            pages += there[n] & 1;
        }
        at += part;
    }
    return pages * 4096;
}

/* What the default region's books have of memory, every table of them. */
static size_t books_in_memory(void)
{
    const struct hak_region *heap = hak_region_default();
    const struct region *area = &heap->area;
    size_t bytes = in_memory(heap, sizeof *heap) + in_memory(area->registry, area->registry_bytes);
    for (uint32_t n = 0; n < area->segment_count; n++) {
        bytes += in_memory(area->segments[n].index_memory, area->segments[n].index_bytes);
    }
    for (unsigned n = 0; n < heap->table_count; n++) {
        bytes += in_memory(heap->tables[n].memory, heap->tables[n].bytes);
    }
    return bytes;
}

/* Objects of one size until there are no more, chained by their first word. */
static size_t fill(size_t size, void **chain)
{
    size_t count = 0;
    void **object;
    errno = 0;
    while ((object = hak_malloc(size)) != NULL) {
        *object = *chain;
        *chain = object;
        count++;
    }
    CHECK_EQ(errno, ENOMEM);
    return count;
}

static size_t free_chain(void *chain)
{
    size_t count = 0;
    while (chain != NULL) {
        void *next = *(void **)chain;
        hak_free(chain);
        chain = next;
        count++;
    }
    return count;
}

/* Everything has been freed: one object of nearly all, and one of every class, can be had. */
static void check_all_is_there(size_t region_bytes)
{
    void *one = hak_malloc(region_bytes / 1000 * ONE_OBJECT);
    if (one == NULL) {
        FAIL("no object of 95 %% after everything was freed: free %zu, largest %zu",
             kit_stats(NULL).free_bytes, kit_stats(NULL).largest_free_bytes);
    }
    hak_free(one);
    for (unsigned cls = 1; cls <= hak_class_count(); cls++) {
        struct hak_class_stats stats;
        CHECK_EQ(hak_region_class_stats(NULL, cls, &stats), 0);
        void *object = hak_malloc(stats.object_bytes);
        CHECK(object != NULL);
        CHECK_EQ(hak_usable_size(object), stats.object_bytes);
        hak_free(object);
    }
    one = hak_malloc(region_bytes / 1000 * ONE_OBJECT); /* and no class keeps what it was given */
    CHECK(one != NULL);
    hak_free(one);
}

static void check_payload(size_t payload, size_t region_bytes, size_t size, const char *by)
{
    if (payload / 1000 < region_bytes / 1000 * PAYLOAD_LEAST / 1000) {
        FAIL("%zu MiB filled with %zu bytes by %s: %zu payload, %.2f %%", region_bytes / MIB, size,
             by, payload, 100.0 * (double)payload / (double)region_bytes);
    }
}

/* ---- metadata -------------------------------------------------------------------------------- */

static void *touch_slots(void *unused)
{
    for (size_t size = 16; size <= 262144; size = size * 5 / 4 / 16 * 16 + 16) {
        hak_free(hak_malloc(size));
    }
    return unused;
}

static void metadata_at(size_t bytes)
{
    kit_open(2 * MIB, HAK_ON); /* what the program and libc need of their own is there now */
    kit_in_thread(touch_slots, NULL);
    kit_close();
    size_t before = resident_bytes();
    kit_open(bytes, HAK_ON);
    struct hak_stats stats = kit_stats(NULL);
    size_t counted = stats.metadata_bytes;
    size_t most = bytes / 1000 * METADATA_MOST;
    size_t at_init = books_in_memory();
    CHECK_EQ(stats.size_bytes, bytes);
    CHECK_LE(counted, most);
    CHECK_LE(at_init, most);
    CHECK_GE(at_init, counted / 100 * 95);     /* prefaulted: what is counted is there */
    CHECK_LE(at_init, counted + counted / 10); /* and nothing much beside it */
    CHECK_GE(resident_bytes(), before + bytes + counted / 100 * 95);
    CHECK_LE(resident_bytes(), before + bytes + most + ELSEWHERE);
    /* Use it: sixteen-byte objects have the longest bitmaps, threads have slots and caches. */
    void *chain = NULL;
    size_t count = fill(16, &chain);
    CHECK_GE(count * 16, bytes / 1000 * PAYLOAD_LEAST);
    CHECK_EQ(free_chain(chain), count);
    kit_in_thread(touch_slots, NULL);
    size_t in_use = books_in_memory();
    (void)printf(
        "%4zu MiB: metadata %.3f %% counted, %.3f %% resident after init, %.3f %% after use\n",
        bytes / MIB, 100.0 * (double)counted / (double)bytes,
        100.0 * (double)at_init / (double)bytes, 100.0 * (double)in_use / (double)bytes);
    CHECK_LE(in_use, most);
    CHECK_LE(resident_bytes(), before + bytes + most + ELSEWHERE);
    kit_close();
    CHECK_LE(resident_bytes(), before + ELSEWHERE);
}

TEST(metadata_is_1_6_percent_at_64_mib)
{
    metadata_at(64 * MIB);
}

TEST(metadata_is_1_6_percent_at_256_mib)
{
    metadata_at(256 * MIB);
}

TEST(metadata_is_1_6_percent_at_1_gib)
{
    metadata_at(GIB);
}

TEST(metadata_is_1_6_percent_at_4_gib)
{
    metadata_at(4 * GIB);
}

/* ---- payload --------------------------------------------------------------------------------- */

static void filled_by_one(size_t region_bytes)
{
    kit_open(region_bytes, HAK_ON);
    for (int round = 0; round < 2; round++) { /* the second after each size was there before */
        for (size_t n = 0; n < FILLED_SIZES; n++) {
            void *chain = NULL;
            size_t count = fill(filled_sizes[n], &chain);
            check_payload(count * filled_sizes[n], region_bytes, filled_sizes[n], "one thread");
            CHECK_EQ(free_chain(chain), count);
            check_all_is_there(region_bytes);
        }
    }
    kit_check(NULL);
    kit_close();
}

TEST(one_size_fills_97_percent_of_64_mib)
{
    filled_by_one(64 * MIB);
}

TEST(one_size_fills_97_percent_of_512_mib)
{
    filled_by_one(512 * MIB);
}

/* Every size class, not only the powers of two. */
TEST(every_class_fills_its_region)
{
    const size_t region_bytes = 64 * MIB;
    double worst = 1.0;
    kit_open(region_bytes, HAK_ON);
    for (unsigned cls = 1; cls <= hak_class_count(); cls++) {
        struct hak_class_stats stats;
        void *chain = NULL;
        CHECK_EQ(hak_region_class_stats(NULL, cls, &stats), 0);
        size_t count = fill(stats.object_bytes, &chain);
        double share = (double)(count * stats.object_bytes) / (double)region_bytes;
        worst = share < worst ? share : worst;
        CHECK_GE(count * stats.object_bytes, region_bytes / 1000 * 900);
        CHECK_EQ(free_chain(chain), count);
    }
    (void)printf("the class that fills least: %.2f %%\n", 100.0 * worst);
    check_all_is_there(region_bytes);
    kit_check(NULL);
    kit_close();
}

/* ---- four threads, one another's objects ----------------------------------------------------- */

static pthread_barrier_t step;
static void *chains[FILLERS];
static size_t counts[FILLERS];

/* Fills together with the others, then frees what the next one took. */
static void *fill_and_swap(void *argument)
{
    size_t number = *(const size_t *)argument;
    for (size_t n = 0; n < FILLED_SIZES; n++) {
        counts[number] = fill(filled_sizes[n], &chains[number]);
        pthread_barrier_wait(&step);
        pthread_barrier_wait(&step); /* the main thread adds up */
        size_t next = (number + 1) % FILLERS;
        (void)free_chain(chains[next]);
        hak_thread_idle();
        pthread_barrier_wait(&step);
        if (number == n % FILLERS) { /* one of them, while the others idle */
            chains[number] = hak_malloc(64 * MIB / 1000 * ONE_OBJECT);
            hak_free(chains[number]);
        }
        pthread_barrier_wait(&step);
        pthread_barrier_wait(&step); /* the main thread has looked */
        chains[number] = NULL;
    }
    return NULL;
}

TEST(four_threads_that_free_one_anothers_objects)
{
    const size_t region_bytes = 64 * MIB;
    pthread_t threads[FILLERS];
    size_t numbers[FILLERS];
    void *whole[FILLED_SIZES];
    kit_open(region_bytes, HAK_ON);
    memset(chains, 0, sizeof chains);
    pthread_barrier_init(&step, NULL, FILLERS + 1);
    for (size_t k = 0; k < FILLERS; k++) {
        numbers[k] = k;
        CHECK_EQ(pthread_create(&threads[k], NULL, fill_and_swap, &numbers[k]), 0);
    }
    size_t payloads[FILLED_SIZES];
    for (size_t n = 0; n < FILLED_SIZES; n++) {
        pthread_barrier_wait(&step);
        payloads[n] = 0;
        for (size_t k = 0; k < FILLERS; k++) {
            payloads[n] += counts[k] * filled_sizes[n];
        }
        pthread_barrier_wait(&step);
        pthread_barrier_wait(&step); /* they have freed */
        pthread_barrier_wait(&step); /* one of them tried */
        whole[n] = chains[n % FILLERS];
        pthread_barrier_wait(&step);
    }
    for (size_t k = 0; k < FILLERS; k++) {
        (void)kit_join(threads[k]);
    }
    pthread_barrier_destroy(&step);
    for (size_t n = 0; n < FILLED_SIZES; n++) {
        check_payload(payloads[n], region_bytes, filled_sizes[n], "four threads");
        if (whole[n] == NULL) {
            FAIL("no object of 95 %% while the other threads idle, after %zu bytes",
                 filled_sizes[n]);
        }
    }
    check_all_is_there(region_bytes);
    CHECK_EQ(kit_stats(NULL).misuses, 0);
    kit_check(NULL);
    kit_close();
}

HARNESS_MAIN()
