/* SPDX-License-Identifier: MIT */
/*
 * Options of `hakmem reserve` and `hakmem release`. Sizes, page sizes and node lists are those of
 * the region's variables (region/config.c), and are read by the same parser: each value goes into
 * its variable, of which the rest of the environment is cleared. Called once, before anything else.
 */
#define _GNU_SOURCE
#include "tools/hakmem_reserve.h"

#include "region/config.h"
#include "region/os.h"
#include "tools/hakmem.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { OPTION_HELP = 'h', OPTION_SIZE = 256, OPTION_COUNT, OPTION_PAGES, OPTION_NODES };
enum { OPTION_KEEP = 512, OPTION_ALL };

#define COMMAND_BYTES 1024

static const char reserve_help[] =
    "usage: hakmem reserve --size SIZE | --count N [--pages 2M|1G] [--nodes LIST]\n"
    "                      [--keep-partial]\n\n"
    "Adds huge pages to the kernel's pools, node by node, until a region of that size finds\n"
    "them free; pages that are free already count. As root. It takes the whole of what is\n"
    "asked or gives back what it got, and notes in " STATE_FOLDER "/" STATE_FILE " what was\n"
    "added, for `hakmem release`. Pools do not outlive a boot.\n\n"
    "  --size SIZE     of a region, such as 8G: shared out evenly over the nodes, each share\n"
    "                  rounded up to whole pages\n"
    "  --count N       the same in pages, over all nodes together\n"
    "  --pages SIZE    2M (the default) or 1G\n"
    "  --nodes LIST    such as 0,2-3; otherwise all that have memory\n"
    "  --keep-partial  keep what could be had when it is not the whole (still exit status 1)\n"
    "  -h, --help      this text\n\n"
    "exit status: 0 so many pages are free; 1 they are not, or not all of them; 2 an option or\n"
    "a value cannot be understood; 125 they are free, but that could not be told (standard\n"
    "output is closed or full). Ended by SIGINT, SIGTERM, SIGHUP or SIGQUIT it has given\n"
    "everything back first.\n";

static const char release_help[] =
    "usage: hakmem release [--pages 2M|1G] [--nodes LIST] [--all]\n\n"
    "Takes the huge pages that `hakmem reserve` added out of the kernel's pools again, no more\n"
    "and no less. As root. Pages in use stay with who uses them: the kernel counts them as\n"
    "surplus and frees them afterwards.\n\n"
    "  --pages SIZE  only pages of this size\n"
    "  --nodes LIST  only on these nodes, such as 0,2-3\n"
    "  --all         everything; the same as no option\n"
    "  -h, --help    this text\n\n"
    "exit status: 0 done, or there was nothing; 1 the kernel did not do it; 2 an option or a\n"
    "value cannot be understood; 125 done, but that could not be told (standard output is closed\n"
    "or full).\n";

/* Only what the options say counts. */
static void clear_environment(void)
{
    struct config_entry entry;
    for (unsigned i = 0; config_describe(i, &entry); i++)
        unsetenv(entry.name);
}

static bool find_variable(const char *name, struct config_entry *entry)
{
    for (unsigned i = 0; config_describe(i, entry); i++)
        if (strcmp(entry->name, name) == 0)
            return true;
    return false;
}

static int take_value(const char *option, const char *variable, const char *value)
{
    struct config_entry entry;
    if (setenv(variable, value, 1) != 0)
        return tool_fail(RESERVE_FAILED, "--%s: %s", option, strerror(errno));
    if (!find_variable(variable, &entry))
        return tool_fail(RESERVE_FAILED, "--%s: %s is no variable of the library", option,
                         variable);
    /* No text: empty, or a process with others' rights, whose environment does not count. */
    if (entry.text == NULL || entry.verdict < 0)
        return tool_usage("--%s: '%s' cannot be understood; accepted: %s", option, value,
                          entry.accepted);
    if (entry.verdict != 0)
        return tool_usage("--%s: %s is out of range; accepted: %s", option, value, entry.accepted);
    return TOOL_OK;
}

static int take_count(struct reserve_request *request, const char *text)
{
    char *end = NULL;
    errno = 0;
    unsigned long long count = strtoull(text, &end, 10);
    if (text[strspn(text, "0123456789")] != '\0' || end == text || errno != 0 || count == 0)
        return tool_usage("--count: '%s' is not a number of pages, 1 or more", text);
    request->count = count;
    return TOOL_OK;
}

