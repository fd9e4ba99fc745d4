//! Where the administration sockets of a run directory are.
//!
//! The gateway that takes connections answers on `admin.sock`. One that was replaced and still has
//! sessions answers beside it, on `draining-PID.sock`: its holds have to be decided, too.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::SOCKET;

const PREFIX: &str = "draining-";
const SUFFIX: &str = ".sock";

/// A socket's file, which can move while the socket is served. Clones share it.
#[derive(Debug, Clone)]
pub struct Place(Arc<Mutex<PathBuf>>);

impl Place {
    pub(super) fn new(path: &Path) -> Self {
        Self(Arc::new(Mutex::new(path.to_owned())))
    }

    /// Where the file is now.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.lock().clone()
    }

    /// Gives the socket a second name beside it, so that a successor can take the first: at no moment
    /// does nobody answer there.
    ///
    /// # Errors
    /// If the file cannot be made.
    pub fn step_aside(&self) -> io::Result<()> {
        let mut path = self.lock();
        let aside = path.with_file_name(format!("{PREFIX}{}{SUFFIX}", std::process::id()));
        match fs::remove_file(&aside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        fs::hard_link(&*path, &aside)?;
        *path = aside;
        Ok(())
    }

    /// Takes the first name back, if the socket stepped aside.
    ///
    /// # Errors
    /// If the file cannot be renamed.
    pub fn step_back(&self) -> io::Result<()> {
        let mut path = self.lock();
        let first = path.with_file_name(SOCKET);
        if *path != first {
            fs::rename(&*path, &first)?;
            // Two names of one file: renaming one onto the other does nothing.
            let _ = fs::remove_file(&*path);
            *path = first;
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, PathBuf> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The sockets of gateways that were replaced, dead ones among them.
#[must_use]
pub fn draining(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    let mut paths: Vec<PathBuf> = entries
        .flatten()
        .filter(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            name.starts_with(PREFIX) && name.ends_with(SUFFIX)
        })
        .map(|entry| entry.path())
        .collect();
    paths.sort();
    paths
}

/// Removes the sockets that nobody answers on: a replaced gateway that died could not do it.
pub fn remove_dead(directory: &Path) {
    for path in draining(directory) {
        let answer = std::os::unix::net::UnixStream::connect(&path);
        if answer.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
            // Another start may have been faster.
            let _ = fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    #[test]
    fn a_socket_answers_under_both_names_and_comes_back() {
        let directory = tempfile::tempdir().unwrap();
        let first = directory.path().join(SOCKET);
        let _listener = UnixListener::bind(&first).unwrap();
        let place = Place::new(&first);
        place.step_aside().unwrap();
        assert_eq!(draining(directory.path()), [place.path()]);
        UnixStream::connect(&first).unwrap();
        UnixStream::connect(place.path()).unwrap();
        remove_dead(directory.path());
        place.step_back().unwrap();
        assert!(draining(directory.path()).is_empty());
        UnixStream::connect(&first).unwrap();

        // The same when a successor had taken the name already.
        place.step_aside().unwrap();
        fs::remove_file(&first).unwrap();
        drop(UnixListener::bind(&first).unwrap());
        place.step_back().unwrap();
        UnixStream::connect(&first).unwrap();
        assert!(draining(directory.path()).is_empty());
    }

    #[test]
    fn dead_ones_are_removed() {
        let directory = tempfile::tempdir().unwrap();
        drop(UnixListener::bind(directory.path().join("draining-1.sock")).unwrap());
        assert_eq!(draining(directory.path()).len(), 1);
        remove_dead(directory.path());
        assert!(draining(directory.path()).is_empty());
    }
}
