//! Targets by name, and targets that change: no gap, and no connection lost.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use interceptor_tests::dns::{Dns, TTL};
use interceptor_tests::postgres::{ACCOUNT, DATABASE};
use interceptor_tests::wire::Wire;
use interceptor_tests::world::{TARGET_V4, UNNAMED_V4};
use interceptor_tests::{From, Gateway, World, wait_until, with_world};
use nix::sys::signal::Signal;
use serde_json::Value;

/// What the target sees of a client: the gateway's address if it was intercepted, or its own.
const THROUGH: &str = "10.77.2.1\n";
const DIRECT: &str = "10.77.1.2\n";

const DB: &str = "orders-db.internal";
/// Long enough for a busy machine to start a client in the middle of it.
const GRACE: Duration = Duration::from_secs(8);

/// A policy with a target for each name and its endpoints.
fn policy(targets: &[(&str, &str)]) -> String {
    let mut text = String::new();
    for (name, endpoints) in targets {
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "---\nkind: Target\nname: {name}\nspec:\n  protocol: postgres\n  endpoints: [{endpoints}]\n  incomplete: allow\n"
        );
    }
    text
}

fn start<'w>(world: &'w World, dns: &Dns<'_>, targets: &[(&str, &str)]) -> Result<Gateway<'w>> {
    let policies = world.write_policy(&policy(targets))?;
    let grace = format!("{}s", GRACE.as_secs());
    let server = dns.address();
    Gateway::start_with(
        world,
        &policies,
        &["--dns-server", &server, "--dns-grace", &grace],
    )
}

fn seen_from(world: &World, host: Ipv4Addr) -> Result<String> {
    let psql = world.psql(From::Client).host(host).bare();
    psql.run("SELECT host(inet_client_addr())")?.success()
}

fn log_in(world: &World, host: Ipv4Addr) -> Result<Wire> {
    let mut wire = Wire::new(world.connect(host)?)?;
    wire.log_in()?;
    Ok(wire)
}

/// Waits for a change of the targets that says this.
fn change(gateway: &Gateway<'_>, text: &str) -> Result<()> {
    wait_until(text, Duration::from_secs(60), || {
        let events = gateway.events(5000)?;
        Ok(events.iter().any(|event| {
            let is_change = event
                .get("kind")
                .is_some_and(|kind| kind == "kernel-changed");
            is_change && event.to_string().contains(text)
        }))
    })
}

const LOADED: &str = "another policy is in force";
const REFUSED: &str = "the policy stays as it was";

/// Reloads, and waits until the gateway logs `outcome` once more.
fn reload(
    gateway: &Gateway<'_>,
    world: &World,
    targets: &[(&str, &str)],
    outcome: &str,
) -> Result<()> {
    let count = || -> Result<usize> {
        let log = std::fs::read_to_string(gateway.log())?;
        Ok(log.matches(outcome).count())
    };
    let before = count()?;
    world.write_policy(&policy(targets))?;
    gateway.signal(Signal::SIGHUP)?;
    wait_until(outcome, Duration::from_secs(60), || Ok(count()? > before))
}

