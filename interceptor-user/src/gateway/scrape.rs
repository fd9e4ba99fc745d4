//! What the metrics are asked of: the state of the gateway at this moment.
//!
//! It owns where each number comes from. It must not know how they are written down: that is
//! [`crate::metrics`]'s.

use std::net::TcpListener;
use std::sync::{Arc, RwLock};

use anyhow::Context as _;
use tokio::task::JoinHandle;

use super::Shared;
use super::reload::PolicyState;
use crate::audit::json;
use crate::cli::arguments::RunArgs;
use crate::kernel::Plane;
use crate::metrics::{Sample, serve};

/// Opens the endpoint's socket, if one is wanted.
///
/// # Errors
/// If it cannot be opened, or is for everybody without somebody having said so.
pub(super) fn bind(arguments: &RunArgs) -> anyhow::Result<Option<TcpListener>> {
    let Some(address) = arguments.metrics else {
        return Ok(None);
    };
    anyhow::ensure!(
        address.ip().to_canonical().is_loopback() || arguments.metrics_exposed,
        "the metrics on {address} could be read by whoever reaches it; give an address of loopback, or --metrics-exposed"
    );
    let listener = serve::bind(address);
    let listener = listener.with_context(|| {
        format!("the metrics cannot be served on {address}; give another --metrics")
    })?;
    Ok(Some(listener))
}

/// Serves them until it is aborted.
pub(super) fn start(listener: TcpListener, render: serve::Render) -> JoinHandle<()> {
    tokio::spawn(async move {
        if let Err(error) = serve::serve(listener, render).await {
            tracing::error!(%error, "the metrics are not served any more");
        }
    })
}

/// Gives all metrics as text.
pub(super) fn renderer(
    shared: &Arc<Shared>,
    plane: &Arc<RwLock<Plane>>,
    state: PolicyState,
) -> serve::Render {
    let (shared, plane) = (Arc::clone(shared), Arc::clone(plane));
    Arc::new(move || {
        let reloads = state.counts();
        // What cannot be read is left out: a scraper sees that it is missing.
        let verdicts = plane.read().ok().and_then(|plane| plane.verdicts().ok());
        let verdicts = verdicts.into_iter().flatten();
        shared.metrics.render(&Sample {
            sessions: shared.sessions.count(),
            requests_waiting: shared.approvals.list().len(),
            is_record_failed: shared.recorder.is_failed(),
            policy_hash: hex::encode(shared.policy.borrow().hash),
            policy_since_unix_ns: reloads.since_unix_ns,
            now_unix_ns: json::now_unix_ns(),
            reloads_loaded: reloads.loaded,
            reloads_refused: reloads.refused,
            is_policy_refused: reloads.is_refused,
            verdicts: verdicts
                .map(|(verdict, count)| (verdict.name(), count))
                .collect(),
        })
    })
}
