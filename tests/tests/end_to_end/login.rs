//! Logins, with psql and a server's roles as they are: relayed, held by the gateway, recovered. What a
//! user sees of a wrong password, a role that has expired or is not there is what the server says.

use std::fs::{self, Permissions};
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use interceptor_tests::world::{TARGET_V4, UNNAMED_V4};
use interceptor_tests::{From, Gateway, Psql, World, wait_until, with_gateway, with_world};
use nix::unistd::User;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(20);

/// One target with this login.
pub(crate) fn policy(login: &str) -> String {
    format!(
        r#"
kind: Target
name: orders
spec:
  protocol: postgres
  endpoints: ["10.77.2.2:5432", "[fd77:2::2]:5432"]
  login: {login}
"#
    )
}

/// Roles for each way in which PostgreSQL lets somebody in.
const ROLES: &str = "
    SET password_encryption = 'md5';
    CREATE ROLE hashed LOGIN PASSWORD 'hashed-password';
    SET password_encryption = 'scram-sha-256';
    CREATE ROLE proven LOGIN PASSWORD 'proven-password';
    CREATE ROLE shown LOGIN PASSWORD 'shown-password';
    CREATE ROLE expired LOGIN PASSWORD 'expired-password' VALID UNTIL '2020-01-01';
    CREATE ROLE unable NOLOGIN PASSWORD 'unable-password';
    CREATE ROLE trusted LOGIN;
    GRANT CONNECT ON DATABASE shop TO hashed, proven, shown, expired, unable, trusted";

const ACCESS: &str = "host all hashed all md5
host all shown all password
host all trusted all trust
host all rejected all reject";

pub(crate) fn roles(world: &World) -> Result<()> {
    world.postgres.directly(ROLES)?;
    world.postgres.admit(ACCESS)
}

/// The verifiers of the server's users, as the documentation says to get them.
pub(crate) fn verifiers(world: &World) -> Result<String> {
    let sql = "SELECT quote_ident(rolname) || ' ' || rolpassword FROM pg_authid WHERE rolpassword LIKE 'SCRAM%' ORDER BY 1";
    world.postgres.directly(sql)
}

pub(crate) fn as_user<'w>(world: &'w World, user: &str) -> Psql<'w> {
    world.psql(From::Client).user(user).bare()
}

/// Why psql was not let in.
pub(crate) fn refusal(psql: &Psql<'_>) -> Result<String> {
    psql.run("SELECT 1")?.failure()
}

pub(crate) fn identity(gateway: &Gateway<'_>, user: &str) -> Result<Value> {
    gateway.event("identity", |event| event["user"] == user)
}

/// Nothing that the gateway wrote has a password in it.
fn keeps_secrets(gateway: &Gateway<'_>) -> Result<()> {
    let log = fs::read_to_string(gateway.log())?;
    let events = gateway.cli(&["audit", "tail", "-n", "1000", "--json"])?;
    let events = events.success()?;
    for text in [log, events] {
        assert!(!text.contains("-password\""), "{text}");
        assert!(!text.contains("server-only"), "{text}");
        assert!(!text.contains("SCRAM-SHA-256$"), "{text}");
    }
    Ok(())
}

#[test]
fn what_the_server_asks_is_relayed() -> Result<()> {
    with_gateway("login-relay", &policy("relay"), |world, gateway| {
        roles(world)?;
        for (user, method) in [
            ("proven", "scram-sha-256"),
            ("hashed", "md5"),
            ("shown", "password"),
            ("trusted", "trust"),
        ] {
            let name = as_user(world, user).run("SELECT current_user")?;
            assert_eq!(name.success()?.trim(), user);
            let event = identity(gateway, user)?;
            assert_eq!(
                (&event["login"], &event["method"]),
                (&"relay".into(), &method.into())
            );
        }
        // A refusal reads as it does without a gateway.
        for user in [
            "proven", "hashed", "shown", "expired", "unable", "rejected", "nobody",
        ] {
            let wrong = |host: Ipv4Addr| {
                let psql = as_user(world, user).host(host);
                let text = match user {
                    "proven" | "hashed" | "shown" => refusal(&psql.setting("PGPASSWORD", "wrong")),
                    _ => refusal(&psql),
                };
                // The server names the address that dialled it.
                text.map(|text| {
                    text.replace(&host.to_string(), "HOST")
                        .replace("10.77.1.2", "CLIENT")
                        .replace("10.77.2.1", "CLIENT")
                })
            };
            assert_eq!(wrong(TARGET_V4)?, wrong(UNNAMED_V4)?, "{user}");
        }
        keeps_secrets(gateway)
    })
}

