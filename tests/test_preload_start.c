/* SPDX-License-Identifier: MIT */
/*
 * A preloaded program from its first instruction to its last: allocations while the dynamic loader
 * works, before the library's own constructor and after its destructor, in atexit handlers and in
 * the destructors of threads. And that a small program stays small, and ordinary ones say what they
 * always say.
 */
#include "tests/preload_kit.h"

#include <sys/ptrace.h>

/* NOLINTBEGIN(clang-analyzer-unix.*,clang-analyzer-optin.*): objects pass through kit_keep,
 * where the analyser loses them, and size 0 is one of the sizes. */

/* ---- before main ----------------------------------------------------------------------------- */

TEST(a_needed_library_allocates_64_mib_before_the_preloaded_one_starts)
{
    static struct harness_result result;
    kit_compile("early_library.c", "libearly.so", "-shared");
    const char *program = kit_compile("early_program.c", "early_program",
                                      "-L$D -learly -Wl,-rpath,'$ORIGIN'");
    const char *const argv[] = {program, NULL};
    kit_run_program(argv, NULL, NULL, &result);
    kit_expect_ok(&result, "under the C library alone");
    kit_run_program(argv, kit_library(), NULL, &result);
    kit_expect_ok(&result, "on the region");
    CHECK_STR_HAS(result.output, "early library: left");
}

/* The same where addresses are bound when first called, and when started. */
TEST(early_allocations_work_with_lazy_and_with_immediate_binding)
{
    static const char *const options[] = {"-L$D -learly -Wl,-rpath,'$ORIGIN' -Wl,-z,lazy -no-pie",
                                          "-L$D -learly -Wl,-rpath,'$ORIGIN' -Wl,-z,now -fno-plt"};
    static const char *const names[] = {"early_lazy", "early_now"};
    kit_compile("early_library.c", "libearly.so", "-shared");
    for (int i = 0; i < 2; i++) {
        kit_contract_program(kit_compile("early_program.c", names[i], options[i]), NULL);
    }
}

static char *of_preinit, *of_constructor;

static void preinit(void)
{
    of_preinit = (char *)malloc(5000);
}

__attribute__((section(".preinit_array"), used)) static void (*const preinit_entry)(void) = preinit;

__attribute__((constructor(101))) static void construct(void)
{
    of_constructor = (char *)malloc(5000);
}

/* What main has is what the earliest allocator gave, usable like any other. */
CONTRACT(objects_of_before_main_have_a_usable_size)
{
    CHECK_GE(malloc_usable_size(of_preinit), 5000);
    CHECK_GE(malloc_usable_size(of_constructor), 5000);
    memset(of_preinit, 1, malloc_usable_size(of_preinit));
    memset(of_constructor, 2, malloc_usable_size(of_constructor));
    CHECK_EQ(of_preinit[4999], 1);
    free(of_preinit);
    free(of_constructor);
}

/* ---- the end --------------------------------------------------------------------------------- */

static void *kept_for_exit[100];
static unsigned exits;

static void at_exit(void)
{
    for (int i = 0; i < 100; i++) {
        if (!kit_holds(kept_for_exit[i], (size_t)i * 500, (uint64_t)i)) {
            _exit(HARNESS_CHILD_FAILED);
        }
        free(kept_for_exit[i]);
        kept_for_exit[i] = malloc((size_t)i * 700);
        if (kept_for_exit[i] == NULL) {
            _exit(HARNESS_CHILD_FAILED);
        }
        kit_fill(kept_for_exit[i], (size_t)i * 500, (uint64_t)i);
    }
    if (++exits == 40) {
        (void)!write(STDOUT_FILENO, "all 40 ran\n", 11);
    }
}

INSIDE(exit_handlers)
{
    for (int i = 0; i < 100; i++) {
        kept_for_exit[i] = kit_keep(malloc((size_t)i * 500));
        kit_fill(kept_for_exit[i], (size_t)i * 500, (uint64_t)i);
    }
    /* More than the C library has room for without allocating. */
    for (int i = 0; i < 40; i++) {
        CHECK_EQ(atexit(at_exit), 0);
    }
}

TEST(atexit_handlers_free_and_allocate)
{
    static struct harness_result result;
    for (int under = 0; under < 2; under++) {
        kit_inside("exit_handlers", under ? KIT_HAKMEM : KIT_LIBC, NULL, &result);
        kit_expect_ok(&result, "exit handlers");
        CHECK_STR_HAS(result.output, "all 40 ran");
    }
}

static void *work_for_ever(void *unused)
{
    (void)unused;
    for (uint64_t seed = 1;; seed++) {
        kit_work(seed, 1000);
    }
    return NULL;
}

static void exit_among_threads(unsigned microseconds)
{
    pthread_t thread;
    inside_exit_handlers();
    for (int i = 0; i < 3; i++) {
        CHECK_EQ(pthread_create(&thread, NULL, work_for_ever, NULL), 0);
    }
    usleep(microseconds);
    exit(0);
}

/* exit() with other threads in the middle of malloc; its handlers allocate on. */
CONTRACT(main_returns_while_threads_allocate)
{
    for (unsigned round = 0; round < 20; round++) {
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            exit_among_threads(round * 300);
        }
        int status = 0;
        CHECK_EQ(waitpid(child, &status, 0), child);
        CHECK_EQ(status, 0);
    }
}

