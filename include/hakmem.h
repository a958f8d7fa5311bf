/* SPDX-License-Identifier: MIT */
/*
 * hakmem: a memory allocator that lives inside memory set aside before the work starts.
 *
 * A *region* is one range of addresses made of one segment per NUMA node, backed by huge pages
 * where the machine has them, bound to its nodes and faulted in before the first allocation. After
 * that no call below makes a system call or takes a page fault. (One exception: a thread's first
 * call in a region takes up a slot of 16 KiB. Slots for 0.2 % of the region, at least 4 and at most
 * 256 a node, are faulted in at init; a thread beyond them faults its slot in at that call. The C
 * library may allocate for a thread's destructors where a process has more than 32 keys.)
 *
 * Terms. "Set-up" calls (init, create, adopt, destroy, fini, pin) may take time and talk to the
 * kernel; they return 0 or a negative errno and fill the error record (hak_last_error). The
 * allocation calls return NULL with errno set; the freeing calls keep errno and cannot fail.
 *
 * Threads. Every allocation and freeing call may be made by any thread, whoever created it, on any
 * object of the region, at the same time as any other call. Set-up calls say what they need. No
 * call is safe in a signal handler that may interrupt another hakmem call of the same thread.
 * Elsewhere a handler may allocate and free: while its thread waits (sigsuspend(2)), is in code of
 * its own, or has crashed there, whatever other threads are in. What it breaks otherwise are the
 * thread's caches: an object may be handed out twice. A set-up call in a handler that interrupted a
 * set-up call of its thread is -EDEADLK; a child forked there must not return into that call, whose
 * threads it does not have. No call is a cancellation point (pthreads(7)). A thread must not be
 * cancelled asynchronously (PTHREAD_CANCEL_ASYNCHRONOUS) inside a call: what its caches hold may be
 * lost or freed twice, and a hak_region_fini may wait for it for good. Allocations never do.
 *
 * fork(2). A region on THP or 4K pages, or in adopted private memory, is copied on write like any
 * memory, and both sides go on; what the caches of threads that did not come along hold stays out
 * of use in the child. A region on hugetlb pages is not inherited (a write in the child could need
 * a page that is not there, and be answered by SIGBUS): in the child it does not exist.
 *
 * Costs are given for x86-64; "hit" is the common case, served from the calling thread's cache.
 */
#ifndef HAKMEM_H
#define HAKMEM_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define HAK_API __attribute__((visibility("default")))
#define HAK_MALLOC_LIKE __attribute__((malloc, warn_unused_result))
#define HAK_SIZE_IS(n) __attribute__((alloc_size(n)))
#else
#define HAK_API
#define HAK_MALLOC_LIKE
#define HAK_SIZE_IS(n)
#endif

/* Version of this header; hak_version() says the library's. */
#define HAK_VERSION_MAJOR 0
#define HAK_VERSION_MINOR 1
#define HAK_VERSION_PATCH 0

/* Most regions a process can have at once: the default one and 31 further ones. */
#define HAK_REGIONS_MAX 32
/* Most NUMA nodes of one region; nodes are named by the kernel's numbers, 0 to 63. */
#define HAK_NODES_MAX 64
/* A region is made of SuperSlabs of this size; it is the least a node segment can be. */
#define HAK_SUPERSLAB_BYTES ((size_t)2 << 20)
/* Most bytes of one region: 2 TiB. */
#define HAK_REGION_BYTES_MAX ((size_t)2 << 40)
/* Largest alignment that an allocation can ask for: 1 GiB. */
#define HAK_ALIGNMENT_MAX ((size_t)1 << 30)
/* Alignment of every object without asking: that of max_align_t on the supported processors. */
#define HAK_ALIGNMENT_MIN ((size_t)16)

typedef struct hak_region hak_region;

/* ---- configuration ------------------------------------------------------------------------ */

/* Page sizes. HUGETLB pages (1G, 2M) come from the kernel's reserved pools; see
 * Documentation/admin-guide/mm/hugetlbpage.rst. THP is MADV_HUGEPAGE on ordinary memory. */
enum hak_pages {
    HAK_PAGES_DEFAULT = 0, /* ends a list; as the first entry: the environment, then 2M, THP, 4K */
    HAK_PAGES_1G,
    HAK_PAGES_2M,
    HAK_PAGES_THP,
    HAK_PAGES_4K,
    HAK_PAGES_COUNT
};

