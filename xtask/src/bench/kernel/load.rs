//! The load: a server in the target's namespace, flows and connections from the client's, and calls of
//! `connect` on the gateway host.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use interceptor_tests::World;
use interceptor_tests::world::{From, TARGET_V4};
use nix::sys::socket::{setsockopt, sockopt};

use crate::bench::report::median;

/// What the first byte of a connection asks of the server.
const ECHO: u8 = b'e';
const SINK: u8 = b's';
const SOURCE: u8 = b'd';
const PING: u8 = b'p';

const PING_BYTES: usize = 64;
const BUFFER_BYTES: usize = 256 << 10;
/// Bytes of one request for a download.
const DOWNLOAD_BYTES: u64 = 16 << 20;
/// More than this bench ever has open at once.
const WORKERS: usize = 40;
const PATIENCE: Duration = Duration::from_secs(20);

/// Counts what its sinks have received. It serves until the bench ends.
#[derive(Clone)]
pub(crate) struct Server {
    received: Arc<AtomicU64>,
}

impl Server {
    /// Listens in the target's namespace; the sockets stay there.
    pub(crate) fn start(world: &World, ports: &[u16]) -> Result<Self> {
        let server = Self {
            received: Arc::default(),
        };
        for port in ports {
            let listener = world
                .target
                .enter(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, *port)))??;
            for _ in 0..WORKERS {
                let (listener, server) = (listener.try_clone()?, server.clone());
                std::thread::spawn(move || {
                    for stream in listener.incoming().flatten() {
                        // A client that goes away is how every connection ends.
                        let _ = server.serve(stream);
                    }
                });
            }
        }
        Ok(server)
    }

    fn serve(&self, mut stream: TcpStream) -> Result<()> {
        stream.set_nodelay(true)?;
        let mut kind = [0];
        stream.read_exact(&mut kind)?;
        match kind {
            [ECHO] => {
                stream.write_all(&kind)?;
                stream.read_exact(&mut kind)?;
            }
            [PING] => {
                let mut ping = [0; PING_BYTES];
                loop {
                    stream.read_exact(&mut ping)?;
                    stream.write_all(&ping)?;
                }
            }
            [SINK] => {
                let mut buffer = vec![0; BUFFER_BYTES];
                loop {
                    let count = stream.read(&mut buffer)?;
                    ensure!(count > 0, "the end");
                    self.received.fetch_add(count as u64, Ordering::Release);
                }
            }
            [SOURCE] => {
                let buffer = vec![7; BUFFER_BYTES];
                let mut request = [0; 8];
                loop {
                    stream.read_exact(&mut request)?;
                    let mut left = u64::from_be_bytes(request) as usize;
                    while left > 0 {
                        let part = buffer.get(..left.min(BUFFER_BYTES)).unwrap_or(&buffer);
                        stream.write_all(part)?;
                        left = left.saturating_sub(part.len());
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// Connections from the client to a server, used round after round.
pub(crate) struct Flow {
    up: TcpStream,
    down: TcpStream,
    ping: TcpStream,
    server: Server,
    sent: u64,
    fetched: u64,
    /// What the server's sinks had received before this flow.
    received_before: u64,
    buffer: Vec<u8>,
}

impl Flow {
    pub(crate) fn open(
        world: &World,
        address: Ipv4Addr,
        port: u16,
        server: &Server,
    ) -> Result<Self> {
        let to = SocketAddr::from((address, port));
        let open = |kind: u8| -> Result<TcpStream> {
            let mut stream = world
                .client
                .enter(|| TcpStream::connect_timeout(&to, PATIENCE))?
                .with_context(|| format!("no connection to {to}"))?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            stream.write_all(&[kind])?;
            Ok(stream)
        };
        Ok(Self {
            up: open(SINK)?,
            down: open(SOURCE)?,
            ping: open(PING)?,
            server: server.clone(),
            sent: 0,
            fetched: 0,
            received_before: server.received.load(Ordering::Acquire),
            buffer: vec![7; BUFFER_BYTES],
        })
    }

    /// Everything that this flow has moved.
    pub(crate) fn bytes(&self) -> u64 {
        self.sent.saturating_add(self.fetched)
    }

    /// Megabytes a second to the server, until its last byte has arrived.
    pub(crate) fn upload(&mut self, slice: Duration) -> Result<f64> {
        let start = Instant::now();
        let mut count = 0_u64;
        while start.elapsed() < slice {
            self.up.write_all(&self.buffer)?;
            count = count.saturating_add(BUFFER_BYTES as u64);
        }
        self.sent = self.sent.saturating_add(count);
        let all = self.received_before.saturating_add(self.sent);
        while self.server.received.load(Ordering::Acquire) < all {
            ensure!(start.elapsed() < PATIENCE, "bytes did not arrive");
            std::thread::yield_now();
        }
        Ok(count as f64 / 1e6 / start.elapsed().as_secs_f64())
    }

    /// Megabytes a second from the server.
    pub(crate) fn download(&mut self, slice: Duration) -> Result<f64> {
        let start = Instant::now();
        let mut count = 0_u64;
        while start.elapsed() < slice {
            self.down.write_all(&DOWNLOAD_BYTES.to_be_bytes())?;
            let mut left = DOWNLOAD_BYTES;
            while left > 0 {
                let got = self.down.read(&mut self.buffer)? as u64;
                ensure!(got > 0, "the server ended");
                left = left.saturating_sub(got);
            }
            count = count.saturating_add(DOWNLOAD_BYTES);
        }
        self.fetched = self.fetched.saturating_add(count);
        Ok(count as f64 / 1e6 / start.elapsed().as_secs_f64())
    }

    /// The median nanoseconds of a round trip of 64 bytes.
    pub(crate) fn round_trip(&mut self, count: u32) -> Result<f64> {
        let mut ping = [7; PING_BYTES];
        let mut times = Vec::new();
        for _ in 0..count {
            let start = Instant::now();
            self.ping.write_all(&ping)?;
            self.ping.read_exact(&mut ping)?;
            times.push(start.elapsed().as_nanos() as f64);
        }
        median(times.into_iter()).ok_or_else(|| anyhow!("no round trips"))
    }
}

/// A side by its number.
pub(crate) fn of<T>(sides: &mut [T], side: usize) -> Result<&mut T> {
    sides
        .get_mut(side)
        .ok_or_else(|| anyhow!("there is no side {side}"))
}

/// The median microseconds from `connect` to a connection, or with `first_byte` to an answer of the server
/// on it, when so many clients make so many in all.
pub(crate) fn set_up(
    world: &World,
    port: u16,
    clients: u32,
    connections: u32,
    first_byte: bool,
) -> Result<f64> {
    let to = SocketAddr::from((TARGET_V4, port));
    let each = connections.div_ceil(clients);
    let start_line = Arc::new(Barrier::new(clients as usize));
    let times = world.client.enter(|| -> Result<Vec<Vec<f64>>> {
        let workers: Vec<_> = (0..clients)
            .map(|_| {
                let start_line = Arc::clone(&start_line);
                std::thread::spawn(move || -> Result<Vec<f64>> {
                    start_line.wait();
                    (0..each).map(|_| connect_once(to, first_byte)).collect()
                })
            })
            .collect();
        let join = |worker: JoinHandle<Result<_>>| {
            worker
                .join()
                .map_err(|_| anyhow!("a client of the bench died"))?
        };
        workers.into_iter().map(join).collect()
    })??;
    // What the proxies still do for these connections is not to fall on the next.
    std::thread::sleep(Duration::from_millis(60));
    median(times.into_iter().flatten()).ok_or_else(|| anyhow!("no connections"))
}

fn connect_once(to: SocketAddr, first_byte: bool) -> Result<f64> {
    let start = Instant::now();
    let mut stream =
        TcpStream::connect_timeout(&to, PATIENCE).with_context(|| format!("to {to}"))?;
    if first_byte {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(&[ECHO])?;
        let mut answer = [0];
        stream.read_exact(&mut answer)?;
    }
    let elapsed = start.elapsed();
    // Closed by a reset, or tens of thousands of connections would wait for their time to run out.
    let linger = nix::libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    setsockopt(&stream, sockopt::Linger, &linger)?;
    Ok(elapsed.as_secs_f64() * 1e6)
}

/// A process on the gateway host, in the cgroup of its local clients, that calls `connect`.
pub(crate) struct Connector {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Connector {
    pub(crate) fn start(world: &World, program: &Path) -> Result<Self> {
        let mut child = world
            .command(From::Local, &program.to_string_lossy())?
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let input = child.stdin.take().ok_or_else(|| anyhow!("no input"))?;
        let output = child.stdout.take().ok_or_else(|| anyhow!("no output"))?;
        Ok(Self {
            child,
            input,
            output: BufReader::new(output),
        })
    }

    /// Nanoseconds a call.
    pub(crate) fn connect(&mut self, kind: &str, calls: u32) -> Result<f64> {
        writeln!(self.input, "{kind} {calls}")?;
        self.input.flush()?;
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        line.trim()
            .parse()
            .with_context(|| format!("the load said {line:?}"))
    }
}

impl Drop for Connector {
    fn drop(&mut self) {
        // The world's sweep kills whatever is left.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
