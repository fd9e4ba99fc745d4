//! Two machines joined by buffers: any cut of the bytes gives the same.

use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::server::NoServerSessionStorage;
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion, version};

use super::*;
use crate::tls;

struct Pair {
    client: Encryption,
    server: Encryption,
    to_client: BytesMut,
    to_server: BytesMut,
}

impl Pair {
    fn new(version: &'static SupportedProtocolVersion) -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(["db.test".to_owned()]).unwrap();
        let certificate = certificate.self_signed(&key).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(certificate.der().clone()).unwrap();
        let client = ClientConfig::builder_with_provider(tls::provider())
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let mut server = ServerConfig::builder_with_provider(tls::provider())
            .with_protocol_versions(&[version])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        server.session_storage = Arc::new(NoServerSessionStorage {});
        let name = ServerName::try_from("db.test").unwrap();
        let client = UnbufferedClientConnection::new(Arc::new(client), name).unwrap();
        let server = UnbufferedServerConnection::new(Arc::new(server)).unwrap();
        let mut pair = Self {
            client: Encryption::client(client),
            server: Encryption::server(server),
            to_client: BytesMut::new(),
            to_server: BytesMut::new(),
        };
        pair.client.decrypt(&mut pair.to_client).unwrap();
        pair
    }

    /// Carries what is to go out, in pieces of these sizes, until nothing moves.
    fn carry(&mut self, pieces: &mut impl FnMut() -> usize) {
        loop {
            let up = carry(
                &mut self.client,
                &mut self.server,
                &mut self.to_server,
                pieces,
            );
            let down = carry(
                &mut self.server,
                &mut self.client,
                &mut self.to_client,
                pieces,
            );
            if !up && !down {
                return;
            }
        }
    }

    fn shake_hands(&mut self, pieces: &mut impl FnMut() -> usize) {
        self.carry(pieces);
        assert!(!self.client.is_handshaking() && !self.server.is_handshaking());
    }
}

fn carry(
    from: &mut Encryption,
    to: &mut Encryption,
    plain: &mut BytesMut,
    pieces: &mut impl FnMut() -> usize,
) -> bool {
    let mut moved = false;
    while from.wants_write() {
        let outgoing = from.outgoing();
        let piece = outgoing.split_to(pieces().clamp(1, outgoing.len()));
        to.incoming().extend_from_slice(&piece);
        to.decrypt(plain).unwrap();
        moved = true;
    }
    moved
}

const VERSIONS: [&SupportedProtocolVersion; 2] = [&version::TLS12, &version::TLS13];

fn text(size: usize) -> Vec<u8> {
    (0..size).map(|at| (at % 251) as u8).collect()
}

/// Sends all of it, however it is taken.
fn send(pair: &mut Pair, text: &[u8], pieces: &mut impl FnMut() -> usize) {
    let mut rest = text;
    while !rest.is_empty() {
        let taken = pair.client.encrypt(rest).unwrap();
        rest = &rest[taken..];
        pair.carry(pieces);
    }
}

#[test]
fn one_byte_at_a_time_is_as_all_at_once() {
    for version in VERSIONS {
        for size in [1, 2, 3, 7, 100, 16 << 10, 1 << 20] {
            let mut pieces = || size;
            let mut pair = Pair::new(version);
            pair.shake_hands(&mut pieces);
            let sent = text(if size < 100 { 20_000 } else { 200_000 });
            send(&mut pair, &sent, &mut pieces);
            assert_eq!(pair.to_server, sent);
            assert_eq!(pair.server.encrypt(b"an answer").unwrap(), 9);
            pair.carry(&mut pieces);
            assert_eq!(&pair.to_client[..], b"an answer");
        }
    }
}

#[test]
fn any_cut_is_as_all_at_once() {
    let mut state = 1_u64;
    let mut random = move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 33) as usize
    };
    for version in VERSIONS {
        for _ in 0..50 {
            let most = 1 << (random() % 15);
            let mut pieces = || 1 + random() % most;
            let mut pair = Pair::new(version);
            pair.shake_hands(&mut pieces);
            let sent = text(50_000);
            send(&mut pair, &sent, &mut pieces);
            assert_eq!(pair.to_server, sent);
        }
    }
}

