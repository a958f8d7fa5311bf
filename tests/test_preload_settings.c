/* SPDX-License-Identifier: MIT */
/*
 * What the environment says to a preloaded program: the region's size and pages, memory taken at
 * the start or as it is used, what happens when the region is full, and values that make no sense.
 */
#include "tests/preload_kit.h"

/* NOLINTBEGIN(clang-analyzer-unix.*,clang-analyzer-optin.*): objects pass through kit_keep,
 * where the analyser loses them, and size 0 is one of the sizes. */

#define SMALL "HAKMEM_REGION_SIZE=8M", "HAKMEM_PAGES=4k", "HAKMEM_PREFAULT=0"
#define ERRNO_MARK 4095

static unsigned lines_with(const char *text, const char *word)
{
    unsigned count = 0;
    for (const char *at = strstr(text, word); at != NULL; at = strstr(at + 1, word)) {
        count++;
    }
    return count;
}

/* ---- values that make no sense --------------------------------------------------------------- */

/* Whoever has no main has no constructors of its own either, so nothing but the line is said. */
INSIDE(says_that_it_started)
{
    puts("main was reached");
}

TEST(a_value_that_cannot_be_understood_ends_the_program_before_main)
{
    static const char *const bad[] = {"HAKMEM_REGION_SIZE=lots", "HAKMEM_REGION_SIZE=-5M",
                                      "HAKMEM_REGION_SIZE=12Q",  "HAKMEM_PAGES=3M",
                                      "HAKMEM_PAGES=2M,",        "HAKMEM_PAGES=thp;4k",
                                      "HAKMEM_PREFAULT=maybe",   "HAKMEM_PREFAULT=2",
                                      "HAKMEM_EXHAUSTED=panic",  "HAKMEM_EXHAUSTED=libc,fail",
                                      "HAKMEM_NODES=0-",         "HAKMEM_NODES=64",
                                      "HAKMEM_NODES=some",       "HAKMEM_VERIFY=perhaps",
                                      "HAKMEM_MISUSE=shout",     "HAKMEM_TINY_PAGE_BOX_CLASSES=0",
                                      "HAKMEM_WARM_POOL=warm",   "HAKMEM_WARM_POOL_STATS=x",
                                      "HAKMEM_LAYERS=cake"};
    static struct harness_result r;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        const char *const settings[] = {bad[i], NULL};
        char name[64];
        snprintf(name, sizeof name, "%.*s", (int)strcspn(bad[i], "="), bad[i]);
        kit_inside("says_that_it_started", KIT_HAKMEM, settings, &r);
        const char *end = strchr(r.output, '\n');
        if (r.exit_status != 127 || strncmp(r.output, "hakmem: ", 8) != 0 || end == NULL ||
            end[1] != '\0' || strstr(r.output, name) == NULL) {
            FAIL("%s: exit status %d, signal %d, and not one line that names it:\n%s", bad[i],
                 r.exit_status, r.signal, r.output);
        }
    }
}

/* More than any machine reserves: a list of one page size is strict. The commands that would
 * provide them may stand in further lines. */
TEST(huge_pages_that_are_not_there_end_the_program_before_main)
{
    static const char *const settings[] = {"HAKMEM_PAGES=2M", "HAKMEM_REGION_SIZE=1T", NULL};
    static struct harness_result r;
    kit_inside("says_that_it_started", KIT_HAKMEM, settings, &r);
    if (r.exit_status != 127 || strncmp(r.output, "hakmem: ", 8) != 0 ||
        strstr(r.output, "main was") != NULL || lines_with(r.output, "hakmem: ") != 1) {
        FAIL("exit status %d, signal %d: %s", r.exit_status, r.signal, r.output);
    }
}

TEST(a_number_out_of_its_range_is_cut_down_with_a_line)
{
    static const char *const settings[] = {"HAKMEM_REGION_SIZE=1", NULL};
    static struct harness_result r;
    kit_inside("says_that_it_started", KIT_HAKMEM, settings, &r);
    kit_expect_ok(&r, "HAKMEM_REGION_SIZE=1");
    CHECK_EQ(lines_with(r.output, "hakmem: "), 1);
    CHECK_STR_HAS(r.output, "HAKMEM_REGION_SIZE=1 is less than 2M");
    CHECK_STR_HAS(r.output, "main was reached");
}

