/* SPDX-License-Identifier: MIT */
/*
 * C++'s operators new and delete, all forms of [new.delete.single] and [new.delete.array], by the
 * names that the Itanium C++ ABI gives them (m, unsigned long, is size_t on x86-64 and arm64).
 *
 * A program may replace some of them and rely on the others to be made from those: array from
 * single, sized from unsized, nothrow from throwing. So a form calls the next one by its public
 * name, whoever has it (this file is compiled with -fsemantic-interposition for that).
 *
 * What happens when there is no room (the new_handler, again and again, then std::bad_alloc) is the
 * C++ library's to do: its operator is asked then, which calls malloc, in vain, and goes on from
 * there. It also does the nothrow forms where somebody replaced the throwing one: catching is not
 * for C. Without a C++ library nobody could catch, and the program ends with a line.
 */
#include <dlfcn.h>
#include <stdlib.h>

#include "alloc/hit.h"
#include "alloc/preload.h"
#include "region/errlog.h"

/* operator new(size_t), (size_t, nothrow), (size_t, align), (size_t, align, nothrow) */
HAK_API void *_Znwm(size_t size);
HAK_API void *_ZnwmRKSt9nothrow_t(size_t size, const void *nothrow);
HAK_API void *_ZnwmSt11align_val_t(size_t size, size_t alignment);
HAK_API void *_ZnwmSt11align_val_tRKSt9nothrow_t(size_t size, size_t alignment,
                                                 const void *nothrow);
/* operator new[], the same */
HAK_API void *_Znam(size_t size);
HAK_API void *_ZnamRKSt9nothrow_t(size_t size, const void *nothrow);
HAK_API void *_ZnamSt11align_val_t(size_t size, size_t alignment);
HAK_API void *_ZnamSt11align_val_tRKSt9nothrow_t(size_t size, size_t alignment,
                                                 const void *nothrow);
/* operator delete(void *), (size_t), (nothrow), (align), (size_t, align), (align, nothrow) */
HAK_API void _ZdlPv(void *pointer);
HAK_API void _ZdlPvm(void *pointer, size_t size);
HAK_API void _ZdlPvRKSt9nothrow_t(void *pointer, const void *nothrow);
HAK_API void _ZdlPvSt11align_val_t(void *pointer, size_t alignment);
HAK_API void _ZdlPvmSt11align_val_t(void *pointer, size_t size, size_t alignment);
HAK_API void _ZdlPvSt11align_val_tRKSt9nothrow_t(void *pointer, size_t alignment,
                                                 const void *nothrow);
/* operator delete[], the same */
HAK_API void _ZdaPv(void *pointer);
HAK_API void _ZdaPvm(void *pointer, size_t size);
HAK_API void _ZdaPvRKSt9nothrow_t(void *pointer, const void *nothrow);
HAK_API void _ZdaPvSt11align_val_t(void *pointer, size_t alignment);
HAK_API void _ZdaPvmSt11align_val_t(void *pointer, size_t size, size_t alignment);
HAK_API void _ZdaPvSt11align_val_tRKSt9nothrow_t(void *pointer, size_t alignment,
                                                 const void *nothrow);

typedef void *(*new_fn)(size_t);
typedef void *(*new_nothrow_fn)(size_t, const void *);
typedef void *(*new_aligned_fn)(size_t, size_t);
typedef void *(*new_aligned_nothrow_fn)(size_t, size_t, const void *);

/* Those of this file, whatever the program has in front of them. */
extern __typeof(_Znwm) own_new HAK_OWN __attribute__((hot, alias("_Znwm")));
extern __typeof(_ZdlPv) own_delete HAK_OWN __attribute__((hot, alias("_ZdlPv")));
extern __typeof(_Znam) own_new_array HAK_OWN __attribute__((alias("_Znam")));
extern __typeof(_ZdlPvSt11align_val_t) own_delete_aligned HAK_OWN
    __attribute__((alias("_ZdlPvSt11align_val_t")));
