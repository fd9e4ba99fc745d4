//! Questions to a policy: recorded commands decided on again, documents compared, decisions explained.
#![allow(
    clippy::indexing_slicing,
    reason = "a test's helpers may fail by panicking"
)]

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use interceptor_tests::policies::SHOP;
use interceptor_tests::wire::{Wire, extended, message, query, sync};
use interceptor_tests::world::TARGET_V4;
use interceptor_tests::{Finished, From, Gateway, World, process, with_gateway};
use serde_json::Value;

use crate::support::{block_on, driver};

const LIMIT: Duration = Duration::from_secs(20);

/// Rules of every sort beside those of the shop: on people, text, columns, time, statistics, an
/// expression, and such that bind what they let go.
const MORE: &str = r#"
---
kind: Target
name: cache
spec: {protocol: tcp, endpoints: ["10.77.2.2:7000"]}
---
kind: Target
name: closed
spec: {protocol: tcp, endpoints: ["10.77.2.2:7001"]}
---
kind: Rule
name: cache-may-pass
spec:
  match: {targets: [cache], statements: [CONNECT]}
  then: allow
---
kind: Identity
name: alice-the-person
spec: {groups: [analysts], is: [{users: [alice], clientNetworks: [10.77.1.0/24]}]}
---
kind: Rule
name: no-versions-for-analysts
spec:
  match: {groups: [analysts], functions: [version]}
  then: {deny: "of no use"}
---
kind: Rule
name: no-sleep
spec:
  match: {targets: [orders], text: "(?i)pg_sleep"}
  then: {deny: "sleep elsewhere"}
---
kind: Rule
name: no-notes
spec:
  match: {columnsRead: [customers.note]}
  then: {deny: "notes are private"}
---
kind: Rule
name: always
spec:
  match: {statements: [LISTEN], times: [{from: "00:00", to: "00:00", zone: UTC}]}
  then: {deny: "not now"}
---
kind: Rule
name: expression
spec:
  match: {targets: [orders], when: "client.user == 'wire' && statement.kinds.exists(k, k == 'COPY TO')"}
  then: {deny: "no copies"}
---
kind: Rule
name: huge
spec:
  match: {statements: [SELECT], estimatedRows: {over: 1000000000}, targets: [orders], tables: [orders]}
  then: {hold: {timeout: 1s, message: "too many rows, or nobody knows"}}
---
kind: Rule
name: seldom
spec:
  match: {statements: [NOTIFY]}
  then: {limit: {rate: 1/h}}
---
kind: Rule
name: bob-reads
spec:
  match: {users: [bob]}
  then: {readOnly: true}
"#;

/// What people and programs send in a day.
fn traffic(world: &World, gateway: &Gateway<'_>) -> Result<()> {
    simple(world)?;
    extended_protocol(world)?;
    by_hand(world)?;
    held(world, gateway)?;
    for port in [7000, 7001] {
        // Whoever is let through meets a closed port; the decision is on record either way.
        let mut command = world.command(From::Client, "bash")?;
        command.args([
            "-c",
            &format!("exec 3<>/dev/tcp/10.77.2.2/{port}; read -t 2 -u 3"),
        ]);
        drop(process::run(command, LIMIT)?);
    }
    gateway.event("command", |it| it["text"] == "CONNECT 10.77.2.2:7001")?;
    gateway.event("command", |it| it["text"] == "CONNECT 10.77.2.2:7000")?;
    Ok(())
}

