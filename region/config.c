/* SPDX-License-Identifier: MIT */
/*
 * The table of environment variables and what turns it, and the caller's struct, into settings.
 * Called by hak_region_init and hak_region_create before anything is reserved, by the preload
 * library at load, and by the tool and the demo to print the table.
 *
 * Each kind of variable has a reader, which hands values to the variable's setter. A reader says
 * 0, 1 for "clamped", or -EINVAL. getenv copies nothing, warnings are composed on the stack and
 * written at once, letters are told apart without the locale: all of it works before there is a
 * heap, and before libc has finished starting, when a preloaded allocator is first called.
 */
#define _GNU_SOURCE
#include "region/config.h"

#include "region/base.h"
#include "region/config_table.h"
#include "region/errlog.h"
#include "region/os.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static char upper(char c)
{
    return c >= 'a' && c <= 'z' ? (char)(c - 'a' + 'A') : c;
}

/* The first length characters of text are the word, in whatever case. */
static bool same_word(const char *text, size_t length, const char *word)
{
    for (size_t i = 0; i < length; i++)
        if (word[i] == '\0' || upper(text[i]) != upper(word[i]))
            return false;
    return word[length] == '\0';
}

static bool same_text(const char *text, const char *word)
{
    return same_word(text, strlen(text), word);
}

/* Digits only; too many of them is the largest number, which the range then cuts down. */
static const char *read_digits(const char *text, uint64_t *out)
{
    uint64_t value = 0;
    if (!is_digit(*text))
        return NULL;
    for (; is_digit(*text); text++) {
        uint64_t digit = (uint64_t)(*text - '0');
        value = value > (UINT64_MAX - digit) / 10 ? UINT64_MAX : value * 10 + digit;
    }
    *out = value;
    return text;
}

/* 8G, 512M, 2T, 64K, 4096; a B or iB after the letter is tolerated. */
static int read_size(const char *text, uint64_t *out)
{
    static const char letters[] = "KMGT";
    const char *at = read_digits(text, out);
    if (at == NULL)
        return -EINVAL;
    if (*at == '\0')
        return 0;
    const char *letter = strchr(letters, upper(*at));
    if (letter == NULL)
        return -EINVAL;
    unsigned shift = 10 * (unsigned)(letter - letters + 1);
    *out = *out > UINT64_MAX >> shift ? UINT64_MAX : *out << shift;
    at++;
    return *at == '\0' || same_text(at, "B") || same_text(at, "iB") ? 0 : -EINVAL;
}

/* A minus sign is a number below every range, not nonsense. */
static int read_integer(const char *text, uint64_t *out)
{
    bool negative = *text == '-';
    const char *at = read_digits(text + negative, out);
    if (at == NULL || *at != '\0')
        return -EINVAL;
    if (negative)
        *out = 0;
    return 0;
}

/* "0,2-3" with numbers from least to most, as bits. */
static int read_numbers(const struct variable *variable, const char *text, uint64_t *mask)
{
    *mask = 0;
    for (;;) {
        uint64_t first, last;
        text = read_digits(text, &first);
        if (text == NULL)
            return -EINVAL;
        last = first;
        if (*text == '-' && (text = read_digits(text + 1, &last)) == NULL)
            return -EINVAL;
        if (first < variable->least || last > variable->most || first > last)
            return -EINVAL;
        for (uint64_t number = first; number <= last && number < 64; number++)
            *mask |= UINT64_C(1) << number;
        if (*text == '\0')
            return 0;
        if (*text++ != ',')
            return -EINVAL;
    }
}

static int read_word(const struct variable *variable, const char *text, size_t length,
                     struct settings *out)
{
    for (const struct choice *choice = variable->choices; choice->word != NULL; choice++) {
        if (!same_word(text, length, choice->word))
            continue;
        variable->set(out, choice->value);
        return 0;
    }
    return -EINVAL;
}

static int read_words(const struct variable *variable, const char *text, struct settings *out)
{
    for (;;) {
        size_t length = strcspn(text, ",");
        int code = read_word(variable, text, length, out);
        if (code != 0 || text[length] == '\0')
            return code;
        text += length + 1;
    }
}

/* Nodes: "all" is the empty mask, as in struct hak_config. Classes: the mask of all. */
static int read_list(const struct variable *variable, const char *text, struct settings *out)
{
    uint64_t mask = 0;
    int code = 0;
    if (same_text(text, "all")) {
        if (variable->kind == KIND_CLASSES)
            mask = (UINT64_C(2) << variable->most) - (UINT64_C(1) << variable->least);
    } else if (variable->kind != KIND_CLASSES || !same_text(text, "none")) {
        code = read_numbers(variable, text, &mask);
    }
    if (code == 0)
        variable->set(out, mask);
    return code;
}

