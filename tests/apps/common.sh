# shellcheck shell=bash
# SPDX-License-Identifier: MIT
#
# What the scripts of this folder share. A script is tests/apps/NAME.sh [quick|full]: it runs one
# application under the C library's malloc and under build/libhakmem_preload.so, compares what the
# two did, and ends with `N passed, N failed, N skipped` and status 0, 1 or 77. It begins with
#
#     . "$(dirname "$0")/common.sh"
#     need memcached /usr/bin/memcached
#
# and then, for each mode of "${modes[@]}":
#
#     set_mode "$mode"          what `run` and `serve` put into the environment
#     run COMMAND...            a command of the application
#     serve LOG COMMAND...      a server, in the background; its id is $server
#     stop ID SIGNAL            ends it and gives its exit status
#
# Modes: glibc; hakmem, as a user gets it by LD_PRELOAD alone; prefault, a smaller region that is
# faulted in before main; spill, one that is too small, with the C library for the rest. A preload
# that the loader ignores would make every comparison pass, so each script also proves that the
# program was on the region: on_region looks into a live process, all_bound asks the loader where
# each program's malloc went.
#
# Everything is in $work, a folder of its own, which goes with the servers when the script ends,
# however it ends. $part is quick or full.
#
# shellcheck disable=SC2034 # modes and others are for the scripts.
set -u

part=${1:-full}
case $part in
quick | full) ;;
*)
    echo "usage: $0 [quick|full]" >&2
    exit 2
    ;;
esac