/// Each script by psql, whatever comes of it.
fn simple(world: &World) -> Result<()> {
    for (user, script) in [
        ("alice", "SELECT 1; SELECT 2, 'two'; SELECT;"),
        ("alice", ";;"),
        ("alice", "SELECT * FORM orders;"),
        (
            "alice",
            "SELECT name, card FROM customers WHERE card = '4111 1111 1111 1111';",
        ),
        ("alice", "SELECT note FROM customers;"),
        ("alice", "SELECT version();"),
        ("bob", "SELECT version();"),
        ("bob", "SELECT pg_sleep(0);"),
        ("bob", "SELECT count(*) FROM orders;"),
        ("bob", "UPDATE orders SET id = id;"),
        ("bob", "CREATE TABLE mine (a int);"),
        ("bob", "SET default_transaction_read_only = off;"),
        ("bob", "BEGIN READ WRITE; SELECT 1; COMMIT;"),
        ("alice", "DROP TABLE orders;"),
        ("alice", "TRUNCATE orders, customers;"),
        ("alice", "UPDATE customers SET name = name;"),
        ("alice", "DO $$ BEGIN RAISE NOTICE 'noted'; END $$;"),
        ("alice", "\\d orders"),
        (
            "alice",
            "CREATE TEMP TABLE t (a int); INSERT INTO t VALUES (1), (2); SELECT * FROM t;",
        ),
        ("alice", "INSERT INTO orders SELECT * FROM customers;"),
        (
            "alice",
            "CREATE TABLE copies AS SELECT email FROM customers;",
        ),
        (
            "alice",
            "PREPARE p (int) AS SELECT id + $1 FROM orders; EXECUTE p (1); DEALLOCATE p; EXECUTE p (2);",
        ),
        ("alice", "PREPARE d AS DROP TABLE orders; EXECUTE d;"),
        (
            "alice",
            "BEGIN; DECLARE c CURSOR FOR SELECT id FROM orders ORDER BY id; FETCH 3 FROM c; CLOSE c; COMMIT;",
        ),
        (
            "alice",
            "BEGIN; DECLARE n CURSOR FOR SELECT note FROM customers; COMMIT;",
        ),
        ("alice", "LISTEN channel;"),
        ("alice", "NOTIFY channel, 'hello';"),
        ("alice", "NOTIFY channel, 'again';"),
        (
            "alice",
            "EXPLAIN (COSTS OFF) SELECT * FROM orders WHERE id = 1;",
        ),
        ("alice", "COPY orders TO STDOUT;"),
        ("alice", "COPY customers TO STDOUT (FORMAT binary);"),
        ("alice", "CREATE ROLE eve PASSWORD 'secret';"),
        (
            "alice",
            "SHOW search_path; SET search_path = public; SHOW ALL;",
        ),
        ("alice", "SELECT 'pg_sleep', 'café \u{1f600}';"),
    ] {
        drop(world.psql(From::Client).user(user).script(script)?);
    }
    Ok(())
}

/// Prepared statements with parameters, as drivers send them.
fn extended_protocol(world: &World) -> Result<()> {
    block_on(async {
        let client = driver(world, TARGET_V4, "alice").await?;
        for (text, id) in [
            ("SELECT name FROM customers WHERE id = $1", 1_i32),
            ("SELECT note FROM customers WHERE id = $1", 2),
            ("SELECT pg_sleep($1::int4)", 0),
            ("UPDATE orders SET id = $1 WHERE false", 3),
        ] {
            drop(client.query(text, &[&id]).await);
        }
        drop(client.batch_execute("DROP TABLE orders; SELECT 1").await);
        Ok(())
    })
}

/// Messages that no driver would send in this way.
fn by_hand(world: &World) -> Result<()> {
    let mut wire = Wire::new(world.connect(TARGET_V4)?)?;
    wire.log_in()?;
    wire.send(&[extended("COPY orders TO STDOUT"), sync()].concat())?;
    wire.until(b'Z')?;
    wire.send(
        &[
            extended("SELECT count(*) FROM orders"),
            extended("TRUNCATE orders"),
            sync(),
        ]
        .concat(),
    )?;
    wire.until(b'Z')?;
    // A function call by its number: 1299 is now().
    wire.send(&message(
        b'F',
        &[&1299_u32.to_be_bytes()[..], &[0, 0, 0, 0, 0, 1]].concat(),
    ))?;
    wire.until(b'Z')?;
    wire.send(&query("SELECT '\u{e9}', version()"))?;
    wire.until(b'Z')?;
    wire.send(&query("SELECT 1; DROP TABLE customers"))?;
    wire.until(b'Z')?;
    Ok(())
}

