//! What waits to be written, and when it is.
//!
//! It owns the limits of the queue, and the rule by which commits are gathered: the fewer there are,
//! the less each event costs, but nobody waits for others who may not come. It must not know of
//! threads, clocks or the disk.

use std::time::{Duration, Instant};

use super::events::Events;
use super::recorder::{AuditError, QUEUE_BYTES_MAX, QUEUE_EVENTS_MAX};

/// How long events that nobody waits for let others join their commit: else the outcome of each
/// command would have a commit of its own, and the next command's intent would wait for it.
pub(super) const NOTED_LINGER: Duration = Duration::from_millis(10);

/// While several sessions record, a commit begins no sooner after the one before it than this, unless
/// as many sessions wait as did then. A session that is alone is never made to wait.
pub(super) const COMMIT_INTERVAL: Duration = Duration::from_micros(200);

/// So many bytes are written without waiting for more.
const BYTES_SOON: usize = 1024 * 1024;

/// Who has the log.
#[derive(Default, PartialEq, Eq)]
pub(super) enum Turn {
    /// The writer.
    #[default]
    Writing,
    /// The writer, who is asked to close it.
    Asked,
    /// Nobody here: events wait.
    Suspended,
}

/// What the writer is at.
#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Writer {
    /// It will look here by itself.
    #[default]
    Busy,
    /// It waits for anything.
    Asleep,
    /// It looks soon, which is early enough for what nobody waits for.
    Dozing,
    /// It waits for so many sessions.
    Gathering { sessions: usize },
}

/// How an event is queued.
pub(super) enum Entry<'a> {
    /// Somebody waits for it.
    Awaited {
        /// The session, if it is one.
        session: &'a [u8],
    },
    /// Nobody does.
    Noted,
}

/// Events that wait to be written.
#[derive(Default)]
pub(super) struct Queue {
    events: Events,
    /// Events and bytes that the writer took and has not written yet.
    taken: (usize, usize),
    last_ticket: u64,
    awaited: usize,
    /// How many sessions wait; one that comes back after another counts again.
    sessions: usize,
    last_session: Option<u64>,
    /// When the oldest event came that nobody waits for.
    noted_since: Option<Instant>,
    /// Why it takes no more; sticky.
    pub(super) refusal: Option<AuditError>,
    pub(super) turn: Turn,
    writer: Writer,
    /// The last commit: when it began, and how many sessions waited for it.
    committed: Option<(Instant, usize)>,
}

/// What the writer does next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Take what is there and write it.
    Write,
    /// Look again when woken, or after this time.
    Wait(Option<Duration>),
    /// Close the log and wait for another.
    Suspend,
    /// The queue is closed and empty.
    Close,
}

impl Queue {
    /// Queues an event; its ticket.
    ///
    /// # Errors
    /// If it takes none, or no more.
    pub(super) fn push(&mut self, event: &[u8], entry: Entry<'_>) -> Result<u64, AuditError> {
        if let Some(refusal) = &self.refusal {
            return Err(refusal.clone());
        }
        let events = self.events.len() + self.taken.0;
        let bytes = self.events.bytes() + self.taken.1;
        if events >= QUEUE_EVENTS_MAX || bytes.saturating_add(event.len()) > QUEUE_BYTES_MAX {
            return Err(AuditError::Backlog { events, bytes });
        }
        self.events.push(event);
        self.last_ticket += 1;
        if let Entry::Awaited { session } = entry {
            // The random end of a UUID.
            let session = session.last_chunk().map(|end| u64::from_le_bytes(*end));
            self.sessions += usize::from(self.awaited == 0 || session != self.last_session);
            self.last_session = session;
            self.awaited += 1;
        }
        Ok(self.last_ticket)
    }

    /// True if the writer has to be woken for the event that was queued last.
    pub(super) fn wakes_writer(&mut self) -> bool {
        let is_wanted = match self.writer {
            Writer::Busy => false,
            Writer::Asleep => true,
            Writer::Dozing => self.awaited > 0 || self.events.bytes() >= BYTES_SOON,
            Writer::Gathering { sessions } => {
                self.sessions >= sessions || self.events.bytes() >= BYTES_SOON
            }
        };
        if is_wanted {
            self.writer = Writer::Busy;
        }
        is_wanted
    }

    /// What the writer does at this moment.
    pub(super) fn step(&mut self, now: Instant) -> Step {
        self.writer = Writer::Busy;
        if self.turn == Turn::Asked {
            return Step::Suspend;
        }
        let is_closed = self.refusal.is_some();
        if self.events.is_empty() {
            self.noted_since = None;
            if is_closed {
                return Step::Close;
            }
            // For some time after a commit it wakes by itself: the outcome of a command comes now,
            // and then it is not woken for that.
            let left = self.committed.and_then(|(begun, _)| {
                NOTED_LINGER.checked_sub(now.saturating_duration_since(begun))
            });
            self.writer = match left {
                Some(_) => Writer::Dozing,
                None => Writer::Asleep,
            };
            return Step::Wait(left);
        }
        if is_closed || self.events.bytes() >= BYTES_SOON {
            return Step::Write;
        }
        let wait = match self.awaited {
            0 => {
                let since = *self.noted_since.get_or_insert(now);
                self.writer = Writer::Dozing;
                NOTED_LINGER.checked_sub(now.saturating_duration_since(since))
            }
            _ => self.gathering(now),
        };
        match wait {
            None | Some(Duration::ZERO) => {
                self.writer = Writer::Busy;
                Step::Write
            }
            wait => Step::Wait(wait),
        }
    }

