//! What the gateway says that a command writes is what the server's own accounting says that it wrote,
//! under whatever name it went there.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use interceptor_tests::policies::SHOP;
use interceptor_tests::{From, with_gateway};
use serde_json::Value;

/// Two schemas with a table of the same name, a view, a partition, and functions.
const SETUP: &str = "
    SET ROLE alice;
    CREATE SCHEMA archive;
    CREATE TABLE archive.orders (LIKE public.orders);
    INSERT INTO archive.orders SELECT * FROM public.orders;
    CREATE TABLE parcels (id int PRIMARY KEY, n int);
    INSERT INTO parcels SELECT n, n FROM generate_series(1, 9) AS n;
    CREATE VIEW small_parcels AS SELECT * FROM parcels WHERE n < 100;
    CREATE TABLE parts (id int, k int) PARTITION BY LIST (k);
    CREATE TABLE archive.parts_1 PARTITION OF parts FOR VALUES IN (1);
    INSERT INTO parts VALUES (1, 1);
    CREATE FUNCTION touch() RETURNS int LANGUAGE plpgsql
        AS $$ BEGIN INSERT INTO parcels VALUES (100, 100); RETURN 1; END $$;
    CREATE FUNCTION twice(n int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 2 * n';
    CREATE FUNCTION touch_next(a int, b int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN RETURN touch(); END $$;
    CREATE AGGREGATE touch_once (int) (SFUNC = touch_next, STYPE = int);
    CREATE FUNCTION touched(orders) RETURNS int LANGUAGE plpgsql AS $$ BEGIN RETURN touch(); END $$";

/// The tables written in the open transaction, by the server.
const WRITTEN: &str = "SELECT 'wrote:' || coalesce(string_agg(
        regexp_replace(schemaname, '^pg_temp_.*', 'pg_temp') || '.' || relname, ','), '')
    FROM pg_stat_xact_user_tables WHERE n_tup_ins + n_tup_upd + n_tup_del > 0;";

/// What comes before, and what is looked at; `false`: the gateway has to leave its names in doubt.
const CASES: &[(&str, &str, bool)] = &[
    ("", "DELETE FROM parcels", true),
    ("", "DELETE FROM orders", true),
    ("", "UPDATE parcels SET n = twice(n)", true),
    ("", "DELETE FROM archive.orders", true),
    ("SET search_path = archive", "DELETE FROM orders", false),
    (
        "SET LOCAL search_path = archive",
        "DELETE FROM orders",
        false,
    ),
    (
        "SET search_path = archive, public",
        "DELETE FROM parcels",
        true,
    ),
    (
        "SELECT set_config('search_path', 'archive', true)",
        "DELETE FROM orders",
        false,
    ),
    (
        "CREATE TEMP TABLE parcels AS SELECT 1 AS n WHERE false",
        "INSERT INTO parcels VALUES (2)",
        false,
    ),
    ("", "INSERT INTO small_parcels VALUES (20, 20)", true),
    ("", "DELETE FROM archive.parts_1", true),
    (
        "",
        "WITH x AS (DELETE FROM parcels RETURNING id) INSERT INTO archive.orders SELECT o.* FROM x JOIN public.orders o USING (id)",
        true,
    ),
    (
        "",
        "INSERT INTO parcels VALUES (1, 1) ON CONFLICT (id) DO UPDATE SET n = 5",
        true,
    ),
    (
        "",
        "MERGE INTO parcels p USING archive.orders o ON p.id = o.id WHEN MATCHED THEN UPDATE SET n = 7 WHEN NOT MATCHED THEN INSERT VALUES (o.id, 8)",
        true,
    ),
    ("", "EXPLAIN ANALYZE UPDATE parcels SET n = 1", true),
    ("", "EXPLAIN UPDATE parcels SET n = 1", true),
    ("", "COPY (DELETE FROM parcels RETURNING n) TO STDOUT", true),
    ("PREPARE p AS DELETE FROM parcels", "EXECUTE p", true),
    ("", "SELECT touch()", false),
    ("", "SELECT touch_once(1)", false),
    ("", "SELECT o.touched FROM orders o LIMIT 1", false),
    (
        "SET search_path = 1.5, archive",
        "DELETE FROM orders",
        false,
    ),
    (
        "",
        r"SELECT set_config(lower('SEARCH_PATH'), 'archive', true)\; DELETE FROM orders",
        false,
    ),
    ("", "DO $$ BEGIN DELETE FROM parcels; END $$", false),
    ("", "SELECT 1 AS a INTO made", true),
    ("", "SELECT count(*), twice(2) FROM small_parcels", true),
];

fn strings(list: &Value) -> BTreeSet<String> {
    let items = list.as_array().into_iter().flatten();
    items
        .filter_map(|item| item.as_str().map(str::to_owned))
        .collect()
}

#[test]
fn what_is_written_is_what_the_server_counts() -> Result<()> {
    let target = SHOP.split("---").next().unwrap_or_default();
    let policy = format!("{target}  incomplete: allow\n");
    with_gateway("effects", &policy, |world, gateway| {
        world.postgres.directly(SETUP)?;
        let psql = world.psql(From::Client).bare();
        let mut certain = 0;
        for (number, (before, sql, is_certain)) in CASES.iter().enumerate() {
            let script =
                format!("BEGIN;\n{before};\n{sql} /*case-{number}-*/;\n{WRITTEN}\nROLLBACK;\n");
            let output = psql
                .script(&script)?
                .success()
                .with_context(|| sql.to_string())?;
            let line = output.lines().find_map(|line| line.strip_prefix("wrote:"));
            let line = line.with_context(|| format!("{sql}: {output}"))?;
            let written: BTreeSet<String> = line
                .split(',')
                .filter(|name| !name.is_empty())
                .map(str::to_owned)
                .collect();
            let mark = format!("case-{number}-");
            let event = gateway.event("command", |event| {
                event["text"]
                    .as_str()
                    .is_some_and(|text| text.contains(&mark))
            })?;
            let said = strings(&event["writes"]);
            let incomplete = event["incomplete"]
                .as_str()
                .is_some_and(|why| !why.is_empty());
            for table in &written {
                let bare = table.rsplit('.').next().unwrap_or(table);
                assert!(
                    said.contains(table) || said.contains(bare) || incomplete,
                    "{before}; {sql}: the server wrote {table}, the gateway said {said:?}"
                );
            }
            if *is_certain {
                certain += 1;
                assert!(!incomplete, "{sql}: {}", event["incomplete"]);
                let behind = ["public.small_parcels", "public.parts", "made"];
                for table in said
                    .iter()
                    .filter(|table| !behind.contains(&table.as_str()))
                {
                    assert!(
                        written.contains(table),
                        "{sql}: {table} is not among {written:?}"
                    );
                }
            }
        }
        assert!(certain > 10);
        Ok(())
    })
}
