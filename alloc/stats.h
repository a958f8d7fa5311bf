/* SPDX-License-Identifier: MIT */
/*
 * Figures, read from the metadata without any lock and without anybody's help. Counters are kept
 * where batches happen, by the thread that they concern; sums are over all slots ever used.
 */
#ifndef HAK_ALLOC_STATS_H
#define HAK_ALLOC_STATS_H

#include "alloc/heap.h"

void stats_region(struct hak_region *heap, struct hak_stats *out);
void stats_node(struct hak_region *heap, const struct pool *pool, struct hak_node_stats *out);
void stats_class(struct hak_region *heap, unsigned cls, struct hak_class_stats *out);

#endif
