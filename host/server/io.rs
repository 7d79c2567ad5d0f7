//! A connection's socket, with an eye on whether a request's head is half sent.
//!
//! hyper closes a connection whose head is late without a word. A client that sent half a head is told 408;
//! one that was merely idle is not.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

const IDLE: u8 = 0;
const STARTED: u8 = 1;
const LATE: u8 = 2;

pub(super) struct Head(AtomicU8);

impl Head {
    /// The head was read whole.
    pub fn complete(&self) {
        self.0.store(IDLE, Ordering::Relaxed);
    }

    /// The time for the head is over.
    pub fn timed_out(&self) {
        let _ = self.0.compare_exchange(STARTED, LATE, Ordering::Relaxed, Ordering::Relaxed);
    }
}

pub(super) struct Watched {
    stream: TcpStream,
    head: Arc<Head>,
}

impl Watched {
    pub fn new(stream: TcpStream) -> (Self, Arc<Head>) {
        let head = Arc::new(Head(AtomicU8::new(IDLE)));
        (Watched { stream, head: Arc::clone(&head) }, head)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if self.head.0.load(Ordering::Relaxed) == LATE {
            say(
                &self.stream,
                "408 Request Timeout",
                "deadline",
                "the request's headers did not arrive in time",
            );
        }
    }
}

/// Answers a connection over the limit, without reading its request.
pub(super) fn refuse(stream: &TcpStream, max_connections: usize) {
    let message = format!("all {max_connections} connections of this host are in use");
    say(stream, "503 Service Unavailable", "overloaded", &message);
}

/// Best effort: a client that does not read is not waited for.
fn say(stream: &TcpStream, status: &str, kind: &str, message: &str) {
    let body = format!("{{\"error\":{{\"kind\":\"{kind}\",\"message\":\"{message}\"}}}}");
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
    );
    let _ = stream.try_write((head + &body).as_bytes());
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.head.0.store(STARTED, Ordering::Relaxed);
        }
        read
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
