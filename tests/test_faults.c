/* SPDX-License-Identifier: MIT */
/*
 * Whatever the kernel refuses, and when: each system call that a set-up call makes fails in turn,
 * with several errors, for good from there on, or as a read that gives too little. The outcome is a
 * whole region or a negative errno with words that say what and where; nothing is left behind; and
 * the next set-up works.
 *
 * tests/test_rollback.c has the same for memory calls alone, with what exactly is said. Two errors
 * for each place here; with FAULTS_WHOLE=1 (tests/full_faults.sh) all that are plausible.
 */
#define _GNU_SOURCE
#include "alloc/heap.h"
#include "tests/faults/warden.h"
#include "tests/left_kit.h"

#include <dlfcn.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>

static struct harness_result result;
static struct hak_error error;

/* ---- one set-up call ------------------------------------------------------------------------- */

struct scenario {
    const char *name;
    enum hak_pages pages[3];
    enum hak_switch prefault;
    size_t bytes;
    int (*act)(const struct scenario *scenario); /* the watched call */
    void (*undo)(void);                          /* after it succeeded, unwatched */
    const char *library;                         /* that it loads and closes; or NULL */
    bool covered;   /* others make the same calls: one error is enough */
    unsigned least; /* calls that must have ended it, when they fail */
};

static hak_region *further;
static void *adopted;
static struct hak_plan plan;

#define ADOPTED_BYTES (6 * MIB)

static struct hak_config config_of(const struct scenario *scenario)
{
    struct hak_config config = {.size_bytes = scenario->bytes, .prefault = scenario->prefault};
    memcpy(config.pages, scenario->pages, sizeof scenario->pages);
    return config;
}

static int do_init(const struct scenario *scenario)
{
    struct hak_config config = config_of(scenario);
    return hak_region_init(&config);
}

/* The region is whole: every room's invariants, and memory that can be written. */
static void use(hak_region *heap)
{
    unsigned char *objects[33];
    for (unsigned n = 0; n < 33; n++) {
        size_t bytes = n == 32 ? 300 << 10 : (size_t)16 << n % 11;
        objects[n] = hak_region_malloc(heap, bytes);
        CHECK(objects[n] != NULL);
        memset(objects[n], 0x5a, bytes);
    }
    for (unsigned n = 0; n < 33; n++)
        hak_region_free(heap, objects[n]);
    CHECK(heap_check(heap));
}

static void undo_init(void)
{
    use(hak_region_default());
    CHECK_EQ(hak_region_fini(), 0);
    CHECK(hak_region_default() == NULL);
}

static int do_create(const struct scenario *scenario)
{
    struct hak_config config = config_of(scenario);
    return hak_region_create(&config, &further);
}

static int do_adopt(const struct scenario *scenario)
{
    struct hak_config config = config_of(scenario);
    return hak_region_adopt(adopted, ADOPTED_BYTES, -1, &config, &further, NULL);
}

static void undo_create(void)
{
    use(further);
    CHECK_EQ(hak_region_destroy(further), 0);
    further = NULL;
}

static int do_plan(const struct scenario *scenario)
{
    struct hak_config config = config_of(scenario);
    int code = hak_region_plan(&config, &plan);
    CHECK_EQ(code, 0); /* the finding is the answer */
    CHECK(plan.code <= 0);
    CHECK_EQ(plan.code == 0, plan.chosen < plan.kind_count);
    if (plan.code != 0 || plan.chosen != 0)
        CHECK_GE(strlen(plan.message), 20);
    CHECK(memchr(plan.now, '\0', sizeof plan.now) != NULL);
    return 0;
}

static atomic_uint worked;

static void work(unsigned worker, void *argument)
{
    (void)argument;
    atomic_fetch_add(&worked, 1U << (8 * worker));
}

static int do_workers(const struct scenario *scenario)
{
    (void)scenario;
    atomic_store(&worked, 0);
    int code = hak_worker_start(2, work, NULL);
    if (code == 0)
        CHECK_EQ(hak_worker_join(), 0);
    CHECK_EQ(atomic_load(&worked), code == 0 ? 0x101 : 0); /* each once, or none */
    if (code == 0)
        CHECK_EQ(hak_worker_join(), -ESRCH);
    return code;
}

