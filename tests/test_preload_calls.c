/* SPDX-License-Identifier: MIT */
/*
 * What each allocation call of the C library does, by its man page: malloc(3), posix_memalign(3),
 * malloc_usable_size(3). A CONTRACT case holds under glibc itself as well.
 *
 * Where page and library differ, programs decide: they were tested with the library. So memalign
 * of an alignment that is no power of two takes the next one, as glibc always did (the page says
 * EINVAL). aligned_alloc may do the same, as it does to glibc 2.37, or say EINVAL as C17 has it and
 * glibc does from 2.38 on. posix_memalign says EINVAL: page, POSIX and library agree.
 */
#include "tests/preload_kit.h"

/* No call sets this one. */
#define ERRNO_MARK 4095

/* NOLINTBEGIN(clang-analyzer-unix.*,clang-analyzer-optin.*): objects pass through kit_keep,
 * where the analyser loses them, and size 0 is one of the sizes. */

static const size_t some_sizes[] = {0,
                                    1,
                                    8,
                                    15,
                                    16,
                                    17,
                                    24,
                                    100,
                                    128,
                                    129,
                                    1000,
                                    1024,
                                    1025,
                                    2048,
                                    4095,
                                    4096,
                                    4097,
                                    8192,
                                    16384,
                                    65535,
                                    65536,
                                    65537,
                                    200000,
                                    262144,
                                    262145,
                                    1 << 20,
                                    (2 << 20) - 1,
                                    2 << 20,
                                    (2 << 20) + 1,
                                    5 << 20};
#define SOME_SIZES (sizeof some_sizes / sizeof *some_sizes)

static const size_t impossible_sizes[] = {PTRDIFF_MAX, (size_t)PTRDIFF_MAX + 1, SIZE_MAX - 4096,
                                          SIZE_MAX - 15, SIZE_MAX};
#define IMPOSSIBLE_SIZES (sizeof impossible_sizes / sizeof *impossible_sizes)

static bool aligned_to(const void *pointer, size_t alignment)
{
    return ((uintptr_t)pointer & (alignment - 1)) == 0;
}

/* An object of at least so many bytes, all of them writable; on the region, when we are there. */
static void check_object(void *object, size_t bytes, size_t alignment)
{
    CHECK(object != NULL);
    CHECK(aligned_to(object, alignment));
    CHECK_GE(malloc_usable_size(object), bytes);
    kit_fill(object, malloc_usable_size(object), bytes);
    CHECK(kit_holds(object, malloc_usable_size(object), bytes));
    CHECK(!kit_on_region() || kit_in_region(object));
}

/* ---- malloc and free ------------------------------------------------------------------------- */

CONTRACT(malloc_gives_distinct_writable_objects_of_every_size)
{
    void *held[SOME_SIZES][2];
    for (size_t i = 0; i < SOME_SIZES; i++) {
        for (int k = 0; k < 2; k++) {
            held[i][k] = kit_keep(malloc(some_sizes[i]));
            check_object(held[i][k], some_sizes[i], 16);
            kit_fill(held[i][k], some_sizes[i], i * 2 + (size_t)k);
        }
    }
    for (size_t i = 0; i < SOME_SIZES; i++) {
        CHECK(held[i][0] != held[i][1]);
        for (int k = 0; k < 2; k++) {
            CHECK(kit_holds(held[i][k], some_sizes[i], i * 2 + (size_t)k));
            free(held[i][k]);
        }
    }
}

CONTRACT(size_zero_gives_objects_of_their_own)
{
    enum { COUNT = 100 };
    void *held[COUNT];
    for (int i = 0; i < COUNT; i++) {
        held[i] = i % 2 ? kit_keep(malloc(0)) : kit_keep(calloc((size_t)(i % 4) * 7, 0));
        CHECK(held[i] != NULL);
        for (int k = 0; k < i; k++) {
            CHECK(held[k] != held[i]);
        }
    }
    for (int i = 0; i < COUNT; i++) {
        free(held[i]);
    }
}

