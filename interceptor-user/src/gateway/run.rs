//! `interceptor run`: everything comes up in order, and goes down in order.
//!
//! Policy first, so that a broken one starts nothing; then the record; then the kernel, which from
//! then on refuses what is not carried; last the administration socket, whose presence says that
//! the gateway carries connections.

use std::net::TcpListener;
use std::path::Path;
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use interceptor_core::audit::event::{Event, GatewayNote, Kind};
use interceptor_core::mask::HashKey;
use interceptor_core::policy::Snapshot;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use super::directory::Directory;
use super::drive::Stage;
use super::targets::{self, Prepared, Sources, Targets, describe};
use super::{Shared, accept, catalog, event, pass, sessions};
use crate::admin::{self, AdminContext};
use crate::approval::Approvals;
use crate::audit::{Recorder, Store};
use crate::cli::arguments::RunArgs;
use crate::identify::Identifier;
use crate::kernel::{Attached, KernelLog, Plane, PlaneConfig};
use crate::{kernel, telemetry};

/// How long the last events may take to reach the disk after the sessions have ended.
const END_WAIT: Duration = Duration::from_secs(5);

/// Runs the gateway until SIGTERM or SIGINT.
pub fn run(arguments: RunArgs) -> anyhow::Result<()> {
    telemetry::start(&arguments.log, arguments.log_format)?;
    harden();
    kernel::check_capabilities()?;
    let sources = Sources {
        directory: arguments.policies.clone(),
        hash_key: hash_key()?,
        dns_servers: arguments.dns_servers.clone(),
        memory: arguments.state.join("names.json"),
    };
    let prepared = targets::prepare(&sources, arguments.dns_grace)?;
    let store = Store::open(&arguments.state.join("audit"))?;
    let config = PlaneConfig {
        cgroup: arguments.cgroup.clone(),
        bpffs: arguments.bpffs.clone(),
        devices: (!arguments.devices.is_empty()).then(|| arguments.devices.clone()),
        listen_port: arguments.listen_port,
        targets: prepared.routes(),
        unix_sockets: prepared.unix_sockets(),
        ..PlaneConfig::default()
    };
    let Attached {
        plane,
        listener,
        log,
        severed,
    } = Plane::attach(&config)?;
    // The threads come after the process entered the proxy's cgroup, and are born in it.
    let (recorder, writer) = Recorder::start(store)?;
    if !severed.connections.is_empty() {
        tracing::warn!("{severed}");
        recorder.note(note(Kind::KernelChanged, severed.to_string()))?;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let served = runtime.block_on(serve(
        &arguments,
        sources,
        prepared,
        plane,
        listener,
        log,
        recorder.clone(),
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
fn hash_key() -> anyhow::Result<HashKey> {
    use std::io::Read as _;
    let mut bytes = [0; 32];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut random| random.read_exact(&mut bytes))
        .context("no random bytes from /dev/urandom")?;
    Ok(HashKey::new(bytes))
}

async fn serve(
    arguments: &RunArgs,
    sources: Sources,
    prepared: Prepared,
    plane: Plane,
    listener: TcpListener,
    log: KernelLog,
    recorder: Recorder,
) -> anyhow::Result<()> {
    let kernel_log = tokio::spawn(log.forward());
    let mut signals = Signals::new()?;
    let identifier = Identifier::new(plane.task_probe());
    let plane = Arc::new(RwLock::new(plane));
    record_start(&recorder, &prepared.policy).await?;
    let mut targets = Targets::new(sources, prepared, Arc::clone(&plane), recorder.clone())?;
    let shared = Arc::new(Shared {
        policy: targets.policy(),
        directories: targets.directories(),
        in_use: targets.in_use(),
        recorder: recorder.clone(),
        approvals: Approvals::default(),
        sessions: sessions::Sessions::default(),
        catalogs: catalog::Catalogs::default(),
        identifier,
        passing: pass::Passing::start()?,
        epoch: Instant::now(),
    });
    let watching = tokio::spawn(watch_kernel(Arc::clone(&plane), recorder.clone()));
    let (stage, stages) = watch::channel(Stage::Serving);
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let accepting = accept::accept(listener, Arc::clone(&plane), Arc::clone(&shared), stages);
    let accepting = tokio::spawn(accepting);
    let (stop_admin, admin_stopped) = watch::channel(false);
    let socket = arguments.run_dir.join(admin::SOCKET);
    let context = admin_context(&shared, &arguments.policies);
    let mut administration =
        tokio::spawn(async move { admin::serve(&socket, context, admin_stopped).await });
    tracing::info!("ready: {}", describe(&shared.policy.borrow()));

    let failed = loop {
        tokio::select! {
            signal = signals.next() => match signal {
                Heard::Reload => targets.reload(),
                Heard::Stop => break None,
            },
            step = targets.next() => targets.take(step)?,
            ended = &mut administration => break Some(ended),
        }
    };
    drain(&stage, arguments.drain, accepting, &mut signals).await;
    let stopped = "interceptor stopped in order".to_owned();
    let stopped = note(Kind::GatewayStopped, stopped);
    let recorded = recorder.append(stopped).await;
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

async fn record_start(recorder: &Recorder, policy: &Snapshot) -> anyhow::Result<()> {
    let started = format!("interceptor {} started", env!("CARGO_PKG_VERSION"));
    recorder.note(note(Kind::GatewayStarted, started))?;
    let loaded = describe(policy);
    recorder.append(note(Kind::PolicyLoaded, loaded)).await?;
    Ok(())
}

/// Lets sessions end when they are idle, and ends them when the time is over or on a second signal.
async fn drain(
    stage: &watch::Sender<Stage>,
    limit: Duration,
    mut accepting: tokio::task::JoinHandle<()>,
    signals: &mut Signals,
) {
    tracing::info!(limit = %humantime::format_duration(limit), "draining: sessions end when they are idle");
    let _ = stage.send(Stage::Draining);
    tokio::select! {
        _ = &mut accepting => return,
        () = tokio::time::sleep(limit) => tracing::warn!("the time to drain is over: sessions end now"),
        () = signals.stop() => tracing::warn!("a second signal: sessions end now"),
    }
    let _ = stage.send(Stage::Ending);
    if tokio::time::timeout(END_WAIT, accepting).await.is_err() {
        tracing::warn!("some sessions did not end in time");
    }
}

/// What a signal asks for.
enum Heard {
    /// SIGHUP: read the policy anew.
    Reload,
    /// SIGTERM or SIGINT.
    Stop,
}

struct Signals {
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
    async fn next(&mut self) -> Heard {
        tokio::select! {
            _ = self.terminate.recv() => Heard::Stop,
            _ = self.interrupt.recv() => Heard::Stop,
            _ = self.hang_up.recv() => Heard::Reload,
        }
    }

    /// The next signal to stop; others are of no use any more. Cancel-safe.
    async fn stop(&mut self) {
        while !matches!(self.next().await, Heard::Stop) {}
    }
}

fn admin_context(shared: &Arc<Shared>, policies: &Path) -> AdminContext {
    let rows = Arc::clone(shared);
    let state = Arc::clone(shared);
    let members = shared.sessions.clone();
    let policies = policies.display().to_string();
    AdminContext {
        approvals: shared.approvals.clone(),
        recorder: shared.recorder.clone(),
        sessions: Arc::new(move || rows.sessions.rows()),
        kill: Arc::new(move |id, killing| members.kill(id, killing)),
        status: Arc::new(move || {
            let policy = Arc::clone(&state.policy.borrow());
            serde_json::json!({
                "version": env!("CARGO_PKG_VERSION"),
                "pid": std::process::id(),
                "uptime_seconds": state.epoch.elapsed().as_secs(),
                "sessions": state.sessions.count(),
                "sessions_max": accept::SESSIONS_MAX,
                "requests_waiting": state.approvals.list().len(),
                "record_failed": state.recorder.is_failed(),
                "names": names(&state.directories.borrow().current),
                "policy": {
                    "directory": policies,
                    "hash": hex::encode(policy.hash),
                    "targets": policy.targets.iter().map(|target| target.name.clone()).collect::<Vec<_>>(),
                    "rules": policy.rule_count(),
                    "masks": policy.mask_count,
                },
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
