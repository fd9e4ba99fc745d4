//! The binary is replaced under load: nobody is refused, nobody is cut off, nothing goes unrecorded.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::support::{is_clean, recorded_commands};
use anyhow::{Context as _, Result, anyhow, ensure};
use interceptor_tests::policies::{OPEN, SHOP};
use interceptor_tests::wire::{Wire, message};
use interceptor_tests::world::{TARGET_V4, copy_program};
use interceptor_tests::{Finished, From, Gateway, Running, World, wait_until, with_own_binary};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const LIMIT: Duration = Duration::from_secs(60);
const SHORT_THREADS: usize = 8;
const LONG_SESSIONS: usize = 4;

/// The binary that the gateway is started from.
fn installed(world: &World) -> PathBuf {
    world.directory().join("interceptor")
}

/// Installs another file in the binary's place, as a package manager does: by renaming.
fn install(world: &World, bytes: &[u8]) -> Result<u64> {
    let new = world.directory().join("interceptor.new");
    let data = world.directory().join("interceptor.data");
    fs::write(&data, bytes)?;
    fs::set_permissions(&data, fs::Permissions::from_mode(0o755))?;
    copy_program(&data, &new)?;
    let inode = fs::metadata(&new)?.ino();
    fs::rename(&new, installed(world))?;
    Ok(inode)
}

/// A working binary that is another file: bytes after the end of the program mean nothing.
fn another_version(world: &World, original: &[u8], number: usize) -> Result<u64> {
    let version = format!("version {number}").into_bytes();
    install(world, &[original, &version].concat())
}

/// The process that answers on the administration socket.
fn serving(gateway: &Gateway<'_>) -> Result<u32> {
    let status = gateway.cli(&["status", "--json"])?;
    let status: serde_json::Value = serde_json::from_str(&status.stdout)
        .with_context(|| format!("{}{}", status.stdout, status.stderr))?;
    let pid = status
        .pointer("/gateway/status/pid")
        .and_then(serde_json::Value::as_u64);
    Ok(u32::try_from(
        pid.with_context(|| format!("no pid: {status}"))?,
    )?)
}

fn executable(pid: u32) -> Result<u64> {
    Ok(fs::metadata(format!("/proc/{pid}/exe"))?.ino())
}

/// What clients sent, each text once; and what went wrong.
#[derive(Default)]
struct Load {
    stop: AtomicBool,
    texts: Mutex<Vec<String>>,
    errors: Mutex<Vec<String>>,
    /// Queries of each long session.
    long: [AtomicUsize; LONG_SESSIONS],
}

impl Load {
    fn sent(&self, text: String) {
        lock(&self.texts).push(text);
    }

    fn failed(&self, what: &str, error: &anyhow::Error) {
        lock(&self.errors).push(format!("{what}: {error:#}"));
    }

    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Connects, asks once, leaves; again and again.
    fn short(&self, world: &World, thread: usize) {
        let mut number = 0;
        while !self.is_over() {
            number += 1;
            let text = format!("SELECT 'short {thread} {number}'");
            if let Err(error) = ask_once(world, &text) {
                self.failed(&text, &error);
                return;
            }
            self.sent(text);
        }
    }

