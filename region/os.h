/* SPDX-License-Identifier: MIT */
/*
 * The only room that talks to the kernel about memory: mmap, munmap, mprotect, madvise. All calls
 * are for set-up but os_discard, os_yield and os_coarse_ns, which are for giving memory back and
 * are never made in a region that is faulted in. They keep nothing, never allocate, and return 0
 * or a negative errno; errno itself may change.
 *
 * Ordinary memory (THP, 4K) is reserved first and committed piece by piece; hugetlb pages are
 * mapped in one go at an address the kernel chooses, never over a reservation: a failing
 * mmap(MAP_FIXED) may already have removed what was there, and another thread's mapping could
 * slip into the gap.
 */
#ifndef HAK_REGION_OS_H
#define HAK_REGION_OS_H

#include <hakmem.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The processor's own page size. */
size_t os_page_bytes(void);

/* Bytes of a page of the kind: 1 GiB, 2 MiB; THP and 4K: the unit of placement, os_page_bytes(). */
size_t os_pages_bytes(enum hak_pages pages);

/* Whether the pages come from the kernel's reserved pools. */
bool os_pages_hugetlb(enum hak_pages pages);

/* "1G", "2M", "thp", "4k", as in HAKMEM_PAGES; "default". */
const char *os_pages_name(enum hak_pages pages);

/* Reserves addresses without memory behind them (PROT_NONE, MAP_NORESERVE), aligned to align, a
 * power of two. Give back with os_release. */
int os_reserve(size_t bytes, size_t align, void **out);

/* Reserves so many bytes at an address that cannot be foretold, a multiple of grain (a power of
 * two), with grain bytes before and behind them that nobody can touch. Give back with
 * os_release_apart. */
int os_reserve_apart(size_t bytes, size_t grain, void **out);
int os_release_apart(void *at, size_t bytes, size_t grain);

/* Forbids every access to part of a committed range of ordinary memory, and allows it again; what
 * it held stays. */
int os_forbid(void *at, size_t bytes);
int os_allow(void *at, size_t bytes);

/* Fills *out with what nobody else can know (getrandom(2); where the kernel has none yet, what it
 * gave the process at its start and the clock). */
void os_random(void *out, size_t bytes);

/* Makes part of a reservation readable and writable, zeroed, without promising memory: THP with
 * MADV_HUGEPAGE, 4K with MADV_NOHUGEPAGE. -EINVAL for a hugetlb kind. */
int os_commit(void *at, size_t bytes, enum hak_pages pages);

/* Maps bytes of hugetlb pages, aligned to their size; the kernel sets the pages aside for this
 * mapping (globally, not per node) or says -ENOMEM. Give back with os_release. */
int os_map_hugetlb(size_t bytes, enum hak_pages pages, void **out);

/* The same from an open file on a hugetlbfs mount, from its start; the kernel makes it as long as
 * that. shared: MAP_SHARED, the pages are the file's; otherwise MAP_PRIVATE, they are counted by
 * the mount all the same. The mapping keeps the file; its descriptor may be closed. */
int os_map_file(size_t bytes, int file, bool shared, void **out);

/*
 * Faults every page of the range in for writing. Where pages are missing this is an error, never
 * a signal: -ENOMEM, or -EFAULT for a hugetlb page that cannot be had. Kernels before 5.14 do not
 * know how: ordinary memory is then touched page by page, hugetlb is -ENOSYS.
 */
int os_populate(void *at, size_t bytes, bool hugetlb);

/* Unmaps. */
int os_release(void *at, size_t bytes);

/* Takes back MADV_HUGEPAGE for a range that was committed as THP, and gives it again. */
int os_small_pages(void *at, size_t bytes);
int os_huge_pages(void *at, size_t bytes);

/*
 * Gives the memory behind a range of ordinary private pages back to the kernel (MADV_DONTNEED): it
 * reads as zeroes from now on. -EINVAL where some of it is locked (mlock(2), mlockall(2)); then a
 * part below may be gone already.
 */
int os_discard(void *at, size_t bytes);

/* Lets others run. No cancellation point, unlike a sleep. */
void os_yield(void);

/* Since the machine's start, in steps of some milliseconds; read without a system call where the
 * kernel has a vDSO (vdso(7)). */
uint64_t os_coarse_ns(void);

/* The same clock to the nanosecond. Set-up only, which is timed by it. */
uint64_t os_now_ns(void);

/* Children made by fork(2) do not get the range. */
int os_dontfork(void *at, size_t bytes);

#endif
