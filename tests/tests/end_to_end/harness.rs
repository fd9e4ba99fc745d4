//! The harness proves itself, without a gateway: what the other tests rest on.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use interceptor_tests::wire::Wire;
use interceptor_tests::world::{TARGET_V4, TARGET_V6, UNNAMED_V4, traces};
use interceptor_tests::{From, World, process, wait_until, with_world};
use nix::sys::signal::Signal;

#[test]
fn routes_clients_to_a_real_server() -> Result<()> {
    with_world("routes", |world| {
        let who = "SELECT current_user, host(inet_client_addr()), count(*) FROM customers";
        for (from, host, address) in [
            (From::Client, TARGET_V4.into(), "10.77.1.2"),
            (From::Client, UNNAMED_V4.into(), "10.77.1.2"),
            (From::Client, TARGET_V6.into(), "fd77:1::2"),
            (From::Local, TARGET_V4.into(), "10.77.2.1"),
            (From::Local, TARGET_V6.into(), "fd77:2::1"),
        ] {
            let host: std::net::IpAddr = host;
            let psql = world.psql(from).host(host).user("bob").bare();
            assert_eq!(
                psql.run(who)?.success()?.trim(),
                format!("bob|{address}|6"),
                "from {from:?} to {host}"
            );
        }
        assert!(world.postgres.has_seen("count(*) FROM customers")?);
        world.postgres.directly("SELECT 'not by network'")?;
        assert!(!world.postgres.has_seen("not by network")?);
        Ok(())
    })
}

#[test]
fn starts_local_clients_in_the_watched_cgroup() -> Result<()> {
    with_world("cgroups", |world| {
        let cgroup = |from| -> Result<String> {
            let mut cat = world.command(from, "grep")?;
            cat.args(["^0::", "/proc/self/cgroup"]);
            process::run(cat, Duration::from_secs(5))?.success()
        };
        assert_eq!(cgroup(From::Local)?.trim(), "0::/icpt-cgroups/apps");
        assert_eq!(cgroup(From::Client)?.trim(), "0::/icpt-cgroups-outside");
        Ok(())
    })
}

#[test]
fn speaks_the_protocol_by_hand() -> Result<()> {
    with_world("by-hand", |world| {
        let mut wire = Wire::new(world.connect(TARGET_V4)?)?;
        wire.log_in()?;
        assert_eq!(wire.count("SELECT * FROM customers")?.rows, 6);
        assert_eq!(wire.count("COPY orders TO STDOUT")?.rows, 60);
        let replies = wire.query("SELECT nothing")?;
        let error = replies.iter().find(|reply| reply.tag == b'E');
        assert_eq!(
            error.and_then(|reply| reply.field(b'C')),
            Some("42703".into())
        );
        Ok(())
    })
}

#[test]
fn sweeps_away_what_a_killed_run_left() -> Result<()> {
    let world = World::new("sweep")?;
    let sleeper = world.command(From::Local, "sleep")?;
    let mut sleeper = sleeper;
    sleeper.arg("1000");
    let mut sleeper = interceptor_tests::Running::spawn(sleeper, "")?;
    let cgroup = world.cgroup().to_owned();
    // As a killed run would: nothing is cleaned up in order.
    interceptor_tests::world::sweep("sweep")?;
    assert!(sleeper.has_ended()?, "a local client outlived the sweep");
    assert_eq!(traces("sweep")?, Vec::<String>::new());
    assert!(!cgroup.exists());
    let names = Command::new("ip").args(["netns", "list"]).output()?;
    assert!(!String::from_utf8_lossy(&names.stdout).contains("icpt-sweep-"));
    drop(world);
    Ok(())
}

/// The name of the world that [`builds_a_world`] builds.
const NAME: &str = "INTERCEPTOR_TEST_WORLD";

#[test]
fn builds_a_world() -> Result<()> {
    let name = std::env::var(NAME).unwrap_or_else(|_| "built".to_owned());
    with_world(&name, |_| Ok(()))
}

#[test]
fn sweeps_away_what_was_killed_half_built() -> Result<()> {
    let mut builder = Command::new(std::env::current_exe()?);
    builder
        .args(["--exact", "harness::builds_a_world"])
        .env(NAME, "half-built");
    let builder = interceptor_tests::Running::spawn(builder, "")?;
    let mut workers = Vec::new();
    wait_until(
        "others work for the builder",
        Duration::from_secs(60),
        || {
            workers = cgroups_of("/interceptor-tests/half-built/")?;
            Ok(!workers.is_empty())
        },
    )?;
    for cgroup in workers {
        assert_eq!(cgroup, "0::/icpt-half-built-outside", "no sweep finds it");
    }
    builder.signal(Signal::SIGKILL)?;
    builder.wait(Duration::from_secs(90))?.failure()?;
    interceptor_tests::world::sweep("half-built")?;
    assert_eq!(traces("half-built")?, Vec::<String>::new());
    Ok(())
}

/// The cgroups of all processes with this text in their command lines.
fn cgroups_of(text: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let process = entry?.path();
        // Some are gone by now, and some entries are no processes.
        let command = fs::read_to_string(process.join("cmdline")).unwrap_or_default();
        let cgroups = fs::read_to_string(process.join("cgroup")).unwrap_or_default();
        let unified = cgroups.lines().find(|line| line.starts_with("0::"));
        if let (true, Some(cgroup)) = (command.contains(text), unified) {
            found.push(cgroup.to_owned());
        }
    }
    Ok(found)
}

#[test]
fn refuses_a_name_in_use() -> Result<()> {
    let _world = World::new("taken")?;
    let refusal = World::new("taken")
        .map(drop)
        .map_err(|error| error.to_string());
    assert!(refusal.is_err_and(|text| text.contains("in use by another run")));
    Ok(())
}

#[test]
fn waits_for_its_turn() -> Result<()> {
    let taken = World::new("turns")?;
    std::thread::scope(|scope| {
        let second = scope.spawn(|| with_world("turns", |_| Ok(())));
        std::thread::sleep(Duration::from_millis(300));
        assert!(!second.is_finished(), "it did not wait");
        drop(taken);
        second.join().expect("the second world panicked")
    })
}
