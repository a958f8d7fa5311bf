/* SPDX-License-Identifier: MIT */
/*
 * Will there be enough? Asked for each kind of page before anything is mapped, because afterwards
 * is too late: the kernel answers a missing hugetlb page by SIGBUS and missing ordinary memory by
 * the OOM killer. The answer to no is a sentence with figures per node, and commands.
 */
#ifndef HAK_REGION_SHORTAGE_H
#define HAK_REGION_SHORTAGE_H

#include "region/backing.h"

/* plan: a backing with pages, page_bytes, the segments' nodes and bytes filled in. 0, or -ENOMEM
 * with what is needed, there and missing appended to error's message, and to its remedy the
 * commands that would help, where some would. Ordinary memory that is not to be faulted in is
 * never short. */
int shortage_check(const struct backing *plan, bool prefault, struct hak_error *error);

/* Appends the reason why a kind that passed the check failed later, at which step and how. */
void shortage_explain(const struct backing *plan, const char *step, int code,
                      struct hak_error *error);

#endif
