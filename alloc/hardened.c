/* SPDX-License-Identifier: MIT */
/* States, canaries and fill of a hardened region's objects; see hardened.h. */
#include "alloc/hardened.h"

#include <errno.h>
#include <string.h>

#include "alloc/exhaust.h"
#include "alloc/guarded.h"
#include "alloc/hit.h"
#include "alloc/large.h"
#include "alloc/misuse.h"
#include "alloc/quarantine.h"
#include "alloc/sharedpool.h"
#include "numa/sysfs.h"
#include "region/os.h"

/* An object's state. Live: 1 + the bytes of its slot that were not asked for, at most SLACK_MAX. */
#define STATE_FRESH 0
#define STATE_FREED UINT16_MAX
#define SLACK_MAX ((size_t)UINT16_MAX - 2)
/* No address of a program, and hardly any number that somebody expects. */
#define FILL_WORD 0xf5f5f5f5f5f5f5f5U
/* Above so many bytes the C library is faster. */
#define FILL_INLINE 256

_Static_assert((HARDENED_STRIDE / CACHE_LINE) % 2 == 1, "an odd number of lines");

/* Where an object may begin. */
struct spot {
    _Atomic uint16_t *state;
    size_t slot_bytes;
};

static bool is_live(uint16_t state)
{
    return (uint16_t)(state - 1) < STATE_FREED - 1;
}

/* The size as a state can tell it: at least a byte, and exact but for slots with more than
 * SLACK_MAX to spare. */
HAK_INLINE size_t told_size(size_t size, size_t slot_bytes)
{
    return max_size(size, slot_bytes <= SLACK_MAX ? 1 : slot_bytes - SLACK_MAX);
}

HAK_INLINE size_t size_of_live(uint16_t state, size_t slot_bytes)
{
    return slot_bytes + 1 - state;
}

HAK_INLINE uint16_t state_of_size(size_t size, size_t slot_bytes)
{
    return (uint16_t)(slot_bytes + 1 - size);
}

/* Of the objects of the slab that begins at the unit. */
HAK_INLINE _Atomic uint16_t *states_of(const struct hardened *hardened, size_t unit)
{
    return (_Atomic uint16_t *)(void *)(hardened->states + unit * HARDENED_STRIDE);
}

/* The pointer is into a slab of the class that begins at the unit; false where no object begins
 * there. */
HAK_INLINE bool find(const struct hardened *hardened, size_t unit, unsigned cls,
                     const void *pointer, struct spot *spot)
{
    const struct hardened_class *own = &hardened->classes[cls];
    size_t offset = (uintptr_t)pointer - hardened->base - (unit << UNIT_LOG2);
    size_t index = (offset * own->reciprocal) >> RECIPROCAL_LOG2; /* sizeclass_index */

    spot->slot_bytes = own->slot_bytes;
    /* A slab's tail, behind its last object, has states too, which are never live. */
    spot->state = states_of(hardened, unit) + index;
    return index * own->slot_bytes == offset;
}

/* Of any pointer; *cls CLASS_NONE where it is not into a slab. */
static bool find_any(const struct hak_region *heap, const void *pointer, unsigned *cls,
                     struct spot *spot)
{
    unit_t unit = region_unit(&heap->area, pointer);

    *cls = unit == UNIT_NONE ? CLASS_NONE : heap_class(heap, unit);
    if (*cls > CLASS_COUNT) {
        *cls = CLASS_NONE;
    }
    return *cls != CLASS_NONE &&
           find(heap->hardened, heap_slab_head(heap, unit), *cls, pointer, spot);
}

HAK_INLINE uint16_t state_of(const struct spot *spot)
{
    /* Relaxed: who may free or reallocate an object knows of its allocation. */
    return atomic_load_explicit(spot->state, memory_order_relaxed);
}

HAK_INLINE void set_state(const struct spot *spot, uint16_t state)
{
    /* Relaxed: an object goes to another thread by the program's own order, or through its slab's
     * bits (SLAB-BITS). */
    atomic_store_explicit(spot->state, state, memory_order_relaxed);
}

/* ---- canary and fill ---- */

/* Different for every address. The first byte is not 0, which ends strings. */
HAK_INLINE uint64_t canary_of(const struct hardened *hardened, const void *pointer)
{
    return ((uintptr_t)pointer ^ hardened->secrets[0]) * hardened->secrets[1] | 1;
}

