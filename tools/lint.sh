#!/bin/bash
# SPDX-License-Identifier: MIT
#
# make lint: the house's own rules, layout, and two analysers, over every source file; all of them
# run, so that one look shows everything. `tools/lint.sh format` writes the layout instead.
set -u
cd "$(dirname "$0")/.." || exit 1
shopt -s nullglob

folders=(numa region alloc tools tests tests/faults tests/fuzz tests/misuse tests/sched bench
    examples)
sources=() headers=(include/*.h include/*.hpp)
for folder in "${folders[@]}"; do
    sources+=("$folder"/*.c "$folder"/*.cc)
    headers+=("$folder"/*.h "$folder"/*.hpp)
done
if [ "${1:-}" = format ]; then
    exec clang-format -i "${sources[@]}" "${headers[@]}"
fi

# tidy FILE: silent when there is nothing to say.
tidy() {
    local standard=gnu17 said
    [[ $1 != *.cc ]] || standard=c++17
    said=$(clang-tidy --quiet "$1" -- -std=$standard -D_GNU_SOURCE= -Iinclude -I. 2>&1) || {
        echo "$said"
        return 1
    }
}
export -f tidy

bad=0
tools/lint-layers.sh || bad=1
clang-format --dry-run -Werror "${sources[@]}" "${headers[@]}" || bad=1
cppcheck --quiet --enable=warning,performance,portability --inline-suppr --error-exitcode=1 \
    --suppress=missingIncludeSystem -D__GNUC__=12 -D__x86_64__=1 -D__linux__=1 -Iinclude -I. \
    -j "$(nproc)" "${sources[@]}" || bad=1
# bench/dpdk.c is left to the compiler: its headers may be missing, and need flags of their own.
printf '%s\n' "${sources[@]}" | grep -vx bench/dpdk.c |
    xargs -P "$(nproc)" -n 1 bash -c 'tidy "$1"' tidy || bad=1
[ "$bad" -ne 0 ] || echo 'lint: clean'
exit "$bad"
