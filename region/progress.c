/* SPDX-License-Identifier: MIT */
/*
 * Texts of at most a terminal's 80 columns, composed on the stack and written in one piece, so that
 * lines of several processes do not mix. Whole numbers throughout: printf's %f follows the locale
 * and may allocate.
 */
#define _GNU_SOURCE
#include "region/progress.h"

#include "region/errlog.h"
#include "region/os.h"

#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define LINE_BYTES 160
#define BAR_CELLS 20
#define NS_PER_SECOND UINT64_C(1000000000)

_Static_assert(HAK_REGION_BYTES_MAX >> 20 <= UINT64_MAX / (10 * NS_PER_SECOND),
               "the product in say_speed holds");

#define SAY(line, ...) (void)errlog_append(line, LINE_BYTES, __VA_ARGS__)

/* Tenths of a GiB from one GiB on, whole MiB below. */
static void say_bytes(char *line, uint64_t bytes)
{
    uint64_t tenths = (bytes >> 20) * 10 >> 10;
    if (bytes >= UINT64_C(1) << 30)
        SAY(line, "%llu.%llu GiB", (unsigned long long)(tenths / 10),
            (unsigned long long)(tenths % 10));
    else
        SAY(line, "%llu MiB", (unsigned long long)(bytes >> 20));
}

static void say_speed(char *line, uint64_t bytes, uint64_t ns)
{
    uint64_t divisor = ns != 0 ? ns : 1;
    uint64_t tenths = ((bytes >> 20) * (10 * NS_PER_SECOND) / 1024 + divisor / 2) / divisor;
    SAY(line, "%llu.%llu GiB/s", (unsigned long long)(tenths / 10),
        (unsigned long long)(tenths % 10));
}

/* What standard error does not take is not worth an error. */
static void put(const struct progress *progress, const char *text, size_t length)
{
    errlog_write(progress->file, text, length);
}

/* A whole line, over whatever is left of the bar. */
static void put_line(struct progress *progress, char *line)
{
    size_t length = strlen(line);
    for (; length < progress->columns && length < LINE_BYTES - 2; length++)
        line[length] = ' ';
    line[length] = '\n';
    if (progress->columns != 0)
        put(progress, "\r", 1);
    put(progress, line, length + 1);
    progress->columns = 0;
}

static void draw_bar(struct progress *progress, uint64_t done, uint64_t ns)
{
    char line[LINE_BYTES] = "\rhakmem: [", cells[BAR_CELLS + 1];
    size_t full = (size_t)(done * BAR_CELLS / progress->total_bytes);
    memset(cells, '.', BAR_CELLS);
    memset(cells, '#', full);
    cells[BAR_CELLS] = '\0';
    SAY(line, "%s] %3llu %%  ", cells, (unsigned long long)(done * 100 / progress->total_bytes));
    say_bytes(line, done);
    SAY(line, " of ");
    say_bytes(line, progress->total_bytes);
    SAY(line, "  ");
    say_speed(line, done, ns);
    size_t length = strlen(line), columns = length - 1;
    /* A figure may have become shorter. */
    for (size_t rest = columns; rest < progress->columns && length < LINE_BYTES; rest++)
        line[length++] = ' ';
    put(progress, line, length);
    progress->columns = columns;
}

static void say_tenth(struct progress *progress, unsigned tenths, uint64_t done, uint64_t ns)
{
    char line[LINE_BYTES] = "hakmem: ";
    SAY(line, "%3u %%  ", tenths * 10);
    say_bytes(line, done);
    SAY(line, " of ");
    say_bytes(line, progress->total_bytes);
    SAY(line, "  ");
    say_speed(line, done, ns);
    put_line(progress, line);
}

void progress_begin(struct progress *progress, int file, uint64_t total_bytes, enum hak_pages pages,
                    unsigned node_count, uint64_t now_ns)
{
    *progress = (struct progress){.file = file,
                                  .terminal = isatty(file) != 0,
                                  .in_steps = total_bytes > PROGRESS_FROM_BYTES,
                                  .pages = pages,
                                  .node_count = node_count,
                                  .total_bytes = total_bytes,
                                  .start_ns = now_ns,
                                  .shown_ns = now_ns};
}

void progress_step(struct progress *progress, uint64_t done_bytes, uint64_t now_ns)
{
    if (!progress->in_steps)
        return;
    unsigned tenths = (unsigned)(done_bytes * 10 / progress->total_bytes);
    if (progress->terminal) {
        if (now_ns - progress->shown_ns < PROGRESS_STEP_NS)
            return;
        draw_bar(progress, done_bytes, now_ns - progress->start_ns);
        progress->shown_ns = now_ns;
    } else if (tenths > progress->shown_tenths && tenths < 10) { /* the last tenth: progress_end */
        say_tenth(progress, tenths, done_bytes, now_ns - progress->start_ns);
        progress->shown_tenths = tenths;
    }
}

void progress_end(struct progress *progress, uint64_t done_bytes, uint64_t now_ns)
{
    char line[LINE_BYTES] = "hakmem: ";
    uint64_t ns = now_ns - progress->start_ns, hundredths = ns / (NS_PER_SECOND / 100);
    bool whole = done_bytes >= progress->total_bytes;
    SAY(line, "%s", whole ? "faulted in " : "fault-in stopped after ");
    say_bytes(line, done_bytes);
    if (!whole) {
        SAY(line, " of ");
        say_bytes(line, progress->total_bytes);
    }
    SAY(line, " of %s pages on %u node%s in %llu.%02llu s: ", os_pages_name(progress->pages),
        progress->node_count, progress->node_count == 1 ? "" : "s",
        (unsigned long long)(hundredths / 100), (unsigned long long)(hundredths % 100));
    say_speed(line, done_bytes, ns);
    put_line(progress, line);
}
