//! The one writer of the log, and the handles through which the rest of the gateway records.
//!
//! It owns the queue, the group commit and the rule that a log which failed once takes nothing
//! more. It must not know how records are stored or what events mean.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use interceptor_core::audit::chain::{EVENT_BYTES_MAX, Head};
use interceptor_core::audit::event::Event;
use prost::Message as _;
use tokio::sync::{oneshot, watch};

use super::store::{BATCH_EVENTS_MAX, Reader, Store};

/// The most events that wait to be written.
pub const QUEUE_EVENTS_MAX: usize = 65_536;

/// The most encoded bytes that wait to be written.
pub const QUEUE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// How long an event that nobody waits for lets others join its commit.
const LINGER_MAX: Duration = Duration::from_millis(10);

/// A commit takes no further event once it holds this many bytes.
const BATCH_BYTES_MAX: usize = 1024 * 1024;

/// Why an event was not recorded. Whatever it was the record of must not happen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuditError {
    /// The disk is slower than the events come.
    #[error(
        "the audit log is {events} events ({bytes} bytes) behind, its limit; the disk is too slow \
         for this load"
    )]
    Backlog {
        /// Events that wait.
        events: usize,
        /// Their bytes.
        bytes: usize,
    },
    /// The event alone is too large.
    #[error(
        "an audit event of {bytes} bytes is above the limit of {EVENT_BYTES_MAX}; shorten its text"
    )]
    TooLarge {
        /// Its size, encoded.
        bytes: usize,
    },
    /// A write failed, now or earlier: nothing is recorded until the gateway is started again.
    #[error("the audit log cannot be written: {cause}; then start the gateway again")]
    Failed {
        /// What failed first.
        cause: Arc<str>,
    },
    /// The recorder was closed.
    #[error("the audit log is closed: the gateway is stopping")]
    Closed,
}

/// Records events. Cheap to clone; the writer ends when [`Recorder::close`] was called or the last
/// clone is gone.
#[derive(Clone)]
pub struct Recorder {
    handle: Arc<Handle>,
}

/// What all clones share; closes the queue when the last of them goes.
struct Handle {
    shared: Arc<Shared>,
    reader: Reader,
    durable: watch::Receiver<Head>,
}

struct Shared {
    queue: Mutex<Queue>,
    wakes_writer: Condvar,
    request_number: AtomicU64,
}

#[derive(Default)]
struct Queue {
    entries: VecDeque<Entry>,
    bytes: usize,
    /// Entries whose writer waits for their answer.
    awaited: usize,
    /// Why it takes no more; sticky.
    refusal: Option<AuditError>,
}

struct Entry {
    event: Vec<u8>,
    /// `None` for events that nobody waits for.
    acknowledge: Option<oneshot::Sender<Result<u64, AuditError>>>,
}

/// An event on its way to the disk: resolves to its sequence number when it is durable. Dropping it
/// does not take the event back.
#[must_use = "the event is durable only when this has resolved"]
pub struct Pending(State);

enum State {
    Refused(AuditError),
    Waiting(oneshot::Receiver<Result<u64, AuditError>>),
}

impl Future for Pending {
    type Output = Result<u64, AuditError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.get_mut().0 {
            State::Refused(error) => Poll::Ready(Err(error.clone())),
            State::Waiting(receiver) => Pin::new(receiver).poll(context).map(|answer| {
                // The writer acknowledges or refuses everything; only its panic drops a sender.
                answer.unwrap_or_else(|_| {
                    Err(AuditError::Failed {
                        cause: WRITER_DIED.into(),
                    })
                })
            }),
        }
    }
}

const WRITER_DIED: &str = "its writer ended unexpectedly; see the gateway's log";

