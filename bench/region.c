/* SPDX-License-Identifier: MIT */
/*
 * What does a region cost to set up, what do huge pages bring, and what do many addresses or nodes
 * cost?
 *
 *   init     creating and destroying a region on each kind of page      region_init.h
 *   lookup   from a pointer to its class and slab, 1 GiB to 2 TiB       region_lookup.h
 *   access   pointer chasing and random access on each kind of page     region_access.h
 *   free     by the own thread, another one, another node's             region_remote.h
 *
 * Everything that is compared takes turns within a round; the tables give the median of the rounds,
 * with least and most. The same as CSV file (region_cells.h) and as picture (region_plot.h).
 *
 * Memory: one region of --size at a time, a 16th of it for tables of the benchmark's own while it
 * is accessed, and the metadata; the look-ups take about 250 MiB whatever the size. Huge pages are
 * reserved while a region lives on them, where the process may, and given back.
 */
#define _GNU_SOURCE

#include <getopt.h>

#include "bench/region_plot.h"
#include "region/cgroup.h"

#define SIZE_LEAST ((size_t)16 << 20)
/* The places of 64-byte objects are kept in 32 bits. */
#define SIZE_MOST ((size_t)256 << 30)
#define LOOKUP_BYTES ((size_t)256 << 20)

static const char usage[] =
    "usage: region [--size SIZE] [--quick] [--plot FILE.svg] [--csv FILE] [--seed N]\n"
    "  --size   of the regions that are faulted in: 16M to 256G, whole 2 MiB; default 1G, with\n"
    "           --quick 64M. 1 GiB pages take part where it is a multiple of 1G on every node\n"
    "  --quick  fewer rounds and steps: some seconds; for trying it out, not for figures\n"
    "  --plot   where the picture goes; default: beside the program, NAME.svg. Needs gnuplot\n"
    "           (package gnuplot-nox); without it there is none, an error only if it was asked "
    "for\n"
    "  --csv    every figure, with rounds, median, least and most\n"
    "  --seed   of the random orders; default 42\n"
    "Under three minutes, one thread and a half. Root may reserve the huge pages that are "
    "missing;\n"
    "they are given back, whatever ends the run.\n";

struct options {
    const char *plot, *csv;
    size_t size_bytes;
    uint64_t seed;
    bool quick;
};

static size_t size_option(const char *text)
{
    static const char units[] = "KMGT";
    char *end = NULL;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    const char *unit = *end != '\0' ? strchr(units, *end) : NULL;
    unsigned shift = unit != NULL ? 10 * (unsigned)(unit - units + 1) : 0;
    end += unit != NULL;
    if (errno != 0 || end == text || *end != '\0' || *text == '-' ||
        value > (unsigned long long)SIZE_MOST >> shift || (size_t)value << shift < SIZE_LEAST ||
        ((size_t)value << shift) % HAK_SUPERSLAB_BYTES != 0)
        bench_fail("region: --size %s: expected 16M to 256G in whole 2 MiB, such as 512M or 4G",
                   text);
    return (size_t)value << shift;
}

static struct options read_options(int argc, char **argv)
{
    static const struct option known[] = {{"size", required_argument, NULL, 's'},
                                          {"quick", no_argument, NULL, 'q'},
                                          {"plot", required_argument, NULL, 'p'},
                                          {"csv", required_argument, NULL, 'c'},
                                          {"seed", required_argument, NULL, 'e'},
                                          {"help", no_argument, NULL, 'h'},
                                          {NULL, 0, NULL, 0}};
    struct options options = {.seed = 42};
    int option;
    while ((option = getopt_long(argc, argv, "h", known, NULL)) != -1) {
        switch (option) {
        case 's':
            options.size_bytes = size_option(optarg);
            break;
        case 'q':
            options.quick = true;
            break;
        case 'p':
            options.plot = optarg;
            break;
        case 'c':
            options.csv = optarg;
            break;
        case 'e':
            options.seed = bench_number(optarg, 0, UINT64_MAX, "seed");
            break;
        default:
            fputs(usage, option == 'h' ? stdout : stderr);
            exit(option == 'h' ? 0 : 2);
        }
    }
    if (optind < argc) {
        fputs(usage, stderr);
        exit(2);
    }
    if (options.size_bytes == 0)
        options.size_bytes = options.quick ? (size_t)64 << 20 : (size_t)1 << 30;
    return options;
}

