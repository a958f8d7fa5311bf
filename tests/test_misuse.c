/* SPDX-License-Identifier: MIT */
/*
 * Bad frees, each in a child, under each policy: found, reported with where the pointer leads,
 * counted, harmless. Under "ignore" and "report" the child goes on and its heap must be in order.
 */
#include "tests/region_kit.h"

#include <sys/mman.h>

enum when { AT_ONCE, AT_FLUSH };

/* A bad free: prepare makes the pointer, commit frees it. */
struct misdeed {
    const char *name;
    void (*commit)(struct misdeed *deed);
    const char *words[8]; /* that the report has beside pointer and thread; ends with NULL */
    enum when found;
    /* Shared with the child: */
    enum hak_misuse policy;
    int thread;
    const void *pointer; /* the bad one */
};

static int in_static_memory;
static struct misdeed *shared; /* the child's word on what it did */

static char *object_of(size_t size)
{
    char *object = hak_malloc(size);
    CHECK(object != NULL);
    return object;
}

static void bad_free(struct misdeed *deed, void *pointer)
{
    deed->pointer = pointer;
    errno = 4711;
    hak_free(pointer);
    CHECK_EQ(errno, 4711);
}

static void foreign_static(struct misdeed *deed)
{
    bad_free(deed, &in_static_memory);
}

static void foreign_stack(struct misdeed *deed)
{
    int on_stack = 0;
    bad_free(deed, &on_stack);
}

static void foreign_libc(struct misdeed *deed)
{
    bad_free(deed, malloc(100));
}

static void foreign_end(struct misdeed *deed)
{
    const struct region *area = &hak_region_default()->area;
    bad_free(deed, (char *)area->base + area->bytes);
}

static void other_region(struct misdeed *deed)
{
    void *object = hak_region_malloc(kit_create(4 * MIB, HAK_OFF), 100);
    CHECK(object != NULL);
    bad_free(deed, object);
}

static void free_unit(struct misdeed *deed)
{
    bad_free(deed, (char *)hak_region_default()->area.base + 6 * MIB);
}

static void large_twice(struct misdeed *deed)
{
    char *object = object_of(MIB);
    hak_free(object);
    bad_free(deed, object);
}

static void large_body(struct misdeed *deed)
{
    bad_free(deed, object_of(MIB) + 192 * KIB);
}

static void large_interior(struct misdeed *deed)
{
    bad_free(deed, object_of(MIB) + 64);
}

static void large_after_shrink(struct misdeed *deed)
{
    char *object = object_of(2 * MIB);
    CHECK(hak_realloc(object, MIB) == object);
    bad_free(deed, object + MIB);
}

static void small_twice(struct misdeed *deed)
{
    char *object = object_of(100);
    hak_free(object);
    bad_free(deed, object);
}

static void small_twice_apart(struct misdeed *deed)
{
    enum { MANY = 20000 };
    static void *many[MANY];
    for (size_t n = 0; n < MANY; n++) {
        many[n] = object_of(100);
    }
    for (size_t n = 0; n < MANY; n++) { /* a few of each slab stay, lest it go with all of them */
        if (n % 200 != 1) {
            hak_free(many[n]); /* the first has long been flushed when the last goes */
        }
    }
    bad_free(deed, many[0]);
}

static void small_interior(struct misdeed *deed)
{
    bad_free(deed, object_of(100) + 16);
}

static void small_odd(struct misdeed *deed)
{
    bad_free(deed, object_of(64) + 1);
}

/* Behind the last object of a slab: 65,536 bytes hold 409 objects of 160 and a rest. */
static void slab_tail(struct misdeed *deed)
{
    uintptr_t slab = (uintptr_t)object_of(160) & ~(uintptr_t)65535;
    bad_free(deed, (void *)(slab + 409 * (uintptr_t)160));
}

static void in_bulk(struct misdeed *deed)
{
    void *pointers[3] = {object_of(64), &in_static_memory, object_of(MIB)};
    deed->pointer = &in_static_memory;
    errno = 4711;
    hak_free_bulk(pointers, 3);
    CHECK_EQ(errno, 4711);
    CHECK_EQ(kit_stats(NULL).large_bytes, 0); /* those behind it are freed all the same */
}

static void sized(struct misdeed *deed)
{
    deed->pointer = &in_static_memory;
    hak_free_sized(&in_static_memory, 4);
}

