//! `interceptor run`: everything comes up in order, and goes down in order.
//!
//! Policy first, so that a broken one starts nothing; then the record; then the kernel, which from
//! then on refuses what is not carried; last the administration socket, whose presence says that
//! the gateway carries connections. A process that replaces a running gateway takes these from it, in
//! the order of [`handover`].

use std::sync::{Arc, RwLock, Weak};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use interceptor_core::audit::event::{Event, GatewayNote, Kind};
use interceptor_core::mask::HashKey;
use interceptor_core::policy::Snapshot;
use sd_notify::NotifyState;
use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};

use super::directory::Directory;
use super::drive::Stage;
use super::ending::{Leaving, Work, drain, ending, leave, upgrade_to};
use super::handover::{self, Old, Predecessor, Program};
use super::policy_watch::PolicyWatch;
use super::reload::{Cause, PolicyState, SnapshotRecord};
use super::targets::{self, Prepared, Sources, Targets, describe};
use super::watchdog::{Repairs, Watchdog};
use super::{Shared, accept, catalog, event, pass, scrape, sessions};
use crate::admin::{self, AdminContext, ReloadRequest, UpgradeRequest};
use crate::approval::Approvals;
use crate::audit::{Durability, Recorder, Store};
use crate::cli::arguments::{AuditReads, RunArgs};
use crate::credentials::Credentials;
use crate::identify::Identifier;
use crate::kernel::{Attached, KernelError, Plane, PlaneConfig};
use crate::mask_keys::HostFiles;
use crate::metrics::{Metrics, serve};
use crate::tls::Tls;
use crate::{kernel, telemetry};

/// How long the last events may take to reach the disk after the sessions have ended.
pub(super) const END_WAIT: Duration = Duration::from_secs(5);

/// Runs the gateway until SIGTERM or SIGINT.
pub fn run(arguments: RunArgs) -> anyhow::Result<()> {
    let program = Arc::new(Program::of_this_process()?);
    let mut predecessor = Predecessor::from_environment()?;
    let ran = run_after(&arguments, program, &mut predecessor);
    // Left of it is only one that goes on.
    if let (Err(error), Some(predecessor)) = (&ran, &mut predecessor) {
        predecessor.failed(error);
    }
    ran
}

fn run_after(
    arguments: &RunArgs,
    program: Arc<Program>,
    predecessor: &mut Option<Predecessor>,
) -> anyhow::Result<()> {
    telemetry::start(&arguments.log, arguments.log_format)?;
    harden();
    kernel::check_capabilities()?;
    let key = match predecessor {
        Some(predecessor) => predecessor.hash_key(),
        None => new_hash_key()?,
    };
    let endpoint = scrape::bind(arguments)?;
    let metrics = Metrics::default();
    let sources = Sources {
        directory: arguments.policies.clone(),
        hash_key: HashKey::new(key).with_files(Arc::new(HostFiles)),
        observer: metrics.observer(),
        dns_servers: arguments.dns_servers.clone(),
        memory: arguments.state.join("names.json"),
        tls: Tls::new(&arguments.ca),
    };
    let prepared = targets::prepare(&sources, arguments.dns_grace)?;
    let config = PlaneConfig {
        cgroup: arguments.cgroup.clone(),
        bpffs: arguments.bpffs.clone(),
        devices: (!arguments.devices.is_empty()).then(|| arguments.devices.clone()),
        listen_port: arguments.listen_port,
        targets: prepared.routes(),
        unix_sockets: prepared.unix_sockets(),
        ..PlaneConfig::default()
    };
    let log = arguments.state.join("audit");
    let durability = arguments.audit_durability;
    // The recorder's threads come after the process entered the proxy's cgroup, and are born in it.
    let (attached, (recorder, writer)) = match predecessor {
        None => {
            let store = Store::open_with(&log, durability)?;
            (Plane::attach(&config)?, Recorder::start(store)?)
        }
        Some(old) => {
            let listener = || {
                old.listener()
                    .map_err(|source| KernelError::Handover { source })
            };
            let attached = Plane::take_over(&config, listener)?;
            let counter = old.attached()?;
            let store = Store::open_with(&log, durability)?;
            (attached, Recorder::start_counting(store, counter)?)
        }
    };
    if !attached.severed.connections.is_empty() {
        let severed = attached.severed.to_string();
        tracing::warn!("{severed}");
        recorder.note(note(Kind::KernelChanged, severed))?;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let served = runtime.block_on(serve(
        arguments,
        Own {
            program,
            key,
            metrics,
            endpoint,
        },
        sources,
        prepared,
        attached,
        recorder.clone(),
        predecessor,
    ));
    runtime.shutdown_timeout(END_WAIT);
    recorder.close();
    let ended = writer.join();
    served?;
    anyhow::ensure!(
        ended.is_ok(),
        "the writer of the record failed; see the log"
    );
    Ok(())
}

/// What a gateway does to itself first: no core dumps with sessions in them, no descriptors taken
/// by others of the same user, and as many descriptors as it may have.
fn harden() {
    if let Err(error) = nix::sys::prctl::set_dumpable(false) {
        tracing::warn!(%error, "the process could not be made undumpable");
    }
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit on open files could not be raised");
    }
}

