//! Errors as gRPC statuses.

use super::body::Body;
use super::frame;
use super::readable_status::make_readable;
use crate::error::{Error, Kind};
use crate::server::oip::errors;
use hyper::Response;
use std::borrow::Cow;
use tonic::{Code, Status};

/// Clients accept 8 KB of headers by default, and the status message is a header.
const MESSAGE_BYTES_MAX: usize = 2 << 10;

/// Either the client or the host notices first that a deadline has passed, and programs look for
/// the words that the client uses.
const LATE: &str = "Deadline Exceeded";

/// Tells clients of gRPC when to try again, in milliseconds.
const PUSHBACK: &str = "grpc-retry-pushback-ms";

/// Maps an error kind to a status code. This is the only place that does.
pub(super) fn code_of(error: &Error) -> Code {
    match error.kind() {
        Kind::InvalidInput => Code::InvalidArgument,
        Kind::NotFound => Code::NotFound,
        Kind::Unsupported => Code::Unimplemented,
        Kind::TooLarge => Code::ResourceExhausted,
        // The caller has sent too much, not all callers together.
        Kind::Overloaded if error.when_to_retry().is_some() => Code::ResourceExhausted,
        Kind::Overloaded | Kind::Unavailable => Code::Unavailable,
        Kind::Deadline => Code::DeadlineExceeded,
        Kind::Cancelled => Code::Cancelled,
        Kind::Failed => Code::Internal,
        Kind::Conflict => Code::FailedPrecondition,
        Kind::Forbidden => Code::PermissionDenied,
        Kind::Unauthenticated => Code::Unauthenticated,
    }
}

pub(super) fn status_of(error: &Error) -> Status {
    let message = message_of(error);
    let message = &message[..message.floor_char_boundary(MESSAGE_BYTES_MAX)];
    let mut status = Status::new(code_of(error), message);
    if let Some(after) = error.when_to_retry() {
        let ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX).saturating_add(1);
        status.metadata_mut().insert(PUSHBACK, ms.into());
    }
    status
}

/// Returns the message of an error, as clients of gRPC know it.
pub(super) fn message_of(error: &Error) -> Cow<'_, str> {
    match error.kind() {
        Kind::Deadline => format!("{LATE}: {}", error.message()).into(),
        _ => error.message().into(),
    }
}

/// The beginning of prost's messages.
const UNDECODED: &str = "failed to decode Protobuf message: ";

pub(super) fn unreadable(what: &str, why: &str) -> Error {
    Error::invalid(format!("the message {what}: {}", why.strip_prefix(UNDECODED).unwrap_or(why)))
}

/// Returns the error for a status by which tonic says that it cannot read a message; tonic's own
/// code blames the host. `None` for every other status. `what` is the error text for bytes that are
/// not a message.
pub(super) fn of_reading(status: &Status, what: &str, message_bytes_max: usize) -> Option<Error> {
    let text = status.message();
    let text = text.trim_end_matches(", while sending request");
    match status.code() {
        // Over the limit as received, or after unpacking.
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

/// Parts of tonic's messages about a message over the limit.
const TOO_LARGE: [&str; 2] = ["message length too large", "exceeded while decompressing"];

/// Returns a reply that is only an error.
pub(super) fn refusal(error: &Error) -> Response<Body> {
    let mut response = status_of(error).into_http();
    make_readable(response.headers_mut());
    response
}

/// Returns a reply of tonic's, corrected if it blames the host for a message that cannot be read.
pub(super) fn corrected(response: Response<tonic::body::Body>, message_bytes_max: usize) -> Response<Body> {
    let is_refusal = response.headers().contains_key("grpc-status");
    let status = is_refusal.then(|| Status::from_header_map(response.headers())).flatten();
    match status.and_then(|status| of_reading(&status, "cannot be read", message_bytes_max)) {
        Some(error) => refusal(&error),
        None => {
            let mut response = response.map(Body::Tonic);
            make_readable(response.headers_mut());
            response
        }
    }
}

/// Returns the status under which a request is counted: that of HTTP for the same outcome.
pub(super) fn counted(error: Option<&Error>) -> u16 {
    error.map_or(200, |error| errors::status_of(error).as_u16())
}
