/* SPDX-License-Identifier: MIT */
/*
 * Large objects of a hardened region: what stands around them, what is held back of them, and what
 * becomes of all that where the kernel has no more room for pieces, or nothing left to guard with.
 */
#include "tests/deny_kit.h"
#include "tests/hardened_kit.h"
#include "tests/left_kit.h"

#include <sys/file.h>

/* The least large object with guards: no canary behind it. */
#define LEAST ((size_t)262137)

static const size_t sizes[] = {
    LEAST,   320 * KIB,   320 * KIB + 1,   384 * KIB - 1, 2 * MIB - 64 * KIB,
    2 * MIB, 2 * MIB + 1, 5 * MIB - 12345, 8 * MIB,
};
#define SIZES (sizeof(sizes) / sizeof(*sizes))

static struct hak_region *open_on(enum hak_pages pages, size_t bytes, enum hak_misuse policy)
{
    struct hak_config config = kit_config(bytes);

    config.misuse = policy;
    config.hardened = HAK_ON;
    config.pages[0] = pages;
    kit_forget_last();
    return kit_start(&config);
}

/* End of the units of an object. */
static unsigned char *units_end(unsigned char *object, size_t size)
{
    return object + round_up(size, UNIT_BYTES);
}

static void touch(void *at)
{
    *(volatile unsigned char *)at = 1;
}

static void look_at(void *at)
{
    (void)*(volatile unsigned char *)at;
}

struct touching {
    void (*act)(void *);
    void *at;
};

static void touch_plainly(void *touching)
{
    const struct touching *how = touching;

    signal(SIGSEGV, SIG_DFL); /* a sanitizer has a handler of its own */
    how->act(how->at);
}

static void check_dies(void (*act)(void *), void *at)
{
    struct harness_result result;
    struct touching how = {act, at};

    harness_child(touch_plainly, &how, &result);
    CHECK_EQ(result.signal, SIGSEGV);
}

/* ---- guards ---------------------------------------------------------------------------------- */

static void guards_around(enum hak_pages pages)
{
    open_on(pages, 64 * MIB, HAK_MISUSE_ABORT);
    for (unsigned n = 0; n < SIZES; n++) {
        unsigned char *object = hard_malloc(sizes[n]);
        CHECK(object != NULL);
        CHECK_EQ(hak_usable_size(object), sizes[n]);
        memset(object, 0xff, sizes[n]);
        check_dies(touch, object - 1);
        check_dies(look_at, object - UNIT_BYTES);
        check_dies(touch, units_end(object, sizes[n]));
        check_dies(look_at, units_end(object, sizes[n]) + UNIT_BYTES - 1);
        hak_free_sized(object, sizes[n]);
    }
    CHECK_EQ(kit_stats().guards_refused, 0);
    hard_close(0);
}

TEST(nobody_can_touch_what_lies_before_and_behind_a_large_object)
{
    guards_around(HAK_PAGES_4K);
}

TEST(nobody_can_touch_it_where_pages_are_transparently_huge)
{
    guards_around(HAK_PAGES_THP);
}

TEST(a_large_object_of_whole_units_ends_where_its_guard_begins)
{
    hard_open(64 * MIB, HAK_MISUSE_ABORT);
    for (size_t units = 5; units < 100; units += 9) {
        unsigned char *object = hard_malloc(units * UNIT_BYTES);
        memset(object, 1, units * UNIT_BYTES);
        check_dies(touch, object + units * UNIT_BYTES);
        hak_free_sized(object, units * UNIT_BYTES);
    }
    hard_close(0);
}

TEST(behind_a_highly_aligned_object_there_is_a_guard_too)
{
    hard_open(64 * MIB, HAK_MISUSE_ABORT);
    for (size_t alignment = 128 * KIB; alignment <= 8 * MIB; alignment *= 4) {
        for (size_t size = 1; size < 4 * MIB; size = size * 40 + 1) {
            unsigned char *object = hak_aligned_alloc(alignment, size);
            CHECK(object != NULL);
            CHECK_EQ((uintptr_t)object % alignment, 0);
            CHECK_EQ(hak_usable_size(object), size);
            memset(object, 0xff, size);
            check_dies(touch, units_end(object, size));
            hak_free_aligned_sized(object, alignment, size);
        }
    }
    hard_close(0);
}

/* In the rest of the last unit, of which no page can be told apart. */
/* NOLINTNEXTLINE(readability-function-size): loops, and the levels that CHECK brings. */
TEST(one_byte_too_many_before_the_guard_is_found_at_free_and_at_realloc)
{
    uint64_t found = 0;

    hard_open(64 * MIB, HAK_MISUSE_IGNORE);
    for (size_t size = 320 * KIB + 1; size < 320 * KIB + 20000; size += 777) {
        for (unsigned way = 0; way < 4; way++, found++) {
            unsigned char *object = hard_malloc(size), *moved = NULL;
            hard_change(object + size, way % 2 == 0 ? 0 : 0xff);
            if (way < 2) {
                HARD_MISUSE(hak_free(object), object, SAYS_OVERFLOW);
                continue;
            }
            size_t next = way == 2 ? size + 1 : 3 * MIB;
            HARD_MISUSE(moved = hak_realloc(object, next), object, SAYS_OVERFLOW);
            CHECK_EQ(hak_usable_size(moved), next);
            hak_free_sized(moved, next);
        }
    }
    hard_close(found);
}