    /// One session that asks every 50 ms.
    fn long(&self, world: &World, index: usize) -> Result<()> {
        let mut wire = Wire::new(world.connect(TARGET_V4)?)?;
        wire.log_in()?;
        let count = self.long.get(index).context("too many")?;
        while !self.is_over() {
            let number = count.fetch_add(1, Ordering::Relaxed);
            let text = format!("SELECT 'long {index} {number}'");
            answered(&mut wire, &text)?;
            self.sent(text);
            std::thread::sleep(Duration::from_millis(50));
        }
        wire.send(&message(b'X', b""))?;
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A thread that panicked fails the test anyway.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn ask_once(world: &World, text: &str) -> Result<()> {
    let mut wire = Wire::new(world.connect(TARGET_V4)?)?;
    wire.log_in()?;
    answered(&mut wire, text)?;
    wire.send(&message(b'X', b""))
}

fn answered(wire: &mut Wire, text: &str) -> Result<()> {
    let replies = wire.query(text)?;
    let error = replies.iter().find(|reply| reply.tag == b'E');
    match error {
        Some(error) => Err(anyhow!("{text}: {}", error.text())),
        None => Ok(()),
    }
}

#[test]
fn three_times_under_load() -> Result<()> {
    with_own_binary("up-load", |world| {
        let policies = world.write_policy(SHOP)?;
        let mut gateway = Gateway::start_with(world, &policies, &["--drain", "120s"])?;
        let original = fs::read(installed(world))?;
        let load = Load::default();
        let held = world
            .psql(From::Client)
            .start("DELETE FROM customers WHERE id = 1")?;
        let number = gateway.held_request()?.to_string();
        let first = gateway.pid()?;
        let mut processes = vec![first];
        std::thread::scope(|scope| -> Result<()> {
            for thread in 0..SHORT_THREADS {
                let load = &load;
                scope.spawn(move || load.short(world, thread));
            }
            for index in 0..LONG_SESSIONS {
                let load = &load;
                scope.spawn(move || {
                    if let Err(error) = load.long(world, index) {
                        load.failed("a long session", &error);
                    }
                });
            }
            let upgraded = upgrade_three_times(world, &gateway, &original, &load, &mut processes);
            // The held command was sent to the first process, and is still there.
            let decided = gateway
                .cli(&["approvals", "show", &number])
                .and_then(|shown| {
                    ensure!(
                        shown.stdout.contains("DELETE"),
                        "{}{}",
                        shown.stdout,
                        shown.stderr
                    );
                    gateway.cli(&["approvals", "approve", &number])?.success()
                });
            let finished = held.wait(LIMIT).and_then(|finished| finished.success());
            load.stop.store(true, Ordering::Relaxed);
            upgraded?;
            decided?;
            assert_eq!(finished?, "DELETE 1\n");
            Ok(())
        })?;
        let errors = load.errors.into_inner().unwrap();
        assert!(errors.is_empty(), "{} failed: {errors:#?}", errors.len());
        wait_until("the replaced processes end", LIMIT, || {
            gateway.is_alive()?;
            Ok(processes[..3].iter().all(|pid| !is_running(*pid)))
        })?;
        let names: Vec<_> = fs::read_dir(gateway.run_directory())?
            .flatten()
            .map(|entry| entry.file_name())
            .collect();
        assert_eq!(names, ["admin.sock"]);

        is_clean(&gateway)?;
        let recorded = recorded_commands(&gateway)?;
        let texts = load.texts.into_inner().unwrap();
        let short = texts.iter().filter(|text| text.contains("short")).count();
        println!(
            "{short} short connections and {} queries of {LONG_SESSIONS} long ones over 3 upgrades",
            texts.len() - short
        );
        assert!(short > 200, "{short} connections are no load");
        for text in &texts {
            assert_eq!(recorded.get(text), Some(&1), "{text}");
        }
        assert_eq!(recorded.get("DELETE FROM customers WHERE id = 1"), Some(&1));
        // Numbers of requests go on.
        let again = world
            .psql(From::Client)
            .start("DELETE FROM customers WHERE id = 2")?;
        assert!(gateway.held_request()?.to_string() != number);
        drop(again);
        end(&gateway, processes[3])
    })
}

/// Stops the process that serves now, which is no child of this one.
fn end(gateway: &Gateway<'_>, pid: u32) -> Result<()> {
    signal(pid, Signal::SIGTERM)?;
    wait_until("the last process ends", LIMIT, || Ok(!is_running(pid)))?;
    let log = gateway.state_directory().join("audit");
    let verdict = gateway.audit_in(&log, &["verify"])?.success()?;
    ensure!(verdict.contains("intact"), "{verdict}");
    Ok(())
}

fn upgrade_three_times(
    world: &World,
    gateway: &Gateway<'_>,
    original: &[u8],
    load: &Load,
    processes: &mut Vec<u32>,
) -> Result<()> {
    for round in 1..=3 {
        std::thread::sleep(Duration::from_millis(700));
        let inode = another_version(world, original, round)?;
        let start = Instant::now();
        gateway.cli(&["upgrade"])?.success()?;
        println!("upgrade {round} took {:?}", start.elapsed());
        let pid = serving(gateway)?;
        ensure!(!processes.contains(&pid), "process {pid} serves as before");
        ensure!(executable(pid)? == inode, "it is not the new file");
        processes.push(pid);
        // Sessions of replaced processes are listed, and go on.
        let before: Vec<usize> = counts(load);
        wait_until("the long sessions go on", LIMIT, || {
            let now = counts(load);
            Ok(before
                .iter()
                .zip(&now)
                .all(|(before, now)| now >= &(before + 5)))
        })?;
        let listed = gateway.sessions()?;
        ensure!(listed.len() > LONG_SESSIONS, "{listed:?}");
    }
    Ok(())
}

fn counts(load: &Load) -> Vec<usize> {
    load.long
        .iter()
        .map(|count| count.load(Ordering::Relaxed))
        .collect()
}

fn is_running(pid: u32) -> bool {
    // A zombie has ended.
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        !stat
            .rsplit(')')
            .next()
            .is_some_and(|rest| rest.starts_with(" Z"))
    })
}

