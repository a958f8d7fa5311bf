#!/bin/bash
# SPDX-License-Identifier: MIT
#
# `hakmem doctor`: every finding, in trees of /proc and /sys that are made up here. The tree that a
# case begins with is a machine of two nodes with nothing to be said about it; a case spoils one
# thing, and then exactly that must be found. A case is a function, as in test_run.sh; the words
# that cases are made of are in run_kit.sh and doctor_kit.sh.
#
# Cases are called by their names, which shellcheck does not see.
# shellcheck disable=SC2317
set -u
cd "$(dirname "$0")/.." || exit 1
# shellcheck source=tests/run_kit.sh
. tests/run_kit.sh
# shellcheck source=tests/doctor_kit.sh
. "$source/tests/doctor_kit.sh"

# ---- the tree itself -------------------------------------------------------------------------

nothing_is_found_where_all_is_well() {
    fresh_tree
    need_root_folder
    look 0
    ! grep -E '^(note|warn|bad) ' out || fail "found: $(cat out)"
    [ "$(grep -c '^ok ' out)" -ge 22 ] || fail "too few checks: $(cat out)"
    grep -qE '^[0-9]+ ok, 0 note, 0 warn, 0 bad$' out || fail "sum: $(tail -n 1 out)"
    grep -qF 'node 0: 512 (300 free), node 1: 512 (300 free)' out || fail "figures: $(cat out)"
}

an_empty_tree_is_bad_and_no_crash() {
    rm -rf tree
    mkdir tree
    need_root_folder
    look 1
    grep -qE '^bad +kernel: ' out || fail "kernel: $(cat out)"
    grep -qE '^bad +cpuset: ' out || fail "cpuset: $(cat out)"
    grep -qE '^bad +overcommit: ' out || fail "overcommit: $(cat out)"
    grep -qE '^warn +huge-page-pools: ' out || fail "pools: $(cat out)"
    grep -qE '^warn +hugetlbfs-mounts: ' out || fail "mounts: $(cat out)"
    grep -qE '^note +memlock: ' out || fail "memlock: $(cat out)"
}

nonsense_in_every_file_is_no_crash() {
    local file text
    fresh_tree
    need_root_folder
    for text in '' '-1' '[' 'always [' '99999999999999999999999' "$(printf 'x%.0s' {1..5000})"; do
        while read -r file; do
            printf '%s\n' "$text" >"$file"
        done < <(find tree -type f)
        "${as_root[@]}" "$hakmem" doctor --root tree >out 2>err
        [ $? -le 1 ] || fail "status with '${text:0:20}': $(cat err)"
        [ ! -s err ] || fail "said: $(cat err)"
    done
}

# Bytes that no UTF-8 has, an escape for the terminal, and a character that a cut goes through.
bytes_that_nobody_can_read() {
    local file text long
    command -v python3 >/dev/null || skip 'no python3 to read JSON with'
    fresh_tree
    need_root_folder
    long=$(printf 'x%.0s' {1..199})
    long="$long$(printf '\xe2\x82\xac%.0s' {1..900})"
    for text in $'\xff\xfe[\x80]' $'\e[31m[re\rd]\x7f' $'\xc0\xaf\xed\xa0\x80\xf4\x90\x80\x80' \
        $'[\xc2\x9b31m\xe2\x82]' "$long" "x$long" "xx$long"; do
        while read -r file; do
            printf '%s\n' "$text" >"$file"
        done < <(find tree -type f)
        # A line that is quoted.
        put proc/mounts "none /dev/$text hugetlbfs rw,pagesize=2M 0 0"
        put proc/self/status $'Cpus_allowed_list:\t'"$text" $'Mems_allowed_list:\t'"$text"
        "${as_root[@]}" "$hakmem" doctor --root tree >out 2>err
        python3 - out <<'END' 2>err || fail "text of ${text:0:20}: $(tail -n 1 err)"
import sys, unicodedata
for line in open(sys.argv[1], 'rb').read().split(b'\n'):
    assert not [c for c in line.decode('utf-8') if unicodedata.category(c) == 'Cc'], line
END
        "${as_root[@]}" "$hakmem" doctor --json --root tree >out 2>err
        python3 -c 'import json; json.loads(open("out", "rb").read().decode("utf-8"))' 2>err ||
            fail "JSON of ${text:0:20}: $(tail -n 1 err)"
    done
}

