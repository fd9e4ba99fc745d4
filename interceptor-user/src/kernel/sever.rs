//! Ends the connections to targets that are older than the gateway.
//!
//! The guard stops their packets in any case; severing tells both ends at once. It is done with
//! enforcement in place and before the listener takes anything, so nothing slips in between. Kernels
//! before 6.5 have no call for it: there `ss` asks the kernel to, by netlink.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use std::path::Path;

use aya::include_bytes_aligned;
use interceptor_common::{
    Config, FLOW_SEVERED, FlowKey, OldSocket, PROTOCOL_TCP, SEVERED_MAX, address_from_bytes,
};
use libbpf_rs::libbpf_sys::{BPF_TRACE_ITER, bpf_iter_create, bpf_link_create};
use libbpf_rs::{MapCore, MapFlags, Object};
use nix::sched::{CloneFlags, setns};

use super::cgroup::Cgroup;
use super::maps::{self, Maps};
use super::target::Targets;
use super::{KernelError, netns, object, socket_tool, task};

static SEVER_OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/sever.bpf.o"));

/// Connections that a note names; the others are counted.
const NAMED_MAX: usize = 20;

/// Iterators are read in pieces of this size.
const CHUNK_BYTES: usize = 64 * 1024;

/// The connections that were older than the gateway.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Severed {
    /// The client's own address and the target's.
    pub connections: Vec<(SocketAddr, SocketAddr)>,
}

impl fmt::Display for Severed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.connections.len() {
            1 => f.write_str("1 connection that was older than the gateway was severed: ")?,
            count => write!(
                f,
                "{count} connections that were older than the gateway were severed: "
            )?,
        }
        for (index, (client, target)) in self.connections.iter().take(NAMED_MAX).enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{client} → {target}")?;
        }
        match self.connections.len().checked_sub(NAMED_MAX) {
            None | Some(0) => Ok(()),
            Some(more) => write!(f, " and {more} more"),
        }
    }
}

/// What every way of severing needs.
pub(super) struct Plan<'a> {
    pub(super) config: &'a Config,
    pub(super) targets: &'a Targets,
    pub(super) maps: &'a Maps,
}

impl Plan<'_> {
    pub(super) fn is_target(&self, address: SocketAddr) -> bool {
        self.targets.lookup(address).is_some()
    }

    /// Lets the reset of a connection past the guard.
    pub(super) fn let_reset_pass(&self, flow: &FlowKey) -> Result<(), KernelError> {
        self.maps.flows.insert(flow, &FLOW_SEVERED)
    }
}

/// Severs in every network namespace that the gateway guards. What cannot be severed is told in the
/// log: the guard stops it.
pub(super) fn sever(bpffs: &Path, cgroup: &Cgroup, plan: &Plan<'_>) -> Severed {
    let namespaces = match netns::guarded(&cgroup.attach) {
        Ok(namespaces) => namespaces,
        Err(error) => {
            warn(&error);
            return Severed::default();
        }
    };
    let program = object::optional(|| Program::load(bpffs, plan.config));
    if let Err(error) = &program {
        tracing::info!(target: "interceptor::kernel", %error, "this kernel cannot sever by itself: `ss` does it");
    }
    let mut severed = Severed::default();
    for namespace in namespaces {
        let room = (SEVERED_MAX as usize).saturating_sub(severed.connections.len());
        let ended = within(&namespace, || match &program {
            Ok(program) => program.sever(plan, room),
            Err(_) => socket_tool::sever(plan, room),
        });
        match ended {
            Ok(ended) => severed.connections.extend(ended),
            Err(error) => warn(&error),
        }
    }
    if severed.connections.len() >= SEVERED_MAX as usize {
        warn(&"there are more than can be severed at once");
    }
    severed
}

fn warn(error: &dyn fmt::Display) {
    tracing::warn!(
        target: "interceptor::kernel",
        %error,
        "connections that are older than the gateway are left to end at their next packet"
    );
}

/// Runs something in a network namespace, on a thread of its own that ends with it.
fn within<T: Send>(
    namespace: &File,
    work: impl FnOnce() -> Result<T, KernelError> + Send,
) -> Result<T, KernelError> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            setns(namespace, CloneFlags::CLONE_NEWNET)
                .map_err(|error| failed("enter a network namespace", error.into()))?;
            work()
        });
        thread.join().unwrap_or_else(|_| {
            Err(failed(
                "enter a network namespace",
                io::ErrorKind::Other.into(),
            ))
        })
    })
}

fn failed(action: &'static str, source: io::Error) -> KernelError {
    KernelError::Sever { action, source }
}

/// The iterators over sockets.
struct Program {
    object: Object,
}

