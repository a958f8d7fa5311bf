/* SPDX-License-Identifier: MIT */
/*
 * Nothing on the exhaustion ladder allocates or asks the kernel: every rung, the failure at its
 * end and its record, by a thread that a seccomp(2) filter lets make no system call (each is a
 * SIGSYS, counted), in a program whose malloc counts. A deliberate call of each kind shows that
 * they are counted.
 *
 * The filter cannot be taken off, so all this happens in a child, which tells by its exit status.
 */
#include "tests/ladder_kit.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/syscall.h>

/* ---- counting -------------------------------------------------------------------------------- */

static _Atomic unsigned long allocations, trapped;
static volatile int last_trapped;

/* NOLINTBEGIN(readability-*,bugprone-reserved-identifier): the C library's names. */
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *pointer, size_t size);

void *malloc(size_t size)
{
    atomic_fetch_add_explicit(&allocations, 1, memory_order_relaxed);
    return __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
    atomic_fetch_add_explicit(&allocations, 1, memory_order_relaxed);
    return __libc_calloc(count, size);
}

void *realloc(void *pointer, size_t size)
{
    atomic_fetch_add_explicit(&allocations, 1, memory_order_relaxed);
    return __libc_realloc(pointer, size);
}
/* NOLINTEND(readability-*,bugprone-reserved-identifier): as above. */

static void on_trap(int number, siginfo_t *info, void *context)
{
    (void)number;
    (void)context;
    atomic_fetch_add_explicit(&trapped, 1, memory_order_relaxed);
    last_trapped = info->si_syscall;
}

static void close_the_gate(void)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_rt_sigreturn, 2, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit_group, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof code / sizeof *code, code};
    struct sigaction action;

    memset(&action, 0, sizeof action);
    action.sa_sigaction = on_trap;
    action.sa_flags = SA_SIGINFO;
    CHECK_EQ(sigaction(SIGSYS, &action, NULL), 0);
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
        syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) != 0) {
        SKIP("seccomp filters are not allowed here");
    }
}

/* ---- behind the gate: no harness, which would write ------------------------------------------ */

enum step {
    STEP_COUNTERS = 1,
    STEP_OWN,
    STEP_IDLE,
    STEP_MEND,
    STEP_RECLAIMER,
    STEP_OTHER_NODE,
    STEP_NULL,
    STEP_RECORD,
    STEP_STRAY,
};

static const char *const step_names[] = {
    "",          "the counters", "own caches", "idle threads", "mend",
    "reclaimer", "other node",   "NULL",       "the record",   "a thread without a slot"};

/* Exit status: the step that went wrong, and how. */
enum wrong { WRONG_RESULT = 0, WRONG_CALL = 10, WRONG_ALLOCATION = 20 };

static void must(enum step step, bool well)
{
    if (!well) {
        _exit((int)step + 100 + WRONG_RESULT);
    }
    if (atomic_load(&trapped) != 0) {
        _exit((int)step + 100 + WRONG_CALL);
    }
    if (atomic_load(&allocations) != 0) {
        _exit((int)step + 100 + WRONG_ALLOCATION);
    }
}

static void *retake(const struct ladder_ask *ask)
{
    return ladder_hole(ask, ladder_node(0), true);
}

static void release(void)
{
    hak_free_bulk(ladder.got, ladder.got_count);
}

static size_t reclaims;

static void free_hole(hak_region *region, size_t size_bytes, void *argument)
{
    (void)region;
    (void)size_bytes;
    (void)argument;
    reclaims++;
    hak_free(ladder.hole);
    ladder.hole = NULL;
}

static void hide_free_runs(struct segment *segment)
{
    for (unsigned length = 1; length < RUN_LENGTHS; length++) {
        for (uint32_t s = 0; s < segment->superslab_count; s++) {
            (void)bitset_clear(&segment->runs[length], s);
        }
    }
    atomic_store(&segment->lengths, 0);
}

/* By a thread whose slot and all others are taken. */
static void stray(const struct ladder_ask *ask)
{
    struct hak_region *heap = hak_region_default();
    bool small = ask->size <= CLASS_BYTES_MAX;

    thread_detach_all();
    for (uint32_t p = 0; p < heap->pool_count; p++) {
        while (bitset_claim(&heap->pools[p].slots.free, 0) != BITSET_NONE) {
        }
    }
    must(STEP_STRAY, ladder_get(ask, ladder_node(0)) == 0);
    hak_free(ladder.hole);
    hide_free_runs(&heap->area.segments[0]);
    must(STEP_STRAY, ladder_get(ask, ladder_node(0)) == (small ? ladder_wanted(ask) : 1));
}

