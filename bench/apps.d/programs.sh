# SPDX-License-Identifier: MIT
# shellcheck shell=bash disable=SC2154,SC2016
#
# The programs of bench/apps that run and end: what is prepared once, and one run of each.
#
# Sourced by bench/apps, which calls prepare_NAME once and run_NAME for every allocator and round,
# and provides: measured and same_output (one run, its cost and its result), figure, fail, and
# $size (work to do), $ram (a folder in memory), $parts (the folder of this file).

# ---- python3 ---------------------------------------------------------------------------------

# -S: without site packages, whose number differs from machine to machine.
run_python_malloc() {
    measured env PYTHONMALLOC=malloc /usr/bin/python3 -S "$parts/objects.py" $((size * 4)) &&
        same_output
}

run_python() {
    measured /usr/bin/python3 -S "$parts/objects.py" $((size * 4)) && same_output
}

run_python_json() {
    measured env PYTHONMALLOC=malloc /usr/bin/python3 -S "$parts/serialise.py" $((size * 4)) &&
        same_output
}

# ---- sqlite3 ---------------------------------------------------------------------------------

prepare_sqlite() {
    sed "s/:rows/$((size * 40000))/g" "$parts/tables.sql" >"$work/tables.sql"
}

run_sqlite_memory() {
    measured /usr/bin/sqlite3 -batch :memory: <"$work/tables.sql" && same_output
}

run_sqlite_file() {
    rm -f "$ram/tables.db"
    measured /usr/bin/sqlite3 -batch "$ram/tables.db" <"$work/tables.sql" && same_output
}

# ---- gcc -------------------------------------------------------------------------------------

# A copy, so that the sources stay as they are for the whole run.
prepare_gcc() {
    mkdir -p "$ram/source" && cp -r "$here/../include" "$here/../numa" "$here/../region" \
        "$here/../alloc" "$ram/source" || return 1
    gcc_sources=("$ram/source"/alloc/*.c)
    [ "$size" -ge 2 ] || gcc_sources=("${gcc_sources[@]:0:8}")
}

# To assembler text: the compiler proper (cc1) and its driver, no assembler. The text is the same
# whatever allocates.
run_gcc() {
    rm -f ./*.s
    measured /usr/bin/gcc -O2 -g -S -std=gnu17 -D_GNU_SOURCE= -I"$ram/source/include" \
        -I"$ram/source" "${gcc_sources[@]}" || return
    cat ./*.s | cksum >"$work/out"
    same_output
}

# ---- git -------------------------------------------------------------------------------------

prepare_git() {
    /usr/bin/git init -q --bare "$ram/history.git" &&
        /usr/bin/python3 -S "$parts/history.py" $((size * 1500)) |
        /usr/bin/git -C "$ram/history.git" fast-import --quiet
}

run_git_repack() {
    measured /usr/bin/git -C "$ram/history.git" -c pack.threads=2 repack -adfq
}

run_git_log() {
    measured /usr/bin/git -C "$ram/history.git" log --all -p --stat -M --format='%H %s' &&
        same_output
}

# ---- openssl ---------------------------------------------------------------------------------

# speed counts by processor time, and its duration is fixed: only the rate tells.
run_openssl_sign() {
    rate_only openssl speed -mr -seconds 1 ecdsap256 || return
    rate_from 'signature/s' '/^\+F4:/ { print $4 }'
}

run_openssl_bulk() {
    rate_only openssl speed -mr -seconds 1 -bytes 1024 -evp aes-128-gcm || return
    rate_from 'MB/s' '/^\+F:/ { print $4 / 1e6 }'
}

rate_only() {
    measured "/usr/bin/$1" "${@:2}" || return
    forget wall cpu
}

rate_from() {
    local rate
    rate=$(awk -F: "$2" "$work/out")
    [ -n "$rate" ] || { fail 'no rate in the output'; return 1; }
    figure rate "$rate" "$1"
}

# ---- stress-ng -------------------------------------------------------------------------------

# Two processes each with its own mixture of malloc, calloc, realloc and free: objects of up to
# 64 KiB, and small ones, where the page faults of large ones do not hide the allocator.
run_stress_large() {
    measured /usr/bin/stress-ng --quiet --seed 7 --malloc 2 --malloc-ops $((size * 400000)) \
        --malloc-max 8192
}

run_stress_small() {
    measured /usr/bin/stress-ng --quiet --seed 7 --malloc 2 --malloc-ops $((size * 3000000)) \
        --malloc-bytes 1K
}
