//! Endpoints as policy files write them.
//!
//! It owns the text forms of networks, ports, host names and unix sockets, and what is said of a
//! form that is none. It must not know who uses them.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use core::net::IpAddr;
use core::ops::RangeInclusive;

use ipnet::{IpNet, Ipv4Net};

use super::problem::Problem;

/// The prefix of IPv4 addresses mapped into IPv6.
const MAPPED_BITS: u8 = 96;
/// The longest host name (RFC 1035, section 2.3.4), without the dot at its end.
const HOST_CHARS_MAX: usize = 253;
/// The longest part of one between its dots.
const LABEL_CHARS_MAX: usize = 63;
/// The longest path of a unix socket: `sun_path` of linux/un.h, without the zero at its end.
const UNIX_BYTES_MAX: usize = 107;
/// How endpoints at unix sockets begin.
const UNIX: &str = "unix:";

/// One entry of `endpoints`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Written {
    /// Addresses. Bits beyond the prefix are the caller's to refuse.
    Addresses(IpNet, RangeInclusive<u16>),
    /// A host name, in lower case and without the dot at its end.
    Name(String, RangeInclusive<u16>),
    /// A path, or `@` and an abstract name.
    Unix(String),
}

/// An address or `network/bits`; mapped IPv6 comes out as IPv4.
pub(super) fn parse_network(text: &str) -> Option<IpNet> {
    let network = match text.split_once('/') {
        Some(_) => text.parse().ok()?,
        None => IpNet::from(text.parse::<IpAddr>().ok()?),
    };
    Some(unmap(network))
}

/// Reads `address:ports`, `network/bits:ports`, both in brackets for IPv6, `name:ports` and
/// `unix:path`.
pub(super) fn parse(text: &str) -> Result<Written, Problem> {
    if let Some(path) = text.strip_prefix(UNIX) {
        return parse_unix(path);
    }
    let bad = || Problem::BadEndpoint {
        value: text.to_owned(),
    };
    if let Some(rest) = text.strip_prefix('[') {
        let (host, ports) = rest.split_once(']').ok_or_else(bad)?;
        let network = parse_network(host).ok_or_else(bad)?;
        // In brackets there is IPv6, in whatever notation.
        if !host.contains(':') {
            return Err(bad());
        }
        let ports = match ports.strip_prefix(':') {
            Some("") => return Err(no_port(text)),
            Some(ports) => parse_ports(ports)?,
            None if ports.is_empty() => return Err(no_port(text)),
            None => return Err(bad()),
        };
        return Ok(Written::Addresses(network, ports));
    }
    // Without brackets `fd00::5:5432` would be an address of its own.
    let like_v6 = |c: char| c.is_ascii_hexdigit() || matches!(c, ':' | '.' | '/' | '%' | '-');
    if text.matches(':').count() > 1 && text.chars().all(like_v6) {
        return Err(Problem::NoBrackets {
            value: text.to_owned(),
        });
    }
    let (host, ports) = match text.split_once(':') {
        Some(("", _)) => return Err(bad()),
        Some((_, "")) => return Err(no_port(text)),
        Some((host, ports)) => (host, ports),
        None if text.is_empty() => return Err(bad()),
        None => return Err(no_port(text)),
    };
    if let Some(network) = parse_network(host) {
        return Ok(Written::Addresses(network, parse_ports(ports)?));
    }
    if host.contains('/') || ports.contains(':') || ends_in_number(host) {
        return Err(bad());
    }
    let name = parse_name(host)?;
    Ok(Written::Name(name, parse_ports(ports)?))
}

fn no_port(text: &str) -> Problem {
    Problem::NoPort {
        value: text.trim_end_matches(':').to_owned(),
    }
}

/// `5432` or `5432-5433`.
fn parse_ports(text: &str) -> Result<RangeInclusive<u16>, Problem> {
    let port = |text: &str| -> Option<u16> {
        // `parse` would take a sign.
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let port = text.parse().ok().filter(|_| digits)?;
        (port > 0).then_some(port)
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    port(first)
        .zip(port(last))
        .filter(|(first, last)| first <= last)
        .map(|(first, last)| first..=last)
        .ok_or_else(|| Problem::BadPorts {
            value: text.to_owned(),
        })
}

/// What looks like an address that is none (`10.0.0.300`) must not be looked up as a name.
fn ends_in_number(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    let last = host.rsplit('.').next().unwrap_or_default();
    !last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit())
}

fn parse_name(text: &str) -> Result<String, Problem> {
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let why = if !name.is_ascii() {
        "write letters beyond ASCII in their encoded form, which begins with `xn--`"
    } else if name.len() > HOST_CHARS_MAX {
        "it is longer than 253 characters"
    } else if name.split('.').any(str::is_empty) {
        "there is nothing between two of its dots"
    } else if name.split('.').any(|label| label.len() > LABEL_CHARS_MAX) {
        "a part between its dots is longer than 63 characters"
    } else if !name.split('.').all(|label| label.chars().all(fits)) {
        "it has letters, digits, `-`, `_` and dots"
    } else if name
        .split('.')
        .any(|label| label.starts_with('-') || label.ends_with('-'))
    {
        "a part between its dots begins or ends with `-`"
    } else if name == "localhost" || name.ends_with(".localhost") {
        "it stands for this host itself, whatever the resolver says; write `127.0.0.1` and `[::1]`"
    } else {
        return Ok(name);
    };
    Err(Problem::BadHostName {
        value: text.to_owned(),
        why,
    })
}

