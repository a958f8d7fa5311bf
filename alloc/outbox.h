/* SPDX-License-Identifier: MIT */
/*
 * Objects of another node's segment, freed here: they never enter this thread's cache, so it never
 * hands out another node's memory. They collect in a magazine per node and go home together (the
 * remote drain), 64 objects or 64 KiB at a time, one atomic or per bitmap word.
 */
#ifndef HAK_ALLOC_OUTBOX_H
#define HAK_ALLOC_OUTBOX_H

#include "alloc/thread.h"

void outbox_put_owner(struct thread *thread, uint32_t pool_index, size_t object_bytes,
                      void *pointer);
void outbox_drain_owner(struct thread *thread);

#endif
