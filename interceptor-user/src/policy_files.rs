//! Policy files on disk.
//!
//! It owns which files of a directory are policy, and how they are read: `*.yaml` and `*.yml`,
//! not in subdirectories, no dotfiles; symbolic links are followed, because that is how
//! Kubernetes puts a ConfigMap into a directory. It must not know the language in them: that is
//! [`interceptor_core::policy`]'s.
//!
//! A file that cannot be read fails the whole load. Leaving it out could leave out a rule that
//! denies.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use interceptor_core::mask::HashKey;
use interceptor_core::policy::{self, FILE_BYTES_MAX, PolicyErrors, Snapshot, Source};

/// The most policy files in a directory.
pub const FILES_MAX: usize = 1_000;

/// Why a directory gives no policy.
#[derive(Debug, thiserror::Error)]
pub enum PolicyFilesError {
    /// The directory cannot be listed.
    #[error("cannot read the policy directory {}: {cause}; check the path and its permissions", directory.display())]
    Directory {
        /// The directory.
        directory: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// No file in it is policy.
    #[error("the policy directory {} holds no *.yaml or *.yml file; put at least one Target into it", directory.display())]
    NoFiles {
        /// The directory.
        directory: PathBuf,
    },
    /// There are too many files.
    #[error("the policy directory {} holds more than {FILES_MAX} policy files; join some: a file may hold several documents", directory.display())]
    TooManyFiles {
        /// The directory.
        directory: PathBuf,
    },
    /// A file cannot be read.
    #[error("cannot read the policy file {}: {cause}; without it a rule could be missing", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// A file is too large.
    #[error("the policy file {} is larger than {FILE_BYTES_MAX} bytes; split it", file.display())]
    TooLarge {
        /// The file.
        file: PathBuf,
    },
    /// A file is not UTF-8.
    #[error("the policy file {} is not UTF-8 from byte {valid_up_to} on; convert it", file.display())]
    NotUtf8 {
        /// The file.
        file: PathBuf,
        /// The first byte that is not.
        valid_up_to: usize,
    },
    /// The files hold errors.
    #[error(transparent)]
    Policy(PolicyErrors),
}

/// Reads and checks every policy file of a directory.
///
/// `hash_key` is drawn once a process and handed in at each load: see [`policy::load`].
pub fn load(directory: &Path, hash_key: &HashKey) -> Result<Snapshot, PolicyFilesError> {
    let texts = texts(directory)?;
    let sources: Vec<Source<'_>> = texts
        .iter()
        .map(|(file, text)| Source { file, text })
        .collect();
    policy::load(&sources, hash_key).map_err(PolicyFilesError::Policy)
}

/// The names and texts of the policy files of a directory, by name.
pub fn texts(directory: &Path) -> Result<Vec<(String, String)>, PolicyFilesError> {
    let mut texts = Vec::new();
    for path in policy_files(directory)? {
        let text = read(&path)?;
        texts.push((path.to_string_lossy().into_owned(), text));
    }
    Ok(texts)
}

/// What `interceptor policy check` says of a snapshot.
pub fn summary(snapshot: &Snapshot) -> String {
    let count = |count: usize, noun: &str| {
        let plural = if count == 1 { "" } else { "s" };
        format!("{count} {noun}{plural}")
    };
    let targets = count(snapshot.targets.len(), "target");
    let rules = count(snapshot.rule_count(), "rule");
    let masks = count(snapshot.mask_count, "mask");
    format!("{targets}, {rules}, {masks}: ok")
}

/// Paths of the policy files, sorted.
fn policy_files(directory: &Path) -> Result<Vec<PathBuf>, PolicyFilesError> {
    let broken = |cause| PolicyFilesError::Directory {
        directory: directory.into(),
        cause,
    };
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory).map_err(broken)? {
        let path = entry.map_err(broken)?.path();
        if !is_policy_name(&path) {
            continue;
        }
        // Follows links: a dangling one is an error, not a file that is left out.
        let metadata = fs::metadata(&path);
        let metadata = metadata.map_err(|cause| PolicyFilesError::File {
            file: path.clone(),
            cause,
        })?;
        if metadata.is_dir() {
            continue;
        }
        if paths.len() == FILES_MAX {
            return Err(PolicyFilesError::TooManyFiles {
                directory: directory.into(),
            });
        }
        paths.push(path);
    }
    if paths.is_empty() {
        return Err(PolicyFilesError::NoFiles {
            directory: directory.into(),
        });
    }
    paths.sort();
    Ok(paths)
}

