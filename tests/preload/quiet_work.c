/* SPDX-License-Identifier: MIT */
/*
 * Work for a trace of system calls: two threads allocate and free all sizes, in all ways, objects
 * go from one to the other, and all of it lies between two calls that are easy to find in the
 * trace: access(2) of a file named /hakmem-quiet-begin, and of /hakmem-quiet-end. The threads are
 * there and warm before the first. With the argument "map" the program itself maps memory in
 * between, to show that the trace would tell; with "trim" it calls malloc_trim.
 */
#include <malloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define SLOTS 256
#define ROUNDS 60000

static void *_Atomic between[SLOTS];
static pthread_barrier_t warm, done;

static size_t next_size(uint64_t *random)
{
    *random = *random * 6364136223846793005U + 1442695040888963407U;
    uint64_t x = *random >> 33;
    size_t most = x % 100 < 80 ? 1000 : x % 100 < 98 ? 20000 : x % 1000 < 998 ? 300000 : 3000000;
    return (size_t)(x / 1000) % most;
}

static void *make(uint64_t way, size_t size)
{
    void *object = NULL;
    switch (way % 6) {
    case 0:
        return calloc(1, size);
    case 1:
        return realloc(malloc(size / 3), size + 1);
    case 2:
        return memalign((size_t)64 << way % 7, size);
    case 3:
        return posix_memalign(&object, 4096, size) == 0 ? object : NULL;
    default:
        return malloc(size);
    }
}

static void work(uint64_t seed, int rounds)
{
    uint64_t random = seed;
    for (int round = 0; round < rounds; round++) {
        size_t size = next_size(&random);
        char *object = make(random >> 20, size);
        if (object == NULL) {
            abort();
        }
        if (size > 0) {
            object[0] = object[size - 1] = 1;
        }
        free(atomic_exchange(&between[(random >> 40) % SLOTS], object));
    }
}

static void *thread(void *unused)
{
    (void)unused;
    work(7, ROUNDS);
    pthread_barrier_wait(&warm);
    pthread_barrier_wait(&warm); /* behind the mark */
    work(8, ROUNDS);
    pthread_barrier_wait(&done);
    pthread_barrier_wait(&done); /* its end, with what that does to its stack, is behind the mark */
    return NULL;
}

int main(int argc, char **argv)
{
    pthread_t other;
    const char *extra = argc > 1 ? argv[1] : "";
    if (pthread_barrier_init(&warm, NULL, 2) != 0 || pthread_barrier_init(&done, NULL, 2) != 0 ||
        pthread_create(&other, NULL, thread, NULL) != 0) {
        return 2;
    }
    work(1, ROUNDS);
    pthread_barrier_wait(&warm);
    int found = access("/hakmem-quiet-begin", F_OK) == 0;
    pthread_barrier_wait(&warm);
    work(2, ROUNDS);
    if (strcmp(extra, "map") == 0) {
        void *page = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (page == MAP_FAILED || madvise(page, 4096, MADV_DONTNEED) != 0) {
            return 3;
        }
    }
    if (strcmp(extra, "trim") == 0) {
        malloc_trim(0);
    }
    pthread_barrier_wait(&done);
    found += access("/hakmem-quiet-end", F_OK) == 0;
    pthread_barrier_wait(&done);
    return found != 0 || pthread_join(other, NULL) != 0;
}
