//! What rules bind commands to, with a real server: limits, masks, a session that reads only, who is
//! told, and the ends that a rule makes of a hold.

use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result};
use interceptor_tests::policies::OPEN;
use interceptor_tests::postgres::DATABASE;
use interceptor_tests::wire::{Wire, extended, query, startup, sync};
use interceptor_tests::world::TARGET_V4;
use interceptor_tests::{From, Gateway, World, with_gateway};
use serde_json::Value;

use crate::support::is_clean;

const CATALOG: &str =
    "incomplete: allow\n  catalog: {user: interceptor_catalog, passwordFile: PASSWORD_FILE}";

/// [`OPEN`] with a catalogue, and what comes behind it.
fn policy(documents: &str) -> String {
    let target = OPEN.replace("incomplete: allow", CATALOG);
    format!("{target}{documents}")
}

fn rule(body: &str) -> String {
    policy(&format!("---\nkind: Rule\nname: bound\nspec:\n{body}\n"))
}

fn limited(limit: &str) -> String {
    rule(&format!(
        "  match: {{functions: [generate_series, pg_sleep]}}\n  then: {{limit: {limit}}}"
    ))
}

fn reached(gateway: &Gateway<'_>, limit: &str) -> Result<Value> {
    let fits = |event: &Value| event["limit"] == limit && event["rule"] == "bound";
    gateway.event("limit-reached", fits)
}

fn log_in(world: &World) -> Result<Wire> {
    let mut wire = Wire::new(world.connect(TARGET_V4)?)?;
    wire.log_in()?;
    Ok(wire)
}

/// The error in an answer: its code and its words.
fn error_of(replies: &[interceptor_tests::wire::Reply]) -> Result<(String, String)> {
    let error = replies.iter().find(|reply| reply.tag == b'E');
    let error = error.with_context(|| format!("no error in {replies:?}"))?;
    Ok((error.field(b'C').unwrap_or_default(), error.text()))
}

#[test]
fn rows() -> Result<()> {
    with_gateway("limit-rows", &limited("{rows: 1000}"), |world, gateway| {
        let mut wire = log_in(world)?;
        // One that ends before it can be stopped, and one that would never end.
        for count in ["1001", "1000000000"] {
            for simple in [true, false] {
                let sql = format!("SELECT generate_series(1, {count})");
                let start = Instant::now();
                let replies = match simple {
                    true => wire.query(&sql)?,
                    false => {
                        wire.send(&[extended(&sql), sync()].concat())?;
                        wire.until(b'Z')?
                    }
                };
                let rows = replies.iter().filter(|reply| reply.tag == b'D').count();
                assert_eq!(rows, 1_000, "{sql}");
                let (code, text) = error_of(&replies)?;
                assert_eq!(code, "54000", "{text}");
                assert!(
                    text.contains("rule \"bound\": its limit is 1000 rows"),
                    "{text}"
                );
                assert!(start.elapsed() < Duration::from_secs(20));
                // What comes next is not hit by a late cancel.
                for _ in 0..20 {
                    assert_eq!(wire.query("SELECT 1")?.len(), 4, "after {sql}");
                }
            }
        }
        let whole = wire.query("SELECT generate_series(1, 1000)")?;
        assert!(whole.iter().all(|reply| reply.tag != b'E'));
        let copied = wire.query("COPY (SELECT generate_series(1, 100000000)) TO STDOUT")?;
        assert_eq!(
            copied.iter().filter(|reply| reply.tag == b'd').count(),
            1_000
        );
        assert_eq!(error_of(&copied)?.0, "54000");
        reached(gateway, "1000 rows")?;
        let busy = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%000000000%' AND pid <> pg_backend_pid()";
        assert_eq!(world.postgres.directly(busy)?, "0");
        is_clean(gateway)
    })
}

#[test]
fn bytes() -> Result<()> {
    with_gateway(
        "limit-bytes",
        &limited("{bytes: 100KiB}"),
        |world, gateway| {
            let mut wire = log_in(world)?;
            let replies =
                wire.query("SELECT repeat('x', 1000) FROM generate_series(1, 10000000)")?;
            let bytes: usize = replies
                .iter()
                .filter(|reply| reply.tag == b'D')
                .map(|reply| reply.body.len() + 5)
                .sum();
            assert!((90 << 10..=100 << 10).contains(&bytes), "{bytes}");
            assert_eq!(error_of(&replies)?.0, "54000");
            reached(gateway, "102400 bytes")?;
            // One row that is larger than all of it.
            let replies = wire.query("SELECT repeat('x', 30000000) FROM generate_series(1, 1)")?;
            assert!(replies.iter().all(|reply| reply.tag != b'D'));
            assert_eq!(error_of(&replies)?.0, "54000");
            assert_eq!(wire.query("SELECT 1")?.len(), 4);
            Ok(())
        },
    )
}

