//! Maps the gRPC status of a remote to an error. This is the only place that maps gRPC codes to
//! kinds of errors.

use crate::error::{Error, Kind};
use tonic::{Code, Status};

/// The reason why an RPC failed.
#[derive(Debug)]
pub(super) enum Fault {
    /// The connection broke or could not be made. The remote has not answered.
    Broken(String),
    /// The remote, or a limit of this host, refused the request.
    Refused(Error),
}

pub(super) fn fault(status: &Status) -> Fault {
    match broken(status) {
        Some(why) => Fault::Broken(why),
        None => Fault::Refused(refusal(status)),
    }
}

/// Returns why the connection failed. `None` if it did not: a status that the remote sent has no
/// source error.
fn broken(status: &Status) -> Option<String> {
    let mut cause = std::error::Error::source(status)?;
    // The first cause says where it happened, the last one what it was.
    while let Some(next) = cause.source() {
        cause = next;
    }
    match status.code() {
        // The time limit of this host passed.
        _ if status.message() == TIMEOUT => None,
        _ => Some(cause.to_string()),
    }
}

/// The message of tonic for a call whose time limit passed on this host before the remote answered.
const TIMEOUT: &str = "Timeout expired";

/// Returns the kind of error for a status. `NotFound` maps to `Unavailable`: the remote had the
/// model when it was loaded here, so the caller's model name is right.
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
        // If this host had cancelled the call, nothing would read this status.
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

/// Returns true if a message exceeded a size limit. gRPC servers and clients have no common code
/// for that, but their messages contain these phrases.
fn too_large(status: &Status) -> bool {
    ["larger than max", "too large"].iter().any(|words| status.message().contains(words))
}

/// Returns an error with the remote's message. The location in the model's code, if the message has
/// one, becomes the detail for the log.
fn refusal(status: &Status) -> Error {
    let message = status.message().trim();
    let words = match message.split_once("\n\nAt:") {
        Some((words, _)) => words.trim_end(),
        None => message,
    };
    let kind = kind_of(status);
    match words {
        "" => Error::new(kind, format!("the remote answered {:?} without a message", status.code())),
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
