/* SPDX-License-Identifier: MIT */
/*
 * Units that belong to nobody in a child of fork: of slabs and large objects that threads which did
 * not come along were making or giving back at that moment. Called by fork.c in the child, where
 * one thread is at work, outside any call.
 *
 * A walk over the SuperSlabs that have taken units, by their class map: what is not a whole slab, a
 * whole large object or one of its guards is nobody's. fork itself copies the page tables of all
 * that, which takes longer.
 */
#ifndef HAK_ALLOC_ORPHANS_H
#define HAK_ALLOC_ORPHANS_H

#include "alloc/heap.h"

void orphans_give_back(struct hak_region *heap);

#endif
