//! A PostgreSQL session: the machine between one client and one server.
//!
//! It owns the order of things: which reply belongs to which message, what waits for what, what
//! is judged when. It must not know sockets, clocks, where the record is kept or who approves.
//!
//! ```text
//!  client ─▶ client_in ─▶ [frontend: judge, hold, record] ─▶ to_server ─▶ (gates) ─▶ server
//!  client ◀─ to_client ◀─ [backend: match, mask, count]   ◀─ server_in ◀──────────── server
//! ```
//!
//! The driver reads into [`Session::client_in`] and [`Session::server_in`], calls
//! [`Session::advance`], does what [`Session::poll_action`] asks, and writes what
//! [`Session::to_client`] and [`Session::to_server`] hold.

mod alone;
mod analyses;
mod authentication;
mod backend;
pub mod catalog;
mod cells;
mod copy;
mod copy_binary;
mod copying;
mod ending;
mod frontend;
mod function_call;
mod hold;
mod judge;
mod knowledge;
mod legs;
mod limits;
pub mod login;
mod names;
mod negotiation;
mod nested;
mod numeric;
mod overlap;
mod prepared;
mod provenance;
mod queue;
mod read_only;
mod recorded;
mod replication;
mod replies;
mod resolve;
mod scram;
mod search_path;
mod sizes;
mod standing;
mod startup;
mod submit;
mod types;

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use bytes::{Buf, BytesMut};
use hashbrown::HashMap;
use zeroize::Zeroize as _;

use crate::audit::event::Kind;
use crate::command::Subject;
use crate::mask::Masks;
use crate::policy::{HoldPlan, People, Snapshot, Target, View};
use crate::session::{Now, Rates};
use crate::wire::postgres::encode::{self, ErrorText};
use crate::wire::postgres::startup::CancelKey;
pub use alone::{Alone, OWN_REFUSALS, alone};
use authentication::Authentication;
use cells::RowPlan;
use hold::Held;
use judge::Statements;
use knowledge::CatalogState;
use legs::Legs;
pub use legs::Tls;
use names::Names;
use overlap::ReplyGate;
use queue::Expected;
use read_only::ReadOnly;
use search_path::SearchPath;

/// Bytes that wait for a slow peer before the other side is no longer read.
pub const BACKLOG_BYTES_MAX: usize = 256 << 10;
/// Bytes of one client message that is read whole.
pub const CLIENT_MESSAGE_BYTES_MAX: usize = 64 << 20;
/// Bytes of one server message that is read whole; rows that no mask touches stream past.
pub const SERVER_MESSAGE_BYTES_MAX: usize = 64 << 20;
/// Bytes of one message while a client authenticates (the server's own limit).
pub const AUTHENTICATION_BYTES_MAX: usize = 65_535;
/// Nanoseconds from the connection to the end of authentication.
pub const STARTUP_NS_MAX: u64 = 60_000_000_000;
/// Replies that may be outstanding; a client that pipelines more waits.
pub const EXPECTED_MAX: usize = 10_000;
/// Bytes that are read ahead while a command is held.
const READ_AHEAD_BYTES: usize = 64 << 10;

/// Names an event that the driver must make durable: see [`Session::handle_recorded`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(u64);

/// What the driver shall do.
pub enum Action {
    /// Encrypt the client's leg once [`Session::to_client`] is out. What is in
    /// [`Session::client_in`], if anything, is the begin of the handshake. Then
    /// [`Session::handle_client_encrypted`] or [`Session::handle_broken`].
    EncryptClient,
    /// Find out what a login needs; then [`Session::handle_login`] or [`Session::handle_no_login`].
    Login(login::Question),
    /// Dial the target, encrypted as its policy says; then [`Session::handle_connected`] or [`Session::handle_unreachable`].
    Connect,
    /// Write an event down. With a ticket: say [`Session::handle_recorded`] once it is durable.
    Record(Box<Kind>, Option<Ticket>),
    /// Make this key known, so that another connection can cancel.
    Register(CancelKey),
    /// This connection cancels the session of this key, and ends.
    Cancel(CancelKey),
    /// Send this cancel request to the target, on a connection of its own.
    ForwardCancel(CancelKey),
    /// Read the catalogue of this database; then [`Session::handle_catalog`] or
    /// [`Session::handle_no_catalog`].
    ReadCatalog {
        /// One that was read before this moment will not do.
        anew: bool,
    },
    /// This session changed the catalogue: the next generation begins.
    CatalogChanged,
    /// Tell the target to stop what it does for this session; then [`Session::handle_interrupted`],
    /// also if that fails.
    Interrupt(CancelKey),
    /// Ask a person; then [`Session::handle_hold_opened`], later [`Session::handle_resolution`].
    Hold(HoldRequest),
    /// Nobody needs to answer any more.
    Withdraw,
}

