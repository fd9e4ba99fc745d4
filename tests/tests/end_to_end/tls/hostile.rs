//! Clients that do not keep to it.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use interceptor_tests::policies::OPEN;
use interceptor_tests::postgres::{DATABASE, Version};
use interceptor_tests::wire::{Wire, query, startup};
use interceptor_tests::world::TARGET_V4;
use interceptor_tests::{From, World, wait_until};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::{psql, with_authority};

const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
const GSS_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 48];

fn dial(world: &World) -> Result<TcpStream> {
    let stream = world.connect(TARGET_V4)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    Ok(stream)
}

fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut rest = Vec::new();
    // A reset is an end as well.
    let _ = stream.read_to_end(&mut rest);
    rest
}

fn connection(ca: &str, protocol: Option<&str>) -> Result<ClientConnection> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca)?)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocol.map(|name| name.into()).into_iter().collect();
    let name = ServerName::try_from(TARGET_V4.to_string())?;
    Ok(ClientConnection::new(Arc::new(config), name)?)
}

/// Encrypts, after having asked or at once.
fn encrypted(
    world: &World,
    ca: &str,
    asks: bool,
    protocol: Option<&str>,
) -> Result<StreamOwned<ClientConnection, TcpStream>> {
    let mut stream = dial(world)?;
    if asks {
        stream.write_all(&SSL_REQUEST)?;
        let mut answer = [0];
        stream.read_exact(&mut answer)?;
        ensure!(answer == *b"S", "{answer:?}");
    }
    Ok(StreamOwned::new(connection(ca, protocol)?, stream))
}

#[test]
fn bytes_out_of_order_are_refused() -> Result<()> {
    with_authority(
        Version::Debian,
        "tls-hostile",
        OPEN,
        |world, gateway, ca| {
            // Bytes behind the request, before its answer (CVE-2021-23222).
            let mut stream = dial(world)?;
            stream.write_all(&[&SSL_REQUEST[..], &startup("wire", DATABASE)].concat())?;
            let said = rest(&mut stream);
            ensure!(said.first() == Some(&b'E'), "{said:?}");
            ensure!(String::from_utf8_lossy(&said).contains("before its answer"));

            // After the yes nothing plain is taken, and nothing plain is said.
            for garbage in [
                &startup("wire", DATABASE)[..],
                &SSL_REQUEST,
                &query("SELECT 1"),
                &[0x16, 3, 1, 255, 255, 0],
            ] {
                let mut stream = dial(world)?;
                stream.write_all(&SSL_REQUEST)?;
                let mut answer = [0];
                stream.read_exact(&mut answer)?;
                assert_eq!(&answer, b"S");
                stream.write_all(garbage)?;
                let said = rest(&mut stream);
                // An alert of TLS at most.
                ensure!(said.is_empty() || said.first() == Some(&0x15), "{said:?}");
            }

            // Asked twice.
            let mut stream = dial(world)?;
            stream.write_all(&GSS_REQUEST)?;
            let mut answer = [0];
            stream.read_exact(&mut answer)?;
            assert_eq!(&answer, b"N");
            stream.write_all(&GSS_REQUEST)?;
            ensure!(String::from_utf8_lossy(&rest(&mut stream)).contains("came again"));

            // Half a ClientHello, and then the end.
            let mut stream = dial(world)?;
            stream.write_all(&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3])?;
            stream.shutdown(std::net::Shutdown::Write)?;
            ensure!(rest(&mut stream).is_empty());

            // Nothing of all that keeps others away, or reached the server.
            psql(world, "require")
                .setting("PGSSLROOTCERT", ca)
                .run("SELECT 1")?
                .success()?;
            ensure!(
                !world
                    .postgres
                    .network_log()?
                    .contains("invalid length of startup packet")
            );
            ensure!(gateway.is_alive()?);
            Ok(())
        },
    )
}

