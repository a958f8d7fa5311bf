#!/bin/bash
# SPDX-License-Identifier: MIT
#
# sqlite3 on a generated database: generate, index, query, update, vacuum. The answers and the
# database file are the same, byte for byte.
# shellcheck source=tests/apps/common.sh
. "$(dirname "$0")/common.sh"

sqlite=/usr/bin/sqlite3
need sqlite3 "$sqlite"
if [ "$part" = quick ]; then
    rows=40000
else
    rows=300000
fi

# Reproducible: numbers come from a multiplier, not from random().
cat >"$work/session.sql" <<END
PRAGMA journal_mode = wal;
PRAGMA synchronous = off;
PRAGMA cache_size = 4000;
PRAGMA threads = 2;
CREATE TABLE customer(id INTEGER PRIMARY KEY, name TEXT, town TEXT, notes TEXT);
CREATE TABLE trade(id INTEGER PRIMARY KEY, customer INT, amount INT, day TEXT, payload BLOB);
BEGIN;
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < $rows / 10)
    INSERT INTO customer SELECT i, printf('name %x', i * 2654435761 % 4294967296),
        printf('town %d', i * 48271 % 997), hex(zeroblob(i % 700)) FROM n;
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < $rows)
    INSERT INTO trade SELECT i, 1 + i * 48271 % ($rows / 10), i * 2654435761 % 1000003,
        date('2020-01-01', (i % 2000) || ' days'), zeroblob(i % 97) FROM n;
COMMIT;
CREATE INDEX trade_customer ON trade(customer, amount);
CREATE INDEX trade_day ON trade(day);
CREATE INDEX customer_town ON customer(town, name);
ANALYZE;
SELECT town, count(*), sum(amount), max(length(notes)) FROM trade JOIN customer
    ON customer.id = trade.customer GROUP BY town ORDER BY 3 DESC, 1;
SELECT day, sum(amount) OVER (ORDER BY day ROWS 30 PRECEDING) FROM
    (SELECT day, sum(amount) AS amount FROM trade GROUP BY day) ORDER BY day;
SELECT count(DISTINCT payload || amount), group_concat(DISTINCT length(payload)) FROM trade;
SELECT id, amount, day FROM trade ORDER BY amount % 1009, day DESC, id LIMIT 5000;
SELECT sum(length(json_array(name, town, json_object('n', notes)))) FROM customer;
UPDATE trade SET payload = zeroblob(300), amount = amount + 1 WHERE id % 7 = 0;
DELETE FROM trade WHERE id % 5 = 1;
DELETE FROM customer WHERE id NOT IN (SELECT customer FROM trade);
SELECT count(*), sum(amount), sum(length(payload)) FROM trade;
PRAGMA integrity_check;
PRAGMA wal_checkpoint(TRUNCATE);
VACUUM;
PRAGMA journal_mode = delete;
PRAGMA integrity_check;
END

session() {
    run "$sqlite" -batch "$work/$mode.db" <"$work/session.sql" >"$work/$mode.out" 2>&1
}

for mode in "${modes[@]}"; do
    set_mode "$mode"
    session
    equal "the session ends well ($mode)" 0 "$?"
    run "$sqlite" "$work/$mode.db" .dump >"$work/$mode.dump" 2>&1
    if [ "$mode" = glibc ]; then
        check 'the database is as large as it should be' \
            awk -v least=$((rows / 2)) 'END { exit NR < least }' "$work/glibc.dump"
        equal 'sqlite finds it sound' 2 "$(grep -cx ok "$work/glibc.out")"
        continue
    fi
    same "answers ($mode)" "$work/glibc.out" "$work/$mode.out"
    same "database file ($mode)" "$work/glibc.db" "$work/$mode.db"
    same "dump ($mode)" "$work/glibc.dump" "$work/$mode.dump"
done

# A process at work, for a look at its memory: the query sorts in memory, then waits at a pipe that
# nobody reads.
set_mode hakmem
mkfifo "$work/pipe"
serve "$work/live.log" "$sqlite" -batch "$work/hakmem.db" \
    "PRAGMA temp_store = memory" "PRAGMA cache_size = 20000" ".output $work/pipe" \
    "SELECT hex(payload), day FROM trade ORDER BY amount % 7, payload, id"
exec 9<"$work/pipe"
IFS= read -r -t 60 _ <&9
on_region sqlite3 "$server" 4000
exec 9<&-
stop "$server" TERM
all_bound sqlite3 "$sqlite" "$work/hakmem.db" 'SELECT count(*) FROM trade'
finish
