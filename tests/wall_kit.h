/* SPDX-License-Identifier: MIT */
/*
 * A random workload that runs into the wall and back: what one is (drawn from a seed alone), and
 * what its threads do.
 *
 * Each thread, several times: allocates from a mix of sizes by every call there is until there is
 * no room, looks at what its objects hold, frees a random part in some order, hands some to the
 * stash that all share, takes some out of it. What is left goes into the stash as the thread ends,
 * with whatever its caches hold; some threads end and are followed by others. A reclaimer, where
 * there is one, frees from the stash, and does what a reclaimer may do besides.
 *
 * Every object's bytes tell it from every other (its tag): all of them up to a KiB, beyond that
 * both ends and a word of every page. So an object handed out twice, or a write of the allocator
 * into one, is seen.
 */
#ifndef HAK_TESTS_WALL_KIT_H
#define HAK_TESTS_WALL_KIT_H

#include "numa/topology.h"
#include "tests/region_kit.h"

#include <stdatomic.h>

#define WALL_THREADS_MAX 16
#define WALL_STASH 8192
#define WALL_WHOLE 1024 /* objects up to here are patterned all over */
#define WALL_PAGE 4096
#define WALL_EXTRA 8 /* tries of small sizes after the first NULL */

enum wall_mix {
    MIX_TINY,    /* 1 to 128 bytes */
    MIX_CLASSES, /* as many of each magnitude, to 8 KiB */
    MIX_MID,     /* to 256 KiB */
    MIX_LARGE,   /* runs of units */
    MIX_SPANS,   /* over a SuperSlab */
    MIX_ALL,
    MIX_COUNT
};

static const char *const wall_mix_names[] = {"tiny", "classes", "mid", "large", "spans", "all"};

struct wall_object {
    unsigned char *at;
    size_t size;
    uint64_t tag;
};

struct wall_thread {
    unsigned number;
    uint64_t random;
    pthread_t thread;
    bool running;
    struct wall_object *objects;
    size_t count, capacity, most; /* most: of tiny ones, so that a round has an end */
    size_t failures;
    /* For the watchdog: what it is doing. Relaxed. */
    _Atomic unsigned round, mix;
    _Atomic(const char *) doing;
    _Atomic size_t asked;
};

struct wall {
    uint64_t seed;
    unsigned number;
    uint64_t random;
    /* drawn */
    size_t bytes;
    unsigned nodes, threads, generations, rounds;
    enum hak_exhausted policy;
    enum hak_switch prefault;
    bool as_default, reclaims, idles;
    /* at work */
    hak_region *region;
    struct wall_thread workers[WALL_THREADS_MAX];
    pthread_mutex_t lock; /* of the stash; nothing is allocated or freed under it */
    struct wall_object stash[WALL_STASH];
    size_t stashed;
    _Atomic uint64_t tags, failures, reclaimer_calls, reclaimer_frees;
    _Atomic bool broken; /* one thread failed: the others come to their end */
};

static struct wall wall;

/* ---- drawing ---- */

static inline size_t wall_below(uint64_t *random, size_t limit)
{
    return (size_t)(harness_random(random) % limit);
}

static inline bool wall_one_in(uint64_t *random, size_t n)
{
    return wall_below(random, n) == 0;
}

static inline void wall_draw(uint64_t seed, unsigned number)
{
    static const size_t sizes[] = {8, 8, 8, 12, 12, 16, 16, 24, 32, 64};
    static const unsigned threads[] = {1, 1, 2, 2, 3, 4, 6, 8, 12, 16};

    wall.seed = seed;
    wall.number = number;
    wall.random = seed * 0x9e3779b97f4a7c15U + number;
    uint64_t *random = &wall.random;
    wall.bytes = sizes[wall_below(random, 10)] * MIB;
    wall.threads = threads[wall_below(random, 10)];
    wall.generations = 1 + (unsigned)wall_below(random, 2);
    wall.rounds = 2 + (unsigned)wall_below(random, 3);
    wall.nodes = wall_one_in(random, 4) ? 2 : 1;
    wall.policy = wall_one_in(random, 2) ? HAK_EXHAUSTED_FAIL : HAK_EXHAUSTED_ANY_NODE;
    wall.prefault = wall_one_in(random, 3) ? HAK_ON : HAK_OFF;
    wall.as_default = wall_one_in(random, 2);
    wall.reclaims = wall_one_in(random, 3);
    wall.idles = wall_one_in(random, 2);
    wall.stashed = 0;
    atomic_store(&wall.tags, 0);
    atomic_store(&wall.failures, 0);
    atomic_store(&wall.reclaimer_calls, 0);
    atomic_store(&wall.reclaimer_frees, 0);
    atomic_store(&wall.broken, false);
}

