/* SPDX-License-Identifier: MIT */
/*
 * What this tool added to the pools: a text file, a line for each node and page size,
 *
 *     boot 2c1f...                                         the kernel's boot_id
 *     node 0 page_kib 2048 added 8 from 8 to 16            a move that has not ended
 *
 * The folder is locked (flock(2)) from state_open to state_close, so that nobody's count is lost;
 * the file itself is replaced by rename(2), so it is never half written. A pool's count is moved in
 * three steps: write the intent (from, to) here, write the kernel's file, write the outcome here. A
 * run that is killed in between leaves the intent, and the pool's count tells the next run how far
 * it got: as far from `from` towards `to` as the count is now, and no further than `to`. Pools do
 * not outlive a boot, so neither does the file where /run does.
 */
#define _GNU_SOURCE
#include "tools/hakmem_reserve.h"

#include "numa/sysfs.h"
#include "region/os.h"
#include "tools/hakmem.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define NEW_FILE STATE_FILE ".new"
#define PATH STATE_FOLDER "/" STATE_FILE
/* Lines are below 128 bytes. */
#define TEXT_BYTES (STATE_ENTRIES_MAX * 128 + 256)

static uint64_t min_u64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* ---- entries -------------------------------------------------------------------------------- */

struct state_entry *state_entry(struct state *state, int node, enum hak_pages pages)
{
    for (unsigned i = 0; i < state->count; i++)
        if (state->entries[i].node == node && state->entries[i].pages == pages)
            return &state->entries[i];
    /* Nodes are below HAK_NODES_MAX and there are two sizes: there is room. */
    struct state_entry *entry = &state->entries[state->count++];
    *entry = (struct state_entry){.node = node, .pages = pages};
    return entry;
}

uint64_t state_settle(struct state_entry *entry, uint64_t persistent)
{
    uint64_t moved = 0;
    if (entry->to > entry->from && persistent > entry->from) {
        moved = min_u64(persistent - entry->from, entry->to - entry->from);
        entry->added += moved;
    } else if (entry->to < entry->from && persistent < entry->from) {
        moved = min_u64(entry->from - persistent, entry->from - entry->to);
        entry->added -= min_u64(moved, entry->added);
    }
    entry->from = entry->to = 0;
    return moved;
}

/* ---- the file ------------------------------------------------------------------------------- */

static int write_text(int file, const char *text, size_t length)
{
    while (length > 0) {
        ssize_t written = write(file, text, length);
        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0)
            return -errno;
        text += written;
        length -= (size_t)written;
    }
    return fsync(file) == 0 ? 0 : -errno;
}

static size_t compose(const struct state *state, char *text, size_t capacity)
{
    size_t length = (size_t)snprintf(text, capacity,
                                     "# Huge pages that `hakmem reserve` added; `hakmem release` "
                                     "gives them back.\nboot %s\n",
                                     state->boot);
    size_t head = length;
    for (unsigned i = 0; i < state->count; i++) {
        const struct state_entry *entry = &state->entries[i];
        if (entry->added == 0 && entry->from == entry->to)
            continue;
        length += (size_t)snprintf(
            text + length, capacity - length,
            "node %d page_kib %zu added %" PRIu64 " from %" PRIu64 " to %" PRIu64 "\n", entry->node,
            os_pages_bytes(entry->pages) >> 10, entry->added, entry->from, entry->to);
    }
    return length == head ? 0 : length;
}

