#!/bin/bash
# SPDX-License-Identifier: MIT
#
# stress-ng's stressors that live on malloc (and not on brk or mmap of their own), with their
# results verified: trees, lists, tables, sorting, compression, growing heaps, threads and processes
# that come and go. The same ones pass as under the C library, with the same number of operations.
# shellcheck source=tests/apps/common.sh
. "$(dirname "$0")/common.sh"

stress=/usr/bin/stress-ng
need stress-ng "$stress"
if [ "$part" = quick ]; then
    times=1
else
    times=5
fi

# A line for each run of stress-ng: its stressors and the operations they end after.
plan() {
    echo "--malloc 2 --malloc-ops $((times * 20000)) --malloc-bytes 64k --malloc-touch"
    echo "--malloc 2 --malloc-ops $((times * 50)) --malloc-bytes 16m --malloc-touch"
    echo "--malloc 2 --malloc-ops $((times * 100000)) --malloc-pthreads 4 --malloc-zerofree"
    echo "--tree 1 --tree-ops $((times * 2)) --tree-size 20000 --list 1 --list-ops $((times * 20))"
    echo "--tsearch 1 --tsearch-ops $((times * 5)) --hsearch 1 --hsearch-ops $((times * 20))"
    echo "--judy 1 --judy-ops $times --skiplist 1 --skiplist-ops $((times * 20))"
    echo "--zlib 1 --zlib-ops $((times * 10)) --mergesort 1 --mergesort-ops $((times * 2))"
    echo "--bigheap 1 --bigheap-ops $((times * 400)) --bigheap-growth 512k"
    echo "--pthread 1 --pthread-ops $((times * 500)) --pthread-max 64"
    echo "--fork 1 --fork-ops $((times * 300)) --vfork 1 --vfork-ops $((times * 300))"
    echo "--dynlib 1 --dynlib-ops $((times * 100))"
}

# done_of LOG LINE: each stressor with whether it did as many operations as asked. (Some do one or
# two more, as their threads happen to stop.)
done_of() {
    local name asked
    while read -r name asked; do
        awk -v name="$name" -v asked="$asked" '$2 == "metrc:" && $4 == name {
            print name, ($5 >= asked ? asked : $5 " of " asked); exit }' "$1"
    done < <(grep -oE -- '--[a-z]+-ops [0-9]+' <<<"$2" | sed -E 's/--([a-z]+)-ops/\1/')
}

# session: how each run ended, which stressors passed and which not, and what they did. A child that
# was killed is begun anew and told of in verbose mode only.
session() {
    local line
    while read -r line; do
        # Unquoted: a word for each option.
        # shellcheck disable=SC2086
        run "$stress" $line --verify --seed 7 --timeout 60 --metrics-brief --verbose \
            --temp-path "$work" --oomable >"$work/stress.log" 2>&1 </dev/null
        echo "$line: exit status $?"
        cat "$work/stress.log" >>"$work/$mode.log"
        grep -aE 'passed:|failed:|fail:|unsuccessful|child died|killed by' "$work/stress.log" |
            sed -E 's/^.*\] *//; s/ in [0-9.]+s.*//'
        done_of "$work/stress.log" "$line"
    done < <(plan)
}

for mode in "${modes[@]}"; do
    prefault_size=2G
    set_mode "$mode"
    session >"$work/$mode.session"
    if [ "$mode" = glibc ]; then
        equal 'stressors end well (glibc)' "$(plan | wc -l)" \
            "$(grep -c 'exit status 0$' "$work/glibc.session")"
        equal 'stressors do what they were asked (glibc)' "$(plan | grep -o -e '-ops' | wc -l)" \
            "$(grep -cE '^[a-z]+ [0-9]+$' "$work/glibc.session")"
        check 'no child dies (glibc)' [ "$(grep -cE 'died|killed' "$work/glibc.session")" -eq 0 ]
    else
        same "stressors, results and operations ($mode)" "$work/glibc.session" \
            "$work/$mode.session" || grep -aE 'fail|warn' "$work/$mode.log" | head -n 20
    fi
done

set_mode hakmem
serve "$work/live.log" "$stress" --malloc 1 --malloc-bytes 1m --malloc-touch --verify --timeout 20
worker() {
    pgrep -P "$(pgrep -P "$server" | head -n 1)" || pgrep -P "$server"
}
until_true 10 worker
sleep 0.5
on_region 'stress-ng (worker)' "$(worker | head -n 1)" 1000
stop "$server" INT
all_bound stress-ng "$stress" --malloc 1 --malloc-ops 100
finish
