/* SPDX-License-Identifier: MIT */
/*
 * Thin: each function is a system call or two and its errors. Called by region/: during set-up
 * (backing, faultin, registry), and for memory that goes back (giveback).
 */
#define _GNU_SOURCE
#include "region/os.h"

#include "region/base.h"

#include <errno.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

/* An overloaded kernel may say EAGAIN for a while; then it is an answer. */
#define POPULATE_TRIES 1000
/* Where os_reserve_apart looks: 64 TiB from 64 GiB on, of the 128 that a program has. */
#define PLACE_LEAST ((uintptr_t)64 << 30)
#define PLACE_BYTES ((uintptr_t)64 << 40)
#define PLACE_TRIES 8

static const struct {
    const char *name;
    unsigned log2; /* of a hugetlb page; 0: ordinary memory */
} kinds[HAK_PAGES_COUNT] = {
    [HAK_PAGES_DEFAULT] = {"default", 0}, [HAK_PAGES_1G] = {"1G", 30}, [HAK_PAGES_2M] = {"2M", 21},
    [HAK_PAGES_THP] = {"thp", 0},         [HAK_PAGES_4K] = {"4k", 0},
};

size_t os_page_bytes(void)
{
    return (size_t)sysconf(_SC_PAGESIZE);
}

size_t os_pages_bytes(enum hak_pages pages)
{
    return os_pages_hugetlb(pages) ? (size_t)1 << kinds[pages].log2 : os_page_bytes();
}

bool os_pages_hugetlb(enum hak_pages pages)
{
    return kinds[pages].log2 != 0;
}

const char *os_pages_name(enum hak_pages pages)
{
    return kinds[pages].name;
}

int os_release(void *at, size_t bytes)
{
    return munmap(at, bytes) == 0 ? 0 : -errno;
}

int os_reserve(size_t bytes, size_t align, void **out)
{
    size_t page = os_page_bytes();
    size_t extra = align > page ? align - page : 0;
    *out = NULL;
    if (bytes == 0 || bytes > SIZE_MAX - extra - page)
        return -EINVAL;
    size_t length = round_up(bytes, page);
    unsigned char *raw = mmap(NULL, length + extra, PROT_NONE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (raw == MAP_FAILED)
        return -errno;
    size_t before = (size_t)(-(uintptr_t)raw & (max_size(align, page) - 1));
    if (before > 0)
        munmap(raw, before);
    if (extra > before)
        munmap(raw + before + length, extra - before);
    *out = raw + before;
    return 0;
}

void os_random(void *out, size_t bytes)
{
    static _Atomic uint64_t calls;
    unsigned char *to = out;

    if (getrandom(out, bytes, GRND_NONBLOCK) == (ssize_t)bytes)
        return;
    uint64_t state = os_now_ns() ^ (uintptr_t)&calls << 20;
    const unsigned char *start = (const unsigned char *)getauxval(AT_RANDOM);
    for (unsigned i = 0; start != NULL && i < 16; i++)
        state = (state ^ start[i]) * UINT64_C(0x100000001b3);
    /* Relaxed: only different each time. */
    state += atomic_fetch_add_explicit(&calls, 1, memory_order_relaxed) << 32;
    for (size_t i = 0; i < bytes; i++) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        to[i] = (unsigned char)(state >> 32);
    }
}

