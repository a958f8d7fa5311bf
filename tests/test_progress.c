/* SPDX-License-Identifier: MIT */
/*
 * What people read while a region is faulted in: the text, with a clock and byte counts of our own;
 * and that fault-in tells it, from the thread that waits.
 */
#define _GNU_SOURCE
#include "region/progress.h"

#include "region/faultin.h"
#include "tests/memory_kit.h"

#include <hakmem.h>
#include <pty.h>

#define SECOND UINT64_C(1000000000)

static char heard[1 << 16];

/* Where the texts go: a pipe, or a terminal; both ends are ours. */
static int reader, writer;

static void listen_to_pipe(void)
{
    int ends[2];
    CHECK_EQ(pipe2(ends, O_NONBLOCK), 0);
    reader = ends[0];
    writer = ends[1];
}

static void listen_to_terminal(void)
{
    struct termios plain;
    if (openpty(&reader, &writer, NULL, NULL, NULL) != 0)
        SKIP("no pseudo terminal can be opened here");
    /* As written, without the carriage returns that a terminal adds. */
    CHECK_EQ(tcgetattr(writer, &plain), 0);
    cfmakeraw(&plain);
    CHECK_EQ(tcsetattr(writer, TCSANOW, &plain), 0);
    CHECK_EQ(fcntl(reader, F_SETFL, O_NONBLOCK), 0);
}

/* What came since the last time. */
static const char *heard_now(void)
{
    size_t length = 0;
    ssize_t got;
    while ((got = read(reader, heard + length, sizeof heard - 1 - length)) > 0)
        length += (size_t)got;
    heard[length] = '\0';
    return heard;
}

static void stop_listening(void)
{
    close(reader);
    close(writer);
}

#define CHECK_HEARD(expected)                                                                      \
    do {                                                                                           \
        const char *heard_text = heard_now();                                                      \
        if (strcmp(heard_text, expected) != 0)                                                     \
            FAIL("heard \"%s\", not \"%s\"", heard_text, expected);                                \
    } while (0)

TEST(a_pipe_that_nobody_reads_ends_nothing)
{
    struct progress progress;
    listen_to_pipe();
    close(reader);
    progress_begin(&progress, writer, 4 * (uint64_t)GIB, HAK_PAGES_4K, 1, 0);
    progress_step(&progress, 2 * (uint64_t)GIB, SECOND);
    progress_end(&progress, 4 * (uint64_t)GIB, 2 * SECOND);
    /* The signal is not left for later either. */
    sigset_t pending;
    CHECK_EQ(sigpending(&pending), 0);
    CHECK(!sigismember(&pending, SIGPIPE));
    close(writer);
}

/* ---- not a terminal ------------------------------------------------------------------------- */

TEST(elsewhere_a_line_for_each_tenth)
{
    struct progress progress;
    listen_to_pipe();
    progress_begin(&progress, writer, 8 * GIB, HAK_PAGES_2M, 2, 5 * SECOND);
    CHECK(!progress.terminal);
    progress_step(&progress, 0, 5 * SECOND);
    progress_step(&progress, 800 * MIB, 6 * SECOND); /* 9.8 %: not yet */
    CHECK_HEARD("");
    progress_step(&progress, 820 * MIB, 5 * SECOND + SECOND / 10);
    CHECK_HEARD("hakmem:  10 %  820 MiB of 8.0 GiB  8.0 GiB/s\n");
    progress_step(&progress, 900 * MIB, 6 * SECOND); /* once each */
    CHECK_HEARD("");
    progress_step(&progress, 4 * GIB + 512 * MIB, 7 * SECOND); /* some were passed meanwhile */
    CHECK_HEARD("hakmem:  50 %  4.5 GiB of 8.0 GiB  2.3 GiB/s\n");
    progress_step(&progress, 8 * GIB, 9 * SECOND); /* the end is said once */
    CHECK_HEARD("");
    progress_end(&progress, 8 * GIB, 9 * SECOND);
    CHECK_HEARD("hakmem: faulted in 8.0 GiB of 2M pages on 2 nodes in 4.00 s: 2.0 GiB/s\n");
    stop_listening();
}

