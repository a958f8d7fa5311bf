/* SPDX-License-Identifier: MIT */
/* Fibers, the choice of who goes on, the trace; see sim.h. */
#include "tests/sched/sim.h"

#include "tests/sched/switch.h"

#include <link.h>
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <unistd.h>

#define STACK_BYTES ((size_t)256 << 10)
#define POINTS_MOST 400000U
/* What a step takes, on the clock that the library reads. */
#define POINT_NS 1000U
/* An hour, in ticks in which everybody else only waited. */
#define HOUR_TICKS 100
/* Others' points for which one that waits is passed over. */
#define WAIT_POINTS 12
#define CHANGES_MAX 4
#define TRACE_MOST (1U << 16)
/* One weak compare-and-swap in so many fails for no reason. */
#define SPURIOUS 24

enum kind { KIND_RANDOM, KIND_PCT, KIND_BOUNDED, KIND_COUNT };

static const char *const kind_names[2][KIND_COUNT] = {
    {"random", "pct", "bounded"}, {"random, hour", "pct, hour", "bounded, hour"}};

struct fiber {
    void *stack_pointer;
    unsigned char *stack;
    void (*run)(unsigned me);
    uintptr_t thread_pointer;
    unsigned char *locals; /* the program's thread-locals of that thread */
    uint64_t points;
    uint64_t wait_until;
    uint64_t priority;
    bool done, stopped;
};

struct step {
    const struct sim_site *site;
    uint64_t value;
    int fiber;
};

static struct {
    struct fiber fibers[SIM_FIBERS_MAX];
    unsigned count, left;
    int running; /* -1: begin(), end(), or no schedule at all */
    void *main_stack_pointer;
    uintptr_t main_thread_pointer;
    bool pointer_directly; /* sim_set_thread_pointer */

    enum kind kind;
    unsigned calm; /* random: one point in so many */
    uint64_t changes[CHANGES_MAX];
    unsigned change_count;
    uint64_t lowest; /* pct: below all priorities given so far */
    bool hour, stopped_one, may_wait;
    unsigned hour_ticks;
    unsigned victim;
    uint64_t victim_points;

    uint64_t random, points, hash, clock_ns;
    struct step trace[TRACE_MOST];
    struct sim_result *result;
    jmp_buf back;
} sim = {.running = -1};

static struct sim_scene *scenes;
int sim_node[SIM_FIBERS_MAX + 1];
int (*sim_discard)(void *at, size_t bytes);

/* ---- random numbers, and what a scene asks ------------------------------------------------- */

/* A Weyl sequence, mixed by two multiplies, as tests/harness.h has it. */
uint64_t sim_random(void)
{
    uint64_t x = sim.random += 0x9e3779b97f4a7c15U;

    x = (x ^ (x >> 32)) * 0xd6e8feb86659fd93U;
    x = (x ^ (x >> 32)) * 0xd6e8feb86659fd93U;
    return x ^ (x >> 32);
}

unsigned sim_pick(unsigned n)
{
    return (unsigned)(((sim_random() >> 32) * n) >> 32);
}

int sim_me(void)
{
    return sim.running;
}

uint64_t sim_others(void)
{
    return sim.points - (sim.running >= 0 ? sim.fibers[sim.running].points : 0);
}

bool sim_stopped_one(void)
{
    return sim.stopped_one;
}

void sim_may_wait(void)
{
    sim.may_wait = true;
}

void sim_register(struct sim_scene *scene)
{
    struct sim_scene **at = &scenes;

    while (*at != NULL && strcmp((*at)->name, scene->name) < 0) {
        at = &(*at)->next;
    }
    scene->next = *at;
    *at = scene;
}

struct sim_scene *sim_scenes(void)
{
    return scenes;
}

/* ---- switching ------------------------------------------------------------------------------ */

static void **stack_pointer_of(int fiber)
{
    return fiber < 0 ? &sim.main_stack_pointer : &sim.fibers[fiber].stack_pointer;
}

static void go_to(int next)
{
    int from = sim.running;

    sim.running = next;
    sim_set_thread_pointer(next < 0 ? sim.main_thread_pointer : sim.fibers[next].thread_pointer,
                           sim.pointer_directly);
    sim_switch(stack_pointer_of(from), *stack_pointer_of(next));
}