/// What a person needs to see to decide on a held command. Texts are masked already.
pub struct HoldRequest {
    /// The command's number within the session.
    pub command: u64,
    /// The rule that asks.
    pub rule: String,
    /// Why it asks.
    pub reason: String,
    /// The command.
    pub text: String,
    /// Its parameters, one by one.
    pub parameters: Vec<String>,
    /// Statement kinds.
    pub kinds: Vec<String>,
    /// Relations read.
    pub reads: Vec<String>,
    /// Relations written.
    pub writes: Vec<String>,
    /// Milliseconds until it is refused.
    pub timeout_ms: u64,
    /// 0 at first, then one more for each escalation.
    pub stage: u32,
    /// Who has to approve.
    pub plan: Arc<HoldPlan>,
    /// Who asks; `None` if no identity names them for certain.
    pub person: Option<Arc<str>>,
    /// Who is behind the users of the gateway host, by the policy that decided.
    pub people: Arc<People>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    /// The client has not started a session.
    Startup,
    /// The client proves to the gateway who it is.
    Proving,
    /// The target is being dialled.
    Connecting,
    /// Credentials are relayed, or the gateway logs in.
    Authenticating,
    /// The client is in; the first ReadyForQuery has not come.
    Preparing,
    /// Commands flow.
    Running,
    /// Over; what is in `to_client` still goes out.
    Closed,
}

/// A point in `to_server` behind which nothing goes before an event is durable.
struct Gate {
    ticket: Ticket,
    /// Bytes sent and queued before it, since the start.
    offset: u64,
}

/// The machine.
pub struct Session {
    subject: Subject,
    policy: Arc<Snapshot>,
    target: Arc<Target>,
    /// What decides: the policy as it concerns this client. `None` until the client said who it is.
    view: Option<View>,
    rates: Arc<dyn Rates>,
    phase: Phase,
    now_ns: u64,
    now_unix_ns: u64,
    started_ns: u64,

    client_in: BytesMut,
    server_in: BytesMut,
    client_wants: usize,
    server_wants: usize,
    /// Bytes of a client message that pass without being looked at: COPY data.
    pass_up: usize,
    /// Bytes of a server message that pass: rows that no mask touches.
    pass_down: usize,
    to_client: BytesMut,
    to_server: BytesMut,
    gates: VecDeque<Gate>,
    /// Points in `to_client` behind which nothing goes before the event of a read is durable.
    reply_gates: VecDeque<ReplyGate>,
    /// What only reads need not wait for its record.
    reads_overlap: bool,
    sent_up: u64,
    sent_down: u64,
    tickets: u64,

    legs: Legs,
    authentication: Authentication,
    startup_packet: BytesMut,
    negotiation: negotiation::Negotiation,
    settings: startup::Settings,
    expected: VecDeque<Expected>,
    names: Names,
    kept: Statements,
    commands: u64,
    discarding: bool,
    /// It is a replication connection.
    replicates: bool,
    /// Where the last Flush of the gateway's own ends in the stream to the server.
    flushed_at: u64,
    held: Option<Held>,
    /// The target is being told to stop what it does; nothing more goes to it before it was told.
    interrupting: bool,
    /// Bytes of a server message that are thrown away: rows beyond a limit.
    drop_down: usize,
    /// The masks of rules that were in force in this transaction, for replies that belong to no
    /// command of their own.
    loose_masks: Option<Arc<Masks>>,
    /// How names without a schema are found.
    search_path: SearchPath,
    /// A rule keeps the session read-only.
    read_only: Option<ReadOnly>,
    /// How rows of described portals are rewritten, by the number of their command.
    plans: HashMap<u64, Arc<RowPlan>>,
    catalog: CatalogState,
    notices: Vec<String>,
    actions: VecDeque<Action>,
    cancel_key: Option<CancelKey>,
    draining: bool,
    /// The client sent Terminate, and closes its side next.
    terminated: bool,
    client_gone: bool,
    /// The server closed its side; what it said before waits for its record.
    server_gone: bool,
}

