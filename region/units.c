/* SPDX-License-Identifier: MIT */
/*
 * Free runs of units.
 *
 * Truth and hint. A SuperSlab's taken_units word is the truth; it changes by one atomic step.
 * Beside it the segment keeps, for every length n, the SuperSlabs whose longest free run is n.
 * Whoever changes a word announces the SuperSlab under the length that the word has now; the old
 * announcement is left and taken back by the next search that meets it (it looks at the word, sees
 * another length, clears the bit, and looks again: the bitset's own protocol with "length of the
 * word" in place of "word is not zero"). So a hint may say yes too often, never no for good, and
 * a search for n units takes the shortest run that fits, at the lowest address, in a few steps
 * whatever the region's size. (label UNITS-RUNS: word, then hint / hint, then word; all seq_cst.)
 *
 * Runs over 32 units begin at a SuperSlab: a search for neighbours in the set of wholly free
 * ones, from the top down, so that what is small stays at the bottom and does not settle right
 * behind, or in the place of, an object that grows and moves on. They are claimed word by word in
 * ascending order and rolled back on a conflict. Of several claims that meet, the one that is
 * ahead in address goes on, so somebody succeeds; one that found nothing while others were
 * half-way looks again before it says no.
 *
 * Model: tests/model/units.pml.
 */
#include "region/units.h"

#include "region/giveback.h"
#include "region/hugepages.h"
#include "region/runbits.h"

/* A search that found nothing looks again so often while others' claims of spans are half-way or
 * rolled back, with so many pauses of the processor between. */
#define SPAN_RETRIES 64
#define SPAN_PAUSES 16

/* UNITS-RUNS, one level up: the set, then a look at lengths. */
static void announce_length(struct segment *segment, unsigned length)
{
    if (!((atomic_load_explicit(&segment->lengths, memory_order_seq_cst) >> length) & 1)) {
        atomic_fetch_or_explicit(&segment->lengths, (uint64_t)1 << length, memory_order_seq_cst);
    }
}

static void announce(struct segment *segment, uint32_t superslab, uint32_t free_units)
{
    unsigned length = longest_run(free_units);

    if (length == 0) {
        return;
    }
    bitset_set(&segment->runs[length], superslab);
    announce_length(segment, length);
}

/*
 * After every step that may take a summary of the set back and put it back again (a clear, a
 * search): a search that came in between saw the set as empty and may have taken its length back;
 * who set a bit meanwhile saw both still there. So lengths is one more level of the set, and who
 * puts summaries back goes on up to it.
 */
static void keep_length(struct segment *segment, unsigned length)
{
    const struct bitset *set = &segment->runs[length];

    if (atomic_load_explicit(&set->level[set->level_count - 1][0], memory_order_seq_cst) != 0) {
        announce_length(segment, length);
    }
}

/* Lowest SuperSlab at or above from of those hinted at; BITSET_NONE. */
static size_t find_hint(struct segment *segment, unsigned length, size_t from)
{
    size_t superslab = bitset_find(&segment->runs[length], from);

    keep_length(segment, length);
    return superslab;
}

static size_t find_last_whole(struct segment *segment, size_t below)
{
    size_t superslab = bitset_find_last(&segment->runs[SUPERSLAB_UNITS], below);

    keep_length(segment, SUPERSLAB_UNITS);
    return superslab;
}

/*
 * The hint is wrong, or may be: takes it back, looks at the word, and announces what it says now.
 * Always: whoever changed the word may not have come to it yet, and this hint was the only one.
 */
static void retract(struct segment *segment, uint32_t superslab, unsigned length)
{
    bitset_clear(&segment->runs[length], superslab);
    keep_length(segment, length);
    /* UNITS-RUNS: the hint first, then the word again. */
    announce(segment, superslab,
             registry_free_units(&segment->registry[superslab], memory_order_seq_cst));
}

/* Lowest length of at least count for which there may be a SuperSlab; 0 for none. */
static unsigned next_length(struct segment *segment, unsigned count, size_t *superslab)
{
    /* Each length once: a clearer that is stopped before it takes its summary back makes
     * keep_length announce the length again and again. */
    for (uint64_t left = UINT64_MAX << count;;) {
        uint64_t lengths = atomic_load_explicit(&segment->lengths, memory_order_seq_cst) & left;

        if (lengths == 0) {
            return 0;
        }
        unsigned length = (unsigned)__builtin_ctzll(lengths);
        *superslab = find_hint(segment, length, 0);
        if (*superslab != BITSET_NONE) {
            return length;
        }
        atomic_fetch_and_explicit(&segment->lengths, ~((uint64_t)1 << length),
                                  memory_order_seq_cst);
        *superslab = find_hint(segment, length, 0);
        if (*superslab != BITSET_NONE) {
            atomic_fetch_or_explicit(&segment->lengths, (uint64_t)1 << length,
                                     memory_order_seq_cst);
            return length;
        }
        left &= ~((uint64_t)1 << length);
    }
}

