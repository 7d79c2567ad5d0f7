//! A connection's socket, with an eye on whose turn it is: a request's head half sent, an answer not yet out.
//!
//! hyper closes a connection whose head is late without a word, and refuses one that is not HTTP or too long with a
//! status and nothing more. Both are said here: a client that sent half a head is told 408, one that was merely idle
//! is not; a refusal of hyper's gets a body that says what is wrong.

use super::connection::{Closing, Connection};
use super::http::{REQUEST_ID, Reply, ReplyContent};
use super::probes;
use super::transfers::{Abort, Outgoing, PIECE_BYTES, Transfer};
use crate::policy::settings::Limits;
use bytes::Bytes;
use hyper::Response;
use hyper::body::{Body, Frame, SizeHint};
use hyper::header::HeaderValue;
use std::convert::Infallible;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Answers of so many bytes go out as one piece: to put them together costs less than to send pieces.
const SMALL_BYTES: usize = 1024;

/// An answer's content. Its end is the end of the answer.
pub(super) struct ReplyBody {
    content: ReplyContent,
    connection: Arc<Connection>,
    /// Data that is counted until it was sent. It comes before the rest of the content.
    large: Option<Box<Outgoing>>,
}

impl ReplyBody {
    pub fn of(reply: Reply, connection: Arc<Connection>) -> Response<Self> {
        let (head, content) = reply.into_parts();
        let mut answer = ReplyBody { content, connection, large: None };
        if let ReplyContent::Whole(data) = &mut answer.content
            && data.len() > PIECE_BYTES
        {
            let data = std::mem::take(data);
            answer.content = ReplyContent::Empty;
            let counted = answer.counted(data, head.headers.get(REQUEST_ID).cloned());
            match counted {
                Ok(outgoing) => answer.large = Some(Box::new(outgoing)),
                Err(data) => answer.content = ReplyContent::Whole(data),
            }
        }
        Response::from_parts(head, answer)
    }

    /// Counts data, unless nothing is counted on this connection.
    fn counted(&self, data: Bytes, request_id: Option<HeaderValue>) -> Result<Outgoing, Bytes> {
        let Some(transfers) = self.connection.transfers() else { return Err(data) };
        let connection: Arc<dyn Abort> = Arc::clone(&self.connection) as Arc<dyn Abort>;
        let transfer = Transfer::answer(transfers, connection, request_id);
        Ok(Outgoing::new(&transfer, data.len(), data))
    }
}

impl Drop for ReplyBody {
    fn drop(&mut self) {
        self.connection.answer_made();
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let answer = &mut *self;
        if let Some(piece) = answer.large.as_mut().and_then(|large| large.next()) {
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        answer.large = None;
        let frame = match std::task::ready!(Pin::new(&mut answer.content).poll_frame(task)) {
            Some(Ok(frame)) => frame,
            end => return Poll::Ready(end),
        };
        if frame.data_ref().is_none_or(|data| data.len() <= PIECE_BYTES) {
            return Poll::Ready(Some(Ok(frame)));
        }
        // The rest of a stream: whole answers were counted before.
        let data = frame.into_data().unwrap_or_default();
        let data = match answer.counted(data, None) {
            Ok(mut outgoing) => {
                let first = outgoing.next().unwrap_or_default();
                answer.large = Some(Box::new(outgoing));
                first
            }
            Err(data) => data,
        };
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.large.as_ref().is_none_or(|large| large.left() == 0) && self.content.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.large {
            Some(large) if self.content.is_end_stream() => SizeHint::with_exact(large.left() as u64),
            _ => self.content.size_hint(),
        }
    }
}

pub(super) struct WatchedStream {
    stream: TcpStream,
    connection: Arc<Connection>,
    header_bytes_max: usize,
    /// What is said in place of a refusal of hyper's, as far as it is not out.
    refusal: Option<Bytes>,
}

impl WatchedStream {
    pub fn new(stream: TcpStream, connection: Arc<Connection>, limits: &Limits) -> Self {
        WatchedStream { stream, connection, header_bytes_max: limits.max_header_bytes, refusal: None }
    }

    /// What hyper says while no answer is owed is its refusal of a head: a status and no body.
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
        Some(said(status, kind, &message, self.connection.is_oip()))
    }

    /// Writes what is left of the refusal. Ready once all of it is out.
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

    /// True where what hyper writes is not what goes out.
    fn takes_over(&mut self, written: &[u8]) -> bool {
        if self.refusal.is_none() {
            self.refusal = self.refusal_for(written);
        }
        self.refusal.is_some()
    }
}

impl Drop for WatchedStream {
    fn drop(&mut self) {
        if self.connection.closing() == Some(Closing::Unread) {
            // What its client has not taken is not kept by the system either.
            let _ = self.stream.set_zero_linger();
        }
        if self.connection.head_is_late() {
            let message = "the request's headers did not arrive in time";
            let is_oip = self.connection.is_oip();
            let _ = self.stream.try_write(&said("408 Request Timeout", "deadline", message, is_oip));
        }
    }
}

/// Answers a connection over the limit, without reading its request. Best effort: a client that does not read is not
/// waited for.
pub(super) fn refuse(stream: &TcpStream, max_connections: usize) {
    let _ = stream.try_write(&said(
        "503 Service Unavailable",
        "overloaded",
        &probes::message(max_connections),
        false,
    ));
}

/// A whole answer, the last of its connection.
fn said(status: &str, kind: &str, message: &str, is_oip: bool) -> Bytes {
    let body = match is_oip {
        true => format!("{{\"error\":\"{message}\"}}"),
        false => format!("{{\"error\":{{\"kind\":\"{kind}\",\"message\":\"{message}\"}}}}"),
    };
    let length = body.len();
    let retry = if status.starts_with("503") { "retry-after: 1\r\n" } else { "" };
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\n{retry}content-length: {length}\r\n\
         connection: close\r\n\r\n"
    );
    (head + &body).into()
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
            self.connection.read(&buf.filled()[before..]);
        }
        read
    }
}

impl AsyncWrite for WatchedStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.takes_over(buf) {
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
        if first.is_some_and(|first| self.takes_over(first)) {
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
