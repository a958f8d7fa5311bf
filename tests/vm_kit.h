/* SPDX-License-Identifier: MIT */
/*
 * What vm_region.c and vm_plan.c share, which run in the machines of tests/numa: what the machine
 * is said to be, what the kernel says of pages and pools, and failed set-ups in a child, so that a
 * signal is seen.
 *
 * VM_EXPECT has words KEY=VALUE; node lists are as in sysfs (0,2-3):
 *   nodes       every node that is online            giants    nodes with pages of 1 GiB
 *   memoryless  those without memory                 short     a node with few pages of 2 MiB
 *   cpuless     those without processors             cpuset    nodes that the control group allows
 *   distances   asym: not the same in both directions
 *   hugetlb, rsvd, v1   MiB that the hugetlb control group allows (32M), by its kind
 * Outside such a machine it is not set, and every case skips.
 *
 * Nothing here asks the library about nodes: its answers are what is tested.
 */
#ifndef HAK_TESTS_VM_KIT_H
#define HAK_TESTS_VM_KIT_H

#include "tests/memory_kit.h"

#include <sched.h>
#include <sys/syscall.h>

#define KIB ((size_t)1 << 10)
#define VM_2M_KIB 2048UL
#define VM_1G_KIB 1048576UL

/* ---- what the machine is said to be ---------------------------------------------------------- */

/* The value of a key in VM_EXPECT, up to the next space; false where it is not there. */
static inline bool vm_expected(const char *key, char *value, size_t capacity)
{
    const char *at = getenv("VM_EXPECT");
    size_t length = strlen(key);
    while (at != NULL && *at != '\0') {
        size_t span = strcspn(at, " ");
        if (span > length && strncmp(at, key, length) == 0 && at[length] == '=') {
            snprintf(value, capacity, "%.*s", (int)(span - length - 1), at + length + 1);
            return true;
        }
        at += span + (at[span] == ' ');
    }
    return false;
}

/* A list such as 0,2-3 as bits. */
static inline uint64_t vm_list(const char *text)
{
    uint64_t mask = 0;
    while (*text >= '0' && *text <= '9') {
        char *end;
        unsigned long first = strtoul(text, &end, 10), last = first;
        if (*end == '-') {
            last = strtoul(end + 1, &end, 10);
        }
        for (unsigned long n = first; n <= last && n < HAK_NODES_MAX; n++) {
            mask |= UINT64_C(1) << n;
        }
        text = *end == ',' ? end + 1 : end;
    }
    return mask;
}

static inline uint64_t vm_expected_nodes(const char *key)
{
    char value[128];
    return vm_expected(key, value, sizeof value) ? vm_list(value) : 0;
}

static inline void vm_want_machine(void)
{
    if (getenv("VM_EXPECT") == NULL) {
        SKIP("not in a machine of tests/numa: VM_EXPECT is not set");
    }
}

/* Nodes that a region may have a segment on, as the scene says it. */
static inline uint64_t vm_memory_nodes(void)
{
    vm_want_machine();
    uint64_t allowed = vm_expected_nodes("cpuset");
    uint64_t nodes = vm_expected_nodes("nodes") & ~vm_expected_nodes("memoryless");
    return allowed != 0 ? nodes & allowed : nodes;
}

/* MiB that the control group allows of 2 MiB pages; 0: no limit. */
static inline unsigned long vm_limit_mib(void)
{
    static const char *const kinds[] = {"hugetlb", "rsvd", "v1"};
    char value[32];
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (vm_expected(kinds[i], value, sizeof value)) {
            return strtoul(value, NULL, 10);
        }
    }
    return 0;
}

static inline int vm_first(uint64_t mask)
{
    return mask == 0 ? -1 : __builtin_ctzll(mask);
}

static inline int vm_last(uint64_t mask)
{
    return mask == 0 ? -1 : 63 - __builtin_clzll(mask);
}

static inline uint64_t vm_bit(int node)
{
    return node < 0 || node >= HAK_NODES_MAX ? 0 : UINT64_C(1) << node;
}

static inline unsigned vm_count(uint64_t mask)
{
    return (unsigned)__builtin_popcountll(mask);
}

/* ---- what the kernel says -------------------------------------------------------------------- */

/* A number of a node's pool, nr_hugepages or free_hugepages; 0 where there is no such pool. */
static inline uint64_t vm_pool(int node, unsigned long kib, const char *what)
{
    char path[160];
    unsigned long long value = 0;
    snprintf(path, sizeof path, "/sys/devices/system/node/node%d/hugepages/hugepages-%lukB/%s",
             node, kib, what);
    FILE *file = fopen(path, "r");
    if (file != NULL) {
        if (fscanf(file, "%llu", &value) != 1) {
            value = 0;
        }
        fclose(file);
    }
    return value;
}

/* Sets the size of a node's pool and says what it became. */
static inline uint64_t vm_set_pool(int node, unsigned long kib, uint64_t pages)
{
    char path[160], text[24];
    snprintf(path, sizeof path,
             "/sys/devices/system/node/node%d/hugepages/hugepages-%lukB/nr_hugepages", node, kib);
    snprintf(text, sizeof text, "%llu", (unsigned long long)pages);
    CHECK(write_pool(path, text));
    return vm_pool(node, kib, "nr_hugepages");
}

