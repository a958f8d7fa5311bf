/* SPDX-License-Identifier: MIT */
/*
 * What reserve and release tell: the table of a reservation, why pages are missing and what helps,
 * and what became of pages that were given back.
 */
#define _GNU_SOURCE
#include "tools/hakmem_reserve.h"

#include "numa/sysfs.h"
#include "region/os.h"
#include "region/supply.h"
#include "tools/hakmem.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PATH_BYTES 256
#define BUDDY_BYTES 32768

static uint64_t missing(const struct reserve_share *share)
{
    uint64_t there = share->after.free_pages;
    return there < share->wanted_pages ? share->wanted_pages - there : 0;
}

void tell_table(enum hak_pages pages, const struct reserve_share *shares, unsigned count)
{
    printf("%4s  %5s  %10s  %10s  %10s  %10s  %10s\n", "node", "pages", "wanted", "were free",
           "added", "then free", "missing");
    for (unsigned i = 0; i < count; i++)
        printf("%4d  %5s  %10" PRIu64 "  %10" PRIu64 "  %10" PRIu64 "  %10" PRIu64 "  %10" PRIu64
               "\n",
               shares[i].node, os_pages_name(pages), shares[i].wanted_pages,
               shares[i].before.free_pages, shares[i].added_pages, shares[i].after.free_pages,
               missing(&shares[i]));
    /* What follows on standard error shall also come after it. */
    fflush(stdout);
}

/* ---- why ------------------------------------------------------------------------------------ */

/* Free pieces of at least the page's size, of a line of /proc/buddyinfo: the counts of pieces of 1,
 * 2, 4 ... base pages. */
static uint64_t count_pieces(const char *numbers, size_t page_bytes)
{
    uint64_t pieces = 0;
    size_t piece_bytes = os_page_bytes();
    for (char *end; *numbers != '\0' && *numbers != '\n'; numbers = end) {
        uint64_t number = strtoull(numbers, &end, 10);
        if (end == numbers)
            break;
        if (piece_bytes >= page_bytes)
            pieces += number * (piece_bytes / page_bytes);
        piece_bytes *= 2;
    }
    return pieces;
}

/* Lines are "Node 0, zone   Normal   1   2 ..."; false where the file cannot be read. */
static bool free_pieces(int node, enum hak_pages pages, uint64_t *pieces)
{
    static char text[BUDDY_BYTES];
    char begin[32];
    if (sysfs_read("/proc/buddyinfo", text, sizeof text) <= 0)
        return false;
    *pieces = 0;
    snprintf(begin, sizeof begin, "Node %d, zone", node);
    for (const char *line = text; line != NULL && *line != '\0';) {
        if (strncmp(line, begin, strlen(begin)) == 0) {
            const char *at = line + strlen(begin);
            at += strspn(at, " ");
            at += strcspn(at, " \n");
            *pieces += count_pieces(at, os_pages_bytes(pages));
        }
        line = strchr(line, '\n');
        line = line == NULL ? NULL : line + 1;
    }
    return true;
}

static uint64_t boot_pages(const struct reserve_share *share)
{
    return share->before.persistent_pages + share->wanted_pages - share->before.free_pages;
}

/* The kernel's words for all nodes at once; a second hugepages= would replace the first. */
static void tell_boot(enum hak_pages pages, const struct reserve_share *shares, unsigned count)
{
    char list[HAK_NODES_MAX * 24];
    size_t length = 0;
    for (unsigned i = 0; i < count && length < sizeof list; i++) {
        uint64_t wanted = shares[i].before.free_pages < shares[i].wanted_pages
                              ? boot_pages(&shares[i])
                              : shares[i].before.persistent_pages;
        length += (size_t)snprintf(list + length, sizeof list - length, "%s%d:%" PRIu64,
                                   i == 0 ? "" : ",", shares[i].node, wanted);
    }
    tool_fail(0,
              "at boot memory is in one piece; on the kernel's command line: "
              "hugepagesz=%s hugepages=%s",
              os_pages_name(pages), list);
}