/* Marks units as used at least once; true where none of them was. They are ours. */
static bool touch(struct registry_entry *entry, uint32_t mask)
{
    /* Relaxed: only the owner of a unit changes or reads its bit; taken_units hands it on. */
    uint32_t touched = atomic_load_explicit(&entry->touched_units, memory_order_relaxed) & mask;

    if (touched != mask) {
        atomic_fetch_or_explicit(&entry->touched_units, mask, memory_order_relaxed);
    }
    return touched == 0;
}

static void count_taken(struct segment *segment, size_t count)
{
    atomic_fetch_sub_explicit(&segment->free_unit_count, count, memory_order_relaxed);
}

/* Takes a run out of one SuperSlab where it has one at an allowed place. */
static bool take_run(struct segment *segment, uint32_t superslab, unsigned count, uint32_t places,
                     unsigned *first)
{
    _Atomic uint32_t *word = &segment->registry[superslab].taken_units;
    uint32_t before = atomic_load_explicit(word, memory_order_seq_cst);

    for (;;) {
        uint32_t starts = run_starts(~before, count) & places;
        if (starts == 0) {
            return false;
        }
        *first = (unsigned)__builtin_ctz(starts);
        uint32_t after = before | unit_mask(*first, count);
        if (atomic_compare_exchange_weak_explicit(word, &before, after, memory_order_seq_cst,
                                                  memory_order_seq_cst)) {
            announce(segment, superslab, ~after);
            if (before == 0) {
                giveback_opened(segment, superslab);
            }
            return true;
        }
    }
}

static unit_t taken(struct segment *segment, size_t superslab, unsigned first, size_t count,
                    bool *untouched)
{
    bool fresh = touch(&segment->registry[superslab], unit_mask(first, (unsigned)count));

    if (untouched != NULL) {
        *untouched = fresh;
    }
    count_taken(segment, count);
    return (unit_t)((segment->first_superslab + superslab) * SUPERSLAB_UNITS + first);
}

static unit_t acquire_run(struct segment *segment, unsigned count, bool *untouched)
{
    size_t superslab;
    unsigned length;
    unsigned first;

    while ((length = next_length(segment, count, &superslab)) != 0) {
        uint32_t now = registry_free_units(&segment->registry[superslab], memory_order_seq_cst);
        if (longest_run(now) != length) {
            retract(segment, (uint32_t)superslab, length);
        } else if (take_run(segment, (uint32_t)superslab, count, ALL_UNITS, &first)) {
            return taken(segment, superslab, first, count, untouched);
        }
    }
    return UNIT_NONE;
}

/*
 * Aligned to more than a unit and no more than a SuperSlab: any SuperSlab whose longest run is
 * count + alignment - 1 units will do; shorter ones may. The longest lengths are tried first,
 * then every candidate once, at the cost of a walk over the segment's partly free SuperSlabs.
 */
static unit_t acquire_aligned_run(struct segment *segment, unsigned count, unsigned alignment_units,
                                  bool *untouched)
{
    uint32_t places = 0;
    unsigned first;

    for (unsigned at = 0; at < SUPERSLAB_UNITS; at += alignment_units) {
        places |= (uint32_t)1 << at;
    }
    unsigned sure = count + alignment_units - 1;
    size_t superslab;
    while (sure <= SUPERSLAB_UNITS) {
        unsigned length = next_length(segment, sure, &superslab);
        if (length == 0) {
            break;
        }
        if (take_run(segment, (uint32_t)superslab, count, places, &first)) {
            return taken(segment, superslab, first, count, untouched);
        }
        retract(segment, (uint32_t)superslab, length);
    }
    for (unsigned length = SUPERSLAB_UNITS; length >= count; length--) {
        superslab = find_hint(segment, length, 0);
        while (superslab != BITSET_NONE) {
            if (take_run(segment, (uint32_t)superslab, count, places, &first)) {
                return taken(segment, superslab, first, count, untouched);
            }
            superslab = find_hint(segment, length, superslab + 1);
        }
    }
    return UNIT_NONE;
}