impl Program {
    fn load(bpffs: &Path, config: &Config) -> Result<Self, libbpf_rs::Error> {
        let mut open = object::open_c(SEVER_OBJECT, &maps::directory(bpffs))?;
        let mark = [config.mark_mask, config.mark_local];
        for mut map in open.maps_mut() {
            if map.name().to_string_lossy().ends_with(".rodata") {
                map.set_initial_value(bytemuck::bytes_of(&mark))?;
            }
        }
        open.load().map(|object| Self { object })
    }

    /// Severs in the network namespace of this thread.
    fn sever(
        &self,
        plan: &Plan<'_>,
        room: usize,
    ) -> Result<Vec<(SocketAddr, SocketAddr)>, KernelError> {
        let mut ended = Vec::new();
        for name in ["old_tcp", "old_udp"] {
            let read = || {
                self.read(name)
                    .map_err(|error| failed("list the sockets", error))
            };
            let doomed: Vec<OldSocket> = read()?
                .into_iter()
                .filter(|socket| plan.is_target(remote(socket)))
                .take(room.saturating_sub(ended.len()))
                .collect();
            for socket in &doomed {
                self.doom(plan, socket)?;
            }
            if !doomed.is_empty() {
                read()?;
            }
            ended.extend(doomed.iter().map(|socket| (local(socket), remote(socket))));
        }
        Ok(ended)
    }

    fn doom(&self, plan: &Plan<'_>, socket: &OldSocket) -> Result<(), KernelError> {
        if socket.protocol == u32::from(PROTOCOL_TCP) {
            plan.let_reset_pass(&FlowKey {
                source: socket.local,
                destination: socket.remote,
                source_port: socket.local_port,
                destination_port: socket.remote_port,
            })?;
        }
        let map = self.object.maps().find(|map| map.name() == "doomed");
        map.ok_or_else(|| failed("find the map `doomed`", io::ErrorKind::NotFound.into()))?
            .update(&socket.cookie.to_ne_bytes(), &[1], MapFlags::ANY)
            .map_err(|error| failed("mark a socket", io::Error::other(error)))
    }

    /// One reading: ends the doomed, and lists the others.
    fn read(&self, name: &str) -> io::Result<Vec<OldSocket>> {
        let program = self
            .object
            .progs()
            .find(|program| program.name() == name)
            .ok_or(io::ErrorKind::NotFound)?;
        let bytes = read_iterator(program.as_fd())?;
        let (sockets, _) = bytes.as_chunks::<{ size_of::<OldSocket>() }>();
        Ok(sockets
            .iter()
            .filter_map(|bytes| bytemuck::try_pod_read_unaligned(bytes).ok())
            .collect())
    }
}

/// All that an iterator writes in the network namespace of this thread.
fn read_iterator(program: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
    // SAFETY: the descriptor is open, and no options are given.
    let link = task::owned(unsafe {
        bpf_link_create(program.as_raw_fd(), 0, BPF_TRACE_ITER, std::ptr::null())
    })?;
    // SAFETY: the descriptor is open.
    let mut iterator = File::from(task::owned(unsafe { bpf_iter_create(link.as_raw_fd()) })?);
    let (mut bytes, mut chunk) = (Vec::new(), vec![0; CHUNK_BYTES]);
    loop {
        match iterator.read(&mut chunk) {
            Ok(0) => return Ok(bytes),
            Ok(count) => bytes.extend_from_slice(chunk.get(..count).unwrap_or_default()),
            // The kernel asks for another try when it could not keep hold of its place.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EINTR)) => {}
            Err(error) => return Err(error),
        }
    }
}

fn local(socket: &OldSocket) -> SocketAddr {
    SocketAddr::new(address_from_bytes(socket.local), socket.local_port)
}

fn remote(socket: &OldSocket) -> SocketAddr {
    SocketAddr::new(address_from_bytes(socket.remote), socket.remote_port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_names_some_and_counts_all() {
        let connection = |port: u16| {
            let client = SocketAddr::from(([10, 0, 0, 1], port));
            (client, SocketAddr::from(([10, 0, 0, 2], 5432)))
        };
        let severed = |count| Severed {
            connections: (1..=count).map(connection).collect(),
        };
        assert_eq!(
            severed(1).to_string(),
            "1 connection that was older than the gateway was severed: 10.0.0.1:1 → 10.0.0.2:5432"
        );
        let many = severed(1000).to_string();
        assert!(
            many.starts_with("1000 connections that were older"),
            "{many}"
        );
        assert!(
            many.ends_with("10.0.0.1:20 → 10.0.0.2:5432 and 980 more"),
            "{many}"
        );
    }
}
