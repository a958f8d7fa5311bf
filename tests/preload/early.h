/* SPDX-License-Identifier: MIT */
/*
 * What early_library.c has for early_program.c: objects that the library's constructor allocated,
 * with contents that tell whether they are still whole.
 */
#ifndef HAK_TESTS_PRELOAD_EARLY_H
#define HAK_TESTS_PRELOAD_EARLY_H

#include <stdbool.h>
#include <stddef.h>

struct early_object {
    unsigned char *start;
    size_t bytes;
    unsigned tag;
};

extern struct early_object early_objects[];
extern size_t early_count;

void early_fill(struct early_object *object);
/* The first bytes of it, up to all. */
bool early_holds(const struct early_object *object, size_t bytes);

#endif
