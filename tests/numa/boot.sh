#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Boots the machine of one scene and says how it ended: boot.sh SCENE
#
# QEMU in software (TCG): the host's own virtualisation may look present and hang, so QEMU is never
# left the choice. It has placement, policies and errors like the real thing, but no distance that
# could be timed. Two serial ports go into files under $BUILD/numa: SCENE.kernel has the kernel's
# words, SCENE.log the tests'. A panic, a machine without init and a reboot all end QEMU with 0; so
# what counts as a pass is status 33, which only tests/numa/exit.c can bring about, together with
# a last line that says `N passed, 0 failed, N skipped` with the skips of the table.
#
# Exit status 0, or 1 with the ends of both files. prepare.sh comes first. Environment: BUILD,
# STRESS_SECONDS (20), VM_QUICK (see scenes.sh).
set -u
cd "$(dirname "$0")/../.." || exit 1
# shellcheck source=tests/numa/scenes.sh
. tests/numa/scenes.sh

name=${1:?usage: boot.sh SCENE}
scene "$name" || exit 1
out=${BUILD:-build}/numa
log=$out/$name.log kernel_log=$out/$name.kernel
seconds=${STRESS_SECONDS:-20}

# machine: the -smp, -object and -numa words for nodes and dist, and left_out, the processors
# that Linux shall not use.
machine() {
    local node=0 cpu=0 word memory count last words
    qemu=() left_out=()
    for word in $nodes; do
        memory=${word%%:*} count=${word##*:}
        words="node,nodeid=$node"
        if [ "$memory" != - ]; then
            qemu+=(-object "memory-backend-ram,id=m$node,size=$memory")
            words+=",memdev=m$node"
        fi
        if [ "$count" = x ]; then
            left_out+=("$cpu")
            count=1
        fi
        if [ "$count" != - ]; then
            last=$((cpu + count - 1))
            words+=",cpus=$cpu-$last"
            cpu=$((last + 1))
        fi
        qemu+=(-numa "$words")
        node=$((node + 1))
    done
    for word in $dist; do
        IFS=, read -r from to value <<<"$word"
        qemu+=(-numa "dist,src=$from,dst=$to,val=$value")
    done
    qemu+=(-smp "${smp:-$cpu,sockets=$cpu,cores=1,threads=1}")
}

# total: the nodes' memory in MiB.
total() {
    local sum=0 word
    for word in $nodes; do
        case ${word%%:*} in
        *G) sum=$((sum + ${word%%G:*} * 1024)) ;;
        *M) sum=$((sum + ${word%%M:*})) ;;
        esac
    done
    echo "$sum"
}

command_line() {
    local words_now=(console=ttyS0 panic=-1 quiet loglevel=5 "VM_SCENE=$name"
        "STRESS_SECONDS=$seconds" "VM_QUICK=${VM_QUICK:-0}")
    [ -z "$pools" ] || words_now+=(hugepagesz=2M "hugepages=${pools// /,}")
    [ -z "$giants" ] || words_now+=(hugepagesz=1G "hugepages=${giants// /,}")
    [ "${#left_out[@]}" -eq 0 ] || words_now+=("disable_cpu_apicid=${left_out[0]}")
    echo "${words_now[*]} $words"
}

# Skips that the table asks for, over all runs.
wanted_skips() {
    echo "$runs" | awk '{ sum += $3 } END { print sum + 0 }'
}

machine
rm -f "$log" "$kernel_log"
timeout -k 5 "$limit" qemu-system-x86_64 -accel tcg,thread=multi -cpu max -M pc -m "$(total)M" \
    "${qemu[@]}" -nodefaults -no-user-config -display none -no-reboot \
    -serial "file:$kernel_log" -serial "file:$log" \
    -device isa-debug-exit,iobase=0xf4,iosize=0x04 \
    -kernel "$out/vmlinuz" -initrd "$out/root.cpio" -append "$(command_line)" \
    >"$out/$name.qemu" 2>&1 </dev/null
status=$?

tally=$(tail -n 1 "$log" 2>/dev/null | tr -d '\r')
why=
if [[ ! $tally =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed,\ ([0-9]+)\ skipped$ ]]; then
    why='no tally in the end'
elif [ "${BASH_REMATCH[2]}" -ne 0 ]; then
    why=$tally
elif [ "${BASH_REMATCH[1]}" -eq 0 ]; then
    why='nothing passed'
elif [ "${BASH_REMATCH[3]}" -ne "$(wanted_skips)" ]; then
    why="${BASH_REMATCH[3]} skips, and the table says $(wanted_skips)"
fi
case $status in
33) ;;
124 | 137) why="more than $limit s${why:+; $why}" ;;
*) why="QEMU ended with $status, not 33${why:+; $why}" ;;
esac
if [ -z "$why" ]; then
    echo "$tally"
    exit 0
fi
echo "$why"
for file in "$out/$name.qemu" "$kernel_log" "$log"; do
    [ ! -s "$file" ] || { echo "--- the end of $file:" && tail -n 25 "$file" | tr -d '\r'; }
done
# What failed may stand further up.
grep -a '^FAIL' "$log" 2>/dev/null | sed 's/^/--- /'
exit 1
