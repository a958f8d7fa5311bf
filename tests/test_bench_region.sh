#!/bin/bash
# SPDX-License-Identifier: MIT
# limit: 300 s
#
# bench/region: a quick run's tables and CSV file have every row, every figure is a number or a row
# says why it is missing, the picture is XML with its four panels, huge pages are given back
# whatever ends the run, and what cannot be done is refused with figures. No time is asserted.
#
# An argument runs only the cases with that in their names. Environment: BUILD (build).
#
# Cases are called by their names, which shellcheck does not see.
# shellcheck disable=SC2317
set -u
cd "$(dirname "$0")/.." || exit 1
# shellcheck source=tests/run_kit.sh
. tests/run_kit.sh
if ! make -C "$source" --no-print-directory BUILD="$build" "$build/bench/region" \
    >make.log 2>&1; then
    cat make.log
    echo 'FAIL the_benchmark_builds'
    echo '0 passed, 1 failed, 0 skipped'
    exit 1
fi
region=$build/bench/region

# run_region STATUS ARGUMENT...: leaves out and err.
run_region() {
    local want=$1 got
    shift
    "$region" "$@" >out 2>err
    got=$?
    [ "$got" -eq "$want" ] || fail "exit status $got, not $want, of region $*; $(cat out err)"
}

# The tables of one run serve several cases.
quick() {
    [ ! -f quick.out ] || return 0
    run_region 0 --quick --size 64M --csv quick.csv "$@"
    mv out quick.out
}

# rows SECTION SERIES: how many figures the CSV file has of it, none of them missing.
rows() {
    awk -F, -v section="$1" -v series="$2" '
        $1 == section && $2 == series && $3 != "" {
            if ($6 < 1 || $7 !~ /^[0-9]+\.[0-9]+$/ || $7 <= 0 || $8 > $7 || $9 < $7) bad = 1
            n++
        }
        END { print bad ? "bad" : n + 0 }' quick.csv
}

# left_out SECTION SERIES: there is a reason, in the file as in the table.
left_out() {
    grep -qE "^$1,$2,,,,,,,,\"[^\"]{10,}" quick.csv && grep -qE "^  $2: left out: .{10,}" quick.out
}

# complete SECTION SERIES COUNT: so many figures, or a reason.
complete() {
    local found
    found=$(rows "$1" "$2")
    [ "$found" = "$3" ] || { [ "$found" = 0 ] && left_out "$1" "$2"; } ||
        fail "$1, $2: $found figures, not $3, and no reason; $(cat quick.out)"
}

# ended_with_pages SIGNAL: ends a run while it has pages of its own in the pool. 0: the pool is then
# what it was; 1: it is not, or the run did not come to that; why says what.
ended_with_pages() {
    local before unused now i status
    before=$(cat "$pool/nr_hugepages")
    unused=$(($(cat "$pool/free_hugepages") - $(cat "$pool/resv_hugepages")))
    # More than what there is to be had.
    "$region" --size $(((unused + own) * 2))M >out 2>err &
    for ((i = 0; i < 5000; i++)); do
        now=$(cat "$pool/nr_hugepages")
        [ "$now" -ne $((before + own)) ] || break
        kill -0 $! 2>/dev/null || break
    done
    kill "-$1" $!
    # Not a word from the shell about it.
    { wait $!; } 2>/dev/null
    status=$?
    why="$before pages before, $now in the run, which ended with $status"
    [ "$now" -eq $((before + own)) ] && [ "$status" -eq $((128 + $(kill -l "$1"))) ] || return 1
    # Pages that were mapped go with the process.
    for ((i = 0; i < 100; i++)); do
        now=$(cat "$pool/nr_hugepages")
        [ "$now" -ne "$before" ] || return 0
        sleep 0.02
    done
    why="$why; $now afterwards"
    [ "$now" -ne $((before + own)) ] || echo "$before" >"$pool/nr_hugepages"
    return 1
}

# ---- cases -----------------------------------------------------------------------------------

every_page_size_has_its_row() {
    quick
    [ "$(rows init '4 KiB')" = 3 ] || fail "4 KiB pages: $(cat quick.out)"
    complete init THP 4
    complete init '2 MiB' 4
    complete init '1 GiB' 4
    # Whole 1 GiB pages are more than was allowed.
    left_out init '1 GiB' || fail 'a region of 64 MiB on 1 GiB pages'
    grep -qE '^  4 KiB +[0-9.]+ \([0-9.]+ to [0-9.]+\) +[0-9.]+ \(' quick.out ||
        fail "no row: $(cat quick.out)"
}

