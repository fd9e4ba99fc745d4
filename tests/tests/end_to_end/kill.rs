//! `interceptor sessions kill`: whatever a session is doing, it ends on both sides within a second,
//! and it is on record who did it.
#![allow(clippy::panic, reason = "a test's helpers may fail by panicking")]

use std::io::Read as _;
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use interceptor_tests::policies::SHOP;
use interceptor_tests::wire::{Reply, Wire, query};
use interceptor_tests::world::TARGET_V4;
use interceptor_tests::{Gateway, World, wait_until, with_gateway};
use serde_json::Value;

/// From the command to the end, on both sides. Loaded machines are slow to start a command, so the
/// clock starts when the kill is on record.
const AT_ONCE: Duration = Duration::from_secs(1);
const LIMIT: Duration = Duration::from_secs(30);

/// A client that has logged in, and its session's id.
fn log_in(world: &World, gateway: &Gateway<'_>) -> Result<(Wire, String)> {
    let mut wire = Wire::new(world.connect(TARGET_V4)?)?;
    wire.log_in()?;
    wire.limit(LIMIT)?;
    Ok((wire, only_session(gateway)?))
}

fn only_session(gateway: &Gateway<'_>) -> Result<String> {
    let mut id = None;
    wait_until("there is one session", LIMIT, || {
        id = match gateway.sessions()?.as_slice() {
            [one] => one["id"].as_str().map(str::to_owned),
            _ => None,
        };
        Ok(id.is_some())
    })?;
    id.context("no session")
}

/// What the target's server still does for the client.
fn at_the_target(world: &World) -> Result<String> {
    world.postgres.directly(
        "SELECT state, query FROM pg_stat_activity WHERE usename = 'wire' AND backend_type = 'client backend'",
    )
}

/// Kills the session, and checks that it is over on the target's side and in the gateway.
fn kill(world: &World, gateway: &Gateway<'_>, id: &str) -> Result<()> {
    let killed = gateway.cli(&["sessions", "kill", id, "--reason", "it runs away"])?;
    let start = Instant::now();
    let words = killed.success()?;
    assert_eq!(words, format!("session {id} killed\n"));
    wait_until("the target has no session", LIMIT, || {
        Ok(at_the_target(world)?.is_empty())
    })?;
    wait_until("the gateway has no session", LIMIT, || {
        Ok(gateway.sessions()?.is_empty())
    })?;
    let elapsed = start.elapsed();
    assert!(elapsed < AT_ONCE, "{elapsed:?}");
    let reason = "killed by root (uid 0): it runs away";
    let events = gateway.events(50)?;
    let place = |kind: &str, fits: &dyn Fn(&Value) -> bool| {
        events
            .iter()
            .position(|event| event["kind"] == kind && event["session"] == id && fits(event))
            .with_context(|| format!("no {kind} in {events:?}"))
    };
    let asked = place("administration", &|event| {
        let action = format!("kill session {id}: it runs away");
        event["by"] == "root (uid 0)" && event["action"] == action
    })?;
    let closed = place("close", &|event| event["reason"] == reason)?;
    assert!(asked < closed, "it ended before it was on record");
    Ok(())
}

/// The client's last words: who, why, and the code that drivers know.
fn told(replies: &[Reply]) {
    let error = replies.iter().find(|reply| reply.tag == b'E');
    let error = error.unwrap_or_else(|| panic!("no error in {replies:?}"));
    assert_eq!(error.field(b'C').as_deref(), Some("57P01"));
    assert_eq!(error.field(b'S').as_deref(), Some("FATAL"));
    let text = error.field(b'M').unwrap_or_default();
    let words = "terminating connection: killed by root (uid 0): it runs away";
    assert_eq!(text, words);
}

#[test]
fn an_idle_session() -> Result<()> {
    with_gateway("kill-idle", SHOP, |world, gateway| {
        let (mut wire, id) = log_in(world, gateway)?;
        kill(world, gateway, &id)?;
        told(&wire.until_closed()?);
        Ok(())
    })
}

#[test]
fn a_running_query() -> Result<()> {
    with_gateway("kill-query", SHOP, |world, gateway| {
        let (mut wire, id) = log_in(world, gateway)?;
        // The second must not run when the first is cancelled.
        wire.send(&[query("SELECT pg_sleep(600)"), query("SELECT pg_sleep(601)")].concat())?;
        wait_until("the query runs", LIMIT, || {
            Ok(at_the_target(world)?.contains("pg_sleep(600)"))
        })?;
        kill(world, gateway, &id)?;
        told(&wire.until_closed()?);
        // Nor later.
        std::thread::sleep(Duration::from_millis(500));
        assert_eq!(at_the_target(world)?, "");
        Ok(())
    })
}

#[test]
fn a_query_that_has_only_just_been_sent() -> Result<()> {
    with_gateway("kill-race", SHOP, |world, gateway| {
        for round in 0..5 {
            let (mut wire, id) = log_in(world, gateway)?;
            wire.send(&query(&format!("SELECT pg_sleep(600 + {round})")))?;
            kill(world, gateway, &id)?;
            told(&wire.until_closed()?);
        }
        Ok(())
    })
}

