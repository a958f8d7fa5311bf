/* SPDX-License-Identifier: MIT */
/*
 * The region of a preloaded program.
 *
 * It is made at the first allocation for which the C library is ready (it knows the environment),
 * which some other library's constructor may well ask for; at the latest by this library's own
 * constructor. What making it asks for itself comes early. A program that has a malloc of its own
 * gets no region, until something asks ours after all.
 */
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "alloc/preload.h"
#include "alloc/setup.h"
#include "region/errlog.h"
#include "region/os.h"
#include "region/supply.h"

/* Of transparent huge pages: a program that uses less has small ones. */
#define HUGE_FROM_BYTES ((size_t)128 << 20)

/* Of a limited number of addresses the region takes one part in so many, but at least so much. */
#define ADDRESS_SHARE 4
#define LIMITED_BYTES_MIN ((size_t)8 << 20)
/* Tries for reserved huge pages that others take at the same time. */
#define HALVES_MOST 8

enum { NOT_YET, GOING_ON, OVER };
static _Atomic unsigned progress;

/* Addresses that the process may have: RLIMIT_AS counts all of them, RLIMIT_DATA those that can be
 * written. */
static size_t most_addresses(void)
{
    size_t most = SIZE_MAX;
    struct rlimit limit;

    if (getrlimit(RLIMIT_AS, &limit) == 0) {
        most = min_size(most, limit.rlim_cur);
    }
    if (getrlimit(RLIMIT_DATA, &limit) == 0) {
        most = min_size(most, limit.rlim_cur);
    }
    return most;
}

/* Not sysconf(_SC_PHYS_PAGES): where a sandbox forbids the call below that is any number. */
static size_t machine_bytes(size_t otherwise)
{
    struct sysinfo info;

    return sysinfo(&info) == 0 ? (size_t)info.totalram * info.mem_unit : otherwise;
}

/* Less than the machine has, and the C library for the rest. */
static void take_less(struct settings *settings, size_t bytes)
{
    settings->size_bytes = bytes;
    if (!(settings->given & GIVEN_EXHAUSTED)) {
        settings->exhausted = HAK_EXHAUSTED_LIBC;
    }
}

/* Half of the reserved huge pages that are free; 0 where there are none. */
static size_t half_of_free(enum hak_pages pages)
{
    return (size_t)((supply_unpromised(pages) + 1) / 2) * os_pages_bytes(pages);
}

/* Programs that start at the same moment take the same half: who comes too late takes half of what
 * is left. Where nothing is left the error says how many are missing. */
static bool take_other_half(struct settings *settings, unsigned failures)
{
    size_t half = half_of_free(settings->pages[0]);

    if (half == 0 || failures > HALVES_MOST) {
        return false;
    }
    settings->size_bytes = half;
    return true;
}

/* As much as the machine has can be more than the kernel promises (overcommit_memory = 2). Then a
 * small part of it, so that the program can fork; half of that, and so on. */
static bool shrink(struct settings *settings, unsigned failures)
{
    size_t part = failures == 1 ? 16 : 2;

    if (settings->given & GIVEN_SIZE) {
        return false;
    }
    if (os_pages_hugetlb(settings->pages[0])) {
        return take_other_half(settings, failures);
    }
    if (settings->size_bytes < part * LIMITED_BYTES_MIN) {
        return false;
    }
    take_less(settings, round_down(settings->size_bytes / part, SUPERSLAB_BYTES));
    return true;
}

/*
 * What suits a program that was not written for it, where nobody said otherwise: addresses for
 * as much as the machine has, memory as it is used, transparent huge pages, every node of the
 * machine before an allocation fails. A process that may not have as many addresses gets a part of
 * those it may, and the C library for the rest. Of reserved huge pages half of those that are
 * free: a program may well start another one, and a child of fork needs some for what it writes.
 */
static void suit(struct settings *settings)
{
    unsigned given = settings->given;

    if (!(given & GIVEN_PREFAULT)) {
        settings->prefault = false;
    }
    if (!(given & GIVEN_PAGES)) {
        settings->pages[0] = HAK_PAGES_THP;
        settings->pages[1] = HAK_PAGES_4K;
        settings->pages_count = 2;
        settings->huge_from_bytes = HUGE_FROM_BYTES;
    }
    if (!(given & GIVEN_EXHAUSTED)) {
        settings->exhausted = HAK_EXHAUSTED_ANY_NODE;
    }
    if (given & GIVEN_SIZE) {
        return;
    }
    enum hak_pages pages = settings->pages[0];
    if (os_pages_hugetlb(pages)) {
        size_t half = half_of_free(pages);
        settings->size_bytes = half != 0 ? half : settings->size_bytes;
    } else if (!settings->prefault) {
        size_t bytes = machine_bytes(settings->size_bytes);
        size_t most = most_addresses() / ADDRESS_SHARE;
        settings->size_bytes = min_size(round_up(max_size(bytes, 1), SUPERSLAB_BYTES),
                                        HAK_REGION_BYTES_MAX);
        if (most < settings->size_bytes) {
            take_less(settings, max_size(round_down(most, SUPERSLAB_BYTES), LIMITED_BYTES_MIN));
        }
    }
}

static _Noreturn void give_up(void)
{
    struct hak_error error;

    hak_last_error(&error);
    errlog_say("%s%s%s", error.message, error.remedy[0] != '\0' ? "\n" : "", error.remedy);
    _exit(127);
}

bool start_try(void)
{
    unsigned before = NOT_YET;

    /* Acquire: what the thread that made it wrote. A failure is a set-up under way: this thread's
     * own, or another's, which this one does not wait for: there is early memory. */
    if (environ == NULL ||
        !atomic_compare_exchange_strong_explicit(&progress, &before, GOING_ON, memory_order_acquire,
                                                 memory_order_acquire)) {
        return start_done();
    }
    libc_find();
    if (setup_whole_program(suit, shrink) != 0) {
        give_up();
    }
    struct hak_region *heap = hak_region_default();
    if (libc_may(heap)) {
        libc_prepare();
    }
    atomic_store_explicit(&progress, OVER, memory_order_release);
    return true;
}

/* Whether the malloc that the dynamic linker finds first is this library's. */
static bool is_first(void)
{
    Dl_info found, here;

    return dladdr((void *)malloc, &found) == 0 || dladdr(&progress, &here) == 0 ||
           found.dli_fbase == here.dli_fbase;
}

__attribute__((constructor)) static void start(void)
{
    if (is_first()) {
        start_try();
    }
}