/* One SuperSlab's part of a longer claim: these units if all are free. */
static bool take_exactly(struct segment *segment, uint32_t superslab, uint32_t mask)
{
    _Atomic uint32_t *word = &segment->registry[superslab].taken_units;
    uint32_t before = atomic_load_explicit(word, memory_order_seq_cst);

    while ((before & mask) == 0) {
        if (atomic_compare_exchange_weak_explicit(word, &before, before | mask,
                                                  memory_order_seq_cst, memory_order_seq_cst)) {
            if (before == 0) {
                /* Now, not by the next search: a span has thousands of these. */
                retract(segment, superslab, SUPERSLAB_UNITS);
                giveback_opened(segment, superslab);
            } else {
                announce(segment, superslab, ~(before | mask));
            }
            return true;
        }
    }
    return false;
}

/* Units counted from the segment's first. How many SuperSlabs are wholly free by it. */
static size_t give_back(struct segment *segment, size_t first, size_t count)
{
    size_t emptied = 0;

    while (count > 0) {
        size_t part;
        uint32_t mask = part_mask(first, count, &part);
        uint32_t superslab = (uint32_t)(first / SUPERSLAB_UNITS);
        /* seq_cst for UNITS-RUNS; as a release it hands what the units' tables hold to the next. */
        uint32_t left = atomic_fetch_and_explicit(&segment->registry[superslab].taken_units, ~mask,
                                                  memory_order_seq_cst) &
                        ~mask;
        announce(segment, superslab, ~left);
        if (left == 0) {
            giveback_emptied(segment, superslab);
            emptied++;
        }
        first += part;
        count -= part;
    }
    return emptied;
}

bool units_claim_free(struct segment *segment, uint32_t superslab, unsigned first, unsigned count)
{
    return take_exactly(segment, superslab, unit_mask(first, count));
}

void units_return_free(struct segment *segment, uint32_t superslab, unsigned first, unsigned count)
{
    give_back(segment, (size_t)superslab * SUPERSLAB_UNITS + first, count);
}

bool units_claim_superslab(struct segment *segment, uint32_t superslab)
{
    return units_claim_free(segment, superslab, 0, SUPERSLAB_UNITS);
}

void units_return_superslab(struct segment *segment, uint32_t superslab)
{
    units_return_free(segment, superslab, 0, SUPERSLAB_UNITS);
}

static bool take_span(struct segment *segment, size_t first, size_t count)
{
    size_t done = 0;

    atomic_fetch_add_explicit(&segment->spans_in_flight, 1, memory_order_seq_cst);
    while (done < count) {
        size_t part;
        uint32_t mask = part_mask(first + done, count - done, &part);
        if (!take_exactly(segment, (uint32_t)((first + done) / SUPERSLAB_UNITS), mask)) {
            break;
        }
        done += part;
    }
    if (done < count && done > 0) {
        give_back(segment, first, done);
        atomic_fetch_add_explicit(&segment->spans_rolled_back, 1, memory_order_seq_cst);
    }
    atomic_fetch_sub_explicit(&segment->spans_in_flight, 1, memory_order_seq_cst);
    return done == count;
}

/* The last SuperSlab not above at whose address is a multiple of so many. BITSET_NONE: none. */
static size_t aligned_down(const struct segment *segment, size_t at, size_t step)
{
    /* Alignment is one of addresses, not of numbers in the segment. */
    size_t over = ((segment->base >> SUPERSLAB_LOG2) + at) % step;

    return over <= at ? at - over : BITSET_NONE;
}

/*
 * The highest SuperSlab below a bound, at an aligned place, of a run of whole free ones that are
 * followed by tail free units; BITSET_NONE. A run shorter than a SuperSlab (aligned to more than
 * one) takes a whole one. *next: the bound for another search.
 */
static size_t find_span(struct segment *segment, size_t below, size_t superslabs, size_t tail,
                        size_t step, size_t *next)
{
    struct bitset *whole = &segment->runs[SUPERSLAB_UNITS];
    size_t top = find_last_whole(segment, below);

    while (top != BITSET_NONE) {
        size_t bottom = top;
        while (bottom > 0 && top - bottom < superslabs + step && bitset_test(whole, bottom - 1)) {
            bottom--; /* no further than what will surely do */
        }
        /* The tail lies above the run, or in its last SuperSlab. */
        size_t most = top + (tail_free(segment, top + 1, tail) ? 1 : 0);
        size_t at = most >= superslabs ? aligned_down(segment, most - superslabs, step)
                                       : BITSET_NONE;
        if (at != BITSET_NONE && at >= bottom) {
            if (tail_free(segment, at + superslabs, tail)) {
                *next = at + superslabs - 1;
                return at;
            }
            bottom = top; /* the set says of the last one what its word does not: without it */
        }
        top = bottom > 0 ? find_last_whole(segment, bottom) : BITSET_NONE;
    }
    return BITSET_NONE;
}

