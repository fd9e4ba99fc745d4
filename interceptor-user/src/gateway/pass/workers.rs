//! The threads that carry what passes through.
//!
//! Each has an event loop of its own, and a connection stays on its thread: between threads that
//! share their work, every byte that comes would wake two of them.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::available_parallelism;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use super::pipe::Pipes;

/// What all connections that pass through share.
pub(in super::super) struct Passing {
    pub(super) pipes: Pipes,
    workers: Vec<Worker>,
    next: AtomicUsize,
}

struct Worker {
    handle: Handle,
    /// The thread ends when this is dropped.
    _stop: oneshot::Sender<()>,
}

impl Passing {
    /// Starts a thread for each processor.
    ///
    /// # Errors
    /// If the system refuses a thread, or what its event loop needs.
    pub(in super::super) fn start() -> io::Result<Self> {
        let count = available_parallelism()?.get();
        Ok(Self {
            pipes: Pipes::default(),
            workers: (0..count).map(worker).collect::<io::Result<_>>()?,
            next: AtomicUsize::new(0),
        })
    }

    /// The next thread, in turn.
    pub(super) fn worker(&self) -> Option<&Handle> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        let index = turn.checked_rem(self.workers.len())?;
        self.workers.get(index).map(|worker| &worker.handle)
    }
}

fn worker(number: usize) -> io::Result<Worker> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    let (stop, stopped) = oneshot::channel();
    std::thread::Builder::new()
        .name(format!("pass-{number}"))
        .spawn(move || {
            // Nothing is ever sent: the sender's end is the word.
            let _ = runtime.block_on(stopped);
        })?;
    Ok(Worker {
        handle,
        _stop: stop,
    })
}
