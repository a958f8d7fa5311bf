/* SPDX-License-Identifier: MIT */
/*
 * malloc, calloc, aligned_alloc, free and usable_size as the public header promises them, each
 * case by the plain calls and on a handle (tests/ways.h).
 */
#include "tests/ways.h"

#include <sys/mman.h>

/* ---- malloc ---- */

static void whole_objects(void)
{
    uint64_t random = harness_seed();
    size_t count = 0;
    for (size_t size = 0; size <= 3000; size++) {
        sizes[count++] = size;
    }
    for (unsigned bits = 11; bits <= 22; bits++) {
        for (int n = 0; n < 6; n++) {
            sizes[count++] = ((size_t)1 << bits) +
                             (n < 3 ? (size_t)n - 1
                                    : harness_random(&random) % ((size_t)1 << bits));
        }
    }
    for (size_t n = 0; n < count; n++) {
        objects[n] = a_malloc(sizes[n]);
        check_object(objects[n], sizes[n]);
        pattern_fill(objects[n], a_usable(objects[n]), n);
    }
    for (size_t n = 0; n < count; n++) {
        CHECK(pattern_holds(objects[n], a_usable(objects[n]), n));
    }
    for (size_t n = 0; n < count; n++) {
        a_free(objects[n]);
    }
}

TEST(every_usable_byte_is_the_objects_own)
{
    every_way(256 * MIB, HAK_OFF, whole_objects);
}

static int by_address(const void *a, const void *b)
{
    uintptr_t one = (uintptr_t) * (void *const *)a;
    uintptr_t two = (uintptr_t) * (void *const *)b;
    return one < two ? -1 : one > two;
}

static void zero_sizes(void)
{
    size_t count = 0;
    for (int n = 0; n < 300; n++) {
        objects[count++] = a_malloc(0);
        objects[count++] = a_calloc(0, 5);
        objects[count++] = a_calloc(SIZE_MAX, 0);
        objects[count++] = a_realloc(NULL, 0);
        objects[count++] = a_aligned(64, 0);
        objects[count++] = a_aligned(MIB, 0);
    }
    CHECK_EQ(a_malloc_bulk(0, 300, objects + count), 300);
    count += 300;
    for (size_t n = 0; n < count; n++) {
        check_object(objects[n], 1);
    }
    qsort(objects, count, sizeof *objects, by_address);
    for (size_t n = 1; n < count; n++) {
        CHECK(objects[n] != objects[n - 1]);
    }
    a_free_bulk(objects, count);
}

TEST(size_zero_gives_objects_of_their_own)
{
    every_way(512 * MIB, HAK_OFF, zero_sizes);
}

static void natural_alignment(void)
{
    for (size_t size = 16; size <= 2 * MIB; size += size < 8192 ? 16 : 4096) {
        size_t promised = alignment_of(size) > 64 * KIB ? 64 * KIB : alignment_of(size);
        for (int n = 0; n < 5; n++) {
            objects[n] = a_malloc(size);
            check_object(objects[n], size);
            if ((uintptr_t)objects[n] % promised != 0) {
                FAIL("%zu bytes at %p: not aligned to %zu", size, objects[n], promised);
            }
        }
        a_free_bulk(objects, 5);
    }
}

TEST(objects_are_aligned_to_what_divides_their_size)
{
    every_way(64 * MIB, HAK_OFF, natural_alignment);
}

static void impossible_sizes(void)
{
    const size_t huge[] = {SIZE_MAX,        SIZE_MAX - 1,     SIZE_MAX - 15,
                           SIZE_MAX - 4096, SIZE_MAX - 65535, (size_t)PTRDIFF_MAX + 1};
    int node = the_region()->area.segments[0].node;
    void *kept = a_malloc(100);
    check_object(kept, 100);
    pattern_fill(kept, 100, 7);
    for (size_t n = 0; n < sizeof huge / sizeof *huge; n++) {
        size_t size = unseen(huge[n]);
        errno = 0;
        check_refused(a_malloc(size), ENOMEM, HAK_ERROR_ARGUMENT);
        errno = 0;
        check_refused(a_calloc(size, 1), ENOMEM, HAK_ERROR_ARGUMENT);
        errno = 0;
        check_refused(a_calloc(1, size), ENOMEM, HAK_ERROR_ARGUMENT);
        errno = 0;
        check_refused(a_aligned(16, size), ENOMEM, HAK_ERROR_ARGUMENT);
        errno = 0;
        check_refused(a_aligned(4096, size), ENOMEM, HAK_ERROR_ARGUMENT);
        errno = 0;
        check_refused(a_aligned(HAK_ALIGNMENT_MAX, size), ENOMEM, HAK_ERROR_ARGUMENT);
        errno = 0;
        check_refused(a_realloc(kept, size), ENOMEM, HAK_ERROR_ARGUMENT);
        errno = 0;
        check_refused(a_realloc(NULL, size), ENOMEM, HAK_ERROR_ARGUMENT);
        errno = 0;
        CHECK_EQ(a_malloc_bulk(size, 3, objects), 0);
        CHECK_EQ(errno, ENOMEM);
        errno = 0;
        CHECK(a_on_node(size, node) == NULL);
        CHECK_EQ(errno, ENOMEM);
    }
    CHECK(pattern_holds(kept, 100, 7));
    a_free(kept);
}

