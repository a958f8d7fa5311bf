/* SPDX-License-Identifier: MIT */
/*
 * The configuration: texts of the environment variables and fields of struct hak_config, whatever
 * they are. What a text means is worked out a second time here, from the documented grammar, by
 * regular expressions and wide arithmetic; config_resolve has to say the same: settings in their
 * ranges, clamped where documented, or an error whose message names a culprit.
 *
 * An input: how many variables are set, for each its number, its length and its text; then whether
 * there is a struct, and its fields. A text lies in a heap block of its own length, so that
 * AddressSanitizer sees a read past its end.
 */
#include "region/config.h"
#include "tests/fuzz/fuzz_kit.h"

#include <regex.h>

#define TEXTS 3
#define TEXT_MAX 80

enum grammar { GRAMMAR_SIZE, GRAMMAR_INTEGER, GRAMMAR_WORDS, GRAMMAR_LIST };

/* As the documentation has them; compared with config_describe's list at the start. */
static const struct rule {
    const char *name;
    enum grammar grammar;
    const char *pattern; /* POSIX extended, whatever the case */
    uint64_t least, most;
} rules[] = {
    {"HAKMEM_REGION_SIZE", GRAMMAR_SIZE, "", (uint64_t)2 << 20, (uint64_t)2 << 40},
    {"HAKMEM_PAGES", GRAMMAR_WORDS, "(1G|2M|thp|4k)(,(1G|2M|thp|4k))*", 0, 0},
    {"HAKMEM_NODES", GRAMMAR_LIST, "all", 0, 63},
    {"HAKMEM_PREFAULT", GRAMMAR_WORDS, "0|1|on|off|yes|no|true|false", 0, 0},
    {"HAKMEM_VERIFY", GRAMMAR_WORDS, "0|1|on|off|yes|no|true|false", 0, 0},
    {"HAKMEM_MISUSE", GRAMMAR_WORDS, "abort|report|ignore", 0, 0},
    {"HAKMEM_EXHAUSTED", GRAMMAR_WORDS, "fail|any-node|libc", 0, 0},
    {"HAKMEM_TINY_PAGE_BOX_CLASSES", GRAMMAR_LIST, "all|none", 1, 60},
    {"HAKMEM_WARM_POOL", GRAMMAR_INTEGER, "", 1, 12},
    {"HAKMEM_WARM_POOL_STATS", GRAMMAR_WORDS, "0|1|on|off|yes|no|true|false", 0, 0},
    {"HAKMEM_LAYERS", GRAMMAR_WORDS,
     "(cache|pagebox|warmpool|none)(,(cache|pagebox|warmpool|none))*", 0, 0},
    {"HAKMEM_HUGETLBFS", GRAMMAR_WORDS, "0|1|on|off|yes|no|true|false", 0, 0},
    {"HAKMEM_PROGRESS", GRAMMAR_WORDS, "0|1|on|off|yes|no|true|false", 0, 0},
    {"HAKMEM_HARDENED", GRAMMAR_WORDS, "0|1|on|off|yes|no|true|false", 0, 0},
    {"HAKMEM_HARDENED_FILL", GRAMMAR_SIZE, "", 16, (uint64_t)2 << 40},
};

#define RULES (sizeof rules / sizeof *rules)

static regex_t patterns[RULES];

/* What a text means. */
struct meaning {
    bool valid, clamped;
    uint64_t value; /* of a number after clamping; of a list the numbers as bits */
};

/* ---- the second opinion ---------------------------------------------------------------------- */

static uint64_t clamp(const struct rule *rule, unsigned __int128 value, struct meaning *out)
{
    if (value < rule->least) {
        value = rule->least;
        out->clamped = true;
    }
    if (value > rule->most) {
        value = rule->most;
        out->clamped = true;
    }
    return (uint64_t)value;
}

/* Digits and what follows them; beyond 2^70 it no longer matters by how much. */
static unsigned __int128 wide(const char *text)
{
    unsigned __int128 value = 0;

    for (; *text >= '0' && *text <= '9'; text++) {
        value = value > (unsigned __int128)1 << 70 ? value : value * 10 + (unsigned)(*text - '0');
    }
    return value;
}

