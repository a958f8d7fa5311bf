/* SPDX-License-Identifier: MIT */
/*
 * The command `hakmem`: finds the subcommand and hands over to it. A further one is a line in the
 * table below, a prototype in tools/hakmem.h and a file of its own.
 */
#include "tools/hakmem.h"

#include <hakmem.h>

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define NAME_BYTES 64

struct subcommand {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *sentence;
};

static int help(int argc, char **argv);
static int version(int argc, char **argv);

static const struct subcommand subcommands[] = {
    {"run", hakmem_run, "run a program with its whole heap in a region"},
    {"plan", hakmem_plan, "what a region would find, and what it lacks; changes nothing"},
    {"reserve", hakmem_reserve, "reserve huge pages, node by node; as root"},
    {"release", hakmem_release, "give reserved huge pages back; as root"},
    {"doctor", hakmem_doctor, "check the machine's settings, with remedies"},
    {"help", help, "this text, or that of a subcommand"},
    {"version", version, "the version, the same as the library's"},
};

/* "hakmem", then "hakmem SUBCOMMAND". */
static char name[NAME_BYTES] = "hakmem";

/* ---- texts of others ------------------------------------------------------------------------- */

/* Bytes of the well-formed sequence at text, 0: it is none. The second byte's range is narrower
 * after some first bytes: no overlong forms, no surrogates, nothing above U+10FFFF. */
static size_t sequence_bytes(const unsigned char *text)
{
    unsigned char first = text[0], low = 0x80, high = 0xbf;
    if (first < 0x80)
        return 1;
    if (first < 0xc2 || first > 0xf4)
        return 0;
    size_t bytes = first < 0xe0 ? 2 : (first < 0xf0 ? 3 : 4);
    low = first == 0xe0 ? 0xa0 : (first == 0xf0 ? 0x90 : low);
    high = first == 0xed ? 0x9f : (first == 0xf4 ? 0x8f : high);
    if (text[1] < low || text[1] > high)
        return 0;
    /* The end of the text is no continuation either. */
    for (size_t i = 2; i < bytes; i++)
        if ((text[i] & 0xc0) != 0x80)
            return 0;
    return bytes;
}

void tool_utf8(char *text)
{
    while (*text != '\0') {
        size_t bytes = sequence_bytes((const unsigned char *)text);
        if (bytes == 0)
            *text = '?';
        text += bytes == 0 ? 1 : bytes;
    }
}

void tool_printable(char *text)
{
    while (*text != '\0') {
        const unsigned char *at = (const unsigned char *)text;
        size_t bytes = sequence_bytes(at);
        bool second_set = bytes == 2 && at[0] == 0xc2 && at[1] < 0xa0;
        if (at[0] < 0x20 || at[0] == 0x7f)
            text[0] = '?';
        else if (second_set)
            text[0] = text[1] = '?';
        text += bytes == 0 ? 1 : bytes;
    }
}

/* ---- messages -------------------------------------------------------------------------------- */

static void complain(const char *format, va_list arguments, const char *end)
{
    char text[4096];
    int saved = errno;
    vsnprintf(text, sizeof text, format, arguments);
    tool_printable(text);
    /* One call, so that lines of several processes do not mix. */
    fprintf(stderr, "%s: %s%s\n", name, text, end);
    errno = saved;
}

int tool_fail(int status, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    complain(format, arguments, "");
    va_end(arguments);
    return status;
}

int tool_usage(const char *format, ...)
{
    char end[NAME_BYTES + 32];
    va_list arguments;
    snprintf(end, sizeof end, " (see %s --help)", name);
    va_start(arguments, format);
    complain(format, arguments, end);
    va_end(arguments);
    return TOOL_USAGE;
}

static const struct subcommand *find(const char *word)
{
    for (size_t i = 0; i < sizeof subcommands / sizeof *subcommands; i++)
        if (strcmp(subcommands[i].name, word) == 0)
            return &subcommands[i];
    return NULL;
}

static void print_usage(FILE *out)
{
    fputs("usage: hakmem SUBCOMMAND [options]\n\n", out);
    for (size_t i = 0; i < sizeof subcommands / sizeof *subcommands; i++)
        fprintf(out, "  %-10s %s\n", subcommands[i].name, subcommands[i].sentence);
    fputs("\n`hakmem SUBCOMMAND --help` says more.\n", out);
}

static int start(const struct subcommand *subcommand, int argc, char **argv)
{
    snprintf(name, sizeof name, "hakmem %s", subcommand->name);
    argv[0] = name;
    return subcommand->run(argc, argv);
}

static int help(int argc, char **argv)
{
    char option[] = "--help";
    char *arguments[] = {name, option, NULL};
    const struct subcommand *about = argc > 1 ? find(argv[1]) : NULL;
    if (argc > 2 || (argc == 2 && about == NULL && strcmp(argv[1], option) != 0)) {
        const char *word = argv[argc - 1];
        snprintf(name, sizeof name, "hakmem");
        return tool_usage("no help about '%s'", word);
    }
    if (about != NULL && about->run != help)
        return start(about, 2, arguments);
    print_usage(stdout);
    return TOOL_OK;
}

static int version(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "--help") == 0) {
        puts(
            "usage: hakmem version\n\nPrints `hakmem` and the version, the same as the library's.");
        return TOOL_OK;
    }
    if (argc > 1)
        return tool_usage("takes no arguments: '%s'", argv[1]);
    printf("hakmem %d.%d.%d\n", HAK_VERSION_MAJOR, HAK_VERSION_MINOR, HAK_VERSION_PATCH);
    return TOOL_OK;
}

/* A full disk or a closed pipe must not pass for success. */
static int finish(int status)
{
    int code = fflush(stdout) == 0 ? 0 : errno;
    if (code == 0 && ferror(stdout) == 0)
        return status;
    /* Of an earlier failure nobody knows any more which it was. */
    code = code == 0 ? EIO : code;
    return tool_fail(status == TOOL_OK ? TOOL_NOT_STARTED : status,
                     "cannot write to standard output: %s", strerror(code));
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        print_usage(stderr);
        return TOOL_USAGE;
    }
    const char *word = argv[1];
    if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0)
        word = "help";
    else if (strcmp(word, "--version") == 0 || strcmp(word, "-V") == 0)
        word = "version";
    const struct subcommand *subcommand = find(word);
    if (subcommand == NULL) {
        tool_fail(TOOL_USAGE, "no subcommand or option '%s'", word);
        print_usage(stderr);
        return TOOL_USAGE;
    }
    return finish(start(subcommand, argc - 1, argv + 1));
}
