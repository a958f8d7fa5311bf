#!/bin/bash
# SPDX-License-Identifier: MIT
#
# `hakmem reserve` and `hakmem release` on the machine's own pool of 2 MiB pages, a few at a time:
# what comes stays noted, what goes is what came, whatever happens in between. Cases are functions,
# as in test_run.sh; the words that they are made of are in run_kit.sh and reserve_kit.sh.
#
# Cases are called by their names, which shellcheck does not see.
# shellcheck disable=SC2317
set -u
cd "$(dirname "$0")/.." || exit 1
# shellcheck source=tests/run_kit.sh
. tests/run_kit.sh
# shellcheck source=tests/reserve_kit.sh
. "$source/tests/reserve_kit.sh"

# ---- what it is for --------------------------------------------------------------------------

what_was_reserved_is_free_and_goes_back() {
    begin
    reserve 0 --count $((free + 8)) --nodes "$node"
    pages 8
    [ "$(number free_hugepages)" -eq $((free + 8)) ] || fail "free: $(number free_hugepages)"
    noted 8
    tells '8 pages of 2M added (16 MiB)'
    grep -qE "^ *$node +2M +$((free + 8)) +$free +8 +$((free + 8)) +0$" out ||
        fail "table: $(cat out)"
    release 0
    tells "node $node: 8 pages of 2M given back (16 MiB)"
    pages 0
    noted 0
}

a_size_is_rounded_up_to_pages() {
    begin
    reserve 0 --size $(((free + 8) * 2048 - 1))K --nodes "$node" --pages 2M
    pages 8
    release 0 --all
    pages 0
}

pages_that_are_free_count() {
    begin
    reserve 0 --count $((free + 8)) --nodes "$node"
    reserve 0 --count $((free + 4)) --nodes "$node"
    tells 'enough pages were free: nothing was added'
    pages 8
    noted 8
    release 0
    pages 0
}

reserved_twice_and_released_once() {
    begin
    reserve 0 --count $((free + 8)) --nodes "$node"
    reserve 0 --count $((free + 12)) --nodes "$node"
    pages 12
    noted 12
    release 0
    pages 0
    noted 0
    release 0
    tells 'nothing to give back'
    pages 0
}

pages_of_others_stay() {
    begin
    reserve 0 --count $((free + 8)) --nodes "$node"
    others 3
    release 0
    pages 3
    others -3
    pages 0
}

pages_that_others_took_are_not_taken_again() {
    begin
    [ "$base" -eq 0 ] || skip 'the pool has pages of others, which cannot be told apart'
    reserve 0 --count $((free + 8)) --nodes "$node"
    echo $((base + 3)) >"$pool/nr_hugepages"
    release 0
    tells "node $node: 3 pages of 2M given back" '5 more had been taken out of the pool'
    pages 0
    noted 0
}

release_with_nothing() {
    begin
    release 0
    tells 'nothing to give back'
    quiet
    pages 0
}

only_what_is_named_is_released() {
    begin
    reserve 0 --count $((free + 4)) --nodes "$node"
    release 0 --pages 1G
    tells 'nothing to give back'
    release 0 --nodes 63
    tells 'nothing to give back'
    pages 4
    noted 4
    release 0 --pages 1G,2M --nodes "$node"
    pages 0
}

the_environment_does_not_count() {
    begin
    HAKMEM_NODES=63 HAKMEM_PAGES=nonsense HAKMEM_REGION_SIZE=1 reserve 0 --count $((free + 2)) \
        --nodes "$node"
    pages 2
    HAKMEM_NODES=63 HAKMEM_PAGES=1G release 0
    pages 0
}

# ---- too few ---------------------------------------------------------------------------------

more_than_the_machine_has_leaves_nothing() {
    local count=$(($(awk '/^MemTotal/ { print int($2 / 2048) }' /proc/meminfo) + 100))
    begin
    [ "$count" -lt 1000000 ] || skip 'the machine has more than a region can ask for'
    reserve 1 --count "$count" --nodes "$node"
    tells "node $node: too little memory: $((count - free)) more pages of 2M" \
        'MiB can be had there' 'nothing was reserved; --keep-partial'
    pages 0
    noted 0
}

# The kernel is told a smaller number than the tool wrote, and so finds too few.
fewer_than_asked_are_given_back() {
    begin
    need_strace
    traced 1 "$(told $((base + 4)) $((base + 16))):when=1..2" "$hakmem" reserve \
        --count $((free + 16)) --nodes "$node"
    tells "node $node: 12 of $((free + 16)) pages of 2M are missing" 'after compaction' \
        "hugepagesz=2M hugepages=$node:$((base + 16))" "node $node: 4 pages of 2M given back" \
        'nothing was reserved; --keep-partial'
    pages 0
    noted 0
}

