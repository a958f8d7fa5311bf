/* SPDX-License-Identifier: MIT */
/*
 * The claims of docs/security.md about what is not an object: where the tables lie and whether a
 * long overflow reaches them, what somebody who can write there wins, what can be foretold of
 * addresses, and what of the allocator's can be read in objects. In the default and in the hardened
 * mode; what a mode does not stop is shown as well.
 */
#include "tests/attack_kit.h"

#include <sys/mman.h>

#define SEQUENCE 200
#define CANARIES 600
#define TABLES_MAX 64
#define MAPPINGS_MAX 4096
#define HERD 4000

static unsigned char *held[HERD];

/* ---- what is mapped ---- */

struct mapping {
    uintptr_t start, end;
    bool open; /* may be read or written */
};

static struct mapping mappings[MAPPINGS_MAX];
static size_t mapping_count;

static void read_mappings(void)
{
    char line[512], rights[8];
    FILE *maps = fopen("/proc/self/maps", "r");
    CHECK(maps != NULL);
    mapping_count = 0;
    while (fgets(line, sizeof line, maps) != NULL) {
        unsigned long start, end;
        CHECK_EQ(sscanf(line, "%lx-%lx %7s", &start, &end, rights), 3);
        CHECK(mapping_count < MAPPINGS_MAX);
        mappings[mapping_count++] = (struct mapping){start, end,
                                                     rights[0] == 'r' || rights[1] == 'w'};
    }
    fclose(maps);
}

static const struct mapping *mapping_at(uintptr_t address)
{
    for (size_t n = 0; n < mapping_count; n++) {
        if (address >= mappings[n].start && address < mappings[n].end) {
            return &mappings[n];
        }
    }
    return NULL;
}

static bool is_open(uintptr_t address)
{
    const struct mapping *at = mapping_at(address);
    return at != NULL && at->open;
}

/* Something is mapped there, and nobody can touch it: not a gap that another mapping may fill. */
static bool is_guard(uintptr_t address)
{
    const struct mapping *at = mapping_at(address);
    return at != NULL && !at->open;
}

/* Where every table of the default region begins, its handle first. */
static size_t tables_of(uintptr_t tables[TABLES_MAX])
{
    const struct hak_region *heap = hak_region_default();
    size_t count = 0;
    tables[count++] = (uintptr_t)heap;
    tables[count++] = (uintptr_t)heap->area.registry;
    for (uint32_t n = 0; n < heap->area.segment_count; n++) {
        tables[count++] = (uintptr_t)heap->area.segments[n].index_memory;
    }
    for (unsigned n = 0; n < heap->table_count; n++) {
        tables[count++] = (uintptr_t)heap->tables[n].memory;
    }
    return count;
}

/* ---- long overflows out of the object area ---- */

static void each_table_between_guards(void)
{
    uintptr_t tables[TABLES_MAX];
    size_t count = tables_of(tables);
    CHECK(count > 8);
    read_mappings();
    for (size_t n = 0; n < count; n++) {
        const struct mapping *at = mapping_at(tables[n]);
        CHECK(at != NULL && at->open);
        CHECK_EQ(at->start, tables[n]);
        CHECK(is_guard(at->start - 1));
        CHECK(is_guard(at->end));
    }
}

TEST(each_table_lies_between_guards_in_the_hardened_mode)
{
    attack_goes_through(each_table_between_guards, HARDENED, HAK_MISUSE_ABORT);
}

/* As far as somebody comes who writes on and on, from either end of the object area: the tables
 * that are in reach. */
static size_t tables_in_reach(void)
{
    const struct region *area = &hak_region_default()->area;
    uintptr_t first = area->base, last = area->base + area->bytes;
    uintptr_t tables[TABLES_MAX];
    size_t count = tables_of(tables), reached = 0;
    read_mappings();
    while (is_open(first - 1)) {
        first = mapping_at(first - 1)->start;
    }
    while (is_open(last)) {
        last = mapping_at(last)->end;
    }
    for (size_t n = 0; n < count; n++) {
        reached += tables[n] >= first && tables[n] < last;
    }
    return reached;
}

