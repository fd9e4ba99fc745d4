//! The proxy's listening socket: transparent, so that an accepted connection's own address is the
//! address that the client asked for.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

use super::{KernelError, routing};

/// Connections that wait to be accepted; the kernel lowers it to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// Opens the socket: for both families, or for IPv4 where the kernel has no IPv6.
pub(super) fn open(port: u16) -> Result<TcpListener, KernelError> {
    let failed = |source| KernelError::Listener { source };
    let is_dual = routing::has_ipv6();
    let domain = if is_dual { Domain::IPV6 } else { Domain::IPV4 };
    let address: SocketAddr = if is_dual {
        (Ipv6Addr::UNSPECIFIED, port).into()
    } else {
        (Ipv4Addr::UNSPECIFIED, port).into()
    };
    let socket = Socket::new(
        domain,
        Type::STREAM.nonblocking().cloexec(),
        Some(Protocol::TCP),
    )
    .map_err(failed)?;
    if is_dual {
        socket.set_only_v6(false).map_err(failed)?;
        socket.set_ip_transparent_v6(true).map_err(failed)?;
    }
    socket.set_ip_transparent_v4(true).map_err(failed)?;
    // Connections of a predecessor in TIME_WAIT must not keep it from starting.
    socket.set_reuse_address(true).map_err(failed)?;
    socket
        .bind(&address.into())
        .and_then(|()| socket.listen(BACKLOG))
        .map_err(|source| match source.kind() {
            ErrorKind::AddrInUse => KernelError::PortTaken { port },
            _ => KernelError::Listener { source },
        })?;
    Ok(socket.into())
}

/// The socket of a gateway that hands over, if it is the one that is wanted.
pub(super) fn check(listener: TcpListener, port: u16) -> Result<TcpListener, KernelError> {
    let failed = |source| KernelError::Listener { source };
    let has = listener.local_addr().map_err(failed)?.port();
    if has != port {
        return Err(failed(std::io::Error::other(format!(
            "the gateway that runs listens on port {has}, not on {port}"
        ))));
    }
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(listener)
}
