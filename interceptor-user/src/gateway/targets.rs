//! The targets while the gateway runs: names are asked for anew, policies exchanged.
//!
//! It owns the order in which a change takes effect: first the gateway knows what to do with a
//! connection, then the kernel brings it. It must not know how names are resolved or what a policy
//! says.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use interceptor_core::audit::event::{GatewayNote, Kind};
use interceptor_core::mask::HashKey;
use interceptor_core::policy::{Observer, Snapshot};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use super::directory::{Directories, Directory};
use super::event;
use super::in_use::InUse;
use super::reload::{Attempt, Cause, PolicyState, Reloads, Right, SnapshotRecord, attempt};
use crate::audit::Recorder;
use crate::kernel::{KernelError, Plane, TargetRoute};
use crate::policy_files::Fingerprint;
use crate::resolve::{
    ADDRESSES_MAX, Answer, LOOKUPS_MAX, LookupError, Memory, Names, Resolver, resolve_all,
};
use crate::tls::{Material, Tls};

/// How often it looks whether an address that is only kept may go.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How long it waits after the kernel did not take the targets.
const RETRY_WAIT: Duration = Duration::from_secs(5);
/// Changes that one event lists.
const LISTED_MAX: usize = 16;

/// Where policies and names come from.
#[derive(Debug, Clone)]
pub(super) struct Sources {
    pub(super) directory: PathBuf,
    pub(super) hash_key: HashKey,
    /// Measures decisions.
    pub(super) observer: Arc<dyn Observer>,
    pub(super) dns_servers: Vec<SocketAddr>,
    /// The file with what names had.
    pub(super) memory: PathBuf,
    /// Where certificates come from, and are in force.
    pub(super) tls: Tls,
}

/// A policy with the addresses of its names: all that interception needs.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) policy: Arc<Snapshot>,
    names: Names,
    memory: Option<Memory>,
    directory: Arc<Directory>,
    said: Vec<String>,
    /// Of the files.
    seen: Option<Fingerprint>,
}

impl Prepared {
    /// What the kernel is to intercept.
    pub(super) fn routes(&self) -> Vec<TargetRoute> {
        self.directory.routes.clone()
    }

    /// What it is to refuse.
    pub(super) fn unix_sockets(&self) -> Vec<PathBuf> {
        self.directory.unix_sockets.clone()
    }
}

/// What another policy needs before it can be in force.
struct Loaded {
    policy: Arc<Snapshot>,
    tls: Arc<Material>,
    resolver: Option<Arc<Resolver>>,
    answers: Vec<(String, Result<Answer, LookupError>)>,
}

/// Reads the policy and resolves its names, for the start.
///
/// # Errors
/// If anything in the files is wrong, a name has no address, or two targets meet at one.
pub(super) fn prepare(sources: &Sources, grace: Duration) -> anyhow::Result<Prepared> {
    // No thread may be born before the process is in the proxy's cgroup.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let read = attempt(sources, None);
    let right = read.result.context("no policy was read")??;
    let loaded = runtime.block_on(resolve(sources, right, |_| false))?;
    sources.tls.replace(Arc::clone(&loaded.tls));
    let (names, in_use) = (Names::new(grace), InUse::default());
    let mut prepared = prepare_loaded(&loaded, names, &in_use, &BTreeSet::new())?;
    // After the rest was found to be right: whose an address was before refuses no start.
    let memory = Memory::open(sources.memory.clone());
    for (name, addresses) in memory.content() {
        prepared.names.remember(name, addresses, Instant::now());
    }
    let policy = Arc::clone(&prepared.policy);
    prepared.directory = Arc::new(Directory::new(policy, &prepared.names, &in_use.list()));
    prepared.memory = Some(memory);
    prepared.seen = Some(read.fingerprint);
    Ok(prepared)
}