/* An empty variable is one that is not set. */
PRELOADED(empty_values_are_not_set, "HAKMEM_REGION_SIZE=", "HAKMEM_PAGES=", "HAKMEM_PREFAULT=",
          "HAKMEM_EXHAUSTED=", "HAKMEM_MISUSE=")
{
    kit_work(1, 1000);
}

TEST(good_settings_say_nothing)
{
    static const char *const settings[] = {"HAKMEM_REGION_SIZE=64MiB", "HAKMEM_PAGES=thp,4k",
                                           "HAKMEM_PREFAULT=1",        "HAKMEM_EXHAUSTED=any-node",
                                           "HAKMEM_NODES=all",         NULL};
    static struct harness_result r;
    kit_inside("says_that_it_started", KIT_HAKMEM, settings, &r);
    kit_expect_ok(&r, "good settings");
    CHECK_EQ(strcmp(r.output, "main was reached\n"), 0);
}

/* ---- size and pages -------------------------------------------------------------------------- */

static void *filling[200000];

/* Objects of so many bytes until there are no more. */
static size_t fill_region(size_t bytes)
{
    for (size_t count = 0; count < 200000; count++) {
        filling[count] = kit_keep(malloc(bytes));
        if (filling[count] == NULL) {
            return count;
        }
        CHECK(kit_in_region(filling[count]));
    }
    FAIL("200,000 objects of %zu bytes, and still room", bytes);
}

static void free_filling(size_t count)
{
    while (count > 0) {
        free(filling[--count]);
    }
}

PRELOADED(the_region_has_the_size_that_was_asked_for, "HAKMEM_REGION_SIZE=64M", "HAKMEM_PAGES=4k",
          "HAKMEM_PREFAULT=0")
{
    static const size_t sizes[] = {1000, 16000, 100000, 1 << 20};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        size_t count = fill_region(sizes[i]);
        CHECK_LE(count * sizes[i], 64 * MIB);
        CHECK_GE(count * sizes[i], 50 * MIB);
        free_filling(count);
    }
}

PRELOADED(with_prefault_memory_is_taken_at_the_start_and_kept, "HAKMEM_REGION_SIZE=64M",
          "HAKMEM_PAGES=4k", "HAKMEM_PREFAULT=1")
{
    struct rusage usage;
    CHECK_GE(kit_status_kib("VmRSS:"), 64 * 1024);
    kit_work(1, 100);
    getrusage(RUSAGE_SELF, &usage);
    long before = usage.ru_minflt;
    for (int round = 0; round < 3; round++) {
        size_t count = fill_region(16000);
        for (size_t i = 0; i < count; i++) {
            memset(filling[i], 1, 16000);
        }
        free_filling(count);
        malloc_trim(0);
    }
    getrusage(RUSAGE_SELF, &usage);
    CHECK_LE(usage.ru_minflt - before, 64); /* the program's own; 16,384 pages were written */
    CHECK_GE(kit_status_kib("VmRSS:"), 64 * 1024);
}

/* Of 200 MiB that were used, most go back without being asked for by malloc_trim. */
PRELOADED(without_prefault_memory_is_taken_as_it_is_used_and_given_back)
{
    static void *held[200];
    long start = kit_status_kib("VmRSS:");
    CHECK_LE(start, 8 * 1024);
    for (int i = 0; i < 200; i++) {
        held[i] = kit_keep(malloc(MIB));
        CHECK(held[i] != NULL);
        memset(held[i], 1, MIB);
    }
    CHECK_GE(kit_status_kib("VmRSS:"), start + 200 * 1024);
    for (int i = 0; i < 200; i++) {
        free(held[i]);
    }
    CHECK_LE(kit_status_kib("VmRSS:"), start + 100 * 1024);
    malloc_trim(0);
    CHECK_LE(kit_status_kib("VmRSS:"), start + 20 * 1024);
    /* What comes again is zeroed where that is promised. */
    for (int i = 0; i < 200; i++) {
        held[i] = kit_keep(calloc(1, MIB));
        CHECK(held[i] != NULL && kit_zeroed(held[i], MIB));
    }
}

