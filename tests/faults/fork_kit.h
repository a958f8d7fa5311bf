/* SPDX-License-Identifier: MIT */
/*
 * What the threads of tests/test_fork_anywhere.c do, and what becomes of a child: it uses all that
 * it has inherited and makes its own, and ends by exit status 0, a word that says why not, or
 * SIGALRM where it hangs. All in the default region, but for the wall, a small one that is always
 * nearly full.
 */
#ifndef HAK_TESTS_FAULTS_FORK_KIT_H
#define HAK_TESTS_FAULTS_FORK_KIT_H

#include "tests/heap_kit.h"
#include "tests/left_kit.h"

#define SHARED 256
#define KEPT 64
#define WALL_BYTES (8 * MIB)
/* Longer than any child takes on a machine under load; a hang is longer still. */
#define CHILD_SECONDS 20

static hak_region *wall;
static _Atomic bool stop;

/* ---- objects that know their contents --------------------------------------------------------
 *
 * The first word of each is its size, and all others its address: whoever gets one can check it. */

#define OBJECT_BYTES_MIN (2 * sizeof(uintptr_t))

static inline void object_fill(uintptr_t *object, size_t bytes)
{
    object[0] = bytes;
    for (size_t n = 1; n < bytes / sizeof *object; n++)
        object[n] = (uintptr_t)object;
}

static inline void object_check(const uintptr_t *object)
{
    for (size_t n = 1; n < object[0] / sizeof *object; n++)
        if (object[n] != (uintptr_t)object)
            FAIL("word %zu of an object of %zu bytes at %p is %#zx", n, (size_t)object[0],
                 (const void *)object, (size_t)object[n]);
}

static inline uintptr_t *object_make(size_t bytes)
{
    uintptr_t *object = hak_malloc(bytes);
    if (object == NULL)
        FAIL("no room for %zu bytes", bytes);
    object_fill(object, bytes);
    return object;
}

static inline void object_drop(uintptr_t *object)
{
    if (object == NULL)
        return;
    object_check(object);
    hak_free(object);
}

static inline size_t some_bytes(uint64_t *random)
{
    uint64_t kind = harness_random(random) % 100, draw = harness_random(random);
    size_t most = kind < 80 ? 1000 : kind < 97 ? 20000 : 400 * KIB;
    return OBJECT_BYTES_MIN + draw % most / 8 * 8;
}

/* ---- what the parent's threads do -------------------------------------------------------------
 *
 * Each step is short, and starts where the last one ended. */

static _Atomic(uintptr_t *) shared[SHARED];

/* Puts a new object into a place and frees what somebody, perhaps another thread, had put there. */
static inline void exchange(uint64_t *random)
{
    uintptr_t *mine = object_make(some_bytes(random));
    object_drop(atomic_exchange(&shared[harness_random(random) % SHARED], mine));
}

static inline void take_large(uint64_t *random)
{
    uintptr_t *object = object_make((size_t)(harness_random(random) % 24 + 5) * 64 * KIB);
    object = hak_realloc(object, object[0] / 2 / 8 * 8);
    CHECK(object != NULL);
    hak_free(object);
}

/* Through the whole ladder, and back. */
static inline void run_into_the_wall(uint64_t *random)
{
    static _Thread_local void *got[20000];
    size_t bytes = some_bytes(random) * 8, count = 0;
    while (count < sizeof got / sizeof *got &&
           (got[count] = hak_region_malloc(wall, bytes)) != NULL)
        count++;
    while (count > 0)
        hak_region_free(wall, got[--count]);
}

static inline void bulk(uint64_t *random)
{
    void *objects[200];
    size_t bytes = harness_random(random) % 300 + 1;
    size_t count = hak_malloc_bulk(bytes, 200, objects);
    CHECK_EQ(count, 200);
    hak_free_bulk(objects, count);
}

static inline void be_idle(uint64_t *random)
{
    bulk(random);
    hak_thread_idle();
}

static inline void *visit(void *seed)
{
    uint64_t random = (uintptr_t)seed;
    for (unsigned n = 0; n < 20; n++)
        exchange(&random);
    return NULL;
}

static inline void come_and_go(uint64_t *random)
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, visit, (void *)(uintptr_t)harness_random(random)) == 0)
        pthread_join(thread, NULL);
}

static inline void make_a_region(uint64_t *random)
{
    struct hak_config config = kit_config((size_t)(harness_random(random) % 3 + 1) * 2 * MIB);
    hak_region *region;
    CHECK_EQ(hak_region_create(&config, &region), 0);
    void *object = hak_region_malloc(region, 1000);
    CHECK(object != NULL);
    hak_region_free(region, object);
    CHECK_EQ(hak_region_destroy(region), 0);
    usleep(1000); /* the lock of set-up is nobody's turn by turn: let who forks have it */
}

