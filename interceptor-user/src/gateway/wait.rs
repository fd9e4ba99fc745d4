//! Small steps of waiting: sockets, times and futures that may not be there.

use std::future::Future;
use std::pin::Pin;
use std::task::Poll;
use std::time::Instant;

use super::stream::Stream;

/// Waits until a stream can be read; for ever if there is none. Cancel-safe.
pub(super) async fn readable(stream: Option<&Stream>) {
    match stream {
        Some(stream) => stream.readable().await,
        None => std::future::pending().await,
    }
}

/// Waits until a stream can be written; for ever if there is none. Cancel-safe.
pub(super) async fn writable(stream: Option<&Stream>) {
    match stream {
        Some(stream) => stream.writable().await,
        None => std::future::pending().await,
    }
}

/// Waits until a time; for ever if there is none. Cancel-safe.
pub(super) async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

/// The output of a future that may be there. It stays in its place.
pub(super) async fn some<F: Future + Unpin>(future: &mut Option<F>) -> F::Output {
    std::future::poll_fn(|context| match future {
        Some(future) => Pin::new(future).poll(context),
        None => Poll::Pending,
    })
    .await
}
