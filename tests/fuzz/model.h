/* SPDX-License-Identifier: MIT */
/*
 * What must hold of the live objects of some regions, kept without the allocator's help: an array
 * sorted by address, so that an overlap is seen when an object arrives, with each object's size as
 * asked, the bytes that may be used, and a tag from which its contents follow.
 *
 * Contents are a pattern of tag and offset, not of the address: realloc may move them. Up to
 * MODEL_WHOLE bytes every byte is written and read; of a larger object the beginning, the end, and
 * places in between: enough to meet what begins or ends beside it.
 */
#ifndef HAK_TESTS_FUZZ_MODEL_H
#define HAK_TESTS_FUZZ_MODEL_H

#include "tests/fuzz/fuzz_kit.h"

#define MODEL_OBJECTS 400
#define MODEL_WHOLE ((size_t)4096)
/* Written and read at a time; patterns are words of 8. */
#define MODEL_PIECE ((size_t)64)

/* The model's loops over bytes are not what is to be explored. */
#define MODEL_QUIET __attribute__((no_sanitize("coverage", "address", "undefined")))

struct object {
    unsigned char *start;
    size_t size;   /* as asked */
    size_t filled; /* bytes that carry the pattern: what may be used */
    uint64_t tag;
    size_t alignment; /* as asked; 0: none */
    unsigned place;   /* of which region */
    bool busy;        /* in a call that may run the reclaimer: not to be freed by it */
};

struct model {
    unsigned count;
    uint64_t tags;
    struct object objects[MODEL_OBJECTS]; /* by address */
};

/* ---- contents -------------------------------------------------------------------------------- */

MODEL_QUIET static inline void model_piece(unsigned char *out, uint64_t tag, size_t offset)
{
    for (size_t n = 0; n < MODEL_PIECE; n += 8) {
        uint64_t word = (tag + 1) * 0x9e3779b97f4a7c15U + (offset + n) * 0xd6e8feb86659fd93U;
        __builtin_memcpy(out + n, &word, 8);
    }
}

/* The place after the one at offset, in a pattern of so many bytes; >= bytes: there is none. */
MODEL_QUIET static inline size_t model_next(size_t offset, size_t bytes)
{
    size_t last = bytes > MODEL_PIECE ? round_down(bytes - 1, MODEL_PIECE) : 0;
    size_t step = bytes <= MODEL_WHOLE || offset < 256 ? MODEL_PIECE
                  : bytes <= 256 * KIB                 ? 1024
                                                       : 64 * KIB;

    if (offset >= last) {
        return bytes;
    }
    return offset + step < last ? offset + step : last;
}

MODEL_QUIET static inline void model_fill(unsigned char *start, size_t bytes, uint64_t tag)
{
    unsigned char piece[MODEL_PIECE];

    for (size_t at = 0; at < bytes; at = model_next(at, bytes)) {
        model_piece(piece, tag, at);
        __builtin_memcpy(start + at, piece, min_size(MODEL_PIECE, bytes - at));
    }
}

/* Of a pattern of `filled` bytes those below upto still hold. */
MODEL_QUIET static inline void model_holds(const unsigned char *start, size_t filled, size_t upto,
                                           uint64_t tag, const char *when)
{
    unsigned char piece[MODEL_PIECE];

    for (size_t at = 0; at < upto; at = model_next(at, filled)) {
        size_t length = min_size(MODEL_PIECE, upto - at);
        model_piece(piece, tag, at);
        if (__builtin_memcmp(start + at, piece, length) != 0) {
            FUZZ_FAIL("%s: contents of %p, %zu bytes, are not what was written, in [%zu, +%zu)",
                      when, (const void *)start, filled, at, length);
        }
    }
}

MODEL_QUIET static inline void model_zeroed(const unsigned char *start, size_t bytes)
{
    if (bytes != 0 && (start[0] != 0 || memcmp(start, start + 1, bytes - 1) != 0)) {
        FUZZ_FAIL("calloc: %p of %zu bytes is not zeroed", (const void *)start, bytes);
    }
}

/* ---- the live objects ------------------------------------------------------------------------ */

/* Index of the first object that begins above the address. */
static inline unsigned model_above(const struct model *model, const void *address)
{
    unsigned low = 0, high = model->count;

    while (low < high) {
        unsigned middle = (low + high) / 2;
        if ((uintptr_t)model->objects[middle].start <= (uintptr_t)address) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static inline bool model_full(const struct model *model)
{
    return model->count == MODEL_OBJECTS;
}

/* The live object that begins at the address, or NULL. */
static inline struct object *model_find(struct model *model, const void *address)
{
    unsigned above = model_above(model, address);

    return above > 0 && model->objects[above - 1].start == address ? &model->objects[above - 1]
                                                                   : NULL;
}

/* A new object, of which `usable` bytes may be written: overlaps nothing, and gets its pattern. */
static inline struct object *model_add(struct model *model, unsigned place, void *start,
                                       size_t size, size_t usable)
{
    unsigned at = model_above(model, start);
    uintptr_t first = (uintptr_t)start;

    FUZZ_CHECK(!model_full(model));
    if (at > 0) {
        const struct object *below = &model->objects[at - 1];
        if (first < (uintptr_t)below->start + below->filled) {
            FUZZ_FAIL("%p of %zu bytes lies in a live object, %p of %zu", start, usable,
                      (void *)below->start, below->filled);
        }
    }
    if (at < model->count && first + usable > (uintptr_t)model->objects[at].start) {
        FUZZ_FAIL("%p of %zu bytes reaches into a live object, %p", start, usable,
                  (void *)model->objects[at].start);
    }
    struct object *object = &model->objects[at];
    memmove(object + 1, object, (model->count - at) * sizeof *object);
    model->count++;
    *object = (struct object){
        .start = start, .size = size, .filled = usable, .tag = model->tags++, .place = place};
    model_fill(object->start, usable, object->tag);
    return object;
}

static inline void model_verify(const struct object *object, const char *when)
{
    model_holds(object->start, object->filled, object->filled, object->tag, when);
}

static inline void model_verify_all(const struct model *model, const char *when)
{
    for (unsigned n = 0; n < model->count; n++) {
        model_verify(&model->objects[n], when);
    }
}

/* Gone: its contents were intact until now. */
static inline void model_remove(struct model *model, struct object *object)
{
    unsigned index = (unsigned)(object - model->objects);

    model_verify(object, "at its end");
    model->count--;
    memmove(object, object + 1, (model->count - index) * sizeof *object);
}

#endif
