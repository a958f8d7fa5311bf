/* SPDX-License-Identifier: MIT */
/*
 * hak_region_adopt with any arguments, over a window of memory that is really there. Whether a call
 * may succeed, and what it then uses, is worked out here from the header's words in 128 bits, where
 * nothing wraps around. Regions that come to be are used and ended in any order, and two live ones
 * never share a byte.
 *
 * The window carries a pattern. Objects of the regions are the only ones who write into it: what
 * lies outside whole SuperSlabs, and what no object covered, is the same afterwards.
 *
 * An input: steps of a byte (adopt, allocate, free, destroy, look) and its operands.
 */
#include "alloc/heap.h"
#include "alloc/thread.h"
#include "tests/fuzz/model.h"

#include <limits.h>
#include <sys/mman.h>

#define WINDOW_SUPERSLABS 6
#define WINDOW_BYTES (WINDOW_SUPERSLABS * SUPERSLAB_BYTES)
#define REGIONS 4
#define OBJECTS 64
#define STEPS 64
/* Places of the window that are looked at: a word every so often, and all around the borders. */
#define SAMPLE 1000
#define AROUND ((size_t)256)

typedef unsigned __int128 wide;

static unsigned char *window;
static struct model model;

static struct live {
    hak_region *region;
    uintptr_t first, end; /* its SuperSlabs */
    uint64_t misuses;
} lives[REGIONS];

/* ---- the window ------------------------------------------------------------------------------ */

static unsigned char canary(size_t at)
{
    return (unsigned char)((at * 0x9e3779b97f4a7c15U) >> 56);
}

MODEL_QUIET static void paint(size_t from, size_t to)
{
    for (size_t at = from; at < to; at++) {
        window[at] = canary(at);
    }
}

MODEL_QUIET static void check_range(size_t from, size_t to, size_t step)
{
    for (size_t at = from; at < to; at += step) {
        if (window[at] != canary(at)) {
            FUZZ_FAIL("byte %zu of the window, which nobody may write, has been written", at);
        }
    }
}

static void map_window(void)
{
    size_t bytes = WINDOW_BYTES + 2 * SUPERSLAB_BYTES;
    char *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    FUZZ_CHECK(memory != MAP_FAILED);
    window = (unsigned char *)round_up((uintptr_t)memory, SUPERSLAB_BYTES);
    paint(0, WINDOW_BYTES);
}

/* ---- arguments ------------------------------------------------------------------------------- */

/* A place in the window, at or near a border of SuperSlabs or pages, as often as not. */
static uintptr_t take_place(struct fuzz_input *input)
{
    unsigned kind = fuzz_byte(input), value = fuzz_byte(input);
    uintptr_t base = (uintptr_t)window;

    switch (kind & 7) {
    case 0:
        return base + (kind >> 3) % (WINDOW_SUPERSLABS + 1) * SUPERSLAB_BYTES;
    case 1:
        return base + (kind >> 3) % (WINDOW_SUPERSLABS + 1) * SUPERSLAB_BYTES + value - 128;
    case 2:
        return base + (size_t)(kind >> 3) * 300 * KIB + value * 1024;
    case 3:
        return base + (((size_t)kind >> 3) << 16) + ((size_t)value << 12);
    case 4:
        return value;
    case 5:
        return UINTPTR_MAX - ((uintptr_t)value << (kind >> 3));
    case 6:
        return base + ((uintptr_t)value << (kind >> 3));
    default:
        return base;
    }
}

struct arguments {
    uintptr_t start;
    size_t length;
    int node;
    bool with_out, with_usable, with_config;
    struct hak_config config;
};

static void take_arguments(struct fuzz_input *input, struct arguments *out)
{
    static const int nodes[] = {-1, 0, 0, -1, 1, 63, 64, 999, -2, INT_MAX, INT_MIN};
    unsigned byte = fuzz_byte(input);

    out->start = take_place(input);
    out->length = take_place(input) - out->start;
    if ((byte & 64) != 0) {
        out->length = out->length << (byte % 23);
    }
    out->node = (byte & 128) != 0 ? nodes[fuzz_byte(input) % 11] : -1;
    out->with_out = (byte & 63) != 63;
    out->with_usable = (byte & 1) != 0;
    out->with_config = (byte & 2) != 0;
    /* All but misuse and hardened is to be ignored, whatever it is. */
    memset(&out->config, (byte & 4) != 0 ? (int)byte : 0, sizeof out->config);
    out->config.misuse = HAK_MISUSE_IGNORE;
    out->config.hardened = (byte & 8) != 0 ? HAK_ON : HAK_OFF;
    if ((byte & 48) == 48) {
        out->config.misuse = (enum hak_misuse)(fuzz_byte(input) % 8);
    }
}

