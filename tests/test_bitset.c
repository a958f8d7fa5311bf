/* SPDX-License-Identifier: MIT */
/*
 * The bitset against a plain array of bytes, at sizes around word and level borders, and with
 * several threads: every bit is claimed once, and no bit stays hidden behind a summary.
 */
#include "region/bitset.h"

#include "tests/harness.h"

#include <sched.h>
#include <sys/time.h>

#define CANARY 0xa5
#define THREADS 4

static const size_t sizes[] = {1, 63, 64, 65, 4096, 300000};
#define SIZE_COUNT (sizeof(sizes) / sizeof(*sizes))

struct subject {
    struct bitset set;
    unsigned char *memory;
    unsigned char *model; /* a byte a bit */
    size_t bits, bytes;
};

static struct subject *subject_new(size_t bits)
{
    struct subject *s = calloc(1, sizeof(*s));

    s->bits = bits;
    s->bytes = bitset_bytes(bits);
    CHECK_EQ(s->bytes % CACHE_LINE, 0);
    s->memory = aligned_alloc(CACHE_LINE, s->bytes + CACHE_LINE);
    s->model = calloc(1, bits + 1);
    CHECK(s->memory != NULL && s->model != NULL);
    memset(s->memory, 0, s->bytes);
    memset(s->memory + s->bytes, CANARY, CACHE_LINE);
    bitset_place(&s->set, s->memory, bits);
    return s;
}

static void subject_free(struct subject *s)
{
    free(s->memory);
    free(s->model);
    free(s);
}

static size_t model_find(const struct subject *s, size_t from, int what)
{
    const unsigned char *found = from < s->bits ? memchr(s->model + from, what, s->bits - from)
                                                : NULL;

    return found != NULL ? (size_t)(found - s->model) : BITSET_NONE;
}

static size_t model_find_last(const struct subject *s, size_t below)
{
    const unsigned char *found = memrchr(s->model, 1, min_size(below, s->bits));

    return found != NULL ? (size_t)(found - s->model) : BITSET_NONE;
}

static size_t model_count(const struct subject *s)
{
    size_t count = 0;

    for (size_t n = 0; n < s->bits; n++) {
        count += s->model[n];
    }
    return count;
}

/* With nobody at work every summary bit says exactly whether its word is zero. */
static void check_summaries_exact(const struct subject *s)
{
    const struct bitset *set = &s->set;

    CHECK(bitset_check(set));
    for (unsigned n = 0; n + 1 < set->level_count; n++) {
        for (size_t w = 0; w < set->bit_count[n + 1]; w++) {
            bool any = atomic_load(&set->level[n][w]) != 0;
            bool above = (atomic_load(&set->level[n + 1][w / 64]) >> (w % 64)) & 1;
            CHECK_EQ(any, above);
        }
    }
    for (size_t n = 0; n < CACHE_LINE; n++) {
        CHECK_EQ(s->memory[s->bytes + n], CANARY);
    }
}

static void check_same(struct subject *s)
{
    CHECK_EQ(bitset_count(&s->set), model_count(s));
    for (size_t bit = 0; bit < s->bits; bit++) {
        CHECK_EQ(bitset_test(&s->set, bit), s->model[bit]);
    }
    for (size_t bit = 0; bit + 32 <= s->bits; bit += 32) {
        uint32_t word = bitset_load32(&s->set, bit);
        for (unsigned n = 0; n < 32; n++) {
            CHECK_EQ((word >> n) & 1, s->model[bit + n]);
        }
    }
    check_summaries_exact(s);
}