/// The key of `hash` masks: equal values look equal while this process lives.
fn new_hash_key() -> anyhow::Result<[u8; 32]> {
    use std::io::Read as _;
    let mut bytes = [0; 32];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut random| random.read_exact(&mut bytes))
        .context("no random bytes from /dev/urandom")?;
    Ok(bytes)
}

/// What is this process's own.
struct Own {
    /// It hands this on.
    program: Arc<Program>,
    /// Of `hash` masks; it hands this on, too.
    key: [u8; 32],
    metrics: Metrics,
    /// Where others ask for them.
    endpoint: Option<std::net::TcpListener>,
}

async fn serve(
    arguments: &RunArgs,
    own: Own,
    sources: Sources,
    prepared: Prepared,
    attached: Attached,
    recorder: Recorder,
    predecessor: &mut Option<Predecessor>,
) -> anyhow::Result<()> {
    let kernel_log = tokio::spawn(attached.log.forward());
    let mut signals = Signals::new()?;
    let identifier = Identifier::new(attached.plane.task_probe());
    let plane = Arc::new(RwLock::new(attached.plane));
    let mut snapshots = SnapshotRecord::new(recorder.clone());
    let started = started(predecessor.as_ref()) + durability_note(&recorder);
    record_start(&recorder, &mut snapshots, &prepared.policy, started).await?;
    let tls = sources.tls.clone();
    let mut targets = Targets::new(
        sources,
        prepared,
        Arc::clone(&plane),
        snapshots,
        recorder.clone(),
    )?;
    let credentials = Credentials::new(&own.key, arguments.cgroup.as_deref())
        .context("nothing to log in with can be fetched")?;
    let shared = Arc::new(Shared {
        tls,
        policy: targets.policy(),
        directories: targets.directories(),
        in_use: targets.in_use(),
        recorder: recorder.clone(),
        approvals: Approvals::default(),
        sessions: sessions::Sessions::default(),
        catalogs: catalog::Catalogs::default(),
        identifier,
        credentials: Arc::new(credentials),
        reads_overlap: arguments.audit_reads == AuditReads::Overlap,
        workers: super::workers::Workers::start()?,
        pipes: pass::Pipes::default(),
        metrics: own.metrics,
        rates: Arc::default(),
        epoch: Instant::now(),
    });
    let path = arguments.run_dir.join(admin::SOCKET);
    let socket = match predecessor {
        Some(_) => admin::Socket::replace(&path, arguments.admin_group.as_ref())?,
        None => admin::Socket::bind(&path, arguments.admin_group.as_ref())?,
    };
    admin::place::remove_dead(&arguments.run_dir);
    let place = socket.place();
    let (stop_admin, admin_stopped) = watch::channel(false);
    let (upgrade, mut upgrades) = mpsc::channel(1);
    let (reload, mut reloads) = mpsc::channel(1);
    let repairs = Arc::new(Repairs::default());
    let told = Told {
        policies: arguments.policies.display().to_string(),
        state: targets.state(),
        metrics: scrape::renderer(&shared, &plane, targets.state()),
        upgrade,
        reload,
    };
    let render = Arc::clone(&told.metrics);
    let context = admin_context(&shared, &plane, &repairs, told);
    let mut administration = tokio::spawn(admin::serve_on(socket, context, admin_stopped));
    let elder = match predecessor {
        Some(old) => Some(tokio::task::block_in_place(|| old.serving(&recorder))?),
        None => None,
    };
    *predecessor = None;
    let listener = Arc::new(tokio::net::TcpListener::from_std(attached.listener)?);
    let (stage, stages) = watch::channel(Stage::Serving);
    let waiting = Arc::downgrade(&listener);
    let accepting = accept::accept(listener, Arc::clone(&plane), Arc::clone(&shared), stages);
    let watchdog = Watchdog {
        plane: Arc::clone(&plane),
        listener: Weak::clone(&waiting),
        recorder: recorder.clone(),
        repairs,
    };
    let watchdog = tokio::spawn(watchdog.watch(arguments.watch));
    let watching = tokio::spawn(watch_kernel(Arc::clone(&plane), recorder.clone()));
    let mut work = Work::new(tokio::spawn(accepting), elder);
    let scraped = own.endpoint.map(|listener| scrape::start(listener, render));
    let mut files = PolicyWatch::start(&arguments.policies, arguments.policy_watch.interval());
    tracing::info!("ready: {}", describe(&shared.policy.borrow()));
    handover::notify(&[NotifyState::Ready]);

    let old = |draining| Old {
        program: Arc::clone(&own.program),
        hash_key: own.key,
        recorder: recorder.clone(),
        log: arguments.state.join("audit"),
        plane: Arc::clone(&plane),
        stage: stage.clone(),
        listener: Weak::clone(&waiting),
        place: place.clone(),
        draining,
    };
    let (mut failed, mut successor) = (None, None);
    while failed.is_none() && successor.is_none() {
        tokio::select! {
            signal = signals.next() => match signal {
                Heard::Reload => {
                    targets.reload(Cause::Word);
                    work.reload();
                }
                Heard::Stop => break,
            },
            Some(asked) = reloads.recv() => {
                targets.reload(Cause::Asked(asked));
                work.reload();
            }
            () = files.changed() => targets.reload(Cause::Files),
            step = targets.next() => if targets.take(step) {
                work.reload();
            },
            Some(asked) = upgrades.recv() => successor = upgrade_to(old(work.draining()), asked).await,
            ended = &mut administration => failed = Some(ended),
        }
    }
    upgrades.close();
    // Who waits learns that this is not the one to ask.
    drop(reloads);
    // A successor watches by itself, and says when something changed.
    drop(files);
    // Scrapers are the successor's from now on.
    if let Some(scraped) = scraped {
        scraped.abort();
    }
    watchdog.abort();
    let detail = ending(successor.as_ref());
    let mut words = match successor {
        Some(successor) => {
            let sessions = Leaving {
                stage: &stage,
                targets: &mut targets,
                work: &mut work,
                signals: &mut signals,
            };
            leave(sessions, arguments.drain, successor).await
        }
        None => {
            handover::notify(&[NotifyState::Stopping]);
            None
        }
    };
    drain(&stage, arguments.drain, &mut work, &mut signals, &mut words).await;
    let recorded = recorder.append(note(Kind::GatewayStopped, detail)).await;
    // A receiver that is gone has stopped already.
    let _ = stop_admin.send(true);
    kernel_log.abort();
    watching.abort();
    let administration = match failed {
        Some(ended) => ended,
        None => administration.await,
    };
    administration.context("the administration socket failed")??;
    recorded?;
    Ok(())
}

