//! The gateway's end of the administration socket.
//!
//! It owns who is let in and that every decision of a person is in the log before it takes effect.

use std::io;
use std::os::unix::fs::{
    DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use interceptor_core::audit::event::{Administration, Event, Kind};
use nix::unistd::{Uid, User};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use uuid::Uuid;

use super::kill::kill;
use super::place::Place;
use super::protocol::{self, AdminRequest, Answer, Killing, REQUEST_BYTES_MAX, SessionRow};
use crate::approval::Approvals;
use crate::audit::store::Reader;
use crate::audit::{Recorder, StoreError, json};

/// The most connections at the same time; more wait.
const CONNECTIONS_MAX: usize = 64;

/// How long a connection may be silent between requests.
const REQUEST_WAIT_MAX: Duration = Duration::from_secs(60);

/// How long a client may take to read a part of an answer.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(30);

/// The longest reason for a decision, in bytes.
const REASON_BYTES_MAX: usize = 4096;

/// Records read from the log at a time, and their bytes.
const READ_RECORDS_MAX: usize = 512;
const READ_BYTES_MAX: usize = 1024 * 1024;

/// What the socket gives access to.
#[derive(Clone)]
pub struct AdminContext {
    /// The requests that wait.
    pub approvals: Approvals,
    /// The log.
    pub recorder: Recorder,
    /// The open sessions.
    pub sessions: Arc<dyn Fn() -> Vec<SessionRow> + Send + Sync>,
    /// Ends an open session; false if it is gone.
    pub kill: Arc<dyn Fn(Uuid, Killing) -> bool + Send + Sync>,
    /// How the gateway is. It may block.
    pub status: Arc<dyn Fn() -> Value + Send + Sync>,
    /// Asks the gateway to start its successor.
    pub upgrade: mpsc::Sender<UpgradeRequest>,
}

/// Somebody wants the gateway replaced; the answer says by which process, or why not.
pub type UpgradeRequest = oneshot::Sender<Result<Value, String>>;

/// Why the socket cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// Another gateway answers on it.
    #[error("another gateway serves {0}; stop it, or give another --run-dir")]
    AlreadyServed(PathBuf),
    /// Something else is in its place.
    #[error("{0} is in the way and no socket; remove it, or give another --run-dir")]
    NotASocket(PathBuf),
    /// Others could replace the socket.
    #[error(
        "others than its owner can write to {0}; run `chmod go-w` on it, or give another --run-dir"
    )]
    OpenDirectory(PathBuf),
    /// The system refused.
    #[error(
        "the administration socket {path}: {source}; check that the directory can be written to"
    )]
    System {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Serves the socket until `shutdown` becomes true or its sender is gone. The socket's file exists
/// while it is served.
///
/// # Errors
/// If the socket cannot be made, or accepting fails.
pub async fn serve(
    path: &Path,
    context: AdminContext,
    shutdown: watch::Receiver<bool>,
) -> Result<(), AdminError> {
    serve_on(Socket::bind(path)?, context, shutdown).await
}

/// The same on a socket that listens already.
///
/// # Errors
/// If accepting fails.
pub async fn serve_on(
    socket: Socket,
    context: AdminContext,
    mut shutdown: watch::Receiver<bool>,
) -> Result<(), AdminError> {
    let system = |source| AdminError::System {
        path: socket.place().path(),
        source,
    };
    let listener = &socket.listener;
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let permit = Arc::clone(&permits).acquire_owned();
        let accepted = async {
            // A closed semaphore cannot be: it is closed nowhere.
            let permit = permit.await.map_err(io::Error::other)?;
            Ok((permit, listener.accept().await?.0))
        };
        // Cancel-safe: a permit that is dropped goes back, and accept loses no connection.
        tokio::select! {
            _ = shutdown.wait_for(|stop| *stop) => return Ok(()),
            accepted = accepted => {
                let (permit, stream) = accepted.map_err(system)?;
                let context = context.clone();
                connections.spawn(async move {
                    if let Err(error) = converse(stream, &context).await {
                        tracing::debug!(%error, "an administration connection ended early");
                    }
                    drop(permit);
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// The listening socket. Its file goes with it.
pub struct Socket {
    listener: UnixListener,
    place: Place,
}

impl Socket {
    /// Makes the socket where no other is.
    ///
    /// # Errors
    /// If it cannot be made, or another gateway answers there.
    pub fn bind(path: &Path) -> Result<Self, AdminError> {
        remove_stale(path)?;
        Self::replace(path)
    }

    /// Makes the socket in the place of another, which keeps what it has accepted.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn replace(path: &Path) -> Result<Self, AdminError> {
        let listener = bind(path)?;
        let place = Place::new(path);
        Ok(Self { listener, place })
    }

    /// Where it is.
    #[must_use]
    pub fn place(&self) -> Place {
        self.place.clone()
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // If it is gone already, that is what was wanted.
        let _ = std::fs::remove_file(self.place.path());
    }
}

/// Makes the socket so that nobody but its owner can ever connect: the directory is closed to
/// others, and the mode is set before the socket listens. It gets its name last: where the file is,
/// somebody answers.
fn bind(path: &Path) -> Result<UnixListener, AdminError> {
    let system = |source| AdminError::System {
        path: path.to_owned(),
        source,
    };
    let directory = path.parent().unwrap_or(Path::new("/"));
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(system)?;
    if std::fs::metadata(directory).map_err(system)?.mode() & 0o022 != 0 {
        return Err(AdminError::OpenDirectory(directory.to_owned()));
    }
    let unready = path.with_extension("new");
    remove_stale(&unready)?;
    let socket =
        socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).map_err(system)?;
    let address = socket2::SockAddr::unix(&unready).map_err(system)?;
    socket.bind(&address).map_err(system)?;
    let owner_only = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(&unready, owner_only).map_err(system)?;
    socket.listen(128).map_err(system)?;
    socket.set_nonblocking(true).map_err(system)?;
    let listener = UnixListener::from_std(socket.into()).map_err(system)?;
    std::fs::rename(&unready, path).map_err(system)?;
    Ok(listener)
}

/// Removes a socket that a dead gateway left, and nothing else.
fn remove_stale(path: &Path) -> Result<(), AdminError> {
    let system = |source| AdminError::System {
        path: path.to_owned(),
        source,
    };
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(system(error)),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(AdminError::NotASocket(path.to_owned()));
        }
        Ok(_) => {}
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(system)
        }
        Err(error) => Err(system(error)),
        Ok(_) => Err(AdminError::AlreadyServed(path.to_owned())),
    }
}

/// One connection: requests and answers in turn, until the client hangs up.
async fn converse(stream: UnixStream, context: &AdminContext) -> io::Result<()> {
    let peer = stream.peer_cred()?;
    let by = name_of(peer.uid(), peer.pid()).await;
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    loop {
        let line = match timeout(REQUEST_WAIT_MAX, read_line(&mut reader)).await {
            Err(_) | Ok(Ok(None)) => return Ok(()),
            Ok(Err(error)) => return Err(error),
            Ok(Ok(Some(line))) => line,
        };
        if line.len() > REQUEST_BYTES_MAX {
            let error = format!("a request is at most {REQUEST_BYTES_MAX} bytes long");
            return write(&mut writer, &Answer::Error(error)).await;
        }
        let answer = match serde_json::from_slice(&line) {
            Err(error) => Answer::Error(format!("not a request: {error}; versions may differ")),
            Ok(AdminRequest::Audit { from, last, follow }) => {
                stream_audit(
                    &mut reader,
                    &mut writer,
                    &context.recorder,
                    from,
                    last,
                    follow,
                )
                .await?
            }
            Ok(request) => match answer(request, context, &by).await {
                Ok(value) => Answer::Ok(value),
                Err(error) => Answer::Error(error),
            },
        };
        write(&mut writer, &answer).await?;
    }
}

/// A line without its end; `None` at the end of input. A line above the limit is cut one byte
/// after it. Not cancel-safe: the caller gives the connection up.
async fn read_line(reader: &mut BufReader<OwnedReadHalf>) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let limit = u64::try_from(REQUEST_BYTES_MAX)
        .unwrap_or(u64::MAX)
        .saturating_add(2);
    if reader.take(limit).read_until(b'\n', &mut line).await? == 0 {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
    }
    Ok(Some(line))
}