void sim_fail(const char *file, int line, const char *format, ...)
{
    va_list arguments;
    size_t used = 0;

    sim.result->failed = true;
    used = (size_t)snprintf(sim.result->why, sizeof(sim.result->why), "%s:%d: ", file, line);
    if (used < sizeof(sim.result->why)) {
        va_start(arguments, format);
        (void)vsnprintf(sim.result->why + used, sizeof(sim.result->why) - used, format, arguments);
        va_end(arguments);
    }
    if (sim.running >= 0) {
        go_to(-1); /* nobody comes back here */
    }
    longjmp(sim.back, 1);
}

/* ---- who goes on ---------------------------------------------------------------------------- */

static bool runnable(unsigned n, bool even_waiting)
{
    const struct fiber *fiber = &sim.fibers[n];

    return n < sim.count && !fiber->done && !fiber->stopped &&
           (even_waiting || fiber->wait_until <= sim.points);
}

/* A set of bits: who could go on. */
static unsigned candidates(void)
{
    unsigned able = 0, waiting = 0;

    for (unsigned n = 0; n < sim.count; n++) {
        able |= (unsigned)runnable(n, false) << n;
        waiting |= (unsigned)runnable(n, true) << n;
    }
    if (able == 0 && waiting != 0) {
        sim.clock_ns += SIM_TICK_NS;
        if (++sim.hour_ticks == HOUR_TICKS && sim.fibers[sim.victim].stopped) {
            if (!sim.may_wait) {
                sim_fail("(wait)", 0, "everybody waits for a thread that is stopped");
            }
            sim.fibers[sim.victim].stopped = false;
        }
        for (unsigned n = 0; n < sim.count; n++) {
            sim.fibers[n].wait_until = 0;
        }
        able = waiting;
    }
    if (able == 0 && sim.left > 0) {
        sim.fibers[sim.victim].stopped = false; /* its hour is over */
        able = 1U << sim.victim;
    }
    return able;
}

static int anybody(unsigned able)
{
    unsigned skip = sim_pick((unsigned)__builtin_popcount(able));

    while (skip-- > 0) {
        able &= able - 1;
    }
    return __builtin_ctz(able);
}

static int highest(unsigned able)
{
    int best = -1;

    for (unsigned n = 0; n < sim.count; n++) {
        if (((able >> n) & 1) && (best < 0 || sim.fibers[n].priority > sim.fibers[best].priority)) {
            best = (int)n;
        }
    }
    return best;
}

static bool change_here(void)
{
    for (unsigned n = 0; n < sim.change_count; n++) {
        if (sim.changes[n] == sim.points) {
            return true;
        }
    }
    return false;
}

/* The fiber for the next step; -1 where all have ended. */
static int choose(void)
{
    unsigned able = candidates();
    bool stays = sim.running >= 0 && ((able >> sim.running) & 1);

    if (able == 0) {
        return -1;
    }
    switch (sim.kind) {
    case KIND_RANDOM:
        return stays && sim.calm > 1 && sim_pick(sim.calm) != 0 ? sim.running : anybody(able);
    case KIND_PCT:
        if (stays && change_here()) {
            sim.fibers[sim.running].priority = --sim.lowest;
        }
        return highest(able);
    case KIND_BOUNDED:
        return stays && !change_here() ? sim.running : anybody(able);
    case KIND_COUNT:
        break;
    }
    return -1;
}

/* Gives way where somebody else was chosen; returns when it is the caller's turn. */
static void turn(void)
{
    int next = choose();

    if (next != sim.running) {
        go_to(next);
    }
}

void sim_point(const struct sim_site *site)
{
    if (sim.running < 0) {
        return;
    }
    struct fiber *me = &sim.fibers[sim.running];
    if (sim.hour && (unsigned)sim.running == sim.victim && me->points == sim.victim_points &&
        sim.left > 1) {
        me->stopped = sim.stopped_one = true;
        sim.hour_ticks = 0;
    }
    turn();
    me->points++;
    sim.points++;
    sim.trace[sim.points % TRACE_MOST] = (struct step){site, 0, sim.running};
    sim.hash = (sim.hash ^ (uint64_t)(sim.running + 1)) * 0x100000001b3U;
    if (sim.points > POINTS_MOST) {
        sim_fail(site->file, site->line, "hangs: no end after %u points", POINTS_MOST);
    }
}

