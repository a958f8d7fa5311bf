-- SPDX-License-Identifier: MIT
-- Generate, index, join, change, vacuum: the sqlite3 tests of bench/apps, which puts the number of
-- rows in the place of :rows. No random(): the result is the same whatever allocates.
PRAGMA journal_mode = MEMORY;
CREATE TABLE person (id INTEGER PRIMARY KEY, name TEXT, city INTEGER, born INTEGER, note TEXT);
CREATE TABLE sale (id INTEGER PRIMARY KEY, person INTEGER, amount REAL, item TEXT);
BEGIN;
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :rows)
INSERT INTO person SELECT i, 'name ' || (i * 7919 % 100003), i * 31 % 997, 1920 + i % 100,
    substr('the quick brown fox jumps over the lazy dog, again and again', 1 + i % 17, i % 43)
FROM n;
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2 * :rows)
INSERT INTO sale SELECT i, 1 + i * 104729 % :rows, (i * 37 % 10007) / 100.0, 'item ' || (i % 5003)
FROM n;
COMMIT;
CREATE INDEX person_by_name ON person (name);
CREATE INDEX person_by_city ON person (city, born);
CREATE INDEX sale_by_person ON sale (person);
CREATE INDEX sale_by_item ON sale (item, amount);
SELECT city, count(*), round(sum(amount), 2), group_concat(DISTINCT substr(item, 6, 2))
FROM person JOIN sale ON sale.person = person.id WHERE city < 300
GROUP BY city ORDER BY 3 DESC, 1 LIMIT 5;
SELECT count(*), max(length(a.note || b.note)) FROM person a JOIN person b ON a.name = b.name
WHERE a.city < 100;
SELECT item, count(DISTINCT person), round(avg(amount), 3) FROM sale
GROUP BY item HAVING item LIKE '%7' ORDER BY 2 DESC, 1 LIMIT 5;
WITH ranked AS (SELECT person, amount, row_number() OVER (PARTITION BY person ORDER BY amount DESC,
                                                          id) AS place FROM sale)
SELECT count(*), round(sum(amount), 2) FROM ranked WHERE place = 1;
UPDATE person SET note = upper(note) || name WHERE city % 3 = 0;
DELETE FROM sale WHERE id % 4 = 0;
VACUUM;
PRAGMA integrity_check;
SELECT count(*), sum(length(note)) FROM person;
SELECT count(*), round(sum(amount), 2) FROM sale;