static void by_realloc(struct misdeed *deed)
{
    char *object = object_of(100);
    deed->pointer = object + 16;
    errno = 0;
    CHECK(hak_realloc(object + 16, 50) == NULL);
    CHECK_EQ(errno, EINVAL);
    CHECK_GE(hak_usable_size(object), 100);
}

static void by_realloc_foreign(struct misdeed *deed)
{
    deed->pointer = &in_static_memory;
    errno = 0;
    CHECK(hak_realloc(&in_static_memory, 50) == NULL);
    CHECK_EQ(errno, EINVAL);
}

#define OF_SLAB "SuperSlab ", "node ", "slab at unit ", "class "

static struct misdeed misdeeds[] = {
    {"a static variable", foreign_static, {"not a pointer into the region"}, AT_ONCE, 0, 0, NULL},
    {"a stack variable", foreign_stack, {"not a pointer into the region"}, AT_ONCE, 0, 0, NULL},
    {"an object of libc's", foreign_libc, {"not a pointer into the region"}, AT_ONCE, 0, 0, NULL},
    {"the region's end", foreign_end, {"not a pointer into the region"}, AT_ONCE, 0, 0, NULL},
    {"another region's object", other_region, {"another region"}, AT_ONCE, 0, 0, NULL},
    {"a free unit", free_unit, {"SuperSlab 3", "node ", "unit 96", "free"}, AT_ONCE, 0, 0, NULL},
    {"a large object twice", large_twice, {"SuperSlab 0", "node ", "unit "}, AT_ONCE, 0, 0, NULL},
    {"a large object's body", large_body, {"start", "SuperSlab ", "body"}, AT_ONCE, 0, 0, NULL},
    {"inside a large object's first unit", large_interior, {"start", "large"}, AT_ONCE, 0, 0, NULL},
    {"what a large object gave back", large_after_shrink, {"unit ", "free"}, AT_ONCE, 0, 0, NULL},
    {"a small object twice", small_twice, {"twice", OF_SLAB, "112 bytes"}, AT_FLUSH, 0, 0, NULL},
    {"a small object long after",
     small_twice_apart,
     {"twice", OF_SLAB, "112 bytes"},
     AT_FLUSH,
     0,
     0,
     NULL},
    {"inside a small object",
     small_interior,
     {"start", OF_SLAB, "byte 16 of it"},
     AT_FLUSH,
     0,
     0,
     NULL},
    {"an odd address", small_odd, {"start", OF_SLAB, "byte 1 of it"}, AT_FLUSH, 0, 0, NULL},
    {"a slab's tail", slab_tail, {"start", OF_SLAB, "160 bytes"}, AT_FLUSH, 0, 0, NULL},
    {"a static variable in bulk", in_bulk, {"not a pointer"}, AT_ONCE, 0, 0, NULL},
    {"a static variable, sized", sized, {"not a pointer"}, AT_ONCE, 0, 0, NULL},
    {"realloc inside an object", by_realloc, {"SuperSlab ", "class "}, AT_ONCE, 0, 0, NULL},
    {"realloc of a static variable", by_realloc_foreign, {"not a pointer"}, AT_ONCE, 0, 0, NULL},
};

/* In a thread of its own: what its caches hold goes back, and is looked at, when it ends. */
static void *commit(void *argument)
{
    struct misdeed *deed = argument;
    deed->thread = gettid();
    deed->commit(deed);
    if (deed->found == AT_ONCE) {
        CHECK_EQ(kit_stats(NULL).misuses, 1);
    }
    return NULL;
}

static void check_record(const struct misdeed *deed)
{
    struct hak_error error;
    CHECK_EQ(hak_last_error(&error), -EINVAL);
    CHECK_EQ(error.kind, HAK_ERROR_MISUSE);
    CHECK(error.pointer == deed->pointer);
    for (size_t n = 0; deed->words[n] != NULL; n++) {
        CHECK_STR_HAS(error.message, deed->words[n]);
    }
}

/* The whole region can still be filled and emptied, with the contents kept apart. */
static void check_in_order(void)
{
    static void *many[4096];
    size_t count = 0;
    kit_check(NULL);
    while (count < 4096 && (many[count] = hak_malloc(100)) != NULL) {
        pattern_fill(many[count], 100, count);
        count++;
    }
    CHECK_EQ(count, 4096);
    while (count-- > 0) {
        CHECK(pattern_holds(many[count], 100, count));
        hak_free(many[count]);
    }
    CHECK_EQ(kit_stats(NULL).misuses, 1);
    kit_check(NULL);
}