/// A gateway with alice's and bob's verifiers, after which the server's passwords became others.
fn with_credentials(
    name: &str,
    credentials: &str,
    test: impl FnOnce(&World, &mut Gateway<'_>) -> Result<()>,
) -> Result<()> {
    with_world(name, |world| {
        roles(world)?;
        world.write_secret("verifiers", &verifiers(world)?)?;
        for user in ["alice", "bob", "proven", "expired"] {
            let sql = format!("ALTER ROLE {user} PASSWORD '{user}-server-only'");
            world.postgres.directly(&sql)?;
            world.write_secret(&format!("{user}.secret"), &format!("{user}-server-only\n"))?;
        }
        world.write_secret("hashed.secret", "hashed-password")?;
        world.write_secret("shown.secret", "shown-password")?;
        let directory = world.directory();
        let login = format!(
            "{{gateway: {{verifierFile: DIRECTORY/verifiers, credentials: [{credentials}]}}}}"
        );
        let login = login.replace("DIRECTORY", &directory.to_string_lossy());
        let policies = world.write_policy(&policy(&login))?;
        let mut gateway = Gateway::start(world, &policies)?;
        test(world, &mut gateway)
    })
}

const BY_FILE: &str = "{users: [alice], passwordFile: DIRECTORY/alice.secret}, \
     {users: [bob], as: proven, passwordFile: DIRECTORY/proven.secret}, \
     {users: [expired], passwordFile: DIRECTORY/expired.secret}, \
     {users: [interceptor_catalog], passwordFile: DIRECTORY/absent.secret}";

#[test]
fn the_gateway_holds_the_credentials() -> Result<()> {
    with_credentials("login-gateway", BY_FILE, |world, gateway| {
        // The client's password is good for the gateway, and the server's is the gateway's.
        let alice = as_user(world, "alice");
        assert_eq!(alice.run("SELECT current_user")?.success()?.trim(), "alice");
        let text = refusal(&alice.clone().host(UNNAMED_V4))?;
        assert!(text.contains("password authentication failed"), "{text}");
        let text = refusal(&alice.clone().setting("PGPASSWORD", "alice-server-only"))?;
        assert!(
            text.contains("FATAL:  password authentication failed for user \"alice\""),
            "{text}"
        );
        let event = identity(gateway, "alice")?;
        assert_eq!(event["login"], "gateway");
        assert_eq!(event["method"], "scram-sha-256");

        let bob = as_user(world, "bob").run("SELECT current_user || '@' || current_database()")?;
        assert_eq!(bob.success()?.trim(), "proven@shop");
        assert_eq!(identity(gateway, "bob")?["server_user"], "proven");

        // Whether a user is known cannot be told.
        let unknown = refusal(&as_user(world, "nobody"))?;
        assert!(
            unknown.contains("password authentication failed for user \"nobody\""),
            "{unknown}"
        );
        // A role that is over is let in by nobody, whoever holds its password.
        let text = refusal(&as_user(world, "expired"))?;
        assert!(
            text.contains(
                "interceptor could not log in to target \"orders\": password authentication failed"
            ),
            "{text}"
        );
        // Known here, and without a credential.
        let text = refusal(&as_user(world, "proven"))?;
        assert!(
            text.contains("no credential of target \"orders\" for user \"proven\""),
            "{text}"
        );
        let text = refusal(
            &as_user(world, "interceptor_catalog").setting("PGPASSWORD", "catalog-password"),
        )?;
        assert!(text.contains("cannot get at what logging in"), "{text}");
        assert!(!text.contains("absent.secret"), "{text}");
        assert!(fs::read_to_string(gateway.log())?.contains("absent.secret"));

        // Sessions work as they do otherwise.
        let count = alice.run("SELECT count(*) FROM customers")?.success()?;
        assert_eq!(count.trim(), "6");
        keeps_secrets(gateway)
    })
}

#[test]
fn files_that_others_may_read_let_nobody_in() -> Result<()> {
    with_credentials("login-exposed", BY_FILE, |world, gateway| {
        for file in ["alice.secret", "verifiers"] {
            let path = world.directory().join(file);
            fs::set_permissions(&path, Permissions::from_mode(0o644))?;
            let text = refusal(&as_user(world, "alice"))?;
            assert!(
                text.contains("cannot get at what logging in"),
                "{file}: {text}"
            );
            fs::set_permissions(&path, Permissions::from_mode(0o640))?;
            as_user(world, "alice").run("SELECT 1")?.success()?;
        }
        assert!(fs::read_to_string(gateway.log())?.contains("chmod 640"));
        Ok(())
    })
}

const BY_OTHERS: &str = "{users: [alice], passwordEnv: ORDERS_ALICE}, \
     {users: [bob], systemdCredential: orders-bob}, \
     {users: [expired], as: hashed, passwordFile: DIRECTORY/hashed.secret}, \
     {users: [proven], as: shown, passwordFile: DIRECTORY/shown.secret}";

#[test]
fn from_the_environment_and_from_systemd() -> Result<()> {
    with_credentials("login-sources", BY_OTHERS, |world, gateway| {
        let text = refusal(&as_user(world, "alice"))?;
        assert!(text.contains("cannot get at what logging in"), "{text}");
        gateway.terminate()?;
        gateway.wait(LIMIT)?;
        let directory = world.directory().join("credentials");
        fs::create_dir(&directory)?;
        world.write_secret("credentials/orders-bob", "bob-server-only")?;
        let directory = directory.to_string_lossy().into_owned();
        let variables = [
            ("ORDERS_ALICE", "alice-server-only"),
            ("CREDENTIALS_DIRECTORY", &directory),
        ];
        gateway.restart_with_environment(&variables)?;
        for user in ["alice", "bob"] {
            let name = as_user(world, user).run("SELECT current_user")?;
            assert_eq!(name.success()?.trim(), user);
        }
        let name = as_user(world, "expired").run("SELECT current_user")?;
        assert_eq!(name.success()?.trim(), "hashed", "by md5");
        // The server would have it in clear, and the way there is plain.
        let text = refusal(&as_user(world, "proven"))?;
        assert!(
            text.contains("in clear on a connection that is not encrypted"),
            "{text}"
        );
        keeps_secrets(gateway)
    })
}

/// A script that only root may change.
fn script(world: &World, name: &str, text: &str) -> Result<()> {
    let path = world.directory().join(name);
    fs::write(&path, format!("#!/bin/sh\n{text}\n"))?;
    Ok(fs::set_permissions(&path, Permissions::from_mode(0o755))?)
}

fn commands_of(world: &World) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(world.cgroup())? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        found.extend(name.starts_with("interceptor-command-").then_some(name));
    }
    Ok(found)
}

