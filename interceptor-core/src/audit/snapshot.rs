//! Policy files on record: cut into events that fit, and put together again.
//!
//! It owns the cutting. It must not know what is in the files, nor who writes events.

use alloc::string::String;
use alloc::vec::Vec;
use core::mem;

use super::event::{PolicyFile, PolicySnapshot};
use crate::policy::{FILES_BYTES_MAX, Snapshot};

/// Bytes of names and texts in one event; the record of an event holds twice as much.
pub const PART_BYTES_MAX: usize = 512 * 1024;

/// Bytes of names and texts that are put together for one snapshot: texts up to their limit, and
/// names as long as paths can be.
const WHOLE_BYTES_MAX: usize = FILES_BYTES_MAX + 4096 * 1024;

/// Snapshots whose end has not come: each gateway process writes one at a time.
const UNFINISHED_MAX: usize = 16;

/// A snapshot's files, whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WholeSnapshot {
    /// The snapshot's hash, as in the commands that it decided.
    pub hash: Vec<u8>,
    /// Names and texts, by name.
    pub files: Vec<(String, String)>,
}

/// The events that hold a snapshot's files, in order.
pub fn parts(snapshot: &Snapshot) -> Vec<PolicySnapshot> {
    let mut parts = Vec::new();
    let mut files = Vec::new();
    let mut room = PART_BYTES_MAX;
    for (name, text) in &snapshot.files {
        let mut rest = text.as_str();
        loop {
            // A character needs up to four bytes; a part begins with room for any name and text.
            if room < name.len().saturating_add(4) && !files.is_empty() {
                parts.push(mem::take(&mut files));
                room = PART_BYTES_MAX;
            }
            let end = rest.floor_char_boundary(room.saturating_sub(name.len()).max(4));
            let (here, next) = rest.split_at(end);
            room = room.saturating_sub(name.len().saturating_add(here.len()));
            files.push(PolicyFile {
                name: name.clone(),
                text: here.into(),
            });
            rest = next;
            if rest.is_empty() {
                break;
            }
        }
    }
    parts.push(files);
    let count = u32::try_from(parts.len()).unwrap_or(u32::MAX);
    let part = |(number, files)| PolicySnapshot {
        hash: snapshot.hash.to_vec(),
        files,
        part: number,
        parts: count,
    };
    (1..).zip(parts).map(part).collect()
}

/// Puts the parts of snapshots together. Those of several processes may be mixed in one log.
#[derive(Debug, Default)]
pub struct Assembler {
    unfinished: Vec<Unfinished>,
}

#[derive(Debug)]
struct Unfinished {
    whole: WholeSnapshot,
    /// The part that comes next.
    next: u32,
    bytes: usize,
}

impl Assembler {
    /// Takes the next event of the log; gives the snapshot whose last part it is.
    pub fn take(&mut self, event: &PolicySnapshot) -> Option<WholeSnapshot> {
        let place = self
            .unfinished
            .iter()
            .position(|one| one.whole.hash == event.hash);
        let mut one = match place {
            Some(place) => self.unfinished.remove(place),
            None => Unfinished::new(event),
        };
        if event.part <= 1 {
            // Two processes may write the same one: what came first is not needed.
            one = Unfinished::new(event);
        } else if event.part != one.next {
            // A part that is there already, or one whose beginning is not.
            if one.next > 1 {
                self.unfinished.push(one);
            }
            return None;
        }
        one.next = one.next.saturating_add(1);
        for file in &event.files {
            one.bytes = one.bytes.saturating_add(file.name.len() + file.text.len());
            match one.whole.files.last_mut() {
                Some((name, text)) if *name == file.name => text.push_str(&file.text),
                _ => one.whole.files.push((file.name.clone(), file.text.clone())),
            }
        }
        if event.part >= event.parts {
            return Some(one.whole);
        }
        if one.bytes <= WHOLE_BYTES_MAX {
            if self.unfinished.len() >= UNFINISHED_MAX {
                self.unfinished.remove(0);
            }
            self.unfinished.push(one);
        }
        None
    }
}