/* KiB that the kernel backs with huge pages. */
static long huge_kib(void)
{
    char line[256];
    long total = 0;
    FILE *file = fopen("/proc/self/smaps", "r");
    CHECK(file != NULL);
    while (fgets(line, sizeof line, file) != NULL) {
        if (strncmp(line, "AnonHugePages:", 14) == 0) {
            total += strtol(line + 14, NULL, 10);
        }
    }
    fclose(file);
    return total;
}

static void *use(size_t bytes)
{
    void *object = kit_keep(malloc(bytes));
    CHECK(object != NULL);
    memset(object, 1, bytes);
    return object;
}

PRELOADED(small_pages_stay_small, "HAKMEM_PAGES=4k")
{
    free(use(160 * MIB));
    void *object = use(160 * MIB);
    CHECK_EQ(huge_kib(), 0);
    free(object);
}

/* Where the kernel may give them. */
static void need_huge_pages(void)
{
    char enabled[100] = "";
    FILE *file = fopen("/sys/kernel/mm/transparent_hugepage/enabled", "r");
    if (file == NULL || fgets(enabled, sizeof enabled, file) == NULL ||
        strstr(enabled, "[never]") != NULL) {
        SKIP("no transparent huge pages here: %s", enabled);
    }
    fclose(file);
}

/* Memory may be too fragmented for all of them. */
PRELOADED(a_large_program_gets_huge_pages_by_default)
{
    need_huge_pages();
    void *first = use(100 * MIB);
    CHECK_EQ(huge_kib(), 0);
    void *second = use(40 * MIB);
    CHECK_GE(huge_kib(), 16 * 1024);
    free(first);
    free(second);
}

PRELOADED(a_program_in_a_small_region_stays_on_small_pages_by_default, "HAKMEM_REGION_SIZE=50M")
{
    need_huge_pages();
    void *object = use(40 * MIB);
    CHECK_EQ(huge_kib(), 0);
    free(object);
}

/* On huge pages each touch would be 2 MiB. */
PRELOADED(a_large_object_that_is_hardly_touched_stays_small)
{
    long start = kit_status_kib("VmRSS:");
    need_huge_pages();
    char *object = kit_keep(calloc(1, 1024 * MIB));
    CHECK(object != NULL);
    for (size_t n = 0; n < 200; n++) {
        object[n * 5 * MIB] = 1;
    }
    CHECK_EQ(huge_kib(), 0);
    CHECK_LE(kit_status_kib("VmRSS:"), start + 4 * 1024);
    free(object);
}

PRELOADED(huge_pages_that_were_asked_for_come_at_once, "HAKMEM_PAGES=thp")
{
    need_huge_pages();
    void *object = use(40 * MIB);
    CHECK_GE(huge_kib(), 16 * 1024);
    free(object);
}

PRELOADED(huge_pages_come_with_many_small_objects_too)
{
    static void *held[200000];
    need_huge_pages();
    for (int i = 0; i < 200000; i++) {
        held[i] = use(1000);
    }
    CHECK_GE(huge_kib(), 16 * 1024);
    for (int i = 0; i < 200000; i++) {
        free(held[i]);
    }
}

/* ---- a full region --------------------------------------------------------------------------- */

static void check_full_and_empty_again(void)
{
    for (int round = 0; round < 3; round++) {
        errno = 0;
        size_t count = fill_region(1000);
        CHECK_EQ(errno, ENOMEM);
        CHECK_GE(count, 6000);
        errno = 0;
        CHECK(kit_keep(malloc(1000)) == NULL && errno == ENOMEM);
        errno = 0;
        CHECK(kit_keep(calloc(100, 1000)) == NULL && errno == ENOMEM);
        errno = 0;
        CHECK(kit_keep(realloc(kit_keep(filling[0]), 20 * MIB)) == NULL && errno == ENOMEM);
        errno = 0;
        CHECK(kit_keep(aligned_alloc(MIB, MIB)) == NULL && errno == ENOMEM);
        free_filling(count);
        void *half = kit_keep(malloc(4 * MIB));
        CHECK(half != NULL);
        free(half);
    }
}

