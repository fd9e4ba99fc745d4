//! The one writer of the log, and the handles through which the rest of the gateway records.
//!
//! It owns the queue, the group commit and the rule that a log which failed once takes nothing
//! more. In a hot upgrade the log changes hands while events come: it is closed, events wait, and
//! the writer goes on with another [`Log`]. It must not know how records are stored or what events
//! mean.

use std::collections::VecDeque;
use std::future::Future;
use std::os::fd::{AsFd as _, OwnedFd};
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use interceptor_core::audit::chain::{EVENT_BYTES_MAX, Head};
use interceptor_core::audit::event::Event;
use prost::Message as _;
use tokio::sync::{oneshot, watch};

use super::counter::Counter;
use super::log::Log;
use super::store::{BATCH_EVENTS_MAX, Reader, Store};

/// The most events that wait to be written.
pub const QUEUE_EVENTS_MAX: usize = 65_536;

/// The most encoded bytes that wait to be written.
pub const QUEUE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// How long an event that nobody waits for lets others join its commit.
const LINGER_MAX: Duration = Duration::from_millis(10);

/// A commit takes no further event once it holds this many bytes.
pub(super) const BATCH_BYTES_MAX: usize = 1024 * 1024;

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
    durable: watch::Receiver<Head>,
    /// The log that the writer goes on with; `None` ends it.
    logs: mpsc::Sender<Option<Log>>,
}

struct Shared {
    queue: Mutex<Queue>,
    wakes_writer: Condvar,
    wakes_suspender: Condvar,
    request_number: Counter,
    /// `None` while this process does not have the log.
    reader: Mutex<Option<Reader>>,
}

/// Who has the log.
#[derive(Default, PartialEq, Eq)]
enum Turn {
    /// The writer.
    #[default]
    Writing,
    /// The writer, who is asked to close it.
    Asked,
    /// Nobody here: events wait.
    Suspended,
}

#[derive(Default)]
struct Queue {
    entries: VecDeque<Entry>,
    bytes: usize,
    /// Entries whose writer waits for their answer.
    awaited: usize,
    /// Why it takes no more; sticky.
    refusal: Option<AuditError>,
    turn: Turn,
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

impl Pending {
    /// Waits on a thread that may block.
    pub(super) fn wait(self) -> Result<u64, AuditError> {
        match self.0 {
            State::Refused(error) => Err(error),
            State::Waiting(receiver) => receiver.blocking_recv().unwrap_or_else(|_| {
                Err(AuditError::Failed {
                    cause: WRITER_DIED.into(),
                })
            }),
        }
    }

    /// Why it was not even queued.
    pub(super) fn refusal(&self) -> Option<&AuditError> {
        match &self.0 {
            State::Refused(error) => Some(error),
            State::Waiting(_) => None,
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
        let counter = Counter::new(store.request_number())?;
        Self::start_counting(store, counter)
    }

    /// The same with the counter of a gateway that drains, which goes on to use it too.
    ///
    /// # Errors
    /// If the system refuses a thread.
    pub fn start_counting(
        store: Store,
        request_number: Counter,
    ) -> std::io::Result<(Self, JoinHandle<()>)> {
        request_number.raise_to(store.request_number());
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            wakes_writer: Condvar::new(),
            wakes_suspender: Condvar::new(),
            request_number,
            reader: Mutex::new(Some(store.reader())),
        });
        let (publish, durable) = watch::channel(store.head());
        let (logs, next_logs) = mpsc::channel();
        let writer_shared = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("audit-writer".to_owned())
            .spawn(move || {
                write_until_closed(store.into(), &writer_shared, &publish, &next_logs)
            })?;
        Ok((
            Self {
                handle: Arc::new(Handle {
                    shared,
                    durable,
                    logs,
                }),
            },
            thread,
        ))
    }

