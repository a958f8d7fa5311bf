/* SPDX-License-Identifier: MIT */
/*
 * hakmem doctor: looks at the machine's settings as a region would meet them, and says of each
 * what was found, what to do about it, and where that is written.
 *
 * A check is a line of the table below and a function in one of hakmem_doctor_*.c. Findings are
 * printed as they come, or collected for JSON. With --root the files are those of another tree (a
 * container's, or one that was collected elsewhere): the tool makes it its own root, so that every
 * path below, the library's too, means a file of that tree.
 */
#define _GNU_SOURCE
#include "tools/hakmem_doctor.h"

#include "numa/sysfs.h"
#include "tools/hakmem.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DOCTOR_FOUND_BAD 1

struct check {
    const char *name;
    void (*run)(struct doctor *doctor);
    const char *source;
};

static const struct check checks[] = {
    {"kernel", check_kernel, "madvise(2), MADV_POPULATE_WRITE"},
    {"system-calls", check_system_calls, "mbind(2), move_pages(2), seccomp(2)"},
    {"huge-page-pools", check_pools, "Documentation/admin-guide/mm/hugetlbpage.rst"},
    {"huge-page-surplus", check_surplus, "Documentation/admin-guide/mm/hugetlbpage.rst"},
    {"hugetlbfs-mounts", check_mounts,
     "Documentation/admin-guide/mm/hugetlbpage.rst, Using Huge Pages"},
    {"hugetlb-cgroup", check_hugetlb_cgroup,
     "Documentation/admin-guide/cgroup-v2.rst, HugeTLB; cgroup-v1/hugetlb.rst"},
    {"thp", check_thp, "Documentation/admin-guide/mm/transhuge.rst"},
    {"thp-defrag", check_thp_defrag, "Documentation/admin-guide/mm/transhuge.rst"},
    {"khugepaged", check_khugepaged, "Documentation/admin-guide/mm/transhuge.rst"},
    {"memory-cgroup", check_memory_cgroup,
     "Documentation/admin-guide/cgroup-v2.rst, Memory; cgroup-v1/memory.rst"},
    {"cpuset", check_cpuset, "cpuset(7); Documentation/admin-guide/cgroup-v2.rst, Cpuset"},
    {"memlock", check_memlock, "getrlimit(2), RLIMIT_MEMLOCK; mlock(2)"},
    {"overcommit", check_overcommit, "Documentation/mm/overcommit-accounting.rst; proc(5)"},
    {"swap", check_swap, "Documentation/admin-guide/sysctl/vm.rst, swappiness"},
    {"numa-balancing", check_numa_balancing,
     "Documentation/admin-guide/sysctl/kernel.rst, numa_balancing; set_mempolicy(2)"},
    {"zone-reclaim", check_zone_reclaim,
     "Documentation/admin-guide/sysctl/vm.rst, zone_reclaim_mode"},
    {"map-count", check_map_count, "Documentation/admin-guide/sysctl/vm.rst, max_map_count"},
    {"isolated-processors", check_isolated,
     "Documentation/admin-guide/kernel-parameters.txt, isolcpus and nohz_full"},
    {"processor-governor", check_governor, "Documentation/admin-guide/pm/cpufreq.rst"},
    {"balloon", check_balloon, "Documentation/mm/free_page_reporting.rst; virtio 1.2, 5.5"},
};

static const char *const level_names[DOCTOR_LEVELS] = {"ok", "note", "warn", "bad"};

struct doctor {
    const struct check *check; /* that is running */
    cJSON *findings;           /* NULL: they are printed */
    bool incomplete;           /* memory ran out */
    unsigned counts[DOCTOR_LEVELS];
    char remedy[DOCTOR_TEXT_BYTES]; /* of the next finding; empty: none */
};

/* ---- findings ------------------------------------------------------------------------------- */

void doctor_remedy(struct doctor *doctor, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(doctor->remedy, sizeof doctor->remedy, format, arguments);
    va_end(arguments);
}

static void print_finding(const struct doctor *doctor, enum doctor_level level, const char *text)
{
    printf("%-4s  %s: %s\n", level_names[level], doctor->check->name, text);
    if (doctor->remedy[0] != '\0')
        printf("      remedy: %s\n", doctor->remedy);
    if (level != DOCTOR_OK)
        printf("      source: %s\n", doctor->check->source);
}

static void add_finding(struct doctor *doctor, enum doctor_level level, const char *text)
{
    cJSON *finding = cJSON_CreateObject();
    bool whole = cJSON_AddStringToObject(finding, "check", doctor->check->name) != NULL &&
                 cJSON_AddStringToObject(finding, "level", level_names[level]) != NULL &&
                 cJSON_AddStringToObject(finding, "finding", text) != NULL &&
                 (doctor->remedy[0] == '\0'
                      ? cJSON_AddNullToObject(finding, "remedy")
                      : cJSON_AddStringToObject(finding, "remedy", doctor->remedy)) != NULL &&
                 cJSON_AddStringToObject(finding, "source", doctor->check->source) != NULL;
    if (whole && cJSON_AddItemToArray(doctor->findings, finding))
        return;
    doctor->incomplete = true;
    cJSON_Delete(finding);
}

void doctor_say(struct doctor *doctor, enum doctor_level level, const char *format, ...)
{
    char text[DOCTOR_TEXT_BYTES];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    /* Both may quote a file, and be cut in the middle of a character. */
    tool_utf8(text);
    tool_printable(text);
    tool_utf8(doctor->remedy);
    tool_printable(doctor->remedy);
    doctor->counts[level]++;
    if (doctor->findings != NULL)
        add_finding(doctor, level, text);
    else
        print_finding(doctor, level, text);
    doctor->remedy[0] = '\0';
}

