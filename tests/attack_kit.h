/* SPDX-License-Identifier: MIT */
/*
 * What the tests of docs/security.md share: an attack is a function that runs in a child, on a
 * fresh default region of one of the two modes, and plays a program with a bug and whoever uses it.
 * What it finds out it checks itself; how the child ended is looked at by the case.
 */
#ifndef HAK_TESTS_ATTACK_KIT_H
#define HAK_TESTS_ATTACK_KIT_H

#include "tests/region_kit.h"

enum mode { USUAL, HARDENED };

struct attack {
    void (*run)(void);
    enum mode mode;
    enum hak_misuse policy;
};

static enum mode attack_mode; /* in the child */
static size_t attack_bytes = 64 * MIB;

static inline struct hak_config attack_config(enum mode mode, enum hak_misuse policy)
{
    struct hak_config config = kit_config(attack_bytes, HAK_PAGES_4K, HAK_OFF);
    config.misuse = policy;
    config.hardened = mode == HARDENED ? HAK_ON : HAK_OFF;
    return config;
}

static inline void attack_child(void *argument)
{
    const struct attack *attack = argument;
    struct hak_config config = attack_config(attack->mode, attack->policy);
    attack_mode = attack->mode;
    kit_open_config(&config);
    attack->run();
}

static inline const struct harness_result *attack_under(void (*run)(void), enum mode mode,
                                                        enum hak_misuse policy)
{
    static struct harness_result result;
    struct attack attack = {run, mode, policy};
    kit_close();
    harness_child(attack_child, &attack, &result);
    return &result;
}

/* It comes to its end, and all that it checks holds. */
static inline void attack_goes_through(void (*run)(void), enum mode mode, enum hak_misuse policy)
{
    const struct harness_result *result = attack_under(run, mode, policy);
    if (result->exit_status != 0) {
        FAIL("exit status %d, signal %d: %s", result->exit_status, result->signal, result->output);
    }
}

/* It is stopped by an abort with these words in the message. */
static inline void attack_is_caught(void (*run)(void), enum mode mode, const char *words)
{
    const struct harness_result *result = attack_under(run, mode, HAK_MISUSE_ABORT);
    if (result->signal != SIGABRT) {
        FAIL("exit status %d, signal %d: %s", result->exit_status, result->signal, result->output);
    }
    CHECK_STR_HAS(result->output, "hakmem: misuse: ");
    CHECK_STR_HAS(result->output, words);
}

/* ---- words of the attacks ------------------------------------------------------------------- */

/* An object of which the compiler does not know that it is a new one: then it would know that no
 * other pointer leads there. */
static inline unsigned char *take(size_t size)
{
    unsigned char *object = hak_malloc(unseen(size));
    __asm__ volatile("" : "+r"(object) : : "memory");
    CHECK(object != NULL);
    return object;
}

static inline bool shares(const unsigned char *a, size_t a_bytes, const unsigned char *b,
                          size_t b_bytes)
{
    return a < b + b_bytes && b < a + a_bytes;
}

static inline int by_address(const void *a, const void *b)
{
    const unsigned char *const *left = a, *const *right = b;
    return (*left > *right) - (*left < *right);
}

/* Objects of one size: none overlaps another, and all are of the region. Sorts. */
static inline void check_apart(unsigned char **objects, size_t count, size_t size)
{
    const struct region *area = &hak_region_default()->area;
    qsort(objects, count, sizeof *objects, by_address);
    for (size_t n = 0; n < count; n++) {
        CHECK((uintptr_t)objects[n] >= area->base);
        CHECK((uintptr_t)objects[n] + size <= area->base + area->bytes);
        CHECK(n == 0 || objects[n - 1] + size <= objects[n]);
    }
}

/* What every thread's cache holds goes back to the slabs, where a second free is seen. */
static inline void *flush_all(void *unused)
{
    return unused;
}

#endif
