//! The command line's end of the administration socket: blocking, one request at a time.
//!
//! It owns the talk, not what is done with the answers.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use interceptor_core::audit::chain::Head;
use serde_json::Value;

use super::protocol::{ANSWER_BYTES_MAX, AdminRequest, Answer};

/// How long the gateway may take to answer.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(30);

/// Why the gateway did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("no gateway answers on {0}; start it with `interceptor run`, or give its --run-dir")]
    NotRunning(PathBuf),
    /// Not our socket.
    #[error(
        "{0} may not be used by this user; run the command as root, or let the gateway's --admin-group \
         be a group of yours"
    )]
    Forbidden(PathBuf),
    /// The talk failed.
    #[error("the gateway on {path}: {source}; see its log")]
    Connection {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It said something unexpected.
    #[error(
        "the gateway's answer cannot be understood ({0}); use the `interceptor` of its version"
    )]
    Answer(String),
    /// It said no, in its own words.
    #[error("{0}")]
    Refused(String),
}

/// A connection to a running gateway.
pub struct Client {
    path: PathBuf,
    stream: BufReader<UnixStream>,
}

/// What a stream of the log gives next.
pub enum AuditLine {
    /// A record, as stored.
    Record(Vec<u8>),
    /// The log's head: the last line.
    Head(Head),
}

impl Client {
    /// Connects to the gateway's socket.
    ///
    /// # Errors
    /// If none runs, or this user may not.
    pub fn connect(path: &Path) -> Result<Self, ClientError> {
        Self::connect_within(path, ANSWER_WAIT_MAX)
    }

    /// The same for what may take longer than usual.
    ///
    /// # Errors
    /// If none runs, or this user may not.
    pub fn connect_within(path: &Path, answer_wait_max: Duration) -> Result<Self, ClientError> {
        let path = path.to_owned();
        let connected = UnixStream::connect(&path).and_then(|stream| {
            stream.set_read_timeout(Some(answer_wait_max))?;
            stream.set_write_timeout(Some(ANSWER_WAIT_MAX))?;
            Ok(BufReader::new(stream))
        });
        match connected {
            Ok(stream) => Ok(Self { path, stream }),
            Err(source) => Err(match source.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                    ClientError::NotRunning(path)
                }
                io::ErrorKind::PermissionDenied => ClientError::Forbidden(path),
                _ => ClientError::Connection { path, source },
            }),
        }
    }

    /// Asks, and returns the one answer.
    ///
    /// # Errors
    /// If the gateway refuses or cannot be understood.
    pub fn call(&mut self, request: &AdminRequest) -> Result<Value, ClientError> {
        let answer = match self.send(request) {
            Ok(()) => self.receive(),
            // A gateway that hangs up before it is asked has said why.
            Err(error) => self.receive().map_err(|_| error),
        };
        match answer? {
            Answer::Ok(value) => Ok(value),
            other => Err(unexpected(other)),
        }
    }

    /// Asks for the log and returns its lines. The head is the last.
    ///
    /// # Errors
    /// If the gateway cannot be asked.
    pub fn audit(
        mut self,
        from: u64,
        last: Option<u64>,
        follow: bool,
    ) -> Result<impl Iterator<Item = Result<AuditLine, ClientError>>, ClientError> {
        self.send(&AdminRequest::Audit { from, last, follow })?;
        if follow {
            // Nothing may happen for days.
            let stream = self.stream.get_ref();
            stream
                .set_read_timeout(None)
                .map_err(|source| self.connection_error(source))?;
        }
        let mut ended = false;
        Ok(std::iter::from_fn(move || {
            if ended {
                return None;
            }
            let line = self.receive().and_then(audit_line);
            ended = !matches!(line, Ok(AuditLine::Record(_)));
            Some(line)
        }))
    }

    fn send(&mut self, request: &AdminRequest) -> Result<(), ClientError> {
        let mut line =
            serde_json::to_vec(request).map_err(|error| ClientError::Answer(error.to_string()))?;
        line.push(b'\n');
        self.stream
            .get_mut()
            .write_all(&line)
            .map_err(|source| self.connection_error(source))
    }

    fn receive(&mut self) -> Result<Answer, ClientError> {
        let mut line = Vec::new();
        let limit = u64::try_from(ANSWER_BYTES_MAX).unwrap_or(u64::MAX);
        let read = (&mut self.stream).take(limit).read_until(b'\n', &mut line);
        read.map_err(|source| self.connection_error(source))?;
        if line.last() != Some(&b'\n') {
            return Err(self.connection_error(io::ErrorKind::UnexpectedEof.into()));
        }
        serde_json::from_slice(&line).map_err(|error| ClientError::Answer(error.to_string()))
    }

    fn connection_error(&self, source: io::Error) -> ClientError {
        ClientError::Connection {
            path: self.path.clone(),
            source,
        }
    }
}

fn audit_line(answer: Answer) -> Result<AuditLine, ClientError> {
    let not_hex = |error: hex::FromHexError| ClientError::Answer(error.to_string());
    match answer {
        Answer::Record(text) => hex::decode(text).map(AuditLine::Record).map_err(not_hex),
        Answer::Head { sequence, hash } => Ok(AuditLine::Head(Head {
            sequence,
            hash: hash.parse().map_err(not_hex)?,
        })),
        other => Err(unexpected(other)),
    }
}

fn unexpected(answer: Answer) -> ClientError {
    match answer {
        Answer::Error(message) => ClientError::Refused(message),
        _ => ClientError::Answer("an answer to another question".to_owned()),
    }
}