#[test]
fn a_name_is_followed() -> Result<()> {
    with_world("names-follow", |world| {
        let dns = Dns::start(world, &[(DB, &["10.77.2.2"])])?;
        let gateway = start(world, &dns, &[("orders", "'orders-db.internal:5432'")])?;
        assert_eq!(seen_from(world, TARGET_V4)?, THROUGH);
        assert_eq!(seen_from(world, UNNAMED_V4)?, DIRECT);
        let status = gateway.cli(&["status", "--bpffs", &world.bpffs().to_string_lossy()])?;
        let status = status.success()?;
        assert!(
            status.contains(DB) && status.contains("in the answer"),
            "{status}"
        );

        let mut open = log_in(world, TARGET_V4)?;
        open.query("CREATE TEMP TABLE mine (x int)")?;
        let start = Instant::now();
        dns.set(&[(DB, &["10.77.2.3"])])?;
        wait_until(
            "the new address is a target",
            Duration::from_secs(20),
            // One that is under way in that very moment is reset.
            || Ok(seen_from(world, UNNAMED_V4).is_ok_and(|seen| seen == THROUGH)),
        )?;
        // On a machine with nothing else to do it is the TTL and the time to look.
        eprintln!("intercepted after {:?}", start.elapsed());
        change(&gateway, "orders-db.internal: + 10.77.2.3")?;

        // Longer than TTL and grace: the session alone keeps the old address.
        std::thread::sleep(TTL + GRACE + Duration::from_secs(2));
        let replies = open.query("SELECT x FROM mine")?;
        assert!(
            replies
                .iter()
                .any(|reply| reply.text().starts_with("SELECT 0")),
            "the session is another"
        );
        assert_eq!(seen_from(world, TARGET_V4)?, THROUGH);
        drop(open);
        // A client that still has the old answer comes within the grace.
        std::thread::sleep(GRACE / 2);
        assert_eq!(seen_from(world, TARGET_V4)?, THROUGH);
        let last = Instant::now();
        change(&gateway, "orders-db.internal: - 10.77.2.2")?;
        assert!(
            last.elapsed() > GRACE - Duration::from_secs(1),
            "{:?}",
            last.elapsed()
        );
        wait_until("the old address is direct", Duration::from_secs(5), || {
            Ok(seen_from(world, TARGET_V4)? == DIRECT)
        })?;
        assert_eq!(seen_from(world, UNNAMED_V4)?, THROUGH);
        Ok(())
    })
}

#[test]
fn a_crash_lets_no_address_go() -> Result<()> {
    with_world("names-crash", |world| {
        let dns = Dns::start(world, &[(DB, &["10.77.2.2"])])?;
        let mut gateway = start(world, &dns, &[("orders", "'orders-db.internal:5432'")])?;
        dns.set(&[(DB, &["10.77.2.3"])])?;
        change(&gateway, "orders-db.internal: + 10.77.2.3")?;
        gateway.kill()?;
        for host in [TARGET_V4, UNNAMED_V4] {
            let psql = world.psql(From::Client).host(host);
            psql.run("SELECT 1")?.failure()?;
        }
        gateway.restart()?;
        for host in [TARGET_V4, UNNAMED_V4] {
            assert_eq!(seen_from(world, host)?, THROUGH);
        }
        change(&gateway, "orders-db.internal: - 10.77.2.2")?;
        assert_eq!(seen_from(world, TARGET_V4)?, DIRECT);
        assert_eq!(seen_from(world, UNNAMED_V4)?, THROUGH);
        Ok(())
    })
}

#[test]
fn without_a_server_the_addresses_stay() -> Result<()> {
    with_world("names-down", |world| {
        let mut dns = Dns::start(world, &[(DB, &["10.77.2.2"])])?;
        let gateway = start(world, &dns, &[("orders", "'orders-db.internal:5432'")])?;
        dns.stop()?;
        change(&gateway, "its addresses stay")?;
        std::thread::sleep(TTL + GRACE + Duration::from_secs(2));
        assert_eq!(seen_from(world, TARGET_V4)?, THROUGH);
        // Nor does it matter what is wrong.
        dns.restart()?;
        change(&gateway, "can be resolved again")?;
        dns.set(&[])?;
        change(&gateway, "NXDOMAIN")?;
        std::thread::sleep(TTL + GRACE + Duration::from_secs(2));
        assert_eq!(seen_from(world, TARGET_V4)?, THROUGH);
        // A reload needs no answer for what is known.
        reload(
            &gateway,
            world,
            &[("orders", "'orders-db.internal:5432-5433'")],
            LOADED,
        )?;
        assert_eq!(seen_from(world, TARGET_V4)?, THROUGH);
        let said = gateway
            .events(5000)?
            .iter()
            .filter(|event| event.to_string().contains("addresses stay"))
            .count();
        assert_eq!(said, 2, "each change of state is said once");
        Ok(())
    })
}

