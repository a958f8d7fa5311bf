/* SPDX-License-Identifier: MIT */
/*
 * hakmem run: an unmodified program with its whole heap in a region.
 *
 * Options become environment variables, the library goes in front of LD_PRELOAD, everything that
 * can be known to go wrong is looked for, and the program takes this process's place: its exit
 * status, its signals, its files are its own. Which variables there are, and what each takes, is
 * the table of region/config.c; the options' names are made from the variables'.
 */
#define _GNU_SOURCE
#include "tools/hakmem_run.h"
#include "region/config.h"
#include "tools/hakmem.h"

#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The table has a dozen; the options' array is checked against this. */
#define VARIABLES_MAX 40u
#define OPTION_BYTES 48
/* Of the help's indented text. */
#define TEXT_COLUMNS 72

enum { OPTION_HELP = 'h', OPTION_PRELOAD = 256, OPTION_PRINT, OPTION_VARIABLE };

struct request {
    char names[VARIABLES_MAX][OPTION_BYTES]; /* of the variables' options, without dashes */
    unsigned variable_count;
    bool given[VARIABLES_MAX]; /* by an option */
    const char *lone_switch;   /* the last option, where it was a switch without a value */
    const char *preload;
    bool print;
    char **command;
};

/* HAKMEM_REGION_SIZE: size; HAKMEM_WARM_POOL: warm-pool. */
static void name_option(const char *variable, char *name)
{
    static const char *const fronts[] = {"HAKMEM_", "REGION_"};
    for (size_t i = 0; i < sizeof fronts / sizeof *fronts; i++)
        if (strncmp(variable, fronts[i], strlen(fronts[i])) == 0)
            variable += strlen(fronts[i]);
    size_t length = 0;
    for (; length < OPTION_BYTES - 1 && variable[length] != '\0'; length++)
        name[length] = variable[length] == '_' ? '-'
                                               : (char)tolower((unsigned char)variable[length]);
    name[length] = '\0';
}

/* ---- help ---------------------------------------------------------------------------------- */

/* The table's sentences are of any length. */
static void print_wrapped(const char *label, const char *text)
{
    size_t column = strlen(label);
    printf("      %s", label);
    for (const char *gap = ""; *text != '\0'; gap = " ") {
        size_t length = strcspn(text, " ");
        if (column + strlen(gap) + length > TEXT_COLUMNS) {
            gap = "\n      ";
            column = 0;
        } else {
            column += strlen(gap);
        }
        printf("%s%.*s", gap, (int)length, text);
        column += length;
        text += length;
        text += strspn(text, " ");
    }
    putchar('\n');
}

static void print_variable(unsigned index, const char *option)
{
    struct config_entry entry;
    if (!config_describe(index, &entry))
        return;
    printf("\n  --%s%s  (%s)\n", option, entry.is_switch ? "[=0|1]" : " VALUE", entry.name);
    print_wrapped("", entry.sentence);
    printf("      accepted: %s\n", entry.accepted);
    print_wrapped("default: ", entry.preloaded);
    if (entry.text != NULL)
        printf("      now: %s%s%s\n", entry.text,
               entry.verdict < 0 ? "  <- cannot be understood"
                                 : (entry.verdict == 1 ? ", out of range: taken as " : ""),
               entry.used);
}

static int print_help(const struct request *request)
{
    puts("usage: hakmem run [options] [--] program [argument...]\n\n"
         "Runs an unmodified program with its whole heap in a hakmem region: puts\n" PRELOAD_FILE
         " in front of " PRELOAD_VARIABLE ", the options below into the\n"
         "environment, and the program in its own place.\n\n"
         "  --preload FILE  the library to preload; otherwise it is looked for beside this\n"
         "                  tool, in ../lib, ../lib64 and ../lib/<processor>-linux-gnu from\n"
         "                  there, and where the dynamic linker looks\n"
         "  --print         do every check, print the command that would run, and exit\n"
         "  -h, --help      this text\n\n"
         "exit status: the program's own, or, when it was not started,\n"
         "    2  an option or a value cannot be understood\n"
         "  125  the program cannot be put onto a region (statically linked, with others'\n"
         "       rights, for another processor or C library), or the library is missing\n"
         "  126  the program was found, but cannot be executed\n"
         "  127  the program was not found; also of a program that was started whose region\n"
         "       cannot be set up, which the library says on standard error\n\n"
         "Each option below is the same as the variable beside it and wins over it. With an\n"
         "empty value (--size=) the default holds, whatever the environment says. A switch\n"
         "alone is on; a value for it must follow an equals sign.");
    for (unsigned i = 0; i < request->variable_count; i++)
        print_variable(i, request->names[i]);
    return TOOL_OK;
}

/* ---- options ------------------------------------------------------------------------------- */

static void list_options(struct request *request, struct option *options)
{
    struct config_entry entry;
    unsigned count = 0;
    for (; count < VARIABLES_MAX && config_describe(count, &entry); count++) {
        name_option(entry.name, request->names[count]);
        *options++ = (struct option){request->names[count],
                                     entry.is_switch ? optional_argument : required_argument, NULL,
                                     OPTION_VARIABLE + (int)count};
    }
    request->variable_count = count;
    *options++ = (struct option){"preload", required_argument, NULL, OPTION_PRELOAD};
    *options++ = (struct option){"print", no_argument, NULL, OPTION_PRINT};
    *options++ = (struct option){"help", no_argument, NULL, OPTION_HELP};
    *options = (struct option){NULL, 0, NULL, 0};
}

