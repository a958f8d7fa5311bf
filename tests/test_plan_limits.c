/* SPDX-License-Identifier: MIT */
/*
 * What a process may have, whatever the machine has: real limits of hugetlb control groups of both
 * versions, of mounts, of addresses and of locked memory. plan and init see them and say what to
 * raise. test_cgroup.c has the forms of control groups that this machine does not.
 */
#define _GNU_SOURCE
#include "tests/plan_kit.h"

#include "region/cgroup.h"

#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>

static void check_memlock(void *argument)
{
    const struct rlimit *limit = argument;
    if (setrlimit(RLIMIT_MEMLOCK, limit) != 0)
        SKIP("the limit cannot be raised (%s)", strerror(errno));
    CHECK_EQ(hak_region_plan(NULL, &plan), 0);
    CHECK(plan.memlock_bytes == (limit->rlim_cur == RLIM_INFINITY ? UINT64_MAX : limit->rlim_cur));
}

static void judge(const struct harness_result *result, const char *reason)
{
    if (result->exit_status == HARNESS_EXIT_SKIPPED)
        SKIP("%s", reason);
    if (result->exit_status != 0)
        FAIL("status %d, signal %d: %s", result->exit_status, result->signal, result->output);
}

TEST(the_limit_of_locked_memory_is_told)
{
    static struct harness_result result;
    struct rlimit limit;
    CHECK_EQ(getrlimit(RLIMIT_MEMLOCK, &limit), 0);
    limit.rlim_cur = limit.rlim_max < 65536 ? limit.rlim_max : 65536;
    harness_child(check_memlock, &limit, &result);
    CHECK_EQ(result.exit_status, 0);
}

TEST(no_limit_of_locked_memory_is_told)
{
    static struct harness_result result;
    struct rlimit limit = {RLIM_INFINITY, RLIM_INFINITY};
    harness_child(check_memlock, &limit, &result);
    judge(&result, "this process may not raise its limits (CAP_SYS_RESOURCE)");
}

static void have_few_addresses(void *argument)
{
    struct rlimit limit = {256 * MIB, 256 * MIB};
    struct hak_config config = config_of(512 * MIB, HAK_PAGES_4K, HAK_PAGES_DEFAULT);
    CHECK_EQ(setrlimit(*(__rlimit_resource_t *)argument, &limit), 0);
    if (supply_addresses() == 0)
        SKIP("this program has more addresses already (a sanitizer's)");
    config.prefault = HAK_OFF;
    CHECK_EQ(hak_region_plan(&config, &plan), 0);
    CHECK_EQ(plan.code, -ENOMEM);
    CHECK_STR_HAS(plan.message, " MiB more of 512 needed (raise its limits, ulimit -v and -d)");
    CHECK_EQ(hak_region_init(&config), -ENOMEM);
    CHECK_EQ(hak_last_error(&error), -ENOMEM);
    CHECK_STR_HAS(error.message, " MiB more of 512 needed (raise its limits, ulimit -v and -d)");
}

TEST(limits_of_addresses_are_seen)
{
    static struct harness_result result;
    __rlimit_resource_t resources[] = {RLIMIT_AS, RLIMIT_DATA};
    for (size_t i = 0; i < sizeof resources / sizeof *resources; i++) {
        harness_child(have_few_addresses, &resources[i], &result);
        judge(&result, "more addresses are in use already");
    }
}

/* ---- mounts of hugetlbfs --------------------------------------------------------------------- */

