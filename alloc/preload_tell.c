/* SPDX-License-Identifier: MIT */
/*
 * What glibc's malloc tells of itself and lets be set, for programs that ask: mallinfo2(3),
 * mallinfo(3), malloc_info(3), malloc_stats(3), malloc_trim(3), mallopt(3). "The heap" is the
 * slabs, "mmapped" the large objects. Figures are sums over the region (hak_region_stats).
 */
#include <errno.h>
#include <limits.h>
#include <malloc.h>
#include <string.h>

#include "alloc/preload.h"
#include "alloc/thread.h"
#include "region/giveback.h"
#include "region/os.h"

/* mallopt(3): 80 * sizeof(size_t) / 4. */
#define MXFAST_MOST 160
#define TRIM_CACHES_NS 100000000U
#define TRIM_PARTS_NS 1000000000U

/* NOLINTBEGIN(readability-inconsistent-declaration-parameter-name): the C library's names are
 * reserved ones. */
HAK_API struct mallinfo2 mallinfo2(void)
{
    struct mallinfo2 info = {0};
    struct hak_stats stats;

    if (hak_region_stats(NULL, &stats) != 0) {
        return info;
    }
    info.arena = stats.slab_bytes;
    info.uordblks = stats.slab_bytes - stats.slab_free_bytes;
    info.fordblks = stats.slab_free_bytes;
    info.ordblks = stats.slab_free_bytes != 0;
    info.hblks = (size_t)(stats.large_allocs - stats.large_frees);
    info.hblkhd = stats.large_bytes;
    return info;
}

/* mallinfo(3): the fields are int, and what does not fit is not to be had. */
static int to_int(size_t value)
{
    return value > INT_MAX ? INT_MAX : (int)value;
}

HAK_API struct mallinfo mallinfo(void)
{
    struct mallinfo2 info = mallinfo2();

    return (struct mallinfo){
        .arena = to_int(info.arena),
        .ordblks = to_int(info.ordblks),
        .hblks = to_int(info.hblks),
        .hblkhd = to_int(info.hblkhd),
        .uordblks = to_int(info.uordblks),
        .fordblks = to_int(info.fordblks),
        .keepcost = to_int(info.keepcost),
    };
}

static void print_class(FILE *out, unsigned cls)
{
    struct hak_class_stats stats;

    if (hak_region_class_stats(NULL, cls, &stats) == 0 && stats.slab_count != 0) {
        fprintf(out,
                "<size from=\"%zu\" to=\"%zu\" slabs=\"%zu\" total=\"%zu\" count=\"%zu\" "
                "free=\"%zu\"/>\n",
                cls > 1 ? sizeclass_bytes(cls - 1) + 1 : 1, stats.object_bytes, stats.slab_count,
                stats.slab_bytes, stats.objects_out, stats.objects_free);
    }
}

static void print_nodes(FILE *out, unsigned count)
{
    struct hak_node_stats node;

    for (unsigned n = 0; n < count; n++) {
        if (hak_region_node_stats(NULL, n, &node) == 0) {
            fprintf(out,
                    "<heap nr=\"%u\" node=\"%d\">\n<total type=\"slabs\" size=\"%zu\"/>\n"
                    "<total type=\"free\" size=\"%zu\"/>\n<total type=\"mmap\" size=\"%zu\"/>\n"
                    "<system type=\"max\" size=\"%zu\"/>\n</heap>\n",
                    n, node.node, node.slab_bytes, node.slab_free_bytes, node.large_bytes,
                    node.size_bytes);
        }
    }
}

