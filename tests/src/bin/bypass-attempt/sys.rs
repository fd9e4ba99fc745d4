//! System calls that socket2 has no form for. All unsafe code of sockets is here.

use std::io;
use std::mem::ManuallyDrop;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::ptr::null_mut;

use anyhow::Result;
use socket2::SockAddr;

/// From linux/socket.h; an IPv4 or IPv6 address with a port, or of another family.
pub(crate) type Address = Vec<u8>;

/// An address as the kernel has it.
pub(crate) fn address(address: SocketAddr) -> Address {
    let storage = SockAddr::from(address);
    // SAFETY: socket2 gives a pointer to that many initialised bytes.
    unsafe { std::slice::from_raw_parts(storage.as_ptr().cast::<u8>(), storage.len() as usize) }
        .to_vec()
}

/// The plain bytes of a structure of the kernel's.
pub(crate) fn bytes_of<T: Copy>(value: &T) -> Vec<u8> {
    // SAFETY: callers pass kernel structures without padding, of integers alone.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(value).cast::<u8>(), size_of::<T>()) }
        .to_vec()
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

fn check_size(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// A socket of any family.
pub(crate) fn socket(family: i32, kind: i32, protocol: i32) -> io::Result<OwnedFd> {
    // SAFETY: the call takes plain numbers.
    let fd = check(unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, protocol) })?;
    // SAFETY: the descriptor is new and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sets an option of any form.
pub(crate) fn set(fd: impl AsFd, level: i32, option: i32, value: &[u8]) -> io::Result<()> {
    // SAFETY: the pointer and the length are the slice's.
    check(unsafe {
        libc::setsockopt(
            fd.as_fd().as_raw_fd(),
            level,
            option,
            value.as_ptr().cast(),
            value.len() as libc::socklen_t,
        )
    })
    .map(drop)
}

/// Sets an option that is an `int`.
pub(crate) fn set_int(fd: impl AsFd, level: i32, option: i32, value: i32) -> io::Result<()> {
    set(fd, level, option, &value.to_ne_bytes())
}

/// Reads an option into `value`.
pub(crate) fn get(fd: impl AsFd, level: i32, option: i32, value: &mut [u8]) -> io::Result<()> {
    let mut length = value.len() as libc::socklen_t;
    // SAFETY: the pointer and the length are the slice's.
    check(unsafe {
        libc::getsockopt(
            fd.as_fd().as_raw_fd(),
            level,
            option,
            value.as_mut_ptr().cast(),
            &raw mut length,
        )
    })
    .map(drop)
}

pub(crate) fn connect(fd: impl AsFd, to: &[u8]) -> io::Result<()> {
    // SAFETY: the pointer and the length are the slice's.
    check(unsafe {
        libc::connect(
            fd.as_fd().as_raw_fd(),
            to.as_ptr().cast(),
            to.len() as libc::socklen_t,
        )
    })
    .map(drop)
}

pub(crate) fn bind(fd: impl AsFd, to: &[u8]) -> io::Result<()> {
    // SAFETY: the pointer and the length are the slice's.
    check(unsafe {
        libc::bind(
            fd.as_fd().as_raw_fd(),
            to.as_ptr().cast(),
            to.len() as libc::socklen_t,
        )
    })
    .map(drop)
}

/// `sendto`.
pub(crate) fn send_to(fd: impl AsFd, bytes: &[u8], flags: i32, to: &[u8]) -> io::Result<usize> {
    // SAFETY: the pointers and the lengths are the slices'.
    check_size(unsafe {
        libc::sendto(
            fd.as_fd().as_raw_fd(),
            bytes.as_ptr().cast(),
            bytes.len(),
            flags,
            if to.is_empty() {
                std::ptr::null()
            } else {
                to.as_ptr().cast()
            },
            to.len() as libc::socklen_t,
        )
    })
}

/// A control message: level, type and value.
pub(crate) struct Control {
    pub(crate) level: i32,
    pub(crate) kind: i32,
    pub(crate) value: Vec<u8>,
}

impl Control {
    /// Header, value, and padding up to the next one.
    fn encode(&self) -> Vec<u8> {
        let header = size_of::<libc::cmsghdr>();
        let mut bytes = Vec::new();
        bytes.extend((header + self.value.len()).to_ne_bytes());
        bytes.extend(self.level.to_ne_bytes());
        bytes.extend(self.kind.to_ne_bytes());
        bytes.extend(&self.value);
        bytes.resize(bytes.len().next_multiple_of(size_of::<usize>()), 0);
        bytes
    }
}

/// What `sendmsg` takes, with everything that it points to. The parts have addresses of their own, so
/// that it may move.
pub(crate) struct Message {
    to: Vec<u8>,
    control: Vec<u64>,
    control_bytes: usize,
    payload: Vec<u8>,
    vector: Box<libc::iovec>,
}

impl Message {
    pub(crate) fn new(payload: &[u8], to: &[u8], control: &[Control]) -> Self {
        let encoded: Vec<u8> = control.iter().flat_map(Control::encode).collect();
        // Words, as the kernel's header wants its alignment.
        let words = encoded
            .chunks(8)
            .map(|chunk| {
                let mut word = [0; 8];
                word.iter_mut()
                    .zip(chunk)
                    .for_each(|(to, from)| *to = *from);
                u64::from_ne_bytes(word)
            })
            .collect();
        let mut payload = payload.to_vec();
        let vector = Box::new(libc::iovec {
            iov_base: payload.as_mut_ptr().cast(),
            iov_len: payload.len(),
        });
        Self {
            to: to.to_vec(),
            control: words,
            control_bytes: encoded.len(),
            payload,
            vector,
        }
    }

    /// Valid as long as the message is.
    pub(crate) fn header(&mut self) -> libc::msghdr {
        self.vector.iov_base = self.payload.as_mut_ptr().cast();
        // SAFETY: all zeros is an empty header.
        let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
        header.msg_name = self.to.as_mut_ptr().cast();
        header.msg_namelen = self.to.len() as libc::socklen_t;
        header.msg_iov = &raw mut *self.vector;
        header.msg_iovlen = 1;
        if self.control_bytes > 0 {
            header.msg_control = self.control.as_mut_ptr().cast();
            header.msg_controllen = self.control_bytes;
        }
        header
    }
}

/// `sendmsg`.
pub(crate) fn send_message(
    fd: impl AsFd,
    payload: &[u8],
    to: &[u8],
    control: &[Control],
) -> io::Result<usize> {
    let mut message = Message::new(payload, to, control);
    let header = message.header();
    // SAFETY: what the header points to lives until the call returns.
    check_size(unsafe { libc::sendmsg(fd.as_fd().as_raw_fd(), &raw const header, 0) })
}

/// `sendmmsg` with two copies of one message.
pub(crate) fn send_twice(fd: impl AsFd, payload: &[u8], to: &[u8]) -> io::Result<()> {
    let mut messages = [
        Message::new(payload, to, &[]),
        Message::new(payload, to, &[]),
    ];
    let mut headers = messages.each_mut().map(|message| libc::mmsghdr {
        msg_hdr: message.header(),
        msg_len: 0,
    });
    // SAFETY: what the headers point to lives until the call returns.
    check(unsafe { libc::sendmmsg(fd.as_fd().as_raw_fd(), headers.as_mut_ptr(), 2, 0) }).map(drop)
}

/// Receives a datagram and the kind of packet it was, for packet sockets.
pub(crate) fn receive_frame(fd: impl AsFd, buffer: &mut [u8]) -> io::Result<(usize, u8)> {
    // SAFETY: all zeros is an address of no family.
    let mut from: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    let mut length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: the pointers and the lengths are those of the buffer and the address.
    let count = check_size(unsafe {
        libc::recvfrom(
            fd.as_fd().as_raw_fd(),
            buffer.as_mut_ptr().cast(),
            buffer.len(),
            0,
            (&raw mut from).cast(),
            &raw mut length,
        )
    })?;
    Ok((count, from.sll_pkttype))
}

/// Memory that is shared with the kernel.
pub(crate) struct Mapping {
    start: *mut u8,
    length: usize,
}

impl Mapping {
    /// Of a descriptor, or of nothing but memory.
    pub(crate) fn new(fd: Option<BorrowedFd<'_>>, offset: i64, length: usize) -> io::Result<Self> {
        let (flags, fd) = match fd {
            Some(fd) => (libc::MAP_SHARED | libc::MAP_POPULATE, fd.as_raw_fd()),
            None => (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1),
        };
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping overlaps nothing.
        let start = unsafe { libc::mmap(null_mut(), length, protection, flags, fd, offset) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self {
            start: start.cast(),
            length,
        })
    }

    pub(crate) fn address(&self) -> u64 {
        self.start as u64
    }

    /// Writes bytes at an offset.
    pub(crate) fn write(&self, offset: usize, bytes: &[u8]) -> Result<()> {
        anyhow::ensure!(
            offset.saturating_add(bytes.len()) <= self.length,
            "beyond the mapping"
        );
        for (index, byte) in bytes.iter().enumerate() {
            // SAFETY: it lies within the mapping; the kernel may read it at any time.
            unsafe { self.start.add(offset + index).write_volatile(*byte) };
        }
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
        Ok(())
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's.
        unsafe { libc::munmap(self.start.cast(), self.length) };
    }
}

/// Another process's descriptor `number` (pidfd_getfd).
pub(crate) fn take_descriptor(pid: u32, number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: the call takes plain numbers.
    let process = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let process = check(process as libc::c_int)?;
    // SAFETY: the descriptor is new and nobody else's.
    let process = unsafe { OwnedFd::from_raw_fd(process) };
    // SAFETY: the call takes plain numbers.
    let taken = unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), number, 0) };
    let taken = check(taken as libc::c_int)?;
    // SAFETY: the descriptor is new and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(taken) })
}

