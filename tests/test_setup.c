/* SPDX-License-Identifier: MIT */
/*
 * Set-up and its errors as the public header documents them: regions that cannot be, calls before
 * init and after fini, a region's end while other threads know it, and what is left behind.
 */
#define _GNU_SOURCE
#include "numa/topology.h"
#include "tests/region_kit.h"

#include <dirent.h>
#include <sched.h>

static int on_exit_unused;

/* The record of a set-up error: its code, and a message with these words in it. */
static void check_said(int code, int expected, const char *words)
{
    struct hak_error error;
    CHECK_EQ(code, expected);
    CHECK_EQ(hak_last_error(&error), expected);
    CHECK_EQ(error.code, expected);
    CHECK_EQ(error.kind, HAK_ERROR_SETUP);
    CHECK_STR_HAS(error.message, words);
}

/* ---- order of calls -------------------------------------------------------------------------- */

TEST(init_twice_is_refused_and_harmless)
{
    kit_open(8 * MIB, HAK_OFF);
    hak_region *region = hak_region_default();
    CHECK(region != NULL);
    void *object = hak_malloc(100);
    CHECK(object != NULL);
    struct hak_config config = kit_config(16 * MIB, HAK_PAGES_4K, HAK_OFF);
    check_said(hak_region_init(&config), -EALREADY, "hak_region_fini");
    check_said(hak_region_init(NULL), -EALREADY, "exists");
    CHECK(hak_region_default() == region);
    CHECK_GE(hak_usable_size(object), 100);
    hak_free(object);
    kit_close();
}

TEST(fini_without_init_is_refused)
{
    kit_close();
    check_said(hak_region_fini(), -ENODEV, "no default region");
    kit_open(8 * MIB, HAK_OFF);
    CHECK_EQ(hak_region_fini(), 0);
    check_said(hak_region_fini(), -ENODEV, "no default region");
}

static void refused(const void *object, int code)
{
    struct hak_error error;
    int seen = errno;
    CHECK(object == NULL);
    CHECK_EQ(seen, code);
    CHECK_EQ(hak_last_error(&error), -code);
    CHECK_EQ(error.kind, code == EINVAL ? HAK_ERROR_ARGUMENT : HAK_ERROR_NO_REGION);
    errno = 0;
}

/* Every call of the header while there is no default region. */
static void calls_without_a_region(void)
{
    void *out[4] = {NULL};
    int on_stack = 0;
    struct hak_stats stats;
    struct hak_node_stats node;
    struct hak_class_stats cls;

    errno = 0;
    refused(hak_malloc(64), ENOMEM);
    refused(hak_malloc(0), ENOMEM);
    refused(hak_malloc(5000), ENOMEM);
    refused(hak_malloc(unseen(3 * MIB)), ENOMEM);
    refused(hak_malloc(unseen(SIZE_MAX)), ENOMEM);
    refused(hak_calloc(3, 64), ENOMEM);
    refused(hak_calloc(unseen(SIZE_MAX), 64), ENOMEM);
    refused(hak_realloc(NULL, 64), ENOMEM);
    refused(hak_realloc(&on_stack, 64), ENOMEM);
    refused(hak_aligned_alloc(64, 64), ENOMEM);
    refused(hak_aligned_alloc(4 * MIB, 64), ENOMEM);
    refused(hak_malloc_on_node(64, 0), ENOMEM);
    refused(hak_region_malloc(NULL, 64), ENOMEM);
    refused(hak_region_calloc(NULL, 1, 64), ENOMEM);
    refused(hak_region_realloc(NULL, NULL, 64), ENOMEM);
    refused(hak_region_aligned_alloc(NULL, 64, 64), ENOMEM);
    refused(hak_region_malloc_on_node(NULL, 64, 0), ENOMEM);
    CHECK_EQ(hak_malloc_bulk(64, 4, out), 0);
    CHECK_EQ(errno, ENOMEM);
    CHECK_EQ(hak_region_malloc_bulk(NULL, 64, 4, out), 0);
    errno = 4711;
    hak_free(NULL);
    hak_free(&on_stack);
    hak_free_sized(&on_stack, 4);
    out[1] = &on_stack;
    hak_free_bulk(out, 4);
    hak_region_free(NULL, &on_stack);
    hak_region_free_bulk(NULL, out, 4);
    CHECK_EQ(errno, 4711);
    CHECK_EQ(hak_usable_size(&on_stack), 0);
    CHECK_EQ(hak_region_usable_size(NULL, &on_stack), 0);
    CHECK_EQ(hak_region_stats(NULL, &stats), -ENODEV);
    CHECK_EQ(hak_region_node_stats(NULL, 0, &node), -ENODEV);
    CHECK_EQ(hak_region_class_stats(NULL, 1, &cls), -ENODEV);
    CHECK_EQ(hak_on_exhausted(NULL, NULL, NULL), -ENODEV);
    CHECK(hak_region_default() == NULL);
    hak_thread_idle();
}