static void child(void *argument)
{
    struct hak_config config = kit_config(16 * MIB, HAK_PAGES_4K, HAK_OFF);
    struct misdeed *deed = argument;
    config.misuse = deed->policy;
    kit_open_config(&config);
    kit_in_thread(commit, deed);
    CHECK_EQ(kit_stats(NULL).misuses, 1);
    check_record(deed);
    check_in_order();
}

/* The report as the child printed it. */
static void check_report(const struct misdeed *deed, const char *output)
{
    char words[64];
    CHECK_STR_HAS(output, "hakmem: ");
    snprintf(words, sizeof words, "%p", deed->pointer);
    CHECK_STR_HAS(output, words);
    snprintf(words, sizeof words, "thread %d", deed->thread);
    CHECK_STR_HAS(output, words);
    for (size_t n = 0; deed->words[n] != NULL; n++) {
        CHECK_STR_HAS(output, deed->words[n]);
    }
}

static void every_misdeed(enum hak_misuse policy)
{
    static struct harness_result result;
    kit_close();
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(shared != MAP_FAILED);
    for (size_t n = 0; n < sizeof misdeeds / sizeof *misdeeds; n++) {
        *shared = misdeeds[n];
        shared->policy = policy;
        harness_child(child, shared, &result);
        bool ended = policy == HAK_MISUSE_ABORT ? result.signal == SIGABRT
                                                : result.exit_status == 0;
        if (!ended) {
            FAIL("%s: exit status %d, signal %d: %s", shared->name, result.exit_status,
                 result.signal, result.output);
        }
        if (policy == HAK_MISUSE_IGNORE) {
            CHECK(result.output[0] == '\0');
        } else {
            check_report(shared, result.output);
        }
    }
    munmap(shared, sizeof *shared);
}

TEST(a_bad_free_is_reported_and_aborts)
{
    every_misdeed(HAK_MISUSE_ABORT);
}

TEST(a_bad_free_is_reported_and_the_program_goes_on)
{
    every_misdeed(HAK_MISUSE_REPORT);
}

TEST(a_bad_free_is_ignored_but_counted)
{
    every_misdeed(HAK_MISUSE_IGNORE);
}

/* Without a word from the program the environment decides; abort is its default. */
static void default_policy(void *value)
{
    struct hak_config config = {.size_bytes = 4 * MIB};
    config.pages[0] = HAK_PAGES_4K;
    if (value != NULL) {
        setenv("HAKMEM_MISUSE", value, 1);
    }
    kit_open_config(&config);
    hak_free(&in_static_memory);
}

TEST(the_policy_is_abort_unless_told)
{
    static struct harness_result result;
    static char report[] = "report", ignore[] = "ignore";
    kit_close();
    harness_child(default_policy, NULL, &result);
    CHECK_EQ(result.signal, SIGABRT);
    harness_child(default_policy, report, &result);
    CHECK_EQ(result.exit_status, 0);
    CHECK_STR_HAS(result.output, "misuse");
    harness_child(default_policy, ignore, &result);
    CHECK_EQ(result.exit_status, 0);
    CHECK(result.output[0] == '\0');
}

/* Two threads that free the same large object: one of them did it, the other is told. */
static void *free_shared(void *pointer)
{
    hak_free(pointer);
    return NULL;
}

TEST(of_two_threads_that_free_a_large_object_one_is_told)
{
    struct hak_config config = kit_config(16 * MIB, HAK_PAGES_4K, HAK_OFF);
    config.misuse = HAK_MISUSE_IGNORE;
    kit_open_config(&config);
    for (uint64_t round = 1; round <= 200; round++) {
        pthread_t threads[2];
        char *object = object_of(MIB);
        for (int n = 0; n < 2; n++) {
            CHECK_EQ(pthread_create(&threads[n], NULL, free_shared, object), 0);
        }
        (void)kit_join(threads[0]);
        (void)kit_join(threads[1]);
        CHECK_EQ(kit_stats(NULL).misuses, round);
    }
    struct hak_stats stats = kit_stats(NULL);
    CHECK_EQ(stats.free_bytes, stats.size_bytes);
    kit_check(NULL);
    kit_close();
}

HARNESS_MAIN()
