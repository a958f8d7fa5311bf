/* SPDX-License-Identifier: MIT */
/*
 * A program that wraps malloc by dlsym(RTLD_NEXT), as profilers and leak checkers do. dlsym may
 * allocate while the functions are looked up: those come from a small array.
 */
#include "tests/preload/wrap.h"

#include <dlfcn.h>

static struct {
    void *(*malloc)(size_t);
    void *(*calloc)(size_t, size_t);
    void *(*realloc)(void *, size_t);
    void (*free)(void *);
} next;

static char first[4096] __attribute__((aligned(16)));
static size_t first_used;
static _Thread_local int looking;

static int in_first(const void *pointer)
{
    return (uintptr_t)pointer - (uintptr_t)first < sizeof first;
}

static void *from_first(size_t size)
{
    size_t at = first_used;
    first_used += (size + 15) & ~(size_t)15;
    return first_used <= sizeof first ? first + at : NULL;
}

/* False while this thread is in here already. */
static int look(void)
{
    if (next.free != NULL) {
        return 1;
    }
    if (looking) {
        return 0;
    }
    looking = 1;
    *(void **)&next.malloc = dlsym(RTLD_NEXT, "malloc");
    *(void **)&next.calloc = dlsym(RTLD_NEXT, "calloc");
    *(void **)&next.realloc = dlsym(RTLD_NEXT, "realloc");
    *(void **)&next.free = dlsym(RTLD_NEXT, "free");
    looking = 0;
    return 1;
}

void *malloc(size_t size)
{
    atomic_fetch_add(&wrap_mallocs, 1);
    return look() ? next.malloc(size) : from_first(size);
}

void *calloc(size_t count, size_t size)
{
    return look() ? next.calloc(count, size) : from_first(count * size);
}

void *realloc(void *pointer, size_t size)
{
    if (pointer != NULL && in_first(pointer)) {
        void *moved = malloc(size);
        return moved == NULL ? NULL : memcpy(moved, pointer, size < 64 ? size : 64);
    }
    return look() ? next.realloc(pointer, size) : from_first(size);
}

void free(void *pointer)
{
    atomic_fetch_add(&wrap_frees, 1);
    if (pointer != NULL && !in_first(pointer) && look()) {
        next.free(pointer);
    }
}

int main(void)
{
    return wrap_main();
}
