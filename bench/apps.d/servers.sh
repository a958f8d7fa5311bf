# SPDX-License-Identifier: MIT
# shellcheck shell=bash disable=SC2154
#
# The servers of bench/apps: each is started with the allocator, given a fixed load by a client that
# has none preloaded, looked at, and stopped. What is measured is the server's own processor time
# while the load lasts, since the client shares the machine with it.
#
# Sourced by bench/apps, as programs.sh is; of what that provides this needs: attend (a command that
# a signal or a time limit ends), $preload and "${with[@]}" (the allocator's library and the words
# that preload it), figure, fail, $size, $work, $ram, $parts. Leaves nothing running: stop_server is
# called by bench/apps on every way out.

server='' server_log=''

# children PID: of a server that works in several processes.
children() {
    pgrep -P "$1"
}

# start_server PROGRAM...: as the process $server.
start_server() {
    server_log=$work/server.log
    "${with[@]}" "$@" >"$server_log" 2>&1 </dev/null &
    server=$!
}

# stop_server [SIGNAL]: and what it started, by force after ten seconds.
stop_server() {
    local pid families tries
    [ -n "$server" ] || return 0
    mapfile -t families < <(children "$server")
    kill "-${1:-TERM}" "$server" 2>/dev/null
    for ((tries = 0; tries < 200; tries++)); do
        kill -0 "$server" 2>/dev/null || break
        sleep 0.05
    done
    for pid in "$server" "${families[@]}"; do
        [ ! -d "/proc/$pid" ] || kill -KILL "$pid" 2>/dev/null
    done
    wait "$server" 2>/dev/null
    server=''
}

# wait_until COMMAND...: until it succeeds, as long as the server lives, ten seconds at most.
wait_until() {
    local tries
    for ((tries = 0; tries < 200; tries++)); do
        kill -0 "$server" 2>/dev/null || break
        "$@" >/dev/null 2>&1 && return 0
        sleep 0.05
    done
    cp "$server_log" "$work/errors"
    fail 'the server does not come up'
    return 1
}

# The allocator is mapped where the work is done. (A process may have ended in between.)
is_mapped() {
    local pid
    for pid in "$@"; do
        grep -qsF "$preload" "/proc/$pid/maps" || [ ! -d "/proc/$pid" ] && continue
        fail "process $pid does not have $preload mapped"
        return 1
    done
}

