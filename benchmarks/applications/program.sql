-- An in-memory database: bulk insert, two indexes, a join, updates, deletes.
PRAGMA temp_store = memory;
CREATE TABLE person (id INTEGER PRIMARY KEY, name TEXT, city INTEGER, note TEXT);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 250000)
INSERT INTO person SELECT i, 'person ' || (i * 7919 % 120011), i % 500, substr('a note of some length for every person', 1, i % 38) FROM n;
CREATE INDEX by_name ON person(name);
CREATE INDEX by_city ON person(city, name);
UPDATE person SET note = note || ' moved' WHERE city % 7 = 0;
DELETE FROM person WHERE id % 11 = 0;
SELECT count(*), sum(length(note)) FROM person;
SELECT city, count(*), min(name), max(note) FROM person GROUP BY city ORDER BY 2 DESC, 1 LIMIT 5;
SELECT count(*) FROM person a JOIN person b ON a.name = 'person ' || (b.id / 2) WHERE b.city < 100;
