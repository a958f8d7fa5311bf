/* SPDX-License-Identifier: MIT */
/* The environment variables, one table: for config.c, which reads and prints them. */
#ifndef HAK_REGION_CONFIG_TABLE_H
#define HAK_REGION_CONFIG_TABLE_H

#include "region/config.h"

#define KIB ((uint64_t)1 << 10)
#define MIB ((uint64_t)1 << 20)
#define TIB ((uint64_t)1 << 40)

enum kind {
    KIND_SIZE,
    KIND_INTEGER,
    KIND_BOOL,
    KIND_CHOICE,  /* one word */
    KIND_CHOICES, /* a list of words */
    KIND_NODES,
    KIND_CLASSES
};

struct choice {
    const char *word;
    unsigned value;
};

struct variable {
    const char *name;
    enum kind kind;
    const char *fallback; /* the default, as one would write it */
    uint64_t least, most; /* of numbers, and of the members of number lists */
    const char *unit;
    const struct choice *choices; /* ends with a NULL word */
    void (*set)(struct settings *out, uint64_t value);
    const char *sentence;
};

enum {
    REGION_SIZE,
    PAGES,
    NODES,
    PREFAULT,
    VERIFY,
    MISUSE,
    EXHAUSTED,
    BOX_CLASSES,
    WARM_POOL,
    WARM_STATS,
    LAYERS,
    HUGETLBFS,
    PROGRESS,
    HARDENED,
    HARDENED_FILL,
    VARIABLES
};

extern const struct variable config_table[VARIABLES];

/* Defaults of a program that was not written for hakmem, where they are others, else NULL;
 * alloc/preload_start.c puts them in force. */
extern const char *const config_preloaded[VARIABLES];

/* Adds a page size to the list, once. */
void config_add_pages(struct settings *out, uint64_t value);

#endif
