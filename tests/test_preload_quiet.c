/* SPDX-License-Identifier: MIT */
/*
 * A preloaded program on huge pages that were faulted in at the start makes no memory system call
 * of the allocator's: strace sees every call of all its threads, and between the program's two
 * marks there must be none of those that a malloc makes. Huge pages are reserved for the test and
 * given back.
 *
 * Unlike the other tests of the preload library this one has parts of ours linked in (for the huge
 * page pools); what runs on the region are programs of tests/preload and of the machine.
 */
#include "tests/memory_kit.h"
#undef MIB
#include "tests/preload_kit.h"

#define REGION_MIB 128

static const char *const settings[] = {"HAKMEM_PREFAULT=1", "HAKMEM_PAGES=2M",
                                       "HAKMEM_REGION_SIZE=128M", NULL};
static const char *const calls[] = {"brk(",      "mmap(",   "munmap(",         "madvise(",
                                    "mprotect(", "mremap(", "process_madvise("};

static bool have(const char *command)
{
    static struct harness_result result;
    const char *const argv[] = {"/bin/sh", "-c", command, NULL};
    kit_run_program(argv, NULL, NULL, &result);
    return result.exit_status == 0;
}

/* Installs it where it may. */
static void want_strace(void)
{
    if (have("command -v strace")) {
        return;
    }
    harness_child_seconds = 50;
    bool installed = geteuid() == 0 && have("command -v apt-get") &&
                     have("DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=30 "
                          "install -y --no-install-recommends strace </dev/null");
    harness_child_seconds = HARNESS_CHILD_SECONDS;
    if (!installed) {
        SKIP("no strace here, and it cannot be installed");
    }
}

static void want_trace(void)
{
    (void)maps_before, (void)maps_after; /* for tests that compare what is mapped */
    want_strace();
    if (!have("strace -o /dev/null true")) {
        SKIP("strace may not trace here");
    }
    want_free(HAK_PAGES_2M, REGION_MIB / 2);
}

/* Lines of the trace between the marks with one of the calls; the first of them in *first. */
static unsigned memory_calls(const char *trace, char *first, size_t bytes)
{
    static char line[4096];
    unsigned found = 0, marks = 0;
    FILE *file = fopen(trace, "r");
    CHECK(file != NULL);
    while (fgets(line, sizeof line, file) != NULL) {
        marks += marks == 0 && strstr(line, "/hakmem-quiet-begin") != NULL;
        marks += marks == 1 && strstr(line, "/hakmem-quiet-end") != NULL;
        for (size_t i = 0; marks == 1 && i < sizeof calls / sizeof *calls; i++) {
            /* "12345 mmap(NULL, ...": behind the process's number. */
            const char *name = strchr(line, ' ');
            name = name == NULL ? line : name + strspn(name, " ");
            if (strncmp(name, calls[i], strlen(calls[i])) == 0 && found++ == 0) {
                snprintf(first, bytes, "%.*s", (int)strcspn(line, "\n"), line);
            }
        }
    }
    fclose(file);
    CHECK_EQ(marks, 2);
    return found;
}

static unsigned trace_work(const char *argument, const char *preload,
                           const char *const *work_settings, char *first, size_t bytes)
{
    static struct harness_result result;
    static char trace[256], program[256], preload_setting[PATH_MAX + 32];
    snprintf(program, sizeof program, "%s", kit_compile("quiet_work.c", "quiet_work", ""));
    snprintf(trace, sizeof trace, "%s/trace", kit_folder());
    snprintf(preload_setting, sizeof preload_setting, "LD_PRELOAD=%s", preload);
    /* Only the program is to be under the library, not strace. */
    const char *const argv[] = {"strace",        "-f",    "-qq",    "-o", trace, "-E",
                                preload_setting, program, argument, NULL};
    kit_run_program(argv, NULL, work_settings, &result);
    kit_expect_ok(&result, "strace");
    return memory_calls(trace, first, bytes);
}

static void expect_quiet(const char *argument)
{
    char first[300] = "";
    want_trace();
    unsigned found = trace_work(argument, kit_library(), settings, first, sizeof first);
    if (found != 0) {
        FAIL("%u memory calls, the first: %s", found, first);
    }
}

TEST(no_memory_system_call_after_the_region_is_set_up)
{
    expect_quiet(NULL);
}

/* There is nothing that a region which was faulted in gives back, and libc was never used. */
TEST(malloc_trim_makes_no_memory_system_call)
{
    expect_quiet("trim");
}

/* The trace can tell: calls of the program itself are seen, and the C library's malloc is not
 * quiet. */
TEST(the_trace_sees_what_is_there)
{
    char first[300] = "";
    want_trace();
    CHECK_EQ(trace_work("map", kit_library(), settings, first, sizeof first), 2);
    CHECK_STR_HAS(first, "mmap(");
    CHECK_GE(trace_work(NULL, "", NULL, first, sizeof first), 3);
}

/* A child cannot have the region (see hakmem.h), but it can become another program. */
TEST(programs_on_huge_pages_start_others)
{
    static struct harness_result result;
    static const char *const shell[] = {
        "/bin/sh", "-c", "for i in 1 2 3; do x=$(ls / | sort | wc -l); done; test \"$x\" -gt 3",
        NULL};
    static const char *const python[] = {
        "python3", "-c",
        "import subprocess, os\n"
        "for i in range(5):\n"
        "    assert subprocess.run(['/bin/echo', 'x'], capture_output=True).stdout == b'x\\n'\n"
        "assert os.system('exit 3') == 3 << 8\n",
        NULL};
    /* Three regions at most at a time: the shell, and two that its children become. */
    want_free(HAK_PAGES_2M, 5 * REGION_MIB / 2);
    kit_run_program(shell, kit_library(), settings, &result);
    kit_expect_ok(&result, "sh");
    if (have("command -v python3")) {
        kit_run_program(python, kit_library(), settings, &result);
        kit_expect_ok(&result, "python3");
    }
}

KIT_MAIN()
