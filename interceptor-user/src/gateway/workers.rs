//! The threads that carry connections.
//!
//! Each has an event loop of its own, and a connection stays on its thread: between threads that
//! share their work, every byte that comes would wake two of them.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::available_parallelism;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// A thread for each processor.
pub(super) struct Workers {
    workers: Vec<Worker>,
    next: AtomicUsize,
}

struct Worker {
    handle: Handle,
    /// The thread ends when this is dropped.
    _stop: oneshot::Sender<()>,
}

impl Workers {
    /// Starts them.
    ///
    /// # Errors
    /// If the system refuses a thread, or what its event loop needs.
    pub(super) fn start() -> io::Result<Self> {
        let count = available_parallelism()?.get();
        Ok(Self {
            workers: (0..count).map(worker).collect::<io::Result<_>>()?,
            next: AtomicUsize::new(0),
        })
    }

    /// The next thread, in turn.
    pub(super) fn next(&self) -> Handle {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        let index = turn.checked_rem(self.workers.len());
        let worker = index.and_then(|index| self.workers.get(index));
        // There is always one.
        worker.map_or_else(Handle::current, |worker| worker.handle.clone())
    }
}

fn worker(number: usize) -> io::Result<Worker> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    let (stop, stopped) = oneshot::channel();
    std::thread::Builder::new()
        .name(format!("carry-{number}"))
        .spawn(move || {
            // Nothing is ever sent: the sender's end is the word.
            let _ = runtime.block_on(stopped);
        })?;
    Ok(Worker {
        handle,
        _stop: stop,
    })
}
