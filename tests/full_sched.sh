#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Interleavings, many of them: as tests/test_sched.sh without the mistakes, four million schedules
# over all scenes, from two seeds at a time. SEED repeats a run.
# limit: 600 s
set -u
cd "$(dirname "$0")/.." || exit 1
# shellcheck source=tests/sched/build.sh
. tests/sched/build.sh

if ! sched_make "$sched" >"$work/made" 2>&1; then
    tail -n 20 "$work/made"
    echo 'FAIL the_simulator_builds'
    echo '0 passed, 1 failed, 0 skipped'
    exit 1
fi

seed=${SEED:-$(date +%s%N)}
for half in 0 1; do
    SCHEDULES=2000000 SEED=$((seed + half)) "$sched" >"$work/half$half" &
done
wait
cat "$work"/half?
passed=$(cat "$work"/half? | grep -c "^ok ")
failed=$(cat "$work"/half? | grep -c "^FAIL ")
# A program that ended in another way has no tally.
failed=$((failed + 2 - $(grep -lE '^[0-9]+ passed' "$work"/half? | wc -l)))
echo "$passed passed, $failed failed, 0 skipped"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