static int take_value(struct request *request, unsigned index, const char *value)
{
    struct config_entry entry;
    if (!config_describe(index, &entry))
        return tool_usage("no such option");
    if (value == NULL) {
        request->lone_switch = request->names[index];
        value = "1";
    }
    request->given[index] = true;
    int code = *value == '\0' ? unsetenv(entry.name) : setenv(entry.name, value, 1);
    return code == 0 ? TOOL_OK : tool_fail(TOOL_NOT_STARTED, "%s: %s", entry.name, strerror(errno));
}

/* *finished: there is nothing left to do but to return the status. */
static int read_options(struct request *request, int argc, char **argv, bool *finished)
{
    struct option options[VARIABLES_MAX + 4];
    int option, status = TOOL_OK;
    *finished = true;
    list_options(request, options);
    /* "+": what follows the program's name is the program's. */
    while ((option = getopt_long(argc, argv, "+h", options, NULL)) != -1) {
        if (option == OPTION_HELP)
            return print_help(request);
        if (option == '?')
            return TOOL_USAGE; /* getopt_long has said it */
        request->lone_switch = NULL;
        if (option == OPTION_PRELOAD)
            request->preload = optarg;
        else if (option == OPTION_PRINT)
            request->print = true;
        else
            status = take_value(request, (unsigned)(option - OPTION_VARIABLE), optarg);
        if (status != TOOL_OK)
            return status;
    }
    if (optind >= argc)
        return tool_usage("there is no program to run");
    request->command = argv + optind;
    *finished = false;
    return TOOL_OK;
}

/* ---- checks -------------------------------------------------------------------------------- */

/* Asks the parser that the program will meet. A number out of range is handed on as it was
 * taken, so that the user hears of it once. */
static int check_values(const struct request *request)
{
    struct settings settings;
    struct hak_error error;
    struct config_entry entry;
    int code = config_resolve(NULL, &settings, &error);
    for (unsigned i = 0; i < request->variable_count && config_describe(i, &entry); i++) {
        if (code == 0 && entry.verdict == 1 && setenv(entry.name, entry.used, 1) != 0)
            return tool_fail(TOOL_NOT_STARTED, "%s: %s", entry.name, strerror(errno));
        if (code != 0 && entry.verdict < 0 && request->given[i])
            return tool_fail(TOOL_USAGE, "--%s: %s", request->names[i], error.message);
        if (code != 0 && entry.verdict < 0)
            break;
    }
    return code == 0 ? TOOL_OK : tool_fail(TOOL_USAGE, "%s", error.message);
}

/* ---- printing and running ------------------------------------------------------------------ */

/* A word as a shell reads it back. */
static void print_word(const char *word)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                "_@%+=:,./-";
    if (*word != '\0' && word[strspn(word, plain)] == '\0') {
        fputs(word, stdout);
        return;
    }
    putchar('\'');
    for (; *word != '\0'; word++) {
        if (*word == '\'')
            fputs("'\\''", stdout);
        else
            putchar(*word);
    }
    putchar('\'');
}

static void print_setting(const char *name, const char *value)
{
    printf(" %s=", name);
    print_word(value);
}

/* One line that does the same when pasted into a shell. */
static void print_command(const struct request *request, const char *path)
{
    struct config_entry entry;
    const char *list = getenv(PRELOAD_VARIABLE);
    fputs("env", stdout);
    for (unsigned i = 0; i < request->variable_count && config_describe(i, &entry); i++)
        if (request->given[i] && entry.text == NULL)
            printf(" -u %s", entry.name);
    print_setting(PRELOAD_VARIABLE, list != NULL ? list : "");
    for (unsigned i = 0; i < request->variable_count && config_describe(i, &entry); i++)
        if (entry.text != NULL)
            print_setting(entry.name, entry.text);
    putchar(' ');
    print_word(path);
    for (char **argument = request->command + 1; *argument != NULL; argument++) {
        putchar(' ');
        print_word(*argument);
    }
    putchar('\n');
}

/* `--prefault 0 -- program` is read as the program 0. */
static int find_program(const struct request *request, char *path)
{
    int status = program_find(request->command[0], path);
    if (status == TOOL_NOT_FOUND && request->lone_switch != NULL)
        tool_fail(status, "a value of --%s follows an equals sign: --%s=%s", request->lone_switch,
                  request->lone_switch, request->command[0]);
    return status;
}

int hakmem_run(int argc, char **argv)
{
    static struct request request;
    struct elf_file library;
    char program[PATH_MAX], preload[PATH_MAX];
    bool finished;
    int status = read_options(&request, argc, argv, &finished);
    if (finished)
        return status;
    status = check_values(&request);
    if (status == TOOL_OK)
        status = find_program(&request, program);
    if (status == TOOL_OK)
        status = preload_find(request.preload, preload, &library);
    if (status == TOOL_OK)
        status = program_check(program, &library);
    if (status == TOOL_OK)
        status = preload_put_in_front(preload);
    if (status != TOOL_OK)
        return status;
    if (request.print) {
        print_command(&request, program);
        return TOOL_OK;
    }
    /* By its path, and so exactly the file that was looked at; execvp hands what is neither ELF nor
     * script to the shell. */
    execvp(program, request.command);
    return tool_fail(TOOL_NOT_EXECUTABLE, "%s: found, but cannot be executed: %s", program,
                     strerror(errno));
}
