#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Interleavings of the real code (tests/sched, docs/interleavings.md): builds the library with every
# atomic step a point at which a seed decides who goes on; runs some hundred thousand schedules of
# small scenes; replays one and compares; and puts mistakes into the code, each of which must be
# found. SEED repeats a run; SCHEDULES and SCENE as in tests/sched/main.c.
# limit: 180 s
set -u
cd "$(dirname "$0")/.." || exit 1
# shellcheck source=tests/sched/build.sh
. tests/sched/build.sh
# shellcheck source=tests/sched/mutants.sh
. tests/sched/mutants.sh

passed=0 failed=0

# verdict NAME [WHY]: a line and a count; WHY makes it a failure.
verdict() {
    if [ -z "${2:-}" ]; then
        echo "ok $1"
        passed=$((passed + 1))
    else
        echo "FAIL $1: $2"
        failed=$((failed + 1))
    fi
}

if ! sched_make "$sched" >"$work/made" 2>&1; then
    verdict the_simulator_builds "$(tail -n 20 "$work/made")"
    echo "$passed passed, $failed failed, 0 skipped"
    exit 1
fi

# ---- the scenes ----

SCHEDULES=${SCHEDULES:-200000} SEED=${SEED:-} "$sched" >"$work/scenes"
status=$?
sed '$d' "$work/scenes"
passed=$((passed + $(grep -c '^ok ' "$work/scenes")))
failed=$((failed + $(grep -c '^FAIL ' "$work/scenes")))
[ "$status" -eq 0 ] || [ "$failed" -gt 0 ] || verdict the_scenes_end "exit status $status"

# ---- mistakes: two at a time ----

# find_it NAME SCENE SCHEDULES FILE [SOURCE...] <CHANGE: says what is wrong, or nothing.
find_it() {
    local name=$1 scene=$2 schedules=$3 file=$4 status
    shift 4
    if ! mutate "$name" "$file"; then
        echo "cannot be made: $file no longer says, once, what the change looks for"
    elif ! link_mutant "$name" "$file" "$@" >"$work/$name.log" 2>&1; then
        echo "does not build: $(tail -n 5 "$work/$name.log")"
    else
        SCENE=$scene SCHEDULES=$schedules SEED=$mutant_seed timeout 60 "$work/$name/sched" \
            >"$work/$name.log" 2>&1
        status=$?
        if [ "$status" -eq 0 ]; then
            echo "not found by $scene in $schedules schedules"
        elif ! grep -q "^FAIL $scene: .*" "$work/$name.log"; then
            echo "ended with $status: $(tail -n 5 "$work/$name.log")"
        fi
    fi
    [ -z "${KEEP_MUTANTS:-}" ] || grep -A 1 '^FAIL' "$work/$name.log" >&2
}

# The mistakes are sought by the same schedules every time: whether one is found is no matter of
# luck.
mutant_seed=${MUTANT_SEED:-1}
names=()
mutant() {
    names+=("$1")
    cat >"$work/$1.change"
    while [ "$(jobs -rp | wc -l)" -ge "$(nproc)" ]; do
        wait -n
    done
    find_it "$@" <"$work/$1.change" >"$work/$1.why" &
}

mutants
wait
for name in "${names[@]}"; do
    verdict "finds_$name" "$(cat "$work/$name.why")"
done

# ---- replay ----

# A failure's own line of words must repeat it: the same trace, to the last point.
replays() {
    local again mutant=$work/large_free_without_the_exchange/sched
    SCENE=large_frees SCHEDULES=5000 SEED=$mutant_seed "$mutant" >"$work/first"
    again=$(sed -n 's/.*; again: \(SCENE=[a-z_]* SEED=[0-9]*\)$/\1/p' "$work/first")
    [ -n "$again" ] || echo 'a failure does not say how to repeat it'
    # shellcheck disable=SC2086
    env -u SCHEDULES $again "$mutant" >"$work/second"
    grep '^ *[0-9]* *fiber' "$work/first" >"$work/first.trace"
    grep '^ *[0-9]* *fiber' "$work/second" >"$work/second.trace"
    [ "$(wc -l <"$work/first.trace")" -gt 5 ] || echo 'there is no trace'
    cmp "$work/first.trace" "$work/second.trace" 2>&1
    [ "$(grep -c "$(sed -n 's/^FAIL //p' "$work/first")" "$work/second")" -eq 1 ] ||
        echo 'the replay fails otherwise'
}
verdict a_failure_repeats_from_its_seed "$(replays)"

# The same for schedules that end well, of every scene.
same_trace() {
    local scene
    while IFS= read -r scene; do
        env -u SCHEDULES SCENE="$scene" SEED=7 "$sched" >"$work/one"
        env -u SCHEDULES SCENE="$scene" SEED=7 "$sched" >"$work/two"
        env -u SCHEDULES SCENE="$scene" SEED=8 "$sched" >"$work/three"
        cmp "$work/one" "$work/two" 2>&1
        ! cmp -s "$work/one" "$work/three" || echo "$scene: another seed is the same schedule"
    done < <(sed -n 's/^ok //p' "$work/scenes")
}
verdict a_seed_is_one_schedule "$(same_trace)"

echo "$passed passed, $failed failed, 0 skipped"
[ "$failed" -eq 0 ]
