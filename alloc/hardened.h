/* SPDX-License-Identifier: MIT */
/*
 * The hardened mode: what a region does more where HAKMEM_HARDENED (hak_config.hardened) asks for
 * it. The bins of its threads stay closed, so that every call comes past here, and the hit paths of
 * other regions know nothing of it.
 *
 * state     two bytes an object, apart from it: never handed out since its slab was made, freed and
 *           filled, or live, and then how many bytes of its slot were not asked for. So a free of
 *           what is not live is found at the call, and so is a size that was not asked for.
 * canary    eight secret bytes right behind those that were asked for, looked at when the object is
 *           freed or reallocated.
 * fill      a freed object's first bytes, looked at again when it is handed out.
 * choice    which free object comes next, and how long a freed one is held back, is chosen at
 *           random: quarantine.h.
 * guards    units around large objects that nobody can touch: guarded.h.
 * tables    of the region lie apart from its objects and from each other, at addresses that cannot
 *           be foretold, between pages that nobody can touch: os_reserve_apart.
 *
 * States are written by whoever holds the object and are not read-modify-write: an atomic step a
 * call would cost more than all the rest. Two threads that free the same object at the very same
 * moment both see it live. Whoever comes second with it, to hand it out or to send it back to its
 * slab, finds it live, or of another class, or its bit set, and reports it.
 */
#ifndef HAK_ALLOC_HARDENED_H
#define HAK_ALLOC_HARDENED_H

#include "alloc/thread.h"

struct quarantine;

/* The least slot is 32 bytes. */
#define HARDENED_OBJECTS (UNIT_BYTES / 32)
/* An odd number of cache lines, as with struct slab. */
#define HARDENED_STRIDE (HARDENED_OBJECTS * 2 + CACHE_LINE)
#define CANARY_BYTES 8
/* What calls want to know of a class. */
struct hardened_class {
    uint64_t reciprocal; /* as in struct sizeclass */
    uint32_t slot_bytes;
    uint32_t fill_bytes; /* a multiple of FILL_STEP, and not 0 */
};

/* What is looked at by every call first; constant from set-up on but for the counts. */
struct hardened {
    uintptr_t base; /* of the region */
    size_t unit_count;
    const _Atomic uint8_t *class_map;
    unsigned char *states;  /* HARDENED_STRIDE bytes a unit */
    uint64_t secrets[2];    /* of the canaries */
    size_t quick_bytes;     /* asked for: above, not the common case */
    unsigned quick_classes; /* classes 1 to this one are: slabs of one unit, of the only node */
    bool guards;
    uint8_t class_of[CLASS_TABLE_ENTRIES]; /* by what is asked for and its canary, / 16 */
    struct hardened_class classes[CLASS_COUNT + 1];
    uint64_t seed CACHE_ALIGNED; /* of the threads' random numbers */
    size_t fill_bytes;           /* of a large object */
    _Atomic uint64_t seeds_given;
    _Atomic uint64_t guards_refused;
    _Atomic size_t guards_now; /* each may make the kernel two more pieces of memory */
    size_t guards_most;
};

#define FILL_STEP 16

/* For heap_layout: fills *heap->hardened, whose states are in place. */
void hardened_open(struct hak_region *heap, const struct settings *settings);
/* A child of fork goes on with other random numbers. */
void hardened_after_fork(struct hak_region *heap);
/* A slab was made of free units, and is the caller's. */
void hardened_open_slab(struct hak_region *heap, unit_t unit, unsigned capacity);
/* All objects of a slab are free and nobody's: looks at their fill for the last time. */
void hardened_close_slab(struct hak_region *heap, unit_t unit, unsigned cls, unsigned capacity);

/* Class of an object of so many bytes; CLASS_NONE: a large one. */
unsigned hardened_class(size_t size, size_t alignment);
/* The common case, by the calling thread's quarantine; where it is not that, the way round by
 * malloc_hardened_miss and hardened_malloc_in. */
void *hardened_malloc(struct quarantine *quarantine, size_t size);
/* Any size and alignment. NULL with errno and the record. */
void *hardened_malloc_in(struct thread *thread, size_t size, size_t alignment);
/* Makes an object of the class that nobody holds the caller's; false where somebody holds it after
 * all (freed twice), which is reported. */
bool hardened_hand_out(struct hak_region *heap, void *object, unsigned cls, size_t size);
/* An object leaves a quarantine for its slab; false where somebody holds it after all, which is
 * reported: it stays his. */
bool hardened_let_go(struct hak_region *heap, const void *object, unsigned cls);
/* Any pointer, both; keep errno. The first by the calling thread's quarantine. */
void hardened_free_quick(struct quarantine *quarantine, void *pointer);
void hardened_free(struct hak_region *heap, void *pointer);
/* The same by a caller that says what was asked for. alignment 0: not said. */
void hardened_free_sized(struct hak_region *heap, void *pointer, size_t size, size_t alignment);
/* What was asked for, of the live object that begins at the pointer; 0 where none does (an object
 * of size 0 has one byte). */
size_t hardened_size(struct hak_region *heap, const void *pointer);
/* The live object becomes one of another size, where it is; false where it has to move, if it may.
 * must: it cannot; size is no more than it has. */
bool hardened_resize(struct hak_region *heap, void *pointer, size_t size, bool must);
bool hardened_check(struct hak_region *heap);

/* The bytes behind an object, as far as there is room for them, CANARY_BYTES at most. */
void canary_put(const struct hardened *hardened, void *pointer, size_t size, size_t room);
bool canary_intact(const struct hardened *hardened, const void *pointer, size_t size, size_t room);
/* The first so many bytes as freed memory has them. */
void fill_put(void *pointer, size_t bytes);
bool fill_intact(const void *pointer, size_t bytes);

#endif
