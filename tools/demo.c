/* SPDX-License-Identifier: MIT */
/*
 * hakmem at work on this machine, in under a minute.
 *
 * Sets a region up on huge pages (borrowed from the kernel for the run where it may), pins a worker
 * to each processor, and has the workers replace objects at random, free each other's objects, time
 * every single call, and use every size. libc's malloc does the same in turns. Then prints what
 * came of it. Ends with 1 and one clear line if a worker went to the kernel in between, by a system
 * call or a page fault, or anything else is not as it should be.
 */
#define _GNU_SOURCE

#include <getopt.h>
#include <numaif.h>
#include <unistd.h>

#include <hakmem.h>

#include "bench/cycles.h"
#include "bench/layers.h"
#include "numa/topology.h"
#include "region/config.h"
#include "region/progress.h"
#include "tools/demo.h"

#define MIB ((size_t)1 << 20)
#define GIB ((size_t)1 << 30)
#define ROUNDS 5u
#define ROUND_MILLISECONDS 350u
#define WARM_UP_MILLISECONDS 100u
#define REGION_LEAST (128 * MIB)
#define REGION_USUAL (512 * MIB)
#define REGION_A_WORKER (32 * MIB)
#define SAMPLED_OBJECTS 1024u

enum { HAKMEM, LIBC, CREWS };

/* What the command line asks for. */
struct wish {
    size_t bytes; /* of the region; 0: as the machine and the workers suggest */
    bool progress;
};

struct figures {
    double mixed[CREWS][ROUNDS], foreign[CREWS][ROUNDS]; /* operations a second */
    struct layers layers;                                /* of the last mixed round */
    struct hak_stats busy;                               /* with all objects held */
    unsigned long sampled, at_home;
};

static struct demo_crew crews[CREWS];

static size_t region_bytes(unsigned workers)
{
    size_t bytes = max_size(REGION_USUAL, workers * REGION_A_WORKER);
    size_t affordable = round_down(pages_available_bytes() / 4, HAK_SUPERSLAB_BYTES);
    return max_size(REGION_LEAST, min_size(bytes, affordable));
}

/* Fault-in is told where somebody asked for it, or would sit before a terminal and wait. */
static void show_progress(bool asked, size_t bytes)
{
    bool waits = bytes > PROGRESS_FROM_BYTES && isatty(STDERR_FILENO) != 0;
    /* Without having been asked, what the environment says has the last word. */
    if ((asked || waits) && setenv("HAKMEM_PROGRESS", "1", asked) != 0)
        bench_fail("demo: HAKMEM_PROGRESS: %s", strerror(errno));
}

static void set_region_up(const struct wish *wish, unsigned workers)
{
    static const char *const names[HAK_PAGES_COUNT] = {[HAK_PAGES_1G] = "1 GiB pages",
                                                       [HAK_PAGES_2M] = "2 MiB pages",
                                                       [HAK_PAGES_THP] = "transparent huge pages",
                                                       [HAK_PAGES_4K] = "ordinary 4 KiB pages"};
    char story[512];
    struct hak_stats stats;
    size_t bytes = wish->bytes != 0 ? wish->bytes : region_bytes(workers);
    /* The tables beside the objects take huge pages too. */
    bool huge = pages_borrow(bytes + bytes / 32 + 16 * MIB, story, sizeof story);
    meter_settle_program();
    struct hak_config config = {.size_bytes = bytes, .prefault = HAK_ON};
    show_progress(wish->progress, bytes);
    unsigned at = 0;
    if (huge)
        config.pages[at++] = HAK_PAGES_2M;
    config.pages[at++] = HAK_PAGES_THP;
    config.pages[at] = HAK_PAGES_4K;
    uint64_t start_ns = bench_now_ns();
    if (hak_region_init(&config) != 0) {
        struct hak_error error;
        hak_last_error(&error);
        bench_fail("demo: %s\n%s", error.message, error.remedy);
    }
    double seconds = (double)(bench_now_ns() - start_ns) / 1e9;
    layers_snapshot(&stats);
    printf("hakmem %s: region of %zu MiB on %s (%s), %u node%s, set up in %.2f s, faulted in at "
           "%.1f GiB/s\n",
           hak_version(), stats.size_bytes / MIB, names[stats.pages], story, stats.node_count,
           stats.node_count == 1 ? "" : "s", seconds,
           (double)stats.faultin_bytes / (double)GIB * 1e9 / (double)stats.faultin_ns);
    printf("%u worker%s, each pinned to a processor; hakmem and libc work in turns, %u rounds\n\n",
           workers, workers == 1 ? "" : "s", ROUNDS);
    fflush(stdout);
}

