/* SPDX-License-Identifier: MIT */
/*
 * Adds a plan's demands up per real node, holds them against the supply (region/supply) and the
 * control groups' limits (region/cgroup), and composes the text. Called by region/backing for
 * every kind of page in the order of preference; each call appends to the same record, so that in
 * the end it tells why none of them could be had.
 *
 * The remedy is for the first kind that has one: commands for two kinds would provide twice.
 */
#define _GNU_SOURCE
#include "region/shortage.h"

#include "numa/topology.h"
#include "region/cgroup.h"
#include "region/errlog.h"
#include "region/os.h"
#include "region/supply.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define PATH_BYTES 256

/* What is asked of a real node, and what it has. */
struct demand {
    int node; /* as the plan names it, the first where several stand for one real node */
    int physical;
    uint64_t bytes;
    uint64_t there_bytes;
    uint64_t missing_bytes;
    uint64_t pool_pages; /* hugetlb */
};

struct demands {
    unsigned count;
    struct demand nodes[HAK_NODES_MAX];
    uint64_t bytes;
};

static uint64_t mib(uint64_t bytes)
{
    return bytes >> 20;
}

/* Says where the text had to be cut. */
static void close_text(char *text, size_t capacity)
{
    if (strlen(text) == capacity - 1)
        memset(text + capacity - 4, '.', 3);
}

#define SAY(error, ...) (void)errlog_append((error)->message, sizeof(error)->message, __VA_ARGS__)

static void add_up(const struct backing *plan, struct demands *out)
{
    memset(out, 0, sizeof *out);
    for (unsigned i = 0; i < plan->segment_count; i++) {
        int physical = topology_physical(plan->segments[i].node);
        unsigned at = 0;
        while (at < out->count && out->nodes[at].physical != physical)
            at++;
        if (at == out->count) {
            out->nodes[at].node = plan->segments[i].node;
            out->nodes[at].physical = physical;
            out->count++;
        }
        out->nodes[at].bytes += plan->segments[i].bytes;
        out->bytes += plan->segments[i].bytes;
    }
}

/* A command for each short node, whole lines only. */
static void add_remedy(const struct backing *plan, const struct demands *demands,
                       struct hak_error *error)
{
    if (error->remedy[0] != '\0')
        return;
    for (unsigned i = 0; i < demands->count; i++) {
        const struct demand *demand = &demands->nodes[i];
        if (demand->missing_bytes == 0)
            continue;
        char path[PATH_BYTES];
        supply_pool_path(demand->physical, plan->pages, "nr_hugepages", path, sizeof path);
        size_t before = strlen(error->remedy);
        uint64_t wanted = demand->pool_pages + demand->missing_bytes / plan->page_bytes;
        if (errlog_append(error->remedy, sizeof error->remedy, "echo %" PRIu64 " > %s\n", wanted,
                          path))
            continue;
        error->remedy[before] = '\0';
        SAY(error, " (the remedy lists the first nodes only)");
        return;
    }
}

static void note_first(const struct demands *demands, struct hak_error *error)
{
    for (unsigned i = 0; i < demands->count && error->node < 0; i++) {
        if (demands->nodes[i].missing_bytes == 0)
            continue;
        error->node = demands->nodes[i].node;
        error->free_bytes = (size_t)demands->nodes[i].there_bytes;
    }
}

/* Free pages may be promised to mappings that have not touched them yet. The kernel counts that
 * for the whole machine only, so what lacks there is laid on the first node. */
static uint64_t add_promised(const struct backing *plan, struct demands *demands, uint64_t missing)
{
    uint64_t unpromised = supply_unpromised(plan->pages) * plan->page_bytes;
    if (demands->bytes <= unpromised + missing)
        return 0;
    uint64_t lack = demands->bytes - unpromised - missing;
    demands->nodes[0].missing_bytes += lack;
    return lack;
}

static void say_hugetlb(const struct backing *plan, const struct demands *demands,
                        struct hak_error *error, bool *mendable)
{
    for (unsigned i = 0; i < demands->count; i++) {
        const struct demand *demand = &demands->nodes[i];
        if (demand->missing_bytes == 0)
            continue;
        SAY(error,
            " node %d needs %" PRIu64 ", %" PRIu64 " free of a pool of %" PRIu64 ", %" PRIu64
            " missing",
            demand->node, demand->bytes / plan->page_bytes, demand->there_bytes / plan->page_bytes,
            demand->pool_pages, demand->missing_bytes / plan->page_bytes);
        uint64_t ordinary = supply_ordinary(demand->physical);
        if (ordinary < demand->missing_bytes) {
            SAY(error, " and only %" PRIu64 " MiB of memory to make them of", mib(ordinary));
            *mendable = false;
        }
        SAY(error, ";");
    }
}

