/* SPDX-License-Identifier: MIT */
/*
 * When memory goes back, and how.
 *
 * Dirty. A SuperSlab that is wholly free and was used is in the segment's dirty set: put there by
 * whoever gives its last unit back, taken out by whoever takes its first. Bits are set after the
 * word became 0 and cleared before anything taken can come back, so a SuperSlab that stays
 * wholly free is in the set once its last giver has come that far. A giver that is overtaken by a
 * taker leaves a bit too many; whoever meets it takes it out (label DIRTY: word, then bit / bit,
 * then word; all seq_cst). The count is raised before a bit is set and lowered after one was
 * cleared: never below the number of bits.
 *
 * A purge claims a few neighbours, all 32 units of each, as any taker would; tells the kernel;
 * notes them untouched, since they read as zeroes again; and gives them back. Nobody can have them
 * meanwhile, and nobody needs a lock. Highest addresses first: allocation takes the lowest.
 *
 * When. Each step follows a SuperSlab that became free, or units that were taken:
 *   - more dirty than a quarter of what is used, and than 32 MiB: down to 3/4 of that limit. Each
 *     SuperSlab that is missed soon afterwards raises the limit by two, to 256 MiB more; that wears
 *     off with time. So a program that frees and takes the same again and again pays for it once;
 *   - idle: once a second half of what lay dirty for the whole second (all of it when that is
 *     little). Memory that is freed and taken again within a second never goes.
 * A step gives back a bounded number of SuperSlabs, and as many as the caller just freed.
 * Never while less than an eighth of the segment is free: it would be needed again at once.
 *
 * Nobody fails for a purge. What it hides is at most PURGE_MOST SuperSlabs, and an eighth of what
 * is free. A search that found nothing while one was under way holds purges off, waits for those
 * that have begun, and looks again (label HOLD: holders, then purges / purges, then holders). A
 * purger that is stopped for an hour (a debugger, a starved priority) keeps what it has claimed:
 * the first search in need waits HOLD_NS for it, then it counts as stuck and is not waited for
 * until another purge has ended; later searches fail as fast as ever. All else stays to be had.
 * Growing in place (units_acquire_at) does not wait: who cannot grow moves.
 */
#include "region/giveback.h"

#include <errno.h>

#include "region/os.h"
#include "region/units.h"

/* SuperSlabs that stay whatever is used: 32 MiB. */
#define KEEP_LEAST 16
/* What was missed raises the limit by no more than this: 256 MiB. */
#define SLACK_MOST 128
/* SuperSlabs of one madvise call; also of one step. */
#define PURGE_MOST 16
/* That few idle SuperSlabs go at once. */
#define IDLE_FEW 4
#define TICK_NS 1000000000U
#define HOLD_NS 100000000U
/* Purges that the kernel refuses in a row (memory is locked) before we ask once a second only. */
#define REFUSALS_MOST 8

#define PURGE_ENDS (((uint64_t)1 << 32) - 1)

/* ---- the dirty set -------------------------------------------------------------------------- */

static size_t dirty_count(const struct segment *segment)
{
    return atomic_load_explicit(&segment->dirty_count, memory_order_relaxed);
}

static bool wholly_free(const struct segment *segment, size_t superslab)
{
    return atomic_load_explicit(&segment->registry[superslab].taken_units, memory_order_seq_cst) ==
           0;
}

/* Memory behind it, as far as its units' owners know. Relaxed: exact once it is claimed. */
static uint32_t touched_units(const struct segment *segment, size_t superslab)
{
    return atomic_load_explicit(&segment->registry[superslab].touched_units, memory_order_relaxed);
}

void giveback_set(struct segment *segment, uint32_t superslab)
{
    if (touched_units(segment, superslab) == 0) {
        return;
    }
    /* Relaxed, here and below: a figure. */
    atomic_fetch_add_explicit(&segment->dirty_count, 1, memory_order_relaxed);
    if (!bitset_set(&segment->giveback.dirty, superslab)) {
        atomic_fetch_sub_explicit(&segment->dirty_count, 1, memory_order_relaxed);
    }
}

