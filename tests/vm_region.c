/* SPDX-License-Identifier: MIT */
/*
 * Regions on machines with several nodes: every page on its segment's node, asked of the kernel
 * page by page; too few pages, control groups, nodes without memory or processors, nodes that may
 * not be used: an error that names them, no signal, nothing left behind; falling back as the list
 * says.
 *
 * Run by tests/numa in virtual machines that have what a case needs; elsewhere it skips.
 */
#define _GNU_SOURCE
#include "alloc/heap.h"
#include "numa/bind.h"
#include "region/faultin.h"
#include "tests/vm_kit.h"

#include <sys/mount.h>

/* Pages of 2 MiB a node, where there are so many: more than one slice of the fault-in. */
#define NODE_PAGES 16

static struct topology machine;

/* ---- regions --------------------------------------------------------------------------------- */

static void close_region(void)
{
    if (hak_region_default() != NULL) {
        CHECK_EQ(hak_region_fini(), 0);
    }
}

static struct hak_config strict(size_t bytes, enum hak_pages pages)
{
    return (struct hak_config){.size_bytes = bytes, .pages = {pages}};
}

static struct hak_region *open_region(const struct hak_config *config)
{
    close_region();
    int code = hak_region_init(config);
    if (code != 0) {
        struct hak_error error;
        (void)hak_last_error(&error);
        FAIL("hak_region_init: %d: %s", code, error.message);
    }
    return hak_region_default();
}

static size_t page_step(enum hak_pages pages)
{
    return pages == HAK_PAGES_1G ? GIB : pages == HAK_PAGES_2M ? 2 * MIB : 4096;
}

/* The region has a segment on each of these nodes and no other, and the page are all there. */
static void check_region(struct hak_region *region, uint64_t nodes, enum hak_pages pages)
{
    const struct region *area = &region->area;
    CHECK_EQ(area->segment_count, vm_count(nodes));
    for (unsigned n = 0; n < area->segment_count; n++, nodes &= nodes - 1) {
        const struct segment *segment = &area->segments[n];
        struct hak_node_stats stats;
        CHECK_EQ(segment->node, vm_first(nodes));
        CHECK_EQ(hak_region_node_stats(NULL, n, &stats), 0);
        CHECK_EQ(stats.node, segment->node);
        CHECK_EQ(stats.size_bytes, area->bytes / area->segment_count);
        CHECK_EQ(stats.size_bytes, (size_t)segment->superslab_count * HAK_SUPERSLAB_BYTES);
        vm_check_pages((const unsigned char *)segment->base, stats.size_bytes, page_step(pages),
                       segment->node);
    }
}

/* KiB that /proc/self/smaps gives for a key, over the mappings that lie in the range. */
static unsigned long smaps_kib(uintptr_t start, size_t bytes, const char *key)
{
    static char line[512];
    unsigned long sum = 0, kib, from, to;
    bool inside = false;
    FILE *file = fopen("/proc/self/smaps", "r");
    CHECK(file != NULL);
    while (fgets(line, sizeof line, file) != NULL) {
        if (sscanf(line, "%lx-%lx ", &from, &to) == 2) {
            inside = from >= start && to <= start + bytes;
        } else if (inside && strncmp(line, key, strlen(key)) == 0) {
            sum += sscanf(line + strlen(key), ": %lu", &kib) == 1 ? kib : 0;
        }
    }
    fclose(file);
    return sum;
}

/* So many pages a node as every one of them has, and as a control group allows. */
static uint64_t node_pages(uint64_t nodes)
{
    uint64_t pages = vm_least_free(nodes, VM_2M_KIB);
    unsigned long limit = vm_limit_mib();
    if (limit != 0 && limit / 2 / vm_count(nodes) < pages) {
        pages = limit / 2 / vm_count(nodes);
    }
    return pages < NODE_PAGES ? pages : NODE_PAGES;
}

/* ---- the machine ----------------------------------------------------------------------------- */

