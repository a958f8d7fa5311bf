#!/bin/bash
# SPDX-License-Identifier: MIT
#
# make fuzz: fuzzes for as long as one likes.
#
#   FUZZ_TARGET   api, adopt, config, text; all, one after the other, where it is empty
#   FUZZ_SECONDS  for each; empty: 60; forever: until it is stopped
#   FUZZ_JOBS     processes at a time on one target; empty: as many as there are processors
#
# New inputs are kept in $BUILD/fuzz/corpus/TARGET and are where the next run goes on.
set -u
cd "$(dirname "$0")/../.." || exit 1
. tests/fuzz/kit.sh

seconds=${FUZZ_SECONDS:-60}
jobs=${FUZZ_JOBS:-$(nproc)}
[ "$seconds" != forever ] || seconds=0
[ -z "${FUZZ_TARGET:-}" ] || fuzz_targets=("$FUZZ_TARGET")

if ! reason=$(fuzz_possible); then
    echo "make fuzz: $reason" >&2
    exit 1
fi
fuzz_make fuzzers || exit 1

mkdir -p "$fuzz_build/logs"
bad=0
for target in "${fuzz_targets[@]}"; do
    program=$fuzz_build/tests/fuzz/fuzz_$target
    if [ ! -d "tests/fuzz/corpus/$target" ]; then
        echo "make fuzz: there is no target $target" >&2
        exit 2
    fi
    echo "$target: $jobs at a time, logs in $fuzz_build/logs/$target-1 ..."
    running=()
    for job in $(seq "$jobs"); do
        fuzz_run "$program" "$target" "$fuzz_build/logs/$target-$job" -reload=1 \
            -max_total_time="$seconds" "$fuzz_build/corpus/$target" "tests/fuzz/corpus/$target" &
        running+=($!)
    done
    for job in $(seq "$jobs"); do
        log=$fuzz_build/logs/$target-$job
        if wait "${running[$((job - 1))]}"; then
            echo "$target, job $job: $(fuzz_executed "$log") inputs, no finding"
        else
            echo "$target, job $job: a finding"
            fuzz_tell "$log" "$program"
            bad=1
        fi
    done
done
echo "New inputs are in $fuzz_build/corpus. What is worth keeping goes into the repository by"
echo "    tests/fuzz/merge.sh"
exit "$bad"
