//! Notices when policy files may have changed.
//!
//! It owns what is watched, and how long it waits for the last of several changes. It must not know
//! what is in the files, nor whether anything is different: whoever it tells reads them and sees.
//!
//! Inotify watches directories, not paths. So beside the directory itself, what leads to it is
//! watched for the one name that matters there: its parent (it may be exchanged, or go and come
//! back), each link on the way, and the place of each file that is a link. All of this is looked up
//! again after each change. What inotify cannot see, as on network file systems, is found by looking
//! every now and then.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};

/// A change is over when nothing happened for so long…
const QUIET: Duration = Duration::from_millis(200);
/// …and is taken as it is after so long.
const QUIET_WAIT_MAX: Duration = Duration::from_secs(2);
/// Links on the way to the directory.
const LINKS_MAX: usize = 16;
/// Directories that are watched.
const WATCHES_MAX: usize = 64;

/// Watches a directory of policy files. It ends when it is dropped.
pub(super) struct PolicyWatch {
    changes: mpsc::Receiver<()>,
    /// Absent where nothing is watched.
    task: Option<JoinHandle<()>>,
    /// Keeps `changes` open where there is no task.
    _idle: Option<mpsc::Sender<()>>,
}

impl PolicyWatch {
    /// Watches, and looks every `interval`; `None` does neither.
    pub(super) fn start(directory: &Path, interval: Option<Duration>) -> Self {
        let (sender, changes) = mpsc::channel(1);
        let Some(interval) = interval else {
            return Self {
                changes,
                task: None,
                _idle: Some(sender),
            };
        };
        let task = tokio::spawn(watch(directory.to_owned(), interval, sender));
        Self {
            changes,
            task: Some(task),
            _idle: None,
        }
    }

