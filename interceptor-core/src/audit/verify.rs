//! The proof: takes records in order and names the first that is not as it was written.
//!
//! It owns what counts as tampering. It must not know where the records come from.

use super::chain::{Head, Record};

/// What is wrong with a log: the first record at fault, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Finding {
    /// The record is not what was written: its own hash or the next record's `previous` says so.
    #[error("record {sequence} was altered")]
    Altered {
        /// Its number.
        sequence: u64,
    },
    /// The record is not there, while later ones are.
    #[error("record {sequence} is missing")]
    Missing {
        /// Its number.
        sequence: u64,
    },
    /// The record stands in another place than its own.
    #[error("record {sequence} is out of order")]
    Reordered {
        /// Its number.
        sequence: u64,
    },
    /// The log ends before its head.
    #[error("the log ends at record {have}, but its head is record {head}: the end was cut off")]
    TruncatedTail {
        /// The last record that is there.
        have: u64,
        /// The last record that was written.
        head: u64,
    },
    /// Records follow the head: they were added by someone else, or the head was set back.
    #[error("record {sequence} stands after the log's head")]
    BeyondHead {
        /// The first of them.
        sequence: u64,
    },
}

/// Verifies a log, record by record, in constant memory.
#[derive(Debug)]
pub struct Verifier {
    last: Head,
    state: State,
}

#[derive(Debug)]
enum State {
    Intact,
    /// `last + 1` did not come when it was due. If it comes later, it was moved; else it is gone.
    Gap,
    Broken(Finding),
}

impl Verifier {
    /// Verifies a whole log.
    #[must_use]
    pub fn from_start() -> Self {
        Self::after(Head::default())
    }

    /// Verifies the records that follow one that is trusted.
    #[must_use]
    pub const fn after(trusted: Head) -> Self {
        Self {
            last: trusted,
            state: State::Intact,
        }
    }

    /// Takes the next record, as stored.
    ///
    /// # Errors
    /// The finding, as soon as it is certain. Every later call repeats it.
    pub fn take(&mut self, stored: &[u8]) -> Result<(), Finding> {
        let due = self.last.sequence.saturating_add(1);
        let finding = match (&self.state, Record::decode(stored)) {
            (State::Broken(finding), _) => *finding,
            (State::Gap, Ok(record)) if record.sequence == due => {
                Finding::Reordered { sequence: due }
            }
            (State::Gap, _) => return Ok(()),
            (State::Intact, Ok(record)) => match judge(&self.last, &record) {
                Verdict::Follows => {
                    self.last = record.head();
                    return Ok(());
                }
                Verdict::Ahead => {
                    self.state = State::Gap;
                    return Ok(());
                }
                Verdict::Fault(finding) => finding,
            },
            (State::Intact, Err(_)) => Finding::Altered { sequence: due },
        };
        self.state = State::Broken(finding);
        Err(finding)
    }

    /// Ends the log. `head` is the end that the log's keeper remembers; without one, records cut
    /// off the end cannot be missed. On success returns the head that the records prove.
    ///
    /// # Errors
    /// The finding.
    pub fn finish(self, head: Option<Head>) -> Result<Head, Finding> {
        let last = self.last;
        match self.state {
            State::Broken(finding) => return Err(finding),
            State::Gap => {
                return Err(Finding::Missing {
                    sequence: last.sequence.saturating_add(1),
                });
            }
            State::Intact => {}
        }
        let Some(head) = head else { return Ok(last) };
        if last.sequence < head.sequence {
            return Err(Finding::TruncatedTail {
                have: last.sequence,
                head: head.sequence,
            });
        }
        if last.sequence > head.sequence {
            return Err(Finding::BeyondHead {
                sequence: head.sequence.saturating_add(1),
            });
        }
        if last.hash != head.hash {
            return Err(Finding::Altered {
                sequence: last.sequence,
            });
        }
        Ok(last)
    }
}

enum Verdict {
    Follows,
    Ahead,
    Fault(Finding),
}

