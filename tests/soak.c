/* SPDX-License-Identifier: MIT */
/*
 * make soak: phases and mixes for as long as one likes, on 1 to 8 threads, in three regions: the
 * default one, whose memory comes as it is used, a hardened one, and one in adopted memory. Every
 * object carries a pattern of its address, size and number, which is read when it goes and now and
 * then before. Half-way through each phase all threads stand still, with their objects, and every
 * book is walked; after it everything is freed but a standing set of objects, a few of which are
 * replaced, and the regions have to look as they did in the first rounds: use that creeps up, and
 * room that falls to pieces, are findings like a wrong byte.
 *
 * Environment: MINUTES (10; 0.1 will do), SEED. A line a phase on standard output, a summary at the
 * end. Exit status 1 with a FINDING, what it is and how to repeat it, on standard error. Needs less
 * than 1 GiB.
 */
#include "tests/soak_phases.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>

#define STANDING 1500
/* In so many rounds every phase has been in every region: the measure for those that follow. */
#define FIRST_ROUNDS AREAS
/* A phase takes at most so long, and a run has at least so many. */
#define PHASE_MS_MAX 2500
#define PHASES_LEAST (12 * (FIRST_ROUNDS + 1))
#define CHILD_SECONDS 60

/* At rest use may be more than in the first rounds by so much: what replaced objects of the
 * standing set leave of their slabs. */
#define SLACK_SHARE 16
/* The largest free run is at least one part in so many of what is free. It comes and goes: an
 * object of the standing set that was put where a phase had left room lies there until it is
 * replaced. */
#define RUN_SHARE 8
/* Resident memory, all regions together. */
#define RESIDENT_SLACK (64 * MIB)

static void phase_forks(struct lane *lane)
{
    phase_regions(lane);
}

static const struct phase {
    const char *name;
    void (*run)(struct lane *lane);
    bool forks;
} phases[] = {
    {"blocks", phase_blocks, false},         {"exchange", phase_exchange, false},
    {"lives", phase_lives, false},           {"rings", phase_rings, false},
    {"vectors", phase_vectors, false},       {"lifetimes", phase_lifetimes, false},
    {"exhaustion", phase_exhaustion, false}, {"rotation", phase_rotation, false},
    {"resizing", phase_resizing, false},     {"idling", phase_idling, false},
    {"regions", phase_regions, false},       {"forks", phase_forks, true},
};

#define PHASES (sizeof phases / sizeof *phases)
_Static_assert(PHASES *(FIRST_ROUNDS + 1) == PHASES_LEAST, "as many as there are");

static struct piece standing[AREAS][STANDING];
static struct totals {
    uint64_t operations, checks, refused, walks, threads, phases, forks;
} totals;

/* ---- regions --------------------------------------------------------------------------------- */

static struct hak_config config_of(size_t bytes, enum hak_switch prefault, enum hak_switch hardened)
{
    return (struct hak_config){.size_bytes = bytes,
                               .pages = {HAK_PAGES_4K},
                               .prefault = prefault,
                               .misuse = HAK_MISUSE_ABORT,
                               .exhausted = HAK_EXHAUSTED_FAIL,
                               .hardened = hardened};
}

static void open_areas(void)
{
    struct hak_config lazy = config_of(192 * MIB, HAK_OFF, HAK_OFF);
    struct hak_config hardened = config_of(128 * MIB, HAK_ON, HAK_ON);
    struct hak_config adopted = config_of(0, HAK_ON, HAK_OFF);
    size_t length = 66 * MIB, usable = 0;
    void *memory = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct area *areas = soak.areas;

    EXPECT(memory != MAP_FAILED);
    EXPECT(hak_region_init(&lazy) == 0);
    EXPECT(hak_region_create(&hardened, &areas[1].handle) == 0);
    EXPECT(hak_region_adopt(memory, length, -1, &adopted, &areas[2].handle, &usable) == 0);
    areas[0].name = "default";
    areas[1].name = "hardened";
    areas[2].name = "adopted";
    for (unsigned n = 0; n < AREAS; n++) {
        areas[n].heap = areas[n].handle != NULL ? areas[n].handle : hak_region_default();
        areas[n].bytes = areas[n].heap->area.bytes;
    }
}

static bool is_hardened(const struct area *area)
{
    return area->heap->hardened != NULL;
}