/* One random operation; setting is favoured by weight in 1/100. */
static void step(struct subject *s, uint64_t *random, unsigned weight)
{
    size_t bit = harness_random(random) % s->bits;
    size_t expected;

    if (harness_random(random) % 100 < weight) {
        CHECK_EQ(bitset_set(&s->set, bit), !s->model[bit]);
        s->model[bit] = 1;
        return;
    }
    switch (harness_random(random) % 5) {
    case 0:
        CHECK_EQ(bitset_clear(&s->set, bit), s->model[bit]);
        s->model[bit] = 0;
        break;
    case 1:
        CHECK_EQ(bitset_find(&s->set, bit), model_find(s, bit, 1));
        break;
    case 2:
        CHECK_EQ(bitset_find_last(&s->set, bit), model_find_last(s, bit));
        break;
    case 3:
        expected = model_find(s, bit, 1);
        CHECK_EQ(bitset_claim(&s->set, bit), expected);
        if (expected != BITSET_NONE) {
            s->model[expected] = 0;
        }
        break;
    default: {
        size_t end = bit + harness_random(random) % (s->bits - bit + 1);
        expected = model_find(s, bit, 0);
        CHECK_EQ(bitset_first_clear(&s->set, bit, end), min_size(expected, end));
    }
    }
}

TEST(random_operations_match_a_plain_model)
{
    static const unsigned weights[] = {3, 30, 50, 90, 10, 1};
    uint64_t random = harness_seed();

    for (size_t n = 0; n < SIZE_COUNT; n++) {
        struct subject *s = subject_new(sizes[n]);
        unsigned steps = sizes[n] > 10000 ? 4000 : 20000;
        for (size_t phase = 0; phase < sizeof(weights) / sizeof(*weights); phase++) {
            for (unsigned i = 0; i < steps; i++) {
                step(s, &random, weights[phase]);
            }
            check_same(s);
        }
        subject_free(s);
    }
}

TEST(a_filled_set_has_every_bit_and_none_beyond)
{
    for (size_t n = 0; n < SIZE_COUNT; n++) {
        struct subject *s = subject_new(sizes[n]);
        size_t bits = sizes[n];
        bitset_fill(&s->set);
        memset(s->model, 1, bits);
        check_same(s);
        CHECK_EQ(bitset_find(&s->set, bits - 1), bits - 1);
        CHECK_EQ(bitset_find(&s->set, bits), BITSET_NONE);
        CHECK_EQ(bitset_first_clear(&s->set, 0, bits), bits);
        for (size_t bit = 0; bit < bits; bit++) {
            CHECK_EQ(bitset_claim(&s->set, 0), bit);
        }
        CHECK_EQ(bitset_claim(&s->set, 0), BITSET_NONE);
        memset(s->model, 0, bits);
        check_same(s);
        subject_free(s);
    }
}

TEST(find_sees_the_next_bit_from_every_position)
{
    uint64_t random = harness_seed() + 1;

    for (size_t n = 0; n < SIZE_COUNT; n++) {
        struct subject *s = subject_new(sizes[n]);
        for (unsigned k = 0; k < 6; k++) {
            size_t bit = harness_random(&random) % sizes[n];
            bitset_set(&s->set, bit);
            s->model[bit] = 1;
        }
        size_t next = BITSET_NONE;
        for (size_t from = sizes[n]; from-- > 0;) {
            next = s->model[from] ? from : next;
            CHECK_EQ(bitset_find(&s->set, from), next);
        }
        CHECK_EQ(bitset_find(&s->set, sizes[n] + 1000), BITSET_NONE);
        size_t last = BITSET_NONE;
        for (size_t below = 0; below <= sizes[n]; below++) {
            CHECK_EQ(bitset_find_last(&s->set, below), last);
            last = below < sizes[n] && s->model[below] ? below : last;
        }
        CHECK_EQ(bitset_find_last(&s->set, sizes[n] + 1000), last);
        CHECK_EQ(bitset_find_last(&s->set, BITSET_NONE), last);
        subject_free(s);
    }
}

TEST(a_summary_that_says_yes_too_often_is_believed_once)
{
    struct subject *s = subject_new(300000);

    bitset_set(&s->set, 299999);
    bitset_set(&s->set, 64 * 70);
    /* As it is where a setter was overtaken by the claim of its bit: announced, and gone. */
    atomic_fetch_and(&s->set.level[0][70], ~(uint64_t)1);
    CHECK_EQ(bitset_find(&s->set, 0), 299999);
    s->model[299999] = 1;
    check_summaries_exact(s);
    subject_free(s);
}

