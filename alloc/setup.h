/* SPDX-License-Identifier: MIT */
/*
 * Regions coming and going: the public set-up calls, one at a time under one lock.
 */
#ifndef HAK_ALLOC_SETUP_H
#define HAK_ALLOC_SETUP_H

#include "alloc/heap.h"

/* For libhakmem_preload.so: the default region, to hold the whole heap of a program. suit changes
 * what nobody asked for to what suits such a program; shrink is asked after each failure for want
 * of memory and says whether to try again with less. It cannot be ended. As hak_region_init. */
int setup_whole_program(void (*suit)(struct settings *settings),
                        bool (*shrink)(struct settings *settings, unsigned failures));

/* What of resolved settings only this floor can judge: HAK_EXHAUSTED_LIBC is -EINVAL with *error
 * filled in a program of its own, and any node for a further region in one of the preload's. */
int setup_check(struct settings *settings, struct hak_error *error);

/* Lays the metadata out over heap->area; negative errno with *error filled. */
int heap_layout(struct hak_region *heap, const struct settings *settings, struct hak_error *error);
/* Gives it back; after a failed layout too. */
void heap_unlayout(struct hak_region *heap);

#endif