const CONSTANT: &str = "SELECT busy(), pg_sleep(0)";

/// It is computed when the command is bound.
const BUSY: &str = "CREATE FUNCTION busy() RETURNS int LANGUAGE plpgsql IMMUTABLE AS \
    'BEGIN PERFORM pg_sleep(120); RETURN 1; END'";

#[test]
fn duration() -> Result<()> {
    with_gateway(
        "limit-duration",
        &limited("{duration: 1s}"),
        |world, gateway| {
            world.postgres.directly(BUSY)?;
            let mut wire = log_in(world)?;
            // As psql sends it; as drivers do, whose replies the server keeps until Sync; with more
            // behind it.
            let sleep = extended("SELECT pg_sleep(120)");
            let more = [sync(), extended("SELECT 1")].concat();
            for text in [
                query("SELECT pg_sleep(120)"),
                [&sleep[..], &sync()].concat(),
                [&sleep[..], &more, &sync()].concat(),
                [&extended("SELECT 1")[..], &sleep, &sync()].concat(),
                [&extended("SELECT 1")[..], &query("SELECT pg_sleep(120)")].concat(),
                // Planning computes constants.
                [&extended("SELECT 1")[..], &extended(CONSTANT), &sync()].concat(),
            ] {
                let start = Instant::now();
                wire.limit(Duration::from_secs(20))?;
                wire.send(&text)?;
                let replies = wire.until(b'Z')?;
                assert!(start.elapsed() < Duration::from_secs(20));
                let (code, text_of) = error_of(&replies)?;
                assert_eq!(code, "54000", "{text_of}");
                assert!(text_of.contains("its limit is 1 s"), "{text_of}");
                if text.ends_with(&[&more[..], &sync()].concat()) {
                    let next = wire.until(b'Z')?;
                    assert!(next.iter().any(|reply| reply.tag == b'D'), "{next:?}");
                }
            }
            assert!(
                wire.query("SELECT pg_sleep(0)")?
                    .iter()
                    .all(|reply| reply.tag != b'E')
            );
            reached(gateway, "1 s")?;
            Ok(())
        },
    )
}

#[test]
fn rate() -> Result<()> {
    with_gateway("limit-rate", &limited("{rate: 3/h}"), |world, gateway| {
        for count in 0..5 {
            // Another connection does not begin anew.
            let replies = log_in(world)?.query("SELECT generate_series(1, 1)")?;
            match count {
                0..3 => assert!(replies.iter().all(|reply| reply.tag != b'E')),
                _ => {
                    let (code, text) = error_of(&replies)?;
                    assert_eq!(code, "54000", "{text}");
                    assert!(text.contains("3 commands an hour"), "{text}");
                }
            }
        }
        // Somebody else has a count of their own.
        let other = world.psql(From::Client).user("bob").bare();
        other.run("SELECT generate_series(1, 1)")?.success()?;
        let denied = gateway.event("command", |event| event["decision"] == "deny")?;
        assert_eq!(denied["rule"], "bound");
        reached(gateway, "3 commands an hour")?;
        Ok(())
    })
}

/// A startup packet with further parameters.
fn startup_with(parameters: &[(&str, &str)]) -> Result<Vec<u8>> {
    let mut packet = startup("wire", DATABASE);
    packet.pop();
    for (name, value) in parameters {
        packet.extend(format!("{name}\0{value}\0").bytes());
    }
    packet.push(0);
    let length = u32::try_from(packet.len())?;
    packet.splice(..4, length.to_be_bytes());
    Ok(packet)
}

const WRITER: &str = "CREATE TABLE written (id int); GRANT ALL ON written TO PUBLIC; \
    CREATE FUNCTION writes() RETURNS int LANGUAGE plpgsql SECURITY DEFINER AS \
    'BEGIN INSERT INTO written VALUES (1); RETURN 1; END'; \
    CREATE FUNCTION lifts() RETURNS text LANGUAGE sql AS \
    'SELECT set_config(''default_transaction_read_only'', ''off'', false)'";

