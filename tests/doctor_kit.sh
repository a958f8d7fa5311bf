# SPDX-License-Identifier: MIT
#
# What the cases of test_doctor.sh are made of, besides run_kit.sh: a made-up machine of two nodes
# as a tree of files, and what the doctor must find in it. To be sourced after run_kit.sh.
# shellcheck shell=bash
# shellcheck disable=SC2154
# (hakmem and work come from run_kit.sh.)
as_root=()
[ "$(id -u)" -eq 0 ] || as_root=(unshare --map-root-user)
thp=sys/kernel/mm/transparent_hugepage
pools=sys/kernel/mm/hugepages

# put FILE TEXT...: a file of the tree with these lines.
put() {
    mkdir -p "tree/$(dirname "$1")"
    printf '%s\n' "${@:2}" >"tree/$1"
}

# pool KIB NODE TOTAL FREE; the machine's counts are set apart.
pool() {
    local folder=sys/devices/system/node/node$2/hugepages/hugepages-$1kB
    put "$folder/nr_hugepages" "$3"
    put "$folder/free_hugepages" "$4"
    put "$folder/surplus_hugepages" 0
}

machine_pool() {
    put "$pools/hugepages-$1kB/nr_hugepages" "$2"
    put "$pools/hugepages-$1kB/free_hugepages" "$3"
    put "$pools/hugepages-$1kB/resv_hugepages" 0
    put "$pools/hugepages-$1kB/surplus_hugepages" 0
    put "$pools/hugepages-$1kB/nr_overcommit_hugepages" 0
}

make_nodes() {
    local node
    for node in 0 1; do
        put "sys/devices/system/node/node$node/meminfo" "Node $node MemTotal: 16000000 kB" \
            "Node $node MemFree: 12000000 kB"
        put "sys/devices/system/node/node$node/cpulist" "$((node * 2))-$((node * 2 + 1))"
        pool 2048 "$node" 512 300
        pool 1048576 "$node" 0 0
    done
    put sys/devices/system/node/node0/distance '10 21'
    put sys/devices/system/node/node1/distance '21 10'
    put sys/devices/system/node/online 0-1
    put sys/devices/system/node/has_memory 0-1
    machine_pool 2048 1024 600
    machine_pool 1048576 0 0
    put sys/devices/system/cpu/online 0-3
    put sys/devices/system/cpu/isolated ''
    put sys/devices/system/cpu/cpu0/cpufreq/scaling_governor performance
    put sys/devices/system/cpu/cpu1/cpufreq/scaling_governor performance
}

make_proc() {
    put proc/sys/kernel/osrelease 6.1.0-made-up
    put proc/sys/kernel/numa_balancing 0
    put proc/sys/vm/overcommit_memory 0
    put proc/sys/vm/overcommit_ratio 50
    put proc/sys/vm/swappiness 60
    put proc/sys/vm/zone_reclaim_mode 0
    put proc/sys/vm/max_map_count 65530
    put proc/meminfo 'MemTotal: 32000000 kB' 'SwapTotal: 0 kB' 'SwapFree: 0 kB' \
        'CommitLimit: 16000000 kB' 'Committed_AS: 1000000 kB'
    put proc/mounts 'proc /proc proc rw 0 0' \
        'none /dev/huge hugetlbfs rw,relatime,pagesize=2M 0 0' \
        'none /dev/huge1G hugetlbfs rw,relatime,pagesize=1024M 0 0'
    mkdir -p tree/dev/huge tree/dev/huge1G
    put proc/self/status $'Name:\thakmem' $'CapEff:\t0000000000000000' \
        $'Cpus_allowed_list:\t0-3' $'Mems_allowed_list:\t0-1'
    put proc/self/limits 'Max locked memory         unlimited            unlimited            bytes'
    put proc/self/cgroup 0::/app
    put proc/self/mountinfo '30 1 0:27 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw'
    put sys/fs/cgroup/app/memory.max max
    put sys/fs/cgroup/app/memory.current 1000000
}

fresh_tree() {
    rm -rf tree
    make_nodes
    make_proc
    put "$thp/enabled" 'always [madvise] never'
    put "$thp/defrag" 'always defer defer+madvise [madvise] never'
    put "$thp/khugepaged/defrag" 1
    put "$thp/khugepaged/pages_to_scan" 4096
    mkdir -p tree/sys/bus/virtio/devices
}

# Nobody's copy of the tool, since the build folder may be closed to him.
tool_for_nobody() {
    need_root
    mkdir -p open
    cp "$hakmem" open
    hakmem=$work/open/hakmem
}

need_root_folder() {
    "${as_root[@]}" "$hakmem" doctor --root / >/dev/null 2>err
    [ $? -le 1 ] || skip "another root folder cannot be had here: $(cat err)"
}

# look STATUS [OPTION...]: the doctor at the tree.
look() {
    expect "$1" "${as_root[@]}" "$hakmem" doctor --root tree "${@:2}"
    [ ! -s err ] || fail "said: $(cat err)"
}

# found STATUS LEVEL CHECK FINDING [REMEDY]: with the tree as it is now there is that one finding
# that is not ok (patterns), and it names a source; JSON says the same.
found() {
    local line
    need_root_folder
    look "$1"
    line=$(grep -E '^(note|warn|bad) ' out)
    [ "$(grep -cE '^(note|warn|bad) ' out)" -eq 1 ] || fail "not one finding but: $line"
    [[ $line =~ ^$2\ +$3:\ .*$4 ]] || fail "found: $line"
    grep -qE '^      source: .' out || fail "no source: $(cat out)"
    if [ $# -gt 4 ]; then
        grep -qE "^      remedy: .*$5" out || fail "another remedy: $(grep remedy: out)"
    fi
    grep -qE "^[0-9]+ ok, " out || fail "no sum: $(tail -n 1 out)"
    look "$1" --json
    grep -qE "\"level\":[[:space:]]+\"$2\"" out || fail "JSON: $(cat out)"
}