/* ---- the work ------------------------------------------------------------------------------ */

static void clear_histograms(struct demo_crew *crew)
{
    for (unsigned i = 0; i < crew->count; i++) {
        memset(crew->workers[i].mallocs, 0, sizeof(struct histogram));
        memset(crew->workers[i].frees, 0, sizeof(struct histogram));
    }
}

static void warm_up(void)
{
    for (unsigned crew = 0; crew < CREWS; crew++) {
        crew_run(&crews[crew], JOB_FILL, 0);
        crew_run(&crews[crew], JOB_MIXED, WARM_UP_MILLISECONDS);
        crew_run(&crews[crew], JOB_FOREIGN, WARM_UP_MILLISECONDS);
        crew_run(&crews[crew], JOB_LATENCY, WARM_UP_MILLISECONDS);
        clear_histograms(&crews[crew]);
    }
}

static void work(struct figures *figures)
{
    struct hak_stats before, after;
    warm_up();
    for (unsigned round = 0; round < ROUNDS; round++) {
        for (unsigned turn = 0; turn < CREWS; turn++) {
            unsigned crew = (turn + round) % CREWS;
            layers_snapshot(&before);
            /* One malloc and one free a replacement. */
            figures->mixed[crew][round] = 2 * crew_run(&crews[crew], JOB_MIXED, ROUND_MILLISECONDS);
            layers_snapshot(&after);
            if (crew == HAKMEM)
                figures->layers = layers_between(&before, &after, crew_done(&crews[HAKMEM]));
        }
        for (unsigned turn = 0; turn < CREWS; turn++) {
            unsigned crew = (turn + round) % CREWS;
            figures->foreign[crew][round] = crew_run(&crews[crew], JOB_FOREIGN, ROUND_MILLISECONDS);
        }
        for (unsigned turn = 0; turn < CREWS; turn++)
            crew_run(&crews[(turn + round) % CREWS], JOB_LATENCY, ROUND_MILLISECONDS);
    }
    crew_run(&crews[HAKMEM], JOB_SIZES, 0);
}

/* Asks the kernel on which node some of each worker's objects lie. */
static void ask_for_nodes(struct figures *figures)
{
    static struct topology topology;
    static void *addresses[SAMPLED_OBJECTS];
    static int nodes[SAMPLED_OBJECTS];
    if (topology_read(&topology) != 0)
        bench_fail("demo: cannot read the machine's nodes");
    for (unsigned i = 0; i < crews[HAKMEM].count; i++) {
        const struct demo_worker *worker = &crews[HAKMEM].workers[i];
        /* On a node without memory, home is the nearest that has some. */
        int home = topology_nearest(&topology, (int)worker->node, topology_memory_mask(&topology));
        for (size_t at = 0; at < SAMPLED_OBJECTS; at++)
            addresses[at] = worker->slots[at * (DEMO_WORKING_SET / SAMPLED_OBJECTS)];
        if (move_pages(0, SAMPLED_OBJECTS, addresses, NULL, nodes, 0) != 0)
            return; /* a kernel without nodes, or a filter: nothing was sampled */
        for (unsigned at = 0; at < SAMPLED_OBJECTS; at++)
            figures->at_home += nodes[at] == home;
        figures->sampled += SAMPLED_OBJECTS;
    }
}

/* ---- the table ----------------------------------------------------------------------------- */

static void print_throughput(const char *what, const char *unit, double (*rates)[ROUNDS])
{
    double ratios[ROUNDS];
    for (unsigned round = 0; round < ROUNDS; round++)
        ratios[round] = rates[HAKMEM][round] / rates[LIBC][round];
    double ratio = bench_median(ratios, ROUNDS);
    printf("%-32s %-11s %9.1f %9.1f   %.2f (%.2f to %.2f)\n", what, unit,
           bench_median(rates[HAKMEM], ROUNDS) / 1e6, bench_median(rates[LIBC], ROUNDS) / 1e6,
           ratio, ratios[0], ratios[ROUNDS - 1]);
}