#[test]
fn read_only() -> Result<()> {
    let body = "  match: {users: [alice, wire]}\n  then: {readOnly: true}";
    with_gateway("read-only", &rule(body), |world, gateway| {
        world.postgres.directly(WRITER)?;
        let alice = world.psql(From::Client).bare();
        assert_eq!(
            alice.run("SELECT count(*) FROM customers")?.success()?,
            "6\n"
        );
        // The server itself refuses what the gateway cannot see.
        let error = alice.run("SELECT writes()")?.failure()?;
        assert!(error.contains("read-only transaction"), "{error}");
        for text in [
            "INSERT INTO written VALUES (2)",
            "SET default_transaction_read_only = off",
            "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE",
            "BEGIN READ WRITE",
            "SELECT set_config('transaction_read_only', 'off', false)",
            "DO 'BEGIN INSERT INTO written VALUES (3); END'",
        ] {
            let error = alice.run(text)?.failure()?;
            assert!(
                error.contains("interceptor rule \"bound\""),
                "{text}: {error}"
            );
        }
        // What the client asks for at the start does not win.
        let mut wire = Wire::new(world.connect(TARGET_V4)?)?;
        wire.send(&startup_with(&[
            ("options", "-c default_transaction_read_only=off"),
            ("default_transaction_read_only", "off"),
        ])?)?;
        wire.until(b'Z')?;
        let (code, text) = error_of(&wire.query("SELECT writes()")?)?;
        assert_eq!(code, "25006", "{text}");
        // A function lifts it: the session is over before anything else runs.
        wire.send(&[query("SELECT lifts()"), query("SELECT writes()")].concat())?;
        let replies = wire.until_closed()?;
        let (_, text) = error_of(&replies)?;
        assert!(text.contains("would not stay read-only"), "{text}");
        assert_eq!(
            world.postgres.directly("SELECT count(*) FROM written")?,
            "0"
        );
        // Who is not named writes.
        let bob = world.psql(From::Client).user("bob").bare();
        bob.run("SELECT writes()")?.success()?;
        assert_eq!(
            world.postgres.directly("SELECT count(*) FROM written")?,
            "1"
        );
        let denied = gateway.event("command", |event| event["text"] == "BEGIN READ WRITE")?;
        assert_eq!(denied["rule"], "bound");
        Ok(())
    })
}