fn note(kind: fn(GatewayNote) -> Kind, detail: String) -> Event {
    event(&[], kind(GatewayNote { detail }))
}

/// Has the plane follow the devices of this host. What changed goes to the log and on record.
async fn watch_kernel(plane: Arc<RwLock<Plane>>, recorder: Recorder) {
    let report = move |detail: String| {
        tracing::info!(target: "interceptor::kernel", "{detail}");
        if let Err(error) = recorder.note(note(Kind::KernelChanged, detail)) {
            tracing::error!(%error, "a change in the kernel is not on record");
        }
    };
    if let Err(error) = kernel::watch(plane, report).await {
        tracing::error!(
            "new devices are not noticed any more; the nft table refuses what they bring: {error}"
        );
    }
}

/// How this process came to be.
fn started(predecessor: Option<&Predecessor>) -> String {
    let version = env!("CARGO_PKG_VERSION");
    match predecessor {
        Some(old) => format!(
            "interceptor {version} takes over from process {}, interceptor {}",
            old.pid, old.version
        ),
        None => format!("interceptor {version} started"),
    }
}

/// What the record says of itself where it promises less than usual.
fn durability_note(recorder: &Recorder) -> &'static str {
    match recorder.durability() {
        Durability::Disk => "",
        Durability::Process => {
            tracing::warn!(
                "--audit-durability process: commands go before their events are on the disk; a power cut can take the last of the record"
            );
            "; events count as recorded once the kernel has them: a power cut can take the last"
        }
    }
}