fn is_alive(pid: &str) -> bool {
    Path::new("/proc").join(pid.trim()).exists()
}

const BY_COMMAND: &str = "{users: [alice], passwordCommand: [DIRECTORY/print, --for, orders]}, \
     {users: [bob], passwordCommand: [DIRECTORY/fail]}, \
     {users: [proven], passwordCommand: [DIRECTORY/flood]}, \
     {users: [expired], passwordCommand: [DIRECTORY/absent]}";

#[test]
fn from_a_command() -> Result<()> {
    with_credentials("login-command", BY_COMMAND, |world, gateway| {
        let directory = world.directory();
        let at = |name: &str| directory.join(name);
        // It tells of itself in a file, and leaves something behind.
        script(
            world,
            "print",
            &format!(
                "grep ^0:: /proc/self/cgroup > {0}/told; env >> {0}/told; echo \"$@\" >> {0}/told; sleep 3000 >/dev/null & echo $! > {0}/left; echo alice-server-only",
                directory.display()
            ),
        )?;
        script(
            world,
            "fail",
            "echo bob-server-only; echo bob-server-only >&2; exit 3",
        )?;
        script(world, "flood", "head -c 100000 /dev/zero | tr '\\0' x")?;
        let name = as_user(world, "alice").run("SELECT current_user")?;
        assert_eq!(name.success()?.trim(), "alice");
        let told = fs::read_to_string(at("told"))?;
        let cgroup = told.lines().next().unwrap_or_default();
        assert!(
            cgroup.contains("/icpt-login-command/interceptor-command-"),
            "{told}"
        );
        assert!(told.contains("INTERCEPTOR_TARGET=orders"), "{told}");
        assert!(told.contains("INTERCEPTOR_USER=alice"), "{told}");
        assert!(told.contains("--for orders"), "{told}");
        assert!(!told.contains("HOME="), "{told}");
        let left = fs::read_to_string(at("left"))?;
        wait_until("what the command left is ended", LIMIT, || {
            Ok(!is_alive(&left))
        })?;
        wait_until("its cgroup is gone", LIMIT, || {
            Ok(commands_of(world)?.is_empty())
        })?;

        for (user, why) in [
            ("bob", "exit status: 3"),
            ("proven", "flood"),
            ("expired", "absent"),
        ] {
            let text = refusal(&as_user(world, user))?;
            assert!(
                text.contains("cannot get at what logging in"),
                "{user}: {text}"
            );
            let log = fs::read_to_string(gateway.log())?;
            assert!(log.contains(why), "{why}: {log}");
        }
        // Who could change the program could have any password.
        fs::set_permissions(at("print"), Permissions::from_mode(0o777))?;
        refusal(&as_user(world, "alice"))?;
        fs::set_permissions(at("print"), Permissions::from_mode(0o755))?;
        as_user(world, "alice").run("SELECT 1")?.success()?;
        wait_until("its cgroups are gone", LIMIT, || {
            Ok(commands_of(world)?.is_empty())
        })?;
        keeps_secrets(gateway)
    })
}

