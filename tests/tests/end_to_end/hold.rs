//! A held command: it waits for a person, ends in one way only, and reaches the target in one.

use std::time::{Duration, Instant};

use crate::support::{block_on, driver};
use anyhow::Result;
use interceptor_tests::policies::SHOP;
use interceptor_tests::wire::{Wire, cancel, execute, extended, message, parse, query, sync};
use interceptor_tests::world::TARGET_V4;
use interceptor_tests::{From, Gateway, World, wait_until, with_gateway};
use nix::sys::signal::Signal;
use tokio_postgres::types::ToSql;

const LIMIT: Duration = Duration::from_secs(10);

fn resolution(gateway: &Gateway<'_>, wanted: &str) -> Result<serde_json::Value> {
    gateway.event("approval", |event| {
        event.get("resolution").is_some_and(|end| end == wanted)
    })
}

fn customers(world: &World) -> Result<String> {
    world.postgres.directly("SELECT count(*) FROM customers")
}

#[test]
fn approved_it_goes_on() -> Result<()> {
    with_gateway("hold-approve", SHOP, |world, gateway| {
        let psql = world
            .psql(From::Client)
            .start("DELETE FROM customers WHERE id = 1")?;
        let number = gateway.held_request()?.to_string();
        assert!(!world.postgres.has_seen("DELETE FROM customers")?);
        let shown = gateway.cli(&["approvals", "show", &number])?.success()?;
        assert!(
            shown.contains("DELETE FROM customers WHERE id = 1"),
            "{shown}"
        );
        assert!(
            shown.contains("alice") && shown.contains("10.77.1.2"),
            "{shown}"
        );

        gateway
            .cli(&["approvals", "approve", &number, "--reason", "change 4711"])?
            .success()?;
        let finished = psql.wait(LIMIT)?;
        assert!(finished.stderr.contains("NOTICE"), "{}", finished.stderr);
        assert_eq!(finished.success()?, "DELETE 1\n");
        assert_eq!(customers(world)?, "5");

        let approval = resolution(gateway, "approved")?;
        assert_eq!(approval["reason"], "change 4711");
        assert_eq!(approval["by"], "root (uid 0)");
        // Once is once.
        gateway.cli(&["approvals", "approve", &number])?.failure()?;
        let again = world
            .psql(From::Client)
            .start("DELETE FROM customers WHERE id = 1")?;
        assert_ne!(gateway.held_request()?.to_string(), number);
        drop(again);
        Ok(())
    })
}

/// Whoever approves must not take the start of a command for the whole of it.
#[test]
fn what_is_not_shown_is_said() -> Result<()> {
    with_gateway("hold-long", SHOP, |world, gateway| {
        let shown = |number: u64| -> Result<String> {
            gateway
                .cli(&["approvals", "show", &number.to_string()])?
                .success()
        };
        let mut wire = Wire::new(world.connect(TARGET_V4)?)?;
        wire.log_in()?;
        let spaces = " ".repeat(1 << 20);
        wire.send(&query(&format!(
            "DELETE FROM customers WHERE id = 1{spaces}OR true"
        )))?;
        let number = gateway.held_request()?;
        let text = shown(number)?;
        // 34 characters before the spaces and 7 after them, of which 65,536 are shown.
        assert!(
            text.contains("… (983081 more bytes are not shown)"),
            "{}",
            text.get(text.len().saturating_sub(200)..).unwrap_or(&text)
        );
        // A reason is read in the client's terminal.
        let number = number.to_string();
        let error = gateway
            .cli(&["approvals", "deny", &number, "--reason", "no\u{1b}[2J"])?
            .failure()?;
        assert!(error.contains("control characters"), "{error}");
        gateway
            .cli(&["approvals", "deny", &number, "--reason", "no"])?
            .success()?;
        wire.until(b'Z')?;

        let name = "é".repeat(300);
        let mut with_name = b"\0\0\0\0\0\x01".to_vec();
        with_name.extend(u32::try_from(name.len())?.to_be_bytes());
        with_name.extend(name.as_bytes());
        with_name.extend(b"\0\0");
        let delete = parse("DELETE FROM customers WHERE name = $1");
        wire.send(&[delete, message(b'B', &with_name), execute(), sync()].concat())?;
        let number = gateway.held_request()?;
        let text = shown(number)?;
        assert!(
            text.contains("é … (200 more bytes are not shown)"),
            "{text}"
        );
        let number = number.to_string();
        gateway.cli(&["approvals", "deny", &number])?.success()?;
        wire.until(b'Z')?;
        assert_eq!(customers(world)?, "6");
        Ok(())
    })
}

