//! Changed policy files take effect in sessions that are open, whatever the way of the change.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use interceptor_tests::policies::OPEN;
use interceptor_tests::wire::Wire;
use interceptor_tests::world::TARGET_V4;
use interceptor_tests::{From, Gateway, World, wait_until, with_world};
use nix::sys::signal::Signal;
use serde_json::Value;

/// Generous: the machine may be busy.
const LIMIT: Duration = Duration::from_secs(20);
/// What a rule of the test is asked with.
const ASK: &str = "TRUNCATE nothing";

/// A rule that refuses [`ASK`] in these words.
fn rule(words: &str) -> String {
    format!(
        "{{kind: Rule, name: r, spec: {{match: {{statements: [TRUNCATE]}}, then: {{deny: {words}}}}}}}\n"
    )
}

/// What a live session is told.
fn told(wire: &mut Wire) -> Result<String> {
    let replies = wire.query(ASK)?;
    let message = replies.iter().find_map(|reply| reply.field(b'M'));
    message.context("no error")
}

fn wait_told(wire: &mut Wire, words: &str) -> Result<()> {
    wait_until(&format!("the session is told {words:?}"), LIMIT, || {
        Ok(told(wire)?.contains(words))
    })
}

fn live(world: &World) -> Result<Wire> {
    let mut wire = Wire::new(world.connect(TARGET_V4)?)?;
    wire.log_in()?;
    Ok(wire)
}

fn status(gateway: &Gateway<'_>) -> Result<Value> {
    let shown = gateway.cli(&["status", "--json"])?;
    Ok(serde_json::from_str(&shown.stdout)?)
}

fn policy_status(gateway: &Gateway<'_>) -> Result<Value> {
    let status = status(gateway)?;
    let policy = status.pointer("/gateway/status/policy");
    policy.cloned().context("no policy in the status")
}

fn events(gateway: &Gateway<'_>, kind: &str) -> Result<Vec<Value>> {
    let mut events = gateway.events(5000)?;
    events.retain(|event| event.get("kind").is_some_and(|name| name == kind));
    Ok(events)
}

/// Puts a file under its name at once, as editors do.
fn save(path: &Path, text: &str) -> Result<()> {
    let new = path.with_extension("new~");
    fs::write(&new, text)?;
    Ok(fs::rename(new, path)?)
}

fn directory(place: PathBuf, words: &str) -> Result<PathBuf> {
    fs::create_dir_all(&place)?;
    fs::write(place.join("target.yaml"), OPEN)?;
    fs::write(place.join("rule.yaml"), rule(words))?;
    Ok(place)
}

/// It looks by itself so seldom that only the kernel's word can bring a change here.
const SELDOM: [&str; 2] = ["--policy-watch", "1h"];

#[test]
fn files_that_change_decide_the_next_command_of_open_sessions() -> Result<()> {
    with_world("reload-files", |world| {
        let policies = directory(world.directory().join("policies"), "version 1")?;
        let gateway = Gateway::start_with(world, &policies, &SELDOM)?;
        let mut wire = live(world)?;
        wait_told(&mut wire, "version 1")?;
        let at = |name: &str| policies.join(name);

        fs::write(at("rule.yaml"), rule("version 2"))?;
        wait_told(&mut wire, "version 2")?;
        save(&at("rule.yaml"), &rule("version 3"))?;
        wait_told(&mut wire, "version 3")?;
        fs::remove_file(at("rule.yaml"))?;
        wait_told(&mut wire, "does not exist")?;
        fs::write(at("another.yml"), rule("version 4"))?;
        wait_told(&mut wire, "version 4")?;

        // No file of the policy.
        let before = policy_status(&gateway)?;
        fs::write(at("README.md"), "not a policy")?;
        fs::create_dir(at("tests"))?;
        // The next change comes after it.
        save(&at("another.yml"), &rule("version 5"))?;
        wait_told(&mut wire, "version 5")?;
        let after = policy_status(&gateway)?;
        assert_eq!(before["reloads"]["loaded"], 4, "{before}");
        assert_eq!(after["reloads"]["loaded"], 5, "{after}");
        assert_eq!(after["files"], 2, "{after}");
        assert_ne!(after["since"], before["since"]);

        // A new session of a real client is told the same.
        let refused = world.psql(From::Client).bare().run(ASK)?.failure()?;
        assert!(refused.contains("version 5"), "{refused}");
        Ok(())
    })
}