    /// Waits until the files may have changed. Cancel-safe.
    pub(super) async fn changed(&mut self) {
        if self.changes.recv().await.is_none() {
            // The task failed: it has said so.
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for PolicyWatch {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

async fn watch(directory: PathBuf, interval: Duration, changes: mpsc::Sender<()>) {
    let happened = Arc::new(Notify::new());
    let mut is_broken = false;
    loop {
        // Before anybody reads: what changes after that is noticed.
        let (place, notify) = (directory.clone(), Arc::clone(&happened));
        let armed = tokio::task::spawn_blocking(move || arm(&place, &notify)).await;
        let _watcher = match armed {
            Ok(Ok(watcher)) => {
                is_broken = false;
                Some(watcher)
            }
            Ok(Err(error)) => {
                if !is_broken {
                    tracing::warn!(%error, "changes of the policy files are not seen at once, but within {interval:?}");
                }
                is_broken = true;
                None
            }
            // The runtime ends.
            Err(_) => return,
        };
        // One that waits to be taken says the same.
        if let Err(mpsc::error::TrySendError::Closed(())) = changes.try_send(()) {
            return;
        }
        tokio::select! {
            () = happened.notified() => quiet(&happened).await,
            () = sleep(interval) => {}
        }
    }
}

/// Waits until nothing happens any more.
async fn quiet(happened: &Notify) {
    let until = Instant::now() + QUIET_WAIT_MAX;
    loop {
        tokio::select! {
            () = happened.notified() => {}
            () = sleep(QUIET) => return,
            () = sleep_until(until) => return,
        }
    }
}

/// Watches what leads to the files now.
fn arm(directory: &Path, happened: &Arc<Notify>) -> notify::Result<RecommendedWatcher> {
    let mut wanted = Wanted::new(directory);
    loop {
        let (filter, notify) = (wanted.clone(), Arc::clone(happened));
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<_>| {
            // An error may hide a change.
            if event.is_ok_and(|event| !filter.concerns(&event)) {
                return;
            }
            notify.notify_one();
        })?;
        for place in wanted.directories() {
            match watcher.watch(place, RecursiveMode::NonRecursive) {
                // Gone in between: the look below sees it.
                Ok(()) => {}
                Err(error) if matches!(error.kind, notify::ErrorKind::PathNotFound) => {}
                Err(error) => return Err(error),
            }
        }
        // What came while the watches were made has had none.
        let now = Wanted::new(directory);
        if now == wanted {
            return Ok(watcher);
        }
        wanted = now;
    }
}

/// What is watched, by paths without links in them: inotify has one name for each directory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Wanted {
    /// Everything in it matters.
    whole: BTreeSet<PathBuf>,
    /// Only this name in this directory does.
    single: BTreeSet<(PathBuf, OsString)>,
}

impl Wanted {
    fn new(directory: &Path) -> Self {
        let mut wanted = Self::default();
        if let Some(directory) = wanted.follow(directory) {
            wanted.follow_links_in(&directory);
            wanted.whole.insert(directory);
        }
        wanted
    }

    /// Adds what leads to a path, link by link; gives where it leads, if it is there.
    fn follow(&mut self, path: &Path) -> Option<PathBuf> {
        let mut path = std::path::absolute(path).ok()?;
        for _ in 0..LINKS_MAX {
            let (mut parent, mut name) = (path.parent()?.to_owned(), path.file_name()?.to_owned());
            // Where the parent is gone as well, its own name has to come first.
            let real = loop {
                match parent.canonicalize() {
                    Ok(real) => break real,
                    Err(_) => {
                        name = parent.file_name()?.to_owned();
                        parent.pop();
                    }
                }
            };
            let place = real.join(&name);
            self.single.insert((real, name));
            match std::fs::read_link(&place) {
                Ok(target) => path = place.parent()?.join(target),
                Err(_) => return path.canonicalize().ok(),
            }
        }
        None
    }

    fn follow_links_in(&mut self, directory: &Path) {
        let Ok(entries) = std::fs::read_dir(directory) else {
            return;
        };
        for entry in entries.flatten() {
            let is_link = entry.file_type().is_ok_and(|kind| kind.is_symlink());
            if is_link && self.directories().len() < WATCHES_MAX {
                self.follow(&entry.path());
            }
        }
    }

    fn directories(&self) -> BTreeSet<&Path> {
        let single = self.single.iter().map(|(directory, _)| directory);
        single.chain(&self.whole).map(PathBuf::as_path).collect()
    }

    fn concerns(&self, event: &notify::Event) -> bool {
        // Reading them is no change, and the gateway does so itself.
        let is_read = match event.kind {
            EventKind::Access(kind) => kind != AccessKind::Close(AccessMode::Write),
            _ => false,
        };
        if is_read {
            return false;
        }
        event.need_rescan()
            || event.paths.is_empty()
            || event.paths.iter().any(|path| self.has(path))
    }

    fn has(&self, path: &Path) -> bool {
        if self.whole.contains(path) {
            return true;
        }
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return false;
        };
        self.whole.contains(parent)
            || self
                .single
                .iter()
                .any(|(directory, single)| directory == parent && single == name)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    const LONG: Duration = Duration::from_secs(3600);
    const LIMIT: Duration = Duration::from_secs(10);

    async fn noticed(watch: &mut PolicyWatch, what: &str) {
        let waited = tokio::time::timeout(LIMIT, watch.changed()).await;
        assert!(waited.is_ok(), "not noticed: {what}");
    }

    /// Each of these is noticed by inotify: it would look again only in an hour.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn every_kind_of_change_is_noticed() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        fs::create_dir_all(at("outer/one")).unwrap();
        fs::create_dir(at("two")).unwrap();
        fs::write(at("elsewhere.yaml"), "a").unwrap();
        symlink("outer/one", at("link")).unwrap();
        let mut watch = PolicyWatch::start(&at("link"), Some(LONG));
        noticed(&mut watch, "the start").await;
        type Change<'a> = (&'a str, Box<dyn Fn() + 'a>);
        let changes: Vec<Change<'_>> = vec![
            (
                "a new file",
                Box::new(|| fs::write(at("outer/one/a.yaml"), "a").unwrap()),
            ),
            (
                "a changed file",
                Box::new(|| fs::write(at("outer/one/a.yaml"), "b").unwrap()),
            ),
            (
                "a file renamed over it",
                Box::new(|| {
                    fs::write(at("new"), "c").unwrap();
                    fs::rename(at("new"), at("outer/one/a.yaml")).unwrap();
                }),
            ),
            (
                "a link to elsewhere",
                Box::new(|| {
                    symlink(at("elsewhere.yaml"), at("outer/one/b.yaml")).unwrap();
                }),
            ),
            (
                "a change elsewhere",
                Box::new(|| fs::write(at("elsewhere.yaml"), "b").unwrap()),
            ),
            (
                "a removed file",
                Box::new(|| fs::remove_file(at("outer/one/a.yaml")).unwrap()),
            ),
            (
                "another link",
                Box::new(|| {
                    symlink("two", at("new")).unwrap();
                    fs::rename(at("new"), at("link")).unwrap();
                }),
            ),
            (
                "a file behind the other link",
                Box::new(|| fs::write(at("two/a.yaml"), "a").unwrap()),
            ),
            (
                "the first link again",
                Box::new(|| {
                    symlink("outer/one", at("new")).unwrap();
                    fs::rename(at("new"), at("link")).unwrap();
                }),
            ),
            (
                "all is gone",
                Box::new(|| fs::remove_dir_all(at("outer")).unwrap()),
            ),
            (
                "the outer directory is back",
                Box::new(|| fs::create_dir(at("outer")).unwrap()),
            ),
            (
                "the directory is back",
                Box::new(|| fs::create_dir(at("outer/one")).unwrap()),
            ),
            (
                "its file is back",
                Box::new(|| fs::write(at("outer/one/a.yaml"), "a").unwrap()),
            ),
        ];
        for (what, change) in changes {
            change();
            noticed(&mut watch, what).await;
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn reading_and_strangers_are_no_change() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("policies");
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join("a.yaml"), "a").unwrap();
        let mut watch = PolicyWatch::start(&directory, Some(LONG));
        noticed(&mut watch, "the start").await;
        for number in 0..50 {
            fs::read(directory.join("a.yaml")).unwrap();
            fs::write(root.path().join("a.log"), number.to_string()).unwrap();
        }
        let waited = tokio::time::timeout(QUIET * 3, watch.changed()).await;
        assert!(waited.is_err());
        // It still watches.
        fs::write(directory.join("a.yaml"), "b").unwrap();
        noticed(&mut watch, "a changed file").await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn writing_that_does_not_end_is_taken_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let mut watch = PolicyWatch::start(directory.path(), Some(LONG));
        noticed(&mut watch, "the start").await;
        let writing = async {
            for number in 0.. {
                fs::write(directory.path().join("a.yaml"), number.to_string()).unwrap();
                sleep(QUIET / 4).await;
            }
        };
        tokio::select! {
            () = writing => {}
            () = noticed(&mut watch, "a change that goes on") => {}
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn it_looks_again_and_it_does_nothing_where_it_is_off() {
        let directory = tempfile::tempdir().unwrap();
        let mut watch = PolicyWatch::start(directory.path(), Some(Duration::from_millis(50)));
        for _ in 0..3 {
            noticed(&mut watch, "the time").await;
        }
        let mut off = PolicyWatch::start(directory.path(), None);
        fs::write(directory.path().join("a.yaml"), "a").unwrap();
        let waited = tokio::time::timeout(QUIET * 2, off.changed()).await;
        assert!(waited.is_err());
    }
}