TEST(up_to_2_gib_only_the_last_line)
{
    struct progress progress;
    listen_to_pipe();
    progress_begin(&progress, writer, 2 * GIB, HAK_PAGES_THP, 1, 0);
    for (uint64_t done = 0; done < 2 * GIB; done += 64 * MIB)
        progress_step(&progress, done, done);
    progress_end(&progress, 2 * GIB, SECOND / 4);
    CHECK_HEARD("hakmem: faulted in 2.0 GiB of thp pages on 1 node in 0.25 s: 8.0 GiB/s\n");
    progress_begin(&progress, writer, 2 * MIB, HAK_PAGES_4K, 1, 7);
    progress_end(&progress, 2 * MIB, 7); /* in no time: no division by it */
    CHECK_STR_HAS(heard_now(), "hakmem: faulted in 2 MiB of 4k pages on 1 node in 0.00 s: ");
    /* One byte more than 2 GiB has steps. */
    progress_begin(&progress, writer, 2 * GIB + 1, HAK_PAGES_4K, 1, 0);
    progress_step(&progress, GIB + 1, SECOND);
    CHECK_STR_HAS(heard_now(), "hakmem:  50 %  1.0 GiB of 2.0 GiB  1.0 GiB/s\n");
    stop_listening();
}

TEST(a_failure_says_how_far_it_came)
{
    struct progress progress;
    listen_to_pipe();
    progress_begin(&progress, writer, 3 * GIB, HAK_PAGES_1G, 3, 0);
    progress_end(&progress, 2 * GIB, SECOND / 2);
    CHECK_HEARD("hakmem: fault-in stopped after 2.0 GiB of 3.0 GiB of 1G pages on 3 nodes in "
                "0.50 s: 4.0 GiB/s\n");
    stop_listening();
}

TEST(the_largest_region_at_any_speed_is_right)
{
    struct progress progress;
    listen_to_pipe();
    progress_begin(&progress, writer, HAK_REGION_BYTES_MAX, HAK_PAGES_1G, 64, 0);
    progress_step(&progress, HAK_REGION_BYTES_MAX / 2, 128 * SECOND);
    CHECK_HEARD("hakmem:  50 %  1024.0 GiB of 2048.0 GiB  8.0 GiB/s\n");
    progress_end(&progress, HAK_REGION_BYTES_MAX, 20480 * SECOND);
    CHECK_HEARD("hakmem: faulted in 2048.0 GiB of 1G pages on 64 nodes in 20480.00 s: 0.1 GiB/s\n");
    progress_begin(&progress, writer, HAK_REGION_BYTES_MAX, HAK_PAGES_1G, 64, 0);
    progress_end(&progress, HAK_REGION_BYTES_MAX, 2 * SECOND);
    CHECK_STR_HAS(heard_now(), "1024.0 GiB/s\n");
    stop_listening();
}

/* ---- a terminal ------------------------------------------------------------------------------ */

TEST(on_a_terminal_a_bar_is_rewritten_in_place)
{
    struct progress progress;
    listen_to_terminal();
    progress_begin(&progress, writer, 8 * GIB, HAK_PAGES_2M, 1, 0);
    CHECK(progress.terminal);
    progress_step(&progress, GIB, SECOND / 20); /* too soon for the eye */
    CHECK_HEARD("");
    progress_step(&progress, 2 * GIB, SECOND / 8);
    CHECK_HEARD("\rhakmem: [#####...............]  25 %  2.0 GiB of 8.0 GiB  16.0 GiB/s");
    /* The speed needs a character less: the old one is wiped out. */
    progress_step(&progress, 4 * GIB, SECOND);
    CHECK_HEARD("\rhakmem: [##########..........]  50 %  4.0 GiB of 8.0 GiB  4.0 GiB/s ");
    progress_step(&progress, 8 * GIB, 2 * SECOND);
    CHECK_HEARD("\rhakmem: [####################] 100 %  8.0 GiB of 8.0 GiB  4.0 GiB/s");
    progress_end(&progress, 8 * GIB, 2 * SECOND);
    /* As long as the bar, or the rest of that would be seen behind it. */
    CHECK_HEARD("\rhakmem: faulted in 8.0 GiB of 2M pages on 1 node in 2.00 s: 4.0 GiB/s\n");
    progress_begin(&progress, writer, 3 * GIB, HAK_PAGES_2M, 1, 0);
    progress_step(&progress, GIB, SECOND);
    size_t bar = strlen(heard_now());
    progress_end(&progress, 3 * GIB, 2 * SECOND);
    CHECK_GE(strlen(heard_now()), bar + 1);
    stop_listening();
}

TEST(a_bar_fits_into_80_columns)
{
    struct progress progress;
    listen_to_terminal();
    progress_begin(&progress, writer, HAK_REGION_BYTES_MAX, HAK_PAGES_THP, 64, 0);
    progress_step(&progress, HAK_REGION_BYTES_MAX - GIB, SECOND);
    CHECK_LE(strlen(heard_now()), 80);
    stop_listening();
}

/* ---- fault-in tells it ----------------------------------------------------------------------- */

/* Faults the same memory in count times over, so that a little of it is a lot of work, and hears
 * what is told. */
