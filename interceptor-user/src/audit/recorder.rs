//! The handles through which the rest of the gateway records.
//!
//! It owns the rule that a log which failed once takes nothing more. In a hot upgrade the log changes
//! hands while events come: it is closed, events wait, and the writer goes on with another [`Log`].
//! It must not know how records are stored or what events mean.

use std::cell::RefCell;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;

use interceptor_core::audit::chain::{EVENT_BYTES_MAX, Head};
use interceptor_core::audit::event::Event;
use prost::Message as _;
use tokio::sync::watch;

use super::counter::Counter;
use super::log::Log;
pub use super::pending::Pending;
use super::pending::{Numbers, Progress};
use super::queue::{Entry, Queue, Turn};
use super::store::{Durability, Reader, Store};
use super::writer;

/// The most events that wait to be written.
pub const QUEUE_EVENTS_MAX: usize = 65_536;

/// The most encoded bytes that wait to be written.
pub const QUEUE_BYTES_MAX: usize = 64 * 1024 * 1024;

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
    durability: Durability,
}

/// What the handles and the writer share.
pub(super) struct Shared {
    queue: Mutex<Queue>,
    pub(super) wakes_writer: Condvar,
    pub(super) wakes_suspender: Condvar,
    pub(super) progress: Arc<Progress>,
    pub(super) request_number: Counter,
    /// `None` while this process does not have the log.
    reader: Mutex<Option<Reader>>,
}

thread_local! {
    /// Where events are encoded: before the queue's lock is taken, and in memory that is there.
    static ENCODED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// What a thread keeps of it after a large event.
const ENCODED_KEPT_BYTES: usize = 16 * 1024;

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
        let shared = Arc::new(Shared::new(request_number, &store));
        let (publish, durable) = watch::channel(store.head());
        let durability = store.durability();
        let (logs, next_logs) = mpsc::channel();
        let writer_shared = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("audit-writer".to_owned())
            .spawn(move || {
                writer::write_until_closed(store.into(), &writer_shared, &publish, &next_logs);
            })?;
        Ok((
            Self {
                handle: Arc::new(Handle {
                    shared,
                    durable,
                    logs,
                    durability,
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
        encoded(&event, |bytes| self.append_bytes(bytes, &event.session))
    }

    /// The same with an event that another process encoded.
    pub(super) fn append_encoded(&self, event: &[u8]) -> Pending {
        self.append_bytes(event, &[])
    }

    fn append_bytes(&self, event: &[u8], session: &[u8]) -> Pending {
        let shared = &self.handle.shared;
        match shared.enqueue(event, Entry::Awaited { session }) {
            Ok(ticket) => Pending::queued(Arc::clone(&shared.progress), ticket),
            Err(error) => Pending::refused(error),
        }
    }

    /// Queues an event that nothing waits for, in order with [`Recorder::append`].
    ///
    /// # Errors
    /// If it cannot be queued. A later failure to write it shows in every later call.
    pub fn note(&self, event: Event) -> Result<(), AuditError> {
        encoded(&event, |bytes| {
            self.handle.shared.enqueue(bytes, Entry::Noted).map(drop)
        })
    }

    /// When an event counts as recorded.
    #[must_use]
    pub fn durability(&self) -> Durability {
        self.handle.durability
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
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.refuse(AuditError::Closed);
    }
}

/// Hands an event's bytes on.
fn encoded<T>(event: &Event, with: impl FnOnce(&[u8]) -> T) -> T {
    ENCODED.with(|buffer| {
        // Nothing below records, so that it is free; if that changes, an event gets its own.
        let Ok(mut buffer) = buffer.try_borrow_mut() else {
            return with(&event.encode_to_vec());
        };
        buffer.clear();
        let mut bytes = std::mem::take(&mut *buffer);
        if event.encode(&mut bytes).is_err() {
            // A vector has always room.
            bytes = event.encode_to_vec();
        }
        let result = with(&bytes);
        bytes.clear();
        bytes.shrink_to(ENCODED_KEPT_BYTES);
        *buffer = bytes;
        result
    })
}

impl Shared {
    pub(super) fn new(request_number: Counter, store: &Store) -> Self {
        let progress = Progress::default();
        progress.goes_on(1, Numbers::After(store.head().sequence));
        Self {
            queue: Mutex::default(),
            wakes_writer: Condvar::new(),
            wakes_suspender: Condvar::new(),
            progress: Arc::new(progress),
            request_number,
            reader: Mutex::new(Some(store.reader())),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Queue> {
        // Every change of the queue is whole before anything can panic.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn reader(&self) -> MutexGuard<'_, Option<Reader>> {
        self.reader.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues an event; its ticket.
    fn enqueue(&self, event: &[u8], entry: Entry<'_>) -> Result<u64, AuditError> {
        if event.len() > EVENT_BYTES_MAX {
            return Err(AuditError::TooLarge { bytes: event.len() });
        }
        let mut queue = self.lock();
        let ticket = queue.push(event, entry)?;
        let is_writer_wanted = queue.wakes_writer();
        drop(queue);
        if is_writer_wanted {
            self.wakes_writer.notify_one();
        }
        Ok(ticket)
    }

    /// Takes no more events; what is queued is still written.
    fn refuse(&self, refusal: AuditError) {
        self.lock().refusal.get_or_insert(refusal);
        self.wakes_writer.notify_one();
    }

    /// Takes no more events, and what is queued never becomes durable.
    pub(super) fn fail(&self, error: &AuditError) {
        let mut queue = self.lock();
        queue.refusal = Some(error.clone());
        queue.clear();
        drop(queue);
        self.progress.fail(error);
        self.wakes_suspender.notify_all();
    }
}

#[cfg(test)]
mod tests;
