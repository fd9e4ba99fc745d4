//! The journal: a file of fixed size in front of the database, where commits become durable.
//!
//! It is written around and around. Its bytes are there before they are needed, so that a commit is
//! one write in place that changes nothing of the file system. Why: `docs/adr/0031-journal.md`.
//!
//! It owns the file, and what "durable" means. What lies in it is [`frame`]'s, what was found in it
//! after a crash [`replay`]'s; how long a frame has to stay is the [tail](super::tail)'s.

pub(in crate::audit) mod frame;
pub(in crate::audit) mod replay;

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use interceptor_core::audit::chain::EVENT_BYTES_MAX;

use frame::{BLOCK_BYTES, Stamp, blocks_for, lay_out};

/// The journal's size. A commit takes at least a block of 4 KiB.
pub(in crate::audit) const JOURNAL_BYTES: usize = 16 * 1024 * 1024;

/// Its size in blocks.
pub(in crate::audit) const JOURNAL_BLOCKS: u64 = (JOURNAL_BYTES / BLOCK_BYTES) as u64;

/// A commit takes no further record once it holds this many bytes.
pub(in crate::audit) const FRAME_BYTES_SOFT: usize = 1024 * 1024;

// The largest frame leaves room for others while it is moved.
const _: () = assert!(4 * (FRAME_BYTES_SOFT + EVENT_BYTES_MAX) < JOURNAL_BYTES);

/// Its name in the directory of the log.
pub(in crate::audit) const FILE: &str = "journal";

/// When an event counts as recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// Once the disk has it: it survives a power cut.
    #[default]
    Disk,
    /// Once the kernel has it: it survives the gateway's death, not the machine's.
    Process,
}

/// How writes reach the disk.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Past the page cache, and durable when the write returns.
    Direct,
    /// Through the page cache, with an `fdatasync(2)` after each.
    Synced,
    /// Into the page cache only.
    Handed,
}

/// The journal of an open log, for its one writer.
pub(in crate::audit) struct Journal {
    file: File,
    path: PathBuf,
    way: Way,
    epoch: u64,
    /// Where the next frame goes, in blocks since the log was opened.
    next_block: u64,
    /// For direct writes, which have to begin at a multiple of a block in memory, too.
    buffer: Vec<u8>,
}

/// Where in the file a block is that was counted since the log was opened.
pub(in crate::audit) const fn place_of(block: u64) -> u64 {
    block % JOURNAL_BLOCKS
}

/// The bytes of the journal in `directory`; `None` if there is none.
pub(in crate::audit) fn read(directory: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(directory.join(FILE)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(JOURNAL_BYTES as u64).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

impl Journal {
    /// Opens the journal in `directory` for new frames, or makes it. What is in it may be
    /// overwritten from now on.
    pub(in crate::audit) fn open(
        directory: &Path,
        epoch: u64,
        durability: Durability,
    ) -> io::Result<Self> {
        let path = directory.join(FILE);
        make(&path)?;
        let (file, way) = open_for(&path, durability)?;
        Ok(Self {
            file,
            path,
            way,
            epoch,
            next_block: 0,
            buffer: Vec::new(),
        })
    }

    /// When its frames count as recorded.
    pub(in crate::audit) const fn durability(&self) -> Durability {
        match self.way {
            Way::Direct | Way::Synced => Durability::Disk,
            Way::Handed => Durability::Process,
        }
    }

    /// Where a frame with so many bytes of records begins, and where it ends. It does not go around
    /// the end of the file.
    pub(in crate::audit) fn room_for(&self, records_bytes: usize) -> (u64, u64) {
        let blocks = blocks_for(records_bytes) as u64;
        let left = JOURNAL_BLOCKS - place_of(self.next_block);
        let skipped = if blocks > left { left } else { 0 };
        let begin = self.next_block.saturating_add(skipped);
        (begin, begin.saturating_add(blocks))
    }

    /// Writes a frame to the place that [`Journal::room_for`] gave, and returns once it is durable.
    pub(in crate::audit) fn write(
        &mut self,
        first: u64,
        request_number: u64,
        records: &[u8],
        (begin, end): (u64, u64),
    ) -> io::Result<()> {
        let bytes = blocks_for(records.len()) * BLOCK_BYTES;
        if self.buffer.len() < bytes + BLOCK_BYTES {
            self.buffer = vec![0; bytes + BLOCK_BYTES];
        }
        let shift = self.buffer.as_ptr().align_offset(BLOCK_BYTES);
        let blocks = self
            .buffer
            .get_mut(shift..)
            .and_then(|aligned| aligned.get_mut(..bytes))
            .ok_or(io::ErrorKind::OutOfMemory)?;
        let stamp = Stamp {
            epoch: self.epoch,
            first,
        };
        lay_out(stamp, request_number, records, blocks);
        let offset = place_of(begin) * BLOCK_BYTES as u64;
        let mut written = self.file.write_all_at(blocks, offset);
        // A file system that opens files for direct writing and cannot do it says so here.
        if self.way == Way::Direct
            && matches!(&written, Err(error) if error.raw_os_error() == Some(libc::EINVAL))
        {
            self.file = OpenOptions::new().write(true).open(&self.path)?;
            self.way = Way::Synced;
            written = self.file.write_all_at(blocks, offset);
        }
        written?;
        if self.way == Way::Synced {
            self.file.sync_data()?;
        }
        self.next_block = end;
        Ok(())
    }
}

fn open_for(path: &Path, durability: Durability) -> io::Result<(File, Way)> {
    let mut options = OpenOptions::new();
    options.write(true);
    if durability == Durability::Process {
        return Ok((options.open(path)?, Way::Handed));
    }
    let direct = options
        .clone()
        .custom_flags(libc::O_DIRECT | libc::O_DSYNC)
        .open(path);
    match direct {
        Ok(file) => Ok((file, Way::Direct)),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            Ok((options.open(path)?, Way::Synced))
        }
        Err(error) => Err(error),
    }
}

/// Makes the file as long as it has to be, with bytes that are really on the disk.
fn make(path: &Path) -> io::Result<()> {
    let is_new = !path.exists();
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)?;
    let made = lengthen(&mut file);
    if made.is_err() && is_new {
        // On a full disk it would only be in the way. That it could not be made is what counts.
        let _ = std::fs::remove_file(path);
    }
    made
}

fn lengthen(file: &mut File) -> io::Result<()> {
    let length = usize::try_from(file.seek(SeekFrom::End(0))?).unwrap_or(usize::MAX);
    if length == JOURNAL_BYTES {
        return Ok(());
    }
    // A longer one is not ours; what is beyond the end is never read.
    let mut missing = JOURNAL_BYTES.saturating_sub(length);
    let zeros = vec![0; 1024 * 1024];
    while missing > 0 {
        let piece = zeros.get(..missing.min(zeros.len())).unwrap_or(&zeros);
        file.write_all(piece)?;
        missing -= piece.len();
    }
    file.sync_all()
}
