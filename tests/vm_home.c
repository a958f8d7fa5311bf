/* SPDX-License-Identifier: MIT */
/*
 * On a machine with several nodes: which node a thread is at home on, when it moves, when its node
 * has no memory, when a region has only some of the nodes, when a cpuset allows only some. See
 * vm_place_kit.h for how the machine is found out.
 */
#define _GNU_SOURCE
#include "tests/vm_place_kit.h"

#include "numa/sysfs.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>

/* Slow steps after which a thread has looked where it is, and some. */
#define LOOKS 70

static void in_thread(void *(*run)(void *), void *argument)
{
    kit_elsewhere(run, argument);
    if (vm_failed()) {
        harness_leave(HARNESS_FAILED); /* it has said why */
    }
}

/* Objects of the calling thread, small and large, lie on that node. */
static void check_home(int node)
{
    for (unsigned n = 0; n < 1000; n++) {
        void *object = hak_malloc(n + 1);
        CHECK(object != NULL);
        CHECK_EQ(vm_node_of(object), node);
        hak_free(object);
    }
    void *large = hak_malloc(300 * KIB);
    CHECK_EQ(vm_node_of(large), node);
    hak_free(large);
}

/* ---- threads that move ---------------------------------------------------------------------- */

static void *old_objects[5000];

static void *move_about(void *unused)
{
    int first = vm_nodes[0], before = first;

    for (unsigned n = 0; n < 5000; n++) {
        old_objects[n] = NULL;
    }
    for (unsigned round = 0; round < 4 * vm_node_count; round++) {
        int node = vm_nodes[round % vm_node_count], cpu = vm_cpu_on(node);
        if (cpu < 0) {
            continue;
        }
        vm_move_to(cpu); /* as the scheduler would: the library is not told */
        size_t got = hak_malloc_bulk(100, 5000, old_objects);
        CHECK_EQ(got, 5000);
        /* At first still the old node's, which is no error; but not for long. */
        int at = vm_node_of(old_objects[0]);
        CHECK(at == before || at == node);
        CHECK_EQ(vm_node_of(old_objects[4999]), node);
        hak_free_bulk(old_objects, 5000);
        check_home(node);
        before = node;
    }
    return unused;
}

TEST(a_thread_that_migrates_gets_its_new_nodes_memory)
{
    unsigned with_both = 0;

    vm_needs(2);
    for (unsigned n = 0; n < vm_node_count; n++) {
        with_both += vm_cpu_on(vm_nodes[n]) >= 0;
    }
    if (with_both < 2) {
        SKIP("%u node(s) with memory and processors here, 2 are needed", with_both);
    }
    vm_open(HAK_EXHAUSTED_FAIL);
    in_thread(move_about, NULL);
    CHECK_GE(kit_stats().remote_frees, 1);
    kit_close(); /* and left nothing behind on the way */
}

static void *only_slow_steps(void *unused)
{
    for (unsigned n = 0; n < vm_node_count; n++) {
        int cpu = vm_cpu_on(vm_nodes[n]);
        if (cpu >= 0) {
            vm_move_to(cpu);
            for (unsigned step = 0; step < LOOKS; step++) {
                hak_free(hak_malloc(300 * KIB));
            }
            check_home(vm_nodes[n]);
        }
    }
    return unused;
}

TEST(large_objects_alone_are_enough_to_find_a_new_home)
{
    vm_needs(2);
    vm_open(HAK_EXHAUSTED_FAIL);
    in_thread(only_slow_steps, NULL);
    kit_close();
}

static void *pin_about(void *unused)
{
    for (int cpu = 0; cpu < TOPOLOGY_CPUS_MAX; cpu++) {
        if (vm_machine.cpu_node[cpu] >= 0 && hak_thread_pin(cpu) == 0) {
            CHECK_EQ(sched_getcpu(), cpu);
            check_home(vm_home_of(vm_machine.cpu_node[cpu]));
        }
    }
    return unused;
}

TEST(a_pinned_thread_is_at_home_at_once)
{
    vm_needs(2);
    vm_open(HAK_EXHAUSTED_FAIL);
    in_thread(pin_about, NULL);
    kit_close();
}

/* ---- nodes with one thing only -------------------------------------------------------------- */

static void *live_without_memory(void *node)
{
    int here = *(const int *)node, home = vm_nearest(here, vm_region_nodes());

    vm_move_to(vm_cpu_on(here));
    CHECK_NE(home, here);
    check_home(home);
    CHECK(hak_malloc_on_node(100, here) == NULL);
    CHECK_EQ(errno, EINVAL);
    return NULL;
}

