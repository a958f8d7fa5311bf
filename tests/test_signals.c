/* SPDX-License-Identifier: MIT */
/*
 * Handlers of signals that allocate. A handler may call the library where it cannot have
 * interrupted a call of the same thread: the thread waits in sigsuspend(2), is in code of its own,
 * or has crashed there. Whatever other threads are in does not matter. A set-up call in a handler
 * that has interrupted one is refused, and does not wait for itself.
 */
#define _GNU_SOURCE
#include "tests/heap_kit.h"
#include "tests/left_kit.h"

#include <sys/time.h>

#define KEPT 32

static struct harness_result result;

/* ---- a handler that allocates ---------------------------------------------------------------- */

struct kept {
    unsigned char *bytes[KEPT];
    size_t size[KEPT];
    unsigned char mark[KEPT];
    uint64_t random;
};

static __thread struct kept of_handler;
static __thread unsigned handled;

static void check_kept(const struct kept *kept, unsigned n)
{
    for (size_t at = 0; kept->bytes[n] != NULL && at < kept->size[n]; at++)
        if (kept->bytes[n][at] != kept->mark[n])
            FAIL("byte %zu of %zu is %#x, not %#x", at, kept->size[n], kept->bytes[n][at],
                 kept->mark[n]);
}

/* Frees one of what was kept, takes another. */
static void replace_one(struct kept *kept)
{
    uint64_t draw = harness_random(&kept->random);
    unsigned n = (unsigned)(draw % KEPT);
    check_kept(kept, n);
    hak_free(kept->bytes[n]);
    kept->size[n] = draw / KEPT % (draw % 7 == 0 ? 300000 : 3000);
    kept->mark[n] = (unsigned char)(draw >> 40);
    kept->bytes[n] = hak_malloc(kept->size[n]);
    CHECK(kept->bytes[n] != NULL);
    memset(kept->bytes[n], kept->mark[n], kept->size[n]);
}

static void drop_kept(struct kept *kept)
{
    for (unsigned n = 0; n < KEPT; n++) {
        check_kept(kept, n);
        hak_free(kept->bytes[n]);
        kept->bytes[n] = NULL;
    }
}

static void handle(int number)
{
    (void)number;
    for (unsigned n = 0; n < 20; n++)
        replace_one(&of_handler);
    handled++;
}

static void on_signal(int number, void (*handler)(int), int flags)
{
    struct sigaction action = {.sa_handler = handler, .sa_flags = flags};
    sigemptyset(&action.sa_mask);
    CHECK_EQ(sigaction(number, &action, NULL), 0);
}

/* ---- threads that are interrupted ------------------------------------------------------------ */

static _Atomic unsigned ready;
static atomic_bool stop;

static void take_no_more(void)
{
    sigset_t all;
    sigfillset(&all);
    CHECK_EQ(pthread_sigmask(SIG_BLOCK, &all, NULL), 0);
}

/* Takes signals only while it waits for them; in between it allocates as well. */
static void *wait_for_signals(void *unused)
{
    struct kept own = {.random = 3};
    sigset_t blocked, open;
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGUSR1);
    CHECK_EQ(pthread_sigmask(SIG_BLOCK, &blocked, &open), 0);
    atomic_fetch_add(&ready, 1);
    while (handled < 1000) {
        for (unsigned n = 0; n < 10; n++)
            replace_one(&own);
        (void)sigsuspend(&open);
    }
    drop_kept(&own);
    drop_kept(&of_handler);
    return unused;
}

/* In code of its own all the time; on a stack of its own for handlers. */
static void *compute(void *unused)
{
    static __thread unsigned char stack[64 * KIB];
    const stack_t other = {.ss_sp = stack, .ss_size = sizeof stack};
    volatile uint64_t sum = 0;
    CHECK_EQ(sigaltstack(&other, NULL), 0);
    atomic_fetch_add(&ready, 1);
    while (*(volatile unsigned *)&handled < 1000)
        sum = sum * 3 + 1;
    take_no_more();
    drop_kept(&of_handler);
    return unused;
}

/* Never interrupted, and always inside the library. */
static void *allocate(void *unused)
{
    struct kept own = {.random = 5};
    take_no_more();
    while (!atomic_load(&stop))
        replace_one(&own);
    drop_kept(&own);
    return unused;
}

static void interrupt(void *(*run)(void *), int flags)
{
    pthread_t others[2], interrupted;
    kit_open(64 * MIB);
    on_signal(SIGUSR1, handle, flags);
    atomic_store(&stop, false);
    atomic_store(&ready, 0);
    for (unsigned n = 0; n < 2; n++)
        others[n] = kit_thread(allocate, NULL);
    interrupted = kit_thread(run, NULL);
    while (atomic_load(&ready) == 0)
        usleep(100);
    while (pthread_kill(interrupted, SIGUSR1) == 0 &&
           pthread_tryjoin_np(interrupted, NULL) == EBUSY)
        usleep(50);
    atomic_store(&stop, true);
    for (unsigned n = 0; n < 2; n++)
        kit_join(others[n]);
    signal(SIGUSR1, SIG_DFL);
    kit_close();
}

TEST(a_handler_allocates_while_its_thread_waits)
{
    interrupt(wait_for_signals, 0);
}

TEST(a_handler_allocates_on_a_stack_of_its_own)
{
    interrupt(compute, SA_ONSTACK);
}

/* ---- after a crash --------------------------------------------------------------------------- */

