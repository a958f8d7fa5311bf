/* SPDX-License-Identifier: MIT */
/*
 * How many bytes can be used behind a pointer, for realloc and hak_usable_size. Any thread; reads
 * only.
 */
#ifndef HAK_ALLOC_USABLE_H
#define HAK_ALLOC_USABLE_H

#include "alloc/heap.h"

/* Of the live object that begins at the pointer; 0 where none does. */
size_t usable_live(struct hak_region *heap, const void *pointer);
/* The same for whoever only asks: most classes' slabs are one unit, and then the class map and the
 * address tell. The slab's own books stay out of the processor's cache, and a freed object counts
 * for one until its slab is another's. */
size_t usable_quick(struct hak_region *heap, const void *pointer);

#endif
