//! How the gateway starts, stops, dies and goes: no gap in between.

use std::fs;
use std::net::{Ipv6Addr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use interceptor_tests::policies::{OPEN, SHOP};
use interceptor_tests::process::scaled;
use interceptor_tests::wire::{Wire, message, query};
use interceptor_tests::world::{TARGET_V4, TARGET_V6, UNNAMED_V4};
use interceptor_tests::{From, Gateway, World, postgres, wait_until, with_gateway, with_world};
use nix::sys::signal::Signal;

/// Both kinds of client are refused, at once, over both families, and the target hears nothing.
fn refused(world: &World) -> Result<()> {
    let connections = || -> Result<usize> {
        Ok(world
            .postgres
            .network_log()?
            .matches("connection received")
            .count())
    };
    let before = connections()?;
    for from in [From::Client, From::Local] {
        for host in [std::net::IpAddr::from(TARGET_V4), TARGET_V6.into()] {
            let finished = world.psql(from).host(host).run("SELECT 1")?;
            let elapsed = finished.elapsed;
            let error = finished.failure()?;
            assert!(error.contains("refused"), "{from:?} to {host}: {error}");
            assert!(
                elapsed < scaled(Duration::from_secs(1)),
                "{from:?} to {host}: {elapsed:?}"
            );
        }
    }
    assert_eq!(connections()?, before, "the target was reached");
    Ok(())
}

#[test]
fn killed_it_refuses_and_restarted_it_carries() -> Result<()> {
    with_gateway("life-kill", SHOP, |world, gateway| {
        let mut open = Wire::new(world.connect(TARGET_V4)?)?;
        open.log_in()?;
        gateway.kill()?;
        // The open session is over as well.
        assert!(open.query("SELECT 1").is_err());
        refused(world)?;
        // What no policy names is not touched.
        let direct = world.psql(From::Client).host(UNNAMED_V4).bare();
        assert_eq!(direct.run("SELECT 1")?.success()?, "1\n");

        gateway.restart()?;
        for from in [From::Client, From::Local] {
            let psql = world.psql(from).bare();
            let row = psql
                .run("SELECT email FROM customers WHERE id = 1")?
                .success()?;
            assert_eq!(row, "****\n");
        }
        let verdict = gateway.cli(&["audit", "verify"])?.success()?;
        assert!(verdict.contains("intact"), "{verdict}");
        Ok(())
    })
}

#[test]
fn terminated_it_lets_work_end() -> Result<()> {
    with_gateway("life-drain", SHOP, |world, gateway| {
        let mut idle = Wire::new(world.connect(TARGET_V4)?)?;
        idle.log_in()?;
        let mut busy = Wire::new(world.connect(TARGET_V4)?)?;
        busy.log_in()?;
        busy.send(&query("SELECT pg_sleep(2), 'finished'"))?;
        wait_until("the query runs", Duration::from_secs(5), || {
            world.postgres.has_seen("pg_sleep")
        })?;
        let start = Instant::now();
        gateway.terminate()?;
        let replies = busy.until(b'Z')?;
        assert!(
            replies
                .iter()
                .any(|reply| reply.text().contains("finished"))
        );
        let goodbye = idle.until_closed()?;
        let codes: Vec<_> = goodbye
            .iter()
            .filter_map(|reply| reply.field(b'C'))
            .collect();
        assert!(codes.iter().all(|code| code == "57P01"), "{codes:?}");
        let status = gateway.wait(Duration::from_secs(15))?;
        assert!(status.success(), "{status}");
        assert!(
            start.elapsed() < Duration::from_secs(12),
            "{:?}",
            start.elapsed()
        );
        refused(world)?;
        let log = gateway.state_directory().join("audit");
        let tail = gateway
            .audit_in(&log, &["tail", "-n", "50", "--json"])?
            .success()?;
        assert!(tail.contains("gateway-stopped"), "{tail}");
        Ok(())
    })
}

#[test]
fn detached_it_leaves_nothing() -> Result<()> {
    with_world("life-detach", |world| {
        let look = |line: &str| -> Result<String> {
            let mut command = world.gateway_command("sh", None)?;
            command.args(["-c", line]);
            interceptor_tests::process::run(command, Duration::from_secs(5))?.success()
        };
        // Sorted, and not a set: the same twice is a trace as well.
        let traces = || -> Result<Vec<String>> {
            let mut lines = Vec::new();
            for place in [
                "ip rule",
                "ip -6 rule",
                "ip route show table all",
                "ip -o link",
                "tc qdisc",
                "nft list ruleset",
                // Some of them cannot be read, whatever the gateway does.
                "grep -rs . /proc/sys/net/ipv[46] | cat",
            ] {
                lines.extend(look(place)?.lines().map(|line| format!("{place}: {line}")));
            }
            lines.sort();
            Ok(lines)
        };
        let before = traces()?;
        let policies = world.write_policy(SHOP)?;
        let mut gateway = Gateway::start(world, &policies)?;
        assert_ne!(traces()?, before, "the gateway changed nothing");
        gateway.terminate()?;
        gateway.wait(Duration::from_secs(15))?;
        refused(world)?;

        gateway.detach()?.success()?;
        let after = traces()?;
        let left: Vec<_> = after.iter().filter(|line| !before.contains(line)).collect();
        let lost: Vec<_> = before.iter().filter(|line| !after.contains(line)).collect();
        assert!(left.is_empty() && lost.is_empty(), "{left:#?}\n{lost:#?}");
        assert_eq!(after.len(), before.len(), "something is there twice");
        assert!(!world.bpffs().exists(), "pins are left");
        assert!(
            !world.cgroup().join("interceptor").exists(),
            "the proxy's cgroup is left"
        );
        let attached = Command::new("bpftool")
            .args(["cgroup", "show"])
            .arg(world.cgroup())
            .output()?;
        assert_eq!(String::from_utf8_lossy(&attached.stdout).trim(), "");
        let devices = look("bpftool net show")?;
        assert!(!devices.contains("client0"), "{devices}");
        for from in [From::Client, From::Local] {
            let row = world
                .psql(from)
                .bare()
                .run("SELECT ssn FROM customers WHERE id = 1")?;
            assert_eq!(row.success()?, "219-09-9999\n");
        }
        // Again, when there is nothing left to do.
        gateway.detach()?.success()?;
        Ok(())
    })
}

#[test]
fn it_refuses_to_start_in_one_line() -> Result<()> {
    with_world("life-refuse", |world| {
        let good = world.write_policy(OPEN)?;
        let one_line = |error: String| -> Result<String> {
            assert_eq!(error.trim_end().lines().count(), 1, "{error}");
            assert!(error.starts_with("interceptor: "), "{error}");
            Ok(error)
        };

        let nowhere = world.cgroup().join("nowhere");
        let error = one_line(Gateway::refuses_to_start(world, &good, &nowhere, None)?)?;
        assert!(error.contains("nowhere"), "{error}");

        // Anybody can read the program, and nobody but root can run it.
        let copy = world.directory().join("interceptor");
        fs::copy(world.binary()?, &copy)?;
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o755))?;
        let error =
            Gateway::refuses_to_start(world, &good, world.cgroup(), Some(postgres::ACCOUNT))?;
        let error = one_line(error)?;
        assert!(error.contains("root") || error.contains("CAP_"), "{error}");

        let taken = world
            .gateway
            .enter(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, 15001)))??;
        let error = one_line(Gateway::refuses_to_start(
            world,
            &good,
            world.cgroup(),
            None,
        )?)?;
        assert!(error.contains("15001"), "{error}");
        drop(taken);

        let row = world.psql(From::Client).bare().run("SELECT 1")?.success()?;
        assert_eq!(row, "1\n", "a gateway that did not start is in the way");
        Ok(())
    })
}

