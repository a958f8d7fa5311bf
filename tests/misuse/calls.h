/* SPDX-License-Identifier: MIT */
/*
 * The allocation calls that deeds.c misuses, in a file of their own so that the compiler neither
 * warns of what is done on purpose nor leaves it out. Two files have them: calls_plain.c asks
 * whoever is malloc in this process (preloaded or not), calls_library.c the linked library.
 */
#ifndef HAK_TESTS_MISUSE_CALLS_H
#define HAK_TESTS_MISUSE_CALLS_H

#include <stdbool.h>
#include <stddef.h>

/* Before the first call; false after a line on standard error. */
bool calls_begin(void);

void *call_malloc(size_t size);
void *call_calloc(size_t count, size_t size);
void *call_realloc(void *pointer, size_t size);
void *call_aligned(size_t alignment, size_t size);
void call_free(void *pointer);
size_t call_usable(void *pointer);
/* False: this allocator has no such call, nothing was done. */
bool call_free_sized(void *pointer, size_t size);
bool call_free_aligned_sized(void *pointer, size_t alignment, size_t size);

/* An object of the C library's own heap, whoever malloc is. */
void *call_libc_malloc(size_t size);
/* An object of another region; NULL where there are no regions. */
void *call_other_region(size_t size);

enum calls_order { ORDER_BAD, ORDER_GOOD, ORDER_UNKNOWN };
/* The allocator's own check of its books. */
enum calls_order calls_check(void);
/* Bad frees that the allocator has counted; -1 where it does not count. */
long calls_misuses(void);

#endif
