/* SPDX-License-Identifier: MIT */
/*
 * A warden: a thread of the test that sees every system call of the watched thread, and of those
 * that it starts, before the kernel does (seccomp(2), user notification), and lets one of them fail
 * as the test says. It shares memory and descriptors with the watched, so that it can also do a
 * part of what was asked.
 *
 *     warden_begin();                     once, in a child of the test's
 *     warden_arm((struct warden_fault){.at = n, .code = EIO});
 *     ... the calls ...
 *     if (warden_disarm()) ... call number n was there, and failed
 *
 * What the kernel never refuses is not counted (futex(2), signal masks, the end of a thread), nor
 * are memory calls on an empty range, by which one asks whether the kernel knows them.
 */
#ifndef HAK_TESTS_FAULTS_WARDEN_H
#define HAK_TESTS_FAULTS_WARDEN_H

#include "tests/harness.h"
#include "tests/notify_kit.h"

#include <stdatomic.h>
#include <sys/mman.h>

enum warden_kind {
    WARDEN_ERROR,  /* the call fails with code */
    WARDEN_STEADY, /* so do all later ones of its number */
    WARDEN_SHORT,  /* a read gives one byte */
    WARDEN_EMPTY   /* a read gives nothing: the end of the file */
};

struct warden_fault {
    enum warden_kind kind;
    unsigned at; /* which call, from 1; of reads for the last two kinds; 0: none */
    int code;    /* an errno */
    int only;    /* count calls of this number alone; 0: all. (Which would be read(2): see kind.) */
};

static struct warden {
    _Atomic int listener; /* -1: not yet */
    atomic_bool armed;
    struct warden_fault fault;
    unsigned seen; /* while armed */
    int failed;    /* number of the call that failed; -1: none did */
    /* Called before a call goes on; what it returns, when not 0, is the answer. */
    long (*look)(const struct seccomp_data *call);
    /* A mapping that could not be given back: not the library's fault that it is there. */
    void *kept[64];
    size_t kept_bytes[64];
    unsigned kept_count;
} warden = {.listener = -1};

static inline struct notify_answer warden_refuse(const struct seccomp_data *call, int code)
{
    if (call->nr == SYS_close) /* the kernel closes it, whatever it says */
        (void)syscall(SYS_close, call->args[0]);
    if (call->nr == SYS_munmap && warden.kept_count < sizeof warden.kept / sizeof *warden.kept) {
        warden.kept[warden.kept_count] = (void *)(uintptr_t)call->args[0];
        warden.kept_bytes[warden.kept_count++] = (size_t)call->args[1];
    }
    warden.failed = call->nr;
    return (struct notify_answer){.value = -code, .given = true};
}

static inline struct notify_answer warden_read(const struct seccomp_data *call)
{
    long got = 0;
    warden.failed = call->nr;
    if (warden.fault.kind == WARDEN_SHORT && call->args[2] != 0)
        got = syscall(SYS_read, call->args[0], call->args[1], 1);
    return (struct notify_answer){.value = got < 0 ? -errno : got, .given = true};
}

static inline bool warden_memory_call(const struct seccomp_data *call)
{
    return call->nr == SYS_madvise || call->nr == SYS_munmap || call->nr == SYS_mprotect;
}

static inline struct notify_answer warden_judge(const struct seccomp_notif *notice, void *unused)
{
    const struct seccomp_data *call = &notice->data;
    const struct notify_answer go_on = {.given = false};
    const struct warden_fault *fault = &warden.fault;
    const bool of_reads = fault->kind == WARDEN_SHORT || fault->kind == WARDEN_EMPTY;
    (void)unused;
    if (!atomic_load(&warden.armed) || (warden_memory_call(call) && call->args[1] == 0))
        return go_on;
    if (warden.look != NULL) {
        long answer = warden.look(call);
        if (answer != 0)
            return (struct notify_answer){.value = answer, .given = true};
    }
    if (fault->kind == WARDEN_STEADY && warden.failed == call->nr)
        return warden_refuse(call, fault->code);
    if ((of_reads && call->nr != SYS_read) || (fault->only != 0 && call->nr != fault->only) ||
        ++warden.seen != fault->at)
        return go_on;
    return of_reads ? warden_read(call) : warden_refuse(call, fault->code);
}

static inline void *warden_work(void *unused)
{
    (void)unused;
    while (atomic_load(&warden.listener) < 0)
        usleep(100);
    for (;;)
        notify_answer(atomic_load(&warden.listener), warden_judge, NULL);
    return NULL;
}

/* From now on this thread, and those it starts, are watched. */
static inline void warden_begin(void)
{
    pthread_t thread;
    struct sock_filter filter[] = {
        NOTIFY_LOAD,
        NOTIFY_PASS(SYS_futex),
        NOTIFY_PASS(SYS_exit),
        NOTIFY_PASS(SYS_exit_group),
        NOTIFY_PASS(SYS_rt_sigprocmask),
        NOTIFY_PASS(SYS_rt_sigreturn),
        NOTIFY_PASS(SYS_set_robust_list),
        NOTIFY_PASS(SYS_rseq),
        NOTIFY_PASS(SYS_gettid),
        NOTIFY_PASS(SYS_getpid),
        NOTIFY_PASS(SYS_sched_yield),
        NOTIFY_REST(SECCOMP_RET_USER_NOTIF),
    };
    CHECK_EQ(pthread_create(&thread, NULL, warden_work, NULL), 0);
    int listener = notify_listen(filter, sizeof filter / sizeof *filter);
    if (listener < 0)
        SKIP("seccomp's user notification is refused here (%s)", strerror(-listener));
    atomic_store(&warden.listener, listener);
}

static inline void warden_arm(struct warden_fault fault)
{
    warden.fault = fault;
    warden.seen = 0;
    warden.failed = -1;
    warden.kept_count = 0;
    atomic_store(&warden.armed, true);
}

/* True: there was such a call, and it failed. Unmaps what could not be unmapped. */
static inline bool warden_disarm(void)
{
    atomic_store(&warden.armed, false);
    for (unsigned n = 0; n < warden.kept_count; n++)
        (void)munmap(warden.kept[n], warden.kept_bytes[n]);
    return warden.failed >= 0;
}

#endif