TEST(calls_before_init_and_after_fini_fail_cleanly)
{
    kit_close();
    calls_without_a_region();
    kit_open(8 * MIB, HAK_ON);
    void *object = hak_malloc(100);
    CHECK(object != NULL);
    hak_free(object);
    kit_close();
    calls_without_a_region();
}

TEST(a_bad_alignment_is_einval_without_a_region_too)
{
    kit_close();
    errno = 0;
    CHECK(hak_aligned_alloc(unseen(24), 64) == NULL);
    CHECK_EQ(errno, EINVAL);
}

/* ---- arguments ------------------------------------------------------------------------------- */

TEST(null_arguments_are_refused)
{
    struct hak_config config = kit_config(4 * MIB, HAK_PAGES_4K, HAK_OFF);
    struct hak_node_stats node;
    struct hak_class_stats cls;
    check_said(hak_region_create(&config, NULL), -EINVAL, "NULL");
    check_said(hak_region_create(NULL, NULL), -EINVAL, "NULL");
    CHECK_EQ(hak_last_error(NULL), -EINVAL);
    check_said(hak_region_destroy(NULL), -EINVAL, "hak_region_destroy");
    kit_open(4 * MIB, HAK_OFF);
    CHECK_EQ(hak_region_stats(NULL, NULL), -EINVAL);
    CHECK_EQ(hak_region_node_stats(NULL, 0, NULL), -EINVAL);
    CHECK_EQ(hak_region_class_stats(NULL, 1, NULL), -EINVAL);
    CHECK_EQ(hak_region_node_stats(NULL, 64, &node), -EINVAL);
    CHECK_EQ(hak_region_node_stats(NULL, UINT32_MAX, &node), -EINVAL);
    CHECK_EQ(hak_region_class_stats(NULL, 0, &cls), -EINVAL);
    CHECK_EQ(hak_region_class_stats(NULL, hak_class_count() + 1, &cls), -EINVAL);
    CHECK_EQ(hak_region_class_stats(NULL, hak_class_count(), &cls), 0);
    CHECK_EQ(hak_on_exhausted(NULL, NULL, NULL), 0);
    kit_close();
}

TEST(destroy_takes_live_created_regions_only)
{
    static char not_a_region[sizeof(struct hak_region)];
    kit_open(4 * MIB, HAK_OFF);
    check_said(hak_region_destroy(hak_region_default()), -EINVAL, "not a live region");
    check_said(hak_region_destroy((hak_region *)(void *)not_a_region), -EINVAL, "not a live");
    hak_region *region = kit_create(4 * MIB, HAK_OFF);
    kit_destroy(region);
    check_said(hak_region_destroy(region), -EINVAL, "not a live region");
    CHECK(hak_region_default() != NULL);
    kit_close();
}

/* Both set-up calls refuse it, and neither leaves a region. */
static void both_refuse(const struct hak_config *config, int expected, const char *words)
{
    hak_region *region = (hak_region *)(void *)&on_exit_unused;
    kit_close();
    check_said(hak_region_init(config), expected, words);
    CHECK(hak_region_default() == NULL);
    check_said(hak_region_create(config, &region), expected, words);
    CHECK(region == NULL);
}

TEST(sizes_that_no_region_can_have_are_refused)
{
    const size_t small[] = {1, 4096, 65536, HAK_SUPERSLAB_BYTES - 1};
    const size_t large[] = {HAK_REGION_BYTES_MAX + 1, 2 * HAK_REGION_BYTES_MAX,
                            SIZE_MAX - HAK_SUPERSLAB_BYTES, SIZE_MAX};
    for (size_t n = 0; n < sizeof small / sizeof *small; n++) {
        struct hak_config config = kit_config(small[n], HAK_PAGES_4K, HAK_OFF);
        both_refuse(&config, -EINVAL, "SuperSlab");
    }
    for (size_t n = 0; n < sizeof large / sizeof *large; n++) {
        struct hak_config config = kit_config(large[n], HAK_PAGES_4K, HAK_OFF);
        both_refuse(&config, -E2BIG, "too large");
    }
}

