//! The log on disk: a journal in front of a database.
//!
//! It owns the way of a record: it gets its place in the chain, is durable in the
//! [journal](super::journal), is read from the [tail](super::tail) and ends in the
//! [database](super::database), where the [mover](super::mover) brings it. It owns the check when a
//! log is opened, too. It must not know who writes events or what they mean.

use std::fs::File;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use interceptor_core::audit::chain::{Head, Record, append_delimited};
use interceptor_core::audit::verify::{Finding, Verifier};

pub use super::block::StoredRecord;
use super::database::{Database, Stored, check_space};
pub use super::error::StoreError;
pub use super::journal::Durability;
use super::journal::replay::{Replayed, replay};
use super::journal::{self, FRAME_BYTES_SOFT, JOURNAL_BLOCKS, JOURNAL_BYTES, Journal};
use super::mover::{self, MOVE_BYTES_SOON};
use super::tail::{Frame, Tail};

/// The most records after the head that an earlier version's crash can have left: its transactions
/// took no more.
pub const AHEAD_RECORDS_MAX: u64 = 256;

/// How many records at the end are verified when a log is opened.
pub const TAIL_VERIFIED_RECORDS: u64 = 1_000;

/// With less space than this free, nothing is recorded: there is room left to open the log and read it.
pub const RESERVE_BYTES: u64 = 32 * 1024 * 1024;

/// An open log. There is one writer; readers get a [`Reader`].
pub struct Store {
    reader: Reader,
    journal: Journal,
    mover: Option<JoinHandle<()>>,
    stored: Stored,
    head: Head,
    request_number: u64,
    /// A write failed: what is in the journal is for the next start to say.
    is_failed: bool,
}

/// Reads records of an open log; cheap to clone.
#[derive(Clone)]
pub struct Reader {
    database: Database,
    tail: Arc<Tail>,
    /// Records come to the database and leave the tail meanwhile.
    is_live: bool,
}

impl Store {
    /// Opens the log in `path`, or makes one. Verifies its end against its head.
    ///
    /// # Errors
    /// If it cannot be opened, or its end is not as it was written.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Self::open_with(path, Durability::default())
    }

    /// The same, and events count as recorded when `durability` says.
    ///
    /// # Errors
    /// If it cannot be opened, or its end is not as it was written.
    pub fn open_with(path: &Path, durability: Durability) -> Result<Self, StoreError> {
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
        check_space(path, RESERVE_BYTES)?;
        let database = Database::open(path)?;
        let mut stored = recover(&database)?;
        stored.epoch = stored.epoch.saturating_add(1);
        stored.journal_block = 0;
        stored.is_open = true;
        let journal = Journal::open(path, stored.epoch, durability).map_err(file_error)?;
        // Until this is on the disk, what an earlier life left in the journal counts.
        mover::put(&database, std::iter::empty(), stored)?;
        // The names of the files and of their directory must survive a power failure too.
        let sync = |directory: &Path| File::open(directory).and_then(|file| file.sync_all());
        sync(path).map_err(file_error)?;
        path.canonicalize()
            .and_then(|path| path.parent().map_or(Ok(()), sync))
            .map_err(file_error)?;
        let tail = Arc::new(Tail::with_space(JOURNAL_BLOCKS));
        let mover = {
            let (database, tail) = (database.clone(), Arc::clone(&tail));
            std::thread::Builder::new()
                .name("audit-mover".to_owned())
                .spawn(move || mover::run(&database, &tail, stored.epoch))
                .map_err(file_error)?
        };
        Ok(Self {
            reader: Reader {
                database,
                tail,
                is_live: true,
            },
            journal,
            mover: Some(mover),
            stored,
            head: stored.head,
            request_number: stored.request_number,
            is_failed: false,
        })
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

    /// When events count as recorded.
    #[must_use]
    pub const fn durability(&self) -> Durability {
        self.journal.durability()
    }

    /// A reader of this log.
    #[must_use]
    pub fn reader(&self) -> Reader {
        self.reader.clone()
    }

    /// Appends encoded events and returns when they are durable. After an error the log's state on
    /// disk is unknown: the caller must not append again, but open the log anew.
    ///
    /// # Errors
    /// If the journal, the database or the disk fails.
    pub fn append<E: AsRef<[u8]>>(
        &mut self,
        events: impl IntoIterator<Item = E>,
        request_number: u64,
    ) -> Result<Head, StoreError> {
        let mut events = events.into_iter().peekable();
        while events.peek().is_some() {
            let mut head = self.head;
            let mut records = Vec::new();
            while records.len() < FRAME_BYTES_SOFT {
                let Some(event) = events.next() else { break };
                head = append_delimited(&head, event.as_ref(), &mut records);
            }
            if let Err(error) = self.commit(head, request_number, records) {
                self.is_failed = true;
                return Err(error);
            }
        }
        Ok(self.head)
    }

    fn commit(
        &mut self,
        head: Head,
        request_number: u64,
        records: Vec<u8>,
    ) -> Result<(), StoreError> {
        let first = self.head.sequence.saturating_add(1);
        let place @ (_, end) = self.journal.room_for(records.len());
        let tail = &self.reader.tail;
        tail.wait_for_space(end).map_err(StoreError::Unmoved)?;
        self.journal
            .write(first, request_number, &records, place)
            .map_err(|source| StoreError::File {
                path: self.reader.database.path().join(journal::FILE),
                source,
            })?;
        self.head = head;
        self.request_number = request_number;
        let frame = Frame {
            first,
            last: head,
            request_number,
            records,
            end_block: end,
        };
        tail.push(frame, MOVE_BYTES_SOON);
        Ok(())
    }
}

