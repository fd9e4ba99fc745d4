//! Blocks: records one after another, each behind its length, as the journal and the database hold
//! them.
//!
//! It owns how records are cut into values of the database and found in them again. It must not
//! know where either is kept, and proves nothing: what does not parse is handed on as it is, and the
//! chain says that it is no record.

use prost::encoding::{decode_varint, encode_varint, encoded_len_varint};

/// A value of the database is at most this large. A sled page holds up to 17 values, and a page
/// above 128 KiB moves into a file of its own that sled never syncs.
pub(super) const VALUE_BYTES_MAX: usize = 6 * 1024;

/// The first byte of a block in the database. No protobuf message begins with it, so that a block is
/// never taken for the single record that earlier versions stored in its place.
const MARKER: u8 = 0;

/// A record as it lies in the log, not yet verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRecord {
    /// The number that it is stored under.
    pub sequence: u64,
    /// The encoded record.
    pub bytes: Vec<u8>,
}

/// The records in `delimited`, the first of which has the number `first`. Bytes that are not
/// delimited as they should be come as one last record.
pub(super) fn records(first: u64, delimited: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    let mut rest = delimited;
    let mut sequence = first;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (record, after) = split_first(rest).unwrap_or((rest, &[]));
        rest = after;
        let number = sequence;
        sequence = sequence.saturating_add(1);
        Some((number, record))
    })
}

/// The first record, without its length, and what follows it.
fn split_first(delimited: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut rest = delimited;
    let length = usize::try_from(decode_varint(&mut rest).ok()?).ok()?;
    // Another spelling of the same length would be a place to hide something.
    if delimited.len().checked_sub(rest.len())? != encoded_len_varint(length as u64) {
        return None;
    }
    rest.split_at_checked(length)
}

/// The records of a block as it is stored in the database under `first`.
pub(super) fn stored_records(first: u64, bytes: Vec<u8>) -> Vec<StoredRecord> {
    match bytes.split_first() {
        // A block without records is one that is no record.
        Some((&MARKER, delimited)) if !delimited.is_empty() => records(first, delimited)
            .map(|(sequence, record)| StoredRecord {
                sequence,
                bytes: record.to_vec(),
            })
            .collect(),
        _ => vec![StoredRecord {
            sequence: first,
            bytes,
        }],
    }
}

/// Gathers records into blocks. A block fits into one value, unless its only record does not.
#[derive(Default)]
pub(super) struct Blocks {
    /// Each with the number of its first record.
    whole: Vec<(u64, Vec<u8>)>,
}

impl Blocks {
    /// Adds the records in `delimited`, which follow those that are there.
    pub(super) fn push(&mut self, first: u64, delimited: &[u8]) {
        for (sequence, record) in records(first, delimited) {
            let bytes = encoded_len_varint(record.len() as u64).saturating_add(record.len());
            match self.whole.last_mut() {
                Some((_, block)) if block.len().saturating_add(bytes) <= VALUE_BYTES_MAX => {
                    append(block, record);
                }
                _ => {
                    let mut block = Vec::with_capacity(VALUE_BYTES_MAX.max(bytes + 1));
                    block.push(MARKER);
                    append(&mut block, record);
                    self.whole.push((sequence, block));
                }
            }
        }
    }

    /// The values to store: the number of a block's first record, the place of the value within the
    /// block, and the value.
    pub(super) fn values(&self) -> impl Iterator<Item = (u64, u16, &[u8])> {
        self.whole.iter().flat_map(|(sequence, block)| {
            (0..=u16::MAX)
                .zip(block.chunks(VALUE_BYTES_MAX))
                .map(|(index, value)| (*sequence, index, value))
        })
    }
}

fn append(block: &mut Vec<u8>, record: &[u8]) {
    encode_varint(record.len() as u64, block);
    block.extend_from_slice(record);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn delimited(records: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for record in records {
            append(&mut bytes, record);
        }
        bytes
    }

    fn read_back(blocks: &Blocks) -> Vec<(u64, Vec<u8>)> {
        let mut stored: Vec<(u64, Vec<u8>)> = Vec::new();
        for (sequence, index, value) in blocks.values() {
            assert!(value.len() <= VALUE_BYTES_MAX);
            match index {
                0 => stored.push((sequence, value.to_vec())),
                _ => stored.last_mut().unwrap().1.extend_from_slice(value),
            }
        }
        stored
            .into_iter()
            .flat_map(|(sequence, block)| stored_records(sequence, block))
            .map(|record| (record.sequence, record.bytes))
            .collect()
    }

    proptest! {
        #[test]
        fn records_come_back_from_blocks(
            lengths in prop::collection::vec(prop_oneof![0_usize..900, 5_900_usize..20_000], 1..60),
            cut in any::<prop::sample::Index>(),
        ) {
            let records: Vec<Vec<u8>> = lengths.iter().map(|length| vec![7; *length]).collect();
            let cut = cut.index(records.len());
            let mut blocks = Blocks::default();
            blocks.push(5, &delimited(&records[..cut]));
            blocks.push(5 + cut as u64, &delimited(&records[cut..]));
            let expected: Vec<(u64, Vec<u8>)> = (5..).zip(records).collect();
            prop_assert_eq!(read_back(&blocks), expected);
        }

        #[test]
        fn garbage_is_handed_on(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut stored = vec![MARKER];
            stored.extend(&bytes);
            let found = stored_records(1, stored);
            prop_assert!(!found.is_empty());
            let whole: usize = found.iter().map(|record| record.bytes.len()).sum();
            prop_assert!(whole <= bytes.len() + 1);
        }
    }

    #[test]
    fn what_an_earlier_version_stored_is_one_record() {
        let stored = stored_records(9, vec![8, 9, 0]);
        assert_eq!(
            stored,
            [StoredRecord {
                sequence: 9,
                bytes: vec![8, 9, 0]
            }]
        );
    }
}
