//! Key files of masks.
//!
//! It owns how they are read. What is derived from a key is the core's, and nothing here prints one.

use std::fs::File;
use std::io::Read as _;

use interceptor_core::mask::{KEY_BYTES_MAX, KeyFiles};
use zeroize::Zeroizing;

/// Reads from the host's own files.
#[derive(Debug)]
pub struct HostFiles;

impl KeyFiles for HostFiles {
    fn read(&self, path: &str) -> Result<Zeroizing<Vec<u8>>, String> {
        // One byte more than there may be shows that there are too many. The room is there from the
        // start, so that no part of a key is left in memory that was given back.
        let limit = KEY_BYTES_MAX + 1;
        let mut bytes = Zeroizing::new(Vec::with_capacity(limit));
        let read = File::open(path).and_then(|file| {
            let limit = u64::try_from(limit).unwrap_or(u64::MAX);
            file.take(limit).read_to_end(&mut bytes)
        });
        match read {
            Ok(_) => Ok(bytes),
            Err(error) => Err(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use interceptor_core::mask::HashKey;
    use interceptor_core::policy::{self, Source};

    use super::*;

    fn load(path: &str) -> Result<Vec<(String, String)>, String> {
        let text = format!(
            "kind: Target\nname: t\nspec: {{protocol: postgres, endpoints: [\"10.0.0.1:5432\"], catalog: {{user: c}}}}\n---\n\
             kind: Mask\nname: m\nspec: {{columns: [a.b], with: token, key: {{file: {path}}}}}\n"
        );
        let source = Source {
            file: "p.yaml",
            text: &text,
        };
        let key = HashKey::new([0; 32]).with_files(Arc::new(HostFiles));
        let loaded = policy::load(&[source], &key);
        loaded
            .map(|snapshot| snapshot.mask_keys)
            .map_err(|errors| errors.to_string())
    }

    #[test]
    fn a_key_is_read_and_only_its_id_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        let file = path.to_str().unwrap();
        for (bytes, complaint) in [
            (None, "No such file"),
            (Some(31), "it has 31 bytes, and 32 to 4096 are needed"),
            (Some(4097), "it has 4097 bytes"),
        ] {
            if let Some(bytes) = bytes {
                std::fs::write(&path, vec![b'k'; bytes]).unwrap();
            }
            let error = load(file).unwrap_err();
            assert!(error.contains(complaint), "{error}");
            assert!(error.contains(file) && !error.contains("kkkk"), "{error}");
        }
        std::fs::write(&path, [b'k'; 32]).unwrap();
        let ids = load(file).unwrap();
        assert_eq!(ids.len(), 1);
        assert_eq!(ids[0].0, file);
        assert_eq!(ids[0].1.len(), 8);
        std::fs::write(&path, [b'l'; 32]).unwrap();
        assert_ne!(load(file).unwrap(), ids);
    }
}
