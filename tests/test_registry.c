/* SPDX-License-Identifier: MIT */
/*
 * The registry: every live pointer is found, and none but live ones, at ten million objects; and
 * a look-up in 2 TiB of addresses costs what it costs in 1 GiB, counted in instructions.
 */
#include "alloc/usable.h"
#include "tests/region_kit.h"
#include "tests/step_kit.h"

#include <sys/mman.h>

#define LIVE_OBJECTS ((size_t)10 * 1000 * 1000)

static void **live;

static size_t size_of(size_t n)
{
    uint64_t state = n;
    return 16 + harness_random(&state) % 49; /* 16 to 64 */
}

/* Where an object is one of those that get freed. */
static bool leaves(size_t n)
{
    uint64_t state = n + LIVE_OBJECTS;
    return harness_random(&state) % 2 == 0;
}

static size_t rounded(size_t size)
{
    return (size + 15) / 16 * 16;
}

static void *free_half(void *unused)
{
    for (size_t n = 0; n < LIVE_OBJECTS; n++) {
        if (leaves(n)) {
            hak_free(live[n]);
        }
    }
    return unused; /* the thread ends, and what its caches hold goes back */
}

/* Addresses that are no objects: around the region, inside objects. */
static void check_not_found(void)
{
    const struct region *area = &hak_region_default()->area;
    const uintptr_t base = area->base;
    const uintptr_t end = base + area->bytes;
    const uintptr_t beside[] = {0,
                                1,
                                16,
                                base - 1,
                                base - 16,
                                base - 65536,
                                base - 2 * MIB,
                                end,
                                end + 1,
                                end + 16,
                                end + 65536,
                                end + 2 * MIB,
                                end + 2 * GIB,
                                base - GIB,
                                UINTPTR_MAX,
                                UINTPTR_MAX - 15};
    for (size_t n = 0; n < sizeof beside / sizeof *beside; n++) {
        CHECK_EQ(hak_usable_size((void *)beside[n]), 0);
    }
    for (size_t n = 0; n < LIVE_OBJECTS; n += 97) {
        CHECK_EQ(hak_usable_size((char *)live[n] + 1), 0);
        CHECK_EQ(hak_usable_size((char *)live[n] + 8), 0);
        CHECK_EQ(hak_usable_size((char *)live[n] + 15), 0);
        if (rounded(size_of(n)) > 16) {
            CHECK_EQ(hak_usable_size((char *)live[n] + 16), 0);
        }
    }
}

