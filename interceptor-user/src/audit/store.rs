//! The log on disk: all of sled behind this file. Why sled, and its risks: `docs/adr/0002-sled.md`.
//!
//! It owns keys, transactions, durability and the check when a log is opened. It must not know
//! who writes events or what they mean.

use std::convert::Infallible;
use std::fs::File;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use interceptor_core::audit::chain::{EVENT_BYTES_MAX, Hash, Head, Record};
use interceptor_core::audit::verify::{Finding, Verifier};
use prost::Message as _;
use sled::transaction::{ConflictableTransactionError, TransactionError, Transactional as _};

/// The most events that one transaction takes.
pub const BATCH_EVENTS_MAX: usize = 256;

/// How many records at the end are verified when a log is opened.
pub const TAIL_VERIFIED_RECORDS: u64 = 1_000;

/// Records are cut into values of at most this size. A sled page holds up to 17 values, and a page
/// above 128 KiB moves into a file of its own that sled never syncs.
const CHUNK_BYTES_MAX: usize = 6 * 1024;
const _: () = assert!(EVENT_BYTES_MAX / CHUNK_BYTES_MAX < u16::MAX as usize);

/// Reads need no more: the log is written far more than read.
const CACHE_BYTES: u64 = 16 * 1024 * 1024;

/// A database that was just closed may hold its lock for a moment while sled's threads end.
const LOCK_TRIES: u32 = 20;
const LOCK_RETRY: Duration = Duration::from_millis(50);

const RECORDS_TREE: &str = "records";
const META_TREE: &str = "meta";
const HEAD_KEY: &str = "head";

/// Why the log cannot be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Bytes of the database do not agree with its checksums.
    #[error(
        "the audit database in {0} was altered, by somebody or by a fault of the disk: its checksums do not agree; keep a copy for examination, and go on with a log directory from a backup or a new one"
    )]
    Corrupt(PathBuf),
    /// No log there.
    #[error("no audit log in {0}; give the directory that holds its `db` file")]
    Absent(PathBuf),
    /// Another process has it open.
    #[error("the audit log in {0} is open in another process; ask the running gateway, or stop it")]
    Locked(PathBuf),
    /// The database failed: a full disk, a broken file.
    #[error("the audit database in {path} failed: {source}; check the disk's space and health")]
    Database {
        /// Its directory.
        path: PathBuf,
        /// What sled said.
        source: sled::Error,
    },
    /// A file operation failed.
    #[error("{path}: {source}; check the disk's space, health and permissions")]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The end of the log is not as it was written.
    #[error(
        "the audit log in {path} is damaged or was tampered with: {finding}; keep a copy for \
         examination, then restore a backup or move the directory away to start a new log"
    )]
    Tampered {
        /// Its directory.
        path: PathBuf,
        /// What is wrong.
        finding: Finding,
    },
    /// The head's own entry cannot be read.
    #[error(
        "the head of the audit log in {0} cannot be read; keep a copy for examination, then \
         restore a backup or move the directory away to start a new log"
    )]
    HeadUnreadable(PathBuf),
}

/// What is remembered beside the records, written in the same transaction.
#[derive(Clone, PartialEq, prost::Message)]
struct StoredHead {
    #[prost(uint64, tag = "1")]
    sequence: u64,
    #[prost(bytes = "vec", tag = "2")]
    hash: Vec<u8>,
    /// The last request number handed out.
    #[prost(uint64, tag = "3")]
    request_number: u64,
}

/// An open log. There is one writer; readers get a [`Reader`].
pub struct Store {
    reader: Reader,
    database_file: File,
    head: Head,
    request_number: u64,
}

/// Reads records of an open log; cheap to clone.
#[derive(Clone)]
pub struct Reader {
    path: PathBuf,
    database: sled::Db,
    records: sled::Tree,
    meta: sled::Tree,
}