# ---- a case a finding ------------------------------------------------------------------------

an_old_kernel() {
    fresh_tree
    put proc/sys/kernel/osrelease 5.13.19
    found 1 bad kernel '5\.13\.19 has no MADV_POPULATE_WRITE' 'Linux 5\.14'
    put proc/sys/kernel/osrelease 4.18.0
    found 1 bad kernel '4\.18\.0'
    put proc/sys/kernel/osrelease 5.14.0
    need_root_folder
    look 0
}

no_pages_in_the_pools() {
    fresh_tree
    pool 2048 0 0 0
    pool 2048 1 0 0
    found 0 note huge-page-pools '2M: none reserved' 'hakmem reserve --size'
}

uneven_pools() {
    fresh_tree
    pool 2048 1 100 100
    found 0 warn huge-page-pools 'uneven: node 0: 512 \(300 free\), node 1: 100' \
        'echo 512 >/sys/devices/system/node/node1/hugepages/hugepages-2048kB/nr_hugepages$'
}

a_pool_that_is_used_up() {
    fresh_tree
    pool 2048 1 512 0
    found 0 warn huge-page-pools '2M: no page is free on 1 node: ' 'hakmem reserve'
}

a_page_size_that_the_kernel_lacks() {
    fresh_tree
    rm -r "tree/$pools/hugepages-1048576kB"
    rm -r tree/sys/devices/system/node/node*/hugepages/hugepages-1048576kB
    found 0 note huge-page-pools 'no 1G pages'
    fresh_tree
    rm -r "tree/$pools/hugepages-2048kB"
    rm -r tree/sys/devices/system/node/node*/hugepages/hugepages-2048kB
    found 0 warn huge-page-pools 'no 2M pages' 'CONFIG_HUGETLBFS'
}

surplus_pages() {
    fresh_tree
    put "$pools/hugepages-2048kB/surplus_hugepages" 7
    found 0 note huge-page-surplus '2M: 7 surplus pages'
}

pools_that_overcommit() {
    fresh_tree
    put "$pools/hugepages-2048kB/nr_overcommit_hugepages" 64
    found 0 note huge-page-surplus 'nr_overcommit_hugepages is 64' \
        "echo 0 >/$pools/hugepages-2048kB/nr_overcommit_hugepages"
}

a_size_without_a_mount() {
    fresh_tree
    put proc/mounts 'none /dev/huge hugetlbfs rw,relatime,pagesize=2M 0 0'
    found 0 note hugetlbfs-mounts '1G: no hugetlbfs mount' 'mount -t hugetlbfs -o pagesize=1G'
    put proc/mounts 'none /dev/huge1G hugetlbfs rw,relatime,pagesize=1024M 0 0'
    found 0 note hugetlbfs-mounts '2M: no hugetlbfs mount' 'mount -t hugetlbfs -o pagesize=2M'
}

a_mount_with_a_limit() {
    fresh_tree
    put proc/mounts 'none /dev/huge hugetlbfs rw,relatime,pagesize=2M,size=64M 0 0' \
        'none /dev/huge1G hugetlbfs rw,relatime,pagesize=1024M 0 0'
    found 0 note hugetlbfs-mounts '2M: /dev/huge has room for 64 MiB' \
        'umount /dev/huge .*size=BYTES'
}

a_mount_that_cannot_be_written() {
    fresh_tree
    rmdir tree/dev/huge
    found 0 note hugetlbfs-mounts '/dev/huge .*pagesize=2M.* cannot be written' \
        'chmod 1777 /dev/huge'
}

transparent_huge_pages_off() {
    fresh_tree
    put "$thp/enabled" 'always madvise [never]'
    found 0 warn thp '\[never\]' "echo madvise >/$thp/enabled"
    fresh_tree
    put "$thp/hugepages-2048kB/enabled" 'always inherit madvise [never]'
    found 0 warn thp 'hugepages-2048kB is \[never\]' "echo inherit >/$thp/hugepages-2048kB/enabled"
    put "$thp/hugepages-2048kB/enabled" 'always [inherit] madvise never'
    need_root_folder
    look 0
    grep -q '^ok    thp: ' out || fail "[inherit]: $(cat out)"
    rm -r "tree/$thp"
    found 0 warn thp 'no transparent huge pages' 'CONFIG_TRANSPARENT_HUGEPAGE'
}