static void no_table_in_reach(void)
{
    CHECK_EQ(tables_in_reach(), 0);
}

/* Nothing is asserted of the default mode: where the kernel puts mappings is its own affair. */
static void say_what_is_in_reach(void)
{
    printf("%zu tables in reach\n", tables_in_reach());
}

TEST(a_long_overflow_reaches_no_table_in_the_hardened_mode)
{
    const struct harness_result *result = attack_under(say_what_is_in_reach, USUAL,
                                                       HAK_MISUSE_ABORT);
    printf("default mode: %s", result->output);
    attack_goes_through(no_table_in_reach, HARDENED, HAK_MISUSE_ABORT);
}

/* ---- who writes into the tables has won, unless he is seen ---- */

/* Bits of a slab's live objects that say "free", in a slab that this thread takes from. */
static void live_objects_called_free(void)
{
    struct hak_region *heap = hak_region_default();
    size_t overlaps = 0;
    for (size_t n = 0; n < HERD / 2; n++) {
        held[n] = take(104);
    }
    unit_t unit = heap_slab_head(heap, region_unit(&heap->area, held[HERD / 2 - 1]));
    for (unsigned word = 0; word < 9; word++) {
        atomic_store_explicit(&heap->slabs[unit].bits[word], UINT64_MAX, memory_order_relaxed);
    }
    for (size_t n = HERD / 2; n < HERD; n++) {
        held[n] = take(104);
    }
    qsort(held, HERD, sizeof *held, by_address);
    for (size_t n = 1; n < HERD; n++) {
        overlaps += held[n] == held[n - 1];
    }
    CHECK_EQ(overlaps != 0, attack_mode == USUAL);
}

TEST(a_write_to_a_slabs_bits_hands_objects_out_twice)
{
    attack_goes_through(live_objects_called_free, USUAL, HAK_MISUSE_ABORT);
    attack_is_caught(live_objects_called_free, HARDENED, "freed twice");
    attack_goes_through(live_objects_called_free, HARDENED, HAK_MISUSE_IGNORE);
}

static bool hijacked;

static void hijack(hak_region *region, size_t size_bytes, void *argument)
{
    (void)region, (void)size_bytes, (void)argument;
    hijacked = true;
}

/* The one pointer to a function that a region has. */
static void function_pointer_in_the_handle(void)
{
    hak_region_default()->on_exhausted = hijack;
    while (hak_malloc(MIB) != NULL) {
    }
    CHECK(hijacked);
}

TEST(a_write_to_the_handle_decides_what_is_called)
{
    attack_goes_through(function_pointer_in_the_handle, USUAL, HAK_MISUSE_ABORT);
    attack_goes_through(function_pointer_in_the_handle, HARDENED, HAK_MISUSE_ABORT);
}

/* ---- what can be foretold ---- */

struct canary {
    uintptr_t at;
    uint64_t found;
};

struct seen {
    struct canary canaries[2][CANARIES];
    uintptr_t base;
    size_t table_count, run;
    uintptr_t tables[TABLES_MAX];
    size_t offsets[2][SEQUENCE];
};

static struct seen *seen; /* shared with the children */

static void note_sequence(size_t offsets[SEQUENCE])
{
    for (size_t n = 0; n < SEQUENCE; n++) {
        offsets[n] = (uintptr_t)take(104) - hak_region_default()->area.base;
    }
}

static void look_around(void)
{
    seen->base = hak_region_default()->area.base;
    seen->table_count = tables_of(seen->tables);
    note_sequence(seen->offsets[seen->run]);
}

