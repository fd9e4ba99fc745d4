//! Whether files changed.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::files::FILE_BYTES_MAX;

/// What files hold and who may read them, in short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FilesDigest([u8; 32]);

impl FilesDigest {
    /// Looks at them. What cannot be read counts as another content.
    pub(super) fn of(paths: &[PathBuf]) -> Self {
        let mut all = Sha256::new();
        for path in paths {
            all.update(one(path));
        }
        Self(all.finalize().into())
    }

    pub(crate) const fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

fn one(path: &Path) -> [u8; 32] {
    let mut digest = Sha256::new();
    digest.update(path.as_os_str().as_encoded_bytes());
    match read(path) {
        // Its mode as well: a key that others may read is refused until that changes.
        Ok((mode, uid, content)) => {
            digest.update([0]);
            digest.update(mode.to_be_bytes());
            digest.update(uid.to_be_bytes());
            digest.update(&content[..]);
        }
        Err(error) => digest.update(error.to_string()),
    }
    digest.finalize().into()
}

fn read(path: &Path) -> std::io::Result<(u32, u32, zeroize::Zeroizing<Vec<u8>>)> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    let mut content = zeroize::Zeroizing::new(Vec::new());
    file.take(FILE_BYTES_MAX).read_to_end(&mut content)?;
    Ok((metadata.mode(), metadata.uid(), content))
}
