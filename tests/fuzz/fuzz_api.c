/* SPDX-License-Identifier: MIT */
/*
 * Sequences of calls against a model that knows what must hold: live objects do not overlap, lie as
 * aligned as asked, keep their contents whatever happens around them and through realloc, can be
 * used to the last byte of hak_usable_size; calloc's are zeroed; NULL comes with errno and a record
 * that is true; bad frees change nothing and are counted, each once; the figures add up; and when
 * all is freed, all is free.
 *
 * An input: flags (what the first region is), its size, then a step each: a byte with the call
 * (bits 0-4), the second lane (5), the second region (6) and a variation (7), and the call's own
 * bytes. tests/fuzz/README.md has the table.
 */
#include "tests/fuzz/calls.h"

enum flag {
    FLAG_KIND = 3, /* of the first region: enum kind */
    FLAG_HARDENED = 4,
    FLAG_OTHER_NODES = 8
};

enum kind { KIND_DEFAULT, KIND_CREATED, KIND_ADOPTED, KIND_TWO_NODES };

/* ---- misuse ---------------------------------------------------------------------------------- */

/* A pointer that no live object of the place begins at, or NULL. */
static void *take_bad(struct place *place)
{
    static int in_data;
    unsigned kind = fuzz_byte(&world.input), value = fuzz_two(&world.input);
    char *base = (char *)place->heap->area.base;
    struct object *object = take_object();
    void *odd[] = {&in_data,
                   &kind,
                   (void *)(uintptr_t)(value | 1),
                   base - 1,
                   base + place->heap->area.bytes,
                   (void *)(UINTPTR_MAX - value)};
    void *pointer = NULL;

    switch (kind % 4) {
    case 0: /* freed before */
        pointer = world.freed_count > 0 ? world.freed[value % min_size(world.freed_count, FREED)]
                                        : NULL;
        break;
    case 1: /* inside an object */
        pointer = object == NULL ? NULL : object->start + value % max_size(object->filled, 1);
        break;
    case 2: /* anywhere in the region */
        pointer = base + (size_t)value * 16 * (kind / 4 % 64 + 1) % place->heap->area.bytes;
        break;
    default:
        pointer = odd[kind / 4 % (sizeof odd / sizeof *odd)];
    }
    const struct object *live = pointer == NULL ? NULL : model_find(&world.model, pointer);
    return live != NULL && live->place == index_of(place) ? NULL : pointer;
}

static void do_bad_free(void)
{
    struct place *place = here();
    void *pointer = take_bad(place);

    if (pointer == NULL) {
        return;
    }
    place->misuses++;
    world.unsettled = true;
    plain_free(place, pointer, told(), fuzz_byte(&world.input), 0);
}

/* Only a hardened region knows what was asked for; it counts, and frees all the same. */
static void do_wrong_size(void)
{
    struct object *object = take_object();
    struct place *place = here();
    size_t wrong = take_size();

    if (object == NULL || !place->hardened || max_size(wrong, 1) == object->filled ||
        object->filled > UNIT_BYTES / 2) {
        return;
    }
    void *pointer = object->start;
    /* Shrunk where it was, for want of room: a state cannot tell sizes so far below its slot. */
    unsigned cls = heap_class(place->heap, region_unit(&place->heap->area, pointer));
    if (cls <= CLASS_COUNT && sizeclass_bytes(cls) - object->filled >= UNIT_BYTES - 16 &&
        wrong < object->filled) {
        return;
    }
    model_remove(&world.model, object);
    note_freed(pointer);
    place->misuses++;
    world.unsettled = true;
    plain_free(place, pointer, TOLD_SIZE, wrong, 0);
}

/* Behind an object the hardened mode has eight bytes that it looks at again. */
static void do_overflow(void)
{
    struct object *object = take_object();
    struct place *place = here();
    unsigned byte = fuzz_byte(&world.input);

    if (object == NULL || !place->hardened || object->filled > 64 * KIB) {
        return;
    }
    object->start[object->filled + byte % 8] ^= (unsigned char)(byte | 1);
    place->misuses++;
    world.unsettled = true;
    free_object(object);
}

