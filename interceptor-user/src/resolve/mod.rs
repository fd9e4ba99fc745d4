//! Names of targets: which addresses a host name stands for, now and a while ago.
//!
//! It owns asking ([`Resolver`]) and remembering ([`Names`], and [`Memory`] over the end of the process). It must not know the kernel, sessions or
//! what a target is: it is told which addresses are in use, and tells which ones count.

mod lookup;
mod memory;
mod names;

use std::time::Duration;

pub use lookup::{Answer, LookupError, Resolver, ResolverError, parse_server, resolve_all};
pub use memory::{Memory, Remembered};
pub use names::{AddressRow, NameRow, Names};

/// An answer is asked for anew no sooner than this, whatever its TTL.
pub const REFRESH_MIN: Duration = Duration::from_secs(1);
/// And no later than this.
pub const REFRESH_MAX: Duration = Duration::from_secs(60);
/// The longest TTL for which an address that left the answer stays.
pub const TTL_KEPT_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// The longest grace.
pub const GRACE_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// The most addresses of one name in an answer.
pub const ADDRESSES_MAX: usize = 64;
/// The most addresses of one name, with those that have left the answer.
pub const ADDRESSES_HELD_MAX: usize = 256;
/// Names that are looked up at the same time.
pub const LOOKUPS_MAX: usize = 32;
/// How long one server may take for one question.
const SERVER_WAIT_MAX: Duration = Duration::from_secs(2);
/// How long one look-up may take, over all servers.
const LOOKUP_WAIT_MAX: Duration = Duration::from_secs(10);
/// How long all look-ups of a start or a reload may take together.
const RESOLVE_WAIT_MAX: Duration = Duration::from_secs(30);

/// The value of `--dns-grace`.
pub fn parse_grace(text: &str) -> Result<Duration, String> {
    let grace = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if grace > GRACE_MAX {
        return Err("it is 24h at most".to_owned());
    }
    Ok(grace)
}
