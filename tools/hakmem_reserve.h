/* SPDX-License-Identifier: MIT */
/*
 * The parts of `hakmem reserve` and `hakmem release`: what was asked (hakmem_reserve_options.c),
 * one pool of the kernel (hakmem_reserve_pool.c), the note of what was added
 * (hakmem_reserve_state.c), and what the user is told (hakmem_reserve_tell.c). A pool is a node's
 * huge pages of one size.
 *
 * The kernel counts a pool's pages as persistent (what nr_hugepages sets) or surplus (left over: in
 * use, and given back by the kernel once they are not); nr_hugepages shows both together. Here only
 * the persistent count is moved. See Documentation/admin-guide/mm/hugetlbpage.rst.
 *
 * Codes are 0 or a negative errno; functions that return a status have said what is wrong.
 */
#ifndef HAK_TOOLS_HAKMEM_RESERVE_H
#define HAK_TOOLS_HAKMEM_RESERVE_H

#include <hakmem.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Besides those of tools/hakmem.h. */
#define RESERVE_FAILED 1

#define STATE_FOLDER "/run/hakmem"
#define STATE_FILE "reserved"
/* A line for each node and each of the two sizes. */
#define STATE_ENTRIES_MAX (2 * HAK_NODES_MAX)
#define STATE_BOOT_BYTES 48

/* ---- what was asked ------------------------------------------------------------------------ */

struct reserve_request {
    bool release; /* the subcommand: no size and count there, but several page sizes */
    bool all;     /* release: said so */
    bool keep_partial;
    bool nodes_given, pages_given;
    size_t size_bytes; /* 0: not given */
    uint64_t count;    /* 0: not given */
    uint64_t nodes;    /* bit n = node n; 0: every node with memory */
    unsigned pages_count;
    enum hak_pages pages[HAK_PAGES_COUNT];
};

/* *finished: there is nothing left to do but to return the status. */
int reserve_options(struct reserve_request *request, int argc, char **argv, bool *finished);

/* TOOL_OK for root; otherwise says the same command with sudo in front. */
int reserve_need_root(int argc, char **argv);

/* ---- the note of what was added ------------------------------------------------------------- */

struct state_entry {
    int node;
    enum hak_pages pages;
    uint64_t added;    /* pages of the pool that are there because of this tool */
    uint64_t from, to; /* the persistent count is being moved so; equal: it is not */
};

struct state {
    int folder; /* held open and locked: one run of this tool at a time */
    int saved;  /* what became of the last state_save */
    char boot[STATE_BOOT_BYTES];
    unsigned count;
    struct state_entry entries[STATE_ENTRIES_MAX];
};

/* Waits for other runs, reads the file, and settles what a killed run left in the middle. A status.
 */
int state_open(struct state *state);
void state_close(struct state *state);

/* Replaces the file in one step; without entries that have anything it is removed. */
int state_save(struct state *state);

/* The entry of a pool, made where there is none. */
struct state_entry *state_entry(struct state *state, int node, enum hak_pages pages);

/* Ends a move: the pool's persistent count is now so. Returns by how much it moved towards `to`. */
uint64_t state_settle(struct state_entry *entry, uint64_t persistent);

/* ---- one pool ------------------------------------------------------------------------------- */

struct pool_figures {
    uint64_t total_pages, persistent_pages, surplus_pages, free_pages;
};

/* A node's part of a reservation. */
struct reserve_share {
    int node;
    uint64_t wanted_pages; /* to be free there */
    uint64_t target_pages; /* what is tried for: less, where memory lacks and a part may stay */
    uint64_t memory_bytes; /* ordinary memory to make pages of, before; UINT64_MAX: unknown */
    struct pool_figures before, after;
    uint64_t added_pages;
    int code;     /* why it ended early */
    bool unnoted; /* because the note could not be written */
};

/* What came of giving pages back. */
struct pool_return {
    uint64_t freed_pages;   /* ordinary memory again */
    uint64_t surplus_pages; /* in use or promised: the kernel frees them when they no longer are */
    uint64_t gone_pages;    /* somebody else had made the pool smaller already */
    uint64_t kept_pages;    /* the kernel did not lower the count */
};

/* -ENOENT: the kernel has no pages of that size. */
int pool_read(int node, enum hak_pages pages, struct pool_figures *out);

/* Whether the pool's size can be set: 0, -EROFS, -EACCES ... */
int pool_writable(int node, enum hak_pages pages);

/* Adds pages until share->target_pages are free, the kernel finds no more, or a signal came. */
void pool_grow(struct state *state, enum hak_pages pages, struct reserve_share *share);

/* Gives count pages of those that the entry has back. */
int pool_shrink(struct state *state, struct state_entry *entry, uint64_t count,
                struct pool_return *out);

/* A signal asked the run to end. */
bool reserve_interrupted(void);

/* From here on output that nobody takes (a closed pipe, a file at its limit) is an error of the
 * write, no end in the middle of a move. */
void reserve_outlive_output(void);

/* ---- what the user is told ------------------------------------------------------------------ */

void tell_table(enum hak_pages pages, const struct reserve_share *shares, unsigned count);

/* Why each share that lacks pages does, and what to do about it; lines on standard error. */
void tell_missing(enum hak_pages pages, const struct reserve_share *shares, unsigned count);

/* What became of pages that were given back, on standard output; false when some were not. */
bool tell_return(const struct state_entry *entry, const struct pool_return *back);

/* Why a pool cannot be set; returns RESERVE_FAILED. */
int tell_unwritable(int node, enum hak_pages pages, int code);

#endif
