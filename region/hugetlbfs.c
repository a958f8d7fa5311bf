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
 * mounts that libhugetlbfs passes over because this user may not write there.
 */
#define _GNU_SOURCE
#include "region/hugetlbfs.h"

#include "region/errlog.h"
#include "region/os.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/statfs.h>
#include <unistd.h>

#define LIBRARY "libhugetlbfs.so.0"
#define PATH_BYTES 256
#define MOUNTS "/proc/self/mounts"
#define MOUNTS_BYTES 16384

/* What is used of it, as hugetlbfs.h declares it. */
struct library {
    void *handle;
    const char *(*find_path)(long page_bytes);
    int (*unlinked_file)(long page_bytes);
};

#define SAY(error, ...) (void)errlog_append((error)->message, sizeof(error)->message, __VA_ARGS__)

/* Only the first kind's remedy is given, as in region/shortage. */
#define MEND(error, ...)                                                                           \
    do {                                                                                           \
        if ((error)->remedy[0] == '\0')                                                            \
            (void)errlog_append((error)->remedy, sizeof(error)->remedy, __VA_ARGS__);              \
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

/* ---- why there is no mount ----------------------------------------------------------------- */

/* The next word of a line of the mount table. */
static char *next_word(char **line)
{
    char *word = strsep(line, " ");
    return word != NULL ? word : "";
}

/* The pagesize= among a mount's options, which the kernel always shows, and in M, is the kind's. */
static bool has_page_size(char *options, enum hak_pages pages)
{
    char wanted[32];
    snprintf(wanted, sizeof wanted, "pagesize=%zuM", os_pages_bytes(pages) >> 20);
    for (char *option; (option = strsep(&options, ",")) != NULL;)
        if (strcmp(option, wanted) == 0)
            return true;
    return false;
}

/* A mount of the page size, whoever may use it. */
static bool find_mount(enum hak_pages pages, char *path, size_t bytes)
{
    char text[MOUNTS_BYTES];
    int file = open(MOUNTS, O_RDONLY | O_CLOEXEC);
    ssize_t length = 0, got;
    if (file < 0)
        return false;
    while (length < MOUNTS_BYTES - 1 &&
           (got = read(file, text + length, (size_t)(MOUNTS_BYTES - 1 - length))) > 0)
        length += got;
    close(file);
    text[length] = '\0';
    for (char *rest = text, *line; (line = strsep(&rest, "\n")) != NULL;) {
        (void)next_word(&line);
        char *where = next_word(&line);
        if (strcmp(next_word(&line), "hugetlbfs") != 0 || !has_page_size(next_word(&line), pages))
            continue;
        snprintf(path, bytes, "%s", where);
        return true;
    }
    return false;
}

static int explain_no_mount(enum hak_pages pages, struct hak_error *error)
{
    const char *kind = os_pages_name(pages);
    char path[PATH_BYTES];
    if (find_mount(pages, path, sizeof path) && access(path, R_OK | W_OK | X_OK) != 0) {
        int code = -errno;
        SAY(error, " the hugetlbfs mount %s may not be written by user %u: %s;", path,
            (unsigned)geteuid(), reason(code));
        if (code == -EACCES)
            MEND(error, "chown %u %s\n", (unsigned)geteuid(), path);
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
    MEND(error, "umount %s && mount -t hugetlbfs -o pagesize=%s,size=%lluM none %s\n", path,
         os_pages_name(pages),
         (unsigned long long)(((uint64_t)mount.f_blocks + missing) * (page >> 20)), path);
    return -ENOMEM;
}

static int map_on(const struct library *library, const char *path, size_t bytes,
                  enum hak_pages pages, bool shared, void **out, struct hak_error *error)
{
    int file = open_unnamed(library, path, (long)os_pages_bytes(pages));
    if (file < 0) {
        SAY(error, " a file on the mount %s: %s;", path, reason(file));
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
