/* SPDX-License-Identifier: MIT */
/*
 * /proc/self/mountinfo says where the hierarchies are mounted (proc_pid_mountinfo(5)),
 * /proc/self/cgroup which group of each the process is in (cgroups(7)); the files of that group
 * and of every group above it, up to the mount's root, are its limits. Version 1, version 2 and
 * both side by side.
 *
 * A mount may show only part of a hierarchy, as inside a container: a root that the group's name
 * begins with is cut off it; a root of ".." is above the group, whose own folder then cannot be
 * named, and only the root's limit is seen; any other root is not above the group and is passed
 * over. A folder that is not there is passed over too, and the walk goes on upwards.
 *
 * Called by region/plan.
 */
#include "region/cgroup.h"

#include "numa/sysfs.h"
#include "region/base.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Groups of containers in containers have long paths. */
#define PATH_BYTES 1600
#define FILE_BYTES 64
/* Version 1 says "no limit" by the largest number of whole pages that a long holds. */
#define UNLIMITED_FROM (UINT64_C(1) << 62)

_Static_assert(PATH_BYTES + FILE_BYTES <= CGROUP_FILE_BYTES, "a limit's file has a name");

/* One thing that is limited, in files of each version. */
struct meter {
    char limit[FILE_BYTES], usage[FILE_BYTES];
    bool version2;
    bool files_count; /* usage includes file pages, which memory.stat tells */
};

struct walk {
    const char *controller;
    const struct meter *meters;
    unsigned meter_count;
    const char *only_with; /* a mount option that must be there; NULL: none */
    struct cgroup_limit *least;
};

/* A line of mountinfo, cut up. */
struct mount {
    char *root, *point, *type, *options;
};

static const char *fake_folder;

static void name_source(const char *file, char *path, size_t capacity)
{
    snprintf(path, capacity, "%s/%s", fake_folder != NULL ? fake_folder : "/proc/self", file);
}

/* ---- one group ----------------------------------------------------------------------------- */

/* File pages on the lists that reclaim looks at. */
static uint64_t droppable(const char *folder)
{
    char path[CGROUP_FILE_BYTES], text[8192];
    snprintf(path, sizeof path, "%s/memory.stat", folder);
    if (sysfs_read(path, text, sizeof text) < 0)
        return 0;
    return sysfs_find_number(text, "\ninactive_file ") + sysfs_find_number(text, "\nactive_file ");
}

static void look_at_meter(const struct meter *meter, const char *folder, struct cgroup_limit *least)
{
    char path[CGROUP_FILE_BYTES];
    uint64_t limit, usage;
    snprintf(path, sizeof path, "%s/%s", folder, meter->limit);
    /* "max" is no number: no limit. */
    if (sysfs_read_number(path, &limit) != 0 || limit >= UNLIMITED_FROM)
        return;
    snprintf(path, sizeof path, "%s/%s", folder, meter->usage);
    if (sysfs_read_number(path, &usage) != 0)
        return;
    if (meter->files_count) {
        uint64_t files = droppable(folder);
        usage = usage > files ? usage - files : 0;
    }
    uint64_t room = limit > usage ? limit - usage : 0;
    if (room >= least->room_bytes)
        return;
    least->room_bytes = room;
    least->usage_bytes = usage;
    snprintf(least->file, sizeof least->file, "%s/%s", folder, meter->limit);
}

/* From the folder up to the mount's point. */
static void climb(const struct walk *walk, bool version2, char *folder, size_t point_length)
{
    for (;;) {
        for (unsigned i = 0; i < walk->meter_count; i++)
            if (walk->meters[i].version2 == version2)
                look_at_meter(&walk->meters[i], folder, walk->least);
        char *slash = strrchr(folder, '/');
        if (strlen(folder) <= point_length || slash == NULL)
            return;
        *slash = '\0';
    }
}

/* ---- where it lies ------------------------------------------------------------------------- */

/* The word is in a list with the separator between its words. */
static bool has_word(const char *list, char separator, const char *word)
{
    const char ends[] = {separator, '\0'};
    size_t wanted = strlen(word);
    while (*list != '\0') {
        size_t length = strcspn(list, ends);
        if (length == wanted && memcmp(list, word, wanted) == 0)
            return true;
        list += length + (list[length] == separator);
    }
    return false;
}

/* The process's group in a hierarchy: lines are number:controller[,controller]:path; version 2 has
 * no controllers there. */
static bool find_group(const char *controller, char *group, size_t capacity)
{
    char path[PATH_BYTES], text[8192];
    name_source("cgroup", path, sizeof path);
    if (sysfs_read(path, text, sizeof text) < 0)
        return false;
    for (char *line = text, *next; *line != '\0'; line = next) {
        size_t length = strcspn(line, "\n");
        next = line + length + (line[length] == '\n');
        line[length] = '\0';
        char *names = strchr(line, ':');
        char *found = names == NULL ? NULL : strchr(names + 1, ':');
        if (found == NULL)
            continue;
        *found++ = '\0';
        names++;
        if (controller[0] == '\0' ? names[0] != '\0' : !has_word(names, ',', controller))
            continue;
        return snprintf(group, capacity, "%s", found) < (int)capacity;
    }
    return false;
}

