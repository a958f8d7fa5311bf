/* SPDX-License-Identifier: MIT */
/*
 * How the demo knows that nothing went to the kernel.
 *
 * System calls: the workers live under a seccomp filter that hands every call of theirs, before it
 * is done, to a supervisor thread outside the filter. The supervisor sees which thread calls what;
 * it counts the call where that worker is between meter_begin and meter_end, and lets it go on. A
 * call stops the worker until the supervisor has looked, so none can slip by, and the worker's own
 * marks are exact; a worker that makes no calls is not slowed down at all.
 *
 * Page faults: the kernel's own count for the thread (getrusage, RUSAGE_THREAD), small and large.
 *
 * A meter that reads 0 proves something only if it can read anything else: each worker first makes
 * a call and a fault on purpose, and both have to show.
 */
#define _GNU_SOURCE

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tools/demo.h"

#define PAGE_BYTES 4096u
#define STACK_BYTES (128u << 10)

struct supervisor {
    struct meter_probe *const *probes;
    unsigned count;
    _Atomic int listener; /* the filter's file; -1 before there is one */
    _Atomic int abandoned;
};

static struct supervisor supervisor = {.listener = -1};

static struct meter_probe *find_probe(int thread)
{
    for (unsigned i = 0; i < supervisor.count; i++) {
        /* acquire: pairs with the release in meter_sign_on; the probe is set up [thread]. */
        if (atomic_load_explicit(&supervisor.probes[i]->thread, memory_order_acquire) == thread)
            return supervisor.probes[i];
    }
    return NULL;
}

/* Takes one call, counts it where it counts, and lets it go on. */
static void pass_call(int listener)
{
    /* Room for a kernel whose structures have grown; it wants the first cleared. */
    static union {
        struct seccomp_notif notification;
        char room[1024];
    } call;
    static union {
        struct seccomp_notif_resp response;
        char room[1024];
    } answer;
    memset(&call, 0, sizeof call);
    if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &call) != 0)
        return; /* the caller was interrupted or ended; it comes again or not at all */
    struct meter_probe *probe = find_probe((int)call.notification.pid);
    /* relaxed: the worker is stopped in the call, which orders its writes before ours and ours
     * before what it does after. */
    if (probe != NULL && atomic_load_explicit(&probe->measuring, memory_order_relaxed)) {
        atomic_fetch_add_explicit(&probe->calls, 1, memory_order_relaxed);
        atomic_store_explicit(&probe->last_call, call.notification.data.nr, memory_order_relaxed);
    }
    memset(&answer, 0, sizeof answer);
    answer.response.id = call.notification.id;
    answer.response.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
    ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &answer);
}

static void *supervise(void *unused)
{
    (void)unused;
    int listener;
    /* acquire: pairs with the release in meter_attach [listener]. */
    while ((listener = atomic_load_explicit(&supervisor.listener, memory_order_acquire)) < 0) {
        if (atomic_load_explicit(&supervisor.abandoned, memory_order_acquire))
            return NULL;
        sched_yield();
    }
    struct pollfd events = {.fd = listener, .events = POLLIN};
    while (poll(&events, 1, -1) >= 0 || errno == EINTR) {
        if (events.revents & POLLIN)
            pass_call(listener);
        else if (events.revents & (POLLHUP | POLLERR))
            break; /* nobody lives under the filter any more */
    }
    close(listener);
    return NULL;
}

int meter_attach(struct meter_probe *const *probes, unsigned count)
{
    struct sock_filter ask[] = {BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF)};
    struct sock_fprog program = {.len = 1, .filter = ask};
    pthread_t thread;
    supervisor.probes = probes;
    supervisor.count = count;
    int error = pthread_create(&thread, NULL, supervise, NULL);
    if (error != 0)
        return -error;
    pthread_detach(thread);
    /* SPEC_ALLOW: kernels before 5.16 otherwise slow every filtered thread's loads down. */
    long listener = -1;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0)
        listener = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER,
                           SECCOMP_FILTER_FLAG_NEW_LISTENER | SECCOMP_FILTER_FLAG_SPEC_ALLOW,
                           &program);
    error = errno;
    /* release: the supervisor sees probes and count [listener]. */
    if (listener >= 0)
        atomic_store_explicit(&supervisor.listener, (int)listener, memory_order_release);
    else
        atomic_store_explicit(&supervisor.abandoned, 1, memory_order_release);
    return listener >= 0 ? 0 : -error;
}

static long fault_count(void)
{
    struct rusage usage;
    if (getrusage(RUSAGE_THREAD, &usage) != 0)
        bench_fail("cannot read the thread's page faults: %s", strerror(errno));
    return usage.ru_minflt + usage.ru_majflt;
}

void meter_begin(struct meter_probe *probe)
{
    probe->faults_before = fault_count();
    atomic_store_explicit(&probe->measuring, 1, memory_order_relaxed); /* as in pass_call */
}

void meter_end(struct meter_probe *probe)
{
    atomic_store_explicit(&probe->measuring, 0, memory_order_relaxed); /* as in pass_call */
    probe->faults += (uint64_t)(fault_count() - probe->faults_before);
}

/* Called through a volatile pointer, so that the frame is real. */
static void touch_stack(void)
{
    volatile char frame[STACK_BYTES];
    for (size_t at = 0; at < sizeof frame; at += PAGE_BYTES)
        frame[at] = 0;
}

void meter_sign_on(struct meter_probe *probe, bool counted)
{
    void (*volatile touch)(void) = touch_stack;
    touch();
    /* release: find_probe sees a probe that is set up [thread]. */
    atomic_store_explicit(&probe->thread, (int)syscall(SYS_gettid), memory_order_release);
    volatile char *page = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE,
                               MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED)
        bench_fail("cannot map a page: %s", strerror(errno));
    meter_begin(probe);
    page[0] = 1;
    syscall(SYS_getppid);
    meter_end(probe);
    /* relaxed: as in pass_call. */
    uint64_t calls = atomic_load_explicit(&probe->calls, memory_order_relaxed);
    int last_call = atomic_load_explicit(&probe->last_call, memory_order_relaxed);
    probe->saw_fault = probe->faults >= 1;
    probe->saw_call = calls == 1 && last_call == SYS_getppid;
    if (!probe->saw_fault || (counted && !probe->saw_call))
        bench_fail("the meter is blind: of one deliberate system call and one page fault it saw "
                   "%llu and %llu",
                   (unsigned long long)calls, (unsigned long long)probe->faults);
    munmap((void *)page, PAGE_BYTES);
    probe->faults = 0;
    atomic_store_explicit(&probe->calls, 0, memory_order_relaxed); /* as in pass_call */
}

/* Files' mappings, the stack, and the zeroed data right behind a file's. Errors do not matter: what
 * is not made present here shows as a fault. */
void meter_settle_program(void)
{
    char line[512];
    uintptr_t file_end = 0;
    FILE *maps = fopen("/proc/self/maps", "re");
    if (maps == NULL)
        return;
    while (fgets(line, sizeof line, maps) != NULL) {
        unsigned long start, end;
        char access[8];
        if (sscanf(line, "%lx-%lx %7s", &start, &end, access) != 3 || access[0] != 'r')
            continue;
        bool file = strchr(line, '/') != NULL;
        if (!file && strstr(line, "[stack]") == NULL && start != file_end)
            continue;
        madvise((void *)start, end - start,
                access[1] == 'w' ? MADV_POPULATE_WRITE : MADV_POPULATE_READ);
        file_end = file ? end : 0;
    }
    fclose(maps);
}
