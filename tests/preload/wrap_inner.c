/* SPDX-License-Identifier: MIT */
/*
 * A program that wraps malloc by the C library's inner names. Its posix_memalign and strdup are
 * whoever's the dynamic loader found; its free must be able to give their objects back.
 */
#include "tests/preload/wrap.h"

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *pointer, size_t size);
extern void __libc_free(void *pointer);

void *malloc(size_t size)
{
    atomic_fetch_add(&wrap_mallocs, 1);
    return __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
    return __libc_calloc(count, size);
}

void *realloc(void *pointer, size_t size)
{
    return __libc_realloc(pointer, size);
}

void free(void *pointer)
{
    atomic_fetch_add(&wrap_frees, 1);
    __libc_free(pointer);
}

int main(void)
{
    return wrap_main();
}
