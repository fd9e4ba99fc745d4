//! The keys by which one connection cancels what another runs.
//!
//! A key counts at the address that its session dialled and nowhere else: two targets may well give
//! out the same one. Finding a session takes as long for a wrong secret as for the right one.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use interceptor_core::wire::postgres::startup::CancelKey;
use tokio::sync::mpsc;

/// The sessions' end of it, by where they dialled and the process id of their key.
#[derive(Default)]
pub(super) struct Keys {
    sessions: Mutex<HashMap<(SocketAddr, u32), Vec<Entry>>>,
}

struct Entry {
    key: CancelKey,
    session: mpsc::Sender<()>,
}

impl Keys {
    /// Makes a session's key known.
    pub(super) fn register(&self, target: SocketAddr, key: CancelKey, session: mpsc::Sender<()>) {
        let place = (target, key.process_id);
        let entry = Entry { key, session };
        self.lock().entry(place).or_default().push(entry);
    }

    /// Forgets a session's key; another session's that is the same stays.
    pub(super) fn forget(&self, target: SocketAddr, key: &CancelKey, session: &mpsc::Sender<()>) {
        let mut sessions = self.lock();
        let place = (target, key.process_id);
        if let Some(entries) = sessions.get_mut(&place) {
            entries.retain(|entry| !entry.session.same_channel(session));
            if entries.is_empty() {
                sessions.remove(&place);
            }
        }
    }

    /// The session of this key. An unknown key is no error: the server ignores it too, so that keys
    /// cannot be guessed.
    pub(super) fn find(&self, target: SocketAddr, key: &CancelKey) -> Option<mpsc::Sender<()>> {
        let sessions = self.lock();
        let entries = sessions.get(&(target, key.process_id))?;
        let mut found = None;
        for entry in entries {
            if entry.key.is(key) {
                found = Some(entry.session.clone());
            }
        }
        found
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(SocketAddr, u32), Vec<Entry>>> {
        // Nothing in a critical section can leave the map half changed.
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(process_id: u32, secret: &[u8]) -> CancelKey {
        CancelKey {
            process_id,
            secret: secret.to_vec(),
        }
    }

    fn target(last: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, last], 5432))
    }

    #[test]
    fn the_same_key_at_two_targets_is_two_keys() {
        let keys = Keys::default();
        let ((one, _one), (two, _two)) = (mpsc::channel(1), mpsc::channel(1));
        let same = key(7, &[1; 32]);
        keys.register(target(1), same.clone(), one.clone());
        keys.register(target(2), same.clone(), two.clone());
        let found = |last| keys.find(target(last), &same);
        assert!(found(1).is_some_and(|found| found.same_channel(&one)));
        assert!(found(2).is_some_and(|found| found.same_channel(&two)));
        assert!(found(3).is_none());
        keys.forget(target(1), &same, &one);
        assert!(found(1).is_none() && found(2).is_some());
    }

    #[test]
    fn a_secret_is_right_as_a_whole() {
        let keys = Keys::default();
        let (session, _controls) = mpsc::channel(1);
        keys.register(target(1), key(7, &[9; 32]), session);
        for wrong in [
            key(7, &[9; 31]),
            key(7, &[9; 33]),
            key(7, &[9; 4]),
            key(7, &[]),
            key(8, &[9; 32]),
            key(7, &[[9; 31].as_slice(), &[8]].concat()),
        ] {
            assert!(keys.find(target(1), &wrong).is_none());
        }
        assert!(keys.find(target(1), &key(7, &[9; 32])).is_some());
    }

    #[test]
    fn a_key_that_was_given_out_again_stays_with_who_is_left() {
        let keys = Keys::default();
        let ((old, _old), (new, _new)) = (mpsc::channel(1), mpsc::channel(1));
        let same = key(7, &[1; 4]);
        keys.register(target(1), same.clone(), old.clone());
        keys.register(target(1), same.clone(), new.clone());
        keys.forget(target(1), &same, &old);
        let found = keys.find(target(1), &same);
        assert!(found.is_some_and(|found| found.same_channel(&new)));
    }
}