static void have_a_small_mount(void *argument)
{
    const char *point = argument;
    struct hak_config config = config_of(8 * 2 * MIB, HAK_PAGES_2M, HAK_PAGES_DEFAULT);
    if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0)
        SKIP("no mounts of our own");
    CHECK_EQ(setenv("HAKMEM_HUGETLBFS", "1", 1), 0);
    CHECK_EQ(setenv("HUGETLB_PATH", point, 1), 0);
    if (mount("none", point, "hugetlbfs", 0, "pagesize=2M,size=8M") != 0)
        SKIP("hugetlbfs cannot be mounted");
    check_agreement(&config);
    if (plan.code == -ELIBACC)
        SKIP("no libhugetlbfs here");
    CHECK_EQ(plan.code, -ENOMEM);
    CHECK_EQ(only_node()->missing_pages, 0);
    CHECK_STR_HAS(plan.message, " has 4 of its 4 pages left (option size=), 4 missing");
    CHECK_STR_HAS(plan.now, "mount -t hugetlbfs");
    CHECK_EQ(plan.hugeadm[0] + plan.boot[0], 0);
    config.pages[1] = HAK_PAGES_4K;
    check_agreement(&config);
    CHECK_EQ(plan.chosen, 1);
    CHECK_EQ(plan.kinds[0].code, -ENOMEM);
    config.size_bytes = 4 * 2 * MIB;
    check_agreement(&config);
    CHECK_EQ(plan.chosen, 0);
}

TEST(a_mount_that_is_too_small_is_foreseen)
{
    static struct harness_result result;
    char point[] = "/tmp/hakmem-mount-XXXXXX";
    want_free(HAK_PAGES_2M, 10);
    CHECK(mkdtemp(point) != NULL);
    harness_child(have_a_small_mount, point, &result);
    rmdir(point);
    judge(&result, "no mount, or no libhugetlbfs (package libhugetlbfs0)");
}

static char place[64];

/* A namespace of our own with one mount of hugetlbfs, on the place or below it. */
static void have_mount(const char *below, unsigned long flags, const char *options)
{
    char point[96];
    if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        system("umount -a -t hugetlbfs") != 0)
        SKIP("no mounts of our own");
    CHECK_EQ(setenv("HAKMEM_HUGETLBFS", "1", 1), 0);
    snprintf(point, sizeof point, "%s%s", place, below);
    CHECK(mkdir(point, 0755) == 0 || errno == EEXIST);
    if (mount("some-name", point, "hugetlbfs", flags, options) != 0)
        SKIP("hugetlbfs cannot be mounted");
}

static void lacks(size_t pages, int code, const char *words)
{
    struct hak_config config = config_of(pages * 2 * MIB, HAK_PAGES_2M, HAK_PAGES_DEFAULT);
    check_agreement(&config);
    if (plan.code == -ELIBACC)
        SKIP("no libhugetlbfs here");
    CHECK_STR_HAS(plan.message, words);
    CHECK_EQ(plan.code, code);
}

static void mends(size_t pages)
{
    struct hak_config config = config_of(pages * 2 * MIB, HAK_PAGES_2M, HAK_PAGES_DEFAULT);
    CHECK(plan.now[0] != '\0');
    CHECK_EQ(system(plan.now), 0);
    check_agreement(&config);
    CHECK_EQ(plan.code, 0);
}

/* The mount's options as the kernel shows them, without the size. */
static void read_options(char *out, size_t capacity)
{
    char text[8192], *at;
    CHECK(sysfs_read("/proc/self/mounts", text, sizeof text) > 0);
    CHECK((at = strstr(text, " hugetlbfs ")) != NULL);
    at += strlen(" hugetlbfs ");
    snprintf(out, capacity, "%.*s", (int)strcspn(at, " "), at);
    char *size = strstr(out, ",size=");
    CHECK(size != NULL);
    size_t length = strcspn(size + 1, ",") + 1;
    memmove(size, size + length, strlen(size + length) + 1);
}

static void keep_options(void *unused)
{
    struct stat before, after;
    char options[2][512];
    (void)unused;
    have_mount("", MS_NOSUID | MS_NOATIME,
               "pagesize=2M,size=8M,nr_inodes=40,mode=0710,uid=5,gid=6");
    read_options(options[0], sizeof options[0]);
    CHECK_STR_HAS(options[0], "nr_inodes=40");
    lacks(6, -ENOMEM, "has 4 of its 4 pages left (option size=), 2 missing");
    CHECK_STR_HAS(plan.now, " some-name /");
    mends(6);
    read_options(options[1], sizeof options[1]);
    CHECK_EQ(strcmp(options[0], options[1]), 0);
    /* And what was changed since it was mounted. */
    CHECK_EQ(chown(place, 7, 8), 0);
    CHECK_EQ(chmod(place, 01770), 0);
    CHECK_EQ(stat(place, &before), 0);
    lacks(8, -ENOMEM, "has 6 of its 6 pages left");
    mends(8);
    CHECK_EQ(stat(place, &after), 0);
    CHECK(before.st_uid == after.st_uid && before.st_gid == after.st_gid);
    CHECK_EQ(before.st_mode, after.st_mode);
}