/* The group's folder under the mount; false where the mount does not concern it. */
static bool find_folder(const struct mount *mount, const char *group, char *folder, size_t capacity)
{
    size_t cut = strlen(mount->root);
    if (strcmp(mount->root, "/") == 0)
        cut = 0;
    else if (strncmp(mount->root, "/..", 3) == 0)
        group = "", cut = 0;
    else if (strncmp(group, mount->root, cut) != 0 || (group[cut] != '/' && group[cut] != '\0'))
        return false;
    group += cut;
    return snprintf(folder, capacity, "%s%s", mount->point, strcmp(group, "/") == 0 ? "" : group) <
           (int)capacity;
}

static void look_at_mount(const struct mount *mount, const struct walk *walk)
{
    char group[PATH_BYTES], folder[PATH_BYTES];
    bool version2 = strcmp(mount->type, "cgroup2") == 0;
    if (!version2 &&
        (strcmp(mount->type, "cgroup") != 0 || !has_word(mount->options, ',', walk->controller)))
        return;
    if (walk->only_with != NULL && !has_word(mount->options, ',', walk->only_with))
        return;
    if (find_group(version2 ? "" : walk->controller, group, sizeof group) &&
        find_folder(mount, group, folder, sizeof folder))
        climb(walk, version2, folder, strlen(mount->point));
}

/* id parent device root point options [tag...] - type source super-options */
static bool cut_line(char *line, struct mount *out)
{
    char *rest = strstr(line, " - "), *save = NULL;
    if (rest == NULL)
        return false;
    *rest = '\0';
    (void)strtok_r(line, " ", &save);
    (void)strtok_r(NULL, " ", &save);
    (void)strtok_r(NULL, " ", &save);
    out->root = strtok_r(NULL, " ", &save);
    out->point = strtok_r(NULL, " ", &save);
    out->type = strtok_r(rest + 3, " ", &save);
    (void)strtok_r(NULL, " ", &save);
    out->options = strtok_r(NULL, " ", &save);
    if (out->root == NULL || out->point == NULL || out->options == NULL)
        return false;
    sysfs_unescape(out->root);
    sysfs_unescape(out->point);
    return true;
}

static void look_at_line(char *line, void *walk)
{
    struct mount mount;
    if (strstr(line, " - cgroup") != NULL && cut_line(line, &mount))
        look_at_mount(&mount, walk);
}

static void look_everywhere(struct walk *walk)
{
    char path[PATH_BYTES];
    name_source("mountinfo", path, sizeof path);
    sysfs_each_line(path, look_at_line, walk);
}

/* ---- what is asked ------------------------------------------------------------------------- */

static const struct meter memory_meters[] = {
    {"memory.max", "memory.current", true, true},
    {"memory.limit_in_bytes", "memory.usage_in_bytes", false, true},
};
#define MEMORY_METERS (sizeof memory_meters / sizeof *memory_meters)

static void start(struct cgroup_limit *out)
{
    memset(out, 0, sizeof *out);
    out->room_bytes = CGROUP_UNLIMITED;
}

void cgroup_memory(struct cgroup_limit *out)
{
    start(out);
    struct walk walk = {"memory", memory_meters, MEMORY_METERS, NULL, out};
    look_everywhere(&walk);
}

void cgroup_hugetlb(enum hak_pages pages, struct cgroup_limit *out)
{
    static const struct {
        const char *limit, *usage;
        bool version2;
    } names[] = {
        {"max", "current", true},
        {"rsvd.max", "rsvd.current", true},
        {"limit_in_bytes", "usage_in_bytes", false},
        {"rsvd.limit_in_bytes", "rsvd.usage_in_bytes", false},
    };
    struct meter meters[sizeof names / sizeof *names];
    const char *size = pages == HAK_PAGES_1G ? "1GB" : "2MB";
    const unsigned count = sizeof names / sizeof *names;
    memset(meters, 0, sizeof meters);
    start(out);
    for (unsigned i = 0; i < count; i++) {
        snprintf(meters[i].limit, FILE_BYTES, "hugetlb.%s.%s", size, names[i].limit);
        snprintf(meters[i].usage, FILE_BYTES, "hugetlb.%s.%s", size, names[i].usage);
        meters[i].version2 = names[i].version2;
    }
    struct walk walk = {"hugetlb", meters, count, NULL, out};
    struct walk counted = {"memory", memory_meters, MEMORY_METERS, "memory_hugetlb_accounting",
                           out};
    look_everywhere(&walk);
    look_everywhere(&counted);
}

uint64_t cgroup_memory_room(void)
{
    struct cgroup_limit limit;
    cgroup_memory(&limit);
    return limit.room_bytes;
}

uint64_t cgroup_hugetlb_room(enum hak_pages pages)
{
    struct cgroup_limit limit;
    cgroup_hugetlb(pages, &limit);
    return limit.room_bytes;
}

void cgroup_fake(const char *folder)
{
    fake_folder = folder;
}
