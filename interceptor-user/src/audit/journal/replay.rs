//! What a journal holds that the database does not have: after a crash, or offline.
//!
//! It owns the way through the frames, and what counts as the end. Whether the records are what was
//! written is the chain's to say: what cannot be one is handed on as a record that is none.

use interceptor_core::audit::chain::{Head, Record};

use super::JOURNAL_BLOCKS;
use super::frame::{FoundFrame, Image, Place, Stamp};
use crate::audit::block;
use crate::audit::tail::Frame;

/// A frame whose only record has no bytes. No record is as short.
const NO_RECORD: &[u8] = &[0];

/// What was found.
pub(in crate::audit) struct Replayed {
    /// In order. The records are not verified.
    pub(in crate::audit) frames: Vec<Frame>,
    /// The last write was cut off. It was never acknowledged.
    pub(in crate::audit) is_torn: bool,
}

/// The frames of `epoch` from block `begin` on, which follow `head`.
pub(in crate::audit) fn replay(bytes: Vec<u8>, epoch: u64, begin: u64, head: Head) -> Replayed {
    let image = Image::new(bytes);
    let mut replayed = Replayed {
        frames: Vec::new(),
        is_torn: false,
    };
    let mut at = begin;
    let mut last = head;
    loop {
        let due = Stamp {
            epoch,
            first: last.sequence.saturating_add(1),
        };
        let (place, begins_at) = next_place(&image, at, due);
        match place {
            Place::Whole(found) => {
                at = begins_at.saturating_add(found.blocks as u64);
                last = end_of(due.first, &found);
                replayed
                    .frames
                    .push(frame(due.first, last, found.request_number, found.records));
            }
            // Each frame was acknowledged before the next was begun.
            Place::Altered | Place::Torn | Place::Older
                if place == Place::Altered || image.holds_later_than(due) =>
            {
                last.sequence = due.first;
                replayed
                    .frames
                    .push(frame(due.first, last, 0, NO_RECORD.to_vec()));
                return replayed;
            }
            Place::Torn | Place::Older | Place::Altered => {
                replayed.is_torn = place == Place::Torn;
                return replayed;
            }
        }
    }
}

/// Where the frame is: here, or at the beginning of the file if there was no room for it here.
fn next_place(image: &Image, at: u64, due: Stamp) -> (Place, u64) {
    let place_at = |at: u64| image.place(usize::try_from(at).unwrap_or(usize::MAX), due);
    let here = match at {
        JOURNAL_BLOCKS.. => Place::Older,
        _ => place_at(at),
    };
    if here != Place::Older || at == 0 {
        return (here, at);
    }
    (place_at(0), 0)
}

/// Where the log ends with this frame, if it is what it says.
fn end_of(first: u64, found: &FoundFrame) -> Head {
    let last = block::records(first, &found.records).last();
    let (sequence, bytes) = last.unwrap_or((first, &[]));
    match Record::decode(bytes) {
        Ok(record) if record.sequence == sequence => record.head(),
        _ => Head {
            sequence,
            ..Head::default()
        },
    }
}

fn frame(first: u64, last: Head, request_number: u64, records: Vec<u8>) -> Frame {
    Frame {
        first,
        last,
        request_number,
        records,
        end_block: 0,
    }
}