static void print_latency(void)
{
    static const double shares[] = {0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999};
    static const char *const names[] = {"50", "90", "99", "99.9", "99.99", "99.999"};
    for (unsigned crew = 0; crew < CREWS; crew++) {
        for (unsigned i = 1; i < crews[crew].count; i++) {
            histogram_merge(crews[crew].workers[0].mallocs, crews[crew].workers[i].mallocs);
            histogram_merge(crews[crew].workers[0].frees, crews[crew].workers[i].frees);
        }
    }
    double rate = cycles_per_ns();
    printf("\nlatency of a call, ns                         malloc                  free\n");
    printf("(timing's own %2.0f ns included)        hakmem      libc      hakmem      libc\n",
           cycles_overhead() / rate);
    const struct demo_worker *ours = &crews[HAKMEM].workers[0];
    const struct demo_worker *theirs = &crews[LIBC].workers[0];
    const struct histogram *columns[] = {ours->mallocs, theirs->mallocs, ours->frees,
                                         theirs->frees};
    for (unsigned i = 0; i < sizeof shares / sizeof shares[0]; i++) {
        printf("  %6s %% of calls take at most  ", names[i]);
        for (unsigned column = 0; column < 4; column++)
            printf("%s%9.0f ", column == 2 ? "  " : "",
                   (double)histogram_percentile(columns[column], shares[i]) / rate);
        printf("\n");
    }
}

static void print_region(const struct hak_stats *busy, const struct hak_stats *after)
{
    double mib = (double)MIB;
    printf("\nregion of %.0f MiB, tables beside it %.1f MiB (%.2f %%)\n",
           (double)busy->size_bytes / mib, (double)busy->metadata_bytes / mib,
           layers_share(busy->metadata_bytes, busy->size_bytes));
    printf("  at work:   %6.1f MiB in slabs, %.1f of them free objects; %.1f free for every size\n",
           (double)busy->slab_bytes / mib, (double)busy->slab_free_bytes / mib,
           (double)busy->free_bytes / mib);
    printf("  afterwards: %.1f MiB free for every size, largest single object %.1f MiB\n",
           (double)after->free_bytes / mib, (double)after->largest_free_bytes / mib);
}

static void print_table(struct figures *figures)
{
    printf("%-44s %9s %9s   %s\n", "throughput of all workers", "hakmem", "libc", "hakmem / libc");
    print_throughput("random mixed, 16 to 1,040 bytes", "M op/s", figures->mixed);
    print_throughput(crews[HAKMEM].count > 1 ? "64 bytes, freed by a neighbour"
                                             : "64 bytes, through a ring",
                     "M frees/s", figures->foreign);
    print_latency();
    printf("\nlayers, in the last round of random mixed\n");
    layers_print(&figures->layers);
    if (figures->sampled != 0)
        printf("\non the worker's own node: %.2f %% of %lu sampled objects\n",
               layers_share(figures->at_home, figures->sampled), figures->sampled);
    else
        printf("\non the worker's own node: this kernel does not tell\n");
}

/* ---- the verdict --------------------------------------------------------------------------- */

/* Prints what the meter counted; 0 when that is nothing. */
static int judge(const struct demo_crew *crew)
{
    uint64_t calls = 0;
    uint64_t faults = 0;
    int last_call = 0;
    for (unsigned i = 0; i < crew->count; i++) {
        const struct meter_probe *probe = &crew->workers[i].probe;
        /* relaxed: the workers have ended. */
        uint64_t own = atomic_load_explicit(&probe->calls, memory_order_relaxed);
        if (own != 0)
            last_call = atomic_load_explicit(&probe->last_call, memory_order_relaxed);
        calls += own;
        faults += probe->faults;
    }
    printf("\nbetween the region's set-up and the end of the work, hakmem's workers, all jobs:\n");
    if (crew->meter_error == 0)
        printf("  system calls  %llu   (counted by seccomp, which saw a deliberate one of each)\n",
               (unsigned long long)calls);
    else
        printf("  system calls  not counted: seccomp's user notification is refused here (%s)\n",
               strerror(-crew->meter_error));
    printf("  page faults   %llu   (counted by getrusage, which saw a deliberate one of each)\n",
           (unsigned long long)faults);
    fflush(stdout);
    if (calls == 0 && faults == 0)
        return 0;
    fprintf(stderr, "demo: failed: %llu system calls (the last: number %d) and %llu page faults ",
            (unsigned long long)calls, last_call, (unsigned long long)faults);
    fprintf(stderr, "where there must be none\n");
    return 1;
}

