//! Which target addresses have sessions: what they use stays a target.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// An address, and the name of the target that its sessions took it for.
pub(super) type Use = (SocketAddr, Arc<str>);

/// Counts the sessions on each address. Clones share the counts.
#[derive(Debug, Clone, Default)]
pub(super) struct InUse {
    counts: Arc<Mutex<HashMap<Use, usize>>>,
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
        let mut counts = self.counts();
        let count = counts.entry(Clone::clone(&key)).or_default();
        *count = count.saturating_add(1);
        drop(counts);
        Hold {
            in_use: self.clone(),
            key,
        }
    }

    /// All that have at least one session.
    pub(super) fn list(&self) -> BTreeSet<Use> {
        self.counts().keys().cloned().collect()
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<Use, usize>> {
        // Nothing in a critical section can leave the map half changed.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut counts = self.in_use.counts();
        if let Some(count) = counts.get_mut(&self.key) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                counts.remove(&self.key);
            }
        }
    }
}