fn signal(pid: u32, signal: Signal) -> Result<()> {
    Ok(kill(Pid::from_raw(i32::try_from(pid)?), signal)?)
}

#[test]
fn a_successor_that_cannot_leaves_the_old() -> Result<()> {
    with_own_binary("up-broken", |world| {
        let policies = world.write_policy(OPEN)?;
        let mut gateway = Gateway::start_with(world, &policies, &["--drain", "60s"])?;
        let original = fs::read(installed(world))?;
        let pid = gateway.pid()?;
        let mut open = Wire::new(world.connect(TARGET_V4)?)?;
        open.log_in()?;
        let mut refused = |gateway: &mut Gateway<'_>, what: &str, words: &str| -> Result<()> {
            let finished = gateway.cli(&["upgrade"])?;
            assert_eq!(finished.status.code(), Some(1), "{what}");
            assert!(
                finished.stderr.contains(words),
                "{what}: {}",
                finished.stderr
            );
            assert!(gateway.is_alive()?);
            assert_eq!(serving(gateway)?, pid, "{what}");
            answered(&mut open, &format!("SELECT '{what}'"))?;
            for from in [From::Client, From::Local] {
                let psql = world.psql(from).bare();
                assert_eq!(psql.run("SELECT 1")?.success()?, "1\n", "{what}, {from:?}");
            }
            Ok(())
        };

        world.write_policy("kind: Rule\n")?;
        another_version(world, &original, 1)?;
        refused(&mut gateway, "a broken policy", "policy.yaml")?;
        world.write_policy(OPEN)?;

        install(world, b"#!/bin/sh\necho 'out of order' >&2\nexit 3\n")?;
        refused(&mut gateway, "one that fails", "out of order")?;
        install(world, b"#!/bin/sh\nexit 0\n")?;
        refused(&mut gateway, "one that does nothing", "exit status: 0")?;
        install(world, b"\x7fELF but not really")?;
        refused(&mut gateway, "no program", "interceptor")?;
        fs::remove_file(installed(world))?;
        refused(&mut gateway, "nothing", "cannot be started")?;
        // They say what they like, and have to be ended.
        install(
            world,
            b"#!/bin/sh\necho '{\"cheese\":1}' >&0\nexec sleep 99\n",
        )?;
        refused(&mut gateway, "nonsense", "did not take over")?;
        install(
            world,
            b"#!/bin/sh\necho '\"prepared\"' >&0\nexec sleep 99\n",
        )?;
        refused(&mut gateway, "one that hangs", "it took too long")?;
        install(
            world,
            b"#!/bin/sh\necho '\"prepared\"' >&0\necho '\"serving\"' >&0\nexec sleep 1000\n",
        )?;
        refused(&mut gateway, "one that skips steps", "did not take over")?;

        another_version(world, &original, 2)?;
        gateway.cli(&["upgrade"])?.success()?;
        let new = serving(&gateway)?;
        assert_ne!(new, pid);
        answered(&mut open, "SELECT 'still there'")?;
        let counts = recorded_commands(&gateway)?;
        for text in [
            "a broken policy",
            "one that fails",
            "one that hangs",
            "still there",
        ] {
            assert_eq!(counts.get(&format!("SELECT '{text}'")), Some(&1), "{text}");
        }
        let asked = gateway.event("administration", |event| {
            event["action"] == "upgrade the gateway"
        })?;
        assert_eq!(asked["by"], "root (uid 0)");
        open.send(&message(b'X', b""))?;
        end(&gateway, new)
    })
}