#[test]
fn nothing_goes_out_before_the_handshake_is_over() {
    let mut pair = Pair::new(&version::TLS13);
    assert_eq!(pair.client.encrypt(b"secret").unwrap(), 0);
    pair.shake_hands(&mut || usize::MAX);
    assert_eq!(pair.client.encrypt(b"secret").unwrap(), 6);
    assert!(
        !pair
            .client
            .outgoing()
            .windows(6)
            .any(|part| part == b"secret")
    );
}

#[test]
fn an_idle_connection_keeps_no_buffers() {
    let mut pair = Pair::new(&version::TLS13);
    let mut pieces = || usize::MAX;
    pair.shake_hands(&mut pieces);
    send(&mut pair, &text(1_000_000), &mut pieces);
    for side in [&mut pair.client, &mut pair.server] {
        side.release();
        assert_eq!(
            (side.incoming().capacity(), side.outgoing().capacity()),
            (0, 0)
        );
    }
}

#[test]
fn a_farewell_is_an_end_and_silence_is_none() {
    for version in VERSIONS {
        let mut pair = Pair::new(version);
        pair.shake_hands(&mut || usize::MAX);
        assert!(!pair.server.is_over);
        pair.client.say_farewell().unwrap();
        pair.carry(&mut || 1);
        assert!(pair.server.is_over && !pair.client.is_over);
        // The other direction goes on.
        assert_eq!(pair.server.encrypt(b"still here").unwrap(), 10);
        pair.carry(&mut || usize::MAX);
        assert_eq!(&pair.to_client[..], b"still here");
    }
}

/// Garbage at any place is an error, is told to the peer, and never more than that.
#[test]
fn changed_bytes_are_an_error() {
    let mut state = 7_u64;
    let mut random = move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 33) as usize
    };
    for round in 0..400 {
        let mut pair = Pair::new(VERSIONS[round % 2]);
        let established = round % 4 >= 2;
        if established {
            pair.shake_hands(&mut || usize::MAX);
            assert_eq!(pair.client.encrypt(&text(40_000)).unwrap(), 40_000);
        }
        let mut bytes = pair.client.outgoing().split();
        let at = random() % bytes.len();
        bytes[at] ^= 1 << (random() % 8);
        let begin = pair.to_server.len();
        let mut failed = false;
        for piece in bytes.chunks(1 + random() % 5000) {
            pair.server.incoming().extend_from_slice(piece);
            failed |= pair.server.decrypt(&mut pair.to_server).is_err();
        }
        let read = &pair.to_server[begin..];
        assert!(
            text(40_000).starts_with(read),
            "garbage was taken for bytes"
        );
        if established {
            // A changed length may leave it waiting for more.
            assert!(failed || read.len() < 40_000);
        }
        if failed {
            assert!(pair.server.encrypt(b"more").is_err() || pair.server.is_handshaking());
        }
    }
}

#[test]
fn a_handshake_without_end_is_an_error() {
    let mut pair = Pair::new(&version::TLS13);
    // Parts of one ClientHello of 16 MiB.
    let mut begun = vec![22, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff];
    begun.resize(5 + 0x4000, 0);
    let mut next = vec![22, 3, 1, 0x40, 0];
    next.resize(5 + 0x4000, 0);
    let mut none = BytesMut::new();
    let mut refused = false;
    for piece in std::iter::once(begun).chain(std::iter::repeat_n(next, 64)) {
        pair.server.incoming().extend_from_slice(&piece);
        if pair.server.decrypt(&mut none).is_err() {
            refused = true;
            break;
        }
    }
    assert!(refused && none.is_empty());
    assert!(pair.server.incoming().len() < 200 << 10);
}

#[test]
fn bytes_that_are_no_tls_are_an_error() {
    for garbage in [
        &b"Q\0\0\0\x0dSELECT 1\0"[..],
        b"\0\0\0\x08\x04\xd2\x16\x2f",
        &[0; 100],
    ] {
        let mut pair = Pair::new(&version::TLS13);
        pair.server.incoming().extend_from_slice(garbage);
        assert!(pair.server.decrypt(&mut BytesMut::new()).is_err());
    }
}
