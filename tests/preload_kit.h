/* SPDX-License-Identifier: MIT */
/*
 * What tests of the preload library share. Such a test is a plain program: it includes nothing of
 * the library, so nothing of inside.a is linked into it, and its malloc is the C library's. A case
 * that is to run on the region starts the program again with LD_PRELOAD set:
 *
 *     PRELOADED(name, "HAKMEM_REGION_SIZE=64M")    runs there, with these settings
 *     CONTRACT(name)                               runs twice: under the C library alone, which
 *                                                  shows that the case asks for nothing but what
 *                                                  programs have today, and on the region
 *     INSIDE(name)                                 runs when a TEST starts it by kit_inside_run
 *
 * Inside, a check that fails ends the process with HARNESS_CHILD_FAILED and its line is shown by
 * the case that started it. Settings of the caller's environment never reach it.
 *
 * Programs and libraries that cannot be the test itself (they define malloc, are opened, or are
 * needed by a program) lie in tests/preload and are compiled when a case asks for them, with $CC
 * and $CXX, into a folder that goes away with the test. The tests are run from the checkout.
 */
#ifndef HAK_TESTS_PRELOAD_KIT_H
#define HAK_TESTS_PRELOAD_KIT_H

#include "tests/harness.h"

#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <malloc.h>

#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)
/* Time that a program under test has, unless a case says otherwise. */
#define KIT_SECONDS 30

enum kit_under { KIT_LIBC, KIT_HAKMEM };

struct kit_case {
    const char *name;
    void (*run)(void);
    struct kit_case *next;
};

static struct kit_case *kit_first;

#define INSIDE(name)                                                                               \
    static void inside_##name(void);                                                               \
    static struct kit_case kit_case_##name = {#name, inside_##name, NULL};                         \
    __attribute__((constructor)) static void kit_register_##name(void)                             \
    {                                                                                              \
        kit_case_##name.next = kit_first;                                                          \
        kit_first = &kit_case_##name;                                                              \
    }                                                                                              \
    static void inside_##name(void)