transparent_huge_pages_for_everybody() {
    fresh_tree
    put "$thp/enabled" '[always] madvise never'
    found 0 note thp '\[always\]' "echo madvise >/$thp/enabled"
}

compaction_at_every_fault_or_never() {
    fresh_tree
    put "$thp/defrag" '[always] defer defer+madvise madvise never'
    found 0 warn thp-defrag '\[always\]' "echo madvise >/$thp/defrag"
    put "$thp/defrag" 'always defer defer+madvise madvise [never]'
    found 0 note thp-defrag '\[never\]' "echo madvise >/$thp/defrag"
    put "$thp/defrag" 'always [defer] defer+madvise madvise never'
    found 0 note thp-defrag '\[defer\]' "echo madvise >/$thp/defrag"
    put "$thp/defrag" 'always defer [defer+madvise] madvise never'
    look 0
    grep -qF 'thp-defrag: [defer+madvise]' out || fail "$(cat out)"
}

khugepaged_at_rest() {
    fresh_tree
    put "$thp/khugepaged/defrag" 0
    found 0 note khugepaged 'defrag is 0' "echo 1 >/$thp/khugepaged/defrag"
    put "$thp/khugepaged/defrag" 1
    put "$thp/khugepaged/pages_to_scan" 0
    found 0 note khugepaged 'pages_to_scan is 0' "echo 4096 >/$thp/khugepaged/pages_to_scan"
}

a_memory_limit() {
    fresh_tree
    put sys/fs/cgroup/app/memory.max $((2000 << 20))
    put sys/fs/cgroup/app/memory.current $((1000 << 20))
    found 0 note memory-cgroup '1000 MiB of ordinary memory' '/sys/fs/cgroup/app/memory.max'
    put sys/fs/cgroup/app/memory.current $((1900 << 20))
    found 0 warn memory-cgroup '100 MiB of ordinary memory'
    put sys/fs/cgroup/app/memory.current $((2000 << 20))
    found 1 bad memory-cgroup '0 MiB of ordinary memory'
}

a_memory_limit_of_version_1() {
    fresh_tree
    put proc/self/cgroup 4:memory:/app
    put proc/self/mountinfo '30 1 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory'
    put sys/fs/cgroup/memory/app/memory.limit_in_bytes $((2000 << 20))
    put sys/fs/cgroup/memory/app/memory.usage_in_bytes $((1900 << 20))
    found 0 warn memory-cgroup '100 MiB of ordinary memory' 'memory.limit_in_bytes'
}

a_hugetlb_limit() {
    fresh_tree
    put sys/fs/cgroup/app/hugetlb.2MB.max $((2048 << 20))
    put sys/fs/cgroup/app/hugetlb.2MB.current 0
    found 0 note hugetlb-cgroup '2M: this group may have 2048 MiB' 'hugetlb.2MB.max'
    put sys/fs/cgroup/app/hugetlb.2MB.max $((64 << 20))
    found 0 warn hugetlb-cgroup '2M: this group may have 64 MiB more of them, 1200'
    put sys/fs/cgroup/app/hugetlb.2MB.max 0
    found 1 bad hugetlb-cgroup '2M: this group may have 0 MiB'
}

a_hugetlb_limit_of_version_1() {
    fresh_tree
    put proc/self/cgroup 5:hugetlb:/app
    put proc/self/mountinfo '30 1 0:27 / /sys/fs/cgroup/hugetlb rw - cgroup cgroup rw,hugetlb'
    put sys/fs/cgroup/hugetlb/app/hugetlb.2MB.limit_in_bytes $((64 << 20))
    put sys/fs/cgroup/hugetlb/app/hugetlb.2MB.usage_in_bytes $((32 << 20))
    found 0 warn hugetlb-cgroup '2M: this group may have 32 MiB' 'hugetlb.2MB.limit_in_bytes'
}