a_part_can_be_kept() {
    begin
    need_strace
    traced 1 "$(told $((base + 4)) $((base + 16))):when=1..2" "$hakmem" reserve \
        --count $((free + 16)) --nodes "$node" \
        --keep-partial
    tells "12 of $((free + 16)) pages of 2M are missing" 'kept: 4 pages'
    pages 4
    noted 4
    release 0
    pages 0
}

# Fewer at the first write, the rest at the second, after compaction.
it_tries_again_after_compaction() {
    begin
    need_strace
    also=(-P "${pool%/hugepages/*}/compact" -P /proc/sys/vm/compact_memory)
    traced 0 "$(told $((base + 4)) $((base + 16))):when=1" "$hakmem" reserve \
        --count $((free + 16)) --nodes "$node"
    [ "$(grep -c '^write(' trace)" -eq 3 ] || fail "not three writes: $(cat trace)"
    grep -q '^write([0-9]*, "1", 1)' trace || fail "compaction was not asked for: $(cat trace)"
    pages 16
    noted 16
    release 0
    pages 0
}

the_kernels_refusal_is_told() {
    begin
    need_strace
    traced 1 write:error=EINVAL:when=1 "$hakmem" reserve --count $((free + 4)) --nodes "$node"
    tells "node $node: its pool of 2M pages cannot be made larger: Invalid argument" \
        'nothing was reserved'
    ! grep -e '--keep-partial' err || fail 'which helps nothing'
    pages 0
    noted 0
}

promised_pages_are_not_counted_as_free() {
    begin
    [ "$(cat "$machine_pool/resv_hugepages")" -eq 0 ] || skip 'pages are promised to others'
    [ "$free" -eq 0 ] || skip 'the pool has pages of others'
    reserve 0 --count 4 --nodes "$node"
    hold 4 promise
    reserve 0 --count 4 --nodes "$node"
    tells "4 free pages are promised to others: so many more are wanted on node $node"
    pages 8
    noted 8
    unhold
    release 0
    pages 0
}

# ---- in use ----------------------------------------------------------------------------------

pages_in_use_are_left_as_surplus() {
    begin
    [ "$free" -eq 0 ] || skip 'the pool has pages of others'
    reserve 0 --count 8 --nodes "$node"
    hold 3 touch
    release 0
    tells "node $node: 5 pages of 2M given back" '3 more are in use or promised' surplus
    pages 0
    noted 0
    [ "$(number surplus_hugepages)" -eq 3 ] || fail "surplus: $(number surplus_hugepages)"
    unhold
    [ "$(number nr_hugepages)" -eq "$base" ] || fail "left: $(number nr_hugepages)"
}

# Surplus pages become the pool's own before free ones come.
surplus_pages_do_not_pass_for_free_ones() {
    begin
    [ "$free" -eq 0 ] || skip 'the pool has pages of others'
    reserve 0 --count 4 --nodes "$node"
    hold 4 touch
    release 0
    [ "$(number surplus_hugepages)" -eq 4 ] || fail "surplus: $(number surplus_hugepages)"
    reserve 0 --count 4 --nodes "$node"
    [ "$(number free_hugepages)" -eq 4 ] || fail "free: $(number free_hugepages), $(cat out err)"
    unhold
    release 0
    pages 0
    [ "$(number nr_hugepages)" -eq "$base" ] || fail "left: $(number nr_hugepages)"
}

# ---- killed and interrupted ------------------------------------------------------------------

killed_before_the_pages_came() {
    begin
    need_strace
    traced 137 write:signal=KILL:when=1 "$hakmem" reserve --count $((free + 8)) --nodes "$node"
    grep -q "added 0 from $base to $((base + 8))" "$state/reserved" ||
        fail "no intent: $(cat "$state/reserved")"
    # Whether the kernel saw the write is its own affair.
    release 0
    tells 'an earlier run was killed'
    pages 0
    noted 0
}

killed_after_the_pages_came() {
    begin
    need_strace
    traced 137 /rename:signal=KILL:when=2 "$hakmem" reserve --count $((free + 8)) --nodes "$node"
    pages 8
    release 0
    tells 'an earlier run was killed when it had moved 8 pages' "8 pages of 2M given back"
    pages 0
    noted 0
}

killed_and_reserved_again() {
    begin
    need_strace
    traced 137 /rename:signal=KILL:when=2 "$hakmem" reserve --count $((free + 8)) --nodes "$node"
    reserve 0 --count $((free + 10)) --nodes "$node"
    pages 10
    noted 10
    release 0
    pages 0
}

