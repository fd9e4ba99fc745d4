//! One leg of a session: a connection, plain or encrypted.
//!
//! It owns how bytes get through it: reading and writing never wait, and take what can be. It must not
//! know whose leg it is or what the bytes mean.

use std::future::Future as _;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use tokio::io::{AsyncReadExt as _, AsyncWrite as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Room made for one read: at first and at rest, and where much comes.
const READ_BYTES_MIN: usize = 2 << 10;
const READ_BYTES_MAX: usize = 64 << 10;

/// A connection to a peer.
pub(super) struct Stream {
    socket: TcpStream,
    /// Room made for the next read.
    room: usize,
}

impl Stream {
    /// A connection whose bytes are as they are.
    pub(super) const fn plain(socket: TcpStream) -> Self {
        Self {
            socket,
            room: READ_BYTES_MIN,
        }
    }

    /// Reads what is there, 0 at the end; if nothing is, the task is woken when that changes.
    pub(super) fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut BytesMut,
    ) -> Poll<io::Result<usize>> {
        buffer.reserve(self.room);
        let room = buffer.capacity() - buffer.len();
        // It keeps nothing between polls. What it reads less than there was room for was all.
        let read = ready!(pin!(self.socket.read_buf(buffer)).poll(context));
        if read.as_ref().is_ok_and(|count| *count == room) {
            self.room = room.saturating_mul(2).clamp(READ_BYTES_MIN, READ_BYTES_MAX);
        }
        Poll::Ready(read)
    }

    /// Takes what there is room for; if there is none, the task is woken when that changes. Also sends
    /// what it took before and still holds, so that it is called even if there are no `bytes`.
    pub(super) fn poll_write(
        &mut self,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match bytes {
            [] => Poll::Ready(Ok(0)),
            bytes => Pin::new(&mut self.socket).poll_write(context, bytes),
        }
    }

    /// The session is at rest: the next read is a short one again. True if the last ones were not.
    pub(super) fn rest(&mut self) -> bool {
        std::mem::replace(&mut self.room, READ_BYTES_MIN) > READ_BYTES_MIN
    }

    /// Takes what there is room for without waiting, maybe nothing: for a farewell.
    pub(super) fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.socket.try_write(bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            written => written,
        }
    }

    /// Sends all of it. Not cancel-safe: for the last words, after which nothing comes.
    pub(super) async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.socket.write_all(bytes).await
    }

    /// Says that nothing more comes. Not cancel-safe either.
    pub(super) async fn shutdown(&mut self) -> io::Result<()> {
        self.socket.shutdown().await
    }

    /// Reads and forgets what the peer still sends, until it closes its side or has sent so many bytes.
    pub(super) async fn read_to_end(&mut self, bytes_max: u64) -> io::Result<()> {
        let mut rest = (&mut self.socket).take(bytes_max);
        tokio::io::copy(&mut rest, &mut tokio::io::sink()).await?;
        Ok(())
    }

    /// Closes it so that its peer sees a reset: no end that could be taken for the right one.
    pub(super) fn reset(self) {
        if let Err(error) = self.socket.set_zero_linger() {
            tracing::debug!(%error, "a connection is closed in order instead of being reset");
        }
    }
}
