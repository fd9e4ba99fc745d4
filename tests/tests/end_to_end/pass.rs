//! Targets with `protocol: tcp`: every byte arrives, every end arrives as what it was, and nothing
//! passes that no rule names.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test's helpers may fail by panicking"
)]

mod decisions;
mod limits;

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use interceptor_tests::world::{TARGET_V4, TARGET_V6};
use interceptor_tests::{Gateway, World, wait_until, with_gateway};
use nix::sys::time::{TimeVal, TimeValLike as _};

use crate::support::{Pattern, reset_on_drop};

/// What a socket of these tests waits for at most.
const LIMIT: Duration = Duration::from_secs(60);

/// One target that may be reached, one that waits for a person, one that a rule refuses, and one
/// that no rule names.
const PASS: &str = r#"
kind: Target
name: echo
spec:
  protocol: tcp
  endpoints: ["10.77.2.2:7000", "[fd77:2::2]:7000", "10.77.2.2:6379"]
---
kind: Target
name: asks
spec: {protocol: tcp, endpoints: ["10.77.2.2:7001"]}
---
kind: Target
name: hurried
spec: {protocol: tcp, endpoints: ["10.77.2.2:7002"]}
---
kind: Target
name: refused
spec: {protocol: tcp, endpoints: ["10.77.2.2:7003"]}
---
kind: Target
name: unnamed
spec: {protocol: tcp, endpoints: ["10.77.2.2:7004"]}
---
kind: Rule
name: echo-may-pass
spec:
  match: {targets: [echo], statements: [CONNECT]}
  then: allow
---
kind: Rule
name: everything-else
spec:
  match: {}
  then: allow
---
kind: Rule
name: ask-first
spec:
  match: {targets: [asks], statements: [CONNECT]}
  then: {hold: {timeout: 60s, message: "somebody looks at it"}}
---
kind: Rule
name: nobody-answers
spec:
  match: {targets: [hurried], statements: [CONNECT]}
  then: {hold: {timeout: 1s, message: "in vain"}}
---
kind: Rule
name: not-this-one
spec:
  match: {targets: [refused], statements: [CONNECT]}
  then: {deny: "use another"}
"#;

/// A server in the target's namespace: `serve` gets each connection on a thread of its own.
struct Server {
    accepted: Arc<AtomicUsize>,
}

impl Server {
    fn start(
        world: &World,
        port: u16,
        serve: impl Fn(TcpStream) -> Result<()> + Send + Sync + 'static,
    ) -> Result<Self> {
        let listener = world
            .target
            .enter(|| TcpListener::bind((std::net::Ipv6Addr::UNSPECIFIED, port)))??;
        let accepted = Arc::new(AtomicUsize::new(0));
        let (count, serve) = (Arc::clone(&accepted), Arc::new(serve));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(io::Result::ok) {
                count.fetch_add(1, Ordering::SeqCst);
                let serve = Arc::clone(&serve);
                std::thread::spawn(move || {
                    if let Err(error) = limit(&stream).and_then(|()| serve(stream)) {
                        eprintln!("the server: {error:#}");
                    }
                });
            }
        });
        Ok(Self { accepted })
    }

    fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }
}

fn limit(stream: &TcpStream) -> Result<()> {
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    Ok(())
}

fn connect_to(world: &World, address: impl Into<IpAddr>, port: u16) -> Result<TcpStream> {
    let peer = SocketAddr::new(address.into(), port);
    let stream = world
        .client
        .enter(|| TcpStream::connect_timeout(&peer, Duration::from_secs(10)))??;
    limit(&stream)?;
    Ok(stream)
}

fn connect(world: &World, port: u16) -> Result<TcpStream> {
    connect_to(world, TARGET_V4, port)
}

fn echo(mut stream: TcpStream) -> Result<()> {
    // It is the client who finds out that nothing comes: a loaded machine is slow.
    stream.set_read_timeout(None)?;
    let mut buffer = vec![0; 1 << 16];
    loop {
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        stream.write_all(&buffer[..count])?;
    }
}

/// Whether the next read says that the peer reset the connection.
fn is_reset(stream: &mut TcpStream) -> Result<bool> {
    let mut rest = Vec::new();
    match stream.read_to_end(&mut rest) {
        Ok(_) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(true),
        Err(error) => Err(error).context("neither an end nor a reset"),
    }
}

/// Whether a connection is taken and reset. That may be faster than `connect` returns.
fn is_refused(world: &World, port: u16) -> Result<bool> {
    match connect(world, port) {
        Ok(mut stream) => is_reset(&mut stream),
        Err(error) => match error.downcast_ref::<io::Error>().map(io::Error::kind) {
            Some(io::ErrorKind::ConnectionReset) => Ok(true),
            _ => Err(error),
        },
    }
}

