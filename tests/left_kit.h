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
    for (int i = 0; i < 2000 && now != expected; i++) {
        usleep(1000);
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

/* Appends the lines of one text that the other lacks, a sign before each. */
static inline void left_differing(char *out, size_t capacity, const char *lines, const char *others,
                                  char sign)
{
    size_t used = strlen(out);
    for (const char *at = lines; *at != '\0' && used < capacity - 256;
         at += strcspn(at, "\n") + 1) {
        char line[512];
        int length = (int)strcspn(at, "\n");
        snprintf(line, sizeof line, "%.*s\n", length, at);
        if (strstr(others, line) == NULL)
            used += (size_t)snprintf(out + used, capacity - used, "%c %.240s", sign, line);
    }
}

static inline void left_check_maps(void)
{
    static char changes[1536];
    read_maps(maps_after, sizeof maps_after);
    if (strcmp(maps_before, maps_after) == 0)
        return;
    changes[0] = '\0';
    left_differing(changes, sizeof changes, maps_after, maps_before, '+');
    left_differing(changes, sizeof changes, maps_before, maps_after, '-');
    FAIL("mappings changed:\n%s", changes);
}

#define LEFT_NOTHING()                                                                             \
    do {                                                                                           \
        left_wait("threads", left_count_threads, left_threads);                                    \
        left_wait("free huge pages", left_count_pages, left_pages);                                \
        CHECK_EQ(left_entries("/proc/self/fd"), left_files);                                       \
        left_check_maps();                                                                         \
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
