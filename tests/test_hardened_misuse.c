/* SPDX-License-Identifier: MIT */
/*
 * What the hardened mode finds, seen by one thread: bytes written beyond an object, before it and
 * after its end, second frees, wrong sizes and pointers to no object, each once and at the place
 * that the header promises.
 */
#include "tests/hardened_kit.h"

#define MANY 4096

static unsigned char *objects[MANY];

/* ---- bytes beyond ---------------------------------------------------------------------------- */

/* Large objects' guards and canaries: tests/test_hardened_large.c. */
static bool has_canary(size_t size)
{
    return hardened_class(size, 0) != CLASS_NONE;
}

TEST(one_byte_too_many_is_found_at_free)
{
    uint64_t found = 0;

    hard_open(64 * MIB, HAK_MISUSE_IGNORE);
    hard_list_sizes(9000, 1);
    for (size_t n = 0; n < hard_size_count; n++) {
        size_t size = hard_sizes[n];
        for (unsigned value = 0; value <= 0xff && has_canary(size); value += 0xff) {
            unsigned char *object = hard_malloc(size);
            hard_change(object + max_size(size, 1), (unsigned char)value);
            HARD_MISUSE(hak_free(object), object, SAYS_OVERFLOW);
            found++;
        }
    }
    CHECK_GE(found, 18000);
    hard_close(found);
}

TEST(each_of_the_eight_bytes_behind_an_object_is_looked_at)
{
    hard_open(64 * MIB, HAK_MISUSE_IGNORE);
    for (size_t size = 1; size < 200; size++) {
        for (unsigned at = 0; at < CANARY_BYTES; at++) {
            unsigned char *object = hard_malloc(size);
            object[size + at] ^= (unsigned char)(1U << (size % 8));
            HARD_MISUSE(hak_free_sized(object, size), object, SAYS_OVERFLOW);
        }
    }
    hard_close(199 * CANARY_BYTES);
}

/* In place and moved, once and not once more when the old object is freed. */
TEST(one_byte_too_many_is_found_at_realloc_and_only_there)
{
    uint64_t found = 0;

    hard_open(64 * MIB, HAK_MISUSE_IGNORE);
    hard_list_sizes(2000, 3);
    for (size_t n = 0; n < hard_size_count; n++) {
        size_t size = max_size(hard_sizes[n], 1);
        size_t others[] = {size, size + 1, 2 * size, size / 3 + 1};
        for (unsigned to = 0; to < 4 && has_canary(size); to++) {
            unsigned char *object = hard_malloc(size), *moved = NULL;
            memset(object, 7, size);
            hard_change(object + size, 0);
            HARD_MISUSE(moved = hak_realloc(object, others[to]), object, SAYS_OVERFLOW);
            hard_check_fresh(moved, others[to]);
            hard_check_whole(moved, min_size(size, others[to]), 7);
            hak_free_sized(moved, others[to]);
            found++;
        }
    }
    hard_close(found);
}

/* The first of the objects that another one of the same slot size lies right behind; or none. */
static size_t find_neighbour(size_t count, size_t slot, size_t of)
{
    for (size_t n = 0; n < count; n++) {
        if (objects[n] + slot == objects[of]) {
            return n;
        }
    }
    return count;
}

/* NOLINTNEXTLINE(readability-function-size): loops, and the levels that CHECK brings. */
TEST(one_byte_before_an_object_is_its_neighbours_canary)
{
    uint64_t found = 0;

    hard_open(64 * MIB, HAK_MISUSE_IGNORE);
    for (unsigned cls = 2; cls <= CLASS_COUNT; cls++) {
        size_t slot = sizeclass_bytes(cls), size = slot - CANARY_BYTES;
        size_t count = min_size(40, 16 * MIB / slot);
        size_t before = count, of = count;
        for (size_t n = 0; n < count; n++) {
            objects[n] = hard_malloc(size);
            CHECK(objects[n] != NULL);
        }
        for (size_t n = 0; n < count && before == count; n++) {
            of = n;
            before = find_neighbour(count, slot, n);
        }
        CHECK(before < count); /* of so many, two are neighbours */
        /* cppcheck-suppress negativeIndex ; the byte before is what this is about */
        objects[of][-1] ^= 0x40;
        for (size_t n = 0; n < count; n++) {
            if (n == before) {
                HARD_MISUSE(hak_free(objects[n]), objects[n], SAYS_OVERFLOW);
                found++;
            } else {
                hak_free(objects[n]);
            }
        }
    }
    hard_close(found);
}