#[test]
fn denied_it_is_refused_with_the_reason() -> Result<()> {
    with_gateway("hold-deny", SHOP, |world, gateway| {
        let mut wire = Wire::new(world.connect(TARGET_V4)?)?;
        wire.log_in()?;
        wire.send(&query("DELETE FROM customers"))?;
        let number = gateway.held_request()?.to_string();
        gateway
            .cli(&["approvals", "deny", &number, "--reason", "use the replica"])?
            .success()?;
        let replies = wire.until(b'Z')?;
        let error = replies
            .iter()
            .find(|reply| reply.tag == b'E')
            .expect("an error");
        assert_eq!(error.field(b'C').as_deref(), Some("42501"));
        assert!(error.text().contains("use the replica"), "{}", error.text());
        assert_eq!(wire.query("SELECT 1")?.len(), 4);
        assert!(!world.postgres.has_seen("DELETE FROM customers")?);
        resolution(gateway, "denied")?;
        Ok(())
    })
}

#[test]
fn forgotten_it_is_refused_after_its_time() -> Result<()> {
    with_gateway("hold-timeout", SHOP, |world, gateway| {
        let start = Instant::now();
        let sql = "UPDATE orders SET price = 0";
        world.psql(From::Client).run(sql)?.failure()?;
        let waited = start.elapsed();
        assert!(waited >= Duration::from_secs(1), "{waited:?}");
        assert!(waited < Duration::from_secs(4), "{waited:?}");
        assert!(!world.postgres.has_seen(sql)?);
        assert!(gateway.held()?.is_empty());
        resolution(gateway, "timed_out")?;
        Ok(())
    })
}

#[test]
fn cancelled_it_never_was() -> Result<()> {
    with_gateway("hold-cancel", SHOP, |world, gateway| {
        let psql = world.psql(From::Client).start("DELETE FROM customers")?;
        let number = gateway.held_request()?.to_string();
        let start = Instant::now();
        psql.signal(Signal::SIGINT)?;
        let error = psql.wait(LIMIT)?.failure()?;
        assert!(error.contains("cancel"), "{error}");
        assert!(start.elapsed() < Duration::from_secs(2));
        gateway.cli(&["approvals", "approve", &number])?.failure()?;
        assert_eq!(customers(world)?, "6");
        assert!(!world.postgres.has_seen("DELETE FROM customers")?);
        resolution(gateway, "cancelled")?;
        Ok(())
    })
}

#[test]
fn cancelled_the_session_goes_on() -> Result<()> {
    with_gateway("hold-cancel-wire", SHOP, |world, gateway| {
        let mut wire = Wire::new(world.connect(TARGET_V4)?)?;
        let hello = wire.log_in()?;
        let key = hello
            .iter()
            .find(|reply| reply.tag == b'K')
            .expect("a cancel key");
        wire.send(&query("DELETE FROM customers"))?;
        gateway.held_request()?;
        let mut other = Wire::new(world.connect(TARGET_V4)?)?;
        other.send(&cancel(key))?;
        other.until_closed()?;
        let replies = wire.until(b'Z')?;
        let error = replies
            .iter()
            .find(|reply| reply.tag == b'E')
            .expect("an error");
        assert_eq!(error.field(b'C').as_deref(), Some("57014"));
        assert_eq!(wire.query("SELECT 1")?.len(), 4);
        // A wrong key cancels nothing.
        wire.send(&query("DELETE FROM customers"))?;
        gateway.held_request()?;
        let mut wrong = key.clone();
        if let Some(last) = wrong.body.last_mut() {
            *last ^= 1;
        }
        let mut other = Wire::new(world.connect(TARGET_V4)?)?;
        other.send(&cancel(&wrong))?;
        other.until_closed()?;
        assert_eq!(gateway.held()?.len(), 1);
        Ok(())
    })
}