static void climb(const struct ladder_ask *ask)
{
    struct hak_region *heap = hak_region_default();
    size_t all = ladder_wanted(ask);
    struct hak_error error;

    must(STEP_IDLE, ladder_get(ask, ladder_node(0)) == all); /* a resting thread had the hole */
    release();
    hak_free(hak_malloc(LADDER_HAND)); /* and now this one has */
    must(STEP_OWN, ladder_get(ask, ladder_node(0)) == all);
    release();
    thread_drain(thread_self[0].active);
    hide_free_runs(&heap->area.segments[0]);
    must(STEP_MEND, ladder_get(ask, ladder_node(0)) == all);
    release();
    thread_drain(thread_self[0].active);
    ladder.hole = retake(ask);
    must(STEP_RECLAIMER, ladder.hole != NULL);
    (void)hak_on_exhausted(NULL, free_hole, NULL);
    must(STEP_RECLAIMER, ladder_get(ask, ladder_node(0)) == all && reclaims == 1);
    release();
    (void)hak_on_exhausted(NULL, NULL, NULL);
    thread_drain(thread_self[0].active);
    ladder.hole = retake(ask);
    must(STEP_OTHER_NODE, ladder_get(ask, ladder_node(0)) == all);
    must(STEP_OTHER_NODE, kit_segment(ladder.got[0]) == 1);
    release();
    void *whole = hak_malloc_on_node(LADDER_BYTES, ladder_node(1));
    must(STEP_NULL, whole != NULL && ladder_get(ask, ladder_node(0)) == 0 && errno == ENOMEM);
    must(STEP_RECORD, hak_last_error(&error) == -ENOMEM && error.size_bytes == ask->size);
    stray(ask);
}

/* ---- the child ------------------------------------------------------------------------------- */

static struct kit_turns turns;

static void *rest(void *unused)
{
    CHECK_EQ(hak_thread_pin(0), 0);
    ladder_hand(ladder_node(0));
    hak_thread_idle();
    kit_done(&turns, 1);
    kit_wait(&turns, 2);
    return unused;
}

static void quiet_child(void *argument)
{
    const struct ladder_ask *ask = argument;

    kit_open_two_nodes(2 * LADDER_BYTES, HAK_EXHAUSTED_ANY_NODE);
    CHECK_EQ(hak_thread_pin(0), 0);
    ladder_fill(ask, ladder_node(0), true);
    ladder_open_hole();
    kit_done(&turns, 0);
    (void)kit_thread(rest, NULL);
    kit_wait(&turns, 1);
    close_the_gate();
    allocations = trapped = 0;
    (void)syscall(SYS_getppid);
    void *volatile object = malloc(100); /* which no compiler leaves out */
    free(object);
    if (atomic_load(&trapped) != 1 || atomic_load(&allocations) != 1) {
        _exit(STEP_COUNTERS + 100);
    }
    allocations = trapped = 0;
    climb(ask);
    _exit(0);
}

TEST(no_rung_allocates_or_asks_the_kernel)
{
    static const char *const how[] = {"went wrong", "made a system call", "allocated"};
    static struct harness_result result;

    if (pin_cpu_count() < 2) {
        SKIP("one processor: threads cannot be on two nodes");
    }
    for (size_t n = 0; n < LADDER_ASKS; n++) {
        const struct ladder_ask *ask = &ladder_asks[n];
        if (ask->call == BY_NODE || ask->call == BY_REALLOC) {
            continue; /* never of another node; its object may not be freed and had again */
        }
        harness_child(quiet_child, (void *)ask, &result);
        if (result.exit_status == HARNESS_EXIT_SKIPPED) {
            SKIP("%s", result.output);
        }
        int code = result.exit_status - 100;
        if (result.exit_status > 100 && code < 30 && code % 10 <= STEP_STRAY) {
            FAIL("%s: %s %s", ask->name, step_names[code % 10], how[code / 10]);
        }
        if (result.exit_status != 0) {
            FAIL("%s: exit status %d, signal %d: %s", ask->name, result.exit_status, result.signal,
                 result.output);
        }
    }
}

HARNESS_MAIN()