impl Store {
    /// Opens the log in `path`, or makes one. Verifies its end against its head.
    ///
    /// # Errors
    /// If it cannot be opened, or its end is not as it was written.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let file_error = |source| StoreError::File {
            path: path.to_owned(),
            source,
        };
        // What people typed is in it: for its owner only.
        let mut directory = std::fs::DirBuilder::new();
        directory
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(file_error)?;
        let reader = Reader::open_database(path)?;
        let database_file = File::open(path.join("db")).map_err(file_error)?;
        // The names of the file and of its directory must survive a power failure too.
        let sync = |directory: &Path| File::open(directory).and_then(|file| file.sync_all());
        sync(path).map_err(file_error)?;
        path.canonicalize()
            .and_then(|path| path.parent().map_or(Ok(()), sync))
            .map_err(file_error)?;
        let (head, request_number) = reader.stored_head()?;
        let mut store = Self {
            reader,
            database_file,
            head,
            request_number,
        };
        store.head = store.verify_tail()?;
        Ok(store)
    }

    /// The last record's number and hash.
    #[must_use]
    pub const fn head(&self) -> Head {
        self.head
    }

    /// The last request number that was stored.
    #[must_use]
    pub const fn request_number(&self) -> u64 {
        self.request_number
    }

    /// A reader of this log.
    #[must_use]
    pub fn reader(&self) -> Reader {
        self.reader.clone()
    }

    /// Appends encoded events and returns when they are on the disk. After an error the log's
    /// state on disk is unknown: the caller must not append again, but open the log anew.
    ///
    /// # Errors
    /// If the database or the disk fails.
    pub fn append(
        &mut self,
        events: Vec<Vec<u8>>,
        request_number: u64,
    ) -> Result<Head, StoreError> {
        let mut head = self.head;
        let mut chunks = Vec::with_capacity(events.len());
        for event in events {
            let record = Record::after(&head, event);
            head = record.head();
            for (index, chunk) in (0..=u16::MAX).zip(record.encode().chunks(CHUNK_BYTES_MAX)) {
                chunks.push((key(record.sequence, index), chunk.to_vec()));
            }
        }
        let stored_head = StoredHead {
            sequence: head.sequence,
            hash: head.hash.0.to_vec(),
            request_number,
        }
        .encode_to_vec();
        (&self.reader.records, &self.reader.meta)
            .transaction(|(records, meta)| {
                for (key, chunk) in &chunks {
                    records.insert(key.as_slice(), chunk.as_slice())?;
                }
                meta.insert(HEAD_KEY, stored_head.as_slice())?;
                Ok::<(), ConflictableTransactionError<Infallible>>(())
            })
            .map_err(|error| self.reader.transaction_error(error))?;
        self.reader
            .database
            .flush()
            .map_err(|source| self.reader.database_error(source))?;
        // sled's flush uses sync_file_range(2), which neither allocates blocks for certain nor
        // empties the disk's cache. fdatasync on the same file does.
        self.database_file
            .sync_data()
            .map_err(|source| StoreError::File {
                path: self.reader.path.join("db"),
                source,
            })?;
        self.head = head;
        self.request_number = request_number;
        Ok(head)
    }

    /// Verifies the end of the log, and returns its head. Records after the stored head are kept if
    /// they continue its chain and fit in one transaction, which is what a crash can leave; nothing
    /// is lost by that. Every other disagreement is an error.
    fn verify_tail(&self) -> Result<Head, StoreError> {
        let tampered = |finding| StoreError::Tampered {
            path: self.reader.path.clone(),
            finding,
        };
        let trusted = match self.head.sequence.saturating_sub(TAIL_VERIFIED_RECORDS) {
            0 => Head::default(),
            sequence => self.reader.record(sequence)?.map_err(tampered)?.head(),
        };
        let mut until_head = Verifier::after(trusted);
        let mut after_head = Verifier::after(self.head);
        for stored in self.reader.records_from(trusted.sequence.saturating_add(1)) {
            let stored = stored?;
            let verifier = match stored.sequence <= self.head.sequence {
                true => &mut until_head,
                false => &mut after_head,
            };
            verifier.take(&stored.bytes).map_err(tampered)?;
        }
        until_head.finish(Some(self.head)).map_err(tampered)?;
        let last = after_head.finish(None).map_err(tampered)?;
        let ahead = last.sequence.saturating_sub(self.head.sequence);
        if usize::try_from(ahead).is_ok_and(|ahead| ahead <= BATCH_EVENTS_MAX) {
            return Ok(last);
        }
        Err(tampered(Finding::BeyondHead {
            sequence: self.head.sequence.saturating_add(1),
        }))
    }
}

