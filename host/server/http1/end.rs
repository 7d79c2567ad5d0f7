//! The end of an HTTP/1.1 connection: the reply to what was not a request, and a client that is
//! still sending.

use super::raw_reply::raw_reply;
use super::watched_stream::WatchedStream;
use crate::policy::settings::Limits;
use crate::server::connection::{Closing, Connection};
use crate::server::linger::linger;
use tokio::sync::watch;

/// How hyper ended a connection.
pub(super) struct Ended {
    pub socket: WatchedStream,
    pub error: Option<hyper::Error>,
    /// Bytes that were received and not used.
    pub unused: bytes::Bytes,
}

/// Ends a connection. Returns once its socket can be closed.
pub(super) async fn end(ended: Ended, record: &Connection, limits: &Limits, stop: watch::Receiver<bool>) {
    let Ended { socket: WatchedStream { mut stream, refusal, .. }, error, unused } = ended;
    if record.closing() == Some(Closing::Unread) {
        stream.discard_unsent();
        return;
    }
    if error.as_ref().is_some_and(hyper::Error::is_timeout) {
        record.head_timed_out();
    }
    let last = match (refusal, &error) {
        (Some(status), error) => Some(refused(status, error.as_ref(), &unused, limits)),
        (None, _) if record.head_is_late() => Some(Refusal::late()),
        (None, Some(error)) if error.is_parse_version_h2() => Some(Refusal::http2()),
        (None, _) => None,
    };
    if let Some(Refusal { status, kind, message }) = &last {
        stream.send_last(raw_reply(status, kind, message, record.is_oip()).as_bytes()).await;
    }
    if last.is_some() || record.has_unread_body() || !unused.is_empty() {
        let was_slow = record.head_is_late();
        // Boxed, because this is rare and must not add to the future of every connection.
        Box::pin(linger(stream, was_slow, record, stop)).await;
    } else if error.is_none() {
        let _ = stream.end().await;
    }
}

/// Why a connection ends without a request.
struct Refusal {
    status: &'static str,
    kind: &'static str,
    message: String,
}

impl Refusal {
    fn new(status: &'static str, kind: &'static str, message: impl Into<String>) -> Self {
        Refusal { status, kind, message: message.into() }
    }

    fn invalid(message: impl Into<String>) -> Self {
        Refusal::new("400 Bad Request", "invalid_input", message)
    }

    fn late() -> Self {
        let message = "the request's headers did not arrive in time";
        Refusal::new("408 Request Timeout", "deadline", message)
    }

    fn http2() -> Self {
        Refusal::invalid(
            "the connection has begun with HTTP/1.1, and now begins HTTP/2; open another connection for it",
        )
    }
}

/// Returns the reply to a head that hyper refused with this status. `unused` are the bytes that
/// were received after what hyper has taken.
fn refused(status: u16, error: Option<&hyper::Error>, unused: &[u8], limits: &Limits) -> Refusal {
    // hyper tells some faults apart only in its messages.
    let why = error.map(ToString::to_string).unwrap_or_default();
    let max_kb = limits.max_header_bytes >> 10;
    match status {
        414 => uri_too_long(64),
        431 if first_line(unused) >= limits.max_header_bytes => uri_too_long(max_kb),
        431 if unused.len() >= limits.max_header_bytes || lines(unused) > HEADERS_MAX => Refusal::new(
            "431 Request Header Fields Too Large",
            "too_large",
            format!(
                "the request's head is over {max_kb} KB (see max_header_kb) or has more than {HEADERS_MAX} headers"
            ),
        ),
        // hyper has taken the head, so its length was not the fault: it calls a body too long with
        // the same words.
        431 => {
            let max_mb = limits.max_body_bytes >> 20;
            let message = format!(
                "Content-Length is over 2^64 - 3, which no body has; a body may have {max_mb} MB, see max_body_mb"
            );
            Refusal::new("413 Payload Too Large", "too_large", message)
        }
        _ if why.contains("content-length") => Refusal::invalid(
            "Content-Length is not one whole number of 64 bits; send it once, with digits only, or send a chunked body",
        ),
        _ if why.contains("unexpected transfer-encoding") => Refusal::invalid(
            "Transfer-Encoding is not a part of HTTP/1.0; send Content-Length, or use HTTP/1.1",
        ),
        _ if why.contains("transfer-encoding") => Refusal::invalid(
            "the last Transfer-Encoding is not chunked, so the length of the body is not known; send it as chunked, \
             or send Content-Length",
        ),
        _ => Refusal::invalid("the request is not HTTP/1.1: see its first line and its headers"),
    }
}

/// The most headers that hyper reads.
const HEADERS_MAX: usize = 100;

/// Returns the length of the first line of a head, as far as it was received.
fn first_line(head: &[u8]) -> usize {
    head.iter().position(|byte| *byte == b'\n').unwrap_or(head.len())
}

fn lines(head: &[u8]) -> usize {
    head.iter().filter(|byte| **byte == b'\n').count()
}

fn uri_too_long(max_kb: usize) -> Refusal {
    Refusal::new(
        "414 URI Too Long",
        "too_large",
        format!("the path is over {max_kb} KB; send long data in the body"),
    )
}