static void tell_memory(enum hak_pages pages, const struct reserve_share *share)
{
    uint64_t lack = share->wanted_pages - share->before.free_pages;
    uint64_t fit = share->memory_bytes / os_pages_bytes(pages);
    tool_fail(0,
              "node %d: too little memory: %" PRIu64 " more pages of %s are %" PRIu64
              " MiB, and %" PRIu64 " MiB can be had there. Free memory on the node, or ask for at "
              "most %" PRIu64 " pages of it, or for other --nodes",
              share->node, lack, os_pages_name(pages), lack * (os_pages_bytes(pages) >> 20),
              share->memory_bytes >> 20, share->before.free_pages + fit);
}

static void tell_fragments(enum hak_pages pages, const struct reserve_share *share)
{
    char pieces[96] = "";
    uint64_t count = 0;
    if (pages == HAK_PAGES_2M && free_pieces(share->node, pages, &count))
        snprintf(pieces, sizeof pieces, " (free in one piece of that size now: %" PRIu64 ")",
                 count);
    tool_fail(0,
              "node %d: %" PRIu64 " of %" PRIu64 " pages of %s are missing: there is memory enough "
              "(%" PRIu64 " MiB), but not in pieces so large, also after compaction%s. Drop caches "
              "(sync; echo 3 >/proc/sys/vm/drop_caches) and try again, or reserve at boot",
              share->node, missing(share), share->wanted_pages, os_pages_name(pages),
              share->memory_bytes >> 20, pieces);
}

/* True: a boot would help. */
static bool tell_share(enum hak_pages pages, const struct reserve_share *share)
{
    uint64_t lack = share->wanted_pages - share->before.free_pages;
    if (share->unnoted) {
        tool_fail(0,
                  "node %d: only pages that are noted are added: " STATE_FOLDER
                  " must be writable and have room for a file of a few KiB",
                  share->node);
        return false;
    }
    if (share->code != 0) {
        tool_fail(0, "node %d: its pool of %s pages cannot be made larger: %s", share->node,
                  os_pages_name(pages), strerror(-share->code));
        return false;
    }
    if (share->memory_bytes / os_pages_bytes(pages) < lack) {
        tell_memory(pages, share);
        return false;
    }
    if (share->added_pages >= lack) {
        tool_fail(0,
                  "node %d: %" PRIu64 " of %" PRIu64 " pages of %s are missing: others took pages "
                  "of the pool meanwhile. Try again",
                  share->node, missing(share), share->wanted_pages, os_pages_name(pages));
        return false;
    }
    tell_fragments(pages, share);
    return true;
}

void tell_missing(enum hak_pages pages, const struct reserve_share *shares, unsigned count)
{
    bool boot = false;
    for (unsigned i = 0; i < count; i++)
        if (missing(&shares[i]) != 0 && shares[i].before.free_pages < shares[i].wanted_pages)
            boot |= tell_share(pages, &shares[i]);
    if (boot)
        tell_boot(pages, shares, count);
}

bool tell_return(const struct state_entry *entry, const struct pool_return *back)
{
    const char *name = os_pages_name(entry->pages);
    printf("node %d: %" PRIu64 " pages of %s given back (%" PRIu64 " MiB)\n", entry->node,
           back->freed_pages, name, back->freed_pages * (os_pages_bytes(entry->pages) >> 20));
    if (back->surplus_pages != 0)
        printf("node %d: %" PRIu64 " more are in use or promised; the kernel counts them as "
               "surplus now (surplus_hugepages) and frees them when they no longer are\n",
               entry->node, back->surplus_pages);
    if (back->gone_pages != 0)
        printf("node %d: %" PRIu64 " more had been taken out of the pool by somebody else\n",
               entry->node, back->gone_pages);
    if (back->kept_pages != 0)
        tool_fail(0, "node %d: the kernel kept %" PRIu64 " pages of %s in its pool", entry->node,
                  back->kept_pages, name);
    return back->kept_pages == 0;
}

int tell_unwritable(int node, enum hak_pages pages, int code)
{
    char path[PATH_BYTES];
    supply_pool_path(node, pages, "nr_hugepages", path, sizeof path);
    const char *remedy =
        code == -EROFS ? "/sys is mounted read-only, as in a container: run this on the host, "
                         "or in a container that may change it (docker run --privileged)"
                       : "a security module or the container's rights forbid it";
    return tool_fail(RESERVE_FAILED, "%s cannot be written: %s; %s", path, strerror(-code), remedy);
}
