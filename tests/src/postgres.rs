//! A real PostgreSQL of its own: initialised once per version, copied for each world.
//!
//! There are two versions: Debian's, and a newer one from npm.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cgroup::{self, Cgroup};
use crate::netns::Namespace;
use crate::process::{self, Running, poll_until, run, wait_until};

/// The account that the server runs as: it refuses to be root.
pub const ACCOUNT: &str = "postgres";

/// Where it listens.
pub const PORT: u16 = 5432;

/// The sample database.
pub const DATABASE: &str = "shop";

const SAMPLE: &str = include_str!("../sql/shop.sql");

/// The configuration that Vagrant's target has too.
const SETTINGS: &str = include_str!("../../vagrant/postgresql.conf");
const ACCESS: &str = include_str!("../../vagrant/pg_hba.conf");

/// Where `cargo xtask setup` puts PostgreSQL 18: in reach of [`ACCOUNT`].
pub const EIGHTEEN: &str = "/var/cache/interceptor/postgresql-18";

/// Which PostgreSQL the target runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Version {
    /// The newest that Debian has installed: 15 on Debian 12.
    #[default]
    Debian,
    /// 18, which has protocol 3.2 and direct TLS.
    Eighteen,
}

impl Version {
    /// The path of one of the server's own programs: `postgres`, `initdb`.
    pub fn program(self, name: &str) -> Result<String> {
        if self == Self::Debian {
            return program(name);
        }
        let file = Path::new(EIGHTEEN).join("bin").join(name);
        ensure!(
            file.exists(),
            "PostgreSQL 18 has no {}; run `cargo xtask setup`",
            file.display()
        );
        Ok(file.to_string_lossy().into_owned())
    }

    fn text(self) -> Result<String> {
        let mut command = Command::new(self.program("postgres")?);
        command.arg("--version");
        run(command, Duration::from_secs(10))?.success()
    }
}

/// How the names of templates begin, and the lock that whoever makes or removes one holds.
const TEMPLATE: &str = "template-";
const LOCK: &str = "templates.lock";

/// The password of each role of the sample database.
pub fn password(role: &str) -> String {
    match role {
        "interceptor_catalog" => "catalog-password".to_owned(),
        other => format!("{other}-password"),
    }
}

/// A running server.
#[derive(Debug)]
pub struct Postgres {
    directory: PathBuf,
    process: Running,
}

impl Postgres {
    /// Copies the template to `directory` and starts the server.
    pub(crate) fn start(
        directory: &Path,
        namespace: &Namespace,
        cgroup: &Cgroup,
        template: &Path,
        version: Version,
    ) -> Result<Self> {
        let data = data_in(directory);
        let mut copy = process::command("cp", None, Some(cgroup), None)?;
        copy.args(["-a", "--reflink=auto"]).arg(template).arg(&data);
        run(copy, Duration::from_secs(60))?.success()?;
        let postgres = process::command(
            &version.program("postgres")?,
            Some(namespace),
            Some(cgroup),
            Some(ACCOUNT),
        )?;
        Self::launch(directory, postgres, &[])
    }

    fn launch(directory: &Path, mut postgres: Command, options: &[&str]) -> Result<Self> {
        postgres
            .arg("-D")
            .arg(data_in(directory))
            .arg("-k")
            .arg(directory)
            .args(options)
            .current_dir(directory);
        let log = directory.join("postgres.log");
        let mut process = Running::spawn_logged(postgres, &log)?;
        wait_until("PostgreSQL is ready", Duration::from_secs(30), || {
            if process.has_ended()? {
                bail!("PostgreSQL did not start\n{}", process.stderr()?);
            }
            // The last line of postmaster.pid turns to "ready" when connections are taken.
            let state = fs::read_to_string(data_in(directory).join("postmaster.pid"));
            Ok(state.is_ok_and(|text| text.lines().any(|line| line.trim() == "ready")))
        })?;
        Ok(Self {
            directory: directory.to_owned(),
            process,
        })
    }

    /// Runs SQL at the server itself, as its superuser through its unix socket: no network, no
    /// gateway. Gives unaligned rows.
    pub fn directly(&self, sql: &str) -> Result<String> {
        self.directly_in(DATABASE, sql)
    }

    /// The same, with rows as psql shows them to a person.
    pub fn directly_aligned(&self, sql: &str) -> Result<String> {
        self.psql(DATABASE, &[], sql)
    }

    fn directly_in(&self, database: &str, sql: &str) -> Result<String> {
        self.psql(database, &["-A", "-t"], sql)
    }

    fn psql(&self, database: &str, options: &[&str], sql: &str) -> Result<String> {
        let mut psql = process::command("psql", None, None, Some(ACCOUNT))?;
        psql.args(["-X", "-q", "-v", "ON_ERROR_STOP=1"])
            .args(options)
            .args(["-d", database, "-f", "-", "-h"])
            .arg(&self.directory)
            .current_dir(&self.directory);
        let text = Running::spawn(psql, sql)?
            .wait(Duration::from_secs(600))?
            .success()?;
        Ok(text.trim_end().to_owned())
    }

    /// Admits clients by these lines of `pg_hba.conf`, before those of the sample.
    pub fn admit(&self, lines: &str) -> Result<()> {
        let file = data_in(&self.directory).join("pg_hba.conf");
        fs::write(&file, format!("{lines}\n{ACCESS}"))?;
        self.reload()
    }

    /// Has it read its configuration anew, and waits until new sessions have it.
    pub fn reload(&self) -> Result<()> {
        const LOADED: &str = "SELECT pg_conf_load_time()";
        let before = self.directly(LOADED)?;
        self.directly("SELECT pg_reload_conf()")?;
        wait_until(
            "PostgreSQL reads its configuration",
            Duration::from_secs(20),
            || Ok(self.directly(LOADED)? != before),
        )
    }