PRELOADED(a_full_region_gives_NULL_and_ENOMEM_by_default, SMALL)
{
    check_full_and_empty_again();
}

PRELOADED(a_full_region_gives_NULL_and_ENOMEM_with_fail, SMALL, "HAKMEM_EXHAUSTED=fail")
{
    check_full_and_empty_again();
}

/* ---- the C library as a last resort ---------------------------------------------------------- */

#define LIBC SMALL, "HAKMEM_EXHAUSTED=libc"
#define MANY 30000

static void *many[MANY];
static size_t outside;

/* 30 MB in a region of 8 MiB; how many are not the region's. */
static void hold_many(void)
{
    for (size_t i = 0; i < MANY; i++) {
        many[i] = kit_keep(malloc(1000));
        CHECK(many[i] != NULL);
        kit_fill(many[i], 1000, i);
        outside += !kit_in_region(many[i]);
    }
    CHECK_GE(outside, MANY - 8389);
    CHECK_LE(outside, MANY - 5000);
}

static void free_many(void)
{
    for (size_t i = 0; i < MANY; i++) {
        CHECK(kit_holds(many[i], 1000, i));
        CHECK_GE(malloc_usable_size(many[i]), 1000);
        free(many[i]);
    }
}

INSIDE(goes_on_from_libc)
{
    hold_many();
    printf("%zu outside\n", outside);
    free_many();
    kit_work(1, 2000);
}

/* One line when it happens, and at the end how much it was. */
TEST(when_the_region_is_full_the_c_library_stands_in_and_that_is_said_once)
{
    static const char *const settings[] = {LIBC, NULL};
    static struct harness_result r;
    unsigned long printed = 0, counted = 0;
    kit_inside("goes_on_from_libc", KIT_HAKMEM, settings, &r);
    kit_expect_ok(&r, "HAKMEM_EXHAUSTED=libc");
    CHECK_LE(lines_with(r.output, "hakmem: "), 2);
    const char *line = strstr(r.output, "hakmem: ");
    CHECK(line != NULL && strstr(line, "HAKMEM_EXHAUSTED=libc") != NULL);
    CHECK_EQ(lines_with(r.output, "HAKMEM_EXHAUSTED=libc"), 1);
    const char *number = strstr(r.output, " outside");
    const char *sum = strstr(line + 1, "hakmem: ");
    CHECK(number != NULL && sum != NULL);
    while (number > r.output && number[-1] >= '0' && number[-1] <= '9') {
        number--;
    }
    printed = strtoul(number, NULL, 10);
    counted = strtoul(sum + 8, NULL, 10);
    CHECK_GE(counted, printed);
}

PRELOADED(errno_is_kept_where_the_c_library_helps_out, LIBC)
{
    errno = ERRNO_MARK;
    for (size_t i = 0; i < MANY; i++) {
        many[i] = i % 3 == 0   ? kit_keep(malloc(1000))
                  : i % 3 == 1 ? kit_keep(calloc(10, 100))
                               : kit_keep(memalign(64, 1000));
        CHECK(many[i] != NULL);
        CHECK_EQ(errno, ERRNO_MARK);
    }
    for (size_t i = 0; i < MANY; i++) {
        free(many[i]);
        CHECK_EQ(errno, ERRNO_MARK);
    }
}

PRELOADED(a_region_that_has_room_again_is_used_again, LIBC)
{
    hold_many();
    free_many();
    size_t ours = 0;
    for (size_t i = 0; i < 5000; i++) {
        many[i] = kit_keep(malloc(1000));
        ours += kit_in_region(many[i]);
    }
    CHECK_GE(ours, 4000);
    for (size_t i = 0; i < 5000; i++) {
        free(many[i]);
    }
}