void sim_saw(uint64_t value)
{
    if (sim.running >= 0) {
        sim.trace[sim.points % TRACE_MOST].value = value;
    }
}

bool sim_spurious(void)
{
    if (sim.running < 0 || sim_pick(SPURIOUS) != 0) {
        return false;
    }
    sim.hash = (sim.hash ^ 0xff) * 0x100000001b3U;
    return true;
}

void sim_wait(void)
{
    static const struct sim_site here = {"(wait)", 0, "wait", ""};

    if (sim.running < 0) {
        return;
    }
    /* Its own points do not count: they pass only when others run. */
    sim.fibers[sim.running].wait_until = sim.points + WAIT_POINTS;
    sim_point(&here);
}

/* ---- what the library asks the system, answered by the simulator (--wrap) ------------------- */

int __wrap_sched_yield(void);
void __wrap_os_yield(void);
uint64_t __wrap_os_coarse_ns(void);
int __wrap_topology_current_node(void);
int __wrap_os_discard(void *at, size_t bytes);
int __real_pthread_key_create(pthread_key_t *key, void (*at_exit)(void *));
int __wrap_pthread_key_create(pthread_key_t *key, void (*at_exit)(void *));

int __wrap_sched_yield(void)
{
    sim_wait();
    return 0;
}

void __wrap_os_yield(void)
{
    sim_wait();
}

uint64_t __wrap_os_coarse_ns(void)
{
    return sim.clock_ns + sim.points * POINT_NS;
}

int __wrap_topology_current_node(void)
{
    return sim_node[sim.running + 1];
}

int __wrap_os_discard(void *at, size_t bytes)
{
    return sim_discard != NULL ? sim_discard(at, bytes) : 0;
}

static void (*at_thread_exit)(void *);

/* The library has one key, to hear of threads' exits. */
int __wrap_pthread_key_create(pthread_key_t *key, void (*at_exit)(void *))
{
    at_thread_exit = at_exit;
    return __real_pthread_key_create(key, at_exit);
}

void sim_thread_exit(void)
{
    at_thread_exit(NULL);
}

/* ---- thread-locals --------------------------------------------------------------------------- */

static const unsigned char *locals_image; /* as a new thread finds them */
static size_t locals_image_bytes, locals_bytes;

/* The first object that is told of is the program. */
static int find_locals(struct dl_phdr_info *info, size_t size, void *locals)
{
    (void)size;
    for (unsigned n = 0; n < info->dlpi_phnum; n++) {
        const ElfW(Phdr) *header = &info->dlpi_phdr[n];
        if (header->p_type == PT_TLS) {
            locals_image = (const unsigned char *)(info->dlpi_addr + header->p_vaddr);
            locals_image_bytes = header->p_filesz;
            locals_bytes = header->p_memsz;
        }
    }
    *(unsigned char **)locals = info->dlpi_tls_data;
    return 1;
}

static sem_t lent;

/* A thread that only lends its thread-locals. */
static void *lender(void *argument)
{
    struct fiber *fiber = argument;

    fiber->thread_pointer = sim_thread_pointer();
    (void)dl_iterate_phdr(find_locals, &fiber->locals);
    (void)sem_post(&lent);
    for (;;) {
        (void)pause();
    }
    return NULL;
}

static void borrow_thread(struct fiber *fiber)
{
    pthread_t thread;

    sim.main_thread_pointer = sim_thread_pointer();
    sim.pointer_directly = (getauxval(AT_HWCAP2) >> 1) & 1; /* of x86-64: HWCAP2_FSGSBASE */
    (void)sem_init(&lent, 0, 0);
    if (pthread_create(&thread, NULL, lender, fiber) != 0) {
        perror("a fiber's thread");
        exit(1);
    }
    while (sem_wait(&lent) != 0) {
    }
}

