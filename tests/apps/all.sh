#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Runs the applications of this folder one after the other, and adds up their cases:
# tests/apps/all.sh quick|full SECONDS [NAME...]
#
# Each may take SECONDS; it is then ended with everything that it has started. The last line is the
# sum. Applications that are skipped say why; 77 when all of them were.
set -u

part=$1 limit=$2
shift 2
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd) || exit 1
[ $# -gt 0 ] || set -- openssl sqlite git gcc python redis memcached nginx postgresql stress-ng
tally='^([0-9]+) passed, ([0-9]+) failed, ([0-9]+) skipped$'
passed=0 failed=0 skipped=0 job=0

APPS_STATE=$(mktemp -d) || exit 1
export APPS_STATE
# The one that runs is in a process group of its own, that of its timeout, which passes this on.
# shellcheck disable=SC2317 # called by the trap
interrupted() {
    [ "$job" -eq 0 ] || { kill -TERM "$job" && wait "$job"; } 2>/dev/null
    exit 143
}
trap 'rm -rf "$APPS_STATE"' EXIT
trap interrupted TERM INT

for name in "$@"; do
    started=$EPOCHREALTIME
    # In the background, since a trap waits for what runs in the foreground.
    timeout -k 15 "$limit" "$here/$name.sh" "$part" >"$APPS_STATE/log" 2>&1 </dev/null &
    job=$!
    wait "$job"
    status=$?
    job=0
    last=$(tail -n 1 "$APPS_STATE/log")
    p=0 f=0 s=0
    if [[ $last =~ $tally ]]; then
        p=${BASH_REMATCH[1]} f=${BASH_REMATCH[2]} s=${BASH_REMATCH[3]}
    fi
    grep -avE "$tally" "$APPS_STATE/log"
    case $status-$((f > 0))-$((p + f > 0)) in
    0-0-1 | 1-1-1 | 77-0-0) ;;
    *)
        echo "FAIL $name: exit status $status (124: it took more than $limit s)"
        f=$((f + 1))
        ;;
    esac
    awk -v name="$name" -v from="$started" -v to="$EPOCHREALTIME" -v p="$p" -v f="$f" -v s="$s" \
        'BEGIN { printf "%-12s %7.2f s   %d passed, %d failed, %d skipped\n", name, to - from, p, f,
                 s }'
    passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
done

echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ] || exit 1
[ "$passed" -gt 0 ] || exit 77
exit 0
