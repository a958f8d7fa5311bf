#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Prepares and boots one scene after the other: all.sh quick|full|SCENE...
#
# A line a scene, `ok NAME: what was counted in it` or `FAIL NAME: why` with the ends of its logs;
# skips of cases inside are counted against the table by boot.sh, so they are none of this tally. A
# machine that cannot boot the scenes at all is a single skip, with the reason. Last line
# `N passed, N failed, N skipped`, exit status 0, 1 or 77. BUILD as in the Makefile.
set -u
cd "$(dirname "$0")/../.." || exit 1
# shellcheck source=tests/numa/scenes.sh
. tests/numa/scenes.sh

case ${1:?usage: all.sh quick|full|SCENE...} in
quick) scenes=$quick_scenes STRESS_SECONDS=5 VM_QUICK=1 ;;
full) scenes=$full_scenes STRESS_SECONDS=20 VM_QUICK=0 ;;
*) scenes=$* STRESS_SECONDS=${STRESS_SECONDS:-20} VM_QUICK=${VM_QUICK:-0} ;;
esac
export STRESS_SECONDS VM_QUICK

# Every program that a scene of the table runs, but the script, which prepare.sh brings anyway.
programs() {
    local name
    for name in $full_scenes; do
        scene "$name" && echo "$runs$more"
    done | awk 'NF > 1 && $2 !~ /[.]sh$/ { print "tests/" $2 }' | sort -u
    echo hakmem
}

passed=0 failed=0
# shellcheck disable=SC2046
reason=$(tests/numa/prepare.sh $(programs))
case $? in
0) ;;
77)
    echo "skip numa: $reason"
    echo '0 passed, 0 failed, 1 skipped'
    exit 77
    ;;
*)
    echo "FAIL numa: $reason"
    echo '0 passed, 1 failed, 0 skipped'
    exit 1
    ;;
esac
for name in $scenes; do
    started=$EPOCHREALTIME
    if said=$(tests/numa/boot.sh "$name"); then
        passed=$((passed + 1)) word=ok
    else
        failed=$((failed + 1)) word=FAIL
    fi
    echo "$word $name: $said" | sed '2,$s/^/    /'
    awk -v name="$name" -v from="$started" -v to="$EPOCHREALTIME" \
        'BEGIN { printf "   %s took %.1f s\n", name, to - from }'
done
echo "$passed passed, $failed failed, 0 skipped"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
