/* SPDX-License-Identifier: MIT */
/*
 * A program that was linked with an allocator of its choice (jemalloc, mimalloc, tcmalloc): its
 * malloc is the preloaded one all the same, and every object goes back to where it came from.
 */
#include <malloc.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

static void *work(void *argument)
{
    void *held[64] = {NULL};
    for (unsigned n = 0; n < 20000; n++) {
        void **slot = &held[n * 7 % 64];
        free(*slot);
        *slot = n % 5 == 0   ? calloc(1, n % 3000)
                : n % 5 == 1 ? realloc(malloc(10), n % 70000 + 1)
                : n % 5 == 2 ? strdup("text")
                : n % 5 == 3 ? memalign(128, n % 1000)
                             : malloc(n);
        if (*slot == NULL || malloc_usable_size(*slot) == 0) {
            return NULL;
        }
    }
    for (int i = 0; i < 64; i++) {
        free(held[i]);
    }
    return argument;
}

int main(void)
{
    pthread_t thread;
    void *result = NULL;
    if (work("") == NULL || pthread_create(&thread, NULL, work, "") != 0 ||
        pthread_join(thread, &result) != 0) {
        return 1;
    }
    return result == NULL;
}
