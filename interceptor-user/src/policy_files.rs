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
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use interceptor_core::mask::HashKey;
use interceptor_core::policy::{
    self, FILE_BYTES_MAX, FILES_BYTES_MAX, PolicyErrors, Snapshot, Source,
};
use sha2::{Digest as _, Sha256};

/// The most policy files in a directory.
pub const FILES_MAX: usize = 1_000;

/// How often files that change while they are read are read again.
const ATTEMPTS_MAX: usize = 10;

/// How long it waits before that: what changes them is done soon, or at work all the time.
const ATTEMPT_WAIT: Duration = Duration::from_millis(20);

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
    /// The files are too large together.
    #[error("the policy files in {} are larger than {FILES_BYTES_MAX} bytes together; shorten them: lists of names may have patterns", directory.display())]
    AllTooLarge {
        /// The directory.
        directory: PathBuf,
    },
    /// A file is not UTF-8.
    #[error("the policy file {}:{line} is not UTF-8 (byte {byte} of the line); convert the file", file.display())]
    NotUtf8 {
        /// The file.
        file: PathBuf,
        /// The line with the first byte that is not, from 1.
        line: usize,
        /// Its place in that line, from 1.
        byte: usize,
    },
    /// There was no moment at which they all stood still.
    #[error("the policy files in {} change all the time; put a new directory into its place when it is complete", directory.display())]
    Unsteady {
        /// The directory.
        directory: PathBuf,
    },
    /// The files hold errors.
    #[error(transparent)]
    Policy(PolicyErrors),
}

/// The texts of a directory's policy files, as they were at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyTexts {
    /// Paths and texts, by path.
    files: Vec<(String, String)>,
}

impl PolicyTexts {
    /// Paths and texts, by path.
    #[must_use]
    pub fn into_files(self) -> Vec<(String, String)> {
        self.files
    }

    /// Checks them. `hash_key` is drawn once a process and handed in at each load: see
    /// [`policy::load`].
    ///
    /// # Errors
    /// If anything in them is wrong: everything that is.
    pub fn check(&self, hash_key: &HashKey) -> Result<Snapshot, PolicyFilesError> {
        let files = self.files.iter();
        let sources: Vec<Source<'_>> = files.map(|(file, text)| Source { file, text }).collect();
        policy::load(&sources, hash_key).map_err(PolicyFilesError::Policy)
    }

    /// Tells these names and texts from all others.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        let mut hasher = Sha256::new();
        for part in self.files.iter().flat_map(|(name, text)| [name, text]) {
            hasher.update((part.len() as u64).to_be_bytes());
            hasher.update(part.as_bytes());
        }
        Fingerprint(hasher.finalize().into())
    }
}

/// What a directory held, or what was wrong with reading it, in short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Tells what was read, or why it could not be, from all else.
    #[must_use]
    pub fn of(read: &Result<PolicyTexts, PolicyFilesError>) -> Self {
        match read {
            Ok(texts) => texts.fingerprint(),
            Err(error) => Self(Sha256::digest(error.to_string()).into()),
        }
    }

    /// The same with something else that was read.
    #[must_use]
    pub fn with(self, other: &[u8; 32]) -> Self {
        Self(Sha256::digest([self.0, *other].concat()).into())
    }
}

/// Reads and checks every policy file of a directory: see [`PolicyTexts::check`].
///
/// # Errors
/// If anything cannot be read, or is wrong.
pub fn load(directory: &Path, hash_key: &HashKey) -> Result<Snapshot, PolicyFilesError> {
    read(directory)?.check(hash_key)
}

/// Reads every policy file of a directory as they were at one moment: where one changes, comes or
/// goes while others are read, all of them are read again. So an exchange of a ConfigMap's
/// directory, or of the directory itself, gives the old files or the new ones, never some of each.
///
/// # Errors
/// If anything cannot be read, or they do not stand still.
pub fn read(directory: &Path) -> Result<PolicyTexts, PolicyFilesError> {
    for _ in 0..ATTEMPTS_MAX {
        // An error may come from a change, too: a file that went after the listing.
        match (read_once(directory), stamps(directory)) {
            (Ok((texts, as_read)), Ok(now)) if as_read == now => return Ok(texts),
            (Err(error), Err(again)) if error.to_string() == again.to_string() => {
                return Err(error);
            }
            (Err(error), _) if !error.is_fleeting() => return Err(error),
            _ => std::thread::sleep(ATTEMPT_WAIT),
        }
    }
    Err(PolicyFilesError::Unsteady {
        directory: directory.into(),
    })
}

