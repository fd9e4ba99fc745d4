//! Who is there: the open sessions, what can be said to them, and the keys that cancel.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use interceptor_core::command::Subject;
use interceptor_core::wire::postgres::startup::CancelKey;
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use super::cancels::Keys;
use super::wait::poll_some;
use crate::admin::{Killing, SessionRow};

/// What can be said to a session.
pub(super) enum Control {
    /// Another connection brought its cancel key.
    Cancel,
    /// It ends now, on both sides.
    Kill(Killing),
}

/// Cancels that wait for one session; one that finds no room is one of many.
const CANCELS_MAX: usize = 8;

/// All open sessions. Clones share them.
#[derive(Clone, Default)]
pub(super) struct Sessions {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    members: Mutex<HashMap<Uuid, Member>>,
    keys: Keys,
}

struct Member {
    /// As it was when the session began, or since the client said who it is.
    row: SessionRow,
    shown: Arc<Shown>,
    /// Taken by the first who kills it.
    kill: Option<oneshot::Sender<Killing>>,
}

/// What changes with each command: nobody is locked out for that.
#[derive(Default)]
struct Shown {
    /// Index into [`STATES`].
    state: AtomicU8,
    commands: AtomicU64,
}

/// What a session can be doing: the words of [`Session::state`].
///
/// [`Session::state`]: interceptor_core::session::postgres::Session::state
const STATES: [&str; 6] = [
    "starting",
    "authenticating",
    "idle",
    "active",
    "held",
    "closed",
];

/// A session's place among them; gone when dropped.
pub(super) struct Membership {
    sessions: Sessions,
    id: Uuid,
    shown: Arc<Shown>,
    /// The list has user and database.
    is_named: bool,
    keys: Vec<(SocketAddr, CancelKey)>,
    sender: mpsc::Sender<()>,
}

/// The session's end of what is said to it. A kill has a place of its own, which no number of
/// cancels can fill.
pub(super) struct Controls {
    cancels: mpsc::Receiver<()>,
    kill: Option<oneshot::Receiver<Killing>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing in a critical section can leave a map half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sessions {
    /// Adds a session; the controls get what is said to it.
    pub(super) fn enter(&self, id: Uuid, row: SessionRow) -> (Membership, Controls) {
        let (sender, cancels) = mpsc::channel(CANCELS_MAX);
        let (kill, killed) = oneshot::channel();
        let kill = Some(kill);
        let shown = Arc::new(Shown::default());
        let member = Member {
            row,
            shown: Arc::clone(&shown),
            kill,
        };
        lock(&self.inner.members).insert(id, member);
        let membership = Membership {
            sessions: self.clone(),
            id,
            shown,
            is_named: false,
            keys: Vec::new(),
            sender,
        };
        let kill = Some(killed);
        (membership, Controls { cancels, kill })
    }

    /// The open sessions, oldest first.
    pub(super) fn rows(&self) -> Vec<SessionRow> {
        let members = lock(&self.inner.members);
        let mut rows: Vec<SessionRow> = members.values().map(Member::row).collect();
        drop(members);
        rows.sort_by(|a, b| (a.since_unix_ns, &a.id).cmp(&(b.since_unix_ns, &b.id)));
        rows
    }

    /// How many sessions are open.
    pub(super) fn count(&self) -> usize {
        lock(&self.inner.members).len()
    }

    /// Tells the session of this key on this target to cancel. An unknown key is no error: the
    /// server ignores it too, so that keys cannot be guessed.
    pub(super) fn cancel(&self, target: SocketAddr, key: CancelKey) {
        if let Some(sender) = self.inner.keys.find(target, &key)
            && sender.try_send(()).is_err()
        {
            tracing::debug!("a cancel request found its session busy with others");
        }
    }

    /// Tells a session to end at once. False if it is gone, or told already.
    pub(super) fn kill(&self, id: Uuid, killing: Killing) -> bool {
        let kill = lock(&self.inner.members)
            .get_mut(&id)
            .and_then(|member| member.kill.take());
        kill.is_some_and(|kill| kill.send(killing).is_ok())
    }
}

impl Membership {
    /// Makes a cancel key known.
    pub(super) fn register(&mut self, target: SocketAddr, key: CancelKey) {
        let keys = &self.sessions.inner.keys;
        keys.register(target, key.clone(), self.sender.clone());
        self.keys.push((target, key));
    }

