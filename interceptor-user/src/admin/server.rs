//! The gateway's end of the administration socket.
//!
//! It owns the talk, and that every decision of a person is in the log before it takes effect.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use interceptor_core::audit::event::{Administration, Event, Kind};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use uuid::Uuid;

use super::kill::kill;
use super::peer::Peer;
use super::protocol::{self, AdminRequest, Answer, Killing, REQUEST_BYTES_MAX, SessionRow};
use super::reload::reload;
use super::resolve::resolve;
use super::socket::{AdminError, Socket};
use crate::approval::Approvals;
use crate::audit::store::Reader;
use crate::audit::{Recorder, StoreError, json};

/// The most connections at the same time; more wait.
const CONNECTIONS_MAX: usize = 64;

/// The most of them that are not root's; more are refused.
const GUESTS_MAX: usize = 32;

/// How long a connection may be silent between requests.
const REQUEST_WAIT_MAX: Duration = Duration::from_secs(60);

/// How long a client may take to read a part of an answer.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(30);

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
    /// Asks it to read the policy files anew.
    pub reload: mpsc::Sender<ReloadRequest>,
    /// What it counts, as text. It may block.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
}

/// Somebody wants the policy files read anew; the answer says what came of it.
pub type ReloadRequest = oneshot::Sender<Result<Value, String>>;

/// Somebody wants the gateway replaced; the answer says by which process, or why not.
pub type UpgradeRequest = oneshot::Sender<Result<Value, String>>;

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
    serve_on(Socket::bind(path, None)?, context, shutdown).await
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
    let guests = Arc::new(Semaphore::new(GUESTS_MAX));
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let permit = Arc::clone(&permits).acquire_owned();
        let accepted = async {
            // A closed semaphore cannot be: it is closed nowhere.
            let permit = permit.await.map_err(io::Error::other)?;
            Ok((permit, socket.accept().await?))
        };
        // Cancel-safe: a permit that is dropped goes back, and accept loses no connection.
        tokio::select! {
            _ = shutdown.wait_for(|stop| *stop) => return Ok(()),
            accepted = accepted => {
                let (permit, stream) = accepted.map_err(system)?;
                let (context, guests) = (context.clone(), Arc::clone(&guests));
                connections.spawn(async move {
                    if let Err(error) = receive(stream, &context, &guests).await {
                        tracing::debug!(%error, "an administration connection ended early");
                    }
                    drop(permit);
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// One connection. Those of others than root cannot take all places.
async fn receive(stream: UnixStream, context: &AdminContext, guests: &Semaphore) -> io::Result<()> {
    let peer = Peer::of(&stream).await?;
    if peer.is_owner() {
        return converse(stream, peer, context).await;
    }
    match guests.try_acquire() {
        Ok(_place) => converse(stream, peer, context).await,
        Err(_) => {
            let error = format!("{GUESTS_MAX} others are connected already; try again later");
            write(&mut stream.into_split().1, &Answer::Error(error)).await
        }
    }
}

/// Requests and answers in turn, until the client hangs up.
async fn converse(stream: UnixStream, peer: Peer, context: &AdminContext) -> io::Result<()> {
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
        let request = match serde_json::from_slice(&line) {
            Err(error) => Err(format!("not a request: {error}; versions may differ")),
            Ok(request) => peer.check(&request).map(|()| request),
        };
        let answer = match request {
            Err(error) => Answer::Error(error),
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
            Ok(request) => match answer(request, context, &peer).await {
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

async fn answer(
    request: AdminRequest,
    context: &AdminContext,
    peer: &Peer,
) -> Result<Value, String> {
    let by = peer.voter.to_string();
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
            Ok(list.iter().map(protocol::summary).collect())
        }
        AdminRequest::Approval { number } => context
            .approvals
            .show(number)
            .map(|waiting| protocol::whole(&waiting))
            .map_err(|error| error.to_string()),
        AdminRequest::Resolve {
            number,
            approve,
            reason,
        } => resolve(context, peer, number, approve, reason).await,
        AdminRequest::Kill { id, reason } => kill(context, &by, &id, reason).await,
        AdminRequest::Upgrade => upgrade(context, &by).await,
        AdminRequest::Metrics => {
            let metrics = Arc::clone(&context.metrics);
            let text = tokio::task::spawn_blocking(move || metrics()).await;
            text.map(Value::String).map_err(|error| error.to_string())
        }
        AdminRequest::Reload => reload(context, &by).await,
        // Answered by `converse`: it has many lines.
        AdminRequest::Audit { .. } => Err("the log comes as a stream".to_owned()),
    }
}

/// What a gateway says that has handed over.
pub(super) const REPLACED: &str = "this gateway was replaced; ask again to reach its successor";

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
