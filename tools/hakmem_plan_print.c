/* SPDX-License-Identifier: MIT */
/*
 * The plan as a page of text: a table with a row per page size and node, the limits, the verdict in
 * one sentence, the commands. Figures that do not apply are a dash, those nobody can tell a
 * question mark.
 */
#define _GNU_SOURCE
#include "region/os.h"
#include "tools/hakmem_plan.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define CELL_BYTES 32

static const char *cell(char *text, bool applies, uint64_t value)
{
    if (!applies)
        return "-";
    if (value == UINT64_MAX)
        return "?";
    snprintf(text, CELL_BYTES, "%" PRIu64, value);
    return text;
}

static const char *mib(char *text, bool applies, uint64_t bytes)
{
    if (applies && bytes != UINT64_MAX)
        snprintf(text, CELL_BYTES, "%" PRIu64 " MiB", bytes >> 20);
    return applies && bytes != UINT64_MAX ? text : cell(text, applies, bytes);
}

static void print_row(const struct hak_plan_kind *kind, const struct hak_plan_node *node)
{
    char wanted[CELL_BYTES], there[CELL_BYTES], pool[CELL_BYTES], missing[CELL_BYTES],
        memory[CELL_BYTES];
    bool hugetlb = os_pages_hugetlb(kind->pages);
    printf("%-6s %4d %10s %10s %10s %10s  %s\n", os_pages_name(kind->pages), node->node,
           cell(wanted, true, node->wanted_pages), cell(there, true, node->free_pages),
           cell(pool, hugetlb, node->pool_pages), cell(missing, true, node->missing_pages),
           mib(memory, hugetlb, node->memory_bytes));
}

static void print_table(const struct hak_plan *plan)
{
    printf("%-6s %4s %10s %10s %10s %10s  %s\n", "pages", "node", "wanted", "free", "pool",
           "missing", "memory to make them");
    for (unsigned i = 0; i < plan->kind_count; i++)
        for (unsigned n = 0; n < plan->kinds[i].node_count; n++)
            print_row(&plan->kinds[i], &plan->kinds[i].nodes[n]);
    putchar('\n');
}

static void print_limits(const struct hak_plan *plan)
{
    char text[CELL_BYTES];
    bool memory_shown = false;
    puts("limits:");
    for (unsigned i = 0; i < plan->kind_count; i++) {
        const struct hak_plan_kind *kind = &plan->kinds[i];
        bool hugetlb = os_pages_hugetlb(kind->pages);
        const char *room = kind->cgroup_bytes == UINT64_MAX ? "no limit"
                                                            : mib(text, true, kind->cgroup_bytes);
        if (hugetlb)
            printf("  hugetlb cgroup, %s pages: %s%s; promised to others: %" PRIu64 " pages\n",
                   os_pages_name(kind->pages), room,
                   kind->cgroup_bytes == UINT64_MAX ? "" : " left", kind->promised_pages);
        else if (!memory_shown)
            printf("  memory cgroup: %s%s\n", room,
                   kind->cgroup_bytes == UINT64_MAX ? "" : " left");
        memory_shown = memory_shown || !hugetlb;
    }
    printf(
        "  RLIMIT_MEMLOCK: %s (init locks nothing; what the program adds by mlock(2) counts)\n\n",
        plan->memlock_bytes == UINT64_MAX ? "no limit" : mib(text, true, plan->memlock_bytes));
}

static void print_verdict(const struct hak_plan *plan)
{
    if (plan->code != 0)
        printf("init would fail with -%s: %s\n", strerrorname_np(-plan->code), plan->message);
    else if (plan->chosen == 0)
        printf("init would succeed, with %s pages and %zu MiB.\n",
               os_pages_name(plan->kinds[0].pages), plan->kinds[0].size_bytes >> 20);
    else
        printf("init would succeed, but not with the first page size: %s\n", plan->message);
}

/* Indented, so that they stand out; a shell does not mind. */
static void print_commands(const char *title, const char *lines)
{
    if (lines[0] == '\0')
        return;
    printf("\n%s\n", title);
    while (*lines != '\0') {
        size_t length = strcspn(lines, "\n");
        printf("  %.*s\n", (int)length, lines);
        lines += length + (lines[length] == '\n');
    }
}

void plan_print(const struct hak_plan *plan)
{
    if (plan->kind_count != 0) {
        print_table(plan);
        print_limits(plan);
    }
    print_verdict(plan);
    print_commands("what is missing, now, as root:", plan->now);
    print_commands("the same by hugeadm (packages libhugetlbfs-bin and, for nodes, numactl):",
                   plan->hugeadm);
    print_commands("from boot on, on the kernel's command line, in place of what it has for these "
                   "pages:",
                   plan->boot);
}