#[test]
fn a_command_that_hangs_has_a_limit() -> Result<()> {
    let credentials = "{users: [alice], passwordCommand: [DIRECTORY/hang]}";
    with_credentials("login-hang", credentials, |world, gateway| {
        let pid = world.directory().join("pid");
        script(
            world,
            "hang",
            &format!("echo $$ > {}; sleep 3000", pid.display()),
        )?;
        let begun = Instant::now();
        // One that has patience, and one that leaves.
        let patient = as_user(world, "alice").setting("PGCONNECT_TIMEOUT", "60");
        let text = refusal(&patient)?;
        assert!(text.contains("cannot get at what logging in"), "{text}");
        assert!(
            begun.elapsed() >= Duration::from_secs(10),
            "{:?}",
            begun.elapsed()
        );
        assert!(fs::read_to_string(gateway.log())?.contains("it had not ended after 10 s"));
        let pid = fs::read_to_string(pid)?;
        wait_until("the command is ended", LIMIT, || Ok(!is_alive(&pid)))?;
        wait_until("its cgroup is gone", LIMIT, || {
            Ok(commands_of(world)?.is_empty())
        })
    })
}

/// A command is intercepted as others are: it is not the gateway.
#[test]
fn a_command_is_a_client_like_others() -> Result<()> {
    let credentials = "{users: [alice], passwordCommand: [DIRECTORY/ask]}";
    with_credentials("login-command-client", credentials, |world, gateway| {
        // The server would let `wire` in, and the gateway does not know that user.
        let answer = world.directory().join("answer");
        script(
            world,
            "ask",
            &format!(
                "psql -w -X -h {TARGET_V4} -U wire -d shop -Atc 'SELECT 1' > {} 2>&1; echo alice-server-only",
                answer.display()
            ),
        )?;
        as_user(world, "alice").run("SELECT 1")?.success()?;
        let answer = fs::read_to_string(answer)?;
        assert!(answer.contains("no password supplied"), "{answer}");
        let connection = gateway.event("connection", |event| event["process"]["comm"] == "psql")?;
        let cgroup = connection["process"]["cgroup"]
            .as_str()
            .context("no cgroup")?;
        assert!(cgroup.contains("interceptor-command-"), "{cgroup}");
        Ok(())
    })
}

