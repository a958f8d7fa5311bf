/* SPDX-License-Identifier: MIT */
/*
 * Hugetlb pages for as long as a region of bench/region or of the demo lives: what the nodes' pools
 * lack is added where the process may (root), and given back afterwards.
 *
 * However the process ends, its pages must go: pool_return makes only async-signal-safe calls, and
 * runs at exit and by every signal that ends a process. What was added is subtracted, rather than
 * the old number written back, so that what others change meanwhile stays. Pages that are still
 * mapped then leave the pool when the process is gone (surplus pages, see
 * Documentation/admin-guide/mm/hugetlbpage.rst). Only SIGKILL leaves pages behind.
 *
 * One thread borrows and returns; a signal may return them on any.
 */
#ifndef HAK_BENCH_POOL_H
#define HAK_BENCH_POOL_H

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <hakmem.h>

#include "bench/support.h"
#include "numa/sysfs.h"
#include "numa/topology.h"
#include "region/os.h"
#include "region/supply.h"

#define POOL_PATH_BYTES 256
#define POOL_STORY_BYTES 512

/* On one node; the path is complete before pages is set. */
struct pool_loan {
    char path[POOL_PATH_BYTES];
    _Atomic uint64_t pages;
};

static struct pool_loan pool_loans[HAK_NODES_MAX];

/* Both async-signal-safe; 0 or a negative errno. */
static inline int pool_read(const char *path, uint64_t *number)
{
    char text[32];
    int length = sysfs_read(path, text, sizeof text);
    if (length < 0)
        return length;
    *number = 0;
    for (int i = 0; text[i] >= '0' && text[i] <= '9'; i++)
        *number = *number * 10 + (uint64_t)(text[i] - '0');
    return text[0] >= '0' && text[0] <= '9' ? 0 : -EINVAL;
}

static inline int pool_write(const char *path, uint64_t number)
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
    int code = write(file, text + at, sizeof text - at) < 0 ? -errno : 0;
    close(file);
    return code;
}

/* Signals wait: one that came between taking the number and writing would find nothing left to
 * give back, and end the process. */