static inline void inquire(uint64_t *random)
{
    struct hak_error error;
    struct hak_stats stats;
    (void)harness_random(random);
    (void)hak_last_error(&error);
    (void)hak_thread_pin(-1);
    CHECK_EQ(hak_region_stats(NULL, &stats), 0);
}

static void (*const steps[])(uint64_t *random) = {
    exchange, take_large, run_into_the_wall, bulk, be_idle, come_and_go, make_a_region, inquire,
};
#define STEP_COUNT (sizeof steps / sizeof *steps)

/* One kind of step alone, or all of them in turn. */
static inline void *be_busy(void *argument)
{
    size_t kind = (size_t)(uintptr_t)argument;
    uint64_t random = harness_seed() + kind;
    /* Who forks, and the children, come first, so that there are many of them; that stops this
     * thread wherever it is. */
    (void)setpriority(PRIO_PROCESS, (id_t)gettid(), 10);
    while (!atomic_load(&stop))
        steps[kind < STEP_COUNT ? kind : harness_random(&random) % STEP_COUNT](&random);
    return NULL;
}

/* ---- what a child does ----------------------------------------------------------------------- */

static uintptr_t *kept[KEPT];

static inline void *churn(void *seed)
{
    uintptr_t *mine[50] = {NULL};
    uint64_t random = (uintptr_t)seed;
    for (unsigned n = 0; n < 400; n++) {
        uintptr_t **one = &mine[harness_random(&random) % 50];
        object_drop(*one);
        *one = object_make(some_bytes(&random));
    }
    for (unsigned n = 0; n < 50; n++)
        object_drop(mine[n]);
    return NULL;
}

/* Objects of the parent's: the forking thread's, and those that threads have left for others. */
static inline void free_inherited(void)
{
    for (unsigned n = 0; n < KEPT; n++) {
        object_drop(kept[n]);
        kept[n] = NULL;
    }
    for (unsigned n = 0; n < SHARED; n++)
        object_drop(atomic_exchange(&shared[n], NULL));
}

static inline void have_a_region(size_t bytes)
{
    struct hak_config config = kit_config(bytes);
    hak_region *region;
    CHECK_EQ(hak_region_create(&config, &region), 0);
    void *object = hak_region_calloc(region, 10, 1000);
    CHECK(object != NULL);
    hak_region_free(region, object);
    CHECK(heap_check(region));
    CHECK_EQ(hak_region_destroy(region), 0);
}

/* Most of a region whose users had little: what they had in hand is all that is lost. */
static inline void take_most(void)
{
    const size_t bytes = 60 * KIB, all = hak_region_default()->area.bytes;
    size_t count = 0;
    void **list = hak_malloc(all / bytes * sizeof *list);
    CHECK(list != NULL);
    while (count < all / bytes && (list[count] = hak_malloc(bytes)) != NULL)
        count++;
    if (count * bytes < all / 3 * 2)
        FAIL("only %zu MiB of %zu could be had", count * bytes / MIB, all / MIB);
    while (count > 0)
        hak_free(list[--count]);
    hak_free(list);
}

static inline void begin_anew(uint64_t random)
{
    CHECK_EQ(hak_region_fini(), 0);
    CHECK(hak_malloc(100) == NULL);
    kit_open(16 * MIB);
    (void)churn((void *)(uintptr_t)random);
    kit_elsewhere(churn, (void *)(uintptr_t)(random + 1));
    kit_close();
}

static inline void watch_child(pid_t child, const char *who)
{
    int status = 0;
    while (waitpid(child, &status, 0) < 0)
        CHECK_EQ(errno, EINTR);
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM)
        FAIL("%s hangs", who);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        FAIL("%s: status %#x", who, (unsigned)status);
}

static inline void begin_child(void)
{
    harness_state.in_child = true;
    signal(SIGALRM, SIG_DFL);
    alarm(CHILD_SECONDS);
}

static inline void be_child(uint64_t random, unsigned generation)
{
    struct hak_error error;
    begin_child();
    (void)churn((void *)(uintptr_t)random);
    free_inherited();
    (void)hak_last_error(&error);
    (void)hak_thread_pin(-1);
    hak_thread_idle();
    if (random % 4 == 0)
        take_most();
    if (random % 4 == 1)
        have_a_region(4 * MIB);
    if (random % 4 == 2)
        run_into_the_wall(&random);
    kit_elsewhere(churn, (void *)(uintptr_t)(random + 2));
    if (generation < 3 && random % 3 == 0) {
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            be_child(random / 3, generation + 1);
            _exit(0);
        }
        watch_child(child, "a grandchild");
        (void)churn((void *)(uintptr_t)(random + 3));
    }
    if (random % 5 == 0)
        begin_anew(random);
}

#endif
