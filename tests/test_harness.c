/* SPDX-License-Identifier: MIT */
/*
 * The harness shown to tell the truth: programs made of cases that fail, skip and crash are run
 * in children, and what they print and return is looked at. The cases that must fail are listed
 * here as plain structures, so that this program's own runner never meets them.
 */
#include "tests/harness.h"

static void case_passes(void)
{
    CHECK(1 + 1 == 2);
    CHECK_EQ(7, 7U);
    CHECK_STR_HAS("needle in hay", "needle");
}

static void case_check(void)
{
    CHECK(1 + 1 == 3);
    (void)printf("went on after CHECK\n");
}

static void helper_compares(int value)
{
    CHECK_EQ(value, 42);
}

static void case_check_eq_in_helper(void)
{
    helper_compares(41);
    (void)printf("went on after CHECK_EQ\n");
}

static void case_str(void)
{
    CHECK_STR_HAS("hay", "needle");
}

static void case_str_null(void)
{
    CHECK_STR_HAS(NULL, "needle");
}

static void case_fail(void)
{
    FAIL("bad %s", "luck");
}

static void case_skip(void)
{
    SKIP("no %d-node machine", 8);
}

static void *thread_fails(void *unused)
{
    (void)unused;
    CHECK_LE(5, 4);
    return NULL;
}

static void case_thread_fails(void)
{
    pthread_t thread;
    CHECK_EQ(pthread_create(&thread, NULL, thread_fails, NULL), 0);
    CHECK_EQ(pthread_join(thread, NULL), 0);
}

/* What a program of these cases does from its main() on; argument: part of a case's name. */
struct program {
    void (*cases[4])(void);
    const char *argument;
};

static void program_main(void *arg)
{
    static const char *const names[4] = {"first", "second", "third", "fourth"};
    static struct harness_case cases[4];
    const struct program *program = arg;

    harness_state.in_child = false; /* be a program of its own and not this one's child */
    harness_state.first = NULL;
    harness_state.last = NULL;
    for (int i = 0; i < 4 && program->cases[i] != NULL; i++) {
        cases[i] = (struct harness_case){names[i], program->cases[i], NULL};
        harness_register(&cases[i]);
    }
    char name[] = "program";
    char argument[16] = "";
    if (program->argument != NULL) {
        (void)snprintf(argument, sizeof argument, "%s", program->argument);
    }
    char *argv[3] = {name, program->argument != NULL ? argument : NULL, NULL};
    _exit(harness_main(program->argument != NULL ? 2 : 1, argv));
}

static struct harness_result result;

TEST(passing_program_exits_0)
{
    struct program program = {{case_passes, case_passes}, NULL};
    harness_child(program_main, &program, &result);
    CHECK_EQ(result.exit_status, 0);
    CHECK(strcmp(result.output, "ok first\nok second\n2 passed, 0 failed, 0 skipped\n") == 0);
}

TEST(failing_check_is_told_with_place_and_ends_its_case_only)
{
    struct program program = {{case_check, case_passes}, NULL};
    harness_child(program_main, &program, &result);
    CHECK_EQ(result.exit_status, 1);
    CHECK_STR_HAS(result.output, "FAIL first: ");
    CHECK_STR_HAS(result.output, "test_harness.c:");
    CHECK_STR_HAS(result.output, "CHECK(1 + 1 == 3)");
    CHECK_STR_HAS(result.output, "\nok second\n1 passed, 1 failed, 0 skipped\n");
    CHECK(strstr(result.output, "went on") == NULL);
}

TEST(failing_comparison_in_a_helper_shows_both_values)
{
    struct program program = {{case_check_eq_in_helper}, NULL};
    harness_child(program_main, &program, &result);
    CHECK_EQ(result.exit_status, 1);
    CHECK_STR_HAS(result.output, "CHECK_EQ(value, 42): 41 (0x29) and 42 (0x2a)");
    CHECK(strstr(result.output, "went on") == NULL);
}

TEST(missing_text_and_plain_failure_are_told)
{
    struct program program = {{case_str, case_str_null, case_fail}, NULL};
    harness_child(program_main, &program, &result);
    CHECK_EQ(result.exit_status, 1);
    CHECK_STR_HAS(result.output, "\"needle\" is not in \"hay\"");
    CHECK_STR_HAS(result.output, "\"needle\" is not in \"(null)\"");
    CHECK_STR_HAS(result.output, "bad luck");
    CHECK_STR_HAS(result.output, "\n0 passed, 3 failed, 0 skipped\n");
}

