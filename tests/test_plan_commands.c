/* SPDX-License-Identifier: MIT */
/*
 * The commands of hak_region_plan: when they are run, what was missing is there; where nothing
 * helps or nothing is missing there are none; and a text that is too long ends with a whole line.
 */
#define _GNU_SOURCE
#include "region/plan.h"
#include "region/shortage.h"
#include "tests/plan_kit.h"

static void lack_pages(uint64_t lacking, struct hak_config *config, struct held_pool **held,
                       struct supply_pool *pool)
{
    *held = hold_pool(HAK_PAGES_2M);
    CHECK_EQ(supply_pool_read(first_node(), HAK_PAGES_2M, pool), 0);
    *config = config_of((supply_unpromised(HAK_PAGES_2M) + lacking) * 2 * MIB, HAK_PAGES_2M,
                        HAK_PAGES_DEFAULT);
    check_agreement(config);
    CHECK_EQ(plan.code, -ENOMEM);
    CHECK_EQ(only_node()->missing_pages, lacking);
}

static void mend(const char *commands, const struct hak_config *config)
{
    if (geteuid() != 0 || system(commands) != 0)
        SKIP("the commands need root");
    check_agreement(config);
    if (plan.code != 0 && only_node()->missing_pages > 0)
        SKIP("this machine cannot make so many more pages");
    CHECK_EQ(plan.code, 0);
    restore_pools();
}

TEST(the_sysfs_commands_provide_what_is_missing)
{
    struct hak_config config;
    struct held_pool *held;
    struct supply_pool pool;
    char text[320];
    lack_pages(7, &config, &held, &pool);
    snprintf(text, sizeof text, "echo %llu > %s\n", (unsigned long long)pool.total_pages + 7,
             held->path);
    CHECK_EQ(strcmp(plan.now, text), 0);
    mend(plan.now, &config);
}

TEST(the_hugeadm_commands_provide_what_is_missing)
{
    struct hak_config config;
    struct held_pool *held;
    struct supply_pool pool;
    char text[sizeof plan.hugeadm + 32];
    lack_pages(5, &config, &held, &pool);
    if (single_node())
        CHECK_EQ(strcmp(plan.hugeadm, "hugeadm --pool-pages-min 2M:+5\n"), 0);
    else
        CHECK_STR_HAS(plan.hugeadm, "hugeadm --obey-mempolicy --pool-pages-min 2M:+5\n");
    if (system("command -v hugeadm >/dev/null && { test $(ls -d "
               "/sys/devices/system/node/node* | wc -l) = 1 || command -v numactl; } >/dev/null") !=
        0)
        SKIP("no hugeadm here (package libhugetlbfs-bin)");
    /* It complains of missing swap. */
    snprintf(text, sizeof text, "{ %s } 2>/dev/null", plan.hugeadm);
    mend(text, &config);
}

/* Pages that the kernel made on demand are in the pool's count, and not in hugeadm's. */
TEST(the_commands_hold_where_the_pool_has_a_surplus)
{
    static const char extra[] = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_overcommit_hugepages";
    struct hak_config config;
    struct held_pool *held;
    struct supply_pool pool;
    char before[32], text[sizeof plan.hugeadm + 32];
    void *others = NULL;
    held = hold_pool(HAK_PAGES_2M);
    if (geteuid() != 0 || !single_node() || sysfs_read(extra, before, sizeof before) <= 0)
        SKIP("cannot let the kernel make pages on demand");
    if (system("command -v hugeadm >/dev/null") != 0)
        SKIP("no hugeadm here (package libhugetlbfs-bin)");
    CHECK(write_pool(extra, "64"));
    size_t bytes = (supply_unpromised(HAK_PAGES_2M) + 3) * 2 * MIB;
    int code = os_map_hugetlb(bytes, HAK_PAGES_2M, &others);
    if (code == 0)
        code = os_populate(others, bytes, true);
    CHECK(write_pool(extra, before));
    CHECK_EQ(supply_pool_read(first_node(), HAK_PAGES_2M, &pool), 0);
    CHECK_EQ(code, 0);
    CHECK_EQ(pool.surplus_pages, 3);
    lack_pages(4, &config, &held, &pool);
    CHECK_EQ(strcmp(plan.hugeadm, "hugeadm --pool-pages-min 2M:+7\n"), 0);
    snprintf(text, sizeof text, "{ %s } 2>/dev/null", plan.hugeadm);
    CHECK_EQ(system(text), 0);
    check_agreement(&config);
    code = plan.code;
    os_release(others, bytes);
    restore_pools();
    CHECK_EQ(code, 0);
}

TEST(the_boot_words_hold_the_pool_and_what_is_missing)
{
    struct hak_config config;
    struct held_pool *held;
    struct supply_pool pool;
    char text[64];
    want_free(HAK_PAGES_2M, 3);
    lack_pages(9, &config, &held, &pool);
    if (!single_node())
        SKIP("several nodes: see tests/numa");
    snprintf(text, sizeof text, "hugepagesz=2M hugepages=%llu",
             (unsigned long long)pool.total_pages + 9);
    CHECK_EQ(strcmp(plan.boot, text), 0);
    /* Of the size that is helped, which may be the second. */
    config = config_of(HAK_REGION_BYTES_MAX / 2, HAK_PAGES_1G, HAK_PAGES_2M);
    check_agreement(&config);
    CHECK_EQ(plan.now[0] + plan.hugeadm[0] + plan.boot[0], 0);
}