PRELOADED(all_calls_go_on_from_the_c_library, LIBC)
{
    hold_many();
    for (size_t size = 1; size < 3 * MIB; size = size * 3 + 7) {
        for (int round = 0; round < 4; round++) {
            void *dirty = kit_keep(malloc(size));
            memset(dirty, 0xa5, size);
            free(dirty);
            void *clear = kit_keep(calloc(1, size));
            CHECK(clear != NULL && kit_zeroed(clear, size));
            void *aligned = kit_keep(memalign(4096, size));
            CHECK(aligned != NULL && ((uintptr_t)aligned & 4095) == 0);
            void *by_posix = NULL;
            CHECK_EQ(posix_memalign(&by_posix, 64 * KIB, size), 0);
            CHECK_EQ((uintptr_t)by_posix & 65535, 0);
            void *page = kit_keep(pvalloc(size));
            CHECK(page != NULL && ((uintptr_t)page & 4095) == 0);
            void *grown = kit_keep(reallocarray(NULL, size, 2));
            CHECK(grown != NULL);
            CHECK_GE(malloc_usable_size(aligned), size);
            memset(aligned, 1, malloc_usable_size(aligned));
            free(clear), free(aligned), free(by_posix), free(page), free(grown);
        }
    }
    errno = 0;
    CHECK(kit_keep(malloc(kit_opaque(PTRDIFF_MAX))) == NULL && errno == ENOMEM);
}

/* From the region to the C library, and back when there is room. */
PRELOADED(realloc_moves_out_of_the_region_and_back, LIBC)
{
    hold_many();
    for (size_t i = 0; i < 500; i++) {
        many[i] = kit_keep(realloc(many[i], 40000));
        CHECK(many[i] != NULL);
        for (size_t at = 0; at < 999; at++) {
            CHECK_EQ(((unsigned char *)many[i])[at], (unsigned char)(i * 31 + at));
        }
        kit_fill(many[i], 40000, i);
    }
    CHECK(!kit_in_region(many[499]));
    for (size_t i = 500; i < MANY; i++) {
        free(many[i]);
    }
    size_t back = 0;
    for (size_t i = 0; i < 500; i++) {
        CHECK(kit_holds(many[i], 40000, i));
        void *object = kit_keep(realloc(many[i], i % 2 ? 100 : 70000));
        CHECK(object != NULL);
        CHECK_EQ(*(unsigned char *)object, (unsigned char)(i * 31));
        back += kit_in_region(object);
        CHECK(i % 2 == 0 || kit_keep(realloc(object, 0)) == NULL);
        if (i % 2 == 0) {
            free(object);
        }
    }
    printf("%zu came back\n", back);
}

static void *work_there(void *argument)
{
    for (int round = 0; round < 20; round++) {
        kit_work((uintptr_t)argument + (uintptr_t)round, 1000);
    }
    return NULL;
}

PRELOADED(threads_and_children_work_from_a_full_region, LIBC)
{
    pthread_t threads[4];
    hold_many();
    for (uintptr_t i = 0; i < 4; i++) {
        CHECK_EQ(pthread_create(&threads[i], NULL, work_there, (void *)(i * 100)), 0);
    }
    for (int round = 0; round < 10; round++) {
        int status = 0;
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            free_many();
            kit_work((uint64_t)round, 300);
            exit(0);
        }
        CHECK_EQ(waitpid(child, &status, 0), child);
        CHECK_EQ(status, 0);
    }
    for (int i = 0; i < 4; i++) {
        CHECK_EQ(pthread_join(threads[i], NULL), 0);
    }
    free_many();
}

static void *cancelled_before_it_is_full(void *unused)
{
    (void)unused;
    CHECK_EQ(pthread_cancel(pthread_self()), 0);
    hold_many();
    return many;
}

/* write(2) is a cancellation point, and the line is written inside malloc. */
PRELOADED(the_line_is_no_cancellation_point, LIBC)
{
    pthread_t thread;
    void *result = NULL;
    CHECK_EQ(pthread_create(&thread, NULL, cancelled_before_it_is_full, NULL), 0);
    CHECK_EQ(pthread_join(thread, &result), 0);
    CHECK(result == (void *)many);
    free_many();
}

/* Standard error may be closed, or a pipe that nobody reads. */
PRELOADED(the_line_harms_nobody_who_cannot_read_it, LIBC)
{
    int ends[2];
    CHECK_EQ(pipe(ends), 0);
    close(ends[0]);
    signal(SIGPIPE, SIG_IGN);
    CHECK(dup2(ends[1], STDERR_FILENO) >= 0);
    hold_many();
    free_many();
}

/* NOLINTEND(clang-analyzer-unix.*,clang-analyzer-optin.*): as above. */

KIT_MAIN()
