//! Calls to the HTTP servers that the manifest allows under `[plugins.<name>.http]`. A component
//! that calls [`fetch`] imports the interface `hostler:plugin/http`.
//!
//! ```no_run
//! use hostler_plugin::{Error, http};
//!
//! fn features(user: u64) -> Result<String, Error> {
//!     let request = http::Request::get(format!("https://features.internal:8080/users/{user}"));
//!     http::fetch(request.header("accept", "application/json"))?.success()?.text()
//! }
//! ```

use crate::Error;
use crate::bindings::http;
use std::time::Duration;

pub use crate::bindings::http_types::{HttpRequest as Request, HttpResponse as Response};

/// Sends a request and waits for the whole response, with any status; redirects are not followed.
/// The guest leaves its worker while it waits. A streaming model uses
/// [`concurrent::fetch`](crate::concurrent::fetch) instead.
///
/// An error means that there is no response: `unsupported` if the manifest does not allow the
/// server, `unavailable` if it cannot be reached or the connection breaks off, `deadline`,
/// `too-large`, `overloaded`, or `invalid-input` if the request is not valid.
pub fn fetch(request: Request) -> Result<Response, Error> {
    http::fetch(&request)
}

impl Request {
    /// Creates a request without headers and body. Methods are in upper case.
    pub fn new(method: impl Into<String>, url: impl Into<String>) -> Self {
        let (headers, body) = Default::default();
        Request { method: method.into(), url: url.into(), headers, body, timeout_ms: None }
    }

    /// Creates a `GET` request.
    pub fn get(url: impl Into<String>) -> Self {
        Request::new("GET", url)
    }

    /// Creates a `POST` request with a body and the header `content-type`.
    pub fn post(url: impl Into<String>, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        Request { body: body.into(), ..Request::new("POST", url) }.header("content-type", content_type)
    }

    /// Adds a header.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Sets the time until the call fails with `deadline`, if the manifest's timeout is not
    /// shorter. It is rounded down to milliseconds.
    pub fn timeout(mut self, time: Duration) -> Self {
        self.timeout_ms = Some(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        self
    }
}

impl Response {
    /// Creates a response without headers, for tests.
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Response { status, headers: Vec::new(), body: body.into() }
    }

    /// Returns the first header with this name, which must be in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Returns the response if its status is 2xx, otherwise an error that is not the caller's
    /// fault.
    pub fn success(self) -> Result<Response, Error> {
        match self.status {
            200..=299 => Ok(self),
            status => Err(Error::failed(format!("the server answered with status {status}"))),
        }
    }

    /// Returns the body as text.
    pub fn text(self) -> Result<String, Error> {
        String::from_utf8(self.body)
            .map_err(|_| Error::failed("the body of the server's response is not UTF-8"))
    }
}
