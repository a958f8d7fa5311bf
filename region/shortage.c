/* SPDX-License-Identifier: MIT */
/*
 * Puts findings (region/plan) into words and commands. Called by region/backing for every kind of
 * page in the order of preference, each call appending to the same record, so that in the end it
 * tells why none of them could be had; and by alloc/plan for hak_region_plan.
 *
 * The remedy is for the first kind that has one: commands for two kinds would provide twice.
 */
#define _GNU_SOURCE
#include "region/shortage.h"

#include "numa/topology.h"
#include "region/errlog.h"
#include "region/os.h"
#include "region/supply.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define PATH_BYTES 256
/* Of the line for the boot; the words of 64 nodes are within it. */
#define LINE_BYTES 1024
#define THP_FILE "/sys/kernel/mm/transparent_hugepage/enabled"

static uint64_t mib(uint64_t bytes)
{
    return bytes >> 20;
}

/* Of what is lacking: never 0 where something is. */
static uint64_t mib_up(uint64_t bytes)
{
    return (bytes >> 20) + ((bytes & ((1 << 20) - 1)) != 0);
}

/* Says where the text had to be cut. */
static void close_text(char *text, size_t capacity)
{
    if (strlen(text) == capacity - 1)
        memset(text + capacity - 4, '.', 3);
}

#define SAY(...) (void)errlog_append(text, capacity, __VA_ARGS__)

/* ---- why ----------------------------------------------------------------------------------- */

static void say_pools(const struct plan_finding *finding, char *text, size_t capacity)
{
    for (unsigned i = 0; i < finding->kind.node_count; i++) {
        const struct hak_plan_node *node = &finding->kind.nodes[i];
        if (node->missing_pages == 0)
            continue;
        SAY(" node %d needs %" PRIu64 ", %" PRIu64 " free of a pool of %" PRIu64 ", %" PRIu64
            " missing",
            node->node, node->wanted_pages, node->free_pages, node->pool_pages,
            node->missing_pages);
        if (node->memory_bytes < node->missing_pages * finding->kind.page_bytes)
            SAY(" and only %" PRIu64 " MiB of memory to make them of", mib(node->memory_bytes));
        SAY(";");
    }
    if (finding->promised_lack != 0)
        SAY(" %" PRIu64 " of the free ones are promised to other mappings;",
            finding->promised_lack);
}

static void say_memory(const struct plan_finding *finding, char *text, size_t capacity)
{
    for (unsigned i = 0; i < finding->kind.node_count; i++) {
        const struct hak_plan_node *node = &finding->kind.nodes[i];
        const uint64_t page = finding->kind.page_bytes;
        if (node->missing_pages != 0)
            SAY(" node %d needs %" PRIu64 " MiB, %" PRIu64 " available, %" PRIu64 " missing;",
                node->node, mib(node->wanted_pages * page), mib(node->free_pages * page),
                mib_up(node->missing_pages * page));
    }
}

/* One file may limit both: the memory cgroup's, where hugetlb pages are counted there too. */
static bool one_limit(const struct plan_finding *finding)
{
    return finding->hugetlb.file[0] != '\0' &&
           strcmp(finding->hugetlb.file, finding->memory.file) == 0;
}

/* What the limit has to be. The kernel rounds down to whole pages. */
static uint64_t enough(const struct plan_finding *finding, const struct cgroup_limit *limit)
{
    const uint64_t page = 4096;
    uint64_t needed = 0;
    if (limit == &finding->hugetlb || one_limit(finding))
        needed += finding->kind.size_bytes;
    if (limit == &finding->memory || one_limit(finding))
        needed += finding->memory_bytes;
    return (limit->usage_bytes + needed + page - 1) / page * page;
}

static void say_file(const struct plan_finding *finding, const struct cgroup_limit *limit,
                     char *text, size_t capacity)
{
    if (limit->file[0] != '\0')
        SAY(" (raise %s to %" PRIu64 ")", limit->file, enough(finding, limit));
    SAY(";");
}