static void *work_a_while(void *unused)
{
    (void)unused;
    usleep(20000);
    kit_work(3, 20000);
    return NULL;
}

/* The process ends with its last thread, status 0. */
CONTRACT(main_ends_by_pthread_exit_before_the_others)
{
    pthread_t thread;
    for (int i = 0; i < 4; i++) {
        CHECK_EQ(pthread_create(&thread, NULL, work_a_while, NULL), 0);
        CHECK_EQ(pthread_detach(thread), 0);
    }
    pthread_exit(NULL);
}

/* ---- ordinary programs ----------------------------------------------------------------------- */

/* Same output, same status, nothing of ours on standard error. */
TEST(ordinary_programs_say_what_they_always_say)
{
    static const char *const commands[] = {
        "true",
        "ls -l /usr/bin /etc",
        "sort /usr/include/stdio.h | uniq -c | sort -n | tail -n 50",
        "find /usr/include -name 'std*' | xargs cat | cksum",
        "for i in 1 2 3 4 5; do x=$(echo $i | sed s/./&&/); echo $x; done",
        "grep -rc size_t /usr/include/x86_64-linux-gnu/bits /usr/include/aarch64-linux-gnu/bits",
        "awk 'BEGIN { for (i = 0; i < 50000; i++) a[i % 999] = a[i % 999] i; print length(a[7]) }'",
        "gzip -c /usr/include/unistd.h | gzip -dc | cksum",
        "cat /nowhere; exit 3"};
    static struct harness_result usual, ours;
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        const char *const argv[] = {"/bin/sh", "-c", commands[i], NULL};
        kit_run_program(argv, NULL, NULL, &usual);
        kit_run_program(argv, kit_library(), NULL, &ours);
        CHECK(!usual.timed_out);
        if (ours.exit_status != usual.exit_status || strcmp(ours.output, usual.output) != 0) {
            FAIL("%s\nexit status %d, signal %d, not %d:\n%s", commands[i], ours.exit_status,
                 ours.signal, usual.exit_status, ours.output);
        }
    }
}

/* ---- small programs -------------------------------------------------------------------------- */

/*
 * KiB that a program had in memory at most, without what the process was before it became that
 * program: the kernel stops it at its end (PTRACE_O_TRACEEXIT, ptrace(2)), when its status file is
 * still there. rusage would count the forked test.
 */
static long peak_kib(const char *const *argv, const char *preload)
{
    char path[64], text[4096];
    int status = 0;
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        int nowhere = open("/dev/null", O_WRONLY);
        struct kit_run run = {argv, preload, NULL};
        dup2(nowhere, STDOUT_FILENO);
        ptrace(PTRACE_TRACEME, 0, NULL, NULL);
        kit_exec(&run);
    }
    /* Stopped by exec, by signals of its own, which it gets, and at its exit. */
    CHECK(waitpid(child, &status, 0) == child && WIFSTOPPED(status));
    CHECK_EQ(ptrace(PTRACE_SETOPTIONS, child, NULL, PTRACE_O_TRACEEXIT | PTRACE_O_EXITKILL), 0);
    for (long number = 0; status >> 8 != (SIGTRAP | PTRACE_EVENT_EXIT << 8);) {
        CHECK_EQ(ptrace(PTRACE_CONT, child, NULL, number), 0);
        CHECK(waitpid(child, &status, 0) == child && WIFSTOPPED(status));
        number = WSTOPSIG(status);
    }
    snprintf(path, sizeof path, "/proc/%d/status", child);
    int fd = open(path, O_RDONLY);
    ssize_t length = read(fd, text, sizeof text - 1);
    close(fd);
    CHECK(length > 0);
    text[length] = '\0';
    const char *line = strstr(text, "VmHWM:");
    CHECK(line != NULL);
    CHECK_EQ(ptrace(PTRACE_CONT, child, NULL, NULL), 0);
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    return strtol(line + strlen("VmHWM:"), NULL, 10);
}

/* The least of three: what else the machine does can only add. */
static long least_peak_kib(const char *const *argv, const char *preload)
{
    long least = LONG_MAX;
    for (int i = 0; i < 3; i++) {
        long peak = peak_kib(argv, preload);
        least = peak < least ? peak : least;
    }
    return least;
}

TEST(a_small_program_needs_at_most_2_mib_more)
{
    static const char *const programs[][4] = {{"/bin/ls", "/usr/bin", NULL},
                                              {"/bin/ls", "-l", "/etc", NULL},
                                              {"/bin/true", NULL},
                                              {"/bin/cat", "/etc/passwd", NULL},
                                              {"/bin/sh", "-c", "x=$(echo word)", NULL}};
    for (size_t i = 0; i < sizeof programs / sizeof *programs; i++) {
        long usual = least_peak_kib(programs[i], NULL);
        long ours = least_peak_kib(programs[i], kit_library());
        printf("%s: %ld KiB on the region, %ld under the C library\n", programs[i][0], ours, usual);
        if (ours > usual + 2048) {
            FAIL("%s: %ld KiB, under the C library %ld", programs[i][0], ours, usual);
        }
    }
}

/* NOLINTEND(clang-analyzer-unix.*,clang-analyzer-optin.*): as above. */

KIT_MAIN()
