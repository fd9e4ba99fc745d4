//! Which target addresses have sessions: what they use stays a target.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// An address, and the name of the target that its sessions took it for.
pub(super) type Use = (SocketAddr, Arc<str>);

/// Counts the sessions on each address. Clones share the counts.
#[derive(Debug, Clone, Default)]
pub(super) struct InUse {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    counts: HashMap<Use, usize>,
    /// The addresses that are looked after, and whether a session began on them since.
    watched: HashMap<IpAddr, bool>,
}

/// One session's share; it ends when dropped.
#[derive(Debug)]
pub(super) struct Hold {
    in_use: InUse,
    key: Use,
}

impl InUse {
    /// Counts a session on `address` until the value is dropped.
    pub(super) fn hold(&self, address: SocketAddr, target: &str) -> Hold {
        let key = (address, Arc::from(target));
        let mut inner = self.lock();
        let count = inner.counts.entry(Clone::clone(&key)).or_default();
        *count = count.saturating_add(1);
        if let Some(was_used) = inner.watched.get_mut(&address.ip()) {
            *was_used = true;
        }
        drop(inner);
        Hold {
            in_use: self.clone(),
            key,
        }
    }

    /// All that have at least one session.
    pub(super) fn list(&self) -> BTreeSet<Use> {
        self.lock().counts.keys().cloned().collect()
    }

    /// The addresses that have a session, and those of the last call's `watched` that had one since,
    /// be it ever so short. The next call tells of these `watched`.
    pub(super) fn used(&self, watched: impl Iterator<Item = IpAddr>) -> BTreeSet<IpAddr> {
        let watched = watched.map(|address| (address, false)).collect();
        let mut inner = self.lock();
        let before = std::mem::replace(&mut inner.watched, watched);
        let were = before.into_iter().filter(|(_, was_used)| *was_used);
        let are = inner.counts.keys().map(|(address, _)| address.ip());
        were.map(|(address, _)| address).chain(are).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing in a critical section can leave the maps half changed.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut inner = self.in_use.lock();
        if let Some(count) = inner.counts.get_mut(&self.key) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                inner.counts.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_counts_as_long_as_it_lives_and_is_seen_after_it() {
        let in_use = InUse::default();
        let address: SocketAddr = "10.0.0.5:5432".parse().unwrap();
        let ip = address.ip();
        let hold = in_use.hold(address, "orders");
        let other = in_use.hold(address, "orders");
        assert_eq!(in_use.list(), [(address, "orders".into())].into());
        drop(hold);
        assert_eq!(in_use.used([ip].into_iter()), [ip].into());
        drop(other);
        assert!(in_use.list().is_empty());
        // No session began since.
        assert!(in_use.used([ip].into_iter()).is_empty());
        drop(in_use.hold(address, "orders"));
        drop(in_use.hold("10.0.0.6:1".parse().unwrap(), "orders"));
        assert_eq!(in_use.used([ip].into_iter()), [ip].into());
        assert!(in_use.used(std::iter::empty()).is_empty());
    }
}
