/* SPDX-License-Identifier: MIT */
/*
 * The steps of fuzz_api that use the allocator as one should: their operands, what their results
 * have to be like, and the calls that allocate, free and resize. Included by fuzz_api.c alone.
 */
#ifndef HAK_TESTS_FUZZ_CALLS_H
#define HAK_TESTS_FUZZ_CALLS_H

#include "tests/fuzz/world.h"

#include <limits.h>

#define STEP_CALL 31U
#define STEP_SECOND_LANE 32U
#define STEP_SECOND_PLACE 64U
#define STEP_VARIED 128U

/* The step that is taken now. */
static unsigned step_byte;

static struct place *here(void)
{
    struct place *second = &world.places[1];

    return (step_byte & STEP_SECOND_PLACE) != 0 && second->heap != NULL ? second : &world.places[0];
}

static unsigned index_of(const struct place *place)
{
    return (unsigned)(place - world.places);
}

static bool varied(void)
{
    return (step_byte & STEP_VARIED) != 0;
}

/* ---- operands -------------------------------------------------------------------------------- */

/* All sorts of sizes, many of them at and beside borders. */
static size_t take_size(void)
{
    unsigned kind = fuzz_byte(&world.input), low = fuzz_byte(&world.input);
    unsigned value = kind & 31;
    size_t sizes[] = {value * 8 + low % 8,
                      sizeclass_bytes((value * 2 + low % 2) % CLASS_COUNT + 1) + low / 2 % 3 - 1,
                      (size_t)(value << 8 | low),
                      (size_t)(value << 8 | low) * 8,
                      (size_t)(value << 8 | low) * 32,
                      value * UNIT_BYTES + low - 128,
                      value * (MIB / 2) + low - 128,
                      0};

    if (kind >> 5 < 7) {
        return sizes[kind >> 5];
    }
    return low % 4 == 0   ? SIZE_MAX - low / 4
           : low % 4 == 1 ? (size_t)PTRDIFF_MAX + (value & 1) - low / 4
           : low % 4 == 2 ? (size_t)1 << (value + 20)
                          : here()->heap->area.bytes - (low / 4 << UNIT_LOG2);
}

/* Valid ones from 1 to beyond the largest, and others. */
static size_t take_alignment(void)
{
    unsigned byte = fuzz_byte(&world.input);

    return byte < 192 ? (size_t)1 << (byte % 32) : (size_t)(byte - 192) * 3;
}

/* A live object of the place, or NULL. */
static struct object *take_object(void)
{
    unsigned index = index_of(here()), start = fuzz_byte(&world.input);

    for (unsigned n = 0; n < world.model.count; n++) {
        struct object *object = &world.model.objects[(start + n) % world.model.count];
        if (object->place == index) {
            return object;
        }
    }
    return NULL;
}

/* ---- results --------------------------------------------------------------------------------- */

/* An allocation failed: errno and the record have to be right, and so has the failure. */
static void refused(struct place *place, size_t size, size_t alignment, int code)
{
    struct hak_error error;
    struct hak_stats stats;

    FUZZ_EQ(errno, code);
    FUZZ_EQ(hak_last_error(&error), -code);
    FUZZ_EQ(error.code, -code);
    FUZZ_EQ(error.size_bytes, size);
    FUZZ_CHECK(memchr(error.message, '\0', sizeof error.message) != NULL && error.message[0] != 0);
    if (code == EINVAL || size > PTRDIFF_MAX) {
        FUZZ_EQ(error.kind, HAK_ERROR_ARGUMENT);
        return;
    }
    FUZZ_EQ(error.kind, HAK_ERROR_EXHAUSTED);
    FUZZ_EQ(hak_region_stats(place->heap, &stats), 0);
    FUZZ_CHECK(stats.exhausted > place->refused);
    place->refused = stats.exhausted;
    FUZZ_CHECK(error.largest_free_bytes <= error.free_bytes);
    /* A guard or a canary may need room of its own. */
    if (alignment <= UNIT_BYTES && !place->hardened &&
        error.largest_free_bytes >= max_size(round_up(size, UNIT_BYTES), UNIT_BYTES)) {
        FUZZ_FAIL("%zu bytes are refused while %zu are free in one piece", size,
                  error.largest_free_bytes);
    }
}

