//! A connection that io_uring makes: at once, on a worker thread, or on the kernel's polling thread.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd as _;

use io_uring::squeue::Flags;
use io_uring::{IoUring, opcode, types};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

pub(crate) fn connect(way: &str, address: SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap();
    let mut ring: IoUring = match way {
        "polled" => IoUring::builder().setup_sqpoll(1000).build(4).unwrap(),
        _ => IoUring::new(4).unwrap(),
    };
    let address = SockAddr::from(address);
    let flags = if way == "worker" {
        Flags::ASYNC
    } else {
        Flags::empty()
    };
    let entry = opcode::Connect::new(
        types::Fd(socket.as_raw_fd()),
        address.as_ptr().cast(),
        address.len(),
    )
    .build()
    .flags(flags);
    // SAFETY: socket and address live until the completion has come.
    unsafe { ring.submission().push(&entry).unwrap() };
    ring.submit_and_wait(1).unwrap();
    let completion = ring.completion().next().unwrap();
    assert_eq!(completion.result(), 0, "connect");
    let mut stream = TcpStream::from(socket);
    let mut answer = [0; 5];
    stream.write_all(b"hello").unwrap();
    stream.read_exact(&mut answer).unwrap();
    println!("connected");
    let _ = std::io::stdin().read(&mut answer);
}