every_number_of_addresses_has_its_row() {
    local step
    quick
    for step in '1 GiB' '8 GiB' '64 GiB' '512 GiB' '2 TiB'; do
        complete lookup "$step" 5
    done
    if [ "$(cat /proc/sys/vm/overcommit_memory)" -ne 2 ]; then
        [ "$(rows lookup '2 TiB')" = 5 ] || fail "2 TiB of addresses: $(cat quick.out)"
    fi
}

every_working_set_has_its_rows() {
    local pages
    quick
    # Chase, load and store at 1, 4, 16 and 64 MiB.
    [ "$(rows access '4 KiB')" = 12 ] || fail "4 KiB pages: $(cat quick.out)"
    for pages in THP '2 MiB' '1 GiB'; do
        complete access "$pages" 12
    done
    [ "$(grep -cE '^ +(1|4|16|64) MiB +[0-9.]+ \(' quick.out)" -eq 12 ] ||
        fail "not 12 rows: $(cat quick.out)"
}

every_way_of_freeing_has_its_row() {
    quick
    [ "$(rows free 'own thread')" = 4 ] || fail "own thread: $(cat quick.out)"
    complete free 'same node' 4
    complete free 'other node' 4
    if [ "$(rows free 'other node')" != 0 ] && [ ! -d /sys/devices/system/node/node1 ]; then
        grep -qE '^  other node .* pretended$' quick.out || fail "not pretended: $(cat quick.out)"
    fi
}

the_picture_is_xml_with_four_panels() {
    command -v gnuplot >/dev/null || skip 'no gnuplot here (package gnuplot-nox)'
    rm -f quick.out
    quick --plot "it's a plot.svg"
    grep -q "^plot: it's a plot.svg$" quick.out || fail "no word of the plot: $(cat quick.out)"
    command -v python3 >/dev/null || skip 'no python3 here'
    python3 - "it's a plot.svg" <<'END' || fail 'the picture is not what it should be'
import sys, xml.dom.minidom
text = open(sys.argv[1]).read()
xml.dom.minidom.parseString(text)
for word in 'faulted in', 'addresses of the region', 'working set', 'by who frees':
    if word not in text:
        sys.exit('no "%s" in the picture' % word)
END
}

without_gnuplot_only_an_asked_plot_is_an_error() {
    mkdir -p bare
    ln -sf "$region" bare/region
    PATH=$work/bare run_region 0 --quick --size 16M
    grep -q 'no plot: gnuplot is not installed (apt-get install gnuplot-nox)' err ||
        fail "said $(cat err)"
    PATH=$work/bare run_region 1 --quick --size 16M --plot x.svg
    grep -q 'no plot: gnuplot is not installed' err || fail "said $(cat err)"
    [ ! -e x.svg ] || fail 'a plot without gnuplot'
}

# Others may change the pool at the same moment: three tries.
huge_pages_go_back_when_a_signal_ends_the_run() {
    local pool=/sys/kernel/mm/hugepages/hugepages-2048kB own=47 signal try why=''
    [ -w "$pool/nr_hugepages" ] || skip 'only root can reserve huge pages'
    [ "$(cat "$pool/free_hugepages")" -le 256 ] || skip 'so many huge pages are free already'
    ulimit -c 0
    for signal in TERM ABRT SEGV; do
        for try in 1 2 3; do
            ended_with_pages "$signal" && break
            grep -q '^  2 MiB: left out: ' out && skip "no pages to be had: $(cat out)"
            [ "$try" -lt 3 ] || fail "$signal: $why"
        done
    done
}

what_the_machine_lacks_is_refused_with_figures() {
    local machine
    machine=$(awk '/^MemTotal/ { print int($2 / 1024 / 1024) + 2 }' /proc/meminfo)
    [ "$machine" -le 256 ] || skip "a machine of $machine GiB has what can be asked for"
    run_region 1 --size "${machine}G"
    grep -E "a region of $((machine * 1024)) MiB needs [0-9]+ MiB " err |
        grep -qE ' [0-9]+ MiB\. Give a smaller --size$' || fail "said $(cat err)"
    [ ! -s out ] || fail "printed $(cat out)"
}

nonsense_is_refused() {
    local size
    for size in 0 1M 3000001 512G 20000000T -1 x 1GB ''; do
        run_region 1 --size "$size"
        grep -qF -e "--size $size: expected 16M to 256G" err || fail "$size: $(cat err)"
    done
    run_region 2 --sise 1G
    run_region 2 more
    run_region 0 --help
    grep -q '^usage: region ' out || fail "help: $(cat out)"
}

run_cases "$source/tests/test_bench_region.sh" "${1:-}"
