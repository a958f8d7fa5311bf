/* SPDX-License-Identifier: MIT */
/*
 * Regions in the caller's own memory: any start and length, what of it is used, dirty memory,
 * and that not a byte is written that the caller's program did not write itself.
 */
#include "tests/region_kit.h"

#include <sys/mman.h>

#define POOL_BYTES (40 * MIB)

static char static_pool[9 * MIB];
static char *pool; /* mapped for the case that runs */

static void map_pool(void)
{
    kit_close();
    if (pool == NULL) {
        pool = mmap(NULL, POOL_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        CHECK(pool != MAP_FAILED);
    }
}

static char *aligned_part(char *start)
{
    return (char *)round_up((uintptr_t)start, HAK_SUPERSLAB_BYTES);
}

static hak_region *adopt(char *start, size_t length, size_t *usable)
{
    hak_region *region = NULL;
    struct hak_error error;
    int code = hak_region_adopt(start, length, -1, NULL, &region, usable);
    if (code != 0) {
        (void)hak_last_error(&error);
        FAIL("hak_region_adopt(%p, %zu): %d: %s", (void *)start, length, code, error.message);
    }
    return kit_keep(region);
}

static void refused(char *start, size_t length, int node, int expected, const char *words)
{
    hak_region *region = (hak_region *)(void *)&pool;
    struct hak_error error;
    size_t usable = 77;
    CHECK_EQ(hak_region_adopt(start, length, node, NULL, &region, &usable), expected);
    CHECK(region == NULL);
    CHECK_EQ(hak_last_error(&error), expected);
    CHECK_EQ(error.kind, HAK_ERROR_SETUP);
    CHECK_STR_HAS(error.message, words);
}

/* Takes objects of all sizes until nothing is left; the caller gets them chained by their first
 * word, lest the test itself need memory. */
static size_t take_all(hak_region *region, char *low, size_t bytes, void **chain)
{
    static const size_t some[] = {2 * MIB, 300 * KIB, 65536, 5000, 1024, 100, 16};
    size_t taken = 0;
    for (size_t n = 0; n < sizeof some / sizeof *some; n++) {
        char *object;
        size_t most = some[n] > 1024 ? SIZE_MAX : 500;
        for (size_t k = 0; k < most && (object = hak_region_malloc(region, some[n])); k++) {
            CHECK(object >= low && object + some[n] <= low + bytes);
            memset(object, 0x77, some[n]);
            *(void **)(void *)object = *chain;
            *chain = object;
            taken += some[n];
        }
    }
    return taken;
}

static void free_all(hak_region *region, void *chain)
{
    while (chain != NULL) {
        void *next = *(void **)chain;
        hak_region_free(region, chain);
        chain = next;
    }
}

/* ---- what is used ---------------------------------------------------------------------------- */

TEST(any_start_and_length_give_the_superslabs_inside)
{
    uint64_t random = harness_seed();
    map_pool();
    char *base = aligned_part(pool);
    for (int round = 0; round < 60; round++) {
        size_t start = harness_random(&random) % (6 * MIB);
        size_t length = harness_random(&random) % (20 * MIB);
        if (round < 16) { /* at and beside the borders of SuperSlabs */
            start = (size_t)(round % 4) * 2 * MIB + (size_t)(round / 4 % 3) - (round % 4 ? 1U : 0);
            length = 8 * MIB + (size_t)(round % 3) - 1;
        }
        size_t first = round_up(start, HAK_SUPERSLAB_BYTES);
        size_t last = round_down(start + length, HAK_SUPERSLAB_BYTES);
        size_t expected = last > first ? last - first : 0;
        size_t usable = 77;
        if (expected == 0) {
            refused(base + start, length, -1, -EINVAL, "no whole SuperSlab");
            continue;
        }
        memset(base, 0x11, POOL_BYTES - 2 * MIB);
        hak_region *region = adopt(base + start, length, &usable);
        CHECK_EQ(usable, expected);
        CHECK_EQ(kit_stats(region).size_bytes, expected);
        void *chain = NULL;
        CHECK_GE(take_all(region, base + first, expected, &chain), expected / 100 * 97);
        CHECK(all_bytes_are(base, first, 0x11));
        CHECK(all_bytes_are(base + last, POOL_BYTES - 2 * MIB - last, 0x11));
        free_all(region, chain);
        kit_check(region);
        kit_destroy(region);
        base[start] = 1; /* still the caller's */
    }
}

TEST(a_static_array_will_do)
{
    size_t usable = 0;
    kit_close();
    hak_region *region = adopt(static_pool, sizeof static_pool, &usable);
    CHECK_GE(usable, 6 * MIB);
    char *low = aligned_part(static_pool);
    void *chain = NULL;
    CHECK_GE(take_all(region, low, usable, &chain), usable / 100 * 97);
    free_all(region, chain);
    void *whole = hak_region_malloc(region, usable);
    CHECK(whole == low);
    hak_region_free(region, whole);
    kit_destroy(region);
    CHECK_EQ(hak_region_adopt(static_pool, sizeof static_pool, 0, NULL, &region, NULL), 0);
    kit_destroy(kit_keep(region));
}

/* ---- what is refused ------------------------------------------------------------------------- */

TEST(ranges_that_cannot_be_are_refused)
{
    size_t usable;
    map_pool();
    char *base = aligned_part(pool);
    CHECK_EQ(hak_region_adopt(base, 4 * MIB, -1, NULL, NULL, &usable), -EINVAL);
    refused(NULL, 4 * MIB, -1, -EINVAL, "not a range");
    refused(base, SIZE_MAX, -1, -EINVAL, "not a range"); /* wraps around */
    refused(base, SIZE_MAX - (uintptr_t)base, -1, -E2BIG, "more than");
    refused(base, 0, -1, -EINVAL, "no whole SuperSlab");
    refused(base, 2 * MIB - 1, -1, -EINVAL, "no whole SuperSlab");
    refused(base + 1, 4 * MIB - 2, -1, -EINVAL, "no whole SuperSlab");
    refused(base + 1, 4 * MIB - 2, -1, -EINVAL, "4194303"); /* what would do from this start */
    CHECK_EQ(kit_stats(adopt(base + 1, 4194303, &usable)).size_bytes, 2 * MIB);
    CHECK_EQ(usable, 2 * MIB);
    kit_close();
    refused(base, 4 * MIB, -2, -ENODEV, "-2");
    refused(base, 4 * MIB, 63, -ENODEV, "63");
    refused(base, 4 * MIB, 64, -ENODEV, "64");
    refused(base, 4 * MIB, INT32_MAX, -ENODEV, "node");
}

TEST(overlap_with_a_live_region_is_refused)
{
    size_t usable;
    map_pool();
    char *base = aligned_part(pool);
    hak_region *region = adopt(base + 4 * MIB, 8 * MIB, &usable);
    refused(base + 4 * MIB, 8 * MIB, -1, -EINVAL, "overlaps");
    refused(base + 6 * MIB, 2 * MIB, -1, -EINVAL, "overlaps");
    refused(base, 6 * MIB, -1, -EINVAL, "overlaps");
    refused(base + 10 * MIB, 8 * MIB, -1, -EINVAL, "overlaps");
    refused(base, 20 * MIB, -1, -EINVAL, "overlaps");
    hak_region *below = adopt(base, 4 * MIB, &usable); /* beside it is free */
    hak_region *above = adopt(base + 12 * MIB, 4 * MIB, &usable);
    refused(base, 4 * MIB, -1, -EINVAL, "overlaps");
    kit_destroy(region);
    region = adopt(base + 4 * MIB, 8 * MIB, &usable);
    void *one = hak_region_malloc(below, 4 * MIB);
    void *two = hak_region_malloc(region, 8 * MIB);
    void *three = hak_region_malloc(above, 4 * MIB);
    CHECK(one == base && two == base + 4 * MIB && three == base + 12 * MIB);
    kit_open(4 * MIB, HAK_OFF); /* the kit ends all of them first; the default region counts too */
    refused((char *)hak_region_default()->area.base, 4 * MIB, -1, -EINVAL, "overlaps");
    kit_close();
}

TEST(of_the_configuration_only_misuse_is_taken)
{
    struct hak_config config = {.size_bytes = 3, .nodes = (uint64_t)1 << 63};
    hak_region *region = NULL;
    int foreign = 0;
    map_pool();
    config.pages[0] = HAK_PAGES_1G;
    config.misuse = HAK_MISUSE_IGNORE;
    CHECK_EQ(hak_region_adopt(aligned_part(pool), 4 * MIB, -1, &config, &region, NULL), 0);
    kit_keep(region);
    CHECK_EQ(kit_stats(region).size_bytes, 4 * MIB);
    hak_region_free(region, &foreign); /* ignored, as said */
    CHECK_EQ(kit_stats(region).misuses, 1);
    kit_destroy(region);
}

/* ---- bytes ----------------------------------------------------------------------------------- */

TEST(dirty_memory_is_never_taken_for_zeroed)
{
    static const size_t some[] = {1, 16, 100, 1024, 5000, 65536, 262144, 262145, 3 * MIB, 7 * MIB};
    map_pool();
    char *base = aligned_part(pool);
    for (size_t n = 0; n < sizeof some / sizeof *some; n++) {
        memset(base, 0x5a, 16 * MIB);
        hak_region *region = adopt(base, 16 * MIB, NULL);
        char *object;
        size_t count = 0;
        while (count < 5000 && (object = hak_region_calloc(region, 1, some[n])) != NULL) {
            CHECK(all_bytes_are(object, some[n], 0));
            count++;
        }
        CHECK(count >= 2);
        kit_destroy(region);
    }
    /* The same memory once more: what the region before knew of it is not known now. */
    hak_region *region = adopt(base, 16 * MIB, NULL);
    char *object = hak_region_calloc(region, 1, 15 * MIB);
    CHECK(object != NULL && all_bytes_are(object, 15 * MIB, 0));
    kit_destroy(region);
}

static void *churn(void *argument)
{
    hak_region *region = argument;
    uint64_t random = harness_seed();
    void *held[512] = {NULL};
    void *many[100];
    for (int round = 0; round < 200000; round++) {
        size_t n = harness_random(&random) % 512;
        size_t size = harness_random(&random) % ((size_t)16 << (harness_random(&random) % 14));
        hak_region_free(region, held[n]);
        held[n] = round % 16 == 0 ? hak_region_aligned_alloc(region, 4096, size)
                                  : hak_region_malloc(region, size);
        if (round % 1024 == 0) {
            size_t got = hak_region_malloc_bulk(region, size % 3000, 100, many);
            hak_region_free_bulk(region, many, got);
        }
        if (round % 4096 == 0) { /* to exhaustion and back: the ladder writes nothing either */
            hak_region_free(region, hak_region_malloc(region, 60 * MIB));
        }
    }
    hak_region_free_bulk(region, held, 512);
    return NULL;
}

TEST(the_allocator_writes_nothing_into_the_memory)
{
    map_pool();
    pattern_fill(pool, POOL_BYTES, 3);
    hak_region *region = adopt(pool, POOL_BYTES, NULL);
    pthread_t other;
    CHECK_EQ(pthread_create(&other, NULL, churn, region), 0);
    (void)churn(region);
    (void)kit_join(other);
    kit_check(region);
    kit_destroy(region);
    CHECK(pattern_holds(pool, POOL_BYTES, 3));
}

/* Not even a read: the memory's pages never become resident. */
TEST(the_allocator_does_not_touch_the_memory)
{
    static unsigned char there[POOL_BYTES / 4096];
    size_t resident = 0;
    kit_close();
    char *fresh = mmap(NULL, POOL_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
                       0);
    CHECK(fresh != MAP_FAILED);
    hak_region *region = adopt(fresh, POOL_BYTES, NULL);
    (void)churn(region);
    kit_destroy(region);
    CHECK_EQ(mincore(fresh, POOL_BYTES, there), 0);
    for (size_t n = 0; n < sizeof there; n++) {
        resident += there[n] & 1;
    }
    munmap(fresh, POOL_BYTES);
    CHECK_EQ(resident, 0);
}

HARNESS_MAIN()
