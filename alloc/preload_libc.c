/* SPDX-License-Identifier: MIT */
/*
 * The C library's own allocator, beside ours.
 *
 * Its pointers come to us where a program asked it by name (a second copy of the library by
 * dlmopen, its functions by dlsym) and frees by the common one, or because the region was full and
 * HAKMEM_EXHAUSTED=libc. They are told from nonsense by what glibc writes around an object
 * (malloc/malloc.c: "a chunk"): the size in front of it with three flag bits, and behind it the
 * next chunk, whose lowest bit says that this one is in use. Both words are read only where the
 * kernel says that there is memory. What looks like neither is misuse, and reported as such.
 */
#include <dlfcn.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "alloc/preload.h"
#include "region/os.h"

#define CHUNK_IN_USE ((size_t)1)
#define CHUNK_MMAPPED ((size_t)2)
#define CHUNK_FLAGS ((size_t)7)
#define CHUNK_HEAD (2 * sizeof(size_t))
#define CHUNK_BYTES_MIN (4 * sizeof(size_t))
#define CHUNK_BYTES_MAX ((size_t)1 << 47)

/* After the region was found full, so many misses go to the C library before it is asked again:
 * each time it is asked in vain costs a look at everything that could be had. */
#define MISSES_ELSEWHERE 256

static struct {
    void *(*malloc)(size_t);
    void *(*calloc)(size_t, size_t);
    void *(*realloc)(void *, size_t);
    void *(*memalign)(size_t, size_t);
    void (*free)(void *);
    size_t (*usable)(void *);
} libc;

static _Atomic uint32_t elsewhere;

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
}

/* Whether there is memory behind the word: mincore(2) says ENOMEM where nothing is mapped. */
static bool is_mapped(uintptr_t word)
{
    size_t page = os_page_bytes();
    unsigned char resident;

    return mincore((void *)round_down(word, page), page, &resident) == 0;
}

static size_t word_at(uintptr_t address)
{
    size_t word;

    memcpy(&word, (const void *)address, sizeof(word));
    return word;
}

static bool owns(uintptr_t object)
{
    size_t page = os_page_bytes();
    uintptr_t chunk = object - CHUNK_HEAD;
    size_t head, bytes;

    if (object % CHUNK_HEAD != 0 || object < page || !is_mapped(chunk)) {
        return false;
    }
    head = word_at(object - sizeof(size_t));
    bytes = head & ~CHUNK_FLAGS;
    if (bytes < CHUNK_BYTES_MIN || bytes > CHUNK_BYTES_MAX || bytes % CHUNK_HEAD != 0) {
        return false;
    }
    if (head & CHUNK_MMAPPED) {
        size_t before = word_at(chunk);
        return before < bytes + HAK_ALIGNMENT_MAX && (chunk - before) % page == 0 &&
               (before + bytes) % page == 0;
    }
    uintptr_t next = chunk + bytes + sizeof(size_t);
    if (next / page != chunk / page && !is_mapped(next)) {
        return false;
    }
    head = word_at(next);
    return (head & CHUNK_IN_USE) && !(head & CHUNK_MMAPPED) &&
           (head & ~CHUNK_FLAGS) >= CHUNK_HEAD && (head & ~CHUNK_FLAGS) <= CHUNK_BYTES_MAX;
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

static void say(const char *line, int length)
{
    /* Where standard error is closed there is nobody to tell. */
    ssize_t written = write(STDERR_FILENO, line, (size_t)length);
    (void)written;
}

static void say_sum(void)
{
    const struct hak_region *heap = atomic_load_explicit(&heap_default, memory_order_acquire);
    char line[160];

    if (heap != NULL) {
        say(line,
            snprintf(line, sizeof(line),
                     "hakmem: %llu allocations of %llu bytes together came from the C library\n",
                     (unsigned long long)atomic_load(&heap->libc_allocs),
                     (unsigned long long)atomic_load(&heap->libc_bytes)));
    }
}

static HAK_COLD void say_first(const struct hak_region *heap, size_t size)
{
    char line[200];

    say(line, snprintf(line, sizeof(line),
                       "hakmem: the region of %zu MiB has no room for %zu bytes; from here on the "
                       "C library stands in (HAKMEM_EXHAUSTED=libc)\n",
                       heap->area.bytes >> 20, size));
    atexit(say_sum);
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

void *libc_instead(size_t alignment, size_t size, bool zeroed)
{
    struct hak_region *heap = atomic_load_explicit(&heap_default, memory_order_acquire);
    void *object = NULL;

    if (libc_may(heap) && size <= PTRDIFF_MAX) {
        object = ask(alignment, size, zeroed);
    }
    if (object == NULL) {
        errno = ENOMEM;
        return NULL;
    }
    if (size <= SUPERSLAB_BYTES) {
        /* A longer one says nothing about what others will find. */
        atomic_store_explicit(&elsewhere, MISSES_ELSEWHERE, memory_order_relaxed);
    }
    atomic_fetch_add_explicit(&heap->libc_bytes, size, memory_order_relaxed);
    if (atomic_fetch_add_explicit(&heap->libc_allocs, 1, memory_order_relaxed) == 0) {
        int saved = errno;
        say_first(heap, size);
        errno = saved;
    }
    return object;
}