TEST(sizes_over_ptrdiff_max_are_refused)
{
    every_way(8 * MIB, HAK_OFF, impossible_sizes);
}

static void beyond_the_region(void)
{
    const size_t sizes_beyond[] = {PTRDIFF_MAX, PTRDIFF_MAX - 65536, (size_t)1 << 48,
                                   (size_t)3 << 40, 16 * MIB + 1};
    for (size_t n = 0; n < sizeof sizes_beyond / sizeof *sizes_beyond; n++) {
        size_t size = unseen(sizes_beyond[n]);
        errno = 0;
        check_refused(a_malloc(size), ENOMEM, HAK_ERROR_EXHAUSTED);
        errno = 0;
        check_refused(a_calloc(size, 1), ENOMEM, HAK_ERROR_EXHAUSTED);
        errno = 0;
        check_refused(a_aligned(2 * MIB, size), ENOMEM, HAK_ERROR_EXHAUSTED);
    }
}

TEST(sizes_beyond_the_region_fail_as_exhausted)
{
    every_way(16 * MIB, HAK_OFF, beyond_the_region);
}

/* ---- calloc ---- */

static void products(void)
{
    const size_t pairs[][2] = {
        {SIZE_MAX, 2},           {2, SIZE_MAX},           {(size_t)1 << 32, (size_t)1 << 32},
        {SIZE_MAX / 16 + 1, 16}, {16, SIZE_MAX / 16 + 1}, {((size_t)1 << 33) + 1, (size_t)1 << 31},
        {SIZE_MAX, SIZE_MAX},    {(size_t)1 << 63, 2}};
    for (size_t n = 0; n < sizeof pairs / sizeof *pairs; n++) {
        errno = 0;
        check_refused(a_calloc(unseen(pairs[n][0]), unseen(pairs[n][1])), ENOMEM,
                      HAK_ERROR_ARGUMENT);
    }
}

TEST(calloc_checks_its_product)
{
    every_way(8 * MIB, HAK_OFF, products);
}

static void fill_with(unsigned char value, size_t size, size_t count)
{
    for (size_t n = 0; n < count; n++) {
        objects[n] = a_malloc(size);
        check_object(objects[n], size);
        memset(objects[n], value, a_usable(objects[n]));
    }
}

static void check_zeroed(size_t size, size_t count)
{
    for (size_t n = 0; n < count; n++) {
        objects[n] = n % 2 == 0 ? a_calloc(1, size) : a_calloc(size, 1);
        check_object(objects[n], size);
        CHECK(all_bytes_are(objects[n], size, 0));
        memset(objects[n], 0xbb, a_usable(objects[n]));
    }
    a_free_bulk(objects, count);
}

static void zero_after_use(void)
{
    static const size_t some[] = {1,         16,      100,         1024,       1025,
                                  5000,      65536,   100000,      256 * KIB,  256 * KIB + 1,
                                  512 * KIB, 2 * MIB, 2 * MIB + 1, 3 * MIB + 7};
    for (size_t n = 0; n < sizeof some / sizeof *some; n++) {
        size_t count = some[n] < 65536 ? 300 : 6;
        check_zeroed(some[n], count); /* fresh, then its own leavings, then others' */
        check_zeroed(some[n], count);
        fill_with(0xaa, some[n], count);
        a_free_bulk(objects, count);
        check_zeroed(some[n], count);
    }
    /* Units that a shrinking object gave back, and those that it grew over, are dirty too. */
    char *large = a_malloc(4 * MIB);
    check_object(large, 4 * MIB);
    memset(large, 0xcc, 4 * MIB);
    large = a_realloc(large, MIB);
    check_object(large, MIB);
    large = a_realloc(large, 8 * MIB);
    check_object(large, 8 * MIB);
    memset(large, 0xdd, 8 * MIB);
    large = a_realloc(large, MIB);
    check_object(large, MIB);
    check_zeroed(3 * MIB, 6);
    check_zeroed(MIB, 20);
    check_zeroed(300 * KIB, 20);
    a_free(large);
}