static int check_hugetlb(const struct backing *plan, struct hak_error *error)
{
    struct demands demands;
    uint64_t missing = 0;
    add_up(plan, &demands);
    for (unsigned i = 0; i < demands.count; i++) {
        struct demand *demand = &demands.nodes[i];
        struct supply_pool pool;
        if (supply_pool_read(demand->physical, plan->pages, &pool) != 0) {
            SAY(error, " %s pages: none of this size on this kernel or processor;",
                os_pages_name(plan->pages));
            return -ENOMEM;
        }
        demand->pool_pages = pool.total_pages;
        demand->there_bytes = pool.free_pages * plan->page_bytes;
        if (demand->there_bytes < demand->bytes)
            demand->missing_bytes = demand->bytes - demand->there_bytes;
        missing += demand->missing_bytes;
    }
    uint64_t promised = add_promised(plan, &demands, missing);
    uint64_t room = cgroup_hugetlb_room(plan->pages);
    if (missing + promised == 0 && room >= demands.bytes)
        return 0;
    bool mendable = true;
    note_first(&demands, error);
    SAY(error, " %s pages:", os_pages_name(plan->pages));
    say_hugetlb(plan, &demands, error, &mendable);
    if (promised != 0)
        SAY(error, " %" PRIu64 " of the free ones are promised to other mappings;",
            promised / plan->page_bytes);
    if (room < demands.bytes)
        SAY(error, " the hugetlb cgroup allows %" PRIu64 " more of %" PRIu64 " needed;",
            room / plan->page_bytes, demands.bytes / plan->page_bytes);
    if (plan->pages == HAK_PAGES_1G && missing != 0)
        SAY(error, " 1G pages are had most surely at boot, by hugepagesz=1G hugepages=N;");
    if (mendable && missing + promised != 0)
        add_remedy(plan, &demands, error);
    return -ENOMEM;
}

static int check_ordinary(const struct backing *plan, struct hak_error *error)
{
    struct demands demands;
    uint64_t missing = 0;
    add_up(plan, &demands);
    for (unsigned i = 0; i < demands.count; i++) {
        struct demand *demand = &demands.nodes[i];
        demand->there_bytes = supply_ordinary(demand->physical);
        if (demand->there_bytes < demand->bytes)
            demand->missing_bytes = demand->bytes - demand->there_bytes;
        missing += demand->missing_bytes;
    }
    uint64_t room = cgroup_memory_room();
    if (missing == 0 && room >= demands.bytes)
        return 0;
    note_first(&demands, error);
    SAY(error, " %s pages:", os_pages_name(plan->pages));
    for (unsigned i = 0; i < demands.count; i++) {
        const struct demand *demand = &demands.nodes[i];
        if (demand->missing_bytes != 0)
            SAY(error,
                " node %d needs %" PRIu64 " MiB, %" PRIu64 " available, %" PRIu64 " missing;",
                demand->node, mib(demand->bytes), mib(demand->there_bytes),
                mib(demand->missing_bytes + (1 << 20) - 1));
    }
    if (room < demands.bytes)
        SAY(error, " the memory cgroup allows %" PRIu64 " MiB more of %" PRIu64 " needed;",
            mib(room), mib(demands.bytes));
    return -ENOMEM;
}

int shortage_check(const struct backing *plan, bool prefault, struct hak_error *error)
{
    int code = 0;
    if (os_pages_hugetlb(plan->pages)) {
        code = check_hugetlb(plan, error);
    } else if (plan->pages == HAK_PAGES_THP && !supply_thp()) {
        SAY(error, " thp pages: transparent huge pages are switched off or not in the kernel;");
        if (error->remedy[0] == '\0')
            (void)errlog_append(error->remedy, sizeof error->remedy,
                                "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled\n");
        code = -ENOMEM;
    } else if (prefault) {
        code = check_ordinary(plan, error);
    }
    close_text(error->message, sizeof error->message);
    return code;
}

void shortage_explain(const struct backing *plan, const char *step, int code,
                      struct hak_error *error)
{
    const char *reason = strerrordesc_np(-code);
    SAY(error, " %s pages: %s: %s", os_pages_name(plan->pages), step,
        reason != NULL ? reason : "unknown error");
    if (os_pages_hugetlb(plan->pages) && code == -ENOMEM)
        SAY(error, " (the pool had enough before: somebody else was faster, or a hugetlb cgroup"
                   " limit that cannot be seen from here stands in the way)");
    SAY(error, ";");
    close_text(error->message, sizeof error->message);
}
