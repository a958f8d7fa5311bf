/* SPDX-License-Identifier: MIT */
/*
 * The demo's parts: pages it borrows from the kernel (demo_pages.c), the meter that counts system
 * calls and page faults (demo_meter.c), the workers and their work (demo_work.c), and the story and
 * the table (demo.c).
 *
 * Two crews of workers, one per processor each, do the same work: one with hakmem, one with libc's
 * malloc. They take turns; the one that waits sleeps. hakmem's crew works under the meter.
 */
#ifndef HAK_TOOLS_DEMO_H
#define HAK_TOOLS_DEMO_H

#include <pthread.h>

#include "bench/histogram.h"
#include "bench/ring.h"

/* ---- huge pages borrowed for the run ------------------------------------------------------- */

/*
 * Sees to it that bytes of free 2 MiB pages are there, raising nr_hugepages where they are not, and
 * gives back what it added when the process ends: at exit, on a signal that ends it, on a crash.
 * True when they are there. story (one line) says what was done or why it could not be.
 */
bool pages_borrow(size_t bytes, char *story, size_t story_bytes);
/* Gives them back now; nothing the second time. */
void pages_return(void);

/* Bytes that the kernel could still hand out. */
size_t pages_available_bytes(void);

/* ---- the meter ----------------------------------------------------------------------------- */

/* One per worker; written by its worker, except for what the supervisor writes while the worker is
 * stopped in a call. */
struct meter_probe {
    _Atomic int thread;     /* the kernel's number for the worker, 0 before it signs on */
    _Atomic int measuring;  /* 1 between meter_begin and meter_end */
    _Atomic uint64_t calls; /* system calls while measuring */
    _Atomic int last_call;  /* number of the last of them */
    uint64_t faults;        /* page faults while measuring */
    long faults_before;
    bool saw_call, saw_fault; /* it counted a deliberate one of each */
};

/*
 * Makes every system call of the calling thread, and of threads that it creates from now on, pass
 * a supervisor thread, which counts those of measuring workers and lets them go on (seccomp(2),
 * user notification; Linux 5.5). Call from a thread that may be spoilt for the rest of its life. 0
 * or a negative errno: then calls cannot be counted.
 */
int meter_attach(struct meter_probe *const *probes, unsigned count);

/* The worker's thread signs on and makes one deliberate system call and one page fault, to see that
 * both are seen. counted: meter_attach succeeded. */
void meter_sign_on(struct meter_probe *probe, bool counted);
void meter_begin(struct meter_probe *probe);
void meter_end(struct meter_probe *probe);

/* Makes the program's own code, data and stack present, so that the first call of a function is no
 * page fault. Before the region exists: what hakmem sets up is not touched. */
void meter_settle_program(void);

/* ---- the work ------------------------------------------------------------------------------ */

enum demo_job {
    JOB_FILL,    /* the working set's objects */
    JOB_MIXED,   /* random replacements, 16 to 1,040 bytes */
    JOB_FOREIGN, /* 64-byte objects that the next worker frees */
    JOB_LATENCY, /* replacements, every call timed */
    JOB_SIZES,   /* every size to 8 MiB, every kind of call */
    JOB_EMPTY,   /* everything is freed */
    JOB_LEAVE
};

#define DEMO_WORKING_SET 8192u

struct demo_crew;

struct demo_worker {
    struct demo_crew *crew;
    void **slots; /* DEMO_WORKING_SET objects */
    struct ring *inbox, *outbox;
    struct histogram *mallocs, *frees;
    uint64_t random;
    int cpu;
    unsigned node; /* the processor's, as the kernel says */
    uint64_t done; /* of the last job */
    double seconds;
    struct meter_probe probe;
} CACHE_ALIGNED;

struct demo_crew {
    bool hakmem; /* else libc */
    unsigned count;
    struct demo_worker *workers;
    int meter_error; /* 0: its system calls are counted */
    enum demo_job job;
    _Atomic int stop;
    pthread_t foreman; /* creates the workers and is spoilt by the meter in their place */
    pthread_barrier_t start, end;
};

void crew_start(struct demo_crew *crew, bool hakmem, unsigned count);
/* Has every worker do the job, for so long where it is one that goes on until told; returns what
 * they did together a second. */
double crew_run(struct demo_crew *crew, enum demo_job job, unsigned milliseconds);
/* Objects the crew allocated, or freed, in its last job. */
uint64_t crew_done(const struct demo_crew *crew);
void crew_leave(struct demo_crew *crew);

#endif
