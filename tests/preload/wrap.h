/* SPDX-License-Identifier: MIT */
/*
 * What a program does that wraps malloc, free, calloc and realloc and leaves the rest alone: what
 * the rest gives it frees by its own free, and its own objects are told of by the rest. wrap_calls
 * counts. Included by wrap_next.c and wrap_inner.c, which have the wrappers.
 */
#ifndef HAK_TESTS_PRELOAD_WRAP_H
#define HAK_TESTS_PRELOAD_WRAP_H

#include <malloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static _Atomic unsigned wrap_mallocs, wrap_frees;

static inline int wrap_round(unsigned n)
{
    void *all[8] = {NULL};
    int good = posix_memalign(&all[0], 256, n * 10 + 1) == 0;
    all[1] = aligned_alloc(64, 640 + (size_t)n * 64);
    all[2] = memalign(4096, n + 1);
    all[3] = strdup("from the C library");
    all[4] = malloc(n * 100);
    all[5] = realloc(calloc(3, n + 1), n * 1000 + 1);
    all[6] = reallocarray(malloc(1), n + 1, 50);
    all[7] = realloc(strdup("moved"), n * 500 + 6);
    for (int i = 0; i < 8; i++) {
        good = good && all[i] != NULL && malloc_usable_size(all[i]) >= 1;
    }
    good = good && strcmp(all[7], "moved") == 0 && ((uintptr_t)all[0] & 255) == 0;
    for (int i = 0; i < 8; i++) {
        if (all[i] != NULL && i != 3 && i != 7) {
            memset(all[i], i, malloc_usable_size(all[i]));
        }
        free(all[i]);
    }
    return good;
}

static inline void *wrap_thread(void *argument)
{
    for (unsigned n = 0; n < 500; n++) {
        if (!wrap_round(n)) {
            return NULL;
        }
    }
    return argument;
}

static inline int wrap_main(void)
{
    pthread_t threads[2];
    int good = wrap_thread(threads) != NULL;
    for (int i = 0; i < 2; i++) {
        good = good && pthread_create(&threads[i], NULL, wrap_thread, threads) == 0;
    }
    for (int i = 0; good && i < 2; i++) {
        void *result = NULL;
        good = pthread_join(threads[i], &result) == 0 && result != NULL;
    }
    printf("%u calls of malloc and %u of free came by\n", wrap_mallocs, wrap_frees);
    return good && wrap_mallocs >= 3000 && wrap_frees >= 10000 ? 0 : 1;
}

#endif
