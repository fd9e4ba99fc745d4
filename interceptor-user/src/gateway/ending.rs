//! How a gateway ends: its sessions do, in their own time or not, and those of the gateways that it
//! replaced.
//!
//! It owns the limits of that. Stopped, idle sessions end at once. Replaced by another process, they
//! go on as if nothing had happened for a while, and only then end as in a stop.

use std::pin::pin;
use std::time::Duration;

use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::drive::Stage;
use super::handover::{self, Elder, Old, Successor, Word};
use super::reload::Cause;
use super::run::{END_WAIT, Heard, Signals};
use super::targets::Targets;
use crate::admin::UpgradeRequest;

/// What has to end before the process may.
pub(super) struct Work {
    accepting: JoinHandle<()>,
    elder: Option<Elder>,
}

impl Work {
    pub(super) const fn new(accepting: JoinHandle<()>, elder: Option<Elder>) -> Self {
        Self { accepting, elder }
    }

    /// How many processes that were replaced have sessions left.
    pub(super) fn draining(&self) -> usize {
        self.elder.as_ref().map_or(0, Elder::draining)
    }

    /// Lets them read the policy anew.
    pub(super) fn reload(&mut self) {
        if let Some(elder) = &mut self.elder {
            elder.reload();
        }
    }

    fn stop(&mut self) {
        if let Some(elder) = &mut self.elder {
            elder.stop();
        }
    }

    /// Waits for the last session, and then for those of replaced gateways. Cancel-safe.
    async fn ended(&mut self) {
        if !self.accepting.is_finished() {
            // Its own failure is an end, too.
            let _ = (&mut self.accepting).await;
        }
        if let Some(elder) = &self.elder {
            // A sender that is gone has ended.
            let _ = elder.ended().wait_for(|ended| *ended).await;
        }
    }
}

/// Hands over to a new process and answers who asked for it. `None` if this one goes on.
pub(super) async fn upgrade_to(old: Old, asked: UpgradeRequest) -> Option<Successor> {
    let handed = tokio::task::spawn_blocking(move || handover::hand_over(&old)).await;
    let (answer, successor) = match handed {
        Ok(Ok(successor)) => (Ok(json!({ "pid": successor.pid })), Some(successor)),
        Ok(Err(error)) => (Err(error.to_string()), None),
        Err(error) => (Err(error.to_string()), None),
    };
    match (&answer, &successor) {
        (_, Some(successor)) => {
            tracing::info!(pid = successor.pid, "another process has taken over");
        }
        (Err(error), _) => tracing::error!(%error, "this process goes on; the upgrade failed"),
        _ => {}
    }
    // Who asked may have gone.
    let _ = asked.send(answer);
    successor
}

/// What the record says at the end.
pub(super) fn ending(successor: Option<&Successor>) -> String {
    match successor {
        Some(successor) => format!(
            "interceptor stopped in order: process {} took over from process {}",
            successor.pid,
            std::process::id()
        ),
        None => "interceptor stopped in order".to_owned(),
    }
}

/// What the successor says from now on.
type Words = Option<mpsc::Receiver<Word>>;

/// What goes on while a replaced gateway leaves.
pub(super) struct Leaving<'a> {
    pub(super) stage: &'a watch::Sender<Stage>,
    pub(super) targets: &'a mut Targets,
    pub(super) work: &'a mut Work,
    pub(super) signals: &'a mut Signals,
}

/// Lets sessions go on after a successor took over, until the limit or a word to stop.
pub(super) async fn leave(
    leaving: Leaving<'_>,
    limit: Duration,
    mut successor: Successor,
) -> Words {
    let Leaving {
        stage,
        targets,
        work,
        signals,
    } = leaving;
    tracing::info!(limit = %humantime::format_duration(limit), "replaced: open sessions go on");
    stage.send_replace(Stage::HandedOver);
    let mut until = pin!(tokio::time::sleep(limit));
    loop {
        // Names are the successor's business; here only a reload goes on.
        let is_reloading = targets.is_reloading();
        // Cancel-safe, all of them.
        let heard = tokio::select! {
            () = work.ended() => break,
            () = &mut until => break,
            heard = signals.next() => heard,
            step = targets.next(), if is_reloading => {
                targets.take(step);
                continue;
            }
            word = successor.words.recv() => match word {
                Some(Word::Reload) => Heard::Reload,
                Some(Word::Stop) | None => Heard::Stop,
            },
        };
        match heard {
            Heard::Stop => break,
            Heard::Reload => {
                targets.reload(Cause::Word);
                work.reload();
            }
        }
    }
    Some(successor.words)
}

/// Lets sessions end when they are idle, and ends them when the time is over, on a second signal, or
/// when the successor that records for them is gone.
pub(super) async fn drain(
    stage: &watch::Sender<Stage>,
    limit: Duration,
    work: &mut Work,
    signals: &mut Signals,
    words: &mut Words,
) {
    tracing::info!(limit = %humantime::format_duration(limit), "draining: sessions end when they are idle");
    stage.send_replace(Stage::Draining);
    work.stop();
    tokio::select! {
        () = work.ended() => return,
        () = tokio::time::sleep(limit) => tracing::warn!("the time to drain is over: sessions end now"),
        () = signals.stop() => tracing::warn!("a second signal: sessions end now"),
        () = gone(words) => tracing::error!("the process that took over is gone: sessions end now"),
    }
    stage.send_replace(Stage::Ending);
    if tokio::time::timeout(END_WAIT, work.ended()).await.is_err() {
        tracing::warn!("some sessions did not end in time");
    }
}

/// The end of the successor; for ever if there is none. Cancel-safe.
async fn gone(words: &mut Words) {
    match words {
        Some(words) => while words.recv().await.is_some() {},
        None => std::future::pending().await,
    }
}
