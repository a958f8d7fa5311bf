/* SPDX-License-Identifier: MIT */
/* The table, and what turns a value into a setting. Name, kind, default, least, most, unit, words,
 * setter and sentence of every variable stand here and nowhere else. */
#include "region/config_table.h"

_Static_assert(HAK_REGION_BYTES_MAX == 2 * TIB, "the sentence in the table says 2T");
_Static_assert(HAK_SUPERSLAB_BYTES == 2 * MIB, "the sentence in the table says 2M");
_Static_assert(CONFIG_CLASSES_MAX < 64, "classes are bits of a mask");

static const struct choice page_choices[] = {{"1G", HAK_PAGES_1G},
                                             {"2M", HAK_PAGES_2M},
                                             {"thp", HAK_PAGES_THP},
                                             {"4k", HAK_PAGES_4K},
                                             {NULL, 0}};
static const struct choice misuse_choices[] = {{"abort", HAK_MISUSE_ABORT},
                                               {"report", HAK_MISUSE_REPORT},
                                               {"ignore", HAK_MISUSE_IGNORE},
                                               {NULL, 0}};
static const struct choice exhausted_choices[] = {{"fail", HAK_EXHAUSTED_FAIL},
                                                  {"any-node", HAK_EXHAUSTED_ANY_NODE},
                                                  {"libc", HAK_EXHAUSTED_LIBC},
                                                  {NULL, 0}};
static const struct choice layer_choices[] = {{"cache", LAYER_CACHE},
                                              {"pagebox", LAYER_PAGEBOX},
                                              {"warmpool", LAYER_WARMPOOL},
                                              {"none", 0},
                                              {NULL, 0}};
static const struct choice bool_choices[] = {{"1", 1},    {"0", 0},     {"on", 1},
                                             {"off", 0},  {"yes", 1},   {"no", 0},
                                             {"true", 1}, {"false", 0}, {NULL, 0}};

static void set_size(struct settings *out, uint64_t value)
{
    out->size_bytes = (size_t)value;
}

/* Called once for each word of the list, in its order. */
void config_add_pages(struct settings *out, uint64_t value)
{
    for (unsigned i = 0; i < out->pages_count; i++)
        if (out->pages[i] == (enum hak_pages)value)
            return;
    out->pages[out->pages_count++] = (enum hak_pages)value;
}

static void set_nodes(struct settings *out, uint64_t value)
{
    out->nodes = value;
}

static void set_prefault(struct settings *out, uint64_t value)
{
    out->prefault = value != 0;
}

static void set_verify(struct settings *out, uint64_t value)
{
    out->verify = value != 0;
}

static void set_misuse(struct settings *out, uint64_t value)
{
    out->misuse = (enum hak_misuse)value;
}

static void set_exhausted(struct settings *out, uint64_t value)
{
    out->exhausted = (enum hak_exhausted)value;
}

static void set_box_classes(struct settings *out, uint64_t value)
{
    out->page_box_classes = value;
}

static void set_warm_pool(struct settings *out, uint64_t value)
{
    out->warm_pool = (unsigned)value;
}

static void set_warm_stats(struct settings *out, uint64_t value)
{
    out->warm_pool_stats = value != 0;
}

static void add_layer(struct settings *out, uint64_t value)
{
    out->layers |= (unsigned)value;
}

static void set_hugetlbfs(struct settings *out, uint64_t value)
{
    out->hugetlbfs = value != 0;
}

static void set_progress(struct settings *out, uint64_t value)
{
    out->progress = value != 0;
}

static void set_hardened(struct settings *out, uint64_t value)
{
    out->hardened = value != 0;
}

static void set_fill(struct settings *out, uint64_t value)
{
    out->fill_bytes = (size_t)value;
}

_Static_assert(GIVEN_SIZE == 1U << REGION_SIZE && GIVEN_PAGES == 1U << PAGES &&
                   GIVEN_PREFAULT == 1U << PREFAULT && GIVEN_EXHAUSTED == 1U << EXHAUSTED,
               "a bit a variable");

