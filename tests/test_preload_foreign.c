/* SPDX-License-Identifier: MIT */
/*
 * Pointers that are not the region's. Those of the C library's own malloc, had before the region
 * took over or past it, go back to the C library: its own figures (mallinfo2, asked of it by
 * handle) show that they arrive. Those that nobody gave out are misuse, said in a line of ours, and
 * never handed to the C library.
 */
#include "tests/preload_kit.h"

#include <sys/mman.h>

/* NOLINTBEGIN(clang-analyzer-unix.*,clang-analyzer-optin.*): objects pass through kit_keep,
 * where the analyser loses them, and size 0 is one of the sizes. */

/* ---- the C library's ------------------------------------------------------------------------- */

static struct {
    void *(*malloc)(size_t);
    void *(*calloc)(size_t, size_t);
    void *(*realloc)(void *, size_t);
    void *(*memalign)(size_t, size_t);
    struct mallinfo2 (*mallinfo2)(void);
} libc;

/* By the library's own handle: what is preloaded does not stand in front of it there. */
static void find_libc(void)
{
    void *handle = dlopen("libc.so.6", RTLD_LAZY | RTLD_NOLOAD);
    CHECK(handle != NULL);
    *(void **)&libc.malloc = kit_symbol(handle, "__libc_malloc");
    *(void **)&libc.calloc = kit_symbol(handle, "__libc_calloc");
    *(void **)&libc.realloc = kit_symbol(handle, "__libc_realloc");
    *(void **)&libc.memalign = kit_symbol(handle, "__libc_memalign");
    *(void **)&libc.mallinfo2 = kit_symbol(handle, "mallinfo2");
    void *probe = libc.malloc(100);
    CHECK(probe != NULL && !kit_in_region(probe));
    free(probe);
}

static size_t libc_in_use(void)
{
    struct mallinfo2 now = libc.mallinfo2();
    return now.uordblks + now.hblkhd;
}

/* Small, larger than a page, on both sides of where the C library begins to map (128 KiB). */
static const size_t libc_sizes[] = {1,     24,        100,    1000,    5000,
                                    70000, 127 << 10, 200000, 1 << 20, 9 << 20};
#define LIBC_SIZES (sizeof libc_sizes / sizeof *libc_sizes)
#define ROUNDS 100

static void *libc_object(size_t n, size_t bytes)
{
    void *object = n % 4 == 0   ? libc.malloc(bytes)
                   : n % 4 == 1 ? libc.calloc(1, bytes)
                   : n % 4 == 2 ? libc.realloc(libc.malloc(10), bytes)
                                : libc.memalign((size_t)16 << (n / 4 % 10), bytes);
    CHECK(object != NULL);
    CHECK(!kit_in_region(object));
    kit_fill(object, bytes, n);
    return object;
}

static void free_objects_of_libc(void)
{
    static void *held[LIBC_SIZES][ROUNDS];
    size_t before = libc_in_use();
    for (size_t i = 0; i < LIBC_SIZES; i++) {
        size_t rounds = libc_sizes[i] > MIB ? 2 : libc_sizes[i] > 128 * KIB ? 20 : ROUNDS;
        for (size_t n = 0; n < rounds; n++) {
            held[i][n] = libc_object(n, libc_sizes[i]);
        }
    }
    size_t full = libc_in_use();
    CHECK_GE(full - before, 50 * MIB);
    for (size_t i = 0; i < LIBC_SIZES; i++) {
        for (size_t n = 0; n < ROUNDS && held[i][n] != NULL; n++) {
            CHECK(kit_holds(held[i][n], libc_sizes[i], n));
            free(held[i][n]);
            held[i][n] = NULL;
        }
    }
    /* What is left is what its thread's cache holds: a few dozen small ones. */
    CHECK_LE(libc_in_use(), before + 256 * KIB);
}

PRELOADED(free_gives_the_c_librarys_objects_back_to_it)
{
    find_libc();
    free_objects_of_libc();
}

static void *in_an_arena_of_its_own(void *unused)
{
    (void)unused;
    free_objects_of_libc();
    return NULL;
}

/* A second thread's chunks lie in an arena that the C library mapped for it, not in the heap. */
PRELOADED(free_gives_objects_of_other_arenas_back)
{
    pthread_t threads[3];
    find_libc();
    for (int i = 0; i < 3; i++) {
        CHECK_EQ(pthread_create(&threads[i], NULL, in_an_arena_of_its_own, NULL), 0);
        CHECK_EQ(pthread_join(threads[i], NULL), 0);
    }
}

static void *of_other_thread[LIBC_SIZES];

static void *allocate_there(void *unused)
{
    (void)unused;
    for (size_t i = 0; i < LIBC_SIZES; i++) {
        of_other_thread[i] = libc_object(i, libc_sizes[i]);
    }
    return NULL;
}

