//! The work that is measured, and the data it runs on.

use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use interceptor_tests::postgres::{self, DATABASE, password};
use interceptor_tests::wire::Wire;
use interceptor_tests::{From, World, process};

use super::paths::Path;

/// One kind of work.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Work {
    /// `pgbench -S`: many small queries.
    Pgbench {
        prepared: bool,
        clients: u32,
        seconds: u32,
    },
    /// One large answer.
    Bulk { copy: bool, masked: bool, rows: u64 },
}

/// What was done.
pub(crate) struct Done {
    pub(crate) items: u64,
    pub(crate) elapsed: Duration,
}

impl Work {
    /// A name in the report.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Pgbench {
                prepared, clients, ..
            } => {
                let mode = if *prepared { "prepared" } else { "simple" };
                format!("{mode}.clients_{clients}")
            }
            Self::Bulk { copy, masked, .. } => {
                let how = if *copy { "copy" } else { "select" };
                let what = if *masked { "masked" } else { "unmasked" };
                format!("{how}.{what}")
            }
        }
    }

    /// What is counted.
    pub(crate) fn unit(&self) -> &'static str {
        match self {
            Self::Pgbench { .. } => "queries/s",
            Self::Bulk { .. } => "rows/s",
        }
    }

    /// Does it once over one path.
    pub(crate) fn run(&self, world: &World, path: Path) -> Result<Done> {
        match *self {
            Self::Pgbench {
                prepared,
                clients,
                seconds,
            } => pgbench(world, path, prepared, clients, seconds),
            Self::Bulk { copy, masked, rows } => bulk(world, path, copy, masked, rows),
        }
    }
}

/// Fills the database, and turns off the server's statement log.
pub(crate) fn prepare(world: &World, rows: u64) -> Result<()> {
    let server = &world.postgres;
    server.directly("ALTER SYSTEM SET log_statement = 'none'")?;
    server.directly("ALTER SYSTEM SET log_connections = off; SELECT pg_reload_conf()")?;
    let mut pgbench = Command::new("setpriv");
    pgbench
        .args(["--reuid", postgres::ACCOUNT, "--regid", postgres::ACCOUNT])
        .args(["--init-groups", &postgres::program("pgbench")?, "-q", "-i"])
        .args(["-s", "10", "-h"])
        .arg(world.directory().join("postgres"))
        .arg(DATABASE)
        .current_dir(world.directory());
    process::run(pgbench, Duration::from_secs(120))?.success()?;
    let people = format!(
        "CREATE TABLE people_unmasked AS
         SELECT n AS id, 'Person number ' || n AS name, 'person' || n || '@example.com' AS email,
                (n % 100000) / 100.0 AS balance,
                timestamptz '2024-01-01 00:00:00+00' + n * interval '1 second' AS joined
         FROM generate_series(1, {rows}) AS n;
         CREATE TABLE people_masked AS TABLE people_unmasked;
         GRANT SELECT ON ALL TABLES IN SCHEMA public TO alice, wire;"
    );
    server.directly(&people)?;
    server.directly("VACUUM (ANALYZE)")?;
    server.directly("CHECKPOINT")?;
    Ok(())
}

fn pgbench(world: &World, path: Path, prepared: bool, clients: u32, seconds: u32) -> Result<Done> {
    let address = path.address();
    let mut command = world.command(From::Client, &postgres::program("pgbench")?)?;
    command
        .args(["--select-only", "--no-vacuum", "--protocol"])
        .arg(if prepared { "prepared" } else { "simple" })
        .args(["--client", &clients.to_string()])
        .args(["--jobs", &clients.min(2).to_string()])
        .args(["--time", &seconds.to_string()])
        .args(["-h", &address.ip().to_string()])
        .args(["-p", &address.port().to_string()])
        .args(["-U", "alice", DATABASE])
        .env("PGPASSWORD", password("alice"));
    let limit = Duration::from_secs(u64::from(seconds).saturating_add(60));
    let text = process::run(command, limit)?.success()?;
    let figure = |before: &str| {
        text.lines()
            .find_map(|line| line.trim().strip_prefix(before)?.split_whitespace().next())
            .ok_or_else(|| anyhow!("pgbench over {path} printed no {before:?}\n{text}"))
    };
    let rate: f64 = figure("tps =")?.parse()?;
    let items: u64 = figure("number of transactions actually processed:")?
        .split('/')
        .next()
        .unwrap_or_default()
        .parse()?;
    let failed = figure("number of failed transactions:")?;
    ensure!(failed == "0", "{failed} queries failed over {path}\n{text}");
    ensure!(rate > 0.0, "pgbench did nothing over {path}\n{text}");
    Ok(Done {
        items,
        // pgbench's own rate leaves out the time it took to connect.
        elapsed: Duration::from_secs_f64(items as f64 / rate),
    })
}

fn bulk(world: &World, path: Path, copy: bool, masked: bool, rows: u64) -> Result<Done> {
    let address = path.address();
    let stream = world
        .client
        .enter(|| TcpStream::connect_timeout(&address, Duration::from_secs(10)))?
        .with_context(|| format!("no connection over {path}"))?;
    let mut wire = Wire::new(stream)?;
    wire.limit(Duration::from_secs(60))?;
    wire.log_in()?;
    let table = if masked {
        "people_masked"
    } else {
        "people_unmasked"
    };
    let sql = if copy {
        format!("COPY {table} TO STDOUT")
    } else {
        format!("SELECT * FROM {table}")
    };
    let start = Instant::now();
    let counted = wire.count(&sql)?;
    let elapsed = start.elapsed();
    ensure!(
        counted.rows == rows,
        "{} of {rows} rows came over {path}",
        counted.rows
    );
    Ok(Done {
        items: rows,
        elapsed,
    })
}
