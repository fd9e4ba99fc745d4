//! A real gateway in the world's gateway namespace, known by its command line only.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::process::{Finished, Running, run, wait_until};
use crate::world::World;

/// How long a start may take: loading and verifying the kernel programs is most of it.
const START_LIMIT: Duration = Duration::from_secs(20);

/// How long a command of the command line may take.
const COMMAND_LIMIT: Duration = Duration::from_secs(30);

/// How far back the harness looks in the log.
const EVENTS_MAX: u32 = 5000;

/// A gateway, running or not.
#[derive(Debug)]
pub struct Gateway<'w> {
    world: &'w World,
    policies: PathBuf,
    options: Vec<String>,
    environment: Vec<(String, String)>,
    service_manager: Option<PathBuf>,
    process: Option<Running>,
}

impl<'w> Gateway<'w> {
    /// Starts `interceptor run` and waits until it carries connections.
    pub fn start(world: &'w World, policies: &Path) -> Result<Self> {
        Self::start_with(world, policies, &[])
    }

    /// The same, with more options of `interceptor run`.
    pub fn start_with(world: &'w World, policies: &Path, options: &[&str]) -> Result<Self> {
        let mut gateway = Self {
            world,
            policies: policies.to_owned(),
            options: options.iter().map(|&option| option.to_owned()).collect(),
            environment: Vec::new(),
            service_manager: None,
            process: None,
        };
        gateway.restart()?;
        Ok(gateway)
    }

    /// Starts it again with these variables in its environment, besides what the tests have.
    pub fn restart_with_environment(&mut self, variables: &[(&str, &str)]) -> Result<()> {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        self.environment = variables.iter().map(owned).collect();
        self.restart()
    }

    /// Starts it again, after it ended, as a service of the manager that listens on this socket.
    pub fn restart_as_service(&mut self, notify_socket: &Path) -> Result<()> {
        self.service_manager = Some(notify_socket.to_owned());
        self.restart()
    }

    /// Starts it again, after it ended.
    pub fn restart(&mut self) -> Result<()> {
        ensure!(self.process.is_none(), "the gateway runs already");
        let mut command = run_command(self.world, &self.policies, self.world.cgroup(), None)?;
        command.args(&self.options);
        if !self.options.iter().any(|option| option == "--drain") {
            command.args(["--drain", "10s"]);
        }
        command.envs(self.environment.iter().cloned());
        if let Some(socket) = &self.service_manager {
            command.env("NOTIFY_SOCKET", socket);
        }
        let mut process = Running::spawn_logged(command, &self.log())?;
        let socket = self.run_directory().join("admin.sock");
        wait_until("the gateway is ready", START_LIMIT, || {
            if process.has_ended()? {
                bail!("the gateway did not start\n{}", process.stderr()?);
            }
            Ok(UnixStream::connect(&socket).is_ok())
        })?;
        self.process = Some(process);
        Ok(())
    }

    /// Runs `interceptor run` where it is expected to refuse to start, and gives what it printed
    /// on standard error. `account` is who starts it; `None` is root.
    pub fn refuses_to_start(
        world: &World,
        policies: &Path,
        cgroup: &Path,
        account: Option<&str>,
    ) -> Result<String> {
        Self::refuses(run_command(world, policies, cgroup, account)?)
    }

    /// The same as root, with more options of `interceptor run`.
    pub fn refuses_with(world: &World, policies: &Path, options: &[&str]) -> Result<String> {
        let mut command = run_command(world, policies, world.cgroup(), None)?;
        command.args(options);
        Self::refuses(command)
    }

    fn refuses(command: Command) -> Result<String> {
        let finished = run(command, START_LIMIT)?;
        ensure!(
            finished.status.code() == Some(1),
            "it ended with {}, not with 1\n{}",
            finished.status,
            finished.stderr
        );
        finished.failure()
    }

    /// Its process id.
    pub fn pid(&self) -> Result<u32> {
        Ok(self.running()?.pid())
    }

    /// Everything it printed.
    pub fn log(&self) -> PathBuf {
        self.world.directory().join("gateway.log")
    }

    /// Its `--run-dir`.
    pub fn run_directory(&self) -> PathBuf {
        run_directory(self.world)
    }

    /// Its `--state`.
    pub fn state_directory(&self) -> PathBuf {
        state_directory(self.world)
    }

    /// True while the process is there.
    pub fn is_alive(&mut self) -> Result<bool> {
        match &mut self.process {
            Some(process) => Ok(!process.has_ended()?),
            None => Ok(false),
        }
    }

    /// Ends it as a crash would.
    pub fn kill(&mut self) -> Result<()> {
        self.signal(Signal::SIGKILL)?;
        self.wait(Duration::from_secs(5))?;
        Ok(())
    }

    /// Asks it to end in order.
    pub fn terminate(&self) -> Result<()> {
        self.signal(Signal::SIGTERM)
    }