HAK_API int malloc_info(int options, FILE *out)
{
    struct hak_stats stats;

    if (options != 0 || out == NULL) {
        errno = EINVAL;
        return -1;
    }
    fprintf(out, "<malloc version=\"hakmem-%s\">\n", hak_version());
    if (hak_region_stats(NULL, &stats) == 0) {
        fputs("<sizes>\n", out);
        for (unsigned cls = 1; cls <= CLASS_COUNT; cls++) {
            print_class(out, cls);
        }
        fputs("</sizes>\n", out);
        print_nodes(out, stats.node_count);
        fprintf(out,
                "<total type=\"rest\" size=\"%zu\"/>\n"
                "<total type=\"mmap\" count=\"%llu\" size=\"%zu\"/>\n"
                "<total type=\"libc\" count=\"%llu\" size=\"%llu\"/>\n"
                "<system type=\"current\" size=\"%zu\"/>\n<system type=\"max\" size=\"%zu\"/>\n"
                "<aspace type=\"metadata\" size=\"%zu\"/>\n",
                stats.slab_free_bytes, (unsigned long long)(stats.large_allocs - stats.large_frees),
                stats.large_bytes, (unsigned long long)stats.libc_allocs,
                (unsigned long long)stats.libc_bytes, stats.slab_bytes + stats.large_bytes,
                stats.size_bytes, stats.metadata_bytes);
    }
    fputs("</malloc>\n", out);
    return 0;
}

HAK_API void malloc_stats(void)
{
    struct mallinfo2 info = mallinfo2();
    struct hak_stats stats = {0};

    (void)hak_region_stats(NULL, &stats);
    fprintf(stderr,
            "hakmem %s\nregion          = %12zu\nslabs           = %12zu\nin use bytes    = %12zu\n"
            "large objects   = %12zu\nlarge bytes     = %12zu\nfrom libc       = %12llu\n",
            hak_version(), stats.size_bytes, info.arena, info.uordblks, info.hblks, info.hblkhd,
            (unsigned long long)stats.libc_bytes);
}

/*
 * Some programs trim after every few frees. Ten times a second at most caches are given back for
 * it, which costs a refill each, and once a second at most the registry is gone through for free
 * parts, which costs a page fault for each that is taken again.
 */
static bool is_time(_Atomic uint64_t *next_ns, uint64_t between_ns)
{
    uint64_t now = os_coarse_ns();
    uint64_t next = atomic_load_explicit(next_ns, memory_order_relaxed);

    /* Relaxed: of two threads at once, one does it. */
    return now >= next &&
           atomic_compare_exchange_strong_explicit(next_ns, &next, now + between_ns,
                                                   memory_order_relaxed, memory_order_relaxed);
}

HAK_API int malloc_trim(size_t pad)
{
    struct hak_region *heap = atomic_load_explicit(&heap_default, memory_order_acquire);
    int saved = errno;
    static _Atomic uint64_t next_caches_ns, next_parts_ns;
    size_t given = 0;

    if (heap == NULL) {
        return 0;
    }
    if (is_time(&next_caches_ns, TRIM_CACHES_NS)) {
        struct thread *thread = thread_current_free(heap);
        if (thread != NULL) {
            thread_drain(thread);
        }
        thread_reclaim_idle(heap, thread);
    }
    if (is_time(&next_parts_ns, TRIM_PARTS_NS)) {
        given = giveback_parts(&heap->area);
    }
    given += giveback_now(&heap->area, pad);
    errno = saved;
    return given != 0;
}

/* Hints about arenas, thresholds and caches that hakmem has no use for are taken and mean nothing;
 * M_PERTURB asks for something that a program could see, and is refused. */
HAK_API int mallopt(int parameter, int value)
{
    switch (parameter) {
    case M_MXFAST:
        return value >= 0 && value <= MXFAST_MOST;
    case M_TRIM_THRESHOLD:
    case M_TOP_PAD:
    case M_MMAP_THRESHOLD:
    case M_MMAP_MAX:
    case M_CHECK_ACTION:
    case M_ARENA_TEST:
    case M_ARENA_MAX:
        return 1;
    default:
        return 0;
    }
}
/* NOLINTEND(readability-inconsistent-declaration-parameter-name): as above. */
