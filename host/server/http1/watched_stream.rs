//! The socket of an HTTP/1.1 connection, which notes whether a request's head is half received and
//! whether an answer is not yet sent.
//!
//! hyper closes a connection whose head is late without a reply, and refuses a head that is
//! malformed or too long with a bare status. This socket adds a reply to both: a client that sent
//! half a head gets a 408, one that was merely idle does not, and a refusal of hyper's gets a body
//! that says what is wrong.

use super::raw_reply::raw_reply;
use crate::policy::settings::Limits;
use crate::server::connection::{Closing, Connection};
use bytes::Bytes;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Writes up to this size are copied into one piece, which costs less than a vectored write.
const SMALL_BYTES: usize = 1024;

pub(super) struct WatchedStream {
    stream: TcpStream,
    connection: Arc<Connection>,
    header_bytes_max: usize,
    /// The unsent rest of the reply that replaces a refusal of hyper's.
    refusal: Option<Bytes>,
}

impl WatchedStream {
    pub fn new(stream: TcpStream, connection: Arc<Connection>, limits: &Limits) -> Self {
        WatchedStream { stream, connection, header_bytes_max: limits.max_header_bytes, refusal: None }
    }

    /// Returns the reply that replaces `written`, if that is hyper's refusal of a head. hyper
    /// writes nothing else while no answer is owed.
    fn refusal_for(&self, written: &[u8]) -> Option<Bytes> {
        if self.connection.owes_answer() {
            return None;
        }
        let status = written.strip_prefix(b"HTTP/1.1 ")?.get(..3)?;
        let max_kb = self.header_bytes_max >> 10;
        let (status, kind, message) = match status {
            b"400" => {
                let message = "the request is not HTTP/1.1: see its first line and its headers".to_owned();
                ("400 Bad Request", "invalid_input", message)
            }
            b"414" => ("414 URI Too Long", "too_large", "the path is over 64 KB".to_owned()),
            b"431" => {
                let message = format!(
                    "the request's head is over {max_kb} KB (see max_header_kb) or has more than 100 headers"
                );
                ("431 Request Header Fields Too Large", "too_large", message)
            }
            _ => return None,
        };
        Some(raw_reply(status, kind, &message, self.connection.is_oip()))
    }

    /// Writes the rest of the refusal. Ready once all of it is written.
    fn poll_refusal(&mut self, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.refusal.as_mut().filter(|rest| !rest.is_empty()) {
            match Pin::new(&mut self.stream).poll_write(task, rest) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(count)) => drop(rest.split_to(count)),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Whether a refusal is sent in place of what hyper writes.
    fn is_replaced(&mut self, written: &[u8]) -> bool {
        if self.refusal.is_none() {
            self.refusal = self.refusal_for(written);
        }
        self.refusal.is_some()
    }
}

impl Drop for WatchedStream {
    fn drop(&mut self) {
        if self.connection.closing() == Some(Closing::Unread) {
            // The system must not keep the bytes that the client has not taken.
            let _ = self.stream.set_zero_linger();
        }
        if self.connection.head_is_late() {
            let message = "the request's headers did not arrive in time";
            let is_oip = self.connection.is_oip();
            let _ = self.stream.try_write(&raw_reply("408 Request Timeout", "deadline", message, is_oip));
        }
    }
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
        if self.is_replaced(buf) {
            return self.poll_refusal(cx).map_ok(|()| buf.len());
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
        if first.is_some_and(|first| self.is_replaced(first)) {
            return self.poll_refusal(cx).map_ok(|()| length);
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
        self.connection.flushed();
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