async fn write(writer: &mut OwnedWriteHalf, answer: &Answer) -> io::Result<()> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    write_bytes(writer, &line).await
}

async fn write_bytes(writer: &mut OwnedWriteHalf, bytes: &[u8]) -> io::Result<()> {
    timeout(ANSWER_WAIT_MAX, writer.write_all(bytes))
        .await
        .map_err(io::Error::from)?
}

async fn answer(request: AdminRequest, context: &AdminContext, by: &str) -> Result<Value, String> {
    let to_value =
        |rows| serde_json::to_value(rows).map_err(|error: serde_json::Error| error.to_string());
    match request {
        AdminRequest::Status => {
            // It looks at the kernel, which takes a while.
            let status = Arc::clone(&context.status);
            tokio::task::spawn_blocking(move || status())
                .await
                .map_err(|error| error.to_string())
        }
        AdminRequest::Sessions => to_value((context.sessions)()),
        AdminRequest::Approvals => {
            let list = context.approvals.list();
            Ok(list
                .iter()
                .map(|request| protocol::summary(request))
                .collect())
        }
        AdminRequest::Approval { number } => context
            .approvals
            .show(number)
            .map(|request| protocol::whole(&request))
            .map_err(|error| error.to_string()),
        AdminRequest::Resolve {
            number,
            approve,
            reason,
        } => resolve(context, by, number, approve, reason)
            .await
            .map(|()| Value::Null),
        AdminRequest::Kill { id, reason } => kill(context, by, &id, reason).await,
        AdminRequest::Upgrade => upgrade(context, by).await,
        // Answered by `converse`: it has many lines.
        AdminRequest::Audit { .. } => Err("the log comes as a stream".to_owned()),
    }
}

