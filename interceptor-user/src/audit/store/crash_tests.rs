//! What a crash leaves, and what hands in the journal do. A crashed log is a copy of the database as
//! it was when the log was opened, with the journal of later: as if nothing had been moved.

use std::path::PathBuf;

use interceptor_core::audit::chain::EVENT_BYTES_MAX;

use super::journal::frame::{BLOCK_BYTES, blocks_for};
use super::*;

fn copy_database(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.path().is_file() && entry.file_name() != journal::FILE {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

/// A log that crashed with some commits in its journal.
struct Crashed {
    directory: tempfile::TempDir,
    /// Where the log ended after each commit, and where that ends in the journal.
    commits: Vec<(Head, u64)>,
}

impl Crashed {
    /// The commits have so many events of so many bytes; `before` are in the database already.
    fn with(before: usize, commits: &[(usize, usize)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let live = directory.path().join("live");
        if before > 0 {
            let events = vec![vec![b'b'; 20]; before];
            Store::open(&live).unwrap().append(events, 3).unwrap();
        }
        let mut store = Store::open(&live).unwrap();
        copy_database(&live, &directory.path().join("crashed"));
        let mut ends = Vec::new();
        for (count, bytes) in commits {
            let fill = b'a' + ends.len() as u8;
            let head = store.append(vec![vec![fill; *bytes]; *count], 7).unwrap();
            ends.push((head, store.journal.room_for(1).0));
        }
        std::fs::copy(live.join(journal::FILE), directory.path().join("journal")).unwrap();
        let crashed = Self {
            directory,
            commits: ends,
        };
        crashed.restore_journal();
        crashed
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("crashed")
    }

    fn journal(&self) -> PathBuf {
        self.path().join(journal::FILE)
    }

    fn restore_journal(&self) {
        std::fs::copy(self.directory.path().join("journal"), self.journal()).unwrap();
    }

    fn head(&self) -> Head {
        self.commits.last().unwrap().0
    }

    /// Changes the journal's bytes and opens a copy of the log.
    fn open_edited(&self, edit: impl FnOnce(&mut Vec<u8>)) -> Result<Head, StoreError> {
        let copy = tempfile::tempdir().unwrap();
        copy_database(&self.path(), copy.path());
        let mut bytes = std::fs::read(self.journal()).unwrap();
        edit(&mut bytes);
        std::fs::write(copy.path().join(journal::FILE), bytes).unwrap();
        Store::open(copy.path()).map(|store| store.head())
    }
}

fn verified(reader: &Reader) -> Head {
    let mut verifier = Verifier::from_start();
    for stored in reader.records_from(0) {
        verifier.take(&stored.unwrap().bytes).unwrap();
    }
    verifier.finish(Some(reader.head().unwrap())).unwrap()
}

fn finding(opened: Result<Head, StoreError>) -> Finding {
    match opened {
        Err(StoreError::Tampered { finding, .. }) => finding,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_only_in_the_journal_is_read_and_brought_home() {
    let crashed = Crashed::with(5, &[(1, 10), (300, 100), (2, 30_000), (1, EVENT_BYTES_MAX)]);
    // First by those who only read: they change nothing.
    for _ in 0..2 {
        let reader = Reader::open(&crashed.path()).unwrap();
        assert_eq!(verified(&reader), crashed.head());
        let from: Vec<u64> = reader
            .records_from(305)
            .map(|stored| stored.unwrap().sequence)
            .collect();
        assert_eq!(from, [305, 306, 307, 308, 309]);
    }
    let mut store = Store::open(&crashed.path()).unwrap();
    assert_eq!((store.head(), store.request_number()), (crashed.head(), 7));
    let head = store.append([b"after"], 8).unwrap();
    drop(store);
    assert_eq!(verified(&Reader::open(&crashed.path()).unwrap()), head);
}

#[test]
fn a_crash_while_the_journal_is_brought_home_repeats_it() {
    let crashed = Crashed::with(2, &[(3, 10), (4, 9_000)]);
    // As far as the database has it, and no further: twice.
    for _ in 0..2 {
        let database = Database::open(&crashed.path()).unwrap();
        let stored = recover(&database).unwrap();
        assert_eq!((stored.head, stored.is_open), (crashed.head(), true));
    }
    assert_eq!(Store::open(&crashed.path()).unwrap().head(), crashed.head());
}

#[test]
fn a_last_write_that_was_cut_off_is_dropped() {
    let crashed = Crashed::with(2, &[(3, 10), (1, 10_000)]);
    let [(before, from), (whole, until)] = crashed.commits[..] else {
        panic!("{:?}", crashed.commits)
    };
    assert_eq!(until - from, blocks_for(10_000) as u64);
    let (from, until) = (from as usize * BLOCK_BYTES, until as usize * BLOCK_BYTES);
    for cut in (from..until).step_by(512) {
        let head = crashed.open_edited(|journal| journal[cut..until].fill(0));
        assert_eq!(head.unwrap(), before, "cut at {cut}");
        if cut > from {
            let head = crashed.open_edited(|journal| journal[from..cut].fill(0));
            assert_eq!(head.unwrap(), before, "begun at {cut}");
        }
    }
    assert_eq!(crashed.open_edited(|_| {}).unwrap(), whole);
}

#[test]
fn what_was_cut_off_does_not_come_back_later() {
    let crashed = Crashed::with(2, &[(3, 10), (1, 10_000)]);
    let from = crashed.commits[0].1 as usize * BLOCK_BYTES;
    let mut bytes = std::fs::read(crashed.journal()).unwrap();
    bytes[from..from + 512].fill(0);
    std::fs::write(crashed.journal(), bytes).unwrap();
    // Another life, in which the same number is given again, and which crashes, too.
    let live = crashed.path();
    let mut store = Store::open(&live).unwrap();
    assert_eq!(store.head(), crashed.commits[0].0);
    let again = crashed.directory.path().join("again");
    copy_database(&live, &again);
    let head = store.append([vec![b'z'; 5_000]], 0).unwrap();
    std::fs::copy(live.join(journal::FILE), again.join(journal::FILE)).unwrap();
    assert_eq!(Store::open(&again).unwrap().head(), head);
}

#[test]
fn a_commit_that_others_followed_cannot_be_taken_out() {
    let crashed = Crashed::with(2, &[(3, 10), (1, 10_000), (1, 10)]);
    let (from, until) = (crashed.commits[0].1, crashed.commits[1].1);
    let (from, until) = (from as usize * BLOCK_BYTES, until as usize * BLOCK_BYTES);
    for (begin, end) in [(from, until), (from, from + 512), (until - 512, until)] {
        let opened = crashed.open_edited(|journal| journal[begin..end].fill(0));
        assert_eq!(finding(opened), Finding::Altered { sequence: 6 });
    }
}

#[test]
fn a_flipped_bit_in_the_journal_is_named() {
    let crashed = Crashed::with(2, &[(2, 10), (1, 5_000), (2, 10)]);
    let expected = [3..=4, 5..=5, 6..=7];
    let mut at = 0;
    for ((_, end), expected) in crashed.commits.iter().zip(expected) {
        let end = *end as usize * BLOCK_BYTES * 8;
        let begin = std::mem::replace(&mut at, end);
        for bit in (begin..end)
            .step_by(991)
            .chain([begin, begin + 70, end - 1])
        {
            let opened = crashed.open_edited(|journal| journal[bit / 8] ^= 1 << (bit % 8));
            let Finding::Altered { sequence } = finding(opened) else {
                panic!("bit {bit}")
            };
            assert!(expected.contains(&sequence), "bit {bit}: {sequence}");
        }
    }
}

#[test]
fn those_who_only_read_name_what_was_altered() {
    let crashed = Crashed::with(2, &[(3, 10), (1, 10)]);
    let mut bytes = std::fs::read(crashed.journal()).unwrap();
    // In the first record's event.
    bytes[120] ^= 1;
    std::fs::write(crashed.journal(), bytes).unwrap();
    let reader = Reader::open(&crashed.path()).unwrap();
    let mut verifier = Verifier::from_start();
    let found = reader
        .records_from(0)
        .find_map(|stored| verifier.take(&stored.unwrap().bytes).err());
    assert_eq!(found, Some(Finding::Altered { sequence: 3 }));
}

#[test]
fn the_journal_of_another_log_is_refused() {
    let crashed = Crashed::with(3, &[(2, 10)]);
    let other = Crashed::with(3, &[(2, 11)]);
    // Of the same age, and with the same numbers; its records follow others.
    let mine = std::fs::read(crashed.journal()).unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    for events in [["x", "y", "z"].as_slice(), &["u", "v"]] {
        let mut store = Store::open(elsewhere.path()).unwrap();
        store.append(events.iter(), 0).unwrap();
    }
    let foreign = std::fs::read(elsewhere.path().join(journal::FILE)).unwrap();
    let opened = crashed.open_edited(|journal| *journal = foreign);
    assert_eq!(finding(opened), Finding::Altered { sequence: 3 });
    // Where the same records came before, it is a log that could have been: the chain has no secret.
    assert_eq!(
        other.open_edited(|journal| *journal = mine).unwrap(),
        crashed.head()
    );
}

#[test]
fn a_journal_that_is_gone_or_cut_is_missed() {
    let crashed = Crashed::with(2, &[(3, 10)]);
    let cut = crashed.open_edited(|journal| journal.truncate(JOURNAL_BYTES - 1));
    assert!(matches!(cut, Err(StoreError::JournalCut(_))), "{cut:?}");
    std::fs::remove_file(crashed.journal()).unwrap();
    for opened in [
        Store::open(&crashed.path()).map(drop),
        Reader::open(&crashed.path()).map(drop),
    ] {
        assert!(matches!(opened, Err(StoreError::JournalAbsent(_))));
    }
    crashed.restore_journal();
    drop(Store::open(&crashed.path()).unwrap());
    // A log that was closed does not need it.
    std::fs::remove_file(crashed.journal()).unwrap();
    assert_eq!(Store::open(&crashed.path()).unwrap().head(), crashed.head());
}

#[test]
fn the_journal_goes_around() {
    let directory = tempfile::tempdir().unwrap();
    let live = directory.path().join("live");
    let mut store = Store::open(&live).unwrap();
    let large = vec![7; EVENT_BYTES_MAX];
    for round in 0..40 {
        // Frames of different lengths end at different places.
        store.append([&large[round * 1000..], b"small"], 0).unwrap();
        if round % 10 == 9 {
            while !store.reader.tail.frames().is_empty() {
                std::thread::yield_now();
            }
            let crashed = directory.path().join(format!("crashed{round}"));
            copy_database(&live, &crashed);
            let mut head = store.head();
            for _ in 0..6 {
                head = store.append([&large[1..], b"last"], 9).unwrap();
            }
            std::fs::copy(live.join(journal::FILE), crashed.join(journal::FILE)).unwrap();
            assert_eq!(Store::open(&crashed).unwrap().head(), head, "round {round}");
        }
    }
    let head = store.head();
    assert_eq!(verified(&store.reader()), head);
    drop(store);
    assert_eq!(verified(&Reader::open(&live).unwrap()), head);
}

#[test]
fn readers_see_the_whole_log_while_records_are_moved() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = Store::open(directory.path()).unwrap();
    let reader = store.reader();
    let (published, heads) = std::sync::mpsc::channel::<Head>();
    let reading = std::thread::spawn(move || {
        let mut count = 0;
        while let Ok(mut head) = heads.recv() {
            head = heads.try_iter().last().unwrap_or(head);
            let mut verifier = Verifier::from_start();
            let durable = reader
                .records_from(0)
                .take_while(|stored| stored.as_ref().unwrap().sequence <= head.sequence);
            for stored in durable {
                verifier.take(&stored.unwrap().bytes).unwrap();
            }
            assert_eq!(verifier.finish(Some(head)), Ok(head));
            count += 1;
        }
        count
    });
    for round in 0..1_500_usize {
        let events = vec![vec![b'e'; round % 97 * 30]; round % 7 + 1];
        published.send(store.append(events, 0).unwrap()).unwrap();
    }
    drop(published);
    assert!(reading.join().unwrap() > 1);
}

#[test]
fn a_mover_that_fails_fails_the_log() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = Store::open(directory.path()).unwrap();
    let head = store.append([b"acknowledged"], 0).unwrap();
    store.reader.tail.fail("no space left");
    let refused = store.append([b"refused"], 0);
    assert!(matches!(refused, Err(StoreError::Unmoved(_))));
    drop(store);
    // What was acknowledged is there.
    assert_eq!(Store::open(directory.path()).unwrap().head(), head);
}

#[test]
fn durability_is_what_was_asked_for() {
    for durability in [Durability::Disk, Durability::Process] {
        let directory = tempfile::tempdir().unwrap();
        let mut store = Store::open_with(directory.path(), durability).unwrap();
        assert_eq!(store.durability(), durability);
        let head = store.append([b"event"], 0).unwrap();
        drop(store);
        assert_eq!(verified(&Reader::open(directory.path()).unwrap()), head);
    }
}
