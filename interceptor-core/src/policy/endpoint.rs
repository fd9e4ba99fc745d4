//! Addresses as policy files write them.
//!
//! It owns the text forms of networks and endpoints. It must not know who uses them.

use alloc::format;
use alloc::string::String;
use core::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};

use super::Endpoint;

/// The prefix of IPv4 addresses mapped into IPv6.
const MAPPED_BITS: u8 = 96;

/// An address or `network/bits`; mapped IPv6 comes out as IPv4.
pub(super) fn parse_network(text: &str) -> Option<IpNet> {
    let network = match text.split_once('/') {
        Some(_) => text.parse().ok()?,
        None => IpNet::from(text.parse::<IpAddr>().ok()?),
    };
    Some(unmap(network))
}

/// `address:port`, `network/bits:port`, and in brackets for IPv6. Bits beyond the prefix are the
/// caller's to refuse.
pub(super) fn parse_endpoint(text: &str) -> Option<Endpoint> {
    let (host, port) = text.rsplit_once(':')?;
    let port: u16 = port.parse().ok().filter(|port| *port > 0)?;
    let bracketed = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let network = parse_network(bracketed.unwrap_or(host))?;
    // Without brackets `fd00::5:5432` would be an address of its own.
    let has_colons = bracketed.unwrap_or(host).contains(':');
    (has_colons == bracketed.is_some()).then_some(Endpoint {
        network,
        ports: port..=port,
    })
}

/// As a file would write it.
pub(super) fn describe(endpoint: &Endpoint) -> String {
    let network = endpoint.network;
    let single = network.prefix_len() == network.max_prefix_len();
    let host = if single {
        format!("{}", network.addr())
    } else {
        format!("{network}")
    };
    let port = endpoint.ports.start();
    match network {
        IpNet::V4(_) => format!("{host}:{port}"),
        IpNet::V6(_) => format!("[{host}]:{port}"),
    }
}

fn unmap(network: IpNet) -> IpNet {
    let IpNet::V6(v6) = network else {
        return network;
    };
    let v4 = v6
        .addr()
        .to_ipv4_mapped()
        .zip(v6.prefix_len().checked_sub(MAPPED_BITS));
    v4.and_then(|(address, bits)| Ipv4Net::new(address, bits).ok())
        .map_or(network, IpNet::V4)
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    #[test]
    fn endpoints_have_one_form_each() {
        for (text, expected) in [
            ("10.0.0.5:5432", "10.0.0.5:5432"),
            ("10.1.0.0/16:5432", "10.1.0.0/16:5432"),
            ("[fd00::5]:5432", "[fd00::5]:5432"),
            ("[fd00::/64]:5432", "[fd00::/64]:5432"),
            ("[::ffff:10.0.0.5]:5432", "10.0.0.5:5432"),
            ("[::ffff:10.0.0.0/104]:5432", "10.0.0.0/8:5432"),
        ] {
            assert_eq!(
                parse_endpoint(text).map(|e| describe(&e)).as_deref(),
                Some(expected)
            );
        }
        for bad in [
            "",
            ":",
            "10.0.0.5",
            "10.0.0.5:0",
            "10.0.0.5:65536",
            "10.0.0.5:x",
            "fd00::5:5432",
            "[10.0.0.5]:5432",
            "[fd00::5]",
            "db.example.com:5432",
            "10.0.0.0/33:5432",
            "[fd00::5:5432",
        ] {
            assert_eq!(parse_endpoint(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_lone_address_is_a_network_of_one() {
        assert_eq!(
            parse_network("10.0.0.5").unwrap().to_string(),
            "10.0.0.5/32"
        );
        assert_eq!(parse_network("fd00::/8").unwrap().to_string(), "fd00::/8");
        assert_eq!(parse_network("10.0.0/8"), None);
    }
}