/// Attaches to a process as a debugger, and lets it go.
pub(crate) fn attach(pid: u32) -> io::Result<()> {
    // SAFETY: the call takes plain numbers; the process is only stopped and continued.
    unsafe {
        if libc::ptrace(libc::PTRACE_ATTACH, pid as libc::pid_t, 0, 0) < 0 {
            return Err(io::Error::last_os_error());
        }
        libc::waitpid(pid as libc::pid_t, null_mut(), libc::__WALL);
        libc::ptrace(libc::PTRACE_DETACH, pid as libc::pid_t, 0, 0);
    }
    Ok(())
}

/// `ioctl` with a structure of the caller's.
pub(crate) fn control<T: Copy>(
    fd: impl AsFd,
    request: libc::c_ulong,
    value: &mut T,
) -> io::Result<()> {
    // SAFETY: the value is of the size that the request expects, by the caller's choice.
    check(unsafe {
        libc::ioctl(
            fd.as_fd().as_raw_fd(),
            request as _,
            std::ptr::from_mut(value),
        )
    })
    .map(drop)
}

/// A socket2 socket over any descriptor.
pub(crate) fn adopt(fd: OwnedFd) -> socket2::Socket {
    fd.into()
}

/// Starts `work` in a child process, which ends with it.
pub(crate) fn fork_child(work: impl FnOnce()) -> io::Result<Child> {
    // SAFETY: this program has one thread when it forks.
    let pid = check(unsafe { libc::fork() })?;
    if pid == 0 {
        work();
        // SAFETY: it ends the child without running the parent's destructors.
        unsafe { libc::_exit(0) };
    }
    Ok(Child(pid as u32))
}

/// A child that ends when the handle is dropped.
pub(crate) struct Child(pub(crate) u32);

impl Child {
    /// Leaves it to end by itself.
    pub(crate) fn wait(self) {
        let child = ManuallyDrop::new(self);
        // SAFETY: the call takes plain numbers.
        unsafe { libc::waitpid(child.0 as libc::pid_t, null_mut(), 0) };
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // SAFETY: the calls take plain numbers, of a child that was not waited for.
        unsafe {
            libc::kill(self.0 as libc::pid_t, libc::SIGKILL);
            libc::waitpid(self.0 as libc::pid_t, null_mut(), 0);
        }
    }
}
