/* SPDX-License-Identifier: MIT */
/*
 * The hardened mode, seen by one thread that does nothing wrong: how it is asked for, sizes that
 * are what was asked for, contents that stay, chance in what comes next, a region that runs out;
 * and a program that does all kinds of wrong and goes on. What is found of it:
 * tests/test_hardened_misuse.c.
 */
#include "tests/hardened_kit.h"

#include <sys/mman.h>

#define MANY 500

static unsigned char *objects[MANY];

/* ---- what it is asked for by ----------------------------------------------------------------- */

TEST(the_mode_is_off_unless_it_is_asked_for)
{
    kit_open(16 * MIB);
    CHECK(hak_region_default()->hardened == NULL);
    CHECK_GE(hak_usable_size(objects[0] = hard_malloc(17)), 32);
    hak_free(objects[0]);
    kit_close();
    hard_open(16 * MIB, HAK_MISUSE_ABORT);
    CHECK(hak_region_default()->hardened != NULL);
    hard_close(0);
    static const char *const yes[] = {"1", "on", "yes", "true"};
    for (unsigned n = 0; n < 4; n++) {
        CHECK(kit_open_with(16 * MIB, "HAKMEM_HARDENED", yes[n])->hardened != NULL);
    }
    CHECK(kit_open_with(16 * MIB, "HAKMEM_HARDENED", "0")->hardened == NULL);
    CHECK(kit_open_with(16 * MIB, "HAKMEM_HARDENED", "")->hardened == NULL);
    kit_close();
}

TEST(the_field_goes_before_the_environment_and_nonsense_is_refused)
{
    struct hak_config config = kit_config(16 * MIB);
    struct hak_error error;

    kit_forget_last();
    setenv("HAKMEM_HARDENED", "1", 1);
    config.hardened = HAK_OFF;
    CHECK(kit_start(&config)->hardened == NULL);
    kit_forget_last();
    setenv("HAKMEM_HARDENED", "perhaps", 1);
    config.hardened = HAK_SWITCH_DEFAULT;
    CHECK_EQ(hak_region_init(&config), -EINVAL);
    CHECK_EQ(hak_last_error(&error), -EINVAL);
    CHECK_STR_HAS(error.message, "HAKMEM_HARDENED");
    unsetenv("HAKMEM_HARDENED");
    config.hardened = (enum hak_switch)3;
    CHECK_EQ(hak_region_init(&config), -EINVAL);
    CHECK_EQ(hak_last_error(&error), -EINVAL);
    CHECK_STR_HAS(error.message, "hardened");
    CHECK(hak_region_default() == NULL);
}

/* Of the thread's slot in a region: does an object that is freed go into a bin? */
static bool hits(struct hak_region *region)
{
    const struct thread *thread;
    void *object = hard_region_malloc(region, 100);

    hak_region_free(region, object);
    thread = thread_self[region->id].active;
    const struct bin *bin = &thread->bins[sizeclass_of(100)];
    return bin->top > bin->low && thread->home_bytes != 0;
}

TEST(both_kinds_of_region_live_in_one_process)
{
    static unsigned char memory[6 << 20];
    struct hak_config config = {.hardened = HAK_ON, .misuse = HAK_MISUSE_IGNORE};
    hak_region *adopted;
    size_t bytes;

    kit_open(16 * MIB);
    CHECK_EQ(hak_region_adopt(memory, sizeof(memory), -1, &config, &adopted, &bytes), 0);
    CHECK(adopted->hardened != NULL && !adopted->hardened->guards);
    CHECK(hits(hak_region_default()));
    CHECK(!hits(adopted));
    unsigned char *object = hard_region_malloc(adopted, 30);
    CHECK_EQ(hak_region_usable_size(adopted, object), 30);
    object[30] ^= 1;
    hak_region_free(adopted, object);
    hak_region_free(adopted, object);
    CHECK_EQ(atomic_load(&adopted->misuses), 2);
    CHECK(heap_check(adopted));
    CHECK_EQ(hak_region_destroy(adopted), 0);
    kit_close();
}

/* ---- what is right --------------------------------------------------------------------------- */

