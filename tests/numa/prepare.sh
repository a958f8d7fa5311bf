#!/bin/bash
# SPDX-License-Identifier: MIT
#
# What the virtual machines of tests/numa boot from, in $BUILD/numa: prepare.sh [PROGRAM...]
#
#   vmlinuz    Debian's cloud kernel (linux-image-cloud-amd64), downloaded and unpacked, never
#              installed: NUMA, hugetlbfs, control groups and the serial ports are built in, and no
#              module is needed. VM_KERNEL=FILE takes another one.
#   root.cpio  an initramfs, not compressed (the emulated processor would have to unpack it):
#              busybox, tests/numa/init, the programs of $BUILD that are named, the mutants, and the
#              libraries that ldd lists for them.
#
# Installs QEMU, busybox and cpio where it may (as root, with apt). The kernel is fetched once; the
# initramfs is made anew each time, which takes less than a second. Exit status 0; 77 with one line
# of reason where the machine cannot run the scenes; 1 where something that must work does not.
set -u
cd "$(dirname "$0")/../.." || exit 1

build=${BUILD:-build} out=${BUILD:-build}/numa
image=linux-image-cloud-amd64
mkdir -p "$out" || exit 1

cannot() {
    echo "$*"
    exit 77
}

broken() {
    echo "prepare: $*"
    exit 1
}

static_busybox() {
    command -v busybox >/dev/null && ! ldd "$(command -v busybox)" >/dev/null 2>&1
}

missing_packages() {
    command -v qemu-system-x86_64 >/dev/null || echo qemu-system-x86
    static_busybox || echo busybox-static
    command -v cpio >/dev/null || echo cpio
}

updated=0
apt_update() {
    [ "$updated" -eq 1 ] || apt-get -qq update >"$out/apt.log" 2>&1 || return 1
    updated=1
}

install_missing() {
    local missing
    mapfile -t missing < <(missing_packages)
    [ "${#missing[@]}" -gt 0 ] || return 0
    command -v apt-get >/dev/null || cannot "missing here: ${missing[*]}"
    [ "$(id -u)" -eq 0 ] || cannot "missing here: ${missing[*]}; run as root: apt-get update &&" \
        "apt-get install -y --no-install-recommends ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    { apt_update && apt-get -qq -o DPkg::Lock::Timeout=120 install -y --no-install-recommends \
        "${missing[@]}"; } >>"$out/apt.log" 2>&1 </dev/null ||
        cannot "apt-get cannot install ${missing[*]}: $(tail -n 1 "$out/apt.log")"
    [ -z "$(missing_packages)" ] || broken "still missing after apt-get: $(missing_packages)"
}

# The package that the name stands for has the version in its own name.
fetch_kernel() {
    local real work
    if [ -n "${VM_KERNEL:-}" ]; then
        cp "$VM_KERNEL" "$out/vmlinuz" || broken "no kernel $VM_KERNEL"
        return
    fi
    [ ! -s "$out/vmlinuz" ] || return 0
    { command -v apt-get && command -v dpkg-deb; } >/dev/null ||
        cannot 'no kernel to boot: not a Debian; name an x86-64 one by VM_KERNEL=FILE'
    work=$(mktemp -d "$out/kernel.XXXXXX") || exit 1
    real=$(apt-cache depends "$image" 2>/dev/null | awk '/Depends: linux-image/ { print $2; exit }')
    if [ -z "$real" ] && [ "$(id -u)" -eq 0 ] && apt_update; then
        real=$(apt-cache depends "$image" | awk '/Depends: linux-image/ { print $2; exit }')
    fi
    if [ -z "$real" ] || ! (cd "$work" && apt-get -qq download "$real") >"$out/apt.log" 2>&1; then
        rm -rf "$work"
        cannot "no kernel to boot: apt-get cannot download what $image stands for:" \
            "$(tail -n 1 "$out/apt.log" 2>/dev/null)"
    fi
    dpkg-deb --fsys-tarfile "$work"/*.deb | tar -x -C "$work" --wildcards './boot/vmlinuz*'
    mv "$work"/boot/vmlinuz* "$out/vmlinuz" || broken "no kernel in $real"
    rm -rf "$work"
}

# compile OUT ARGUMENT...
compile() {
    # Unquoted: CC may be several words (ccache gcc).
    # shellcheck disable=SC2086
    ${CC:-cc} -O2 -g -std=gnu17 -D_GNU_SOURCE= -Wall -Wextra -Werror -Iinclude -I. -pthread \
        -o "$@" || broken "cannot build $1"
}

# mutant NAME BIND VERIFY PROGRAM...: tests/PROGRAM with that library becomes PROGRAM.NAME.
mutant() {
    local name=$1 bind=$2 verify=$3 program
    shift 3
    for program; do
        compile "$root/bin/$program.$name" -DMUTANT_BIND="$bind" -DMUTANT_VERIFY="$verify" \
            -Wl,--wrap=bind_strict,--wrap=bind_verify "$build/obj/tests/$program.o" \
            tests/numa/mutant.c "$build/inside.a" -lnuma -lpthread -lm
    done
}

# Every library that a program of the image asks for, where it asks for it.
copy_libraries() {
    local library
    # pthread_exit(3) loads libgcc_s when it is first called, HAKMEM_HUGETLBFS=1 libhugetlbfs.
    # shellcheck disable=SC2046,SC2086
    for library in $(ldd "$root"/bin/* 2>/dev/null | grep -o '/[^ :]*\.so[^ :]*' | sort -u) \
        $(/sbin/ldconfig -p | awk '$1 == "libhugetlbfs.so.0" { print $NF; exit }') \
        "$(${CC:-cc} -print-file-name=libgcc_s.so.1)"; do
        mkdir -p "$root$(dirname "$library")"
        cp -L "$library" "$root$library" || broken "no library $library"
    done
    cp -L "$root$(${CC:-cc} -print-file-name=libgcc_s.so.1)" "$root/lib/"
}

make_image() {
    local program applet
    root=$out/root
    rm -rf "$root"
    mkdir -p "$root"/{bin,lib,lib64,proc,sys,dev,tmp,etc} || exit 1
    cp -L "$(command -v busybox)" "$root/bin/busybox"
    for applet in $("$root/bin/busybox" --list); do
        [ "$applet" = busybox ] || ln -s busybox "$root/bin/$applet"
    done
    for program; do
        cp "$build/$program" "$root/bin/" || broken "no program $build/$program: run make"
    done
    install -m 755 tests/numa/init "$root/init"
    cp tests/numa/scenes.sh "$root/"
    install -m 755 tests/numa/tool.sh "$root/bin/tool.sh"
    compile "$root/bin/vm_exit" -static tests/numa/exit.c
    mutant wrong 1 0 vm_region
    mutant unseen 1 1 vm_region vm_place
    mutant unbound 2 1 vm_region
    copy_libraries
    (cd "$root" && find . | cpio --quiet -o -H newc) >"$out/root.cpio" || broken 'cpio failed'
    rm -rf "$root"
}

[ "$(uname -m)" = x86_64 ] || cannot "the scenes are x86-64 machines, this one is $(uname -m)"
install_missing
fetch_kernel
make_image "$@"
