//! Asking: one name, both address families, as the system's resolver would.
//!
//! It owns the DNS library, and which answers are believed. It must not know what came before.
//! Names are absolute: the search list of resolv.conf is for people who type.

use std::collections::BTreeSet;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    NameServerConfig, ResolveHosts, ResolverConfig, ServerOrderingStrategy,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::rr::{Name, RecordType};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

use super::{
    ADDRESSES_MAX, LOOKUP_WAIT_MAX, LOOKUPS_MAX, RESOLVE_WAIT_MAX, SERVER_WAIT_MAX, TTL_KEPT_MAX,
};

/// What a look-up found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The addresses; never empty.
    pub addresses: BTreeSet<IpAddr>,
    /// Addresses in the answer that no honest name of a server has; see [`is_hostile`].
    pub refused: BTreeSet<IpAddr>,
    /// How many addresses more than [`ADDRESSES_MAX`] were in it.
    pub surplus: usize,
    /// How long it holds.
    pub ttl: Duration,
    /// The address family that could not be asked for, and why.
    pub missing: Option<(Family, LookupError)>,
}

/// An address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// A records.
    V4,
    /// AAAA records.
    V6,
}

impl Family {
    /// Whether an address is of it.
    pub fn has(self, address: &IpAddr) -> bool {
        address.is_ipv4() == (self == Self::V4)
    }

    fn record(self) -> RecordType {
        match self {
            Self::V4 => RecordType::A,
            Self::V6 => RecordType::AAAA,
        }
    }
}

/// Why a look-up found no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// NXDOMAIN.
    #[error("there is no such name (NXDOMAIN)")]
    NoSuchName,
    /// Neither A nor AAAA.
    #[error("it has no address")]
    NoAddress,
    /// Nothing but addresses that are refused.
    #[error(
        "it has no address but {0}, and an answer from DNS cannot make that a target; name it by address if you mean it"
    )]
    Hostile(String),
    /// A server's error, such as SERVFAIL.
    #[error("the DNS server answered with an error: {0}")]
    Server(String),
    /// No answer in time.
    #[error("no DNS server answered in time")]
    TimedOut,
    /// It could not be asked, or its answer could not be read.
    #[error("no DNS server could be asked: {0}")]
    Failed(String),
}

/// Why names cannot be resolved at all.
#[derive(Debug, thiserror::Error)]
pub enum ResolverError {
    /// The system's configuration cannot be used.
    #[error(
        "the system's DNS configuration (/etc/resolv.conf) cannot be used: {0}; give --dns-server"
    )]
    System(NetError),
    /// The library refused.
    #[error("names cannot be resolved: {0}")]
    Library(NetError),
}

/// The value of `--dns-server`: an address, with a port unless it is 53.
pub fn parse_server(text: &str) -> Result<SocketAddr, String> {
    let address = text.parse::<IpAddr>();
    let address = address.map(|address| SocketAddr::new(address, 53));
    address
        .or_else(|_| text.parse())
        .map_err(|_| "write an address, `address:port` or `[ipv6]:port`".to_owned())
}

/// Whether an answer with this address is refused. A name that suddenly points at the gateway's own
/// loopback, at everything or at a group is no moved server but an attempt to have the gateway
/// intercept or dial what its policy does not speak of (DNS rebinding).
pub(super) fn is_hostile(address: &IpAddr) -> bool {
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast() || v4.octets()[0] == 0,
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    address.is_loopback() || address.is_unspecified() || address.is_multicast() || link_local
}

/// Asks the system's servers, or those it is given, after the hosts file. It keeps no answer.
#[derive(Debug)]
pub struct Resolver {
    inner: TokioResolver,
}

