#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Every misdeed of tests/misuse/deeds.c, on the region and in its hardened mode, must end as
# tests/misuse/expected.txt says, with a message that names it; the tables of docs/misuse.md must
# say the same. Under the policies "report" and "ignore" the program must come to its end, with
# nothing damaged but what the table grants, every bad call counted, and the library's books in
# order (heap_check, in the program that has the library linked in). And docs/security.md must name
# the tests of its claims. BUILD: the build folder.
set -u
cd "$(dirname "$0")/.." || exit 1
for variable in $(compgen -e); do
    case $variable in HAKMEM_* | LD_*) unset "$variable" ;; esac
done
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
. tests/misuse/measure.sh
export BUILD=${BUILD:-build}
passed=0 failed=0

# verdict CASE: by the lines in $work/wrong.
verdict() {
    if [ -s "$work/wrong" ]; then
        failed=$((failed + 1))
        echo "FAIL $1:"
        sed 's/^/    /' "$work/wrong"
    else
        passed=$((passed + 1))
        echo "ok $1"
    fi
}

# said LOG: the beginning of what the allocator said.
said() {
    grep -v -e '^@' -e '^$' "$1" | head -n 2
}

wrong() {
    echo "$*" >>"$work/wrong"
}

# expected COLUMN: lines `row|outcome|words`.
expected() {
    local field=2
    [ "$1" = hakmem ] || field=4
    sed -E '/^(#|$)/d; s/ *\| */|/g; s/ +$//' tests/misuse/expected.txt |
        cut -d '|' -f "1,$field,$((field + 1))"
}

# as_expected COLUMN: under the policy "abort".
as_expected() {
    local row outcome words got log
    : >"$work/wrong"
    while IFS='|' read -r row outcome words; do
        log=$work/deeds.$1.abort/$row
        got=$(misuse_outcome "$log")
        [ "$got" = "$outcome" ] || wrong "$row: $got, not $outcome: $(said "$log")"
        case $outcome in
        *caught*)
            grep -q "^hakmem: misuse.*$words" "$log" ||
                wrong "$row: said without '$words': $(said "$log")"
            ;;
        esac
    done < <(expected "$1")
    [ "$(expected "$1" | cut -d '|' -f 1)" = "$(misuse_rows | cut -d '|' -f 1)" ] ||
        wrong 'expected.txt has other rows than deeds.c, or in another order'
    verdict "misdeeds_end_as_expected_$1"
}

# goes_on PROGRAM COLUMN POLICY [WORD]: to its end, with everything in order; of rows with the word.
goes_on() {
    local row outcome words log got bad allowed
    : >"$work/wrong"
    while IFS='|' read -r row outcome words; do
        log=$work/$1.$2.$3/$row
        # Only a preloaded library can give the C library its own back.
        [ "$1.$row" != inside.free_libc ] || outcome='caught call' words='not a pointer'
        got=$(misuse_outcome "$log")
        bad=$(sed -n 's/^@ misuses //p' "$log")
        allowed=$(sed -E 's/(^|, )(says [^,]*|told [a-z]*|caught [a-z]*|harmless)//g' <<<"$outcome")
        got=$(sed -E 's/(^|, )(says [^,]*|told [a-z]*|harmless)//g' <<<"$got")
        [ "$got" = "$allowed" ] ||
            wrong "$row: $got, not $allowed: $(tail -n 5 "$log" | tr '\n' ' ')"
        case $outcome in
        *caught*)
            [ "${bad:-0}" -gt 0 ] || wrong "$row: not counted"
            [ "$3" = ignore ] || grep -q "^hakmem: misuse.*$words" "$log" ||
                wrong "$row: said without '$words': $(said "$log")"
            ;;
        *'fault write'*) ;;
        *) [ "$bad" = 0 ] || wrong "$row: counted $bad bad calls" ;;
        esac
        [ "$3" = report ] || ! grep -q '^hakmem: ' "$log" || wrong "$row: it said something"
    done < <(expected "$2" | grep -F "${4:-|}")
    verdict "the_program_goes_on_$1_$2_$3"
}

# documented COLUMN TABLE FIELD: the document's table has in that field what was measured.
documented() {
    local table
    : >"$work/wrong"
    table=$(misuse_table "$1")
    sed -n '/^<!-- tables: begin/,/^<!-- tables: end/p' docs/misuse.md |
        awk -v table="$2" -v RS= 'NR == table + 1' |
        sed -E 's/^\| ([^|]*) \| ([^|]*) \|.*/| \1 | \2 |/' >"$work/documented"
    diff "$work/documented" - <<<"$table" >"$work/wrong"
    verdict "the_document_says_what_was_measured_$1"
}

# Every test that docs/security.md names is there, and every one there is named.
attacks_named() {
    : >"$work/wrong"
    # shellcheck disable=SC2016
    diff <(grep -oE '`[a-z_]{20,}`' docs/security.md | tr -d '`' | sort -u) \
        <(sed -n 's/^TEST(\(.*\))$/\1/p' tests/test_attacks*.c | sort -u) >"$work/wrong"
    verdict the_document_names_the_attacks_that_are_tried
}

attacks_named
if ! misuse_build "$BUILD" 2>"$work/wrong"; then
    verdict the_programs_compile
    echo "$passed passed, $failed failed, 0 skipped"
    exit 1
fi
table=1
for column in hakmem hardened; do
    misuse_measure deeds "$column" abort
    as_expected "$column"
    documented "$column" "$table"
    # The other rows have nothing to do with the policy.
    mapfile -t rows < <(expected "$column" | grep -F caught | cut -d '|' -f 1)
    for policy in report ignore; do
        misuse_measure deeds "$column" "$policy" "${rows[@]}"
        goes_on deeds "$column" "$policy" caught
    done
    misuse_measure inside "$column" report
    goes_on inside "$column" report
    table=$((table + 1))
done
echo "$passed passed, $failed failed, 0 skipped"
[ "$failed" -eq 0 ]
