/* SPDX-License-Identifier: MIT */
/*
 * Laying out a region's metadata, and taking it away. Tables indexed by unit are one range each, so
 * that a unit's number is all one needs, but every segment's part of them lies on that segment's
 * node. Everything that the region will ever use is mapped here.
 */
#include "alloc/heap.h"

#include "alloc/hardened.h"
#include "alloc/large.h"
#include "alloc/quarantine.h"
#include "alloc/setup.h"
#include "alloc/sharedpool.h"
#include "alloc/thread.h"
#include "numa/bind.h"
#include "numa/topology.h"
#include "region/errlog.h"
#include "region/os.h"

/* Shares of a segment, in 1/10,000. With the slabs' 88 and the rest below 3 they stay below 160. */
#define MAGAZINE_SHARE 34
#define THREAD_SHARE 20
#define MAGAZINES_MIN 64
/* More than the threads that a node can have would fill, whatever its size. */
#define MAGAZINES_MAX ((size_t)1 << 19)
#define THREAD_SLOTS_READY_MIN 4
/* A slot a unit, within these and THREAD_SLOTS_MAX: addresses are counted too (RLIMIT_AS). */
#define THREAD_SLOTS_MIN ((size_t)256)
#define THREAD_SLOTS_READY_MAX 256
/* What the caches and the page boxes of a node may hold, in 1/1,000 of its segment. */
#define CACHED_SHARE 20
#define BOXED_SHARE 10
/* Where memory is taken as it is used the segment's size says little about what may be held. */
#define CACHED_LOOSE_BYTES ((size_t)128 << 20)
#define BOXED_LOOSE_BYTES ((size_t)64 << 20)
#define BATCH_BYTES_MIN ((size_t)4 << 10)
#define BATCH_BYTES_MAX ((size_t)512 << 10)

struct heap_front heap_default_front;
struct hak_region *_Atomic heap_default;
struct hak_region *_Atomic heap_all[HAK_REGIONS_MAX];

/* Addresses of a table on a node; NULL after filling *error. used: all of it will be faulted in, so
 * huge pages serve for whatever fills them whole. */
static void *addresses(struct hak_region *heap, size_t bytes, int node, bool used, const char *what,
                       struct hak_error *error)
{
    size_t whole = round_down(bytes, SUPERSLAB_BYTES);
    bool huge = used && heap->area.prefault && whole > 0;
    void *memory;
    int code = backing_table(bytes, node, false, huge ? HAK_PAGES_THP : HAK_PAGES_4K, heap->place,
                             &memory);

    if (code == 0) {
        heap->tables[heap->table_count++] = (struct heap_table){.memory = memory, .bytes = bytes};
        if (huge && whole < bytes) {
            code = os_small_pages((char *)memory + whole, bytes - whole);
        }
    }
    if (code != 0) {
        errlog_fail(error, code, HAK_ERROR_SETUP, "no addresses for the %s (%zu bytes)", what,
                    bytes);
        return NULL;
    }
    return memory;
}

/* A table of so many bytes on a node; ready of them are faulted in. NULL after filling *error. */
static void *table(struct hak_region *heap, size_t bytes, size_t ready, int node, const char *what,
                   struct hak_error *error)
{
    size_t page = os_page_bytes();
    void *memory;
    int code;

    bytes = round_up(bytes, page);
    ready = min_size(bytes, round_up(ready, page));
    memory = addresses(heap, bytes, node, ready == bytes, what, error);
    if (memory == NULL) {
        return NULL;
    }
    heap->metadata_bytes += ready;
    if (heap->area.prefault) {
        code = os_populate(memory, ready, false);
        if (code != 0) {
            errlog_fail(error, code, HAK_ERROR_SETUP, "no memory on node %d for the %s (%zu bytes)",
                        node, what, ready);
            return NULL;
        }
    }
    return memory;
}