#[test]
fn it_refuses_a_broken_policy_with_its_place() -> Result<()> {
    with_world("life-policy", |world| {
        let text = "kind: Target\nname: orders\nspec:\n  protokol: postgres\n";
        let broken = world.write_policy(text)?;
        let error = Gateway::refuses_to_start(world, &broken, world.cgroup(), None)?;
        assert!(error.contains("policy.yaml:4"), "{error}");
        assert!(
            error.contains("protocol"),
            "it does not say what was meant: {error}"
        );
        assert!(
            !world.bpffs().exists(),
            "it attached before it read the policy"
        );

        fs::write(broken.join("policy.yaml"), "")?;
        let error = Gateway::refuses_to_start(world, &broken, world.cgroup(), None)?;
        assert!(error.contains("policy.yaml"), "{error}");
        Ok(())
    })
}

#[test]
fn a_broken_policy_at_reload_changes_nothing() -> Result<()> {
    with_gateway("life-reload", OPEN, |world, gateway| {
        let psql = world.psql(From::Client).bare();
        let email = "SELECT email FROM customers WHERE id = 1";
        assert_eq!(psql.run(email)?.success()?, "ada.lovelace@example.com\n");
        world.write_policy("kind: Rule\n")?;
        gateway.signal(Signal::SIGHUP)?;
        std::thread::sleep(Duration::from_millis(500));
        assert_eq!(psql.run(email)?.success()?, "ada.lovelace@example.com\n");

        world.write_policy(SHOP)?;
        gateway.signal(Signal::SIGHUP)?;
        wait_until("the new policy is in force", Duration::from_secs(5), || {
            Ok(psql.run(email)?.success()? == "****\n")
        })
    })
}

