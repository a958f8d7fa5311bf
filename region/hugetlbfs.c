/* SPDX-License-Identifier: MIT */
/*
 * libhugetlbfs knows where the mounts are: /proc/mounts, or what HUGETLB_PATH names. It is loaded
 * when a region asks for it and closed again, and not linked, for two reasons. Its constructor
 * reads /proc and /sys and calls malloc, half a millisecond that every program would pay for that
 * uses hakmem, preloaded ones at each start; and it looks for mounts in its constructor only, so a
 * second region would not see a mount that was made, or made larger, since the first.
 *
 * The file has no name from the start (O_TMPFILE), so that a kill at any moment leaves nothing
 * behind. Kernels whose hugetlbfs cannot do that get libhugetlbfs' own way, which makes a name and
 * unlinks it before it returns.
 *
 * Whatever goes wrong is put into words with what the kernel shows: the mount table, which has
 * mounts that libhugetlbfs passes over because this user may not write there, and the options with
 * which a mount has to be made anew.
 */
#define _GNU_SOURCE
#include "region/hugetlbfs.h"

#include "numa/sysfs.h"
#include "region/errlog.h"
#include "region/os.h"
#include "region/shortage.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#define LIBRARY "libhugetlbfs.so.0"
#define PATH_BYTES 256
#define MOUNTS "/proc/self/mounts"
#define OPTIONS_BYTES 256

/* What is used of it, as hugetlbfs.h declares it. */
struct library {
    void *handle;
    const char *(*find_path)(long page_bytes);
    int (*unlinked_file)(long page_bytes);
};

#define SAY(error, ...) (void)errlog_append((error)->message, sizeof(error)->message, __VA_ARGS__)

/* Only the first kind's remedy is given, as in region/shortage; whole or not at all. */
#define MEND(error, ...)                                                                           \
    do {                                                                                           \
        if ((error)->remedy[0] == '\0' &&                                                          \
            !errlog_append((error)->remedy, sizeof(error)->remedy, __VA_ARGS__))                   \
            (error)->remedy[0] = '\0';                                                             \
    } while (0)

static const char *reason(int code)
{
    const char *text = strerrordesc_np(-code);
    return text != NULL ? text : "unknown error";
}

static int load(struct library *library, struct hak_error *error)
{
    library->handle = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
    if (library->handle == NULL) {
        const char *why = dlerror();
        SAY(error, " HAKMEM_HUGETLBFS needs %s: %.200s;", LIBRARY, why != NULL ? why : "not there");
        MEND(error, "apt-get install libhugetlbfs0\n");
        return -ELIBACC;
    }
    library->find_path = (const char *(*)(long))dlsym(library->handle,
                                                      "hugetlbfs_find_path_for_size");
    library->unlinked_file = (int (*)(long))dlsym(library->handle,
                                                  "hugetlbfs_unlinked_fd_for_size");
    if (library->find_path != NULL && library->unlinked_file != NULL)
        return 0;
    dlclose(library->handle);
    SAY(error, " HAKMEM_HUGETLBFS: %s lacks hugetlbfs_find_path_for_size;", LIBRARY);
    MEND(error, "apt-get install libhugetlbfs0\n");
    return -ELIBACC;
}

/* ---- the mount table ----------------------------------------------------------------------- */

/* A line of it, as far as it is of use. */
struct mount_line {
    char source[PATH_BYTES], point[PATH_BYTES], options[OPTIONS_BYTES];
};

/* Which mount: the first of a page size, whoever may use it, or the one that a path is on. */
struct search {
    enum hak_pages pages;
    const char *path; /* NULL: by the size */
    struct mount_line found;
    size_t matched; /* of the path's length; 0: nothing was found */
};

/* The next word of a line. */
static char *next_word(char **line)
{
    char *word = strsep(line, " ");
    return word != NULL ? word : "";
}

/* The pagesize= among a mount's options, which the kernel always shows, and in M, is the kind's. */
static bool has_page_size(const char *options, enum hak_pages pages)
{
    char wanted[32];
    int length = snprintf(wanted, sizeof wanted, "pagesize=%zuM", os_pages_bytes(pages) >> 20);
    for (; *options != '\0'; options += strcspn(options, ","), options += *options == ',')
        if (strcspn(options, ",") == (size_t)length &&
            strncmp(options, wanted, (size_t)length) == 0)
            return true;
    return false;
}

/* 0: the option is not among them. */
static uint64_t option_number(const char *options, const char *name)
{
    for (; *options != '\0'; options += strcspn(options, ","), options += *options == ',')
        if (strncmp(options, name, strlen(name)) == 0)
            return strtoull(options + strlen(name), NULL, 10);
    return 0;
}

