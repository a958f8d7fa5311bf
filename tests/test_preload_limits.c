/* SPDX-License-Identifier: MIT */
/*
 * Programs on the region within limits: of addresses and data (setrlimit(2)), of what the kernel
 * promises, of what may be locked; and patterns that cost other region allocators a multiple of the
 * memory in use.
 */
#include "tests/preload_kit.h"

#include <pthread.h>
#include <sys/mman.h>
#include <sys/resource.h>

/* ---- fewer addresses than the machine has memory --------------------------------------------- */

static struct {
    bool data;
    rlim_t bytes;
} limit;

static void limited(void *name)
{
    struct rlimit both = {.rlim_cur = limit.bytes, .rlim_max = limit.bytes};
    static const char *const none[] = {NULL};

    CHECK_EQ(setrlimit(limit.data ? RLIMIT_DATA : RLIMIT_AS, &both), 0);
    kit_inside_run(name, KIT_HAKMEM, none);
}

/* In a child, since the limit is there for good. */
static void run_limited(const char *name, bool data, size_t bytes)
{
    static struct harness_result result;

    limit.data = data;
    limit.bytes = bytes;
    harness_child(limited, (void *)name, &result);
    kit_expect_ok(&result, name);
}

static void *fill_one(void *unused)
{
    void *object = malloc(100000);

    CHECK(object != NULL);
    kit_fill(object, 100000, 7);
    CHECK(kit_holds(object, 100000, 7));
    free(object);
    return unused;
}

/* 30 MB in objects, and threads: more than the region of such a process holds. */
INSIDE(more_than_its_region_holds)
{
    static void *objects[30000];
    pthread_attr_t attributes;

    CHECK_EQ(pthread_attr_init(&attributes), 0);
    CHECK_EQ(pthread_attr_setstacksize(&attributes, 256 * KIB), 0);
    for (size_t n = 0; n < 30000; n++) {
        objects[n] = malloc(1000);
        CHECK(objects[n] != NULL);
        kit_fill(objects[n], 1000, n);
    }
    for (unsigned n = 0; n < 8; n++) {
        pthread_t thread;
        CHECK_EQ(pthread_create(&thread, &attributes, fill_one, NULL), 0);
        CHECK_EQ(pthread_join(thread, NULL), 0);
    }
    for (size_t n = 0; n < 30000; n++) {
        CHECK(kit_holds(objects[n], 1000, n));
        free(objects[n]);
    }
}

TEST(a_process_of_few_addresses_has_a_small_region_and_the_c_library)
{
    static const size_t sizes[] = {100 * MIB, 200 * MIB, 2048 * MIB};

    for (unsigned n = 0; n < 3; n++) {
        run_limited("more_than_its_region_holds", false, sizes[n]);
        run_limited("more_than_its_region_holds", true, sizes[n]);
    }
}

/* ---- locked memory --------------------------------------------------------------------------- */

PRELOADED(mlockall_takes_no_memory_that_nobody_uses)
{
    if (mlockall(MCL_CURRENT | MCL_FUTURE) != 0) {
        CHECK(errno == ENOMEM || errno == EPERM || errno == EAGAIN);
        return; /* as far as this user may; the next case needs no right */
    }
    fill_one(NULL);
    CHECK_LE(kit_status_kib("VmRSS:"), 64 * 1024);
    CHECK_EQ(munlockall(), 0);
}

/* What comes from now on is locked, though the region's addresses are older. */
PRELOADED(mlockall_of_the_future_locks_what_the_heap_takes)
{
    if (mlockall(MCL_FUTURE) != 0) {
        CHECK(errno == ENOMEM || errno == EPERM || errno == EAGAIN);
        return;
    }
    char *object = malloc(30 * MIB);
    if (kit_keep(object) == NULL) {
        FAIL("no object");
    }
    memset(object, 1, 30 * MIB);
    CHECK_GE(kit_status_kib("VmLck:"), 30 * 1024);
    CHECK_LE(kit_status_kib("VmRSS:"), 64 * 1024);
    CHECK_EQ(munlockall(), 0);
    free(object);
}

/* ---- objects that grow between others -------------------------------------------------------- */

static void grow_between(size_t total, size_t step, size_t kept)
{
    char *buffer = NULL;
    size_t all = total + total / step * kept;

    for (size_t size = step; size <= total; size += step) {
        buffer = kit_keep(realloc(buffer, size));
        CHECK(buffer != NULL);
        memset(buffer + size - step, (int)(size / step % 251), step);
        char *other = kit_keep(malloc(kept));
        CHECK(other != NULL);
        memset(other, 1, kept);
    }
    for (size_t size = step; size <= total; size += step) {
        CHECK_EQ((unsigned char)buffer[size - 1], size / step % 251);
    }
    CHECK_LE((size_t)kit_status_kib("VmHWM:") * KIB, all * 5 / 2 + 64 * MIB);
    free(buffer);
}

CONTRACT(a_buffer_that_grows_between_large_objects_takes_little_more_than_it_holds)
{
    grow_between(128 * MIB, 512 * KIB, 300000);
}

CONTRACT(a_buffer_that_grows_between_small_objects_takes_little_more_than_it_holds)
{
    grow_between(128 * MIB, 64 * KIB, 3000);
}

PRELOADED(a_buffer_grows_to_a_tenth_of_a_small_region_between_others, "HAKMEM_REGION_SIZE=1G")
{
    grow_between(100 * MIB, 512 * KIB, 300000);
}

/* ---- what is freed goes back ----------------------------------------------------------------- */

CONTRACT(rounds_of_much_memory_leave_little_behind)
{
    static char *objects[400];

    for (unsigned round = 0; round < 8; round++) {
        for (unsigned n = 0; n < 400; n++) {
            objects[n] = kit_keep(malloc(MIB));
            CHECK(objects[n] != NULL);
            memset(objects[n], 1, MIB);
        }
        for (unsigned n = 0; n < 400; n++) {
            free(objects[n]);
        }
    }
    CHECK_LE(kit_status_kib("VmRSS:"), 320 * 1024); /* of 400 MiB: at most 32 and 256 stay */
    CHECK(malloc_trim(0) == 1 || !kit_on_region());
    CHECK_LE(kit_status_kib("VmRSS:"), 32 * 1024);
}

CONTRACT(a_trim_takes_what_lies_between_objects_in_use)
{
    static char *objects[1000];

    for (unsigned n = 0; n < 1000; n++) {
        objects[n] = kit_keep(malloc(300000));
        CHECK(objects[n] != NULL);
        memset(objects[n], (int)n, 300000);
    }
    for (unsigned n = 0; n < 1000; n++) {
        if (n % 6 != 0) {
            free(objects[n]);
        }
    }
    malloc_trim(0);
    CHECK_LE(kit_status_kib("VmRSS:"), 100 * 1024); /* 48 MiB are in use */
    for (unsigned n = 0; n < 1000; n += 6) {
        CHECK_EQ((unsigned char)objects[n][299999], n & 0xff);
        free(objects[n]);
    }
}

KIT_MAIN()
