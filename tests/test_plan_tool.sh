#!/bin/bash
# SPDX-License-Identifier: MIT
#
# `hakmem plan`: the table, the JSON, the exit status, what it refuses, that it changes nothing, and
# that its commands do what they are for.
#
# A case is a function in a subshell of its own, in the order of this file; it ends by `fail WHY` or
# `skip REASON`, or it is ok. An argument runs only the cases with that in their names. Environment:
# BUILD (build).
#
# Cases are called by their names, which shellcheck does not see.
# shellcheck disable=SC2317
set -u
cd "$(dirname "$0")/.." || exit 1
script=$PWD/tests/test_plan_tool.sh
# shellcheck source-path=SCRIPTDIR/..
. tests/run_kit.sh
node=$(sed 's/[^0-9].*//' /sys/devices/system/node/has_memory 2>/dev/null || echo 0)
pools=/sys/devices/system/node/node$node/hugepages
[ -d "$pools" ] || pools=/sys/kernel/mm/hugepages
pool=$pools/hugepages-2048kB
before=$(cat "$pool/nr_hugepages" 2>/dev/null)
# Of those: made by the kernel on demand.
surplus=$(cat "$pool/surplus_hugepages" 2>/dev/null || echo 0)
# The pool's size is put back however this ends.
finish() {
    [ -z "$before" ] || [ "$(cat "$pool/nr_hugepages")" = "$before" ] ||
        echo "$before" >"$pool/nr_hugepages"
    rm -rf "$work"
}
trap finish EXIT
trap 'exit 1' HUP INT TERM

# plan STATUS ARGUMENT...: `hakmem plan ARGUMENT...` must end with STATUS; leaves out and err.
plan() {
    local want=$1 got
    shift
    "$hakmem" plan "$@" >out 2>err
    got=$?
    [ "$got" -eq "$want" ] || fail "exit status $got, not $want, of: ${*@Q}; $(head -c 900 out err)"
}

# printed PATTERN...: a line of the output matches each.
printed() {
    local pattern
    for pattern; do
        grep -qE -e "$pattern" out || fail "no line like '$pattern' in: $(cat out)"
    done
}

# said TEXT...: standard error is one line that has each; nothing was printed.
said() {
    local text
    [ "$(wc -l <err)" -eq 1 ] || fail "said $(wc -l <err) lines: $(cat err)"
    [ ! -s out ] || fail "printed $(head -c 300 out)"
    for text; do
        grep -qF -e "$text" err || fail "said: $(cat err); without: $text"
    done
}

# json EXPRESSION...: each is true of the answer, which is called p.
json() {
    command -v python3 >/dev/null || skip 'no python3 here'
    python3 - "$@" <<'END' || fail "$(cat out)"
import json, sys
p = json.load(open("out"))
for expression in sys.argv[1:]:
    if not eval(expression):
        print("not true:", expression, file=sys.stderr)
        sys.exit(1)
END
}

need_pools() {
    [ -n "$before" ] || skip 'no huge pages of 2M on this kernel'
    [ "$(cat /sys/devices/system/node/has_memory 2>/dev/null || echo 0)" = "$node" ] ||
        skip 'several nodes: see tests/numa'
}

need_root() {
    need_pools
    [ "$(id -u)" -eq 0 ] || skip 'only root can reserve huge pages'
}

# Free pages that nobody was promised, and more: so many MiB.
more_than_free() {
    local all=/sys/kernel/mm/hugepages/hugepages-2048kB
    echo $((($(cat "$all/free_hugepages") - $(cat "$all/resv_hugepages") + $1) * 2))M
}

