/* SPDX-License-Identifier: MIT */
/*
 * What a region would take of each node and what there is: the figures, worked out in this room
 * only. region/shortage puts them into words, for a set-up that fails and for hak_region_plan; so
 * the two cannot disagree. Set-up only; allocates nothing, changes nothing.
 */
#ifndef HAK_REGION_PLAN_H
#define HAK_REGION_PLAN_H

#include "region/cgroup.h"
#include "region/config.h"

#include <hakmem.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- how a region is laid out ------------------------------------------------------------- */

/* What a segment's length is a multiple of, and its start aligned to. */
size_t plan_grain(enum hak_pages pages);

/* A node's share of a region: even, rounded up to the grain; down, where the sum were more than a
 * region can be. */
size_t plan_share(size_t bytes, unsigned node_count, enum hak_pages pages);

/* The nodes that get a segment: wanted, or all that can be used where it is 0. -ENODEV with *error
 * filled for a node that cannot be used, and where there is none at all. */
int plan_nodes(uint64_t wanted, uint64_t *mask, struct hak_error *error);

/* ---- what it would find ------------------------------------------------------------------- */

/*
 * One kind of page: the public figures, and what they do not hold. Where the tests pretend nodes
 * (topology_fake), several share a real one; then each is shown what those before it leave.
 */
struct plan_finding {
    struct hak_plan_kind kind;
    bool prefault;
    bool verdict_only; /* what cannot change kind.code is not looked at: each start pays for it */
    bool there;        /* the kernel has pages of the kind, and they are not switched off */
    bool populates;    /* and can fault them in without a signal */
    uint64_t wanted_pages;
    uint64_t missing_pages;
    uint64_t promised_lack; /* of those: free, but set aside for others */
    /* The allocator's own tables are of ordinary memory on the segment's node. */
    uint64_t table_bytes; /* all nodes */
    int table_node;       /* the first that lacks memory for its part; -1: none does */
    uint64_t table_node_bytes, table_node_there;
    uint64_t memory_bytes; /* of ordinary memory: tables, and pages of such a kind */
    struct cgroup_limit hugetlb, memory;
    uint64_t address_bytes; /* that the process may still map (RLIMIT_AS, RLIMIT_DATA) */
    uint64_t commit_bytes;  /* that the kernel still promises (vm.overcommit_memory=2) */
};

/* Starts a finding; then the wishes are added; then plan_look holds them against the machine and
 * completes it, kind.code included. */
void plan_begin(enum hak_pages pages, bool prefault, struct plan_finding *out);
void plan_wish(struct plan_finding *finding, int node, size_t bytes);
void plan_look(struct plan_finding *finding);

/* All three for a region as the settings ask, on the nodes of the mask. */
void plan_kind(const struct settings *settings, uint64_t mask, enum hak_pages pages,
               struct plan_finding *out);

#endif