/* An object came: into the model with it. */
static void accept(struct place *place, void *pointer, size_t size, size_t alignment)
{
    size_t usable = place->by_name ? hak_usable_size(pointer)
                                   : hak_region_usable_size(place->heap, pointer);
    size_t asked = max_size(alignment, HAK_ALIGNMENT_MIN);

    FUZZ_EQ((uintptr_t)pointer & (asked - 1), 0);
    FUZZ_CHECK(usable >= size);
    if (place->hardened && usable != max_size(size, 1)) {
        /* An object's state cannot tell that nearly a unit less was asked for than its slot has. */
        unsigned cls = heap_class(place->heap, region_unit(&place->heap->area, pointer));
        if (cls > CLASS_COUNT || sizeclass_bytes(cls) - usable < UNIT_BYTES - 16) {
            FUZZ_FAIL("hak_usable_size is %zu where %zu were asked for", usable, size);
        }
    }
    if (!place->hardened) {
        /* Objects are aligned to their size's largest power of two up to a unit. */
        size_t own = min_size(usable & (~usable + 1), UNIT_BYTES);
        FUZZ_EQ((uintptr_t)pointer & (own - 1), 0);
    }
    uintptr_t offset = (uintptr_t)pointer - place->heap->area.base;
    FUZZ_CHECK(offset < place->heap->area.bytes && usable <= place->heap->area.bytes - offset);
    model_add(&world.model, index_of(place), pointer, size, usable)->alignment = alignment;
}

static void result(struct place *place, void *pointer, size_t size, size_t alignment, int code)
{
    if (pointer == NULL) {
        refused(place, size, alignment, code);
    } else {
        FUZZ_EQ(code, ENOMEM); /* what could only fail has not */
        FUZZ_CHECK(size <= PTRDIFF_MAX);
        accept(place, pointer, size, alignment);
    }
}

/* ---- allocating ------------------------------------------------------------------------------ */

static void *plain_malloc(struct place *place, size_t size)
{
    errno = 0;
    return place->by_name ? hak_malloc(size) : hak_region_malloc(place->heap, size);
}

static void do_malloc(void)
{
    struct place *place = here();
    size_t size = take_size();

    if (!model_full(&world.model)) {
        result(place, plain_malloc(place, size), size, 0, ENOMEM);
    }
}

static void do_calloc(void)
{
    struct place *place = here();
    size_t size = take_size(), count = varied() ? fuzz_byte(&world.input) : 1, bytes;

    if (varied() && count > 200) {
        count = SIZE_MAX / (count - 199);
    }
    if (model_full(&world.model)) {
        return;
    }
    errno = 0;
    void *object = place->by_name ? hak_calloc(count, size)
                                  : hak_region_calloc(place->heap, count, size);
    if (__builtin_mul_overflow(count, size, &bytes)) {
        bytes = SIZE_MAX;
    }
    if (object != NULL) {
        model_zeroed(object, bytes);
    }
    result(place, object, bytes, 0, ENOMEM);
}

static void do_aligned(void)
{
    struct place *place = here();
    size_t alignment = take_alignment(), size = take_size();
    bool valid = alignment != 0 && (alignment & (alignment - 1)) == 0 &&
                 alignment <= HAK_ALIGNMENT_MAX;

    if (model_full(&world.model)) {
        return;
    }
    errno = 0;
    void *object = place->by_name ? hak_aligned_alloc(alignment, size)
                                  : hak_region_aligned_alloc(place->heap, alignment, size);
    result(place, object, size, valid ? alignment : 0, valid ? ENOMEM : EINVAL);
}

static void do_on_node(void)
{
    static const int invalid[] = {-1, 2, 63, 64, INT_MAX, INT_MIN};
    struct place *place = here();
    unsigned byte = fuzz_byte(&world.input);
    int node = byte % 8 >= 6      ? invalid[byte / 8 % 6]
               : place->two_nodes ? (int)byte % 2 ^ world.home
                                  : 0;
    size_t size = take_size();

    if (model_full(&world.model)) {
        return;
    }
    errno = 0;
    void *object = place->by_name ? hak_malloc_on_node(size, node)
                                  : hak_region_malloc_on_node(place->heap, size, node);
    if (object != NULL) {
        unit_t unit = region_unit(&place->heap->area, object);
        FUZZ_EQ(region_segment_of(&place->heap->area, unit)->node, node);
    }
    result(place, object, size, 0, byte % 8 < 6 ? ENOMEM : EINVAL);
}

static void do_bulk(void)
{
    struct place *place = here();
    size_t size = take_size(), count = fuzz_byte(&world.input) % 150;
    void *objects[150];

    count = min_size(count, MODEL_OBJECTS - world.model.count);
    if (size > 64 * KIB) {
        count = min_size(count, 4);
    }
    /* The reclaimer may bring objects of its own into the model meanwhile. */
    count = count > 8 ? count - 8 : 0;
    errno = 0;
    size_t got = place->by_name ? hak_malloc_bulk(size, count, objects)
                                : hak_region_malloc_bulk(place->heap, size, count, objects);
    FUZZ_CHECK(got <= count);
    if (got < count) {
        refused(place, size, 0, ENOMEM);
    }
    for (size_t n = 0; n < got && !model_full(&world.model); n++) {
        accept(place, objects[n], size, 0);
    }
}

/* ---- freeing --------------------------------------------------------------------------------- */

