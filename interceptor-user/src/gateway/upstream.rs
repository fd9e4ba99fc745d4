//! Connections to targets. The kernel knows them by the proxy's cgroup, which made them.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long a target may take to answer the call.
const CONNECT_WAIT_MAX: Duration = Duration::from_secs(10);

/// Dials a target.
pub(super) async fn connect(target: SocketAddr) -> io::Result<TcpStream> {
    let stream = timeout(CONNECT_WAIT_MAX, TcpStream::connect(target))
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    stream.set_nodelay(true)?;
    Ok(stream)
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