/* ---- what has to come out -------------------------------------------------------------------- */

struct expected {
    bool refused;
    bool codes[4]; /* those that may be given: EINVAL, ENODEV, E2BIG, ENOSPC */
    uintptr_t first, end;
};

enum { MAY_EINVAL, MAY_ENODEV, MAY_E2BIG, MAY_ENOSPC };

static void expect_no(struct expected *expected, unsigned which, bool when)
{
    expected->codes[which] |= when;
    expected->refused |= when;
}

static void expect(const struct arguments *asked, struct expected *out)
{
    const wide grain = SUPERSLAB_BYTES, limit = (wide)1 << 64;
    wide start = asked->start, end = start + asked->length;
    wide first = (start + grain - 1) / grain * grain, last = end / grain * grain;
    bool overlaps = false, fits = end < limit && last > first;
    unsigned misuse = asked->config.misuse;

    memset(out, 0, sizeof *out);
    for (unsigned n = 0; n < REGIONS; n++) {
        overlaps |= lives[n].region != NULL && first < lives[n].end && lives[n].first < last;
    }
    expect_no(out, MAY_EINVAL, start == 0 || end >= limit || !asked->with_out);
    expect_no(out, MAY_EINVAL, !fits || overlaps);
    expect_no(out, MAY_E2BIG, fits && last - first > HAK_REGION_BYTES_MAX);
    expect_no(out, MAY_ENODEV, asked->node != -1 && asked->node != 0);
    expect_no(out, MAY_EINVAL, asked->with_config && misuse > HAK_MISUSE_IGNORE);
    out->first = (uintptr_t)first;
    out->end = (uintptr_t)last;
}

static bool in_window(const struct expected *expected)
{
    return expected->first >= (uintptr_t)window && expected->end > expected->first &&
           expected->end <= (uintptr_t)window + WINDOW_BYTES;
}

static void check_refusal(const struct expected *expected, int code, const hak_region *region)
{
    static const int codes[] = {EINVAL, ENODEV, E2BIG, ENOSPC};
    struct hak_error error;
    bool right = false;

    FUZZ_CHECK(region == NULL);
    for (unsigned n = 0; n < 4; n++) {
        right |= expected->codes[n] && code == -codes[n];
    }
    if (!right) {
        FUZZ_FAIL("refused with %d, which is not why", code);
    }
    FUZZ_EQ(hak_last_error(&error), code);
    FUZZ_EQ(error.kind, HAK_ERROR_SETUP);
    FUZZ_CHECK(error.message[0] != '\0');
}

static void do_adopt(struct fuzz_input *input)
{
    struct arguments asked;
    struct expected expected;
    hak_region *region = (hak_region *)(void *)&model;
    size_t usable = 12345;
    unsigned n = 0;

    take_arguments(input, &asked);
    expect(&asked, &expected);
    while (n < REGIONS && lives[n].region != NULL) {
        n++;
    }
    if (!expected.refused && (n == REGIONS || !in_window(&expected))) {
        return; /* the caller's promise, memory that is there, cannot be kept */
    }
    int code = hak_region_adopt(
        (void *)asked.start, asked.length, asked.node, asked.with_config ? &asked.config : NULL,
        asked.with_out ? &region : NULL, asked.with_usable ? &usable : NULL);
    if (expected.refused) {
        FUZZ_CHECK(code < 0);
        check_refusal(&expected, code, asked.with_out ? region : NULL);
        return;
    }
    FUZZ_EQ(code, 0);
    struct hak_stats stats;
    struct hak_node_stats node;
    FUZZ_CHECK(!asked.with_usable || usable == expected.end - expected.first);
    FUZZ_EQ(hak_region_stats(region, &stats), 0);
    FUZZ_EQ(stats.size_bytes, expected.end - expected.first);
    FUZZ_EQ(stats.free_bytes, stats.size_bytes);
    FUZZ_EQ(stats.node_count, 1);
    FUZZ_EQ(hak_region_node_stats(region, 0, &node), 0);
    FUZZ_EQ(node.node, 0);
    lives[n] = (struct live){region, expected.first, expected.end, 0};
}

/* ---- use ------------------------------------------------------------------------------------- */

static struct live *take_live(struct fuzz_input *input, unsigned *index)
{
    *index = fuzz_byte(input) % REGIONS;
    return lives[*index].region != NULL ? &lives[*index] : NULL;
}

