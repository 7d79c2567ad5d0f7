//! What an error is in gRPC.

use super::frame::Body;
use crate::error::{Error, Kind};
use crate::server::oip;
use hyper::Response;
use tonic::{Code, Status};

/// Clients take eight kilobytes of headers by default, and a status is one.
const MESSAGE_BYTES_MAX: usize = 2 << 10;

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
    }
}

pub(super) fn status_of(error: &Error) -> Status {
    let message = error.message();
    let message = &message[..message.floor_char_boundary(MESSAGE_BYTES_MAX)];
    Status::new(code_of(error), message)
}

/// A call's answer that is an error and nothing else.
pub(super) fn refusal(error: &Error) -> Response<Body> {
    status_of(error).into_http()
}

/// Requests are counted under the status that HTTP has for the same outcome, whatever the protocol.
pub(super) fn counted(error: Option<&Error>) -> u16 {
    error.map_or(200, |error| oip::status_of(error).as_u16())
}