/// One approved, one denied.
fn held(world: &World, gateway: &Gateway<'_>) -> Result<()> {
    for answer in ["approve", "deny"] {
        let psql = world.psql(From::Client);
        let psql = psql.start("DELETE FROM customers WHERE id = 1")?;
        let number = gateway.held_request()?.to_string();
        gateway.cli(&["approvals", answer, &number])?.success()?;
        drop(psql.wait(LIMIT)?);
    }
    Ok(())
}

/// A directory with another policy than the gateway has.
fn other_policy(world: &World, name: &str, text: &str) -> Result<PathBuf> {
    let directory = world.directory().join(name);
    fs::create_dir_all(&directory)?;
    let password = world.password_file().to_string_lossy().into_owned();
    let mut file = fs::File::create(directory.join("policy.yaml"))?;
    file.write_all(text.replace("PASSWORD_FILE", &password).as_bytes())?;
    Ok(directory)
}

fn backtest(gateway: &Gateway<'_>, policies: &Path, options: &[&str]) -> Result<Finished> {
    let policies = policies.to_string_lossy();
    let arguments = ["policy", "backtest", "--json", "--policies", &policies];
    gateway.cli(&[&arguments, options].concat())
}

fn result(finished: Finished) -> Result<Value> {
    let text = finished.success()?;
    serde_json::from_str(&text).with_context(|| format!("not JSON: {text}"))
}

fn count(value: &Value) -> u64 {
    value.as_u64().unwrap_or(u64::MAX)
}

/// The commands on record that fit.
fn recorded(gateway: &Gateway<'_>, fits: impl Fn(&Value) -> bool) -> Result<u64> {
    let events = gateway.events(100_000)?;
    let commands = events.iter().filter(|event| event["kind"] == "command");
    Ok(u64::try_from(commands.filter(|event| fits(event)).count())?)
}

#[test]
fn an_edited_rule_changes_its_own_decisions_and_no_other() -> Result<()> {
    // Nothing can be masked in what is not understood.
    let shop = SHOP
        .replace(
            "spec:\n  columns:",
            "spec:\n  targets: [orders]\n  columns:",
        )
        .replace(
            "spec:\n  patterns:",
            "spec:\n  targets: [orders]\n  patterns:",
        );
    let policy = format!("{shop}{MORE}");
    with_gateway("backtest", &policy, |world, gateway| {
        traffic(world, gateway)?;
        let all = recorded(gateway, |_| true)?;
        assert!(all > 60, "{all} commands");

        // The same files: nothing changes, and everything that the policy decided is decided again.
        let same = other_policy(world, "same", &policy)?;
        let found = result(backtest(gateway, &same, &[])?)?;
        assert_eq!(found["changes"], serde_json::json!([]), "{found:#}");
        assert_eq!(count(&found["commands"]), all);
        assert_eq!(count(&found["changed"]), 0);
        let not_decided = found["not_decided"].as_array().context("a list")?;
        for skipped in not_decided {
            let why = skipped["why"].as_str().unwrap_or_default();
            assert!(why.contains("before it asked the policy"), "{found:#}");
        }
        // Without files it is the gateway's own policy.
        let own = gateway.cli(&["policy", "backtest", "--json", "--exit-code"])?;
        assert_eq!(count(&result(own)?["changed"]), 0);

        // One rule holds what it refused.
        let drops = recorded(gateway, |event| event["rule"] == "no-drop")?;
        assert!(drops >= 4, "{drops}");
        let laxer = policy.replace(
            "then: {deny: \"tables are dropped by migrations only\"}",
            "then: {hold: \"tables are dropped by migrations only\"}",
        );
        assert_ne!(laxer, policy);
        let laxer = other_policy(world, "laxer", &laxer)?;
        let found = result(backtest(gateway, &laxer, &[])?)?;
        assert_eq!(count(&found["changed"]), drops, "{found:#}");
        for change in found["changes"].as_array().context("a list")? {
            assert_eq!(change["before"]["rule"], "no-drop", "{found:#}");
            assert_eq!(change["before"]["outcome"], "deny");
            assert_eq!(change["after"]["outcome"], "hold", "{found:#}");
            // Where another rule holds, too, the first by name is told.
            let rule = change["after"]["rule"].as_str().unwrap_or_default();
            assert!(["no-drop", "huge"].contains(&rule), "{found:#}");
        }

        // One rule more, from the log of a gateway that is stopped.
        let has_show = |event: &Value| {
            let kinds = event["kinds"]
                .as_array()
                .map(Vec::as_slice)
                .unwrap_or_default();
            kinds.iter().any(|kind| kind == "SHOW") && event["decision"] != "deny"
        };
        let shows = recorded(gateway, has_show)?;
        assert!(shows >= 2, "{shows}");
        let stricter = format!(
            "{policy}---\nkind: Rule\nname: no-show\nspec: {{match: {{statements: [SHOW]}}, then: deny}}\n"
        );
        let stricter = other_policy(world, "stricter", &stricter)?;
        let running = questions(world, gateway, &stricter)?;
        gateway.terminate()?;
        gateway.wait(LIMIT)?;
        let log = gateway.state_directory().join("audit");
        let log = log.to_string_lossy().into_owned();
        let found = result(backtest(gateway, &stricter, &["--log", &log])?)?;
        assert_eq!(count(&found["changed"]), shows, "{found:#}");
        let changed = backtest(gateway, &stricter, &["--log", &log, "--exit-code"])?;
        assert_eq!(changed.status.code(), Some(1), "{}", changed.stderr);
        let nothing = [
            "--log",
            log.as_str(),
            "--until",
            "2020-01-01T00:00:00Z",
            "--since",
            "2019-01-01T00:00:00Z",
        ];
        let found = result(backtest(gateway, &stricter, &nothing)?)?;
        assert_eq!(count(&found["commands"]), 0);

        // What was in force then is on record.
        let (directory, log) = (stricter.to_string_lossy(), log.as_str());
        let diff = ["policy", "diff", running.as_str(), &directory, "--log", log];
        let diff = gateway.cli(&diff)?;
        assert_eq!(diff.status.code(), Some(1), "{}", diff.stderr);
        assert!(
            diff.stdout.starts_with("added Rule no-show\n"),
            "{}",
            diff.stdout
        );
        Ok(())
    })
}