/* What the process may have, whatever the machine has. */
static void say_limits(const struct plan_finding *finding, char *text, size_t capacity)
{
    const uint64_t bytes = finding->kind.size_bytes, page = finding->kind.page_bytes;
    if (finding->hugetlb.room_bytes < bytes) {
        SAY(" the hugetlb cgroup allows %" PRIu64 " more of %" PRIu64 " needed",
            finding->hugetlb.room_bytes / page, bytes / page);
        say_file(finding, &finding->hugetlb, text, capacity);
    }
    if (finding->memory.room_bytes < finding->memory_bytes) {
        SAY(" the memory cgroup allows %" PRIu64 " MiB more of %" PRIu64 " needed",
            mib(finding->memory.room_bytes), mib_up(finding->memory_bytes));
        say_file(finding, &finding->memory, text, capacity);
    }
    if (finding->address_bytes < bytes)
        SAY(" the process may map %" PRIu64 " MiB more of %" PRIu64
            " needed (raise its limits, ulimit -v and -d);",
            mib(finding->address_bytes), mib_up(bytes));
    if (finding->commit_bytes < bytes)
        SAY(" the kernel promises %" PRIu64 " MiB more of %" PRIu64
            " needed (vm.overcommit_memory is 2: raise vm.overcommit_ratio);",
            mib(finding->commit_bytes), mib_up(bytes));
}

void shortage_say(const struct plan_finding *finding, char *text, size_t capacity)
{
    const bool hugetlb = os_pages_hugetlb(finding->kind.pages);
    SAY(" %s pages:", os_pages_name(finding->kind.pages));
    if (!finding->there)
        SAY(hugetlb ? " none of this size on this kernel or processor;"
                    : " transparent huge pages are switched off or not in the kernel;");
    else if (!finding->populates)
        SAY(" faulting them in without a signal needs Linux 5.14;");
    else if (hugetlb)
        say_pools(finding, text, capacity);
    else
        say_memory(finding, text, capacity);
    if (finding->there && finding->table_node >= 0)
        SAY(" the allocator's tables need %" PRIu64 " MiB of ordinary memory on node %d, %" PRIu64
            " available;",
            mib_up(finding->table_node_bytes), finding->table_node, mib(finding->table_node_there));
    if (finding->there)
        say_limits(finding, text, capacity);
    if (finding->there && finding->kind.pages == HAK_PAGES_1G && finding->missing_pages != 0)
        SAY(" 1G pages are had most surely at boot, by hugepagesz=1G hugepages=N;");
    close_text(text, capacity);
}

/* ---- what to do ---------------------------------------------------------------------------- */

/* A whole line or nothing of it. */
static bool __attribute__((format(printf, 3, 4)))
add_line(char *text, size_t capacity, const char *format, ...)
{
    va_list arguments;
    size_t used = strlen(text);
    va_start(arguments, format);
    int length = vsnprintf(text + used, capacity - used, format, arguments);
    va_end(arguments);
    if (length >= 0 && (size_t)length < capacity - used)
        return true;
    text[used] = '\0';
    return false;
}

bool shortage_word(const char *name, char *word, size_t capacity)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                "/._-+,=:@%";
    if (name[0] != '\0' && name[strspn(name, plain)] == '\0')
        return snprintf(word, capacity, "%s", name) < (int)capacity;
    word[0] = '\0';
    bool whole = errlog_append(word, capacity, "'");
    for (; *name != '\0'; name++)
        whole = whole && (*name == '\'' ? errlog_append(word, capacity, "'\\''")
                                        : errlog_append(word, capacity, "%c", *name));
    return whole && errlog_append(word, capacity, "'");
}

/* Of a real node, whichever of the plan's nodes stand for it. */
static uint64_t missing_on(const struct plan_finding *finding, int physical)
{
    uint64_t missing = 0;
    for (unsigned i = 0; i < finding->kind.node_count; i++)
        if (topology_physical(finding->kind.nodes[i].node) == physical)
            missing += finding->kind.nodes[i].missing_pages;
    return missing;
}

/* Real nodes of the machine that have memory, as bits. */
static uint64_t real_nodes(struct topology *topology)
{
    uint64_t mask = 0;
    if (topology_read(topology) != 0)
        return 0;
    for (unsigned node = 0; node < topology->node_end; node++)
        if (topology->nodes[node].exists && topology->nodes[node].has_memory)
            mask |= UINT64_C(1) << topology_physical((int)node);
    return mask;
}