enum hak_switch { HAK_SWITCH_DEFAULT = 0, HAK_ON, HAK_OFF };

/* What happens on a bad free: in every case it is counted and nothing is freed. */
enum hak_misuse {
    HAK_MISUSE_DEFAULT = 0, /* the environment, then abort */
    HAK_MISUSE_ABORT,       /* report on standard error, then abort() */
    HAK_MISUSE_REPORT,      /* report on standard error and go on */
    HAK_MISUSE_IGNORE       /* go on; hak_last_error and the count tell */
};

/* What an allocation does when its node has nothing left. */
enum hak_exhausted {
    HAK_EXHAUSTED_DEFAULT = 0, /* the environment, then fail */
    HAK_EXHAUSTED_FAIL,        /* NULL with ENOMEM */
    HAK_EXHAUSTED_ANY_NODE,    /* the nearest other node of the region that has room; counted */
    HAK_EXHAUSTED_LIBC         /* any node, then the C library; counted. Only for a program that
                                  has libhakmem_preload.so in front: -EINVAL elsewhere */
};

/*
 * How a region shall be. Zero-initialise it and set what matters: a field left 0 takes the
 * environment variable named beside it, and its default where that is not set.
 */
struct hak_config {
    size_t size_bytes; /* HAKMEM_REGION_SIZE; whole region, shared out evenly over the nodes and
                          rounded up to what the page size and SuperSlabs ask. Default 256 MiB.
                          Below 2 MiB or above 2 TiB: an error here, clamped with a warning in
                          the environment */
    enum hak_pages pages[HAK_PAGES_COUNT]; /* HAKMEM_PAGES; order of preference, each entry tried
                          for the whole region; a list of one is strict */
    uint64_t nodes; /* HAKMEM_NODES; bit n = node n; 0 = every node that has memory and that
                          this process may use. A node named here must exist and be allowed */
    enum hak_switch prefault; /* HAKMEM_PREFAULT; default on. Off: memory comes as it is used, and
                          of ordinary pages whole SuperSlabs that are free go back to the kernel
                          (MADV_DONTNEED, see madvise(2)); memory that a device reaches (VFIO,
                          RDMA, io_uring) needs it on, since a page that was given back is not
                          the one that the device knows */
    enum hak_misuse misuse;   /* HAKMEM_MISUSE */
    enum hak_exhausted exhausted; /* HAKMEM_EXHAUSTED */
    enum hak_switch hardened;     /* HAKMEM_HARDENED; default off; see "the hardened mode" below */
    uint64_t reserved[4];         /* must be 0 */
};

/* ---- errors ------------------------------------------------------------------------------- */

enum hak_error_kind {
    HAK_ERROR_NONE = 0,
    HAK_ERROR_SETUP,     /* a set-up call failed: message and remedy say what and how to mend it */
    HAK_ERROR_ARGUMENT,  /* an allocation call was given an impossible size, alignment or node */
    HAK_ERROR_EXHAUSTED, /* no room: the numbers below say where and how much is left */
    HAK_ERROR_MISUSE,    /* a bad free */
    HAK_ERROR_NO_REGION  /* an allocation before init or after fini */
};

struct hak_error {
    enum hak_error_kind kind;
    int code;                  /* negative errno */
    size_t size_bytes;         /* what was asked for */
    size_t alignment;          /* 0: none asked */
    unsigned size_class;       /* class of the size; 0: a large object */
    int node;                  /* the kernel's number; -1: none in particular */
    size_t free_bytes;         /* free units of that node */
    size_t largest_free_bytes; /* largest single object that its free units could hold */
    size_t stranded_bytes;     /* capacity of thread caches and page boxes on that node, and its
                                  objects on their way home from other nodes: at most this much is
                                  free but in some thread's hands */
    const void *pointer;       /* of a bad free */
    char message[768];         /* a sentence or several; ends with NUL */
    char remedy[512];          /* shell commands, one a line, that would provide what is missing;
                                  empty where there are none */
};

/*
 * Copies the calling thread's last allocation failure (which outlives its region) or the process's
 * last set-up error or misuse, whichever came later, into *out. Returns its code (negative errno),
 * 0 when there was none; -EINVAL for NULL. Any thread; some hundred nanoseconds.
 */
