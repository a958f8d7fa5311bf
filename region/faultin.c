/* SPDX-License-Identifier: MIT */
/*
 * Each segment is a row of slices; its threads take the next one by an atomic add, populate it and
 * ask for its pages' nodes. The first failure stops everybody at the next slice. The calling
 * thread takes slices itself where threads could not be started, or are not worth it.
 *
 * The binding decides where a page lies; running on the node makes clearing it fast. Called by
 * region/backing.
 */
#include "region/faultin.h"

#include "numa/bind.h"
#include "numa/pin.h"
#include "region/base.h"
#include "region/os.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>

/* A few milliseconds of clearing; a 1 GiB page is a slice of its own. */
#define SLICE_BYTES ((size_t)16 << 20)
#define NODE_THREADS_MAX 16
#define THREADS_MAX (NODE_THREADS_MAX * HAK_NODES_MAX)
/* Addresses, of which a page or two get memory. The program's thread-local variables lie on it
 * too; where they take more, pthread_create says so and the calling thread does the work. */
#define STACK_BYTES ((size_t)2 << 20)

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

static void do_slice(struct row *row, unsigned char *at, size_t bytes)
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
}

static void do_row(struct row *row)
{
    const struct backing_segment *segment = row->segment;
    size_t slice = row->job->slice_bytes;
    while (!atomic_load_explicit(&row->job->stop, memory_order_relaxed)) {
        /* Relaxed: each slice is one thread's; what it wrote is seen after the join. */
        size_t at = atomic_fetch_add_explicit(&row->next_bytes, slice, memory_order_relaxed);
        if (at >= segment->bytes)
            return;
        do_slice(row, segment->start + at, min_size(slice, segment->bytes - at));
    }
}

static void *work(void *argument)
{
    struct row *row = argument;
    /* Not being able to is no failure: only slower. */
    if (row->on_node)
        (void)pin_to_node(row->segment->node);
    do_row(row);
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

/* A thread on a stack of ours, whose lowest page stays without access. */
static bool start_thread(pthread_t *thread, unsigned char *stack, struct row *row)
{
    size_t guard = os_page_bytes();
    pthread_attr_t attributes;
    if (os_commit(stack + guard, STACK_BYTES - guard, HAK_PAGES_4K) != 0)
        return false;
    if (pthread_attr_init(&attributes) != 0)
        return false;
    bool started = pthread_attr_setstack(&attributes, stack + guard, STACK_BYTES - guard) == 0 &&
                   pthread_create(thread, &attributes, work, row) == 0;
    pthread_attr_destroy(&attributes);
    return started;
}

static void run_threads(struct job *job, const unsigned *wanted, unsigned total)
{
    pthread_t threads[THREADS_MAX];
    unsigned started = 0;
    void *stacks = NULL;
    sigset_t all, before;
    if (os_reserve(total * STACK_BYTES, STACK_BYTES, &stacks) != 0)
        return;
    /* The program's signal handlers do not run on these threads. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    for (unsigned i = 0; i < job->count; i++) {
        for (unsigned n = 0; n < wanted[i]; n++) {
            unsigned char *stack = (unsigned char *)stacks + started * STACK_BYTES;
            if (!start_thread(&threads[started], stack, &job->rows[i]))
                break;
            started++;
        }
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    for (unsigned i = 0; i < started; i++)
        pthread_join(threads[i], NULL);
    os_release(stacks, total * STACK_BYTES);
}

int faultin_run(const struct backing_segment *segments, unsigned count, enum hak_pages pages,
                bool verify, struct faultin_failure *failure)
{
    struct job job;
    unsigned wanted[HAK_NODES_MAX] = {0}, total = 0;
    memset(&job, 0, sizeof job);
    job.count = count;
    job.pages = pages;
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
        do_row(&job.rows[i]);
    *failure = job.failure;
    return job.failure.code;
}
