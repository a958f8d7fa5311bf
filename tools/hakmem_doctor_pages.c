/* SPDX-License-Identifier: MIT */
/*
 * hakmem doctor: the kernel's pools of huge pages, the mounts that give them out as files, and
 * transparent huge pages.
 */
#define _GNU_SOURCE
#include "tools/hakmem_doctor.h"

#include "numa/sysfs.h"
#include "region/os.h"
#include "region/supply.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PATH_BYTES 256
#define LIST_BYTES 512
#define MOUNTS_BYTES 65536
#define POOLS "/sys/kernel/mm/hugepages"
#define THP "/sys/kernel/mm/transparent_hugepage"

static const enum hak_pages sizes[] = {HAK_PAGES_2M, HAK_PAGES_1G};
#define SIZES (sizeof sizes / sizeof *sizes)

/* Appends to a list that is cut where it is full. */
__attribute__((format(printf, 2, 3))) static void append(char *list, const char *format, ...)
{
    size_t length = strlen(list);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(list + length, LIST_BYTES - length, format, arguments);
    va_end(arguments);
}

/* ---- pools ----------------------------------------------------------------------------------- */

struct pools {
    enum hak_pages pages;
    uint64_t least, most, sum, free; /* pages in a node's pool, in all, free of those */
    unsigned used_up;                /* nodes whose pool has pages, none of them free */
    char list[LIST_BYTES];
    char level_up[LIST_BYTES]; /* commands that make all pools as large as the largest */
};

static int read_pools(enum hak_pages pages, struct pools *out)
{
    const struct topology *nodes = doctor_nodes();
    struct supply_pool pool[HAK_NODES_MAX] = {0};
    *out = (struct pools){.pages = pages, .least = UINT64_MAX};
    for (unsigned i = 0; i < nodes->node_end; i++) {
        if (!nodes->nodes[i].has_memory)
            continue;
        int code = supply_pool_read((int)i, pages, &pool[i]);
        if (code != 0)
            return code;
        out->sum += pool[i].total_pages;
        out->free += pool[i].free_pages;
        out->least = pool[i].total_pages < out->least ? pool[i].total_pages : out->least;
        out->most = pool[i].total_pages > out->most ? pool[i].total_pages : out->most;
        out->used_up += pool[i].total_pages != 0 && pool[i].free_pages == 0;
        append(out->list, "%snode %u: %" PRIu64 " (%" PRIu64 " free)",
               out->list[0] == '\0' ? "" : ", ", i, pool[i].total_pages, pool[i].free_pages);
    }
    for (unsigned i = 0; i < nodes->node_end; i++) {
        char path[PATH_BYTES];
        if (!nodes->nodes[i].has_memory || pool[i].total_pages == out->most)
            continue;
        supply_pool_path((int)i, pages, "nr_hugepages", path, sizeof path);
        append(out->level_up, "%secho %" PRIu64 " >%s", out->level_up[0] == '\0' ? "" : "; ",
               out->most, path);
    }
    return 0;
}

static void say_no_size(struct doctor *doctor, enum hak_pages pages, int code)
{
    if (code != -ENOENT) {
        doctor_say(doctor, DOCTOR_WARN, "the pools of %s pages cannot be read: %s",
                   os_pages_name(pages), strerror(-code));
    } else if (pages == HAK_PAGES_1G) {
        doctor_say(doctor, DOCTOR_NOTE,
                   "this kernel has no 1G pages (pdpe1gb is not in /proc/cpuinfo, or it is built "
                   "without them): 2M is the largest");
    } else {
        doctor_remedy(doctor, "a kernel with CONFIG_HUGETLBFS, and /sys mounted");
        doctor_say(doctor, DOCTOR_WARN,
                   "this kernel has no 2M pages (no %s/hugepages-2048kB): regions take transparent "
                   "huge pages or 4K",
                   POOLS);
    }
}

static void say_pools(struct doctor *doctor, const struct pools *pools)
{
    const char *name = os_pages_name(pools->pages);
    if (pools->sum == 0 && pools->pages == HAK_PAGES_1G) {
        doctor_say(doctor, DOCTOR_OK,
                   "1G: none reserved, which is usual (hakmem reserve --pages "
                   "1G, best at boot)");
    } else if (pools->sum == 0) {
        doctor_remedy(doctor, "hakmem reserve --size SIZE --pages %s", name);
        doctor_say(doctor, DOCTOR_NOTE,
                   "%s: none reserved: regions take transparent huge pages or 4K, or fail where "
                   "%s is all that they may have",
                   name, name);
    } else if (pools->least != pools->most) {
        doctor_remedy(doctor, "%s", pools->level_up);
        doctor_say(doctor, DOCTOR_WARN,
                   "%s: uneven: %s; a region over all nodes takes as much of each, and fails at "
                   "the smallest",
                   name, pools->list);
    } else if (pools->used_up != 0) {
        doctor_remedy(doctor, "hakmem reserve --size SIZE --pages %s", name);
        doctor_say(doctor, DOCTOR_WARN, "%s: no page is free on %u node%s: %s", name,
                   pools->used_up, pools->used_up == 1 ? "" : "s", pools->list);
    } else {
        doctor_say(doctor, DOCTOR_OK, "%s: %s", name, pools->list);
    }
}

