/* SPDX-License-Identifier: MIT */
/*
 * A set-up that fails leaves nothing behind: no mapping, no thread, no descriptor, no huge page;
 * says why; and never ends in a signal. Whatever call of the kernel it is that fails, and when.
 *
 * A warden, a thread of the test's, sees each of a child's memory calls before the kernel does
 * (seccomp(2), user notification): it lets the n-th fail, or takes the huge pages away just before
 * they are mapped.
 */
#define _GNU_SOURCE
#include "alloc/heap.h"
#include "tests/deny_kit.h"
#include "tests/left_kit.h"
#include "tests/notify_kit.h"

static struct harness_result result;
static struct hak_error error;

/* hak_region_init, which fails with an error of set-up and leaves nothing. */
static void fails(const struct hak_config *config, int code, const char *words)
{
    left_note();
    CHECK_EQ(hak_region_init(config), code);
    LEFT_NOTHING();
    CHECK(hak_region_default() == NULL);
    CHECK_EQ(hak_last_error(&error), code);
    CHECK_EQ(error.kind, HAK_ERROR_SETUP);
    CHECK_STR_HAS(error.message, words);
}

/* What the first init brings for good (a fork handler, a thread key, libc's own) is there. */
static void warm_up(void)
{
    struct hak_config config = {.size_bytes = 40 * MIB, .pages = {HAK_PAGES_4K}};
    CHECK_EQ(hak_region_init(&config), 0);
    CHECK_EQ(hak_region_fini(), 0);
}

/* ---- what cannot be from the start ----------------------------------------------------------- */

TEST(what_cannot_be_leaves_nothing)
{
    static struct topology topology;
    warm_up();
    struct hak_config config = {.size_bytes = HAK_REGION_BYTES_MAX, .pages = {HAK_PAGES_2M}};
    config.prefault = HAK_ON;
    if (left_free_pages() < HAK_REGION_BYTES_MAX / (2 * MIB))
        fails(&config, -ENOMEM, " missing");
    config = (struct hak_config){.size_bytes = 4 * MIB, .pages = {HAK_PAGES_4K}};
    CHECK_EQ(topology_read(&topology), 0);
    if (!topology.nodes[63].exists) {
        config.nodes = UINT64_C(1) << 63;
        fails(&config, -ENODEV, "node 63 does not exist");
    }
    config = (struct hak_config){.size_bytes = 1};
    fails(&config, -EINVAL, "less than one SuperSlab");
    config = (struct hak_config){.reserved = {1}};
    fails(&config, -EINVAL, "reserved");
    setenv("HAKMEM_PAGES", "3M", 1);
    config = (struct hak_config){.size_bytes = 4 * MIB};
    left_note();
    int code = hak_region_init(&config);
    unsetenv("HAKMEM_PAGES");
    LEFT_NOTHING();
    CHECK_EQ(code, -EINVAL);
}

/* ---- steps that the kernel refuses ----------------------------------------------------------- */

struct refusal {
    int call;
    long third;
    unsigned code;
    enum hak_pages pages;
    int expected;
    const char *words;
};

static void refuse(void *argument)
{
    const struct refusal *refusal = argument;
    struct hak_config config = {
        .size_bytes = 64 * MIB, .pages = {refusal->pages}, .prefault = HAK_ON};
    warm_up();
    deny(refusal->call, refusal->third, refusal->code);
    fails(&config, refusal->expected, refusal->words);
}

TEST(steps_that_the_kernel_refuses_are_undone)
{
    static struct refusal refusals[] = {
        /* The kernel's word for a hugetlb page that was promised and is not there. */
        {SYS_madvise, MADV_POPULATE_WRITE, EFAULT, HAK_PAGES_2M, -ENOMEM,
         "2M pages: faulting them in: Cannot allocate memory (the pool had enough before"},
        {SYS_madvise, MADV_POPULATE_WRITE, ENOMEM, HAK_PAGES_4K, -ENOMEM,
         "4k pages: faulting them in: Cannot allocate memory"},
        {SYS_madvise, MADV_POPULATE_WRITE, EHWPOISON, HAK_PAGES_4K, -EHWPOISON,
         "4k pages: faulting them in: Memory page has hardware error"},
        {SYS_madvise, MADV_DONTFORK, EINVAL, HAK_PAGES_2M, -EINVAL,
         "2M pages: keeping them from children: Invalid argument"},
        {SYS_mbind, -1, EINVAL, HAK_PAGES_2M, -EINVAL,
         "2M pages: binding them to their node: Invalid argument"},
        {SYS_mbind, -1, ENOMEM, HAK_PAGES_4K, -ENOMEM,
         "4k pages: binding them to their node: Cannot allocate memory"},
        {SYS_move_pages, -1, ENOMEM, HAK_PAGES_4K, -ENOMEM, "4k pages: faulting them in"},
    };
    want_free(HAK_PAGES_2M, 32);
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++)
        run_apart(&result, refuse, &refusals[i]);
}

