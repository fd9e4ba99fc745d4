//! Bytes that no client sends: the session ends with a clear error, and only that session.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use interceptor_tests::policies::SHOP;
use interceptor_tests::wire::{Wire, message, query, startup};
use interceptor_tests::world::TARGET_V4;
use interceptor_tests::{From, Gateway, World, with_gateway};

/// The gateway still carries others.
fn still_works(world: &World, gateway: &mut Gateway<'_>, after: &str) -> Result<()> {
    assert!(gateway.is_alive()?, "dead after {after}");
    let row = world.psql(From::Client).bare().run("SELECT 1")?;
    assert_eq!(row.success()?, "1\n", "after {after}");
    Ok(())
}

/// Violations that the log holds.
fn violations(gateway: &Gateway<'_>) -> Result<usize> {
    let events = gateway.events(1000)?;
    let violation = |event: &&serde_json::Value| {
        event.get("kind").is_some_and(|kind| kind == "close")
            && event
                .get("violation")
                .is_some_and(|violation| violation == true)
    };
    Ok(events.iter().filter(violation).count())
}

fn a_violation_more(gateway: &Gateway<'_>, before: usize, after: &str) -> Result<()> {
    interceptor_tests::wait_until(
        &format!("the log holds the violation: {after}"),
        Duration::from_secs(5),
        || Ok(violations(gateway)? > before),
    )
}

#[test]
fn before_the_login() -> Result<()> {
    with_gateway("hostile-startup", SHOP, |world, gateway| {
        let huge = [0x7f, 0xff, 0xff, 0xff, 0, 3, 0, 0].to_vec();
        let unterminated = {
            let mut bytes = startup("wire", "shop");
            bytes.pop();
            bytes.pop();
            let length = u32::try_from(bytes.len())?.to_be_bytes();
            bytes.splice(0..4, length);
            bytes
        };
        for (what, bytes) in [
            ("HTTP", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()),
            ("a length of two gigabytes", huge),
            ("a length below its own size", vec![0, 0, 0, 3, 0, 3, 0, 0]),
            ("a version of the past", vec![0, 0, 0, 8, 0, 2, 0, 0]),
            ("an unterminated parameter", unterminated),
            ("zeros", vec![0; 64]),
        ] {
            let before = violations(gateway)?;
            let mut wire = Wire::new(world.connect(TARGET_V4)?)?;
            wire.send(&bytes)?;
            let replies = wire.until_closed().context(what)?;
            assert!(
                replies.iter().all(|reply| reply.tag == b'E'),
                "{what}: {replies:?}"
            );
            a_violation_more(gateway, before, what)?;
            still_works(world, gateway, what)?;
        }
        Ok(())
    })
}

#[test]
fn after_the_login() -> Result<()> {
    with_gateway("hostile-messages", SHOP, |world, gateway| {
        for (what, bytes) in [
            (
                "a length of two gigabytes",
                vec![b'Q', 0x7f, 0xff, 0xff, 0xff, b'x'],
            ),
            (
                "a length of four gigabytes",
                vec![b'Q', 0xff, 0xff, 0xff, 0xff, b'x'],
            ),
            ("a length below its own size", vec![b'Q', 0, 0, 0, 3]),
            ("an unknown type", message(0xfe, b"what?")),
            ("a message of the server", message(b'T', b"\0\0")),
            ("a query without an end", message(b'Q', b"SELECT 1")),
            (
                "a query with two ends",
                message(b'Q', b"SELECT 1\0SELECT 2\0"),
            ),
            (
                "text that is not UTF-8",
                message(b'Q', b"SELECT '\xff\xfe'\0"),
            ),
            ("a cut Parse", message(b'P', b"\0SELECT 1\0\0\x05\0\0")),
            ("a cut Bind", message(b'B', b"\0\0\0\x01")),
            (
                "a Bind with a length of -2",
                message(b'B', b"\0\0\0\0\0\x01\xff\xff\xff\xfe\0\0"),
            ),
            ("a Describe of nothing", message(b'D', b"X\0")),
            (
                "an Execute with more behind it",
                message(b'E', b"\0\0\0\0\0extra"),
            ),
            (
                "a password, long after the login",
                message(b'p', b"secret\0"),
            ),
            ("COPY data out of the blue", message(b'd', b"1\n")),
        ] {
            let mut wire = Wire::new(world.connect(TARGET_V4)?)?;
            wire.log_in()?;
            wire.send(&bytes)?;
            // Some of it the protocol asks to be answered or ignored: then the session goes on.
            let ended = wire.send(&query("SELECT 'alive'")).is_err() || ends(&mut wire)?;
            if ended {
                gateway.event("close", |event| event["violation"] == true)?;
            }
            assert!(
                ended || what.contains("UTF-8") || what.contains("blue"),
                "{what} passed"
            );
            still_works(world, gateway, what)?;
        }
        Ok(())
    })
}

