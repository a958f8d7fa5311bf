/* SPDX-License-Identifier: MIT */
/*
 * malloc's names, for LD_PRELOAD; preload.h tells what is where.
 *
 * Before there is a region every bin is empty and every pointer foreign, so only misses need to
 * ask whether there is one. What the names do where the C standard and POSIX leave it open is what
 * glibc does (malloc(3), posix_memalign(3)): size 0 is an object, realloc to size 0 frees, memalign
 * takes the next power of two for an alignment, aligned_alloc refuses one that is none.
 *
 * __libc_malloc and the like are glibc's inner names for the same functions. Programs that wrap
 * malloc call them; what they leave alone (posix_memalign, strdup) comes from here, so they have to
 * come here too.
 */
#include <errno.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#include "alloc/hit.h"
#include "alloc/preload.h"
#include "region/os.h"

/* ---- misses ---- */

static void *region_alloc(size_t alignment, size_t size, bool zeroed)
{
    if (alignment > HAK_ALIGNMENT_MIN) {
        return hak_aligned_alloc(alignment, size);
    }
    return zeroed ? hak_calloc(1, size) : malloc_miss(size, NULL);
}

void *preload_alloc(size_t alignment, size_t size, bool zeroed)
{
    int saved = errno;
    bool ask;
    void *object;

    if (unlikely(!start_done()) && !start_try()) {
        return early_alloc(alignment, size);
    }
    ask = likely(!libc_first());
    object = ask ? region_alloc(alignment, size, zeroed) : NULL;
    if (unlikely(object == NULL)) {
        object = libc_instead(alignment, size, zeroed, ask);
        errno = object != NULL ? saved : ENOMEM;
        return object;
    }
    libc_not_needed();
    return object;
}

/* In the default region's addresses. */
static bool is_ours(const void *pointer)
{
    const struct hak_region *heap = atomic_load_explicit(&heap_default, memory_order_acquire);

    return heap != NULL && region_unit(&heap->area, pointer) != UNIT_NONE;
}

void preload_free(void *pointer)
{
    bool ours = is_ours(pointer);

    if (!ours && (pointer == NULL || early_has(pointer))) {
        return;
    }
    if (!ours && heap_containing(pointer) == NULL && libc_owns(pointer)) {
        libc_free(pointer);
        return;
    }
    free_slow(pointer, NULL); /* where nobody has it, this says what is wrong with it */
    libc_not_first();
}

void preload_free_sized(void *pointer, size_t size, size_t alignment)
{
    if (is_ours(pointer)) {
        hak_free_aligned_sized(pointer, alignment, size);
        libc_not_first();
    } else {
        preload_free(pointer);
    }
}

/* The bytes that can be used behind a pointer, wherever it belongs; 0 for none of ours. */
static size_t bytes_of(void *pointer)
{
    if (pointer == NULL || is_ours(pointer)) {
        return hak_usable_size(pointer);
    }
    if (early_has(pointer)) {
        return early_bytes(pointer);
    }
    return libc_owns(pointer) ? libc_bytes(pointer) : 0;
}

/* ---- the names ---- */

/* NOLINTBEGIN(readability-inconsistent-declaration-parameter-name): the C library's names are
 * reserved ones. */
HAK_API HAK_HOT void *malloc(size_t size)
{
    void *object = NULL;

    return likely(malloc_hit(0, size, &object)) ? object : preload_alloc(0, size, false);
}

HAK_API HAK_HOT void free(void *pointer)
{
    if (unlikely(!free_hit(&heap_default_front, 0, pointer))) {
        preload_free(pointer);
    }
}

/* Of C23, which glibc 2.36 does not have. Programs that know it ask the dynamic linker. */
HAK_API HAK_HOT void free_sized(void *pointer, size_t size);
void free_sized(void *pointer, size_t size)
{
    if (unlikely(!free_hit(&heap_default_front, 0, pointer))) {
        preload_free_sized(pointer, size, 0);
    }
}

HAK_API void free_aligned_sized(void *pointer, size_t alignment, size_t size);
void free_aligned_sized(void *pointer, size_t alignment, size_t size)
{
    if (unlikely(!free_hit(&heap_default_front, 0, pointer))) {
        preload_free_sized(pointer, size, alignment);
    }
}

HAK_API void *calloc(size_t count, size_t size)
{
    void *object = NULL;
    size_t bytes;

    if (unlikely(__builtin_mul_overflow(count, size, &bytes))) {
        errno = ENOMEM;
        return NULL;
    }
    if (likely(malloc_hit(0, bytes, &object))) {
        return memset(object, 0, bytes);
    }
    return preload_alloc(0, bytes, true);
}