/* ---- after free ------------------------------------------------------------------------------ */

/* Writes to the freed victim, and then takes objects of its size until it comes up again. */
static void write_after_free(size_t size, size_t at)
{
    size_t count = 0;
    unsigned char *keep = hard_malloc(size), *victim = hard_malloc(size);

    hak_free(victim);
    victim[at] ^= 0x10;
    thread_detach_all(); /* out of this thread's hands, so that it is one of the next few */
    uint64_t before = hard_misuses();
    do {
        CHECK(count < MANY);
        CHECK_EQ(hard_misuses(), before); /* not before it is handed out */
        objects[count] = hard_malloc(size);
        CHECK(objects[count] != NULL);
    } while (objects[count++] != victim);
    CHECK_EQ(hard_misuses(), before + 1);
    hard_check_said(victim, SAYS_WRITTEN);
    while (count-- > 0) {
        hak_free(objects[count]);
    }
    hak_free(keep);
    thread_detach_all();
}

TEST(a_write_after_free_is_found_when_the_memory_is_handed_out)
{
    uint64_t random = harness_seed(), found = 0;

    hard_open(64 * MIB, HAK_MISUSE_IGNORE);
    for (unsigned cls = 2; cls <= CLASS_COUNT; cls++) {
        size_t size = sizeclass_bytes(cls) - CANARY_BYTES;
        size_t filled = min_size(64, sizeclass_bytes(cls));
        size_t places[] = {0, filled - 1, harness_random(&random) % filled};
        for (unsigned n = 0; n < 3; n++, found++) {
            write_after_free(size, places[n]);
        }
    }
    hard_close(found);
}

TEST(with_all_of_it_filled_any_byte_written_after_free_is_found)
{
    uint64_t random = harness_seed(), found = 0;

    hard_open_filling(64 * MIB, HAK_MISUSE_IGNORE, "2T");
    for (unsigned cls = 2; cls <= CLASS_COUNT; cls++) {
        size_t bytes = sizeclass_bytes(cls), size = bytes - CANARY_BYTES;
        size_t places[] = {bytes - 1, harness_random(&random) % bytes};
        for (unsigned n = 0; n < 2; n++, found++) {
            write_after_free(size, places[n]);
        }
    }
    hard_close(found);
}

/* As many bytes as are said, rounded down to 16; none, or nonsense, is no way to a crash. */
TEST(how_much_is_filled_can_be_said)
{
    static const struct {
        const char *text;
        size_t bytes;
    } fills[] = {{"16", 16}, {"33", 32}, {"48", 48}, {"100", 96}, {"4K", 4096}, {"9T", 6144}};

    for (unsigned n = 0; n < sizeof(fills) / sizeof(*fills); n++) {
        hard_open_filling(16 * MIB, HAK_MISUSE_IGNORE, fills[n].text);
        write_after_free(6000, fills[n].bytes - 1);
        hard_close(1);
    }
    hard_open_filling(16 * MIB, HAK_MISUSE_ABORT, "0");
    for (unsigned round = 0; round < 300; round++) {
        for (size_t size = 0; size < 400000; size = size * 3 + 1) {
            unsigned char *object = hard_malloc(size);
            memset(object, 0xff, size);
            hak_free(object);
        }
    }
    hard_close(0);
    struct hak_config config = kit_config(16 * MIB);
    setenv("HAKMEM_HARDENED_FILL", "much", 1);
    CHECK_EQ(hak_region_init(&config), -EINVAL);
    unsetenv("HAKMEM_HARDENED_FILL");
}

