//! Constructors for the contract's error. Its kind decides what the caller receives: see
//! `error-kind` in `wit/hostler.wit`.

use crate::{Error, ErrorKind};

impl Error {
    /// The caller's input is wrong at `field`, a path that the caller can recognise:
    /// `items[3].name`.
    pub fn invalid(field: impl Into<String>, message: impl Into<String>) -> Error {
        Error { field: Some(field.into()), ..Error::of(ErrorKind::InvalidInput, message) }
    }

    /// The caller's input is wrong as a whole.
    pub fn invalid_input(message: impl Into<String>) -> Error {
        Error::of(ErrorKind::InvalidInput, message)
    }

    /// Something that the caller named does not exist.
    pub fn not_found(message: impl Into<String>) -> Error {
        Error::of(ErrorKind::NotFound, message)
    }

    /// A valid request for something that is not offered.
    pub fn unsupported(message: impl Into<String>) -> Error {
        Error::of(ErrorKind::Unsupported, message)
    }

    /// The input or the answer exceeds a limit.
    pub fn too_large(message: impl Into<String>) -> Error {
        Error::of(ErrorKind::TooLarge, message)
    }

    /// An error that is not the caller's fault.
    pub fn failed(message: impl Into<String>) -> Error {
        Error::of(ErrorKind::Failed, message)
    }

    /// An error of any kind, without a field.
    pub fn of(kind: ErrorKind, message: impl Into<String>) -> Error {
        Error { kind, message: message.into(), field: None }
    }
}
