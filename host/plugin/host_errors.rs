//! Errors that host calls returned to a guest, recognised when the guest returns one of them.
//!
//! An error of the contract has a kind, a message and a field; nothing in it says who chose the
//! kind. A guest that passes on the error of a host call has not chosen it: what the host says
//! about the guest's call must not reach the client as a statement about the request.

use super::bindings::types;
use crate::error::{Error, FaultOwner};
use std::collections::VecDeque;

/// Errors that are remembered; the oldest is forgotten first.
const ERRORS_MAX: usize = 64;

#[derive(Default)]
pub(super) struct HostErrors(VecDeque<Error>);

impl HostErrors {
    /// Remembers an error, and returns what the guest sees of it.
    pub fn record(&mut self, error: Error) -> types::Error {
        let lowered = lower(&error);
        if self.0.len() == ERRORS_MAX {
            self.0.pop_front();
        }
        self.0.push_back(error);
        lowered
    }

    /// Finds the host's error that a guest returns: it has the same kind and the same field, and
    /// its message is part of the guest's, which may add text of its own.
    fn find(&self, returned: &types::Error) -> Option<&Error> {
        self.0.iter().rev().find(|error| {
            types::ErrorKind::from(error.kind()) == returned.kind
                && error.field_name() == returned.field.as_deref()
                && returned.message.contains(error.message())
        })
    }

    /// Returns the error of a guest of `plugin` if the host returned it to the guest before.
    pub fn find_returned(&self, returned: &types::Error, plugin: &str) -> Option<Error> {
        let error = self.find(returned)?.clone().with_message(&returned.message);
        Some(error.returned_by(plugin))
    }

    /// Converts the error that a guest of `plugin` returns.
    pub fn returned(&self, returned: types::Error, plugin: &str) -> Error {
        self.find_returned(&returned, plugin).unwrap_or_else(|| guest_error(returned).plugin(plugin))
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }
}

/// Converts an error that a guest has made itself.
pub(super) fn guest_error(error: types::Error) -> Error {
    let mapped = Error::new(error.kind.into(), error.message).owned_by(FaultOwner::Plugin);
    match error.field {
        Some(field) => mapped.field(field),
        None => mapped,
    }
}

fn lower(error: &Error) -> types::Error {
    types::Error {
        kind: error.kind().into(),
        message: error.message().to_owned(),
        field: error.field_name().map(str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn an_error_that_is_passed_on_is_the_plugins_and_one_of_its_own_is_kept() {
        let mut host_errors = HostErrors::default();
        let given = host_errors.record(Error::not_found("no model \"nope\""));
        let passed = host_errors.returned(given.clone(), "p");
        assert_eq!((passed.kind(), passed.plugin_name()), (Kind::Failed, Some("p")));
        assert_eq!(passed.message(), "plugin \"p\": a host call failed with not_found: no model \"nope\"");
        let more = types::Error { message: format!("while asking: {}", given.message), ..given.clone() };
        let passed = host_errors.returned(more, "p");
        assert_eq!(passed.kind(), Kind::Failed);
        assert!(passed.message().ends_with("not_found: while asking: no model \"nope\""), "{passed}");

        // Another kind, another message, a field: the guest has chosen.
        let own = types::Error { kind: types::ErrorKind::InvalidInput, ..given.clone() };
        assert_eq!(host_errors.returned(own, "p").kind(), Kind::InvalidInput);
        let own = types::Error { message: "no such user".into(), ..given.clone() };
        assert_eq!(host_errors.returned(own, "p").kind(), Kind::NotFound);
        let own = types::Error { field: Some("user".into()), ..given };
        assert_eq!(host_errors.returned(own, "p").kind(), Kind::NotFound);
    }

    #[test]
    fn what_says_nothing_about_the_request_and_what_is_about_the_callers_data_keep_their_kind() {
        let mut host_errors = HostErrors::default();
        for kind in [Kind::Overloaded, Kind::Unavailable, Kind::Deadline, Kind::Cancelled, Kind::Failed] {
            let given = host_errors.record(Error::new(kind, "why"));
            assert_eq!(host_errors.returned(given, "p").kind(), kind);
        }
        let given =
            host_errors.record(Error::invalid("x is too long").owned_by(FaultOwner::Caller).graph_refusal());
        let passed = host_errors.returned(given, "p");
        assert_eq!((passed.kind(), passed.is_graph_refusal()), (Kind::InvalidInput, true));
        let given =
            host_errors.record(Error::invalid("y is too long").owned_by(FaultOwner::Maker).plugin("other"));
        let passed = host_errors.returned(given, "p");
        assert_eq!((passed.kind(), passed.plugin_name()), (Kind::Failed, Some("other")));
    }

    #[test]
    fn the_oldest_are_forgotten() {
        let mut host_errors = HostErrors::default();
        let first = host_errors.record(Error::not_found("first"));
        (0..ERRORS_MAX).for_each(|n| drop(host_errors.record(Error::overloaded(n.to_string()))));
        assert_eq!(host_errors.returned(first, "p").kind(), Kind::NotFound);
        assert_eq!(host_errors.0.len(), ERRORS_MAX);
    }
}
