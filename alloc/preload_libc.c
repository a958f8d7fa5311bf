/* SPDX-License-Identifier: MIT */
/*
 * The C library's own allocator, beside ours.
 *
 * Its pointers come to us where a program asked it by name (a second copy of the library by
 * dlmopen, its functions by dlsym) and frees by the common one, or because the region was full and
 * HAKMEM_EXHAUSTED=libc. They are told from nonsense by what glibc writes around an object
 * (malloc/malloc.c: "a chunk"): the size in front of it with three flag bits, and behind it the
 * next chunk, whose lowest bit says that this one is in use. Both words are read only where the
 * kernel can. What looks like neither is misuse, and reported as such.
 */
#include <dlfcn.h>
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include "alloc/preload.h"
#include "region/errlog.h"
#include "region/os.h"

#define CHUNK_IN_USE ((size_t)1)
#define CHUNK_MMAPPED ((size_t)2)
#define CHUNK_FLAGS ((size_t)7)
#define CHUNK_HEAD (2 * sizeof(size_t))
#define CHUNK_BYTES_MIN (4 * sizeof(size_t))
#define CHUNK_BYTES_MAX ((size_t)1 << 47)

/* After the region was found full, so many misses go to the C library before it is asked again,
 * and twice as many each further time: asking in vain costs a look at everything that could be
 * had. */
#define ELSEWHERE_LEAST 256U
#define ELSEWHERE_MOST (1U << 16)

static struct {
    void *(*malloc)(size_t);
    void *(*calloc)(size_t, size_t);
    void *(*realloc)(void *, size_t);
    void *(*memalign)(size_t, size_t);
    void (*free)(void *);
    size_t (*usable)(void *);
} libc;

static _Atomic uint32_t elsewhere;
static _Atomic uint32_t next_elsewhere = ELSEWHERE_LEAST;
/* The program break before anybody moved it: from here to the break there is memory. */
static uintptr_t first_break;

/* The function by its inner name where it has one: that one nobody wraps. */
static void *find(const char *inner, const char *name)
{
    void *function = inner != NULL ? dlsym(RTLD_NEXT, inner) : NULL;

    return function != NULL ? function : dlsym(RTLD_NEXT, name);
}

void libc_find(void)
{
    libc.malloc = (void *(*)(size_t))find("__libc_malloc", "malloc");
    libc.calloc = (void *(*)(size_t, size_t))find("__libc_calloc", "calloc");
    libc.realloc = (void *(*)(void *, size_t))find("__libc_realloc", "realloc");
    libc.memalign = (void *(*)(size_t, size_t))find("__libc_memalign", "memalign");
    libc.free = (void (*)(void *))find("__libc_free", "free");
    libc.usable = (size_t(*)(void *))find(NULL, "malloc_usable_size");
    first_break = (uintptr_t)sbrk(0);
}

static void say_sum(void)
{
    const struct hak_region *heap = atomic_load_explicit(&heap_default, memory_order_acquire);

    if (heap != NULL && atomic_load(&heap->libc_allocs) != 0) {
        errlog_say("%llu allocations of %llu bytes together came from the C library",
                   (unsigned long long)atomic_load(&heap->libc_allocs),
                   (unsigned long long)atomic_load(&heap->libc_bytes));
    }
}

void libc_prepare(void)
{
    /* Not when the first object comes from there: that may be atexit's own, under its lock. */
    atexit(say_sum);
    if (libc.malloc != NULL && libc.free != NULL) {
        libc.free(libc.malloc(1));
    }
}

/* A word of memory that may not be there, or not to be read: the kernel looks for us, and says
 * EFAULT then (process_vm_readv(2)). Most of the C library's objects are below the break. */
static bool read_word(uintptr_t address, size_t *word)
{
    if (address >= first_break && address + sizeof(*word) <= (uintptr_t)sbrk(0)) {
        memcpy(word, (const void *)address, sizeof(*word));
        return true;
    }
    struct iovec here = {.iov_base = word, .iov_len = sizeof(*word)};
    struct iovec there = {.iov_base = (void *)address, .iov_len = sizeof(*word)};

    if (process_vm_readv(getpid(), &here, 1, &there, 1, 0) == (ssize_t)sizeof(*word)) {
        return true;
    }
    if (errno == EFAULT) {
        return false;
    }
    /* A filter forbids it. Then at least what is mapped, which mincore(2) tells. */
    unsigned char resident;
    size_t page = os_page_bytes();
    if (mincore((void *)round_down(address, page), page, &resident) != 0) {
        return false;
    }
    memcpy(word, (const void *)address, sizeof(*word));
    return true;
}

static bool is_chunk_size(size_t bytes)
{
    return bytes >= CHUNK_BYTES_MIN && bytes <= CHUNK_BYTES_MAX && bytes % CHUNK_HEAD == 0;
}