#[test]
fn an_unusable_name_starts_nothing() -> Result<()> {
    with_world("names-start", |world| {
        let dns = Dns::start(
            world,
            &[
                (DB, &["10.77.2.2"]),
                ("loop.internal", &["127.0.0.1"]),
                ("group.internal", &["224.0.0.1", "169.254.169.254"]),
                ("copy.internal", &["10.77.2.3", "10.77.2.2"]),
            ],
        )?;
        let server = dns.address();
        let refused = |targets: &[(&str, &str)], server: &str| -> Result<String> {
            let policies = world.write_policy(&policy(targets))?;
            Gateway::refuses_with(world, &policies, &["--dns-server", server])
        };
        let error = refused(
            &[
                ("a", "'10.77.2.2:5432'"),
                ("orders", "'none.internal:5432'"),
            ],
            &server,
        )?;
        let place = "policy.yaml:13: none.internal: there is no such name (NXDOMAIN)";
        assert!(error.contains(place), "{error}");
        for name in ["loop", "group"] {
            let error = refused(&[("orders", &format!("'{name}.internal:5432'"))], &server)?;
            assert!(
                error.contains("an answer from DNS cannot make that a target"),
                "{error}"
            );
        }
        let both = [
            ("a", "'orders-db.internal:5432'"),
            ("b", "'copy.internal:5000-6000'"),
        ];
        let error = refused(&both, &server)?;
        assert!(error.contains("10.77.2.2 belongs to the target"), "{error}");
        // Nobody answers here.
        let error = refused(&[("orders", "'orders-db.internal:5432'")], "10.77.1.1:54")?;
        assert!(
            error.contains("orders-db.internal: no DNS server"),
            "{error}"
        );
        assert_eq!(seen_from(world, TARGET_V4)?, DIRECT);
        Ok(())
    })
}

#[test]
fn an_answer_cannot_point_into_the_gateway() -> Result<()> {
    with_world("names-rebind", |world| {
        let dns = Dns::start(world, &[(DB, &["10.77.2.2"])])?;
        let gateway = start(world, &dns, &[("orders", "'orders-db.internal:5432'")])?;
        dns.set(&[(DB, &["10.77.2.2", "127.0.0.1", "::1"])])?;
        change(&gateway, "127.0.0.1, ::1 is refused")?;
        let mut refused = world.command(From::Local, "psql")?;
        refused.args(["-X", "-h", "127.0.0.1", "-c", "SELECT 1"]);
        // Nobody listens there, and nobody who was brought there answered.
        interceptor_tests::process::run(refused, Duration::from_secs(10))?.failure()?;
        assert!(gateway.sessions()?.is_empty());
        assert_eq!(seen_from(world, TARGET_V4)?, THROUGH);
        // If nothing else is left, what was stays.
        dns.set(&[(DB, &["127.0.0.1"])])?;
        change(&gateway, "its addresses stay")?;
        std::thread::sleep(TTL + GRACE + Duration::from_secs(2));
        assert_eq!(seen_from(world, TARGET_V4)?, THROUGH);
        Ok(())
    })
}

#[test]
fn an_address_stays_with_the_name_that_had_it_first() -> Result<()> {
    with_world("names-move", |world| {
        let dns = Dns::start(
            world,
            &[
                ("a.internal", &["10.77.2.2"]),
                ("b.internal", &["10.77.2.3"]),
            ],
        )?;
        let targets = [("a", "'a.internal:5432'"), ("b", "'b.internal:5432'")];
        let gateway = start(world, &dns, &targets)?;
        let target_of = |host| -> Result<String> {
            let _open = log_in(world, host)?;
            let sessions = gateway.sessions()?;
            let target = sessions.first().and_then(|row| row.get("target"));
            let target = target
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned();
            drop(_open);
            wait_until("it is gone", Duration::from_secs(10), || {
                Ok(gateway.sessions()?.is_empty())
            })?;
            Ok(target)
        };
        let mut open = log_in(world, TARGET_V4)?;
        dns.set(&[
            ("a.internal", &["10.77.2.9"]),
            ("b.internal", &["10.77.2.2", "10.77.2.3"]),
        ])?;
        change(
            &gateway,
            "b.internal: 10.77.2.2 belongs to the target a as a.internal",
        )?;
        let sessions = gateway.sessions()?;
        assert_eq!(
            sessions.first().and_then(|row| row.get("target")),
            Some(&Value::from("a"))
        );
        // What came while it ran does not stop a reload.
        reload(&gateway, world, &targets, LOADED)?;
        open.query("SELECT 1")?;
        drop(open);
        change(&gateway, "a.internal: - 10.77.2.2")?;
        assert_eq!(target_of(TARGET_V4)?, "b");
        assert_eq!(target_of(UNNAMED_V4)?, "b");
        Ok(())
    })
}

