//! Severing by `ss`, which asks the kernel by netlink to end a socket, as kernels since 4.5 do.
//!
//! It sees neither who made a socket nor takes many at once; `sever` uses it where the kernel has no
//! better way. A dead predecessor's last bytes to a target are cut off, too.

use std::net::{IpAddr, SocketAddr};

use interceptor_common::{FlowKey, address_bytes};

use super::KernelError;
use super::sever::Plan;
use super::tool::Tool;

/// Connections that one call ends.
const BATCH_MAX: usize = 100;

/// A connected socket's two addresses.
type Connection = (SocketAddr, SocketAddr);

/// Severs in the network namespace of this thread.
pub(super) fn sever(plan: &Plan<'_>, room: usize) -> Result<Vec<Connection>, KernelError> {
    let mut ended: Vec<Connection> = Vec::new();
    for protocol in ["-t", "-u"] {
        let found = list(protocol, plan.config.mark_local, plan.config.mark_mask)?;
        let doomed: Vec<Connection> = found
            .into_iter()
            .filter(|(_, remote)| plan.is_target(*remote))
            .take(room.saturating_sub(ended.len()))
            .collect();
        for (local, remote) in &doomed {
            plan.let_reset_pass(&FlowKey {
                source: address_bytes(local.ip()),
                destination: address_bytes(remote.ip()),
                source_port: local.port(),
                destination_port: remote.port(),
            })?;
        }
        for batch in doomed.chunks(BATCH_MAX) {
            end(protocol, batch)?;
        }
        ended.extend(doomed);
    }
    Ok(ended)
}

/// Connected sockets without the mark of steered ones.
fn list(protocol: &str, mark: u32, mask: u32) -> Result<Vec<Connection>, KernelError> {
    let filter = format!("not fwmark = {mark:#x}/{mask:#x}");
    let states = "established syn-sent fin-wait-1 fin-wait-2 close-wait last-ack closing";
    let mut arguments = vec!["-H", "-n", "-a", protocol];
    for state in states.split(' ') {
        arguments.extend(["state", state]);
    }
    arguments.push(&filter);
    let output = Tool::Ss.run(&arguments, "")?;
    Ok(String::from_utf8_lossy(&output)
        .lines()
        .filter_map(connection)
        .collect())
}

/// The addresses in a line: the last two words that have a port.
fn connection(line: &str) -> Option<Connection> {
    let mut addresses = line.split_whitespace().filter_map(address);
    Some((addresses.next()?, addresses.next()?))
}

/// `10.0.0.1%eth0:80`, `[::ffff:10.0.0.1]:80`.
fn address(word: &str) -> Option<SocketAddr> {
    let (host, port) = word.rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let host = host.split('%').next()?.trim_end_matches(']');
    let host: IpAddr = host.parse().ok()?;
    Some(SocketAddr::new(host.to_canonical(), port.parse().ok()?))
}

fn end(protocol: &str, connections: &[Connection]) -> Result<(), KernelError> {
    let each: Vec<String> = connections
        .iter()
        .map(|(local, remote)| {
            let (from, to) = (host(local.ip()), host(remote.ip()));
            let (sport, dport) = (local.port(), remote.port());
            format!("( src {from} and sport = :{sport} and dst {to} and dport = :{dport} )")
        })
        .collect();
    let filter = each.join(" or ");
    Tool::Ss
        .run(&["-K", "-H", "-n", "-a", protocol, &filter], "")
        .map(drop)
}

fn host(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("[{v6}]"),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::net::{TcpListener, TcpStream};

    use nix::sched::{CloneFlags, unshare};

    use super::*;

    #[test]
    fn lines_of_every_form_are_read() {
        for (line, local, remote) in [
            (
                "ESTAB 0 0 10.0.0.1:50000 10.0.0.2:5432",
                "10.0.0.1:50000",
                "10.0.0.2:5432",
            ),
            (
                "0 0 [fd00::1]:50000 [fd00::2]:5432 ",
                "[fd00::1]:50000",
                "[fd00::2]:5432",
            ),
            (
                "ESTAB 0 0 [::ffff:10.0.0.1]:5 [::ffff:10.0.0.2]:6",
                "10.0.0.1:5",
                "10.0.0.2:6",
            ),
            (
                "ESTAB 0 0 10.0.0.1%eth0:68 10.0.0.2:67",
                "10.0.0.1:68",
                "10.0.0.2:67",
            ),
            (
                "ESTAB 0 0 [fe80::1]%eth0:5 [fe80::2]:6",
                "[fe80::1]:5",
                "[fe80::2]:6",
            ),
        ] {
            let expected = (local.parse().unwrap(), remote.parse().unwrap());
            assert_eq!(connection(line), Some(expected), "{line}");
        }
        assert_eq!(connection("LISTEN 0 128 0.0.0.0:80 0.0.0.0:*"), None);
    }

    /// In a network namespace of its own, which ends with the thread. Needs root.
    #[test]
    fn it_ends_what_it_is_given_and_nothing_else() {
        std::thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("this test needs root");
            Tool::Ip.run(&["link", "set", "lo", "up"], "").unwrap();
            for address in ["127.0.0.1:5432", "[::1]:5432"] {
                let listener = TcpListener::bind(address).unwrap();
                let mut clients = [(); 2].map(|()| TcpStream::connect(address).unwrap());
                let _servers = [(); 2].map(|()| listener.accept().unwrap());
                let doomed = (
                    clients[0].local_addr().unwrap(),
                    clients[0].peer_addr().unwrap(),
                );
                let found = list("-t", 1, 1).unwrap();
                assert!(found.contains(&doomed), "{found:?}");
                end("-t", &[doomed]).unwrap();
                let ended = clients[0].read(&mut [0]).unwrap_err();
                assert_eq!(ended.kind(), std::io::ErrorKind::ConnectionAborted);
                clients[1].set_nonblocking(true).unwrap();
                let other = clients[1].read(&mut [0]).unwrap_err();
                assert_eq!(other.kind(), std::io::ErrorKind::WouldBlock);
                assert!(!list("-t", 1, 1).unwrap().contains(&doomed));
            }
        })
        .join()
        .unwrap();
    }
}
