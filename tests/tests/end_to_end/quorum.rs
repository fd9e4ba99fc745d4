//! Approval by groups, with real users of the gateway host who are not root: who may, how many, and
//! what is on record.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use anyhow::{Context as _, Result};
use interceptor_tests::process::run;
use interceptor_tests::{Finished, From, Gateway, Running, World, wait_until, with_own_binary};
use nix::sys::signal::Signal;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(20);

/// The group that may use the socket: no user of the host is in it, only those whom the tests make.
const ADMIN_GROUP: &str = "4200";

// Users of the host by number; none has a name. Ann is two of them.
const ANN: &str = "4201";
const ANN_TOO: &str = "4202";
const BEN: &str = "4203";
const CAROL: &str = "4204";
const DORA: &str = "4205";
/// One with a name, which PostgreSQL's package makes.
const POSTGRES: &str = "postgres";

const POLICY: &str = r#"
kind: Target
name: orders
spec:
  protocol: postgres
  endpoints: ["10.77.2.2:5432", "[fd77:2::2]:5432"]
  default: allow
  incomplete: allow
---
kind: Identity
name: ann
spec: {is: [{users: [alice]}], uids: [4201, 4202]}
---
kind: Identity
name: ben
spec: {is: [{users: [bob]}], uids: [4203]}
---
kind: ApproverGroup
name: dba
spec: {persons: [ann, ben], uids: [4204], localUsers: [postgres]}
---
kind: ApproverGroup
name: security
spec: {uids: [4204, 4205]}
---
kind: Rule
name: deletes
spec:
  match: {statements: [DELETE]}
  then: {hold: {group: dba, quorum: 2, timeout: 60s, message: two of us look at every DELETE}}
---
kind: Rule
name: updates
spec:
  match: {statements: [UPDATE]}
  then: {hold: {groups: [dba, security], timeout: 60s, message: dba and security look at it}}
---
kind: Rule
name: inserts
spec:
  match: {statements: [INSERT]}
  then:
    hold: {group: dba, quorum: 2, timeout: 10s, onTimeout: {escalate: {group: security, timeout: 60s}}}
---
kind: Rule
name: not-oneself
spec:
  match: {statements: [TRUNCATE]}
  then: {hold: {requesterMayApprove: false, timeout: 60s, message: somebody else looks at it}}
"#;

