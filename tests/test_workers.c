/* SPDX-License-Identifier: MIT */
/*
 * Crews of workers: who is where, that all run or none does, who may wait for them, and what a
 * child of fork has of them. The C library's pthread_create and sched_setaffinity are replaced
 * here, so that each of the calls can be made to fail.
 */
#define _GNU_SOURCE
#include "alloc/workers.h"

#include "numa/pin.h"
#include "tests/heap_kit.h"
#include "tests/memory_kit.h"

#include <dirent.h>
#include <dlfcn.h>

#define CREW 12u

static struct {
    _Atomic unsigned calls;
    int cpu, cpu_count, segment, large_segment;
    char name[16];
} seen[WORKERS_MAX];
static _Atomic unsigned ran;
static _Atomic bool go_on;
static int token;

/* ---- calls that fail ------------------------------------------------------------------------- */

static _Atomic unsigned creations;
/* The creation that fails, from 1 on; 0: none. */
static unsigned failing_creation;
/* The processor that the kernel refuses to a thread. */
enum { REFUSE_NONE = -1, REFUSE_ALL = -2 };
static int refused_cpu = REFUSE_NONE;

static int (*real_create)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
static int (*real_setaffinity)(pid_t, size_t, const cpu_set_t *);

__attribute__((constructor)) static void find_real(void)
{
    *(void **)&real_create = dlsym(RTLD_NEXT, "pthread_create");
    *(void **)&real_setaffinity = dlsym(RTLD_NEXT, "sched_setaffinity");
}

/* NOLINTBEGIN(readability-inconsistent-declaration-parameter-name): the C library's are reserved */
int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *),
                   void *argument)
{
    if (atomic_fetch_add(&creations, 1) + 1 == failing_creation) {
        return EAGAIN;
    }
    return real_create(thread, attributes, run, argument);
}

int sched_setaffinity(pid_t pid, size_t bytes, const cpu_set_t *set)
{
    if (CPU_COUNT_S(bytes, set) == 1 &&
        (refused_cpu == REFUSE_ALL ||
         (refused_cpu >= 0 && CPU_ISSET_S((size_t)refused_cpu, bytes, set)))) {
        errno = EINVAL;
        return -1;
    }
    return real_setaffinity(pid, bytes, set);
}
/* NOLINTEND(readability-inconsistent-declaration-parameter-name): up to here */

/* ---- crews ----------------------------------------------------------------------------------- */

static void note(unsigned worker, void *argument)
{
    cpu_set_t set;

    CHECK_EQ(argument, &token);
    CHECK(worker < WORKERS_MAX);
    atomic_fetch_add(&seen[worker].calls, 1);
    CHECK_EQ(sched_getaffinity(0, sizeof(set), &set), 0);
    seen[worker].cpu = sched_getcpu();
    seen[worker].cpu_count = CPU_COUNT(&set);
    CHECK_EQ(pthread_getname_np(pthread_self(), seen[worker].name, sizeof(seen[worker].name)), 0);
    if (hak_region_default() != NULL) {
        void *small = hak_malloc(100), *large = hak_malloc(300 * KIB);
        CHECK(small != NULL && large != NULL);
        seen[worker].segment = (int)kit_segment(small);
        seen[worker].large_segment = (int)kit_segment(large);
        hak_free(small);
        hak_free(large);
    }
    atomic_fetch_add(&ran, 1);
}

static void note_and_wait(unsigned worker, void *argument)
{
    note(worker, argument);
    while (!atomic_load(&go_on)) {
        usleep(1000);
    }
}

static void begin(void)
{
    memset(seen, 0, sizeof(seen));
    atomic_store(&ran, 0);
    atomic_store(&creations, 0);
    atomic_store(&go_on, false);
    failing_creation = 0;
    refused_cpu = REFUSE_NONE;
    kit_forget_last();
}

static void end_well(void)
{
    if (__atomic_load_n(&harness_state.outcome, __ATOMIC_RELAXED) != HARNESS_OK) {
        harness_leave(HARNESS_FAILED); /* a worker has said why */
    }
}

