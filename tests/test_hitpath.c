/* SPDX-License-Identifier: MIT */
/*
 * The hit paths of malloc and free, instruction by instruction, as the shared library ships them:
 * at most 16 and 18 instructions, the return included, for every size that the table serves.
 */
#include "tests/region_kit.h"
#include "tests/shared_kit.h"
#include "tests/step_kit.h"

#define MALLOC_MOST 16
#define FREE_MOST 18
#define HITS 8

static struct shared_calls library;

/* A cache that has objects and room, then hits of one size. */
static void hit_malloc(void *argument)
{
    size_t size = *(const size_t *)argument;
    static void *held[64];
    for (int n = 0; n < 64; n++) {
        held[n] = library.malloc(size);
    }
    for (int n = 0; n < 64; n++) {
        library.free(held[n]);
    }
    for (int n = 0; n < HITS; n++) {
        step_here();
        held[n] = library.malloc(size);
        CHECK(held[n] != NULL);
    }
}

static void hit_free(void *argument)
{
    size_t size = *(const size_t *)argument;
    static void *held[64];
    for (int n = 0; n < 64; n++) {
        held[n] = library.malloc(size);
    }
    for (int n = 0; n < 40; n++) {
        library.free(held[n]);
    }
    for (int n = 0; n < HITS; n++) {
        CHECK(library.malloc(size) != NULL);
    }
    for (int n = 0; n < HITS; n++) {
        step_here();
        library.free(held[40 + n]);
    }
}

/* The least of some calls that were all meant as hits: the others may have met an array's end. */
static unsigned least_of(void (*body)(void *), size_t size, const void *function, unsigned *most)
{
    unsigned counts[HITS] = {0};
    unsigned least = UINT32_MAX;
    size_t calls = step_count(body, &size, function, counts, HITS);
    CHECK_EQ(calls, HITS);
    *most = 0;
    for (size_t n = 0; n < calls; n++) {
        CHECK(counts[n] != 0);
        least = counts[n] < least ? counts[n] : least;
        *most = counts[n] > *most ? counts[n] : *most;
    }
    return least;
}

static void open_library(void)
{
    struct hak_config config = kit_config(64 * MIB, HAK_PAGES_4K, HAK_ON);
    step_needs();
    shared_open(&library);
    CHECK_EQ(library.init(&config), 0);
}

static void count_both(const size_t *sizes, size_t count, unsigned malloc_most, unsigned free_most)
{
    open_library();
    for (size_t n = 0; n < count; n++) {
        unsigned worst_malloc, worst_free;
        unsigned of_malloc = least_of(hit_malloc, sizes[n], shared_address(library.malloc),
                                      &worst_malloc);
        unsigned of_free = least_of(hit_free, sizes[n], shared_address(library.free), &worst_free);
        (void)printf("%6zu bytes: malloc %u instructions, free %u\n", sizes[n], of_malloc, of_free);
        CHECK_LE(of_malloc, malloc_most);
        CHECK_LE(of_free, free_most);
    }
    CHECK_EQ(library.fini(), 0);
}

TEST(small_hits_take_16_and_18_instructions)
{
    static const size_t small[] = {0, 1, 16, 17, 64, 100, 128, 129, 256, 500, 1000, 1024};
    count_both(small, sizeof small / sizeof *small, MALLOC_MOST, FREE_MOST);
}

/* Sizes whose class is computed pay for that in malloc; free does not know the difference. */
TEST(computed_sizes_take_little_more)
{
    static const size_t computed[] = {1025, 1500, 4096, 10000};
    count_both(computed, sizeof computed / sizeof *computed, 2 * MALLOC_MOST, FREE_MOST);
}

HARNESS_MAIN()