static int replace(struct state *state, const char *text, size_t length)
{
    int file = openat(state->folder, NEW_FILE,
                      O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (file < 0)
        return -errno;
    int code = write_text(file, text, length);
    close(file);
    if (code == 0 && renameat(state->folder, NEW_FILE, state->folder, STATE_FILE) != 0)
        code = -errno;
    if (code != 0)
        unlinkat(state->folder, NEW_FILE, 0);
    return code;
}

int state_save(struct state *state)
{
    char text[TEXT_BYTES];
    size_t length = compose(state, text, sizeof text);
    if (length != 0)
        state->saved = replace(state, text, length);
    else
        state->saved = unlinkat(state->folder, STATE_FILE, 0) == 0 || errno == ENOENT ? 0 : -errno;
    return state->saved;
}

/* ---- reading it ------------------------------------------------------------------------------
 *
 * Whoever can write the file decides how many pages go, so a line that this tool cannot have
 * written ends the run before a pool is touched. */

/* " NAME NUMBER" at *text, digits only; moves on behind it. */
static bool take_number(const char **text, const char *name, uint64_t *out)
{
    size_t length = strlen(name);
    if (strncmp(*text, name, length) != 0)
        return false;
    const char *digits = *text + length;
    char *end;
    if (*digits < '0' || *digits > '9')
        return false; /* strtoull takes a sign and blanks */
    errno = 0;
    *out = strtoull(digits, &end, 10);
    *text = end;
    return errno == 0;
}

static bool take_line(const char *line, struct state_entry *entry)
{
    uint64_t node = 0, page_kib = 0;
    bool whole = take_number(&line, "node ", &node) &&
                 take_number(&line, " page_kib ", &page_kib) &&
                 take_number(&line, " added ", &entry->added) &&
                 take_number(&line, " from ", &entry->from) &&
                 take_number(&line, " to ", &entry->to);
    if (!whole || *line != '\0' || node >= HAK_NODES_MAX)
        return false;
    entry->node = (int)node;
    entry->pages = page_kib == os_pages_bytes(HAK_PAGES_1G) >> 10 ? HAK_PAGES_1G : HAK_PAGES_2M;
    return page_kib == os_pages_bytes(entry->pages) >> 10;
}

/* More than all memory is no count of a pool. Without /proc/meminfo nobody knows how much it is. */
static bool fits_machine(const struct state_entry *entry)
{
    char text[4096];
    uint64_t bytes = 0;
    if (sysfs_read("/proc/meminfo", text, sizeof text) > 0)
        bytes = sysfs_find_number(text, "MemTotal:") << 10;
    uint64_t most = (bytes == 0 ? UINT64_MAX : bytes) / os_pages_bytes(entry->pages);
    return entry->added <= most && entry->from <= most && entry->to <= most;
}

/* NULL, or what is wrong with the line; it is no entry then. */
static const char *parse_entry(struct state *state, const char *line)
{
    struct state_entry entry = {0};
    struct pool_figures figures;
    if (!take_line(line, &entry))
        return "was not written by this tool";
    if (!fits_machine(&entry))
        return "has more pages than this machine has memory for";
    if (pool_read(entry.node, entry.pages, &figures) == -ENOENT)
        return "names a node, or a page size of it, that does not exist";
    for (unsigned i = 0; i < state->count; i++)
        if (state->entries[i].node == entry.node && state->entries[i].pages == entry.pages)
            return "is the second of that node and page size";
    *state_entry(state, entry.node, entry.pages) = entry;
    return NULL;
}

/* Pools do not outlive a boot: of another one every line is void. */
static bool is_this_boot(const struct state *state, const char *line)
{
    return strcmp(line + strlen("boot "), state->boot) == 0;
}

static int parse(struct state *state, char *text)
{
    unsigned number = 1;
    bool dated = false;
    for (char *line = text, *next; *line != '\0'; line = next, number++) {
        size_t length = strcspn(line, "\n");
        next = line + length + (line[length] == '\n');
        line[length] = '\0';
        if (line[0] == '#' || line[0] == '\0')
            continue;
        if (!dated && strncmp(line, "boot ", 5) == 0) {
            dated = is_this_boot(state, line);
            if (dated)
                continue;
            tool_fail(0, "%s is from before the last boot, and so are its pages: forgotten", PATH);
            return TOOL_OK;
        }
        const char *wrong = dated ? parse_entry(state, line) : "has no line with the boot above it";
        if (wrong != NULL)
            return tool_fail(RESERVE_FAILED,
                             "%s, line %u: '%.200s' %s; nothing is done. Compare the file with "
                             "the pools' nr_hugepages, and take the line out",
                             PATH, number, line, wrong);
    }
    return TOOL_OK;
}

static int load(struct state *state)
{
    char text[TEXT_BYTES];
    int length = sysfs_read("/proc/sys/kernel/random/boot_id", state->boot, sizeof state->boot);
    /* "unknown" is a name like another: only where there is none, or the pages of this boot would
     * be taken for those of an earlier one. */
    if (length < 0 && length != -ENOENT)
        return tool_fail(RESERVE_FAILED, "the boot's id cannot be read: %s; nothing is done",
                         strerror(-length));
    if (length <= 0)
        snprintf(state->boot, sizeof state->boot, "unknown");
    state->boot[strcspn(state->boot, "\n")] = '\0';
    length = sysfs_read(PATH, text, sizeof text);
    if (length == -ENOENT)
        return TOOL_OK;
    if (length < 0)
        return tool_fail(RESERVE_FAILED, "%s cannot be read: %s", PATH, strerror(-length));
    return parse(state, text);
}

/* ---- opening -------------------------------------------------------------------------------- */

/* A run was killed between its intent and its outcome. */
static int settle_killed(struct state *state)
{
    bool any = false;
    for (unsigned i = 0; i < state->count; i++) {
        struct state_entry *entry = &state->entries[i];
        struct pool_figures figures;
        if (entry->from == entry->to)
            continue;
        int code = pool_read(entry->node, entry->pages, &figures);
        if (code != 0)
            return tool_fail(RESERVE_FAILED, "the %s pool of node %d cannot be read: %s",
                             os_pages_name(entry->pages), entry->node, strerror(-code));
        uint64_t moved = state_settle(entry, figures.persistent_pages);
        tool_fail(0,
                  "an earlier run was killed when it had moved %" PRIu64 " pages of %s on node "
                  "%d; they are accounted for now",
                  moved, os_pages_name(entry->pages), entry->node);
        any = true;
    }
    int code = any ? state_save(state) : 0;
    return code == 0 ? TOOL_OK
                     : tool_fail(RESERVE_FAILED, "%s cannot be written: %s", PATH, strerror(-code));
}

static int lock_folder(int folder)
{
    if (flock(folder, LOCK_EX | LOCK_NB) == 0)
        return TOOL_OK;
    if (errno == EWOULDBLOCK) {
        tool_fail(0, "another run is at work; waiting for it");
        while (flock(folder, LOCK_EX) != 0)
            if (errno != EINTR || reserve_interrupted())
                return tool_fail(RESERVE_FAILED, "%s cannot be locked: %s", STATE_FOLDER,
                                 strerror(errno));
        return TOOL_OK;
    }
    return tool_fail(RESERVE_FAILED, "%s cannot be locked: %s", STATE_FOLDER, strerror(errno));
}

int state_open(struct state *state)
{
    memset(state, 0, sizeof *state);
    if (mkdir(STATE_FOLDER, 0755) != 0 && errno != EEXIST)
        return tool_fail(RESERVE_FAILED,
                         "%s, where reserved pages are noted, cannot be made: %s; nothing is done",
                         STATE_FOLDER, strerror(errno));
    state->folder = open(STATE_FOLDER, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (state->folder < 0)
        return tool_fail(RESERVE_FAILED, "%s cannot be opened: %s", STATE_FOLDER, strerror(errno));
    int status = lock_folder(state->folder);
    if (status == TOOL_OK)
        status = load(state);
    if (status == TOOL_OK)
        status = settle_killed(state);
    if (status != TOOL_OK)
        state_close(state);
    return status;
}

void state_close(struct state *state)
{
    close(state->folder);
    state->folder = -1;
}