static int do_pin(const struct scenario *scenario)
{
    (void)scenario;
    return hak_thread_pin(sched_getcpu());
}

static void undo_nothing(void)
{
}

static int do_fini(const struct scenario *scenario)
{
    (void)scenario;
    return hak_region_fini();
}

static int do_destroy(const struct scenario *scenario)
{
    (void)scenario;
    return hak_region_destroy(further);
}

/* ---- what must hold afterwards --------------------------------------------------------------- */

/* The C library's loader leaves a part of a library mapped when it cannot map the rest. */
static void drop_half_loaded(const char *library)
{
    static char maps[1 << 16];
    read_maps(maps, sizeof maps);
    void *loaded = dlopen(library, RTLD_NOW | RTLD_NOLOAD);
    CHECK(loaded == NULL); /* the set-up closed it */
    for (const char *line = maps; *line != '\0'; line += strcspn(line, "\n") + 1) {
        char path[512] = "";
        unsigned long from = 0, to = 0;
        bool read = sscanf(line, "%lx-%lx %*s %*s %*s %*s%*[ ]%511[^\n]", &from, &to, path) == 3;
        if (read && strstr(path, "libhugetlbfs") != NULL)
            CHECK_EQ(munmap((void *)from, to - from), 0);
    }
}

static bool names_something(const char *message)
{
    size_t length = strlen(message);
    return length >= 20 && message[length - 1] != ':' && message[length - 1] != ';' &&
           strchr(message, ' ') != NULL;
}

static void check_refusal(int code)
{
    CHECK(code < 0 && code > -4096);
    CHECK_EQ(hak_last_error(&error), code);
    CHECK_EQ(error.kind, HAK_ERROR_SETUP);
    if (!names_something(error.message))
        FAIL("code %d says only \"%s\"", code, error.message);
}

static void set_up_before(const struct scenario *scenario)
{
    struct hak_config small = {.size_bytes = 4 * MIB, .pages = {HAK_PAGES_4K}};
    small.prefault = HAK_ON;
    if (scenario->act == do_fini)
        CHECK_EQ(hak_region_init(&small), 0);
    if (scenario->act == do_destroy)
        CHECK_EQ(hak_region_create(&small, &further), 0);
}

static void works_again(void)
{
    struct hak_config small = {.size_bytes = 2 * MIB, .pages = {HAK_PAGES_4K}};
    small.prefault = HAK_OFF;
    CHECK_EQ(hak_region_init(&small), 0);
    use(hak_region_default());
    CHECK_EQ(hak_region_fini(), 0);
}

static const char *const kind_names[] = {"once", "for good", "one byte", "nothing"};

/* One call of the scenario with one fault; false: there was no such call any more. */
static bool once(const struct scenario *scenario, struct warden_fault fault, bool *refused)
{
    static char what[512];
    set_up_before(scenario);
    warden_arm(fault);
    int code = scenario->act(scenario);
    bool failed = warden_disarm();
    *refused = code != 0;
    snprintf(what, sizeof what, "%s, %s, call %u (number %d), %s: code %d", scenario->name,
             kind_names[fault.kind], fault.at, warden.failed, strerror(fault.code), code);
    harness_state.current = what;
    if (code == 0)
        scenario->undo();
    else
        check_refusal(code);
    if (hak_region_default() != NULL && scenario->act != do_create)
        FAIL("%s: a region stayed", what);
    if (failed) {
        if (scenario->library != NULL)
            drop_half_loaded(scenario->library);
        LEFT_NOTHING();
        if (code != 0 && scenario->act != do_create)
            works_again();
    }
    return failed;
}

static const int others[] = {EPERM, EINVAL, ENOSYS, EAGAIN, EINTR, EMFILE, EIO};
#define OTHER_COUNT (sizeof others / sizeof *others)