#[test]
fn who_begins_with_tls_says_which_protocol() -> Result<()> {
    with_authority(Version::Debian, "tls-alpn", OPEN, |world, gateway, ca| {
        for protocol in [None, Some("http/1.1")] {
            let mut stream = encrypted(world, ca, false, protocol)?;
            let done = stream
                .write_all(&startup("wire", DATABASE))
                .and_then(|()| stream.read(&mut [0; 1]));
            ensure!(!matches!(done, Ok(1..)), "{protocol:?}: {done:?}");
        }
        gateway.event("close", |event| {
            event["reason"]
                .as_str()
                .is_some_and(|reason| reason.contains("did not say that it means"))
        })?;
        // Who asks first need not say.
        for (asks, protocol) in [
            (true, None),
            (true, Some("postgresql")),
            (false, Some("postgresql")),
        ] {
            let mut stream = encrypted(world, ca, asks, protocol)?;
            stream.write_all(&startup("wire", DATABASE))?;
            let mut kind = [0];
            stream.read_exact(&mut kind).context("a reply")?;
            assert_eq!(&kind, b"R", "{asks} {protocol:?}");
        }
        Ok(())
    })
}

/// A connection that breaks off is no end: what it had begun is not taken for whole.
#[test]
fn a_truncated_stream_is_no_end() -> Result<()> {
    with_authority(Version::Debian, "tls-cut", OPEN, |world, gateway, ca| {
        let mut stream = encrypted(world, ca, true, None)?;
        stream.write_all(&startup("wire", DATABASE))?;
        let mut kind = [0];
        stream.read_exact(&mut kind)?;
        stream.sock.shutdown(std::net::Shutdown::Both)?;
        gateway.event("close", |event| {
            event["reason"]
                .as_str()
                .is_some_and(|reason| reason.contains("unexpected end of file"))
        })?;
        let mut stream = encrypted(world, ca, true, None)?;
        stream.write_all(&startup("wire", DATABASE))?;
        stream.read_exact(&mut kind)?;
        stream.conn.send_close_notify();
        stream.flush()?;
        gateway.event("close", |event| {
            event["reason"] == "the client closed the connection"
        })?;
        Ok(())
    })
}

/// A cancel request over TLS, as those of newer clients are.
#[test]
fn a_cancel_request_comes_encrypted() -> Result<()> {
    with_authority(Version::Debian, "tls-key-data", OPEN, |world, _, ca| {
        let mut session = encrypted(world, ca, true, None)?;
        session.write_all(&startup("wire", DATABASE))?;
        let mut key = None;
        loop {
            let (kind, body) = message(&mut session)?;
            match kind {
                b'K' => key = Some(body),
                b'Z' => break,
                _ => {}
            }
        }
        let key = key.context("a key to cancel with")?;
        session.write_all(&query("SELECT pg_sleep(63)"))?;
        wait_until("the query runs", Duration::from_secs(20), || {
            world.postgres.has_seen("SELECT pg_sleep(63)")
        })?;
        let mut cancel = encrypted(world, ca, true, None)?;
        cancel.write_all(&[&[0, 0, 0, 16, 4, 210, 22, 46][..], &key].concat())?;
        let error = loop {
            match message(&mut session)? {
                (b'E', body) => break body,
                (b'Z', _) => bail!("the query was not cancelled"),
                _ => {}
            }
        };
        let text = String::from_utf8_lossy(&error);
        ensure!(text.contains("due to user request"), "{text}");
        Ok(())
    })
}

fn message(stream: &mut impl std::io::Read) -> Result<(u8, Vec<u8>)> {
    let mut head = [0; 5];
    stream.read_exact(&mut head)?;
    let [kind, length @ ..] = head;
    let length = usize::try_from(u32::from_be_bytes(length))?;
    let mut body = vec![0; length.saturating_sub(4)];
    stream.read_exact(&mut body)?;
    Ok((kind, body))
}

/// In plain the machine says so; the harness' own client sees it.
#[test]
fn a_plain_client_is_served_beside() -> Result<()> {
    with_authority(Version::Debian, "tls-beside", OPEN, |world, _, _| {
        let mut wire = Wire::new(world.connect(TARGET_V4)?)?;
        wire.log_in()?;
        wire.query("SELECT 1")?;
        world
            .psql(From::Local)
            .setting("PGSSLMODE", "disable")
            .run("SELECT 1")?
            .success()?;
        Ok(())
    })
}