fn judge(last: &Head, record: &Record) -> Verdict {
    let due = last.sequence.saturating_add(1);
    if !record.agrees_with_itself() {
        // Its own number may be what was altered: name the place where it stands.
        return Verdict::Fault(Finding::Altered { sequence: due });
    }
    if record.sequence > due {
        return Verdict::Ahead;
    }
    if record.sequence < due {
        return Verdict::Fault(Finding::Reordered {
            sequence: record.sequence,
        });
    }
    if record.previous != last.hash {
        // This record is whole and quotes another predecessor: that one was rewritten and its hash
        // computed anew. The first record has none, so there it is itself at fault.
        return Verdict::Fault(Finding::Altered {
            sequence: last.sequence.max(1),
        });
    }
    Verdict::Follows
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;
    use crate::audit::chain::Hash;

    fn log(events: &[Vec<u8>]) -> (Vec<Vec<u8>>, Head) {
        let mut head = Head::default();
        let records = events
            .iter()
            .map(|event| {
                let record = Record::after(&head, event.clone());
                head = record.head();
                record.encode()
            })
            .collect();
        (records, head)
    }

    fn verify(records: &[Vec<u8>], head: Head) -> Result<Head, Finding> {
        let mut verifier = Verifier::from_start();
        for record in records {
            // A certain finding must also be what `finish` says.
            if let Err(finding) = verifier.take(record) {
                assert_eq!(verifier.take(record), Err(finding));
                assert_eq!(verifier.finish(Some(head)), Err(finding));
                return Err(finding);
            }
        }
        verifier.finish(Some(head))
    }

    fn events() -> impl Strategy<Value = Vec<Vec<u8>>> {
        prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..12)
    }

    fn number(index: usize) -> u64 {
        index as u64 + 1
    }

    proptest! {
        #[test]
        fn an_untouched_log_is_intact(events in events()) {
            let (records, head) = log(&events);
            prop_assert_eq!(verify(&records, head), Ok(head));
        }

        #[test]
        fn any_flipped_bit_is_named(events in events(), at: prop::sample::Index, bit: prop::sample::Index) {
            let (mut records, head) = log(&events);
            let index = at.index(records.len());
            let bit = bit.index(records[index].len() * 8);
            records[index][bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(verify(&records, head), Err(Finding::Altered { sequence: number(index) }));
        }

        #[test]
        fn a_record_rewritten_with_its_hash_is_named(events in events(), at: prop::sample::Index) {
            let (mut records, head) = log(&events);
            let index = at.index(records.len());
            let before = Record::decode(&records[index]).unwrap();
            let mut event = before.event.clone();
            event.push(b'!');
            let predecessor = Head { sequence: before.sequence - 1, hash: before.previous };
            records[index] = Record::after(&predecessor, event).encode();
            prop_assert_eq!(verify(&records, head), Err(Finding::Altered { sequence: number(index) }));
        }

        #[test]
        fn a_removed_record_is_named(events in events(), at: prop::sample::Index) {
            let (mut records, head) = log(&events);
            let index = at.index(records.len());
            records.remove(index);
            let expected = if index == records.len() {
                Finding::TruncatedTail { have: index as u64, head: head.sequence }
            } else {
                Finding::Missing { sequence: number(index) }
            };
            prop_assert_eq!(verify(&records, head), Err(expected));
        }

        #[test]
        fn swapped_records_are_named(events in events(), one: prop::sample::Index, other: prop::sample::Index) {
            let (mut records, head) = log(&events);
            let (one, other) = (one.index(records.len()), other.index(records.len()));
            prop_assume!(one != other);
            records.swap(one, other);
            let first = number(one.min(other));
            prop_assert_eq!(verify(&records, head), Err(Finding::Reordered { sequence: first }));
        }

        #[test]
        fn a_repeated_record_is_named(events in events(), at: prop::sample::Index) {
            let (mut records, head) = log(&events);
            let index = at.index(records.len());
            records.push(records[index].clone());
            prop_assert_eq!(verify(&records, head), Err(Finding::Reordered { sequence: number(index) }));
        }

        #[test]
        fn arbitrary_bytes_are_never_a_record_of_this_log(events in events(), bytes: Vec<u8>) {
            let (mut records, head) = log(&events);
            records[0] = bytes;
            prop_assert!(verify(&records, head).is_err());
        }
    }

    #[test]
    fn an_added_record_stands_after_the_head() {
        let (records, _) = log(&[b"one".to_vec(), b"two".to_vec()]);
        let (_, head) = log(&[b"one".to_vec()]);
        assert_eq!(
            verify(&records, head),
            Err(Finding::BeyondHead { sequence: 2 })
        );
    }

    #[test]
    fn a_log_that_starts_on_another_hash_is_altered() {
        let elsewhere = Head {
            sequence: 0,
            hash: Hash([7; 32]),
        };
        let record = Record::after(&elsewhere, b"one".to_vec());
        let finding = verify(&[record.encode()], record.head());
        assert_eq!(finding, Err(Finding::Altered { sequence: 1 }));
    }

    #[test]
    fn an_unknown_field_is_an_alteration() {
        let (mut records, head) = log(&[b"one".to_vec()]);
        records[0].extend_from_slice(&[0x78, 0x01]); // Field 15, varint 1: protobuf would skip it.
        assert_eq!(
            verify(&records, head),
            Err(Finding::Altered { sequence: 1 })
        );
    }

    #[test]
    fn a_tail_is_verified_from_a_trusted_record() {
        let (records, head) = log(&[b"one".to_vec(), b"two".to_vec(), b"three".to_vec()]);
        let trusted = Record::decode(&records[0]).unwrap().head();
        let mut verifier = Verifier::after(trusted);
        verifier.take(&records[1]).unwrap();
        verifier.take(&records[2]).unwrap();
        assert_eq!(verifier.finish(Some(head)), Ok(head));
    }

    // The vector of docs/audit-log.md: if this changes, logs in the field stop verifying.
    #[test]
    fn the_hash_is_the_documented_one() {
        let record = Record::after(&Head::default(), b"event".to_vec());
        assert_eq!(std::format!("{}", record.hash), DOCUMENTED_HASH);
    }

    const DOCUMENTED_HASH: &str =
        "4963e6de19b5d27641e685ff46a19113a3f24849c41c6941c5988e2e2c33e9a2";
}
