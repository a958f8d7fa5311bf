/* SPDX-License-Identifier: MIT */
/*
 * What a call may have left behind: mappings, threads, descriptors, and huge pages that are not
 * back in the pool. left_note before it, LEFT_NOTHING after it.
 */
#ifndef HAK_TESTS_LEFT_KIT_H
#define HAK_TESTS_LEFT_KIT_H

#include "tests/memory_kit.h"

#include <dirent.h>

static size_t left_files, left_threads;
static uint64_t left_pages;

static inline size_t left_entries(const char *path)
{
    size_t count = 0;
    DIR *folder = opendir(path);
    CHECK(folder != NULL);
    while (readdir(folder) != NULL)
        count++;
    closedir(folder);
    return count;
}

static inline uint64_t left_free_pages(void)
{
    struct supply_pool pool;
    return supply_pool_read(first_node(), HAK_PAGES_2M, &pool) == 0 ? pool.free_pages : 0;
}

static inline void left_note(void)
{
    left_files = left_entries("/proc/self/fd");
    left_threads = left_entries("/proc/self/task");
    left_pages = left_free_pages();
    read_maps(maps_before, sizeof maps_before);
}

/* Waits up to two seconds until what is counted is expected again: a thread that was joined is in
 * /proc for a moment longer, and so are a killed process's pages in its hands. */
static inline void left_wait(const char *what, size_t (*count)(void), size_t expected)
{
    size_t now = count();
    for (int i = 0; i < 200 && now != expected; i++) {
        usleep(10000);
        now = count();
    }
    if (now != expected)
        FAIL("%s: %zu, not %zu", what, now, expected);
}

static inline size_t left_count_threads(void)
{
    return left_entries("/proc/self/task");
}

static inline size_t left_count_pages(void)
{
    return (size_t)left_free_pages();
}

#define LEFT_NOTHING()                                                                             \
    do {                                                                                           \
        left_wait("threads", left_count_threads, left_threads);                                    \
        left_wait("free huge pages", left_count_pages, left_pages);                                \
        CHECK_EQ(left_entries("/proc/self/fd"), left_files);                                       \
        CHECK_NOTHING_LEFT();                                                                      \
    } while (0)

/* The body in a child of its own: it passes, skips or fails as the case does. */
static inline void run_apart(struct harness_result *result, void (*body)(void *), void *argument)
{
    harness_child(body, argument, result);
    if (result->exit_status == HARNESS_EXIT_SKIPPED)
        SKIP("%s", result->output);
    if (result->exit_status != 0)
        FAIL("status %d, signal %d: %s", result->exit_status, result->signal, result->output);
}

#endif