TEST(a_summary_that_says_yes_too_often_is_believed_once_from_above)
{
    struct subject *s = subject_new(300000);

    bitset_set(&s->set, 5);
    bitset_set(&s->set, 64 * 4100);
    bitset_set(&s->set, 64 * 70);
    atomic_fetch_and(&s->set.level[0][4100], 0);
    atomic_fetch_and(&s->set.level[0][70], 0);
    CHECK_EQ(bitset_find_last(&s->set, BITSET_NONE), 5);
    s->model[5] = 1;
    check_summaries_exact(s);
    CHECK(bitset_clear(&s->set, 5));
    CHECK_EQ(bitset_find_last(&s->set, BITSET_NONE), BITSET_NONE);
    subject_free(s);
}

/* ---- several threads ------------------------------------------------------------------------ */

static struct {
    struct subject *subject;
    _Atomic unsigned char *owner; /* 0: in the set */
    _Atomic unsigned ready, number;
    _Atomic uint64_t wins;
    int64_t until_ms;
} shared;

static void start_shared(size_t bits, unsigned milliseconds)
{
    shared.subject = subject_new(bits);
    shared.owner = calloc(bits, 1);
    CHECK(shared.owner != NULL);
    atomic_store(&shared.ready, 0);
    atomic_store(&shared.number, 0);
    atomic_store(&shared.wins, 0);
    shared.until_ms = harness_now_ms() + milliseconds;
}

static void run_shared(void *(*run)(void *))
{
    pthread_t threads[THREADS];

    for (unsigned n = 0; n < THREADS; n++) {
        CHECK_EQ(pthread_create(&threads[n], NULL, run, NULL), 0);
    }
    for (unsigned n = 0; n < THREADS; n++) {
        CHECK_EQ(pthread_join(threads[n], NULL), 0);
    }
}

static void end_shared(void)
{
    free((void *)shared.owner);
    subject_free(shared.subject);
}

static void start_together(void)
{
    atomic_fetch_add(&shared.ready, 1);
    while (atomic_load(&shared.ready) < THREADS) {
        sched_yield();
    }
}

static void *claim_all(void *unused)
{
    struct bitset *set = &shared.subject->set;
    size_t bit;

    (void)unused;
    start_together();
    while ((bit = bitset_claim(set, 0)) != BITSET_NONE) {
        CHECK_EQ(atomic_fetch_add(&shared.owner[bit], 1), 0);
        atomic_fetch_add(&shared.wins, 1);
    }
    return NULL;
}

TEST(threads_that_claim_everything_get_each_bit_once)
{
    for (size_t n = 0; n < SIZE_COUNT; n++) {
        start_shared(sizes[n], 0);
        bitset_fill(&shared.subject->set);
        run_shared(claim_all);
        CHECK_EQ(atomic_load(&shared.wins), sizes[n]);
        CHECK_EQ(bitset_count(&shared.subject->set), 0);
        CHECK(bitset_check(&shared.subject->set));
        end_shared();
    }
}

/* Takes a bit, has it alone for a moment, puts it back. */
static void *pass_around(void *unused)
{
    struct bitset *set = &shared.subject->set;
    unsigned char me = (unsigned char)(atomic_fetch_add(&shared.number, 1) + 1);
    uint64_t random = harness_seed() + me;

    (void)unused;
    start_together();
    while (harness_now_ms() < shared.until_ms) {
        for (unsigned n = 0; n < 256; n++) {
            size_t bit = bitset_claim(set, harness_random(&random) % shared.subject->bits);
            if (bit == BITSET_NONE) {
                continue;
            }
            CHECK_EQ(atomic_exchange(&shared.owner[bit], me), 0);
            CHECK(!bitset_test(set, bit));
            CHECK_EQ(atomic_exchange(&shared.owner[bit], 0), me);
            CHECK(bitset_set(set, bit));
        }
    }
    return NULL;
}

