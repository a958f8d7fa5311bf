#!/bin/bash
# SPDX-License-Identifier: MIT
#
# The tables of docs/misuse.md: tests/misuse/table.sh prints them, --write puts them between the
# document's markers. By hand, since it wants every allocator of the tables to be there; what
# hakmem's own columns say is held against the document by tests/test_misuse_table.sh. BUILD: the
# build folder, with the preload library and inside.a in it.
set -u
cd "$(dirname "$0")/../.." || exit 1
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
. tests/misuse/measure.sh
export MISUSE_SECONDS=10 BUILD=${BUILD:-build}

misuse_build "$BUILD" || exit 1
for column in "${misuse_usual[@]}" "${misuse_strict[@]}"; do
    misuse_library "$column" >/dev/null || {
        echo "$0: no library for $column here (libmimalloc2.0 libjemalloc2 libtcmalloc-minimal4" \
            "libclang-rt-14-dev libc6)" >&2
        exit 1
    }
    misuse_measure deeds "$column" abort
done
{
    misuse_table "${misuse_usual[@]}"
    echo
    misuse_table "${misuse_strict[@]}"
    echo
    misuse_versions
} >"$work/tables"
if [ "${1:-}" != --write ]; then
    cat "$work/tables"
    exit 0
fi
awk -v tables="$work/tables" '
    /^<!-- tables: end/ { inside = 0 }
    !inside { print }
    /^<!-- tables: begin/ {
        inside = 1
        print ""
        while ((getline line <tables) > 0)
            print line
        print ""
    }' docs/misuse.md >"$work/document" && cp "$work/document" docs/misuse.md