/* How much of the path is the mount's point; 0: it is not on it. */
static size_t match(const char *path, const char *point)
{
    size_t length = strlen(point);
    if (strcmp(point, "/") == 0)
        return 1;
    bool on = strncmp(path, point, length) == 0 && (path[length] == '/' || path[length] == '\0');
    return on ? length : 0;
}

static void look_at_line(char *line, void *context)
{
    struct search *search = context;
    char *source = next_word(&line), *point = next_word(&line);
    if (strcmp(next_word(&line), "hugetlbfs") != 0)
        return;
    char *options = next_word(&line);
    if (!has_page_size(options, search->pages))
        return;
    sysfs_unescape(source);
    sysfs_unescape(point);
    if (strlen(source) >= PATH_BYTES || strlen(point) >= PATH_BYTES ||
        strlen(options) >= OPTIONS_BYTES)
        return;
    size_t matched = search->path != NULL ? match(search->path, point) : search->matched == 0;
    /* Of two on one point the later hides the other. */
    if (matched == 0 || matched < search->matched)
        return;
    search->matched = matched;
    snprintf(search->found.source, sizeof search->found.source, "%s", source);
    snprintf(search->found.point, sizeof search->found.point, "%s", point);
    snprintf(search->found.options, sizeof search->found.options, "%s", options);
}

static bool find_mount(struct search *search)
{
    search->matched = 0;
    sysfs_each_line(MOUNTS, look_at_line, search);
    return search->matched != 0;
}

/* The mount that a path is on, by whatever links. */
static bool find_mount_of(const char *path, enum hak_pages pages, struct mount_line *out)
{
    char real[PATH_MAX];
    struct search search = {.pages = pages, .path = realpath(path, real)};
    if (search.path == NULL || !find_mount(&search))
        return false;
    *out = search.found;
    return true;
}

/* ---- commands ------------------------------------------------------------------------------ */

/* Mounts the same anew, as hugetlbfs takes a new size no other way, with one option changed. Its
 * owner and mode are those of now: the table shows with what it was mounted. */
static void mend_option(const struct mount_line *mount, const char *name, uint64_t value,
                        const char *unit, struct hak_error *error)
{
    static const char *const of_root[] = {"mode=", "uid=", "gid="};
    char options[OPTIONS_BYTES + 128] = "", point[2 * PATH_BYTES], source[2 * PATH_BYTES];
    char quoted[2 * sizeof options];
    struct stat root;
    bool known = stat(mount->point, &root) == 0;
    for (const char *at = mount->options; *at != '\0';) {
        size_t length = strcspn(at, ",");
        bool drop = strncmp(at, name, strlen(name)) == 0;
        for (size_t i = 0; known && i < sizeof of_root / sizeof *of_root; i++)
            drop |= strncmp(at, of_root[i], strlen(of_root[i])) == 0;
        if (!drop)
            (void)errlog_append(options, sizeof options, "%.*s,", (int)length, at);
        at += length + (at[length] == ',');
    }
    if (known)
        (void)errlog_append(options, sizeof options, "mode=%o,uid=%u,gid=%u,",
                            (unsigned)(root.st_mode & 07777), (unsigned)root.st_uid,
                            (unsigned)root.st_gid);
    (void)errlog_append(options, sizeof options, "%s%llu%s", name, (unsigned long long)value, unit);
    if (shortage_word(mount->point, point, sizeof point) &&
        shortage_word(mount->source, source, sizeof source) &&
        shortage_word(options, quoted, sizeof quoted))
        MEND(error, "umount %s && mount -t hugetlbfs -o %s %s %s\n", point, quoted, source, point);
}

static void mend_path(const char *before, const char *path, struct hak_error *error)
{
    char word[2 * PATH_BYTES];
    if (shortage_word(path, word, sizeof word))
        MEND(error, "%s %s\n", before, word);
}

/* ---- why there is no mount ----------------------------------------------------------------- */

/* A mount that access(2) refuses. */
static void explain_refused(const char *point, int code, struct hak_error *error)
{
    char command[48];
    if (code == -EROFS) {
        SAY(error, " the hugetlbfs mount %s is mounted read-only;", point);
        mend_path("mount -o remount,rw", point, error);
    } else if (code == -EACCES || code == -EPERM) {
        SAY(error, " the hugetlbfs mount %s may not be written by user %u: %s;", point,
            (unsigned)geteuid(), reason(code));
        snprintf(command, sizeof command, "chown %u", (unsigned)geteuid());
        if (code == -EACCES)
            mend_path(command, point, error);
    } else {
        SAY(error, " the hugetlbfs mount %s cannot be used: %s;", point, reason(code));
    }
}