#[test]
fn directories_are_exchanged_like_files() -> Result<()> {
    with_world("reload-swap", |world| {
        // As Kubernetes mounts a ConfigMap, behind one more link.
        let mount = world.directory().join("mount");
        let at = |name: &str| mount.join(name);
        directory(at("..2026_01"), "map 1")?;
        symlink("..2026_01", at("..data"))?;
        for name in ["target.yaml", "rule.yaml"] {
            symlink(format!("..data/{name}"), at(name))?;
        }
        let link = world.directory().join("current");
        symlink("mount", &link)?;
        let gateway = Gateway::start_with(world, &link, &SELDOM)?;
        let mut wire = live(world)?;
        wait_told(&mut wire, "map 1")?;
        for (name, old, words) in [
            ("..2026_02", "..2026_01", "map 2"),
            ("..2026_03", "..2026_02", "map 3"),
        ] {
            directory(at(name), words)?;
            symlink(name, at("..data_tmp"))?;
            fs::rename(at("..data_tmp"), at("..data"))?;
            fs::remove_dir_all(at(old))?;
            wait_told(&mut wire, words)?;
        }

        // The link leads elsewhere.
        directory(world.directory().join("release-4"), "release 4")?;
        symlink("release-4", world.directory().join("next"))?;
        fs::rename(world.directory().join("next"), &link)?;
        wait_told(&mut wire, "release 4")?;
        // And what it leads to is exchanged, and changed.
        fs::rename(
            world.directory().join("release-4"),
            world.directory().join("old"),
        )?;
        directory(world.directory().join("release-4"), "release 5")?;
        wait_told(&mut wire, "release 5")?;
        save(
            &world.directory().join("release-4/rule.yaml"),
            &rule("release 6"),
        )?;
        wait_told(&mut wire, "release 6")?;
        assert!(policy_status(&gateway)?["refused"].is_null());
        Ok(())
    })
}

#[test]
fn broken_files_and_none_keep_the_last_good_policy() -> Result<()> {
    with_world("reload-broken", |world| {
        let policies = directory(world.directory().join("policies"), "good 1")?;
        let gateway = Gateway::start_with(world, &policies, &["--policy-watch", "1s"])?;
        let mut wire = live(world)?;
        wait_told(&mut wire, "good 1")?;
        let hash = policy_status(&gateway)?["hash"].clone();

        fs::write(policies.join("rule.yaml"), "kind: Rul\nname: r\nspec: {}\n")?;
        let refused = gateway.event("policy-refused", |_| true)?;
        let detail = refused["detail"].as_str().unwrap_or_default();
        assert!(detail.contains("did you mean `Rule`?"), "{detail}");
        assert!(detail.contains("rule.yaml:1:7"), "{detail}");
        assert!(told(&mut wire)?.contains("good 1"));
        let finished = gateway.cli(&["status", "--bpffs", &world.bpffs().to_string_lossy()])?;
        assert_eq!(finished.status.code(), Some(1));
        assert!(
            finished.stdout.contains("did you mean `Rule`?"),
            "{}",
            finished.stdout
        );
        assert!(
            finished.stderr.contains("older ones are in force"),
            "{}",
            finished.stderr
        );

        // It looks each second, and still says it once: the directory's end is the next event.
        let since = policy_status(&gateway)?["refused"]["since"].clone();
        std::thread::sleep(Duration::from_secs(3));
        fs::remove_dir_all(&policies)?;
        let gone = |event: &Value| {
            event
                .to_string()
                .contains("cannot read the policy directory")
        };
        gateway.event("policy-refused", gone)?;
        assert!(told(&mut wire)?.contains("good 1"));
        assert_eq!(events(&gateway, "policy-refused")?.len(), 2);
        let shown = policy_status(&gateway)?;
        assert_eq!(shown["refused"]["since"], since, "{shown}");
        assert_eq!(shown["hash"], hash, "{shown}");
        assert_eq!(shown["reloads"]["refused"], 2, "{shown}");

        // A half-written state comes in between, and the rest mends it.
        fs::create_dir(&policies)?;
        fs::write(policies.join("rule.yaml"), rule("good 2"))?;
        let half = |event: &Value| event.to_string().contains("no document of kind Target");
        gateway.event("policy-refused", half)?;
        fs::write(policies.join("target.yaml"), OPEN)?;
        wait_told(&mut wire, "good 2")?;
        wait_until("the status is good again", LIMIT, || {
            let finished = gateway.cli(&["status", "--bpffs", &world.bpffs().to_string_lossy()])?;
            Ok(finished.status.success())
        })
    })
}

