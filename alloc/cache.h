/* SPDX-License-Identifier: MIT */
/*
 * The thread cache (unified cache): per class a stack of object pointers, popped and pushed at one
 * end by the hit paths in front.c. This room has the two misses.
 *
 * A stack is a chain of magazines of up to 64 pointers; below the first it lives in the slot's
 * inline slots. So it grows and shrinks by one magazine, no pointers are moved, and one miss
 * handles one magazine: that bounds the longest call.
 *
 *   full   climb to a further magazine, or send the oldest one's objects back and reuse it
 *   empty  fall back to the newest full magazine, or refill
 *
 * Chain length adapts: objects that came up by a refill and go down by a flush say that the stack
 * is too short, so for each refill one flush may let it grow by a magazine; several flushes without
 * a refill (a thread that only frees) let it shrink. What all caches of a node together can hold is
 * bounded by cached_bytes_limit, 3 % of its segment.
 *
 * Bins start closed: until a thread has allocated of a class, or freed a few of it, objects that it
 * frees go back to their slab at once. An object that another thread made, whose neighbours in the
 * cache line that thread still uses, is so not handed out here, which would make the two write to
 * one line for good.
 */
#ifndef HAK_ALLOC_CACHE_H
#define HAK_ALLOC_CACHE_H

#include "alloc/thread.h"

/* The bin had nothing: an object, or NULL where the node is exhausted (errno set). */
void *cache_empty(struct thread *thread, unsigned cls);
/* The bin had no room: takes the object all the same. */
void cache_full(struct thread *thread, unsigned cls, void *pointer);
/* Sends one magazine of the class back; false where there is none, and the bin is closed. */
bool cache_shed(struct thread *thread, unsigned cls);
/* Gives back the magazine that is kept between uses. */
void cache_give_spare(struct thread *thread);
/* Sends everything back and closes the bins. */
void cache_drain(struct thread *thread);
/* Capacity for so many bytes, promised before it is used; false where the thread, or the node's
 * caches together, may not hold more. */
bool cache_reserve(struct thread *thread, size_t bytes);
/* The same for the little that a thread may have however much others hold. */
bool cache_reserve_floor(struct thread *thread, size_t bytes);
/* What one of the node's threads may hold beyond that. */
size_t cache_share(const struct pool *pool);
void cache_unreserve(struct thread *thread, size_t bytes);
/* Class-wise limits for the thread's pool; bins closed. */
void cache_init(struct thread *thread);
bool cache_check(const struct thread *thread);

#endif
