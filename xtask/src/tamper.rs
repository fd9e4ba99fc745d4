//! A forger: changes one record in a copy of the audit log, as somebody with root could.
//!
//! It goes through sled, so that the store's own checksums are right and only the chain can tell.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};

/// Copies the log directory `from` to `to`.
pub(crate) fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| format!("no log in {}", from.display()))? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// In the first record that holds `original`, puts `forged` in its place. The lengths are the
/// same, so that the record still decodes.
pub(crate) fn forge(directory: &Path, original: &str, forged: &str) -> Result<()> {
    ensure!(
        original.len() == forged.len(),
        "a forgery of another length would not decode"
    );
    let log = sled::open(directory).context("cannot open the copy of the log")?;
    for name in log.tree_names() {
        let tree = log.open_tree(&name)?;
        for entry in &tree {
            let (key, value) = entry?;
            let Some(at) = find(&value, original.as_bytes()) else {
                continue;
            };
            let mut bytes = value.to_vec();
            let end = at.saturating_add(forged.len());
            if let Some(place) = bytes.get_mut(at..end) {
                place.copy_from_slice(forged.as_bytes());
            }
            tree.insert(key, bytes)?;
            log.flush()?;
            return Ok(());
        }
    }
    bail!("no record holds {original:?}")
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes
        .windows(wanted.len())
        .position(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_one_record_of_the_copy_only() -> Result<()> {
        let scratch = tempfile::tempdir()?;
        let (log, copied) = (scratch.path().join("log"), scratch.path().join("copy"));
        {
            let store = sled::open(&log)?;
            let tree = store.open_tree("records")?;
            tree.insert([1], "SELECT one")?;
            tree.insert([2], "DELETE two")?;
            store.flush()?;
        }
        copy(&log, &copied)?;
        forge(&copied, "DELETE", "SELECT")?;
        let value = |path: &Path, key: u8| -> Result<Option<sled::IVec>> {
            Ok(sled::open(path)?.open_tree("records")?.get([key])?)
        };
        assert_eq!(value(&copied, 2)?.as_deref(), Some(&b"SELECT two"[..]));
        assert_eq!(value(&copied, 1)?.as_deref(), Some(&b"SELECT one"[..]));
        assert_eq!(value(&log, 2)?.as_deref(), Some(&b"DELETE two"[..]));
        assert!(forge(&copied, "absent", "missing").is_err());
        Ok(())
    }
}