HAK_API int hak_last_error(struct hak_error *out);

/* ---- regions ------------------------------------------------------------------------------ */

/*
 * Sets the default region up: reserves addresses, maps every node's segment with the first page
 * size of the list that can be had, binds it strictly (MPOL_BIND, see mbind(2)), faults it in with
 * threads that run on the node (MADV_POPULATE_WRITE, see madvise(2), Linux 5.14) and asks the
 * kernel for every page's node (move_pages(2)). On failure nothing stays behind. NULL: everything
 * from the environment. One thread at a time; others may already allocate only when it returned. No
 * set-up call is a cancellation point.
 *
 * -EALREADY  the default region exists
 * -EINVAL    a field or environment variable makes no sense (message says which)
 * -ENODEV    a node in the list does not exist or may not be used
 * -ENOMEM    too few pages: message tells asked, there and missing per node and page size,
 *            remedy the commands that provide them
 * -E2BIG     more than HAK_REGION_BYTES_MAX
 * -EIO       a page was found on another node than asked
 * -ELIBACC, -ENOENT, -EACCES  HAKMEM_HUGETLBFS: there is no libhugetlbfs, no mount for the page
 *            size, or none that may be written
 * -EDEADLK  in a signal handler that interrupted a set-up call of the same thread; so for create,
 *            adopt, destroy and fini
 * other      what the kernel said
 */
HAK_API int hak_region_init(const struct hak_config *config);

/*
 * Gives the default region back to the kernel; every object of it is gone. No other thread may be
 * in an allocation call or make one on this region until a new init. 0; -ENODEV: there is none;
 * -EBUSY: it holds the whole heap of a program that has libhakmem_preload.so in front.
 */
HAK_API int hak_region_fini(void);

/* The default region's handle; NULL before init and after fini. */
HAK_API hak_region *hak_region_default(void);

/* A further region, as by hak_region_init. *out is NULL on failure. Also -ENOSPC: there are
 * HAK_REGIONS_MAX - 1 already. Any thread; a process's first region while no other thread is in an
 * allocation call, as with hak_region_init. */
HAK_API int hak_region_create(const struct hak_config *config, hak_region **out);

/*
 * A region in the caller's own memory [start, start + length): any start, any length, already
 * mapped readable and writable, and the caller's for as long as the region lives. Whole SuperSlabs
 * inside it are used; *usable_bytes (may be NULL) is how much that is. The memory is never taken
 * for zeroed, never bound, moved or given back. node: the node that it lies on, or -1 to ask the
 * kernel for its first page. From config (may be NULL) only misuse and hardened are taken,
 * everything else in it is ignored. Metadata is
 * mapped apart. -EINVAL: NULL, overlaps a live region, wraps around, or holds no whole SuperSlab
 * (message says how much would be needed); -ENODEV: no such node; -ENOSPC, -ENOMEM as above.
 */
HAK_API int hak_region_adopt(void *start, size_t length, int node, const struct hak_config *config,
                             hak_region **out, size_t *usable_bytes);

/* Ends a region of hak_region_create or hak_region_adopt (-EINVAL otherwise); as hak_region_fini.
 * Adopted memory stays with the caller, contents unspecified. */
HAK_API int hak_region_destroy(hak_region *region);

/* ---- planning ----------------------------------------------------------------------------- */

/* A node's part in a region of one page size. */
struct hak_plan_node {
    int node;
    uint64_t wanted_pages;  /* what the region would take there */
    uint64_t pool_pages;    /* of a HUGETLB size: what the node's pool has in all */
    uint64_t free_pages;    /* what could be taken there now; of ordinary memory about so much */
    uint64_t missing_pages; /* wanted, and not free */
    uint64_t memory_bytes;  /* of a HUGETLB size: ordinary memory to make missing pages of */
};

/* One page size of the list. */
struct hak_plan_kind {
    enum hak_pages pages;
    size_t page_bytes;
    size_t size_bytes;       /* of the region, rounded up as init would */
    int code;                /* what init would meet with this size alone: 0, or a negative errno */
    uint64_t promised_pages; /* of a HUGETLB size: free on some node, but set aside for others */
    uint64_t cgroup_bytes;   /* what the process's hugetlb cgroup (v1 or v2) of this size still
                                allows, or its memory cgroup of ordinary memory; UINT64_MAX: no
                                limit */
    unsigned node_count;
    struct hak_plan_node nodes[HAK_NODES_MAX];
};

