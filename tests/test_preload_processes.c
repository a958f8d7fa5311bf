/* SPDX-License-Identifier: MIT */
/*
 * Preloaded programs that make processes: fork from one thread and from many, with others in the
 * middle of malloc; vfork, posix_spawn, system, popen; children of children; handlers of
 * pthread_atfork that allocate. A child uses what it inherited and allocates like its parent.
 */
#include "tests/preload_kit.h"

#include <spawn.h>
#include <stdatomic.h>

/* NOLINTBEGIN(clang-analyzer-unix.*,clang-analyzer-optin.*): objects pass through kit_keep,
 * where the analyser loses them, and size 0 is one of the sizes. */

#define OBJECTS 2000

static void *inherited[OBJECTS];

static size_t bytes_of(size_t n)
{
    return n % 97 == 0 ? n * 100 : n % 700;
}

static void make_objects(void)
{
    for (size_t n = 0; n < OBJECTS; n++) {
        inherited[n] = kit_keep(malloc(bytes_of(n)));
        CHECK(inherited[n] != NULL);
        kit_fill(inherited[n], bytes_of(n), n);
    }
}

/* All are whole; every other one is freed, or grown. */
static void use_objects(void)
{
    for (size_t n = 0; n < OBJECTS; n++) {
        CHECK(kit_holds(inherited[n], bytes_of(n), n));
        if (n % 4 == 0) {
            free(inherited[n]);
            inherited[n] = NULL;
        } else if (n % 4 == 1) {
            inherited[n] = kit_keep(realloc(inherited[n], bytes_of(n) * 2 + 1));
            CHECK(inherited[n] != NULL);
        }
    }
}

static void free_objects(void)
{
    for (size_t n = 0; n < OBJECTS; n++) {
        free(inherited[n]);
        inherited[n] = NULL;
    }
}

static pid_t fork_here(void)
{
    pid_t child = fork();
    CHECK(child >= 0);
    return child;
}

static void expect_end(pid_t child)
{
    int status = 0;
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK_EQ(status, 0);
}

/* ---- fork ------------------------------------------------------------------------------------ */

CONTRACT(a_child_uses_what_it_inherited_and_changes_nothing_of_its_parents)
{
    make_objects();
    for (int round = 0; round < 10; round++) {
        pid_t child = fork_here();
        if (child == 0) {
            kit_work((uint64_t)round, 1000);
            use_objects();
            kit_work((uint64_t)round, 1000);
            free_objects();
            exit(0);
        }
        kit_work((uint64_t)round + 100, 1000);
        expect_end(child);
    }
    use_objects();
    free_objects();
}

static _Atomic bool enough;

static void *allocate_until_enough(void *argument)
{
    for (uint64_t seed = (uintptr_t)argument; !atomic_load(&enough); seed += 10) {
        kit_work(seed, 200);
    }
    return NULL;
}

static pthread_t workers[3];

static void start_workers(void)
{
    atomic_store(&enough, false);
    for (uintptr_t i = 0; i < 3; i++) {
        CHECK_EQ(pthread_create(&workers[i], NULL, allocate_until_enough, (void *)i), 0);
    }
}

static void stop_workers(void)
{
    atomic_store(&enough, true);
    for (int i = 0; i < 3; i++) {
        CHECK_EQ(pthread_join(workers[i], NULL), 0);
    }
}

CONTRACT(children_of_a_process_whose_threads_are_in_malloc)
{
    make_objects();
    start_workers();
    for (int round = 0; round < 40; round++) {
        pid_t child = fork_here();
        if (child == 0) {
            kit_work((uint64_t)round, 300);
            if (round % 10 == 0) {
                use_objects();
                free_objects();
            }
            exit(0);
        }
        expect_end(child);
    }
    stop_workers();
    use_objects();
    free_objects();
}

CONTRACT(a_child_makes_threads_of_its_own)
{
    make_objects();
    start_workers();
    for (int round = 0; round < 10; round++) {
        pid_t child = fork_here();
        if (child == 0) {
            start_workers();
            use_objects();
            usleep(2000);
            stop_workers();
            free_objects();
            exit(0);
        }
        expect_end(child);
    }
    stop_workers();
    free_objects();
}

static void *fork_in_thread(void *argument)
{
    for (int round = 0; round < 15; round++) {
        void *own = kit_keep(malloc(5000));
        kit_fill(own, 5000, (uint64_t)round);
        pid_t child = fork_here();
        if (child == 0) {
            CHECK(kit_holds(own, 5000, (uint64_t)round));
            free(own);
            kit_work((uintptr_t)argument, 300);
            exit(0);
        }
        expect_end(child);
        free(own);
    }
    return NULL;
}