void giveback_clear(struct segment *segment, uint32_t superslab)
{
    struct giveback *own = &segment->giveback;

    if (!bitset_clear(&own->dirty, superslab)) {
        return;
    }
    uint32_t left = atomic_fetch_sub_explicit(&segment->dirty_count, 1, memory_order_relaxed) - 1;
    if (left < atomic_load_explicit(&own->low, memory_order_relaxed)) {
        /* Of two at once either may stay: a guess for the next tick. */
        atomic_store_explicit(&own->low, left, memory_order_relaxed);
    }
}

/* The bit is there and the SuperSlab is not free, or not touched. */
static void forget(struct segment *segment, uint32_t superslab)
{
    giveback_clear(segment, superslab);
    /* DIRTY: the bit first, then the word again. */
    if (wholly_free(segment, superslab)) {
        giveback_set(segment, superslab);
    }
}

/* ---- purges --------------------------------------------------------------------------------- */

static uint32_t under_way(const struct segment *segment)
{
    return (uint32_t)atomic_load_explicit(&segment->purges, memory_order_seq_cst);
}

static void end(struct segment *segment)
{
    atomic_fetch_add_explicit(&segment->purges, PURGE_ENDS, memory_order_seq_cst);
    /* Perhaps this was the one. Relaxed: at worst somebody waits once more. */
    if (unlikely(atomic_load_explicit(&segment->giveback.stuck, memory_order_relaxed) != 0)) {
        atomic_store_explicit(&segment->giveback.stuck, 0, memory_order_relaxed);
    }
}

static bool begin(struct segment *segment)
{
    /* HOLD: purges first, then a look at holders. */
    atomic_fetch_add_explicit(&segment->purges, 1, memory_order_seq_cst);
    if (atomic_load_explicit(&segment->giveback.holders, memory_order_seq_cst) == 0) {
        return true;
    }
    end(segment);
    return false;
}

void giveback_hold(struct segment *segment)
{
    struct giveback *own = &segment->giveback;

    /* HOLD: holders first, then a look at purges. */
    atomic_fetch_add_explicit(&own->holders, 1, memory_order_seq_cst);
    if (under_way(segment) == 0) {
        return;
    }
    uint64_t deadline = os_coarse_ns() + HOLD_NS;
    /* Relaxed: what is stuck hides something for long, not this value. */
    while (under_way(segment) > atomic_load_explicit(&own->stuck, memory_order_relaxed)) {
        if (os_coarse_ns() > deadline) {
            atomic_store_explicit(&own->stuck, under_way(segment), memory_order_relaxed);
            break;
        }
        os_yield();
    }
}

void giveback_resume(struct segment *segment)
{
    atomic_fetch_sub_explicit(&segment->giveback.holders, 1, memory_order_seq_cst);
}

/* Claimed SuperSlabs: their memory goes. Returns bytes; 0 where the kernel refuses. */
static size_t discard(struct segment *segment, size_t first, size_t count)
{
    size_t bytes = 0;

    atomic_fetch_add_explicit(&segment->giveback.calls, 1, memory_order_relaxed);
    if (os_discard((void *)(segment->base + (first << SUPERSLAB_LOG2)), count << SUPERSLAB_LOG2) ==
        0) {
        for (size_t s = first; s < first + count; s++) {
            bytes += (size_t)popcount64(touched_units(segment, s)) << UNIT_LOG2;
            /* Relaxed: they are ours; taken_units hands the word on. */
            atomic_store_explicit(&segment->registry[s].touched_units, 0, memory_order_relaxed);
        }
    } else if (count > 1) {
        /* A page that the program has locked spoils it for the others. */
        for (size_t s = first; s < first + count; s++) {
            bytes += discard(segment, s, 1);
        }
    }
    return bytes;
}

/* Locked memory may be unlocked, and what comes after it is not locked: never for good. */
static bool refused_lately(const struct segment *segment)
{
    const struct giveback *own = &segment->giveback;

    /* Relaxed: figures. */
    return atomic_load_explicit(&own->failures, memory_order_relaxed) >= REFUSALS_MOST &&
           os_coarse_ns() < atomic_load_explicit(&own->pause_end_ns, memory_order_relaxed);
}

