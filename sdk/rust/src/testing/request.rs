//! Requests of a test.

use super::clock::current_time;
use crate::{Parameter, Request};
use std::collections::BTreeMap;
use std::time::Duration;

/// Times are those of the host's clock.
#[derive(Debug, Default)]
pub(crate) struct RequestData {
    pub id: String,
    pub model: String,
    pub version: String,
    pub parameters: BTreeMap<String, Parameter>,
    pub note: Vec<u8>,
    pub deadline: Option<Duration>,
    pub cancelled_at: Option<Duration>,
}

/// For tests: these functions do not exist in a component, where the host makes the requests.
impl Request {
    /// Sets the id. The requests of a host are `request-1`, `request-2` and so on.
    pub fn with_id(self, id: &str) -> Request {
        self.get().id = id.into();
        self
    }

    /// Sets the model and its version. The default is the version `1` of `model`.
    pub fn with_model(self, model: &str, version: &str) -> Request {
        let mut data = self.get();
        (data.model, data.version) = (model.into(), version.into());
        drop(data);
        self
    }

    /// Sets a parameter: a `bool`, an `i64`, an `f64`, a `&str` or a [`Parameter`].
    ///
    /// ```
    /// use hostler_plugin::testing::Host;
    ///
    /// let host = Host::new();
    /// let request = host.request().with_parameter("explain", true).with_parameter("rows", 3);
    /// assert!(request.flag("explain").unwrap());
    /// assert_eq!(request.integer("rows").unwrap(), Some(3));
    /// ```
    pub fn with_parameter(self, name: &str, value: impl Into<Parameter>) -> Request {
        self.get().parameters.insert(name.into(), value.into());
        self
    }

    /// Sets the note that an earlier call for the request has stored.
    pub fn with_note(self, note: &[u8]) -> Request {
        self.set_note(note);
        self
    }

    /// Sets the deadline to `time` from now, on the host's clock. The default is none.
    pub fn with_timeout(self, time: Duration) -> Request {
        self.get().deadline = Some(current_time().saturating_add(time));
        self
    }

    /// Lets the client disconnect after `time`, on the host's clock. Zero is now.
    pub fn with_cancellation(self, time: Duration) -> Request {
        self.get().cancelled_at = Some(current_time().saturating_add(time));
        self
    }
}