/// A gateway whose socket is for the group.
fn with_approvers(name: &str, test: impl FnOnce(&World, &Gateway<'_>) -> Result<()>) -> Result<()> {
    // Its own binary lies where users that are not root reach it.
    with_own_binary(name, |world| {
        let policies = world.write_policy(POLICY)?;
        let run = world.directory().join("run");
        fs::set_permissions(&run, Permissions::from_mode(0o700))?;
        let gateway = Gateway::start_with(world, &policies, &["--admin-group", ADMIN_GROUP])?;
        test(world, &gateway)
    })
}

/// Runs a command of `interceptor` as another user of the host, logged in as themselves.
fn by(world: &World, gateway: &Gateway<'_>, user: &str, arguments: &[&str]) -> Result<Finished> {
    let mut command = world.gateway_command("bash", None)?;
    // Where nobody logged in there is nothing to change, and the kernel may have no such file.
    let log_in = r#"exec 3>&2 2>/dev/null
        uid=$(id -u "$0" || echo "$0")
        echo "$uid" > /proc/self/loginuid
        exec 2>&3 3>&- setpriv "$@""#;
    command.args(["-c", log_in, user]);
    command.arg(format!("--reuid={user}"));
    command.args([&format!("--regid={ADMIN_GROUP}"), "--clear-groups", "--"]);
    command.arg(world.installed()?).args(arguments);
    command.arg("--run-dir").arg(gateway.run_directory());
    run(command, Duration::from_secs(30))
}

fn approve(world: &World, gateway: &Gateway<'_>, user: &str, number: &str) -> Result<Finished> {
    by(world, gateway, user, &["approvals", "approve", number])
}

/// A held command, and its number.
fn held(world: &World, gateway: &Gateway<'_>, user: &str, sql: &str) -> Result<(Running, String)> {
    let psql = world.psql(From::Client).user(user).start(sql)?;
    let number = gateway.held_request()?.to_string();
    Ok((psql, number))
}

fn request(gateway: &Gateway<'_>, number: &str) -> Result<Value> {
    let shown = gateway.cli(&["approvals", "show", number, "--json"])?;
    Ok(serde_json::from_str(&shown.success()?)?)
}

/// What the record has of the request and of who did something, in order.
fn on_record(gateway: &Gateway<'_>) -> Result<Vec<String>> {
    let events = gateway.events(1000)?;
    let text = |event: &Value, field: &str| -> String {
        let text = event.get(field).and_then(Value::as_str);
        text.unwrap_or_default().to_owned()
    };
    let words = events
        .iter()
        .filter_map(|event| match event["kind"].as_str() {
            Some("hold") => Some("hold".to_owned()),
            Some("administration") => {
                Some(format!("{}: {}", text(event, "by"), text(event, "action")))
            }
            Some("approval") => Some(format!(
                "{} by {}: {}",
                text(event, "resolution"),
                text(event, "by"),
                text(event, "reason")
            )),
            _ => None,
        });
    Ok(words.collect())
}

fn customers(world: &World) -> Result<String> {
    world.postgres.directly("SELECT count(*) FROM customers")
}

#[test]
fn two_of_a_group_approve() -> Result<()> {
    with_approvers("quorum-two", |world, gateway| {
        let (psql, number) = held(
            world,
            gateway,
            "alice",
            "DELETE FROM customers WHERE id = 1",
        )?;
        // Who asked, who is in no group, and root, who is in none either.
        let error = approve(world, gateway, ANN_TOO, &number)?.failure()?;
        let refusal = format!("uid 4202 asked for request {number} and may not approve it");
        assert!(error.contains(&refusal), "{error}");
        let error = approve(world, gateway, DORA, &number)?;
        assert_eq!(error.status.code(), Some(1));
        let refusal = format!("request {number} needs 2 of dba, and uid 4205 is no member");
        let error = error.failure()?;
        assert!(error.contains(&refusal), "{error}");
        for answer in ["approve", "deny"] {
            let error = gateway.cli(&["approvals", answer, &number])?.failure()?;
            assert!(error.contains("needs 2 of dba, and root"), "{error}");
        }

        let because = ["approvals", "approve", &number, "--reason", "change 4711"];
        let said = by(world, gateway, BEN, &because)?.success()?;
        let counted = format!("request {number} has your approval; it still needs 1 of dba\n");
        assert_eq!(said, counted);
        let error = approve(world, gateway, BEN, &number)?.failure()?;
        assert!(
            error.contains("nobody counts twice; 1 of dba missing"),
            "{error}"
        );

        let listed = by(world, gateway, CAROL, &["approvals", "list"])?.success()?;
        assert!(listed.contains("1 of dba"), "{listed}");
        let shown = by(world, gateway, CAROL, &["approvals", "show", &number])?.success()?;
        for line in [
            "person    ann",
            "needs     2 of dba",
            "requester may not approve",
            "missing   1 of dba",
        ] {
            assert!(shown.lines().any(|shown| shown == line), "{line}\n{shown}");
        }
        assert!(shown.contains("approved  by uid 4203 at "), "{shown}");
        let json = request(gateway, &number)?;
        assert_eq!(json["approvals"][0]["uid"], 4203);
        assert_eq!(json["approvals"][0]["reason"], "change 4711");
        assert_eq!(json["groups"][0]["quorum"], 2);
        assert_eq!(json["groups"][0]["approvals"], 1);
        assert_eq!(json["missing"], serde_json::json!(["1 of dba"]));
        assert!(!world.postgres.has_seen("DELETE FROM customers")?);

        let json = by(
            world,
            gateway,
            CAROL,
            &["approvals", "approve", &number, "--json"],
        )?;
        let json: Value = serde_json::from_str(&json.success()?)?;
        assert_eq!(json["resolution"], "approved");
        assert_eq!(psql.wait(LIMIT)?.success()?, "DELETE 1\n");
        assert_eq!(customers(world)?, "5");

        let expected = [
            "hold".to_owned(),
            format!("uid 4203: approve request {number}"),
            "vote by uid 4203: change 4711".to_owned(),
            format!("uid 4204: approve request {number}"),
            "vote by uid 4204: ".to_owned(),
            "approved by uid 4203; uid 4204: change 4711".to_owned(),
        ];
        assert_eq!(on_record(gateway)?, expected);
        let tail = gateway.cli(&["audit", "tail", "-n", "1000"])?.success()?;
        let line = format!("#1 request {number} vote by uid 4203: change 4711");
        assert!(tail.contains(&line), "{tail}");
        // The log is root's.
        let error = by(world, gateway, BEN, &["audit", "tail"])?.failure()?;
        assert!(
            error.contains("may use `interceptor approvals` only"),
            "{error}"
        );
        Ok(())
    })
}

#[test]
fn one_person_counts_once() -> Result<()> {
    with_approvers("quorum-person", |world, gateway| {
        let (psql, number) = held(world, gateway, "bob", "DELETE FROM customers WHERE id = 1")?;
        approve(world, gateway, ANN, &number)?.success()?;
        let error = approve(world, gateway, ANN_TOO, &number)?.failure()?;
        assert!(
            error.contains("has the approval of uid 4201 already, and nobody counts twice"),
            "{error}"
        );
        assert_eq!(request(gateway, &number)?["missing"][0], "1 of dba");
        // A member by name.
        let said = approve(world, gateway, POSTGRES, &number)?.success()?;
        assert_eq!(said, format!("request {number} approved\n"));
        assert_eq!(psql.wait(LIMIT)?.success()?, "DELETE 1\n");
        Ok(())
    })
}

#[test]
fn two_groups_approve_one_each() -> Result<()> {
    with_approvers("quorum-groups", |world, gateway| {
        let update = "UPDATE orders SET price = 7 WHERE id = 1";
        let (psql, number) = held(world, gateway, "alice", update)?;
        let said = approve(world, gateway, BEN, &number)?.success()?;
        assert!(said.contains("it still needs 1 of security"), "{said}");
        // Another of the same group changes nothing.
        let said = approve(world, gateway, POSTGRES, &number)?.success()?;
        assert!(said.contains("it still needs 1 of security"), "{said}");
        assert!(!world.postgres.has_seen(update)?);
        approve(world, gateway, DORA, &number)?.success()?;
        assert_eq!(psql.wait(LIMIT)?.success()?, "UPDATE 1\n");

        // Who is in both speaks for both.
        let (psql, number) = held(world, gateway, "alice", update)?;
        let said = approve(world, gateway, CAROL, &number)?.success()?;
        assert_eq!(said, format!("request {number} approved\n"));
        assert_eq!(psql.wait(LIMIT)?.success()?, "UPDATE 1\n");
        Ok(())
    })
}

#[test]
fn one_denial_ends_it() -> Result<()> {
    with_approvers("quorum-deny", |world, gateway| {
        let (psql, number) = held(world, gateway, "alice", "DELETE FROM customers")?;
        approve(world, gateway, BEN, &number)?.success()?;
        by(world, gateway, DORA, &["approvals", "deny", &number])?.failure()?;
        let no = ["approvals", "deny", &number, "--reason", "use the replica"];
        let said = by(world, gateway, CAROL, &no)?.success()?;
        assert_eq!(said, format!("request {number} denied\n"));
        let error = psql.wait(LIMIT)?.failure()?;
        let refusal = format!("(request {number} denied by uid 4204: use the replica)");
        assert!(error.contains(&refusal), "{error}");
        approve(world, gateway, POSTGRES, &number)?.failure()?;
        assert!(!world.postgres.has_seen("DELETE FROM customers")?);
        let record = on_record(gateway)?;
        assert_eq!(
            record.last().context("nothing is on record")?,
            "denied by uid 4204: use the replica"
        );
        Ok(())
    })
}

/// By the user of the local process, whatever the person, and without a group as well.
#[test]
fn who_asked_does_not_approve() -> Result<()> {
    with_approvers("quorum-self", |world, gateway| {
        let local = world.psql(From::Local).user("bob").account(POSTGRES);
        let psql = local.start("TRUNCATE orders")?;
        let number = gateway.held_request()?.to_string();
        for requester in [POSTGRES, BEN] {
            let error = approve(world, gateway, requester, &number)?.failure()?;
            assert!(
                error.contains("may not approve it; somebody else has to"),
                "{error}"
            );
        }
        // Anybody else who reaches the socket may.
        approve(world, gateway, DORA, &number)?.success()?;
        assert_eq!(psql.wait(LIMIT)?.success()?, "TRUNCATE TABLE\n");
        Ok(())
    })
}

#[test]
fn a_reload_changes_nothing_for_what_waits() -> Result<()> {
    with_approvers("quorum-reload", |world, gateway| {
        let (psql, number) = held(
            world,
            gateway,
            "alice",
            "DELETE FROM customers WHERE id = 1",
        )?;
        approve(world, gateway, BEN, &number)?.success()?;
        let hash = |gateway: &Gateway<'_>| -> Result<Value> {
            let status = gateway.cli(&["status", "--json", "--bpffs", &bpffs(world)])?;
            let status: Value = serde_json::from_str(&status.success()?)?;
            Ok(status["gateway"]["status"]["policy"]["hash"].clone())
        };
        let before = hash(gateway)?;
        let alone = POLICY.replace("uids: [4204], localUsers: [postgres]", "uids: [4205]");
        world.write_policy(&alone)?;
        gateway.signal(Signal::SIGHUP)?;
        wait_until("the new policy is in force", LIMIT, || {
            Ok(hash(gateway)? != before)
        })?;
        // Carol was a member when it was held, and Dora was not.
        approve(world, gateway, DORA, &number)?.failure()?;
        approve(world, gateway, CAROL, &number)?.success()?;
        assert_eq!(psql.wait(LIMIT)?.success()?, "DELETE 1\n");

        let (psql, number) = held(
            world,
            gateway,
            "alice",
            "DELETE FROM customers WHERE id = 2",
        )?;
        approve(world, gateway, CAROL, &number)?.failure()?;
        approve(world, gateway, DORA, &number)?.success()?;
        approve(world, gateway, BEN, &number)?.success()?;
        assert_eq!(psql.wait(LIMIT)?.success()?, "DELETE 1\n");
        Ok(())
    })
}

