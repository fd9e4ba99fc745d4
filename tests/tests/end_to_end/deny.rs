//! A refused command: a clear error, a session that goes on, and a target that saw nothing.

use crate::support::{block_on, driver};
use anyhow::Result;
use interceptor_tests::policies::SHOP;
use interceptor_tests::wire::{Reply, Wire, extended, sync};
use interceptor_tests::world::TARGET_V4;
use interceptor_tests::{From, with_gateway};
use tokio_postgres::error::SqlState;

fn error(replies: &[Reply]) -> Option<&Reply> {
    replies.iter().find(|reply| reply.tag == b'E')
}

fn tags(replies: &[Reply]) -> String {
    replies.iter().map(|reply| char::from(reply.tag)).collect()
}

#[test]
fn names_its_rule_and_leaves_the_session_usable() -> Result<()> {
    with_gateway("deny-simple", SHOP, |world, gateway| {
        let mut wire = Wire::new(world.connect(TARGET_V4)?)?;
        wire.log_in()?;
        let replies = wire.query("DROP TABLE orders")?;
        assert_eq!(tags(&replies), "EZ");
        let refusal = error(&replies).expect("an error");
        assert_eq!(refusal.field(b'C').as_deref(), Some("42501"));
        assert_eq!(refusal.field(b'S').as_deref(), Some("ERROR"));
        let text = refusal.text();
        assert!(text.contains("no-drop"), "{text}");
        assert!(
            text.contains("tables are dropped by migrations only"),
            "{text}"
        );

        assert_eq!(tags(&wire.query("SELECT 1")?), "TDCZ");
        assert!(!world.postgres.has_seen("DROP TABLE")?);
        let event = gateway.event("command", |event| event["decision"] == "deny")?;
        assert_eq!(event["rule"], "no-drop");
        assert_eq!(event["text"], "DROP TABLE orders");
        let source = event["rule_source"].as_str().unwrap_or_default();
        assert!(source.contains("policy.yaml:"), "{source}");
        Ok(())
    })
}

#[test]
fn aborts_the_transaction_as_the_server_would() -> Result<()> {
    with_gateway("deny-transaction", SHOP, |world, _| {
        let mut wire = Wire::new(world.connect(TARGET_V4)?)?;
        wire.log_in()?;
        wire.query("BEGIN")?;
        wire.query("INSERT INTO orders VALUES (1000, 1, 'lost', 1, now())")?;
        let replies = wire.query("DROP TABLE orders")?;
        assert_eq!(
            replies.last().map(|ready| ready.body.as_slice()),
            Some(&b"E"[..])
        );

        let after = wire.query("SELECT 1")?;
        assert_eq!(
            error(&after).and_then(|reply| reply.field(b'C')).as_deref(),
            Some("25P02")
        );
        let commit = wire.query("COMMIT")?;
        assert!(commit[0].text().starts_with("ROLLBACK"), "{commit:?}");
        assert_eq!(
            world
                .postgres
                .directly("SELECT count(*) FROM orders WHERE id = 1000")?,
            "0"
        );
        assert!(!world.postgres.has_seen("DROP TABLE")?);
        Ok(())
    })
}

#[test]
fn stands_in_its_place_in_a_pipeline() -> Result<()> {
    with_gateway("deny-pipeline", SHOP, |world, _| {
        let mut wire = Wire::new(world.connect(TARGET_V4)?)?;
        wire.log_in()?;
        let batch = [
            extended("SELECT 'before'"),
            extended("DROP TABLE orders"),
            extended("SELECT 'after'"),
            sync(),
            extended("SELECT 'next batch'"),
            sync(),
        ];
        wire.send(&batch.concat())?;
        let first = wire.until(b'Z')?;
        assert!(
            first
                .iter()
                .any(|reply| reply.tag == b'D' && reply.text().contains("before"))
        );
        let refusal = error(&first).and_then(|reply| reply.field(b'C'));
        assert_eq!(refusal.as_deref(), Some("42501"));
        assert!(!first.iter().any(|reply| reply.text().contains("after")));
        let second = wire.until(b'Z')?;
        assert!(
            second
                .iter()
                .any(|reply| reply.text().contains("next batch"))
        );
        assert!(!world.postgres.has_seen("DROP TABLE")?);
        assert!(!world.postgres.has_seen("'after'")?);
        Ok(())
    })
}

#[test]
fn takes_a_query_of_many_statements_as_one() -> Result<()> {
    with_gateway("deny-many", SHOP, |world, _| {
        let mut wire = Wire::new(world.connect(TARGET_V4)?)?;
        wire.log_in()?;
        let sql = "INSERT INTO orders VALUES (1001, 1, 'lost', 1, now()); DROP TABLE orders";
        assert_eq!(tags(&wire.query(sql)?), "EZ");
        assert!(!world.postgres.has_seen("1001")?);
        Ok(())
    })
}

#[test]
fn reaches_a_driver_as_an_ordinary_error() -> Result<()> {
    with_gateway("deny-driver", SHOP, |world, _| {
        block_on(async {
            let client = driver(world, TARGET_V4, "alice").await?;
            let refusal = client.execute("TRUNCATE orders CASCADE", &[]).await;
            let code = refusal.as_ref().err().and_then(|error| error.code());
            assert_eq!(code, Some(&SqlState::INSUFFICIENT_PRIVILEGE));
            let count = client.query_one("SELECT count(*) FROM orders", &[]).await?;
            assert_eq!(count.get::<_, i64>(0), 60);
            Ok(())
        })
    })
}

#[test]
fn is_not_talked_around() -> Result<()> {
    with_gateway("deny-evasion", SHOP, |world, _| {
        let psql = world.psql(From::Client);
        for sql in [
            "drop/**/table\torders",
            "/* SELECT */ DROP TABLE IF EXISTS public.orders CASCADE",
            "SELECT 1; DROP TABLE orders",
            "DO $$ BEGIN EXECUTE 'DROP TABLE orders'; END $$",
            "PREPARE x AS SELECT 1; DROP TABLE orders",
            "SELECT E'\\''; DROP TABLE orders; --'",
            "CREATE FUNCTION f() RETURNS void LANGUAGE sql AS 'DROP TABLE orders'; SELECT f()",
            "EXPLAIN ANALYZE DELETE FROM no_such_table",
            "BEGIN; TRUNCATE orders CASCADE; COMMIT",
        ] {
            // What is held instead of refused is given up at once: either is right.
            let mut attempt = psql.start(sql)?;
            let end = std::time::Instant::now() + std::time::Duration::from_secs(2);
            while !attempt.has_ended()? && std::time::Instant::now() < end {
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            drop(attempt);
            let left = world.postgres.directly("SELECT count(*) FROM orders")?;
            assert_eq!(left, "60", "{sql}");
        }
        assert!(!world.postgres.has_seen("DROP TABLE")?);
        Ok(())
    })
}
