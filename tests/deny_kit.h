/* SPDX-License-Identifier: MIT */
/*
 * Kernels that know or allow less: system calls that answer with an error, by a seccomp filter of
 * the test's own child (seccomp(2)).
 */
#ifndef HAK_TESTS_DENY_KIT_H
#define HAK_TESTS_DENY_KIT_H

#include "tests/harness.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/syscall.h>

/* From now on, in this process: the system call number answers with code, where its third
 * argument's lower half is third; any value if third is negative. Not where its second argument is
 * 0: of memory calls that is an empty range, by which one asks whether the kernel knows them. */
static inline void deny(int number, long third, unsigned code)
{
    const unsigned second_at = (unsigned)offsetof(struct seccomp_data, args[1]);
    const unsigned third_at = (unsigned)offsetof(struct seccomp_data, args[2]);
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (unsigned)offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)number, 0, 5),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, second_at),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0, 3, third < 0 ? 2 : 0),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, third_at),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)third, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | code),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof filter / sizeof *filter, filter};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0) != 0)
        SKIP("no seccomp filter can be set here");
}

#endif