fn parse_unix(path: &str) -> Result<Written, Problem> {
    let why = if path.len() > UNIX_BYTES_MAX {
        "the kernel takes at most 107 bytes"
    } else if let Some(name) = path.strip_prefix('@') {
        if !name.is_empty() {
            return Ok(Written::Unix(path.to_owned()));
        }
        "there is no name behind `@`"
    } else if !path.starts_with('/') {
        "write an absolute path, or `@` and an abstract name"
    } else if path
        .split('/')
        .skip(1)
        .any(|part| matches!(part, "" | "." | ".."))
    {
        "write the path without `//`, `.` and `..`, and without `/` at its end"
    } else {
        return Ok(Written::Unix(path.to_owned()));
    };
    Err(Problem::BadUnixSocket {
        value: path.to_owned(),
        why,
    })
}

/// As a file would write addresses.
pub(super) fn describe(network: IpNet, ports: &RangeInclusive<u16>) -> String {
    let single = network.prefix_len() == network.max_prefix_len();
    let host = if single {
        format!("{}", network.addr())
    } else {
        format!("{network}")
    };
    let ports = describe_ports(ports);
    match network {
        IpNet::V4(_) => format!("{host}:{ports}"),
        IpNet::V6(_) => format!("[{host}]:{ports}"),
    }
}

/// As a file would write ports.
pub(super) fn describe_ports(ports: &RangeInclusive<u16>) -> String {
    let (first, last) = (ports.start(), ports.end());
    if first == last {
        format!("{first}")
    } else {
        format!("{first}-{last}")
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
            ("10.0.0.0/8:1000-2000", "10.0.0.0/8:1000-2000"),
            ("10.0.0.5:1-65535", "10.0.0.5:1-65535"),
            ("10.0.0.5:5432-5432", "10.0.0.5:5432"),
            ("[fd00::5]:5432", "[fd00::5]:5432"),
            ("[fd00::/64]:5432-5433", "[fd00::/64]:5432-5433"),
            ("[::ffff:10.0.0.5]:5432", "10.0.0.5:5432"),
            ("[::ffff:10.0.0.0/104]:5432", "10.0.0.0/8:5432"),
        ] {
            let Ok(Written::Addresses(network, ports)) = parse(text) else {
                panic!("{text}: {:?}", parse(text));
            };
            assert_eq!(describe(network, &ports), expected);
        }
        for bad in [
            "",
            ":",
            ":5432",
            "10.0.0.5:x:5",
            "[10.0.0.5]:5432",
            "[fd00::5:5432",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_are_lower_case_and_absolute() {
        let long = alloc::format!("{}.{}", "a".repeat(63), "b".repeat(63));
        for (text, expected) in [
            ("orders-db.internal:5432", "orders-db.internal"),
            ("Orders-DB.Internal.:5432", "orders-db.internal"),
            ("db:5432", "db"),
            ("_pg._tcp.x1.example:5432", "_pg._tcp.x1.example"),
            ("xn--bcher-kva.example:5432", "xn--bcher-kva.example"),
            (&alloc::format!("{long}:1"), &long),
        ] {
            let ports = text.rsplit(':').next().unwrap().parse().unwrap();
            let expected = Written::Name(expected.to_string(), ports..=ports);
            assert_eq!(parse(text), Ok(expected));
        }
        // What only looks like an address is not looked up.
        for bad in [
            "10.0.0.300:5432",
            "10.0.0:5432",
            "1:5432",
            "db.7:5432",
            "10.0.0.5.:5432",
        ] {
            assert!(
                matches!(parse(bad), Err(Problem::BadEndpoint { .. })),
                "{bad}"
            );
        }
    }

    #[test]
    fn unix_sockets_are_paths_or_abstract_names() {
        for good in ["/run/postgresql/.s.PGSQL.5432", "@postgres", "@/a/../b"] {
            let text = alloc::format!("unix:{good}");
            assert_eq!(parse(&text), Ok(Written::Unix(good.to_string())));
        }
        for bad in [
            "",
            "@",
            "run/x",
            "/",
            "/run//x",
            "/run/../x",
            "/run/x/",
            "/run/./x",
        ] {
            let error = parse(&alloc::format!("unix:{bad}"));
            assert!(matches!(error, Err(Problem::BadUnixSocket { .. })), "{bad}");
        }
        let fits = alloc::format!("unix:/{}", "x".repeat(UNIX_BYTES_MAX - 1));
        assert!(parse(&fits).is_ok());
        assert!(parse(&alloc::format!("{fits}x")).is_err());
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
