//! One direction of a connection that passes through: bytes from one socket to the other, and
//! then the end of the stream.
//!
//! It owns the order: what was read is written before anything else is read, and the end is passed
//! on when nothing is left. Small flows are copied through a buffer that all directions of a
//! thread share; one that is busy gets a pipe, and its bytes never leave the kernel.

use std::cell::RefCell;
use std::io;
use std::net::Shutdown;
use std::time::{Duration, Instant};

use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::pipe::{Pipe, Pipes};

/// What is copied at a time, and the most that waits outside the kernel for a slow peer.
const COPY_BYTES: usize = 64 << 10;
/// Bytes without a pause after which a direction gets a pipe.
const BUSY_BYTES: u64 = 256 << 10;
/// No bytes for so long are a pause.
pub(super) const PAUSE: Duration = Duration::from_millis(100);
/// What breaks a direction that met its limit; no socket says so by itself.
pub(super) const BEYOND_LIMIT: io::ErrorKind = io::ErrorKind::QuotaExceeded;
/// Bytes that one direction moves before the other gets its turn.
const TURN_BYTES: u64 = 1 << 20;

thread_local! {
    /// Holds bytes only while a direction is polled, so one is enough for all of a thread.
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; COPY_BYTES]);
}

/// Which peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Client,
    Target,
}

/// A peer's connection does not work any more.
#[derive(Debug)]
pub(super) struct Broken {
    pub(super) side: Side,
    pub(super) error: io::Error,
}

/// How one direction stands.
pub(super) struct Direction {
    from: Side,
    to: Side,
    /// What was read and found no room, from `written` on.
    left: Vec<u8>,
    written: usize,
    pipe: Option<Pipe>,
    /// Bytes that the other side took.
    moved: u64,
    /// Bytes that may still be read, where there is a limit.
    allowance: Option<u64>,
    /// Bytes since the last pause.
    busy: u64,
    /// Since when there has been nothing to read.
    dry: Option<Instant>,
    /// The stream ended.
    ended: bool,
    /// The other side was told.
    closed: bool,
}

impl Direction {
    pub(super) fn new(from: Side, to: Side) -> Self {
        Self {
            from,
            to,
            left: Vec::new(),
            written: 0,
            pipe: None,
            moved: 0,
            allowance: None,
            busy: 0,
            dry: None,
            ended: false,
            closed: false,
        }
    }

    /// Bytes that the other side took.
    pub(super) fn moved(&self) -> u64 {
        self.moved
    }

    /// So many bytes may pass at most; more of them break it. They go through the buffer, where they
    /// can be counted before they are passed on.
    pub(super) fn limit(&mut self, bytes: u64) {
        self.allowance = Some(bytes);
    }

    /// The stream ended, and the other side was told.
    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// More bytes are of use.
    pub(super) fn wants_read(&self) -> bool {
        !self.ended && !self.wants_write()
    }

    /// Bytes wait for room.
    pub(super) fn wants_write(&self) -> bool {
        self.written < self.left.len() || self.pipe.as_ref().is_some_and(|pipe| pipe.held() > 0)
    }

    /// It has a pipe without needing it.
    pub(super) fn has_spare_pipe(&self) -> bool {
        self.pipe.as_ref().is_some_and(|pipe| pipe.held() == 0)
    }

    /// Gives the pipe back if there was a pause.
    pub(super) fn rest(&mut self) {
        if self.has_spare_pipe() && self.dry.is_some_and(|dry| dry.elapsed() >= PAUSE) {
            self.pipe = None;
            self.busy = 0;
        }
    }

    /// The stream breaks off: once the error was read its end looks like one in order, and must
    /// not be passed on.
    pub(super) fn withhold_end(&mut self) {
        self.closed = true;
    }

    /// Moves what can be moved without waiting, up to a limit. True if anything moved.
    pub(super) fn pump(
        &mut self,
        source: &TcpStream,
        sink: &TcpStream,
        pipes: &Pipes,
    ) -> Result<bool, Broken> {
        let before = (self.moved, self.closed);
        while self.moved - before.0 < TURN_BYTES {
            if self.wants_write() {
                self.flush(sink)?;
                if self.wants_write() {
                    break;
                }
            }
            if self.ended {
                if !self.closed {
                    self.closed = true;
                    SockRef::from(sink)
                        .shutdown(Shutdown::Write)
                        .map_err(self.failed(self.to))?;
                }
                break;
            }
            match self.read(source, sink, pipes)? {
                None => {
                    self.dry.get_or_insert_with(Instant::now);
                    break;
                }
                Some(0) => self.ended = true,
                Some(count) => self.note(count),
            }
        }
        Ok(before != (self.moved, self.closed))
    }