    /// How long to wait for other sessions.
    fn gathering(&mut self, now: Instant) -> Option<Duration> {
        let (begun, sessions) = self.committed?;
        if self.sessions >= sessions {
            return None;
        }
        self.writer = Writer::Gathering { sessions };
        COMMIT_INTERVAL.checked_sub(now.saturating_duration_since(begun))
    }

    /// Takes all that waits, and leaves `empty` in its place. The last ticket of it.
    pub(super) fn take(&mut self, empty: Events, now: Instant) -> (Events, u64) {
        let events = std::mem::replace(&mut self.events, empty);
        self.taken = (events.len(), events.bytes());
        // A commit that nobody waited for says nothing of the sessions.
        if self.awaited > 0 {
            self.committed = Some((now, self.sessions));
        }
        (self.awaited, self.sessions, self.noted_since) = (0, 0, None);
        (events, self.last_ticket)
    }

    /// What was taken is written.
    pub(super) fn written(&mut self) {
        self.taken = (0, 0);
    }

    /// The ticket of the next event that was not taken yet.
    pub(super) fn next_ticket(&self) -> u64 {
        self.last_ticket + 1 - self.events.len() as u64
    }

    /// Forgets what waits.
    pub(super) fn clear(&mut self) {
        self.events = Events::default();
        self.taken = (0, 0);
        (self.awaited, self.sessions) = (0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_micros(1);

    fn awaited(queue: &mut Queue, session: u64) -> bool {
        let id = u128::from(session).to_be_bytes();
        queue
            .push(b"intent", Entry::Awaited { session: &id })
            .unwrap();
        queue.wakes_writer()
    }

    fn noted(queue: &mut Queue) -> bool {
        queue.push(b"outcome", Entry::Noted).unwrap();
        queue.wakes_writer()
    }

    fn commit(queue: &mut Queue, now: Instant) {
        assert_eq!(queue.step(now), Step::Write);
        queue.take(Events::default(), now);
        queue.written();
    }

    #[test]
    fn a_session_that_is_alone_never_waits_for_others() {
        let mut queue = Queue::default();
        let mut now = Instant::now();
        assert_eq!(queue.step(now), Step::Wait(None));
        for _ in 0..5 {
            // Several of its own in a commit are still one session.
            assert!(awaited(&mut queue, 1));
            assert!(!awaited(&mut queue, 1));
            now += SOON;
            commit(&mut queue, now);
            assert_eq!(queue.step(now), Step::Wait(Some(NOTED_LINGER)));
            // Its outcome wakes nobody.
            assert!(!noted(&mut queue));
        }
    }

    #[test]
    fn sessions_that_record_at_the_same_time_share_commits() {
        let mut queue = Queue::default();
        let mut now = Instant::now();
        queue.step(now);
        for session in 0..8 {
            awaited(&mut queue, session);
        }
        commit(&mut queue, now);
        queue.step(now);
        assert!(awaited(&mut queue, 0));
        now += Duration::from_micros(50);
        assert_eq!(
            queue.step(now),
            Step::Wait(Some(Duration::from_micros(150)))
        );
        // The last of them wakes the writer.
        let woken: Vec<bool> = (1..8).map(|session| awaited(&mut queue, session)).collect();
        assert_eq!(woken, [false, false, false, false, false, false, true]);
        commit(&mut queue, now);
        // Who does not come is waited for once, and not for long.
        awaited(&mut queue, 0);
        now += COMMIT_INTERVAL;
        commit(&mut queue, now);
        awaited(&mut queue, 0);
        commit(&mut queue, now);
    }

    #[test]
    fn what_nobody_waits_for_is_written_soon() {
        let mut queue = Queue::default();
        let now = Instant::now();
        queue.step(now);
        assert!(noted(&mut queue));
        assert_eq!(queue.step(now), Step::Wait(Some(NOTED_LINGER)));
        assert!(!noted(&mut queue));
        let then = now + Duration::from_millis(4);
        assert_eq!(queue.step(then), Step::Wait(Some(Duration::from_millis(6))));
        assert_eq!(queue.step(now + NOTED_LINGER), Step::Write);
        // A session does not wait for that.
        assert!(!awaited(&mut queue, 1));
        assert_eq!(queue.step(then), Step::Write);
    }

    #[test]
    fn a_closed_queue_is_written_to_its_end() {
        let mut queue = Queue::default();
        let now = Instant::now();
        noted(&mut queue);
        queue.refusal = Some(AuditError::Closed);
        assert_eq!(queue.push(b"late", Entry::Noted), Err(AuditError::Closed));
        commit(&mut queue, now);
        assert_eq!(queue.step(now), Step::Close);
    }
}