#define CHECK_FAILS(call, code)                                                                    \
    do {                                                                                           \
        errno = 0;                                                                                 \
        CHECK_EQ(kit_keep(call), NULL);                                                            \
        CHECK_EQ(errno, code);                                                                     \
    } while (0)

CONTRACT(impossible_sizes_are_ENOMEM_and_leave_the_old_object_alone)
{
    char *old = (char *)kit_keep(malloc(100));
    kit_fill(old, 100, 1);
    for (size_t i = 0; i < IMPOSSIBLE_SIZES; i++) {
        size_t size = kit_opaque(impossible_sizes[i]);
        CHECK_FAILS(malloc(size), ENOMEM);
        CHECK_FAILS(calloc(1, size), ENOMEM);
        CHECK_FAILS(calloc(size, 1), ENOMEM);
        CHECK_FAILS(realloc(NULL, size), ENOMEM);
        CHECK_FAILS(realloc(kit_keep(old), size), ENOMEM);
        CHECK_FAILS(reallocarray(kit_keep(old), 1, size), ENOMEM);
        CHECK_FAILS(reallocarray(kit_keep(old), size, 1), ENOMEM);
        CHECK_FAILS(memalign(64, size), ENOMEM);
        CHECK_FAILS(aligned_alloc(4096, size), ENOMEM);
        CHECK_FAILS(valloc(size), ENOMEM);
        CHECK_FAILS(pvalloc(size), ENOMEM);
    }
    CHECK(kit_holds(old, 100, 1));
    free(old);
}

CONTRACT(products_that_overflow_are_ENOMEM)
{
    static const size_t products[][2] = {{SIZE_MAX, SIZE_MAX},
                                         {SIZE_MAX / 2 + 1, 2},
                                         {(size_t)1 << 32, (size_t)1 << 32},
                                         {((size_t)1 << 32) + 1, (size_t)1 << 32},
                                         {SIZE_MAX / 16 + 2, 16}, /* wraps to 16 */
                                         {3, SIZE_MAX / 3 + 1}};
    char *old = (char *)kit_keep(malloc(100));
    kit_fill(old, 100, 1);
    for (size_t i = 0; i < sizeof products / sizeof *products; i++) {
        size_t count = kit_opaque(products[i][0]), size = kit_opaque(products[i][1]);
        CHECK_FAILS(calloc(count, size), ENOMEM);
        CHECK_FAILS(calloc(size, count), ENOMEM);
        CHECK_FAILS(reallocarray(kit_keep(old), count, size), ENOMEM);
        CHECK_FAILS(reallocarray(kit_keep(old), size, count), ENOMEM);
        CHECK_FAILS(reallocarray(NULL, count, size), ENOMEM);
    }
    CHECK(kit_holds(old, 100, 1));
    free(old);
}

/* glibc documents it for free since 2.33; for the others it is what programs see. */
CONTRACT(errno_is_kept_where_nothing_fails)
{
    for (size_t i = 0; i < SOME_SIZES; i++) {
        size_t size = some_sizes[i] + 1;
        void *more = NULL;
        errno = ERRNO_MARK;
        for (int round = 0; round<200; round += size> 65536 ? 50 : 1) {
            void *a = kit_keep(malloc(size)), *b = kit_keep(calloc(2, size));
            a = kit_keep(realloc(a, size * 2));
            b = kit_keep(reallocarray(b, 3, size));
            void *c = kit_keep(memalign(256, size)), *d = kit_keep(valloc(size));
            CHECK_EQ(posix_memalign(&more, 64, size), 0);
            CHECK(malloc_usable_size(a) >= size && b != NULL && c != NULL && d != NULL);
            CHECK_EQ(errno, ERRNO_MARK);
            free(a), free(b), free(c), free(d), free(more);
            free(NULL);
            CHECK_EQ(errno, ERRNO_MARK);
        }
    }
}

