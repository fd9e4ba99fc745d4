//! Versions of the protocol, and of the server.

use std::time::Duration;

use anyhow::{Result, ensure};
use interceptor_tests::messages::startup;
use interceptor_tests::policies::{OPEN, SHOP};
use interceptor_tests::postgres::Version;
use interceptor_tests::wire::{Reply, Wire, cancel, query};
use interceptor_tests::world::{TARGET_V4, TARGET_V6, UNNAMED_V4};
use interceptor_tests::{From, wait_until, with_gateway_of};
use nix::sys::signal::Signal;

/// Both versions of the protocol carry the same rows, are refused alike and can be cancelled.
#[test]
fn eighteen_speaks_both_protocols() -> Result<()> {
    with_gateway_of(Version::Eighteen, "ver-18", SHOP, |world, _| {
        for protocol in ["3.0", "3.2"] {
            let psql = world.psql(From::Client).speaking(protocol);
            let row = psql
                .clone()
                .bare()
                .run("SELECT current_setting('server_version_num')::int / 10000, email FROM customers WHERE id = 1")?
                .success()?;
            assert_eq!(row, "18|****\n");
            let direct = psql.clone().host(UNNAMED_V4);
            let script = "\\d orders\nSELECT * FROM orders ORDER BY id;\nSELECT 1 / 0;\n";
            assert_eq!(psql.script(script)?.stdout, direct.script(script)?.stdout);
            let refused = psql.run("DROP TABLE orders")?.failure()?;
            assert!(refused.contains("interceptor"), "{refused}");

            let seconds = if protocol == "3.0" { 61 } else { 62 };
            let sleep = format!("SELECT pg_sleep({seconds})");
            let running = psql.start(&sleep)?;
            wait_until("the query runs", Duration::from_secs(20), || {
                world.postgres.has_seen(&sleep)
            })?;
            running.signal(Signal::SIGINT)?;
            let error = running.wait(Duration::from_secs(20))?.failure()?;
            ensure!(error.contains("due to user request"), "{error}");
        }
        Ok(())
    })
}

/// What a server says first, and the length of the key that it gives.
fn greeting(wire: &mut Wire, minor: u16, extension: &str) -> Result<(Vec<Reply>, usize)> {
    let mut parameters = vec![("user", "wire"), ("database", "shop")];
    if !extension.is_empty() {
        parameters.push((extension, ""));
    }
    wire.send(&startup(minor, &parameters))?;
    let mut replies = wire.until(b'Z')?;
    let key = replies.iter().find(|reply| reply.tag == b'K');
    let length = key.map_or(0, |key| key.body.len().saturating_sub(4));
    replies.retain(|reply| matches!(reply.tag, b'v' | b'R' | b'E'));
    Ok((replies, length))
}

/// Coming clients ask for a version that there is not, and for an extension that nobody knows.
#[test]
fn a_probe_is_answered_as_the_server_would() -> Result<()> {
    for (version, name) in [
        (Version::Debian, "ver-probe-15"),
        (Version::Eighteen, "ver-probe-18"),
    ] {
        with_gateway_of(version, name, OPEN, |world, _| {
            for (minor, extension) in [
                (0, ""),
                (2, ""),
                (9999, "_pq_.test_protocol_negotiation"),
                (0, "_pq_.unknown"),
            ] {
                let mut answers = Vec::new();
                for host in [TARGET_V4, UNNAMED_V4] {
                    let mut wire = Wire::new(world.connect(host)?)?;
                    answers.push(greeting(&mut wire, minor, extension)?);
                }
                let (ours, theirs) = (&answers[0], &answers[1]);
                assert_eq!(ours, theirs, "{minor} {extension} on {version:?}");
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// A second target at another address of the same server.
const TWO: &str = r#"
kind: Target
name: orders
spec: {protocol: postgres, endpoints: ["10.77.2.2:5432"], default: allow}
---
kind: Target
name: others
spec: {protocol: postgres, endpoints: ["[fd77:2::2]:5432"], default: allow}
"#;

#[test]
fn a_key_cancels_at_its_own_target_and_as_a_whole() -> Result<()> {
    with_gateway_of(Version::Eighteen, "ver-keys", TWO, |world, _| {
        let mut wire = Wire::new(world.connect(TARGET_V4)?)?;
        wire.limit(Duration::from_secs(20))?;
        wire.send(&startup(2, &[("user", "wire"), ("database", "shop")]))?;
        let hello = wire.until(b'Z')?;
        let key = hello.iter().find(|reply| reply.tag == b'K').expect("a key");
        assert_eq!(key.body.len(), 4 + 32, "a key of protocol 3.2");
        wire.send(&query("SELECT pg_sleep(3), 'slept'"))?;
        wait_until("the query runs", Duration::from_secs(20), || {
            world.postgres.has_seen("slept")
        })?;
        let ask = |address: std::net::IpAddr, key: &Reply| -> Result<()> {
            let mut other = Wire::new(world.connect(address)?)?;
            other.send(&cancel(key))?;
            ensure!(
                other.until_closed()?.is_empty(),
                "a cancel request is not answered"
            );
            Ok(())
        };
        let mut wrong = key.clone();
        if let Some(last) = wrong.body.last_mut() {
            *last ^= 1;
        }
        let mut short = key.clone();
        short.body.truncate(8);
        ask(TARGET_V4.into(), &wrong)?;
        ask(TARGET_V4.into(), &short)?;
        ask(TARGET_V6.into(), key)?;
        let slept = wire.until(b'Z')?;
        assert!(slept.iter().any(|reply| reply.tag == b'D'), "{slept:?}");

        wire.send(&query("SELECT pg_sleep(60), 'cancelled'"))?;
        wait_until("the query runs", Duration::from_secs(20), || {
            world.postgres.has_seen("cancelled")
        })?;
        ask(TARGET_V4.into(), key)?;
        let cancelled = wire.until(b'Z')?;
        assert!(
            cancelled
                .iter()
                .any(|reply| reply.field(b'C').as_deref() == Some("57014"))
        );
        Ok(())
    })
}
