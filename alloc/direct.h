/* SPDX-License-Identifier: MIT */
/*
 * Allocations that do not come out of the calling thread's cache: on a node by its name, and by
 * threads without a slot. The pools and, when those are empty, the ladder of exhaust.h. Called by
 * front.c.
 */
#ifndef HAK_ALLOC_DIRECT_H
#define HAK_ALLOC_DIRECT_H

#include "alloc/thread.h"

/* For a thread without a slot. alignment 0: none asked. NULL with errno and the record. */
HAK_COLD void *direct_stray(struct hak_region *heap, size_t size, size_t alignment);
/* From the node with the kernel's number, and no other. by: heap->stray for a thread without a
 * slot. NULL likewise. */
HAK_COLD void *direct_on_node(struct thread *by, size_t size, int node);

#endif
