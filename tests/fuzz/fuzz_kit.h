/* SPDX-License-Identifier: MIT */
/*
 * What the fuzzers share: the input, read a byte at a time; the way to say what is wrong; and
 * numbers that a mutation moves by little.
 *
 * A fuzzer is a file fuzz_NAME.c with LLVMFuzzerTestOneInput, linked with libFuzzer and with the
 * library built for its coverage, AddressSanitizer and UndefinedBehaviorSanitizer. An input that
 * has ended reads as zeroes, so every prefix of an input is one. What an input does may depend on
 * nothing but the input: a finding has to come back when the file is run alone.
 */
#ifndef HAK_TESTS_FUZZ_KIT_H
#define HAK_TESTS_FUZZ_KIT_H

#include "region/base.h"

#include <hakmem.h>

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* ---- what is wrong --------------------------------------------------------------------------- */

/* Standard error as it was at the start: the library's own messages, which some fuzzers provoke by
 * the thousand, are kept off it by -close_fd_mask=2. */
static int fuzz_report = 2;

static inline void fuzz_keep_report(void)
{
    int copy = dup(2);

    fuzz_report = copy >= 0 ? copy : 2;
}

__attribute__((noreturn, format(printf, 2, 3))) static inline void
fuzz_fail_at(const char *where, const char *format, ...)
{
    char text[2048];
    va_list arguments;
    int length = snprintf(text, sizeof text, "FINDING %s", where);

    va_start(arguments, format);
    length += vsnprintf(text + length, sizeof text - (size_t)length - 1, format, arguments);
    va_end(arguments);
    length = length < (int)sizeof text - 1 ? length : (int)sizeof text - 2;
    text[length++] = '\n';
    (void)!write(fuzz_report, text, (size_t)length);
    abort();
}

#define FUZZ_TEXT_(x) #x
#define FUZZ_TEXT(x) FUZZ_TEXT_(x)
#define FUZZ_FAIL(...) fuzz_fail_at(__FILE__ ":" FUZZ_TEXT(__LINE__) ": ", __VA_ARGS__)
#define FUZZ_CHECK(condition)                                                                      \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            FUZZ_FAIL("%s does not hold", #condition);                                             \
        }                                                                                          \
    } while (0)
#define FUZZ_EQ(found, wanted)                                                                     \
    do {                                                                                           \
        long long fuzz_found = (long long)(found), fuzz_wanted = (long long)(wanted);              \
        if (fuzz_found != fuzz_wanted) {                                                           \
            FUZZ_FAIL("%s is %lld, not %lld (%s)", #found, fuzz_found, fuzz_wanted, #wanted);      \
        }                                                                                          \
    } while (0)

/* ---- the input ------------------------------------------------------------------------------- */

struct fuzz_input {
    const uint8_t *at, *end;
};

static inline bool fuzz_more(const struct fuzz_input *input)
{
    return input->at < input->end;
}

static inline unsigned fuzz_byte(struct fuzz_input *input)
{
    return input->at < input->end ? *input->at++ : 0;
}

static inline unsigned fuzz_two(struct fuzz_input *input)
{
    unsigned high = fuzz_byte(input);

    return high << 8 | fuzz_byte(input);
}

static inline uint64_t fuzz_eight(struct fuzz_input *input)
{
    uint64_t value = 0;

    for (unsigned n = 0; n < 8; n++) {
        value = value << 8 | fuzz_byte(input);
    }
    return value;
}

/* ---- the oddities of a process --------------------------------------------------------------- */

/* The first frees of a thread that has allocated nothing go another way (alloc/thread.c): those of
 * the main thread are used up before the first input, lest it differ from all others. */
static inline void fuzz_wear_in(void)
{
    struct hak_config config = {.size_bytes = 4 * MIB, .pages = {HAK_PAGES_4K}};
    void *objects[64];

    config.prefault = HAK_OFF;
    FUZZ_EQ(hak_region_init(&config), 0);
    FUZZ_EQ(hak_malloc_bulk(64, 64, objects), 64);
    for (unsigned n = 0; n < 64; n++) {
        hak_thread_idle();
        hak_free(objects[n]);
    }
    FUZZ_EQ(hak_region_fini(), 0);
    FUZZ_EQ(hak_region_init(&config), 0);
    hak_region *region = NULL;
    FUZZ_EQ(hak_region_create(&config, &region), 0);
    FUZZ_EQ(hak_region_destroy(region), 0);
    FUZZ_EQ(hak_region_fini(), 0);
}

#endif
