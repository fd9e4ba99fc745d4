//! Nobody sees what a mask hides, whichever way they ask.

use crate::support::{block_on, driver, hides_everything};
use std::time::Duration;

use anyhow::{Result, ensure};
use interceptor_tests::policies::SHOP;
use interceptor_tests::wire::{Wire, bind, describe, execute, parse, sync};
use interceptor_tests::world::TARGET_V4;
use interceptor_tests::{From, with_gateway};

#[test]
fn text_rows() -> Result<()> {
    with_gateway("mask-text", SHOP, |world, gateway| {
        let psql = world.psql(From::Client).bare();
        let rows = psql
            .run("SELECT id, name, email, ssn FROM customers ORDER BY id LIMIT 2")?
            .success()?;
        assert_eq!(rows, "1|Ada Lovelace|****|****\n2|Grace Hopper|****|****\n");
        let masked = |event: &serde_json::Value| event["cells_masked"] == 4 && event["rows"] == 2;
        gateway.event("outcome", masked)?;
        Ok(())
    })
}

#[test]
fn binary_rows() -> Result<()> {
    with_gateway("mask-binary", SHOP, |world, _| {
        block_on(async {
            let client = driver(world, TARGET_V4, "alice").await?;
            let row = client
                .query_one(
                    "SELECT name, email, ssn, id FROM customers WHERE id = $1",
                    &[&1],
                )
                .await?;
            assert_eq!(row.get::<_, &str>(0), "Ada Lovelace");
            assert_eq!(row.get::<_, &str>(1), "****");
            assert_eq!(row.get::<_, &str>(2), "****");
            assert_eq!(row.get::<_, i32>(3), 1);
            // The second time the driver's statement is prepared already and is not described.
            let statement = client
                .prepare("SELECT email FROM customers ORDER BY id")
                .await?;
            for _ in 0..2 {
                for row in client.query(&statement, &[]).await? {
                    assert_eq!(row.get::<_, &str>(0), "****");
                }
            }
            Ok(())
        })
    })
}

#[test]
fn both_formats_without_describe() -> Result<()> {
    with_gateway("mask-formats", SHOP, |world, _| {
        let mut wire = Wire::new(world.connect(TARGET_V4)?)?;
        wire.log_in()?;
        for binary in [false, true] {
            let sql = "SELECT email FROM customers WHERE id = 1";
            // Nobody asks what the columns are.
            wire.send(&[parse(sql), bind(binary), execute(), sync()].concat())?;
            let replies = wire.until(b'Z')?;
            let row = replies.iter().find(|reply| reply.tag == b'D');
            assert_eq!(row.map(|row| &row.body[6..]), Some(&b"****"[..]));
            wire.send(&[parse(sql), bind(binary), describe(), execute(), sync()].concat())?;
            let replies = wire.until(b'Z')?;
            let row = replies.iter().find(|reply| reply.tag == b'D');
            assert_eq!(row.map(|row| &row.body[6..]), Some(&b"****"[..]));
        }
        Ok(())
    })
}

#[test]
fn copied_rows() -> Result<()> {
    with_gateway("mask-copy", SHOP, |world, _| {
        let psql = world.psql(From::Client);
        let rows = psql
            .run("COPY customers (id, name, email) TO STDOUT")?
            .success()?;
        assert_eq!(rows.lines().next(), Some("1\tAda Lovelace\t****"));
        assert_eq!(rows.lines().count(), 6);
        for copy in [
            "COPY customers TO STDOUT",
            "COPY customers TO STDOUT (FORMAT csv)",
            "COPY customers TO STDOUT (FORMAT csv, DELIMITER ';', FORCE_QUOTE *)",
            "COPY (SELECT ssn, id FROM customers) TO STDOUT",
            "COPY (SELECT upper(email) FROM customers) TO STDOUT",
            "COPY (TABLE contacts) TO STDOUT",
        ] {
            let finished = psql.run(copy)?;
            hides_everything(world, &finished.stdout)?;
            hides_everything(world, &finished.stderr)?;
        }
        let mut wire = Wire::new(world.connect(TARGET_V4)?)?;
        wire.log_in()?;
        for copy in [
            "COPY customers TO STDOUT (FORMAT binary)",
            "COPY BINARY customers TO STDOUT",
            "COPY customers (ssn, card) TO STDOUT (FORMAT binary)",
        ] {
            let replies = wire.query(copy)?;
            let data: Vec<u8> = replies
                .iter()
                .filter(|reply| reply.tag == b'd')
                .flat_map(|reply| reply.body.clone())
                .collect();
            assert!(data.starts_with(b"PGCOPY\n\xff\r\n\0"), "{copy}");
            assert!(data.ends_with(&[0xff, 0xff]), "{copy}");
            let text = String::from_utf8_lossy(&data);
            hides_everything(world, &text)?;
            // Two cells a row at least, and a card number in a note where notes are copied.
            assert!(text.matches("****").count() >= 12, "{copy}: {text}");
            assert!(
                replies
                    .iter()
                    .any(|reply| reply.text().starts_with("COPY 6"))
            );
        }
        // What patterns are looked for in has to have types that are known.
        for copy in [
            "COPY (SELECT email FROM customers) TO STDOUT (FORMAT 'binary')",
            "COPY (SELECT card FROM customers) TO STDOUT (FORMAT binary)",
        ] {
            let replies = wire.query(copy)?;
            for reply in &replies {
                hides_everything(world, &reply.text())?;
            }
            let code = replies.iter().find_map(|reply| reply.field(b'C'));
            assert_eq!(code.as_deref(), Some("42501"), "{copy}: {replies:?}");
            assert_eq!(
                replies.last().map(|reply| reply.tag),
                Some(b'Z'),
                "the session is over after {copy}"
            );
        }
        Ok(())
    })
}

