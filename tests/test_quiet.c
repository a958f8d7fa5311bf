/* SPDX-License-Identifier: MIT */
/*
 * After init: no system call and no page fault, for all sizes, aligned, realloc and bulk, with
 * objects freed by other threads, and when a thread exits.
 *
 * System calls are counted by the kernel itself: each worker puts itself behind a seccomp filter
 * that turns every call but a few of the test's own into SIGSYS, whose handler counts. A deliberate
 * call shows that the trap works. Faults are the thread's own count (getrusage(2), RUSAGE_THREAD);
 * what the program's code, data and stacks would fault is faulted in before.
 *
 * Workers talk by spinning on atomics: a futex would be a call. They never leave the filter, so
 * everything runs in a child that ends without joining them.
 */
#define _GNU_SOURCE
#include "region/base.h"
#include "tests/memory_kit.h"

#include <hakmem.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#define WORKERS 2
#define MAILBOX 512
#define HELD 256
#define ROUNDS 300000
#define REGION_BYTES (256 * MIB)
/* The third argument that lets getrusage through; the kernel does not look at it. */
#define OWN_CALL 0x68616b
/* A page may be moved or merged by the kernel's own housekeeping while we look: another try. */
#define TRIES 3
#define EXIT_FAULTS 3

static _Thread_local volatile unsigned long trapped;
static _Thread_local volatile long last_trapped;

static struct worker {
    unsigned number;
    unsigned long calls_at_work, calls_at_exit, deliberate;
    long call_number;
    long faults_at_work, faults_at_exit;
    bool failed;
    _Atomic int state; /* enum worker_state */
} workers[WORKERS];

enum worker_state { STARTING, READY, DONE };

static _Atomic int all_may_go;

/* Objects for the other worker to free: one producer, one consumer a slot. */
static void *_Atomic mail[WORKERS][MAILBOX];
static pthread_key_t before_allocator, after_allocator;

/* ---- counting -------------------------------------------------------------------------------- */

static void on_trap(int number, siginfo_t *info, void *context)
{
    (void)number;
    (void)context;
    trapped++;
    last_trapped = info->si_syscall;
}

/* Everything traps but the handler's return, the thread's end, and getrusage when it is ours. */
static bool close_the_gate(void)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_rt_sigreturn, 5, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit, 4, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getrusage, 0, 2),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[2])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, OWN_CALL, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof code / sizeof *code, code};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) == 0;
}

static long own_faults(void)
{
    struct rusage usage;
    memset(&usage, 0, sizeof usage);
    (void)syscall(SYS_getrusage, RUSAGE_THREAD, &usage, OWN_CALL);
    return usage.ru_minflt + usage.ru_majflt;
}

/* Faults the program's own mappings in: code and constants for reading, data for writing. Regions
 * are left as they are: their faults are what is counted. */
static void fault_program_in(void)
{
    extern char __data_start[], _end[];
    char line[512];
    FILE *maps = fopen("/proc/self/maps", "r");
    CHECK(maps != NULL);
    while (fgets(line, sizeof line, maps) != NULL) {
        unsigned long low, high;
        char rights[8];
        if (sscanf(line, "%lx-%lx %7s", &low, &high, rights) == 3 && strchr(line, '/') != NULL &&
            rights[0] == 'r' && strstr(line, "hugepage") == NULL) {
            int how = rights[1] == 'w' ? 23 : 22; /* MADV_POPULATE_WRITE, _READ: Linux 5.14 */
            (void)madvise((void *)low, high - low, how);
        }
    }
    fclose(maps);
    uintptr_t data = (uintptr_t)__data_start & ~(uintptr_t)4095;
    (void)madvise((void *)data, ((uintptr_t)_end - data + 4095) & ~(uintptr_t)4095, 23);
}

static HAK_NOINLINE void fault_stack_in(void)
{
    volatile char deep[192 * 1024];
    for (size_t at = 0; at < sizeof deep; at += 1024) {
        deep[at] = 1;
    }
}

