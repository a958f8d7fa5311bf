/* SPDX-License-Identifier: MIT */
/*
 * What the kernel has, per node: hugetlb pools, ordinary memory, transparent huge pages; and what
 * it lets this process have. Node numbers are real ones (topology_physical). Set-up only; allocates
 * nothing.
 */
#ifndef HAK_REGION_SUPPLY_H
#define HAK_REGION_SUPPLY_H

#include <hakmem.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct supply_pool {
    uint64_t total_pages;   /* nr_hugepages */
    uint64_t free_pages;    /* free_hugepages: some may be promised, which only the machine's count
                             tells: supply_unpromised */
    uint64_t surplus_pages; /* of the total: made by the kernel on demand, and gone when freed */
};

/* The pool of a node. -ENOENT: the kernel has no pages of that size. */
int supply_pool_read(int node, enum hak_pages pages, struct supply_pool *out);

/* Pages of the whole machine that are free and not reserved by a mapping. */
uint64_t supply_unpromised(enum hak_pages pages);

/* Those that are reserved by a mapping which has not touched them yet. */
uint64_t supply_promised(enum hak_pages pages);

/* The file that sets the size of a node's pool; on kernels without nodes, of the machine's. */
void supply_pool_path(int node, enum hak_pages pages, const char *file, char *path, size_t bytes);

/* Bytes of ordinary memory that the node can hand out without swapping, roughly: free, file
 * pages, reclaimable slab, less a reserve that keeps the kernel from killing. UINT64_MAX where
 * neither /sys nor /proc tells. */
uint64_t supply_ordinary(int node);

/* Bytes that this process may still map, by RLIMIT_AS and RLIMIT_DATA (getrlimit(2)); UINT64_MAX:
 * as many as it likes. */
uint64_t supply_addresses(void);

/* Bytes of ordinary memory that the kernel still promises where it keeps count
 * (vm.overcommit_memory=2, see Documentation/mm/overcommit-accounting.rst); UINT64_MAX: it does
 * not. */
uint64_t supply_promises(void);

/* Whether MADV_HUGEPAGE has an effect. */
bool supply_thp(void);

#endif
