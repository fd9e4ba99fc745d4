//! Ways around names and masks that work on a real server, and not through the gateway.

use crate::support::hides_everything;
use anyhow::{Result, ensure};
use interceptor_tests::policies::SHOP;
use interceptor_tests::wire::{Reply, Wire, message, sync};
use interceptor_tests::world::TARGET_V4;
use interceptor_tests::{From, World, with_gateway};

fn strings(texts: &[&str]) -> Vec<u8> {
    texts
        .iter()
        .flat_map(|text| text.bytes().chain([0]))
        .collect()
}

fn parse(name: &str, sql: &str) -> Vec<u8> {
    message(b'P', &[strings(&[name, sql]), vec![0, 0]].concat())
}

fn bind(portal: &str, statement: &str) -> Vec<u8> {
    message(b'B', &[strings(&[portal, statement]), vec![0; 6]].concat())
}

fn execute(portal: &str) -> Vec<u8> {
    message(b'E', &[strings(&[portal]), vec![0; 4]].concat())
}

fn hidden(world: &World, what: &str, replies: &[Reply]) -> Result<()> {
    for reply in replies {
        hides_everything(world, &reply.text()).map_err(|error| error.context(what.to_owned()))?;
    }
    Ok(())
}

#[test]
fn in_one_statement() -> Result<()> {
    with_gateway("detour-one", SHOP, |world, _| {
        let psql = world.psql(From::Client).bare();
        for sql in [
            // A function by the notation of a column: the server calls it on the row.
            "SELECT c.row_to_json FROM customers AS c",
            "SELECT customers.to_jsonb FROM customers",
            "SELECT x.row_to_json FROM (orders JOIN customers ON true) AS x",
            "SELECT email::regclass FROM customers",
            "SELECT ssn::regrole FROM customers",
            "SELECT to_tsquery(email || ' x') FROM customers",
            "SELECT nextval(email) FROM customers",
            "SELECT set_config('application_name', email, false) FROM customers",
            "SELECT make_date(1, 2, replace(ssn, '-', '')::int) FROM customers",
            "SELECT get_byte('x', replace(ssn, '-', '')::int) FROM customers",
        ] {
            let finished = psql.run(sql)?;
            let seen = format!("{}{}", finished.stdout, finished.stderr);
            hides_everything(world, &seen).map_err(|error| error.context(sql))?;
            let digits = world
                .postgres
                .directly("SELECT replace(ssn, '-', '')::int FROM customers LIMIT 1")?;
            ensure!(!seen.contains(digits.trim()), "{sql}: {seen}");
        }
        Ok(())
    })
}

#[test]
fn in_several_statements() -> Result<()> {
    with_gateway("detour-several", SHOP, |world, _| {
        let mut wire = Wire::new(world.connect(TARGET_V4)?)?;
        wire.log_in()?;
        for text in [
            "EXPLAIN SELECT 1; SELECT upper(email) FROM customers",
            "SHOW work_mem; SELECT upper(email) FROM customers",
            "COPY customers (email) TO STDOUT; COPY orders (id) TO STDOUT",
            "PREPARE p AS SELECT upper(email) FROM customers",
            // It fails: the name is taken.
            "PREPARE p AS SELECT lower('x')",
            "EXECUTE p",
            "SELECT reverse(ssn) FROM customers; EXECUTE p",
            "LISTEN l",
            "SELECT pg_notify('l', email) FROM customers",
            "BEGIN; CREATE TEMP VIEW v AS SELECT upper(ssn) AS x FROM customers",
            "SELECT x || '' FROM v",
            "ROLLBACK",
        ] {
            let replies = wire.query(text)?;
            hidden(world, text, &replies)?;
        }
        // The session is alive, or ended by the gateway with a word: both are answers.
        let mut wire = Wire::new(world.connect(TARGET_V4)?)?;
        wire.log_in()?;
        let views: String = (1..=40)
            .map(|n| format!("CREATE TEMP VIEW v{n} AS SELECT x FROM v{};", n - 1))
            .collect();
        let chain = format!("CREATE TEMP VIEW v0 AS SELECT ssn AS x FROM customers;{views}");
        wire.query(&chain)?;
        hidden(world, "a chain of views", &wire.query("SELECT x FROM v40")?)?;
        hidden(
            world,
            "its expression",
            &wire.query("SELECT x || '' FROM v40")?,
        )
    })
}

/// A portal that is closed and opened as something else, by portals that were bound before.
#[test]
fn by_a_portal_that_changes_hands() -> Result<()> {
    with_gateway("detour-portal", SHOP, |world, _| {
        let mut wire = Wire::new(world.connect(TARGET_V4)?)?;
        wire.log_in()?;
        wire.query("BEGIN")?;
        wire.send(
            &[
                parse("a", "CLOSE c"),
                bind("a", "a"),
                parse(
                    "b",
                    "DECLARE c CURSOR FOR SELECT upper(email) FROM customers",
                ),
                bind("b", "b"),
                parse("h", "SELECT lower('x')"),
                bind("c", "h"),
                message(b'D', b"Pc\0"),
                sync(),
            ]
            .concat(),
        )?;
        wire.until(b'Z')?;
        wire.send(&[execute("a"), execute("b"), execute("c"), sync()].concat())?;
        hidden(world, "the portal", &wire.until(b'Z')?)
    })
}

/// A statement whose name SQL frees and takes again, between the judgement and the run.
#[test]
fn by_a_statement_that_changes_hands() -> Result<()> {
    with_gateway("detour-statement", SHOP, |world, _| {
        let mut wire = Wire::new(world.connect(TARGET_V4)?)?;
        wire.log_in()?;
        wire.send(
            &[
                parse("a", "DEALLOCATE p"),
                bind("a", "a"),
                parse("b", "PREPARE p AS DELETE FROM orders WHERE id = 1"),
                bind("b", "b"),
                parse("p", "SELECT 1"),
                execute("a"),
                execute("b"),
                bind("", "p"),
                execute(""),
                sync(),
            ]
            .concat(),
        )?;
        // It is judged as what it has become.
        let replies = wire.until(b'N')?;
        ensure!(
            replies
                .last()
                .is_some_and(|notice| notice.text().contains("waits for approval")),
            "nobody was asked: {replies:?}"
        );
        // The same by EXECUTE: it is held, and a cancel ends that.
        let mut wire = Wire::new(world.connect(TARGET_V4)?)?;
        wire.log_in()?;
        wire.query("PREPARE q AS SELECT 1")?;
        wire.query("DEALLOCATE q")?;
        wire.send(&[parse("q", "DELETE FROM orders WHERE id = 1"), sync()].concat())?;
        wire.until(b'Z')?;
        wire.send(&message(b'Q', &strings(&["EXECUTE q"])))?;
        let notice = wire.until(b'N')?;
        ensure!(
            notice
                .last()
                .is_some_and(|notice| notice.text().contains("waits for approval"))
        );
        let left = world
            .postgres
            .directly("SELECT count(*) FROM orders WHERE id = 1")?;
        ensure!(left.trim() == "1", "the order is gone");
        Ok(())
    })
}
