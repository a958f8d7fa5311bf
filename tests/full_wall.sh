#!/bin/bash
# SPDX-License-Identifier: MIT
#
# A thousand random workloads into the wall and back (tests/test_wall.c), of the default mode and of
# the hardened one, WORKLOADS of each: about a minute and a half.
# limit: 900 s
set -u

program=${BUILD:-build}/tests/test_wall
export WORKLOADS=${WORKLOADS:-1000}
passed=0 failed=0

# one NAME VARIABLE...: the workloads with these settings.
one() {
    local name=$1
    shift
    if output=$(env "$@" "$program" 2>&1); then
        echo "ok $name: $(grep ' workloads, ' <<<"$output")"
        passed=$((passed + 1))
    else
        echo "FAIL $name (exit status $?, with $*)"
        tail -n 40 <<<"$output"
        failed=$((failed + 1))
    fi
}

if [ ! -x "$program" ]; then
    echo "FAIL $program is not there: make programs"
    failed=1
else
    one 'the default mode' HAKMEM_HARDENED=0
    one 'the hardened mode' HAKMEM_HARDENED=1
fi
echo "$passed passed, $failed failed, 0 skipped"
[ "$failed" -eq 0 ]