# cpu_of PID...: seconds of processor so far, of all threads to the nanosecond (schedstat) where the
# kernel counts them, and of children that have ended in ticks.
cpu_of() {
    local pid
    for pid in "$@"; do
        sed 's/.*) //; s/^/stat /' "/proc/$pid/stat" 2>/dev/null
        cat "/proc/$pid"/task/*/schedstat 2>/dev/null
    done | awk -v hertz="$(getconf CLK_TCK)" '
        $1 == "stat" { own += $13 + $14; ended += $15 + $16; next }
        { exact += $1 }
        END { printf "%.6f\n", (exact > 0 ? exact / 1e9 : own / hertz) + ended / hertz }'
}

peak_of() {
    awk '/^VmHWM:/ { print $2 / 1024 }' "/proc/$1/status"
}

# under_load BEFORE PID...: the server's figures, given cpu_of its processes before the load.
under_load() {
    local before=$1 after
    shift
    after=$(cpu_of "$@")
    figure cpu "$(awk -v a="$before" -v b="$after" 'BEGIN { print b - a }')" s
}

# ---- redis -----------------------------------------------------------------------------------

start_redis() {
    rm -f "$work/redis.socket"
    start_server /usr/bin/redis-server --port 0 --unixsocket "$work/redis.socket" --save '' \
        --appendonly no --dir "$ram" --daemonize no
    wait_until /usr/bin/redis-cli -s "$work/redis.socket" ping && is_mapped "$server"
}

# redis_load REQUESTS ARGUMENT...: requests a command, and redis-benchmark's arguments.
redis_load() {
    local before started rate
    start_redis || return
    before=$(cpu_of "$server")
    started=$EPOCHREALTIME
    attend /usr/bin/redis-benchmark -s "$work/redis.socket" -q --csv -c 16 -P 64 -n "$@" || return
    rate=$(awk -F, -v n="$1" -v a="$started" -v b="$EPOCHREALTIME" \
        '/^"/ && $2 ~ /[0-9]/ { tests++ } END { print tests * n / (b - a) }' "$work/out")
    figure rate "$rate" requests/s
    under_load "$before" "$server"
    figure peak "$(peak_of "$server")" MiB
    stop_server
}

run_redis_values() {
    redis_load $((size * 250000)) -t set,get -d 200 -r 300000
}

run_redis_types() {
    redis_load $((size * 50000)) -t incr,lpush,rpush,lpop,rpop,sadd,hset,spop,zadd,zpopmin,mset \
        -d 40 -r 100000
}

# ---- memcached -------------------------------------------------------------------------------

run_memcached() {
    local before rate
    rm -f "$work/memcached.socket"
    start_server /usr/bin/memcached -s "$work/memcached.socket" -t 2 -m 256 -u "$(id -un)"
    wait_until [ -S "$work/memcached.socket" ] && is_mapped "$server" || return
    before=$(cpu_of "$server")
    attend /usr/bin/python3 -S "$parts/load.py" memcached "$work/memcached.socket" \
        $((size * 6000)) || return
    rate=$(<"$work/out")
    figure rate "$rate" requests/s
    under_load "$before" "$server"
    figure peak "$(peak_of "$server")" MiB
    stop_server
}

# ---- nginx -----------------------------------------------------------------------------------

prepare_nginx() {
    local i
    mkdir -p "$ram/nginx/pages" "$ram/nginx/temporary" || return 1
    for ((i = 0; i < 400; i++)); do
        echo "line $i of a page, $((i * 7919 % 10007))"
    done >"$ram/nginx/pages/page.txt"
    head -n 20 "$ram/nginx/pages/page.txt" >"$ram/nginx/pages/small.txt"
    for ((i = 0; i < 8; i++)); do
        echo "part $i <!--# echo var=\"request_uri\" -->"
        echo '<!--# include virtual="/small.txt" -->'
    done >"$ram/nginx/pages/page.shtml"
    cat >"$ram/nginx/nginx.conf" <<CONF
$([ "$(id -u)" -ne 0 ] || echo "user root;")
daemon off;
worker_processes 1;
pid $ram/nginx/pid;
error_log $ram/nginx/error.log;
events { worker_connections 64; }
http {
    access_log off;
    keepalive_requests 1000000;
    gzip on;
    gzip_types text/plain;
    client_body_temp_path $ram/nginx/temporary;
    proxy_temp_path $ram/nginx/temporary;
    fastcgi_temp_path $ram/nginx/temporary;
    uwsgi_temp_path $ram/nginx/temporary;
    scgi_temp_path $ram/nginx/temporary;
    server {
        listen unix:$work/nginx.socket;
        root $ram/nginx/pages;
        location ~ [.]shtml\$ { ssi on; ssi_types *; }
    }
}
CONF
}

run_nginx() {
    local before rate worker
    rm -f "$work/nginx.socket"
    start_server /usr/sbin/nginx -p "$ram/nginx" -c "$ram/nginx/nginx.conf" \
        -e "$ram/nginx/error.log"
    wait_until pgrep -P "$server" || return
    worker=$(children "$server")
    is_mapped "$server" "$worker" || return
    before=$(cpu_of "$worker")
    attend /usr/bin/python3 -S "$parts/load.py" http "$work/nginx.socket" $((size * 600)) || return
    rate=$(<"$work/out")
    figure rate "$rate" requests/s
    under_load "$before" "$worker"
    figure peak "$(peak_of "$worker")" MiB
    stop_server
}

# ---- PostgreSQL ------------------------------------------------------------------------------

# The server refuses to be root.
as_postgres() {
    postgres=(env)
    [ "$(id -u)" -ne 0 ] ||
        postgres=(setpriv --reuid=postgres --regid=postgres --clear-groups env HOME=/)
}

start_postgres() {
    start_server "${postgres[@]}" "$postgres_programs/postgres" -D "$ram/postgres" \
        -c listen_addresses= -c unix_socket_directories="$work/postgres" -c fsync=off \
        -c shared_buffers=128MB -c autovacuum=off -c jit=off
    wait_until "$postgres_programs/pg_isready" -q -h "$work/postgres"
}

pgbench() {
    "$1" "${postgres[@]}" "$postgres_programs/pgbench" -h "$work/postgres" "${@:2}" postgres
}

# Made once, by the C library's malloc; the load only reads.
prepare_postgres() {
    local with=(env) made
    as_postgres
    mkdir -p "$ram/postgres" "$work/postgres" || return 1
    if [ "$(id -u)" -eq 0 ]; then
        chown postgres "$ram/postgres" "$work/postgres"
    fi
    attend "${postgres[@]}" "$postgres_programs/initdb" -D "$ram/postgres" -A trust -N \
        --locale=C || return
    start_postgres && pgbench attend -i -q -s $((size + 1))
    made=$?
    stop_server INT
    return $made
}

# What the backends have for themselves (RssAnon: their shared buffers are not the allocator's).
private_of() {
    local pid
    for pid in "$@"; do
        cat "/proc/$pid/status" 2>/dev/null
    done | awk '/^RssAnon:/ { sum += $2 } END { print sum / 1024 }'
}

# no_more_than PID COUNT: children.
no_more_than() {
    [ "$(children "$1" | wc -l)" -le "$2" ]
}

run_postgres() {
    local before backends pids peak=0
    start_postgres || return
    mapfile -t backends < <(children "$server")
    is_mapped "$server" "${backends[@]}" || return
    before=$(cpu_of "$server" "${backends[@]}")
    pgbench begin -S -n -c 2 -j 1 -t $((size * 16000))
    while sleep 0.2 && kill -0 "$running" 2>/dev/null; do
        mapfile -t pids < <(children "$server")
        peak=$(printf '%s\n' "$peak" "$(private_of "$server" "${pids[@]}")" | sort -g | tail -n 1)
    done
    finish || return
    # A backend's time is known for certain when the server has waited for it.
    wait_until no_more_than "$server" "${#backends[@]}" || return
    figure rate "$(awk '/^tps = / { print $3 }' "$work/out")" transactions/s
    under_load "$before" "$server" "${backends[@]}"
    figure peak "$peak" MiB
    stop_server INT
}
