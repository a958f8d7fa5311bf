/* SPDX-License-Identifier: MIT */
/*
 * Memory behind a region: one contiguous range of addresses, a segment of it for each node, all of
 * one kind of page, bound strictly, faulted in and verified, or an error that says what is missing
 * and how to provide it. Called when a region is made and when it ends; one thread per backing.
 *
 * Invariants of a live backing: segments lie in ascending node order, without gaps, each a
 * multiple of max(2 MiB, page_bytes) and aligned to it; base is segments[0].start.
 */
#ifndef HAK_REGION_BACKING_H
#define HAK_REGION_BACKING_H

#include "region/config.h"

#include <hakmem.h>
#include <stdbool.h>
#include <stddef.h>

/* Where the kernel likes, or at an address that cannot be foretold, between pages that nobody can
 * touch. */
enum table_place { TABLE_ANYWHERE = 0, TABLE_APART };

struct backing_segment {
    int node;
    unsigned char *start;
    size_t bytes;
};

struct backing {
    void *reserved; /* what backing_destroy gives back */
    size_t reserved_bytes;
    enum table_place place; /* apart: ordinary pages of a hardened region */
    unsigned char *base;
    size_t bytes;
    enum hak_pages pages;
    size_t page_bytes;
    bool fork_inherits;                 /* a child of fork(2) has a copy */
    enum hak_pages pages_wanted;        /* what was wanted most: the first of the settings' list */
    uint64_t faultin_bytes, faultin_ns; /* what was faulted in, and how long that took */
    unsigned segment_count;
    struct backing_segment segments[HAK_NODES_MAX];
};

/*
 * 0 with *out filled, or a negative errno with *error filled, *out zeroed and nothing mapped:
 * -ENODEV for a node that cannot be used, -ENOMEM with figures and remedy where memory is missing,
 * -EIO for a page on a wrong node, else what the kernel said. Without prefault, THP and 4K take
 * addresses only; hugetlb pages are still set aside.
 */
int backing_create(const struct settings *settings, struct backing *out, struct hak_error *error);

/* Gives everything back; a zeroed or destroyed backing is nothing. */
void backing_destroy(struct backing *backing);

/*
 * Zeroed memory for the allocator's own tables, strictly on the node; aligned to 2 MiB from that
 * size on, then on transparent huge pages where the machine has them, unless wish is 4K. With
 * prefault it is faulted in, -ENOMEM where the node has too little left; without, it costs
 * addresses until it is touched. TABLE_APART: at an address that cannot be foretold, between pages
 * that nobody can touch; alloc/hardened.h. Give back with backing_table_free and the same bytes
 * and place.
 */
int backing_table(size_t bytes, int node, bool prefault, enum hak_pages wish,
                  enum table_place place, void **out);
void backing_table_free(void *table, size_t bytes, enum table_place place);

/* Walks the invariants above; 0, or -EUCLEAN when one does not hold. */
int backing_check(const struct backing *backing);

#endif
