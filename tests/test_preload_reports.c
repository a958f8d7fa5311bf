/* SPDX-License-Identifier: MIT */
/*
 * The calls that tell about the heap or tune it: mallinfo2 and mallinfo, malloc_stats, malloc_info,
 * malloc_trim, mallopt, by their man pages. What the figures are made of is the allocator's own
 * affair; that they follow what the program does is not.
 */
#include "tests/preload_kit.h"

/* NOLINTBEGIN(clang-analyzer-unix.*,clang-analyzer-optin.*): objects pass through kit_keep,
 * where the analyser loses them, and size 0 is one of the sizes. */

#define ERRNO_MARK 4095
#define SMALL_BYTES ((size_t)1000)
#define SMALL_COUNT 40000
#define SMALL_TOTAL (SMALL_BYTES * SMALL_COUNT)

static void *small_objects[SMALL_COUNT];

static void hold_small_objects(void)
{
    for (size_t i = 0; i < SMALL_COUNT; i++) {
        small_objects[i] = kit_keep(malloc(SMALL_BYTES));
        CHECK(small_objects[i] != NULL);
        memset(small_objects[i], 1, SMALL_BYTES);
    }
}

static void free_small_objects(void)
{
    for (size_t i = 0; i < SMALL_COUNT; i++) {
        free(small_objects[i]);
    }
}

/* In use, wherever it is counted. */
static size_t in_use(void)
{
    struct mallinfo2 now = mallinfo2();
    return now.uordblks + now.hblkhd;
}

/* ---- mallinfo2 ------------------------------------------------------------------------------- */

CONTRACT(mallinfo2_follows_small_objects)
{
    struct mallinfo2 before = mallinfo2();
    hold_small_objects();
    struct mallinfo2 held = mallinfo2();
    free_small_objects();
    struct mallinfo2 after = mallinfo2();
    CHECK_GE(held.uordblks - before.uordblks, SMALL_TOTAL);
    CHECK_LE(held.uordblks - before.uordblks, SMALL_TOTAL + SMALL_TOTAL / 4);
    /* Some are in the thread's cache and count as used. */
    CHECK_LE(after.uordblks - before.uordblks, SMALL_TOTAL / 10);
}

CONTRACT(mallinfo2_follows_large_objects)
{
    size_t before = in_use();
    void *object = kit_keep(malloc(64 * MIB));
    CHECK(object != NULL);
    CHECK_GE(in_use() - before, 64 * MIB);
    CHECK_LE(in_use() - before, 66 * MIB);
    free(object);
    CHECK_LE(in_use(), before + MIB);
}

/* mallinfo(3): arena is what was taken from the system but by mmap, in use or not. */
CONTRACT(mallinfo2_adds_up)
{
    hold_small_objects();
    for (size_t i = 0; i < SMALL_COUNT; i += 2) {
        free(small_objects[i]);
        small_objects[i] = NULL;
    }
    struct mallinfo2 now = mallinfo2();
    CHECK_GE(now.uordblks, SMALL_TOTAL / 2);
    CHECK_GE(now.fordblks, SMALL_TOTAL / 4);
    CHECK_GE(now.arena + now.hblkhd, now.uordblks);
    CHECK_LE(now.uordblks + now.fordblks, now.arena + now.hblkhd);
    CHECK_LE(now.keepcost, now.arena);
    free_small_objects();
}

/* The older call has the same figures, as far as they go into an int. */
CONTRACT(mallinfo_is_mallinfo2_in_ints)
{
    hold_small_objects();
    struct mallinfo2 wide = mallinfo2();
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
    struct mallinfo narrow = mallinfo();
#pragma GCC diagnostic pop
    CHECK_GE(wide.uordblks, SMALL_TOTAL);
    CHECK_EQ(narrow.uordblks, (int)wide.uordblks);
    CHECK_EQ(narrow.arena, (int)wide.arena);
    CHECK_EQ(narrow.fordblks, (int)wide.fordblks);
    free_small_objects();
}

/* ---- malloc_stats, malloc_info --------------------------------------------------------------- */

CONTRACT(malloc_stats_writes_to_standard_error)
{
    char text[4096];
    int ends[2], own = dup(STDERR_FILENO);
    CHECK_EQ(pipe(ends), 0);
    CHECK(dup2(ends[1], STDERR_FILENO) >= 0);
    close(ends[1]);
    errno = ERRNO_MARK;
    malloc_stats();
    int code = errno;
    fflush(stderr);
    CHECK(dup2(own, STDERR_FILENO) >= 0);
    ssize_t length = read(ends[0], text, sizeof text - 1);
    CHECK(length > 20);
    text[length] = '\0';
    CHECK(strpbrk(text, "123456789") != NULL);
    CHECK_EQ(code, ERRNO_MARK);
}

struct xml {
    const char *at;
    char open[16][32]; /* names of the elements that are open */
    unsigned depth, elements;
};

static void xml_spaces(struct xml *x)
{
    x->at += strspn(x->at, " \t\r\n");
}