/* NOLINTNEXTLINE(readability-function-size): loops, and the levels that CHECK brings. */
TEST(a_second_free_is_found_at_the_call)
{
    static const unsigned others[] = {0, 1, 10, 63, 64, 65, 200, 1000};
    uint64_t found = 0;

    hard_open(64 * MIB, HAK_MISUSE_IGNORE);
    for (unsigned cls = 2; cls <= CLASS_COUNT; cls += 3) {
        size_t size = sizeclass_bytes(cls) - CANARY_BYTES;
        for (unsigned n = 0; n < sizeof(others) / sizeof(*others); n++) {
            void *keep = hard_malloc(size), *victim = hard_malloc(size);
            size_t count = min_size(others[n], 16 * MIB / size);
            for (size_t other = 0; other < count; other++) {
                objects[other] = hard_malloc(size);
            }
            hak_free(victim);
            for (size_t other = 0; other < count; other++) {
                hak_free(objects[other]);
            }
            /* Later on, or of a few large ones, the slab is gone: nothing is allocated there. */
            bool near = size <= 4096 && count <= 1;
            const char *words = near ? SAYS_TWICE : "misuse";
            HARD_MISUSE(hak_free(victim), victim, words);
            HARD_MISUSE(hak_free_sized(victim, size), victim, words);
            HARD_MISUSE(CHECK(hak_realloc(victim, size) == NULL), victim, words);
            found += 3;
            if (near) {
                HARD_MISUSE(CHECK_EQ(hak_usable_size(victim), 0), victim, SAYS_TWICE);
                found++;
            }
            hak_free(keep);
        }
    }
    hard_close(found);
}

TEST(what_is_no_object_is_found_at_the_call)
{
    hard_open(16 * MIB, HAK_MISUSE_IGNORE);
    uint64_t found = 0;
    static const size_t sizes[] = {1, 24, 100, 5000, 40000, 262136, 400000};
    for (unsigned n = 0; n < sizeof(sizes) / sizeof(*sizes); n++) {
        unsigned char *object = hard_malloc(sizes[n]);
        for (size_t at = 1; at < sizes[n]; at = at * 2 + 15) {
            HARD_MISUSE(hak_free(object + at), object + at, SAYS_INTERIOR);
            HARD_MISUSE(hak_free_sized(object + at, sizes[n]), object + at, SAYS_INTERIOR);
            CHECK_EQ(hak_usable_size(object + at), 0);
            found += 2;
        }
        CHECK_EQ(hak_usable_size(object), sizes[n]);
        hak_free(object);
    }
    int local = 0;
    HARD_MISUSE(hak_free(&local), &local, "not a pointer into the region");
    HARD_MISUSE(hak_free_sized((void *)24, 8), (void *)24, "not a pointer into the region");
    hard_close(found + 2);
}

TEST(a_wrong_size_is_found_and_the_object_is_freed)
{
    uint64_t found = 0;

    hard_open(64 * MIB, HAK_MISUSE_IGNORE);
    hard_list_sizes(500, 1);
    for (size_t n = 0; n < hard_size_count; n++) {
        size_t size = max_size(hard_sizes[n], 1);
        size_t wrong[] = {size + 1, size > 1 ? size - 1 : 2, 2 * size, SIZE_MAX};
        for (unsigned w = 0; w < 4; w++, found++) {
            void *object = hard_malloc(size);
            HARD_MISUSE(hak_free_sized(object, wrong[w]), object, SAYS_SIZE);
            HARD_MISUSE(hak_free(object), object, "misuse"); /* it is free */
            found++;
        }
    }
    void *object = hak_aligned_alloc(64, 100);
    HARD_MISUSE(hak_free_aligned_sized(object, 64, 99), object, SAYS_SIZE);
    object = hak_aligned_alloc(64, 100);
    HARD_MISUSE(hak_free_aligned_sized(object, MIB * 1024, 100), object, SAYS_SIZE);
    object = hak_aligned_alloc(64, 100);
    HARD_MISUSE(hak_free_aligned_sized(object, 48, 100), object, SAYS_SIZE);
    hard_close(found + 3);
}

HARNESS_MAIN()
