/* SPDX-License-Identifier: MIT */
/*
 * malloc's names, for LD_PRELOAD: build/libhakmem_preload.so is the library with this room in it.
 *
 * The region is made by a constructor, from the environment. Until then (the dynamic loader, other
 * libraries' constructors, and what setting up itself asks for) memory comes from a small bump
 * arena; what comes from there is never reused. So a pointer is one of three: in the arena, in the
 * region, or foreign.
 */
#include <errno.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "alloc/hit.h"
#include "region/os.h"

#define EARLY_BYTES ((size_t)4 << 20)
#define EARLY_ALIGNMENT_MAX ((size_t)4096)
/* The first part of a region that is not faulted in stays on small pages. */
#define SMALL_PAGES_BYTES ((size_t)16 << 20)

static char early[EARLY_BYTES] __attribute__((aligned(64)));
static _Atomic size_t early_used;

static bool is_early(const void *pointer)
{
    return (uintptr_t)pointer - (uintptr_t)early < EARLY_BYTES;
}

/* The size stands in front, for realloc and malloc_usable_size. */
static void *early_alloc(size_t alignment, size_t size)
{
    size_t align = max_size(alignment, HAK_ALIGNMENT_MIN);
    size_t need;

    if (size > EARLY_BYTES || align > EARLY_ALIGNMENT_MAX) {
        errno = ENOMEM;
        return NULL;
    }
    need = round_up(size, HAK_ALIGNMENT_MIN) + align + HAK_ALIGNMENT_MIN;
    /* Relaxed: every caller gets bytes of his own, which nobody had before. */
    size_t at = atomic_fetch_add_explicit(&early_used, need, memory_order_relaxed);
    if (at + need > EARLY_BYTES) {
        errno = ENOMEM;
        return NULL;
    }
    char *object = (char *)round_up((uintptr_t)early + at + HAK_ALIGNMENT_MIN, align);
    memcpy(object - sizeof(size_t), &size, sizeof(size_t));
    return object;
}

static size_t early_size(const void *pointer)
{
    size_t size;

    memcpy(&size, (const char *)pointer - sizeof(size_t), sizeof(size));
    return size;
}

static bool ready(void)
{
    return likely(atomic_load_explicit(&heap_default, memory_order_acquire) != NULL);
}

/*
 * What suits a program that was not written for it, where the environment does not say otherwise:
 * addresses for as much as the machine has, memory as it is used, huge pages for what lies beyond
 * the first few MiB. Units are handed out from the lowest address up, so a small program never
 * has a huge page cleared for it and a large one has them for nearly everything.
 */
static void choose_defaults(struct hak_config *config)
{
    if (getenv("HAKMEM_REGION_SIZE") == NULL) {
        size_t bytes = (size_t)sysconf(_SC_PHYS_PAGES) * (size_t)sysconf(_SC_PAGESIZE);
        config->size_bytes = round_up(bytes, SUPERSLAB_BYTES);
    }
    if (getenv("HAKMEM_PREFAULT") == NULL) {
        config->prefault = HAK_OFF;
    }
    if (getenv("HAKMEM_PAGES") == NULL) {
        config->pages[0] = HAK_PAGES_THP;
        config->pages[1] = HAK_PAGES_4K;
    }
}

__attribute__((constructor)) static void set_up(void)
{
    struct hak_config config = {0};
    choose_defaults(&config);
    int code = hak_region_init(&config);

    if (code != 0) {
        struct hak_error error;
        char line[sizeof(error.message) + sizeof(error.remedy) + 64];
        hak_last_error(&error);
        int length = snprintf(line, sizeof(line), "hakmem: %s\n%s%s", error.message, error.remedy,
                              error.remedy[0] != '\0' ? "\n" : "");
        if (length > 0 &&
            write(STDERR_FILENO, line, min_size((size_t)length, sizeof(line) - 1)) < 0) {
            _exit(127);
        }
        _exit(127);
    }
    struct hak_region *heap = hak_region_default();
    if (config.prefault == HAK_OFF && heap->area.pages == HAK_PAGES_THP) {
        os_small_pages((void *)heap->area.base, min_size(SMALL_PAGES_BYTES, heap->area.bytes));
    }
}

/* Before there is a region every bin is empty and every pointer foreign: only misses need to
 * ask. */
static HAK_NOINLINE void *miss(size_t size)
{
    return likely(ready()) ? malloc_miss(size, NULL) : early_alloc(0, size);
}

static HAK_NOINLINE void free_miss(void *pointer)
{
    if (!is_early(pointer)) {
        free_slow(pointer, NULL);
    }
}

/* NOLINTBEGIN(readability-inconsistent-declaration-parameter-name): the C library's names are
 * reserved ones. */
HAK_API HAK_HOT void *malloc(size_t size)
{
    void *object = NULL;

    return likely(malloc_hit(0, size, &object)) ? object : miss(size);
}

HAK_API HAK_HOT void free(void *pointer)
{
    if (unlikely(!free_hit(&heap_default_front, 0, pointer))) {
        free_miss(pointer);
    }
}

HAK_API void *calloc(size_t count, size_t size)
{
    size_t bytes;

    if (ready()) {
        return hak_calloc(count, size);
    }
    if (__builtin_mul_overflow(count, size, &bytes)) {
        errno = ENOMEM;
        return NULL;
    }
    return early_alloc(0, bytes);
}

HAK_API void *realloc(void *pointer, size_t size)
{
    void *moved;

    if (pointer == NULL) {
        return malloc(size);
    }
    if (likely(!is_early(pointer))) {
        return hak_realloc(pointer, size);
    }
    moved = malloc(size);
    if (moved != NULL) {
        memcpy(moved, pointer, min_size(early_size(pointer), size));
    }
    return moved;
}

HAK_API void *reallocarray(void *pointer, size_t count, size_t size)
{
    size_t bytes;

    if (__builtin_mul_overflow(count, size, &bytes)) {
        errno = ENOMEM;
        return NULL;
    }
    return realloc(pointer, bytes);
}

HAK_API void *aligned_alloc(size_t alignment, size_t size)
{
    return ready() ? hak_aligned_alloc(alignment, size) : early_alloc(alignment, size);
}

HAK_API void *memalign(size_t alignment, size_t size)
{
    return aligned_alloc(alignment, size);
}

HAK_API int posix_memalign(void **out, size_t alignment, size_t size)
{
    int saved = errno;
    void *object = NULL;

    if (alignment < sizeof(void *) || (alignment & (alignment - 1)) != 0) {
        return EINVAL;
    }
    object = aligned_alloc(alignment, size);
    errno = saved;
    if (object == NULL) {
        return ENOMEM;
    }
    *out = object;
    return 0;
}

HAK_API void *valloc(size_t size)
{
    return aligned_alloc(os_page_bytes(), size);
}

HAK_API void *pvalloc(size_t size)
{
    size_t page = os_page_bytes();

    return size > PTRDIFF_MAX ? hak_malloc(size) : aligned_alloc(page, round_up(size, page));
}

HAK_API size_t malloc_usable_size(void *pointer)
{
    if (pointer == NULL) {
        return 0;
    }
    return is_early(pointer) ? early_size(pointer) : hak_usable_size(pointer);
}
/* NOLINTEND(readability-inconsistent-declaration-parameter-name): as above. */
