#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Makes the corpus of the repository anew, of what is in it and in $BUILD/fuzz/corpus: for each
# place in the code that some input reaches, the shortest. Findings of old and what shows a mutant
# are called kept-... and stay. tests/fuzz/merge.sh [FOLDER] takes FOLDER/TARGET in place of
# $BUILD/fuzz/corpus/TARGET.
set -eu
cd "$(dirname "$0")/../.."
. tests/fuzz/kit.sh

from=${1:-$fuzz_build/corpus}
fuzz_possible
fuzz_make fuzzers
mkdir -p "$fuzz_build/logs"
for target in "${fuzz_targets[@]}"; do
    kept=tests/fuzz/corpus/$target
    fresh=$fuzz_build/merged/$target
    rm -rf "$fresh"
    mkdir -p "$fresh" "$kept" "$from/$target"
    # -use_counters=0: a place counts once, not once for each number of times that it is passed.
    fuzz_run "$fuzz_build/tests/fuzz/fuzz_$target" "$target" "$fuzz_build/logs/$target-merge" \
        -merge=1 -use_counters=0 "$fresh" "$kept" "$from/$target" || {
        fuzz_tell "$fuzz_build/logs/$target-merge" "$fuzz_build/tests/fuzz/fuzz_$target"
        exit 1
    }
    find "$kept" -type f ! -name 'kept-*' -delete
    for input in "$fresh"/*; do
        cp "$input" "$kept/$(sha1sum <"$input" | cut -c 1-10)"
    done
    echo "$target: $(find "$kept" -type f | wc -l) inputs, $(cat "$kept"/* | wc -c) bytes"
done