#[test]
fn masks_by_rule() -> Result<()> {
    let documents = r#"
---
kind: Mask
name: emails
spec: {columns: [public.customers.email], with: full, when: named}
---
kind: Rule
name: alice-sees-no-email
spec:
  match: {users: [alice], columnsRead: [customers.email]}
  then: {mask: [emails]}
"#;
    with_gateway("mask-by-rule", &policy(documents), |world, gateway| {
        let sql = "SELECT email FROM customers ORDER BY id LIMIT 1";
        let clear = world.postgres.directly(sql)?;
        let alice = world.psql(From::Client).bare();
        assert_eq!(alice.run(sql)?.success()?, "****\n");
        assert_eq!(
            alice
                .run("SELECT lower(c.email) FROM customers c LIMIT 1")?
                .success()?,
            "****\n"
        );
        assert_eq!(
            alice
                .run("SELECT name FROM customers ORDER BY id LIMIT 1")?
                .success()?,
            "Ada Lovelace\n"
        );
        let copied = alice.run("COPY customers (email) TO STDOUT")?.success()?;
        assert_eq!(copied, "****\n".repeat(6));
        let bob = world.psql(From::Client).user("bob").bare();
        assert_eq!(bob.run(sql)?.success()?.trim(), clear);
        let command = gateway.event("command", |event| event["text"] == sql)?;
        assert_eq!(
            command["obliged_by"],
            serde_json::json!(["alice-sees-no-email"])
        );
        let columns = command["columns_read"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        assert!(
            columns.contains(&Value::from("public.customers.email")),
            "{columns:?}"
        );
        Ok(())
    })
}

#[test]
fn terminate_and_notify() -> Result<()> {
    let documents = r#"
---
kind: ApproverGroup
name: security
spec: {uids: [0]}
---
kind: Rule
name: out
spec:
  match: {reads: [pg_authid]}
  then: {terminate: "nobody reads this", notify: [security]}
"#;
    with_gateway("terminate", &policy(documents), |world, gateway| {
        let mut wire = log_in(world)?;
        wire.send(&query("SELECT * FROM pg_authid"))?;
        let replies = wire.until_closed()?;
        let (code, text) = error_of(&replies)?;
        assert_eq!(code, "42501");
        assert!(
            text.contains("FATAL") && text.contains("nobody reads this"),
            "{text}"
        );
        let command = gateway.event("command", |event| event["decision"] == "terminate")?;
        assert_eq!(command["rule"], "out");
        let told = gateway.event("notification", |event| event["rule"] == "out")?;
        assert_eq!(told["groups"], serde_json::json!(["security"]));
        assert!(!world.postgres.has_seen("pg_authid")?);
        let log = std::fs::read_to_string(gateway.log())?;
        let line = log
            .lines()
            .find(|line| line.contains("wants somebody to know"));
        let line = line.context("nothing in the log")?;
        assert!(
            line.contains("out") && !line.contains("pg_authid"),
            "{line}"
        );
        Ok(())
    })
}

#[test]
fn escalation() -> Result<()> {
    let documents = r#"
---
kind: ApproverGroup
name: nobody-home
spec: {uids: [54321]}
---
kind: ApproverGroup
name: admins
spec: {uids: [0]}
---
kind: Rule
name: asks
spec:
  match: {statements: [DELETE]}
  then:
    hold:
      message: others look
      timeout: 1s
      group: nobody-home
      onTimeout: {escalate: {group: admins, timeout: 60s, onTimeout: deny}}
"#;
    with_gateway("escalation", &policy(documents), |world, gateway| {
        let psql = world
            .psql(From::Client)
            .start("DELETE FROM customers WHERE id = 1")?;
        let second = gateway.event("hold", |event| event["stage"] == 1)?;
        assert_eq!(second["required"], serde_json::json!(["1 of admins"]));
        gateway.event("approval", |event| event["resolution"] == "escalated")?;
        let number = gateway.held_request()?;
        assert_eq!(second["request"], number);
        gateway
            .cli(&["approvals", "approve", &number.to_string()])?
            .success()?;
        let finished = psql.wait(Duration::from_secs(20))?;
        assert!(
            finished.stderr.contains("by 1 of admins"),
            "{}",
            finished.stderr
        );
        assert_eq!(finished.success()?, "DELETE 1\n");
        Ok(())
    })
}

#[test]
fn automatic() -> Result<()> {
    let documents = |table: &str| {
        policy(&format!(
            r#"
---
kind: Rule
name: asks
spec:
  match: {{statements: [DELETE]}}
  then:
    hold:
      message: wait
      timeout: 1s
      onTimeout: {{automatic: "'{table}' in statement.writes"}}
"#
        ))
    };
    with_gateway(
        "automatic",
        &documents("public.customers"),
        |world, gateway| {
            let psql = world.psql(From::Client);
            assert_eq!(
                psql.run("DELETE FROM customers WHERE id = 1")?.success()?,
                "DELETE 1\n"
            );
            gateway.event("approval", |event| event["resolution"] == "automatic")?;
            psql.run("DELETE FROM orders")?.failure()?;
            gateway.event("approval", |event| event["resolution"] == "timed_out")?;
            Ok(())
        },
    )
}

#[test]
fn windows_of_time() -> Result<()> {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)?
        .as_secs();
    let clock = |seconds: u64| format!("{:02}:{:02}", seconds / 3_600 % 24, seconds / 60 % 60);
    // Around now, and over: both wrap past midnight if they have to.
    let now = (clock(since + 86_400 - 3_600), clock(since + 3_600));
    let over = (clock(since + 86_400 - 7_200), clock(since + 86_400 - 3_600));
    let rule = |name: &str, kind: &str, (from, to): (String, String)| {
        format!(
            "---\nkind: Rule\nname: {name}\nspec:\n  match: {{statements: [{kind}], times: [{{from: \"{from}\", to: \"{to}\", zone: UTC}}]}}\n  then: {{deny: closed}}\n"
        )
    };
    let documents = format!(
        "{}{}",
        rule("now", "DELETE", now),
        rule("over", "UPDATE", over)
    );
    with_gateway("times", &policy(&documents), |world, _| {
        let psql = world.psql(From::Client);
        let error = psql.run("DELETE FROM customers WHERE id = 1")?.failure()?;
        assert!(error.contains("rule \"now\": closed"), "{error}");
        psql.run("UPDATE customers SET name = name WHERE id = 1")?
            .success()?;
        Ok(())
    })
}

#[test]
fn estimated_rows() -> Result<()> {
    let body = "  match: {estimatedRows: {over: 5000}}\n  then: {deny: large}";
    with_gateway("estimates", &rule(body), |world, gateway| {
        world.postgres.directly(
            "CREATE TABLE large AS SELECT generate_series(1, 20000) AS id; \
             CREATE VIEW through AS SELECT id FROM large; \
             CREATE TABLE unknown (id int); GRANT SELECT ON large, through, unknown TO PUBLIC; \
             ANALYZE large; ANALYZE customers",
        )?;
        let psql = world.psql(From::Client).bare();
        assert_eq!(
            psql.run("SELECT count(*) FROM customers")?.success()?,
            "6\n"
        );
        assert_eq!(psql.run("SELECT 1")?.success()?, "1\n");
        for table in ["large", "through", "unknown"] {
            let error = psql
                .run(&format!("SELECT count(*) FROM {table}"))?
                .failure()?;
            assert!(error.contains("rule \"bound\": large"), "{table}: {error}");
        }
        let command = gateway.event("command", |event| {
            event["text"] == "SELECT count(*) FROM large"
        })?;
        assert_eq!(command["estimated_rows"], 20_000);
        Ok(())
    })
}