TEST(calloc_is_zero_whatever_lay_there_before)
{
    every_way(64 * MIB, HAK_OFF, zero_after_use);
}

/* Memory that nobody had but an object that grew over it in place. */
static void zero_after_growth(void)
{
    char *large = a_malloc(MIB);
    check_object(large, MIB);
    char *home = large;
    large = a_realloc(large, 16 * MIB);
    CHECK(large == home);
    memset(large, 0xdd, 16 * MIB);
    large = a_realloc(large, MIB);
    CHECK(large == home);
    check_zeroed(5 * MIB, 2);
    check_zeroed(300 * KIB, 20);
    a_free(large);
}

TEST(calloc_is_zero_where_an_object_grew_before)
{
    every_way(64 * MIB, HAK_OFF, zero_after_growth);
}

static size_t resident_pages(char *start, size_t bytes)
{
    static unsigned char there[65536];
    size_t resident = 0;
    CHECK_LE(bytes / 4096, sizeof there);
    CHECK_EQ(mincore(start, bytes, there), 0);
    for (size_t n = 0; n < bytes / 4096; n++) {
        resident += there[n] & 1;
    }
    return resident;
}

static void fresh_not_cleared(void)
{
    char *object = a_calloc(1, 256 * MIB);
    check_object(object, 256 * MIB);
    CHECK_EQ(resident_pages(object, 256 * MIB), 0);
    CHECK(all_bytes_are(object, MIB, 0));
    a_free(object);
}

TEST(calloc_leaves_fresh_memory_alone)
{
    every_way(300 * MIB, HAK_OFF, fresh_not_cleared);
}

/* ---- alignment ---- */

static void four_of(size_t alignment, size_t size)
{
    for (size_t k = 0; k < 4; k++) {
        objects[k] = a_aligned(alignment, size);
        check_object(objects[k], size);
        CHECK_EQ((uintptr_t)objects[k] % alignment, 0);
        pattern_fill(objects[k], size, k);
    }
    for (size_t k = 0; k < 4; k++) {
        CHECK(pattern_holds(objects[k], size, k));
        a_free(objects[k]);
    }
}

static void all_alignments(void)
{
    static const size_t some[] = {0,     1,      15,     16,     17,      100,
                                  1000,  3000,   4096,   10000,  50000,   65536,
                                  70000, 140000, 262144, 300000, 2097152, 3000000};
    for (size_t alignment = 1; alignment <= 4 * MIB; alignment *= 2) {
        for (size_t n = 0; n < sizeof some / sizeof *some; n++) {
            four_of(alignment, some[n]);
        }
    }
}

TEST(alignments_up_to_4_mib_at_many_sizes)
{
    every_way(64 * MIB, HAK_OFF, all_alignments);
}

static void giant_alignments(void)
{
    for (size_t alignment = 8 * MIB; alignment <= HAK_ALIGNMENT_MAX; alignment *= 2) {
        char *first = a_aligned(alignment, 1);
        char *second = a_aligned(alignment, 5 * MIB);
        check_object(first, 1);
        check_object(second, 5 * MIB);
        CHECK_EQ((uintptr_t)first % alignment, 0);
        CHECK_EQ((uintptr_t)second % alignment, 0);
        CHECK(first != second);
        first[0] = 1;
        second[0] = 2;
        second[5 * MIB - 1] = 3;
        a_free(first);
        a_free(second);
    }
}

TEST(alignments_up_to_1_gib)
{
    every_way(3 * GIB, HAK_OFF, giant_alignments);
}