/* A table with entry_bytes per unit of the region, every segment's part on its node. */
static void *unit_table(struct hak_region *heap, size_t entry_bytes, const char *what,
                        struct hak_error *error)
{
    size_t page = os_page_bytes();
    size_t bytes = round_up(heap->area.unit_count * entry_bytes, page);
    unsigned char *memory = addresses(heap, bytes, heap->area.segments[0].node, true, what, error);

    if (memory == NULL) {
        return NULL;
    }
    heap->metadata_bytes += bytes;
    for (uint32_t n = 0; n < heap->area.segment_count; n++) {
        const struct segment *segment = &heap->area.segments[n];
        size_t first = (size_t)segment->first_superslab * SUPERSLAB_UNITS * entry_bytes;
        size_t last = first + (size_t)segment->superslab_count * SUPERSLAB_UNITS * entry_bytes;
        int code = 0;
        /* A page on the border of two segments goes to the later one. */
        first = round_down(first, page);
        last = n + 1 < heap->area.segment_count ? round_down(last, page) : round_up(last, page);
        if (first < last) {
            code = bind_strict(memory + first, last - first, segment->node);
        }
        if (code == 0 && first < last && heap->area.prefault) {
            code = os_populate(memory + first, last - first, false);
        }
        if (code != 0) {
            errlog_fail(error, code, HAK_ERROR_SETUP, "no memory on node %d for the %s (%zu bytes)",
                        segment->node, what, last - first);
            return NULL;
        }
    }
    return memory;
}

static int place_partial(struct hak_region *heap, struct pool *pool, struct hak_error *error)
{
    size_t each = bitset_bytes(pool->unit_count);
    unsigned char *memory = table(heap, each * CLASS_COUNT, each * CLASS_COUNT, pool->segment->node,
                                  "sets of slabs with room", error);

    if (memory == NULL) {
        return error->code;
    }
    for (unsigned cls = 1; cls <= CLASS_COUNT; cls++) {
        bitset_place(&pool->partial[cls], memory, pool->unit_count);
        memory += each;
    }
    return 0;
}

static int place_magazines(struct hak_region *heap, struct pool *pool, struct hak_error *error)
{
    size_t one = MAGAZINE_OBJECTS * sizeof(void *) + sizeof(struct magazine_link);
    size_t share = ((size_t)pool->unit_count << UNIT_LOG2) / 10000 * MAGAZINE_SHARE;
    size_t count = min_size(MAGAZINES_MAX, max_size(MAGAZINES_MIN, share / one));
    size_t set = bitset_bytes(count);
    size_t links = round_up(count * sizeof(struct magazine_link), CACHE_LINE);
    size_t bytes = count * MAGAZINE_OBJECTS * sizeof(void *) + links + set;
    unsigned char *memory = table(heap, bytes, bytes, pool->segment->node,
                                  "thread caches' magazines", error);

    if (memory == NULL) {
        return error->code;
    }
    pool->magazines.count = (uint32_t)count;
    pool->magazines.memory = (void **)(void *)memory;
    memory += count * MAGAZINE_OBJECTS * sizeof(void *);
    pool->magazines.links = (struct magazine_link *)(void *)memory;
    bitset_place(&pool->magazines.free, memory + links, count);
    bitset_fill(&pool->magazines.free);
    return 0;
}

static struct thread *place_stray(struct hak_region *heap, struct hak_error *error)
{
    struct thread *stray = table(heap, sizeof(*stray), sizeof(*stray), heap->area.segments[0].node,
                                 "counters of threads without a slot", error);

    if (stray != NULL) {
        thread_fill(stray, &heap->pools[0], 0);
    }
    return stray;
}

/* What a hardened region has more. Its slots' quarantines: place_slots. */
static int place_hardened(struct hak_region *heap, const struct settings *settings,
                          struct hak_error *error)
{
    size_t bytes = sizeof(struct hardened);

    if (!settings->hardened) {
        return 0;
    }
    heap->hardened = table(heap, bytes, bytes, heap->area.segments[0].node, "hardened mode", error);
    if (heap->hardened != NULL) {
        heap->hardened->states = unit_table(heap, HARDENED_STRIDE, "objects' states", error);
    }
    if (heap->hardened == NULL || heap->hardened->states == NULL) {
        return error->code;
    }
    hardened_open(heap, settings);
    return 0;
}

