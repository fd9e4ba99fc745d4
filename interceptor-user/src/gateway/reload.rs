//! Reloads of the policy: who asked for one, what came of it, who has to be told.
//!
//! It owns that files which were refused once are refused silently until they change, and what
//! `interceptor status` says of the policy. It must not know what the targets do with a policy.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use interceptor_core::audit::event::{Event, GatewayNote, Kind};
use interceptor_core::audit::snapshot;
use interceptor_core::policy::Snapshot;
use serde_json::{Value, json};

use super::event;
use super::targets::Sources;
use crate::admin::ReloadRequest;
use crate::audit::{AuditError, Recorder, json as form};
use crate::policy_files::{self, Fingerprint};
use crate::tls::Material;

/// Bytes of the errors that the record keeps.
const RECORDED_BYTES_MAX: usize = 64 * 1024;

/// Lines of the errors that `interceptor status` shows.
const STATUS_LINES_MAX: usize = 20;

/// Who wants the policy read anew.
pub(super) enum Cause {
    /// SIGHUP, or a gateway that replaced this one.
    Word,
    /// `interceptor policy reload`, which waits for what comes of it.
    Asked(ReloadRequest),
    /// The files may have changed. Where they have not, nothing happens.
    Files,
}

/// What came of reading the files.
pub(super) struct Attempt<T> {
    /// Absent where it is what was read before, and nobody asked for it.
    pub(super) result: Option<anyhow::Result<T>>,
    pub(super) fingerprint: Fingerprint,
    /// Nobody asked.
    pub(super) is_by_files: bool,
}

impl<T> Attempt<T> {
    /// Goes on with what was read, if it was right.
    pub(super) async fn and_then<U>(
        self,
        work: impl AsyncFnOnce(T) -> anyhow::Result<U>,
    ) -> Attempt<U> {
        let result = match self.result {
            Some(Ok(read)) => Some(work(read).await),
            Some(Err(error)) => Some(Err(error)),
            None => None,
        };
        Attempt {
            result,
            fingerprint: self.fingerprint,
            is_by_files: self.is_by_files,
        }
    }
}

/// What files gave that are right.
pub(super) struct Right {
    pub(super) policy: Arc<Snapshot>,
    /// The certificates that the policy names.
    pub(super) tls: Arc<Material>,
}

/// Reads and checks the files. It blocks. Where they are those of `seen`, it stops there.
pub(super) fn attempt(sources: &Sources, seen: Option<Fingerprint>) -> Attempt<Right> {
    let read = policy_files::read(&sources.directory);
    let texts = Fingerprint::of(&read);
    // Certificates are renewed without a change of the policy.
    let with_tls = || texts.with(sources.tls.digest().bytes());
    let mut fingerprint = with_tls();
    let result = (seen != Some(fingerprint)).then(|| {
        let mut policy = read.and_then(|texts| texts.check(&sources.hash_key))?;
        policy.observer = Some(Arc::clone(&sources.observer));
        let tls = sources.tls.read(&policy);
        // Of the files that this policy names.
        fingerprint = with_tls();
        Ok(Right {
            policy: Arc::new(policy),
            tls: Arc::new(tls?),
        })
    });
    Attempt {
        result,
        fingerprint,
        is_by_files: seen.is_some(),
    }
}

/// The reloads that were asked for.
pub(super) struct Reloads {
    /// What was read last, right or wrong.
    seen: Option<Fingerprint>,
    /// Who waits for the one under way.
    waiting: Vec<ReloadRequest>,
    /// The one after it, where one was asked for meanwhile: the files may have been read by then.
    next: Option<Next>,
    state: PolicyState,
}

#[derive(Default)]
struct Next {
    waiting: Vec<ReloadRequest>,
    /// Somebody asked, so that it happens even where nothing changed.
    is_asked: bool,
}

impl Reloads {
    pub(super) fn new(seen: Option<Fingerprint>) -> Self {
        Self {
            seen,
            waiting: Vec::new(),
            next: None,
            state: PolicyState::new(),
        }
    }

    /// What the outside is told.
    pub(super) fn state(&self) -> PolicyState {
        self.state.clone()
    }

    /// One is under way: another comes after it.
    pub(super) fn postpone(&mut self, cause: Cause) {
        let next = self.next.get_or_insert_default();
        match cause {
            Cause::Files => {}
            Cause::Word => next.is_asked = true,
            Cause::Asked(request) => {
                next.is_asked = true;
                next.waiting.push(request);
            }
        }
    }

    /// One begins; gives what it need not read again.
    pub(super) fn begin(&mut self) -> Option<Fingerprint> {
        let next = self.next.take().unwrap_or_default();
        self.waiting.extend(next.waiting);
        match next.is_asked {
            true => None,
            false => self.seen,
        }
    }

    /// True if another was asked for meanwhile.
    pub(super) const fn has_next(&self) -> bool {
        self.next.is_some()
    }

    /// One was read.
    pub(super) const fn saw(&mut self, fingerprint: Fingerprint) {
        self.seen = Some(fingerprint);
    }

    /// Logs and records what came of one; `loaded` describes the policy that is in force now.
    ///
    /// A record that takes nothing more stops the commands; the policy need not stop the gateway.
    pub(super) fn record(
        &self,
        done: &Result<(), String>,
        recorder: &Recorder,
        loaded: impl FnOnce() -> String,
    ) {
        let kind = match done {
            Ok(()) => {
                let detail = loaded();
                tracing::info!("another policy is in force: {detail}");
                Kind::PolicyLoaded(GatewayNote { detail })
            }
            Err(errors) => {
                tracing::error!("the policy stays as it was; the files were refused:\n{errors}");
                let end = errors.floor_char_boundary(RECORDED_BYTES_MAX);
                let mut detail = errors.get(..end).unwrap_or_default().to_owned();
                if end < errors.len() {
                    detail.push_str(" … (more is not shown)");
                }
                Kind::PolicyRefused(GatewayNote { detail })
            }
        };
        if let Err(error) = recorder.note(event(&[], kind)) {
            tracing::error!(%error, "what came of a reload of the policy is not on record");
        }
    }