/* Two forks at the same time, each from a thread that is the only one of its child. */
CONTRACT(threads_fork_at_the_same_time)
{
    pthread_t threads[4];
    for (uintptr_t i = 0; i < 4; i++) {
        CHECK_EQ(pthread_create(&threads[i], NULL, fork_in_thread, (void *)i), 0);
    }
    for (int i = 0; i < 4; i++) {
        CHECK_EQ(pthread_join(threads[i], NULL), 0);
    }
}

/* Each generation adds an object and looks at those of all before it. */
static void generation(unsigned depth)
{
    CHECK(depth < 40);
    for (unsigned n = 0; n < depth; n++) {
        CHECK(kit_holds(inherited[n], 1000 + n, n));
    }
    inherited[depth] = kit_keep(malloc(1000 + depth));
    kit_fill(inherited[depth], 1000 + depth, depth);
    kit_work(depth, 200);
    if (depth + 1 < 40) {
        pid_t child = fork_here();
        if (child == 0) {
            generation(depth + 1);
            exit(0);
        }
        expect_end(child);
    }
    for (unsigned n = 0; n <= depth; n++) {
        CHECK(kit_holds(inherited[n], 1000 + n, n));
        free(inherited[n]);
    }
}

CONTRACT(forty_generations)
{
    generation(0);
}

/* What a daemon does: two forks, a session of its own, its parent gone. */
CONTRACT(a_daemon_works_on)
{
    int ends[2];
    char word[8] = "";
    CHECK_EQ(pipe(ends), 0);
    make_objects();
    pid_t child = fork_here();
    if (child == 0) {
        CHECK(setsid() > 0);
        kit_work(1, 500);
        if (fork_here() != 0) {
            exit(0);
        }
        kit_work(2, 5000);
        use_objects();
        free_objects();
        CHECK_EQ(write(ends[1], "works", 6), 6);
        exit(0);
    }
    expect_end(child);
    close(ends[1]);
    CHECK_EQ(read(ends[0], word, sizeof word), 6);
    CHECK_STR_HAS(word, "works");
    free_objects();
}

static _Atomic unsigned handlers;

static void handler(void)
{
    void *object = kit_keep(malloc(100000));
    free(kit_keep(malloc(100)));
    CHECK(object != NULL);
    free(object);
    atomic_fetch_add(&handlers, 1);
}

/* pthread_atfork: before the fork in the reverse of their order, after it in their order; so some
 * of these run while the allocator is prepared for the fork, and some before or after that. */
__attribute__((constructor(101))) static void register_early(void)
{
    if (getenv("KIT_HANDLERS") != NULL) {
        pthread_atfork(handler, handler, handler);
    }
}

PRELOADED(fork_handlers_may_allocate, "KIT_HANDLERS=1")
{
    CHECK_EQ(pthread_atfork(handler, handler, handler), 0);
    start_workers();
    for (int round = 0; round < 15; round++) {
        unsigned before = atomic_load(&handlers);
        pid_t child = fork_here();
        CHECK_EQ(atomic_load(&handlers), before + 4);
        if (child == 0) {
            exit(0);
        }
        expect_end(child);
    }
    stop_workers();
}

/* ---- exec and its relatives ------------------------------------------------------------------ */

static const char *const echo_arguments[] = {"/bin/sh", "-c", "test \"$(echo one)\" = one", NULL};

CONTRACT(exec_in_a_child_of_many_threads)
{
    start_workers();
    for (int round = 0; round < 10; round++) {
        pid_t child = fork_here();
        if (child == 0) {
            execv(echo_arguments[0], (char *const *)echo_arguments);
            _exit(1);
        }
        expect_end(child);
    }
    stop_workers();
}

CONTRACT(vfork_and_exec)
{
    make_objects();
    start_workers();
    for (int round = 0; round < 25; round++) {
        /* NOLINTNEXTLINE(clang-analyzer-security.*): what is tested here */
        pid_t child = vfork();
        if (child == 0) {
            execl("/bin/true", "true", (char *)NULL);
            _exit(1);
        }
        CHECK(child > 0);
        expect_end(child);
    }
    stop_workers();
    use_objects();
    free_objects();
}

CONTRACT(posix_spawn_system_and_popen)
{
    char line[100] = "";
    make_objects();
    start_workers();
    for (int round = 0; round < 10; round++) {
        pid_t child = 0;
        CHECK_EQ(posix_spawn(&child, echo_arguments[0], NULL, NULL, (char *const *)echo_arguments,
                             environ),
                 0);
        expect_end(child);
        CHECK_EQ(system("exit 7"), 7 << 8);
        FILE *pipe_of = popen("echo from the child", "r");
        CHECK(pipe_of != NULL);
        CHECK(fgets(line, sizeof line, pipe_of) != NULL);
        CHECK_STR_HAS(line, "from the child");
        CHECK_EQ(pclose(pipe_of), 0);
    }
    stop_workers();
    use_objects();
    free_objects();
}

/* NOLINTEND(clang-analyzer-unix.*,clang-analyzer-optin.*): as above. */

KIT_MAIN()