/* Few bits in many words, so that words become empty and full again all the time. */
TEST(bits_passed_around_by_threads_are_never_lost_or_doubled)
{
    static const struct {
        size_t bits, tokens;
    } cases[] = {{65, 2}, {4096, 3}, {4097, 2}, {300000, 5}};

    for (size_t n = 0; n < sizeof(cases) / sizeof(*cases); n++) {
        struct bitset *set;
        size_t found = 0;
        start_shared(cases[n].bits, 400);
        set = &shared.subject->set;
        for (size_t token = 0; token < cases[n].tokens; token++) {
            bitset_set(set, token * (cases[n].bits - 1) / (cases[n].tokens - 1));
        }
        run_shared(pass_around);
        CHECK(bitset_check(set));
        for (size_t at = bitset_find(set, 0); at != BITSET_NONE; at = bitset_find(set, at + 1)) {
            found++;
        }
        CHECK_EQ(found, cases[n].tokens);
        CHECK_EQ(bitset_count(set), cases[n].tokens);
        end_shared();
    }
}

/* Sets and clears bits of its own in words that all threads share. */
static void *toggle_own(void *unused)
{
    struct bitset *set = &shared.subject->set;
    unsigned me = atomic_fetch_add(&shared.number, 1);
    uint64_t random = harness_seed() + me;

    (void)unused;
    start_together();
    while (harness_now_ms() < shared.until_ms) {
        for (unsigned n = 0; n < 256; n++) {
            size_t bit = harness_random(&random) % (shared.subject->bits / THREADS) * THREADS + me;
            CHECK(bitset_set(set, bit));
            CHECK(bitset_test(set, bit));
            size_t found = bitset_find(set, bit);
            CHECK_EQ(found, bit);
            CHECK(bitset_clear(set, bit));
            CHECK(!bitset_clear(set, bit));
        }
    }
    return NULL;
}

TEST(a_bit_just_set_is_found_by_who_set_it)
{
    static const size_t bits[] = {64, 128, 4096, 1 << 17};

    for (size_t n = 0; n < sizeof(bits) / sizeof(*bits); n++) {
        start_shared(bits[n], 300);
        run_shared(toggle_own);
        CHECK_EQ(bitset_count(&shared.subject->set), 0);
        CHECK(bitset_check(&shared.subject->set));
        end_shared();
    }
}

/* ---- at every instruction ------------------------------------------------------------------- */

/*
 * A timer's signal stops the thread wherever it is and its handler acts as another thread would
 * that comes in just there: on few processors such moments are otherwise too rare to be met.
 */
static struct bitset *interrupted;

#define FIRST_BIT ((size_t)64 * 100 + 1)
#define OTHER_BIT ((size_t)64 * 100 + 7)

static void set_other(int unused)
{
    (void)unused;
    bitset_set(interrupted, OTHER_BIT); /* NOLINT(bugprone-signal-handler): it has no lock */
}

static void tick_every(long microseconds)
{
    struct itimerval interval = {{0, microseconds}, {0, microseconds}};

    CHECK_EQ(setitimer(ITIMER_REAL, &interval, NULL), 0);
}

TEST(a_bit_set_at_any_moment_of_a_clear_is_found_afterwards)
{
    struct subject *s = subject_new(64 * 200);
    int64_t until = harness_now_ms() + 500;
    unsigned met = 0;

    interrupted = &s->set;
    signal(SIGALRM, set_other);
    tick_every(30);
    for (unsigned n = 0; n % 1000 != 0 || harness_now_ms() < until; n++) {
        bitset_set(&s->set, FIRST_BIT);
        bitset_clear(&s->set, FIRST_BIT);
        if (bitset_test(&s->set, OTHER_BIT)) {
            size_t found = bitset_find(&s->set, 0);
            CHECK_EQ(found, OTHER_BIT);
            bitset_clear(&s->set, OTHER_BIT);
            met++;
        }
    }
    tick_every(0);
    signal(SIGALRM, SIG_DFL);
    CHECK_GE(met, 10);
    CHECK(bitset_check(&s->set));
    subject_free(s);
}

HARNESS_MAIN()