HAK_INLINE void put_canary(const struct hardened *hardened, void *pointer, size_t size, size_t room)
{
    uint64_t canary = canary_of(hardened, pointer);

    memcpy((char *)pointer + size, &canary, room);
}

HAK_INLINE bool intact(const struct hardened *hardened, const void *pointer, size_t size,
                       size_t room)
{
    uint64_t canary = canary_of(hardened, pointer);

    return memcmp((const char *)pointer + size, &canary, room) == 0;
}

void canary_put(const struct hardened *hardened, void *pointer, size_t size, size_t room)
{
    put_canary(hardened, pointer, size, room);
}

bool canary_intact(const struct hardened *hardened, const void *pointer, size_t size, size_t room)
{
    return intact(hardened, pointer, size, room);
}

/* Sixteen bytes in a vector register of every processor. */
typedef uint64_t fill_t __attribute__((vector_size(16), aligned(16)));

static const fill_t fill = {FILL_WORD, FILL_WORD};

/* Two registers a step; where one is left over, and in any case, the last one. */
HAK_INLINE void put_fill(void *pointer, size_t bytes)
{
    char *at = __builtin_assume_aligned(pointer, sizeof(fill_t));
    char *end = at + bytes;

    for (; at <= end - 2 * sizeof(fill_t); at += 2 * sizeof(fill_t)) {
        ((fill_t *)(void *)at)[0] = fill;
        ((fill_t *)(void *)at)[1] = fill;
    }
    *(fill_t *)(void *)(end - sizeof(fill_t)) = fill;
}

HAK_INLINE bool fill_is(const void *pointer, size_t bytes)
{
    const char *at = __builtin_assume_aligned(pointer, sizeof(fill_t));
    const char *end = at + bytes;
    fill_t wrong = *(const fill_t *)(const void *)(end - sizeof(fill_t)) ^ fill;

    for (; at <= end - 2 * sizeof(fill_t); at += 2 * sizeof(fill_t)) {
        wrong |= (((const fill_t *)(const void *)at)[0] ^ fill) |
                 (((const fill_t *)(const void *)at)[1] ^ fill);
    }
    return (wrong[0] | wrong[1]) == 0;
}

void fill_put(void *pointer, size_t bytes)
{
    memset(pointer, (int)(FILL_WORD & 0xff), bytes);
}

bool fill_intact(const void *pointer, size_t bytes)
{
    uint64_t first;

    if (bytes < sizeof(first)) {
        return true;
    }
    /* The first word is right, and each is as the one before. */
    memcpy(&first, pointer, sizeof(first));
    return first == FILL_WORD &&
           memcmp(pointer, (const char *)pointer + sizeof(first), bytes - sizeof(first)) == 0;
}

/* ---- handing out ---- */

unsigned hardened_class(size_t size, size_t alignment)
{
    size_t least = max_size(size + CANARY_BYTES, HAK_ALIGNMENT_MIN + 1);

    if (size > CLASS_BYTES_MAX - CANARY_BYTES || alignment > UNIT_BYTES) {
        return CLASS_NONE;
    }
    unsigned cls = alignment <= HAK_ALIGNMENT_MIN ? sizeclass_of(least)
                                                  : sizeclass_aligned(least, alignment);
    /* A large one knows its size exactly; told_size. */
    return sizeclass_bytes(cls) > size + SLACK_MAX ? CLASS_NONE : cls;
}

static HAK_NOINLINE void fill_verify(struct hak_region *heap, const void *object, unsigned cls)
{
    if (!fill_intact(object, heap->hardened->classes[cls].fill_bytes)) {
        misuse_report(heap, object, MISUSE_WRITTEN_FREED);
    }
}

bool hardened_hand_out(struct hak_region *heap, void *object, unsigned cls, size_t size)
{
    const struct hardened *hardened = heap->hardened;
    unit_t unit = region_unit(&heap->area, object);
    struct spot spot;

    bool there = find(hardened, heap_slab_head(heap, unit), cls, object, &spot);
    uint16_t state = state_of(&spot);
    /* Of another class: its slab went while it was here, since it was freed by two at once. */
    if (is_live(state) || !there || heap_class(heap, unit) != cls) {
        misuse_report(heap, object, MISUSE_FREED_TWICE);
        return false;
    }
    if (state == STATE_FREED) {
        fill_verify(heap, object, cls);
    }
    size = told_size(size, spot.slot_bytes);
    set_state(&spot, state_of_size(size, spot.slot_bytes));
    put_canary(hardened, object, size, CANARY_BYTES);
    return true;
}

