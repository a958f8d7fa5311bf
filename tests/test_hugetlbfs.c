/* SPDX-License-Identifier: MIT */
/*
 * Regions on a file of a hugetlbfs mount (HAKMEM_HUGETLBFS): the mount's limit and permissions
 * count, a killed process leaves nothing, and whatever is missing is said with what mends it.
 *
 * The mounts are made in a mount namespace of the test's own, so that those of the machine are
 * neither found nor touched, and go with it however it ends. Needs root and libhugetlbfs.
 */
#define _GNU_SOURCE
#include "region/hugetlbfs.h"

#include "numa/bind.h"
#include "region/backing.h"
#include "tests/deny_kit.h"
#include "tests/left_kit.h"

#include <dlfcn.h>
#include <limits.h>
#include <link.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#define NOBODY 65534

static struct backing backing;
static struct hak_error error;
static struct harness_result result;

/* ---- mounts ---------------------------------------------------------------------------------- */

/* Where the test mounts; a folder that is there as long as the test. */
static char place[64];
static pid_t place_owner;

static void leave_place(void)
{
    if (getpid() != place_owner)
        return;
    while (umount2(place, MNT_DETACH) == 0) {
    }
    rmdir(place);
}

/* Takes every hugetlbfs mount out of this process's view. */
static void hide_mounts(void)
{
    char line[PATH_MAX], path[1024], kind[64];
    FILE *file = fopen("/proc/self/mounts", "r");
    CHECK(file != NULL);
    while (fgets(line, sizeof line, file) != NULL)
        if (sscanf(line, "%*s %1023s %63s", path, kind) == 2 && strcmp(kind, "hugetlbfs") == 0)
            umount2(path, MNT_DETACH);
    fclose(file);
}

/* A namespace of our own and no hugetlbfs mount in it; skips where that cannot be. */
static void no_mount(void)
{
    void *library = dlopen("libhugetlbfs.so.0", RTLD_NOW);
    if (library == NULL)
        SKIP("libhugetlbfs.so.0 is not installed (apt-get install libhugetlbfs0)");
    dlclose(library);
    if (geteuid() != 0)
        SKIP("mounting needs root");
    if (place[0] == '\0') {
        if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0)
            SKIP("no mount namespace can be made here (%s)", strerror(errno));
        snprintf(place, sizeof place, "/tmp/hakmem-hugetlbfs-XXXXXX");
        CHECK(mkdtemp(place) != NULL);
        CHECK_EQ(chmod(place, 0755), 0);
        place_owner = getpid();
        atexit(leave_place);
    }
    unsetenv("HUGETLB_PATH");
    hide_mounts();
    memset(&error, 0, sizeof error);
}

static void mounted(const char *options)
{
    no_mount();
    if (mount("none", place, "hugetlbfs", 0, options) != 0)
        SKIP("hugetlbfs cannot be mounted with %s (%s)", options, strerror(errno));
}

/* Names on the mount, without "." and "..". */
static size_t names_on_mount(void)
{
    return left_entries(place) - 2;
}

static struct settings ask_file(size_t bytes, enum hak_pages first, enum hak_pages second)
{
    struct settings settings = ask(bytes, first, second, true);
    settings.hugetlbfs = true;
    return settings;
}

static void create(const struct settings *settings)
{
    int code = backing_create(settings, &backing, &error);
    if (code != 0)
        FAIL("%d: %s", code, error.message);
}

/* The line of /proc/self/maps or numa_maps about the mapping that begins there. */
static const char *line_about(const char *path, const void *start)
{
    static char line[1024];
    char address[32];
    FILE *file = fopen(path, "r");
    CHECK(file != NULL);
    snprintf(address, sizeof address, "%lx", (unsigned long)start);
    while (fgets(line, sizeof line, file) != NULL) {
        if (strncmp(line, address, strlen(address)) == 0) {
            fclose(file);
            return line;
        }
    }
    fclose(file);
    FAIL("nothing in %s at %s", path, address);
}

/* Zeroed, in memory, on its node, and bound to it. */
static void check_region(void)
{
    size_t wrong = 99;
    CHECK_EQ(backing_check(&backing), 0);
    for (size_t at = 0; at < backing.bytes; at += 512)
        CHECK_EQ(backing.base[at], 0);
    check_faulted_in(backing.base, backing.bytes);
    for (unsigned i = 0; i < backing.segment_count; i++) {
        struct backing_segment *segment = &backing.segments[i];
        CHECK_EQ(
            bind_verify(segment->start, segment->bytes, backing.page_bytes, segment->node, &wrong),
            0);
        CHECK_EQ(wrong, 0);
        if (access("/proc/self/numa_maps", R_OK) == 0)
            CHECK_STR_HAS(line_about("/proc/self/numa_maps", segment->start), " bind");
    }
}

