//! What a remote's refusal means here: the one place that turns gRPC codes into kinds.

use crate::error::{Error, Kind};
use tonic::{Code, Status};

/// What happened to an RPC that gave no answer.
#[derive(Debug)]
pub(super) enum Fault {
    /// The connection broke or could not be made: the remote said nothing.
    Broken(String),
    /// The remote, or this side's limits, refused.
    Refused(Error),
}

pub(super) fn fault(status: &Status) -> Fault {
    match broken(status) {
        Some(why) => Fault::Broken(why),
        None => Fault::Refused(refusal(status)),
    }
}

/// Why the connection failed, if that is what happened: an answer of the remote has no source here.
fn broken(status: &Status) -> Option<String> {
    let mut cause = std::error::Error::source(status)?;
    // The first says where it happened, the last what it was.
    while let Some(next) = cause.source() {
        cause = next;
    }
    match status.code() {
        // This side's own clock.
        _ if status.message() == TIMEOUT => None,
        _ => Some(cause.to_string()),
    }
}

/// How tonic says that the time of a call has passed here before the remote has said so.
const TIMEOUT: &str = "Timeout expired";

/// A model that the remote does not know, or has unloaded, was there when it was loaded here: the caller's name is
/// right, so it is away and not unknown.
fn kind_of(status: &Status) -> Kind {
    match status.code() {
        Code::InvalidArgument | Code::OutOfRange | Code::FailedPrecondition | Code::AlreadyExists => {
            if too_large(status) {
                Kind::TooLarge
            } else {
                Kind::InvalidInput
            }
        }
        Code::Unimplemented => Kind::Unsupported,
        Code::ResourceExhausted if too_large(status) => Kind::TooLarge,
        Code::ResourceExhausted => Kind::Overloaded,
        Code::NotFound | Code::Unavailable => Kind::Unavailable,
        Code::DeadlineExceeded => Kind::Deadline,
        Code::Cancelled if status.message() == TIMEOUT => Kind::Deadline,
        // Whoever cancels on this side does not look at the answer.
        Code::Cancelled => Kind::Unavailable,
        Code::Ok
        | Code::Unknown
        | Code::PermissionDenied
        | Code::Unauthenticated
        | Code::Aborted
        | Code::Internal
        | Code::DataLoss => Kind::Failed,
    }
}

/// Servers and clients of gRPC share no code for a message over the limit, but they share these words.
fn too_large(status: &Status) -> bool {
    ["larger than max", "too large"].iter().any(|words| status.message().contains(words))
}

/// The remote's own words. Where in its code a model has raised is for the log.
fn refusal(status: &Status) -> Error {
    let message = status.message().trim();
    let words = match message.split_once("\n\nAt:") {
        Some((words, _)) => words.trim_end(),
        None => message,
    };
    let kind = kind_of(status);
    match words {
        "" => Error::new(kind, format!("the remote answered {:?} and nothing more", status.code())),
        words if words.len() < message.len() => Error::new(kind, words).with_detail(message),
        words => Error::new(kind, words),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_become_kinds_and_keep_the_message() {
        for (code, message, kind) in [
            (Code::InvalidArgument, "unexpected shape", Kind::InvalidInput),
            (Code::NotFound, "unknown model", Kind::Unavailable),
            (Code::Unavailable, "no available versions", Kind::Unavailable),
            (Code::Unimplemented, "decoupled", Kind::Unsupported),
            (Code::ResourceExhausted, "Received message larger than max (9 vs. 4)", Kind::TooLarge),
            (Code::ResourceExhausted, "quota", Kind::Overloaded),
            (Code::OutOfRange, "decoded message length too large: found 9 bytes", Kind::TooLarge),
            (Code::DeadlineExceeded, "Deadline Exceeded", Kind::Deadline),
            (Code::Cancelled, TIMEOUT, Kind::Deadline),
            (Code::Cancelled, "by the server", Kind::Unavailable),
            (Code::Internal, "ValueError: boom", Kind::Failed),
        ] {
            let Fault::Refused(error) = fault(&Status::new(code, message)) else { panic!("{code:?}") };
            assert_eq!((error.kind(), error.message()), (kind, message), "{code:?}");
        }
    }

    #[test]
    fn where_a_model_has_raised_is_for_the_log() {
        let status =
            Status::new(Code::Internal, "ValueError: boom\n\nAt:\n  /models/m/1/model.py(9): execute\n");
        let Fault::Refused(error) = fault(&status) else { panic!("a refusal") };
        assert_eq!(error.message(), "ValueError: boom");
        assert!(error.detail().is_some_and(|detail| detail.contains("model.py(9)")));
    }

    #[test]
    fn a_broken_connection_is_told_apart_by_its_cause() {
        let cause = std::io::Error::new(std::io::ErrorKind::ConnectionRefused, "connection refused");
        let status = Status::from_error(Box::new(cause));
        assert!(matches!(fault(&status), Fault::Broken(why) if why == "connection refused"));
    }
}