TEST(an_object_of_any_size_is_as_long_as_was_asked_and_may_be_filled)
{
    hard_open(256 * MIB, HAK_MISUSE_ABORT);
    hard_list_sizes(9000, 1);
    for (size_t first = 0; first < hard_size_count; first += 50) {
        size_t count = min_size(50, hard_size_count - first);
        for (size_t n = 0; n < count; n++) {
            size_t size = max_size(hard_sizes[first + n], 1);
            objects[n] = hard_malloc(hard_sizes[first + n]);
            hard_check_fresh(objects[n], size);
            memset(objects[n], (int)n, size);
        }
        for (size_t n = 0; n < count; n++) {
            size_t size = max_size(hard_sizes[first + n], 1);
            hard_check_whole(objects[n], size, (unsigned char)n);
            memset(objects[n], 0xff, size);
            hak_free(objects[n]);
        }
    }
    hard_close(0);
}

TEST(an_aligned_object_has_its_size_too)
{
    hard_open(256 * MIB, HAK_MISUSE_ABORT);
    for (size_t alignment = 1; alignment <= 16 * MIB; alignment *= 2) {
        size_t near = min_size(alignment, 4 * MIB);
        size_t sizes[] = {0,        1,        2,        3,      24,       25,
                          100,      5000,     near - 1, near,   near + 1, near - min_size(near, 9),
                          near + 8, near + 9, 200000,   262136, 262137,   65528,
                          65536,    300000};
        for (unsigned n = 0; n < sizeof(sizes) / sizeof(*sizes); n++) {
            unsigned char *object = hak_aligned_alloc(alignment, sizes[n]);
            hard_check_fresh(object, sizes[n]);
            CHECK_EQ((uintptr_t)object % alignment, 0);
            memset(object, 0xff, max_size(sizes[n], 1));
            hak_free_aligned_sized(object, alignment, sizes[n]);
        }
    }
    hard_close(0);
}

TEST(calloc_clears_what_was_filled_after_it_was_freed)
{
    hard_open_filling(256 * MIB, HAK_MISUSE_ABORT, "1M");
    hard_list_sizes(3000, 7);
    for (size_t first = 0; first < hard_size_count; first++) {
        size_t size = hard_sizes[first];
        for (unsigned round = 0; round < 3; round++) {
            unsigned char *object = hak_calloc(1, size);
            hard_check_fresh(object, size);
            hard_check_whole(object, size, 0);
            memset(object, 0xff, size);
            hak_free(object);
        }
    }
    hard_close(0);
}

TEST(contents_go_with_realloc_and_the_size_is_the_last_one)
{
    uint64_t random = harness_seed();
    size_t size = 1;
    unsigned in_place = 0;

    hard_open(256 * MIB, HAK_MISUSE_ABORT);
    unsigned char *object = hard_malloc(size);
    memset(object, 1, size);
    for (unsigned n = 0; n < 3000; n++) {
        size_t next = n % 3 == 0     ? size + harness_random(&random) % 9
                      : n % 100 == 1 ? harness_random(&random) % (3 * MIB) + 1
                                     : harness_random(&random) % 10000 + 1;
        unsigned char *moved = hak_realloc(object, next);
        hard_check_fresh(moved, next);
        hard_check_whole(moved, min_size(size, next), (unsigned char)(n + 1));
        in_place += moved == object;
        object = moved;
        size = next;
        memset(object, (unsigned char)(n + 2), size);
    }
    CHECK_GE(in_place, 100);
    hak_free_sized(object, size);
    hard_close(0);
}