static inline void wall_describe(char *text, size_t capacity)
{
    snprintf(text, capacity,
             "workload %u: %zu MiB, %u node(s), %u thread(s), %u generation(s), %u rounds, %s, "
             "prefault %s, %s%s%s\n  again: SEED=%llu FIRST=%u WORKLOADS=1\n",
             wall.number, wall.bytes / MIB, wall.nodes, wall.threads, wall.generations, wall.rounds,
             wall.policy == HAK_EXHAUSTED_FAIL ? "fail" : "any-node",
             wall.prefault == HAK_ON ? "on" : "off", wall.as_default ? "default" : "handle",
             wall.reclaims ? ", reclaimer" : "", wall.idles ? ", idles" : "",
             (unsigned long long)wall.seed, wall.number);
}

static inline void wall_print(FILE *out)
{
    char text[256];

    wall_describe(text, sizeof text);
    fputs(text, out);
}

__attribute__((noreturn, format(printf, 2, 3))) static inline void
wall_fail(const char *where, const char *format, ...)
{
    char text[512];
    va_list arguments;

    va_start(arguments, format);
    (void)vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    atomic_store(&wall.broken, true);
    wall_print(stdout);
    harness_end(HARNESS_FAILED, "%s%s", where, text);
}

/* A failed check of any thread says which workload it was. */
#define WALL_CHECK(condition)                                                                      \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            wall_fail(HARNESS_HERE, "WALL_CHECK(%s)", #condition);                                 \
        }                                                                                          \
    } while (0)