/* Every call fails once; code 0: each by another of the errors above. */
static void go_through(const struct scenario *scenario, struct warden_fault fault)
{
    unsigned refusals = 0, survived = 0;
    const int code = fault.code;
    const bool of_calls = fault.kind == WARDEN_ERROR || fault.kind == WARDEN_STEADY;
    for (fault.at = 1;; fault.at++) {
        bool refused;
        if (of_calls && code == 0)
            fault.code = others[fault.at % OTHER_COUNT];
        if (!once(scenario, fault, &refused))
            break;
        refusals += refused;
        survived += !refused;
    }
    printf("%s, %s: %u calls, %u of them end it\n", kind_names[fault.kind],
           code != 0  ? strerrorname_np(code)
           : of_calls ? "other errors"
                      : "reads",
           refusals + survived, refusals);
    if (of_calls && code == ENOMEM)
        CHECK_GE(refusals, scenario->least);
}

static bool whole(void)
{
    const char *given = getenv("FAULTS_WHOLE");
    return given != NULL && given[0] == '1';
}

/* One that never ends is not interrupted, nor told to come again. */
static void steadily(const struct scenario *scenario)
{
    static const int codes[] = {ENOMEM, EPERM, ENOSYS, EIO};
    bool long_one = scenario->prefault == HAK_ON && scenario->act == do_init;
    for (size_t n = 0; n < (whole() ? 4U : long_one ? 0U : 1U); n++)
        go_through(scenario, (struct warden_fault){.kind = WARDEN_STEADY, .code = codes[n]});
}

static void go_through_all(void *argument)
{
    const struct scenario *scenario = argument;
    bool refused;
    once(scenario, (struct warden_fault){.at = 0}, &refused); /* what stays for good is there */
    CHECK(!refused);
    warden_begin();
    once(scenario, (struct warden_fault){.at = 0}, &refused);
    left_note();
    go_through(scenario, (struct warden_fault){.code = ENOMEM});
    for (size_t n = 0; whole() && n < OTHER_COUNT; n++)
        go_through(scenario, (struct warden_fault){.code = others[n]});
    if (!whole() && !scenario->covered)
        go_through(scenario, (struct warden_fault){.code = 0}); /* each in its turn */
    steadily(scenario);
    go_through(scenario, (struct warden_fault){.kind = WARDEN_EMPTY});
    if (whole())
        go_through(scenario, (struct warden_fault){.kind = WARDEN_SHORT});
}

static void run_scenario(const struct scenario *scenario)
{
    struct scenario copy = *scenario;
    harness_child_seconds = 170;
    run_apart(&result, go_through_all, &copy);
    printf("%s:\n%s", scenario->name, result.output);
}

/* ---- the calls ------------------------------------------------------------------------------- */

TEST(init_of_small_pages)
{
    run_scenario(&(struct scenario){.name = "init, 4k",
                                    .pages = {HAK_PAGES_4K},
                                    .prefault = HAK_ON,
                                    .bytes = 20 * MIB,
                                    .covered = true,
                                    .act = do_init,
                                    .undo = undo_init,
                                    .least = 10});
}

TEST(init_of_transparent_huge_pages_or_small_ones)
{
    if (!supply_thp())
        SKIP("no transparent huge pages here");
    run_scenario(&(struct scenario){.name = "init, thp and 4k",
                                    .pages = {HAK_PAGES_THP, HAK_PAGES_4K},
                                    .prefault = HAK_ON,
                                    .bytes = 20 * MIB,
                                    .covered = true,
                                    .act = do_init,
                                    .undo = undo_init,
                                    .least = 5});
}

TEST(init_without_prefault)
{
    run_scenario(&(struct scenario){.name = "init, 4k, no prefault",
                                    .pages = {HAK_PAGES_4K},
                                    .prefault = HAK_OFF,
                                    .bytes = 20 * MIB,
                                    .act = do_init,
                                    .undo = undo_init,
                                    .least = 5});
}

TEST(init_of_reserved_huge_pages)
{
    want_free(HAK_PAGES_2M, 12);
    run_scenario(&(struct scenario){.name = "init, 2M",
                                    .pages = {HAK_PAGES_2M},
                                    .prefault = HAK_ON,
                                    .bytes = 20 * MIB,
                                    .covered = true,
                                    .act = do_init,
                                    .undo = undo_init,
                                    .least = 10});
}