#[test]
fn a_reload_with_an_unknown_name_changes_nothing() -> Result<()> {
    with_world("names-reload", |world| {
        let dns = Dns::start(world, &[(DB, &["10.77.2.2"])])?;
        let gateway = start(world, &dns, &[("orders", "'orders-db.internal:5432'")])?;
        reload(
            &gateway,
            world,
            &[("orders", "'other.internal:5432'")],
            REFUSED,
        )?;
        let why = "policy.yaml:6: other.internal: there is no such name";
        gateway.event("policy-refused", |event| event.to_string().contains(why))?;
        assert_eq!(seen_from(world, TARGET_V4)?, THROUGH);
        // Nor does one that the kernel plane refuses, although the name in it can be resolved.
        dns.set(&[(DB, &["10.77.2.2"]), ("other.internal", &["10.77.2.3"])])?;
        let own_port = [("orders", "'other.internal:5432', '10.88.0.1:15001'")];
        reload(&gateway, world, &own_port, REFUSED)?;
        assert_eq!(seen_from(world, TARGET_V4)?, THROUGH);
        assert_eq!(seen_from(world, UNNAMED_V4)?, DIRECT);
        reload(
            &gateway,
            world,
            &[("orders", "'other.internal:5432'")],
            LOADED,
        )?;
        assert_eq!(seen_from(world, UNNAMED_V4)?, THROUGH);
        assert_eq!(seen_from(world, TARGET_V4)?, DIRECT);
        Ok(())
    })
}

#[test]
fn a_unix_socket_is_refused_while_the_policy_names_it() -> Result<()> {
    with_world("names-unix", |world| {
        let directory = world.directory().join("postgres");
        let reaches = || -> Result<bool> {
            let mut psql = world.command_as(From::Local, "psql", Some(ACCOUNT))?;
            psql.arg("-h").arg(&directory);
            psql.args(["-X", "-d", DATABASE, "-c", "SELECT 1"])
                .current_dir("/");
            let finished = interceptor_tests::process::run(psql, Duration::from_secs(30))?;
            Ok(finished.status.success())
        };
        assert!(reaches()?);
        let dns = Dns::start(world, &[])?;
        let socket = format!("'unix:{}/.s.PGSQL.5432'", directory.display());
        let gateway = start(world, &dns, &[("orders", &socket)])?;
        assert!(!reaches()?);
        let other = [("orders", "'10.77.2.2:5432'")];
        reload(&gateway, world, &other, LOADED)?;
        assert!(reaches()?);
        let both = format!("'10.77.2.2:5432', {socket}");
        reload(&gateway, world, &[("orders", &both)], LOADED)?;
        assert!(!reaches()?);
        assert_eq!(seen_from(world, TARGET_V4)?, THROUGH);
        Ok(())
    })
}