#[test]
fn a_command_that_is_held() -> Result<()> {
    with_gateway("kill-held", SHOP, |world, gateway| {
        let (mut wire, id) = log_in(world, gateway)?;
        wire.send(&query("DELETE FROM customers"))?;
        let number = gateway.held_request()?.to_string();
        kill(world, gateway, &id)?;
        told(&wire.until_closed()?);
        gateway.cli(&["approvals", "approve", &number])?.failure()?;
        assert!(!world.postgres.has_seen("DELETE FROM customers")?);
        gateway.event("approval", |event| event["resolution"] == "session_ended")?;
        Ok(())
    })
}

#[test]
fn copies_in_and_out() -> Result<()> {
    with_gateway("kill-copy", SHOP, |world, gateway| {
        let (mut wire, id) = log_in(world, gateway)?;
        wire.query("CREATE TEMP TABLE t (x text)")?;
        wire.send(&query("COPY t FROM STDIN"))?;
        wire.until(b'G')?;
        kill(world, gateway, &id)?;
        told(&wire.until_closed()?);

        let (mut wire, id) = log_in(world, gateway)?;
        wire.send(&query(
            "COPY (SELECT repeat('x', 1000) FROM generate_series(1, 10000000)) TO STDOUT",
        ))?;
        wire.until(b'H')?;
        // Nobody reads: the bytes pile up to the target, and the words cannot get through.
        std::thread::sleep(Duration::from_secs(1));
        kill(world, gateway, &id)
    })
}

#[test]
fn a_client_that_does_not_read() -> Result<()> {
    with_gateway("kill-blocked", SHOP, |world, gateway| {
        let (mut wire, id) = log_in(world, gateway)?;
        wire.send(&query(
            "SELECT repeat('x', 1 << 20) FROM generate_series(1, 1000)",
        ))?;
        std::thread::sleep(Duration::from_secs(1));
        assert!(at_the_target(world)?.contains("generate_series"));
        kill(world, gateway, &id)
    })
}

#[test]
fn before_the_login() -> Result<()> {
    with_gateway("kill-startup", SHOP, |world, gateway| {
        let mut wire = Wire::new(world.connect(TARGET_V4)?)?;
        wire.limit(LIMIT)?;
        let id = only_session(gateway)?;
        kill(world, gateway, &id)?;
        told(&wire.until_closed()?);

        // In the middle of it: the server waits for a password.
        let mut wire = Wire::new(world.connect(TARGET_V4)?)?;
        wire.limit(LIMIT)?;
        wire.send(&interceptor_tests::wire::startup(
            "alice",
            interceptor_tests::postgres::DATABASE,
        ))?;
        wire.until(b'R')?;
        let id = only_session(gateway)?;
        kill(world, gateway, &id)?;
        told(&wire.until_closed()?);
        Ok(())
    })
}

/// The client is reset, and so is the target.
#[test]
fn a_connection_that_passes_through() -> Result<()> {
    const PASS: &str = r#"
kind: Target
name: any
spec: {protocol: tcp, endpoints: ["10.77.2.2:7000"]}
---
kind: Rule
name: any-may-pass
spec:
  match: {statements: [CONNECT]}
  then: allow
"#;
    fn is_reset(stream: &mut TcpStream) -> bool {
        stream
            .read(&mut [0])
            .is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset)
    }
    with_gateway("kill-tcp", PASS, |world, gateway| {
        let listener = world
            .target
            .enter(|| TcpListener::bind((TARGET_V4, 7000)))??;
        let mut client = world
            .client
            .enter(|| TcpStream::connect((TARGET_V4, 7000)))??;
        let (mut server, _) = listener.accept()?;
        for stream in [&client, &server] {
            stream.set_read_timeout(Some(LIMIT))?;
        }
        let id = only_session(gateway)?;
        kill(world, gateway, &id)?;
        assert!(is_reset(&mut client), "the client saw no reset");
        assert!(is_reset(&mut server), "the target saw no reset");
        Ok(())
    })
}

#[test]
fn which_one_is_meant() -> Result<()> {
    with_gateway("kill-which", SHOP, |world, gateway| {
        let (mut one, first) = log_in(world, gateway)?;
        let mut other = Wire::new(world.connect(TARGET_V4)?)?;
        other.log_in()?;
        let kill =
            |id: &str, more: &[&str]| gateway.cli(&[&["sessions", "kill", id], more].concat());
        // Both began in the same age.
        let error = kill(&first[..4], &[])?;
        assert_eq!(error.status.code(), Some(1));
        let error = error.failure()?;
        assert!(error.contains("is the start of 2 sessions"), "{error}");
        for nobody in ["4711", ""] {
            let error = kill(nobody, &[])?.failure()?;
            assert!(error.contains("there is no open session"), "{error}");
            assert!(error.contains("sessions list"), "{error}");
        }
        let error = kill(&first, &["--reason", "a\nb"])?.failure()?;
        assert!(error.contains("control characters"), "{error}");
        let events = gateway.events(50)?;
        assert!(events.iter().all(|event| event["kind"] != "administration"));

        let start = first.len() - 1;
        let answer = kill(&first[..start].to_uppercase(), &["--json"])?.success()?;
        let answer: Value = serde_json::from_str(&answer)?;
        assert_eq!(answer["session"], first.as_str());
        let replies = one.until_closed()?;
        let error = replies.iter().find(|reply| reply.tag == b'E');
        let text = error
            .and_then(|error| error.field(b'M'))
            .unwrap_or_default();
        assert_eq!(text, "terminating connection: killed by root (uid 0)");
        assert_eq!(other.query("SELECT 1")?.len(), 4, "the other was hit");
        kill(&first, &[])?.failure()?;
        Ok(())
    })
}
