//! The hash chain: how an event becomes a record that proves all records before it.
//!
//! It owns the record's shape and its hash. It must not know where records are kept.
//! In `docs/audit-log.md` the same is told to those who verify with other tools.

use alloc::vec::Vec;
use core::fmt;

use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};
use sha2::{Digest as _, Sha256};

use super::event::Event;

/// Hashed first, so that a record's hash is never the hash of something else. The NUL ends it.
pub const DOMAIN: &[u8] = b"interceptor/audit/record/v1\0";

/// The largest encoded event, in bytes: whoever writes one shortens its text to fit.
pub const EVENT_BYTES_MAX: usize = 1024 * 1024;

/// A SHA-256 hash in the chain. Printed as lower-case hex.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Hash(pub [u8; 32]);

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl core::str::FromStr for Hash {
    type Err = hex::FromHexError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes)?;
        Ok(Self(bytes))
    }
}

/// Where a chain ends: the last record's number and hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Head {
    /// The last record's number; 0 for an empty log.
    pub sequence: u64,
    /// The last record's hash; all zeros for an empty log.
    pub hash: Hash,
}

/// An event in the chain.
#[derive(Clone, PartialEq, Eq)]
pub struct Record {
    /// Its number, from 1, without gaps.
    pub sequence: u64,
    /// The hash of the record before it; all zeros in the first.
    pub previous: Hash,
    /// SHA-256 of [`DOMAIN`] ‖ sequence (8 bytes, big endian) ‖ previous ‖ event.
    pub hash: Hash,
    /// The event, protobuf-encoded: the bytes that were hashed, never encoded again.
    pub event: Vec<u8>,
}

// An event holds what people typed: only its length is for debug output.
impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("sequence", &self.sequence)
            .field("previous", &self.previous)
            .field("hash", &self.hash)
            .field("event_bytes", &self.event.len())
            .finish()
    }
}

/// Why bytes are not a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Not the protobuf message.
    #[error("not a protobuf record")]
    Undecodable,
    /// A hash is not 32 bytes long.
    #[error("a hash in it has {0} bytes, not 32")]
    HashLength(usize),
    /// It decodes, but other bytes would be written for it: something is hidden in it.
    #[error("not in the one form that the gateway writes")]
    NotCanonical,
    /// The event inside is not the protobuf message.
    #[error("the event in it is not protobuf, or from a newer version")]
    Event,
}

/// The record as it is stored and exported: `docs/audit-log.md`.
#[derive(Clone, PartialEq, prost::Message)]
struct StoredRecord {
    #[prost(uint64, tag = "1")]
    sequence: u64,
    #[prost(bytes = "vec", tag = "2")]
    previous: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    hash: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    event: Vec<u8>,
}

impl Record {
    /// The record that follows `head`. `event` is an encoded [`Event`].
    #[must_use]
    pub fn after(head: &Head, event: Vec<u8>) -> Self {
        let sequence = head.sequence.saturating_add(1);
        let hash = hash_of(sequence, &head.hash, &event);
        Self {
            sequence,
            previous: head.hash,
            hash,
            event,
        }
    }

    /// The head of a log that ends here.
    #[must_use]
    pub const fn head(&self) -> Head {
        Head {
            sequence: self.sequence,
            hash: self.hash,
        }
    }

    /// True if the record's hash is that of its own fields.
    #[must_use]
    pub fn agrees_with_itself(&self) -> bool {
        hash_of(self.sequence, &self.previous, &self.event) == self.hash
    }

    /// The event inside.
    ///
    /// # Errors
    /// [`RecordError::Event`] if it is not one.
    pub fn event(&self) -> Result<Event, RecordError> {
        Event::decode(self.event.as_slice()).map_err(|_| RecordError::Event)
    }

    /// The bytes to store.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode_fields(
            self.sequence,
            &self.previous,
            &self.hash,
            &self.event,
            &mut bytes,
        );
        bytes
    }

    /// Reads what [`Record::encode`] wrote, and nothing else.
    ///
    /// # Errors
    /// If the bytes are anything but a record in the form that `encode` gives it.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let stored = StoredRecord::decode(bytes).map_err(|_| RecordError::Undecodable)?;
        let record = Self {
            sequence: stored.sequence,
            previous: hash_from(&stored.previous)?,
            hash: hash_from(&stored.hash)?,
            event: stored.event,
        };
        // Protobuf readers skip unknown fields and take the last of several: both are places
        // to hide what the hash does not cover.
        if record.encode() == bytes {
            Ok(record)
        } else {
            Err(RecordError::NotCanonical)
        }
    }
}

/// Adds the record that follows `head` to `out`, behind its length as a varint, and returns the new
/// head: what [`Record::after`] and [`Record::encode`] do, without a copy of the event between them.
pub fn append_delimited(head: &Head, event: &[u8], out: &mut Vec<u8>) -> Head {
    let sequence = head.sequence.saturating_add(1);
    let hash = hash_of(sequence, &head.hash, event);
    let event_bytes = match event.len() {
        0 => 0,
        length => 1 + encoded_len_varint(length as u64) + length,
    };
    let bytes = 1 + encoded_len_varint(sequence) + 2 * (2 + head.hash.0.len()) + event_bytes;
    encode_varint(bytes as u64, out);
    encode_fields(sequence, &head.hash, &hash, event, out);
    Head { sequence, hash }
}

/// The one form of a record. A field that is empty has no bytes, as protobuf has it.
fn encode_fields(sequence: u64, previous: &Hash, hash: &Hash, event: &[u8], out: &mut Vec<u8>) {
    if sequence != 0 {
        encode_key(1, WireType::Varint, out);
        encode_varint(sequence, out);
    }
    for (tag, field) in [
        (2, previous.0.as_slice()),
        (3, hash.0.as_slice()),
        (4, event),
    ] {
        if !field.is_empty() {
            encode_key(tag, WireType::LengthDelimited, out);
            encode_varint(field.len() as u64, out);
            out.extend_from_slice(field);
        }
    }
}

fn hash_from(bytes: &[u8]) -> Result<Hash, RecordError> {
    bytes
        .try_into()
        .map(Hash)
        .map_err(|_| RecordError::HashLength(bytes.len()))
}

fn hash_of(sequence: u64, previous: &Hash, event: &[u8]) -> Hash {
    // Everything before the event has a fixed length, so that no two inputs join to the same bytes.
    let digest = Sha256::new()
        .chain_update(DOMAIN)
        .chain_update(sequence.to_be_bytes())
        .chain_update(previous.0)
        .chain_update(event)
        .finalize();
    Hash(digest.into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_record_has_one_form_however_it_is_written(
            sequence in prop_oneof![0_u64..300, any::<u64>().prop_map(|number| number / 2)],
            hash in any::<[u8; 32]>(),
            event in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let head = Head { sequence, hash: Hash(hash) };
            let record = Record::after(&head, event.clone());
            let by_prost = StoredRecord {
                sequence: record.sequence,
                previous: record.previous.0.to_vec(),
                hash: record.hash.0.to_vec(),
                event: event.clone(),
            };
            prop_assert_eq!(record.encode(), by_prost.encode_to_vec());
            prop_assert_eq!(Record::decode(&record.encode()), Ok(record.clone()));
            let mut delimited = Vec::new();
            prop_assert_eq!(append_delimited(&head, &event, &mut delimited), record.head());
            prop_assert_eq!(delimited, by_prost.encode_length_delimited_to_vec());
        }
    }
}
