/* SPDX-License-Identifier: MIT */
/*
 * The demo's workers: what they do, once with hakmem and once with libc.
 *
 * Every job is written once, as a function that is given malloc and free and inlined into a caller
 * that names them, so both crews run the same instructions around direct calls. All that the
 * harness itself needs is mapped and touched beforehand.
 */
#define _GNU_SOURCE

#include <signal.h>

#include <hakmem.h>

#include "bench/cycles.h"
#include "tools/demo.h"

#define CHUNK 1024u /* steps between two looks at the clock's word */
#define OBJECT_BYTES 64u
#define LARGEST_LOG2 23u
#define BULK 64u

typedef void *allocate_function(size_t size);
typedef void release_function(void *object);

HAK_INLINE void *checked(void *pointer, size_t size, uint64_t mark)
{
    char *object = pointer;
    if (unlikely(object == NULL))
        bench_fail("out of memory at %zu bytes: the region is too small for so many workers", size);
    object[0] = (char)mark;
    object[size - 1] = (char)mark;
    return object;
}

HAK_INLINE size_t mixed_size(uint64_t random)
{
    return 16 + bench_below((uint32_t)random, 1025);
}

HAK_INLINE bool go_on(const struct demo_worker *worker)
{
    /* relaxed: nothing else is read on the strength of it. */
    return atomic_load_explicit(&worker->crew->stop, memory_order_relaxed) == 0;
}

HAK_INLINE void fill(struct demo_worker *worker, allocate_function *allocate)
{
    for (unsigned i = 0; i < DEMO_WORKING_SET; i++) {
        uint64_t random = bench_next(&worker->random);
        size_t size = mixed_size(random);
        worker->slots[i] = checked(allocate(size), size, random);
    }
    worker->done = DEMO_WORKING_SET;
}

HAK_INLINE void mixed(struct demo_worker *worker, allocate_function *allocate,
                      release_function *release)
{
    void **slots = worker->slots;
    uint64_t random = worker->random;
    uint64_t done = 0;
    for (; go_on(worker); done += CHUNK) {
        for (unsigned i = 0; i < CHUNK; i++) {
            bench_next(&random);
            uint32_t slot = bench_below((uint32_t)(random >> 32), DEMO_WORKING_SET);
            size_t size = mixed_size(random);
            release(slots[slot]);
            slots[slot] = checked(allocate(size), size, random);
        }
    }
    worker->random = random;
    worker->done = done;
}

HAK_INLINE uint64_t empty_inbox(struct ring *inbox, release_function *release)
{
    uint64_t freed = 0;
    void **block;
    while ((block = ring_block(inbox)) != NULL) {
        for (unsigned i = 0; i < RING_BLOCK; i++)
            release(block[i]);
        ring_retire(inbox);
        freed += RING_BLOCK;
    }
    return freed;
}

/* Nobody waits for anybody: a full outbox means that it is time to look into the inbox. */
HAK_INLINE void foreign(struct demo_worker *worker, allocate_function *allocate,
                        release_function *release)
{
    uint64_t done = 0;
    while (go_on(worker)) {
        void **space = ring_space(worker->outbox);
        if (space != NULL) {
            for (unsigned i = 0; i < RING_BLOCK; i++)
                space[i] = checked(allocate(OBJECT_BYTES), OBJECT_BYTES, i);
            ring_publish(worker->outbox);
        }
        done += empty_inbox(worker->inbox, release);
    }
    worker->done = done;
}

HAK_INLINE void timed(struct demo_worker *worker, allocate_function *allocate,
                      release_function *release)
{
    uint64_t done = 0;
    for (; go_on(worker); done += CHUNK) {
        for (unsigned i = 0; i < CHUNK; i++) {
            uint64_t random = bench_next(&worker->random);
            uint32_t slot = bench_below((uint32_t)(random >> 32), DEMO_WORKING_SET);
            size_t size = mixed_size(random);
            void *old = worker->slots[slot];
            uint64_t start = cycles_begin();
            release(old);
            uint64_t end = cycles_end();
            histogram_record(worker->frees, end - start);
            start = cycles_begin();
            void *object = allocate(size);
            end = cycles_end();
            histogram_record(worker->mallocs, end - start);
            worker->slots[slot] = checked(object, size, random);
        }
    }
    worker->done = done;
}

HAK_INLINE void empty(struct demo_worker *worker, release_function *release)
{
    for (unsigned i = 0; i < DEMO_WORKING_SET; i++)
        release(worker->slots[i]);
    worker->done = DEMO_WORKING_SET + empty_inbox(worker->inbox, release);
}

/* hakmem's other calls, over all sizes: they too must stay away from the kernel. */
static void every_size(struct demo_worker *worker)
{
    void *bulk[BULK];
    worker->done = 0;
    for (size_t size = 1; size <= (size_t)1 << LARGEST_LOG2; size += size / 3 + 1) {
        void *object = checked(hak_malloc(size), size, size);
        object = checked(hak_realloc(object, size + size / 2), size + size / 2, size);
        hak_free(object);
        hak_free(checked(hak_calloc(1, size), size, size));
        hak_free_sized(checked(hak_aligned_alloc(4096, size), size, size), size);
        size_t count = size <= 16384 ? hak_malloc_bulk(size, BULK, bulk) : 0;
        hak_free_bulk(bulk, count);
        worker->done += 4 + count;
    }
}