bool hardened_let_go(struct hak_region *heap, const void *object, unsigned cls)
{
    unit_t unit = region_unit(&heap->area, object);
    struct spot spot;

    if (sizeclasses[cls].unit_count != 1) {
        unit = heap_slab_head(heap, unit);
    }
    find(heap->hardened, unit, cls, object, &spot);
    if (likely(!is_live(state_of(&spot)))) {
        return true;
    }
    misuse_report(heap, object, MISUSE_FREED_TWICE);
    return false;
}

void *hardened_malloc_in(struct thread *thread, size_t size, size_t alignment)
{
    unsigned cls = hardened_class(size, alignment);
    void *object;

    if (cls == CLASS_NONE) {
        return large_alloc(thread, size, alignment, NULL);
    }
    do {
        object = quarantine_get(thread, cls);
        if (object == NULL) {
            exhaust_asked(size, alignment);
            return NULL;
        }
    } while (!hardened_hand_out(thread->heap, object, cls, size));
    return object;
}

/* Not as the common case has it, or somebody wrote to it. */
static HAK_NOINLINE void *hand_out_other(struct hak_region *heap, void *object, unsigned cls,
                                         size_t size)
{
    return hardened_hand_out(heap, object, cls, size) ? object : malloc_slow(heap, size);
}

void *hardened_malloc(struct quarantine *quarantine, size_t size)
{
    const struct hardened *hardened = quarantine->hardened;
    unsigned cls =
        hardened->class_of[(min_size(size, hardened->quick_bytes) + CANARY_BYTES + 15) / 16];
    struct quarantine_counts *counts = &quarantine->counts[cls];
    struct spot spot;

    if (unlikely(size > hardened->quick_bytes || counts->stock == 0)) {
        return malloc_slow(quarantine->heap, size);
    }
    void *object = quarantine->arrays[cls].stock[--counts->stock];
    size_t unit = ((uintptr_t)object - hardened->base) >> UNIT_LOG2;
    find(hardened, unit, cls, object, &spot);
    if (unlikely(state_of(&spot) != STATE_FREED ||
                 !fill_is(object, hardened->classes[cls].fill_bytes))) {
        return hand_out_other(quarantine->heap, object, cls, size);
    }
    size = max_size(size, 1); /* told_size, of a small class */
    set_state(&spot, state_of_size(size, spot.slot_bytes));
    put_canary(hardened, object, size, CANARY_BYTES);
    return object;
}

/* ---- taking back ---- */

/* Where the thread has no slot yet, its quarantine no room or the object another node. */
static HAK_NOINLINE void put_away(struct hak_region *heap, unsigned cls, void *pointer)
{
    int saved = errno;
    struct thread *thread = thread_current_free(heap);

    if (thread != NULL) {
        quarantine_put(thread, cls, pointer);
    } else {
        sharedpool_release(heap->stray, cls, &pointer, 1);
    }
    errno = saved;
}

/* Whatever the pointer is, and whatever is wrong with it. */
static HAK_NOINLINE void free_other(struct hak_region *heap, void *pointer)
{
    const struct hardened *hardened = heap->hardened;
    unit_t unit = region_unit(&heap->area, pointer);
    struct spot spot;
    unsigned cls;

    if (pointer == NULL) {
        return;
    }
    /* Read once: another thread may be freeing it at this moment. */
    uint16_t state = find_any(heap, pointer, &cls, &spot) ? state_of(&spot) : STATE_FREED;
    if (!is_live(state)) {
        if (hardened_size(heap, pointer) != 0) {
            int saved = errno;
            struct thread *thread = thread_current_free(heap);
            guarded_free(thread != NULL ? thread : heap->stray, unit, pointer);
            errno = saved;
        } else {
            misuse_report(heap, pointer, misuse_kind_of(heap, pointer));
        }
        return;
    }
    if (!intact(hardened, pointer, size_of_live(state, spot.slot_bytes), CANARY_BYTES)) {
        misuse_report(heap, pointer, MISUSE_OVERFLOW);
    }
    set_state(&spot, STATE_FREED);
    fill_put(pointer, hardened->classes[cls].fill_bytes);
    put_away(heap, cls, pointer);
}