void check_pools(struct doctor *doctor)
{
    for (size_t i = 0; i < SIZES; i++) {
        static struct pools pools;
        int code = read_pools(sizes[i], &pools);
        if (code != 0)
            say_no_size(doctor, sizes[i], code);
        else
            say_pools(doctor, &pools);
    }
}

void check_surplus(struct doctor *doctor)
{
    bool any = false;
    for (size_t i = 0; i < SIZES; i++) {
        char folder[PATH_BYTES / 2], path[PATH_BYTES];
        uint64_t overcommit = 0, surplus = 0;
        snprintf(folder, sizeof folder, POOLS "/hugepages-%zukB", os_pages_bytes(sizes[i]) >> 10);
        snprintf(path, sizeof path, "%s/surplus_hugepages", folder);
        if (sysfs_read_number(path, &surplus) == 0 && surplus != 0) {
            any = true;
            doctor_say(doctor, DOCTOR_NOTE,
                       "%s: %" PRIu64 " surplus pages: in use beyond the pools' size, gone when "
                       "whoever has them ends",
                       os_pages_name(sizes[i]), surplus);
        }
        snprintf(path, sizeof path, "%s/nr_overcommit_hugepages", folder);
        if (sysfs_read_number(path, &overcommit) == 0 && overcommit != 0) {
            any = true;
            doctor_remedy(doctor, "echo 0 >%s", path);
            doctor_say(doctor, DOCTOR_NOTE,
                       "%s: nr_overcommit_hugepages is %" PRIu64 ": mappings beyond the pools are "
                       "made up from ordinary memory, of any node and only if it is in one piece",
                       os_pages_name(sizes[i]), overcommit);
        }
    }
    if (!any)
        doctor_say(doctor, DOCTOR_OK, "no surplus pages, and none allowed");
}

/* ---- mounts ---------------------------------------------------------------------------------- */

struct mount {
    char point[PATH_BYTES], options[PATH_BYTES];
    size_t page_bytes;
};

/* "2M", "1024M", "64K". */
static size_t option_bytes(const char *options, const char *name)
{
    const char *at = strstr(options, name);
    char *end;
    if (at == NULL)
        return 0;
    size_t number = strtoull(at + strlen(name), &end, 10);
    switch (*end) {
    case 'K':
        return number << 10;
    case 'M':
        return number << 20;
    case 'G':
        return number << 30;
    default:
        return number;
    }
}

/* The next hugetlbfs mount of a line in the form of /proc/mounts; NULL: there is no further one. */
static const char *next_mount(const char *text, struct mount *out)
{
    for (; text != NULL && *text != '\0'; text = strchr(text, '\n')) {
        char type[32];
        text += *text == '\n';
        if (sscanf(text, "%*s %255s %31s %255s", out->point, type, out->options) != 3 ||
            strcmp(type, "hugetlbfs") != 0)
            continue;
        out->page_bytes = option_bytes(out->options, "pagesize=");
        const char *end = strchr(text, '\n');
        return end == NULL ? "" : end + 1;
    }
    return NULL;
}

static void say_mount(struct doctor *doctor, const struct mount *mount, enum hak_pages pages)
{
    const char *name = os_pages_name(pages);
    size_t limit = option_bytes(mount->options, ",size=");
    if (access(mount->point, W_OK | X_OK) != 0) {
        int code = errno;
        doctor_remedy(doctor, "chmod 1777 %s", mount->point);
        doctor_say(doctor, DOCTOR_NOTE,
                   "%s: %s (%s) cannot be written by this user: %s; HAKMEM_HUGETLBFS=1 cannot use "
                   "it",
                   name, mount->point, mount->options, strerror(code));
    } else if (limit != 0) {
        /* A remount says yes and changes nothing (Linux 6.18). */
        doctor_remedy(doctor, "umount %s && mount -t hugetlbfs -o pagesize=%s,size=BYTES none %s",
                      mount->point, name, mount->point);
        doctor_say(doctor, DOCTOR_NOTE, "%s: %s has room for %zu MiB at most (%s)", name,
                   mount->point, limit >> 20, mount->options);
    } else {
        doctor_say(doctor, DOCTOR_OK, "%s: %s (%s)", name, mount->point, mount->options);
    }
}

static void say_no_mount(struct doctor *doctor, enum hak_pages pages)
{
    const char *name = os_pages_name(pages);
    const char *point = pages == HAK_PAGES_1G ? "/dev/hugepages1G" : "/dev/hugepages";
    doctor_remedy(doctor, "mkdir -p %s && mount -t hugetlbfs -o pagesize=%s none %s", point, name,
                  point);
    doctor_say(doctor, DOCTOR_NOTE,
               "%s: no hugetlbfs mount: HAKMEM_HUGETLBFS=1 and programs that open files there need "
               "one, other regions do not",
               name);
}

