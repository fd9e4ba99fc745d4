//! Connections to targets with `protocol: tcp`: carried without being understood.
//!
//! It owns the life of such a connection: it is one command of the kind `CONNECT`, judged once,
//! recorded before any byte goes to the target, and over when both sides ended it or one broke.
//! Bytes are [`copy`]'s. Whatever ends it out of order resets both sides: there is no protocol to
//! say a last word in.

mod copy;
mod direction;
mod hold;
mod pipe;

pub(super) use pipe::Pipes;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use interceptor_core::audit::event::{self as events, Kind};
use interceptor_core::command::{CONNECT, Facts, Subject};
use interceptor_core::policy::{Decision, Input, Outcome, Protocol, RuleReference, View};
use interceptor_core::session::duties;
use sha2::{Digest as _, Sha256};
use tokio::net::TcpStream;
use tokio::sync::watch;
use uuid::Uuid;

use self::copy::{Copied, Passage};
use self::direction::Side;
use self::hold::{approval, nobody};
use super::drive::{Arrival, Stage};
use super::sessions::{Control, Controls, Membership};
use super::{Shared, announce, event, upstream};
use crate::admin::Killing;
use crate::audit::{AuditError, Pending, json};

/// The number of a connection's only command.
const COMMAND: u64 = 1;

/// A connection with everything around it.
struct Connection {
    shared: Arc<Shared>,
    membership: Membership,
    id: Uuid,
    destination: SocketAddr,
    as_client: Option<SocketAddr>,
    target: String,
    subject: Subject,
    facts: Facts,
    passage: Passage,
    /// The request that waits for a person.
    waiting: Option<u64>,
    began: Instant,
}

/// A connection's one decision.
struct Judged {
    decision: Decision,
    view: View,
    /// Its record on the way to the disk.
    intent: Pending,
}

/// How it ended.
enum End {
    Denied(String),
    LeftWhileHeld,
    NotRecorded(AuditError),
    Unreachable(io::Error),
    Unusable(io::Error),
    Copied(Copied),
    /// The rule, and its limit.
    Limited(String, String),
    Killed(Killing),
    Stopped,
}

/// Carries one connection from its decision to its end, on a thread for such connections.
///
/// # Errors
/// If the client's socket cannot be used.
pub(super) async fn carry(
    arrival: Arrival,
    shared: Arc<Shared>,
    membership: Membership,
    controls: Controls,
    stage: watch::Receiver<Stage>,
) -> io::Result<()> {
    copy::prepare(&arrival.client)?;
    // Each event loop has its own list of sockets.
    let client = arrival.client.into_std()?;
    let worker = shared.workers.next();
    // Boxed, as each future that it is handed to would have room for it.
    let connection = Box::new(Connection {
        shared,
        membership,
        id: arrival.id,
        destination: arrival.destination,
        as_client: arrival.as_client,
        target: arrival.target.name.clone(),
        subject: arrival.subject,
        facts: Facts {
            kinds: vec![CONNECT],
            ..Facts::default()
        },
        passage: Passage::new(),
        waiting: None,
        began: Instant::now(),
    });
    // The record is on its way to the disk while the thread wakes up.
    let judged = connection.judge(arrival.connection);
    let work = worker.spawn(async move {
        let client = TcpStream::from_std(client)?;
        connection.run(client, judged, controls, stage).await;
        Ok(())
    });
    work.await.map_err(io::Error::other)?
}

/// Waits for the word that ends a connection from outside. Cancel-safe.
async fn interruption(controls: &mut Controls, stage: &mut watch::Receiver<Stage>) -> End {
    loop {
        tokio::select! {
            control = controls.next() => match control {
                Control::Kill(killing) => return End::Killed(killing),
                Control::Cancel => {}
            },
            // There is no moment when it is idle: it goes on while the gateway drains.
            _ = stage.wait_for(|stage| *stage == Stage::Ending) => return End::Stopped,
        }
    }
}