fn says(stream: &mut TcpStream, text: &str) -> Result<()> {
    stream.write_all(text.as_bytes())?;
    let mut answer = vec![0; text.len()];
    stream.read_exact(&mut answer)?;
    ensure!(answer == text.as_bytes(), "another answer");
    Ok(())
}

fn closed(gateway: &Gateway<'_>, reason: &str) -> Result<serde_json::Value> {
    gateway.event("close", |event| {
        event["reason"]
            .as_str()
            .is_some_and(|found| found.contains(reason))
    })
}

/// So that the end comes while bytes are copied and while they are spliced.
const SIZES: [u64; 5] = [0, 1, 4_096, 300_000, 5_000_000];
const HALF_CLOSES: usize = 300;

/// The first to speak sends a number of bytes and closes its side; the other counts them up to the
/// end, and answers with that number and as many bytes of its own.
fn speak_first(stream: &mut TcpStream, count: u64) -> Result<()> {
    Pattern::default().send(stream, count)?;
    stream.shutdown(Shutdown::Write)?;
    let mut header = [0; 8];
    stream.read_exact(&mut header)?;
    let heard = u64::from_be_bytes(header);
    ensure!(heard == count, "{heard} of {count} bytes arrived");
    let tail = Pattern::default().receive(stream)?;
    ensure!(tail == count, "{tail} of {count} bytes of the tail arrived");
    Ok(())
}

fn speak_last(stream: &mut TcpStream) -> Result<()> {
    let count = Pattern::default().receive(stream)?;
    stream.write_all(&count.to_be_bytes())?;
    Pattern::default().send(stream, count)
}

#[test]
fn half_closes_of_clients_lose_nothing() -> Result<()> {
    with_gateway("pass-tail-up", PASS, |world, gateway| {
        Server::start(world, 7000, |mut stream| speak_last(&mut stream))?;
        in_four_threads(|number| {
            let mut stream = connect(world, 7000)?;
            speak_first(&mut stream, SIZES[number % SIZES.len()])
        })?;
        let close = closed(gateway, "the client first")?;
        assert_eq!(close["violation"], false);
        Ok(())
    })
}

#[test]
fn half_closes_of_targets_lose_nothing() -> Result<()> {
    with_gateway("pass-tail-down", PASS, |world, gateway| {
        let (done, results) = mpsc::channel();
        let number = AtomicUsize::new(0);
        Server::start(world, 7000, move |mut stream| {
            let number = number.fetch_add(1, Ordering::SeqCst);
            let result = speak_first(&mut stream, SIZES[number % SIZES.len()]);
            Ok(done.send(result)?)
        })?;
        in_four_threads(|_| speak_last(&mut connect(world, 7000)?))?;
        for number in 0..HALF_CLOSES {
            results
                .recv_timeout(LIMIT)?
                .with_context(|| format!("connection {number}"))?;
        }
        closed(gateway, "the target first")?;
        Ok(())
    })
}

fn in_four_threads(work: impl Fn(usize) -> Result<()> + Sync) -> Result<()> {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    loop {
                        let number = next.fetch_add(1, Ordering::SeqCst);
                        if number >= HALF_CLOSES {
                            return Ok(());
                        }
                        work(number).with_context(|| format!("connection {number}"))?;
                    }
                })
            })
            .collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().expect("a thread panicked"))
    })
}

#[test]
fn a_reset_passes_as_a_reset() -> Result<()> {
    with_gateway("pass-reset", PASS, |world, gateway| {
        let (done, results) = mpsc::channel();
        Server::start(world, 7000, move |mut stream| {
            let mut word = [0; 5];
            stream.read_exact(&mut word)?;
            if &word == b"reset" {
                stream.write_all(b"last words")?;
                // Nobody reads the rest: closing would reset by itself, this is sure.
                reset_on_drop(&stream)?;
                return Ok(());
            }
            stream.write_all(&word)?;
            Ok(done.send(is_reset(&mut stream))?)
        })?;
        for address in [IpAddr::from(TARGET_V4), TARGET_V6.into()] {
            let mut stream = connect_to(world, address, 7000)?;
            says(&mut stream, "hello")?;
            reset_on_drop(&stream)?;
            drop(stream);
            assert!(results.recv_timeout(LIMIT)??, "the target saw an end");
        }
        closed(gateway, "the client reset the connection")?;

        let mut stream = connect(world, 7000)?;
        stream.write_all(b"reset")?;
        let mut words = [0; 10];
        stream.read_exact(&mut words)?;
        assert_eq!(&words, b"last words");
        assert!(is_reset(&mut stream)?, "the client saw an end");
        closed(gateway, "the target reset the connection")?;

        // Nobody listens there.
        assert!(is_refused(world, 6379)?);
        closed(
            gateway,
            "the target was not reached: it refuses connections",
        )?;
        Ok(())
    })
}