void hardened_free_quick(struct quarantine *quarantine, void *pointer)
{
    const struct hardened *hardened = quarantine->hardened;
    size_t unit = ((uintptr_t)pointer - hardened->base) >> UNIT_LOG2;
    struct spot spot;

    if (unlikely(unit >= hardened->unit_count)) {
        free_other(quarantine->heap, pointer);
        return;
    }
    /* Relaxed: as heap_class. */
    unsigned cls = atomic_load_explicit(&hardened->class_map[unit], memory_order_relaxed) >>
                   CLASS_MAP_SHIFT;
    if (unlikely(cls - 1 >= hardened->quick_classes ||
                 !find(hardened, unit, cls, pointer, &spot))) {
        free_other(quarantine->heap, pointer);
        return;
    }
    uint16_t state = state_of(&spot);
    if (unlikely(!is_live(state) ||
                 !intact(hardened, pointer, size_of_live(state, spot.slot_bytes), CANARY_BYTES))) {
        free_other(quarantine->heap, pointer);
        return;
    }
    set_state(&spot, STATE_FREED);
    put_fill(pointer, hardened->classes[cls].fill_bytes);
    if (unlikely(!quarantine_swap(quarantine, cls, pointer))) {
        put_away(quarantine->heap, cls, pointer);
    }
}

void hardened_free(struct hak_region *heap, void *pointer)
{
    struct quarantine *quarantine = thread_self[heap->id].active->quarantine;

    if (quarantine != NULL) {
        hardened_free_quick(quarantine, pointer);
    } else {
        free_other(heap, pointer);
    }
}

void hardened_free_sized(struct hak_region *heap, void *pointer, size_t size, size_t alignment)
{
    size_t have = hardened_size(heap, pointer);
    struct spot spot;
    unsigned cls;

    size = find_any(heap, pointer, &cls, &spot) ? told_size(size, spot.slot_bytes)
                                                : max_size(size, 1);
    /* alignment 0, not said, is its own only bit; one of several bits is none. */
    bool aligned = (alignment & (alignment - 1)) == 0 &&
                   (alignment == 0 || (uintptr_t)pointer % alignment == 0);
    if (have != 0 && (size != have || !aligned)) {
        misuse_report(heap, pointer, MISUSE_WRONG_SIZE);
    }
    hardened_free(heap, pointer);
}

size_t hardened_size(struct hak_region *heap, const void *pointer)
{
    unit_t unit = region_unit(&heap->area, pointer);
    struct spot spot;
    unsigned cls;

    if (unit != UNIT_NONE && heap_class(heap, unit) == CLASS_LARGE_HEAD) {
        return guarded_size(heap, unit, pointer);
    }
    if (!find_any(heap, pointer, &cls, &spot)) {
        return 0;
    }
    uint16_t state = state_of(&spot);
    return is_live(state) ? size_of_live(state, spot.slot_bytes) : 0;
}

bool hardened_resize(struct hak_region *heap, void *pointer, size_t size, bool must)
{
    struct spot spot;
    unsigned cls;

    if (!find_any(heap, pointer, &cls, &spot)) {
        return guarded_resize(heap, region_unit(&heap->area, pointer), pointer, size, must);
    }
    uint16_t state = state_of(&spot);
    if (!is_live(state)) {
        return false; /* freed meanwhile, which is found when the old object is to be freed */
    }
    if (!intact(heap->hardened, pointer, size_of_live(state, spot.slot_bytes), CANARY_BYTES)) {
        misuse_report(heap, pointer, MISUSE_OVERFLOW);
        /* Reported once: where it has to move, the old object is freed. */
        put_canary(heap->hardened, pointer, size_of_live(state, spot.slot_bytes), CANARY_BYTES);
    }
    if (!must && hardened_class(size, 0) != cls) {
        return false;
    }
    size = told_size(size, spot.slot_bytes);
    set_state(&spot, state_of_size(size, spot.slot_bytes));
    put_canary(heap->hardened, pointer, size, CANARY_BYTES);
    return true;
}

/* ---- set-up ---- */

void hardened_open_slab(struct hak_region *heap, unit_t unit, unsigned capacity)
{
    _Atomic uint16_t *states = states_of(heap->hardened, unit);

    for (unsigned n = 0; n < capacity; n++) {
        /* Relaxed: handing the first object out orders it. */
        atomic_store_explicit(&states[n], STATE_FRESH, memory_order_relaxed);
    }
}