static void mean_number(const struct rule *rule, const char *text, struct meaning *out)
{
    static const char letters[] = "kmgt";
    bool negative = text[0] == '-';
    unsigned __int128 value = wide(text + negative);
    const char *after = text + negative + strspn(text + negative, "0123456789");

    if (rule->grammar == GRAMMAR_SIZE && *after != '\0') {
        value <<= 10 * (strchr(letters, *after | 32) - letters + 1);
    }
    /* Below every range. */
    out->value = clamp(rule, negative ? 0 : value, out);
}

static void mean_list(const struct rule *rule, const char *text, struct meaning *out)
{
    if ((text[0] | 32) == 'a') {
        out->value = rule->least == 0 ? 0 : ((uint64_t)2 << rule->most) - 2;
        return;
    }
    for (const char *at = text; (text[0] | 32) != 'n' && at != NULL; at = strchr(at, ',')) {
        at += *at == ',';
        const char *dash = strchr(at, '-'), *comma = strchr(at, ',');
        unsigned __int128 first = wide(at), last = first;
        if (dash != NULL && (comma == NULL || dash < comma)) {
            last = wide(dash + 1);
        }
        if (first < rule->least || last > rule->most || first > last) {
            out->valid = false;
            return;
        }
        for (; first <= last; first++) {
            out->value |= (uint64_t)1 << (unsigned)first;
        }
    }
}

static struct meaning mean(size_t index, const char *text)
{
    const struct rule *rule = &rules[index];
    struct meaning out = {.valid = regexec(&patterns[index], text, 0, NULL, 0) == 0};

    if (out.valid && (rule->grammar == GRAMMAR_SIZE || rule->grammar == GRAMMAR_INTEGER)) {
        mean_number(rule, text, &out);
    } else if (out.valid && rule->grammar == GRAMMAR_LIST) {
        mean_list(rule, text, &out);
    }
    return out;
}

/* ---- what comes out -------------------------------------------------------------------------- */

/* Whatever went in: what the rest of the library counts on. */
static void check_ranges(const struct settings *out)
{
    unsigned seen = 0;

    FUZZ_CHECK(out->size_bytes >= HAK_SUPERSLAB_BYTES && out->size_bytes <= HAK_REGION_BYTES_MAX);
    FUZZ_CHECK(out->pages_count >= 1 && out->pages_count < HAK_PAGES_COUNT);
    for (unsigned n = 0; n < out->pages_count; n++) {
        unsigned pages = (unsigned)out->pages[n];
        FUZZ_CHECK(pages > HAK_PAGES_DEFAULT && pages < HAK_PAGES_COUNT);
        FUZZ_CHECK((seen >> pages & 1) == 0);
        seen |= 1U << pages;
    }
    FUZZ_CHECK(out->misuse >= HAK_MISUSE_ABORT && out->misuse <= HAK_MISUSE_IGNORE);
    FUZZ_CHECK(out->exhausted >= HAK_EXHAUSTED_FAIL && out->exhausted <= HAK_EXHAUSTED_LIBC);
    FUZZ_CHECK(out->warm_pool >= 1 && out->warm_pool <= CONFIG_WARM_POOL_MAX);
    FUZZ_CHECK((out->layers & ~(unsigned)LAYER_ALL) == 0);
    FUZZ_CHECK((out->page_box_classes & ~(((uint64_t)2 << CONFIG_CLASSES_MAX) - 2)) == 0);
    FUZZ_CHECK(out->fill_bytes >= 16 && out->fill_bytes <= HAK_REGION_BYTES_MAX);
    FUZZ_CHECK(!out->fork_inherits && out->huge_from_bytes == 0);
}

/* The numbers that a text asked for. */
static void check_value(size_t index, const struct meaning *meaning, const struct settings *out)
{
    switch (index) {
    case 0:
        FUZZ_EQ(out->size_bytes, meaning->value);
        break;
    case 2:
        FUZZ_EQ(out->nodes, meaning->value);
        break;
    case 7:
        FUZZ_EQ(out->page_box_classes, meaning->value);
        break;
    case 8:
        FUZZ_EQ(out->warm_pool, meaning->value);
        break;
    case 14:
        FUZZ_EQ(out->fill_bytes, meaning->value);
        break;
    default:
        break;
    }
}