/// Diff and explain, asked of a gateway that runs; gives the hash of its policy.
fn questions(world: &World, gateway: &Gateway<'_>, stricter: &Path) -> Result<String> {
    let stricter = stricter.to_string_lossy();
    let diff = gateway.cli(&["policy", "diff", "running", &stricter])?;
    assert_eq!(diff.status.code(), Some(1), "{}", diff.stderr);
    assert!(diff.stdout.contains("+name: no-show"), "{}", diff.stdout);
    let diff = gateway.cli(&["policy", "diff", "running", "running"])?;
    assert_eq!(diff.success()?, "");

    let ask = [
        "policy",
        "explain",
        "DROP TABLE orders",
        "--as",
        "alice-the-person",
        "--target",
        "orders",
    ];
    let text = gateway.cli(&ask)?.success()?;
    assert!(
        text.contains("decision: deny: tables are dropped by migrations only"),
        "{text}"
    );
    assert!(text.contains("alice-the-person, in analysts"), "{text}");
    assert!(text.contains("user            alice"), "{text}");
    let ask = [
        "policy",
        "explain",
        "SELECT version()",
        "--as",
        "alice-the-person",
        "--target",
        "orders",
        "--json",
    ];
    let explained = result(gateway.cli(&ask)?)?;
    assert_eq!(explained["decision"]["rule"], "no-versions-for-analysts");
    // As the gateway decides, so the tool says.
    let psql = world
        .psql(From::Client)
        .user("alice")
        .run("SELECT version()")?;
    assert!(psql.failure()?.contains("no-versions-for-analysts"));
    let refused = gateway.cli(&["policy", "explain", "SELECT 1", "--target", "nowhere"])?;
    assert!(refused.failure()?.contains("there is no target nowhere"));
    let command = gateway.event("command", |it| it["rule"] == "no-drop")?;
    let hash = command["policy"].as_str().context("a hash")?;
    Ok(hash.chars().take(12).collect())
}