static void check_canaries(hak_region *region)
{
    uint64_t found = 0;

    for (unsigned n = 0; n < 6; n++) {
        unsigned char *object = hard_region_malloc(region, sizes[n]);
        CHECK(object != NULL);
        CHECK_EQ(hak_region_usable_size(region, object), sizes[n]);
        memset(object, 1, sizes[n]);
        hard_change(object + sizes[n], 0); /* whole units: into one more, taken for the canary */
        hak_region_free(region, object);
        CHECK_EQ(atomic_load(&region->misuses), ++found);
        hard_check_said(object, SAYS_OVERFLOW);
        hak_region_free(region, object);
        CHECK_EQ(atomic_load(&region->misuses), ++found);
    }
}

TEST(adopted_memory_is_not_guarded_but_a_canary_is_there)
{
    struct hak_config config = {.hardened = HAK_ON, .misuse = HAK_MISUSE_IGNORE};
    unsigned char *memory = mmap(NULL, 66 * MIB, PROT_READ | PROT_WRITE,
                                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    hak_region *region;

    CHECK(memory != MAP_FAILED);
    kit_forget_last();
    CHECK_EQ(hak_region_adopt(memory, 66 * MIB, -1, &config, &region, NULL), 0);
    check_canaries(region);
    CHECK(heap_check(region));
    CHECK_EQ(hak_region_destroy(region), 0);
    memset(memory, 1, 66 * MIB); /* all of it is its owner's, to be touched as ever */
    munmap(memory, 66 * MIB);
}

static void on_huge_pages(void *unused)
{
    (void)unused;
    want_free(HAK_PAGES_2M, 40);
    open_on(HAK_PAGES_2M, 64 * MIB, HAK_MISUSE_IGNORE);
    CHECK(!hak_region_default()->hardened->guards);
    check_canaries(hak_region_default());
    hard_close(12);
    restore_pools();
}

TEST(huge_pages_are_not_guarded_but_a_canary_is_there)
{
    struct harness_result result;
    FILE *lock = fopen("/tmp/hugepages.lock", "w");

    CHECK(lock != NULL && flock(fileno(lock), LOCK_EX) == 0);
    harness_child(on_huge_pages, NULL, &result);
    fclose(lock);
    if (result.exit_status == HARNESS_EXIT_SKIPPED) {
        SKIP("%s", result.output);
    }
    if (result.exit_status != 0) {
        FAIL("status %d, signal %d: %s", result.exit_status, result.signal, result.output);
    }
}

/* ---- held back ------------------------------------------------------------------------------- */

TEST(a_freed_large_object_is_held_back_and_untouchable)
{
    hard_open(512 * MIB, HAK_MISUSE_IGNORE);
    for (unsigned n = 0; n < 6; n++) {
        unsigned char *object = hard_malloc(sizes[n]);
        size_t taken = kit_stats().large_bytes;
        hak_free(object);
        CHECK_EQ(kit_stats().large_bytes, taken); /* it may have sent another one away */
        check_dies(look_at, object);
        check_dies(touch, object + sizes[n] - 1);
        unsigned char *next = hard_malloc(sizes[n]);
        CHECK_NE((uintptr_t)next, (uintptr_t)object);
        HARD_MISUSE(hak_free(object), object, SAYS_TWICE);
        HARD_MISUSE(CHECK(hak_realloc(object, 10) == NULL), object, SAYS_TWICE);
        hak_free(next);
        kit_let_go(hak_region_default());
        CHECK_EQ(kit_stats().large_bytes, 0);
    }
    hard_close(12);
}

TEST(what_is_held_back_of_large_objects_stays_a_small_share)
{
    hard_open(256 * MIB, HAK_MISUSE_ABORT);
    uint64_t random = harness_seed();
    size_t most = 0;
    for (unsigned n = 0; n < 2000; n++) {
        size_t size = LEAST + harness_random(&random) % (n % 2 == 0 ? 400 * KIB : 3 * MIB);
        hak_free(hard_malloc(size));
        most = max_size(most, kit_stats().large_bytes);
    }
    CHECK_GE(most, 1 * MIB);
    CHECK_LE(most, 256 * MIB / 20);
    hard_close(0);
}

TEST(what_was_written_after_free_is_found_where_nothing_can_be_forbidden)
{
    struct hak_config config = {.hardened = HAK_ON, .misuse = HAK_MISUSE_IGNORE};
    unsigned char *memory = mmap(NULL, 130 * MIB, PROT_READ | PROT_WRITE,
                                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    hak_region *region;

    CHECK(memory != MAP_FAILED);
    kit_forget_last();
    CHECK_EQ(hak_region_adopt(memory, 130 * MIB, -1, &config, &region, NULL), 0);
    unsigned char *object = hard_region_malloc(region, LEAST);
    hak_region_free(region, object);
    object[63] ^= 1;
    CHECK_EQ(atomic_load(&region->misuses), 0);
    kit_let_go(region);
    CHECK_EQ(atomic_load(&region->misuses), 1);
    hard_check_said(object, SAYS_WRITTEN);
    CHECK(heap_check(region));
    CHECK_EQ(hak_region_destroy(region), 0);
    munmap(memory, 130 * MIB);
}

TEST(what_is_held_back_of_large_objects_comes_back_before_an_allocation_fails)
{
    void *objects[256], *all;

    hard_open(64 * MIB, HAK_MISUSE_ABORT);
    for (unsigned round = 0; round < 5; round++) {
        unsigned count = 0;
        while ((objects[count] = hard_malloc(LEAST + 60 * KIB * (round % 3))) != NULL) {
            memset(objects[count++], 0xff, LEAST);
            CHECK(count < 256);
        }
        while (count-- > 0) {
            hak_free(objects[count]);
        }
        all = hard_malloc(64 * MIB - 2 * UNIT_BYTES); /* and two guards */
        CHECK(all != NULL);
        hak_free(all);
        all = hard_malloc(100);
        CHECK(all != NULL);
        hak_free(all);
        thread_detach_all();
    }
    hard_close(0);
}

/* ---- a kernel that has no room for pieces ---------------------------------------------------- */

static void use_all_sizes(void)
{
    for (unsigned round = 0; round < 40; round++) {
        for (unsigned n = 0; n < SIZES; n++) {
            unsigned char *object = hard_malloc(sizes[n]);
            CHECK(object != NULL);
            memset(object, 0xff, sizes[n]);
            object = hak_realloc(object, sizes[n] + 100);
            CHECK(object != NULL);
            hak_free_sized(object, sizes[n] + 100);
        }
    }
}

static void without_guards(void *third)
{
    hard_open(64 * MIB, HAK_MISUSE_ABORT);
    unsigned char *guarded = hard_malloc(MIB);
    deny(SYS_mprotect, (long)(intptr_t)third, ENOMEM);
    unsigned char *object = hard_malloc(MIB);
    CHECK_EQ(kit_stats().guards_refused, 2);
    touch(object - 1);
    touch(units_end(object, MIB) + CANARY_BYTES); /* its own, in the guard's place */
    hak_free(object);
    use_all_sizes();
    CHECK_GE(kit_stats().guards_refused, 2 + SIZES * 40);
    CHECK(heap_check(hak_region_default()));
    hak_free(guarded);
    if ((intptr_t)third >= 0) {
        hard_close(0);
        return;
    }
    /* What was guarded can never be unguarded: its units stay taken, and all else is there. */
    thread_detach_all();
    kit_let_go(hak_region_default());
    CHECK(heap_check(hak_region_default()));
    CHECK_EQ(kit_stats().free_bytes, 62 * MIB + 14 * UNIT_BYTES);
    CHECK_EQ(kit_stats().large_bytes, 18 * UNIT_BYTES); /* with its guards */
    CHECK_EQ(kit_stats().misuses, 0);
    kit_forget_last();
}

static void pass_in_child(void (*body)(void *), void *argument)
{
    struct harness_result result;

    harness_child(body, argument, &result);
    if (result.exit_status == HARNESS_EXIT_SKIPPED) {
        SKIP("%s", result.output);
    }
    if (result.exit_status != 0) {
        FAIL("status %d, signal %d: %s", result.exit_status, result.signal, result.output);
    }
}

TEST(without_room_for_guards_everything_goes_on)
{
    pass_in_child(without_guards, (void *)PROT_NONE);
}

TEST(guards_that_cannot_be_lifted_cost_their_units_and_nothing_else)
{
    pass_in_child(without_guards, (void *)(intptr_t)-1);
}

/* ---- over and over --------------------------------------------------------------------------- */

TEST(a_hardened_region_can_end_and_begin_anew)
{
    for (unsigned n = 0; n <= 100; n++) {
        if (n == 1) {
            left_note(); /* the first has left what a process needs once */
        }
        hard_open(16 * MIB, HAK_MISUSE_ABORT);
        void *large = hard_malloc(MIB), *small = hard_malloc(100);
        CHECK(large != NULL && small != NULL);
        if (n % 2 == 0) {
            hak_free(large);
            hak_free(small);
        }
        CHECK(heap_check(hak_region_default()));
        CHECK_EQ(hak_region_fini(), 0);
    }
    CHECK_EQ(left_entries("/proc/self/fd"), left_files);
    left_check_maps();
}

HARNESS_MAIN()
