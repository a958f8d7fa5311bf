#!/bin/bash
# SPDX-License-Identifier: MIT
#
# PostgreSQL under pgbench: a server and its client, both preloaded. With one client and a seed the
# tables come out the same as under the C library; with eight clients at once money is neither lost
# nor made; indexes are sound; a dump is the same after a restart. The server refuses to run as
# root: then it and its clients run as nobody.
# shellcheck source=tests/apps/common.sh
. "$(dirname "$0")/common.sh"

need postgresql '/usr/lib/postgresql/*/bin/postgres'
need postgresql '/usr/lib/postgresql/*/bin/pgbench'
bin=$(dirname "$(compgen -G '/usr/lib/postgresql/*/bin/postgres' | sort -V | tail -n 1)")
if [ "$part" = quick ]; then
    scale=1 alone=300 together=300
else
    scale=5 alone=5000 together=3000
fi

if [ "$(id -u)" -eq 0 ]; then
    need util-linux /usr/bin/setpriv
    as_user=(setpriv --reuid=nobody --regid=nogroup --clear-groups --)
fi
mkdir -m 777 "$work/run"
cd "$work/run" || exit 1
export PGHOST=$work/run PGUSER=tester PGDATABASE=postgres PGOPTIONS='-c client_min_messages=warning'

pg() {
    local program=$1
    shift
    run "$bin/$program" "$@"
}

sql() {
    pg psql -X -q -A -t -v ON_ERROR_STOP=1 -c "$1" 2>&1
}

start() {
    serve "$work/$mode.log" "$bin/postgres" -D "$work/run/$mode" \
        -k "$work/run" -c listen_addresses= -c max_connections=30 -c fsync=off \
        -c shared_buffers=64MB -c autovacuum_naptime=1s -c max_parallel_workers_per_gather=2 \
        -c min_parallel_table_scan_size=0 -c parallel_setup_cost=0 -c jit=off
    answers "postgres starts ($mode)" "$work/$mode.log" pg pg_isready
}

# Without the word that each dump makes up to fence itself in.
dump() {
    pg pg_dump "$@" 2>&1 | grep -vE '^\\(un)?restrict '
    return "${PIPESTATUS[0]}"
}

# Everything but the times at which history rows were written, to be sorted: where an update finds
# room, and so the order in which rows lie, depends on when autovacuum was there.
tables() {
    dump --exclude-table-data=pgbench_history &&
        sql 'COPY (SELECT tid, bid, aid, delta FROM pgbench_history ORDER BY 1, 2, 3, 4) TO STDOUT'
}

answers_of_queries() {
    sql "SELECT bid, count(*), sum(abalance), md5(string_agg(abalance::text, ',' ORDER BY aid))
            FROM pgbench_accounts GROUP BY bid ORDER BY bid;
        SELECT a.aid, a.abalance - b.abalance FROM pgbench_accounts a JOIN pgbench_accounts b
            ON a.aid = b.aid + 1 WHERE a.abalance <> b.abalance ORDER BY 2, 1 LIMIT 50;
        SELECT jsonb_object_agg(tid, tbalance) FROM pgbench_tellers;
        SELECT count(*) FROM (SELECT DISTINCT abalance, filler FROM pgbench_accounts) d;
        SELECT sum(n) FROM generate_series(1, 200000) n"
}

# shellcheck disable=SC2317 # called by its name
told_twice() {
    [ "$(wc -l <"$work/$mode.backend")" -ge 2 ]
}

# shellcheck disable=SC2317 # called by its name
no_crash() {
    ! grep -aE 'PANIC|out of memory|terminated by signal' "$work/$mode.log"
}

# backend_on_region: of the server's processes, the one that serves a client, after a sort.
backend_on_region() {
    local id
    mkfifo "$work/run/$mode.pipe"
    chmod 666 "$work/run/$mode.pipe"
    exec 9<>"$work/run/$mode.pipe"
    pg psql -X -q -A -t <&9 >"$work/$mode.backend" 2>&1 &
    servers+=("$!")
    echo 'SET work_mem = 100000; SELECT count(*) FROM (SELECT *, row_number() OVER (ORDER BY
        filler, abalance % 7) FROM pgbench_accounts) s; SELECT pg_backend_pid();' >&9
    until_true 20 told_twice
    id=$(sed -n 2p "$work/$mode.backend")
    on_region 'postgres (backend)' "$id" 500
    exec 9>&-
}

for mode in "${modes[@]}"; do
    # Every backend and client faults its region in.
    prefault_size=128M
    set_mode "$mode"
    check "initdb ($mode)" pg initdb -D "$work/run/$mode" -U tester -A trust -N --no-instructions ||
        continue
    start
    check "pgbench makes its tables ($mode)" pg pgbench -i -q -s "$scale"
    check "pgbench with one client ($mode)" pg pgbench --random-seed=7 -c 1 -t "$alone"
    tables 2>&1 | sort >"$work/$mode.tables"
    answers_of_queries >"$work/$mode.answers"
    if [ "$mode" = glibc ]; then
        equal 'transactions that left a row' "$alone" \
            "$(sql 'SELECT count(*) FROM pgbench_history')"
    else
        same "tables after $alone transactions ($mode)" "$work/glibc.tables" "$work/$mode.tables"
        same "answers of queries ($mode)" "$work/glibc.answers" "$work/$mode.answers"
    fi
    on_region 'postgres' "$server" 500
    backend_on_region

    check "pgbench with eight clients ($mode)" pg pgbench -n -c 8 -j 2 -t "$together"
    equal "transactions done ($mode)" $((alone + 8 * together)) \
        "$(sql 'SELECT count(*) FROM pgbench_history')"
    equal "money in accounts, branches, tellers and history agrees ($mode)" t \
        "$(sql 'SELECT (SELECT sum(abalance) FROM pgbench_accounts) = h AND
            (SELECT sum(bbalance) FROM pgbench_branches) = h AND
            (SELECT sum(tbalance) FROM pgbench_tellers) = h
            FROM (SELECT sum(delta) AS h FROM pgbench_history) s')"
    if [ -x "$bin/pg_amcheck" ]; then
        check "pg_amcheck finds tables and indexes sound ($mode)" \
            pg pg_amcheck --install-missing --heapallindexed -d postgres
    fi
    dump >"$work/$mode.before"
    stop "$server" INT
    equal "postgres ends well ($mode)" 0 "$?"
    start
    dump >"$work/$mode.after"
    same "dump after a restart ($mode)" "$work/$mode.before" "$work/$mode.after"
    stop "$server" INT
    check "postgres has no crash to report ($mode)" no_crash
done
set_mode hakmem
start
all_bound pgbench "$bin/pgbench" -n -c 2 -j 2 -t 10
stop "$server" INT
finish