impl Resolver {
    /// Reads /etc/resolv.conf, unless there are `servers`, and /etc/hosts. Later changes of these
    /// files are for another resolver.
    pub fn new(servers: &[SocketAddr]) -> Result<Self, ResolverError> {
        let mut builder = if servers.is_empty() {
            TokioResolver::builder_tokio().map_err(ResolverError::System)?
        } else {
            let servers = servers.iter().map(|server| {
                let mut config = NameServerConfig::udp_and_tcp(server.ip());
                for connection in &mut config.connections {
                    connection.port = server.port();
                }
                config
            });
            let config = ResolverConfig::from_parts(None, Vec::new(), servers.collect());
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        };
        let options = builder.options_mut();
        options.timeout = SERVER_WAIT_MAX;
        options.attempts = 1;
        options.use_hosts_file = ResolveHosts::Always;
        // The first server that answers, in the order of the file, as the C library asks them.
        options.server_ordering_strategy = ServerOrderingStrategy::UserProvidedOrder;
        options.num_concurrent_reqs = 1;
        options.max_active_requests = LOOKUPS_MAX * 4;
        options.cache_size = 0;
        let inner = builder.build().map_err(ResolverError::Library)?;
        Ok(Self { inner })
    }

    /// The addresses of an absolute name, without the dot at its end. Cancel-safe: a look-up that is
    /// dropped leaves nothing behind.
    pub async fn look_up(&self, name: &str) -> Result<Answer, LookupError> {
        let mut absolute =
            Name::from_ascii(name).map_err(|error| LookupError::Failed(error.to_string()))?;
        absolute.set_fqdn(true);
        let (v4, v6) = tokio::join!(
            self.family(&absolute, Family::V4),
            self.family(&absolute, Family::V6)
        );
        combine(v4, v6)
    }

    async fn family(&self, name: &Name, family: Family) -> Result<Found, LookupError> {
        // Without a cache there is nothing to clear but what the cache has not swept out yet.
        self.inner.clear_lookup_cache(name.clone(), family.record());
        let asked = self.inner.lookup(name.clone(), family.record());
        let lookup = match timeout(LOOKUP_WAIT_MAX, asked).await {
            Err(_) => return Err(LookupError::TimedOut),
            Ok(Err(error)) => return absent(error),
            Ok(Ok(lookup)) => lookup,
        };
        let answers = lookup.answers();
        let addresses = answers.iter().filter_map(|record| record.data.ip_addr());
        // Of a chain of CNAMEs the shortest counts.
        let ttl = answers.iter().map(|record| record.ttl).min();
        Ok(Found {
            addresses: addresses.map(|address| address.to_canonical()).collect(),
            ttl: ttl.map(|seconds| Duration::from_secs(seconds.into())),
            exists: true,
        })
    }
}

/// What one family has. No address is an answer, too.
#[derive(Debug, Default)]
struct Found {
    addresses: BTreeSet<IpAddr>,
    ttl: Option<Duration>,
    exists: bool,
}

fn absent(error: NetError) -> Result<Found, LookupError> {
    if error.is_no_records_found() {
        return Ok(Found {
            exists: !error.is_nx_domain(),
            ..Found::default()
        });
    }
    Err(match error {
        NetError::Timeout => LookupError::TimedOut,
        NetError::Io(error) if error.kind() == std::io::ErrorKind::TimedOut => {
            LookupError::TimedOut
        }
        NetError::Dns(DnsError::ResponseCode(code)) => LookupError::Server(code.to_string()),
        other => LookupError::Failed(other.to_string()),
    })
}

fn combine(
    v4: Result<Found, LookupError>,
    v6: Result<Found, LookupError>,
) -> Result<Answer, LookupError> {
    let (v4, v6, missing) = match (v4, v6) {
        (Ok(v4), Ok(v6)) => (v4, v6, None),
        (Ok(v4), Err(error)) => (v4, Found::default(), Some((Family::V6, error))),
        (Err(error), Ok(v6)) => (Found::default(), v6, Some((Family::V4, error))),
        (Err(error), Err(_)) => return Err(error),
    };
    let exists = v4.exists || v6.exists;
    let ttl = [v4.ttl, v6.ttl].into_iter().flatten().min();
    let (refused, mut addresses): (BTreeSet<IpAddr>, BTreeSet<IpAddr>) = v4
        .addresses
        .into_iter()
        .chain(v6.addresses)
        .partition(is_hostile);
    if addresses.is_empty() {
        return Err(match missing {
            Some((_, error)) => error,
            None if !refused.is_empty() => LookupError::Hostile(super::names::list(&refused)),
            None if exists => LookupError::NoAddress,
            None => LookupError::NoSuchName,
        });
    }
    let surplus = addresses.len().saturating_sub(ADDRESSES_MAX);
    if let Some(first_beyond) = addresses.iter().nth(ADDRESSES_MAX).copied() {
        addresses.split_off(&first_beyond);
    }
    Ok(Answer {
        addresses,
        refused,
        surplus,
        ttl: ttl.unwrap_or_default().min(TTL_KEPT_MAX),
        missing,
    })
}