void hardened_close_slab(struct hak_region *heap, unit_t unit, unsigned cls, unsigned capacity)
{
    const _Atomic uint16_t *states = states_of(heap->hardened, unit);
    const char *object = region_address(&heap->area, unit);

    for (unsigned n = 0; n < capacity; n++, object += sizeclass_bytes(cls)) {
        /* Relaxed: who freed it set its bit after that (SLAB-BITS), and all bits are set. */
        if (atomic_load_explicit(&states[n], memory_order_relaxed) == STATE_FREED) {
            fill_verify(heap, object, cls);
        }
    }
}

/* Each guard can make two more pieces of the process's memory: half of what the kernel allows is
 * the program's. */
static size_t guards_most(void)
{
    uint64_t pieces;

    if (sysfs_read_number("/proc/sys/vm/max_map_count", &pieces) != 0) {
        pieces = 65530; /* DEFAULT_MAX_MAP_COUNT of the kernel */
    }
    return (size_t)(pieces / 4);
}

void hardened_open(struct hak_region *heap, const struct settings *settings)
{
    struct hardened *hardened = heap->hardened;

    os_random(hardened->secrets, sizeof(hardened->secrets));
    os_random(&hardened->seed, sizeof(hardened->seed));
    hardened->secrets[1] |= 1; /* an odd factor loses nothing */
    hardened->base = heap->area.base;
    hardened->unit_count = heap->area.unit_count;
    hardened->class_map = heap->class_map;
    hardened->guards_most = guards_most();
    hardened->guards = !heap->area.adopted && !os_pages_hugetlb(heap->area.pages);
    hardened->fill_bytes = max_size(FILL_STEP, round_down(settings->fill_bytes, FILL_STEP));
    for (unsigned cls = 1; cls <= CLASS_COUNT; cls++) {
        size_t bytes = sizeclass_bytes(cls);
        hardened->classes[cls] = (struct hardened_class){
            .reciprocal = sizeclasses[cls].reciprocal,
            .slot_bytes = (uint32_t)bytes,
            .fill_bytes = (uint32_t)min_size(hardened->fill_bytes, bytes)};
    }
    /* The common case: slabs of one unit, so that a pointer's lower bits tell its object. Long
     * fills are better done by the C library, and objects of other nodes go home. */
    while (heap->area.segment_count == 1 && hardened->fill_bytes <= FILL_INLINE &&
           hardened->quick_classes < CLASS_COUNT &&
           sizeclasses[hardened->quick_classes + 1].unit_count == 1) {
        hardened->quick_classes++;
    }
    if (hardened->quick_classes > 0) {
        hardened->quick_bytes = min_size(CLASS_TABLE_BYTES_MAX,
                                         sizeclass_bytes(hardened->quick_classes)) -
                                CANARY_BYTES;
    }
    for (size_t n = 0; n < CLASS_TABLE_ENTRIES; n++) {
        hardened->class_of[n] = (uint8_t)hardened_class(n * 16 - min_size(n * 16, CANARY_BYTES), 0);
    }
}

void hardened_after_fork(struct hak_region *heap)
{
    struct thread *thread = thread_self[heap->id].active;
    uint64_t seed;

    os_random(&seed, sizeof(seed));
    heap->hardened->seed ^= seed;
    if (thread->quarantine != NULL) {
        thread->quarantine->random ^= seed;
    }
}

/* Of a slab's objects: those with their bit set are free. */
static bool slab_states_agree(const struct hak_region *heap, unit_t unit)
{
    const struct slab *slab = &heap->slabs[unit];
    uint64_t head = atomic_load_explicit(&slab->head, memory_order_acquire);
    const _Atomic uint16_t *states = states_of(heap->hardened, unit);

    for (unsigned n = 0; n < head_capacity(head); n++) {
        uint64_t word = atomic_load_explicit(&slab->bits[n / 64], memory_order_relaxed);
        if (((word >> (n % 64)) & 1) &&
            is_live(atomic_load_explicit(&states[n], memory_order_relaxed))) {
            return false;
        }
    }
    return true;
}

bool hardened_check(struct hak_region *heap)
{
    for (unit_t unit = 0; unit < heap->area.unit_count; unit++) {
        unsigned cls = heap_class(heap, unit);
        if (cls != CLASS_NONE && cls <= CLASS_COUNT && heap_offset(heap, unit) == 0 &&
            !slab_states_agree(heap, unit)) {
            return false;
        }
    }
    return true;
}