TEST(ten_million_live_objects_are_found_and_nothing_else)
{
    kit_open(GIB, HAK_OFF);
    size_t table = LIVE_OBJECTS * sizeof *live;
    live = mmap(NULL, table, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK((void *)live != MAP_FAILED);
    for (size_t n = 0; n < LIVE_OBJECTS; n++) {
        live[n] = hak_malloc(size_of(n));
        CHECK(live[n] != NULL);
    }
    for (size_t n = 0; n < LIVE_OBJECTS; n++) {
        size_t usable = hak_usable_size(live[n]);
        if (usable != rounded(size_of(n))) {
            FAIL("object %zu of %zu bytes at %p: usable %zu", n, size_of(n), live[n], usable);
        }
    }
    check_not_found();
    kit_in_thread(free_half, NULL);
    for (size_t n = 0; n < LIVE_OBJECTS; n++) {
        size_t usable = usable_live(hak_region_default(), live[n]);
        if (usable != (leaves(n) ? 0 : rounded(size_of(n)))) {
            FAIL("object %zu, %s: usable %zu", n, leaves(n) ? "freed" : "live", usable);
        }
    }
    kit_check(NULL);
    for (size_t n = 0; n < LIVE_OBJECTS; n++) {
        if (!leaves(n)) {
            hak_free(live[n]);
        }
    }
    hak_free(hak_malloc(GIB / 100 * 95)); /* empties the caches, and it fits: all of it is free */
    for (size_t n = 0; n < LIVE_OBJECTS; n += 7) {
        CHECK_EQ(hak_usable_size(live[n]), 0);
    }
    CHECK_EQ(kit_stats(NULL).misuses, 0);
    kit_check(NULL);
    munmap(live, table);
    kit_close();
}

/* ---- 2 TiB ----------------------------------------------------------------------------------- */

static void use_both_ends(hak_region *region)
{
    const struct region *area = &region->area;
    char *base = (char *)area->base;
    size_t filler = HAK_REGION_BYTES_MAX - 2 * MIB;
    char *high = hak_region_malloc(region, filler); /* all but the first SuperSlab */
    CHECK(high == base + 2 * MIB);
    char *low = hak_region_malloc(region, 100);
    CHECK(low != NULL && low >= base && low < high);
    CHECK_EQ(hak_region_usable_size(region, high), filler);
    CHECK_EQ(hak_region_usable_size(region, low), 112);
    CHECK_EQ(hak_region_usable_size(region, high + filler - 65536), 0); /* the large one's tail */
    memset(high + filler - 100, 1, 100);
    memset(low, 1, 100);
    hak_region_free(region, high);
    char *first = hak_region_malloc(region, 2 * MIB); /* a whole one: the first is not */
    CHECK(first == base + 2 * MIB);
    memset(first, 2, 2 * MIB);
    CHECK_EQ(hak_region_usable_size(region, first), 2 * MIB);
    char *last = hak_region_malloc(region, 4 * MIB);
    CHECK(last == base + area->bytes - 4 * MIB);
    memset(last, 3, 4 * MIB);
    hak_region_free(region, last);
    CHECK_EQ(hak_region_usable_size(region, base + area->bytes), 0);
    CHECK_EQ(hak_region_usable_size(region, base - 16), 0);
    hak_region_free(region, first);
    hak_region_free(region, low);
    CHECK_EQ(kit_stats(region).misuses, 0);
}

TEST(two_tib_of_addresses_work_at_both_ends)
{
    kit_close();
    hak_region *region = kit_create(HAK_REGION_BYTES_MAX, HAK_OFF);
    CHECK_EQ(region->area.bytes, HAK_REGION_BYTES_MAX);
    CHECK_EQ(kit_stats(region).free_bytes, HAK_REGION_BYTES_MAX);
    use_both_ends(region);
    kit_destroy(region);
}

/* The objects whose look-ups are counted: in the lowest and the highest SuperSlab. */
struct both_ends {
    hak_region *region;
    void *small[2], *large[2];
};

static void place_both_ends(struct both_ends *ends, size_t bytes)
{
    ends->region = kit_create(bytes, HAK_OFF);
    uintptr_t base = ends->region->area.base;
    ends->small[0] = hak_region_malloc(ends->region, 100);
    ends->large[0] = hak_region_malloc(ends->region, MIB);
    CHECK(ends->large[0] != NULL && ends->small[0] != NULL);
    CHECK((uintptr_t)ends->small[0] < base + 2 * MIB);
    CHECK((uintptr_t)ends->large[0] < base + 2 * MIB);
    /* Its tail leaves 17 units of the last SuperSlab: the shortest run for the next two. */
    CHECK(hak_region_malloc(ends->region, 2 * MIB + 15 * UNIT_BYTES) != NULL);
    ends->large[1] = hak_region_malloc(ends->region, MIB);
    ends->small[1] = hak_region_malloc(ends->region, 200);
    CHECK((uintptr_t)ends->small[1] >= base + bytes - 2 * MIB);
    CHECK((uintptr_t)ends->large[1] >= base + bytes - 2 * MIB);
}

static void look_up(void *argument)
{
    struct both_ends *ends = argument;
    void *const objects[] = {ends->small[0], ends->small[1], ends->large[0], ends->large[1]};
    for (size_t n = 0; n < 4; n++) {
        step_here();
        CHECK(hak_region_usable_size(ends->region, objects[n]) != 0);
    }
}

static void free_small(void *argument)
{
    struct both_ends *ends = argument;
    hak_region *region = ends->region;
    void *held[4];
    for (size_t n = 0; n < 4; n++) { /* the cache of the class is there, and has room */
        held[n] = hak_region_malloc(region, 100);
    }
    hak_region_free_bulk(region, held, 3);
    step_here();
    hak_region_free(region, held[3]);
}

TEST(a_look_up_costs_the_same_at_1_gib_and_2_tib)
{
    unsigned near[4] = {0}, far[4] = {0}, near_free[1] = {0}, far_free[1] = {0};
    struct both_ends ends;
    /* Any pointer's cost: the child repeats the calls on what is mapped here. */
    const void *lookup = (const void *)(uintptr_t)hak_region_usable_size;
    const void *freeing = (const void *)(uintptr_t)hak_region_free;
    kit_close();
    place_both_ends(&ends, GIB);
    CHECK_EQ(step_count(look_up, &ends, lookup, near, 4), 4);
    CHECK_EQ(step_count(free_small, &ends, freeing, near_free, 1), 1);
    kit_destroy(ends.region);
    place_both_ends(&ends, HAK_REGION_BYTES_MAX);
    CHECK_EQ(step_count(look_up, &ends, lookup, far, 4), 4);
    CHECK_EQ(step_count(free_small, &ends, freeing, far_free, 1), 1);
    kit_destroy(ends.region);
    (void)printf("instructions of usable_size (small, small, large, large) and free: "
                 "%u %u %u %u, %u in 1 GiB; %u %u %u %u, %u in 2 TiB\n",
                 near[0], near[1], near[2], near[3], near_free[0], far[0], far[1], far[2], far[3],
                 far_free[0]);
    for (size_t n = 0; n < 4; n++) {
        CHECK(near[n] != 0);
        CHECK_EQ(near[n], far[n]);
    }
    CHECK(near_free[0] != 0);
    CHECK_EQ(near_free[0], far_free[0]);
}

HARNESS_MAIN()
