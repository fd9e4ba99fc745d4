//! Pipes for `splice(2)`: made when a direction is busy, given back when it pauses.
//!
//! It owns how many there are. A pipe that comes back with bytes in it is closed, never used again:
//! they would come out in somebody else's connection.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice};
use nix::unistd::pipe2;
use tokio::io::Interest;
use tokio::net::TcpStream;

/// The most pipes at the same time, of two descriptors each; beyond it bytes are copied.
pub(super) const PIPES_MAX: usize = 1_024;
/// Empty pipes that are kept for the next who needs one.
const SPARE_MAX: usize = 16;
/// What a pipe is asked to hold; `/proc/sys/fs/pipe-max-size` may say less to a gateway that is
/// not root, and what the kernel makes without being asked does too.
const PIPE_BYTES: usize = 1 << 20;
/// What the kernel makes without being asked: 16 pages.
const PIPE_BYTES_DEFAULT: usize = 64 << 10;

/// All pipes. Clones share them.
#[derive(Clone, Default)]
pub(in super::super) struct Pipes {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    count: usize,
    spare: Vec<Ends>,
}

struct Ends {
    reader: OwnedFd,
    writer: OwnedFd,
    size: usize,
}

/// A pipe in use; given back when dropped.
pub(super) struct Pipe {
    ends: Option<Ends>,
    /// Bytes in it.
    held: usize,
    pipes: Pipes,
}

impl Pipes {
    /// A pipe, if there is one left and the system has the descriptors.
    pub(super) fn take(&self) -> Option<Pipe> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let ends = match inner.spare.pop() {
            Some(ends) => ends,
            None if inner.count >= PIPES_MAX => return None,
            None => {
                let made = make()?;
                inner.count += 1;
                made
            }
        };
        drop(inner);
        Some(Pipe {
            ends: Some(ends),
            held: 0,
            pipes: self.clone(),
        })
    }
}

fn make() -> Option<Ends> {
    let (reader, writer) = pipe2(OFlag::O_NONBLOCK | OFlag::O_CLOEXEC).ok()?;
    let asked = i32::try_from(PIPE_BYTES).unwrap_or(i32::MAX);
    let size = fcntl(&writer, FcntlArg::F_SETPIPE_SZ(asked))
        .ok()
        .and_then(|size| usize::try_from(size).ok())
        .unwrap_or(PIPE_BYTES_DEFAULT);
    Some(Ends {
        reader,
        writer,
        size,
    })
}

impl Pipe {
    /// Bytes in it.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// Moves what a socket has into the empty pipe; 0 is the end of its stream.
    pub(super) fn fill(&mut self, from: &TcpStream) -> io::Result<usize> {
        let Some(ends) = &self.ends else { return Ok(0) };
        // A full pipe and an empty socket answer alike, so it is filled only when it is empty.
        debug_assert_eq!(self.held, 0);
        let flags = SpliceFFlags::SPLICE_F_MOVE | SpliceFFlags::SPLICE_F_NONBLOCK;
        let count = from.try_io(Interest::READABLE, || {
            Ok(splice(from, None, &ends.writer, None, ends.size, flags)?)
        })?;
        self.held = count;
        Ok(count)
    }

    /// Moves what is in the pipe to a socket, as far as that takes it.
    pub(super) fn drain(&mut self, to: &TcpStream) -> io::Result<usize> {
        let Some(ends) = &self.ends else { return Ok(0) };
        let flags = SpliceFFlags::SPLICE_F_MOVE | SpliceFFlags::SPLICE_F_NONBLOCK;
        let count = to.try_io(Interest::WRITABLE, || {
            Ok(splice(&ends.reader, None, to, None, self.held, flags)?)
        })?;
        self.held = self.held.saturating_sub(count);
        Ok(count)
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        let Some(ends) = self.ends.take() else { return };
        let mut inner = self
            .pipes
            .inner
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if self.held == 0 && inner.spare.len() < SPARE_MAX {
            inner.spare.push(ends);
        } else {
            inner.count = inner.count.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn their_number_is_limited_and_they_are_used_again() {
        let pipes = Pipes::default();
        // What a test may open is less than what a gateway may.
        let some: Vec<Pipe> = (0..2 * SPARE_MAX).map_while(|_| pipes.take()).collect();
        assert_eq!(some.len(), 2 * SPARE_MAX);
        assert_eq!(some[0].ends.as_ref().unwrap().size, PIPE_BYTES);
        pipes.inner.lock().unwrap().count += PIPES_MAX - some.len();
        assert!(pipes.take().is_none());
        drop(some);
        let inner = pipes.inner.lock().unwrap();
        assert_eq!(inner.count, PIPES_MAX - SPARE_MAX);
        assert_eq!(inner.spare.len(), SPARE_MAX);
    }

    #[test]
    fn what_holds_bytes_is_not_used_again() {
        let pipes = Pipes::default();
        let mut pipe = pipes.take().unwrap();
        pipe.held = 1;
        drop(pipe);
        let inner = pipes.inner.lock().unwrap();
        assert_eq!((inner.count, inner.spare.len()), (0, 0));
    }
}
