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
use interceptor_core::audit::event::{GatewayNote, Kind};
use interceptor_core::mask::HashKey;
use interceptor_core::policy::Snapshot;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use super::drive::Stage;
use super::{Shared, accept, catalog, event, sessions};
use crate::admin::{self, AdminContext};
use crate::approval::Approvals;
use crate::audit::{Recorder, Store};
use crate::cli::arguments::RunArgs;
use crate::kernel::{Attached, KernelLog, Plane, PlaneConfig, TargetRoute};
use crate::{policy_files, telemetry};

/// How long the last events may take to reach the disk after the sessions have ended.
const END_WAIT: Duration = Duration::from_secs(5);

/// Runs the gateway until SIGTERM or SIGINT.
pub fn run(arguments: RunArgs) -> anyhow::Result<()> {
    telemetry::start(&arguments.log, arguments.log_format)?;
    harden();
    let policy = Arc::new(policy_files::load(&arguments.policies, &hash_key()?)?);
    let store = Store::open(&arguments.state.join("audit"))?;
    let config = PlaneConfig {
        cgroup: arguments.cgroup.clone(),
        bpffs: arguments.bpffs.clone(),
        devices: (!arguments.devices.is_empty()).then(|| arguments.devices.clone()),
        listen_port: arguments.listen_port,
        targets: routes(&policy),
        ..PlaneConfig::default()
    };
    let Attached {
        plane,
        listener,
        log,
    } = Plane::attach(&config)?;
    // The threads come after the process entered the proxy's cgroup, and are born in it.
    let (recorder, writer) = Recorder::start(store)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let served = runtime.block_on(serve(
        &arguments,
        policy,
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

/// What the kernel shall intercept.
fn routes(policy: &Snapshot) -> Vec<TargetRoute> {
    let mut routes = Vec::new();
    for (index, target) in policy.targets.iter().enumerate() {
        for endpoint in &target.endpoints {
            let target = u32::try_from(index).unwrap_or(u32::MAX);
            routes.push(TargetRoute {
                network: endpoint.network,
                port: endpoint.port,
                target,
            });
        }
    }
    routes
}

async fn serve(
    arguments: &RunArgs,
    policy: Arc<Snapshot>,
    plane: Plane,
    listener: TcpListener,
    log: KernelLog,
    recorder: Recorder,
) -> anyhow::Result<()> {
    let kernel_log = tokio::spawn(log.forward());
    let (terminate, interrupt) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let shared = Arc::new(Shared {
        policy: Arc::clone(&policy),
        recorder: recorder.clone(),
        approvals: Approvals::default(),
        sessions: sessions::Sessions::default(),
        catalogs: catalog::Catalogs::default(),
        epoch: Instant::now(),
    });
    let started = format!("interceptor {} started", env!("CARGO_PKG_VERSION"));
    recorder.note(event(
        &[],
        Kind::GatewayStarted(GatewayNote { detail: started }),
    ))?;
    recorder
        .append(event(
            &[],
            Kind::PolicyLoaded(GatewayNote {
                detail: describe(&policy),
            }),
        ))
        .await?;

    let (stage, stages) = watch::channel(Stage::Serving);
    let accepting = tokio::spawn(accept::accept(
        listener,
        Arc::new(RwLock::new(plane)),
        Arc::clone(&shared),
        stages,
    ));
    let (stop_admin, admin_stopped) = watch::channel(false);
    let socket = arguments.run_dir.join("admin.sock");
    let context = admin_context(&shared, &arguments.policies);
    let admin_socket = socket.clone();
    let mut administration =
        tokio::spawn(async move { admin::serve(&admin_socket, context, admin_stopped).await });
    tracing::info!(
        targets = policy.targets.len(),
        rules = policy.rule_count(),
        masks = policy.mask_count,
        socket = %socket.display(),
        "ready"
    );

    let mut signals = Signals {
        terminate,
        interrupt,
    };
    let failed = tokio::select! {
        () = signals.next() => None,
        ended = &mut administration => Some(ended),
    };
    drain(&stage, arguments.drain, accepting, &mut signals).await;
    let stopped = Kind::GatewayStopped(GatewayNote {
        detail: "interceptor stopped in order".to_owned(),
    });
    let recorded = recorder.append(event(&[], stopped)).await;
    // A receiver that is gone has stopped already.
    let _ = stop_admin.send(true);
    kernel_log.abort();
    match failed {
        Some(ended) => ended.context("the administration socket failed")??,
        None => administration
            .await
            .context("the administration socket failed")??,
    }
    recorded?;
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
        () = signals.next() => tracing::warn!("a second signal: sessions end now"),
    }
    let _ = stage.send(Stage::Ending);
    if tokio::time::timeout(END_WAIT, accepting).await.is_err() {
        tracing::warn!("some sessions did not end in time");
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// SIGTERM or SIGINT. Cancel-safe.
    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

fn admin_context(shared: &Arc<Shared>, policies: &Path) -> AdminContext {
    let rows = Arc::clone(shared);
    let state = Arc::clone(shared);
    let policies = policies.display().to_string();
    AdminContext {
        approvals: shared.approvals.clone(),
        recorder: shared.recorder.clone(),
        sessions: Arc::new(move || rows.sessions.rows()),
        status: Arc::new(move || {
            serde_json::json!({
                "version": env!("CARGO_PKG_VERSION"),
                "pid": std::process::id(),
                "uptime_seconds": state.epoch.elapsed().as_secs(),
                "sessions": state.sessions.count(),
                "sessions_max": accept::SESSIONS_MAX,
                "requests_waiting": state.approvals.list().len(),
                "record_failed": state.recorder.is_failed(),
                "policy": {
                    "directory": policies,
                    "hash": hex::encode(state.policy.hash),
                    "targets": state.policy.targets.iter().map(|target| target.name.clone()).collect::<Vec<_>>(),
                    "rules": state.policy.rule_count(),
                    "masks": state.policy.mask_count,
                },
            })
        }),
    }
}

fn describe(policy: &Snapshot) -> String {
    format!(
        "policy {} with {}, {} and {}",
        hex::encode(policy.hash),
        count(policy.targets.len(), "target"),
        count(policy.rule_count(), "rule"),
        count(policy.mask_count, "mask"),
    )
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}
