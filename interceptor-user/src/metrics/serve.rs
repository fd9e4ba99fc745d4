//! `interceptor run --metrics`: an HTTP endpoint for scrapers.
//!
//! It owns the limits of that: few connections, small heads, little time, one request each.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

/// Connections at the same time; more wait.
pub const CONNECTIONS_MAX: usize = 16;

/// The largest head of a request.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;

/// How long the head may take to come.
const HEAD_WAIT_MAX: Duration = Duration::from_secs(5);

/// How long a connection lives.
pub const CONNECTION_MAX: Duration = Duration::from_secs(15);

/// How long it waits when the system has no descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const FORMAT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Gives the text to serve. It may block.
pub type Render = Arc<dyn Fn() -> String + Send + Sync>;

/// Opens the listening socket.
///
/// # Errors
/// If the address is another program's, or not this host's.
pub fn bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    // In an upgrade, the new process begins before the old one has left.
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    socket.listen(128)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Answers `GET /metrics` until it is dropped.
///
/// # Errors
/// If the socket cannot be used.
pub async fn serve(listener: std::net::TcpListener, render: Render) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let permit = Arc::clone(&permits).acquire_owned().await;
        let permit = permit.map_err(io::Error::other)?;
        match listener.accept().await {
            Ok((stream, _)) => {
                let render = Arc::clone(&render);
                tokio::spawn(async move {
                    let _permit = permit;
                    // Who is too slow, or speaks otherwise, is let go without a word.
                    let _ = timeout(CONNECTION_MAX, converse(stream, render)).await;
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection to the metrics was not accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn converse(stream: TcpStream, render: Render) -> Result<(), hyper::Error> {
    let service = service_fn(move |request| answer(request, Arc::clone(&render)));
    hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WAIT_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await
}

async fn answer(
    request: Request<Incoming>,
    render: Render,
) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.uri().path() != "/metrics" {
        return Ok(short(
            StatusCode::NOT_FOUND,
            "the metrics are at /metrics\n",
        ));
    }
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut refusal = short(StatusCode::METHOD_NOT_ALLOWED, "GET only\n");
        let methods = HeaderValue::from_static("GET, HEAD");
        refusal.headers_mut().insert(ALLOW, methods);
        return Ok(refusal);
    }
    Ok(match tokio::task::spawn_blocking(move || render()).await {
        Ok(text) => {
            let mut response = Response::new(Full::new(Bytes::from(text)));
            let format = HeaderValue::from_static(FORMAT);
            response.headers_mut().insert(CONTENT_TYPE, format);
            response
        }
        Err(_) => short(StatusCode::INTERNAL_SERVER_ERROR, "see the gateway's log\n"),
    })
}

fn short(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    fn start() -> SocketAddr {
        let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve(listener, Arc::new(|| "a 1\n# EOF\n".to_owned())));
        address
    }

    async fn ask(address: SocketAddr, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request).await.unwrap();
        let mut answer = Vec::new();
        // The end may be a reset, where bytes were left unread.
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8(answer).unwrap()
    }

    #[tokio::test]
    async fn it_serves_one_page_and_nothing_else() {
        let address = start();
        let page = ask(address, b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert!(page.starts_with("HTTP/1.1 200 OK\r\n"), "{page}");
        assert!(page.contains("application/openmetrics-text"), "{page}");
        assert!(page.ends_with("\r\n\r\na 1\n# EOF\n"), "{page}");
        let other = ask(address, b"GET /etc/passwd HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert!(other.starts_with("HTTP/1.1 404 "), "{other}");
        let post = ask(
            address,
            b"POST /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
        );
        let post = post.await;
        assert!(post.starts_with("HTTP/1.1 405 "), "{post}");
    }

    #[tokio::test]
    async fn a_head_has_a_limit_and_garbage_is_no_request() {
        let address = start();
        let mut long = b"GET /metrics HTTP/1.1\r\nX: ".to_vec();
        long.resize(HEAD_BYTES_MAX * 4, b'x');
        let refused = ask(address, &long).await;
        assert!(!refused.contains("200 OK"), "{refused}");
        let refused = ask(address, b"\0\xff\r\n\r\n").await;
        assert!(!refused.contains("200 OK"), "{refused}");
        assert!(
            ask(address, b"GET /metrics HTTP/1.0\r\n\r\n")
                .await
                .contains("# EOF")
        );
    }

    /// So many are open and say nothing: who comes then waits for the end of one of them.
    #[tokio::test]
    async fn silent_connections_are_few_and_end() {
        let address = start();
        let mut silent = Vec::new();
        for _ in 0..CONNECTIONS_MAX {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        let asked = ask(address, b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n");
        let mut asked = std::pin::pin!(asked);
        let waits = timeout(Duration::from_millis(500), &mut asked).await;
        assert!(waits.is_err());
        // Each has the time of a head.
        let answered = timeout(HEAD_WAIT_MAX * 3, asked).await.unwrap();
        assert!(answered.contains("# EOF"), "{answered}");
    }
}