static int take_option(struct reserve_request *request, int option, const char *value)
{
    switch (option) {
    case OPTION_SIZE:
        request->size_bytes = 1; /* the figure comes with the settings */
        return take_value("size", "HAKMEM_REGION_SIZE", value);
    case OPTION_COUNT:
        return take_count(request, value);
    case OPTION_PAGES:
        request->pages_given = true;
        return take_value("pages", "HAKMEM_PAGES", value);
    case OPTION_NODES:
        request->nodes_given = true;
        return take_value("nodes", "HAKMEM_NODES", value);
    case OPTION_KEEP:
        request->keep_partial = true;
        return TOOL_OK;
    default:
        request->all = true;
        return TOOL_OK;
    }
}

static int take_settings(struct reserve_request *request)
{
    struct settings settings;
    struct hak_error error;
    if (config_resolve(NULL, &settings, &error) != 0)
        return tool_fail(TOOL_USAGE, "%s", error.message);
    if (request->size_bytes != 0)
        request->size_bytes = settings.size_bytes;
    request->nodes = settings.nodes;
    request->pages_count = 1;
    request->pages[0] = HAK_PAGES_2M;
    if (!request->pages_given)
        return TOOL_OK;
    request->pages_count = settings.pages_count;
    memcpy(request->pages, settings.pages, sizeof request->pages);
    for (unsigned i = 0; i < request->pages_count; i++)
        if (!os_pages_hugetlb(request->pages[i]))
            return tool_usage("--pages: %s come from no pool; it can be 2M or 1G",
                              os_pages_name(request->pages[i]));
    return TOOL_OK;
}

static int check_reserve(const struct reserve_request *request)
{
    if ((request->size_bytes != 0) == (request->count != 0))
        return tool_usage("either --size or --count says how much");
    if (request->pages_count != 1)
        return tool_usage("--pages: one size at a time");
    if (request->count > HAK_REGION_BYTES_MAX / os_pages_bytes(request->pages[0]))
        return tool_usage("--count: %llu pages are more than the 2 TiB that a region can have",
                          (unsigned long long)request->count);
    return TOOL_OK;
}

static int check_release(const struct reserve_request *request)
{
    if (request->all && (request->nodes_given || request->pages_given))
        return tool_usage("--all leaves nothing for --pages and --nodes to say");
    return TOOL_OK;
}

int reserve_options(struct reserve_request *request, int argc, char **argv, bool *finished)
{
    static const struct option options_of_reserve[] = {
        {"size", required_argument, NULL, OPTION_SIZE},
        {"count", required_argument, NULL, OPTION_COUNT},
        {"pages", required_argument, NULL, OPTION_PAGES},
        {"nodes", required_argument, NULL, OPTION_NODES},
        {"keep-partial", no_argument, NULL, OPTION_KEEP},
        {"help", no_argument, NULL, OPTION_HELP},
        {NULL, 0, NULL, 0}};
    static const struct option options_of_release[] = {
        {"pages", required_argument, NULL, OPTION_PAGES},
        {"nodes", required_argument, NULL, OPTION_NODES},
        {"all", no_argument, NULL, OPTION_ALL},
        {"help", no_argument, NULL, OPTION_HELP},
        {NULL, 0, NULL, 0}};
    const struct option *options = request->release ? options_of_release : options_of_reserve;
    int option, status = TOOL_OK;
    *finished = true;
    clear_environment();
    while ((option = getopt_long(argc, argv, "h", options, NULL)) != -1) {
        if (option == OPTION_HELP) {
            fputs(request->release ? release_help : reserve_help, stdout);
            return TOOL_OK;
        }
        if (option == '?')
            return TOOL_USAGE; /* getopt_long has said it */
        status = take_option(request, option, optarg);
        if (status != TOOL_OK)
            return status;
    }
    if (optind < argc)
        return tool_usage("takes options only: '%s'", argv[optind]);
    status = take_settings(request);
    if (status == TOOL_OK)
        status = request->release ? check_release(request) : check_reserve(request);
    *finished = status != TOOL_OK;
    return status;
}

/* The arguments were understood, so there is nothing in them that a shell would take apart. */
int reserve_need_root(int argc, char **argv)
{
    char command[COMMAND_BYTES];
    if (geteuid() == 0)
        return TOOL_OK;
    const char *word = strchr(argv[0], ' ');
    size_t length = (size_t)snprintf(command, sizeof command, "sudo %s%s", program_invocation_name,
                                     word == NULL ? "" : word);
    for (int i = 1; i < argc && length < sizeof command; i++)
        length += (size_t)snprintf(command + length, sizeof command - length, " %s", argv[i]);
    return tool_fail(RESERVE_FAILED, "only root can change the kernel's pools; run: %s", command);
}