TEST(sizes_are_rounded_up_to_superslabs)
{
    const size_t some[] = {HAK_SUPERSLAB_BYTES, HAK_SUPERSLAB_BYTES + 1, 3 * MIB,
                           5 * HAK_SUPERSLAB_BYTES - 1};
    for (size_t n = 0; n < sizeof some / sizeof *some; n++) {
        struct hak_config config = kit_config(some[n], HAK_PAGES_4K, HAK_ON);
        config.nodes = 1;
        kit_open_config(&config);
        struct hak_stats stats = kit_stats(NULL);
        CHECK_GE(stats.size_bytes, some[n]);
        CHECK_LE(stats.size_bytes, some[n] + HAK_SUPERSLAB_BYTES - 1);
        CHECK_EQ(stats.size_bytes % HAK_SUPERSLAB_BYTES, 0);
        CHECK_EQ(stats.pages, HAK_PAGES_4K);
        CHECK(hak_malloc(100) != NULL);
        kit_close();
    }
}

TEST(fields_that_make_no_sense_are_named)
{
    const struct hak_config good = kit_config(4 * MIB, HAK_PAGES_4K, HAK_OFF);
    struct hak_config bad = good;
    bad.pages[0] = (enum hak_pages)unseen(99);
    both_refuse(&bad, -EINVAL, "pages");
    bad = good;
    bad.prefault = (enum hak_switch)unseen(7);
    both_refuse(&bad, -EINVAL, "prefault");
    bad = good;
    bad.misuse = (enum hak_misuse)unseen(9);
    both_refuse(&bad, -EINVAL, "misuse");
    bad = good;
    bad.exhausted = (enum hak_exhausted)unseen(9);
    both_refuse(&bad, -EINVAL, "exhausted");
    for (int n = 0; n < 4; n++) {
        bad = good;
        bad.reserved[n] = 1;
        both_refuse(&bad, -EINVAL, "reserved");
    }
}

TEST(nodes_that_do_not_exist_are_named)
{
    static struct topology topology;
    CHECK_EQ(topology_read(&topology), 0);
    for (int node = 0; node < HAK_NODES_MAX; node++) {
        if (topology.nodes[node].exists) {
            continue;
        }
        char words[32];
        struct hak_config config = kit_config(4 * MIB, HAK_PAGES_4K, HAK_OFF);
        snprintf(words, sizeof words, "node %d", node);
        config.nodes = (uint64_t)1 << node;
        both_refuse(&config, -ENODEV, words);
        config.nodes |= topology_memory_mask(&topology);
        both_refuse(&config, -ENODEV, words);
    }
}

/* ---- pages that cannot be had ---------------------------------------------------------------- */

static void cannot_be_had(size_t bytes, enum hak_pages pages, const char *needs)
{
    struct hak_config config = kit_config(bytes, pages, HAK_ON);
    struct hak_error error;
    config.nodes = 1;
    both_refuse(&config, -ENOMEM, needs);
    CHECK_EQ(hak_last_error(&error), -ENOMEM);
    CHECK_STR_HAS(error.message, "node 0 needs");
    CHECK_STR_HAS(error.message, "missing");
}

TEST(huge_pages_that_this_machine_cannot_make_are_told)
{
    cannot_be_had(512 * GIB, HAK_PAGES_2M, "2M pages: node 0 needs 262144");
    cannot_be_had(1024 * GIB, HAK_PAGES_1G, "1G pages: node 0 needs 1024");
}

TEST(more_memory_than_there_is_is_told_before_it_is_touched)
{
    cannot_be_had(1024 * GIB, HAK_PAGES_4K, "4k pages: node 0 needs 1048576 MiB");
    cannot_be_had(1024 * GIB, HAK_PAGES_THP, "thp pages: node 0 needs 1048576 MiB");
}

static size_t kernel_number(const char *path)
{
    unsigned long long number = 0;
    FILE *file = fopen(path, "r");
    if (file == NULL || fscanf(file, "%llu", &number) != 1) {
        SKIP("%s cannot be read: no 2M pages here", path);
    }
    fclose(file);
    return (size_t)number;
}