fn is_policy_name(path: &Path) -> bool {
    let hidden = path
        .file_name()
        .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    let extension = path.extension().and_then(OsStr::to_str);
    !hidden && matches!(extension, Some("yaml" | "yml"))
}

fn read(path: &Path) -> Result<String, PolicyFilesError> {
    let broken = |cause| PolicyFilesError::File {
        file: path.into(),
        cause,
    };
    // A pipe or a device would never end, and opening a pipe would wait for its writer.
    let file = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .map_err(broken)?;
    if !file.metadata().map_err(broken)?.is_file() {
        return Err(broken(io::Error::other("it is not a regular file")));
    }
    let mut bytes = Vec::new();
    // One byte more than may be, so that the limit shows whatever the file's size was said to be.
    file.take(FILE_BYTES_MAX as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(broken)?;
    if bytes.len() > FILE_BYTES_MAX {
        return Err(PolicyFilesError::TooLarge { file: path.into() });
    }
    String::from_utf8(bytes).map_err(|error| PolicyFilesError::NotUtf8 {
        file: path.into(),
        valid_up_to: error.utf8_error().valid_up_to(),
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    const TARGET: &str =
        "{kind: Target, name: t, spec: {protocol: postgres, endpoints: ['10.0.0.5:5432']}}";

    fn load_from(directory: &Path) -> Result<Snapshot, PolicyFilesError> {
        load(directory, &HashKey::new([0; 32]))
    }

    #[test]
    fn a_directory_in_the_shape_of_a_config_map_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("..2026_01_01");
        fs::create_dir(&data).unwrap();
        fs::write(data.join("target.yaml"), TARGET).unwrap();
        symlink("..2026_01_01", directory.path().join("..data")).unwrap();
        symlink("..data/target.yaml", directory.path().join("target.yaml")).unwrap();
        // Not policy: another kind of file, an editor's leftover, a folder.
        fs::write(directory.path().join("README.md"), "no").unwrap();
        fs::write(directory.path().join(".target.yaml"), "no").unwrap();
        fs::create_dir(directory.path().join("tests.yaml")).unwrap();
        let snapshot = load_from(directory.path()).unwrap();
        assert_eq!(summary(&snapshot), "1 target, 0 rules, 0 masks: ok");
    }

    #[test]
    fn a_file_that_cannot_be_read_fails_the_load() {
        type Break = fn(&Path);
        let pipe = |file: &Path| {
            let made = std::process::Command::new("mkfifo").arg(file).status();
            assert!(made.unwrap().success());
        };
        let cases: [(Break, &str); 6] = [
            (pipe, "it is not a regular file"),
            (
                |file| symlink("/nowhere", file).unwrap(),
                "cannot read the policy file",
            ),
            (
                |file| symlink("/dev/zero", file).unwrap(),
                "it is not a regular file",
            ),
            (
                |file| fs::write(file, b"# \xff").unwrap(),
                "is not UTF-8 from byte 2 on",
            ),
            (
                |file| fs::write(file, vec![b'#'; FILE_BYTES_MAX + 1]).unwrap(),
                "is larger than",
            ),
            (
                |file| fs::write(file, "kind: Rul").unwrap(),
                "did you mean `Rule`?",
            ),
        ];
        for (make, expected) in cases {
            let directory = tempfile::tempdir().unwrap();
            fs::write(directory.path().join("target.yaml"), TARGET).unwrap();
            make(&directory.path().join("broken.yml"));
            let error = load_from(directory.path()).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
            assert!(error.contains("broken.yml"), "{error}");
        }
    }

    #[test]
    fn a_directory_without_policy_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let error = load_from(directory.path()).unwrap_err();
        assert!(matches!(error, PolicyFilesError::NoFiles { .. }), "{error}");
        let error = load_from(&directory.path().join("missing")).unwrap_err();
        assert!(
            matches!(error, PolicyFilesError::Directory { .. }),
            "{error}"
        );
        for number in 0..=FILES_MAX {
            fs::write(directory.path().join(format!("{number}.yaml")), TARGET).unwrap();
        }
        let error = load_from(directory.path()).unwrap_err();
        assert!(
            matches!(error, PolicyFilesError::TooManyFiles { .. }),
            "{error}"
        );
    }

    #[test]
    fn the_example_policies_are_read() {
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies");
        let snapshot = load_from(&examples).unwrap_or_else(|error| panic!("\n{error}"));
        assert_eq!(summary(&snapshot), "1 target, 9 rules, 4 masks: ok");
    }
}
