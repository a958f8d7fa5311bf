/* SPDX-License-Identifier: MIT */
/*
 * The process's last error: composed without overrun, stored and read whole by any thread, in the
 * order of its numbers.
 */
#include "region/errlog.h"
#include "tests/harness.h"

#define THREADS 4
#define ROUNDS 20000

TEST(nothing_has_failed_yet)
{
    struct hak_error error = {.code = 77};
    CHECK_EQ(errlog_load(&error), 0);
    CHECK_EQ(error.code, 77);
}

TEST(a_failure_is_composed_and_the_code_handed_through)
{
    struct hak_error error;
    memset(&error, 0xff, sizeof error);
    errno = 33;
    CHECK_EQ(errlog_fail(&error, -ENODEV, HAK_ERROR_SETUP, "node %d %s", 7, "is not there"),
             -ENODEV);
    CHECK_EQ(errno, 33);
    CHECK_EQ(error.kind, HAK_ERROR_SETUP);
    CHECK_EQ(error.code, -ENODEV);
    CHECK_EQ(error.node, -1);
    CHECK_EQ(error.size_bytes, 0);
    CHECK_EQ(strcmp(error.message, "node 7 is not there"), 0);
    CHECK_EQ(error.remedy[0], 0);
    CHECK_EQ(errlog_fail(NULL, -EIO, HAK_ERROR_SETUP, "nobody listens"), -EIO);
}

TEST(what_does_not_fit_is_cut_and_said)
{
    struct {
        char text[16];
        char after;
    } box = {"", 'x'};
    CHECK(errlog_append(box.text, sizeof box.text, "%s", "0123456789"));
    CHECK(errlog_append(box.text, sizeof box.text, "%s", "abcde"));
    CHECK(!errlog_append(box.text, sizeof box.text, "%s", "f"));
    CHECK_EQ(strcmp(box.text, "0123456789abcde"), 0);
    CHECK_EQ(box.after, 'x');
    struct hak_error error;
    static char huge[3000];
    memset(huge, 'y', sizeof huge - 1);
    errlog_fail(&error, -1, HAK_ERROR_SETUP, "%s", huge);
    CHECK_EQ(strlen(error.message), sizeof error.message - 1);
    CHECK_EQ(error.remedy[0], 0);
}

TEST(the_later_store_is_what_is_loaded)
{
    struct hak_error first, second, out;
    errlog_fail(&first, -1, HAK_ERROR_SETUP, "first");
    errlog_fail(&second, -2, HAK_ERROR_MISUSE, "second");
    errlog_store(&first);
    uint64_t one = errlog_load(&out);
    CHECK_EQ(strcmp(out.message, "first"), 0);
    uint64_t between = errlog_next_sequence();
    errlog_store(&second);
    uint64_t two = errlog_load(&out);
    CHECK_EQ(strcmp(out.message, "second"), 0);
    CHECK_EQ(out.kind, HAK_ERROR_MISUSE);
    CHECK(one < between && between < two);
}

static int torn, backwards; /* atomic */

/* Each thread's records are of one letter throughout; a mixture would be a torn copy. */
static void *store_and_load(void *argument)
{
    char letter = (char)('a' + (int)(intptr_t)argument);
    struct hak_error mine, out;
    uint64_t last = 0;
    errlog_fail(&mine, -1, HAK_ERROR_SETUP, "x");
    memset(mine.message, letter, sizeof mine.message - 1);
    memset(mine.remedy, letter, sizeof mine.remedy - 1);
    for (int i = 0; i < ROUNDS; i++) {
        errlog_store(&mine);
        uint64_t number = errlog_load(&out);
        if (number <= last)
            __atomic_fetch_add(&backwards, 1, __ATOMIC_RELAXED);
        last = number;
        if (out.remedy[0] != out.message[0] ||
            memcmp(out.message, out.message + 1, sizeof out.message - 2) != 0 ||
            memcmp(out.remedy, out.remedy + 1, sizeof out.remedy - 2) != 0)
            __atomic_fetch_add(&torn, 1, __ATOMIC_RELAXED);
    }
    return NULL;
}

TEST(threads_see_whole_records_in_order)
{
    pthread_t threads[THREADS];
    uint64_t before = errlog_next_sequence();
    for (intptr_t i = 0; i < THREADS; i++)
        CHECK_EQ(pthread_create(&threads[i], NULL, store_and_load, (void *)i), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    CHECK_EQ(torn, 0);
    CHECK_EQ(backwards, 0);
    CHECK_EQ(errlog_next_sequence() - before, THREADS * ROUNDS + 1);
}

HARNESS_MAIN()