    /// Counts what was read since the last pause.
    fn note(&mut self, count: usize) {
        if self.dry.take().is_some_and(|dry| dry.elapsed() >= PAUSE) {
            self.busy = 0;
        }
        self.busy = self.busy.saturating_add(count as u64);
    }

    /// Reads once; `None` if nothing is there, 0 at the end.
    fn read(
        &mut self,
        source: &TcpStream,
        sink: &TcpStream,
        pipes: &Pipes,
    ) -> Result<Option<usize>, Broken> {
        if self.pipe.is_none() && self.busy >= BUSY_BYTES && self.allowance.is_none() {
            self.pipe = pipes.take();
        }
        match &mut self.pipe {
            Some(pipe) => unless_blocked(pipe.fill(source)).map_err(self.failed(self.from)),
            None => BUFFER.with_borrow_mut(|buffer| self.copy(source, sink, buffer)),
        }
    }

    /// Reads once and writes it at once, as most of it finds room.
    fn copy(
        &mut self,
        source: &TcpStream,
        sink: &TcpStream,
        buffer: &mut [u8],
    ) -> Result<Option<usize>, Broken> {
        // One more than may pass tells whether there is more.
        let room = self
            .allowance
            .map_or(u64::MAX, |left| left.saturating_add(1));
        let room = usize::try_from(room)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let buffer = buffer.get_mut(..room).unwrap_or_default();
        let count = unless_blocked(read_some(source, buffer)).map_err(self.failed(self.from))?;
        let read = buffer.get(..count.unwrap_or(0)).unwrap_or_default();
        if let Some(left) = &mut self.allowance {
            match left.checked_sub(read.len() as u64) {
                Some(rest) => *left = rest,
                None => {
                    // Nor does anything that comes later.
                    *left = 0;
                    return Err(self.failed(self.from)(BEYOND_LIMIT.into()));
                }
            }
        }
        if !read.is_empty() {
            let taken = unless_blocked(sink.try_write(read)).map_err(self.failed(self.to))?;
            let taken = taken.unwrap_or(0);
            self.moved += taken as u64;
            self.left.extend(read.get(taken..).unwrap_or_default());
        }
        Ok(count)
    }

    /// Writes what waits, as far as there is room.
    fn flush(&mut self, sink: &TcpStream) -> Result<(), Broken> {
        while self.wants_write() {
            let taken = match &mut self.pipe {
                Some(pipe) if pipe.held() > 0 => pipe.drain(sink),
                _ => sink.try_write(self.left.get(self.written..).unwrap_or_default()),
            };
            let Some(taken) = unless_blocked(taken).map_err(self.failed(self.to))? else {
                break;
            };
            self.moved += taken as u64;
            if !self.left.is_empty() {
                self.written += taken;
            }
            if self.written >= self.left.len() {
                // Given back whole: who waits for the next bytes holds no memory.
                (self.left, self.written) = (Vec::new(), 0);
            }
        }
        Ok(())
    }

    fn failed(&self, side: Side) -> impl Fn(io::Error) -> Broken + use<> {
        move |error| Broken { side, error }
    }
}

/// Reads once. What fills less than the buffer was all there was: the next read waits for the
/// kernel's word instead of asking in vain.
fn read_some(source: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    let mut read = None;
    let room = buffer.len();
    let result = source.try_io(Interest::READABLE, || {
        let count = nix::unistd::read(source, buffer)?;
        read = Some(count);
        if 0 < count && count < room {
            // Readiness is of before the read, and is edge-triggered: bytes that come from now on
            // set it anew.
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(())
    });
    match (read, result) {
        (Some(count), _) => Ok(count),
        (None, Ok(())) => Ok(0),
        (None, Err(error)) => Err(error),
    }
}

fn unless_blocked(result: io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Ok(count) => Ok(Some(count)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}
