/* SPDX-License-Identifier: MIT */
/*
 * What bench/region found: every figure of every round, by section, series, name and x.
 *
 * Series take turns within a round, so a ratio is formed of two figures of the same round and the
 * median taken of the ratios, never a ratio of medians. A series that could not be had has a note
 * instead, so that nothing is silently left out. Tables, CSV file and plot are all made from here.
 *
 * The parts of bench/region (region.c, region_*.h) write and read it; one thread. Names are
 * constants or live as long as the program.
 */
#ifndef HAK_BENCH_REGION_CELLS_H
#define HAK_BENCH_REGION_CELLS_H

#include <math.h>

#include "bench/support.h"

#define CELLS_MAX 1024
#define CELL_ROUNDS_MAX 16
#define CELL_TEXT_BYTES 64

struct cell {
    const char *section, *series, *name, *unit;
    uint64_t x;
    double rounds[CELL_ROUNDS_MAX]; /* NAN: not measured in that round */
};

struct cell_spread {
    double median, least, most;
    unsigned rounds; /* 0: nothing was measured */
};

struct cell_note {
    const char *section, *series;
    char text[1024];
};

static struct cell cells[CELLS_MAX];
static unsigned cell_count;
static struct cell_note cell_notes[64];
static unsigned cell_note_count;

static inline struct cell *cell_find(const char *section, const char *series, const char *name,
                                     uint64_t x)
{
    for (unsigned i = 0; i < cell_count; i++) {
        struct cell *cell = &cells[i];
        if (cell->x == x && strcmp(cell->section, section) == 0 &&
            strcmp(cell->series, series) == 0 && strcmp(cell->name, name) == 0)
            return cell;
    }
    return NULL;
}

static inline void cell_set(const char *section, const char *series, const char *name,
                            const char *unit, uint64_t x, unsigned round, double value)
{
    struct cell *cell = cell_find(section, series, name, x);
    if (cell == NULL) {
        if (cell_count == CELLS_MAX || round >= CELL_ROUNDS_MAX)
            bench_fail("more figures than %d, or rounds than %d", CELLS_MAX, CELL_ROUNDS_MAX);
        cell = &cells[cell_count++];
        *cell = (struct cell){
            .section = section, .series = series, .name = name, .unit = unit, .x = x};
        for (unsigned i = 0; i < CELL_ROUNDS_MAX; i++)
            cell->rounds[i] = NAN;
    }
    cell->rounds[round] = value;
}

static inline bool cell_noted(const char *section, const char *series)
{
    for (unsigned i = 0; i < cell_note_count; i++) {
        if (strcmp(cell_notes[i].section, section) == 0 &&
            strcmp(cell_notes[i].series, series) == 0)
            return true;
    }
    return false;
}

/* Why a series is missing. The first note stays: what comes after it follows from it. */
__attribute__((format(printf, 3, 4))) static inline void
cell_leave_out(const char *section, const char *series, const char *format, ...)
{
    va_list arguments;
    if (cell_noted(section, series))
        return;
    if (cell_note_count == sizeof cell_notes / sizeof *cell_notes)
        bench_fail("more notes than there is room for");
    struct cell_note *note = &cell_notes[cell_note_count++];
    note->section = section;
    note->series = series;
    va_start(arguments, format);
    vsnprintf(note->text, sizeof note->text, format, arguments);
    va_end(arguments);
    /* One line each, in the table as in the CSV file. */
    for (char *at = note->text; *at != '\0'; at++) {
        if (*at == '\n')
            *at = ' ';
    }
}

static inline struct cell_spread cell_spread_of(double *values, unsigned count)
{
    if (count == 0)
        return (struct cell_spread){.median = NAN, .least = NAN, .most = NAN};
    double median = bench_median(values, count);
    return (struct cell_spread){
        .median = median, .least = values[0], .most = values[count - 1], .rounds = count};
}

static inline struct cell_spread cell_spread(const char *section, const char *series,
                                             const char *name, uint64_t x)
{
    const struct cell *cell = cell_find(section, series, name, x);
    double values[CELL_ROUNDS_MAX];
    unsigned count = 0;
    for (unsigned i = 0; cell != NULL && i < CELL_ROUNDS_MAX; i++) {
        if (!isnan(cell->rounds[i]))
            values[count++] = cell->rounds[i];
    }
    return cell_spread_of(values, count);
}

/* Of over / under, round by round. */
static inline struct cell_spread cell_ratio(const char *section, const char *over,
                                            const char *under, const char *name, uint64_t x)
{
    const struct cell *above = cell_find(section, over, name, x);
    const struct cell *below = cell_find(section, under, name, x);
    double values[CELL_ROUNDS_MAX];
    unsigned count = 0;
    for (unsigned i = 0; above != NULL && below != NULL && i < CELL_ROUNDS_MAX; i++) {
        if (!isnan(above->rounds[i]) && !isnan(below->rounds[i]))
            values[count++] = above->rounds[i] / below->rounds[i];
    }
    return cell_spread_of(values, count);
}

/* "12.3 (11.9 to 14.0)", or "-". */
static inline const char *cell_text(struct cell_spread spread, unsigned decimals,
                                    char text[CELL_TEXT_BYTES])
{
    int places = (int)decimals;
    if (spread.rounds == 0)
        snprintf(text, CELL_TEXT_BYTES, "-");
    else
        snprintf(text, CELL_TEXT_BYTES, "%.*f (%.*f to %.*f)", places, spread.median, places,
                 spread.least, places, spread.most);
    return text;
}

/* The notes of a section, a line each. */
static inline void cell_print_notes(const char *section)
{
    for (unsigned i = 0; i < cell_note_count; i++) {
        if (strcmp(cell_notes[i].section, section) == 0)
            printf("  %s: left out: %s\n", cell_notes[i].series, cell_notes[i].text);
    }
}

static inline int cell_write_csv(const char *path)
{
    FILE *file = fopen(path, "we");
    if (file == NULL)
        return -errno;
    fputs("section,series,figure,x,unit,rounds,median,least,most,note\n", file);
    for (unsigned i = 0; i < cell_count; i++) {
        const struct cell *cell = &cells[i];
        struct cell_spread spread = cell_spread(cell->section, cell->series, cell->name, cell->x);
        fprintf(file, "%s,%s,%s,%llu,%s,%u,%.4f,%.4f,%.4f,\n", cell->section, cell->series,
                cell->name, (unsigned long long)cell->x, cell->unit, spread.rounds, spread.median,
                spread.least, spread.most);
    }
    for (unsigned i = 0; i < cell_note_count; i++) {
        fprintf(file, "%s,%s,,,,,,,,\"", cell_notes[i].section, cell_notes[i].series);
        for (const char *at = cell_notes[i].text; *at != '\0'; at++)
            fprintf(file, *at == '"' ? "\"%c" : "%c", *at);
        fputs("\"\n", file);
    }
    bool failed = ferror(file) != 0;
    return fclose(file) != 0 || failed ? -EIO : 0;
}

#endif
