//! Replication by PostgreSQL's own tools, and large objects by libpq.

use std::fs;
use std::time::Duration;

use anyhow::Result;
use interceptor_tests::policies::OPEN;
use interceptor_tests::process::{Finished, Running, run};
use interceptor_tests::world::{From, TARGET_V4};
use interceptor_tests::{World, wait_until, with_gateway};

const REPLICAS: &str = r#"
---
kind: Rule
name: replicas
spec:
  match: {statements: [REPLICATION], users: [wire]}
  then: allow
"#;

fn basebackup(world: &World, directory: &str) -> Result<Finished> {
    let mut command = world.command(From::Client, "pg_basebackup")?;
    command
        .args([
            "-h",
            &TARGET_V4.to_string(),
            "-U",
            "wire",
            "-w",
            "-D",
            directory,
        ])
        .args(["--checkpoint=fast", "--wal-method=stream"])
        .current_dir("/");
    run(command, Duration::from_secs(120))
}

#[test]
fn without_a_rule_it_is_refused() -> Result<()> {
    with_gateway("repl-refused", OPEN, |world, gateway| {
        world.postgres.directly("ALTER ROLE wire REPLICATION")?;
        let place = world.directory().join("backup");
        let refused = basebackup(world, &place.to_string_lossy())?.failure()?;
        assert!(refused.contains("statements: [REPLICATION]"), "{refused}");
        gateway.event("command", |event| {
            event["text"] == "a replication connection" && event["decision"] == "deny"
        })?;
        Ok(())
    })
}

#[test]
fn a_base_backup_and_its_stream() -> Result<()> {
    with_gateway(
        "repl-physical",
        &format!("{OPEN}{REPLICAS}"),
        |world, gateway| {
            world.postgres.directly("ALTER ROLE wire REPLICATION")?;
            let place = world.directory().join("backup");
            basebackup(world, &place.to_string_lossy())?.success()?;
            assert!(place.join("base").is_dir() && place.join("backup_manifest").is_file());
            gateway.event("command", |event| {
                let text = event["text"].as_str().unwrap_or_default();
                text.starts_with("BASE_BACKUP") && event["rule"] == "replicas"
            })?;
            gateway.event("command", |event| {
                let text = event["text"].as_str().unwrap_or_default();
                text.starts_with("START_REPLICATION")
            })?;
            Ok(())
        },
    )
}

#[test]
fn a_logical_stream() -> Result<()> {
    with_gateway(
        "repl-logical",
        &format!("{OPEN}{REPLICAS}"),
        |world, gateway| {
            world.postgres.directly("ALTER ROLE wire REPLICATION")?;
            world
                .postgres
                .directly("ALTER SYSTEM SET wal_level = logical")?;
            let output = world.directory().join("changes");
            let mut command = world.command(From::Client, "pg_recvlogical")?;
            command
                .args([
                    "-h",
                    &TARGET_V4.to_string(),
                    "-U",
                    "wire",
                    "-w",
                    "-d",
                    "shop",
                ])
                .args(["--slot", "changes", "--create-slot"])
                .current_dir("/");
            // It needs a restart of the server to work; the server's word arrives.
            let refused = run(command, Duration::from_secs(60))?.failure()?;
            assert!(refused.contains("wal_level"), "{refused}");
            let mut command = world.command(From::Client, "pg_receivewal")?;
            fs::create_dir(&output)?;
            command
                .args(["-h", &TARGET_V4.to_string(), "-U", "wire", "-w", "-n", "-D"])
                .arg(&output)
                .current_dir("/");
            let receiving = Running::spawn(command, "")?;
            wait_until("the log arrives", Duration::from_secs(20), || {
                Ok(fs::read_dir(&output)?.next().is_some())
            })?;
            receiving.signal(nix::sys::signal::Signal::SIGINT)?;
            receiving.wait(Duration::from_secs(20))?;
            gateway.event("outcome", |event| {
                let tag = event["tag"].as_str().unwrap_or_default();
                tag.contains("COPY") || tag.contains("START_STREAMING")
            })?;
            Ok(())
        },
    )
}

/// psql calls the functions of large objects by number.
#[test]
fn large_objects_go_in_and_out() -> Result<()> {
    with_gateway("large-objects", OPEN, |world, gateway| {
        let (from, to) = (world.directory().join("in"), world.directory().join("out"));
        let content: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_be_bytes).collect();
        fs::write(&from, &content)?;
        let script = format!(
            "\\lo_import {}\n\\lo_export :LASTOID {}\n\\lo_unlink :LASTOID\n",
            from.display(),
            to.display()
        );
        world.psql(From::Client).script(&script)?.success()?;
        assert!(fs::read(&to)? == content);
        gateway.event("command", |event| {
            event["text"] == "FUNCTION CALL pg_catalog.lo_unlink" && event["incomplete"] == ""
        })?;
        Ok(())
    })
}