/// Records who decides what, then decides. If the log cannot take it, nobody decided.
async fn resolve(
    context: &AdminContext,
    by: &str,
    number: u64,
    approve: bool,
    reason: String,
) -> Result<(), String> {
    check_reason(&reason)?;
    let request = context
        .approvals
        .show(number)
        .map_err(|error| error.to_string())?;
    let verb = if approve { "approve" } else { "deny" };
    let event = Event {
        time_unix_ns: json::now_unix_ns(),
        session: request.session.as_bytes().to_vec(),
        kind: Some(Kind::Administration(Administration {
            by: by.to_owned(),
            action: format!("{verb} request {number}"),
        })),
    };
    context
        .recorder
        .append(event)
        .await
        .map_err(|error| error.to_string())?;
    context
        .approvals
        .resolve(number, approve, by.to_owned(), reason)
        .map_err(|error| error.to_string())
}

/// A reason ends up in the client's terminal.
pub(super) fn check_reason(reason: &str) -> Result<(), String> {
    if reason.len() > REASON_BYTES_MAX {
        return Err(format!("a reason is at most {REASON_BYTES_MAX} bytes long"));
    }
    if reason.chars().any(char::is_control) {
        return Err("a reason is one line without control characters".to_owned());
    }
    Ok(())
}

/// What a gateway says that has handed over.
const REPLACED: &str = "this gateway was replaced; ask again to reach its successor";

/// Records who asks for another binary, then asks the gateway for it.
async fn upgrade(context: &AdminContext, by: &str) -> Result<Value, String> {
    let event = Event {
        time_unix_ns: json::now_unix_ns(),
        session: Vec::new(),
        kind: Some(Kind::Administration(Administration {
            by: by.to_owned(),
            action: "upgrade the gateway".to_owned(),
        })),
    };
    context
        .recorder
        .append(event)
        .await
        .map_err(|error| error.to_string())?;
    let (answer, answered) = oneshot::channel();
    context
        .upgrade
        .send(answer)
        .await
        .map_err(|_| REPLACED.to_owned())?;
    answered.await.map_err(|_| REPLACED.to_owned())?
}

