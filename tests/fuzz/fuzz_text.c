/* SPDX-License-Identifier: MIT */
/*
 * What the kernel writes, read from texts that no kernel wrote: lists of numbers, single numbers,
 * mount tables and their escapes, control groups. Whatever a text is, a reader ends, stays inside
 * it, and hands on what fits; lists and escapes are compared with a second reading.
 *
 * An input: a byte for the reader, then the text. It lies in a heap block that ends with it, and
 * for those that read files in a file.
 */
#include "numa/ranges.h"
#include "numa/sysfs.h"
#include "region/cgroup.h"
#include "tests/fuzz/fuzz_kit.h"

#include <fcntl.h>
#include <sys/mman.h>

#define FOLDER_BYTES 64

static char folder[FOLDER_BYTES];
static char file_path[FOLDER_BYTES + 16], mounts_path[FOLDER_BYTES + 16],
    groups_path[FOLDER_BYTES + 16];

static void put_file(const char *path, const char *text, size_t length)
{
    int file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    FUZZ_CHECK(file >= 0);
    FUZZ_EQ(write(file, text, length), length);
    (void)close(file);
}

/* ---- lists ----------------------------------------------------------------------------------- */

struct visits {
    uint64_t count, sum;
};

static void visit(void *context, unsigned first, unsigned last)
{
    struct visits *visits = context;

    visits->count++;
    visits->sum = visits->sum * 1000003 + first * (uint64_t)31 + last;
}

/* Of a list as the kernel writes them; false for any other text. */
static bool second_reading(const char *text, size_t length, struct visits *out)
{
    const char *at = text;

    while (at < text + length) {
        unsigned first = 0, last = 0;
        int taken = 0;
        if (*at < '0' || *at > '9' || strspn(at, "0123456789") > 9 ||
            sscanf(at, "%9u%n", &first, &taken) != 1) {
            return false;
        }
        at += taken;
        last = first;
        if (*at == '-') {
            if (at[1] < '0' || at[1] > '9' || strspn(at + 1, "0123456789") > 9 ||
                sscanf(at + 1, "%9u%n", &last, &taken) != 1) {
                return false;
            }
            at += 1 + taken;
        }
        visit(out, first, last);
        if (at < text + length && *at++ != ',') {
            return false;
        }
    }
    return true;
}

/* The same list from a text and from a file, which is read a piece at a time. A text ends with its
 * line or at a zero, a file only where it ends. */
static void try_ranges(const char *text, size_t length)
{
    struct visits one = {0, 0}, other = {0, 0}, second = {0, 0};
    size_t line = strcspn(text, "\n");

    ranges_scan(text, visit, &one);
    FUZZ_CHECK(one.count <= length);
    put_file(file_path, text, line);
    FUZZ_EQ(ranges_read(file_path, visit, &other), 0);
    FUZZ_EQ(other.count, one.count);
    FUZZ_EQ(other.sum, one.sum);
    if (second_reading(text, line, &second)) {
        FUZZ_EQ(one.count, second.count);
        FUZZ_EQ(one.sum, second.sum);
    }
}

/* ---- numbers --------------------------------------------------------------------------------- */

static void try_number(const char *text, size_t length)
{
    uint64_t value = 0;

    put_file(file_path, text, length);
    int code = sysfs_read_number(file_path, &value);
    FUZZ_CHECK(code == 0 || code == -EINVAL);
    FUZZ_EQ(code == 0, text[0] >= '0' && text[0] <= '9');
    (void)sysfs_find_number(text, "MemFree:");
    (void)sysfs_find_number(text, "HugePages_Total:");
}

/* ---- lines and escapes ----------------------------------------------------------------------- */

struct lines {
    size_t count, bytes;
};

static void look(char *line, void *context)
{
    struct lines *lines = context;
    size_t length = strlen(line);

    FUZZ_CHECK(length < SYSFS_LINE_BYTES && strchr(line, '\n') == NULL);
    lines->count++;
    lines->bytes += length;
    memset(line, 'x', length); /* it may be written into */
}

static void try_lines(const char *text, size_t length)
{
    struct lines lines = {0, 0};
    size_t count = 0, from = 0;

    for (size_t at = 0; at < length; at++) {
        if (text[at] == '\n') {
            count += at - from < SYSFS_LINE_BYTES;
            from = at + 1;
        }
    }
    put_file(file_path, text, length);
    sysfs_each_line(file_path, look, &lines);
    FUZZ_EQ(lines.count, count);
    FUZZ_CHECK(lines.bytes <= length);
}

static void try_unescape(const char *text, size_t length)
{
    char *copy = malloc(length + 1), *again = malloc(length + 1);
    size_t to = 0;

    FUZZ_CHECK(copy != NULL && again != NULL);
    memcpy(copy, text, length + 1);
    for (size_t at = 0; text[at] != '\0'; to++) {
        unsigned value = 0;
        int taken = 0;
        again[to] = text[at];
        if (text[at] == '\\' && strspn(text + at + 1, "01234567") >= 3 && text[at + 1] <= '3' &&
            sscanf(text + at + 1, "%3o%n", &value, &taken) == 1 && taken == 3) {
            again[to] = (char)value;
            at += 3;
        }
        at++;
    }
    again[to] = '\0';
    sysfs_unescape(copy);
    FUZZ_EQ(memcmp(copy, again, to + 1), 0);
    free(copy);
    free(again);
}

/* ---- control groups -------------------------------------------------------------------------- */

static void check_limit(const struct cgroup_limit *limit)
{
    FUZZ_CHECK(memchr(limit->file, '\0', sizeof limit->file) != NULL);
    FUZZ_CHECK(limit->room_bytes == CGROUP_UNLIMITED || limit->file[0] == '\0' ||
               limit->file[0] == '/' || limit->file[0] == '.');
}

/* Up to a zero the text stands for one table, the rest for the other. */
static void try_cgroup(const char *text, size_t length)
{
    struct cgroup_limit limit;
    size_t first = strlen(text);

    put_file(mounts_path, text, first);
    put_file(groups_path, text + first, length - first);
    cgroup_fake(folder);
    cgroup_memory(&limit);
    check_limit(&limit);
    cgroup_hugetlb(HAK_PAGES_2M, &limit);
    check_limit(&limit);
    cgroup_hugetlb(HAK_PAGES_1G, &limit);
    check_limit(&limit);
    cgroup_fake(NULL);
}

static void remove_files(void)
{
    (void)unlink(file_path);
    (void)unlink(mounts_path);
    (void)unlink(groups_path);
    (void)rmdir(folder);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    fuzz_keep_report();
    (void)snprintf(folder, sizeof folder, "/dev/shm/hakmem-fuzz-XXXXXX");
    FUZZ_CHECK(mkdtemp(folder) != NULL);
    (void)snprintf(file_path, sizeof file_path, "%s/file", folder);
    (void)snprintf(mounts_path, sizeof mounts_path, "%s/mountinfo", folder);
    (void)snprintf(groups_path, sizeof groups_path, "%s/cgroup", folder);
    return atexit(remove_files);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static void (*const readers[])(const char *, size_t) = {try_ranges, try_number, try_lines,
                                                            try_unescape, try_cgroup};

    if (size == 0) {
        return 0;
    }
    char *text = malloc(size); /* the text and its end */
    FUZZ_CHECK(text != NULL);
    memcpy(text, data + 1, size - 1);
    text[size - 1] = '\0';
    readers[data[0] % 5](text, size - 1);
    free(text);
    return 0;
}
