/* SPDX-License-Identifier: MIT */
/*
 * The shared library as a program finds it at run time: opened late, called through what dlsym
 * says. It lies beside the folder of the test programs, so it is found from the program's own path.
 * A program that includes this has two hakmems in it, its own (static) and this one, that know
 * nothing of each other.
 */
#ifndef HAK_TESTS_SHARED_KIT_H
#define HAK_TESTS_SHARED_KIT_H

#include "tests/harness.h"

#include <dlfcn.h>
#include <hakmem.h>
#include <libgen.h>
#include <limits.h>

struct shared_calls {
    void *library;
    int (*init)(const struct hak_config *config);
    int (*fini)(void);
    void *(*malloc)(size_t size);
    void *(*calloc)(size_t count, size_t size);
    void *(*realloc)(void *pointer, size_t size);
    void (*free)(void *pointer);
    size_t (*usable_size)(const void *pointer);
    int (*stats)(hak_region *region, struct hak_stats *out);
    int (*last_error)(struct hak_error *out);
    const char *(*version)(void);
};

static inline void shared_path(char path[PATH_MAX])
{
    char self[PATH_MAX];
    ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
    CHECK(length > 0);
    self[length] = '\0';
    int printed = snprintf(path, PATH_MAX, "%s/../libhakmem.so", dirname(self));
    CHECK(printed > 0 && printed < PATH_MAX);
}

/* POSIX's dlsym gives functions as data pointers; only a copy of the bytes turns one into the other
 * without a cast that ISO C does not have. */
static inline void shared_find(const struct shared_calls *calls, const char *name, void *function)
{
    void *found = dlsym(calls->library, name);
    if (found == NULL) {
        FAIL("dlsym(%s): %s", name, dlerror());
    }
    memcpy(function, &found, sizeof found);
}

static inline const void *shared_at(const void *function)
{
    const void *address;
    memcpy(&address, function, sizeof address);
    return address;
}

/* The address of the function that a member of struct shared_calls points to. */
#define shared_address(member) shared_at(&(member))

static inline void shared_open(struct shared_calls *calls)
{
    char path[PATH_MAX];
    shared_path(path);
    calls->library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (calls->library == NULL) {
        FAIL("dlopen: %s", dlerror());
    }
    shared_find(calls, "hak_region_init", &calls->init);
    shared_find(calls, "hak_region_fini", &calls->fini);
    shared_find(calls, "hak_malloc", &calls->malloc);
    shared_find(calls, "hak_calloc", &calls->calloc);
    shared_find(calls, "hak_realloc", &calls->realloc);
    shared_find(calls, "hak_free", &calls->free);
    shared_find(calls, "hak_usable_size", &calls->usable_size);
    shared_find(calls, "hak_region_stats", &calls->stats);
    shared_find(calls, "hak_last_error", &calls->last_error);
    shared_find(calls, "hak_version", &calls->version);
}

#endif