/// Others are asked anew: the approvals of those before them do not count any more.
#[test]
fn who_is_asked_later_decides_alone() -> Result<()> {
    with_approvers("quorum-later", |world, gateway| {
        let insert = "INSERT INTO orders SELECT 100, 1, 'x', 1, now()";
        let (psql, first) = held(world, gateway, "alice", insert)?;
        approve(world, gateway, BEN, &first)?.success()?;
        let mut second = first.clone();
        wait_until("others are asked", LIMIT, || {
            if let [one] = &*gateway.held()? {
                second = one["number"].to_string();
            }
            Ok(second != first)
        })?;
        let json = request(gateway, &second)?;
        assert_eq!(json["required"], serde_json::json!(["1 of security"]));
        assert_eq!(json["approvals"], serde_json::json!([]));
        approve(world, gateway, POSTGRES, &second)?.failure()?;
        let error = approve(world, gateway, CAROL, &first)?.failure()?;
        assert!(
            error.contains(&format!("request {first} is not open")),
            "{error}"
        );
        approve(world, gateway, DORA, &second)?.success()?;
        psql.wait(LIMIT)?.success()?;
        let record = on_record(gateway)?;
        let ends: Vec<_> = record
            .iter()
            .map(|line| line.split(" by ").next())
            .collect();
        assert!(ends.contains(&Some("escalated")), "{record:?}");
        let last = record.last().context("nothing is on record")?;
        assert_eq!(last, "approved by uid 4205: ");
        Ok(())
    })
}

fn bpffs(world: &World) -> String {
    world.bpffs().to_string_lossy().into_owned()
}
