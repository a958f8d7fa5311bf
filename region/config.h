/* SPDX-License-Identifier: MIT */
/*
 * Everything that can be set, resolved: the caller's struct first, then the environment, then the
 * default. The environment variables are one table in config.c, which is also what config_print
 * shows. Read once per region, before anything is reserved; nothing here allocates.
 */
#ifndef HAK_REGION_CONFIG_H
#define HAK_REGION_CONFIG_H

#include <hakmem.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* Size classes that HAKMEM_TINY_PAGE_BOX_CLASSES can name are 1 to this. */
#define CONFIG_CLASSES_MAX 60
/* Most SuperSlabs of a warm pool. */
#define CONFIG_WARM_POOL_MAX 12

/* Layers that HAKMEM_LAYERS can leave out, to measure what each brings. */
enum config_layer { LAYER_CACHE = 1, LAYER_PAGEBOX = 2, LAYER_WARMPOOL = 4, LAYER_ALL = 7 };

/* What the caller or the environment said something about; the rest are defaults. Bit n is for the
 * table's variable n; these are those that somebody asks about. */
enum config_given { GIVEN_SIZE = 1, GIVEN_PAGES = 2, GIVEN_PREFAULT = 8, GIVEN_EXHAUSTED = 64 };

struct settings {
    size_t size_bytes;
    unsigned pages_count;
    enum hak_pages pages[HAK_PAGES_COUNT]; /* order of preference, no repeats */
    uint64_t nodes;                        /* bit n = node n; 0: all that can be used */
    bool prefault;
    bool verify; /* ask for every page's node after fault-in */
    enum hak_misuse misuse;
    enum hak_exhausted exhausted;
    uint64_t page_box_classes; /* bit c = class c */
    unsigned warm_pool;        /* SuperSlabs a class, 1 to CONFIG_WARM_POOL_MAX */
    bool warm_pool_stats;      /* print the warm pools' hit rates at exit */
    unsigned layers;           /* enum config_layer, or-ed */
    bool hugetlbfs;            /* 2M and 1G pages by a file on a mount; see region/hugetlbfs.h */
    bool progress;             /* show how the region is faulted in; see region/progress.h */
    bool hardened;             /* see alloc/hardened.h */
    size_t fill_bytes;         /* of a freed object; alloc/hardened.h */
    unsigned given;            /* enum config_given, or-ed: what somebody asked for */
    /* Not to be set from outside: */
    bool fork_inherits;     /* hugetlb memory too */
    size_t huge_from_bytes; /* of a segment in use, before it asks for transparent huge pages */
};

/*
 * user may be NULL: everything from the environment. A number from the environment that is out of
 * its range is clamped, with a line on standard error; anything that cannot be understood is
 * -EINVAL, and *error says which variable or field, its value, and what would be accepted. A size
 * of the caller's is never clamped: -EINVAL below a SuperSlab, -E2BIG above HAK_REGION_BYTES_MAX.
 * A variable set to nothing counts as not set; setuid programs take the defaults.
 */
int config_resolve(const struct hak_config *user, struct settings *out, struct hak_error *error);

/* One variable of the table, and what the environment says of it now. */
struct config_entry {
    const char *name;      /* "HAKMEM_..." */
    const char *fallback;  /* the default, as one would write it */
    const char *preloaded; /* the default in a preloaded program, likewise or in words */
    const char *sentence;  /* what it is for */
    bool is_switch;        /* on or off */
    const char *text;      /* its value in the environment; NULL where it counts as not set */
    int verdict;           /* of that value: 0, 1 when it is out of range, -EINVAL for nonsense */
    char used[32];         /* verdict 1: the number that stands in for it */
    char accepted[160];    /* what is understood */
};

/* Describes the variable with that index, from 0; false past the last. */
bool config_describe(unsigned index, struct config_entry *out);

/* The table of variables: name, value in force (or why it is refused), default, range, meaning. */
void config_print(FILE *out);

#endif