impl PolicyFilesError {
    /// It may be over in a moment.
    fn is_fleeting(&self) -> bool {
        match self {
            Self::Directory { .. } | Self::NoFiles { .. } => true,
            Self::File { cause, .. } => cause.kind() == io::ErrorKind::NotFound,
            _ => false,
        }
    }
}

/// Which version of a file something was read from.
#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    path: PathBuf,
    device: u64,
    inode: u64,
    bytes: u64,
    /// Any change of content or name moves it.
    changed: (i64, i64),
}

impl Stamp {
    fn new(path: PathBuf, metadata: &Metadata) -> Self {
        Self {
            path,
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.size(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// What is there now.
fn stamps(directory: &Path) -> Result<Vec<Stamp>, PolicyFilesError> {
    let stamp = |path: PathBuf| {
        let metadata = fs::metadata(&path).map_err(|cause| PolicyFilesError::File {
            file: path.clone(),
            cause,
        })?;
        Ok(Stamp::new(path, &metadata))
    };
    policy_files(directory)?.into_iter().map(stamp).collect()
}

fn read_once(directory: &Path) -> Result<(PolicyTexts, Vec<Stamp>), PolicyFilesError> {
    let (mut files, mut stamps) = (Vec::new(), Vec::new());
    let mut room = FILES_BYTES_MAX;
    for path in policy_files(directory)? {
        let (text, metadata) = read_file(&path)?;
        room = room
            .checked_sub(text.len())
            .ok_or_else(|| PolicyFilesError::AllTooLarge {
                directory: directory.into(),
            })?;
        files.push((path.to_string_lossy().into_owned(), text));
        stamps.push(Stamp::new(path, &metadata));
    }
    Ok((PolicyTexts { files }, stamps))
}

/// What `interceptor policy check` says of a snapshot.
pub fn summary(snapshot: &Snapshot) -> String {
    let count = |count: usize, noun: &str| {
        let plural = if count == 1 { "" } else { "s" };
        format!("{count} {noun}{plural}")
    };
    let counts = &snapshot.counts;
    // Targets, rules and masks are named whether there are any or not.
    let mut parts = vec![
        count(counts.targets, "target"),
        count(counts.rules, "rule"),
        count(counts.masks, "mask"),
    ];
    for (number, noun) in [
        (counts.detectors, "detector"),
        (counts.approver_groups, "approver group"),
        (counts.grants, "grant"),
    ] {
        parts.extend((number > 0).then(|| count(number, noun)));
    }
    for (number, one, many) in [
        (counts.identities, "identity", "identities"),
        (counts.bypasses, "bypass", "bypasses"),
    ] {
        let noun = if number == 1 { one } else { many };
        parts.extend((number > 0).then(|| format!("{number} {noun}")));
    }
    format!("{}: ok", parts.join(", "))
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

fn read_file(path: &Path) -> Result<(String, Metadata), PolicyFilesError> {
    let broken = |cause| PolicyFilesError::File {
        file: path.into(),
        cause,
    };
    let too_large = || PolicyFilesError::TooLarge { file: path.into() };
    // A pipe or a device would never end, and opening a pipe would wait for its writer.
    let file = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .map_err(broken)?;
    let metadata = file.metadata().map_err(broken)?;
    if !metadata.is_file() {
        return Err(broken(io::Error::other("it is not a regular file")));
    }
    if metadata.len() > FILE_BYTES_MAX as u64 {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    // One byte more than may be, so that the limit shows whatever the file's size was said to be.
    file.take(FILE_BYTES_MAX as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(broken)?;
    if bytes.len() > FILE_BYTES_MAX {
        return Err(too_large());
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let before = error.as_bytes().get(..valid).unwrap_or_default();
        let line = before.rsplit(|&byte| byte == b'\n').next();
        PolicyFilesError::NotUtf8 {
            file: path.into(),
            line: before.iter().filter(|&&byte| byte == b'\n').count() + 1,
            byte: line.map_or(0, <[u8]>::len) + 1,
        }
    })?;
    Ok((text, metadata))
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
                |file| fs::write(file, b"#\n# caf\xe9").unwrap(),
                "broken.yml:2 is not UTF-8 (byte 6 of the line)",
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
    fn a_hundred_megabytes_are_refused_by_their_size() {
        let directory = tempfile::tempdir().unwrap();
        // A hole: whoever reads it gets zeros, for which the error would be another.
        let file = File::create(directory.path().join("huge.yaml")).unwrap();
        file.set_len(100 * 1024 * 1024).unwrap();
        let error = load_from(directory.path()).unwrap_err();
        assert!(
            matches!(&error, PolicyFilesError::TooLarge { file } if file.ends_with("huge.yaml")),
            "{error}"
        );
    }

    #[test]
    fn all_files_together_have_a_limit() {
        let directory = tempfile::tempdir().unwrap();
        let file = |number| directory.path().join(format!("{number}.yaml"));
        let text = format!("{TARGET}\n#").into_bytes();
        let text = [text.clone(), vec![b'x'; FILE_BYTES_MAX - text.len()]].concat();
        let count = FILES_BYTES_MAX / FILE_BYTES_MAX;
        for number in 0..count {
            fs::write(file(number), &text).unwrap();
        }
        read(directory.path()).unwrap();
        fs::write(file(count), "#").unwrap();
        let error = load_from(directory.path()).unwrap_err();
        assert!(
            matches!(error, PolicyFilesError::AllTooLarge { .. }),
            "{error}"
        );
    }

    #[test]
    fn files_that_are_exchanged_while_they_are_read_are_of_one_version() {
        const FILES: usize = 40;
        let directory = tempfile::tempdir().unwrap();
        let mount = directory.path().to_owned();
        let versions = ["..0", "..1"];
        for version in versions {
            fs::create_dir(mount.join(version)).unwrap();
            for file in 0..FILES {
                let text = format!("# {version}\n");
                fs::write(mount.join(version).join(format!("{file}.yaml")), text).unwrap();
            }
        }
        symlink(versions[0], mount.join("..data")).unwrap();
        for file in 0..FILES {
            let name = format!("{file}.yaml");
            symlink(format!("..data/{name}"), mount.join(name)).unwrap();
        }
        let is_over = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for version in versions.iter().cycle() {
                    symlink(version, mount.join("..next")).unwrap();
                    fs::rename(mount.join("..next"), mount.join("..data")).unwrap();
                    if is_over.load(std::sync::atomic::Ordering::Relaxed) {
                        return;
                    }
                    std::thread::sleep(Duration::from_millis(3));
                }
            });
            let mut whole = 0;
            for _ in 0..100 {
                match read(&mount) {
                    Ok(texts) => {
                        whole += 1;
                        let (_, first) = texts.files.first().unwrap();
                        assert!(texts.files.iter().all(|(_, text)| text == first));
                    }
                    Err(error) => {
                        assert!(
                            matches!(error, PolicyFilesError::Unsteady { .. }),
                            "{error}"
                        );
                    }
                }
            }
            is_over.store(true, std::sync::atomic::Ordering::Relaxed);
            assert!(whole > 0);
        });
    }

    #[test]
    fn a_file_that_comes_and_goes_is_no_error() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("target.yaml"), TARGET).unwrap();
        let passing = directory.path().join("passing.yaml");
        let is_over = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                    fs::write(&passing, "# here for a moment\n").unwrap();
                    fs::remove_file(&passing).unwrap();
                    std::thread::sleep(Duration::from_millis(2));
                }
            });
            let results: Vec<_> = (0..200).map(|_| read(directory.path())).collect();
            is_over.store(true, std::sync::atomic::Ordering::Relaxed);
            let is_file =
                |error: &&PolicyFilesError| matches!(error, PolicyFilesError::File { .. });
            let missing = results
                .iter()
                .filter_map(|r| r.as_ref().err())
                .find(is_file);
            assert!(missing.is_none(), "{missing:?}");
        });
    }

    #[test]
    fn the_demo_s_policy_is_read() {
        let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies/demo");
        let snapshot = load_from(&demo).unwrap_or_else(|error| panic!("\n{error}"));
        assert_eq!(summary(&snapshot), "1 target, 2 rules, 3 masks: ok");
    }
}
