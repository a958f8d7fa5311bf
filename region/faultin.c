/* SPDX-License-Identifier: MIT */
/*
 * Each segment is a row of slices; its threads take the next one by an atomic add, populate it and
 * ask for its pages' nodes. The first failure stops everybody at the next slice. The calling
 * thread waits, and shows how far they are; it takes slices itself where threads could not be
 * started, or are not worth it.
 *
 * The binding decides where a page lies; running on the node makes clearing it fast. Called by
 * region/backing.
 */
#define _GNU_SOURCE
#include "region/faultin.h"

#include "numa/bind.h"
#include "numa/pin.h"
#include "region/base.h"
#include "region/os.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <time.h>

/* A few milliseconds of clearing; a 1 GiB page is a slice of its own. */
#define SLICE_BYTES ((size_t)16 << 20)
/* One thread for each processor of the node, up to this: a processor clears some 8 GiB/s, so that
 * 64 of them clear more than the memory of a node takes, be it twelve channels of DDR5 at 38 GiB/s.
 * More only wait for each other at the kernel's locks. */
#define NODE_THREADS_MAX 64
/* Addresses, of which a page or two get memory. The program's thread-local variables lie on it
 * too; where they take more, pthread_create says so and the calling thread does the work. */
#define STACK_BYTES ((size_t)2 << 20)
/* Between two looks at how far they are. */
#define LOOK_NS 100000000

struct row {
    const struct backing_segment *segment;
    _Atomic size_t next_bytes;
    struct job *job;
    bool on_node; /* the node has processors for us */
};

struct job {
    struct row rows[HAK_NODES_MAX];
    unsigned count;
    enum hak_pages pages;
    size_t slice_bytes;
    size_t verify_bytes; /* 0: do not */
    atomic_bool stop;
    _Atomic uint64_t done_bytes;
    struct progress *progress;      /* NULL: nobody wants to know */
    struct faultin_failure failure; /* written by whoever sets stop */
};

static void fail(struct row *row, int code, size_t wrong)
{
    /* Relaxed: the failure is read after the threads were joined. */
    if (atomic_exchange_explicit(&row->job->stop, true, memory_order_relaxed))
        return;
    row->job->failure.code = code;
    row->job->failure.node = row->segment->node;
    row->job->failure.wrong_pages = wrong;
}

/* Whether it is done. */
static bool do_slice(struct row *row, unsigned char *at, size_t bytes)
{
    size_t wrong = 0;
    bool hugetlb = os_pages_hugetlb(row->job->pages);
    int code = os_populate(at, bytes, hugetlb);
    /* The kernel's word for a hugetlb page that would have been a SIGBUS. */
    if (code == -EFAULT && hugetlb)
        code = -ENOMEM;
    if (code == 0 && row->job->verify_bytes != 0)
        code = bind_verify(at, bytes, row->job->verify_bytes, row->segment->node, &wrong);
    if (code == 0 && wrong != 0)
        code = -EIO;
    if (code != 0)
        fail(row, code, wrong);
    return code == 0;
}

/* Only the thread that makes the region calls this. Relaxed: a figure. */
static void show(struct job *job)
{
    if (job->progress != NULL)
        progress_step(job->progress, atomic_load_explicit(&job->done_bytes, memory_order_relaxed),
                      os_now_ns());
}

/* shows: the thread that makes the region, and may tell. */
static void do_row(struct row *row, bool shows)
{
    const struct backing_segment *segment = row->segment;
    struct job *job = row->job;
    while (!atomic_load_explicit(&job->stop, memory_order_relaxed)) {
        /* Relaxed: each slice is one thread's; what it wrote is seen after the join. */
        size_t at = atomic_fetch_add_explicit(&row->next_bytes, job->slice_bytes,
                                              memory_order_relaxed);
        if (at >= segment->bytes)
            return;
        size_t bytes = min_size(job->slice_bytes, segment->bytes - at);
        if (do_slice(row, segment->start + at, bytes))
            atomic_fetch_add_explicit(&job->done_bytes, bytes, memory_order_relaxed);
        if (shows)
            show(job);
    }
}

static void *work(void *argument)
{
    struct row *row = argument;
    /* Not being able to is no failure: only slower. */
    if (row->on_node)
        (void)pin_to_node(row->segment->node);
    do_row(row, false);
    return NULL;
}

static unsigned thread_count(struct row *row)
{
    size_t slices = (row->segment->bytes + row->job->slice_bytes - 1) / row->job->slice_bytes;
    unsigned cpus = pin_node_cpu_count(row->segment->node);
    row->on_node = cpus > 0;
    if (cpus == 0)
        cpus = pin_cpu_count();
    return (unsigned)min_size(slices, min_size(cpus, NODE_THREADS_MAX));
}

/* ---- the threads --------------------------------------------------------------------------- */

