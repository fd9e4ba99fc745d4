//! Waits for the kernel to say that devices, addresses or routes changed, and has the plane follow.
//!
//! What a message says is not read but for its kind: the state is looked at as a whole, so that a
//! message that is lost, or one that is late, does no harm.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{sleep, timeout};

use super::{KernelError, Plane};

/// How long to wait for more of the same: one change of a device is several messages.
const DEVICE_PAUSE: Duration = Duration::from_millis(20);
/// Routes can change many times a second, on a router all day long.
const ROUTE_PAUSE: Duration = Duration::from_millis(300);
/// For routes, looking may take one part in so many of the time. A device does not wait.
const IDLE_FACTOR: u32 = 5;
/// After a failure, what is there is tried again.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// Each message is a netlink header and more; a datagram has many.
const BUFFER_BYTES: usize = 32 * 1024;

/// Of each message.
const HEADER_BYTES: usize = 16;

/// What the kernel says that changed, the more urgent later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Change {
    Nothing,
    Routes,
    Devices,
}

/// Covers each device as soon as it appears, until the task is dropped. `report` gets a line for
/// each change. Cancel-safe: covering goes on to its end by itself.
///
/// # Errors
/// If there is no netlink socket to listen on.
pub async fn watch(
    plane: Arc<RwLock<Plane>>,
    report: impl Fn(String) + Send + 'static,
) -> Result<(), KernelError> {
    let failed = |source| KernelError::Notices { source };
    let notices = open().map_err(failed)?;
    // SAFETY: the socket is open, and stays so and the same for as long as it is registered.
    let notices = unsafe { AsyncFd::register_with_interest(notices, Interest::READABLE) };
    let notices = notices.map_err(|error| failed(error.into()))?;
    let mut told = None;
    loop {
        // First without a message: something may have changed before the socket was there.
        let start = Instant::now();
        let refreshed = refresh(&plane).await;
        let took = start.elapsed();
        tracing::debug!(target: "interceptor::kernel", ?took, "looked at devices, addresses and routes");
        let retry = refreshed.is_err().then_some(RETRY_PAUSE);
        match refreshed {
            Ok(changes) => {
                told = None;
                changes.into_iter().for_each(&report);
            }
            Err(error) => {
                let line = format!("the devices could not be covered: {error}");
                // Once, while it stays the same.
                if told.as_ref() != Some(&line) {
                    tracing::error!(target: "interceptor::kernel", "{line}");
                    report(line.clone());
                }
                told = Some(line);
            }
        }
        let change = match timeout(retry.unwrap_or(Duration::MAX), next(&notices)).await {
            Ok(change) => change.map_err(failed)?,
            Err(_) => Change::Nothing,
        };
        if change == Change::Routes {
            sleep(took.saturating_mul(IDLE_FACTOR).min(RETRY_PAUSE)).await;
        }
        drain(&notices).map_err(failed)?;
    }
}

async fn refresh(plane: &Arc<RwLock<Plane>>) -> Result<Vec<String>, KernelError> {
    let plane = Arc::clone(plane);
    let look = move || {
        let plane = plane.read().unwrap_or_else(PoisonError::into_inner);
        plane.refresh()
    };
    match tokio::task::spawn_blocking(look).await {
        Ok(result) => result,
        // The runtime ends, or a bug: neither may end the watch before the process ends.
        Err(_) => Ok(Vec::new()),
    }
}

/// Waits until something changed and no more of it comes. Cancel-safe: a message that was read is not
/// needed, for what it speaks of is looked at anyway.
async fn next(notices: &AsyncFd<OwnedFd>) -> io::Result<Change> {
    let mut change = Change::Nothing;
    while change == Change::Nothing {
        change = read_when_ready(notices).await?;
    }
    let end = Instant::now() + ROUTE_PAUSE;
    while change == Change::Routes {
        match timeout(
            end.saturating_duration_since(Instant::now()),
            read_when_ready(notices),
        )
        .await
        {
            Ok(more) => change = change.max(more?),
            Err(_) => return Ok(change),
        }
    }
    sleep(DEVICE_PAUSE).await;
    Ok(change)
}

async fn read_when_ready(notices: &AsyncFd<OwnedFd>) -> io::Result<Change> {
    loop {
        let mut ready = notices.readable().await?;
        match ready.try_io(read) {
            Ok(change) => return change,
            Err(_) => continue, // Nothing there, after all.
        }
    }
}

/// What is there already needs no second look.
fn drain(notices: &AsyncFd<OwnedFd>) -> io::Result<()> {
    loop {
        match read(notices) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

fn read(notices: &AsyncFd<OwnedFd>) -> io::Result<Change> {
    let mut buffer = [0; BUFFER_BYTES];
    let flags = MsgFlags::MSG_DONTWAIT;
    match recv(notices.get_ref().as_raw_fd(), &mut buffer, flags) {
        Ok(length) => Ok(most_urgent(buffer.get(..length).unwrap_or_default())),
        // Messages were lost: any of them.
        Err(Errno::ENOBUFS) => Ok(Change::Devices),
        Err(Errno::EINTR) => Ok(Change::Nothing),
        Err(error) => Err(error.into()),
    }
}

/// Of all messages of a datagram (RFC 3549, section 2.3.2: length, type, flags, sequence, port).
fn most_urgent(mut datagram: &[u8]) -> Change {
    let mut change = Change::Nothing;
    while let [l0, l1, l2, l3, t0, t1, ..] = *datagram {
        let kind = match u16::from_ne_bytes([t0, t1]) {
            libc::RTM_NEWLINK | libc::RTM_DELLINK => Change::Devices,
            _ => Change::Routes,
        };
        change = change.max(kind);
        // Messages begin at multiples of four, and none is shorter than its header.
        let length = u32::from_ne_bytes([l0, l1, l2, l3]) as usize;
        let length = length.max(HEADER_BYTES).next_multiple_of(4);
        datagram = datagram.get(length..).unwrap_or_default();
    }
    change
}

fn open() -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let notices = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        flags,
        SockProtocol::NetlinkRoute,
    )?;
    let groups = libc::RTMGRP_LINK
        | libc::RTMGRP_IPV4_IFADDR
        | libc::RTMGRP_IPV6_IFADDR
        | libc::RTMGRP_IPV4_ROUTE
        | libc::RTMGRP_IPV6_ROUTE;
    bind(
        notices.as_raw_fd(),
        &NetlinkAddr::new(0, groups.unsigned_abs()),
    )?;
    Ok(notices)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, length: u32) -> Vec<u8> {
        let mut bytes = vec![0; length.next_multiple_of(4) as usize];
        bytes[..4].copy_from_slice(&length.to_ne_bytes());
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes
    }

    #[test]
    fn a_device_among_routes_is_urgent() {
        let route = message(libc::RTM_NEWROUTE, 29);
        let link = message(libc::RTM_DELLINK, 32);
        assert_eq!(most_urgent(&route), Change::Routes);
        assert_eq!(most_urgent(&[&route[..], &link].concat()), Change::Devices);
        assert_eq!(most_urgent(&[]), Change::Nothing);
    }

    #[test]
    fn a_message_of_no_length_ends() {
        assert_eq!(most_urgent(&[0; 5]), Change::Nothing);
        assert_eq!(most_urgent(&[0; 64]), Change::Routes);
        assert_eq!(most_urgent(&[0xff; 20]), Change::Routes);
    }
}