struct hak_plan {
    int code;               /* what hak_region_init would return now */
    unsigned kind_count;    /* page sizes of the list, in its order */
    unsigned chosen;        /* index of the one that init would take; kind_count: none */
    uint64_t memlock_bytes; /* RLIMIT_MEMLOCK, see getrlimit(2); UINT64_MAX: no limit. Init locks
                               nothing; what the program adds by mlock(2) counts, and after
                               mlockall(MCL_FUTURE) the whole region: that is not foreseen */
    struct hak_plan_kind kinds[HAK_PAGES_COUNT - 1];
    char message[1024]; /* why init would fail, or take another page size than the first */
    char now[4096]; /* shell commands, one a line, that provide by sysfs what the first page size
                       lacks that can be helped, of those that init would have preferred to the one
                       it takes; also a mount of hugetlbfs, the tightest limit of a control group,
                       and THP that are switched off. Empty: nothing is lacking, or nothing
                       helps */
    char hugeadm[4096]; /* the same by hugeadm(8) of libhugetlbfs */
    char boot[512];     /* the words for the kernel's command line that provide it from boot on;
                           with nodes from Linux 5.16 on */
};

/*
 * What hak_region_init(config) would find, without changing anything: figures per page size and
 * node, whether it would succeed, and what would make it. config as there; with prefault off, only
 * HUGETLB pages can be missing. A default region that exists is passed over. Of RLIMIT_AS and
 * RLIMIT_DATA the objects' addresses are counted, not those of the tables (up to a tenth of the
 * region more). Some milliseconds; any thread, with 128 KiB of stack. Others may take or free pages
 * between this and init. 0, and the answer in *out; an error that no page would mend is in
 * out->code and out->message (-EINVAL, -ENODEV, -E2BIG, as hak_region_init). -EINVAL also for out
 * NULL.
 */
HAK_API int hak_region_plan(const struct hak_config *config, struct hak_plan *out);

/* ---- allocation from the default region --------------------------------------------------- */

/*
 * An object of at least size bytes, aligned to 16 (objects of 4 KiB, 64 KiB ... sizes are aligned
 * to their size's largest power of two up to 64 KiB). Size 0 gives a least object of its own. Hit:
 * 16 instructions up to 8 KiB, 22 up to 256 KiB, no atomic, no lock. NULL with errno ENOMEM when
 * the node, or the region as the policy allows, has no room, the size is over PTRDIFF_MAX, or there
 * is no region.
 */
HAK_API void *hak_malloc(size_t size) HAK_MALLOC_LIKE HAK_SIZE_IS(1);

/* count * size zeroed bytes; the product is checked. A large object (over 256 KiB) in memory
 * that the kernel handed over zeroed and nobody has used yet is not cleared a second time.
 * Errors as hak_malloc. */
HAK_API void *hak_calloc(size_t count, size_t size) HAK_MALLOC_LIKE;

/*
 * As realloc(3): NULL allocates; size 0 frees and returns NULL with errno kept. Stays in place
 * where the object is large enough and not more than twice too large; large objects grow in place
 * where the next units are free, and give units back in place when more than a third is unused; one
 * that has to move gets half as much again where a node has plenty. On failure the old object is
 * untouched. A pointer that is not a live object is misuse, found and reported as by hak_free: by
 * policy an abort, otherwise NULL with EINVAL. (A freed object that is still in a thread's cache
 * counts as live until it is sent back.)
 */
HAK_API void *hak_realloc(void *pointer, size_t size) __attribute__((warn_unused_result));

/* alignment: a power of two from 1 to HAK_ALIGNMENT_MAX; size need not be its multiple.
 * NULL with EINVAL for another alignment; otherwise as hak_malloc. */
HAK_API void *hak_aligned_alloc(size_t alignment, size_t size) HAK_MALLOC_LIKE;