/// Asks for a policy's names that are not `known`.
async fn resolve(
    sources: &Sources,
    right: Right,
    known: impl Fn(&str) -> bool,
) -> anyhow::Result<Loaded> {
    let Right { policy, tls } = right;
    let names: BTreeSet<String> = names_of(&policy).map(str::to_owned).collect();
    if names.is_empty() {
        return Ok(Loaded {
            policy,
            tls,
            resolver: None,
            answers: Vec::new(),
        });
    }
    let resolver = Arc::new(Resolver::new(&sources.dns_servers)?);
    let unknown = names.into_iter().filter(|name| !known(name));
    let answers = resolve_all(&resolver, unknown).await;
    Ok(Loaded {
        policy,
        tls,
        resolver: Some(resolver),
        answers,
    })
}

fn names_of(policy: &Snapshot) -> impl Iterator<Item = &str> {
    let endpoints = policy.targets.iter().flat_map(|target| &target.names);
    endpoints.map(|endpoint| endpoint.name.as_str())
}

/// Puts a policy and what is known of its names together. `accepted` are meetings of targets that
/// are there already: they came while nobody changed the policy, and do not stop a change now.
fn prepare_loaded(
    loaded: &Loaded,
    mut names: Names,
    in_use: &InUse,
    accepted: &BTreeSet<String>,
) -> anyhow::Result<Prepared> {
    let policy = Arc::clone(&loaded.policy);
    let wanted: BTreeSet<&str> = names_of(&policy).collect();
    names.retain(|name| wanted.contains(name));
    let mut said = Vec::new();
    let mut errors = Vec::new();
    let now = Instant::now();
    for (name, answer) in &loaded.answers {
        let endpoints = policy.targets.iter().flat_map(|target| &target.names);
        let place = endpoints
            .filter(|endpoint| endpoint.name == *name)
            .map(|endpoint| endpoint.place.as_str())
            .next()
            .unwrap_or_default();
        match answer {
            Ok(answer) if answer.surplus > 0 => errors.push(format!(
                "{place}: {name} has {} addresses; a name may have {ADDRESSES_MAX}, so use its network",
                answer.surplus.saturating_add(ADDRESSES_MAX)
            )),
            Ok(answer) => said.extend(names.insert(name.clone(), answer.clone(), now)),
            Err(error) => errors.push(format!("{place}: {name}: {error}")),
        }
    }
    let directory = Directory::new(Arc::clone(&policy), &names, &in_use.list());
    if errors.is_empty() {
        errors.extend(directory.conflicts.difference(accepted).cloned());
    }
    anyhow::ensure!(
        errors.is_empty(),
        "the names of targets cannot be used:\n  {}",
        errors.join("\n  ")
    );
    Ok(Prepared {
        policy,
        names,
        memory: None,
        directory: Arc::new(directory),
        said,
        seen: None,
    })
}

/// The targets in force.
pub(super) struct Targets {
    sources: Sources,
    policy: watch::Sender<Arc<Snapshot>>,
    directories: watch::Sender<Directories>,
    names: Names,
    memory: Option<Memory>,
    resolver: Option<Arc<Resolver>>,
    lookups: JoinSet<(String, Result<Answer, LookupError>)>,
    reloading: Option<JoinHandle<anyhow::Result<Attempt<Loaded>>>>,
    reloads: Reloads,
    snapshots: SnapshotRecord,
    plane: Arc<RwLock<Plane>>,
    in_use: InUse,
    recorder: Recorder,
    /// When the kernel may be asked again after it refused.
    retry: Option<Instant>,
    next_look: Instant,
}

/// Something that [`Targets`] has to act on.
pub(super) struct Step(Happened);

enum Happened {
    Found(String, Result<Answer, LookupError>),
    LookupLost,
    Loaded(anyhow::Result<Attempt<Loaded>>),
    Look,
}

