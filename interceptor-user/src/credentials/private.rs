//! Files that hold secrets: read only if nobody else can.

use std::fs::{File, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use nix::unistd::geteuid;
use zeroize::Zeroizing;

use super::CredentialError;

/// Bits of a mode by which others may read, or anybody but the owner write: what PostgreSQL refuses of
/// its own key files.
const EXPOSED: u32 = 0o027;

/// Reads up to `bytes_max` bytes.
pub(super) fn read(path: &Path, bytes_max: usize) -> Result<Zeroizing<Vec<u8>>, CredentialError> {
    let shown = || path.display().to_string();
    let failed = |source| CredentialError::File {
        path: shown(),
        source,
    };
    let file = open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        let kind = std::io::ErrorKind::InvalidInput;
        return Err(failed(std::io::Error::new(kind, "it is not a file")));
    }
    if metadata.uid() != 0 && metadata.uid() != geteuid().as_raw() {
        return Err(CredentialError::Foreign { path: shown() });
    }
    if metadata.mode() & EXPOSED != 0 {
        return Err(CredentialError::Exposed { path: shown() });
    }
    // Room for all of it: a buffer that grew would leave copies behind.
    let room = usize::try_from(metadata.len()).unwrap_or(usize::MAX);
    let mut bytes = Zeroizing::new(Vec::with_capacity(room.min(bytes_max) + 64));
    let limit = u64::try_from(bytes_max).unwrap_or(u64::MAX);
    file.take(limit).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

/// Nothing that is no file keeps the gateway waiting.
fn open(path: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(nix::libc::O_NONBLOCK);
    options.open(path)
}