static int fault_in(size_t bytes, unsigned count, int node)
{
    static struct backing_segment segments[HAK_NODES_MAX];
    struct faultin_failure failure;
    struct progress progress;
    void *memory;
    CHECK_EQ(os_reserve(bytes, HAK_SUPERSLAB_BYTES, &memory), 0);
    CHECK_EQ(os_commit(memory, bytes, HAK_PAGES_4K), 0);
    for (unsigned i = 0; i < count; i++)
        segments[i] = (struct backing_segment){.node = node, .start = memory, .bytes = bytes};
    progress_begin(&progress, writer, bytes * count, HAK_PAGES_4K, count, os_now_ns());
    progress.in_steps = true;
    int code = faultin_run_shown(segments, count, HAK_PAGES_4K, true, &progress, &failure);
    os_release(memory, bytes);
    return code;
}

TEST(fault_in_tells_how_far_it_is_while_others_work)
{
    listen_to_pipe();
    CHECK_EQ(fault_in(32 * MIB, 2, first_node()), 0); /* what libc keeps is there now */
    CHECK_STR_HAS(heard_now(), "hakmem: faulted in 64 MiB of 4k pages on 2 nodes in ");
    read_maps(maps_before, sizeof maps_before);
    /* Some tenths of a second, and of that a look each. */
    CHECK_EQ(fault_in(256 * MIB, HAK_NODES_MAX, first_node()), 0);
    CHECK_NOTHING_LEFT();
    CHECK_STR_HAS(heard_now(), " %  ");
    CHECK_STR_HAS(heard, " GiB of 16.0 GiB  ");
    CHECK_STR_HAS(heard, "\nhakmem: faulted in 16.0 GiB of 4k pages on 64 nodes in ");
    stop_listening();
}

static void alone(void *argument)
{
    const struct rlimit none = {0, 0};
    (void)argument;
    if (geteuid() == 0 && (setgid(65534) != 0 || setuid(65534) != 0))
        SKIP("cannot become somebody whose threads are limited");
    CHECK_EQ(setrlimit(RLIMIT_NPROC, &none), 0);
    writer = STDOUT_FILENO;
    CHECK_EQ(fault_in(160 * MIB, 1, first_node()), 0);
}

TEST(where_no_thread_can_be_made_every_tenth_is_told)
{
    static struct harness_result result;
    harness_child(alone, NULL, &result);
    if (result.exit_status == HARNESS_EXIT_SKIPPED)
        SKIP("%s", result.output);
    if (result.exit_status != 0)
        FAIL("status %d, signal %d: %s", result.exit_status, result.signal, result.output);
    /* Ten slices of 16 MiB. */
    for (int tenth = 1; tenth < 10; tenth++) {
        char line[64];
        snprintf(line, sizeof line, "hakmem: %3d %%  %d MiB of 160 MiB  ", tenth * 10, tenth * 16);
        CHECK_STR_HAS(result.output, line);
    }
    CHECK_STR_HAS(result.output, "hakmem: faulted in 160 MiB of 4k pages on 1 node in ");
}

TEST(a_fault_in_that_fails_says_where_it_stopped)
{
    listen_to_pipe();
    /* Said to be on a node that it cannot be on. */
    CHECK_EQ(fault_in(32 * MIB, 1, first_node() == 63 ? 62 : 63), -EIO);
    CHECK_STR_HAS(heard_now(), "hakmem: fault-in stopped after 0 MiB of 32 MiB of 4k pages on 1 "
                               "node in ");
    stop_listening();
}

/* ---- the whole way --------------------------------------------------------------------------- */

static void init_with(void *argument)
{
    struct hak_config config = {
        .size_bytes = 64 * MIB, .pages = {HAK_PAGES_4K}, .prefault = *(enum hak_switch *)argument};
    setenv("HAKMEM_PROGRESS", "1", 1);
    CHECK_EQ(hak_region_init(&config), 0);
    struct hak_config none = {.size_bytes = 64 * MIB, .pages = {HAK_PAGES_4K}, .prefault = HAK_ON};
    unsetenv("HAKMEM_PROGRESS");
    hak_region *quiet;
    CHECK_EQ(hak_region_create(&none, &quiet), 0);
}

TEST(the_environment_asks_for_it)
{
    static struct harness_result result;
    enum hak_switch prefault = HAK_ON;
    harness_child(init_with, &prefault, &result);
    CHECK_EQ(result.exit_status, 0);
    CHECK_EQ(strncmp(result.output, "hakmem: faulted in 64 MiB of 4k pages on ", 41), 0);
    CHECK(strchr(result.output, '\n') == result.output + strlen(result.output) - 1);
    /* Without prefault there is nothing to tell. */
    prefault = HAK_OFF;
    harness_child(init_with, &prefault, &result);
    CHECK_EQ(result.exit_status, 0);
    CHECK_EQ(result.output[0], 0);
}

HARNESS_MAIN()
