/* SPDX-License-Identifier: MIT */
/* Crews of pinned threads; see workers.h. */
#include "alloc/workers.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "alloc/thread.h"
#include "numa/cores.h"
#include "numa/pin.h"
#include "region/errlog.h"

enum crew_state { CREW_NONE = 0, CREW_STARTING, CREW_RUNNING, CREW_JOINING };

enum gate { GATE_SHUT = 0, GATE_OPEN, GATE_NOBODY };

struct worker {
    pthread_t thread;
    struct crew *crew;
    unsigned number;
    uint16_t cpu;
    int code; /* of its pinning */
};

/* Touched as far as it is used. */
struct crew {
    hak_worker_fn run;
    void *argument;
    /* All under the lock: the gate, and how many wait at it. */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    enum gate gate;
    unsigned waiting;
    unsigned place_count;
    struct topology machine;
    struct pin_mask usable;
    struct cores_place places[TOPOLOGY_CPUS_MAX];
    struct worker workers[WORKERS_MAX];
};

static _Atomic uint32_t crew_state; /* enum crew_state */
/* Belong to whoever made the state STARTING or JOINING. */
static struct crew *crew;
static unsigned crew_count;

static HAK_TLS_FAST bool is_worker;
static pthread_once_t fork_once = PTHREAD_ONCE_INIT;
static int fork_code;

/* ---- a worker -------------------------------------------------------------------------------- */

/* Binds the calling thread to a processor, whose node is its home from now on. */
static int sit_on(int cpu)
{
    int code = pin_thread(cpu);

    if (code == 0) {
        thread_enter();
        thread_rehome_all();
        thread_leave();
    }
    return code;
}

/* Says that it has come and waits until the gate moves; true: in. */
static bool pass_gate(struct crew *mine)
{
    bool open;

    pthread_mutex_lock(&mine->lock);
    mine->waiting++;
    pthread_cond_broadcast(&mine->changed);
    while (mine->gate == GATE_SHUT) {
        pthread_cond_wait(&mine->changed, &mine->lock);
    }
    open = mine->gate == GATE_OPEN;
    pthread_mutex_unlock(&mine->lock);
    return open;
}

static void *work(void *argument)
{
    struct worker *self = argument;
    hak_worker_fn run = self->crew->run;
    void *run_argument = self->crew->argument;
    unsigned number = self->number;
    char name[24]; /* "hakmem-8191" at most; the kernel takes 15 characters */

    snprintf(name, sizeof(name), "hakmem-%u", number);
    pthread_setname_np(pthread_self(), name);
    is_worker = true;
    self->code = sit_on(self->cpu);
    if (pass_gate(self->crew)) {
        /* The crew's memory is not looked at any more: in a child of fork it is gone. */
        run(number, run_argument);
    }
    return NULL;
}

/* ---- the gate, from outside ------------------------------------------------------------------ */

static void wait_for(struct crew *mine, unsigned count)
{
    pthread_mutex_lock(&mine->lock);
    while (mine->waiting < count) {
        pthread_cond_wait(&mine->changed, &mine->lock);
    }
    pthread_mutex_unlock(&mine->lock);
}

static void move_gate(struct crew *mine, enum gate gate)
{
    pthread_mutex_lock(&mine->lock);
    mine->gate = gate;
    pthread_cond_broadcast(&mine->changed);
    pthread_mutex_unlock(&mine->lock);
}

static void join_all(struct crew *mine, unsigned count)
{
    for (unsigned n = 0; n < count; n++) {
        pthread_join(mine->workers[n].thread, NULL);
    }
}

/* ---- starting -------------------------------------------------------------------------------- */

/* Nodes of the default region; all where there is none. */
static uint64_t nodes_wanted(void)
{
    uint64_t nodes = UINT64_MAX;

    thread_enter(); /* the region may end meanwhile, but not while we look */
    const struct hak_region *heap = atomic_load_explicit(&heap_default, memory_order_acquire);
    if (heap != NULL) {
        nodes = 0;
        for (uint32_t n = 0; n < heap->area.segment_count; n++) {
            nodes |= (uint64_t)1 << heap->area.segments[n].node;
        }
    }
    thread_leave();
    return nodes;
}