/* The least that any of the nodes has free. */
static inline uint64_t vm_least_free(uint64_t nodes, unsigned long kib)
{
    uint64_t least = UINT64_MAX;
    for (; nodes != 0; nodes &= nodes - 1) {
        uint64_t have = vm_pool(vm_first(nodes), kib, "free_hugepages");
        least = have < least ? have : least;
    }
    return least;
}

/* Pages of the whole machine: nr_hugepages, free_hugepages, resv_hugepages. */
static inline uint64_t vm_machine_pool(unsigned long kib, const char *what)
{
    char path[128];
    uint64_t value = 0;
    snprintf(path, sizeof path, "/sys/kernel/mm/hugepages/hugepages-%lukB/%s", kib, what);
    CHECK_EQ(sysfs_read_number(path, &value), 0);
    return value;
}

/* Asks move_pages(2) itself for the node of every page, in steps of so many bytes; fails at one
 * that lies elsewhere or is not there. */
static inline void vm_check_pages(const unsigned char *start, size_t bytes, size_t step, int node)
{
    enum { ASKED = 512 };
    const size_t count = bytes / step;
    CHECK(count > 0);
    for (size_t done = 0; done < count; done += ASKED) {
        const unsigned char *pages[ASKED];
        int status[ASKED];
        size_t now = count - done < ASKED ? count - done : ASKED;
        for (size_t i = 0; i < now; i++) {
            pages[i] = start + (done + i) * step;
            status[i] = -EBADMSG;
        }
        CHECK_EQ(syscall(SYS_move_pages, 0, now, pages, NULL, status, 0), 0);
        for (size_t i = 0; i < now; i++) {
            if (status[i] < 0) {
                FAIL("page %zu of %zu of the segment on node %d is not there: %s", done + i, count,
                     node, strerror(-status[i]));
            }
            if (status[i] != node) {
                FAIL("page %zu of %zu of the segment on node %d lies on node %d", done + i, count,
                     node, status[i]);
            }
        }
    }
}

/* ---- set-ups that shall fail ----------------------------------------------------------------- */

/* What a child saw; lies in memory that both see. */
struct vm_outcome {
    int code;
    struct hak_error error;
    bool pools_changed; /* pages of 2 MiB: fewer free or more promised than before */
    bool maps_changed;
    bool second_works; /* another init, of a SuperSlab a node, right afterwards */
};

struct vm_attempt {
    struct hak_config config;
    struct vm_outcome *outcome;
    void (*before)(void); /* in the child, first; or NULL */
};

static inline struct vm_outcome *vm_shared_outcome(void)
{
    static struct vm_outcome *shared;
    if (shared == NULL) {
        void *at = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
                        -1, 0);
        CHECK(at != MAP_FAILED);
        shared = at;
    }
    memset(shared, 0, sizeof *shared);
    return shared;
}

static inline void vm_attempt_in_child(void *argument)
{
    const struct vm_attempt *attempt = argument;
    struct vm_outcome *outcome = attempt->outcome;
    if (attempt->before != NULL) {
        attempt->before();
    }
    /* What the C library keeps from a first time is there when it is the second that is watched. */
    CHECK(hak_region_init(&attempt->config) != 0);
    uint64_t free_before = vm_machine_pool(VM_2M_KIB, "free_hugepages");
    uint64_t promised_before = vm_machine_pool(VM_2M_KIB, "resv_hugepages");
    read_maps(maps_before, sizeof maps_before);
    outcome->code = hak_region_init(&attempt->config);
    read_maps(maps_after, sizeof maps_after);
    outcome->maps_changed = strcmp(maps_before, maps_after) != 0;
    outcome->pools_changed = vm_machine_pool(VM_2M_KIB, "free_hugepages") != free_before ||
                             vm_machine_pool(VM_2M_KIB, "resv_hugepages") != promised_before;
    (void)hak_last_error(&outcome->error);
    struct hak_config smaller = attempt->config;
    smaller.size_bytes = HAK_SUPERSLAB_BYTES;
    smaller.nodes = 0;
    outcome->second_works = hak_region_init(&smaller) == 0;
}

/* An init that must fail with the code: no signal, nothing left behind, and an init of less works
 * right afterwards. Returns the record. */
static inline const struct hak_error *vm_refused(const struct hak_config *config, int code,
                                                 void (*before)(void))
{
    static struct harness_result ended;
    struct vm_attempt attempt = {*config, vm_shared_outcome(), before};
    harness_child(vm_attempt_in_child, &attempt, &ended);
    struct vm_outcome *outcome = attempt.outcome;
    if (ended.exit_status != 0) {
        FAIL("the child ended with status %d, signal %d: %s", ended.exit_status, ended.signal,
             ended.output);
    }
    if (outcome->code != code) {
        FAIL("init said %d, not %d: %s", outcome->code, code, outcome->error.message);
    }
    CHECK_EQ(outcome->error.kind, HAK_ERROR_SETUP);
    CHECK_EQ(outcome->error.code, code);
    CHECK(!outcome->maps_changed);
    CHECK(!outcome->pools_changed);
    CHECK(outcome->second_works);
    return &outcome->error;
}

#endif
