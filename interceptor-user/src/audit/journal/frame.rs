//! How a commit lies in the journal: a frame of whole blocks.
//!
//! ```text
//! block    ┌─────────────┬──────────────── 4,048 bytes ────────────────┬─────────────┐
//!          │ stamp       │ part of the frame's body                    │ stamp       │
//!          └─────────────┴─────────────────────────────────────────────┴─────────────┘
//! stamp    epoch (8) ‖ number of the frame's first record (8) ‖ check of both (8)
//! body     length of the records (8) ‖ request number (8) ‖ check of both (8) ‖ records, each behind
//!          its length ‖ zeros
//! ```
//!
//! All integers are little endian. A frame is written once, in place of something older. A block is
//! *fresh* if both its stamps are the frame's. A write that was cut off leaves blocks, or a
//! beginning or an end of one, that are still older: then the frame was never acknowledged. What is
//! neither fresh nor older was altered. Whether the records of fresh blocks are what was written is
//! the chain's to say.
//!
//! It owns the layout and what may be said of bytes found in it. It must not know of files.

/// The unit of writing; direct writes have to begin and end at its multiples.
pub(in crate::audit) const BLOCK_BYTES: usize = 4096;

const STAMP_BYTES: usize = 24;
const BODY_BYTES: usize = BLOCK_BYTES - 2 * STAMP_BYTES;
const HEADER_BYTES: usize = 24;

/// A disk writes this much or nothing: a shorter piece at the end of a file is not ours.
const SECTOR_BYTES: usize = 512;

/// Multiplied into a check, so that a flipped bit changes half of it. The fraction of the
/// golden ratio.
const MIX: u64 = 0x9e37_79b9_7f4a_7c15;

/// Which frame a block belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::audit) struct Stamp {
    /// Counts how often the log was opened: what an earlier life left is told from this one's.
    pub(in crate::audit) epoch: u64,
    /// The number of the frame's first record.
    pub(in crate::audit) first: u64,
}

impl Stamp {
    fn read(bytes: &[u8]) -> Found {
        match checked(bytes) {
            _ if bytes.iter().all(|byte| *byte == 0) => Found::Nothing,
            Some((epoch, first)) => Found::Stamp(Self { epoch, first }),
            None => Found::Garbage,
        }
    }
}

/// Two numbers and what tells whether they are as they were written.
fn with_check(one: u64, other: u64) -> [u8; 24] {
    let check = (one.wrapping_mul(MIX).rotate_left(29) ^ other).wrapping_mul(MIX);
    let mut bytes = [0; 24];
    for (field, value) in bytes.chunks_exact_mut(8).zip([one, other, check]) {
        field.copy_from_slice(&value.to_le_bytes());
    }
    bytes
}

fn checked(bytes: &[u8]) -> Option<(u64, u64)> {
    let mut fields = bytes.chunks_exact(8).map(integer);
    let (one, other) = (fields.next()?, fields.next()?);
    (with_check(one, other) == bytes).then_some((one, other))
}

/// What is in a stamp's place.
enum Found {
    /// Zeros, as the file was made.
    Nothing,
    Stamp(Stamp),
    Garbage,
}

fn integer(bytes: &[u8]) -> u64 {
    let mut whole = [0; 8];
    for (to, from) in whole.iter_mut().zip(bytes) {
        *to = *from;
    }
    u64::from_le_bytes(whole)
}

/// How many blocks a frame with so many bytes of records takes.
pub(in crate::audit) const fn blocks_for(records_bytes: usize) -> usize {
    (HEADER_BYTES + records_bytes).div_ceil(BODY_BYTES)
}