/* Of every kind: small, large, more than the caches hold, and what the kernel gets back. */
CONTRACT(free_keeps_errno)
{
    enum { COUNT = 3000 };
    static void *held[COUNT];
    for (size_t i = 0; i < SOME_SIZES; i++) {
        int count = some_sizes[i] > 16384 ? 20 : COUNT;
        for (int k = 0; k < count; k++) {
            held[k] = kit_keep(malloc(some_sizes[i]));
            CHECK(held[k] != NULL);
        }
        for (int k = 0; k < count; k++) {
            errno = ERRNO_MARK;
            free(held[k]);
            CHECK_EQ(errno, ERRNO_MARK);
        }
    }
}

/* ---- calloc ---------------------------------------------------------------------------------- */

static void dirty_and_clear(size_t size)
{
    void *held[4];
    for (int k = 0; k < 4; k++) {
        held[k] = kit_keep(malloc(size));
        memset(held[k], 0xa5, malloc_usable_size(held[k]));
    }
    for (int k = 0; k < 4; k++) {
        free(held[k]);
    }
    for (int k = 0; k < 4; k++) {
        held[k] = kit_keep(calloc(k % 2 ? 1 : size, k % 2 ? size : 1));
        CHECK(held[k] != NULL && kit_zeroed(held[k], size));
    }
    for (int k = 0; k < 4; k++) {
        free(held[k]);
    }
}

CONTRACT(calloc_clears_what_was_used_before)
{
    for (size_t i = 0; i < SOME_SIZES; i++) {
        for (int round = 0; round < 5; round++) {
            dirty_and_clear(some_sizes[i]);
        }
    }
}

/* ---- realloc --------------------------------------------------------------------------------- */

CONTRACT(realloc_of_NULL_allocates)
{
    for (size_t i = 0; i < SOME_SIZES; i++) {
        void *object = kit_keep(realloc(kit_keep(NULL), some_sizes[i]));
        check_object(object, some_sizes[i], 16);
        free(object);
        object = kit_keep(reallocarray(NULL, some_sizes[i], 1));
        check_object(object, some_sizes[i], 16);
        free(object);
    }
}

static void *to_zero(void *object, bool by_array)
{
    return by_array ? reallocarray(object, kit_opaque(0), 8) : realloc(object, kit_opaque(0));
}

/* What glibc does; POSIX leaves it open. That it frees is seen by what would be left. */
CONTRACT(realloc_to_zero_frees_and_gives_NULL)
{
    long before = 0;
    for (size_t n = 0; n < 400 * SOME_SIZES; n++) {
        size_t size = some_sizes[n % SOME_SIZES];
        void *object = kit_keep(malloc(size));
        memset(object, 1, size);
        errno = ERRNO_MARK;
        CHECK_EQ(kit_keep(to_zero(object, n % 2)), NULL);
        CHECK_EQ(errno, ERRNO_MARK);
        if (n == 10 * SOME_SIZES) {
            before = kit_status_kib("VmRSS:");
        }
    }
    CHECK_LE(kit_status_kib("VmRSS:"), before + 32 * 1024); /* 400 rounds are 5 GiB */
}

static void move(size_t old_size, size_t size)
{
    size_t kept = old_size < size ? old_size : size;
    unsigned char *object = (unsigned char *)kit_keep(malloc(old_size));
    for (size_t at = 0; at < old_size; at += 97) {
        object[at] = (unsigned char)(at ^ size);
    }
    object = (unsigned char *)kit_keep(realloc(object, size));
    CHECK(object != NULL || size == 0);
    for (size_t at = 0; at < kept; at += 97) {
        CHECK_EQ(object[at], (unsigned char)(at ^ size));
    }
    if (object != NULL) {
        check_object(object, size, 16);
    }
    free(object);
}

CONTRACT(realloc_keeps_contents_across_all_sizes)
{
    for (size_t from = 0; from < SOME_SIZES; from++) {
        for (size_t to = 0; to < SOME_SIZES; to++) {
            move(some_sizes[from], some_sizes[to]);
        }
    }
}