impl Targets {
    /// Takes what [`prepare`] gave, which the kernel has already.
    pub(super) fn new(
        sources: Sources,
        prepared: Prepared,
        plane: Arc<RwLock<Plane>>,
        snapshots: SnapshotRecord,
        recorder: Recorder,
    ) -> anyhow::Result<Self> {
        let has_names = names_of(&prepared.policy).next().is_some();
        // The one that answered at the start belongs to a runtime that has ended.
        let resolver = has_names.then(|| Resolver::new(&sources.dns_servers));
        let directories = Directories {
            current: Arc::clone(&prepared.directory),
            next: None,
        };
        let mut targets = Self {
            sources,
            policy: watch::Sender::new(prepared.policy),
            directories: watch::Sender::new(directories),
            names: prepared.names,
            memory: prepared.memory,
            resolver: resolver.transpose()?.map(Arc::new),
            lookups: JoinSet::new(),
            reloading: None,
            reloads: Reloads::new(prepared.seen),
            snapshots,
            plane,
            in_use: InUse::default(),
            recorder,
            retry: None,
            next_look: Instant::now(),
        };
        targets.keep(&prepared.directory);
        // Until now nobody could have used them.
        targets.names.restart_grace(Instant::now());
        targets.say(prepared.said);
        targets.say(prepared.directory.shadowed.iter().cloned());
        Ok(targets)
    }

    /// The policy in force, and each that follows.
    pub(super) fn policy(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.policy.subscribe()
    }

    /// The targets' addresses in force, and each change.
    pub(super) fn directories(&self) -> watch::Receiver<Directories> {
        self.directories.subscribe()
    }

    /// Where sessions say which address they use.
    pub(super) fn in_use(&self) -> InUse {
        self.in_use.clone()
    }

    /// How the policy came to be what it is.
    pub(super) fn state(&self) -> PolicyState {
        self.reloads.state()
    }

    /// Begins to read the policy anew. If it is being read already, it is read once more after that.
    pub(super) fn reload(&mut self, cause: Cause) {
        self.reloads.postpone(cause);
        if self.reloading.is_none() {
            self.begin_reload();
        }
    }

    fn begin_reload(&mut self) {
        let seen = self.reloads.begin();
        let (sources, names) = (self.sources.clone(), self.names.clone());
        self.reloading = Some(tokio::spawn(async move {
            let files = sources.clone();
            let read = move || attempt(&files, seen);
            let read = tokio::task::spawn_blocking(read).await?;
            let resolve = async |right| resolve(&sources, right, |name| names.knows(name)).await;
            Ok(read.and_then(resolve).await)
        }));
    }

    /// Whether a reload is under way.
    pub(super) const fn is_reloading(&self) -> bool {
        self.reloading.is_some()
    }

