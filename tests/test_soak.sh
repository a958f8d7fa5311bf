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
trap 'rm -f "$log" "$log.last"' EXIT

if [ ! -x "$program" ]; then
    echo "FAIL soak: $program is not built (make programs)"
    echo "0 passed, 1 failed, 0 skipped"
    exit 1
fi

# verdict CASE STATUS EXPECTED PATTERN...: the run's status, and what its log has to have.
verdict() {
    local name=$1 status=$2 expected=$3 pattern
    shift 3
    for pattern in "$@"; do
        grep -q -e "$pattern" "$log" || expected="none: the log has no $pattern"
    done
    if [ "$status" = "$expected" ]; then
        echo "ok $name"
        passed=$((passed + 1))
    else
        echo "FAIL $name: exit status $status, not $expected"
        tail -n 30 "$log" | sed 's/^/    /'
        failed=$((failed + 1))
    fi
}

MINUTES=${SOAK_MINUTES:-0.08} "$program" >"$log" 2>&1
status=$?
tail -n 1 "$log" >"$log.last"
grep -q 'findings 0$' "$log.last" || status="$status without 'findings 0' at the end"
verdict no_finding "$status" 0
sed 's/^/  /' "$log.last"

# spoiled CASE HOW PATTERN...: a run that SOAK_SPOIL=HOW spoils ends with 1, and its log has these.
spoiled() {
    local name=$1
    MINUTES=0.01 SOAK_SPOIL=$2 "$program" >"$log" 2>&1
    verdict "$name" $? 1 "${@:3}"
}

# A byte of somebody's object is changed behind its back.
spoiled a_wrong_byte_is_a_finding 1 '^FINDING' 'SEED=[0-9]'
# An object that is never freed: use at rest goes up.
spoiled use_that_creeps_up_is_a_finding 2 '^FINDING.*in use at rest'

echo "$passed passed, $failed failed, 0 skipped"
[ "$failed" -eq 0 ]