killed_while_giving_back() {
    begin
    need_strace
    reserve 0 --count $((free + 8)) --nodes "$node"
    others 3
    traced 137 /unlink:signal=KILL:when=1 "$hakmem" release
    pages 3
    release 0
    tells 'an earlier run was killed when it had moved 8 pages' 'nothing to give back'
    pages 3
    noted 0
    others -3
}

a_signal_leaves_nothing() {
    local name status
    begin
    need_strace
    ulimit -c 0
    for name in INT:130 TERM:143 HUP:129 QUIT:131; do
        status=${name#*:}
        traced "$status" write:signal="${name%:*}":when=1 "$hakmem" reserve \
            --count $((free + 32)) --nodes "$node" --keep-partial
        tells 'nothing was reserved; ended by a signal'
        pages 0
        noted 0
    done
}

# A script that ends early in a pipe: what came is on file, what was not the whole goes back.
nobody_reads_what_it_prints() {
    begin
    need_strace
    unheard
    "$hakmem" reserve --count $((free + 4)) --nodes "$node" >&6 2>err
    [ $? -eq 125 ] || fail "a whole reservation: $(cat err)"
    said 'cannot write to standard output: Broken pipe'
    noted 4
    "$hakmem" release >&6 2>err
    [ $? -eq 125 ] || fail "giving back: $(cat err)"
    said 'cannot write to standard output: Broken pipe'
    pages 0
    noted 0
    strace -qq -o trace -P "$pool/nr_hugepages" \
        -e inject="$(told $((base + 4)) $((base + 16))):when=1..2" \
        "$hakmem" reserve --count $((free + 16)) --nodes "$node" >&6 2>err
    [ $? -eq 1 ] || fail "a part: $(cat err)"
    grep -q INJECTED trace || fail "nothing was done to it: $(cat trace)"
    pages 0
    noted 0
}

two_at_once_lose_no_count() {
    local first
    begin
    need_strace
    strace -qq -o trace -P "$pool/nr_hugepages" -e inject=write:delay_enter=1500000 \
        "$hakmem" reserve --count $((free + 8)) --nodes "$node" >first 2>&1 &
    first=$!
    for _ in {1..100}; do
        [ ! -e "$state/reserved" ] || break
        sleep 0.05
    done
    reserve 0 --count $((free + 12)) --nodes "$node"
    wait "$first" || fail "the first: $(cat first)"
    tells 'another run is at work; waiting for it'
    pages 12
    noted 12
    release 0
    pages 0
}

who_waits_can_be_interrupted() {
    local status
    begin
    (flock 8 && sleep 20) 8<"$state" &
    local locker=$!
    sleep 0.3
    timeout -s TERM 0.5 "$hakmem" reserve --count $((free + 2)) --nodes "$node" >out 2>err
    status=$?
    kill "$locker" 2>/dev/null
    [ "$status" -eq 124 ] || fail "status $status: $(cat out err)"
    tells 'another run is at work'
    pages 0
    noted 0
}

# ---- refusals --------------------------------------------------------------------------------

not_root() {
    need_root
    mkdir -p open
    cp "$hakmem" open
    expect 1 as_nobody open/hakmem reserve --size 64M --nodes 0
    said 'only root' 'sudo open/hakmem reserve --size 64M --nodes 0'
    expect 1 as_nobody open/hakmem release --all
    said 'only root' 'sudo open/hakmem release --all'
}

a_sysfs_that_is_read_only() {
    begin
    in_namespace 'mount -o remount,bind,ro /sys || exit 99' reserve --count $((free + 4)) \
        --nodes "$node"
    case $? in
    99) skip '/sys cannot be mounted read-only here' ;;
    1) said "$pool/nr_hugepages cannot be written: Read-only file system" 'container' ;;
    *) fail "not refused: $(cat out err)" ;;
    esac
    reserve 0 --count $((free + 4)) --nodes "$node"
    in_namespace 'mount -o remount,bind,ro /sys' release
    [ $? -eq 1 ] || fail "released in it: $(cat out err)"
    noted 4
    release 0
    pages 0
}

a_page_size_that_the_kernel_lacks() {
    begin
    in_namespace "mount -t tmpfs none ${pool%/*}; mount -t tmpfs none ${machine_pool%/*}" \
        reserve --count 1 --pages 1G --nodes "$node"
    [ $? -eq 1 ] || fail "not refused: $(cat out err)"
    said 'this kernel has no huge pages of 1G' 'pdpe1gb' '--pages 2M'
    noted 0
}

a_node_that_does_not_exist() {
    begin
    [ ! -e /sys/devices/system/node/node63 ] || skip 'there is a node 63'
    reserve 1 --count 1 --nodes 63
    said 'node 63 does not exist' '--nodes'
    pages 0
}