static void do_allocate(struct fuzz_input *input)
{
    unsigned index, byte = fuzz_byte(input);
    size_t size = (size_t)fuzz_byte(input) << (byte % 16);
    struct live *live = take_live(input, &index);

    if (live == NULL || model.count >= OBJECTS) {
        return;
    }
    bool cleared = (byte & 128) != 0;
    unsigned char *object = cleared ? hak_region_calloc(live->region, 1, size)
                                    : hak_region_malloc(live->region, size);
    if (object == NULL) {
        FUZZ_EQ(errno, ENOMEM);
        return;
    }
    if (cleared) {
        model_zeroed(object, size);
    }
    size_t usable = hak_region_usable_size(live->region, object);
    FUZZ_CHECK(usable >= size);
    FUZZ_CHECK((uintptr_t)object >= live->first && (uintptr_t)object + usable <= live->end);
    model_add(&model, index, object, size, usable);
}

/* Goes, and what it covered is painted again. */
static void drop(struct object *object, bool with_free)
{
    struct live *live = &lives[object->place];
    size_t at = (size_t)(object->start - window), bytes = object->filled;
    unsigned char *start = object->start;
    bool hardened = live->region->hardened != NULL;

    model_remove(&model, object);
    if (with_free) {
        if (!hardened) {
            paint(at, at + bytes);
        }
        hak_region_free(live->region, start);
    } else if (!hardened) {
        paint(at, at + bytes);
    }
}

static void do_free(struct fuzz_input *input)
{
    unsigned pick = fuzz_byte(input);

    if (model.count > 0) {
        drop(&model.objects[pick % model.count], true);
    }
}

static void end_live(unsigned index)
{
    struct live *live = &lives[index];
    bool hardened = live->region->hardened != NULL;

    for (unsigned n = model.count; n-- > 0;) {
        if (model.objects[n].place == index) {
            drop(&model.objects[n], n % 2 == 0);
        }
    }
    FUZZ_EQ(hak_region_destroy(live->region), 0);
    FUZZ_EQ(hak_region_destroy(live->region), -EINVAL);
    live->region = NULL;
    if (hardened) { /* there freed objects are filled, and live ones end with a canary */
        paint(live->first - (uintptr_t)window, live->end - (uintptr_t)window);
    }
}

/* In no region: just outside one, where it may not write. */
static bool is_outside(size_t at)
{
    for (unsigned n = 0; n < REGIONS; n++) {
        uintptr_t address = (uintptr_t)window + at;
        if (lives[n].region != NULL && address >= lives[n].first && address < lives[n].end) {
            return false;
        }
    }
    return true;
}

static void check_around(size_t from, size_t to)
{
    for (size_t at = from; at < to; at++) {
        if (is_outside(at)) {
            check_range(at, at + 1, 1);
        }
    }
}

/* Outside the objects nobody has written. */
static void check_window(void)
{
    size_t at = 0;

    for (unsigned n = 0; n < REGIONS; n++) {
        if (lives[n].region != NULL) {
            size_t first = lives[n].first - (uintptr_t)window;
            size_t end = lives[n].end - (uintptr_t)window;
            check_around(first - min_size(first, AROUND), first);
            check_around(end, min_size(end + AROUND, WINDOW_BYTES));
        }
    }
    for (unsigned n = 0; n <= model.count; n++) {
        size_t end = n == model.count ? WINDOW_BYTES : (size_t)(model.objects[n].start - window);
        check_range(at, end, SAMPLE);
        at = n == model.count ? end : end + model.objects[n].filled;
    }
}

static void do_look(bool hardened_there)
{
    for (unsigned n = 0; n < REGIONS; n++) {
        if (lives[n].region != NULL) {
            FUZZ_CHECK(heap_check(lives[n].region));
        }
    }
    model_verify_all(&model, "at a look");
    if (!hardened_there) {
        check_window();
    }
}

static bool any_hardened(void)
{
    for (unsigned n = 0; n < REGIONS; n++) {
        if (lives[n].region != NULL && lives[n].region->hardened != NULL) {
            return true;
        }
    }
    return false;
}

/* ---- an input -------------------------------------------------------------------------------- */

static void take_step(struct fuzz_input *input)
{
    unsigned index, byte = fuzz_byte(input);

    switch (byte % 8) {
    case 0:
    case 1:
        do_adopt(input);
        break;
    case 2:
    case 3:
    case 4:
        do_allocate(input);
        break;
    case 5:
        do_free(input);
        break;
    case 6:
        if (take_live(input, &index) != NULL) {
            end_live(index);
        }
        break;
    default:
        do_look(any_hardened());
    }
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    fuzz_keep_report();
    map_window();
    fuzz_wear_in();
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {data, data + size};

    memset(&model, 0, sizeof model);
    memset(lives, 0, sizeof lives);
    for (unsigned steps = 0; steps < STEPS && fuzz_more(&input); steps++) {
        take_step(&input);
    }
    do_look(any_hardened());
    for (unsigned n = 0; n < REGIONS; n++) {
        if (lives[n].region != NULL) {
            end_live(n);
        }
    }
    check_window();
    return 0;
}
