\set VERBOSITY verbose
\d people
\dt people
\d+ people
\df upper
\dn public
\du bob
\encoding
\a
\echo rows
SELECT id, name, email, born, salary, code, tags, profile, card FROM people ORDER BY id;
\x
SELECT id, email, seen FROM people WHERE id = 1;
\x
SELECT email AS "theirAddress", id FROM people WHERE id = 2 \gset
\echo :theirAddress :id
SELECT id, email, salary FROM people ORDER BY id \gdesc
SELECT format('SELECT %s AS made', n) FROM generate_series(1, 3) AS n \gexec
SELECT id, name, id * 2 AS twice FROM people \crosstabview
\echo copy
\copy people (id, email, born, tags) TO STDOUT
CREATE TABLE made (id int PRIMARY KEY, word text);
\copy made FROM PROGRAM 'printf "1,one\n2,two\n"' (FORMAT csv)
SELECT * FROM made ORDER BY id;
\echo fetched by a cursor
\set FETCH_COUNT 2
SELECT id, email, card FROM people ORDER BY id;
\unset FETCH_COUNT
PREPARE one (int) AS SELECT email FROM people WHERE id = $1;
EXECUTE one (3);
DEALLOCATE one;
\echo transactions
\set AUTOCOMMIT off
INSERT INTO made VALUES (10, 'ten');
\set ON_ERROR_ROLLBACK on
INSERT INTO made VALUES (10, 'ten again');
SELECT count(*) FROM made;
ROLLBACK;
\set AUTOCOMMIT on
\set ON_ERROR_ROLLBACK off
SELECT count(*) FROM made;
\echo errors
SELECT nothing FROM people;
SELECT 1 / 0;
\echo :SQLSTATE :ERROR
DROP TABLE IF EXISTS never_there;
SELECT 1 \; SELECT 'of one message' AS second;
\if :ERROR
\echo it failed
\else
\echo it went well
\endif
\sf nothing_by_this_name
\lo_list
SHOW server_version_num;
SELECT current_user, session_user;
DROP TABLE made;