/* The world is settled: no cache holds the pointer. */
static void do_bad_realloc(void)
{
    struct place *place = here();
    void *pointer = take_bad(place);
    size_t size = take_size();
    struct hak_error error;

    if (pointer == NULL || size == 0 || size > PTRDIFF_MAX) {
        return;
    }
    place->misuses++;
    FUZZ_CHECK(plain_realloc(place, pointer, size) == NULL);
    FUZZ_EQ(errno, EINVAL);
    FUZZ_EQ(hak_last_error(&error), -EINVAL);
    FUZZ_EQ(error.kind, HAK_ERROR_MISUSE);
    FUZZ_CHECK(error.pointer == pointer);
}

static void do_usable(void)
{
    struct place *place = here();
    const struct object *object = take_object();
    size_t offset = fuzz_two(&world.input);

    FUZZ_EQ(hak_region_usable_size(place->heap, NULL), 0);
    FUZZ_EQ(hak_region_usable_size(place->heap, &offset), 0);
    if (object != NULL) {
        FUZZ_EQ(hak_region_usable_size(place->heap, object->start), object->filled);
        offset = offset % max_size(object->filled, 1);
        FUZZ_CHECK(offset == 0 || hak_region_usable_size(place->heap, object->start + offset) == 0);
    }
}

/* ---- running out ----------------------------------------------------------------------------- */

/* Called by an allocation that finds no room: frees one object, and tries to have a small one. */
static void reclaim(hak_region *region, size_t bytes, void *argument)
{
    struct place *place = argument;

    FUZZ_CHECK(region == place->heap && bytes <= PTRDIFF_MAX);
    for (unsigned n = 0; n < world.model.count; n++) {
        struct object *object = &world.model.objects[place->reclaims++ % world.model.count];
        if (object->place == index_of(place) && !object->busy) {
            void *pointer = object->start;
            model_remove(&world.model, object);
            note_freed(pointer);
            hak_region_free(region, pointer);
            break;
        }
    }
    void *own = place->reclaims % 4 == 3 ? hak_region_malloc(region, 40) : NULL;
    if (own != NULL && model_full(&world.model)) {
        hak_region_free(region, own);
    } else if (own != NULL) {
        accept(place, own, 40, 0);
    }
}

static void do_on_exhausted(void)
{
    struct place *place = here();

    FUZZ_EQ(hak_on_exhausted(place->heap, varied() ? NULL : reclaim, place), 0);
}

/* One size until there is no more, or the table is full. */
static void do_fill_up(void)
{
    struct place *place = here();
    size_t size = take_size();

    if (size < 16 * KIB) {
        size += place->heap->area.bytes / 32;
    }
    for (unsigned n = 0; n < 32 && !model_full(&world.model); n++) {
        unsigned before = world.model.count;
        result(place, plain_malloc(place, size), size, 0, ENOMEM);
        if (world.model.count <= before) {
            return;
        }
    }
}

/* Sizes at even distances, one after the other. */
static void do_sweep(void)
{
    struct place *place = here();
    unsigned from = fuzz_two(&world.input), step = fuzz_byte(&world.input);

    for (size_t n = 0; n < 64 && !model_full(&world.model); n++) {
        size_t size = from % (12 * KIB) + n * (step % 64 + 1);
        unsigned before = world.model.count;
        result(place, plain_malloc(place, size), size, 0, ENOMEM);
        if (world.model.count <= before) {
            return;
        }
        if (n % 4 != 0) {
            free_object(&world.model.objects[n % world.model.count]);
        }
    }
}

/* ---- regions, threads, figures --------------------------------------------------------------- */

static void do_second_place(void)
{
    unsigned byte = fuzz_byte(&world.input);
    struct hak_config config = world_config(((byte & 3) + 1) * 2 * MIB, (byte & 4) != 0);

    if (world.places[1].heap != NULL) {
        if (varied()) {
            world_end_place(1);
        }
    } else if ((byte & 8) != 0) {
        world_adopt(1, &config, (size_t)(byte >> 4) * 100 * KIB);
    } else {
        world_create(1, &config);
    }
}

