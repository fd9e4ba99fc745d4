//! Attempts through io_uring, whose work the kernel does outside of the caller's system calls.

use std::io;
use std::os::fd::AsRawFd as _;

use anyhow::{Result, anyhow};
use io_uring::{IoUring, opcode, squeue, types};

use crate::datagram;
use crate::report::{Parameters, Report};
use crate::stream::{self, talk};
use crate::sys::{self, Message};

const ENTRIES: u32 = 4;

pub(crate) fn connect(parameters: &Parameters) -> Result<Report> {
    dial(&mut IoUring::new(ENTRIES)?, parameters)
}

/// A thread of the kernel takes the requests: there is no system call at all.
pub(crate) fn polled_connect(parameters: &Parameters) -> Result<Report> {
    let mut ring = IoUring::builder().setup_sqpoll(1000).build(ENTRIES)?;
    dial(&mut ring, parameters)
}

fn dial(ring: &mut IoUring, parameters: &Parameters) -> Result<Report> {
    let target = parameters.target()?;
    let socket = stream::open(target)?;
    let to = sys::address(target);
    let fd = types::Fd(socket.as_raw_fd());
    let entry = opcode::Connect::new(fd, to.as_ptr().cast(), u32::try_from(to.len())?).build();
    perform(ring, &entry)?;
    talk(&socket, &parameters.token()?)
}

pub(crate) fn send_message(parameters: &Parameters) -> Result<Report> {
    let target = parameters.target()?;
    let socket = datagram::open(target)?;
    let mut message = Message::new(&parameters.token()?, &sys::address(target), &[]);
    let header = message.header();
    let fd = types::Fd(socket.as_raw_fd());
    perform(
        &mut IoUring::new(ENTRIES)?,
        &opcode::SendMsg::new(fd, &raw const header).build(),
    )?;
    Ok(Report::said("sent"))
}

fn perform(ring: &mut IoUring, entry: &squeue::Entry) -> Result<()> {
    // SAFETY: what the entry points to belongs to the callers, who wait here until it is done.
    unsafe { ring.submission().push(entry)? };
    ring.submit_and_wait(1)?;
    let done = ring
        .completion()
        .next()
        .ok_or_else(|| anyhow!("the ring has no completion"))?;
    if done.result() < 0 {
        return Err(io::Error::from_raw_os_error(-done.result()).into());
    }
    Ok(())
}