static void have_no_inode(void *unused)
{
    (void)unused;
    have_mount("", 0, "pagesize=2M,nr_inodes=1"); /* which is its root */
    lacks(8, -ENOSPC, " has no room for another file, of 1 in all (option nr_inodes=).");
    mends(8);
}

static void read_only(void *unused)
{
    (void)unused;
    have_mount("", MS_RDONLY, "pagesize=2M");
    lacks(8, -EROFS, " is mounted read-only.");
    CHECK_STR_HAS(plan.now, "mount -o remount,rw /");
    mends(8);
}

/* Whatever the name needs in the mount table and for the shell. */
static void have_odd_name(void *unused)
{
    (void)unused;
    have_mount("/a \\ 'name", MS_RDONLY, "pagesize=2M");
    lacks(8, -EROFS, "/a \\ 'name is mounted read-only.");
    CHECK_STR_HAS(plan.now, "/a \\ '\\''name'\n");
    CHECK_EQ(system(plan.now), 0);
    /* libhugetlbfs may not find such a name; the mount can be written now, whoever looks. */
    char point[96];
    snprintf(point, sizeof point, "%s/a \\ 'name", place);
    CHECK_EQ(access(point, W_OK), 0);
}

TEST(what_is_wrong_with_a_mount_is_told_and_mended)
{
    static struct harness_result result;
    static void (*const cases[])(void *) = {keep_options, have_no_inode, read_only, have_odd_name};
    want_free(HAK_PAGES_2M, 10);
    strcpy(place, "/tmp/hakmem-mount-XXXXXX");
    CHECK(mkdtemp(place) != NULL);
    char command[96];
    bool skipped = false, failed = false;
    for (size_t i = 0; i < sizeof cases / sizeof *cases && !skipped && !failed; i++) {
        harness_child(cases[i], NULL, &result);
        skipped = result.exit_status == HARNESS_EXIT_SKIPPED;
        failed = result.exit_status != 0;
    }
    snprintf(command, sizeof command, "rmdir %s/a* 2>&1; rmdir %s", place, place);
    (void)!system(command);
    judge(&result, "no mount, or no libhugetlbfs (package libhugetlbfs0)");
}

static void have_neither(void *argument)
{
    char text[4096], *mount_command;
    struct hak_config config = *(struct hak_config *)argument;
    if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0)
        SKIP("no mounts of our own");
    /* So that the remedy's folder is one of ours, and no other mount is there. */
    if (mount("none", "/mnt", "tmpfs", 0, NULL) != 0)
        SKIP("no tmpfs can be mounted");
    if (system("umount -a -t hugetlbfs") != 0)
        SKIP("mounts of hugetlbfs in use");
    CHECK_EQ(setenv("HAKMEM_HUGETLBFS", "1", 1), 0);
    CHECK_EQ(hak_region_plan(&config, &plan), 0);
    if (strstr(plan.message, "needs libhugetlbfs.so.0") != NULL)
        SKIP("no libhugetlbfs here");
    CHECK_EQ(plan.code, -ENOMEM);
    CHECK_EQ(only_node()->missing_pages, 3);
    CHECK_STR_HAS(plan.message, ", 3 missing; 2M pages: libhugetlbfs finds no mount");
    CHECK_EQ(strncmp(plan.now, "echo ", 5), 0);
    mount_command = strchr(plan.now, '\n') + 1;
    CHECK_EQ(strncmp(mount_command, "mkdir -p /mnt/huge-2M && mount ", 31), 0);
    snprintf(text, sizeof text, "%s", plan.now);
    if (system(text) != 0)
        SKIP("the commands need root");
    hak_region_plan(&config, &plan);
    if (only_node()->missing_pages != 0)
        SKIP("this machine cannot make so many more pages");
    check_agreement(&config);
    CHECK_EQ(plan.code, 0);
    CHECK_EQ(plan.now[0], 0);
    /* Pages that no memory can be made into: no mount helps then. */
    CHECK_EQ(umount("/mnt/huge-2M"), 0);
    config.size_bytes = HAK_REGION_BYTES_MAX / 2;
    CHECK_EQ(hak_region_plan(&config, &plan), 0);
    CHECK_STR_HAS(plan.message, "libhugetlbfs finds no mount");
    CHECK_EQ(plan.now[0], 0);
}

