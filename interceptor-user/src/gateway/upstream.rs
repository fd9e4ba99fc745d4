//! Connections to targets, plain or encrypted. The kernel knows them by the proxy's cgroup, which made
//! them.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use interceptor_core::policy::{Target, UpstreamTls};
use interceptor_core::session::postgres::Tls as Leg;
use interceptor_core::wire::postgres::startup::{CancelKey, SSL_REQUEST_PACKET, encode_cancel};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::Shared;
use super::stream::Stream;
use crate::kernel::client_socket;
use crate::tls::{self, Upstream};

/// How long a target may take to answer the call, and to agree on TLS.
const CONNECT_WAIT_MAX: Duration = Duration::from_secs(10);

/// How long a target may take to act on a cancel request.
const CANCEL_WAIT_MAX: Duration = Duration::from_secs(2);

/// The pauses before a cancel request that ends a session is sent again.
const CANCEL_AGAIN: [Duration; 2] = [Duration::from_millis(50), Duration::from_millis(250)];

/// The way to a target: for its sessions and for what the gateway asks it besides.
#[derive(Clone)]
pub(super) struct Route {
    pub(super) address: SocketAddr,
    /// `None`: its target is not in the policy any more.
    tls: Option<Arc<Upstream>>,
    /// What the policy calls the address.
    names: Arc<[String]>,
}

/// Why a target could not be reached.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpenError {
    #[error("the connection failed: {0}")]
    Dial(#[from] io::Error),
    #[error("it is no target any more")]
    Gone,
    #[error("it does not offer TLS, which `upstream` in its `tls` asks for")]
    NoTls,
    #[error("it answers a request for TLS with something else")]
    NoAnswer,
    #[error("TLS: {0}")]
    Tls(rustls::Error),
}

impl Route {
    /// The way to a session's target.
    pub(super) fn new(shared: &Shared, target: &Target, address: SocketAddr) -> Self {
        let directories = shared.directories.borrow();
        let has = |name: &str| directories.current.has_address(name, address.ip());
        let names = target.names.iter().map(|endpoint| &endpoint.name);
        Self {
            address,
            tls: shared.tls.upstream(&target.name),
            names: names.filter(|name| has(name)).cloned().collect(),
        }
    }

    /// Dials; with a client's address, so that the target sees that. Says how the leg is encrypted, if
    /// it is.
    pub(super) async fn open(
        &self,
        as_client: Option<SocketAddr>,
    ) -> Result<(Stream, Option<Leg>), OpenError> {
        let opened = timeout(CONNECT_WAIT_MAX, self.try_open(as_client)).await;
        opened.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    }

    async fn try_open(
        &self,
        as_client: Option<SocketAddr>,
    ) -> Result<(Stream, Option<Leg>), OpenError> {
        let tls = self.tls.as_ref().ok_or(OpenError::Gone)?;
        let socket = dial(self.address, as_client).await?;
        if tls.mode() == UpstreamTls::Disable {
            return Ok((Stream::plain(socket), None));
        }
        match self.encrypt(tls, socket).await {
            // As libpq does: what did not work out encrypted may go plain, if that is allowed at all.
            Err(error) if tls.mode() == UpstreamTls::Prefer => {
                tracing::debug!(%error, "a target that need not encrypt is dialled again without");
                let socket = dial(self.address, as_client).await?;
                Ok((Stream::plain(socket), None))
            }
            opened => opened,
        }
    }

    async fn encrypt(
        &self,
        tls: &Upstream,
        mut socket: TcpStream,
    ) -> Result<(Stream, Option<Leg>), OpenError> {
        socket.write_all(&SSL_REQUEST_PACKET).await?;
        // One byte and no more: what a third party may have put behind it is no TLS.
        match socket.read_u8().await? {
            b'S' => {}
            b'N' if tls.mode() == UpstreamTls::Prefer => return Ok((Stream::plain(socket), None)),
            b'N' => return Err(OpenError::NoTls),
            _ => return Err(OpenError::NoAnswer),
        }
        let handshake = tls
            .handshake(self.address.ip(), &self.names)
            .map_err(OpenError::Tls)?;
        let mut stream = Stream::plain(socket);
        stream.begin_tls(&handshake).await.map_err(failed)?;
        let leg = stream
            .shown()
            .map(|(version, certificate)| handshake.leg(version, certificate));
        Ok((stream, leg))
    }
}

/// Why a handshake failed.
fn failed(error: io::Error) -> OpenError {
    match error.downcast() {
        Ok(error) => OpenError::Tls(error),
        Err(error) => OpenError::Dial(error),
    }
}

/// Dials an address; with a client's, so that the target sees that.
pub(super) async fn connect(
    target: SocketAddr,
    as_client: Option<SocketAddr>,
) -> io::Result<TcpStream> {
    timeout(CONNECT_WAIT_MAX, dial(target, as_client))
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

async fn dial(target: SocketAddr, as_client: Option<SocketAddr>) -> io::Result<TcpStream> {
    let stream = match as_client {
        None => TcpStream::connect(target).await?,
        Some(client) => {
            let socket = client_socket(client.ip(), target)?;
            socket.set_nonblocking(true)?;
            let socket = TcpSocket::from_std_stream(socket.into());
            socket.connect(target).await?
        }
    };
    stream.set_nodelay(true)?;
    Ok(stream)
}

impl OpenError {
    /// A few words for a client: what went wrong, without addresses.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Dial(error) => reason(error),
            Self::Gone => "it is no target any more",
            Self::NoTls => "it does not offer TLS, which `upstream` in its `tls` asks for",
            Self::NoAnswer => "it does not speak PostgreSQL's protocol",
            Self::Tls(error) => tls::reason(error),
        }
    }
}

/// A few words for a client: what went wrong, without addresses.
pub(super) fn reason(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "it refuses connections",
        io::ErrorKind::TimedOut => "it does not answer",
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            "there is no route to it"
        }
        _ => "the connection failed",
    }
}

/// Passes a cancel request on, on a connection of its own, as clients do. One that ends a session
/// is repeated: a command that was still on its way when the first came would run to its end.
pub(super) fn forward_cancel(target: Route, key: CancelKey, ends: bool) {
    tokio::spawn(async move {
        let mut sent = send_cancel(&target, &key).await;
        for wait in CANCEL_AGAIN.into_iter().filter(|_| ends) {
            tokio::time::sleep(wait).await;
            sent = send_cancel(&target, &key).await;
        }
        if let Err(error) = sent {
            tracing::debug!(%error, "a cancel request could not be passed on");
        }
    });
}

/// Tells a target to stop what it does for a session that goes on. Over once the target has acted, or
/// could not be told: a request that is still on its way could hit what comes next.
pub(super) async fn interrupt(target: Route, key: CancelKey) {
    if let Err(error) = send_cancel(&target, &key).await {
        let target = target.address;
        tracing::warn!(%target, %error, "a target could not be told to stop a command that met a limit");
    }
}

async fn send_cancel(target: &Route, key: &CancelKey) -> Result<(), OpenError> {
    let (mut stream, _) = target.open(None).await?;
    stream.write_all(&encode_cancel(key)).await?;
    // The server closes once it has acted.
    timeout(CANCEL_WAIT_MAX, stream.closed())
        .await
        .map_err(io::Error::from)?;
    Ok(())
}