async fn record_start(
    recorder: &Recorder,
    snapshots: &mut SnapshotRecord,
    policy: &Snapshot,
    started: String,
) -> anyhow::Result<()> {
    recorder.note(note(Kind::GatewayStarted, started))?;
    snapshots.write(policy)?;
    let loaded = describe(policy);
    recorder.append(note(Kind::PolicyLoaded, loaded)).await?;
    Ok(())
}

/// What a signal asks for.
pub(super) enum Heard {
    /// SIGHUP: read the policy anew.
    Reload,
    /// SIGTERM or SIGINT.
    Stop,
}

pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// The next signal. Cancel-safe.
    pub(super) async fn next(&mut self) -> Heard {
        tokio::select! {
            _ = self.terminate.recv() => Heard::Stop,
            _ = self.interrupt.recv() => Heard::Stop,
            _ = self.hang_up.recv() => Heard::Reload,
        }
    }

    /// The next signal to stop; others are of no use any more. Cancel-safe.
    pub(super) async fn stop(&mut self) {
        while !matches!(self.next().await, Heard::Stop) {}
    }
}

/// What the administration socket is told of the gateway, and tells it.
struct Told {
    /// The directory of the policy files.
    policies: String,
    state: PolicyState,
    metrics: serve::Render,
    upgrade: mpsc::Sender<UpgradeRequest>,
    reload: mpsc::Sender<ReloadRequest>,
}

fn admin_context(
    shared: &Arc<Shared>,
    plane: &Arc<RwLock<Plane>>,
    repairs: &Arc<Repairs>,
    told: Told,
) -> AdminContext {
    let rows = Arc::clone(shared);
    let state = Arc::clone(shared);
    let members = shared.sessions.clone();
    let (plane, repairs) = (Arc::clone(plane), Arc::clone(repairs));
    AdminContext {
        approvals: shared.approvals.clone(),
        recorder: shared.recorder.clone(),
        sessions: Arc::new(move || rows.sessions.rows()),
        kill: Arc::new(move |id, killing| members.kill(id, killing)),
        upgrade: told.upgrade,
        reload: told.reload,
        metrics: told.metrics,
        status: Arc::new(move || {
            let policy = Arc::clone(&state.policy.borrow());
            json!({
                "version": env!("CARGO_PKG_VERSION"),
                "pid": std::process::id(),
                "uptime_seconds": state.epoch.elapsed().as_secs(),
                "sessions": state.sessions.count(),
                "sessions_max": accept::SESSIONS_MAX,
                "requests_waiting": state.approvals.list().len(),
                "record_failed": state.recorder.is_failed(),
                "record_durability": state.recorder.durability(),
                "names": names(&state.directories.borrow().current),
                "drift": drift(&plane),
                "repairs": repairs.count(),
                "policy": told.state.show(&told.policies, &policy),
            })
        }),
    }
}

/// What names stand for, as `interceptor status` shows it.
fn names(directory: &Directory) -> serde_json::Value {
    let names = directory.names.iter().map(|row| {
        let addresses = row.addresses.iter().map(|address| {
            let state = serde_json::json!({
                "seconds": address.since.elapsed().as_secs(),
                "in_answer": address.is_current,
            });
            (address.address.to_string(), state)
        });
        let addresses: serde_json::Map<_, _> = addresses.collect();
        let mut shown = serde_json::json!({ "addresses": addresses });
        if let Some(trouble) = &row.trouble
            && let Some(fields) = shown.as_object_mut()
        {
            fields.insert("trouble".to_owned(), trouble.clone().into());
        }
        (row.name.clone(), shown)
    });
    serde_json::Value::Object(names.collect())
}

/// What is not as it should be at this moment.
fn drift(plane: &RwLock<Plane>) -> serde_json::Value {
    let drift = match plane.read() {
        Ok(plane) => plane.drift(),
        Err(_) => Ok(Vec::new()),
    };
    match drift {
        Ok(drift) => json!(drift),
        Err(error) => {
            json!([{ "what": "the plane", "detail": format!("it cannot be looked at: {error}") }])
        }
    }
}