TEST(huge_pages_that_could_be_made_come_with_the_command)
{
    const char pages[] = "/sys/kernel/mm/hugepages/hugepages-2048kB/";
    char path[128], total[128];
    struct hak_error error;
    snprintf(path, sizeof path, "%snr_overcommit_hugepages", pages);
    if (kernel_number(path) != 0) {
        SKIP("the kernel makes 2M pages as they are asked for");
    }
    snprintf(total, sizeof total, "%snr_hugepages", pages);
    size_t wanted = kernel_number(total) + 64; /* more than there are, whoever has them */
    cannot_be_had(wanted * 2 * MIB, HAK_PAGES_2M, "2M pages: node 0 needs");
    (void)hak_last_error(&error);
    CHECK_STR_HAS(error.remedy, "echo ");
    CHECK_STR_HAS(error.remedy, "/node0/hugepages/hugepages-2048kB/nr_hugepages");
}

TEST(a_list_falls_back_to_what_can_be_had)
{
    struct hak_config config = kit_config(512 * GIB, HAK_PAGES_2M, HAK_OFF);
    config.pages[1] = HAK_PAGES_4K;
    kit_open_config(&config);
    CHECK_EQ(kit_stats(NULL).pages, HAK_PAGES_4K);
    CHECK(hak_malloc(64) != NULL);
    kit_close();
}

/* ---- how many ------------------------------------------------------------------------------- */

TEST(thirty_two_regions_and_no_more)
{
    hak_region *regions[HAK_REGIONS_MAX];
    void *object[HAK_REGIONS_MAX];
    hak_region *one_more = (hak_region *)(void *)&on_exit_unused;
    struct hak_config config = kit_config(2 * MIB, HAK_PAGES_4K, HAK_OFF);
    kit_open(2 * MIB, HAK_OFF);
    for (int n = 0; n < HAK_REGIONS_MAX - 1; n++) {
        regions[n] = kit_create(2 * MIB, HAK_OFF);
        object[n] = hak_region_malloc(regions[n], 1000);
        CHECK(object[n] != NULL);
        pattern_fill(object[n], 1000, (uint64_t)n);
    }
    check_said(hak_region_create(&config, &one_more), -ENOSPC, "31");
    CHECK(one_more == NULL);
    for (int n = 0; n < HAK_REGIONS_MAX - 1; n++) {
        CHECK(pattern_holds(object[n], 1000, (uint64_t)n));
        hak_region_free(regions[n], object[n]);
        kit_check(regions[n]);
    }
    kit_destroy(regions[17]); /* one place is free, and the next takes it */
    CHECK(hak_region_malloc(kit_create(2 * MIB, HAK_OFF), 1000) != NULL);
    check_said(hak_region_create(&config, &one_more), -ENOSPC, "31");
    kit_close();
}

static int open_files(void)
{
    int count = 0;
    DIR *folder = opendir("/proc/self/fd");
    CHECK(folder != NULL);
    while (readdir(folder) != NULL) {
        count++;
    }
    closedir(folder);
    return count;
}

/* /proc/self/maps without stack and heap, which grow for reasons of their own. */
static void read_maps(char *text, size_t capacity)
{
    char line[1024];
    size_t used = 0;
    FILE *file = fopen("/proc/self/maps", "r");
    CHECK(file != NULL);
    text[0] = '\0';
    while (fgets(line, sizeof line, file) != NULL) {
        if (strstr(line, "[stack]") == NULL && strstr(line, "[heap]") == NULL) {
            used += (size_t)snprintf(text + used, capacity - used, "%s", line);
            CHECK(used < capacity);
        }
    }
    fclose(file);
}

static void come_and_go(void)
{
    struct hak_config config = kit_config(16 * MIB, HAK_PAGES_4K, HAK_ON);
    struct hak_config impossible = kit_config(512 * GIB, HAK_PAGES_2M, HAK_ON);
    hak_region *region;
    kit_open_config(&config);
    region = kit_create(4 * MIB, HAK_OFF);
    for (size_t size = 16; size < 2 * MIB; size *= 3) {
        CHECK(hak_malloc(size) != NULL); /* never freed: it goes with the region */
        CHECK(hak_region_malloc(region, size) != NULL);
    }
    CHECK_EQ(hak_region_fini(), 0);
    CHECK_EQ(hak_region_init(&impossible), -ENOMEM);
    kit_destroy(region);
    CHECK_EQ(hak_region_create(&impossible, &region), -ENOMEM);
}