/* As interpreters and readers of lines do: byte by byte, then by half as much again. */
CONTRACT(realloc_in_small_steps_keeps_contents)
{
    unsigned char *object = NULL;
    size_t filled = 0;
    for (size_t size = 1; size < 8 * MIB; size += size < 5000 ? 1 : size / 2) {
        object = (unsigned char *)kit_keep(realloc(object, size));
        CHECK(object != NULL);
        for (; filled < size; filled++) {
            object[filled] = (unsigned char)(filled % 251);
        }
    }
    for (size_t at = 0; at < filled; at++) {
        CHECK_EQ(object[at], at % 251);
    }
    free(object);
}

CONTRACT(realloc_of_an_aligned_object_keeps_its_contents)
{
    for (size_t alignment = 16; alignment <= MIB; alignment *= 2) {
        void *object = kit_keep(memalign(alignment, 3000));
        kit_fill(object, 3000, alignment);
        object = kit_keep(realloc(object, 300000));
        for (size_t at = 0; at < 2999; at++) {
            CHECK_EQ(((unsigned char *)object)[at], (unsigned char)(alignment * 31 + at));
        }
        free(object);
    }
}

/* ---- alignment ------------------------------------------------------------------------------- */

static void align(size_t alignment, size_t size)
{
    void *object = kit_keep(memalign(alignment, size));
    check_object(object, size, alignment);
    free(object);
    object = kit_keep(aligned_alloc(alignment, size));
    check_object(object, size, alignment);
    free(object);
    if (alignment >= sizeof(void *)) {
        object = NULL;
        CHECK_EQ(posix_memalign(&object, alignment, size), 0);
        check_object(object, size, alignment);
        free(object);
    }
}

CONTRACT(every_alignment_that_is_a_power_of_two_is_served)
{
    for (size_t alignment = 1; alignment <= 64 * MIB; alignment *= 2) {
        for (size_t i = 0; i < SOME_SIZES; i += 3) {
            align(alignment, some_sizes[i]);
        }
    }
}

CONTRACT(memalign_rounds_an_alignment_up_to_a_power_of_two)
{
    for (size_t alignment = 0; alignment < 70000; alignment += 1 + alignment / 3) {
        size_t power = 16;
        while (power < alignment) {
            power *= 2;
        }
        void *object = kit_keep(memalign(kit_opaque(alignment), 200));
        check_object(object, 200, power);
        free(object);
    }
}

CONTRACT(aligned_alloc_rounds_up_or_says_EINVAL)
{
    static const size_t odd[] = {3, 24, 48, 100, 4095, 5000};
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
        errno = 0;
        void *object = kit_keep(aligned_alloc(kit_opaque(odd[i]), 2 * odd[i]));
        if (object == NULL) {
            CHECK_EQ(errno, EINVAL);
        } else {
            size_t power = 16;
            while (power < odd[i]) {
                power *= 2;
            }
            check_object(object, 2 * odd[i], power);
        }
        free(object);
    }
}

CONTRACT(alignments_beyond_every_address_fail)
{
    CHECK_FAILS(memalign(kit_opaque((size_t)1 << 62), 1), ENOMEM);
    CHECK_FAILS(memalign(kit_opaque(SIZE_MAX / 2 + 2), 1), EINVAL);
    CHECK_FAILS(memalign(kit_opaque(SIZE_MAX), 1), EINVAL);
    void *untouched = &untouched;
    errno = ERRNO_MARK;
    CHECK_EQ(posix_memalign(&untouched, kit_opaque((size_t)1 << 62), 1), ENOMEM);
    CHECK_EQ(untouched, &untouched);
    CHECK(errno == ERRNO_MARK || !kit_on_region());
}

