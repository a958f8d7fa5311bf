/* SPDX-License-Identifier: MIT */
/*
 * Will there be enough? Asked for each kind of page before anything is mapped, because afterwards
 * is too late: the kernel answers a missing hugetlb page by SIGBUS and missing ordinary memory by
 * the OOM killer. The answer to no is a sentence with figures per node, and commands. Set-up only;
 * allocates nothing.
 */
#ifndef HAK_REGION_SHORTAGE_H
#define HAK_REGION_SHORTAGE_H

#include "region/backing.h"
#include "region/plan.h"

/* How missing pages can be provided. */
enum shortage_means {
    SHORTAGE_SYSFS,   /* now, by the kernel's own files; also the limits of control groups */
    SHORTAGE_HUGEADM, /* now, by hugeadm(8); with numactl(8) where there are several nodes */
    SHORTAGE_BOOT     /* words for the kernel's command line, on one line without its end */
};

/* plan: a backing with pages, page_bytes, the segments' nodes and bytes filled in. 0, or the
 * finding's code (-ENOMEM; -ENOSYS on kernels before 5.14) with what is needed, there and missing
 * appended to error's message, and to its remedy the commands that would help, where some would.
 * Ordinary memory that is not to be faulted in is never short. */
int shortage_check(const struct backing *plan, bool prefault, struct hak_error *error);

/* Appends the reason why a kind that passed the check failed later, at which step and how. */
void shortage_explain(const struct backing *plan, const char *step, int code,
                      struct hak_error *error);

/* Appends why a finding's code is not 0, after a space, up to a semicolon; a text that had to be
 * cut ends with dots. */
void shortage_say(const struct plan_finding *finding, char *text, size_t capacity);

/* Appends the commands, a line each, or for the boot the words, that would provide the missing
 * pages, and now by the kernel's files also room in the control groups; whole lines only; none
 * where they would not. False: some had to be left out. */
bool shortage_commands(const struct plan_finding *finding, enum shortage_means means, char *text,
                       size_t capacity);

/* A file's name as a word for the shell: as it is, or quoted where that is needed. False: cut. */
bool shortage_word(const char *name, char *word, size_t capacity);

#endif
