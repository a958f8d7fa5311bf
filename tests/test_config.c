/* SPDX-License-Identifier: MIT */
/*
 * Settings from the caller, the environment and the defaults; what is clamped, what is refused,
 * and what people are told.
 */
#define _GNU_SOURCE
#include "region/config.h"
#include "tests/harness.h"

#include <malloc.h>

static struct settings settings;
static struct hak_error error;

static const char *const names[] = {
    "HAKMEM_REGION_SIZE", "HAKMEM_PAGES",           "HAKMEM_NODES",
    "HAKMEM_PREFAULT",    "HAKMEM_VERIFY",          "HAKMEM_MISUSE",
    "HAKMEM_EXHAUSTED",   "HAKMEM_WARM_POOL",       "HAKMEM_TINY_PAGE_BOX_CLASSES",
    "HAKMEM_LAYERS",      "HAKMEM_WARM_POOL_STATS", "HAKMEM_HUGETLBFS",
    "HAKMEM_PROGRESS"};

static void clean(void)
{
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        unsetenv(names[i]);
    memset(&error, 0, sizeof error);
}

/* What config_resolve says with a single variable set. */
static int with(const char *name, const char *value)
{
    clean();
    setenv(name, value, 1);
    return config_resolve(NULL, &settings, &error);
}

/* The same, with what came out on standard error in heard. */
static char heard[1024];

static int with_heard(const char *name, const char *value)
{
    int ends[2];
    CHECK_EQ(pipe(ends), 0);
    int kept = dup(STDERR_FILENO);
    CHECK(kept >= 0 && dup2(ends[1], STDERR_FILENO) >= 0);
    close(ends[1]);
    int code = with(name, value);
    dup2(kept, STDERR_FILENO);
    close(kept);
    size_t length = 0;
    ssize_t got;
    while ((got = read(ends[0], heard + length, sizeof heard - 1 - length)) > 0)
        length += (size_t)got;
    heard[length] = '\0';
    close(ends[0]);
    return code;
}

TEST(without_anything_the_defaults_hold)
{
    clean();
    CHECK_EQ(config_resolve(NULL, &settings, &error), 0);
    CHECK_EQ(settings.size_bytes, 256 << 20);
    CHECK_EQ(settings.pages_count, 3);
    CHECK_EQ(settings.pages[0], HAK_PAGES_2M);
    CHECK_EQ(settings.pages[1], HAK_PAGES_THP);
    CHECK_EQ(settings.pages[2], HAK_PAGES_4K);
    CHECK_EQ(settings.nodes, 0);
    CHECK(settings.prefault && settings.verify && !settings.warm_pool_stats);
    CHECK_EQ(settings.misuse, HAK_MISUSE_ABORT);
    CHECK_EQ(settings.exhausted, HAK_EXHAUSTED_FAIL);
    CHECK_EQ(settings.page_box_classes, (UINT64_C(1) << (CONFIG_CLASSES_MAX + 1)) - 2);
    CHECK_EQ(settings.warm_pool, 12);
    CHECK_EQ(settings.layers, LAYER_ALL);
    CHECK(!settings.hugetlbfs && !settings.progress);
    CHECK_EQ(error.kind, HAK_ERROR_NONE);
}

TEST(sizes_take_letters)
{
    static const struct {
        const char *text;
        uint64_t bytes;
    } sizes[] = {{"8G", UINT64_C(8) << 30},  {"2T", UINT64_C(2) << 40}, {"512M", 512 << 20},
                 {"3g", UINT64_C(3) << 30},  {"4096K", 4 << 20},        {"2097152", 2 << 20},
                 {"2097153", (2 << 20) + 1}, {"16MB", 16 << 20},        {"16MiB", 16 << 20}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        CHECK_EQ(with("HAKMEM_REGION_SIZE", sizes[i].text), 0);
        CHECK_EQ(settings.size_bytes, sizes[i].bytes);
    }
}

