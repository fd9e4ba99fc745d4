//! What a gateway leaves to the next: the addresses that names had.
//!
//! It owns a small file. Without it a crash would let go at once what was to stay for its grace. A file
//! that is lost or broken costs just that, so nothing fails for it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::lookup::is_hostile;
use super::{ADDRESSES_HELD_MAX, NameRow};

/// The largest file that is read.
const BYTES_MAX: u64 = 32 * 1024 * 1024;

/// By name.
pub type Remembered = BTreeMap<String, BTreeSet<IpAddr>>;

/// The file, and what is in it.
#[derive(Debug)]
pub struct Memory {
    path: PathBuf,
    content: Remembered,
}

impl Memory {
    /// Reads the file; a broken one is as good as none.
    pub fn open(path: PathBuf) -> Self {
        let content = match read(&path) {
            Ok(content) => content,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Remembered::new(),
            Err(error) => {
                let path = path.display();
                tracing::warn!(%error, "{path} cannot be read: addresses that names had before are not known");
                Remembered::new()
            }
        };
        Self { path, content }
    }

    /// What was kept last.
    pub fn content(&self) -> &Remembered {
        &self.content
    }

    /// Keeps what names have now.
    pub fn keep(&mut self, rows: &[NameRow]) {
        let content: Remembered = rows
            .iter()
            .map(|row| {
                let addresses = row.addresses.iter().map(|address| address.address);
                (row.name.clone(), addresses.collect())
            })
            .collect();
        if content == self.content {
            return;
        }
        if let Err(error) = write(&self.path, &content) {
            let path = self.path.display();
            tracing::warn!(%error, "{path} cannot be written: after a crash, addresses that names have no more are let go at once");
        }
        // Not again and again, if it cannot be written.
        self.content = content;
    }
}

fn read(path: &Path) -> io::Result<Remembered> {
    let mut text = Vec::new();
    fs::File::open(path)?
        .take(BYTES_MAX)
        .read_to_end(&mut text)?;
    let mut content: Remembered = serde_json::from_slice(&text)?;
    for addresses in content.values_mut() {
        let known = addresses.iter().map(IpAddr::to_canonical);
        *addresses = known
            .filter(|address| !is_hostile(address))
            .take(ADDRESSES_HELD_MAX)
            .collect();
    }
    Ok(content)
}

/// There is an old file or a new one, and never a part of one.
fn write(path: &Path, content: &Remembered) -> io::Result<()> {
    let scratch = path.with_extension("new");
    fs::write(&scratch, serde_json::to_vec(content)?)?;
    fs::rename(&scratch, path)
}

#[cfg(test)]
mod tests {
    use super::super::AddressRow;
    use super::*;

    #[test]
    fn it_is_read_back_and_hostile_addresses_are_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("names.json");
        let mut memory = Memory::open(path.clone());
        assert!(memory.content().is_empty());
        let addresses = ["10.0.0.1", "fd00::1"].map(|text| AddressRow {
            address: text.parse().unwrap(),
            since: std::time::Instant::now(),
            order: 0,
            is_current: true,
        });
        memory.keep(&[NameRow {
            name: "orders-db.internal".to_owned(),
            addresses: addresses.to_vec(),
            trouble: None,
        }]);
        let again = Memory::open(path.clone());
        assert_eq!(again.content(), memory.content());
        assert_eq!(again.content()["orders-db.internal"].len(), 2);

        fs::write(
            &path,
            r#"{"a": ["127.0.0.1", "10.0.0.1", "::ffff:127.0.0.1"]}"#,
        )
        .unwrap();
        assert_eq!(Memory::open(path.clone()).content()["a"].len(), 1);
        for broken in ["", "{", "[]", r#"{"a": ["x"]}"#] {
            fs::write(&path, broken).unwrap();
            assert!(Memory::open(path.clone()).content().is_empty());
        }
    }
}
