/* SPDX-License-Identifier: MIT */
/*
 * The objects that a program of misdeeds holds meanwhile, and what it sees of the heap by them.
 * Each is filled with a pattern of its own; two that share bytes, and bytes that changed, are said
 * on standard output. The table is static memory, so that looking allocates nothing.
 *
 * The stages of the program, and what it notices, are lines that begin with "@ "; measure.sh reads
 * them. They are written at once, into the same stream as the allocator's messages.
 */
#ifndef HAK_TESTS_MISUSE_HERD_H
#define HAK_TESTS_MISUSE_HERD_H

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/misuse/calls.h"

#define HERD_MAX ((size_t)64 << 10)
/* What one call of herd_grow holds at most. */
#define HERD_OBJECTS ((size_t)20000)
#define HERD_BYTES ((size_t)32 << 20)

struct held {
    unsigned char *at;
    size_t size;
    uint32_t tag;
};

static struct held herd[HERD_MAX];
static size_t herd_count;
static uint32_t herd_tag;
static bool herd_overlaps, herd_damaged;

__attribute__((format(printf, 1, 2))) static inline void say(const char *format, ...)
{
    char text[256] = "@ ";
    va_list arguments;

    va_start(arguments, format);
    int length = vsnprintf(text + 2, sizeof text - 3, format, arguments);
    va_end(arguments);
    text[length + 2] = '\n';
    if (write(STDOUT_FILENO, text, (size_t)length + 3) < 0) {
        _exit(3);
    }
}

static inline void stage(const char *name)
{
    say("stage %s", name);
}

/* Of large objects, bytes a prime apart, and the last. */
static inline size_t step_of(size_t size)
{
    return size > 8192 ? 509 : 1;
}

static inline void fill(const struct held *one)
{
    for (size_t n = 0; n < one->size; n += step_of(one->size)) {
        one->at[n] = (unsigned char)(one->tag * 31 + n);
    }
    if (one->size > 0) {
        one->at[one->size - 1] = (unsigned char)(one->tag ^ 0x5a);
    }
}

static inline bool holds(const struct held *one)
{
    for (size_t n = 0; n + 1 < one->size; n += step_of(one->size)) {
        if (one->at[n] != (unsigned char)(one->tag * 31 + n)) {
            return false;
        }
    }
    return one->size == 0 || one->at[one->size - 1] == (unsigned char)(one->tag ^ 0x5a);
}

static inline void look_at(const struct held *one)
{
    if (!herd_overlaps && !herd_damaged && !holds(one)) {
        herd_damaged = true;
        say("damage");
    }
}

/* Takes an object that is at hand into the herd. */
static inline void herd_add(void *object, size_t size)
{
    if (object == NULL || herd_count == HERD_MAX) {
        say("failed: no memory");
        _exit(3);
    }
    herd[herd_count] = (struct held){.at = object, .size = size, .tag = ++herd_tag};
    fill(&herd[herd_count++]);
}

/* As many objects of a size as are worth having. */
static inline void herd_grow(size_t size)
{
    size_t count = HERD_BYTES / size < HERD_OBJECTS ? HERD_BYTES / size : HERD_OBJECTS;

    while (count-- > 0) {
        herd_add(call_malloc(size), size);
    }
}

/* Frees what is held above a count, the oldest first. */
static inline void herd_shrink(size_t count)
{
    for (size_t n = count; n < herd_count; n++) {
        look_at(&herd[n]);
        call_free(herd[n].at);
    }
    herd_count = count;
}

/* After the program itself wrote where it should not have: contents as they ought to be. */
static inline void herd_repair(void)
{
    for (size_t n = 0; n < herd_count; n++) {
        fill(&herd[n]);
    }
}

/* By address, in place: the gaps of Ciura. */
static inline void herd_sort(void)
{
    static const size_t gaps[] = {64461, 28649, 12733, 5659, 2515, 1118, 497,
                                  221,   98,    41,    18,   8,    4,    1};
    for (size_t g = 0; g < sizeof gaps / sizeof *gaps; g++) {
        for (size_t n = gaps[g]; n < herd_count; n++) {
            struct held one = herd[n];
            size_t at = n;
            for (; at >= gaps[g] && herd[at - gaps[g]].at > one.at; at -= gaps[g]) {
                herd[at] = herd[at - gaps[g]];
            }
            herd[at] = one;
        }
    }
}

/* Says so where two objects of the herd share bytes. */
static inline void herd_look(void)
{
    herd_sort();
    for (size_t n = 1; n < herd_count && !herd_overlaps; n++) {
        if (herd[n - 1].at + herd[n - 1].size > herd[n].at) {
            herd_overlaps = true;
            say("overlap");
        }
    }
}

/* The object in the middle of the herd by address, which is no longer of the herd. */
static inline unsigned char *herd_middle(void)
{
    herd_sort();
    size_t middle = herd_count / 2;
    unsigned char *object = herd[middle].at;

    memmove(&herd[middle], &herd[middle + 1], (--herd_count - middle) * sizeof *herd);
    return object;
}

#endif
