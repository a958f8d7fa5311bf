/* SPDX-License-Identifier: MIT */
/*
 * The test harness: one header, C and C++, one source file per test program.
 *
 *     TEST(freed_units_merge)
 *     {
 *         CHECK_EQ(units_free(), 32);
 *     }
 *     HARNESS_MAIN()
 *
 * Every TEST registers itself before main(); HARNESS_MAIN runs them in the order of the file, or
 * those whose name contains one of the program's arguments. A line per case on standard output,
 * `ok NAME`, `FAIL NAME: why` or `skip NAME: reason`; the last line is the tally that tests/run.sh
 * adds up. Exit status: 0, 1 when a case failed or none was found, 77 when all were skipped.
 *
 * A check that fails ends its case, not the program: it jumps back to the runner, so it may stand
 * in a helper function too. In another thread than the case's it is counted and ends that thread;
 * a case must therefore not make its success depend on such a thread's going on. In a child of
 * harness_child it writes to standard error and leaves with HARNESS_CHILD_FAILED.
 */
#ifndef HAK_TESTS_HARNESS_H
#define HAK_TESTS_HARNESS_H

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define HARNESS_EXIT_SKIPPED 77
/* Exit status of a child in which a check failed or a time could not be kept. */
#define HARNESS_CHILD_FAILED 86
/* Time a child has before it is killed, unless harness_child_seconds says otherwise. */
#define HARNESS_CHILD_SECONDS 60

enum harness_outcome { HARNESS_OK = 0, HARNESS_FAILED = 1, HARNESS_SKIPPED = 2 };

struct harness_case {
    const char *name;
    void (*run)(void);
    struct harness_case *next;
};

/* How a child ended: exactly one of exit_status >= 0, signal > 0, timed_out holds. */
struct harness_result {
    int exit_status;    /* -1: it did not exit */
    int signal;         /* 0: no signal ended it */
    bool timed_out;     /* killed because its time was up */
    char output[32768]; /* its standard error and output, from the start; ends with NUL */
};

struct harness_state {
    struct harness_case *first, **last;
    const char *current;   /* name of the running case */
    pthread_t case_thread; /* the thread that may jump back to the runner */
    jmp_buf back;
    int outcome; /* enum harness_outcome; atomic, set by any thread of the case */
    bool in_child;
    bool seed_known;
    uint64_t seed;
};

static struct harness_state harness_state;

/* Seconds that the next children of harness_child have; a case may change it. */
static unsigned harness_child_seconds = HARNESS_CHILD_SECONDS;

static inline void harness_register(struct harness_case *added)
{
    if (harness_state.last == NULL) {
        harness_state.last = &harness_state.first;
    }
    *harness_state.last = added;
    harness_state.last = &added->next;
}

#define TEST(name)                                                                                 \
    static void test_##name(void);                                                                 \
    static struct harness_case harness_case_##name = {#name, test_##name, NULL};                   \
    __attribute__((constructor)) static void harness_register_##name(void)                         \
    {                                                                                              \
        harness_register(&harness_case_##name);                                                    \
    }                                                                                              \
    static void test_##name(void)

/* ---- ending a case ------------------------------------------------------------------------ */

/* Leaves the case, the thread or the child, whichever the caller is in. */
__attribute__((noreturn)) static inline void harness_leave(enum harness_outcome outcome)
{
    if (harness_state.in_child) {
        _exit(outcome == HARNESS_SKIPPED ? HARNESS_EXIT_SKIPPED : HARNESS_CHILD_FAILED);
    }
    if (pthread_equal(pthread_self(), harness_state.case_thread)) {
        longjmp(harness_state.back, 1);
    }
    pthread_exit(NULL);
}

__attribute__((noreturn, format(printf, 2, 3))) static inline void
harness_end(enum harness_outcome outcome, const char *format, ...)
{
    char text[4096];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);

    if (harness_state.in_child) {
        (void)fprintf(stderr, "%s: %s\n", outcome == HARNESS_SKIPPED ? "skip" : "FAIL", text);
        harness_leave(outcome);
    }
    /* Relaxed: only the value counts; the runner reads it after the case's threads were joined. */
    int before = __atomic_exchange_n(&harness_state.outcome, (int)outcome, __ATOMIC_RELAXED);
    if (before == HARNESS_FAILED) {
        /* A failure stays one, whatever another thread of the case says later. */
        __atomic_store_n(&harness_state.outcome, (int)HARNESS_FAILED, __ATOMIC_RELAXED);
        (void)printf("  also: %s\n", text);
    } else {
        (void)printf("%s %s: %s\n", outcome == HARNESS_SKIPPED ? "skip" : "FAIL",
                     harness_state.current, text);
    }
    (void)fflush(stdout);
    harness_leave(outcome);
}

