//! From the listening socket to a session: which target, and which process behind the client.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use interceptor_core::audit::event;
use interceptor_core::command::{Process, Subject};
use interceptor_core::policy::{Protocol, Target};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::Shared;
use super::drive::{self, Arrival, Stage};
use super::pass;
use crate::admin::SessionRow;
use crate::audit::json;
use crate::identify::KernelIdentity;
use crate::kernel::Plane;

/// Sessions at the same time; a client beyond it is refused at once.
pub(super) const SESSIONS_MAX: usize = 20_000;

/// Characters of a container's id in a list.
const CONTAINER_ID_SHOWN: usize = 12;

/// Waits this long after the system had no descriptor left.
const EXHAUSTED_WAIT: Duration = Duration::from_millis(100);

/// Takes connections until `stop` says otherwise; then waits until every session has ended.
pub(super) async fn accept(
    listener: Arc<TcpListener>,
    plane: Arc<RwLock<Plane>>,
    shared: Arc<Shared>,
    mut stage: watch::Receiver<Stage>,
) {
    let permits = Arc::new(Semaphore::new(SESSIONS_MAX));
    let mut sessions = JoinSet::new();
    loop {
        let reached = *stage.borrow_and_update();
        if reached > Stage::HandingOver {
            break;
        }
        // Cancel-safe, all: accept loses no connection, and the watch keeps its value.
        let accepted = tokio::select! {
            accepted = listener.accept(), if reached == Stage::Serving => accepted,
            Some(_) = sessions.join_next() => continue,
            changed = stage.changed() => match changed {
                Ok(()) => continue,
                Err(_) => break,
            },
        };
        let (client, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                if matches!(
                    error.raw_os_error(),
                    Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM)
                ) {
                    tokio::time::sleep(EXHAUSTED_WAIT).await;
                }
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else {
            tracing::warn!(%peer, limit = SESSIONS_MAX, "a connection was refused: too many sessions");
            continue;
        };
        let (plane, shared, stage) = (Arc::clone(&plane), Arc::clone(&shared), stage.clone());
        sessions.spawn(async move {
            if let Err(error) = begin(client, peer, &plane, shared, stage).await {
                tracing::debug!(%peer, %error, "a connection ended before its session began");
            }
            drop(permit);
        });
    }
    drop(listener);
    while sessions.join_next().await.is_some() {}
}

async fn begin(
    client: TcpStream,
    peer: SocketAddr,
    plane: &RwLock<Plane>,
    shared: Arc<Shared>,
    stage: watch::Receiver<Stage>,
) -> io::Result<()> {
    client.set_nodelay(true)?;
    let peer = canonical(peer);
    let destination = canonical(client.local_addr()?);
    let directories = shared.directories.borrow().clone();
    let Some(target) = directories.target(destination) else {
        // Somebody dialled the proxy's own port: nothing was intercepted, so nothing is carried.
        tracing::debug!(%peer, %destination, "a connection that was not intercepted is closed");
        return Ok(());
    };
    let target = Arc::clone(target);
    // As long as the session lives, its address is a target: without that its packets would go past.
    let hold = shared.in_use.hold(destination, &target.name);
    let identity = identify(plane, &client);
    if identity.as_ref().is_some_and(|it| is_own(plane, it)) {
        // Only while somebody has detached what makes the proxy's sockets known. Carried, it would
        // come back again and again.
        tracing::error!(%destination, "a connection of the proxy to a target was redirected to the proxy; it is closed");
        return Ok(());
    }
    let process = match identity {
        Some(identity) => Some(Box::pin(shared.identifier.process(identity)).await),
        None => None,
    };
    let as_client = target.preserve_client_address.then_some(peer);
    let id = Uuid::now_v7();
    let connection = connection(peer, destination, &target, process.as_ref());
    let row = SessionRow {
        id: id.to_string(),
        client: peer.to_string(),
        target: target.name.clone(),
        user: String::new(),
        database: String::new(),
        process: process.as_ref().map(shown).unwrap_or_default(),
        since_unix_ns: json::now_unix_ns(),
        state: "starting".to_owned(),
        commands: 0,
    };
    let (membership, controls) = shared.sessions.enter(id, row);
    let subject = Subject {
        client: peer,
        process,
        user: String::new(),
        database: String::new(),
    };
    let arrival = Arrival {
        client,
        connection,
        destination,
        as_client,
        target,
        subject,
        id,
    };
    // Each in an allocation of its own size: there may be many of the small ones.
    match arrival.target.protocol {
        Protocol::Postgres => {
            Box::pin(drive::carry(arrival, shared, membership, controls, stage)).await?;
        }
        Protocol::Tcp => {
            Box::pin(pass::carry(arrival, shared, membership, controls, stage)).await?;
        }
    }
    drop(hold);
    Ok(())
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// The local process behind a connection. Unknown is an answer too; policy may ask for more.
fn identify(plane: &RwLock<Plane>, client: &TcpStream) -> Option<KernelIdentity> {
    match plane.read().ok()?.identity(client.as_fd()) {
        Ok(identity) => identity,
        Err(error) => {
            tracing::warn!(%error, "the kernel's identities cannot be read");
            None
        }
    }
}

/// Whether the task that connected was in the proxy's own cgroup.
fn is_own(plane: &RwLock<Plane>, identity: &KernelIdentity) -> bool {
    plane
        .read()
        .is_ok_and(|plane| plane.is_own_cgroup(identity.cgroup_id()))
}

/// A process in a list of sessions.
fn shown(process: &Process) -> String {
    let program = process.executable.as_ref().unwrap_or(&process.comm);
    let program = program.rsplit('/').next().unwrap_or(program);
    let place = process.container.as_ref().or(process.unit.as_ref());
    let place = place.map(|place| format!(", {}", shortened(place)));
    let (pid, uid) = (process.pid, process.uid);
    format!(
        "{program} (pid {pid}, uid {uid}{})",
        place.unwrap_or_default()
    )
}

/// A container by as much of its id as its runtime's own lists show.
fn shortened(place: &str) -> &str {
    let end = place
        .find("://")
        .map_or(place.len(), |at| at + 3 + CONTAINER_ID_SHOWN);
    place.get(..end).unwrap_or(place)
}

/// What is recorded of a connection before its session begins.
fn connection(
    client: SocketAddr,
    destination: SocketAddr,
    target: &Target,
    process: Option<&Process>,
) -> event::Connection {
    event::Connection {
        client: client.to_string(),
        target_address: destination.to_string(),
        target: target.name.clone(),
        protocol: target.protocol.name().to_owned(),
        process: process.map(event::Process::from),
    }
}