/// Sends records as stored, and returns the head that ends them. Only durable records are sent.
async fn stream_audit(
    reader: &mut BufReader<OwnedReadHalf>,
    writer: &mut OwnedWriteHalf,
    recorder: &Recorder,
    from: u64,
    last: Option<u64>,
    follow: bool,
) -> io::Result<Answer> {
    let mut durable = recorder.subscribe();
    let mut head = *durable.borrow_and_update();
    let first_of_last = last.map_or(1, |last| {
        head.sequence.saturating_sub(last).saturating_add(1)
    });
    let mut next = from.max(first_of_last).max(1);
    loop {
        if recorder.reader().is_none() {
            return Ok(Answer::Error(REPLACED.to_owned()));
        }
        while next <= head.sequence {
            let Some(log) = recorder.reader() else {
                return Ok(Answer::Error(REPLACED.to_owned()));
            };
            let read = tokio::task::spawn_blocking(move || read_lines(&log, next, head.sequence));
            let lines = match read.await.map_err(io::Error::other)? {
                Ok(lines) => lines,
                Err(error) => return Ok(Answer::Error(error.to_string())),
            };
            write_bytes(writer, &lines.text).await?;
            next = lines.last.saturating_add(1);
        }
        if !follow {
            return Ok(Answer::Head {
                sequence: head.sequence,
                hash: head.hash.to_string(),
            });
        }
        // Cancel-safe: neither branch takes anything. Whatever the client sends while it follows,
        // its end included, ends the stream.
        tokio::select! {
            changed = durable.changed() => {
                if changed.is_err() {
                    return Ok(Answer::Error("the gateway's log ended; see its messages".to_owned()));
                }
            }
            _ = reader.fill_buf() => {
                return Ok(Answer::Head { sequence: head.sequence, hash: head.hash.to_string() });
            }
        }
        head = *durable.borrow_and_update();
    }
}

/// Answer lines for some records, and the number to go on after.
struct Lines {
    text: Vec<u8>,
    last: u64,
}

fn read_lines(log: &Reader, from: u64, until: u64) -> Result<Lines, StoreError> {
    // If the records end before the head, there is nothing to go on with: the client's verifier
    // will say what is missing.
    let mut lines = Lines {
        text: Vec::new(),
        last: until,
    };
    for stored in log.records_from(from).take(READ_RECORDS_MAX) {
        let stored = stored?;
        if stored.sequence > until {
            lines.last = until;
            break;
        }
        let answer = Answer::Record(hex::encode(stored.bytes));
        // A string in an enum always has a JSON form.
        lines
            .text
            .extend(serde_json::to_vec(&answer).unwrap_or_default());
        lines.text.push(b'\n');
        lines.last = stored.sequence;
        if lines.text.len() >= READ_BYTES_MAX {
            break;
        }
    }
    Ok(lines)
}

/// A user's name for the log: `root (uid 0)`, and whose login it was if that is another, so that
/// `sudo` does not hide who approved.
async fn name_of(uid: u32, pid: Option<i32>) -> String {
    let look_up = move || {
        let mut name = user_name(uid);
        if let Some(login) = pid.and_then(login_uid).filter(|login| *login != uid) {
            name = format!("{name}, logged in as {}", user_name(login));
        }
        name
    };
    // The look-up may ask a directory server.
    tokio::task::spawn_blocking(look_up)
        .await
        .unwrap_or_else(|_| format!("uid {uid}"))
}

fn user_name(uid: u32) -> String {
    match User::from_uid(Uid::from_raw(uid)) {
        Ok(Some(user)) => format!("{} (uid {uid})", user.name),
        Ok(None) | Err(_) => format!("uid {uid}"),
    }
}

/// The login user that the kernel's audit keeps for a process; `sudo` and `su` do not change it.
fn login_uid(pid: i32) -> Option<u32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/loginuid")).ok()?;
    // All ones means that no login was recorded.
    text.trim().parse().ok().filter(|uid| *uid != u32::MAX)
}