static int place_slots(struct hak_region *heap, struct pool *pool, struct hak_error *error)
{
    size_t share = ((size_t)pool->unit_count << UNIT_LOG2) / 10000 * THREAD_SHARE;
    size_t ready = min_size(THREAD_SLOTS_READY_MAX,
                            max_size(THREAD_SLOTS_READY_MIN, share / sizeof(struct thread)));
    size_t count = min_size(THREAD_SLOTS_MAX, max_size(THREAD_SLOTS_MIN, pool->unit_count));
    size_t set = bitset_bytes(count);
    unsigned char *memory = table(heap, set + count * sizeof(struct thread),
                                  set + ready * sizeof(struct thread), pool->segment->node,
                                  "thread slots", error);

    if (memory == NULL) {
        return error->code;
    }
    bitset_place(&pool->slots.free, memory, count);
    bitset_fill(&pool->slots.free);
    pool->slots.memory = memory + set;
    pool->slots.ready = (uint32_t)ready;
    if (heap->hardened != NULL) {
        pool->slots.quarantines = table(heap, count * sizeof(struct quarantine),
                                        ready * sizeof(struct quarantine), pool->segment->node,
                                        "freed objects that are held back", error);
        return pool->slots.quarantines != NULL ? 0 : error->code;
    }
    return 0;
}

static int place_pool(struct hak_region *heap, uint32_t index, struct hak_error *error)
{
    struct pool *pool = &heap->pools[index];
    struct segment *segment = &heap->area.segments[index];
    size_t bytes = (size_t)segment->superslab_count << SUPERSLAB_LOG2;
    int code;

    pool->heap = heap;
    pool->segment = segment;
    pool->index = index;
    pool->first_unit = segment->first_superslab * SUPERSLAB_UNITS;
    pool->unit_count = segment->superslab_count * SUPERSLAB_UNITS;
    for (unsigned n = 0; n < HELD_OBJECTS; n++) {
        atomic_store_explicit(&pool->held[n], HELD_NONE, memory_order_relaxed);
    }
    pool->batch_bytes = min_size(BATCH_BYTES_MAX, max_size(BATCH_BYTES_MIN, bytes >> 12));
    pool->cached_bytes_limit = bytes / 1000 * CACHED_SHARE;
    pool->boxed_bytes_limit = bytes / 1000 * BOXED_SHARE;
    if (!heap->area.prefault) {
        pool->cached_bytes_limit = min_size(pool->cached_bytes_limit, CACHED_LOOSE_BYTES);
        pool->boxed_bytes_limit = min_size(pool->boxed_bytes_limit, BOXED_LOOSE_BYTES);
    }
    code = place_partial(heap, pool, error);
    if (code == 0) {
        code = place_magazines(heap, pool, error);
    }
    if (code == 0) {
        code = place_slots(heap, pool, error);
    }
    return code;
}

/* Which pool a thread on any node uses, and in which order a pool's neighbours are asked. */
static int set_distances(struct hak_region *heap, struct hak_error *error)
{
    static struct topology machine; /* set-up is one at a time */
    const struct topology *topology = &machine;
    uint64_t nodes = 0;
    int code;

    if (heap->pool_count == 1) {
        return 0; /* no choice: every node's pool is number 0 */
    }
    code = topology_read(&machine);
    if (code != 0) {
        return errlog_fail(error, code, HAK_ERROR_SETUP, "the machine's nodes cannot be read");
    }
    for (uint32_t n = 0; n < heap->pool_count; n++) {
        nodes |= (uint64_t)1 << heap->area.segments[n].node;
    }
    for (int node = 0; node < HAK_NODES_MAX; node++) {
        int nearest = topology_nearest(topology, node, nodes);
        for (uint32_t n = 0; n < heap->pool_count; n++) {
            if (heap->area.segments[n].node == nearest) {
                heap->node_pool[node] = (int8_t)n;
            }
        }
    }
    for (uint32_t n = 0; n < heap->pool_count; n++) {
        struct pool *pool = &heap->pools[n];
        uint64_t others = nodes & ~((uint64_t)1 << pool->segment->node);
        for (uint32_t rank = 0; others != 0; rank++) {
            int nearest = topology_nearest(topology, pool->segment->node, others);
            pool->nearest[rank] = (uint32_t)heap->node_pool[nearest];
            others &= ~((uint64_t)1 << nearest);
        }
    }
    return 0;
}

