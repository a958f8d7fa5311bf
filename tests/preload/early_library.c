/* SPDX-License-Identifier: MIT */
/*
 * A library that a program needs. The dynamic loader starts it before the preloaded library, which
 * nothing depends on; its constructor takes 64 MiB in pieces of 24 bytes to 4 MiB, in all ways that
 * there are, and frees every fifth. Its destructor runs after the preloaded library's; it frees and
 * allocates as well.
 */
#include "tests/preload/early.h"

#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define EARLY_MOST 40000
#define EARLY_BYTES ((size_t)64 << 20)

struct early_object early_objects[EARLY_MOST];
size_t early_count;
static void *last_words;

static size_t step_of(size_t bytes)
{
    return bytes > 4096 ? 251 : 1;
}

void early_fill(struct early_object *object)
{
    for (size_t at = 0; at < object->bytes; at += step_of(object->bytes)) {
        object->start[at] = (unsigned char)(at + object->tag);
    }
}

bool early_holds(const struct early_object *object, size_t bytes)
{
    for (size_t at = 0; at < bytes; at += step_of(object->bytes)) {
        if (object->start[at] != (unsigned char)(at + object->tag)) {
            return false;
        }
    }
    return true;
}

static void give_up(const char *what)
{
    static const char start[] = "early library: ";
    if (write(2, start, sizeof start - 1) < 0 || write(2, what, strlen(what)) < 0) {
        _exit(4);
    }
    _exit(3);
}

static void *allocate(size_t n, size_t bytes)
{
    void *object = NULL;
    switch (n % 7) {
    case 0:
        object = calloc(1, bytes);
        for (size_t at = 0; object != NULL && at < bytes; at++) {
            if (((unsigned char *)object)[at] != 0) {
                give_up("calloc did not clear\n");
            }
        }
        return object;
    case 1:
        return realloc(malloc(bytes / 2), bytes);
    case 2:
        return memalign(64, bytes);
    case 3:
        return posix_memalign(&object, 4096, bytes) == 0 ? object : NULL;
    default:
        return malloc(bytes);
    }
}

__attribute__((constructor)) static void take_64_mib(void)
{
    size_t total = 0;
    for (size_t n = 0; total < EARLY_BYTES; n++) {
        size_t bytes = 24 + n * 37 % 3000;
        if (n % 1000 == 7) {
            bytes = (size_t)300 << 10;
        } else if (n % 3000 == 8) {
            bytes = (size_t)4 << 20;
        }
        struct early_object *object = &early_objects[early_count];
        *object = (struct early_object){allocate(n, bytes), bytes, (unsigned)n};
        if (object->start == NULL || malloc_usable_size(object->start) < bytes) {
            give_up("an allocation failed\n");
        }
        early_fill(object);
        total += bytes;
        if (n % 5 == 4) {
            free(object->start);
        } else {
            early_count++;
        }
    }
    last_words = strdup("freed by the destructor");
}

__attribute__((destructor)) static void leave(void)
{
    free(last_words);
    char *text = NULL;
    for (int i = 0; i < 1000; i++) {
        text = realloc(text, (size_t)(i + 1) * 100);
        if (text == NULL) {
            give_up("realloc failed in the destructor\n");
        }
        text[i * 100] = 'x';
    }
    free(text);
    if (printf("early library: left\n") < 0 || fflush(stdout) != 0) {
        _exit(4);
    }
}