TEST(pages_and_a_mount_that_are_lacking_are_both_provided)
{
    static struct harness_result result;
    (void)hold_pool(HAK_PAGES_2M);
    struct hak_config config = config_of((supply_unpromised(HAK_PAGES_2M) + 3) * 2 * MIB,
                                         HAK_PAGES_2M, HAK_PAGES_DEFAULT);
    harness_child(have_neither, &config, &result);
    restore_pools();
    judge(&result, "no mount, or no libhugetlbfs (package libhugetlbfs0)");
}

/* ---- control groups as text files ------------------------------------------------------------ */

static char machine[64];

static void leave_machine(void)
{
    char command[96];
    cgroup_fake(NULL);
    snprintf(command, sizeof command, "rm -rf %s", machine);
    if (machine[0] != '\0' && system(command) == 0)
        machine[0] = '\0';
}

/* A group of version 2 with a limit, nothing of it used; its name has a backslash, as systemd's. */
static void pretend_group(const char *file, const char *usage, const char *options)
{
    char command[1024];
    static bool watched;
    if (!watched)
        atexit(leave_machine);
    watched = true;
    leave_machine();
    strcpy(machine, "/tmp/hakmem-group-XXXXXX");
    CHECK(mkdtemp(machine) != NULL);
    snprintf(command, sizeof command,
             "cd %s && mkdir 'a\\x2db' && echo '0::/a\\x2db' >cgroup && "
             "echo '30 20 0:1 / %s rw - cgroup2 none rw%s' >mountinfo && "
             "echo 4194304 >'a\\x2db/%s' && echo 0 >'a\\x2db/%s'",
             machine, machine, options, file, usage);
    CHECK_EQ(system(command), 0);
    cgroup_fake(machine);
}

static unsigned lines_of(const char *text)
{
    unsigned lines = 0;
    while ((text = strchr(text, '\n')) != NULL)
        text++, lines++;
    return lines;
}

/* The commands are as many as that; when they are run there is enough. */
static void provides(const struct hak_config *config, unsigned lines, const char *words)
{
    check_agreement(config);
    CHECK_EQ(plan.code, -ENOMEM);
    CHECK_EQ(lines_of(plan.now), lines);
    CHECK_STR_HAS(plan.now, words);
    CHECK_STR_HAS(error.remedy, words);
    if (system(plan.now) != 0)
        SKIP("the commands need root");
    check_agreement(config);
    int code = plan.code;
    CHECK(plan.kinds[0].node_count == 1);
    if (only_node()->missing_pages != 0)
        SKIP("this machine cannot make so many more pages");
    CHECK_EQ(code, 0);
    CHECK_EQ(plan.now[0], 0);
}

TEST(a_limit_of_memory_has_a_command)
{
    struct hak_config config = config_of(16 * MIB, HAK_PAGES_4K, HAK_PAGES_DEFAULT);
    char file[128];
    pretend_group("memory.max", "memory.current", "");
    snprintf(file, sizeof file, " > '%s/a\\x2db/memory.max'\n", machine);
    provides(&config, 1, file);
    leave_machine();
}

TEST(pages_and_a_limit_that_are_lacking_are_both_provided)
{
    (void)hold_pool(HAK_PAGES_2M);
    struct hak_config config = config_of((supply_unpromised(HAK_PAGES_2M) + 3) * 2 * MIB,
                                         HAK_PAGES_2M, HAK_PAGES_DEFAULT);
    char command[192];
    pretend_group("hugetlb.2MB.max", "hugetlb.2MB.current", "");
    snprintf(command, sizeof command, "echo %zu > '%s/a\\x2db/hugetlb.2MB.max'\n",
             config.size_bytes, machine);
    provides(&config, 2, command);
    /* The pages first; and no limit is raised for pages that cannot be made. */
    config.size_bytes = HAK_REGION_BYTES_MAX / 2;
    check_agreement(&config);
    CHECK_STR_HAS(plan.message, "(raise ");
    CHECK_EQ(plan.now[0], 0);
    restore_pools();
    leave_machine();
}

