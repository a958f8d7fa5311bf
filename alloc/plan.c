/* SPDX-License-Identifier: MIT */
/*
 * hak_region_plan: the settings as init resolves them, region/plan's findings of each page size of
 * the list, and the words and commands of region/shortage and, for a region by a file, of
 * region/hugetlbfs. Keeps nothing and takes no lock. A default region that exists is passed over:
 * the question is what another one would find.
 */
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/resource.h>

#include "alloc/setup.h"
#include "region/base.h"
#include "region/errlog.h"
#include "region/hugetlbfs.h"
#include "region/os.h"
#include "region/plan.h"
#include "region/shortage.h"

static uint64_t memlock_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_MEMLOCK, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) {
        return UINT64_MAX;
    }
    return limit.rlim_cur;
}

/* What is said on the way through the list. */
struct answer {
    char reasons[sizeof(((struct hak_plan *)0)->message)];
    bool cut; /* some commands had to be left out */
};

/* Nothing where the first kind can be had; else why not, of each up to the one that can. */
static void explain(const struct settings *settings, const struct answer *answer,
                    unsigned node_count, struct hak_plan *out)
{
    const size_t room = sizeof(out->message);
    size_t length;

    if (out->chosen == 0) {
        return;
    }
    errlog_append(out->message, room, "a region of %zu MiB over %u node%s ",
                  settings->size_bytes >> 20, node_count, node_count == 1 ? "" : "s");
    if (out->chosen == out->kind_count) {
        errlog_append(out->message, room, "cannot be had:");
    } else {
        errlog_append(out->message, room, "would be of %s pages, not the first of the list:",
                      os_pages_name(out->kinds[out->chosen].pages));
    }
    if (!errlog_append(out->message, room, "%s", answer->reasons)) {
        memset(out->message + room - 4, '.', 3);
    }
    length = strlen(out->message);
    if (out->message[length - 1] == ';') {
        out->message[length - 1] = '.';
    }
    if (answer->cut) {
        errlog_append(out->message, room,
                      " There is no room for every command: plan again after these.");
    }
}

/* Commands for one kind only, the first that they would help: those for two would provide twice. */
static void add_remedy(const struct plan_finding *finding, struct answer *answer,
                       struct hak_plan *out)
{
    bool whole;

    if (out->now[0] != '\0' || out->boot[0] != '\0') {
        return;
    }
    whole = shortage_commands(finding, SHORTAGE_SYSFS, out->now, sizeof(out->now));
    whole &= shortage_commands(finding, SHORTAGE_HUGEADM, out->hugeadm, sizeof(out->hugeadm));
    whole &= shortage_commands(finding, SHORTAGE_BOOT, out->boot, sizeof(out->boot));
    answer->cut = !whole;
}

/* Looked at also where pages are lacking: who has provided them is not to be told of the mount only
 * then. Its command comes after theirs, and not where nothing provides them now. */
static int judge_mount(const struct settings *settings, const struct plan_finding *finding,
                       bool relevant, bool remedy, struct answer *answer, struct hak_plan *out)
{
    struct hak_error mount;
    int code;

    errlog_fail(&mount, 0, HAK_ERROR_SETUP, "%s", "");
    code = hugetlbfs_map(finding->kind.size_bytes, finding->kind.pages, !settings->fork_inherits,
                         NULL, &mount);
    if (code == 0 || !relevant) {
        return code;
    }
    errlog_append(answer->reasons, sizeof(answer->reasons), "%s", mount.message);
    if (remedy && strlen(out->now) + strlen(mount.remedy) < sizeof(out->now)) {
        errlog_append(out->now, sizeof(out->now), "%s", mount.remedy);
    } else if (remedy) {
        answer->cut = true;
    }
    return code;
}

/* One kind alone, as init would try it. relevant: init would come to it. */
static int judge(const struct settings *settings, const struct plan_finding *finding, bool relevant,
                 struct answer *answer, struct hak_plan *out)
{
    const struct hak_plan_kind *kind = &finding->kind;
    const bool by_mount = settings->hugetlbfs && os_pages_hugetlb(kind->pages);
    bool first = out->now[0] == '\0' && out->boot[0] == '\0';
    int code = 0;

    if (kind->code != 0 && relevant) {
        shortage_say(finding, answer->reasons, sizeof(answer->reasons));
        add_remedy(finding, answer, out);
        first = first && out->now[0] != '\0';
    }
    if (by_mount && finding->there && finding->populates) {
        code = judge_mount(settings, finding, relevant, first, answer, out);
    }
    return kind->code != 0 ? kind->code : code;
}

static void look(const struct settings *settings, uint64_t mask, struct hak_plan *out)
{
    struct plan_finding finding;
    struct answer answer = {.cut = false};

    out->kind_count = settings->pages_count;
    out->chosen = out->kind_count;
    for (unsigned i = 0; i < out->kind_count; i++) {
        bool relevant = out->chosen == out->kind_count;
        plan_kind(settings, mask, settings->pages[i], &finding);
        out->kinds[i] = finding.kind;
        out->kinds[i].code = judge(settings, &finding, relevant, &answer, out);
        if (out->kinds[i].code == 0 && relevant) {
            out->chosen = i;
        }
    }
    /* As init: the first reason is the answer, since that kind was wanted most. */
    out->code = out->chosen < out->kind_count ? 0 : out->kinds[0].code;
    explain(settings, &answer, popcount64(mask), out);
}

int hak_region_plan(const struct hak_config *config, struct hak_plan *out)
{
    struct settings settings;
    struct hak_error error;
    uint64_t mask = 0;
    int code, cancel;

    if (out == NULL) {
        code = errlog_fail(&error, -EINVAL, HAK_ERROR_SETUP, "hak_region_plan: out is NULL");
        errlog_store(&error);
        return code;
    }
    /* It reads files: a thread that is cancelled there would leave them open. */
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
    memset(out, 0, sizeof(*out));
    out->memlock_bytes = memlock_limit();
    code = config_resolve(config, &settings, &error);
    if (code == 0) {
        code = setup_check(&settings, &error);
    }
    if (code == 0) {
        code = plan_nodes(settings.nodes, &mask, &error);
    }
    if (code == 0) {
        look(&settings, mask, out);
    } else {
        out->code = code;
        errlog_append(out->message, sizeof(out->message), "%s", error.message);
    }
    pthread_setcancelstate(cancel, NULL);
    return 0;
}