/* One mapping: the threads' stacks, then their handles. */
struct crew {
    void *memory;
    size_t bytes;
    pthread_t *threads;
    unsigned room, started;
};

static unsigned char *stack_of(const struct crew *crew, unsigned n)
{
    return (unsigned char *)crew->memory + n * STACK_BYTES;
}

/* Each stack but its lowest page, which stays without access; and the handles. Before the first
 * thread starts: while one populates, a change to what is mapped has to wait. */
static int commit_crew(const struct crew *crew, size_t handle_bytes)
{
    size_t guard = os_page_bytes();
    int code = os_commit(crew->threads, handle_bytes, HAK_PAGES_4K);
    for (unsigned n = 0; code == 0 && n < crew->room; n++)
        code = os_commit(stack_of(crew, n) + guard, STACK_BYTES - guard, HAK_PAGES_4K);
    return code;
}

/* For half as many threads, and so on, where the process may not have the addresses. */
static bool open_crew(struct crew *crew, unsigned total)
{
    crew->started = 0;
    for (crew->room = total; crew->room > 1; crew->room /= 2) {
        size_t handle_bytes = round_up(crew->room * sizeof(pthread_t), os_page_bytes());
        crew->bytes = crew->room * STACK_BYTES + handle_bytes;
        if (os_reserve(crew->bytes, STACK_BYTES, &crew->memory) != 0)
            continue;
        crew->threads = (pthread_t *)(uintptr_t)stack_of(crew, crew->room);
        if (commit_crew(crew, handle_bytes) == 0)
            return true;
        os_release(crew->memory, crew->bytes);
    }
    return false;
}

static bool start_thread(struct crew *crew, struct row *row)
{
    size_t guard = os_page_bytes();
    unsigned char *stack = stack_of(crew, crew->started);
    pthread_attr_t attributes;
    if (crew->started == crew->room || pthread_attr_init(&attributes) != 0)
        return false;
    bool started = pthread_attr_setstack(&attributes, stack + guard, STACK_BYTES - guard) == 0 &&
                   pthread_create(&crew->threads[crew->started], &attributes, work, row) == 0;
    pthread_attr_destroy(&attributes);
    crew->started += started;
    return started;
}

/* The rows' first threads, their second ones ...: where there is not room for all, every node has
 * some. */
static void start_threads(struct crew *crew, struct job *job, const unsigned *wanted)
{
    sigset_t all, before;
    /* The program's signal handlers do not run on these threads. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    bool going_on = true;
    for (unsigned n = 0; going_on && n < NODE_THREADS_MAX; n++)
        for (unsigned i = 0; going_on && i < job->count; i++)
            if (n < wanted[i])
                going_on = start_thread(crew, &job->rows[i]);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static void join(pthread_t thread, struct job *job)
{
    while (job->progress != NULL) {
        struct timespec until;
        /* The only clock that it takes. When that is set back a look comes late, the end never. */
        (void)clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += LOOK_NS;
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        int code = pthread_timedjoin_np(thread, NULL, &until);
        if (code == 0)
            return;
        if (code != ETIMEDOUT)
            break;
        show(job);
    }
    pthread_join(thread, NULL);
}

static void run_threads(struct job *job, const unsigned *wanted, unsigned total)
{
    struct crew crew;
    if (!open_crew(&crew, total))
        return;
    start_threads(&crew, job, wanted);
    for (unsigned i = 0; i < crew.started; i++)
        join(crew.threads[i], job);
    os_release(crew.memory, crew.bytes);
}

int faultin_run_shown(const struct backing_segment *segments, unsigned count, enum hak_pages pages,
                      bool verify, struct progress *progress, struct faultin_failure *failure)
{
    struct job job;
    unsigned wanted[HAK_NODES_MAX] = {0}, total = 0;
    memset(&job, 0, sizeof job);
    job.count = count;
    job.pages = pages;
    job.progress = progress;
    job.slice_bytes = max_size(SLICE_BYTES, os_pages_bytes(pages));
    /* Under THP some parts may be small pages: ask for each. */
    job.verify_bytes = verify ? os_pages_bytes(pages) : 0;
    for (unsigned i = 0; i < count; i++) {
        job.rows[i].segment = &segments[i];
        job.rows[i].job = &job;
        wanted[i] = thread_count(&job.rows[i]);
        total += wanted[i];
    }
    /* A single slice is done sooner than a thread is made. */
    if (total > 1)
        run_threads(&job, wanted, total);
    for (unsigned i = 0; i < count; i++)
        do_row(&job.rows[i], true);
    if (progress != NULL)
        progress_end(progress, atomic_load_explicit(&job.done_bytes, memory_order_relaxed),
                     os_now_ns());
    *failure = job.failure;
    return job.failure.code;
}

int faultin_run(const struct backing_segment *segments, unsigned count, enum hak_pages pages,
                bool verify, struct faultin_failure *failure)
{
    return faultin_run_shown(segments, count, pages, verify, NULL, failure);
}
