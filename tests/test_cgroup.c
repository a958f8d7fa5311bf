/* SPDX-License-Identifier: MIT */
/*
 * Limits of control groups as the kernel shows them: version 1, version 2 and both, in the group
 * and above it, on mounts that show the whole hierarchy or a part. The machine is a folder of text
 * files; real limits are in test_plan.c and test_shortage.c.
 */
#define _GNU_SOURCE
#include "region/cgroup.h"

#include "tests/harness.h"

#include <sys/stat.h>

#define MIB ((uint64_t)1 << 20)

static char folder[64];
static struct cgroup_limit limit;

static void write_file(const char *name, const char *text)
{
    char path[2048], made[2048];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    for (char *slash = strchr(path + strlen(folder) + 1, '/'); slash != NULL;
         slash = strchr(slash + 1, '/')) {
        snprintf(made, sizeof made, "%.*s", (int)(slash - path), path);
        CHECK(mkdir(made, 0755) == 0 || errno == EEXIST);
    }
    FILE *file = fopen(path, "w");
    CHECK(file != NULL);
    fputs(text, file);
    CHECK_EQ(fclose(file), 0);
}

static void remove_folder(void)
{
    char command[128];
    cgroup_fake(NULL);
    snprintf(command, sizeof command, "rm -rf %s", folder);
    if (folder[0] != '\0' && system(command) == 0)
        folder[0] = '\0';
}

/* A process in the group of each line; mounts: lines with %s for the folder. */
static void make_machine(const char *groups, const char *mounts)
{
    static bool watched;
    char text[4096];
    if (!watched)
        atexit(remove_folder);
    watched = true;
    remove_folder();
    strcpy(folder, "/tmp/hakmem-groups-XXXXXX");
    CHECK(mkdtemp(folder) != NULL);
    write_file("cgroup", groups);
    text[0] = '\0';
    for (const char *at = mounts; *at != '\0'; at++) {
        size_t used = strlen(text);
        if (*at == '%')
            snprintf(text + used, sizeof text - used, "%s", folder);
        else
            snprintf(text + used, sizeof text - used, "%c", *at);
    }
    write_file("mountinfo", text);
    cgroup_fake(folder);
}

static void check_file(const char *name)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    CHECK_EQ(strcmp(limit.file, path), 0);
}

#define OTHERS                                                                                     \
    "21 26 0:19 / /sys rw,nosuid shared:7 - sysfs sysfs rw\n"                                      \
    "22 26 0:20 / /cgroup - tmpfs tmpfs rw\n"
#define VERSION2 "30 21 0:26 / %/two rw,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
#define HUGETLB1 "31 21 0:27 / %/huge rw - cgroup cgroup rw,hugetlb\n"
#define MEMORY1 "32 21 0:28 / %/mem rw - cgroup cgroup rw,cpu,memory\n"

TEST(no_group_no_mount_or_no_limit_is_no_limit)
{
    make_machine("0::/\n", OTHERS);
    CHECK(cgroup_hugetlb_room(HAK_PAGES_2M) == CGROUP_UNLIMITED);
    CHECK(cgroup_memory_room() == CGROUP_UNLIMITED);
    make_machine("", OTHERS VERSION2 HUGETLB1);
    CHECK(cgroup_hugetlb_room(HAK_PAGES_2M) == CGROUP_UNLIMITED);
    make_machine("0::/a\n2:hugetlb:/a\n", OTHERS VERSION2 HUGETLB1);
    write_file("two/a/hugetlb.2MB.max", "max\n");
    write_file("two/a/hugetlb.2MB.current", "0\n");
    write_file("huge/a/hugetlb.2MB.limit_in_bytes", "9223372036854771712\n");
    write_file("huge/a/hugetlb.2MB.usage_in_bytes", "4194304\n");
    cgroup_hugetlb(HAK_PAGES_2M, &limit);
    CHECK(limit.room_bytes == CGROUP_UNLIMITED);
    CHECK_EQ(limit.file[0], 0);
}