static void note_outcome(struct segment *segment, uint32_t count, size_t bytes)
{
    struct giveback *own = &segment->giveback;

    /* Relaxed: figures. */
    if (bytes != 0) {
        atomic_fetch_add_explicit(&own->bytes, bytes, memory_order_relaxed);
        atomic_fetch_add_explicit(&own->gone, count, memory_order_relaxed);
        atomic_store_explicit(&own->failures, 0, memory_order_relaxed);
    } else if (atomic_fetch_add_explicit(&own->failures, 1, memory_order_relaxed) + 1 >=
               REFUSALS_MOST) {
        atomic_store_explicit(&own->failures, REFUSALS_MOST, memory_order_relaxed);
        atomic_store_explicit(&own->pause_end_ns, os_coarse_ns() + TICK_NS, memory_order_relaxed);
    }
}

/* Claims up to most neighbours, from the highest down, and gives them back. How many that were;
 * 0 where the highest is not what it seemed. */
static size_t purge_run(struct segment *segment, size_t highest, size_t most, size_t *bytes)
{
    size_t count = 0;

    if (!wholly_free(segment, highest) || touched_units(segment, highest) == 0) {
        forget(segment, (uint32_t)highest);
        return 0;
    }
    while (count < most && count <= highest &&
           bitset_test(&segment->giveback.dirty, highest - count) &&
           touched_units(segment, highest - count) != 0 &&
           units_claim_superslab(segment, (uint32_t)(highest - count))) {
        count++;
    }
    if (count == 0) {
        return 0;
    }
    size_t first = highest + 1 - count;
    size_t gone = discard(segment, first, count);
    for (size_t s = first; s < first + count; s++) {
        units_return_superslab(segment, (uint32_t)s);
    }
    note_outcome(segment, (uint32_t)count, gone);
    *bytes += gone;
    return count;
}

/* A figure that changes meanwhile; so are the decisions made by it. */
static size_t free_units(const struct segment *segment)
{
    return (size_t)atomic_load_explicit(&segment->free_unit_count, memory_order_relaxed);
}

static size_t all_units(const struct segment *segment)
{
    return (size_t)segment->superslab_count * SUPERSLAB_UNITS;
}

static bool scarce(const struct segment *segment)
{
    return free_units(segment) < all_units(segment) / 8;
}

/* Until no more than goal are dirty, at most so many. Returns bytes. */
static size_t purge(struct segment *segment, size_t goal, size_t most)
{
    int saved = errno;
    size_t bytes = 0;
    size_t below = segment->superslab_count;

    while (most > 0 && dirty_count(segment) > goal && !refused_lately(segment) &&
           !scarce(segment)) {
        size_t at = bitset_find_last(&segment->giveback.dirty, below);
        if (at == BITSET_NONE || !begin(segment)) {
            break;
        }
        size_t eighth = max_size(1, free_units(segment) / SUPERSLAB_UNITS / 8);
        size_t dirty = dirty_count(segment);
        size_t over = dirty > goal ? dirty - goal : 1;
        size_t done = purge_run(
            segment, at, min_size(min_size(most, over), min_size(PURGE_MOST, eighth)), &bytes);
        end(segment);
        /* Downwards always, so that this ends, whatever others do meanwhile. */
        below = at + 1 - max_size(done, 1);
        most -= done;
    }
    errno = saved;
    return bytes;
}

/* Free units that were used, of a SuperSlab that others have a part of. */
static size_t purge_parts(struct segment *segment, uint32_t superslab)
{
    struct registry_entry *entry = &segment->registry[superslab];
    uint32_t free_now = registry_free_units(entry, memory_order_seq_cst);
    uint32_t left = free_now != ALL_UNITS ? free_now & touched_units(segment, superslab) : 0;
    size_t bytes = 0;

    while (left != 0 && begin(segment)) {
        unsigned first = (unsigned)__builtin_ctz(left);
        uint32_t above = ~(left >> first);
        unsigned count = above != 0 ? (unsigned)__builtin_ctz(above) : SUPERSLAB_UNITS;
        uint32_t mask = (uint32_t)((((uint64_t)1 << count) - 1) << first);
        left &= ~mask;
        if (units_claim_free(segment, superslab, first, count)) {
            uintptr_t at = segment->base + ((uintptr_t)superslab << SUPERSLAB_LOG2) +
                           ((uintptr_t)first << UNIT_LOG2);
            atomic_fetch_add_explicit(&segment->giveback.calls, 1, memory_order_relaxed);
            if (os_discard((void *)at, (size_t)count << UNIT_LOG2) == 0) {
                bytes += (size_t)count << UNIT_LOG2;
                /* Relaxed: these bits are ours; taken_units hands them on. */
                atomic_fetch_and_explicit(&entry->touched_units, ~mask, memory_order_relaxed);
            }
            units_return_free(segment, superslab, first, count);
        }
        end(segment);
    }
    atomic_fetch_add_explicit(&segment->giveback.bytes, bytes, memory_order_relaxed);
    return bytes;
}

