/* SPDX-License-Identifier: MIT */
/*
 * Libraries that a preloaded program opens and closes, many times and from many threads: with
 * constructors and destructors that allocate, with thread_local objects, with objects that change
 * hands between library and program, and bound to the C library's malloc in spite of us.
 */
#include "tests/preload_kit.h"

static const char *const no_settings[] = {NULL};

/* The library is compiled for the case that runs inside. */
static void with_library(const char *source, const char *name, const char *options,
                         const char *inside)
{
    char all[256];
    snprintf(all, sizeof all, "-shared %s", options);
    kit_compile(source, name, all);
    kit_inside_run(inside, KIT_LIBC, no_settings);
    kit_inside_run(inside, KIT_HAKMEM, no_settings);
}

/* ---- constructors and destructors ------------------------------------------------------------ */

static void open_and_close(unsigned times)
{
    for (unsigned i = 0; i < times; i++) {
        void *(*piece)(size_t);
        void (*keep)(void *);
        void *library = kit_open("libchurn.so", RTLD_NOW | RTLD_LOCAL);
        *(void **)&piece = kit_symbol(library, "churn_piece");
        *(void **)&keep = kit_symbol(library, "churn_keep");
        void *object = piece(i % 200);
        keep(kit_keep(malloc(5000)));
        CHECK_EQ(dlclose(library), 0);
        /* The library is gone; what it gave away is not. */
        CHECK(object == NULL || kit_zeroed(object, i % 200 * 100 + 1));
        free(object);
    }
}

INSIDE(opened_and_closed)
{
    open_and_close(20);
    size_t before = mallinfo2().uordblks;
    open_and_close(500);
    CHECK_LE(mallinfo2().uordblks, before + 64 * KIB);
    void *library = kit_open("libchurn.so", RTLD_NOW | RTLD_LOCAL);
    CHECK_EQ(dlclose(library), 0);
    CHECK(dlopen("/nowhere/libnothing.so", RTLD_NOW) == NULL);
    CHECK(dlerror() != NULL);
}

TEST(a_library_that_allocates_is_opened_and_closed_500_times)
{
    with_library("churn_library.c", "libchurn.so", "", "opened_and_closed");
}

static void *open_in_thread(void *unused)
{
    (void)unused;
    for (int i = 0; i < 100; i++) {
        void *library = kit_open("libchurn.so", RTLD_NOW | RTLD_LOCAL);
        kit_work((uint64_t)i, 50);
        CHECK_EQ(dlclose(library), 0);
    }
    return NULL;
}

INSIDE(opened_by_threads)
{
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) {
        CHECK_EQ(pthread_create(&threads[i], NULL, open_in_thread, NULL), 0);
    }
    for (int i = 0; i < 4; i++) {
        CHECK_EQ(pthread_join(threads[i], NULL), 0);
    }
}

TEST(four_threads_open_and_close_it_at_once)
{
    with_library("churn_library.c", "libchurn.so", "", "opened_by_threads");
}

/* ---- thread_local objects -------------------------------------------------------------------- */

static int (*tls_use)(int);
static int (*tls_alive)(void);

static void *open_tls_library(void)
{
    void *library = kit_open("libtls.so", RTLD_NOW | RTLD_LOCAL);
    *(void **)&tls_use = kit_symbol(library, "tls_use");
    *(void **)&tls_alive = kit_symbol(library, "tls_alive");
    return library;
}

static void *use_tls(void *argument)
{
    for (int i = 0; i < 50; i++) {
        CHECK(tls_use(i * 31 + (int)(uintptr_t)argument) != 0);
    }
    return NULL;
}

/* Threads that are older than the library, and ones that end while it is open. */
INSIDE(thread_local_objects)
{
    pthread_t threads[6];
    for (int round = 0; round < 50; round++) {
        void *library = open_tls_library();
        CHECK(tls_use(round) != 0);
        for (uintptr_t i = 0; i < 6; i++) {
            CHECK_EQ(pthread_create(&threads[i], NULL, use_tls, (void *)i), 0);
        }
        for (int i = 0; i < 6; i++) {
            CHECK_EQ(pthread_join(threads[i], NULL), 0);
        }
        CHECK_EQ(tls_alive(), 1); /* this thread's */
        CHECK_EQ(dlclose(library), 0);
    }
}

TEST(thread_local_objects_of_an_opened_library)
{
    with_library("tls_objects.cc", "libtls.so", "", "thread_local_objects");
}

/* The handle is closed while threads have objects of it: the C library keeps it until they end. */
static pthread_barrier_t have_objects, handle_closed;

static void *outlive_the_handle(void *argument)
{
    use_tls(argument);
    pthread_barrier_wait(&have_objects);
    pthread_barrier_wait(&handle_closed);
    return NULL;
}

INSIDE(closed_before_threads_end)
{
    pthread_t threads[4];
    CHECK_EQ(pthread_barrier_init(&have_objects, NULL, 5), 0);
    CHECK_EQ(pthread_barrier_init(&handle_closed, NULL, 5), 0);
    for (int round = 0; round < 30; round++) {
        void *library = open_tls_library();
        for (uintptr_t i = 0; i < 4; i++) {
            CHECK_EQ(pthread_create(&threads[i], NULL, outlive_the_handle, (void *)i), 0);
        }
        pthread_barrier_wait(&have_objects);
        CHECK_EQ(dlclose(library), 0);
        pthread_barrier_wait(&handle_closed);
        for (int i = 0; i < 4; i++) {
            CHECK_EQ(pthread_join(threads[i], NULL), 0);
        }
    }
}

TEST(a_library_closed_while_threads_have_its_objects)
{
    with_library("tls_objects.cc", "libtls.so", "", "closed_before_threads_end");
}

/* ---- bound past us --------------------------------------------------------------------------- */

/* RTLD_DEEPBIND (dlopen(3)): the library's malloc is the C library's, the program's free ours. */
INSIDE(deepbind)
{
    void *(*piece)(size_t);
    void *library = kit_open("libchurn.so", RTLD_NOW | RTLD_LOCAL | RTLD_DEEPBIND);
    *(void **)&piece = kit_symbol(library, "churn_piece");
    for (size_t i = 0; i < 200; i++) {
        void *object = piece(i);
        if (i % 3 == 0) {
            object = kit_keep(realloc(object, i * 1000 + 1));
            CHECK(object != NULL && kit_zeroed(object, i * 100 + 1));
        }
        CHECK_GE(malloc_usable_size(object), i * 100 + 1);
        free(object);
    }
    CHECK_EQ(dlclose(library), 0);
}

TEST(objects_of_a_deeply_bound_library_are_freed_by_the_program)
{
    with_library("churn_library.c", "libchurn.so", "", "deepbind");
}

KIT_MAIN()