#[test]
fn abandoned_it_is_withdrawn() -> Result<()> {
    with_gateway("hold-gone", SHOP, |world, gateway| {
        let psql = world.psql(From::Client).start("DELETE FROM customers")?;
        let number = gateway.held_request()?.to_string();
        psql.signal(Signal::SIGKILL)?;
        wait_until("the request is withdrawn", LIMIT, || {
            Ok(gateway.held()?.is_empty())
        })?;
        gateway.cli(&["approvals", "approve", &number])?.failure()?;
        assert!(!world.postgres.has_seen("DELETE FROM customers")?);
        resolution(gateway, "client_gone")?;
        Ok(())
    })
}

#[test]
fn a_prepared_statement_is_held_with_its_parameters() -> Result<()> {
    with_gateway("hold-driver", SHOP, |world, gateway| {
        block_on(async {
            let client = driver(world, TARGET_V4, "alice").await?;
            let statement = client
                .prepare("DELETE FROM customers WHERE id = $1")
                .await?;
            for id in [1, 2] {
                let parameters: [&(dyn ToSql + Sync); 1] = [&id];
                let delete = client.execute(&statement, &parameters);
                let approve = async {
                    // The harness waits in its own way: off the driver's thread.
                    tokio::task::block_in_place(|| -> Result<()> {
                        let number = gateway.held_request()?.to_string();
                        gateway.cli(&["approvals", "approve", &number])?.success()?;
                        Ok(())
                    })
                };
                let driver = tokio::time::timeout(LIMIT, delete);
                let (deleted, approved) = tokio::join!(driver, approve);
                approved?;
                assert_eq!(deleted??, 1);
            }
            Ok(())
        })?;
        assert_eq!(customers(world)?, "4");
        Ok(())
    })
}

#[test]
fn earlier_replies_arrive_while_it_waits() -> Result<()> {
    with_gateway("hold-pipeline", SHOP, |world, gateway| {
        let mut wire = Wire::new(world.connect(TARGET_V4)?)?;
        wire.log_in()?;
        let batch = [
            extended("SELECT 'before'"),
            extended("DELETE FROM customers WHERE id = 1"),
            extended("SELECT count(*) FROM customers"),
            sync(),
        ];
        wire.send(&batch.concat())?;
        let row = wire.until(b'D')?;
        assert!(row.last().is_some_and(|row| row.text().contains("before")));
        let number = gateway.held_request()?.to_string();
        assert!(!world.postgres.has_seen("DELETE FROM customers")?);
        gateway.cli(&["approvals", "approve", &number])?.success()?;
        let rest = wire.until(b'Z')?;
        assert!(
            rest.iter()
                .any(|reply| reply.tag == b'C' && reply.text().starts_with("DELETE 1"))
        );
        let count = rest
            .iter()
            .find(|reply| reply.tag == b'D')
            .expect("the count");
        assert!(count.text().ends_with('5'), "{}", count.text());
        Ok(())
    })
}

#[test]
fn the_client_is_told_while_it_waits() -> Result<()> {
    with_gateway("hold-notice", SHOP, |world, gateway| {
        let mut wire = Wire::new(world.connect(TARGET_V4)?)?;
        wire.log_in()?;
        wire.send(&query("DELETE FROM customers"))?;
        let notice = wire.until(b'N')?;
        let text = notice
            .last()
            .map(interceptor_tests::wire::Reply::text)
            .unwrap_or_default();
        assert!(text.contains("deletes-need-approval"), "{text}");
        let number = gateway.held_request()?.to_string();
        assert!(text.contains(&number), "{text}");
        Ok(())
    })
}

#[test]
fn many_wait_at_once_and_others_work() -> Result<()> {
    with_gateway("hold-many", SHOP, |world, gateway| {
        let mut waiting = Vec::new();
        for id in 1..=6 {
            let mut wire = Wire::new(world.connect(TARGET_V4)?)?;
            wire.log_in()?;
            wire.send(&query(&format!("DELETE FROM customers WHERE id = {id}")))?;
            waiting.push(wire);
        }
        wait_until("six are held", LIMIT, || Ok(gateway.held()?.len() == 6))?;
        let rows = world.psql(From::Client).bare().run("SELECT 1")?.success()?;
        assert_eq!(rows, "1\n");
        for held in gateway.held()? {
            let number = held["number"].to_string();
            gateway.cli(&["approvals", "approve", &number])?.success()?;
        }
        for wire in &mut waiting {
            wire.until(b'Z')?;
        }
        assert_eq!(customers(world)?, "0");
        Ok(())
    })
}
