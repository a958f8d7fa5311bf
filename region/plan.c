/* SPDX-License-Identifier: MIT */
/*
 * Adds wishes up per real node and holds them against the supply (region/supply), the control
 * groups' limits (region/cgroup) and the process's own. Called by region/shortage for a set-up
 * under way, by alloc/plan for hak_region_plan, and by region/backing for the layout.
 *
 * Invariants of a finding that was looked at: kind.code is 0 exactly if set-up would get past the
 * check with this kind; missing_pages is the sum over the nodes; every figure is of one moment a
 * node, since others go on taking and giving.
 */
#include "region/plan.h"

#include "numa/topology.h"
#include "region/base.h"
#include "region/errlog.h"
#include "region/os.h"
#include "region/supply.h"

#include <errno.h>
#include <string.h>

/* Tables are at most 1.6 % of a region: a 64th. */
#define TABLES_LOG2 6

/* A real node's supply, as it is dealt out to the nodes that stand for it. */
struct purse {
    int physical;
    struct supply_pool pool;
    uint64_t free_pages;
    uint64_t ordinary_bytes;
};

struct purses {
    unsigned count;
    struct purse of[HAK_NODES_MAX];
};

size_t plan_grain(enum hak_pages pages)
{
    return max_size(HAK_SUPERSLAB_BYTES, os_pages_bytes(pages));
}

size_t plan_share(size_t bytes, unsigned node_count, enum hak_pages pages)
{
    size_t grain = plan_grain(pages);
    size_t share = round_up((bytes + node_count - 1) / node_count, grain);
    if (share * node_count > HAK_REGION_BYTES_MAX)
        share = round_down(HAK_REGION_BYTES_MAX / node_count, grain);
    return share;
}

/* ---- nodes --------------------------------------------------------------------------------- */

/* Why a node in the caller's list cannot be used; NULL: it can. */
static const char *node_fault(const struct topology_node *node)
{
    if (!node->exists)
        return "does not exist";
    if (!node->has_memory)
        return "has no memory";
    return node->allowed ? NULL : "may not be used by this process (cpuset or numactl)";
}

/* As in HAKMEM_NODES: "0,2-3". */
static void write_nodes(uint64_t mask, char *text, size_t capacity)
{
    text[0] = '\0';
    for (int node = 0; node < HAK_NODES_MAX; node++) {
        int last = node;
        if ((mask >> node & 1) == 0)
            continue;
        while (last + 1 < HAK_NODES_MAX && (mask >> (last + 1) & 1) != 0)
            last++;
        (void)errlog_append(text, capacity, last > node ? "%s%d-%d" : "%s%d",
                            text[0] == '\0' ? "" : ",", node, last);
        node = last;
    }
}

int plan_nodes(uint64_t wanted, uint64_t *mask, struct hak_error *error)
{
    struct topology topology;
    char list[192];
    int code = topology_read(&topology);
    if (code != 0)
        return errlog_fail(error, code, HAK_ERROR_SETUP, "the machine's nodes cannot be read");
    uint64_t usable = topology_memory_mask(&topology);
    *mask = wanted != 0 ? wanted : usable;
    if (usable == 0)
        return errlog_fail(error, -ENODEV, HAK_ERROR_SETUP,
                           "no node that this process may use has memory; see Mems_allowed_list in "
                           "/proc/self/status");
    uint64_t refused = *mask & ~usable;
    if (refused == 0)
        return 0;
    int node = __builtin_ctzll(refused);
    write_nodes(usable, list, sizeof list);
    code = errlog_fail(error, -ENODEV, HAK_ERROR_SETUP, "node %d %s; nodes that can be used: %s",
                       node, node_fault(&topology.nodes[node]), list);
    if (error != NULL)
        error->node = node;
    return code;
}

/* ---- wishes -------------------------------------------------------------------------------- */

void plan_begin(enum hak_pages pages, bool prefault, struct plan_finding *out)
{
    memset(out, 0, sizeof *out);
    out->kind.pages = pages;
    out->kind.page_bytes = os_pages_bytes(pages);
    out->prefault = prefault;
    out->table_node = -1;
}

void plan_wish(struct plan_finding *finding, int node, size_t bytes)
{
    struct hak_plan_kind *kind = &finding->kind;
    struct hak_plan_node *added = &kind->nodes[kind->node_count++];
    added->node = node;
    added->wanted_pages = bytes / kind->page_bytes;
    kind->size_bytes += bytes;
    finding->wanted_pages += added->wanted_pages;
}

/* ---- what there is ------------------------------------------------------------------------- */

static struct purse *find_purse(struct purses *purses, int node, enum hak_pages pages, bool *there)
{
    int physical = topology_physical(node);
    for (unsigned i = 0; i < purses->count; i++)
        if (purses->of[i].physical == physical)
            return &purses->of[i];
    struct purse *purse = &purses->of[purses->count++];
    memset(purse, 0, sizeof *purse);
    purse->physical = physical;
    purse->ordinary_bytes = supply_ordinary(physical);
    if (os_pages_hugetlb(pages) && supply_pool_read(physical, pages, &purse->pool) != 0)
        *there = false;
    purse->free_pages = purse->pool.free_pages;
    return purse;
}

/* Takes from what is left; UINT64_MAX is "nobody knows" and stays. */
static void spend(uint64_t *left, uint64_t amount)
{
    if (*left != UINT64_MAX)
        *left -= amount < *left ? amount : *left;
}