static int explain_no_mount(enum hak_pages pages, struct hak_error *error)
{
    const char *kind = os_pages_name(pages);
    struct search search = {.pages = pages};
    if (find_mount(&search) && access(search.found.point, R_OK | W_OK | X_OK) != 0) {
        int code = -errno;
        explain_refused(search.found.point, code, error);
        return code;
    }
    SAY(error, " libhugetlbfs finds no mount of hugetlbfs for this size;");
    MEND(error,
         "mkdir -p /mnt/huge-%s && mount -t hugetlbfs -o pagesize=%s,mode=1777 none /mnt/huge-%s\n",
         kind, kind, kind);
    return -ENOENT;
}

/* ---- the file ------------------------------------------------------------------------------ */

/* A descriptor, or a negative errno. */
static int open_unnamed(const struct library *library, const char *path, long page_bytes)
{
    int file = open(path, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (file >= 0)
        return file;
    /* open(2): how file systems say that they do not know it. */
    if (errno != EOPNOTSUPP && errno != EISDIR && errno != ENOENT)
        return -errno;
    file = library->unlinked_file(page_bytes);
    if (file < 0)
        return errno != 0 ? -errno : -EIO;
    (void)fcntl(file, F_SETFD, FD_CLOEXEC);
    return file;
}

/* A mount with a size= limit says how many pages it still has. */
static int check_limit(int file, const char *path, size_t bytes, enum hak_pages pages,
                       struct hak_error *error)
{
    struct statfs mount;
    size_t page = os_pages_bytes(pages);
    if (fstatfs(file, &mount) != 0 || mount.f_blocks == 0 ||
        (uint64_t)mount.f_bfree >= bytes / page)
        return 0;
    uint64_t missing = bytes / page - (uint64_t)mount.f_bfree;
    SAY(error, " the mount %s has %llu of its %llu pages left (option size=), %llu missing;", path,
        (unsigned long long)mount.f_bfree, (unsigned long long)mount.f_blocks,
        (unsigned long long)missing);
    struct mount_line line;
    if (find_mount_of(path, pages, &line))
        mend_option(&line, "size=", ((uint64_t)mount.f_blocks + missing) * (page >> 20), "M",
                    error);
    return -ENOMEM;
}

/* Why there is no file on the mount. */
static void explain_no_file(const char *path, enum hak_pages pages, int code,
                            struct hak_error *error)
{
    struct mount_line line;
    bool found = find_mount_of(path, pages, &line);
    /* Only here: statfs(2) has the number of a mount with size= only. */
    uint64_t files = found ? option_number(line.options, "nr_inodes=") : 0;
    if (code == -EROFS) {
        explain_refused(found ? line.point : path, code, error);
    } else if (code == -ENOSPC && files != 0) {
        SAY(error,
            " the mount %s has no room for another file, of %llu in all (option nr_inodes=);", path,
            (unsigned long long)files);
        mend_option(&line, "nr_inodes=", files + 1, "", error);
    } else {
        SAY(error, " a file on the mount %s: %s;", path, reason(code));
    }
}

static int map_on(const struct library *library, const char *path, size_t bytes,
                  enum hak_pages pages, bool shared, void **out, struct hak_error *error)
{
    int file = open_unnamed(library, path, (long)os_pages_bytes(pages));
    if (file < 0) {
        explain_no_file(path, pages, file, error);
        return file;
    }
    int code = check_limit(file, path, bytes, pages, error);
    if (code == 0 && out != NULL) {
        code = os_map_file(bytes, file, shared, out);
        if (code != 0)
            SAY(error, " mapping a file of %zu MiB on the mount %s: %s;", bytes >> 20, path,
                reason(code));
    }
    close(file);
    return code;
}

int hugetlbfs_map(size_t bytes, enum hak_pages pages, bool shared, void **out,
                  struct hak_error *error)
{
    struct library library;
    if (out != NULL)
        *out = NULL;
    SAY(error, " %s pages:", os_pages_name(pages));
    int code = load(&library, error);
    if (code != 0)
        return code;
    const char *path = library.find_path((long)os_pages_bytes(pages));
    code = path != NULL ? map_on(&library, path, bytes, pages, shared, out, error)
                        : explain_no_mount(pages, error);
    dlclose(library.handle);
    return code;
}