/* Runs so many to their end; each was called once, with its number, and sat on one processor. */
static void run_crew(unsigned count)
{
    memset(seen, 0, sizeof(seen));
    atomic_store(&ran, 0);
    CHECK_EQ(hak_worker_start(count, note, &token), 0);
    CHECK_EQ(hak_worker_join(), 0);
    end_well();
    for (unsigned n = 0; n < count; n++) {
        char name[24];
        snprintf(name, sizeof(name), "hakmem-%u", n);
        CHECK_EQ(atomic_load(&seen[n].calls), 1);
        CHECK_EQ(seen[n].cpu_count, 1);
        CHECK_EQ(strcmp(seen[n].name, name), 0);
    }
    CHECK_EQ(atomic_load(&ran), count);
}

static void check_says(int code, const char *text)
{
    struct hak_error error;

    CHECK_EQ(hak_last_error(&error), code);
    CHECK_EQ(error.kind, HAK_ERROR_SETUP);
    CHECK_STR_HAS(error.message, text);
}

static unsigned thread_count(void)
{
    DIR *folder = opendir("/proc/self/task");
    unsigned count = 0;

    CHECK(folder != NULL);
    for (const struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        count += entry->d_name[0] != '.';
    }
    closedir(folder);
    return count;
}

/* A thread that was joined may be in that folder for a moment longer. */
static void check_threads(unsigned count)
{
    int64_t deadline = harness_now_ms() + 5000;

    while (thread_count() != count && harness_now_ms() < deadline) {
        usleep(1000);
    }
    CHECK_EQ(thread_count(), count);
}

static void want_processors(unsigned count)
{
    if (pin_cpu_count() < count) {
        SKIP("%u processor(s) here, %u are needed", pin_cpu_count(), count);
    }
}

/* ---- who is where ---------------------------------------------------------------------------- */

TEST(every_worker_is_called_once_with_its_number_and_on_one_processor)
{
    begin();
    kit_open(16 * MIB);
    run_crew(CREW);
    kit_close();
}

TEST(workers_do_without_a_region)
{
    begin();
    run_crew(CREW);
    CHECK(hak_region_default() == NULL);
}

TEST(none_asked_for_is_one_for_every_processor)
{
    begin();
    CHECK_EQ(hak_worker_start(0, note, &token), 0);
    CHECK_EQ(hak_worker_join(), 0);
    end_well();
    CHECK_EQ(atomic_load(&ran), pin_cpu_count());
    for (unsigned n = 0; n < pin_cpu_count(); n++) {
        for (unsigned m = 0; m < n; m++) {
            CHECK_NE(seen[n].cpu, seen[m].cpu);
        }
    }
}

TEST(workers_alternate_between_nodes_and_are_at_home_where_they_sit)
{
    begin();
    want_processors(2);
    kit_open_two_nodes(32 * MIB, HAK_EXHAUSTED_FAIL);
    run_crew(CREW);
    unsigned of_each = (unsigned)min_size(pin_node_cpu_count(0), pin_node_cpu_count(1));
    for (unsigned n = 0; n < CREW; n++) {
        int node = topology_cpu_node(seen[n].cpu);
        CHECK_EQ(seen[n].segment, node);
        CHECK_EQ(seen[n].large_segment, node);
        if (n < 2 * of_each) {
            CHECK_EQ(node, n % 2);
        }
        if (n >= pin_cpu_count()) {
            CHECK_EQ(seen[n].cpu, seen[n - pin_cpu_count()].cpu); /* it begins again */
        }
    }
    kit_close();
}

TEST(workers_keep_to_the_nodes_of_the_region)
{
    struct hak_config config = kit_config(16 * MIB);

    begin();
    want_processors(2);
    topology_fake(2);
    config.nodes = 2;
    CHECK_EQ(hak_region_init(&config), 0);
    run_crew(3);
    for (unsigned n = 0; n < 3; n++) {
        CHECK_EQ(topology_cpu_node(seen[n].cpu), 1);
    }
    kit_close();
}

/* This program again, started with one processor, and of it the case that counts them. */
static void start_restricted(void *argument)
{
    (void)argument;
    CHECK_EQ(pin_thread(sched_getcpu()), 0);
    execl("/proc/self/exe", "test_workers", "none_asked_for", "called_once", (char *)NULL);
    FAIL("exec: %s", strerror(errno));
}

TEST(a_process_started_on_one_processor_has_its_workers_there)
{
    static struct harness_result result;

    begin();
    want_processors(2);
    harness_child(start_restricted, NULL, &result);
    if (result.exit_status != 0) {
        FAIL("status %d, signal %d: %s", result.exit_status, result.signal, result.output);
    }
    CHECK_STR_HAS(result.output, "2 passed, 0 failed");
}

