/* SPDX-License-Identifier: MIT */
/*
 * System calls that somebody else answers (seccomp(2), user notification): installing the filter,
 * and one call's question and answer. For what decides about them: tests/faults/warden.h,
 * tests/faults/inject.c, tests/test_rollback.c.
 */
#ifndef HAK_TESTS_NOTIFY_KIT_H
#define HAK_TESTS_NOTIFY_KIT_H

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Rules of a filter, after NOTIFY_LOAD: the call goes on by itself, or is asked about. */
#define NOTIFY_LOAD BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (unsigned)offsetof(struct seccomp_data, nr))
#define NOTIFY_RULE(number, verdict)                                                               \
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)(number), 0, 1),                                 \
        BPF_STMT(BPF_RET | BPF_K, verdict)
#define NOTIFY_PASS(number) NOTIFY_RULE(number, SECCOMP_RET_ALLOW)
#define NOTIFY_TELL(number) NOTIFY_RULE(number, SECCOMP_RET_USER_NOTIF)
#define NOTIFY_REST(verdict) BPF_STMT(BPF_RET | BPF_K, verdict)

struct notify_answer {
    long value; /* a negative errno fails the call */
    bool given; /* otherwise it goes on */
};

/* From now on this thread, and those it starts, are watched: the descriptor to listen at, or a
 * negative errno. */
static inline int notify_listen(struct sock_filter *filter, size_t rules)
{
    struct sock_fprog program = {(unsigned short)rules, filter};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
        return -errno;
    long listener = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER,
                            &program);
    return listener < 0 ? -errno : (int)listener;
}

/* Waits for a call and answers it as judge says. One thread at a time. */
static inline void notify_answer(int listener,
                                 struct notify_answer (*judge)(const struct seccomp_notif *call,
                                                               void *context),
                                 void *context)
{
    static union {
        struct seccomp_notif call;
        char room[1024]; /* the kernel may know larger ones */
    } notice;
    static union {
        struct seccomp_notif_resp response;
        char room[1024];
    } reply;
    memset(&notice, 0, sizeof notice);
    if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &notice) != 0)
        return; /* the caller was interrupted, and comes again, or is gone */
    struct notify_answer answer = judge(&notice.call, context);
    memset(&reply, 0, sizeof reply);
    reply.response.id = notice.call.id;
    if (!answer.given)
        reply.response.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
    else if (answer.value < 0)
        reply.response.error = (int)answer.value;
    else
        reply.response.val = answer.value;
    (void)ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &reply);
}

#endif
