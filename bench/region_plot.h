/* SPDX-License-Identifier: MIT */
/*
 * bench/region's picture: four panels in an SVG file, drawn by gnuplot, which runs as a child and
 * reads its script, data included, from its standard input.
 */
#ifndef HAK_BENCH_REGION_PLOT_H
#define HAK_BENCH_REGION_PLOT_H

#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/region_access.h"
#include "bench/region_init.h"
#include "bench/region_lookup.h"
#include "bench/region_remote.h"

/* The same colour for the same kind of page everywhere; told apart in grey, too. */
static const char *const plot_colours[KIND_COUNT] = {"#b2182b", "#ef8a62", "#4393c3", "#053061"};

static const char plot_style[] = "set border 3 lc rgb '#555555'\n"
                                 "set tics nomirror out scale 0.6 textcolor rgb '#222222'\n"
                                 "set grid y lc rgb '#dddddd' lw 0.8\n"
                                 "set title font ',15' offset 0,-0.3\n"
                                 "set key font ',12' samplen 2 spacing 1.15 Left reverse\n"
                                 "set style fill solid 0.85 noborder\n"
                                 "set errorbars 1.0 lw 1.2 lc rgb '#222222'\n";

/* The greatest of a panel's figures, and of what they came to in a round. */
struct plot_top {
    double median, most;
};

static inline void plot_reach(struct plot_top *top, struct cell_spread spread)
{
    top->median = spread.median > top->median ? spread.median : top->median;
    top->most = spread.most > top->most ? spread.most : top->most;
}

/* From 0 to above everything; one wild round does not press the rest flat: its bar is cut off. */
static inline void plot_yrange(FILE *script, struct plot_top top)
{
    double end = 1.08 * top.most < 2 * top.median ? 1.08 * top.most : 2 * top.median;
    fprintf(script, "set yrange [0:%.4f]\n", end > 0 ? end : 1);
}

static inline void plot_init(FILE *script, const struct region_plan *plan)
{
    fputs("$init << END\n", script);
    for (unsigned kind = 0; kind < KIND_COUNT; kind++) {
        struct cell_spread rate = cell_spread(INIT_SECTION, kind_names[kind], "rate", 0);
        if (rate.rounds != 0)
            fprintf(script, "%u %.4f %.4f %.4f\n", kind, rate.median, rate.least, rate.most);
    }
    fputs("END\n", script);
    fprintf(script,
            "set title 'Init of %zu MiB, faulted in and verified'\n"
            "set xlabel 'page size'; set ylabel 'GiB/s'\n"
            "set xrange [-0.6:3.6]; set yrange [0:*]; unset key\nset xtics (",
            plan->size_bytes >> 20);
    for (unsigned kind = 0; kind < KIND_COUNT; kind++)
        fprintf(script, "%s\"%s%s\" %u", kind == 0 ? "" : ", ", kind_names[kind],
                cell_spread(INIT_SECTION, kind_names[kind], "rate", 0).rounds == 0
                    ? "\\n(not to be had)"
                    : "",
                kind);
    fputs(")\nplot ", script);
    for (unsigned kind = 0; kind < KIND_COUNT; kind++)
        fprintf(script,
                "$init using 1:($1 == %u ? $2 : NaN):3:4:(0.6) with boxerrorbars lc rgb '%s', ",
                kind, plot_colours[kind]);
    fputs("$init using 1:4:(sprintf('%.1f', $2)) with labels offset 0,0.8 notitle\n"
          "set xrange [*:*]; set key\n",
          script);
}