TEST(a_pinned_caller_starts_workers_everywhere)
{
    begin();
    want_processors(2);
    cpu_set_t before;
    CHECK_EQ(sched_getaffinity(0, sizeof(before), &before), 0);
    CHECK_EQ(hak_thread_pin(sched_getcpu()), 0);
    run_crew(2);
    CHECK_EQ(sched_setaffinity(0, sizeof(before), &before), 0);
    CHECK_NE(seen[0].cpu, seen[1].cpu);
}

TEST(a_processor_that_was_taken_away_since_is_passed_over)
{
    begin();
    want_processors(2);
    refused_cpu = sched_getcpu();
    run_crew(CREW);
    for (unsigned n = 0; n < CREW; n++) {
        CHECK_NE(seen[n].cpu, refused_cpu);
    }
    CHECK_GE(atomic_load(&creations), CREW + 1); /* it was tried */
}

TEST(where_no_processor_may_be_used_none_runs)
{
    begin();
    unsigned threads = thread_count();
    refused_cpu = REFUSE_ALL;
    CHECK_EQ(hak_worker_start(3, note, &token), -ENODEV);
    check_says(-ENODEV, "no processor may be used");
    CHECK_EQ(hak_worker_start(0, note, &token), -ENODEV);
    CHECK_EQ(atomic_load(&ran), 0);
    check_threads(threads);
    refused_cpu = REFUSE_NONE;
    run_crew(3);
}

/* ---- all or none ---------------------------------------------------------------------------- */

TEST(where_one_thread_cannot_be_made_none_runs)
{
    unsigned threads;

    begin();
    threads = thread_count();
    for (unsigned k = 1; k <= CREW; k++) {
        atomic_store(&creations, 0);
        failing_creation = k;
        CHECK_EQ(hak_worker_start(CREW, note, &token), -EAGAIN);
        char text[64];
        snprintf(text, sizeof(text), "thread %u of %u could not be started", k, CREW);
        check_says(-EAGAIN, text);
        CHECK_EQ(atomic_load(&ran), 0);
        check_threads(threads);
        CHECK_EQ(hak_worker_join(), -ESRCH); /* there is no crew */
    }
    failing_creation = 0;
    run_crew(CREW);
}

TEST(nothing_is_left_mapped_by_crews_that_end_or_never_begin)
{
    begin();
    kit_open(16 * MIB);
    run_crew(4);
    for (unsigned round = 0; round < 3; round++) {
        /* The C library keeps stacks; from the second round on it has what it wants. */
        read_maps(maps_before, sizeof(maps_before));
        run_crew(4);
        atomic_store(&creations, 0);
        failing_creation = 4;
        CHECK_EQ(hak_worker_start(4, note, &token), -EAGAIN);
        failing_creation = 0;
    }
    CHECK_NOTHING_LEFT();
    kit_close();
}

TEST(a_thousand_workers_run)
{
    begin();
    kit_open(64 * MIB);
    run_crew(1000);
    kit_close();
}

/* ---- who may start and join ----------------------------------------------------------------- */

TEST(calls_that_make_no_sense_are_refused)
{
    begin();
    CHECK_EQ(hak_worker_start(1, NULL, NULL), -EINVAL);
    check_says(-EINVAL, "run is NULL");
    CHECK_EQ(hak_worker_start(WORKERS_MAX + 1, note, &token), -EINVAL);
    check_says(-EINVAL, "8193 workers are more than 8192");
    CHECK_EQ(hak_worker_join(), -ESRCH);
    check_says(-ESRCH, "there are no workers");
    CHECK_EQ(atomic_load(&creations), 0);
}

static int join_code, start_code;

static void join_from_within(unsigned worker, void *argument)
{
    if (worker == 0) {
        join_code = hak_worker_join();
        start_code = hak_worker_start(1, note, argument);
    }
}

TEST(a_worker_cannot_wait_for_itself_nor_start_others)
{
    begin();
    CHECK_EQ(hak_worker_start(2, join_from_within, &token), 0);
    CHECK_EQ(hak_worker_join(), 0);
    CHECK_EQ(join_code, -EDEADLK);
    CHECK_EQ(start_code, -EBUSY);
    CHECK_EQ(atomic_load(&ran), 0);
}

