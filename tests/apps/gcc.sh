#!/bin/bash
# SPDX-License-Identifier: MIT
#
# gcc on this project's own sources, with make, cc1, the assembler and the linker all preloaded:
# objects, archives and shared libraries are the same, byte for byte.
# shellcheck source=tests/apps/common.sh
. "$(dirname "$0")/common.sh"

need gcc /usr/bin/gcc
need make /usr/bin/make
need binutils /usr/bin/ld
need libnuma-dev /usr/include/numa.h
lto=
[ "$part" = quick ] || { need g++ /usr/bin/g++ && lto=yes; }

# A copy: what is compiled does not change between two runs.
mkdir "$work/source"
cp -R "$root"/{Makefile,include,numa,region,alloc,tools,tests,bench} "$work/source" || exit 1

# compile FOLDER GOAL...
compile() {
    local folder=$1
    shift
    run make -C "$work/source" -j2 CC=gcc CXX=g++ "BUILD=$work/$folder" "$@" \
        >"$work/$folder.log" 2>&1
}

if [ "$part" = quick ]; then
    goals=(alloc/front.o alloc/cache.o alloc/setup.o region/config.o numa/topology.o tools/demo.o)
else
    goals=()
fi

# ends_well NAME LOG STATUS
ends_well() {
    equal "$1 ends well ($mode)" 0 "$3"
    [ "$3" -eq 0 ] || tail -n 20 "$2" | sed 's/^/    /'
}

# products FOLDER: what it made, without the depfiles, which name the folder.
products() {
    (cd "$work/$1" && find . -type f \( -name '*.o' -o -name '*.so' -o -name '*.a' \) | sort)
}

for mode in "${modes[@]}"; do
    # Each of the programs that a compilation starts faults its region in.
    prefault_size=192M
    set_mode "$mode"
    compile "$mode" "${goals[@]/#/$work/$mode/obj/}" ${lto:+library}
    ends_well make "$work/$mode.log" "$?"
    products "$mode" >"$work/$mode.list"
    if [ "$mode" = glibc ]; then
        check 'there are objects' [ "$(wc -l <"$work/glibc.list")" -ge 6 ]
        continue
    fi
    same "list of what was made ($mode)" "$work/glibc.list" "$work/$mode.list"
    while read -r file; do
        cmp "$work/glibc/$file" "$work/$mode/$file"
    done <"$work/glibc.list" >"$work/$mode.differ" 2>&1
    equal "objects and libraries that differ, of $(wc -l <"$work/glibc.list") ($mode)" 0 \
        "$(wc -l <"$work/$mode.differ")"
    [ ! -s "$work/$mode.differ" ] || head "$work/$mode.differ"
done

# Link-time optimization and C++, in compilers of their own.
if [ -n "$lto" ]; then
    for mode in "${modes[@]}"; do
        set_mode "$mode"
        (cd "$work/source" && run gcc -O2 -flto=2 -frandom-seed=7 -shared -fPIC -D_GNU_SOURCE \
            -std=gnu17 -Iinclude -I. -o "$work/lto-$mode.so" numa/*.c region/*.c -lnuma -lpthread) \
            >"$work/lto-$mode.log" 2>&1
        ends_well 'gcc -flto' "$work/lto-$mode.log" "$?"
        (cd "$work/source" && run g++ -O2 -g -Iinclude -I. -c -o "$work/cpp-$mode.o" \
            tests/test_cpp.cc) >"$work/cpp-$mode.log" 2>&1
        ends_well g++ "$work/cpp-$mode.log" "$?"
        [ "$mode" != glibc ] || continue
        same "library of gcc -flto ($mode)" "$work/lto-glibc.so" "$work/lto-$mode.so"
        same "object of g++ ($mode)" "$work/cpp-glibc.o" "$work/cpp-$mode.o"
    done
fi

set_mode hakmem
cd "$work/source" || exit 1
all_bound 'gcc cc1 as ld' gcc -D_GNU_SOURCE -shared -fPIC -Iinclude -I. -o "$work/bound.so" \
    region/bitset.c
finish