/*
 * Frees an object from any thread; NULL is nothing. Keeps errno; never fails. Hit: 18 instructions
 * or fewer, no atomic, and the object itself is not touched. Bad pointers (outside the region, not
 * allocated, not an object's start, freed twice) are found when the thread's cache is flushed in a
 * batch, or at once for large objects, and handled by the region's misuse policy. Until that batch
 * a pointer freed twice is in the cache twice and may be handed out twice. Without a region (before
 * init, after fini) nothing is freed, and the error record says so.
 */
HAK_API void hak_free(void *pointer);

/* As hak_free, for callers that know the size they asked for last. It is checked in a hardened
 * region; elsewhere it is a promise. */
HAK_API void hak_free_sized(void *pointer, size_t size);

/* As hak_free_sized, of an object of hak_aligned_alloc(alignment, size). alignment 0: not said. */
HAK_API void hak_free_aligned_sized(void *pointer, size_t alignment, size_t size);

/* Bytes that may be used behind a live object: its class or run. 0 for NULL and for what is not
 * the start of an object of the region; one that was freed may still count, as long as its slab
 * serves the same class. Any thread; no atomic operations; up to 4 KiB one byte of the class map
 * is read. */
HAK_API size_t hak_usable_size(const void *pointer);

/*
 * count objects of size bytes into out[0 .. count-1]; returns how many it got, count unless the
 * region ran out (then errno is ENOMEM and the first so many are valid). Hit: a copy of pointers.
 */
HAK_API size_t hak_malloc_bulk(size_t size, size_t count, void **out);

/* Frees count objects, of whatever sizes; NULLs are passed over. As hak_free for each. */
HAK_API void hak_free_bulk(void *const *pointers, size_t count);

/*
 * An object on the node with the kernel's number node, whatever the calling thread's home. NULL
 * with EINVAL where the region has no segment on it; ENOMEM when that node is full: never another.
 * On the thread's own node as hak_malloc; elsewhere a few atomic operations.
 */
HAK_API void *hak_malloc_on_node(size_t size, int node) HAK_MALLOC_LIKE HAK_SIZE_IS(1);

/* ---- the same on a handle; NULL stands for the default region ------------------------------ */

HAK_API void *hak_region_malloc(hak_region *region, size_t size) HAK_MALLOC_LIKE HAK_SIZE_IS(2);
HAK_API void *hak_region_calloc(hak_region *region, size_t count, size_t size) HAK_MALLOC_LIKE;
HAK_API void *hak_region_realloc(hak_region *region, void *pointer, size_t size)
    __attribute__((warn_unused_result));
HAK_API void *hak_region_aligned_alloc(hak_region *region, size_t alignment, size_t size)
    HAK_MALLOC_LIKE;
HAK_API void hak_region_free(hak_region *region, void *pointer);
HAK_API void hak_region_free_sized(hak_region *region, void *pointer, size_t size);
HAK_API void hak_region_free_aligned_sized(hak_region *region, void *pointer, size_t alignment,
                                           size_t size);
HAK_API size_t hak_region_usable_size(hak_region *region, const void *pointer);
HAK_API size_t hak_region_malloc_bulk(hak_region *region, size_t size, size_t count, void **out);
HAK_API void hak_region_free_bulk(hak_region *region, void *const *pointers, size_t count);
HAK_API void *hak_region_malloc_on_node(hak_region *region, size_t size, int node)
    HAK_MALLOC_LIKE HAK_SIZE_IS(2);

/* ---- the hardened mode -------------------------------------------------------------------- */