/* 1: the number was clamped. */
static int read_number(const struct variable *variable, const char *text, struct settings *out,
                       uint64_t *used)
{
    uint64_t value = 0;
    int code = variable->kind == KIND_SIZE ? read_size(text, &value) : read_integer(text, &value);
    if (code != 0)
        return code;
    *used = value < variable->least ? variable->least : value;
    *used = *used > variable->most ? variable->most : *used;
    variable->set(out, *used);
    return *used == value ? 0 : 1;
}

static int read_variable(const struct variable *variable, const char *text, struct settings *out,
                         uint64_t *used)
{
    switch (variable->kind) {
    case KIND_SIZE:
    case KIND_INTEGER:
        return read_number(variable, text, out, used);
    case KIND_BOOL:
    case KIND_CHOICE:
        return read_word(variable, text, strlen(text), out);
    case KIND_CHOICES:
        return read_words(variable, text, out);
    case KIND_NODES:
    case KIND_CLASSES:
        return read_list(variable, text, out);
    }
    return -EINVAL;
}

static void write_number(const struct variable *variable, uint64_t value, char *text, size_t bytes)
{
    static const char *const suffixes[] = {"", "K", "M", "G", "T"};
    int index = 0;
    while (variable->kind == KIND_SIZE && index < 4 && value != 0 && value % KIB == 0) {
        value /= KIB;
        index++;
    }
    snprintf(text, bytes, "%llu%s", (unsigned long long)value, suffixes[index]);
}

/* What would be accepted, for messages and for the printed table. */
static void write_accepted(const struct variable *variable, char *text, size_t bytes)
{
    char least[32], most[32];
    text[0] = '\0';
    write_number(variable, variable->least, least, sizeof least);
    write_number(variable, variable->most, most, sizeof most);
    switch (variable->kind) {
    case KIND_SIZE:
        errlog_append(text, bytes, "%s to %s", least, most);
        return;
    case KIND_INTEGER:
        errlog_append(text, bytes, "%s to %s %s", least, most, variable->unit);
        return;
    case KIND_NODES:
        errlog_append(text, bytes, "all, or a list of %s to %s like 0,2-3", least, most);
        return;
    case KIND_CLASSES:
        errlog_append(text, bytes, "all, none, or a list of %s to %s like 1-8,12", least, most);
        return;
    case KIND_BOOL:
    case KIND_CHOICE:
    case KIND_CHOICES:
        break;
    }
    if (variable->kind == KIND_CHOICES)
        errlog_append(text, bytes, "a comma list of ");
    for (const struct choice *choice = variable->choices; choice->word != NULL; choice++)
        errlog_append(text, bytes, "%s%s", choice == variable->choices ? "" : "|", choice->word);
}

static void warn_clamped(const struct variable *variable, const char *value, uint64_t used)
{
    char limit[32];
    bool over = used == variable->most;
    write_number(variable, used, limit, sizeof limit);
    errlog_say("%s=%.64s is %s than %s; using %s", variable->name, value, over ? "more" : "less",
               limit, limit);
}

/* The variable's text: NULL where it is unset, empty, or the process runs with others' rights. */
static const char *environment(const struct variable *variable)
{
    const char *text = secure_getenv(variable->name);
    return text != NULL && *text != '\0' ? text : NULL;
}

static int take_variable(unsigned index, struct settings *out, struct hak_error *error)
{
    const struct variable *variable = &config_table[index];
    const char *text = environment(variable);
    uint64_t used = 0;
    if (text != NULL)
        out->given |= 1U << index;
    int code = read_variable(variable, text != NULL ? text : variable->fallback, out, &used);
    if (code == 1)
        warn_clamped(variable, text, used);
    if (code >= 0)
        return 0;
    char accepted[160];
    write_accepted(variable, accepted, sizeof accepted);
    return errlog_fail(error, -EINVAL, HAK_ERROR_SETUP,
                       "%s=%.200s cannot be understood; accepted: %s", variable->name, text,
                       accepted);
}

static int refuse(struct hak_error *error, const char *field, unsigned long long value,
                  const char *accepted)
{
    return errlog_fail(error, -EINVAL, HAK_ERROR_SETUP,
                       "hak_config.%s = %llu cannot be understood; accepted: %s", field, value,
                       accepted);
}

static int take_user_size(size_t size, struct settings *out, struct hak_error *error)
{
    int code = 0;
    if (size < HAK_SUPERSLAB_BYTES)
        code = errlog_fail(error, -EINVAL, HAK_ERROR_SETUP,
                           "a region of %zu bytes is less than one SuperSlab; at least %zu (2M)",
                           size, HAK_SUPERSLAB_BYTES);
    else if (size > HAK_REGION_BYTES_MAX)
        code = errlog_fail(error, -E2BIG, HAK_ERROR_SETUP,
                           "a region of %zu bytes is too large; at most %zu (2T)", size,
                           HAK_REGION_BYTES_MAX);
    if (code != 0 && error != NULL)
        error->size_bytes = size;
    out->size_bytes = size;
    return code;
}