/// Writes a frame into `blocks`, which has [`blocks_for`] it.
pub(in crate::audit) fn lay_out(
    stamp: Stamp,
    request_number: u64,
    records: &[u8],
    blocks: &mut [u8],
) {
    let stamp = with_check(stamp.epoch, stamp.first);
    let header = with_check(records.len() as u64, request_number);
    let mut head = header.as_slice();
    let mut rest = records;
    for block in blocks.chunks_exact_mut(BLOCK_BYTES) {
        let (front, block) = block.split_at_mut(STAMP_BYTES);
        let (mut body, back) = block.split_at_mut(BODY_BYTES);
        front.copy_from_slice(&stamp);
        back.copy_from_slice(&stamp);
        for from in [&mut head, &mut rest] {
            let (taken, left) = from.split_at(from.len().min(body.len()));
            let (to, free) = std::mem::take(&mut body).split_at_mut(taken.len());
            to.copy_from_slice(taken);
            (*from, body) = (left, free);
        }
        body.fill(0);
    }
}

/// A frame as it was found.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::audit) struct FoundFrame {
    /// The last request number that was handed out when it was written.
    pub(in crate::audit) request_number: u64,
    /// Its records, each behind its length, not verified.
    pub(in crate::audit) records: Vec<u8>,
    /// How many blocks it takes.
    pub(in crate::audit) blocks: usize,
}

/// What is at a place where a frame may be.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::audit) enum Place {
    /// The frame.
    Whole(FoundFrame),
    /// A beginning of it: its write was cut off.
    Torn,
    /// Something that was written by nobody here.
    Altered,
    /// Something older.
    Older,
}

/// A journal in memory.
pub(in crate::audit) struct Image {
    bytes: Vec<u8>,
}

enum Block<'a> {
    Fresh(&'a [u8]),
    Partly,
    Older,
    Altered,
}

impl Image {
    /// The bytes of a journal's file, which may be shorter than it was made.
    pub(in crate::audit) fn new(mut bytes: Vec<u8>) -> Self {
        bytes.truncate(bytes.len() - bytes.len() % SECTOR_BYTES);
        bytes.resize(bytes.len().next_multiple_of(BLOCK_BYTES), 0);
        Self { bytes }
    }

    /// What is at block `at`, if the frame `due` should be there.
    pub(in crate::audit) fn place(&self, at: usize, due: Stamp) -> Place {
        let body = match self.block(at, due) {
            Block::Fresh(body) => body,
            Block::Partly => return Place::Torn,
            Block::Older => return Place::Older,
            Block::Altered => return Place::Altered,
        };
        let (header, first_records) = body.split_at(HEADER_BYTES);
        let Some((length, request_number)) = checked(header) else {
            return Place::Altered;
        };
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let blocks = blocks_for(length.min(self.bytes.len()));
        let mut records = first_records.to_vec();
        for index in 1..blocks {
            match self.block(at.saturating_add(index), due) {
                Block::Fresh(body) => records.extend_from_slice(body),
                Block::Partly | Block::Older => return Place::Torn,
                Block::Altered => return Place::Altered,
            }
        }
        match records.split_at_checked(length) {
            Some((_, padding)) if length > 0 && padding.iter().all(|byte| *byte == 0) => {
                records.truncate(length);
                Place::Whole(FoundFrame {
                    request_number,
                    records,
                    blocks,
                })
            }
            _ => Place::Altered,
        }
    }

    /// True if any block belongs to a later frame of the same epoch, or of a later one.
    pub(in crate::audit) fn holds_later_than(&self, due: Stamp) -> bool {
        self.bytes.chunks_exact(BLOCK_BYTES).any(|block| {
            let (front, back) = stamps(block);
            [front, back]
                .iter()
                .any(|found| matches!(found, Found::Stamp(stamp) if *stamp > due))
        })
    }

    fn block(&self, at: usize, due: Stamp) -> Block<'_> {
        let from = at.saturating_mul(BLOCK_BYTES);
        let Some(block) = self
            .bytes
            .get(from..)
            .and_then(|rest| rest.get(..BLOCK_BYTES))
        else {
            return Block::Older;
        };
        let fresh = |found: &Found| matches!(found, Found::Stamp(stamp) if *stamp == due);
        let (front, back) = stamps(block);
        match (&front, &back) {
            (Found::Garbage, _) | (_, Found::Garbage) => Block::Altered,
            _ if fresh(&front) && fresh(&back) => {
                let body = block.get(STAMP_BYTES..STAMP_BYTES + BODY_BYTES);
                Block::Fresh(body.unwrap_or_default())
            }
            _ if fresh(&front) || fresh(&back) => Block::Partly,
            _ => Block::Older,
        }
    }
}