/* ---- a region on a mount --------------------------------------------------------------------- */

TEST(a_region_lies_in_a_file_without_a_name)
{
    want_free(HAK_PAGES_2M, 32);
    mounted("pagesize=2M,size=128M");
    struct settings settings = ask_file(64 * MIB, HAK_PAGES_2M, HAK_PAGES_DEFAULT);
    struct statfs before, during;
    create(&settings); /* whatever libc keeps is there now */
    backing_destroy(&backing);
    left_note();
    CHECK_EQ(statfs(place, &before), 0);
    create(&settings);
    CHECK_EQ(backing.pages, HAK_PAGES_2M);
    CHECK_EQ(backing.page_bytes, 2 * MIB);
    CHECK_EQ(left_entries("/proc/self/fd"), left_files);
    CHECK_EQ(names_on_mount(), 0);
    const char *line = line_about("/proc/self/maps", backing.base);
    CHECK_STR_HAS(line, place);
    CHECK_STR_HAS(line, "(deleted)");
    CHECK_STR_HAS(line, " rw-s ");
    check_region();
    CHECK_EQ(statfs(place, &during), 0);
    CHECK_EQ(before.f_bfree - during.f_bfree, 32);
    CHECK_EQ(left_free_pages(), left_pages - 32);
    backing_destroy(&backing);
    LEFT_NOTHING();
    CHECK_EQ(statfs(place, &during), 0);
    CHECK_EQ(before.f_bfree, during.f_bfree);
    CHECK_EQ(umount(place), 0); /* nobody holds it */
}

TEST(nodes_share_the_file)
{
    want_free(HAK_PAGES_2M, 32);
    mounted("pagesize=2M");
    struct settings settings = ask_file(60 * MIB, HAK_PAGES_2M, HAK_PAGES_DEFAULT);
    topology_fake(3);
    int code = backing_create(&settings, &backing, &error);
    topology_fake(0);
    CHECK_EQ(code, 0);
    CHECK_EQ(backing.segment_count, 3);
    check_faulted_in(backing.base, backing.bytes);
    backing_destroy(&backing);
}

TEST(a_page_of_1_gib_by_a_mount)
{
    want_free(HAK_PAGES_1G, 1);
    mounted("pagesize=1G");
    struct settings settings = ask_file(4 * MIB, HAK_PAGES_1G, HAK_PAGES_DEFAULT);
    settings.nodes = UINT64_C(1) << first_node();
    create(&settings);
    CHECK_EQ(backing.bytes, GIB);
    CHECK_EQ((uintptr_t)backing.base % GIB, 0);
    CHECK_STR_HAS(line_about("/proc/self/maps", backing.base), place);
    check_faulted_in(backing.base, backing.bytes);
    backing_destroy(&backing);
    CHECK_EQ(umount(place), 0);
    restore_pools();
}

TEST(ordinary_kinds_are_as_the_list_says)
{
    no_mount();
    struct settings settings = ask_file(16 * MIB, HAK_PAGES_4K, HAK_PAGES_DEFAULT);
    create(&settings);
    CHECK_EQ(backing.pages, HAK_PAGES_4K);
    CHECK(strchr(line_about("/proc/self/maps", backing.base), '/') == NULL);
    backing_destroy(&backing);
    want_free(HAK_PAGES_2M, 8);
    settings = ask_file(16 * MIB, HAK_PAGES_2M, HAK_PAGES_4K);
    create(&settings); /* there is no mount: the next of the list */
    CHECK_EQ(backing.pages, HAK_PAGES_4K);
    CHECK_EQ(backing.pages_wanted, HAK_PAGES_2M);
    backing_destroy(&backing);
}

/* ---- children and kills ---------------------------------------------------------------------- */

static void read_in_child(void *argument)
{
    (void)*(volatile unsigned char *)argument;
}

static void write_in_child(void *argument)
{
    unsigned char *at = argument;
    CHECK_EQ(at[0], 7);
    at[0] = 8;
    CHECK_EQ(at[0], 8);
}