/// Closes the log: all of it is in the database then.
impl Drop for Store {
    fn drop(&mut self) {
        let tail = &self.reader.tail;
        tail.close();
        let ended = self.mover.take().map(JoinHandle::join);
        if self.is_failed || tail.failure().is_some() || !matches!(ended, Some(Ok(()))) {
            return;
        }
        let stored = Stored {
            head: self.head,
            request_number: self.request_number,
            is_open: false,
            ..self.stored
        };
        // A log that was not closed is as good: the next start looks into the journal.
        if let Err(error) = mover::put(&self.reader.database, std::iter::empty(), stored) {
            tracing::warn!(%error, "the audit log was not closed");
        }
    }
}

/// Verifies the end of the log, and brings what is only in the journal into the database.
fn recover(database: &Database) -> Result<Stored, StoreError> {
    let tampered = |finding| StoreError::Tampered {
        path: database.path().to_owned(),
        finding,
    };
    let mut stored = database.stored()?;
    let last = verify_tail(database, stored.head)?.map_err(tampered)?;
    if !stored.is_open {
        stored.head = last;
        return Ok(stored);
    }
    if last != stored.head {
        return Err(tampered(Finding::BeyondHead {
            sequence: stored.head.sequence.saturating_add(1),
        }));
    }
    let Replayed { frames, is_torn } = in_journal(database, stored)?;
    let mut verifier = Verifier::after(stored.head);
    for record in frames.iter().flat_map(stored_records) {
        verifier.take(&record.bytes).map_err(tampered)?;
    }
    if is_torn {
        tracing::warn!(
            "the last write of the audit log was cut off; nobody was told that it is recorded"
        );
    }
    let Some(end) = frames.last() else {
        return Ok(stored);
    };
    stored.head = verifier.finish(Some(end.last)).map_err(tampered)?;
    stored.request_number = stored.request_number.max(end.request_number);
    // It stays open with the same epoch, and nothing of it is left in the journal: a crash between
    // here and the new epoch finds no frame that is due.
    mover::put(database, frames.iter(), stored)?;
    Ok(stored)
}

fn in_journal(database: &Database, stored: Stored) -> Result<Replayed, StoreError> {
    let path = database.path();
    let bytes = journal::read(path).map_err(|source| StoreError::File {
        path: path.join(journal::FILE),
        source,
    })?;
    let bytes = bytes.ok_or_else(|| StoreError::JournalAbsent(path.to_owned()))?;
    // It had its size before the log was open for the first time.
    if bytes.len() != JOURNAL_BYTES {
        return Err(StoreError::JournalCut(path.to_owned()));
    }
    Ok(replay(
        bytes,
        stored.epoch,
        stored.journal_block,
        stored.head,
    ))
}