#[test]
fn a_reload_that_is_asked_for_says_what_came_of_it() -> Result<()> {
    with_world("reload-asked", |world| {
        let policies = directory(world.directory().join("policies"), "asked 1")?;
        let gateway = Gateway::start_with(world, &policies, &["--policy-watch", "off"])?;
        let mut wire = live(world)?;
        let same = gateway.cli(&["policy", "reload"])?.success()?;
        assert!(same.contains("in force, as before"), "{same}");

        fs::write(policies.join("rule.yaml"), rule("asked 2"))?;
        fs::write(
            policies.join("more.yaml"),
            rule("more").replace("name: r", "name: s"),
        )?;
        // Long enough for a watch that is on.
        std::thread::sleep(Duration::from_secs(1));
        assert!(told(&mut wire)?.contains("asked 1"));
        let done = gateway.cli(&["policy", "reload"])?.success()?;
        // It holds for the very next command.
        assert!(told(&mut wire)?.contains("asked 2"));
        for line in [
            "files: 1 added, 1 changed, 0 removed",
            "targets: 1",
            "rules: 2, before 1",
        ] {
            assert!(done.contains(line), "{done}");
        }
        let hash = policy_status(&gateway)?["hash"].clone();
        let hash = hash.as_str().context("no hash")?;
        assert!(done.contains(hash), "{done}");

        fs::write(policies.join("more.yaml"), "kind: Rule\n---\nkind: Rul\n")?;
        let refused = gateway.cli(&["policy", "reload"])?.failure()?;
        // All of them.
        assert!(
            refused.contains("more.yaml:1:1") && refused.contains("more.yaml:3:7"),
            "{refused}"
        );
        assert!(
            refused.contains(hash.get(..12).unwrap_or(hash)),
            "{refused}"
        );
        assert!(told(&mut wire)?.contains("asked 2"));
        let refused = gateway.cli(&["policy", "reload", "--json"])?;
        assert_eq!(refused.status.code(), Some(1));
        let answer: Value = serde_json::from_str(&refused.stdout)?;
        assert_eq!(answer["loaded"], false, "{answer}");
        assert_eq!(answer["hash"], hash, "{answer}");

        // Who asked is on record, and SIGHUP does the same.
        gateway.event("administration", |event| {
            event["action"] == "reload the policy"
        })?;
        fs::remove_file(policies.join("more.yaml"))?;
        fs::write(policies.join("rule.yaml"), rule("asked 3"))?;
        gateway.signal(Signal::SIGHUP)?;
        wait_told(&mut wire, "asked 3")
    })
}