impl Connection {
    /// Decides, once, and writes it down; it is durable when the second part says so.
    fn judge(&self, connection: events::Connection) -> Result<Box<Judged>, End> {
        self.note(Kind::Connection(connection))
            .map_err(End::NotRecorded)?;
        let policy = Arc::clone(&self.shared.policy.borrow());
        // By name: since the look-up there may have been another policy, in which the target is
        // one that speaks a protocol, or none.
        let target = policy.target(&self.target);
        let Some(target) = target.filter(|target| target.protocol == Protocol::Tcp) else {
            return Err(End::Denied("the policy has just changed".to_owned()));
        };
        let view = View::new(Arc::clone(&policy), &target.name, self.subject.clone());
        let Some(view) = view else {
            return Err(End::Denied("the policy has just changed".to_owned()));
        };
        let mut decision = view.decide(&input(&self.facts));
        let (who, shared) = (view.who(), &self.shared);
        let name = duties::counted_as(Some(who), &self.subject, &self.target);
        let reached = duties::keep_rates(&mut decision, &*shared.rates, &name, shared.now());
        let command = self.command(&decision, &view);
        self.shared.metrics.decided(&command, &self.target);
        let intent = self.append(Kind::Command(command));
        for note in duties::notes(COMMAND, &decision, reached.as_deref()) {
            announce(self.id, &note);
            self.note(note).map_err(End::NotRecorded)?;
        }
        Ok(Box::new(Judged {
            decision,
            view,
            intent,
        }))
    }

    async fn run(
        mut self: Box<Self>,
        client: TcpStream,
        judged: Result<Box<Judged>, End>,
        mut controls: Controls,
        mut stage: watch::Receiver<Stage>,
    ) {
        // Dropping the work is safe: until it is over, the sockets reset when they are dropped.
        let end = match judged {
            Err(end) => end,
            Ok(judged) => tokio::select! {
                biased;
                end = interruption(&mut controls, &mut stage) => end,
                end = self.live(&client, judged) => end,
            },
        };
        self.finish(client, end);
    }

    async fn live(&mut self, client: &TcpStream, judged: Box<Judged>) -> End {
        let Judged {
            decision,
            view,
            intent,
        } = *judged;
        let recorded = match &decision.outcome {
            Outcome::Allow => intent,
            Outcome::Deny | Outcome::Terminate => {
                return match intent.await {
                    Ok(_) => End::Denied(decision.reason.to_string()),
                    Err(error) => End::NotRecorded(error),
                };
            }
            // Boxed, as few connections wait, and all would have to be as large.
            Outcome::Hold(plan) => {
                match Box::pin(self.hold(client, &decision, plan, &view)).await {
                    Ok(approval) => approval,
                    Err(end) => return end,
                }
            }
        };
        drop(view);
        match Box::pin(self.connect(recorded)).await {
            Ok(target) => self.pass(client, target, &decision).await,
            Err(end) => end,
        }
    }

    /// Dials while the record goes to the disk; no byte goes before both are there.
    async fn connect(&mut self, recorded: Pending) -> Result<TcpStream, End> {
        let recorded = async { recorded.await.map_err(End::NotRecorded) };
        let dialled = async {
            let stream = upstream::connect(self.destination, self.as_client).await;
            stream.map_err(End::Unreachable)
        };
        let (_, stream) = tokio::try_join!(recorded, dialled)?;
        copy::prepare(&stream).map_err(End::Unusable)?;
        Ok(stream)
    }

    async fn pass(&mut self, client: &TcpStream, target: TcpStream, decision: &Decision) -> End {
        self.show("passing");
        let limits = decision.obligations.as_ref().map(|they| &they.limits);
        let bytes = limits.and_then(|limits| limits.bytes.clone());
        let time = limits.and_then(|limits| limits.duration.clone());
        let pipes = &self.shared.pipes;
        if let Some(limit) = &bytes {
            self.passage.limit_down(limit.at);
        }
        let over = async {
            match &time {
                Some(limit) => tokio::time::sleep(limit.at).await,
                None => std::future::pending().await,
            }
        };
        let copied = tokio::select! {
            copied = self.passage.carry(client, &target, pipes) => Some(copied),
            // What is dropped resets both connections.
            () = over => None,
        };
        match (copied, bytes, time) {
            (Some(Copied::Limited), Some(limit), _) => {
                self.limited(&limit.rule, format!("{} bytes", limit.at))
            }
            (None, _, Some(limit)) => self.limited(&limit.rule, duties::duration_text(limit.at)),
            (Some(copied), ..) => {
                if let Copied::Closed(_) = copied {
                    copy::close(target);
                }
                End::Copied(copied)
            }
            (None, _, None) => End::Stopped,
        }
    }

