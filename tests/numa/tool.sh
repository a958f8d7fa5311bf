#!/bin/sh
# SPDX-License-Identifier: MIT
#
# The tool on a machine with several nodes: `hakmem plan`, `reserve`, `release`, `doctor`. Runs
# inside the machines (busybox's shell, as root); what the tool says is compared with what the
# kernel counts on each node. Lines and tally as the other programs have them.
passed=0 failed=0
kernel=/sys/devices/system/node

ok() {
    echo "ok $1"
    passed=$((passed + 1))
}

# fail NAME WHY: with what the tool wrote last.
fail() {
    echo "FAIL $1: $2"
    sed 's/^/    /' /tmp/said
    failed=$((failed + 1))
}

# Numbers of the nodes that have memory, by the kernel's list.
nodes=$(tr ',' '\n' <$kernel/has_memory | while IFS=- read -r first last; do
    seq "$first" "${last:-$first}"
done)
# shellcheck disable=SC2086
count=$(set -- $nodes && echo $#)
last=$(echo "$nodes" | tail -n 1)

pool() {
    cat "$kernel/node$1/hugepages/hugepages-2048kB/$2"
}

# A line a node: number, pages of 2 MiB, free ones.
pools() {
    for node in $nodes; do
        echo "$node $(pool "$node" nr_hugepages) $(pool "$node" free_hugepages)"
    done
}

# said STATUS ARGUMENT...: the tool ends with that status; what it writes goes to /tmp/said.
said() {
    want=$1
    shift
    hakmem "$@" >/tmp/said 2>&1
    got=$?
    [ "$got" -eq "$want" ]
}

before=$(pools)
most_free=$(echo "$before" | awk '$3 > most { most = $3 } END { print most + 0 }')
share=$((most_free + 4))
size=$((share * 2 * count))M
wanted=$(echo "$before" | awk -v share=$share '{ print $1, $2 + share - $3, share }')

name=plan_tells_what_is_missing_on_every_node
if ! said 1 plan --size $size --pages 2M --nodes all --json; then
    fail $name "status $got, not 1"
elif [ "$(grep -c '"missing_pages":' /tmp/said)" -ne "$count" ]; then
    fail $name "not a figure for each of $count nodes"
elif ! echo "$before" | awk -v share=$share '{ print $1, share, $2, $3, share - $3 }' >/tmp/want ||
    ! awk -F '[:,]' '/"node":/ { n = $2 + 0 } /"wanted_pages":/ { w = $2 + 0 }
        /"pool_pages":/ { p = $2 + 0 } /"free_pages":/ { f = $2 + 0 }
        /"missing_pages":/ { print n, w, p, f, $2 + 0 }' /tmp/said | cmp -s - /tmp/want; then
    fail $name "the kernel's figures are (node, wanted, pool, free, missing): $(cat /tmp/want)"
else
    ok $name
fi

name=reserve_provides_it_on_every_node
if ! said 0 reserve --size $size --pages 2M; then
    fail $name "status $got, not 0"
elif [ "$(pools)" != "$wanted" ]; then
    fail $name "wanted (node, pool, free): $wanted; there is: $(pools)"
else
    ok $name
fi

name=plan_is_content_then
if said 0 plan --size $size --pages 2M --nodes all --json &&
    grep -q '"code":[[:space:]]*0,' /tmp/said; then
    ok $name
else
    fail $name "status $got"
fi

name=release_takes_away_what_reserve_added
if ! said 0 release; then
    fail $name "status $got, not 0"
elif [ "$(pools)" != "$before" ]; then
    fail $name "before (node, pool, free): $before; now: $(pools)"
else
    ok $name
fi

name=reserve_on_one_node_leaves_the_others_alone
more=$(($(pool "$last" free_hugepages) + 3))
wanted=$(echo "$before" | awk -v last="$last" '{ more = $1 == last ? 3 : 0
    print $1, $2 + more, $3 + more }')
if ! said 0 reserve --count $more --nodes "$last"; then
    fail $name "status $got, not 0"
elif [ "$(pools)" != "$wanted" ]; then
    fail $name "wanted (node, pool, free): $wanted; there is: $(pools)"
elif ! said 0 release || [ "$(pools)" != "$before" ]; then
    fail $name "release: status $got, pools $(pools)"
else
    ok $name
fi

# More than a node has, though the machine may have it.
name=reserve_takes_all_or_nothing
mib=$(awk '/MemTotal/ { print int($4 / 1024) }' "$kernel/node$last/meminfo")
if said 0 reserve --count $((mib / 2 + 1)) --nodes "$last"; then
    fail $name 'it says that a node has more pages than memory'
elif [ "$got" -ne 1 ]; then
    fail $name "status $got, not 1"
elif [ "$(pools)" != "$before" ]; then
    fail $name "before (node, pool, free): $before; now: $(pools)"
elif ! grep -q "node $last" /tmp/said; then
    fail $name "it does not name node $last"
else
    ok $name
fi

name=nodes_that_cannot_be_used_are_refused
without=${VM_EXPECT#*memoryless=}
[ "$without" != "$VM_EXPECT" ] || without=63
fault=
for node in 63 ${without%% *}; do
    said 0 reserve --count 1 --nodes "$node" && fault="reserve takes node $node"
    said 0 plan --size 2M --pages 4k --nodes "$node" && fault="plan takes node $node"
    grep -q "node $node" /tmp/said || fault="plan does not name node $node"
done
if [ -n "$fault" ] || [ "$(pools)" != "$before" ]; then
    fail $name "$fault; pools $(pools)"
else
    ok $name
fi

name=doctor_looks_at_every_node
hakmem doctor >/tmp/said 2>&1
got=$?
if [ $got -gt 1 ] || [ ! -s /tmp/said ]; then
    fail $name "status $got"
else
    ok $name
fi

echo "$passed passed, $failed failed, 0 skipped"
[ "$failed" -eq 0 ]