/*
 * A region made with hak_config.hardened, or HAKMEM_HARDENED=1, watches its objects at the cost of
 * time and memory (docs/security.md: what it finds and what it does not; docs/measurements.md: what
 * it costs). All calls mean what they mean elsewhere, and:
 *
 *   free, realloc   of what is not a live object (freed already, interior, never handed out) is
 *                   misuse at the call; so is a size that is not the one asked for last, or an
 *                   alignment that the address has not, in hak_free_sized and
 *                   hak_free_aligned_sized, and a byte written right behind the object: eight
 *                   secret bytes follow it. A wrong size and an overflow are reported and, where
 *                   the policy lets the program go on, the call does what it was to do.
 *   malloc          of memory whose first bytes (HAKMEM_HARDENED_FILL, default 64) were written to
 *                   after they were freed is reported as misuse, likewise; at the latest when the
 *                   memory of a whole slab goes back to be used for another size. Freed objects
 *                   are held back for a while; which of the free ones comes next is chosen at
 *                   random. (How many there are to choose from depends on the region: up to 64 of
 *                   a class and thread at 256 MiB, fewer of large classes and in small regions,
 *                   and none by hak_malloc_on_node.) Objects are aligned to 16, to more only where
 *                   it was asked for.
 *   hak_usable_size is the size that was asked for, at least 1; of a freed object it is 0 and
 *                   misuse.
 *   large objects   on THP and 4K pages have 64 KiB before and behind them that nobody can touch
 *                   (PROT_NONE, see mprotect(2)), which costs some system calls each; freed ones
 *                   are made untouchable for a while. Not with 2M and 1G pages, whose parts cannot
 *                   be protected one by one, nor in adopted memory. They do not grow in place.
 *   tables          lie apart from the objects and from each other, at addresses chosen at random,
 *                   between pages that nobody can touch; so do the objects on THP and 4K pages.
 *                   Tables are 8 % of the region.
 *
 * Misuse is handled by the region's policy (hak_config.misuse). What is held back counts as
 * capacity of caches (cached_bytes_max) and, of large objects, as large_bytes; it is given back
 * before an allocation fails.
 */

/* ---- running out -------------------------------------------------------------------------- */

/*
 * A function that is called before an allocation of the region fails, on the thread that allocates,
 * after every cache that could be had was emptied. It may free objects of the region; then the
 * allocation is tried once more. size_bytes is what is wanted, rounded up to its class. Several
 * threads may be in it at once. It may call anything but set-up calls on this region: an allocation
 * of the region that finds no room fails at once (another region's function is called), and
 * hak_thread_idle and hak_thread_pin leave the thread's cache in this region as it is. errno is
 * kept. It must return: a thread may end in it (pthread_exit(3), cancellation), but after a
 * longjmp(3) or an exception out of it, it is not called on that thread again. In a child that it
 * forks, a region on hugetlb pages does not exist, nor does the object under way. Not called for
 * sizes that the node could not hold even if empty, nor on threads without a slot (more threads on
 * a node than it has slots, at most 4,096, or a thread whose destructors run). NULL takes the
 * function back. One function a region; set it while no other thread allocates. 0; -ENODEV no
 * region.
 */
typedef void (*hak_exhausted_fn)(hak_region *region, size_t size_bytes, void *argument);
HAK_API int hak_on_exhausted(hak_region *region, hak_exhausted_fn reclaim, void *argument);

/* ---- threads ------------------------------------------------------------------------------ */

/*
 * Binds the calling thread to one processor (sched_setaffinity(2)) and makes that processor's node
 * its home in every region that has a segment there; otherwise the nearest node by distance.
 * 0, -EINVAL for a processor that does not exist, -EPERM or what the kernel said.
 */
HAK_API int hak_thread_pin(int cpu);

/*
 * Starts count threads that call run(worker, argument), worker from 0 on; 0: one for every
 * processor that the process may use. Each is pinned to a processor before it runs, and that
 * processor's node is its home. They are spread over the nodes of the default region (all nodes,
 * where there is none), one node after the other, and on a node over its cores before a core's
 * second processor is used; where there are more workers than processors it begins again. After the
 * region's own nodes come the processors of nodes that can have no segment (no memory, or none for
 * this process) and are nearest to one of the region's; their home is that one. Where the region's
 * nodes have no processor at all, all nodes' are used. Only processors of the affinity that the
 * process was started with. Not a cancellation point.
 *
 * 0; -EINVAL run NULL or count over 8192; -EBUSY workers are running and were not joined; -ENODEV
 * no processor may be used; -EAGAIN or what pthread_create(3) said: then none runs. Any thread.
 */
typedef void (*hak_worker_fn)(unsigned worker, void *argument);
HAK_API int hak_worker_start(unsigned count, hak_worker_fn run, void *argument);

/* Waits until all of them have returned. 0; -ESRCH there are none (or another thread is at it);
 * -EDEADLK from a worker. Not a cancellation point. */
HAK_API int hak_worker_join(void);

/*
 * Says that the calling thread will not allocate for a while: what its caches hold, in all regions,
 * may be taken by a thread that would otherwise run out of memory. Its next call takes up the
 * cache again where nobody did. A handful of atomic operations.
 */
