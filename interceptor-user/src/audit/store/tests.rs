//! The store, opened whole and damaged.

use interceptor_core::audit::chain::{EVENT_BYTES_MAX, Hash};

use super::super::block::Blocks;
use super::*;

fn events(count: usize) -> Vec<Vec<u8>> {
    (0..count)
        .map(|number| format!("event {number}").into_bytes())
        .collect()
}

fn log_of(directory: &Path, count: usize) -> Head {
    let mut store = Store::open(directory).unwrap();
    store.append(events(count), 0).unwrap()
}

fn finding_on_open(directory: &Path) -> Finding {
    match Store::open(directory) {
        Err(StoreError::Tampered { finding, .. }) => finding,
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("the log opened"),
    }
}

fn edit(directory: &Path, edit: impl FnOnce(&Database)) {
    let database = Database::open(directory).unwrap();
    edit(&database);
    database.flush();
}

fn store_head(database: &Database, head: Head) {
    let stored = Stored {
        head,
        ..Stored::default()
    };
    database.insert(&Blocks::default(), stored).unwrap();
}

/// A record in a block of its own, as earlier versions stored it and as an attacker can.
fn key(sequence: u64) -> [u8; 10] {
    let mut key = [0; 10];
    key[..8].copy_from_slice(&sequence.to_be_bytes());
    key
}

/// A log as earlier versions wrote it: a value for each record, and no journal.
fn old_log_of(directory: &Path, count: usize) -> Head {
    let database = Database::open(directory).unwrap();
    let mut head = Head::default();
    for event in events(count) {
        let record = Record::after(&head, event);
        head = record.head();
        let tree = database.records_tree();
        tree.insert(key(record.sequence), record.encode()).unwrap();
    }
    store_head(&database, head);
    database.flush();
    head
}

#[test]
fn a_log_survives_being_opened_again() {
    let directory = tempfile::tempdir().unwrap();
    let head = log_of(directory.path(), 3);
    let mut store = Store::open(directory.path()).unwrap();
    assert_eq!(store.head(), head);
    let head = store.append(events(2), 7).unwrap();
    assert_eq!(head.sequence, 5);
    drop(store);
    let store = Store::open(directory.path()).unwrap();
    assert_eq!((store.head(), store.request_number()), (head, 7));
}

#[test]
fn the_largest_event_is_read_back_whole() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = Store::open(directory.path()).unwrap();
    let event: Vec<u8> = (0..EVENT_BYTES_MAX).map(|i| (i % 251) as u8).collect();
    for _ in 0..20 {
        store
            .append(vec![event.clone(), b"small".to_vec()], 0)
            .unwrap();
    }
    let stored = store.reader().records_from(39).next().unwrap().unwrap();
    let record = Record::decode(&stored.bytes).unwrap();
    assert_eq!((record.sequence, &record.event), (39, &event));
    drop(store);
    let reader = Reader::open(directory.path()).unwrap();
    let stored = reader.records_from(39).next().unwrap().unwrap();
    assert_eq!(stored.bytes, record.encode());
    // Large pages go to files that are never synced: see VALUE_BYTES_MAX.
    let blobs = std::fs::read_dir(directory.path().join("blobs")).unwrap();
    assert_eq!(blobs.count(), 0);
}

#[test]
fn an_open_log_is_locked() {
    let directory = tempfile::tempdir().unwrap();
    let _open = Store::open(directory.path()).unwrap();
    assert!(matches!(
        Reader::open(directory.path()),
        Err(StoreError::Locked(_))
    ));
}

#[test]
fn only_the_owner_can_read_the_log() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("state/audit");
    log_of(&log, 1);
    for path in [log.as_path(), &directory.path().join("state")] {
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    }
}

#[test]
fn a_tail_is_verified_without_the_records_before_it() {
    let directory = tempfile::tempdir().unwrap();
    let tail = usize::try_from(TAIL_VERIFIED_RECORDS).unwrap();
    let head = old_log_of(directory.path(), tail + 5);
    assert_eq!(Store::open(directory.path()).unwrap().head(), head);
    edit(directory.path(), |database| {
        database.records_tree().remove(key(6)).unwrap();
    });
    assert_eq!(
        finding_on_open(directory.path()),
        Finding::Missing { sequence: 6 }
    );
}

#[test]
fn reading_makes_no_log() {
    let directory = tempfile::tempdir().unwrap();
    assert!(matches!(
        Reader::open(directory.path()),
        Err(StoreError::Absent(_))
    ));
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn a_head_that_is_behind_is_moved_on_if_the_chain_proves_it() {
    let directory = tempfile::tempdir().unwrap();
    let before = log_of(directory.path(), 3);
    let head = log_of(directory.path(), 2);
    edit(directory.path(), |database| store_head(database, before));
    assert_eq!(Store::open(directory.path()).unwrap().head(), head);
}

#[test]
fn a_head_that_is_behind_by_more_than_a_crash_can_leave_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let before = log_of(directory.path(), 3);
    log_of(directory.path(), AHEAD_RECORDS_MAX as usize + 1);
    edit(directory.path(), |database| store_head(database, before));
    assert_eq!(
        finding_on_open(directory.path()),
        Finding::BeyondHead { sequence: 4 }
    );
}

#[test]
fn records_that_do_not_continue_the_head_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let before = log_of(directory.path(), 3);
    log_of(directory.path(), 2);
    let elsewhere = Head {
        sequence: before.sequence,
        hash: Hash([9; 32]),
    };
    edit(directory.path(), |database| store_head(database, elsewhere));
    assert!(matches!(
        finding_on_open(directory.path()),
        Finding::Altered { sequence: 3 }
    ));
}

#[test]
fn a_cut_tail_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    old_log_of(directory.path(), 5);
    edit(directory.path(), |database| {
        database.records_tree().remove(key(5)).unwrap();
    });
    assert_eq!(
        finding_on_open(directory.path()),
        Finding::TruncatedTail { have: 4, head: 5 }
    );
}

#[test]
fn an_emptied_log_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    log_of(directory.path(), 5);
    edit(directory.path(), |database| {
        database.records_tree().clear().unwrap()
    });
    assert_eq!(
        finding_on_open(directory.path()),
        Finding::TruncatedTail { have: 0, head: 5 }
    );
}

#[test]
fn a_foreign_key_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    log_of(directory.path(), 5);
    edit(directory.path(), |database| {
        database.records_tree().insert(b"zzz", b"hidden").unwrap();
    });
    assert!(matches!(
        finding_on_open(directory.path()),
        Finding::Altered { .. }
    ));
}

#[test]
fn a_head_that_cannot_be_read_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    log_of(directory.path(), 5);
    edit(directory.path(), |database| {
        database.set_raw_head(b"\xff");
    });
    assert!(matches!(
        Store::open(directory.path()),
        Err(StoreError::HeadUnreadable(_))
    ));
}
