//! A stream for libraries that wait by polling: the side connections' client of PostgreSQL.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Stream;

/// A stream with what was read from it and not yet taken.
pub(in crate::gateway) struct Polled {
    stream: Stream,
    read: BytesMut,
}

impl Polled {
    pub(in crate::gateway) fn new(stream: Stream) -> Self {
        Self {
            stream,
            read: BytesMut::new(),
        }
    }
}

impl AsyncRead for Polled {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { stream, read } = &mut *self;
        while read.is_empty() {
            if ready!(stream.poll_read(context, read))? == 0 {
                return Poll::Ready(Ok(()));
            }
        }
        let taken = read.split_to(read.len().min(buffer.remaining()));
        buffer.put_slice(&taken);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Polled {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.stream.poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(encryption) = &mut self.stream.encryption {
            encryption.say_farewell()?;
        }
        ready!(self.stream.poll_flush(context))?;
        Pin::new(&mut self.stream.socket).poll_shutdown(context)
    }
}
