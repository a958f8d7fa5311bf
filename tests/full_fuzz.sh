#!/bin/bash
# SPDX-License-Identifier: MIT
#
# The fuzzers for longer, and the mutants that show what they find. limit and time: about 5 minutes
# on two processors.
# limit: 900 s
set -u
cd "$(dirname "$0")/.." || exit 1

passed=0 failed=0 skipped=0
for part in tests/test_fuzz.sh tests/fuzz/mutants.sh; do
    log=$(FUZZ_SECONDS=120 "$part" 2>&1)
    printf '%s\n' "$log" | head -n -1
    tally=$(printf '%s\n' "$log" | tail -n 1)
    if [[ $tally =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed,\ ([0-9]+)\ skipped$ ]]; then
        passed=$((passed + BASH_REMATCH[1]))
        failed=$((failed + BASH_REMATCH[2]))
        skipped=$((skipped + BASH_REMATCH[3]))
    else
        echo "FAIL $part: no tally: $tally"
        failed=$((failed + 1))
    fi
done
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ] || exit 1
[ "$passed" -gt 0 ] || exit 77