#define HARNESS_TEXT_(x) #x
#define HARNESS_TEXT(x) HARNESS_TEXT_(x)
#define HARNESS_HERE __FILE__ ":" HARNESS_TEXT(__LINE__) ": "

/* Ends the case as failed; printf's arguments. */
#define FAIL(...) harness_fail_at(HARNESS_HERE, __VA_ARGS__)

/* Ends the case as skipped; printf's arguments say what the machine lacks. */
#define SKIP(...) harness_end(HARNESS_SKIPPED, __VA_ARGS__)

__attribute__((noreturn, format(printf, 2, 3))) static inline void
harness_fail_at(const char *where, const char *format, ...)
{
    char text[2048];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    harness_end(HARNESS_FAILED, "%s%s", where, text);
}

/* ---- checks ------------------------------------------------------------------------------- */

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            harness_fail_at(HARNESS_HERE, "CHECK(%s)", #condition);                                \
        }                                                                                          \
    } while (0)

/* Both sides as 64-bit integers (pointers too); fractions are cut off. */
#define HARNESS_COMPARE(name, a, op, b)                                                            \
    do {                                                                                           \
        long long harness_a = (long long)(a);                                                      \
        long long harness_b = (long long)(b);                                                      \
        if (!(harness_a op harness_b)) {                                                           \
            harness_fail_at(HARNESS_HERE, "%s(%s, %s): %lld (0x%llx) and %lld (0x%llx)", name, #a, \
                            #b, harness_a, (unsigned long long)harness_a, harness_b,               \
                            (unsigned long long)harness_b);                                        \
        }                                                                                          \
    } while (0)

#define CHECK_EQ(a, b) HARNESS_COMPARE("CHECK_EQ", a, ==, b)
#define CHECK_NE(a, b) HARNESS_COMPARE("CHECK_NE", a, !=, b)
#define CHECK_LE(a, b) HARNESS_COMPARE("CHECK_LE", a, <=, b)
#define CHECK_GE(a, b) HARNESS_COMPARE("CHECK_GE", a, >=, b)

#define CHECK_STR_HAS(haystack, needle)                                                            \
    do {                                                                                           \
        const char *harness_haystack = (haystack);                                                 \
        const char *harness_needle = (needle);                                                     \
        if (harness_haystack == NULL || strstr(harness_haystack, harness_needle) == NULL) {        \
            harness_fail_at(HARNESS_HERE, "CHECK_STR_HAS(%s, %s): \"%s\" is not in \"%s\"",        \
                            #haystack, #needle, harness_needle,                                    \
                            harness_haystack == NULL ? "(null)" : harness_haystack);               \
        }                                                                                          \
    } while (0)

/* ---- what tests share --------------------------------------------------------------------- */

/* The program's seed: SEED from the environment, else the clock. Printed when first asked for. */
static inline uint64_t harness_seed(void)
{
    if (!harness_state.seed_known) {
        const char *given = getenv("SEED");
        if (given != NULL && given[0] != '\0') {
            harness_state.seed = strtoull(given, NULL, 0);
        } else {
            struct timespec now;
            (void)clock_gettime(CLOCK_REALTIME, &now);
            harness_state.seed = (uint64_t)now.tv_sec * 1000000U + (uint64_t)now.tv_nsec / 1000U;
        }
        harness_state.seed_known = true;
        (void)printf("seed %llu (again: SEED=%llu)\n", (unsigned long long)harness_state.seed,
                     (unsigned long long)harness_state.seed);
        (void)fflush(stdout);
    }
    return harness_state.seed;
}

/* The next number of a sequence that *state carries (a Weyl sequence, mixed by two multiplies). */
static inline uint64_t harness_random(uint64_t *state)
{
    uint64_t x = *state += 0x9e3779b97f4a7c15U;
    x = (x ^ (x >> 32)) * 0xd6e8feb86659fd93U;
    x = (x ^ (x >> 32)) * 0xd6e8feb86659fd93U;
    return x ^ (x >> 32);
}

/* How long a stress case works: STRESS_SECONDS from the environment, else usual. */
static inline unsigned harness_stress_seconds(unsigned usual)
{
    const char *given = getenv("STRESS_SECONDS");
    return given != NULL && given[0] != '\0' ? (unsigned)strtoul(given, NULL, 10) : usual;
}