#[test]
fn by_the_process() -> Result<()> {
    let account = "postgres";
    let uid = User::from_name(account)?.context("no user postgres")?.uid;
    with_world("login-process", |world| {
        world.write_secret("bob.secret", "bob-password")?;
        let login = format!(
            "{{gateway: {{trust: process, credentials: [{{persons: [ben], as: bob, passwordFile: {}/bob.secret}}]}}}}",
            world.directory().display()
        );
        let people = format!(
            "---\n{{kind: Identity, name: ben, spec: {{uids: [{uid}]}}}}\n---\n{{kind: Identity, name: alice, spec: {{is: [{{users: [alice]}}]}}}}\n"
        );
        let policies = world.write_policy(&(policy(&login) + &people))?;
        let gateway = Gateway::start(world, &policies)?;
        let silent = |from, user| {
            let psql = world.psql(from).user(user).bare();
            psql.setting("PGPASSWORD", "")
        };
        let name = silent(From::Local, "whoever")
            .account(account)
            .run("SELECT current_user")?;
        assert_eq!(name.success()?.trim(), "bob");
        assert_eq!(identity(&gateway, "whoever")?["method"], "process");
        for psql in [
            silent(From::Local, "whoever"),
            // What the client says of itself proves nothing.
            silent(From::Local, "alice"),
            silent(From::Client, "whoever"),
            silent(From::Client, "alice"),
        ] {
            let text = refusal(&psql)?;
            assert!(
                text.contains("does not know for certain who uses target"),
                "{text}"
            );
        }
        Ok(())
    })
}

#[test]
fn recovered_from_the_clients_proof() -> Result<()> {
    with_world("login-recover", |world| {
        roles(world)?;
        let file = world.write_secret("verifiers", &verifiers(world)?)?;
        let login = format!("{{recover: {{verifierFile: {}}}}}", file.display());
        let policies = world.write_policy(&policy(&login))?;
        let gateway = Gateway::start(world, &policies)?;
        let alice = as_user(world, "alice");
        assert_eq!(alice.run("SELECT current_user")?.success()?.trim(), "alice");
        assert_eq!(identity(&gateway, "alice")?["login"], "recover");
        let wrong = alice.clone().setting("PGPASSWORD", "wrong");
        assert_eq!(
            refusal(&wrong)?,
            refusal(&wrong.clone().host(UNNAMED_V4))?.replace("10.77.2.3", "10.77.2.2")
        );
        // The server has its say each time.
        let expired = as_user(world, "expired");
        assert_eq!(
            refusal(&expired)?,
            refusal(&expired.clone().host(UNNAMED_V4))?.replace("10.77.2.3", "10.77.2.2")
        );
        world
            .postgres
            .directly("ALTER ROLE alice VALID UNTIL '2020-01-01'")?;
        let text = refusal(&alice)?;
        assert!(
            text.contains("password authentication failed for user \"alice\""),
            "{text}"
        );
        world
            .postgres
            .directly("ALTER ROLE alice VALID UNTIL 'infinity' PASSWORD 'another'")?;
        let text = refusal(&alice)?;
        assert!(
            text.contains("password authentication failed for user \"alice\""),
            "{text}"
        );
        let told = |event: &Value| {
            let reason = event["reason"].as_str().unwrap_or_default();
            reason.contains("another verifier of the user")
        };
        gateway.event("close", told)?;
        // The file is read at each login.
        world.write_secret("verifiers", &verifiers(world)?)?;
        let text = refusal(&alice)?;
        assert!(text.contains("password authentication failed"), "{text}");
        alice
            .setting("PGPASSWORD", "another")
            .run("SELECT 1")?
            .success()?;
        keeps_secrets(&gateway)
    })
}

/// Many at once: nobody waits for another, and nobody gets another's session.
#[test]
fn a_hundred_log_in() -> Result<()> {
    with_credentials("login-many", BY_FILE, |world, _| {
        let users = ["alice", "bob"];
        let mut running = Vec::new();
        for number in 0..100 {
            let user = users[number % users.len()];
            let psql = as_user(world, user).setting("PGCONNECT_TIMEOUT", "60");
            running.push((user, psql.start("SELECT current_user")?));
        }
        for (user, psql) in running {
            let expected = if user == "bob" { "proven" } else { user };
            assert_eq!(
                psql.wait(Duration::from_secs(90))?.success()?.trim(),
                expected
            );
        }
        Ok(())
    })
}