    /// Everything that the server logged: each statement that reached it over the network.
    ///
    /// Statements of the harness itself arrive on the unix socket and are left out.
    pub fn network_log(&self) -> Result<String> {
        let log = self.process.stderr()?;
        let mut kept = String::new();
        for line in log.lines().filter(|line| !line.contains(" [local] ")) {
            kept.push_str(line);
            kept.push('\n');
        }
        Ok(kept)
    }

    /// Whether `text` is in a statement that reached the server over the network.
    pub fn has_seen(&self, text: &str) -> Result<bool> {
        Ok(self.network_log()?.contains(text))
    }
}

/// Shuts down the server whose data is in `directory`, if it still runs, so that it gives back its
/// shared memory. It is ours only if it runs in `cgroup`.
pub(crate) fn shut_down(directory: &Path, cgroup: &Path) {
    let Ok(text) = fs::read_to_string(data_in(directory).join("postmaster.pid")) else {
        return;
    };
    let Some(pid) = text.lines().next().and_then(|line| line.parse().ok()) else {
        return;
    };
    let pid = Pid::from_raw(pid);
    if !cgroup::processes(cgroup).contains(&pid) {
        return;
    }
    // SIGQUIT is PostgreSQL's immediate shutdown. What does not heed it is killed by the sweep.
    let _ = kill(pid, Signal::SIGQUIT);
    poll_until(Duration::from_secs(5), || {
        !cgroup::processes(cgroup).contains(&pid)
    });
}

/// The initialised data directory with the sample database, made at most once per version.
pub(crate) fn template(cache: &Path, version: Version) -> Result<PathBuf> {
    let mut hasher = DefaultHasher::new();
    (version.text()?, SAMPLE, SETTINGS, ACCESS).hash(&mut hasher);
    let template = cache.join(format!("{TEMPLATE}{:016x}", hasher.finish()));

    let lock = File::create(cache.join(LOCK))?;
    lock.lock()?;
    if template.exists() {
        return Ok(template);
    }
    let scratch = cache.join(format!("{TEMPLATE}new"));
    if scratch.exists() {
        fs::remove_dir_all(&scratch)?;
    }
    fs::create_dir(&scratch)?;
    crate::world::give_to(&scratch, ACCOUNT)?;
    initialise(&scratch, version).context("cannot make the PostgreSQL template")?;
    fs::rename(data_in(&scratch), &template)?;
    fs::remove_dir_all(&scratch)?;
    Ok(template)
}

/// Removes every template from `cache`, if there is nothing else in it that may use one.
pub(crate) fn remove_templates(cache: &Path) -> Result<()> {
    let lock = File::create(cache.join(LOCK))?;
    lock.lock()?;
    let mut templates = Vec::new();
    for entry in fs::read_dir(cache)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(TEMPLATE) {
            templates.push(entry.path());
        } else if entry.file_type()?.is_dir() {
            return Ok(());
        }
    }
    for template in templates {
        fs::remove_dir_all(template)?;
    }
    Ok(())
}

fn initialise(scratch: &Path, version: Version) -> Result<()> {
    let mut initdb = process::command(&version.program("initdb")?, None, None, Some(ACCOUNT))?;
    initdb
        .args(["--auth=scram-sha-256", "--auth-local=peer", "--no-sync"])
        .args(["--encoding=UTF8", "--locale=C.UTF-8", "--no-instructions"])
        .arg("-D")
        .arg(data_in(scratch))
        .current_dir(scratch);
    run(initdb, Duration::from_secs(120))?.success()?;
    let data = data_in(scratch);
    let defaults = fs::read_to_string(data.join("postgresql.conf"))?;
    fs::write(data.join("postgresql.conf"), defaults + SETTINGS)?;
    fs::write(data.join("pg_hba.conf"), ACCESS)?;

    let postgres = process::command(&version.program("postgres")?, None, None, Some(ACCOUNT))?;
    // No network yet, and every write durable: this is copied again and again.
    let options = ["-c", "listen_addresses=", "-c", "fsync=on"];
    let server = Postgres::launch(scratch, postgres, &options)?;
    server.directly_in("postgres", SAMPLE)?;
    server.directly_in("postgres", "VACUUM ANALYZE; CHECKPOINT;")?;
    server.process.signal(Signal::SIGINT)?;
    server.process.wait(Duration::from_secs(30))?.success()?;
    Ok(())
}

/// The address of the server as a policy file writes it.
pub fn endpoint(address: IpAddr) -> String {
    std::net::SocketAddr::new(address, PORT).to_string()
}

fn data_in(directory: &Path) -> PathBuf {
    directory.join("data")
}

/// Debian keeps the server's programs out of PATH, one directory per major version.
pub fn program(name: &str) -> Result<String> {
    let mut candidates: Vec<(u32, PathBuf)> = Vec::new();
    for entry in fs::read_dir("/usr/lib/postgresql").into_iter().flatten() {
        let directory = entry?;
        let version = directory.file_name().to_string_lossy().parse();
        let file = directory.path().join("bin").join(name);
        if let (Ok(version), true) = (version, file.exists()) {
            candidates.push((version, file));
        }
    }
    if let Some((_, newest)) = candidates.into_iter().max() {
        return Ok(newest.to_string_lossy().into_owned());
    }
    for directory in std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()) {
        let file = directory.join(name);
        if file.exists() {
            return Ok(file.to_string_lossy().into_owned());
        }
    }
    Err(anyhow!(
        "PostgreSQL's `{name}` is not installed; run `cargo xtask setup`"
    ))
}
