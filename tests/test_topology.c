/* SPDX-License-Identifier: MIT */
/*
 * Nodes as the kernel and as libnuma see them, machines that we do not have as folders of text
 * files, pretended nodes, and pinning and binding on the real ones.
 */
#define _GNU_SOURCE
#include "numa/bind.h"
#include "numa/pin.h"
#include "numa/topology.h"
#include "tests/harness.h"

#include <malloc.h>
#include <numa.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/stat.h>

static struct topology machine;

/* ---- folders that look like a machine ------------------------------------------------------ */

static char folder[64];

static void write_file(const char *name, const char *text)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "w");
    CHECK(file != NULL);
    fputs(text, file);
    CHECK_EQ(fclose(file), 0);
}

static void make_folder(void)
{
    strcpy(folder, "/tmp/hakmem-nodes-XXXXXX");
    CHECK(mkdtemp(folder) != NULL);
}

static void make_node(unsigned node, unsigned long mem_kib, const char *cpus, const char *distance)
{
    char name[128], text[256];
    snprintf(name, sizeof name, "%s/node%u", folder, node);
    CHECK_EQ(mkdir(name, 0755), 0);
    snprintf(name, sizeof name, "node%u/meminfo", node);
    snprintf(text, sizeof text, "Node %u MemTotal:       %lu kB\nNode %u MemFree: 7 kB\n", node,
             mem_kib, node);
    write_file(name, text);
    snprintf(name, sizeof name, "node%u/cpulist", node);
    write_file(name, cpus);
    snprintf(name, sizeof name, "node%u/distance", node);
    write_file(name, distance);
}

static void remove_folder(void)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", folder);
    CHECK_EQ(system(command), 0);
}

/* Nodes 0, 2, 3 and 5: 2 has no memory, 3 no processors, 5 may not be used. */
static void make_uneven_machine(void)
{
    make_folder();
    write_file("online", "0,2-3,5\n");
    make_node(0, 4096, "0-1,8\n", "10 21 31 12\n");
    make_node(2, 0, "2-3\n", "21 10 17 31\n");
    make_node(3, 1024, "\n", "31 17 10 31\n");
    make_node(5, 2048, "4\n", "12 31 31 10\n");
}

/* ---- the machine at hand ------------------------------------------------------------------- */

TEST(machine_is_what_libnuma_says)
{
    if (numa_available() < 0)
        SKIP("this kernel or container has no NUMA calls");
    CHECK_EQ(topology_read(&machine), 0);
    CHECK_EQ(machine.node_end, numa_max_node() + 1);
    struct bitmask *allowed = numa_get_mems_allowed();
    for (int node = 0; node < (int)machine.node_end; node++) {
        const struct topology_node *entry = &machine.nodes[node];
        CHECK_EQ(entry->exists, numa_bitmask_isbitset(numa_nodes_ptr, (unsigned)node) != 0);
        if (!entry->exists)
            continue;
        CHECK_EQ(entry->allowed, numa_bitmask_isbitset(allowed, (unsigned)node) != 0);
        CHECK_EQ(entry->has_memory, numa_node_size64(node, NULL) > 0);
        CHECK(!entry->has_memory || entry->total_bytes >= (uint64_t)numa_node_size64(node, NULL));
        for (int other = 0; other < (int)machine.node_end; other++)
            if (machine.nodes[other].exists)
                CHECK_EQ(machine.distance[node][other], numa_distance(node, other));
    }
    numa_bitmask_free(allowed);
    for (int cpu = 0; cpu < numa_num_configured_cpus(); cpu++)
        CHECK_EQ(topology_cpu_node(cpu), numa_node_of_cpu(cpu));
}

TEST(processors_that_do_not_exist_have_no_node)
{
    CHECK_EQ(topology_cpu_node(-1), -1);
    CHECK_EQ(topology_cpu_node(TOPOLOGY_CPUS_MAX), -1);
    CHECK_EQ(topology_cpu_node(TOPOLOGY_CPUS_MAX - 1), -1);
}

TEST(current_node_is_that_of_the_processor)
{
    CHECK_EQ(topology_read(&machine), 0);
    cpu_set_t before;
    CHECK_EQ(sched_getaffinity(0, sizeof before, &before), 0);
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET((size_t)cpu, &before))
            continue;
        CHECK_EQ(pin_thread(cpu), 0);
        CHECK_EQ(sched_getcpu(), cpu);
        CHECK_EQ(topology_current_node(), topology_cpu_node(cpu));
    }
    CHECK_EQ(sched_setaffinity(0, sizeof before, &before), 0);
}

