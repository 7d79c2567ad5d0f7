//! The socket of an HTTP/1.1 connection, which notes whether a request's head is half received and
//! whether an answer is not yet sent.
//!
//! hyper refuses a head that is malformed or too long with a bare status. This socket does not send
//! that, but remembers it: the end of the connection (`end`) sends a reply that says what is wrong.

use crate::server::connection::Connection;
use crate::server::socket::Socket;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Writes up to this size are copied into one piece, which costs less than a vectored write.
const SMALL_BYTES: usize = 1024;

pub(super) struct WatchedStream {
    pub stream: Socket,
    connection: Arc<Connection>,
    /// The status of hyper's refusal of a head, which was not sent.
    pub refusal: Option<u16>,
}

impl WatchedStream {
    pub fn new(stream: Socket, connection: Arc<Connection>) -> Self {
        WatchedStream { stream, connection, refusal: None }
    }

    /// Whether `written` belongs to hyper's refusal of a head. hyper writes nothing else while no
    /// answer is owed.
    fn is_refusal(&mut self, written: &[u8]) -> bool {
        if self.refusal.is_none() && !self.connection.owes_answer() {
            self.refusal = status_of(written).filter(|status| matches!(status, 400 | 414 | 431));
        }
        self.refusal.is_some()
    }
}

/// Returns the status of a reply that begins with these bytes.
fn status_of(reply: &[u8]) -> Option<u16> {
    let status = reply.strip_prefix(b"HTTP/1.")?.get(2..5)?;
    std::str::from_utf8(status).ok()?.parse().ok()
}

impl AsyncRead for WatchedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.connection.received(&buf.filled()[before..]);
        }
        read
    }
}

impl AsyncWrite for WatchedStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.is_refusal(buf) {
            return Poll::Ready(Ok(buf.len()));
        }
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.connection.write_polled(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let first = bufs.iter().find(|buf| !buf.is_empty());
        let length = bufs.iter().map(|buf| buf.len()).sum();
        if first.is_some_and(|first| self.is_refusal(first)) {
            return Poll::Ready(Ok(length));
        }
        let written = if length <= SMALL_BYTES {
            let (mut whole, mut end) = ([0; SMALL_BYTES], 0);
            for buf in bufs {
                whole[end..][..buf.len()].copy_from_slice(buf);
                end += buf.len();
            }
            Pin::new(&mut self.stream).poll_write(cx, &whole[..end])
        } else {
            Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
        };
        self.connection.write_polled(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        // Over TLS, bytes that were written may wait to be sent.
        self.connection.write_polled(&flushed);
        if flushed.is_ready() {
            self.connection.flushed();
        }
        flushed
    }

    /// Does nothing: `end` shuts the socket down, and may have to send a reply before.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