    /// The connection met a limit, and ends.
    fn limited(&self, rule: &RuleReference, limit: String) -> End {
        let reached = duties::limit_reached(COMMAND, rule, &limit);
        announce(self.id, &reached);
        match self.note(reached) {
            Ok(()) => End::Limited(rule.name.clone(), limit),
            Err(error) => End::NotRecorded(error),
        }
    }

    /// The last events, and then the ends of the sockets.
    fn finish(self, client: TcpStream, end: End) {
        if let Some(number) = self.waiting {
            let _ = self.note(approval(number, "session_ended", &nobody()));
        }
        if let End::NotRecorded(error) = &end {
            tracing::error!(session = %self.id, %error, "the record cannot be written: a connection ends");
        }
        let (reason, code) = end.words();
        let micros = self.began.elapsed().as_micros();
        let outcome = Kind::Outcome(events::Outcome {
            command: COMMAND,
            tag: if code.is_empty() { CONNECT } else { "" }.to_owned(),
            error_code: code.to_owned(),
            duration_us: u64::try_from(micros).unwrap_or(u64::MAX),
            ..events::Outcome::default()
        });
        let close = Kind::Close(events::Close {
            reason,
            violation: false,
            commands: COMMAND,
            bytes_up: self.passage.bytes_up(),
            bytes_down: self.passage.bytes_down(),
        });
        let noted = self.note(outcome).and_then(|()| self.note(close));
        if let Err(error) = noted {
            tracing::debug!(session = %self.id, %error, "the end of a connection is not on record");
        }
        if let End::Copied(Copied::Closed(_)) = end {
            copy::close(client);
        }
    }

    fn command(&self, decision: &Decision, view: &View) -> events::Command {
        let (text, policy) = (self.text(), &view.snapshot().hash);
        events::Command {
            digest: digest(&text),
            text,
            ..events::Command::decided(COMMAND, &self.facts, decision, Some(view.who()), policy)
        }
    }

    fn text(&self) -> String {
        format!("{CONNECT} {}", self.destination)
    }

    fn show(&self, state: &'static str) {
        self.membership.show(state, COMMAND);
    }

    fn append(&self, kind: Kind) -> Pending {
        self.shared.recorder.append(event(self.id.as_bytes(), kind))
    }

    fn note(&self, kind: Kind) -> Result<(), AuditError> {
        self.shared.recorder.note(event(self.id.as_bytes(), kind))
    }
}

impl End {
    /// A sentence for the record, and a code for the command's outcome: none if it went well.
    fn words(&self) -> (String, &'static str) {
        let name = |side: &Side| match side {
            Side::Client => "the client",
            Side::Target => "the target",
        };
        match self {
            Self::Denied(reason) => (format!("refused: {reason}"), "denied"),
            Self::LeftWhileHeld => (
                "the client left while it waited for approval".to_owned(),
                "client_gone",
            ),
            Self::NotRecorded(_) => ("the record cannot be written".to_owned(), "not_recorded"),
            Self::Unreachable(error) => (
                format!("the target was not reached: {}", upstream::reason(error)),
                "unreachable",
            ),
            Self::Unusable(error) => (
                format!("the connection cannot be used: {}", error.kind()),
                "broken",
            ),
            Self::Copied(Copied::Closed(side)) => {
                (format!("closed in order, {} first", name(side)), "")
            }
            Self::Copied(Copied::Reset(side)) => {
                (format!("{} reset the connection", name(side)), "reset")
            }
            Self::Copied(Copied::Broken(side, kind)) => (
                format!("{}'s connection broke: {kind}", name(side)),
                "broken",
            ),
            // Told apart before.
            Self::Copied(Copied::Limited) => ("it met a limit".to_owned(), "limit"),
            Self::Limited(rule, limit) => (
                format!("stopped by rule \"{rule}\": its limit is {limit}"),
                "limit",
            ),
            Self::Killed(killing) => (killing.words(), "killed"),
            Self::Stopped => ("interceptor is shutting down".to_owned(), "shutdown"),
        }
    }
}

/// What the decision on a connection is made on. There is no text to match.
fn input(facts: &Facts) -> Input<'_> {
    Input {
        facts,
        text: "",
        now_unix_ns: json::now_unix_ns(),
    }
}

/// SHA-256 of a command's text with its length before it, as for every other command.
fn digest(text: &str) -> Vec<u8> {
    let mut hash = Sha256::new();
    hash.update((text.len() as u64).to_be_bytes());
    hash.update(text);
    hash.finalize().to_vec()
}