/* ---- the work -------------------------------------------------------------------------------- */

static size_t some_size(uint64_t *random)
{
    /* As many of each magnitude, 1 byte to 4 MiB. */
    size_t limit = (size_t)1 << (harness_random(random) % 23);
    return 1 + harness_random(random) % limit;
}

/* Both ends and, so that faults would be seen, every page of it. */
static void touch(void *object, size_t size)
{
    volatile char *at = object;
    for (size_t offset = 0; offset < size; offset += 4096) {
        at[offset] = 1;
    }
    at[size - 1] = 1;
}

static void *get_object(uint64_t *random, void *old)
{
    size_t size = some_size(random);
    void *object = NULL;
    switch (harness_random(random) % 8) {
    case 0:
        object = hak_aligned_alloc((size_t)1 << (harness_random(random) % 21), size);
        break;
    case 1:
        object = hak_calloc(1, size);
        break;
    case 2:
        object = hak_realloc(old, size);
        old = object == NULL ? old : NULL;
        break;
    default:
        object = hak_malloc(size);
    }
    hak_free(old);
    if (object != NULL) {
        touch(object, size);
    }
    return object;
}

static void bulk(uint64_t *random)
{
    void *many[100];
    size_t size = 1 + harness_random(random) % 3000;
    size_t got = hak_malloc_bulk(size, 100, many);
    for (size_t n = 0; n < got; n++) {
        touch(many[n], size);
    }
    hak_free_bulk(many, got);
}

static void work(struct worker *self)
{
    void *held[HELD] = {NULL};
    uint64_t random = self->number + 1;
    size_t failures = 0;
    for (unsigned round = 0; round < ROUNDS; round++) {
        size_t n = harness_random(&random) % HELD;
        held[n] = get_object(&random, held[n]);
        failures += held[n] == NULL;
        /* The other worker gets it to free, and we free what is in our box. */
        size_t slot = harness_random(&random) % MAILBOX;
        if (round % 2 == 0) {
            held[n] = atomic_exchange_explicit(&mail[1 - self->number][slot], held[n],
                                               memory_order_acq_rel);
            hak_free(
                atomic_exchange_explicit(&mail[self->number][slot], NULL, memory_order_acq_rel));
        }
        if (round % 64 == 0) {
            bulk(&random);
        }
        if (round % 1000 == 0) {
            hak_thread_idle();
            hak_free(hak_malloc(REGION_BYTES)); /* fails: the whole ladder, and its record */
            struct hak_error error;
            (void)hak_last_error(&error);
        }
    }
    hak_free_bulk(held, HELD);
    self->failed = failures > ROUNDS / 10;
}

/* Destructors run in the order of their keys: this one before the allocator's. */
static void exit_begins(void *argument)
{
    struct worker *self = argument;
    trapped = 0;
    self->faults_at_exit = own_faults();
}

/* And this one after it. */
static void exit_ends(void *argument)
{
    struct worker *self = argument;
    self->faults_at_exit = own_faults() - self->faults_at_exit;
    self->calls_at_exit = trapped;
    atomic_store_explicit(&self->state, DONE, memory_order_release);
    (void)syscall(SYS_exit, 0);
}

static void *worker_main(void *argument)
{
    struct worker *self = argument;
    fault_stack_in();
    CHECK_EQ(pthread_setspecific(before_allocator, self), 0);
    CHECK_EQ(pthread_setspecific(after_allocator, self), 0);
    atomic_store_explicit(&self->state, READY, memory_order_release);
    while (atomic_load_explicit(&all_may_go, memory_order_acquire) == 0) {
        sched_yield();
    }
    if (!close_the_gate()) {
        _exit(HARNESS_EXIT_SKIPPED);
    }
    trapped = 0;
    (void)syscall(SYS_getppid);
    self->deliberate = trapped;
    (void)own_faults();
    trapped = 0;
    long before = own_faults();
    work(self);
    self->faults_at_work = own_faults() - before;
    self->calls_at_work = trapped;
    self->call_number = last_trapped;
    return NULL;
}

