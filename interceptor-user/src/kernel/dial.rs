//! Dialling a target under the client's own address.
//!
//! The socket has an address that is not this host's, which `IP_TRANSPARENT` permits. The target's
//! answers go to that address, so they have to come by this host; ingress then knows the connection
//! that they belong to.

use std::io;
use std::net::{IpAddr, SocketAddr};

use nix::ifaddrs::getifaddrs;
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::IpBindAddressNoPort;
use socket2::{Domain, Protocol, Socket, Type};

/// A socket, not yet connected, with which a target sees the client's address.
///
/// With the own address of this host, or between the two families, there is nothing to preserve: then it
/// has whatever address the kernel gives it. Its port is always the kernel's choice.
///
/// # Errors
/// If the kernel refuses the socket or the address.
pub fn client_socket(client: IpAddr, target: SocketAddr) -> io::Result<Socket> {
    let (client, target) = (client.to_canonical(), target.ip().to_canonical());
    let domain = if target.is_ipv4() {
        Domain::IPV4
    } else {
        Domain::IPV6
    };
    let socket = Socket::new(domain, Type::STREAM.cloexec(), Some(Protocol::TCP))?;
    if client.is_ipv4() != target.is_ipv4() || is_own(&[client, target])? {
        return Ok(socket);
    }
    if target.is_ipv4() {
        socket.set_ip_transparent_v4(true)?;
    } else {
        socket.set_ip_transparent_v6(true)?;
    }
    // The port is chosen when both ends are known: it has to be free for this target alone.
    setsockopt(&socket, IpBindAddressNoPort, &true)?;
    socket.bind(&SocketAddr::new(client, 0).into())?;
    Ok(socket)
}

/// Whether one of the addresses is this host's. Answers to it would not come in by a device.
fn is_own(addresses: &[IpAddr]) -> io::Result<bool> {
    if addresses.iter().any(IpAddr::is_loopback) {
        return Ok(true);
    }
    Ok(getifaddrs()?
        .filter_map(|interface| {
            let address = interface.address?;
            let v4 = address.as_sockaddr_in().map(|v4| IpAddr::from(v4.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::from(v6.ip())))
        })
        .any(|own| addresses.contains(&own)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own_address(client: &str, target: &str) -> SocketAddr {
        let socket = client_socket(client.parse().unwrap(), target.parse().unwrap()).unwrap();
        socket.local_addr().unwrap().as_socket().unwrap()
    }

    #[test]
    fn own_addresses_and_mixed_families_are_dialled_as_usual() {
        for (client, target) in [
            ("127.0.0.1", "192.0.2.1:5432"),
            ("192.0.2.7", "127.0.0.1:5432"),
            ("2001:db8::1", "192.0.2.1:5432"),
            ("192.0.2.1", "[2001:db8::1]:5432"),
        ] {
            let own = own_address(client, target);
            assert!(own.ip().is_unspecified(), "{client} to {target}: {own}");
        }
    }
}