const struct variable config_table[VARIABLES] = {
    [REGION_SIZE] = {"HAKMEM_REGION_SIZE", KIND_SIZE, "256M", 2 * MIB, 2 * TIB, "bytes", NULL,
                     set_size, "Size of the region, shared out evenly over its nodes."},
    [PAGES] = {"HAKMEM_PAGES", KIND_CHOICES, "2M,thp,4k", 0, 0, "", page_choices, config_add_pages,
               "Page sizes in order of preference; the first that can be had for the whole region "
               "is taken. A single one is strict."},
    [NODES] = {"HAKMEM_NODES", KIND_NODES, "all", 0, 63, "", NULL, set_nodes,
               "NUMA nodes that get a segment: all that have memory, or a list like 0,2-3."},
    [PREFAULT] = {"HAKMEM_PREFAULT", KIND_BOOL, "1", 0, 1, "", bool_choices, set_prefault,
                  "Fault the whole region in at the start, so that the work takes no page fault."},
    [VERIFY] = {"HAKMEM_VERIFY", KIND_BOOL, "1", 0, 1, "", bool_choices, set_verify,
                "Ask the kernel for every page's node after fault-in."},
    [MISUSE] = {"HAKMEM_MISUSE", KIND_CHOICE, "abort", 0, 0, "", misuse_choices, set_misuse,
                "What a bad free does."},
    [EXHAUSTED] = {"HAKMEM_EXHAUSTED", KIND_CHOICE, "fail", 0, 0, "", exhausted_choices,
                   set_exhausted,
                   "What an allocation does when its node has no room. libc: it comes from the C "
                   "library; for preloaded programs only."},
    [BOX_CLASSES] = {"HAKMEM_TINY_PAGE_BOX_CLASSES", KIND_CLASSES, "all", 1, CONFIG_CLASSES_MAX, "",
                     NULL, set_box_classes,
                     "Size classes whose slabs a thread keeps in a page box: all, none, or a list "
                     "like 1-8,12."},
    [WARM_POOL] = {"HAKMEM_WARM_POOL", KIND_INTEGER, "12", 1, CONFIG_WARM_POOL_MAX, "SuperSlabs",
                   NULL, set_warm_pool, "Capacity of a thread's warm pool of one class."},
    [WARM_STATS] = {"HAKMEM_WARM_POOL_STATS", KIND_BOOL, "0", 0, 1, "", bool_choices,
                    set_warm_stats, "Print the warm pools' hits and misses per class at exit."},
    [LAYERS] = {"HAKMEM_LAYERS", KIND_CHOICES, "cache,pagebox,warmpool", 0, 0, "", layer_choices,
                add_layer, "Layers in use; those not named are left out, to measure them."},
    [HUGETLBFS] = {"HAKMEM_HUGETLBFS", KIND_BOOL, "0", 0, 1, "", bool_choices, set_hugetlbfs,
                   "Back 2M and 1G pages by an unlinked file on the hugetlbfs mount that "
                   "libhugetlbfs finds, so that its size limit and permissions count."},
    [PROGRESS] = {"HAKMEM_PROGRESS", KIND_BOOL, "0", 0, 1, "", bool_choices, set_progress,
                  "Tell on standard error how the region is faulted in (HAKMEM_PREFAULT): above "
                  "2 GiB as it goes on, always how long it took."},
    [HARDENED] = {"HAKMEM_HARDENED", KIND_BOOL, "0", 0, 1, "", bool_choices, set_hardened,
                  "Check every free at the call, fill and hold back what was freed, choose at "
                  "random, put guards around: slower; see docs/security.md."},
    [HARDENED_FILL] = {"HAKMEM_HARDENED_FILL", KIND_SIZE, "64", 16, 2 * TIB, "bytes", NULL,
                       set_fill,
                       "In the hardened mode: so many bytes of a freed object, from its start, are "
                       "filled and looked at again when it is handed out."},
};

const char *const config_preloaded[VARIABLES] = {
    [REGION_SIZE] = "the machine's memory; 256M with prefault; half of the free pages of 2M or 1G",
    [PAGES] = "thp,4k",
    [PREFAULT] = "0",
    [EXHAUSTED] = "any-node",
};
