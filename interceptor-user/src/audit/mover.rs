//! The mover: takes records from the journal into the database, and so makes room in the journal.
//!
//! It owns when and how much is moved. Nobody waits for it, unless the journal is full. Once it fails
//! nothing more is recorded: the journal holds what was acknowledged, and the next start moves it.

use std::sync::Arc;
use std::time::Duration;

use interceptor_core::audit::chain::EVENT_BYTES_MAX;

use super::block::Blocks;
use super::database::{Database, Stored, check_space};
use super::error::StoreError;
use super::journal::{FRAME_BYTES_SOFT, place_of};
use super::store::RESERVE_BYTES;
use super::tail::{Frame, Move, Tail};

/// So many bytes of records are moved at once.
pub(super) const MOVE_BYTES_SOON: usize = 1024 * 1024;

/// Fewer are moved after this time: a database of small blocks costs more to write and to open.
const MOVE_AFTER: Duration = Duration::from_millis(200);

/// One transaction takes no more bytes than this, so that it never holds the processor for long.
const MOVE_BYTES_MAX: usize = 2 * 1024 * 1024;
const _: () = assert!(MOVE_BYTES_MAX >= FRAME_BYTES_SOFT + EVENT_BYTES_MAX);

/// Moves until the tail is closed and empty.
pub(super) fn run(database: &Database, tail: &Tail, epoch: u64) {
    let _guard = FailOnPanic(tail);
    loop {
        match tail.next(MOVE_BYTES_SOON, MOVE_AFTER, MOVE_BYTES_MAX) {
            Move::Done => return,
            Move::Frames(frames) => {
                let Some(last) = frames.last() else { continue };
                if let Err(error) = transfer(database, &frames, last, epoch) {
                    tracing::error!(%error, "the audit log cannot take records from its journal; commands are refused from now on");
                    tail.fail(&error.to_string());
                    return;
                }
                tail.moved(last);
            }
        }
    }
}

fn transfer(
    database: &Database,
    frames: &[Arc<Frame>],
    last: &Frame,
    epoch: u64,
) -> Result<(), StoreError> {
    check_space(database.path(), RESERVE_BYTES)?;
    let stored = Stored {
        head: last.last,
        request_number: last.request_number,
        epoch,
        journal_block: place_of(last.end_block),
        is_open: true,
    };
    put(database, frames.iter().map(AsRef::as_ref), stored)
}

/// Puts frames into the database and onto the disk.
pub(super) fn put<'a>(
    database: &Database,
    frames: impl Iterator<Item = &'a Frame>,
    stored: Stored,
) -> Result<(), StoreError> {
    let mut blocks = Blocks::default();
    for frame in frames {
        blocks.push(frame.first, &frame.records);
    }
    database.insert(&blocks, stored)?;
    database.sync()
}

struct FailOnPanic<'a>(&'a Tail);

impl Drop for FailOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0
                .fail("the thread that moves records into the database ended unexpectedly; see the gateway's log");
        }
    }
}