TEST(numbers_out_of_range_are_clamped_with_one_line)
{
    CHECK_EQ(with_heard("HAKMEM_WARM_POOL", "40"), 0);
    CHECK_EQ(settings.warm_pool, 12);
    CHECK_EQ(strcmp(heard, "hakmem: HAKMEM_WARM_POOL=40 is more than 12; using 12\n"), 0);
    CHECK_EQ(with_heard("HAKMEM_WARM_POOL", "0"), 0);
    CHECK_EQ(settings.warm_pool, 1);
    CHECK_EQ(strcmp(heard, "hakmem: HAKMEM_WARM_POOL=0 is less than 1; using 1\n"), 0);
    CHECK_EQ(with_heard("HAKMEM_WARM_POOL", "-3"), 0);
    CHECK_EQ(settings.warm_pool, 1);
    CHECK_EQ(with_heard("HAKMEM_REGION_SIZE", "3T"), 0);
    CHECK_EQ(settings.size_bytes, UINT64_C(2) << 40);
    CHECK_EQ(strcmp(heard, "hakmem: HAKMEM_REGION_SIZE=3T is more than 2T; using 2T\n"), 0);
    CHECK_EQ(with_heard("HAKMEM_REGION_SIZE", "99999999999999999999999999T"), 0);
    CHECK_EQ(settings.size_bytes, UINT64_C(2) << 40);
    CHECK_EQ(with_heard("HAKMEM_REGION_SIZE", "1M"), 0);
    CHECK_EQ(settings.size_bytes, 2 << 20);
    /* In range: nothing is said. */
    CHECK_EQ(with_heard("HAKMEM_WARM_POOL", "7"), 0);
    CHECK_EQ(settings.warm_pool, 7);
    CHECK_EQ(heard[0], 0);
}

TEST(what_makes_no_sense_is_refused_and_explained)
{
    static const struct {
        const char *name, *value, *hint;
    } cases[] = {
        {"HAKMEM_REGION_SIZE", "big", "2M to 2T"},
        {"HAKMEM_REGION_SIZE", "8X", "2M to 2T"},
        {"HAKMEM_REGION_SIZE", "8GG", "2M to 2T"},
        {"HAKMEM_REGION_SIZE", " 8G", "2M to 2T"},
        {"HAKMEM_WARM_POOL", "many", "1 to 12 SuperSlabs"},
        {"HAKMEM_WARM_POOL", "3.5", "1 to 12"},
        {"HAKMEM_PAGES", "2M,64K", "1G|2M|thp|4k"},
        {"HAKMEM_PAGES", "2M,", "comma list"},
        {"HAKMEM_PREFAULT", "2", "1|0|on|off"},
        {"HAKMEM_MISUSE", "explode", "abort|report|ignore"},
        {"HAKMEM_EXHAUSTED", "any", "fail|any-node"},
        {"HAKMEM_NODES", "0-64", "0 to 63"},
        {"HAKMEM_NODES", "3-1", "0,2-3"},
        {"HAKMEM_NODES", "0,,1", "0,2-3"},
        {"HAKMEM_NODES", "none", "all"},
        {"HAKMEM_TINY_PAGE_BOX_CLASSES", "0-3", "1 to 60"},
        {"HAKMEM_TINY_PAGE_BOX_CLASSES", "61", "1 to 60"},
        {"HAKMEM_LAYERS", "cache,cash", "cache|pagebox|warmpool"},
        {"HAKMEM_HUGETLBFS", "/mnt/huge", "1|0|on|off"},
        {"HAKMEM_PROGRESS", "bar", "1|0|on|off"},
    };
    char said[64];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        CHECK_EQ(with(cases[i].name, cases[i].value), -EINVAL);
        CHECK_EQ(error.kind, HAK_ERROR_SETUP);
        CHECK_EQ(error.code, -EINVAL);
        snprintf(said, sizeof said, "%s=%s cannot", cases[i].name, cases[i].value);
        CHECK_STR_HAS(error.message, said);
        CHECK_STR_HAS(error.message, cases[i].hint);
    }
}

TEST(long_nonsense_is_cut_not_overrun)
{
    static char longest[4000];
    memset(longest, 'x', sizeof longest - 1);
    CHECK_EQ(with("HAKMEM_PAGES", longest), -EINVAL);
    CHECK_STR_HAS(error.message, "HAKMEM_PAGES=xxxx");
    CHECK_STR_HAS(error.message, "accepted: a comma list");
    memset(longest, '9', sizeof longest - 1);
    CHECK_EQ(with_heard("HAKMEM_WARM_POOL", longest), 0);
    CHECK_EQ(settings.warm_pool, 12);
    CHECK_STR_HAS(heard, "using 12\n");
}