size_t giveback_parts(struct region *region)
{
    int saved = errno;
    size_t bytes = 0;

    for (uint32_t n = 0; n < region->segment_count; n++) {
        struct segment *segment = &region->segments[n];
        for (uint32_t s = 0; giveback_on(segment) && s < segment->superslab_count; s++) {
            bytes += purge_parts(segment, s);
        }
    }
    errno = saved;
    return bytes;
}

/* ---- when ----------------------------------------------------------------------------------- */

/* SuperSlabs that may lie dirty. */
static size_t limit_of(const struct segment *segment)
{
    size_t free_now = min_size(free_units(segment), all_units(segment));

    return max_size(KEEP_LEAST, (all_units(segment) - free_now) / SUPERSLAB_UNITS / 4) +
           min_size(SLACK_MOST,
                    atomic_load_explicit(&segment->giveback.slack, memory_order_relaxed));
}

void giveback_regret(struct segment *segment)
{
    struct giveback *own = &segment->giveback;
    uint32_t gone = atomic_load_explicit(&own->gone, memory_order_relaxed);

    while (gone != 0) {
        if (atomic_compare_exchange_weak_explicit(&own->gone, &gone, gone - 1, memory_order_relaxed,
                                                  memory_order_relaxed)) {
            atomic_fetch_add_explicit(&own->slack, 2, memory_order_relaxed);
            return;
        }
    }
}

/* What was learned wears off: of what went, a half a tick; of the slack, an eighth. */
static void wear_off(struct giveback *own, uint64_t ticks)
{
    uint32_t gone = atomic_load_explicit(&own->gone, memory_order_relaxed);
    uint32_t slack = atomic_load_explicit(&own->slack, memory_order_relaxed);

    for (; ticks > 0 && (gone | slack) != 0; ticks--) {
        gone /= 2;
        slack -= (slack + 7) / 8;
    }
    /* Stores, over what others add now: a guess. */
    atomic_store_explicit(&own->gone, gone, memory_order_relaxed);
    atomic_store_explicit(&own->slack, slack, memory_order_relaxed);
}

/* One caller a second finds out how much has been idle since the last time. */
static void tick(const struct region *region, struct segment *segment)
{
    struct giveback *own = &segment->giveback;
    uint64_t now = os_coarse_ns();
    uint64_t next = atomic_load_explicit(&own->next_tick_ns, memory_order_relaxed);

    if (now < next || !atomic_compare_exchange_strong_explicit(
                          &own->next_tick_ns, &next, now + region->giveback_tick_ns,
                          memory_order_relaxed, memory_order_relaxed)) {
        return;
    }
    wear_off(own, 1 + (now - next) / max_size(1, region->giveback_tick_ns));
    uint32_t dirty = (uint32_t)dirty_count(segment);
    uint32_t idle = atomic_exchange_explicit(&own->low, dirty, memory_order_relaxed);
    idle = (uint32_t)min_size(idle, dirty);
    atomic_store_explicit(&own->due, idle <= IDLE_FEW ? idle : idle / 2, memory_order_relaxed);
}

/* Takes a step's part of what is due. */
static size_t take_due(struct segment *segment)
{
    _Atomic uint32_t *due = &segment->giveback.due;
    uint32_t before = atomic_load_explicit(due, memory_order_relaxed);
    uint32_t part;

    do {
        part = (uint32_t)min_size(before, PURGE_MOST);
    } while (part != 0 &&
             !atomic_compare_exchange_weak_explicit(due, &before, before - part,
                                                    memory_order_relaxed, memory_order_relaxed));
    return part;
}