static inline int64_t harness_now_ms(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* ---- children ----------------------------------------------------------------------------- */

/* Adds what can be read now to the output; false at the end of the stream. What does not fit is
 * read and dropped, so that a chatty child never blocks on its pipe. */
static inline bool harness_child_read(int fd, struct harness_result *r, size_t *length)
{
    char dropped[4096];
    size_t room = sizeof r->output - 1 - *length;
    ssize_t got = read(fd, room > 0 ? r->output + *length : dropped,
                       room > 0 ? room : sizeof dropped);
    if (got > 0 && room > 0) {
        *length += (size_t)got;
    }
    return got > 0 || (got < 0 && errno == EINTR);
}

/* Collects output until the child is gone or its time is up; true if waitpid filled *status. */
static inline bool harness_child_watch(pid_t child, int fd, struct harness_result *r, int *status)
{
    const int64_t deadline = harness_now_ms() + (int64_t)harness_child_seconds * 1000;
    size_t length = 0;
    bool gone = false, open = true;
    while (!gone && harness_now_ms() < deadline) {
        struct pollfd watched = {fd, POLLIN, 0};
        if (poll(&watched, open ? 1 : 0, open ? 50 : 1) > 0) {
            open = harness_child_read(fd, r, &length);
        } else {
            /* Nothing to read: a grandchild may keep the pipe open, so ask for the child itself. */
            gone = waitpid(child, status, WNOHANG) == child;
        }
    }
    struct pollfd rest = {fd, POLLIN, 0};
    while (open && poll(&rest, 1, 0) > 0) {
        open = harness_child_read(fd, r, &length);
    }
    r->output[length] = '\0';
    return gone;
}

__attribute__((noreturn)) static inline void harness_child_body(void (*fn)(void *), void *arg,
                                                                int fd)
{
    /* An expected abort must not write a core file as large as the region. */
    const struct rlimit no_core = {0, 0};
    (void)setrlimit(RLIMIT_CORE, &no_core);
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    (void)setpgid(0, 0);
    if (dup2(fd, STDERR_FILENO) < 0 || dup2(fd, STDOUT_FILENO) < 0) {
        _exit(HARNESS_CHILD_FAILED);
    }
    (void)close(fd);
    harness_state.in_child = true;
    fn(arg);
    (void)fflush(NULL);
    _exit(0);
}

/*
 * Runs fn(arg) in a forked child, waits for it and tells in *r how it ended and what it wrote. A
 * child whose fn returns exits with 0 without atexit handlers; where those matter, fn calls
 * exit(). Fails the case only when no child can be made.
 */
static inline void harness_child(void (*fn)(void *), void *arg, struct harness_result *r)
{
    int ends[2];
    memset(r, 0, sizeof *r);
    r->exit_status = -1;
    (void)fflush(NULL);
    if (pipe(ends) != 0) {
        FAIL("pipe: %s", strerror(errno));
    }
    pid_t child = fork();
    if (child < 0) {
        FAIL("fork: %s", strerror(errno));
    }
    if (child == 0) {
        (void)close(ends[0]);
        harness_child_body(fn, arg, ends[1]);
    }
    (void)close(ends[1]);

    int status = 0;
    if (!harness_child_watch(child, ends[0], r, &status)) {
        r->timed_out = true;
        if (kill(-child, SIGKILL) != 0) {
            (void)kill(child, SIGKILL); /* it did not come as far as setpgid */
        }
        while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
        }
    } else if (WIFEXITED(status)) {
        r->exit_status = WEXITSTATUS(status);
    } else {
        r->signal = WTERMSIG(status);
    }
    (void)close(ends[0]);
}

/* ---- the runner --------------------------------------------------------------------------- */

static inline bool harness_wanted(const char *name, int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        if (strstr(name, argv[i]) != NULL) {
            return true;
        }
    }
    return argc < 2;
}

static inline enum harness_outcome harness_run_case(const struct harness_case *one)
{
    harness_state.current = one->name;
    harness_state.case_thread = pthread_self();
    __atomic_store_n(&harness_state.outcome, (int)HARNESS_OK, __ATOMIC_RELAXED);
    if (setjmp(harness_state.back) == 0) {
        one->run();
    }
    int outcome = __atomic_load_n(&harness_state.outcome, __ATOMIC_RELAXED);
    if (outcome == HARNESS_OK) {
        (void)printf("ok %s\n", harness_state.current);
        (void)fflush(stdout);
    }
    return (enum harness_outcome)outcome;
}

static inline int harness_main(int argc, char **argv)
{
    unsigned counts[3] = {0, 0, 0};
    for (struct harness_case *one = harness_state.first; one != NULL; one = one->next) {
        if (harness_wanted(one->name, argc, argv)) {
            counts[harness_run_case(one)]++;
        }
    }
    (void)printf("%u passed, %u failed, %u skipped\n", counts[HARNESS_OK], counts[HARNESS_FAILED],
                 counts[HARNESS_SKIPPED]);
    (void)fflush(stdout);
    if (counts[HARNESS_FAILED] > 0 || counts[HARNESS_OK] + counts[HARNESS_SKIPPED] == 0) {
        return 1;
    }
    return counts[HARNESS_OK] > 0 ? 0 : HARNESS_EXIT_SKIPPED;
}

#define HARNESS_MAIN()                                                                             \
    int main(int argc, char **argv)                                                                \
    {                                                                                              \
        return harness_main(argc, argv);                                                           \
    }

#endif
