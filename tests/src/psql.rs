//! An unmodified psql, as a user would start it.

use std::net::IpAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use crate::postgres::{ACCOUNT, DATABASE, EIGHTEEN, PORT, password};
use crate::process::{Finished, Running};
use crate::world::{From, TARGET_V4, World};

/// The command line that the target's administrator would type on the target itself.
pub fn at_the_target(sql: &str) -> String {
    format!("psql -U {ACCOUNT} {DATABASE} -c \"{sql}\"")
}

/// A psql about to be started.
#[derive(Debug, Clone)]
pub struct Psql<'w> {
    world: &'w World,
    from: From,
    host: IpAddr,
    user: String,
    account: Option<String>,
    options: Vec<String>,
    settings: Vec<(String, String)>,
    limit: Duration,
}

impl<'w> Psql<'w> {
    pub(crate) fn new(world: &'w World, from: From) -> Self {
        Self {
            world,
            from,
            host: IpAddr::V4(TARGET_V4),
            user: "alice".to_owned(),
            account: None,
            options: Vec::new(),
            settings: Vec::new(),
            limit: Duration::from_secs(30),
        }
    }

    /// Dials another address of the target.
    #[must_use]
    pub fn host(mut self, address: impl Into<IpAddr>) -> Self {
        self.host = address.into();
        self
    }

    /// Logs in as another role.
    #[must_use]
    pub fn user(mut self, role: &str) -> Self {
        role.clone_into(&mut self.user);
        self
    }

    /// Is started by another local user than root.
    #[must_use]
    pub fn account(mut self, name: &str) -> Self {
        self.account = Some(name.to_owned());
        self
    }

    /// Sets a variable of its environment, such as libpq's `PGSSLMODE`.
    #[must_use]
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Runs with the libpq of PostgreSQL 18 and insists on this version of the protocol.
    #[must_use]
    pub fn speaking(self, protocol: &str) -> Self {
        self.setting("LD_LIBRARY_PATH", &format!("{EIGHTEEN}/lib"))
            .setting("PGMINPROTOCOLVERSION", protocol)
            .setting("PGMAXPROTOCOLVERSION", protocol)
    }

    /// Adds an option of psql.
    #[must_use]
    pub fn option(mut self, option: &str) -> Self {
        self.options.push(option.to_owned());
        self
    }

    /// Prints bare rows, for comparison.
    #[must_use]
    pub fn bare(self) -> Self {
        self.option("-A").option("-t").option("-q")
    }

    /// Gives up after this long.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// The command line that a user would type.
    pub fn command_line(&self, sql: &str) -> String {
        let options = self.options.join(" ");
        let space = if options.is_empty() { "" } else { " " };
        format!(
            "psql{space}{options} -h {} -U {} {DATABASE} -c \"{sql}\"",
            self.host, self.user
        )
    }

    /// Starts it with `-c sql`.
    pub fn start(&self, sql: &str) -> Result<Running> {
        let mut command = self.command()?;
        command.args(["-c", sql]);
        Running::spawn(command, "")
    }

    fn command(&self) -> Result<Command> {
        let account = self.account.as_deref();
        let mut command = self.world.command_as(self.from, "psql", account)?;
        command
            .args(["-X", "-h", &self.host.to_string()])
            .args(["-p", &PORT.to_string(), "-U", &self.user, "-d", DATABASE])
            .args(&self.options)
            .env("PGPASSWORD", password(&self.user))
            .env("PGCONNECT_TIMEOUT", "10")
            .envs(self.settings.iter().cloned())
            .current_dir("/");
        Ok(command)
    }

    /// Runs it with `-c sql` to its end.
    pub fn run(&self, sql: &str) -> Result<Finished> {
        self.start(sql)?.wait(self.limit)
    }

    /// Runs a script on its standard input to its end, stopping at the first error.
    pub fn script(&self, sql: &str) -> Result<Finished> {
        let mut command = self.command()?;
        command.args(["-v", "ON_ERROR_STOP=1", "-f", "-"]);
        Running::spawn(command, sql)?.wait(self.limit)
    }
}
