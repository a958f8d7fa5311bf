/* SPDX-License-Identifier: MIT */
/*
 * hakmem plan: what a region would find on this machine, and what it lacks. Changes nothing.
 *
 * The options become environment variables, hak_region_plan answers as hak_region_init would, and
 * hakmem_plan_print.c or hakmem_plan_json.c shows it.
 */
#define _GNU_SOURCE
#include "tools/hakmem_plan.h"
#include "region/config.h"
#include "tools/hakmem.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Beside TOOL_OK and TOOL_USAGE. */
#define PLAN_WOULD_FAIL 1

enum { OPTION_JSON, OPTION_HELP, OPTION_VARIABLE };

/* Options that stand for variables; their numbers follow OPTION_VARIABLE. */
static const struct {
    const char *option, *variable;
} variables[] = {{"size", "HAKMEM_REGION_SIZE"},
                 {"pages", "HAKMEM_PAGES"},
                 {"nodes", "HAKMEM_NODES"},
                 {"prefault", "HAKMEM_PREFAULT"}};
#define VARIABLES (sizeof variables / sizeof *variables)

struct request {
    bool given[VARIABLES];
    bool json;
};

static bool describe(const char *name, struct config_entry *out)
{
    for (unsigned i = 0; config_describe(i, out); i++)
        if (strcmp(out->name, name) == 0)
            return true;
    return false;
}

static int print_help(void)
{
    struct config_entry entry;
    puts("usage: hakmem plan [options]\n\n"
         "Says what a region would find on this machine now, per page size and node, whether\n"
         "hak_region_init would succeed, and the commands that would make it. Changes nothing.\n");
    for (size_t i = 0; i < VARIABLES; i++) {
        if (!describe(variables[i].variable, &entry))
            continue;
        printf("  --%-9s VALUE  (%s)\n      accepted: %s\n      default: %s\n", variables[i].option,
               entry.name, entry.accepted, entry.fallback);
        if (entry.text != NULL)
            printf("      now: %s%s%s\n", entry.text,
                   entry.verdict < 0 ? "  <- cannot be understood"
                                     : (entry.verdict == 1 ? ", out of range: taken as " : ""),
                   entry.used);
    }
    puts("  --json             the answer as a JSON object\n"
         "  -h, --help         this text\n\n"
         "An option wins over the variable beside it; with an empty value (--size=) the default\n"
         "holds. The other variables of the environment count too (hakmem run --help lists them).\n"
         "What is shown of ordinary memory (thp, 4k) is about so much. Run it as the user, in the\n"
         "cgroup and with the limits that the program will have.\n\n"
         "exit status:\n"
         "  0  init would succeed, with one of the page sizes of the list\n"
         "  1  it would not\n"
         "  2  an option or its value cannot be understood\n"
         "  125  the answer could not be had, or not be told");
    return TOOL_OK;
}

/* *finished: there is nothing left to do but to return the status. */
static int read_options(struct request *request, int argc, char **argv, bool *finished)
{
    struct option options[VARIABLES + 3] = {{NULL, 0, NULL, 0}};
    int option;
    *finished = true;
    for (size_t i = 0; i < VARIABLES; i++)
        options[i] = (struct option){variables[i].option, required_argument, NULL,
                                     OPTION_VARIABLE + (int)i};
    options[VARIABLES] = (struct option){"json", no_argument, NULL, OPTION_JSON};
    options[VARIABLES + 1] = (struct option){"help", no_argument, NULL, OPTION_HELP};
    while ((option = getopt_long(argc, argv, "h", options, NULL)) != -1) {
        if (option == OPTION_HELP || option == 'h')
            return print_help();
        if (option == '?')
            return TOOL_USAGE; /* getopt_long has said it */
        if (option == OPTION_JSON) {
            request->json = true;
            continue;
        }
        size_t index = (size_t)(option - OPTION_VARIABLE);
        const char *name = variables[index].variable;
        request->given[index] = true;
        if ((*optarg == '\0' ? unsetenv(name) : setenv(name, optarg, 1)) != 0)
            return tool_fail(TOOL_NOT_STARTED, "%s: %s", name, strerror(errno));
    }
    if (optind < argc)
        return tool_usage("%s: not an option", argv[optind]);
    *finished = false;
    return TOOL_OK;
}

/* A value that an option gave and nobody understands is the user's mistake here and now; one in the
 * environment is a part of the answer. */
static int check_values(const struct request *request)
{
    struct config_entry entry;
    for (size_t i = 0; i < VARIABLES; i++)
        if (request->given[i] && describe(variables[i].variable, &entry) && entry.verdict < 0)
            return tool_usage("--%s %s: cannot be understood; accepted: %s", variables[i].option,
                              entry.text, entry.accepted);
    return TOOL_OK;
}

int hakmem_plan(int argc, char **argv)
{
    static struct hak_plan plan;
    struct request request = {.json = false};
    bool finished;
    int status = read_options(&request, argc, argv, &finished);
    if (finished)
        return status;
    status = check_values(&request);
    if (status != TOOL_OK)
        return status;
    int code = hak_region_plan(NULL, &plan);
    if (code != 0)
        return tool_fail(TOOL_NOT_STARTED, "%s", strerror(-code));
    if (!request.json)
        plan_print(&plan);
    else if (!plan_print_json(&plan))
        return tool_fail(TOOL_NOT_STARTED, "no memory for the answer");
    return plan.code == 0 ? TOOL_OK : PLAN_WOULD_FAIL;
}