/* NOLINTNEXTLINE(readability-function-size): loops, and the levels that CHECK brings. */
TEST(a_right_size_is_never_complained_about)
{
    void *bulk[40];

    hard_open(256 * MIB, HAK_MISUSE_ABORT);
    hard_list_sizes(600, 1);
    for (size_t n = 0; n < hard_size_count; n++) {
        size_t size = hard_sizes[n];
        hak_free_sized(hard_malloc(size), size);
        hak_free_aligned_sized(hard_malloc(size), 16, size);
        hak_free_sized(hak_calloc(1, size), size);
        hak_free_sized(hak_malloc_on_node(size, hak_region_default()->area.segments[0].node), size);
        hak_free_aligned_sized(hak_aligned_alloc(64, size), 64, size);
        void *moved = hak_realloc(hard_malloc(size), size + 5);
        hak_free_sized(moved, size + 5);
        moved = hak_realloc(hard_malloc(3 * size + 1), size + 1);
        hak_free_sized(moved, size + 1);
        if (size < MIB) {
            CHECK_EQ(hak_malloc_bulk(size, 40, bulk), 40);
            for (unsigned b = 0; b < 40; b++) {
                CHECK_EQ(hak_usable_size(bulk[b]), max_size(size, 1));
                hak_free_sized(bulk[b], size);
            }
        }
    }
    hak_free_sized(NULL, 0);
    hak_free_sized(NULL, 100);
    hak_free_aligned_sized(NULL, 64, 100);
    hard_close(0);
}

/* ---- chance ---------------------------------------------------------------------------------- */

TEST(a_freed_object_is_never_the_next_one)
{
    hard_open(64 * MIB, HAK_MISUSE_ABORT);
    for (size_t size = 8; size <= 4000; size += size / 3) {
        for (unsigned n = 0; n < 3000; n++) {
            void *object = hard_malloc(size), *next;
            hak_free(object);
            next = hard_malloc(size);
            CHECK_NE((uintptr_t)next, (uintptr_t)object);
            hak_free(next);
        }
    }
    hard_close(0);
}

#define ORDER 48

/* Where in their region the next objects lie. */
static void order_of(struct hak_region *heap, size_t *offsets)
{
    for (unsigned n = 0; n < ORDER; n++) {
        void *object = hard_region_malloc(heap, 100);
        CHECK(object != NULL);
        offsets[n] = (uintptr_t)object - heap->area.base;
    }
}

static unsigned rises(const size_t *offsets)
{
    unsigned count = 0;

    for (unsigned n = 1; n < ORDER; n++) {
        count += offsets[n] > offsets[n - 1];
    }
    return count;
}

static size_t *shared_order;

static void order_in_child(void *unused)
{
    (void)unused;
    order_of(hak_region_default(), shared_order);
}

TEST(no_two_regions_and_no_child_have_the_same_order)
{
    size_t first[ORDER], second[ORDER];
    struct hak_config config = kit_config(16 * MIB);
    struct harness_result result;
    hak_region *other;

    config.hardened = HAK_ON;
    hard_open(16 * MIB, HAK_MISUSE_ABORT);
    CHECK_EQ(hak_region_create(&config, &other), 0);
    shared_order = mmap(NULL, sizeof(first), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
                        0);
    CHECK(shared_order != MAP_FAILED);
    order_of(hak_region_default(), first);
    order_of(other, second);
    CHECK_GE(rises(first), 4);
    CHECK_LE(rises(first), ORDER - 5);
    CHECK(memcmp(first, second, sizeof(first)) != 0);
    harness_child(order_in_child, NULL, &result);
    CHECK_EQ(result.exit_status, 0);
    order_of(hak_region_default(), first);
    CHECK(shared_order[0] != 0 && memcmp(first, shared_order, sizeof(first)) != 0);
    munmap(shared_order, sizeof(first));
    CHECK_EQ(hak_region_destroy(other), 0);
    kit_forget_last();
}

/* ---- policies -------------------------------------------------------------------------------- */

/* Nine misuses of all kinds, by a program that goes on. */
static void misbehave(void)
{
    unsigned char *object = hard_malloc(100);
    unsigned char *large = hard_malloc(MIB);

    object[100] ^= 1;
    hak_free(object);
    hak_free(object);
    hak_free_sized(hard_malloc(50), 51);
    hak_free(object + 16);
    CHECK(hak_realloc(object, 10) == NULL);
    CHECK_EQ(errno, EINVAL);
    CHECK_EQ(hak_usable_size(object), 0);
    hak_free(large + 64);
    hak_free(large);
    hak_free(large);
    hak_free(&large);
    for (unsigned n = 0; n < 500; n++) {
        objects[n] = hard_malloc(100 + n);
        memset(objects[n], 0xff, 100 + n);
    }
    for (unsigned n = 0; n < 500; n++) {
        hak_free_sized(objects[n], 100 + n);
    }
}

