//! What an error is in gRPC.

use super::frame::{self, Body};
use crate::error::{Error, Kind};
use crate::server::oip;
use hyper::Response;
use tonic::{Code, Status};

/// Clients take eight kilobytes of headers by default, and a status is one.
const MESSAGE_BYTES_MAX: usize = 2 << 10;

/// Whoever sees first that a deadline has passed says so, the client or the host, and programs look for the client's
/// words.
const LATE: &str = "Deadline Exceeded";

/// Error kind to status code: the one place that says so.
pub(super) fn code_of(error: &Error) -> Code {
    match error.kind() {
        Kind::InvalidInput => Code::InvalidArgument,
        Kind::NotFound => Code::NotFound,
        Kind::Unsupported => Code::Unimplemented,
        Kind::TooLarge => Code::ResourceExhausted,
        Kind::Overloaded | Kind::Unavailable => Code::Unavailable,
        Kind::Deadline => Code::DeadlineExceeded,
        Kind::Cancelled => Code::Cancelled,
        Kind::Failed => Code::Internal,
        Kind::Conflict => Code::FailedPrecondition,
        Kind::Forbidden => Code::PermissionDenied,
    }
}

pub(super) fn status_of(error: &Error) -> Status {
    let message = error.message();
    let message = &message[..message.floor_char_boundary(MESSAGE_BYTES_MAX)];
    match code_of(error) {
        Code::DeadlineExceeded => Status::deadline_exceeded(format!("{LATE}: {message}")),
        code => Status::new(code, message),
    }
}

/// How prost begins, before it says what is wrong.
const UNDECODED: &str = "failed to decode Protobuf message: ";

pub(super) fn unreadable(what: &str, why: &str) -> Error {
    Error::invalid(format!("the message {what}: {}", why.strip_prefix(UNDECODED).unwrap_or(why)))
}

/// What tonic's statuses about a message that it cannot read mean; it says that they are the host's own faults. None
/// for every other status. `what` is said of a message whose bytes are none.
pub(super) fn of_reading(status: &Status, what: &str, message_bytes_max: usize) -> Option<Error> {
    let text = status.message();
    let text = text.trim_end_matches(", while sending request");
    match status.code() {
        // As it comes, or as it unpacks.
        Code::OutOfRange | Code::ResourceExhausted if TOO_LARGE.iter().any(|words| text.contains(words)) => {
            Some(frame::too_large(message_bytes_max))
        }
        Code::Internal if text.starts_with(UNDECODED) => Some(unreadable(what, text)),
        Code::Internal if text == "Missing request message." => Some(Error::invalid(frame::NO_MESSAGE)),
        Code::Internal if text == "Unexpected EOF decoding stream." => {
            Some(Error::invalid("the message breaks off before its end"))
        }
        Code::Internal => {
            let unpacked = text.strip_prefix("Error decompressing: ");
            let framed = text.strip_prefix("protocol error: received message ");
            let unpacked = unpacked.map(|why| Error::invalid(format!("the message does not unpack: {why}")));
            unpacked.or_else(|| {
                framed.map(|why| Error::invalid(format!("the message cannot be read: it came {why}")))
            })
        }
        _ => None,
    }
}

/// How tonic speaks of messages over the limit.
const TOO_LARGE: [&str; 2] = ["message length too large", "exceeded while decompressing"];

/// A call's answer that is an error and nothing else.
pub(super) fn refusal(error: &Error) -> Response<Body> {
    status_of(error).into_http()
}

/// An answer of tonic's, unless it blames the host for a message that cannot be read.
pub(super) fn corrected(response: Response<tonic::body::Body>, message_bytes_max: usize) -> Response<Body> {
    let is_refusal = response.headers().contains_key("grpc-status");
    let status = is_refusal.then(|| Status::from_header_map(response.headers())).flatten();
    match status.and_then(|status| of_reading(&status, "cannot be read", message_bytes_max)) {
        Some(error) => refusal(&error),
        None => response.map(Body::Tonic),
    }
}

/// Requests are counted under the status that HTTP has for the same outcome, whatever the protocol.
pub(super) fn counted(error: Option<&Error>) -> u16 {
    error.map_or(200, |error| oip::status_of(error).as_u16())
}