/* Whether the nodes have the memory to make the missing pages of. */
static bool can_be_made(const struct plan_finding *finding)
{
    for (unsigned i = 0; i < finding->kind.node_count; i++) {
        const struct hak_plan_node *node = &finding->kind.nodes[i];
        if (node->memory_bytes < node->missing_pages * finding->kind.page_bytes)
            return false;
    }
    return true;
}

static bool add_command(const struct plan_finding *finding, int physical, uint64_t missing,
                        enum shortage_means means, bool alone, char *text, size_t capacity)
{
    const enum hak_pages pages = finding->kind.pages;
    const char *name = os_pages_name(pages);
    struct supply_pool pool;
    char path[PATH_BYTES];
    if (supply_pool_read(physical, pages, &pool) != 0)
        return true;
    if (means == SHORTAGE_SYSFS) {
        supply_pool_path(physical, pages, "nr_hugepages", path, sizeof path);
        return add_line(text, capacity, "echo %" PRIu64 " > %s\n", pool.total_pages + missing,
                        path);
    }
    /* hugeadm counts from the pool without the surplus, which the kernel then turns into pool
     * pages first; and has no option for a node, but adds where the memory policy says. */
    missing += pool.surplus_pages;
    if (alone)
        return add_line(text, capacity, "hugeadm --pool-pages-min %s:+%" PRIu64 "\n", name,
                        missing);
    return add_line(text, capacity,
                    "numactl --membind=%d hugeadm --obey-mempolicy --pool-pages-min %s:+%" PRIu64
                    "\n",
                    physical, name, missing);
}

static bool add_commands(const struct plan_finding *finding, enum shortage_means means, char *text,
                         size_t capacity)
{
    struct topology topology;
    uint64_t nodes = real_nodes(&topology), done = 0;
    const bool alone = (nodes & (nodes - 1)) == 0;
    if (!can_be_made(finding))
        return true;
    for (unsigned i = 0; i < finding->kind.node_count; i++) {
        int physical = topology_physical(finding->kind.nodes[i].node);
        uint64_t missing = missing_on(finding, physical);
        if (missing == 0 || (done >> physical & 1) != 0)
            continue;
        done |= UINT64_C(1) << physical;
        if (!add_command(finding, physical, missing, means, alone, text, capacity))
            return false;
    }
    return true;
}

/* The words replace what stands there for this size, so they have every node's pool as it is now
 * and what is missing. Memory that is taken now is free at boot: what counts is the node's whole,
 * of which the rest of the machine needs a part. Node by node: Linux 5.16. */
static bool add_boot_words(const struct plan_finding *finding, char *text, size_t capacity)
{
    struct topology topology;
    char line[LINE_BYTES] = "";
    uint64_t nodes = real_nodes(&topology), left = nodes;
    const uint64_t page = finding->kind.page_bytes;
    bool whole = errlog_append(line, sizeof line,
                               "hugepagesz=%s hugepages=", os_pages_name(finding->kind.pages));
    uint64_t total_bytes[TOPOLOGY_NODES_MAX] = {0};
    for (unsigned node = 0; node < topology.node_end; node++)
        total_bytes[topology_physical((int)node)] += topology.nodes[node].total_bytes;
    for (const char *comma = ""; left != 0; left &= left - 1, comma = ",") {
        int node = __builtin_ctzll(left);
        struct supply_pool pool = {.total_pages = 0};
        (void)supply_pool_read(node, finding->kind.pages, &pool);
        uint64_t pages = pool.total_pages + missing_on(finding, node);
        if (pages * page > total_bytes[node] - total_bytes[node] / 16)
            return true;
        whole = whole &&
                ((nodes & (nodes - 1)) == 0
                     ? errlog_append(line, sizeof line, "%" PRIu64, pages)
                     : errlog_append(line, sizeof line, "%s%d:%" PRIu64, comma, node, pages));
    }
    return whole && add_line(text, capacity, "%s", line);
}

