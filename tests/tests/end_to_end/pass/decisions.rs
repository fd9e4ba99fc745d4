//! Who may pass: what a rule names, what a person approves, and nothing else.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use interceptor_tests::{From, process, wait_until, with_gateway};
use nix::sys::signal::Signal;

use super::{LIMIT, PASS, Server, closed, connect, echo, is_refused, is_reset, says};

#[test]
fn only_what_a_rule_names_passes() -> Result<()> {
    with_gateway("pass-deny", PASS, |world, gateway| {
        let unnamed = Server::start(world, 7004, echo)?;
        let refused = Server::start(world, 7003, echo)?;
        Server::start(world, 7000, echo)?;
        for port in [7003, 7004] {
            assert!(is_refused(world, port)?, "port {port}");
        }
        assert_eq!((unnamed.accepted(), refused.accepted()), (0, 0));
        let of_target = |port: &str| {
            let text = format!("CONNECT 10.77.2.2:{port}");
            gateway.event("command", |event| event["text"] == text)
        };
        let command = of_target("7004")?;
        assert_eq!(command["decision"], "deny");
        assert_eq!(command["rule"], "", "a rule for everything named it");
        let command = of_target("7003")?;
        assert_eq!(command["rule"], "not-this-one");
        assert_eq!(command["kinds"], serde_json::json!(["CONNECT"]));
        closed(gateway, "refused: use another")?;

        let mut stream = connect(world, 7000)?;
        says(&mut stream, "hello")?;
        let command = of_target("7000")?;
        assert_eq!(command["decision"], "allow");
        assert_eq!(command["rule"], "echo-may-pass");
        let source = command["rule_source"].as_str().unwrap_or_default();
        assert!(source.ends_with("policy.yaml:24"), "{source}");
        // Another policy decides on the next connection; this one goes on.
        world.write_policy(&PASS.replace(
            "name: echo-may-pass\nspec:\n  match: {targets: [echo]",
            "name: echo-may-pass\nspec:\n  match: {targets: [asks]",
        ))?;
        gateway.signal(Signal::SIGHUP)?;
        wait_until("the new policy is in force", LIMIT, || {
            let mut stream = connect(world, 7000)?;
            Ok(says(&mut stream, "hello").is_err())
        })?;
        says(&mut stream, "still there?")?;
        stream.shutdown(Shutdown::Write)?;
        assert!(!is_reset(&mut stream)?);
        let reason = "closed in order, the client first";
        gateway.event("close", |event| {
            // Those that were only asked whether they pass took five bytes each.
            event["reason"] == reason && event["bytes_up"] == 17 && event["bytes_down"] == 17
        })?;
        gateway.event("outcome", |event| event["tag"] == "CONNECT")?;
        Ok(())
    })
}

#[test]
fn held_it_waits_and_nothing_is_dialled() -> Result<()> {
    with_gateway("pass-hold", PASS, |world, gateway| {
        let asks = Server::start(world, 7001, echo)?;
        let hurried = Server::start(world, 7002, echo)?;
        let answer = |number: u64, answer: &str| {
            gateway
                .cli(&["approvals", answer, &number.to_string()])?
                .success()
        };
        let resolved = |wanted: &str| gateway.event("approval", |it| it["resolution"] == wanted);

        let mut stream = connect(world, 7001)?;
        stream.write_all(b"early")?;
        let number = gateway.held_request()?;
        let shown = gateway.cli(&["approvals", "show", &number.to_string()])?;
        let shown = shown.success()?;
        assert!(shown.contains("CONNECT 10.77.2.2:7001"), "{shown}");
        assert_eq!(gateway.sessions()?[0]["state"], "held");
        assert_eq!(asks.accepted(), 0);
        answer(number, "approve")?;
        let mut early = [0; 5];
        stream.read_exact(&mut early)?;
        assert_eq!(&early, b"early");
        says(&mut stream, "and late")?;
        resolved("approved")?;

        let mut stream = connect(world, 7001)?;
        answer(gateway.held_request()?, "deny")?;
        assert!(is_reset(&mut stream)?);
        resolved("denied")?;

        let stream = connect(world, 7001)?;
        let number = gateway.held_request()?;
        drop(stream);
        wait_until("the request is withdrawn", LIMIT, || {
            Ok(gateway.held()?.is_empty())
        })?;
        assert!(answer(number, "approve").is_err());
        resolved("client_gone")?;
        assert_eq!(asks.accepted(), 1);

        let start = Instant::now();
        let mut stream = connect(world, 7002)?;
        assert!(is_reset(&mut stream)?);
        assert!(start.elapsed() >= Duration::from_secs(1));
        resolved("timed_out")?;
        assert_eq!(hurried.accepted(), 0);
        Ok(())
    })
}

#[test]
fn a_real_redis() -> Result<()> {
    with_gateway("pass-redis", PASS, |world, gateway| {
        let directory = world.directory().join("redis");
        std::fs::create_dir(&directory)?;
        let mut server = world.target_command("redis-server")?;
        server.args([
            "--bind",
            "10.77.2.2",
            "--protected-mode",
            "no",
            "--save",
            "",
        ]);
        server.arg("--dir").arg(&directory);
        let mut server = process::Running::spawn(server, "")?;
        let redis = |from: From, arguments: &[&str]| -> Result<String> {
            let mut command = world.command(from, "redis-cli")?;
            command.args(["-h", "10.77.2.2"]).args(arguments);
            process::run(command, LIMIT)?.success()
        };
        wait_until("redis answers", LIMIT, || {
            if server.has_ended()? {
                bail!("redis did not start\n{}", server.stdout()?);
            }
            Ok(redis(From::Client, &["ping"]).is_ok_and(|answer| answer == "PONG\n"))
        })?;
        let large = "v".repeat(100_000);
        assert_eq!(redis(From::Client, &["set", "key", &large])?, "OK\n");
        assert_eq!(redis(From::Local, &["get", "key"])?.trim_end(), large);
        // Who it was is known, as for every local client.
        let event = gateway.event("connection", |event| !event["process"].is_null())?;
        assert_eq!(event["protocol"], "tcp");
        assert_eq!(event["process"]["comm"], "redis-cli");
        let verdict = gateway.cli(&["audit", "verify"])?.success()?;
        assert!(verdict.contains("intact"), "{verdict}");
        Ok(())
    })
}
