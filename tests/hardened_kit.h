/* SPDX-License-Identifier: MIT */
/*
 * What tests of the hardened mode share: a hardened default region, and misuse that is counted and
 * looked at without ending the test. Where a case expects none, the policy is to abort, so that a
 * false complaint is never passed over.
 */
#ifndef HAK_TESTS_HARDENED_KIT_H
#define HAK_TESTS_HARDENED_KIT_H

#include "alloc/hardened.h"
#include "alloc/quarantine.h"
#include "tests/heap_kit.h"

/* Allocation calls of which the compiler does not know how long their objects are: it would refuse
 * to go beyond. */
static void *(*volatile hard_malloc)(size_t) = hak_malloc;
static void *(*volatile hard_region_malloc)(hak_region *, size_t) = hak_region_malloc;

/* Parts of what a report says; alloc/misuse.c. */
#define SAYS_TWICE "freed twice"
#define SAYS_OVERFLOW "past the end"
#define SAYS_WRITTEN "after it was freed"
#define SAYS_SIZE "another size or alignment"
#define SAYS_INTERIOR "not the start"
#define SAYS_NOTHING "nothing is allocated"

static inline struct hak_region *hard_open(size_t bytes, enum hak_misuse policy)
{
    struct hak_config config = kit_config(bytes);

    config.misuse = policy;
    config.hardened = HAK_ON;
    kit_forget_last();
    return kit_start(&config);
}

static inline struct hak_region *hard_open_filling(size_t bytes, enum hak_misuse policy,
                                                   const char *fill)
{
    struct hak_region *heap;

    setenv("HAKMEM_HARDENED_FILL", fill, 1);
    heap = hard_open(bytes, policy);
    unsetenv("HAKMEM_HARDENED_FILL");
    return heap;
}

static inline void hard_close(uint64_t misuses)
{
    kit_check_empty_after(misuses);
    kit_forget_last();
}

static inline uint64_t hard_misuses(void)
{
    return kit_stats().misuses;
}

/* The last misuse is of that object and of that kind. */
static inline void hard_check_said(const void *pointer, const char *words)
{
    struct hak_error error;

    CHECK_EQ(hak_last_error(&error), -EINVAL);
    CHECK_EQ(error.kind, HAK_ERROR_MISUSE);
    CHECK_EQ((uintptr_t)error.pointer, (uintptr_t)pointer);
    CHECK_STR_HAS(error.message, words);
}

/* Runs a statement, which is one misuse of the pointer and of that kind; exactly one. */
#define HARD_MISUSE(statement, pointer, words)                                                     \
    do {                                                                                           \
        struct hak_region *hard_heap = hak_region_default();                                       \
        uint64_t hard_before = atomic_load(&hard_heap->misuses);                                   \
        statement;                                                                                 \
        uint64_t hard_now = atomic_load(&hard_heap->misuses);                                      \
        if (hard_now != hard_before + 1) {                                                         \
            FAIL("%s: %llu misuses, not 1", #statement,                                            \
                 (unsigned long long)(hard_now - hard_before));                                    \
        }                                                                                          \
        hard_check_said(pointer, words);                                                           \
    } while (0)

/* Every byte of it has the value. */
static inline void hard_check_whole(const unsigned char *object, size_t size, unsigned char value)
{
    for (size_t n = 0; n < size; n++) {
        if (object[n] != value) {
            FAIL("%zu bytes at %p: byte %zu is %u, not %u", size, (const void *)object, n,
                 object[n], value);
        }
    }
}

/* An object as it comes. */
static inline void hard_check_fresh(const void *object, size_t size)
{
    CHECK(object != NULL);
    CHECK_EQ((uintptr_t)object % HAK_ALIGNMENT_MIN, 0);
    CHECK_EQ(hak_usable_size(object), max_size(size, 1));
}

/* Another value than the byte has, and the wished one where that is another. */
static inline void hard_change(unsigned char *at, unsigned char wished)
{
    *at = *at != wished ? wished : (unsigned char)(wished ^ 0x55);
}

/* The sizes worth a look: all small ones, and what lies around every border between classes. */
#define HARD_SIZES_MAX 12000
static size_t hard_sizes[HARD_SIZES_MAX];
static size_t hard_size_count;

static inline void hard_add_size(size_t size)
{
    CHECK(hard_size_count < HARD_SIZES_MAX);
    hard_sizes[hard_size_count++] = size;
}

static inline void hard_list_sizes(size_t all_up_to, size_t step)
{
    hard_size_count = 0;
    for (size_t size = 0; size <= all_up_to; size += step) {
        hard_add_size(size);
    }
    for (unsigned cls = 1; cls <= CLASS_COUNT; cls++) {
        for (size_t off = 0; off < 12; off++) {
            hard_add_size(sizeclass_bytes(cls) + 2 - off);
        }
    }
    for (size_t off = 0; off < 24; off++) {
        hard_add_size(320 * KIB + 8 - off);
        hard_add_size(2 * MIB + 8 - off);
    }
    hard_add_size(5 * MIB + 12345);
}

#endif
