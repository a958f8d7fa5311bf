# SPDX-License-Identifier: MIT
#
# What the cases of test_reserve.sh are made of, besides run_kit.sh. The pools are the machine's,
# so the script waits its turn, keeps to a few pages of 2 MiB on one node, and a case that fails
# puts that node's count back. The tool's notes are not the machine's: the script runs in a mount
# namespace with a folder for them of its own. To be sourced after run_kit.sh.
# shellcheck shell=bash
# shellcheck disable=SC2154,SC2034
# (hakmem, work and the words of cases come from run_kit.sh; free is for the cases.)

state=/run/hakmem
node=0
if [ -r /sys/devices/system/node/has_memory ]; then
    node=$(sed 's/[^0-9].*//' /sys/devices/system/node/has_memory)
fi
pool=/sys/devices/system/node/node$node/hugepages/hugepages-2048kB
machine_pool=/sys/kernel/mm/hugepages/hugepages-2048kB
[ -d "$pool" ] || pool=$machine_pool

number() {
    cat "$pool/$1"
}

# The pages that nr_hugepages sets; it shows surplus ones too.
persistent() {
    echo $(($(number nr_hugepages) - $(number surplus_hugepages)))
}

# Why nothing here can run; empty: it can.
why_not() {
    [ "$(id -u)" -eq 0 ] || { echo 'only root can change the pools' && return; }
    [ -d "$pool" ] || { echo 'the kernel has no 2M pages' && return; }
    [ -w "$pool/nr_hugepages" ] || { echo '/sys cannot be written' && return; }
    unshare -m true 2>/dev/null || echo 'no mount namespace can be had'
}

# A case begins with the pool as it is, and no notes. One that fails puts the pool back.
begin() {
    [ -z "$obstacle" ] || skip "$obstacle"
    rm -f "$state"/*
    base=$(persistent)
    free=$(number free_hugepages)
    trap put_back EXIT
}

put_back() {
    local status=$?
    [ "$status" -eq 0 ] || [ "$status" -eq 77 ] || [ "$(persistent)" -le "$base" ] ||
        echo "$base" >"$pool/nr_hugepages"
}

# others COUNT: somebody else makes the pool so much larger, or smaller by a negative count.
others() {
    echo $(($(persistent) + $1)) >"$pool/nr_hugepages"
}

reserve() {
    expect "$1" "$hakmem" reserve "${@:2}"
}

release() {
    expect "$1" "$hakmem" release "${@:2}"
}

# pages COUNT: so many more than in the beginning.
pages() {
    [ "$(persistent)" -eq $((base + $1)) ] ||
        fail "$(($(persistent) - base)) pages more, not $1; said: $(cat out err)"
}

# noted COUNT: the file says so of the node; 0: there is none.
noted() {
    if [ "$1" -eq 0 ]; then
        [ ! -e "$state/reserved" ] || fail "still noted: $(cat "$state/reserved")"
    else
        grep -qx "node $node page_kib 2048 added $1 from 0 to 0" "$state/reserved" ||
            fail "noted: $(cat "$state/reserved"), not $1"
    fi
}

# tells TEXT...: standard output or error has each of them.
tells() {
    local text
    for text; do
        cat out err | grep -qF -e "$text" || fail "told: $(cat out err); without: $text"
    done
}

need_strace() {
    strace -o /dev/null true 2>/dev/null || skip 'strace cannot trace here'
}

# traced STATUS INJECTION COMMAND...: with what strace does to the calls that concern the pool's
# file or the notes (and the files of also, which are options); ended by signal N it is status
# 128 + N.
also=()
traced() {
    local want=$1 got
    # The shell itself says when something was killed.
    {
        strace -qq -o trace -P "$pool/nr_hugepages" -P "$state" ${also[@]+"${also[@]}"} \
            -e inject="$2" "${@:3}" >out 2>err
        got=$?
    } 2>/dev/null
    [ "$got" -eq "$want" ] || fail "exit status $got, not $want: $(cat out err trace)"
    grep -qE 'INJECTED|DELAYED|SIG(KILL|INT|TERM|HUP|QUIT)|killed by' trace ||
        fail "nothing was done to it: $(cat trace)"
}

# told NUMBER WRITTEN: an injection by which the kernel is told another number than the tool wrote,
# in as many digits.
told() {
    local hex
    hex=$(printf "%0${#2}d" "$1" | od -An -tx1 | tr -d ' \n')
    echo "write:poke_enter=@arg2=$hex"
}

# unheard: what is written to file descriptor 6 from here on, nobody reads.
unheard() {
    mkfifo nobody
    # Without a reader the second would wait.
    # shellcheck disable=SC2094
    exec 5<>nobody 6>nobody 5>&-
}

# notes LINE...: the file of another hand, of this boot.
notes() {
    printf '%s\n' "boot $(cat /proc/sys/kernel/random/boot_id)" "$@" >"$state/reserved"
}

# Holds huge pages until its standard input ends: `hold COUNT touch|promise`.
make_holder() {
    cat >hold.c <<'END'
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

int main(int argc, char **argv)
{
    size_t bytes = (size_t)atoi(argv[1]) << 21;
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | 21 << 26;
    char *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (argc < 3 || at == MAP_FAILED)
        return 1;
    if (strcmp(argv[2], "touch") == 0)
        memset(at, 1, bytes);
    puts("held");
    fflush(stdout);
    return getchar() == EOF ? 0 : 1;
}
END
    compile hold hold.c || fail "hold.c: $(cat cc.err)"
}

# The holder as a coprocess; unhold ends it.
hold() {
    make_holder
    coproc holder { ./hold "$@"; }
    read -r -t 20 -u "${holder[0]}" line || fail 'the pages cannot be held'
    [ "$line" = held ] || fail "holder said: $line"
}

unhold() {
    local pid=$holder_PID
    eval "exec ${holder[1]}>&-"
    wait "$pid"
}

# In a mount namespace of its own, where the case may hide things.
in_namespace() {
    unshare -m sh -c "$1; \"\$@\"" sh "$hakmem" "${@:2}" >out 2>err
}

if [ "${RESERVE_NAMESPACE:-}" != 1 ] && [ -z "$(why_not)" ]; then
    cd "$source" && rm -rf "$work"
    RESERVE_NAMESPACE=1 exec unshare -m "$source/tests/test_reserve.sh" "$@"
fi
obstacle=$(why_not)
if [ -z "$obstacle" ]; then
    # Others who change the pools wait for this file's lock too.
    exec 9>/tmp/hugepages.lock
    flock -w 100 9 || obstacle='others are at work on the pools'
    mkdir -p "$state"
    mount -t tmpfs -o mode=755,size=1m none "$state" || obstacle="no $state of its own"
fi