fn stamps(block: &[u8]) -> (Found, Found) {
    let front = block.get(..STAMP_BYTES).unwrap_or_default();
    let back = block.get(STAMP_BYTES + BODY_BYTES..).unwrap_or_default();
    (Stamp::read(front), Stamp::read(back))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp = Stamp {
        epoch: 3,
        first: 17,
    };

    fn frame(length: usize) -> Vec<u8> {
        let records: Vec<u8> = (0..length).map(|i| (i % 251) as u8 + 1).collect();
        let mut blocks = vec![0xaa; blocks_for(length) * BLOCK_BYTES];
        lay_out(STAMP, 5, &records, &mut blocks);
        blocks
    }

    fn older(blocks: usize) -> Vec<u8> {
        let records = vec![9; blocks * BODY_BYTES - HEADER_BYTES];
        let mut bytes = vec![0; blocks * BLOCK_BYTES];
        lay_out(Stamp { epoch: 3, first: 2 }, 0, &records, &mut bytes);
        bytes
    }

    #[test]
    fn frames_of_any_length_come_back() {
        for length in [
            1,
            100,
            BODY_BYTES - 24,
            BODY_BYTES - 23,
            3 * BODY_BYTES,
            70_000,
        ] {
            let mut bytes = older(2);
            bytes.extend(frame(length));
            let Place::Whole(found) = Image::new(bytes).place(2, STAMP) else {
                panic!("a frame of {length} bytes is not there");
            };
            assert_eq!(found.records.len(), length);
            assert_eq!(found.records[0], 1);
            assert_eq!(
                (found.request_number, found.blocks),
                (5, blocks_for(length))
            );
        }
    }

    #[test]
    fn a_write_that_was_cut_off_is_torn_and_nothing_else() {
        let new = frame(9_000);
        for background in [vec![0; new.len()], older(blocks_for(9_000))] {
            for written in (0..new.len()).step_by(SECTOR_BYTES) {
                let mut forwards = new[..written].to_vec();
                forwards.extend(&background[written..]);
                let mut backwards = background[..written].to_vec();
                backwards.extend(&new[written..]);
                for (bytes, is_whole) in [(forwards, false), (backwards, written == 0)] {
                    let found = Image::new(bytes).place(0, STAMP);
                    match is_whole {
                        true => assert!(matches!(found, Place::Whole(_)), "{written}: {found:?}"),
                        false => assert!(
                            matches!(found, Place::Torn | Place::Older),
                            "{written}: {found:?}"
                        ),
                    }
                }
            }
        }
    }

    #[test]
    fn a_shortened_file_is_torn_at_every_byte() {
        let new = frame(5_000);
        for length in 0..new.len() {
            let found = Image::new(new[..length].to_vec()).place(0, STAMP);
            assert!(
                matches!(found, Place::Torn | Place::Older),
                "{length}: {found:?}"
            );
        }
    }

    #[test]
    fn a_flipped_bit_is_never_taken_for_a_torn_write() {
        let new = frame(5_000);
        let Place::Whole(whole) = Image::new(new.clone()).place(0, STAMP) else {
            panic!("the frame is not there");
        };
        for bit in 0..new.len() * 8 {
            let mut bytes = new.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            match Image::new(bytes).place(0, STAMP) {
                Place::Altered => {}
                // Then the chain has to find it.
                Place::Whole(found) => assert_ne!(found.records, whole.records, "bit {bit}"),
                other => panic!("bit {bit}: {other:?}"),
            }
        }
    }

    #[test]
    fn later_frames_are_seen() {
        let mut bytes = older(2);
        bytes.extend(frame(100));
        let image = Image::new(bytes);
        assert!(image.holds_later_than(Stamp {
            epoch: 3,
            first: 16
        }));
        assert!(!image.holds_later_than(STAMP));
    }
}