/* Starts so many and waits until all have come to the gate; how many there are is in *started. */
static int create_all(struct crew *mine, unsigned count, unsigned *started)
{
    int code = 0;

    mine->gate = GATE_SHUT;
    mine->waiting = 0;
    for (*started = 0; *started < count; ++*started) {
        struct worker *worker = &mine->workers[*started];
        worker->crew = mine;
        worker->number = *started;
        worker->cpu = mine->places[*started % mine->place_count].cpu;
        worker->code = 0;
        code = -pthread_create(&worker->thread, NULL, work, worker);
        if (code != 0) {
            break;
        }
    }
    wait_for(mine, *started);
    return code;
}

/* Takes the processors on which a worker could not sit out of those that are usable; their number.
 * The pinning's own word in *code. */
static unsigned forget_refused(struct crew *mine, unsigned started, int *code)
{
    unsigned refused = 0;

    for (unsigned n = 0; n < started; n++) {
        if (mine->workers[n].code != 0) {
            *code = mine->workers[n].code;
            pin_mask_remove(&mine->usable, mine->workers[n].cpu);
            refused++;
        }
    }
    return refused;
}

static int fail_create(struct hak_error *error, int code, unsigned started, unsigned count)
{
    errlog_fail(error, code, HAK_ERROR_SETUP,
                "hak_worker_start: thread %u of %u could not be started (pthread_create: %s); none "
                "of them runs",
                started + 1, count, strerrordesc_np(-code));
    errlog_append(error->remedy, sizeof(error->remedy),
                  "ulimit -u unlimited  # processes of this user; see also RLIMIT_AS (ulimit -v)\n"
                  "sysctl -w kernel.threads-max=%u\n"
                  "cat /proc/%d/cgroup  # its pids.max, under /sys/fs/cgroup",
                  4 * WORKERS_MAX, (int)getpid());
    return code;
}

/* A crew that has been let in, *count set where it was 0; or none, and why. */
static int gather(struct crew *mine, unsigned *count, struct hak_error *error)
{
    unsigned wanted, started;
    int refusal = -ENODEV;

    for (;;) {
        mine->place_count = cores_order(CORES_SYSFS, &mine->machine, &mine->usable, nodes_wanted(),
                                        mine->places);
        if (mine->place_count == 0) {
            return errlog_fail(error, -ENODEV, HAK_ERROR_SETUP,
                               "hak_worker_start: no processor may be used (%s); see the process's "
                               "cpuset and the affinity that it was started with",
                               strerrordesc_np(-refusal));
        }
        wanted = *count != 0 ? *count : mine->place_count;
        int code = create_all(mine, wanted, &started);
        if (code == 0 && forget_refused(mine, started, &refusal) == 0) {
            *count = wanted;
            move_gate(mine, GATE_OPEN);
            return 0;
        }
        move_gate(mine, GATE_NOBODY);
        join_all(mine, started);
        if (code != 0) {
            return fail_create(error, code, started, wanted);
        }
    }
}

/* First the pointer: a child of a fork in between must not give back what is gone already. */
static void free_crew(void)
{
    struct crew *mine = crew;

    crew = NULL;
    backing_table_free(mine, sizeof(*mine), TABLE_ANYWHERE);
}

/* In a child of fork no crew came along, whatever it was doing. */
static void forget_crew(void)
{
    if (crew != NULL) {
        free_crew();
    }
    is_worker = false;
    atomic_store_explicit(&crew_state, CREW_NONE, memory_order_relaxed);
}

static void watch_forks(void)
{
    fork_code = -pthread_atfork(NULL, NULL, forget_crew);
}

/* Not from the first crew on: a fork while that one is being started would leave it so. */
__attribute__((constructor)) static void watch_forks_from_the_start(void)
{
    pthread_once(&fork_once, watch_forks);
}