#[test]
fn what_decided_is_on_record_and_can_be_shown() -> Result<()> {
    with_world("reload-record", |world| {
        let policies = directory(world.directory().join("policies"), "record 1")?;
        // Larger than an event may be.
        let comment = format!("# {}\n", "x".repeat(900_000));
        for name in ["a.yaml", "b.yaml"] {
            let rule = rule("unused").replace("name: r", &format!("name: {}", &name[..1]));
            fs::write(
                policies.join(name),
                format!("{comment}{rule}").replace("TRUNCATE", "LOCK"),
            )?;
        }
        let mut gateway = Gateway::start_with(world, &policies, &["--policy-watch", "off"])?;
        let mut wire = live(world)?;
        wait_told(&mut wire, "record 1")?;
        let first = policy_status(&gateway)?["hash"].clone();
        save(&policies.join("rule.yaml"), &rule("record 2"))?;
        gateway.cli(&["policy", "reload"])?.success()?;
        wait_told(&mut wire, "record 2")?;
        // The same again is not written again.
        gateway.cli(&["policy", "reload"])?.success()?;
        let second = policy_status(&gateway)?["hash"].clone();
        let log = gateway.events(5000)?;
        let place = |kind: &str, field: &str, value: &Value| {
            let fits = |event: &Value| event["kind"] == kind && event[field] == *value;
            log.iter()
                .position(fits)
                .context(format!("no {kind} with {value}"))
        };
        for hash in [&first, &second] {
            let written = place("policy-snapshot", "policy", hash)?;
            assert!(written < place("command", "policy", hash)?);
        }
        let parts = events(&gateway, "policy-snapshot")?;
        let parts = parts.iter().filter(|part| part["policy"] == second).count();
        assert!((4..8).contains(&parts), "{parts}");

        let list = gateway
            .cli(&["policy", "show", "--list", "--json"])?
            .success()?;
        let list: Vec<Value> = serde_json::from_str(&list)?;
        let hashes: Vec<_> = list.iter().map(|row| row["hash"].clone()).collect();
        assert_eq!(hashes, [first.clone(), second]);
        let shown = gateway.cli(&["policy", "show"])?.success()?;
        assert!(shown.contains("record 2") && !shown.contains("record 1"));

        // From the log of a stopped gateway, by a part of the hash, into a directory.
        gateway.terminate()?;
        drop(wire);
        gateway.wait(LIMIT)?;
        let start = first
            .as_str()
            .and_then(|hash| hash.get(..10))
            .context("no hash")?;
        let output = world.directory().join("then");
        let log = gateway.state_directory().join("audit");
        let (output_text, log) = (output.to_string_lossy(), log.to_string_lossy());
        let show = [
            "policy",
            "show",
            start,
            "--output",
            &output_text,
            "--dir",
            &log,
        ];
        gateway.cli(&show)?.success()?;
        assert_eq!(
            fs::read_to_string(output.join("rule.yaml"))?,
            rule("record 1")
        );
        for name in ["a.yaml", "b.yaml", "target.yaml"] {
            ensure!(
                fs::read(output.join(name))? == fs::read(policies.join(name))?,
                "{name}"
            );
        }
        // Over nothing.
        let again = gateway.cli(&show)?.failure()?;
        assert!(again.contains("exists"), "{again}");
        let missing = gateway
            .cli(&["policy", "show", "00000000", "--dir", &log])?
            .failure()?;
        assert!(missing.contains("00000000"), "{missing}");
        Ok(())
    })
}

#[test]
fn after_an_upgrade_files_go_on_to_be_followed_and_recorded() -> Result<()> {
    with_world("reload-upgrade", |world| {
        let policies = directory(world.directory().join("policies"), "old 1")?;
        let gateway = Gateway::start_with(
            world,
            &policies,
            &[&SELDOM[..], &["--drain", "60s"]].concat(),
        )?;
        let mut before = live(world)?;
        wait_told(&mut before, "old 1")?;
        gateway.cli(&["upgrade"])?.success()?;
        let mut after = live(world)?;
        wait_told(&mut after, "old 1")?;
        // The session in the old process learns of it from the new one.
        save(&policies.join("rule.yaml"), &rule("new 2"))?;
        wait_told(&mut after, "new 2")?;
        wait_told(&mut before, "new 2")?;
        // Each process wrote down what it decides by.
        let log = gateway.events(5000)?;
        let started = log
            .iter()
            .rposition(|event| event["kind"] == "gateway-started");
        let started = started.context("no start on record")?;
        let is_snapshot = |event: &Value| event["kind"] == "policy-snapshot";
        let first = log.iter().skip(started).position(is_snapshot);
        let command = log
            .iter()
            .skip(started)
            .position(|event| event["kind"] == "command");
        ensure!(first.is_some() && first < command, "{first:?} {command:?}");
        let list = gateway
            .cli(&["policy", "show", "--list", "--json"])?
            .success()?;
        let list: Vec<Value> = serde_json::from_str(&list)?;
        // The old one's at its start, the new one's at its, and both's of the change.
        assert_eq!(list.len(), 4, "{list:?}");
        Ok(())
    })
}