PRELOADED(objects_of_other_arenas_are_freed_by_other_threads)
{
    pthread_t thread;
    find_libc();
    for (int round = 0; round < 30; round++) {
        CHECK_EQ(pthread_create(&thread, NULL, allocate_there, NULL), 0);
        CHECK_EQ(pthread_join(thread, NULL), 0);
        for (size_t i = 0; i < LIBC_SIZES; i++) {
            CHECK(kit_holds(of_other_thread[i], libc_sizes[i], i));
            free(of_other_thread[i]);
        }
    }
}

PRELOADED(usable_size_of_the_c_librarys_objects)
{
    find_libc();
    for (size_t i = 0; i < LIBC_SIZES; i++) {
        for (size_t n = 0; n < 20; n++) {
            void *object = libc_object(n, libc_sizes[i]);
            size_t usable = malloc_usable_size(object);
            CHECK_GE(usable, libc_sizes[i]);
            memset(object, 0x5a, usable);
            free(object);
        }
    }
}

PRELOADED(realloc_takes_the_c_librarys_objects)
{
    find_libc();
    size_t before = libc_in_use();
    for (size_t from = 0; from < LIBC_SIZES; from++) {
        for (size_t to = 0; to < LIBC_SIZES; to++) {
            size_t old_size = libc_sizes[from], size = libc_sizes[to];
            size_t kept = old_size < size ? old_size : size;
            unsigned char *object = (unsigned char *)libc_object(to, old_size);
            object[0] = 'a';
            object[kept - 1] = 'z';
            object = (unsigned char *)kit_keep(realloc(object, size));
            CHECK(object != NULL);
            CHECK(kept == 1 || object[0] == 'a');
            CHECK_EQ(object[kept - 1], 'z');
            CHECK_GE(malloc_usable_size(object), size);
            memset(object, 1, size);
            free(object);
        }
        CHECK(kit_keep(realloc(libc_object(from, libc_sizes[from]), 0)) == NULL);
        void *untouched = libc_object(from, 100);
        errno = 0;
        CHECK(kit_keep(realloc(kit_keep(untouched), kit_opaque(PTRDIFF_MAX))) == NULL);
        CHECK_EQ(errno, ENOMEM);
        CHECK(kit_holds(untouched, 100, from));
        free(untouched);
    }
    CHECK_LE(libc_in_use(), before + 256 * KIB);
}

/*
 * A second C library in a namespace of its own (dlmopen(3)) has a malloc of its own. Its large
 * objects, each a mapping, may be freed by anyone; its small ones only there: glibc itself aborts
 * over another copy's ("free(): invalid next size").
 */
CONTRACT(a_second_c_library_lives_beside_the_region)
{
    char *(*strdup_there)(const char *);
    void (*free_there)(void *);
    static char long_text[1 << 20];
    void *second = dlmopen(LM_ID_NEWLM, "libc.so.6", RTLD_NOW);
    if (second == NULL) {
        SKIP("dlmopen: %s", dlerror());
    }
    *(void **)&strdup_there = kit_symbol(second, "strdup");
    *(void **)&free_there = kit_symbol(second, "free");
    memset(long_text, 'x', sizeof long_text - 1);
    for (int i = 0; i < 200; i++) {
        char *word = strdup_there("text of the other library");
        char *text = strdup_there(long_text);
        CHECK(word != NULL && !kit_in_region(word));
        CHECK(text != NULL && !kit_in_region(text));
        CHECK_GE(malloc_usable_size(text), sizeof long_text);
        CHECK(strcmp(text, long_text) == 0);
        free(text);
        free_there(word);
    }
    kit_work(1, 5000);
}

/* ---- nobody's -------------------------------------------------------------------------------- */

static char of_the_program[4096] __attribute__((aligned(64))) = "static";

/* A page of its own with nothing before it: who looks for a header there dies. */
static char *lone_page(void)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    char *three = (char *)mmap(NULL, 3 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(three != MAP_FAILED);
    CHECK_EQ(mprotect(three + page, page, PROT_READ | PROT_WRITE), 0);
    return three + page;
}

static char *wild_pointer(const char *kind, char *on_stack)
{
    if (strcmp(kind, "stack") == 0) {
        return on_stack;
    }
    if (strcmp(kind, "static") == 0) {
        return of_the_program;
    }
    if (strcmp(kind, "lone-page") == 0) {
        return lone_page();
    }
    if (strcmp(kind, "unmapped") == 0) {
        return lone_page() - 64;
    }
    if (strcmp(kind, "low") == 0) {
        return (char *)kit_opaque(64);
    }
    if (strcmp(kind, "high") == 0) {
        return (char *)kit_opaque(SIZE_MAX - 63);
    }
    if (strcmp(kind, "code") == 0) {
        return (char *)kit_opaque((uintptr_t)wild_pointer & ~(uintptr_t)15);
    }
    if (strcmp(kind, "interior-large") == 0) {
        return &((char *)kit_keep(malloc(5 * MIB)))[3 * 65536];
    }
    CHECK_EQ(strcmp(kind, "interior-small"), 0);
    return &((char *)kit_keep(malloc(100)))[16];
}