static _Atomic unsigned joined;

/* Its result in *code. */
static void *join(void *code)
{
    *(int *)code = hak_worker_join();
    atomic_fetch_add(&joined, 1);
    return NULL;
}

static void wait_joined(unsigned count)
{
    int64_t deadline = harness_now_ms() + 60000;

    while (atomic_load(&joined) < count) {
        CHECK(harness_now_ms() < deadline);
        usleep(1000);
    }
}

TEST(a_second_crew_and_a_second_joiner_hear_at_once)
{
    int codes[2] = {1, 1};
    pthread_t joiners[2];

    begin();
    atomic_store(&joined, 0);
    CHECK_EQ(hak_worker_start(3, note_and_wait, &token), 0);
    CHECK_EQ(hak_worker_start(3, note, &token), -EBUSY);
    check_says(-EBUSY, "hak_worker_join first");
    for (unsigned n = 0; n < 2; n++) {
        joiners[n] = kit_thread(join, &codes[n]);
    }
    wait_joined(1); /* while the workers still wait for us */
    int first = codes[0] != 1 ? codes[0] : codes[1];
    CHECK_EQ(atomic_load(&joined), 1);
    int again = hak_worker_start(3, note, &token);
    atomic_store(&go_on, true);
    for (unsigned n = 0; n < 2; n++) {
        kit_join(joiners[n]);
    }
    CHECK_EQ(first, -ESRCH);
    CHECK_EQ(again, -EBUSY);
    CHECK_EQ(codes[0] + codes[1], -ESRCH); /* the other one: 0 */
    CHECK_EQ(atomic_load(&ran), 3);
    run_crew(2); /* and another may begin */
}

TEST(crews_follow_each_other_whoever_joins)
{
    begin();
    kit_open(16 * MIB);
    for (unsigned round = 0; round < 200; round++) {
        int code = 1;
        CHECK_EQ(hak_worker_start(1 + round % 5, note, &token), 0);
        if (round % 2 == 0) {
            code = hak_worker_join();
        } else {
            kit_elsewhere(join, &code);
        }
        CHECK_EQ(code, 0);
    }
    end_well();
    CHECK_EQ(atomic_load(&ran), 200 / 5 * (1 + 2 + 3 + 4 + 5));
    kit_close();
}

/* ---- fork ----------------------------------------------------------------------------------- */

/* In a child, whatever the parent has. */
static void have_own_crew(void *unused)
{
    (void)unused;
    CHECK_EQ(hak_worker_join(), -ESRCH);
    atomic_store(&ran, 0);
    CHECK_EQ(hak_worker_start(2, note, &token), 0);
    CHECK_EQ(hak_worker_start(2, note, &token), -EBUSY);
    CHECK_EQ(hak_worker_join(), 0);
    CHECK_EQ(atomic_load(&ran), 2);
}

static int fork_status;

static void fork_from_within(unsigned worker, void *argument)
{
    note(worker, argument);
    if (worker == 0) {
        pid_t child = fork();
        if (child == 0) {
            harness_state.in_child = true;
            have_own_crew(NULL); /* a copy of a worker is none */
            _exit(0);
        }
        CHECK_EQ(waitpid(child, &fork_status, 0), child);
    }
}

TEST(a_child_has_no_workers_and_may_have_its_own)
{
    static struct harness_result result;

    begin();
    kit_open(16 * MIB);
    CHECK_EQ(hak_worker_start(3, note_and_wait, &token), 0);
    harness_child(have_own_crew, NULL, &result);
    atomic_store(&go_on, true);
    CHECK_EQ(hak_worker_join(), 0); /* the parent's go on */
    if (result.exit_status != 0) {
        FAIL("status %d, signal %d: %s", result.exit_status, result.signal, result.output);
    }
    CHECK_EQ(atomic_load(&ran), 3);
    kit_close();
}

TEST(a_worker_may_fork)
{
    begin();
    kit_open(16 * MIB);
    fork_status = -1;
    CHECK_EQ(hak_worker_start(3, fork_from_within, &token), 0);
    CHECK_EQ(hak_worker_join(), 0);
    end_well();
    CHECK_EQ(fork_status, 0);
    CHECK_EQ(atomic_load(&ran), 3);
    kit_close();
}

HARNESS_MAIN()