    /// Waits for its end.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let process = self
            .process
            .take()
            .ok_or_else(|| anyhow!("the gateway does not run"))?;
        Ok(process.wait(limit)?.status)
    }

    /// Runs another command of `interceptor`, such as `approvals approve 1`, with `--run-dir`.
    pub fn cli(&self, arguments: &[&str]) -> Result<Finished> {
        let mut command = self.world.gateway_command(&self.world.binary()?, None)?;
        command
            .args(arguments)
            .arg("--run-dir")
            .arg(self.run_directory());
        run(command, COMMAND_LIMIT)
    }

    /// Runs `interceptor audit …` on a log directory, as on a copy of it.
    pub fn audit_in(&self, directory: &Path, arguments: &[&str]) -> Result<Finished> {
        let mut command = self.world.gateway_command(&self.world.binary()?, None)?;
        command
            .arg("audit")
            .args(arguments)
            .arg("--dir")
            .arg(directory);
        run(command, COMMAND_LIMIT)
    }

    /// Removes the kernel plane.
    pub fn detach(&self) -> Result<Finished> {
        let mut command = self.world.gateway_command(&self.world.binary()?, None)?;
        command
            .arg("detach")
            .arg("--cgroup")
            .arg(self.world.cgroup())
            .arg("--bpffs")
            .arg(self.world.bpffs());
        run(command, COMMAND_LIMIT)
    }

    /// The last `count` events of its log, oldest first, as the command line's JSON.
    pub fn events(&self, count: u32) -> Result<Vec<Value>> {
        let text = self
            .cli(&["audit", "tail", "-n", &count.to_string(), "--json"])?
            .success()?;
        text.lines()
            .map(|line| {
                let record: Value =
                    serde_json::from_str(line).with_context(|| format!("not JSON: {line}"))?;
                Ok(record.get("event").cloned().unwrap_or_default())
            })
            .collect()
    }

    /// Waits for an event of this kind that fits, and gives it.
    pub fn event(&self, kind: &str, fits: impl Fn(&Value) -> bool) -> Result<Value> {
        let mut found = None;
        wait_until(
            &format!("the log holds an event of kind {kind} that fits"),
            Duration::from_secs(10),
            || {
                let mut events = self.events(EVENTS_MAX)?.into_iter();
                found = events.find(|event| {
                    event.get("kind").is_some_and(|name| name == kind) && fits(event)
                });
                Ok(found.is_some())
            },
        )?;
        found.ok_or_else(|| anyhow!("no event of kind {kind} fits"))
    }

    /// The requests that wait for a person.
    pub fn held(&self) -> Result<Vec<Value>> {
        let text = self.cli(&["approvals", "list", "--json"])?.success()?;
        serde_json::from_str(&text).with_context(|| format!("not a JSON array: {text}"))
    }

    /// Waits until exactly one command is held, and gives its request number.
    pub fn held_request(&self) -> Result<u64> {
        let mut number = None;
        wait_until("one command is held", Duration::from_secs(10), || {
            number = match self.held()?.as_slice() {
                [one] => one.get("number").and_then(Value::as_u64),
                _ => None,
            };
            Ok(number.is_some())
        })?;
        number.ok_or_else(|| anyhow!("no command is held"))
    }

    /// The open sessions.
    pub fn sessions(&self) -> Result<Vec<Value>> {
        let text = self.cli(&["sessions", "list", "--json"])?.success()?;
        serde_json::from_str(&text).with_context(|| format!("not a JSON array: {text}"))
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.running()?.signal(signal)
    }

    /// The most memory that it ever held, in KiB.
    pub fn memory_peak_kib(&self) -> Result<u64> {
        memory_peak_kib(self.pid()?)
    }

    /// Leaves it running.
    pub fn keep(self) {
        // Dropping the process's handle is what ends it.
        std::mem::forget(self);
    }

    fn running(&self) -> Result<&Running> {
        self.process
            .as_ref()
            .ok_or_else(|| anyhow!("the gateway does not run"))
    }
}

fn run_command(
    world: &World,
    policies: &Path,
    cgroup: &Path,
    account: Option<&str>,
) -> Result<Command> {
    let mut command = world.gateway_command(&world.installed()?, account)?;
    command
        .arg("run")
        .arg("--policies")
        .arg(policies)
        .arg("--cgroup")
        .arg(cgroup)
        .arg("--bpffs")
        .arg(world.bpffs())
        .arg("--state")
        .arg(state_directory(world))
        .arg("--run-dir")
        .arg(run_directory(world));
    if let Some(filter) = std::env::var_os("INTERCEPTOR_TEST_LOG") {
        command.arg("--log").arg(filter);
    }
    Ok(command)
}

fn run_directory(world: &World) -> PathBuf {
    world.directory().join("run")
}

fn state_directory(world: &World) -> PathBuf {
    world.directory().join("state")
}

/// The most memory that a process ever held, in KiB.
pub fn memory_peak_kib(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok())
        .ok_or_else(|| anyhow!("no VmHWM of process {pid}"))
}

/// The gateway's binary: `INTERCEPTOR_BIN`, or the one that Cargo built beside this program.
pub(crate) fn binary() -> Result<String> {
    if let Ok(path) = std::env::var("INTERCEPTOR_BIN") {
        return Ok(path);
    }
    let program = std::env::current_exe()?;
    // A test runs from target/debug/deps, xtask from target/debug.
    for directory in program.ancestors().skip(1).take(2) {
        let candidate = directory.join("interceptor");
        if candidate.is_file() {
            return Ok(candidate.to_string_lossy().into_owned());
        }
    }
    bail!(
        "no `interceptor` beside {}; build it with `cargo build -p interceptor-user`, or set INTERCEPTOR_BIN",
        program.display()
    )
}
