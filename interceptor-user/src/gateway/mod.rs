//! The running gateway: from an accepted connection to a recorded end.
//!
//! It owns the life of sessions: [`accept`] takes connections, [`drive`] moves bytes, timers and
//! answers between sockets and the core's machine, [`holding`] tells who answered in time, [`pass`] carries what is not understood,
//! [`sessions`] knows who is there, [`catalog`] reads what masks need, [`targets`] keeps the targets'
//! addresses up to date, [`policy_watch`] and [`reload`] the policy, [`handover`] gives the gateway to another process. It must not know how a
//! protocol's bytes look.

mod accept;
mod cancels;
mod catalog;
mod catalog_watch;
mod directory;
mod drive;
mod encrypting;
mod ending;
mod handover;
mod holding;
mod in_use;
mod log_in;
mod pass;
mod policy_watch;
mod rates;
mod reload;
mod run;
mod scrape;
mod sessions;
mod stream;
mod targets;
mod upstream;
mod wait;
mod watchdog;
mod workers;

pub use run::run;

use std::sync::Arc;
use std::time::Instant;

use interceptor_core::audit::event::{Event, Kind};
use interceptor_core::policy::Snapshot;
use interceptor_core::session::Now;
use tokio::sync::watch;
use uuid::Uuid;

use crate::approval::Approvals;
use crate::audit::{Recorder, json};
use crate::credentials::Credentials;
use crate::identify::Identifier;
use crate::metrics::Metrics;
use crate::tls::Tls;

/// What every session shares.
struct Shared {
    /// The policy in force; the receiver's copies see each new one.
    policy: watch::Receiver<Arc<Snapshot>>,
    /// Which target an address belongs to.
    directories: watch::Receiver<directory::Directories>,
    in_use: in_use::InUse,
    recorder: Recorder,
    approvals: Approvals,
    sessions: sessions::Sessions,
    catalogs: catalog::Catalogs,
    /// The legs' certificates.
    tls: Tls,
    identifier: Identifier,
    /// What logins need.
    credentials: Arc<Credentials>,
    workers: workers::Workers,
    /// What only reads goes while its record is on its way.
    reads_overlap: bool,
    /// Of connections that pass through.
    pipes: pass::Pipes,
    /// What has been decided.
    metrics: Metrics,
    /// What limits on rates have counted.
    rates: Arc<rates::CountedRates>,
    /// Time zero of the monotonic times that sessions are given.
    epoch: Instant,
}

impl Shared {
    fn now(&self) -> Now {
        Now {
            monotonic_ns: u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX),
            unix_ns: json::now_unix_ns(),
        }
    }
}

/// An event of this moment.
fn event(session: &[u8], kind: Kind) -> Event {
    Event {
        time_unix_ns: json::now_unix_ns(),
        session: session.to_vec(),
        kind: Some(kind),
    }
}

/// Says in the log what a rule wants somebody to know. The command itself is in the record.
fn announce(session: Uuid, kind: &Kind) {
    match kind {
        Kind::Notification(note) => {
            let (command, rule, groups) = (note.command, &note.rule, &note.groups);
            tracing::info!(%session, command, rule, ?groups, "a rule wants somebody to know of a command");
        }
        Kind::LimitReached(reached) => {
            let (command, rule, limit) = (reached.command, &reached.rule, &reached.limit);
            tracing::info!(%session, command, rule, limit, "a command met a limit");
        }
        _ => {}
    }
}