impl Recorder {
    /// Starts the writer thread on an open log.
    ///
    /// # Errors
    /// If the system refuses a thread.
    pub fn start(store: Store) -> std::io::Result<(Self, JoinHandle<()>)> {
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            wakes_writer: Condvar::new(),
            request_number: AtomicU64::new(store.request_number()),
        });
        let (publish, durable) = watch::channel(store.head());
        let reader = store.reader();
        let writer_shared = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("audit-writer".to_owned())
            .spawn(move || write_until_closed(store, &writer_shared, &publish))?;
        Ok((
            Self {
                handle: Arc::new(Handle {
                    shared,
                    reader,
                    durable,
                }),
            },
            thread,
        ))
    }

    /// Queues an event. It is queued when this returns, in order with all others; the result
    /// resolves when it is durable, or with the reason why it will never be.
    pub fn append(&self, event: Event) -> Pending {
        let (acknowledge, receiver) = oneshot::channel();
        match self.enqueue(&event, Some(acknowledge)) {
            Ok(()) => Pending(State::Waiting(receiver)),
            Err(error) => Pending(State::Refused(error)),
        }
    }

    /// Queues an event that nothing waits for, in order with [`Recorder::append`].
    ///
    /// # Errors
    /// If it cannot be queued. A later failure to write it shows in every later call.
    pub fn note(&self, event: Event) -> Result<(), AuditError> {
        self.enqueue(&event, None)
    }

    /// True once nothing can be recorded any more.
    #[must_use]
    pub fn is_failed(&self) -> bool {
        matches!(
            self.handle.shared.lock().refusal,
            Some(AuditError::Failed { .. })
        )
    }

    /// The next number for a request that waits for a person: small, rising, and never one that a
    /// recorded event holds, also after a restart. Record the hold before you show its number.
    #[must_use]
    pub fn next_request_number(&self) -> u64 {
        self.handle
            .shared
            .request_number
            .fetch_add(1, Ordering::Relaxed)
            .saturating_add(1)
    }

    /// The head of the durable log, as it moves on. With [`Recorder::reader`] this is a live stream
    /// in which a slow follower loses nothing.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Head> {
        self.handle.durable.clone()
    }

    /// Reads the log. Records above the head that [`Recorder::subscribe`] shows are not durable yet.
    #[must_use]
    pub fn reader(&self) -> Reader {
        self.handle.reader.clone()
    }

    /// Takes no more events; the writer writes what is queued and ends. Join its thread after this.
    pub fn close(&self) {
        self.handle.shared.refuse(AuditError::Closed);
    }

    fn enqueue(
        &self,
        event: &Event,
        acknowledge: Option<oneshot::Sender<Result<u64, AuditError>>>,
    ) -> Result<(), AuditError> {
        let event = event.encode_to_vec();
        if event.len() > EVENT_BYTES_MAX {
            return Err(AuditError::TooLarge { bytes: event.len() });
        }
        let shared = &self.handle.shared;
        let mut queue = shared.lock();
        if let Some(refusal) = &queue.refusal {
            return Err(refusal.clone());
        }
        let bytes = queue.bytes.saturating_add(event.len());
        if queue.entries.len() >= QUEUE_EVENTS_MAX || bytes > QUEUE_BYTES_MAX {
            return Err(AuditError::Backlog {
                events: queue.entries.len(),
                bytes: queue.bytes,
            });
        }
        queue.bytes = bytes;
        let awaited = acknowledge.is_some();
        queue.awaited += usize::from(awaited);
        queue.entries.push_back(Entry { event, acknowledge });
        let count = queue.entries.len();
        drop(queue);
        // Otherwise the writer is awake, or waits for one that is awaited.
        if awaited || count == 1 || count == BATCH_EVENTS_MAX {
            shared.wakes_writer.notify_one();
        }
        Ok(())
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.refuse(AuditError::Closed);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Nothing in a critical section can leave the queue half changed.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Refuses all later events; the first reason stays.
    fn refuse(&self, reason: AuditError) {
        self.lock().refusal.get_or_insert(reason);
        self.wakes_writer.notify_one();
    }

    /// Refuses all later events and those that wait.
    fn fail(&self, error: &AuditError) {
        let mut queue = self.lock();
        // A failure after `close` outweighs it: what was queued then is lost.
        queue.refusal = Some(error.clone());
        (queue.bytes, queue.awaited) = (0, 0);
        let entries = std::mem::take(&mut queue.entries);
        drop(queue);
        acknowledge(entries, |_| Err(error.clone()));
    }

    /// Waits for events and takes what is there, within the limits of a commit. `None` once the
    /// queue is closed and empty.
    ///
    /// An event that nobody waits for lets others join its commit for [`LINGER_MAX`]: else the
    /// outcome of each command would have a commit of its own, and the next command's intent
    /// would wait for it.
    fn next_batch(&self) -> Option<Vec<Entry>> {
        let mut queue = self.lock();
        let mut lingers_until = None;
        loop {
            let closed = queue.refusal.is_some();
            if queue.entries.is_empty() {
                if closed {
                    return None;
                }
                queue = self
                    .wakes_writer
                    .wait(queue)
                    .unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            if closed || queue.awaited > 0 || queue.entries.len() >= BATCH_EVENTS_MAX {
                break;
            }
            let now = Instant::now();
            let until = *lingers_until.get_or_insert(now + LINGER_MAX);
            if now >= until {
                break;
            }
            (queue, _) = self
                .wakes_writer
                .wait_timeout(queue, until - now)
                .unwrap_or_else(PoisonError::into_inner);
        }
        let mut batch = Vec::new();
        let mut bytes = 0_usize;
        while batch.len() < BATCH_EVENTS_MAX && bytes < BATCH_BYTES_MAX {
            let Some(entry) = queue.entries.pop_front() else {
                break;
            };
            bytes = bytes.saturating_add(entry.event.len());
            queue.awaited -= usize::from(entry.acknowledge.is_some());
            batch.push(entry);
        }
        queue.bytes = queue.bytes.saturating_sub(bytes);
        Some(batch)
    }
}

/// The writer thread: everything that waits goes to the disk in one commit, and what comes
/// meanwhile in the next. A lone event waits for nothing but its own flush.
fn write_until_closed(mut store: Store, shared: &Shared, publish: &watch::Sender<Head>) {
    // Also when sled panics, no later event may be taken.
    let _guard = FailOnPanic(shared);
    while let Some(mut batch) = shared.next_batch() {
        let events = batch
            .iter_mut()
            .map(|entry| std::mem::take(&mut entry.event))
            .collect();
        let before = store.head().sequence;
        match store.append(events, shared.request_number.load(Ordering::Relaxed)) {
            Ok(head) => {
                publish.send_replace(head);
                acknowledge(batch, |index| Ok(before.saturating_add(index)));
            }
            Err(error) => {
                tracing::error!(%error, "the audit log failed; commands are refused from now on");
                let error = AuditError::Failed {
                    cause: error.to_string().into(),
                };
                shared.fail(&error);
                acknowledge(batch, |_| Err(error.clone()));
                return;
            }
        }
    }
}

struct FailOnPanic<'a>(&'a Shared);