HAK_API void hak_thread_idle(void);

/* ---- what is going on --------------------------------------------------------------------- */

struct hak_stats {
    size_t size_bytes;           /* object area */
    size_t metadata_bytes;       /* every table beside it, thread caches included */
    unsigned node_count;         /* segments */
    enum hak_pages pages;        /* what the object area is backed with */
    enum hak_pages pages_wanted; /* the first of the list; another one: init fell back, as the list
                                    allowed */
    uint64_t faultin_bytes; /* what init faulted in, and how long that took; 0 without prefault */
    uint64_t faultin_ns;
    unsigned threads;          /* threads that have a cache now */
    size_t free_bytes;         /* free units: available to every size */
    size_t largest_free_bytes; /* largest object that would succeed on the best node, from units */
    size_t slab_bytes;         /* in slabs */
    size_t slab_free_bytes;    /* free objects in those slabs, thread caches not included */
    size_t large_bytes;        /* in large objects */
    size_t cached_bytes_max;   /* capacity of all thread caches; at most this is free in them */
    size_t boxed_bytes_max;    /* slabs in page boxes, likewise; both together stay below 3 % */
    uint64_t cache_refills;    /* the thread cache had nothing: a batch came from below */
    uint64_t cache_flushes;    /* it was full: a batch went back */
    uint64_t box_hits;         /* refills that the thread's own slabs served */
    uint64_t warm_hits;        /* slabs found in a SuperSlab that the thread knew */
    uint64_t warm_misses;      /* ... found only by a search, which filled the warm pool; where no
                                  slab has room at all, neither: that is pool_fresh */
    uint64_t warm_prefilled;   /* SuperSlabs put into warm pools */
    uint64_t pool_partial;     /* slabs with room taken from the shared pool past the warm pool */
    uint64_t pool_fresh;       /* slabs made from free units */
    uint64_t slabs_recycled;   /* empty slabs whose units went back */
    uint64_t refilled_objects; /* objects that came up with refills */
    uint64_t flushed_objects;  /* objects that went back with flushes */
    uint64_t remote_frees;     /* objects of other nodes sent home */
    uint64_t remote_drains;    /* batches that carried them */
    uint64_t large_allocs, large_frees;
    uint64_t other_node_allocs; /* served by another node, as HAK_EXHAUSTED_ANY_NODE allows */
    uint64_t libc_allocs;       /* served by the C library, as HAK_EXHAUSTED_LIBC allows */
    uint64_t libc_bytes;        /* what they asked for, together */
    uint64_t exhausted;         /* allocations that returned NULL for want of room */
    uint64_t misuses;           /* bad frees */
    uint64_t guards_refused;    /* of a hardened region: guards that the kernel had no room for
                                   (vm.max_map_count, Documentation/admin-guide/sysctl/vm.rst) */
};

struct hak_node_stats {
    int node;
    size_t size_bytes, free_bytes, largest_free_bytes, slab_bytes, slab_free_bytes, large_bytes;
};

struct hak_class_stats {
    size_t object_bytes, slab_count, slab_bytes;
    size_t objects_out;  /* allocated or in a thread cache */
    size_t objects_free; /* in slabs */
    uint64_t cache_refills, cache_flushes, box_hits, warm_hits, warm_misses, warm_prefilled;
    uint64_t pool_fresh;
};

/*
 * Fill *out by looking at the metadata; takes no lock, so with other threads at work the figures
 * are of slightly different moments. Walks the region's units and threads: some milliseconds a
 * TiB, not for a hot path. region NULL: the default one. 0; -ENODEV no region; -EINVAL out NULL,
 * an index that is out of range.
 */
HAK_API int hak_region_stats(hak_region *region, struct hak_stats *out);
HAK_API int hak_region_node_stats(hak_region *region, unsigned index, struct hak_node_stats *out);
/* size_class from 1 to hak_class_count(). */
HAK_API int hak_region_class_stats(hak_region *region, unsigned size_class,
                                   struct hak_class_stats *out);
HAK_API unsigned hak_class_count(void);

/* "0.1.0" */
HAK_API const char *hak_version(void);

#ifdef __cplusplus
}
#endif
#endif