    /// One is over; `before` was in force. Tells who waits.
    pub(super) fn end(&mut self, before: &Snapshot, done: Result<&Snapshot, String>) {
        self.state.note(before, &done);
        let answer = match done {
            Ok(after) => answer(before, after),
            Err(error) => json!({
                "loaded": false,
                "hash": hex::encode(before.hash),
                "error": error,
            }),
        };
        for waiting in self.waiting.drain(..) {
            // Who asked may have gone.
            let _ = waiting.send(Ok(answer.clone()));
        }
    }
}

/// What changed, in numbers.
fn answer(before: &Snapshot, after: &Snapshot) -> Value {
    let text = |snapshot: &Snapshot, name: &str| {
        let mut files = snapshot.files.iter();
        let found = files.find(|(other, _)| other == name);
        found.map(|(_, text)| text.clone())
    };
    let (mut added, mut changed, mut removed) = (0_usize, 0_usize, 0_usize);
    for (name, new) in &after.files {
        match text(before, name) {
            None => added += 1,
            Some(old) if old != *new => changed += 1,
            Some(_) => {}
        }
    }
    for (name, _) in &before.files {
        removed += usize::from(text(after, name).is_none());
    }
    json!({
        "loaded": true,
        "hash": hex::encode(after.hash),
        "previous": hex::encode(before.hash),
        "files": { "added": added, "changed": changed, "removed": removed },
        "before": counts(before),
        "after": counts(after),
    })
}

fn counts(snapshot: &Snapshot) -> Value {
    json!({
        "files": snapshot.files.len(),
        "targets": snapshot.targets.len(),
        "rules": snapshot.rule_count(),
        "masks": snapshot.mask_count,
    })
}

/// Writes policy files down, unless they are what this process wrote last. Whoever puts them in force
/// after this has them on record before the first command that they decide.
pub(super) struct SnapshotRecord {
    recorder: Recorder,
    last: Option<[u8; 32]>,
}

impl SnapshotRecord {
    pub(super) const fn new(recorder: Recorder) -> Self {
        Self {
            recorder,
            last: None,
        }
    }

    /// # Errors
    /// If the record does not take them: then they must not decide.
    pub(super) fn write(&mut self, snapshot: &Snapshot) -> Result<(), AuditError> {
        if self.last == Some(snapshot.hash) {
            return Ok(());
        }
        for part in snapshot::parts(snapshot) {
            let part: Event = event(&[], Kind::PolicySnapshot(part));
            self.recorder.note(part)?;
        }
        self.last = Some(snapshot.hash);
        Ok(())
    }
}

/// How the policy came to be what it is. Clones share it.
#[derive(Clone)]
pub(super) struct PolicyState(Arc<Mutex<State>>);

struct State {
    /// When the files in force came into force.
    since_unix_ns: u64,
    loaded: u64,
    refused: u64,
    refusal: Option<Refusal>,
}

/// The files at hand were refused.
struct Refusal {
    /// The first of those since the last good ones.
    since_unix_ns: u64,
    last_unix_ns: u64,
    errors: String,
}

/// Reloads so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ReloadCounts {
    pub(super) loaded: u64,
    pub(super) refused: u64,
    pub(super) is_refused: bool,
    pub(super) since_unix_ns: u64,
}

impl PolicyState {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(State {
            since_unix_ns: form::now_unix_ns(),
            loaded: 0,
            refused: 0,
            refusal: None,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in a critical section can leave it half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, before: &Snapshot, done: &Result<&Snapshot, String>) {
        let now = form::now_unix_ns();
        let mut state = self.lock();
        match done {
            Ok(after) => {
                state.loaded = state.loaded.saturating_add(1);
                state.refusal = None;
                if after.hash != before.hash {
                    state.since_unix_ns = now;
                }
            }
            Err(errors) => {
                state.refused = state.refused.saturating_add(1);
                let since_unix_ns = state.refusal.as_ref().map_or(now, |r| r.since_unix_ns);
                state.refusal = Some(Refusal {
                    since_unix_ns,
                    last_unix_ns: now,
                    errors: errors.clone(),
                });
            }
        }
    }

    pub(super) fn counts(&self) -> ReloadCounts {
        let state = self.lock();
        ReloadCounts {
            loaded: state.loaded,
            refused: state.refused,
            is_refused: state.refusal.is_some(),
            since_unix_ns: state.since_unix_ns,
        }
    }

    /// For `interceptor status`.
    pub(super) fn show(&self, directory: &str, policy: &Snapshot) -> Value {
        let state = self.lock();
        let refused = state.refusal.as_ref().map(|refusal| {
            let lines: Vec<&str> = refusal.errors.lines().take(STATUS_LINES_MAX).collect();
            json!({
                "since": form::time(refusal.since_unix_ns),
                "last": form::time(refusal.last_unix_ns),
                "errors": lines,
                "lines": refusal.errors.lines().count(),
            })
        });
        json!({
            "directory": directory,
            "hash": hex::encode(policy.hash),
            "since": form::time(state.since_unix_ns),
            "files": policy.files.len(),
            "targets": policy.targets.iter().map(|target| target.name.clone()).collect::<Vec<_>>(),
            "rules": policy.rule_count(),
            "masks": policy.mask_count,
            "reloads": { "loaded": state.loaded, "refused": state.refused },
            "refused": refused,
        })
    }
}
