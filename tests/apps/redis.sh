#!/bin/bash
# SPDX-License-Identifier: MIT
#
# redis-server: the same commands give the same data; BGSAVE and BGREWRITEAOF, which fork, under
# redis-benchmark's load; the data are the same after a restart from the dump and from the
# append-only file, and when a server on the C library loads the dump that hakmem's has written.
#
# Debian links redis-server with jemalloc; to have it on the C library that is put in front.
# shellcheck source=tests/apps/common.sh
. "$(dirname "$0")/common.sh"

redis=/usr/bin/redis-server
need redis-server "$redis"
need redis-tools /usr/bin/redis-benchmark
libc=$(ldd "$redis" | awk '$1 == "libc.so.6" { print $3 }')
if [ "$part" = quick ]; then
    keys=10000 requests=60000
else
    keys=50000 requests=150000
fi

cli() {
    redis-cli -s "$work/redis.sock" "$@"
}

info() {
    cli info | tr -d '\r' | sed -n "s/^$1://p"
}

# shellcheck disable=SC2317 # called by its name
info_is() {
    [ "$(info "$1")" = "$2" ]
}

# start LOG OPTION...: a server on $work/$mode.
start() {
    local log=$1
    shift
    mkdir -p "$work/$mode"
    [ "$mode" != glibc ] || mode_vars=("LD_PRELOAD=$libc")
    serve "$log" "$redis" --port 0 --unixsocket "$work/redis.sock" --dir "$work/$mode" --save '' \
        --enable-debug-command yes --loglevel notice "$@"
    answers "redis-server starts ($mode)" "$log" cli ping
    until_true 60 info_is loading 0
}

digest() {
    cli debug digest
}

# Every type, small and large encodings, growing and shrinking values.
commands() {
    awk -v keys="$keys" 'BEGIN {
        for (i = 1; i <= keys; i++) {
            x = i * 48271 % 65537
            printf "SET key:%d %0*d\n", i, 1 + x % 900, x
            printf "HSET hash:%d field:%d %0*d\n", i % 500, i, 1 + x % 90, i
            printf "RPUSH list:%d %0*d\n", i % 100, 1 + x % 300, i
            printf "ZADD zset:%d %d member:%d\n", i % 50, x, i
            printf "SADD set:%d %d\n", x % 200, i
            if (i % 3 == 0) printf "APPEND key:%d %0*d\n", x % i + 1, 1 + i % 500, x
            if (i % 5 == 0) printf "DEL key:%d\n", i - 3
            if (i % 7 == 0) printf "LPOP list:%d\n", x % 100
            if (i % 11 == 0) printf "ZREMRANGEBYRANK zset:%d 0 2\n", x % 50
            if (i % 13 == 0) printf "SETRANGE key:%d %d %d\n", i, x % 3000, x
            if (i % 17 == 0) printf "XADD stream:%d %d-1 a %d b %0*d\n", i % 20, i, x, 40, i
            if (i % 997 == 0) printf "SUNIONSTORE union:%d set:%d set:%d\n", i, x % 200, i % 200
            if (i % 997 == 1) printf "ZUNIONSTORE zunion:%d 2 zset:%d zset:%d\n", i, x % 50, i % 50
        }
    }'
}

# The background child was there while the load went on, and did its work.
save_under_load() {
    local load changed
    redis-benchmark -s "$work/redis.sock" -q -P 8 -c 20 -n "$requests" -r "$keys" -d 200 \
        -t set,incr,lpush,rpush,lpop,sadd,hset,zadd >"$work/load.log" 2>&1 &
    load=$!
    servers+=("$load")
    sleep 0.3
    cli bgsave >/dev/null
    until_true 60 info_is rdb_saves 1
    until_true 60 info_is rdb_bgsave_in_progress 0
    changed=$(info rdb_changes_since_last_save)
    cp "$work/$mode/dump.rdb" "$work/$mode.middle.rdb"
    cli bgrewriteaof >/dev/null
    until_true 60 info_is aof_rewrites 1
    until_true 60 info_is aof_rewrite_in_progress 0
    wait "$load"
    equal "redis-benchmark ends well ($mode)" 0 "$?"
    equal "BGSAVE under load was done and ended well ($mode)" '1 ok' \
        "$(info rdb_saves) $(info rdb_last_bgsave_status)"
    equal "BGREWRITEAOF under load was done and ended well ($mode)" '1 ok' \
        "$(info aof_rewrites) $(info aof_last_bgrewrite_status)"
    check "the load wrote while BGSAVE ran ($mode)" [ "${changed:-0}" -gt 0 ]
    check "the dump of that moment is sound ($mode)" redis-check-rdb "$work/$mode.middle.rdb"
}

commands >"$work/commands"
# The data and what a rewrite adds to them; redis-server ends when it is told that there is no more.
prefault_size=2G
for mode in "${modes[@]}"; do
    set_mode "$mode"
    start "$work/$mode.log" --appendonly yes --appendfsync no \
        --auto-aof-rewrite-percentage 0
    cli --pipe <"$work/commands" >"$work/pipe.log" 2>&1
    equal "all commands are answered without an error ($mode)" \
        "errors: 0, replies: $(wc -l <"$work/commands")" "$(tail -n 1 "$work/pipe.log")"
    digest >"$work/$mode.digest"
    cli --raw eval 'return redis.call("sort", "set:7", "by", "nosort", "get", "#")' 0 | sort \
        >"$work/$mode.script"
    if [ "$mode" != glibc ]; then
        same "digest of the data ($mode)" "$work/glibc.digest" "$work/$mode.digest"
        same "answer of a script ($mode)" "$work/glibc.script" "$work/$mode.script"
        on_region redis-server "$server" 10000
    fi
    save_under_load
    loaded=$(digest)
    echo "$loaded" >"$work/$mode.loaded"
    check "the load changed the data ($mode)" [ "$loaded" != "$(cat "$work/$mode.digest")" ]
    cli save >/dev/null
    cp "$work/$mode/dump.rdb" "$work/$mode.last.rdb"
    stop "$server" TERM
    equal "redis-server ends well ($mode)" 0 "$?"

    start "$work/$mode-aof.log" --appendonly yes
    equal "data after a restart from the append-only file ($mode)" "$loaded" "$(digest)"
    cli shutdown nosave
    stop "$server" TERM
    cp "$work/$mode.last.rdb" "$work/$mode/dump.rdb"
    start "$work/$mode-rdb.log" --appendonly no
    equal "data after a restart from the dump ($mode)" "$loaded" "$(digest)"
    stop "$server" TERM
done

set_mode glibc
for mode in "${modes[@]:1}"; do
    cp "$work/$mode.last.rdb" "$work/glibc/dump.rdb"
    loaded=$(cat "$work/$mode.loaded")
    mode=glibc start "$work/other.log" --appendonly no
    equal "the C library's server reads the dump of hakmem's ($mode)" "$loaded" "$(digest)"
    stop "$server" TERM
done
set_mode hakmem
all_bound redis-check-rdb redis-check-rdb "$work/hakmem.last.rdb"
finish