static inline void plot_lookup(FILE *script)
{
    static const struct {
        const char *name, *title, *colour;
    } lines[] = {{"free", "hak\\_free, batches included", "#1b7837"},
                 {"usable waiting", "hak\\_usable\\_size, each waiting for the last", "#762a83"},
                 {"usable", "hak\\_usable\\_size, overlapping", "#af8dc3"},
                 {"walk", "the loop without a look-up", "#888888"}};
    enum { LINES = sizeof lines / sizeof *lines };
    const struct lookup_step *last = &lookup_steps[LOOKUP_STEP_COUNT - 1];
    struct plot_top top = {0};
    for (unsigned line = 0; line < LINES; line++) {
        fprintf(script, "$lookup%u << END\n", line);
        for (unsigned i = 0; i < LOOKUP_STEP_COUNT; i++) {
            struct cell_spread spread = cell_spread(LOOKUP_SECTION, lookup_steps[i].name,
                                                    lines[line].name, lookup_steps[i].bytes);
            plot_reach(&top, spread);
            if (spread.rounds != 0)
                fprintf(script, "%llu %.4f %.4f %.4f\n", (unsigned long long)lookup_steps[i].bytes,
                        spread.median, spread.least, spread.most);
        }
        fputs("END\n", script);
    }
    fprintf(script,
            "set title 'Look-up of %zu Ki objects spread over the addresses'\n"
            "set xlabel 'addresses of the region'; set ylabel 'ns an object'\n"
            "set logscale x 2; set key top left\nset xtics (",
            LOOKUP_OBJECTS >> 10);
    for (unsigned i = 0; i < LOOKUP_STEP_COUNT; i++)
        fprintf(script, "%s'%s' %llu", i == 0 ? "" : ", ", lookup_steps[i].name,
                (unsigned long long)lookup_steps[i].bytes);
    fprintf(script, ")\nset xrange [%.1f:%.1f]\n", (double)lookup_steps[0].bytes / 1.4,
            (double)last->bytes * 1.4);
    plot_yrange(script, top);
    fputs("plot ", script);
    for (unsigned line = 0; line < LINES; line++)
        fprintf(
            script,
            "%s$lookup%u using 1:2:3:4 with yerrorlines lw 2 pt 7 ps 0.5 lc rgb '%s' title '%s'",
            line == 0 ? "" : ", ", line, lines[line].colour, lines[line].title);
    fputs(", 0 with lines lc rgb '#555555' lw 1 notitle\nunset logscale; set xrange [*:*]\n",
          script);
}

/* Ratios to 4 KiB pages: colour by kind of page, line by pattern. */
static inline void plot_access_blocks(FILE *script, const uint64_t *sets, unsigned count)
{
    for (unsigned kind = KIND_2M; kind < KIND_COUNT; kind++) {
        for (unsigned pattern = 0; pattern < ACCESS_PATTERNS; pattern++) {
            fprintf(script, "$%s%u << END\n", access_names[pattern], kind);
            for (unsigned i = 0; i < count; i++) {
                struct cell_spread ratio = cell_ratio(ACCESS_SECTION, kind_names[KIND_4K],
                                                      kind_names[kind], access_names[pattern],
                                                      sets[i]);
                if (ratio.rounds != 0)
                    fprintf(script, "%llu %.4f\n", (unsigned long long)sets[i], ratio.median);
            }
            fputs("END\n", script);
        }
    }
}

static inline void plot_access(FILE *script, const struct region_plan *plan)
{
    static const struct {
        const char *title;
        unsigned dashes, points;
    } lines[ACCESS_PATTERNS] = {{"chasing", 1, 7}, {"loads", 2, 5}, {"stores", 4, 9}};
    uint64_t sets[ACCESS_SETS_MAX];
    unsigned count = access_choose_sets(sets, plan->size_bytes);
    plot_access_blocks(script, sets, count);
    fputs("set title 'What huge pages bring: pointer chasing, random loads and stores'\n"
          "set xlabel 'working set, MiB'; set ylabel 'times as fast as on 4 KiB pages'\n"
          "set logscale x 4; set key bottom left maxrows 3\nset xtics (",
          script);
    for (unsigned i = 0; i < count; i++)
        fprintf(script, "%s'%llu' %llu", i == 0 ? "" : ", ", (unsigned long long)sets[i] >> 20,
                (unsigned long long)sets[i]);
    fprintf(script, ")\nset xrange [%.1f:%.1f]; set yrange [0:*]\nplot ", (double)sets[0] / 1.4,
            (double)sets[count - 1] * 1.4);
    for (unsigned kind = KIND_2M; kind < KIND_COUNT; kind++) {
        for (unsigned pattern = 0; pattern < ACCESS_PATTERNS; pattern++) {
            const char *name = access_names[pattern];
            if (cell_spread(ACCESS_SECTION, kind_names[kind], name, sets[0]).rounds != 0)
                fprintf(script,
                        "$%s%u using 1:2 with linespoints lw 2 dt %u pt %u ps 0.6 lc rgb '%s' "
                        "title '%s, %s', ",
                        name, kind, lines[pattern].dashes, lines[pattern].points,
                        plot_colours[kind], kind_names[kind], lines[pattern].title);
        }
    }
    fputs("1 with lines lc rgb '#b2182b' lw 1 title '4 KiB'\n"
          "unset logscale; set xrange [*:*]; set yrange [*:*]\n",
          script);
}

