//! Programs that print a password.
//!
//! It owns their bounds: no shell, an environment of two names, nothing on their input, one answer of
//! bounded length, little time. A child of the gateway would be in the gateway's cgroup, by which the
//! kernel lets connections to targets pass; so each command has a cgroup of its own beside that one,
//! where it is intercepted like any other process, and by which all that it started is ended with it.

use std::fs;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use interceptor_core::session::postgres::login::PASSWORD_BYTES_MAX;
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::geteuid;
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{CredentialError, permit};

/// How long a command may take.
const COMMAND_WAIT_MAX: Duration = Duration::from_secs(10);
/// Commands that run at a time; other logins wait.
const COMMANDS_MAX: usize = 8;
/// How the names of their cgroups begin.
const CGROUP: &str = "interceptor-command-";
/// How often, and with what pause, the cgroup of a command that ended is looked at.
const REMOVALS: usize = 50;
const REMOVAL_PAUSE: Duration = Duration::from_millis(20);
/// Of its file's mode: others than its owner may change it.
const CHANGEABLE: u32 = 0o022;

/// Runs commands.
pub(super) struct Commands {
    watched: PathBuf,
    running: Semaphore,
}

impl Commands {
    pub(super) fn new(watched: PathBuf) -> Self {
        Self {
            watched,
            running: Semaphore::new(COMMANDS_MAX),
        }
    }

    /// What a command prints.
    pub(super) async fn run(
        &self,
        words: Vec<String>,
        user: &str,
        target: &str,
    ) -> Result<Zeroizing<Vec<u8>>, CredentialError> {
        let _permit = permit(&self.running).await?;
        let program = words.first().cloned().unwrap_or_default();
        let failed = |source| CredentialError::Command {
            program: program.clone(),
            source,
        };
        is_trusted(Path::new(&program))?;
        let cgroup = Cgroup::create(&self.watched).map_err(failed)?;
        let command = prepare(&words, user, target, &cgroup).map_err(failed)?;
        // Not ended with the session: what it leaves has to be cleaned away.
        let work = tokio::spawn(async move {
            let printed = timeout(COMMAND_WAIT_MAX, print(command)).await;
            cgroup.remove().await;
            printed
        });
        let printed = work.await;
        let printed = printed.map_err(|_| CredentialError::Own("the gateway ends"))?;
        let Ok(printed) = printed else {
            let seconds = COMMAND_WAIT_MAX.as_secs();
            return Err(CredentialError::Slow { program, seconds });
        };
        match printed.map_err(failed)? {
            (status, bytes) if status.success() => Ok(bytes),
            (status, _) => Err(CredentialError::Failed { program, status }),
        }
    }
}

/// The program is root's, or the gateway's user's, to change.
fn is_trusted(program: &Path) -> Result<(), CredentialError> {
    let path = || program.display().to_string();
    let metadata = fs::metadata(program).map_err(|source| CredentialError::File {
        path: path(),
        source,
    })?;
    if metadata.uid() != 0 && metadata.uid() != geteuid().as_raw() {
        return Err(CredentialError::Foreign { path: path() });
    }
    if metadata.mode() & CHANGEABLE != 0 {
        return Err(CredentialError::Exposed { path: path() });
    }
    Ok(())
}

fn prepare(
    words: &[String],
    user: &str,
    target: &str,
    cgroup: &Cgroup,
) -> std::io::Result<Command> {
    let mut command = Command::new(words.first().map_or("", String::as_str));
    command
        .args(words.iter().skip(1))
        .env_clear()
        .env(
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        )
        .env("INTERCEPTOR_TARGET", target)
        .env("INTERCEPTOR_USER", user)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        // It could hold anything.
        .stderr(Stdio::null())
        .kill_on_drop(true);
    let procs = fs::File::options()
        .write(true)
        .open(cgroup.path.join("cgroup.procs"))?;
    let enter = move || {
        nix::unistd::write(procs.as_fd(), b"0")?;
        nix::sys::prctl::set_no_new_privs()?;
        setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
        Ok(())
    };
    // SAFETY: the closure runs between fork and exec. It makes three system calls, on a descriptor that
    // was opened before, and neither allocates nor takes a lock.
    unsafe {
        command.pre_exec(enter);
    }
    Ok(command)
}

type Printed = (std::process::ExitStatus, Zeroizing<Vec<u8>>);

/// Runs it to its end, and reads up to one byte more than a password has.
async fn print(mut command: Command) -> std::io::Result<Printed> {
    let mut child = command.spawn()?;
    let mut bytes = Zeroizing::new(Vec::with_capacity(PASSWORD_BYTES_MAX + 64));
    if let Some(mut stdout) = child.stdout.take() {
        let limit = u64::try_from(PASSWORD_BYTES_MAX + 3).unwrap_or(u64::MAX);
        (&mut stdout).take(limit).read_to_end(&mut bytes).await?;
        // Who has more to say cannot say it, and is not waited for.
    }
    Ok((child.wait().await?, bytes))
}

/// The cgroup of one command.
struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    fn create(watched: &Path) -> std::io::Result<Self> {
        let path = watched.join(format!("{CGROUP}{}", Uuid::now_v7().simple()));
        fs::create_dir(&path)?;
        Ok(Self { path })
    }

    /// Ends whatever is left in it, and removes it.
    async fn remove(self) {
        for _ in 0..REMOVALS {
            // Linux 5.14; before that, what a command leaves behind goes on in this cgroup.
            let _ = fs::write(self.path.join("cgroup.kill"), "1");
            match fs::remove_dir(&self.path) {
                Ok(()) => return,
                Err(_) => tokio::time::sleep(REMOVAL_PAUSE).await,
            }
        }
        let path = self.path.display();
        tracing::warn!(%path, "a command for passwords left processes behind");
    }
}