TEST(children_get_it_only_where_they_are_to)
{
    want_free(HAK_PAGES_2M, 16);
    mounted("pagesize=2M");
    struct settings settings = ask_file(8 * MIB, HAK_PAGES_2M, HAK_PAGES_DEFAULT);
    create(&settings);
    harness_child(read_in_child, backing.base, &result);
    CHECK_EQ(result.signal, SIGSEGV);
    backing_destroy(&backing);
    settings.fork_inherits = true;
    create(&settings);
    CHECK_STR_HAS(line_about("/proc/self/maps", backing.base), " rw-p ");
    check_region();
    backing.base[0] = 7;
    harness_child(write_in_child, backing.base, &result);
    CHECK_EQ(result.exit_status, 0);
    CHECK_EQ(backing.base[0], 7); /* the child's copy was its own */
    backing_destroy(&backing);
    CHECK_EQ(umount(place), 0);
}

/* Sets regions up and takes them down for ever, and says so once. */
static void come_and_go(int say)
{
    struct settings settings = ask_file(16 * MIB, HAK_PAGES_2M, HAK_PAGES_DEFAULT);
    for (bool said = false;; said = true) {
        if (backing_create(&settings, &backing, &error) != 0)
            _exit(1);
        if (!said && write(say, "!", 1) != 1)
            _exit(1);
        backing_destroy(&backing);
    }
}

TEST(a_killed_process_leaves_no_page_and_no_name)
{
    want_free(HAK_PAGES_2M, 8);
    mounted("pagesize=2M");
    uint64_t random = harness_seed();
    left_note();
    for (int round = 0; round < 20; round++) {
        int ends[2], status;
        char byte;
        CHECK_EQ(pipe(ends), 0);
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0)
            come_and_go(ends[1]);
        close(ends[1]);
        bool started = read(ends[0], &byte, 1) == 1;
        usleep((unsigned)(harness_random(&random) % 5000));
        kill(child, SIGKILL);
        CHECK_EQ(waitpid(child, &status, 0), child);
        close(ends[0]);
        CHECK(started && WIFSIGNALED(status));
        CHECK_EQ(names_on_mount(), 0);
        LEFT_NOTHING();
    }
    CHECK_EQ(umount(place), 0);
}

/* ---- what can be missing --------------------------------------------------------------------- */

/* The region cannot be had, and nothing stays behind. */
static void refused(size_t bytes, int code, const char *words)
{
    struct settings settings = ask_file(bytes, HAK_PAGES_2M, HAK_PAGES_DEFAULT);
    struct hak_error looked = {.kind = HAK_ERROR_NONE};
    left_note();
    int seen = hugetlbfs_map(bytes, HAK_PAGES_2M, true, NULL, &looked);
    CHECK_EQ(backing_create(&settings, &backing, &error), code);
    LEFT_NOTHING();
    /* Who only looks hears the same; of what comes after the mapping, nothing. */
    CHECK(seen == 0 || (seen == code && strcmp(looked.remedy, error.remedy) == 0));
    CHECK_EQ(seen == 0, code == -EINVAL);
    CHECK_EQ(error.code, code);
    CHECK_EQ(error.kind, HAK_ERROR_SETUP);
    CHECK_STR_HAS(error.message, " cannot be had: 2M pages: ");
    CHECK_STR_HAS(error.message, words);
}

/* Root does what the remedy says. */
static void mend(const char *expected)
{
    if (strcmp(error.remedy, expected) != 0)
        FAIL("remedy \"%s\", not \"%s\"", error.remedy, expected);
    CHECK_EQ(system(error.remedy), 0);
}

static void works(size_t bytes)
{
    struct settings settings = ask_file(bytes, HAK_PAGES_2M, HAK_PAGES_DEFAULT);
    create(&settings);
    check_region();
    backing_destroy(&backing);
}

TEST(without_a_mount_the_remedy_makes_one)
{
    want_free(HAK_PAGES_2M, 8);
    no_mount();
    bool was_there = access("/mnt/huge-2M", F_OK) == 0;
    refused(16 * MIB, -ENOENT, "libhugetlbfs finds no mount of hugetlbfs for this size.");
    mend("mkdir -p /mnt/huge-2M && mount -t hugetlbfs -o pagesize=2M,mode=1777 none "
         "/mnt/huge-2M\n");
    int code = backing_create(
        &(struct settings){
            .size_bytes = 16 * MIB, .pages = {HAK_PAGES_2M}, .pages_count = 1, .hugetlbfs = true},
        &backing, &error);
    backing_destroy(&backing);
    umount("/mnt/huge-2M");
    if (!was_there)
        rmdir("/mnt/huge-2M");
    CHECK_EQ(code, 0);
}

