//! What comes with PostgreSQL itself: psql, pgbench, pg_dump and pg_restore.

use anyhow::{Result, ensure};
use interceptor_tests::policies::OPEN;
use interceptor_tests::postgres::{DATABASE, PORT, Version};
use interceptor_tests::world::{TARGET_V4, UNNAMED_V4};
use interceptor_tests::{From, World, with_gateway_of};

use super::{PEOPLE, ROLE, compare, mask, same, script, shown, transcript};

#[test]
fn psql_with_15() -> Result<()> {
    compare(Version::Debian, "client-psql-15", &psql)
}

#[test]
fn psql_with_18() -> Result<()> {
    compare(Version::Eighteen, "client-psql-18", &psql)
}

/// A script of meta-commands; what psql reports stands among its rows.
fn psql(world: &World, host: &str) -> Result<String> {
    let mut command = world.command(From::Client, "sh")?;
    command
        .args(["-c", r#"exec psql -X "$@" 2>&1"#, "psql"])
        .args([
            "-h",
            host,
            "-p",
            &PORT.to_string(),
            "-U",
            ROLE,
            "-d",
            DATABASE,
        ])
        .args(["-f", &script("meta.sql")]);
    transcript(command)
}

#[test]
fn pgbench_with_15() -> Result<()> {
    pgbench(Version::Debian, "client-pgbench-15")
}

#[test]
fn pgbench_with_18() -> Result<()> {
    pgbench(Version::Eighteen, "client-pgbench-18")
}

/// Every mode of its protocol, with the same random numbers on all ways.
fn pgbench(version: Version, name: &str) -> Result<()> {
    with_gateway_of(version, name, OPEN, |world, gateway| {
        let direct = rounds(world, &UNNAMED_V4.to_string())?;
        ensure!(direct.contains("processed: 100/100"), "{direct}");
        same(&direct, &rounds(world, &TARGET_V4.to_string())?)?;
        world.postgres.directly(PEOPLE)?;
        mask(world, gateway)?;
        same(&direct, &rounds(world, &TARGET_V4.to_string())?)
    })
}

/// What pgbench counts, and what it leaves in its tables.
fn rounds(world: &World, host: &str) -> Result<String> {
    let pgbench = |options: &[&str]| {
        let mut command = world.command(From::Client, "pgbench")?;
        command
            .args(options)
            .args(["-h", host, "-p", &PORT.to_string(), "-U", ROLE, DATABASE]);
        transcript(command)
    };
    pgbench(&["-i", "-q", "--foreign-keys"])?;
    let mut text = String::new();
    for mode in ["simple", "extended", "prepared"] {
        for script in [&["-b", "tpcb-like"][..], &["-b", "select-only"]] {
            let common = ["-n", "-c", "4", "-t", "25", "--random-seed=7", "-M", mode];
            let report = pgbench(&[&common, script].concat())?;
            let counts = ["query mode", "transactions actually", "failed"];
            for line in report.lines() {
                if counts.iter().any(|start| line.contains(start)) {
                    text.push_str(line);
                    text.push('\n');
                }
            }
        }
    }
    let sums = "SELECT count(*), sum(abalance), sum(abalance::numeric * aid) FROM pgbench_accounts;
                SELECT count(*), sum(delta) FROM pgbench_history;";
    text.push_str(&world.postgres.directly(sums)?);
    Ok(text)
}

/// Debian's `pg_dump` is not for newer servers than itself, so this is for one version.
#[test]
fn dumps_are_the_same_and_can_be_restored() -> Result<()> {
    with_gateway_of(Version::Debian, "client-dump", OPEN, |world, gateway| {
        world.postgres.directly(PEOPLE)?;
        let direct = dump(world, &UNNAMED_V4.to_string(), DATABASE)?;
        ensure!(direct.contains("ada@mail.example"), "{direct}");
        let target = TARGET_V4.to_string();
        same(&direct, &dump(world, &target, DATABASE)?)?;

        world.postgres.directly(&format!(
            "CREATE DATABASE copied OWNER {ROLE};\n\\connect copied\nALTER SCHEMA public OWNER TO {ROLE}"
        ))?;
        let file = world.directory().join("shop.dump");
        let file = file.display().to_string();
        let archive = ["-Fc", "-f", &file, "-h", &target, "-U", ROLE, DATABASE];
        let mut command = world.command(From::Client, "pg_dump")?;
        command.args(archive);
        transcript(command)?;
        let mut command = world.command(From::Client, "pg_restore")?;
        command.args(["--exit-on-error", "-h", &target, "-U", ROLE]);
        command.args(["-d", "copied", &file]);
        transcript(command)?;
        same(&direct, &dump(world, &UNNAMED_V4.to_string(), "copied")?)?;

        mask(world, gateway)?;
        // How COPY writes that there is nothing.
        let mut masked = direct;
        for seen in [
            "2024-03-01 09:15:00+00",
            "2024-04-02 10:25:30+00",
            "2024-05-03 11:35:00+00",
        ] {
            masked = masked.replace(seen, "\\N");
        }
        same(&shown(&masked), &dump(world, &target, DATABASE)?)
    })
}

/// A dump without its random key.
fn dump(world: &World, host: &str, database: &str) -> Result<String> {
    let mut command = world.command(From::Client, "pg_dump")?;
    command.args(["-h", host, "-U", ROLE, database]);
    let text = transcript(command)?;
    let kept = |line: &&str| !line.starts_with("\\restrict") && !line.starts_with("\\unrestrict");
    Ok(text.lines().filter(kept).collect::<Vec<_>>().join("\n"))
}
