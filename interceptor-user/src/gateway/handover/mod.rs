//! The hot upgrade: a running gateway starts the binary that is installed now, and hands over to it.
//!
//! It owns the talk between the two ([`channel`]), the old one's part ([`successor`]) and the new
//! one's ([`predecessor`]). The old one serves until the new one has shown that it can; whatever fails
//! before that leaves everything as it was. Why in this way: `docs/adr/0012-hot-upgrade.md`.
//!
//! ```text
//!  old                                       new
//!  starts it              Offer, sockets ──▶
//!                         ◀────── Prepared   policy read, programs loaded: nothing changed yet
//!  stops accepting        Attach ──────────▶
//!                         ◀────── Attached   programs, rules and table exchanged in place
//!  closes the log         Open ────────────▶
//!                         ◀─────── Serving   log open, administration socket bound
//!  records through it     Yours ───────────▶ accepts
//!  lets sessions end      ◀──── Stop, Reload
//! ```

mod channel;
mod predecessor;
mod successor;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub(super) use predecessor::{Elder, Predecessor};
pub(super) use successor::{Old, Program, Successor, Word, hand_over, notify};

/// How long a new process may take until it is prepared. Meanwhile the old one serves.
pub(super) const PREPARE_MAX: Duration = Duration::from_secs(30);

/// How long it may take then for the kernel plane. Meanwhile new connections wait.
pub(super) const TAKE_OVER_MAX: Duration = Duration::from_secs(10);

/// How long it may take then until it serves. Meanwhile commands wait, too: opening a log takes sled the
/// longer the larger it is.
pub(super) const OPEN_MAX: Duration = Duration::from_secs(30);

/// Processes that were replaced and have sessions left. The events of each pass through all that came
/// after it.
pub(super) const DRAINING_MAX: usize = 8;

/// Tells a process that standard input is a channel to the gateway that it replaces.
const VARIABLE: &str = "INTERCEPTOR_HANDOVER";

/// What is said over the channel. No `Debug`: it holds a key.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Message {
    /// With the descriptors: standard error, listening socket, record stream, request counter.
    Offer {
        /// The old one's version.
        version: String,
        /// The key of `hash` masks, in hex: equal values go on to look equal.
        hash_key: String,
        /// How many processes will drain once this one does.
        draining: usize,
    },
    Prepared,
    Attach,
    Attached,
    Open,
    Serving,
    Yours,
    /// The new one cannot; in its words.
    Failed {
        error: String,
    },
    /// To the draining one: read the policy anew.
    Reload,
    /// To the draining one: the gateway stops.
    Stop,
}

impl Message {
    const fn name(&self) -> &'static str {
        match self {
            Self::Offer { .. } => "offer",
            Self::Prepared => "prepared",
            Self::Attach => "attach",
            Self::Attached => "attached",
            Self::Open => "open",
            Self::Serving => "serving",
            Self::Yours => "yours",
            Self::Failed { .. } => "failed",
            Self::Reload => "reload",
            Self::Stop => "stop",
        }
    }
}