static void misbehave_aloud(void *policy)
{
    hard_open(16 * MIB, (enum hak_misuse)(uintptr_t)policy);
    misbehave();
    CHECK(heap_check(hak_region_default()));
    hard_close(9);
}

TEST(a_program_that_may_go_on_loses_nothing)
{
    struct harness_result result;
    unsigned lines = 0;

    harness_child(misbehave_aloud, (void *)(uintptr_t)HAK_MISUSE_IGNORE, &result);
    CHECK_EQ(result.exit_status, 0);
    CHECK_EQ(result.output[0], '\0');
    harness_child(misbehave_aloud, (void *)(uintptr_t)HAK_MISUSE_REPORT, &result);
    CHECK_EQ(result.exit_status, 0);
    for (const char *at = result.output; (at = strstr(at, "misuse: ")) != NULL; at++) {
        lines++;
    }
    CHECK_EQ(lines, 9);
    harness_child(misbehave_aloud, (void *)(uintptr_t)HAK_MISUSE_ABORT, &result);
    CHECK_EQ(result.signal, SIGABRT);
    CHECK_STR_HAS(result.output, SAYS_OVERFLOW);
}

/* ---- running out ----------------------------------------------------------------------------- */

static size_t fill_up(size_t size, void **last)
{
    size_t count = 0;

    *last = NULL;
    for (void **object; (object = hard_malloc(size)) != NULL; count++) {
        *object = *last;
        *last = object;
    }
    CHECK_EQ(errno, ENOMEM);
    return count;
}

static void free_chain(void *last)
{
    while (last != NULL) {
        void *before = *(void **)last;
        hak_free(last);
        last = before;
    }
}

TEST(what_is_held_back_comes_back_before_an_allocation_fails)
{
    static const size_t sizes[] = {24, 56, 1016, 5000, 16376, 65528, 262136};
    void *last;

    hard_open(16 * MIB, HAK_MISUSE_ABORT);
    for (unsigned round = 0; round < 2; round++) {
        for (unsigned n = 0; n < sizeof(sizes) / sizeof(*sizes); n++) {
            const struct sizeclass *cls = &sizeclasses[hardened_class(sizes[n], 0)];
            size_t units = 16 * MIB >> UNIT_LOG2;
            /* Nothing is lost but slabs' tails, and units that no slab fits in. */
            size_t least = (units - 2 * cls->unit_count) / cls->unit_count *
                           ((cls->unit_count << UNIT_LOG2) / cls->object_bytes);
            CHECK_GE(fill_up(sizes[n], &last), least);
            free_chain(last);
        }
    }
    hard_close(0);
}

TEST(a_realloc_that_fails_leaves_the_object_as_it_is)
{
    static const size_t sizes[] = {24, 1000, 5000, 200000};
    void *last;

    hard_open(8 * MIB, HAK_MISUSE_ABORT);
    for (unsigned n = 0; n < sizeof(sizes) / sizeof(*sizes); n++) {
        unsigned char *object = hard_malloc(sizes[n]);
        memset(object, 9, sizes[n]);
        (void)fill_up(100, &last);
        CHECK(hak_realloc(object, 3 * MIB) == NULL);
        CHECK_EQ(errno, ENOMEM);
        CHECK_EQ(hak_usable_size(object), sizes[n]);
        hard_check_whole(object, sizes[n], 9);
        /* Smaller, with no room to move to: it stays, with a new end. */
        size_t less = sizes[n] == 24 ? 3 : 200;
        hak_free(last == NULL ? NULL : hak_realloc(hard_malloc(100), 100));
        unsigned char *same = hak_realloc(object, less);
        CHECK(same != NULL);
        hard_check_whole(same, less, 9);
        CHECK_GE(hak_usable_size(same), less);
        hak_free_sized(same, less);
        free_chain(last);
    }
    hard_close(0);
}

HARNESS_MAIN()
