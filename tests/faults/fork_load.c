/* SPDX-License-Identifier: MIT */
/*
 * A program that knows nothing of the library and has it preloaded: threads that allocate and free
 * across each other, and a fork every now and then; parent and children both go on. Its argument:
 * for how many seconds. A child that takes longer than 20 s ends by SIGALRM. Prints the number of
 * forks; exit status 1 where something was wrong.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PLACES 512
#define THREADS 4

static _Atomic(size_t *) places[PLACES];
static atomic_bool stop;

static uint64_t draw(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* The first word is the number of all, and the others the object's address. */
static void drop(size_t *object)
{
    for (size_t n = 1; object != NULL && n < object[0]; n++)
        if (object[n] != (size_t)object)
            abort();
    free(object);
}

static void exchange(uint64_t *random)
{
    uint64_t size = draw(random);
    size_t words = 2 + (size_t)(size >> 8) % (size % 50 == 0 ? 100000 : 300);
    size_t *object = calloc(words, sizeof *object);
    if (object == NULL || object[words - 1] != 0)
        abort();
    object[0] = words;
    for (size_t n = 1; n < words; n++)
        object[n] = (size_t)object;
    drop(atomic_exchange(&places[draw(random) % PLACES], object));
}

static void *work(void *argument)
{
    uint64_t random = (uint64_t)(uintptr_t)argument * 2654435761U + 1;
    /* Who forks, and the children, come first; that stops this thread wherever it is. */
    (void)setpriority(PRIO_PROCESS, (id_t)gettid(), 10);
    while (!atomic_load(&stop))
        exchange(&random);
    return NULL;
}

static void *visit(void *argument)
{
    uint64_t random = (uint64_t)(uintptr_t)argument * 40503U + 1;
    for (unsigned n = 0; n < 100; n++)
        exchange(&random);
    return NULL;
}

/* Uses what it has inherited, makes a thread, ends with handlers and flushed streams. */
static void be_child(unsigned number)
{
    pthread_t thread;
    char *text = NULL;
    alarm(20);
    (void)visit((void *)(uintptr_t)number);
    for (unsigned n = 0; n < PLACES; n++)
        drop(atomic_exchange(&places[n], NULL));
    if (pthread_create(&thread, NULL, visit, (void *)(uintptr_t)(number + 1)) != 0 ||
        pthread_join(thread, NULL) != 0 || asprintf(&text, "child %u", number) < 0)
        abort();
    free(text);
    exit(0);
}

static int fork_once(unsigned number)
{
    int status = 0;
    pid_t child = fork();
    if (child == 0)
        be_child(number);
    if (child < 0 || waitpid(child, &status, 0) != child || status != 0) {
        printf("fork %u: status %#x\n", number, (unsigned)status);
        return 1;
    }
    return 0;
}

int main(int argc, char **argv)
{
    time_t end = time(NULL) + (argc > 1 ? atoi(argv[1]) : 2);
    pthread_t threads[THREADS];
    unsigned forks = 0;
    int failed = 0;
    for (uintptr_t n = 0; n < THREADS; n++)
        if (pthread_create(&threads[n], NULL, work, (void *)n) != 0)
            return 1;
    while (time(NULL) < end && !failed) {
        usleep(forks % 7 * 50);
        failed = fork_once(++forks);
    }
    atomic_store(&stop, 1);
    for (unsigned n = 0; n < THREADS; n++)
        pthread_join(threads[n], NULL);
    printf("%u forks\n", forks);
    return failed;
}
