//! The one loop that moves a session: bytes, timers and answers between the sockets and the core's
//! machine.
//!
//! It owns waiting. It must not know how a protocol's bytes look. Each side is read and written
//! on its own: a peer that does not take its bytes stops what flows to it, and nothing else.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use interceptor_core::audit::event::{self as events, Kind};
use interceptor_core::command::{Resolution, Subject};
use interceptor_core::policy::{Snapshot, Target};
use interceptor_core::session::postgres::catalog::Catalog;
use interceptor_core::session::postgres::{Action, HoldRequest, Session, Ticket, Tls};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;
use uuid::Uuid;

use super::catalog::{CatalogError, Entry};
use super::encrypting::{self, Encrypting};
use super::sessions::{Control, Controls, Membership};
use super::stream::Stream;
use super::upstream::{self, OpenError, Route};
use super::wait::{Deadline, Seldom, poll_some};
use super::{Shared, event, holding, log_in};
use crate::approval::{Held, Request};
use crate::audit::{AuditError, Pending, json};
use crate::metrics::Decided;

/// How far the gateway is on its way down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    /// It takes connections.
    Serving,
    /// A successor prepares: connections wait. It may still fail, and this one goes on.
    HandingOver,
    /// A successor takes connections; sessions go on.
    HandedOver,
    /// It takes no more; sessions end when they are idle.
    Draining,
    /// The time to drain is over; sessions end now.
    Ending,
}

/// Turns of the loop without waiting before other tasks of the thread get theirs.
const TURNS_MAX: u32 = 32;
/// After the end, how long a client may take to read the last words, and the server to take its
/// farewell.
const LINGER_WAIT_MAX: Duration = Duration::from_secs(2);
/// The same for the client of a session that was killed.
const KILLED_WAIT_MAX: Duration = Duration::from_millis(250);
/// Bytes that a client may still send after the end while it reads them.
const LINGER_BYTES_MAX: u64 = 1 << 20;

type Reading = Pin<Box<dyn Future<Output = Result<(Arc<Catalog>, u64), CatalogError>> + Send>>;
type Interrupting = Pin<Box<dyn Future<Output = ()> + Send>>;
type Staging = Pin<Box<dyn Future<Output = (watch::Receiver<Stage>, Stage)> + Send>>;
type Opened = Result<(Stream, Option<Tls>), OpenError>;
type Connecting = Pin<Box<dyn Future<Output = Opened> + Send>>;

/// A session with everything around it.
struct Driver {
    session: Session,
    policy: watch::Receiver<Arc<Snapshot>>,
    shared: Arc<Shared>,
    destination: SocketAddr,
    as_client: Option<SocketAddr>,
    id: Uuid,
    membership: Membership,
    client: Stream,
    /// The client's handshake, while it lasts.
    encrypting: Option<Encrypting>,
    server: Option<Stream>,
    connecting: Option<Connecting>,
    asking: Option<log_in::Asking>,
    recording: VecDeque<(Ticket, Pending)>,
    catalog: Option<Arc<Entry>>,
    reading: Option<Reading>,
    opening: Option<Opening>,
    held: Option<Held>,
    interrupting: Option<Interrupting>,
    controls: Controls,
    stage: Staging,
    deadline: Deadline,
    /// Says when one of the sources that seldom have something has something.
    seldom: Arc<Seldom>,
    decided: Decided,
    /// Somebody ended it: nobody is waited for.
    killed: bool,
}

/// A hold whose record is on its way to the disk.
struct Opening {
    request: HoldRequest,
    number: u64,
    recorded: Pending,
}

impl Future for Opening {
    type Output = Result<u64, AuditError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.recorded).poll(context)
    }
}

/// What ended the wait. Sockets need no word: the next turn tries them all.
enum Woken {
    Connected(Opened),
    Login(log_in::Found),
    Catalog(Result<(Arc<Catalog>, u64), CatalogError>),
    HoldRecorded(Result<u64, AuditError>),
    Resolved(Resolution),
    Interrupted,
    Control(Control),
    Stage(Stage),
}

/// A client that has just come, and what is known of it.
pub(super) struct Arrival {
    pub(super) client: TcpStream,
    /// What is recorded of it.
    pub(super) connection: events::Connection,
    /// The address that it dialled.
    pub(super) destination: SocketAddr,
    /// Its address, if that is what the target shall see.
    pub(super) as_client: Option<SocketAddr>,
    pub(super) target: Arc<Target>,
    pub(super) subject: Subject,
    pub(super) id: Uuid,
}