void giveback_work(struct region *region, struct segment *segment, size_t emptied)
{
    size_t dirty = dirty_count(segment);
    size_t limit = limit_of(segment);

    if (scarce(segment)) {
        return;
    }
    tick(region, segment);
    if (dirty > limit) {
        purge(segment, limit - limit / 4, PURGE_MOST + emptied);
        return;
    }
    size_t part = take_due(segment);
    if (part != 0) {
        purge(segment, dirty > part ? dirty - part : 0, part);
    }
}

size_t giveback_now(struct region *region, size_t keep_bytes)
{
    size_t bytes = 0;

    for (uint32_t n = 0; n < region->segment_count; n++) {
        size_t keep = keep_bytes / region->segment_count / SUPERSLAB_BYTES;
        bytes += purge(&region->segments[n], keep, SIZE_MAX);
    }
    return bytes;
}

/* ---- set-up, figures, fork ------------------------------------------------------------------ */

void giveback_open(struct region *region)
{
    bool on = !region->prefault && !region->adopted && !os_pages_hugetlb(region->pages);

    region->giveback_tick_ns = TICK_NS;
    for (uint32_t n = 0; n < region->segment_count; n++) {
        region->segments[n].giveback.on = on;
    }
}

uint64_t giveback_bytes(const struct region *region)
{
    uint64_t bytes = 0;

    for (uint32_t n = 0; n < region->segment_count; n++) {
        bytes += atomic_load_explicit(&region->segments[n].giveback.bytes, memory_order_relaxed);
    }
    return bytes;
}

uint64_t giveback_calls(const struct region *region)
{
    uint64_t calls = 0;

    for (uint32_t n = 0; n < region->segment_count; n++) {
        calls += atomic_load_explicit(&region->segments[n].giveback.calls, memory_order_relaxed);
    }
    return calls;
}

void giveback_before_fork(struct region *region)
{
    for (uint32_t n = 0; n < region->segment_count; n++) {
        giveback_hold(&region->segments[n]);
    }
}

void giveback_in_parent(struct region *region)
{
    for (uint32_t n = 0; n < region->segment_count; n++) {
        giveback_resume(&region->segments[n]);
    }
}

void giveback_in_child(struct region *region)
{
    for (uint32_t n = 0; n < region->segment_count; n++) {
        struct segment *segment = &region->segments[n];
        /* Relaxed: the child has one thread. Purges and searches of other threads of the parent
         * never end here. */
        atomic_store_explicit(&segment->purges, 0, memory_order_relaxed);
        atomic_store_explicit(&segment->giveback.stuck, 0, memory_order_relaxed);
        atomic_store_explicit(&segment->giveback.holders, 0, memory_order_relaxed);
        /* A child inherits no locks, mlock(2). */
        atomic_store_explicit(&segment->giveback.failures, 0, memory_order_relaxed);
    }
}

void giveback_recount(struct segment *segment)
{
    struct bitset *dirty = &segment->giveback.dirty;

    for (size_t s = 0; giveback_on(segment) && s < segment->superslab_count; s++) {
        if (wholly_free(segment, s) && touched_units(segment, s) != 0 && !bitset_test(dirty, s)) {
            bitset_set(dirty, s);
        }
    }
    bitset_mend(dirty);
    /* Relaxed: nobody else is at work. */
    atomic_store_explicit(&segment->dirty_count, (uint32_t)bitset_count(dirty),
                          memory_order_relaxed);
}

bool giveback_check(struct segment *segment)
{
    struct bitset *dirty = &segment->giveback.dirty;

    if (!bitset_check(dirty) || bitset_count(dirty) != dirty_count(segment) ||
        under_way(segment) != 0 ||
        atomic_load_explicit(&segment->giveback.holders, memory_order_acquire) != 0) {
        return false;
    }
    for (size_t s = 0; giveback_on(segment) && s < segment->superslab_count; s++) {
        if (wholly_free(segment, s) && touched_units(segment, s) != 0 && !bitset_test(dirty, s)) {
            return false;
        }
    }
    return true;
}
