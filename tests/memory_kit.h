/* SPDX-License-Identifier: MIT */
/*
 * What tests of memory share: huge page pools that are set where they may be and put back however
 * the program ends, and what is mapped and faulted.
 */
#ifndef HAK_TESTS_MEMORY_KIT_H
#define HAK_TESTS_MEMORY_KIT_H

#include "numa/sysfs.h"
#include "numa/topology.h"
#include "region/config.h"
#include "region/os.h"
#include "region/supply.h"
#include "tests/harness.h"

#include <fcntl.h>
#include <sys/mman.h>

#define MIB ((size_t)1 << 20)
#define GIB ((size_t)1 << 30)

/* ---- huge page pools ------------------------------------------------------------------------- */

/* A pool as it was found; path[0] == 0: not changed yet. */
static struct held_pool {
    char path[256];
    char before[24]; /* its size, as text */
} pools[2];
static pid_t pools_owner;

static inline bool write_pool(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY);
    if (fd < 0)
        return false;
    ssize_t length = (ssize_t)strlen(text);
    bool written = write(fd, text, (size_t)length) == length;
    close(fd);
    return written;
}

/* Also from a signal handler. */
static inline void restore_pools(void)
{
    /* A child that ends has changed nothing of its own. */
    if (getpid() != pools_owner)
        return;
    for (size_t i = 0; i < sizeof pools / sizeof *pools; i++)
        if (pools[i].path[0] != '\0')
            write_pool(pools[i].path, pools[i].before);
}

static inline void restore_and_die(int number)
{
    restore_pools();
    signal(number, SIG_DFL);
    raise(number);
}

/* The real node that the tests work on. */
static inline int first_node(void)
{
    static struct topology topology;
    CHECK_EQ(topology_read(&topology), 0);
    return __builtin_ctzll(topology_memory_mask(&topology));
}

/* Notes the pool's size, so that it is put back, whoever changes it from now on. */
static inline struct held_pool *hold_pool(enum hak_pages pages)
{
    static const int deadly[] = {SIGABRT, SIGSEGV, SIGBUS, SIGINT, SIGTERM, SIGHUP};
    struct held_pool *pool = &pools[pages == HAK_PAGES_1G];
    struct supply_pool now;
    if (supply_pool_read(first_node(), pages, &now) != 0)
        SKIP("no %s pages on this kernel or processor", os_pages_name(pages));
    if (pool->path[0] != '\0')
        return pool;
    snprintf(pool->before, sizeof pool->before, "%llu", (unsigned long long)now.total_pages);
    pools_owner = getpid();
    supply_pool_path(first_node(), pages, "nr_hugepages", pool->path, sizeof pool->path);
    atexit(restore_pools);
    for (size_t i = 0; i < sizeof deadly / sizeof *deadly; i++)
        signal(deadly[i], restore_and_die);
    return pool;
}

/* Sees to so many free pages, or skips. */
static inline void want_free(enum hak_pages pages, uint64_t wanted)
{
    struct held_pool *pool = hold_pool(pages);
    struct supply_pool now;
    CHECK_EQ(supply_pool_read(first_node(), pages, &now), 0);
    if (now.free_pages < wanted) {
        char text[24];
        snprintf(text, sizeof text, "%llu",
                 (unsigned long long)(now.total_pages + wanted - now.free_pages));
        write_pool(pool->path, text);
    }
    CHECK_EQ(supply_pool_read(first_node(), pages, &now), 0);
    if (now.free_pages < wanted || supply_unpromised(pages) < wanted)
        SKIP("%llu free %s pages cannot be had here", (unsigned long long)wanted,
             os_pages_name(pages));
}

/* ---- what is mapped -------------------------------------------------------------------------- */

/* /proc/self/maps without stack and heap, which grow for reasons of their own. */
static inline void read_maps(char *text, size_t capacity)
{
    static char line[1024];
    size_t used = 0;
    FILE *file = fopen("/proc/self/maps", "r");
    CHECK(file != NULL);
    text[0] = '\0';
    while (fgets(line, sizeof line, file) != NULL)
        if (strstr(line, "[stack]") == NULL && strstr(line, "[heap]") == NULL)
            used += (size_t)snprintf(text + used, capacity - used, "%s", line);
    fclose(file);
    CHECK(used < capacity - 1);
}

static char maps_before[1 << 16], maps_after[1 << 16];

#define CHECK_NOTHING_LEFT()                                                                       \
    do {                                                                                           \
        read_maps(maps_after, sizeof maps_after);                                                  \
        if (strcmp(maps_before, maps_after) != 0)                                                  \
            FAIL("mappings changed from\n%s\nto\n%s", maps_before, maps_after);                    \
    } while (0)

static inline long faults(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_minflt + usage.ru_majflt;
}

/* Pages of the range that are not in memory. */
static inline size_t missing_pages(unsigned char *start, size_t bytes)
{
    static unsigned char there[4096];
    size_t missing = 0;
    for (size_t at = 0; at < bytes; at += sizeof there * 4096) {
        size_t pages = (bytes - at + 4095) / 4096;
        if (pages > sizeof there)
            pages = sizeof there;
        CHECK_EQ(mincore(start + at, pages * 4096, there), 0);
        for (size_t i = 0; i < pages; i++)
            missing += (there[i] & 1) == 0;
    }
    return missing;
}

/* Writes to every page of the range and says how many page faults that took. Not instrumented: a
 * sanitizer's shadow has faults of its own. */
__attribute__((no_sanitize("address", "thread", "undefined"))) static inline long
touch_faults(unsigned char *start, size_t bytes)
{
    long before = faults();
    for (size_t at = 0; at < bytes; at += 4096)
        ((volatile unsigned char *)start)[at] = (unsigned char)(at >> 12);
    return faults() - before;
}

/* Every page is there, and writable without a fault. The few that are let pass are the program's
 * own: its code, its stack. */
static inline void check_faulted_in(void *start, size_t bytes)
{
    CHECK_EQ(missing_pages(start, bytes), 0);
    CHECK_LE(touch_faults(start, bytes), 8);
}

/* Skips where the kernel backs every address that it gives away. */
static inline void want_overcommit(void)
{
    uint64_t mode = 0;
    if (sysfs_read_number("/proc/sys/vm/overcommit_memory", &mode) == 0 && mode == 2)
        SKIP("vm.overcommit_memory is 2: addresses are not given without memory");
}

static inline struct settings ask(size_t bytes, enum hak_pages first, enum hak_pages second,
                                  bool prefault)
{
    struct settings settings = {.size_bytes = bytes, .prefault = prefault, .verify = true};
    settings.pages[settings.pages_count++] = first;
    if (second != HAK_PAGES_DEFAULT)
        settings.pages[settings.pages_count++] = second;
    return settings;
}

#endif