/* ---- the child ------------------------------------------------------------------------------- */

static void trap_calls(void)
{
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = on_trap;
    action.sa_flags = SA_SIGINFO;
    CHECK_EQ(sigaction(SIGSYS, &action, NULL), 0);
}

static void open_region(enum hak_pages pages)
{
    struct hak_config config = {.size_bytes = REGION_BYTES, .prefault = HAK_ON};
    struct hak_error error;
    config.pages[0] = pages;
    CHECK_EQ(pthread_key_create(&before_allocator, exit_begins), 0);
    if (hak_region_init(&config) != 0) {
        (void)hak_last_error(&error);
        FAIL("hak_region_init: %s", error.message);
    }
    hak_free(hak_malloc(64)); /* the allocator makes its key with its first thread */
    CHECK_EQ(pthread_key_create(&after_allocator, exit_ends), 0);
}

static void wait_for(enum worker_state state)
{
    for (unsigned n = 0; n < WORKERS; n++) {
        while (atomic_load_explicit(&workers[n].state, memory_order_acquire) != (int)state) {
            usleep(1000);
        }
    }
}

static void check_worker(const struct worker *one)
{
    CHECK_EQ(one->deliberate, 1);
    CHECK(!one->failed);
    if (one->calls_at_work != 0 || one->calls_at_exit != 0) {
        FAIL("%lu system calls at work (the last: number %ld), %lu at the thread's exit",
             one->calls_at_work, one->call_number, one->calls_at_exit);
    }
}

static void quiet_child(void *argument)
{
    pthread_t threads[WORKERS];
    long faults_seen = 0;
    open_region(*(const enum hak_pages *)argument);
    trap_calls();
    fault_program_in();
    for (unsigned n = 0; n < WORKERS; n++) {
        workers[n].number = n;
        CHECK_EQ(pthread_create(&threads[n], NULL, worker_main, &workers[n]), 0);
    }
    wait_for(READY);
    read_maps(maps_before, sizeof maps_before);
    atomic_store_explicit(&all_may_go, 1, memory_order_release);
    wait_for(DONE);
    CHECK_NOTHING_LEFT(); /* no mapping has come or gone */
    for (unsigned n = 0; n < WORKERS; n++) {
        check_worker(&workers[n]);
        faults_seen += workers[n].faults_at_work + workers[n].faults_at_exit;
    }
    if (faults_seen != 0) {
        fprintf(stderr, "%ld page faults\n", faults_seen);
        _exit(EXIT_FAULTS);
    }
    struct hak_stats stats;
    CHECK_EQ(hak_region_stats(NULL, &stats), 0);
    CHECK(stats.large_allocs > 1000 && stats.flushed_objects > 1000 && stats.exhausted >= 100);
    CHECK_EQ(stats.misuses, 0);
}

static void quiet_on(enum hak_pages pages)
{
    static struct harness_result result;
    for (int attempt = 0; attempt < TRIES; attempt++) {
        harness_child(quiet_child, &pages, &result);
        if (result.exit_status != EXIT_FAULTS) {
            break;
        }
    }
    if (result.exit_status == HARNESS_EXIT_SKIPPED) {
        SKIP("seccomp filters are not allowed here");
    }
    if (result.exit_status != 0) {
        FAIL("exit status %d, signal %d, %s: %s", result.exit_status, result.signal,
             result.timed_out ? "out of time" : "in time", result.output);
    }
}

TEST(no_system_call_and_no_fault_on_4_kib_pages)
{
    quiet_on(HAK_PAGES_4K);
}

TEST(no_system_call_and_no_fault_on_transparent_huge_pages)
{
    quiet_on(HAK_PAGES_THP);
}

TEST(no_system_call_and_no_fault_on_2_mib_pages)
{
    want_free(HAK_PAGES_2M, REGION_BYTES / (2 * MIB));
    quiet_on(HAK_PAGES_2M);
}

HARNESS_MAIN()