TEST(lists_and_words_are_understood)
{
    CHECK_EQ(with("HAKMEM_PAGES", "4K,1g,4k"), 0);
    CHECK_EQ(settings.pages_count, 2);
    CHECK_EQ(settings.pages[0], HAK_PAGES_4K);
    CHECK_EQ(settings.pages[1], HAK_PAGES_1G);
    CHECK_EQ(with("HAKMEM_NODES", "0,2-3,63"), 0);
    CHECK_EQ(settings.nodes, (UINT64_C(1) << 63) | 0xd);
    CHECK_EQ(with("HAKMEM_NODES", "ALL"), 0);
    CHECK_EQ(settings.nodes, 0);
    CHECK_EQ(with("HAKMEM_TINY_PAGE_BOX_CLASSES", "1-8,12"), 0);
    CHECK_EQ(settings.page_box_classes, 0x11fe);
    CHECK_EQ(with("HAKMEM_TINY_PAGE_BOX_CLASSES", "none"), 0);
    CHECK_EQ(settings.page_box_classes, 0);
    CHECK_EQ(with("HAKMEM_LAYERS", "warmpool,cache"), 0);
    CHECK_EQ(settings.layers, LAYER_CACHE | LAYER_WARMPOOL);
    CHECK_EQ(with("HAKMEM_LAYERS", "none"), 0);
    CHECK_EQ(settings.layers, 0);
    CHECK_EQ(with("HAKMEM_PREFAULT", "off"), 0);
    CHECK(!settings.prefault);
    CHECK_EQ(with("HAKMEM_VERIFY", "0"), 0);
    CHECK(!settings.verify);
    CHECK_EQ(with("HAKMEM_WARM_POOL_STATS", "yes"), 0);
    CHECK(settings.warm_pool_stats);
    CHECK_EQ(with("HAKMEM_HUGETLBFS", "on"), 0);
    CHECK(settings.hugetlbfs && !settings.progress);
    CHECK_EQ(with("HAKMEM_PROGRESS", "1"), 0);
    CHECK(settings.progress && !settings.hugetlbfs);
    CHECK_EQ(with("HAKMEM_MISUSE", "ignore"), 0);
    CHECK_EQ(settings.misuse, HAK_MISUSE_IGNORE);
    CHECK_EQ(with("HAKMEM_EXHAUSTED", "any-node"), 0);
    CHECK_EQ(settings.exhausted, HAK_EXHAUSTED_ANY_NODE);
}

TEST(set_to_nothing_is_not_set)
{
    CHECK_EQ(with("HAKMEM_REGION_SIZE", ""), 0);
    CHECK_EQ(settings.size_bytes, 256 << 20);
    CHECK_EQ(with("HAKMEM_PAGES", ""), 0);
    CHECK_EQ(settings.pages_count, 3);
}

TEST(the_callers_fields_win)
{
    struct hak_config user = {.size_bytes = 64 << 20,
                              .pages = {HAK_PAGES_THP},
                              .nodes = 2,
                              .prefault = HAK_OFF,
                              .misuse = HAK_MISUSE_REPORT,
                              .exhausted = HAK_EXHAUSTED_ANY_NODE};
    clean();
    for (size_t i = 0; i < 7; i++)
        setenv(names[i], "nonsense", 1);
    setenv("HAKMEM_VERIFY", "off", 1);
    CHECK_EQ(config_resolve(&user, &settings, &error), 0);
    CHECK_EQ(settings.size_bytes, 64 << 20);
    CHECK_EQ(settings.pages_count, 1);
    CHECK_EQ(settings.pages[0], HAK_PAGES_THP);
    CHECK_EQ(settings.nodes, 2);
    CHECK(!settings.prefault && !settings.verify);
    CHECK_EQ(settings.misuse, HAK_MISUSE_REPORT);
    CHECK_EQ(settings.exhausted, HAK_EXHAUSTED_ANY_NODE);
}

