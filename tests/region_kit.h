/* SPDX-License-Identifier: MIT */
/*
 * What tests of the public calls share: regions that go away whatever a case's end was, patterns
 * that tell one object's bytes from another's, and the heap's own check.
 *
 * A case that fails jumps out of its region; the next one's kit_open or kit_create ends what is
 * still there first. Regions of the kit are of 4 KiB pages unless said, so that they can be had on
 * every machine.
 */
#ifndef HAK_TESTS_REGION_KIT_H
#define HAK_TESTS_REGION_KIT_H

#include "alloc/heap.h"
#include "tests/harness.h"

#include <hakmem.h>

#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)
#define GIB ((size_t)1 << 30)

static hak_region *kit_regions[HAK_REGIONS_MAX];

/* Sizes that compilers shall not see through: they warn of what these tests are about. */
static inline size_t unseen(size_t value)
{
    volatile size_t hidden = value;
    return hidden;
}

static inline struct hak_config kit_config(size_t bytes, enum hak_pages pages,
                                           enum hak_switch prefault)
{
    struct hak_config config = {.size_bytes = bytes, .prefault = prefault};
    config.pages[0] = pages;
    config.misuse = HAK_MISUSE_ABORT;
    config.exhausted = HAK_EXHAUSTED_FAIL;
    return config;
}

/* Ends every region that the kit opened and an earlier case left behind. */
static inline void kit_close(void)
{
    for (unsigned n = 0; n < HAK_REGIONS_MAX; n++) {
        if (kit_regions[n] != NULL) {
            (void)hak_region_destroy(kit_regions[n]);
            kit_regions[n] = NULL;
        }
    }
    if (hak_region_default() != NULL) {
        (void)hak_region_fini();
    }
}

static inline void kit_open_config(const struct hak_config *config)
{
    struct hak_error error;
    kit_close();
    int code = hak_region_init(config);
    if (code != 0) {
        (void)hak_last_error(&error);
        FAIL("hak_region_init: %d: %s", code, error.message);
    }
}

/* The default region, of 4 KiB pages. */
static inline void kit_open(size_t bytes, enum hak_switch prefault)
{
    struct hak_config config = kit_config(bytes, HAK_PAGES_4K, prefault);
    kit_open_config(&config);
}

static inline hak_region *kit_keep(hak_region *region)
{
    unsigned n = 0;
    while (kit_regions[n] != NULL) {
        n++;
    }
    kit_regions[n] = region;
    return region;
}

/* A further region; what is open stays. */
static inline hak_region *kit_create_config(const struct hak_config *config)
{
    hak_region *region = NULL;
    struct hak_error error;
    int code = hak_region_create(config, &region);
    if (code != 0) {
        (void)hak_last_error(&error);
        FAIL("hak_region_create: %d: %s", code, error.message);
    }
    return kit_keep(region);
}

static inline hak_region *kit_create(size_t bytes, enum hak_switch prefault)
{
    struct hak_config config = kit_config(bytes, HAK_PAGES_4K, prefault);
    return kit_create_config(&config);
}

static inline void kit_destroy(hak_region *region)
{
    for (unsigned n = 0; n < HAK_REGIONS_MAX; n++) {
        if (kit_regions[n] == region) {
            kit_regions[n] = NULL;
        }
    }
    CHECK_EQ(hak_region_destroy(region), 0);
}

static inline struct hak_stats kit_stats(hak_region *region)
{
    struct hak_stats stats;
    CHECK_EQ(hak_region_stats(region, &stats), 0);
    return stats;
}

/* The invariants of every room of a region (NULL: the default one) that nobody uses now. */
static inline void kit_check(hak_region *region)
{
    CHECK(heap_check(region != NULL ? region : hak_region_default()));
}

static inline void *kit_join(pthread_t thread)
{
    void *result = NULL;
    CHECK_EQ(pthread_join(thread, &result), 0);
    return result;
}

/* Runs fn(argument) in a thread of its own and waits for it: what it had in caches goes back. */
static inline void kit_in_thread(void *(*fn)(void *), void *argument)
{
    pthread_t thread;
    CHECK_EQ(pthread_create(&thread, NULL, fn, argument), 0);
    (void)kit_join(thread);
}

/* ---- patterns ------------------------------------------------------------------------------- */

/* The 8 bytes at an offset of the object with this tag. */
static inline uint64_t pattern_word(uint64_t tag, size_t offset)
{
    return (tag + 1) * 0x9e3779b97f4a7c15U + offset * 0xd6e8feb86659fd93U;
}

static inline void pattern_fill(void *object, size_t bytes, uint64_t tag)
{
    unsigned char *at = object;
    size_t offset = 0;
    for (; offset + 8 <= bytes; offset += 8) {
        uint64_t word = pattern_word(tag, offset);
        memcpy(at + offset, &word, 8);
    }
    if (offset < bytes) {
        uint64_t word = pattern_word(tag, offset);
        memcpy(at + offset, &word, bytes - offset);
    }
}

static inline bool pattern_holds(const void *object, size_t bytes, uint64_t tag)
{
    const unsigned char *at = object;
    size_t offset = 0;
    for (; offset + 8 <= bytes; offset += 8) {
        uint64_t word = pattern_word(tag, offset);
        if (memcmp(at + offset, &word, 8) != 0) {
            return false;
        }
    }
    uint64_t word = pattern_word(tag, offset);
    return memcmp(at + offset, &word, bytes - offset) == 0;
}

static inline bool all_bytes_are(const void *start, size_t bytes, unsigned char value)
{
    const unsigned char *at = start;
    return bytes == 0 || (at[0] == value && memcmp(at, at + 1, bytes - 1) == 0);
}

/* Largest power of two that divides an address or a size; SIZE_MAX / 2 + 1 for 0. */
static inline size_t alignment_of(uint64_t value)
{
    return value == 0 ? SIZE_MAX / 2 + 1 : (size_t)(value & (~value + 1));
}

#endif