TEST(nothing_is_lacking_where_an_earlier_size_can_be_had)
{
    struct hak_config config = config_of(64 * MIB, HAK_PAGES_4K, HAK_PAGES_1G);
    check_agreement(&config);
    CHECK_EQ(plan.chosen, 0);
    CHECK_EQ(plan.kind_count, 2);
    CHECK_EQ(plan.message[0] + plan.now[0] + plan.hugeadm[0] + plan.boot[0], 0);
    config = config_of(64 * GIB, HAK_PAGES_2M, HAK_PAGES_4K);
    config.prefault = HAK_OFF;
    want_overcommit();
    CHECK_EQ(hak_region_plan(&config, &plan), 0);
    CHECK_EQ(plan.chosen, 1);
    CHECK_STR_HAS(plan.message, " would be of 4k pages, not the first of the list: 2M pages: ");
}

/* Sixty-four nodes, each short of a page, of which those of this machine have commands, and two
 * limits in files of long names. */
static void make_long_finding(struct plan_finding *finding)
{
    plan_begin(HAK_PAGES_2M, true, finding);
    for (int node = 0; node < HAK_NODES_MAX; node++) {
        plan_wish(finding, node, 2 * MIB);
        finding->kind.nodes[node].missing_pages = 1;
        finding->kind.nodes[node].memory_bytes = GIB;
        finding->missing_pages++;
    }
    finding->there = finding->populates = true;
    finding->memory_bytes = MIB;
    finding->hugetlb.room_bytes = finding->memory.room_bytes = 0;
    memset(finding->hugetlb.file, 'h', 300);
    memset(finding->memory.file, 'm', 500);
    finding->address_bytes = finding->commit_bytes = UINT64_MAX;
}

TEST(texts_are_cut_between_lines)
{
    static struct plan_finding finding;
    static char whole[8192], cut[8192];
    hold_pool(HAK_PAGES_2M);
    make_long_finding(&finding);
    for (int means = SHORTAGE_SYSFS; means <= SHORTAGE_HUGEADM; means++) {
        whole[0] = '\0';
        CHECK(shortage_commands(&finding, (enum shortage_means)means, whole, sizeof whole));
        CHECK(strlen(whole) > (means == SHORTAGE_SYSFS ? 800 : 20));
        for (size_t capacity = 1; capacity <= strlen(whole); capacity++) {
            cut[0] = '\0';
            memset(cut + capacity, 'x', 2);
            CHECK(!shortage_commands(&finding, (enum shortage_means)means, cut, capacity));
            size_t length = strlen(cut);
            CHECK(length < capacity && cut[capacity] == 'x');
            CHECK(length == 0 || cut[length - 1] == '\n');
            CHECK_EQ(strncmp(cut, whole, length), 0);
            /* And no line less than would fit. */
            CHECK(length + strcspn(whole + length, "\n") + 1 >= capacity);
        }
    }
    whole[0] = '\0';
    CHECK(shortage_commands(&finding, SHORTAGE_BOOT, whole, sizeof whole));
    cut[0] = '\0';
    CHECK(!shortage_commands(&finding, SHORTAGE_BOOT, cut, strlen(whole)));
    CHECK_EQ(cut[0], 0);
    CHECK(shortage_commands(&finding, SHORTAGE_BOOT, cut, strlen(whole) + 1));
    cut[0] = '\0';
    shortage_say(&finding, cut, 100);
    CHECK_EQ(strlen(cut), 99);
    CHECK_EQ(strcmp(cut + 96, "..."), 0);
}

TEST(transparent_huge_pages_that_are_off_have_commands)
{
    struct plan_finding finding;
    char now[128] = "", hugeadm[128] = "", boot[128] = "", why[256] = "";
    if (access("/sys/kernel/mm/transparent_hugepage/enabled", F_OK) != 0)
        SKIP("a kernel without them");
    plan_begin(HAK_PAGES_THP, true, &finding);
    plan_wish(&finding, first_node(), 2 * MIB);
    finding.there = false;
    shortage_say(&finding, why, sizeof why);
    CHECK_STR_HAS(why, " thp pages: transparent huge pages are switched off");
    CHECK(shortage_commands(&finding, SHORTAGE_SYSFS, now, sizeof now));
    CHECK(shortage_commands(&finding, SHORTAGE_HUGEADM, hugeadm, sizeof hugeadm));
    CHECK(shortage_commands(&finding, SHORTAGE_BOOT, boot, sizeof boot));
    CHECK_EQ(strcmp(now, "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled\n"), 0);
    CHECK_EQ(strcmp(hugeadm, "hugeadm --thp-madvise\n"), 0);
    CHECK_EQ(strcmp(boot, "transparent_hugepage=madvise"), 0);
}

HARNESS_MAIN()