int os_reserve_apart(size_t bytes, size_t grain, void **out)
{
    size_t length = round_up(bytes, grain) + 2 * grain;
    int code;

    *out = NULL;
    if (bytes == 0 || bytes > SIZE_MAX / 4)
        return -EINVAL;
    for (unsigned tries = 0; tries < PLACE_TRIES; tries++) {
        uintptr_t wish;
        os_random(&wish, sizeof wish);
        wish = PLACE_LEAST + round_down(wish % PLACE_BYTES, grain);
        void *raw = mmap((void *)wish, length, PROT_NONE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (raw == MAP_FAILED)
            return -errno;
        if (raw == (void *)wish) {
            *out = (char *)raw + grain;
            return 0;
        }
        munmap(raw, length); /* taken, or a smaller address space */
    }
    code = os_reserve(length, grain, out);
    if (code == 0)
        *out = (char *)*out + grain;
    return code;
}

int os_release_apart(void *at, size_t bytes, size_t grain)
{
    return os_release((char *)at - grain, round_up(bytes, grain) + 2 * grain);
}

int os_forbid(void *at, size_t bytes)
{
    return mprotect(at, bytes, PROT_NONE) == 0 ? 0 : -errno;
}

int os_allow(void *at, size_t bytes)
{
    return mprotect(at, bytes, PROT_READ | PROT_WRITE) == 0 ? 0 : -errno;
}

int os_commit(void *at, size_t bytes, enum hak_pages pages)
{
    if (os_pages_hugetlb(pages))
        return -EINVAL;
    if (mprotect(at, bytes, PROT_READ | PROT_WRITE) != 0)
        return -errno;
    if (pages == HAK_PAGES_THP)
        return madvise(at, bytes, MADV_HUGEPAGE) == 0 ? 0 : -errno;
    /* EINVAL: a kernel without transparent huge pages, which has nothing to refrain from. */
    if (madvise(at, bytes, MADV_NOHUGEPAGE) != 0 && errno != EINVAL)
        return -errno;
    return 0;
}

int os_map_hugetlb(size_t bytes, enum hak_pages pages, void **out)
{
    *out = NULL;
    if (!os_pages_hugetlb(pages) || bytes == 0 || bytes % os_pages_bytes(pages) != 0)
        return -EINVAL;
    int size_flag = (int)(kinds[pages].log2 << MAP_HUGE_SHIFT);
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | size_flag, -1, 0);
    if (at == MAP_FAILED)
        return -errno;
    *out = at;
    return 0;
}

int os_map_file(size_t bytes, int file, bool shared, void **out)
{
    *out = NULL;
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, shared ? MAP_SHARED : MAP_PRIVATE, file,
                    0);
    if (at == MAP_FAILED)
        return -errno;
    *out = at;
    return 0;
}

/* A write that changes nothing, whoever else writes there. An exchange of a byte for itself, since
 * compilers make a mere load of an or with 0, and a load maps the shared page of zeroes. */
static void touch(unsigned char *at, size_t bytes)
{
    size_t page = os_page_bytes();
    for (size_t offset = 0; offset < bytes; offset += page) {
        _Atomic unsigned char *byte = (_Atomic unsigned char *)(at + offset);
        unsigned char value = atomic_load_explicit(byte, memory_order_relaxed);
        /* Relaxed: only the page fault matters. When it fails somebody else has written. */
        atomic_compare_exchange_strong_explicit(byte, &value, value, memory_order_relaxed,
                                                memory_order_relaxed);
    }
}

int os_populate(void *at, size_t bytes, bool hugetlb)
{
    int tries = 0;
    while (madvise(at, bytes, MADV_POPULATE_WRITE) != 0) {
        if (errno == EINTR)
            continue;
        if (errno == EAGAIN && ++tries < POPULATE_TRIES) {
            usleep(1000);
            continue;
        }
        if (errno != EINVAL)
            return -errno;
        if (hugetlb)
            return -ENOSYS;
        touch(at, bytes);
        return 0;
    }
    return 0;
}

int os_small_pages(void *at, size_t bytes)
{
    return madvise(at, bytes, MADV_NOHUGEPAGE) == 0 ? 0 : -errno;
}

int os_huge_pages(void *at, size_t bytes)
{
    return madvise(at, bytes, MADV_HUGEPAGE) == 0 ? 0 : -errno;
}

int os_discard(void *at, size_t bytes)
{
    return madvise(at, bytes, MADV_DONTNEED) == 0 ? 0 : -errno;
}

void os_yield(void)
{
    sched_yield();
}

static uint64_t read_clock(clockid_t clock)
{
    struct timespec now = {0, 0};
    (void)clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000000U + (uint64_t)now.tv_nsec;
}

uint64_t os_coarse_ns(void)
{
    return read_clock(CLOCK_MONOTONIC_COARSE);
}

uint64_t os_now_ns(void)
{
    return read_clock(CLOCK_MONOTONIC);
}

int os_dontfork(void *at, size_t bytes)
{
    return madvise(at, bytes, MADV_DONTFORK) == 0 ? 0 : -errno;
}
