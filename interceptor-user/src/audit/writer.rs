//! The one writer of the log: a thread that commits what waits, and what comes meanwhile next.
//!
//! It owns the order: durable first, then the head is shown, then who waits is told. It must not
//! know how records are stored or what events mean.

use std::sync::{PoisonError, mpsc};
use std::time::Instant;

use interceptor_core::audit::chain::Head;
use tokio::sync::watch;

use super::events::Events;
use super::journal::FRAME_BYTES_SOFT;
use super::log::Log;
use super::pending::Numbers;
use super::queue::{Step, Turn};
use super::recorder::{AuditError, Shared};

/// The most events that one commit takes.
pub(super) const BATCH_EVENTS_MAX: usize = 4096;

/// A commit takes no further event once it holds this many bytes.
pub(super) const BATCH_BYTES_MAX: usize = FRAME_BYTES_SOFT;

const WRITER_DIED: &str = "its writer ended unexpectedly; see the gateway's log";

/// Writes until the queue is closed and empty, or the log fails.
pub(super) fn write_until_closed(
    mut log: Log,
    shared: &Shared,
    publish: &watch::Sender<Head>,
    logs: &mpsc::Receiver<Option<Log>>,
) {
    // Also when sled panics, no later event may be taken.
    let _guard = FailOnPanic(shared);
    let mut spare = Events::default();
    loop {
        match next(shared, spare) {
            Next::Closed => return,
            Next::Events(events, last_ticket) => {
                if let Err(cause) = write(&mut log, &events, last_ticket, shared, publish) {
                    tracing::error!(error = %cause, "the audit log failed; commands are refused from now on");
                    let cause = cause.into();
                    shared.fail(&AuditError::Failed { cause });
                    return;
                }
                spare = events;
                spare.clear();
                shared.lock().written();
            }
            Next::Suspend(unused) => {
                spare = unused;
                *shared.reader() = None;
                drop(log);
                shared.lock().turn = Turn::Suspended;
                shared.wakes_suspender.notify_all();
                // Without a sender nobody is left who could record.
                let Ok(Some(next)) = logs.recv() else {
                    return;
                };
                log = next;
                go_on(&log, shared, publish);
            }
        }
    }
}

/// What the writer does next. It gets an empty buffer back.
enum Next {
    /// The last of them has this ticket.
    Events(Events, u64),
    Suspend(Events),
    Closed,
}

fn next(shared: &Shared, spare: Events) -> Next {
    let mut queue = shared.lock();
    loop {
        let now = Instant::now();
        match queue.step(now) {
            Step::Write => {
                let (events, last_ticket) = queue.take(spare, now);
                return Next::Events(events, last_ticket);
            }
            Step::Suspend => return Next::Suspend(spare),
            Step::Close => return Next::Closed,
            Step::Wait(None) => {
                let woken = shared.wakes_writer.wait(queue);
                queue = woken.unwrap_or_else(PoisonError::into_inner);
            }
            Step::Wait(Some(time)) => {
                let woken = shared.wakes_writer.wait_timeout(queue, time);
                queue = woken.unwrap_or_else(PoisonError::into_inner).0;
            }
        }
    }
}

/// Writes events in commits within their limits, and tells who waits for each.
fn write(
    log: &mut Log,
    events: &Events,
    last_ticket: u64,
    shared: &Shared,
    publish: &watch::Sender<Head>,
) -> Result<(), String> {
    let mut written = 0;
    while written < events.len() {
        let mut count = 0;
        let commit = events
            .some(written, BATCH_EVENTS_MAX, BATCH_BYTES_MAX)
            .inspect(|_| count += 1);
        let head = log.append(commit, shared.request_number.last())?;
        written += count;
        if let Some(head) = head {
            publish.send_replace(head);
        }
        let left = events.len().saturating_sub(written) as u64;
        shared.progress.advance(last_ticket.saturating_sub(left));
    }
    Ok(())
}

/// Another log is here.
fn go_on(log: &Log, shared: &Shared, publish: &watch::Sender<Head>) {
    *shared.reader() = log.reader();
    // Also where the head stays: who follows the log learns that it went elsewhere.
    publish.send_modify(|head| {
        if let Log::Store(store) = log {
            *head = store.head();
        }
    });
    let numbers = match log {
        Log::Store(store) => Numbers::After(store.head().sequence),
        Log::Relay(_) => Numbers::Elsewhere,
    };
    let mut queue = shared.lock();
    shared.progress.goes_on(queue.next_ticket(), numbers);
    queue.turn = Turn::Writing;
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

#[cfg(test)]
pub(super) fn guard(shared: &Shared) -> impl Drop + '_ {
    FailOnPanic(shared)
}