TEST(a_file_that_limits_both_is_raised_once)
{
    want_free(HAK_PAGES_2M, 8);
    struct hak_config config = config_of(8 * 2 * MIB, HAK_PAGES_2M, HAK_PAGES_DEFAULT);
    pretend_group("memory.max", "memory.current", ",memory_hugetlb_accounting");
    provides(&config, 1, "memory.max'\n");
    leave_machine();
}

/* ---- control groups -------------------------------------------------------------------------- */

static char group[256]; /* the group's folder */
static const char *limit_file;

static bool write_group(const char *file, const char *text)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", group, file);
    return write_pool(path, text);
}

/* The number behind "(raise FILE to " in the message, for that file. */
static unsigned long long raise_to(void)
{
    char text[512];
    snprintf(text, sizeof text, "(raise %s/%s to ", group, limit_file);
    CHECK_STR_HAS(plan.message, text);
    return strtoull(strstr(plan.message, text) + strlen(text), NULL, 10);
}

static void live_in_group(void *argument)
{
    struct hak_config config = config_of(8 * 2 * MIB, HAK_PAGES_2M, HAK_PAGES_DEFAULT);
    char text[64];
    (void)argument;
    snprintf(text, sizeof text, "%d\n", (int)getpid());
    if (!write_group("cgroup.procs", text))
        SKIP("cannot enter the group");
    CHECK(write_group(limit_file, "6291456"));
    CHECK_EQ(hak_region_plan(&config, &plan), 0);
    CHECK_EQ(plan.kinds[0].cgroup_bytes, 3 * 2 * MIB);
    CHECK_EQ(only_node()->missing_pages, 0);
    CHECK_STR_HAS(plan.message, "the hugetlb cgroup allows 3 more of 8 needed");
    CHECK_EQ(plan.hugeadm[0] + plan.boot[0], 0);
    check_agreement(&config);
    CHECK_EQ(plan.code, -ENOMEM);
    /* With pages of another kind to go on to. */
    config.pages[1] = HAK_PAGES_4K;
    check_agreement(&config);
    CHECK_EQ(plan.chosen, 1);
    config.pages[1] = HAK_PAGES_DEFAULT;
    /* What the message advises is enough, and a page less is not. */
    CHECK_EQ(hak_region_plan(&config, &plan), 0);
    unsigned long long enough = raise_to();
    snprintf(text, sizeof text, "%llu", enough - 2 * MIB);
    CHECK(write_group(limit_file, text));
    check_agreement(&config);
    CHECK_EQ(plan.code, -ENOMEM);
    char command[640];
    snprintf(command, sizeof command, "echo %llu > %s/%s\n", enough, group, limit_file);
    CHECK_EQ(strcmp(plan.now, command), 0);
    CHECK_EQ(strcmp(error.remedy, command), 0);
    CHECK_EQ(system(plan.now), 0);
    check_agreement(&config);
    CHECK_EQ(plan.code, 0);
    CHECK_EQ(plan.kinds[0].cgroup_bytes, 8 * 2 * MIB);
    /* Pages in use count. */
    void *others = NULL;
    CHECK_EQ(os_map_hugetlb(2 * MIB, HAK_PAGES_2M, &others), 0);
    *(volatile char *)others = 1;
    check_agreement(&config);
    CHECK_EQ(plan.code, -ENOMEM);
    CHECK_EQ(plan.kinds[0].cgroup_bytes, 7 * 2 * MIB);
}

/* Runs the cases in a child in the group, and takes the group away. */
static void run_in_group(struct harness_result *result)
{
    harness_child(live_in_group, NULL, result);
    /* The group is busy until the kernel has buried the child. */
    for (int i = 0; i < 100 && rmdir(group) != 0; i++)
        usleep(10000);
}