/* On the machine, and on the one node that the accesses are made on. */
static void refuse_too_much(const struct region_plan *plan)
{
    uint64_t needed = plan->size_bytes + plan->size_bytes / 16;
    uint64_t there = supply_ordinary(topology_physical(plan->node));
    uint64_t allowed = cgroup_memory_room();
    const char *where = "the node has";
    /* The library's own tables are at most 1.6 % of a region. */
    needed += plan->size_bytes / 50;
    needed = needed > LOOKUP_BYTES ? needed : LOOKUP_BYTES;
    if (allowed < there) {
        there = allowed;
        where = "the control group allows";
    }
    if (there < needed)
        bench_fail("region: a region of %zu MiB needs %llu MiB with its tables, all on node %d; "
                   "%s %llu MiB. Give a smaller --size",
                   plan->size_bytes >> 20, (unsigned long long)needed >> 20, plan->node, where,
                   (unsigned long long)there >> 20);
}

static struct region_plan make_plan(const struct options *options)
{
    static struct topology machine;
    struct region_plan plan = {.size_bytes = options->size_bytes,
                               .cpu = bench_cpu(0),
                               .seed = options->seed,
                               .quick = options->quick};
    int code = topology_read(&machine);
    if (code != 0)
        bench_fail("region: the machine's nodes cannot be read: %s", strerror(-code));
    /* Before this thread is pinned. */
    if (sched_getaffinity(0, sizeof plan.cpus, &plan.cpus) != 0)
        bench_fail("region: the processors allowed cannot be read: %s", strerror(errno));
    plan.nodes = topology_memory_mask(&machine);
    plan.node = topology_nearest(&machine, topology_cpu_node(plan.cpu), plan.nodes);
    if (plan.node < 0)
        bench_fail("region: no node has memory that this process may use");
    return plan;
}

/* The program's own name and place, and ".svg". */
static const char *usual_plot(char *path, size_t bytes)
{
    ssize_t length = readlink("/proc/self/exe", path, bytes - 5);
    if (length <= 0 || (size_t)length >= bytes - 5)
        return NULL;
    memcpy(path + length, ".svg", 5);
    return path;
}

static int write_plot(const struct options *options, const struct region_plan *plan)
{
    char usual[4096];
    const char *path = options->plot != NULL ? options->plot : usual_plot(usual, sizeof usual);
    int code = path != NULL ? plot_write(path, plan) : -ENAMETOOLONG;
    if (code == 0) {
        printf("plot: %s\n", path);
        return 0;
    }
    fprintf(stderr, "region: no plot: %s\n",
            code == -ENOENT ? "gnuplot is not installed (apt-get install gnuplot-nox)"
                            : "gnuplot failed; see its words above");
    return options->plot != NULL ? 1 : 0;
}

int main(int argc, char **argv)
{
    struct options options = read_options(argc, argv);
    struct region_plan plan = make_plan(&options);
    int status = 0;
    refuse_too_much(&plan);
    pool_watch();
    int code = hak_thread_pin(plan.cpu);
    if (code != 0)
        bench_fail("region: cannot pin to processor %d: %s", plan.cpu, strerror(-code));
    printf("region: median (least to most) of the rounds; seed %llu%s\n",
           (unsigned long long)plan.seed, plan.quick ? "; quick: for trying out" : "");
    init_measure(&plan);
    fflush(stdout);
    lookup_measure(&plan);
    fflush(stdout);
    access_measure(&plan);
    fflush(stdout);
    remote_measure(&plan);
    fflush(stdout);
    if (options.csv != NULL) {
        code = cell_write_csv(options.csv);
        if (code != 0) {
            fprintf(stderr, "region: %s: %s\n", options.csv, strerror(-code));
            status = 1;
        }
    }
    return write_plot(&options, &plan) != 0 ? 1 : status;
}