/* ---- the warden ------------------------------------------------------------------------------ */

static struct warden {
    _Atomic int listener; /* -1: not yet */
    atomic_bool armed;
    unsigned fail_at; /* the call to fail, from 1; 0: none */
    unsigned seen;    /* while armed */
    int failed_call;  /* its number */
    size_t steal;     /* bytes of huge pages to take when some are to be mapped */
    void *stolen;
} warden = {.listener = -1};

static void take_pages(void)
{
    warden.stolen = mmap(
        NULL, warden.steal, PROT_READ | PROT_WRITE,
        MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | MAP_POPULATE | (21 << MAP_HUGE_SHIFT), -1, 0);
}

static struct notify_answer judge(const struct seccomp_notif *notice, void *unused)
{
    const struct notify_answer go_on = {.given = false};
    const struct seccomp_data *call = &notice->data;
    /* An empty range asks whether the kernel knows the call; no memory can lack for it. */
    bool asks = call->nr == SYS_madvise && call->args[1] == 0;
    (void)unused;
    if (!atomic_load(&warden.armed) || asks)
        return go_on;
    if (warden.steal != 0 && warden.stolen == NULL && call->nr == SYS_mmap &&
        (call->args[3] & MAP_HUGETLB) != 0)
        take_pages();
    if (++warden.seen != warden.fail_at)
        return go_on;
    warden.failed_call = call->nr;
    bool starts = call->nr == SYS_clone || call->nr == SYS_clone3;
    return (struct notify_answer){.value = starts ? -EAGAIN : -ENOMEM, .given = true};
}

static void *watch(void *unused)
{
    (void)unused;
    while (atomic_load(&warden.listener) < 0)
        usleep(100);
    for (;;)
        notify_answer(atomic_load(&warden.listener), judge, NULL);
    return NULL;
}

/* From now on this thread, and those it starts, are watched. */
static void be_watched(void)
{
    pthread_t thread;
    struct sock_filter filter[] = {
        NOTIFY_LOAD,
        NOTIFY_TELL(SYS_mmap),
        NOTIFY_TELL(SYS_mprotect),
        NOTIFY_TELL(SYS_madvise),
        NOTIFY_TELL(SYS_mbind),
        NOTIFY_TELL(SYS_move_pages),
        NOTIFY_TELL(SYS_clone),
        NOTIFY_TELL(SYS_clone3),
        NOTIFY_REST(SECCOMP_RET_ALLOW),
    };
    CHECK_EQ(pthread_create(&thread, NULL, watch, NULL), 0);
    int listener = notify_listen(filter, sizeof filter / sizeof *filter);
    if (listener < 0)
        SKIP("seccomp's user notification is refused here (%s)", strerror(-listener));
    atomic_store(&warden.listener, listener);
}

static int watched_init(const struct hak_config *config, unsigned fail_at)
{
    warden.seen = 0;
    warden.fail_at = fail_at;
    warden.failed_call = -1;
    atomic_store(&warden.armed, true);
    int code = hak_region_init(config);
    atomic_store(&warden.armed, false);
    return code;
}

/* Lets one call after the other fail, until there is none left to fail. */
static void fail_each(void *argument)
{
    struct hak_config config = {
        .size_bytes = 40 * MIB, .pages = {*(enum hak_pages *)argument}, .prefault = HAK_ON};
    unsigned failures = 0, survived = 0, n;
    warm_up();
    be_watched();
    left_note();
    for (n = 1;; n++) {
        int code = watched_init(&config, n);
        if (code == 0) {
            /* A thread that could not be had, say: the region is whole all the same. */
            CHECK(hak_malloc(1 << 20) != NULL);
            struct hak_region *heap = hak_region_default();
            CHECK(region_check(&heap->area));
            CHECK_EQ(hak_region_fini(), 0);
        } else {
            CHECK_EQ(code, -ENOMEM);
            CHECK_EQ(hak_last_error(&error), code);
            CHECK_EQ(error.kind, HAK_ERROR_SETUP);
            CHECK(error.message[0] != '\0' && error.message[strlen(error.message) - 1] != ':');
            CHECK(hak_region_default() == NULL);
        }
        LEFT_NOTHING();
        if (warden.failed_call < 0)
            break;
        failures += code != 0;
        survived += code == 0;
    }
    printf("%u calls: %u of them end the set-up, %u do not\n", n - 1, failures, survived);
    CHECK_GE(failures, 10);
}

static void fail_each_of(enum hak_pages pages)
{
    run_apart(&result, fail_each, &pages);
    printf("%s pages: %s", os_pages_name(pages), result.output);
}