static void do_figures(void)
{
    struct hak_stats stats;
    struct hak_error error;

    FUZZ_EQ(hak_region_stats(here()->heap, &stats), 0);
    FUZZ_EQ(stats.free_bytes + stats.slab_bytes + stats.large_bytes, stats.size_bytes);
    FUZZ_EQ(hak_region_stats(NULL, NULL), -EINVAL);
    FUZZ_EQ(hak_region_class_stats(here()->heap, 0, NULL), -EINVAL);
    FUZZ_EQ(hak_last_error(NULL), -EINVAL);
    FUZZ_EQ(hak_last_error(&error), error.code);
    FUZZ_EQ(error.kind == HAK_ERROR_NONE, error.code == 0);
}

/* The thread has nothing to do, or another one takes its place, or it moves. */
static void do_idle(void)
{
    unsigned byte = fuzz_byte(&world.input);

    if (byte % 4 == 3) {
        world.second_lane = byte / 4 % (LANES - 1) + 1;
    } else if (byte % 4 == 2 && world.places[0].two_nodes) {
        world_move(byte / 4 % 2);
    } else if (byte % 4 == 1) {
        give_up_caches(); /* as at its end */
    } else {
        hak_thread_idle();
    }
}

static void nothing(void)
{
}

/* What needs nobody to cache anything is done after the world has been settled. */
static const struct call {
    void (*run)(void);
    bool settles;
} calls[STEP_CALL + 1] = {
    {do_malloc, false},     {do_malloc, false},       {do_malloc, false},
    {do_overflow, false},   {do_calloc, false},       {do_calloc, false},
    {do_realloc, false},    {do_realloc, false},      {do_realloc, false},
    {do_aligned, false},    {do_aligned, false},      {do_on_node, false},
    {do_bulk, false},       {do_bulk, false},         {do_free, false},
    {do_free, false},       {do_free, false},         {do_free, false},
    {do_wrong_size, false}, {do_free_bulk, false},    {do_free_some, false},
    {do_bad_free, false},   {do_bad_realloc, true},   {do_usable, false},
    {do_fill_up, false},    {do_on_exhausted, false}, {do_second_place, false},
    {do_idle, false},       {do_figures, false},      {nothing, true},
    {do_bad_free, false},   {do_sweep, false},
};

/* ---- an input -------------------------------------------------------------------------------- */

static void open_world(unsigned flags, unsigned size)
{
    static unsigned nodes_now;
    enum kind kind = (enum kind)(flags & FLAG_KIND);
    unsigned nodes = kind == KIND_TWO_NODES ? 2 : 0;
    struct hak_config config = world_config((size % 8 + nodes / 2 + 1) * 2 * MIB,
                                            (flags & FLAG_HARDENED) != 0);

    if (nodes != nodes_now) {
        topology_fake(nodes);
        nodes_now = nodes;
    }
    if (flags & FLAG_OTHER_NODES) {
        config.exhausted = HAK_EXHAUSTED_ANY_NODE;
    }
    if (kind == KIND_CREATED) {
        world_create(0, &config);
    } else if (kind == KIND_ADOPTED) {
        world_adopt(0, &config, (size_t)(size >> 3) * 60 * KIB);
    } else {
        world_init(&config);
    }
}

static void take_steps(void)
{
    while (fuzz_more(&world.input)) {
        step_byte = fuzz_byte(&world.input);
        const struct call *call = &calls[step_byte & STEP_CALL];
        if (call->settles) {
            world_settle(varied());
        }
        lane_put_on((step_byte & STEP_SECOND_LANE) != 0 ? world.second_lane : 0);
        call->run();
        if (world.unsettled) {
            world_settle(false);
        }
    }
}

static void free_rest(void)
{
    step_byte = 0;
    while (world.model.count > 0) {
        lane_put_on(world.model.count % LANES);
        free_object(&world.model.objects[world.model.count / 2]);
    }
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    fuzz_keep_report();
    world_move(0);
    fuzz_wear_in();
    lanes_start();
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    memset(&world, 0, sizeof world);
    world.input = (struct fuzz_input){data, data + size};
    world.second_lane = 1;
    world_move(0);
    unsigned flags = fuzz_byte(&world.input);
    open_world(flags, fuzz_byte(&world.input));
    take_steps();
    world_settle(true);
    free_rest();
    world_settle(true);
    for (unsigned n = 0; n < PLACES; n++) {
        if (world.places[n].heap != NULL) {
            world_check_empty(n);
            world_end_place(n);
        }
    }
    return 0;
}
