/* SPDX-License-Identifier: MIT */
/*
 * What a process may have, whatever the machine has: real limits of hugetlb control groups of both
 * versions, of mounts, of addresses and of locked memory. plan and init see them and say what to
 * raise. test_cgroup.c has the forms of control groups that this machine does not.
 */
#define _GNU_SOURCE
#include "tests/plan_kit.h"

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
    CHECK_EQ(plan.now[0], 0);
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
    snprintf(text, sizeof text, "%llu", enough);
    CHECK(write_group(limit_file, text));
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
