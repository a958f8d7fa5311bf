/* SPDX-License-Identifier: MIT */
/*
 * Bad frees: every one is counted, put into words with where the pointer leads, and handled by the
 * region's policy. Nothing of the allocator was changed by it. Cold; any thread; never allocates.
 */
#ifndef HAK_ALLOC_MISUSE_H
#define HAK_ALLOC_MISUSE_H

#include "alloc/heap.h"

enum misuse_kind {
    MISUSE_FOREIGN,       /* outside the region */
    MISUSE_OTHER_REGION,  /* inside another live region */
    MISUSE_NOT_ALLOCATED, /* inside the region, in a unit that holds nothing */
    MISUSE_INTERIOR,      /* inside an object or a slab's tail, not an object's start */
    MISUSE_FREED_TWICE,
    /* Of a hardened region: */
    MISUSE_WRONG_SIZE,    /* freed with another size or alignment than it has */
    MISUSE_OVERFLOW,      /* the bytes behind it are not as they were */
    MISUSE_WRITTEN_FREED, /* the freed object's bytes are not as they were */
};

/* What is wrong with a pointer that is not a live object's. */
HAK_COLD enum misuse_kind misuse_kind_of(struct hak_region *heap, const void *pointer);
HAK_COLD void misuse_report(struct hak_region *heap, const void *pointer, enum misuse_kind kind);

#endif