#[test]
fn every_detour() -> Result<()> {
    with_gateway("mask-detours", SHOP, |world, _| {
        let psql = world.psql(From::Client).bare();
        for sql in [
            "SELECT email AS harmless FROM customers",
            "SELECT c.* FROM customers AS c",
            "SELECT c FROM customers AS c",
            "SELECT row_to_json(c) FROM customers AS c",
            "SELECT to_jsonb(customers) FROM customers",
            "SELECT upper(email), lower(ssn) FROM customers",
            "SELECT email || '' FROM customers",
            "SELECT reverse(reverse(email)) FROM customers",
            "SELECT string_agg(email, ',') FROM customers",
            "SELECT array_agg(ssn) FROM customers",
            "SELECT max(email) FROM customers",
            "SELECT e FROM (SELECT email AS e FROM customers) AS s",
            "WITH s AS (SELECT ssn FROM customers) SELECT * FROM s",
            "SELECT email FROM customers UNION SELECT 'x'",
            "SELECT (SELECT ssn FROM customers WHERE id = 1)",
            "SELECT CASE WHEN true THEN email END FROM customers",
            "SELECT * FROM contacts",
            "SELECT email FROM contacts",
            "SELECT o.id, c.email FROM orders AS o JOIN customers AS c ON c.id = o.customer_id",
            "VALUES ((SELECT email FROM customers WHERE id = 1))",
            "TABLE customers",
            "SELECT query_to_xml('SELECT email FROM customers', true, true, '')",
            "SELECT most_common_vals FROM pg_stats WHERE tablename = 'customers'",
            "SELECT histogram_bounds FROM pg_stats WHERE tablename = 'customers'",
            // The value turns up in an error of the server.
            "SELECT email::integer FROM customers",
            "SELECT ('x' || ssn)::integer FROM customers",
            "INSERT INTO customers (id, name, email, ssn, card) SELECT id, name, email, ssn, card FROM customers",
            "INSERT INTO customers VALUES (7, 'Nobody', '', '', '') RETURNING (SELECT email FROM customers WHERE id = 1)",
        ] {
            let finished = psql.run(sql)?;
            let seen = format!("{}{}", finished.stdout, finished.stderr);
            hides_everything(world, &seen).map_err(|error| error.context(sql))?;
        }
        for script in [
            "BEGIN; DECLARE d CURSOR FOR SELECT email FROM customers; FETCH ALL FROM d; COMMIT;",
            "PREPARE p AS SELECT ssn FROM customers; EXECUTE p;",
            "CREATE TEMP TABLE t AS SELECT email FROM customers; SELECT * FROM t;",
            "CREATE OPERATOR @### (rightarg = text, procedure = ts_stat); SELECT @### 'SELECT to_tsvector(''simple'', email) FROM customers';",
            "CREATE TABLE r (x text); CREATE RULE r AS ON INSERT TO r DO INSTEAD SELECT email || '' FROM customers; INSERT INTO r VALUES ('');",
            "ALTER TABLE customers RENAME COLUMN email TO harmless; SELECT harmless FROM customers;",
            "ALTER TABLE customers RENAME TO harmless; SELECT email FROM harmless;",
            "CREATE SCHEMA s; ALTER TABLE customers SET SCHEMA s; SELECT email FROM s.customers;",
            "CREATE TEMP VIEW v AS SELECT ssn AS x FROM customers; SELECT * FROM v;",
            "SELECT email INTO TEMP t FROM customers; SELECT * FROM t;",
            "DO $$ BEGIN RAISE NOTICE '%', (SELECT email FROM customers WHERE id = 1); END $$;",
        ] {
            let finished = psql.script(script)?;
            let seen = format!("{}{}", finished.stdout, finished.stderr);
            hides_everything(world, &seen).map_err(|error| error.context(script))?;
        }
        Ok(())
    })
}