TEST(whichever_call_fails_nothing_is_left)
{
    fail_each_of(HAK_PAGES_4K);
    if (supply_thp())
        fail_each_of(HAK_PAGES_THP);
    want_free(HAK_PAGES_2M, 20);
    fail_each_of(HAK_PAGES_2M);
}

/* Between the look at the pool and the mapping somebody else takes its pages. */
static void be_robbed(void *argument)
{
    size_t bytes = *(size_t *)argument;
    struct hak_config config = {.size_bytes = bytes, .pages = {HAK_PAGES_2M}};
    struct hak_stats stats;
    config.prefault = HAK_ON;
    warm_up();
    be_watched();
    left_note();
    warden.steal = 8 * MIB;
    int code = watched_init(&config, 0);
    CHECK(warden.stolen != NULL && warden.stolen != MAP_FAILED);
    munmap(warden.stolen, warden.steal);
    LEFT_NOTHING();
    CHECK_EQ(code, -ENOMEM);
    CHECK_EQ(hak_last_error(&error), code);
    CHECK_STR_HAS(error.message, "2M pages: mapping them: Cannot allocate memory (the pool had "
                                 "enough before: somebody else was faster");
    /* With another kind in the list, that one. */
    warden.stolen = NULL;
    config.pages[1] = HAK_PAGES_4K;
    CHECK_EQ(watched_init(&config, 0), 0);
    CHECK_EQ(hak_region_stats(NULL, &stats), 0);
    CHECK_EQ(stats.pages, HAK_PAGES_4K);
    CHECK_EQ(stats.pages_wanted, HAK_PAGES_2M);
    munmap(warden.stolen, warden.steal);
    CHECK_EQ(hak_region_fini(), 0);
    LEFT_NOTHING();
    warden.steal = 0; /* and undisturbed it is to be had */
    CHECK_EQ(watched_init(&config, 0), 0);
    CHECK_EQ(hak_region_stats(NULL, &stats), 0);
    CHECK_EQ(stats.pages, HAK_PAGES_2M);
}

TEST(pages_that_somebody_takes_meanwhile_are_an_error_and_no_signal)
{
    want_free(HAK_PAGES_2M, 16);
    size_t bytes = supply_unpromised(HAK_PAGES_2M) * 2 * MIB;
    if (bytes > 512 * MIB)
        SKIP("too many free huge pages to take them all");
    run_apart(&result, be_robbed, &bytes);
}

/* ---- limits of the process ------------------------------------------------------------------- */

static size_t addresses_now(void)
{
    char text[256] = "";
    CHECK(sysfs_read("/proc/self/statm", text, sizeof text) > 0);
    return (size_t)strtoull(text, NULL, 10) * os_page_bytes();
}

/* Each mapping of the set-up in turn is the one that no longer fits. */
static void with_too_few_addresses(void *unused)
{
    struct hak_config config = {.size_bytes = 40 * MIB, .pages = {HAK_PAGES_4K}};
    unsigned failures = 0;
    (void)unused;
    config.prefault = HAK_ON;
    warm_up();
    left_note();
    for (size_t room = 0;; room += MIB) {
        const struct rlimit limit = {addresses_now() + room, RLIM_INFINITY};
        const struct rlimit none = {RLIM_INFINITY, RLIM_INFINITY};
        CHECK_EQ(setrlimit(RLIMIT_AS, &limit), 0);
        int code = hak_region_init(&config);
        CHECK_EQ(setrlimit(RLIMIT_AS, &none), 0);
        if (code == 0)
            break;
        failures++;
        LEFT_NOTHING();
        CHECK_EQ(code, -ENOMEM);
        CHECK_EQ(hak_last_error(&error), code);
    }
    CHECK_GE(failures, 40);
    CHECK(hak_malloc(1 << 20) != NULL);
}

TEST(too_few_addresses_are_an_error_at_every_step)
{
    run_apart(&result, with_too_few_addresses, NULL);
}

static void without_threads(void *unused)
{
    struct hak_config config = {
        .size_bytes = 64 * MIB, .pages = {HAK_PAGES_4K}, .prefault = HAK_ON};
    (void)unused;
    warm_up();
    deny(SYS_clone3, -1, EAGAIN);
    deny(SYS_clone, -1, EAGAIN);
    left_note();
    CHECK_EQ(hak_region_init(&config), 0);
    CHECK_EQ(hak_region_fini(), 0);
    LEFT_NOTHING();
    deny(SYS_madvise, MADV_POPULATE_WRITE, ENOMEM);
    fails(&config, -ENOMEM, "faulting them in");
}

TEST(a_thread_that_cannot_be_had_leaves_no_stack)
{
    run_apart(&result, without_threads, NULL);
}

HARNESS_MAIN()