static inline void plot_free(FILE *script, bool several)
{
    static const struct {
        const char *name, *title, *colour;
    } bars[] = {{"in order", "free, in order of allocation", "#a6dba0"},
                {"shuffled", "free, shuffled", "#1b7837"},
                {"malloc", "malloc of the next batch", "#9970ab"}};
    enum { BARS = sizeof bars / sizeof *bars };
    struct plot_top top = {0};
    for (unsigned bar = 0; bar < BARS; bar++) {
        fprintf(script, "$free%u << END\n", bar);
        for (unsigned way = 0; way < REMOTE_WAYS; way++) {
            struct cell_spread spread = cell_spread(REMOTE_SECTION, remote_names[way],
                                                    bars[bar].name, 0);
            plot_reach(&top, spread);
            if (spread.rounds != 0)
                fprintf(script, "%.2f %.4f %.4f %.4f\n", way + ((double)bar - 1) * 0.26,
                        spread.median, spread.least, spread.most);
        }
        fputs("END\n", script);
    }
    fprintf(script,
            "set title 'What a free costs, by who frees: %d-byte objects'\n"
            "set xlabel ''; set ylabel 'ns an object'\n"
            "set xrange [-0.6:2.6]; set key top left maxrows auto\n"
            "set xtics (\"own thread\" 0, \"other thread,\\nsame node\" 1, \"other thread,"
            "\\n%s\" 2)\n",
            REMOTE_OBJECT_BYTES, several ? "other node" : "other node (pretended)");
    plot_yrange(script, top);
    fputs("plot ", script);
    for (unsigned bar = 0; bar < BARS; bar++)
        fprintf(script, "%s$free%u using 1:2:3:4:(0.23) with boxerrorbars lc rgb '%s' title '%s'",
                bar == 0 ? "" : ", ", bar, bars[bar].colour, bars[bar].title);
    fputc('\n', script);
}

/* A name in gnuplot's single quotes. */
static inline void plot_quote(FILE *script, const char *text)
{
    fputc('\'', script);
    for (; *text != '\0'; text++)
        fprintf(script, *text == '\'' ? "'%c" : "%c", *text);
    fputc('\'', script);
}

static inline void plot_script(FILE *script, const char *path, const struct region_plan *plan)
{
    bool several = popcount64(plan->nodes) > 1;
    fputs("set terminal svg size 1200,860 dynamic font 'Helvetica,Arial,sans-serif,13' "
          "background rgb 'white'\nset output ",
          script);
    plot_quote(script, path);
    fputs("\nset encoding utf8\n", script);
    fputs(plot_style, script);
    fputs("set multiplot layout 2,2 margins 0.065,0.985,0.095,0.945 spacing 0.085,0.165\n", script);
    plot_init(script, plan);
    plot_lookup(script);
    plot_access(script, plan);
    plot_free(script, several);
    fputs("unset multiplot\nset output\n", script);
}

/* Starts gnuplot with a pipe for its standard input. 0 or a negative errno. */
static inline int plot_start(pid_t *child, FILE **script)
{
    static char program[] = "gnuplot";
    char *const arguments[] = {program, NULL};
    posix_spawn_file_actions_t actions;
    int ends[2];
    *script = NULL;
    if (pipe2(ends, O_CLOEXEC) != 0)
        return -errno;
    int code = posix_spawn_file_actions_init(&actions);
    if (code == 0) {
        code = posix_spawn_file_actions_adddup2(&actions, ends[0], STDIN_FILENO);
        if (code == 0)
            code = posix_spawnp(child, program, &actions, NULL, arguments, environ);
        posix_spawn_file_actions_destroy(&actions);
    }
    close(ends[0]);
    *script = code == 0 ? fdopen(ends[1], "w") : NULL;
    if (*script == NULL)
        close(ends[1]);
    return -code;
}

/* 0, -ENOENT where there is no gnuplot, another negative errno where it failed. */
static inline int plot_write(const char *path, const struct region_plan *plan)
{
    pid_t child;
    FILE *script;
    int status = 0;
    int code = plot_start(&child, &script);
    if (code != 0)
        return code;
    if (script == NULL)
        return -ENOMEM;
    /* A gnuplot that ends early is told by its status. */
    signal(SIGPIPE, SIG_IGN);
    plot_script(script, path, plan);
    bool failed = ferror(script) != 0;
    failed = fclose(script) != 0 || failed;
    while (waitpid(child, &status, 0) < 0) {
        if (errno != EINTR)
            return -errno;
    }
    return failed || status != 0 ? -EIO : 0;
}

#endif