    /// Closes the log, so that another process can open it. Events that come from now on wait. Blocks
    /// until what is being written is on the disk.
    ///
    /// # Errors
    /// If the recorder takes no more events anyway.
    pub fn suspend(&self) -> Result<(), AuditError> {
        let shared = &self.handle.shared;
        let mut queue = shared.lock();
        if let Some(refusal) = &queue.refusal {
            return Err(refusal.clone());
        }
        queue.turn = Turn::Asked;
        shared.wakes_writer.notify_one();
        while queue.turn == Turn::Asked {
            if let Some(refusal @ AuditError::Failed { .. }) = &queue.refusal {
                return Err(refusal.clone());
            }
            queue = shared
                .wakes_suspender
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner);
        }
        Ok(())
    }

    /// Goes on after [`Recorder::suspend`].
    pub fn resume(&self, log: Log) {
        // A writer that is gone has failed the queue.
        let _ = self.handle.logs.send(Some(log));
    }

    /// Does not go on after [`Recorder::suspend`]: what waits fails, and what comes.
    pub fn abandon(&self, cause: &str) {
        let error = AuditError::Failed {
            cause: cause.into(),
        };
        self.handle.shared.fail(&error);
        let _ = self.handle.logs.send(None);
    }

    /// The counter of request numbers, for the process that takes over.
    ///
    /// # Errors
    /// If the system has no descriptor left.
    pub fn counter(&self) -> std::io::Result<OwnedFd> {
        self.handle
            .shared
            .request_number
            .as_fd()
            .try_clone_to_owned()
    }

    /// Queues an event. It is queued when this returns, in order with all others; the result
    /// resolves when it is durable, or with the reason why it will never be.
    pub fn append(&self, event: Event) -> Pending {
        self.append_encoded(event.encode_to_vec())
    }

    /// The same with an event that another process encoded.
    pub(super) fn append_encoded(&self, event: Vec<u8>) -> Pending {
        let (acknowledge, receiver) = oneshot::channel();
        match self.enqueue(event, Some(acknowledge)) {
            Ok(()) => Pending(State::Waiting(receiver)),
            Err(error) => Pending(State::Refused(error)),
        }
    }

    /// Queues an event that nothing waits for, in order with [`Recorder::append`].
    ///
    /// # Errors
    /// If it cannot be queued. A later failure to write it shows in every later call.
    pub fn note(&self, event: Event) -> Result<(), AuditError> {
        self.enqueue(event.encode_to_vec(), None)
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
        self.handle.shared.request_number.next()
    }

    /// The head of the durable log, as it moves on. With [`Recorder::reader`] this is a live stream
    /// in which a slow follower loses nothing.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Head> {
        self.handle.durable.clone()
    }

    /// Reads the log. Records above the head that [`Recorder::subscribe`] shows are not durable yet.
    /// `None` while another process has the log. Drop it soon: it keeps the log open.
    #[must_use]
    pub fn reader(&self) -> Option<Reader> {
        self.handle.shared.reader().clone()
    }

    /// Takes no more events; the writer writes what is queued and ends. Join its thread after this.
    pub fn close(&self) {
        self.handle.shared.refuse(AuditError::Closed);
    }

    fn enqueue(
        &self,
        event: Vec<u8>,
        acknowledge: Option<oneshot::Sender<Result<u64, AuditError>>>,
    ) -> Result<(), AuditError> {
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

    fn reader(&self) -> MutexGuard<'_, Option<Reader>> {
        self.reader.lock().unwrap_or_else(PoisonError::into_inner)
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
        self.wakes_writer.notify_one();
        self.wakes_suspender.notify_all();
        acknowledge(entries, || Err(error.clone()));
    }

    /// Waits for events and takes what is there, within the limits of a commit.
    ///
    /// An event that nobody waits for lets others join its commit for [`LINGER_MAX`]: else the
    /// outcome of each command would have a commit of its own, and the next command's intent
    /// would wait for it.
    fn next(&self) -> Next {
        let mut queue = self.lock();
        let mut lingers_until = None;
        loop {
            if queue.turn == Turn::Asked {
                return Next::Suspend;
            }
            let closed = queue.refusal.is_some();
            if queue.entries.is_empty() {
                if closed {
                    return Next::Closed;
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
        Next::Batch(take_batch(&mut queue))
    }
}

/// What the writer does next.
enum Next {
    Batch(Vec<Entry>),
    /// Close the log and wait for another.
    Suspend,
    /// The queue is closed and empty.
    Closed,
}

fn take_batch(queue: &mut Queue) -> Vec<Entry> {
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
    batch
}

/// The writer thread: everything that waits goes to the disk in one commit, and what comes
/// meanwhile in the next. A lone event waits for nothing but its own flush.
fn write_until_closed(
    mut log: Log,
    shared: &Shared,
    publish: &watch::Sender<Head>,
    logs: &mpsc::Receiver<Option<Log>>,
) {
    // Also when sled panics, no later event may be taken.
    let _guard = FailOnPanic(shared);
    loop {
        match shared.next() {
            Next::Closed => return,
            Next::Batch(batch) => {
                if !write(&mut log, batch, shared, publish) {
                    return;
                }
            }
            Next::Suspend => {
                *shared.reader() = None;
                drop(log);
                shared.lock().turn = Turn::Suspended;
                shared.wakes_suspender.notify_all();
                // Without a sender nobody is left who could record.
                let Ok(Some(next)) = logs.recv() else {
                    return;
                };
                *shared.reader() = next.reader();
                // Also where the head stays: who follows the log learns that it went elsewhere.
                publish.send_modify(|head| {
                    if let Log::Store(store) = &next {
                        *head = store.head();
                    }
                });
                log = next;
                shared.lock().turn = Turn::Writing;
            }
        }
    }
}

/// Writes a batch and answers who waits for it. False if the log failed.
fn write(
    log: &mut Log,
    mut batch: Vec<Entry>,
    shared: &Shared,
    publish: &watch::Sender<Head>,
) -> bool {
    let events = batch
        .iter_mut()
        .map(|entry| std::mem::take(&mut entry.event))
        .collect();
    match log.append(events, shared.request_number.last()) {
        Ok((sequences, head)) => {
            if let Some(head) = head {
                publish.send_replace(head);
            }
            let mut sequences = sequences.into_iter();
            acknowledge(batch, || Ok(sequences.next().unwrap_or_default()));
            true
        }
        Err(cause) => {
            tracing::error!(error = %cause, "the audit log failed; commands are refused from now on");
            let error = AuditError::Failed {
                cause: cause.into(),
            };
            shared.fail(&error);
            acknowledge(batch, || Err(error.clone()));
            false
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

/// Answers everyone who waits. `answer` is asked once for each entry, in order.
fn acknowledge(
    batch: impl IntoIterator<Item = Entry>,
    mut answer: impl FnMut() -> Result<u64, AuditError>,
) {
    for entry in batch {
        let answer = answer();
        if let Some(waiting) = entry.acknowledge {
            // Who gave up waiting needs no answer.
            let _ = waiting.send(answer);
        }
    }
}

#[cfg(test)]
mod tests;
