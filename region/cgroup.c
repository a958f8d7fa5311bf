/* SPDX-License-Identifier: MIT */
/*
 * /proc/self/cgroup names the group, the files lie under /sys/fs/cgroup. Inside a container the
 * name may be the host's while only the container's own part is mounted: a folder that is not
 * there is passed over, and the walk upwards ends at the mount's root, which then is the
 * container's group. Called by region/shortage.
 */
#include "region/cgroup.h"

#include "numa/sysfs.h"
#include "region/base.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define PATH_BYTES 1024
#define FILE_BYTES 96

/* One way of limiting one thing. */
struct meter {
    const char *mount;
    const char *controller; /* as in /proc/self/cgroup; "" is version 2 */
    const char *limit, *usage;
    bool files_count; /* usage includes file pages, which memory.stat tells */
};

/* The path of the process's group in a hierarchy: lines are number:controller[,controller]:path. */
static bool find_group(const char *controller, char *path, size_t capacity)
{
    char text[4096];
    if (sysfs_read("/proc/self/cgroup", text, sizeof text) < 0)
        return false;
    for (char *line = text, *next; *line != '\0'; line = next) {
        size_t length = strcspn(line, "\n");
        next = line + length + (line[length] == '\n');
        line[length] = '\0';
        char *names = strchr(line, ':');
        char *group = names == NULL ? NULL : strchr(names + 1, ':');
        if (group == NULL)
            continue;
        *group++ = '\0';
        size_t wanted = strlen(controller);
        bool found = wanted == 0 && names[1] == '\0';
        for (const char *name = names + 1; wanted > 0 && *name != '\0' && !found;) {
            size_t span = strcspn(name, ",");
            found = span == wanted && memcmp(name, controller, wanted) == 0;
            name += span + (name[span] == ',');
        }
        if (!found)
            continue;
        snprintf(path, capacity, "%s", group);
        return true;
    }
    return false;
}

/* File pages on the lists that reclaim looks at. */
static uint64_t droppable(const char *folder)
{
    char path[PATH_BYTES + FILE_BYTES], text[8192];
    snprintf(path, sizeof path, "%s/memory.stat", folder);
    if (sysfs_read(path, text, sizeof text) < 0)
        return 0;
    return sysfs_find_number(text, "\ninactive_file ") + sysfs_find_number(text, "\nactive_file ");
}

static uint64_t folder_room(const struct meter *meter, const char *folder)
{
    char path[PATH_BYTES + FILE_BYTES];
    uint64_t limit, usage;
    snprintf(path, sizeof path, "%s/%s", folder, meter->limit);
    /* "max" is no number: no limit. */
    if (sysfs_read_number(path, &limit) != 0)
        return CGROUP_UNLIMITED;
    snprintf(path, sizeof path, "%s/%s", folder, meter->usage);
    if (sysfs_read_number(path, &usage) != 0)
        return CGROUP_UNLIMITED;
    if (meter->files_count) {
        uint64_t files = droppable(folder);
        usage = usage > files ? usage - files : 0;
    }
    return limit > usage ? limit - usage : 0;
}

static uint64_t meter_room(const struct meter *meter)
{
    char group[PATH_BYTES / 2], folder[PATH_BYTES];
    uint64_t least = CGROUP_UNLIMITED;
    if (!find_group(meter->controller, group, sizeof group))
        return least;
    for (;;) {
        char *slash = strrchr(group, '/');
        bool root = slash == NULL || group[1] == '\0';
        snprintf(folder, sizeof folder, "%s%s", meter->mount, root ? "" : group);
        uint64_t room = folder_room(meter, folder);
        least = room < least ? room : least;
        if (root)
            return least;
        /* "/a" becomes "/", the root. */
        slash[slash == group] = '\0';
    }
}

static uint64_t least_room(const struct meter *meters, size_t count)
{
    uint64_t least = CGROUP_UNLIMITED;
    for (size_t i = 0; i < count; i++) {
        uint64_t room = meter_room(&meters[i]);
        least = room < least ? room : least;
    }
    return least;
}

uint64_t cgroup_memory_room(void)
{
    static const struct meter meters[] = {
        {"/sys/fs/cgroup", "", "memory.max", "memory.current", true},
        {"/sys/fs/cgroup/unified", "", "memory.max", "memory.current", true},
        {"/sys/fs/cgroup/memory", "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", true},
    };
    return least_room(meters, sizeof meters / sizeof *meters);
}

uint64_t cgroup_hugetlb_room(enum hak_pages pages)
{
    const char *size = pages == HAK_PAGES_1G ? "1GB" : "2MB";
    static const char *const suffixes[][2] = {
        {"max", "current"},
        {"rsvd.max", "rsvd.current"},
        {"limit_in_bytes", "usage_in_bytes"},
        {"rsvd.limit_in_bytes", "rsvd.usage_in_bytes"},
    };
    uint64_t least = CGROUP_UNLIMITED;
    for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++) {
        char limit[FILE_BYTES], usage[FILE_BYTES];
        snprintf(limit, sizeof limit, "hugetlb.%s.%s", size, suffixes[i][0]);
        snprintf(usage, sizeof usage, "hugetlb.%s.%s", size, suffixes[i][1]);
        const struct meter meters[] = {
            {"/sys/fs/cgroup", "", limit, usage, false},
            {"/sys/fs/cgroup/unified", "", limit, usage, false},
            {"/sys/fs/cgroup/hugetlb", "hugetlb", limit, usage, false},
        };
        uint64_t room = least_room(meters, sizeof meters / sizeof *meters);
        least = room < least ? room : least;
    }
    return least;
}
