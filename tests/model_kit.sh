# SPDX-License-Identifier: MIT
#
# Running the models of tests/model by spin: the words of test_model.sh and full_model.sh. To be
# sourced from the checkout's top.
#
#   model NAME FILE FLAGS    must be searched to the end without a finding
#   mutant NAME FILE FLAGS   must be found wrong, by an assertion; says which property broke
#   finish                   waits, prints the cases in order and the tally, exits
#
# Two searches run at a time; each may have MODEL_MIB of memory (1900) and MODEL_SECONDS (170).
# shellcheck shell=bash
source=$PWD cc=${CC:-cc}
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
cases=()

if ! command -v spin >/dev/null 2>&1; then
    echo 'FAIL models: spin is not here; it is the Debian package spin (apt-get install -y spin)'
    echo '0 passed, 1 failed, 0 skipped'
    exit 1
fi

# build FILE FLAG...: the search program of a model, in the current folder.
build() {
    local reduce=()
    cp "$source/tests/model/$1" . || return
    # A clause "provided" is not compatible with partial order reduction.
    [[ " ${*:2} " != *' -DSTOP '* ]] || reduce=(-DNOREDUCE)
    spin -a "${@:2}" "$1" >spin.out 2>&1 || return
    # Unquoted: CC may be several words.
    # shellcheck disable=SC2086
    $cc -O"${optimise:-2}" -w -DSAFETY -DCOLLAPSE -DMEMLIM="${MODEL_MIB:-1900}" \
        ${reduce[@]+"${reduce[@]}"} -o pan pan.c >cc.out 2>&1
}

# search: the program's verdict in out.
search() {
    timeout "${MODEL_SECONDS:-170}" ./pan -w24 -m1000000 >out 2>&1
}

states() {
    echo "$(sed -nE 's/^ *([0-9.e+]+) states, stored.*/\1/p' out) states"
}

# What the search said, when it is not what it should have.
verdict() {
    echo "$1: $(grep -hE 'pan:|rror|not completed|too small' out cc.out spin.out 2>/dev/null |
        head -n 3 | tr '\n' ' ')"
}

run_model() {
    if ! build "${@:2}"; then
        echo "FAIL $1: $(verdict 'not built')"
    elif ! search; then
        echo "FAIL $1: $(verdict 'killed, or ended badly')"
    elif ! grep -q 'errors: 0$' out ||
        grep -qE 'not completed|too small|MEMLIM|out of memory|Bit state|ash-?[Cc]ompact' out; then
        echo "FAIL $1: $(verdict 'not searched to the end without a finding')"
    else
        echo "ok $1 ($(states))"
    fi
}

run_mutant() {
    local line property optimise=0
    build "${@:2}" || { echo "FAIL $1: $(verdict 'not built')" && return; }
    search || :
    if ! grep -q 'assertion violated' out; then
        echo "FAIL $1: $(verdict 'lives')"
        return
    fi
    line=$(spin -t "${@:3}" "$2" 2>&1 | sed -nE 's/^spin: [^:]*:([0-9]+), Error: assert.*/\1/p' |
        head -n 1)
    property=$(sed -nE "${line:-1}s/.*\/\* (.*) \*\/.*/\1/p" "$2")
    if [ -z "$property" ]; then
        echo "FAIL $1: no property at line ${line:-?} of $2"
        return
    fi
    echo "ok $1 ($property; $(states))"
}

# start KIND NAME FILE FLAGS: in a folder of its own, when there is a place.
start() {
    local folder=$work/${#cases[@]}
    while [ "$(jobs -rp | wc -l)" -ge 2 ]; do
        wait -n
    done
    mkdir "$folder"
    # Unquoted: the flags are words.
    # shellcheck disable=SC2086
    (cd "$folder" && "run_$1" "$2" "$3" $4 >verdict; rm -f pan pan.*) </dev/null &
    cases+=("$folder/verdict")
}

model() {
    start model "$@"
}

mutant() {
    start mutant "$@"
}

# defined FUNCTION FILE: with a body; a declaration does not count.
defined() {
    awk -v start="^[A-Za-z].*[ *]$1[(]" '
        $0 ~ start { inside = 1 }
        inside && /;/ { inside = 0 }
        inside && /[{]/ { found = 1; exit }
        END { exit !found }' "$2"
}

# named: every function that a model names is defined in the file that it names, which names it.
named() {
    local model file functions function bad=''
    for model in tests/model/*.pml; do
        while read -r file functions; do
            grep -q "$model" "$file" || bad+="$file does not name $model; "
            for function in $functions; do
                defined "$function" "$file" || bad+="$model: no $function in $file; "
            done
        done < <(sed -nE '/^ \* Stands for/,/^ \*$/s/^ \*   +//p' "$model" | tr -d , |
            awk '$1 ~ /\// { if (n++) print l; l = $0; next } { l = l " " $0 } END { print l }')
    done
    echo "ok names" >"$work/names"
    [ -z "$bad" ] || echo "FAIL names: $bad" >"$work/names"
    cases+=("$work/names")
}

finish() {
    local verdict
    wait
    for verdict in "${cases[@]}"; do
        [ -s "$verdict" ] || echo "FAIL $verdict: no verdict" >"$verdict"
    done
    cat "${cases[@]}"
    local passed failed
    passed=$(cat "${cases[@]}" | grep -c '^ok ')
    failed=$((${#cases[@]} - passed))
    echo "$passed passed, $failed failed, 0 skipped"
    [ "$failed" -eq 0 ]
    exit
}