/// A replaced process hears of it when the gateway stops or reads its policy anew.
#[test]
fn a_replaced_process_follows_the_gateway() -> Result<()> {
    with_own_binary("up-follow", |world| {
        let policies = world.write_policy(OPEN)?;
        let mut gateway = Gateway::start_with(world, &policies, &["--drain", "20s"])?;
        let original = fs::read(installed(world))?;
        let first = gateway.pid()?;
        let mut open = Wire::new(world.connect(TARGET_V4)?)?;
        open.log_in()?;
        let follower = world
            .gateway_command(&world.binary()?, None)
            .map(|mut command| {
                command.args(["audit", "tail", "--follow", "--run-dir"]);
                command.arg(gateway.run_directory());
                command
            })?;
        let follower = Running::spawn(follower, "")?;
        for round in 1..=2 {
            another_version(world, &original, round)?;
            gateway.cli(&["upgrade"])?.success()?;
        }
        let last = serving(&gateway)?;
        // Who followed the log is told that it went elsewhere.
        let told = follower.wait(LIMIT)?.failure()?;
        assert!(told.contains("was replaced"), "{told}");

        // The session is two processes back, and the reload goes to the last.
        assert!(!wire_error(&mut open, "DROP TABLE nothing")?.contains("refused by interceptor"));
        world.write_policy(SHOP)?;
        signal(last, Signal::SIGHUP)?;
        wait_until("the new policy is in force", LIMIT, || {
            Ok(wire_error(&mut open, "DROP TABLE nothing")?.contains("refused by interceptor"))
        })?;

        signal(last, Signal::SIGTERM)?;
        let goodbye = open.until_closed()?;
        let codes: Vec<_> = goodbye
            .iter()
            .filter_map(|reply| reply.field(b'C'))
            .collect();
        assert_eq!(codes, ["57P01"]);
        wait_until("all processes end", Duration::from_secs(15), || {
            gateway.is_alive()?;
            Ok(!is_running(first) && !is_running(last))
        })?;
        let log = gateway.state_directory().join("audit");
        let tail = gateway
            .audit_in(&log, &["tail", "-n", "50", "--json"])?
            .success()?;
        assert_eq!(tail.matches("gateway-stopped").count(), 3, "{tail}");
        Ok(())
    })
}

fn wire_error(wire: &mut Wire, text: &str) -> Result<String> {
    let replies = wire.query(text)?;
    let error = replies.iter().find(|reply| reply.tag == b'E');
    Ok(error.map(|error| error.text()).unwrap_or_default())
}

#[test]
fn the_service_manager_is_told() -> Result<()> {
    with_own_binary("up-notify", |world| {
        let policies = world.write_policy(OPEN)?;
        let mut gateway = Gateway::start_with(world, &policies, &["--drain", "1s"])?;
        gateway.terminate()?;
        gateway.wait(LIMIT)?;
        let path = world.directory().join("notify");
        let manager = std::os::unix::net::UnixDatagram::bind(&path)?;
        manager.set_read_timeout(Some(LIMIT))?;
        let told = || -> Result<String> {
            let mut buffer = [0; 1024];
            let length = manager.recv(&mut buffer)?;
            Ok(String::from_utf8_lossy(&buffer[..length]).trim().to_owned())
        };
        gateway.restart_as_service(&path)?;
        assert_eq!(told()?, "READY=1");
        gateway.cli(&["upgrade"])?.success()?;
        let new = serving(&gateway)?;
        assert_eq!(told()?, format!("MAINPID={new}"));
        assert_eq!(told()?, "READY=1");
        signal(new, Signal::SIGTERM)?;
        assert_eq!(told()?, "STOPPING=1");
        Ok(())
    })
}

/// The process that a gateway has started, once it has.
fn child_of(pid: u32, limit: Duration) -> Option<u32> {
    let start = Instant::now();
    while start.elapsed() < limit {
        for task in fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten() {
            let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            let found = children
                .split_whitespace()
                .filter_map(|child| child.parse().ok());
            for child in found {
                let is_new = fs::read(format!("/proc/{child}/environ"))
                    .is_ok_and(|text| text.windows(20).any(|part| part == b"INTERCEPTOR_HANDOVER"));
                if is_new && is_running(child) {
                    return Some(child);
                }
            }
        }
        std::thread::yield_now();
    }
    None
}