static int judge_region(const struct hak_stats *after)
{
    if (after->free_bytes == after->size_bytes && after->misuses == 0 && after->exhausted == 0)
        return 0;
    fprintf(stderr,
            "demo: failed: of %zu bytes %zu are free after everything was freed; "
            "bad frees %llu, exhausted %llu\n",
            after->size_bytes, after->free_bytes, (unsigned long long)after->misuses,
            (unsigned long long)after->exhausted);
    return 1;
}

/* ---- the command line ---------------------------------------------------------------------- */

static int print_usage(FILE *out, int status)
{
    fprintf(out, "usage: demo [--size SIZE] [--progress]\n"
                 "Shows hakmem at work on this machine.\n\n"
                 "  --size SIZE  of the region, as of HAKMEM_REGION_SIZE (4G); at least 128M.\n"
                 "               Default: 512M, more for many processors, less for little memory\n"
                 "  --progress   tell how the region is faulted in; by itself above 2G on a\n"
                 "               terminal\n"
                 "  -h, --help   this text\n");
    return status;
}

/* By the parser that the library has for its variable. */
static int take_size(const char *text, struct wish *wish)
{
    struct settings settings;
    struct hak_error error;
    if (setenv("HAKMEM_REGION_SIZE", text, 1) != 0)
        bench_fail("demo: HAKMEM_REGION_SIZE: %s", strerror(errno));
    int code = config_resolve(NULL, &settings, &error);
    if (code != 0) {
        fprintf(stderr, "demo: --size: %s\n", error.message);
        return 2;
    }
    if (settings.size_bytes < REGION_LEAST) {
        fprintf(stderr, "demo: --size %s: the work needs at least 128M\n", text);
        return 2;
    }
    wish->bytes = settings.size_bytes;
    return 0;
}

/* *finished: there is nothing left to do but to end with the status. */
static int read_options(int argc, char **argv, struct wish *wish, bool *finished)
{
    static const struct option options[] = {{"size", required_argument, NULL, 's'},
                                            {"progress", no_argument, NULL, 'p'},
                                            {"help", no_argument, NULL, 'h'},
                                            {NULL, 0, NULL, 0}};
    int option, status = 0;
    *finished = true;
    while ((option = getopt_long(argc, argv, "h", options, NULL)) != -1) {
        if (option == 'h')
            return print_usage(stdout, 0);
        if (option == 'p')
            wish->progress = true;
        else
            status = option == 's' ? take_size(optarg, wish) : print_usage(stderr, 2);
        if (status != 0)
            return status;
    }
    if (optind < argc)
        return print_usage(stderr, 2);
    *finished = false;
    return 0;
}

int main(int argc, char **argv)
{
    static struct figures figures;
    struct wish wish = {0};
    struct hak_stats after;
    cpu_set_t allowed;
    bool finished;
    int status = read_options(argc, argv, &wish, &finished);
    if (finished)
        return status;
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0)
        bench_fail("demo: cannot read the processors allowed: %s", strerror(errno));
    unsigned workers = (unsigned)CPU_COUNT(&allowed);
    workers = workers < BENCH_THREADS_MAX ? workers : BENCH_THREADS_MAX;

    set_region_up(&wish, workers);
    crew_start(&crews[HAKMEM], true, workers);
    crew_start(&crews[LIBC], false, workers);
    work(&figures);
    layers_snapshot(&figures.busy);
    ask_for_nodes(&figures);
    for (unsigned crew = 0; crew < CREWS; crew++) {
        crew_run(&crews[crew], JOB_EMPTY, 0);
        crew_leave(&crews[crew]);
    }
    layers_snapshot(&after);

    print_table(&figures);
    print_region(&figures.busy, &after);
    int failed = judge(&crews[HAKMEM]) + judge_region(&after);
    if (figures.at_home != figures.sampled) {
        fprintf(stderr, "demo: failed: %lu of %lu objects lie on another node\n",
                figures.sampled - figures.at_home, figures.sampled);
        failed++;
    }
    int error = hak_region_fini();
    pages_return();
    if (error != 0)
        bench_fail("demo: failed: the region cannot be given back: %s", strerror(-error));
    return failed == 0 ? 0 : 1;
}