/* Where version 2 is mounted. */
static bool find_version2(char *point, size_t capacity)
{
    char text[8192], *at;
    if (sysfs_read("/proc/self/mounts", text, sizeof text) <= 0 ||
        (at = strstr(text, " cgroup2 ")) == NULL)
        return false;
    *at = '\0';
    while (at > text && at[-1] != ' ')
        at--;
    return (size_t)snprintf(point, capacity, "%s", at) < capacity;
}

static bool file_has(const char *folder, const char *file, const char *word)
{
    char path[256], text[1024];
    snprintf(path, sizeof path, "%s/%s", folder, file);
    return sysfs_read(path, text, sizeof text) > 0 && strstr(text, word) != NULL;
}

TEST(a_hugetlb_limit_of_version_2_is_an_error_and_no_signal)
{
    static struct harness_result result;
    char point[128], switches[192];
    want_free(HAK_PAGES_2M, 10);
    if (!find_version2(point, sizeof point) || !file_has(point, "cgroup.controllers", "hugetlb"))
        SKIP("no hugetlb controller of version 2 here");
    snprintf(switches, sizeof switches, "%s/cgroup.subtree_control", point);
    bool switched = !file_has(point, "cgroup.subtree_control", "hugetlb");
    if (switched && !write_pool(switches, "+hugetlb"))
        SKIP("the controller cannot be switched on (%s)", strerror(errno));
    snprintf(group, sizeof group, "%s/hakmem-plan-%d", point, (int)getpid());
    limit_file = "hugetlb.2MB.max";
    bool made = mkdir(group, 0755) == 0;
    if (made)
        run_in_group(&result);
    if (switched)
        write_pool(switches, "-hugetlb");
    if (!made)
        SKIP("no group can be made");
    judge(&result, "a hugetlb group cannot be entered here");
}

/* Version 1 where it is mounted, or on a mount of our own; busy for a while after version 2. */
static bool mount_version1(char *point, size_t capacity)
{
    snprintf(point, capacity, "/sys/fs/cgroup/hugetlb");
    if (access("/sys/fs/cgroup/hugetlb/hugetlb.2MB.usage_in_bytes", F_OK) == 0)
        return false;
    snprintf(point, capacity, "/tmp/hakmem-plan-XXXXXX");
    if (mkdtemp(point) == NULL)
        SKIP("no folder");
    for (int i = 0; i < 100; i++) {
        if (mount("none", point, "cgroup", 0, "hugetlb") == 0)
            return true;
        usleep(10000);
    }
    int reason = errno;
    rmdir(point);
    SKIP("no hugetlb hierarchy of version 1 can be mounted (%s)", strerror(reason));
}

/* The number of the hierarchy that has the hugetlb controller; 0: version 2's. */
static unsigned hugetlb_hierarchy(void)
{
    char text[4096];
    unsigned hierarchy = 0;
    if (sysfs_read("/proc/cgroups", text, sizeof text) > 0 && strstr(text, "\nhugetlb\t") != NULL)
        (void)sscanf(strstr(text, "\nhugetlb\t"), " hugetlb %u", &hierarchy);
    return hierarchy;
}

/* While the kernel has not buried the group, the hierarchy stays without a mount, and version 2
 * cannot have the controller back: then once more. */
static void unmount_version1(const char *point)
{
    (void)umount(point);
    for (int i = 0; i < 60 && hugetlb_hierarchy() != 0; i++) {
        usleep(50000);
        if (hugetlb_hierarchy() != 0 && mount("none", point, "cgroup", 0, "hugetlb") == 0)
            (void)umount(point);
    }
    rmdir(point);
}

TEST(a_hugetlb_limit_of_version_1_is_an_error_and_no_signal)
{
    static struct harness_result result;
    char point[128];
    want_free(HAK_PAGES_2M, 10);
    bool mounted = mount_version1(point, sizeof point);
    snprintf(group, sizeof group, "%s/hakmem-plan-%d", point, (int)getpid());
    limit_file = "hugetlb.2MB.limit_in_bytes";
    bool made = mkdir(group, 0755) == 0;
    if (made)
        run_in_group(&result);
    if (mounted)
        unmount_version1(point);
    if (!made)
        SKIP("no group can be made");
    judge(&result, "a hugetlb group cannot be entered here");
}

HARNESS_MAIN()