TEST(regions_that_come_and_go_leave_nothing_behind)
{
    kit_close();
    come_and_go(); /* what libc keeps of its own is there now */
    static char before[1 << 16], after[1 << 16];
    int files = open_files();
    read_maps(before, sizeof before);
    for (int n = 0; n < 40; n++) {
        come_and_go();
    }
    read_maps(after, sizeof after);
    if (strcmp(before, after) != 0) {
        FAIL("mappings changed from\n%s\nto\n%s", before, after);
    }
    CHECK_EQ(open_files(), files);
}

/* ---- threads across a region's end ----------------------------------------------------------- */

enum { OLD_HANDS = 6 };

static pthread_barrier_t turn;

static void use_region(uint64_t tag)
{
    void *held[200];
    for (int round = 0; round < 5; round++) {
        for (size_t n = 0; n < 200; n++) {
            held[n] = hak_malloc(n * 7);
            CHECK(held[n] != NULL);
            CHECK(heap_containing(held[n]) == hak_region_default());
            pattern_fill(held[n], n * 7, tag + n);
        }
        for (size_t n = 0; n < 200; n++) {
            CHECK(pattern_holds(held[n], n * 7, tag + n));
            hak_free(held[n]);
        }
    }
}

/* Uses one region, waits while it ends and another comes, and uses that. Of each three threads one
 * is marked idle meanwhile, one exits without having used the second region. */
static void *old_hand(void *argument)
{
    unsigned number = *(const unsigned *)argument;
    use_region((uint64_t)number * 1000);
    if (number % 3 == 0) {
        hak_thread_idle();
    }
    pthread_barrier_wait(&turn); /* the main thread ends the region ... */
    pthread_barrier_wait(&turn); /* ... and there is another */
    if (number % 3 != 1) {
        use_region((uint64_t)number * 1000);
    }
    return NULL;
}

TEST(threads_of_a_region_that_ended_use_the_next)
{
    pthread_t threads[OLD_HANDS];
    unsigned numbers[OLD_HANDS];
    kit_open(32 * MIB, HAK_OFF);
    use_region(99);
    pthread_barrier_init(&turn, NULL, OLD_HANDS + 1);
    for (unsigned n = 0; n < OLD_HANDS; n++) {
        numbers[n] = n;
        CHECK_EQ(pthread_create(&threads[n], NULL, old_hand, &numbers[n]), 0);
    }
    pthread_barrier_wait(&turn);
    CHECK_EQ(hak_region_fini(), 0);
    struct hak_config config = kit_config(16 * MIB, HAK_PAGES_4K, HAK_OFF);
    CHECK_EQ(hak_region_init(&config), 0);
    CHECK_EQ(kit_stats(NULL).threads, 0);
    pthread_barrier_wait(&turn);
    use_region(99);
    for (unsigned n = 0; n < OLD_HANDS; n++) {
        (void)kit_join(threads[n]);
    }
    pthread_barrier_destroy(&turn);
    CHECK_EQ(kit_stats(NULL).threads, 1); /* this one */
    kit_check(NULL);
    kit_close();
}

TEST(a_thread_that_exits_gives_everything_back)
{
    kit_open(32 * MIB, HAK_OFF);
    pthread_t thread;
    static unsigned number = 2;
    pthread_barrier_init(&turn, NULL, 1);
    for (int n = 0; n < 300; n++) { /* as many as would use the slots up, were they kept */
        CHECK_EQ(pthread_create(&thread, NULL, old_hand, &number), 0);
        (void)kit_join(thread);
    }
    pthread_barrier_destroy(&turn);
    struct hak_stats stats = kit_stats(NULL);
    CHECK_EQ(stats.threads, 0);
    CHECK_EQ(stats.free_bytes, stats.size_bytes);
    CHECK_EQ(stats.cached_bytes_max, 0);
    kit_check(NULL);
    kit_close();
}

/* ---- the rest -------------------------------------------------------------------------------- */

