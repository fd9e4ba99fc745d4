//! One leg of a session: a connection, plain or encrypted.
//!
//! It owns how bytes get through it: reading and writing never wait, and take what can be. It must not
//! know whose leg it is or what the bytes mean.

mod encryption;
mod polled;
#[cfg(test)]
mod tests;

use std::future::{Future as _, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BytesMut};
use rustls::ServerConfig;
use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use tokio::io::{AsyncReadExt as _, AsyncWrite as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::tls::Handshake;
use encryption::Encryption;
pub(super) use polled::Polled;

/// Room made for one read: at first and at rest, and where much comes.
const READ_BYTES_MIN: usize = 2 << 10;
const READ_BYTES_MAX: usize = 64 << 10;

/// A connection to a peer.
pub(super) struct Stream {
    socket: TcpStream,
    /// Room made for the next read.
    room: usize,
    encryption: Option<Box<Encryption>>,
    /// The end of the handshake was not told yet.
    is_beginning: bool,
}

/// What a handshake led to.
pub(super) struct Agreed {
    /// The protocol's version.
    pub(super) version: &'static str,
    /// What was agreed on by ALPN.
    pub(super) protocol: Option<Vec<u8>>,
}

impl Stream {
    /// A connection whose bytes are as they are.
    pub(super) const fn plain(socket: TcpStream) -> Self {
        Self {
            socket,
            room: READ_BYTES_MIN,
            encryption: None,
            is_beginning: false,
        }
    }

    /// Begins the handshake that the peer asked for. `answer` goes out first, as it is; `received` has
    /// come already.
    pub(super) fn accept_tls(
        &mut self,
        config: Arc<ServerConfig>,
        answer: &[u8],
        received: BytesMut,
    ) -> io::Result<()> {
        let connection = UnbufferedServerConnection::new(config).map_err(io::Error::other)?;
        let encryption = self
            .encryption
            .insert(Box::new(Encryption::server(connection)));
        encryption.outgoing().extend_from_slice(answer);
        *encryption.incoming() = received;
        self.is_beginning = true;
        // What came may be all that comes before the answer.
        encryption.decrypt(&mut BytesMut::new())
    }

    /// Encrypts towards a server, and waits until the handshake is over. Not cancel-safe: who gives up
    /// closes the connection.
    pub(super) async fn begin_tls(&mut self, handshake: &Handshake) -> io::Result<()> {
        let (config, name) = (Arc::clone(&handshake.config), handshake.name.clone());
        let connection = UnbufferedClientConnection::new(config, name).map_err(io::Error::other)?;
        let encryption = self
            .encryption
            .insert(Box::new(Encryption::client(connection)));
        encryption.decrypt(&mut BytesMut::new())?;
        let mut early = BytesMut::new();
        poll_fn(|context| self.poll_handshake(context, &mut early)).await
    }

    fn poll_handshake(
        &mut self,
        context: &mut Context<'_>,
        early: &mut BytesMut,
    ) -> Poll<io::Result<()>> {
        loop {
            let flushed = self.poll_flush(context)?;
            if self.is_open() {
                return flushed.map(Ok);
            }
            match self.poll_read(context, early)? {
                Poll::Ready(0) => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                // A server of PostgreSQL does not speak first.
                Poll::Ready(_) => return Poll::Ready(Err(io::ErrorKind::InvalidData.into())),
                Poll::Pending if flushed.is_pending() => return Poll::Pending,
                Poll::Pending if self.is_open() || self.wants_write() => {}
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// What a handshake of [`Self::accept_tls`] led to, once, when it is over.
    pub(super) fn take_agreed(&mut self) -> Option<Agreed> {
        let encryption = self.encryption.as_ref().filter(|_| self.is_beginning)?;
        if encryption.is_handshaking() {
            return None;
        }
        self.is_beginning = false;
        Some(Agreed {
            version: encryption.version(),
            protocol: encryption.protocol().map(<[u8]>::to_vec),
        })
    }

    /// The version of TLS and the certificate that the peer showed, after [`Self::begin_tls`].
    pub(super) fn shown(
        &self,
    ) -> Option<(
        &'static str,
        Option<&rustls::pki_types::CertificateDer<'static>>,
    )> {
        let encryption = self.encryption.as_ref()?;
        Some((encryption.version(), encryption.certificate()))
    }

    /// Reads what is there, 0 at the end; if nothing is, the task is woken when that changes. The end of
    /// an encrypted connection is what the peer says it is: one that breaks off is an error.
    pub(super) fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut BytesMut,
    ) -> Poll<io::Result<usize>> {
        let Some(encryption) = &mut self.encryption else {
            return fill(&mut self.socket, &mut self.room, context, buffer);
        };
        let begin = buffer.len();
        loop {
            if encryption.is_over {
                return Poll::Ready(Ok(0));
            }
            let incoming = encryption.incoming();
            if ready!(fill(&mut self.socket, &mut self.room, context, incoming))? == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            if let Err(error) = encryption.decrypt(buffer) {
                // The alert that tells the peer why. It may not go out at once, and then never does.
                let _ = self.poll_flush(context);
                return Poll::Ready(Err(error));
            }
            if buffer.len() > begin {
                return Poll::Ready(Ok(buffer.len() - begin));
            }
        }
    }

    /// Takes what there is room for; if there is none, the task is woken when that changes. Also sends
    /// what it took before and still holds, so that it is called even if there are no `bytes`. In a
    /// handshake it takes nothing.
    pub(super) fn poll_write(
        &mut self,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.encryption.is_none() {
            return match bytes {
                [] => Poll::Ready(Ok(0)),
                bytes => Pin::new(&mut self.socket).poll_write(context, bytes),
            };
        }
        ready!(self.poll_flush(context))?;
        let taken = match &mut self.encryption {
            Some(encryption) => encryption.encrypt(bytes)?,
            None => 0,
        };
        // What does not go out now goes with the next call; the task is woken for it.
        let _ = self.poll_flush(context)?;
        Poll::Ready(Ok(taken))
    }

    /// Sends what is encrypted.
    fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(encryption) = &mut self.encryption else {
            return Poll::Ready(Ok(()));
        };
        let outgoing = encryption.outgoing();
        while !outgoing.is_empty() {
            let sent = ready!(Pin::new(&mut self.socket).poll_write(context, outgoing))?;
            outgoing.advance(sent);
        }
        Poll::Ready(Ok(()))
    }

    /// It holds bytes that it took and that did not go out yet.
    fn wants_write(&self) -> bool {
        let encryption = self.encryption.as_ref();
        encryption.is_some_and(|encryption| encryption.wants_write())
    }

    /// It can take bytes: no handshake is under way.
    fn is_open(&self) -> bool {
        let encryption = self.encryption.as_ref();
        encryption.is_none_or(|encryption| !encryption.is_handshaking())
    }

    /// The session is at rest: the next read is a short one again. True if the last ones were not.
    pub(super) fn rest(&mut self) -> bool {
        if let Some(encryption) = &mut self.encryption {
            encryption.release();
        }
        std::mem::replace(&mut self.room, READ_BYTES_MIN) > READ_BYTES_MIN
    }

    /// Takes what there is room for without waiting, maybe nothing, and says that nothing more comes:
    /// for a farewell.
    pub(super) fn try_part(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(encryption) = &mut self.encryption else {
            return match self.socket.try_write(bytes) {
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
                _ => Ok(()),
            };
        };
        encryption.encrypt(bytes)?;
        encryption.say_farewell()?;
        let outgoing = encryption.outgoing();
        let sent = self.socket.try_write(outgoing)?;
        outgoing.advance(sent);
        Ok(())
    }

    /// Sends all of it. Not cancel-safe: for the last words, after which nothing comes.
    pub(super) async fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        if !self.is_open() {
            return Err(io::ErrorKind::NotConnected.into());
        }
        while !bytes.is_empty() {
            let taken = poll_fn(|context| self.poll_write(context, bytes)).await?;
            bytes = bytes.get(taken..).unwrap_or_default();
        }
        poll_fn(|context| self.poll_flush(context)).await
    }

    /// Says that nothing more comes. Not cancel-safe either.
    pub(super) async fn shutdown(&mut self) -> io::Result<()> {
        if let Some(encryption) = &mut self.encryption {
            encryption.say_farewell()?;
        }
        poll_fn(|context| self.poll_flush(context)).await?;
        self.socket.shutdown().await
    }

    /// Reads and forgets what the peer still sends, until it closes its side or has sent so many bytes.
    pub(super) async fn read_to_end(&mut self, bytes_max: u64) -> io::Result<()> {
        // As it comes: nobody reads it.
        let mut rest = (&mut self.socket).take(bytes_max);
        tokio::io::copy(&mut rest, &mut tokio::io::sink()).await?;
        Ok(())
    }

    /// Waits until the peer closes. Cancel-safe: what it says before is thrown away anyway.
    pub(super) async fn closed(&mut self) {
        let mut said = BytesMut::new();
        while !matches!(
            poll_fn(|context| self.poll_read(context, &mut said)).await,
            Ok(0) | Err(_)
        ) {
            said.clear();
        }
    }

    /// Closes it so that its peer sees a reset: no end that could be taken for the right one.
    pub(super) fn reset(self) {
        if let Err(error) = self.socket.set_zero_linger() {
            tracing::debug!(%error, "a connection is closed in order instead of being reset");
        }
    }
}

/// Reads what is there into a buffer.
fn fill(
    socket: &mut TcpStream,
    room: &mut usize,
    context: &mut Context<'_>,
    buffer: &mut BytesMut,
) -> Poll<io::Result<usize>> {
    buffer.reserve(*room);
    let free = buffer.capacity() - buffer.len();
    // It keeps nothing between polls. What it reads less than there was room for was all.
    let read = ready!(pin!(socket.read_buf(buffer)).poll(context));
    if read.as_ref().is_ok_and(|count| *count == free) {
        *room = room.saturating_mul(2).clamp(READ_BYTES_MIN, READ_BYTES_MAX);
    }
    Poll::Ready(read)
}

/// Why a connection broke, in a few words without what was in it.
pub(super) fn reason(error: &io::Error) -> String {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref());
    match cause {
        Some(error @ rustls::Error::AlertReceived(_)) => {
            format!(
                "TLS: {error}: if it does not trust the gateway's certificate, see `interceptor ca export`"
            )
        }
        Some(error) => format!("TLS: {error}"),
        None => error.kind().to_string(),
    }
}