/// Looks many names up, a few at a time and all within [`RESOLVE_WAIT_MAX`].
pub async fn resolve_all(
    resolver: &Arc<Resolver>,
    names: impl IntoIterator<Item = String>,
) -> Vec<(String, Result<Answer, LookupError>)> {
    let permits = Arc::new(Semaphore::new(LOOKUPS_MAX));
    let until = Instant::now() + RESOLVE_WAIT_MAX;
    let mut asked = JoinSet::new();
    for name in names {
        let (resolver, permits) = (Arc::clone(resolver), Arc::clone(&permits));
        asked.spawn(async move {
            let found = within(until, async {
                // A closed semaphore cannot be: it is closed nowhere.
                let _permit = permits.acquire().await;
                resolver.look_up(&name).await
            });
            let found = found.await;
            (name, found)
        });
    }
    asked.join_all().await
}

async fn within(
    until: Instant,
    look_up: impl Future<Output = Result<Answer, LookupError>>,
) -> Result<Answer, LookupError> {
    timeout_at(until, look_up)
        .await
        .unwrap_or(Err(LookupError::TimedOut))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(addresses: &[&str]) -> Result<Found, LookupError> {
        Ok(Found {
            addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
            ttl: Some(Duration::from_secs(5)),
            exists: true,
        })
    }

    #[test]
    fn hostile_addresses_are_taken_out() {
        let hostile = [
            "127.0.0.1",
            "127.9.9.9",
            "0.0.0.0",
            "0.1.2.3",
            "224.0.0.1",
            "255.255.255.255",
            "169.254.169.254",
            "::1",
            "::",
            "ff02::1",
            "fe80::1",
        ];
        for text in hostile {
            let answer = combine(found(&["10.0.0.1", text]), found(&[])).unwrap();
            assert_eq!(answer.refused, [text.parse().unwrap()].into(), "{text}");
            assert_eq!(answer.addresses, ["10.0.0.1".parse().unwrap()].into());
            let error = combine(found(&[text]), found(&[])).unwrap_err();
            assert!(matches!(error, LookupError::Hostile(_)), "{text}: {error}");
        }
        for text in [
            "10.0.0.1",
            "192.0.2.1",
            "fd00::1",
            "2001:db8::1",
            "100.64.0.1",
        ] {
            assert!(!is_hostile(&text.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn a_family_that_fails_does_not_fail_the_other() {
        let answer = combine(found(&["10.0.0.1"]), Err(LookupError::TimedOut)).unwrap();
        assert_eq!(answer.missing, Some((Family::V6, LookupError::TimedOut)));
        // Without an address of the other it is not known whether there is one.
        let error = combine(found(&[]), Err(LookupError::TimedOut)).unwrap_err();
        assert_eq!(error, LookupError::TimedOut);
        let error = combine(found(&[]), found(&[])).unwrap_err();
        assert_eq!(error, LookupError::NoAddress);
        let error = combine(Ok(Found::default()), Ok(Found::default())).unwrap_err();
        assert_eq!(error, LookupError::NoSuchName);
    }

    #[test]
    fn addresses_beyond_the_limit_are_counted() {
        let many: Vec<String> = (0..=ADDRESSES_MAX + 1)
            .map(|n| format!("10.0.1.{n}"))
            .collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let answer = combine(found(&many), found(&[])).unwrap();
        assert_eq!((answer.addresses.len(), answer.surplus), (ADDRESSES_MAX, 2));
    }

    #[test]
    fn servers_have_a_port_unless_it_is_53() {
        for (text, expected) in [
            ("10.0.0.1", "10.0.0.1:53"),
            ("10.0.0.1:5353", "10.0.0.1:5353"),
            ("fd00::1", "[fd00::1]:53"),
            ("[fd00::1]:5353", "[fd00::1]:5353"),
        ] {
            assert_eq!(parse_server(text), Ok(expected.parse().unwrap()));
        }
        assert!(parse_server("dns.example.com").is_err());
    }
}
