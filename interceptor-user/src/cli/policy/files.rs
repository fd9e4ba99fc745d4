//! Policy files by what a person calls them: a directory, the running gateway's, a hash on record.
//!
//! It owns that choice, and errors that say what else could be given.

use std::path::Path;
use std::sync::Arc;

use interceptor_core::mask::HashKey;
use interceptor_core::policy::{self, Snapshot, Source};

use super::super::CliError;
use super::super::arguments::LogArgs;
use super::show;
use crate::admin::{Client, ClientError, SOCKET};
use crate::policy_files::{self, PolicyFilesError};

/// What stands for the policy that a gateway decides by now.
pub(super) const RUNNING: &str = "running";
/// A shorter beginning of a hash would more likely be a slip.
const HASH_DIGITS_MIN: usize = 4;

/// Policy files, wherever they are from.
pub(super) struct PolicyFiles {
    /// What to call them.
    pub(super) label: String,
    /// Names and texts.
    files: Vec<(String, String)>,
}

impl PolicyFiles {
    /// Those of a directory.
    pub(super) fn of_directory(directory: &Path) -> Result<Self, CliError> {
        Ok(Self {
            label: directory.display().to_string(),
            files: policy_files::read(directory)?.into_files(),
        })
    }

    /// Those that the running gateway decides by.
    pub(super) fn of_gateway(source: &LogArgs) -> Result<Self, CliError> {
        let socket = source.common.run_dir.join(SOCKET);
        match Client::connect(&socket) {
            Err(ClientError::NotRunning(socket)) => return Err(CliError::NoPolicy(socket)),
            other => other.map(drop)?,
        }
        let hash = show::in_force(source);
        Ok(Self {
            label: RUNNING.to_owned(),
            files: show::find(source, hash.as_deref())?.snapshot.files,
        })
    }

    /// Those of the directory, or the gateway's where none is given.
    pub(super) fn of(directory: Option<&Path>, source: &LogArgs) -> Result<Self, CliError> {
        match directory {
            Some(directory) => Self::of_directory(directory),
            None => Self::of_gateway(source),
        }
    }

    /// What a word means: `running`, a directory, or the beginning of a hash on record.
    pub(super) fn named(word: &str, source: &LogArgs) -> Result<Self, CliError> {
        let is_hash = word.len() >= HASH_DIGITS_MIN && word.bytes().all(|c| c.is_ascii_hexdigit());
        match word {
            RUNNING => Self::of_gateway(source),
            _ if is_hash && !Path::new(word).exists() => Ok(Self {
                label: word.to_owned(),
                files: show::find(source, Some(&word.to_ascii_lowercase()))?
                    .snapshot
                    .files,
            }),
            _ => Self::of_directory(Path::new(word)),
        }
    }

    pub(super) fn sources(&self) -> Vec<Source<'_>> {
        let files = self.files.iter();
        files.map(|(file, text)| Source { file, text }).collect()
    }

    /// Makes them ready to decide, or gives all their errors. Hashes that masks show are not those
    /// of a gateway.
    pub(super) fn load(&self) -> Result<Arc<Snapshot>, CliError> {
        let loaded = policy::load(&self.sources(), &HashKey::new([0; 32]));
        Ok(Arc::new(loaded.map_err(PolicyFilesError::Policy)?))
    }
}
