//! The watchdog: looks at the kernel plane every few seconds and puts right what somebody changed.
//!
//! It owns when that is done and where it is told: in the log and on record. What drift is, is the
//! plane's business.

use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock, Weak};
use std::time::Duration;

use interceptor_core::audit::event::{GatewayNote, Kind};
use tokio::net::TcpListener;

use super::event;
use crate::audit::Recorder;
use crate::kernel::{Drift, KernelError, Plane, Repair};

/// What a status shows of it.
#[derive(Default)]
pub(super) struct Repairs {
    count: AtomicU64,
}

impl Repairs {
    /// How many things were put right since the start.
    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

/// What the watchdog needs.
pub(super) struct Watchdog {
    pub(super) plane: Arc<RwLock<Plane>>,
    pub(super) listener: Weak<TcpListener>,
    pub(super) recorder: Recorder,
    pub(super) repairs: Arc<Repairs>,
}

impl Watchdog {
    /// Watches until the task is dropped.
    pub(super) async fn watch(self, interval: Duration) {
        let watchdog = Arc::new(self);
        let mut left = Vec::new();
        loop {
            let look = Arc::clone(&watchdog);
            // It runs programs and waits for them.
            let looked = tokio::task::spawn_blocking(move || look.look()).await;
            match looked {
                Ok(Ok(Some(repair))) => watchdog.report(&repair, &mut left),
                Ok(Ok(None)) => left.clear(),
                Ok(Err(error)) => {
                    tracing::error!(target: "interceptor::kernel", %error, "the plane cannot be looked at");
                }
                Err(error) => tracing::error!(%error, "the watchdog failed"),
            }
            tokio::time::sleep(interval).await;
        }
    }

    /// `None` if everything is in place.
    fn look(&self) -> Result<Option<Repair>, KernelError> {
        let Ok(plane) = self.plane.read() else {
            return Ok(None);
        };
        if plane.drift()?.is_empty() {
            return Ok(None);
        }
        let listener = self.listener.upgrade();
        let listener = listener.as_ref().map(|listener| listener.as_fd());
        plane.repair(listener).map(Some)
    }

    fn report(&self, repair: &Repair, left: &mut Vec<Drift>) {
        if !repair.repaired.is_empty() {
            let count = u64::try_from(repair.repaired.len()).unwrap_or(u64::MAX);
            self.repairs.count.fetch_add(count, Ordering::Relaxed);
            let detail = format!("repaired: {}", joined(&repair.repaired));
            tracing::warn!(target: "interceptor::kernel", "somebody changed the plane; {detail}");
            self.record(detail);
        }
        if repair.left != *left && !repair.left.is_empty() {
            let detail = format!("cannot be repaired: {}", joined(&repair.left));
            tracing::error!(target: "interceptor::kernel", "somebody changed the plane, and it {detail}");
            self.record(detail);
        }
        left.clone_from(&repair.left);
    }

    fn record(&self, detail: String) {
        let changed = event(&[], Kind::KernelChanged(GatewayNote { detail }));
        if let Err(error) = self.recorder.note(changed) {
            tracing::error!(%error, "a change of the plane is not on record");
        }
    }
}

fn joined(drift: &[Drift]) -> String {
    let texts: Vec<String> = drift.iter().map(Drift::to_string).collect();
    texts.join("; ")
}
