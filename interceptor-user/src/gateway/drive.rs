//! The one loop that moves a session: bytes, timers and answers between the sockets and the core's
//! machine.
//!
//! It owns waiting. It must not know how a protocol's bytes look. Each side is read and written
//! on its own: a peer that does not take its bytes stops what flows to it, and nothing else.

use std::collections::VecDeque;
use std::future::Future;
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
use super::sessions::{Control, Controls, Membership};
use super::stream::Stream;
use super::wait::{readable, some, until, writable};
use super::{Shared, event, holding, log_in, upstream};
use crate::approval::{Held, Request};
use crate::audit::{AuditError, Pending, json};

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
type Connecting = Pin<Box<dyn Future<Output = io::Result<(Stream, Option<Tls>)>> + Send>>;

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
    server: Option<Stream>,
    connecting: Option<Connecting>,
    asking: Option<log_in::Asking>,
    recording: VecDeque<(Ticket, Pending)>,
    catalog: Option<Arc<Entry>>,
    reading: Option<Reading>,
    opening: Option<Opening>,
    held: Option<Held>,
    interrupting: Option<Interrupting>,
    shown: (&'static str, u64),
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
    Ready,
    Connected(io::Result<(Stream, Option<Tls>)>),
    Recorded(Ticket, Result<u64, AuditError>),
    Login(log_in::Found),
    Catalog(Result<(Arc<Catalog>, u64), CatalogError>),
    HoldRecorded(Result<u64, AuditError>),
    Resolved(Resolution),
    Interrupted,
    Control(Control),
    Stage,
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

/// Carries one session from its first byte to its end.
pub(super) async fn drive(
    arrival: Arrival,
    shared: Arc<Shared>,
    membership: Membership,
    mut controls: Controls,
    mut stage: watch::Receiver<Stage>,
) {
    // Not marked as seen: if there was a reload since the gateway started, the first turn takes
    // policy and target from it, together.
    let policy = shared.policy.clone();
    let current = Arc::clone(&policy.borrow());
    let rates = Arc::clone(&shared.rates);
    let session = Session::new(
        arrival.subject,
        current,
        arrival.target,
        rates,
        shared.now(),
    );
    let mut driver = Driver {
        session,
        policy,
        shared,
        destination: arrival.destination,
        as_client: arrival.as_client,
        id: arrival.id,
        membership,
        client: Stream::plain(arrival.client),
        server: None,
        connecting: None,
        asking: None,
        recording: VecDeque::new(),
        catalog: None,
        reading: None,
        opening: None,
        held: None,
        interrupting: None,
        shown: ("starting", 0),
        killed: false,
    };
    let mut turns = 0;
    driver.record(Kind::Connection(arrival.connection), None);
    driver.enter_stage(*stage.borrow_and_update());
    while !driver.session.is_closed() {
        if driver.turn() {
            turns += 1;
            if turns % TURNS_MAX == 0 {
                tokio::task::yield_now().await;
            }
            continue;
        }
        if driver.session.is_closed() {
            break;
        }
        let woken = driver.wait(&mut controls, &mut stage).await;
        if let Woken::Stage = woken {
            let reached = *stage.borrow_and_update();
            driver.enter_stage(reached);
        }
        driver.wake(woken);
    }
    driver.finish().await;
}

impl Driver {
    /// Reads, works and writes whatever can be without waiting. True if anything moved.
    fn turn(&mut self) -> bool {
        let mut moved = self.read_client() | self.read_server();
        if let Some(catalog) = &self.catalog {
            self.session.set_catalog_generation(catalog.generation());
        }
        if self.policy.has_changed().unwrap_or(false) {
            let policy = Arc::clone(&self.policy.borrow_and_update());
            self.session.set_policy(policy);
        }
        holding::advance(&mut self.session, &mut self.held, self.shared.now());
        self.act();
        moved |= self.write_server() | self.write_client();
        self.show();
        moved
    }

    fn read_client(&mut self) -> bool {
        if !self.session.wants_client() {
            return false;
        }
        match self.client.try_read(self.session.client_in()) {
            Ok(None) => false,
            Ok(Some(0)) => {
                self.session.handle_client_closed();
                true
            }
            Ok(Some(_)) => true,
            Err(error) => {
                self.session
                    .handle_broken(&format!("the client's connection broke: {}", error.kind()));
                true
            }
        }
    }

    fn read_server(&mut self) -> bool {
        let Some(server) = self.server.as_mut().filter(|_| self.session.wants_server()) else {
            return false;
        };
        match server.try_read(self.session.server_in()) {
            Ok(None) => false,
            Ok(Some(0)) => {
                // What came before the end is for the client.
                holding::advance(&mut self.session, &mut self.held, self.shared.now());
                self.session.handle_server_closed();
                true
            }
            Ok(Some(_)) => true,
            Err(error) => {
                self.session
                    .handle_broken(&format!("the target's connection broke: {}", error.kind()));
                true
            }
        }
    }

    fn write_client(&mut self) -> bool {
        match self.client.try_write(self.session.to_client()) {
            Ok(0) => false,
            Ok(count) => {
                self.session.sent_to_client(count);
                true
            }
            Err(error) => {
                self.session
                    .handle_broken(&format!("the client's connection broke: {}", error.kind()));
                true
            }
        }
    }

    fn write_server(&mut self) -> bool {
        let Some(server) = &mut self.server else {
            return false;
        };
        match server.try_write(self.session.to_server()) {
            Ok(0) => false,
            Ok(count) => {
                self.session.sent_to_server(count);
                true
            }
            // The reason may still be in what it sent before: reading finds the end.
            Err(_) => false,
        }
    }

    /// Does what the machine asks.
    fn act(&mut self) {
        while let Some(action) = self.session.poll_action() {
            match action {
                Action::Connect => {
                    self.connecting =
                        Some(Box::pin(upstream::open(self.destination, self.as_client)))
                }
                // The machine asks for it only if it was told that the gateway can.
                Action::EncryptClient => self.session.handle_broken("no TLS"),
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
                    self.interrupting = Some(Box::pin(upstream::interrupt(self.destination, key)));
                }
                Action::ForwardCancel(key) => {
                    upstream::forward_cancel(self.destination, key, self.killed)
                }
            }
        }
    }

    fn record(&mut self, kind: Kind, ticket: Option<Ticket>) {
        super::announce(self.id, &kind);
        if let Kind::Command(command) = &kind {
            let target = &self.session.target().name;
            self.shared.metrics.decided(command, target);
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
        let (entry, destination) = (self.catalog_entry(), self.destination);
        let database = self.session.subject().database.clone();
        let target = Arc::clone(self.session.target());
        let asked = anew.then(Instant::now);
        self.reading = Some(Box::pin(async move {
            entry
                .read(target.catalog.as_ref(), destination, &database, asked)
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

    /// Waits until something can move. Cancel-safe throughout: what is lost with the wait is only
    /// the wait; every future that holds a result is kept in the driver.
    async fn wait(&mut self, controls: &mut Controls, stage: &mut watch::Receiver<Stage>) -> Woken {
        let Self {
            session,
            client,
            server,
            connecting,
            asking,
            recording,
            reading,
            opening,
            held,
            interrupting,
            shared,
            ..
        } = self;
        let deadline = session
            .deadline_ns()
            .map(|deadline| shared.epoch + Duration::from_nanos(deadline));
        let server = server.as_ref();
        let (reads_client, reads_server) = (session.wants_client(), session.wants_server());
        let writes_client = client.wants_write() || !session.to_client().is_empty();
        let writes_server =
            server.is_some_and(Stream::wants_write) || !session.to_server().is_empty();
        tokio::select! {
            () = client.readable(), if reads_client => Woken::Ready,
            () = client.writable(), if writes_client => Woken::Ready,
            () = readable(server), if reads_server => Woken::Ready,
            () = writable(server), if writes_server => Woken::Ready,
            (ticket, result) = recorded(recording) => Woken::Recorded(ticket, result),
            result = some(connecting) => Woken::Connected(result),
            found = some(asking) => Woken::Login(found),
            result = some(reading) => Woken::Catalog(result),
            result = some(opening) => Woken::HoldRecorded(result),
            resolution = some(held) => Woken::Resolved(resolution),
            () = some(interrupting) => Woken::Interrupted,
            control = controls.next() => Woken::Control(control),
            changed = stage.changed() => {
                // Without a sender the gateway is gone; the stage keeps its last value.
                if changed.is_err() { std::future::pending::<()>().await; }
                Woken::Stage
            }
            () = until(deadline) => Woken::Ready,
        }
    }

    fn wake(&mut self, woken: Woken) {
        match woken {
            Woken::Ready | Woken::Stage => {}
            Woken::Connected(result) => {
                self.connecting = None;
                match result {
                    Ok((stream, tls)) => {
                        self.server = Some(stream);
                        self.session.handle_connected(tls);
                    }
                    Err(error) => self.session.handle_unreachable(upstream::reason(&error)),
                }
            }
            Woken::Recorded(ticket, result) => {
                self.recording.pop_front();
                match result {
                    Ok(_) => self.session.handle_recorded(ticket),
                    Err(error) => self.not_recorded(&error),
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

    /// Keeps the list of sessions up to date, where something changed.
    fn show(&mut self) {
        let shown = (self.session.state(), self.session.commands());
        if shown == self.shown {
            return;
        }
        self.shown = shown;
        let subject = self.session.subject();
        self.membership.update(|row| {
            row.state = shown.0.to_owned();
            row.commands = shown.1;
            if row.user.is_empty() {
                row.user.clone_from(&subject.user);
                row.database.clone_from(&subject.database);
            }
        });
    }

    /// The last words: to the client what is left for it, to the server its farewell.
    async fn finish(mut self) {
        self.act();
        self.held = None;
        if let Some(mut server) = self.server.take() {
            let farewell = self.session.to_server().to_vec();
            // Who does not take it at once learns from the closed connection.
            let _ = server.try_write(&farewell);
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

/// The oldest event on its way to the disk. It stays in the queue.
async fn recorded(
    recording: &mut VecDeque<(Ticket, Pending)>,
) -> (Ticket, Result<u64, AuditError>) {
    match recording.front_mut() {
        Some((ticket, pending)) => {
            let ticket = *ticket;
            (ticket, pending.await)
        }
        None => std::future::pending().await,
    }
}