/* ---- the standing set ------------------------------------------------------------------------ */

/* About a tenth of the region: small ones, and a few large. The size belongs to the place, so the
 * set is the same however often a piece is replaced. */
static size_t standing_size(const struct area *area, unsigned n)
{
    uint64_t state = n * (uint64_t)977 + soak.seed;
    size_t large = area->bytes / 400, small = 3000;

    return (size_t)(chance(&state) % (n % 100 == 0 ? large : small)) + 1;
}

static void replace_some(struct lane *lane, unsigned every, struct piece *pieces, struct area *area)
{
    for (unsigned n = 0; n < STANDING; n++) {
        struct piece *piece = &pieces[n];
        if (piece->at != NULL) {
            piece_verify(lane, piece);
        }
        if (piece->at == NULL || below(lane, every) == 0) {
            piece_drop(lane, piece);
            EXPECT(piece_get(lane, piece, standing_size(area, n), area));
        }
    }
}

static void replace_standing(struct lane *lane, unsigned every)
{
    for (unsigned a = 0; a < AREAS; a++) {
        replace_some(lane, every, standing[a], &soak.areas[a]);
    }
}

/* ---- at rest --------------------------------------------------------------------------------- */

static size_t resident_bytes(void)
{
    unsigned long total = 0, resident = 0;
    FILE *file = fopen("/proc/self/statm", "r");

    EXPECT(file != NULL && fscanf(file, "%lu %lu", &total, &resident) == 2);
    (void)fclose(file);
    return resident * (size_t)sysconf(_SC_PAGESIZE);
}

/* Every invariant; nobody is at work. */
static void walk(void)
{
    for (unsigned n = 0; n < AREAS; n++) {
        if (!heap_check(soak.areas[n].heap)) {
            finding("the books of region %s do not agree", soak.areas[n].name);
        }
    }
    totals.walks++;
}

static struct hak_stats figures(const struct area *area)
{
    struct hak_stats stats;

    EXPECT(hak_region_stats(area->handle, &stats) == 0);
    EXPECT(stats.misuses == 0);
    EXPECT(stats.free_bytes + stats.slab_bytes + stats.large_bytes == stats.size_bytes);
    return stats;
}

/* Nobody has a cache, and only the standing set lives: compared with the first round. */
static void compare(struct area *area)
{
    struct hak_stats stats = figures(area);
    size_t used = stats.size_bytes - stats.free_bytes, slack = area->bytes / SLACK_SHARE;

    EXPECT(stats.threads == 0 && stats.cached_bytes_max == 0 && stats.boxed_bytes_max == 0);
    if (soak.round < FIRST_ROUNDS) {
        area->used_most = max_size(area->used_most, used);
        return;
    }
    if (used > area->used_most + slack) {
        finding("%s: %zu KiB are in use at rest, %zu in the first rounds", area->name, used / KIB,
                area->used_most / KIB);
    }
    if (stats.largest_free_bytes < stats.free_bytes / RUN_SHARE) {
        finding("%s: of %zu KiB free the largest run is %zu KiB", area->name,
                stats.free_bytes / KIB, stats.largest_free_bytes / KIB);
    }
}

static void rest(struct lane *self)
{
    static size_t resident_most;

    replace_standing(self, 10);
    thread_detach_all();
    walk();
    for (unsigned n = 0; n < AREAS; n++) {
        compare(&soak.areas[n]);
    }
    size_t resident = resident_bytes();
    if (soak.round < FIRST_ROUNDS) {
        resident_most = max_size(resident_most, resident);
    } else if (resident > resident_most + RESIDENT_SLACK) {
        finding("%zu MiB are resident at rest, %zu in the first rounds", resident / MIB,
                resident_most / MIB);
    }
}

/* ---- forks ----------------------------------------------------------------------------------- */

/* A child of a process whose threads are at work: allocates in every region, and what the parent
 * had is as it was. */
