/* SPDX-License-Identifier: MIT */
/*
 * Large objects of a hardened region.
 *
 * On ordinary pages (THP, 4K) a unit before and a unit behind are taken with each, and forbidden to
 * everybody (PROT_NONE, see mprotect(2)); with an alignment above 64 KiB only the one behind. A
 * freed one is forbidden as a whole and held back with others in its pool; which of them goes when
 * another comes is chosen at random. Pages of 2M and 1G cannot be forbidden in part, and adopted
 * memory is its owner's: there an object has a canary only, a byte at least, and what is held back
 * is filled at its beginning instead. Where memory comes as it is used, what is forbidden goes back
 * to the kernel.
 *
 * The kernel counts the pieces that a process's memory is in (vm.max_map_count): where it refuses a
 * guard the object goes without, and hak_stats.guards_refused counts it. Guards belong to units
 * that are taken; before they are given back they are allowed again. Where the kernel refuses
 * that, the units stay taken.
 *
 * A slab entry's state: LARGE, then HELD by whoever frees it, then FREE by who takes it out of the
 * pool's held ones.
 */
#ifndef HAK_ALLOC_GUARDED_H
#define HAK_ALLOC_GUARDED_H

#include "alloc/thread.h"

/* As large_alloc_in. */
void *guarded_alloc_in(struct thread *thread, struct pool *pool, size_t size, size_t alignment,
                       bool *zeroed);
/* The unit is a large head and the pointer its start. */
void guarded_free(struct thread *thread, unit_t unit, void *pointer);
/* What was asked for; 0 where the pointer is not the start of a live one. */
size_t guarded_size(const struct hak_region *heap, unit_t unit, const void *pointer);
bool guarded_resize(struct hak_region *heap, unit_t unit, void *pointer, size_t size, bool must);
/* Whether the unit before, and the one behind, are the large object's guards. */
bool guarded_before(const struct hak_region *heap, unit_t unit);
bool guarded_behind(const struct hak_region *heap, unit_t unit);
/* The largest object that so many neighbouring units have room for. */
size_t guarded_room(const struct hak_region *heap, size_t units);
/* Gives back what is held; true where there was something. */
bool guarded_drain(struct thread *thread, struct pool *pool);

#endif