TEST(fields_left_zero_take_the_environment)
{
    struct hak_config user = {.size_bytes = 64 << 20};
    clean();
    setenv("HAKMEM_REGION_SIZE", "1G", 1);
    setenv("HAKMEM_PAGES", "4k", 1);
    setenv("HAKMEM_NODES", "1", 1);
    CHECK_EQ(config_resolve(&user, &settings, &error), 0);
    CHECK_EQ(settings.size_bytes, 64 << 20);
    CHECK_EQ(settings.pages_count, 1);
    CHECK_EQ(settings.pages[0], HAK_PAGES_4K);
    CHECK_EQ(settings.nodes, 2);
}

TEST(the_callers_impossible_fields_are_refused)
{
    static const struct {
        struct hak_config config;
        int code;
        const char *hint;
    } cases[] = {
        {{.size_bytes = 1}, -EINVAL, "less than one SuperSlab"},
        {{.size_bytes = (2 << 20) - 1}, -EINVAL, "2097152"},
        {{.size_bytes = HAK_REGION_BYTES_MAX + 1}, -E2BIG, "too large"},
        {{.size_bytes = SIZE_MAX}, -E2BIG, "too large"},
        {{.pages = {HAK_PAGES_2M, (enum hak_pages)9}}, -EINVAL, "hak_config.pages = 9"},
        {{.prefault = (enum hak_switch)3}, -EINVAL, "hak_config.prefault = 3"},
        {{.misuse = (enum hak_misuse)7}, -EINVAL, "hak_config.misuse = 7"},
        {{.exhausted = (enum hak_exhausted)7}, -EINVAL, "hak_config.exhausted = 7"},
        {{.reserved = {0, 0, 0, 5}}, -EINVAL, "hak_config.reserved = 5"},
    };
    clean();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        memset(&error, 0, sizeof error);
        CHECK_EQ(config_resolve(&cases[i].config, &settings, &error), cases[i].code);
        CHECK_EQ(error.kind, HAK_ERROR_SETUP);
        CHECK_EQ(error.code, cases[i].code);
        CHECK_STR_HAS(error.message, cases[i].hint);
        /* Nobody has to want to know. */
        CHECK_EQ(config_resolve(&cases[i].config, &settings, NULL), cases[i].code);
    }
}

TEST(a_full_list_of_pages_needs_no_end)
{
    struct hak_config user = {
        .pages = {HAK_PAGES_4K, HAK_PAGES_4K, HAK_PAGES_1G, HAK_PAGES_THP, HAK_PAGES_2M}};
    clean();
    CHECK_EQ(config_resolve(&user, &settings, &error), 0);
    CHECK_EQ(settings.pages_count, 4);
    CHECK_EQ(settings.pages[3], HAK_PAGES_2M);
}

TEST(resolving_allocates_nothing)
{
    clean();
    setenv("HAKMEM_NODES", "0-1,7", 1);
    setenv("HAKMEM_MISUSE", "wrong", 1);
    struct mallinfo2 before = mallinfo2();
    CHECK_EQ(config_resolve(NULL, &settings, &error), -EINVAL);
    struct mallinfo2 after = mallinfo2();
    CHECK_EQ(before.uordblks, after.uordblks);
}

TEST(the_printed_table_has_every_variable_and_its_value)
{
    static char text[16384];
    clean();
    setenv("HAKMEM_REGION_SIZE", "8G", 1);
    setenv("HAKMEM_WARM_POOL", "40", 1);
    setenv("HAKMEM_MISUSE", "explode", 1);
    FILE *out = fmemopen(text, sizeof text, "w");
    CHECK(out != NULL);
    config_print(out);
    fclose(out);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        CHECK_STR_HAS(text, names[i]);
    CHECK_STR_HAS(text, "HAKMEM_REGION_SIZE=8G\n");
    CHECK_STR_HAS(text, "HAKMEM_PAGES=2M,thp,4k (default)\n");
    CHECK_STR_HAS(text, "HAKMEM_WARM_POOL=12, clamped from 40\n");
    CHECK_STR_HAS(text, "HAKMEM_MISUSE=explode  <- cannot be understood\n");
    CHECK_STR_HAS(text, "default 256M; accepted: 2M to 2T\n");
    clean();
}

HARNESS_MAIN()
