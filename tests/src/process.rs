//! Child processes: where they run, what they print, and how long anyone waits for them.

use std::ffi::CString;
use std::fs::File;
use std::io::{Seek as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Gid, Pid, Uid, User, initgroups, setgid, setuid, write};

use crate::cgroup::Cgroup;
use crate::interrupt;
use crate::netns::{Namespace, c_string};

/// How often the waits of the harness look again.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// A command that starts in `namespace` and `cgroup`, as `user` (root if `None`).
///
/// The child moves itself between fork and exec, as a process that logs in would: it was never
/// elsewhere when it opens its first socket.
pub(crate) fn command(
    program: &str,
    namespace: Option<&Namespace>,
    cgroup: Option<&Cgroup>,
    user: Option<&str>,
) -> Result<Command> {
    let net = namespace.map(Namespace::open).transpose()?;
    let procs = cgroup
        .map(|cgroup| {
            let path = cgroup.procs();
            File::options()
                .write(true)
                .open(&path)
                .with_context(|| format!("cannot open {}", path.display()))
        })
        .transpose()?;
    let account = user.map(account).transpose()?;

    let mut command = Command::new(program);
    let enter = move || {
        if let Some(procs) = &procs {
            write(procs.as_fd(), b"0")?;
        }
        if let Some(net) = &net {
            setns(net, CloneFlags::CLONE_NEWNET)?;
        }
        if let Some((name, uid, gid)) = &account {
            initgroups(name, *gid)?;
            setgid(*gid)?;
            setuid(*uid)?;
        }
        Ok(())
    };
    // SAFETY: the closure runs between fork and exec. It makes system calls on descriptors and
    // strings that were prepared before; `initgroups` reads /etc/group and allocates, which glibc
    // allows in a forked child, as its malloc takes care of its own locks around fork.
    unsafe {
        command.pre_exec(enter);
    }
    Ok(command)
}

fn account(user: &str) -> Result<(CString, Uid, Gid)> {
    let found = User::from_name(user)?
        .ok_or_else(|| anyhow!("there is no user {user}; run `cargo xtask setup`"))?;
    Ok((c_string(user)?, found.uid, found.gid))
}

/// A child whose output goes to files, so that it can be read while the child runs.
#[derive(Debug)]
pub struct Running {
    what: String,
    child: Child,
    started: Instant,
    stdout: File,
    stderr: File,
    reaped: bool,
}

impl Running {
    /// Starts `command`, with `input` as its whole standard input.
    pub fn spawn(mut command: Command, input: &str) -> Result<Self> {
        let what = describe(&command);
        let mut stdin = tempfile::tempfile()?;
        stdin.write_all(input.as_bytes())?;
        stdin.rewind()?;
        let stdout = tempfile::tempfile()?;
        let stderr = tempfile::tempfile()?;
        let child = command
            .stdin(Stdio::from(stdin))
            .stdout(Stdio::from(stdout.try_clone()?))
            .stderr(Stdio::from(stderr.try_clone()?))
            .spawn()
            .with_context(|| format!("cannot run {what}"))?;
        Ok(Self {
            what,
            child,
            started: Instant::now(),
            stdout,
            stderr,
            reaped: false,
        })
    }

