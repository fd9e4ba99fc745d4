//! What logins need: random bytes, verifiers of users, passwords from wherever they are kept, and time to
//! hash them.
//!
//! It owns how they are fetched, each time anew, so that a changed password counts at once. It must not
//! know what they are good for, and nothing of it may print a secret.

mod command;
mod private;
mod verifiers;

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use interceptor_core::policy::PasswordSource;
use interceptor_core::session::postgres::login::{
    Answer, NONCE_BYTES, PASSWORD_BYTES_MAX, Question,
};
use sha2::{Digest as _, Sha256};
use tokio::sync::{Semaphore, SemaphorePermit};
use zeroize::Zeroizing;

use command::Commands;

/// Passwords that are hashed at a time: more would keep the processors from the sessions.
const HASHING_MAX: usize = 2;
/// Files that are read at a time: those of verifiers may be large, and whoever connects has one read.
const READING_MAX: usize = 8;
/// Where systemd puts the credentials of a unit.
const CREDENTIALS_DIRECTORY: &str = "CREDENTIALS_DIRECTORY";

/// Why something is not at hand. Holds no secret.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// A file cannot be read.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// Others could read or change it.
    #[error(
        "{path}: users other than its owner may read or change it; `chmod 640` it, with its group trusted, or less"
    )]
    Exposed {
        /// The file.
        path: String,
    },
    /// Somebody else could change it at any time.
    #[error("{path}: it belongs neither to root nor to the gateway's user")]
    Foreign {
        /// The file.
        path: String,
    },
    /// It is no password.
    #[error(
        "{from}: a password has 1 to {PASSWORD_BYTES_MAX} bytes, no zero among them, and no line break but at its end"
    )]
    NoPassword {
        /// Where it was looked for.
        from: String,
    },
    /// The environment lacks it.
    #[error("there is no variable {name} in the gateway's environment")]
    NoVariable {
        /// Its name.
        name: String,
    },
    /// A line of a file of verifiers.
    #[error("{path}:{line}: {problem}")]
    Verifiers {
        /// The file.
        path: String,
        /// The line.
        line: usize,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A command could not be run.
    #[error("{program}: {source}")]
    Command {
        /// Its path.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// A command took too long.
    #[error("{program}: it had not ended after {seconds} s")]
    Slow {
        /// Its path.
        program: String,
        /// The limit.
        seconds: u64,
    },
    /// A command failed.
    #[error("{program}: it ended with {status}")]
    Failed {
        /// Its path.
        program: String,
        /// How it ended.
        status: std::process::ExitStatus,
    },
    /// Something of the gateway itself.
    #[error("{0}")]
    Own(&'static str),
}

/// Everything that answers the questions of logins.
pub struct Credentials {
    random: File,
    /// Of the verifiers that users are shown who are not known.
    mock_secret: [u8; 32],
    commands: Commands,
    hashing: Semaphore,
    reading: Semaphore,
}

impl Credentials {
    /// `secret` is the process's, handed on in an upgrade; commands run below the cgroup `watched`, or below
    /// the root of cgroup2.
    pub fn new(secret: &[u8; 32], watched: Option<&Path>) -> io::Result<Self> {
        let watched = match watched {
            Some(path) => path.to_owned(),
            None => crate::kernel::cgroup_mount_point().map_err(io::Error::other)?,
        };
        let mock_secret = Sha256::new()
            .chain_update(b"interceptor mock verifiers")
            .chain_update(secret);
        Ok(Self {
            random: File::open("/dev/urandom")?,
            mock_secret: mock_secret.finalize().into(),
            commands: Commands::new(watched),
            hashing: Semaphore::new(HASHING_MAX),
            reading: Semaphore::new(READING_MAX),
        })
    }

    /// Finds out what a login at `target` asks for.
    pub async fn answer(
        self: Arc<Self>,
        question: Question,
        target: String,
    ) -> Result<Answer, CredentialError> {
        match question {
            Question::Begin {
                verifier_file,
                user,
            } => {
                let _permit = permit(&self.reading).await?;
                let own = Arc::clone(&self);
                let read = move || own.begin(verifier_file.as_deref(), &user);
                blocking(read).await?
            }
            Question::Password { source, user } => self.password(source, &user, &target).await,
            Question::Derive(derivation) => {
                let _permit = permit(&self.hashing).await?;
                blocking(move || Answer::Derived(derivation.run())).await
            }
        }
    }

    fn begin(&self, verifier_file: Option<&str>, user: &str) -> Result<Answer, CredentialError> {
        let mut random = [[0; NONCE_BYTES]; 2];
        for nonce in &mut random {
            let read = (&self.random).read_exact(nonce);
            read.map_err(|_| CredentialError::Own("no random bytes from /dev/urandom"))?;
        }
        let verifier = verifier_file.map(|path| verifiers::find(path, user, &self.mock_secret));
        Ok(Answer::Begun {
            random,
            verifier: verifier.transpose()?,
        })
    }

    async fn password(
        &self,
        source: PasswordSource,
        user: &str,
        target: &str,
    ) -> Result<Answer, CredentialError> {
        let (from, bytes) = match source {
            PasswordSource::File(path) => {
                let from = path.clone();
                (from, blocking(move || of_file(Path::new(&path))).await??)
            }
            PasswordSource::SystemdCredential(name) => {
                let directory = std::env::var_os(CREDENTIALS_DIRECTORY);
                let directory = directory.ok_or_else(|| CredentialError::NoVariable {
                    name: CREDENTIALS_DIRECTORY.to_owned(),
                })?;
                let path = PathBuf::from(directory).join(name);
                let from = path.display().to_string();
                (from, blocking(move || of_file(&path)).await??)
            }
            PasswordSource::Environment(name) => {
                use std::os::unix::ffi::OsStringExt as _;
                let Some(value) = std::env::var_os(&name) else {
                    return Err(CredentialError::NoVariable { name });
                };
                (name, Zeroizing::new(value.into_vec()))
            }
            PasswordSource::Command(words) => {
                let from = words.first().cloned().unwrap_or_default();
                (from, self.commands.run(words, user, target).await?)
            }
        };
        checked(from, bytes).map(Answer::Password)
    }
}

/// Waits for its turn. Nobody closes a semaphore.
async fn permit(turns: &Semaphore) -> Result<SemaphorePermit<'_>, CredentialError> {
    let permit = turns.acquire().await;
    permit.map_err(|_| CredentialError::Own("the gateway ends"))
}

/// Does what blocks where nobody waits for it.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, CredentialError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| CredentialError::Own("the gateway ends"))
}

fn of_file(path: &Path) -> Result<Zeroizing<Vec<u8>>, CredentialError> {
    // One byte more than a password and its line break may have: then it is too long.
    private::read(path, PASSWORD_BYTES_MAX + 3)
}

/// A password, without the line break that editors and programs put behind it.
fn checked(
    from: String,
    mut bytes: Zeroizing<Vec<u8>>,
) -> Result<Zeroizing<Vec<u8>>, CredentialError> {
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
    }
    let is_odd = |byte: &u8| matches!(byte, 0 | b'\n' | b'\r');
    if bytes.is_empty() || bytes.len() > PASSWORD_BYTES_MAX || bytes.iter().any(is_odd) {
        return Err(CredentialError::NoPassword { from });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;