TEST(machine_is_what_the_scene_says)
{
    char distances[16] = "";
    bool asymmetric = false;
    vm_want_machine();
    CHECK_EQ(topology_read(&machine), 0);
    uint64_t nodes = 0, memoryless = 0, cpuless = 0;
    for (unsigned n = 0; n < machine.node_end; n++) {
        const struct topology_node *node = &machine.nodes[n];
        nodes |= (uint64_t)node->exists << n;
        memoryless |= (uint64_t)(node->exists && !node->has_memory) << n;
        cpuless |= (uint64_t)(node->exists && !node->has_cpus) << n;
        for (unsigned m = 0; m < n; m++) {
            asymmetric |= machine.distance[n][m] != machine.distance[m][n];
        }
    }
    CHECK_EQ(nodes, vm_expected_nodes("nodes"));
    CHECK_EQ(memoryless, vm_expected_nodes("memoryless"));
    CHECK_EQ(cpuless, vm_expected_nodes("cpuless"));
    CHECK_EQ(topology_memory_mask(&machine), vm_memory_nodes());
    (void)vm_expected("distances", distances, sizeof distances);
    CHECK_EQ(asymmetric, strcmp(distances, "asym") == 0);
}

/* ---- where pages lie ------------------------------------------------------------------------- */

TEST(every_2m_page_is_on_its_node)
{
    uint64_t nodes = vm_memory_nodes(), pages = node_pages(nodes);
    if (pages == 0) {
        SKIP("no 2M pages on some node");
    }
    struct hak_config config = strict(pages * vm_count(nodes) * 2 * MIB, HAK_PAGES_2M);
    uint64_t before = vm_machine_pool(VM_2M_KIB, "free_hugepages");
    struct hak_region *region = open_region(&config);
    CHECK_EQ(region->area.bytes, config.size_bytes);
    check_region(region, nodes, HAK_PAGES_2M);
    CHECK_EQ(smaps_kib(region->area.base, region->area.bytes, "Private_Hugetlb"),
             region->area.bytes / KIB);
    CHECK_EQ(before - vm_machine_pool(VM_2M_KIB, "free_hugepages"), pages * vm_count(nodes));
    close_region();
    CHECK_EQ(vm_machine_pool(VM_2M_KIB, "free_hugepages"), before);
}

TEST(every_1g_page_is_on_its_node)
{
    uint64_t nodes = vm_memory_nodes();
    uint64_t before = vm_least_free(nodes, VM_1G_KIB);
    CHECK_EQ(before > 0, (vm_expected_nodes("giants") & nodes) == nodes);
    if (before == 0) {
        SKIP("no 1G pages on some node");
    }
    struct hak_config config = strict(vm_count(nodes) * GIB, HAK_PAGES_1G);
    struct hak_region *region = open_region(&config);
    check_region(region, nodes, HAK_PAGES_1G);
    CHECK_EQ(region->area.base % GIB, 0);
    CHECK_EQ(smaps_kib(region->area.base, region->area.bytes, "Private_Hugetlb"),
             region->area.bytes / KIB);
    CHECK_EQ(vm_least_free(nodes, VM_1G_KIB), before - 1);
    close_region();
    CHECK_EQ(vm_least_free(nodes, VM_1G_KIB), before);
}

TEST(every_thp_page_is_on_its_node)
{
    uint64_t nodes = vm_memory_nodes();
    if (!supply_thp()) {
        SKIP("transparent huge pages are off");
    }
    struct hak_config config = strict(vm_count(nodes) * 16 * MIB, HAK_PAGES_THP);
    struct hak_region *region = open_region(&config);
    check_region(region, nodes, HAK_PAGES_THP);
    CHECK_EQ(smaps_kib(region->area.base, region->area.bytes, "AnonHugePages"),
             region->area.bytes / KIB);
    close_region();
}

TEST(every_4k_page_is_on_its_node)
{
    uint64_t nodes = vm_memory_nodes();
    /* More than one slice of the fault-in, and not a multiple of it. */
    struct hak_config config = strict(vm_count(nodes) * 18 * MIB, HAK_PAGES_4K);
    check_region(open_region(&config), nodes, HAK_PAGES_4K);
    close_region();
}

