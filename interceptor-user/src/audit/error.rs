//! Why the log cannot be opened, read or written.

use std::path::PathBuf;

use interceptor_core::audit::verify::Finding;

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
    /// The journal is not there, though the log was not closed.
    #[error(
        "the audit log in {0} was not closed, and the file `journal` beside it is missing: the last \
         records are in it; put it back, or restore a backup or move the directory away to start a \
         new log"
    )]
    JournalAbsent(PathBuf),
    /// The journal is shorter than it was made.
    #[error(
        "the file `journal` of the audit log in {0} was cut: the last records are in it; keep a copy \
         for examination, then restore a backup or move the directory away to start a new log"
    )]
    JournalCut(PathBuf),
    /// Nearly no space is left.
    #[error(
        "less than {} MiB are free for the audit log in {path}, and its database needs them, also to \
         be read; make room, or to read it copy the directory to another disk and give it with --dir",
        needed / (1024 * 1024)
    )]
    DiskFull {
        /// Its directory.
        path: PathBuf,
        /// How many bytes have to be free.
        needed: u64,
    },
    /// Records cannot be moved from the journal to the database any more.
    #[error("{0}")]
    Unmoved(std::sync::Arc<str>),
}