impl Session {
    /// A session of a client that has just connected to a target.
    pub fn new(
        subject: Subject,
        policy: Arc<Snapshot>,
        target: Arc<Target>,
        rates: Arc<dyn Rates>,
        now: Now,
    ) -> Self {
        Self {
            subject,
            policy,
            target,
            view: None,
            rates,
            phase: Phase::Startup,
            now_ns: now.monotonic_ns,
            now_unix_ns: now.unix_ns,
            started_ns: now.monotonic_ns,
            client_in: BytesMut::new(),
            server_in: BytesMut::new(),
            client_wants: 0,
            server_wants: 0,
            pass_up: 0,
            pass_down: 0,
            to_client: BytesMut::new(),
            to_server: BytesMut::new(),
            gates: VecDeque::new(),
            reply_gates: VecDeque::new(),
            reads_overlap: false,
            sent_up: 0,
            sent_down: 0,
            tickets: 0,
            legs: Legs::default(),
            authentication: Authentication::default(),
            startup_packet: BytesMut::new(),
            negotiation: negotiation::Negotiation::default(),
            settings: startup::Settings::default(),
            expected: VecDeque::new(),
            names: Names::default(),
            kept: Statements::default(),
            commands: 0,
            discarding: false,
            replicates: false,
            flushed_at: 0,
            held: None,
            interrupting: false,
            drop_down: 0,
            loose_masks: None,
            search_path: SearchPath::default(),
            read_only: None,
            plans: HashMap::new(),
            catalog: CatalogState::default(),
            notices: Vec::new(),
            actions: VecDeque::new(),
            cancel_key: None,
            draining: false,
            terminated: false,
            client_gone: false,
            server_gone: false,
        }
    }

    /// Who the client is, as far as it is known by now.
    pub fn subject(&self) -> &Subject {
        &self.subject
    }

    /// The target, as the policy in force has it.
    pub fn target(&self) -> &Arc<Target> {
        &self.target
    }

    /// Another policy is in force: it decides from the next command on.
    pub fn set_policy(&mut self, policy: Arc<Snapshot>) {
        let Some(target) = policy.target(&self.target.name).cloned() else {
            return self
                .terminate("terminating connection because its target is no longer in the policy");
        };
        self.policy = policy;
        self.target = target;
        self.forget_provenances();
        if self.phase > Phase::Startup {
            self.look();
            self.review_read_only();
        }
    }

    /// Sees the policy with the eyes of this client, as far as it is known by now.
    fn look(&mut self) {
        let policy = Arc::clone(&self.policy);
        self.kept.forget_verdicts();
        self.view = View::new(policy, &self.target.name, self.subject.clone());
    }

    /// Commands judged so far.
    pub fn commands(&self) -> u64 {
        self.commands
    }

    /// Row plans that are kept: one for each described portal that is open.
    pub fn plans(&self) -> usize {
        self.plans.len()
    }