/* The node's tables come first: without them its pages are of no use. */
static void spend_tables(struct plan_finding *finding, const struct hak_plan_node *node,
                         struct purse *purse)
{
    uint64_t bytes = (node->wanted_pages * finding->kind.page_bytes) >> TABLES_LOG2;
    if (!finding->prefault)
        return;
    finding->table_bytes += bytes;
    if (purse->ordinary_bytes < bytes && finding->table_node < 0) {
        finding->table_node = node->node;
        finding->table_node_bytes = bytes;
        finding->table_node_there = purse->ordinary_bytes;
    }
    spend(&purse->ordinary_bytes, bytes);
}

static void look_at_pool(struct plan_finding *finding, struct hak_plan_node *node,
                         struct purse *purse)
{
    node->pool_pages = purse->pool.total_pages;
    node->free_pages = purse->free_pages;
    if (node->free_pages < node->wanted_pages)
        node->missing_pages = node->wanted_pages - node->free_pages;
    spend(&purse->free_pages, node->wanted_pages);
    node->memory_bytes = purse->ordinary_bytes;
    spend(&purse->ordinary_bytes, node->missing_pages * finding->kind.page_bytes);
}

static void look_at_memory(struct plan_finding *finding, struct hak_plan_node *node,
                           struct purse *purse)
{
    bool known = purse->ordinary_bytes != UINT64_MAX;
    node->free_pages = known ? purse->ordinary_bytes / finding->kind.page_bytes : UINT64_MAX;
    /* Without prefault memory comes as it is used, from whatever there will be. */
    if (finding->prefault && node->free_pages < node->wanted_pages)
        node->missing_pages = node->wanted_pages - node->free_pages;
    spend(&purse->ordinary_bytes, node->wanted_pages * finding->kind.page_bytes);
}

/* Free pages may be promised to mappings that have not touched them yet. The kernel counts that
 * for the whole machine only, so what lacks there is laid on the first node. */
static void look_at_promises(struct plan_finding *finding)
{
    uint64_t unpromised = supply_unpromised(finding->kind.pages);
    finding->kind.promised_pages = supply_promised(finding->kind.pages);
    if (finding->wanted_pages <= unpromised + finding->missing_pages)
        return;
    finding->promised_lack = finding->wanted_pages - unpromised - finding->missing_pages;
    finding->kind.nodes[0].missing_pages += finding->promised_lack;
    finding->missing_pages += finding->promised_lack;
}

/* Ordinary memory that comes as it is used is never short. */
static bool counts_memory(const struct plan_finding *finding)
{
    return !finding->verdict_only || finding->prefault || os_pages_hugetlb(finding->kind.pages);
}

static void look_at_limits(struct plan_finding *finding)
{
    struct hak_plan_kind *kind = &finding->kind;
    finding->memory.room_bytes = CGROUP_UNLIMITED;
    if (counts_memory(finding))
        cgroup_memory(&finding->memory);
    finding->address_bytes = supply_addresses();
    finding->memory_bytes = finding->table_bytes;
    if (os_pages_hugetlb(kind->pages)) {
        cgroup_hugetlb(kind->pages, &finding->hugetlb);
        kind->cgroup_bytes = finding->hugetlb.room_bytes;
        finding->commit_bytes = UINT64_MAX;
        return;
    }
    finding->hugetlb.room_bytes = CGROUP_UNLIMITED;
    kind->cgroup_bytes = finding->memory.room_bytes;
    finding->commit_bytes = supply_promises();
    if (finding->prefault)
        finding->memory_bytes += kind->size_bytes;
}

static int verdict(const struct plan_finding *finding)
{
    uint64_t bytes = finding->kind.size_bytes;
    if (!finding->there)
        return -ENOMEM;
    if (!finding->populates)
        return -ENOSYS;
    if (finding->missing_pages != 0 || finding->table_node >= 0)
        return -ENOMEM;
    if (finding->hugetlb.room_bytes < bytes || finding->memory.room_bytes < finding->memory_bytes)
        return -ENOMEM;
    return finding->address_bytes < bytes || finding->commit_bytes < bytes ? -ENOMEM : 0;
}

void plan_look(struct plan_finding *finding)
{
    struct hak_plan_kind *kind = &finding->kind;
    struct purses purses = {.count = 0};
    bool hugetlb = os_pages_hugetlb(kind->pages);
    finding->there = kind->pages != HAK_PAGES_THP || supply_thp();
    /* An empty range says whether the kernel knows how (Linux 5.14) and touches nothing. */
    finding->populates = !hugetlb || !finding->prefault || os_populate(NULL, 0, true) != -ENOSYS;
    for (unsigned i = 0; i < kind->node_count && counts_memory(finding); i++) {
        struct hak_plan_node *node = &kind->nodes[i];
        struct purse *purse = find_purse(&purses, node->node, kind->pages, &finding->there);
        spend_tables(finding, node, purse);
        if (hugetlb)
            look_at_pool(finding, node, purse);
        else
            look_at_memory(finding, node, purse);
        finding->missing_pages += node->missing_pages;
    }
    if (hugetlb && finding->there)
        look_at_promises(finding);
    look_at_limits(finding);
    kind->code = verdict(finding);
}

void plan_kind(const struct settings *settings, uint64_t mask, enum hak_pages pages,
               struct plan_finding *out)
{
    size_t share = plan_share(settings->size_bytes, popcount64(mask), pages);
    plan_begin(pages, settings->prefault, out);
    for (; mask != 0; mask &= mask - 1)
        plan_wish(out, __builtin_ctzll(mask), share);
    plan_look(out);
}
