//! Where traces go, and which requests are traced.

use std::path::PathBuf;

/// `[server.traces]`
#[derive(Clone, Debug, PartialEq)]
pub struct TraceSettings {
    /// `http://HOST:PORT` or `https://HOST:PORT`, with a path for OTLP over HTTP.
    pub endpoint: String,
    pub protocol: TraceProtocol,
    /// The share of requests that are traced, of those that do not come with a trace.
    pub sample: f64,
    /// Whether the caller's `traceparent` decides, where there is one.
    pub follow_parent: bool,
    /// The attribute `service.name`.
    pub service_name: String,
    /// Certificates in PEM that are trusted instead of the machine's own.
    pub ca: Option<PathBuf>,
    /// A file of headers for the collector, one `name: value` a line.
    pub headers: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TraceProtocol {
    Grpc,
    Http,
}