/* A line of /proc/self/numa_maps: pages of a mapping that is bound, N0=12 N1=3 ..., are on its
 * node. Adds them up there. */
static void add_numa_maps_line(const char *line, uint64_t *node_bytes)
{
    const char *policy = strstr(line, " bind=static:");
    const char *kib = strstr(line, " kernelpagesize_kB=");
    if (policy == NULL || kib == NULL) {
        return;
    }
    int bound = (int)strtol(policy + strlen(" bind=static:"), NULL, 10);
    uint64_t page_bytes = strtoul(kib + strlen(" kernelpagesize_kB="), NULL, 10) * KIB;
    for (const char *at = line; (at = strstr(at, " N")) != NULL; at += 2) {
        char *pages;
        if (strtol(at + 2, &pages, 10) != bound || *pages != '=') {
            FAIL("pages of another node in: %s", line);
        }
        node_bytes[bound] += strtoul(pages + 1, NULL, 10) * page_bytes;
    }
}

TEST(tables_are_on_their_segments_nodes)
{
    static char line[1024];
    uint64_t node_bytes[HAK_NODES_MAX] = {0}, nodes = vm_memory_nodes();
    struct hak_config config = strict(vm_count(nodes) * 16 * MIB, HAK_PAGES_4K);
    (void)open_region(&config);
    FILE *file = fopen("/proc/self/numa_maps", "r");
    CHECK(file != NULL);
    while (fgets(line, sizeof line, file) != NULL) {
        add_numa_maps_line(line, node_bytes);
    }
    fclose(file);
    close_region();
    for (int node = 0; node < HAK_NODES_MAX; node++) {
        /* The segment, and books of slabs, thread slots, magazines: over 1 % of it. */
        uint64_t least = (nodes >> node & 1) != 0 ? 16 * MIB + 160 * KIB : 0;
        uint64_t most = least == 0 ? 0 : 17 * MIB;
        if (node_bytes[node] < least || node_bytes[node] > most) {
            FAIL("%llu KiB are bound to node %d and there",
                 (unsigned long long)(node_bytes[node] / KIB), node);
        }
    }
}

TEST(a_subset_of_nodes_leaves_the_others_alone)
{
    uint64_t nodes = vm_memory_nodes();
    int chosen = vm_last(nodes);
    if (vm_count(nodes) < 2) {
        SKIP("a single node may be used");
    }
    uint64_t pages = node_pages(vm_bit(chosen)), before[HAK_NODES_MAX];
    CHECK(pages > 0);
    struct hak_config config = strict(pages * 2 * MIB, HAK_PAGES_2M);
    config.nodes = vm_bit(chosen);
    for (int n = 0; n < HAK_NODES_MAX; n++) {
        before[n] = vm_pool(n, VM_2M_KIB, "free_hugepages");
    }
    check_region(open_region(&config), config.nodes, HAK_PAGES_2M);
    for (int n = 0; n < HAK_NODES_MAX; n++) {
        CHECK_EQ(vm_pool(n, VM_2M_KIB, "free_hugepages"), before[n] - (n == chosen ? pages : 0));
    }
    void *object = hak_malloc_on_node(1000, chosen);
    CHECK(object != NULL);
    hak_free(object);
    errno = 0;
    CHECK(hak_malloc_on_node(1000, vm_first(nodes)) == NULL);
    CHECK_EQ(errno, EINVAL);
    close_region();
}

/* ---- too few pages --------------------------------------------------------------------------- */