/* A bad pointer of the region is noticed at the latest when its class's cache is sent back. */
static void send_caches_back(void)
{
    enum { COUNT = 50000 };
    static void *held[COUNT];
    for (int i = 0; i < COUNT; i++) {
        held[i] = kit_keep(malloc(100));
    }
    for (int i = 0; i < COUNT; i++) {
        free(held[i]);
    }
}

static const char *kit_kind(void)
{
    const char *kind = getenv("KIT_KIND");
    CHECK(kind != NULL);
    return kind;
}

INSIDE(wild_free)
{
    char on_stack[256] = "stack";
    free(kit_keep(wild_pointer(kit_kind(), (char *)kit_keep(on_stack + 64))));
    send_caches_back();
    puts("went on");
}

INSIDE(wild_realloc)
{
    char on_stack[256] = "stack";
    void *wild = kit_keep(wild_pointer(kit_kind(), (char *)kit_keep(on_stack + 64)));
    errno = 0;
    if (kit_keep(realloc(wild, 200)) == NULL) {
        CHECK_EQ(errno, EINVAL);
    }
    send_caches_back();
    puts("went on");
}

static const char *const wild_kinds[] = {"stack",         "static", "lone-page", "unmapped",
                                         "low",           "high",   "code",      "interior-large",
                                         "interior-small"};
#define WILD_KINDS (sizeof wild_kinds / sizeof *wild_kinds)

/* Adds to failures unless the child ended as the policy says, with one line of ours. */
static void check_report(const char *inside, const char *policy, const char *kind, char *failures,
                         size_t bytes)
{
    static struct harness_result result;
    char kind_setting[64], policy_setting[64];
    bool aborts = strcmp(policy, "abort") == 0;
    snprintf(kind_setting, sizeof kind_setting, "KIT_KIND=%s", kind);
    snprintf(policy_setting, sizeof policy_setting, "HAKMEM_MISUSE=%s", policy);
    const char *const settings[] = {kind_setting, policy_setting, NULL};
    kit_inside(inside, KIT_HAKMEM, settings, &result);
    const char *line = strstr(result.output, "hakmem: misuse");
    bool one_line = line != NULL && strstr(line + 1, "hakmem: misuse") == NULL;
    bool ended = aborts ? result.signal == SIGABRT : result.exit_status == 0;
    bool went_on = strstr(result.output, "went on") != NULL;
    size_t used = strlen(failures);
    if (!one_line || !ended || went_on == aborts) {
        snprintf(failures + used, bytes - used, "\n%s, %s: exit status %d, signal %d: %.200s",
                 inside, kind, result.exit_status, result.signal, result.output);
    }
}

static void check_reports(const char *policy)
{
    char failures[2000] = "";
    for (size_t i = 0; i < WILD_KINDS; i++) {
        check_report("wild_free", policy, wild_kinds[i], failures, sizeof failures);
        check_report("wild_realloc", policy, wild_kinds[i], failures, sizeof failures);
    }
    if (failures[0] != '\0') {
        FAIL("%s", failures + 1);
    }
}

TEST(a_pointer_that_nobody_gave_out_is_reported)
{
    check_reports("abort");
}

TEST(misuse_reported_is_no_end)
{
    check_reports("report");
}

INSIDE(wild_usable_size)
{
    char on_stack[256] = "stack";
    void *wild = kit_keep(wild_pointer(kit_kind(), (char *)kit_keep(on_stack + 64)));
    CHECK_EQ(malloc_usable_size(wild), 0);
}

/* malloc_usable_size of what is no object is 0, not a guess and not a crash. */
TEST(usable_size_of_nobodys_pointers_is_0)
{
    static struct harness_result result;
    for (size_t i = 0; i < WILD_KINDS; i++) {
        char kind[64];
        snprintf(kind, sizeof kind, "KIT_KIND=%s", wild_kinds[i]);
        const char *const settings[] = {kind, NULL};
        kit_inside("wild_usable_size", KIT_HAKMEM, settings, &result);
        kit_expect_ok(&result, wild_kinds[i]);
    }
}

/* NOLINTEND(clang-analyzer-unix.*,clang-analyzer-optin.*): as above. */

KIT_MAIN()