static void bad_alignments(void)
{
    const size_t bad[] = {0,
                          3,
                          5,
                          6,
                          7,
                          9,
                          12,
                          24,
                          48,
                          4095,
                          4097,
                          65535,
                          3 * MIB,
                          HAK_ALIGNMENT_MAX + 1,
                          2 * HAK_ALIGNMENT_MAX,
                          (size_t)1 << 63,
                          ((size_t)1 << 63) + 16,
                          SIZE_MAX};
    for (size_t n = 0; n < sizeof bad / sizeof *bad; n++) {
        errno = 0;
        check_refused(a_aligned(unseen(bad[n]), 64), EINVAL, HAK_ERROR_ARGUMENT);
        errno = 0;
        check_refused(a_aligned(unseen(bad[n]), 0), EINVAL, HAK_ERROR_ARGUMENT);
    }
    struct hak_error error;
    CHECK(a_aligned(unseen(24), 77) == NULL);
    CHECK_EQ(hak_last_error(&error), -EINVAL);
    CHECK_EQ(error.alignment, 24);
    CHECK_EQ(error.size_bytes, 77);
}

TEST(other_alignments_are_refused)
{
    every_way(8 * MIB, HAK_OFF, bad_alignments);
}

/* ---- free ---- */

static void errno_kept(void)
{
    const int odd = 4711;
    static const size_t some[] = {16, 1000, 5000, 100000, 3 * MIB};
    for (size_t n = 0; n < sizeof some / sizeof *some; n++) {
        size_t count = some[n] > 5000 ? 5 : 6000; /* enough for flushes and recycled slabs */
        for (size_t k = 0; k < count; k++) {
            objects[k] = a_malloc(some[n]);
            check_object(objects[k], some[n]);
        }
        errno = odd;
        for (size_t k = 0; k < count / 2; k++) {
            k % 2 == 0 ? a_free(objects[k]) : a_free_sized(objects[k], some[n]);
            CHECK_EQ(errno, odd);
        }
        a_free_bulk(objects + count / 2, count - count / 2);
        CHECK_EQ(errno, odd);
    }
    void *object = a_malloc(64);
    check_object(object, 64);
    errno = odd;
    a_free(NULL);
    a_free_sized(NULL, 0);
    a_free_bulk(NULL, 0);
    CHECK(a_realloc(object, 0) == NULL);
    CHECK_EQ(errno, odd);
}

TEST(freeing_keeps_errno)
{
    every_way(64 * MIB, HAK_OFF, errno_kept);
}

static void sized_frees(void)
{
    static const size_t some[] = {1, 64, 1000, 65536, 3 * MIB};
    for (size_t n = 0; n < sizeof some / sizeof *some; n++) {
        size_t rounds = 3 * (16 * MIB) / (some[n] < 64 ? 64 : some[n]) + 3;
        for (size_t k = 0; k < rounds; k++) { /* three times what the region holds */
            void *object = a_malloc(some[n]);
            if (object == NULL) {
                FAIL("round %zu of %zu bytes", k, some[n]);
            }
            a_free_sized(object, some[n]);
        }
    }
}

TEST(free_sized_frees)
{
    every_way(16 * MIB, HAK_OFF, sized_frees);
}

static int static_object[8];

static void *free_it(void *pointer)
{
    a_free(pointer);
    return NULL;
}

static void not_objects(void)
{
    int on_stack[8] = {0};
    void *libc = malloc(100);
    char *small = a_malloc(100);
    char *large = a_malloc(MIB);
    check_object(small, 100);
    check_object(large, MIB);
    CHECK_EQ(a_usable(NULL), 0);
    CHECK_EQ(a_usable(on_stack), 0);
    CHECK_EQ(a_usable(static_object), 0);
    CHECK_EQ(a_usable(libc), 0);
    CHECK_EQ(a_usable((void *)UINTPTR_MAX), 0);
    CHECK_EQ(a_usable(small + 1), 0);
    CHECK_EQ(a_usable(small + 16), 0);
    CHECK_EQ(a_usable(large + 16), 0);
    CHECK_EQ(a_usable(large + 65536), 0);
    size_t have = a_usable(large);
    CHECK_GE(have, MIB);
    CHECK_EQ(a_usable(large + have), 0); /* free units behind it */
    kit_in_thread(free_it, large);
    CHECK_EQ(a_usable(large), 0);
    a_free(small);
    free(libc);
}

TEST(usable_size_of_what_is_no_object_is_0)
{
    every_way(16 * MIB, HAK_OFF, not_objects);
}

HARNESS_MAIN()
