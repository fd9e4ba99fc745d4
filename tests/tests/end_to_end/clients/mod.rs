//! Real clients, as people install them: each does what applications do with it and writes down
//! what it got.
//!
//! A transcript has to be the same without the gateway and through it. With masks it has to be the
//! one without the gateway in which each masked value is replaced by what its mask shows.

mod drivers;
mod programs;

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use interceptor_tests::clients::{JDBC, NODE_MODULES, PYTHON};
use interceptor_tests::policies::OPEN;
use interceptor_tests::postgres::{DATABASE, PORT, Version, password};
use interceptor_tests::process::{Finished, run};
use interceptor_tests::world::{TARGET_V4, UNNAMED_V4};
use interceptor_tests::{From, Gateway, World, with_gateway_of};

const PEOPLE: &str = include_str!("people.sql");
const SCRIPTS: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/end_to_end/clients/scripts"
);

/// The role that all clients log in as.
const ROLE: &str = "alice";

/// A client that compiles, imports and sleeps, on a machine that does much else.
const LIMIT: Duration = Duration::from_secs(60);

/// Masks on most columns, each with what its type can show.
const MASKED: &str = r#"
kind: Target
name: orders
spec:
  protocol: postgres
  endpoints: ["10.77.2.2:5432"]
  default: allow
  catalog: {user: interceptor_catalog, passwordFile: PASSWORD_FILE}
---
kind: Mask
name: addresses
spec: {columns: [public.people.email], with: partial}
---
kind: Mask
name: when
spec: {columns: [public.people.seen], with: "null"}
---
kind: Mask
name: facts
spec:
  columns: [public.people.born, public.people.salary, public.people.code, public.people.tags, public.people.profile]
  with: placeholder
---
kind: Mask
name: cards
spec: {patterns: [payment_card], with: full}
"#;

