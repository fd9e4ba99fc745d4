//! The end of the log that is on the disk in the journal and not yet in the database.
//!
//! It owns the frames between the writer, who adds them, and the mover, who takes them out, and the
//! journal's space between the two. Readers look here for what the database does not have. It must
//! not know how either is written.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use interceptor_core::audit::chain::Head;

/// A commit, as it went into the journal.
pub(super) struct Frame {
    /// The number of its first record.
    pub(super) first: u64,
    /// Where the log ends with it.
    pub(super) last: Head,
    /// The last request number that was handed out.
    pub(super) request_number: u64,
    /// Its records, each behind its length.
    pub(super) records: Vec<u8>,
    /// Where the journal goes on after it, in blocks since the log was opened.
    pub(super) end_block: u64,
}

/// The frames that wait to be moved.
#[derive(Default)]
pub(super) struct Tail {
    state: Mutex<State>,
    wakes_mover: Condvar,
    wakes_writer: Condvar,
}

#[derive(Default)]
struct State {
    frames: VecDeque<Arc<Frame>>,
    bytes: usize,
    /// When the first of them came.
    since: Option<Instant>,
    /// Blocks before this one may be written.
    free_until_block: u64,
    /// The journal's size.
    blocks: u64,
    is_writer_waiting: bool,
    is_closing: bool,
    failure: Option<Arc<str>>,
}

/// What the mover does next.
pub(super) enum Move {
    /// These frames.
    Frames(Vec<Arc<Frame>>),
    /// Nothing is left, and nothing comes.
    Done,
}

impl Tail {
    /// The tail of a log whose journal has so many blocks, all of them free.
    pub(super) fn with_space(blocks: u64) -> Self {
        let tail = Self::default();
        let mut state = tail.lock();
        (state.blocks, state.free_until_block) = (blocks, blocks);
        drop(state);
        tail
    }

    /// A tail that only readers have.
    pub(super) fn of(frames: Vec<Frame>) -> Self {
        let tail = Self::default();
        tail.lock().frames = frames.into_iter().map(Arc::new).collect();
        tail
    }

    /// The frames that are here now, in order.
    pub(super) fn frames(&self) -> Vec<Arc<Frame>> {
        self.lock().frames.iter().cloned().collect()
    }

    /// Adds a frame that is on the disk. `bytes_soon` of them wake the mover.
    pub(super) fn push(&self, frame: Frame, bytes_soon: usize) {
        let mut state = self.lock();
        let before = state.bytes;
        state.bytes = before.saturating_add(frame.records.len());
        state.frames.push_back(Arc::new(frame));
        let is_first = state.since.is_none();
        if is_first {
            state.since = Some(Instant::now());
        }
        let is_enough = before < bytes_soon && state.bytes >= bytes_soon;
        drop(state);
        if is_first || is_enough {
            self.wakes_mover.notify_one();
        }
    }

    /// Waits until the journal may be written up to `block`.
    ///
    /// # Errors
    /// Why nothing is moved any more.
    pub(super) fn wait_for_space(&self, block: u64) -> Result<(), Arc<str>> {
        let mut state = self.lock();
        loop {
            if let Some(failure) = &state.failure {
                return Err(Arc::clone(failure));
            }
            if state.free_until_block >= block {
                return Ok(());
            }
            state.is_writer_waiting = true;
            self.wakes_mover.notify_one();
            state = self
                .wakes_writer
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
            state.is_writer_waiting = false;
        }
    }

    /// Waits for something to move: once there is enough, or it is old enough, or it is wanted.
    /// `bytes_max` limits it, and one frame is always taken.
    pub(super) fn next(&self, bytes_soon: usize, after: Duration, bytes_max: usize) -> Move {
        let mut state = self.lock();
        loop {
            let is_wanted = state.is_closing || state.is_writer_waiting;
            let wait = match state.since {
                None if state.is_closing => return Move::Done,
                None => None,
                Some(_) if is_wanted || state.bytes >= bytes_soon => break,
                Some(since) => match after.checked_sub(since.elapsed()) {
                    None | Some(Duration::ZERO) => break,
                    wait => wait,
                },
            };
            state = match wait {
                None => self
                    .wakes_mover
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner),
                Some(wait) => {
                    let waited = self.wakes_mover.wait_timeout(state, wait);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        let mut bytes = 0_usize;
        let fits = |frame: &&Arc<Frame>| {
            let is_first = bytes == 0;
            bytes = bytes.saturating_add(frame.records.len().max(1));
            is_first || bytes <= bytes_max
        };
        Move::Frames(state.frames.iter().take_while(fits).cloned().collect())
    }

    /// The frames up to `last` are in the database, on the disk.
    pub(super) fn moved(&self, last: &Frame) {
        let mut state = self.lock();
        while let Some(frame) = state.frames.pop_front_if(|frame| frame.first <= last.first) {
            state.bytes = state.bytes.saturating_sub(frame.records.len());
        }
        state.free_until_block = last.end_block.saturating_add(state.blocks);
        state.since = (!state.frames.is_empty()).then(Instant::now);
        let is_writer_waiting = state.is_writer_waiting;
        drop(state);
        if is_writer_waiting {
            self.wakes_writer.notify_one();
        }
    }

    /// Nothing is moved any more, and so nothing may be recorded.
    pub(super) fn fail(&self, cause: &str) {
        self.lock().failure.get_or_insert_with(|| cause.into());
        self.wakes_writer.notify_all();
    }

    /// Why nothing is moved any more.
    pub(super) fn failure(&self) -> Option<Arc<str>> {
        self.lock().failure.clone()
    }

    /// Nothing comes any more: what is here is moved at once.
    pub(super) fn close(&self) {
        self.lock().is_closing = true;
        self.wakes_mover.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