/// What the policies of [`targets_change_under_load`] have besides the target that is hammered, whose
/// endpoints change as well and always hold 10.77.2.2.
fn policy_of_round(round: usize) -> Vec<(&'static str, &'static str)> {
    let orders = [
        "'10.77.2.2:5432'",
        "'10.77.2.0/30:5432'",
        "'orders-db.internal:5432', '10.77.2.3:5432'",
        "'10.77.2.2:5000-6000', '10.0.0.0/8:5432'",
    ];
    let orders = orders.iter().cycle().nth(round).copied();
    let mut targets = vec![("orders", orders.unwrap_or_default())];
    let others = [
        ("single", "'10.88.0.1:5432', '[fd88::1]:5432'"),
        (
            "ranges",
            "'10.88.0.0/16:1-1024', '10.77.2.0/24:80-90', '[fd88::/64]:5432-5440'",
        ),
        ("named", "'other-db.internal:5432'"),
        (
            "many",
            "'10.89.0.1:1', '10.89.0.2:2', '10.89.0.3:3', '10.89.0.0/24:4-9'",
        ),
    ];
    targets.extend(
        others
            .iter()
            .enumerate()
            .filter(|(at, _)| (round >> at) & 1 == 1)
            .map(|(_, other)| *other),
    );
    targets
}

#[test]
fn targets_change_under_load() -> Result<()> {
    const SESSIONS: usize = 50;
    const RELOADS: usize = 20;
    with_world("names-load", |world| {
        let dns = Dns::start(
            world,
            &[(DB, &["10.77.2.2"]), ("other-db.internal", &["10.77.2.9"])],
        )?;
        let gateway = start(world, &dns, &policy_of_round(1))?;
        let mut open = Vec::new();
        for _ in 0..SESSIONS {
            let mut wire = log_in(world, TARGET_V4)?;
            wire.query("CREATE TEMP TABLE mine (x int)")?;
            open.push(wire);
        }
        // This one's endpoint comes and goes; the session has to stay.
        let mut outside = log_in(world, UNNAMED_V4)?;
        outside.query("CREATE TEMP TABLE mine (x int)")?;

        let is_over = AtomicBool::new(false);
        let hammer = || -> Result<usize> {
            let mut count = 0;
            while !is_over.load(Ordering::Relaxed) {
                let mut wire = log_in(world, TARGET_V4)?;
                let replies = wire.query("SELECT host(inet_client_addr())")?;
                let row = replies
                    .iter()
                    .find(|reply| reply.tag == b'D')
                    .context("no row")?;
                ensure!(row.text().ends_with(THROUGH.trim()), "{:?}", row.text());
                count += 1;
            }
            Ok(count)
        };
        // From the gateway's host nothing but the gateway can reach the target.
        let local_hammer = || -> Result<usize> {
            let mut count = 0;
            while !is_over.load(Ordering::Relaxed) {
                world.psql(From::Local).run("SELECT 1")?.success()?;
                count += 1;
            }
            Ok(count)
        };
        let (reloaded, counts) = std::thread::scope(|scope| {
            let hammers = [
                scope.spawn(hammer),
                scope.spawn(hammer),
                scope.spawn(local_hammer),
            ];
            let mut reload_all = || -> Result<()> {
                for round in 2..2 + RELOADS {
                    reload(&gateway, world, &policy_of_round(round), LOADED)?;
                    for wire in open.iter_mut().chain([&mut outside]) {
                        let replies = wire.query("SELECT x FROM mine")?;
                        ensure!(
                            replies
                                .iter()
                                .any(|reply| reply.text().starts_with("SELECT 0"))
                        );
                    }
                }
                Ok(())
            };
            let reloaded = reload_all();
            is_over.store(true, Ordering::Relaxed);
            let counts = hammers.map(|hammer| hammer.join().expect("a client panicked"));
            (reloaded, counts)
        });
        reloaded?;
        for count in counts {
            let count = count?;
            assert!(count > RELOADS, "{count} connections are no load");
            eprintln!("{count} connections");
        }
        // By the target's own account, nobody came past the gateway.
        let log = world.postgres.network_log()?;
        let received: Vec<&str> = log
            .lines()
            .filter(|line| line.contains("connection received"))
            .collect();
        assert!(received.len() > SESSIONS);
        let past: Vec<_> = received
            .iter()
            .filter(|line| !line.contains("host=10.77.2.1 "))
            .collect();
        assert!(past.is_empty(), "{past:?}");
        Ok(())
    })
}