/// A reset reaches the other side also while that is not read, because it takes nothing.
#[test]
fn a_reset_overtakes_what_nobody_takes() -> Result<()> {
    with_gateway("pass-stuck", PASS, |world, gateway| {
        let (done, results) = mpsc::channel();
        Server::start(world, 7000, move |mut stream| {
            let all = vec![b'x'; 64 << 20];
            let start = Instant::now();
            let error = stream.write_all(&all).err().map(|error| error.kind());
            Ok(done.send((error, start.elapsed()))?)
        })?;
        let stream = connect(world, 7000)?;
        std::thread::sleep(Duration::from_secs(1));
        reset_on_drop(&stream)?;
        drop(stream);
        let (error, elapsed) = results.recv_timeout(LIMIT)?;
        assert_eq!(error, Some(io::ErrorKind::ConnectionReset));
        assert!(elapsed < Duration::from_secs(5), "{elapsed:?}");
        closed(gateway, "the client reset the connection")?;
        Ok(())
    })
}

#[test]
fn a_slow_reader_bounds_memory() -> Result<()> {
    const BYTES: u64 = 512 << 20;
    /// What the gateway may hold for it, beyond what it holds anyway.
    const MORE_KIB_MAX: u64 = 8 << 10;
    with_gateway("pass-slow", PASS, |world, gateway| {
        let sent = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&sent);
        Server::start(world, 7000, move |mut stream| {
            let mut pattern = Pattern::default();
            for _ in 0..BYTES >> 20 {
                pattern.send(&mut stream, 1 << 20)?;
                counter.fetch_add(1 << 20, Ordering::SeqCst);
            }
            Ok(())
        })?;
        let before = gateway.memory_peak_kib()?;
        let mut stream = connect(world, 7000)?;
        std::thread::sleep(Duration::from_secs(3));
        let early = sent.load(Ordering::SeqCst);
        assert!(early < 64 << 20, "{early} bytes were taken for nobody");
        assert_eq!(Pattern::default().receive(&mut stream)?, BYTES);
        let peak = gateway.memory_peak_kib()?;
        println!("memory at its peak: {before} KiB before, {peak} KiB after");
        assert!(
            peak < before + MORE_KIB_MAX,
            "{before} KiB, then {peak} KiB"
        );
        Ok(())
    })
}

#[test]
fn two_gigabytes_both_ways_at_once() -> Result<()> {
    const BYTES: u64 = 2 << 30;
    fn both_ways(stream: &TcpStream) -> Result<()> {
        let mut writer = stream.try_clone()?;
        let mut reader = stream.try_clone()?;
        let writing = std::thread::spawn(move || -> Result<()> {
            Pattern::default().send(&mut writer, BYTES)?;
            Ok(writer.shutdown(Shutdown::Write)?)
        });
        let count = Pattern::default().receive(&mut reader)?;
        writing.join().expect("the writer panicked")?;
        ensure!(count == BYTES, "{count} bytes arrived");
        Ok(())
    }
    with_gateway("pass-large", PASS, |world, gateway| {
        let (done, results) = mpsc::channel();
        Server::start(
            world,
            7000,
            move |stream| Ok(done.send(both_ways(&stream))?),
        )?;
        let start = Instant::now();
        both_ways(&connect(world, 7000)?)?;
        results.recv_timeout(LIMIT)??;
        println!("2 GiB each way in {:?}", start.elapsed());
        let close = closed(gateway, "closed in order")?;
        assert_eq!(close["bytes_up"], BYTES);
        assert_eq!(close["bytes_down"], BYTES);
        Ok(())
    })
}

