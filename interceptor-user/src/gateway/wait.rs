//! Small steps of waiting: sockets, times and futures that may not be there.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::Poll;
use std::time::Instant;

use bytes::BytesMut;
use tokio::net::TcpStream;

/// Room made for one read.
const READ_BYTES: usize = 32 << 10;

/// Reads what is there; `None` if nothing is.
pub(super) fn try_read(stream: &TcpStream, buffer: &mut BytesMut) -> io::Result<Option<usize>> {
    buffer.reserve(READ_BYTES);
    match stream.try_read_buf(buffer) {
        Ok(count) => Ok(Some(count)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes what there is room for, maybe nothing.
pub(super) fn try_write(stream: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    if bytes.is_empty() {
        return Ok(0);
    }
    match stream.try_write(bytes) {
        Ok(count) => Ok(count),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        Err(error) => Err(error),
    }
}

/// Waits until a stream can be read; for ever if there is none. Cancel-safe.
pub(super) async fn readable(stream: Option<&TcpStream>) {
    match stream {
        Some(stream) => drop(stream.readable().await),
        None => std::future::pending().await,
    }
}

/// Waits until a stream can be written; for ever if there is none. Cancel-safe.
pub(super) async fn writable(stream: Option<&TcpStream>) {
    match stream {
        Some(stream) => drop(stream.writable().await),
        None => std::future::pending().await,
    }
}

/// Waits until a time; for ever if there is none. Cancel-safe.
pub(super) async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

/// The output of a future that may be there. It stays in its place.
pub(super) async fn some<F: Future + Unpin>(future: &mut Option<F>) -> F::Output {
    std::future::poll_fn(|context| match future {
        Some(future) => Pin::new(future).poll(context),
        None => Poll::Pending,
    })
    .await
}

/// Closes a connection so that its peer sees a reset: no end that could be taken for the right one.
pub(super) fn reset(stream: TcpStream) {
    if let Err(error) = stream.set_zero_linger() {
        tracing::debug!(%error, "a connection is closed in order instead of being reset");
    }
}