TEST(init_of_huge_pages_or_whatever_there_is)
{
    want_free(HAK_PAGES_2M, 12);
    run_scenario(&(struct scenario){.name = "init, 2M, thp, 4k",
                                    .pages = {HAK_PAGES_2M, HAK_PAGES_THP, HAK_PAGES_4K},
                                    .prefault = HAK_ON,
                                    .bytes = 20 * MIB,
                                    .act = do_init,
                                    .undo = undo_init,
                                    .least = 1});
}

static void with_a_mount(void *argument)
{
    char place[] = "/tmp/hakmem-faults-XXXXXX";
    if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0)
        SKIP("no mount namespace can be made here (%s)", strerror(errno));
    CHECK(mkdtemp(place) != NULL);
    CHECK_EQ(mount("none", place, "hugetlbfs", 0, "pagesize=2M,mode=0700"), 0);
    CHECK_EQ(setenv("HUGETLB_PATH", place, 1), 0);
    CHECK_EQ(setenv("HAKMEM_HUGETLBFS", "1", 1), 0);
    go_through_all(argument);
    CHECK_EQ(umount2(place, MNT_DETACH), 0);
    CHECK_EQ(rmdir(place), 0);
}

TEST(init_by_a_file_of_hugetlbfs)
{
    struct scenario scenario = {.name = "init, 2M by hugetlbfs",
                                .pages = {HAK_PAGES_2M},
                                .prefault = HAK_ON,
                                .bytes = 4 * MIB,
                                .act = do_init,
                                .undo = undo_init,
                                .library = "libhugetlbfs.so.0",
                                .least = 10};
    void *library = dlopen("libhugetlbfs.so.0", RTLD_NOW);
    if (library == NULL)
        SKIP("libhugetlbfs.so.0 is not installed (apt-get install libhugetlbfs0)");
    dlclose(library);
    if (geteuid() != 0)
        SKIP("mounting needs root");
    want_free(HAK_PAGES_2M, 4);
    harness_child_seconds = 170;
    run_apart(&result, with_a_mount, &scenario);
    printf("%s:\n%s", scenario.name, result.output);
}

TEST(a_further_region)
{
    struct hak_config small = {.size_bytes = 2 * MIB, .pages = {HAK_PAGES_4K}};
    CHECK_EQ(hak_region_init(&small), 0);
    run_scenario(&(struct scenario){.name = "create, 4k",
                                    .pages = {HAK_PAGES_4K},
                                    .prefault = HAK_ON,
                                    .bytes = 4 * MIB,
                                    .act = do_create,
                                    .undo = undo_create,
                                    .least = 10});
    CHECK_EQ(hak_region_fini(), 0);
}

TEST(adopted_memory)
{
    adopted = mmap(NULL, ADOPTED_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(adopted != MAP_FAILED);
    memset(adopted, 0x77, ADOPTED_BYTES);
    run_scenario(
        &(struct scenario){.name = "adopt", .act = do_adopt, .undo = undo_create, .least = 10});
    munmap(adopted, ADOPTED_BYTES);
}

TEST(a_plan)
{
    run_scenario(&(struct scenario){.name = "plan",
                                    .pages = {HAK_PAGES_2M, HAK_PAGES_THP, HAK_PAGES_4K},
                                    .prefault = HAK_ON,
                                    .bytes = 20 * MIB,
                                    .act = do_plan,
                                    .undo = undo_nothing});
}

TEST(workers)
{
    run_scenario(
        &(struct scenario){.name = "workers", .act = do_workers, .undo = undo_nothing, .least = 3});
}

TEST(pinning)
{
    run_scenario(
        &(struct scenario){.name = "pin", .act = do_pin, .undo = undo_nothing, .least = 1});
}

TEST(the_end_of_a_region)
{
    run_scenario(&(struct scenario){.name = "fini", .act = do_fini, .undo = undo_nothing});
    run_scenario(&(struct scenario){.name = "destroy", .act = do_destroy, .undo = undo_nothing});
}

HARNESS_MAIN()
