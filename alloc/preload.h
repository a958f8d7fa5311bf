/* SPDX-License-Identifier: MIT */
/*
 * build/libhakmem_preload.so: a whole program's heap in the default region. The library's objects
 * plus the rooms alloc/preload*.c, which no other library has:
 *
 *   preload.c           malloc's names: hits as in front.c, and where else a pointer may belong
 *   preload_new.c       C++'s operators new and delete
 *   preload_tell.c      what the C library tells of its heap: mallinfo2, malloc_info, ...
 *   preload_lock.c      mlockall, which is not meant for addresses that nobody uses
 *   preload_start.c     the region's coming into being, at the first allocation that can be
 *   preload_early.c     memory for those before it
 *   preload_libc.c      the C library's own allocator: its pointers, and it as a last resort
 *
 * A pointer is of the region, early, or the C library's; anything else is misuse.
 */
#ifndef HAK_ALLOC_PRELOAD_H
#define HAK_ALLOC_PRELOAD_H

#include "alloc/heap.h"

/* ---- preload_early.c ---- */

/* Zeroed memory that is never used again. NULL with ENOMEM when there is no more. Any thread. */
void *early_alloc(size_t alignment, size_t size);
bool early_has(const void *pointer);
/* Bytes that were asked for. */
size_t early_bytes(const void *pointer);

/* ---- preload_start.c ---- */

HAK_INLINE bool start_done(void)
{
    return likely(atomic_load_explicit(&heap_default, memory_order_acquire) != NULL);
}

/* Makes the region where it can be made by now; false: not yet. Does not return when it can be
 * made but not as the environment asks: a line on standard error, exit status 127. */
bool start_try(void);

/* ---- preload_libc.c ---- */

/* Looks its functions up. Once, before the region exists. */
void libc_find(void);
/* Where it may stand in: has it set itself up, which is a cancellation point, before anybody needs
 * it, and sees to the line at exit. */
void libc_prepare(void);
/* A live object of the C library, by what stands around it in memory. Two system calls at most. */
bool libc_owns(const void *pointer);
void libc_free(void *pointer);
size_t libc_bytes(void *pointer);
void *libc_realloc(void *pointer, size_t size);
/* The environment lets the C library stand in. */
HAK_INLINE bool libc_may(const struct hak_region *heap)
{
    return heap != NULL && heap->exhausted == HAK_EXHAUSTED_LIBC;
}

/* The region was full lately: ask the C library first. */
bool libc_first(void);
/* The region had room. */
void libc_not_needed(void);
/* Something went back to the region, so it is worth asking again. */
void libc_not_first(void);
/* What the region had no room for (asked: just now), from the C library where
 * HAKMEM_EXHAUSTED=libc says so, counted; otherwise NULL with ENOMEM. alignment 0: none wanted. */
void *libc_instead(size_t alignment, size_t size, bool zeroed, bool asked);

/* ---- preload.c ---- */

/* As malloc, aligned_alloc and calloc where the bin had nothing. alignment 0: none asked. */
HAK_NOINLINE void *preload_alloc(size_t alignment, size_t size, bool zeroed);
/* As aligned_alloc; alignment: a power of two. */
void *preload_aligned(size_t alignment, size_t size);
/* As free after a miss. */
HAK_NOINLINE void preload_free(void *pointer);
/* The same with what the caller says of the object. alignment 0: nothing. */
HAK_NOINLINE void preload_free_sized(void *pointer, size_t size, size_t alignment);

#endif