extern __typeof(_ZdaPv) own_delete_array HAK_OWN __attribute__((alias("_ZdaPv")));
extern __typeof(_ZdaPvSt11align_val_t) own_delete_array_aligned HAK_OWN
    __attribute__((alias("_ZdaPvSt11align_val_t")));
extern __typeof(_ZnwmSt11align_val_t) own_new_aligned HAK_OWN
    __attribute__((alias("_ZnwmSt11align_val_t")));
extern __typeof(_ZnamSt11align_val_t) own_new_array_aligned HAK_OWN
    __attribute__((alias("_ZnamSt11align_val_t")));

/* ---- no room ---- */

/* The C++ library's form, or NULL where no C++ library is loaded. */
static void *next(const char *name)
{
    void *function = dlsym(RTLD_NEXT, name);

    if (function == NULL) {
        /* Loaded by dlopen, for itself alone. The handle is one reference more: it stays. */
        void *library = dlopen("libstdc++.so.6", RTLD_LAZY | RTLD_NOLOAD);
        function = library != NULL ? dlsym(library, name) : NULL;
    }
    return function;
}

static _Noreturn void nobody_catches(void)
{
    errlog_say("operator new found no room, and there is no C++ library to throw std::bad_alloc");
    abort();
}

static HAK_COLD void *new_failed(size_t size)
{
    new_fn function = (new_fn)next("_Znwm");

    if (function == NULL) {
        nobody_catches();
    }
    return function(size);
}

static HAK_COLD void *new_aligned_failed(size_t size, size_t alignment)
{
    if (size > PTRDIFF_MAX) {
        return new_failed(size); /* libstdc++ rounds such a size up to the alignment, to 0 */
    }
    new_aligned_fn function = (new_aligned_fn)next("_ZnwmSt11align_val_t");
    if (function == NULL) {
        nobody_catches();
    }
    return function(size, alignment);
}

static HAK_COLD void *nothrow_failed(const char *name, size_t size, const void *nothrow)
{
    new_nothrow_fn function = (new_nothrow_fn)next(name);

    return function != NULL ? function(size, nothrow) : NULL;
}

static HAK_COLD void *aligned_nothrow_failed(const char *name, size_t size, size_t alignment,
                                             const void *nothrow)
{
    if (size > PTRDIFF_MAX) {
        return nothrow_failed("_ZnwmRKSt9nothrow_t", size, nothrow); /* as above */
    }
    new_aligned_nothrow_fn function = (new_aligned_nothrow_fn)next(name);
    return function != NULL ? function(size, alignment, nothrow) : NULL;
}

/* ---- the forms that allocate and free ---- */

static HAK_NOINLINE void *new_miss(size_t size)
{
    void *object = preload_alloc(0, size, false);

    return likely(object != NULL) ? object : new_failed(size);
}

HAK_HOT void *_Znwm(size_t size)
{
    void *object = NULL;

    return likely(malloc_hit(0, size, &object)) ? object : new_miss(size);
}

HAK_HOT void _ZdlPv(void *pointer)
{
    if (unlikely(!free_hit(&heap_default_front, 0, pointer))) {
        preload_free(pointer);
    }
}

void *_ZnwmSt11align_val_t(size_t size, size_t alignment)
{
    void *object = preload_aligned(alignment, size);

    return likely(object != NULL) ? object : new_aligned_failed(size, alignment);
}

void _ZdlPvSt11align_val_t(void *pointer, size_t alignment)
{
    (void)alignment;
    own_delete(pointer);
}

/* ---- throwing array from single ---- */

void *_Znam(size_t size)
{
    return _Znwm(size);
}

void *_ZnamSt11align_val_t(size_t size, size_t alignment)
{
    return _ZnwmSt11align_val_t(size, alignment);
}

/* ---- nothrow from throwing ---- */

void *_ZnwmRKSt9nothrow_t(size_t size, const void *nothrow)
{
    void *object = _Znwm == own_new ? preload_alloc(0, size, false) : NULL;

    return likely(object != NULL) ? object : nothrow_failed("_ZnwmRKSt9nothrow_t", size, nothrow);
}

