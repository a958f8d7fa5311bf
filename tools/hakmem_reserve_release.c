/* SPDX-License-Identifier: MIT */
/*
 * hakmem release: takes out of the pools what `hakmem reserve` added, as its file says, no more.
 *
 * The pools' counts are lowered by that much, whatever others did to them meanwhile. It is not
 * interrupted by signals: it is short, and a run that is killed is continued by the next.
 */
#define _GNU_SOURCE
#include "tools/hakmem_reserve.h"

#include "region/os.h"
#include "tools/hakmem.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

static bool is_meant(const struct reserve_request *request, const struct state_entry *entry)
{
    if (entry->added == 0)
        return false;
    if (request->nodes != 0 && (request->nodes >> entry->node & 1) == 0)
        return false;
    for (unsigned i = 0; i < request->pages_count; i++)
        if (request->pages[i] == entry->pages)
            return true;
    return !request->pages_given;
}

static int release_entry(struct state *state, struct state_entry *entry)
{
    struct pool_return back;
    int code = pool_writable(entry->node, entry->pages);
    if (code != 0)
        return tell_unwritable(entry->node, entry->pages, code);
    code = pool_shrink(state, entry, entry->added, &back);
    bool whole = tell_return(entry, &back);
    if (code != 0)
        return tool_fail(RESERVE_FAILED, "node %d, pages of %s: %s", entry->node,
                         os_pages_name(entry->pages), strerror(-code));
    return whole ? TOOL_OK : RESERVE_FAILED;
}

static int release(struct state *state, const struct reserve_request *request)
{
    int status = TOOL_OK;
    unsigned meant = 0;
    for (unsigned i = 0; i < state->count; i++) {
        if (!is_meant(request, &state->entries[i]))
            continue;
        meant++;
        if (release_entry(state, &state->entries[i]) != TOOL_OK)
            status = RESERVE_FAILED;
    }
    if (meant == 0)
        puts("nothing to give back: no such pages were added by `hakmem reserve`");
    return status;
}

static void block_signals(void)
{
    sigset_t ends;
    sigemptyset(&ends);
    sigaddset(&ends, SIGINT);
    sigaddset(&ends, SIGTERM);
    sigaddset(&ends, SIGHUP);
    sigaddset(&ends, SIGQUIT);
    sigprocmask(SIG_BLOCK, &ends, NULL);
}

int hakmem_release(int argc, char **argv)
{
    static struct reserve_request request = {.release = true};
    static struct state state;
    bool finished;
    int status = reserve_options(&request, argc, argv, &finished);
    if (finished)
        return status;
    reserve_outlive_output();
    status = reserve_need_root(argc, argv);
    if (status == TOOL_OK)
        status = state_open(&state);
    if (status != TOOL_OK)
        return status;
    block_signals();
    status = release(&state, &request);
    state_close(&state);
    return status;
}