/// True if the session ends, false if it answers the query that was sent behind.
fn ends(wire: &mut Wire) -> Result<bool> {
    loop {
        match wire.reply() {
            Ok(Some(reply)) if reply.tag == b'D' => return Ok(false),
            Ok(Some(_)) => {}
            Ok(None) => return Ok(true),
            Err(error) if error.to_string().contains("no reply") => return Ok(true),
            Err(error) => return Err(error),
        }
    }
}

#[test]
fn halves() -> Result<()> {
    with_gateway("hostile-halves", SHOP, |world, gateway| {
        for cut in [0, 1, 4, 7, 12] {
            let mut wire = Wire::new(world.connect(TARGET_V4)?)?;
            wire.send(startup("wire", "shop").get(..cut).unwrap_or_default())?;
            drop(wire);
        }
        for cut in [1, 4, 5, 9] {
            let mut wire = Wire::new(world.connect(TARGET_V4)?)?;
            wire.log_in()?;
            wire.send(query("SELECT 'half'").get(..cut).unwrap_or_default())?;
            drop(wire);
        }
        interceptor_tests::wait_until("the halves are gone", Duration::from_secs(5), || {
            Ok(gateway.sessions()?.is_empty())
        })?;
        assert!(!world.postgres.has_seen("'half'")?);
        still_works(world, gateway, "halves")
    })
}

#[test]
fn a_login_that_never_ends() -> Result<()> {
    // The server's own patience is a minute.
    const LIMIT: Duration = Duration::from_secs(65);
    with_gateway("hostile-slow", SHOP, |world, gateway| {
        let start = Instant::now();
        let mut silent = Wire::new(world.connect(TARGET_V4)?)?;
        let mut half = Wire::new(world.connect(TARGET_V4)?)?;
        half.send(&startup("wire", "shop")[..10])?;
        for wire in [&mut silent, &mut half] {
            wire.limit(LIMIT)?;
            wire.until_closed()?;
        }
        assert!(start.elapsed() < LIMIT, "{:?}", start.elapsed());
        still_works(world, gateway, "a slow login")
    })
}

#[test]
fn deep_nesting() -> Result<()> {
    with_gateway("hostile-depth", SHOP, |world, gateway| {
        for (what, sql) in [
            (
                "parentheses",
                format!("SELECT {}1{}", "(".repeat(50_000), ")".repeat(50_000)),
            ),
            ("NOT", format!("SELECT {} true", "NOT ".repeat(50_000))),
            ("minus", format!("SELECT {}1", "- ".repeat(50_000))),
            (
                "subqueries",
                format!("{}SELECT 1{}", "SELECT (".repeat(5_000), ")".repeat(5_000)),
            ),
            (
                "arrays",
                format!("SELECT {}1{}", "ARRAY[".repeat(20_000), "]".repeat(20_000)),
            ),
            ("plus", format!("SELECT 1{}", " + 1".repeat(100_000))),
            (
                "cases",
                format!(
                    "SELECT {}1{}",
                    "CASE WHEN true THEN ".repeat(10_000),
                    " END".repeat(10_000)
                ),
            ),
        ] {
            let mut wire = Wire::new(world.connect(TARGET_V4)?)?;
            wire.limit(Duration::from_secs(30))?;
            wire.log_in()?;
            wire.send(&query(&sql))?;
            let replies = wire.until(b'Z').context(what)?;
            assert!(!replies.is_empty(), "{what}");
            still_works(world, gateway, what)?;
        }
        Ok(())
    })
}