    /// A word for where the session stands.
    pub fn state(&self) -> &'static str {
        match self.phase {
            Phase::Startup | Phase::Connecting => "starting",
            Phase::Proving | Phase::Authenticating | Phase::Preparing => "authenticating",
            Phase::Running if self.held.is_some() => "held",
            Phase::Running if self.expected.is_empty() && self.reply_gates.is_empty() => "idle",
            Phase::Running => "active",
            Phase::Closed => "closed",
        }
    }

    /// The buffer to read the client's bytes into, while [`Self::wants_client`].
    pub fn client_in(&mut self) -> &mut BytesMut {
        &mut self.client_in
    }

    /// The buffer to read the server's bytes into, while [`Self::wants_server`].
    pub fn server_in(&mut self) -> &mut BytesMut {
        &mut self.server_in
    }

    /// More bytes from the client are of use now.
    pub fn wants_client(&self) -> bool {
        let room = self.client_in.len() < self.client_wants.max(READ_AHEAD_BYTES);
        self.phase != Phase::Closed
            && !self.client_gone
            && !self.server_gone
            && room
            && self.to_server.len() < BACKLOG_BYTES_MAX
    }

    /// More bytes from the server are of use now.
    pub fn wants_server(&self) -> bool {
        let room = self.server_in.len() < self.server_wants.max(READ_AHEAD_BYTES);
        self.phase != Phase::Closed
            && !self.server_gone
            && room
            && self.to_client.len() < BACKLOG_BYTES_MAX
    }

    /// What may go to the client now: nothing that came of a read whose intent is not durable yet. The
    /// driver takes from the front, with [`Self::sent_to_client`].
    pub fn to_client(&self) -> &[u8] {
        match self.reply_gates.front() {
            None => &self.to_client,
            Some(gate) => self
                .to_client
                .get(..self.open_to_client(gate))
                .unwrap_or(&[]),
        }
    }

    /// `count` bytes of [`Self::to_client`] are out.
    pub fn sent_to_client(&mut self, count: usize) {
        self.to_client.advance(count.min(self.to_client.len()));
        self.sent_down += count as u64;
    }

    /// What may go to the server now: nothing behind an intent that is not durable yet.
    pub fn to_server(&self) -> &[u8] {
        match self.gates.front() {
            None => &self.to_server,
            Some(gate) => {
                let open = usize::try_from(gate.offset.saturating_sub(self.sent_up)).unwrap_or(0);
                self.to_server.get(..open).unwrap_or(&self.to_server)
            }
        }
    }

    /// `count` bytes of [`Self::to_server`] are out.
    pub fn sent_to_server(&mut self, count: usize) {
        if self.phase < Phase::Running {
            // There are credentials among them.
            let sent = count.min(self.to_server.len());
            self.to_server.get_mut(..sent).unwrap_or_default().zeroize();
        }
        self.to_server.advance(count.min(self.to_server.len()));
        self.sent_up += count as u64;
    }

    /// The next thing to do, if any.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When [`Self::advance`] is to be called even if nothing happens, in the time of
    /// [`Now::monotonic_ns`].
    pub fn deadline_ns(&self) -> Option<u64> {
        let login = self.started_ns.saturating_add(STARTUP_NS_MAX);
        let login = (self.phase < Phase::Running).then_some(login);
        let stages = [login, self.hold_deadline_ns(), self.limit_deadline_ns()];
        stages.into_iter().flatten().min()
    }

    /// When [`Self::advance`] ends the hold if nobody has answered, while there is one.
    pub fn hold_deadline_ns(&self) -> Option<u64> {
        self.held.as_ref().map(|held| held.deadline_ns)
    }

    /// Over: no more is read, and the server's side can be closed.
    pub fn is_closed(&self) -> bool {
        self.phase == Phase::Closed
    }

    /// Nothing is under way, and nothing is half there.
    pub fn is_at_rest(&self) -> bool {
        self.phase == Phase::Running
            && self.expected.is_empty()
            && self.reply_gates.is_empty()
            && self.held.is_none()
            && [
                &self.client_in,
                &self.server_in,
                &self.to_client,
                &self.to_server,
            ]
            .iter()
            .all(|buffer| buffer.is_empty())
    }

    /// Gives back the memory of a session at rest that moved much.
    pub fn release_buffers(&mut self) {
        if self.is_at_rest() {
            self.client_in = BytesMut::new();
            self.server_in = BytesMut::new();
            self.to_client = BytesMut::new();
            self.to_server = BytesMut::new();
            self.expected.shrink_to_fit();
        }
    }

    /// Works on everything that was read, at this time.
    pub fn advance(&mut self, now: Now) {
        self.now_ns = now.monotonic_ns;
        self.now_unix_ns = now.unix_ns;
        if self.phase < Phase::Running && self.now_ns >= self.started_ns + STARTUP_NS_MAX {
            let error = ErrorText::new("08P01", "the client took too long to start its session");
            self.close_with(
                "the client took too long to start its session",
                true,
                &error,
            );
        }
        self.expire_hold();
        // The server first: its replies free what the client's messages may wait for.
        self.advance_server();
        self.keep_durations();
        self.advance_client();
        self.flush_notices();
        self.drain_if_idle();
        self.close_if_gone();
        self.close_if_server_gone();
    }

    /// The target answered the call, on a leg that is encrypted or not.
    pub fn handle_connected(&mut self, server: Option<Tls>) {
        if self.phase == Phase::Connecting {
            self.legs.server = server;
            let Some(packet) = self.packet_for_server() else {
                let what = "the startup packet has no room for the server's user";
                return self.cannot_log_in("54000", what);
            };
            self.to_server.extend_from_slice(&packet);
            self.phase = Phase::Authenticating;
            self.begin_answering();
        }
    }

    /// The target did not answer. `reason` is a few words without secrets.
    pub fn handle_unreachable(&mut self, reason: &str) {
        let message = alloc::format!(
            "interceptor could not reach target \"{}\": {reason}",
            self.target.name
        );
        let error = ErrorText::new("08001", &message);
        self.close_with(&message, false, &error);
    }

    /// An event is durable: what it gates may go.
    pub fn handle_recorded(&mut self, ticket: Ticket) {
        while self.gates.front().is_some_and(|gate| gate.ticket <= ticket) {
            self.gates.pop_front();
        }
        self.open_replies(ticket);
    }

    /// The record cannot take events: nothing more goes to the target.
    pub fn handle_not_recorded(&mut self, reason: &str) {
        let message = "interceptor cannot record the command, so it does not go to the target";
        self.close_with(reason, false, &ErrorText::new("58030", message));
    }

    fn record(&mut self, kind: Kind) {
        self.actions.push_back(Action::Record(Box::new(kind), None));
    }

    /// Records what must be durable before anything written to `to_server` from now on goes out.
    fn record_before(&mut self, kind: Kind) {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.gates.push_back(Gate {
            ticket,
            offset: self.sent_up + self.to_server.len() as u64,
        });
        let kind = Box::new(kind);
        self.actions.push_back(Action::Record(kind, Some(ticket)));
    }

    fn notify(&mut self, text: String) {
        self.notices.push(text);
        self.flush_notices();
    }

    fn flush_notices(&mut self) {
        if self.pass_down == 0 && self.phase != Phase::Closed {
            for text in core::mem::take(&mut self.notices) {
                encode::notice(&mut self.to_client, &text);
            }
        }
    }
}
