/* SPDX-License-Identifier: MIT */
/*
 * One record, one lock, one counter. Callers: set-up calls (through region/), alloc/misuse, and
 * hak_last_error. The lock is held for a copy of about 1.4 KiB and nothing else, by threads that
 * are not in a signal handler of hakmem's own; a waiter spins, as sleeping would need the kernel.
 */
#define _GNU_SOURCE
#include "region/errlog.h"

#include "region/base.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static atomic_flag lock = ATOMIC_FLAG_INIT;
static struct hak_error last;
static uint64_t last_sequence; /* under the lock; 0: none yet */
static _Atomic uint64_t sequence;

/* [errlog] acquire pairs with the release in give_lock: the record is seen as it was left. */
static bool take_lock(void)
{
    /* Bounded: a holder that a real-time thread keeps off its processor would never go on. */
    for (unsigned n = 0; n < 1U << 20; n++) {
        if (!atomic_flag_test_and_set_explicit(&lock, memory_order_acquire))
            return true;
        cpu_relax();
    }
    return false;
}

/* [errlog] */
static void give_lock(void)
{
    atomic_flag_clear_explicit(&lock, memory_order_release);
}

int errlog_fail(struct hak_error *error, int code, enum hak_error_kind kind, const char *format,
                ...)
{
    if (error == NULL)
        return code;
    int kept = errno;
    va_list arguments;
    memset(error, 0, sizeof *error);
    error->kind = kind;
    error->code = code;
    error->node = -1;
    va_start(arguments, format);
    vsnprintf(error->message, sizeof error->message, format, arguments);
    va_end(arguments);
    errno = kept;
    return code;
}

void errlog_write(int file, const char *text, size_t length)
{
    int kept = errno;
    sigset_t pipe_signal, before, pending;
    sigemptyset(&pipe_signal);
    sigaddset(&pipe_signal, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &pipe_signal, &before);
    sigpending(&pending);
    /* Not write(2) by the C library, which is a cancellation point. */
    if (syscall(SYS_write, file, text, length) < 0 && errno == EPIPE &&
        !sigismember(&pending, SIGPIPE)) {
        /* The signal is this thread's, and of this write. */
        const struct timespec now = {0, 0};
        syscall(SYS_rt_sigtimedwait, &pipe_signal, NULL, &now, _NSIG / 8);
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    errno = kept;
}

void errlog_say(const char *format, ...)
{
    static const char before[] = "hakmem: ";
    char line[sizeof(((struct hak_error *)0)->message) + sizeof(((struct hak_error *)0)->remedy) +
              64];
    int kept = errno;
    va_list arguments;
    memcpy(line, before, sizeof before);
    va_start(arguments, format);
    /* One byte is kept for the newline. */
    vsnprintf(line + sizeof before - 1, sizeof line - sizeof before, format, arguments);
    va_end(arguments);
    size_t length = strlen(line);
    line[length++] = '\n';
    errlog_write(STDERR_FILENO, line, length);
    errno = kept;
}

bool errlog_append(char *text, size_t capacity, const char *format, ...)
{
    int kept = errno;
    size_t used = strnlen(text, capacity);
    if (used >= capacity)
        return false;
    va_list arguments;
    va_start(arguments, format);
    int wanted = vsnprintf(text + used, capacity - used, format, arguments);
    va_end(arguments);
    errno = kept;
    return wanted >= 0 && (size_t)wanted < capacity - used;
}

uint64_t errlog_next_sequence(void)
{
    /* Relaxed: the numbers only have to differ and grow; records carry their own ordering. */
    return atomic_fetch_add_explicit(&sequence, 1, memory_order_relaxed) + 1;
}

void errlog_store(const struct hak_error *error)
{
    if (!take_lock())
        return;
    last = *error;
    /* Under the lock, so that of two stores the later number is also the record that stays. */
    last_sequence = errlog_next_sequence();
    give_lock();
}

uint64_t errlog_load(struct hak_error *out)
{
    if (!take_lock())
        return 0;
    uint64_t number = last_sequence;
    if (number != 0)
        *out = last;
    give_lock();
    return number;
}

void errlog_after_fork(void)
{
    give_lock();
}