/* What does not fit into the region any more, or never was in it. */
static HAK_NOINLINE void *move(void *pointer, size_t size)
{
    bool of_libc = !is_ours(pointer) && !early_has(pointer);
    size_t have = bytes_of(pointer);
    void *moved;

    if (size == 0) {
        preload_free(pointer);
        return NULL;
    }
    if (unlikely(have == 0 && of_libc)) {
        return hak_realloc(pointer, size); /* says what is wrong with it */
    }
    if (of_libc && libc_first()) {
        return libc_realloc(pointer, size);
    }
    moved = preload_alloc(0, size, false);
    if (moved != NULL) {
        memcpy(moved, pointer, min_size(have, size));
        free(pointer);
    }
    return moved;
}

/* An object of the region, which may have to leave it. */
static HAK_NOINLINE void *realloc_either(void *pointer, size_t size)
{
    int saved = errno;
    void *moved = hak_realloc(pointer, size);

    if (moved == NULL && size != 0 && errno == ENOMEM) {
        moved = move(pointer, size);
        errno = moved != NULL ? saved : errno;
    }
    return moved;
}

HAK_API void *realloc(void *pointer, size_t size)
{
    if (pointer == NULL) {
        return malloc(size);
    }
    if (unlikely(!is_ours(pointer))) {
        return move(pointer, size);
    }
    return unlikely(libc_may(hak_region_default())) ? realloc_either(pointer, size)
                                                    : hak_realloc(pointer, size);
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

void *preload_aligned(size_t alignment, size_t size)
{
    void *object = NULL;

    if (alignment <= HAK_ALIGNMENT_MIN) {
        return malloc(size);
    }
    if (alignment > HAK_ALIGNMENT_MAX) {
        errno = ENOMEM;
        return NULL;
    }
    if (likely(aligned_hit(0, alignment, size, &object))) {
        return object;
    }
    return preload_alloc(alignment, size, false);
}

HAK_API void *aligned_alloc(size_t alignment, size_t size)
{
    if (alignment == 0 || (alignment & (alignment - 1)) != 0) {
        errno = EINVAL;
        return NULL;
    }
    return preload_aligned(alignment, size);
}

HAK_API void *memalign(size_t alignment, size_t size)
{
    size_t power = HAK_ALIGNMENT_MIN;

    if (alignment > SIZE_MAX / 2 + 1) {
        errno = EINVAL;
        return NULL;
    }
    while (power < alignment) {
        power *= 2;
    }
    return preload_aligned(power, size);
}

HAK_API int posix_memalign(void **out, size_t alignment, size_t size)
{
    int saved = errno;
    void *object;

    if (alignment < sizeof(void *) || (alignment & (alignment - 1)) != 0) {
        return EINVAL;
    }
    object = preload_aligned(alignment, size);
    errno = saved;
    if (object == NULL) {
        return ENOMEM;
    }
    *out = object;
    return 0;
}

HAK_API void *valloc(size_t size)
{
    return preload_aligned(os_page_bytes(), size);
}

HAK_API void *pvalloc(size_t size)
{
    size_t page = os_page_bytes();

    if (size > SIZE_MAX - page) {
        errno = ENOMEM;
        return NULL;
    }
    return preload_aligned(page, round_up(size, page));
}

HAK_API size_t malloc_usable_size(void *pointer)
{
    return bytes_of(pointer);
}

/* glibc took it out of its headers in 2.26; older programs may still ask for it. */
HAK_API void cfree(void *pointer);
void cfree(void *pointer)
{
    free(pointer);
}

/* NOLINTBEGIN(bugprone-reserved-identifier): glibc's. */
HAK_API void *__libc_malloc(size_t size);
void *__libc_malloc(size_t size)
{
    return malloc(size);
}

HAK_API void __libc_free(void *pointer);
void __libc_free(void *pointer)
{
    free(pointer);
}

HAK_API void *__libc_calloc(size_t count, size_t size);
void *__libc_calloc(size_t count, size_t size)
{
    return calloc(count, size);
}

HAK_API void *__libc_realloc(void *pointer, size_t size);
void *__libc_realloc(void *pointer, size_t size)
{
    return realloc(pointer, size);
}

HAK_API void *__libc_memalign(size_t alignment, size_t size);
void *__libc_memalign(size_t alignment, size_t size)
{
    return memalign(alignment, size);
}

HAK_API void *__libc_valloc(size_t size);
void *__libc_valloc(size_t size)
{
    return valloc(size);
}

HAK_API void *__libc_pvalloc(size_t size);
void *__libc_pvalloc(size_t size)
{
    return pvalloc(size);
}
/* NOLINTEND(bugprone-reserved-identifier): as above. */
/* NOLINTEND(readability-inconsistent-declaration-parameter-name): as above. */
