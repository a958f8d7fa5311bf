/* SPDX-License-Identifier: MIT */
/*
 * A program with an allocator of its own: it defines malloc, free, calloc and realloc over a static
 * array and never gives anything back, and leaves the rest of the family alone. The C library's
 * calls come to it as well. Exits 0 if everything that should came from the array.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HEAP_BYTES ((size_t)64 << 20)

static unsigned char heap[HEAP_BYTES] __attribute__((aligned(64)));
static _Atomic size_t used;
static _Atomic unsigned freed, foreign;

static int in_heap(const void *pointer)
{
    return (uintptr_t)pointer - (uintptr_t)heap < HEAP_BYTES;
}

/* The size stands in front. */
void *malloc(size_t size)
{
    size_t bytes = (size + 31) & ~(size_t)15;
    size_t at = atomic_fetch_add(&used, bytes);
    if (size > HEAP_BYTES || at + bytes > HEAP_BYTES) {
        return NULL;
    }
    memcpy(heap + at, &size, sizeof size);
    return heap + at + 16;
}

void free(void *pointer)
{
    if (pointer != NULL) {
        atomic_fetch_add(in_heap(pointer) ? &freed : &foreign, 1);
    }
}

void *calloc(size_t count, size_t size)
{
    return malloc(count * size); /* never used before */
}

void *realloc(void *pointer, size_t size)
{
    size_t old_size = 0;
    void *moved = malloc(size);
    if (pointer != NULL && moved != NULL) {
        memcpy(&old_size, (unsigned char *)pointer - 16, sizeof old_size);
        memcpy(moved, pointer, old_size < size ? old_size : size);
    }
    free(pointer);
    return moved;
}

static void *work(void *argument)
{
    char text[64];
    for (int i = 0; i < 1000; i++) {
        snprintf(text, sizeof text, "%s %d", (const char *)argument, i);
        char *copy = strdup(text);
        if (copy == NULL || !in_heap(copy) || strcmp(copy, text) != 0) {
            return NULL;
        }
        free(copy);
    }
    return argument;
}

int main(void)
{
    char *line = NULL, thread_name[] = "thread";
    size_t length = 0;
    pthread_t thread;
    void *result = NULL, *aligned = NULL;
    FILE *self = fopen("/proc/self/status", "r");
    if (self == NULL || getline(&line, &length, self) <= 0 || !in_heap(line)) {
        return 2;
    }
    fclose(self);
    free(line);
    if (pthread_create(&thread, NULL, work, thread_name) != 0 ||
        pthread_join(thread, &result) != 0 || result == NULL) {
        return 3;
    }
    char *grown = malloc(10);
    memcpy(grown, "grown", sizeof "grown");
    grown = realloc(grown, 100000);
    if (!in_heap(grown) || strcmp(grown, "grown") != 0) {
        return 4;
    }
    free(grown);
    /* Not its own: whoever has it, the program may use it. Its free knows it for foreign. */
    if (posix_memalign(&aligned, 4096, 10000) != 0 || ((uintptr_t)aligned & 4095) != 0) {
        return 5;
    }
    memset(aligned, 1, 10000);
    free(aligned);
    return freed >= 1003 && foreign == 1 ? 0 : 6;
}