/// Carries one session from its first byte to its end, on a thread for connections.
///
/// # Errors
/// If the client's socket cannot be used.
pub(super) async fn carry(
    mut arrival: Arrival,
    shared: Arc<Shared>,
    membership: Membership,
    controls: Controls,
    stage: watch::Receiver<Stage>,
) -> io::Result<()> {
    // Each event loop has its own list of sockets.
    let client = arrival.client.into_std()?;
    let worker = shared.workers.next();
    arrival.client = {
        let _there = worker.enter();
        TcpStream::from_std(client)?
    };
    let work = worker.spawn(drive(arrival, shared, membership, controls, stage));
    work.await.map_err(io::Error::other)
}

async fn drive(
    arrival: Arrival,
    shared: Arc<Shared>,
    membership: Membership,
    controls: Controls,
    mut stage: watch::Receiver<Stage>,
) {
    // Not marked as seen: if there was a reload since the gateway started, the first turn takes
    // policy and target from it, together.
    let policy = shared.policy.clone();
    let current = Arc::clone(&policy.borrow());
    let rates = Arc::clone(&shared.rates);
    let mut session = Session::new(
        arrival.subject,
        current,
        arrival.target,
        rates,
        shared.now(),
    );
    if shared.tls.has_certificate(&session.target().name) {
        session.offer_tls();
    }
    if shared.reads_overlap {
        session.let_reads_overlap();
    }
    let reached = *stage.borrow_and_update();
    let mut driver = Driver {
        session,
        policy,
        shared,
        destination: arrival.destination,
        as_client: arrival.as_client,
        id: arrival.id,
        membership,
        client: Stream::plain(arrival.client),
        encrypting: None,
        server: None,
        connecting: None,
        asking: None,
        recording: VecDeque::new(),
        catalog: None,
        reading: None,
        opening: None,
        held: None,
        interrupting: None,
        controls,
        stage: Box::pin(next_stage(stage)),
        deadline: Deadline::default(),
        seldom: Arc::default(),
        decided: Decided::default(),
        killed: false,
    };
    driver.record(Kind::Connection(arrival.connection), None);
    driver.enter_stage(reached);
    poll_fn(|context| driver.poll(context)).await;
    driver.finish().await;
}

