//! The database: all of sled behind this file. Why sled, and its risks: `docs/adr/0002-sled.md`.
//!
//! It owns keys, transactions and when they are on the disk. It must not know of the journal, nor
//! what records prove.

use std::convert::Infallible;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use interceptor_core::audit::chain::{EVENT_BYTES_MAX, Hash, Head};
use nix::sys::statvfs::statvfs;
use prost::Message as _;
use sled::transaction::{ConflictableTransactionError, TransactionError, Transactional as _};

use super::block::{Blocks, StoredRecord, VALUE_BYTES_MAX, stored_records};
use super::error::StoreError;

const _: () = assert!(EVENT_BYTES_MAX / VALUE_BYTES_MAX < u16::MAX as usize);

/// Reads need no more: the log is written far more than read.
const CACHE_BYTES: u64 = 16 * 1024 * 1024;

/// With less space than this free, no database is opened: sled writes when it opens one, also for
/// reading, and one that fails half-way can damage it.
const OPEN_BYTES_MIN: u64 = 8 * 1024 * 1024;

/// A database that was just closed may hold its lock for a moment while sled's threads end.
const LOCK_TRIES: u32 = 20;
const LOCK_RETRY: Duration = Duration::from_millis(50);

const FILE: &str = "db";
const RECORDS_TREE: &str = "records";
const META_TREE: &str = "meta";
const HEAD_KEY: &str = "head";

/// What is remembered beside the records, written in the same transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Stored {
    /// Where the records in the database end.
    pub(super) head: Head,
    /// The last request number handed out.
    pub(super) request_number: u64,
    /// Counts how often the log was opened.
    pub(super) epoch: u64,
    /// Where in the journal the records after `head` begin, in blocks.
    pub(super) journal_block: u64,
    /// There may be such records: the log was not closed.
    pub(super) is_open: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct StoredHead {
    #[prost(uint64, tag = "1")]
    sequence: u64,
    #[prost(bytes = "vec", tag = "2")]
    hash: Vec<u8>,
    #[prost(uint64, tag = "3")]
    request_number: u64,
    #[prost(uint64, tag = "4")]
    epoch: u64,
    #[prost(uint64, tag = "5")]
    journal_block: u64,
    #[prost(bool, tag = "6")]
    is_open: bool,
}

/// An open database; cheap to clone.
#[derive(Clone)]
pub(super) struct Database {
    path: PathBuf,
    database: sled::Db,
    records: sled::Tree,
    meta: sled::Tree,
}

impl Database {
    /// True if there is one in `path`. sled would make an empty one.
    pub(super) fn is_in(path: &Path) -> bool {
        path.join(FILE).is_file()
    }

