/* SPDX-License-Identifier: MIT */
/*
 * How does a malloc bear threads that come and go and leave their objects to others?
 *
 * A server in small: a session thread serves a table of connections, replacing the buffers of
 * random ones (10 to 1,000 bytes), then hands the table on and ends; its successor starts, takes
 * the table that has waited longest, and goes on. As there is one table more than sessions at a
 * time, a table usually comes from another session's line: nearly every buffer is freed by a thread
 * that did not allocate it, often after the one that did has exited. Plain malloc and free, to be
 * preloaded.
 */
#define _GNU_SOURCE

#include <getopt.h>

#include "bench/support.h"

#define SIZE_LEAST 10u
#define SIZE_COUNT 991u

struct shop {
    pthread_mutex_t lock; /* guards the queue of tables and the count of lines at work */
    pthread_cond_t done;
    void **tables[BENCH_THREADS_MAX + 1]; /* a queue of those that wait, oldest first */
    unsigned waiting;
    unsigned lines;
    uint32_t connections;
    uint64_t replacements; /* of one session */
};

/* A line of sessions that follow one another. */
struct line {
    struct shop *shop;
    uint64_t random;
    unsigned index;
    unsigned sessions_left;
} CACHE_ALIGNED;

static void *new_buffer(uint64_t random)
{
    size_t size = SIZE_LEAST + bench_below((uint32_t)random, SIZE_COUNT);
    char *buffer = malloc(size);
    if (unlikely(buffer == NULL))
        bench_fail("out of memory at %zu bytes", size);
    buffer[0] = (char)random;
    buffer[size - 1] = (char)random;
    return buffer;
}

static void **take_table(struct shop *shop)
{
    pthread_mutex_lock(&shop->lock);
    void **table = shop->tables[0];
    shop->waiting--;
    memmove(&shop->tables[0], &shop->tables[1], shop->waiting * sizeof shop->tables[0]);
    pthread_mutex_unlock(&shop->lock);
    return table;
}

static void hand_on(struct shop *shop, void **table, bool last_session)
{
    pthread_mutex_lock(&shop->lock);
    shop->tables[shop->waiting++] = table;
    if (last_session && --shop->lines == 0)
        pthread_cond_signal(&shop->done);
    pthread_mutex_unlock(&shop->lock);
}

static void start_session(struct line *line);

static void *session(void *context)
{
    struct line *line = context;
    struct shop *shop = line->shop;
    bench_pin(bench_cpu(line->index));
    void **table = take_table(shop);
    for (uint64_t i = 0; i < shop->replacements; i++) {
        uint64_t random = bench_next(&line->random);
        uint32_t connection = bench_below((uint32_t)(random >> 32), shop->connections);
        free(table[connection]);
        table[connection] = new_buffer(random);
    }
    bool last_session = --line->sessions_left == 0;
    hand_on(shop, table, last_session);
    if (!last_session)
        start_session(line);
    return NULL;
}

static void start_session(struct line *line)
{
    pthread_attr_t attributes;
    pthread_t thread;
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    int error = pthread_create(&thread, &attributes, session, line);
    pthread_attr_destroy(&attributes);
    if (error != 0)
        bench_fail("cannot create a session's thread: %s", strerror(error));
}

static double run(struct shop *shop, struct line *lines, unsigned threads, unsigned sessions)
{
    shop->lines = threads;
    uint64_t start_ns = bench_now_ns();
    for (unsigned i = 0; i < threads; i++) {
        lines[i].sessions_left = sessions;
        start_session(&lines[i]);
    }
    pthread_mutex_lock(&shop->lock);
    while (shop->lines != 0)
        pthread_cond_wait(&shop->done, &shop->lock);
    pthread_mutex_unlock(&shop->lock);
    return (double)(bench_now_ns() - start_ns) / 1e9;
}

static const char usage[] =
    "usage: server [-t threads] [sessions] [replacements] [connections] [seed]\n"
    "  Sessions one after the other in each of the threads' lines (default 100), replacements in\n"
    "  each session (default 100K), connections in each table (default 1,000), seed (default 42).\n"
    "  Threads at a time: default 2. A tenth of the sessions first to warm up.\n";

int main(int argc, char **argv)
{
    unsigned threads = bench_threads_option(argc, argv, 2, usage);
    uint64_t numbers[4] = {100, 100000, 1000, 42};
    static const uint64_t most[4] = {1000000, 1000000000, 10000000, UINT64_MAX};
    static const char *const names[4] = {"sessions", "replacements", "connections", "seed"};
    for (unsigned i = 0; i < 4 && optind < argc; i++)
        numbers[i] = bench_number(argv[optind++], i == 3 ? 0 : 1, most[i], names[i]);
    if (optind < argc)
        bench_fail("%s", usage);

    static struct line lines[BENCH_THREADS_MAX];
    static struct shop shop = {.lock = PTHREAD_MUTEX_INITIALIZER, .done = PTHREAD_COND_INITIALIZER};
    unsigned sessions = (unsigned)numbers[0];
    shop.replacements = numbers[1];
    shop.connections = (uint32_t)numbers[2];
    for (unsigned i = 0; i < threads; i++) {
        lines[i] = (struct line){.shop = &shop, .random = bench_seed(numbers[3], i), .index = i};
    }
    shop.waiting = threads + 1;
    for (unsigned i = 0; i < shop.waiting; i++)
        shop.tables[i] = bench_map(shop.connections * sizeof(void *));

    run(&shop, lines, threads, sessions / 10 + 1);
    double seconds = run(&shop, lines, threads, sessions);
    for (unsigned i = 0; i < shop.waiting; i++) {
        for (uint32_t at = 0; at < shop.connections; at++)
            free(shop.tables[i][at]);
    }
    double replacements = (double)threads * sessions * (double)shop.replacements;
    printf("server: %u threads at a time, %u sessions each, %llu replacements a session in a table "
           "of %u\n%.0f replacements in %.3f s (op = one malloc or one free)\n",
           threads, sessions, (unsigned long long)shop.replacements, shop.connections, replacements,
           seconds);
    bench_result("server", 2 * replacements / seconds / 1e6, "Mop/s");
    return 0;
}