/// The view `contacts` cannot be read while its table is locked, and the one that keeps it locked
/// is the session that waits for the catalogue.
#[test]
fn a_session_does_not_wait_for_its_own_lock() -> Result<()> {
    with_gateway("mask-lock", SHOP, |world, _| {
        let psql = world.psql(From::Client).bare();
        let finished = psql.script(
            "BEGIN; ALTER TABLE customers ADD COLUMN born date; SELECT id, born, email FROM customers WHERE id = 1;
             SELECT email FROM contacts WHERE id = 1; COMMIT; SELECT id, born, email FROM customers WHERE id = 1;",
        )?;
        assert!(
            finished.elapsed < Duration::from_secs(10),
            "{:?}",
            finished.elapsed
        );
        assert_eq!(finished.success()?, "1||****\n****\n1||****\n");
        Ok(())
    })
}

#[test]
fn patterns_wherever_they_turn_up() -> Result<()> {
    with_gateway("mask-patterns", SHOP, |world, _| {
        let psql = world.psql(From::Client).bare();
        let notes = psql
            .run("SELECT note FROM customers WHERE id IN (2, 4) ORDER BY id")?
            .success()?;
        assert_eq!(
            notes,
            "card **** was declined once\norder number 20240917\n"
        );
        let literal = psql.run("SELECT 'paid with 4111111111111111'")?.success()?;
        assert_eq!(literal, "paid with ****\n");
        Ok(())
    })
}

#[test]
fn nothing_else_changes() -> Result<()> {
    with_gateway("mask-rest", SHOP, |world, _| {
        let psql = world.psql(From::Client).bare();
        for sql in [
            "SELECT * FROM orders ORDER BY id",
            "SELECT id, name FROM customers ORDER BY id",
            "SELECT id, note IS NULL, note FROM customers WHERE id IN (1, 3, 5) ORDER BY id",
            "SELECT count(*), NULL, '', 1.50, true, ARRAY[1, 2], '{\"a\": 1}'::jsonb",
        ] {
            assert_eq!(
                psql.run(sql)?.success()?.trim_end_matches('\n'),
                world.postgres.directly(sql)?,
                "{sql}"
            );
        }
        Ok(())
    })
}

#[test]
fn the_log_holds_no_secret() -> Result<()> {
    with_gateway("mask-log", SHOP, |world, gateway| {
        let psql = world.psql(From::Client);
        psql.run("SELECT * FROM customers")?.success()?;
        psql.run("SELECT 'paid with 4111 1111 1111 1111'")?
            .success()?;
        psql.run("ALTER ROLE alice PASSWORD 'a-new-password'")?
            .success()?;
        gateway.event("command", |event| event["kinds"][0] == "ALTER ROLE")?;
        let log = gateway.cli(&["audit", "export"])?.success()?;
        let printed = std::fs::read_to_string(gateway.log())?;
        for text in [log, printed] {
            hides_everything(world, &text)?;
            assert!(!text.contains("a-new-password") && !text.contains("alice-password"));
            assert!(!text.contains("catalog-password"));
        }
        Ok(())
    })
}

/// A session that is there already sees it within seconds: nobody told the gateway.
#[test]
fn changes_past_the_gateway() -> Result<()> {
    with_gateway("mask-past", SHOP, |world, _| {
        let mut wire = Wire::new(world.connect(TARGET_V4)?)?;
        wire.log_in()?;
        let shown = |wire: &mut Wire, sql: &str| -> Result<String> {
            let replies = wire.query(sql)?;
            let row = replies.iter().find(|reply| reply.tag == b'D');
            Ok(row.map(|row| row.text()).unwrap_or_default())
        };
        world.postgres.directly(
            "CREATE VIEW later AS SELECT name AS shown FROM customers; GRANT ALL ON later TO wire",
        )?;
        ensure!(
            shown(&mut wire, "SELECT shown FROM later WHERE shown LIKE 'Ada%'")?.contains("Ada")
        );
        // The view shows another column under the same name and number.
        world
            .postgres
            .directly("CREATE OR REPLACE VIEW later AS SELECT email AS shown FROM customers")?;
        interceptor_tests::wait_until(
            "the view's new column is masked",
            Duration::from_secs(20),
            || {
                Ok(
                    !shown(&mut wire, "SELECT shown FROM later WHERE shown LIKE 'ada%'")?
                        .contains("ada."),
                )
            },
        )?;
        // Nor does a table escape by another name.
        world
            .postgres
            .directly("CREATE TABLE fresh (id integer, email text); INSERT INTO fresh VALUES (1, 'x'); GRANT ALL ON fresh TO wire; ALTER TABLE customers RENAME TO old; ALTER TABLE fresh RENAME TO customers")?;
        interceptor_tests::wait_until("the new table is masked", Duration::from_secs(20), || {
            Ok(shown(&mut wire, "SELECT email FROM customers")?.contains("****"))
        })
    })
}