static void check_described(size_t index, const char *text, const struct meaning *meaning)
{
    struct config_entry entry;

    FUZZ_CHECK(config_describe((unsigned)index, &entry));
    FUZZ_CHECK(strcmp(entry.name, rules[index].name) == 0);
    if (text == NULL || *text == '\0') {
        FUZZ_CHECK(entry.text == NULL && entry.verdict == 0);
        return;
    }
    FUZZ_CHECK(entry.text != NULL && strcmp(entry.text, text) == 0);
    int verdict = !meaning->valid ? -EINVAL : meaning->clamped;
    if (entry.verdict != verdict) {
        FUZZ_FAIL("%s=%s: verdict %d, not %d", entry.name, text, entry.verdict, verdict);
    }
    FUZZ_EQ(entry.used[0] != '\0', verdict == 1);
}

/* ---- what goes in ---------------------------------------------------------------------------- */

struct field {
    const char *name;
    size_t rule; /* the variable that it stands in for; RULES: none */
    bool given, bad;
};

#define FIELDS 7

static bool take_config(struct fuzz_input *input, struct hak_config *config, struct field *fields)
{
    unsigned which = fuzz_byte(input);
    bool pages_bad = false;

    memset(config, 0, sizeof *config);
    if ((which & 1) == 0) {
        return false;
    }
    config->size_bytes = (which & 2) != 0 ? fuzz_eight(input) >> (fuzz_byte(input) & 63) : 0;
    for (unsigned n = 0; (which & 4) != 0 && n < HAK_PAGES_COUNT; n++) {
        config->pages[n] = (enum hak_pages)(fuzz_byte(input) % 7);
    }
    config->nodes = (which & 8) != 0 ? fuzz_eight(input) : 0;
    config->prefault = (which & 16) != 0 ? (enum hak_switch)(fuzz_two(input) % 1000) : 0;
    config->misuse = (which & 32) != 0 ? (enum hak_misuse)(fuzz_two(input) % 1000) : 0;
    config->exhausted = (which & 64) != 0 ? (enum hak_exhausted)(fuzz_two(input) % 1000) : 0;
    config->hardened = (which & 64) != 0 ? (enum hak_switch)(fuzz_byte(input) % 5) : 0;
    config->reserved[which >> 6] = (which & 128) != 0 ? fuzz_byte(input) : 0;
    for (unsigned n = 0; n < HAK_PAGES_COUNT && config->pages[n] != 0; n++) {
        pages_bad |= (unsigned)config->pages[n] >= HAK_PAGES_COUNT;
    }
    size_t size = config->size_bytes;
    const struct field all[FIELDS] = {
        {"a region of", 0, size != 0,
         size != 0 && (size < HAK_SUPERSLAB_BYTES || size > HAK_REGION_BYTES_MAX)},
        {"hak_config.pages", 1, config->pages[0] != 0, pages_bad},
        {"hak_config.prefault", 3, config->prefault != 0, config->prefault > HAK_OFF},
        {"hak_config.misuse", 5, config->misuse != 0, config->misuse > HAK_MISUSE_IGNORE},
        {"hak_config.exhausted", 6, config->exhausted != 0, config->exhausted > HAK_EXHAUSTED_LIBC},
        {"hak_config.hardened", 13, config->hardened != 0, config->hardened > HAK_OFF},
        {"hak_config.reserved", RULES, false, config->reserved[which >> 6] != 0},
    };
    memcpy(fields, all, sizeof all);
    return true;
}

/* Whether the message names something that is wrong. */
static bool names_culprit(const char *message, const struct field *fields, char *const *texts)
{
    for (unsigned n = 0; n < FIELDS; n++) {
        if (fields[n].bad && strstr(message, fields[n].name) != NULL) {
            return true;
        }
    }
    for (size_t index = 0; index < RULES; index++) {
        const char *at = texts[index] == NULL ? NULL : strstr(message, rules[index].name);
        if (at != NULL && at[strlen(rules[index].name)] == '=' &&
            !mean(index, texts[index] + strlen(rules[index].name) + 1).valid) {
            return true;
        }
    }
    return false;
}

/* ---- an input -------------------------------------------------------------------------------- */