TEST(reading_the_machine_allocates_nothing)
{
    struct mallinfo2 before = mallinfo2();
    for (int i = 0; i < 10; i++) {
        CHECK_EQ(topology_read(&machine), 0);
        CHECK_GE(topology_current_node(), 0);
    }
    struct mallinfo2 after = mallinfo2();
    CHECK_EQ(before.uordblks, after.uordblks);
    CHECK_EQ(before.arena, after.arena);
}

/* ---- machines that are not at hand ---------------------------------------------------------- */

TEST(holes_and_one_sided_nodes_are_understood)
{
    make_uneven_machine();
    int code = topology_parse(folder, UINT64_MAX & ~(UINT64_C(1) << 5), &machine);
    remove_folder();
    CHECK_EQ(code, 0);
    CHECK_EQ(machine.node_end, 6);
    CHECK(machine.nodes[0].exists && !machine.nodes[1].exists && machine.nodes[2].exists);
    CHECK(machine.nodes[3].exists && !machine.nodes[4].exists && machine.nodes[5].exists);
    CHECK_EQ(machine.nodes[0].total_bytes, 4096 << 10);
    CHECK(machine.nodes[0].has_memory && machine.nodes[0].has_cpus && machine.nodes[0].allowed);
    CHECK(!machine.nodes[2].has_memory && machine.nodes[2].has_cpus);
    CHECK(machine.nodes[3].has_memory && !machine.nodes[3].has_cpus);
    CHECK(machine.nodes[5].has_memory && !machine.nodes[5].allowed);
    CHECK_EQ(topology_memory_mask(&machine), 0x9);
    CHECK_EQ(machine.cpu_node[1], 0);
    CHECK_EQ(machine.cpu_node[8], 0);
    CHECK_EQ(machine.cpu_node[3], 2);
    CHECK_EQ(machine.cpu_node[4], 5);
    CHECK_EQ(machine.cpu_node[7], -1);
    /* The third figure of node 0's row is for the third online node. */
    CHECK_EQ(machine.distance[0][3], 31);
    CHECK_EQ(machine.distance[0][5], 12);
    CHECK_EQ(machine.distance[2][3], 17);
    CHECK_EQ(machine.distance[0][1], TOPOLOGY_DISTANCE_UNKNOWN);
}

TEST(nearest_goes_by_distance_and_then_by_number)
{
    make_uneven_machine();
    int code = topology_parse(folder, UINT64_MAX, &machine);
    remove_folder();
    CHECK_EQ(code, 0);
    CHECK_EQ(topology_nearest(&machine, 0, 0x29), 0);
    CHECK_EQ(topology_nearest(&machine, 0, 0x28), 5);
    CHECK_EQ(topology_nearest(&machine, 2, 0x29), 3);
    CHECK_EQ(topology_nearest(&machine, 3, 0x21), 0); /* 31 and 31 */
    CHECK_EQ(topology_nearest(&machine, -1, 0x28), 3);
    CHECK_EQ(topology_nearest(&machine, 99, 0x28), 3);
    CHECK_EQ(topology_nearest(&machine, 0, 0), -1);
}

TEST(lists_longer_than_any_buffer_are_read_whole)
{
    static char list[TOPOLOGY_CPUS_MAX * 6];
    size_t length = 0;
    make_folder();
    write_file("online", "0-63\n");
    for (unsigned cpu = 0; cpu < TOPOLOGY_CPUS_MAX + 10; cpu += 2)
        length += (size_t)snprintf(list + length, sizeof list - length, "%s%u", cpu ? "," : "",
                                   cpu);
    make_node(63, 1, list, "10\n");
    int code = topology_parse(folder, UINT64_MAX, &machine);
    remove_folder();
    CHECK_EQ(code, 0);
    CHECK_EQ(machine.node_end, 64);
    for (unsigned cpu = 0; cpu < TOPOLOGY_CPUS_MAX; cpu++)
        CHECK_EQ(machine.cpu_node[cpu], cpu % 2 == 0 ? 63 : -1);
}

/* Rows and columns disagree here. */
TEST(nearest_goes_by_the_row_of_the_node_that_asks)
{
    make_folder();
    write_file("online", "0-2\n");
    make_node(0, 4096, "0\n", "10 15 40\n");
    make_node(1, 4096, "1\n", "60 10 20\n");
    make_node(2, 4096, "2\n", "30 50 10\n");
    int code = topology_parse(folder, UINT64_MAX, &machine);
    remove_folder();
    CHECK_EQ(code, 0);
    CHECK_EQ(topology_nearest(&machine, 0, 6), 1);
    CHECK_EQ(topology_nearest(&machine, 1, 5), 2);
    CHECK_EQ(topology_nearest(&machine, 2, 3), 0);
}

