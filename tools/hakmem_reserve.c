/* SPDX-License-Identifier: MIT */
/*
 * hakmem reserve: so many huge pages free on each node, or none.
 *
 * Everything that can be known to go wrong is looked at before the first page is taken: rights,
 * nodes, the page size, memory. Then node by node the pool is made larger (hakmem_reserve_pool.c),
 * and where that is not the whole, or a signal ends the run, what was added is given back. What
 * stays is on file for `hakmem release` from before it is there (hakmem_reserve_state.c).
 *
 * The shares are those of a region of that size (region/plan.h).
 */
#define _GNU_SOURCE
#include "tools/hakmem_reserve.h"

#include "region/base.h"
#include "region/os.h"
#include "region/plan.h"
#include "region/supply.h"
#include "tools/hakmem.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

struct reservation {
    enum hak_pages pages;
    bool keep_partial;
    bool settled; /* what was added stays, by decision: a signal comes too late */
    unsigned count;
    struct reserve_share shares[HAK_NODES_MAX];
};

/* The signal that asks for an end; 0: none. Written by the handler only. */
static volatile sig_atomic_t ending_signal;

bool reserve_interrupted(void)
{
    return ending_signal != 0;
}

static void note_signal(int number)
{
    ending_signal = number;
}

/* Without SA_RESTART: the wait for the lock and a long write to the pool's file end. */
static void watch_signals(void)
{
    static const int ends[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};
    struct sigaction action = {.sa_handler = note_signal}, before;
    sigemptyset(&action.sa_mask);
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
        /* nohup(1) and shells have some of them ignored. */
        if (sigaction(ends[i], NULL, &before) == 0 && before.sa_handler != SIG_IGN)
            sigaction(ends[i], &action, NULL);
}

void reserve_outlive_output(void)
{
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);
}

/* Ends as the signal would have ended it. */
static int end_by_signal(void)
{
    int number = ending_signal;
    fflush(stdout);
    signal(number, SIG_DFL);
    raise(number);
    return RESERVE_FAILED; /* blocked by whoever started this */
}

/* ---- what is to be done ---------------------------------------------------------------------- */

static int choose_nodes(uint64_t wanted, uint64_t *mask)
{
    struct hak_error error;
    if (plan_nodes(wanted, mask, &error) == 0)
        return TOOL_OK;
    return tool_fail(RESERVE_FAILED, "%s; `hakmem plan` shows the nodes, --nodes names others",
                     error.message);
}

static void plan_shares(const struct reserve_request *request, uint64_t mask,
                        struct reservation *out)
{
    size_t page_bytes = os_pages_bytes(request->pages[0]);
    unsigned nodes = popcount64(mask);
    size_t bytes = request->count != 0 ? (size_t)request->count * page_bytes : request->size_bytes;
    size_t share = plan_share(bytes, nodes, request->pages[0]);
    memset(out, 0, sizeof *out);
    out->pages = request->pages[0];
    out->keep_partial = request->keep_partial;
    for (; mask != 0; mask &= mask - 1)
        out->shares[out->count++] = (struct reserve_share){.node = __builtin_ctzll(mask),
                                                           .wanted_pages = share / page_bytes};
}

static int read_pools(struct reservation *out)
{
    for (unsigned i = 0; i < out->count; i++) {
        struct reserve_share *share = &out->shares[i];
        int code = pool_read(share->node, out->pages, &share->before);
        if (code == -ENOENT)
            return tool_fail(
                RESERVE_FAILED,
                "this kernel has no huge pages of %s: the processor lacks them (pdpe1gb "
                "in /proc/cpuinfo for 1G) or hugetlbfs is not built in; use --pages %s",
                os_pages_name(out->pages), out->pages == HAK_PAGES_1G ? "2M" : "1G");
        if (code != 0)
            return tool_fail(RESERVE_FAILED, "the %s pool of node %d cannot be read: %s",
                             os_pages_name(out->pages), share->node, strerror(-code));
        share->after = share->before;
        share->memory_bytes = supply_ordinary(share->node);
    }
    return TOOL_OK;
}

/* Free pages may be promised to mappings that have not touched them. The kernel says of the whole
 * machine only how many; as a region counts it, so many more are wanted of the first node. */
static void add_promised(struct reservation *out)
{
    uint64_t wanted = 0, lack = 0, unpromised = supply_unpromised(out->pages);
    for (unsigned i = 0; i < out->count; i++) {
        const struct reserve_share *share = &out->shares[i];
        wanted += share->wanted_pages;
        if (share->before.free_pages < share->wanted_pages)
            lack += share->wanted_pages - share->before.free_pages;
    }
    if (wanted <= unpromised + lack)
        return;
    struct reserve_share *first = &out->shares[0];
    uint64_t more = wanted - unpromised - lack;
    if (first->wanted_pages < first->before.free_pages)
        first->wanted_pages = first->before.free_pages;
    first->wanted_pages += more;
    printf("%" PRIu64 " free pages are promised to others: so many more are wanted on node %d\n",
           more, first->node);
}