static int start(unsigned count, hak_worker_fn run, void *argument, struct hak_error *error)
{
    void *memory;
    int code;

    pthread_once(&fork_once, watch_forks);
    code = fork_code != 0 ? fork_code
                          : backing_table(sizeof(struct crew), -1, false, HAK_PAGES_4K,
                                          TABLE_ANYWHERE, &memory);
    if (code != 0) {
        return errlog_fail(error, code, HAK_ERROR_SETUP,
                           "hak_worker_start: no memory for the workers' books (%zu bytes)",
                           sizeof(struct crew));
    }
    crew = memory;
    crew->run = run;
    crew->argument = argument;
    pthread_mutex_init(&crew->lock, NULL);
    pthread_cond_init(&crew->changed, NULL);
    pin_original(&crew->usable);
    code = topology_read(&crew->machine);
    if (code != 0) {
        errlog_fail(error, code, HAK_ERROR_SETUP, "the machine's nodes cannot be read");
    } else {
        code = gather(crew, &count, error);
    }
    if (code != 0) {
        free_crew();
    }
    crew_count = count;
    return code;
}

/* ---- entry points ---------------------------------------------------------------------------- */

/* Keeps the record of a failure. */
static int finish(int code, const struct hak_error *error)
{
    if (code != 0) {
        errlog_store(error);
    }
    return code;
}

/* From one state to another; false where it was a third one. */
static bool advance(enum crew_state from, enum crew_state to)
{
    uint32_t expected = from;

    /* Acquire and release: label CREW. Who gets the state finds crew and crew_count as the one
     * before left them. */
    return atomic_compare_exchange_strong_explicit(&crew_state, &expected, to, memory_order_acq_rel,
                                                   memory_order_relaxed);
}

int hak_worker_start(unsigned count, hak_worker_fn run, void *argument)
{
    struct hak_error error;
    int code, cancel;

    if (run == NULL || count > WORKERS_MAX) {
        code = errlog_fail(&error, -EINVAL, HAK_ERROR_SETUP,
                           run == NULL ? "hak_worker_start: run is NULL"
                                       : "hak_worker_start: %u workers are more than %d",
                           count, WORKERS_MAX);
        return finish(code, &error);
    }
    if (!advance(CREW_NONE, CREW_STARTING)) {
        code = errlog_fail(&error, -EBUSY, HAK_ERROR_SETUP,
                           "hak_worker_start: workers were started and not joined; call "
                           "hak_worker_join first");
        return finish(code, &error);
    }
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
    code = start(count, run, argument, &error);
    /* CREW */
    atomic_store_explicit(&crew_state, code == 0 ? CREW_RUNNING : CREW_NONE, memory_order_release);
    pthread_setcancelstate(cancel, NULL);
    return finish(code, &error);
}

int hak_worker_join(void)
{
    struct hak_error error;
    int code, cancel;

    if (is_worker) {
        code = errlog_fail(&error, -EDEADLK, HAK_ERROR_SETUP,
                           "hak_worker_join: called by a worker, which would wait for itself");
        return finish(code, &error);
    }
    if (!advance(CREW_RUNNING, CREW_JOINING)) {
        code = errlog_fail(&error, -ESRCH, HAK_ERROR_SETUP,
                           "hak_worker_join: there are no workers, or another thread waits for "
                           "them already");
        return finish(code, &error);
    }
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
    join_all(crew, crew_count);
    free_crew();
    /* CREW */
    atomic_store_explicit(&crew_state, CREW_NONE, memory_order_release);
    pthread_setcancelstate(cancel, NULL);
    return 0;
}

int hak_thread_pin(int cpu)
{
    int code = sit_on(cpu);

    if (code != 0) {
        struct hak_error error;
        errlog_fail(&error, code, HAK_ERROR_SETUP, "hak_thread_pin: processor %d: %s", cpu,
                    strerrordesc_np(-code));
        errlog_store(&error);
    }
    return code;
}