/// A record as it lies in the database, not yet verified.
pub struct StoredRecord {
    /// The number that it is stored under.
    pub sequence: u64,
    /// The encoded record.
    pub bytes: Vec<u8>,
}

impl Reader {
    /// Opens an existing log, without verifying it: for a copy, or while no gateway runs.
    ///
    /// # Errors
    /// If there is none, or it cannot be opened.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        // sled would make an empty one.
        if !path.join("db").is_file() {
            return Err(StoreError::Absent(path.to_owned()));
        }
        Self::open_database(path)
    }

    /// The head that is stored beside the records.
    ///
    /// # Errors
    /// If the database fails.
    pub fn head(&self) -> Result<Head, StoreError> {
        Ok(self.stored_head()?.0)
    }

    /// The records from `sequence` on, in the order of their keys.
    pub fn records_from(
        &self,
        sequence: u64,
    ) -> impl Iterator<Item = Result<StoredRecord, StoreError>> + use<> {
        let reader = self.clone();
        let mut chunks = self.records.range(key(sequence, 0)..).peekable();
        std::iter::from_fn(move || {
            let (first_key, first) = match chunks.next()? {
                Ok(entry) => entry,
                Err(source) => return Some(Err(reader.database_error(source))),
            };
            let sequence = sequence_of(&first_key);
            let mut bytes = first.to_vec();
            let same_record = |next: &sled::Result<(sled::IVec, sled::IVec)>| matches!(next, Ok((key, _)) if sequence_of(key) == sequence);
            while let Some(Ok((_, chunk))) = chunks.next_if(same_record) {
                bytes.extend_from_slice(&chunk);
            }
            Some(Ok(StoredRecord { sequence, bytes }))
        })
    }

    /// One record; a finding if it is not there or not whole.
    fn record(&self, sequence: u64) -> Result<Result<Record, Finding>, StoreError> {
        let stored = self.records_from(sequence).next().transpose()?;
        let Some(stored) = stored.filter(|stored| stored.sequence == sequence) else {
            return Ok(Err(Finding::Missing { sequence }));
        };
        Ok(Record::decode(&stored.bytes)
            .ok()
            .filter(|record| record.sequence == sequence && record.agrees_with_itself())
            .ok_or(Finding::Altered { sequence }))
    }

    fn open_database(path: &Path) -> Result<Self, StoreError> {
        let config = sled::Config::new()
            .path(path)
            .cache_capacity(CACHE_BYTES)
            // The writer flushes; a timer would only hide a missing flush.
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

    /// The head and the last request number; both zero in a new log.
    fn stored_head(&self) -> Result<(Head, u64), StoreError> {
        let unreadable = || StoreError::HeadUnreadable(self.path.clone());
        let Some(bytes) = self
            .meta
            .get(HEAD_KEY)
            .map_err(|source| self.database_error(source))?
        else {
            return Ok((Head::default(), 0));
        };
        let stored = StoredHead::decode(&*bytes).map_err(|_| unreadable())?;
        let hash = stored
            .hash
            .as_slice()
            .try_into()
            .map_err(|_| unreadable())?;
        Ok((
            Head {
                sequence: stored.sequence,
                hash: Hash(hash),
            },
            stored.request_number,
        ))
    }

    fn database_error(&self, source: sled::Error) -> StoreError {
        database_error(&self.path, source)
    }

    fn transaction_error(&self, error: TransactionError<Infallible>) -> StoreError {
        match error {
            TransactionError::Storage(source) => self.database_error(source),
            TransactionError::Abort(never) => match never {},
        }
    }
}

/// Sequence, then chunk, both big endian: sled's order is the log's.
fn key(sequence: u64, chunk: u16) -> [u8; 10] {
    let mut key = [0; 10];
    let (high, low) = key.split_at_mut(8);
    high.copy_from_slice(&sequence.to_be_bytes());
    low.copy_from_slice(&chunk.to_be_bytes());
    key
}

/// The number in a key. A key of another length is not ours: 0 is no record's number, and the
/// verifier will name it.
fn sequence_of(key: &[u8]) -> u64 {
    match <[u8; 10]>::try_from(key) {
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

#[cfg(test)]
mod tests;