    /// Opens the database in `path`, or makes one.
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        check_space(path, OPEN_BYTES_MIN)?;
        let config = sled::Config::new()
            .path(path)
            .cache_capacity(CACHE_BYTES)
            // The mover flushes; a timer would only hide a missing flush.
            .flush_every_ms(None);
        let database_error = |source| database_error(path, source);
        let mut tries = 1;
        let database = loop {
            match config.open() {
                Ok(database) => break database,
                Err(error) if is_locked(&error) && tries < LOCK_TRIES => {
                    tries += 1;
                    std::thread::sleep(LOCK_RETRY);
                }
                Err(error) if is_locked(&error) => {
                    return Err(StoreError::Locked(path.to_owned()));
                }
                Err(error) => return Err(database_error(error)),
            }
        };
        let records = database.open_tree(RECORDS_TREE).map_err(database_error)?;
        let meta = database.open_tree(META_TREE).map_err(database_error)?;
        Ok(Self {
            path: path.to_owned(),
            database,
            records,
            meta,
        })
    }

    /// Its directory.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What is remembered beside the records; all zeros in a new log.
    pub(super) fn stored(&self) -> Result<Stored, StoreError> {
        let unreadable = || StoreError::HeadUnreadable(self.path.clone());
        let bytes = self
            .meta
            .get(HEAD_KEY)
            .map_err(|source| self.database_error(source))?;
        let Some(bytes) = bytes else {
            return Ok(Stored::default());
        };
        let stored = StoredHead::decode(&*bytes).map_err(|_| unreadable())?;
        let hash = stored
            .hash
            .as_slice()
            .try_into()
            .map_err(|_| unreadable())?;
        Ok(Stored {
            head: Head {
                sequence: stored.sequence,
                hash: Hash(hash),
            },
            request_number: stored.request_number,
            epoch: stored.epoch,
            journal_block: stored.journal_block,
            is_open: stored.is_open,
        })
    }

    /// Puts records and what is remembered beside them into the database, all or nothing.
    /// [`Database::sync`] makes it durable.
    pub(super) fn insert(&self, blocks: &Blocks, stored: Stored) -> Result<(), StoreError> {
        let stored_head = StoredHead {
            sequence: stored.head.sequence,
            hash: stored.head.hash.0.to_vec(),
            request_number: stored.request_number,
            epoch: stored.epoch,
            journal_block: stored.journal_block,
            is_open: stored.is_open,
        }
        .encode_to_vec();
        (&self.records, &self.meta)
            .transaction(|(records, meta)| {
                for (sequence, index, value) in blocks.values() {
                    records.insert(key(sequence, index).as_slice(), value)?;
                }
                meta.insert(HEAD_KEY, stored_head.as_slice())?;
                Ok::<(), ConflictableTransactionError<Infallible>>(())
            })
            .map_err(|error| match error {
                TransactionError::Storage(source) => self.database_error(source),
                TransactionError::Abort(never) => match never {},
            })
    }

    /// Returns once all that was inserted is on the disk.
    pub(super) fn sync(&self) -> Result<(), StoreError> {
        self.database
            .flush()
            .map_err(|source| self.database_error(source))?;
        // sled's flush uses sync_file_range(2), which neither allocates blocks for certain nor
        // empties the disk's cache. fdatasync on the same file does.
        let path = self.path.join(FILE);
        File::open(&path)
            .and_then(|file| file.sync_data())
            .map_err(|source| StoreError::File { path, source })
    }

    /// The records from `sequence` on, in the order of their keys.
    pub(super) fn records_from(
        &self,
        sequence: u64,
    ) -> impl Iterator<Item = Result<StoredRecord, StoreError>> + use<> {
        let database = self.clone();
        // The block that holds it may begin before it.
        let begin = match self.records.range(..=key(sequence, u16::MAX)).next_back() {
            Some(Ok((key, _))) if key.len() == KEY_BYTES => sequence_of(&key),
            _ => sequence,
        };
        let mut chunks = self.records.range(key(begin, 0)..).peekable();
        let blocks = std::iter::from_fn(move || {
            let (first_key, first) = match chunks.next()? {
                Ok(entry) => entry,
                Err(source) => return Some(Err(database.database_error(source))),
            };
            let sequence = sequence_of(&first_key);
            let mut bytes = first.to_vec();
            let same_block = |next: &sled::Result<(sled::IVec, sled::IVec)>| matches!(next, Ok((key, _)) if sequence_of(key) == sequence);
            while let Some(Ok((_, chunk))) = chunks.next_if(same_block) {
                bytes.extend_from_slice(&chunk);
            }
            Some(Ok((sequence, bytes)))
        });
        blocks
            .flat_map(|block| match block {
                Ok((first, bytes)) => stored_records(first, bytes)
                    .into_iter()
                    .map(Ok)
                    .collect::<Vec<_>>(),
                Err(error) => vec![Err(error)],
            })
            .skip_while(move |stored| {
                // A foreign key has the number 0, and is for the verifier to name.
                matches!(stored, Ok(stored) if stored.sequence < sequence && stored.sequence != 0)
            })
    }

    fn database_error(&self, source: sled::Error) -> StoreError {
        database_error(&self.path, source)
    }
}

/// Refuses if less than `needed` bytes are free: sled does not take a full disk well.
pub(super) fn check_space(path: &Path, needed: u64) -> Result<(), StoreError> {
    let space = statvfs(path).map_err(|errno| StoreError::File {
        path: path.to_owned(),
        source: errno.into(),
    })?;
    let free = space
        .blocks_available()
        .saturating_mul(space.fragment_size());
    if free >= needed {
        return Ok(());
    }
    Err(StoreError::DiskFull {
        path: path.to_owned(),
        needed,
    })
}

const KEY_BYTES: usize = 10;

/// Sequence, then chunk, both big endian: sled's order is the log's.
fn key(sequence: u64, chunk: u16) -> [u8; KEY_BYTES] {
    let mut key = [0; KEY_BYTES];
    let (high, low) = key.split_at_mut(8);
    high.copy_from_slice(&sequence.to_be_bytes());
    low.copy_from_slice(&chunk.to_be_bytes());
    key
}

/// The number in a key. A key of another length is not ours: 0 is no record's number, and the
/// verifier will name it.
fn sequence_of(key: &[u8]) -> u64 {
    match <[u8; KEY_BYTES]>::try_from(key) {
        Ok([sequence @ .., _, _]) => u64::from_be_bytes(sequence),
        Err(_) => 0,
    }
}

/// sled 0.34 reports a held lock as an unspecific I/O error with this text.
fn is_locked(error: &sled::Error) -> bool {
    matches!(error, sled::Error::Io(error) if error.to_string().contains("could not acquire lock"))
}

fn database_error(path: &Path, source: sled::Error) -> StoreError {
    let path = path.to_owned();
    match source {
        sled::Error::Corruption { .. } => StoreError::Corrupt(path),
        source => StoreError::Database { path, source },
    }
}

/// What tests do to a database, as an attacker with root would.
#[cfg(test)]
impl Database {
    pub(super) fn records_tree(&self) -> &sled::Tree {
        &self.records
    }

    pub(super) fn flush(&self) {
        self.database.flush().unwrap();
    }

    pub(super) fn set_raw_head(&self, bytes: &[u8]) {
        self.meta.insert(HEAD_KEY, bytes).unwrap();
    }
}