static void do_hakmem_job(struct demo_worker *worker, enum demo_job job)
{
    if (job == JOB_FILL)
        fill(worker, hak_malloc);
    else if (job == JOB_MIXED)
        mixed(worker, hak_malloc, hak_free);
    else if (job == JOB_FOREIGN)
        foreign(worker, hak_malloc, hak_free);
    else if (job == JOB_LATENCY)
        timed(worker, hak_malloc, hak_free);
    else if (job == JOB_SIZES)
        every_size(worker);
    else
        empty(worker, hak_free);
}

static void do_libc_job(struct demo_worker *worker, enum demo_job job)
{
    if (job == JOB_FILL)
        fill(worker, malloc);
    else if (job == JOB_MIXED)
        mixed(worker, malloc, free);
    else if (job == JOB_FOREIGN)
        foreign(worker, malloc, free);
    else if (job == JOB_LATENCY)
        timed(worker, malloc, free);
    else
        empty(worker, free);
}

static void pin(struct demo_worker *worker)
{
    int error = 0;
    if (worker->crew->hakmem)
        error = hak_thread_pin(worker->cpu);
    else
        bench_pin(worker->cpu);
    if (error != 0)
        bench_fail("cannot pin a worker to processor %d: %s", worker->cpu, strerror(-error));
    if (getcpu(NULL, &worker->node) != 0)
        worker->node = 0; /* a kernel without nodes */
}

static void *work(void *context)
{
    struct demo_worker *worker = context;
    struct demo_crew *crew = worker->crew;
    pin(worker);
    if (crew->hakmem)
        meter_sign_on(&worker->probe, crew->meter_error == 0);
    for (;;) {
        pthread_barrier_wait(&crew->start);
        enum demo_job job = crew->job;
        if (job == JOB_LEAVE)
            return NULL;
        uint64_t start_ns = bench_now_ns();
        if (crew->hakmem) {
            meter_begin(&worker->probe);
            do_hakmem_job(worker, job);
            meter_end(&worker->probe);
        } else {
            do_libc_job(worker, job);
        }
        worker->seconds = (double)(bench_now_ns() - start_ns) / 1e9;
        pthread_barrier_wait(&crew->end);
    }
}

/* The thread that the workers inherit the filter from. */
static void *lead(void *context)
{
    struct demo_crew *crew = context;
    if (crew->hakmem) {
        static struct meter_probe *probes[BENCH_THREADS_MAX];
        for (unsigned i = 0; i < crew->count; i++)
            probes[i] = &crew->workers[i].probe;
        crew->meter_error = meter_attach(probes, crew->count);
    }
    bench_run(crew->count, work, crew->workers, sizeof crew->workers[0]);
    return NULL;
}

void crew_start(struct demo_crew *crew, bool hakmem, unsigned count)
{
    *crew = (struct demo_crew){.hakmem = hakmem, .count = count};
    crew->workers = bench_map(count * sizeof crew->workers[0]);
    struct ring *rings = bench_map(count * sizeof *rings);
    for (unsigned i = 0; i < count; i++) {
        struct demo_worker *worker = &crew->workers[i];
        worker->crew = crew;
        worker->slots = bench_map(DEMO_WORKING_SET * sizeof(void *));
        worker->inbox = &rings[i];
        worker->outbox = &rings[(i + 1) % count];
        worker->mallocs = bench_map(sizeof *worker->mallocs);
        worker->frees = bench_map(sizeof *worker->frees);
        worker->random = bench_seed(1, i);
        worker->cpu = bench_cpu(i);
    }
    pthread_barrier_init(&crew->start, NULL, count + 1);
    pthread_barrier_init(&crew->end, NULL, count + 1);
    /* Signals from outside are for the main thread: a handler in a worker would count as its work.
     * A worker's own crash has to reach the handler that gives the huge pages back. */
    sigset_t all, before;
    sigfillset(&all);
    static const int own[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGSYS};
    for (unsigned i = 0; i < sizeof own / sizeof own[0]; i++)
        sigdelset(&all, own[i]);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    int error = pthread_create(&crew->foreman, NULL, lead, crew);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error != 0)
        bench_fail("cannot create a thread: %s", strerror(error));
}

double crew_run(struct demo_crew *crew, enum demo_job job, unsigned milliseconds)
{
    struct timespec left = {.tv_sec = milliseconds / 1000,
                            .tv_nsec = (long)(milliseconds % 1000) * 1000000};
    crew->job = job;
    atomic_store_explicit(&crew->stop, 0, memory_order_relaxed); /* the barrier orders it */
    pthread_barrier_wait(&crew->start);
    while (milliseconds != 0 && nanosleep(&left, &left) != 0)
        continue;
    atomic_store_explicit(&crew->stop, 1, memory_order_relaxed); /* see go_on */
    pthread_barrier_wait(&crew->end);
    double rate = 0;
    for (unsigned i = 0; i < crew->count; i++)
        rate += (double)crew->workers[i].done / crew->workers[i].seconds;
    return rate;
}

uint64_t crew_done(const struct demo_crew *crew)
{
    uint64_t done = 0;
    for (unsigned i = 0; i < crew->count; i++)
        done += crew->workers[i].done;
    return done;
}

void crew_leave(struct demo_crew *crew)
{
    crew->job = JOB_LEAVE;
    pthread_barrier_wait(&crew->start);
    pthread_join(crew->foreman, NULL);
}
