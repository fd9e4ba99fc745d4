//! Which program a process runs, and the SHA-256 of its file.
//!
//! Hashes are remembered by everything that tells a file and its content apart.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use sha2::{Digest as _, Sha256};

/// Hashes that are remembered.
const HASHES_MAX: usize = 4096;

/// Larger files are not hashed.
const FILE_BYTES_MAX: u64 = 512 * 1024 * 1024;

/// A file that changed so lately could change again without its times telling.
const SETTLED_AFTER_SECONDS: i64 = 2;

const CHUNK_BYTES: usize = 256 * 1024;

/// SHA-256 of a file; `None` where it is not known for certain.
pub(super) type FileHash = Option<[u8; 32]>;

/// What tells a file and its content apart from every other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct FileKey {
    /// The mount; unlike a device number it is never used again.
    mount: u64,
    device: (u32, u32),
    inode: u64,
    bytes: u64,
    modified: (i64, u32),
    changed: (i64, u32),
}

/// Hashes of executables by file.
#[derive(Debug, Default)]
pub(super) struct Hashes {
    known: Mutex<HashMap<FileKey, Arc<OnceLock<FileHash>>>>,
}

impl Hashes {
    /// The hash of an open file. Blocks for as long as the file takes to read.
    pub(super) fn hash(&self, file: &File) -> FileHash {
        let (key, is_unique) = file_key(file).ok()?;
        if key.bytes > FILE_BYTES_MAX {
            return None;
        }
        if !is_unique || !is_settled(&key) {
            return hash_unchanged(file, &key);
        }
        // Many processes of one program at once read its file once.
        let place = self.place(key);
        let hash = *place.get_or_init(|| hash_unchanged(file, &key));
        if hash.is_none() {
            self.lock().remove(&key);
        }
        hash
    }

    fn place(&self, key: FileKey) -> Arc<OnceLock<FileHash>> {
        let mut known = self.lock();
        if known.len() >= HASHES_MAX {
            known.clear();
        }
        Arc::clone(known.entry(key).or_default())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<FileKey, Arc<OnceLock<FileHash>>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The hash, if the file did not change while it was read.
fn hash_unchanged(file: &File, key: &FileKey) -> FileHash {
    let hash = sha256(file).ok()?;
    file_key(file)
        .is_ok_and(|(after, _)| after == *key)
        .then_some(hash)
}

fn sha256(mut file: &File) -> io::Result<[u8; 32]> {
    let mut hasher = Sha256::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        match file.read(&mut chunk)? {
            0 => return Ok(hasher.finalize().into()),
            count => hasher.update(chunk.get(..count).unwrap_or_default()),
        }
    }
}

fn is_settled(key: &FileKey) -> bool {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(0));
    now.saturating_sub(key.changed.0) > SETTLED_AFTER_SECONDS
}

/// The key, and whether no other file can ever have it: before Linux 6.8 a mount's number, and always
/// the device number of a file system without a device, goes to another one later.
fn file_key(file: &File) -> io::Result<(FileKey, bool)> {
    let mut found = MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: the descriptor is open, the path is empty and ends in zero, and there is room.
    let result = unsafe {
        libc::statx(
            file.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            libc::STATX_BASIC_STATS | libc::STATX_MNT_ID_UNIQUE,
            found.as_mut_ptr(),
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: zeroes are a value of this type, and the kernel wrote over them.
    let found = unsafe { found.assume_init() };
    let is_unique = found.stx_mask & libc::STATX_MNT_ID_UNIQUE != 0 || found.stx_dev_major != 0;
    let key = FileKey {
        mount: found.stx_mnt_id,
        device: (found.stx_dev_major, found.stx_dev_minor),
        inode: found.stx_ino,
        bytes: found.stx_size,
        modified: (found.stx_mtime.tv_sec, found.stx_mtime.tv_nsec),
        changed: (found.stx_ctime.tv_sec, found.stx_ctime.tv_nsec),
    };
    Ok((key, is_unique))
}

/// Whether the path leads, for this process, to the very file: another mount namespace, a removed
/// file or a file in memory has a path that means something else here, or nothing.
pub(super) fn is_here(path: &Path, file: &File) -> bool {
    let (Ok(named), Ok(opened)) = (std::fs::metadata(path), file.metadata()) else {
        return false;
    };
    (named.dev(), named.ino()) == (opened.dev(), opened.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_file_has_another_hash() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("program");
        let hashes = Hashes::default();
        let mut seen = Vec::new();
        for content in ["one", "two"] {
            std::fs::write(&path, content).unwrap();
            let file = File::open(&path).unwrap();
            let hash = hashes.hash(&file).unwrap();
            assert_eq!(hash, <[u8; 32]>::from(Sha256::digest(content)));
            seen.push(hash);
        }
        assert_ne!(seen[0], seen[1]);
    }

    #[test]
    fn a_file_of_long_ago_is_read_once() {
        let path = std::env::current_exe().unwrap();
        let file = File::open(&path).unwrap();
        let hashes = Hashes::default();
        let (key, is_unique) = file_key(&file).unwrap();
        assert!(is_unique);
        let hash = hashes.hash(&file);
        assert_eq!(hash, Some(sha256(&File::open(&path).unwrap()).unwrap()));
        if is_settled(&key) {
            // Its offset is at the end: a second reading would give the hash of nothing.
            assert_eq!(hashes.hash(&file), hash);
            assert_eq!(hashes.lock().len(), 1);
        }
    }

    #[test]
    fn what_is_too_large_has_no_hash() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(FILE_BYTES_MAX + 1).unwrap();
        assert_eq!(Hashes::default().hash(&file), None);
    }

    #[test]
    fn a_removed_file_is_not_here() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("program");
        std::fs::write(&path, "one").unwrap();
        let file = File::open(&path).unwrap();
        assert!(is_here(&path, &file));
        std::fs::remove_file(&path).unwrap();
        assert!(!is_here(&path, &file));
        std::fs::write(&path, "two").unwrap();
        assert!(!is_here(&path, &file));
    }
}