static void share(void)
{
    seen = mmap(NULL, sizeof *seen, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(seen != MAP_FAILED);
}

/* The same program twice: children of the same parent have the same addresses to begin with. */
static void twice(enum mode mode, size_t *same_tables, bool *same_order)
{
    static struct seen first;
    share();
    attack_goes_through(look_around, mode, HAK_MISUSE_ABORT);
    first = *seen;
    attack_goes_through(look_around, mode, HAK_MISUSE_ABORT);
    CHECK_EQ(first.table_count, seen->table_count);
    *same_tables = 0;
    for (size_t n = 0; n < first.table_count; n++) {
        *same_tables += first.tables[n] - first.base == seen->tables[n] - seen->base;
    }
    *same_order = memcmp(first.offsets[0], seen->offsets[0], sizeof first.offsets[0]) == 0;
    munmap(seen, sizeof *seen);
}

TEST(distances_and_order_are_the_same_each_time_in_the_default_mode_only)
{
    size_t same;
    bool order;
    twice(USUAL, &same, &order);
    CHECK(same > 8);
    CHECK(order);
    twice(HARDENED, &same, &order);
    CHECK_EQ(same, 0);
    CHECK(!order);
}

/* How often the object taken next is the neighbour of the one before. */
static void neighbours(void)
{
    size_t offsets[SEQUENCE], count = 0;
    note_sequence(offsets);
    for (size_t n = 1; n < SEQUENCE; n++) {
        size_t distance = offsets[n] > offsets[n - 1] ? offsets[n] - offsets[n - 1]
                                                      : offsets[n - 1] - offsets[n];
        count += distance == 112;
    }
    /* Of 64 that are chosen from, 2 are neighbours of the last one; luck may double that. */
    CHECK(attack_mode == USUAL ? count > SEQUENCE * 8 / 10 : count < SEQUENCE * 3 / 10);
}

TEST(objects_taken_in_a_row_are_neighbours_in_the_default_mode_only)
{
    attack_goes_through(neighbours, USUAL, HAK_MISUSE_ABORT);
    attack_goes_through(neighbours, HARDENED, HAK_MISUSE_ABORT);
}

/* A server that forks for each request: what one child's crash tells of the next one's order. */
static void order_in_a_child(void)
{
    for (size_t n = 0; n < 300; n++) {
        held[n] = take(104);
    }
    for (size_t n = 0; n < 300; n++) {
        hak_free(held[n]);
    }
    for (size_t child = 0; child < 2; child++) {
        int status = -1;
        pid_t pid = fork();
        CHECK(pid >= 0);
        if (pid == 0) {
            note_sequence(seen->offsets[child]);
            _exit(0);
        }
        CHECK_EQ(waitpid(pid, &status, 0), pid);
        CHECK_EQ(status, 0);
    }
    bool same = memcmp(seen->offsets[0], seen->offsets[1], sizeof seen->offsets[0]) == 0;
    CHECK_EQ(same, attack_mode == USUAL);
}

TEST(children_of_fork_take_in_the_same_order_in_the_default_mode_only)
{
    share();
    attack_goes_through(order_in_a_child, USUAL, HAK_MISUSE_ABORT);
    attack_goes_through(order_in_a_child, HARDENED, HAK_MISUSE_ABORT);
    munmap(seen, sizeof *seen);
}

/* ---- what can be read ---- */

/* Words of the object area that are an address of anything in the process. */
static size_t addresses_in_the_area(void)
{
    const struct region *area = &hak_region_default()->area;
    size_t found = 0;
    read_mappings();
    for (size_t n = 0; n < mapping_count; n++) {
        uintptr_t from = mappings[n].start > area->base ? mappings[n].start : area->base;
        uintptr_t end = area->base + area->bytes;
        uintptr_t to = mappings[n].end < end ? mappings[n].end : end;
        for (; mappings[n].open && from + 8 <= to; from += 8) {
            uintptr_t word = *(const volatile uintptr_t *)from;
            found += word >= 4096 && word < (uintptr_t)1 << 47 && mapping_at(word) != NULL;
        }
    }
    return found;
}

static void *busy(void *argument)
{
    uint64_t random = (uintptr_t)argument;
    unsigned char *mine[500] = {NULL};
    for (size_t step = 0; step < 50000; step++) {
        uint64_t x = harness_random(&random);
        size_t at = x % 500, size = x >> 20 & 63 ? (x >> 30) % 1000 : (x >> 30) % 400000;
        hak_free(mine[at]);
        mine[at] = hak_malloc(size);
        if (mine[at] != NULL) {
            memset(mine[at], 0x11, size);
        }
    }
    for (size_t n = 0; n < 500; n += 2) {
        hak_free(mine[n]);
    }
    return NULL;
}

static void no_address_in_objects(void)
{
    for (uintptr_t n = 1; n <= 3; n++) {
        kit_in_thread(busy, (void *)n);
    }
    CHECK_EQ(addresses_in_the_area(), 0);
    /* It does see one where there is one. */
    void *object = take(104);
    *(void *volatile *)object = object;
    CHECK_EQ(addresses_in_the_area(), 1);
}

TEST(nothing_in_the_object_area_tells_an_address)
{
    attack_goes_through(no_address_in_objects, USUAL, HAK_MISUSE_ABORT);
    attack_goes_through(no_address_in_objects, HARDENED, HAK_MISUSE_ABORT);
}

/* ---- canaries ---- */

static void other_canaries(void)
{
    unsigned char *one = take(104), *other = take(104);
    CHECK(memcmp(one + 104, other + 104, 8) != 0);
    for (size_t n = 0; n < 8; n++) {
        CHECK(one[104 + n] != 0);
    }
    memcpy(one + 104, other + 104, 8);
    hak_free(one);
}

/* Whoever can read what he overwrites puts it back. */
static void its_own_canary(void)
{
    unsigned char *one = take(104), seen_before[8];
    memcpy(seen_before, one + 104, 8);
    memset(one, 0x41, 112);
    memcpy(one + 104, seen_before, 8);
    hak_free(one);
    CHECK_EQ(kit_stats(NULL).misuses, 0);
}

#define CANARIES_AT ((void *)0x100000000000)

/* In memory of the program's own at one address: a region's own lies at another each time. */
static void note_canaries(void)
{
    const struct hak_config hardened = {.hardened = HAK_ON};
    void *memory = mmap(CANARIES_AT, 4 * MIB, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    hak_region *region = NULL;

    CHECK(memory == CANARIES_AT);
    CHECK_EQ(hak_region_adopt(memory, 4 * MIB, 0, &hardened, &region, NULL), 0);
    for (size_t n = 0; n < CANARIES; n++) {
        const void *one = hak_region_malloc(region, 104);
        CHECK(one != NULL);
        struct canary *canary = &seen->canaries[seen->run][n];
        canary->at = (uintptr_t)one;
        /* By the number: the compiler knows where the object ends. */
        memcpy(&canary->found, (const void *)(canary->at + 104), sizeof canary->found);
    }
}

/* Of an object at the same address in another run of the program; NULL: there was none. */
static const struct canary *canary_of_run(size_t run, uintptr_t at)
{
    for (size_t n = 0; n < CANARIES; n++) {
        if (seen->canaries[run][n].at == at) {
            return &seen->canaries[run][n];
        }
    }
    return NULL;
}

static void check_canaries(void)
{
    size_t compared = 0;
    for (size_t n = 0; n < CANARIES; n++) {
        const struct canary *one = &seen->canaries[0][n], *other = canary_of_run(1, one->at);
        CHECK(other == NULL || one->found != other->found);
        compared += other != NULL;
    }
    CHECK(compared > 0);
}

TEST(a_canary_is_good_for_one_object_of_one_run)
{
    attack_is_caught(other_canaries, HARDENED, "written past the end");
    attack_goes_through(its_own_canary, HARDENED, HAK_MISUSE_ABORT);
    share();
    attack_goes_through(note_canaries, HARDENED, HAK_MISUSE_ABORT);
    seen->run = 1;
    attack_goes_through(note_canaries, HARDENED, HAK_MISUSE_ABORT);
    check_canaries();
    munmap(seen, sizeof *seen);
}

HARNESS_MAIN()