static void child(uint64_t seed)
{
    struct lane lane = {.random = seed};
    struct piece pieces[100] = {{0}};

    (void)alarm(CHILD_SECONDS);
    for (unsigned n = 0; n < 1000; n++) {
        struct piece *piece = &pieces[below(&lane, 100)];
        piece_drop(&lane, piece);
        (void)piece_get(&lane, piece, below(&lane, 3000) + 1, &soak.areas[below(&lane, AREAS)]);
    }
    for (unsigned n = 0; n < 100; n++) {
        piece_drop(&lane, &pieces[n]);
    }
    for (unsigned a = 0; a < AREAS; a++) {
        for (unsigned n = 0; n < STANDING; n += 10) {
            piece_drop(&lane, &standing[a][n]);
        }
    }
    _exit(0);
}

static void fork_once(struct lane *self)
{
    int status = 0;
    (void)fflush(NULL);
    pid_t one = fork();

    EXPECT(one >= 0);
    if (one == 0) {
        child(chance(&self->random));
    }
    while (waitpid(one, &status, 0) < 0) {
        EXPECT(errno == EINTR);
    }
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        finding("a child of fork ended with status %#x", (unsigned)status);
    }
    totals.forks++;
}

/* ---- a phase --------------------------------------------------------------------------------- */

struct start {
    struct lane lane;
    const struct phase *phase;
};

static void *run_lane(void *argument)
{
    struct start *start = argument;

    start->phase->run(&start->lane);
    return NULL;
}

static void wait_until(int64_t when_ms, const struct phase *phase, struct lane *self)
{
    for (int64_t now = now_ms(); now < when_ms; now = now_ms()) {
        if (phase->forks) {
            fork_once(self);
        }
        int64_t left = when_ms - now_ms();
        struct timespec pause = {0, (left < 0 ? 0 : left < 50 ? left : 50) * 1000000};
        (void)nanosleep(&pause, NULL);
    }
}

/* What lanes left in the shared things. */
static void free_shared(struct lane *self)
{
    for (unsigned n = 0; n < SLOTS; n++) {
        piece_drop(self, &slots[n].piece);
    }
    for (unsigned n = 0; n < LANES_MAX; n++) {
        struct ring *ring = &rings[n];
        for (; ring->taken != ring->put; ring->taken++) {
            piece_drop(self, &ring->pieces[ring->taken % RING]);
        }
    }
}

static void add_up(const struct lane *lane)
{
    totals.operations += lane->operations;
    totals.checks += lane->checks;
    totals.refused += lane->refused;
}

static void tell(const struct phase *phase, const struct area *area, unsigned count,
                 uint64_t operations, int64_t took_ms)
{
    const struct hak_stats stats = figures(area);

    (void)printf("round %-3u %-10s %-8s %u threads %10llu ops %7.2f M/s  free %6zu KiB, run %6zu "
                 "KiB, resident %4zu MiB, walks %llu: fine\n",
                 soak.round, phase->name, area->name, count, (unsigned long long)operations,
                 (double)operations / (double)(took_ms + 1) / 1000, stats.free_bytes / KIB,
                 stats.largest_free_bytes / KIB, resident_bytes() / MIB,
                 (unsigned long long)totals.walks);
    (void)fflush(stdout);
}

static void run_phase(const struct phase *phase, struct area *area, int64_t phase_ms,
                      struct lane *self)
{
    static struct start starts[LANES_MAX];
    unsigned count = (unsigned)below(self, LANES_MAX) + 1;
    int64_t begin = now_ms();
    uint64_t before = totals.operations;

    soak.phase = phase->name;
    soak.half_ms = begin + phase_ms / 2;
    soak.until_ms = begin + phase_ms;
    EXPECT(pthread_barrier_init(&soak.meeting, NULL, count + 1) == 0);
    for (unsigned n = 0; n < count; n++) {
        starts[n] = (struct start){.phase = phase};
        starts[n].lane = (struct lane){
            .random = chance(&self->random), .area = area, .index = n, .count = count};
        EXPECT(pthread_create(&starts[n].lane.thread, NULL, run_lane, &starts[n]) == 0);
    }
    wait_until(soak.half_ms, phase, self);
    (void)pthread_barrier_wait(&soak.meeting);
    walk(); /* with everything alive */
    (void)pthread_barrier_wait(&soak.meeting);
    wait_until(soak.until_ms, phase, self);
    for (unsigned n = 0; n < count; n++) {
        EXPECT(pthread_join(starts[n].lane.thread, NULL) == 0);
        add_up(&starts[n].lane);
    }
    EXPECT(pthread_barrier_destroy(&soak.meeting) == 0);
    free_shared(self);
    totals.threads += count;
    totals.phases++;
    rest(self);
    tell(phase, area, count, totals.operations - before, now_ms() - begin);
}

