# sqlite3: tables, indices, joins, full-text search, windows, vacuum, a file and memory.
cat > script.sql <<'SQL'
CREATE TABLE a(id INTEGER PRIMARY KEY, name TEXT, value REAL);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 30000)
  INSERT INTO a SELECT i, 'name' || (i * 7919 % 1000), i * 1.5 FROM n;
CREATE INDEX by_name ON a(name);
SELECT name, count(*), sum(value) FROM a GROUP BY name ORDER BY 3 DESC LIMIT 3;
SELECT count(*) FROM a x JOIN a y ON x.name = y.name WHERE x.id < 500;
UPDATE a SET name = name || name || printf('%0500d', id) WHERE id % 3 = 0;
DELETE FROM a WHERE id % 7 = 0;
SELECT id, sum(value) OVER (ORDER BY id ROWS 5 PRECEDING) FROM a LIMIT 5 OFFSET 1000;
SELECT length(group_concat(name)), json_array_length(json_group_array(id)) FROM a;
VACUUM;
PRAGMA integrity_check;
SQL
sqlite3 file.db < script.sql
sqlite3 :memory: < script.sql