/// What is masked, as transcripts print it, and what is shown for it. How a type looks is up to
/// the client.
const SHOWN: &[(&str, &str)] = &[
    ("ada@mail.example", "a****@mail.example"),
    ("grace@mail.example", "g****@mail.example"),
    ("zoe@mail.example", "z****@mail.example"),
    ("1915-12-10", "2000-01-01"),
    ("1906-12-09", "2000-01-01"),
    ("1983-05-17", "2000-01-01"),
    ("81235.75", "0"),
    ("92346.25", "0"),
    ("73457.25", "0"),
    ("0a0a0a0a-1111-4111-8111-0123456789a1", NO_CODE),
    ("0a0a0a0a-2222-4222-8222-0123456789a2", NO_CODE),
    ("0a0a0a0a-3333-4333-8333-0123456789a3", NO_CODE),
    (r#"["loops", "notes"]"#, "[]"),
    ("{loops,notes}", "{}"),
    (r#"["nanoseconds"]"#, "[]"),
    ("{nanoseconds}", "{}"),
    (r#"["chess"]"#, "[]"),
    ("{chess}", "{}"),
    (r#"{"desk": "north-17"}"#, r#""<profile>""#),
    (r#"{\"desk\": \"north-17\"}"#, r#"\"<profile>\""#),
    (r#"{"desk": "south-23"}"#, r#""<profile>""#),
    (r#"{\"desk\": \"south-23\"}"#, r#"\"<profile>\""#),
    (r#"{"desk": "west-31"}"#, r#""<profile>""#),
    (r#"{\"desk\": \"west-31\"}"#, r#"\"<profile>\""#),
    (r#""2024-03-01T09:15:00+00:00""#, "null"),
    ("2024-03-01 09:15:00+00", ""),
    (r#""2024-04-02T10:25:30+00:00""#, "null"),
    ("2024-04-02 10:25:30+00", ""),
    (r#""2024-05-03T11:35:00+00:00""#, "null"),
    ("2024-05-03 11:35:00+00", ""),
    ("4111 1111 1111 1111", "****"),
    ("5555 5555 5555 4444", "****"),
    ("3782 822463 10005", "****"),
    ("6011 1111 1111 1117", "****"),
    ("4012 8888 8888 1881", "****"),
    ("3530 1113 3330 0000", "****"),
    // What messages of the server quote.
    ("never_there", "****"),
    ("no number", "****"),
];
const NO_CODE: &str = "00000000-0000-0000-0000-000000000000";

/// Where a client connects to.
type Transcript<'t> = &'t dyn Fn(&World, &str) -> Result<String>;

/// Has a client write its transcript on all three ways and compares them.
fn compare(version: Version, name: &str, client: Transcript<'_>) -> Result<()> {
    with_gateway_of(version, name, OPEN, |world, gateway| {
        world.postgres.directly(PEOPLE)?;
        let direct = client(world, &UNNAMED_V4.to_string())?;
        ensure!(direct.lines().count() >= 15, "a short transcript\n{direct}");
        for mark in [
            "ada@",
            "81235.75",
            "-0123456789a1",
            "loops",
            "north-17",
            "2024-03-01",
            "4111",
        ] {
            ensure!(direct.contains(mark), "no {mark} in\n{direct}");
        }
        same(&direct, &client(world, &TARGET_V4.to_string())?)?;
        mask(world, gateway)?;
        same(&shown(&direct), &client(world, &TARGET_V4.to_string())?)
    })
}

/// Starts the gateway again with masks.
fn mask(world: &World, gateway: &mut Gateway<'_>) -> Result<()> {
    gateway.terminate()?;
    gateway.wait(Duration::from_secs(20))?;
    world.write_policy(MASKED)?;
    gateway.restart()
}

/// A transcript as masks leave it: errors lose their DETAIL, too.
fn shown(transcript: &str) -> String {
    let lines = transcript.split_inclusive('\n');
    let kept = lines.filter(|line| !line.starts_with("DETAIL:  Key "));
    SHOWN
        .iter()
        .fold(kept.collect(), |text: String, (value, shown)| {
            text.replace(value, shown)
        })
}

/// Fails with the lines that differ.
fn same(expected: &str, found: &str) -> Result<()> {
    let mut differences = String::new();
    let (mut left, mut right) = (expected.lines(), found.lines());
    loop {
        match (left.next(), right.next()) {
            (None, None) => break,
            (left, right) if left == right => {}
            (left, right) => {
                let (left, right) = (left.unwrap_or_default(), right.unwrap_or_default());
                differences.push_str(&format!("expected {left}\n   found {right}\n"));
            }
        }
    }
    ensure!(differences.is_empty(), "{differences}");
    Ok(())
}

/// The output of a client that must not fail.
fn transcript(mut command: std::process::Command) -> Result<String> {
    command
        .env("PGPASSWORD", password(ROLE))
        .env("PGCONNECT_TIMEOUT", "20")
        .current_dir("/");
    let Finished {
        stdout,
        stderr,
        status,
        what,
        ..
    } = run(command, LIMIT)?;
    ensure!(status.success(), "{what} failed\n{stdout}{stderr}");
    Ok(stdout)
}

fn script(name: &str) -> String {
    Path::new(SCRIPTS).join(name).display().to_string()
}

fn python(world: &World, name: &str, host: &str) -> Result<String> {
    let mut command = world.command(From::Client, PYTHON)?;
    command.args(["-B", &script(name)]).arg(url(host));
    transcript(command)
}

/// An address with everything but the password.
fn url(host: &str) -> String {
    format!("postgresql://{ROLE}@{host}:{PORT}/{DATABASE}")
}

/// Names a test for each version of the server.
macro_rules! with_both {
    ($client:ident, $fifteen:ident, $eighteen:ident) => {
        #[test]
        fn $fifteen() -> Result<()> {
            let world = concat!("client-", stringify!($client), "-15");
            compare(Version::Debian, world, &$client)
        }

        #[test]
        fn $eighteen() -> Result<()> {
            let world = concat!("client-", stringify!($client), "-18");
            compare(Version::Eighteen, world, &$client)
        }
    };
}

with_both!(psycopg, psycopg_with_15, psycopg_with_18);
with_both!(asyncpg, asyncpg_with_15, asyncpg_with_18);
with_both!(node, node_with_15, node_with_18);
with_both!(pgjdbc, pgjdbc_with_15, pgjdbc_with_18);

fn psycopg(world: &World, host: &str) -> Result<String> {
    python(world, "with_psycopg.py", host)
}

fn asyncpg(world: &World, host: &str) -> Result<String> {
    python(world, "with_asyncpg.py", host)
}

fn node(world: &World, host: &str) -> Result<String> {
    let mut command = world.command(From::Client, "node")?;
    command
        .args([script("with_pg.js"), url(host)])
        .env("NODE_PATH", NODE_MODULES);
    transcript(command)
}

fn pgjdbc(world: &World, host: &str) -> Result<String> {
    let classes = world.directory().join("classes");
    if !classes.exists() {
        let mut compiler = world.command(From::Client, "javac")?;
        compiler
            .args(["-cp", JDBC, "-d"])
            .arg(&classes)
            .arg(script("WithPgjdbc.java"));
        transcript(compiler)?;
    }
    let mut command = world.command(From::Client, "java")?;
    command
        // It is over before compiling it well pays.
        .args(["-XX:TieredStopAtLevel=1", "-Duser.timezone=UTC", "-cp"])
        .arg(format!("{JDBC}:{}", classes.display()))
        .args([
            "WithPgjdbc",
            &format!("jdbc:postgresql://{host}:{PORT}/{DATABASE}?user={ROLE}"),
        ]);
    transcript(command)
}
