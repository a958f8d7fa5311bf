/* SPDX-License-Identifier: MIT */
/*
 * Huge pages for the length of a run.
 *
 * The kernel's pool of 2 MiB pages is one number in sysfs for the whole machine. What is added to
 * it here must go away again however the process ends, so the giving back is a handful of
 * async-signal-safe calls, and is run at exit and by every signal that ends a process, the crashes
 * included. It takes away what was added rather than writing the old number, so that what others
 * change meanwhile stays. Only SIGKILL leaves pages behind.
 */
#define _GNU_SOURCE

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include "tools/demo.h"

#define POOL_FOLDER "/sys/kernel/mm/hugepages/hugepages-2048kB/"
#define POOL_FILE POOL_FOLDER "nr_hugepages"
#define PAGE_BYTES ((size_t)2 << 20)

static _Atomic uint64_t borrowed_pages;

/* Async-signal-safe. False when there is no such file or number. */
static bool read_number(const char *path, uint64_t *number)
{
    char text[32];
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return false;
    ssize_t length = read(file, text, sizeof text);
    close(file);
    if (length <= 0 || text[0] < '0' || text[0] > '9')
        return false;
    *number = 0;
    for (ssize_t i = 0; i < length && text[i] >= '0' && text[i] <= '9'; i++)
        *number = *number * 10 + (uint64_t)(text[i] - '0');
    return true;
}

/* Async-signal-safe. 0 or a negative errno. */
static int write_number(const char *path, uint64_t number)
{
    char text[32];
    size_t at = sizeof text;
    do {
        text[--at] = (char)('0' + number % 10);
        number /= 10;
    } while (number != 0);
    int file = open(path, O_WRONLY | O_CLOEXEC);
    if (file < 0)
        return -errno;
    ssize_t written = write(file, text + at, sizeof text - at);
    int error = written < 0 ? -errno : 0;
    close(file);
    return error;
}

/* Between the count here and the number in the kernel no signal may end the process. */
static void hold_signals(sigset_t *before)
{
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, before);
}

void pages_return(void)
{
    /* relaxed: exactly one caller gets the count, be it a signal handler; nothing else is read. */
    sigset_t before;
    hold_signals(&before);
    uint64_t count = atomic_exchange_explicit(&borrowed_pages, 0, memory_order_relaxed);
    uint64_t now = 0;
    if (count != 0 && read_number(POOL_FILE, &now))
        write_number(POOL_FILE, now > count ? now - count : 0);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static void return_and_die(int signal_number)
{
    pages_return();
    /* SA_RESETHAND: the default action is in place again and ends the process as it should. */
    raise(signal_number);
}

static void watch_signals(void)
{
    static const int fatal[] = {SIGINT,  SIGTERM, SIGHUP, SIGQUIT, SIGPIPE, SIGABRT,
                                SIGSEGV, SIGBUS,  SIGILL, SIGFPE,  SIGSYS};
    struct sigaction action = {.sa_handler = return_and_die, .sa_flags = (int)SA_RESETHAND};
    sigemptyset(&action.sa_mask);
    for (unsigned i = 0; i < sizeof fatal / sizeof fatal[0]; i++)
        sigaction(fatal[i], &action, NULL);
    atexit(pages_return);
}

size_t pages_available_bytes(void)
{
    char line[128];
    unsigned long long kib = 0;
    FILE *file = fopen("/proc/meminfo", "re");
    if (file == NULL)
        return 0;
    while (fgets(line, sizeof line, file) != NULL) {
        if (sscanf(line, "MemAvailable: %llu kB", &kib) == 1)
            break;
    }
    fclose(file);
    return (size_t)kib << 10;
}

/* Raises the pool; on failure it is as it was. */
static int raise_pool(uint64_t total, uint64_t missing)
{
    uint64_t now = 0;
    sigset_t before;
    watch_signals();
    hold_signals(&before);
    int error = write_number(POOL_FILE, total + missing);
    if (error == 0 && !read_number(POOL_FILE, &now))
        error = -EIO;
    /* The kernel adds as many as it finds and calls it a success. */
    uint64_t came = error == 0 && now > total ? now - total : 0;
    atomic_store_explicit(&borrowed_pages, came < missing ? came : missing, memory_order_relaxed);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error == 0 && came >= missing)
        return 0;
    pages_return();
    return error != 0 ? error : -ENOMEM;
}

bool pages_borrow(size_t bytes, char *story, size_t story_bytes)
{
    uint64_t wanted = (bytes + PAGE_BYTES - 1) / PAGE_BYTES;
    uint64_t total = 0;
    uint64_t unused = 0;
    uint64_t promised = 0;
    if (!read_number(POOL_FILE, &total) || !read_number(POOL_FOLDER "free_hugepages", &unused) ||
        !read_number(POOL_FOLDER "resv_hugepages", &promised)) {
        snprintf(story, story_bytes, "the kernel shows no pool of 2 MiB pages here");
        return false;
    }
    unused -= promised < unused ? promised : unused;
    if (unused >= wanted) {
        snprintf(story, story_bytes, "there were enough of them");
        return true;
    }
    uint64_t missing = wanted - unused;
    if (pages_available_bytes() / 2 < missing * PAGE_BYTES) {
        snprintf(story, story_bytes, "reserving %llu huge pages would take over half of the memory",
                 (unsigned long long)missing);
        return false;
    }
    int error = raise_pool(total, missing);
    if (error != 0) {
        snprintf(story, story_bytes, "cannot reserve %llu huge pages: %s",
                 (unsigned long long)missing,
                 error == -ENOMEM ? "not so many found in one piece" : strerror(-error));
        return false;
    }
    snprintf(story, story_bytes, "%llu of them reserved for this run and given back after it",
             (unsigned long long)missing);
    return true;
}
