-- What the test of doors keeps behind masks: one value of every kind, each easily found in bytes.
CREATE TYPE vaultpart AS (word text, number bigint);
CREATE TYPE vaultenum AS ENUM ('zqx7wkv9jy2hb');
CREATE DOMAIN vaultdomain AS text;
CREATE TABLE vault (
    id integer PRIMARY KEY, tag text, s text, v varchar(80), c char(20), nm name, j json, jb jsonb, x xml, a text[],
    n numeric, i bigint, u uuid, ip inet, b bytea, r int8range, part vaultpart, e vaultenum, dm vaultdomain, tv tsvector
);
INSERT INTO vault
SELECT g, 'tag ' || g, 'Zqx7Wkv9Jy2Hb ' || g, 'Zqx7Wkv9Jy2Hb', 'Zqx7Wkv9Jy2Hb', 'Zqx7Wkv9Jy2Hb',
       '{"k": "Zqx7Wkv9Jy2Hb"}', '{"k": "Zqx7Wkv9Jy2Hb", "n": 918273645546372819}', '<k>Zqx7Wkv9Jy2Hb</k>',
       '{Zqx7Wkv9Jy2Hb,b}', 918273645546372819, 918273645546372819, 'd00df00d-5ca1-4b1e-8bad-cafe00c0ffee',
       '203.0.113.77', '\xdec0adde0ff1ce42', '[918273645546372819,918273645546372899)',
       '(Zqx7Wkv9Jy2Hb,918273645546372819)', 'zqx7wkv9jy2hb', 'Zqx7Wkv9Jy2Hb', 'Zqx7Wkv9Jy2Hb'
FROM generate_series(1, 3) AS g;
ANALYZE vault;
CREATE TABLE other (id integer, tag text, n numeric);
INSERT INTO other VALUES (1, 'tag 1', 1), (2, 'tag 2', 2);
CREATE TABLE child (more text) INHERITS (vault);
INSERT INTO child (id, s, tag, more) VALUES (9, 'Zqx7Wkv9Jy2Hb', 'tag 9', 'more');
CREATE TABLE parted (id integer, s text) PARTITION BY RANGE (id);
CREATE TABLE parted_one PARTITION OF parted FOR VALUES FROM (0) TO (100);
INSERT INTO parted VALUES (1, 'Zqx7Wkv9Jy2Hb');
CREATE VIEW seen AS SELECT id, s AS harmless FROM vault;
CREATE VIEW seen_again AS SELECT id, harmless AS plain FROM seen;
CREATE VIEW barrier WITH (security_barrier) AS SELECT id, s AS harmless FROM vault WHERE id > 0;
CREATE VIEW computed AS SELECT id, upper(s) AS harmless FROM vault;
CREATE VIEW as_row AS SELECT id, vault AS harmless FROM vault;
CREATE VIEW as_json AS SELECT id, to_jsonb(vault) AS harmless FROM vault;
CREATE VIEW gathered AS SELECT array_agg(s) AS harmless FROM vault;
CREATE VIEW united AS SELECT 0 AS id, '' AS harmless UNION ALL SELECT id, s FROM vault;
CREATE RECURSIVE VIEW recursed (id, harmless) AS
    SELECT id, s FROM vault UNION SELECT id, harmless FROM recursed;
CREATE VIEW windowed AS SELECT id, lag(s) OVER (ORDER BY id) AS harmless FROM vault;
CREATE MATERIALIZED VIEW kept AS SELECT id, s AS harmless FROM vault;
CREATE FUNCTION one_s(integer) RETURNS text LANGUAGE sql AS 'SELECT s FROM vault WHERE id = $1';
CREATE FUNCTION all_vault() RETURNS SETOF vault LANGUAGE sql AS 'SELECT * FROM ONLY vault';
CREATE FUNCTION some_s() RETURNS TABLE (harmless text) LANGUAGE sql AS 'SELECT s FROM vault';
CREATE FUNCTION folded() RETURNS text IMMUTABLE LANGUAGE sql AS 'SELECT s FROM vault WHERE id = 1';
CREATE FUNCTION of_row(vault) RETURNS text LANGUAGE sql AS 'SELECT $1.s';
CREATE FUNCTION tells(text) RETURNS text LANGUAGE plpgsql AS 'BEGIN RAISE NOTICE ''it is %'', $1; RETURN ''''; END';
CREATE FUNCTION fails(text) RETURNS text LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''it is %'', $1; END';
CREATE FUNCTION fails_in_hint(text) RETURNS text LANGUAGE plpgsql AS
    'BEGIN RAISE EXCEPTION ''failed'' USING HINT = $1, DETAIL = $1; END' IMMUTABLE;
CREATE VIEW through_function AS SELECT one_s(id) AS harmless FROM other;
CREATE TABLE strict (id integer PRIMARY KEY, s text UNIQUE CHECK (length(s) < 5), other text NOT NULL);
CREATE INDEX vault_upper ON vault (upper(s));
CREATE STATISTICS vault_stats (mcv) ON s, v FROM vault;
ANALYZE vault;
-- Who goes through the doors owns everything, as an application's role often does.
DO $$ DECLARE q record; BEGIN
    FOR q IN SELECT oid::regclass AS name FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'm')
    LOOP EXECUTE 'ALTER TABLE ' || q.name || ' OWNER TO wire'; END LOOP;
END $$;
GRANT ALL ON SCHEMA public TO wire;
GRANT pg_read_all_stats, pg_monitor TO wire;