    /// Updates what the list shows of what it is doing.
    pub(super) fn show(&self, state: &'static str, commands: u64) {
        let index = STATES
            .iter()
            .position(|it| *it == state)
            .unwrap_or_default();
        let index = u8::try_from(index).unwrap_or_default();
        self.shown.state.store(index, Ordering::Relaxed);
        self.shown.commands.store(commands, Ordering::Relaxed);
    }

    /// Adds to the list who the client says it is, once that is known.
    pub(super) fn name(&mut self, subject: &Subject) {
        if self.is_named || subject.user.is_empty() {
            return;
        }
        self.is_named = true;
        if let Some(member) = lock(&self.sessions.inner.members).get_mut(&self.id) {
            member.row.user.clone_from(&subject.user);
            member.row.database.clone_from(&subject.database);
        }
    }
}

impl Member {
    fn row(&self) -> SessionRow {
        let state = usize::from(self.shown.state.load(Ordering::Relaxed));
        SessionRow {
            state: STATES.get(state).copied().unwrap_or_default().to_owned(),
            commands: self.shown.commands.load(Ordering::Relaxed),
            ..self.row.clone()
        }
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        lock(&self.sessions.inner.members).remove(&self.id);
        for (target, key) in &self.keys {
            self.sessions.inner.keys.forget(*target, key, &self.sender);
        }
    }
}

impl Controls {
    /// The next thing said to the session; waits for ever if nothing will be. Cancel-safe: both
    /// channels keep what was not taken.
    pub(super) async fn next(&mut self) -> Control {
        std::future::poll_fn(|context| self.poll_next(context)).await
    }

    /// The same, to be polled.
    pub(super) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Control> {
        if let Poll::Ready(killing) = poll_some(&mut self.kill, context) {
            self.kill = None;
            // The sender goes with the membership, which its session holds.
            if let Ok(killing) = killing {
                return Poll::Ready(Control::Kill(killing));
            }
        }
        match self.cancels.poll_recv(context) {
            Poll::Ready(Some(())) => Poll::Ready(Control::Cancel),
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: Uuid) -> SessionRow {
        SessionRow {
            id: id.to_string(),
            client: "192.0.2.1:5000".to_owned(),
            target: "orders".to_owned(),
            user: String::new(),
            database: String::new(),
            process: String::new(),
            since_unix_ns: 1,
            state: "starting".to_owned(),
            commands: 0,
        }
    }

    fn killing() -> Killing {
        Killing {
            by: "root (uid 0)".to_owned(),
            reason: String::new(),
        }
    }

    #[tokio::test]
    async fn a_kill_finds_room_among_any_number_of_cancels() {
        let sessions = Sessions::default();
        let id = Uuid::now_v7();
        let (mut membership, mut controls) = sessions.enter(id, row(id));
        let target = SocketAddr::from(([192, 0, 2, 2], 5432));
        let key = CancelKey {
            process_id: 1,
            secret: vec![1, 2, 3, 4],
        };
        membership.register(target, key.clone());
        for _ in 0..10 * CANCELS_MAX {
            sessions.cancel(target, key.clone());
        }
        assert!(sessions.kill(id, killing()));
        assert!(
            matches!(controls.next().await, Control::Kill(_)),
            "a kill comes first"
        );
        assert!(!sessions.kill(id, killing()), "once is enough");
        for _ in 0..CANCELS_MAX {
            assert!(matches!(controls.next().await, Control::Cancel));
        }
    }

    #[test]
    fn the_list_shows_who_does_what() {
        let sessions = Sessions::default();
        let id = Uuid::now_v7();
        let (mut membership, _controls) = sessions.enter(id, row(id));
        let mut subject = Subject {
            client: SocketAddr::from(([192, 0, 2, 1], 5000)),
            process: None,
            user: String::new(),
            database: String::new(),
        };
        for state in STATES {
            membership.show(state, 7);
            membership.name(&subject);
            let rows = sessions.rows();
            assert_eq!((rows[0].state.as_str(), rows[0].commands), (state, 7));
            assert_eq!(rows[0].user, "");
        }
        subject.user = "ada".to_owned();
        membership.name(&subject);
        assert_eq!(sessions.rows()[0].user, "ada");
    }

    #[test]
    fn who_is_gone_cannot_be_killed() {
        let sessions = Sessions::default();
        let id = Uuid::now_v7();
        drop(sessions.enter(id, row(id)));
        assert!(!sessions.kill(id, killing()));
        assert_eq!(sessions.count(), 0);
    }
}
