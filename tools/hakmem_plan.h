/* SPDX-License-Identifier: MIT */
/* The parts of `hakmem plan`: reading the options, and showing the answer in two ways. */
#ifndef HAK_TOOLS_HAKMEM_PLAN_H
#define HAK_TOOLS_HAKMEM_PLAN_H

#include <hakmem.h>
#include <stdbool.h>

/* For people, to standard output. */
void plan_print(const struct hak_plan *plan);

/* The same for programs: one JSON object (RFC 8259). False: no memory for it, nothing printed. */
bool plan_print_json(const struct hak_plan *plan);

#endif