#[test]
fn killed_at_any_moment_nothing_goes_unrecorded() -> Result<()> {
    with_own_binary("up-kill", |world| {
        let policies = world.write_policy(OPEN)?;
        let mut gateway = Gateway::start_with(world, &policies, &["--drain", "5s"])?;
        let original = fs::read(installed(world))?;
        let mut serving_pid = gateway.pid()?;
        let (mut survived, mut died, mut late) = (0, 0, 0);
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| -> Result<()> {
            for thread in 0..2 {
                let stop = &stop;
                // Whether it is answered does not matter here.
                scope.spawn(move || hammer(world, thread, stop));
            }
            let done = (0..24).try_for_each(|round| -> Result<()> {
                another_version(world, &original, round)?;
                let delay = Duration::from_millis(u64::try_from(round)? * 25);
                let answer = upgrade_and_kill(&gateway, serving_pid, delay)?;
                wait_until("one or none is left", LIMIT, || {
                    gateway.is_alive()?;
                    Ok(!is_running(serving_pid) || serving(&gateway).is_ok())
                })?;
                // One that has handed over may still say that it serves, on its way down.
                if answer.status.code() == Some(1)
                    && is_running(serving_pid)
                    && serving(&gateway).is_ok_and(|pid| pid == serving_pid)
                {
                    survived += 1;
                    let psql = world.psql(From::Local).bare();
                    assert_eq!(psql.run("SELECT 1")?.success()?, "1\n", "{delay:?}");
                    return Ok(());
                }
                // It had taken over, and was killed as a gateway. So it is started again.
                died += 1;
                late += usize::from(answer.status.success());
                wait_until("the old one ends as well", LIMIT, || {
                    Ok(!is_running(serving_pid))
                })?;
                gateway.wait(LIMIT)?;
                gateway.restart()?;
                serving_pid = gateway.pid()?;
                Ok(())
            });
            stop.store(true, Ordering::Relaxed);
            done
        })?;
        println!(
            "{survived} times the old one went on, {died} times the new one died as the gateway ({late} after its word)"
        );
        assert!(survived > 0, "no moment was early enough");
        // The last of the old ones may have ended since, with nobody in its place.
        if serving(&gateway).is_err() {
            gateway.wait(LIMIT)?;
            gateway.restart()?;
        }
        is_clean(&gateway)?;
        let recorded = recorded_commands(&gateway)?;
        let seen = world.postgres.network_log()?;
        let mut checked = 0;
        for line in seen.lines().filter(|line| line.contains("SELECT 'hammer")) {
            let text = line.rsplit("statement: ").next().unwrap_or_default();
            assert_eq!(recorded.get(text), Some(&1), "{line}");
            checked += 1;
        }
        println!("{checked} commands reached the server, all on record once");
        assert!(checked > 100, "{checked} commands are no test");
        Ok(())
    })
}

/// Asks for an upgrade and kills the new process so long after it was started.
fn upgrade_and_kill(gateway: &Gateway<'_>, pid: u32, delay: Duration) -> Result<Finished> {
    std::thread::scope(|scope| {
        let upgrade = scope.spawn(|| gateway.cli(&["upgrade"]));
        let child = child_of(pid, Duration::from_secs(5));
        if let Some(child) = child {
            std::thread::sleep(delay);
            // It may have refused and ended.
            let _ = signal(child, Signal::SIGKILL);
        }
        let answer = upgrade.join().map_err(|_| anyhow!("a panic"))??;
        ensure!(
            child.is_some(),
            "no new process was seen: {}",
            answer.stderr
        );
        Ok(answer)
    })
}

fn hammer(world: &World, thread: usize, stop: &AtomicBool) {
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        let mut session = || -> Result<()> {
            let mut wire = Wire::new(world.connect(TARGET_V4)?)?;
            wire.log_in()?;
            for _ in 0..20 {
                number += 1;
                wire.query(&format!("SELECT 'hammer {thread} {number}'"))?;
            }
            wire.send(&message(b'X', b""))
        };
        if session().is_err() {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