TEST(a_node_short_of_pages_is_named_and_its_remedy_works)
{
    char text[160];
    uint64_t nodes = vm_memory_nodes(), few = vm_expected_nodes("short");
    if (few == 0) {
        SKIP("no node of this machine is short of pages");
    }
    int node = vm_first(few);
    uint64_t there = vm_pool(node, VM_2M_KIB, "free_hugepages");
    uint64_t wanted = there + 24;
    struct hak_config config = strict(wanted * vm_count(nodes) * 2 * MIB, HAK_PAGES_2M);
    /* The machine as a whole has enough; only the node has not. */
    CHECK_GE(vm_machine_pool(VM_2M_KIB, "free_hugepages"), wanted * vm_count(nodes));
    const struct hak_error *error = vm_refused(&config, -ENOMEM, NULL);
    CHECK_EQ(error->node, node);
    CHECK_EQ(error->free_bytes, there * 2 * MIB);
    CHECK_EQ(error->size_bytes, config.size_bytes);
    snprintf(text, sizeof text, "2M pages: node %d needs %llu, %llu free of a pool of %llu, %d",
             node, (unsigned long long)wanted, (unsigned long long)there, (unsigned long long)there,
             24);
    CHECK_STR_HAS(error->message, text);
    snprintf(text, sizeof text,
             "echo %llu > /sys/devices/system/node/node%d/hugepages/hugepages-2048kB/nr_hugepages",
             (unsigned long long)wanted, node);
    CHECK_STR_HAS(error->remedy, text);

    CHECK_EQ(system(error->remedy), 0);
    check_region(open_region(&config), nodes, HAK_PAGES_2M);
    close_region();
    snprintf(text, sizeof text,
             "echo %llu > /sys/devices/system/node/node%d/hugepages/hugepages-2048kB/nr_hugepages",
             (unsigned long long)there, node);
    CHECK_EQ(system(text), 0);
    CHECK_EQ(vm_pool(node, VM_2M_KIB, "free_hugepages"), there);
}

/* A mapping of one page more than a node has, bound to it. */
struct past_the_pool {
    int node;
    size_t bytes;
};

static unsigned char *map_past_the_pool(const struct past_the_pool *past)
{
    void *at = NULL;
    CHECK_EQ(os_map_hugetlb(past->bytes, HAK_PAGES_2M, &at), 0);
    CHECK_EQ(bind_strict(at, past->bytes, past->node), 0);
    return at;
}

static void touch_past_the_pool(void *argument)
{
    const struct past_the_pool *past = argument;
    unsigned char *at = map_past_the_pool(past);
    for (size_t i = 0; i < past->bytes; i += 2 * MIB) {
        ((volatile unsigned char *)at)[i] = 1;
    }
}

static void fault_in_past_the_pool(void *argument)
{
    const struct past_the_pool *past = argument;
    struct faultin_failure failure;
    struct backing_segment segment = {past->node, map_past_the_pool(past), past->bytes};
    CHECK_EQ(faultin_run(&segment, 1, HAK_PAGES_2M, true, &failure), -ENOMEM);
    CHECK_EQ(failure.node, past->node);
    CHECK_EQ(failure.wrong_pages, 0);
}

/* What init would meet if somebody took the pages after it had looked. */
TEST(past_a_nodes_pool_is_an_error_where_touching_is_a_sigbus)
{
    static struct harness_result ended;
    uint64_t nodes = vm_memory_nodes();
    int node = vm_last(nodes);
    uint64_t there = vm_pool(node, VM_2M_KIB, "free_hugepages");
    if (vm_limit_mib() != 0 || vm_count(nodes) < 2) {
        SKIP("a control group refuses it before the node's pool is empty");
    }
    struct past_the_pool past = {node, (there + 1) * 2 * MIB};
    CHECK(vm_machine_pool(VM_2M_KIB, "free_hugepages") > there);
    harness_child(touch_past_the_pool, &past, &ended);
    CHECK_EQ(ended.signal, SIGBUS);
    harness_child(fault_in_past_the_pool, &past, &ended);
    if (ended.exit_status != 0) {
        FAIL("status %d, signal %d: %s", ended.exit_status, ended.signal, ended.output);
    }
    CHECK_EQ(vm_pool(node, VM_2M_KIB, "free_hugepages"), there);
}

TEST(more_than_every_pool_is_refused_and_leaves_nothing)
{
    uint64_t nodes = vm_memory_nodes();
    struct hak_config config = strict(0, HAK_PAGES_2M);
    config.size_bytes = (vm_machine_pool(VM_2M_KIB, "nr_hugepages") + 1) * 2 * MIB * 2;
    const struct hak_error *error = vm_refused(&config, -ENOMEM, NULL);
    CHECK((nodes >> error->node & 1) != 0);
    CHECK_STR_HAS(error->message, "2M pages:");
}