impl Driver {
    /// Moves the session until it is over. What it waits for then wakes the task: each source that can
    /// have something was asked after the last thing that moved.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        for _ in 0..TURNS_MAX {
            let moved = self.turn(context) | self.take_recorded(context);
            if self.session.is_closed() {
                return Poll::Ready(());
            }
            if moved || self.is_time(context) {
                continue;
            }
            match self.poll_seldom(context) {
                Poll::Ready(woken) => self.wake(woken),
                Poll::Pending => {
                    self.rest();
                    return Poll::Pending;
                }
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    /// Reads, works and writes whatever can be without waiting. True if anything moved.
    fn turn(&mut self, context: &mut Context<'_>) -> bool {
        let wanted = (self.session.wants_client(), self.session.wants_server());
        let mut moved = self.read_client(context) | self.read_server(context);
        if let Some(catalog) = &self.catalog {
            self.session.set_catalog_generation(catalog.generation());
        }
        if self.policy.has_changed().unwrap_or(false) {
            let policy = Arc::clone(&self.policy.borrow_and_update());
            self.session.set_policy(policy);
            self.decided = Decided::default();
        }
        holding::advance(&mut self.session, &mut self.held, self.shared.now());
        self.act();
        moved |= self.write_server(context) | self.write_client(context);
        self.show();
        // A side that was not asked before is asked in another turn.
        let wants = (self.session.wants_client(), self.session.wants_server());
        moved || (wants.0 && !wanted.0) || (wants.1 && !wanted.1)
    }

    fn read_client(&mut self, context: &mut Context<'_>) -> bool {
        if !self.session.wants_client() {
            return false;
        }
        let read = self.client.poll_read(context, self.session.client_in());
        let (session, client) = (&mut self.session, &mut self.client);
        let is_agreed = encrypting::advance(&mut self.encrypting, session, client);
        match read {
            Poll::Pending => return is_agreed,
            Poll::Ready(Ok(0)) => self.session.handle_client_closed(),
            Poll::Ready(Ok(_)) => {}
            Poll::Ready(Err(error)) => self.client_broke(&error),
        }
        true
    }

    fn read_server(&mut self, context: &mut Context<'_>) -> bool {
        let Some(server) = self.server.as_mut().filter(|_| self.session.wants_server()) else {
            return false;
        };
        match server.poll_read(context, self.session.server_in()) {
            Poll::Pending => return false,
            Poll::Ready(Ok(0)) => {
                // What came before the end is for the client.
                holding::advance(&mut self.session, &mut self.held, self.shared.now());
                self.session.handle_server_closed();
            }
            Poll::Ready(Ok(_)) => {}
            Poll::Ready(Err(error)) => {
                // It may have said why, in its own protocol or in that of TLS.
                holding::advance(&mut self.session, &mut self.held, self.shared.now());
                encrypting::server_broke(&mut self.session, &error);
            }
        }
        true
    }

    fn write_client(&mut self, context: &mut Context<'_>) -> bool {
        match self.client.poll_write(context, self.session.to_client()) {
            Poll::Pending | Poll::Ready(Ok(0)) => return false,
            Poll::Ready(Ok(count)) => self.session.sent_to_client(count),
            Poll::Ready(Err(error)) => self.client_broke(&error),
        }
        true
    }

    fn write_server(&mut self, context: &mut Context<'_>) -> bool {
        let Some(server) = &mut self.server else {
            return false;
        };
        match server.poll_write(context, self.session.to_server()) {
            // The reason of an error may still be in what it sent before: reading finds the end.
            Poll::Pending | Poll::Ready(Ok(0) | Err(_)) => false,
            Poll::Ready(Ok(count)) => {
                self.session.sent_to_server(count);
                true
            }
        }
    }

    fn client_broke(&mut self, error: &io::Error) {
        self.session.handle_broken(&encrypting::broken(error));
    }

    /// Tells the machine which events are durable. True if any is.
    fn take_recorded(&mut self, context: &mut Context<'_>) -> bool {
        let mut moved = false;
        // Most reads are on the disk before their reply is there: nobody has to be woken for them.
        while self.session.awaits_record()
            && let Some((ticket, pending)) = self.recording.front_mut()
        {
            let ticket = *ticket;
            let Poll::Ready(result) = Pin::new(pending).poll(context) else {
                break;
            };
            self.recording.pop_front();
            match result {
                Ok(_) => self.session.handle_recorded(ticket),
                Err(error) => self.not_recorded(&error),
            }
            moved = true;
        }
        moved
    }

    /// Does what the machine asks.
    fn act(&mut self) {
        while let Some(action) = self.session.poll_action() {
            // Most of the others bring something to wait for.
            if !matches!(action, Action::Record(..)) {
                self.seldom.ask_again();
            }
            match action {
                Action::Connect => {
                    let (route, as_client) = (self.route(), self.as_client);
                    let opening = async move { route.open(as_client).await };
                    self.connecting = Some(Box::pin(opening));
                }
                Action::EncryptClient => self.encrypt_client(),
                Action::Login(question) => {
                    self.asking = Some(log_in::ask(
                        &self.shared.credentials,
                        &self.session,
                        question,
                    ));
                }
                Action::Record(kind, ticket) => self.record(*kind, ticket),
                Action::Register(key) => self.membership.register(self.destination, key),
                Action::Cancel(key) => self.shared.sessions.cancel(self.destination, key),
                Action::ReadCatalog { anew } => self.read_catalog(anew),
                // Other sessions may have read it, even if this one did not.
                Action::CatalogChanged => self.catalog_entry().change(),
                Action::Hold(request) => self.hold(request),
                Action::Withdraw => (self.opening, self.held) = (None, None),
                Action::Interrupt(key) => {
                    self.interrupting = Some(Box::pin(upstream::interrupt(self.route(), key)));
                }
                Action::ForwardCancel(key) => {
                    upstream::forward_cancel(self.route(), key, self.killed)
                }
            }
        }
    }

    fn encrypt_client(&mut self) {
        let tls = self.shared.tls.clone();
        let (session, client) = (&mut self.session, &mut self.client);
        self.encrypting = encrypting::begin(session, client, &tls, self.destination);
    }

    /// The way to the target, as the policy in force has it.
    fn route(&self) -> Route {
        Route::new(&self.shared, self.session.target(), self.destination)
    }

    fn record(&mut self, kind: Kind, ticket: Option<Ticket>) {
        super::announce(self.id, &kind);
        if let Kind::Command(command) = &kind {
            let target = &self.session.target().name;
            self.decided.count(&self.shared.metrics, command, target);
        }
        let event = event(self.id.as_bytes(), kind);
        match ticket {
            Some(ticket) => self
                .recording
                .push_back((ticket, self.shared.recorder.append(event))),
            None => {
                if let Err(error) = self.shared.recorder.note(event) {
                    self.not_recorded(&error);
                }
            }
        }
    }

    fn not_recorded(&mut self, error: &AuditError) {
        tracing::error!(session = %self.id, %error, "the record cannot be written: the session ends");
        self.session
            .handle_not_recorded("the record cannot be written");
    }

    fn catalog_entry(&mut self) -> Arc<Entry> {
        let (shared, destination) = (&self.shared, self.destination);
        let database = &self.session.subject().database;
        let entry = || shared.catalogs.entry(destination, database);
        Arc::clone(self.catalog.get_or_insert_with(entry))
    }

    fn read_catalog(&mut self, anew: bool) {
        let (entry, route) = (self.catalog_entry(), self.route());
        let database = self.session.subject().database.clone();
        let target = Arc::clone(self.session.target());
        let asked = anew.then(Instant::now);
        self.reading = Some(Box::pin(async move {
            entry
                .read(target.catalog.as_ref(), &route, &database, asked)
                .await
        }));
    }

    /// Writes the hold down; it is opened once that is durable, so that no two requests in one
    /// log bear the same number.
    fn hold(&mut self, request: HoldRequest) {
        let number = self.shared.recorder.next_request_number();
        self.session.handle_hold_numbered(number);
        let kind = Kind::Hold(events::Hold {
            request: number,
            command: request.command,
            timeout_ms: request.timeout_ms,
            required: request.plan.required(),
            stage: request.stage,
        });
        let recorded = self.shared.recorder.append(event(self.id.as_bytes(), kind));
        self.opening = Some(Opening {
            request,
            number,
            recorded,
        });
    }

    fn open(&mut self, opening: Opening) {
        let Opening {
            request, number, ..
        } = opening;
        let opened_unix_ns = json::now_unix_ns();
        let held = self.shared.approvals.open(Request {
            number,
            session: self.id,
            command: request.command,
            plan: request.plan,
            person: request.person,
            people: request.people,
            opened_unix_ns,
            expires_unix_ns: opened_unix_ns
                .saturating_add(request.timeout_ms.saturating_mul(1_000_000)),
            subject: self.session.subject().clone(),
            target: self.session.target().name.clone(),
            rule: request.rule,
            reason: request.reason,
            text: request.text,
            parameters: request.parameters,
            kinds: request.kinds,
            reads: request.reads,
            writes: request.writes,
        });
        match held {
            Ok(held) => {
                self.held = Some(held);
                self.session.handle_hold_opened();
            }
            Err(error) => self.session.handle_hold_refused(&error.to_string()),
        }
    }

    /// The machine has something to do at this time.
    fn is_time(&mut self, context: &mut Context<'_>) -> bool {
        let at = self.session.deadline_ns();
        self.deadline.poll(at, self.shared.epoch, context)
    }

    /// Gives back what memory only a busy session needs.
    fn rest(&mut self) {
        if self.session.is_at_rest()
            && self.client.rest() | self.server.as_mut().is_some_and(Stream::rest)
        {
            self.session.release_buffers();
        }
    }

    /// Asks the sources that seldom have something, if one of them may have by now.
    fn poll_seldom(&mut self, context: &mut Context<'_>) -> Poll<Woken> {
        let Some(waker) = self.seldom.due(context) else {
            return Poll::Pending;
        };
        let context = &mut Context::from_waker(&waker);
        let woken = if let Poll::Ready(result) = poll_some(&mut self.connecting, context) {
            Woken::Connected(result)
        } else if let Poll::Ready(found) = poll_some(&mut self.asking, context) {
            Woken::Login(found)
        } else if let Poll::Ready(result) = poll_some(&mut self.reading, context) {
            Woken::Catalog(result)
        } else if let Poll::Ready(result) = poll_some(&mut self.opening, context) {
            Woken::HoldRecorded(result)
        } else if let Poll::Ready(resolution) = poll_some(&mut self.held, context) {
            Woken::Resolved(resolution)
        } else if let Poll::Ready(()) = poll_some(&mut self.interrupting, context) {
            Woken::Interrupted
        } else if let Poll::Ready(control) = self.controls.poll_next(context) {
            Woken::Control(control)
        } else if let Poll::Ready((stage, reached)) = self.stage.as_mut().poll(context) {
            self.stage = Box::pin(next_stage(stage));
            Woken::Stage(reached)
        } else {
            return Poll::Pending;
        };
        // There may be more.
        self.seldom.ask_again();
        Poll::Ready(woken)
    }

    fn wake(&mut self, woken: Woken) {
        match woken {
            Woken::Stage(stage) => self.enter_stage(stage),
            Woken::Connected(result) => {
                self.connecting = None;
                match result {
                    Ok((stream, tls)) => {
                        self.server = Some(stream);
                        self.session.handle_connected(tls);
                    }
                    Err(error) => self.session.handle_unreachable(error.reason()),
                }
            }
            Woken::Login(found) => {
                self.asking = None;
                log_in::found(&mut self.session, found);
            }
            Woken::Catalog(result) => {
                self.reading = None;
                match result {
                    Ok((catalog, generation)) => self.session.handle_catalog(catalog, generation),
                    Err(error) => {
                        tracing::error!(target = %self.session.target().name, %error, "the catalogue cannot be read");
                        self.session.handle_no_catalog(&error.to_string());
                    }
                }
            }
            Woken::HoldRecorded(result) => match (self.opening.take(), result) {
                (Some(opening), Ok(_)) => self.open(opening),
                (None, Ok(_)) => {}
                (_, Err(error)) => self.not_recorded(&error),
            },
            Woken::Resolved(answer) => {
                self.held = None;
                self.session.handle_resolution(&answer);
            }
            Woken::Interrupted => {
                self.interrupting = None;
                self.session.handle_interrupted();
            }
            Woken::Control(Control::Cancel) => holding::cancel(&mut self.session, &mut self.held),
            Woken::Control(Control::Kill(killing)) => {
                self.killed = true;
                self.connecting = None;
                // First, so that nothing that the target does from now on reaches anybody.
                if let Some(server) = self.server.take() {
                    server.reset();
                }
                self.session.kill(&killing.words());
            }
        }
    }

    fn enter_stage(&mut self, stage: Stage) {
        match stage {
            Stage::Serving | Stage::HandingOver | Stage::HandedOver => {}
            Stage::Draining => self.session.drain(),
            Stage::Ending => self
                .session
                .terminate("terminating connection because interceptor is shutting down"),
        }
    }

    /// Keeps the list of sessions up to date.
    fn show(&mut self) {
        let session = &self.session;
        self.membership.show(session.state(), session.commands());
        self.membership.name(session.subject());
    }

    /// The last words: to the client what is left for it, to the server its farewell.
    async fn finish(mut self) {
        self.act();
        self.held = None;
        if let Some(mut server) = self.server.take() {
            let farewell = self.session.to_server().to_vec();
            // Who does not take it at once learns from the closed connection.
            let _ = server.try_part(&farewell);
        }
        let last_words = self.session.to_client().to_vec();
        if self.killed {
            return last_words_of_killed(self.client, &last_words).await;
        }
        let (client, terminated) = (&mut self.client, self.session.is_terminated());
        let _ = timeout(LINGER_WAIT_MAX, async {
            client.write_all(&last_words).await?;
            // Who closes first keeps the connection in TIME_WAIT. A client that said goodbye closes
            // by itself, and spares the gateway that.
            if !terminated {
                client.shutdown().await?;
            }
            // Closing with unread bytes resets the connection, and the last words with it.
            client.read_to_end(LINGER_BYTES_MAX).await
        })
        .await;
    }
}

/// Offers the words and resets: nobody waits for a client that does not read.
async fn last_words_of_killed(mut client: Stream, words: &[u8]) {
    let _ = timeout(KILLED_WAIT_MAX, async {
        client.write_all(words).await?;
        client.shutdown().await?;
        client.read_to_end(LINGER_BYTES_MAX).await
    })
    .await;
    client.reset();
}

/// The next stage that the gateway reaches; without a sender the gateway is gone, and none comes.
async fn next_stage(mut stage: watch::Receiver<Stage>) -> (watch::Receiver<Stage>, Stage) {
    if stage.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
    let reached = *stage.borrow_and_update();
    (stage, reached)
}