impl Drop for FailOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail(&AuditError::Failed {
                cause: WRITER_DIED.into(),
            });
        }
    }
}

/// Answers everyone who waits. `answer` is given each entry's place in the batch, from 1.
fn acknowledge(
    batch: impl IntoIterator<Item = Entry>,
    answer: impl Fn(u64) -> Result<u64, AuditError>,
) {
    for (index, entry) in (1..).zip(batch) {
        if let Some(waiting) = entry.acknowledge {
            // Who gave up waiting needs no answer.
            let _ = waiting.send(answer(index));
        }
    }
}

#[cfg(test)]
mod tests {
    use interceptor_core::audit::event::{GatewayNote, Kind};

    use super::*;

    fn event(detail: &str) -> Event {
        let note = GatewayNote {
            detail: detail.to_owned(),
        };
        Event {
            time_unix_ns: 1,
            session: Vec::new(),
            kind: Some(Kind::GatewayStarted(note)),
        }
    }

    /// A recorder whose writer takes nothing: what is queued stays queued.
    fn recorder_without_writer(directory: &std::path::Path) -> Recorder {
        let store = Store::open(directory).unwrap();
        let (_, durable) = watch::channel(store.head());
        let shared = Shared {
            queue: Mutex::default(),
            wakes_writer: Condvar::new(),
            request_number: AtomicU64::new(0),
        };
        let handle = Handle {
            shared: Arc::new(shared),
            reader: store.reader(),
            durable,
        };
        Recorder {
            handle: Arc::new(handle),
        }
    }