nodes_that_may_not_be_used() {
    fresh_tree
    put proc/self/status $'Cpus_allowed_list:\t0-3' $'Mems_allowed_list:\t1'
    found 0 note cpuset 'only nodes 1 may be used, which are 1 of the 2' 'cpuset.mems'
    put sys/devices/system/node/node1/meminfo 'Node 1 MemTotal: 0 kB'
    found 1 bad cpuset 'only nodes 1 may be used, which are 0 of the 1'
}

processors_that_may_not_be_used() {
    fresh_tree
    put proc/self/status $'Cpus_allowed_list:\t0-1' $'Mems_allowed_list:\t0-1'
    found 0 note cpuset 'processors 0-1 may be used, 2 of 4' 'cpuset.cpus'
}

little_memory_that_may_be_locked() {
    fresh_tree
    put proc/self/limits 'Max locked memory         65536                65536                bytes'
    found 0 note memlock 'RLIMIT_MEMLOCK is 64 KiB' 'ulimit -l unlimited'
    put proc/self/status $'CapEff:\t0000000000004000' $'Cpus_allowed_list:\t0-3' \
        $'Mems_allowed_list:\t0-1'
    look 0
    grep -q '64 KiB, which CAP_IPC_LOCK overrides' out || fail "with the right: $(cat out)"
}

strict_overcommit() {
    fresh_tree
    put proc/sys/vm/overcommit_memory 2
    found 0 warn overcommit 'vm.overcommit_memory is 2 \(vm.overcommit_ratio 50\): 14648 MiB' \
        'vm.overcommit_memory=0'
    put proc/meminfo 'CommitLimit: 1100000 kB' 'Committed_AS: 1000000 kB'
    found 1 bad overcommit '97 MiB of 1074 are left'
}

swap_space() {
    fresh_tree
    put proc/meminfo 'SwapTotal: 2097152 kB' 'SwapFree: 2097152 kB'
    found 0 note swap '2048 MiB of swap, none in use, vm.swappiness 60' 'swapoff'
    put proc/meminfo 'SwapTotal: 2097152 kB' 'SwapFree: 1048576 kB'
    found 0 warn swap '1024 of 2048 MiB of swap are in use' 'swappiness=1'
}

numa_balancing() {
    fresh_tree
    put proc/sys/kernel/numa_balancing 1
    found 0 warn numa-balancing 'kernel.numa_balancing is 1' 'sysctl -w kernel.numa_balancing=0'
    put sys/devices/system/node/node1/meminfo 'Node 1 MemTotal: 0 kB'
    look 0
    grep -q '^ok    numa-balancing: .* is 1, 1 node' out || fail "one node: $(cat out)"
}

zone_reclaim() {
    fresh_tree
    put proc/sys/vm/zone_reclaim_mode 1
    found 0 warn zone-reclaim 'vm.zone_reclaim_mode is 1: .* drops its file pages before' \
        'sysctl -w vm.zone_reclaim_mode=0'
    put proc/sys/vm/zone_reclaim_mode 3
    found 0 warn zone-reclaim 'writes out'
}

few_mappings() {
    fresh_tree
    put proc/sys/vm/max_map_count 1024
    found 0 note map-count 'vm.max_map_count is 1024' 'sysctl -w vm.max_map_count=65530'
}

isolated_processors() {
    fresh_tree
    put sys/devices/system/cpu/isolated 2-3
    found 0 note isolated-processors 'isolated: 2-3; .*: none' 'taskset -c 2-3'
    put sys/devices/system/cpu/isolated ''
    put sys/devices/system/cpu/nohz_full 1
    found 0 note isolated-processors 'isolated: none; .*\(nohz_full\): 1' 'taskset -c 1'
    put sys/devices/system/cpu/nohz_full '  (null)'
    look 0
}

slow_processors() {
    fresh_tree
    put sys/devices/system/cpu/cpu1/cpufreq/scaling_governor powersave
    found 0 note processor-governor "1 of 2 processors are governed by 'powersave'" 'cpupower'
}