    /// Starts `command` with nothing on standard input; both outputs are appended to `log`.
    pub(crate) fn spawn_logged(mut command: Command, log: &Path) -> Result<Self> {
        let what = describe(&command);
        let file = File::options()
            .create(true)
            .append(true)
            .read(true)
            .open(log)
            .with_context(|| format!("cannot open {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::from(file.try_clone()?))
            .stderr(Stdio::from(file.try_clone()?))
            .spawn()
            .with_context(|| format!("cannot run {what}"))?;
        Ok(Self {
            what,
            child,
            started: Instant::now(),
            stdout: file.try_clone()?,
            stderr: file,
            reaped: false,
        })
    }

    /// The child's process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.child.id())?;
        kill(Pid::from_raw(pid), signal).with_context(|| format!("cannot signal {}", self.what))
    }

    /// True once it has ended.
    pub fn has_ended(&mut self) -> Result<bool> {
        let ended = self.child.try_wait()?.is_some();
        self.reaped |= ended;
        Ok(ended)
    }

    /// What it wrote to standard output up to now.
    pub fn stdout(&self) -> Result<String> {
        read_from_start(&self.stdout)
    }

    /// What it wrote to standard error up to now.
    pub fn stderr(&self) -> Result<String> {
        read_from_start(&self.stderr)
    }

    /// Waits for its end; past `limit` it is killed and the wait fails with what it printed.
    pub fn wait(mut self, limit: Duration) -> Result<Finished> {
        // From now on: a gateway that has run for an hour and is killed may take a moment, too.
        let start = Instant::now();
        while !self.has_ended()? {
            interrupt::check()?;
            if start.elapsed() > limit {
                let (out, err) = (self.stdout()?, self.stderr()?);
                bail!(
                    "{} did not end within {limit:?}; it printed\n{out}{err}",
                    self.what
                );
            }
            std::thread::sleep(POLL_INTERVAL);
        }
        Ok(Finished {
            what: std::mem::take(&mut self.what),
            status: self.child.wait()?,
            stdout: self.stdout()?,
            stderr: self.stderr()?,
            elapsed: self.started.elapsed(),
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.reaped {
            // Nothing to do about a failure here: the world's sweep kills whatever is left.
            drop(self.child.kill());
            drop(self.child.wait());
        }
    }
}

/// A child that ended.
#[derive(Debug)]
pub struct Finished {
    /// Its command line.
    pub what: String,
    /// How it ended.
    pub status: ExitStatus,
    /// Everything that it wrote to standard output.
    pub stdout: String,
    /// Everything that it wrote to standard error.
    pub stderr: String,
    /// From start to end, rounded up by the harness's polling.
    pub elapsed: Duration,
}

impl Finished {
    /// Its standard output, if it succeeded.
    pub fn success(self) -> Result<String> {
        if self.status.success() {
            return Ok(self.stdout);
        }
        bail!("{} failed\n{}{}", self.what, self.stdout, self.stderr)
    }

    /// Its standard error, if it failed.
    pub fn failure(self) -> Result<String> {
        if !self.status.success() {
            return Ok(self.stderr);
        }
        bail!(
            "{} succeeded, and should not have\n{}",
            self.what,
            self.stdout
        )
    }
}

/// Runs a command to its end with nothing on standard input.
pub fn run(command: Command, limit: Duration) -> Result<Finished> {
    Running::spawn(command, "")?.wait(limit)
}

/// Waits until `ready` says yes; past `limit` fails with `what`.
pub fn wait_until(
    what: &str,
    limit: Duration,
    mut ready: impl FnMut() -> Result<bool>,
) -> Result<()> {
    let start = Instant::now();
    while !ready()? {
        interrupt::check()?;
        if start.elapsed() > limit {
            bail!("not within {limit:?}: {what}");
        }
        std::thread::sleep(POLL_INTERVAL);
    }
    Ok(())
}

/// The same for clean-up, which goes on after an interrupt. True if it became ready.
pub(crate) fn poll_until(limit: Duration, mut ready: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    loop {
        if ready() {
            return true;
        }
        if start.elapsed() > limit {
            return false;
        }
        std::thread::sleep(POLL_INTERVAL);
    }
}

fn describe(command: &Command) -> String {
    let mut line = format!("`{}", command.get_program().to_string_lossy());
    for argument in command.get_args() {
        line.push(' ');
        line.push_str(&argument.to_string_lossy());
    }
    line.push('`');
    line
}

/// Reads at offsets of its own: the file's position belongs to the child.
fn read_from_start(file: &File) -> Result<String> {
    let mut bytes = vec![0; usize::try_from(file.metadata()?.len())?];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
