/* SPDX-License-Identifier: MIT */
/*
 * The last rung under libhakmem_preload.so: where HAKMEM_EXHAUSTED=libc, what the region has no
 * room for comes from the C library, by every call; not before the rungs below have done what they
 * can, and not without leave. The region's own figures say which it was.
 */
#include "tests/preload_kit.h"

#include <hakmem.h>

/* NOLINTBEGIN(clang-analyzer-unix.*): objects pass through kit_keep, where the analyser loses
 * them. */

#define SMALL "HAKMEM_REGION_SIZE=8M", "HAKMEM_PAGES=4k", "HAKMEM_PREFAULT=0"
#define FILL_MOST 100000

static void *fill[FILL_MOST];
static size_t fill_count;

/* The library's calls, which nothing of is linked into this program. */
static struct hak_stats stats(void)
{
    int (*ask)(hak_region *, struct hak_stats *);
    struct hak_stats out;

    *(void **)&ask = kit_symbol(RTLD_DEFAULT, "hak_region_stats");
    CHECK_EQ(ask(NULL, &out), 0);
    return out;
}

static struct hak_error last_error(void)
{
    int (*ask)(struct hak_error *);
    struct hak_error out;

    *(void **)&ask = kit_symbol(RTLD_DEFAULT, "hak_last_error");
    (void)ask(&out);
    return out;
}

/* After it was full, the region is passed over for a while, but not once something went back to it
 * by a slow free. */
static void make_it_ask(void)
{
    free(fill[0]);
    fill[0] = kit_keep(malloc(MIB));
    CHECK(kit_in_region(fill[0]));
}

static const size_t sizes[] = {3 * MIB, 300 * KIB, 256 * KIB, 5000, 100, 16};
#define SIZES (sizeof sizes / sizeof *sizes)

static void *get(unsigned call, size_t size)
{
    void *object = NULL;

    switch (call) {
    case 0:
        return kit_keep(malloc(size));
    case 1:
        return kit_keep(calloc(1, size));
    case 2:
        return kit_keep(aligned_alloc(4096, size));
    case 3:
        return posix_memalign(&object, 1 << 16, size) == 0 ? kit_keep(object) : NULL;
    case 4:
        return kit_keep(memalign(64, size));
    default:
        return kit_keep(realloc(kit_keep(NULL), size));
    }
}
#define CALLS 6

/* Until the region has nothing for any of the calls and sizes. */
static void fill_region(void)
{
    fill[fill_count++] = kit_keep(malloc(MIB));
    for (size_t n = 0; n < SIZES * CALLS; n++) {
        make_it_ask();
        for (;;) {
            void *object = get((unsigned)(n % CALLS), sizes[n / CALLS]);
            if (!kit_in_region(object)) {
                free(object);
                break;
            }
            CHECK(fill_count < FILL_MOST);
            fill[fill_count++] = object;
        }
    }
    CHECK_EQ(stats().free_bytes, 0);
}

PRELOADED(the_c_library_serves_what_the_region_cannot, SMALL, "HAKMEM_EXHAUSTED=libc")
{
    fill_region();
    for (unsigned call = 0; call < CALLS; call++) {
        for (size_t n = 0; n < SIZES; n++) {
            struct hak_stats before = stats();
            unsigned char *object = get(call, sizes[n]);
            CHECK(object != NULL);
            struct hak_stats after = stats();
            CHECK(!kit_in_region(object));
            CHECK_EQ(after.libc_allocs, before.libc_allocs + 1);
            CHECK_EQ(after.libc_bytes, before.libc_bytes + sizes[n]);
            CHECK(call != 1 || kit_zeroed(object, sizes[n]));
            kit_fill(object, sizes[n], n);
            CHECK(kit_holds(object, sizes[n], n));
            free(object);
        }
    }
}

PRELOADED(without_leave_it_does_not, SMALL, "HAKMEM_EXHAUSTED=any-node")
{
    fill_region();
    for (unsigned call = 0; call < CALLS; call++) {
        for (size_t n = 0; n < SIZES; n++) {
            errno = 0;
            CHECK(get(call, sizes[n]) == NULL);
            CHECK(call == 3 || errno == ENOMEM); /* posix_memalign returns it */
        }
    }
    CHECK_EQ(stats().libc_allocs, 0);
    CHECK_EQ(last_error().kind, HAK_ERROR_EXHAUSTED);
}

/* What this thread's caches and boxes hold is used first, though the C library would do. */
PRELOADED(the_lower_rungs_come_first, SMALL, "HAKMEM_EXHAUSTED=libc")
{
    void *hand = kit_keep(malloc(20480)); /* a slab of five units that no other call asks for */

    fill_region();
    make_it_ask();
    void *again = kit_keep(malloc(20480)); /* opens the cache of that class once more */
    CHECK(kit_in_region(again));
    free(hand);
    free(again); /* one of them stays there */
    struct hak_stats before = stats();
    CHECK_EQ(before.free_bytes, 0);
    void *object = kit_keep(malloc(256 * KIB));
    CHECK(kit_in_region(object));
    struct hak_stats after = stats();
    CHECK_EQ(after.libc_allocs, before.libc_allocs);
    CHECK_GE(after.flushed_objects, before.flushed_objects + 1);
    free(object);
}

PRELOADED(an_object_that_cannot_grow_in_the_region_moves_out_of_it, SMALL, "HAKMEM_EXHAUSTED=libc")
{
    unsigned char *object = kit_keep(malloc(5000));
    kit_fill(object, 5000, 7);
    CHECK(kit_in_region(object));
    fill_region();
    while (kit_in_region(object)) {
        unsigned char *moved = kit_keep(realloc(object, 3 * MIB));
        CHECK(moved != NULL);
        object = moved;
    }
    CHECK(kit_holds(object, 5000, 7));
    free(object);
}

/* NOLINTEND(clang-analyzer-unix.*): as above. */

KIT_MAIN()