/* "The value of errno is not set", says the page; glibc itself does set it with ENOMEM. */
CONTRACT(posix_memalign_returns_its_error_and_touches_nothing_else)
{
    static const size_t bad[] = {0, 1, 2, 3, 4, 5, 7, 9, 12, 24, 63, 65, 100, 4095, 4097, SIZE_MAX};
    void *untouched = &untouched;
    errno = ERRNO_MARK;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        CHECK_EQ(posix_memalign(&untouched, kit_opaque(bad[i]), 100), EINVAL);
        CHECK_EQ(untouched, &untouched);
        CHECK_EQ(errno, ERRNO_MARK);
    }
    for (size_t i = 0; i < IMPOSSIBLE_SIZES; i++) {
        CHECK_EQ(posix_memalign(&untouched, 64, kit_opaque(impossible_sizes[i])), ENOMEM);
        CHECK_EQ(untouched, &untouched);
        CHECK(errno == ERRNO_MARK || !kit_on_region());
    }
    void *zero[2] = {NULL, NULL};
    CHECK_EQ(posix_memalign(&zero[0], 64, 0), 0);
    CHECK_EQ(posix_memalign(&zero[1], 64, 0), 0);
    CHECK(zero[0] == NULL || zero[0] != zero[1]);
    free(zero[0]);
    free(zero[1]);
}

CONTRACT(valloc_and_pvalloc_give_pages)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    for (size_t i = 0; i < SOME_SIZES; i++) {
        void *object = kit_keep(valloc(some_sizes[i]));
        check_object(object, some_sizes[i], page);
        free(object);
        object = kit_keep(pvalloc(some_sizes[i]));
        check_object(object, (some_sizes[i] + page - 1) & ~(page - 1), page);
        free(object);
    }
}

/* ---- usable size ----------------------------------------------------------------------------- */

CONTRACT(usable_size_of_NULL_is_0)
{
    CHECK_EQ(malloc_usable_size(kit_keep(NULL)), 0);
}

/* Filled to its end, an object harms none of its neighbours. */
CONTRACT(all_of_the_usable_size_belongs_to_the_object)
{
    enum { COUNT = 64 };
    for (size_t i = 0; i < SOME_SIZES; i++) {
        void *held[COUNT];
        int count = some_sizes[i] > MIB ? 4 : COUNT;
        for (int k = 0; k < count; k++) {
            held[k] = kit_keep(malloc(some_sizes[i]));
            CHECK_GE(malloc_usable_size(held[k]), some_sizes[i]);
            kit_fill(held[k], malloc_usable_size(held[k]), (uint64_t)k);
        }
        for (int k = 0; k < count; k++) {
            CHECK(kit_holds(held[k], malloc_usable_size(held[k]), (uint64_t)k));
            free(held[k]);
        }
    }
}

/* ---- where they come from -------------------------------------------------------------------- */

/* The line of /proc/self/maps that the address lies in. */
static void mapping_of(const void *pointer, char *line, size_t bytes)
{
    FILE *maps = fopen("/proc/self/maps", "r");
    CHECK(maps != NULL);
    while (fgets(line, (int)bytes, maps) != NULL) {
        unsigned long from = 0, to = 0;
        if (sscanf(line, "%lx-%lx", &from, &to) == 2 && (uintptr_t)pointer >= from &&
            (uintptr_t)pointer < to) {
            fclose(maps);
            return;
        }
    }
    FAIL("%p is not mapped", pointer);
}

/* Every call's objects lie in the region, and the C library's own heap stays as it is. */
PRELOADED(all_objects_come_from_the_region)
{
    static char line[512];
    char *text = NULL, *input = NULL;
    size_t length = 0;
    void *aligned = NULL, *before = sbrk(0);
    CHECK_EQ(posix_memalign(&aligned, 64, 100), 0);
    CHECK(asprintf(&text, "%s of %d", "words", 3) > 0);
    FILE *self = fopen("/proc/self/status", "r");
    CHECK(self != NULL && getline(&input, &length, self) > 0);
    fclose(self);
    void *all[] = {malloc(10),
                   calloc(3, 1000),
                   realloc(malloc(10), 3000000),
                   memalign(64, 100),
                   aligned_alloc(32, 64),
                   valloc(10),
                   pvalloc(10),
                   aligned,
                   reallocarray(NULL, 7, 9),
                   strdup("libc's"),
                   text,
                   input,
                   malloc(70000),
                   malloc(5 * MIB),
                   realpath("/proc", NULL)};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        CHECK(kit_in_region(all[i]));
        mapping_of(all[i], line, sizeof line);
        CHECK(strstr(line, "[heap]") == NULL && strchr(line, '/') == NULL);
        free(all[i]);
    }
    CHECK_EQ(sbrk(0), before);
}