static bool add_thp(enum shortage_means means, char *text, size_t capacity)
{
    static const char *const lines[] = {
        [SHORTAGE_SYSFS] = "echo madvise > " THP_FILE "\n",
        [SHORTAGE_HUGEADM] = "hugeadm --thp-madvise\n",
        [SHORTAGE_BOOT] = "transparent_hugepage=madvise",
    };
    /* A kernel without the file has none to switch on. */
    return access(THP_FILE, F_OK) != 0 || add_line(text, capacity, "%s", lines[means]);
}

static bool add_limit(const struct plan_finding *finding, const struct cgroup_limit *limit,
                      char *text, size_t capacity)
{
    char word[2 * CGROUP_FILE_BYTES];
    /* No line for a file that has no name; the message has told. */
    return limit->file[0] == '\0' ||
           (shortage_word(limit->file, word, sizeof word) &&
            add_line(text, capacity, "echo %" PRIu64 " > %s\n", enough(finding, limit), word));
}

/* Where more room in the control group would be of use: nothing else is lacking for good. */
static bool limits_matter(const struct plan_finding *finding)
{
    if (!finding->populates || finding->table_node >= 0)
        return false;
    return os_pages_hugetlb(finding->kind.pages) ? can_be_made(finding)
                                                 : finding->missing_pages == 0;
}

static bool add_limits(const struct plan_finding *finding, char *text, size_t capacity)
{
    const bool hugetlb = finding->hugetlb.room_bytes < finding->kind.size_bytes;
    const bool memory = finding->memory.room_bytes < finding->memory_bytes;
    if (!limits_matter(finding))
        return true;
    if (hugetlb && !add_limit(finding, &finding->hugetlb, text, capacity))
        return false;
    return !memory || (hugetlb && one_limit(finding)) ||
           add_limit(finding, &finding->memory, text, capacity);
}

bool shortage_commands(const struct plan_finding *finding, enum shortage_means means, char *text,
                       size_t capacity)
{
    bool whole = true;
    if (!finding->there)
        return finding->kind.pages != HAK_PAGES_THP || add_thp(means, text, capacity);
    if (os_pages_hugetlb(finding->kind.pages) && finding->missing_pages != 0)
        whole = means == SHORTAGE_BOOT ? add_boot_words(finding, text, capacity)
                                       : add_commands(finding, means, text, capacity);
    if (whole && means == SHORTAGE_SYSFS)
        whole = add_limits(finding, text, capacity);
    return whole;
}

/* ---- set-up -------------------------------------------------------------------------------- */

static void note_first(const struct plan_finding *finding, struct hak_error *error)
{
    for (unsigned i = 0; i < finding->kind.node_count && error->node < 0; i++) {
        const struct hak_plan_node *node = &finding->kind.nodes[i];
        if (node->missing_pages == 0)
            continue;
        error->node = node->node;
        error->free_bytes = node->free_pages * finding->kind.page_bytes;
    }
}

int shortage_check(const struct backing *plan, bool prefault, struct hak_error *error)
{
    struct plan_finding finding;
    plan_begin(plan->pages, prefault, &finding);
    finding.verdict_only = true;
    for (unsigned i = 0; i < plan->segment_count; i++)
        plan_wish(&finding, plan->segments[i].node, plan->segments[i].bytes);
    plan_look(&finding);
    if (finding.kind.code == 0)
        return 0;
    note_first(&finding, error);
    shortage_say(&finding, error->message, sizeof error->message);
    if (error->remedy[0] == '\0' &&
        !shortage_commands(&finding, SHORTAGE_SYSFS, error->remedy, sizeof error->remedy))
        (void)errlog_append(error->message, sizeof error->message,
                            " (the remedy has no room for every command)");
    close_text(error->message, sizeof error->message);
    return finding.kind.code;
}

void shortage_explain(const struct backing *plan, const char *step, int code,
                      struct hak_error *error)
{
    char *text = error->message;
    const size_t capacity = sizeof error->message;
    const char *reason = strerrordesc_np(-code);
    SAY(" %s pages: %s: %s", os_pages_name(plan->pages), step,
        reason != NULL ? reason : "unknown error");
    if (os_pages_hugetlb(plan->pages) && code == -ENOMEM)
        SAY(" (the pool had enough before: somebody else was faster, or a hugetlb cgroup"
            " limit that cannot be seen from here stands in the way)");
    SAY(";");
    close_text(text, capacity);
}