static void report_crash(int number)
{
    char *text = hak_malloc(200), *larger;
    CHECK(text != NULL);
    int length = snprintf(text, 200, "caught signal %d; ", number);
    larger = hak_realloc(text, 100000);
    CHECK(larger != NULL);
    memset(larger + length, 'x', 50);
    memcpy(larger + length + 50, "\n", 1);
    CHECK(write(STDERR_FILENO, larger, (size_t)length + 51) > 0);
    hak_free(larger);
    CHECK(heap_check(hak_region_default()));
    _exit(7);
}

static void crash(void *unused)
{
    struct kept own = {.random = 9};
    volatile uintptr_t nowhere = 8;
    (void)unused;
    kit_open(8 * MIB);
    on_signal(SIGSEGV, report_crash, 0);
    for (unsigned n = 0; n < 500; n++)
        replace_one(&own);
    *(volatile int *)nowhere = 1;
}

TEST(a_handler_allocates_to_report_a_crash)
{
    harness_child(crash, NULL, &result);
    CHECK_EQ(result.exit_status, 7);
    CHECK_STR_HAS(result.output, "caught signal 11; xxxx");
}

/* ---- in the middle of set-up --------------------------------------------------------------------
 *
 * A timer interrupts one set-up call after the other. Whatever the handler meets there, a set-up
 * call of its own is done or refused. */

static _Atomic unsigned refused, done;

static void set_up(int number)
{
    struct hak_config config = kit_config(2 * MIB);
    struct hak_error error;
    hak_region *region;
    int code = hak_region_create(&config, &region);
    (void)number;
    if (code == 0) {
        CHECK_EQ(hak_region_destroy(region), 0);
        done++;
        return;
    }
    CHECK_EQ(code, -EDEADLK);
    CHECK(region == NULL);
    CHECK_EQ(hak_last_error(&error), -EDEADLK);
    CHECK_STR_HAS(error.message, "signal");
    CHECK_EQ(hak_region_fini(), -EDEADLK);
    CHECK_EQ(hak_region_init(&config), -EDEADLK);
    CHECK_EQ(hak_region_destroy((hak_region *)(uintptr_t)64), -EDEADLK);
    CHECK_EQ(hak_region_adopt(&config, 100 * MIB, -1, NULL, &region, NULL), -EDEADLK);
    refused++;
}

static void set_timer(uint64_t microseconds)
{
    const struct itimerval soon = {.it_value = {.tv_usec = (suseconds_t)microseconds}};
    CHECK_EQ(setitimer(ITIMER_REAL, &soon, NULL), 0);
}

static void be_interrupted_in_set_up(void *unused)
{
    struct hak_config config = kit_config(20 * MIB);
    uint64_t random = harness_seed();
    (void)unused;
    config.prefault = HAK_ON;
    kit_forget_last();
    on_signal(SIGALRM, set_up, 0);
    for (unsigned round = 0; round < 100; round++) {
        unsigned before = refused + done;
        set_timer(harness_random(&random) % 3000 + 1);
        int code = hak_region_init(&config);
        while (refused + done == before)
            usleep(100);
        CHECK_EQ(code, 0);
        kit_close();
    }
    fprintf(stderr, "%u refused, %u done\n", refused, done);
    CHECK_GE(refused, 10);
}

TEST(set_up_in_a_handler_that_interrupted_set_up_is_refused)
{
    harness_child_seconds = 20;
    run_apart(&result, be_interrupted_in_set_up, NULL);
    printf("%s", result.output);
}

/* Not to return into the set-up, whose threads are not there, but for a program of its own, say. */
static void fork_and_leave(int number)
{
    int status = 0;
    pid_t child = fork();
    (void)number;
    CHECK(child >= 0);
    if (child == 0)
        _exit(hak_malloc(100) == NULL ? 0 : 1);
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK_EQ(status, 0);
    done++;
}

static void fork_in_set_up(void *unused)
{
    struct hak_config config = kit_config(20 * MIB);
    uint64_t random = harness_seed();
    (void)unused;
    config.prefault = HAK_ON;
    kit_forget_last();
    on_signal(SIGALRM, fork_and_leave, 0);
    for (unsigned round = 0; round < 30; round++) {
        set_timer(harness_random(&random) % 3000 + 1);
        CHECK_EQ(hak_region_init(&config), 0);
        while (done == round)
            usleep(100);
        kit_close();
    }
}

TEST(a_handler_that_interrupted_set_up_may_fork)
{
    run_apart(&result, fork_in_set_up, NULL);
}

/* Short set-up calls, so that the handler also meets the moments at which the lock is taken and
 * given back. */
static void fork_around_the_lock(void *unused)
{
    const struct itimerval often = {{.tv_usec = 200}, {.tv_usec = 200}};
    const struct itimerval never = {{0}, {0}};
    (void)unused;
    kit_forget_last();
    on_signal(SIGALRM, fork_and_leave, SA_RESTART);
    CHECK_EQ(setitimer(ITIMER_REAL, &often, NULL), 0);
    while (done < 2000)
        CHECK_EQ(hak_region_destroy((hak_region *)(uintptr_t)64), -EINVAL);
    CHECK_EQ(setitimer(ITIMER_REAL, &never, NULL), 0);
}

TEST(a_handler_that_forks_meets_a_lock_that_is_taken_or_is_not)
{
    harness_child_seconds = 30;
    run_apart(&result, fork_around_the_lock, NULL);
}

HARNESS_MAIN()