static unit_t acquire_span_once(struct segment *segment, size_t count, size_t step)
{
    size_t superslabs = max_size(1, count / SUPERSLAB_UNITS);
    size_t tail = count > SUPERSLAB_UNITS ? count % SUPERSLAB_UNITS : 0;
    size_t below = segment->superslab_count;
    size_t at = find_span(segment, below, superslabs, tail, step, &below);

    while (at != BITSET_NONE) {
        /* A look first: a hopeless claim would hide free units from others for a while. */
        if (span_free(segment, at * SUPERSLAB_UNITS, count) &&
            take_span(segment, at * SUPERSLAB_UNITS, count)) {
            return (unit_t)((segment->first_superslab + at) * SUPERSLAB_UNITS);
        }
        for (size_t s = at; s < at + superslabs; s++) {
            uint32_t now = registry_free_units(&segment->registry[s], memory_order_seq_cst);
            if (now != ALL_UNITS && bitset_test(&segment->runs[SUPERSLAB_UNITS], s)) {
                retract(segment, (uint32_t)s, SUPERSLAB_UNITS);
            }
        }
        at = find_span(segment, below, superslabs, tail, step, &below);
    }
    return UNIT_NONE;
}

static unit_t acquire_span(struct region *region, struct segment *segment, size_t count,
                           size_t step, bool *untouched)
{
    unit_t unit = acquire_span_once(segment, count, step);

    if (unit == UNIT_NONE) {
        return unit;
    }
    bool fresh = true;
    for (size_t done = 0, part; done < count; done += part) {
        uint32_t mask = part_mask(done, count - done, &part);
        fresh &= touch(region_entry(region, (unit_t)(unit + done)), mask);
    }
    if (untouched != NULL) {
        *untouched = fresh;
    }
    count_taken(segment, count);
    return unit;
}

static unit_t acquire(struct region *region, struct segment *segment, size_t count,
                      size_t alignment, bool *untouched)
{
    size_t alignment_units = alignment >> UNIT_LOG2;

    if (count > (size_t)segment->superslab_count * SUPERSLAB_UNITS) {
        return UNIT_NONE;
    }
    if (count > SUPERSLAB_UNITS || alignment_units > SUPERSLAB_UNITS) {
        size_t step = max_size(1, alignment_units / SUPERSLAB_UNITS);
        return acquire_span(region, segment, count, step, untouched);
    }
    if (alignment_units > 1) {
        return acquire_aligned_run(segment, (unsigned)count, (unsigned)alignment_units, untouched);
    }
    return acquire_run(segment, (unsigned)count, untouched);
}

/*
 * A search that found nothing looks again where a claim of a span was half-way: what that held may
 * have come back. It gives up after some tens of microseconds; the claimer may be stopped (a
 * debugger, a starved priority).
 */
static unit_t acquire_beside_spans(struct region *region, struct segment *segment, size_t count,
                                   size_t alignment, bool *untouched)
{
    for (unsigned retries = 0;; retries++) {
        uint32_t before = atomic_load_explicit(&segment->spans_rolled_back, memory_order_seq_cst);
        unit_t unit = acquire(region, segment, count, alignment, untouched);

        if (likely(unit != UNIT_NONE) || retries == SPAN_RETRIES ||
            (atomic_load_explicit(&segment->spans_in_flight, memory_order_seq_cst) == 0 &&
             atomic_load_explicit(&segment->spans_rolled_back, memory_order_seq_cst) == before)) {
            return unit;
        }
        for (unsigned pause = 0; pause < SPAN_PAUSES; pause++) {
            cpu_relax();
        }
    }
}

unit_t units_acquire(struct region *region, struct segment *segment, size_t count, size_t alignment,
                     bool *untouched)
{
    uint64_t mark = giveback_mark(segment);
    unit_t unit = acquire_beside_spans(region, segment, count, alignment, untouched);

    if (unlikely(unit == UNIT_NONE) && giveback_met(segment, mark)) {
        giveback_hold(segment);
        unit = acquire_beside_spans(region, segment, count, alignment, untouched);
        giveback_resume(segment);
    }
    if (unit != UNIT_NONE) {
        hugepages_step(segment);
        giveback_step(region, segment, 0);
    }
    return unit;
}

bool units_acquire_at(struct segment *segment, unit_t first, size_t count)
{
    size_t at = first - (size_t)segment->first_superslab * SUPERSLAB_UNITS;
    size_t end = (size_t)segment->superslab_count * SUPERSLAB_UNITS;

    /* at wraps to a huge number below the segment. */
    if (at >= end || count > end - at || !span_free(segment, at, count) ||
        !take_span(segment, at, count)) {
        return false;
    }
    for (size_t done = 0, part; done < count; done += part) {
        uint32_t mask = part_mask(at + done, count - done, &part);
        touch(&segment->registry[(at + done) / SUPERSLAB_UNITS], mask);
    }
    count_taken(segment, count);
    hugepages_step(segment);
    return true;
}