static void xml_name(struct xml *x, char *name)
{
    size_t length = strspn(x->at, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                  "_-.:");
    CHECK(length > 0 && length < 32);
    memcpy(name, x->at, length);
    name[length] = '\0';
    x->at += length;
}

/* Behind "<name": attributes, then ">" or "/>"; true if the element is left open. */
static bool xml_attributes(struct xml *x)
{
    char name[32];
    for (;;) {
        size_t spaces = strspn(x->at, " \t\r\n");
        x->at += spaces;
        if (*x->at == '>' || *x->at == '/') {
            break;
        }
        CHECK(spaces > 0);
        xml_name(x, name);
        CHECK(x->at[0] == '=' && (x->at[1] == '"' || x->at[1] == '\''));
        const char *end = strchr(x->at + 2, x->at[1]);
        CHECK(end != NULL && memchr(x->at + 2, '<', (size_t)(end - x->at - 2)) == NULL);
        x->at = end + 1;
    }
    bool open = *x->at == '>';
    x->at += open ? 1 : 2;
    CHECK(x->at[-1] == '>');
    return open;
}

/* One element, without what is inside it, or its end. */
static void xml_tag(struct xml *x)
{
    char name[32];
    if (x->at[1] == '/') {
        x->at += 2;
        xml_name(x, name);
        xml_spaces(x);
        CHECK(*x->at++ == '>');
        CHECK(x->depth > 0 && strcmp(x->open[--x->depth], name) == 0);
        return;
    }
    x->at++;
    xml_name(x, name);
    CHECK(x->depth > 0 || x->elements == 0); /* one root */
    x->elements++;
    if (xml_attributes(x)) {
        CHECK(x->depth < 16);
        memcpy(x->open[x->depth++], name, sizeof name);
    }
}

/* Well-formed, as far as such a document can be: no comments, entities or processing. */
static void check_xml(const char *text)
{
    struct xml x = {.at = text};
    for (xml_spaces(&x); *x.at != '\0'; xml_spaces(&x)) {
        if (*x.at == '<') {
            xml_tag(&x);
        } else {
            CHECK(x.depth > 0 && *x.at != '&');
            x.at += strcspn(x.at, "<&");
        }
    }
    CHECK_EQ(x.depth, 0);
    CHECK_GE(x.elements, 3);
}

CONTRACT(malloc_info_writes_a_well_formed_document)
{
    char *text = NULL;
    size_t length = 0;
    hold_small_objects();
    FILE *stream = open_memstream(&text, &length);
    CHECK(stream != NULL);
    CHECK_EQ(malloc_info(0, stream), 0);
    fclose(stream);
    if (strncmp(text, "<malloc", 7) != 0) {
        FAIL("it begins so: %.100s", text);
    }
    check_xml(text);
    free(text);
    free_small_objects();
}

/* The page says -1 with EINVAL, the library returns EINVAL itself. */
CONTRACT(malloc_info_has_no_options)
{
    CHECK_NE(malloc_info((int)kit_opaque(1), stdout), 0);
}

/* ---- malloc_trim, mallopt -------------------------------------------------------------------- */

CONTRACT(malloc_trim_gives_memory_back_and_leaves_objects_alone)
{
    void *kept[64];
    for (size_t i = 0; i < 64; i++) {
        kept[i] = kit_keep(malloc(i * 1000));
        kit_fill(kept[i], i * 1000, i);
    }
    hold_small_objects();
    long full = kit_status_kib("VmRSS:");
    free_small_objects();
    int released = malloc_trim(0);
    CHECK(released == 0 || released == 1);
    /* Of 40 MB that were in use and no longer are, most must be gone. */
    CHECK_LE(kit_status_kib("VmRSS:"), full - 30000);
    for (size_t i = 0; i < 64; i++) {
        CHECK(kit_holds(kept[i], i * 1000, i));
        free(kept[i]);
    }
    released = malloc_trim(SIZE_MAX / 2); /* keep as much as there is */
    CHECK(released == 0 || released == 1);
    kit_work(1, 20000);
}

CONTRACT(mallopt_takes_its_parameters)
{
    static const int settings[][2] = {{M_MXFAST, 64},       {M_TRIM_THRESHOLD, 1 << 20},
                                      {M_TOP_PAD, 1 << 16}, {M_MMAP_THRESHOLD, 1 << 20},
                                      {M_MMAP_MAX, 1000},   {M_CHECK_ACTION, 3},
                                      {M_ARENA_TEST, 4},    {M_ARENA_MAX, 2}};
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
        CHECK_EQ(mallopt(settings[i][0], settings[i][1]), 1);
        kit_work(i, 5000);
    }
    /* Larger than this one may be. */
    CHECK_EQ(mallopt(M_MXFAST, 1 << 20), 0);
}

/* NOLINTEND(clang-analyzer-unix.*,clang-analyzer-optin.*): as above. */

KIT_MAIN()