/* ---- falling back ---------------------------------------------------------------------------- */

/* The first kind of the list that every node has enough of, by the kernel's own counts. */
static enum hak_pages first_that_fits(const struct hak_config *config, uint64_t nodes)
{
    size_t share = (config->size_bytes + vm_count(nodes) - 1) / vm_count(nodes);
    unsigned long limit = vm_limit_mib();
    for (unsigned i = 0; i < HAK_PAGES_COUNT && config->pages[i] != HAK_PAGES_DEFAULT; i++) {
        size_t page = page_step(config->pages[i]);
        uint64_t wanted = (share + page - 1) / page;
        if (page == 4096) {
            return config->pages[i];
        }
        if (vm_least_free(nodes, page / KIB) >= wanted &&
            (page != 2 * MIB || limit == 0 || wanted * vm_count(nodes) * 2 <= limit)) {
            return config->pages[i];
        }
    }
    FAIL("the list has no kind that can be had");
}

/* A region of so many MiB a node on the first kind of the list that can be had; which that was. */
static enum hak_pages fall_back(uint64_t node_mib, enum hak_pages first, enum hak_pages second,
                                enum hak_pages third)
{
    uint64_t nodes = vm_memory_nodes();
    struct hak_stats stats;
    struct hak_config config = {.size_bytes = node_mib * vm_count(nodes) * MIB,
                                .pages = {first, second, third}};
    enum hak_pages expected = first_that_fits(&config, nodes);
    struct hak_region *region = open_region(&config);
    CHECK_EQ(hak_region_stats(NULL, &stats), 0);
    CHECK_EQ(stats.pages, expected);
    CHECK_EQ(stats.pages_wanted, first);
    check_region(region, nodes, expected);
    close_region();
    return expected;
}

TEST(fallback_goes_down_the_list_and_stats_tell)
{
    uint64_t nodes = vm_memory_nodes();
    uint64_t fits = 2 * node_pages(nodes), too_much = 2 * vm_least_free(nodes, VM_2M_KIB) + 2;
    int last = vm_last(nodes);
    uint64_t giants = vm_pool(last, VM_1G_KIB, "nr_hugepages");
    CHECK_EQ(fall_back(fits, HAK_PAGES_2M, HAK_PAGES_THP, HAK_PAGES_4K), HAK_PAGES_2M);
    CHECK_EQ(fall_back(too_much, HAK_PAGES_2M, HAK_PAGES_THP, HAK_PAGES_4K), HAK_PAGES_THP);
    CHECK_EQ(fall_back(too_much, HAK_PAGES_2M, HAK_PAGES_4K, HAK_PAGES_DEFAULT), HAK_PAGES_4K);
    if (giants > 0) {
        CHECK_EQ(fall_back(fits, HAK_PAGES_1G, HAK_PAGES_2M, HAK_PAGES_THP), HAK_PAGES_1G);
        CHECK_EQ(vm_set_pool(last, VM_1G_KIB, 0), 0);
    }
    /* Now one node has none: the whole region goes on to the next kind. (No later case needs them;
     * whether the kernel finds a free GiB a second time is chance.) */
    CHECK_EQ(fall_back(fits, HAK_PAGES_1G, HAK_PAGES_2M, HAK_PAGES_THP), HAK_PAGES_2M);
    CHECK_EQ(fall_back(too_much, HAK_PAGES_1G, HAK_PAGES_2M, HAK_PAGES_THP), HAK_PAGES_THP);
}

/* ---- nodes that cannot be used --------------------------------------------------------------- */

static void check_node_refused(int node, const char *why)
{
    char text[64];
    struct hak_config config = strict(2 * MIB, HAK_PAGES_4K);
    config.nodes = vm_bit(node) | vm_bit(vm_first(vm_memory_nodes()));
    const struct hak_error *error = vm_refused(&config, -ENODEV, NULL);
    snprintf(text, sizeof text, "node %d %s", node, why);
    CHECK_STR_HAS(error->message, text);
    CHECK_EQ(error->node, node);
}