void *_ZnamRKSt9nothrow_t(size_t size, const void *nothrow)
{
    void *object = _Znam == own_new_array && _Znwm == own_new ? preload_alloc(0, size, false)
                                                              : NULL;

    return likely(object != NULL) ? object : nothrow_failed("_ZnamRKSt9nothrow_t", size, nothrow);
}

void *_ZnwmSt11align_val_tRKSt9nothrow_t(size_t size, size_t alignment, const void *nothrow)
{
    void *object = _ZnwmSt11align_val_t == own_new_aligned ? preload_aligned(alignment, size)
                                                           : NULL;

    return likely(object != NULL) ? object
                                  : aligned_nothrow_failed("_ZnwmSt11align_val_tRKSt9nothrow_t",
                                                           size, alignment, nothrow);
}

void *_ZnamSt11align_val_tRKSt9nothrow_t(size_t size, size_t alignment, const void *nothrow)
{
    bool ours = _ZnamSt11align_val_t == own_new_array_aligned &&
                _ZnwmSt11align_val_t == own_new_aligned;
    void *object = ours ? preload_aligned(alignment, size) : NULL;

    return likely(object != NULL) ? object
                                  : aligned_nothrow_failed("_ZnamSt11align_val_tRKSt9nothrow_t",
                                                           size, alignment, nothrow);
}

/* ---- delete from delete ----
 *
 * What a sized form says of the object counts only where the object was made here too. */

void _ZdlPvm(void *pointer, size_t size)
{
    if (_ZdlPv != own_delete || _Znwm != own_new) {
        _ZdlPv(pointer);
    } else if (unlikely(!free_hit(&heap_default_front, 0, pointer))) {
        preload_free_sized(pointer, size, 0);
    }
}

void _ZdlPvRKSt9nothrow_t(void *pointer, const void *nothrow)
{
    (void)nothrow;
    _ZdlPv(pointer);
}

void _ZdlPvmSt11align_val_t(void *pointer, size_t size, size_t alignment)
{
    if (_ZdlPvSt11align_val_t != own_delete_aligned || _ZnwmSt11align_val_t != own_new_aligned) {
        _ZdlPvSt11align_val_t(pointer, alignment);
    } else if (unlikely(!free_hit(&heap_default_front, 0, pointer))) {
        preload_free_sized(pointer, size, alignment);
    }
}

void _ZdlPvSt11align_val_tRKSt9nothrow_t(void *pointer, size_t alignment, const void *nothrow)
{
    (void)nothrow;
    _ZdlPvSt11align_val_t(pointer, alignment);
}

void _ZdaPv(void *pointer)
{
    _ZdlPv(pointer);
}

void _ZdaPvm(void *pointer, size_t size)
{
    if (_ZdaPv != own_delete_array || _Znam != own_new_array) {
        _ZdaPv(pointer);
    } else {
        _ZdlPvm(pointer, size);
    }
}

void _ZdaPvRKSt9nothrow_t(void *pointer, const void *nothrow)
{
    (void)nothrow;
    _ZdaPv(pointer);
}

void _ZdaPvSt11align_val_t(void *pointer, size_t alignment)
{
    _ZdlPvSt11align_val_t(pointer, alignment);
}

void _ZdaPvmSt11align_val_t(void *pointer, size_t size, size_t alignment)
{
    if (_ZdaPvSt11align_val_t != own_delete_array_aligned ||
        _ZnamSt11align_val_t != own_new_array_aligned) {
        _ZdaPvSt11align_val_t(pointer, alignment);
    } else {
        _ZdlPvmSt11align_val_t(pointer, size, alignment);
    }
}

void _ZdaPvSt11align_val_tRKSt9nothrow_t(void *pointer, size_t alignment, const void *nothrow)
{
    (void)nothrow;
    _ZdaPvSt11align_val_t(pointer, alignment);
}