notes_of_another_hand() {
    begin
    printf '%s\n' '# notes' "boot $(cat /proc/sys/kernel/random/boot_id)" 'node 0 has eight' \
        >"$state/reserved"
    reserve 1 --count $((free + 1)) --nodes "$node"
    said "$state/reserved, line 3: 'node 0 has eight' was not written by this tool"
    release 1
    pages 0
}

# Each would take pages of others, or any that there are.
notes_that_cannot_be_true() {
    local line why
    begin
    [ ! -e /sys/devices/system/node/node63 ] || skip 'there is a node 63'
    others 4
    while IFS=';' read -r why line; do
        notes "$line"
        release 1
        said "$state/reserved, line 2: '$line' $why" 'nothing is done'
        reserve 1 --count 1 --nodes "$node"
        pages 4
        [ "$(sed 1d "$state/reserved")" = "$line" ] || fail "changed: $(cat "$state/reserved")"
    done <<END
names a node;node 63 page_kib 2048 added 4 from 0 to 0
names a node;node 63 page_kib 2048 added 0 from $((base + 4)) to $base
was not written;node 64 page_kib 2048 added 4 from 0 to 0
was not written;node -1 page_kib 2048 added 4 from 0 to 0
was not written;node $node page_kib 4 added 4 from 0 to 0
was not written;node $node page_kib 2048 added -1 from 0 to 0
was not written;node $node page_kib 2048 added 0 from -1 to 0
was not written;node $node page_kib 2048 added 99999999999999999999999 from 0 to 0
was not written;node $node page_kib 2048 added 4 from 0 to 0 more
was not written;node $node page_kib 2048 added  4 from 0 to 0
has more pages than;node $node page_kib 2048 added 4000000000 from 0 to 0
has more pages than;node $node page_kib 2048 added 0 from 18446744073709551615 to 0
END
    line="node $node page_kib 2048 added 1 from 0 to 0"
    notes "$line" "$line"
    release 1
    said "line 3: '$line' is the second"
    echo "$line" >"$state/reserved"
    release 1
    said "line 1: '$line' has no line with the boot"
    notes $'\e[31mred\rover'
    release 1
    said "'?[31mred?over' was not written"
    pages 4
    others -4
}

notes_from_before_the_last_boot() {
    begin
    printf '%s\n' 'boot 00000000-0000-0000-0000-000000000000' \
        "node $node page_kib 2048 added 5 from 0 to 0" >"$state/reserved"
    release 0
    tells 'from before the last boot' 'nothing to give back'
    pages 0
}

no_place_for_the_notes() {
    begin
    in_namespace "mount --bind $state $state && mount -o remount,bind,ro $state || exit 99" \
        reserve --count $((free + 1)) --nodes "$node"
    [ $? -eq 1 ] || fail "not refused: $(cat out err)"
    tells "$state/reserved cannot be written: Read-only file system" 'nothing was reserved' \
        "$state must be writable"
    ! grep -e '--keep-partial' err || fail 'which helps nothing'
    pages 0
}

no_room_for_the_notes() {
    begin
    # It ends when the file system is full.
    head -c 2M /dev/zero >"$state/fill" 2>fill.err
    reserve 1 --count $((free + 1)) --nodes "$node"
    tells "$state/reserved cannot be written: No space left on device" 'nothing was reserved' \
        'have room'
    ! grep -e '--keep-partial' err || fail 'which helps nothing'
    [ ! -e "$state/reserved.new" ] || fail 'half a file was left'
    pages 0
}

bad_options() {
    local words
    while read -r words; do
        # Unquoted: several words.
        # shellcheck disable=SC2086
        expect 2 "$hakmem" $words
    done <<'END'
reserve
reserve --size
reserve --size 1G --count 3
reserve --size nonsense
reserve --size 1K
reserve --size 3T
reserve --count 0
reserve --count -1
reserve --count 1x
reserve --count 99999999999999999999999
reserve --count 2000000
reserve --count 1 --pages thp
reserve --count 1 --pages 2M,1G
reserve --count 1 --pages 3M
reserve --count 1 --nodes 64
reserve --count 1 --nodes x
reserve --count 1 more
reserve --all
release --size 1G
release --all --pages 2M
release --all --nodes 0
release --pages 4k
release more
END
    expect 2 "$hakmem" reserve --count 1 --nodes ''
    said "--nodes: '' cannot be understood"
}

help_tells_the_exit_status() {
    expect 0 "$hakmem" reserve --help
    grep -q 'exit status: 0' out || fail "reserve: $(cat out)"
    grep -q '125 they are free, but' out || fail "reserve: $(cat out)"
    expect 0 "$hakmem" help release
    grep -q 'exit status: 0' out || fail "release: $(cat out)"
    grep -q '125 done, but' out || fail "release: $(cat out)"
}

run_cases "$source/tests/test_reserve.sh" "${1:-}"
