#!/bin/bash
# SPDX-License-Identifier: MIT
#
# The soak for a few seconds: every phase in every region, once as the measure and once against it.
# SOAK_MINUTES (0.08), SEED. A last case spoils a run on purpose, to see that findings are told.
set -u
cd "$(dirname "$0")/.." || exit 1

program=${BUILD:-build}/tests/soak
passed=0 failed=0
log=$(mktemp) || exit 1
trap 'rm -f "$log"' EXIT

if [ ! -x "$program" ]; then
    echo "FAIL soak: $program is not built (make programs)"
    echo "0 passed, 1 failed, 0 skipped"
    exit 1
fi

MINUTES=${SOAK_MINUTES:-0.08} "$program" >"$log" 2>&1
status=$?
if [ "$status" -eq 0 ] && tail -n 1 "$log" | grep -q 'findings 0$'; then
    echo "ok no_finding"
    tail -n 1 "$log" | sed 's/^/  /'
    passed=$((passed + 1))
else
    echo "FAIL no_finding: exit status $status"
    tail -n 30 "$log" | sed 's/^/    /'
    failed=$((failed + 1))
fi

# A byte of somebody's object is changed behind its back.
MINUTES=0.01 SOAK_SPOIL=1 "$program" >"$log" 2>&1
status=$?
if [ "$status" -eq 1 ] && grep -q '^FINDING' "$log" && grep -q 'SEED=[0-9]' "$log"; then
    echo "ok a_wrong_byte_is_a_finding"
    passed=$((passed + 1))
else
    echo "FAIL a_wrong_byte_is_a_finding: exit status $status"
    tail -n 30 "$log" | sed 's/^/    /'
    failed=$((failed + 1))
fi

# An object that is never freed: use at rest goes up.
MINUTES=0.01 SOAK_SPOIL=2 "$program" >"$log" 2>&1
status=$?
if [ "$status" -eq 1 ] && grep -q '^FINDING.*in use at rest' "$log"; then
    echo "ok use_that_creeps_up_is_a_finding"
    passed=$((passed + 1))
else
    echo "FAIL use_that_creeps_up_is_a_finding: exit status $status"
    tail -n 30 "$log" | sed 's/^/    /'
    failed=$((failed + 1))
fi

echo "$passed passed, $failed failed, 0 skipped"
[ "$failed" -eq 0 ]
