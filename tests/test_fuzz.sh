#!/bin/bash
# SPDX-License-Identifier: MIT
#
# The fuzzers of tests/fuzz: builds them, replays the corpus, then looks for more for a minute, two
# at a time. limit and time: about 75 s on two processors, FUZZ_SECONDS (60) of them for new inputs.
# limit: 400 s
#
# A failing case prints the finding, the file with the input, and how to run it.
set -u
cd "$(dirname "$0")/.." || exit 1
. tests/fuzz/kit.sh

passed=0 failed=0

# verdict NAME STATUS LOG PROGRAM
verdict() {
    if [ "$2" -eq 0 ]; then
        echo "ok $1"
        passed=$((passed + 1))
    else
        echo "FAIL $1: exit status $2"
        fuzz_tell "$3" "$4"
        failed=$((failed + 1))
    fi
}

end() {
    echo "$passed passed, $failed failed, $1 skipped"
    [ "$failed" -eq 0 ] || exit 1
    [ "$passed" -gt 0 ] || exit 77
    exit 0
}

if ! reason=$(fuzz_possible); then
    echo "skip fuzzers: $reason"
    end 1
fi
mkdir -p "$fuzz_build/logs"
fuzz_make fuzzers >"$fuzz_build/logs/build" 2>&1
status=$?
verdict fuzzers_build "$status" "$fuzz_build/logs/build" make
[ "$status" -eq 0 ] || end 0

# The corpus: each input is one that once showed something new.
for target in "${fuzz_targets[@]}"; do
    program=$fuzz_build/tests/fuzz/fuzz_$target log=$fuzz_build/logs/$target-replay
    fuzz_run "$program" "$target" "$log" -runs=0 "tests/fuzz/corpus/$target"
    status=$?
    inputs=$(find "tests/fuzz/corpus/$target" -type f | wc -l)
    # libFuzzer runs one more, empty.
    if [ "$status" -eq 0 ] && [ "$(fuzz_executed "$log")" -lt "$inputs" ]; then
        status=1
    fi
    verdict "corpus_of_${target}_replayed" "$status" "$log" "$program"
done

# Two at a time: the calls have one lane for all the time, the others share the second.
seconds=${FUZZ_SECONDS:-60}
# explore TARGET SECONDS: status into a file.
explore() {
    fuzz_run "$fuzz_build/tests/fuzz/fuzz_$1" "$1" "$fuzz_build/logs/$1" \
        -max_total_time="$2" "$fuzz_build/corpus/$1" "tests/fuzz/corpus/$1"
    echo $? >"$fuzz_build/logs/$1.status"
}
others() {
    explore adopt $((seconds * 4 / 10))
    explore config $((seconds * 3 / 10))
    explore text $((seconds * 3 / 10))
}
others &
explore api "$seconds"
wait
for target in "${fuzz_targets[@]}"; do
    verdict "new_inputs_for_${target}" "$(cat "$fuzz_build/logs/$target.status")" \
        "$fuzz_build/logs/$target" "$fuzz_build/tests/fuzz/fuzz_$target"
    echo "  $(fuzz_executed "$fuzz_build/logs/$target") inputs"
done
end 0