TEST(version_2_in_the_group_and_above_it)
{
    make_machine("0::/a/b\n", OTHERS VERSION2);
    write_file("two/a/b/hugetlb.2MB.max", "20971520\n");
    write_file("two/a/b/hugetlb.2MB.current", "4194304\n");
    cgroup_hugetlb(HAK_PAGES_2M, &limit);
    CHECK_EQ(limit.room_bytes, 16 * MIB);
    CHECK_EQ(limit.usage_bytes, 4 * MIB);
    check_file("two/a/b/hugetlb.2MB.max");
    write_file("two/a/hugetlb.2MB.max", "8388608\n");
    write_file("two/a/hugetlb.2MB.current", "6291456\n");
    cgroup_hugetlb(HAK_PAGES_2M, &limit);
    CHECK_EQ(limit.room_bytes, 2 * MIB);
    check_file("two/a/hugetlb.2MB.max");
    /* A container sees its own group as the root, and that has files. */
    write_file("two/hugetlb.2MB.max", "0\n");
    write_file("two/hugetlb.2MB.current", "6291456\n");
    cgroup_hugetlb(HAK_PAGES_2M, &limit);
    CHECK_EQ(limit.room_bytes, 0);
    check_file("two/hugetlb.2MB.max");
    CHECK(cgroup_hugetlb_room(HAK_PAGES_1G) == CGROUP_UNLIMITED);
    CHECK(cgroup_memory_room() == CGROUP_UNLIMITED);
}

/* As containers in containers have them. */
TEST(a_group_with_a_long_path_is_found)
{
    char group[1200] = "", line[1300], file[1300];
    for (unsigned n = 0; n < 6; n++) {
        size_t used = strlen(group);
        snprintf(group + used, sizeof group - used, "/%0190u", n);
    }
    snprintf(line, sizeof line, "0::%s\n", group);
    make_machine(line, OTHERS VERSION2);
    snprintf(file, sizeof file, "two%s/hugetlb.2MB.max", group);
    write_file(file, "20971520\n");
    snprintf(file, sizeof file, "two%s/hugetlb.2MB.current", group);
    write_file(file, "4194304\n");
    CHECK_EQ(cgroup_hugetlb_room(HAK_PAGES_2M), 16 * MIB);
}

TEST(reservations_are_limited_apart_and_1g_pages_too)
{
    make_machine("0::/a\n", VERSION2);
    write_file("two/a/hugetlb.1GB.max", "max\n");
    write_file("two/a/hugetlb.1GB.current", "0\n");
    write_file("two/a/hugetlb.1GB.rsvd.max", "3221225472\n");
    write_file("two/a/hugetlb.1GB.rsvd.current", "1073741824\n");
    cgroup_hugetlb(HAK_PAGES_1G, &limit);
    CHECK_EQ(limit.room_bytes, 2048 * MIB);
    check_file("two/a/hugetlb.1GB.rsvd.max");
    CHECK(cgroup_hugetlb_room(HAK_PAGES_2M) == CGROUP_UNLIMITED);
}

TEST(version_1_finds_its_controller_among_others)
{
    make_machine("12:memory,cpu:/m\n7:cpuset,hugetlb:/h/i\n1:name=systemd:/s\n0::/\n",
                 OTHERS MEMORY1 HUGETLB1);
    write_file("huge/h/i/hugetlb.2MB.limit_in_bytes", "12582912\n");
    write_file("huge/h/i/hugetlb.2MB.usage_in_bytes", "2097152\n");
    write_file("huge/h/i/hugetlb.2MB.rsvd.limit_in_bytes", "12582912\n");
    write_file("huge/h/i/hugetlb.2MB.rsvd.usage_in_bytes", "4194304\n");
    write_file("mem/m/memory.limit_in_bytes", "104857600\n");
    write_file("mem/m/memory.usage_in_bytes", "94371840\n");
    write_file("mem/m/memory.stat", "cache 7\ninactive_file 1048576\nactive_file 4194304\n");
    cgroup_hugetlb(HAK_PAGES_2M, &limit);
    CHECK_EQ(limit.room_bytes, 8 * MIB);
    check_file("huge/h/i/hugetlb.2MB.rsvd.limit_in_bytes");
    cgroup_memory(&limit);
    CHECK_EQ(limit.room_bytes, 15 * MIB);
    CHECK_EQ(limit.usage_bytes, 85 * MIB);
    check_file("mem/m/memory.limit_in_bytes");
}