/// Verifies the end of the database, and returns its head. Records after the stored head are kept if
/// they continue its chain and are no more than a crash can have left; nothing is lost by that. Every
/// other disagreement is a finding.
fn verify_tail(database: &Database, head: Head) -> Result<Result<Head, Finding>, StoreError> {
    let trusted = match head.sequence.saturating_sub(TAIL_VERIFIED_RECORDS) {
        0 => Head::default(),
        sequence => match record(database, sequence)? {
            Ok(record) => record.head(),
            Err(finding) => return Ok(Err(finding)),
        },
    };
    let mut until_head = Verifier::after(trusted);
    let mut after_head = Verifier::after(head);
    for stored in database.records_from(trusted.sequence.saturating_add(1)) {
        let stored = stored?;
        let verifier = match stored.sequence <= head.sequence {
            true => &mut until_head,
            false => &mut after_head,
        };
        if let Err(finding) = verifier.take(&stored.bytes) {
            return Ok(Err(finding));
        }
    }
    Ok(until_head.finish(Some(head)).and_then(|_| {
        let last = after_head.finish(None)?;
        if last.sequence.saturating_sub(head.sequence) <= AHEAD_RECORDS_MAX {
            return Ok(last);
        }
        Err(Finding::BeyondHead {
            sequence: head.sequence.saturating_add(1),
        })
    }))
}

/// One record of the database; a finding if it is not there or not whole.
fn record(database: &Database, sequence: u64) -> Result<Result<Record, Finding>, StoreError> {
    let stored = database.records_from(sequence).next().transpose()?;
    let Some(stored) = stored.filter(|stored| stored.sequence == sequence) else {
        return Ok(Err(Finding::Missing { sequence }));
    };
    Ok(Record::decode(&stored.bytes)
        .ok()
        .filter(|record| record.sequence == sequence && record.agrees_with_itself())
        .ok_or(Finding::Altered { sequence }))
}

impl Reader {
    /// Opens an existing log, without verifying it: for a copy, or while no gateway runs.
    ///
    /// # Errors
    /// If there is none, or it cannot be opened.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        if !Database::is_in(path) {
            return Err(StoreError::Absent(path.to_owned()));
        }
        let database = Database::open(path)?;
        let stored = database.stored()?;
        let frames = match stored.is_open {
            true => in_journal(&database, stored)?.frames,
            false => Vec::new(),
        };
        Ok(Self {
            database,
            tail: Arc::new(Tail::of(frames)),
            is_live: false,
        })
    }

    /// Where the log ends.
    ///
    /// # Errors
    /// If the database fails.
    pub fn head(&self) -> Result<Head, StoreError> {
        match self.tail.frames().last() {
            Some(frame) => Ok(frame.last),
            None => Ok(self.database.stored()?.head),
        }
    }

    /// The records from `sequence` on, in the order in which they are stored.
    pub fn records_from(
        &self,
        sequence: u64,
    ) -> impl Iterator<Item = Result<StoredRecord, StoreError>> + use<> {
        // The tail first: what leaves it from now on is in the database.
        let frames = self.tail.frames();
        let tail_begins = match frames.first() {
            Some(frame) if self.is_live => frame.first,
            _ => u64::MAX,
        };
        let in_database = self.database.records_from(sequence).take_while(
            move |stored| !matches!(stored, Ok(stored) if stored.sequence >= tail_begins),
        );
        let in_tail = frames
            .into_iter()
            .filter(move |frame| frame.last.sequence >= sequence)
            .flat_map(|frame| stored_records(&frame))
            .filter(move |stored| stored.sequence >= sequence);
        in_database.chain(in_tail.map(Ok))
    }
}

fn stored_records(frame: &Frame) -> Vec<StoredRecord> {
    super::block::records(frame.first, &frame.records)
        .map(|(sequence, bytes)| StoredRecord {
            sequence,
            bytes: bytes.to_vec(),
        })
        .collect()
}

#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod tests;