/* Asking the kernel for what it cannot have drives it to swapping and killing first. */
static bool fits_memory(struct reservation *out)
{
    bool fits = true;
    for (unsigned i = 0; i < out->count; i++) {
        struct reserve_share *share = &out->shares[i];
        uint64_t most = share->memory_bytes / os_pages_bytes(out->pages);
        share->target_pages = share->wanted_pages;
        if (share->wanted_pages <= share->before.free_pages ||
            share->wanted_pages - share->before.free_pages <= most)
            continue;
        share->target_pages = share->before.free_pages + most;
        fits = false;
    }
    return fits;
}

static int check_writable(const struct reservation *out)
{
    for (unsigned i = 0; i < out->count; i++) {
        int code = pool_writable(out->shares[i].node, out->pages);
        if (code != 0)
            return tell_unwritable(out->shares[i].node, out->pages, code);
    }
    return TOOL_OK;
}

/* ---- doing it -------------------------------------------------------------------------------- */

static bool is_whole(const struct reservation *reservation)
{
    for (unsigned i = 0; i < reservation->count; i++)
        if (reservation->shares[i].after.free_pages < reservation->shares[i].wanted_pages)
            return false;
    return true;
}

static uint64_t added(const struct reservation *reservation)
{
    uint64_t pages = 0;
    for (unsigned i = 0; i < reservation->count; i++)
        pages += reservation->shares[i].added_pages;
    return pages;
}

/* False: some pages stayed, which was told; then they stay on file too. */
static bool give_back(struct state *state, const struct reservation *reservation)
{
    bool whole = true;
    for (unsigned i = reservation->count; i-- > 0;) {
        const struct reserve_share *share = &reservation->shares[i];
        struct pool_return back;
        if (share->added_pages == 0)
            continue;
        struct state_entry *entry = state_entry(state, share->node, reservation->pages);
        int code = pool_shrink(state, entry, share->added_pages, &back);
        if (code != 0)
            tool_fail(0, "giving back pages of node %d: %s", share->node, strerror(-code));
        whole &= tell_return(entry, &back) && code == 0;
    }
    return whole;
}

static int tell_success(struct reservation *reservation)
{
    reservation->settled = true;
    uint64_t pages = added(reservation);
    if (pages == 0)
        puts("enough pages were free: nothing was added");
    else
        printf("%" PRIu64 " pages of %s added (%" PRIu64
               " MiB); `hakmem release` gives them back\n",
               pages, os_pages_name(reservation->pages),
               pages * (os_pages_bytes(reservation->pages) >> 20));
    return TOOL_OK;
}

/* more: "" or "; " and what else there is to say. */
static int undo(struct state *state, const struct reservation *reservation, const char *more)
{
    bool whole = give_back(state, reservation);
    fflush(stdout);
    return tool_fail(RESERVE_FAILED, "%s%s",
                     whole ? "nothing was reserved"
                           : "not everything could be given back: try `hakmem release`",
                     more);
}

/* Whether --keep-partial would leave more than there was: something came, or nothing was tried
 * because memory is too little for all of it. */
static bool is_part_possible(const struct reservation *reservation, bool tried)
{
    for (unsigned i = 0; i < reservation->count; i++) {
        const struct reserve_share *share = &reservation->shares[i];
        if (share->added_pages != 0 || (!tried && share->target_pages > share->before.free_pages))
            return true;
    }
    return false;
}

static int reserve(struct state *state, struct reservation *reservation)
{
    int status = read_pools(reservation);
    if (status == TOOL_OK)
        status = check_writable(reservation);
    if (status != TOOL_OK)
        return status;
    add_promised(reservation);
    bool worth_trying = fits_memory(reservation) || reservation->keep_partial;
    for (unsigned i = 0; worth_trying && i < reservation->count; i++)
        pool_grow(state, reservation->pages, &reservation->shares[i]);
    tell_table(reservation->pages, reservation->shares, reservation->count);
    if (reserve_interrupted())
        return undo(state, reservation, "; ended by a signal");
    if (is_whole(reservation))
        return tell_success(reservation);
    tell_missing(reservation->pages, reservation->shares, reservation->count);
    if (reservation->keep_partial) {
        reservation->settled = true;
        printf("kept: %" PRIu64 " pages; `hakmem release` gives them back\n", added(reservation));
        return RESERVE_FAILED;
    }
    return undo(state, reservation,
                is_part_possible(reservation, worth_trying)
                    ? "; --keep-partial keeps what can be had"
                    : "");
}

int hakmem_reserve(int argc, char **argv)
{
    static struct reserve_request request;
    static struct reservation reservation;
    static struct state state;
    uint64_t mask = 0;
    bool finished;
    int status = reserve_options(&request, argc, argv, &finished);
    if (finished)
        return status;
    status = reserve_need_root(argc, argv);
    if (status == TOOL_OK)
        status = choose_nodes(request.nodes, &mask);
    if (status != TOOL_OK)
        return status;
    plan_shares(&request, mask, &reservation);
    watch_signals();
    reserve_outlive_output();
    status = state_open(&state);
    if (status == TOOL_OK) {
        status = reserve(&state, &reservation);
        state_close(&state);
    }
    return reserve_interrupted() && !reservation.settled ? end_by_signal() : status;
}