/* ---- names ----------------------------------------------------------------------------------- */

/* Every call that the C library has is the preloaded library's. */
PRELOADED(every_entry_point_is_the_librarys_own)
{
    static const char *const names[] = {"malloc",
                                        "free",
                                        "calloc",
                                        "realloc",
                                        "reallocarray",
                                        "memalign",
                                        "aligned_alloc",
                                        "posix_memalign",
                                        "valloc",
                                        "pvalloc",
                                        "malloc_usable_size",
                                        "malloc_trim",
                                        "mallopt",
                                        "mallinfo",
                                        "mallinfo2",
                                        "malloc_info",
                                        "malloc_stats",
                                        "cfree"};
    Dl_info mine, theirs;
    char missing[512] = "";
    CHECK(dladdr(kit_symbol(RTLD_DEFAULT, "hak_usable_size"), &mine) != 0);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        void *symbol = dlsym(RTLD_DEFAULT, names[i]);
        if (symbol == NULL || dladdr(symbol, &theirs) == 0 || theirs.dli_fbase != mine.dli_fbase) {
            snprintf(missing + strlen(missing), sizeof missing - strlen(missing), " %s", names[i]);
        }
    }
    if (missing[0] != '\0') {
        FAIL("not the library's own:%s", missing);
    }
}

/* Gone from glibc's headers since 2.26; programs of before still call it. */
PRELOADED(cfree_frees)
{
    void (*cfree_call)(void *);
    *(void **)&cfree_call = kit_symbol(RTLD_DEFAULT, "cfree");
    errno = ERRNO_MARK;
    for (int i = 0; i < 10000; i++) {
        void *object = kit_keep(malloc(MIB));
        CHECK(object != NULL);
        memset(object, 1, MIB); /* 10 GiB, if it does not */
        cfree_call(object);
    }
    cfree_call(NULL);
    CHECK_EQ(errno, ERRNO_MARK);
}

/* The names under which programs that wrap malloc reach the C library's: whatever is behind them,
 * objects go back and forth between them and the usual ones. */
CONTRACT(the_c_librarys_inner_names_work_with_the_usual_ones)
{
    void *(*inner_malloc)(size_t);
    void *(*inner_calloc)(size_t, size_t);
    void *(*inner_realloc)(void *, size_t);
    void *(*inner_memalign)(size_t, size_t);
    void (*inner_free)(void *);
    *(void **)&inner_malloc = kit_symbol(RTLD_DEFAULT, "__libc_malloc");
    *(void **)&inner_calloc = kit_symbol(RTLD_DEFAULT, "__libc_calloc");
    *(void **)&inner_realloc = kit_symbol(RTLD_DEFAULT, "__libc_realloc");
    *(void **)&inner_memalign = kit_symbol(RTLD_DEFAULT, "__libc_memalign");
    *(void **)&inner_free = kit_symbol(RTLD_DEFAULT, "__libc_free");
    for (size_t i = 0; i < SOME_SIZES; i++) {
        size_t size = some_sizes[i] + 1;
        void *inner[] = {inner_malloc(size), inner_calloc(1, size), inner_memalign(256, size),
                         inner_realloc(malloc(10), size), realloc(inner_malloc(10), size)};
        void *usual[] = {malloc(size), calloc(1, size), memalign(256, size), strdup("usual")};
        for (size_t k = 0; k < sizeof inner / sizeof *inner; k++) {
            CHECK(kit_keep(inner[k]) != NULL);
            CHECK_GE(malloc_usable_size(inner[k]), size);
            memset(inner[k], 1, malloc_usable_size(inner[k]));
            free(inner[k]);
        }
        for (size_t k = 0; k < sizeof usual / sizeof *usual; k++) {
            CHECK(kit_keep(usual[k]) != NULL);
            inner_free(usual[k]);
        }
    }
}

/* NOLINTEND(clang-analyzer-unix.*,clang-analyzer-optin.*): as above. */

KIT_MAIN()
