//! Who is there: the open sessions, what can be said to them, and the keys that cancel.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use interceptor_core::wire::postgres::startup::CancelKey;
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::admin::SessionRow;

/// What can be said to a session.
pub(super) enum Control {
    /// Another connection brought its cancel key.
    Cancel,
}

/// Messages that wait for one session; a cancel that finds no room is one of many.
const CONTROL_MAX: usize = 8;

/// All open sessions. Clones share them.
#[derive(Clone, Default)]
pub(super) struct Sessions {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    rows: Mutex<HashMap<Uuid, SessionRow>>,
    keys: Mutex<HashMap<(SocketAddr, CancelKey), mpsc::Sender<Control>>>,
}

/// A session's place among them; gone when dropped.
pub(super) struct Membership {
    sessions: Sessions,
    id: Uuid,
    keys: Vec<(SocketAddr, CancelKey)>,
    sender: mpsc::Sender<Control>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing in a critical section can leave a map half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sessions {
    /// Adds a session; the receiver gets what is said to it.
    pub(super) fn enter(&self, id: Uuid, row: SessionRow) -> (Membership, mpsc::Receiver<Control>) {
        let (sender, receiver) = mpsc::channel(CONTROL_MAX);
        lock(&self.inner.rows).insert(id, row);
        (
            Membership {
                sessions: self.clone(),
                id,
                keys: Vec::new(),
                sender,
            },
            receiver,
        )
    }

    /// The open sessions, oldest first.
    pub(super) fn rows(&self) -> Vec<SessionRow> {
        let mut rows: Vec<SessionRow> = lock(&self.inner.rows).values().cloned().collect();
        rows.sort_by(|a, b| (a.since_unix_ns, &a.id).cmp(&(b.since_unix_ns, &b.id)));
        rows
    }

    /// How many sessions are open.
    pub(super) fn count(&self) -> usize {
        lock(&self.inner.rows).len()
    }

    /// Tells the session of this key on this target to cancel. An unknown key is no error: the
    /// server ignores it too, so that keys cannot be guessed.
    pub(super) fn cancel(&self, target: SocketAddr, key: CancelKey) {
        let sender = lock(&self.inner.keys).get(&(target, key)).cloned();
        if let Some(sender) = sender
            && sender.try_send(Control::Cancel).is_err()
        {
            tracing::debug!("a cancel request found its session busy with others");
        }
    }
}

impl Membership {
    /// Makes a cancel key known.
    pub(super) fn register(&mut self, target: SocketAddr, key: CancelKey) {
        lock(&self.sessions.inner.keys).insert((target, key.clone()), self.sender.clone());
        self.keys.push((target, key));
    }

    /// Updates what the list shows.
    pub(super) fn update(&self, change: impl FnOnce(&mut SessionRow)) {
        if let Some(row) = lock(&self.sessions.inner.rows).get_mut(&self.id) {
            change(row);
        }
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        lock(&self.sessions.inner.rows).remove(&self.id);
        let mut keys = lock(&self.sessions.inner.keys);
        for key in &self.keys {
            keys.remove(key);
        }
    }
}
