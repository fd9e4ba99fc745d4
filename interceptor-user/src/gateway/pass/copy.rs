//! Both directions of a connection that passes through, until both have ended or one side broke.
//!
//! It owns waiting and fairness. An end passes as an end, a reset as a reset: both sockets reset
//! when they are dropped, unless both directions ended in order, so that neither a fault here nor
//! the death of the gateway looks like the end of a stream.

use std::io;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{Interest, Ready};
use tokio::net::TcpStream;

use super::direction::{BEYOND_LIMIT, Broken, Direction, PAUSE, Side};
use super::pipe::Pipes;

/// Bytes in both directions before other tasks of the thread get their turn.
const YIELD_BYTES: u64 = 4 << 20;
/// A peer that is silent for so long is asked whether it is there,
const KEEPALIVE_IDLE: Duration = Duration::from_secs(120);
/// again after so long,
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
/// and is taken for lost after so many questions.
const KEEPALIVE_RETRIES: u32 = 4;

/// How a connection came to its end.
#[derive(Debug)]
pub(super) enum Copied {
    /// Both directions ended in order; this side was first.
    Closed(Side),
    /// This side reset it.
    Reset(Side),
    /// The client got all the bytes that it may have.
    Limited,
    /// This side's connection failed in another way.
    Broken(Side, io::ErrorKind),
}

/// What passed, also while it passes.
pub(super) struct Passage {
    up: Direction,
    down: Direction,
    first: Option<Side>,
}

impl Passage {
    pub(super) fn new() -> Self {
        Self {
            up: Direction::new(Side::Client, Side::Target),
            down: Direction::new(Side::Target, Side::Client),
            first: None,
        }
    }

    /// Bytes that the target took.
    pub(super) fn bytes_up(&self) -> u64 {
        self.up.moved()
    }

    /// Bytes that the client took.
    pub(super) fn bytes_down(&self) -> u64 {
        self.down.moved()
    }

    /// The client gets so many bytes at most.
    pub(super) fn limit_down(&mut self, bytes: u64) {
        self.down.limit(bytes);
    }

    /// Carries bytes until the end. Not cancel-safe: whoever drops it resets both connections.
    pub(super) async fn carry(
        &mut self,
        client: &TcpStream,
        target: &TcpStream,
        pipes: &Pipes,
    ) -> Copied {
        let mut since_yield = 0;
        loop {
            let before = self.bytes_up() + self.bytes_down();
            match self.pump(client, target, pipes) {
                Ok(_) if self.up.is_closed() && self.down.is_closed() => {
                    return Copied::Closed(self.first.unwrap_or(Side::Client));
                }
                Ok(true) => {
                    since_yield += self.bytes_up() + self.bytes_down() - before;
                    if since_yield >= YIELD_BYTES {
                        since_yield = 0;
                        tokio::task::yield_now().await;
                    }
                    continue;
                }
                Ok(false) => {}
                Err(broken) => return self.break_off(broken, client, target, pipes),
            }
            since_yield = 0;
            if let Some(broken) = self.wait(client, target).await {
                return self.break_off(broken, client, target, pipes);
            }
        }
    }

    fn pump(
        &mut self,
        client: &TcpStream,
        target: &TcpStream,
        pipes: &Pipes,
    ) -> Result<bool, Broken> {
        let up = self.up.pump(client, target, pipes)?;
        self.note_end(Side::Client);
        let down = self.down.pump(target, client, pipes)?;
        self.note_end(Side::Target);
        Ok(up | down)
    }

    fn note_end(&mut self, side: Side) {
        let direction = match side {
            Side::Client => &self.up,
            Side::Target => &self.down,
        };
        if direction.is_closed() {
            self.first.get_or_insert(side);
        }
    }

    /// Waits until something can move, or a side broke. Cancel-safe: it takes nothing.
    async fn wait(&mut self, client: &TcpStream, target: &TcpStream) -> Option<Broken> {
        loop {
            let spare = self.up.has_spare_pipe() || self.down.has_spare_pipe();
            let of_client = interest(&self.up, &self.down);
            let of_target = interest(&self.down, &self.up);
            tokio::select! {
                biased;
                ready = client.ready(of_client) => return broken(Side::Client, client, ready),
                ready = target.ready(of_target) => return broken(Side::Target, target, ready),
                () = tokio::time::sleep(PAUSE), if spare => {
                    self.up.rest();
                    self.down.rest();
                }
            }
        }
    }

    /// One side broke. What it had sent before still goes to the other, as far as that takes it
    /// now; then the other is reset, by being dropped.
    fn break_off(
        &mut self,
        broken: Broken,
        client: &TcpStream,
        target: &TcpStream,
        pipes: &Pipes,
    ) -> Copied {
        let (last, source, sink) = match broken.side {
            Side::Client => (&mut self.up, client, target),
            Side::Target => (&mut self.down, target, client),
        };
        last.withhold_end();
        while let Ok(true) = last.pump(source, sink, pipes) {}
        match broken.error.kind() {
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                Copied::Reset(broken.side)
            }
            BEYOND_LIMIT => Copied::Limited,
            kind => Copied::Broken(broken.side, kind),
        }
    }
}

/// What to wait for on a socket that one direction reads and the other writes: always for a
/// failure, so that a reset passes while nothing can be read.
fn interest(reads: &Direction, writes: &Direction) -> Interest {
    let mut interest = Interest::ERROR;
    if reads.wants_read() {
        interest |= Interest::READABLE;
    }
    if writes.wants_write() {
        interest |= Interest::WRITABLE;
    }
    interest
}

fn broken(side: Side, stream: &TcpStream, ready: io::Result<Ready>) -> Option<Broken> {
    let error = match ready {
        Ok(ready) if !ready.is_error() => return None,
        Ok(_) => match stream.take_error() {
            Ok(error) => error,
            Err(error) => Some(error),
        },
        Err(error) => Some(error),
    };
    if error.is_none() {
        // A word of an error that was taken already must not be heard for ever.
        let _ = stream.try_io(Interest::ERROR, || {
            Err::<(), _>(io::ErrorKind::WouldBlock.into())
        });
    }
    error.map(|error| Broken { side, error })
}

/// Makes a socket ready: it resets when it is dropped, and finds out that its peer is gone.
pub(super) fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_zero_linger()?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_RETRIES);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

/// Closes a socket in order: what it still holds goes out after this.
pub(super) fn close(stream: TcpStream) {
    if let Err(error) = SockRef::from(&stream).set_linger(None) {
        tracing::debug!(%error, "a connection that ended is reset instead of being closed");
    }
}