TEST(a_thread_on_a_node_without_memory_has_the_nearest_as_its_home)
{
    unsigned tried = 0;

    vm_needs(2);
    for (int node = 0; node < (int)vm_machine.node_end; node++) {
        const struct topology_node *entry = &vm_machine.nodes[node];
        if (!entry->exists || entry->has_memory || vm_cpu_on(node) < 0) {
            continue;
        }
        vm_open(HAK_EXHAUSTED_FAIL);
        in_thread(live_without_memory, &node);
        kit_close();
        tried++;
    }
    if (tried == 0) {
        SKIP("no node here has processors and no memory");
    }
}

TEST(a_segment_on_a_node_without_memory_is_refused_by_name)
{
    unsigned tried = 0;

    vm_needs(2);
    kit_forget_last();
    for (int node = 0; node < HAK_NODES_MAX; node++) {
        char name[16];
        struct hak_error error;
        struct hak_config config = vm_config(1, HAK_EXHAUSTED_FAIL);
        if (vm_machine.nodes[node].has_memory) {
            continue;
        }
        tried += vm_machine.nodes[node].exists;
        config.nodes = UINT64_C(1) << node;
        CHECK_EQ(hak_region_init(&config), -ENODEV);
        CHECK(hak_region_default() == NULL);
        CHECK_EQ(hak_last_error(&error), -ENODEV);
        CHECK_EQ(error.kind, HAK_ERROR_SETUP);
        snprintf(name, sizeof(name), "node %d", node);
        CHECK_STR_HAS(error.message, name);
    }
    if (tried == 0) {
        SKIP("every node here has memory (those that do not exist are refused)");
    }
}

static void *use_far_memory(void *node)
{
    int far = *(const int *)node;
    uint64_t got = 0;
    struct hak_node_stats stats = vm_node_stats(far);

    void *object = hak_malloc_on_node(5000, far);
    CHECK_EQ(vm_node_of(object), far);
    hak_free(object);
    /* Everything there is, so also what is there. */
    for (;;) {
        object = hak_malloc(64 * KIB);
        if (object == NULL) {
            break;
        }
        got += vm_node_of(object) == far;
        *(void **)object = old_objects[0];
        old_objects[0] = object;
    }
    CHECK_EQ(got, stats.size_bytes / (64 * KIB));
    while (old_objects[0] != NULL) {
        void *next = *(void **)old_objects[0];
        hak_free(old_objects[0]);
        old_objects[0] = next;
    }
    return NULL;
}

TEST(a_node_without_processors_serves_by_name_and_as_any_node)
{
    unsigned tried = 0;

    vm_needs(2);
    for (unsigned n = 0; n < vm_node_count; n++) {
        if (vm_machine.nodes[vm_nodes[n]].has_cpus) {
            continue;
        }
        vm_open(HAK_EXHAUSTED_ANY_NODE);
        old_objects[0] = NULL;
        in_thread(use_far_memory, &vm_nodes[n]);
        CHECK_GE(kit_stats().other_node_allocs, 1);
        kit_close();
        tried++;
    }
    if (tried == 0) {
        SKIP("every node with memory here has processors");
    }
}

/* ---- regions on some of the nodes ----------------------------------------------------------- */

static _Atomic unsigned on_its_node;

static void check_where(unsigned worker, void *node)
{
    int only = *(const int *)node;

    (void)worker;
    atomic_fetch_add(&on_its_node, vm_machine.cpu_node[sched_getcpu()] == only);
    check_home(only);
}

TEST(a_region_on_one_node_has_its_workers_and_all_objects_there)
{
    vm_needs(2);
    for (unsigned n = 0; n < vm_node_count; n++) {
        struct hak_config config = vm_config(1, HAK_EXHAUSTED_ANY_NODE);
        char list[16];
        int node = vm_nodes[n];
        snprintf(list, sizeof(list), "%d", node);
        setenv("HAKMEM_NODES", list, 1);
        vm_start(&config);
        unsetenv("HAKMEM_NODES");
        CHECK_EQ(kit_stats().node_count, 1);
        CHECK_EQ(vm_region_nodes(), UINT64_C(1) << node);
        atomic_store(&on_its_node, 0);
        unsigned cpus = 0;
        for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
            cpus += vm_machine.cpu_node[cpu] == node;
        }
        CHECK_EQ(hak_worker_start(cpus > 0 ? cpus : 2, check_where, &node), 0);
        CHECK_EQ(hak_worker_join(), 0);
        if (vm_failed()) {
            harness_leave(HARNESS_FAILED);
        }
        unsigned there = atomic_load(&on_its_node);
        CHECK_EQ(there, cpus);
        in_thread(pin_about, NULL); /* from wherever */
        kit_close();
    }
}