static void check_resolved(const struct hak_config *config, const struct field *fields,
                           char *const *texts)
{
    struct settings out, again;
    struct hak_error error, same;
    bool bad = false, too_big = config != NULL && config->size_bytes > HAK_REGION_BYTES_MAX;
    bool covered[RULES + 1] = {false};

    memset(&error, 0, sizeof error);
    int code = config_resolve(config, &out, &error);
    FUZZ_EQ(config_resolve(config, &again, &same), code);
    for (unsigned n = 0; n < FIELDS; n++) {
        bad |= fields[n].bad;
        covered[fields[n].rule] |= fields[n].given;
    }
    covered[2] = config != NULL && config->nodes != 0;
    for (size_t index = 0; index < RULES; index++) {
        const char *text = texts[index] == NULL ? NULL
                                                : texts[index] + strlen(rules[index].name) + 1;
        struct meaning meaning = {.valid = true};
        if (text != NULL && *text != '\0') {
            meaning = mean(index, text);
            bad |= !covered[index] && !meaning.valid;
        }
        check_described(index, text, &meaning);
        if (code == 0 && text != NULL && *text != '\0' && !covered[index]) {
            check_value(index, &meaning, &out);
        }
    }
    if (code == 0) {
        FUZZ_CHECK(!bad);
        /* NOLINTNEXTLINE(bugprone-suspicious-memory-comparison): zeroed whole by config_resolve. */
        FUZZ_EQ(memcmp(&out, &again, sizeof out), 0);
        check_ranges(&out);
        return;
    }
    FUZZ_CHECK(bad && (code == -EINVAL || (code == -E2BIG && too_big)));
    FUZZ_EQ(error.code, code);
    FUZZ_EQ(error.kind, HAK_ERROR_SETUP);
    FUZZ_CHECK(memchr(error.message, '\0', sizeof error.message) != NULL);
    if (!names_culprit(error.message, fields, texts)) {
        FUZZ_FAIL("the message names nothing that is wrong: %s", error.message);
    }
}

/* "NAME=text" in a block that ends with it, and into the environment with it. */
static char *put_text(struct fuzz_input *input, size_t index)
{
    size_t name = strlen(rules[index].name), length = fuzz_byte(input) % TEXT_MAX;

    length = min_size(length, (size_t)(input->end - input->at));
    char *block = malloc(name + length + 2);
    FUZZ_CHECK(block != NULL);
    memcpy(block, rules[index].name, name);
    block[name] = '=';
    for (size_t n = 0; n < length; n++) {
        block[name + 1 + n] = (char)fuzz_byte(input);
    }
    block[name + 1 + length] = '\0';
    char *exact = strdup(block); /* a zero in it ends it */
    free(block);
    FUZZ_CHECK(exact != NULL);
    FUZZ_EQ(putenv(exact), 0);
    return exact;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    static const char *const forms[] = {[GRAMMAR_SIZE] = "[0-9]+([kmgt](b|ib)?)?",
                                        [GRAMMAR_INTEGER] = "-?[0-9]+",
                                        [GRAMMAR_WORDS] = "",
                                        [GRAMMAR_LIST] = "[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*|"};
    struct config_entry entry;
    char pattern[256];

    (void)argc;
    (void)argv;
    fuzz_keep_report();
    for (size_t index = 0; index < RULES; index++) {
        (void)unsetenv(rules[index].name);
        FUZZ_CHECK(config_describe((unsigned)index, &entry));
        FUZZ_CHECK(strcmp(entry.name, rules[index].name) == 0);
        (void)snprintf(pattern, sizeof pattern, "^(%s%s)$", forms[rules[index].grammar],
                       rules[index].pattern);
        FUZZ_EQ(regcomp(&patterns[index], pattern, REG_EXTENDED | REG_ICASE | REG_NOSUB), 0);
    }
    FUZZ_CHECK(!config_describe((unsigned)RULES, &entry)); /* a new one needs a rule above */
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static FILE *sink;
    struct fuzz_input input = {data, data + size};
    struct field fields[FIELDS] = {{0}};
    struct hak_config config;
    char *texts[RULES] = {NULL};

    /* NOLINTNEXTLINE(clang-analyzer-unix.*): each is freed below, by its index. */
    for (unsigned count = fuzz_byte(&input) % (TEXTS + 1); count > 0; count--) {
        size_t index = fuzz_byte(&input) % RULES;
        if (texts[index] == NULL) {
            texts[index] = put_text(&input, index);
        }
    }
    bool given = take_config(&input, &config, fields);
    check_resolved(given ? &config : NULL, fields, texts);
    if (sink == NULL) {
        sink = fopen("/dev/null", "w");
    }
    FUZZ_CHECK(sink != NULL);
    config_print(sink);
    for (size_t index = 0; index < RULES; index++) {
        (void)unsetenv(rules[index].name);
        free(texts[index]);
    }
    return 0;
}