TEST(a_mount_of_another_page_size_is_none)
{
    want_free(HAK_PAGES_2M, 8);
    mounted("pagesize=1G");
    refused(16 * MIB, -ENOENT, "no mount of hugetlbfs for this size");
}

TEST(a_full_mount_is_counted_and_the_remedy_makes_it_larger)
{
    want_free(HAK_PAGES_2M, 16);
    mounted("pagesize=2M,size=16M");
    char words[200], remedy[320];
    snprintf(words, sizeof words,
             "the mount %s has 8 of its 8 pages left (option size=), 2 missing.", place);
    refused(20 * MIB, -ENOMEM, words);
    snprintf(
        remedy, sizeof remedy,
        "umount %s && mount -t hugetlbfs -o rw,relatime,pagesize=2M,mode=755,uid=0,gid=0,size=20M "
        "none %s\n",
        place, place);
    mend(remedy);
    works(20 * MIB);
    /* What others hold counts. */
    struct settings settings = ask_file(12 * MIB, HAK_PAGES_2M, HAK_PAGES_DEFAULT);
    create(&settings);
    struct backing first = backing;
    snprintf(words, sizeof words, "the mount %s has 4 of its 10 pages left", place);
    refused(12 * MIB, -ENOMEM, words);
    backing_destroy(&first);
    works(12 * MIB);
}

static void refused_by_access(void *unused)
{
    (void)unused;
    deny(SYS_access, -1, EIO);
    refused(16 * MIB, -EIO, " cannot be used: Input/output error.");
    CHECK(strstr(error.message, "may not") == NULL);
    CHECK_EQ(error.remedy[0], 0);
}

static void become_nobody(void)
{
    if (setgid(NOBODY) != 0 || setuid(NOBODY) != 0)
        SKIP("cannot become nobody");
}

static void refused_to_nobody(void *unused)
{
    (void)unused;
    become_nobody();
    char words[160], remedy[160];
    snprintf(words, sizeof words,
             "the hugetlbfs mount %s may not be written by user %d: Permission denied.", place,
             NOBODY);
    refused(16 * MIB, -EACCES, words);
    snprintf(remedy, sizeof remedy, "chown %d %s\n", NOBODY, place);
    CHECK_EQ(strcmp(error.remedy, remedy), 0);
}

static void works_for_nobody(void *unused)
{
    (void)unused;
    become_nobody();
    works(16 * MIB);
}

TEST(a_mount_of_somebody_elses_is_named)
{
    want_free(HAK_PAGES_2M, 8);
    mounted("pagesize=2M,mode=0700");
    run_apart(&result, refused_to_nobody, NULL);
    CHECK_EQ(chown(place, NOBODY, NOBODY), 0); /* the remedy */
    run_apart(&result, works_for_nobody, NULL);
}

TEST(another_reason_than_permission_is_not_called_so)
{
    want_free(HAK_PAGES_2M, 8);
    mounted("pagesize=2M");
    run_apart(&result, refused_by_access, NULL);
}

/* A mount over the library's file: what is there is no library. */
static void hide_library(char *path)
{
    struct link_map *map;
    void *library = dlopen("libhugetlbfs.so.0", RTLD_NOW);
    CHECK(library != NULL && dlinfo(library, RTLD_DI_LINKMAP, &map) == 0);
    CHECK(realpath(map->l_name, path) != NULL);
    dlclose(library);
    CHECK_EQ(mount("/dev/null", path, NULL, MS_BIND, NULL), 0);
}

TEST(without_the_library_its_package_is_named)
{
    want_free(HAK_PAGES_2M, 8);
    mounted("pagesize=2M");
    char path[PATH_MAX];
    hide_library(path);
    struct settings settings = ask_file(16 * MIB, HAK_PAGES_2M, HAK_PAGES_DEFAULT);
    int first = backing_create(&settings, &backing, &error);
    settings.hugetlbfs = false; /* and nobody else needs it */
    int second = backing_create(&settings, &backing, &(struct hak_error){0});
    backing_destroy(&backing);
    CHECK_EQ(umount(path), 0);
    CHECK_EQ(first, -ELIBACC);
    CHECK_EQ(second, 0);
    CHECK_STR_HAS(error.message, " 2M pages: HAKMEM_HUGETLBFS needs libhugetlbfs.so.0: ");
    CHECK_EQ(strcmp(error.remedy, "apt-get install libhugetlbfs0\n"), 0);
}