/* 255 is the firmware's word for no way at all. */
TEST(a_node_that_cannot_be_reached_is_the_farthest)
{
    make_folder();
    write_file("online", "0-2\n");
    make_node(0, 4096, "0\n", "10 255 254\n");
    make_node(1, 4096, "1\n", "255 10 20\n");
    make_node(2, 4096, "2\n", "254 20 10\n");
    int code = topology_parse(folder, UINT64_MAX, &machine);
    remove_folder();
    CHECK_EQ(code, 0);
    CHECK_EQ(machine.distance[0][1], TOPOLOGY_DISTANCE_UNKNOWN);
    CHECK_EQ(topology_nearest(&machine, 0, 6), 2);
    CHECK_EQ(topology_nearest(&machine, 0, 2), 1);
}

/* ---- what the process may use --------------------------------------------------------------- */

static uint64_t allowed_by(const char *status)
{
    char path[128];
    make_folder();
    write_file("status", status);
    snprintf(path, sizeof path, "%s/status", folder);
    uint64_t mask = topology_parse_allowed(path);
    remove_folder();
    return mask;
}

TEST(allowed_nodes_are_read_from_the_status_file)
{
    CHECK_EQ(allowed_by("Name:\tx\nMems_allowed:\t00000000,00000002\n"
                        "Mems_allowed_list:\t1\nvoluntary_ctxt_switches:\t150\n"),
             2);
    CHECK_EQ(allowed_by("Mems:\t3\nMems_allowed_list:\t0,2-3,63\nx:\t5\n"),
             UINT64_C(0x800000000000000d));
    /* A kernel for 1,024 nodes; those beyond 63 are not ours to use. */
    CHECK_EQ(allowed_by("x\nMems_allowed_list:\t0-1023\n"), UINT64_MAX);
    /* A program may call itself anything. */
    CHECK_EQ(allowed_by("Name:\tMems_allowed_list:\t5\nMems_allowed_list:\t4\n"), 16);
    CHECK_EQ(allowed_by("Name:\tx\n"), UINT64_MAX);
    CHECK_EQ(topology_parse_allowed("/nowhere/status"), UINT64_MAX);
}

TEST(both_ways_to_ask_for_allowed_nodes_agree)
{
    CHECK_EQ(topology_read(&machine), 0);
    uint64_t mask = topology_parse_allowed("/proc/thread-self/status");
    for (unsigned node = 0; node < machine.node_end; node++)
        if (machine.nodes[node].has_memory)
            CHECK_EQ(machine.nodes[node].allowed, (mask >> node & 1) != 0);
}

TEST(folders_without_nodes_are_an_error)
{
    make_folder();
    int missing = topology_parse(folder, UINT64_MAX, &machine);
    write_file("online", "\n");
    int empty = topology_parse(folder, UINT64_MAX, &machine);
    remove_folder();
    CHECK_EQ(missing, -ENOENT);
    CHECK_EQ(empty, -ENOENT);
}

/* ---- pretended nodes ------------------------------------------------------------------------ */

TEST(pretended_nodes_share_the_machine_out)
{
    CHECK_EQ(topology_read(&machine), 0);
    uint64_t real_mask = topology_memory_mask(&machine);
    topology_fake(3);
    int code = topology_read(&machine);
    int first = topology_cpu_node(0), second = topology_cpu_node(1), here = topology_current_node();
    int physical = topology_physical(2), outside = topology_physical(3);
    topology_fake(0);
    CHECK_EQ(code, 0);
    CHECK_EQ(machine.node_end, 3);
    CHECK_EQ(topology_memory_mask(&machine), 7);
    CHECK_EQ(machine.distance[1][1], 10);
    CHECK_EQ(machine.distance[0][2], 22);
    CHECK_EQ(first, 0);
    CHECK(second == 1 || second == -1); /* a machine with a single processor */
    CHECK(here >= 0 && here < 3);
    CHECK((real_mask >> physical & 1) != 0);
    CHECK_EQ(outside, 3);
    /* And off again. */
    CHECK_EQ(topology_physical(2), 2);
    CHECK_EQ(topology_read(&machine), 0);
    CHECK_EQ(topology_memory_mask(&machine), real_mask);
}