#define WALL_EQ(a, b)                                                                              \
    do {                                                                                           \
        size_t wall_a = (a), wall_b = (b);                                                         \
        if (wall_a != wall_b) {                                                                    \
            wall_fail(HARNESS_HERE, "WALL_EQ(%s, %s): %zu and %zu", #a, #b, wall_a, wall_b);       \
        }                                                                                          \
    } while (0)

/* ---- contents ---- */

static inline void wall_word(const struct wall_object *object, size_t offset, bool write)
{
    uint64_t word = pattern_word(object->tag, offset);

    if (write) {
        memcpy(object->at + offset, &word, sizeof word);
    } else {
        WALL_CHECK(memcmp(object->at + offset, &word, sizeof word) == 0);
    }
}

/* Writes what tells the object from others into its first bytes, or looks whether it is there. */
static inline void wall_contents(const struct wall_object *object, size_t bytes, bool write)
{
    if (bytes <= WALL_WHOLE) {
        if (write) {
            pattern_fill(object->at, bytes, object->tag);
        } else {
            WALL_CHECK(pattern_holds(object->at, bytes, object->tag));
        }
        return;
    }
    for (size_t offset = 0; offset + sizeof(uint64_t) <= bytes; offset += WALL_PAGE) {
        wall_word(object, offset, write);
    }
    for (size_t offset = 8; offset < 64; offset += 8) {
        wall_word(object, offset, write);
        wall_word(object, (bytes & ~(size_t)7) - offset, write);
    }
}

static inline void wall_zeroed(const unsigned char *at, size_t bytes)
{
    size_t whole = bytes < 65536 ? bytes : 65536;

    WALL_CHECK(all_bytes_are(at, whole, 0));
    for (size_t offset = whole; offset < bytes; offset += WALL_PAGE) {
        WALL_CHECK(at[offset] == 0);
    }
    WALL_CHECK(at[bytes - 1] == 0);
}

/* ---- one thread's objects ---- */

static inline void wall_doing(struct wall_thread *self, const char *what, size_t size)
{
    atomic_store_explicit(&self->doing, what, memory_order_relaxed);
    atomic_store_explicit(&self->asked, size, memory_order_relaxed);
}

static inline void wall_keep(struct wall_thread *self, struct wall_object object)
{
    if (self->count == self->capacity) {
        self->capacity = self->capacity * 2 + 1024;
        self->objects = realloc(self->objects, self->capacity * sizeof object);
        WALL_CHECK(self->objects != NULL);
    }
    self->objects[self->count++] = object;
}

static inline void wall_added(struct wall_thread *self, void *at, size_t size)
{
    struct wall_object object = {at, size, atomic_fetch_add(&wall.tags, 1)};

    WALL_CHECK((uintptr_t)at % HAK_ALIGNMENT_MIN == 0);
    WALL_CHECK(hak_region_usable_size(wall.region, at) >= size);
    wall_contents(&object, size, true);
    wall_keep(self, object);
}

static inline void wall_free(const struct wall_object *object, uint64_t *random)
{
    wall_contents(object, object->size, false);
    if (wall_one_in(random, 4)) {
        hak_region_free_sized(wall.region, object->at, object->size);
    } else {
        hak_region_free(wall.region, object->at);
    }
}

static inline size_t wall_magnitude(uint64_t *random, unsigned low_log2, unsigned high_log2)
{
    size_t limit = (size_t)1 << (low_log2 + wall_below(random, high_log2 - low_log2 + 1));
    return limit / 2 + 1 + wall_below(random, limit / 2);
}

static inline size_t wall_size(uint64_t *random, enum wall_mix mix)
{
    switch (mix) {
    case MIX_TINY:
        return 1 + wall_below(random, 128);
    case MIX_CLASSES:
        return wall_magnitude(random, 5, 13);
    case MIX_MID:
        return wall_magnitude(random, 13, 18);
    case MIX_LARGE:
        return 256 * KIB + 1 + wall_below(random, MIB);
    case MIX_SPANS:
        return 2 * MIB + wall_below(random, wall.bytes / 4);
    default:
        return wall_magnitude(random, 6, 22);
    }
}

/* ---- the ways of asking; false: there was no room ---- */

static inline bool wall_grow(struct wall_thread *self, size_t size)
{
    struct wall_object *object = &self->objects[wall_below(&self->random, self->count)];
    size_t least = object->size < size ? object->size : size;

    wall_doing(self, "realloc", size);
    unsigned char *moved = hak_region_realloc(wall.region, object->at, size);
    if (moved == NULL) {
        wall_contents(object, object->size, false); /* untouched */
        return false;
    }
    object->at = moved;
    /* What it held to here is there; of a long one, what was written into the part kept. */
    if (object->size <= WALL_WHOLE) {
        WALL_CHECK(pattern_holds(moved, least & ~(size_t)7, object->tag));
    } else if (least > WALL_PAGE) {
        wall_word(object, 0, false);
        wall_word(object, round_down(least - 8, WALL_PAGE), false);
    }
    object->size = size;
    wall_contents(object, size, true);
    return true;
}

static inline bool wall_bulk(struct wall_thread *self, size_t size)
{
    void *many[150];
    size_t want = 1 + wall_below(&self->random, 150);

    wall_doing(self, "malloc_bulk", size);
    size_t got = hak_region_malloc_bulk(wall.region, size, want, many);
    WALL_CHECK(got <= want);
    for (size_t n = 0; n < got; n++) {
        wall_added(self, many[n], size);
    }
    return got == want;
}

static inline bool wall_aligned(struct wall_thread *self, size_t size)
{
    size_t alignment = (size_t)1 << wall_below(&self->random, 23);

    wall_doing(self, "aligned_alloc", size);
    void *at = hak_region_aligned_alloc(wall.region, alignment, size);
    if (at == NULL) {
        return false;
    }
    WALL_CHECK((uintptr_t)at % alignment == 0);
    wall_added(self, at, size);
    return true;
}

static inline bool wall_get(struct wall_thread *self, enum wall_mix mix)
{
    size_t size = wall_size(&self->random, mix);
    size_t way = wall_below(&self->random, 16);
    void *at;

    if (way == 0 && self->count > 0) {
        return wall_grow(self, size);
    }
    if (way == 1 && size <= 4096) {
        return wall_bulk(self, size);
    }
    if (way == 2) {
        return wall_aligned(self, size);
    }
    wall_doing(self, way == 3 ? "calloc" : "malloc", size);
    at = way == 3 ? hak_region_calloc(wall.region, 1, size) : hak_region_malloc(wall.region, size);
    if (at == NULL) {
        return false;
    }
    if (way == 3) {
        wall_zeroed(at, size);
    }
    wall_added(self, at, size);
    return true;
}

/* ---- the stash ---- */

/* Into the stash what finds room there; true where it did. */
static inline bool wall_give(const struct wall_object *object)
{
    pthread_mutex_lock(&wall.lock);
    bool room = wall.stashed < WALL_STASH;
    if (room) {
        wall.stash[wall.stashed++] = *object;
    }
    pthread_mutex_unlock(&wall.lock);
    return room;
}

static inline bool wall_take(struct wall_object *object, uint64_t *random)
{
    pthread_mutex_lock(&wall.lock);
    bool some = wall.stashed > 0;
    if (some) {
        size_t which = wall_below(random, wall.stashed);
        *object = wall.stash[which];
        wall.stash[which] = wall.stash[--wall.stashed];
    }
    pthread_mutex_unlock(&wall.lock);
    return some;
}

/* What a reclaimer may do: free some, a lot or nothing; ask; allocate; resize; say it is idle. */
static inline void wall_reclaim(hak_region *region, size_t size_bytes, void *argument)
{
    static _Thread_local uint64_t random = 1;
    struct wall_object object;
    struct hak_error error;
    size_t freed = 0;

    WALL_CHECK(argument == &wall && size_bytes > 0);
    WALL_CHECK(region == (wall.region != NULL ? wall.region : hak_region_default()));
    atomic_fetch_add(&wall.reclaimer_calls, 1);
    size_t most = wall_below(&random, 3) * 40;
    while (freed < most && wall_take(&object, &random)) {
        wall_free(&object, &random);
        freed++;
    }
    atomic_fetch_add(&wall.reclaimer_frees, freed);
    if (wall_one_in(&random, 4)) {
        hak_thread_idle();
        (void)hak_last_error(&error);
    }
    if (wall_one_in(&random, 4)) {
        object.size = wall_size(&random, MIX_CLASSES);
        object.at = hak_region_malloc(wall.region, object.size);
        object.tag = atomic_fetch_add(&wall.tags, 1);
        if (object.at != NULL) {
            wall_contents(&object, object.size, true);
            if (!wall_give(&object)) {
                wall_free(&object, &random);
            }
        }
    }
}

/* ---- a thread ---- */

static inline void wall_fill(struct wall_thread *self, enum wall_mix mix)
{
    unsigned extra = 0;
    size_t end = self->count + self->most;

    while (self->count < end && extra < WALL_EXTRA && !atomic_load(&wall.broken)) {
        if (!wall_get(self, extra == 0 ? mix : MIX_CLASSES)) {
            WALL_CHECK(errno == ENOMEM);
            self->failures++;
            extra++;
        }
    }
}

/* Frees about so many in a hundred: from the end, from the beginning, or here and there; one in
 * ten of them goes to the stash instead. */
static inline void wall_empty(struct wall_thread *self, unsigned percent)
{
    size_t goal = self->count - self->count * percent / 100;
    unsigned order = (unsigned)wall_below(&self->random, 3);

    wall_doing(self, "free", percent);
    if (order == 1) {
        for (size_t low = 0, high = self->count; low + 1 < high; low++, high--) {
            struct wall_object other = self->objects[low];
            self->objects[low] = self->objects[high - 1];
            self->objects[high - 1] = other;
        }
    }
    while (self->count > goal) {
        size_t which = order == 2 ? wall_below(&self->random, self->count) : self->count - 1;
        struct wall_object object = self->objects[which];
        self->objects[which] = self->objects[--self->count];
        if (percent == 0 || !wall_one_in(&self->random, 10) || !wall_give(&object)) {
            wall_free(&object, &self->random);
        }
    }
}

static inline void wall_consume(struct wall_thread *self)
{
    struct wall_object object;
    size_t most = wall_below(&self->random, 500);

    wall_doing(self, "free from the stash", most);
    while (most-- > 0 && wall_take(&object, &self->random)) {
        wall_free(&object, &self->random);
    }
}

static inline void *wall_work(void *argument)
{
    struct wall_thread *self = argument;

    for (unsigned round = 0; round < wall.rounds && !atomic_load(&wall.broken); round++) {
        enum wall_mix mix = (enum wall_mix)wall_below(&self->random, MIX_COUNT);
        atomic_store_explicit(&self->round, round, memory_order_relaxed);
        atomic_store_explicit(&self->mix, mix, memory_order_relaxed);
        wall_fill(self, mix);
        wall_empty(self, 10 + (unsigned)wall_below(&self->random, 91));
        wall_consume(self);
        if (wall.idles && wall_one_in(&self->random, 2)) {
            wall_doing(self, "idle", 0);
            hak_thread_idle();
            usleep(200);
        }
    }
    /* What the caches hold stays there until the thread has ended. */
    for (size_t n = 0; n < self->count; n++) {
        if (!wall_give(&self->objects[n])) {
            wall_free(&self->objects[n], &self->random);
        }
    }
    self->count = 0;
    atomic_fetch_add(&wall.failures, self->failures);
    wall_doing(self, "end", 0);
    return NULL;
}

#endif