TEST(a_number_that_no_node_has_is_refused)
{
    vm_want_machine();
    uint64_t nodes = vm_expected_nodes("nodes");
    check_node_refused(vm_last(nodes) + 1, "does not exist");
    uint64_t holes = ~nodes & (vm_bit(vm_last(nodes)) - 1);
    if (holes != 0) {
        check_node_refused(vm_first(holes), "does not exist");
    }
}

TEST(a_node_without_memory_is_refused_by_name)
{
    vm_want_machine();
    uint64_t memoryless = vm_expected_nodes("memoryless");
    if (memoryless == 0) {
        SKIP("every node of this machine has memory");
    }
    check_node_refused(vm_first(memoryless), "has no memory");
}

TEST(nodes_that_a_cpuset_forbids_are_refused)
{
    uint64_t nodes = vm_memory_nodes();
    uint64_t forbidden = vm_expected_nodes("nodes") & ~vm_expected_nodes("memoryless") & ~nodes;
    if (forbidden == 0) {
        SKIP("no control group keeps nodes away");
    }
    check_node_refused(vm_first(forbidden), "may not be used");
    check_node_refused(vm_last(forbidden), "may not be used");
}

TEST(a_node_without_processors_gives_by_name)
{
    uint64_t cpuless = vm_memory_nodes() & vm_expected_nodes("cpuless");
    if (cpuless == 0) {
        SKIP("every node of this machine has processors");
    }
    int node = vm_first(cpuless);
    struct hak_config config = strict(vm_count(vm_memory_nodes()) * 8 * MIB, HAK_PAGES_4K);
    (void)open_region(&config);
    for (size_t size = 16; size <= 4 * MIB; size *= 4) {
        unsigned char *object = hak_malloc_on_node(size, node);
        CHECK(object != NULL);
        memset(object, 1, size);
        unsigned char *page = (unsigned char *)((uintptr_t)object & ~(uintptr_t)4095);
        vm_check_pages(page, (size + 4095) & ~(size_t)4095, 4096, node);
        hak_free(object);
    }
    close_region();
}

/* ---- control groups -------------------------------------------------------------------------- */

/* A region of one page more than the group allows, all nodes having enough. */
static struct hak_config past_the_limit(unsigned long limit)
{
    uint64_t nodes = vm_memory_nodes();
    uint64_t pages = limit / 2 / vm_count(nodes) + 1;
    CHECK_GE(vm_least_free(nodes, VM_2M_KIB), pages);
    return strict(pages * vm_count(nodes) * 2 * MIB, HAK_PAGES_2M);
}

TEST(a_control_groups_limit_is_told)
{
    char text[96];
    unsigned long limit = vm_limit_mib();
    if (limit == 0) {
        vm_want_machine();
        SKIP("no control group limits huge pages");
    }
    struct hak_config config = past_the_limit(limit);
    const struct hak_error *error = vm_refused(&config, -ENOMEM, NULL);
    snprintf(text, sizeof text, "the hugetlb cgroup allows %lu more of %zu needed", limit / 2,
             config.size_bytes / (2 * MIB));
    CHECK_STR_HAS(error->message, text);
}

/* As in a container that has no view of its own limits. */
static void hide_control_groups(void)
{
    CHECK_EQ(unshare(CLONE_NEWNS), 0);
    CHECK_EQ(mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
    (void)umount2("/sys/fs/cgroup/hugetlb", MNT_DETACH);
    CHECK_EQ(umount2("/sys/fs/cgroup", MNT_DETACH), 0);
}

TEST(a_limit_that_cannot_be_seen_is_an_error_and_no_signal)
{
    unsigned long limit = vm_limit_mib();
    if (limit == 0) {
        vm_want_machine();
        SKIP("no control group limits huge pages");
    }
    struct hak_config config = past_the_limit(limit);
    const struct hak_error *error = vm_refused(&config, -ENOMEM, hide_control_groups);
    CHECK_STR_HAS(error->message, "a hugetlb cgroup limit that cannot be seen from here");
}

HARNESS_MAIN()