    /// Waits for something to act on. Cancel-safe: what was not returned is returned next time.
    pub(super) async fn next(&mut self) -> Step {
        self.ask();
        let look = self.next_wake();
        let has_lookups = !self.lookups.is_empty();
        let reloading = async {
            match &mut self.reloading {
                Some(task) => task.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(found) = self.lookups.join_next(), if has_lookups => Step(match found {
                Ok((name, answer)) => Happened::Found(name, answer),
                Err(_) => Happened::LookupLost,
            }),
            loaded = reloading => Step(Happened::Loaded(
                loaded.context("reading the policy failed").and_then(|loaded| loaded),
            )),
            () = tokio::time::sleep_until(look.into()) => Step(Happened::Look),
        }
    }

    /// Acts on it. True if files that changed by themselves are in force now.
    pub(super) fn take(&mut self, Step(happened): Step) -> bool {
        let now = Instant::now();
        match happened {
            Happened::Found(name, answer) => {
                let said = self.names.apply(&name, answer, now);
                if !said.is_empty() {
                    self.settle(now);
                    self.say(said);
                }
            }
            Happened::LookupLost => self.names.ask_again(),
            Happened::Look if now >= self.next_look => self.settle(now),
            // It is time to ask, which `next` does.
            Happened::Look => {}
            Happened::Loaded(loaded) => {
                self.reloading = None;
                let is_news = self.end_reload(loaded);
                if self.reloads.has_next() {
                    self.begin_reload();
                }
                return is_news;
            }
        }
        false
    }

    fn end_reload(&mut self, attempt: anyhow::Result<Attempt<Loaded>>) -> bool {
        let is_by_files = attempt.as_ref().is_ok_and(|attempt| attempt.is_by_files);
        let loaded = attempt.map_or_else(
            |error| Some(Err(error)),
            |attempt| {
                self.reloads.saw(attempt.fingerprint);
                attempt.result
            },
        );
        let Some(loaded) = loaded else {
            return false;
        };
        let before = Arc::clone(&self.policy.borrow());
        let done = loaded.and_then(|loaded| self.put_in_force(&loaded));
        let done = done.map_err(|error| format!("{error:#}"));
        self.reloads
            .record(&done, &self.recorder, || describe(&self.policy.borrow()));
        let after = Arc::clone(&self.policy.borrow());
        let is_loaded = done.is_ok();
        self.reloads.end(&before, done.map(|()| &*after));
        is_by_files && is_loaded
    }

    /// Begins the look-ups that are due.
    fn ask(&mut self) {
        let Some(resolver) = &self.resolver else {
            return;
        };
        let room = LOOKUPS_MAX.saturating_sub(self.lookups.len());
        for name in self.names.take_due(Instant::now(), room) {
            let resolver = Arc::clone(resolver);
            self.lookups.spawn(async move {
                let answer = resolver.look_up(&name).await;
                (name, answer)
            });
        }
    }

    /// When there is something to ask or to look at, if nothing else happens.
    fn next_wake(&self) -> Instant {
        let now = Instant::now();
        // With all look-ups under way the end of one comes first.
        let ask = self.names.next_due();
        let ask = ask.filter(|_| self.lookups.len() < LOOKUPS_MAX);
        let is_watching = self.names.left().next().is_some()
            || self.retry.is_some()
            || !self.directories.borrow().current.kept.is_empty();
        let look = is_watching.then_some(self.next_look.max(now));
        let wake = [ask, look].into_iter().flatten().min();
        wake.unwrap_or(now + Duration::from_secs(60 * 60))
    }

    /// Lets go what is over, and brings the kernel up to date if anything changed.
    fn settle(&mut self, now: Instant) {
        self.next_look = now + LOOK_INTERVAL;
        let used = self.in_use.used(self.names.left());
        let gone = self.names.expire(&used, now);
        if gone.is_empty() && self.retry.is_some_and(|retry| now < retry) {
            return;
        }
        let policy = Arc::clone(&self.policy.borrow());
        let directory = Directory::new(policy, &self.names, &self.in_use.list());
        let directory = Arc::new(directory);
        match self.change_over(&directory, None) {
            Ok(()) => self.retry = None,
            Err(error) => {
                if self.retry.is_none() {
                    self.say([format!("the kernel did not take new addresses: {error}")]);
                }
                self.retry = Some(now + RETRY_WAIT);
            }
        }
        self.say(gone);
    }

    /// Puts another policy in force. On an error the old one stays, with all of its addresses.
    fn put_in_force(&mut self, loaded: &Loaded) -> anyhow::Result<()> {
        let current = Arc::clone(&self.directories.borrow().current);
        let names = self.names.clone();
        let prepared = prepare_loaded(loaded, names, &self.in_use, &current.conflicts)?;
        self.snapshots.write(&prepared.policy)?;
        // First: the kernel may bring a connection to a new target at once.
        let before = self.sources.tls.replace(Arc::clone(&loaded.tls));
        let policy = Some(Arc::clone(&prepared.policy));
        if let Err(error) = self.change_over(&prepared.directory, policy) {
            self.sources.tls.replace(before);
            return Err(error);
        }
        self.names = prepared.names;
        self.resolver.clone_from(&loaded.resolver);
        self.retry = None;
        self.say(prepared.said);
        Ok(())
    }

    /// The one place where targets change. First the gateway knows both the old ones and the new;
    /// then the kernel changes over; then sessions follow the new policy, and the old ones go. At no
    /// moment does the kernel bring a connection that the gateway does not know.
    fn change_over(
        &mut self,
        next: &Arc<Directory>,
        policy: Option<Arc<Snapshot>>,
    ) -> anyhow::Result<()> {
        let current = Arc::clone(&self.directories.borrow().current);
        if next.routes != current.routes || next.unix_sockets != current.unix_sockets {
            self.directories.send_replace(Directories {
                current: Arc::clone(&current),
                next: Some(Arc::clone(next)),
            });
            let plane = self.plane.read();
            let taken = plane
                .map_err(|_| anyhow::anyhow!("the kernel plane is in an unknown state"))
                .and_then(|plane| Ok(change_kernel(&plane, &current, next)?));
            if let Err(error) = taken {
                self.directories.send_replace(Directories {
                    current,
                    next: None,
                });
                return Err(error);
            }
        }
        if let Some(policy) = policy {
            // Sessions take it up with their next turn.
            self.policy.send_replace(policy);
        }
        self.directories.send_replace(Directories {
            current: Arc::clone(next),
            next: None,
        });
        self.keep(next);
        self.say_changes(&current, next);
        Ok(())
    }

    fn keep(&mut self, directory: &Directory) {
        if let Some(memory) = &mut self.memory {
            memory.keep(&directory.names);
        }
    }

    fn say_changes(&self, before: &Directory, after: &Directory) {
        self.say(after.conflicts.difference(&before.conflicts).cloned());
        self.say(after.shadowed.difference(&before.shadowed).cloned());
        for (addresses, what) in [
            (
                after.kept.difference(&before.kept),
                "in no policy any more, but targets while sessions use them",
            ),
            (
                before.kept.difference(&after.kept),
                "no longer kept for sessions",
            ),
        ] {
            let addresses: BTreeSet<&SocketAddr> = addresses.collect();
            if !addresses.is_empty() {
                self.say([format!("{what}: {}", list(&addresses))]);
            }
        }
    }

    /// Logs and records changes of the targets that nobody asked for.
    fn say(&self, changes: impl IntoIterator<Item = String>) {
        for detail in changes {
            tracing::info!("targets: {detail}");
            let note = GatewayNote { detail };
            // A record that is full must not keep an address from being a target.
            if let Err(error) = self.recorder.note(event(&[], Kind::KernelChanged(note))) {
                tracing::error!(%error, "a change of the targets could not be recorded");
            }
        }
    }
}

/// Both, or neither.
fn change_kernel(plane: &Plane, current: &Directory, next: &Directory) -> Result<(), KernelError> {
    let sockets_change = next.unix_sockets != current.unix_sockets;
    if sockets_change {
        plane.set_unix_sockets(&next.unix_sockets)?;
    }
    if next.routes == current.routes {
        return Ok(());
    }
    let taken = plane.set_targets(&next.routes);
    if taken.is_err() && sockets_change {
        // They fitted before.
        plane.set_unix_sockets(&current.unix_sockets)?;
    }
    taken
}

/// A policy in a few words.
pub(super) fn describe(policy: &Snapshot) -> String {
    let mut text = format!(
        "policy {} with {}, {} and {}",
        hex::encode(policy.hash),
        count(policy.targets.len(), "target"),
        count(policy.rule_count(), "rule"),
        count(policy.mask_count, "mask"),
    );
    for (file, id) in &policy.mask_keys {
        text.push_str(&format!("; key {id} in {file}"));
    }
    text
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// Some of them, and how many more.
fn list(addresses: &BTreeSet<&SocketAddr>) -> String {
    let shown = addresses.iter().take(LISTED_MAX);
    let shown: Vec<String> = shown.map(ToString::to_string).collect();
    match addresses.len().saturating_sub(LISTED_MAX) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}