impl Unfinished {
    fn new(event: &PolicySnapshot) -> Self {
        Self {
            whole: WholeSnapshot {
                hash: event.hash.clone(),
                files: Vec::new(),
            },
            next: 1,
            bytes: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::format;
    use std::vec;

    use prost::Message as _;

    use super::*;
    use crate::audit::chain::EVENT_BYTES_MAX;
    use crate::mask::HashKey;
    use crate::policy::{FILE_BYTES_MAX, Source, load};

    const TARGET: &str =
        "{kind: Target, name: t, spec: {protocol: postgres, endpoints: ['10.0.0.5:5432']}}\n";

    /// A policy of that many files, each with a comment of so many characters of three bytes.
    fn snapshot(files: usize, comment: usize) -> Snapshot {
        let comment = format!("# {}\n", "\u{20ac}".repeat(comment));
        let rule = |number| {
            format!(
                "{comment}{{kind: Rule, name: r{number}, spec: {{match: {{}}, then: allow}}}}\n"
            )
        };
        let mut texts = vec![("p/0.yaml".into(), String::from(TARGET))];
        texts.extend((1..files).map(|number| (format!("p/{number:03}.yaml"), rule(number))));
        let sources: Vec<_> = texts
            .iter()
            .map(|(file, text): &(String, String)| Source { file, text })
            .collect();
        load(&sources, &HashKey::new([0; 32])).unwrap()
    }

    fn assembled(events: &[PolicySnapshot]) -> Vec<WholeSnapshot> {
        let mut assembler = Assembler::default();
        events
            .iter()
            .filter_map(|event| assembler.take(event))
            .collect()
    }

    #[test]
    fn a_snapshot_at_the_limit_fits_into_events_and_comes_back_whole() {
        let comment = FILE_BYTES_MAX / 3 - 100;
        for (files, comment) in [(1, 0), (3, 10), (8, comment), (300, 8_000)] {
            let snapshot = snapshot(files, comment);
            let parts = parts(&snapshot);
            for part in &parts {
                assert!(part.encoded_len() < EVENT_BYTES_MAX - 4096, "{files}");
            }
            let whole = WholeSnapshot {
                hash: snapshot.hash.to_vec(),
                files: snapshot.files.clone(),
            };
            assert_eq!(assembled(&parts), [whole], "{files}");
        }
    }

    #[test]
    fn parts_of_two_processes_may_be_mixed() {
        let (one, other) = (snapshot(3, 340_000), snapshot(4, 340_000));
        let (ours, theirs) = (parts(&one), parts(&other));
        assert!(ours.len() > 2);
        let mixed = |a: &[PolicySnapshot], b: &[PolicySnapshot]| -> Vec<_> {
            let longest = a.len().max(b.len());
            (0..longest)
                .flat_map(|at| [a.get(at).cloned(), b.get(at).cloned()])
                .flatten()
                .collect()
        };
        assert_eq!(assembled(&mixed(&ours, &theirs)).len(), 2);
        // The same policy, loaded by a gateway and by its successor.
        let twice = assembled(&mixed(&ours, &ours));
        assert_eq!(twice.first().unwrap().files, one.files);
        // An end without its beginning is no snapshot.
        assert_eq!(assembled(ours.get(1..).unwrap()), []);
    }

    #[test]
    fn an_event_without_numbers_is_whole() {
        let event = PolicySnapshot {
            hash: vec![1; 32],
            files: vec![PolicyFile {
                name: "a.yaml".into(),
                text: "b".into(),
            }],
            ..PolicySnapshot::default()
        };
        assert_eq!(
            assembled(&[event]).first().unwrap().files,
            [("a.yaml".into(), "b".into())]
        );
    }
}