TEST(both_versions_side_by_side_the_least_counts)
{
    make_machine("3:hugetlb:/h\n0::/t\n", HUGETLB1 VERSION2);
    write_file("huge/h/hugetlb.2MB.limit_in_bytes", "8388608\n");
    write_file("huge/h/hugetlb.2MB.usage_in_bytes", "0\n");
    write_file("two/t/hugetlb.2MB.max", "10485760\n");
    write_file("two/t/hugetlb.2MB.current", "6291456\n");
    CHECK_EQ(cgroup_hugetlb_room(HAK_PAGES_2M), 4 * MIB);
    write_file("two/t/hugetlb.2MB.current", "0\n");
    CHECK_EQ(cgroup_hugetlb_room(HAK_PAGES_2M), 8 * MIB);
    /* Version 2's names do not count in version 1's folder. */
    write_file("huge/h/hugetlb.2MB.max", "0\n");
    write_file("huge/h/hugetlb.2MB.current", "0\n");
    CHECK_EQ(cgroup_hugetlb_room(HAK_PAGES_2M), 8 * MIB);
}

TEST(a_mount_of_a_part_is_counted_from_there)
{
    static const char limits[] = "2097152\n";
    /* The host's name of the group, and a mount that shows the container's part. */
    make_machine("0::/docker/x/y\n", "30 21 0:26 /docker/x %/two rw - cgroup2 cgroup2 rw\n");
    write_file("two/y/hugetlb.2MB.max", limits);
    write_file("two/y/hugetlb.2MB.current", "0\n");
    cgroup_hugetlb(HAK_PAGES_2M, &limit);
    check_file("two/y/hugetlb.2MB.max");
    /* Another group's part says nothing about us. */
    make_machine("0::/docker/xy\n", "30 21 0:26 /docker/x %/two rw - cgroup2 cgroup2 rw\n");
    write_file("two/hugetlb.2MB.max", limits);
    write_file("two/hugetlb.2MB.current", "0\n");
    CHECK(cgroup_hugetlb_room(HAK_PAGES_2M) == CGROUP_UNLIMITED);
    /* A mount from before the group became a namespace's root: its root is above us. */
    make_machine("0::/\n", "30 21 0:26 /../.. %/two rw - cgroup2 cgroup2 rw\n");
    write_file("two/hugetlb.2MB.max", limits);
    write_file("two/hugetlb.2MB.current", "0\n");
    CHECK_EQ(cgroup_hugetlb_room(HAK_PAGES_2M), 2 * MIB);
}

TEST(a_name_with_a_space_and_a_folder_that_is_not_there)
{
    make_machine("0::/gone/further\n", "30 21 0:26 / %/t\\040wo rw - cgroup2 cgroup2 rw\n");
    write_file("t wo/hugetlb.2MB.max", "2097152\n");
    write_file("t wo/hugetlb.2MB.current", "0\n");
    cgroup_hugetlb(HAK_PAGES_2M, &limit);
    CHECK_EQ(limit.room_bytes, 2 * MIB);
    check_file("t wo/hugetlb.2MB.max");
}

TEST(hugetlb_pages_count_as_memory_where_the_mount_says_so)
{
    make_machine("0::/a\n", VERSION2);
    write_file("two/a/memory.max", "6291456\n");
    write_file("two/a/memory.current", "2097152\n");
    CHECK(cgroup_hugetlb_room(HAK_PAGES_2M) == CGROUP_UNLIMITED);
    make_machine("0::/a\n", "30 21 0:26 / %/two rw - cgroup2 cgroup2 "
                            "rw,nsdelegate,memory_hugetlb_accounting\n");
    write_file("two/a/memory.max", "6291456\n");
    write_file("two/a/memory.current", "2097152\n");
    cgroup_hugetlb(HAK_PAGES_2M, &limit);
    CHECK_EQ(limit.room_bytes, 4 * MIB);
    check_file("two/a/memory.max");
}

TEST(lines_of_any_length_pass_by)
{
    static char mounts[64 * 1024];
    strcpy(mounts, "20 1 0:1 / / rw - overlay overlay rw,lowerdir=");
    memset(mounts + strlen(mounts), 'l', 40000);
    size_t used = strlen(mounts);
    used += (size_t)snprintf(mounts + used, sizeof mounts - used,
                             "\ntoo few fields - cgroup2\n - cgroup\n\n");
    make_machine("0::/\nno colons\n", "");
    snprintf(mounts + used, sizeof mounts - used, "30 21 0:26 / %s/two rw - cgroup2 c rw\n",
             folder);
    write_file("mountinfo", mounts);
    write_file("two/memory.max", "1048576\n");
    write_file("two/memory.current", "0\n");
    CHECK_EQ(cgroup_memory_room(), 1 * MIB);
}

HARNESS_MAIN()