    #[tokio::test]
    async fn events_are_numbered_in_the_order_they_were_queued() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let reader = store.reader();
        let (recorder, writer) = Recorder::start(store).unwrap();
        let first = recorder.append(event("first"));
        recorder.note(event("second")).unwrap();
        let third = recorder.append(event("third"));
        assert_eq!(third.await, Ok(3));
        assert_eq!(first.await, Ok(1));
        assert_eq!(recorder.subscribe().borrow().sequence, 3);
        let details: Vec<String> = reader
            .records_from(1)
            .map(|stored| {
                let stored = stored.unwrap();
                let record = interceptor_core::audit::chain::Record::decode(&stored.bytes).unwrap();
                record.event().unwrap().line()
            })
            .collect();
        assert_eq!(details, ["first", "second", "third"]);
        drop(recorder);
        writer.join().unwrap();
    }

    #[tokio::test]
    async fn closing_writes_what_is_queued_and_takes_no_more() {
        let directory = tempfile::tempdir().unwrap();
        let (recorder, writer) = Recorder::start(Store::open(directory.path()).unwrap()).unwrap();
        let pending: Vec<Pending> = (0..500).map(|_| recorder.append(event("queued"))).collect();
        recorder.close();
        assert_eq!(recorder.note(event("late")), Err(AuditError::Closed));
        assert!(!recorder.is_failed());
        writer.join().unwrap();
        for (sequence, pending) in (1..).zip(pending) {
            assert_eq!(pending.await, Ok(sequence));
        }
    }

    #[tokio::test]
    async fn request_numbers_go_on_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let (recorder, writer) = Recorder::start(Store::open(directory.path()).unwrap()).unwrap();
        assert_eq!(
            (
                recorder.next_request_number(),
                recorder.next_request_number()
            ),
            (1, 2)
        );
        recorder.append(event("hold 2")).await.unwrap();
        drop(recorder);
        writer.join().unwrap();
        let (recorder, _) = Recorder::start(Store::open(directory.path()).unwrap()).unwrap();
        assert_eq!(recorder.next_request_number(), 3);
    }

    #[test]
    fn too_many_events_are_a_backlog() {
        let directory = tempfile::tempdir().unwrap();
        let recorder = recorder_without_writer(directory.path());
        for _ in 0..QUEUE_EVENTS_MAX {
            recorder.note(event("")).unwrap();
        }
        let refused = recorder.note(event(""));
        assert!(matches!(
            refused,
            Err(AuditError::Backlog {
                events: QUEUE_EVENTS_MAX,
                ..
            })
        ));
        // A backlog passes; it is not a failure.
        assert!(!recorder.is_failed());
    }

    #[test]
    fn too_many_bytes_are_a_backlog() {
        let directory = tempfile::tempdir().unwrap();
        let recorder = recorder_without_writer(directory.path());
        let large = event(&"x".repeat(EVENT_BYTES_MAX - 100));
        let taken = (0..100)
            .take_while(|_| recorder.note(large.clone()).is_ok())
            .count();
        assert_eq!(taken, QUEUE_BYTES_MAX / EVENT_BYTES_MAX);
        assert!(matches!(
            recorder.note(large),
            Err(AuditError::Backlog { .. })
        ));
    }

    #[tokio::test]
    async fn an_event_above_the_limit_is_refused_alone() {
        let directory = tempfile::tempdir().unwrap();
        let (recorder, _) = Recorder::start(Store::open(directory.path()).unwrap()).unwrap();
        let refused = recorder.append(event(&"x".repeat(EVENT_BYTES_MAX))).await;
        assert!(matches!(refused, Err(AuditError::TooLarge { .. })));
        assert_eq!(recorder.append(event("small")).await, Ok(1));
    }

    #[tokio::test]
    async fn a_failure_reaches_all_who_wait_and_all_who_come() {
        let directory = tempfile::tempdir().unwrap();
        let recorder = recorder_without_writer(directory.path());
        let waiting = recorder.append(event("waits"));
        let cause = AuditError::Failed {
            cause: "no space left".into(),
        };
        recorder.handle.shared.fail(&cause);
        assert_eq!(waiting.await, Err(cause.clone()));
        assert_eq!(recorder.append(event("comes")).await, Err(cause));
        assert!(recorder.is_failed());
    }

    #[tokio::test]
    async fn a_writer_that_panics_fails_the_log() {
        let directory = tempfile::tempdir().unwrap();
        let recorder = recorder_without_writer(directory.path());
        let waiting = recorder.append(event("waits"));
        let shared = Arc::clone(&recorder.handle.shared);
        let writer = std::thread::spawn(move || {
            let _guard = FailOnPanic(&shared);
            panic!("as sled might");
        });
        writer.join().unwrap_err();
        assert!(matches!(waiting.await, Err(AuditError::Failed { .. })));
        assert!(recorder.is_failed());
    }
}