static inline void pool_return(void)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    for (unsigned i = 0; i < HAK_NODES_MAX; i++) {
        /* acq_rel: the path before the number [loan]; exactly one caller gets the number. */
        uint64_t pages = atomic_exchange_explicit(&pool_loans[i].pages, 0, memory_order_acq_rel);
        uint64_t now = 0;
        if (pages != 0 && pool_read(pool_loans[i].path, &now) == 0)
            (void)pool_write(pool_loans[i].path, now > pages ? now - pages : 0);
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static inline void pool_return_and_die(int signal_number)
{
    pool_return();
    /* SA_RESETHAND: the default action is in place again and ends the process as it should. */
    raise(signal_number);
}

/* Before the first loan. */
static inline void pool_watch(void)
{
    static const int fatal[] = {SIGINT,  SIGTERM, SIGHUP, SIGQUIT, SIGPIPE, SIGABRT,
                                SIGSEGV, SIGBUS,  SIGILL, SIGFPE,  SIGSYS,  SIGALRM};
    struct sigaction action = {.sa_handler = pool_return_and_die, .sa_flags = (int)SA_RESETHAND};
    sigemptyset(&action.sa_mask);
    for (unsigned i = 0; i < sizeof fatal / sizeof fatal[0]; i++) {
        struct sigaction before;
        /* What nohup(1) or a shell had ignored does not end the process. */
        if (sigaction(fatal[i], NULL, &before) == 0 && before.sa_handler != SIG_IGN)
            sigaction(fatal[i], &action, NULL);
    }
    atexit(pool_return);
}

/* Writes the pool's new size and notes the loan, with signals held off in between: a handler must
 * take away all that was added, and nothing that was not. Returns how many pages came. */
static inline uint64_t pool_raise(struct pool_loan *loan, uint64_t missing, int *code)
{
    sigset_t all, before;
    uint64_t total = 0, now = 0;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    *code = pool_read(loan->path, &total);
    if (*code == 0)
        *code = pool_write(loan->path, total + missing);
    /* The kernel adds as many as it finds and calls that a success. */
    if (*code == 0)
        *code = pool_read(loan->path, &now);
    uint64_t came = *code == 0 && now > total ? now - total : 0;
    came = came < missing ? came : missing;
    atomic_store_explicit(&loan->pages, came, memory_order_release); /* [loan] */
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return came;
}

__attribute__((format(printf, 2, 3))) static inline void pool_say(char story[POOL_STORY_BYTES],
                                                                  const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(story, POOL_STORY_BYTES, format, arguments);
    va_end(arguments);
}

/* One node's share. 0, or a negative errno with the reason in story. */
static inline int pool_borrow_on(struct pool_loan *loan, int node, enum hak_pages pages,
                                 uint64_t wanted, uint64_t *unpromised,
                                 char story[POOL_STORY_BYTES])
{
    struct supply_pool pool;
    const char *name = os_pages_name(pages);
    size_t page_bytes = os_pages_bytes(pages);
    int code = supply_pool_read(node, pages, &pool);
    if (code != 0) {
        pool_say(story, "the kernel has no pages of %s here", name);
        return code;
    }
    uint64_t there = pool.free_pages < *unpromised ? pool.free_pages : *unpromised;
    there = there < wanted ? there : wanted;
    *unpromised -= there;
    if (there == wanted)
        return 0;
    uint64_t missing = wanted - there;
    uint64_t ordinary = supply_ordinary(node);
    if (ordinary / page_bytes < missing) {
        pool_say(story, "pages of %s missing on node %d: %llu; its memory would do for %llu", name,
                 node, (unsigned long long)missing, (unsigned long long)(ordinary / page_bytes));
        return -ENOMEM;
    }
    supply_pool_path(node, pages, "nr_hugepages", loan->path, sizeof loan->path);
    uint64_t came = pool_raise(loan, missing, &code);
    if (code == 0 && came == missing)
        return 0;
    if (code != 0)
        pool_say(story, "pages of %s missing on node %d: %llu; writing %s: %s%s", name, node,
                 (unsigned long long)missing, loan->path, strerror(-code),
                 code == -EACCES ? " (run it as root, or reserve them beforehand)" : "");
    else
        pool_say(story,
                 "pages of %s missing on node %d: %llu; in one piece each the kernel found %llu "
                 "now. Soon after boot, or on its command line, it finds more",
                 name, node, (unsigned long long)missing, (unsigned long long)came);
    return code != 0 ? code : -ENOMEM;
}

/* Pages that are on loan now. */
static inline uint64_t pool_borrowed(void)
{
    uint64_t pages = 0;
    for (unsigned i = 0; i < HAK_NODES_MAX; i++)
        pages += atomic_load_explicit(&pool_loans[i].pages, memory_order_relaxed);
    return pages;
}

/* Sees to it that every node of the mask has so many bytes of free pages. 0, or a negative errno
 * with nothing kept and the reason in story. Ordinary pages need nothing. */
static inline int pool_borrow(enum hak_pages pages, uint64_t nodes, size_t bytes_a_node,
                              char story[POOL_STORY_BYTES])
{
    if (!os_pages_hugetlb(pages))
        return 0;
    uint64_t unpromised = supply_unpromised(pages);
    uint64_t wanted = (bytes_a_node + os_pages_bytes(pages) - 1) / os_pages_bytes(pages);
    for (int node = 0; node < HAK_NODES_MAX; node++) {
        if ((nodes >> node & 1) == 0)
            continue;
        int code = pool_borrow_on(&pool_loans[node], node, pages, wanted, &unpromised, story);
        if (code != 0) {
            pool_return();
            return code;
        }
    }
    return 0;
}

#endif
