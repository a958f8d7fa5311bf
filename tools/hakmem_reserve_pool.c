/* SPDX-License-Identifier: MIT */
/*
 * One node's pool of one page size: read, made larger, made smaller. Every move of its count goes
 * through move(), which keeps the order that tools/hakmem_reserve_state.c is about.
 *
 * The kernel takes a number it cannot reach for a success, so every write is followed by a look.
 * It also stops adding when a signal is pending, so a run can be interrupted in the middle of a
 * long write; what was added by then is counted like any other.
 */
#define _GNU_SOURCE
#include "tools/hakmem_reserve.h"

#include "numa/sysfs.h"
#include "numa/topology.h"
#include "region/supply.h"
#include "tools/hakmem.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define PATH_BYTES 256
/* More than one where pages are taken by others as they come, or where surplus pages, which are in
 * use, turn into persistent ones first. */
#define ROUNDS_MAX 8

static uint64_t min_u64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static int write_file(const char *path, const char *text)
{
    int file = open(path, O_WRONLY | O_CLOEXEC);
    if (file < 0)
        return -errno;
    ssize_t written = write(file, text, strlen(text));
    int code = written < 0 ? -errno : 0;
    close(file);
    return code;
}

int pool_read(int node, enum hak_pages pages, struct pool_figures *out)
{
    char path[PATH_BYTES];
    struct supply_pool pool;
    uint64_t surplus = 0;
    int code = supply_pool_read(node, pages, &pool);
    if (code != 0)
        return code;
    supply_pool_path(node, pages, "surplus_hugepages", path, sizeof path);
    code = sysfs_read_number(path, &surplus);
    if (code != 0)
        return code;
    out->total_pages = pool.total_pages;
    out->free_pages = pool.free_pages;
    /* Two looks at something that others change. */
    out->surplus_pages = min_u64(surplus, pool.total_pages);
    out->persistent_pages = pool.total_pages - out->surplus_pages;
    return 0;
}

int pool_writable(int node, enum hak_pages pages)
{
    char path[PATH_BYTES];
    supply_pool_path(node, pages, "nr_hugepages", path, sizeof path);
    return access(path, W_OK) == 0 ? 0 : -errno;
}

/* Has the kernel move free pages together on the node, or everywhere where it cannot do that. */
static void compact(int node)
{
    char path[PATH_BYTES];
    snprintf(path, sizeof path, TOPOLOGY_SYSFS "/node%d/compact", node);
    if (write_file(path, "1") != 0)
        (void)write_file("/proc/sys/vm/compact_memory", "1");
}

/*
 * Sets the persistent count to `to`; *moved is how far it came, also on failure. The intent must be
 * on file before the pool grows; a pool that shrinks needs it only for the next run to know, and is
 * shrunk all the same: pages left behind would be worse.
 */
static int move(struct state *state, struct state_entry *entry, uint64_t from, uint64_t to,
                uint64_t *moved)
{
    char path[PATH_BYTES], number[32];
    struct pool_figures figures;
    *moved = 0;
    entry->from = from;
    entry->to = to;
    int noted = state_save(state);
    if (noted != 0)
        tool_fail(0, "%s cannot be written: %s", STATE_FOLDER "/" STATE_FILE, strerror(-noted));
    if (noted != 0 && to > from) {
        entry->from = entry->to = 0;
        return noted;
    }
    supply_pool_path(entry->node, entry->pages, "nr_hugepages", path, sizeof path);
    snprintf(number, sizeof number, "%" PRIu64, to);
    int code = write_file(path, number);
    int looked = pool_read(entry->node, entry->pages, &figures);
    if (looked != 0)
        return looked; /* the intent stays on file */
    *moved = state_settle(entry, figures.persistent_pages);
    noted = state_save(state);
    return code != 0 ? code : noted;
}

void pool_grow(struct state *state, enum hak_pages pages, struct reserve_share *share)
{
    struct state_entry *entry = state_entry(state, share->node, pages);
    bool compacted = false;
    for (unsigned round = 0; round < ROUNDS_MAX && !reserve_interrupted(); round++) {
        struct pool_figures figures;
        uint64_t added = 0;
        share->code = pool_read(share->node, pages, &figures);
        if (share->code != 0 || figures.free_pages >= share->target_pages)
            break;
        uint64_t lack = share->target_pages - figures.free_pages;
        share->code = move(state, entry, figures.persistent_pages, figures.persistent_pages + lack,
                           &added);
        share->added_pages += added;
        share->unnoted = state->saved != 0;
        if (share->code != 0 || (compacted && added == 0))
            break;
        if (added < lack && !reserve_interrupted()) {
            compact(share->node);
            compacted = true;
        }
    }
    int code = pool_read(share->node, pages, &share->after);
    if (code == 0 && entry->from != entry->to) {
        /* The last move could not look at what had come of it. */
        share->added_pages += state_settle(entry, share->after.persistent_pages);
        share->unnoted = state_save(state) != 0;
    }
    share->code = share->code != 0 ? share->code : code;
}

int pool_shrink(struct state *state, struct state_entry *entry, uint64_t count,
                struct pool_return *out)
{
    struct pool_figures before, after;
    uint64_t moved = 0;
    memset(out, 0, sizeof *out);
    out->kept_pages = count;
    int code = pool_read(entry->node, entry->pages, &before);
    if (code != 0)
        return code;
    uint64_t give = min_u64(count, before.persistent_pages);
    out->gone_pages = count - give;
    entry->added -= min_u64(out->gone_pages, entry->added);
    code = move(state, entry, before.persistent_pages, before.persistent_pages - give, &moved);
    int looked = pool_read(entry->node, entry->pages, &after);
    if (looked != 0)
        return looked;
    uint64_t surplus = after.surplus_pages > before.surplus_pages
                           ? after.surplus_pages - before.surplus_pages
                           : 0;
    out->surplus_pages = min_u64(surplus, moved);
    out->freed_pages = moved - out->surplus_pages;
    out->kept_pages = give - moved;
    return code;
}
