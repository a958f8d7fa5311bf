/* SPDX-License-Identifier: MIT */
/*
 * What does a run of a program cost? measure FILE PROGRAM [ARGUMENT]...
 *
 * Runs the program and writes one line to FILE: wall seconds, seconds of processor (user and
 * system, the program and all descendants it waited for), KiB of memory (the greatest resident
 * size of any one of those processes, getrusage(2)). Ends as the program ended: with its status, or
 * 128 and the signal's number, as a shell does.
 *
 * Called by bench/apps. time(1) counts in hundredths of a second, too coarse for runs of two
 * seconds that are told apart by a percent. An allocator is preloaded by env(1) as the program, so
 * that this one is measured by nobody and measures with nobody's allocator.
 */
#include <errno.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double now(void)
{
    struct timespec at;

    clock_gettime(CLOCK_MONOTONIC, &at);
    return (double)at.tv_sec + (double)at.tv_nsec * 1e-9;
}

static double seconds(struct timeval span)
{
    return (double)span.tv_sec + (double)span.tv_usec * 1e-6;
}

int main(int argc, char **argv)
{
    struct rusage used;
    pid_t child;
    int status;

    if (argc < 3) {
        fputs("usage: measure FILE PROGRAM [ARGUMENT]...\n", stderr);
        return 2;
    }
    double started = now();
    int code = posix_spawnp(&child, argv[2], NULL, NULL, argv + 2, environ);
    if (code != 0) {
        fprintf(stderr, "measure: %s: %s\n", argv[2], strerror(code));
        return 127;
    }
    while (wait4(child, &status, 0, &used) < 0) {
        if (errno != EINTR) {
            perror("measure: wait4");
            return 125;
        }
    }
    double wall = now() - started;
    FILE *file = fopen(argv[1], "we");
    if (file == NULL ||
        fprintf(file, "%.6f %.6f %ld\n", wall, seconds(used.ru_utime) + seconds(used.ru_stime),
                used.ru_maxrss) < 0 ||
        fclose(file) != 0) {
        fprintf(stderr, "measure: %s: %s\n", argv[1], strerror(errno));
        return 125;
    }
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}
