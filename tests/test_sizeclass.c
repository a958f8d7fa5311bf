/* SPDX-License-Identifier: MIT */
/*
 * The table of size classes against the rule it follows, and the arithmetic on it for every size
 * and every byte of every slab.
 */
#include "alloc/sizeclass.h"

#include "tests/harness.h"

#include <hakmem.h>

/* The classes' sizes by the rule: every 16 bytes to 128, then four to a doubling, eight from 2 KiB
 * to 8 KiB. */
static unsigned rule(size_t *bytes)
{
    unsigned count = 0;

    bytes[count++] = 0;
    for (size_t size = 16; size <= 128; size += 16) {
        bytes[count++] = size;
    }
    for (size_t power = 128; power < CLASS_BYTES_MAX; power *= 2) {
        size_t steps = power == 2048 || power == 4096 ? 8 : 4;
        for (size_t step = 1; step <= steps; step++) {
            bytes[count++] = power + step * power / steps;
        }
    }
    return count;
}

TEST(the_table_follows_the_rule)
{
    size_t bytes[256];

    CHECK_EQ(rule(bytes), CLASS_COUNT + 1);
    CHECK_EQ(hak_class_count(), CLASS_COUNT);
    CHECK_EQ(bytes[CLASS_COUNT], CLASS_BYTES_MAX);
    for (unsigned cls = 0; cls <= CLASS_COUNT; cls++) {
        CHECK_EQ(sizeclass_bytes(cls), bytes[cls]);
    }
    for (unsigned cls = 1; cls <= CLASS_COUNT; cls++) {
        CHECK_EQ(bytes[cls] % HAK_ALIGNMENT_MIN, 0);
        uint64_t one = (uint64_t)1 << RECIPROCAL_LOG2;
        CHECK_EQ(sizeclasses[cls].reciprocal, one / bytes[cls] + (one % bytes[cls] != 0));
    }
}

TEST(every_size_has_the_smallest_class_that_holds_it)
{
    unsigned cls = 1;

    CHECK_EQ(sizeclass_of(0), 1);
    for (size_t size = 1; size <= CLASS_BYTES_MAX; size++) {
        cls += size > sizeclass_bytes(cls);
        CHECK_EQ(sizeclass_of(size), cls);
        if (size > CLASS_TABLE_BYTES_MAX) {
            CHECK_EQ(sizeclass_computed(size), cls);
        }
    }
    CHECK_EQ(cls, CLASS_COUNT);
}

TEST(rounding_costs_at_most_a_fifth_above_128_bytes_and_a_ninth_about_4_kib)
{
    for (size_t size = 129; size <= CLASS_BYTES_MAX; size++) {
        size_t bytes = sizeclass_bytes(sizeclass_of(size));
        CHECK_LE((bytes - size) * 5, bytes);
        if (size > 2048 && size <= 8192) {
            CHECK_LE((bytes - size) * 9, bytes);
        }
    }
    for (size_t size = 1; size <= 128; size++) {
        CHECK_LE(sizeclass_bytes(sizeclass_of(size)) - size, 15);
    }
}

TEST(slabs_waste_little_and_strand_little)
{
    for (unsigned cls = 1; cls <= CLASS_COUNT; cls++) {
        unsigned units = sizeclasses[cls].unit_count;
        size_t slab = (size_t)units << UNIT_LOG2;
        unsigned capacity = sizeclass_capacity(cls, units);
        CHECK_EQ(capacity, slab / sizeclass_bytes(cls));
        CHECK_LE((slab - capacity * sizeclass_bytes(cls)) * 1000, slab * 25);
        CHECK_GE(capacity, sizeclass_bytes(cls) <= 32768 ? 8 : 2);
        /* A few threads with a slab of each class must not have used up a small region. */
        CHECK_LE(units, 8);
        CHECK_GE(units, sizeclass_least_units(cls));
    }
}

TEST(the_least_slab_holds_an_object_and_a_unit_less_does_not)
{
    for (unsigned cls = 1; cls <= CLASS_COUNT; cls++) {
        unsigned units = sizeclass_least_units(cls);
        CHECK_GE(units, 1);
        CHECK_GE(units * UNIT_BYTES, sizeclass_bytes(cls));
        CHECK_LE((units - 1) * UNIT_BYTES, sizeclass_bytes(cls) - 1);
        CHECK_GE(sizeclass_capacity(cls, units), 1);
    }
}

/* Every byte of every slab, of the wished length and those that fragmentation asks for. */
TEST(the_object_of_every_byte_of_every_slab_is_found)
{
    for (unsigned cls = 1; cls <= CLASS_COUNT; cls++) {
        size_t bytes = sizeclass_bytes(cls);
        size_t offset = 0;
        for (unsigned index = 0; offset < (size_t)sizeclasses[cls].unit_count << UNIT_LOG2;
             index++) {
            for (size_t n = 0; n < bytes; n++, offset++) {
                if (sizeclass_index(cls, offset) != index) {
                    FAIL("class %u, offset %zu: object %u, not %u", cls, offset,
                         sizeclass_index(cls, offset), index);
                }
            }
        }
        for (unsigned units = 1; units <= SUPERSLAB_UNITS; units++) {
            CHECK_EQ(sizeclass_capacity(cls, units), units * UNIT_BYTES / bytes);
        }
    }
}

/* The comment at sizeclass_index says why it is exact up to a SuperSlab; the critical places are
 * the bytes on both sides of each border. */
TEST(borders_of_objects_are_exact_in_a_slab_as_long_as_a_superslab)
{
    for (unsigned cls = 1; cls <= CLASS_COUNT; cls++) {
        size_t bytes = sizeclass_bytes(cls);
        for (size_t index = 1; index * bytes < SUPERSLAB_BYTES; index++) {
            CHECK_EQ(sizeclass_index(cls, index * bytes), index);
            CHECK_EQ(sizeclass_index(cls, index * bytes - 1), index - 1);
        }
    }
}

static unsigned smallest_aligned(size_t size, size_t alignment)
{
    for (unsigned cls = 1; cls <= CLASS_COUNT; cls++) {
        if (sizeclass_bytes(cls) >= size && sizeclass_bytes(cls) % alignment == 0) {
            return cls;
        }
    }
    return CLASS_NONE;
}

static void check_aligned(size_t size, size_t alignment)
{
    CHECK_EQ(sizeclass_aligned(size, alignment), smallest_aligned(size, alignment));
}

TEST(aligned_sizes_get_the_smallest_class_whose_objects_are_all_aligned)
{
    for (size_t alignment = 1; alignment <= UNIT_BYTES; alignment *= 2) {
        size_t step = alignment < 64 ? 13 : 61;
        for (size_t size = 0; size <= CLASS_BYTES_MAX + 1000; size += step) {
            check_aligned(size, alignment);
        }
        for (unsigned cls = 1; cls <= CLASS_COUNT; cls++) {
            size_t bytes = sizeclass_bytes(cls);
            for (size_t size = bytes - 1; size <= bytes + 1; size++) {
                check_aligned(size, alignment);
            }
        }
    }
}

HARNESS_MAIN()