/* ---- pinning -------------------------------------------------------------------------------- */

TEST(pinning_to_a_node_looks_past_the_threads_own_affinity)
{
    cpu_set_t before, now;
    CHECK_EQ(sched_getaffinity(0, sizeof before, &before), 0);
    int here = topology_current_node();
    unsigned expected = 0, found = 0;
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
        expected += CPU_ISSET((size_t)cpu, &before) && topology_cpu_node(cpu) == here;
    CHECK_EQ(pin_thread(sched_getcpu()), 0);
    CHECK_EQ(pin_node_cpu_count(here), expected);
    CHECK_EQ(pin_to_node(here), 0);
    CHECK_EQ(sched_getaffinity(0, sizeof now, &now), 0);
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
        found += CPU_ISSET((size_t)cpu, &now) != 0;
    CHECK_EQ(found, expected);
    CHECK_EQ(pin_cpu_count(), CPU_COUNT(&before));
    CHECK_EQ(sched_setaffinity(0, sizeof before, &before), 0);
}

/* This program again, started with the processor it is on only, and of it the case above. */
static void start_restricted(void *argument)
{
    (void)argument;
    CHECK_EQ(pin_thread(sched_getcpu()), 0);
    execl("/proc/self/exe", "test_topology", "looks_past_the_threads", (char *)NULL);
    FAIL("exec: %s", strerror(errno));
}

TEST(a_process_started_on_few_processors_stays_on_them)
{
    static struct harness_result result;
    cpu_set_t before;
    CHECK_EQ(sched_getaffinity(0, sizeof before, &before), 0);
    if (CPU_COUNT(&before) < 2)
        SKIP("one processor cannot be restricted further");
    harness_child(start_restricted, NULL, &result);
    if (result.exit_status != 0)
        FAIL("status %d: %s", result.exit_status, result.output);
    CHECK_STR_HAS(result.output, "1 passed, 0 failed");
}

TEST(pinning_to_what_is_not_there_changes_nothing)
{
    cpu_set_t before, now;
    CHECK_EQ(sched_getaffinity(0, sizeof before, &before), 0);
    CHECK_EQ(pin_thread(-1), -EINVAL);
    CHECK_EQ(pin_thread(TOPOLOGY_CPUS_MAX), -EINVAL);
    CHECK_EQ(pin_thread(TOPOLOGY_CPUS_MAX - 1), -EINVAL);
    CHECK_EQ(pin_to_node(-1), -ENODEV);
    CHECK_EQ(pin_to_node(63), -ENODEV);
    CHECK_EQ(sched_getaffinity(0, sizeof now, &now), 0);
    CHECK(CPU_EQUAL(&before, &now));
}

/* ---- binding --------------------------------------------------------------------------------- */

TEST(bound_pages_lie_on_their_node_and_verification_tells)
{
    /* Over 1,024 pages, so that verification goes round more than once, with a rest. */
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), bytes = 2500 * page;
    size_t wrong = 99;
    CHECK_EQ(topology_read(&machine), 0);
    int node = __builtin_ctzll(topology_memory_mask(&machine));
    char *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(at != MAP_FAILED);
    CHECK_EQ(bind_strict(at, bytes, node), 0);
    /* Nothing is there yet: nothing is wrong. */
    CHECK_EQ(bind_verify(at, bytes, page, node, &wrong), 0);
    CHECK_EQ(wrong, 0);
    memset(at, 1, bytes);
    CHECK_EQ(bind_verify(at, bytes, page, node, &wrong), 0);
    CHECK_EQ(wrong, 0);
    int elsewhere = node == 63 ? 62 : 63;
    CHECK_EQ(bind_verify(at, bytes, page, elsewhere, &wrong), 0);
    if (numa_available() >= 0)
        CHECK_EQ(wrong, 2500);
    CHECK_EQ(munmap(at, bytes), 0);
}

TEST(binding_to_a_node_that_is_not_there_fails)
{
    CHECK_EQ(topology_read(&machine), 0);
    if (numa_available() < 0 || machine.node_end == TOPOLOGY_NODES_MAX)
        SKIP("no NUMA calls, or no node that is not there");
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    char *at = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(at != MAP_FAILED);
    CHECK_EQ(bind_strict(at, page, (int)machine.node_end), -EINVAL);
    CHECK_EQ(bind_strict(at, page, -1), -EINVAL);
    CHECK_EQ(bind_strict(at, page, 64), -EINVAL);
    CHECK_EQ(munmap(at, page), 0);
}

HARNESS_MAIN()