counts() {
    cat /sys/kernel/mm/hugepages/*/*_hugepages /sys/kernel/mm/transparent_hugepage/enabled \
        /sys/devices/system/node/node*/hugepages/*/*_hugepages 2>/dev/null
}

# mends TITLE: the commands below that line of the table's are what was missing; `hakmem run` agrees
# before and after.
mends() {
    local size
    size=$(more_than_free 4)
    plan 1 --size "$size" --pages 2M
    "$hakmem" run --size "$size" --pages 2M --prefault true 2>err
    [ $? -eq 127 ] || fail "a region that could not be had: $(cat err)"
    sed -n "/$1/,/^$/p" out | sed 1d >commands
    [ "$(grep -c . commands)" -eq 1 ] || fail "commands: $(cat commands)"
    sh -e commands 2>err || fail "$(cat commands err)"
    [ "$(cat "$pool/nr_hugepages")" -ge $((before + 4)) ] ||
        skip 'so many pages cannot be made here'
    plan 0 --size "$size" --pages 2M
    printed '^init would succeed, with 2M pages'
    "$hakmem" run --size "$size" --pages 2M --prefault true 2>err || fail "run: $(cat err)"
    echo "$before" >"$pool/nr_hugepages"
}

# ---- cases: what it shows -------------------------------------------------------------------

a_row_per_page_size_and_node() {
    need_pools
    plan 0 --size 6M --pages 2M,4k
    printed '^pages +node +wanted +free +pool +missing +memory to make them$' \
        "^2M +$node +3 +$(cat "$pool/free_hugepages") +$before +[0-9]+ +[0-9]+ MiB$" \
        "^4k +$node +1536 +[0-9]+ +- +0 +-$" \
        '^  hugetlb cgroup, 2M pages: ' '^  memory cgroup: ' '^  RLIMIT_MEMLOCK: ' \
        '^init would succeed'
    [ ! -s err ] || fail "said $(cat err)"
}

what_is_missing_comes_with_commands() {
    need_pools
    plan 1 --size "$(more_than_free 5)" --pages 2M
    printed "^init would fail with -ENOMEM: .* 2M pages: node $node needs .* 5 missing\.$" \
        "^  echo $((before + 5)) > $pool/nr_hugepages$" \
        "^  hugeadm --pool-pages-min 2M:\\+$((5 + surplus))$" \
        "^  hugepagesz=2M hugepages=$((before + 5))$"
}

no_commands_where_nothing_is_missing() {
    plan 0 --size 4M --pages 4k
    printed '^init would succeed, with 4k pages and [0-9]+ MiB\.$'
    ! grep -qE 'echo|hugeadm|hugepagesz' out || fail "$(cat out)"
}

json_has_the_same_figures() {
    need_pools
    plan 1 --json --size "$(more_than_free 5)" --pages 2M
    [ ! -s err ] || fail "said $(cat err)"
    json 'p["code"] == -12' 'p["error"] == "ENOMEM"' 'p["chosen"] is None' \
        'len(p["kinds"]) == 1 and p["kinds"][0]["pages"] == "2M"' \
        'p["kinds"][0]["page_bytes"] == 2 << 20' \
        'p["kinds"][0]["size_bytes"] == p["kinds"][0]["nodes"][0]["wanted_pages"] << 21' \
        "p['kinds'][0]['nodes'][0]['pool_pages'] == $before" \
        'p["kinds"][0]["nodes"][0]["missing_pages"] == 5' \
        'p["kinds"][0]["nodes"][0]["memory_bytes"] > 0' \
        'set(p["kinds"][0]) == {"pages", "page_bytes", "size_bytes", "code", "error",
                                "promised_pages", "cgroup_bytes", "nodes"}' \
        'set(p) == {"code", "error", "chosen", "message", "memlock_bytes", "kinds", "now",
                    "hugeadm", "boot"}' \
        "p['now'] == ['echo $((before + 5)) > $pool/nr_hugepages']" \
        "p['hugeadm'] == ['hugeadm --pool-pages-min 2M:+$((5 + surplus))']" \
        "p['boot'] == 'hugepagesz=2M hugepages=$((before + 5))'" '"5 missing" in p["message"]'
}

json_of_a_success_and_of_nonsense() {
    plan 0 --json --size 4M --pages 4k,thp
    json 'p["code"] == 0 and p["error"] is None' 'p["chosen"] == "4k"' 'p["message"] == ""' \
        '[k["pages"] for k in p["kinds"]] == ["4k", "thp"]' \
        'p["now"] == [] and p["hugeadm"] == [] and p["boot"] is None' \
        'all(n["pool_pages"] == 0 for k in p["kinds"] for n in k["nodes"])'
    HAKMEM_MISUSE='say "no"' plan 1 --json
    json 'p["error"] == "EINVAL"' '"HAKMEM_MISUSE=say \"no\"" in p["message"]' 'p["kinds"] == []'
    (
        ulimit -l 64 2>/dev/null || exit 0
        plan 0 --json --pages 4k
        json 'p["memlock_bytes"] == 65536'
    ) || exit
}

# Whatever the bytes of a variable are: each that is in no character is one question mark.
json_is_utf8() {
    local bytes fill
    HAKMEM_PAGES=$'\xff' plan 1 --json
    json '"HAKMEM_PAGES=? cannot" in p["message"]'
    HAKMEM_MISUSE=$'\xc0\xaf \xed\xa0\x80 \xf4\x90\x80\x80 \xe2\x82' plan 1 --json
    json '"=?? ??? ???? ?? cannot" in p["message"]'
    HAKMEM_MISUSE=$'\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80' plan 1 --json
    json '"=\u00e9 \u20ac \U0001f600 cannot" in p["message"]'
    # The message has room for a part: the cut goes through a character in some.
    for bytes in 0 1 2 3; do
        fill=xxx
        HAKMEM_MISUSE=${fill:0:bytes}$(printf '\xf0\x9f\x98\x80%.0s' {1..300}) plan 1 --json
        json '"\U0001f600" in p["message"]'
    done
}

help_tells_the_options() {
    plan 0 --help
    printed '^usage: hakmem plan' '--size +VALUE +\(HAKMEM_REGION_SIZE\)' '--pages +VALUE' \
        '--nodes +VALUE' '--prefault +VALUE' '--json' 'accepted: a comma list of 1G\|2M\|thp\|4k' \
        '^  125  '
    cp out long
    plan 0 -h
    cmp -s out long || fail '-h and --help differ'
}

# ---- what it takes and refuses ---------------------------------------------------------------

an_option_wins_over_its_variable() {
    HAKMEM_REGION_SIZE=8M HAKMEM_PAGES=thp plan 0 --size 4M --pages 4k --json
    json 'p["chosen"] == "4k"' \
        'p["kinds"][0]["size_bytes"] < 8 << 20 or len(p["kinds"][0]["nodes"]) > 2'
    HAKMEM_REGION_SIZE=8M HAKMEM_PAGES=4k plan 0 --json
    json 'p["kinds"][0]["size_bytes"] >= 8 << 20'
    HAKMEM_REGION_SIZE=8M plan 0 --size= --pages 4k --json
    json 'p["kinds"][0]["size_bytes"] >= 256 << 20'
    HAKMEM_REGION_SIZE=nonsense HAKMEM_PREFAULT=nonsense plan 0 --size 4M --prefault=on --pages 4k
}

values_are_read_as_the_environments() {
    plan 0 --size 4MiB --pages 4K --nodes "$node" --prefault yes
    plan 0 --size 4194304 --pages=4k,THP --nodes=all --prefault=off
    printed '^4k ' '^thp '
    # Out of range: taken as the least, and said once.
    plan 0 --size 1K --pages 4k
    [ "$(wc -l <err)" -eq 1 ] || fail "said $(cat err)"
    grep -qF 'HAKMEM_REGION_SIZE=1K is less than 2M; using 2M' err || fail "said $(cat err)"
    [ "$(cat /proc/sys/vm/overcommit_memory)" -ne 2 ] ||
        skip 'vm.overcommit_memory is 2: addresses are not given without memory'
    plan 0 --size 2T --pages 4k --prefault off
    plan 1 --size 2T --pages 4k --prefault on
}

wrong_arguments_are_refused() {
    local arguments
    for arguments in '--size x' '--size -1' '--size 8Q' '--pages 3M' '--pages 2M,,4k' \
        '--nodes 64' '--nodes 3-1' '--nodes x' '--prefault maybe'; do
        # Two words each.
        # shellcheck disable=SC2086
        plan 2 $arguments
        said "hakmem plan: $arguments: cannot be understood; accepted: " '--help'
    done
    plan 2 --frobnicate
    said '--frobnicate'
    plan 2 --size
    said '--size'
    plan 2 8G
    said '8G' '--help'
}

what_is_wrong_in_the_environment_is_the_answer() {
    HAKMEM_NODES=zero plan 1
    printed '^init would fail with -EINVAL: HAKMEM_NODES=zero cannot be understood; accepted: '
    plan 1 --nodes 63
    printed '^init would fail with -ENODEV: node 63 does not exist; nodes that can be used: '
}

# ---- what it does not, and what its commands do ----------------------------------------------

nothing_changes() {
    counts >counts_before
    plan 1 --size 2T --pages 1G,2M
    "$hakmem" plan --size 1G --pages 1G,2M,thp,4k >out
    "$hakmem" plan --size 512M --json >out
    counts >counts_after
    cmp -s counts_before counts_after || fail "$(diff counts_before counts_after)"
}

the_sysfs_commands_mend_it() {
    need_root
    mends 'now, as root'
}

the_hugeadm_commands_mend_it() {
    need_root
    command -v hugeadm >/dev/null || skip 'no hugeadm here (package libhugetlbfs-bin)'
    mends 'by hugeadm'
}

run_cases "$script" "${1:-}"