/* ---- the whole ------------------------------------------------------------------------------- */

/* Everything is free again, in one piece. */
static void check_end(struct lane *self)
{
    soak.phase = "end";
    for (unsigned a = 0; a < AREAS; a++) {
        struct area *area = &soak.areas[a];
        for (unsigned n = 0; n < STANDING; n++) {
            piece_drop(self, &standing[a][n]);
        }
        thread_detach_all();
        struct hak_stats stats = figures(area);
        if (!is_hardened(area)) {
            EXPECT(stats.free_bytes == stats.size_bytes);
            EXPECT(stats.largest_free_bytes == stats.size_bytes);
        }
        void *nearly_all = hak_region_malloc(area->handle, area->bytes / 100 * 90);
        EXPECT(nearly_all != NULL);
        hak_region_free(area->handle, nearly_all);
    }
    walk();
    EXPECT(hak_region_destroy(soak.areas[2].handle) == 0);
    EXPECT(hak_region_destroy(soak.areas[1].handle) == 0);
    EXPECT(hak_region_fini() == 0);
}

/*
 * For the soak's own test (SOAK_SPOIL): 1 changes a byte of an object behind its back, 2 forgets
 * objects of more bytes than use may creep up by. After the first rounds, once.
 */
static void spoil(struct lane *self)
{
    const char *text = getenv("SOAK_SPOIL");
    struct area *area = &soak.areas[2];
    struct piece lost;

    if (text == NULL || soak.round != FIRST_ROUNDS) {
        return;
    }
    if (*text == '1') {
        standing[1][7].at[0] ^= 1;
        return;
    }
    for (size_t bytes = 0; bytes < area->bytes / SLACK_SHARE * 2; bytes += 300 * KIB) {
        (void)piece_get(self, &lost, 300 * KIB, area);
    }
}

static void choose_seed(void)
{
    const char *text = getenv("SEED");
    struct timespec now;

    (void)clock_gettime(CLOCK_REALTIME, &now);
    soak.seed = text != NULL && *text != '\0' ? strtoull(text, NULL, 0)
                                              : (uint64_t)now.tv_sec ^ (uint64_t)getpid() << 20;
}

static int64_t run_ms(void)
{
    const char *text = getenv("MINUTES");
    char *end = NULL;
    double minutes = text != NULL && *text != '\0' ? strtod(text, &end) : 10;

    if (!(minutes > 0 && minutes < 1e6) || (end != NULL && *end != '\0')) {
        (void)fprintf(stderr, "soak: MINUTES=%s: a number above 0 is wanted\n", text);
        exit(2);
    }
    return (int64_t)(minutes * 60000);
}

int main(void)
{
    int64_t begin = now_ms(), all_ms = run_ms();
    int64_t phase_ms = all_ms / PHASES_LEAST;

    phase_ms = phase_ms > PHASE_MS_MAX ? PHASE_MS_MAX : phase_ms < 20 ? 20 : phase_ms;
    choose_seed();
    (void)printf("soak: %.1f minutes, SEED=%llu\n", (double)all_ms / 60000,
                 (unsigned long long)soak.seed);
    struct lane self = {.random = soak.seed};
    soak.phase = "start";
    open_areas();
    replace_standing(&self, 1);
    for (; soak.round <= FIRST_ROUNDS || now_ms() - begin < all_ms; soak.round++) {
        spoil(&self);
        for (size_t n = 0; n < PHASES; n++) {
            run_phase(&phases[n], &soak.areas[(soak.round + n) % AREAS], phase_ms, &self);
        }
    }
    check_end(&self);
    add_up(&self);
    (void)printf("soak: %llu operations, %llu contents checked, %llu allocations refused, %llu "
                 "phases in %u rounds, %llu threads, %llu forks, %llu walks of every book, %.0f s, "
                 "findings 0\n",
                 (unsigned long long)totals.operations, (unsigned long long)totals.checks,
                 (unsigned long long)totals.refused, (unsigned long long)totals.phases, soak.round,
                 (unsigned long long)totals.threads, (unsigned long long)totals.forks,
                 (unsigned long long)totals.walks, (double)(now_ms() - begin) / 1000);
    return 0;
}