a_balloon() {
    fresh_tree
    put sys/bus/virtio/devices/virtio0/device 0x0002
    put sys/bus/virtio/devices/virtio3/device 0x0005
    put sys/bus/virtio/devices/virtio3/features 0110000100000000
    found 0 note balloon 'virtio3 is a virtio balloon: the host may ask'
    put sys/bus/virtio/devices/virtio3/features 0110010100000000
    put sys/module/page_reporting/parameters/page_reporting_order 9
    found 0 note balloon 'virtio3 .* free page reporting, page_reporting_order 9' 'hakmem reserve'
}

# ---- the machine itself ----------------------------------------------------------------------

system_calls_that_are_forbidden() {
    local call
    strace -o /dev/null true 2>/dev/null || skip 'strace cannot trace here'
    for call in mbind get_mempolicy move_pages sched_setaffinity; do
        strace -o /dev/null -e inject="$call":error=EPERM "$hakmem" doctor >out 2>err
        [ $? -eq 1 ] || fail "$call forbidden: $(cat out err)"
        grep -qE "^bad +system-calls: $call is forbidden" out || fail "$call: $(cat out)"
        [ "$(grep -c '^bad ' out)" -eq 1 ] || fail "$call, and more: $(cat out)"
    done
    strace -o /dev/null -e inject=madvise:error=EACCES "$hakmem" doctor >out 2>err
    grep -qE '^bad +system-calls: madvise is forbidden \(Permission denied\)' out ||
        fail "madvise: $(cat out)"
}

this_machine_as_text_and_json_agree() {
    local status
    command -v python3 >/dev/null || skip 'no python3 to read JSON with'
    "$hakmem" doctor >out 2>err
    status=$?
    [ "$status" -le 1 ] || fail "status $status: $(cat err)"
    [ ! -s err ] || fail "said: $(cat err)"
    "$hakmem" doctor --json >json 2>err
    [ $? -eq "$status" ] || fail "JSON has another status: $(cat err)"
    python3 - <<'END' 2>err || fail "$(cat err)"
import json
report = json.load(open('json'))
text = [line for line in open('out') if line[:4].strip() in ('ok', 'note', 'warn', 'bad')]
assert len(report['findings']) == len(text), (len(report['findings']), text)
for finding, line in zip(report['findings'], text):
    assert line.startswith('%-4s  %s: ' % (finding['level'], finding['check'])), (finding, line)
    assert finding['finding'] and finding['source'], finding
    assert finding['remedy'] is None or finding['remedy'], finding
for level, count in report['counts'].items():
    assert count == sum(f['level'] == level for f in report['findings']), report['counts']
assert set(report['counts']) == {'ok', 'note', 'warn', 'bad'}
END
}

nobody_may_ask_too() {
    tool_for_nobody
    as_nobody "$hakmem" doctor >out 2>err
    [ $? -le 1 ] || fail "status: $(cat err)"
    [ ! -s err ] || fail "said: $(cat err)"
    expect 125 as_nobody "$hakmem" doctor --root /
    said '--root: /: Operation not permitted' 'unshare'
}

bad_options() {
    expect 2 "$hakmem" doctor --colour
    expect 2 "$hakmem" doctor --root
    expect 2 "$hakmem" doctor everything
    said "takes options only: 'everything'" '--help'
    expect 125 "${as_root[@]}" "$hakmem" doctor --root no-such-folder
    said '--root: no-such-folder: No such file'
}

help_lists_the_checks() {
    local check
    expect 0 "$hakmem" doctor --help
    cp out help
    grep -q '^125 ' help || fail "exit status: $(tail -n 2 help)"
    "$hakmem" doctor >out
    while read -r check; do
        grep -qw -e "$check" help || fail "$check is not in the help"
    done < <(sed -nE 's/^(ok|note|warn|bad) +([a-z-]+): .*/\2/p' out)
}

a_full_disk_is_an_error() {
    [ -c /dev/full ] || skip 'no /dev/full'
    "$hakmem" doctor >/dev/full 2>err
    [ $? -gt 2 ] || fail 'written to a full disk, and nobody said so'
    said 'cannot write to standard output'
}

run_cases "$source/tests/test_doctor.sh" "${1:-}"