/// Whoever closes first keeps the connection for a minute: that is the client, where it says goodbye.
#[test]
fn sessions_that_end_in_order_leave_no_time_wait() -> Result<()> {
    with_gateway("life-ports", OPEN, |world, gateway| {
        for _ in 0..200 {
            let mut wire = Wire::new(world.connect(TARGET_V4)?)?;
            wire.log_in()?;
            wire.send(&message(b'X', b""))?;
        }
        wait_until("the sessions are over", Duration::from_secs(10), || {
            Ok(gateway.sessions()?.is_empty())
        })?;
        let mut ss = world.gateway_command("ss", None)?;
        ss.args(["-Htan", "state", "time-wait", "( sport = :5432 )"]);
        let waiting = interceptor_tests::process::run(ss, Duration::from_secs(5))?.success()?;
        assert_eq!(waiting, "");
        Ok(())
    })
}

#[test]
fn a_local_process_is_known() -> Result<()> {
    with_gateway("life-local", SHOP, |world, gateway| {
        let psql = world.psql(From::Local).account(postgres::ACCOUNT).bare();
        psql.run("SELECT 'who am I?'")?.success()?;
        let account = nix::unistd::User::from_name(postgres::ACCOUNT)?.context("no such user")?;
        let event = gateway.event("connection", |event| !event["process"].is_null())?;
        let process = &event["process"];
        assert_eq!(process["uid"], account.uid.as_raw());
        assert_eq!(process["gid"], account.gid.as_raw());
        assert_eq!(process["comm"], "psql");
        assert_eq!(process["cgroup"], "/icpt-life-local/apps");
        let executable = process["executable"].as_str().unwrap_or_default();
        assert!(executable.ends_with("/psql"), "{executable}");
        let line = process["command_line"].as_str().unwrap_or_default();
        assert!(line.contains("who am I?"), "{line}");
        let hash = Command::new("sha256sum").arg(executable).output()?.stdout;
        let hash = String::from_utf8(hash)?;
        assert_eq!(
            process["executable_sha256"],
            hash.split(' ').next().unwrap_or("none")
        );
        assert_eq!(process["is_own_netns"], true);
        assert!(process["started"].is_string(), "{event}");
        // A routed client has no process here.
        world.psql(From::Client).run("SELECT 1")?.success()?;
        let client = |event: &serde_json::Value| {
            event["client"]
                .as_str()
                .is_some_and(|client| client.starts_with("10.77.1.2:"))
        };
        let event = gateway.event("connection", client)?;
        assert!(event["process"].is_null(), "{event}");
        Ok(())
    })
}

#[test]
fn the_command_line_explains_itself() -> Result<()> {
    with_gateway("life-status", SHOP, |world, gateway| {
        world.psql(From::Client).run("SELECT 1")?.success()?;
        let status = gateway.cli(&["status", "--bpffs", &world.bpffs().to_string_lossy()])?;
        assert!(
            status.success()?.contains("orders"),
            "no target in the status"
        );
        gateway.cli(&["approvals", "show", "4711"])?.failure()?;
        let usage = gateway.cli(&["approvals", "aprove", "1"])?;
        assert_eq!(usage.status.code(), Some(2), "{}", usage.stderr);
        gateway.kill()?;
        let status = gateway.cli(&["status", "--bpffs", &world.bpffs().to_string_lossy()])?;
        let text = status.success()?;
        assert!(
            !text.is_empty(),
            "the kernel's part of the status needs no gateway"
        );
        Ok(())
    })
}
