/* SPDX-License-Identifier: MIT */
/*
 * Where a hardened region's tables lie: each apart, between pages that nobody can touch, and
 * somewhere else in every process and region; and all of it is given back.
 */
#include "tests/hardened_kit.h"
#include "tests/left_kit.h"

#include <sys/mman.h>

#define TABLES_MAX 40
#define RUNS 6

/* A table, or the objects themselves. */
struct place {
    const char *name;
    uintptr_t start, end;
};

static struct place places[TABLES_MAX];
static unsigned place_count;

static void add_place(const char *name, const void *start, size_t bytes)
{
    CHECK(place_count < TABLES_MAX);
    places[place_count++] = (struct place){
        .name = name, .start = (uintptr_t)start, .end = (uintptr_t)start + round_up(bytes, 4096)};
}

/* Fixed for a kind of region, so that places of two runs can be compared one by one. */
static void list_places(struct hak_region *heap)
{
    place_count = 0;
    for (unsigned n = 0; n < heap->table_count; n++) {
        add_place("table", heap->tables[n].memory, heap->tables[n].bytes);
    }
    add_place("handle", heap, sizeof(*heap));
    add_place("registry", heap->area.registry, heap->area.registry_bytes);
}

/* The mapping that an address lies in; *forbidden: nobody can touch it. */
static bool mapping_of(uintptr_t at, bool *forbidden)
{
    char line[512];
    bool found = false;
    FILE *maps = fopen("/proc/self/maps", "r");

    CHECK(maps != NULL);
    while (!found && fgets(line, sizeof(line), maps) != NULL) {
        unsigned long from, to;
        char rights[8];
        CHECK_EQ(sscanf(line, "%lx-%lx %7s", &from, &to, rights), 3);
        found = at >= from && at < to;
        *forbidden = strncmp(rights, "---", 3) == 0;
    }
    fclose(maps);
    return found;
}

static void check_between_guards(const struct place *place)
{
    bool before = false, first = true, last = true, behind = false;
    uintptr_t end = place->end;

    CHECK(mapping_of(place->start - 1, &before));
    CHECK(mapping_of(place->start, &first) && mapping_of(end - 1, &last));
    /* A table is as long as its pages of 2 MiB where it is that long. */
    while (!behind && end < place->end + SUPERSLAB_BYTES) {
        CHECK(mapping_of(end, &behind));
        end += 4096;
    }
    if (!before || first || last || !behind) {
        FAIL("%s at %lx to %lx: %d %d %d %d", place->name, (unsigned long)place->start,
             (unsigned long)place->end, before, first, last, behind);
    }
}

/* What of a region says how its tables lie: their distances from the objects. */
static uintptr_t distances[RUNS][TABLES_MAX];

static void note_distances(struct hak_region *heap, uintptr_t *out)
{
    list_places(heap);
    for (unsigned n = 0; n < place_count; n++) {
        out[n] = places[n].start - heap->area.base;
    }
}

/* NOLINTNEXTLINE(readability-function-size): loops, and the levels that CHECK brings. */
static void check_all_differ(void)
{
    for (unsigned run = 1; run < RUNS; run++) {
        for (unsigned other = 0; other < run; other++) {
            for (unsigned n = 0; n < place_count; n++) {
                CHECK_NE(distances[run][n], distances[other][n]);
            }
        }
    }
    /* From each other too: no two tables go together. */
    for (unsigned n = 0; n < place_count; n++) {
        for (unsigned other = 0; other < n; other++) {
            CHECK_NE(distances[0][n] - distances[0][other], distances[1][n] - distances[1][other]);
        }
    }
}

TEST(every_table_lies_between_pages_that_nobody_can_touch)
{
    struct hak_region *heap = hard_open(64 * MIB, HAK_MISUSE_ABORT);

    list_places(heap);
    CHECK_GE(place_count, 10);
    for (unsigned n = 0; n < place_count; n++) {
        check_between_guards(&places[n]);
    }
    hard_close(0);
}

TEST(tables_lie_elsewhere_in_every_region)
{
    for (unsigned run = 0; run < RUNS; run++) {
        note_distances(hard_open(16 * MIB, HAK_MISUSE_ABORT), distances[run]);
        hard_close(0);
    }
    check_all_differ();
}

static uintptr_t *shared;

static void note_in_child(void *unused)
{
    (void)unused;
    note_distances(hard_open(16 * MIB, HAK_MISUSE_ABORT), shared);
    shared[TABLES_MAX] = place_count;
}

TEST(tables_lie_elsewhere_in_every_process)
{
    struct harness_result result;

    kit_forget_last();
    shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(shared != MAP_FAILED);
    for (unsigned run = 0; run < RUNS; run++) {
        harness_child(note_in_child, NULL, &result);
        CHECK_EQ(result.exit_status, 0);
        memcpy(distances[run], shared, sizeof(distances[run]));
    }
    place_count = (unsigned)shared[TABLES_MAX];
    CHECK_GE(place_count, 10);
    check_all_differ();
    munmap(shared, 4096);
}

TEST(adopted_memorys_tables_lie_apart_too)
{
    struct hak_config config = {.hardened = HAK_ON};
    unsigned char *memory = mmap(NULL, 10 * MIB, PROT_READ | PROT_WRITE,
                                 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    hak_region *region;

    CHECK(memory != MAP_FAILED);
    kit_forget_last();
    for (unsigned run = 0; run < RUNS; run++) {
        CHECK_EQ(hak_region_adopt(memory, 10 * MIB, -1, &config, &region, NULL), 0);
        note_distances(region, distances[run]);
        for (unsigned n = 0; n < place_count; n++) {
            check_between_guards(&places[n]);
        }
        CHECK_EQ(hak_region_destroy(region), 0);
    }
    check_all_differ();
    munmap(memory, 10 * MIB);
}

TEST(of_a_hardened_region_nothing_is_left)
{
    hard_open(64 * MIB, HAK_MISUSE_ABORT);
    kit_forget_last();
    left_note();
    for (unsigned n = 0; n < 20; n++) {
        hard_open((16 + n) * MIB, HAK_MISUSE_ABORT);
        (void)hard_malloc(MIB);
        hak_free(hard_malloc(MIB));
        kit_forget_last();
    }
    CHECK_EQ(left_entries("/proc/self/fd"), left_files);
    left_check_maps();
}

HARNESS_MAIN()