/* The empty string stands in front so that the list may be empty. */
#define PRELOADED(name, ...)                                                                       \
    TEST(name)                                                                                     \
    {                                                                                              \
        static const char *const settings[] = {"", ##__VA_ARGS__, NULL};                           \
        kit_inside_run(#name, KIT_HAKMEM, settings);                                               \
    }                                                                                              \
    INSIDE(name)

#define CONTRACT(name)                                                                             \
    TEST(name)                                                                                     \
    {                                                                                              \
        kit_inside_run(#name, KIT_LIBC, NULL);                                                     \
        kit_inside_run(#name, KIT_HAKMEM, NULL);                                                   \
    }                                                                                              \
    INSIDE(name)

/* ---- where things are ------------------------------------------------------------------------ */

/* This program's path; the last `parts` parts of it are cut off. */
static inline const char *kit_self(unsigned parts)
{
    static char path[PATH_MAX];
    ssize_t length = readlink("/proc/self/exe", path, sizeof path - 1);
    CHECK(length > 0);
    path[length] = '\0';
    while (parts-- > 0) {
        *strrchr(path, '/') = '\0';
    }
    return path;
}

/* The library under test: build/libhakmem_preload.so for build/tests/this. */
static inline const char *kit_library(void)
{
    static char path[PATH_MAX + 32];
    snprintf(path, sizeof path, "%s/libhakmem_preload.so", kit_self(2));
    if (access(path, R_OK) != 0) {
        FAIL("%s is not there", path);
    }
    return path;
}

/* ---- running programs ------------------------------------------------------------------------ */

struct kit_run {
    const char *const *argv;
    const char *preload;         /* NULL: nothing */
    const char *const *settings; /* "NAME=value", NULL at the end; NULL: none */
};

static inline void kit_clean_environment(void)
{
    for (char **at = environ; *at != NULL;) {
        char name[128];
        if (strncmp(*at, "HAKMEM_", 7) != 0 && strncmp(*at, "LD_PRELOAD=", 11) != 0) {
            at++;
            continue;
        }
        snprintf(name, sizeof name, "%.*s", (int)strcspn(*at, "="), *at);
        unsetenv(name);
        at = environ;
    }
}

static inline void kit_exec(void *argument)
{
    const struct kit_run *run = (const struct kit_run *)argument;
    kit_clean_environment();
    for (const char *const *one = run->settings; one != NULL && *one != NULL; one++) {
        if (**one != '\0') {
            putenv((char *)*one);
        }
    }
    /* Last: nothing but the program itself is to be under it. */
    if (run->preload != NULL) {
        setenv("LD_PRELOAD", run->preload, 1);
    }
    execvp(run->argv[0], (char *const *)run->argv);
    fprintf(stderr, "%s cannot be run: %s\n", run->argv[0], strerror(errno));
    _exit(126);
}

static inline void kit_run_program(const char *const *argv, const char *preload,
                                   const char *const *settings, struct harness_result *r)
{
    struct kit_run run = {argv, preload, settings};
    unsigned usual = harness_child_seconds;
    if (usual == HARNESS_CHILD_SECONDS) {
        harness_child_seconds = KIT_SECONDS;
    }
    harness_child(kit_exec, &run, r);
    harness_child_seconds = usual;
}

/* Ends the case unless the program ended well. */
static inline void kit_expect_ok(const struct harness_result *r, const char *what)
{
    if (r->exit_status == HARNESS_EXIT_SKIPPED) {
        const char *reason = strstr(r->output, "skip: ");
        SKIP("%s", reason != NULL ? reason + 6 : r->output);
    }
    if (r->timed_out) {
        FAIL("%s: not done in its time; it said:\n%s", what, r->output);
    }
    if (r->exit_status != 0) {
        FAIL("%s: exit status %d, signal %d; it said:\n%s", what, r->exit_status, r->signal,
             r->output);
    }
}

static inline void kit_inside(const char *name, enum kit_under under, const char *const *settings,
                              struct harness_result *r)
{
    char self[PATH_MAX];
    snprintf(self, sizeof self, "%s", kit_self(0));
    const char *const argv[] = {self, "--inside", name, NULL};
    kit_run_program(argv, under == KIT_HAKMEM ? kit_library() : NULL, settings, r);
}

static inline void kit_inside_run(const char *name, enum kit_under under,
                                  const char *const *settings)
{
    static struct harness_result result;
    kit_inside(name, under, settings, &result);
    kit_expect_ok(&result, under == KIT_HAKMEM ? "on the region" : "under the C library alone");
}

/* ---- compiling programs and libraries -------------------------------------------------------- */

static char kit_folder_path[64];
static pid_t kit_folder_owner;

static inline void kit_folder_remove(void)
{
    if (getpid() != kit_folder_owner) {
        return;
    }
    DIR *folder = opendir(kit_folder_path);
    for (struct dirent *one; folder != NULL && (one = readdir(folder)) != NULL;) {
        char path[sizeof kit_folder_path + sizeof one->d_name + 1];
        snprintf(path, sizeof path, "%s/%s", kit_folder_path, one->d_name);
        unlink(path);
    }
    if (folder != NULL) {
        closedir(folder);
    }
    rmdir(kit_folder_path);
}

static inline const char *kit_folder(void)
{
    if (kit_folder_path[0] == '\0') {
        char path[] = "/tmp/hakmem-preload-XXXXXX";
        CHECK(mkdtemp(path) != NULL);
        snprintf(kit_folder_path, sizeof kit_folder_path, "%s", path);
        kit_folder_owner = getpid();
        atexit(kit_folder_remove);
        /* For what runs inside. */
        setenv("KIT_FOLDER", kit_folder_path, 1);
    }
    return kit_folder_path;
}

/*
 * Compiles tests/preload/SOURCE into the folder as OUTPUT; options stand behind the source, as on a
 * command line, where $D is the folder. NULL where the compiler refused and may: an option asks for
 * a library that the machine need not have. Builtins are off, so that no call is optimised away.
 */
static inline const char *kit_compile_if(const char *source, const char *output,
                                         const char *options, bool may_fail)
{
    static char path[256];
    static struct harness_result result;
    char command[1024];
    bool cxx = strstr(source, ".cc") != NULL;
    const char *compiler = getenv(cxx ? "CXX" : "CC");
    if (compiler == NULL || *compiler == '\0') {
        compiler = cxx ? "c++" : "cc";
    }
    snprintf(path, sizeof path, "%s/%s", kit_folder(), output);
    if (access(path, F_OK) == 0) {
        return path;
    }
    snprintf(command, sizeof command,
             "D='%s'; exec %s %s -O1 -g -fPIC -fno-builtin -Wall -D_GNU_SOURCE -I. -pthread "
             "-o '%s' 'tests/preload/%s' %s",
             kit_folder(), compiler, cxx ? "-std=c++17" : "-std=gnu17", path, source, options);
    const char *const argv[] = {"/bin/sh", "-c", command, NULL};
    kit_run_program(argv, NULL, NULL, &result);
    if (result.exit_status != 0 && !may_fail) {
        FAIL("%s\n%s", command, result.output);
    }
    return result.exit_status == 0 ? path : NULL;
}

static inline const char *kit_compile(const char *source, const char *output, const char *options)
{
    return kit_compile_if(source, output, options, false);
}

/* A shared library of the folder, opened from inside. */
static inline void *kit_open(const char *library, int flags)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", getenv("KIT_FOLDER"), library);
    void *opened = dlopen(path, flags);
    if (opened == NULL) {
        FAIL("%s", dlerror());
    }
    return opened;
}

static inline void *kit_symbol(void *library, const char *name)
{
    void *symbol = dlsym(library, name);
    if (symbol == NULL) {
        FAIL("%s", dlerror());
    }
    return symbol;
}

/* Compiles a program and runs it under the C library alone, then on the region. */
static inline void kit_contract_program(const char *program, const char *const *settings)
{
    static struct harness_result result;
    const char *const argv[] = {program, NULL};
    kit_run_program(argv, NULL, NULL, &result);
    kit_expect_ok(&result, "under the C library alone");
    kit_run_program(argv, kit_library(), settings, &result);
    kit_expect_ok(&result, "on the region");
}

/* ---- inside ---------------------------------------------------------------------------------- */

static size_t (*kit_usable)(const void *);

/* Are we on the region? The preloaded library has the public calls too. */
static inline bool kit_on_region(void)
{
    return kit_usable != NULL;
}

/* A live object of the region. */
static inline bool kit_in_region(const void *pointer)
{
    return kit_usable != NULL && kit_usable(pointer) != 0;
}

/* Keep the compiler from knowing where a pointer or number came from: what it knows about malloc
 * and free would let it leave calls out, or warn of what a case does on purpose. */
static inline void *kit_keep(void *pointer)
{
    __asm__ volatile("" : "+r"(pointer) : : "memory");
    return pointer;
}

static inline size_t kit_opaque(size_t number)
{
    __asm__ volatile("" : "+r"(number) : : "memory");
    return number;
}

/* A pattern over the object; of large ones, bytes a prime apart, and the last. */
static inline size_t kit_step(size_t bytes)
{
    return bytes > 8192 ? 509 : 1;
}

static inline void kit_fill(void *object, size_t bytes, uint64_t tag)
{
    unsigned char *at = (unsigned char *)object;
    for (size_t i = 0; i < bytes; i += kit_step(bytes)) {
        at[i] = (unsigned char)(tag * 31 + i);
    }
    if (bytes > 0) {
        at[bytes - 1] = (unsigned char)(tag ^ 0x5a);
    }
}

static inline bool kit_holds(const void *object, size_t bytes, uint64_t tag)
{
    const unsigned char *at = (const unsigned char *)object;
    for (size_t i = 0; i + 1 < bytes; i += kit_step(bytes)) {
        if (at[i] != (unsigned char)(tag * 31 + i)) {
            return false;
        }
    }
    return bytes == 0 || at[bytes - 1] == (unsigned char)(tag ^ 0x5a);
}

static inline bool kit_zeroed(const void *object, size_t bytes)
{
    const unsigned char *at = (const unsigned char *)object;
    size_t i = 0;
    while (i < bytes && at[i] == 0) {
        i++;
    }
    return i == bytes;
}

/* Sizes of all kinds: mostly small, some around a slab, few large. */
static inline size_t kit_size(uint64_t *random)
{
    uint64_t x = harness_random(random);
    unsigned bits = (unsigned)(x & 63);
    size_t most = bits < 48 ? KIB : bits < 60 ? 16 * KIB : bits < 63 ? 200 * KIB : 3 * MIB;
    return (size_t)(x >> 8) % most;
}

/*
 * Random work on a set of objects: each step frees what a slot holds, after a look at its contents,
 * and puts another object there. For any thread. Ends with every slot free.
 */
static inline void kit_work(uint64_t seed, unsigned steps)
{
    enum { SLOTS = 128 };
    void *held[SLOTS] = {NULL};
    size_t sizes[SLOTS] = {0};
    uint64_t random = seed;
    for (unsigned step = 0; step < steps + SLOTS; step++) {
        size_t n = step < steps ? harness_random(&random) % SLOTS : step - steps;
        if (held[n] != NULL) {
            CHECK(kit_holds(held[n], sizes[n], seed + n));
            free(held[n]);
            held[n] = NULL;
        }
        if (step < steps) {
            sizes[n] = kit_size(&random);
            held[n] = kit_keep(malloc(sizes[n]));
            CHECK(held[n] != NULL);
            kit_fill(held[n], sizes[n], seed + n);
        }
    }
}

/* KiB of a line of /proc/self/status, such as "VmRSS:". Allocates nothing. */
static inline long kit_status_kib(const char *key)
{
    char text[4096];
    int fd = open("/proc/self/status", O_RDONLY);
    ssize_t length = read(fd, text, sizeof text - 1);
    close(fd);
    CHECK(length > 0);
    text[length] = '\0';
    const char *line = strstr(text, key);
    CHECK(line != NULL);
    return strtol(line + strlen(key), NULL, 10);
}

static inline int kit_main(int argc, char **argv)
{
    if (argc < 3 || strcmp(argv[1], "--inside") != 0) {
        return harness_main(argc, argv);
    }
    *(void **)&kit_usable = dlsym(RTLD_DEFAULT, "hak_usable_size");
    harness_state.in_child = true;
    harness_state.case_thread = pthread_self();
    const char *preload = getenv("LD_PRELOAD");
    if (preload != NULL && strstr(preload, "libhakmem_preload") != NULL) {
        CHECK(kit_usable != NULL);
    }
    for (struct kit_case *one = kit_first; one != NULL; one = one->next) {
        if (strcmp(one->name, argv[2]) == 0) {
            one->run();
            return 0;
        }
    }
    FAIL("no case %s", argv[2]);
}

#define KIT_MAIN()                                                                                 \
    int main(int argc, char **argv)                                                                \
    {                                                                                              \
        return kit_main(argc, argv);                                                               \
    }

#endif