TEST(skipping_everything_exits_77)
{
    struct program program = {{case_skip, case_skip}, NULL};
    harness_child(program_main, &program, &result);
    CHECK_EQ(result.exit_status, HARNESS_EXIT_SKIPPED);
    CHECK_STR_HAS(result.output, "skip first: no 8-node machine\n");
    CHECK_STR_HAS(result.output, "\n0 passed, 0 failed, 2 skipped\n");
}

TEST(skipping_some_exits_0)
{
    struct program program = {{case_skip, case_passes}, NULL};
    harness_child(program_main, &program, &result);
    CHECK_EQ(result.exit_status, 0);
    CHECK_STR_HAS(result.output, "\n1 passed, 0 failed, 1 skipped\n");
}

TEST(failure_in_another_thread_fails_the_case)
{
    struct program program = {{case_thread_fails, case_passes}, NULL};
    harness_child(program_main, &program, &result);
    CHECK_EQ(result.exit_status, 1);
    CHECK_STR_HAS(result.output, "FAIL first: ");
    CHECK_STR_HAS(result.output, "CHECK_LE(5, 4): 5 (0x5) and 4 (0x4)");
    CHECK_STR_HAS(result.output, "\n1 passed, 1 failed, 0 skipped\n");
}

TEST(argument_chooses_cases)
{
    struct program program = {{case_fail, case_passes}, "seco"};
    harness_child(program_main, &program, &result);
    CHECK_EQ(result.exit_status, 0);
    CHECK(strcmp(result.output, "ok second\n1 passed, 0 failed, 0 skipped\n") == 0);
}

TEST(argument_that_fits_no_case_is_a_failure)
{
    struct program program = {{case_passes}, "nothing"};
    harness_child(program_main, &program, &result);
    CHECK_EQ(result.exit_status, 1);
}

/* ---- children ----------------------------------------------------------------------------- */

static void child_aborts(void *text)
{
    (void)fputs(text, stderr);
    abort();
}

static void child_exits(void *status)
{
    exit(*(int *)status);
}

static void child_hangs(void *unused)
{
    (void)unused;
    for (;;) {
        (void)pause();
    }
}

static void child_check_fails(void *unused)
{
    (void)unused;
    CHECK_EQ(1, 2);
}

static void child_chatters(void *unused)
{
    (void)unused;
    for (int i = 0; i < 100000; i++) {
        (void)fputs("chatter\n", stderr);
    }
}

TEST(child_abort_is_seen_with_what_it_wrote)
{
    char text[] = "last words\n";
    harness_child(child_aborts, text, &result);
    CHECK_EQ(result.signal, SIGABRT);
    CHECK_EQ(result.exit_status, -1);
    CHECK(!result.timed_out);
    CHECK_STR_HAS(result.output, "last words\n");
}

TEST(child_exit_status_is_seen)
{
    int status = 5;
    harness_child(child_exits, &status, &result);
    CHECK_EQ(result.exit_status, 5);
    CHECK_EQ(result.signal, 0);
}

TEST(child_that_hangs_is_killed)
{
    harness_child_seconds = 1;
    int64_t before = harness_now_ms();
    harness_child(child_hangs, NULL, &result);
    harness_child_seconds = HARNESS_CHILD_SECONDS;
    CHECK(result.timed_out);
    CHECK_EQ(result.exit_status, -1);
    CHECK_GE(harness_now_ms() - before, 900);
    CHECK_LE(harness_now_ms() - before, 20000);
}

TEST(check_in_a_child_is_told_to_the_parent)
{
    harness_child(child_check_fails, NULL, &result);
    CHECK_EQ(result.exit_status, HARNESS_CHILD_FAILED);
    CHECK_STR_HAS(result.output, "CHECK_EQ(1, 2)");
}

TEST(child_that_writes_more_than_fits_is_not_blocked)
{
    harness_child(child_chatters, NULL, &result);
    CHECK_EQ(result.exit_status, 0);
    CHECK_EQ(strlen(result.output), sizeof result.output - 1);
}

/* ---- seeds -------------------------------------------------------------------------------- */

static void child_seed(void *unused)
{
    (void)unused;
    harness_state.seed_known = false;
    CHECK_EQ(setenv("SEED", "12345", 1), 0);
    CHECK_EQ(harness_seed(), 12345);
    CHECK_EQ(harness_seed(), 12345);
}

TEST(seed_comes_from_the_environment_and_is_printed)
{
    harness_child(child_seed, NULL, &result);
    CHECK_EQ(result.exit_status, 0);
    CHECK_STR_HAS(result.output, "seed 12345 ");
}

HARNESS_MAIN()
