# shellcheck shell=bash
# SPDX-License-Identifier: MIT
#
# What the fuzzers' scripts share; sourced from the project's folder. Everything that they make is
# in $fuzz_build: the library and the fuzzers with coverage and sanitizers, new inputs by target
# (corpus/), reproducers (findings/).
#
# Environment: BUILD, FUZZ_CC (clang).

fuzz_cc=${FUZZ_CC:-clang}
fuzz_build=${BUILD:-build}/fuzz
fuzz_sanitizers=fuzzer-no-link,address,undefined
# From the one that has most to find. Used by those that source this.
# shellcheck disable=SC2034
fuzz_targets=(api adopt config text)

# fuzz_possible: whether the compiler is there and has libFuzzer; otherwise says what to install.
fuzz_possible() {
    local version probe status
    if ! command -v "$fuzz_cc" >/dev/null; then
        echo "no $fuzz_cc (apt-get install clang libclang-rt-14-dev)"
        return 1
    fi
    probe=$(mktemp) || return 1
    echo 'int LLVMFuzzerTestOneInput(const unsigned char *data, __SIZE_TYPE__ size);
          int LLVMFuzzerTestOneInput(const unsigned char *data, __SIZE_TYPE__ size)
          { return (void)data, (void)size, 0; }' |
        "$fuzz_cc" -x c - -fsanitize=fuzzer,address,undefined -o "$probe" 2>/dev/null
    status=$?
    rm -f "$probe"
    if [ "$status" -ne 0 ]; then
        version=$("$fuzz_cc" -dumpversion)
        echo "$fuzz_cc has no libFuzzer (apt-get install libclang-rt-${version%%.*}-dev)"
        return 1
    fi
}

# fuzz_make GOAL...: by the project's Makefile, with the fuzzers' flags.
fuzz_make() {
    "${MAKE:-make}" --no-print-directory -j"$(nproc)" BUILD="$fuzz_build" CC="$fuzz_cc" \
        SANITIZE="$fuzz_sanitizers" CFLAGS='-O1 -g' "$@"
}

# fuzz_options TARGET: one a line. Whatever goes on for a minute is a finding, or a machine that is
# much too slow; the configuration's warnings are kept off the log.
fuzz_options() {
    local bytes=400
    [ "$1" != text ] || bytes=6000
    printf '%s\n' -timeout=60 -rss_limit_mb=2048 -max_len=$bytes -len_control=20 -close_fd_mask=2 \
        -print_final_stats=1 -artifact_prefix="$fuzz_build/findings/$1-"
    [ ! -e "tests/fuzz/$1.dict" ] || echo "-dict=tests/fuzz/$1.dict"
}

# fuzz_run PROGRAM TARGET LOG OPTION-OR-FOLDER...: its status is libFuzzer's, 0 without a finding.
fuzz_run() {
    local program=$1 target=$2 log=$3 options
    shift 3
    mkdir -p "$fuzz_build/findings" "$fuzz_build/corpus/$target"
    mapfile -t options < <(fuzz_options "$target")
    # The end of a fuzzer is not the end of a test: no core file as large as the shadow memory.
    (
        ulimit -c 0
        exec "$program" "${options[@]}" "$@"
    ) >"$log" 2>&1
}

# fuzz_tell LOG PROGRAM: what a fuzzer found, for a reader, and how to see it again.
fuzz_tell() {
    local file
    file=$(sed -n 's/.*Test unit written to //p' "$1" | tail -n 1)
    grep -aE '^FINDING|ERROR: |runtime error|SUMMARY' "$1" | head -n 10
    [ -z "$file" ] || echo "the input is $file; once more: $2 $file"
    tail -n 60 "$1" | grep -av '^stat::' | sed 's/^/    /'
}

# fuzz_executed LOG: how many inputs ran.
fuzz_executed() {
    sed -n 's/^stat::number_of_executed_units: *//p' "$1" | tail -n 1
}