static void without_unnamed_files(void *unused)
{
    (void)unused;
    deny(SYS_openat, O_TMPFILE | O_RDWR | O_CLOEXEC, EOPNOTSUPP);
    struct settings settings = ask_file(16 * MIB, HAK_PAGES_2M, HAK_PAGES_DEFAULT);
    left_note();
    create(&settings);
    CHECK_EQ(left_entries("/proc/self/fd"), left_files);
    CHECK_EQ(names_on_mount(), 0);
    const char *line = line_about("/proc/self/maps", backing.base);
    CHECK_STR_HAS(line, "libhugetlbfs.tmp");
    CHECK_STR_HAS(line, "(deleted)");
    check_region();
    backing_destroy(&backing);
    LEFT_NOTHING();
}

TEST(kernels_without_unnamed_files_get_a_name_that_is_gone)
{
    want_free(HAK_PAGES_2M, 8);
    mounted("pagesize=2M");
    run_apart(&result, without_unnamed_files, NULL);
}

static void refused_by_mbind(void *unused)
{
    (void)unused;
    deny(SYS_mbind, -1, EINVAL);
    refused(16 * MIB, -EINVAL, "binding them to their node: Invalid argument.");
    CHECK_EQ(names_on_mount(), 0);
}

TEST(a_later_step_that_fails_undoes_it)
{
    want_free(HAK_PAGES_2M, 8);
    mounted("pagesize=2M");
    run_apart(&result, refused_by_mbind, NULL);
    CHECK_EQ(umount(place), 0);
}

/* ---- the whole way --------------------------------------------------------------------------- */

static void init_from_environment(void *unused)
{
    struct hak_config config = {
        .size_bytes = 32 * MIB, .pages = {HAK_PAGES_2M}, .prefault = HAK_ON};
    struct hak_stats stats;
    (void)unused;
    setenv("HAKMEM_HUGETLBFS", "1", 1);
    int code = hak_region_init(&config);
    if (code != 0) {
        hak_last_error(&error);
        FAIL("%d: %s", code, error.message);
    }
    CHECK_EQ(hak_region_stats(NULL, &stats), 0);
    CHECK_EQ(stats.pages, HAK_PAGES_2M);
    char *object = hak_malloc(20 * MIB);
    CHECK(object != NULL);
    memset(object, 1, 20 * MIB);
    hak_free(object);
    CHECK_EQ(hak_region_fini(), 0);
    unsetenv("HAKMEM_HUGETLBFS");
    CHECK_EQ(umount(place), 0);
    CHECK_EQ(hak_region_init(&config), 0); /* without, no mount is needed */
}

TEST(the_environment_asks_for_it)
{
    want_free(HAK_PAGES_2M, 16);
    mounted("pagesize=2M");
    run_apart(&result, init_from_environment, NULL);
}

/* /proc/self/maps of a program whose whole heap is on the mount. */
static void exec_preloaded(void *unused)
{
    char self[PATH_MAX], path[PATH_MAX + 32];
    (void)unused;
    ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
    CHECK(length > 0);
    self[length] = '\0';
    for (int parts = 0; parts < 2; parts++)
        *strrchr(self, '/') = '\0';
    snprintf(path, sizeof path, "%s/libhakmem_preload.so", self);
    setenv("LD_PRELOAD", path, 1);
    setenv("HAKMEM_HUGETLBFS", "1", 1);
    setenv("HAKMEM_PAGES", "2M", 1);
    setenv("HAKMEM_REGION_SIZE", "16M", 1);
    /* A shell, a child of it, and pages that both have written to. */
    execl("/bin/sh", "sh", "-c", "x=$(echo from a child); echo $x; exec cat /proc/self/maps", NULL);
    FAIL("/bin/sh: %s", strerror(errno));
}

TEST(a_preloaded_program_has_its_heap_there)
{
    want_free(HAK_PAGES_2M, 32);
    mounted("pagesize=2M");
    left_note();
    run_apart(&result, exec_preloaded, NULL);
    CHECK_STR_HAS(result.output, "from a child\n");
    char *line = strstr(result.output, place);
    CHECK(line != NULL);
    while (line > result.output && line[-1] != '\n')
        line--;
    CHECK_STR_HAS(line, " rw-p ");
    CHECK_EQ(names_on_mount(), 0);
    LEFT_NOTHING();
}

HARNESS_MAIN()
