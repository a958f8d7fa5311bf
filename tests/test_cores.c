/* SPDX-License-Identifier: MIT */
/*
 * The order in which processors are used, on machines that we do not have: cores with two and four
 * processors, nodes of different sizes, without memory, without processors, restricted processes.
 */
#define _GNU_SOURCE
#include "numa/cores.h"
#include "numa/ranges.h"
#include "tests/harness.h"

#include <sys/stat.h>

static char folder[64];
static struct topology machine;
static struct pin_mask usable;
static struct cores_place places[TOPOLOGY_CPUS_MAX];

/* ---- machines ------------------------------------------------------------------------------- */

/* The names that kernels have had for a core's list. */
static const char newer[] = "core_cpus_list", older[] = "thread_siblings_list";

static void begin(void)
{
    memset(&machine, 0, sizeof machine);
    memset(&usable, 0, sizeof usable);
    memset(machine.cpu_node, -1, sizeof machine.cpu_node);
    memset(machine.distance, 20, sizeof machine.distance);
    strcpy(folder, "/tmp/hakmem-cores-XXXXXX");
    CHECK(mkdtemp(folder) != NULL);
}

static void end(void)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", folder);
    CHECK_EQ(system(command), 0);
}

static void add_node(unsigned node, bool memory)
{
    machine.nodes[node].exists = true;
    machine.nodes[node].has_memory = memory;
    machine.nodes[node].allowed = true;
    machine.distance[node][node] = 10;
    if (node >= machine.node_end)
        machine.node_end = node + 1;
}

static void add_cpu(unsigned cpu, unsigned node, const char *list_name, const char *list)
{
    char path[192], file_path[256];
    machine.cpu_node[cpu] = (signed char)node;
    machine.nodes[node].has_cpus = true;
    pin_mask_add(&usable, cpu);
    if (list == NULL)
        return;
    snprintf(path, sizeof path, "%s/cpu%u", folder, cpu);
    CHECK_EQ(mkdir(path, 0700), 0);
    snprintf(path, sizeof path, "%s/cpu%u/topology", folder, cpu);
    CHECK_EQ(mkdir(path, 0700), 0);
    snprintf(file_path, sizeof file_path, "%s/%s", path, list_name);
    FILE *file = fopen(file_path, "w");
    CHECK(file != NULL);
    fprintf(file, "%s\n", list);
    CHECK_EQ(fclose(file), 0);
}

/* Two nodes of four cores with two processors, numbered as Linux does: the seconds come last. */
static void make_usual_machine(const char *list_name)
{
    begin();
    add_node(0, true);
    add_node(1, true);
    for (unsigned core = 0; core < 8; core++) {
        char list[16];
        snprintf(list, sizeof list, "%u,%u", core, core + 8);
        add_cpu(core, core / 4, list_name, list);
        add_cpu(core + 8, core / 4, list_name, list);
    }
}

static void check_order(uint64_t nodes, const char *expected)
{
    char text[512] = "";
    size_t length = 0;
    unsigned count = cores_order(folder, &machine, &usable, nodes, places);
    for (unsigned n = 0; n < count; n++)
        length += (size_t)snprintf(text + length, sizeof text - length, "%s%u", n > 0 ? " " : "",
                                   places[n].cpu);
    if (strcmp(text, expected) != 0) {
        end();
        FAIL("the order is %s, not %s", text, expected);
    }
}

/* ---- orders --------------------------------------------------------------------------------- */

TEST(nodes_take_turns_and_cores_come_before_their_second_processors)
{
    make_usual_machine(newer);
    check_order(UINT64_MAX, "0 4 1 5 2 6 3 7 8 12 9 13 10 14 11 15");
    check_order(3, "0 4 1 5 2 6 3 7 8 12 9 13 10 14 11 15");
    check_order(1, "0 1 2 3 8 9 10 11");
    check_order(2, "4 5 6 7 12 13 14 15");
    end();
}

TEST(kernels_that_have_the_older_name_are_understood)
{
    make_usual_machine(older);
    check_order(UINT64_MAX, "0 4 1 5 2 6 3 7 8 12 9 13 10 14 11 15");
    end();
}

TEST(neighbours_and_ranges_are_cores_too)
{
    begin();
    add_node(0, true);
    for (unsigned cpu = 0; cpu < 8; cpu++) /* two cores of four, as POWER numbers them */
        add_cpu(cpu, 0, newer, cpu < 4 ? "0-3" : "4-7");
    check_order(1, "0 4 1 5 2 6 3 7");
    end();
}

TEST(a_processor_without_a_description_is_a_core)
{
    begin();
    add_node(0, true);
    for (unsigned cpu = 0; cpu < 4; cpu++)
        add_cpu(cpu, 0, NULL, NULL);
    check_order(1, "0 1 2 3");
    end();
}