application=$(basename "$0" .sh)
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd) || exit 1
build=${BUILD:-build}
[[ $build == /* ]] || build=$root/$build

# Debian's programs, and nothing that the caller's own set-up says to them.
unset LD_PRELOAD LD_LIBRARY_PATH MAKEFLAGS MFLAGS MAKELEVEL MAKEOVERRIDES CC CXX CFLAGS CPPFLAGS \
    LDFLAGS "${!HAKMEM_@}" "${!GIT_@}" "${!PYTHON@}" "${!PG@}" "${!OPENSSL_@}"
export PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C TZ=UTC

passed=0 failed=0 skipped=0
servers=() server=0
policy=/usr/sbin/policy-rc.d
policy_is_ours='# hakmem: for the time of one apt-get'

work=$(mktemp -d "${TMPDIR:-/tmp}/hakmem-apps.XXXXXX") || exit 1
export HOME=$work
trap clean_up EXIT
trap 'exit 143' TERM
trap 'exit 130' INT

# ---- cases -----------------------------------------------------------------------------------

pass() {
    passed=$((passed + 1))
    echo "ok   $application: $1"
}

# fail NAME [LINE...]
fail() {
    failed=$((failed + 1))
    echo "FAIL $application: $1"
    shift
    [ $# -eq 0 ] || printf '    %s\n' "$@"
}

# skip REASON: the whole application.
skip() {
    skipped=$((skipped + 1))
    echo "skip $application: $1"
    finish
}

finish() {
    echo "$passed passed, $failed failed, $skipped skipped"
    [ "$failed" -eq 0 ] || exit 1
    [ "$passed" -gt 0 ] || exit 77
    exit 0
}

# check NAME COMMAND...: passes when the command does; shows the end of its output when not.
check() {
    local name=$1 status
    shift
    "$@" >"$work/check.log" 2>&1
    status=$?
    if [ "$status" -eq 0 ]; then
        pass "$name"
    else
        fail "$name" "exit status $status of: $*"
        tail -n 20 "$work/check.log" | sed 's/^/    /'
    fi
    return "$status"
}

# same NAME EXPECTED ACTUAL: two files with the same bytes, and some.
same() {
    if [ ! -s "$2" ]; then
        fail "$1" "nothing to compare with: $2 is empty or not there"
    elif cmp -s "$2" "$3"; then
        pass "$1"
    else
        fail "$1" "$(cmp "$2" "$3" 2>&1)"
        diff -a "$2" "$3" 2>&1 | head -n 20 | tr -cd '[:print:]\n' | cut -c 1-200 |
            sed 's/^/    /'
    fi
}

# equal NAME EXPECTED ACTUAL: two words that are the same, and there.
equal() {
    if [ -n "$2" ] && [ "$2" = "$3" ]; then
        pass "$1"
    else
        fail "$1" "expected: $2" "found:    $3"
    fi
}

# ---- modes -----------------------------------------------------------------------------------

if [ "$part" = quick ]; then
    modes=(glibc hakmem)
else
    modes=(glibc hakmem prefault)
fi
prefault_size=256M
mode=glibc mode_vars=()
# In front of every command: how to become another user.
as_user=()

set_mode() {
    mode=$1
    case $mode in
    glibc) mode_vars=(-u LD_PRELOAD) ;;
    hakmem) mode_vars=("LD_PRELOAD=$preload") ;;
    prefault)
        mode_vars=("LD_PRELOAD=$preload" HAKMEM_PREFAULT=1 "HAKMEM_REGION_SIZE=$prefault_size")
        ;;
    spill)
        mode_vars=("LD_PRELOAD=$preload" HAKMEM_EXHAUSTED=libc HAKMEM_REGION_SIZE=24M)
        ;;
    esac
}

run() {
    ${as_user[@]+"${as_user[@]}"} env "${mode_vars[@]}" "$@"
}

serve() {
    local log=$1
    shift
    (exec ${as_user[@]+"${as_user[@]}"} env "${mode_vars[@]}" "$@") >"$log" 2>&1 </dev/null &
    server=$!
    servers+=("$server")
}

alive() {
    kill -0 "$1" 2>/dev/null
}

# until_true SECONDS COMMAND...: tries until it succeeds.
until_true() {
    local tries=$(($1 * 20))
    shift
    while ! "$@" >/dev/null 2>&1; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || return 1
        sleep 0.05
    done
}

gone() {
    ! alive "$1"
}

# answers NAME LOG COMMAND...: the server just started answers COMMAND within 20 s; otherwise there
# is nothing to test and the script ends.
answers() {
    local name=$1 log=$2 tries=400
    shift 2
    until "$@" >/dev/null 2>&1; do
        tries=$((tries - 1))
        if ! alive "$server" || [ "$tries" -eq 0 ]; then
            fail "$name" "it did not start; the end of its log:"
            tail -n 20 "$log" | sed 's/^/    /'
            finish
        fi
        sleep 0.05
    done
}

# stop ID SIGNAL [SECONDS]: the status of the server that it ended; 137 when it had to be killed.
stop() {
    kill "-$2" "$1" 2>/dev/null
    until_true "${3:-20}" gone "$1" || kill -KILL "$1" 2>/dev/null
    wait "$1" 2>/dev/null
}

# Whoever is left has our folder for its home.
strays() {
    grep -lzxF "HOME=$work" /proc/[0-9]*/environ 2>/dev/null | cut -d / -f 3
}

clean_up() {
    local id
    trap '' TERM INT
    for id in ${servers[@]+"${servers[@]}"}; do
        alive "$id" && stop "$id" TERM 2
    done
    for id in $(strays); do
        kill -KILL "$id" 2>/dev/null
    done
    remove_policy
    rm -rf "$work"
}

# ---- proof that it ran on hakmem -------------------------------------------------------------

# region_kib: how long a region the mode must have: half of what the machine has is less than the
# default (and more than anything else that a program maps), prefault says how much.
region_kib() {
    if [ "$mode" = prefault ]; then
        echo $(($(numfmt --from=iec "$prefault_size") / 1024))
    else
        awk '$1 == "MemTotal:" { print int($2 / 2) }' /proc/meminfo
    fi
}

# on_region NAME ID LEAST_KIB: the process has the library, a region of the mode's size, at least so
# much of it in memory, and no heap of the C library. Under glibc: it does not have the library.
on_region() {
    local name=$1 id=$2 least=$3 found
    # The region is the longest run of neighbouring mappings without a file.
    found=$(awk '
        function fold() { if (run_end - run_start > longest) {
            longest = run_end - run_start; resident = run_resident } }
        $1 ~ /^[0-9a-f]+-[0-9a-f]+$/ {
            split($1, at, "-"); start = hex(at[1]); end = hex(at[2]); heap = $6 == "[heap]"
            if ($6 ~ /libhakmem_preload/) library = 1
            plain = NF == 5
            if (plain && start != run_end) { fold(); run_start = start; run_resident = 0 }
            if (plain) run_end = end
            if (heap) heap_kib += (end - start) / 1024
            next
        }
        $1 == "Rss:" && plain { run_resident += $2 }
        function hex(text,   i, value) {
            value = 0
            for (i = 1; i <= length(text); i++)
                value = value * 16 + index("0123456789abcdef", substr(text, i, 1)) - 1
            return value
        }
        END { fold(); printf "%d %d %d %.0f\n", library, resident, heap_kib, longest / 1024 }' \
        "/proc/$id/smaps" 2>/dev/null)
    local library resident heap_kib long_kib least_long
    read -r library resident heap_kib long_kib <<<"${found:-0 0 0 0}"
    least_long=$(region_kib)
    if [ "$mode" = glibc ]; then
        equal "$name is on the C library ($mode)" 0 "$library"
    elif [ "$library" = 1 ] && [ "$resident" -ge "$least" ] && [ "$heap_kib" -le 256 ] &&
        [ "$long_kib" -ge "$least_long" ]; then
        pass "$name is on the region ($mode, $((resident / 1024)) MiB)"
    else
        fail "$name is on the region ($mode)" "library mapped: $library" \
            "resident in the region: $resident KiB of at least $least" \
            "heap by brk: $heap_kib KiB of at most 256" \
            "longest mapping: $long_kib KiB of at least $least_long"
    fi
}

# all_bound "PROGRAM..." COMMAND...: every process that COMMAND starts has malloc and its relatives
# from the preloaded library, and the programs named are among them. The loader tells (LD_DEBUG,
# ld.so(8)). A program that is not position-independent stands for a function whose address it
# takes with an entry of its own, which then goes to the library like its calls.
all_bound() {
    local programs=$1 log=$work/bindings program lines wrong
    local names='(malloc|calloc|realloc|free|memalign|posix_memalign|aligned_alloc)'
    shift
    rm -rf "$log"
    mkdir -m 777 "$log"
    run LD_DEBUG=bindings "LD_DEBUG_OUTPUT=$log/of" "$@" >"$work/check.log" 2>&1 </dev/null
    lines=$(sed -nE "s/.*binding file (.*) \[0\] to (.*) \[0\]: normal symbol .$names'.*/\1 \2/p" \
        "$log"/of.* 2>/dev/null | grep -v '^[^ ]*libhakmem_preload' | sort -u)
    wrong=$(grep -E '\.so[.0-9]*$' <<<"$lines" | grep -v 'libhakmem_preload\.so$' | head -n 5)
    for program in $programs; do
        grep -qE "^([^ ]*/)?$program [^ ]*libhakmem_preload\.so$" <<<"$lines" ||
            wrong+=" $program: not seen with hakmem"
    done
    if [ -z "$wrong" ]; then
        pass "malloc of $programs is hakmem's ($mode)"
    else
        fail "malloc of $programs is hakmem's ($mode)" "$wrong"
    fi
}

# ---- packages --------------------------------------------------------------------------------

remove_policy() {
    grep -qsF "$policy_is_ours" "$policy" && rm -f "$policy"
    return 0
}

# Services of a package are not started: policy-rc.d says no for the time of the installation.
apt_install() {
    local state=${APPS_STATE:-$work} status=0
    local apt=(timeout --foreground 150 apt-get -qq -o DPkg::Lock::Timeout=60
        -o Acquire::http::Timeout=20 -o Acquire::Retries=1)
    export DEBIAN_FRONTEND=noninteractive
    if [ ! -e "$state/updated" ]; then
        "${apt[@]}" update && touch "$state/updated"
    fi
    if [ ! -e "$policy" ]; then
        printf '%s\n' '#!/bin/sh' "$policy_is_ours" 'exit 101' >"$policy"
        chmod 755 "$policy"
    fi
    "${apt[@]}" install -y --no-install-recommends "$1" || status=$?
    remove_policy
    return "$status"
}

# need PACKAGE FILE: the package's file is there, or is installed where that may be done, or the
# application is skipped. FILE may be a pattern.
need() {
    local package=$1
    compgen -G "$2" >/dev/null && return
    if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
        skip "$2 is not there; apt-get install $package"
    fi
    apt_install "$package" >"$work/apt.log" 2>&1 </dev/null
    compgen -G "$2" >/dev/null ||
        skip "apt-get install $package: $(grep -a '^E:' "$work/apt.log" | tail -n 1)"
}

# A copy that a server under another user can read, and that nobody rebuilds meanwhile.
chmod 755 "$work"
preload=$work/libhakmem_preload.so
if ! install -m 755 "$build/libhakmem_preload.so" "$preload"; then
    fail "the library is built" "run make first"
    finish
fi
set_mode glibc