/* Notes a pointer that is no object any more. */
static void note_freed(void *pointer)
{
    world.freed[world.freed_count++ % FREED] = pointer;
}

/* How much of what the caller knows is told. */
enum told { TOLD_NOTHING, TOLD_SIZE, TOLD_ALIGNMENT };

static void plain_free(const struct place *place, void *pointer, enum told told, size_t size,
                       size_t alignment)
{
    hak_region *region = place->heap;

    errno = 1234;
    if (told == TOLD_NOTHING) {
        place->by_name ? hak_free(pointer) : hak_region_free(region, pointer);
    } else if (told == TOLD_SIZE) {
        place->by_name ? hak_free_sized(pointer, size)
                       : hak_region_free_sized(region, pointer, size);
    } else if (place->by_name) {
        hak_free_aligned_sized(pointer, alignment, size);
    } else {
        hak_region_free_aligned_sized(region, pointer, alignment, size);
    }
    FUZZ_EQ(errno, 1234);
}

static enum told told(void)
{
    return varied() ? (enum told)(world.model.tags % 2 + TOLD_SIZE) : TOLD_NOTHING;
}

static void free_object(struct object *object)
{
    struct place *place = &world.places[object->place];
    void *pointer = object->start;
    size_t size = object->size, alignment = object->alignment;

    model_remove(&world.model, object);
    note_freed(pointer);
    plain_free(place, pointer, told(), size, alignment);
}

static void do_free(void)
{
    struct object *object = take_object();

    if (object != NULL) {
        free_object(object);
    } else {
        plain_free(here(), NULL, told(), 0, 0);
    }
}

static void do_free_bulk(void)
{
    struct place *place = here();
    unsigned count = fuzz_byte(&world.input) % 100, got = 0;
    void *pointers[101];

    for (; got < count; got++) {
        struct object *object = got % 8 == 7 ? NULL : take_object();
        pointers[got] = object != NULL ? object->start : NULL;
        if (object != NULL) {
            model_remove(&world.model, object);
            note_freed(pointers[got]);
        }
    }
    if (varied() && got > 0 && pointers[0] != NULL) {
        pointers[got++] = pointers[0]; /* one of them twice */
        place->misuses++;
        world.unsettled = true;
    }
    errno = 1234;
    if (place->by_name) {
        hak_free_bulk(pointers, got);
    } else {
        hak_region_free_bulk(place->heap, pointers, got);
    }
    FUZZ_EQ(errno, 1234);
}

/* Every so many of the place's objects. */
static void do_free_some(void)
{
    unsigned index = index_of(here()), every = fuzz_byte(&world.input) % 8 + 1;

    for (unsigned n = world.model.count; n-- > 0;) {
        if (n % every == 0 && world.model.objects[n].place == index) {
            free_object(&world.model.objects[n]);
        }
    }
}

/* ---- realloc --------------------------------------------------------------------------------- */

static void *plain_realloc(const struct place *place, void *pointer, size_t size)
{
    errno = 1234;
    return place->by_name ? hak_realloc(pointer, size)
                          : hak_region_realloc(place->heap, pointer, size);
}

static void resize(struct object *object, size_t size)
{
    struct place *place = &world.places[object->place];
    unsigned char *start = object->start;

    model_verify(object, "before realloc");
    object->busy = true;
    unsigned char *moved = plain_realloc(place, start, size);
    object = model_find(&world.model, start); /* the reclaimer may have moved the table */
    object->busy = false;
    struct object before = *object;
    if (size == 0) {
        FUZZ_CHECK(moved == NULL);
        FUZZ_EQ(errno, 1234);
        note_freed(start);
    } else if (moved == NULL) {
        model_verify(object, "after a realloc that failed");
        refused(place, size, 0, ENOMEM);
        FUZZ_CHECK(size > before.size); /* less can always be had */
        return;
    } else {
        model_holds(moved, before.filled, min_size(before.size, size), before.tag, "after realloc");
    }
    world.model.count--; /* its contents are at another place by now */
    memmove(object, object + 1,
            (size_t)(world.model.objects + world.model.count - object) * sizeof *object);
    if (moved != NULL) {
        accept(place, moved, size, 0);
        if (moved != start) {
            note_freed(start);
        }
    }
}

static void do_realloc(void)
{
    struct object *object = take_object();
    size_t size = take_size();

    if (object == NULL) {
        struct place *place = here();
        errno = 0;
        void *fresh = model_full(&world.model) ? NULL : plain_realloc(place, NULL, size);
        if (!model_full(&world.model)) {
            result(place, fresh, size, 0, ENOMEM);
        }
        return;
    }
    if (varied()) { /* by little or to about double or half */
        size_t change = size % (object->size + 65);
        size = size & 1 ? object->size + change : object->size - min_size(change, object->size);
    }
    resize(object, size);
}

#endif