static void borrow_stack(struct fiber *fiber)
{
    fiber->stack = mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
    if (fiber->stack == MAP_FAILED || mprotect(fiber->stack, 4096, PROT_NONE) != 0) {
        perror("a fiber's stack");
        exit(1);
    }
}

/* ---- a schedule ------------------------------------------------------------------------------ */

/* The first thing that a fiber does. */
void sim_begin(void)
{
    struct fiber *me = &sim.fibers[sim.running];

    me->run((unsigned)sim.running);
    me->done = true;
    sim.left--;
    go_to(choose());
    abort(); /* it has ended */
}

void sim_spawn(void (*run)(unsigned me))
{
    struct fiber *fiber = &sim.fibers[sim.count];
    void **frame;

    if (fiber->stack == NULL) {
        borrow_stack(fiber);
        borrow_thread(fiber);
    }
    memcpy(fiber->locals, locals_image, locals_image_bytes);
    memset(fiber->locals + locals_image_bytes, 0, locals_bytes - locals_image_bytes);
    frame = (void **)(void *)(fiber->stack + STACK_BYTES) - sim_frame_words;
    memset(frame, 0, sim_frame_words * sizeof(void *));
    void (*begin)(void) = sim_begin;
    memcpy(&frame[sim_frame_pc], &begin, sizeof(begin));
    *fiber = (struct fiber){.stack_pointer = frame,
                            .stack = fiber->stack,
                            .run = run,
                            .thread_pointer = fiber->thread_pointer,
                            .locals = fiber->locals,
                            .priority = ((uint64_t)1 << 32) + (sim_random() >> 33)};
    sim.count++;
    sim.left++;
}

static uint64_t somewhere(const struct sim_scene *scene)
{
    /* Scenes differ in length from schedule to schedule; what is early is always there. */
    return sim_random() % (((uint64_t)scene->points >> sim_pick(4)) + 2);
}

static void draw_scheduler(const struct sim_scene *scene)
{
    sim.kind = (enum kind)sim_pick(KIND_COUNT);
    sim.hour = sim_pick(4) == 0;
    sim.calm = 1U << sim_pick(4);
    sim.change_count = 1 + sim_pick(sim.kind == KIND_PCT ? CHANGES_MAX : CHANGES_MAX - 1);
    for (unsigned n = 0; n < sim.change_count; n++) {
        sim.changes[n] = somewhere(scene);
    }
    sim.lowest = (uint64_t)1 << 31;
    sim.victim_points = somewhere(scene) / 2;
    sim.result->scheduler = kind_names[sim.hour][sim.kind];
}

void sim_run(const struct sim_scene *scene, uint64_t seed, struct sim_result *result)
{
    *result = (struct sim_result){.failed = false};
    sim.result = result;
    sim.random = seed;
    sim.count = sim.left = 0;
    sim.points = 0;
    sim.hash = 0xcbf29ce484222325U;
    sim.clock_ns = 1000000000U;
    sim.stopped_one = sim.may_wait = false;
    sim.hour_ticks = 0;
    draw_scheduler(scene);
    if (setjmp(sim.back) == 0) {
        scene->begin();
        sim.victim = sim_pick(sim.count);
        int first = choose();
        if (first >= 0) {
            go_to(first);
        }
        if (!result->failed) {
            scene->end();
        }
    }
    sim.running = -1;
    result->hash = sim.hash;
    result->points = sim.points;
}

void sim_print_trace(size_t most)
{
    size_t kept = sim.points < TRACE_MOST - 1 ? sim.points : TRACE_MOST - 1;
    size_t shown = kept < most ? kept : most;

    if (shown < sim.points) {
        printf("    ... the last %zu of %llu points\n", shown, (unsigned long long)sim.points);
    }
    for (uint64_t n = sim.points - shown + 1; n <= sim.points; n++) {
        const struct step *step = &sim.trace[n % TRACE_MOST];
        printf("    %5llu  fiber %d  %s:%d  %s %s = 0x%llx\n", (unsigned long long)n, step->fiber,
               step->site->file, step->site->line, step->site->step, step->site->operand,
               (unsigned long long)step->value);
    }
}