void units_release(struct region *region, unit_t first, size_t count)
{
    struct segment *segment = region_segment_of(region, first);

    /* Counted first: whoever takes them at once subtracts. Relaxed: a figure. */
    atomic_fetch_add_explicit(&segment->free_unit_count, count, memory_order_relaxed);
    size_t emptied = give_back(segment, first - (size_t)segment->first_superslab * SUPERSLAB_UNITS,
                               count);
    if (emptied != 0) {
        giveback_step(region, segment, emptied);
    }
}

size_t units_largest_run(struct segment *segment)
{
    size_t most = 0;

    for (size_t at = find_hint(segment, SUPERSLAB_UNITS, 0); at != BITSET_NONE;) {
        size_t end = at;
        /* The set is a hint; the words are not. */
        while (end < segment->superslab_count &&
               registry_free_units(&segment->registry[end], memory_order_relaxed) == ALL_UNITS) {
            end++;
        }
        size_t tail = 0;
        while (end > at && tail < SUPERSLAB_UNITS && tail_free(segment, end, tail + 1)) {
            tail++;
        }
        most = max_size(most, (end - at) * SUPERSLAB_UNITS + tail);
        at = find_hint(segment, SUPERSLAB_UNITS, end + 1);
    }
    for (unsigned length = SUPERSLAB_UNITS - 1; most == 0 && length > 0; length--) {
        for (size_t at = find_hint(segment, length, 0); at != BITSET_NONE;
             at = find_hint(segment, length, at + 1)) {
            uint32_t now = registry_free_units(&segment->registry[at], memory_order_relaxed);
            if (longest_run(now) >= length) {
                most = length;
                break;
            }
        }
    }
    return most;
}

void units_mend(struct segment *segment)
{
    for (uint32_t s = 0; s < segment->superslab_count; s++) {
        uint32_t now = registry_free_units(&segment->registry[s], memory_order_seq_cst);
        if (now != 0) {
            announce(segment, s, now);
        }
    }
}

void units_recount(struct segment *segment)
{
    uint64_t count = 0;

    /* Relaxed, all of it: nobody else is at work. */
    for (uint32_t s = 0; s < segment->superslab_count; s++) {
        uint32_t now = registry_free_units(&segment->registry[s], memory_order_relaxed);
        unsigned length = longest_run(now);
        count += popcount64(now);
        if (length > 0 && !bitset_test(&segment->runs[length], s)) {
            bitset_set(&segment->runs[length], s);
        }
    }
    for (unsigned length = 1; length < RUN_LENGTHS; length++) {
        bitset_mend(&segment->runs[length]);
    }
    /* It may say yes too often. */
    atomic_store_explicit(&segment->lengths, ((uint64_t)1 << RUN_LENGTHS) - 2,
                          memory_order_relaxed);
    atomic_store_explicit(&segment->free_unit_count, count, memory_order_relaxed);
}

void units_open(struct segment *segment, bool zeroed)
{
    for (uint32_t s = 0; !zeroed && s < segment->superslab_count; s++) {
        atomic_store_explicit(&segment->registry[s].touched_units, ALL_UNITS, memory_order_relaxed);
    }
    bitset_fill(&segment->runs[SUPERSLAB_UNITS]);
    atomic_store_explicit(&segment->lengths, (uint64_t)1 << SUPERSLAB_UNITS, memory_order_relaxed);
    atomic_store_explicit(&segment->free_unit_count,
                          (uint64_t)segment->superslab_count * SUPERSLAB_UNITS,
                          memory_order_release);
}

bool units_check(struct segment *segment)
{
    uint64_t free_units = 0;

    for (uint32_t s = 0; s < segment->superslab_count; s++) {
        uint32_t word = registry_free_units(&segment->registry[s], memory_order_acquire);
        unsigned length = longest_run(word);
        free_units += popcount64(word);
        if (length > 0 && (!bitset_test(&segment->runs[length], s) ||
                           !((atomic_load(&segment->lengths) >> length) & 1))) {
            return false;
        }
    }
    for (unsigned length = 0; length < RUN_LENGTHS; length++) {
        if (!bitset_check(&segment->runs[length])) {
            return false;
        }
    }
    return free_units == atomic_load_explicit(&segment->free_unit_count, memory_order_acquire);
}