void check_mounts(struct doctor *doctor)
{
    static char text[MOUNTS_BYTES];
    if (!doctor_read("/proc/mounts", text, sizeof text)) {
        doctor_say(doctor, DOCTOR_WARN, "/proc/mounts cannot be read");
        return;
    }
    for (size_t i = 0; i < SIZES; i++) {
        char path[PATH_BYTES];
        struct mount mount;
        bool found = false;
        snprintf(path, sizeof path, POOLS "/hugepages-%zukB", os_pages_bytes(sizes[i]) >> 10);
        if (access(path, F_OK) != 0)
            continue; /* check_pools has said it */
        for (const char *at = next_mount(text, &mount); at != NULL; at = next_mount(at, &mount)) {
            if (mount.page_bytes != os_pages_bytes(sizes[i]))
                continue;
            say_mount(doctor, &mount, sizes[i]);
            found = true;
        }
        if (!found)
            say_no_mount(doctor, sizes[i]);
    }
}

/* ---- transparent huge pages ------------------------------------------------------------------ */

/* A size of its own may say otherwise than the switch for all (Linux 6.8). */
static bool thp_size_off(void)
{
    char word[32];
    return doctor_choice(THP "/hugepages-2048kB/enabled", word, sizeof word) &&
           strcmp(word, "never") == 0;
}

void check_thp(struct doctor *doctor)
{
    char word[32];
    if (!doctor_choice(THP "/enabled", word, sizeof word)) {
        doctor_remedy(doctor, "a kernel with CONFIG_TRANSPARENT_HUGEPAGE, or huge pages of a pool: "
                              "hakmem reserve --size SIZE");
        doctor_say(doctor, DOCTOR_WARN, "this kernel has no transparent huge pages");
    } else if (strcmp(word, "never") == 0) {
        doctor_remedy(doctor, "echo madvise >" THP "/enabled");
        doctor_say(doctor, DOCTOR_WARN,
                   "[never]: pages `thp` cannot be had; regions without pool pages are on 4K");
    } else if (thp_size_off()) {
        doctor_remedy(doctor, "echo inherit >" THP "/hugepages-2048kB/enabled");
        doctor_say(doctor, DOCTOR_WARN,
                   "[%s], but hugepages-2048kB is [never]: pages `thp` cannot be had", word);
    } else if (strcmp(word, "always") == 0) {
        doctor_remedy(doctor, "echo madvise >" THP "/enabled");
        doctor_say(doctor, DOCTOR_NOTE,
                   "[always]: every program's memory comes in 2 MiB pieces, also where that only "
                   "makes it larger and slower to start; regions ask for themselves");
    } else {
        doctor_say(doctor, DOCTOR_OK, "[%s]: regions ask for themselves", word);
    }
}

void check_thp_defrag(struct doctor *doctor)
{
    char word[32];
    if (!doctor_choice(THP "/defrag", word, sizeof word))
        return; /* check_thp has said it */
    if (strcmp(word, "always") == 0) {
        doctor_remedy(doctor, "echo madvise >" THP "/defrag");
        doctor_say(doctor, DOCTOR_WARN,
                   "[always]: any page fault of any program may stop to compact memory");
    } else if (strcmp(word, "never") == 0 || strcmp(word, "defer") == 0) {
        doctor_remedy(doctor, "echo madvise >" THP "/defrag");
        doctor_say(doctor, DOCTOR_NOTE,
                   "[%s]: a region of `thp` pages gets 4K ones where memory is not in one piece "
                   "at the time it is set up",
                   word);
    } else {
        doctor_say(doctor, DOCTOR_OK, "[%s]: memory is compacted where a region is set up", word);
    }
}

void check_khugepaged(struct doctor *doctor)
{
    uint64_t defrag = 0, scan = 0;
    bool known = sysfs_read_number(THP "/khugepaged/defrag", &defrag) == 0 &&
                 sysfs_read_number(THP "/khugepaged/pages_to_scan", &scan) == 0;
    if (!known)
        return; /* check_thp has said it */
    if (defrag == 0 || scan == 0) {
        doctor_remedy(doctor, "echo %d >" THP "/khugepaged/%s", defrag == 0 ? 1 : 4096,
                      defrag == 0 ? "defrag" : "pages_to_scan");
        doctor_say(doctor, DOCTOR_NOTE,
                   "%s is 0: 4K pages that a `thp` region began with are not joined later",
                   defrag == 0 ? "defrag" : "pages_to_scan");
    } else {
        doctor_say(doctor, DOCTOR_OK,
                   "4K pages of `thp` regions are joined in the background, %" PRIu64 " a turn",
                   scan);
    }
}
