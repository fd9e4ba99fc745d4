//! Connections to targets. The kernel knows them by the proxy's cgroup, which made them.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use interceptor_core::session::postgres::Tls;
use interceptor_core::wire::postgres::startup::{CancelKey, encode_cancel};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::stream::Stream;
use crate::kernel::client_socket;

/// How long a target may take to answer the call.
const CONNECT_WAIT_MAX: Duration = Duration::from_secs(10);

/// How long a target may take to act on a cancel request.
const CANCEL_WAIT_MAX: Duration = Duration::from_secs(2);

/// The pauses before a cancel request that ends a session is sent again.
const CANCEL_AGAIN: [Duration; 2] = [Duration::from_millis(50), Duration::from_millis(250)];

/// Dials a target; with a client's address, so that the target sees that.
pub(super) async fn connect(
    target: SocketAddr,
    as_client: Option<SocketAddr>,
) -> io::Result<TcpStream> {
    let dial = async {
        let Some(client) = as_client else {
            return TcpStream::connect(target).await;
        };
        let socket = client_socket(client.ip(), target)?;
        socket.set_nonblocking(true)?;
        TcpSocket::from_std_stream(socket.into())
            .connect(target)
            .await
    };
    let stream = timeout(CONNECT_WAIT_MAX, dial)
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Dials a target for a session.
pub(super) async fn open(
    target: SocketAddr,
    as_client: Option<SocketAddr>,
) -> io::Result<(Stream, Option<Tls>)> {
    Ok((Stream::plain(connect(target, as_client).await?), None))
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
pub(super) fn forward_cancel(target: SocketAddr, key: CancelKey, ends: bool) {
    tokio::spawn(async move {
        let mut sent = send_cancel(target, &key).await;
        for wait in CANCEL_AGAIN.into_iter().filter(|_| ends) {
            tokio::time::sleep(wait).await;
            sent = send_cancel(target, &key).await;
        }
        if let Err(error) = sent {
            tracing::debug!(%error, "a cancel request could not be passed on");
        }
    });
}

/// Tells a target to stop what it does for a session that goes on. Over once the target has acted, or
/// could not be told: a request that is still on its way could hit what comes next.
pub(super) async fn interrupt(target: SocketAddr, key: CancelKey) {
    if let Err(error) = send_cancel(target, &key).await {
        tracing::warn!(%target, %error, "a target could not be told to stop a command that met a limit");
    }
}

async fn send_cancel(target: SocketAddr, key: &CancelKey) -> io::Result<()> {
    let mut stream = connect(target, None).await?;
    stream.write_all(&encode_cancel(key)).await?;
    // The server closes once it has acted.
    timeout(CANCEL_WAIT_MAX, stream.read(&mut [0; 1]))
        .await
        .map_err(io::Error::from)??;
    Ok(())
}
