//! One leg of a session: a connection, plain or encrypted.
//!
//! It owns how bytes get through it: reading and writing never wait, and take what can be. It must not
//! know whose leg it is or what the bytes mean.

use std::io;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Room made for one read.
const READ_BYTES: usize = 32 << 10;

/// A connection to a peer.
pub(super) struct Stream {
    socket: TcpStream,
}

impl Stream {
    /// A connection whose bytes are as they are.
    pub(super) const fn plain(socket: TcpStream) -> Self {
        Self { socket }
    }

    /// Reads what is there; `None` if nothing is, and 0 at the end.
    pub(super) fn try_read(&mut self, buffer: &mut BytesMut) -> io::Result<Option<usize>> {
        buffer.reserve(READ_BYTES);
        match self.socket.try_read_buf(buffer) {
            Ok(count) => Ok(Some(count)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Takes what there is room for, maybe nothing. Also sends what it took before and still holds,
    /// so that it is called even if there are no `bytes`.
    pub(super) fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        match self.socket.try_write(bytes) {
            Ok(count) => Ok(count),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// It holds bytes that it took and that did not go out yet: it wants to be writable.
    pub(super) const fn wants_write(&self) -> bool {
        false
    }

    /// Waits until it can be read. Cancel-safe.
    pub(super) async fn readable(&self) {
        // An error shows when it is read.
        drop(self.socket.readable().await);
    }

    /// Waits until it can be written. Cancel-safe.
    pub(super) async fn writable(&self) {
        drop(self.socket.writable().await);
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