TEST(processors_that_may_not_be_used_count_for_nothing)
{
    make_usual_machine(newer);
    /* The firsts of cores 0 and 1 belong to others: their seconds are first now. */
    pin_mask_remove(&usable, 0);
    pin_mask_remove(&usable, 1);
    pin_mask_remove(&usable, 6);
    pin_mask_remove(&usable, 14);
    check_order(UINT64_MAX, "2 4 3 5 8 7 9 12 10 13 11 15");
    end();
}

TEST(small_nodes_end_before_large_ones)
{
    begin();
    add_node(0, true);
    add_node(3, true);
    for (unsigned cpu = 0; cpu < 5; cpu++)
        add_cpu(cpu, cpu == 1 ? 3 : 0, NULL, NULL);
    check_order(UINT64_MAX, "0 1 2 3 4");
    check_order(8, "1");
    end();
}

TEST(nodes_without_processors_are_passed_over)
{
    make_usual_machine(newer);
    add_node(2, true);
    check_order(7, "0 4 1 5 2 6 3 7 8 12 9 13 10 14 11 15");
    check_order(6, "4 5 6 7 12 13 14 15");
    end();
}

TEST(where_the_wanted_nodes_have_none_all_others_are_used)
{
    make_usual_machine(newer);
    add_node(2, true);
    check_order(4, "0 4 1 5 2 6 3 7 8 12 9 13 10 14 11 15");
    end();
}

/* A node without memory has its threads' memory on the nearest that has some. */
TEST(processors_of_nodes_without_memory_come_last_where_their_memory_is)
{
    make_usual_machine(newer);
    add_node(2, false);
    add_cpu(16, 2, newer, "16");
    add_cpu(17, 2, newer, "17");
    machine.distance[2][0] = 31;
    machine.distance[2][1] = 12;
    check_order(3, "0 4 1 5 2 6 3 7 8 12 9 13 10 14 11 15 16 17");
    check_order(1, "0 1 2 3 8 9 10 11");
    check_order(2, "4 5 6 7 12 13 14 15 16 17");
    /* Without a region every node is as good as another. */
    check_order(UINT64_MAX, "0 4 16 1 5 17 2 6 3 7 8 12 9 13 10 14 11 15");
    end();
}

TEST(memory_that_a_cpuset_forbids_is_no_memory)
{
    make_usual_machine(newer);
    machine.nodes[1].allowed = false;
    check_order(1, "0 1 2 3 8 9 10 11 4 5 6 7 12 13 14 15");
    end();
}

TEST(no_processor_is_none)
{
    begin();
    add_node(0, true);
    check_order(1, "");
    add_cpu(5, 0, NULL, NULL);
    check_order(1, "5");
    pin_mask_remove(&usable, 5);
    check_order(1, "");
    end();
}

TEST(as_many_processors_as_linux_can_have_are_ordered)
{
    begin();
    for (unsigned node = 0; node < 64; node++)
        add_node(node, true);
    for (unsigned cpu = 0; cpu < TOPOLOGY_CPUS_MAX; cpu++) {
        machine.cpu_node[cpu] = (signed char)(cpu * 7 % 64);
        pin_mask_add(&usable, cpu);
    }
    unsigned count = cores_order(folder, &machine, &usable, UINT64_MAX, places);
    end();
    CHECK_EQ(count, TOPOLOGY_CPUS_MAX);
    for (unsigned n = 0; n < count; n++) {
        CHECK_EQ(places[n].node, n % 64);
        CHECK_EQ(places[n].node, places[n].cpu * 7u % 64);
        CHECK_EQ(places[n].turn, n / 64);
        CHECK(n < 64 || places[n].cpu > places[n - 64].cpu);
    }
}

/* ---- lists ---------------------------------------------------------------------------------- */

static char visited[256];

static void visit(void *context, unsigned first, unsigned last)
{
    size_t length = strlen(visited);
    CHECK_EQ(context, &machine);
    snprintf(visited + length, sizeof visited - length, "[%u %u]", first, last);
}

static void check_list(const char *list, const char *expected)
{
    visited[0] = '\0';
    ranges_scan(list, visit, &machine);
    if (strcmp(visited, expected) != 0)
        FAIL("\"%s\" is %s, not %s", list, visited, expected);
}

TEST(lists_are_understood_whatever_stands_between)
{
    check_list("", "");
    check_list("\n5", "");
    check_list("7", "[7 7]");
    check_list("0-3,8,10-11\n12", "[0 3][8 8][10 11]");
    check_list("\t 1 2\t3-4", "[1 1][2 2][3 4]");
    check_list("3-", "");
    check_list("-3", "[3 3]");
    check_list("9-2", "[9 2]");
}

HARNESS_MAIN()