static void take_settings(struct hak_region *heap, const struct settings *settings)
{
    heap->misuse = settings->misuse;
    heap->exhausted = settings->exhausted;
    heap->layers = settings->layers;
    heap->warm_pool = settings->warm_pool;
    heap->warm_pool_stats = settings->warm_pool_stats;
    heap->page_box_classes = (settings->layers & LAYER_PAGEBOX) ? settings->page_box_classes : 0;
}

int heap_layout(struct hak_region *heap, const struct settings *settings, struct hak_error *error)
{
    int code;

    take_settings(heap, settings);
    heap->metadata_bytes = heap->area.metadata_bytes + sizeof(*heap) -
                           (HAK_NODES_MAX - heap->area.segment_count) * sizeof(struct segment);
    heap->class_map = unit_table(heap, sizeof(*heap->class_map), "class map", error);
    if (heap->class_map != NULL) {
        heap->head_offset = unit_table(heap, sizeof(*heap->head_offset), "slab offsets", error);
    }
    if (heap->head_offset != NULL) {
        heap->slabs = unit_table(heap, sizeof(*heap->slabs), "slabs' books", error);
    }
    if (heap->slabs != NULL) {
        size_t bytes = heap->area.segment_count * sizeof(struct pool);
        heap->pools = table(heap, bytes, bytes, heap->area.segments[0].node, "pools", error);
    }
    if (heap->pools == NULL) {
        return error->code;
    }
    code = place_hardened(heap, settings, error);
    if (code != 0) {
        return code;
    }
    heap->pool_count = heap->area.segment_count;
    for (uint32_t n = 0; n < heap->pool_count; n++) {
        code = place_pool(heap, n, error);
        if (code != 0) {
            return code;
        }
    }
    heap->front.class_map = (uintptr_t)heap->class_map - (heap->area.base >> UNIT_LOG2);
    code = set_distances(heap, error);
    if (code != 0) {
        return code;
    }
    heap->stray = place_stray(heap, error);
    return heap->stray != NULL ? 0 : error->code;
}

void heap_unlayout(struct hak_region *heap)
{
    while (heap->table_count > 0) {
        struct heap_table *last = &heap->tables[--heap->table_count];
        backing_table_free(last->memory, last->bytes, heap->place);
    }
}

struct hak_region *heap_containing(const void *pointer)
{
    for (unsigned id = 0; id < HAK_REGIONS_MAX; id++) {
        struct hak_region *heap = atomic_load_explicit(&heap_all[id], memory_order_acquire);
        if (heap != NULL && region_unit(&heap->area, pointer) != UNIT_NONE) {
            return heap;
        }
    }
    return NULL;
}

bool heap_check(struct hak_region *heap)
{
    if (!region_check(&heap->area) || !thread_check(heap)) {
        return false;
    }
    for (uint32_t n = 0; n < heap->pool_count; n++) {
        if (!sharedpool_check(&heap->pools[n])) {
            return false;
        }
    }
    for (unit_t unit = 0; unit < heap->area.unit_count; unit++) {
        uint32_t free_units = registry_free_units(region_entry(&heap->area, unit),
                                                  memory_order_acquire);
        bool is_free = (free_units >> (unit % SUPERSLAB_UNITS)) & 1;
        unsigned cls = heap_class(heap, unit);
        if (is_free != (cls == CLASS_NONE) ||
            (cls == CLASS_LARGE_HEAD && !large_check(heap, unit))) {
            return false;
        }
    }
    return heap->hardened == NULL || hardened_check(heap);
}
