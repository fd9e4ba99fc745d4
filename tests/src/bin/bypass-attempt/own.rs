//! Attempts on the proxy itself: its cgroup, its descriptors, its memory, its port.

use std::fs::{self, File};
use std::io::{self, IoSlice, IoSliceMut, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, UnixAddr, recvmsg, sendmsg};
use socket2::{Domain, Socket, Type};

use crate::report::{Parameters, Report, name_of};
use crate::stream::{self, PATIENCE, talk};
use crate::sys;

fn enter_cgroup(cgroup: &str) -> io::Result<()> {
    fs::write(Path::new(cgroup).join("cgroup.procs"), "0")
}

fn dial(socket: &Socket, parameters: &Parameters) -> Result<Report> {
    socket.connect(&parameters.target()?.into())?;
    talk(socket, &parameters.token()?)
}

/// A socket that was made in one cgroup, by a task that then moved to another. Without a cgroup to
/// move to, the task stays.
pub(crate) fn moved(parameters: &Parameters) -> Result<Report> {
    let socket = stream::open(parameters.target()?)?;
    if let Ok(cgroup) = parameters.text("cgroup") {
        enter_cgroup(cgroup)?;
    }
    dial(&socket, parameters)
}

/// Tries to become the proxy, and dials whether it could or not.
pub(crate) fn self_moved(parameters: &Parameters) -> Result<Report> {
    let said = match parameters.text("cgroup").map(enter_cgroup) {
        Ok(Ok(())) => "moved; ".to_owned(),
        Ok(Err(error)) => format!("cgroup {}; ", name_of(&error)),
        Err(_) => String::new(),
    };
    let mut report = dial(&stream::open(parameters.target()?)?, parameters)?;
    report.said.insert_str(0, &said);
    Ok(report)
}

/// From a cgroup that the gateway does not watch.
pub(crate) fn outside(parameters: &Parameters) -> Result<Report> {
    enter_cgroup(parameters.text("outside")?)?;
    stream::plain(parameters)
}

/// A socket that another process made and passed on; with `outside`, one of a cgroup that the gateway
/// does not watch.
pub(crate) fn passed(parameters: &Parameters) -> Result<Report> {
    let (here, there) = Socket::pair(Domain::UNIX, Type::STREAM, None)?;
    let target = parameters.target()?;
    let outside = parameters
        .is("outside-cgroup")
        .then(|| parameters.text("outside"))
        .transpose()?;
    let maker = sys::fork_child(|| {
        let make = || -> Result<()> {
            if let Some(cgroup) = outside {
                enter_cgroup(cgroup)?;
            }
            let socket = stream::open(target)?;
            let fds = [socket.as_raw_fd()];
            sendmsg::<UnixAddr>(
                there.as_raw_fd(),
                &[IoSlice::new(b"x")],
                &[ControlMessage::ScmRights(&fds)],
                MsgFlags::empty(),
                None,
            )?;
            Ok(())
        };
        if let Err(error) = make() {
            eprintln!("the maker: {error:#}");
        }
    })?;
    here.set_read_timeout(Some(PATIENCE))?;
    let socket = receive(&here).context("no descriptor was passed")?;
    maker.wait();
    dial(&socket, parameters)
}

fn receive(from: &Socket) -> Result<Socket> {
    let mut byte = [0];
    let mut vector = [IoSliceMut::new(&mut byte)];
    let mut space = nix::cmsg_space!([i32; 1]);
    let message = recvmsg::<UnixAddr>(
        from.as_raw_fd(),
        &mut vector,
        Some(&mut space),
        MsgFlags::empty(),
    )?;
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(fds) = control
            && let Some(fd) = fds.first()
        {
            // SAFETY: the kernel has just made it for this process.
            return Ok(sys::adopt(unsafe { OwnedFd::from_raw_fd(*fd) }));
        }
    }
    Err(anyhow!("no descriptor in the message"))
}

/// A user namespace with a network namespace of its own, in which the user is root.
pub(crate) fn unshared(parameters: &Parameters) -> Result<Report> {
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET).map_err(io::Error::from)?;
    dial(&stream::open(parameters.target()?)?, parameters)
}

/// Starts a process that has a connection to the target, where the row names no process.
fn victim(parameters: &Parameters) -> Result<(u32, Option<sys::Child>)> {
    if let Ok(pid) = parameters.number("pid") {
        return Ok((u32::try_from(pid)?, None));
    }
    let target = parameters.target()?;
    let child = sys::fork_child(|| {
        let connection = TcpStream::connect_timeout(&target, PATIENCE);
        for _ in 0..100 {
            std::thread::sleep(Duration::from_millis(50));
            if TOUCHED.load(Ordering::Relaxed) == TOUCH {
                let token = parameters.token().unwrap_or_default();
                let mut stream = connection.as_ref();
                let _ = stream.as_mut().map(|stream| stream.write_all(&token));
                std::thread::sleep(Duration::from_millis(300));
            }
        }
    })?;
    std::thread::sleep(Duration::from_millis(200));
    Ok((child.0, Some(child)))
}

/// Says the token on every descriptor of the proxy that it can get.
pub(crate) fn steal_descriptor(parameters: &Parameters) -> Result<Report> {
    let (pid, _victim) = victim(parameters)?;
    let mut last = None;
    let mut taken = 0;
    for number in 0..64 {
        match sys::take_descriptor(pid, number) {
            Ok(fd) => {
                taken += 1;
                let mut socket = &sys::adopt(fd);
                let _ = socket.write_all(&parameters.token()?);
            }
            Err(error) if error.raw_os_error() == Some(libc::EBADF) => {}
            Err(error) => last = Some(error),
        }
    }
    match last {
        Some(error) if taken == 0 => Ok(Report::refused(&error)),
        _ if taken > 0 => Ok(Report::effect(format!("took {taken} descriptors"))),
        _ => Ok(Report::said("no descriptors")),
    }
}

/// In the memory of the victim, which is a fork of this program and has it at the same address.
static TOUCHED: AtomicU32 = AtomicU32::new(0);
const TOUCH: u32 = 0x6963_7074;

pub(crate) fn write_memory(parameters: &Parameters) -> Result<Report> {
    let (pid, victim) = victim(parameters)?;
    let memory = File::options()
        .read(true)
        .write(true)
        .open(format!("/proc/{pid}/mem"))?;
    if victim.is_some() {
        memory.write_all_at(&TOUCH.to_ne_bytes(), TOUCHED.as_ptr() as u64)?;
        std::thread::sleep(Duration::from_millis(400));
    }
    // Not written to: it is enough that it could be.
    Ok(Report::effect("opened the memory"))
}

pub(crate) fn trace(parameters: &Parameters) -> Result<Report> {
    let (pid, _victim) = victim(parameters)?;
    sys::attach(pid)?;
    Ok(Report::effect("attached"))
}

/// Takes the proxy's port and waits for clients of the target.
pub(crate) fn bind_port(parameters: &Parameters) -> Result<Report> {
    let port = u16::try_from(parameters.number("bind")?)?;
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.bind(&SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port).into())?;
    socket.listen(16)?;
    let _listener: TcpListener = socket.into();
    Ok(Report::effect(format!("listens on {port}")))
}

/// Speaks to the proxy's port without having dialled a target.
pub(crate) fn dial_port(parameters: &Parameters) -> Result<Report> {
    let to = SocketAddr::new(
        parameters.address("proxy")?,
        u16::try_from(parameters.number("bind")?)?,
    );
    let socket = stream::open(to)?;
    socket.connect(&to.into())?;
    Ok(Report::effect("connected"))
}