/* ---- cpusets -------------------------------------------------------------------------------- */

#define GROUP_ROOT "/tmp/hakmem-cpuset"
#define GROUP GROUP_ROOT "/one-node"

static bool write_text(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");

    if (file == NULL) {
        return false;
    }
    bool written = fputs(text, file) >= 0;
    return fclose(file) == 0 && written;
}

/* get_mempolicy is forbidden from now on, as containers' filters do. */
static void forbid_get_mempolicy(void)
{
    struct sock_filter program[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_get_mempolicy, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog filter = {sizeof(program) / sizeof(*program), program};

    CHECK_EQ(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) != 0) {
        SKIP("no filters of system calls here: %s", strerror(errno));
    }
    unsigned long mask[16];
    CHECK_EQ(get_mempolicy(NULL, mask, 1024, NULL, MPOL_F_MEMS_ALLOWED), -1);
}

static void check_others_refused(int only)
{
    struct hak_config config = vm_config(1, HAK_EXHAUSTED_FAIL);
    struct hak_error error;

    for (unsigned n = 0; n < vm_node_count; n++) {
        if (vm_nodes[n] == only) {
            continue;
        }
        config.nodes = UINT64_C(1) << vm_nodes[n];
        CHECK_EQ(hak_region_init(&config), -ENODEV);
        CHECK_EQ(hak_last_error(&error), -ENODEV);
    }
}

/* In a child: this process may use one node only. */
static void live_in_a_cpuset(void *node)
{
    int only = *(const int *)node;
    const struct hak_config config = vm_config(1, HAK_EXHAUSTED_FAIL);
    char path[64], text[8192];

    CHECK(write_text(GROUP "/cgroup.procs", "0"));
    for (unsigned round = 0; round < 2; round++) {
        CHECK_EQ(topology_read(&vm_machine), 0);
        CHECK_EQ(topology_memory_mask(&vm_machine), UINT64_C(1) << only);
        /* One allowed node is not the whole machine. */
        snprintf(path, sizeof(path), "/sys/devices/system/node/node%d/meminfo", only);
        CHECK(sysfs_read(path, text, sizeof(text)) > 0);
        CHECK_EQ(vm_machine.nodes[only].total_bytes, sysfs_find_number(text, "MemTotal:") << 10);
        vm_start(&config);
        CHECK_EQ(vm_region_nodes(), UINT64_C(1) << only);
        check_home(only);
        CHECK_EQ(hak_region_fini(), 0);
        check_others_refused(only);
        if (round == 0) {
            forbid_get_mempolicy();
        }
    }
}

static void remove_group(void)
{
    rmdir(GROUP);
    umount2(GROUP_ROOT, MNT_DETACH);
    rmdir(GROUP_ROOT);
}

TEST(a_cpuset_of_one_node_is_kept_to)
{
    static struct harness_result result;
    char node[16];

    vm_needs(2);
    kit_forget_last();
    remove_group();
    mkdir(GROUP_ROOT, 0700);
    if (mount("none", GROUP_ROOT, "cgroup2", 0, NULL) != 0) {
        SKIP("no control groups can be mounted here: %s", strerror(errno));
    }
    int only = vm_nodes[vm_node_count - 1];
    snprintf(node, sizeof(node), "%d", only);
    bool made = write_text(GROUP_ROOT "/cgroup.subtree_control", "+cpuset") &&
                mkdir(GROUP, 0700) == 0 && write_text(GROUP "/cpuset.mems", node);
    if (made) {
        harness_child(live_in_a_cpuset, &only, &result);
    }
    remove_group();
    if (!made) {
        SKIP("no cpuset can be made here");
    }
    if (result.exit_status == HARNESS_EXIT_SKIPPED) {
        SKIP("%s", result.output);
    }
    if (result.exit_status != 0) {
        FAIL("status %d, signal %d: %s", result.exit_status, result.signal, result.output);
    }
}

HARNESS_MAIN()