static bool owns(uintptr_t object)
{
    size_t page = os_page_bytes();
    uintptr_t chunk = object - CHUNK_HEAD;
    size_t head, next, before;

    if (object % CHUNK_HEAD != 0 || object < page || !read_word(object - sizeof(size_t), &head) ||
        !is_chunk_size(head & ~CHUNK_FLAGS)) {
        return false;
    }
    size_t bytes = head & ~CHUNK_FLAGS;
    if (head & CHUNK_MMAPPED) {
        return read_word(chunk, &before) && before < bytes + HAK_ALIGNMENT_MAX &&
               (chunk - before) % page == 0 && (before + bytes) % page == 0;
    }
    /* The last chunk of an arena may be shorter than any that is handed out. */
    return read_word(chunk + bytes + sizeof(size_t), &next) && (next & CHUNK_IN_USE) &&
           !(next & CHUNK_MMAPPED) && (next & ~CHUNK_FLAGS) >= CHUNK_HEAD &&
           (next & ~CHUNK_FLAGS) <= CHUNK_BYTES_MAX;
}

bool libc_owns(const void *pointer)
{
    int saved = errno;
    bool answer = libc.free != NULL && owns((uintptr_t)pointer);

    errno = saved;
    return answer;
}

void libc_free(void *pointer)
{
    libc.free(pointer);
}

size_t libc_bytes(void *pointer)
{
    return libc.usable != NULL ? libc.usable(pointer) : 0;
}

void *libc_realloc(void *pointer, size_t size)
{
    return libc.realloc(pointer, size);
}

bool libc_first(void)
{
    /* Relaxed, here and below: a hint; a lost step costs one more or one fewer look. */
    uint32_t left = atomic_load_explicit(&elsewhere, memory_order_relaxed);

    if (likely(left == 0)) {
        return false;
    }
    atomic_store_explicit(&elsewhere, left - 1, memory_order_relaxed);
    return true;
}

void libc_not_needed(void)
{
    if (unlikely(atomic_load_explicit(&next_elsewhere, memory_order_relaxed) != ELSEWHERE_LEAST)) {
        atomic_store_explicit(&next_elsewhere, ELSEWHERE_LEAST, memory_order_relaxed);
    }
}

void libc_not_first(void)
{
    if (unlikely(atomic_load_explicit(&elsewhere, memory_order_relaxed) != 0)) {
        atomic_store_explicit(&elsewhere, 0, memory_order_relaxed);
    }
}

/* Once: a program may take a failed allocation badly, and far from here. */
static HAK_COLD void say_full(const struct hak_region *heap, size_t size)
{
    static _Atomic bool said;

    if (!atomic_exchange_explicit(&said, true, memory_order_relaxed)) {
        errlog_say("the region of %zu MiB has no room for %zu bytes: the program hears ENOMEM "
                   "(HAKMEM_REGION_SIZE sets the size, HAKMEM_EXHAUSTED=libc goes on elsewhere)",
                   heap->area.bytes >> 20, size);
    }
}

static HAK_COLD void say_first(const struct hak_region *heap, size_t size)
{
    errlog_say("the region of %zu MiB has no room for %zu bytes; from here on the C library stands "
               "in (HAKMEM_EXHAUSTED=libc)",
               heap->area.bytes >> 20, size);
}

static void *ask(size_t alignment, size_t size, bool zeroed)
{
    if (libc.malloc == NULL || libc.calloc == NULL || libc.memalign == NULL) {
        return NULL;
    }
    if (alignment > HAK_ALIGNMENT_MIN) {
        return libc.memalign(alignment, size);
    }
    return zeroed ? libc.calloc(1, size) : libc.malloc(size);
}

void *libc_instead(size_t alignment, size_t size, bool zeroed, bool asked)
{
    struct hak_region *heap = atomic_load_explicit(&heap_default, memory_order_acquire);
    void *object = NULL;

    if (libc_may(heap) && size <= PTRDIFF_MAX) {
        object = ask(alignment, size, zeroed);
    }
    if (object == NULL) {
        if (heap != NULL && !libc_may(heap) && size <= SUPERSLAB_BYTES) {
            say_full(heap, size);
        }
        errno = ENOMEM;
        return NULL;
    }
    if (asked && size <= SUPERSLAB_BYTES) {
        /* A longer one says nothing about what others will find. */
        uint32_t span = atomic_load_explicit(&next_elsewhere, memory_order_relaxed);
        atomic_store_explicit(&elsewhere, span, memory_order_relaxed);
        if (span < ELSEWHERE_MOST) {
            atomic_store_explicit(&next_elsewhere, span * 2, memory_order_relaxed);
        }
    }
    atomic_fetch_add_explicit(&heap->libc_bytes, size, memory_order_relaxed);
    if (atomic_fetch_add_explicit(&heap->libc_allocs, 1, memory_order_relaxed) == 0) {
        say_first(heap, size);
    }
    return object;
}
