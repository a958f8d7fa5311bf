/* SPDX-License-Identifier: MIT */
/*
 * The shared library opened by a program that already runs, with threads that are older than it:
 * it works from all of them, shows nothing but its public names, and can be closed again.
 */
#include "tests/region_kit.h"
#include "tests/shared_kit.h"

#define THREADS 6

static struct shared_calls library;
static pthread_barrier_t opened;

static struct hak_config small_region(void)
{
    return kit_config(32 * MIB, HAK_PAGES_4K, HAK_ON);
}

static void use_library(uint64_t tag)
{
    enum { HELD = 300 };
    void *held[HELD] = {NULL};
    uint64_t random = tag;
    for (int round = 0; round < 20000; round++) {
        size_t n = harness_random(&random) % HELD;
        if (held[n] != NULL) {
            CHECK(pattern_holds(held[n], 16, tag + n));
            library.free(held[n]);
        }
        held[n] = library.malloc(16 + harness_random(&random) % 3000);
        CHECK(held[n] != NULL);
        CHECK_GE(library.usable_size(held[n]), 16);
        pattern_fill(held[n], 16, tag + n);
    }
    for (size_t n = 0; n < HELD; n++) {
        library.free(held[n]);
    }
}

/* The first case, so that the child starts without the library. */
static void *use_and_wait(void *argument)
{
    use_library(*(const uint64_t *)argument);
    pthread_barrier_wait(&opened); /* the library is closed meanwhile */
    pthread_barrier_wait(&opened);
    return NULL;
}

/* A thread that used the library outlives it. */
static void close_under_a_thread(void *unused)
{
    pthread_t thread;
    static uint64_t tag = 5;
    (void)unused;
    shared_open(&library);
    struct hak_config config = small_region();
    CHECK_EQ(library.init(&config), 0);
    CHECK_EQ(pthread_barrier_init(&opened, NULL, 2), 0);
    CHECK_EQ(pthread_create(&thread, NULL, use_and_wait, &tag), 0);
    pthread_barrier_wait(&opened);
    use_library(1);
    CHECK_EQ(library.fini(), 0);
    CHECK_EQ(dlclose(library.library), 0);
    pthread_barrier_wait(&opened);
    (void)kit_join(thread);
    shared_open(&library); /* and it can be had again */
    CHECK_EQ(library.init(&config), 0);
    use_library(2);
    CHECK_EQ(library.fini(), 0);
    CHECK_EQ(dlclose(library.library), 0);
    exit(0);
}

TEST(it_can_be_closed_while_threads_that_used_it_live)
{
    static struct harness_result result;
    harness_child(close_under_a_thread, NULL, &result);
    if (result.exit_status != 0) {
        FAIL("exit status %d, signal %d: %s", result.exit_status, result.signal, result.output);
    }
}

static void *older_thread(void *argument)
{
    pthread_barrier_wait(&opened);
    use_library(*(const uint64_t *)argument);
    return NULL;
}

TEST(threads_older_than_the_library_use_it)
{
    pthread_t threads[THREADS];
    uint64_t tags[THREADS];
    struct hak_stats stats;
    CHECK_EQ(pthread_barrier_init(&opened, NULL, THREADS + 1), 0);
    for (uint64_t n = 0; n < THREADS; n++) {
        tags[n] = n * 1000;
        CHECK_EQ(pthread_create(&threads[n], NULL, older_thread, &tags[n]), 0);
    }
    shared_open(&library);
    struct hak_config config = small_region();
    CHECK_EQ(library.init(&config), 0);
    pthread_barrier_wait(&opened);
    use_library(77000);
    for (size_t n = 0; n < THREADS; n++) {
        (void)kit_join(threads[n]);
    }
    pthread_barrier_destroy(&opened);
    CHECK_EQ(library.stats(NULL, &stats), 0);
    CHECK_EQ(stats.misuses, 0);
    CHECK_EQ(stats.threads, 1);
    CHECK(hak_region_default() == NULL); /* the static one in this program is another */
    CHECK_EQ(library.fini(), 0);
}

TEST(it_says_the_headers_version)
{
    shared_open(&library);
    CHECK(strcmp(library.version(), hak_version()) == 0);
    CHECK(library.version != hak_version);
}

TEST(every_public_name_is_there_and_no_other)
{
    static const char *const names[] = {"hak_last_error",
                                        "hak_region_init",
                                        "hak_region_fini",
                                        "hak_region_default",
                                        "hak_region_create",
                                        "hak_region_adopt",
                                        "hak_region_destroy",
                                        "hak_malloc",
                                        "hak_calloc",
                                        "hak_realloc",
                                        "hak_aligned_alloc",
                                        "hak_free",
                                        "hak_free_sized",
                                        "hak_usable_size",
                                        "hak_malloc_bulk",
                                        "hak_free_bulk",
                                        "hak_malloc_on_node",
                                        "hak_region_malloc",
                                        "hak_region_calloc",
                                        "hak_region_realloc",
                                        "hak_region_aligned_alloc",
                                        "hak_region_free",
                                        "hak_region_free_sized",
                                        "hak_region_usable_size",
                                        "hak_region_malloc_bulk",
                                        "hak_region_free_bulk",
                                        "hak_region_malloc_on_node",
                                        "hak_on_exhausted",
                                        "hak_thread_pin",
                                        "hak_thread_idle",
                                        "hak_region_stats",
                                        "hak_region_node_stats",
                                        "hak_region_class_stats",
                                        "hak_class_count",
                                        "hak_version"};
    static const char *const hidden[] = {"heap_check",     "heap_default",       "thread_current",
                                         "units_acquire",  "sharedpool_release", "topology_read",
                                         "config_resolve", "bitset_set",         "thread_none"};
    shared_open(&library);
    for (size_t n = 0; n < sizeof names / sizeof *names; n++) {
        if (dlsym(library.library, names[n]) == NULL) {
            FAIL("%s is not in the library", names[n]);
        }
    }
    for (size_t n = 0; n < sizeof hidden / sizeof *hidden; n++) {
        if (dlsym(library.library, hidden[n]) != NULL) {
            FAIL("%s can be seen from outside", hidden[n]);
        }
    }
    /* libc's malloc is not taken over by it. */
    Dl_info info;
    void *in_program = dlsym(RTLD_DEFAULT, "malloc");
    CHECK(in_program != NULL && dladdr(in_program, &info) != 0);
    CHECK(strstr(info.dli_fname, "hakmem") == NULL);
    CHECK(dlsym(library.library, "malloc") == in_program);
}

HARNESS_MAIN()