/* ---- what the checks share ------------------------------------------------------------------ */

bool doctor_read(const char *path, char *text, size_t capacity)
{
    int length = sysfs_read(path, text, capacity);
    if (length < 0)
        return false;
    if (length > 0 && text[length - 1] == '\n')
        text[length - 1] = '\0';
    return true;
}

bool doctor_choice(const char *path, char *word, size_t capacity)
{
    char text[256];
    if (!doctor_read(path, text, sizeof text))
        return false;
    const char *begin = strchr(text, '[');
    const char *end = begin == NULL ? NULL : strchr(begin, ']');
    if (end == NULL)
        return false;
    snprintf(word, capacity, "%.*s", (int)(end - begin - 1), begin + 1);
    return true;
}

const struct topology *doctor_nodes(void)
{
    static struct topology topology;
    static bool known;
    if (known)
        return &topology;
    known = true;
    if (topology_parse(TOPOLOGY_SYSFS, UINT64_MAX, &topology) != 0) {
        topology.node_end = 1;
        topology.nodes[0] = (struct topology_node){
            .exists = true, .has_memory = true, .has_cpus = true, .allowed = true};
    }
    return &topology;
}

unsigned doctor_memory_nodes(void)
{
    unsigned count = 0;
    for (unsigned i = 0; i < doctor_nodes()->node_end; i++)
        count += doctor_nodes()->nodes[i].has_memory;
    return count;
}

/* ---- the command ---------------------------------------------------------------------------- */

static int print_help(void)
{
    fputs("usage: hakmem doctor [--json] [--root DIR]\n\n"
          "Checks the machine's settings that matter to a region, and changes nothing. A line for\n"
          "each finding, with what to do about it and where that is written:\n\n"
          "  ok    as it should be\n"
          "  note  worth knowing; fine for many\n"
          "  warn  costs time, or makes a region fall back\n"
          "  bad   a region cannot be had, or dies\n\n"
          "  --json      the same as one JSON object\n"
          "  --root DIR  the /proc and /sys below DIR instead: a container's, or a tree that was\n"
          "              collected (needs root; what is asked of the kernel itself stays this\n"
          "              machine's)\n"
          "  -h, --help  this text\n\n"
          "checks:",
          stdout);
    for (size_t i = 0; i < sizeof checks / sizeof *checks; i++)
        printf("%s%s", i % 4 == 0 ? "\n  " : ", ", checks[i].name);
    puts("\n\nexit status: 0 nothing is bad; 1 something is; 2 an option cannot be understood;\n"
         "125 it could not be looked at, or not be told.");
    return TOOL_OK;
}

static int enter_root(const char *folder)
{
    if (chroot(folder) == 0 && chdir("/") == 0)
        return TOOL_OK;
    return tool_fail(TOOL_NOT_STARTED, "--root: %s: %s%s", folder, strerror(errno),
                     errno == EPERM ? "; only root can, or: unshare --map-root-user hakmem doctor"
                                    : "");
}

static void run_checks(struct doctor *doctor)
{
    for (size_t i = 0; i < sizeof checks / sizeof *checks; i++) {
        doctor->check = &checks[i];
        checks[i].run(doctor);
    }
}

static int report_json(struct doctor *doctor)
{
    cJSON *report = cJSON_CreateObject(), *counts = NULL;
    bool whole = cJSON_AddStringToObject(report, "version", hak_version()) != NULL;
    doctor->findings = cJSON_AddArrayToObject(report, "findings");
    if (doctor->findings != NULL)
        run_checks(doctor);
    counts = cJSON_AddObjectToObject(report, "counts");
    for (unsigned i = 0; i < DOCTOR_LEVELS && whole; i++)
        whole = cJSON_AddNumberToObject(counts, level_names[i], doctor->counts[i]) != NULL;
    char *text = whole && doctor->findings != NULL && !doctor->incomplete ? cJSON_Print(report)
                                                                          : NULL;
    cJSON_Delete(report);
    if (text == NULL)
        return tool_fail(TOOL_NOT_STARTED, "no memory for the report");
    puts(text);
    free(text);
    return TOOL_OK;
}

static void report_text(struct doctor *doctor)
{
    run_checks(doctor);
    printf("\n%u ok, %u note, %u warn, %u bad\n", doctor->counts[DOCTOR_OK],
           doctor->counts[DOCTOR_NOTE], doctor->counts[DOCTOR_WARN], doctor->counts[DOCTOR_BAD]);
}

int hakmem_doctor(int argc, char **argv)
{
    static const struct option options[] = {{"json", no_argument, NULL, 'j'},
                                            {"root", required_argument, NULL, 'r'},
                                            {"help", no_argument, NULL, 'h'},
                                            {NULL, 0, NULL, 0}};
    static struct doctor doctor;
    const char *root = NULL;
    bool json = false;
    int option, status = TOOL_OK;
    while ((option = getopt_long(argc, argv, "h", options, NULL)) != -1) {
        if (option == 'h')
            return print_help();
        if (option == '?')
            return TOOL_USAGE; /* getopt_long has said it */
        json |= option == 'j';
        root = option == 'r' ? optarg : root;
    }
    if (optind < argc)
        return tool_usage("takes options only: '%s'", argv[optind]);
    if (root != NULL)
        status = enter_root(root);
    if (status != TOOL_OK)
        return status;
    if (json)
        status = report_json(&doctor);
    else
        report_text(&doctor);
    if (status != TOOL_OK)
        return status;
    return doctor.counts[DOCTOR_BAD] != 0 ? DOCTOR_FOUND_BAD : TOOL_OK;
}