static void *pin_here(void *unused)
{
    cpu_set_t allowed, now;
    size_t cpu = 0;
    CHECK_EQ(sched_getaffinity(0, sizeof allowed, &allowed), 0);
    while (!CPU_ISSET(cpu, &allowed)) {
        cpu++;
    }
    CHECK_EQ(hak_thread_pin((int)cpu), 0);
    CHECK_EQ(sched_getaffinity(0, sizeof now, &now), 0);
    CHECK_EQ(CPU_COUNT(&now), 1);
    CHECK(CPU_ISSET(cpu, &now));
    check_said(hak_thread_pin(-1), -EINVAL, "-1");
    check_said(hak_thread_pin(1 << 20), -EINVAL, "1048576");
    check_said(hak_thread_pin(INT32_MIN), -EINVAL, "processor");
    CHECK_EQ(sched_getaffinity(0, sizeof now, &now), 0);
    CHECK(CPU_COUNT(&now) == 1 && CPU_ISSET(cpu, &now));
    return unused;
}

TEST(pin_takes_processors_that_exist)
{
    kit_close();
    kit_in_thread(pin_here, NULL);
    kit_open(4 * MIB, HAK_OFF);
    kit_in_thread(pin_here, NULL);
    kit_close();
}

struct bad_environment {
    const char *name, *value;
};

static void init_from(void *argument)
{
    const struct bad_environment *bad = argument;
    setenv("HAKMEM_REGION_SIZE", "4M", 1);
    setenv("HAKMEM_PAGES", "4k", 1);
    setenv(bad->name, bad->value, 1);
    check_said(hak_region_init(NULL), -EINVAL, bad->name);
    struct hak_error error;
    (void)hak_last_error(&error);
    CHECK_STR_HAS(error.message, bad->value);
    CHECK_STR_HAS(error.message, "accepted");
    CHECK(hak_region_default() == NULL);
    unsetenv(bad->name);
    setenv("HAKMEM_REGION_SIZE", "4M", 1);
    CHECK_EQ(hak_region_init(NULL), 0); /* and the mended one works */
    CHECK(hak_malloc(100) != NULL);
}

TEST(an_environment_that_makes_no_sense_is_named)
{
    static struct bad_environment bad[] = {
        {"HAKMEM_REGION_SIZE", "banana"}, {"HAKMEM_REGION_SIZE", "-5"},
        {"HAKMEM_PAGES", "3M"},           {"HAKMEM_NODES", "left"},
        {"HAKMEM_PREFAULT", "maybe"},     {"HAKMEM_MISUSE", "cry"},
        {"HAKMEM_EXHAUSTED", "borrow"},   {"HAKMEM_WARM_POOL", "lots"},
        {"HAKMEM_LAYERS", "onion"},       {"HAKMEM_TINY_PAGE_BOX_CLASSES", "1-x"},
        {"HAKMEM_VERIFY", "2"},           {"HAKMEM_HUGETLBFS", "/mnt/huge"},
        {"HAKMEM_PROGRESS", "bar"}};
    kit_close();
    for (size_t n = 0; n < sizeof bad / sizeof *bad; n++) {
        static struct harness_result result;
        harness_child(init_from, &bad[n], &result);
        if (result.exit_status != 0) {
            FAIL("%s=%s: %s", bad[n].name, bad[n].value, result.output);
        }
    }
}

static void *set_up_cancelled(void *out)
{
    const struct hak_config config = {.size_bytes = 8 * MIB};
    pthread_cancel(pthread_self());
    hak_region_create(&config, out);
    pthread_testcancel();
    return NULL;
}

/* It acts on the thread afterwards, with the region made and the next set-up free to go. */
TEST(a_cancelled_thread_finishes_its_set_up)
{
    static hak_region *region;
    pthread_t thread;
    void *result;
    kit_close();
    CHECK_EQ(pthread_create(&thread, NULL, set_up_cancelled, &region), 0);
    CHECK_EQ(pthread_join(thread, &result), 0);
    CHECK(result == PTHREAD_CANCELED);
    CHECK(region != NULL);
    CHECK_EQ(hak_region_destroy(region), 0);
    kit_open(8 * MIB, HAK_OFF);
    kit_close();
}

TEST(the_version_is_the_headers)
{
    char version[32];
    snprintf(version, sizeof version, "%d.%d.%d", HAK_VERSION_MAJOR, HAK_VERSION_MINOR,
             HAK_VERSION_PATCH);
    CHECK(strcmp(hak_version(), version) == 0);
}

HARNESS_MAIN()
