//! The HTTP interface that a path belongs to, which decides the form of an error.

use super::http::{self, Reply};
use super::oip::errors;
use crate::error::Error;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Api {
    /// `/predict`, `/jobs`, health, metrics and everything else.
    Plain,
    /// `/v2…`, the Open Inference Protocol.
    Oip,
}

impl Api {
    pub fn of(path: &str) -> Self {
        if path == "/v2" || path.starts_with("/v2/") { Api::Oip } else { Api::Plain }
    }

    /// Returns an error in the form of this interface, for a request that has no id yet.
    pub fn error_reply(self, error: &Error) -> Reply {
        self.error_reply_for(error, "")
    }

    /// Returns an error in the form of this interface, for the request with this id.
    pub fn error_reply_for(self, error: &Error, id: &str) -> Reply {
        match self {
            Api::Plain => http::error_reply(error, id),
            Api::Oip => errors::error_reply(error),
        }
    }
}