static int take_user_pages(const enum hak_pages *pages, struct settings *out,
                           struct hak_error *error)
{
    for (unsigned i = 0; i < HAK_PAGES_COUNT && pages[i] != HAK_PAGES_DEFAULT; i++) {
        if ((unsigned)pages[i] >= HAK_PAGES_COUNT)
            return refuse(error, "pages", (unsigned)pages[i], "enum hak_pages, ending with 0");
        config_add_pages(out, pages[i]);
    }
    return 0;
}

static int take_switch(const char *field, enum hak_switch given, bool *out, struct hak_error *error,
                       bool *taken)
{
    *taken = given != HAK_SWITCH_DEFAULT;
    *out = given == HAK_ON;
    return (unsigned)given <= HAK_OFF ? 0
                                      : refuse(error, field, (unsigned)given, "enum hak_switch");
}

/* A caller's field that stands in for a variable; *taken says whether it did. */
static int take_field(unsigned index, const struct hak_config *user, struct settings *out,
                      struct hak_error *error, bool *taken)
{
    switch (index) {
    case REGION_SIZE:
        *taken = user->size_bytes != 0;
        return *taken ? take_user_size(user->size_bytes, out, error) : 0;
    case PAGES:
        *taken = user->pages[0] != HAK_PAGES_DEFAULT;
        return *taken ? take_user_pages(user->pages, out, error) : 0;
    case NODES:
        *taken = user->nodes != 0;
        out->nodes = user->nodes;
        return 0;
    case PREFAULT:
        return take_switch("prefault", user->prefault, &out->prefault, error, taken);
    case MISUSE:
        *taken = user->misuse != HAK_MISUSE_DEFAULT;
        out->misuse = user->misuse;
        return (unsigned)user->misuse <= HAK_MISUSE_IGNORE
                   ? 0
                   : refuse(error, "misuse", (unsigned)user->misuse, "enum hak_misuse");
    case EXHAUSTED:
        *taken = user->exhausted != HAK_EXHAUSTED_DEFAULT;
        out->exhausted = user->exhausted;
        return (unsigned)user->exhausted <= HAK_EXHAUSTED_LIBC
                   ? 0
                   : refuse(error, "exhausted", (unsigned)user->exhausted, "enum hak_exhausted");
    case HARDENED:
        return take_switch("hardened", user->hardened, &out->hardened, error, taken);
    default:
        *taken = false;
        return 0;
    }
}

int config_resolve(const struct hak_config *user, struct settings *out, struct hak_error *error)
{
    memset(out, 0, sizeof *out);
    for (unsigned i = 0; user != NULL && i < sizeof user->reserved / sizeof *user->reserved; i++)
        if (user->reserved[i] != 0)
            return refuse(error, "reserved", user->reserved[i], "0");
    for (unsigned index = 0; index < VARIABLES; index++) {
        bool taken = false;
        int code = user == NULL ? 0 : take_field(index, user, out, error, &taken);
        if (code == 0 && taken)
            out->given |= 1U << index;
        else if (code == 0)
            code = take_variable(index, out, error);
        if (code != 0)
            return code;
    }
    return 0;
}

bool config_describe(unsigned index, struct config_entry *out)
{
    if (index >= VARIABLES)
        return false;
    const struct variable *variable = &config_table[index];
    struct settings scratch = {0};
    uint64_t used = 0;
    memset(out, 0, sizeof *out);
    out->name = variable->name;
    out->fallback = variable->fallback;
    out->preloaded = config_preloaded[index] != NULL ? config_preloaded[index] : variable->fallback;
    out->sentence = variable->sentence;
    out->is_switch = variable->kind == KIND_BOOL;
    out->text = environment(variable);
    write_accepted(variable, out->accepted, sizeof out->accepted);
    if (out->text != NULL)
        out->verdict = read_variable(variable, out->text, &scratch, &used);
    if (out->verdict == 1)
        write_number(variable, used, out->used, sizeof out->used);
    return true;
}

void config_print(FILE *out)
{
    struct config_entry entry;
    for (unsigned index = 0; config_describe(index, &entry); index++) {
        bool clamped = entry.verdict == 1;
        fprintf(out, "%s=%s%s%s%s\n    %s\n    default %s; accepted: %s\n", entry.name,
                clamped ? entry.used : (entry.text != NULL ? entry.text : entry.fallback),
                entry.text == NULL ? " (default)" : "", clamped ? ", clamped from " : "",
                clamped ? entry.text : (entry.verdict < 0 ? "  <- cannot be understood" : ""),
                entry.sentence, entry.fallback, entry.accepted);
    }
}
