#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Runs test programs one after the other and adds up their cases: tests/run.sh PROGRAM...
#
# A program ends with a line `N passed, N failed, N skipped` and exits with 0, 1 (something failed)
# or 77 (all skipped). One that ends otherwise (crash, time-out, sanitizer report, a tally that its
# status contradicts) counts as a failure of its own. The last line is the sum; exit status 1 when
# anything failed or nothing passed. Environment: TEST_TIMEOUT, seconds a program has (180); a
# script that needs longer says `# limit: N s` in its first lines.
set -u

limit=${TEST_TIMEOUT:-180}
tally='^([0-9]+) passed, ([0-9]+) failed, ([0-9]+) skipped$'
passed=0 failed=0 skipped=0
skips=()
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT

export ASAN_OPTIONS=${ASAN_OPTIONS:-detect_stack_use_after_return=1:exitcode=99}
export UBSAN_OPTIONS=${UBSAN_OPTIONS:-print_stacktrace=1}
export TSAN_OPTIONS=${TSAN_OPTIONS:-halt_on_error=0:exitcode=99:second_deadlock_stack=1}

# ThreadSanitizer of older compilers stops when the kernel spreads addresses wider than it expects.
fixed_addresses=()
if setarch "$(uname -m)" -R true 2>/dev/null; then
    fixed_addresses=(setarch "$(uname -m)" -R)
fi

# meaning STATUS SECONDS: what an exit status says to a reader.
meaning() {
    if [ "$1" -eq 124 ] || [ "$1" -eq 137 ]; then
        echo "exit status $1, killed: more than $2 s, or out of memory"
    elif [ "$1" -gt 128 ]; then
        echo "exit status $1, signal $(kill -l "$(($1 - 128))" 2>/dev/null)"
    else
        echo "exit status $1"
    fi
}

# tail_lines LOG: how much of a crashed program's output to show; a sanitizer's report whole, since
# its first lines name the place.
tail_lines() {
    if grep -aqE 'ERROR: [A-Za-z]+Sanitizer|WARNING: ThreadSanitizer|runtime error:' "$1"; then
        echo 400
    else
        echo 30
    fi
}

# One program: its line, its output when it failed, and the sums.
run_program() {
    local program=$1 log=$work/log status started=$EPOCHREALTIME last p=0 f=0 s=0 own=0 why=''
    local prefix=()
    local allowed=$limit asks
    case $program in
    *.sh)
        asks=$(sed -n '1,20s/^# limit: \([0-9]*\) s$/\1/p' "$program")
        [ "${asks:-0}" -le "$allowed" ] || allowed=$asks
        ;;
    */tsan/*) prefix=(${fixed_addresses[@]+"${fixed_addresses[@]}"}) ;;
    esac
    timeout -k 5 "$allowed" ${prefix[@]+"${prefix[@]}"} "$program" >"$log" 2>&1 </dev/null
    status=$?
    last=$(tail -n 1 "$log" | tr -d '\0')
    if [[ $last =~ $tally ]]; then
        p=${BASH_REMATCH[1]} f=${BASH_REMATCH[2]} s=${BASH_REMATCH[3]}
    else
        # A sanitizer's report comes after the tally.
        last=$(grep -aE "$tally" "$log" | tail -n 1)
        if [[ $status -ne 0 && $last =~ $tally ]]; then
            p=${BASH_REMATCH[1]} f=${BASH_REMATCH[2]} s=${BASH_REMATCH[3]} own=1
        else
            own=1 why='no tally, '
        fi
    fi
    case $status in
    0) [ "$f" -eq 0 ] || own=1 ;;
    1) [ "$f" -gt 0 ] || own=1 ;;
    77) [ "$p$f" = 00 ] || own=1 ;;
    *) own=1 ;;
    esac
    awk -v name="$program" -v from="$started" -v to="$EPOCHREALTIME" -v p="$p" -v f="$((f + own))" \
        -v s="$s" 'BEGIN { printf "%-44s %7.2f s   %d passed, %d failed, %d skipped\n", name,
                           to - from, p, f, s }'
    if [ "$own" -ne 0 ] && [ "$f" -eq 0 ]; then
        echo "FAIL $program: $why$(meaning "$status" "$allowed"); the end of its output:"
        tail -n "$(tail_lines "$log")" "$log" | sed 's/^/    /'
    elif [ "$((f + own))" -gt 0 ]; then
        echo "FAIL $program: $why$(meaning "$status" "$allowed"); its output:"
        sed 's/^/    /' "$log"
    fi
    while IFS= read -r line; do
        skips+=("$program: ${line#skip }")
    done < <(grep -a '^skip ' "$log")
    passed=$((passed + p)) failed=$((failed + f + own)) skipped=$((skipped + s))
}

for program in "$@"; do
    run_program "$program"
done
if [ "${#skips[@]}" -gt 0 ]; then
    echo "skipped:"
    printf '    %s\n' "${skips[@]}"
fi
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