#[test]
fn a_thousand_idle_connections() -> Result<()> {
    const CONNECTIONS: usize = 1_000;
    with_gateway("pass-idle", PASS, |world, gateway| {
        Server::start(world, 7000, echo)?;
        let mut streams = vec![connect(world, 7000)?];
        says(&mut streams[0], "warm")?;
        let resident = || -> Result<u64> {
            let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.pid()?))?;
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
            let kib = line.context("no VmRSS")?.trim().trim_end_matches(" kB");
            Ok(kib.parse()?)
        };
        let before = resident()?;
        for _ in 1..CONNECTIONS {
            let mut stream = connect(world, 7000)?;
            says(&mut stream, "hello")?;
            streams.push(stream);
        }
        let after = resident()?;
        println!("{CONNECTIONS} idle connections: {before} KiB, then {after} KiB");
        assert_eq!(gateway.sessions()?.len(), CONNECTIONS);
        // 16 KiB for each, and they all still work.
        assert!(
            after - before < 16 * 1_000,
            "{before} KiB, then {after} KiB"
        );
        for stream in &mut streams {
            says(stream, "still there?")?;
        }
        Ok(())
    })
}

/// The death of the gateway must not look like the end of a stream.
#[test]
fn the_gateways_death_is_a_reset() -> Result<()> {
    with_gateway("pass-dead", PASS, |world, gateway| {
        let (done, results) = mpsc::channel();
        Server::start(world, 7000, move |mut stream| {
            let mut word = [0; 5];
            stream.read_exact(&mut word)?;
            stream.write_all(&word)?;
            Ok(done.send(is_reset(&mut stream))?)
        })?;
        let mut stream = connect(world, 7000)?;
        says(&mut stream, "hello")?;
        gateway.kill()?;
        assert!(is_reset(&mut stream)?, "the client saw an end");
        assert!(results.recv_timeout(LIMIT)??, "the target saw an end");
        assert!(connect(world, 7000).is_err(), "a dead gateway lets through");
        gateway.restart()?;
        says(&mut connect(world, 7000)?, "hello")
    })
}

#[test]
fn draining_it_goes_on_until_the_time_is_over() -> Result<()> {
    with_gateway("pass-drain", PASS, |world, gateway| {
        Server::start(world, 7000, echo)?;
        let mut stream = connect(world, 7000)?;
        says(&mut stream, "hello")?;
        gateway.terminate()?;
        wait_until("no more connections are taken", LIMIT, || {
            Ok(connect(world, 7000).is_err())
        })?;
        says(&mut stream, "still there?")?;
        gateway.terminate()?;
        assert!(is_reset(&mut stream)?);
        let status = gateway.wait(Duration::from_secs(15))?;
        assert!(status.success(), "{status}");
        let log = gateway.state_directory().join("audit");
        let tail = gateway.audit_in(&log, &["tail", "-n", "50", "--json"])?;
        let tail = tail.success()?;
        assert!(tail.contains("interceptor is shutting down"), "{tail}");
        Ok(())
    })
}

/// A pair of addresses that the target closed first is in TIME_WAIT on the gateway, and may come
/// again at once.
#[test]
fn a_port_can_be_used_again_at_once() -> Result<()> {
    with_gateway("pass-ports", PASS, |world, _| {
        Server::start(world, 7000, |mut stream| Ok(stream.write_all(b"hello")?))?;
        for round in 0..20 {
            let mut greeting = Vec::new();
            let mut stream = connect_when_free(world, 20_001)?;
            limit(&stream)?;
            stream.read_to_end(&mut greeting)?;
            assert_eq!(greeting, b"hello", "round {round}");
        }
        Ok(())
    })
}

/// The client's own end of the connection before waits for the last acknowledgement, and a FIN that a
/// busy machine drops comes again only after its timeout: until then the client's kernel refuses the
/// pair. No SYN goes out for that, so the gateway's part is tried the first time one can.
fn connect_when_free(world: &World, port: u16) -> Result<TcpStream> {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        match world.client.enter(|| from_port(port))? {
            Err(error) if is_taken(&error) && Instant::now() < end => {
                std::thread::sleep(Duration::from_millis(20));
            }
            tried => return tried,
        }
    }
}

fn is_taken(error: &anyhow::Error) -> bool {
    use nix::errno::Errno;
    error.downcast_ref::<Errno>() == Some(&Errno::EADDRNOTAVAIL)
}

fn from_port(port: u16) -> Result<TcpStream> {
    use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrIn, sockopt};
    let flags = SockFlag::empty();
    let socket = socket::socket(AddressFamily::Inet, SockType::Stream, flags, None)?;
    socket::setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    socket::setsockopt(&socket, sockopt::SendTimeout, &TimeVal::seconds(10))?;
    socket::bind(socket.as_raw_fd(), &SockaddrIn::new(10, 77, 1, 2, port))?;
    let peer = SockaddrIn::new(10, 77, 2, 2, 7000);
    socket::connect(socket.as_raw_fd(), &peer).with_context(|| format!("from port {port}"))?;
    Ok(socket.into())
}
